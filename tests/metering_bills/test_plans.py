import json
import re
from fractions import Fraction
from typing import Any

import pytest

from connector.errors import PolicyError
from connector.metering_bills.currencies import CURRENCY
from connector.metering_bills.plans import PRICES_MAX, pays, plan_of
from connector.metering_bills.prices import UNITS
from connector.odrl import load
from connector.odrl.model import Event
from connector.odrl.operands import PAY_AMOUNT
from connector.odrl_forms.templates import instantiate
from connector.records.metering import Counts
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
