"""The ledger: whatever is reserved, spent, given back, broken off or recovered from, used is posted and reserved, and never over."""

import asyncio
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from connector import telemetry
from connector.adapters.clock import SystemClock
from connector.adapters.memory import MemoryStore
from connector.adapters.sqlite import SqliteStore
from connector.control.journal import Journal
from connector.dataplane import quotas
from connector.dataplane.meter import Meters
from connector.dataplane.quotas import AGREED_SECONDS, LARGEST, LAST, LEAST, PART, Holder, Ledger, fate, portion, portions
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.errors import StoreError
from connector.odrl.counters import Counter, Pricing, Tally
from connector.odrl.operands import BYTE_COUNT, COUNT, METERED_TIME, RECORD_COUNT
from connector.records import Changes, Evidence, Reservation, Usage
from connector.records.aside import Rest, aside_id, taking
from connector.records.metering import Counts, Metered
from connector.values import replace
from tests.dataplane.rig import CONSUMER, PROVIDER, Counted
from tests.metering import rig

RULE, OTHER = "/permission/0", "/permission/1"
AGREEMENT = "urn:agreement"
BYTES, RECORDS = Tally(RULE, BYTE_COUNT, (1_000_000,)), Tally(RULE, RECORD_COUNT, (2_000,))
TIGHTER = Tally(OTHER, BYTE_COUNT, (300_000, 400_000))


async def over(_transfer: str) -> None:
    return None


class Desk:
    """A ledger on a store, and the listeners of a journal."""

    def __init__(self, store: Any, ids: Counted) -> None:
        self.journal = Journal(store, SystemClock())
        self.ledger = Ledger(store, self.journal.decide, SystemClock(), ids, over, lambda _transfer, _code: None)
        self.journal.listen(self.ledger.committed)


