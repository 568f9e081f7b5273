from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import PolicyError
from connector.metering_bills.budgets import SUBUNITS_MAX, demand_priced, is_budget, tallies
from connector.metering_bills.currencies import CURRENCY
from connector.metering_bills.prices import CALL_COUNT
from connector.odrl import Policy, load
from connector.odrl.counters import Pricing
from connector.odrl.operands import BYTE_COUNT, COUNT, PAY_AMOUNT, RECORD_COUNT
from tests.metering_bills.priced import agreement, count, every, leaf, money, price, priced, unit
from tests.odrl_forms.shipped import options

EUR = f"{PAY_AMOUNT} {CURRENCY}EUR"
RULE = "/permission/0"


def budget(*limits: Any, duties: tuple[dict[str, Any], ...] = (), **more: Any) -> Policy:
    document = agreement(*duties, **more)
    document["permission"][0]["constraint"] = list(limits)
    return load(document, options=options())


def why(policy: Policy, operand: str = EUR) -> str:
    (tally,) = tallies(policy)
    assert tally.pricing is None
    with pytest.raises(PolicyError) as caught:
        demand_priced(policy, operand)
    return caught.value.message


def test_a_budget_is_counted_in_whole_parts_of_what_one_of_anything_costs():
    policy = budget(money("20.00", operator="lteq"), duties=(price("0.50", "megabyte"), price("0.02", "record"), price("0.1", "call")))
    (tally,) = tallies(policy)
    # half a euro for a megabyte is one part in two million of a euro for a byte
    assert tally.pricing == Pricing(2_000_000, 0, ((BYTE_COUNT, 1), (CALL_COUNT, 200_000), (RECORD_COUNT, 40_000)))
    assert (tally.rule, tally.operand, tally.marks) == (RULE, EUR, (40_000_000,))
    assert tally.least == 240_001
    assert is_budget(tally.operand)
    assert not is_budget(COUNT)


def test_what_is_paid_once_is_spent_from_the_beginning():
    duties = (price("0.02", "record"), price("5", "subscription"), price("1", "person", count("eq", 3)))
    (tally,) = tallies(budget(money("20.00", operator="lteq"), duties=duties))
    assert tally.pricing == Pricing(50, 400, ((RECORD_COUNT, 1),))
    assert (tally.marks, tally.pricing.worth(10)) == ((600,), Fraction(82, 10))


@pytest.mark.parametrize(("operator", "marks"), [("lteq", (250,)), ("lt", (249,)), ("gt", (250,)), ("gteq", (249,)), ("eq", (249, 250))])
def test_a_decision_holds_up_to_the_last_part_before_the_limit(operator: str, marks: tuple[int, ...]):
    (tally,) = tallies(budget(money("5", operator=operator), duties=(price("0.02", "record"),)))
    assert tally.marks == marks


def test_a_limit_that_no_number_of_units_comes_to_is_not_gone_over():
    (tally,) = tallies(budget(money("0.05", operator="lteq"), duties=(price("0.02", "record"),)))
    assert (tally.marks, tally.pricing and tally.pricing.scale) == ((2,), 50), "two records, and no half of one"


def test_other_counters_stay_as_they_are():
    policy = budget(count("lteq", 5), money("5", operator="lteq"), duties=(price("1", "record"),))
    assert [(tally.operand, tally.pricing is None) for tally in tallies(policy)] == [(COUNT, True), (EUR, False)]


def test_a_currency_by_another_name_is_the_same_currency():
    limit = leaf("odrl:payAmount", "lteq", "5", **{"odrl:unit": {"@id": "http://dbpedia.org/resource/Euro"}})
    (tally,) = tallies(budget(limit, duties=(price("1", "record"),)))
    assert tally.pricing == Pricing(1, 0, ((RECORD_COUNT, 1),))


@pytest.mark.parametrize(
    ("duties", "says"),
    [
        ((), "what a use costs is not known: the policy has no prices; add a price, or count bytes"),
        ((price("1", "record", currency="USD"),), "the budget is in EUR, and the prices are in USD; write both in one currency"),
        ((price("1", "minute"),), "a price by the minute (`/permission/0/duty/0`) cannot be kept within a budget"),
        ((price("1", "record", count("gt", 5)),), "a price for a band of units (`/permission/0/duty/0`) cannot be kept within a budget"),
        ((price("1", "subscription", every("P1M")),), "a price by the period (`/permission/0/duty/0`) cannot be kept within a budget"),
        ((price("20.01", "subscription"),), "the budget is less than what is paid once, so it permits nothing"),
        ((priced(money("1"), unit("parsec")),), "the prices are not understood"),
    ],
)
def test_a_budget_that_the_prices_do_not_measure_is_not_measured_and_says_why(duties: tuple[dict[str, Any], ...], says: str):
    assert says in why(budget(money("20", operator="lteq"), duties=duties))


def test_a_budget_names_its_currency_and_can_be_counted():
    assert "a budget is in a currency; write `odrl:unit` like" in why(
        budget(leaf("odrl:payAmount", "lteq", "5"), duties=(price("1", "record"),)), PAY_AMOUNT
    )
    fine = price("0.000000000001", "megabyte")
    assert "too large to be counted exactly" in why(budget(money("20", operator="lteq"), duties=(fine,)))
    (tally,) = tallies(budget(money("4", operator="lteq"), duties=(fine,)))
    assert tally.marks[0] < SUBUNITS_MAX


prices = st.decimals("0.0001", 100, places=4).map(str)


@given(prices, prices, prices, st.integers(0, 10**9), st.integers(0, 10**6), st.integers(0, 10**4))
def test_parts_add_up_to_exactly_what_the_prices_say(byte: str, record: str, call: str, used_bytes: int, records: int, calls: int):
    (tally,) = tallies(
        budget(money("1000", operator="lteq"), duties=(price(byte, "megabyte"), price(record, "record"), price(call, "call")))
    )
    assert tally.pricing is not None
    spent = (
        tally.pricing.rate(BYTE_COUNT) * used_bytes + tally.pricing.rate(RECORD_COUNT) * records + tally.pricing.rate(CALL_COUNT) * calls
    )
    assert tally.pricing.worth(spent) == Fraction(byte) * used_bytes / 10**6 + Fraction(record) * records + Fraction(call) * calls
    assert tally.pricing.worth(tally.marks[0]) == 1000
