from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.odrl import Options, Vocabulary, load
from connector.odrl.judges import (
    all_of,
    always,
    any_of,
    in_order,
    instants,
    judge_of,
    lengths,
    nobody_knows,
    numbers,
    one_of,
    turns,
    turns_in_order,
)
from connector.odrl.model import DEFAULT_OPTIONS, FALSE, NEVER, TRUE, UNKNOWN, Fact, Facts, Judge, Lapse, Logic, Members, Since, Span, Test
from connector.odrl.operands import COUNT, DATE_TIME, DELAY_PERIOD, ELAPSED_TIME, PURPOSE
from connector.odrl.registry import Operand, Registry, registry_of
from connector.odrl.values import DAY, length, stretch
from tests.odrl.cases import leaf, offer, purpose, rule, time

VALUES = (FALSE, UNKNOWN, TRUE)
CORE = registry_of(DEFAULT_OPTIONS)
MEMBER = "urn:example:member"
ORDERED = ("lt", "lteq", "gt", "gteq", "eq", "neq")
CONCEPTS = Vocabulary(
    "urn:v",
    broader={"oncology": ("medicine",), "medicine": ("research",), "advertising": ("marketing",)},
    parts={"guangzhou": ("guangdong",), "guangdong": ("china",), "shenzhen": ("guangdong",), "paris": ("france",)},
    same=(("cancer", "oncology"),),
)
KNOWING = registry_of(Options(vocabularies=(CONCEPTS,)))


def judged(iri: str, test: Test, fact: Fact | None, registry: Registry = CORE) -> int:
    operand = registry.operands.get(iri) or Operand(MEMBER, "member", "成员", "term", "subject", frozenset(), "claims", "verified")
    return judge_of(operand, test, registry)({} if fact is None else {iri: fact})


def say(*states: int) -> list[Judge]:
    return [lambda _facts, state=state: state for state in states]  # type: ignore[misc]


# --- Kleene's tables


@pytest.mark.parametrize(("a", "b"), list(product(VALUES, VALUES)))
def test_and_is_the_least_and_or_the_greatest(a: int, b: int) -> None:
    assert all_of(say(a, b))({}) == min(a, b)
    assert any_of(say(a, b))({}) == max(a, b)


XONE = {
    (FALSE, FALSE): FALSE, (FALSE, UNKNOWN): UNKNOWN, (FALSE, TRUE): TRUE,
    (UNKNOWN, UNKNOWN): UNKNOWN, (UNKNOWN, TRUE): UNKNOWN, (TRUE, TRUE): FALSE,
}  # fmt: skip


@pytest.mark.parametrize(("a", "b"), list(product(VALUES, VALUES)))
def test_xone_is_one_and_no_other(a: int, b: int) -> None:
    assert one_of(say(a, b))({}) == XONE[min(a, b), max(a, b)]


@given(st.lists(st.sampled_from(VALUES), min_size=1, max_size=6))
def test_unknown_stands_for_either_so_a_definite_answer_holds_for_both(states: list[int]) -> None:
    """And unknown is said only where it would not."""
    ways = list(product(*[(FALSE, TRUE) if state == UNKNOWN else (state,) for state in states]))
    kinds: list[tuple[Callable[[Sequence[Judge]], Judge], Callable[[tuple[int, ...]], bool]]] = [
        (all_of, lambda way: min(way) == TRUE), (any_of, lambda way: max(way) == TRUE), (one_of, lambda way: way.count(TRUE) == 1),
    ]  # fmt: skip
    for kind, meaning in kinds:
        state = kind(say(*states))({})
        certain = {TRUE if meaning(way) else FALSE for way in ways}
        assert state == (certain.pop() if len(certain) == 1 else UNKNOWN)


def test_of_nothing_and_is_true_and_or_and_xone_are_false() -> None:
    assert (all_of([])({}), any_of([])({}), one_of([])({})) == (TRUE, FALSE, FALSE)


def test_what_nobody_understands_is_unknown_and_nothing_is_asked_by_nothing() -> None:
    assert (nobody_knows({}), always({})) == (UNKNOWN, TRUE)


