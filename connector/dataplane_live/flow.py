"""One transfer of live data: its source is followed, what comes is sealed in leaves, spooled, signed, and read by the consumer.

A leaf is sealed once a chunk is full or its first byte is SEAL_SECONDS old. A checkpoint is due WINDOW_BYTES or SEAL_SECONDS after the
last one. The source is made to wait once so much is spooled that was neither acknowledged nor, where nobody signs, sent: whoever reads
slowly costs the room of the spool and no more.

A source that can go on from where it was left is asked again whenever its answer ends. One that cannot is asked once, as what it would send
then may have been delivered before: with its answer the log ends, and its transfer once all of it is taken (`ending`). It is followed
through suspensions, into the spool; and it is not left waiting for ever: it is cut off, and so is whoever read too slowly.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import aclosing, contextmanager, suppress
from functools import partial
from time import monotonic, time
from typing import Final

from connector import telemetry
from connector.dataplane_live.coming import HOP_BYTES, Coming, Due, Recent, kept, to_its_end, written
from connector.dataplane_live.ending import Ending
from connector.dataplane_live.growing import Growing
from connector.dataplane_live.mending import broken, mend
from connector.dataplane_live.sealing import at_most, sealed, staged
from connector.dataplane_live.spool import Spool
from connector.dataplane_live.taking import Taking
from connector.errors import ConnectorError, SinkFailed, SourceFailed, Withdrawn
from connector.lasting import stopped
from connector.metering import live
from connector.metering.content import CHUNK_BYTES
from connector.metering.objects import WINDOW_BYTES
from connector.ports import Stage
from connector.ports.live import LiveSource, Records
from connector.records.metering import Metered
from connector.remembered import pause_seconds

SEAL_SECONDS: Final = 1.0
PIECE_BYTES: Final = 1024 * 1024
SPOOL_BYTES: Final = 96 * 1024 * 1024  # three times what a receipt is due after: more comes while it is on its way
WAIT_SECONDS: Final = 300.0  # that a source waits which cannot go on: it ends for good then, and a consumer that restarts is back by then
PAUSE_SECONDS, PAUSE_SECONDS_MAX = 0.2, 30.0  # before a source that ended or failed is asked again
SOURCE_CANNOT_WAIT: Final = "source-cannot-wait"


class Flow:
    """`source` is what is followed, through `stages`, each of which gets whole records, a batch at a time. `cut(code)` ends the streams of
    the transfer. Threads of `beside` help to hash. A source waits while more than `spool_bytes` are spooled, beside the batch or two that
    its thread has sealed by then. `taking` is what its consumer has, `leaf_bytes` the least as in `at_most`."""

    def __init__(
        self,
        log: Growing,
        spool: Spool,
        source: LiveSource,
        stages: Sequence[Stage],
        cut: Callable[[str], None],
        *,
        spool_bytes: int = SPOOL_BYTES,
        wait_seconds: float = WAIT_SECONDS,
        taking: Taking | None = None,
        beside: Executor | None = None,
        leaf_bytes: int = CHUNK_BYTES,
    ) -> None:
        self.log, self.spool = log, spool
        self._source, self.stages, self._cut = source, tuple(stages), cut
        self._spool_bytes, self._wait_seconds, self._beside = spool_bytes, wait_seconds, beside
        self._leaf_bytes = leaf_bytes
        self._recent = Recent()
        self.taking = taking or Taking(log)
        self._has_come = log.end > 0
        self._stopped = self.closed = False
        self.signed = log.synced  # what a checkpoint is given for
        self._signed_at = monotonic()
        self.free = 0 if log.torn else spool.first  # what lies before is needed no more
        self._news, self._room = asyncio.Condition(), asyncio.Event()
        self._last = b"\n" if log.end else b""  # a batch of whole records comes after the end of one
        self._tasks: list[asyncio.Task[None]] = []
        self._mending, self._marking = asyncio.Lock(), asyncio.Lock()

    @property
    def runs(self) -> bool:
        """Whether the source is followed."""
        return any(not task.done() for task in self._tasks)

    @property
    def goes_on(self) -> bool:
        """Whether the source can be asked for what follows the last record: one that has named a position since, which is in no leaf yet,
        would begin anew."""
        return self.log.position is not None or (self._source.waits and not self.log.end)

    @property
    def was_left(self) -> bool:
        """Whether the source is not followed any more, or not yet again, and cannot go on: a thread of it may have sealed some, and was
        stopped then. Its log only has to be concluded, by `start`."""
        return bool(self._has_come or self.log.end) and not (self.goes_on or self.log.over or self.runs)

    @property
    def busy(self) -> bool:
        """Whether what was lost is looked for just now."""
        return self._mending.locked()

    @property
    def _spooled(self) -> int:
        """How many bytes are needed yet."""
        return self.log.end - self.free

    def start(self) -> None:
        """Follow the source, if nobody does, nor is to."""
        if not (self.runs or self.closed):
            self._stopped = False
            self._tasks = [
                asyncio.create_task(self._pump(), name="live source"),
                asyncio.create_task(self._sign(), name="live checkpoints"),
            ]

    async def stop(self) -> None:
        """Follow it no longer, nor look for what was lost. The log goes on where it stands."""
        self._stopped = True  # before anybody may start it again
        await stopped(*self._tasks)
        async with self._mending:  # who does is done then
            pass
        with suppress(SinkFailed):  # nothing more is signed then
            await self._tell()

    @property
    def oldest(self) -> int:
        """The first byte that is to be had. Where a loss of power has left no file nobody knows any more what was dropped: then as many as
        there is room for are asked of the source again, if somebody wants them."""
        if self.log.torn and self.spool.first == self.log.end:
            return max(0, self.log.end - self._spool_bytes)
        return self.spool.first

    async def mend(self, needed: int) -> None:
        """After a loss of power have the bytes from `needed` on again. Raises Withdrawn if they are lost for good, SourceFailed,
        SinkFailed."""
        async with self._mending:
            self._demand_open()
            if self.log.torn:
                try:
                    await mend(self.log, self.spool, self._source, partial(staged, self.stages), needed)
                except Withdrawn:
                    if self.goes_on:
                        raise
                    if self.log.over is None:  # asked of the disk once: who stops this waits for us, and for all others it may be full, too
                        await self._over(Ending.BROKE_OFF)
                    self.taking.lost = True
                    self.taking.news.set()
                    raise broken() from None
                self.release(needed)
                self.spool.begin_at(needed)  # what lies before it nobody has looked at, nor will: from now on the log is no longer torn
                self.log.mended()

    def leave(self) -> None:
        """It is about to be let go: whoever has this flow still is to ask for the one in its place."""
        self.closed = True

    async def close(self) -> None:
        """Let go of the source, and of whoever waits for more of it."""
        self.leave()
        async with self._news:
            self._news.notify_all()
        await self._source.close()

    def _demand_open(self) -> None:
        if self.closed:
            raise SourceFailed("the log was let go, as nobody had read it, or its source is another one; ask for it again")

    def release(self, offset: int) -> None:
        """Nothing before `offset` is needed any more."""
        if offset > self.free and not self.closed:  # its files are those of another flow then
            self.free = offset
            self.spool.drop(offset)
            self._room.set()

    def left(self, first: int, length: int) -> None:
        """So many bytes from `first` on have left."""
        self.taking.left(first, length)

    def heard(self, stored: Metered) -> None:
        """What the account of the transfer says: what its consumer has signed for from the start on is needed no more; of one that signs
        nothing, what has left. It may say so only now, after a start: no time for the rest begins with that."""
        if self.closed:
            return  # its files are those of another flow, or will be
        ago_seconds = max(0.0, time() - stored.updated)
        if not stored.sequence:
            for first, end in stored.sent:
                self.taking.left(first, max(0, min(end, self.log.end) - first), ago_seconds)
            return
        known = 0
        if stored.ranges and stored.ranges[0][0] == 1 and stored.ranges[0][1] <= self.log.leaves:
            known = self.log.span(1, stored.ranges[0][1])[1]
        self.signed_for(known, ago_seconds)

    def signed_for(self, offset: int, ago_seconds: float = 0.0) -> None:
        """The consumer signs, and has signed so long ago for what lies before `offset`."""
        self.taking.signed_for(offset, ago_seconds)
        self.release(offset)
        self._room.set()

    async def taken(self) -> Ending:
        """How the transfer ends, once its source has and nobody needs anything of it any more (`Taking.over`)."""
        async with self._news:
            while (ending := self.log.over) is None:
                await self._news.wait()
                self.taking.rest.taken()
        return await self.taking.over(ending)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Around a reader: the source is followed for him, and goes on to be while he is away, as long as there is room, and the log does
        not rest. Raises SourceFailed if it has been let go since he asked for it."""
        self._demand_open()
        self.taking.readers += 1
        self.start()
        try:
            yield
        finally:
            self.taking.readers -= 1
            self.taking.asked_at = monotonic()
            self.taking.news.set()
            self.let_go()

    async def pieces(self, offset: int, end: int = live.LAST) -> AsyncGenerator[bytes, None]:
        """The bytes from `offset` on, up to `end`, as they come. Where the log has ended so do they, but for somebody who signs: he is told
        by the end of the transfer. Raises SourceFailed, also for an `end` that lies behind that of the log, and once the log is let go: its
        files are those of the one in its place, which writes over what nobody needs of that."""
        self.taking.has(min(offset, self.log.end))
        while offset < end:
            async with self._news:
                while self.log.end <= offset and (self.log.over is None or self.taking.signs) and not self.closed:
                    await self._news.wait()
            self._demand_open()  # nothing is waited for from here on until its files are open
            if self.log.end <= offset:
                if end < live.LAST:
                    raise SourceFailed(f"the source has ended, and the log has {self.log.end} bytes")
                return
            piece = self._recent.piece(offset, end) or await self.spool.read(offset, min(PIECE_BYTES, self.log.end - offset, end - offset))
            self._demand_open()  # a disk may have taken its time
            yield piece
            offset += len(piece)

    @property
    def whole(self) -> int | None:
        """The size of the checkpoint of all that the source has sent, once it has ended so; None if there is more, or nobody knows."""
        return self.log.leaves if self.log.over is Ending.ENDED and not self.taking.lost else None

    async def checkpoint_after(
        self, leaves: int, seconds: float, window_bytes: int = WINDOW_BYTES, *, end: bool = False, left: bool = False
    ) -> int | None:
        """The size of a checkpoint of more than `leaves` leaves, and at most `window_bytes` beyond them, which fits into any credit: it is
        waited for; or for somebody who asks for the `end` that these are all. Where not all may leave it is of what has `left`, as one of
        more could never be compared with anything. None if there is none after `seconds`, or the log is left alone meanwhile."""

        def signed() -> int:
            return min(self.signed, self.taking.whole) if left else self.signed

        def ready() -> bool:
            return signed() > leaves or self._stopped or (end and self.whole == leaves)

        if end:
            self.taking.asks_end()
        try:
            async with asyncio.timeout(seconds):
                await self.taking.until(lambda: not left or ready())
                async with self._news:
                    await self._news.wait_for(ready)
        except TimeoutError:
            return None
        if end and self.whole == leaves:
            return leaves
        return None if (most := signed()) <= leaves else self.log.within(max(leaves, 1), window_bytes, most)

    async def _pump(self) -> None:
        """Follow the source: one that ends or fails is asked again, if it can go on, or nothing has come of it yet. Of a log that is broken
        another object has to be made."""
        failures = 1
        if (self._has_come or self.log.end) and not (self.goes_on or self.log.over):
            await self._conclude(Ending.LEFT)
        while not (self.log.broken or self.log.over):
            before, ended = self.log.end, False
            while self._spooled >= self._spool_bytes:
                self._room.clear()
                await self._room.wait()
            coming = Coming(SEAL_SECONDS, self._write)
            try:
                async with aclosing(self._source.follow(self.log.position, None if self.stages else coming.take)) as batches:
                    await self._copy(coming, batches)
                ended = True
                telemetry.log.info("live source ended its answer", log=self.log.snapshot, goes_on=self.goes_on)
            except SourceFailed as error:
                telemetry.log.warning("live source failed", log=self.log.snapshot, reason=error.message)
            except ConnectorError as error:
                self._refused(error)
            except Exception as error:  # a defect, of a stage too: it is said, and may not be there any more the next time
                telemetry.log.error("live source failed", log=self.log.snapshot, exc_info=error)
            if not self.goes_on and (ended or self._has_come or self.log.end):
                await self._conclude(Ending.ENDED if ended else Ending.BROKE_OFF)
                return
            failures = 1 if self.log.end > before else failures + 1
            await asyncio.sleep(pause_seconds(failures, PAUSE_SECONDS, PAUSE_SECONDS_MAX))

    async def _conclude(self, ending: Ending) -> None:
        """Let the log be over, however long its disk refuses that."""
        await kept(partial(self._over, ending), self._refused, lambda: self.log.broken or self.log.over is not None)

    async def _over(self, ending: Ending) -> None:
        """Let the log be as it is, all of it signed, before it is said that it has ended: who finds it so has all of it. Raises
        SinkFailed."""
        await self._tell()
        await to_its_end(asyncio.ensure_future(asyncio.to_thread(self.log.conclude, ending)))
        self.let_go()
        self.taking.moved.set()
        async with self._news:
            self._news.notify_all()

    def let_go(self) -> None:
        """Nothing is written to a log that has ended, and its consumer may not come for days: nothing of it stays open meanwhile."""
        if self.log.over is not None and not self.log.torn:
            self.log.close(durable=False)
            if not self.taking.readers:
                self.spool.close()

    async def _copy(self, coming: Coming, batches: AsyncGenerator[Records, None]) -> None:
        """Seal what comes, when it is due, while more comes."""
        filling = asyncio.create_task(coming.fill(batches), name="live records")
        try:
            while (due := await coming.next()) is not None:
                await self._seal(due)
            await filling
        finally:
            filling.cancel()
            try:
                await to_its_end(asyncio.gather(filling, asyncio.to_thread(coming.close), return_exceptions=True))
            finally:
                while self.log.show():  # what is written is a part of the log
                    pass

    async def _seal(self, due: Due) -> None:
        self._has_come = True
        data = due.data if due.sealed else await staged(self.stages, due.data)
        await self._wait_for_room(len(data))
        if not data:
            return
        if not due.sealed:
            await written(partial(self._write, data, due.position), beside=len(data) >= HOP_BYTES)
        self.log.show()
        self._recent.add(self.log.end - len(data), data)
        async with self._news:
            self._news.notify_all()

    def _write(self, data: bytes, position: str | None) -> None:
        leaf_bytes = at_most(self._leaf_bytes, self.log.end)
        leaves = sealed(data, self.log.unit, self._last, lambda: self.spool.write(self.log.written, [data]), self._beside, leaf_bytes)
        self.log.append(leaves, position)
        self._last = data[-1:]

    async def _wait_for_room(self, more_bytes: int) -> None:
        """Raises SourceFailed if the source cannot wait for so long."""
        # Half of the room is kept for whoever signs nothing and is cut: a batch that is more than the rest would wait for ever.
        until, more_bytes = monotonic() + self._wait_seconds, min(more_bytes, self._spool_bytes // 2)
        while self._spooled and self._spooled + more_bytes > self._spool_bytes:
            self._room.clear()
            try:
                async with asyncio.timeout(None if self._source.waits else max(0.0, until - monotonic())):
                    await self._room.wait()
            except TimeoutError:
                self._cut(SOURCE_CANNOT_WAIT)
                text = f"nobody has taken {self._spooled} bytes for {self._wait_seconds:g} s, and the source cannot be told to wait"
                raise SourceFailed(text) from None

    async def _sign(self) -> None:
        """Say when a checkpoint is due."""
        while not self.log.broken:
            async with self._news:
                await self._news.wait_for(lambda: self.log.leaves > self.signed)
                try:
                    async with asyncio.timeout_at(asyncio.get_running_loop().time() + self._signed_at + SEAL_SECONDS - monotonic()):
                        await self._news.wait_for(lambda: self.log.span(self.signed, self.log.leaves)[1] >= WINDOW_BYTES)
                except TimeoutError:
                    pass
            await kept(self._tell, self._refused, lambda: self.log.broken)

    def _refused(self, error: ConnectorError) -> None:
        """What the disk does not take must not go on."""
        telemetry.log.error("live transfer stopped", log=self.log.snapshot, reason=error.message)
        self._cut(type(error).__name__)

    async def _tell(self) -> None:
        """Let what is shown be signed, once it outlives a loss of power."""
        async with self._marking:  # whoever stops it, or starts it again meanwhile
            if points := self.log.unmarked:
                await to_its_end(asyncio.ensure_future(asyncio.to_thread(self.log.sync, points, self.log.held(self.free, 0)[0])))
        async with self._news:
            self.signed, self._signed_at = self.log.synced, monotonic()
            self._news.notify_all()
        self.taking.moved.set()
