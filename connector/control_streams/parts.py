"""What orders have left beside the files that they were to make: nobody goes on with it for ever.

The next order of the same goes on with the part of one that failed or was cancelled, and pays for none of it again, as long as it is known
who has left it. Afterwards the part of a range is removed; that of all of the data, or of live data, later: its operator can read it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from math import inf
from typing import Final

from connector import telemetry
from connector.control.journal import Journal
from connector.control_streams import orders
from connector.control_streams.kept import DONE, FAILED
from connector.errors import ConnectorError
from connector.records import Changes, Conflict, Expect, Pull
from connector.values import replace

PAGE: Final = 200


class Parts:
    """Looks through the orders of `journal`; `forget(order)` removes the part of one."""

    def __init__(self, journal: Journal, forget: Callable[[Pull], Awaitable[None]]) -> None:
        self._journal, self._store, self._forget = journal, journal.store, forget

    async def sweep(self, ranges_before: float, before: float, lost_before: float = -inf) -> int:
        """Remove the parts that orders of ranges have left before the first instant, and all others before the second (POSIX seconds), with
        which no order goes on. Returns how many. What cannot be removed, and was left before the third, is given up, and said."""
        left, used, removed = list[Pull](), set[str](), 0
        async for pull in self._all():
            if pull.stage != FAILED or pull.updated >= (before if pull.range is None else ranges_before):
                if pull.stage != DONE:
                    used.add(pull.part or pull.id)
            elif pull.validator is not None:
                left.append(pull)
        for pull in left:
            if (pull.part or pull.id) not in used and await self._store.idempotent(orders.left_by(pull)) is None:
                removed += await self._remove(pull, give_up=pull.updated < lost_before)
        return removed

    async def _remove(self, pull: Pull, *, give_up: bool) -> bool:
        removed = True
        try:
            await self._forget(pull)
        except ConnectorError as error:  # its directory is not here now, or somebody writes there
            (telemetry.log.warning if give_up else telemetry.log.info)("part not removed", pull=pull.id, reason=error.message)
            if not give_up:
                return False
            removed = False
        over = replace(pull, validator=None, version=pull.version + 1)
        conflict = isinstance(await self._journal.commit(Changes((Expect(Pull, pull.id, pull.version),), (over,))), Conflict)
        return removed and not conflict

    async def _all(self) -> AsyncIterator[Pull]:
        after = None
        while True:
            page = await self._store.pulls(open_only=False, after=after, limit=PAGE)
            for pull in page.items:
                yield pull
            if (after := page.next) is None:
                return
