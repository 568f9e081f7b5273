"""A decision -> the compliance report of the ODRL evaluators (https://w3id.org/force/compliance-report#).

The vocabulary has no word for what is not known: such a premise has no `satisfactionState`, and such a rule no `activationState`. Nor has
it one for the result of a policy as a whole: that is the decision's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from connector.odrl.decision import Decision
from connector.odrl.duties import state_of
from connector.odrl.judge import addresses, covers, deciding_atom, facts_of, on_target
from connector.odrl.judges import all_of, any_of
from connector.odrl.model import FALSE, TRUE, UNKNOWN, Action, Facts, Rule, Scope
from connector.odrl.results import Compliance, ConstraintResult, RuleResult, compliance, constraint_result
from connector.odrl.vocabulary import ODRL
from connector.odrl_rdf.rdf import ABSOLUTE_IRI, XSD

if TYPE_CHECKING:
    from rdflib import Graph
    from rdflib.term import Node

REPORT: Final = "https://w3id.org/force/compliance-report#"
CREATED: Final = "http://purl.org/dc/terms/created"

_KINDS: Final = {"permission": "PermissionReport", "prohibition": "ProhibitionReport"}  # every other rule is a duty
_SATISFIED: Final = {TRUE: "Satisfied", FALSE: "Unsatisfied"}
_STATES: Final = {"satisfied": TRUE, "unsatisfied": FALSE, "unknown": UNKNOWN}


def report_rdf(decision: Decision) -> Graph:
    """The compliance report of a decision as an RDF graph.

    One PolicyReport, with a RuleReport for each rule of the policy: its attempt, activation, performance and deontic states, its premises
    (target, party, action, constraints; refinements and the parts of logical constraints nested) with their satisfaction, and a DutyReport
    as condition for each duty of a permission. A decision comes before the act, so the performance of what it permits or prohibits is
    unknown. A rule without an id is named by its place: the id of the policy and `#` with its RFC 6901 pointer. A policy that is refused
    as a whole has no RuleReports.
    """
    return _Writing(decision).graph


class _Writing:
    """The writing of one report."""

    def __init__(self, decision: Decision) -> None:
        import rdflib

        self.rdf = rdflib
        self.graph = rdflib.Graph()
        self.graph.bind("report", REPORT)
        self.graph.bind("odrl", ODRL)
        self.case = case = decision.case
        report = self._node("PolicyReport")
        self._say(report, CREATED, rdflib.Literal(decision.at.isoformat(), datatype=rdflib.XSD.dateTime, normalize=False))
        self._say(report, "policy", self._name(case.policy.id))
        self._say(report, "policyRequest", self._name(case.request.id))
        facts = deciding_atom(case) if case.atoms and not case.policy.refused else {}
        rules = {rule.path: rule for rule in case.policy.rules}
        for result in decision.rules:
            rule = rules[result.path]
            self._say(report, "ruleReport", self._rule(rule, result, facts_of(case, rule, facts)))

    def _rule(self, rule: Rule, result: RuleResult, facts: Facts) -> Node:
        if rule.kind == "obligation":
            return self._duty(rule, facts)
        node = self._node(_KINDS[rule.kind])
        self._say(node, "rule", self._name(rule.id, rule.path))
        self._say(node, "ruleRequest", self._name(self.case.request.rule))
        self._states(node, compliance(rule.kind, result.active), result.active)
        for premise in self._premises(rule, result, facts):
            self._say(node, "premiseReport", premise)
        if rule.kind == "permission":
            for duty in rule.duties:
                self._say(node, "conditionReport", self._duty(duty, facts))
        return node

    def _premises(self, rule: Rule, result: RuleResult, facts: Facts) -> Iterable[Node]:
        """Those that the rule has: one that names no target is about any."""
        case, policy = self.case, self.case.policy
        within = policy.registry.action_within(case.request.action)
        if rule.targets or policy.target is not None:
            state = on_target(policy, rule, case.request, case.world)
            ways = [scope for scope in rule.targets if self._is(scope, case.request.target)]
            yield self._premise("TargetReport", state, ways, facts, result.refinements, f"{rule.path}/target")
        if rule.assignees or policy.assignees:
            state = addresses(policy, rule, case.request.party, case.world)
            ways = [scope for scope in rule.assignees if self._is(scope, case.request.party)]
            yield self._premise("PartyReport", state, ways, facts, result.refinements, f"{rule.path}/assignee")
        if rule.actions:
            actions = [action for action in rule.actions if action.iri in within]
            yield self._premise("ActionReport", covers(rule, within), actions, facts, result.refinements, f"{rule.path}/action")
        for constraint in result.constraints:
            yield self._constraint(constraint)

    def _is(self, scope: Scope, thing: str | None) -> bool:
        return thing is not None and (scope.id == thing or scope.id in self.case.world.member_of.get(thing, ()))

    def _premise(
        self, kind: str, matches: bool, ways: Iterable[Action | Scope], facts: Facts, refinements: Iterable[ConstraintResult], path: str
    ) -> Node:
        """A premise that one of several ways may satisfy, each with all of its refinements."""
        node = self._node(kind)
        refined = [all_of([part.judge for part in way.refinements]) for way in ways]
        state = (any_of(refined)(facts) if refined else TRUE) if matches else FALSE
        if state in _SATISFIED:
            self._say(node, "satisfactionState", self._word(_SATISFIED[state]))
        for refinement in refinements:
            if refinement.path.startswith(f"{path}/"):
                self._say(node, "premiseReport", self._constraint(refinement))
        return node

    def _constraint(self, result: ConstraintResult) -> Node:
        node = self._node("ConstraintReport")
        self._say(node, "constraint", self._name(result.id, result.path))
        if (state := _SATISFIED.get(_STATES[result.state])) is not None:
            self._say(node, "satisfactionState", self._word(state))
        if result.children:
            self._say(node, "constraintLogicalOperand", self.rdf.URIRef(ODRL + result.operator))
            for child in result.children:
                self._say(node, "premiseReport", self._constraint(child))
        elif result.operator:
            kind = self.case.policy.registry.operands[result.left].values
            self._say(node, "constraintOperator", self.rdf.URIRef(ODRL + result.operator))
            if result.actual is not None:
                self._say(node, "constraintLeftOperand", self._value(result.actual, kind))
            for value in result.expected:
                self._say(node, "constraintRightOperand", self._value(value, kind))
        return node

    def _duty(self, duty: Rule, facts: Facts) -> Node:
        case = self.case
        state = state_of(case.policy, duty, case.world, case.now, facts)
        node = self._node("DutyReport")
        self._say(node, "rule", self._name(duty.id, duty.path))
        self._states(node, compliance(duty.kind, state != "inactive", state), state != "inactive")
        for constraint in duty.constraints:
            self._say(node, "premiseReport", self._constraint(constraint_result(constraint, facts)))
        return node

    def _states(self, node: Node, states: Compliance, active: bool | None) -> None:
        self._say(node, "attemptState", self._word(states.attempt))
        self._say(node, "performanceState", self._word(states.performance))
        if states.deontic is not None:
            self._say(node, "activationState", self._word("Active" if active else "Inactive"))
            self._say(node, "deonticState", self._word(states.deontic))

    def _node(self, kind: str) -> Node:
        node = self.rdf.BNode()
        self.graph.add((node, self.rdf.RDF.type, self._word(kind)))
        return node

    def _say(self, node: Node, what: str, value: Any) -> None:
        if value is not None:
            self.graph.add((node, self._word(what) if ":" not in what else self.rdf.URIRef(what), value))

    def _word(self, name: str) -> Node:
        return self.rdf.URIRef(REPORT + name)

    def _name(self, id: str, path: str = "") -> Node | None:
        """What a thing is called: an IRI, or the text that is none; without an id its place in the policy."""
        if not id and path and self.case.policy.id:
            id = f"{self.case.policy.id}#{quote(path, safe='/')}"
        if not id:
            return None
        return self.rdf.URIRef(id) if ABSOLUTE_IRI.fullmatch(id) else self.rdf.Literal(id)

    def _value(self, text: str, kind: str) -> Node:
        if kind == "term" and ABSOLUTE_IRI.fullmatch(text):
            return self.rdf.URIRef(text)
        datatype = {"instant": "dateTime" if "T" in text else "date", "number": "decimal"}.get(kind)
        return self.rdf.Literal(text, datatype=self.rdf.URIRef(XSD + datatype) if datatype else None, normalize=False)
