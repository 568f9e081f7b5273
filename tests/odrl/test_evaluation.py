from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from time import perf_counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connector.odrl import Decision, Options, PolicyError, Request, World, evaluate, load
from connector.odrl.values import stretch
from tests.odrl.cases import (
    NOW,
    PARTIES,
    a_moment,
    a_request,
    an_offer,
    json_values,
    nows,
    odd_offers,
    offer,
    offers,
    participant,
    policy,
    purpose,
    request,
    requests,
    rule,
    rules,
    seeds,
    shuffled,
    time,
    world,
    worlds,
)

RANK = {"deny": 0, "unknown": 1, "permit": 2}
MICROSECOND = timedelta(microseconds=1)
many = settings(max_examples=300)
odd = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def results(found: Any, *asked: Request) -> list[str]:
    return [evaluate(found, one, world()).result.value for one in asked]


def test_a_permission_without_constraints_permits_everybody() -> None:
    decision = evaluate(policy(rule()), request(), world())
    assert (decision.result, decision.code, decision.valid_until, decision.permitted) == ("permit", "PERMITTED", None, True)


def test_nothing_is_permitted_that_no_permission_grants() -> None:
    assert results(policy(rule(action="odrl:read")), request(), request(action="odrl:read")) == ["deny", "permit"]
    assert results(policy(prohibitions=(rule(action="odrl:distribute"),)), request()) == ["deny"]


def test_one_granting_permission_is_enough() -> None:
    assert results(policy(rule(purpose("eq", "a")), rule(purpose("eq", "b"))), request("a"), request("b"), request("c")) == [
        "permit",
        "permit",
        "deny",
    ]


def test_a_prohibition_wins_and_one_whose_constraints_fail_does_not_apply() -> None:
    found = policy(rule(), prohibitions=(rule(purpose("eq", "marketing"), participant("eq", PARTIES[0])),))
    assert results(found, request("marketing"), request("research"), request("marketing", party=PARTIES[1])) == ["deny", "permit", "permit"]


def test_a_prohibition_of_distribution_leaves_the_use() -> None:
    found = policy(rule(), prohibitions=(rule(action="odrl:distribute"),))
    assert results(found, request(), request(action="odrl:distribute")) == ["permit", "deny"]


def test_every_declared_purpose_must_be_covered() -> None:
    found = policy(rule(purpose("isAnyOf", ["research", "quality"])))
    assert results(found, request("research", "quality"), request("research", "marketing")) == ["permit", "deny"]
    assert evaluate(found, request("research", "marketing"), world()).reason() == [
        "Denied: purpose 'marketing' is not one of 'research', 'quality' (offer urn:o1, /permission/0/constraint/0)."
    ]


def test_two_permissions_may_cover_two_purposes_together() -> None:
    assert results(policy(rule(purpose("eq", "a")), rule(purpose("eq", "b"))), request("a", "b")) == ["permit"]


def test_a_prohibition_bites_if_one_purpose_is_prohibited() -> None:
    found = policy(rule(), prohibitions=(rule(purpose("eq", "marketing")),))
    assert results(found, request("research", "marketing")) == ["deny"]


def test_a_fact_about_the_requester_cannot_be_hidden_by_a_declaration() -> None:
    found = policy(rule(), prohibitions=(rule(purpose("eq", "marketing")),))
    assert evaluate(found, request("research"), World(NOW, {"odrl:purpose": ("marketing",)})).result == "deny"


@pytest.mark.parametrize(("stage", "result"), [("catalog", "unknown"), ("negotiation", "deny"), ("transfer", "deny"), ("anything", "deny")])
def test_a_missing_fact_closes_where_it_is_enforced(stage: str, result: str) -> None:
    unknown_permission = policy(rule(purpose("neq", "marketing")))
    unknown_prohibition = policy(rule(), prohibitions=(rule(purpose("eq", "marketing")),))
    for found in (unknown_permission, unknown_prohibition):
        decision = evaluate(found, request(stage=stage), world())
        assert (decision.result, decision.code) == (result, "CONSTRAINT_UNKNOWN")
        assert decision.missing == ("http://www.w3.org/ns/odrl/2/purpose",)


def test_what_fails_anyway_is_denied_in_the_catalog_too() -> None:
    found = policy(rule(purpose("eq", "research"), participant("eq", PARTIES[1])))
    assert results(found, request(stage="catalog"), request(stage="catalog", party=PARTIES[1])) == ["deny", "unknown"]


def test_the_assignee_of_an_agreement_is_the_only_one() -> None:
    document = {**offer(rule()), "@type": "Agreement", "target": "urn:d", "assigner": "did:web:p", "assignee": PARTIES[0]}
    assert results(load(document), request(target="urn:d"), request(target="urn:d", party=PARTIES[1]), request(target="urn:e")) == [
        "permit",
        "deny",
        "deny",
    ]


