"""Laws of the comparison against `evaluate`, and what it says of single axes."""

from __future__ import annotations

import json
import time
from collections import Counter
from itertools import product
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings

from connector.odrl import (
    Event,
    Options,
    Policy,
    PolicyError,
    Request,
    World,
    compare,
    differences,
    evaluate,
    load,
    same_terms,
)
from connector.odrl_compare import comparing
from connector.odrl_compare.comparing import CALENDAR, COMPLEX, Comparison
from connector.odrl_compare.shapes import Shape, shape_of
from connector.values import replace
from tests.odrl.cases import leaf, odd_offers, offer, purpose, rule, shuffled
from tests.odrl.cases import time as at
from tests.odrl_compare.cases import (
    COMPARED,
    DAYS,
    DECIMALS,
    EUR,
    NOW,
    ODRL,
    OPTIONS,
    PARTIES,
    USD,
    a_request,
    an_offer,
    asking,
    changed,
    permits,
    read,
    seeds,
    separates,
)

SECONDS, PIXELS = "http://qudt.org/vocab/unit/SEC", "http://qudt.org/vocab/unit/PX"
PLACED = tuple({"@value": str(n), "unit": unit} for n in (0, 1, 3, 100) for unit in (SECONDS, PIXELS))
LASTING = (
    ("odrl:elapsedTime", COMPARED, (*DAYS, {"@value": "0", "@type": "xsd:integer"}, {"@value": "86400", "@type": "xsd:integer"}), ""),
    ("odrl:meteredTime", COMPARED, DAYS, ""),
    ("odrl:absolutePosition", COMPARED, DECIMALS, SECONDS),
    ("odrl:absolutePosition", COMPARED, DECIMALS, PIXELS),
)
PAIRS = 500  # of each part of the campaign


def a_pair(chance: Random) -> tuple[dict[str, Any], dict[str, Any]]:
    one = an_offer(chance)
    return one, changed(one, chance) if chance.random() < 0.6 else an_offer(chance)


def obeys(one: Policy, other: Policy, chance: Random, requests: int, options: Options = OPTIONS) -> Counter[str]:
    """Checks every law on one pair; what the verdicts were."""
    verdict = compare(one, other, options=options)
    for _ in range(requests):
        request, world = a_request(chance)
        request = replace(request, params={**request.params, ODRL + "absolutePosition": tuple(chance.sample(PLACED, 2))})
        here, there = permits(one, request, world, options), permits(other, request, world, options)
        assert verdict.refines != "yes" or there or not here
        assert verdict.refined_by != "yes" or here or not there
        assert verdict.compatible != "no" or not (here and there)
    for name, yes, no in (("refines", one, other), ("refined_by", other, one)):
        if getattr(verdict, name) == "no":
            assert separates(yes, no, verdict, name, options), verdict.reasons[name]
        elif getattr(verdict, name) == "unknown":
            assert verdict.reasons[name]
            assert name not in verdict.witnesses
    states = (verdict.refines, verdict.refined_by)
    assert verdict.equivalent == ("no" if "no" in states else "unknown" if "unknown" in states else "yes")
    if verdict.compatible == "yes":
        found = verdict.witnesses["compatible"]
        assert permits(one, found.request, found.world, options)
        assert permits(other, found.request, found.world, options)
    elif verdict.compatible == "no" and "compatible" in verdict.witnesses:
        found = verdict.witnesses["compatible"]
        assert permits(one, found.request, found.world, options) != permits(other, found.request, found.world, options)
    return Counter([f"refines {verdict.refines}", f"compatible {verdict.compatible}"])


@settings(max_examples=150)
@given(seeds)
def test_what_a_refinement_permits_the_other_permits_and_each_no_has_a_witness_that_separates(chance: Random):
    one, other = a_pair(chance)
    obeys(read(one), read(other), chance, 8)


@settings(max_examples=60)
@given(seeds)
def test_the_laws_hold_where_most_permissions_ask_for_duties(chance: Random):
    one = asking(an_offer(chance), chance)
    other = changed(one, chance) if chance.random() < 0.6 else an_offer(chance)
    obeys(read(one), read(asking(other, chance) if chance.random() < 0.5 else other), chance, 2)


