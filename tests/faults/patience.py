"""Deadlines that a busy machine does not use up: what a process waits for a processor is not its own time.

Linux counts it for each thread (`/proc/PID/task/TID/schedstat`: nanoseconds on a processor, and in the queue for one). Who has lost
something does nothing, and is in no queue: its time runs as ever, however busy others are.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

NANOSECONDS, MICROSECONDS = 1e9, 1e6
STRETCH = 5.0  # times: longer waits nobody, or who turns in circles on a busy machine would be waited for for ever
AHEAD_SECONDS = 0.05  # of a deadline: then it is looked whether it is one


def queues(pid: int) -> dict[int, float]:
    """How many seconds each thread of a process was in the queue; none where there is no such process, or nobody counts."""
    found = dict[int, float]()
    with suppress(OSError):  # it has ended, as any of its threads may while we look
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found[int(task.name)] = int((task / "schedstat").read_text().split()[1]) / NANOSECONDS
    return found


def queued_seconds(pid: int) -> float:
    """The same of those that there are now, all together."""
    return sum(queues(pid).values())


def disk_seconds(pressure: Path = Path("/proc/pressure/io")) -> float:
    """How long somebody on this machine has waited for a disk, whoever it was; 0 where nobody counts."""
    with suppress(OSError):
        return int(pressure.read_text().split("total=")[1].split()[0]) / MICROSECONDS
    return 0.0


def stretched(seconds: float, queued: float) -> float:
    """So many seconds of one's own, and what was spent in a queue meanwhile: of many threads that may be more than there was."""
    return seconds + min(queued, (STRETCH - 1) * seconds)


def own_time() -> Callable[[float], float]:
    """What gives how long so many seconds of this process may last, from now on: as long, but for what its threads are in the queue for."""
    queue, pid = Queue(), os.getpid()
    before = queue.seconds(pid)
    return lambda seconds: stretched(seconds, queue.seconds(pid) - before)


def own_patience(seconds: float) -> AbstractAsyncContextManager[None]:
    """As `asyncio.timeout`, of so many seconds of this process."""
    return patience(seconds, partial(Queue().seconds, os.getpid()))


class Queue:
    """The same of several processes, as far as it was looked at: it never becomes less, also when threads end, and their time with them."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], float] = {}

    def seconds(self, pid: int) -> float:
        """Now, with this process in it from now on."""
        for thread, seconds in queues(pid).items():
            self._seen[pid, thread] = max(seconds, self._seen.get((pid, thread), 0.0))
        return sum(self._seen.values())


class Patience:
    """So many seconds from now on, and as many more as `queued()` grows by meanwhile."""

    def __init__(self, seconds: float, queued: Callable[[], float]) -> None:
        self.seconds, self._queued = seconds, queued
        self.anew()

    def anew(self) -> None:
        """Begin again."""
        self.since, self._before = time.monotonic(), self._queued()

    @property
    def ends(self) -> float:
        """When, in `time.monotonic`, as it looks now."""
        return self.since + stretched(self.seconds, self._queued() - self._before)


@asynccontextmanager
async def patience(seconds: float, queued: Callable[[], float]) -> AsyncIterator[None]:
    """As `asyncio.timeout`, with such a patience."""
    loop, having = asyncio.get_running_loop(), Patience(seconds, queued)
    async with asyncio.timeout(seconds) as limit:

        def look() -> None:
            nonlocal looking
            if (ends := having.ends) > (limit.when() or 0.0) + AHEAD_SECONDS:
                limit.reschedule(ends)
                looking = loop.call_at(ends - AHEAD_SECONDS, look)

        looking = loop.call_at(having.since + seconds - AHEAD_SECONDS, look)
        try:
            yield
        finally:
            looking.cancel()
