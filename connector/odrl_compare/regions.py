"""Where nodes and rules are satisfied, and where they are not, as boxes.

Both sides are kept, because in Kleene's logic one is not the rest of the other: where a fact is missing a constraint is neither. A
permission grants where it is satisfied; a prohibition leaves alone only where it is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Final

from connector.errors import PolicyError
from connector.odrl import judges
from connector.odrl.duties import duty_actions
from connector.odrl.model import Action, Constraint, Lapse, Members, Node, Opaque, Policy, Rule, Scope, Span, Window
from connector.odrl.operands import DATE_TIME, DELAY_PERIOD
from connector.odrl.registry import Registry
from connector.odrl.values import after, number
from connector.odrl.vocabulary import OPERATOR_NAMES
from connector.odrl_compare.axes import (
    NO,
    PARTY,
    PARTY_AXIS,
    TARGET,
    TARGET_AXIS,
    YES,
    Axis,
    Lengths,
    action_axis,
    axis_of,
    cone,
    foreign_axis,
    member_axis,
    members,
    opaque_axis,
    ordered,
    sides_of,
)  # fmt: skip
from connector.odrl_compare.boxes import Region, Work
from connector.odrl_compare.sides import GAP, HIGH, LOW, Cut, Line, Names, Side

EVERYWHERE: Final[Region] = [{}]
NOWHERE: Final[Region] = []
_NOW: Final = "now"
_LISTS: Final = frozenset({"eq", "neq", "isAnyOf", "isNoneOf", "isAllOf"})
_ORDERED: Final = frozenset({"lt", "lteq", "gt", "gteq"})
RELATIONS: Final = frozenset({"isA", "isPartOf", "hasPart"})  # each concept is held against each
_ATOMIC_PARTS: Final = frozenset({"leftOperand", "operator", "rightOperand"})
_ATOMIC_KEYS: Final = _ATOMIC_PARTS | {"@id", "@type", "unit"}


class Reader:
    """Reads the nodes and rules of policies under one registry, for one length of months, into boxes."""

    __slots__ = ("lengths", "registry", "work")

    def __init__(self, registry: Registry, work: Work, lengths: Lengths) -> None:
        self.registry, self.work, self.lengths = registry, work, lengths

    def true(self, node: Node) -> Region:
        """Where a node is satisfied."""
        if isinstance(node, Constraint):
            return self._leaf(node, holds=True)
        if isinstance(node, Opaque):
            return self._opaque(node, holds=True)
        if node.kind == "and":
            return self.all_true(node.parts)
        if node.kind == "or":
            return self._either(self.true(part) for part in node.parts)
        if node.kind == "xone":
            return self._exactly_one(node.parts)
        return self._in_order(node.parts)[0]

    def false(self, node: Node) -> Region:
        """Where a node is known not to be satisfied."""
        if isinstance(node, Constraint):
            return self._leaf(node, holds=False)
        if isinstance(node, Opaque):
            return self._opaque(node, holds=False)
        if node.kind == "and":
            return self.any_false(node.parts)
        if node.kind == "or":
            return self._all(self.false(part) for part in node.parts)
        if node.kind == "xone":
            return self._not_one(node.parts)
        return self._in_order(node.parts)[1]

    def _leaf(self, node: Constraint, *, holds: bool) -> Region:
        leaves = self.work.leaves
        known = None if leaves is None else leaves.get((id(node), holds))
        if known is not None and known[0] is node:
            self.work.spend(1)
            self.work.axes[known[1].key] = known[1]
            return known[2]
        axis = axis_of(self.registry, node)
        named = len(node.expected)
        self.work.spend(1 + (named >> 2) + (named * named >> 4 if node.operator in RELATIONS else 0))
        region = self.work.on(axis, sides_of(axis, node, self.registry, self.lengths, holds=holds))
        if leaves is not None and not isinstance(node.test, Lapse):  # a duration has the length of its calendar
            leaves[id(node), holds] = node, axis, region
        return region

    def all_true(self, nodes: Iterable[Node]) -> Region:
        """Where all of them are satisfied."""
        return self._all(self.true(node) for node in nodes)

    def any_false(self, nodes: Iterable[Node]) -> Region:
        """Where one of them is known not to be satisfied."""
        return self._either(self.false(node) for node in nodes)

    def _all(self, regions: Iterable[Region]) -> Region:
        found = EVERYWHERE
        for region in regions:
            found = region if found is EVERYWHERE else self.work.both(found, region)
            if not found:
                return NOWHERE
        return found

    def _either(self, regions: Iterable[Region]) -> Region:
        found = [box for region in regions for box in region]
        return self.work.tidy(found) if len(found) > 1 else found

    def _exactly_one(self, parts: Sequence[Node]) -> Region:
        """Where one part is satisfied and the others are known not to be."""
        none, one = EVERYWHERE, NOWHERE
        for part in sorted(parts, key=_operand):  # those on one axis join to one box
            true, false = self.true(part), self.false(part)
            one = self._either([self.work.both(one, false), self.work.both(none, true)])
            none = self.work.both(none, false)
        return one

    def _not_one(self, parts: Sequence[Node]) -> Region:
        """Where two parts are satisfied, or none can be."""
        none, some, two = EVERYWHERE, NOWHERE, NOWHERE
        for part in sorted(parts, key=_operand):
            true, false = self.true(part), self.false(part)
            two = self._either([two, self.work.both(some, true)])
            some = self._either([some, true])
            none = self.work.both(none, false)
        return self._either([none, two])

    def _in_order(self, parts: Sequence[Node]) -> tuple[Region, Region]:
        """`andSequence`: a window of time may have held before now, a delay runs from the instant at which the part before it held, and of
        everything else only the present is known; see `connector.odrl` on how it is judged."""
        so_far, fails = EVERYWHERE, NOWHERE
        at: int | str | None = None  # the earliest instant at which all parts so far can have held
        for part in parts:
            if isinstance(part, Constraint) and part.operand == DATE_TIME and isinstance(part.test, Window) and not part.test.negated:
                true, false, at = self._window(part, at)
            elif isinstance(part, Constraint) and part.operand == DELAY_PERIOD and isinstance(part.test, Lapse) and at is not None:
                true, false = self._delay(part, at)
                at = _passed(part.test, at) if isinstance(at, int) else at
            else:
                true, false, at = self.true(part), self.false(part), _NOW
            fails = self._either([fails, false])
            so_far = self.work.both(so_far, true)
        return so_far, fails

    def _window(self, part: Constraint, at: int | str | None) -> tuple[Region, Region, int | str | None]:
        if at == _NOW or not isinstance(part.test, Window):
            return self.true(part), self.false(part), at
        start, end = part.test.start, part.test.end
        began = at if isinstance(at, int) else None
        if start is not None and (began is None or int(start[0]) > began):
            began = int(start[0])
        if began is None:
            return EVERYWHERE, NOWHERE, None
        if end is not None and began >= end[0]:
            return NOWHERE, EVERYWHERE, began
        return *self._times(part, (began, 0), HIGH, negated=False), began

    def _delay(self, part: Constraint, at: int | str) -> tuple[Region, Region]:
        test = part.test
        assert isinstance(test, Lapse)  # noqa: S101 - the caller has looked
        if at == _NOW:
            holds = all(
                (
                    test.start is None or (test.start == Span(0, 0) and test.start_in),
                    test.end is None or test.end != Span(0, 0) or test.end_in,
                )
            )
            return (EVERYWHERE, NOWHERE) if holds != test.negated else (NOWHERE, EVERYWHERE)
        start = LOW if test.start is None else self._reached(int(at), test.start, 0 if test.start_in else 1)
        end = HIGH if test.end is None else self._reached(int(at), test.end, 1 if test.end_in else 0)
        return self._times(part, start, end, negated=test.negated)

    def _reached(self, at: int, span: Span, later: int) -> Cut:
        end = after(at, span)
        return HIGH if end is None else (end + later, 0)

    def _times(self, part: Constraint, start: Cut, end: Cut, *, negated: bool) -> tuple[Region, Region]:
        axis = axis_of(self.registry, Constraint(part.path, DATE_TIME, "eq", (), Window(None, None), part.judge))
        side = Line(((start, end),)).meet(axis.full) if start < end else None
        one = self.work.on(axis, () if side is None else (side,))
        other = self.work.on(axis, (axis.full,) if side is None else axis.full.minus(side))
        return (other, one) if negated else (one, other)

    def _opaque(self, node: Opaque, *, holds: bool) -> Region:
        """What is not understood holds where its twin does. Of a list or an order more is known, whatever the operand means: what has `a`
        has one of `a`, `b`, and what is below 5 is below 7."""
        foreign = _foreign(node.text)
        if foreign is None:
            return self.work.on(opaque_axis(node.text), (YES if holds else NO,))
        operand, test = foreign
        axis = foreign_axis(operand, ordered=isinstance(test, Window))
        if isinstance(test, Members):
            return self.work.on(axis, members(axis, test, self.registry, holds=holds))
        return self.work.on(axis, ordered(axis, test, inner=holds))

    def rule(self, policy: Policy, rule: Rule, *, bare: bool = False) -> Region:
        """Where a rule speaks and is satisfied. `bare` leaves out the target and the assignees of the policy."""
        heads = [self._meets(head) for head in self._heads(policy, rule, bare=bare)]
        extra = [self.work.on(opaque_axis(rule.opaque), (YES,))] if rule.opaque else []
        return self._all([*heads, *(self.true(node) for node in rule.constraints), *extra])

    def not_rule(self, policy: Policy, rule: Rule, *, bare: bool = False) -> Region:
        """Where a rule does not speak, or is known not to be satisfied."""
        heads = [self._misses(head) for head in self._heads(policy, rule, bare=bare)]
        extra = [self.work.on(opaque_axis(rule.opaque), (NO,))] if rule.opaque else []
        return self._either([*heads, self.any_false(rule.constraints), *extra])

    def performing(self, duty: Rule) -> Region:
        """The acts that perform a duty: its action, or one below it, as its refinements say."""
        ways = _actions(duty.actions, self.registry)
        return self._meets(ways) if ways else EVERYWHERE

    def _heads(self, policy: Policy, rule: Rule, *, bare: bool) -> list[list[tuple[Axis, Names, tuple[Node, ...]]]]:
        """Action, target and party of a rule: for each, the alternatives and their refinements. What is silent is left out."""
        targets, parties = rule.targets, rule.assignees
        if not bare:
            targets = targets or (() if policy.target is None else (Scope(policy.target),))
            parties = parties or tuple(Scope(name) for name in sorted(policy.assignees))
        heads = []
        if rule.actions:
            named = duty_actions(policy) if rule.kind == "prohibition" else frozenset()
            heads.append(_actions(rule.actions, self.registry, named))
        if targets:
            heads.append(_scopes(targets, TARGET_AXIS, TARGET))
        if parties:
            heads.append(_scopes(parties, PARTY_AXIS, PARTY))
        return heads

    def _meets(self, ways: list[tuple[Axis, Names, tuple[Node, ...]]]) -> Region:
        """Where one of the alternatives is met."""
        if len(ways) == 1 and not ways[0][2]:
            return self.work.on(ways[0][0], (ways[0][1],))
        return self._either(self._all([self.work.on(axis, (side,)), *map(self.true, nodes)]) for axis, side, nodes in ways)

    def _misses(self, ways: list[tuple[Axis, Names, tuple[Node, ...]]]) -> Region:
        """Where none of the alternatives is met. Every request has an action, a party, and a target or none: this axis has no unknown."""
        found = []
        for axis, side, nodes in ways:
            outside: list[Side] = [*axis.full.minus(side), *([GAP] if axis.gap else [])]
            found.append(self._either([self.work.on(axis, outside), self.any_false(nodes)]))
        return self._all(found)


def _operand(node: Node) -> str:
    return node.fact if isinstance(node, Constraint) else ""


def _passed(delay: Lapse, at: int) -> int:
    """The earliest instant at which a delay from `at` on held."""
    end = None if delay.negated or delay.start is None else after(at, delay.start)
    return at if end is None else end + int(not delay.start_in)


def _actions(
    actions: tuple[Action, ...], registry: Registry, named: frozenset[str] = frozenset()
) -> list[tuple[Axis, Names, tuple[Node, ...]]]:
    """The actions that a rule is about; those of `named` only by their own names: what somebody has to do is not forbidden by the way."""
    axis = action_axis(registry)
    found = []
    plain: frozenset[str] = frozenset()
    for action in actions:
        side = cone(registry, action.iri)
        if named and not named.isdisjoint(side.values):
            side = Names((side.values - named) | ({action.iri} & named))
        if action.refinements:
            found.append((axis, side, action.refinements))
        elif plain or len(actions) > 1:
            plain |= side.values
        else:
            return [(axis, side, ())]
    return [(axis, Names(plain), ()), *found] if plain else found


def _scopes(scopes: tuple[Scope, ...], axis: Axis, of: str) -> list[tuple[Axis, Names, tuple[Node, ...]]]:
    """Things by their ids, and members of collections. Two ids are two things: that one is in a collection of the other's name, which no
    policy says here, is left out of account."""
    plain = frozenset(scope.id for scope in scopes if not scope.refinements and not scope.collection)
    found: list[tuple[Axis, Names, tuple[Node, ...]]] = [(axis, Names(plain), ())] if plain else []
    for scope in scopes:
        if scope.collection:
            found.append((member_axis(of, scope.id), YES, scope.refinements))
        elif scope.refinements:
            found.append((axis, Names(frozenset({scope.id})), scope.refinements))
    return found


def _foreign(text: str) -> tuple[str, Members | Window] | None:
    """An atomic constraint that is not understood, if its operator is one of lists or of an order: left operand and test."""
    raw = json.loads(text)
    if not isinstance(raw, dict) or not _ATOMIC_PARTS <= raw.keys() <= _ATOMIC_KEYS or not isinstance(raw["operator"], str):
        return None
    operator, right = OPERATOR_NAMES.get(raw["operator"]), raw["rightOperand"]
    operand = json.dumps([raw["leftOperand"], raw.get("unit")])
    if operator in _ORDERED:
        if not isinstance(right, dict) or right.get("@type") is None:
            return None
        try:
            value = number(right)[0]
        except PolicyError:
            return None
        return f"{operand} {right['@type']}", judges.numbers(operator, value)
    if isinstance(right, dict) and right.keys() == {"@list"}:
        right = right["@list"]
    values = frozenset(json.dumps(value, sort_keys=True) for value in (right if isinstance(right, list) else [right]))
    if operator not in _LISTS or not values or (operator in ("eq", "neq") and len(values) > 1):
        return None
    return operand, Members(values, operator)
