"""Why a case was decided as it was: a result for every rule and constraint, the primary code, and the faults behind it.

Nothing here decides; it is computed when somebody asks, from the same judges and facts as the decision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Final, Literal, NamedTuple

from connector.odrl import words
from connector.odrl.codes import Code, Result, Stage
from connector.odrl.core import DATE_TIME, PAY_AMOUNT
from connector.odrl.duties import owed, state_of
from connector.odrl.judge import ATOMS_MAX, Case, Spoken, addresses, covers, facts_of, granted, matching, on_target, stated, weigh
from connector.odrl.model import FALSE, TRUE, UNKNOWN, Constraint, Fact, Facts, Logic, Node, Policy, Rule, Since, Window
from connector.odrl.values import instant

State = Literal["satisfied", "unsatisfied", "unknown"]
FAULTS_MAX: Final = 32  # that are put into words; fewer are told
_STATES: Final[tuple[State, ...]] = ("unsatisfied", "unknown", "satisfied")
_CONSENT: Final = frozenset({"obtainConsent", "consent", "Consent"})


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
    id: str = ""

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


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A change that, with the others beside it, would permit: the place, and what has to be so there."""

    path: str
    change: str

    def to_json(self) -> dict[str, str]:
        """Plain JSON types."""
        return {"path": self.path, "change": self.change}


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
    worst = weigh(case, permissions, prohibitions, case.atoms, enforcing=case.enforcing)
    for atom in case.atoms:
        if weigh(case, permissions, prohibitions, (atom,), enforcing=case.enforcing) == worst:
            return atom
    return {}


def granting(case: Case, facts: Facts) -> list[Rule]:
    """The permission that grants, or else would if its duties did not stand in the way; at most one."""
    permissions = matching(case.policy, case.policy.permissions, case.request, case.world)
    for spoken in permissions:
        if granted(case, spoken, facts) == TRUE:
            return [spoken.rule]
    return [spoken.rule for spoken in permissions if spoken.judge(facts_of(case, spoken.rule, facts)) != FALSE][:1]


def rule_results(case: Case, *, constraints: bool = True) -> tuple[RuleResult, ...]:
    """A result for every rule of the policy, in its order; none for a policy that is refused as a whole.

    Without `constraints` the results carry none.
    """
    if case.policy.refused or not case.atoms:
        return ()
    policy, request, facts = case.policy, case.request, deciding_atom(case)
    within = policy.registry.action_within(request.action)
    spoken = {
        one.rule.path: one for rules in (policy.permissions, policy.prohibitions) for one in matching(policy, rules, request, case.world)
    }
    found = []
    for rule in policy.rules:
        own = facts_of(case, rule, facts)
        duty = ""
        if rule.kind == "obligation":
            duty = state_of(policy, rule, case.world, case.now, own)
            state = FALSE if duty == "inactive" else TRUE
        elif rule.path in spoken:
            one = spoken[rule.path]
            state = granted(case, one, facts) if rule.kind == "permission" else one.judge(own)
        else:
            state = FALSE
        active = None if state == UNKNOWN else state == TRUE
        children = tuple(constraint_result(node, own) for node in rule.constraints if constraints)
        refinements = tuple(constraint_result(node, own) for node in _refinements(rule) if constraints)
        found.append(
            RuleResult(
                rule.path, rule.kind, covers(rule, within), on_target(policy, rule, request, case.world),
                addresses(policy, rule, request.party, case.world), active, children, rule.id, refinements, duty,
            )
        )  # fmt: skip
    return tuple(found)


def unknown_operands(case: Case) -> tuple[str, ...]:
    """The left operands (full IRIs) of matching rules whose facts are not known."""
    if case.policy.refused or not case.atoms:
        return ()
    permissions, prohibitions = _matching(case)
    facts = deciding_atom(case)
    doubtful = [one for one in (*permissions, *prohibitions) if one.judge(facts_of(case, one.rule, facts)) == UNKNOWN]
    found = (leaf for one in doubtful for leaf, _ in _not_decided(case, one, facts))
    return tuple(dict.fromkeys(leaf.operand for leaf in found if isinstance(leaf, Constraint)))


def known(case: Case) -> dict[str, list[str]]:
    """What was known, by left operand (full IRI), as text."""
    operands = [*case.policy.usage, *(operand for operand, _ in case.policy.measures)]
    return {operand: list(dict.fromkeys(text for atom in case.atoms for text in _texts(atom, operand))) for operand in operands}


