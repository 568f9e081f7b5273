"""The left operands that are known, one row each: name, values, operators, where the fact comes from.

A left operand that has no row here means nothing: a policy that uses it is refused when it is written and permits nothing when it is met.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from connector.odrl.model import FALSE, TRUE, UNKNOWN, Facts, Judge, Members, Window
from connector.odrl.values import Span
from connector.odrl.vocabulary import ODRL

PURPOSE: Final = ODRL + "purpose"
DATE_TIME: Final = ODRL + "dateTime"

# The requesting participant. ODRL 2.2 has no left operand for who asks (`recipient` is who receives the result), and an IRI in a domain
# that is not ours would claim an authority that we lack, so this is a name.
PARTICIPANT: Final = "urn:qiao:participant"

ORDER: Final = frozenset({"eq", "neq", "lt", "lteq", "gt", "gteq"})
CHOICE: Final = frozenset({"eq", "neq", "isAnyOf", "isNoneOf"})


@dataclass(frozen=True, slots=True)
class Operand:
    """A left operand: what its values are, which operators it takes, and who states the fact.

    `usage` marks what an act does rather than what a party is: several values in one request are several acts, and each must be permitted.
    """

    iri: str
    label: str
    values: Literal["instant", "term"]
    operators: frozenset[str]
    source: Literal["clock", "identity", "declared"]
    usage: bool = False


OPERANDS: Final = MappingProxyType(
    {
        operand.iri: operand
        for operand in (
            Operand(PURPOSE, "purpose", "term", CHOICE, "declared", usage=True),
            Operand(DATE_TIME, "time", "instant", ORDER, "clock"),
            Operand(PARTICIPANT, "participant", "term", CHOICE, "identity"),
        )
    }
)


def window(operator: str, right: Span) -> Window:
    """What an ordering operator means in time.

    A day is an interval: `lteq` a day lasts until its end, `gt` a day begins with the next one (ODRL 2.2 IM writes "valid until the
    end of 2017" as `lteq 2017-12-31`).
    """
    start, end = right.start, right.end
    match operator:
        case "lt":
            return Window(None, start)
        case "lteq":
            return Window(None, end)
        case "gt":
            return Window(end, None)
        case "gteq":
            return Window(start, None)
    return Window(start, end, negated=operator == "neq")


def judge_of(operand: str, test: Window | Members) -> Judge:
    """Compile the test of one left operand to a closure over facts; a missing fact is UNKNOWN."""
    if isinstance(test, Members):
        return _membership(operand, test)
    inside, outside = (FALSE, TRUE) if test.negated else (TRUE, FALSE)
    start, end = test.start, test.end

    def within(facts: Facts) -> int:
        at = facts.get(operand)
        if not isinstance(at, int):
            return UNKNOWN
        return inside if (start is None or at >= start) and (end is None or at < end) else outside

    return within


def _membership(operand: str, test: Members) -> Judge:
    inside, outside = (FALSE, TRUE) if test.negated else (TRUE, FALSE)
    values = test.values

    def among(facts: Facts) -> int:
        value = facts.get(operand)
        if value is None:
            return UNKNOWN
        return inside if value in values else outside

    return among


def all_of(judges: Sequence[Judge]) -> Judge:
    """Kleene's `and`: the least of its parts; of nothing, TRUE."""
    if not judges:
        return _always
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


def _always(_facts: Facts) -> int:
    return TRUE


def nobody_knows(_facts: Facts) -> int:
    """The judge of what nobody here understands."""
    return UNKNOWN
