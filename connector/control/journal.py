"""The one place where anything is committed, and where whoever has to act on a commit, or waits for one, is told.

Nothing is polled: after a commit its rows are handed, in memory, to those who act on them (the outbox, the event feed, the
streams, the timer of deadlines). After a crash the same rows are read back and handed to the same functions.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any

import orjson

from connector import telemetry
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind
from connector.ports import Clock, Store
from connector.records import Changes, Conflict, Evidence, Outbound, Usage
from connector.remembered import Remembered

Listener = Callable[[Changes, tuple[Evidence, ...]], None]
Topic = Kind | type[Any] | str  # what a commit is about: kinds of processes, types of records, what facts say (`Evidence.what`)
RECENT_MAX = 5_000  # processes kept at hand: those whose messages are on their way
RECENT_BYTES_MAX = 32 << 20  # room for some thousand of the usual size; a larger one than a thirty-second of it is read anew
PROCESS_BYTES = 1_500  # of a process with nothing in its `detail`
BYTES_FOR_JSON = 10  # of memory for a byte of JSON: 4 to 6 in ordinary terms, 10 in long lists of short words
LIVE_MAX = 1_000  # events kept for a reader that is slower than they come; one that falls behind reads the store again
ATTEMPTS_MAX = 8  # conflicts come from a peer and an operator at the same process; more in a row is a defect


class Journal:
    """Commits changes and tells the listeners. `store` and `clock` are there for the use cases to read."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self._listeners: list[tuple[Listener, frozenset[Topic]]] = []
        self._concerned: dict[frozenset[Topic], tuple[Listener, ...]] = {}  # by what a commit is about: there are few such sets
        self._recent: Remembered[str, Process] = Remembered(RECENT_MAX, RECENT_BYTES_MAX)
        self._turns: dict[str, deque[asyncio.Future[None]] | None] = {}  # by a process of which a step is being taken: who is next
        self._held: dict[str, tuple[float, Callable[[], None]]] = {}  # what is put off, in the order in which its time ends
        self._timed = False

    def listen(self, listener: Listener, *topics: Topic) -> None:
        """Call `listener(changes, evidence)` after each commit that is about one of `topics`, or after each if there are none, in the
        order of registration. It must not block. Topics are the kinds of the processes that were saved, the types of all else that was
        saved or deleted, `Evidence` and what each fact says, and `Outbound`, also of rows that are settled."""
        self._listeners.append((listener, frozenset(topics)))
        self._concerned.clear()

    async def commit(self, changes: Changes) -> tuple[Evidence, ...] | Conflict:
        """Write all or nothing; durable on return. A crash before: nothing was said. After: the rows speak for us."""
        sizes: dict[str, int] = {}
        for record in changes.saves:  # measured before the disk is waited for: the store is about to read the same
            if isinstance(record, Process) and not record.final:
                sizes[record.pid] = PROCESS_BYTES + BYTES_FOR_JSON * len(orjson.dumps(record.detail))
        result = await self.store.commit(changes)
        if isinstance(result, Conflict):
            for expect in changes.expects:
                self._recent.forget(str(expect.key))
            return result
        about: set[Topic] = set()
        for of, _ in changes.deletes:
            about.add(of)
        for record in changes.saves:
            if isinstance(record, Process):
                if (size_bytes := sizes.get(record.pid)) is None:  # no message of it is on its way any more
                    self._recent.forget(record.pid)
                else:
                    self._recent.put(record.pid, record, size_bytes)
                about.add(record.kind)
            else:
                about.add(type(record))
        if result:
            said = []
            for evidence in result:
                said.append(evidence.what)
            telemetry.count_events(said)
            about.update(said)
            about.add(Evidence)
        if changes.outbox or changes.settled:
            about.add(Outbound)
        topic = frozenset(about)
        concerned = self._concerned.get(topic)
        if concerned is None:
            concerned = tuple(listener for listener, topics in self._listeners if not topics or topics & about)
            self._concerned[topic] = concerned
        for listener in concerned:
            listener(changes, result)
        return result

    async def process(self, kind: Kind, pid: str) -> Process | None:
        """The process to decide on: as last committed here, else as stored. It may be behind what another replica has
        written; then the write that follows from it meets a Conflict, and the next reading is the store's."""
        known = self._recent.get(pid)
        return known if known is not None and known.kind is kind else await self.store.process(kind, pid)

    async def decide(self, step: Callable[[], Awaitable[Changes | None]], pid: str | None = None) -> Changes | None:
        """Run `step` (read, decide, return changes) and commit what it says; on a conflict read and decide again.

        Steps of the same process `pid` take turns here: the peer's next message often comes while the answer to ours is being
        written, and to decide on what is about to change would be work for nothing. What another replica writes is met by
        the conflict all the same. Returns the committed changes, or None if `step` had nothing to write. Errors of `step` pass
        through: it raises before it has written anything.

        A step that writes what an agreement has used (`Usage`) takes the turn of that agreement, too: its counters are what many
        want to change at once, and those would meet nothing but conflicts. A `pid` may be the id of an agreement, or of a dataset.
        """
        if pid is not None:
            if pid in self._turns:
                await self._turn(pid)
            else:
                self._turns[pid] = None  # most have nobody behind them
        try:
            for _ in range(ATTEMPTS_MAX):
                changes = await step()
                if changes is None:
                    return None
                for record in changes.saves:
                    if isinstance(record, Usage):
                        if record.agreement != pid:
                            return await self.decide(step, record.agreement)  # anew, in its turn
                        break
                if not isinstance(await self.commit(changes), Conflict):
                    return changes
                await asyncio.sleep(0)
        finally:
            if pid is not None:
                self._next(pid)
        raise RuntimeError(f"{ATTEMPTS_MAX} conflicts in a row in one step")

    async def _turn(self, pid: str) -> None:
        """Wait for those who came before."""
        turn = asyncio.get_running_loop().create_future()
        waiting = self._turns[pid] = self._turns[pid] or deque()
        waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was given the turn, and will not take it
                self._next(pid)
            raise

    def _next(self, pid: str) -> None:
        waiting = self._turns[pid]
        while waiting:
            turn = waiting.popleft()
            if not turn.done():  # it is still waited for
                turn.set_result(None)
                return
        del self._turns[pid]

    def hold(self, pid: str, seconds: float, write: Callable[[], None]) -> None:
        """Put off a write about process `pid` that something else may soon make needless, as it then says (`drop`). `write` begins it when
        the time is over, which is the same at every call, or at once when somebody wants to know (`settled`), and in the context of this
        call: the trace is not that of who asks. No task waits for that, as nearly none is ever needed."""
        self.release(pid)
        loop = asyncio.get_running_loop()
        self._held[pid] = loop.time() + seconds, partial(copy_context().run, write)
        if not self._timed:  # one timer serves all
            self._timed = True
            loop.call_later(seconds, self._let_go, loop)

    def _let_go(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        while self._held:
            pid, (ends, _) = next(iter(self._held.items()))
            if ends > now:
                loop.call_at(ends, self._let_go, loop)
                return
            self.release(pid)
        self._timed = False

    def drop(self, pid: str) -> None:
        """What was put off about the process is needed no more."""
        self._held.pop(pid, None)

    def release(self, pid: str) -> None:
        """What was put off about the process is not to be put off any longer."""
        if (held := self._held.pop(pid, None)) is not None:
            held[1]()

    async def settled(self, pid: str) -> None:
        """Return once what was put off about the process, and whatever step is being taken, is written."""
        if pid in self._held:
            self.release(pid)
            await asyncio.sleep(0)  # what was begun takes its turn
        if pid in self._turns:
            await self.decide(_nothing, pid)


class Reader:
    """A reader of the event feed: `woken` is set at every commit with evidence that it wants to hear of, `live` holds the newest of all.
    `idle` says that it has been told all and waits; one that is not when the connector stops is hung up on."""

    def __init__(self, hang_up: Callable[[], None], states: frozenset[str]) -> None:
        self.woken = asyncio.Event()
        self.live: deque[Evidence] = deque(maxlen=LIVE_MAX)
        self.idle = False
        self.hang_up = hang_up
        self._states = states

    def wanted(self, events: Sequence[Evidence]) -> Sequence[Evidence]:
        """Those of them that it is told."""
        return [event for event in events if event.state in self._states] if self._states else events

    def tell(self, events: tuple[Evidence, ...]) -> None:
        """These were committed. It is woken in time for what it does not want, too: there is no end of that."""
        self.live.extend(events)
        if len(self.live) > LIVE_MAX // 2 or self.wanted(events):
            self.woken.set()

    def following(self, sequence: int) -> list[Evidence] | None:
        """Take all events that follow `sequence`; None if one is missing: then the store has to be read from there. Either
        way nothing is left that a reader would sleep on."""
        live, taken = list(self.live), []
        self.live.clear()
        for event in live:
            if event.sequence > sequence + 1:
                return None
            if event.sequence == sequence + 1:
                taken.append(event)
                sequence += 1
        return taken


class Feed:
    """Tells of commits: a waiter for a process reads it in the store, and then hears of the commit that it waits for. What the journal has
    at hand is a turn of the loop behind the store: whoever asked both in a row, without a pause, would never let that turn come."""

    def __init__(self, journal: Journal) -> None:
        self._store = journal.store
        self._by_pid: dict[str, dict[asyncio.Future[Process | None], Callable[[Process], bool]]] = {}  # who waits, and until when
        self._readers: set[Reader] = set()
        self.newest = 0  # the number of the newest event that we have heard of: another replica may have written later ones
        self.closed = False
        journal.listen(self._committed, *Kind, Evidence)

    def _committed(self, changes: Changes, evidence: tuple[Evidence, ...]) -> None:
        for record in changes.saves:
            if isinstance(record, Process) and (waiting := self._by_pid.get(record.pid)):
                for over, until in waiting.items():
                    if not over.done():
                        _tell(over, until, record)
        if evidence:
            self.newest = max(self.newest, evidence[-1].sequence)
            for reader in self._readers:
                reader.tell(evidence)

    def nudge(self) -> None:
        """Wake the readers of the event feed."""
        for reader in self._readers:
            reader.woken.set()

    async def wait(self, kind: Kind, pid: str, until: Callable[[Process], bool], timeout_seconds: float | None) -> Process | None:
        """Return the process as soon as `until` holds, or as it stands when the time is over (None: it never is); None if there
        is none. `until` is asked at each commit of the process, and does not block; what it raises is raised here."""
        over: asyncio.Future[Process | None] = asyncio.get_running_loop().create_future()
        waiting = self._by_pid.setdefault(pid, {})
        waiting[over] = until  # before the process is read: what is committed meanwhile is not missed
        try:
            process = await self._store.process(kind, pid)
            if process is None or until(process) or self.closed:
                return process
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    if (met := await over) is not None:
                        return met
            return await self._store.process(kind, pid)
        finally:
            del waiting[over]
            if not waiting:
                self._by_pid.pop(pid, None)

    def reader(self, hang_up: Callable[[], None] = lambda: None, states: frozenset[str] = frozenset()) -> Reader:
        """A reader from now on, until `leave` is called with it; of processes in one of `states`, if there are any, and of nothing else."""
        reader = Reader(hang_up, states)
        self._readers.add(reader)
        return reader

    def leave(self, reader: Reader) -> None:
        self._readers.discard(reader)

    def close(self) -> None:
        """Send everybody home: the connector stops. Waiters get the process as it stands, readers end their streams. One that
        is still being told may take nothing for as long as it likes: it is hung up on, and comes back for the rest."""
        self.closed = True
        for waiting in self._by_pid.values():
            for over in waiting:
                if not over.done():
                    over.set_result(None)
        for reader in self._readers:
            if not reader.idle:
                reader.hang_up()
        self.nudge()


def _tell(over: asyncio.Future[Process | None], until: Callable[[Process], bool], process: Process) -> None:
    try:
        if until(process):
            over.set_result(process)
    except Exception as error:  # of whoever waits: what was committed is told to all others
        over.set_exception(error)


async def _nothing() -> None:
    """A step that only waits for its turn."""