@settings(max_examples=60)
@given(seeds)
def test_the_laws_hold_where_a_number_is_a_duration_and_where_a_place_and_a_moment_are_counted(chance: Random):
    options = replace(OPTIONS, duration_mode="seconds")
    one, other = (load(an_offer(chance, LASTING), options=options) for _ in range(2))
    obeys(one, other, chance, 8, options)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_the_laws_hold_in_a_campaign_that_decides_nearly_all(part: int):
    found: Counter[str] = Counter()
    for index in range(PAIRS):
        chance = Random(part * 1_000_003 + index)
        one, other = a_pair(chance)
        found += obeys(read(one), read(other), chance, 25)
    assert found["refines unknown"] <= 0.05 * PAIRS
    assert found["compatible unknown"] <= 0.05 * PAIRS
    assert min(found["refines yes"], found["refines no"], found["compatible yes"], found["compatible no"]) > PAIRS / 10


@settings(max_examples=100)
@given(seeds)
def test_a_witness_without_a_duration_is_none_that_an_agreement_knows(chance: Random):
    """Under a signed agreement the time since then is known, unless the world says that it runs from an instant nobody can place."""
    parties = {"target": "urn:d", "assigner": PARTIES[2], "assignee": PARTIES[0], "timestamp": "2026-06-01T00:00:00Z"}
    one, other = (read({**document, "@type": "Agreement", **parties}) for document in a_pair(chance))
    obeys(one, other, chance, 4)


def test_a_witness_does_its_duties_before_the_time_for_them_that_runs_from_the_signing():
    within = {"leftOperand": "odrl:delayPeriod", "operator": "lteq", "rightOperand": "P10D"}
    signed = {"@type": "Agreement", "assigner": PARTIES[2], "assignee": PARTIES[0], "timestamp": "2026-06-01T00:00:00Z"}
    asked = rule(at("gteq", "2026-06-14Z"), duty=[{"action": "odrl:inform", "constraint": [within]}])
    one, other = (read({**offer(found), "target": "urn:d", **signed}) for found in (asked, rule(duty=[{"action": "odrl:compensate"}])))
    verdict = compare(one, other, options=OPTIONS)
    assert verdict.refines == "no"
    assert separates(one, other, verdict, "refines")


def test_the_duty_that_a_witness_lacks_is_due_there():
    """Where the first duty of the other is not due, only the second is missing."""
    paid = {"action": "odrl:compensate", "constraint": [purpose("eq", "urn:t:cancer")]}
    one, other = read(offer(rule(purpose("neq", "urn:t:cancer")))), read(offer(rule(duty=[paid, {"action": "odrl:inform"}])))
    verdict = compare(one, other, options=OPTIONS)
    assert verdict.refines == "no"
    assert "odrl:inform" in verdict.reasons["refines"]
    assert separates(one, other, verdict, "refines")


def test_a_duty_that_anybody_may_do_covers_none_that_is_for_the_assignee():
    """Both are about the same requests; of a log in which a third party does the duty only the one for anybody is content."""
    consent = {"duty": [{"action": "odrl:obtainConsent"}]}
    anybody = read(offer(rule(leaf("urn:qiao:participant", "eq", PARTIES[0]), **consent)))
    assignee = read(offer(rule(assignee=PARTIES[0], **consent)))
    request = Request(PARTIES[0], "use")
    world = World(NOW, log=(Event(NOW, "odrl:obtainConsent", PARTIES[1]),))
    assert permits(anybody, request, world)
    assert not permits(assignee, request, world)
    assert compare(anybody, assignee, options=OPTIONS).refines == "unknown"
    assert compare(assignee, anybody, options=OPTIONS).refines != "no"


@settings(max_examples=100)
@given(seeds)
def test_every_policy_is_equivalent_to_itself_in_any_order(chance: Random):
    document = an_offer(chance)
    policy = read(document)
    assert compare(policy, policy).equivalent == "yes"
    assert compare(policy, read(document), options=OPTIONS).equivalent == "yes"
    if "andSequence" not in str(document):
        assert compare(policy, read(shuffled(document, chance)), options=OPTIONS).equivalent == "yes"


