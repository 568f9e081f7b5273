"""What left before a first receipt that never came is billed once it is known that it was signed for nowhere else."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from connector.control_billing.elsewhere import Elsewhere, alone, crediting
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.metering.counts import Counts, by_day
from connector.metering.ranges import Ranges
from connector.records import Changes, Evidence, Receipted
from connector.records.metering import Metered
from connector.telemetry import STATEMENT
from connector.values import replace
from tests.control_billing.test_bills import DAY, ID, NOW, MemoryStore, bills, flow, unsigned
from tests.metering.rig import CHUNK, CONSUMER, LAYOUT, MANIFEST, ROOT, signed

pytestmark = pytest.mark.asyncio

SENT = 12 * CHUNK
HAS = {"root": ROOT, "size_bytes": LAYOUT.size_bytes, "chunk_bytes": CHUNK}


def left(**changed: Any) -> Metered:
    """Twelve leaves and a half went out to who meant to sign, and no receipt came."""
    known = {"asked": True, "ranges": ((1, 13),), "sent": ((0, SENT + 1),), **HAS} | changed
    return replace(unsigned("t1", Counts(bytes=SENT + 1, calls=1)), **known)


def process(pid: str, state: str = "TERMINATED", at: float = 0.0) -> Process:
    return Process(Kind.TRANSFER, pid, Role.PROVIDER, CONSUMER, "https://c.example", state, f"urn:{pid}", version=1, updated=at)


def goes_on(*steps: Ranges, transfer: str = "t2", later: float = 0.0) -> tuple[list[Any], list[Any]]:
    """The order goes on by another transfer, which is signed for in steps; what both sides keep of it."""
    mine, theirs = flow(transfer, steps, later)
    return [*mine[:-1], replace(mine[-1], **HAS)], theirs


ALL = ((1, LAYOUT.leaves),)


def stands(status: str) -> list[Any]:
    """Another transfer, which is signed for whole."""
    return [replace(each, status=status) if isinstance(each, Metered) else each for each in goes_on(ALL)[0]]


@pytest.mark.parametrize(
    ("account", "others", "states", "since"),
    [
        (left(), goes_on(((1, 5),), ALL)[0], {}, NOW + 2),
        (left(), goes_on(((2, 14),))[0] + goes_on(((1, 2),), transfer="t3", later=9.0)[0], {}, NOW + 10),
        (left(), goes_on(((1, 13),))[0], {}, None),
        (left(), goes_on()[0], {}, None),
        (left(asked=False), goes_on(ALL)[0], {}, None),
        (left(root=b"o" * 32), goes_on(ALL)[0], {}, None),
        (left(root=None, size_bytes=None), goes_on(ALL)[0], {}, None),
        (left(role=Role.CONSUMER), goes_on(ALL)[0], {}, None),
        (left(), goes_on(ALL)[0], {"t1": "STARTED"}, None),
        (left(), goes_on(ALL)[0], {"t2": "STARTED"}, None),
        (left(), stands("complete"), {"t2": "STARTED"}, NOW + 1),
        (left(), stands("disputed"), {}, None),
        (left(ranges=(), sent=()), goes_on(ALL)[0], {}, None),
    ],
    ids=["all of it", "by two between them", "but for a leaf of which half was sent", "nothing", "it never meant to sign", "other data",
         "live data", "by its consumer", "its own receipt may come", "more of it may come", "complete", "disputed", "nothing was sent"],
)  # fmt: skip
async def test_it_is_signed_for_elsewhere_once_all_of_its_leaves_are_by_transfers_that_are_over(
    account: Metered, others: list[Any], states: dict[str, str], since: float | None
):
    store = MemoryStore()
    await store.commit(Changes(saves=(account, *others, *(process(pid, states.get(pid, "TERMINATED")) for pid in ("t1", "t2", "t3")))))
    accounts = [account, *(each for each in others if isinstance(each, Metered))]
    assert await Elsewhere(store, accounts).since(account) == since
    assert alone(left()) == ((1, 14),)


@pytest.mark.parametrize("last", ["t1", "t2"])
async def test_it_counts_from_the_instant_on_at_which_it_could_be_known(last: str):
    store, account, others = MemoryStore(), left(), goes_on(ALL)[0]
    ends = {"t1": NOW + 5.0, "t2": NOW + 5.0, last: NOW + 8.0}
    await store.commit(Changes(saves=(account, *others, *(process(pid, at=at) for pid, at in ends.items()))))
    assert await Elsewhere(store, [account, others[-1]]).since(account) == NOW + 8


async def test_a_receipt_that_comes_later_credits_nothing_once_more():
    """A consumer that does not state what a transfer came to may go on signing for it, also for nothing new."""
    store, account, others = MemoryStore(), left(), goes_on(((1, 5),), ((1, 14),), ((1, 14),), ALL, ALL)[0]
    await store.commit(Changes(saves=(account, *others, process("t1"), process("t2"))))
    assert await Elsewhere(store, [account, others[-1]]).since(account) == NOW + 2
    one = await bills(Role.PROVIDER, account, *others, process("t1"), process("t2"))
    assert (await one.invoice(ID, NOW + 2.5, NOW + DAY)).counts.bytes == LAYOUT.size_bytes - 13 * CHUNK


async def test_what_one_signs_later_that_another_has_signed_credits_nothing_once_more():
    store, account, others = MemoryStore(), left(), goes_on(((2, 14),), ALL)[0] + goes_on(((1, 2),), transfer="t3")[0]
    await store.commit(Changes(saves=(account, *others, *(process(pid) for pid in ("t1", "t2", "t3")))))
    accounts = [account, *(each for each in others if isinstance(each, Metered))]
    assert await Elsewhere(store, accounts).since(account) == NOW + 1, "by both of them; the second one costs one leaf more"


class Counting(MemoryStore):
    """Counts what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.looked_up: list[str] = []

    async def receipts(self, transfer: str, first: int = 0, end: int | None = None) -> Sequence[Receipted]:
        self.looked_up.append(transfer)
        return await super().receipts(transfer, first, end)

    async def process(self, kind: Kind, pid: str) -> Process | None:
        self.asked.append(pid)
        return await super().process(kind, pid)

    async def metered_of(self, agreement: str) -> Sequence[Metered]:
        self.asked.append(agreement)
        return await super().metered_of(agreement)


