"""Sets of values in plain words: what is left of an axis, and the axis on which two policies have nothing in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from connector.odrl.operands import DATE_TIME
from connector.odrl.values import SECOND, instant
from connector.odrl.vocabulary import compact
from connector.odrl.words import SENTENCE_CHARS_MAX, VALUES_SHOWN_MAX, shown, value
from connector.odrl_compare.axes import ACTION, Axis
from connector.odrl_compare.boxes import Box
from connector.odrl_compare.sides import HIGH, LOW, Crowd, Cut, Gap, Line, Names, Side
from connector.odrl_compare.witness import length_text, number_text

SPANS_SHOWN_MAX = 3


def said(axis: Axis, side: Side | None) -> str:
    """What is left of an axis: `time is before 2027-01-01T00:00:00Z`."""
    if side is None:
        return f"any {axis.label}"
    if isinstance(side, Gap):
        return f"no {axis.label} stated"
    unit = f" in <{shown(axis.unit)}>" if axis.unit and isinstance(side, Line) else ""
    return shown(f"{axis.label} {_said(axis, side)}{unit}", SENTENCE_CHARS_MAX)


def _said(axis: Axis, side: Side) -> str:
    if isinstance(side, Line):
        if side == axis.full:
            return "is anything"
        found = [_span(axis, low, high) for low, high in side.spans[:SPANS_SHOWN_MAX]]
        return " or ".join(found) + (f" or {len(side.spans) - SPANS_SHOWN_MAX} more stretches" if len(side.spans) > SPANS_SHOWN_MAX else "")
    if isinstance(side, Names):
        return _names(axis, side)
    if isinstance(side, Crowd):
        found = [f"include {_names(axis, hit).removeprefix('is ')}" for hit in side.hits]
        if side.within.values or not side.within.negated:
            found.append(f"are all {_names(axis, side.within).removeprefix('is ')}")
        return " and ".join(found) or "is anything"
    return "is not stated"


def _names(axis: Axis, side: Names) -> str:
    if side.negated:
        return f"is none of {_listed(axis, side)}" if side.values else "is anything"
    if axis.key == ACTION and len(side.values) > VALUES_SHOWN_MAX:
        return f"is one of {len(side.values)} actions"
    if not side.values:
        return "is something that no vocabulary names"
    return f"is one of {_listed(axis, side)}" if len(side.values) > 1 else f"is {_listed(axis, side)}"


def _listed(axis: Axis, side: Names) -> str:
    names = sorted(name for name in side.values if name)[:VALUES_SHOWN_MAX]
    text = ", ".join(compact(name) if axis.key == ACTION else value(name) for name in names)
    return text + (f" and {len(side.values) - VALUES_SHOWN_MAX} more" if len(side.values) > VALUES_SHOWN_MAX else "")


def _span(axis: Axis, low: Cut, high: Cut) -> str:
    if low[0] == high[0] or (axis.integral and not isinstance(low[0], float) and high == (low[0] + 1, 0)):
        return f"is {_value(axis, low[0])}"
    ends = axis.full.spans[0] if isinstance(axis.full, Line) else (LOW, HIGH)
    time, number = axis.operand == DATE_TIME, axis.row is not None and axis.row.values == "number"
    found = []
    if low not in (LOW, ends[0]):
        words = ("is not before", "is after") if time else ("is at least", "is more than")
        of, side = _plain(axis, low, "duration")
        found.append(f"{words[side]} {_value(axis, of)}")
    if high != HIGH and (number or high != ends[1]):
        words = ("is before", "is not after") if time else ("is less than", "is at most")
        of, side = _plain(axis, high, "duration", "number")
        found.append(f"{words[side]} {_value(axis, of)}")
    return " and ".join(found) or "is anything"


def _plain(axis: Axis, cut: Cut, *sorts: str) -> Cut:
    """A cut on whole values as people would say it: at most 5, and not less than 6; more than ten days, and not a microsecond more."""
    if not axis.integral or axis.row is None or axis.row.values not in sorts or isinstance(cut[0], float):
        return cut
    return cut if axis.row.values == "duration" and (cut[0] - 1) % SECOND else (cut[0] - 1, 1)


def _value(axis: Axis, of: object) -> str:
    if axis.operand == DATE_TIME:
        at = instant(int(of))  # type: ignore[call-overload]
        return at.isoformat().replace("+00:00", "Z") if at is not None else "beyond the calendar"
    if axis.row is not None and axis.row.values == "duration":
        return length_text(int(of))  # type: ignore[call-overload]
    return number_text(of)  # type: ignore[arg-type]


def separation(
    axes: Mapping[str, Axis], one: Sequence[Box], other: Sequence[Box], names: tuple[str, str] = ("first", "second")
) -> tuple[str, str]:
    """The axis on which no box of the first meets one of the second, and what each side says there; "" and a sentence if there is no single
    one. `names` are what the two are called in it."""
    if not one or not other:
        return "", f"the {names[0] if not one else names[1]} permits nothing"
    common: set[str] | None = None
    for box in one:
        for its in other:
            shared = its.keys() & box.keys() if common is None else common
            common = {key for key in shared if key in its and key in box and box[key].misses(its[key])}
            if not common:
                return "", "they have nothing in common, on no single axis"
    key = min(common or {""}, key=lambda name: (name in (ACTION,), name))
    axis = axes[key]
    sides = [_either(axis, boxes) for boxes in (one, other)]
    return (
        axis.operand or axis.key,
        f"on {axis.label} they have nothing in common: for the {names[0]} {sides[0]}, for the {names[1]} {sides[1]}",
    )


def _either(axis: Axis, boxes: Sequence[Box]) -> str:
    found = list(dict.fromkeys(said(axis, box.get(axis.key)) for box in boxes))
    return " or ".join(found[:SPANS_SHOWN_MAX]) + (" or more" if len(found) > SPANS_SHOWN_MAX else "")
