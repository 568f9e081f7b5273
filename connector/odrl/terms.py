"""Whether two policies say the same, and in plain words what differs.

What is compared is meaning: spellings of IRIs, time zones, the order and repetition of rules and constraints, `eq` beside `isAnyOf` of one,
nested `and` all vanish. Ids, the target, the parties of the policy and the timestamp are not terms: the protocol sets them, and its state
machine checks them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable

from connector.odrl import words
from connector.odrl.model import Constraint, Logic, Members, Node, Policy, Rule, Scope, Test

Head = tuple[str, Hashable, Hashable, Hashable, Hashable, str]
Terms = dict[Head, set[frozenset[Hashable]]]


def same_terms(a: Policy, b: Policy) -> bool:
    """Whether two policies permit and prohibit the same in the same words of meaning. What is not understood must be equal as JSON."""
    return a is b or (a.profiles == b.profiles and a.conflict == b.conflict and a.opaque == b.opaque and _rules(a) == _rules(b))


def differences(a: Policy, b: Policy) -> list[str]:
    """What `b` says otherwise than `a`, one sentence for each difference; empty if and only if they have the same terms."""
    found = []
    if a.profiles != b.profiles:
        found.append(f"profile {_names(b.profiles)} instead of {_names(a.profiles)}")
    if a.conflict != b.conflict:
        found.append(f"conflicts are decided by `{b.conflict or 'nothing'}` instead of `{a.conflict or 'nothing'}`")
    if a.opaque != b.opaque:
        found.append("properties that are not understood here differ")
    left, right = _by_head(a), _by_head(b)
    for head in dict.fromkeys([*left, *right]):
        missing = _unlike(left.get(head, {}), right.get(head, {}))
        added = _unlike(right.get(head, {}), left.get(head, {}))
        if len(missing) == 1 and len(added) == 1:
            found += _within(missing[0], added[0])
            continue
        found += [f"{_title(rule)} is missing{_asking(rule)}" for rule in missing]
        found += [f"{_title(rule)} is added{_asking(rule)}" for rule in added]
    return found


def meaning(node: Node) -> Hashable:
    """A constraint without its spelling; equal for equal meaning."""
    if isinstance(node, Constraint):
        return (node.operand, node.unit, _same(node.test))
    if isinstance(node, Logic) and node.kind in ("xone", "andSequence"):
        parts_in_order = tuple(meaning(part) for part in node.parts)
        return (node.kind, parts_in_order if node.kind == "andSequence" else frozenset(Counter(parts_in_order).items()))
    if isinstance(node, Logic):
        parts = _conjuncts(node.parts) if node.kind == "and" else _disjuncts(node.parts)
        return next(iter(parts)) if len(parts) == 1 else (node.kind, parts)
    return ("opaque", node.text)


def _same(test: Test) -> Hashable:
    """A test without its spelling: `eq` is `isAnyOf` of one, and `neq` is `isNoneOf`."""
    if isinstance(test, Members) and len(test.values) == 1 and test.operator in ("eq", "neq"):
        return Members(test.values, "isAnyOf" if test.operator == "eq" else "isNoneOf")
    return test


def _conjuncts(nodes: Iterable[Node]) -> frozenset[Hashable]:
    return frozenset(_flat(nodes, "and"))


def _disjuncts(nodes: Iterable[Node]) -> frozenset[Hashable]:
    return frozenset(_flat(nodes, "or"))


def _flat(nodes: Iterable[Node], kind: str) -> Iterable[Hashable]:
    for node in nodes:
        found = meaning(node)
        if isinstance(found, tuple) and found[0] == kind:
            yield from found[1]
        else:
            yield found


def _head(rule: Rule) -> Head:
    duties = frozenset((_head(duty), _conjuncts(duty.constraints)) for duty in rule.duties)
    return (
        rule.kind, frozenset((action.iri, _conjuncts(action.refinements)) for action in rule.actions), _scopes(rule.targets),
        _scopes(rule.assignees), duties, rule.opaque,
    )  # fmt: skip


def _scopes(scopes: tuple[Scope, ...]) -> Hashable:
    return frozenset((scope.id, scope.collection, _conjuncts(scope.refinements)) for scope in scopes)


def _rules(policy: Policy) -> frozenset[tuple[Head, frozenset[Hashable]]]:
    return frozenset((_head(rule), _conjuncts(rule.constraints)) for rule in policy.rules)


def _by_head(policy: Policy) -> dict[Head, dict[frozenset[Hashable], Rule]]:
    found: dict[Head, dict[frozenset[Hashable], Rule]] = {}
    for rule in policy.rules:
        found.setdefault(_head(rule), {})[_conjuncts(rule.constraints)] = rule
    return found


def _unlike(mine: dict[frozenset[Hashable], Rule], other: dict[frozenset[Hashable], Rule]) -> list[Rule]:
    return [rule for key, rule in mine.items() if key not in other]


def _within(before: Rule, after: Rule) -> list[str]:
    """The conditions of one rule that come and go."""
    old, new = _by_meaning(before), _by_meaning(after)
    gone = [words.asked(node) for key, node in old.items() if key not in new]
    come = [words.asked(node) for key, node in new.items() if key not in old]
    title = _title(after)
    return [f"{title} no longer asks that {text}" for text in gone] + [f"{title} also asks that {text}" for text in come]


def _by_meaning(rule: Rule) -> dict[Hashable, Node]:
    found: dict[Hashable, Node] = {}
    waiting = list(rule.constraints)
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, Logic) and (node.kind == "and" or len(node.parts) == 1):
            waiting = [*node.parts, *waiting]
        else:
            found[meaning(node)] = node
    return found


def _title(rule: Rule) -> str:
    whom = f" for {', '.join(sorted(words.shown(scope.id) for scope in rule.assignees))}" if rule.assignees else ""
    return words.shown(f"the {rule.kind} to {words.acts(rule)}{whom}", words.SENTENCE_CHARS_MAX) + (
        ", partly not understood," if rule.opaque else ""
    )


def _asking(rule: Rule) -> str:
    if not rule.constraints:
        return ", which asks nothing"
    return ", which asks that " + words.shown(" and ".join(words.asked(node) for node in rule.constraints), words.SENTENCE_CHARS_MAX)


def _names(profiles: frozenset[str]) -> str:
    return ", ".join(f"`{words.shown(profile)}`" for profile in sorted(profiles)) or "none"
