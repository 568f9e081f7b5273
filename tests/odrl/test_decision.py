from datetime import datetime, timedelta, timezone
from itertools import product
from typing import Any

import orjson
import pytest
from hypothesis import given

from connector import __version__
from connector.odrl import PURPOSE, Event, Options, Origin, Profile, Request, World, evaluate, load
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

BOUNDED = policy(rule(purpose("eq", "research"), time("lteq", "2026-12-31Z")))


def test_a_permit_says_by_which_rule_and_until_when() -> None:
    decision = evaluate(BOUNDED, request("research"), world())
    assert decision.reason() == ["Permitted until 2027-01-01T00:00:00Z (offer urn:o1, /permission/0)."]
    assert evaluate(policy(rule()), request(), world()).reason() == ["Permitted (offer urn:o1, /permission/0)."]


def test_a_denial_is_told_in_one_sentence_for_each_fault() -> None:
    assert evaluate(BOUNDED, request("marketing"), world(NOW + timedelta(days=365))).reason() == [
        "Denied: purpose 'marketing' is not 'research' (offer urn:o1, /permission/0/constraint/0).",
        "Denied: time 2027-06-15T12:00:00Z is after 2026-12-31Z (offer urn:o1, /permission/0/constraint/1).",
    ]


def test_an_undecided_offer_says_what_is_missing() -> None:
    decision = evaluate(BOUNDED, request(stage="catalog"), world())
    assert decision.reason()[0].startswith("Undecided: the purpose is not known")


def test_a_policy_with_unknown_words_is_denied_with_the_remedy() -> None:
    found = load(offer(rule(leaf("purpose", "eq", "research"))), strict=False)
    assert evaluate(found, request("research"), world()).reason() == [
        "Denied: `purpose` is no term of the DSP context, so it names no left operand; write `odrl:purpose` "
        "(offer urn:o1, /permission/0/constraint/0/leftOperand)."
    ]


def test_nothing_is_told_about_a_hidden_offer() -> None:
    assert evaluate(BOUNDED, request("marketing"), world()).reason("none") == []


def test_a_decision_names_its_policy_and_stage() -> None:
    decision = evaluate(BOUNDED, request("research", stage="negotiation"), world())
    assert (decision.policy_id, decision.stage, decision.at) == ("urn:o1", "negotiation", NOW)


def test_a_decision_is_plain_json() -> None:
    decision = evaluate(BOUNDED, request("marketing", party="did:web:b.example", target="urn:d", stage="negotiation"), world())
    document = orjson.loads(orjson.dumps(decision.to_json()))
    assert document == {
        "result": "deny",
        "code": "CONSTRAINT_UNSATISFIED",
        "stage": "negotiation",
        "at": "2026-06-15T12:00:00Z",
        "valid_until": None,
        "policy": "urn:o1",
        "semantics": "odrl22-v1",
        "engine_version": __version__,
        "profile_versions": {},
        "request": {
            "party": "did:web:b.example",
            "action": "use",
            "target": "urn:d",
            "params": {"odrl:purpose": ["marketing"]},
        },
        "facts": {PURPOSE: {"value": ["marketing"], "source": "declared", "asserted_by": "did:web:b.example"}},
        "missing": [],
        "reason": ["Denied: purpose 'marketing' is not 'research' (offer urn:o1, /permission/0/constraint/0)."],
        "rules": [
            {
                "path": "/permission/0",
                "kind": "permission",
                "matches": {"action": True, "target": True, "assignee": True, "refinements": True},
                "active": False,
                "control": "deny",
                "attempt": "Attempted",
                "performance": "Unknown",
                "deontic": "NonSet",
                "constraints": [
                    {
                        "path": "/permission/0/constraint/0",
                        "left": {"iri": PURPOSE, "label": "purpose"},
                        "operator": "eq",
                        "expected": ["research"],
                        "actual": "marketing",
                        "state": "unsatisfied",
                        "why": "purpose 'marketing' is not 'research'",
                    },
                    {
                        "path": "/permission/0/constraint/1",
                        "left": {"iri": "http://www.w3.org/ns/odrl/2/dateTime", "label": "time"},
                        "operator": "lteq",
                        "expected": ["2026-12-31Z"],
                        "actual": "2026-06-15T12:00:00Z",
                        "state": "satisfied",
                    },
                ],
            }
        ],
        "abridged": False,
        "findings": [],
        "near_misses": [{"path": "/permission/0/constraint/0", "change": "purpose is 'research'"}],
    }