async def test_a_first_receipt_of_a_transfer_that_runs_has_no_other_account_read():
    """An agreement may have tens of thousands of them."""
    store = Counting()
    await store.commit(Changes(saves=(left(), *goes_on(ALL)[0], process("t1", "STARTED"), process("t2"))))
    assert not await crediting(store)(left())
    assert store.asked == ["t1"]


async def test_a_bill_asks_once_for_each_transfer_when_it_was_over():
    store, lost = Counting(), [left(transfer=f"u{number}") for number in range(4)]
    others = [each for number in range(4) for each in goes_on(((1, 5 + number),), transfer=f"s{number}", later=9.0 * number)[0]]
    pids = [f"{of}{number}" for of in "su" for number in range(4)]
    one = await bills(Role.PROVIDER, *lost, *others, *map(process, pids), store=store)
    await one.invoice(ID, None, NOW + DAY)
    assert sorted(store.asked) == sorted((ID, *pids))


@pytest.mark.parametrize("ended", [NOW - 10.0 * DAY, None], ids=["the clock was set back", "neither stored nor stated"])
async def test_what_acks_that_are_later_than_the_end_signed_for_by_when_is_looked_up_once_for_all(ended: float | None):
    store, lost, numbers = Counting(), [left(transfer=f"u{number}") for number in range(20)], range(20)
    others = [each for number in numbers for each in goes_on(((1, 5),), ((5, 9),), ALL, transfer=f"s{number}", later=9.0 * number)[0]]
    known = [] if ended is None else [process(f"s{number}", at=ended) for number in numbers]
    await store.commit(Changes(saves=(*lost, *others, *known)))
    accounts = [*lost, *(each for each in others if isinstance(each, Metered))]
    elsewhere = Elsewhere(store, accounts)
    steps = [await elsewhere.credited(each) for each in lost]
    assert [each.at for each in steps[0]] == [NOW + 1, NOW + 2, NOW + 3]
    assert all(each == steps[0] for each in steps)
    assert 0 < len(store.looked_up) <= 30 * len(numbers), "halving a minute, each time among three receipts"


