"""Whether one duty covers another: who performs the first has performed the second (odrl.md 4.1).

It covers if every act that performs it performs the other (who owes at least 10 has paid at least 5), its deadline is no later, it is due
whenever the other is, and what follows from its breach covers what follows from the breach of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from connector.odrl.duties import parts_of
from connector.odrl.model import Constraint, Lapse, Logic, Node, Policy, Rule, Scope, Span, Window, conjuncts, leaves
from connector.odrl.operands import DATE_TIME, DELAY_PERIOD, ELAPSED_TIME, bounds_time, is_use
from connector.odrl.values import bounds
from connector.odrl.vocabulary import compact
from connector.odrl.words import shown
from connector.odrl_compare.boxes import Region
from connector.odrl_compare.regions import Reader
from connector.odrl_compare.verdict import NO, UNKNOWN, YES, Answer
from connector.values import replace


def all_covered(reader: Reader, ours: Iterable[Rule], others: Iterable[Rule]) -> tuple[Answer, Rule | None]:
    """Whether each of `others` is covered by one of `ours`, and the first that is not."""
    mine = tuple(ours)
    worst: Answer = YES
    culprit: Rule | None = None
    for other in (part for whole in others for part in in_parts(whole)):
        states = [covers(reader, duty, other) for duty in mine]
        if YES in states:
            continue
        if UNKNOWN not in states:
            return NO, other
        worst, culprit = UNKNOWN, culprit or other
    return worst, culprit


def spared(reader: Reader, ours: Iterable[Rule], others: Iterable[Rule]) -> tuple[Region | None, Region | None]:
    """Where whoever owes `ours` owes nothing more by `others`: surely, and perhaps. None is everywhere.

    At each point a duty is either not due, or one of ours that is due there performs it.
    """
    mine = tuple(ours)
    surely: Region | None = None
    perhaps: Region | None = None
    for other in (part for whole in others for part in in_parts(whole)):
        states = [covers(reader, duty, other) for duty in mine]
        if YES in states:
            continue
        away = idle(reader, other)
        sure, maybe = list(away), list(away)
        for duty in mine:
            state = covers(reader, duty, other, conditions=False)
            if state != NO:
                due = reader.work.without([{}], idle(reader, duty))
                maybe += due
                sure += due if state == YES else []
        if UNKNOWN in states:
            maybe = [{}]
        surely = sure if surely is None else reader.work.both(surely, sure)
        perhaps = maybe if perhaps is None else reader.work.both(perhaps, maybe)
    return surely, perhaps


def idle(reader: Reader, duty: Rule) -> Region:
    """Where a duty is not due: its conditions do not hold."""
    return reader.any_false(_split(duty.constraints)[1])


def covers(reader: Reader, one: Rule, other: Rule, *, conditions: bool = True) -> Answer:
    """Whether performing the first duty performs the second: yes, no, or unknown. `conditions` asks too that it is due whenever the second
    is. Each part of the second has to be done by doing a part of the first."""
    mine, its = in_parts(one), in_parts(other)
    if len(mine) == len(its) == 1:
        return _covers(reader, one, other, conditions=conditions)
    return _each([_covers(reader, part, wanted, conditions=conditions) for part in mine] for wanted in its)


def in_parts(duty: Rule) -> list[Rule]:
    """A duty as several of one action each on one target each: who owes it owes all of them (ODRL 2.2 IM, 2.7)."""
    if len(duty.actions) <= 1 and len(duty.targets) <= 1:
        return [duty]
    return [replace(duty, actions=(action,) if action else (), targets=(target,) if target else ()) for action, target in parts_of(duty)]


def _covers(reader: Reader, one: Rule, other: Rule, *, conditions: bool) -> Answer:
    reader.work.spend(8)
    if one.when != other.when or not set(other.functions) <= set(one.functions):
        return NO
    parts = ((one.assignees, other.assignees), (one.targets, other.targets), (one.assigners, other.assigners))
    if not all(narrower(mine, its) for mine, its in parts):
        return NO
    (bounds_of_one, mine), (bounds_of_other, its) = _split(one.constraints), _split(other.constraints)
    asked: tuple[Callable[[], Answer], ...] = (
        lambda: YES if one.opaque == other.opaque else UNKNOWN,
        lambda: _within(reader, reader.performing(one), reader.performing(other)),
        lambda: _sooner(bounds_of_one, bounds_of_other),
        lambda: YES if _alternatives(one) == _alternatives(other) else UNKNOWN,
        # Where the condition of the first is known not to hold it is not due, and then the second must not be due either.
        lambda: _within(reader, reader.any_false(mine), reader.any_false(its)) if conditions and (mine or its) else YES,
        lambda: all_covered(reader, one.duties, other.duties)[0] if other.duties else YES,
    )
    worst: Answer = YES
    for state in (ask() for ask in asked):
        if state == NO:
            return NO
        worst = UNKNOWN if state == UNKNOWN else worst
    return worst


def described(duty: Rule) -> str:
    """A duty in words: `the duty to odrl:delete`."""
    names = " and ".join(compact(action.iri) for action in duty.actions) or "do anything"
    return f"the {duty.kind} to {shown(names)}"


def clears(reader: Reader, one: Policy, other: Policy) -> tuple[Answer, Rule | None]:
    """Whether what clears an infringement of the first policy's prohibitions is no easier than in the second: the remedies of those that
    can be infringed by one act."""
    for prohibition in one.prohibitions:
        if not prohibition.duties:
            continue
        region = reader.rule(one, prohibition)
        for its in other.prohibitions:
            if not any(reader.work.meet(box, far) for box in region for far in reader.rule(other, its)):
                continue
            if not its.duties:
                return NO, its
            state, culprit = all_covered(reader, prohibition.duties, its.duties)
            if state != YES:
                return state, culprit
    return YES, None


def narrower(one: tuple[Scope, ...], other: tuple[Scope, ...]) -> bool:
    """Whether what the first names is among what the second names; an act counts for any of them."""
    return not other or (bool(one) and set(one) <= set(other))


def _within(reader: Reader, one: Region, other: Region) -> Answer:
    state: Answer = YES
    for box in one:
        for left in reader.work.rest(box, other):
            if not reader.work.guessed(left):
                return NO
            state = UNKNOWN
    return state


def _split(nodes: tuple[Node, ...]) -> tuple[list[Constraint], list[Node]]:
    """The bounds of a duty (until when, before or after the use) and the conditions under which it is due."""
    bound: list[Constraint] = []
    conditions: list[Node] = []
    for node in conjuncts(nodes):
        if isinstance(node, Constraint) and (is_use(node) or bounds_time(node)):
            bound.append(node)
        elif not _bounds_some(node):
            conditions.append(node)
    return bound, conditions


def _bounds_some(node: Node) -> bool:
    """Whether it is a choice between deadlines, which is no condition, and which only the same choice keeps for certain."""
    return isinstance(node, Logic) and any(bounds_time(leaf) for leaf in leaves((node,)))


def _alternatives(duty: Rule) -> set[object]:
    return {_said(node) for node in conjuncts(duty.constraints) if _bounds_some(node)}


def _said(node: Node) -> object:
    if isinstance(node, Logic):
        return node.kind, frozenset(_said(part) for part in node.parts)
    return (node.fact, node.test) if isinstance(node, Constraint) else node.text


def _sooner(one: list[Constraint], other: list[Constraint]) -> Answer:
    """Whether each deadline of the second is kept by one of the first."""
    return _each([_by_then(mine, its) for mine in one] for its in other)


def _by_then(one: Constraint, other: Constraint) -> Answer:
    if one.operand != other.operand:
        return UNKNOWN if {one.operand, other.operand} <= {DATE_TIME, DELAY_PERIOD, ELAPSED_TIME} else NO
    mine, its = one.test, other.test
    if mine == its:
        return YES
    if isinstance(mine, Window) and isinstance(its, Window) and mine.end and its.end:
        begun = mine.start is None or (its.start is not None and mine.start <= its.start)
        return YES if begun and mine.end <= its.end else NO
    if isinstance(mine, Lapse) and isinstance(its, Lapse) and mine.end and its.end:
        return _shorter(mine.end, its.end) if mine.start is None else UNKNOWN
    return NO


def _shorter(one: Span, other: Span) -> Answer:
    if one.months == other.months:
        return YES if one.microseconds <= other.microseconds else NO
    if bounds(one)[1] <= bounds(other)[0]:
        return YES
    return NO if bounds(one)[0] > bounds(other)[1] else UNKNOWN


def _each(states: Iterable[list[Answer]]) -> Answer:
    worst: Answer = YES
    for found in states:
        if YES not in found:
            if UNKNOWN not in found:
                return NO
            worst = UNKNOWN
    return worst
