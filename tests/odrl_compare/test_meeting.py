"""The meet of two policies: narrower than both, and nothing that both permit is lost."""

import json
import time as clock
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft201909Validator

from connector.odrl import Options, Policy, compare, evaluate, load
from connector.odrl_compare import meeting
from connector.odrl_compare.boxes import Work
from connector.odrl_compare.meeting import meet, narrowed, separating
from connector.odrl_compare.regions import Reader
from connector.values import replace
from tests.odrl.cases import leaf, offer, purpose, rule, time
from tests.odrl_compare.cases import EUR, OPTIONS, a_request, an_offer, changed, read, seeds
from tests.odrl_compare.test_comparing import hostile
from tests.vocab.corpus import OFFICIAL

PERMITS = ("permit", "permit-with")


def permits(policy: Policy, request: Any, world: Any) -> bool:
    return evaluate(policy, request, world, options=OPTIONS).result in PERMITS


def obeys(one: Policy, other: Policy, chance: Random, requests: int) -> str:
    """Checks the laws on one pair; what came of it."""
    found = meet(one, other, options=OPTIONS)
    if found.policy is None:
        assert found.reason
        assert not found.apart or compare(one, other, options=OPTIONS).compatible == "no"
        return "apart" if found.apart else "none"
    for policy in (one, other):
        assert compare(found.policy, policy, options=OPTIONS).refines == "yes"
    for _ in range(requests):
        request, world = a_request(chance)
        assert not permits(found.policy, request, world) or (permits(one, request, world) and permits(other, request, world))
        # A permission for anybody lets anybody do its duties: met with one for some, it leaves them to these, so they are done by who asks.
        log = None if world.log is None else tuple(replace(act, party=request.party) for act in world.log)
        world = replace(world, log=log)
        assert permits(found.policy, request, world) == (permits(one, request, world) and permits(other, request, world))
    assert found.document is not None
    assert read(found.document) == found.policy
    return "met"


@settings(max_examples=60)
@given(seeds)
def test_a_meet_permits_what_both_permit_and_nothing_else(chance: Random):
    document = an_offer(chance)
    obeys(read(document), read(changed(document, chance)), chance, 8)


@pytest.mark.slow
def test_the_laws_of_the_meet_in_a_campaign():
    found = []
    for index in range(400):
        chance = Random(index)
        one = an_offer(chance)
        found.append(obeys(read(one), read(changed(one, chance) if chance.random() < 0.6 else an_offer(chance)), chance, 25))
    assert found.count("met") > 200
    assert found.count("apart") > 40
    assert found.count("none") <= 0.05 * len(found)


def valid(document: dict[str, Any]) -> None:
    """By the DSP contract schema, as an Offer in a message."""
    definitions = json.loads((OFFICIAL / "negotiation" / "contract-schema.json").read_text())["definitions"]
    Draft201909Validator({"$ref": "#/definitions/MessageOffer", "definitions": definitions}).validate(document)


@settings(max_examples=60)
@given(seeds)
def test_a_meet_is_valid_by_the_schema_of_the_protocol(chance: Random):
    document = an_offer(chance)
    found = meet(read(document), read(changed(document, chance)), options=OPTIONS)
    if found.document is not None:
        valid(found.document)


def number(operator: str, value: str, unit: str = EUR) -> dict[str, Any]:
    return leaf("odrl:payAmount", operator, {"@value": value, "@type": "xsd:decimal"}) | {"odrl:unit": unit}


def test_a_counter_offer_axis_by_axis():
    asked = load(offer(rule(purpose("isAnyOf", ["research", "marketing"]), time("lteq", "2027-12-31Z")), target="urn:d"))
    floor = load(
        offer(
            rule(
                purpose("isAnyOf", ["research", "quality"]),
                time("lteq", "2026-12-31Z"),
                duty=[{"action": "odrl:delete"}],
            ),
            prohibitions=(rule(action="odrl:distribute"),),
        )
    )
    found = meet(asked, floor, id="urn:counter")
    assert found.document == {
        "@id": "urn:counter",
        "@type": "Offer",
        "target": "urn:d",
        "permission": [
            {
                "action": "use",
                "constraint": [
                    {"leftOperand": "odrl:purpose", "operator": "eq", "rightOperand": "research"},
                    {"leftOperand": "odrl:dateTime", "operator": "lteq", "rightOperand": {"@value": "2026-12-31Z", "@type": "xsd:date"}},
                ],
                "duty": [{"action": "odrl:delete"}],
            }
        ],
        "prohibition": [{"action": "odrl:distribute"}],
    }
    valid(found.document)
    assert found.from_second == (
        "the permission to use asks that purpose is 'research', and no longer that purpose is one of 'research', 'quality'",
    )
    assert any("time is not after 2026-12-31Z" in change for change in found.from_first)
    assert any("the prohibition to distribute is added" in change for change in found.from_first)


def test_policies_that_have_nothing_in_common_have_an_axis_that_separates_them():
    one, other = load(offer(rule(purpose("eq", "a")))), load(offer(rule(purpose("eq", "b"), time("lteq", "2026-12-31Z"))))
    found = meet(one, other)
    assert found.apart
    assert found.policy is None
    apart = separating(one, other)
    assert apart is not None
    assert apart.axis == "http://www.w3.org/ns/odrl/2/purpose"
    assert (
        str(apart) == found.reason == "on purpose they have nothing in common: for the first purpose is 'a', for the second purpose is 'b'"
    )
    assert separating(one, one) is None
    sides = "for the request purpose is 'a', for the offer purpose is 'b'"
    names = ("request", "offer")
    for sentence in (str(separating(one, other, names=names)), meet(one, other, names=names).reason):
        assert sentence.endswith(sides)
    verdict = compare(one, other, names=names)
    assert all(not {"first", "second"} & set(reason.split()) for reason in verdict.reasons.values())
    assert verdict.reasons["refines"].startswith("the request permits")


