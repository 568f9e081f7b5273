"""Who waits for what: callers that wait for a process to change, and readers of the event feed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from connector.control.journal import Journal
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind
from connector.records import Changes, Evidence


class Feed:
    """Wakes waiters after each commit. The truth stays in the store: a waiter reads it, then waits for the next hint."""

    def __init__(self, journal: Journal) -> None:
        self._store = journal.store
        self._by_pid: dict[str, set[asyncio.Event]] = {}
        self._readers: set[asyncio.Event] = set()
        self.transient: dict[str, object] = {}
        journal.listen(self._committed)

    def _committed(self, changes: Changes, evidence: tuple[Evidence, ...]) -> None:
        for record in changes.saves:
            if isinstance(record, Process) and (waiting := self._by_pid.get(record.pid)):
                for event in waiting:
                    event.set()
        if evidence:
            self.nudge()

    def nudge(self) -> None:
        """Wake the readers of the event feed."""
        for event in self._readers:
            event.set()

    async def wait(self, kind: Kind, pid: str, until: Callable[[Process], bool], timeout_seconds: float) -> Process | None:
        """Return the process as soon as `until` holds, or as it stands when the time is over; None if there is none."""
        event = asyncio.Event()
        waiting = self._by_pid.setdefault(pid, set())
        waiting.add(event)
        try:
            process = await self._store.process(kind, pid)
            async with asyncio.timeout(timeout_seconds):
                while process is not None and not until(process):
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

    def reader(self) -> asyncio.Event:
        """An event that is set at every commit with evidence, until `leave` is called with it."""
        event = asyncio.Event()
        self._readers.add(event)
        return event

    def leave(self, reader: asyncio.Event) -> None:
        self._readers.discard(reader)
