"""Who waits for what: callers that wait for a process to change, and readers of the event feed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from connector.control.journal import Journal
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind
from connector.records import Changes, Evidence

LIVE_MAX = 1_000  # events kept for a reader that is slower than they come; one that falls behind reads the store again


class Reader:
    """A reader of the event feed: `woken` is set at every commit with evidence, `live` holds the newest of it. `idle` says
    that it has been told all and waits; one that is not when the connector stops is hung up on."""

    def __init__(self, hang_up: Callable[[], None]) -> None:
        self.woken = asyncio.Event()
        self.live: deque[Evidence] = deque(maxlen=LIVE_MAX)
        self.idle = False
        self.hang_up = hang_up

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
    """Wakes waiters after each commit. The truth stays in the store: a waiter reads it, then waits for the next hint."""

    def __init__(self, journal: Journal) -> None:
        self._store = journal.store
        self._by_pid: dict[str, set[asyncio.Event]] = {}
        self._readers: set[Reader] = set()
        self.closed = False
        journal.listen(self._committed)

    def _committed(self, changes: Changes, evidence: tuple[Evidence, ...]) -> None:
        for record in changes.saves:
            if isinstance(record, Process) and (waiting := self._by_pid.get(record.pid)):
                for event in waiting:
                    event.set()
        if evidence:
            for reader in self._readers:
                reader.live.extend(evidence)
            self.nudge()

    def nudge(self) -> None:
        """Wake the readers of the event feed."""
        for reader in self._readers:
            reader.woken.set()

    async def wait(self, kind: Kind, pid: str, until: Callable[[Process], bool], timeout_seconds: float | None) -> Process | None:
        """Return the process as soon as `until` holds, or as it stands when the time is over (None: it never is); None if there
        is none."""
        event = asyncio.Event()
        waiting = self._by_pid.setdefault(pid, set())
        waiting.add(event)
        try:
            process = await self._store.process(kind, pid)
            async with asyncio.timeout(timeout_seconds):
                while process is not None and not until(process) and not self.closed:
                    await event.wait()
                    event.clear()
                    process = await self._store.process(kind, pid)
        except TimeoutError:
            process = await self._store.process(kind, pid)
        finally:
            waiting.discard(event)
            if not waiting:
                self._by_pid.pop(pid, None)
        return process

    def reader(self, hang_up: Callable[[], None] = lambda: None) -> Reader:
        """A reader from now on, until `leave` is called with it."""
        reader = Reader(hang_up)
        self._readers.add(reader)
        return reader

    def leave(self, reader: Reader) -> None:
        self._readers.discard(reader)

    def close(self) -> None:
        """Send everybody home: the connector stops. Waiters get the process as it stands, readers end their streams. One that
        is still being told may take nothing for as long as it likes: it is hung up on, and comes back for the rest."""
        self.closed = True
        for waiting in self._by_pid.values():
            for event in waiting:
                event.set()
        for reader in self._readers:
            if not reader.idle:
                reader.hang_up()
        self.nudge()
