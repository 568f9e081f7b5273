"""Two connectors, and a source in a process of its own that never ends: stopped, suspended, cut and killed, and both counts agree."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from connector import app
from connector.dataplane.edr import read_address
from connector.dataplane_live import resting, taking
from connector.dataplane_live.ending import Ending
from connector.dataplane_live.growing import POSITION_FILE, ROWS_FILE
from connector.dataplane_live.life import LIFE_FILE
from connector.dataplane_live.lives import COUNTED_BYTES
from connector.dataplane_live.sealing import at_most
from connector.dataplane_live.spool import PREFIX
from connector.dsp import wire
from connector.dsp.messages import Kind, Move, Role
from connector.intake import account
from connector.intake.attempts import OPEN_ENDED
from connector.intake.beside import CHECKPOINT_BYTES_MAX, Beside
from connector.odrl.operands import RECORD_COUNT
from connector.records import Changes, Evidence
from connector.records.metering import Metered
from connector.settings.fields import MeteringSettings
from tests import pair
from tests.dataplane_live import upstream
from tests.dataplane_live.child import SOON, Child
from tests.dataplane_live.test_lives import open_below
from tests.metering_bills.priced import money, price
from tests.test_app import ended, pulled

DATASET = "urn:test:live"
SINCE = {"parameter": "since", "member": "n"}

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lives signs and asks again as soon as the child: how long a process takes to start is nothing that a pause should double, where
    machines are busy."""
    for module, name, value in SOON:
        monkeypatch.setattr(module, name, value)


async def publish(at: pair.Running | Child, url: str, **members: Any) -> None:
    body = {"title": "live", "source": {"type": "http-stream", "url": url} | members, "policies": [pair.OPEN]}
    await at.asked("PUT", f"/datasets/{pair.quoted(DATASET)}", body, status=201)


async def follow(at: pair.Running | Child, name: str = "file", **bounds: float) -> str:
    """Order it; returns the id of the order."""
    wish = {"peer": "hospital", "dataset": DATASET, "out": str(at.site.root / "out" / name)}
    return str((await at.asked("POST", "/pulls", wish | bounds, status=201))["id"])


@asynccontextmanager
async def both(tmp_path: Path, path: str = "/lines?size=500", **members: Any) -> AsyncIterator[pair.Pair]:
    async with upstream.running() as url, pair.pair(tmp_path, store="sqlite") as two:
        since = {} if "count" in path and path.startswith("/lines") else resumable(path)
        await publish(two.provider, url + path, **(since | members))
        yield two


def resumable(path: str) -> dict[str, Any]:
    return {"since": SINCE} if path.startswith("/lines") else {}


def numbers(at: pair.Running | Child, name: str = "file") -> list[int]:
    lines = (at.site.root / "out" / name).read_bytes().splitlines(keepends=True)
    assert all(line.endswith(b"\n") for line in lines)
    return [json.loads(line)["n"] for line in lines]


async def accounts(two: pair.Pair, transfer: str) -> tuple[Metered, Metered]:
    process = await two.consumer.connector.store.process(Kind.TRANSFER, transfer)
    assert process is not None
    ours = await two.consumer.connector.store.metered(transfer)
    theirs = await two.provider.connector.store.metered(process.peer_pid or "")
    assert ours is not None
    assert theirs is not None
    return ours, theirs


async def until(at: pair.Running, what: str, count: int = 1) -> None:
    """Wait until so many more facts of this kind are on record."""
    left, done = count, asyncio.Event()

    def heard(_changes: Changes, evidence: tuple[Evidence, ...]) -> None:
        nonlocal left
        left -= sum(fact.what == what for fact in evidence)
        if left <= 0:
            done.set()

    at.connector.journal.listen(heard)
    async with asyncio.timeout(20):
        await done.wait()


async def more(at: pair.Running, id: str) -> None:
    """Wait until more of an order has been proven, for which nobody has signed yet: a receipt comes later."""
    before = (await at.asked("GET", f"/pulls/{id}"))["received_bytes"]
    async with asyncio.timeout(20):
        while (await at.asked("GET", f"/pulls/{id}"))["received_bytes"] == before:  # noqa: ASYNC110 - progress is no commit
            await asyncio.sleep(0.02)


