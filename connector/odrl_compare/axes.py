"""The axes of a request, and what a constraint leaves of one: where it is satisfied, and where it is not.

An axis is a fact that a rule can ask for: a left operand in one unit, the action, the target, the party. A request that does not have the
fact satisfies neither a constraint nor its opposite, so the two do not fill the axis: the gap belongs to neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from connector.odrl.model import Constraint, Lapse, Members, Number, Span, Window
from connector.odrl.operands import PARTICIPANT, POLICY_USAGE, TIME_INTERVAL
from connector.odrl.registry import Operand, Registry
from connector.odrl.values import DAY, bounds, microseconds
from connector.odrl_compare.sides import (
    CROWD,
    HIGH,
    LOW,
    NAMES,
    Crowd,
    Cut,
    Line,
    Names,
    Side,
    related,
    union,
    unrelated,
)  # fmt: skip
from connector.values import Value

ACTION: Final = "action"
TARGET: Final = "target"
PARTY: Final = "party"
PHASES: Final = Names(frozenset({"before", "during", "after"}))
TRUTH: Final = Names(frozenset({"yes", "no"}))
YES: Final = Names(frozenset({"yes"}))
NO: Final = Names(frozenset({"no"}))

# No clock shows an earlier or a later time.
CALENDAR: Final = (microseconds(datetime.min.replace(tzinfo=UTC)) or 0, microseconds(datetime.max.replace(tzinfo=UTC)) or 0)

# What a unit of QUDT measures. A moment in a film and a place on its picture are two coordinates: each can be anything, whatever the other
# is. Bytes are neither, since what lies further in a file comes later, and a picture of more dots takes more of them.
_TIME, _LENGTH = ("SEC", "MilliSEC", "MicroSEC", "MIN", "HR"), ("PX", "M", "CentiM", "MilliM", "IN", "PT")
MEASURES: Final = MappingProxyType(
    {f"http://qudt.org/vocab/unit/{name}": what for what, names in (("time", _TIME), ("length", _LENGTH)) for name in names}
)

Lengths = Mapping[int, int]  # so many months -> so many days of the calendar that is looked at
Sides = tuple[Side, ...]  # alternatives; () is nothing at all


class Axis(Value):
    """One axis. `full` is all that a request can have on it; `gap` says that a request may be without; `guess` says that nobody here
    knows what stands on it, so that a conclusion which needs it is a guess."""

    key: str
    operand: str
    unit: str
    label: str
    full: Side
    gap: bool
    guess: bool = False
    integral: bool = False
    row: Operand | None = None


def axis_of(registry: Registry, constraint: Constraint) -> Axis:
    """The axis of a constraint."""
    return _axis(registry, constraint.operand, constraint.unit)


@lru_cache(maxsize=4096)
def _axis(registry: Registry, iri: str, unit: str) -> Axis:
    if iri == PARTICIPANT:
        return PARTY_AXIS
    row = registry.operands[iri]
    key = f"{iri} {unit}" if unit else iri
    full: Side
    if row.values == "event":
        # What a rule allows happens during the use of the policy: that event is always now.
        return Axis(
            key, iri, unit, row.label, Names(frozenset({"during"})) if unit == POLICY_USAGE else PHASES, unit != POLICY_USAGE, row=row
        )
    if row.values == "term":
        full = NAMES if row.single else CROWD
        return Axis(key, iri, unit, row.label, full, True, row=row)
    integral = row.integral or row.values in ("instant", "duration")
    low, high = row.low, row.high
    if row.values == "instant":
        low, high = CALENDAR
    elif row.values == "duration" and iri != TIME_INTERVAL:  # only since a use that has not been, it can be longer than any calendar
        high = CALENDAR[1] - CALENDAR[0]
    # A counter includes the use that is asked for.
    start: Cut = LOW if low is None else (low + row.step, 0 if row.low_in or row.step else 1)
    end: Cut = HIGH if high is None else (high, 1)
    full = Line(((_whole(start) if integral else start, _whole(end) if integral else end),))
    return Axis(key, iri, unit, row.label, full, row.source != "clock", integral=integral, row=row)


@lru_cache(maxsize=16)
def action_axis(registry: Registry) -> Axis:
    """The actions that are known, and one that is not."""
    return Axis(ACTION, "", "", "action", Names(frozenset({*registry.within, ""})), gap=False)


PARTY_AXIS: Final = Axis(PARTY, PARTICIPANT, "", "participant", NAMES, gap=False)
TARGET_AXIS: Final = Axis(TARGET, "", "", "target", NAMES, gap=True)


def member_axis(of: str, collection: str) -> Axis:
    """Whether the party (or the target) is in a collection."""
    return Axis(f"{of} in {collection}", "", "", f"{of} in {collection}", TRUTH, gap=False)


def opaque_axis(text: str) -> Axis:
    """Whether something holds that is not understood here."""
    return Axis(f"opaque {text}", "", "", "a constraint that is not understood", TRUTH, gap=True, guess=True)


def foreign_axis(operand: str, *, ordered: bool) -> Axis:
    """The values of a left operand that is not known here: a list or an order keeps its meaning, whatever they are."""
    return Axis(
        f"foreign {operand}",
        "",
        "",
        "a constraint that is not understood",
        Line(((LOW, HIGH),)) if ordered else CROWD,
        gap=True,
        guess=True,
    )


@lru_cache(maxsize=1024)
def cone(registry: Registry, action: str) -> Names:
    """An action and all that is included in it."""
    return Names(frozenset({action, *(name for name, within in registry.within.items() if action in within)}))


def sides_of(axis: Axis, constraint: Constraint, registry: Registry, lengths: Lengths, *, holds: bool) -> Sides:
    """Where on its axis a constraint is satisfied or, unless it `holds`, is not."""
    test = constraint.test
    if isinstance(test, Members):
        return members(axis, test, registry, holds=holds)
    wanted = holds != test.negated
    if isinstance(test, Window):
        return ordered(axis, test, inner=wanted)
    # A duration that runs by the calendar has the length that this calendar gives it; of one that a meter adds up only the shortest and the
    # longest are known, and between the two it satisfies neither side.
    metered = axis.row is not None and axis.row.kind == "counter"
    return _either(axis, _stretch(axis, test, lengths, metered, sure=wanted), inner=wanted)


def ordered(axis: Axis, test: Window, *, inner: bool) -> Sides:
    """The values between the bounds of a window, or the others."""
    return _either(axis, _line(axis, test.start or LOW, test.end or HIGH), inner=inner)


def members(axis: Axis, test: Members, registry: Registry, *, holds: bool) -> Sides:
    """Where a constraint on names is satisfied or, unless it `holds`, is not."""
    values, operator = test.values, test.operator
    if not holds and operator in ("isA", "isPartOf", "hasPart"):
        return _strangers(axis, values, operator, registry)
    side: Side | None
    if isinstance(axis.full, Crowd):
        side = _crowd(values, operator, registry)
    elif operator in ("isA", "isPartOf"):
        side = _any(values, operator, registry)
    elif operator == "hasPart":
        side = _every([related(registry, "hasPart", value) for value in sorted(values)])
    elif operator == "isAllOf" and len(values) > 1:
        side = None
    else:
        side = Names(values)
    if side is not None and axis.full is not NAMES and axis.full is not CROWD:
        side = side.meet(axis.full)
    return _either(axis, side, inner=holds != test.negated)


def _either(axis: Axis, side: Side | None, *, inner: bool) -> Sides:
    """A side, or the rest of its axis."""
    if inner:
        return () if side is None else (side,)
    return (axis.full,) if side is None else axis.full.minus(side)


def _strangers(axis: Axis, values: frozenset[str], operator: str, registry: Registry) -> Sides:
    """Where a relation is known not to hold: a concept that no vocabulary names satisfies neither side."""
    found = [unrelated(registry, operator, value) for value in sorted(values)]
    if operator != "hasPart":
        found = [side for side in (_every(found),) if side is not None]
    if not isinstance(axis.full, Crowd):
        return tuple(found)
    return tuple(Crowd(NAMES, (side,)) if operator == "isPartOf" else Crowd(side) for side in found)


def _any(values: frozenset[str], how: str, registry: Registry) -> Names:
    found = [related(registry, how, value) for value in sorted(values)]  # type: ignore[arg-type]
    whole = found[0]
    for one in found[1:]:
        whole = union(whole, one)
    return whole


def _every(sides: list[Names]) -> Names | None:
    whole: Names | None = sides[0]
    for one in sides[1:]:
        whole = whole and whole.meet(one)
    return whole


def _crowd(values: frozenset[str], operator: str, registry: Registry) -> Side | None:
    """The sets that a party may have (odrl.md 1.5). `neq` and `isNoneOf` are the rest of what `eq` and `isAnyOf` take."""
    single = tuple(Names(frozenset({value})) for value in sorted(values))
    if operator in ("eq", "neq"):
        return Crowd(Names(values), single)
    if operator == "isAllOf":
        return Crowd(NAMES, single)
    if operator == "isPartOf":
        return Crowd(_any(values, operator, registry))
    if operator == "hasPart":
        return Crowd(NAMES, tuple(related(registry, "hasPart", value) for value in sorted(values)))
    return Crowd(NAMES, (_any(values, operator, registry) if operator == "isA" else Names(values),))


def _line(axis: Axis, start: Cut, end: Cut) -> Side | None:
    if axis.integral:
        start, end = _whole(start), _whole(end)
    return Line(((start, end),)).meet(axis.full) if start < end else None


def _whole(cut: Cut) -> Cut:
    """The cut before the first whole number that lies behind it."""
    value, side = cut
    if isinstance(value, float):
        return cut
    return (math.floor(value) + 1, 0) if side else (math.ceil(value), 0)


def _stretch(axis: Axis, test: Lapse, lengths: Lengths, metered: bool, *, sure: bool) -> Side | None:
    def length(span: Span, *, longest: bool) -> int:
        return bounds(span)[longest] if metered else lengths.get(span.months, 0) * DAY + span.microseconds

    start = LOW if test.start is None else (length(test.start, longest=sure), 0 if test.start_in else 1)
    end = HIGH if test.end is None else (length(test.end, longest=not sure), 1 if test.end_in else 0)
    return _line(axis, start, end)


@lru_cache(maxsize=256)
def calendars(months: frozenset[int]) -> tuple[tuple[int, tuple[tuple[int, int], ...]], ...]:
    """What so many months can be in days, all at once: (day since 1970 from which they are counted, months -> days) for each
    combination that comes up from some day of the years 2000 to 2003 and 2096 to 2099, which hold all of them."""
    found: dict[tuple[tuple[int, int], ...], int] = {}
    for year in (2000, 2001, 2002, 2003, 2096, 2097, 2098, 2099):
        for month in range(12):
            for day in (1, 28, 29, 30, 31):
                last = _month_days(year, month)
                start = date(year, month + 1, min(day, last))
                lengths = tuple((count, _days(start, count)) for count in sorted(months))
                found.setdefault(lengths, start.toordinal() - _EPOCH)
    return tuple((start, lengths) for lengths, start in found.items())


_EPOCH: Final = date(1970, 1, 1).toordinal()
_YEARS: Final = 400 * 12  # after which the calendar begins anew, 146,097 days later


def _days(start: date, months: int) -> int:
    again, months = divmod(months, _YEARS)
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    end = date(year, month + 1, min(start.day, _month_days(year, month)))
    return again * 146_097 + end.toordinal() - start.toordinal()


def _month_days(year: int, month: int) -> int:
    return (date(year + (month == 11), (month + 1) % 12 + 1, 1) - date(year, month + 1, 1)).days  # noqa: PLR2004 - months counted from 0


def first_value(side: Line, *, integral: bool) -> Number:
    """A value that lies in the line: the plainest one at hand."""
    (low, below), (high, above) = side.spans[0]
    if isinstance(low, float):
        return 0 if isinstance(high, float) or (high, above) > (0, 0) else math.floor(high) - 1
    if not below:
        return low
    if integral or (math.floor(low) + 1, 1) <= (high, above):
        return math.floor(low) + 1
    return (Fraction(low) + Fraction(high)) / 2
