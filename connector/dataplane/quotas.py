"""The ledger: what is used up under an agreement is reserved before it is used and posted afterwards, durably both times.

Whoever uses something up holds a portion of what is left, so that parallel streams, transfers and restarts cannot go over together: used
is what was posted and what is reserved, at every instant. What a crash leaves open is posted if it may have been used, so a quota may
come out short by the portions that were held, and never the other way.

One use (`odrl:count`) is one transfer that was started, however often it is suspended and resumed, and whatever it fetched. A byte or a
record counts each time it leaves: what is fetched again is used again. Money is spent on each byte of a transfer once, as it is billed, and
what a transfer of finite data costs is set aside when it starts (`connector.records.aside`). What was on its way when a transfer ended and
was not signed for goes back once nobody can sign for it any more: all is, or both sides have signed a statement of the transfer.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Numbers
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any, Final, Literal
from weakref import WeakValueDictionary

from connector import telemetry
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind
from connector.dsp.transfer import State as Transfer
from connector.errors import StoreError
from connector.metering.ranges import Ranges
from connector.odrl.counters import Counter, Pricing, Refusal, Tally
from connector.odrl.operands import BYTE_COUNT, COUNT, METERED_TIME, RECORD_COUNT
from connector.ports import Clock, Ids, Store
from connector.records import Changes, Evidence, Expect, Reservation, Usage
from connector.records.aside import Rest, aside_id, balanced, drawn, holds, is_aside, is_taken, reckoned, set_aside
from connector.records.metering import Metered
from connector.remembered import pause_seconds
from connector.values import replace

# What streams use up, and the largest and the least portion of it (microseconds of time). Each portion costs a commit, and a crash may
# lose those that are held.
LARGEST: Final[Mapping[str, int]] = {BYTE_COUNT: 16 << 20, RECORD_COUNT: 10_000, METERED_TIME: 10_000_000}
LEAST: Final[Mapping[str, int]] = {BYTE_COUNT: 64 << 10, RECORD_COUNT: 100, METERED_TIME: 1_000_000}
PART = 100  # the share of what is left that goes into a portion
LAST = 10  # with less than this share of the limit left portions are the least, so that everybody has some of the end

State = Literal["granted", "busy", "spent"]
# Takes a step in the turn of an agreement (its id) and commits what it returns: `Journal.decide`.
Decide = Callable[[Callable[[], Awaitable[Changes | None]], str], Awaitable[Changes | None]]
# Decides anew about a transfer (its pid) that has come to a mark: what counts from now on, or None if it is over.
AtMark = Callable[[str], Coroutine[Any, Any, tuple[Tally, ...] | None]]
RestOf = Callable[[Process], Awaitable[Rest | None]]  # of a transfer that runs; None if nobody can say
RETURN_SECONDS: Final = 30.0  # in which a consumer has stated what a transfer came to, if it is there
# What transfers of an agreement that are over came to by what is signed for, by rule and operand (empty if nobody can say), and whether it
# stays so; of each account in turn.
Owed = Callable[[Sequence[Metered]], Awaitable[Sequence[tuple[Mapping[tuple[str, str], int], bool]]]]
AGREED_SECONDS: Final = 31 * 86_400.0  # for so long after its end a transfer is stated; then what was not signed for stays spent


class Ledger:
    """Writes what agreements use up. `at_mark` is asked once nothing is left up to a mark; `cut(transfer, code)` ends its streams."""

    def __init__(self, store: Store, decide: Decide, clock: Clock, ids: Ids, at_mark: AtMark, cut: Callable[[str, str], None]) -> None:
        self._store, self._decide, self._clock, self._ids = store, decide, clock, ids
        self.cut = cut
        self.rest: RestOf = rest_unknown
        self.owed: Owed = owed_unknown
        self.written: Callable[[str], Awaitable[None]] = nothing_unwritten  # stores what was sent of a transfer, as far as it is not yet
        self.paid: dict[tuple[str, str], Ranges] = {}  # what transfers had paid for before a crash, of each content
        self._at_mark = at_mark
        self._news: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()  # as long as somebody waits
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = asyncio.Event()
        self._over: set[str] = set()  # transfers that have ended, of which streams still held something
        self._returns = Numbers[str]()  # by agreement the transfers that have just ended, and may be about to give money back

    def holder(self, agreement: str, transfer: str) -> Holder:
        """Somebody who is to hold portions for a transfer."""
        return Holder(self, self._ids.new(), agreement, transfer)

    async def at_mark(self, transfer: str) -> tuple[Tally, ...] | None:
        """Have it decided anew about a transfer: see `AtMark`. The decision is written even if nobody waits for it any more."""
        return await asyncio.shield(self.spawn(self._at_mark(transfer)))

    async def exchange(self, held: Holder, tallies: Sequence[Tally], wanted: Mapping[str, int], keep: Mapping[str, int]) -> State:
        """Post what a holder has spent and void the rest, but for what it is to `keep`, and let it hold more, in one write."""
        state: State = "granted"
        amounts: dict[str, int] = {}

        async def step() -> Changes | None:
            nonlocal state, amounts
            usage, now = await self._store.usage(held.agreement) or Usage(held.agreement), self._clock.now()
            after = usage.settle(held.id, held.spent, now) if held.amounts else usage
            counters = {tally: counter for tally in tallies if (counter := _counter(after, tally, held.transfer)) is not None}
            amounts, state = portions(counters, wanted, keep)
            if state == "spent" and self._returns[held.agreement] and any(tally.pricing for tally in counters):
                state = "busy"
            rows = [
                Reservation(held.id, held.transfer, tally.rule, tally.operand, amounts[tally.operand], now)
                for tally in counters
                if amounts.get(tally.operand)
            ]
            return _written(usage, drawn(usage, after.reserve(rows, now) if rows else after, held.transfer))

        await self._decide(step, held.agreement)
        freed, held.amounts, held.spent = held.amounts, amounts, {}
        if freed:
            self.tell(held.agreement)
        return state

    async def settle(self, agreement: str, id: str, spent: Mapping[str, int] | None) -> None:
        """Post what was spent of the reservations of this id, by operand (None: all), and void the rest."""
        transfer: str | None = None

        async def step() -> Changes | None:
            nonlocal transfer
            usage = await self._store.usage(agreement)
            transfer = next((each.transfer for each in usage.open if each.id == id), None) if usage is not None else None
            if usage is None or transfer is None:
                return None
            return _written(usage, drawn(usage, usage.settle(id, spent, self._clock.now()), transfer))

        await self._decide(step, agreement)
        self.tell(agreement)
        if transfer in self._over:
            self.spawn(self.surely(self.balance, agreement, transfer))

    async def surely(self, write: Callable[..., Awaitable[None]], *what: Any) -> None:
        """Write what nobody else would, again while the store does not take it: what stays reserved meanwhile others wait for. What is not
        written by the end of this process the next start settles."""
        failures = 0
        while True:
            try:
                return await write(*what)
            except StoreError as error:
                if self._closing.is_set():
                    raise
                failures += 1
                telemetry.log.error("settlement not written", failures=failures, reason=error.message)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), pause_seconds(failures))

    async def balance(self, agreement: str, transfer: str) -> None:
        """A transfer (our pid) is over: have spent what it was signed for, and give back the rest, as far as that can be said by now; and
        of those before that never signed, as it may have signed for what they brought. What is too old is kept no more."""
        await self._balance(agreement, transfer)
        await self._balance_unsigned(agreement, transfer)
        self.tell(agreement)

    async def _balance_unsigned(self, agreement: str, transfer: str = "") -> None:
        usage = await self._store.usage(agreement)
        takes = [each for each in (usage.open if usage is not None else ()) if is_taken(each) and each.transfer != transfer]
        others = dict.fromkeys(each.transfer for each in takes)
        accounts = [account for other in others if (account := await self._store.metered(other)) is not None and not account.sequence]
        owing = zip(accounts, await self.owed(accounts), strict=True)  # together: there may be many, of many
        over, now = {account.transfer: due for account, (due, stays) in owing if stays}, self._clock.now()

        def goes_back(each: Reservation) -> bool:
            """Not where that has gone back by now, and the rest is billed."""
            due = over[each.transfer].get((each.rule, each.operand), 0) if each.transfer in over else -each.amount
            return each.at + AGREED_SECONDS < now or (each.transfer in over and (not due or due != -each.amount))

        for other in dict.fromkeys(each.transfer for each in takes if goes_back(each)):
            await self._balance(agreement, other)

    async def _balance(self, agreement: str, transfer: str) -> None:
        """What is signed for elsewhere goes back in the write in which it is spent there: between two others could use it. What was sent to
        who signs nothing is stored before, once nobody of the transfer holds anything, and so sends nothing, any more."""
        again = True

        async def step() -> Changes | None:
            nonlocal again
            usage, account = await self._store.usage(agreement), await self._store.metered(transfer)
            if again := held and not holds(usage, transfer):
                return None  # they have ended since we looked, and what they sent may not be stored
            self._over.discard(transfer)
            if usage is None or (after := await self._balanced(usage, transfer, account)) is usage:
                return None
            signing = account is None or account.sequence
            for other in () if signing else sorted({each.transfer for each in after.open if is_taken(each)} - {transfer}):
                if (theirs := await self._store.metered(other)) is not None and theirs.sequence:
                    after = await self._balanced(after, other, theirs)
            return _written(usage, after)

        while again:
            if not (held := holds(await self._store.usage(agreement), transfer)):
                await self.written(transfer)
            await self._decide(step, agreement)

    async def _balanced(self, usage: Usage, transfer: str, account: Metered | None) -> Usage:
        process = await self._store.process(Kind.TRANSFER, transfer)
        if all(each.transfer != transfer for each in usage.open) or (process is not None and not process.final):
            return usage
        now = self._clock.now()
        late = process is None or process.updated + AGREED_SECONDS < now
        ((due, agreed),) = [({}, False)] if account is None or late else await self.owed([account])
        # What is left of who meant to sign may be signed for elsewhere, too; of live data of who did not no more goes back.
        more = account is not None and account.asked and not account.sequence and any(due.values())
        after = balanced(usage, transfer, due, now, agreed=agreed, more=more)
        left = [each for each in after.open if each.transfer == transfer and each.operand != COUNT]
        if any(not is_taken(each) for each in left):
            self._over.add(transfer)
        rest = RETURN_SECONDS - (now - process.updated if process is not None else inf)  # it may have ended long ago, and owe ever since
        if rest > 0 and any(-each.amount > due[each.rule, each.operand] for each in left if is_taken(each)):
            self._returns[usage.agreement] += 1
            asyncio.get_running_loop().call_later(min(rest, RETURN_SECONDS), self._returned, usage.agreement)
        return after

    def _returned(self, agreement: str) -> None:
        """Who needs what a transfer that has ended will give back has waited long enough."""
        self._returns[agreement] -= 1
        self._returns += Numbers()  # forgets those of which there are none
        self.tell(agreement)

    async def _agreed(self, transfer: str) -> None:
        if (account := await self._store.metered(transfer)) is not None:
            await self.balance(account.agreement, transfer)

    def news(self, agreement: str) -> asyncio.Event:
        """An event that the next settlement sets. Ask for it before looking at what is left."""
        if (event := self._news.get(agreement)) is None:
            event = self._news[agreement] = asyncio.Event()
        return event

    def tell(self, agreement: str) -> None:
        """Wake who waits for what is left under an agreement, to look again."""
        if (event := self._news.pop(agreement, None)) is not None:
            event.set()

    def committed(self, changes: Changes, evidence: tuple[Evidence, ...]) -> None:
        """Listens to commits of transfers that count as uses, and settles them (see `fate`), and to those that have set something aside:
        what they have not used is free once they do not run; and to statements, which say what they came to."""
        for record in changes.saves:
            if isinstance(record, Process) and record.detail.get("counted") and (counts := fate(record)) is not None:
                self.spawn(self.surely(self.settle, record.agreement or "", record.pid, None if counts else {}))
            if isinstance(record, Process) and record.final and record.detail.get("charged"):
                self.spawn(self.surely(self.balance, record.agreement or "", record.pid))
            elif isinstance(record, Process) and record.detail.get("aside") and record.meant != Transfer.STARTED:
                self.spawn(self.surely(self.settle, record.agreement or "", aside_id(record.pid), {}))
        for fact in evidence:
            if fact.what == telemetry.STATEMENT_AGREED and fact.kind is Kind.TRANSFER:
                self.spawn(self.surely(self._agreed, fact.pid or ""))

    async def recover(self) -> int:
        """Settle what a crash has left open, before anybody can use more; returns the number of reservations.

        Bytes, records and time that were reserved may have been used to the last one, and nobody can say how many were: all of them are
        posted. A use is settled by the state of its transfer, and what one that runs has set aside stays so; what it had spent by then
        is what its account says, to the byte (`rest`).
        """
        count = 0
        for found in await self._store.open_usage():
            usage = await self._reckon(found)
            for each in dict.fromkeys(replace(each, rule="", amount=0, at=0.0) for each in usage.open):
                id, process = each.id, await self._store.process(Kind.TRANSFER, each.transfer)
                counts = fate(process) if each.operand == COUNT else True
                if is_aside(each):
                    counts = None if process is not None and process.meant == Transfer.STARTED else False
                if is_taken(each):
                    counts = None
                if counts is not None:
                    await self.settle(usage.agreement, id, None if counts else {})
                    count += 1
            for transfer in dict.fromkeys(each.transfer for each in usage.open if is_taken(each)):
                if (account := await self._store.metered(transfer)) is None or account.sequence:
                    await self._balance(usage.agreement, transfer)
            await self._balance_unsigned(usage.agreement)
        if count:
            telemetry.log.info("open reservations settled", reservations=count)
        return count

    async def _reckon(self, usage: Usage) -> Usage:
        """Settle what transfers that run had spent of what they have set aside."""
        for transfer in dict.fromkeys(each.transfer for each in usage.open if is_aside(each)):
            process = await self._store.process(Kind.TRANSFER, transfer)
            if process is None or process.meant != Transfer.STARTED or (rest := await self.rest(process)) is None:
                continue
            after = reckoned(usage, transfer, rest.amounts, self._clock.now())
            if (changes := _written(usage, after)) is not None:
                await self._decide(partial(_at_once, changes), usage.agreement)
                usage, self.paid[transfer, rest.etag] = after, rest.paid
        return usage

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do something to its end, whoever waits for it."""
        task = asyncio.create_task(work, name="ledger")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            telemetry.log.error("ledger failed", exc_info=error)

    async def close(self) -> None:
        """Come to the end of all settlements: nobody uses anything up any more."""
        self._closing.set()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)


