"""That nobody gets terms at other prices than somebody has put on offer, however much less they ask for."""

from typing import Any

import pytest

from connector.control.terms import OTHER_PRICES, settle
from connector.odrl import load
from tests.metering_bills.priced import count, every, money, price, priced, unit
from tests.odrl.cases import offer, rule
from tests.odrl_forms.shipped import options


@pytest.mark.parametrize(
    ("asked", "offered", "kind"),
    [
        ([price("1", "record")], [price("1", "record")], "refines"),
        ([price("1", "record"), price("2", "call")], [price("2", "call"), price("1.0", "record")], "refines"),
        ([price("1", "record", count("gt", 5))], [price("1", "record")], "undecided"),
        ([price("1", "record", count("lteq", 5))], [price("1", "record")], "undecided"),
        ([price("1", "record"), price("1", "record")], [price("1", "record")], "undecided"),
        ([price("1", "record")], [], "undecided"),
        ([price("9", "subscription", every("P1Y"))], [price("9", "subscription")], "undecided"),
        ([priced(money("1"), unit("parsec"))], [price("1", "record")], "undecided"),
    ],
)
def test_terms_at_other_prices_are_for_a_person_however_narrow_they_are(asked: list[Any], offered: list[Any], kind: str):
    narrow = {"leftOperand": "odrl:purpose", "operator": "eq", "rightOperand": "research"}
    one = load(offer(rule(narrow, duty=asked)), options=options())
    other = load(offer(rule(**({"duty": offered} if offered else {}))), options=options())
    found = settle(one, other, party="did:web:c.example", target="urn:d", options=options())
    assert found.kind == kind
    assert kind == "refines" or OTHER_PRICES in found.says or "cannot be written" in found.says[0]


def test_where_neither_lies_within_the_other_no_counter_offer_has_other_prices_than_the_offer():
    research, quality = (
        {"leftOperand": "odrl:purpose", "operator": "isAnyOf", "rightOperand": list(of)} for of in (("a", "b"), ("b", "c"))
    )
    one = load(offer(rule(research, duty=[price("1", "record", count("gt", 5))])), options=options())
    other = load(offer(rule(quality, duty=[price("1", "record")])), options=options())
    found = settle(one, other, party="did:web:c.example", target="urn:d", options=options())
    assert found.kind == "undecided"


def test_the_offer_itself_is_what_both_have_in_common_where_it_is_the_narrower_one_and_at_its_own_prices():
    narrow = {"leftOperand": "odrl:purpose", "operator": "eq", "rightOperand": "research"}
    wide = load(offer(rule()), options=options())
    envelope = load(offer(rule(narrow, duty=[price("1", "record")])), options=options())
    found = settle(wide, envelope, party="did:web:c.example", target="urn:d", options=options())
    assert (found.kind, found.common) == ("overlaps", envelope.document)