def _texts(atom: Facts, operand: str) -> Iterator[str]:
    for key, fact in atom.items():
        if key == operand or key.startswith(f"{operand} "):
            yield from (words.shown(value) for value in sorted(fact)) if isinstance(fact, frozenset) else [words.shown(_plain(fact))]


def near_misses(case: Case) -> tuple[NearMiss, ...]:
    """What the permission that fails least would need, leaf by leaf; () if nothing but the requester's identity or act would help."""
    if case.policy.refused or not case.atoms:
        return ()
    facts = deciding_atom(case)
    permissions, _ = _matching(case)
    ways = [_failing(case, one, facts) for one in permissions]
    fewest = min((way for way in ways if way), key=len, default=[])
    return tuple(NearMiss(leaf.path, words.asked(leaf)) for leaf, _ in fewest[:FAULTS_MAX])


def account(case: Case, result: Result) -> tuple[Code, list[Fault]]:
    """The primary code and the first faults, the most useful first."""
    policy, request = case.policy, case.request
    if policy.refused:
        errors = [finding for finding in policy.findings if finding.severity == "error"]
        texts = [f"{finding.message}; {finding.fix}" for finding in errors]
        return errors[0].code, [Fault(finding.path, text, text) for finding, text in zip(errors, texts, strict=True)]
    if not case.atoms:
        return Code.LIMIT_EXCEEDED, [_fault("", f"more than {ATOMS_MAX} values are declared")]
    permissions, prohibitions = _matching(case)
    if not permissions and not any(on_target(policy, rule, request, case.world) for rule in policy.rules):
        return Code.NO_MATCHING_RULE, [_fault("/target", f"it is not about `{words.shown(str(request.target))}`")]
    facts = deciding_atom(case)
    states = [(one, granted(case, one, facts)) for one in permissions]
    if result in (Result.PERMIT, Result.PERMIT_WITH):
        path = next((one.rule.path for one, state in states if state != FALSE), policy.permissions[0].path)
        return Code.PERMITTED, [_fault(path, "granted")]
    if void := _void(case, permissions, prohibitions, facts):
        return Code.POLICY_VOID_CONFLICT, void
    biting = [one.rule for one in prohibitions if one.judge(facts_of(case, one.rule, facts)) == TRUE]
    if biting and case.conflict != "permit":
        return Code.PROHIBITED, [fault for rule in biting[:FAULTS_MAX] for fault in _prohibited(rule, case, facts_of(case, rule, facts))]
    if not permissions:
        return _nothing_matches(case)
    if late := _late(case, facts):
        return Code.OBLIGATION_OVERDUE, late
    grants = any(state == TRUE for _, state in states)
    asks = grants or result is Result.UNKNOWN
    doubtful = [one for one in prohibitions if asks and one.judge(facts_of(case, one.rule, facts)) == UNKNOWN]
    if doubtful or result is Result.UNKNOWN:
        rules_in_doubt = [*(one for one, state in states if not grants and state == UNKNOWN), *doubtful]
        in_doubt = (each for one in rules_in_doubt for each in _not_decided(case, one, facts))
        return Code.CONSTRAINT_UNKNOWN, [_leaf_fault(leaf, case, own) for leaf, own in islice(in_doubt, FAULTS_MAX)]
    for one in permissions:
        own = facts_of(case, one.rule, facts)
        if one.judge(own) == TRUE and (blocked := _blocked(one.rule, case, own)):
            return blocked
    failing = sorted((_failing(case, one, facts) for one in permissions), key=len)
    found = islice(chain.from_iterable(failing), FAULTS_MAX)
    return _code_of(failing[0], case), [_leaf_fault(leaf, case, own) for leaf, own in found]


def _matching(case: Case) -> tuple[list[Spoken], list[Spoken]]:
    policy, request, world = case.policy, case.request, case.world
    return matching(policy, policy.permissions, request, world), matching(policy, policy.prohibitions, request, world)


def _void(case: Case, permissions: list[Spoken], prohibitions: list[Spoken], facts: Facts) -> list[Fault]:
    if case.conflict != "invalid" or all(one.judge(facts) == FALSE for one in permissions):
        return []
    said = "it forbids what a permission allows, and so the whole policy is void"
    return [_fault(one.rule.path, said) for one in prohibitions if one.judge(facts) != FALSE]


