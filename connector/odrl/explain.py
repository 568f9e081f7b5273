"""Why a case was decided as it was: a result for every rule and constraint, the primary code, and the faults behind it.

Nothing here decides; it is computed when somebody asks, from the same judges and facts as the decision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Final, Literal, NamedTuple

from connector.odrl import words
from connector.odrl.judge import ATOMS_MAX, Case, action_and_above, addresses, matching, on_target, stated, weigh
from connector.odrl.model import FALSE, TRUE, UNKNOWN, Code, Constraint, Facts, Logic, Node, Result, Rule, Window
from connector.odrl.operands import DATE_TIME, OPERANDS
from connector.odrl.values import instant

State = Literal["satisfied", "unsatisfied", "unknown"]
FAULTS_MAX: Final = 32  # that are put into words; fewer are told
_STATES: Final[tuple[State, ...]] = ("unsatisfied", "unknown", "satisfied")


@dataclass(frozen=True, slots=True)
class ConstraintResult:
    """One constraint: what it expects, what was found (None = not known), and the state. A logical one has children instead of values."""

    path: str
    left: str
    operator: str
    expected: tuple[str, ...]
    actual: str | None
    state: State
    children: tuple[ConstraintResult, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        if self.children:
            return {"path": self.path, "operator": self.operator, "state": self.state, "children": [c.to_json() for c in self.children]}
        return {
            "path": self.path,
            "left": self.left,
            "operator": self.operator,
            "expected": [words.shown(value) for value in self.expected],
            "actual": None if self.actual is None else words.shown(self.actual),
            "state": self.state,
        }


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule: whether it speaks about the action, the target and the party, and whether it is active (None = not known)."""

    path: str
    kind: Literal["permission", "prohibition"]
    action: bool
    target: bool
    assignee: bool
    active: bool | None
    constraints: tuple[ConstraintResult, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "path": self.path,
            "kind": self.kind,
            "matches": {"action": self.action, "target": self.target, "assignee": self.assignee},
            "active": self.active,
            "constraints": [constraint.to_json() for constraint in self.constraints],
        }


class Fault(NamedTuple):
    """One part of the reason: where it lies and what it says. `secret` says it without values that the requester did not tell us."""

    path: str
    text: str
    secret: str


def deciding_atom(case: Case) -> Facts:
    """The facts of the act that decided: the first that fares worst."""
    if len(case.atoms) == 1:
        return case.atoms[0]
    permissions, prohibitions = _matching(case)
    worst = weigh(permissions, prohibitions, case.atoms, case.options, case.enforcing)
    for atom in case.atoms:
        if weigh(permissions, prohibitions, (atom,), case.options, case.enforcing) == worst:
            return atom
    return {}


def rule_results(case: Case, *, constraints: bool = True) -> tuple[RuleResult, ...]:
    """A result for every rule of the policy, in its order; none for a policy that is refused as a whole.

    Without `constraints` the results carry none.
    """
    if case.policy.refused or not case.atoms:
        return ()
    policy, request, facts = case.policy, case.request, deciding_atom(case)
    within, target = action_and_above(request.action), on_target(policy, request)
    found = []
    for rule in (*policy.permissions, *policy.prohibitions):
        action, assignee = rule.action in within, addresses(policy, rule, request.party)
        state = rule.judge(facts) if action and target and assignee else FALSE
        active = None if state == UNKNOWN else state == TRUE
        children = tuple(_constraint_result(node, facts) for node in rule.constraints if constraints)
        found.append(RuleResult(rule.path, rule.kind, action, target, assignee, active, children))
    return tuple(found)


def missing(case: Case) -> tuple[str, ...]:
    """The left operands (full IRIs) of matching rules whose facts are not known."""
    if case.policy.refused or not case.atoms:
        return ()
    permissions, prohibitions = _matching(case)
    facts = deciding_atom(case)
    leaves = (leaf for rule in (*permissions, *prohibitions) for node in rule.constraints for leaf in _leaves(node))
    return tuple(dict.fromkeys(leaf.operand for leaf in leaves if isinstance(leaf, Constraint) and leaf.judge(facts) == UNKNOWN))


def account(case: Case, result: Result) -> tuple[Code, list[Fault]]:
    """The primary code and the first faults, the most useful first."""
    policy, request = case.policy, case.request
    if policy.refused:
        errors = [finding for finding in policy.findings if finding.severity == "error"]
        texts = [f"{finding.message}; {finding.fix}" for finding in errors]
        return errors[0].code, [Fault(finding.path, text, text) for finding, text in zip(errors, texts, strict=True)]
    if not case.atoms:
        return Code.LIMIT_EXCEEDED, [_fault("", f"more than {ATOMS_MAX} values are declared")]
    if not on_target(policy, request):
        return Code.NO_MATCHING_RULE, [_fault("/target", f"it is not about `{words.shown(str(request.target))}`")]
    facts = deciding_atom(case)
    permissions, prohibitions = _matching(case)
    granting = [rule for rule in permissions if rule.judge(facts) == TRUE]
    if result is Result.PERMIT:
        return Code.PERMITTED, [_fault(granting[0].path, "granted")]
    biting = [rule for rule in prohibitions if rule.judge(facts) == TRUE]
    if biting and case.options.conflict == "prohibit":
        return Code.PROHIBITED, [fault for rule in biting[:FAULTS_MAX] for fault in _prohibited(rule, case, facts)]
    doubtful = [rule for rule in prohibitions if rule.judge(facts) == UNKNOWN] if granting or result is Result.UNKNOWN else []
    if doubtful or result is Result.UNKNOWN:
        rules = [*(rule for rule in permissions if not granting and rule.judge(facts) == UNKNOWN), *doubtful]
        leaves = (leaf for rule in rules for node in rule.constraints for leaf in _not_decided(node, facts))
        return Code.CONSTRAINT_UNKNOWN, [_leaf_fault(leaf, case, facts) for leaf in islice(leaves, FAULTS_MAX)]
    if not permissions:
        return _nothing_matches(case)
    failing = sorted(([leaf for node in rule.constraints for leaf in _in_the_way(node, facts)] for rule in permissions), key=len)
    return _code_of(failing[0], facts), [_leaf_fault(leaf, case, facts) for leaf in islice(chain.from_iterable(failing), FAULTS_MAX)]


