import json
import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import PolicyError
from connector.metering_bills.currencies import CURRENCY, PLACES
from connector.metering_bills.prices import PRICES_MAX, UNITS, Plan, pays, plan_of
from connector.odrl import load
from connector.odrl.model import Event, Span
from connector.odrl.operands import PAY_AMOUNT
from connector.odrl_forms.templates import instantiate
from connector.records_metering import Counts
from tests.metering_bills.priced import (
    NOTHING,
    SIGNED,
    agreement,
    count,
    every,
    instant,
    leaf,
    money,
    plan,
    policy,
    price,
    priced,
    unit,
)
from tests.odrl_forms.shipped import POLICIES, library, options

LATER = instant(2026, 3, 1)
DUTY = "/permission/0/duty/0"
EUR = f"{PAY_AMOUNT} {CURRENCY}EUR"


def mistakes(*duties: dict[str, Any], **more: Any) -> list[str]:
    read = policy(*duties, **more)
    assert not read.refused, [str(finding) for finding in read.findings]
    with pytest.raises(PolicyError) as caught:
        plan_of(read)
    return [str(finding) for finding in caught.value.findings]


# What a price is.


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


@pytest.mark.parametrize(
    ("bounds", "above", "upto"),
    [
        ([count("gt", 5)], 5, None),
        ([count("gteq", 5)], 4, None),
        ([count("gteq", 0)], 0, None),
        ([count("lteq", 5)], 0, 5),
        ([count("lt", 5)], 0, 4),
        ([count("lt", 9), count("gteq", 3)], 2, 8),
        ([count("gt", 1), count("gt", 3), count("lteq", 9), count("lteq", 7)], 3, 7),
    ],
)
def test_the_bounds_of_a_band_are_whole_units(bounds: list[dict[str, Any]], above: int, upto: int | None):
    (found,) = plan(price("1", "record", *bounds)).prices
    assert (found.above, found.upto) == (above, upto)


def test_between_two_megabytes_lie_the_bytes():
    (found,) = plan(price("1", "megabyte", count("gteq", 5), count("lt", 7))).prices
    assert (found.above, found.upto) == (5_000_000, 7_000_000)
    assert found.cost(Counts(bytes=5_500_000), 0, 0) == Fraction(1, 2)


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


def test_in_an_offer_prices_are_known_and_nothing_is_owed_yet():
    document = agreement(price("1", "record"), price("5", "subscription"))
    offer = {key: value for key, value in document.items() if key not in ("timestamp", "assignee")} | {"@type": "Offer"}
    found = plan_of(load(offer, options=options()))
    assert found is not None
    assert (found.signed, found.cost(Counts(records=5), LATER)) == (None, 0)


def test_prices_may_be_the_duty_of_every_permission_or_an_obligation_of_the_policy():
    once = plan(price("1", "record"), permissions=2)
    assert [each.path for each in once.prices] == [DUTY]
    general = plan(permissions=2, obligation=[price("1", "record")])
    assert [each.path for each in general.prices] == ["/obligation/0"]
    both = plan(price("1", "record"), obligation=[price("5", "subscription")])
    assert both.cost(Counts(records=1), LATER) == 600


def test_by_when_it_is_to_be_paid_is_no_part_of_the_price():
    after = leaf("odrl:event", "gt", {"@id": "odrl:policyUsage"})
    within = leaf("odrl:delayPeriod", "lteq", {"@value": "P30D", "@type": "xsd:duration"})
    assert plan(priced(money("1"), unit("record"), constraints=(after, within))).cost(Counts(records=1), LATER) == 100


def test_what_is_no_price_is_no_plan():
    assert plan_of(policy()) is None
    assert plan_of(policy({"action": "odrl:compensate"})) is None
    assert plan_of(policy(priced(money("500", operator="gteq")))) is None, "a payment, and nothing that is multiplied"


def test_units_of_the_health_profile_are_the_same():
    found = plan(priced(money("1"), leaf("odrl:unitOfCount", "eq", {"@id": "https://hds.example/ns/1.0#Record"})))
    assert found.prices[0].unit == UNITS["https://w3id.org/qiao/v1/record"]


