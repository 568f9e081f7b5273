"""What a consumer has of a live log, as far as the provider can know, and so when a transfer is over whose source has ended.

Who signs has what was signed for. Of one who signs nothing it is what has left, each byte of it: the last ones alone are not all. Whoever
takes no more is waited for as long as the rest is kept, from the last that was taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Final

from connector.dataplane.coverage import Coverage, add
from connector.dataplane_live.ending import Ending
from connector.dataplane_live.growing import Growing
from connector.dataplane_live.rest import Rest
from connector.metering.content import SIZE_MAX

UNSIGNED_SECONDS: Final = 300.0  # after the last byte of a log that has ended, for one who signs nothing and was killed with it in a buffer
ASK_SECONDS: Final = 10.0  # for one that has signed for all to ask for the end: it may have been cut, or we have just started
TOLD_SECONDS: Final = 300.0  # for a consumer that asks for the end, and has signed for all, to say itself that it has all of it


class Taking:
    """The consumer of `log`, and how long the `rest` of it is kept."""

    def __init__(self, log: Growing, rest: Rest | None = None) -> None:
        self._log, self.rest = log, rest or Rest()
        self._left = Coverage(log.etag, SIZE_MAX)
        self.signs = False  # the consumer, who then says itself what it has
        self.means: Callable[[], bool] = lambda: False  # whether it is one who signs, though it has not yet
        self.readers, self.signed_bytes = 0, 0
        self.asked_at = monotonic()  # when somebody last asked for the log, or read it
        self._asks = asyncio.Event()
        self.lost = False  # what it lacks, so that nobody is waited for
        self.news, self.moved = self.rest.news, asyncio.Event()  # of what is signed for; of what has left, or may be asked for
        self._out_bytes = 0

    def left(self, first: int, length: int, ago_seconds: float = 0.0) -> None:
        """So many bytes from `first` on have left, so long ago at least."""
        before, self._left = self._left, add(self._left, first, length)
        if self._left != before:
            self.rest.taken(ago_seconds)
        self.has(first + length)

    def has(self, end: int) -> None:
        """What lies before `end` has left, perhaps before we started: the consumer asks for what follows."""
        self._out_bytes = max(self._out_bytes, end)
        self.moved.set()

    @property
    def whole(self) -> int:
        """How many leaves, the header included, have left to their end."""
        return self._log.touched(self._out_bytes, 0)[0]

    @property
    def _all_left(self) -> bool:
        """Whether each byte has left, and that is all that anybody will know of who has it."""
        signs = self.signs or self.means()
        return not (signs or self.readers) and (not self._log.end or self._left.ranges == ((0, self._log.end),))

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait until something is so that what leaves may change."""
        while not ready():
            self.moved.clear()
            await self.moved.wait()

    async def signed_as_left(self, seconds: float) -> None:
        """Wait until all whole leaves that have left are signed for, `seconds` at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.signed_bytes < self._log.span(1, self.whole)[1]:
                    self.news.clear()
                    await self.news.wait()

    def asks_end(self) -> None:
        """The consumer hears by what is signed that it has all of it."""
        self._asks.set()

    def signed_for(self, offset: int, ago_seconds: float = 0.0) -> None:
        """The consumer signs, and has signed so long ago for what lies before `offset`."""
        if offset > self.signed_bytes:
            self.signed_bytes = offset
            self.rest.taken(ago_seconds)
        self.signs = True
        self.news.set()

    async def over(self, ending: Ending) -> Ending:
        """How a transfer ends whose source has ended so, once nobody needs anything of it any more: all is signed for; or each byte has
        left to who signs nothing, and nobody has come for UNSIGNED_SECONDS. Or that nothing more of it was taken for as long as it is
        kept. While we withhold it ourselves all of that waits."""
        while not self.lost and not (self.signs and self.signed_bytes >= self._log.end):
            left = self.rest.left_seconds
            if left <= 0 and not self._all_left:
                return Ending.UNTAKEN
            seconds = UNSIGNED_SECONDS if self._all_left and left < inf else left
            if not await self.rest.wait(seconds) and self._all_left:
                return ending
        if ending is Ending.ENDED and self.signs and not self.lost:
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_SECONDS):
                    await self._asks.wait()
                await asyncio.sleep(TOLD_SECONDS)
        return Ending.BROKE_OFF if self.lost else ending