async def test_what_never_ends_is_taken_until_there_is_enough_and_both_counts_are_what_is_on_the_disk(tmp_path: Path):
    async with both(tmp_path) as two:
        order = await ended(two.consumer, await follow(two.consumer, most_bytes=3_000_000))
        assert order["stage"] == "done", order
        found = numbers(two.consumer)
        assert found == list(range(1, len(found) + 1))
        ours, theirs = await accounts(two, order["transfer"])
        size = (two.consumer.site.root / "out" / "file").stat().st_size
        assert ours.counts == theirs.counts
        assert (ours.counts.bytes, ours.counts.records, order["size_bytes"]) == (size, len(found), size)
        assert size >= 3_000_000
        assert (ours.attested, theirs.attested) == ("both", "both")
        await two.provider.until(Kind.TRANSFER, theirs.transfer, lambda p: p.state == "COMPLETED")


async def test_what_ends_and_cannot_go_on_is_delivered_and_billed_once_and_completed_if_it_is_all_and_both_are_told_why_if_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(account, "QUIET_SECONDS", 0.05)
    terms = {"@type": "Offer", "permission": [{"action": "use", "duty": [price("0.0333", "record")]}]}
    async with upstream.running() as url, pair.pair(tmp_path, store="sqlite") as two:
        for ending, how in ((Ending.ENDED, ""), (Ending.BROKE_OFF, "&breaks=1")):
            dataset = f"urn:test:{ending}"
            body = {"title": "n", "source": {"type": "http-stream", "url": f"{url}/lines?count=500{how}"}, "policies": [terms]}
            await two.provider.asked("PUT", f"/datasets/{pair.quoted(dataset)}", body, status=201)
            order = await pulled(two.consumer, "hospital", dataset, ending)
            said = [] if ending is Ending.ENDED else [f"the provider ended the transfer: {ending.reason}"]
            assert (order["stage"], order["reasons"]) == ("done", said)
            assert numbers(two.consumer, ending) == list(range(1, 501))
            ours, theirs = await accounts(two, order["transfer"])
            assert (ours.counts, ours.counts.records, ours.attested, theirs.attested) == (theirs.counts, 500, "both", "both")
            process = await two.provider.until(Kind.TRANSFER, theirs.transfer, lambda p: p.final)
            found = process.state, process.detail.get("code"), process.detail.get("reasons")
            assert found == (("COMPLETED", None, None) if ending is Ending.ENDED else ("TERMINATED", ending, [ending.reason]))
            path = f"/agreements/{pair.quoted(order['agreement'])}/invoice?from=2020-01-01&to=2100-01-01"
            bills = [await each.asked("GET", path) for each in (two.provider, two.consumer)]
            assert [bill["total"] for bill in bills] == ["16.65", "16.65"]


@asynccontextmanager
async def unsigned(
    tmp_path: Path, path: str, policy: dict[str, Any] = pair.OPEN
) -> AsyncIterator[tuple[pair.Desk, str, str, str, dict[str, str]]]:
    """A provider and a peer that signs nothing, with its agreement, its transfer, where it reads and what it shows there."""
    async with upstream.running() as url, pair.desk(tmp_path, approver=app.Automatic(0)) as desk:
        agreed = pair.agreement(desk.us, desk.peer, Role.PROVIDER, policy=policy)
        body = {"title": "n", "source": {"type": "http-stream", "url": url + path}, "policies": [policy]}
        await desk.us.asked("PUT", f"/datasets/{pair.quoted(agreed.dataset)}", body, status=201)
        await desk.us.connector.journal.commit(Changes(saves=(agreed,)))
        wish = {"agreementId": agreed.id, "format": "HttpData-PULL", "callbackAddress": desk.peer.site.base}
        message = wire.message(Move.TRANSFER_REQUEST, consumer_pid=pair.fresh(), **wish)
        pid = (await desk.peer.send(desk.us, "POST", "/transfers/request", message)).json["providerPid"]
        read = read_address((await desk.peer.heard("/start"))["dataAddress"])
        yield desk, agreed.id, pid, read.endpoint, {"Authorization": f"Bearer {read.access_token}"}


