"""An order that an operator ends before it has its data: what it has begun ends on both sides, and nothing else changes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from connector.adapters.memory import MemoryStore
from connector.control_streams import patience
from connector.dsp.messages import Role
from connector.errors import StoreError
from connector.metering.content import CHUNK_BYTES
from connector.records import Changes, Idempotent, Pull
from connector.records.metering import Counts, Metered
from connector.values import replace
from tests.control.orders import BIG, CONTENT, D, N, T, at_stage, order, place, restartable, settled, stages, under_way, upstream
from tests.pair import WAIT_SECONDS, Pair, Running, agreement, desk, pair, running, site, transfer

pytestmark = pytest.mark.asyncio
WHY = "the study is off"


@pytest_asyncio.fixture
async def both(tmp_path: Path) -> AsyncIterator[Pair]:
    async with pair(tmp_path) as made:
        yield made


async def cancel(us: Running, id: str, status: int = 200) -> Any:
    return await us.asked("POST", f"/pulls/{id}/cancel", {"reason": WHY}, status=status)


async def test_a_download_ends_on_both_sides_and_what_has_come_stays_for_the_next_order(both: Pair):
    async with upstream() as source:
        pull = await under_way(both, source)
        view = await cancel(both.consumer, pull.id)
        assert (view["stage"], view["reasons"], view["received_bytes"] > 0) == ("failed", [WHY], True)
        ours = await both.consumer.state(T, pull.transfer, "TERMINATED")
        theirs = await both.provider.state(T, ours.peer_pid, "TERMINATED")
        assert theirs.detail["reasons"] == [WHY]
        assert not place(both.consumer).exists()
        assert await stages(both.consumer, pull.id) == ["negotiate", "transfer", "download", "cancel", "failed"]
        source.held = False
        source.go_on.set()
        again = await settled(both.consumer, (await order(both.consumer))["id"])
        assert (again.stage, again.part, again.earlier) == ("done", pull.id, (pull.transfer,))
        assert place(both.consumer).read_bytes() == BIG


async def test_an_order_that_several_cancel_at_once_is_ended_by_one(both: Pair):
    async with upstream() as source:
        pull = await under_way(both, source)
        us, most = both.consumer, 0

        def counted(_changes: Any, _evidence: Any) -> None:
            nonlocal most
            most = max(most, sum(task.get_name() == f"pull {pull.id}" and not task.done() for task in asyncio.all_tasks()))

        us.connector.journal.listen(counted)
        asked = [us.manage("POST", f"/pulls/{pull.id}/cancel", {"reason": WHY}) for _ in range(3)]
        assert sorted(answer.status for answer in await asyncio.gather(*asked)) == [200, 409, 409]
        assert (await us.connector.store.pull(pull.id)).stage == "failed"
        assert most == 1


async def test_a_negotiation_that_waits_for_somebody_ends_on_both_sides(both: Pair):
    await both.provider.publish(D, content=CONTENT, manual=True)
    id = (await order(both.consumer))["id"]
    begun = await settled_with_negotiation(both.consumer, id)
    view = await cancel(both.consumer, id)
    assert (view["stage"], view["reasons"], view["negotiation"]) == ("failed", [WHY], begun.negotiation)
    ours = await both.consumer.state(N, begun.negotiation, "TERMINATED")
    assert (await both.provider.state(N, ours.peer_pid, "TERMINATED")).detail["reasons"] == [WHY]


async def settled_with_negotiation(us: Running, id: str) -> Pull:
    """The order once the peer knows of its negotiation."""
    store = us.connector.store
    news = asyncio.Event()
    us.connector.journal.listen(lambda _changes, _evidence: news.set())
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            pull = await store.pull(id)
            process = await store.process(N, pull.negotiation) if pull and pull.negotiation else None
            if pull is not None and process is not None and process.peer_pid is not None:
                return pull
            await news.wait()
            news.clear()


async def test_an_order_that_waits_for_a_peer_that_is_away_ends_at_once(tmp_path: Path):
    provider, consumer = site(tmp_path / "hospital", "hospital"), site(tmp_path / "biopharma", "biopharma")
    consumer.meet(provider)
    async with running(consumer) as us:
        view = await cancel(us, (await order(us))["id"])
        assert (view["stage"], view["reasons"], view["negotiation"]) == ("failed", [WHY], None)


async def test_a_negotiation_that_the_order_could_not_note_any_more_ends_too(both: Pair):
    """It is cancelled between the commit that begins the negotiation and the one by which the order knows of it."""
    await both.provider.publish(D, content=CONTENT, manual=True)
    us = both.consumer
    begun = await settled_with_negotiation(us, (await order(us))["id"])
    pull = Pull("p", begun.peer, D, str(place(us, "other.bin")), "negotiate", version=1)
    key = Idempotent("pull:p:negotiation", b"", (begun.negotiation or "").encode(), 0.0)
    await us.connector.store.commit(Changes(saves=(pull, key)))
    assert (await cancel(us, "p"))["negotiation"] == begun.negotiation
    ours = await us.state(N, begun.negotiation, "TERMINATED")
    assert ours.detail["reasons"] == [WHY]


async def test_what_had_come_before_a_restart_is_said_of_an_order_that_nobody_has_seen_fetch_since(tmp_path: Path):
    """Its progress is in memory; what was signed for is not."""
    async with desk(tmp_path) as at:
        agreed = agreement(at.us, at.peer, Role.CONSUMER)
        waits, left = (transfer(at.us, at.peer, "SUSPENDED", Role.CONSUMER, agreed) for _ in range(2))
        shape = (Role.CONSUMER, agreed.id, at.peer.id, "", "o/log/x", CHUNK_BYTES)
        accounts = [Metered(pid, *shape, counts=Counts(size), version=1) for pid, size in ((waits.pid, 1000), (left.pid, 300))]
        await at.us.put(waits, agreed)
        await at.us.connector.store.commit(Changes(saves=tuple(accounts)))
        for size_bytes, came in ((None, 1300), (1200, 1200)):
            pull = Pull(f"p{came}", at.peer.id, D, str(place(at.us)), "download", version=1, agreement=agreed.id, transfer=waits.pid)
            pull = replace(pull, earlier=(left.pid,), size_bytes=size_bytes)
            await at.us.connector.store.commit(Changes(saves=(pull,)))
            assert (await cancel(at.us, pull.id))["received_bytes"] == came


async def test_what_has_come_without_a_strong_entity_tag_goes_with_its_order_as_nobody_could_go_on_with_it_nor_would_find_it(
    tmp_path: Path,
):
    async with desk(tmp_path) as at:
        agreed = agreement(at.us, at.peer, Role.CONSUMER)
        waits = transfer(at.us, at.peer, "SUSPENDED", Role.CONSUMER, agreed)
        await at.us.put(waits, agreed)
        out, left = place(at.us), list[str]()
        out.parent.mkdir(exist_ok=True)
        for id, validator in (("weak", None), ("strong", '"e"')):
            (out.parent / f"{out.name}.{id}.part").write_bytes(b"half of it")
            pull = Pull(id, at.peer.id, D, str(out), "download", version=1, agreement=agreed.id, transfer=waits.pid, validator=validator)
            await at.us.connector.store.commit(Changes(saves=(pull,)))
            assert (await cancel(at.us, id))["stage"] == "failed"
            left += sorted(path.name for path in out.parent.iterdir())
        assert left == [f"{out.name}.strong.part"]


async def test_what_is_over_or_has_all_of_its_data_stays_as_it_is(both: Pair):
    await both.provider.publish(D, content=CONTENT)
    done = await settled(both.consumer, (await order(both.consumer))["id"])
    assert "it is over, and nothing is left to cancel" in (await cancel(both.consumer, done.id, 409))["detail"]
    assert await both.consumer.connector.store.pull(done.id) == done
    assert "there is no pull `none`" in (await cancel(both.consumer, "none", 404))["detail"]


async def test_a_stop_while_it_is_cancelled_changes_nothing_about_it(tmp_path: Path):
    async with restartable(tmp_path) as (provider, consumer):
        await provider.publish(D, content=CONTENT, manual=True)
        async with running(consumer) as first:
            id = (await order(first))["id"]
            begun = await settled_with_negotiation(first, id)
            reached = at_stage(first, lambda p: p.stage == "cancel")
            asked = asyncio.create_task(first.manage("POST", f"/pulls/{id}/cancel", {"reason": WHY}))
            async with asyncio.timeout(WAIT_SECONDS):
                await reached.wait()
        await asyncio.gather(asked, return_exceptions=True)
        async with running(consumer) as second:
            failed = await settled(second, id)
            assert (failed.stage, failed.reasons) == ("failed", (WHY,))
            ours = await second.state(N, begun.negotiation, "TERMINATED")
            await provider.state(N, ours.peer_pid, "TERMINATED")


async def test_an_order_that_fails_while_the_store_cannot_be_read_is_ended_once_it_can_be(both: Pair, monkeypatch: pytest.MonkeyPatch):
    """Else it would stand where it was, with nobody at it."""
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.001)
    us, errors, read = both.consumer, [StoreError("the store cannot be read: disk I/O error") for _ in range(2)], MemoryStore.pull

    async def pull(store: MemoryStore, id: str) -> Pull | None:
        task = asyncio.current_task()
        if errors and task is not None and task.get_name() == f"pull {id}":
            raise errors.pop()
        return await read(store, id)

    monkeypatch.setattr(MemoryStore, "pull", pull)
    failed = await settled(us, (await order(us))["id"], "failed")
    assert (failed.stage, errors) == ("failed", [])