@settings(max_examples=60)
@given(seeds)
def test_a_prohibition_more_or_a_constraint_more_refines(chance: Random):
    document = an_offer(chance)
    more = {**document, "prohibition": [*document.get("prohibition", ()), an_offer(chance)["permission"][0]]}
    more["prohibition"] = [{key: value for key, value in prohibition.items() if key != "duty"} for prohibition in more["prohibition"]]
    if "odrl:conflict" not in document:
        assert compare(read(more), read(document), options=OPTIONS).refines != "no"


def offered(*constraints: dict[str, Any], **more: Any) -> Policy:
    return load(offer(rule(*constraints), **more), options=OPTIONS)


def answers(one: Policy, other: Policy) -> tuple[str, str, str]:
    verdict = compare(one, other, options=OPTIONS)
    return verdict.refines, verdict.refined_by, verdict.compatible


def number(operator: str, value: str, unit: str = "", left: str = "odrl:payAmount") -> dict[str, Any]:
    return leaf(left, operator, {"@value": value, "@type": "xsd:decimal"}) | ({"odrl:unit": unit} if unit else {})


def lasts(operator: str, value: str) -> dict[str, Any]:
    return leaf("odrl:elapsedTime", operator, value)


def role(operator: str, right: object) -> dict[str, Any]:
    return leaf("urn:t:role", operator, right)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        # each ordering operator at its value and one step beside it
        (number("lteq", "5"), number("lt", "5"), ("no", "yes", "yes")),
        (number("lt", "5"), number("gteq", "5"), ("no", "no", "no")),
        (number("lteq", "5"), number("gteq", "5"), ("no", "no", "yes")),
        (number("eq", "5"), number("neq", "5"), ("no", "no", "no")),
        (number("lt", "6", left="odrl:count"), number("lteq", "5", left="odrl:count"), ("yes", "yes", "yes")),
        (number("gt", "5", left="odrl:count"), number("lt", "6", left="odrl:count"), ("no", "no", "no")),
        (number("lt", "6"), number("lteq", "5"), ("no", "yes", "yes")),
        (at("lteq", "2026-12-31Z"), at("lt", "2027-01-01T00:00:00Z"), ("yes", "yes", "yes")),
        (at("lteq", "2026-12-31Z"), at("gteq", "2026-12-31T23:59:59.999999Z"), ("no", "no", "yes")),
        (at("lteq", "2026-12-31Z"), at("gteq", "2027-01-01T00:00:00Z"), ("no", "no", "no")),
        (lasts("lteq", "P10D"), lasts("lt", "PT240H"), ("no", "yes", "yes")),
        # domains: no percentage is above 100, no size is 0
        (number("lteq", "100", left="odrl:percentage"), number("lteq", "200", left="odrl:percentage"), ("yes", "yes", "yes")),
        # names, and concepts of a vocabulary
        (purpose("isAnyOf", ["a", "b"]), purpose("isAnyOf", ["b", "c"]), ("no", "no", "yes")),
        (purpose("isNoneOf", ["a"]), purpose("isNoneOf", ["a", "b"]), ("no", "yes", "yes")),
        (purpose("isA", "urn:t:cancer"), purpose("isA", "urn:t:research"), ("yes", "no", "yes")),
        (purpose("eq", "urn:t:cancer"), purpose("isA", "urn:t:research"), ("yes", "no", "yes")),
        (purpose("isA", "urn:t:cancer"), purpose("isA", "urn:t:rare"), ("no", "no", "unknown")),
        (purpose("isA", "urn:t:cancer"), purpose("isA", "urn:t:marketing"), ("no", "no", "no")),
        (leaf("odrl:spatial", "isPartOf", "urn:t:france"), leaf("odrl:spatial", "isPartOf", "urn:t:europe"), ("yes", "no", "yes")),
        (leaf("odrl:spatial", "hasPart", "urn:t:france"), leaf("odrl:spatial", "hasPart", "urn:t:paris"), ("yes", "no", "yes")),
        # a subject has several values at once, an act has one
        (role("isAllOf", ["x", "y"]), role("isAnyOf", ["x", "z"]), ("yes", "no", "yes")),
        (role("eq", "x"), role("isNoneOf", ["y"]), ("yes", "no", "yes")),
        (role("isAnyOf", ["x"]), role("isAnyOf", ["y"]), ("no", "no", "yes")),
        (role("isAnyOf", ["x"]), role("isNoneOf", ["x"]), ("no", "no", "no")),
        (purpose("isAnyOf", ["x"]), purpose("isAnyOf", ["y"]), ("no", "no", "no")),
        # units
        (number("lteq", "5", EUR), number("lteq", "10", EUR), ("yes", "no", "yes")),
        (number("lteq", "5", EUR), number("gteq", "10", USD), ("no", "no", "unknown")),  # nothing, and much, is so in any currency
        (number("eq", "5", EUR), number("lteq", "10", USD), ("unknown", "no", "unknown")),
        # months
        (lasts("lteq", "P1M"), lasts("lteq", "P2M"), ("yes", "no", "yes")),
        (lasts("lteq", "P27D"), lasts("lteq", "P1M"), ("yes", "no", "yes")),
        (lasts("lteq", "P30D"), lasts("lteq", "P1M"), ("unknown", "unknown", "yes")),
        (lasts("gt", "P31D"), lasts("lteq", "P1M"), ("no", "no", "no")),
        (lasts("lteq", "P1Y"), lasts("lteq", "P12M"), ("yes", "yes", "yes")),
    ],
)  # fmt: skip
def test_one_axis(one: dict[str, Any], other: dict[str, Any], expected: tuple[str, str, str]):
    assert answers(offered(one), offered(other)) == expected