# What is none, where it stands, and what would do.

REFINEMENT = DUTY + "/action/odrl:refinement"


@pytest.mark.parametrize(
    ("duty", "place", "says"),
    [
        (priced(unit("record")), DUTY, "a price without `odrl:payAmount` says nothing"),
        (priced(money("1"), unit("parsec")), REFINEMENT + "/1/rightOperand", "nobody here counts this"),
        (priced(leaf("odrl:payAmount", "eq", "1"), unit("record")), REFINEMENT + "/0", "a price is in a currency; write `odrl:unit` like"),
        (price("1", "record", currency="XAU"), REFINEMENT + "/0/odrl:unit", "names no currency of ISO 4217"),
        (priced(money("1", operator="gteq"), unit("record")), REFINEMENT + "/0/operator", "`gteq` leaves the price open"),
        (price("0.0000000000001", "record"), REFINEMENT + "/0/rightOperand", "at most 12 decimal places and 24 digits"),
        (price("1e30", "record"), REFINEMENT + "/0/rightOperand", "at most 12 decimal places and 24 digits"),
        (priced(money("1"), money("2"), unit("record")), REFINEMENT + "/1", "there is another `odrl:payAmount`"),
        (price("1", "record", every("P1M")), REFINEMENT + "/2", "records are paid for as they are used"),
        (price("1", "record", count("eq", 5)), REFINEMENT + "/2/operator", "a price is for a band of units"),
        (price("1", "record", count("neq", 5)), REFINEMENT + "/2/operator", "a price is for a band of units"),
        (price("1", "record", count("gt", 5), count("lteq", 5)), REFINEMENT + "/3", "no unit lies in the band"),
        (price("1", "person"), DUTY, "persons are not counted by this connector"),
        (price("1", "person", count("lteq", 5)), REFINEMENT + "/2", "the number of persons is one whole number"),
        (price("1", "person", count("eq", 0)), REFINEMENT + "/2", "the number of persons is one whole number"),
        (price("1", "subscription", every("PT1H")), REFINEMENT + "/2/rightOperand", "`PT1H` is shorter than a day"),
        (price("1", "record", leaf("odrl:spatial", "eq", "urn:x")), REFINEMENT + "/2", "it is no part of a price"),
        (price("1", "record", {"or": [count("gt", 5), count("lt", 2)]}), REFINEMENT + "/2", "it is no part of a price"),
        (priced(money("1"), unit("record"), constraints=(leaf("odrl:purpose", "eq", "x"),)), DUTY + "/constraint/0", "would depend on it"),
        (
            priced(money("1"), unit("record"), constraints=(leaf("odrl:event", "lt", {"@id": "odrl:policyUsage"}),)),
            DUTY + "/constraint/0",
            "would depend on it",
        ),
        (
            priced(money("1"), unit("record"), constraints=(leaf("odrl:dateTime", "gteq", "2027-01-01Z"),)),
            DUTY + "/constraint/0",
            "would depend on it",
        ),
    ],
)
def test_a_price_that_is_not_understood_is_named_with_its_place(duty: dict[str, Any], place: str, says: str):
    (mistake,) = mistakes(duty)
    assert mistake.startswith(f"{place}: ")
    assert says in mistake


def test_prices_in_two_currencies_have_no_sum():
    (mistake,) = mistakes(price("1", "record"), price("1", "call", currency="USD"))
    assert mistake == "/permission/0/duty/1: it is in USD, others are in EUR: the prices of an agreement are added up; write it in EUR"


def test_permissions_with_different_prices_leave_open_which_was_used():
    document = agreement(price("1", "record"), permissions=2)
    document["permission"][1]["duty"] = [price("2", "record")]
    with pytest.raises(PolicyError, match="its prices are not those of the other permissions"):
        plan_of(load(document, options=options()))
    del document["permission"][1]["duty"]
    with pytest.raises(PolicyError, match="its prices are not those of the other permissions"):
        plan_of(load(document, options=options()))


