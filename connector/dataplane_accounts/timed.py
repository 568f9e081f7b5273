"""The metered time of an agreement under one rule: it runs while at least one stream of the agreement does, and ends what runs.

A stream of data with an end is cut when the time is over, and comes back for the rest where something else permits it. One of live data
hands out nothing more from then on, and is ended only once its consumer, if it signs, has signed for what has left (`before_end`): nobody
could prove that afterwards. The time itself is over, and posted, before anybody is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, Protocol

from connector.dataplane.quotas import Holder, Ledger
from connector.odrl.codes import Code
from connector.odrl.counters import Tally
from connector.odrl.operands import METERED_TIME

MICROSECONDS: Final = 1_000_000


class Stream(Protocol):
    """What runs: see `connector.dataplane.meter.Meter`, which asks whether the time is `over` before each piece."""

    before_end: Callable[[float | None], Awaitable[None]] | None


class Timed:
    """Runs while at least one stream of an agreement does. It holds a portion of time, renews it at half of it, and where nothing more is
    to be had cuts all that run on it at the instant at which the last portion ends."""

    def __init__(self, ledger: Ledger, agreement: str, tally: Tally) -> None:
        self.agreement, self.tally = agreement, tally
        self.over = False
        self.ended: float | None = None  # when the time was over, by the clock that nobody sets
        self._ledger = ledger
        self._running: dict[Stream, str] = {}
        self._waits: dict[Stream, asyncio.Task[None]] = {}  # before what runs is ended
        self._held: Holder | None = None
        self._since = 0.0
        self._begun: asyncio.Task[bool] | None = None
        self._renewal: asyncio.Task[None] | None = None

    async def join(self, stream: Stream, transfer: str) -> bool:
        """Run for a stream. False if there is no time left."""
        self._running[stream] = transfer
        if self._begun is None:
            self._begun = self._ledger.spawn(self._begin(transfer))
        return await asyncio.shield(self._begun)

    def leave(self, stream: Stream) -> None:
        """Run no longer for a stream; the last one stops it for good."""
        self._running.pop(stream, None)
        if (waits := self._waits.pop(stream, None)) is not None:
            waits.cancel()
        if not self._running and not self.over:
            self.over = True
            self._ledger.tell(self.agreement)  # what has not begun waits for others, and for nobody any more
            self._ledger.spawn(self._end())

    async def _begin(self, transfer: str) -> bool:
        self._held = held = self._ledger.holder(self.agreement, transfer)
        while True:
            news = self._ledger.news(self.agreement)
            state = await held.exchange([self.tally], {})
            if state != "busy" or not self._running:
                break
            await news.wait()
        self._since = _now()
        if held.amounts and self._running:
            self._renewal = self._ledger.spawn(self._renew(held))
        return state == "granted"

    async def _renew(self, held: Holder) -> None:
        """Renew the portion at half of it until there is nothing more, then cut what runs when that ends."""
        more, ends = True, self._since
        try:
            while more and held.amounts:
                await asyncio.sleep(self._seconds_left(held) / 2)
                ends = self._since + held.left(METERED_TIME) / MICROSECONDS
                self._spend(held)
                more = await held.exchange([self.tally], {}, {METERED_TIME: held.left(METERED_TIME)}) == "granted"
            await asyncio.sleep(self._seconds_left(held))
        except Exception:
            self._cut(self._running.values())  # what cannot be written must not go on
            raise
        if not more:  # whoever was kept from renewing in time may hold nothing by now
            self.over, self.ended = True, ends
            self._ledger.spawn(self._used_up(held, dict(self._running)))

    def _cut(self, transfers: Iterable[str]) -> None:
        for transfer in set(transfers):
            self._ledger.cut(transfer, Code.QUOTA_EXHAUSTED)

    async def _used_up(self, held: Holder, running: Mapping[Stream, str]) -> None:
        """Have it decided anew about all that ran when the time was over. Nobody is waited for whose stream has ended meanwhile."""
        live = {transfer for stream, transfer in running.items() if stream.before_end is not None}
        self._cut(set(running.values()) - live)
        self._spend(held)
        await held.close()
        waiting = ((each, each.before_end) for each in self._running if each.before_end is not None)
        self._waits = {each: asyncio.create_task(_wait(before_end, self.ended)) for each, before_end in waiting}
        waits = {self._running[stream]: wait for stream, wait in self._waits.items()}
        await asyncio.gather(*(self._decided(transfer, waits.get(transfer)) for transfer in dict.fromkeys(running.values())))

    async def _decided(self, transfer: str, waits: asyncio.Task[None] | None) -> None:
        if waits is not None:
            await asyncio.wait({waits})
        await self._ledger.at_mark(transfer)

    def _seconds_left(self, held: Holder) -> float:
        return max(0.0, self._since + held.left(METERED_TIME) / MICROSECONDS - _now())

    def _spend(self, held: Holder) -> None:
        """Count the time that has gone by since the last time, as far as it is held."""
        now = _now()
        held.spend(METERED_TIME, min(int((now - self._since) * MICROSECONDS) + 1, held.left(METERED_TIME)))
        self._since = now

    async def _end(self) -> None:
        """Post the time that has gone by and give back the rest."""
        if self._begun is not None:
            await asyncio.wait({self._begun})
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait({self._renewal})
        if (held := self._held) is not None:
            await held.settled()
            self._spend(held)
            await held.close()


async def _wait(before_end: Callable[[float | None], Awaitable[None]], ended: float | None) -> None:
    await before_end(ended)


def _now() -> float:
    """Seconds of a clock that nobody sets."""
    return asyncio.get_running_loop().time()