def test_silence_is_anything_and_a_missing_fact_too():
    assert answers(offered(), offered(purpose("eq", "a"))) == ("no", "yes", "yes")
    always = {"or": [purpose("eq", "a"), purpose("neq", "a")]}
    verdict = compare(offered(), offered(always))
    assert verdict.refines == "no"
    assert verdict.witnesses["refines"].values == {"http://www.w3.org/ns/odrl/2/purpose": None}
    assert "no purpose stated" in verdict.reasons["refines"]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({}, {"target": "urn:d"}, ("no", "yes", "yes")),
        ({"target": "urn:d"}, {"target": "urn:e"}, ("no", "no", "no")),
        ({"assignee": "did:web:x"}, {}, ("yes", "no", "yes")),
        ({"assignee": ["did:web:x", "did:web:y"]}, {"assignee": "did:web:y"}, ("no", "yes", "yes")),
    ],
)
def test_target_and_assignee_are_axes(one: dict[str, Any], other: dict[str, Any], expected: tuple[str, str, str]):
    assert answers(load(offer(rule(), **one)), load(offer(rule(), **other))) == expected


def test_collections_and_their_members():
    def for_party(assignee: object) -> Policy:
        return load(offer(rule(assignee=assignee)), options=OPTIONS)

    group = {"@type": "odrl:PartyCollection", "odrl:source": "urn:g"}
    doctors = {**group, "odrl:refinement": [role("isAnyOf", ["urn:t:doctor"])]}
    assert answers(for_party(doctors), for_party(group)) == ("yes", "no", "yes")
    assert answers(for_party("did:web:x"), for_party(group)) == ("no", "no", "yes")
    assert answers(for_party("did:web:x"), for_party("did:web:y")) == ("no", "no", "no")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("odrl:display", "odrl:play", ("yes", "no", "yes")),
        ("odrl:play", "use", ("yes", "no", "yes")),
        ("use", "odrl:transfer", ("no", "no", "no")),
    ],
)
def test_actions_lie_in_their_hierarchy(one: str, other: str, expected: tuple[str, str, str]):
    assert answers(load(offer(rule(action=one))), load(offer(rule(action=other)))) == expected


@pytest.mark.parametrize(("conflict", "refines"), [(None, "yes"), ("odrl:prohibit", "yes"), ("odrl:perm", "no"), ("odrl:invalid", "yes")])
def test_who_wins_a_conflict_counts(conflict: str | None, refines: str):
    more = {"odrl:conflict": {"@id": conflict}} if conflict else {}
    one = load(offer(rule(), prohibitions=(rule(purpose("eq", "a")),), **more))
    assert compare(one, load(offer(rule(purpose("neq", "a"))))).refines == refines


def test_options_decide_a_conflict_that_the_policy_leaves_open():
    one, other = load(offer(rule(), prohibitions=(rule(purpose("eq", "a")),))), load(offer(rule(purpose("neq", "a"))))
    assert compare(one, other, options=Options(conflict="permit")).refines == "no"


def duty(action: str, *constraints: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"action": action, **({"constraint": list(constraints)} if constraints else {}), **more}


