from fractions import Fraction
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import InvalidRequest
from connector.metering.counts import Counts, total
from connector.metering_bills.invoice import Invoice, Parties, Reading, invoice_of, standing
from connector.metering_bills.prices import Plan
from connector.values import replace
from tests.metering_bills.priced import SIGNED, count, every, plan, price

PARTIES = Parties("urn:a", bytes(32), "urn:d", "did:web:p.example", "did:web:c.example")
START = SIGNED.timestamp()
DAY = 86_400.0
PLAN = plan(price("0.02", "record"), price("0.50", "megabyte", count("gt", 1)), price("9.99", "subscription", every("P1M")))


def receipt(transfer: str, at: float, number: int, **counts: int) -> Reading:
    return Reading(transfer, START + at, Counts(**counts), number, b"m" * 32, number.to_bytes(32, "big"))


def alone(transfer: str, at: float, **counts: int) -> Reading:
    return Reading(transfer, START + at, Counts(**counts))


def bill(readings: list[Reading], begins: float = 0, ends: float = DAY, terms: Plan = PLAN) -> Invoice:
    return invoice_of(PARTIES, terms, readings, START + begins, START + ends)


def lines(invoice: Invoice) -> list[tuple[str, str, int, int]]:
    return [(line.price.unit.name, line.attested, line.quantity, line.amount) for line in invoice.lines]


def test_what_both_have_signed_is_billed_by_the_prices_of_the_agreement():
    found = bill([receipt("t1", 5, 1, bytes=1_500_000, records=70), receipt("t1", 9, 2, bytes=3_000_000, records=100)])
    assert lines(found) == [("record", "both", 100, 200), ("MB", "both", 2_000_000, 100), ("subscription", "agreed", 1, 999)]
    assert (found.total, found.complete, found.counts) == (1299, True, Counts(bytes=3_000_000, records=100))
    assert [(flow.reading.sequence, flow.counts.records) for flow in found.flows] == [(2, 100)]


def test_what_only_the_provider_has_counted_is_a_line_of_its_own_beyond_what_both_have():
    found = bill([receipt("t1", 5, 1, bytes=600_000, records=10), alone("t2", 5, bytes=900_000, records=5)])
    assert lines(found) == [
        ("record", "both", 10, 20),
        ("record", "provider-only", 5, 10),
        ("MB", "provider-only", 500_000, 25),
        ("subscription", "agreed", 1, 999),
    ]
    assert not found.complete
    assert found.to_json()["attested"] == "in-part"


def test_a_period_holds_its_beginning_and_not_its_end():
    readings = [receipt("t1", 10, 1, records=1), receipt("t1", 20, 2, records=3), receipt("t1", 30, 3, records=6)]
    records = [bill(readings, begins, ends).counts.records for begins, ends in ((0, 10), (0, 11), (10, 20), (20, 30), (20, 31), (31, 99))]
    assert records == [0, 1, 1, 2, 5, 0]
    assert bill(readings, 10, 10).total == 0


def test_a_subscription_is_billed_in_the_period_in_which_it_begins():
    terms = plan(price("9.99", "subscription", every("P1D")))
    assert [bill([], begins, ends, terms).total for begins, ends in ((-DAY, 0), (0, 1), (1, DAY), (DAY, DAY + 1), (0, 3 * DAY))] == [
        0, 999, 0, 999, 2997,
    ]  # fmt: skip


def test_before_anything_was_used_nothing_is_owed_but_what_is_agreed():
    found = bill([], 0, 1, plan(price("1", "record")))
    assert (found.lines, found.flows, found.total, found.complete) == ((), (), 0, True)


def test_a_period_that_ends_before_it_begins_is_none():
    with pytest.raises(InvalidRequest, match="ends before it begins"):
        bill([], 5, 4)


def test_of_readings_of_a_flow_the_last_receipt_counts_whatever_the_clock_of_its_author_said():
    late, early = receipt("t1", 5, 2, records=9), receipt("t1", 8, 1, records=4)
    assert standing([early, late]) == {"t1": late}
    assert bill([early, late]).counts.records == 9


def test_a_flow_that_is_signed_for_later_is_credited_where_it_was_billed_alone():
    before, after = alone("t1", 1, records=10), receipt("t1", DAY + 1, 1, records=10)
    assert lines(bill([before], 0, DAY, plan(price("1", "record")))) == [("record", "provider-only", 10, 1000)]
    second = bill([before, after], DAY, 2 * DAY, plan(price("1", "record")))
    assert lines(second) == [("record", "both", 10, 1000), ("record", "provider-only", -10, -1000)]
    assert second.total == 0


def test_the_same_invoice_has_the_same_digest_and_any_other_has_another():
    readings = [receipt("t1", 5, 1, records=10), receipt("t2", 6, 1, bytes=10)]
    found = bill(readings)
    assert bill(readings[::-1]).digest == found.digest
    assert found.to_json()["digest"] == found.digest
    others = [
        bill(readings, 0, DAY + 1),
        bill(readings[:1]),
        bill(readings, terms=plan(price("0.03", "record"))),
        invoice_of(replace(PARTIES, agreement="urn:b"), PLAN, readings, START, START + DAY),
        invoice_of(replace(PARTIES, digest=bytes(31) + b"x"), PLAN, readings, START, START + DAY),
    ]
    assert len({each.digest for each in others} | {found.digest}) == len(others) + 1