async def test_of_one_that_signs_nothing_a_budget_has_spent_what_the_bill_says_and_nothing_for_a_leaf_that_it_did_not_pay_for(
    tmp_path: Path,
):
    limit = money("2.01", operator="lteq")  # a leaf may end with the 200th record, as a batch of the source does
    terms = {"@type": "Offer", "permission": [{"action": "use", "constraint": [limit], "duty": [price("0.01", "record")]}]}
    async with unsigned(tmp_path, "/lines?size=9000", terms) as (desk, agreed, pid, endpoint, headers):
        data = b""
        async with asyncio.timeout(20), desk.peer.http.get(endpoint, headers=headers) as got:
            with suppress(aiohttp.ClientPayloadError):  # it is cut
                async for piece in got.content.iter_any():
                    data += piece
        await desk.us.state(Kind.TRANSFER, pid, "TERMINATED")
        async with asyncio.timeout(20):
            while (seen := await desk.us.asked("GET", f"/agreements/{pair.quoted(agreed)}"))["counters"][0]["used"] == "2.01":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        sent = data.count(b"\n")
        assert 0 < sent < 201
        assert [(each["used"], each["reserved"]) for each in seen["counters"]] == [(f"{sent / 100:.2f}", "0.00")]
        bill = await desk.us.asked("GET", f"/agreements/{pair.quoted(agreed)}/invoice?from=2020-01-01&to=2100-01-01")
        assert bill["total"] == f"{sent / 100:.2f}"


async def test_a_consumer_that_signs_nothing_and_has_read_all_of_it_is_told_that_the_transfer_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(taking, "UNSIGNED_SECONDS", 0.05)
    async with unsigned(tmp_path, "/lines?count=500") as (desk, _, pid, endpoint, headers):
        async with desk.peer.http.get(endpoint, headers=headers | {"Range": "bytes=0-99"}) as got:
            whole = await got.read()
        async with desk.peer.http.get(endpoint, headers=headers | {"Range": "bytes=100-"}) as got:
            whole += await got.read()
        assert whole == b"".join(upstream.line(number) for number in range(1, 501))
        await desk.peer.heard("/completion")
        await desk.us.state(Kind.TRANSFER, pid, "COMPLETED")
        assert not [path for _, path, _ in desk.peer.calls if path.endswith("/termination")]


async def test_a_consumer_that_asks_for_no_end_hears_of_it_by_the_completion_and_keeps_all_that_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(account, "QUIET_SECONDS", 0.05)

    async def before(beside: Beside, leaves: int) -> bytes | None:
        return await beside._get(f"{beside._base}/checkpoint?after={leaves}", CHECKPOINT_BYTES_MAX) or None

    monkeypatch.setattr(Beside, "checkpoint_after", before)
    monkeypatch.setattr(taking, "ASK_SECONDS", 0.1)
    async with both(tmp_path, "/lines?count=500") as two:
        order = await ended(two.consumer, await follow(two.consumer))
        assert (order["stage"], order["reasons"]) == ("done", [OPEN_ENDED])
        assert numbers(two.consumer) == list(range(1, 501))
        ours, theirs = await accounts(two, order["transfer"])
        assert ours.counts == theirs.counts
        await two.provider.state(Kind.TRANSFER, theirs.transfer, "COMPLETED")


@pytest.mark.parametrize("side", ["provider", "consumer"])
async def test_what_an_operator_completes_in_the_middle_is_kept_and_not_taken_for_all(tmp_path: Path, side: str):
    async with both(tmp_path, "/lines?pause=0.005&size=500") as two:
        id = await follow(two.consumer)
        await until(two.consumer, "receipt-signed", 2)
        at: pair.Running = getattr(two, side)
        (transfer,) = await at.connector.store.open_transfers()
        await at.asked("POST", f"/transfers/{pair.quoted(transfer.pid)}/complete")
        order = await ended(two.consumer, id)
        assert (order["stage"], order["reasons"]) == ("done", [OPEN_ENDED])
        assert "provider completed" not in OPEN_ENDED, "it may have been the consumer, or a quota"
        ours, theirs = await accounts(two, order["transfer"])
        assert ours.counts == theirs.counts
        assert ours.counts.records == len(numbers(two.consumer))
        assert without_gaps(numbers(two.consumer))


async def stop(at: pair.Running | Child, id: str) -> dict[str, Any]:
    await at.asked("POST", f"/pulls/{id}/end")
    order = await settled(at, id)
    assert order["stage"] == "done", order
    return order


