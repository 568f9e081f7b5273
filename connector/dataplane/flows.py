"""The streams that are running, by transfer: who cuts them, and what they have delivered.

A stream is cut by cancelling the task that copies it. The connection is closed after that task has let go of it, never before:
closing a transport under a running `sendfile` leaves the whole event loop waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from connector import telemetry
from connector.dataplane.coverage import Coverage, add
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.dsp.transfer import State
from connector.errors import Busy, Withdrawn
from connector.odrl.codes import Code
from connector.ports import CLOCK_CHECK_SECONDS, Clock
from connector.records import Agreement, Changes, Dataset, Evidence
from connector.values import Value

TRANSFERS_MAX = 10_000  # whose leases and coverage are in memory; beyond, the oldest are forgotten


RETRY_SECONDS = 5  # until whoever is told to come back may find the next process
GRACE_SECONDS = 1.0  # a decision is taken anew at the instant at which claims lapse; one that nobody takes ends streams so much later
AGREEMENT_ENDED, POLICY_BOUND, CLAIMS_LAPSED = "agreement-ended", "policy-bound-passed", "claims-lapsed"  # why a bound ends a stream
READER_GONE = "reader-gone"
COUNTED_ANEW = "counted-anew"  # from here on its bytes count under other rules: the next request goes on with those


def earliest(*bounds: tuple[float | None, str]) -> tuple[float | None, str]:
    """The first of several bounds (POSIX seconds, or None for none) with its code; (None, "") if there is none."""
    return min(((end, code) for end, code in bounds if end is not None), default=(None, ""))


def lapse(proven_until: float | None) -> tuple[float | None, str]:
    """The bound that follows from the instant until which the peer's claims are proven."""
    return None if proven_until is None else proven_until + GRACE_SECONDS, CLAIMS_LAPSED


class Lease:
    """Ties what was looked up about a transfer to the transfer: `stale` once anything about it has changed."""

    __slots__ = ("stale",)

    def __init__(self) -> None:
        self.stale = False


class Seen(Value):
    """How a transfer was used: `last_access` (POSIX seconds) is the end of the last request, or now while `running`
    streams are open, `sent_bytes` includes what was sent twice, `covered` says that every byte went out at least once."""

    last_access: float
    running: int
    sent_bytes: int
    covered: bool


class _Usage:
    __slots__ = ("last_access", "sent_bytes")

    def __init__(self) -> None:
        self.last_access, self.sent_bytes = 0.0, 0