def test_a_line_says_where_its_price_stands_and_how_its_amount_comes_to_be():
    said = bill([receipt("t1", 5, 1, bytes=1_500_000)]).to_json()
    assert said["lines"][0] == {
        "price": "/permission/0/duty/1",
        "unit": "MB",
        "unit_price": "0.50",
        "band": [1_000_000, None],
        "counted": "bytes",
        "quantity": 500_000,
        "per": 1_000_000,
        "attested": "both",
        "amount": "0.25",
    }
    assert (said["from"], said["to"], said["total"]) == ("2026-01-31T09:00:00.000Z", "2026-02-01T09:00:00.000Z", "10.24")
    assert said["flows"][0]["counts"] == {"bytes": 1_500_000, "records": 0, "items": 0, "calls": 0, "us": 0}


def test_what_the_provider_alone_has_counted_since_is_told_beside_the_invoice_and_is_no_part_of_it():
    early, late = alone("t2", 5, bytes=900_000, records=5), alone("t2", DAY + 0.5, bytes=2_900_000, records=8)
    readings = [receipt("t1", 5, 1, bytes=600_000, records=10), early]
    plain = bill(readings)
    found = invoice_of(PARTIES, PLAN, readings, START, START + DAY, alone=[late, alone("t3", DAY, records=1)])
    assert found.digest == plain.digest
    assert (found.lines, found.total) == (plain.lines, plain.total)
    assert "left_out" not in plain.to_json()
    assert found.to_json()["left_out"] == {
        "attested": "provider-only",
        "transfers": ["t2", "t3"],
        "counts": Counts(bytes=2_000_000, records=4).claims(),
        "amount": "1.08",
        "to": "2026-02-01T09:00:01.000Z",
    }
    whole = invoice_of(PARTIES, PLAN, [*readings, late, alone("t3", DAY, records=1)], START, START + DAY + 1)
    assert whole.total == found.total + found.left_out.amount, "which is what an invoice up to then comes to"
    assert invoice_of(PARTIES, PLAN, readings, START, START + DAY, alone=[early]).left_out is None, "it is in it"


# Laws, over flows as they grow: receipts are cumulative, and some flows are counted by the provider alone.

TERMS = [
    PLAN,
    plan(price("0.005", "record"), price("0.0333", "megabyte"), price("0.1", "minute"), price("0.017", "call")),
    plan(price("0.15", "record", count("gt", 50), count("lteq", 500)), price("1", "person", count("eq", 3), every("P7D"))),
]


def flows(chance: Random) -> list[Reading]:
    found = []
    for number in range(chance.randint(0, 5)):
        counts, at, signed = Counts(), 0.0, chance.random() < 0.7
        for sequence in range(1, chance.randint(2, 6)):
            at += chance.uniform(0, 9 * DAY)
            more = Counts(chance.randrange(10**7), chance.randrange(400), 1, chance.randrange(9), chance.randrange(10**9))
            counts = counts + more
            found.append(
                Reading(f"t{number}", START + at, counts, sequence, b"m" * 32, bytes([number, sequence]))
                if signed
                else Reading(f"t{number}", START + at, counts)
            )
    return found


cuts = st.lists(st.floats(-DAY, 50 * DAY), min_size=2, max_size=6).map(sorted)


@given(st.randoms(use_true_random=False), st.sampled_from(TERMS), cuts)
def test_invoices_of_consecutive_periods_add_up_to_that_of_the_whole(chance: Random, terms: Plan, at: list[float]):
    readings = flows(chance)
    parts = [bill(readings, begins, ends, terms) for begins, ends in pairwise(at)]
    whole = bill(readings, at[0], at[-1], terms)
    assert sum(part.total for part in parts) == whole.total
    assert total(part.counts for part in parts) == whole.counts
    for one in terms.prices:
        quantities = [sum(line.quantity for line in each.lines if line.price == one) for each in (*parts, whole)]
        assert sum(quantities[:-1]) == quantities[-1]


@given(st.randoms(use_true_random=False), st.sampled_from(TERMS))
def test_the_order_in_which_readings_are_told_does_not_matter_nor_how_often(chance: Random, terms: Plan):
    readings = flows(chance)
    shuffled = readings + [each for each in readings if chance.random() < 0.5]
    chance.shuffle(shuffled)
    one, other = bill(readings, 3 * DAY, 40 * DAY, terms), bill(shuffled, 3 * DAY, 40 * DAY, terms)
    assert one.to_json() == other.to_json()


@given(st.randoms(use_true_random=False), st.sampled_from(TERMS))
def test_what_is_billed_is_what_the_meters_say_to_the_unit(chance: Random, terms: Plan):
    readings = flows(chance)
    found = bill(readings, 0, 100 * DAY, terms)
    meters = total(each.counts for each in standing(readings).values())
    assert found.counts == meters
    assert found.total == terms.cost(meters, int((START + 100 * DAY) * 1_000_000) - 1)
    for one in terms.prices:
        if one.unit.counted and not one.above and one.upto is None:
            assert sum(line.quantity for line in found.lines if line.price == one) == getattr(meters, one.unit.counted)
    signed = Fraction(sum(line.amount for line in found.lines if line.attested != "provider-only"))
    mine = [each for each in readings if each.receipt is not None]
    assert signed == bill(mine, 0, 100 * DAY, terms).total, "the consumer's own invoice has what it has signed for, and the same amounts"