async def settled(at: pair.Running | Child, id: str) -> dict[str, Any]:
    """An order that is over, also of a process of its own, which tells nobody."""
    async with asyncio.timeout(20):
        while (order := await at.asked("GET", f"/pulls/{id}"))["stage"] not in ("done", "failed"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return dict(order)


def without_gaps(found: list[int]) -> bool:
    """Nothing is missing, nothing came twice, and all of it in order."""
    return bool(found) and found == list(range(1, len(found) + 1))


@pytest.mark.slow
async def test_events_are_followed_by_their_ids_and_counted(tmp_path: Path):
    async with both(tmp_path, "/events?size=20000&count=50") as two:  # its answer ends again and again
        order = await ended(two.consumer, await follow(two.consumer, most_bytes=4_000_000))
        events = (two.consumer.site.root / "out" / "file").read_bytes().split(b"\n\n")[:-1]
        assert without_gaps([int(event.split(b"id: ")[1].split(b"\n")[0]) for event in events])
        ours, theirs = await accounts(two, order["transfer"])
        assert ours.counts == theirs.counts
        assert ours.counts.records == len(events)


@pytest.mark.slow
async def test_it_ends_when_its_time_is_up_or_its_operator_says_so(tmp_path: Path):
    async with both(tmp_path, "/lines?pause=0.02") as two:
        timed = await follow(two.consumer, "timed", seconds=2.5)
        stopped = await follow(two.consumer, "stopped")
        await until(two.consumer, "receipt-signed", 4)  # an account is opened with one of nothing
        await stop(two.consumer, stopped)
        await ended(two.consumer, timed)
        assert without_gaps(numbers(two.consumer, "timed"))
        assert without_gaps(numbers(two.consumer, "stopped"))


@pytest.mark.parametrize("rests", [False, True], ids=["short", "long"])
async def test_a_suspension_keeps_log_and_chain_and_what_comes_after_it_follows(
    tmp_path: Path, rests: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(resting, "LOOK_SECONDS", 0.01)
    async with both(tmp_path, "/lines?pause=0.005") as two:
        id = await follow(two.consumer)
        await until(two.consumer, "receipt-signed", 2)
        order = await two.consumer.asked("GET", f"/pulls/{id}")
        before, theirs = await accounts(two, order["transfer"])
        await two.provider.asked("POST", f"/transfers/{pair.quoted(theirs.transfer)}/suspend", {"reason": "a pause"})
        await two.consumer.state(Kind.TRANSFER, order["transfer"], "SUSPENDED")
        with monkeypatch.context() as patched:
            patched.setattr(resting, "REST_SECONDS", 0.0 if rests else resting.REST_SECONDS)
            async with asyncio.timeout(20):
                while rests and any(each.name == ROWS_FILE for each in open_below(tmp_path)):  # noqa: ASYNC110 - it tells nobody
                    await asyncio.sleep(0.01)
        await two.provider.asked("POST", f"/transfers/{pair.quoted(theirs.transfer)}/resume")
        await until(two.consumer, "receipt-signed")
        await more(two.consumer, id)
        shown = (await two.consumer.asked("GET", f"/pulls/{id}"))["received_bytes"]
        await two.consumer.asked("POST", f"/pulls/{id}/end")
        mine = await two.consumer.connector.store.metered(order["transfer"])
        assert mine is not None
        assert mine.counts.bytes >= shown, "what was shown is signed for before it is said that no more is taken"
        assert (await ended(two.consumer, id))["stage"] == "done"
        after, theirs = await accounts(two, order["transfer"])
        assert (after.manifest, after.counts) == (before.manifest, theirs.counts)
        assert after.sequence > before.sequence
        assert without_gaps(numbers(two.consumer))


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["provider", "consumer"])
async def test_whoever_is_killed_or_stopped_goes_on_without_a_gap_and_nothing_is_counted_twice(tmp_path: Path, victim: str):
    one, other = (
        pair.site(tmp_path / "hospital", "hospital", store="sqlite"),
        pair.site(tmp_path / "biopharma", "biopharma", store="sqlite"),
    )
    one.meet(other)
    survives, dies = (other, one) if victim == "provider" else (one, other)
    path = "/lines?pause=0.01&size=4000"
    async with upstream.running() as url, pair.running(survives) as alive, aiohttp.ClientSession() as http:
        child = Child(dies, http)
        try:
            await child.start()
            provider, consumer = (child, alive) if victim == "provider" else (alive, child)
            await publish(provider, url + path, **resumable(path))
            id = await follow(consumer)
            fact = "receipt-signed" if victim == "provider" else "ack-signed"
            for gone in (child.kill, child.stop):
                await until(alive, fact, 2)
                await gone()
                await child.start()
            await until(alive, fact, 2)
            order = await stop(consumer, id)
            found, size = numbers(consumer), (consumer.site.root / "out" / "file").stat().st_size
            agreement = pair.quoted(order["agreement"])
            used = [await each.asked("GET", f"/agreements/{agreement}/usage") for each in (provider, consumer)]
        finally:
            await child.kill()
    assert without_gaps(found)
    counts = [each["transfers"][0]["counts"] for each in used]
    assert counts[0] == counts[1]
    assert (counts[0]["bytes"], counts[0]["records"]) == (size, len(found))


@pytest.mark.slow
async def test_a_provider_that_is_killed_in_the_middle_of_what_cannot_go_on_delivers_what_it_has_and_says_that_this_is_not_all(
    tmp_path: Path,
):
    one, other = (
        pair.site(tmp_path / "hospital", "hospital", store="sqlite"),
        pair.site(tmp_path / "biopharma", "biopharma", store="sqlite"),
    )
    one.meet(other)
    async with upstream.running() as url, pair.running(other) as consumer, aiohttp.ClientSession() as http:
        provider = Child(one, http)
        try:
            await provider.start()
            await publish(provider, url + "/lines?pause=0.01&size=4000")
            id = await follow(consumer)
            await until(consumer, "receipt-signed", 3)
            await more(consumer, id)
            await provider.kill()
            await provider.start()
            order = await ended(consumer, id)
            agreement = pair.quoted(order["agreement"])
            used = [await each.asked("GET", f"/agreements/{agreement}/usage") for each in (provider, consumer)]
        finally:
            await provider.kill()
    assert (order["stage"], order["reasons"][-1]) == ("done", f"the provider ended the transfer: {Ending.LEFT.reason}")
    found = numbers(consumer)
    assert without_gaps(found)
    assert [[each["counts"]["records"] for each in side["transfers"]] for side in used] == [[len(found)], [len(found)]]


@pytest.mark.slow
async def test_a_consumer_that_was_killed_and_comes_too_late_finds_why_there_is_no_more_and_signed_for_is_what_it_has(tmp_path: Path):
    keeps = {"metering": MeteringSettings(untaken_seconds=0.5)}
    one = pair.site(tmp_path / "hospital", "hospital", store="sqlite", **keeps)
    other = pair.site(tmp_path / "biopharma", "biopharma", store="sqlite")
    one.meet(other)
    async with upstream.running() as url, pair.running(one) as provider, aiohttp.ClientSession() as http:
        consumer = Child(other, http)
        try:
            await consumer.start()
            await publish(provider, url + "/lines?pause=0.005&size=4000&count=600")
            id = await follow(consumer)
            await until(provider, "ack-signed", 3)
            await consumer.kill()
            (transfer,) = await provider.connector.store.open_transfers()
            process = await provider.until(Kind.TRANSFER, transfer.pid, lambda p: p.meant == "TERMINATED")
            await consumer.start()
            order = await settled(consumer, id)
            theirs = await provider.connector.store.metered(transfer.pid)
        finally:
            await consumer.kill()
    assert process.detail["code"] == Ending.UNTAKEN
    assert (order["stage"], order["reasons"][-1]) == ("done", f"the provider ended the transfer: {Ending.UNTAKEN.reason}")
    found = numbers(consumer)
    assert without_gaps(found)
    assert theirs is not None
    assert 0 < theirs.counts.records <= len(found) < 600
    assert theirs.sent, "what had left and was not signed for stays what it is: lost"


def power_gone(live: Path, *, bytes_too: bool) -> None:
    """What a loss of power leaves behind, after the process was killed: rows and places that nobody has flushed, and bytes or none."""
    for folder in live.iterdir():
        (folder / LIFE_FILE).write_text("another life of the machine")
        (folder / POSITION_FILE).write_bytes(b"")
        with (folder / ROWS_FILE).open("ab") as rows:
            rows.write(b"\0" * 100)
        for path in folder.glob(f"{PREFIX}*"):
            if bytes_too:
                path.unlink()
            else:
                os.truncate(path, path.stat().st_size // 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("goes_on", "bytes_too"),
    [(True, False), (True, True), (False, True)],
    ids=["half of the spool is there", "nothing of the spool is there", "nor can the source go on"],
)
async def test_a_loss_of_power_at_the_provider_loses_nothing_that_its_source_still_has_and_nothing_is_counted_twice(
    tmp_path: Path, goes_on: bool, bytes_too: bool
):
    one, other = (
        pair.site(tmp_path / "hospital", "hospital", store="sqlite"),
        pair.site(tmp_path / "biopharma", "biopharma", store="sqlite"),
    )
    one.meet(other)
    path = "/lines?pause=0.01&size=4000"
    async with upstream.running() as url, pair.running(other) as consumer, aiohttp.ClientSession() as http:
        provider = Child(one, http)
        try:
            await provider.start()
            await publish(provider, url + path, **(resumable(path) if goes_on else {}))
            id = await follow(consumer)
            for _ in range(2 if goes_on and bytes_too else 1):
                await until(consumer, "receipt-signed", 3)
                await more(consumer, id)
                await provider.kill()
                (live,) = one.root.rglob("live")
                power_gone(live, bytes_too=bytes_too)
                await provider.start()
            if goes_on:
                await until(consumer, "receipt-signed", 2)
                order = await stop(consumer, id)
            else:
                order = await ended(consumer, id)
                assert order["reasons"][-1].endswith((Ending.BROKE_OFF.reason, Ending.LEFT.reason)), "by whether all of it was signed for"
            found, size = numbers(consumer), (other.root / "out" / "file").stat().st_size
            agreement = pair.quoted(order["agreement"])
            used = [await each.asked("GET", f"/agreements/{agreement}/usage") for each in (provider, consumer)]
        finally:
            await provider.kill()
    counts = [sorted((each["counts"]["bytes"], each["counts"]["records"]) for each in side["transfers"]) for side in used]
    assert counts[0] == counts[1]
    assert (sum(size for size, _ in counts[0]), sum(count for _, count in counts[0])) == (size, len(found))
    assert without_gaps(found)
    assert len(counts[0]) == 1


async def test_what_a_quota_lets_out_is_proven_signed_and_kept_before_it_ends_the_transfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    most, ask = 5000, Beside.checkpoint_after

    async def from_afar(beside: Beside, leaves: int) -> bytes | None:
        await asyncio.sleep(0.3)
        return await ask(beside, leaves)

    monkeypatch.setattr(Beside, "checkpoint_after", from_afar)
    monkeypatch.setattr(account, "QUIET_SECONDS", 0.05)
    limit = {"leftOperand": "urn:qiao:recordCount", "operator": "lteq", "rightOperand": {"@value": str(most), "@type": "xsd:integer"}}
    async with upstream.running() as url, pair.pair(tmp_path, store="sqlite") as two:
        source = {"type": "http-stream", "url": f"{url}/lines", "since": SINCE}
        terms = {"@type": "Offer", "permission": [{"action": "use", "constraint": [limit]}]}
        await two.provider.asked(
            "PUT", f"/datasets/{pair.quoted(DATASET)}", {"title": "n", "source": source, "policies": [terms]}, status=201
        )
        order = await ended(two.consumer, await follow(two.consumer))
        found = numbers(two.consumer)
        assert (order["stage"], found) == ("done", list(range(1, len(found) + 1)))
        ours, theirs = await accounts(two, order["transfer"])
        assert (ours.counts, ours.counts.records, ours.attested, theirs.attested) == (theirs.counts, len(found), "both", "both")
        usage = await two.provider.connector.store.usage(theirs.agreement)
        assert usage is not None
        assert [(operand, amount) for _, operand, amount in usage.posted if operand == RECORD_COUNT] == [(RECORD_COUNT, most)]
        part_bytes = sum(len(upstream.line(number)) for number in range(len(found) + 1, most + 1))
        assert part_bytes < at_most(COUNTED_BYTES, ours.counts.bytes), "of a leaf, which nobody can prove"
