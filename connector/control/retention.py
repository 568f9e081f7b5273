"""Deletes what has been kept long enough, a little at a time. Agreements and evidence are never deleted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from connector import telemetry
from connector.control.journal import Journal

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
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="retention")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

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

    async def _run(self) -> None:
        while True:
            while any((counts := await self.sweep()).values()):
                telemetry.log.info("retention", **counts)
                await asyncio.sleep(PAUSE_SECONDS)
            await asyncio.sleep(EVERY_SECONDS)
