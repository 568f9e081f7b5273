"""Await points are seen from outside, have the same names each time, and are told apart by where and about what they are."""

import asyncio
import linecache
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from connector.adapters.clock import SystemClock
from connector.adapters.memory import MemoryStore
from connector.control.journal import Journal
from connector.control.outbox import Outbox
from connector.dsp.messages import Move
from tests.faults import child, points
from tests.faults.points import Points


def passed(work: Callable[[], Awaitable[Any]]) -> list[str]:
    """The points that some work passes, seen as the fault program sees them."""
    seen: list[str] = []
    known = Points()

    def look(coroutine: Any) -> None:
        if (point := known.of(coroutine)) is not None:
            seen.append(point)

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(lambda loop, work, **more: asyncio.Task(child.Observed(work, look), loop=loop, **more))

        async def task() -> None:
            await work()

        await asyncio.create_task(task())

    asyncio.run(main())
    return seen


async def decide() -> None:
    """Two suspensions below one line of the product."""

    async def step() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    await Journal(MemoryStore(), SystemClock()).decide(step)


async def deliver(move: Move) -> None:
    """A delivery that waits for its time."""
    outbox = SimpleNamespace(_journal=Journal(MemoryStore(), SystemClock()))
    now = outbox._journal.clock.now()
    row: Any = SimpleNamespace(created=now, due=now + 0.01, act="decide", move=move)
    with suppress(AttributeError):  # what follows is no matter of this test
        await Outbox._run(outbox, row, True, None)  # type: ignore[arg-type]


def test_a_point_is_a_line_of_the_product_and_has_the_same_name_each_time():
    first, second = passed(decide), passed(decide)
    assert first == second
    assert len(first) == 2
    (point,) = set(first)
    places = [frame.split(":") for frame in point.split(" > ")]
    ((path, name, line),) = places
    assert (path, name) == ("control/journal.py", "Journal.decide")
    assert "await step()" in linecache.getline(str(points.PRODUCT / path), int(line))


def test_the_message_that_a_task_is_about_is_part_of_the_name():
    requested, started = (set(passed(lambda move=move: deliver(move))) for move in (Move.CONTRACT_REQUEST, Move.START))
    assert len(requested) == len(started) == 1
    assert requested != started
    assert next(iter(started)).endswith(" [TransferStartMessage]")
    assert next(iter(started)).startswith("control/outbox.py:Outbox._run:")


def test_tasks_outside_of_the_product_have_no_points():
    assert passed(lambda: asyncio.sleep(0.001)) == []


def test_every_room_that_does_something_is_of_the_write_path():
    rooms = {each.name for each in points.PRODUCT.iterdir() if (each / "__init__.py").exists()}
    outside = ("dsp", "odrl", "signatures", "merkle", "lanes", "metering", "evidence", "records", "ports", "settings", "client", "cli")
    assert {room for room in rooms if f"{room}/".startswith(points.WRITE_PATH)} == {room for room in rooms if not room.startswith(outside)}


def test_what_only_reads_is_not_of_the_write_path():
    assert all(reader.startswith(points.WRITE_PATH) for reader in points.READERS), "else it would not have to be left out"


def test_an_observed_coroutine_behaves_as_the_one_inside():
    async def inner() -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return 7
        return 0

    async def main() -> int:
        asyncio.get_running_loop().set_task_factory(
            lambda loop, work, **more: asyncio.Task(child.Observed(work, lambda _: None), loop=loop, **more)
        )
        task = asyncio.create_task(inner())
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert asyncio.run(main()) == 7
