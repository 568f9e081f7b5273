import pytest

from connector.odrl import Options, World, evaluate, load
from connector.odrl.explain import account, deciding_atom, rule_results, unknown_operands
from connector.odrl.model import Policy, Request
from tests.odrl.cases import NOW, PARTIES, leaf, offer, participant, policy, purpose, request, rule, time, world

PURPOSE = "http://www.w3.org/ns/odrl/2/purpose"


def told(found: Policy, asked: Request, now: World | None = None) -> tuple[str, list[tuple[str, str]]]:
    decision = evaluate(found, asked, now or world())
    code, faults = account(decision.case, decision.result)
    return code.value, [(fault.path, fault.text) for fault in faults]


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


def test_the_act_that_fares_worst_is_explained() -> None:
    decision = evaluate(policy(rule(purpose("isAnyOf", ["a", "b"]))), request("a", "b", "c"), world())
    assert deciding_atom(decision.case)[PURPOSE] == "c"
    assert decision.rules[0].constraints[0].actual == "c"


def test_a_policy_that_is_refused_has_findings_instead_of_rule_results() -> None:
    found = load(offer(rule(purpose("eq", "a"), leaf("edc:foo", "eq", "x"))), strict=False)
    decision = evaluate(found, request(), world())
    assert (rule_results(decision.case), unknown_operands(decision.case)) == ((), ())
    assert [finding["code"] for finding in decision.to_json()["findings"]] == ["TERM_DROPPED"]


@pytest.mark.parametrize(
    ("found", "asked", "code", "path", "text"),
    [
        (policy(rule(), target="urn:d"), request(target="urn:e"), "NO_MATCHING_RULE", "/target", "it is not about `urn:e`"),
        (policy(prohibitions=(rule(action="odrl:read"),)), request(), "NO_MATCHING_RULE", "", "it has no permission"),
        (policy(rule(action="odrl:read")), request(), "ACTION_NOT_COVERED", "/permission", "no permission covers the action `use`"),
        (
            policy(rule(assignee="did:web:x")),
            request(party="did:web:y"),
            "PARTY_NOT_COVERED",
            "/permission",
            "no permission to `use` is for `did:web:y`",
        ),
        (policy(rule(), prohibitions=(rule(),)), request(), "PROHIBITED", "/prohibition/0", "to `use` is prohibited"),
        (
            policy(rule(), prohibitions=(rule(purpose("eq", "marketing")),)),
            request("marketing"),
            "PROHIBITED",
            "/prohibition/0/constraint/0",
            "to `use` is prohibited where purpose 'marketing' is 'marketing'",
        ),
        (
            policy(rule(time("lteq", "2025-12-31Z"))),
            request(),
            "EXPIRED",
            "/permission/0/constraint/0",
            "time 2026-06-15T12:00:00Z is after 2025-12-31Z",
        ),
        (
            policy(rule(time("gteq", "2027-01-01Z"))),
            request(),
            "NOT_YET_VALID",
            "/permission/0/constraint/0",
            "time 2026-06-15T12:00:00Z is before 2027-01-01Z",
        ),
        (policy(rule(time("neq", "2026-06-15Z"))), request(), "CONSTRAINT_UNSATISFIED", "/permission/0/constraint/0", None),
        (
            policy(rule(time("lt", "2026-01-01Z"), purpose("eq", "a"))),
            request("b"),
            "CONSTRAINT_UNSATISFIED",
            "/permission/0/constraint/0",
            None,
        ),
        (policy(rule(time("lt", "2026-01-01Z"), purpose("eq", "a"))), request(), "EXPIRED", "/permission/0/constraint/0", None),
        (policy(rule(purpose("eq", "a"))), request(), "CONSTRAINT_UNKNOWN", "/permission/0/constraint/0", None),
        (
            policy(rule(), prohibitions=(rule(purpose("eq", "a")),)),
            request(),
            "CONSTRAINT_UNKNOWN",
            "/prohibition/0/constraint/0",
            "the purpose is not known, and it matters whether purpose is 'a'",
        ),
    ],
)
def test_each_denial_has_its_code_and_its_place(found: Policy, asked: Request, code: str, path: str, text: str | None) -> None:
    primary, faults = told(found, asked)
    assert (primary, faults[0][0]) == (code, path)
    assert text is None or faults[0][1] == text


def test_the_permission_that_fails_least_comes_first() -> None:
    found = policy(rule(purpose("eq", "a"), participant("eq", "did:web:x")), rule(purpose("eq", "b")))
    _, faults = told(found, request("c"))
    assert [path for path, _ in faults] == ["/permission/1/constraint/0", "/permission/0/constraint/0", "/permission/0/constraint/1"]


def test_what_is_undecided_names_all_that_is_missing() -> None:
    found = policy(rule(purpose("eq", "a")), prohibitions=(rule(purpose("eq", "b")),))
    code, faults = told(found, request(stage="catalog"))
    assert (code, [path for path, _ in faults]) == ("CONSTRAINT_UNKNOWN", ["/permission/0/constraint/0", "/prohibition/0/constraint/0"])


def test_where_permissions_win_a_prohibition_is_no_reason() -> None:
    found = policy(rule(purpose("eq", "a")), prohibitions=(rule(),))
    decision = evaluate(found, request("b"), world(), options=Options(conflict="permit"))
    assert (decision.result, decision.code) == ("deny", "CONSTRAINT_UNSATISFIED")


def test_values_that_the_requester_did_not_state_stay_with_us() -> None:
    found = policy(rule(purpose("eq", "research")))
    decision = evaluate(found, request("research"), World(NOW, {"odrl:purpose": ("marketing",)}))
    assert decision.reason("peer") == ["Denied: purpose is not 'research' (offer urn:o1, /permission/0/constraint/0)."]
    assert decision.reason("full") == ["Denied: purpose 'marketing' is not 'research' (offer urn:o1, /permission/0/constraint/0)."]
