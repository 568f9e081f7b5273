"""A result for every rule and every constraint of a policy, as a decision shows them.

Nothing here decides; it is computed when somebody asks, from the same judges and facts as the decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from connector.odrl import words
from connector.odrl.duties import blocks, deadline_of, done_after, state_of
from connector.odrl.judge import Case, Spoken, addresses, covers, deciding_atom, facts_of, granted, on_target, reach, refined
from connector.odrl.model import FALSE, TRUE, UNKNOWN, Constraint, DutyState, Facts, Logic, Node, Options, Policy, Rule, RuleKind, World
from connector.odrl.values import instant
from connector.values import Value

State = Literal["satisfied", "unsatisfied", "unknown"]
Performance = Literal["Performed", "Unperformed", "Unknown"]
_STATES: Final[tuple[State, ...]] = ("unsatisfied", "unknown", "satisfied")
_VALUES: Final = {"unsatisfied": FALSE, "unknown": UNKNOWN, "satisfied": TRUE}
_WHOLE: Final = {"and": min, "or": max}
_HOLDS: Final = {FALSE: False, UNKNOWN: None, TRUE: True}
PERFORMED: Final[Mapping[str, Performance]] = {
    "fulfilled": "Performed", "remediated": "Performed", "overdue": "Unperformed", "pending": "Unknown", "inactive": "Unknown",
}  # fmt: skip
# Compliance Report Model, deontic state: (is it active, was it performed) -> what that means for a permission, a prohibition, a duty.
DEONTIC: Final[Mapping[tuple[bool, Performance], tuple[str, str, str]]] = {
    (True, "Performed"): ("Fulfilled", "Violated", "Fulfilled"),
    (True, "Unperformed"): ("NonSet", "Fulfilled", "Violated"),
    (True, "Unknown"): ("NonSet", "NonSet", "NonSet"),
    (False, "Performed"): ("Violated", "NonSet", "NonSet"),
    (False, "Unperformed"): ("Fulfilled", "NonSet", "NonSet"),
    (False, "Unknown"): ("NonSet", "NonSet", "NonSet"),
}


class Compliance(NamedTuple):
    """A rule in the words of the Compliance Report Model: whether it was attempted, whether it is performed, and what follows (None: it is
    not known whether the rule is active)."""

    attempt: Literal["Attempted", "NotAttempted"]
    performance: Performance
    deontic: str | None


def compliance(kind: RuleKind, active: bool | None, duty: str = "") -> Compliance:
    """The states of a rule; `duty` is that of a duty. A decision comes before the act: whether what is permitted or prohibited is then done
    is not known, and that it was asked for is the attempt."""
    performance = PERFORMED.get(duty, "Unknown")
    column = {"permission": 0, "prohibition": 1}.get(kind, 2)
    attempted = not duty or performance == "Performed"
    deontic = None if active is None else DEONTIC[active, performance][column]
    return Compliance("Attempted" if attempted else "NotAttempted", performance, deontic)


class Owed(Value):
    """A duty as a decision shows it: where it stands in the document, what is to be done, by whom and until when, and how it stands.

    `deadline` is the instant from which it is overdue, as far as there is one already; `blocking` says that the use has to wait for it.
    """

    path: str
    id: str
    when: Literal["pre", "with", "post"]
    kind: str
    actions: tuple[str, ...]
    debtor: str
    state: DutyState
    deadline: datetime | None
    blocking: bool
    rule: Rule


def owed(policy: Policy, rule: Rule, world: World, now: int | None, facts: Facts, options: Options, stage: str) -> Iterator[Owed]:
    """The duties of a permission (or, given an obligation, it alone) as they stand; inactive ones are left out. Behind one that is overdue
    stand its consequences: both clear it only together (ODRL 2.2 IM, 2.6.4)."""
    for duty in rule.duties if rule.kind == "permission" else (rule,):
        state = state_of(policy, duty, world, now, facts)
        if state == "inactive":
            continue
        deadline = deadline_of(duty, world, policy, facts)
        debtor = next((scope.id for scope in (*duty.assignees, *rule.assignees)), next(iter(policy.assignees), ""))
        yield _owed(duty, debtor, state, deadline, blocks(duty, state, options, stage))
        if state == "overdue" and deadline is not None:
            for consequence in duty.duties:
                who = next((scope.id for scope in consequence.assignees), debtor)
                done: DutyState = "fulfilled" if done_after(policy, consequence, world, now, deadline) else "pending"
                yield _owed(consequence, who, done, deadline_of(consequence, world, policy), False)


def _owed(duty: Rule, debtor: str, state: DutyState, deadline: int | None, blocking: bool) -> Owed:
    due_by = None if deadline is None else instant(deadline)
    actions = tuple(action.iri for action in duty.actions)
    return Owed(duty.path, duty.id, duty.when, duty.kind, actions, debtor, state, due_by, blocking, duty)


class ConstraintResult(NamedTuple):
    """One constraint: what was found (None = not known), and how it stands, in plain JSON: what it asks for (`told`), `actual`, `state`,
    and `why` unless it is satisfied. A logical one has children instead of values. `actual` is whole, and shortened in the JSON."""

    node: Node
    document: dict[str, Any]
    actual: str | None = None
    children: tuple[ConstraintResult, ...] = ()

    @property
    def state(self) -> State:
        """How it stands."""
        found: State = self.document["state"]
        return found

    @property
    def path(self) -> str:
        """Where it stands."""
        return self.node.path

    @property
    def id(self) -> str:
        """Its `uid`, or ""."""
        return self.node.id

    @property
    def left(self) -> str:
        """The left operand (full IRI); "" of one that has none."""
        return self.node.operand if isinstance(self.node, Constraint) else ""

    @property
    def operator(self) -> str:
        """The operator, or the kind of a logical one; "" of one that is not understood."""
        return self.node.operator if isinstance(self.node, Constraint) else self.node.kind if isinstance(self.node, Logic) else ""

    @property
    def expected(self) -> tuple[str, ...]:
        """The right operands as written."""
        return self.node.expected if isinstance(self.node, Constraint) else ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return self.document


class RuleResult(NamedTuple):
    """One rule: whether it speaks about the action, the target and the party as their refinements say (None = not known), whether it is
    active, and whether the rule alone lets the request happen (`control`: None, that is not known).

    `refinements` are those of the action, the target and the party; `duty` is the state of an obligation, or "" for other rules.
    """

    path: str
    kind: RuleKind
    action: bool
    target: bool
    assignee: bool
    active: bool | None
    constraints: tuple[ConstraintResult, ...]
    id: str = ""
    refinements: tuple[ConstraintResult, ...] = ()
    duty: str = ""
    refined: bool | None = True
    control: Literal["permit", "deny"] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        attempt, performance, deontic = compliance(self.kind, self.active, self.duty)
        document = {
            "path": self.path,
            "kind": self.kind,
            "matches": {"action": self.action, "target": self.target, "assignee": self.assignee, "refinements": self.refined},
            "active": self.active,
            "control": self.control,
            "attempt": attempt,
            "performance": performance,
            "deontic": deontic,
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
    return tuple([_rule_result(case, rule, spoken.get(rule.path), facts, constraints) for rule in case.policy.rules])


def _rule_result(case: Case, rule: Rule, spoken: Spoken | None, facts: Facts, constraints: bool) -> RuleResult:
    policy, request, world = case.policy, case.request, case.world
    own, duty, state, bars = facts_of(case, rule, facts), "", FALSE, FALSE
    heads: dict[str, Mapping[str, Any]] = policy.memo.setdefault(rule_results, {})
    narrowed = rule.refinements
    children = tuple([constraint_result(node, own, heads) for node in rule.constraints]) if constraints else ()
    refinements = tuple([constraint_result(node, own, heads) for node in narrowed]) if constraints and narrowed else ()
    if rule.kind == "obligation":
        duty = state_of(policy, rule, world, case.now, own)
        state = FALSE if duty == "inactive" else TRUE
        bars = TRUE if blocks(rule, duty, case.options, request.stage) else FALSE
    elif spoken is not None and children and not narrowed and not rule.duties:
        state = min([_VALUES[child.state] for child in children])
    elif spoken is not None:
        state = granted(case, spoken, facts) if rule.kind == "permission" else spoken.judge(own)
    if rule.kind != "obligation":
        bars = TRUE - state if rule.kind == "permission" else state
    within = reach(policy, rule.kind, request.action) if narrowed or spoken is None else frozenset()
    matches = spoken is not None
    return RuleResult(
        rule.path, rule.kind, matches or covers(rule, within),
        matches or on_target(policy, rule, request, world), matches or addresses(policy, rule, request.party, world),
        _HOLDS[state], children, rule.id, refinements, duty,
        _HOLDS[refined(rule, within, request, world)(own)] if narrowed else True,
        None if bars == UNKNOWN else "deny" if bars == TRUE else "permit",
    )  # fmt: skip


def constraint_result(node: Node, facts: Facts, heads: dict[str, Mapping[str, Any]] | None = None) -> ConstraintResult:
    """What was expected of a constraint, what was found, and how it stands; its parts likewise. `heads` keeps what does not change."""
    heads = {} if heads is None else heads
    head = heads.get(node.path)
    if head is None:
        head = heads[node.path] = told(node)
    if isinstance(node, Logic):
        children = tuple([constraint_result(part, facts, heads) for part in node.parts])
        whole = _WHOLE.get(node.kind)
        state = node.judge(facts) if whole is None else whole([_VALUES[child.state] for child in children])
        document = {**head, "state": _STATES[state], "children": [child.document for child in children]}
        return ConstraintResult(node, document, None, children)
    judged, found = node.judge(facts), None
    document, why = {**head, "actual": None, "state": _STATES[judged]}, ""
    if isinstance(node, Constraint) and (actual := facts.get(node.fact)) is not None:
        found = words.fact(node, actual)
        document["actual"] = words.shown(found)
        why = words.failed(node, words.quoted(node, actual)) if judged == FALSE else ""
    if judged != TRUE:
        document["why"] = words.shown(why or words.unstated(node), words.TEXT_CHARS_MAX)
    return ConstraintResult(node, document, found)


def told(node: Node) -> dict[str, Any]:
    """What a constraint asks for, in plain JSON: where it stands, its left operand (IRI, and what people call it), operator, right operand,
    unit, status and id; of a logical one where it stands, and its kind."""
    document: dict[str, Any] = {"path": node.path}
    if isinstance(node, Constraint):
        left = {"iri": node.operand, "label": words.label(node)}
        document |= {"left": left, "operator": node.operator, "expected": words.all_shown(node.expected)}
        if node.unit:
            document["unit"] = words.shown(node.unit)
        if node.used:
            document["status"] = node.used
    elif isinstance(node, Logic):
        document["operator"] = node.kind
    if node.id:
        document["id"] = words.shown(node.id, words.SENTENCE_CHARS_MAX)
    return document