class Holder:
    """Holds portions for a transfer: `amounts` by operand, and what is `spent` of them. An operand without an amount is not counted (any
    more), once the state is "granted"."""

    def __init__(self, ledger: Ledger, id: str, agreement: str, transfer: str) -> None:
        self.id, self.agreement, self.transfer = id, agreement, transfer
        self.amounts: dict[str, int] = {}
        self.spent: dict[str, int] = {}
        self._ledger = ledger
        self._work: asyncio.Task[State] | None = None

    def left(self, operand: str) -> int:
        """What is held and not spent yet."""
        return self.amounts.get(operand, 0) - self.spent.get(operand, 0)

    def spend(self, operand: str, amount: int) -> None:
        """Spend some of what is held."""
        self.spent[operand] = self.spent.get(operand, 0) + amount

    async def exchange(self, tallies: Sequence[Tally], wanted: Mapping[str, int], keep: Mapping[str, int] | None = None) -> State:
        """Post what was spent and hold the next portions, at most `wanted` by operand. Returns "granted"; "busy" if others hold what is
        left, which they may not need; "spent" if there is nothing up to a mark. What is kept stays held in any case."""
        self._work = self._ledger.spawn(self._ledger.exchange(self, tallies, wanted, keep or {}))
        return await asyncio.shield(self._work)

    async def settled(self) -> None:
        """Wait for an exchange that still goes on: whoever asked for it was cancelled, perhaps, and what it gets is held all the same."""
        if self._work is not None:
            await asyncio.wait({self._work})

    async def close(self) -> None:
        """Post what was spent and give back the rest."""
        await self.settled()
        if self.amounts:
            await self._ledger.surely(self._ledger.settle, self.agreement, self.id, self.spent)
        self.amounts, self.spent = {}, {}


