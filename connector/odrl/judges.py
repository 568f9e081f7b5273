"""Compiles constraints: operator and right operand -> a test, a test -> a closure from the facts to FALSE, UNKNOWN or TRUE.

A fact that is missing, of another sort, or not comparable is UNKNOWN, whatever the operator: a negation does not turn ignorance into yes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from connector.odrl.model import (
    FALSE,
    TRUE,
    UNKNOWN,
    Constraint,
    Cut,
    Facts,
    Judge,
    Lapse,
    Logic,
    Members,
    Node,
    Number,
    Since,
    Span,
    Test,
    Window,
)
from connector.odrl.operands import DATE_TIME, DELAY_PERIOD
from connector.odrl.registry import Operand, Registry
from connector.odrl.values import Stretch, after, bounds


def window(operator: str, start: Number, end: Number, *, dense: bool) -> Window:
    """What an ordering operator means for a right operand that covers `start` to `end`: half-open, or a single dense value.

    A day is an interval: `lteq` a day lasts until its end, `gt` a day begins with the next one (ODRL 2.2 IM writes "valid until the
    end of 2017" as `lteq 2017-12-31`).
    """
    before: Cut = (start, 0)
    behind: Cut = (end, 1) if dense else (end, 0)
    match operator:
        case "lt":
            return Window(None, before)
        case "lteq":
            return Window(None, behind)
        case "gt":
            return Window(behind, None)
        case "gteq":
            return Window(before, None)
    return Window(before, behind, negated=operator == "neq")


def instants(operator: str, right: Stretch) -> Window:
    """The window of an instant or a day."""
    return window(operator, right.start, right.end, dense=False)


def numbers(operator: str, right: Number) -> Window:
    """The window of a number."""
    return window(operator, right, right, dense=True)


def lengths(operator: str, right: Span) -> Lapse:
    """The durations that an ordering operator means."""
    match operator:
        case "lt" | "lteq":
            return Lapse(None, right, end_in=operator == "lteq")
        case "gt" | "gteq":
            return Lapse(right, None, start_in=operator == "gteq")
    return Lapse(right, right, negated=operator == "neq")


def judge_of(operand: Operand, test: Test, registry: Registry) -> Judge:
    """Compile the test of one left operand to a closure over facts."""
    if isinstance(test, Members):
        return _membership(operand.iri, test, registry)
    if isinstance(test, Lapse):
        return _duration(operand.iri, test)
    return _ordered(operand, test)


def _ordered(operand: Operand, test: Window) -> Judge:
    iri, (inside, outside) = operand.iri, (FALSE, TRUE) if test.negated else (TRUE, FALSE)
    if operand.values == "instant":
        start = None if test.start is None else test.start[0]
        end = None if test.end is None else test.end[0]

        def within(facts: Facts) -> int:
            at = facts.get(iri)
            if not isinstance(at, int):
                return UNKNOWN
            return inside if (start is None or at >= start) and (end is None or at < end) else outside

        return within
    low, high = test.start, test.end

    def between(facts: Facts) -> int:
        value = facts.get(iri)
        if value is None or isinstance(value, str | tuple | frozenset):
            return UNKNOWN
        return inside if (low is None or low <= (value, 0)) and (high is None or (value, 1) <= high) else outside

    return between


def _duration(iri: str, test: Lapse) -> Judge:
    inside, outside = (FALSE, TRUE) if test.negated else (TRUE, FALSE)

    def lasting(facts: Facts) -> int:
        value = facts.get(iri)
        if not isinstance(value, int | Since):
            return UNKNOWN
        low = TRUE if test.start is None else _reached(value, test.start, test.start_in)
        high = TRUE if test.end is None else TRUE - _reached(value, test.end, not test.end_in)
        state = min(low, high)
        return UNKNOWN if state == UNKNOWN else inside if state == TRUE else outside

    return lasting


def _reached(value: int | Since, span: Span, equal_counts: bool) -> int:
    """Whether a duration has come to the length: by the calendar where its beginning is known, else only where no month could matter. What
    has yet to begin has lasted no time: a clock that is behind makes no duration shorter than none."""
    if isinstance(value, Since):
        end = after(value.anchor, span)
        if end is None:
            return FALSE  # beyond the calendar: no clock comes there
        now = max(value.now, value.anchor)
        return TRUE if now > end or (equal_counts and now == end) else FALSE
    short, long = bounds(span)
    if value > long or (equal_counts and value == long):
        return TRUE
    if value < short or (not equal_counts and value == short):
        return FALSE
    return UNKNOWN


def _membership(iri: str, test: Members, registry: Registry) -> Judge:
    values, operator = test.values, test.operator
    if operator in ("isA", "isPartOf", "hasPart"):
        return _related(iri, values, operator, registry)
    inside, outside = (FALSE, TRUE) if test.negated else (TRUE, FALSE)
    every = operator == "isAllOf"
    exact = operator in ("eq", "neq")

    def among(facts: Facts) -> int:
        value = facts.get(iri)
        if isinstance(value, str):
            if every and len(values) > 1:
                return FALSE
            return inside if value in values else outside
        if not isinstance(value, frozenset):
            return UNKNOWN
        if every:
            return TRUE if values <= value else FALSE
        if exact:
            return inside if value == values else outside
        return outside if values.isdisjoint(value) else inside

    return among


def _related(iri: str, values: frozenset[str], operator: str, registry: Registry) -> Judge:
    """Concepts and parts (odrl.md 1.5): `isA` some value that lies below one on the right, `isPartOf` every value a part of one there,
    `hasPart` every one there a part of some value. A concept that no vocabulary names beside the one on the right may be anything."""
    how: Literal["isA", "isPartOf"] = "isA" if operator == "isA" else "isPartOf"

    def stands(one: str, other: str) -> int:
        found = registry.stands(how, one, other)
        return UNKNOWN if found is None else TRUE if found else FALSE

    def related(facts: Facts) -> int:
        value = facts.get(iri)
        if not isinstance(value, str | frozenset):
            return UNKNOWN
        found = (value,) if isinstance(value, str) else tuple(value)
        if operator == "isA":
            return max(stands(one, wanted) for one in found for wanted in values)
        if operator == "isPartOf":
            return min(max(stands(one, wanted) for wanted in values) for one in found)
        return min(max(stands(wanted, one) for one in found) for wanted in values)

    return related


def all_of(judges: Sequence[Judge]) -> Judge:
    """Kleene's `and`: the least of its parts; of nothing, TRUE."""
    if not judges:
        return always
    if len(judges) == 1:
        return judges[0]
    parts = tuple(judges)

    def least(facts: Facts) -> int:
        found = TRUE
        for judge in parts:
            state = judge(facts)
            if state == FALSE:
                return FALSE
            if state == UNKNOWN:
                found = UNKNOWN
        return found

    return least


def any_of(judges: Sequence[Judge]) -> Judge:
    """Kleene's `or`: the greatest of its parts; of nothing, FALSE."""
    if len(judges) == 1:
        return judges[0]
    parts = tuple(judges)

    def greatest(facts: Facts) -> int:
        found = FALSE
        for judge in parts:
            state = judge(facts)
            if state == TRUE:
                return TRUE
            if state == UNKNOWN:
                found = UNKNOWN
        return found

    return greatest


def one_of(judges: Sequence[Judge]) -> Judge:
    """`xone`: TRUE if one part is and the rest are not, FALSE if two are or none can be, else UNKNOWN."""
    parts = tuple(judges)

    def exactly_one(facts: Facts) -> int:
        yes = unknown = 0
        for judge in parts:
            state = judge(facts)
            yes += state == TRUE
            unknown += state == UNKNOWN
            if yes > 1:
                return FALSE
        if unknown:
            return UNKNOWN
        return TRUE if yes == 1 else FALSE

    return exactly_one


def in_order(parts: Sequence[Node]) -> Judge:
    """`andSequence`: instants t1 <= t2 <= ... <= now exist at which each part held (ODRL 2.2 IM, 2.5.3).

    A window of time may have held before now; a delay runs from the instant at which the part before it held, and it holds now; of
    everything else only the present is known.
    """

    def judge(facts: Facts) -> int:
        now = facts.get(DATE_TIME)
        if not isinstance(now, int):
            return UNKNOWN
        at: int | None = None  # the earliest instant at which all parts so far can have held; None: since ever
        found = TRUE
        for part in parts:
            if (window := _window(part)) is not None:
                at = _entered(window, at)
                if at is not None and (at > now or (window.end is not None and at >= window.end[0])):
                    return FALSE
            elif at is not None and (delay := _delay(part)) is not None:
                found = min(found, part.judge({**facts, part.fact: Since(at, now)}))  # type: ignore[union-attr]
                at = _passed(delay, at)
            else:
                found = min(found, part.judge(facts))
                at = now
            if found == FALSE:
                return FALSE
        return found

    return judge


def turns_in_order(node: Node) -> Iterator[int]:
    """The instants at which a delay of a sequence comes to a length, where it follows a window of time: between these and the instants
    that the policy names, a sequence does not change."""
    if not isinstance(node, Logic):
        return
    at: int | None = None
    for part in node.parts:
        yield from turns_in_order(part)
        if node.kind != "andSequence":
            continue
        if (window := _window(part)) is not None:
            at = _entered(window, at)
        elif at is not None and (delay := _delay(part)) is not None:
            yield from turns(at, delay)
            at = _passed(delay, at)
        else:
            at = None  # a part of which only the present is known: what follows it begins now, and no delay has gone by


def turns(anchor: int, test: Lapse) -> Iterator[int]:
    """The instants at which a duration from `anchor` on comes to a length of the test, or goes beyond it."""
    for span in (test.start, test.end):
        if span is not None and (end := after(anchor, span)) is not None:
            yield from (end, end + 1)


def _window(part: Node) -> Window | None:
    found = part.test if isinstance(part, Constraint) and part.operand == DATE_TIME else None
    return found if isinstance(found, Window) and not found.negated else None


def _delay(part: Node) -> Lapse | None:
    found = part.test if isinstance(part, Constraint) and part.operand == DELAY_PERIOD else None
    return found if isinstance(found, Lapse) else None


def _entered(window: Window, at: int | None) -> int | None:
    """The earliest instant from `at` on that lies behind the start of a window."""
    if window.start is None:
        return at
    start = int(window.start[0])
    return start if at is None else max(at, start)


def _passed(delay: Lapse, at: int) -> int:
    """The earliest instant at which a delay from `at` on held."""
    end = None if delay.negated or delay.start is None else after(at, delay.start)
    return at if end is None else end + int(not delay.start_in)


def always(_facts: Facts) -> int:
    """The judge of nothing: TRUE."""
    return TRUE


def nobody_knows(_facts: Facts) -> int:
    """The judge of what nobody here understands."""
    return UNKNOWN