class LedgerMachine(RuleBasedStateMachine):
    """Holders that come and go, and crashes between them. `used` is what really was used, by tally."""

    def opened(self) -> Any:
        raise AssertionError("each store has a machine of its own")

    @initialize(tallies=st.sampled_from([(BYTES,), (BYTES, RECORDS), (BYTES, TIGHTER, RECORDS)]))
    def begin(self, tallies: tuple[Tally, ...]) -> None:
        self.runner, self.ids = asyncio.Runner(), Counted()
        self.tallies, self.used = tallies, dict.fromkeys(tallies, 0)
        self.holders: list[Holder] = []
        self.store = self.runner.run(self._open())
        self.desk = Desk(self.store, self.ids)

    async def _open(self) -> Any:
        return self.opened()

    @rule()
    def come(self) -> None:
        self.holders.append(self.desk.ledger.holder(AGREEMENT, f"t{len(self.holders)}"))

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), count=st.integers(1, 5), wanted=st.sampled_from([{}, {BYTE_COUNT: 1}, {BYTE_COUNT: 100_000}]))
    def exchange(self, data: st.DataObject, count: int, wanted: Mapping[str, int]) -> None:
        """Several at once."""
        chosen = data.draw(st.lists(st.sampled_from(self.holders), min_size=1, max_size=count, unique=True))

        async def together() -> list[str]:
            return await asyncio.gather(*(holder.exchange(self.tallies, wanted) for holder in chosen))

        for holder, state in zip(chosen, self.runner.run(together()), strict=True):
            assert (state == "granted") == bool(holder.amounts)

    @precondition(lambda self: any(holder.amounts for holder in self.holders))
    @rule(data=st.data())
    def spend(self, data: st.DataObject) -> None:
        holder = data.draw(st.sampled_from([holder for holder in self.holders if holder.amounts]))
        for operand in holder.amounts:
            amount = data.draw(st.integers(0, holder.left(operand)))
            holder.spend(operand, amount)
            for tally in self.tallies:
                if tally.operand == operand:
                    self.used[tally] += amount

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        holder = data.draw(st.sampled_from(self.holders))
        self.holders.remove(holder)
        self.runner.run(holder.close())

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def break_off(self, data: st.DataObject) -> None:
        """Whoever waits for an exchange is cancelled, and leaves."""
        # All is drawn before anything is done: a draw may end the example, and half a rule would leave a holder that nobody closes.
        holder, turns = data.draw(st.sampled_from(self.holders)), data.draw(st.integers(0, 4))
        self.holders.remove(holder)

        async def cancelled() -> None:
            waiting = asyncio.create_task(holder.exchange(self.tallies, {}))
            for _ in range(turns):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
            await holder.close()

        self.runner.run(cancelled())

    @rule()
    def crash(self) -> None:
        """All that was held is forgotten, and a new process looks at what stands in the store."""
        lost = {tally: sum(holder.left(tally.operand) for holder in self.holders) for tally in self.tallies}
        before = self._stands()
        self.holders = []
        self.store = self.runner.run(self._again())
        self.desk = Desk(self.store, self.ids)
        self.runner.run(self.desk.ledger.recover())
        usage = self._stands()
        assert usage.open == (), "all is settled"
        for tally in self.tallies:
            total = before.spent(tally.rule, tally.operand) + before.reserved(tally.rule, tally.operand)
            assert usage.spent(tally.rule, tally.operand) == total, "what was reserved may have been used, so it counts"
            self.used[tally] += lost[tally]
            assert self.used[tally] == total

    async def _again(self) -> Any:
        return self.store

    def _stands(self) -> Usage:
        return self.runner.run(self._read())

    async def _read(self) -> Usage:
        return await self.store.usage(AGREEMENT) or Usage(AGREEMENT)

    @invariant()
    def used_is_posted_and_reserved_and_never_over(self) -> None:
        usage = self._stands()
        for tally in self.tallies:
            posted, reserved = usage.spent(tally.rule, tally.operand), usage.reserved(tally.rule, tally.operand)
            assert posted + reserved <= tally.marks[0]
            held = {holder.id: holder.amounts.get(tally.operand, 0) for holder in self.holders}
            assert reserved == sum(held.values())
            assert self.used[tally] <= posted + reserved, "what was used is covered at every instant"

    def teardown(self) -> None:
        async def settled() -> None:
            await asyncio.gather(*(holder.close() for holder in self.holders))
            await self.desk.ledger.close()

        if not hasattr(self, "runner"):
            return
        with self.runner:
            self.runner.run(settled())
            usage = self._stands()
            assert usage.open == ()
            for tally in self.tallies:
                assert usage.spent(tally.rule, tally.operand) == self.used[tally], "with what crashes may have lost, to the unit"
            self.runner.run(self.store.close())


class InMemory(LedgerMachine):
    def opened(self) -> Any:
        return MemoryStore()


class OnDisk(LedgerMachine):
    def opened(self) -> Any:
        self.root = Path(tempfile.mkdtemp())
        return SqliteStore(self.root / "q.db", PROVIDER)

    async def _again(self) -> Any:
        await self.store.close()
        return SqliteStore(self.root / "q.db", PROVIDER)

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "root"):
            shutil.rmtree(self.root)


TestInMemory = InMemory.TestCase
TestInMemory.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestOnDisk = OnDisk.TestCase
TestOnDisk.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)


@pytest.mark.asyncio
async def test_fifty_at_once_who_each_take_what_they_get_get_all_of_it_and_no_more():
    store = MemoryStore()
    ledger, total = Desk(store, Counted()).ledger, 0

    async def take(number: int) -> None:
        nonlocal total
        holder = ledger.holder(AGREEMENT, f"t{number}")
        while True:
            news = ledger.news(AGREEMENT)
            match await holder.exchange([BYTES], {}):
                case "granted":
                    total += holder.left(BYTE_COUNT)
                    holder.spend(BYTE_COUNT, holder.left(BYTE_COUNT))
                case "busy":
                    await news.wait()
                case "spent":
                    return

    await asyncio.gather(*(take(number) for number in range(50)))
    assert total == BYTES.marks[0]
    assert await store.usage(AGREEMENT) == replace(await store.usage(AGREEMENT), posted=((RULE, BYTE_COUNT, total),), open=())


