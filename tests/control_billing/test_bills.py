"""Bills from accounts as both sides keep them: whatever was cut, resent and signed for, both come to the same invoice."""

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.adapters.memory import MemoryStore
from connector.control.policies import Policies
from connector.control_billing.bills import Bills
from connector.dsp.messages import Role
from connector.errors import InvalidRequest, NotFound, PolicyError
from connector.metering import objects
from connector.metering.counts import Counts, by_day, total
from connector.metering.objects import digest
from connector.metering.ranges import union
from connector.odrl import Options
from connector.records import Agreement, Changes, Conflict, Receipted
from connector.records.metering import Metered
from connector.values import replace
from tests.metering.rig import CHUNK, CONSUMER, LAYOUT, MANIFEST, NOW, PROVIDER, account, exchange
from tests.metering_bills import priced
from tests.metering_bills.priced import count, every, price, unit
from tests.odrl_forms.shipped import options

ID = "urn:uuid:agreement"
DAY = 86_400
DUTIES = (price("0.0333", "megabyte"), price("5", "subscription"), price("0.015", "call"))


class Fixed:
    def now(self) -> float:
        return NOW + DAY


def terms(*duties: dict[str, Any]) -> dict[str, Any]:
    return priced.agreement(*duties, timestamp="2027-01-01T00:00:00Z")


def agreement(role: Role, document: dict[str, Any], **more: Any) -> Agreement:
    peer = CONSUMER if role is Role.PROVIDER else PROVIDER
    return Agreement(ID, "urn:n", peer, PROVIDER, CONSUMER, "urn:uuid:dataset", document, b"d" * 32, final=True, **more)


async def bills(role: Role, *kept: Any, document: dict[str, Any] | None = None, store: MemoryStore | None = None, **more: Any) -> Bills:
    store = store or MemoryStore()
    saves = (agreement(role, terms(*DUTIES) if document is None else document, **more), *kept)
    assert not isinstance(await store.commit(Changes(saves=saves)), Conflict)
    own = PROVIDER if role is Role.PROVIDER else CONSUMER
    return Bills(store, Policies(Options(profiles=options().profiles)), Fixed(), lambda: own)


def flow(transfer: str, steps: Sequence[tuple[tuple[int, int], ...]], later: float = 0.0) -> tuple[list[Any], list[Any]]:
    """One transfer, signed for in steps, so many seconds `later`: what the provider keeps of it, and what the consumer does under a pid of
    its own."""
    manifest = replace(MANIFEST, provider_pid=transfer)
    pair = account(Role.PROVIDER, manifest), account(Role.CONSUMER, manifest)
    kept: tuple[list[Any], list[Any]] = ([], [])
    verified: tuple[tuple[int, int], ...] = ()
    for number, step in enumerate(steps, 1):
        verified = union(verified, step)
        pair = exchange(*pair, verified, now=NOW + later + number)
        for own, side, pid in zip(kept, pair, (transfer, f"c-{transfer}"), strict=True):
            own.append(Receipted(pid, side.sequence, digest(side.receipt), side.receipt, side.ack, NOW + later + number))
    for own, side, pid in zip(kept, pair, (transfer, f"c-{transfer}"), strict=True):
        own.append(replace(side, transfer=pid, attested="both" if steps else "provider-only", updated=NOW + 9.0))
    return kept


def unsigned(transfer: str, counts: Counts) -> Metered:
    """What the provider has counted of a peer that signs nothing."""
    known = account(Role.PROVIDER, replace(MANIFEST, provider_pid=transfer))
    return replace(known, transfer=transfer, counts=counts, days=by_day((), NOW + 1.0, counts), updated=NOW + 1.0)


@pytest.mark.asyncio
async def test_both_sides_come_to_the_same_invoice():
    mine, theirs = flow("t1", [((1, 11),), ((11, 21),)])
    one, other = [await bills(role, *kept) for role, kept in ((Role.PROVIDER, mine), (Role.CONSUMER, theirs))]
    found = [await each.invoice(ID, None, NOW + DAY) for each in (one, other)]
    assert found[0].to_json() == found[1].to_json()
    assert found[0].counts.bytes == 20 * CHUNK == mine[-1].counts.bytes == theirs[-1].counts.bytes
    assert found[0].total == round(20 * CHUNK * 333 / 10**8) + 500 + round(1.5)
    assert found[0].flows[0].reading.receipt == digest(mine[-1].receipt), "the invoice names the receipt that it rests on"