# --- operators on values that have an order


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
    window = instants(operator, stretch("2026-06-15Z"))
    states = [judged(DATE_TIME, window, stretch(moment).start) == TRUE for moment in at]
    assert states == [before, first, middle, last, after]


BESIDE = {"lt": (True, False, False), "lteq": (True, True, False), "gt": (False, False, True), "gteq": (False, True, True),
          "eq": (False, True, False), "neq": (True, False, True)}  # fmt: skip


@pytest.mark.parametrize("operator", ORDERED)
def test_an_instant_is_compared_in_utc(operator: str) -> None:
    at = ("2026-06-15T11:59:59.999999Z", "2026-06-15T12:00:00Z", "2026-06-15T12:00:00.000001Z")
    window = instants(operator, stretch("2026-06-15T14:00:00+02:00"))
    assert tuple(judged(DATE_TIME, window, stretch(moment).start) == TRUE for moment in at) == BESIDE[operator]


@pytest.mark.parametrize("operator", ORDERED)
def test_numbers_are_dense_and_exact(operator: str) -> None:
    least = Fraction(1, 10**30)
    assert tuple(judged(COUNT, numbers(operator, 10), value) == TRUE for value in (10 - least, 10, 10 + least)) == BESIDE[operator]
    tenth = numbers(operator, Fraction(1, 10))
    assert judged(COUNT, tenth, Fraction("0.1")) == (TRUE if BESIDE[operator][1] else FALSE)


@pytest.mark.parametrize("operator", ORDERED)
def test_a_running_duration_is_measured_by_the_calendar(operator: str) -> None:
    anchor = stretch("2026-01-31T00:00:00Z").start
    month = lengths(operator, Span(1, 0))  # until the last day of February
    end = stretch("2026-02-28T00:00:00Z").start
    assert tuple(judged(ELAPSED_TIME, month, Since(anchor, now)) == TRUE for now in (end - 1, end, end + 1)) == BESIDE[operator]


def test_months_without_an_anchor_are_as_short_or_as_long_as_one_can_be() -> None:
    longer = lengths("gt", Span(1, 0))
    states = {days: judged(ELAPSED_TIME, longer, days * DAY) for days in (27, 28, 30, 31, 32)}
    assert states == {27: FALSE, 28: FALSE, 30: UNKNOWN, 31: UNKNOWN, 32: TRUE}
    at_most = lengths("lteq", Span(1, 0))
    assert {days: judged(ELAPSED_TIME, at_most, days * DAY) for days in states} == {27: TRUE, 28: TRUE, 30: UNKNOWN, 31: UNKNOWN, 32: FALSE}
    assert judged(ELAPSED_TIME, lengths("eq", Span(1, 0)), 30 * DAY) == UNKNOWN
    assert judged(ELAPSED_TIME, lengths("eq", Span(1, 0)), 40 * DAY) == FALSE
    assert judged(ELAPSED_TIME, lengths("neq", Span(1, 0)), 40 * DAY) == TRUE


def test_thirty_days_are_exact_without_an_anchor_too() -> None:
    days = lengths("lteq", Span(0, 30 * DAY))
    assert [judged(ELAPSED_TIME, days, length) for length in (30 * DAY, 30 * DAY + 1)] == [TRUE, FALSE]


def test_a_duration_that_ends_beyond_the_calendar_is_never_reached() -> None:
    assert judged(ELAPSED_TIME, lengths("gteq", Span(12 * 9000, 0)), Since(0, 10**18)) == FALSE


def test_a_use_that_has_not_been_is_longer_ago_than_anything() -> None:
    assert judged(ELAPSED_TIME, lengths("gteq", Span(12 * 9000, 0)), NEVER) == TRUE
    assert judged(ELAPSED_TIME, lengths("lteq", Span(12 * 9000, 0)), NEVER) == FALSE