async def test_what_was_signed_for_before_the_manifest_by_a_clock_that_was_set_back_counts_from_then_on():
    store, account, others = MemoryStore(), left(), goes_on(((1, 5),), ALL)[0]
    others[-1] = replace(others[-1], manifest=signed(replace(MANIFEST, provider_pid="t2", issued=NOW + 90)))
    await store.commit(Changes(saves=(account, *others)))
    assert [each.at for each in await Elsewhere(store, [account, others[-1]]).credited(account)] == [NOW + 1, NOW + 2]


async def test_retention_moves_nothing():
    store, account, others = MemoryStore(), left(), goes_on(ALL)[0]
    stated = [Evidence(STATEMENT, Kind.TRANSFER, pid, CONSUMER, None, at) for pid, at in (("t1", NOW + 3.0), ("t2", NOW + 7.5))]
    await store.commit(Changes(saves=(account, *others), evidence=tuple(stated)))
    assert await Elsewhere(store, [account, others[-1]]).since(account) == NOW + 8


async def test_what_was_billed_by_the_providers_word_is_credited_when_it_is_signed_for_and_both_come_to_the_same():
    """It was sent on one day, and signed for under another transfer on the next."""
    first, store, today = left(), MemoryStore(), (NOW // DAY + 1) * DAY
    mine, theirs = goes_on(ALL, later=today - NOW + 60.0)
    assert first.days == by_day((), NOW + 1.0, first.counts)
    before = await bills(Role.PROVIDER, first, process("t1"))
    one = await bills(Role.PROVIDER, first, *mine, process("t1"), process("t2"), store=store)
    other = await bills(Role.CONSUMER, *theirs)
    early = await one.invoice(ID, None, today)
    assert early.to_json() == (await before.invoice(ID, None, today)).to_json(), "what was billed once stays as it was billed"
    assert early.counts.bytes == SENT + 1
    late = await one.invoice(ID, today, today + DAY)
    assert late.counts.bytes == LAYOUT.size_bytes - SENT - 1
    whole = await one.invoice(ID, None, today + DAY)
    assert whole.to_json() == (await other.invoice(ID, None, today + DAY)).to_json()
    assert early.total + late.total == whole.total
    assert (whole.counts.bytes, whole.left_out, whole.complete) == (LAYOUT.size_bytes, None, True)
    assert (used := await one.usage(ID))["counts"] == (await other.usage(ID))["counts"]
    assert [each["status"] for each in used["transfers"]] == ["signed-elsewhere", "ended"]


def counting(records: int, kept: list[Any]) -> list[Any]:
    """The same account, of leaves in which so many records end."""
    return [*kept[:-1], replace(kept[-1], counts=replace(kept[-1].counts, records=records))]


async def test_of_what_others_have_signed_for_in_part_only_the_rest_is_billed_by_the_providers_word():
    """It was sent on one day; on the next six of its leaves are signed for, and four more an hour later: no byte stands in two lines."""
    today, sent = (NOW // DAY + 1) * DAY, Counts(bytes=SENT + 1, records=120, calls=1, microseconds=1_000)
    first = left(counts=sent, days=by_day((), NOW + 1.0, sent))
    second = counting(50, goes_on(((1, 7),), transfer="t2", later=today - NOW + 60.0)[0])
    third = counting(45, goes_on(((7, 11),), transfer="t3", later=today - NOW + 3_600.0)[0])
    store, before = MemoryStore(), await bills(Role.PROVIDER, first, process("t1"))
    one = await bills(Role.PROVIDER, first, *second, *third, *(process(pid) for pid in ("t1", "t2", "t3")), store=store)
    assert (await one.invoice(ID, None, today)).to_json() == (await before.invoice(ID, None, today)).to_json()
    ends = (None, today, today + 600.0, today + DAY)
    periods = [await one.invoice(ID, *period) for period in pairwise(ends)]
    whole = await one.invoice(ID, None, today + DAY)
    assert [each.counts.bytes for each in periods] == [SENT + 1, 0, 0], "what is signed for is credited in the same period"
    assert (whole.counts.bytes, sum(each.total for each in periods)) == (SENT + 1, whole.total)
    assert {flow.reading.transfer: flow.counts.bytes for flow in whole.flows} == {"t1": 2 * CHUNK + 1, "t2": 6 * CHUNK, "t3": 4 * CHUNK}
    assert whole.left_out is None
    used = {each["transfer"]: each for each in (await one.usage(ID))["transfers"]}
    assert (used["t1"]["status"], used["t1"]["counts"]["bytes"]) == ("ended", 2 * CHUNK + 1)
    steps = await Elsewhere(store, [first, second[-1], third[-1]]).credited(first)
    assert [(each.left.bytes, each.left.records, each.left.calls) for each in steps] == [(6 * CHUNK + 1, 60, 1), (2 * CHUNK + 1, 20, 1)]
    assert steps[-1].left.microseconds == 1_000 * (2 * CHUNK + 1) // (SENT + 1)
    assert [await crediting(store)(each) for each in (first, second[-1])] == [True, False]


async def test_one_leaf_of_a_part_and_many_beside_it_do_not_pay_for_the_part():
    """Each record costs, and of thirteen leaves that were read and never signed for one is signed for, beside twenty others."""
    store, sent = MemoryStore(), Counts(bytes=SENT + CHUNK, records=130, calls=1)
    first, second = left(counts=sent, sent=((0, SENT + CHUNK),)), counting(210, goes_on(((13, 34),))[0])
    await store.commit(Changes(saves=(first, *second, process("t1"), process("t2"))))
    (step,) = await Elsewhere(store, [first, second[-1]]).credited(first)
    assert (step.left.bytes, step.left.records) == (SENT, 120)


async def test_of_a_day_that_is_not_over_what_is_left_is_told_as_left_out():
    first, others = left(), goes_on(((1, 7),))[0]
    one = await bills(Role.PROVIDER, first, *others, process("t1"), process("t2"))
    found = await one.invoice(ID, None, NOW + 9.0)
    assert (found.counts.bytes, found.left_out and found.left_out.counts.bytes) == (6 * CHUNK, 6 * CHUNK + 1)
    assert (await one.invoice(ID, None, (NOW // DAY + 1) * DAY)).counts.bytes == SENT + 1


async def test_what_is_complete_later_credits_nothing_before():
    """It had signed for all of the other's leaves on the first day, and could still go on: what was billed then stays as it was billed."""
    today = (NOW // DAY + 1) * DAY
    first, begun = left(), goes_on(((1, 14),))[0]
    rest = goes_on(((1, 14),), ALL, later=today - NOW + 60.0)[0]
    done = [begun[0], rest[1], replace(rest[-1], status="complete")]
    early = await bills(Role.PROVIDER, first, *begun, process("t1"), process("t2", "STARTED"))
    late = await bills(Role.PROVIDER, first, *done, process("t1"), process("t2", "COMPLETED", today + 70.0))
    assert (await late.invoice(ID, None, today)).to_json() == (await early.invoice(ID, None, today)).to_json()
    assert (await late.invoice(ID, None, today + DAY)).counts.bytes == LAYOUT.size_bytes
