"""Writing to the SQLite store: one writer, many changes to a commit, and a broken disk ends the process.

Statements run on the event loop, and so does COMMIT while the disk is quick; on a disk that is not, a thread waits for it. Changes that
arrive meanwhile are applied together and committed next: under load that saves most of the waiting, and a thread that ran the
statements too would fight the loop for the interpreter at each of them. A change that finds something else than it
expects has written nothing, so one of a group can fail without a savepoint; it sees what the group's earlier ones wrote,
which is right, because the group is committed whole or not at all.

Nobody else should be writing, but somebody may: an operator's shell, a tool that checkpoints. SQLite would wait for such a
lock in the middle of the loop; here the group waits instead, and the loop goes on.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from time import perf_counter
from typing import Any

from msgspec import Struct

from connector import telemetry
from connector.adapters.sqlite_rows import (
    BEGIN_PROCESS,
    DATASET_OF_OFFER,
    END_PROCESS,
    INSTEAD,
    LEARN_PEER_PID,
    MOVE_PROCESS,
    PROCESS_OF_PEER,
    SAVE_PROCESS,
    VERSIONED,
)
from connector.adapters.sqlite_schema import is_busy
from connector.adapters_stores.pace import QUICK_SECONDS, Pace
from connector.adapters_stores.sqlite_ledger import NEWEST_EVIDENCE, SAVE_EVIDENCE
from connector.adapters_stores.sqlite_prepared import NOTHING, Prepared, Questions, everything
from connector.adapters_stores.sqlite_statements import Row, Statement
from connector.dsp.exchange import Process
from connector.errors import StoreError
from connector.records import Conflict, Evidence
from connector.telemetry import commit_seconds

GROUP_AT_MOST = 64  # changes to one COMMIT: some 5 ms of statements, in which the loop does nothing else
GATHER_SECONDS = 0.005  # a group is not closed before while each turn of the loop brings more to it
LOCKED_SECONDS_MAX = 30.0  # how long another program may hold the write lock before this process gives up
LOCKED_PAUSE_SECONDS = 0.01  # between two looks at it
EXIT_STATUS = 70  # EX_SOFTWARE of sysexits.h: whoever supervises the process starts it again

Fatal = Callable[[BaseException], None]
Told = Callable[[Sequence[Statement]], None]
Committed = tuple[Evidence, ...] | Conflict


def end_process(error: BaseException) -> None:
    """What happens when a write fails: nobody may rely on this process any more, and starting anew is recovery."""
    remedy = "look at its disk, and start again: what was acknowledged is kept"
    try:
        telemetry.log.error("the store cannot be written, the process ends", reason=f"{type(error).__name__}: {error}", remedy=remedy)
    finally:
        os._exit(EXIT_STATUS)


class Group:
    """The changes of one COMMIT, in an open transaction of participant `number`."""

    def __init__(self, db: sqlite3.Connection, number: int) -> None:
        self._cursor = db.cursor()
        self._number = number
        self._sequence: int | None = None
        self._evidence: list[list[Any]] = []

    def apply(self, prepared: Prepared) -> Committed:
        """Check everything, then write everything but the evidence. Returns the Conflict if something did not hold; nothing is
        written then. Raises UnicodeEncodeError or OverflowError for a value that no row can hold, with half of it written; whatever else
        it raises is fatal."""
        step, changes = prepared.step, prepared.changes
        if prepared.asked is not NOTHING and (conflict := self._conflict(prepared.asked)):
            return conflict if step is None else self._conflict(everything(self._number, changes)) or conflict  # the first broken is named
        execute = self._cursor.execute
        if step is not None and not self._stepped(step, prepared.before):
            if conflict := self._conflict(everything(self._number, changes)):
                return conflict
            execute(SAVE_PROCESS, step)
        for sql, values in prepared.writes:
            if not execute(sql, values).rowcount and sql in INSTEAD:
                execute(INSTEAD[sql], values)
        if not changes.evidence:
            return ()
        sequence, numbered = self._next_sequence(len(changes.evidence)), []
        for row, fact in zip(prepared.evidence_rows, changes.evidence, strict=True):
            row[1] = sequence
            numbered.append(fact.numbered(sequence))
            sequence += 1
        self._evidence += prepared.evidence_rows
        return tuple(numbered)

    def put_on_record(self) -> None:
        """Write the evidence of all that was applied: nothing in a group reads it, and rows that follow each other are written at once for
        a third of what they cost one by one. Whatever it raises is fatal."""
        if self._evidence:
            self._cursor.executemany(SAVE_EVIDENCE, self._evidence)

    def _stepped(self, row: Row, before: int | None) -> bool:
        """Write the step of a process, if it is as expected and changes only what steps do change."""
        execute = self._cursor.execute
        if before is None:
            return execute(BEGIN_PROCESS, row).rowcount == 1
        values, final, peer_pid = (*row, before), row[7], row[5]
        if execute(END_PROCESS if final else MOVE_PROCESS, values).rowcount:
            return True
        return peer_pid is not None and execute(LEARN_PEER_PID, values).rowcount == 1

    def _conflict(self, questions: Questions) -> Conflict | None:
        execute = self._cursor.execute
        peer_pids: dict[object, str | None] = {}  # the peer pids that processes have already, as far as they were read
        for expect, sql, key in questions.expects:
            row = execute(sql, key).fetchone()
            found = None if row is None else row[0]
            holds = found == expect.version if expect.of in VERSIONED else (found is None) == (expect.version is None)
            if not holds:
                return Conflict(expect)
            if row is not None and expect.of is Process:
                peer_pids[expect.key] = row[1]
        for expect, owner in questions.claims:
            if isinstance(expect.key, tuple):
                kind, peer, peer_pid = expect.key
                if peer_pids.get(owner) == peer_pid:
                    continue
                row = execute(PROCESS_OF_PEER, (self._number, str(kind), peer, peer_pid)).fetchone()
                if row is not None and row[1] != owner:
                    return Conflict(expect)
            else:
                row = execute(DATASET_OF_OFFER, (self._number, expect.key)).fetchone()
                if row is not None and row[0] != owner:
                    return Conflict(expect)
        return None

    def _next_sequence(self, count: int) -> int:
        """Numbers follow each other without gaps; they are read once per group, under the lock that only one writer has."""
        if self._sequence is None:
            self._sequence = self._cursor.execute(NEWEST_EVIDENCE, (self._number,)).fetchone()[0] or 0
        first = self._sequence + 1
        self._sequence += count
        return first


class _Waiting(Struct):
    prepared: Prepared
    future: asyncio.Future[Committed]
    since: float
    result: Committed = ()


class Writer:
    """The only writer of a connection, for participant `number`. Lives on one event loop from its first submission on. `told` hears of
    the writes that the disk has, before whoever waits for them does. Gives up, as if the disk had failed, after another program has held
    the file for `locked_seconds_max`."""

    def __init__(
        self,
        db: sqlite3.Connection,
        number: int,
        fatal: Fatal,
        told: Told = lambda _: None,
        *,
        locked_seconds_max: float = LOCKED_SECONDS_MAX,
        quick_seconds: float = QUICK_SECONDS,
    ) -> None:
        self.broken: StoreError | None = None
        self.commits = 0
        self._db, self._number, self._fatal, self._told = db, number, fatal, told
        self._locked_seconds_max, self._pace = locked_seconds_max, Pace(quick_seconds)
        self._rested = 0.0  # since when there is nothing to write and who waited was told, by `perf_counter`
        self._locked_since: float | None = None
        db.execute("pragma busy_timeout=0")
        self._waiting: deque[_Waiting] = deque()
        self._committing: list[_Waiting] = []
        self._busy = self._open = False  # whether there is something to write, and whether a transaction has begun
        self._ending: asyncio.Future[None] | None = None  # somebody waits until there is nothing to write
        self._groups: SimpleQueue[asyncio.AbstractEventLoop | None] = SimpleQueue()
        self._thread = Thread(target=self._commit_groups, name="store-commit", daemon=True)
        self._thread.start()

    @property
    def at_rest(self) -> sqlite3.Connection | None:
        """The connection, while no transaction is open on it, to be read on the loop: it sees what is committed, and has the pages at
        hand that it wrote, while any other has to read anew after each commit. None while there is a transaction."""
        return None if self._open else self._db

    def submit(self, prepared: Prepared) -> asyncio.Future[Committed]:
        """Write with the next group. The future is done when the disk has it; whoever stops waiting for it does not stop
        the write. It fails with StoreError, and the process is about to end, if the disk refused."""
        loop = asyncio.get_running_loop()
        if self.broken is not None:
            raise self.broken
        waiting = _Waiting(prepared, loop.create_future(), perf_counter())
        self._waiting.append(waiting)
        if not self._busy:
            self._busy = True
            if self._pace.rested(waiting.since - self._rested):
                self._apply(loop)  # nobody else is writing: to wait for company costs two turns of the loop, and none comes
            else:
                self._gather(loop, 0, waiting.since + GATHER_SECONDS)  # not at once: what else is ready on the loop joins the group
        return waiting.future

    def _gather(self, loop: asyncio.AbstractEventLoop, seen: int, until: float) -> None:
        """Apply the next group once a turn of the loop has brought nothing to those `seen` before, or at `until` by `perf_counter`.

        Changes of one COMMIT share its pages and its wait for the disk: under load, a negotiation takes 6 % less CPU by this.
        """
        waiting = len(self._waiting)
        if seen and (waiting == seen or waiting >= GROUP_AT_MOST or perf_counter() >= until):
            self._apply(loop)
        else:
            loop.call_soon(self._gather, loop, waiting, until)

    def _apply(self, loop: asyncio.AbstractEventLoop) -> None:
        """On the loop: apply the next group, and commit it while the disk is quick; else the thread does."""
        try:
            if not self._begun(loop):
                loop.call_later(LOCKED_PAUSE_SECONDS, self._apply, loop)
                return
            self._committing = [self._waiting.popleft() for _ in range(min(len(self._waiting), GROUP_AT_MOST))]
            changes = Group(self._db, self._number)
            for waiting in self._committing:
                try:
                    waiting.result = changes.apply(waiting.prepared)
                except (UnicodeEncodeError, OverflowError) as error:
                    self._refuse(loop, waiting, error)
                    return
            changes.put_on_record()
        except Exception as error:  # whatever it was, half of a change may be written: it must never be committed
            self._fail(error)
        else:
            if self._pace.on_loop:
                self._committed(loop, self._commit(on_loop=True))
            else:
                self._groups.put(loop)

    def _refuse(self, loop: asyncio.AbstractEventLoop, refused: _Waiting, error: ValueError | OverflowError) -> None:
        """Begin the group anew without a change that has values which no row can hold."""
        self._db.execute("rollback")
        self._open = False
        if not refused.future.done():
            refused.future.set_exception(error)
        self._waiting.extendleft(waiting for waiting in reversed(self._committing) if waiting is not refused)
        self._committing = []
        self._go_on(loop)

    def _begun(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Begin a transaction, or return False if another program is writing. Raises once that has gone on for too long."""
        try:
            self._db.execute("begin immediate")
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            if self._locked_since is None:
                self._locked_since = loop.time()
                telemetry.log.warning("store locked", reason="another program is writing to the database; what is to be written waits")
            if loop.time() - self._locked_since > self._locked_seconds_max:
                raise StoreError(f"another program has kept the database locked for {self._locked_seconds_max:g} s") from error
            return False
        self._locked_since = None
        self._open = True
        return True

    def _commit_groups(self) -> None:
        """On the thread: nothing else touches the connection until the loop has been told."""
        while (loop := self._groups.get()) is not None:
            loop.call_soon_threadsafe(self._committed, loop, self._commit(on_loop=False))

    def _commit(self, *, on_loop: bool) -> Exception | None:
        begun = perf_counter()
        try:
            self._db.execute("commit")
        except Exception as error:  # handed to the loop, where it ends the process
            return error
        self._pace.took(perf_counter() - begun, on_loop=on_loop)
        return None

    def _committed(self, loop: asyncio.AbstractEventLoop, error: Exception | None) -> None:
        """On the loop: the disk has the group, or the process ends."""
        if error is not None:
            self._fail(error)
            return
        self.commits += 1
        self._open = False
        group, self._committing = self._committing, []
        now = perf_counter()
        for waiting in group:
            commit_seconds.observe(now - waiting.since)
            if not isinstance(waiting.result, Conflict):
                self._told(waiting.prepared.writes)
            if not waiting.future.done():
                waiting.future.set_result(waiting.result)
        self._go_on(loop)

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._waiting:
            self._gather(loop, 0, perf_counter() + GATHER_SECONDS)  # after those that were just told: what they write next joins the group
        else:
            self._rest()
            loop.call_soon(self._rested_anew)  # those that were just told go first, and whoever writes in a row leaves others their turn

    def _rested_anew(self) -> None:
        self._rested = perf_counter()

    def _rest(self) -> None:
        self._busy, self._rested = False, float("inf")
        if self._ending is not None and not self._ending.done():
            self._ending.set_result(None)

    def _fail(self, error: BaseException) -> None:
        """A write or a commit failed: what is on disk is unknown until fresh eyes have looked. Nobody is told that anything succeeded."""
        self.broken = StoreError(f"the store cannot be written: {error}; the process has to start again")
        try:
            self._fatal(error)
        finally:
            with suppress(sqlite3.Error):  # a disk that refuses to write may refuse this too; recovery does it then
                self._db.execute("rollback")
            for waiting in (*self._committing, *self._waiting):
                if not waiting.future.done():
                    waiting.future.set_exception(self.broken)
            self._committing = []
            self._waiting.clear()
            self._rest()

    async def close(self) -> None:
        """Write what was submitted, then take nothing more."""
        if self._busy:
            self._ending = asyncio.get_running_loop().create_future()
            await self._ending
        if self.broken is None:
            self.broken = StoreError("the store is closed")
        self._groups.put(None)
        self._thread.join()
        self._db.close()
