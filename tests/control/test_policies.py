import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.control import policies as module
from connector.control.policies import Policies, Verdict
from connector.errors import PolicyError
from tests.pair import OPEN, only_for, purpose_policy, until_policy

BIO, D = "did:web:bio.example", "urn:d"
NOW = 1_800_000_000.0
UNKNOWN: dict[str, Any] = {
    "@type": "Offer",
    "permission": [{"action": "use", "constraint": [{"leftOperand": "urn:mood", "operator": "eq", "rightOperand": "good"}]}],
}


def instant(seconds_from_now: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW + seconds_from_now))


def either(*policies: dict[str, Any]) -> dict[str, Any]:
    """One offer with the permissions of all."""
    return {"@type": "Offer", "permission": [rule for policy in policies for rule in policy["permission"]]}


def decide(policy: dict[str, Any], *purposes: str, now: float = NOW, party: str = BIO) -> Verdict:
    return Policies().decide(policy, party=party, target=D, purposes=purposes, claims={}, now=now, stage="negotiation")


def shows(policy: dict[str, Any], now: float = NOW, party: str = BIO) -> tuple[bool, float | None]:
    return Policies().shows(policy, party=party, target=D, claims={}, now=now)


def test_a_permission_without_end_holds_for_good():
    verdict = decide(OPEN)
    assert (verdict.permitted, verdict.result, verdict.ends) == (True, "permit", None)


def test_a_purpose_is_permitted_refused_with_a_reason_or_missing():
    policy = purpose_policy("research", "quality")
    assert decide(policy, "research").permitted
    refused = decide(policy, "marketing")
    assert (refused.permitted, refused.result) == (False, "deny")
    assert "marketing" in refused.reasons[0]
    assert "research" in refused.reasons[0], "who is refused can read what would have been taken"
    assert not decide(policy).permitted, "a purpose that is not said is not given"
    assert not decide(policy, "research", "marketing").permitted, "every purpose that is asked for has to be permitted"


def test_a_verdict_keeps_the_decision_and_the_facts_it_was_taken_on():
    document = decide(purpose_policy("research"), "marketing").document
    assert document["result"] == "deny"
    assert document["request"]["party"] == BIO
    assert any(facts == ["marketing"] for facts in document["facts"].values())
    assert document["rules"], "a reason for every rule"


def test_a_permission_ends_when_the_last_of_its_rules_does():
    assert decide(until_policy(instant(60))).ends == NOW + 60
    two = either(until_policy(instant(60)), until_policy(instant(120)))
    assert decide(two).ends == NOW + 120, "an instant at which another rule goes on is passed over"
    assert decide(either(OPEN, until_policy(instant(60)))).ends is None
    over = decide(two, now=NOW + 120)
    assert (over.permitted, over.ends) == (False, None)


def test_the_end_is_found_too_where_a_decision_looks_ahead_to_a_part_of_the_instants_only():
    """The engine bounds its own work by constraints and purposes; it then names an instant at which it has to be asked again."""
    purposes = [f"p{number}" for number in range(10)]
    limits = purpose_policy(*purposes)["permission"][0]["constraint"]
    bounds = [until_policy(instant(seconds))["permission"][0]["constraint"] for seconds in range(1, 61)]
    rules = [{"action": "use", "constraint": limits + bound} for bound in bounds]
    verdict = decide({"@type": "Offer", "permission": rules}, *purposes)
    assert verdict.ends == NOW + 60


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=40, unique=True))
def test_the_end_of_a_permission_is_safe(bounds: list[int]):
    """It is never later than the true end; and it is the true end unless there are very many steps."""
    ends = decide(either(*(until_policy(instant(bound)) for bound in bounds))).ends
    assert ends is not None
    assert ends <= NOW + max(bounds)
    assert ends == NOW + max(bounds) or len(bounds) > module.INSTANTS_MAX


def test_what_is_not_understood_is_denied_with_pointer_and_remedy():
    verdict = decide(UNKNOWN)
    assert (verdict.permitted, verdict.result, verdict.code) == (False, "deny", "POLICY_NOT_UNDERSTOOD")
    assert verdict.reasons[0].startswith("/permission/0/constraint/0")
    assert "urn:mood" in verdict.reasons[0]
    assert verdict.document["findings"] == list(verdict.reasons)
    assert shows(UNKNOWN) == (False, None), "and shown to nobody"


def test_parsing_says_what_is_wrong_where_and_how_to_mend_it():
    error = Policies().parse(UNKNOWN)
    assert isinstance(error, PolicyError)
    finding = error.findings[0]
    assert finding.path.startswith("/permission/0/constraint/0/leftOperand")
    assert finding.fix
    assert finding.fix in error.reasons[0]


@pytest.mark.parametrize(
    ("policy", "party", "expected"),
    [
        (OPEN, BIO, True),
        (only_for(BIO), BIO, True),
        (only_for("did:web:other.example"), BIO, False),
        (purpose_policy("research"), BIO, True),  # a purpose is said in the request
        (until_policy(instant(-1)), BIO, False),
        ({"@type": "Offer", "permission": []}, BIO, False),
        ({}, BIO, False),
    ],
)
def test_a_catalog_shows_everything_but_a_definite_no(policy: dict[str, Any], party: str, expected: bool):
    assert shows(policy, party=party)[0] is expected


def test_what_is_shown_for_a_time_says_until_when():
    assert shows(until_policy(instant(60))) == (True, NOW + 60)
    assert shows(OPEN) == (True, None)


def test_the_purposes_of_terms_are_what_every_permission_is_limited_to():
    ours = Policies()
    assert ours.purposes(purpose_policy("quality", "research")) == ("quality", "research")
    assert ours.purposes(OPEN) == ()
    assert ours.purposes(either(OPEN, purpose_policy("research"))) == (), "a permission for anything declares nothing"
    assert ours.purposes(UNKNOWN) == ()


def test_terms_are_the_same_whoever_is_named_and_however_they_are_written():
    ours = Policies()
    offered = purpose_policy("a", "b") | {"@id": "urn:offer"}
    agreed = purpose_policy("b", "a") | {"@id": "urn:other", "@type": "Agreement", "target": D, "assigner": "did:x", "assignee": BIO}
    agreed["timestamp"] = "2026-11-24T12:00:00Z"
    assert ours.same(offered, agreed)
    assert ours.differences(offered, agreed) == ()
    assert not ours.same(offered, purpose_policy("a"))
    assert ours.differences(offered, purpose_policy("a"))
    assert not ours.same(UNKNOWN, UNKNOWN), "what is not understood is not the same as anything"
    assert "urn:mood" in ours.differences(offered, UNKNOWN)[0]
    assert "urn:mood" in ours.differences(UNKNOWN, offered)[0]


def test_a_policy_is_parsed_once_and_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "REMEMBERED_MAX", 3)
    ours = Policies()
    first = ours.parse(purpose_policy("0"))
    assert ours.parse(dict(reversed(purpose_policy("0").items()))) is first, "in whatever order its members stand"
    for number in range(1, 4):
        ours.parse(purpose_policy(str(number)))
        ours.parse(purpose_policy("0"))
    assert ours.parse(purpose_policy("0")) is first, "what is used stays"
    for number in range(4, 7):
        ours.parse(purpose_policy(str(number)))
    assert ours.parse(purpose_policy("0")) is not first