def test_a_duty_more_refines_and_a_duty_less_does_not():
    plain, dutiful = load(offer(rule())), load(offer(rule(duty=[duty("odrl:obtainConsent")])))
    verdict = compare(plain, dutiful)
    assert (verdict.refines, verdict.refined_by) == ("no", "yes")
    found = verdict.witnesses["refines"]
    assert evaluate(plain, found.request, found.world).result == "permit"
    assert evaluate(dutiful, found.request, found.world).result == "deny"
    assert "the duty to odrl:obtainConsent" in verdict.reasons["refines"]


def test_a_duty_counts_where_it_is_due():
    conditional = load(offer(rule(duty=[duty("odrl:inform", purpose("eq", "a"))])))
    assert compare(load(offer(rule(purpose("eq", "b")))), conditional).refines == "yes"
    assert compare(load(offer(rule(purpose("eq", "a")))), conditional).refines == "no"


def test_obligations_and_remedies_are_owed_too():
    plain = offer(rule(), prohibitions=(rule(action="odrl:sell"),))
    owing = {**plain, "obligation": [duty("odrl:compensate", at("lteq", "2026-12-31Z"))]}
    verdict = compare(load(plain), load(owing))
    assert (verdict.refines, verdict.refined_by) == ("no", "yes")
    cheap = {**plain, "prohibition": [rule(action="odrl:sell", **{"odrl:remedy": [duty("odrl:inform")]})]}
    assert compare(load(cheap), load(plain)).refines == "no"
    assert compare(load(plain), load(cheap)).refines == "yes"


def foreign(operator: str, right: object) -> Policy:
    return load(offer(rule(leaf("urn:not:known", operator, right))), strict=False)


def test_what_is_not_understood_equals_its_twin_and_nothing_else():
    one, twin, wider = foreign("isAnyOf", ["a"]), foreign("isAnyOf", ["a"]), foreign("isAnyOf", ["a", "b"])
    assert answers(one, twin) == ("yes", "yes", "unknown")
    assert answers(one, wider) == ("yes", "unknown", "unknown")
    verdict = compare(load(offer(rule())), one)
    assert verdict.refines == "unknown"
    assert "urn:not:known" in verdict.reasons["refines"]
    assert compare(one, load(offer(rule()))).refines == "yes"


def test_policies_under_other_profiles_are_not_compared():
    one, other = load(offer(rule()), options=OPTIONS), load(offer(rule()))
    assert compare(one, other).refines == "unknown"
    assert compare(one, other, options=OPTIONS).equivalent == "yes", "the options read both again"


def test_a_verdict_is_plain_json():
    verdict = compare(offered(purpose("eq", "a")), offered(purpose("eq", "b")))
    told = json.loads(json.dumps(verdict.to_json()))
    assert told["compatible"] == "no"
    assert told["reasons"]["compatible"].startswith("on purpose they have nothing in common")
    assert told["witnesses"]["refines"]["values"] == {"http://www.w3.org/ns/odrl/2/purpose": "a"}
    assert verdict.witness == verdict.witnesses["refines"]
    assert compare(offered(), offered()).witness is None


NAMES = ("purpose", "recipient", "industry", "product", "media", "language", "version", "spatial", "fileFormat", "systemDevice")