@pytest.mark.asyncio
async def test_without_an_end_both_sides_come_to_the_same_digest_whenever_they_ask(monkeypatch: pytest.MonkeyPatch):
    mine, theirs = flow("t1", [((1, 11),), ((11, 21),)])
    digests = set()
    for role, kept, at in ((Role.PROVIDER, mine, NOW + 2.25), (Role.CONSUMER, theirs, NOW + 60.5), (Role.PROVIDER, mine, NOW + 3.0 * DAY)):
        monkeypatch.setattr(Fixed, "now", lambda _, at=at: at)
        found = await (await bills(role, *kept)).invoice(ID, None, None)
        assert (found.ends, found.counts.bytes) == (NOW + 3, 20 * CHUNK), "the last receipt was acknowledged at 2, and is in it"
        digests.add(found.digest)
    assert len(digests) == 1
    monkeypatch.setattr(Fixed, "now", lambda _: NOW - 250.0)  # by a clock of the consumer that is behind the provider's
    behind = await (await bills(Role.CONSUMER, *theirs)).invoice(ID, None, None)
    assert {behind.digest} == digests, "the ack is of an instant that has not come here"
    monkeypatch.setattr(Fixed, "now", lambda _: NOW + 3.0 * DAY)
    alone = await bills(Role.PROVIDER, unsigned("t2", Counts(bytes=1)))
    assert (await alone.invoice(ID, None, None)).ends == NOW + 3.0 * DAY, "nobody has signed: up to now"


@pytest.mark.asyncio
async def test_an_invoice_without_an_end_is_that_up_to_its_end_also_where_the_clock_of_who_acknowledges_was_set(
    monkeypatch: pytest.MonkeyPatch,
):
    mine, pair = flow("t0", [((1, 2),), ((2, 3),)], later=36)[0], (account(Role.PROVIDER), account(Role.CONSUMER))
    for number, at in enumerate((48, 78, 108, -92, 308), 1):
        pair = exchange(*pair, ((1, number + 1),), now=NOW + at)
        mine.append(Receipted("t1", number, digest(pair[0].receipt), pair[0].receipt, pair[0].ack, NOW + at))
    one = await bills(Role.PROVIDER, *mine, replace(pair[0], transfer="t1", attested="both"))
    monkeypatch.setattr(Fixed, "now", lambda _: NOW + 1.5)
    found = await one.invoice(ID, None, None)
    assert found.digest == (await one.invoice(ID, None, found.ends)).digest


@pytest.mark.asyncio
async def test_a_bill_asks_for_no_object_of_a_transfer_and_reads_each_once_and_the_ack_twice(monkeypatch: pytest.MonkeyPatch):
    """Where each call has a price, an agreement has as many transfers as calls: more than are remembered."""
    mine = [each for number in range(70) for each in flow(f"once-{number}", [((1, 11),)])[0]]
    store = MemoryStore()
    one, read = await bills(Role.PROVIDER, *mine, store=store), list[str]()
    monkeypatch.setattr(store, "receipts", None)
    objects.manifest_of.cache_clear()
    monkeypatch.setattr(objects.jws, "claims_of", lambda token, claims_of=objects.jws.claims_of: read.append(token) or claims_of(token))
    turns = list[float]()

    async def another() -> None:
        while True:
            turns.append(0.0)
            await asyncio.sleep(0)

    beside = asyncio.create_task(another())
    assert len((await one.invoice(ID, None, None)).flows) == 70
    assert len(turns) >= 70, "others have their turn between any two transfers"
    beside.cancel()
    last = [each for each in mine if isinstance(each, Metered)]
    assert sorted(read) == sorted(token for each in last for token in (each.manifest, each.receipt, each.ack, each.ack))