def test_an_event_lies_before_now_around_it_or_after_it() -> None:
    """The six operators as `load` reads them: `lt` before it, `eq` in it, `gt` after it."""
    states = {}
    for operator in ORDERED:
        node = load(offer(rule(leaf("odrl:event", operator, {"@id": "urn:fair"})))).permissions[0].constraints[0]
        key = "http://www.w3.org/ns/odrl/2/event urn:fair"
        states[operator] = tuple(node.judge({key: phase}) == TRUE for phase in ("before", "during", "after"))
        assert node.judge({}) == UNKNOWN
    assert states == BESIDE


# --- operators on terms


def members(operator: str, *values: str) -> Members:
    return Members(frozenset(values), operator)


@pytest.mark.parametrize(
    ("operator", "values", "yes", "no"),
    [
        ("eq", ("a",), ("a",), ("b",)),
        ("neq", ("a",), ("b",), ("a",)),
        ("isAnyOf", ("a", "b"), ("a", "b"), ("c",)),
        ("isNoneOf", ("a", "b"), ("c",), ("a", "b")),
        ("isAllOf", ("a",), ("a",), ("b",)),
        ("isAllOf", ("a", "b"), (), ("a", "b", "c")),  # one act has one purpose
        ("isA", ("research",), ("research", "medicine", "oncology", "cancer"), ("marketing", "advertising")),
        ("isA", ("oncology",), ("oncology", "cancer"), ("medicine",)),
        ("isPartOf", ("china", "france"), ("china", "guangzhou"), ()),
        ("isPartOf", ("guangdong", "france"), ("guangzhou", "paris"), ("china",)),
        ("hasPart", ("guangzhou",), ("guangzhou", "guangdong", "china"), ("shenzhen", "paris")),
        ("hasPart", ("guangzhou", "paris"), (), ("china", "guangzhou")),
    ],
)
def test_operators_on_the_one_value_of_an_act(operator: str, values: tuple[str, ...], yes: tuple[str, ...], no: tuple[str, ...]) -> None:
    test = members(operator, *values)
    assert [judged(PURPOSE, test, value, KNOWING) for value in yes] == [TRUE] * len(yes)
    assert [judged(PURPOSE, test, value, KNOWING) for value in no] == [FALSE] * len(no)


@pytest.mark.parametrize(
    ("operator", "values", "yes", "no"),
    [
        ("eq", "a", ("a",), ("ab", "b")),
        ("neq", "a", ("ab", "b"), ("a",)),
        ("isAnyOf", "ab", ("a", "ac", "ab"), ("c", "cd")),
        ("isNoneOf", "ab", ("c", "cd"), ("a", "ac")),
        ("isAllOf", "ab", ("ab", "abc"), ("a", "c", "ac")),
    ],
)
def test_operators_on_all_the_values_of_a_subject(operator: str, values: str, yes: tuple[str, ...], no: tuple[str, ...]) -> None:
    test = members(operator, *values)
    assert [judged(MEMBER, test, frozenset(has)) for has in yes] == [TRUE] * len(yes)
    assert [judged(MEMBER, test, frozenset(has)) for has in no] == [FALSE] * len(no)


def test_a_subject_of_the_right_kinds_is_matched_through_the_vocabulary() -> None:
    assert judged(MEMBER, members("isA", "research"), frozenset({"marketing", "cancer"}), KNOWING) == TRUE
    assert judged(MEMBER, members("isPartOf", "china"), frozenset({"guangzhou", "paris"}), KNOWING) == FALSE


@pytest.mark.parametrize("operator", ["isA", "isPartOf", "hasPart"])
@pytest.mark.parametrize("value", ["urn:made:up", "Research", "MEDICINE"])
def test_what_a_concept_is_that_no_vocabulary_names_nobody_knows(operator: str, value: str) -> None:
    known = "research" if operator == "isA" else "china"
    for fact in (value, frozenset({value})):
        operand = PURPOSE if isinstance(fact, str) else MEMBER
        assert judged(operand, members(operator, known), fact, KNOWING) == UNKNOWN
        assert judged(operand, members(operator, known), fact) == UNKNOWN  # without any vocabulary
        assert judged(operand, members(operator, value), fact) == TRUE  # but it is itself
    assert judged(MEMBER, members(operator, known), frozenset({value, known}), KNOWING) == (UNKNOWN if operator == "isPartOf" else TRUE)