def _late(case: Case, facts: Facts) -> list[Fault]:
    if case.request.stage in (Stage.CATALOG, Stage.NEGOTIATION):
        return []
    late = [rule for rule in case.policy.obligations if state_of(case.policy, rule, case.world, case.now, facts) == "overdue"]
    return [_fault(rule.path, f"the obligation to {words.acts(rule)} is overdue") for rule in late]


def _blocked(rule: Rule, case: Case, facts: Facts) -> tuple[Code, list[Fault]] | None:
    waiting = [duty for duty in owed(case.policy, rule, case.world, case.now, facts, case.options, case.request.stage) if duty.blocking]
    if not waiting:
        return None
    if any(duty.state == "overdue" for duty in waiting):
        return Code.OBLIGATION_OVERDUE, [_fault(duty.path, f"the duty to {words.acts(duty.rule)} is overdue") for duty in waiting]
    consent = any(action.rpartition("/")[2] in _CONSENT for duty in waiting for action in duty.actions)
    code = Code.CONSENT_MISSING if consent else Code.PREDUTY_OPEN
    return code, [
        _fault(duty.path, f"first it is a duty to {words.acts(duty.rule)}, and nothing shows that this was done") for duty in waiting
    ]


def _fault(path: str, text: str) -> Fault:
    return Fault(path, text, text)


def _nothing_matches(case: Case) -> tuple[Code, list[Fault]]:
    policy, action = case.policy, words.shown(case.request.action)
    if not policy.permissions:
        return Code.NO_MATCHING_RULE, [_fault("", "it has no permission")]
    within = policy.registry.action_within(case.request.action)
    about = [rule for rule in policy.permissions if covers(rule, within)]
    if not about:
        return Code.ACTION_NOT_COVERED, [_fault("/permission", f"no permission covers the action `{action}`")]
    if not any(on_target(policy, rule, case.request, case.world) for rule in about):
        return Code.NO_MATCHING_RULE, [_fault("/permission", f"no permission is about `{words.shown(str(case.request.target))}`")]
    return Code.PARTY_NOT_COVERED, [_fault("/permission", f"no permission to `{action}` is for `{words.shown(case.request.party)}`")]


def _prohibited(rule: Rule, case: Case, facts: Facts) -> list[Fault]:
    action = words.shown(case.request.action)
    found = [leaf for node in rule.constraints for leaf in _leaves(node) if isinstance(leaf, Constraint) and leaf.judge(facts) == TRUE]
    if not found:
        return [_fault(rule.path, f"to `{action}` is prohibited")]
    return [
        Fault(
            leaf.path,
            f"to `{action}` is prohibited where {words.held(leaf, _actual(leaf, facts))}",
            f"to `{action}` is prohibited where {words.held(leaf, _told(leaf, case, facts))}",
        )
        for leaf in found[:FAULTS_MAX]
    ]


def _leaf_fault(leaf: Node, case: Case, facts: Facts) -> Fault:
    if not isinstance(leaf, Constraint) or leaf.judge(facts) == UNKNOWN:
        return _fault(leaf.path, words.unstated(leaf))
    return Fault(leaf.path, words.failed(leaf, _actual(leaf, facts)), words.failed(leaf, _told(leaf, case, facts)))


def _code_of(found: list[tuple[Node, Facts]], case: Case) -> Code:
    """Time alone in the way says when, a counter alone that it is used up; anything else that is known to fail goes before what is not."""
    false = [leaf for leaf, own in found if leaf.judge(own) == FALSE]
    if not false:
        return Code.CONSTRAINT_UNKNOWN
    operands = case.policy.registry.operands
    if all(isinstance(leaf, Constraint) and operands[leaf.operand].kind == "counter" and leaf.operand != PAY_AMOUNT for leaf in false):
        return Code.QUOTA_EXHAUSTED
    now = case.now
    early = late = 0
    for leaf in false:
        if not isinstance(leaf, Constraint) or not isinstance(leaf.test, Window) or leaf.test.negated or not isinstance(now, int):
            return Code.CONSTRAINT_UNSATISFIED
        if leaf.operand != DATE_TIME:
            return Code.CONSTRAINT_UNSATISFIED
        if leaf.test.end is not None and now >= leaf.test.end[0]:
            late += 1
        else:
            early += 1
    return Code.NOT_YET_VALID if early else Code.EXPIRED