GROUND = {
    "code": "CONSTRAINT_UNSATISFIED",
    "policy": "urn:o1",
    "rule": "/permission/0",
    "constraint": "/permission/0/constraint/0",
    "leftOperand": "odrl:purpose",
    "operator": "eq",
    "expected": ["research"],
    "actual": ["marketing"],
}


def test_a_denial_is_told_as_data_too_one_object_for_each_sentence() -> None:
    late = evaluate(BOUNDED, request("marketing"), world(NOW + timedelta(days=365)))
    assert late.grounds()[0] == GROUND
    assert [ground["constraint"] for ground in late.grounds()] == ["/permission/0/constraint/0", "/permission/0/constraint/1"]
    assert late.grounds()[1]["actual"] == ["2027-06-15T12:00:00Z"]
    assert len(late.grounds()) == len(late.reason())


def test_a_permit_has_no_grounds() -> None:
    assert evaluate(BOUNDED, request("research"), world()).grounds("full") == []


def test_a_peer_is_told_what_it_said_itself_and_not_what_others_said_of_it() -> None:
    declared = evaluate(BOUNDED, request("marketing"), world())
    vouched = evaluate(BOUNDED, request(), world(**{"odrl:purpose": ("marketing",)}))
    assert declared.grounds("peer") == declared.grounds("full") == [GROUND]
    assert vouched.grounds("full") == [GROUND]
    assert vouched.grounds("peer") == [{name: value for name, value in GROUND.items() if name != "actual"}]
    assert "marketing" not in str(vouched.reason("peer"))


def test_a_ground_is_as_exact_as_its_place() -> None:
    def grounds(found: Any, **more: Any) -> list[dict[str, Any]]:
        return evaluate(found, request("research", **more), world()).grounds()

    duty = policy(rule(duty=[{"action": "odrl:obtainConsent"}]))
    refused = load(offer(rule(leaf("edc:foo", "eq", "x"))), strict=False)
    forbidden = policy(rule(), prohibitions=(rule(),))
    assert grounds(forbidden) == [{"code": "PROHIBITED", "policy": "urn:o1", "rule": "/prohibition/0"}]
    assert grounds(duty) == [
        {
            "code": "CONSENT_MISSING",
            "policy": "urn:o1",
            "rule": "/permission/0",
            "path": "/permission/0/duty/0",
            "how_to_fulfil": {"action": [ODRL + "obtainConsent"], "by": ""},
        },
    ]
    assert grounds(refused) == [
        {"code": "TERM_DROPPED", "policy": "urn:o1", "rule": "/permission/0", "path": "/permission/0/constraint/0/leftOperand"},
    ]
    assert grounds(policy(rule(), target="urn:d"), target="urn:other")[0]["path"] == "/target"


def test_what_a_rule_alone_has_used_up_is_told_as_such() -> None:
    found = policy(rule(leaf("odrl:count", "lteq", "10")), rule(leaf("odrl:count", "lteq", "20"), purpose("eq", "care")))
    count, at = "http://www.w3.org/ns/odrl/2/count", "/permission/0"
    spent = evaluate(found, request("research"), World(NOW, used={(at, count): 10, ("/permission/1", count): 3}))
    assert spent.code == "QUOTA_EXHAUSTED"
    assert spent.grounds()[0] | {"actual": ["11"]} == spent.grounds()[0]
    assert spent.reason()[0] == "Denied: count of uses 11 is more than 10 (offer urn:o1, /permission/0/constraint/0)."
    assert [miss.path for miss in spent.near_misses] == ["/permission/0/constraint/0"]
    assert spent.missing == ()


def test_logical_constraints_keep_their_children_in_json() -> None:
    found = policy(rule({"or": [purpose("eq", "a"), participant("eq", "did:web:x")]}))
    rules = evaluate(found, request("a"), world()).to_json()["rules"]
    assert [child["state"] for child in rules[0]["constraints"][0]["children"]] == ["satisfied", "unsatisfied"]


