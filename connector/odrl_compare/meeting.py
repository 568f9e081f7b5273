"""The meet of two policies: what both permit, with the duties and prohibitions of both, as a policy that can be sent.

Each permission of the one meets each of the other, axis by axis. The result is read again and compared with both before it is given out: a
meet that cannot be shown to be narrower than each of them is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, Literal

from connector.errors import PolicyError
from connector.odrl.duties import duty_actions
from connector.odrl.model import DEFAULT_OPTIONS, Action, Constraint, Logic, Members, Node, Options, Policy, Rule, Scope, leaves
from connector.odrl.registry import Registry, registry_of
from connector.odrl_compare.axes import Axis, axis_of, cone, sides_of
from connector.odrl_compare.boxes import STEPS_MAX, Region, TooComplex, Work
from connector.odrl_compare.comparing import COMPLEX, NAMES, Comparison
from connector.odrl_compare.covering import covers
from connector.odrl_compare.regions import Reader
from connector.odrl_compare.saying import separation
from connector.odrl_compare.sides import Names, Side
from connector.odrl_compare.verdict import NO, YES
from connector.odrl_compare.wording import changes, meaning, rule_meaning
from connector.odrl_compare.writing import CONFLICTS, rule_json
from connector.values import Value, replace

RULES_MAX: Final = 64  # of each kind in a meet; more are no counter-offer that anybody reads
STEPS_OF_RULE: Final = 4  # what it costs to write a rule down for one action


class Meeting(Value):
    """The meet of two policies, or why there is none.

    `policy` is it as read, `document` as JSON of a DSP 2025-1 Offer (without `@context`, as it stands in a message). `from_first` and
    `from_second` list what it says otherwise than each, one sentence for each axis. `reason` is set if there is no meet: the two have
    nothing in common (`apart`), or it cannot be written, or not shown to be narrower.
    """

    policy: Policy | None
    document: dict[str, Any] | None
    from_first: tuple[str, ...] = ()
    from_second: tuple[str, ...] = ()
    reason: str = ""
    apart: bool = False


class Separation(Value):
    """What two policies have nothing in common on: the left operand (full IRI) or `action`, `target`, `party`; "" if no one axis is it."""

    axis: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def separating(a: Policy, b: Policy, *, options: Options = DEFAULT_OPTIONS, names: tuple[str, str] = NAMES) -> Separation | None:
    """The axis that makes two policies disjoint; None if they have something in common, or nobody can tell. `names` are what the two are
    called in the sentence."""
    comparison = Comparison(a, b, options, steps=STEPS_MAX // 2, names=names)
    return separated(comparison) if comparison.compatible().answer == NO else None


def separated(comparison: Comparison) -> Separation:
    """The axis that makes two policies disjoint of which a comparison has found that they are."""
    look = comparison.looks()[0]
    return Separation(*separation(look.reader.work.axes, look.one.boxes, look.other.boxes, comparison.names))


def meet(a: Policy, b: Policy, *, options: Options = DEFAULT_OPTIONS, id: str = "", names: tuple[str, str] = NAMES) -> Meeting:
    """What both policies permit, with all duties and prohibitions of both: the widest policy that refines each.

    `options` are those under which they were read (their profiles read the result too), `id` is the `@id` of the result, by default that of
    the first, `names` are what the two are called in the reason. It takes a bounded time for policies as `load` lets them in,
    and never raises.
    """
    comparison = Comparison(a, b, options, steps=STEPS_MAX // 2, names=names)
    if comparison.compatible().answer == NO:
        return Meeting(None, None, reason=separated(comparison).sentence, apart=True)
    return met(comparison, id=id)


def met(comparison: Comparison, *, id: str = "", steps: int = STEPS_MAX // 2) -> Meeting:
    """`meet` of two policies of which a comparison has not found that they are apart, in so many more steps."""
    one, other, options, names = comparison.one, comparison.other, comparison.options, comparison.names
    if one.registry is not other.registry or one.registry is not registry_of(options):
        return Meeting(None, None, reason="the two were read under other profiles than those of the options")
    try:
        reader = Reader(one.registry, Work(steps), {})
        document = _document(reader, one, other, options, id or one.id or other.id)
        found = _load(document, options)
    except TooComplex:
        return Meeting(None, None, reason=COMPLEX.reason)
    except PolicyError as error:
        return Meeting(None, None, reason=f"what both permit cannot be written: {error.message}")
    left = reader.work.left  # for both questions
    for policy, name in ((one, names[0]), (other, names[1])):
        check = Comparison(found, policy, options, steps=left)
        narrower, left = check.refines(), check.work.left
        if narrower.answer != YES:
            why = narrower.reason
            return Meeting(None, None, reason=f"what was found cannot be shown to be narrower than the {name}: {why}")
    return Meeting(found, document, tuple(changes(one, found)), tuple(changes(other, found)))


def _load(document: dict[str, Any], options: Options) -> Policy:
    from connector.odrl_reading.parse import load

    return load(document, options=options)


def _document(reader: Reader, one: Policy, other: Policy, options: Options, id: str) -> dict[str, Any]:
    target = _one_of(one.target, other.target, "target")
    assignees = _common(tuple(map(Scope, sorted(one.assignees))), tuple(map(Scope, sorted(other.assignees))))
    if assignees is None:
        raise PolicyError("the two are for different parties")
    far = _regions(reader, other)
    permissions = _distinct(
        reader,
        (
            _both(reader, one, other, mine, its)
            for mine, here in _regions(reader, one)
            for its, there in far
            if reader.work.both(here, there)
        ),
    )
    prohibitions = _distinct(
        reader,
        (
            rule
            for policy, far in ((one, other), (other, one))
            for prohibition in _prohibitions(policy, options)
            for rule in _named(prohibition, duty_actions(far) - duty_actions(policy), one.registry)
        ),
    )
    obligations = _owed(reader, (*one.obligations, *other.obligations))
    document: dict[str, Any] = {"@id": id, "@type": "Offer"}
    if target is not None:
        document["target"] = target
    if profiles := sorted(one.profiles | other.profiles):
        document["profile"] = profiles
    if assignees:
        document["assignee"] = [scope.id for scope in assignees] if len(assignees) > 1 else assignees[0].id
    if any(policy.conflict for policy in (one, other)) and prohibitions:
        document["odrl:conflict"] = {"@id": CONFLICTS["prohibit"]}
    for name, rules in (("permission", permissions), ("prohibition", prohibitions), ("obligation", obligations)):
        if rules:
            document[name] = [rule_json(rule) for rule in rules]
    return document


def _one_of(mine: str | None, its: str | None, name: str) -> str | None:
    if mine is not None and its is not None and mine != its:
        raise PolicyError(f"the two have different values of `{name}`")
    return mine if mine is not None else its


def _prohibitions(policy: Policy, options: Options) -> tuple[Rule, ...]:
    """Those that count. Where permissions win, a prohibition forbids nothing that is permitted."""
    return () if (policy.conflict or options.conflict) == "permit" else policy.prohibitions


def _named(prohibition: Rule, duties: frozenset[str], registry: Registry) -> tuple[Rule, ...]:
    """A prohibition, and beside it what it would no longer forbid because it is a duty of the other policy: what somebody has to do is
    prohibited only by its own name."""
    reached = [
        Action(name, registry.within.get(name, frozenset()), action.refinements)
        for action in prohibition.actions
        for name in sorted(duties & cone(registry, action.iri).values - {action.iri})
    ]
    return prohibition, *(replace(prohibition, actions=(action,)) for action in reached)


def _regions(reader: Reader, policy: Policy) -> list[tuple[Rule, Region]]:
    return [(rule, reader.rule(policy, rule)) for rule in policy.permissions]


def _both(reader: Reader, one: Policy, other: Policy, mine: Rule, its: Rule) -> Rule:
    """What two permissions that meet permit both. Raises PolicyError where that has no form of its own."""
    actions = _actions(reader, mine.actions, its.actions)
    targets = _common(mine.targets, its.targets)
    parties = _parties(one, other, mine, its)
    if actions is None or targets is None or parties is None:
        raise PolicyError("what two permissions have in common has no form of its own")
    duties = _owed(reader, (*mine.duties, *its.duties))
    nodes = narrowed(reader, (*mine.constraints, *its.constraints))
    return replace(
        mine, id="", actions=actions, targets=targets, assignees=parties, constraints=nodes, duties=duties, opaque=mine.opaque + its.opaque
    )


def _parties(one: Policy, other: Policy, mine: Rule, its: Rule) -> tuple[Scope, ...] | None:
    """Whom both permissions address. Its own assignees go before those of the policy, so both count where one names some."""
    if not mine.assignees and not its.assignees:
        return ()
    found: list[tuple[Scope, ...]] = []
    for policy, rule in ((one, mine), (other, its)):
        found.append(rule.assignees or tuple(map(Scope, sorted(policy.assignees))))
    return _common(*found)


def _actions(reader: Reader, mine: tuple[Action, ...], its: tuple[Action, ...]) -> tuple[Action, ...] | None:
    """The actions that lie below one of each: of two, the narrower. None if there is no such action by name."""
    if not mine or not its:
        return mine or its
    if any(action.refinements for action in (*mine, *its)):
        return mine if mine == its else None
    reader.work.spend(1 + (len(mine) * len(its) >> 3))
    found = {name: None for one in mine for other in its for name in _tops(reader.registry, one.iri, other.iri)}
    return tuple(Action(name, reader.registry.within.get(name, frozenset())) for name in found) or None


@lru_cache(maxsize=4096)
def _tops(registry: Registry, one: str, other: str) -> tuple[str, ...]:
    """The widest of the actions that are included in both."""
    common = cone(registry, one).values & cone(registry, other).values
    return tuple(name for name in sorted(common) if not any(above in common for above in registry.within.get(name, ()) if above != name))


def _common(mine: tuple[Scope, ...], its: tuple[Scope, ...]) -> tuple[Scope, ...] | None:
    """The things that both name; () is anything, None nothing (or something that has no name: members of two collections)."""
    if not mine or not its:
        return mine or its
    if set(mine) == set(its):
        return mine
    if any(scope.collection or scope.refinements for scope in (*mine, *its)):
        return None
    return tuple(scope for scope in mine if scope in its) or None


def _owed(reader: Reader, duties: Iterable[Rule]) -> tuple[Rule, ...]:
    """All duties, but for one that another covers."""
    found: list[Rule] = []
    for duty in duties:
        if any(covers(reader, known, duty) == YES for known in found):
            continue
        found = [known for known in found if covers(reader, duty, known) != YES]
        found.append(duty)
    return tuple(found)


def _distinct(reader: Reader, rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The rules, each about one action, without those that say the same. Raises PolicyError for more than RULES_MAX."""
    found: dict[object, Rule] = {}
    for rule in rules:
        size = _size(rule)
        for action in rule.actions or (None,):
            reader.work.spend(size)
            alone = rule if action is None else replace(rule, actions=(action,))
            found.setdefault(rule_meaning(alone), alone)
            if len(found) > RULES_MAX:
                raise PolicyError(f"there are more than {RULES_MAX} {rule.kind}s in it")
    return tuple(found.values())


