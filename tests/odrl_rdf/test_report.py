"""The compliance report says of each rule what the decision found, and what follows from it; what is not known it leaves out."""

from __future__ import annotations

import json
from typing import Any

import pytest
import rdflib
from rdflib.namespace import RDF

from connector.odrl import Request, World, evaluate, load
from connector.odrl.results import DEONTIC
from connector.odrl.vocabulary import ODRL, W3C_CONTEXT
from connector.odrl_rdf.report import report_rdf
from tests.odrl.cases import NOW

REPORT = rdflib.Namespace("https://w3id.org/force/compliance-report#")
ALICE = Request("urn:x:alice", "odrl:print", "urn:x:book", id="urn:x:request", rule="urn:x:asked")
COUNT = {"uid": "urn:x:count", "leftOperand": "count", "operator": "lteq", "rightOperand": {"@value": "5", "@type": "xsd:integer"}}
UNTIL = {"leftOperand": "dateTime", "operator": "lt", "rightOperand": {"@value": "2030-01-01T00:00:00Z", "@type": "xsd:dateTime"}}


def policy(permission: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    rules = {"permission": [permission]} if permission is not None else {}
    return {"@context": W3C_CONTEXT, "uid": "urn:x:policy", "@type": "Set", **rules, **more}


class Report:
    """A report by what it says of one rule."""

    def __init__(self, document: dict[str, Any], request: Request = ALICE, world: World | None = None) -> None:
        self.graph = report_rdf(evaluate(load(document), request, world or World(NOW)))

    def one(self, kind: str) -> rdflib.term.Node:
        (node,) = self.graph.subjects(RDF.type, REPORT[kind])
        return node

    def word(self, node: rdflib.term.Node, what: str) -> str:
        found = self.graph.value(node, REPORT[what], any=False)
        return "" if found is None else str(found).removeprefix(REPORT)

    def states(self, kind: str) -> tuple[str, ...]:
        node = self.one(kind)
        return tuple(self.word(node, f"{name}State") for name in ("attempt", "activation", "performance", "deontic"))

    def satisfied(self, kind: str) -> str:
        return self.word(self.one(kind), "satisfactionState")


def test_a_permission_has_the_premises_that_it_names():
    whole = Report(policy({"action": "use", "target": "urn:x:book", "assignee": "urn:x:alice", "constraint": [UNTIL]}))
    kinds = ["TargetReport", "PartyReport", "ActionReport", "ConstraintReport"]
    assert [whole.satisfied(kind) for kind in kinds] == ["Satisfied"] * 4
    assert whole.states("PermissionReport") == ("Attempted", "Active", "Unknown", "NonSet")
    bare = Report(policy({"action": "use"}))
    assert [len(list(bare.graph.subjects(RDF.type, REPORT[kind]))) for kind in kinds] == [0, 0, 1, 0]
    shared = Report(policy({"action": "use"}, target="urn:x:book", assignee="urn:x:bob"))
    assert [shared.satisfied(kind) for kind in kinds[:2]] == ["Satisfied", "Unsatisfied"]


@pytest.mark.parametrize(
    ("request_", "unsatisfied"),
    [
        (Request("urn:x:bob", "odrl:print", "urn:x:book"), "PartyReport"),
        (Request("urn:x:alice", "odrl:print", "urn:x:other"), "TargetReport"),
        (Request("urn:x:alice", "odrl:sell", "urn:x:book"), "ActionReport"),
    ],
)
def test_a_premise_that_fails_makes_the_rule_inactive(request_: Request, unsatisfied: str):
    report = Report(policy({"action": "use", "target": "urn:x:book", "assignee": "urn:x:alice"}), request_)
    states = {kind: report.satisfied(kind) for kind in ("TargetReport", "PartyReport", "ActionReport")}
    assert [kind for kind, state in states.items() if state == "Unsatisfied"] == [unsatisfied]
    assert report.states("PermissionReport")[:2] == ("Attempted", "Inactive")


def test_what_is_not_known_is_left_out():
    report = Report(policy({"action": "use", "constraint": [COUNT]}), Request("urn:x:alice", "odrl:print", stage="catalog"))
    assert report.satisfied("ConstraintReport") == ""
    assert report.states("PermissionReport") == ("Attempted", "", "Unknown", "")


def test_a_constraint_says_both_sides():
    report = Report(policy({"action": "use", "constraint": [COUNT]}), world=World(NOW, used={ODRL + "count": 2}))
    node = report.one("ConstraintReport")
    assert report.word(node, "constraint") == "urn:x:count"
    assert report.word(node, "constraintOperator") == ODRL + "lteq"
    assert (report.word(node, "constraintLeftOperand"), report.word(node, "constraintRightOperand")) == ("3", "5")
    timed = Report(policy({"action": "use", "constraint": [UNTIL]}))
    right = timed.graph.value(timed.one("ConstraintReport"), REPORT.constraintRightOperand)
    assert right is not None
    assert right.n3() == '"2030-01-01T00:00:00Z"^^<http://www.w3.org/2001/XMLSchema#dateTime>'


def test_a_logical_constraint_has_its_parts_below():
    group = {"uid": "urn:x:group", "or": [UNTIL, {**COUNT, "uid": "urn:x:c"}]}
    report = Report(policy({"action": "use", "constraint": [group]}))
    (node,) = report.graph.subjects(REPORT.constraintLogicalOperand, rdflib.URIRef(ODRL + "or"))
    assert report.word(node, "constraint") == "urn:x:group"
    assert report.word(node, "satisfactionState") == "Satisfied"
    assert len(list(report.graph.objects(node, REPORT.premiseReport))) == 2


@pytest.mark.parametrize(("dots", "state"), [(("600",), "Satisfied"), (("2400",), "Unsatisfied"), ((), "")])
def test_a_refinement_counts_for_what_it_refines(dots: tuple[str, ...], state: str):
    refinement = {
        "uid": "urn:x:fine",
        "leftOperand": "resolution",
        "operator": "lteq",
        "rightOperand": {"@value": "1200", "@type": "xsd:integer"},
    }
    action = {"rdf:value": {"@id": "odrl:print"}, "refinement": [refinement]}
    params = {ODRL + "resolution": dots} if dots else {}
    report = Report(policy({"action": action}), Request("urn:x:alice", "odrl:print", params=params, stage="catalog"))
    assert report.satisfied("ActionReport") == state
    (premise,) = report.graph.objects(report.one("ActionReport"), REPORT.premiseReport)
    assert (report.word(premise, "constraint"), report.word(premise, "satisfactionState")) == ("urn:x:fine", state)


def test_a_collection_is_matched_by_membership():
    document = policy({"action": "use", "assignee": {"@type": "PartyCollection", "source": "urn:x:team"}})
    inside = World(NOW, member_of={"urn:x:alice": frozenset({"urn:x:team"})})
    assert Report(document, world=inside).satisfied("PartyReport") == "Satisfied"
    assert Report(document).satisfied("PartyReport") == "Unsatisfied"


@pytest.mark.parametrize(
    ("state", "states", "active"),
    [
        ("fulfilled", ("Attempted", "Active", "Performed", "Fulfilled"), "Active"),
        ("overdue", ("NotAttempted", "Active", "Unperformed", "Violated"), "Inactive"),
        ("pending", ("NotAttempted", "Active", "Unknown", "NonSet"), "Inactive"),
        ("inactive", ("NotAttempted", "Inactive", "Unknown", "NonSet"), "Active"),
        ("remediated", ("Attempted", "Active", "Performed", "Fulfilled"), "Active"),
    ],
)
def test_a_duty_is_the_condition_of_its_permission(state: Any, states: tuple[str, ...], active: str):
    document = policy({"uid": "urn:x:r", "action": "use", "duty": [{"uid": "urn:x:d", "action": "compensate"}]})
    report = Report(document, world=World(NOW, duties={"urn:x:d": state}))
    assert report.states("DutyReport") == states
    assert list(report.graph.objects(report.one("PermissionReport"), REPORT.conditionReport)) == [report.one("DutyReport")]
    assert report.states("PermissionReport")[1] == active
    assert report.word(report.one("DutyReport"), "rule") == "urn:x:d"


def test_an_obligation_is_a_rule_of_its_own():
    report = Report(policy(None, obligation=[{"action": "inform", "constraint": [UNTIL]}], prohibition=[{"action": "sell"}]))
    assert report.states("DutyReport") == ("NotAttempted", "Active", "Unknown", "NonSet")
    assert report.one("DutyReport") in set(report.graph.objects(report.one("PolicyReport"), REPORT.ruleReport))
    assert report.states("ProhibitionReport")[1] == "Inactive"


def test_a_rule_without_an_id_is_named_by_its_place():
    report = Report(policy({"action": "use", "constraint": [UNTIL]}))
    assert report.word(report.one("PermissionReport"), "rule") == "urn:x:policy#/permission/0"
    assert report.word(report.one("ConstraintReport"), "constraint") == "urn:x:policy#/permission/0/constraint/0"


def test_names_that_are_no_iris_are_texts_and_cannot_break_the_graph():
    hostile = '"> <urn:x:evil> .\n'
    request = Request("urn:x:alice", "odrl:print", id=hostile, rule=hostile)
    graph = Report(policy({"action": "use"}), request).graph
    assert rdflib.Literal(hostile) in set(graph.objects(None, REPORT.ruleRequest))
    again = rdflib.Graph().parse(data=graph.serialize(format="turtle"), format="turtle")
    assert len(again) == len(graph)


def test_a_policy_that_is_refused_as_a_whole_has_no_rule_reports():
    decision = evaluate(load(policy({"action": "urn:x:unknown"}), strict=False), ALICE, World(NOW))
    graph = report_rdf(decision)
    assert len(list(graph.subjects(RDF.type, REPORT.PolicyReport))) == 1
    assert not list(graph.objects(None, REPORT.ruleReport))


def test_the_deontic_states_are_those_of_the_model():
    assert len(DEONTIC) == 6
    assert [DEONTIC[key] for key in sorted(DEONTIC)] == [
        ("Violated", "NonSet", "NonSet"),
        ("NonSet", "NonSet", "NonSet"),
        ("Fulfilled", "NonSet", "NonSet"),
        ("Fulfilled", "Violated", "Fulfilled"),
        ("NonSet", "NonSet", "NonSet"),
        ("NonSet", "Fulfilled", "Violated"),
    ]


def test_the_report_is_json_ld_too():
    graph = Report(policy({"action": "use"})).graph
    assert "PermissionReport" in json.dumps(json.loads(graph.serialize(format="json-ld")))