def test_what_one_vocabulary_names_does_not_stand_beside_what_another_one_names() -> None:
    other = Vocabulary("urn:w", broader={"sales": ("trade",)}, disjoint=(("trade", "research"),))
    another = Vocabulary("urn:u", broader={"sports": ("leisure",)})
    known = registry_of(Options(vocabularies=(CONCEPTS, other, another)))
    assert judged(PURPOSE, members("isA", "medicine"), "sports", known) == UNKNOWN
    assert judged(PURPOSE, members("isA", "medicine"), "sales", known) == FALSE  # somebody keeps what it lies below apart
    assert judged(PURPOSE, members("isA", "medicine"), "marketing", known) == FALSE  # one vocabulary names both


# --- what is not known


TESTS: list[tuple[str, Test]] = [
    (DATE_TIME, instants("lt", stretch("2026-06-15Z"))), (DATE_TIME, instants("neq", stretch("2026-06-15Z"))),
    (COUNT, numbers("lteq", 5)), (COUNT, numbers("neq", 5)), (ELAPSED_TIME, lengths("neq", Span(1, 0))),
    *((PURPOSE, members(operator, "a")) for operator in ("eq", "neq", "isAnyOf", "isNoneOf", "isAllOf", "isA", "isPartOf", "hasPart")),
]  # fmt: skip


@pytest.mark.parametrize(("iri", "test"), TESTS)
def test_a_missing_fact_is_unknown_whatever_the_operator(iri: str, test: Test) -> None:
    assert judged(iri, test, None) == UNKNOWN


@pytest.mark.parametrize(("iri", "test"), TESTS)
def test_a_fact_of_another_sort_is_unknown(iri: str, test: Test) -> None:
    others: list[Fact] = [5, Fraction(1, 2)] if isinstance(test, Members) else ["5", frozenset({"5"})]
    if iri == COUNT:
        others.append(Since(0, 5))
    assert [judged(iri, test, other) for other in others] == [UNKNOWN] * len(others)


# --- sequences


def sequence(*parts: dict[str, Any]) -> Logic:
    node = load(offer(rule({"andSequence": {"@list": list(parts)}}))).permissions[0].constraints[0]
    assert isinstance(node, Logic)
    return node


def at(text: str, **more: Fact) -> Facts:
    return {DATE_TIME: stretch(text).start, **{f"http://www.w3.org/ns/odrl/2/{name}": fact for name, fact in more.items()}}


def delay(operator: str, text: str) -> dict[str, Any]:
    return leaf("odrl:delayPeriod", operator, text)


def test_windows_of_a_sequence_may_have_held_before() -> None:
    node = sequence(time("eq", "2026-06-01Z"), time("gteq", "2026-06-10Z"))
    days = ("2026-06-01T12:00:00Z", "2026-06-05Z", "2026-06-10Z", "2027-01-01Z")
    assert [node.judge(at(day)) for day in days] == [FALSE, FALSE, TRUE, TRUE]


def test_windows_in_the_wrong_order_never_hold() -> None:
    node = sequence(time("gteq", "2026-06-10Z"), time("lt", "2026-06-10Z"))
    assert [node.judge(at(day)) for day in ("2026-06-01Z", "2026-06-10Z", "2027-01-01Z")] == [FALSE] * 3


def test_a_delay_runs_from_when_the_part_before_it_held() -> None:
    node = sequence(time("gteq", "2026-06-01Z"), delay("gteq", "P3D"))
    days = ("2026-05-31Z", "2026-06-01Z", "2026-06-03T23:59:59.999999Z", "2026-06-04Z", "2027-01-01Z")
    assert [node.judge(at(day)) for day in days] == [FALSE, FALSE, FALSE, TRUE, TRUE]


