from collections.abc import Iterator
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given

from connector.odrl import Code, ConstraintResult, Operand, Options, Profile, World, evaluate, load
from connector.odrl.explain import account, known
from connector.odrl.judge import deciding_atom
from connector.odrl.model import Policy, Request
from tests.odrl.cases import (
    NOW,
    ODRL,
    PARTIES,
    leaf,
    offer,
    offers,
    participant,
    policy,
    purpose,
    request,
    requests,
    rule,
    time,
    world,
    worlds,
)

PURPOSE = ODRL + "purpose"


def told(found: Policy, asked: Request, now: World | None = None) -> tuple[str, list[tuple[str, str]]]:
    decision = evaluate(found, asked, now or world())
    code, faults = account(decision.case, decision.result)
    return code.value, [(fault.path, fault.text) for fault in faults]


def test_the_act_that_fares_worst_is_explained() -> None:
    decision = evaluate(policy(rule(purpose("isAnyOf", ["a", "b"]))), request("a", "b", "c"), world())
    assert deciding_atom(decision.case)[PURPOSE] == "c"
    assert decision.rules[0].constraints[0].actual == "c"


@pytest.mark.parametrize(
    ("found", "asked", "code", "path", "text"),
    [
        (policy(rule(), target="urn:d"), request(target="urn:e"), "NO_MATCHING_RULE", "/target", "it is not about `urn:e`"),
        (policy(prohibitions=(rule(action="odrl:read"),)), request(), "NO_MATCHING_RULE", "", "it has no permission"),
        (policy(rule(action="odrl:read")), request(), "ACTION_NOT_COVERED", "/permission", "no permission covers the action `use`"),
        (
            policy(rule()),
            request(action="play"),
            "ACTION_NOT_COVERED",
            "/permission",
            "`play` is no action that is known here; write `odrl:play`",
        ),
        (policy(rule()), request(action="urn:x"), "ACTION_NOT_COVERED", "/permission", "`urn:x` is no action that is known here"),
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


# --- what is missing


def test_what_is_missing_is_what_matching_rules_ask_for_and_nobody_says() -> None:
    spatial = leaf("odrl:spatial", "eq", "x")
    found = policy(
        rule(purpose("eq", "a"), spatial),
        rule(leaf("odrl:media", "eq", "x"), action="odrl:sell"),
        prohibitions=(rule(leaf("odrl:version", "eq", "1")),),
    )
    assert evaluate(found, request("a", stage="catalog"), world()).missing == tuple(ODRL + name for name in ("spatial", "version"))
    assert evaluate(found, request("b", stage="catalog"), world()).missing == (ODRL + "version",)  # that permission fails anyway
    assert evaluate(policy(rule()), request(), world()).missing == ()


def test_a_permit_of_the_negotiation_lists_what_is_measured_later() -> None:
    decision = evaluate(policy(rule(leaf("odrl:count", "lteq", "5"))), request(stage="negotiation"), world())
    assert (decision.result, decision.missing) == ("permit", (ODRL + "count",))


def test_a_sequence_that_nobody_can_time_is_told_as_one() -> None:
    found = policy(rule({"andSequence": {"@list": [purpose("eq", "a"), purpose("neq", "b")]}}))
    code, faults = told(found, request("a"), World(datetime(2026, 1, 1)))  # noqa: DTZ001 - the point
    assert (code, [path for path, _ in faults]) == ("CONSTRAINT_UNKNOWN", ["/permission/0/constraint/0"])


# --- codes


COUNT = ODRL + "count"
FIVE = leaf("odrl:count", "lteq", "5")


@pytest.mark.parametrize(
    ("found", "now", "code", "path"),
    [
        (policy(rule(FIVE)), World(NOW, used={COUNT: 5}), "QUOTA_EXHAUSTED", "/permission/0/constraint/0"),
        (policy(rule(FIVE, purpose("eq", "b"))), World(NOW, used={COUNT: 5}), "CONSTRAINT_UNSATISFIED", "/permission/0/constraint/0"),
        (
            policy(rule(leaf("odrl:payAmount", "gteq", "5"))),
            World(NOW, used={ODRL + "payAmount": 1}),
            "CONSTRAINT_UNSATISFIED",
            "/permission/0/constraint/0",
        ),
        (
            policy(rule({"xone": [purpose("eq", "a"), purpose("neq", "b")]})),
            world(),
            "CONSTRAINT_UNSATISFIED",
            "/permission/0/constraint/0",
        ),
        (
            policy(rule({"or": [time("lt", "2020-01-01Z"), time("gt", "2030-01-01Z")]})),
            world(),
            "NOT_YET_VALID",
            "/permission/0/constraint/0/or/0",
        ),
        (
            policy(rule({"andSequence": {"@list": [time("gt", "2030-01-01Z")]}})),
            world(),
            "CONSTRAINT_UNSATISFIED",
            "/permission/0/constraint/0",
        ),
        (policy(rule(duty=[{"action": "odrl:compensate"}])), world(), "PREDUTY_OPEN", "/permission/0/duty/0"),
        (policy(rule(duty=[{"action": "odrl:obtainConsent"}])), world(), "CONSENT_MISSING", "/permission/0/duty/0"),
        (
            policy(rule(duty=[{"action": "odrl:delete", "constraint": [time("lt", "2026-01-01Z")]}])),
            world(),
            "OBLIGATION_OVERDUE",
            "/permission/0/duty/0",
        ),
        (
            policy(rule(), obligation=[{"action": "odrl:delete", "constraint": [time("lt", "2026-01-01Z")]}]),
            world(),
            "OBLIGATION_OVERDUE",
            "/obligation/0",
        ),
        (policy(rule(), prohibitions=(rule(),), **{"odrl:conflict": "odrl:invalid"}), world(), "POLICY_VOID_CONFLICT", "/prohibition/0"),
    ],
)
def test_each_reason_has_its_code(found: Policy, now: World, code: str, path: str) -> None:
    primary, faults = told(found, request("a"), now)
    assert (primary, faults[0][0]) == (code, path)


def test_a_request_for_too_much_at_once_says_so() -> None:
    assert told(policy(rule(purpose("neq", "x"))), request(*map(str, range(17)))) == (
        "LIMIT_EXCEEDED",
        [("", "more than 16 values are declared")],
    )


def test_what_was_known_is_told_operand_by_operand() -> None:
    limits = (
        purpose("isAnyOf", ["a"]),
        {**leaf("odrl:payAmount", "lteq", "5"), "odrl:unit": "urn:eur"},
        leaf("odrl:elapsedTime", "lteq", "P9D"),
    )
    now = World(NOW, used={f"{ODRL}payAmount urn:eur": Fraction(1, 2)}, anchors={ODRL + "elapsedTime": NOW - timedelta(days=1, seconds=5)})
    decision = evaluate(policy(rule(*limits)), request("a", "b"), now)
    assert known(decision.case) == {
        ODRL + "purpose": {"value": ["a", "b"], "source": "declared", "asserted_by": PARTIES[0]},
        ODRL + "elapsedTime": {"value": ["1 d 00:00:05"], "source": "log"},
        ODRL + "payAmount urn:eur": {"value": ["0.5"], "source": "meter"},
    }
    assert [each.actual for each in decision.rules[0].constraints] == ["b", "0.5", "1 d 00:00:05"]


def test_a_limit_that_counts_from_a_status_is_told_with_it() -> None:
    limit = {**leaf("odrl:count", "lteq", {"@value": "5", "@type": "xsd:integer"}), "odrl:status": {"@value": "4", "@type": "xsd:integer"}}
    decision = evaluate(policy(rule(limit)), request(), World(NOW, used={ODRL + "count": 1}))
    assert decision.reason() == ["Denied: count of uses 2 is more than 5 with 4 used (offer urn:o1, /permission/0/constraint/0)."]
    assert [(each["expected"], each["status"], each["actual"]) for each in decision.grounds()] == [(["5"], "4", ["2"])]
    (told,) = decision.to_json()["rules"][0]["constraints"]
    assert (told["status"], told["why"]) == ("4", "count of uses 2 is more than 5 with 4 used")
    assert [miss.change for miss in decision.near_misses] == ["count of uses is at most 5 with 4 used"]
    (plainer,) = evaluate(policy(rule(leaf("odrl:count", "lteq", "5"))), request(), World(NOW, used={ODRL + "count": 5})).grounds()
    assert "status" not in plainer


# --- near misses


def misses(found: Policy, *purposes: str, now: World | None = None, **options: Any) -> list[tuple[str, str]]:
    decision = evaluate(found, request(*purposes), now or world(), options=Options(**options))
    return [(miss.path, miss.change) for miss in decision.near_misses]


def test_the_permission_that_fails_least_says_what_it_would_need() -> None:
    found = policy(rule(purpose("eq", "a"), participant("eq", "did:web:x")), rule(purpose("eq", "b")))
    assert misses(found, "c") == [("/permission/1/constraint/0", "purpose is 'b'")]
    assert misses(found, "b") == []


def test_of_a_choice_one_part_is_enough_and_of_a_conjunction_all_are_needed() -> None:
    both = {"and": [purpose("eq", "b"), participant("eq", "did:web:x")]}
    at = "/permission/0/constraint/0"
    assert [path for path, _ in misses(policy(rule({"or": [both, purpose("eq", "a")]})), "c")] == [f"{at}/or/1"]
    assert [path for path, _ in misses(policy(rule(both)), "c")] == [f"{at}/and/0", f"{at}/and/1"]
    assert [path for path, _ in misses(policy(rule({"xone": [both, purpose("eq", "a")]})), "c")] == [at]


def test_what_has_to_be_done_is_a_change_too() -> None:
    found = policy(rule(purpose("eq", "a"), duty=[{"action": "odrl:compensate"}]))
    assert misses(found, "a") == [("/permission/0/duty/0", "the duty to compensate is done")]
    assert misses(found, "b") == [
        ("/permission/0/constraint/0", "purpose is 'a'"),
        ("/permission/0/duty/0", "the duty to compensate is done"),
    ]
    late = policy(rule(), obligation=[{"action": "odrl:delete", "constraint": [time("lt", "2026-01-01Z")]}])
    assert misses(late) == [("/obligation/0", "the obligation to delete is done")]


def test_where_a_prohibition_applies_or_nothing_speaks_no_change_would_help() -> None:
    barred = policy(rule(purpose("eq", "a")), prohibitions=(rule(),))
    assert misses(barred, "b") == []
    assert misses(barred, "b", conflict="permit") == [("/permission/0/constraint/0", "purpose is 'a'")]
    assert misses(barred, "b", conflict="invalid") == []
    assert misses(policy(rule(assignee=PARTIES[1]))) == []


@given(offers, requests, worlds)
def test_a_near_miss_names_what_does_not_hold(document: dict[str, Any], asked: Request, now: World) -> None:
    decision = evaluate(load(document), asked, now)
    states = {leaf.path: leaf.state for each in decision.rules for leaf in walk(each.constraints)}
    assert all(states[miss.path] != "satisfied" for miss in decision.near_misses)
    assert not (decision.permitted and decision.near_misses)


def walk(found: tuple[ConstraintResult, ...]) -> Iterator[ConstraintResult]:
    for each in found:
        yield each
        yield from walk(each.children)


# --- what a requester may read


GROUP = Operand("urn:x:group", "group", "组", "term", "subject", frozenset({"isAnyOf", "isNoneOf"}), "identity", "verified")
MEMBER = Operand("urn:x:member", "member", "成员", "term", "subject", frozenset({"isAnyOf", "isNoneOf"}), "claims", "verified")
ROLE = Operand("urn:x:role", "role", "角色", "term", "subject", frozenset({"isAnyOf"}), "declared", "declared")
PRIVATE = Options(profiles=(Profile("x", operands=(GROUP, MEMBER, ROLE)),))
SECRET = "secret-list"


@pytest.mark.parametrize("operand", ["urn:x:group", "urn:x:member", "odrl:spatial", "odrl:resolution"])
@pytest.mark.parametrize("kind", ["permission", "prohibition"])
def test_nothing_that_others_said_of_the_requester_is_told_to_them(operand: str, kind: str) -> None:
    number = operand == "odrl:resolution"
    value: object = "4711" if number else SECRET
    if kind == "permission":
        found = load(offer(rule(leaf(operand, "eq" if number else "isAnyOf", "5" if number else ["partner"]))), options=PRIVATE)
    else:
        found = load(
            offer(rule(), prohibitions=(rule(leaf(operand, "neq" if number else "isNoneOf", "5" if number else ["partner"])),)),
            options=PRIVATE,
        )
    decision = evaluate(found, request(), World(NOW, {operand: (value,)}), options=PRIVATE)
    assert decision.result == "deny"
    assert str(value) in str(decision.reason("full"))
    for told_to_peer in (decision.reason("peer"), decision.grounds("peer")):
        assert told_to_peer
        assert str(value) not in str(told_to_peer)
    assert str(value) in str(decision.grounds("full"))


def test_a_member_of_a_group_never_reads_which_groups_there_are() -> None:
    found = load(offer(rule(assignee="urn:partners"), rule(purpose("eq", "a"))))
    inside = World(NOW, member_of={PARTIES[0]: frozenset({"urn:partners", SECRET})})
    for asked in (request("b"), request("b", party=PARTIES[1])):
        decision = evaluate(found, asked, inside)
        assert SECRET not in str(decision.reason("peer")) + str(decision.grounds("peer"))


def test_what_the_requester_said_and_used_is_told_to_them() -> None:
    said = evaluate(policy(rule(purpose("eq", "a"))), request("b"), world())
    assert "'b'" in said.reason("peer")[0]
    role = load(offer(rule(leaf("urn:x:role", "isAnyOf", ["doctor"]))), options=PRIVATE)
    mine = Request(PARTIES[0], params={"urn:x:role": ("nurse",)})
    assert "'nurse'" in evaluate(role, mine, world(), options=PRIVATE).reason("peer")[0]
    joined = evaluate(role, mine, World(NOW, {"urn:x:role": (SECRET,)}), options=PRIVATE)
    assert SECRET not in joined.reason("peer")[0]
    counted = evaluate(policy(rule(FIVE)), request(), World(NOW, used={COUNT: 5}))
    assert counted.reason("peer") == ["Denied: count of uses 6 is more than 5 (offer urn:o1, /permission/0/constraint/0)."]
    whose = evaluate(policy(rule(participant("eq", "did:web:x"))), request(), world())
    assert PARTIES[0] in whose.reason("peer")[0]


@pytest.mark.parametrize(
    ("operator", "used", "code"),
    [
        ("lteq", 6, Code.QUOTA_EXHAUSTED),
        ("lt", 5, Code.QUOTA_EXHAUSTED),
        ("gteq", 4, Code.CONSTRAINT_UNSATISFIED),
        ("eq", 6, Code.CONSTRAINT_UNSATISFIED),
    ],
)
def test_a_budget_is_used_up_and_a_payment_is_missing(operator: str, used: int, code: Code):
    found = policy(rule(leaf("odrl:payAmount", operator, "5")))
    assert evaluate(found, Request(PARTIES[0]), World(NOW, used={ODRL + "payAmount": used})).code == code