async def rest_unknown(_process: Process) -> None:
    """What a transfer has still to bring is not known."""


async def owed_unknown(accounts: Sequence[Metered]) -> Sequence[tuple[Mapping[tuple[str, str], int], bool]]:
    """What transfers have come to is not known: what they have taken stays spent."""
    return [({}, False)] * len(accounts)


async def nothing_unwritten(_transfer: str) -> None:
    """All that was sent is stored."""


async def _at_once(changes: Changes) -> Changes:
    return changes


def portion(operand: str, limit: int, left: int, pricing: Pricing | None = None) -> int:
    """How much of `left` one holder gets; of money what the portions come to that it pays for."""
    least, largest = (LEAST[operand], LARGEST[operand]) if pricing is None else (_cost(pricing, LEAST), _cost(pricing, LARGEST))
    return min(left, least if left * LAST <= limit else max(least, min(left // PART, largest)))


def _cost(pricing: Pricing, amounts: Mapping[str, int]) -> int:
    return sum(rate * amounts.get(operand, 1) for operand, rate in pricing.rates)  # of calls there is one at a time


def portions(counters: Mapping[Tally, Counter], wanted: Mapping[str, int], keep: Mapping[str, int]) -> tuple[dict[str, int], State]:
    """The next amounts by operand, and what they come to. If one operand has nothing more, none is given more than what it keeps."""
    amounts: dict[str, int] = {}
    state: State = "granted"
    for tally, counter in counters.items():
        operand, kept, left = tally.operand, keep.get(tally.operand, 0), int(counter.left)
        amount = min(kept + portion(operand, int(counter.limit), left - kept, tally.pricing), wanted.get(operand, left))
        if amount < kept + tally.least or isinstance(counter.reserve(amount), Refusal):
            state = "busy" if counter.reserved or state == "busy" else "spent"
        amounts[operand] = min(amount, amounts.get(operand, amount))
    return (amounts, state) if state == "granted" else ({operand: amount for operand, amount in keep.items() if amount}, state)


def fate(process: Process | None) -> bool | None:
    """Whether a transfer counts as a use: it does once we have said that it starts, since its token may be out then, and it does not if it
    has ended before. None as long as that is open. Of one that is not stored any more nobody can say that it did not."""
    if process is None or process.detail.get("generation"):
        return True
    return False if process.final else None


def _counter(usage: Usage, tally: Tally, transfer: str) -> Counter | None:
    """The counter up to the next mark, None if there is none: nothing depends on what is used from there on. What the transfer itself has
    set aside is there for it."""
    spent = usage.spent(tally.rule, tally.operand)
    mark = next((mark for mark in tally.marks if mark >= spent), None)
    reserved = usage.reserved(tally.rule, tally.operand) - set_aside(usage, tally.rule, tally.operand, transfer)
    return None if mark is None else Counter(mark, spent, reserved)


def _written(before: Usage, after: Usage) -> Changes | None:
    if after is before:
        return None
    return Changes(expects=(Expect(Usage, before.agreement, before.version or None),), saves=(after,))