def test_a_delay_has_an_end_if_it_is_given_one() -> None:
    node = sequence(time("gteq", "2026-06-01Z"), delay("lteq", "P3D"))
    days = ("2026-05-31Z", "2026-06-01Z", "2026-06-04Z", "2026-06-04T00:00:00.000001Z")
    assert [node.judge(at(day)) for day in days] == [FALSE, TRUE, TRUE, FALSE]


def test_after_a_delay_a_window_is_entered_when_the_delay_first_held() -> None:
    node = sequence(time("gteq", "2026-06-01Z"), delay("gteq", "P3D"), time("lt", "2026-06-10Z"))
    assert [node.judge(at(day)) for day in ("2026-06-03Z", "2026-06-04Z", "2027-01-01Z")] == [FALSE, TRUE, TRUE]
    late = sequence(time("gteq", "2026-06-01Z"), delay("gteq", "P30D"), time("lt", "2026-06-10Z"))
    assert late.judge(at("2027-01-01Z")) == FALSE


def test_a_delay_without_a_part_before_it_runs_from_its_own_anchor() -> None:
    node = sequence(delay("gteq", "P1D"), time("gteq", "2026-06-01Z"))
    now = stretch("2026-06-02Z").start
    assert node.judge(at("2026-06-02Z", delayPeriod=Since(now - DAY, now))) == TRUE
    assert node.judge(at("2026-06-02Z", delayPeriod=Since(now - DAY + 1, now))) == FALSE
    assert node.judge(at("2026-06-02Z")) == UNKNOWN


def test_of_everything_else_in_a_sequence_only_the_present_is_known() -> None:
    node = sequence(purpose("eq", "a"), delay("gteq", "P1D"))
    assert node.judge(at("2026-06-02Z", purpose="a")) == FALSE  # the purpose is stated now, and no day has gone by since
    assert node.judge(at("2026-06-02Z", purpose="b")) == FALSE
    both = sequence(time("gteq", "2026-06-01Z"), purpose("eq", "a"))
    assert [both.judge(at(day, purpose="a")) for day in ("2026-05-01Z", "2026-06-02Z")] == [FALSE, TRUE]
    assert both.judge(at("2026-06-02Z")) == UNKNOWN


def test_without_a_clock_no_sequence_is_judged() -> None:
    assert sequence(purpose("eq", "a"), purpose("neq", "b")).judge({PURPOSE: "a"}) == UNKNOWN


@given(
    st.lists(
        st.one_of(
            st.builds(lambda op, day: time(op, f"2026-06-{day:02}Z"), st.sampled_from(("gteq", "lteq", "eq")), st.integers(1, 28)),
            st.builds(lambda op, days: delay(op, f"P{days}D"), st.sampled_from(("gteq", "lteq", "gt")), st.integers(1, 9)),
            st.just(purpose("eq", "a")),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_between_the_instants_that_it_names_a_sequence_does_not_change(parts: list[dict[str, Any]]) -> None:
    found = load(offer(rule({"andSequence": {"@list": parts}})))
    node = found.permissions[0].constraints[0]
    points = sorted({*found.instants, *turns_in_order(node)})
    for low, high in pairwise(points):
        states = {node.judge({DATE_TIME: now, PURPOSE: "a"}) for now in (low, (low + high) // 2, high - 1)}
        assert len(states) == 1


def test_a_duration_turns_at_its_lengths_and_just_behind_them() -> None:
    assert list(turns(0, Lapse(Span(0, DAY), Span(0, 2 * DAY)))) == [DAY, DAY + 1, 2 * DAY, 2 * DAY + 1]
    assert list(turns(0, lengths("lteq", length("P1D")[0]))) == [DAY, DAY + 1]
    assert list(turns_in_order(load(offer(rule(purpose("eq", "a")))).permissions[0].constraints[0])) == []


def test_in_order_of_one_part_is_that_part() -> None:
    node = load(offer(rule(delay("gteq", "P1D")))).permissions[0].constraints[0]
    judge = in_order([node])
    assert judge({DATE_TIME: 0, DELAY_PERIOD: Since(-DAY, 0)}) == TRUE
    assert judge({DATE_TIME: 0, DELAY_PERIOD: Since(0, 0)}) == FALSE