def test_times_are_told_in_utc() -> None:
    decision = evaluate(policy(rule()), request(), World(NOW.astimezone(timezone(timedelta(hours=8)))))
    assert decision.to_json()["at"] == "2026-06-15T12:00:00Z"


def test_a_large_policy_is_abridged_in_the_store_and_still_explained() -> None:
    found = policy(rule({"or": [time("eq", f"2026-01-01T00:{n // 60:02}:{n % 60:02}Z") for n in range(300)]}))
    document = evaluate(found, request(), world()).to_json()
    assert document["abridged"]
    assert document["rules"][0]["constraints"] == []
    assert len(document["reason"]) == 8


@pytest.mark.parametrize("text", ["x" * 100_000, "line\nbreak\x00", "\ud800", "\u202etxt.exe"])
def test_hostile_texts_stay_out_of_sentences_and_json(text: str) -> None:
    told = load(offer(rule(purpose("eq", text), assignee=text), **{"@id": text}), strict=False)
    asked = Request(text, params={"odrl:purpose": (text + "'",)}, action=text, target=text)
    both = (asked, Request(text, params={"odrl:purpose": (text + "'",)}))
    for found, one in product((told, policy(rule(purpose("neq", "a"))), policy(rule(purpose("eq", "a")))), both):
        decision = evaluate(found, one, world())
        for sentence in decision.reason("full"):
            assert sentence.isprintable()
            assert len(sentence) <= 500
        assert len(orjson.dumps(decision.to_json())) < 6_000


def test_equal_decisions_are_equal_and_others_are_not() -> None:
    one, same = (evaluate(BOUNDED, request("research"), world()) for _ in range(2))
    assert one == same
    assert one != evaluate(BOUNDED, request("marketing"), world())


def test_a_decision_at_the_edge_of_the_calendar_is_still_told() -> None:
    last = datetime.max.replace(tzinfo=timezone(timedelta(hours=-14)))
    first = datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))
    for at in (first, last):
        decision = evaluate(BOUNDED, request("research"), World(at))
        assert decision.to_json()["at"] == at.isoformat()
    assert evaluate(BOUNDED, request("research"), World(last)).code == "EXPIRED"


@given(offers, requests, worlds)
def test_every_decision_has_reasons_and_every_code_fits_its_result(document: dict[str, Any], asked: Request, now: World) -> None:
    decision = evaluate(load(document), asked, now)
    assert decision.permitted == (decision.code == "PERMITTED")
    assert (decision.result == "unknown") <= (decision.code == "CONSTRAINT_UNKNOWN")
    assert 1 <= len(decision.reason()) <= 8
    assert len(decision.rules) == len(document["permission"]) + len(document.get("prohibition", []))
    orjson.dumps(decision.to_json())


# --- duties


def test_duties_stand_in_the_decision_with_who_what_until_when_and_how() -> None:
    within = {"and": [time("lteq", "2026-06-30Z")]}
    duty = {"@id": "urn:duty", "action": ["odrl:delete", "odrl:archive"], "constraint": [within], "assignee": "did:web:debtor"}
    decision = evaluate(policy(rule(duty=[duty]), obligation=[{"action": "odrl:inform"}]), request(), world())
    document = orjson.loads(orjson.dumps(decision.to_json()))
    assert document["result"] == "permit-with"
    assert document["duties"] == [
        {
            "path": "/permission/0/duty/0",
            "id": "urn:duty",
            "when": "post",
            "action": ["http://www.w3.org/ns/odrl/2/delete", "http://www.w3.org/ns/odrl/2/archive"],
            "debtor": "did:web:debtor",
            "state": "pending",
            "due_by": "2026-07-01T00:00:00Z",
            "blocking": False,
            "how_to_fulfil": {"action": [ODRL + "delete", ODRL + "archive"], "by": "did:web:debtor"},
        },
        {
            "path": "/obligation/0",
            "id": "",
            "when": "post",
            "action": ["http://www.w3.org/ns/odrl/2/inform"],
            "debtor": "",
            "state": "pending",
            "due_by": None,
            "blocking": False,
            "how_to_fulfil": {"action": [ODRL + "inform"], "by": ""},
        },
    ]
    assert document["obligations_created"] == document["duties"]
    assert decision.reason() == ["Permitted until 2026-07-01T00:00:00Z (offer urn:o1, /permission/0)."]


