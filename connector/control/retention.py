"""Deletes what has been kept long enough, a little at a time. Agreements and evidence are never deleted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from connector import telemetry
from connector.control.journal import Journal
from connector.lasting import Lasting

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
        counts = await self._journal.store.sweep(
            inbox_before=now - self.keep.inbox_seconds,
            processes_before=now - self.keep.processes_seconds,
            keys_before=now - self.keep.keys_seconds,
            limit=ROWS_MAX,
        )
        return dict(counts)

    async def _turn(self) -> None:
        while any((counts := await self.sweep()).values()):
            telemetry.log.info("retention", **counts)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _pause(self) -> None:
        await asyncio.sleep(EVERY_SECONDS)
