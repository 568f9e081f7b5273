import pytest

from connector.odrl.model import FALSE, TRUE, UNKNOWN, Members, Window
from connector.odrl.operands import DATE_TIME, OPERANDS, PURPOSE, all_of, any_of, judge_of, nobody_knows, window
from connector.odrl.values import span

DAY = span("2026-06-15Z")
INSTANT = span("2026-06-15T12:00:00Z")
VALUES = (FALSE, UNKNOWN, TRUE)


def judged(operator: str, right: str, at: str) -> bool:
    state = judge_of(DATE_TIME, window(operator, span(right)))({DATE_TIME: span(at).start})
    assert state in {TRUE, FALSE}
    return state == TRUE


@pytest.mark.parametrize(
    ("operator", "before", "first", "middle", "last", "after"),
    [
        ("lt", True, False, False, False, False),
        ("lteq", True, True, True, True, False),
        ("gt", False, False, False, False, True),
        ("gteq", False, True, True, True, True),
        ("eq", False, True, True, True, False),
        ("neq", True, False, False, False, True),
    ],
)
def test_a_day_is_an_interval(operator: str, before: bool, first: bool, middle: bool, last: bool, after: bool) -> None:
    at = (
        "2026-06-14T23:59:59.999999Z",
        "2026-06-15T00:00:00Z",
        "2026-06-15T12:00:00Z",
        "2026-06-15T23:59:59.999999Z",
        "2026-06-16T00:00:00Z",
    )
    assert [judged(operator, "2026-06-15Z", moment) for moment in at] == [before, first, middle, last, after]


@pytest.mark.parametrize(
    ("operator", "before", "exactly", "after"),
    [
        ("lt", True, False, False),
        ("lteq", True, True, False),
        ("gt", False, False, True),
        ("gteq", False, True, True),
        ("eq", False, True, False),
        ("neq", True, False, True),
    ],
)
def test_an_instant_is_compared_in_utc(operator: str, before: bool, exactly: bool, after: bool) -> None:
    at = ("2026-06-15T11:59:59.999999Z", "2026-06-15T12:00:00Z", "2026-06-15T12:00:00.000001Z")
    assert [judged(operator, "2026-06-15T14:00:00+02:00", moment) for moment in at] == [before, exactly, after]


def test_members_are_among_the_values_or_not() -> None:
    among = judge_of(PURPOSE, Members(frozenset({"a", "b"})))
    outside = judge_of(PURPOSE, Members(frozenset({"a", "b"}), negated=True))
    assert [among({PURPOSE: value}) for value in ("a", "c")] == [TRUE, FALSE]
    assert [outside({PURPOSE: value}) for value in ("a", "c")] == [FALSE, TRUE]


@pytest.mark.parametrize("test", [Window(0, 1), Window(0, 1, negated=True), Members(frozenset("a")), Members(frozenset("a"), negated=True)])
def test_a_missing_fact_is_unknown_and_never_false(test: Window | Members) -> None:
    assert judge_of(DATE_TIME, test)({}) == UNKNOWN


@pytest.mark.parametrize("a", VALUES)
@pytest.mark.parametrize("b", VALUES)
def test_and_is_the_least_and_or_the_greatest(a: int, b: int) -> None:
    judges = [lambda _facts: a, lambda _facts: b]
    assert all_of(judges)({}) == min(a, b)
    assert any_of(judges)({}) == max(a, b)


def test_a_rule_without_constraints_is_true() -> None:
    assert all_of([])({}) == TRUE


def test_what_nobody_understands_is_unknown() -> None:
    assert nobody_knows({}) == UNKNOWN


def test_every_operand_is_found_by_its_own_name() -> None:
    assert all(iri == operand.iri and operand.operators for iri, operand in OPERANDS.items())
