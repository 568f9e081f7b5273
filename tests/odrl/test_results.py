"""Every rule and every constraint of a policy has its result."""

from connector.odrl import PURPOSE, evaluate, load
from connector.odrl.explain import unknown_operands
from connector.odrl.results import rule_results
from tests.odrl.cases import PARTIES, leaf, offer, participant, policy, purpose, request, rule, time, world


def test_every_rule_and_constraint_has_its_result() -> None:
    found = policy(
        rule(purpose("eq", "research"), {"or": [time("lt", "2026-01-01Z"), participant("eq", PARTIES[0])]}),
        rule(assignee=PARTIES[1]),
        prohibitions=(rule(purpose("eq", "marketing")), rule(action="odrl:distribute")),
    )
    decision = evaluate(found, request("research"), world())
    first, second, third, fourth = decision.rules
    assert [r.active for r in decision.rules] == [True, False, False, False]
    assert (second.assignee, third.action, fourth.action) == (False, True, False)
    asked, logic = first.constraints
    assert (asked.left, asked.operator, asked.expected, asked.actual, asked.state) == (
        PURPOSE,
        "eq",
        ("research",),
        "research",
        "satisfied",
    )
    assert [child.state for child in logic.children] == ["unsatisfied", "satisfied"]
    assert logic.children[0].actual == "2026-06-15T12:00:00Z"
    assert logic.children[1].path == "/permission/0/constraint/1/or/1"


def test_a_rule_whose_facts_are_missing_is_neither_active_nor_inactive() -> None:
    decision = evaluate(policy(rule(purpose("eq", "a"))), request(stage="catalog"), world())
    assert decision.rules[0].active is None
    assert decision.rules[0].constraints[0].actual is None
    assert decision.rules[0].constraints[0].state == "unknown"


def test_a_policy_that_is_refused_has_findings_instead_of_rule_results() -> None:
    found = load(offer(rule(purpose("eq", "a"), leaf("edc:foo", "eq", "x"))), strict=False)
    decision = evaluate(found, request(), world())
    assert (rule_results(decision.case), unknown_operands(decision.case)) == ((), ())
    assert [finding["code"] for finding in decision.to_json()["findings"]] == ["TERM_DROPPED"]


def test_refinements_and_obligations_have_their_results() -> None:
    action = {"rdf:value": {"@id": "odrl:use"}, "odrl:refinement": [purpose("eq", "a")]}
    found = policy({"action": action}, obligation=[{"action": "odrl:delete", "constraint": [time("lt", "2026-01-01Z")]}])
    permission, obligation = evaluate(found, request("b"), world()).rules
    assert [each.state for each in permission.refinements] == ["unsatisfied"]
    assert (permission.active, obligation.active, obligation.duty) == (False, True, "overdue")
    document = permission.to_json()
    assert document["refinements"][0]["expected"] == ["a"]
    assert "state" not in document
    assert obligation.to_json()["state"] == "overdue"


def test_a_rule_of_its_own_name_is_told_by_it() -> None:
    found = policy(rule(**{"@id": "urn:rule"}))
    assert evaluate(found, request(), world()).rules[0].to_json()["id"] == "urn:rule"
