import pytest

from connector.odrl import load
from connector.odrl_compare.boxes import Work
from connector.odrl_compare.saying import said, separation
from connector.odrl_compare.shapes import shape_of
from connector.odrl_compare.sides import GAP
from tests.odrl.cases import leaf, offer, purpose, rule, time
from tests.odrl_compare.cases import EUR, OPTIONS


def amount(left: str, operator: str, value: str, unit: str = "") -> dict:
    return leaf(left, operator, {"@value": value, "@type": "xsd:decimal"}) | ({"odrl:unit": unit} if unit else {})


def shape(*constraints: dict, work: Work | None = None):
    return shape_of(load(offer(rule(*constraints)), options=OPTIONS), work or Work(), {}, OPTIONS)


@pytest.mark.parametrize(
    ("constraint", "sentence"),
    [
        (time("lteq", "2026-12-31Z"), "time is before 2027-01-01T00:00:00Z"),
        (time("gteq", "2026-12-31Z"), "time is not before 2026-12-31T00:00:00Z"),
        (time("eq", "2026-12-31T12:00:00Z"), "time is 2026-12-31T12:00:00Z"),
        (amount("odrl:count", "lteq", "5"), "count of uses is at most 5"),
        (amount("odrl:count", "gt", "5"), "count of uses is at least 6"),
        (amount("odrl:count", "eq", "5"), "count of uses is 5"),
        (amount("odrl:payAmount", "gt", "2.5", EUR), f"amount paid is more than 2.5 in <{EUR}>"),
        (amount("odrl:percentage", "neq", "50"), "percentage is less than 50 or is more than 50 and is at most 100"),
        (leaf("odrl:elapsedTime", "lteq", "P30D"), "elapsed time is at most P30D"),
        (leaf("odrl:elapsedTime", "gt", "P30D"), "elapsed time is more than P30D"),
        (leaf("odrl:elapsedTime", "lt", "P30D"), "elapsed time is less than P30D"),
        (purpose("isAnyOf", ["b", "a"]), "purpose is one of 'a', 'b'"),
        (purpose("eq", "urn:t:x"), "purpose is <urn:t:x>"),
        (purpose("isNoneOf", ["a"]), "purpose is none of 'a'"),
        (leaf("urn:t:role", "isAllOf", ["x", "y"]), "role include 'x' and include 'y'"),
    ],
)
def test_what_is_left_of_an_axis_is_said(constraint: dict, sentence: str):
    found = shape(constraint)
    (box,) = found.boxes
    ((key, side),) = [(key, side) for key, side in box.items() if key != "action"]
    assert said(found.axes[key], side) == sentence


def test_what_is_not_asked_and_what_is_missing():
    found = shape(purpose("eq", "a"))
    axis = found.axes["http://www.w3.org/ns/odrl/2/purpose"]
    assert said(axis, None) == "any purpose"
    assert said(axis, axis.full) == "purpose is anything"
    assert said(axis, GAP) == "no purpose stated"


def apart(one: tuple[dict, ...], other: tuple[dict, ...]) -> tuple[str, str]:
    work = Work()
    first, second = shape(*one, work=work), shape(*other, work=work)
    return separation(work.axes, first.boxes, second.boxes)


def test_the_axis_that_separates_is_named_with_both_sides():
    axis, sentence = apart((purpose("eq", "a"), time("lteq", "2026-12-31Z")), (purpose("eq", "b"),))
    assert axis == "http://www.w3.org/ns/odrl/2/purpose"
    assert sentence == "on purpose they have nothing in common: for the first purpose is 'a', for the second purpose is 'b'"


def test_where_no_single_axis_separates_that_is_said():
    either = {"or": [purpose("eq", "a"), time("lt", "2026-01-01Z")]}
    neither = (purpose("neq", "a"), time("gteq", "2026-01-01Z"))
    assert apart((either,), neither) == ("", "they have nothing in common, on no single axis")


def test_a_policy_that_permits_nothing_separates_itself():
    assert apart((amount("odrl:count", "lt", "1"),), ()) == ("", "the first permits nothing")


def test_who_reads_a_sentence_reads_whose_side_is_which():
    work, names = Work(), ("request", "offer")
    asked, offered = (shape(purpose("eq", each), work=work).boxes for each in ("a", "b"))
    sentence = separation(work.axes, asked, offered, names)[1]
    assert sentence == "on purpose they have nothing in common: for the request purpose is 'a', for the offer purpose is 'b'"
    assert separation(work.axes, asked, [], names)[1] == "the offer permits nothing"
