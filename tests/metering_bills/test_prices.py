from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.metering_bills.currencies import CURRENCY, PLACES
from connector.metering_bills.prices import Plan
from connector.odrl.model import Span
from connector.odrl.operands import PAY_AMOUNT
from connector.records.metering import Counts
from connector.values import replace
from tests.metering_bills.priced import (
    NOTHING,
    count,
    every,
    instant,
    plan,
    price,
)

LATER = instant(2026, 3, 1)
DUTY = "/permission/0/duty/0"
EUR = f"{PAY_AMOUNT} {CURRENCY}EUR"


@pytest.mark.parametrize(
    ("name", "used", "minor"),
    [
        ("record", Counts(records=3), 6),
        ("megabyte", Counts(bytes=1_500_000), 3),
        ("megabyte", Counts(bytes=1 << 20), 2),
        ("call", Counts(calls=7), 14),
        ("minute", Counts(microseconds=90_000_000), 3),
    ],
)
def test_each_unit_is_paid_for_by_what_was_metered(name: str, used: Counts, minor: int):
    found = plan(price("0.02", name))
    assert found.currency == "EUR"
    assert found.cost(used, LATER) == minor
    assert found.cost(NOTHING, LATER) == 0


def test_a_megabyte_is_a_million_bytes_and_a_minute_sixty_seconds():
    (megabyte,) = plan(price("5", "megabyte")).prices
    assert megabyte.cost(Counts(bytes=1), 0, 0) == Fraction(5, 1_000_000)
    (minute,) = plan(price("0.1", "minute")).prices
    assert minute.cost(Counts(microseconds=1), 0, 0) == Fraction(1, 600_000_000)


@pytest.mark.parametrize(
    ("records", "minor"),
    # half to even, of what all of it comes to: 0.005 -> 0.00, 0.015 -> 0.02, 0.025 -> 0.02, 0.035 -> 0.04
    [(1, 0), (3, 2), (5, 2), (7, 4), (2, 1), (1001, 500), (1003, 502)],
)
def test_a_price_is_rounded_half_to_even_at_the_minor_unit_and_once(records: int, minor: int):
    assert plan(price("0.005", "record")).cost(Counts(records=records), LATER) == minor


@pytest.mark.parametrize(("currency", "minor"), [("JPY", 2), ("EUR", 222), ("KWD", 2222), ("CLF", 22222)])
def test_the_minor_unit_is_that_of_the_currency(currency: str, minor: int):
    assert plan(price("0.22222", "record", currency=currency)).cost(Counts(records=10), LATER) == minor


def test_prices_of_an_agreement_are_added_up_each_rounded_by_itself():
    found = plan(price("0.015", "record"), price("0.015", "call"))
    assert found.cost(Counts(records=1, calls=1), LATER) == 4
    assert plan(price("0.03", "record")).cost(Counts(records=1), LATER) == 3


def test_a_band_is_the_units_that_a_price_is_for_so_the_first_may_be_free_and_the_last_cheaper():
    found = plan(
        price("0.10", "record", count("gt", 100), count("lteq", 1000)),
        price("0.01", "record", count("gt", 1000)),
    )
    costs = [found.cost(Counts(records=number), LATER) for number in (0, 100, 101, 1000, 1001, 2000)]
    assert costs == [0, 0, 10, 9000, 9001, 10_000]


def test_a_subscription_is_paid_for_each_period_that_has_begun_by_the_calendar():
    found = plan(price("9.99", "subscription", every("P1M")))
    assert found.prices[0].period == Span(1, 0)
    # signed on 31 January at nine: the next ones begin on 28 February and on 31 March
    times = [(2026, 1, 31, 8, 59, 59), (2026, 1, 31, 9), (2026, 2, 28, 8, 59), (2026, 2, 28, 9), (2026, 3, 31, 8), (2026, 3, 31, 9)]
    assert [found.cost(NOTHING, instant(*at)) for at in times] == [0, 999, 999, 1998, 1998, 2997]
    assert found.cost(NOTHING, instant(9998, 1, 1)) == 999 * (7972 * 12 - 1 + 1)


def test_no_period_begins_once_the_agreement_is_over():
    found = replace(plan(price("9.99", "subscription", every("P1D"))), ends=instant(2026, 2, 3, 9))
    assert [found.cost(NOTHING, instant(2026, 2, day, 9)) for day in (1, 2, 3, 4, 28)] == [1998, 2997, 2997, 2997, 2997]


def test_what_has_no_period_is_paid_once_and_persons_by_their_agreed_number():
    assert plan(price("100", "subscription")).cost(NOTHING, LATER) == 10_000
    assert plan(price("2.50", "person", count("eq", 12))).cost(NOTHING, LATER) == 3000
    assert plan(price("2.50", "person", count("eq", 12), every("P1D"))).cost(NOTHING, instant(2026, 2, 2, 9)) == 9000


# Laws.

counts = st.builds(Counts, *[st.integers(0, 10**13) for _ in range(5)])
amounts = st.decimals(0, 10**6, places=7, allow_nan=False, allow_infinity=False).map(lambda value: f"{value:f}")
bands = st.lists(st.integers(0, 10**6), min_size=2, max_size=2, unique=True).map(sorted)
instants = st.integers(instant(2026, 1, 1), instant(2027, 1, 1))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    currency = draw(st.sampled_from(("EUR", "JPY", "KWD")))
    duties = []
    for _ in range(draw(st.integers(1, 3))):
        name, value = draw(st.sampled_from(("record", "megabyte", "call", "minute", "subscription", "person"))), draw(amounts)
        if name in ("subscription", "person"):
            more = [
                count("eq", draw(st.integers(1, 50))),
                *([every(draw(st.sampled_from(("P1D", "P7D", "P1M", "P1Y"))))] * draw(st.booleans())),
            ]
        else:
            low, high = draw(bands)
            more = draw(st.sampled_from(([], [count("gt", low)], [count("lteq", high)], [count("gt", low), count("lteq", high)])))
        duties.append(price(value, name, *more, currency=currency))
    return plan(*duties)


@given(plans(), counts, instants)
def test_what_is_billed_is_the_exact_cost_to_half_a_minor_unit_for_each_price(found: Plan, used: Counts, at: int):
    assert found.signed is not None
    exact = sum((each.cost(used, found.signed, at) for each in found.prices), Fraction(0)) * 10 ** PLACES[found.currency]
    assert abs(found.cost(used, at) - exact) <= Fraction(len(found.prices), 2)
    assert found.cost(used, at) == sum(found.rounded(each, used, at) for each in found.prices)


@given(plans(), counts, counts, instants, instants)
def test_more_use_and_more_time_never_cost_less(found: Plan, one: Counts, two: Counts, early: int, late: int):
    most = Counts(*(max(getattr(one, name), getattr(two, name)) for name in ("bytes", "records", "items", "calls", "microseconds")))
    assert found.cost(one, min(early, late)) <= found.cost(most, max(early, late))


@given(plans(), counts)
def test_the_order_of_prices_does_not_matter(found: Plan, used: Counts):
    assert replace(found, prices=found.prices[::-1]).cost(used, LATER) == found.cost(used, LATER)


@given(amounts, st.integers(0, 10**6), counts)
def test_a_band_parted_in_two_of_the_same_price_costs_the_same(value: str, middle: int, used: Counts):
    parts = plan(price(value, "record", count("lteq", middle + 1)), price(value, "record", count("gt", middle + 1)))
    whole = plan(price(value, "record"))
    exact = [sum((each.cost(used, 0, 0) for each in found.prices), Fraction(0)) for found in (parts, whole)]
    assert exact[0] == exact[1]
