"""Prices have one name, however a policy writes them; other prices have another."""

from typing import Any

import pytest

from connector.errors import PolicyError
from connector.metering_bills.terms import name_of
from tests.metering_bills.priced import count, every, money, policy, price, priced, unit

RECORD, MONTHLY = price("0.5", "record"), price("10", "subscription", every("P1M"))


def test_what_has_no_price_has_no_name():
    assert name_of(policy()) is None


def test_the_same_prices_have_the_same_name():
    one = name_of(policy(RECORD, MONTHLY))
    assert one is not None
    assert len(one) == 32
    for other in (policy(MONTHLY, RECORD), policy(price("0.50", "record"), MONTHLY), policy(RECORD, MONTHLY, permissions=2)):
        assert name_of(other) == one


OTHERS: dict[str, tuple[dict[str, Any], ...]] = {
    "another amount": (price("0.51", "record"), MONTHLY),
    "another unit": (price("0.5", "megabyte"), MONTHLY),
    "another currency": (price("0.5", "record", currency="USD"), price("10", "subscription", every("P1M"), currency="USD")),
    "a band": (price("0.5", "record", count("gt", 1000)), MONTHLY),
    "another band": (price("0.5", "record", count("lteq", 1000)), MONTHLY),
    "another period": (RECORD, price("10", "subscription", every("P1Y"))),
    "no period": (RECORD, price("10", "subscription")),
    "two of them": (RECORD, price("10", "subscription", count("eq", 2), every("P1M"))),
    "one less": (RECORD,),
    "one twice": (RECORD, RECORD, MONTHLY),
}


def test_other_prices_have_another_name():
    names = [name_of(policy(*duties)) for duties in ((RECORD, MONTHLY), *OTHERS.values())]
    assert None not in names
    assert len(set(names)) == len(names)


def test_who_pays_is_part_of_it():
    assert name_of(policy({**RECORD, "assignee": "did:web:other.example"})) != name_of(policy(RECORD))


def test_prices_that_are_not_understood_have_none():
    with pytest.raises(PolicyError, match="not understood"):
        name_of(policy(priced(money("1"), unit("record"), money("2"))))
