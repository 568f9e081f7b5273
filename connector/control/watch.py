"""What happens because time passes, or because what transfers go by has changed.

`Watch` looks at a process when its time is up: a step that nobody took, a transfer that lies quiet. And at a transfer when its right to run
may be another: at an instant of its policy, after a commit on its agreement or dataset, after word about its peer. One timer stands at the
earliest `due` of all processes; it is set again by commits and by what it does, never by polling. The time of a step counts as this machine
counts: where the clock is set ahead, steps from before begin theirs anew. What ends at an instant ends as the clock says.

`Retention` deletes what has been kept long enough, a little at a time. Agreements and evidence are never deleted. A dead letter is kept as
long as its process: while that is open an operator may replay it, and afterwards read what was not delivered; then both go, and the record
says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from math import inf
from time import monotonic
from typing import Any

from connector import telemetry
from connector.control.compose import ours_to_say, patience_of
from connector.control.journal import Journal
from connector.control.negotiate import APPROVAL, Reaction
from connector.control.rights import Rights, outcome
from connector.control.steps import Steps, fact
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move
from connector.dsp.transfer import State
from connector.errors import StoreError
from connector.lasting import Lasting, since_boot
from connector.metering.dating import Dating
from connector.ports import CLOCK_CHECK_SECONDS, Act
from connector.records import Agreement, Changes, Conflict, Cursor, Dataset, Evidence, Expect, Open, Outbound
from connector.remembered import pause_seconds
from connector.values import Value, replace

BATCH = 100  # processes looked at in one reading; the timer stands again at once for the rest
AT_ONCE = 64  # of them: as many as share a COMMIT
ROWS_MAX = 10_000  # of one reading, as a store has it
LETTERS_READ = 200  # at once
SWEPT_MAX = 2_000  # rows of a table in one sweep: some ten milliseconds of writing
PAUSE_SECONDS = 0.2  # between sweeps that still find something, so that messages go first
SET_SECONDS = 30.0  # by which wall time has run ahead of the machine's own since the last look: then somebody has set it
EVERY_SECONDS = 3_600.0  # things are kept for days; an hour more does not matter

Cause = tuple[type[Any], str | None] | None  # the participant (str), agreement or dataset with this id; None is everything, at start


class _Failing(Value):
    """A process that could not be looked at: how often in a row, and when it is tried again."""

    kind: Kind
    failures: int
    again: float


class Watch:
    """The timer. `last_access` says when the data listener last served a transfer (POSIX seconds, or None), `owing` whether its consumer
    signs for what it gets and has not signed for all of it."""

    def __init__(
        self,
        journal: Journal,
        steps: Steps,
        rights: Rights,
        last_access: Callable[[str], float | None],
        quiet_seconds: float,
        owing: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._journal = journal
        self._steps = steps
        self._rights = rights
        self._last_access, self._owing = last_access, owing
        self.quiet_seconds = quiet_seconds
        self._next: float | None = None
        self._seen = journal.clock.now(), monotonic()
        self._set = -inf  # when the clock was last set ahead, as it said before
        self._changed = asyncio.Event()
        self._causes: dict[Cause, None] = {}
        self._suspects: dict[str, None] = {}  # pids of transfers to decide on anew, those that are read first
        self._failing: dict[str, _Failing] = {}
        self._loop = Lasting("watch", self._turn, self._timer)
        journal.listen(self._committed, *Kind, Dataset, Agreement)

    def _committed(self, changes: Changes, _evidence: tuple[Evidence, ...]) -> None:
        for record in changes.saves:
            if isinstance(record, Process):
                self._failing.pop(record.pid, None)  # it is not the one any more that could not be looked at
                if record.due is not None and (self._next is None or record.due < self._next):
                    self._next = record.due
                    self._changed.set()
                if self._rights.outdated(record):  # word about its peer came between the decision and the commit
                    self.suspect(record.pid)
            elif isinstance(record, Dataset) or (isinstance(record, Agreement) and record.closed is not None):
                self._because((type(record), record.id))
        for of, id in changes.deletes:
            if of is Dataset:
                self._because((of, id))

    def reconsider(self, participant: str) -> None:
        """What is known of a participant is another: decide anew on all its transfers."""
        self._because((str, participant))

    def suspect(self, pid: str) -> None:
        """Decide anew on this transfer."""
        self._suspects[pid] = None
        self._changed.set()

    def _because(self, cause: Cause) -> None:
        self._causes[cause] = None
        self._changed.set()

    async def start(self) -> None:
        """From here on; what may have changed while nobody looked is decided on first."""
        self._because(None)
        await self._look_ahead()
        self._loop.start()

    async def close(self) -> None:
        await self._loop.close()

    async def fault(self) -> str | None:
        """What keeps the timer from its work, or None. A process that cannot be looked at is none of it: all others are
        served, and a peer that has made it so must not be able to make this connector look unready."""
        return self._loop.fault

    async def _timer(self) -> None:
        """Wait until something is due, or somebody is suspected."""
        while not self._causes and not self._suspects and (self._next is None or self._next > self._now()):
            self._changed.clear()
            wait = None if self._next is None else max(0.0, min(self._next - self._journal.clock.now(), CLOCK_CHECK_SECONDS))
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _now(self) -> float:
        """What the clock says. If it was set ahead since the last look, steps from before have had less time than it says."""
        now, steady = self._journal.clock.now(), monotonic()
        before, since = self._seen
        if now - (meant := before + steady - since) > SET_SECONDS:
            self._set = meant
            telemetry.log.warning("clock set ahead", seconds=round(now - meant), why="steps that are under way have their time anew")
        self._seen = now, steady
        return now

    async def _turn(self) -> None:
        """Look at everything that is due, then at some of those that are suspected, then set the timer anew."""
        if self._causes:
            await self._find_suspects()
        now = self._now()
        again = [(each.kind, pid) for pid, each in self._failing.items() if each.again <= now]
        due = await self._journal.store.due(now, min(BATCH + len(self._failing), ROWS_MAX))
        await self._each([*again, *((process.kind, process.pid) for process in due if process.pid not in self._failing)])
        await self._each([(Kind.TRANSFER, pid) for pid in islice(self._suspects, BATCH)])
        await self._look_ahead()

    async def _find_suspects(self) -> None:
        """The open transfers that the causes are about; first those that somebody reads, then those that somebody has read."""
        causes, self._causes = self._causes, {}
        try:
            found = await self._journal.store.open_transfers()
        except StoreError:
            self._causes = causes | self._causes
            raise

        def concerned(transfer: Open) -> bool:
            about: tuple[Cause, ...] = (None, (str, transfer.peer), (Agreement, transfer.agreement), (Dataset, transfer.dataset))
            return not causes.keys().isdisjoint(about)

        pids = [transfer.pid for transfer in found if concerned(transfer)]
        pids.sort(key=lambda pid: -(self._last_access(pid) or 0.0))
        self._suspects = dict.fromkeys((*pids, *self._suspects))

    async def _each(self, looks: Sequence[tuple[Kind, str]]) -> None:
        """Look at all of these, at some of them at once."""
        for first in range(0, len(looks), AT_ONCE):
            done = await asyncio.gather(*(self._try(*look) for look in looks[first : first + AT_ONCE]), return_exceptions=True)
            for result in done:
                if isinstance(result, BaseException):
                    raise result

    async def _try(self, kind: Kind, pid: str) -> None:
        """Look at a process. If that fails it is left alone for a while, and the others have their turn in time."""
        suspected = pid in self._suspects
        self._suspects.pop(pid, None)  # before the look: what comes in the middle of it is looked at again
        try:
            await self._look(kind, pid)
        except StoreError:  # it is no matter of this process, and nobody has decided on it
            if suspected:
                self._suspects[pid] = None
            raise
        except Exception as error:
            failures = self._failing[pid].failures + 1 if pid in self._failing else 1
            self._failing[pid] = _Failing(kind, failures, self._journal.clock.now() + pause_seconds(failures))
            telemetry.log.error("process cannot be looked at", pid=pid, kind=kind, failures=failures, exc_info=error)
        else:
            self._failing.pop(pid, None)

    async def _look_ahead(self) -> None:
        """Set the timer to what the store has. A commit that comes while we read may not be in the answer: it counts as well."""
        self._next = None
        found = await self._next_due()
        instants = (found, self._next, *(each.again for each in self._failing.values()))
        self._next = min((each for each in instants if each is not None), default=None)

    async def _next_due(self) -> float | None:
        """The earliest instant of a process that is not left alone."""
        if not self._failing:
            return await self._journal.store.next_due()
        ahead = await self._journal.store.due(inf, min(len(self._failing) + 1, ROWS_MAX))
        return next((process.due for process in ahead if process.pid not in self._failing), None)

    async def _look(self, kind: Kind, pid: str) -> None:
        async def step() -> Changes | None:
            now = self._journal.clock.now()
            process = await self._journal.store.process(kind, pid)
            if process is None or process.final:
                return None
            ruling = await self._rights.of(process, now) if kind is Kind.TRANSFER else None
            if ruling is not None and (changes := outcome(self._steps, process, ruling, now)) is not None:
                return changes
            if process.due is None or process.due > now:
                return None
            covered = process.detail.get("covered") if process.state == State.STARTED else None
            return self._overdue(process, now) if covered is None else await self._quiet(process, now)

        await self._journal.settled(pid)  # who has just taken our first message is told of its end, and has a pid by now
        await self._journal.decide(step, pid)

    async def _quiet(self, process: Process, now: float) -> Changes:
        """Complete a transfer that lies quiet. Not while somebody reads, nor while its consumer owes a receipt: what was sent to one that
        has died is not what it has. As it may never come back, it is looked for after twice the time of before."""
        detail = {name: value for name, value in process.detail.items() if name not in ("covered", "patience")}
        last = self._last_access(process.pid)  # None after a restart, too: then nobody has read since
        if last is not None and last + self.quiet_seconds > now:
            detail["covered"] = last + self.quiet_seconds
        elif await self._owing(process.pid):
            patience = process.detail.get("patience", self.quiet_seconds)
            detail |= {"covered": now + patience, "patience": 2 * patience}
        act = () if "covered" in detail else (Act(Move.COMPLETION),)
        return self._steps.changes(process, Reaction(replace(process, detail=detail), *act), now, ask=False)

    def _overdue(self, process: Process, now: float) -> Changes:
        detail = process.detail
        if process.meant in (State.STARTED, State.SUSPENDED):
            raise RuntimeError(f"transfer `{process.pid}` is due, and nothing follows from it")
        if process.updated <= self._set:
            return self._steps.changes(process, Reaction(process), now, ask=False)
        patience = f"{patience_of(process, self._steps.sender.times):g} s"
        if detail.get("waiting") == APPROVAL:
            return self._expired(process, "no-decision", f"nobody decided within {patience}", now)
        what = "nothing was sent from here" if ours_to_say(process) else "nothing came"  # ours is a dead letter that nobody replayed
        return self._expired(process, "deadline", f"{what} within {patience} in state {process.state}", now)

    def _expired(self, process: Process, code: str, reason: str, now: float) -> Changes:
        telemetry.log.info("deadline passed", pid=process.pid, code=code, state=process.state)
        return self._steps.end(process, code, (reason,), now, because=(fact(telemetry.EXPIRED, process, now, code=code),))

    async def covered(self, pid: str) -> None:
        """Every byte of this transfer has gone out: complete it after a quiet time, for peers that never do."""

        async def step() -> Changes | None:
            now = self._journal.clock.now()
            process = await self._journal.store.process(Kind.TRANSFER, pid)
            if process is None or process.meant != State.STARTED or "covered" in process.detail:
                return None
            marked = replace(process, detail=dict(process.detail) | {"covered": now + self.quiet_seconds})
            return self._steps.changes(process, Reaction(marked), now, evidence=(fact(telemetry.COVERED, process, now),), ask=False)

        failures = 0
        while True:
            try:
                await self._journal.decide(step, pid)
            except Exception as error:  # of the store, or too many conflicts: nobody says a second time that all has gone out
                failures += 1
                telemetry.log.error("coverage not noted", transfer=pid, failures=failures, exc_info=error)
            else:
                return
            await asyncio.sleep(pause_seconds(failures))


class Keep(Value):
    """How long things are kept after their end, in seconds."""

    inbox_seconds: float
    processes_seconds: float
    keys_seconds: float
    parts_seconds: float

    def parts_before(self, now: float) -> tuple[float, float, float]:
        """The instants before which an order has to be over for its part to go (POSIX seconds): of a range, which nobody finds once the
        key to it is gone, and of all else. No part outlives its order, whose part nobody would know any more; but from before the third
        on no order waits for a part that cannot be removed, as its directory is gone."""
        longest = max(self.keys_seconds, self.processes_seconds)
        whole = max(self.keys_seconds, min(self.parts_seconds, self.processes_seconds))
        return now - self.keys_seconds, now - whole, now - 2 * longest


class Retention:
    """The job. It runs at start and then every hour, by the clock on the wall as far as `steady`, which nobody sets, bears it out
    (`Dating`): one that is set ahead, and comes back, makes no message and no key new that was heard before. `parts` removes those that
    orders have left before its instants (`Keep.parts_before`), `indexes`, in a thread, those of data that were replaced long before now."""

    def __init__(
        self,
        journal: Journal,
        keep: Keep,
        steady: Callable[[], float] = since_boot,
        parts: Callable[[float, float, float], Awaitable[int]] | None = None,
        indexes: Callable[[float], int] | None = None,
    ) -> None:
        self._journal, self._dating, self._parts, self._indexes = journal, Dating(journal.clock.now, steady), parts, indexes
        self.keep = keep
        self._loop = Lasting("retention", self._turn, self._pause)

    def start(self) -> None:
        self._loop.start()

    async def close(self) -> None:
        await self._loop.close()

    async def fault(self) -> str | None:
        """What keeps the job from its work, or None: what is never deleted fills the disk one day."""
        return self._loop.fault

    async def sweep(self) -> dict[str, int]:
        """One bounded sweep; returns the deleted rows by table."""
        now = self._dating.now()
        letters = await self._drop_letters(now - self.keep.processes_seconds)
        counts = await self._journal.store.sweep(
            inbox_before=now - self.keep.inbox_seconds,
            processes_before=now - self.keep.processes_seconds,
            keys_before=now - self.keep.keys_seconds,
            limit=SWEPT_MAX,
        )
        return {"dead_letter": letters, **counts}

    async def _drop_letters(self, before: float) -> int:
        """Drop the dead letters of processes that ended before this instant: they alone would keep them for ever. No letter is
        younger than the last step of its process, so only those from before are looked at."""
        store, dropped = self._journal.store, 0
        after: str | None = str(Cursor(True, before, ""))
        while after is not None and dropped < SWEPT_MAX:
            page = await store.dead_letters(after=after, limit=LETTERS_READ)
            for row in page.items:
                process = await store.process(row.kind, row.pid)
                if process is None or (process.final and process.updated < before):
                    dropped += not isinstance(await self._journal.commit(_without(row, process, self._journal.clock.now())), Conflict)
            after = page.next
        return dropped

    async def _turn(self) -> None:
        before = self.keep.parts_before(self._dating.now())
        if self._parts is not None and (parts := await self._parts(*before)):  # their orders go after them
            telemetry.log.info("parts removed", parts=parts)
        while any((counts := await self.sweep()).values()):
            telemetry.log.info("retention", **counts)
            await asyncio.sleep(PAUSE_SECONDS)
        if self._indexes is not None and (indexes := await asyncio.to_thread(self._indexes, self._dating.now())):  # of a disk of their own
            telemetry.log.info("indexes removed", count=indexes)

    async def _pause(self) -> None:
        await asyncio.sleep(EVERY_SECONDS)


def _without(row: Outbound, process: Process | None, now: float) -> Changes:
    if process is None:
        return Changes(settled=(row.id,))
    evidence = fact(telemetry.DISCARDED, process, now, row.move, by="retention")
    return Changes((Expect(Process, process.pid, process.version),), settled=(row.id,), evidence=(evidence,))
