"""Transfers of live data of which nothing more comes are ended, however often that fails: nobody else would end them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from connector import telemetry
from connector.dataplane_live.ending import Ending
from connector.dsp.messages import Kind
from connector.errors import ConnectorError, Contradiction, NotFound
from connector.remembered import pause_seconds

Over = Callable[[Kind, str, str, str], Awaitable[object]]  # ends a process (kind, pid) with a reason and its code, on both sides
Complete = Callable[[str, str, str], Awaitable[object]]  # a transfer of which there is no more, or ends it with a reason and its code


class Finishing:
    """`over` ends a transfer, `complete` does if all of it was taken. `transfers` are those that are just being ended."""

    def __init__(self, over: Over | None, complete: Complete | None) -> None:
        self._over, self._complete = over, complete
        self.transfers: set[str] = set()

    async def finish(self, transfer: str, ending: Ending) -> None:
        """Have a transfer end so."""
        self.transfers.add(transfer)
        try:
            await self._finish(transfer, ending)
        finally:
            self.transfers.discard(transfer)

    async def _finish(self, transfer: str, ending: Ending) -> None:
        failures = 0
        while True:
            try:
                if ending is Ending.ENDED and self._complete is not None:
                    await self._complete(transfer, ending.reason, ending)
                elif self._over is not None:
                    await self._over(Kind.TRANSFER, transfer, ending.reason, ending)
            except (Contradiction, NotFound) as error:
                telemetry.log.info("live transfer was over", transfer=transfer, reason=error.message)
                return
            except ConnectorError as error:  # the store, or a message of it that waits for its answer
                failures += 1
                telemetry.log.warning("live transfer cannot be ended", transfer=transfer, reason=error.message)
            except Exception as error:  # too many conflicts in a row, or a defect
                failures += 1
                telemetry.log.error("live transfer cannot be ended", transfer=transfer, exc_info=error)
            else:
                return
            await asyncio.sleep(pause_seconds(failures))