class Flows:
    """All running streams of this process. `on_covered(transfer pid)` is called once for each transfer whose bytes have all
    gone out; it must not block."""

    def __init__(self, clock: Clock, on_covered: Callable[[str], None]) -> None:
        self._clock = clock
        self._on_covered = on_covered
        self._leases: dict[str, Lease] = {}
        self._running: dict[str, set[Running]] = {}
        self._coverage: dict[str, Coverage] = {}
        self._used: dict[str, _Usage] = {}
        self._left = asyncio.Event()  # set with the end of each stream
        self._refuses = False  # streams that would begin, as the process stops

    def lease(self, transfer: str) -> Lease:
        """The lease of a transfer as it stands now; take it before looking the transfer up."""
        lease = self._leases.get(transfer)
        if lease is None:
            if len(self._leases) >= TRANSFERS_MAX:
                self._leases.pop(next(iter(self._leases))).stale = True
            lease = self._leases[transfer] = Lease()
        return lease

    def committed(self, changes: Changes, _evidence: tuple[Evidence, ...]) -> None:
        """Listens to commits: of a transfer, of datasets that were published anew or withdrawn, of agreements that were closed."""
        again = any(of is Dataset for of, _ in changes.deletes)
        for record in changes.saves:
            if isinstance(record, Process):
                self.changed(record)
            if isinstance(record, Agreement) and record.closed is not None:
                self._closed(record.id)
                again = True
            again = again or isinstance(record, Dataset)
        if again:
            self.look_again()

    def changed(self, process: Process) -> None:
        """A commit concerned this transfer: call it after each. What was looked up is looked up again; streams are cut once we
        mean the transfer to be anything but STARTED: our own word is enough, the peer's answer is not waited for. Those that go on
        do so until the bounds of the decision that was committed."""
        if process.kind is not Kind.TRANSFER or process.role is not Role.PROVIDER:
            return
        if (lease := self._leases.pop(process.pid, None)) is not None:
            lease.stale = True
        if process.meant != State.STARTED:
            used_up = process.detail.get("code") == Code.QUOTA_EXHAUSTED
            self.cut(process.pid, Code.QUOTA_EXHAUSTED if used_up else f"transfer-{process.meant.lower()}")
        elif "ends" in (detail := process.detail):
            for stream in tuple(self._running.get(process.pid, ())):
                stream.end_by(*earliest((detail["ends"], POLICY_BOUND), lapse(detail.get("claims_expire"))))
        if process.final:
            self._coverage.pop(process.pid, None)
            self._used.pop(process.pid, None)

    def _closed(self, agreement: str) -> None:
        """From the commit on it permits nothing: its streams do not go on until somebody has looked at their transfers."""
        for streams in tuple(self._running.values()):
            for stream in tuple(streams):
                if stream.agreement == agreement:
                    stream.cut(Code.AGREEMENT_CLOSED)

    def look_again(self) -> None:
        """What many transfers go by is another: whatever was looked up is looked up again. Streams go on until it is decided on
        their transfer."""
        for lease in self._leases.values():
            lease.stale = True
        self._leases.clear()

    def running(
        self, transfer: str, not_after: float | None, code: str, counted_until: float | None = None, agreement: str = ""
    ) -> Running:
        """A context manager around the copy of one stream by the current task. When the transfer stops or `not_after` (POSIX
        seconds) passes, the task is cancelled and the block raises Withdrawn, with `code` for the latter, and likewise when the
        `agreement` is closed. A decision may move that bound, but never beyond `counted_until`."""
        return Running(self, transfer, not_after, code, counted_until, agreement)

    def sent(self, transfer: str, etag: str, first: int, length: int, size_bytes: int) -> None:
        """Note that a range went out."""
        telemetry.stream_bytes.inc(length)
        self._touch(transfer, length)
        known = self._coverage.get(transfer)
        if known is not None and known.full and known.etag == etag:
            return
        if known is None or known.etag != etag:
            known = Coverage(etag, size_bytes)
        covered = add(known, first, length)
        self._coverage.pop(transfer, None)
        self._coverage[transfer] = covered
        if len(self._coverage) > TRANSFERS_MAX:
            del self._coverage[next(iter(self._coverage))]
        if covered.full:
            self._on_covered(transfer)

    def holds(self, transfer: str, etag: str, length: int, size_bytes: int) -> None:
        """Note that the consumer has the first `length` bytes: it asks for the rest of just this representation. They may have
        gone out before this process started."""
        known = self._coverage.get(transfer)
        if known is None or known.etag != etag:
            known = Coverage(etag, size_bytes)
        self._coverage[transfer] = add(known, 0, length)

    def seen(self, transfer: str) -> Seen | None:
        """How a transfer was used since this process started, or None if it was not."""
        used = self._used.get(transfer)
        if used is None:
            return None
        coverage = self._coverage.get(transfer)
        running = len(self._running.get(transfer, ()))
        last_access = self._clock.now() if running else used.last_access
        return Seen(last_access, running, used.sent_bytes, coverage is not None and coverage.full)

    def refuse(self) -> None:
        """Let no stream begin any more: the process stops, and one that begins could only be cut."""
        self._refuses = True

    def demand(self) -> None:
        """Raise Busy if no stream may begin any more: ask before anything is charged for one."""
        if self._refuses:
            raise Busy("this connector stops, and begins no stream; come back", retry_seconds=RETRY_SECONDS)

    async def finished(self) -> None:
        """Wait until the streams that run now are over, however they end."""
        streams = {stream for streams in self._running.values() for stream in streams}
        while any(stream in self._running.get(stream.transfer, ()) for stream in streams):
            self._left.clear()
            await self._left.wait()

    def cut_everything(self, code: str) -> None:
        """End all streams: the process stops. Peers come back for the rest."""
        for transfer in tuple(self._running):
            self.cut(transfer, code)

    def cut(self, transfer: str, code: str) -> None:
        """End the streams of a transfer."""
        for stream in tuple(self._running.get(transfer, ())):
            stream.cut(code)

    def _touch(self, transfer: str, length: int) -> None:
        used = self._used.get(transfer)
        if used is None:
            if len(self._used) >= TRANSFERS_MAX:
                del self._used[next(iter(self._used))]
            used = self._used[transfer] = _Usage()
        used.last_access = self._clock.now()
        used.sent_bytes += length

    def _enter(self, stream: Running) -> None:
        self._touch(stream.transfer, 0)
        self._running.setdefault(stream.transfer, set()).add(stream)
        telemetry.streams_open.inc()

    def _leave(self, stream: Running) -> None:
        telemetry.streams_open.dec()
        streams = self._running[stream.transfer]
        streams.discard(stream)
        if not streams:
            del self._running[stream.transfer]
        self._left.set()
        self._touch(stream.transfer, 0)