def _size(rule: Rule) -> int:
    """Steps to tell one rule from others: some for itself, and one for each constraint and duty."""
    return STEPS_OF_RULE + sum(1 for _ in leaves((*rule.constraints, *rule.refinements))) + sum(map(_size, rule.duties))


def narrowed(reader: Reader, nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The same constraints without those that follow from another on their axis; several choices of names become one."""
    found: dict[object, Node] = {}
    waiting = list(nodes)
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, Logic) and node.kind == "and":
            waiting = [*node.parts, *waiting]
        else:
            found.setdefault(meaning(node), node)
    kept: dict[object, Node] = {}
    about: dict[str, list[Constraint]] = {}  # those that are kept, by what they are about
    for key, node in found.items():
        if not isinstance(node, Constraint):
            kept[key] = node
            continue
        before = about.get(node.fact, [])
        settled, rest = _settled(reader, node, before)
        if settled is not None:
            for known in before:
                if known not in rest:
                    del kept[meaning(known)]
            kept[meaning(settled)] = settled
            about[node.fact] = [*rest, settled]
    return tuple(kept.values())


def _settled(reader: Reader, node: Constraint, kept: list[Constraint]) -> tuple[Constraint | None, list[Constraint]]:
    """A constraint beside those that are kept of what it is about: None if it follows from one; without those that follow from it."""
    axis = axis_of(reader.registry, node)
    mine = _side(reader, axis, node)
    rest: list[Constraint] = []
    for known in kept:
        its = _side(reader, axis, known)
        if mine is None or its is None:
            rest.append(known)
        elif its.inside(mine):
            return None, kept
        elif not mine.inside(its):
            joined = _joined(node, mine, its)
            if joined is None:
                rest.append(known)
            else:
                node, mine = joined, _side(reader, axis, joined)
    return node, rest


def _side(reader: Reader, axis: Axis, node: Constraint) -> Side | None:
    reader.work.spend(3 + (len(node.expected) >> 2))
    sides = sides_of(axis, node, reader.registry, reader.lengths, holds=True)
    months = not isinstance(node.test, Members) and any(getattr(span, "months", 0) for span in (node.test.start, node.test.end))
    return sides[0] if len(sides) == 1 and not months else None


def _joined(node: Constraint, mine: Side, its: Side) -> Constraint | None:
    """Two choices of names as one."""
    if not isinstance(mine, Names) or not isinstance(its, Names) or not isinstance(node.test, Members) or node.operand.endswith("/event"):
        return None
    common = mine.meet(its)
    if common is None or common.negated or common.hidden or not common.values:
        return None
    operator: Literal["eq", "isAnyOf"] = "eq" if len(common.values) == 1 else "isAnyOf"
    return replace(node, operator=operator, expected=tuple(sorted(common.values)), test=Members(common.values, operator))
