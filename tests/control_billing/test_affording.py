"""A transfer starts if what is left of its budget pays for all that it is to bring, where anybody can say what that costs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from connector.adapters.memory import MemoryStore
from connector.control_billing.affording import MENDED, RETURNS, Asked, Due, Extent, afford, nothing_known, owed, price_of, rest_of
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.errors import PolicyError
from connector.metering.content import CHUNK_BYTES, Layout, write_etag
from connector.metering.counts import Counts
from connector.metering.ranges import Ranges
from connector.metering_bills.budgets import tallies
from connector.metering_bills.currencies import CURRENCY
from connector.metering_bills.prices import CALL_COUNT
from connector.odrl import Policy, load
from connector.odrl.counters import Pricing
from connector.odrl.operands import BYTE_COUNT, PAY_AMOUNT, RECORD_COUNT
from connector.records import Agreement, Changes, Dataset, Evidence, Reservation, Usage
from connector.records.aside import Rest, aside_id, taken_id
from connector.records.metering import Metered
from connector.telemetry import STATEMENT, STATEMENT_AGREED
from connector.values import replace
from tests.metering import rig
from tests.metering_bills.priced import agreement, money, price
from tests.odrl_forms.shipped import options

EUR, RULE, OTHER = f"{PAY_AMOUNT} {CURRENCY}EUR", "/permission/0", "/permission/1"
CHUNK = 1_000_000  # of these laws; what the product has does not matter here
DATASET = Dataset("urn:d", b"{}", {"type": "file"}, (), 4 * CHUNK, b"s" * 32, 1, 0.0)
AGREEMENT = Agreement("urn:a", "urn:n", "did:web:c", "did:web:p", "did:web:c", "urn:d", {}, b"d" * 32, final=True)


FOUR = Layout(4 * CHUNK, CHUNK)


@dataclass
class Log:
    """Four leaves of a million bytes and ten records each."""

    root: bytes | None = b"r" * 32
    leaves: int = 5
    counts: bool = True
    layout: Layout = FOUR

    def records(self, first: int, end: int) -> int:
        return 10 * (end - first)


async def extents(_address: Mapping[str, Any]) -> Extent | None:
    return Log()


def policy(limit: str, *duties: dict[str, Any], **more: Any) -> Policy:
    document = agreement(*duties)
    document["permission"][0]["constraint"] = [money(limit, operator="lteq")]
    document["permission"] += [{"action": "use", "duty": list(duties)}] if more.get("free") else []
    return load(document, options=options())


def brought(transfer: str, ranges: Ranges, **changed: Any) -> Metered:
    shape = (transfer, Role.PROVIDER, "urn:a", "did:web:c", "m", "o/log/x", CHUNK, b"r" * 32, 5, 4 * CHUNK)
    return replace(Metered(*shape, ranges=ranges, counts=Counts(1, calls=1), version=1), **changed)


def ended(pid: str, state: str = "TERMINATED") -> Process:
    return Process(Kind.TRANSFER, pid, Role.PROVIDER, "did:web:c", "https://c.example", state, f"urn:{pid}", version=1)


async def asked(terms: Policy, *records: Any, usage: Usage | None = None, charged: tuple[str, ...] = (RULE,), **more: Any) -> Asked:
    store = MemoryStore()
    await store.commit(Changes(saves=records))
    where, data = more.get("extents", extents), more.get("data", DATASET)
    return await afford(store, where, terms, AGREEMENT, data, usage or Usage("urn:a"), charged, "t9", 7.0, begun=more.get("begun", False))


def costs(amount: int) -> Asked:
    return Asked((Reservation(aside_id("t9"), "t9", RULE, EUR, amount, 7.0),))


MEGABYTE = price("0.50", "megabyte")
IN_ALL = 4 * CHUNK  # sub-units: a byte is half a millionth


@pytest.mark.asyncio
async def test_what_all_of_it_costs_is_set_aside_if_it_is_there():
    assert await asked(policy("2", MEGABYTE)) == costs(IN_ALL)
    short = await asked(policy("1.999999", MEGABYTE))
    assert short.set_aside == ()
    assert short.reason == (
        "the budget does not pay for all of `urn:d`: that costs 2.00 EUR, and 1.999999 EUR of 1.999999 EUR are left; nothing was spent:"
        " ask the provider for an offer with a larger budget and negotiate anew"
    )
    spent = Usage("urn:a", ((RULE, EUR, 2),), (Reservation("h", "t1", RULE, EUR, IN_ALL, 0.0),))
    assert (await asked(policy("4.000000", MEGABYTE), usage=spent)).reason.startswith(
        "the budget does not pay for all of `urn:d`: that costs 2.00 EUR, and 1.999999 EUR of 4.00 EUR are left; 2.00 EUR are set aside"
    )
    assert await asked(policy("4.000001", MEGABYTE), usage=spent) == costs(IN_ALL)


@pytest.mark.asyncio
async def test_what_it_has_set_aside_itself_is_there_for_it():
    own = Usage("urn:a", (), (Reservation(aside_id("t9"), "t9", RULE, EUR, IN_ALL, 0.0),))
    assert await asked(policy("2", MEGABYTE), usage=own) == costs(IN_ALL)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("records", "leaves"),
    [
        ((brought("t1", ((1, 3),)), ended("t1")), 2),
        ((brought("t1", ((1, 3),)), ended("t1"), brought("t2", ((3, 4),)), ended("t2")), 1),
        ((brought("t1", ((1, 3),)), ended("t1", "STARTED")), 4),
        ((brought("t1", ((1, 5),)), ended("t1", "COMPLETED")), 4),
        ((brought("t1", ((1, 3),), root=b"o" * 32), ended("t1")), 4),
        ((brought("t1", ((1, 3),)), ended("t1"), brought("t2", ((3, 5),)), ended("t2")), 4),
        ((brought("t9", ((1, 4),)), ended("t9", "SUSPENDED")), 1),
        ((brought("t1", ((1, 2),), sent=((CHUNK, 3 * CHUNK - 1),)), ended("t1")), 2),
    ],
    ids=[
        "left off",
        "left off twice",
        "still running",
        "whole",
        "other data",
        "whole by two",
        "its own, resumed",
        "sent and not signed for",
    ],
)
async def test_data_of_which_some_has_come_are_fetched_to_their_end_for_the_price_of_the_rest(records: tuple[Any, ...], leaves: int):
    assert await asked(policy("2", MEGABYTE), *records) == costs(leaves * CHUNK)


@pytest.mark.asyncio
async def test_after_a_crash_the_rest_of_a_transfer_is_what_its_account_neither_has_nor_may_have_sent():
    terms, store = policy("2", MEGABYTE), MemoryStore()
    sent = brought("t9", ((1, 2),), sent=((CHUNK, 3 * CHUNK),))
    await store.commit(Changes(saves=(AGREEMENT, DATASET, sent, ended("t9", "STARTED"), brought("t1", ((4, 5),)), ended("t1"))))
    running = replace(ended("t9", "STARTED"), agreement=AGREEMENT.id)
    rest = await rest_of(store, extents, lambda _: terms, running)
    assert rest == Rest({(RULE, EUR): 0}, write_etag(b"r" * 32, CHUNK_BYTES), ((0, 3 * CHUNK),))
    assert (await rest_of(store, extents, lambda _: terms, replace(running, agreement="urn:other"))) is None
    assert (await rest_of(store, nothing_known, lambda _: terms, running)) is None
    assert (await rest_of(store, extents, lambda _: PolicyError("not understood"), running)) is None


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("others", "leaves"),
    [
        ((brought("t1", ((1, 3),)), ended("t1"), brought("t2", ((3, 5),)), ended("t2")), 3),
        ((brought("t1", ((2, 4),)), replace(ended("t1"), updated=8.0)), 3),
        ((brought("t1", ((2, 4),)), replace(ended("t1"), updated=6.0)), 1),
    ],
    ids=["all of it, so all of it was set aside", "left off since it was set aside", "left off before"],
)
async def test_after_a_crash_nothing_was_brought_by_a_transfer_that_others_have(others: tuple[Any, ...], leaves: int):
    store, running = MemoryStore(), replace(ended("t9", "STARTED"), agreement=AGREEMENT.id)
    usage = Usage("urn:a", (), costs(IN_ALL).set_aside)
    await store.commit(Changes(saves=(AGREEMENT, DATASET, brought("t9", ((1, 2),)), running, usage, *others)))
    rest = await rest_of(store, extents, lambda _: policy("2", MEGABYTE), running)
    assert rest is not None
    assert (rest.amounts, rest.paid) == ({(RULE, EUR): leaves * CHUNK}, ((0, CHUNK),))


@pytest.mark.asyncio
async def test_what_has_begun_comes_to_its_end_with_what_is_left():
    """What was on its way when it was suspended is paid for, and not signed for: it must not be refused for that."""
    spent = Usage("urn:a", ((RULE, EUR, 3 * CHUNK),))
    own = (brought("t9", ((1, 3),)), ended("t9", "SUSPENDED"))
    assert await asked(policy("2", MEGABYTE), *own, usage=spent, begun=True) == costs(CHUNK)
    assert (await asked(policy("2", MEGABYTE), *own, usage=spent)).reason, "another one is"


@pytest.mark.asyncio
async def test_what_has_begun_sets_aside_all_that_it_has_not_paid_for_whatever_was_foreseen_of_it():
    """One leaf was signed for and one more has left. The other two may have left by what was stored with the receipt, and have not."""
    spent = Usage("urn:a", ((RULE, EUR, 2 * CHUNK),), (Reservation(taken_id("t9"), "t9", RULE, EUR, -2 * CHUNK, 0.0),))
    own = (brought("t9", ((1, 2),), sequence=1, sent=((CHUNK, 4 * CHUNK),)), ended("t9", "SUSPENDED"))
    assert await asked(policy("9", MEGABYTE), *own, usage=spent, begun=True) == costs(2 * CHUNK)
    three = (replace(own[0], sent=((CHUNK, 3 * CHUNK),)), own[1])
    assert await asked(policy("9", MEGABYTE), *three, usage=spent, begun=True) == costs(2 * CHUNK)
    left = (brought("t1", ((4, 5),)), ended("t1"))
    assert await asked(policy("9", MEGABYTE), *three, *left, usage=spent, begun=True) == costs(CHUNK), "the last one another has brought"


@pytest.mark.asyncio
async def test_what_another_has_paid_for_and_will_have_back_is_set_aside_as_far_as_it_is_there_and_refuses_nobody():
    """Two leaves are signed for, and one more was on its way. It may have to come again: then its payment has come back."""
    signed = (brought("t1", ((1, 3),), sequence=2, sent=((CHUNK, 3 * CHUNK),)), ended("t1"))
    takes = Reservation(taken_id("t1"), "t1", RULE, EUR, -3 * CHUNK, 0.0)
    usage = Usage("urn:a", ((RULE, EUR, 3 * CHUNK),), (takes,))
    assert await asked(policy("2", MEGABYTE), *signed, usage=usage) == costs(CHUNK), "what is left"
    assert await asked(policy("9", MEGABYTE), *signed, usage=usage) == costs(2 * CHUNK)
    assert (await asked(policy("1.999999", MEGABYTE), *signed, usage=usage)).reason
    refused = (await asked(policy("1.999999", MEGABYTE), signed[0], replace(signed[1], updated=6.0), usage=usage)).reason
    assert refused.endswith(f"nothing was spent: {RETURNS}; else {MENDED}"), "it may be enough in a moment"
    assert RETURNS not in (await asked(policy("1.999999", MEGABYTE), signed[0], replace(signed[1], updated=-60.0), usage=usage)).reason
    gone = replace(usage, open=())
    assert (await asked(policy("2", MEGABYTE), *signed, usage=gone)).reason, "nothing comes back any more"
    silent = (brought("t1", (), sequence=0, sent=((0, 3 * CHUNK),)), replace(signed[1], updated=6.0))
    reason = (await asked(policy("1.999999", MEGABYTE), *silent, usage=usage)).reason
    assert reason.endswith(MENDED)
    assert RETURNS not in reason, "who signs nothing has had what has left"
    back = replace(gone, posted=((RULE, EUR, 2 * CHUNK),))
    assert await asked(policy("2", MEGABYTE), *signed, usage=back) == costs(2 * CHUNK)
    part = replace(back, open=(replace(takes, amount=-CHUNK // 2),))
    part = replace(part, posted=())
    assert (await asked(policy("0.749999", MEGABYTE), *signed, usage=part)).reason, "no more comes back than is noted"
    assert not (await asked(policy("0.75", MEGABYTE), *signed, usage=part)).reason


async def one_owed(store: MemoryStore, read: Callable[[Mapping[str, Any]], Policy | PolicyError], account: Metered) -> Due:
    (found,) = await owed(store, read, [account])
    return found


@pytest.mark.asyncio
async def test_what_is_owed_is_what_was_signed_for():
    store, counts = MemoryStore(), Counts(3 * CHUNK, 30, 0, 1, 999)
    await store.commit(Changes(saves=(AGREEMENT,)))
    terms = policy("50", MEGABYTE, price("1", "record"), price("2", "call"))
    signed = brought("t1", ((1, 4),), counts=counts, sequence=1)
    (scale,) = {tally.pricing.scale for tally in tallies(terms) if tally.pricing}
    due = {(RULE, EUR): scale * 3 // 2 + scale * 30 + scale * 2}
    assert await one_owed(store, lambda _: terms, signed) == (due, False), "more may be signed for"
    assert await one_owed(store, lambda _: terms, replace(signed, status="complete")) == (due, True)
    assert await one_owed(store, lambda _: terms, replace(signed, sequence=0)) == ({}, False), "it never meant to sign"
    assert await one_owed(store, lambda _: terms, replace(signed, sequence=0, root=None, size_bytes=None)) == (due, True), (
        "what has left of it"
    )
    assert await one_owed(store, lambda _: terms, replace(signed, sequence=0, asked=True)) == ({(RULE, EUR): 0}, False)
    assert await one_owed(store, lambda _: PolicyError("not understood"), signed) == ({}, False)
    assert await one_owed(store, lambda _: terms, replace(signed, agreement="urn:other")) == ({}, False)
    await store.commit(Changes(evidence=(Evidence(STATEMENT, Kind.TRANSFER, "t1", None, None, 1.0),)))
    assert await one_owed(store, lambda _: terms, replace(signed, sequence=0, asked=True)) == ({(RULE, EUR): 0}, False), (
        "we say that it left"
    )
    assert await one_owed(store, lambda _: terms, replace(signed, sequence=0, asked=True, counts=Counts())) == ({(RULE, EUR): 0}, True)
    assert await one_owed(store, lambda _: terms, signed) == (due, False)
    await store.commit(Changes(evidence=(Evidence(STATEMENT_AGREED, Kind.TRANSFER, "t1", None, None, 1.0),)))
    assert await one_owed(store, lambda _: terms, signed) == (due, True), "both have signed what it came to"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("by", "goes_back"),
    [
        (replace(ended("t2"), detail={"taken": True}), True),
        (ended("t2"), False),
        (replace(ended("t2", "STARTED"), detail={"taken": True}), False),
        (None, False),
    ],
    ids=["over", "it began before there were such rows, or beyond the last of them", "it runs", "not stored any more"],
)
async def test_what_is_signed_for_elsewhere_goes_back_only_if_the_budget_spends_it_there(by: Process | None, goes_back: bool):
    store, ack = MemoryStore(), rig.signed(rig.ACK)
    left = brought("t1", ((1, 4),), asked=True)
    other = brought("t2", ((1, 5),), sequence=1, ack=ack, status="complete")
    await store.commit(Changes(saves=(AGREEMENT, left, other, ended("t1"), *((by,) if by else ()))))
    assert await one_owed(store, lambda _: policy("50", MEGABYTE), left) == ({(RULE, EUR): 0}, goes_back)


@pytest.mark.asyncio
async def test_what_is_signed_for_elsewhere_in_part_goes_back_in_part():
    store, ack, over = MemoryStore(), rig.signed(rig.ACK), replace(ended("t2"), detail={"taken": True})
    sent = {"sent": ((0, 3 * CHUNK),), "counts": Counts(3 * CHUNK, 30, 0, 1)}
    left, other = (
        brought("t1", ((1, 4),), asked=True, **sent),
        brought("t2", ((2, 3),), sequence=1, manifest=rig.signed(rig.MANIFEST), ack=ack, counts=Counts(CHUNK, 10, 0, 1)),
    )
    await store.commit(Changes(saves=(AGREEMENT, left, other, ended("t1"), over)))
    terms = policy("50", MEGABYTE, price("1", "record"), price("2", "call"))
    (scale,) = {tally.pricing.scale for tally in tallies(terms) if tally.pricing}
    assert await one_owed(store, lambda _: terms, left) == ({(RULE, EUR): scale + scale * 20 + scale * 2}, True)


@pytest.mark.asyncio
async def test_the_accounts_of_an_agreement_are_read_once_for_all_that_were_never_signed():
    """Whoever never signs can have as many of them as are noted, and each end of a transfer looks at all."""

    class Counted(MemoryStore):
        reads = 0

        async def metered_of(self, agreement: str) -> list[Metered]:
            self.reads += 1
            return list(await super().metered_of(agreement))

    store, unsigned = Counted(), [brought(f"u{n}", ((1, 4),), asked=True) for n in range(9)]
    await store.commit(Changes(saves=(AGREEMENT, *unsigned)))
    assert await owed(store, lambda _: policy("50", MEGABYTE), unsigned) == [({(RULE, EUR): 0}, False)] * 9
    assert store.reads == 1


@pytest.mark.asyncio
async def test_where_the_price_is_not_known_a_budget_is_spent_to_its_last_part():
    terms = policy("0.01", MEGABYTE)
    assert await asked(terms, extents=nothing_known) == Asked()
    assert await asked(terms, data=replace(DATASET, size_bytes=None)) == Asked(), "they have no end"

    async def no_records(_address: Mapping[str, Any]) -> Extent | None:
        return Log(counts=False)

    assert await asked(policy("0.01", price("1", "record")), extents=no_records) == Asked()


@pytest.mark.asyncio
async def test_a_permission_without_a_budget_is_enough():
    terms = policy("0.01", MEGABYTE, free=True)
    assert await asked(terms, charged=(RULE, OTHER)) == Asked()
    assert (await asked(terms, charged=(RULE,))).reason
    assert await asked(terms, charged=(OTHER,)) == Asked()


@pytest.mark.asyncio
async def test_a_call_is_paid_for_once_for_a_transfer():
    terms = policy("9", price("1", "call"))
    assert await asked(terms) == costs(1)
    assert await asked(terms, brought("t9", ((1, 2),)), ended("t9", "SUSPENDED")) == Asked()
    assert await asked(terms, brought("t1", ((1, 2),)), ended("t1")) == costs(1), "another transfer is another call"


def test_everything_that_has_a_price_is_in_it():
    pricing = Pricing(1, 0, ((BYTE_COUNT, 2), (CALL_COUNT, 7), (RECORD_COUNT, 3)))
    assert price_of(pricing, Log()) == 2 * 4 * CHUNK + 7 + 3 * 40
    assert price_of(pricing, Log(), ((2, 3),), 0) == 2 * CHUNK + 30
    assert price_of(pricing, Log(leaves=1, layout=Layout(0, CHUNK))) == 7
    assert price_of(pricing, Log(counts=False)) is None