@pytest.mark.asyncio
async def test_who_is_cancelled_while_a_portion_is_being_written_gives_it_back():
    store = MemoryStore()
    ledger = Desk(store, Counted()).ledger
    holder = ledger.holder(AGREEMENT, "t")
    waiting = asyncio.create_task(holder.exchange([BYTES], {}))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    await holder.close()
    usage = await store.usage(AGREEMENT)
    assert (usage.open, usage.posted) == ((), ())
    assert usage.version >= 2, "it was written, and voided"


@pytest.mark.asyncio
async def test_what_is_kept_stays_held_when_there_is_nothing_more():
    store = MemoryStore()
    ledger, time = Desk(store, Counted()).ledger, Tally(RULE, METERED_TIME, (1_500_000,))
    one, other = ledger.holder(AGREEMENT, "t"), ledger.holder(AGREEMENT, "u")
    assert await one.exchange([time], {}) == "granted"
    assert await other.exchange([time], {}) == "granted"
    assert await other.exchange([time], {METERED_TIME: 500_000}, {METERED_TIME: 500_000}) == "busy"
    assert (one.amounts, other.amounts) == ({METERED_TIME: 1_000_000}, {METERED_TIME: 500_000})
    one.spend(METERED_TIME, 1_000_000)
    await one.close()
    assert await other.exchange([time], {}, {METERED_TIME: 500_000}) == "spent"
    assert (await store.usage(AGREEMENT)).reserved(RULE, METERED_TIME) == 500_000