@pytest.mark.parametrize(
    ("one", "other", "action"),
    [("odrl:play", "use", "odrl:play"), ("odrl:display", "odrl:play", "odrl:display"), ("use", "use", "use")],
)
def test_of_two_actions_the_narrower_is_what_both_permit(one: str, other: str, action: str):
    found = meet(load(offer(rule(action=one))), load(offer(rule(action=other))))
    assert found.document is not None
    assert [permission["action"] for permission in found.document["permission"]] == [action]


def test_parties_meet_where_both_name_them():
    def for_parties(*names: str, **more: Any) -> Policy:
        return load(offer(rule(assignee=list(names)), **more))

    found = meet(for_parties("did:web:a", "did:web:b"), for_parties("did:web:b", "did:web:c"))
    assert found.document is not None
    assert found.document["permission"][0]["assignee"] == "did:web:b"
    assert meet(for_parties("did:web:a"), for_parties("did:web:c")).apart
    assert meet(load(offer(rule(), target="urn:d")), load(offer(rule(), target="urn:e"))).apart


def test_a_duty_that_another_covers_is_not_owed_twice():
    def owing(*duties: dict[str, Any]) -> Policy:
        return load(offer(rule(duty=list(duties))), options=OPTIONS)

    dear = {"action": "odrl:compensate", "constraint": [number("gteq", "10")]}
    cheap = {"action": "odrl:compensate", "constraint": [number("gteq", "5")]}
    found = meet(owing(dear), owing(cheap, {"action": "odrl:inform"}), options=OPTIONS)
    assert found.policy is not None
    assert [duty.actions[0].iri.rpartition("/")[2] for duty in found.policy.permissions[0].duties] == ["compensate", "inform"]


def test_what_one_forbids_stays_forbidden_though_it_is_a_duty_of_the_other():
    forbids = load(offer(rule(), prohibitions=(rule(purpose("eq", "a")),)))
    owes = load(offer(rule(duty=[{"action": "odrl:delete"}])))
    found = meet(forbids, owes)
    assert found.document is not None
    assert [one["action"] for one in found.document["prohibition"]] == ["use", "odrl:delete"]


def test_of_conditions_on_one_axis_the_narrower_is_kept():
    policy = load(
        offer(
            rule(
                time("lteq", "2027-12-31Z"),
                time("lteq", "2026-12-31Z"),
                time("gteq", "2026-01-01Z"),
                number("lteq", "5"),
                number("lt", "9"),
            )
        ),
        options=OPTIONS,
    )
    kept = narrowed(Reader(policy.registry, Work(), {}), policy.permissions[0].constraints)
    assert [(node.operator, node.expected[0]) for node in kept] == [("lteq", "2026-12-31Z"), ("gteq", "2026-01-01Z"), ("lteq", "5")]


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        (load(offer(rule(leaf("urn:x:y", "eq", "a"))), strict=False), load(offer(rule())), "cannot be written"),
        (read(offer(rule())), load(offer(rule())), "other profiles"),
    ],
)
def test_where_there_is_no_meet_the_reason_is_given(one: Policy, other: Policy, reason: str):
    found = meet(one, other)
    assert found.policy is None
    assert not found.apart
    assert reason in found.reason


def test_conflicts_are_decided_before_they_are_written():
    permits_win = load(offer(rule(), prohibitions=(rule(purpose("eq", "a")),), **{"odrl:conflict": {"@id": "odrl:perm"}}))
    found = meet(permits_win, load(offer(rule(), prohibitions=(rule(purpose("eq", "b")),))))
    assert found.document is not None
    assert [one["constraint"][0]["rightOperand"] for one in found.document["prohibition"]] == ["b"]
    assert found.document["odrl:conflict"] == {"@id": "odrl:prohibit"}
    by_options = meet(load(offer(rule(), prohibitions=(rule(),))), load(offer(rule())), options=Options(conflict="permit"))
    assert by_options.policy is not None


def test_hostile_policies_meet_in_a_bounded_time():
    policies = list(hostile().values())
    slow = []
    for index, one in enumerate(policies):
        other, best = policies[(index + 1) % len(policies)], 1.0
        for _ in range(6):  # what it costs is what it takes when nothing else is in the way: the least of a few
            one.memo.clear()
            other.memo.clear()
            began = clock.process_time()
            meet(one, other, options=OPTIONS)
            if (best := min(best, clock.process_time() - began)) < 0.15:
                break
        if best >= 0.15:
            slow.append((index, best))
    assert not slow


def test_constraints_are_held_against_those_on_the_same_axis_alone(monkeypatch: pytest.MonkeyPatch):
    held: list[int] = []
    settled = meeting._settled
    monkeypatch.setattr(meeting, "_settled", lambda reader, node, kept: held.append(len(kept)) or settled(reader, node, kept))
    fees = [leaf("odrl:payAmount", "lteq", {"@value": "5", "@type": "xsd:decimal"}) | {"odrl:unit": f"urn:u:{n}"} for n in range(100)]
    both = meet(load(offer(rule(*fees))), load(offer(rule(purpose("eq", "urn:t:a")))))
    assert both.policy is not None
    assert sum(held) < 10
