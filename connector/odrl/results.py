"""A result for every rule and every constraint of a policy, as a decision shows them.

Nothing here decides; it is computed when somebody asks, from the same judges and facts as the decision.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

from connector.odrl import words
from connector.odrl.duties import state_of
from connector.odrl.judge import Case, Spoken, addresses, covers, deciding_atom, facts_of, granted, on_target, reach
from connector.odrl.model import FALSE, TRUE, UNKNOWN, Constraint, Facts, Logic, Node, Rule

State = Literal["satisfied", "unsatisfied", "unknown"]
_STATES: Final[tuple[State, ...]] = ("unsatisfied", "unknown", "satisfied")


class ConstraintResult(NamedTuple):
    """One constraint: what it expects, what was found (None = not known), and the state. A logical one has children instead of values;
    `unit` is the IRI of the unit in which both are counted, or ""."""

    path: str
    left: str
    operator: str
    expected: tuple[str, ...]
    actual: str | None
    state: State
    children: tuple[ConstraintResult, ...] = ()
    id: str = ""
    unit: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        if self.children:
            return {"path": self.path, "operator": self.operator, "state": self.state, "children": [c.to_json() for c in self.children]}
        document = {
            "path": self.path,
            "left": self.left,
            "operator": self.operator,
            "expected": words.all_shown(self.expected),
            "actual": None if self.actual is None else words.shown(self.actual),
            "state": self.state,
        }
        if self.unit:
            document["unit"] = words.shown(self.unit)
        return document


class RuleResult(NamedTuple):
    """One rule: whether it speaks about the action, the target and the party, and whether it is active (None = not known).

    `refinements` are those of the action, the target and the party; `duty` is the state of an obligation, or "" for other rules.
    """

    path: str
    kind: str
    action: bool
    target: bool
    assignee: bool
    active: bool | None
    constraints: tuple[ConstraintResult, ...]
    id: str = ""
    refinements: tuple[ConstraintResult, ...] = ()
    duty: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        document = {
            "path": self.path,
            "kind": self.kind,
            "matches": {"action": self.action, "target": self.target, "assignee": self.assignee},
            "active": self.active,
            "constraints": [constraint.to_json() for constraint in self.constraints],
        }
        if self.refinements:
            document["refinements"] = [refinement.to_json() for refinement in self.refinements]
        if self.duty:
            document["state"] = self.duty
        if self.id:
            document["id"] = words.shown(self.id, words.SENTENCE_CHARS_MAX)
        return document


def rule_results(case: Case, *, constraints: bool = True) -> tuple[RuleResult, ...]:
    """A result for every rule of the policy, in its order; none for a policy that is refused as a whole.

    Without `constraints` the results carry none.
    """
    if case.policy.refused or not case.atoms:
        return ()
    facts = deciding_atom(case)
    spoken = {one.rule.path: one for one in (*case.permissions, *case.prohibitions)}
    return tuple(_rule_result(case, rule, spoken.get(rule.path), facts, constraints) for rule in case.policy.rules)


def _rule_result(case: Case, rule: Rule, spoken: Spoken | None, facts: Facts, constraints: bool) -> RuleResult:
    policy, request, world = case.policy, case.request, case.world
    own, duty, state = facts_of(case, rule, facts), "", FALSE
    if rule.kind == "obligation":
        duty = state_of(policy, rule, world, case.now, own)
        state = FALSE if duty == "inactive" else TRUE
    elif spoken is not None:
        state = granted(case, spoken, facts) if rule.kind == "permission" else spoken.judge(own)
    children = tuple([constraint_result(node, own) for node in rule.constraints]) if constraints else ()
    refinements = tuple([constraint_result(node, own) for node in rule.refinements]) if constraints else ()
    matches = spoken is not None
    return RuleResult(
        rule.path, rule.kind, matches or covers(rule, reach(policy, rule.kind, request.action)),
        matches or on_target(policy, rule, request, world), matches or addresses(policy, rule, request.party, world),
        None if state == UNKNOWN else state == TRUE, children, rule.id, refinements, duty,
    )  # fmt: skip


def constraint_result(node: Node, facts: Facts) -> ConstraintResult:
    """What was expected of a constraint, what was found, and how it stands; its parts likewise."""
    state = _STATES[node.judge(facts)]
    if isinstance(node, Constraint):
        actual = facts.get(node.fact)
        told = None if actual is None else words.fact(node, actual)
        return ConstraintResult(node.path, node.operand, node.operator, node.expected, told, state, (), node.id, node.unit)
    if isinstance(node, Logic):
        children = tuple([constraint_result(part, facts) for part in node.parts])
        return ConstraintResult(node.path, "", node.kind, (), None, state, children, node.id)
    return ConstraintResult(node.path, "", "", (), None, state, (), node.id)
