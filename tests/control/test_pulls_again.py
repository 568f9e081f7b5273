"""Orders whose transfer, agreement or disk ends before they do: what has come is kept, what is missing comes another way, and
whoever gives up says so to the other side."""

import asyncio
import hashlib
import os
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from connector import app
from connector.app import Automatic
from connector.control import pulls
from connector.control.operate import Operations
from connector.dsp import wire
from connector.dsp.exchange import Process
from connector.dsp.messages import Move, Role
from connector.errors import ConnectorError, Contradiction, PeerRefused, SinkFailed
from connector.intake import patience
from connector.intake.download import Downloads
from connector.metering.live import LOST
from connector.records import Agreement, Changes, Edr, Pull
from connector.values import replace
from tests.control.orders import (
    BIG,
    CONTENT,
    D,
    N,
    T,
    Upstream,
    at_stage,
    counts,
    order,
    place,
    restartable,
    settled,
    stages,
    under_way,
    upstream,
    went_on,
)
from tests.pair import ADDRESS, WAIT_SECONDS, Desk, Pair, Running, agreement, desk, pair, running, transfer

HALF = len(BIG) // 2
DIGEST = hashlib.sha256(CONTENT).digest()
REFUSED_ONCE = "agreement `{}` from an earlier order could not be used: the transfer ended in TERMINATED: "


