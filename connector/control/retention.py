"""Deletes what has been kept long enough, a little at a time. Agreements and evidence are never deleted.

A dead letter is kept as long as its process: while that is open an operator may replay it, and afterwards read what was not
delivered; then both go, and the record says so.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from connector import telemetry
from connector.control.journal import Journal
from connector.control.steps import fact
from connector.dsp.exchange import Process
from connector.lasting import Lasting
from connector.records import Changes, Conflict, Cursor, Expect, Outbound

LETTERS_READ = 200  # at once
ROWS_MAX = 2_000  # of a table in one sweep: some ten milliseconds of writing
PAUSE_SECONDS = 0.2  # between sweeps that still find something, so that messages go first
EVERY_SECONDS = 3_600.0  # things are kept for days; an hour more does not matter


@dataclass(frozen=True, slots=True)
class Keep:
    """How long things are kept after their end, in seconds."""

    inbox_seconds: float
    processes_seconds: float
    keys_seconds: float


class Retention:
    """The job. It runs at start and then every hour."""

    def __init__(self, journal: Journal, keep: Keep) -> None:
        self._journal = journal
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
        now = self._journal.clock.now()
        letters = await self._drop_letters(now - self.keep.processes_seconds)
        counts = await self._journal.store.sweep(
            inbox_before=now - self.keep.inbox_seconds,
            processes_before=now - self.keep.processes_seconds,
            keys_before=now - self.keep.keys_seconds,
            limit=ROWS_MAX,
        )
        return {"dead_letter": letters, **counts}

    async def _drop_letters(self, before: float) -> int:
        """Drop the dead letters of processes that ended before this instant: they alone would keep them for ever. No letter is
        younger than the last step of its process, so only those from before are looked at."""
        store, dropped = self._journal.store, 0
        after: str | None = str(Cursor(True, before, ""))
        while after is not None and dropped < ROWS_MAX:
            page = await store.dead_letters(after=after, limit=LETTERS_READ)
            for row in page.items:
                process = await store.process(row.kind, row.pid)
                if process is None or (process.final and process.updated < before):
                    dropped += not isinstance(await self._journal.commit(_without(row, process, self._journal.clock.now())), Conflict)
            after = page.next
        return dropped

    async def _turn(self) -> None:
        while any((counts := await self.sweep()).values()):
            telemetry.log.info("retention", **counts)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _pause(self) -> None:
        await asyncio.sleep(EVERY_SECONDS)


def _without(row: Outbound, process: Process | None, now: float) -> Changes:
    if process is None:
        return Changes(settled=(row.id,))
    evidence = fact(telemetry.DISCARDED, process, now, row.move, by="retention")
    return Changes((Expect(Process, process.pid, process.version),), settled=(row.id,), evidence=(evidence,))
