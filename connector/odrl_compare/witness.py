"""A request out of a box: the concrete act that shows what a comparison says, as values and as a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any, Final

from connector.odrl.duties import deadline_of, exercises
from connector.odrl.model import Event, Number, Policy, Request, Rule, World, leaves
from connector.odrl.operands import DATE_TIME, DELAY_PERIOD, ELAPSED_TIME, METERED_TIME
from connector.odrl.registry import Operand
from connector.odrl.values import DAY, SECOND, instant, microseconds
from connector.odrl.vocabulary import ODRL, compact
from connector.odrl.words import SENTENCE_CHARS_MAX, shown, value
from connector.odrl_compare.axes import ACTION, CALENDAR, PARTY, TARGET, Axis, first_value
from connector.odrl_compare.boxes import Box
from connector.odrl_compare.sides import HIGH, Crowd, Gap, Line, Names, Side
from connector.values import replace

SOMEBODY: Final = "urn:example:somebody"
SOMETHING: Final = "urn:example:something-else"
NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)  # where the time does not matter
UNPLACED: Final = datetime(2026, 1, 1)  # noqa: DTZ001 - the point: a time of no zone is no instant, and nobody knows what runs from it


@dataclass(frozen=True, slots=True)
class Witness:
    """One request, in one state of the world, that shows what a comparison says.

    `action`, `target` and `party` are full IRIs or ids, `values` what else matters: left operand (full IRI) -> value as text, None for a
    fact that is missing. `request` and `world` are the same for `evaluate`. `sentence` says it in words.
    """

    action: str
    target: str | None
    party: str
    values: Mapping[str, str | None]
    request: Request = field(repr=False)
    world: World = field(repr=False)
    sentence: str = ""

    def __str__(self) -> str:
        return self.sentence

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "action": self.action,
            "target": self.target,
            "party": self.party,
            "values": dict(self.values),
            "sentence": self.sentence,
        }


def witness(
    box: Box,
    axes: Mapping[str, Axis],
    rule: Rule | None,
    fulfilled: Iterable[Rule] = (),
    *,
    performed: Iterable[tuple[Rule, Box | None]] = (),
    policy: Policy | None = None,
    day: int | None = None,
) -> Witness:
    """A request that lies in the box. `rule` is the permission by whose action it is called where that will do; `fulfilled` are duties that
    count as done, `performed` duties of `policy` with an act that performs each in time, which the log shows. `day` (since 1970) is the one
    on which durations begin, where the length of a month matters."""
    facts = _Facts(box, axes, day)
    action = _action(box.get(ACTION), rule)
    target = _name(box.get(TARGET), SOMETHING) if TARGET in box else None
    party = _name(box.get(PARTY), SOMEBODY) or SOMEBODY
    request = Request(party, action, target, facts.params)
    members: dict[str, frozenset[str]] = {}
    for of, thing in (("party", party), ("target", target)):
        found = frozenset(
            axis.key.partition(" in ")[2] for key, side in box.items() if (axis := axes[key]).key.startswith(f"{of} in ") and _holds(side)
        )
        if found and thing is not None:
            members[thing] = found
    still = World(facts.now, facts.facts, facts.anchors, facts.used)
    log = tuple(_act(duty, act, axes, party, policy, still) for duty, act in performed if act is not None)
    duties = {name: "fulfilled" for duty in fulfilled for name in (duty.id, duty.path) if name}
    anchors = facts.anchors
    if policy is not None and exercises(policy, World(facts.now, log=log)):  # an act that is a use too would begin the time for the others
        anchors = {ELAPSED_TIME: UNPLACED, DELAY_PERIOD: UNPLACED, **anchors}
    world = World(facts.now, facts.facts, anchors, facts.used, log or None, duties, members)  # type: ignore[arg-type]
    return Witness(action, target, party, facts.values, request, world, _sentence(action, target, party, facts.told))


def _act(duty: Rule, box: Box, axes: Mapping[str, Axis], party: str, policy: Policy | None, world: World) -> Event:
    """An act that performs a duty, before now and before each time by which it may have to be done: which of a choice counts, the facts
    say, and an act in time for all of them is in time."""
    facts = _Facts({key: side for key, side in box.items() if key not in (DATE_TIME, PARTY)}, axes, None)
    ends = [deadline_of(replace(duty, constraints=(leaf,)), world, policy) for leaf in leaves(duty.constraints)]
    at = min([world.now, *(found for end in ends if end is not None and (found := instant(end)) is not None)]) - timedelta(seconds=1)
    debtor = duty.assignees[0].id if duty.assignees else party
    amounts = {axes[key].key: first_value(side, integral=axes[key].integral) for key, side in box.items() if isinstance(side, Line)}
    target = duty.targets[0].id if duty.targets else None
    return Event(at, _action(box.get(ACTION), duty), debtor, target, facts.params, amounts)


class _Facts:
    """The facts of a box, each where `evaluate` looks for it."""

    def __init__(self, box: Box, axes: Mapping[str, Axis], day: int | None) -> None:
        self.params: dict[str, tuple[object, ...]] = {}
        self.facts: dict[str, tuple[object, ...]] = {}
        self.used: dict[str | tuple[str, str], Number] = {}
        self.anchors: dict[str, datetime] = {}
        self.values: dict[str, str | None] = {}
        self.told: list[str] = []
        self.now = NOW
        times = box.get(DATE_TIME)
        if isinstance(times, Line):
            self.now = _moment(times)
            self._tell(axes[DATE_TIME], self.now.isoformat().replace("+00:00", "Z"))
        lasting = [
            (axis, int(first_value(_at_least_metered(key, side, box), integral=True)))
            for key, side in box.items()
            if isinstance(side, Line)
            and (axis := axes[key]).row is not None
            and axis.row.values == "duration"
            and axis.row.kind != "counter"
        ]
        if day is not None and lasting and not isinstance(times, Line):
            self.now = instant(day * DAY + lasting[0][1]) or NOW
        if not isinstance(times, Line) and any(instant((microseconds(self.now) or 0) - length) is None for _, length in lasting):
            self.now = datetime.max.replace(tzinfo=UTC)
        metered = box.get(METERED_TIME)
        if isinstance(metered, Line) and ELAPSED_TIME not in box:  # an agreement would else tell that less has passed than was metered
            begun = instant((microseconds(self.now) or 0) - int(first_value(metered, integral=True)))
            if begun is not None:
                self.anchors[ELAPSED_TIME] = begun
        for axis, length in lasting:
            begun = instant((microseconds(self.now) or 0) - length)
            if begun is not None:
                self.anchors[axis.operand] = begun
            self._tell(axis, length_text(length))
        for key, side in box.items():
            if key not in (ACTION, TARGET, PARTY, DATE_TIME) and axes[key].row is not None:
                self._fact(axes[key], side)

    def _fact(self, axis: Axis, side: Side) -> None:
        row = axis.row
        if row is None or (isinstance(side, Line) and row.values == "duration" and row.kind != "counter"):
            return
        if isinstance(side, Gap):
            if row.values == "duration":
                self.anchors[axis.operand] = UNPLACED  # an agreement would else tell when it was signed
            self.values[axis.key] = None
            self.told.append(f"no {axis.label} stated")
        elif isinstance(side, Line):
            number = first_value(side, integral=axis.integral)
            if row.kind == "counter":
                self.used[axis.key] = number - row.step
            else:
                told = self._told(row)
                told[axis.operand] = (*told.get(axis.operand, ()), _quantity(number, axis.unit))
            self._tell(axis, length_text(int(number)) if row.values == "duration" else number_text(number), quoted=False)
        elif isinstance(side, Crowd):
            names = sorted({_some(hit) for hit in side.hits} or {_some(side.within)})
            self.facts[axis.operand] = tuple(names)
            self._tell(axis, ", ".join(names), quoted=True)
        elif row.values == "event":
            phase = _some(side)
            self.facts[axis.key] = (phase,)
            self._tell(axis, phase)
        else:
            name = _some(side)
            self._told(row)[axis.operand] = (name,)
            self._tell(axis, name, quoted=True)

    def _told(self, row: Operand) -> dict[str, tuple[object, ...]]:
        """Where a fact has to stand to be heard."""
        return self.params if row.source == "declared" else self.facts

    def _tell(self, axis: Axis, text: str, *, quoted: bool = False) -> None:
        self.values[axis.key] = text
        self.told.append(f"{axis.label} {value(text) if quoted else text}" + (f" in <{shown(axis.unit)}>" if axis.unit else ""))


def _at_least_metered(key: str, side: Line, box: Box) -> Line:
    """Of the time since the first use, what is no shorter than the use that was metered in it."""
    metered = box.get(METERED_TIME)
    if key != ELAPSED_TIME or not isinstance(metered, Line):
        return side
    return side.meet(Line((((first_value(metered, integral=True), 0), HIGH),))) or side


def _moment(times: Line) -> datetime:
    """An instant in the line, a plain one if it will do."""
    usual = microseconds(NOW) or 0
    if times.meet(Line((((usual, 0), (usual + 1, 0)),))) is not None:
        return NOW
    low, high = times.spans[-1]
    return instant(int(low[0] if low[0] != CALENDAR[0] else high[0] - SECOND)) or NOW


def _action(side: Side | None, rule: Rule | None) -> str:
    """The action by which the rule itself calls it, else the widest there is."""
    names = side.values if isinstance(side, Names) else frozenset()
    for action in rule.actions if rule is not None else ():
        if action.iri in names:
            return action.iri
    if not names:
        return ODRL + "use"
    named = sorted(name for name in names if name)
    return min(named, key=lambda name: (name.count("/"), len(name), name)) if named else SOMETHING


def _name(side: Side | None, other: str) -> str | None:
    if isinstance(side, Names):
        return _some(side, other)
    return None


def _some(side: Side, other: str = SOMETHING) -> str:
    """A name that lies in the set."""
    if not isinstance(side, Names):
        return other
    if not side.negated:
        return min(side.values)
    name, count = other, 1
    while name in side.values:
        count += 1
        name = f"{other}-{count}"
    return name


def _holds(side: Side) -> bool:
    return isinstance(side, Names) and side.values == {"yes"}


def _quantity(number: Number, unit: str) -> dict[str, str]:
    return {"@value": number_text(number), "unit": unit} if unit else {"@value": number_text(number)}


def number_text(number: Number) -> str:
    """A number as XSD writes it: every bound is a decimal, so what lies between two is one too."""
    if isinstance(number, int):
        return str(number)
    digits = 0
    whole = Fraction(number)
    while whole.denominator != 1:
        whole, digits = whole * 10, digits + 1
    text = str(abs(whole.numerator)).rjust(digits + 1, "0")
    return ("-" if number < 0 else "") + (f"{text[:-digits]}.{text[-digits:]}" if digits else text)


def length_text(microseconds: int) -> str:
    """A duration as XSD writes it."""
    days, rest = divmod(microseconds, DAY)
    minutes, seconds = divmod(rest, 60 * SECOND)
    whole, parts = divmod(seconds, SECOND)
    clock = "".join(f"{count}{letter}" for count, letter in ((minutes // 60, "H"), (minutes % 60, "M")) if count)
    if seconds:
        clock += f"{whole}.{parts:06d}S" if parts else f"{whole}S"
    if not days and not clock:
        return "PT0S"
    return f"P{f'{days}D' if days else ''}{f'T{clock}' if clock else ''}"


def _sentence(action: str, target: str | None, party: str, told: list[str]) -> str:
    who = "somebody" if party == SOMEBODY else value(party)
    on = f" on {value(target)}" if target else ""
    facts = f" with {', '.join(told)}" if told else ""
    return shown(f"{compact(action)}{on} by {who}{facts}", SENTENCE_CHARS_MAX)