class Running:
    """One stream: see `Flows.running`."""

    __slots__ = ("_code", "_counted_until", "_flows", "_not_after", "_reason", "_task", "_timer", "agreement", "transfer")

    def __init__(
        self, flows: Flows, transfer: str, not_after: float | None, code: str, counted_until: float | None, agreement: str
    ) -> None:
        self.transfer, self.agreement = transfer, agreement
        self._flows, self._not_after, self._code, self._counted_until = flows, not_after, code, counted_until
        self._reason: str | None = None
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Running:
        self.demand()
        self._task = asyncio.current_task()
        self._flows._enter(self)
        self._watch()
        return self

    def demand(self) -> None:
        """Raise Withdrawn if the bound has passed: its timer may be late, above all where the wall clock was set."""
        if self._not_after is not None and self._not_after <= self._flows._clock.now():
            raise Withdrawn("the permission to read has ended", self._code)

    def end_by(self, not_after: float | None, code: str) -> None:
        """Another bound counts from now on."""
        self._not_after, self._code = earliest((not_after, code), (self._counted_until, COUNTED_ANEW))
        if self._timer is not None:
            self._timer.cancel()
        self._watch()

    def _watch(self) -> None:
        if self._not_after is None:
            return
        left = self._not_after - self._flows._clock.now()
        if left <= 0:
            self.cut(self._code)
        else:
            self._timer = asyncio.get_running_loop().call_later(min(left, CLOCK_CHECK_SECONDS), self._watch)

    def cut(self, code: str) -> None:
        """Cancel the copy, once; the first reason counts."""
        if self._reason is None and self._task is not None:
            self._reason = code
            self._task.cancel()

    def leave(self) -> None:
        """The reader is gone: nothing is waited for any more, and the block raises ConnectionResetError."""
        self.cut(READER_GONE)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._flows._leave(self)
        task, self._task = self._task, None
        if self._reason is None or task is None:
            return
        telemetry.streams_cut.inc(1, self._reason)
        # The cancellation was ours and ends here, unless somebody else wants the task gone as well.
        if task.uncancel() == 0 and (kind is None or isinstance(error, asyncio.CancelledError)):
            if self._reason == READER_GONE:
                raise ConnectionResetError("the reader is gone") from None
            raise Withdrawn("the permission to read ended while the data was on its way", self._reason) from None