def _matching(case: Case) -> tuple[list[Rule], list[Rule]]:
    policy = case.policy
    return matching(policy, policy.permissions, case.request), matching(policy, policy.prohibitions, case.request)


def _fault(path: str, text: str) -> Fault:
    return Fault(path, text, text)


def _nothing_matches(case: Case) -> tuple[Code, list[Fault]]:
    policy, action = case.policy, words.shown(case.request.action)
    if not policy.permissions:
        return Code.NO_MATCHING_RULE, [_fault("", "it has no permission")]
    within = action_and_above(case.request.action)
    if not any(rule.action in within for rule in policy.permissions):
        return Code.ACTION_NOT_COVERED, [_fault("/permission", f"no permission covers the action `{action}`")]
    return Code.PARTY_NOT_COVERED, [_fault("/permission", f"no permission to `{action}` is for `{words.shown(case.request.party)}`")]


def _prohibited(rule: Rule, case: Case, facts: Facts) -> list[Fault]:
    action = words.shown(case.request.action)
    leaves = [leaf for node in rule.constraints for leaf in _leaves(node) if isinstance(leaf, Constraint) and leaf.judge(facts) == TRUE]
    if not leaves:
        return [_fault(rule.path, f"to `{action}` is prohibited")]
    return [
        Fault(
            leaf.path,
            f"to `{action}` is prohibited where {words.held(leaf, _actual(leaf, facts))}",
            f"to `{action}` is prohibited where {words.held(leaf, _told(leaf, case, facts))}",
        )
        for leaf in leaves[:FAULTS_MAX]
    ]


def _leaf_fault(leaf: Node, case: Case, facts: Facts) -> Fault:
    if not isinstance(leaf, Constraint) or leaf.judge(facts) == UNKNOWN:
        return _fault(leaf.path, words.unstated(leaf))
    return Fault(leaf.path, words.failed(leaf, _actual(leaf, facts)), words.failed(leaf, _told(leaf, case, facts)))


def _code_of(leaves: list[Node], facts: Facts) -> Code:
    """Time alone in the way says when; anything else that is known to fail goes before what is not known."""
    false = [leaf for leaf in leaves if leaf.judge(facts) == FALSE]
    if not false:
        return Code.CONSTRAINT_UNKNOWN
    now = facts.get(DATE_TIME)
    early = late = 0
    for leaf in false:
        if not isinstance(leaf, Constraint) or not isinstance(leaf.test, Window) or leaf.test.negated or not isinstance(now, int):
            return Code.CONSTRAINT_UNSATISFIED
        if leaf.test.end is not None and now >= leaf.test.end:
            late += 1
        else:
            early += 1
    return Code.NOT_YET_VALID if early else Code.EXPIRED


def _constraint_result(node: Node, facts: Facts) -> ConstraintResult:
    state = _STATES[node.judge(facts)]
    if isinstance(node, Logic):
        return ConstraintResult(node.path, "", node.kind, (), None, state, tuple(_constraint_result(part, facts) for part in node.parts))
    if not isinstance(node, Constraint):
        return ConstraintResult(node.path, "", "", (), None, state)
    actual = facts.get(node.operand)
    told = _time(actual) if isinstance(actual, int) else actual
    return ConstraintResult(node.path, node.operand, node.operator, node.expected, told, state)


def _leaves(node: Node) -> Iterator[Node]:
    if isinstance(node, Logic):
        for part in node.parts:
            yield from _leaves(part)
    else:
        yield node


def _in_the_way(node: Node, facts: Facts) -> Iterator[Node]:
    """The leaves that keep a constraint from being satisfied."""
    if node.judge(facts) == TRUE:
        return
    if isinstance(node, Logic):
        for part in node.parts:
            yield from _in_the_way(part, facts)
    else:
        yield node


def _not_decided(node: Node, facts: Facts) -> Iterator[Node]:
    return (leaf for leaf in _leaves(node) if leaf.judge(facts) == UNKNOWN)


def _actual(leaf: Constraint, facts: Facts) -> str | None:
    of = facts.get(leaf.operand)
    if of is None:
        return None
    return _time(of) if isinstance(of, int) else words.value(of)


def _told(leaf: Constraint, case: Case, facts: Facts) -> str | None:
    """The value as the requester may read it: the clock, who they are, and what they declared, but nothing that others said of them."""
    if OPERANDS[leaf.operand].source == "declared" and facts.get(leaf.operand) not in stated(leaf.operand, case.request.params):
        return None
    return _actual(leaf, facts)


def _time(microseconds: int) -> str:
    at = instant(microseconds)
    return at.isoformat().replace("+00:00", "Z") if at is not None else "beyond the calendar"