def constraint_result(node: Node, facts: Facts) -> ConstraintResult:
    """What was expected of a constraint, what was found, and how it stands; its parts likewise."""
    state = _STATES[node.judge(facts)]
    if isinstance(node, Logic):
        children = tuple(constraint_result(part, facts) for part in node.parts)
        return ConstraintResult(node.path, "", node.kind, (), None, state, children, node.id)
    if not isinstance(node, Constraint):
        return ConstraintResult(node.path, "", "", (), None, state, (), node.id)
    actual = facts.get(node.fact)
    told = None if actual is None else _time(actual) if _is_instant(node, actual) else _plain(actual)
    return ConstraintResult(node.path, node.operand, node.operator, node.expected, told, state, (), node.id)


def _is_instant(node: Constraint, fact: Fact) -> bool:
    return node.operand == DATE_TIME and isinstance(fact, int)


def _plain(fact: Fact) -> str:
    if isinstance(fact, frozenset):
        return ", ".join(sorted(fact))
    if isinstance(fact, Since):
        return words.seconds(fact.now - fact.anchor)
    return str(fact)


def leaves(policy: Policy) -> Iterator[Node]:
    """Every constraint and refinement of the policy that has no parts, those of duties too."""
    waiting = list(policy.rules)
    while waiting:
        rule = waiting.pop()
        waiting.extend(rule.duties)
        for node in (*rule.constraints, *_refinements(rule)):
            yield from _leaves(node)


def _refinements(rule: Rule) -> Iterator[Node]:
    for action in rule.actions:
        yield from action.refinements
    for scope in (*rule.targets, *rule.assignees):
        yield from scope.refinements


def _leaves(node: Node) -> Iterator[Node]:
    if isinstance(node, Logic):
        for part in node.parts:
            yield from _leaves(part)
    else:
        yield node


def _failing(case: Case, spoken: Spoken, facts: Facts) -> list[tuple[Node, Facts]]:
    """The leaves that keep a permission from granting, each with the facts that it is judged by: what the rule has used up is its own."""
    own = facts_of(case, spoken.rule, facts)
    return [(leaf, own) for node in (*spoken.rule.constraints, *_refinements(spoken.rule)) for leaf in _in_the_way(node, own)]


def _in_the_way(node: Node, facts: Facts) -> Iterator[Node]:
    """The leaves that keep a constraint from being satisfied. Where exactly one of several has to hold, these are all."""
    if node.judge(facts) == TRUE:
        return
    if isinstance(node, Logic) and node.kind != "xone":
        for part in node.parts:
            yield from _in_the_way(part, facts)
    else:
        yield node


def _not_decided(case: Case, spoken: Spoken, facts: Facts) -> Iterator[tuple[Node, Facts]]:
    own = facts_of(case, spoken.rule, facts)
    nodes = (*spoken.rule.constraints, *_refinements(spoken.rule))
    return ((leaf, own) for node in nodes for leaf in _leaves(node) if leaf.judge(own) == UNKNOWN)


def _actual(leaf: Constraint, facts: Facts) -> str | None:
    of = facts.get(leaf.fact)
    if of is None:
        return None
    if isinstance(of, str):
        return words.value(of)
    if isinstance(of, frozenset):
        return ", ".join(words.value(one) for one in sorted(of)[: words.VALUES_SHOWN_MAX])
    return _time(of) if _is_instant(leaf, of) else _plain(of)


def found_values(leaf: Constraint, case: Case, facts: Facts, *, full: bool) -> list[str] | None:
    """What was found for a constraint, each value as text: None where it is not known, or where the requester may not read it."""
    of = facts.get(leaf.fact)
    if of is None or not (full or _tells(leaf, case, facts)):
        return None
    return sorted(of) if isinstance(of, frozenset) else [_time(of) if _is_instant(leaf, of) else _plain(of)]


def _told(leaf: Constraint, case: Case, facts: Facts) -> str | None:
    return _actual(leaf, facts) if _tells(leaf, case, facts) else None


def _tells(leaf: Constraint, case: Case, facts: Facts) -> bool:
    """Whether the requester may read the value: the clock, who they are, what they used themselves (both sides count it), and what they
    declared, but nothing that others said of them."""
    known = case.policy.registry.operands[leaf.operand].source in ("clock", "identity", "meter")
    return known or facts.get(leaf.fact) in stated(leaf.operand, case.request.params)


def _time(fact: Fact) -> str:
    at = instant(fact) if isinstance(fact, int) else None
    return at.isoformat().replace("+00:00", "Z") if at is not None else "beyond the calendar"
