"""The words of two policies without their spelling: which rules and conditions one has and the other has not.

Spellings of IRIs, time zones, the order and repetition of rules and constraints, `eq` beside `isAnyOf` of one, nested `and` all vanish. Two
policies in the same words mean the same; the opposite is a matter of comparison.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Final

from connector.odrl import words
from connector.odrl.model import Constraint, Logic, Members, Node, Policy, Rule, Scope, Test

Head = tuple[Hashable, ...]
NOTHING: Final[frozenset[Hashable]] = frozenset()


def same_words(a: Policy, b: Policy, *, bare: bool = True) -> bool:
    """Whether two policies have the same rules in the same words of meaning. Unless `bare`, also the same target and assignees."""
    if a.conflict != b.conflict or a.opaque != b.opaque or not (bare or (a.target == b.target and a.assignees == b.assignees)):
        return False
    spoken = [(policy.usage, policy.measures, policy.instants) for policy in (a, b)]
    return spoken[0] == spoken[1] and _rules(a) == _rules(b)  # what speaks of other things says something else


def changes(a: Policy, b: Policy) -> list[str]:
    """What `b` says otherwise than `a` in so many words, one sentence for each difference."""
    found = []
    if a.profiles != b.profiles:
        found.append(f"profile {_names(b.profiles)} instead of {_names(a.profiles)}")
    if a.conflict != b.conflict:
        found.append(f"conflicts are decided by `{b.conflict or 'nothing'}` instead of `{a.conflict or 'nothing'}`")
    if a.opaque != b.opaque:
        found.append("properties that are not understood here differ")
    return found + _between(a.rules, b.rules)


def meaning(node: Node) -> Hashable:
    """A constraint without its spelling; equal for equal meaning."""
    if isinstance(node, Constraint):
        return (node.operand, node.unit, _same(node.test))
    if isinstance(node, Logic) and node.kind in ("xone", "andSequence"):
        parts_in_order = tuple(meaning(part) for part in node.parts)
        return (node.kind, parts_in_order if node.kind == "andSequence" else frozenset(Counter(parts_in_order).items()))
    if isinstance(node, Logic):
        parts = conjuncts(node.parts) if node.kind == "and" else frozenset(_flat(node.parts, "or"))
        return next(iter(parts)) if len(parts) == 1 else (node.kind, parts)
    return ("opaque", node.text)


def conjuncts(nodes: Iterable[Node]) -> frozenset[Hashable]:
    """What constraints that all count mean together."""
    return frozenset(_flat(nodes, "and"))


def rule_meaning(rule: Rule) -> Hashable:
    """A rule without its spelling, its id and its place."""
    return (_head(rule), conjuncts(rule.constraints))


def title(rule: Rule) -> str:
    """A rule in words: `the permission to use for did:web:x`."""
    whom = f" for {', '.join(sorted(words.shown(scope.id) for scope in rule.assignees))}" if rule.assignees else ""
    found = words.shown(f"the {rule.kind} to {words.acts(rule)}{whom}", words.SENTENCE_CHARS_MAX)
    return found + (", partly not understood," if rule.opaque else "")


def _same(test: Test) -> Hashable:
    """A test without its spelling: `eq` is `isAnyOf` of one, and `neq` is `isNoneOf`."""
    if isinstance(test, Members) and len(test.values) == 1 and test.operator in ("eq", "neq"):
        return Members(test.values, "isAnyOf" if test.operator == "eq" else "isNoneOf")
    return test


def _flat(nodes: Iterable[Node], kind: str) -> Iterable[Hashable]:
    for node in nodes:
        found = meaning(node)
        if isinstance(found, tuple) and found[0] == kind:
            yield from found[1]
        else:
            yield found


def _head(rule: Rule) -> Head:
    duties = frozenset(rule_meaning(duty) for duty in rule.duties)
    actions = frozenset((action.iri, conjuncts(action.refinements)) for action in rule.actions)
    whom = _scopes(rule.assignees), _scopes(rule.assigners), frozenset(rule.functions)
    return rule.kind, rule.when, actions, _scopes(rule.targets), whom, duties, rule.opaque


def _scopes(scopes: tuple[Scope, ...]) -> Hashable:
    return frozenset((scope.id, scope.collection, conjuncts(scope.refinements)) for scope in scopes)


def _rules(policy: Policy) -> frozenset[Hashable]:
    known: frozenset[Hashable] | None = policy.memo.get(_rules)
    if known is None:
        known = policy.memo[_rules] = frozenset(rule_meaning(rule) for rule in policy.rules)
    return known


def _between(before: Iterable[Rule], after: Iterable[Rule], owner: str = "") -> list[str]:
    """What rules say otherwise than others: those of two policies, or what a rule (`owner`) asks to do. Two are one that has changed if
    they are about the same acts under the same conditions, or for the same duties, or if no other is about the same acts."""
    old, new = ({rule_meaning(rule): rule for rule in rules} for rules in (before, after))
    gone = {key: rule for key, rule in old.items() if key not in new}
    come = {key: rule for key, rule in new.items() if key not in old}
    found = []
    for sort in (_conditions, _owed, _acts):
        mine, its = _sorted(gone, sort), _sorted(come, sort)
        for key, near in mine.items():
            far = its.get(key, [])
            if len(near) == len(far) == 1:
                found += _within(gone.pop(near[0]), come.pop(far[0]), owner)
    if owner:
        found += [f"{owner} no longer asks for {title(rule)}{_asking(rule)}" for rule in gone.values()]
        return found + [f"{owner} also asks for {title(rule)}{_asking(rule)}" for rule in come.values()]
    found += [f"{title(rule)} is missing{_asking(rule)}" for rule in gone.values()]
    return found + [f"{title(rule)} is added{_asking(rule)}" for rule in come.values()]


def _sorted(rules: Mapping[Hashable, Rule], sort: Callable[[Rule], Hashable]) -> dict[Hashable, list[Hashable]]:
    """The keys of rules of each sort."""
    found: dict[Hashable, list[Hashable]] = {}
    for key, rule in rules.items():
        found.setdefault(sort(rule), []).append(key)
    return found


def _acts(rule: Rule) -> Hashable:
    """Which acts of whom a rule is about. What a single action is refined by is a condition."""
    actions = frozenset((action.iri, conjuncts(action.refinements) if len(rule.actions) > 1 else NOTHING) for action in rule.actions)
    whom = _scopes(rule.assignees), _scopes(rule.assigners), frozenset(rule.functions)
    return rule.kind, rule.when, actions, _scopes(rule.targets), whom, rule.opaque


def _conditions(rule: Rule) -> Hashable:
    return _acts(rule), conjuncts(_asked(rule))


def _owed(rule: Rule) -> Hashable:
    return _acts(rule), frozenset(rule_meaning(duty) for duty in rule.duties)


def _asked(rule: Rule) -> tuple[Node, ...]:
    """The conditions of a rule, those of a single action included."""
    return (*rule.constraints, *(rule.actions[0].refinements if len(rule.actions) == 1 else ()))


def _within(before: Rule, after: Rule, owner: str) -> list[str]:
    """The conditions of one rule that come, go, or take the place of another on the same operand, and the same of its duties."""
    old, new = _by_meaning(before), _by_meaning(after)
    gone = [node for key, node in old.items() if key not in new]
    come = [node for key, node in new.items() if key not in old]
    found, name = [], title(after) + (f" of {owner}" if owner else "")
    going, coming, last = Counter(map(_operand, gone)), Counter(map(_operand, come)), {_operand(node): node for node in come}
    instead = {operand: last[operand] for operand, count in coming.items() if operand and count == going[operand] == 1}
    for node in gone:
        if (other := instead.get(_operand(node))) is not None:
            found.append(f"{name} asks that {words.asked(other)}, and no longer that {words.asked(node)}")
        else:
            found.append(f"{name} no longer asks that {words.asked(node)}")
    found += [f"{name} also asks that {words.asked(node)}" for node in come if _operand(node) not in instead]
    return found + _between(before.duties, after.duties, name)


def _operand(node: Node) -> str:
    return node.fact if isinstance(node, Constraint) else ""


def _by_meaning(rule: Rule) -> dict[Hashable, Node]:
    found: dict[Hashable, Node] = {}
    waiting = list(_asked(rule))
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, Logic) and (node.kind == "and" or len(node.parts) == 1):
            waiting = [*node.parts, *waiting]
        else:
            found[meaning(node)] = node
    return found


def _asking(rule: Rule) -> str:
    """What comes with a rule: its conditions, whom it is done to, and the duties that it asks for in turn."""
    conditions = [words.asked(node) for node in (*rule.constraints, *(node for action in rule.actions for node in action.refinements))]
    conditions += [f"{name} is {words.shown(party)}" for name, party in rule.functions]
    found = ["that " + " and ".join(conditions)] if conditions else []
    found += [f"for {title(duty)}{_asking(duty)}" for duty in rule.duties]
    return ", which asks " + words.shown(", and ".join(found), words.SENTENCE_CHARS_MAX) if found else ""


def _names(profiles: frozenset[str]) -> str:
    return ", ".join(f"`{words.shown(profile)}`" for profile in sorted(profiles)) or "none"
