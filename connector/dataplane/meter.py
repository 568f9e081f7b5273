"""The meter of a stream: how much of it may leave now, by what the agreement still lets be used up.

Bytes count as they are handed to the kernel or to the transport's buffer: what was cut off before that is given back. A record is a line,
or an event that a server sends; it counts when it begins to leave, and so does what a range has of one that it begins in
(`metering.begun`). Metered time is the time in which at least one stream of the agreement runs. A call is a transfer: its first stream that
brings something pays for it, the others do not.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self
from weakref import WeakValueDictionary

from connector.dataplane.coverage import RANGES_MAX
from connector.dataplane.flows import TRANSFERS_MAX
from connector.dataplane.gate import Permit
from connector.dataplane.quotas import Holder, Ledger
from connector.dataplane_accounts.timed import Timed
from connector.errors import Busy, Withdrawn
from connector.metering.begun import begun
from connector.metering.ranges import Ranges, union, without
from connector.metering_bills.prices import CALL_COUNT
from connector.odrl.codes import Code
from connector.odrl.counters import Pricing, Tally
from connector.odrl.operands import BYTE_COUNT, METERED_TIME, RECORD_COUNT
from connector.ports.live import unit_of

METERED_PIECE_BYTES: Final = 256 * 1024  # at most in one step of a file: of a step that is cut nobody knows how much the kernel took
USED_UP = "what the agreement allows is used up"
HELD_SECONDS = 20.0  # that a stream waits for what others hold: its reader, who may be gone, waits for 30, and comes back
HELD = "what is left of what the agreement allows is held by other streams of it at the moment; come back"


class Meters:
    """Makes meters, and keeps the watches of agreements whose time is metered."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._watches: dict[tuple[str, str], Timed] = {}
        self._called: dict[str, None] = {}  # transfers whose call is paid, the oldest first
        self._paid = dict(ledger.paid)  # bytes that transfers have paid for, of each content; the oldest first
        self._calling: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def meter(self, permit: Permit, size_bytes: int, media_type: str, calls: int = 0, at: tuple[str, int] | None = None) -> Meter:
        """A context manager around a stream of that size, of a transfer that has come to `calls` before. `at` is the entity tag of the data
        and the offset of its first byte: what the transfer has paid for before costs nothing again, as no bill has it twice; None where
        nobody can say. Raises Withdrawn where it begins if nothing may leave at all."""
        if calls:
            self.called(permit.transfer)
        return Meter(self._ledger, self, permit, size_bytes, media_type, at)

    def paid(self, transfer: str, etag: str) -> Ranges:
        """The bytes that a transfer has paid for, as far as they are remembered: in the life of this process, and what its account said
        of the one before, if that was running and had set aside what it needs."""
        return self._paid.get((transfer, etag), ())

    def pay(self, transfer: str, etag: str, first: int, count: int) -> None:
        """These bytes are paid for. What is forgotten costs again: the smallest pieces of who reads in very many, the oldest transfers."""
        ranges = union(self._paid.pop((transfer, etag), ()), ((first, first + count),))
        if len(ranges) > RANGES_MAX:
            smallest = min(ranges, key=lambda each: each[1] - each[0])
            ranges = tuple(each for each in ranges if each != smallest)
        self._paid[transfer, etag] = ranges
        if len(self._paid) > TRANSFERS_MAX:
            del self._paid[next(iter(self._paid))]

    def calling(self, transfer: str) -> asyncio.Lock:
        """Held by the stream that is about to pay for the call of its transfer: those that begin meanwhile wait until it has."""
        return self._calling.setdefault(transfer, asyncio.Lock())

    def called(self, transfer: str) -> None:
        """The call of a transfer is paid. The oldest of many are forgotten: their accounts say it again at their next stream."""
        self._called[transfer] = None
        if len(self._called) > TRANSFERS_MAX:
            del self._called[next(iter(self._called))]

    def due(self, transfer: str, tallies: tuple[Tally, ...]) -> tuple[Tally, ...]:
        """What still counts of a transfer: once its call is paid, calls cost nothing more."""
        return tuple(each for tally in tallies if (each := _called(tally)) is not None) if transfer in self._called else tallies

    def watch(self, agreement: str, tally: Tally) -> Timed:
        """The watch of an agreement's metered time under a rule."""
        key = (agreement, tally.rule)
        known = self._watches.get(key)
        if known is None or known.over:
            known = self._watches[key] = Timed(self._ledger, agreement, tally)
        return known

    def forget(self, watch: Timed) -> None:
        """Forget a watch that has come to its end."""
        key = (watch.agreement, watch.tally.rule)
        if self._watches.get(key) is watch:
            del self._watches[key]