def test_all_mistakes_are_named_at_once_and_prices_are_not_endless():
    assert len(mistakes(price("1", "person"), price("1", "record", every("P1D")))) == 2
    assert "more than 32 prices" in mistakes(*[price("1", "record") for _ in range(PRICES_MAX + 1)])[0]


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


def test_a_currency_of_a_price_may_be_named_as_examples_of_odrl_name_it():
    document = priced(leaf("odrl:payAmount", "eq", "1", **{"odrl:unit": {"@id": "http://dbpedia.org/resource/Euro"}}), unit("record"))
    assert plan(document).currency == "EUR"


@pytest.mark.parametrize(
    ("template", "parameters", "costs"),
    [
        ("unit-price", {"unit": "qiao:megabyte", "price": "0.50"}, 1_000_000_000 // 1_000_000 * 50),
        ("unit-price-beyond", {"free": 40, "price": "0.02"}, 120),
        ("subscription", {"price": "9.99", "every": "P1W"}, 999 * 5),
        ("persons", {"persons": 12, "price": "2.50"}, 3000),
        ("price", {"price": "0.0200"}, 200),
    ],
)
def test_the_templates_of_prices_are_read_as_what_they_say(template: str, parameters: dict[str, Any], costs: int):
    made = instantiate(library(), [{"template": template, "parameters": parameters}])
    found = plan_of(load({**agreement(), "permission": made["permission"]}, options=options()))
    assert found is not None
    assert found.cost(Counts(bytes=10**9, records=100), LATER) == costs


# Paying.


@pytest.mark.parametrize(
    ("duty", "amounts", "paid"),
    [
        (price("0.02", "record"), {EUR: Fraction("12.34")}, True),
        (price("0.02", "record"), {"http://www.w3.org/ns/odrl/2/payAmount http://dbpedia.org/resource/Euro": 1}, True),
        (price("0.02", "record"), {EUR: 0}, False),
        (price("0.02", "record"), {EUR.replace("EUR", "USD"): 5}, False),
        (price("0.02", "record"), {"http://www.w3.org/ns/odrl/2/payAmount": 5}, False),
        (price("2.50", "person", count("eq", 4)), {EUR: 10}, True),
        (price("2.50", "person", count("eq", 4)), {EUR: Fraction("9.99")}, False),
        (price("0", "record"), {}, True),
    ],
)
def test_a_price_is_paid_by_what_it_comes_to(duty: dict[str, Any], amounts: dict[str, Any], paid: bool):
    read = policy(duty)
    (found,) = read.permissions[0].duties
    assert pays(read, found, Event(SIGNED, "odrl:compensate", amounts=amounts)) is paid
    assert pays(read, found, Event(SIGNED, "odrl:delete", amounts=amounts)) is False


def test_what_has_no_price_is_no_matter_of_paying_it():
    read = policy({"action": "odrl:compensate"}, price("1", "record"))
    assert pays(read, read.permissions[0].duties[0], Event(SIGNED, "odrl:compensate")) is None
    unread = policy(priced(unit("record")))
    assert pays(unread, unread.permissions[0].duties[0], Event(SIGNED, "odrl:compensate")) is None


def test_what_is_metered_is_not_paid_for_before_it_is_used():
    (mistake,) = mistakes(priced(money("1"), unit("record"), constraints=()))
    assert mistake.startswith("/permission/0/duty/0: records are paid for before any of them is used, so none ever is; add the constraint")
    assert plan(priced(money("1"), unit("subscription"), constraints=())).cost(NOTHING, LATER) == 100


def test_the_price_that_the_readme_of_policies_shows_is_what_it_says():
    shown = re.findall(r"```json\n(.*?)```", (POLICIES / "README.md").read_text(), re.DOTALL)[1]
    found = plan(json.loads(shown))
    assert [found.cost(Counts(records=number), LATER) for number in (1000, 1001, 1050)] == [0, 2, 100]