@pytest_asyncio.fixture
async def both(tmp_path: Path) -> AsyncIterator[Pair]:
    async with pair(tmp_path) as made:
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal of the data listener is believed sooner than in the field."""
    monkeypatch.setattr(patience, "REFUSED_SECONDS", 0.2)


async def transfers_of(us: Running) -> list[dict[str, Any]]:
    """Oldest first."""
    return list(reversed((await us.asked("GET", "/transfers"))["items"]))


class Lost(Downloads):
    """Downloads whose first one meets a log that is lost, or another `failure`, in the moment in which the transfer ends so."""

    both: Pair
    fetches, ends = 0, "terminate"
    failure: ConnectorError = PeerRefused("it is lost; begin another transfer", status=410, said=LOST)

    async def fetch(self, pull: Pull, edr: Edr | None, **more: Any) -> Pull:
        Lost.fetches += 1
        if Lost.fetches > 1:
            return await super().fetch(pull, edr, **more)
        over = asyncio.Event()
        self.both.consumer.connector.journal.listen(lambda changes, _: over.set() if _ended(changes, pull.transfer) else None)
        await self.both.provider.asked("POST", f"/transfers/{(await transfers_of(self.both.provider))[0]['pid']}/{Lost.ends}")
        await over.wait()
        raise Lost.failure


def _ended(changes: Changes, pid: str | None) -> bool:
    return any(isinstance(record, Process) and record.pid == pid and record.final for record in changes.saves)


# The transfer is over, and something is missing


@pytest.mark.asyncio
async def test_a_log_that_is_lost_as_its_transfer_ends_is_no_end_of_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(app, "Downloads", Lost)
    async with pair(tmp_path) as both:
        Lost.both, Lost.fetches = both, 0
        await both.provider.publish(D, content=CONTENT)
        done = await settled(both.consumer, (await order(both.consumer))["id"])
        assert (done.stage, done.transfers, Lost.fetches) == ("done", 1, 2)
        assert place(both.consumer).read_bytes() == CONTENT
        assert [each["state"] for each in await transfers_of(both.consumer)] == ["TERMINATED", "COMPLETED"]


@pytest.mark.asyncio
async def test_an_order_that_waits_for_room_outlives_the_completion_of_its_transfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(app, "Downloads", Lost)
    monkeypatch.setattr(Lost, "ends", "complete")
    monkeypatch.setattr(Lost, "failure", SinkFailed("the disk is full", full=True))
    async with pair(tmp_path) as both:
        Lost.both, Lost.fetches = both, 0
        await both.provider.publish(D, content=CONTENT)
        done = await settled(both.consumer, (await order(both.consumer))["id"])
        assert (done.stage, done.transfers, Lost.fetches, place(both.consumer).read_bytes()) == ("done", 1, 2, CONTENT)


@pytest.mark.asyncio
async def test_what_is_missing_when_the_provider_completes_comes_by_another_transfer_under_the_same_agreement(both: Pair):
    async with upstream() as source:
        pull = await under_way(both, source)
        first = (await transfers_of(both.provider))[0]["pid"]
        source.held = False
        await both.provider.asked("POST", f"/transfers/{first}/complete")
        done = await settled(both.consumer, pull.id)
        assert place(both.consumer).read_bytes() == BIG
        assert (done.stage, done.sha256, done.transfers) == ("done", hashlib.sha256(BIG).digest(), 1)
        assert await counts(both.provider) == await counts(both.consumer) == (1, 1, 2)
        assert source.asked[-1] == HALF, "nothing came twice"
        why = f"the provider completed transfer `{pull.transfer}` before all of the data had come"
        assert (len(done.reasons), why in done.reasons[0]) == (1, True)
        assert (await both.consumer.asked("GET", f"/pulls/{pull.id}"))["reasons"] == list(done.reasons)
        rows = [e for e in await both.consumer.connector.store.events(0, 1000) if e.what == "pull" and e.detail["reasons"]]
        assert rows[0].detail["stage"] == "transfer", "the record says when, and why"
        assert await stages(both.consumer, pull.id) == ["negotiate", "transfer", "download", "transfer", "download", "complete", "done"]
        assert [each["state"] for each in await transfers_of(both.consumer)] == ["COMPLETED"] * 2


@pytest.mark.asyncio
async def test_a_consumer_that_comes_back_after_its_transfer_was_completed_fetches_only_the_rest(tmp_path: Path):
    async with restartable(tmp_path) as (provider, consumer), upstream() as source:
        async with running(consumer) as us:
            pull = await under_way(Pair(provider, us), source)
        source.held = False
        first = (await transfers_of(provider))[0]["pid"]
        await provider.asked("POST", f"/transfers/{first}/complete")
        source.go_on.set()
        async with running(consumer) as us:
            done = await settled(us, pull.id)
            assert (done.stage, place(consumer).read_bytes() == BIG) == ("done", True)
            assert await counts(us) == await counts(provider) == (1, 1, 2)
            await provider.state(T, first, "COMPLETED")
        assert 0 < source.asked[-1] <= HALF


async def downloading(at: Desk, state: str = "STARTED", endpoint: str = "", **changed: Any) -> tuple[Pull, Process, Agreement]:
    """An order that has come to the download (or to another stage), and its transfer in `state`."""
    agreed = agreement(at.us, at.peer, Role.CONSUMER, dataset=D)
    process = await at.us.put(transfer(at.us, at.peer, state, Role.CONSUMER, agreed), agreed)
    pull = Pull(
        "p", at.peer.id, D, str(place(at.us)), "download",
        negotiation="n", agreement=agreed.id, transfer=process.pid, version=1, created=1.0, updated=1.0,
    )  # fmt: skip
    pull = replace(pull, **changed)
    address = {"@type": "DataAddress", "endpoint": endpoint or f"{at.peer.site.base}/bytes"}
    edr = () if process.final else (Edr(process.pid, address, "token", None, None, None),)
    await at.us.connector.journal.commit(Changes(saves=(pull, *edr)))
    return pull, process, agreed


@pytest.mark.asyncio
async def test_a_refusal_whose_reason_is_still_on_its_way_is_asked_about_and_waited_for(tmp_path: Path):
    """The provider has completed while we were away, and tries to tell us when it hears from us."""
    async with desk(tmp_path, store="sqlite", approver=Automatic(0)) as at:
        _, process, agreed = await downloading(at)
        here = at.us.site
        await at.us.connector.close()
        at.peer.script = lambda _method, path, _document: (403, None) if path == "/bytes" else None
        at.peer.states[process.peer_pid] = "STARTED"  # our answer to its message is missing
        async with running(here) as again:
            await at.peer.heard(f"/transfers/{process.peer_pid}")
            completion = wire.message(Move.COMPLETION, consumer_pid=process.pid, provider_pid=process.peer_pid)
            assert (await at.peer.send(again, "POST", f"/transfers/{process.pid}/completion", completion)).status == 200
            request = await at.peer.heard("/transfers/request")
            assert (request["agreementId"], request["consumerPid"] != process.pid) == (agreed.id, True)
            assert (await again.connector.store.pull("p")).stage == "transfer"


@pytest.mark.asyncio
async def test_a_refusal_that_nothing_explains_fails_the_order_and_ends_the_transfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pulls, "EXPLAIN_SECONDS", 0.1)
    async with desk(tmp_path, store="sqlite", approver=Automatic(0)) as at:
        _, process, _ = await downloading(at)
        here = at.us.site
        await at.us.connector.close()
        at.peer.script = lambda _method, path, _document: (403, None) if path == "/bytes" else None
        async with running(here) as again:
            failed = await settled(again, "p")
            why = "the provider's data listener answered with status 403"
            assert (failed.stage, failed.reasons) == ("failed", (why,))
            told = await at.peer.heard(f"/transfers/{process.peer_pid}/termination")
            assert told["reason"] == [f"the consumer could not fetch the data: {why}"]
            await again.state(T, process.pid, "TERMINATED")


@pytest.mark.asyncio
async def test_a_provider_that_completes_every_transfer_at_once_is_not_asked_for_ever(tmp_path: Path):
    async with desk(tmp_path, store="sqlite", approver=Automatic(0)) as at:
        pull, _, agreed = await downloading(at, "COMPLETED")
        here = at.us.site
        await at.us.connector.close()
        async with running(here) as again:
            for count in range(1, pulls.TRANSFERS_MAX):
                ours = (await at.peer.heard("/transfers/request", count))["consumerPid"]
                theirs = (await again.until(T, ours, lambda p: p.state == "REQUESTED")).peer_pid
                for move, more in ((Move.START, {"dataAddress": ADDRESS}), (Move.COMPLETION, {})):
                    said = wire.message(move, consumer_pid=ours, provider_pid=theirs, **more)
                    path = f"/transfers/{ours}/{'start' if move is Move.START else 'completion'}"
                    assert (await at.peer.send(again, "POST", path, said)).status == 200
            failed = await settled(again, pull.id)
            assert (failed.stage, len(failed.reasons)) == ("failed", pulls.TRANSFERS_MAX)
            assert f"after {pulls.TRANSFERS_MAX} transfers no other one is begun, and the part is kept" in failed.reasons[-1]
        asked = [document["agreementId"] for _, path, document in at.peer.calls if path == "/transfers/request"]
        assert asked == [agreed.id] * (pulls.TRANSFERS_MAX - 1)


@asynccontextmanager
async def cut_off(tmp_path: Path, code: str) -> AsyncIterator[tuple[Running, Upstream, Pull]]:
    """An order that has got half of the data when the word comes that its transfer has ended; the rest is on its way."""
    async with desk(tmp_path, store="sqlite", approver=Automatic(0)) as at, upstream() as source:
        source.held = True
        pull, process, _ = await downloading(at, endpoint=source.url)
        here = at.us.site
        await at.us.connector.close()
        async with running(here) as us:
            async with asyncio.timeout(WAIT_SECONDS):
                await source.waiting.wait()
            said = {"code": code, "reason": ["all is used up"]}
            message = wire.message(Move.TRANSFER_TERMINATION, consumer_pid=process.pid, provider_pid=process.peer_pid, **said)
            assert (await at.peer.send(us, "POST", f"/transfers/{process.pid}/termination", message)).status == 200
            await us.state(T, process.pid, "TERMINATED")
            await asyncio.sleep(0.05)
            yield us, source, pull


@pytest.mark.asyncio
async def test_what_a_quota_has_charged_is_read_to_its_end_although_the_word_of_its_end_was_faster(tmp_path: Path):
    async with cut_off(tmp_path, "QUOTA_EXHAUSTED") as (us, source, pull):
        assert (await us.connector.store.pull(pull.id)).stage == "download"
        source.go_on.set()
        done = await settled(us, pull.id)
        ended, exhausted = done.reasons[-2:]
        assert (done.stage, ended) == ("done", "the provider ended the transfer: all is used up"), "of live data there would be more"
        assert "is used up; no other is asked for unbidden" in exhausted
        assert place(us).read_bytes() == BIG


@pytest.mark.asyncio
async def test_the_word_of_its_end_that_crosses_ours_is_told_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with desk(tmp_path, store="sqlite", approver=Automatic(0)) as at, upstream() as source:
        source.held = True
        pull, process, _ = await downloading(at, endpoint=source.url)
        here = at.us.site
        await at.us.connector.close()
        async with running(here) as us:

            async def crossed(_self: Operations, pid: str) -> None:
                said = {"code": "QUOTA_EXHAUSTED", "reason": ["all is used up"]}
                message = wire.message(Move.TRANSFER_TERMINATION, consumer_pid=pid, provider_pid=process.peer_pid, **said)
                assert (await at.peer.send(us, "POST", f"/transfers/{pid}/termination", message)).status == 200
                raise Contradiction("the transfer is TERMINATED")

            monkeypatch.setattr(Operations, "complete", crossed)
            source.go_on.set()
            done = await settled(us, pull.id)
            assert (done.stage, done.reasons[-2]) == ("done", "the provider ended the transfer: all is used up")


@pytest.mark.asyncio
async def test_but_only_for_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pulls, "LAST_SECONDS", 0.3)
    async with cut_off(tmp_path, "QUOTA_EXHAUSTED") as (us, _, pull):
        failed = await settled(us, pull.id)
        assert (failed.stage, failed.reasons[0], "is used up" in failed.reasons[1]) == ("failed", "all is used up", True)
        assert not place(us).exists()


@pytest.mark.asyncio
async def test_after_any_other_end_nothing_more_is_read(tmp_path: Path):
    async with cut_off(tmp_path, "CONSENT_WITHDRAWN") as (us, _, pull):
        failed = await settled(us, pull.id)
        assert (failed.stage, failed.reasons) == ("failed", ("all is used up",))


# The transfer is over, and nothing is missing


@pytest.mark.parametrize("state", ["COMPLETED", "TERMINATED"])
@pytest.mark.parametrize("digest", ["stated", "as the tag", None])
@pytest.mark.asyncio
async def test_a_part_that_is_whole_is_the_file_however_its_transfer_ended(tmp_path: Path, state: str, digest: str | None):
    async with desk(tmp_path, store="sqlite", approver=Automatic(0)) as at:
        tag = f'"{DIGEST.hex()}"' if digest == "as the tag" else '"e"'
        known = {"validator": tag, "size_bytes": len(CONTENT), "sha256": DIGEST if digest == "stated" else None}
        pull, _, _ = await downloading(at, state, **known)
        place(at.us, "copy.bin.p.part").write_bytes(CONTENT)
        here = at.us.site
        await at.us.connector.close()
        async with running(here) as again:
            done = await settled(again, pull.id)
            assert (done.stage, done.sha256, done.size_bytes) == ("done", DIGEST, len(CONTENT))
            assert bool(done.reasons) is (digest != "stated"), "where only the size was compared it says so"
        assert os.listdir(place(here).parent) == ["copy.bin"]
        assert place(here).read_bytes() == CONTENT
        assert at.peer.calls == [], "nobody was asked for anything"


@pytest.mark.parametrize("content", [CONTENT[:-1], b"x" + CONTENT[1:], b""], ids=["short", "other bytes", "nothing"])
@pytest.mark.asyncio
async def test_a_part_that_is_not_right_is_not_taken_for_the_file(tmp_path: Path, content: bytes):
    async with desk(tmp_path, store="sqlite", approver=Automatic(0)) as at:
        pull, _, _ = await downloading(at, "COMPLETED", validator='"e"', size_bytes=len(CONTENT), sha256=DIGEST)
        place(at.us, "copy.bin.p.part").write_bytes(content)
        here = at.us.site
        await at.us.connector.close()
        async with running(here) as again:
            await at.peer.heard("/transfers/request")
            assert (await again.connector.store.pull(pull.id)).stage == "transfer"
        assert os.listdir(place(here).parent) == (["copy.bin.p.part"] if content else [])


@pytest.mark.parametrize("state", ["STARTED", "COMPLETED", "TERMINATED"])
@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.asyncio
async def test_a_kill_between_the_name_and_the_record_of_it_costs_nothing(tmp_path: Path, state: str, stated: bool):
    """Also where the second name of a part is left, and where the provider stated no digest."""
    async with desk(tmp_path, store="sqlite", approver=Automatic(0)) as at:
        known = {"validator": '"e"' if stated else None, "size_bytes": len(CONTENT), "sha256": DIGEST, "stated": stated}
        pull, process, _ = await downloading(at, state, **known)
        place(at.us).write_bytes(CONTENT)
        os.link(place(at.us), place(at.us, "copy.bin.p.part"))
        here = at.us.site
        await at.us.connector.close()
        async with running(here) as again:
            done = await settled(again, pull.id)
            assert (done.stage, done.sha256, bool(done.reasons)) == ("done", DIGEST, not stated)
            await again.state(T, process.pid, "COMPLETED" if state == "STARTED" else state)
        assert os.listdir(place(here).parent) == ["copy.bin"]
        assert place(here).read_bytes() == CONTENT
        assert [path for _, path, _ in at.peer.calls] == [f"/transfers/{process.peer_pid}/completion"] * (state == "STARTED")


@pytest.mark.asyncio
async def test_a_stop_between_the_name_and_the_record_of_it_is_made_good_at_the_next_start(tmp_path: Path):
    async with restartable(tmp_path) as (provider, consumer):
        await provider.publish(D, content=CONTENT)
        async with running(consumer) as us:
            named, store = asyncio.Event(), us.connector.store

            async def held(changes: Changes) -> Any:
                if any(isinstance(record, Pull) and record.stage == "complete" for record in changes.saves):
                    named.set()
                    await asyncio.Event().wait()
                return await type(store).commit(store, changes)

            with us.commits(held):
                id = (await order(us))["id"]
                async with asyncio.timeout(WAIT_SECONDS):
                    await named.wait()
                assert place(consumer).read_bytes() == CONTENT
                assert (await store.pull(id)).stage == "download"
                await us.connector.close()
        await went_on(provider, consumer, id)


@pytest.mark.asyncio
async def test_completions_that_cross_are_one_completion(both: Pair):
    """Both sides say the same at the same time: neither refuses the other, and nobody has to look at anything."""
    async with upstream() as source:
        pull = await under_way(both, source)
        ours = await both.consumer.state(T, pull.transfer, "STARTED")
        crossed = [
            both.consumer.asked("POST", f"/transfers/{ours.pid}/complete"),
            both.provider.asked("POST", f"/transfers/{ours.peer_pid}/complete"),
        ]
        await asyncio.gather(*crossed)
        for us, pid in ((both.consumer, ours.pid), (both.provider, ours.peer_pid)):
            await us.state(T, pid, "COMPLETED")
            assert (await us.asked("GET", "/dead-letters"))["items"] == []


# The order is over before its transfer


@contextmanager
def no_file_larger_than(size_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("slow", [False, True], ids=["", "it is not even on record that there is one"])
@pytest.mark.asyncio
async def test_an_order_without_space_tells_the_provider_and_keeps_its_part_for_the_next_one(both: Pair, slow: bool):
    store, slowly = both.consumer.connector.store, [slow]

    async def commit(changes: Changes) -> Any:
        if any(isinstance(record, Pull) and record.validator is not None for record in changes.saves) and slowly and slowly.pop():
            await asyncio.Event().wait()
        return await type(store).commit(store, changes)

    async with upstream() as source:
        await both.provider.publish(D, source={"type": "http", "url": source.url})
        with no_file_larger_than(3 * 1024 * 1024), both.consumer.commits(commit):
            failed = await settled(both.consumer, (await order(both.consumer))["id"])
        assert (failed.stage, "cannot be written" in failed.reasons[0]) == ("failed", True)
        theirs = await both.provider.state(T, (await transfers_of(both.provider))[0]["pid"], "TERMINATED")
        (told,) = theirs.detail["reasons"]
        assert ("its operator knows" in told, str(place(both.consumer)) in told) == (True, False)
        (part,) = place(both.consumer).parent.iterdir()
        assert part.name == f"copy.bin.{failed.id.removeprefix('urn:uuid:')}.part"
        kept = part.stat().st_size
        assert 0 < kept <= 3 * 1024 * 1024
        done = await settled(both.consumer, (await order(both.consumer))["id"])
        assert (done.stage, done.reasons, done.id != failed.id, done.agreement) == ("done", (), True, failed.agreement)
        assert source.asked[-1] == kept, "the second order fetches what the first could not keep"
        assert [path.name for path in place(both.consumer).parent.iterdir()] == ["copy.bin"]
        assert place(both.consumer).read_bytes() == BIG
        assert await counts(both.provider) == (1, 1, 2)


@pytest.mark.asyncio
async def test_a_part_is_taken_over_only_for_the_same_dataset_and_the_same_file(both: Pair):
    async with upstream() as source:
        for dataset in (D, "urn:test:another"):
            await both.provider.publish(dataset, source={"type": "http", "url": source.url})
        with no_file_larger_than(3 * 1024 * 1024):
            failed = await settled(both.consumer, (await order(both.consumer))["id"])
        left = place(both.consumer, f"copy.bin.{failed.id.removeprefix('urn:uuid:')}.part")
        before = left.read_bytes()
        for dataset, out in ((D, "elsewhere.bin"), ("urn:test:another", "copy.bin")):
            done = await settled(both.consumer, (await order(both.consumer, dataset=dataset, out=out))["id"])
            assert (done.stage, done.part, source.asked[-1]) == ("done", None, 0)
        assert left.read_bytes() == before


@pytest.mark.asyncio
async def test_of_two_orders_for_one_file_the_second_fails_and_does_not_disturb_the_first(both: Pair):
    async with upstream() as source:
        pull = await under_way(both, source)
        again = await order(both.consumer, "research", status=507)
        assert "another download is writing to" in again["detail"]
        source.go_on.set()
        assert (await settled(both.consumer, pull.id)).stage == "done"
        assert place(both.consumer).read_bytes() == BIG


@pytest.mark.asyncio
async def test_a_foreign_file_named_like_a_part_outlives_the_order(both: Pair):
    await both.provider.publish(D, content=CONTENT)
    foreign = place(both.consumer, "copy.bin.part")
    foreign.write_bytes(b"the notes of somebody else")
    assert (await settled(both.consumer, (await order(both.consumer))["id"])).stage == "done"
    assert foreign.read_bytes() == b"the notes of somebody else"


@pytest.mark.asyncio
async def test_an_order_that_breaks_ends_its_transfer_too(both: Pair):
    await both.provider.publish(D, content=CONTENT)
    store: Any = both.consumer.connector.store

    async def broken(changes: Changes) -> Any:
        if any(isinstance(record, Pull) and record.stage == "download" for record in changes.saves):
            raise RuntimeError("a defect")
        return await type(store).commit(store, changes)

    with both.consumer.commits(broken):
        failed = await settled(both.consumer, (await order(both.consumer))["id"])
    assert failed.reasons == ("internal error RuntimeError; the log has the details",)
    theirs = await both.provider.state(T, (await transfers_of(both.provider))[0]["pid"], "TERMINATED")
    assert theirs.detail["reasons"] == ["the consumer cannot go on, for reasons of its own; its operator knows them"]
    await both.consumer.state(T, failed.transfer, "TERMINATED")


# The agreement of an earlier order


async def forgotten(both: Pair) -> Pull:
    """A first order is done, and its provider does not know the agreement any more."""
    await both.provider.publish(D, content=CONTENT)
    done = await settled(both.consumer, (await order(both.consumer, out="first.bin"))["id"])
    await both.provider.connector.journal.commit(Changes(deletes=((Agreement, done.agreement),)))
    return done


@pytest.mark.asyncio
async def test_an_agreement_that_the_provider_does_not_honour_any_more_is_negotiated_anew(both: Pair):
    first = await forgotten(both)
    done = await settled(both.consumer, (await order(both.consumer))["id"])
    assert (done.stage, done.negotiation is not None, done.agreement != first.agreement) == ("done", True, True)
    assert REFUSED_ONCE.format(first.agreement) in done.reasons[0]
    assert "not one that you may use" in done.reasons[0]
    assert await stages(both.consumer, done.id) == ["negotiate", "transfer", "negotiate", "transfer", "download", "complete", "done"]
    third = await settled(both.consumer, (await order(both.consumer, out="third.bin"))["id"])
    assert (third.agreement, third.reasons) == (done.agreement, ()), "from now on the new one is used"
    assert (await counts(both.consumer))[:2] == (2, 2)


@pytest.mark.asyncio
async def test_a_provider_that_honours_no_agreement_is_asked_for_one_more_and_then_believed(both: Pair):
    first = await forgotten(both)
    journal = both.provider.connector.journal
    forgetting: set[asyncio.Task[Any]] = set()

    def forget(changes: Changes, _evidence: Any) -> None:
        for record in changes.saves:
            if isinstance(record, Agreement) and record.final:
                forgetting.add(asyncio.create_task(journal.commit(Changes(deletes=((Agreement, record.id),)))))

    journal.listen(forget)
    failed = await settled(both.consumer, (await order(both.consumer))["id"])
    assert (failed.stage, len(failed.reasons)) == ("failed", 2)
    assert REFUSED_ONCE.format(first.agreement) in failed.reasons[0]
    assert "not one that you may use" in failed.reasons[1]
    assert await counts(both.consumer) == (2, 2, 3)
    await asyncio.gather(*forgetting)


@pytest.mark.asyncio
async def test_a_dataset_that_was_withdrawn_fails_the_order_with_what_the_peer_said_each_time(both: Pair):
    await both.provider.publish(D)
    first = await settled(both.consumer, (await order(both.consumer))["id"])
    await both.provider.connector.publishing.withdraw(D)
    failed = await settled(both.consumer, (await order(both.consumer, out="again.bin"))["id"])
    refused = f"{REFUSED_ONCE.format(first.agreement)}dataset `{D}` is not published any more; ask its provider"
    assert (failed.stage, failed.reasons) == ("failed", (refused, f"dataset `{D}` is not in your catalog"))


@pytest.mark.asyncio
async def test_an_order_whose_agreement_is_closed_ends_with_the_reason_and_the_next_one_does_not_ask_for_it_again(both: Pair):
    async with upstream() as source:
        ordered = await under_way(both, source)
        agreed = (await both.consumer.connector.store.pull(ordered.id)).agreement
        await both.provider.asked("POST", f"/agreements/{agreed}/close", {"reason": "the study is over"})
        failed = await settled(both.consumer, ordered.id)
        assert failed.stage == "failed"
        assert any("the agreement was closed: the study is over" in reason for reason in failed.reasons)
        known = await both.consumer.asked("GET", f"/agreements/{agreed}")
        assert (known["closed_by"], known["reason"]) == ("peer", "the agreement was closed: the study is over")
        source.held = False
        source.go_on.set()
        done = await settled(both.consumer, (await order(both.consumer, out="next.bin"))["id"])
        assert (done.stage, done.agreement != agreed, done.reasons) == ("done", True, ())
        assert await counts(both.consumer) == (2, 2, 2), "and nothing was asked for in vain"


@pytest.mark.asyncio
async def test_a_consumer_that_closes_an_agreement_ends_what_it_fetches_under_it(both: Pair):
    async with upstream() as source:
        ordered = await under_way(both, source)
        pull = await both.consumer.connector.store.pull(ordered.id)
        await both.consumer.asked("POST", f"/agreements/{pull.agreement}/close", {"reason": "no need"})
        failed = await settled(both.consumer, ordered.id)
        assert (failed.stage, "no need" in str(failed.reasons)) == ("failed", True)
        ended = await both.consumer.state(T, pull.transfer, "TERMINATED")
        there = await both.provider.state(T, ended.peer_pid, "TERMINATED")
        assert there.detail["code"] == "AGREEMENT_CLOSED"
        ours, theirs = [await side.connector.store.agreement(pull.agreement) for side in (both.consumer, both.provider)]
        assert (theirs.closed, theirs.closed_by, ours.closed_by) == (ours.closed, "peer", "us"), "both go by what the consumer has signed"


@pytest.mark.asyncio
async def test_an_order_waits_while_its_data_are_withdrawn_and_goes_on_when_they_are_back(both: Pair):
    async with upstream() as source:
        ordered = await under_way(both, source)
        pull = await both.consumer.connector.store.pull(ordered.id)
        await both.provider.asked("DELETE", f"/datasets/{D}", status=204)
        held = await both.consumer.state(T, pull.transfer, "SUSPENDED")
        assert (held.detail["code"], held.detail["ended_by"]) == ("dataset-withdrawn", "peer")
        source.held = False
        source.go_on.set()
        await both.provider.publish(D, source={"type": "http", "url": source.url})
        done = await settled(both.consumer, ordered.id)
        assert (done.stage, place(both.consumer).read_bytes() == BIG) == ("done", True)


@pytest.mark.asyncio
async def test_a_transfer_that_our_own_operator_ends_is_not_begun_anew(tmp_path: Path):
    async with desk(tmp_path, store="sqlite", approver=Automatic(0)) as at:
        pull, process, _ = await downloading(at, "REQUESTED", stage="transfer", negotiation=None)
        here = at.us.site
        await at.us.connector.close()
        async with running(here) as again:
            await again.asked("POST", f"/transfers/{process.pid}/terminate", {"reason": "not needed"})
            assert (await settled(again, pull.id)).reasons == ("not needed",)
        assert not any(path.endswith("/request") for _, path, _ in at.peer.calls)


# Time


@pytest.mark.asyncio
async def test_an_order_waits_for_an_operator_as_long_as_the_negotiation_does(both: Pair, monkeypatch: pytest.MonkeyPatch):
    await both.provider.publish(D, content=CONTENT, manual=True)
    begun = at_stage(both.consumer, lambda p: p.negotiation is not None)
    id = (await order(both.consumer))["id"]
    async with asyncio.timeout(WAIT_SECONDS):
        await begun.wait()
    ours = await both.consumer.state(N, (await both.consumer.connector.store.pull(id)).negotiation, "REQUESTED")
    await both.provider.state(N, ours.peer_pid, "REQUESTED")
    loop = asyncio.get_running_loop()
    clock = loop.time
    monkeypatch.setattr(loop, "time", lambda: clock() + 6 * 86_400)  # six days go by: every timer of the loop that was set is due
    for _ in range(3):
        await both.consumer.asked("GET", f"/pulls/{id}")
    assert (await both.consumer.connector.store.pull(id)).stage == "negotiate"
    await both.provider.asked("POST", f"/negotiations/{ours.peer_pid}/approve", {})
    assert (await settled(both.consumer, id)).stage == "done"