def test_a_permit_says_until_when_it_holds() -> None:
    found = policy(rule(time("gteq", "2026-06-01Z"), time("lteq", "2026-06-30Z"), purpose("eq", "a")))
    decision = evaluate(found, request("a"), world())
    assert (decision.result, decision.valid_until) == ("permit", datetime(2026, 7, 1, tzinfo=UTC))


def test_a_denial_says_from_when_it_may_not_hold() -> None:
    found = policy(rule(time("gteq", "2026-07-01Z")))
    decision = evaluate(found, request(), world())
    assert (decision.result, decision.code, decision.valid_until) == ("deny", "NOT_YET_VALID", datetime(2026, 7, 1, tzinfo=UTC))


def test_a_bound_that_changes_nothing_is_no_bound() -> None:
    forever = policy(rule(), rule(time("lteq", "2026-06-30Z")))
    assert evaluate(forever, request(), world()).valid_until is None
    denied = policy(rule(purpose("eq", "a"), time("lteq", "2026-06-30Z")))
    assert evaluate(denied, request("b"), world()).valid_until is None


def test_the_last_instant_of_an_inclusive_bound_is_permitted() -> None:
    found = policy(rule(time("lteq", "2026-06-15T12:00:00Z")))
    decision = evaluate(found, request(), world())
    assert (decision.result, decision.valid_until) == ("permit", NOW + MICROSECOND)
    assert evaluate(found, request(), world(NOW + MICROSECOND)).code == "EXPIRED"


def test_a_bound_beyond_the_calendar_never_comes() -> None:
    assert evaluate(policy(rule(time("lteq", "9999-12-31Z"))), request(), world()).valid_until is None


@pytest.mark.parametrize(("windows", "exactly"), [(30, True), (250, False)])
def test_bounds_that_change_nothing_are_passed_over_or_decided_again(windows: int, exactly: bool) -> None:
    closed = [rule(time("eq", f"2026-07-01T{n // 60:02}:{n % 60:02}:00Z")) for n in range(windows)]
    found = policy(rule(), *closed, prohibitions=(rule(time("gteq", "2027-01-01Z")),))
    at, steps = NOW, 0
    while (decision := evaluate(found, request(), world(at))).permitted:
        assert decision.valid_until is not None
        assert at < decision.valid_until <= datetime(2027, 1, 1, tzinfo=UTC)
        at, steps = decision.valid_until, steps + 1
    assert at == datetime(2027, 1, 1, tzinfo=UTC)
    assert (steps == 1) is exactly


def test_a_large_policy_is_decided_within_bounds_for_many_purposes() -> None:
    windows = [rule(purpose("eq", f"p{n}"), time("lt", f"2030-01-01T00:{n // 60:02}:{n % 60:02}Z")) for n in range(190)]
    start = perf_counter()
    decision = evaluate(policy(*windows), request(*[f"p{189 - n}" for n in range(16)]), world())
    assert perf_counter() - start < 0.5
    assert decision.permitted
    assert decision.valid_until is not None


def test_a_naive_clock_is_no_clock() -> None:
    decision = evaluate(policy(rule(time("lt", "2027-01-01Z"))), request(), World(datetime(2026, 1, 1)))  # noqa: DTZ001 - the point
    assert (decision.result, decision.code, decision.valid_until) == ("deny", "CONSTRAINT_UNKNOWN", None)


def test_too_many_declared_purposes_are_denied() -> None:
    found = policy(rule(purpose("neq", "x")))
    assert evaluate(found, request(*map(str, range(17))), world()).code == "LIMIT_EXCEEDED"


def test_a_permission_wins_where_the_option_says_so() -> None:
    found = policy(rule(), prohibitions=(rule(),))
    assert evaluate(found, request(), world()).result == "deny"
    assert evaluate(found, request(), world(), options=Options(conflict="permit")).result == "permit"


def naive(document: dict[str, Any], asked: Request, now: datetime) -> str:
    """The meaning of a policy once more, straight from the document and without any of the engine's ideas."""

    def leaf(c: dict[str, Any], value: str | None) -> bool | None:
        right = c["rightOperand"]
        right = [r["@value"] if isinstance(r, dict) else r for r in (right if isinstance(right, list) else [right])]
        if c["leftOperand"].endswith("dateTime"):
            start, end = (timedelta(microseconds=n) + datetime(1970, 1, 1, tzinfo=UTC) for n in stretch(right[0])[:2])
            order = {"lt": now < start, "lteq": now < end, "gt": now >= end, "gteq": now >= start, "eq": start <= now < end}
            return not order["eq"] if c["operator"] == "neq" else order[c["operator"]]
        left = asked.party if c["leftOperand"] == "urn:qiao:participant" else value
        return None if left is None else (left in right) == (c["operator"] in {"eq", "isAnyOf"})

    def state(c: dict[str, Any], value: str | None) -> bool | None:
        if "leftOperand" in c:
            return leaf(c, value)
        (kind, parts), *_ = c.items()
        found = [state(part, value) for part in parts]
        decisive = kind == "or"
        return decisive if decisive in found else None if None in found else not decisive

    def active(r: dict[str, Any], value: str | None) -> bool | None:
        asks = asked.action.removeprefix("odrl:")
        rule_action = r["action"].removeprefix("odrl:").removeprefix("http://www.w3.org/ns/odrl/2/")
        who = r.get("assignee", asked.party)
        if rule_action not in {"use", asks} or asked.party not in ([who] if isinstance(who, str) else who):
            return False
        return state({"and": r["constraint"]}, value)

    verdicts = []
    for value in asked.params.get("odrl:purpose", (None,)):
        granted = [active(r, value) for r in document["permission"]]
        barred = [active(r, value) for r in document.get("prohibition", [])]
        if True in barred or not (True in granted or None in granted):
            verdicts.append("deny")
        elif True in granted and None not in barred:
            verdicts.append("permit")
        else:
            verdicts.append("unknown" if asked.stage == "catalog" else "deny")
    return min(verdicts, key=RANK.__getitem__)