@given(st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_whatever_was_cut_and_sent_again_meters_invoices_and_bytes_are_equal_to_the_unit(chance: Random):
    mine: list[Any] = []
    theirs: list[Any] = []
    for number in range(chance.randint(0, 4)):
        steps: list[tuple[tuple[int, int], ...]] = []
        for _ in range(chance.randint(1, 4)):  # each goes on where the last one was cut, or has some of it again
            first = chance.randrange(1, LAYOUT.leaves)
            steps.append(((first, chance.randint(first + 1, LAYOUT.leaves)),))
        provider, consumer = flow(f"t{number}", steps)
        mine += provider
        theirs += consumer

    async def work() -> None:
        one, other = await bills(Role.PROVIDER, *mine), await bills(Role.CONSUMER, *theirs)
        for begins, ends in ((None, NOW + DAY), (NOW + 2, NOW + 4)):
            left, right = await one.invoice(ID, begins, ends), await other.invoice(ID, begins, ends)
            assert left.to_json() == right.to_json()
        meters = [total(each.counts for each in kept if isinstance(each, Metered)) for kept in (mine, theirs)]
        assert meters[0] == meters[1] == (await one.invoice(ID, None, NOW + DAY)).counts
        told = await one.usage(ID)
        assert told["counts"] == told["signed"] == (await other.usage(ID))["counts"] == meters[0].claims()
        assert told["cost"]["amount"] == (await one.invoice(ID, None, NOW + DAY)).to_json()["total"]

    asyncio.run(work())


@pytest.mark.asyncio
async def test_what_the_consumer_has_not_signed_is_on_the_provider_s_invoice_alone_and_marked():
    mine, theirs = flow("t1", [((1, 11),)])
    one = await bills(Role.PROVIDER, *mine, unsigned("t2", Counts(bytes=7_000_000, calls=2)))
    other = await bills(Role.CONSUMER, *theirs, replace(account(Role.CONSUMER), transfer="c-t2"))
    provider, consumer = [await each.invoice(ID, None, NOW + DAY) for each in (one, other)]
    assert [(line.attested, line.quantity) for line in provider.lines if line.price.unit.name == "MB"] == [
        ("both", 10 * CHUNK),
        ("provider-only", 7_000_000),
    ]
    assert [line.attested for line in consumer.lines] == ["both", "agreed", "both"]
    assert [line for line in provider.lines if line.attested != "provider-only"] == list(consumer.lines)
    told = await one.usage(ID)
    assert (told["counts"]["bytes"], told["signed"]["bytes"]) == (10 * CHUNK + 7_000_000, 10 * CHUNK)
    assert [(each["transfer"], each["attested"]) for each in told["transfers"]] == [("t1", "both"), ("t2", "provider-only")]


@pytest.mark.asyncio
async def test_an_invoice_tells_what_the_consumer_never_signed_and_it_therefore_does_not_hold(monkeypatch: pytest.MonkeyPatch):
    mine, theirs = flow("t1", [((1, 11),)])
    monkeypatch.setattr(Fixed, "now", lambda _: NOW + 60.0)
    counts = Counts(bytes=7_000_000, calls=2)
    one = await bills(Role.PROVIDER, *mine, unsigned("t2", counts))
    other = await bills(Role.CONSUMER, *theirs)
    found = [await each.invoice(ID, None, None) for each in (one, other)]
    assert found[0].digest == found[1].digest
    left = found[0].left_out
    assert left is not None
    assert (left.transfers, left.counts, left.ends) == (("t2",), counts, (NOW // DAY + 1) * DAY)
    monkeypatch.setattr(Fixed, "now", lambda _: left.ends)
    with_it = await one.invoice(ID, None, left.ends)
    assert (with_it.left_out, with_it.total) == (None, found[0].total + left.amount)
    assert left.amount > 0
    assert found[1].left_out is None, "the provider alone has counted it"
    of_the_day, before = await one.invoice(ID, None, NOW + 9.0), await one.invoice(ID, None, (NOW // DAY) * DAY)
    assert (of_the_day.left_out is not None, before.left_out) == (True, None), "later days are no part of a period that was asked for"


@pytest.mark.asyncio
async def test_an_invoice_of_a_period_that_is_not_over_is_preliminary_and_becomes_the_one_of_it(monkeypatch: pytest.MonkeyPatch):
    at, ends, counts = await bills(Role.PROVIDER, unsigned("t2", Counts(bytes=7_000_000))), (NOW // DAY + 1) * DAY, Counts(bytes=7_000_000)
    found = []
    for now in (ends - 1.0, float(ends)):
        monkeypatch.setattr(Fixed, "now", lambda _, now=now: now)
        found.append(await at.invoice(ID, None, ends))
        assert not (await at.invoice(ID, None, None)).preliminary, "up to now"
    assert [each.preliminary for each in found] == [True, False]
    assert {(each.digest, each.counts) for each in found} == {(found[0].digest, counts)}, "nothing came meanwhile"


@pytest.mark.asyncio
async def test_time_that_a_consumer_does_not_sign_for_is_billed_by_the_ack_on_both_sides_and_marked():
    manifest = replace(MANIFEST, provider_pid="t1")
    pair = account(Role.PROVIDER, manifest), account(Role.CONSUMER, manifest)
    mine: list[Any] = []
    theirs: list[Any] = []
    minute = 60_000_000
    for number, (told, own) in enumerate(((0, 5), (3, 7), (7, 7)), 1):
        known = Counts(calls=9, microseconds=own * minute + (7 * minute // 50 if told == own else 0))
        pair = exchange(*pair, ((1, 11 * number),), now=NOW + number, microseconds=told * minute, own=known)
        for kept, side, pid in ((mine, pair[0], "t1"), (theirs, pair[1], "c-t1")):
            kept.append(Receipted(pid, side.sequence, digest(side.receipt), side.receipt, side.ack, NOW + number))
    mine.append(replace(pair[0], transfer="t1"))
    theirs.append(replace(pair[1], transfer="c-t1"))
    duties = (*DUTIES, price("2", "minute"))
    one, other = [await bills(role, *kept, document=terms(*duties)) for role, kept in ((Role.PROVIDER, mine), (Role.CONSUMER, theirs))]
    billed = []
    for begins, ends in ((None, NOW + 2.0), (NOW + 2.0, NOW + 3.0), (None, NOW + 3.0), (None, NOW + DAY)):
        left, right = await one.invoice(ID, begins, ends), await other.invoice(ID, begins, ends)
        assert left.to_json() == right.to_json()
        billed.append([(line.attested, line.quantity // minute) for line in left.lines if line.price.unit.name == "minute"])
        assert left.to_json()["attested"] == ("both" if ends == NOW + DAY else "in-part")
        assert left.counts.calls == (begins is None), "calls follow from what is signed, whatever an ack says"
    alone = [[("provider-only", 5)], [("both", 3), ("provider-only", -1)], [("both", 3), ("provider-only", 4)]]
    assert billed == [*alone, [("both", 7)]], "within a fiftieth the two are the same, and what is signed counts"
    for each in (one, other):
        told = await each.usage(ID)
        assert told["counts"] == told["signed"]
        assert (told["counts"]["us"], told["counts"]["calls"]) == (7 * minute, 1)
        assert told["cost"]["amount"] == (await each.invoice(ID, None, NOW + DAY)).to_json()["total"]


@pytest.mark.asyncio
@pytest.mark.parametrize("bound", [True, False])
async def test_a_quota_of_time_binds_the_bill_though_a_consumer_signs_for_more(bound: bool):
    manifest = replace(MANIFEST, provider_pid="t1")
    pair = account(Role.PROVIDER, manifest), account(Role.CONSUMER, manifest)
    most, signed = 60_000_000, 61_700_000
    pair = exchange(*pair, ((1, 11),), now=NOW + 1, microseconds=signed, own=Counts(calls=1, microseconds=most))
    kept = [
        [Receipted(pid, side.sequence, digest(side.receipt), side.receipt, side.ack, NOW + 1), replace(side, transfer=pid)]
        for side, pid in zip(pair, ("t1", "c-t1"), strict=True)
    ]
    document = terms(price("2", "minute"))
    if bound:
        document["permission"][0]["constraint"] = [
            {"leftOperand": "odrl:meteredTime", "operator": "lteq", "rightOperand": {"@value": "PT60S", "@type": "xsd:duration"}}
        ]
    found = [
        await (await bills(role, *rows, document=document)).invoice(ID, None, NOW + DAY)
        for role, rows in zip((Role.PROVIDER, Role.CONSUMER), kept, strict=True)
    ]
    assert found[0].to_json() == found[1].to_json()
    assert [(line.attested, line.quantity) for line in found[0].lines] == [("both", most if bound else signed)]


class Counting(MemoryStore):
    """Counts the receipts that are read, and at most how many at once."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[int] = []

    async def receipts(self, transfer: str, first: int = 0, end: int | None = None) -> Sequence[Receipted]:
        found = await super().receipts(transfer, first, end)
        self.read.append(len(found))
        return found


@pytest.mark.asyncio
async def test_of_many_receipts_those_are_read_between_which_an_instant_lies_and_for_what_stands_now_the_last_one_alone():
    mine, _ = flow("t1", [((number, number + 1),) for number in range(1, 20)])
    store = Counting()
    one = await bills(Role.PROVIDER, *mine, store=store)
    assert (await one.usage(ID))["counts"]["bytes"] == 19 * CHUNK
    assert store.read == [], "the account has it"
    assert (await one.invoice(ID, NOW + 10.0, NOW + 15.0)).counts.bytes == 5 * CHUNK
    assert (max(store.read), len(store.read)) == (1, 10), "of nineteen, at most five for each instant"


@pytest.mark.asyncio
async def test_a_receipt_without_an_ack_is_no_ground_for_a_bill_yet():
    mine, _ = flow("t1", [((1, 11),), ((11, 21),)])
    last = next(each for each in reversed(mine) if isinstance(each, Receipted))
    kept = [replace(each, ack=None) if each is last else replace(each, ack="") if isinstance(each, Metered) else each for each in mine]
    assert (await (await bills(Role.PROVIDER, *kept)).invoice(ID, None, NOW + DAY)).counts.bytes == 10 * CHUNK


@pytest.mark.asyncio
async def test_what_only_the_provider_counted_is_billed_once_however_long_the_flow_lasts():
    one, two = Counts(bytes=7_000_000, calls=2), Counts(bytes=9_000_000, calls=3)
    first = unsigned("t1", one)
    then = replace(first, counts=two, days=by_day(first.days, NOW + 3 * DAY, two))
    early, late = await bills(Role.PROVIDER, first), await bills(Role.PROVIDER, then)
    ends = [None, NOW + 2.0 * DAY, NOW + 9.0 * DAY]
    parts = [await early.invoice(ID, *ends[:2]), await late.invoice(ID, *ends[1:])]
    whole = await late.invoice(ID, ends[0], ends[2])
    assert [each.counts.bytes for each in parts] == [7_000_000, 2_000_000]
    assert sum(each.total for each in parts) == whole.total
    assert (await late.invoice(ID, *ends[:2])).to_json() == parts[0].to_json(), "what was billed does not change"
    assert not (await early.invoice(ID, None, NOW + 2.0)).counts.bytes, "the day is not over"


@pytest.mark.asyncio
async def test_a_consumer_that_signs_an_earlier_time_does_not_choose_its_invoice():
    mine, theirs = flow("t1", [((1, 11),)])
    manifest, at = replace(MANIFEST, provider_pid="t1"), NOW
    pair = account(Role.PROVIDER, manifest), account(Role.CONSUMER, manifest)
    provider, consumer = exchange(*pair, ((1, 11),), now=at - 200, acked=at)
    mine[0] = replace(mine[0], digest=digest(provider.receipt), receipt=provider.receipt, ack=provider.ack)
    theirs[0] = replace(theirs[0], digest=digest(consumer.receipt), receipt=consumer.receipt, ack=consumer.ack)
    one, other = await bills(Role.PROVIDER, *mine), await bills(Role.CONSUMER, *theirs)
    for each in (one, other):
        assert not (await each.invoice(ID, None, float(at))).counts.bytes
        assert (await each.invoice(ID, float(at), NOW + DAY)).counts.bytes == 10 * CHUNK


@pytest.mark.asyncio
async def test_usage_is_told_without_prices_and_there_is_no_invoice():
    mine, _ = flow("t1", [((1, 11),)])
    found = await bills(Role.PROVIDER, *mine, document=terms())
    told = await found.usage(ID)
    assert (told["cost"], told["role"], told["counts"]["bytes"]) == (None, "provider", 10 * CHUNK)
    with pytest.raises(NotFound, match="has no prices, so there is no invoice"):
        await found.invoice(ID, None, None)
    with pytest.raises(NotFound, match="there is no agreement `urn:other`"):
        await found.usage("urn:other")


@pytest.mark.asyncio
async def test_prices_that_are_not_understood_are_named_and_nothing_is_billed():
    found = await bills(Role.CONSUMER, document=terms(price("1", "person"), priced.priced(unit("record"))))
    told = await found.usage(ID)
    assert [reason.partition(":")[0] for reason in told["cost"]["reasons"]] == ["/permission/0/duty/0", "/permission/0/duty/1"]
    with pytest.raises(PolicyError, match="the prices are not understood"):
        await found.invoice(ID, None, None)


@pytest.mark.asyncio
async def test_a_period_is_one_and_begins_with_the_signing_if_nothing_else_is_said():
    found = await bills(Role.PROVIDER, document=terms(price("1", "subscription", every("P1D"))))
    assert (await found.invoice(ID, None, None)).to_json()["from"] == "2027-01-01T00:00:00.000Z"
    with pytest.raises(InvalidRequest, match="ends before it begins"):
        await found.invoice(ID, NOW, NOW - 1)


@pytest.mark.asyncio
@pytest.mark.parametrize("signed", ["2027-01-16T08:00:00Z", "2027-01-15T08:00:02.750Z"], ids=["a day ahead", "in the same second"])
async def test_what_was_signed_for_before_the_agreement_by_the_clock_is_billed_on_both_sides(signed: str):
    """The clock was ahead when it was signed, and was set back; acks say whole seconds, so it is enough to be fast."""
    sides = zip((Role.PROVIDER, Role.CONSUMER), flow("t1", [((1, 5),), ((5, 11),)]), strict=True)
    document = terms(*DUTIES) | {"timestamp": signed}
    one, other = [await bills(role, *kept, document=document) for role, kept in sides]
    said = [await each.invoice(ID, None, None) for each in (one, other)]
    assert [each.counts.bytes for each in said] == [10 * CHUNK] * 2
    assert said[0].to_json() == said[1].to_json()
    parts = [await one.invoice(ID, None, NOW + 2.0), await one.invoice(ID, NOW + 2.0, None)]
    assert total(each.counts for each in parts) == said[0].counts
    assert (await one.invoice(ID, said[0].begins, None)).counts == said[0].counts, "its period holds what is on it"


@pytest.mark.asyncio
async def test_no_subscription_is_billed_beyond_the_end_of_the_agreement():
    document, begins = terms(price("1", "subscription", every("P1D"))), 1_798_761_600.0  # 2027-01-01
    for over in (
        {"ends": begins + 3 * DAY},
        {"closed": begins + 3 * DAY, "closed_by": "us"},
        {"ends": NOW + 0.0, "closed": begins + 3 * DAY},
    ):
        found = await bills(Role.PROVIDER, document=document, **over)
        assert (await found.invoice(ID, None, None)).total == 300


@pytest.mark.asyncio
@pytest.mark.parametrize("by", ["us", "peer"])
async def test_an_end_that_nobody_has_signed_is_one_sides_word_where_time_is_paid_for(by: str):
    daily, begins = terms(price("1", "subscription", every("P1D"))), 1_798_761_600.0  # 2027-01-01
    over = {"closed": begins + 3 * DAY, "closed_by": by}
    for role, own, peer in ((Role.PROVIDER, PROVIDER, CONSUMER), (Role.CONSUMER, CONSUMER, PROVIDER)):
        said = (await (await bills(role, document=daily, **over)).invoice(ID, None, None)).to_json()
        who = {"at": "2027-01-04T00:00:00.000Z", "by": own if by == "us" else peer}
        assert said["closed"] == who | {"attested": f"{role}-only".lower()}
        assert said["attested"] == "in-part"
        # not in the period, not because of it, and nothing that is paid for by time
        for document, more, ends in (
            (daily, over, begins + 2 * DAY),
            (daily, over | {"ends": begins + DAY}, None),
            (terms(price("5", "subscription"), price("1", "call")), over, None),
        ):
            bare = (await (await bills(role, document=document, **more)).invoice(ID, None, ends)).to_json()
            assert ("closed" in bare, bare["attested"]) == (False, "both")


@pytest.mark.asyncio
async def test_a_budget_that_counts_is_shown_where_it_is_counted():
    document = terms(price("1", "megabyte"))
    document["permission"][0]["constraint"] = [priced.money("5", operator="lteq"), count("lteq", 9)]
    for role, counters in ((Role.PROVIDER, 2), (Role.CONSUMER, 0)):
        assert len((await (await bills(role, document=document)).usage(ID))["counters"]) == counters
