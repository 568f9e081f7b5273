"""An order whose disk is full waits for room, goes on where it was, and gives up in the end; nothing is signed for twice or not at all."""

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from connector.errors import PeerFailed, SinkFailed
from connector.intake import account, room
from connector.intake.patience import Patience
from connector.ports.sinks import Sink
from connector.records import Pull
from tests.contracts.memory_sinks import MemorySinks
from tests.dataplane.rig import some_bytes
from tests.intake.signed_provider import CHUNK, both, of_both

CONTENT = some_bytes(40 * CHUNK + 4321)
FULL = 20 * CHUNK

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(account, "QUIET_SECONDS", 0.1)


def filling(sinks: MemorySinks, then: Callable[[Pull], Any]) -> Callable[[Pull], None]:
    """The disk is full once the data have begun to come; what `then` does with the order that says so."""

    def seen(order: Pull) -> None:
        if any("the order goes on once there is room" in each for each in order.reasons):
            then(order)
        elif sinks.space_bytes == 1 << 30 and not order.reasons:
            sinks.space_bytes = FULL

    return seen


async def begun() -> Sink:
    sink = await MemorySinks().open("x", "y", overwrite=False)
    await sink.append([b"x" * CHUNK])
    return sink


async def unheard(_why: str) -> None:
    pass


async def test_it_goes_on_where_it_was_once_there_is_room(tmp_path: Path):
    sinks, told = MemorySinks(), list[Pull]()
    async with both(tmp_path, CONTENT, sinks=sinks) as (provider, consumer):

        def make_room(order: Pull) -> None:
            told.append(order)
            sinks.space_bytes = (1 << 30) - 1

        consumer.watcher.on_report = filling(sinks, make_room)
        await consumer.fetch()
        assert sinks.files[str(consumer.out)] == CONTENT
        states = [each.state for each in provider.receipts]
        assert (states.count("aborted"), states[-1], len(told)) == (1, "complete", 1)
        stopped = states.index("aborted")
        assert provider.receipts[stopped].reason == "sink"
        assert provider.receipts[stopped].counts.bytes > 0, "what the disk has is signed for before"
        of_both(provider, await consumer.account())
        assert provider.account.counts.bytes == len(CONTENT)


async def test_who_makes_no_room_is_waited_for_as_long_as_a_provider(tmp_path: Path):
    sinks = MemorySinks()
    async with both(tmp_path, CONTENT, sinks=sinks) as (provider, consumer):
        consumer.watcher.on_report = filling(sinks, lambda _: None)
        with pytest.raises(SinkFailed, match="no space"):
            await consumer.fetch(patience_seconds=0.1)
        assert (provider.receipts[-1].state, provider.receipts[-1].reason) == ("aborted", "sink")
        of_both(provider, await consumer.account())


async def test_a_transfer_that_ends_meanwhile_ends_the_order(tmp_path: Path):
    sinks, over = MemorySinks(), list[Pull]()
    async with both(tmp_path, CONTENT, sinks=sinks) as (_, consumer):
        consumer.watcher.on_report = filling(sinks, over.append)
        with pytest.raises(SinkFailed, match="no space"):
            async with asyncio.timeout(10):
                await consumer.downloads().fetch(consumer.order(), consumer.edr(), over=lambda: bool(over), **consumer.watcher.calls)
        assert sinks.kept, "the part is there for the next order"


async def test_what_never_had_room_is_refused_at_once(tmp_path: Path):
    async with both(tmp_path, CONTENT, sinks=MemorySinks(space_bytes=FULL)) as (_, consumer):
        async with asyncio.timeout(10):
            with pytest.raises(SinkFailed, match="no space"):
                await consumer.fetch()


async def test_a_disk_that_is_found_full_only_when_it_is_to_keep_what_was_written_is_written_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fdatasync, full = os.fdatasync, [errno.ENOSPC]

    def fails_once(descriptor: int) -> None:
        if full:
            raise OSError(full.pop(), "No space left on device")
        fdatasync(descriptor)

    monkeypatch.setattr(os, "fdatasync", fails_once)
    async with both(tmp_path, CONTENT) as (provider, consumer):
        await consumer.fetch()
        assert consumer.out.read_bytes() == CONTENT
        of_both(provider, await consumer.account())


