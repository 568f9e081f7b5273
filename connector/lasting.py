"""Work that goes on for as long as the connector runs: whatever it meets, it does not end silently."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from connector import telemetry

FIRST_PAUSE_SECONDS, PAUSE_SECONDS_MAX = 1.0, 300.0  # after an error; each further one in a row doubles the pause


class Lasting:
    """Runs `turn`, then `wait`, then `turn` again, until it is closed. An error of either is logged and followed by a pause;
    `fault` says what is wrong from then on until a turn succeeds."""

    def __init__(
        self,
        name: str,
        turn: Callable[[], Awaitable[None]],
        wait: Callable[[], Awaitable[None]],
        *,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        self._name = name
        self._turn = turn
        self._wait = wait
        self._first_pause_seconds = first_pause_seconds
        self._task: asyncio.Task[None] | None = None
        self.fault: str | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self._turn()
                self.fault, failures = None, 0
                await self._wait()
            except Exception as error:
                failures += 1
                self.fault = f"{self._name} fails, {failures} in a row: {type(error).__name__}; the log has the details"
                telemetry.log.error(f"{self._name} failed", failures=failures, exc_info=error)
                await asyncio.sleep(pause_seconds(failures, self._first_pause_seconds))


def pause_seconds(failures: int, first_seconds: float = FIRST_PAUSE_SECONDS) -> float:
    """How long to leave alone what has failed so often in a row."""
    return float(min(PAUSE_SECONDS_MAX, first_seconds * 2 ** min(failures - 1, 20)))