def test_a_denial_shows_the_duties_of_the_permission_that_would_grant_and_what_they_block() -> None:
    other = purpose("eq", "b"), participant("eq", "did:web:x")
    found = policy(rule(*other, duty=[{"action": "odrl:delete"}]), rule(duty=[{"action": "odrl:compensate"}]))
    decision = evaluate(found, request("a"), world())
    assert [(each.path, each.blocking) for each in decision.duties] == [("/permission/1/duty/0", True)]
    document = decision.to_json()
    assert document["near_misses"] == [{"path": "/permission/1/duty/0", "change": "the duty to compensate is done"}]
    assert document["duties"][0]["blocking"] is True


def test_the_consequences_of_a_late_duty_are_owed_too() -> None:
    late = {"action": "odrl:delete", "constraint": [time("lt", "2026-01-01Z")], "odrl:consequence": [{"action": "odrl:compensate"}]}
    decision = evaluate(policy(rule(duty=[late])), request(), world())
    assert [(each.kind, each.state) for each in decision.duties] == [("duty", "overdue"), ("consequence", "pending")]


def test_duties_of_several_acts_are_owed_once() -> None:
    found = policy(rule(purpose("isAnyOf", ["a", "b"]), duty=[{"action": "odrl:delete"}]))
    assert [each.path for each in evaluate(found, request("a", "b"), world()).duties] == ["/permission/0/duty/0"]


def test_what_decides_nothing_is_not_kept_with_a_decision() -> None:
    found = load(offer(rule(time("lteq", "2026-12-31"), purpose("eq", "a"))))
    assert {finding.code.value for finding in found.findings} == {"ZONE_MISSING", "USE_IMPLIES_DISTRIBUTE"}
    assert evaluate(found, request("a"), world()).to_json()["findings"] == []


def test_a_decision_names_the_profiles_by_which_it_was_taken_and_the_semantics() -> None:
    options = Options(profiles=(Profile("x", "2026.1"),))
    document = evaluate(load(offer(rule()), options=options), request(), world(), options=options).to_json()
    assert (document["profile_versions"], document["semantics"]) == ({"x": "2026.1"}, "odrl22-v1")
    assert evaluate(policy(rule()), request(), world()).to_json()["profile_versions"] == {}


def test_a_decision_says_who_said_what_was_known_and_in_which_unit() -> None:
    money = leaf("odrl:payAmount", "lteq", {"@value": "5", "@type": "xsd:decimal"}) | {"odrl:unit": {"@id": "urn:eur"}}
    asked = (purpose("eq", "a"), leaf("odrl:spatial", "eq", "urn:cn"), time("lt", "2030-01-01Z"), leaf("odrl:count", "lteq", "5"))
    found = policy(rule(*asked, money, leaf("odrl:recipient", "eq", "urn:lab"), participant("eq", PARTIES[0])))
    world = World(NOW, {"odrl:spatial": ("urn:cn",)}, used={ODRL + "count": 1})
    document = evaluate(found, request("a", stage="catalog"), world).to_json()
    assert {name.removeprefix(ODRL): fact["source"] for name, fact in document["facts"].items()} == {
        "purpose": "declared",
        "spatial": "claims",
        "count": "meter",
        "urn:qiao:participant": "identity",
    }
    assert {name.removeprefix(ODRL) for name in document["missing"]} == {"recipient", "payAmount"}
    assert [each.get("unit") for each in document["rules"][0]["constraints"]] == [None] * 4 + ["urn:eur"] + [None] * 2


def test_a_decision_is_replayed_from_what_it_kept() -> None:
    """The facts that are stored, put into another world, decide the same."""
    found = policy(
        rule(purpose("isAnyOf", ["a", "b"]), leaf("odrl:spatial", "isPartOf", "urn:cn")), prohibitions=(rule(purpose("eq", "c")),)
    )
    for purposes, places in ((("a",), ("urn:cn",)), (("a", "c"), ("urn:cn",)), (("a",), ("urn:fr",)), (("b",), ())):
        first = evaluate(found, request(*purposes), World(NOW, {"odrl:spatial": places}))
        facts = {name: tuple(fact["value"]) for name, fact in first.to_json()["facts"].items()}
        again = evaluate(found, Request(PARTIES[0]), World(NOW, facts))
        assert (again.result, again.code, again.to_json()["rules"]) == (first.result, first.code, first.to_json()["rules"])