def hostile() -> dict[str, Policy]:
    """Policies of some 600 leaves, each made to take long in its own way."""

    def on(n: int, operator: str, right: object) -> dict[str, Any]:
        return leaf(f"odrl:{NAMES[n % len(NAMES)]}", operator, right)

    def count(operator: str, n: int) -> dict[str, Any]:
        return leaf("odrl:count", operator, {"@value": str(n), "@type": "xsd:integer"})

    def concepts(n: int) -> list[str]:
        return [f"urn:c:{n}:{k}" for k in range(30)]

    made = {
        "products": offer(rule(*[{"or": [on(n + k, "isAnyOf", [f"v{n}{k}", f"u{k}"]) for k in range(4)]} for n in range(40)])),
        "xone": offer(rule({"xone": [count("gteq", n) for n in range(500)]})),
        "xones": offer(rule({"xone": [on(n, "eq", f"v{n}") for n in range(400)]})),
        "rules": offer(*[rule(on(n, "isNoneOf", [f"v{n}", "x"]), count("lteq", n)) for n in range(120)]),
        "prohibitions": offer(rule(), prohibitions=tuple(rule(on(n, "eq", f"v{n}"), on(n + 3, "neq", "q")) for n in range(150))),
        "months": offer(rule({"or": [{"and": [lasts("lteq", f"P{1 + n % 8}M"), on(n, "eq", f"v{n}")]} for n in range(100)]})),
        "many months": offer(rule({"or": [lasts("lteq", f"P{n}M") for n in range(1, 200)]})),
        "crowds": offer(rule(*[role("isAnyOf", [f"r{n}", f"r{n + 1}"]) for n in range(190)])),
        "sets": offer(rule(role("isAllOf", [f"r{n}" for n in range(590)]))),
        "duties": offer(*[rule(duty=[duty("odrl:inform", on(n, "neq", f"v{n}")) for n in range(43)]) for _ in range(3)]),
        "currencies": offer(rule(*[number("lteq", "5", f"urn:u:{n}") for n in range(590)])),
        "wide": offer(
            rule(
                *[number("lteq", "7", f"urn:u:{n}") for n in range(480)],
                {"or": [{"and": [on(0, "eq", f"v{n}"), on(7, "eq", f"w{n}")]} for n in range(40)]},
            )
        ),
        "kinds": offer(rule(*[role("isA", concepts(n)) for n in range(18)])),
        "wholes": offer(rule(*[on(7, "hasPart", concepts(n)) for n in range(18)])),
        "deep": offer(rule(*[{"or": [{"xone": [on(i + j + k, "neq", f"v{k}") for k in range(4)]} for j in range(4)]} for i in range(30)])),
    }
    return {name: load(document, options=OPTIONS, strict=False) for name, document in made.items()}


def test_hostile_policies_are_compared_in_a_bounded_time():
    """50 ms is the promise for an idle machine; this one may be shared and slower, so twice that is asked of the process's own clock."""
    policies, slow = list(hostile().items()), []
    for index, step in product(range(len(policies)), (0, 1, 4)):
        (one_name, one), (other_name, other) = policies[index], policies[(index + step) % len(policies)]
        took = cost(one, other)
        if took > 0.1:  # what it costs is what it takes when nothing else is in the way: the least of a few
            took = min(took, *(cost(one, other) for _ in range(5)))
        if took > 0.1:
            slow.append((one_name, other_name, took))
        assert compare(one, other, options=OPTIONS).to_json()
    assert not slow


def cost(one: Policy, other: Policy) -> float:
    """Seconds of the process's own clock for a comparison of two policies of which nothing is known yet."""
    for policy in (one, other):
        policy.memo.clear()
    began = time.process_time()
    compare(one, other, options=OPTIONS)
    return time.process_time() - began


def test_too_much_work_is_unknown_and_says_so():
    one, other = hostile()["prohibitions"], hostile()["products"]
    verdict = compare(one, other, options=OPTIONS)
    assert verdict.refines == "unknown"
    assert verdict.reasons["refines"] == COMPLEX.reason
    assert compare(one, hostile()["prohibitions"], options=OPTIONS).equivalent == "yes", "in the same words they are the same"


def test_two_policies_that_are_too_complex_for_one_question_are_so_for_all_and_are_read_once(monkeypatch: pytest.MonkeyPatch):
    read_again: list[Policy] = []

    def shape(policy: Policy, *args: Any, **more: Any) -> Shape:
        read_again.append(policy)
        return shape_of(policy, *args, **more)

    monkeypatch.setattr(comparing, "shape_of", shape)
    one, other = hostile()["xone"], hostile()["xones"]
    verdict = compare(one, other, options=OPTIONS)
    assert {verdict.refines, verdict.refined_by, verdict.compatible} == {"unknown"}
    assert len(read_again) == 2


def test_where_only_a_month_decides_the_reason_says_so():
    verdict = compare(offered(lasts("lteq", "P30D")), offered(lasts("lteq", "P1M")))
    assert verdict.reasons["refines"] == CALENDAR
    months = compare(offered(lasts("lteq", "P2M")), offered(lasts("lteq", "P1M")))
    found = months.witnesses["refines"]
    assert evaluate(offered(lasts("lteq", "P2M")), found.request, found.world).result == "permit"
    assert evaluate(offered(lasts("lteq", "P1M")), found.request, found.world).result == "deny"


