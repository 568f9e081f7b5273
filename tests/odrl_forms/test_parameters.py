from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import PolicyError
from connector.odrl import values
from connector.odrl.registry import Label
from connector.odrl_forms.parameters import ENTRIES_MAX, TYPES, Parameter, written

PREFIXES = {"ex": "https://ex.example/#"}


def parameter(type_: str, **more: Any) -> Parameter:
    return Parameter("p", type_, Label("p", "参数"), **more)


@pytest.mark.parametrize(
    ("type_", "given", "wire"),
    [
        ("term", "research", "research"),
        ("term", "ex:a", {"@id": "https://ex.example/#a"}),
        ("term", "https://w3id.org/dpv#Marketing", {"@id": "https://w3id.org/dpv#Marketing"}),
        ("term", "two words: said", "two words: said"),
        ("iri", "urn:a:b", {"@id": "urn:a:b"}),
        ("iri", "http://www.w3.org/ns/odrl/2/policyUsage", {"@id": "http://www.w3.org/ns/odrl/2/policyUsage"}),
        ("iri", "odrl:policyUsage", {"@id": "odrl:policyUsage"}),
        ("text", "$.name", "$.name"),
        ("participant", "did:web:a.example", "did:web:a.example"),
        ("date", "2026-12-31", {"@value": "2026-12-31Z", "@type": "xsd:date"}),
        ("date", "2026-12-31+08:00", {"@value": "2026-12-31+08:00", "@type": "xsd:date"}),
        ("instant", "2026-12-31T18:00:00Z", {"@value": "2026-12-31T18:00:00Z", "@type": "xsd:dateTime"}),
        ("instant", "2026-12-31T18:00", {"@value": "2026-12-31T18:00Z", "@type": "xsd:dateTime"}),
        ("duration", "P6M", {"@value": "P6M", "@type": "xsd:duration"}),
        ("integer", 7, {"@value": "7", "@type": "xsd:integer"}),
        ("integer", "007", {"@value": "7", "@type": "xsd:integer"}),
        ("integer", "1e3", {"@value": "1000", "@type": "xsd:integer"}),
        ("decimal", "0.0200", {"@value": "0.0200", "@type": "xsd:decimal"}),
        ("decimal", 0.5, {"@value": "0.5", "@type": "xsd:decimal"}),
        ("decimal", "25e-4", {"@value": "0.0025", "@type": "xsd:decimal"}),
    ],
)  # fmt: skip
def test_a_value_is_written_as_the_literal_of_its_type(type_: str, given: object, wire: object):
    assert written(parameter(type_), given, PREFIXES) == wire


@pytest.mark.parametrize(
    ("of", "given", "message", "fix"),
    [
        (parameter("date"), None, "it is missing", "give a day like `2026-12-31` (UTC, if no zone is given)"),
        (parameter("date"), "2026-02-30", "`2026-02-30`: there is no such day", "give a day like"),
        (parameter("date"), "2026-12-31T00:00:00Z", "`2026-12-31T00:00:00Z` is no date", "give a day like"),
        (parameter("instant"), "2026-12-31", "`2026-12-31` is no instant", "give an instant like"),
        (parameter("date"), 5, "`5` is no plain text", "give a day like"),
        (parameter("duration"), "30 days", "`30 days`: it is no duration", "give a duration like `P30D` (30 days)"),
        (parameter("duration"), "-P1D", "it is negative", "give a duration like"),
        (parameter("integer"), "many", "`many` is no number", "give a whole number like `100`"),
        (parameter("integer"), "1.5", "`1.5` is no whole number", "give a whole number like `100`"),
        (parameter("integer"), True, "it is no number", "give a whole number like `100`"),
        (parameter("integer", low=1), 0, "0 is too small", "give 1 at least"),
        (parameter("decimal", high=Fraction(1, 2)), "0.51", "0.51 is too large", "give 1/2 at most"),
        (parameter("integer"), "9" * 41, "is no number", "give a whole number"),
        (parameter("iri"), "research", "`research` is no IRI", "give an IRI like"),
        (parameter("iri"), "urn:a b", "`urn:a b` is no IRI", "give an IRI like"),
        (parameter("participant"), "a b", "`a b` is no id of a participant", "give the id of a participant like"),
        (parameter("text"), "a\nb", "is no plain text", "give a text of one line"),
        (parameter("text"), " a", "is no plain text", "give a text of one line"),
        (parameter("text"), "", "is no plain text", "give a text of one line"),
        (parameter("text"), "x" * 1001, "is no plain text", "give a text of one line"),
        (parameter("text"), ["a"], "it takes one value, not a list", "give one value"),
        (parameter("text", many=True), [], "it has 0 values", f"give 1 to {ENTRIES_MAX}"),
        (parameter("text", many=True), ["a"] * 101, "it has 101 values", f"give 1 to {ENTRIES_MAX}"),
        (parameter("iri", choices=("ex:a", "ex:b")), "ex:c", "`ex:c` is not among the choices", "choose one of `ex:a`, `ex:b`"),
    ],
)
def test_what_does_not_fit_says_why_and_what_would(of: Parameter, given: object, message: str, fix: str):
    with pytest.raises(PolicyError) as caught:
        written(of, given, PREFIXES)
    assert message in caught.value.message
    assert fix in caught.value.reasons[-1]


def test_a_parameter_of_many_values_takes_one_too():
    assert written(parameter("term", many=True), "a", {}) == ["a"]
    assert written(parameter("term", many=True), ["a", "urn:b"], {}) == ["a", {"@id": "urn:b"}]


def test_a_choice_may_be_given_in_any_spelling():
    assert written(parameter("iri", choices=("ex:a",)), "https://ex.example/#a", PREFIXES) == {"@id": "https://ex.example/#a"}


@given(st.sampled_from(TYPES), st.one_of(st.text(max_size=20), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.text())))
def test_whatever_a_form_gives_becomes_a_literal_or_a_reason(type_: str, given: object):
    reasons: tuple[str, ...] = ()
    try:
        wire = written(parameter(type_), given, PREFIXES)
    except PolicyError as error:
        wire, reasons = "", error.reasons
    assert len(reasons) == 2 or isinstance(wire, str) or wire.keys() <= {"@id", "@value", "@type"}


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15, places=6))
def test_a_number_keeps_its_value(number: Any):
    wire = written(parameter("decimal"), str(number), {})
    assert values.number(wire)[0] == Fraction(number)
    assert "E" not in wire["@value"].upper()
