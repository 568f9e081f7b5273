from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings

from connector.odrl.model import FALSE, TRUE, UNKNOWN, Constraint, Members, Policy, Span
from connector.odrl.operands import CORE_OPERANDS, PARTICIPANT
from connector.odrl.registry import registry_of
from connector.odrl.values import DAY, EPOCH, after, microseconds
from connector.odrl_compare.axes import PARTY_AXIS, axis_of, calendars, cone, first_value, members, sides_of
from connector.odrl_compare.sides import HIGH, LOW, Crowd, Line, Names
from tests.odrl_compare.cases import OPTIONS, a_leaf, holds, read, seeds, some_facts

REGISTRY = registry_of(OPTIONS)


def constraint(leaf: dict) -> Constraint:
    """The one constraint of a policy; a list on an ordered operand has several parts, of which the first."""
    policy: Policy = read({"@id": "urn:o", "@type": "Offer", "permission": [{"action": "use", "constraint": [leaf]}]})
    (node,) = policy.permissions[0].constraints
    return node if isinstance(node, Constraint) else node.parts[0]


@settings(max_examples=400)
@given(seeds)
def test_a_value_lies_in_the_side_of_a_constraint_if_and_only_if_its_judge_says_so(chance: Random):
    node = constraint(a_leaf(chance))
    axis = axis_of(REGISTRY, node)
    true = sides_of(axis, node, REGISTRY, {}, holds=True)
    false = sides_of(axis, node, REGISTRY, {}, holds=False)
    for _ in range(20):
        facts = some_facts(chance)
        state, value = node.judge(facts), facts.get(axis.key)
        assert any(holds(side, value) for side in true) == (state == TRUE)
        assert any(holds(side, value) for side in false) == (state == FALSE)
        if isinstance(node, Constraint) and node.operator not in ("isA", "isPartOf", "hasPart"):
            assert (value is None) == (state == UNKNOWN)


def number(left: str, operator: str, value: str, unit: str = "") -> dict:
    right = {"@value": value, "@type": "xsd:decimal"}
    return {"leftOperand": left, "operator": operator, "rightOperand": right} | ({"odrl:unit": unit} if unit else {})


@pytest.mark.parametrize("operand", [row for row in CORE_OPERANDS if row.values == "number"], ids=lambda row: row.label)
@pytest.mark.parametrize(
    ("operator", "inner"), [("lt", (-1,)), ("lteq", (-1, 0)), ("gt", (1,)), ("gteq", (0, 1)), ("eq", (0,)), ("neq", (-1, 1))]
)
def test_an_ordering_operator_ends_exactly_at_its_value(operand, operator: str, inner: tuple[int, ...]):
    node = constraint(number(operand.iri, operator, "7"))
    (side,) = sides_of(axis_of(REGISTRY, node), node, REGISTRY, {}, holds=True)
    assert [step for step in (-1, 0, 1) if holds(side, 7 + step)] == list(inner)


def test_a_counter_counts_the_use_that_is_asked_for_and_so_begins_at_one():
    node = constraint(number("odrl:count", "lteq", "0"))
    assert sides_of(axis_of(REGISTRY, node), node, REGISTRY, {}, holds=True) == ()
    node = constraint(number("odrl:payAmount", "lteq", "0"))
    assert sides_of(axis_of(REGISTRY, node), node, REGISTRY, {}, holds=True) == (Line((((0, 0), (0, 1)),)),)


def test_who_asks_is_one_axis_whether_by_assignee_or_by_operand():
    node = Constraint("", PARTICIPANT, "eq", ("a",), Members(frozenset({"a"}), "eq"), lambda _: TRUE)
    assert axis_of(REGISTRY, node) is PARTY_AXIS


def test_units_make_axes():
    keys = {axis_of(REGISTRY, constraint(number("odrl:payAmount", "eq", "1", unit))).key for unit in ("", "urn:unit:eur", "urn:unit:usd")}
    assert len(keys) == 3


def test_all_of_two_is_nothing_for_one_value_and_something_for_a_subject():
    both = Members(frozenset({"urn:t:a", "urn:t:b"}), "isAllOf")
    purpose, role = (
        axis_of(REGISTRY, Constraint("", iri, "isAllOf", (), both, lambda _: TRUE))
        for iri in ("http://www.w3.org/ns/odrl/2/purpose", "urn:t:role")
    )
    assert members(purpose, both, REGISTRY, holds=True) == ()
    (crowd,) = members(role, both, REGISTRY, holds=True)
    assert isinstance(crowd, Crowd)
    assert holds(crowd, frozenset({"urn:t:a", "urn:t:b", "urn:t:c"}))
    assert not holds(crowd, frozenset({"urn:t:a"}))


def test_the_cone_of_an_action_is_what_is_included_in_it():
    names = cone(REGISTRY, "http://www.w3.org/ns/odrl/2/play").values
    assert names == {"http://www.w3.org/ns/odrl/2/play", "http://www.w3.org/ns/odrl/2/display"}


@pytest.mark.parametrize("months", [{1}, {2}, {12}, {1, 3}, {48}, {5, 4801}])
def test_a_calendar_gives_each_count_of_months_the_days_that_it_has(months: set[int]):
    found = calendars(frozenset(months))
    for day, lengths in found:
        start = EPOCH + timedelta(days=day)
        for count, days in lengths:
            end = after(microseconds(start) or 0, Span(count % 4800, 0))
            assert days == (count // 4800) * 146_097 + ((end or 0) - (microseconds(start) or 0)) // DAY
    assert {days for _, lengths in calendars(frozenset({1})) for _, days in lengths} == {28, 29, 30, 31}


def test_the_calendars_hold_every_day_of_eight_years():
    known = {lengths for _, lengths in calendars(frozenset({1, 6}))}
    start = datetime(2024, 1, 1, tzinfo=UTC)
    for day in range(8 * 365):
        at = microseconds(start + timedelta(days=day)) or 0
        lengths = tuple((count, ((after(at, Span(count, 0)) or 0) - at) // DAY) for count in (1, 6))
        assert lengths in known, start + timedelta(days=day)


@settings(max_examples=200)
@given(seeds)
def test_the_first_value_of_a_line_lies_in_it(chance: Random):
    cuts = sorted({(chance.randint(-5, 5), chance.randint(0, 1)) for _ in range(2)})
    low = chance.choice((LOW, cuts[0]))
    high = chance.choice((HIGH, cuts[-1] if cuts[-1] > cuts[0] else (cuts[0][0] + 1, 1)))
    assert holds(Line(((low, high),)), first_value(Line(((low, high),)), integral=False))


def test_names_without_a_vocabulary_stand_alone():
    axis = axis_of(REGISTRY, constraint({"leftOperand": "odrl:purpose", "operator": "isA", "rightOperand": "urn:t:new"}))
    (side,) = members(axis, Members(frozenset({"urn:t:new"}), "isA"), REGISTRY, holds=True)
    assert isinstance(side, Names)
    assert side.values == {"urn:t:new"}