def test_every_word_of_the_recommended_decision_object_is_there() -> None:
    """odrl.md 2.3, but for what only a connector knows: the id, the digest of the policy, and the counters with what is reserved."""
    delete = {
        "action": "odrl:delete",
        "constraint": [leaf("odrl:event", "gt", {"@id": "odrl:policyUsage"}), leaf("odrl:delayPeriod", "lteq", "P30D")],
    }
    narrowed = {"action": {"rdf:value": {"@id": "odrl:use"}, "odrl:refinement": [leaf("odrl:spatial", "eq", "urn:cn")]}}
    pay = {"action": "odrl:compensate", "@id": "urn:pay", "odrl:compensatedParty": "did:web:seller", "target": "urn:d:1"}
    bounds = [{**purpose("eq", "a"), "@id": "urn:c"}, leaf("odrl:recipient", "eq", "urn:lab")]
    found = policy({**narrowed, "@id": "urn:r", "constraint": bounds, "duty": [delete, pay]}, prohibitions=(rule(purpose("eq", "b")),))
    document = evaluate(found, request("b", stage="catalog", target="urn:d"), world()).to_json()
    assert document.keys() >= {
        "at", "stage", "policy", "engine_version", "profile_versions", "result", "code", "request", "rules", "valid_until", "facts",
    }  # fmt: skip
    assert document["request"].keys() == {"party", "action", "target", "params"}
    one, other = document["rules"]
    assert one.keys() == {
        "id", "path", "kind", "matches", "active", "control", "attempt", "performance", "deontic", "constraints", "refinements",
    }  # fmt: skip
    assert one["matches"] == {"action": True, "target": True, "assignee": True, "refinements": None}
    assert (one["active"], one["control"], one["deontic"]) == (False, "deny", "NonSet")
    assert (other["active"], other["control"], other["deontic"]) == (True, "deny", "NonSet")
    assert one["constraints"][0] == {
        "id": "urn:c",
        "path": "/permission/0/constraint/0",
        "left": {"iri": PURPOSE, "label": "purpose"},
        "operator": "eq",
        "expected": ["a"],
        "actual": "b",
        "state": "unsatisfied",
        "why": "purpose 'b' is not 'a'",
    }
    assert one["constraints"][1]["why"] == "the recipient is not known, and it matters whether recipient is <urn:lab>"
    open_one = evaluate(found, request("a", stage="catalog", target="urn:d"), world()).to_json()
    assert (open_one["rules"][0]["control"], open_one["rules"][0]["deontic"]) == (None, None)
    assert open_one["residual"] == [
        {
            "path": "/permission/0/constraint/1",
            "left": {"iri": ODRL + "recipient", "label": "recipient"},
            "operator": "eq",
            "expected": ["urn:lab"],
        },
        {
            "path": "/permission/0/action/odrl:refinement/0",
            "left": {"iri": ODRL + "spatial", "label": "place"},
            "operator": "eq",
            "expected": ["urn:cn"],
        },
    ]
    assert open_one["duties"][1]["how_to_fulfil"] == {
        "action": [ODRL + "compensate"], "by": "", "target": ["urn:d:1"], "with": {"compensatedParty": "did:web:seller"},
    }  # fmt: skip


def test_what_a_use_obliges_to_is_told_with_the_deadline_that_it_would_have() -> None:
    after = [leaf("odrl:event", "gt", {"@id": "odrl:policyUsage"}), leaf("odrl:delayPeriod", "lteq", "P30D")]
    done, must = {"action": "odrl:inform"}, {"action": "odrl:obtainConsent"}
    found = policy(rule(duty=[{"action": "odrl:delete", "constraint": after}, must]), obligation=[done])
    consent = Event(NOW, "odrl:obtainConsent")
    decision = evaluate(found, request(), World(NOW, log=(consent,)))
    assert [(duty.path, str(duty.deadline)) for duty in decision.obligations_created] == [
        ("/permission/0/duty/0", "2026-07-15 12:00:00.000001+00:00"),
        ("/obligation/0", "None"),
    ]
    assert [duty.state for duty in decision.duties] == ["pending", "fulfilled", "pending"]
    told = decision.to_json()["obligations_created"]
    assert [(one["path"], one["due_by"]) for one in told] == [
        ("/permission/0/duty/0", "2026-07-15T12:00:00.000001Z"),
        ("/obligation/0", None),
    ]
    earlier = Event(NOW - timedelta(days=10), "odrl:use")  # the first use counts
    assert str(evaluate(found, request(), World(NOW, log=(earlier, consent))).obligations_created[0].deadline).startswith("2026-07-05")
    assert evaluate(found, request(), World(NOW, log=())).obligations_created == ()  # nothing is owed for what is denied


