"""The live transfers of this process: each has a log and a spool of its own, in a folder that outlives it.

A log begins with the first request of its transfer and goes on through suspensions and restarts, until the transfer has ended, which it
is to be, too, once its source has and all of it is taken, or nobody has come for the rest for as long as it is kept: also when nobody asks
for it after a start. Then its spool is emptied at once, and nothing of it stays open; the rows stay as long as the transfer is stored,
since what was verified can be signed for.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from shutil import rmtree
from time import monotonic
from typing import Any, Final
from weakref import WeakValueDictionary

from connector import telemetry
from connector.dataplane.gate import Permit
from connector.dataplane_accounts.account import same, signs
from connector.dataplane_live.ending import Ending, Nowhere
from connector.dataplane_live.finishing import Complete, Finishing, Over
from connector.dataplane_live.flow import SPOOL_BYTES, WAIT_SECONDS, Flow
from connector.dataplane_live.found import Found, begun, opened, whose
from connector.dataplane_live.growing import Growing
from connector.dataplane_live.life import this_life
from connector.dataplane_live.marks import SCARCE
from connector.dataplane_live.mending import broken
from connector.dataplane_live.rest import UNTAKEN_SECONDS, Rest, Rests, dated, withheld_since
from connector.dataplane_live.resting import Resting, may_rest
from connector.dataplane_live.spool import SEGMENT_BYTES, Spool, emptied
from connector.dataplane_live.taking import Taking
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.dsp.transfer import State
from connector.errors import SettingsError, SinkFailed, Withdrawn
from connector.lasting import stopped
from connector.metering.content import CHUNK_BYTES, SALT_BYTES, Header
from connector.ports import Stage, Store
from connector.ports.live import LiveSource, LiveSources, unit_of
from connector.records import Changes, Evidence
from connector.records.metering import Metered

# In the first leaves of data of which not all may leave: what has left of the last one nobody can prove, and it is used up all the same.
COUNTED_BYTES: Final = 1024
OVER_MAX: Final = 1024  # that ended last: whoever asked for one a moment before has it opened no more
HASHING: Final = 2  # threads, for all transfers together; without a free one a source hashes alone


class Lives:
    """`kinds` maps a source type to what opens it. `cut(transfer, code)` ends the streams of a transfer, `over` the transfer itself, once
    its source has ended for good; `complete` does if all of it was taken. Raises SettingsError if `folder` cannot be used."""

    def __init__(
        self,
        folder: Path,
        kinds: Mapping[str, LiveSources],
        cut: Callable[[str, str], None],
        *,
        spool_bytes: int = SPOOL_BYTES,
        wait_seconds: float = WAIT_SECONDS,
        untaken_seconds: float = UNTAKEN_SECONDS,
        life: str | None = None,
        over: Over | None = None,
        complete: Complete | None = None,
    ) -> None:
        self._folder, self._kinds, self._cut, self._finishing = folder, kinds, cut, Finishing(over, complete)
        self.spool_bytes, self._wait_seconds, self._rests = spool_bytes, wait_seconds, Rests(untaken_seconds)
        self._life = life or this_life()
        self.admit: Callable[[bool], None] = lambda _new: None  # raises for what must not be written now
        try:
            folder.mkdir(0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"`{folder}` cannot be used for live data: {error.strerror}; name a directory of ours") from error
        self._flows: dict[str, Flow] = {}
        self._resting = Resting(self._flows, self._rest)
        self._addresses: dict[str, Mapping[str, Any]] = {}
        self._ends: dict[str, asyncio.Task[None]] = {}
        self._opening: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # as long as somebody waits
        self._meanwhile: dict[str, Process | None] = {}  # what was said of a transfer while its log is opened
        self._stopped: set[str] = set()  # that are suspended, or about to be closed
        self._finals: dict[str, str] = {}  # the states of those that are over, the oldest first
        self._tasks: set[asyncio.Task[None]] = set()
        self._found = Found(self._look_at, self._beside_it)
        self._store: Store | None = None
        self._beside = ThreadPoolExecutor(HASHING, thread_name_prefix="live-hash")  # beside the threads of the sources

    @property
    def untaken_seconds(self) -> float:
        """For how long the rest of a log that has ended is kept; to be set for those that are open, too."""
        return self._rests.kept_seconds

    @untaken_seconds.setter
    def untaken_seconds(self, seconds: float) -> None:
        self._rests.keep(seconds)

    @property
    def transfers(self) -> tuple[str, ...]:
        """Those whose logs are open."""
        return tuple(self._flows)

    def serves(self, source: Mapping[str, Any]) -> bool:
        """Whether a dataset with this private address is live."""
        return source.get("type") in self._kinds

    async def of(self, permit: Permit) -> Flow:
        """The flow of a transfer, begun if there is none. Raises SourceFailed, SinkFailed, and Withdrawn if it is over, or its log was
        lost."""
        transfer = permit.transfer
        async with self._turn(transfer):
            if (state := self._finals.get(transfer)) is not None:
                raise Withdrawn(f"the transfer is {state}", f"transfer-{state.lower()}")
            known = self._flows.get(transfer)
            if known is None or known.log.broken or self._addresses[transfer] != permit.source:
                known = self._enter(transfer, await self._open(permit, known))
                self._addresses[transfer] = permit.source
            else:
                self.admit(False)
            known.taking.asked_at = monotonic()
        return known

    @asynccontextmanager
    async def _turn(self, transfer: str) -> AsyncGenerator[None, None]:
        """Around what opens a log, one after the other: what is said of the transfer meanwhile counts for what is open then."""
        async with self._opening.setdefault(transfer, asyncio.Lock()):
            self._meanwhile[transfer] = None
            try:
                yield
            finally:
                if (said := self._meanwhile.pop(transfer)) is not None:
                    self.committed(Changes(saves=(said,)), ())

    def _enter(self, transfer: str, flow: Flow) -> Flow:
        self._flows[transfer] = flow
        self._resting.look()
        self._see_to(transfer, self._conclude(transfer, flow))
        if flow.was_left:
            flow.start()
        return flow

    def _see_to(self, transfer: str, end: Coroutine[Any, Any, None]) -> None:
        task = self._ends[transfer] = asyncio.create_task(end, name="live end")

        def ended(_task: object) -> None:
            if self._ends.get(transfer) is task:
                del self._ends[transfer]

        task.add_done_callback(ended)

    async def _conclude(self, transfer: str, flow: Flow) -> None:
        """Have the transfer end, once its source has and the consumer has all of it, or does not come for the rest."""
        ending = await flow.taken()
        say = telemetry.log.warning if ending is Ending.UNTAKEN else telemetry.log.info
        say(ending, transfer=transfer, leaves=flow.log.leaves, size_bytes=flow.log.end, unsigned_bytes=flow.log.end - flow.free)
        await self._finishing.finish(transfer, ending)

    @contextmanager
    def log_of(self, transfer: str) -> Iterator[Growing | None]:
        """The log of a transfer, to be read, also of one that is over; None if there is none. Raises SinkFailed."""
        if (flow := self._flows.get(transfer)) is not None:
            yield flow.log
        elif not (folder := self._place(transfer)).exists():
            yield None
        else:
            log = Growing(folder, self._life, looks=True)  # a thread may be opening it, or closing it
            try:
                yield log
            finally:
                log.close(durable=False)

    async def _open(self, permit: Permit, known: Flow | None) -> Flow:
        """A flow in place of the one that is `known`, whose end is seen to as long as there is no other."""
        transfer, media_type = permit.transfer, str(permit.source["media_type"])
        folder = self._place(transfer)
        self.admit(not folder.exists())
        source = await self._kinds[permit.source["type"]].open(permit.source)
        # What is paid for leaves a whole leaf at a time, and one that a budget does not pay for not at all: small ones would only be slow.
        counted = permit.tallies and not any(tally.pricing for tally in permit.tallies)
        try:
            if known is not None:
                await self._close(transfer, known)
            if folder.exists():
                log = await opened(partial(Growing, folder, self._life))
            else:
                header = Header(CHUNK_BYTES, None, media_type, unit_of(media_type), os.urandom(SALT_BYTES))
                log = await opened(partial(begun, folder, self._life, header, transfer))
            if log.lost:
                log.close(durable=False)
                raise broken()
            return self._flow(transfer, log, source, permit.stages, COUNTED_BYTES if counted else CHUNK_BYTES)
        except BaseException:
            await source.close()
            if known is not None:
                self._found.add(folder, transfer)  # its end was seen to, and whoever has asked may not ask again
            raise

    def _flow(
        self,
        transfer: str,
        log: Growing,
        source: LiveSource,
        stages: Sequence[Stage],
        leaf_bytes: int = CHUNK_BYTES,
        withheld: float | None = None,
    ) -> Flow:
        folder = self._place(transfer)
        try:
            spool = Spool(folder, log.end, SEGMENT_BYTES)
        except SinkFailed:
            log.close(durable=False)
            raise
        flow = Flow(
            log,
            spool,
            source,
            stages,
            partial(self._cut, transfer),
            spool_bytes=self.spool_bytes,
            wait_seconds=self._wait_seconds,
            taking=Taking(log, self._rests.of(transfer, folder, withheld, begun=log.over is not None)),
            beside=self._beside,
            leaf_bytes=leaf_bytes,
        )
        flow.let_go()
        return flow

    def committed(self, changes: Changes, _evidence: tuple[Evidence, ...]) -> None:
        """Listens to commits: the source of a transfer that is suspended is not followed, unless it could not go on afterwards, and that of
        one that is over never again."""
        for record in changes.saves:
            if isinstance(record, Process) and record.kind is Kind.TRANSFER and record.role is Role.PROVIDER:
                if record.pid in self._meanwhile:
                    self._meanwhile[record.pid] = record
                if (date := self._rests.follow(record)) is not None:
                    self._beside_it(dated(record.pid, date), "live transfer")
                self._stopped.discard(record.pid)
                if record.final:
                    self._over(record.pid, record.state)
                flow = self._flows.get(record.pid)
                if flow is not None and record.meant != State.STARTED:
                    self._stopped.add(record.pid)
                    self._beside_it(self._end(record.pid, flow, final=record.final), "live transfer")
                elif record.final and record.pid not in self._meanwhile and (folder := self._place(record.pid)).exists():
                    self._beside_it(emptied([folder]), "live transfer")

    def _over(self, transfer: str, state: str) -> None:
        self._finals[transfer] = state
        if len(self._finals) > OVER_MAX:
            del self._finals[next(iter(self._finals))]
        if transfer not in self._finishing.transfers and (end := self._ends.pop(transfer, None)) is not None:
            end.cancel()

    async def _end(self, transfer: str, flow: Flow, *, final: bool) -> None:
        if not final and not flow.goes_on:
            return  # the spool has room for what it would not send again
        if final:
            flow.leave()
        await flow.stop()
        if self._flows.get(transfer) is not flow:
            return
        if not final and flow.taking.readers and transfer not in self._stopped:  # it was started again meanwhile
            flow.start()
        if final:
            del self._flows[transfer]
            self._stopped.discard(transfer)
            flow.spool.empty()
            await self._let_go(transfer, flow)
            telemetry.log.info("live transfer over", transfer=transfer, leaves=flow.log.leaves, size_bytes=flow.log.end)

    async def halt(self, code: str) -> None:
        """Cut every reader and follow no source, until somebody asks again."""
        flows = tuple(self._flows.items())
        for transfer, _ in flows:  # all of them at once: the disk that is waited for below may be the one that is to be spared
            self._cut(transfer, code)
        for error in await asyncio.gather(*(self._halt(*each) for each in flows), return_exceptions=True):
            if error is not None:
                raise error

    async def _halt(self, transfer: str, flow: Flow) -> None:
        await flow.stop()
        if flow.was_left and self._flows.get(transfer) is flow:
            flow.start()

    async def sweep(self, store: Store) -> int:
        """Remove what is left of transfers that are not stored any more; returns how many. And begin to see to the end of those that
        nothing more will come of, whether somebody asks for them or not. At a start, which does not wait for the latter: each log is
        opened, and that waits for the disk."""
        self._store = store
        removed, over = 0, list[Path]()
        for folder in tuple(self._folder.iterdir()):
            try:
                transfer = whose(folder)
            except OSError:  # of a disk, or for want of descriptors: it is looked at again, and may be anybody's
                self._found.add(folder, "")
                continue
            process = await store.process(Kind.TRANSFER, transfer) if transfer else None
            if process is None:
                await asyncio.to_thread(rmtree, folder, ignore_errors=True)
                removed += 1
            else:
                over.append(folder) if process.final else self._found.add(folder, transfer)
        self._beside_it(emptied(over), "live transfers over")
        return removed

    def _beside_it(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_at(self, folder: Path, transfer: str) -> None:
        """Have it ended if nothing more will come of it, and nobody else has it open. Raises whatever a disk has made of it."""
        if (store := self._store) is not None and (transfer := transfer or whose(folder)):
            async with self._turn(transfer):
                process = await store.process(Kind.TRANSFER, transfer)
                if process is not None and not process.final and transfer not in self._flows:
                    await self._take_up(folder, process, await store.metered(transfer))

    async def _take_up(self, folder: Path, process: Process, stored: Metered | None) -> None:
        """See to the end of a transfer that nothing more will come of: its source has ended, or was left in the middle and cannot go on."""
        log, transfer, withheld = await opened(partial(Growing, folder, self._life)), process.pid, withheld_since(process)
        if log.lost:
            log.close(durable=False)
            self._see_to(transfer, self._lapse(transfer, self._rests.of(transfer, folder, withheld)))
        elif log.over or (log.end and log.position is None):
            flow = self._enter(transfer, self._flow(transfer, log, Nowhere(), (), withheld=withheld))
            self._addresses[transfer] = {}  # who asks has its source looked at, as it may have to send again what was lost
            if same(stored, log) and stored is not None:
                flow.heard(stored)
                flow.taking.means = partial(signs, stored)
                flow.taking.asks_end()  # if it can: it was not told yet, and its transfer does not end before it is back
        else:
            await asyncio.to_thread(log.close, durable=True)

    async def _lapse(self, transfer: str, rest: Rest) -> None:
        """Have a transfer end whose log is lost, unless its consumer, who hears that when it asks, does so before."""
        await rest.over()
        telemetry.log.warning(Ending.UNTAKEN, transfer=transfer)
        await self._finishing.finish(transfer, Ending.UNTAKEN)

    async def close(self) -> None:
        """Follow nothing any more, and make all of it outlive the machine."""
        self._found.close()
        await self._resting.close()
        while self._tasks:  # what one finds said meanwhile another one does
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for transfer, flow in tuple(self._flows.items()):
            await self._close(transfer, flow)
        await stopped(*self._ends.values())
        self._beside.shutdown()

    async def _close(self, transfer: str, flow: Flow) -> None:
        flow.leave()  # or who asked for it a moment ago would have it followed, and written, beside the one in its place
        if (end := self._ends.pop(transfer, None)) is not None:
            await stopped(end)
        await flow.stop()
        self._flows.pop(transfer, None)
        await self._let_go(transfer, flow)

    async def _rest(self, transfer: str, flow: Flow, quiet_seconds: float) -> None:
        async with self._turn(transfer):
            if self._flows.get(transfer) is not flow or not may_rest(flow, quiet_seconds):
                return
            followed = flow.runs
            await flow.stop()
            if self._flows.get(transfer) is flow and may_rest(flow, quiet_seconds):
                await self._close(transfer, flow)
                telemetry.log.info("live transfer rests", transfer=transfer, leaves=flow.log.leaves, size_bytes=flow.log.end)
            elif followed and transfer not in self._stopped:  # somebody came, or its source has ended meanwhile
                flow.start()

    async def _let_go(self, transfer: str, flow: Flow) -> None:
        """Close what is not followed any more. Who has its account reads the rows all the same."""
        self._addresses.pop(transfer, None)
        try:
            await asyncio.to_thread(flow.spool.sync)
            await asyncio.to_thread(flow.log.finish)
        except (OSError, SinkFailed) as error:
            telemetry.log.error("live transfer not durable", transfer=transfer, reason=str(error))
            if isinstance(error, OSError) and error.errno not in SCARCE:  # of the spool: the log knows what its disk did not keep
                flow.log.doubt()
        flow.log.close(durable=False)
        flow.spool.close()
        await flow.close()

    def _place(self, transfer: str) -> Path:
        return self._folder / hashlib.sha256(transfer.encode()).hexdigest()[:32]
