"""An order whose disk is full waits for room and goes on, as long as it would wait for a provider; nobody has to order again.

Nothing is read meanwhile: what the disk has is signed for, the provider hears why nothing more is (a receipt that says `aborted` ends no
account), and its transfer goes on. What is waited for is room for all that is still to come, or for a window where nobody knows how much
that is. A disk that says it has room and takes nothing, as one with a quota does, is asked less and less often. Where nothing has come
yet the order ends at once: its file never had room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeVar

from connector import telemetry
from connector.errors import SinkFailed
from connector.intake.patience import PROGRESS_BYTES, Patience
from connector.metering.objects import WINDOW_BYTES
from connector.ports.sinks import Sink
from connector.remembered import pause_seconds

LOOK_SECONDS = 1.0  # before the first look at a disk that was full
LOOK_SECONDS_MAX: Final = 30.0  # before each where it takes nothing

T = TypeVar("T")


async def with_room(
    place: Callable[[], Awaitable[Sink]],
    step: Callable[[Sink], Awaitable[T]],
    size_bytes: Callable[[], int | None],
    patience: Patience,
    seconds: float,
    waits: Callable[[str], Awaitable[None]],
    enough: Callable[[], bool] = lambda: False,
) -> T:
    """Do `step`, which writes data of `size_bytes` (None where nobody knows) into the sink that `place` opens, and again each time there is
    room after it found the disk full; also once there is `enough` of data without an end, as no more comes then. `waits` hears why nothing
    comes. Raises what both raise, SinkFailed also if there is no room within `seconds` of the last progress, or the transfer is over by
    then. The sink is closed on return; what it says only then is raised, unless something else is already."""
    loop = asyncio.get_running_loop()
    since, reached, failures = loop.time(), 0, 0
    sink = await place()
    try:
        while True:
            try:
                return await step(sink)
            except SinkFailed as failed:
                if not failed.full or not (has := await _has(sink)):
                    raise
                since = loop.time() if has > reached else since
                failures = 0 if has - reached >= PROGRESS_BYTES else failures
                reached = max(reached, has)
                if loop.time() - since >= seconds:  # it says that it has room, and takes nothing
                    raise
                telemetry.log.warning("disk full", reason=failed.message, has_bytes=has)
                await waits(
                    f"the disk is full: free some space, and the order goes on once there is room for the rest, within {seconds:g} s"
                )
                failures += 1
                size, pause = size_bytes(), pause_seconds(failures, LOOK_SECONDS, LOOK_SECONDS_MAX)
                more_bytes = WINDOW_BYTES if size is None else max(1, size - has)  # leaves that hold a range are more than its size
                while not await _room(sink, more_bytes, pause):
                    if patience.over or loop.time() - since >= seconds:
                        raise
                    if size is None and enough():
                        break
                patience.well()
            with suppress(SinkFailed):  # what it has refused before, some file systems say once more
                await sink.close()
            sink = await place()  # what a disk has not kept is written once more: until then nobody can sign for it
    except BaseException:  # a cancellation, above all, is none any more once another error has taken its place
        with suppress(SinkFailed):
            await sink.close()
        raise
    finally:
        await sink.close()


async def _room(sink: Sink, more_bytes: int, pause: float) -> bool:
    """Whether there is room for so much after a pause."""
    await asyncio.sleep(pause)
    try:
        await sink.reserve(more_bytes)
    except SinkFailed:
        return False
    return True


async def _has(sink: Sink) -> int:
    """How much has come, wherever it lies."""
    return sum(end - first for first, end in await sink.extents())