def test_the_engine_agrees_with_a_naive_reading() -> None:
    found: Counter[str] = Counter()
    for seed in range(5_000):
        chance = Random(seed)
        document, asked, now = an_offer(chance), a_request(chance), a_moment(chance)
        result = naive(document, asked, now)
        assert evaluate(load(document), asked, World(now)).result == result, f"seed {seed}"
        found[result] += 1
    assert found["permit"] > 0.3 * found.total(), found
    assert found["unknown"] > 0.01 * found.total(), found


@odd
@given(odd_offers, requests, worlds)
def test_evaluation_never_raises_and_never_permits_what_it_does_not_know(document: dict[str, Any], asked: Request, now: World) -> None:
    try:
        found = load(document, strict=False)
    except PolicyError:
        return
    decision = evaluate(found, asked, now)
    assert isinstance(decision, Decision)
    if found.refused:
        assert decision.result == "deny"
    assert decision.reason("full")
    assert decision.to_json()["result"] == decision.result


@odd
@given(offers, json_values, json_values)
def test_odd_declarations_never_raise(document: dict[str, Any], params: Any, facts: Any) -> None:
    asked = Request(PARTIES[0], params={"odrl:purpose": params})
    decision = evaluate(load(document), asked, World(NOW, {"odrl:purpose": facts}))
    assert decision.to_json()["code"] == decision.code


@many
@given(offers, rules, requests, worlds)
def test_another_prohibition_never_permits_more(document: dict[str, Any], more: dict[str, Any], asked: Request, now: World) -> None:
    before = evaluate(load(document), asked, now).result
    after = evaluate(load({**document, "prohibition": [*document.get("prohibition", []), more]}), asked, now).result
    assert RANK[after.value] <= RANK[before.value]


@many
@given(offers, rules, requests, worlds)
def test_another_permission_never_permits_less(document: dict[str, Any], more: dict[str, Any], asked: Request, now: World) -> None:
    before = evaluate(load(document), asked, now).result
    after = evaluate(load({**document, "permission": [*document["permission"], more]}), asked, now).result
    assert RANK[after.value] >= RANK[before.value]


@many
@given(offers, requests, worlds, st.sampled_from(("negotiation", "transfer", "elsewhere")))
def test_unknown_never_becomes_a_permit_where_it_is_enforced(document: dict[str, Any], asked: Request, now: World, stage: str) -> None:
    found = load(document)
    open_result = evaluate(found, replace(asked, stage="catalog"), now).result
    enforced = evaluate(found, replace(asked, stage=stage), now).result
    assert enforced == ("permit" if open_result == "permit" else "deny")


@many
@given(offers, requests, worlds)
def test_what_is_unknown_is_missing_and_stating_it_decides(document: dict[str, Any], asked: Request, now: World) -> None:
    found = load(document)
    decision = evaluate(found, replace(asked, stage="catalog", params={}), now)
    if decision.result == "unknown":
        assert decision.missing == ("http://www.w3.org/ns/odrl/2/purpose",)
        assert evaluate(found, replace(asked, params={"odrl:purpose": ("research",)}), now).result in {"permit", "deny"}


@many
@given(offers, requests, nows)
def test_a_result_holds_until_it_says_and_changes_then(document: dict[str, Any], asked: Request, now: datetime) -> None:
    found = load(document)
    decision = evaluate(found, asked, World(now))
    until = decision.valid_until
    if until is None:
        later = [datetime(2026, 6, 17, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)]
        assert {evaluate(found, asked, World(max(now, at))).result for at in later} == {decision.result}
        return
    assert until > now
    for at in (until - MICROSECOND, now + (until - now) / 2):
        assert evaluate(found, asked, World(at)).result == decision.result
    assert evaluate(found, asked, World(until)).result != decision.result


@many
@given(offers, requests, worlds, seeds)
def test_the_order_of_rules_and_constraints_does_not_matter(document: dict[str, Any], asked: Request, now: World, chance: Random) -> None:
    a, b = evaluate(load(document), asked, now), evaluate(load(shuffled(document, chance)), asked, now)
    assert (a.result, a.valid_until, a.missing) == (b.result, b.valid_until, b.missing)