class Meter:
    """See `Meters.meter`."""

    def __init__(
        self, ledger: Ledger, meters: Meters, permit: Permit, size_bytes: int, media_type: str, at: tuple[str, int] | None
    ) -> None:
        self._ledger, self._meters, self._at = ledger, meters, at
        self._agreement, self._transfer = permit.agreement, permit.transfer
        self._tallies = permit.tallies
        self._rest, self._media_type = size_bytes, media_type
        self._held: Holder | None = None
        self._records = begun(unit_of(media_type))
        self.waits = self.asks = False  # for more, as what was allowed has left; and whether there is to be any
        self.before_end: Callable[[float | None], Awaitable[None]] | None = None  # as of an instant: waits for what would be lost
        self._watches: list[Timed] = []

    @property
    def reads(self) -> bool:
        """Whether it has to see the bytes: records are counted."""
        return any(tally.operand == RECORD_COUNT or (tally.pricing and tally.pricing.rate(RECORD_COUNT)) for tally in self._tallies)

    @property
    def pays(self) -> bool:
        """Whether what leaves is paid for out of a budget."""
        return any(tally.pricing for tally in self._tallies)

    async def __aenter__(self) -> Self:
        if self.reads and self._records is None:
            raise Withdrawn(f"the records of `{self._media_type}` are not counted here", Code.OPERAND_UNSUPPORTED)
        ends, calling = _waits_until(), self._meters.calling(self._transfer)
        try:
            await _in_time(calling.acquire(), ends)  # whose holder may be waiting as well
            try:
                self._tallies = self._meters.due(self._transfer, self._tallies)
                if self._rest and not self._new(self._rest):  # all of it is paid for
                    self._tallies = tuple(tally for tally in self._tallies if tally.pricing is None)
                await self._exchange(self._rest, ends)
                if self._rest:
                    self._pay(lambda pricing: pricing.rate(CALL_COUNT))
                    self._meters.called(self._transfer)
                    self._tallies = self._meters.due(self._transfer, self._tallies)
            finally:
                calling.release()
            await self._run_watches(ends)
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._close()

    def seek(self, offset: int) -> None:
        """The next byte is this one of the data. Who reads has not taken all that left, or has had some before."""
        if self._at is not None:
            self._at = self._at[0], offset

    async def allow(self, count: int, piece: bytes | None = None) -> int:
        """How many of the next `count` bytes, one at least, may leave now; they count as having left. `piece` holds them where records
        are counted. Waits while others hold what is left. Raises Withdrawn once nothing is left."""
        if any(watch.over for watch in self._watches):
            await self._time_up()
        while not (fitting := self._fitting(count, piece)):
            self.waits = True
            await self._exchange(self._rest, _waits_until())
        self.waits = False
        held = self._held
        if held is not None:
            if BYTE_COUNT in held.amounts:
                held.spend(BYTE_COUNT, fitting)
            if RECORD_COUNT in held.amounts and piece is not None:
                held.spend(RECORD_COUNT, self._begun(piece, fitting))
            self._pay(lambda pricing: self._cost(pricing, fitting, piece))
        if self._at is not None:
            if any(tally.pricing for tally in self._tallies):
                self._meters.pay(self._transfer, *self._at, fitting)
            self._at = self._at[0], self._at[1] + fitting
        if piece is not None and self._records is not None:
            self._records.take(piece[:fitting])
        self._rest -= fitting
        return fitting

    def _fitting(self, count: int, piece: bytes | None) -> int:
        held = self._held
        if held is None:
            return count
        if BYTE_COUNT in held.amounts:
            count = min(count, held.left(BYTE_COUNT))
        if RECORD_COUNT in held.amounts and piece is not None and count:
            count = self._records.up_to(piece, count, held.left(RECORD_COUNT)) if self._records is not None else count
        for tally in self._tallies:
            if count and tally.pricing is not None and tally.operand in held.amounts:
                count = self._affordable(tally.pricing, held.left(tally.operand), count, piece)
        return count

    def _affordable(self, pricing: Pricing, left: int, count: int, piece: bytes | None) -> int:
        """The most of the first `count` bytes that cost no more than what is left."""
        if self._cost(pricing, count, piece) <= left:
            return count
        return bisect_right(range(1, count), left, key=lambda most: self._cost(pricing, most, piece))

    def _cost(self, pricing: Pricing, count: int, piece: bytes | None) -> int:
        """What the first `count` bytes of a piece cost, one at least."""
        record, new = pricing.rate(RECORD_COUNT), self._new(count)
        if not record or piece is None or not new:
            return pricing.rate(BYTE_COUNT) * new
        paid = count - new if new < count and not self._new(count - new) else 0  # what was cut is sent again from its beginning
        records = self._begun(piece, count) - (self._begun(piece, paid) if paid else 0)
        return pricing.rate(BYTE_COUNT) * new + record * records

    def _new(self, count: int) -> int:
        """How many of the next `count` bytes the transfer has not paid for."""
        if self._at is None or not (paid := self._meters.paid(self._transfer, self._at[0])):
            return count
        return sum(last - first for first, last in without(((self._at[1], self._at[1] + count),), paid))

    def _pay(self, cost: Callable[[Pricing], int]) -> None:
        """Spend money on what leaves."""
        if self._held is not None:
            for operand, pricing in {tally.operand: tally.pricing for tally in self._tallies}.items():
                if pricing is not None and operand in self._held.amounts:
                    self._held.spend(operand, cost(pricing))

    def _begun(self, piece: bytes, count: int) -> int:
        """How many records begin in the first `count` bytes of a piece."""
        return 0 if self._records is None else self._records.count(piece, count)

    async def _exchange(self, wanted_bytes: int, ends: float) -> None:
        """Hold the next portions. Raises Busy where others do up to an instant of the loop."""
        while True:
            counted = [tally for tally in self._tallies if tally.operand != METERED_TIME]
            if not counted:
                self._held = None
                return
            if self._held is None:
                self._held = self._ledger.holder(self._agreement, self._transfer)
            news = self._ledger.news(self._agreement)
            wanted = {BYTE_COUNT: wanted_bytes} | {
                tally.operand: most(tally.pricing, self._new(wanted_bytes)) for tally in counted if tally.pricing
            }
            state = await self._held.exchange(counted, wanted)
            if state == "granted":
                if not self._held.amounts:
                    self._held = None  # nothing depends on it any more
                return
            if state == "busy":
                await _in_time(news.wait(), ends)
            else:
                await self._ask()

    async def _ask(self, ended: float | None = None) -> None:
        """Have it decided anew: the last decision held up to here. Raises Withdrawn if the transfer is over."""
        if self.before_end is not None:
            await self.before_end(ended)
        self.asks = True  # and stays so if the answer is the end of the transfer, which cuts its streams
        tallies = await self._ledger.at_mark(self._transfer)
        if tallies is None:
            raise Withdrawn(USED_UP, Code.QUOTA_EXHAUSTED)
        self._tallies, self.asks = self._meters.due(self._transfer, tallies), False

    async def _run_watches(self, ends: float) -> None:
        """Let the time run under each rule that meters it. Raises Busy as `_exchange` does."""
        while True:
            watches = [self._meters.watch(self._agreement, tally) for tally in self._tallies if tally.operand == METERED_TIME]
            granted = True
            for watch in watches:
                self._watches.append(watch)
                granted = granted and await _in_time(watch.join(self, self._transfer), ends)
            if granted:
                return
            self._leave()
            await self._ask()

    async def _time_up(self) -> None:
        """The time in which this ran is over: what comes leaves only where it is permitted by something else. Raises Withdrawn."""
        self.waits = True
        await self._ask(min((watch.ended for watch in self._watches if watch.ended is not None), default=None))
        self._leave()
        await self._run_watches(_waits_until())

    def _leave(self) -> None:
        watches, self._watches = self._watches, []
        for watch in watches:
            watch.leave(self)
            if watch.over:
                self._meters.forget(watch)

    def _close(self) -> None:
        """Settle what is held, beside the stream: nobody has to wait for it."""
        self._leave()
        held, self._held = self._held, None
        if held is not None:
            self._ledger.spawn(held.close())


def _waits_until() -> float:
    """Up to when a stream that begins to wait now does for what others hold, by the loop."""
    return asyncio.get_running_loop().time() + HELD_SECONDS


async def _in_time(waiting: Coroutine[Any, Any, bool], ends: float) -> bool:
    """What is waited for until an instant of the loop. Raises Busy then."""
    try:
        async with asyncio.timeout_at(ends):
            return await waiting
    except TimeoutError:
        raise Busy(HELD) from None


def _called(tally: Tally) -> Tally | None:
    """What a tally counts of a transfer whose call is paid; None if that is nothing."""
    if tally.pricing is None:
        return tally
    rates = tuple((operand, rate) for operand, rate in tally.pricing.rates if operand != CALL_COUNT)
    return tally._replace(pricing=tally.pricing._replace(rates=rates)) if rates else None


def most(pricing: Pricing, count: int) -> int:
    """The most that so many bytes can cost: each of them may begin a record."""
    return pricing.rate(CALL_COUNT) + max(count, 1) * (pricing.rate(BYTE_COUNT) + pricing.rate(RECORD_COUNT))
