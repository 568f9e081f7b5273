from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import PolicyError
from connector.metering_bills.currencies import CURRENCY, PLACES, currency_of, decimal, exactly


def test_the_codes_are_those_of_iso_4217_with_a_minor_unit_or_none():
    assert len(PLACES) == 164
    assert all(len(code) == 3 and code.isascii() and code.isupper() for code in PLACES)
    assert (PLACES["EUR"], PLACES["CNY"], PLACES["JPY"], PLACES["KWD"], PLACES["CLF"]) == (2, 2, 0, 3, 4)


@pytest.mark.parametrize(
    ("iri", "code"),
    [
        (CURRENCY + "EUR", "EUR"),
        (CURRENCY.replace("http:", "https:") + "CNY", "CNY"),
        ("http://qudt.org/vocab/currency/JPY", "JPY"),
        ("urn:iso:std:iso:4217:USD", "USD"),
        ("http://dbpedia.org/resource/Euro", "EUR"),
    ],
)
def test_a_currency_is_named_by_an_iri(iri: str, code: str):
    assert currency_of(iri) == code


@pytest.mark.parametrize(
    "iri", ["", "EUR", CURRENCY, CURRENCY + "eur", CURRENCY + "XAU", CURRENCY + "HRK", "urn:eur", CURRENCY + "E" * 5000]
)
def test_what_names_no_currency_is_said_to_be_none(iri: str):
    with pytest.raises(PolicyError, match="names no currency of ISO 4217; write it like") as caught:
        currency_of(iri)
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [(1234, "EUR", "12.34"), (5, "EUR", "0.05"), (0, "EUR", "0.00"), (-5, "EUR", "-0.05"), (1234, "JPY", "1234"), (-1, "KWD", "-0.001")],
)
def test_an_amount_is_written_with_the_places_of_its_currency(minor: int, currency: str, text: str):
    assert decimal(minor, currency) == text


@given(st.integers(), st.sampled_from(sorted(PLACES)))
def test_what_is_written_is_the_same_number(minor: int, currency: str):
    whole, _, part = decimal(minor, currency).partition(".")
    assert len(part) == PLACES[currency]
    assert int(whole + part) == minor


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (Fraction(1, 8), "0.125"),
        (Fraction(1, 2), "0.50"),
        (3, "3.00"),
        (Fraction(-1, 1000), "-0.001"),
        (Fraction(1, 10**12), "0.000000000001"),
    ],
)
def test_an_amount_is_written_as_it_is(amount: Fraction, text: str):
    assert exactly(amount, "EUR") == text


def test_what_has_no_end_in_decimals_is_no_amount():
    with pytest.raises(ValueError, match="no end"):
        exactly(Fraction(1, 3), "EUR")
