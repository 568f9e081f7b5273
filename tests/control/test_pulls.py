"""Orders: one call from the wish to the checked file, refusals with their reasons, and stops anywhere in between.

What becomes of an order whose transfer or agreement ends before it does is in `test_pulls_again.py`.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from connector import app, telemetry
from connector.adapters import keys
from connector.control_streams import patience
from connector.dsp.messages import Role
from connector.records import Changes, Edr, Pull
from connector.settings.fields import DeliverySettings
from connector.signatures import jws
from connector.vocabulary import read_profiles
from tests.api.conftest import events
from tests.control.orders import (
    BIG,
    CONTENT,
    D,
    T,
    after_commits,
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
from tests.pair import OPEN, WAIT_SECONDS, Pair, agreement, desk, pair, purpose_policy, running, site, transfer


@pytest_asyncio.fixture
async def both(tmp_path: Path) -> AsyncIterator[Pair]:
    async with pair(tmp_path) as made:
        yield made


@pytest.mark.asyncio
async def test_one_call_leads_from_the_wish_to_the_checked_file(both: Pair):
    await both.provider.publish(D, purpose_policy("research", "quality"), content=CONTENT)
    ordered = await order(both.consumer, "research")
    done = await settled(both.consumer, ordered["id"])
    assert (done.stage, done.reasons) == ("done", ())
    assert place(both.consumer).read_bytes() == CONTENT
    assert (done.sha256, done.size_bytes, done.received_bytes) == (hashlib.sha256(CONTENT).digest(), len(CONTENT), len(CONTENT))
    assert await stages(both.consumer, done.id) == ["negotiate", "transfer", "download", "complete", "done"]
    for us in (both.provider, both.consumer):
        assert await counts(us) == (1, 1, 1)
    ours = await both.consumer.state(T, done.transfer, "COMPLETED")
    await both.provider.state(T, ours.peer_pid, "COMPLETED")
    view = await both.consumer.asked("GET", f"/pulls/{done.id}")
    assert (view["stage"], view["reused"], view["sha256"]) == ("done", False, done.sha256.hex())


@pytest.mark.asyncio
async def test_data_may_be_named_in_any_script_and_are_signed_for_under_that_name(both: Pair):
    dataset = "urn:广州:数据集/门诊?年=2026#ü"
    await both.provider.publish(dataset, OPEN | {"@id": "urn:广州:要约"}, content=CONTENT)
    ordered = await order(both.consumer, dataset=dataset)
    done = await settled(both.consumer, ordered["id"])
    assert (done.stage, done.reasons) == ("done", ())
    ours = await both.consumer.state(T, done.transfer, "COMPLETED")
    metered = await both.provider.connector.store.metered(ours.peer_pid)
    assert metered is not None
    assert (metered.receipt is not None, metered.counts.bytes) == (True, len(CONTENT))
    assert jws.claims_of(metered.manifest)["ds"] == dataset


@pytest.mark.asyncio
async def test_an_agreement_that_still_permits_the_purpose_is_used_again_and_another_one_is_not(both: Pair):
    await both.provider.publish(D, purpose_policy("research", "teaching"), purpose_policy("quality"), content=CONTENT)
    first = await settled(both.consumer, (await order(both.consumer, "research"))["id"])
    again = await settled(both.consumer, (await order(both.consumer, "research", out="again.bin"))["id"])
    assert (again.stage, again.negotiation, again.agreement) == ("done", None, first.agreement)
    assert (await both.consumer.asked("GET", f"/pulls/{again.id}"))["reused"] is True
    other = await settled(both.consumer, (await order(both.consumer, "quality", out="other.bin"))["id"])
    assert (other.stage, other.agreement != first.agreement) == ("done", True)
    assert await counts(both.provider) == (2, 2, 3)


@pytest.mark.asyncio
async def test_a_refused_purpose_comes_back_with_the_reason_of_the_peer(both: Pair):
    await both.provider.publish(D, purpose_policy("research"))
    failed = await settled(both.consumer, (await order(both.consumer, "marketing"))["id"])
    theirs = (await both.provider.asked("GET", "/negotiations"))["items"][0]
    assert failed.stage == "failed"
    assert "marketing" in failed.reasons[0]
    assert list(failed.reasons) == theirs["reasons"], "both sides read the same"
    assert (theirs["state"], theirs["ended_by"]) == ("TERMINATED", "us")
    assert not place(both.consumer).exists()
    assert (await counts(both.provider))[1:] == (0, 0)


@pytest.mark.asyncio
async def test_a_dataset_that_is_not_in_the_catalog_fails_the_order(both: Pair):
    failed = await settled(both.consumer, (await order(both.consumer, dataset="urn:nothing"))["id"])
    assert (failed.stage, failed.reasons) == ("failed", ("dataset `urn:nothing` is not in your catalog",))


@pytest.mark.asyncio
async def test_an_order_outlives_a_provider_that_is_away_and_says_meanwhile_what_it_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 4.0)  # time to publish, before it is asked again
    provider, consumer = site(tmp_path / "hospital", "hospital"), site(tmp_path / "biopharma", "biopharma")
    provider.meet(consumer)
    consumer.meet(provider)
    async with running(consumer) as us:
        id = (await order(us))["id"]
        async with asyncio.timeout(WAIT_SECONDS):
            while not (seen := await us.asked("GET", f"/pulls/{id}"))["reasons"]:
                pass
        assert (seen["stage"], "no connection" in seen["reasons"][0]) == ("negotiate", True)
        async with running(provider) as them:
            await them.publish(D, content=CONTENT)
            assert (await settled(us, id)).stage == "done"
            assert await counts(them) == await counts(us) == (1, 1, 1)
        assert (await us.asked("GET", f"/pulls/{id}"))["reasons"] == []


@pytest.mark.asyncio
async def test_an_order_under_an_agreement_that_stands_says_why_its_provider_does_not_begin(tmp_path: Path):
    """To who looks, and on the feed that `connector get` follows: without it the command would stand still and say nothing."""
    provider = site(tmp_path / "hospital", "hospital", store="sqlite")
    consumer = site(tmp_path / "biopharma", "biopharma", delivery=DeliverySettings(deadline_seconds=1.0, first_retry_seconds=0.2))
    provider.meet(consumer)
    consumer.meet(provider)
    async with running(consumer) as us:
        async with running(provider) as them:
            await them.publish(D, content=CONTENT)
            assert (await settled(us, (await order(us))["id"])).stage == "done"
        id, said = (await order(us, out="again.bin"))["id"], list[dict[str, Any]]()
        async with asyncio.timeout(WAIT_SECONDS), events(us, "?after=now") as feed:
            async for what, seen in feed:
                if what == "progress" and seen["reasons"]:
                    said.append(seen)
                if said and "connector replay" in said[-1]["reasons"][0]:
                    break
        assert {(seen["id"], seen["stage"], "no connection" in seen["reasons"][0]) for seen in said} == {(id, "transfer", True)}
        assert len(said) > 1, "while it was tried again, and once it was not any more"
        assert (await us.asked("GET", f"/pulls/{id}"))["reasons"] == said[-1]["reasons"]
        async with running(provider):
            await us.asked("POST", f"/dead-letters/{(await us.asked('GET', '/dead-letters'))['items'][0]['id']}/replay", {})
            assert (await settled(us, id)).reasons == ()
        assert (await us.asked("GET", f"/pulls/{id}"))["reasons"] == []


@pytest.mark.asyncio
async def test_patience_with_a_provider_that_stays_away_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.2)
    provider, consumer = site(tmp_path / "hospital", "hospital"), site(tmp_path / "biopharma", "biopharma")
    consumer.meet(provider)
    async with running(consumer) as us:
        failed = await settled(us, (await order(us))["id"])
        assert (failed.stage, "no connection" in failed.reasons[0]) == ("failed", True)


@pytest.mark.asyncio
async def test_an_order_that_cannot_work_is_refused_at_once(both: Pair, tmp_path: Path):
    place(both.consumer, "there.bin").write_bytes(b"mine")
    for peer, out, status in (
        ("nobody", place(both.consumer), 404),
        ("hospital", tmp_path / "elsewhere", 400),
        ("hospital", place(both.consumer, "there.bin"), 409),
    ):
        await both.consumer.asked("POST", "/pulls", {"peer": peer, "dataset": D, "out": str(out)}, status=status)
    assert (await both.consumer.asked("GET", "/pulls"))["items"] == []
    assert place(both.consumer, "there.bin").read_bytes() == b"mine"


@pytest.mark.asyncio
async def test_orders_under_one_key_are_one_order(both: Pair):
    await both.provider.publish(D, content=CONTENT)
    key = {"Idempotency-Key": "k1"}
    ordered = await asyncio.gather(*(order(both.consumer, **key) for _ in range(5)))
    assert len({each["id"] for each in ordered}) == 1
    await settled(both.consumer, ordered[0]["id"])
    assert (await order(both.consumer, **key))["id"] == ordered[0]["id"], "also when it is over"
    assert (await order(both.consumer, out="other.bin", status=409, **key))["title"] == "idempotency conflict"
    assert await counts(both.provider) == (1, 1, 1)
    assert len((await both.consumer.asked("GET", "/pulls"))["items"]) == 1


@pytest.mark.asyncio
async def test_the_same_asked_for_again_while_it_runs_is_the_same_order(both: Pair):
    async with upstream() as source:
        pull = await under_way(both, source)
        again = await order(both.consumer, **{"Idempotency-Key": "k1"})
        assert (again["id"], again["received_bytes"] > 0) == (pull.id, True)
        source.go_on.set()
        assert (await settled(both.consumer, pull.id)).stage == "done"
    assert (await order(both.consumer, **{"Idempotency-Key": "k1"}))["id"] == pull.id, "also when it is over"
    assert await counts(both.provider) == (1, 1, 1)
    assert len((await both.consumer.asked("GET", "/pulls"))["items"]) == 1


@pytest.mark.asyncio
async def test_a_download_that_waits_for_its_provider_says_why(both: Pair):
    await both.provider.publish(D, content=CONTENT)
    (file,) = (both.provider.site.root / "data").glob("*.bin")
    file.write_bytes(CONTENT[::-1])
    id = (await order(both.consumer))["id"]
    async with asyncio.timeout(WAIT_SECONDS):
        while not (seen := await both.consumer.asked("GET", f"/pulls/{id}"))["reasons"]:
            pass
    assert (seen["stage"], "`source-failed`" in seen["reasons"][0]) == ("download", True)


@pytest.mark.asyncio
async def test_an_order_whose_provider_is_not_taken_for_whom_it_says_it_is_tells_that_and_goes_on_once_that_is_mended(tmp_path: Path):
    provider, consumer = site(tmp_path / "hospital", "hospital"), site(tmp_path / "biopharma", "biopharma")
    consumer.meet(provider)
    keys.generate(provider.settings.keys.directory, time.time() + 1.0)  # the newest one signs
    async with running(provider) as them, running(consumer) as us:
        await them.publish(D, content=CONTENT)
        id = (await order(us))["id"]
        async with asyncio.timeout(WAIT_SECONDS):
            while not (seen := await us.asked("GET", f"/pulls/{id}"))["reasons"]:
                pass
        assert "is not a key that its issuer's self-description names" in seen["reasons"][0]
        assert "put its self-description as it is now into our registry" in seen["reasons"][0]
        consumer.meet(provider)
        await us.asked("POST", "/reload", {})
        assert (await settled(us, id)).reasons == ()


@pytest.mark.parametrize("by_provider", [True, False])
@pytest.mark.asyncio
async def test_a_suspended_transfer_pauses_the_order_and_the_next_start_lets_it_go_on(both: Pair, by_provider: bool):
    async with upstream() as source:
        pull = await under_way(both, source)
        ours = await both.consumer.state(T, pull.transfer, "STARTED")
        us, pid = (both.provider, ours.peer_pid) if by_provider else (both.consumer, ours.pid)
        await us.asked("POST", f"/transfers/{pid}/suspend", {"reason": "a pause"})
        await both.consumer.state(T, ours.pid, "SUSPENDED")
        await both.provider.state(T, ours.peer_pid, "SUSPENDED")
        source.held = False
        source.go_on.set()
        who = "the provider has" if by_provider else "we have"
        async with asyncio.timeout(WAIT_SECONDS):
            while f"{who} suspended the transfer: a pause" not in (await both.consumer.asked("GET", f"/pulls/{pull.id}"))["reasons"]:
                pass
        stored = await both.consumer.connector.store.pull(pull.id)
        assert (stored.stage, stored.reasons) == ("download", ())
        await us.asked("POST", f"/transfers/{pid}/resume")
        done = await settled(both.consumer, pull.id)
        assert (done.stage, done.reasons) == ("done", ())
        assert place(both.consumer).read_bytes() == BIG
        assert await counts(both.provider) == (1, 1, 1)


@pytest.mark.asyncio
async def test_a_transfer_that_is_terminated_ends_the_order_with_the_reason_of_the_peer(both: Pair):
    async with upstream() as source:
        pull = await under_way(both, source)
        theirs = (await both.provider.asked("GET", "/transfers"))["items"][0]["pid"]
        await both.provider.asked("POST", f"/transfers/{theirs}/terminate", {"reason": "the study is over"})
        failed = await settled(both.consumer, pull.id)
        assert (failed.stage, failed.reasons, failed.received_bytes > 0) == ("failed", ("the study is over",), True)
        assert not place(both.consumer).exists()


@pytest.mark.asyncio
async def test_progress_is_seen_while_it_is_under_way_and_gone_afterwards(both: Pair):
    async with upstream() as source:
        pull = await under_way(both, source)
        seen = await both.consumer.asked("GET", f"/pulls/{pull.id}")
        assert (seen["stage"], seen["size_bytes"]) == ("download", len(BIG))
        source.go_on.set()
        assert (await settled(both.consumer, pull.id)).stage == "done"
        assert (await both.consumer.asked("GET", f"/pulls/{pull.id}"))["received_bytes"] == len(BIG)
        assert (await both.consumer.asked("GET", "/pulls?open=true"))["items"] == []


STAGES: dict[str, Callable[[Pull], bool]] = {
    "accepted": lambda p: p.version == 1,
    "negotiation begun": lambda p: p.negotiation is not None,
    "agreed": lambda p: p.stage == "transfer",
    "transfer begun": lambda p: p.transfer is not None,
    "started": lambda p: p.stage == "download",
    "size known": lambda p: p.validator is not None,
    "file in its place": lambda p: p.stage == "complete",
    "done": lambda p: p.stage == "done",
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.asyncio
async def test_an_order_goes_on_where_it_was_stopped_and_nothing_is_doubled(tmp_path: Path, stage: str):
    async with restartable(tmp_path) as (provider, consumer):
        await provider.publish(D, content=CONTENT)
        async with running(consumer) as first:
            reached = at_stage(first, STAGES[stage])
            id = (await order(first))["id"]
            async with asyncio.timeout(WAIT_SECONDS):
                await reached.wait()
        await went_on(provider, consumer, id)


@pytest.mark.parametrize("commits", [2, 4, 6, 9, 12, 14])
@pytest.mark.asyncio
async def test_an_order_goes_on_after_a_stop_between_any_two_commits(tmp_path: Path, commits: int):
    """Among them are those of the negotiation and the transfer, of which the order itself knows nothing yet."""
    async with restartable(tmp_path) as (provider, consumer):
        await provider.publish(D, content=CONTENT)
        async with running(consumer) as first:
            reached = after_commits(first, commits)
            id = (await order(first))["id"]
            async with asyncio.timeout(WAIT_SECONDS):
                await reached.wait()
        await went_on(provider, consumer, id)


@pytest.mark.asyncio
async def test_a_stop_in_the_middle_of_the_data_keeps_what_has_come(tmp_path: Path):
    async with restartable(tmp_path) as (provider, consumer), upstream() as source:
        async with running(consumer) as first:
            both = Pair(provider, first)
            pull = await under_way(both, source)
        assert not place(consumer).exists(), "half a file has no name"
        source.held = False
        source.go_on.set()
        await went_on(provider, consumer, pull.id, BIG)


@pytest.mark.asyncio
async def test_an_order_outlives_a_start_that_cannot_read_what_policies_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with restartable(tmp_path) as (provider, consumer), upstream() as source:
        async with running(consumer) as first:
            pull = await under_way(Pair(provider, first), source)
        (tmp_path / "broken" / "profiles").mkdir(parents=True)
        (tmp_path / "broken" / "profiles" / "mine.yaml").write_text("id: mine\nversion: 1")
        said, say, over = list[str](), telemetry.log._write, asyncio.Event()

        def heard(level: str, event: str, fields: dict[str, Any]) -> None:
            say(level, event, fields)
            said.append(event)
            if event.startswith("pull "):
                over.set()

        with monkeypatch.context() as patched:
            patched.setattr(app, "read_profiles", lambda: read_profiles((tmp_path / "broken",)))
            patched.setattr(telemetry.log, "_write", heard)
            async with running(consumer) as second, asyncio.timeout(WAIT_SECONDS):
                await over.wait()
                assert (await second.connector.store.pull(pull.id)).stage == "download"
        assert "pull left for the next start" in said
        source.held = False
        source.go_on.set()
        await went_on(provider, consumer, pull.id, BIG)


@pytest.mark.asyncio
async def test_an_order_that_is_over_is_not_taken_up_again(tmp_path: Path):
    async with restartable(tmp_path) as (provider, consumer):
        async with running(consumer) as first:
            failed = await settled(first, (await order(first))["id"])
        async with running(consumer) as second:
            assert await second.connector.store.pull(failed.id) == failed
        assert await counts(provider) == (0, 0, 0)


@pytest.mark.parametrize("with_address", [True, False])
@pytest.mark.asyncio
async def test_a_start_without_a_data_address_fails_the_order(tmp_path: Path, with_address: bool):
    """The stage before has come to its end in the store; what the peer's start brought decides how it goes on."""
    async with desk(tmp_path, store="sqlite") as at:
        agreed = agreement(at.us, at.peer, Role.CONSUMER)
        process = transfer(at.us, at.peer, "STARTED", Role.CONSUMER, agreed)
        pull = Pull("p", at.peer.id, D, str(place(at.us)), "download", transfer=process.pid, version=1, created=1.0, updated=1.0)
        edr = Edr(process.pid, {"endpoint": "http://127.0.0.1:9/data"}, "token", None, None, None)
        await at.us.put(process, agreed)
        await at.us.connector.journal.commit(Changes(saves=(pull, edr) if with_address else (pull,)))
        here = at.us.site
        await at.us.connector.close()
        async with running(here) as again:
            if with_address:
                assert (await again.connector.store.pull("p")).stage == "download", "it is tried for a long time"
            else:
                why = "the provider started the transfer without a data address"
                assert (await settled(again, "p")).reasons == (why,)
                told = await at.peer.heard(f"/transfers/{process.peer_pid}/termination")
                assert told["reason"] == [f"the consumer could not fetch the data: {why}"], "the provider knows that nobody reads"