@given(st.sampled_from(sorted(LEAST)), st.integers(0, 1 << 50), st.integers(0, 1 << 50))
def test_a_portion_is_a_hundredth_of_what_is_left_within_bounds_and_small_at_the_end(operand: str, limit: int, used: int):
    left = max(0, limit - used)
    amount = portion(operand, limit, left)
    assert amount <= left
    assert (amount > 0) == (left > 0), "what is left can be had"
    assert amount <= max(LEAST[operand], left // PART)
    assert amount <= LARGEST[operand]
    if left * LAST <= limit:
        assert amount == min(left, LEAST[operand])


def test_where_one_of_several_counters_has_nothing_left_nobody_holds_anything():
    counters = {BYTES: Counter(1_000_000, 10), RECORDS: Counter(2_000, 2_000)}
    assert portions(counters, {}, {}) == ({}, "spent")
    assert portions(counters | {RECORDS: Counter(2_000, 1_999, 1)}, {}, {}) == ({}, "busy")
    assert portions({BYTES: Counter(1_000_000), TIGHTER: Counter(10)}, {}, {}) == ({BYTE_COUNT: 10}, "granted")


def transfer(state: str, **detail: Any) -> Process:
    return Process(Kind.TRANSFER, "t", Role.PROVIDER, CONSUMER, "https://x.example", state, agreement=AGREEMENT, detail=detail)


STATES: list[tuple[Process | None, bool | None]] = [
    (transfer("REQUESTED", counted=[RULE]), None),
    (transfer("REQUESTED", counted=[RULE], generation=1), True),
    (transfer("STARTED", counted=[RULE], generation=1), True),
    (transfer("TERMINATED", counted=[RULE], generation=1), True),
    (transfer("TERMINATED", counted=[RULE]), False),
    (None, True),
]


@pytest.mark.parametrize(("process", "counts"), STATES)
def test_a_transfer_is_a_use_from_the_word_that_starts_it(process: Process | None, counts: bool | None):
    assert fate(process) is counts


@pytest.mark.parametrize(("process", "counts"), STATES)
@pytest.mark.asyncio
async def test_a_use_that_a_crash_has_left_open_is_settled_by_the_state_of_its_transfer(process: Process | None, counts: bool | None):
    store = MemoryStore()
    one = Usage(AGREEMENT).reserve([Reservation("t", "t", RULE, COUNT, 1, 1.0)], 1.0)
    await store.commit(Changes(saves=(one, *((process,) if process else ()))))
    assert await Desk(store, Counted()).ledger.recover() == (counts is not None)
    usage = await store.usage(AGREEMENT)
    assert len(usage.open) == (counts is None)
    assert usage.spent(RULE, COUNT) == (counts is True)


@pytest.mark.asyncio
async def test_a_use_is_posted_once_its_transfer_starts_and_voided_if_it_ends_before():
    store = MemoryStore()
    desk = Desk(store, Counted())
    for state, generation, spent, open_ in (("REQUESTED", 0, 0, 1), ("STARTED", 1, 1, 0), ("TERMINATED", 1, 1, 0)):
        saves: tuple[Any, ...] = (transfer(state, counted=[RULE], generation=generation),)
        if state == "REQUESTED":
            saves = (*saves, Usage(AGREEMENT).reserve([Reservation("t", "t", RULE, COUNT, 1, 1.0)], 1.0))
        await desk.journal.commit(Changes(saves=saves))
        await desk.ledger.close()
        usage = await store.usage(AGREEMENT)
        assert (usage.spent(RULE, COUNT), len(usage.open)) == (spent, open_)


@pytest.mark.asyncio
@pytest.mark.parametrize(("state", "left"), [("STARTED", 900), ("SUSPENDED", 0), ("TERMINATED", 0)])
async def test_after_a_crash_what_a_transfer_has_set_aside_stays_with_one_that_runs(state: str, left: int):
    """Of what its stream held nobody knows how much was used, so all of it counts, and comes off what was set aside."""
    desk, money = Desk(MemoryStore(), Counted()), Tally(RULE, "money", (1_000,), Pricing(1, 0, ((BYTE_COUNT, 1),)))
    process = transfer(state, aside=True)
    usage = Usage(AGREEMENT, version=1).reserve((Reservation(aside_id(process.pid), process.pid, RULE, "money", 1_000, 0.0),), 0.0)
    await desk.journal.store.commit(Changes(saves=(process, usage)))
    other = desk.ledger.holder(AGREEMENT, "another")
    assert await other.exchange([money], {}) == "busy", "it is set aside"
    assert await desk.ledger.holder(AGREEMENT, process.pid).exchange([money], {"money": 100}) == "granted"
    again = Desk(desk.journal.store, Counted())
    await again.ledger.recover()
    after = await desk.journal.store.usage(AGREEMENT)
    assert after is not None
    assert (after.spent(RULE, "money"), after.reserved(RULE, "money")) == (100, left)


@pytest.mark.asyncio
@pytest.mark.parametrize("held", [0, 100])
async def test_after_a_crash_what_was_paid_is_what_the_account_says_and_does_not_cost_again(held: int):
    desk, money = Desk(MemoryStore(), Counted()), Tally(RULE, "money", (1_000,), Pricing(1, 0, ((BYTE_COUNT, 1),)))
    process = transfer("STARTED", aside=True)
    usage = Usage(AGREEMENT, version=1).reserve((Reservation(aside_id(process.pid), process.pid, RULE, "money", 1_000, 0.0),), 0.0)
    await desk.journal.store.commit(Changes(saves=(process, usage)))
    holder = desk.ledger.holder(AGREEMENT, process.pid)
    assert await holder.exchange([money], {"money": 200}) == "granted"
    holder.spend("money", 200)
    if held:
        assert await holder.exchange([money], {"money": held}) == "granted"
    again = Desk(desk.journal.store, Counted())

    async def rest(of: Process) -> Rest:
        assert of == process
        return Rest({(RULE, "money"): 730}, "etag", ((0, 270),))

    again.ledger.rest = rest
    await again.ledger.recover()
    after = await desk.journal.store.usage(AGREEMENT)
    assert after is not None
    assert (after.spent(RULE, "money"), after.reserved(RULE, "money"), len(after.open)) == (270, 730, 1)
    assert Meters(again.ledger).paid(process.pid, "etag") == ((0, 270),)


@pytest.mark.asyncio
async def test_what_a_transfer_has_set_aside_is_free_once_it_does_not_run():
    desk = Desk(MemoryStore(), Counted())
    process = transfer("STARTED", aside=True)
    usage = Usage(AGREEMENT, version=1).reserve((Reservation(aside_id(process.pid), process.pid, RULE, "money", 1_000, 0.0),), 0.0)
    await desk.journal.commit(Changes(saves=(process, usage)))
    assert (await desk.journal.store.usage(AGREEMENT)) == usage
    await desk.journal.commit(Changes(saves=(replace(process, state="COMPLETED", version=2),)))
    await desk.ledger.close()
    after = await desk.journal.store.usage(AGREEMENT)
    assert after is not None
    assert (after.posted, after.open) == ((), ())


MONEY = Tally(RULE, "money", (1_000,), Pricing(1, 0, ((BYTE_COUNT, 1),)))


async def over_with(signed: int) -> tuple[Desk, Holder, Process]:
    """A transfer that has ended, of which a stream holds 200, which it has spent, and of which so much was signed for."""
    desk, process = Desk(MemoryStore(), Counted()), transfer("STARTED", charged=[RULE], aside=True)
    rows = (Reservation(aside_id(process.pid), process.pid, RULE, "money", 900, 0.0),)
    usage = Usage(AGREEMENT, version=1).reserve((*rows, *taking(Usage(AGREEMENT), process.pid, [(RULE, "money")], 0.0)), 0.0)
    account = replace(rig.account(Role.PROVIDER), transfer=process.pid, agreement=AGREEMENT, sequence=1, version=1)
    account = replace(account, counts=Counts(signed))
    desk.ledger.owed = partial(owed, desk)
    await desk.journal.commit(Changes(saves=(process, usage, account)))
    holder = desk.ledger.holder(AGREEMENT, process.pid)
    assert await holder.exchange([MONEY], {"money": 200}) == "granted"
    holder.spend("money", 200)
    ended = replace(process, state="TERMINATED", version=2, updated=SystemClock().now())
    await desk.journal.commit(Changes(saves=(ended,)))
    return desk, holder, ended


async def owed(desk: Desk, accounts: Sequence[Metered]) -> list[tuple[Mapping[tuple[str, str], int], bool]]:
    facts = [await desk.journal.store.newest_fact(each.transfer, telemetry.STATEMENT_AGREED) for each in accounts]
    return [({(RULE, "money"): each.counts.bytes}, fact is not None) for each, fact in zip(accounts, facts, strict=True)]


async def stands(desk: Desk) -> tuple[int, int, int]:
    """What is spent, and reserved, and how many rows there are of what is open."""
    usage = await desk.journal.store.usage(AGREEMENT)
    assert usage is not None
    return usage.spent(RULE, "money"), usage.reserved(RULE, "money"), len(usage.open)


@pytest.mark.asyncio
async def test_what_left_and_was_not_signed_for_goes_back_once_both_have_signed_what_the_transfer_came_to():
    desk, holder, process = await over_with(150)
    await holder.close()
    await desk.ledger.close()
    assert await stands(desk) == (200, 0, 1), "a receipt may still come"
    fact = Evidence(telemetry.STATEMENT_AGREED, Kind.TRANSFER, process.pid, process.peer, None, 9.0)
    await desk.journal.commit(Changes(evidence=(replace(fact, kind=None), replace(fact, what=telemetry.STATEMENT_DISPUTED))))
    await desk.ledger.close()
    assert await stands(desk) == (200, 0, 1)
    await desk.journal.commit(Changes(evidence=(fact,)))
    await desk.ledger.close()
    assert await stands(desk) == (150, 0, 0)


@pytest.mark.asyncio
@pytest.mark.parametrize("comes", [True, False])
async def test_who_needs_what_is_about_to_come_back_waits_for_it_and_not_for_long(comes: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quotas, "RETURN_SECONDS", 600.0 if comes else 0.2)
    desk, holder, process = await over_with(150)
    await holder.close()
    await desk.ledger.close()
    other = desk.ledger.holder(AGREEMENT, "another")
    assert (await other.exchange([MONEY], {}), other.amounts) == ("granted", {"money": 800})
    other.spend("money", 800)
    if comes:
        assert await other.exchange([MONEY], {}) == "busy"
        news = desk.ledger.news(AGREEMENT)
        await desk.journal.commit(Changes(evidence=(Evidence(telemetry.STATEMENT_AGREED, Kind.TRANSFER, process.pid, None, None, 9.0),)))
        await news.wait()
        assert (await other.exchange([MONEY], {}), other.amounts) == ("granted", {"money": 50})
    else:
        news = desk.ledger.news(AGREEMENT)
        while await other.exchange([MONEY], {}) == "busy":
            await news.wait()
            news = desk.ledger.news(AGREEMENT)
    await desk.ledger.close()


@pytest.mark.asyncio
async def test_what_was_signed_for_elsewhere_goes_back_in_the_write_in_which_it_is_spent_there():
    """Between two writes somebody else could use it, and the budget would be overspent."""
    desk, holder, first = await over_with(0)
    account = await desk.journal.store.metered(first.pid)
    assert account is not None
    await holder.close()
    await desk.ledger.close()
    second = replace(first, pid="urn:second", peer_pid="urn:theirs", state="STARTED", version=1)
    usage = await desk.journal.store.usage(AGREEMENT)
    assert usage is not None
    begun = replace(usage.reserve(taking(usage, second.pid, [(RULE, "money")], 0.0), 0.0), version=usage.version + 1)
    signed = replace(account, transfer=second.pid, counts=Counts(200), version=1)
    unsigned = replace(account, sequence=0, asked=True, version=account.version + 1)
    await desk.journal.store.commit(Changes(saves=(second, begun, signed, unsigned)))

    async def elsewhere(accounts: Sequence[Metered]) -> list[tuple[Mapping[tuple[str, str], int], bool]]:
        process = await desk.journal.store.process(Kind.TRANSFER, second.pid)
        return [({(RULE, "money"): of.counts.bytes if of.sequence else 0}, bool(process and process.final)) for of in accounts]

    desk.ledger.owed = elsewhere
    least = list[int]()
    desk.journal.listen(lambda changes, _: least.extend(each.spent(RULE, "money") for each in changes.saves if isinstance(each, Usage)))
    await desk.ledger.balance(AGREEMENT, first.pid)
    assert await stands(desk) == (200, 0, 2)
    await desk.journal.store.commit(Changes(saves=(replace(second, state="TERMINATED", version=2),)))  # nobody has heard of it yet
    await desk.ledger.balance(AGREEMENT, first.pid)
    assert (await stands(desk), least) == ((200, 0, 0), [200])


@pytest.mark.asyncio
async def test_what_is_signed_for_elsewhere_in_part_goes_back_in_part_and_is_not_looked_at_alone_at_each_end():
    desk, holder, first = await over_with(0)
    account = await desk.journal.store.metered(first.pid)
    assert account is not None
    await holder.close()
    await desk.ledger.close()
    usage = await desk.journal.store.usage(AGREEMENT)
    assert usage is not None
    rows = tuple(replace(each, at=SystemClock().now()) for each in usage.open)
    unsigned = replace(account, sequence=0, asked=True, version=account.version + 1)
    await desk.journal.store.commit(Changes(saves=(unsigned, replace(usage, open=rows, version=usage.version + 1))))
    asked, left = list[int](), 120

    async def in_part(accounts: Sequence[Metered]) -> list[tuple[Mapping[tuple[str, str], int], bool]]:
        asked.append(len(accounts))
        return [({(RULE, "money"): left}, True) for _ in accounts]

    desk.ledger.owed = in_part
    for left, looks in ((120, 2), (120, 1), (50, 2), (0, 2), (0, 1)):
        asked.clear()
        await desk.ledger.balance(AGREEMENT, "another that is over")
        assert ((await stands(desk))[:2], len(asked)) == ((left, 0), looks)
    assert (await stands(desk))[2] == 0


@pytest.mark.asyncio
async def test_after_a_crash_those_that_were_never_signed_are_looked_at_together():
    desk, holder, process = await over_with(150)
    await holder.close()
    await desk.ledger.close()
    account, usage = await desk.journal.store.metered(process.pid), await desk.journal.store.usage(AGREEMENT)
    assert account is not None
    assert usage is not None
    now = SystemClock().now()
    begun = usage.reserve([each for n in range(5) for each in taking(usage, f"urn:{n}", [(RULE, "money")], now)], now)
    others = [replace(process, pid=f"urn:{n}", peer_pid=f"urn:theirs:{n}", version=1) for n in range(5)]
    never = [replace(account, transfer=each.pid, sequence=0, asked=True, counts=Counts(), version=1) for each in others]
    await desk.journal.store.commit(Changes(saves=(*others, *never, replace(begun, version=usage.version + 1))))
    again, asked = Desk(desk.journal.store, Counted()), list[list[str]]()

    async def together(accounts: Sequence[Metered]) -> list[tuple[Mapping[tuple[str, str], int], bool]]:
        asked.append([each.transfer for each in accounts])
        return [({(RULE, "money"): each.counts.bytes}, bool(each.sequence)) for each in accounts]

    again.ledger.owed = together
    await again.ledger.recover()
    assert asked == [[process.pid], [each.pid for each in others]]
    assert (await stands(again))[:2] == (150, 0)


@pytest.mark.asyncio
async def test_what_is_never_signed_for_is_not_noted_for_ever():
    desk, holder, process = await over_with(150)
    await holder.close()
    await desk.ledger.close()
    aged = replace(process, updated=process.updated - AGREED_SECONDS - 9, version=3)
    await desk.journal.store.commit(Changes(saves=(aged,)))
    await desk.ledger.balance(AGREEMENT, "another that is over")
    assert await stands(desk) == (200, 0, 0)


@pytest.mark.asyncio
async def test_of_what_has_been_owed_for_long_nobody_waits_for_the_return():
    desk, holder, process = await over_with(150)
    await holder.close()
    await desk.ledger.close()
    again = Desk(desk.journal.store, Counted())
    again.ledger.owed = partial(owed, again)
    await again.journal.store.commit(Changes(saves=(replace(process, updated=process.updated - 3_600.0, version=3),)))
    await again.ledger.recover()
    other = again.ledger.holder(AGREEMENT, "another")
    assert await other.exchange([MONEY], {}) == "granted"
    other.spend("money", 800)
    await again.ledger.balance(AGREEMENT, process.pid)
    assert await other.exchange([MONEY], {}) == "spent"


@pytest.mark.asyncio
@pytest.mark.parametrize("signed", [150, 230])
async def test_streams_that_still_hold_something_are_waited_for(signed: int):
    desk, holder, process = await over_with(signed)
    await desk.journal.commit(Changes(evidence=(Evidence(telemetry.STATEMENT_AGREED, Kind.TRANSFER, process.pid, None, None, 9.0),)))
    await desk.ledger.close()
    assert sum((await stands(desk))[:2]) == 200 + max(signed - 200, 0)
    await holder.close()
    await desk.ledger.close()
    assert await stands(desk) == (signed, 0, 0)


@pytest.mark.asyncio
async def test_of_live_data_of_who_signs_nothing_no_row_stays_open_as_nobody_can_sign_for_them_elsewhere():
    """There are so many rows under an agreement, and what has none stays spent."""
    desk, holder, process = await over_with(150)
    account = await desk.journal.store.metered(process.pid)
    assert account is not None
    live = replace(account, sequence=0, root=None, size_bytes=None, version=account.version + 1)
    fact = Evidence(telemetry.STATEMENT_AGREED, Kind.TRANSFER, process.pid, None, None, 9.0)
    await desk.journal.store.commit(Changes(saves=(live,), evidence=(fact,)))
    await holder.close()
    await desk.ledger.close()
    assert await stands(desk) == (150, 0, 0)


@pytest.mark.asyncio
@pytest.mark.parametrize("closes", ["before it is looked", "while it is looked", "afterwards"])
async def test_what_was_sent_is_stored_after_the_last_that_held_something_before_it_is_said_what_it_came_to(
    monkeypatch: pytest.MonkeyPatch, closes: str
):
    desk, holder, process = await over_with(0)
    await desk.ledger.close()
    await desk.journal.commit(Changes(evidence=(Evidence(telemetry.STATEMENT_AGREED, Kind.TRANSFER, process.pid, None, None, 9.0),)))
    await desk.ledger.close()
    store, usage, sent = desk.journal.store, desk.journal.store.usage, 100

    async def written(transfer: str) -> None:
        account = await store.metered(transfer)
        assert account is not None
        await store.commit(Changes(saves=(replace(account, counts=Counts(sent), version=account.version + 1),)))

    async def ends(agreement: str) -> Usage | None:
        nonlocal sent
        found = await usage(agreement)
        if sent == 100 and closes == "while it is looked":
            sent = 150
            await holder.close()
        return found

    desk.ledger.written = written
    if closes == "before it is looked":
        sent = 150
        await holder.close()
    monkeypatch.setattr(store, "usage", ends)
    await desk.ledger.balance(AGREEMENT, process.pid)
    sent = 150
    await holder.close()
    await desk.ledger.close()
    assert await stands(desk) == (150, 0, 0)


@pytest.mark.asyncio
@pytest.mark.parametrize(("ago", "spent", "rows"), [(0.0, 150, 0), (AGREED_SECONDS + 9, 200, 0)], ids=["stated", "a month ago"])
async def test_after_a_crash_what_a_transfer_was_signed_for_is_spent(ago: float, spent: int, rows: int):
    desk, _, process = await over_with(150)
    await desk.ledger.close()
    fact = Evidence(telemetry.STATEMENT_AGREED, Kind.TRANSFER, process.pid, process.peer, None, 9.0)
    aged = replace(process, updated=process.updated - ago, version=3)
    await desk.journal.store.commit(Changes(saves=(aged,), evidence=(fact,)))
    again = Desk(desk.journal.store, Counted())
    again.ledger.owed = partial(owed, again)
    await again.ledger.recover()
    assert await stands(again) == (spent, 0, rows)


class Full(MemoryStore):
    """A store whose disk is full for a while."""

    full = False

    async def commit(self, changes: Changes) -> Any:
        if self.full:
            raise StoreError("the disk is full")
        return await super().commit(changes)


@pytest.mark.asyncio
async def test_what_a_full_disk_did_not_let_go_is_given_back_once_it_has_room(monkeypatch: pytest.MonkeyPatch):
    refused, store = asyncio.Event(), Full()

    def pause_seconds(_failures: int) -> float:
        refused.set()
        return 0.0

    monkeypatch.setattr(quotas, "pause_seconds", pause_seconds, raising=False)
    ledger, all_ = Desk(store, Counted()).ledger, Tally(RULE, BYTE_COUNT, (LEAST[BYTE_COUNT],))
    one, other = ledger.holder(AGREEMENT, "t"), ledger.holder(AGREEMENT, "u")
    assert await one.exchange([all_], {}) == "granted"
    news = ledger.news(AGREEMENT)
    assert await other.exchange([all_], {}) == "busy"
    store.full = True
    ledger.spawn(one.close())
    await asyncio.wait([asyncio.create_task(refused.wait())], timeout=2.0)
    store.full = False
    await asyncio.wait_for(news.wait(), 2.0)
    assert await other.exchange([all_], {}) == "granted"
    await other.close()


@pytest.mark.asyncio
async def test_a_disk_that_stays_full_holds_up_no_end():
    store = Full()
    ledger = Desk(store, Counted()).ledger
    holder = ledger.holder(AGREEMENT, "t")
    assert await holder.exchange([BYTES], {}) == "granted"
    store.full = True
    ledger.spawn(holder.close())
    await asyncio.wait_for(ledger.close(), 2.0)
    assert (await store.usage(AGREEMENT)).open, "the next start settles it"


@pytest.mark.asyncio
async def test_a_ledger_that_cannot_write_says_so_and_grants_nothing(caplog: pytest.LogCaptureFixture):
    store = MemoryStore()
    ledger = Desk(store, Counted()).ledger
    await store.close()
    holder = ledger.holder(AGREEMENT, "t")
    with pytest.raises(Exception, match="closed"):
        await holder.exchange([BYTES], {})
    assert holder.amounts == {}


def test_the_streamed_operands_are_those_with_portions():
    assert LARGEST.keys() == LEAST.keys() == {BYTE_COUNT, RECORD_COUNT, METERED_TIME}
    assert all(LEAST[operand] < LARGEST[operand] for operand in LEAST)
    assert quotas.PART > quotas.LAST