async def test_a_disk_that_says_that_it_has_room_and_takes_nothing_is_asked_less_and_less_often(monkeypatch: pytest.MonkeyPatch):
    pauses = list[float]()

    async def slept(seconds: float) -> None:
        pauses.append(seconds)

    async def step(_sink: Sink) -> None:
        raise SinkFailed("full", full=len(pauses) < 7)

    monkeypatch.setattr(room, "LOOK_SECONDS", 1.0)
    monkeypatch.setattr(room.asyncio, "sleep", slept)
    with pytest.raises(SinkFailed):
        await room.with_room(begun, step, lambda: None, Patience("urn:pull", 900.0, lambda: False), 900.0, unheard)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


@pytest.mark.parametrize("size_bytes", [None, CHUNK // 2], ids=["no size", "a range of less than its leaves"])
async def test_a_disk_that_says_that_it_has_room_and_takes_nothing_is_given_up_in_the_end(
    monkeypatch: pytest.MonkeyPatch, size_bytes: int | None
):
    clock = SimpleNamespace(seconds=0.0)

    async def looked(_sink: Sink, more_bytes: int, pause: float) -> bool:
        assert more_bytes > 0, "what is still to come needs room"
        clock.seconds += pause
        return True

    async def step(_sink: Sink) -> None:
        assert clock.seconds < 2_000.0, "it has been given up by then"
        raise SinkFailed("full", full=True)

    monkeypatch.setattr(room, "_room", looked)
    monkeypatch.setattr(room.asyncio, "get_running_loop", lambda: SimpleNamespace(time=lambda: clock.seconds))
    with pytest.raises(SinkFailed, match="full"):
        await room.with_room(begun, step, lambda: size_bytes, Patience("urn:pull", 900.0, lambda: False), 900.0, unheard)
    assert 900.0 <= clock.seconds < 930.1


async def test_what_came_since_is_progress_however_little_it_is(monkeypatch: pytest.MonkeyPatch):
    """An hour after a pause that was over, with a few hundred bytes of live data since."""
    clock, looks = SimpleNamespace(seconds=0.0), [True, False, True]

    async def looked(_sink: Sink, _more_bytes: int, pause: float) -> bool:
        clock.seconds += pause
        return looks.pop(0)

    kept = await begun()

    async def step(sink: Sink) -> str:
        clock.seconds += 3_600.0
        await sink.append([b"x" * 300])
        if looks:
            raise SinkFailed("full", full=True)
        return "done"

    async def place() -> Sink:
        return kept

    patience = Patience("urn:pull", 900.0, lambda: False)
    monkeypatch.setattr(room, "_room", looked)
    monkeypatch.setattr(room.asyncio, "get_running_loop", lambda: SimpleNamespace(time=lambda: clock.seconds))
    assert await room.with_room(place, step, lambda: None, patience, 900.0, unheard) == "done"


async def test_what_a_disk_says_once_more_as_the_part_is_let_go_of_ends_no_waiting_for_it(monkeypatch: pytest.MonkeyPatch):
    kept, refusals = await begun(), [SinkFailed("full", full=True), SinkFailed("full", full=True)]

    async def step(_sink: Sink) -> str:
        if len(refusals) > 1:
            raise refusals.pop()
        return "done"

    async def close() -> None:
        if refusals:
            raise refusals.pop()

    async def place() -> Sink:
        return kept

    async def looked(_sink: Sink, _more_bytes: int, _pause: float) -> bool:
        return True

    monkeypatch.setattr(kept, "close", close)
    monkeypatch.setattr(room, "_room", looked)
    patience = Patience("urn:pull", 900.0, lambda: False)
    assert await room.with_room(place, step, lambda: None, patience, 900.0, unheard) == "done"


@pytest.mark.parametrize("ended", [asyncio.CancelledError(), PeerFailed("gone")], ids=["stopped", "gone"])
async def test_what_ended_it_is_not_replaced_by_what_a_disk_says_as_the_part_is_let_go_of(
    monkeypatch: pytest.MonkeyPatch, ended: BaseException
):
    kept, refusals = await begun(), [SinkFailed("full", full=True)]

    async def step(_sink: Sink) -> str:
        raise ended

    async def close() -> None:
        if refusals:
            raise refusals.pop()

    async def place() -> Sink:
        return kept

    monkeypatch.setattr(kept, "close", close)
    with pytest.raises(type(ended)):
        await room.with_room(place, step, lambda: None, Patience("urn:pull", 900.0, lambda: False), 900.0, unheard)
    assert not refusals