def test_an_obligation_stands_in_the_words_of_the_compliance_report() -> None:
    late = {"action": "odrl:inform", "constraint": [time("lteq", "2026-01-01Z")]}
    found = policy(rule(), obligation=[late])

    def told(world: World, stage: str = "transfer") -> tuple[object, ...]:
        one = evaluate(found, request(stage=stage), world).to_json()["rules"][1]
        return tuple(one[name] for name in ("attempt", "performance", "deontic", "control"))

    assert told(World(NOW, log=())) == ("NotAttempted", "Unperformed", "Violated", "deny")
    assert told(World(NOW, log=()), "catalog") == ("NotAttempted", "Unperformed", "Violated", "permit")
    in_time = Event(NOW - timedelta(days=300), "odrl:inform")
    assert told(World(NOW, log=(in_time,))) == ("Attempted", "Performed", "Fulfilled", "permit")
    assert told(World(NOW - timedelta(days=300), log=())) == ("NotAttempted", "Unknown", "NonSet", "permit")


def test_who_says_a_fact_and_what_shows_it_stands_beside_it() -> None:
    found = policy(rule(purpose("eq", "a"), leaf("odrl:spatial", "eq", "urn:cn")))
    origin = Origin("did:web:registry", NOW - timedelta(hours=1), "urn:credential:1")
    told = evaluate(found, request("a"), World(NOW, {"odrl:spatial": ("urn:cn",)}, origins={ODRL + "spatial": origin})).to_json()["facts"]
    assert told == {
        PURPOSE: {"value": ["a"], "source": "declared", "asserted_by": PARTIES[0]},
        ODRL + "spatial": {
            "value": ["urn:cn"],
            "source": "claims",
            "asserted_by": "did:web:registry",
            "as_of": "2026-06-15T11:00:00Z",
            "evidence_ref": "urn:credential:1",
        },
    }


def test_what_others_say_too_is_not_put_into_the_mouth_of_the_requester() -> None:
    found = policy(rule(purpose("eq", "a")))
    told = evaluate(found, request("a"), World(NOW, {"odrl:purpose": ("b",)})).to_json()["facts"]
    assert told == {PURPOSE: {"value": ["a", "b"], "source": "declared and claims"}}


def test_a_peer_is_told_how_to_do_what_stands_in_the_way() -> None:
    amount = leaf("odrl:payAmount", "eq", {"@value": "5", "@type": "xsd:decimal"}) | {"odrl:unit": {"@id": "urn:eur"}}
    pay = {"action": {"rdf:value": {"@id": "odrl:compensate"}, "odrl:refinement": [amount]}}
    decision = evaluate(policy(rule(duty=[pay], assignee=PARTIES[0])), request(), World(NOW, log=()))
    assert decision.reason("peer") == [
        "Denied: first it is a duty to compensate so that amount paid is 5 <urn:eur>, and nothing shows that this was done "
        "(offer urn:o1, /permission/0/duty/0)."
    ]
    (ground,) = decision.grounds("peer")
    assert (ground["code"], ground["path"]) == ("PREDUTY_OPEN", "/permission/0/duty/0")
    assert ground["how_to_fulfil"] == {
        "action": [ODRL + "compensate"],
        "by": PARTIES[0],
        "refinements": [
            {
                "path": "/permission/0/duty/0/action/odrl:refinement/0",
                "left": {"iri": ODRL + "payAmount", "label": "amount paid"},
                "operator": "eq",
                "expected": ["5"],
                "unit": "urn:eur",
            }
        ],
    }