@pytest.mark.parametrize("day", ["2026-02-28", "2026-03-01", "2026-03-31", "2026-08-01", "2027-01-31"])
@pytest.mark.parametrize(
    ("one", "other"), [(("lteq", "P3M"), ("lteq", "P1M")), (("gteq", "P1M"), ("gteq", "P2M")), (("lteq", "P6M"), ("lt", "P5M"))]
)
def test_a_witness_of_months_holds_on_its_own_day(day: str, one: tuple[str, str], other: tuple[str, str]):
    wide, narrow = (offered(at("eq", f"{day}Z"), lasts(*test)) for test in (one, other))
    verdict = compare(wide, narrow)
    assert (verdict.refines, verdict.refined_by) == ("no", "yes")
    assert separates(wide, narrow, verdict, "refines")


def test_there_is_no_time_beyond_the_calendar():
    assert answers(offered(at("gt", "9999-12-31Z")), offered(purpose("eq", "a"))) == ("yes", "no", "no")
    ages = offered(leaf("odrl:elapsedTime", "gteq", "P7000Y"))
    verdict = compare(ages, offered(lasts("lteq", "P1D")))
    assert separates(ages, offered(lasts("lteq", "P1D")), verdict, "refines")


@settings(max_examples=60)
@given(odd_offers, odd_offers)
def test_what_nobody_would_write_is_compared_too(one: dict[str, Any], other: dict[str, Any]):
    try:
        first, again, second = (load(document, strict=False) for document in (one, one, other))
    except PolicyError:
        return
    assert compare(first, second).to_json()
    assert compare(first, again).equivalent == "yes"


def test_a_comparison_can_be_turned_at_the_cost_of_one():
    comparison = Comparison(offered(purpose("eq", "a")), offered(purpose("isAnyOf", ["a", "b"])), OPTIONS)
    assert comparison.refines().answer == "yes"
    assert comparison.turned().refines().answer == "no"
    assert "the second permits" in comparison.turned().refines().reason


@pytest.mark.parametrize("duty", [False, True])
@pytest.mark.parametrize("left", ["odrl:elapsedTime", "odrl:delayPeriod"])
def test_a_duration_that_runs_from_the_signing_makes_the_signing_a_term(left: str, duty: bool):
    """The same words, signed twice: what the one still permits the other does no more."""
    within = [{"leftOperand": left, "operator": "lteq", "rightOperand": {"@value": "P30D", "@type": "xsd:duration"}}]
    rule = {"action": "use", "duty": [{"action": "odrl:delete", "constraint": within}]} if duty else {"action": "use", "constraint": within}
    parties = {"target": "urn:d", "assigner": PARTIES[0], "assignee": PARTIES[1]}

    def agreement(at: str, of: dict[str, Any] = rule) -> Policy:
        return read({"@id": "urn:a", "@type": "Agreement", **parties, "timestamp": at, "permission": [of]})

    old, new = agreement("2026-01-01T00:00:00Z"), agreement("2026-06-01T00:00:00Z")
    if not duty:
        world = World(NOW, log=())
        asked = Request(PARTIES[1], target="urn:d")
        assert [evaluate(each, asked, world, options=OPTIONS).result for each in (old, new)] == ["deny", "permit"]
    verdict = compare(old, new, options=OPTIONS)
    assert (verdict.refines, verdict.refined_by, verdict.equivalent) == ("unknown", "unknown", "unknown")
    assert "signed" in verdict.reasons["refines"]
    assert not same_terms(old, new, options=OPTIONS)
    assert "signed" in differences(old, new, options=OPTIONS)[0]
    again = agreement("2026-01-01T01:00:00+01:00")
    assert compare(old, again, options=OPTIONS).equivalent == "yes"
    assert same_terms(old, again, options=OPTIONS)
    first_use = replace(OPTIONS, recurrence_anchor="first-use")
    assert compare(old, new, options=first_use).equivalent == "yes"
    plain = [agreement(at, {"action": "use"}) for at in ("2026-01-01T00:00:00Z", "2026-06-01T00:00:00Z")]
    assert compare(*plain, options=OPTIONS).equivalent == "yes"
    assert same_terms(*plain, options=OPTIONS)
