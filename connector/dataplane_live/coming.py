"""What a source has sent and is in no leaf yet: while some of it is hashed and written, more comes.

A source that brings much has a thread of its own, and there it is sealed at once: a byte is hashed and written by the core that has
received it, and the event loop, which is busy with sending what came before, is told of it and not waited for. What comes slowly, or goes
through stages, is collected for the event loop, which has it sealed once it is due.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from connector import telemetry
from connector.errors import DescriptorsShort, SinkFailed
from connector.metering.content import CHUNK_BYTES
from connector.ports.live import BATCH_BYTES, Records
from connector.remembered import pause_seconds
from connector.values import Value

HOP_BYTES: Final = 1024 * 1024  # sealed in a thread at once: below, the way there and back costs more than the hashing
LINGER_SECONDS: Final = 0.01  # that more than a chunk waits for more of a hop
RECENT: Final = 2  # batches at hand
# glibc gives back to the kernel, and faults in again page by page, whatever is as large as nothing was that it has freed before: two thirds
# of the CPU that receiving takes.
KEPT_BYTES: Final = 2 * BATCH_BYTES
PAUSE_SECONDS: Final = 0.2  # before what found no descriptor is written again, or no room
DISK_SECONDS_MAX: Final = 5.0  # before a disk that refuses is asked again: a full one may be the one that has to take what is said of it


class Due(Value):
    """What is due, the position behind it, and whether it is `sealed` already."""

    data: bytes
    position: str | None
    sealed: bool


class Coming:
    """Whole records in order. Something is due once there are HOP_BYTES of it, a chunk that LINGER_SECONDS added no more to, or
    `seal_seconds` after its first byte came. `seal(data, position)` is called in the source's thread, and never while the event loop has
    something to seal that came before."""

    def __init__(self, seal_seconds: float, seal: Callable[[bytes, str | None], None]) -> None:
        self._seal_seconds, self._seal = seal_seconds, seal
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()  # around what is kept, and around sealing
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._position: str | None = None
        self._sealed: deque[Due] = deque()
        self._taken = self._closed = False  # by the loop, which seals what came first; and nobody seals any more
        self._due, self._room = asyncio.Event(), asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._ended = self._lingers = False

    def take(self, batch: Records) -> None:
        """Take what comes in the source's thread. Raises what `seal` does; where that lacks descriptors, the event loop seals it."""
        with self._lock:
            if not self._closed:
                self._keep(batch)
                if self._kept_bytes >= HOP_BYTES and not self._taken:
                    found = self._all_kept(sealed=True)
                    try:
                        self._seal(found.data, found.position)
                    except DescriptorsShort:
                        self._kept, self._kept_bytes = [found.data], len(found.data)
                    else:
                        self._sealed.append(found)

    async def fill(self, batches: AsyncGenerator[Records, None]) -> None:
        """Take what comes up to its end, at most a hop ahead. Raises what `batches` does; what came before is not lost by that."""
        try:
            async for batch in batches:
                if not batch.taken:
                    with self._lock:
                        self._keep(batch)
                self._look(batch)
                while self._sealed or (self._taken if batch.taken else self._kept_bytes >= HOP_BYTES):
                    self._room.clear()
                    await self._room.wait()
                    self._look(batch)  # its thread may have sealed more
        finally:
            self._ended = True
            self._due.set()

    async def next(self) -> Due | None:
        """What is due, once it is. None behind the last. What was given before is sealed by now."""
        self._taken = False
        while True:
            self._room.set()
            await self._due.wait()
            if self._sealed:
                found = self._sealed.popleft()
                if not (self._sealed or self._ended):
                    self._due.clear()
                    self._disarm()
                    if self._kept:
                        self._arm(self._seal_seconds)
                return found
            if not self._kept and self._ended:
                return None
            if not self._ended:
                self._due.clear()
            if not self._kept:
                self._disarm()
            elif self._lock.acquire(blocking=False):
                try:
                    if self._sealed:  # its thread was quicker, and what it has sealed comes first
                        self._due.set()
                        continue
                    self._taken = True
                    self._disarm()
                    self._room.set()
                    return self._all_kept(sealed=False)
                finally:
                    self._lock.release()
            else:  # its thread seals it just now
                self._arm(LINGER_SECONDS)

    def close(self) -> None:
        """Seal nothing more; in a thread. Returns once nobody does."""
        with self._lock:
            self._closed = True

    def _keep(self, batch: Records) -> None:
        self._kept.append(batch.data)
        self._kept_bytes, self._position = self._kept_bytes + len(batch.data), batch.position

    def _all_kept(self, *, sealed: bool) -> Due:
        kept, self._kept, self._kept_bytes = self._kept, [], 0
        return Due(b"".join(kept) if len(kept) > 1 else kept[0], self._position, sealed)

    def _look(self, batch: Records) -> None:
        """Say what is due by now, or when it will be."""
        kept_bytes = self._kept_bytes
        if self._sealed or (kept_bytes >= HOP_BYTES and not batch.taken):
            self._due.set()
        elif kept_bytes >= CHUNK_BYTES and not self._lingers:
            self._arm(LINGER_SECONDS)
            self._lingers = True
        elif kept_bytes and self._timer is None:
            self._arm(self._seal_seconds)

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self._loop.call_later(seconds, self._due.set)

    def _disarm(self) -> None:
        self._lingers = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Recent:
    """What came just now, for a reader who is up to it: the spool is for those who are not."""

    def __init__(self) -> None:
        bytes(KEPT_BYTES)  # not touched, so it costs nothing but its name
        self._batches: deque[tuple[int, bytes]] = deque(maxlen=RECENT)

    def add(self, first: int, data: bytes) -> None:
        """A batch came, whose first byte this is in the log."""
        self._batches.append((first, data))

    def piece(self, offset: int, end: int) -> bytes:
        """What is at hand from `offset` on, up to `end`; b"" if that is not."""
        for first, data in self._batches:
            if first <= offset < first + len(data):
                return data if first == offset and first + len(data) <= end else data[offset - first : end - first]
        return b""


async def to_its_end(work: asyncio.Future[Any]) -> None:
    """Wait for what is being written, also if we are cancelled meanwhile, however often: nothing is written under whoever comes next."""
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        work.exception()  # nobody asks for it any more
        raise


async def written(write: Callable[[], None], *, beside: bool) -> None:
    """Have it written, in a thread (`beside`) or at once. Its source need not be able to send it again: so descriptors are waited for,
    which others will let go. Raises what `write` does else."""
    told = False
    while True:
        try:
            if beside:
                return await to_its_end(asyncio.ensure_future(asyncio.to_thread(write)))
            return write()
        except DescriptorsShort as error:
            if not told:
                telemetry.log.warning("live data wait for a descriptor", reason=error.message)
            told = True
        await asyncio.sleep(PAUSE_SECONDS)


async def kept(keep: Callable[[], Awaitable[None]], refused: Callable[[SinkFailed], None], over: Callable[[], bool]) -> None:
    """Have something kept by a disk, unless all is `over`; while it refuses, which `refused` hears of, it is asked less and less often."""
    failures = 0
    while not over():
        try:
            await keep()
        except SinkFailed as error:
            failures += 1
            refused(error)
        else:
            return
        await asyncio.sleep(pause_seconds(failures, PAUSE_SECONDS, DISK_SECONDS_MAX))
