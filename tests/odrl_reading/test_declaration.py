from typing import Any

import pytest
from hypothesis import given

from connector.odrl import PURPOSE, Options, Request, World, declared, evaluate, load, purposes_of
from connector.odrl_reading.declaration import agreed
from connector.vocabulary import read_profiles
from tests.odrl.cases import NOW, PARTIES, leaf, offer, offers, participant, policy, purpose, request, rule, time


@pytest.mark.parametrize(
    ("document", "purposes"),
    [
        (offer(rule(purpose("eq", "research"))), ("research",)),
        (offer(rule(purpose("isAnyOf", ["b", "a"]))), ("a", "b")),
        (offer(rule(purpose("eq", {"@id": "https://w3id.org/dpv#X"}))), ("https://w3id.org/dpv#X",)),
        (offer(rule(purpose("isAnyOf", ["a", "b"]), purpose("isAnyOf", ["b", "c"]), time("lt", "2027-01-01Z"))), ("b",)),
        (offer(rule({"or": [purpose("eq", "a"), purpose("eq", "b")]})), ("a", "b")),
        (offer(rule({"and": [purpose("eq", "a"), participant("eq", "did:web:x")]})), ("a",)),
        (offer(rule(purpose("eq", "a")), rule(purpose("eq", "b"))), ("a", "b")),
        (offer(rule({"andSequence": {"@list": [purpose("eq", "a"), time("gt", "2026-01-01Z")]}})), ("a",)),
        (offer(rule({"xone": [purpose("eq", "a"), purpose("eq", "b")]})), ("a", "b")),
        (offer(rule()), ()),
        (offer(rule(purpose("eq", "a")), rule()), ()),
        (offer(rule({"or": [purpose("eq", "a"), participant("eq", "did:web:x")]})), ()),
        (offer(rule(purpose("neq", "a"))), ()),
        (offer(rule(purpose("isNoneOf", ["a", "b"]))), ()),
        (offer(rule(purpose("eq", "a"), purpose("eq", "b"))), ()),
        (offer(prohibitions=(rule(purpose("eq", "a")),)), ()),
        (offer(rule(purpose("eq", "a"), leaf("purpose", "eq", "b"))), ()),
    ],
)
def test_a_policy_declares_the_purposes_to_which_all_its_permissions_are_limited(
    document: dict[str, Any], purposes: tuple[str, ...]
) -> None:
    found = load(document, strict=False)
    assert purposes_of(found) == purposes
    assert declared(found) == ({PURPOSE: purposes} if purposes else {})


def test_what_a_consumer_asks_for_is_judged_by_the_offer_of_the_provider() -> None:
    theirs = policy(rule(purpose("isAnyOf", ["research", "quality"])))
    for purposes, result in ((["research"], "permit"), (["research", "quality"], "permit"), (["research", "marketing"], "deny")):
        asked = policy(rule(purpose("isAnyOf", purposes)))
        assert evaluate(theirs, Request(PARTIES[0], params=declared(asked)), World(NOW)).result == result
    everything = policy(rule())
    assert evaluate(theirs, Request(PARTIES[0], params=declared(everything)), World(NOW)).code == "CONSTRAINT_UNKNOWN"


@given(offers)
def test_no_permission_reaches_beyond_what_is_declared(document: dict[str, Any]) -> None:
    purposes = purposes_of(load(document))
    permissions = load({"@id": "urn:p", "permission": document["permission"]})
    if purposes:
        for party in PARTIES:
            other = Request(party, params={"odrl:purpose": ("none of these",)})
            assert evaluate(permissions, other, World(NOW)).result == "deny"


def test_what_only_the_contract_holds_is_so_once_it_is_agreed():
    profiles = Options(profiles=read_profiles())
    space = "https://w3id.org/catenax/2025/9/policy/"
    terms = [
        leaf("cx-policy:Liability", "eq", "cx.grossNegligence:1"),
        leaf("cx-policy:ContractReference", "isAllOf", ["C1", "C2"]),
        leaf("cx-policy:AffiliatesRegion", "isAnyOf", ["cx.region.europe:1", "cx.region.asia:1"]),
        leaf("cx-policy:WarrantyDurationMonths", "eq", {"@value": "6", "@type": "xsd:integer"}),
    ]
    agreement = load(offer(rule({"and": terms}, leaf("odrl:purpose", "eq", "research"))), options=profiles)
    facts = agreed(agreement)
    assert facts == {
        space + "Liability": ("cx.grossNegligence:1",),
        space + "ContractReference": ("C1", "C2"),
        space + "AffiliatesRegion": ("cx.region.europe:1", "cx.region.asia:1"),
        space + "WarrantyDurationMonths": ("6",),
    }
    asked = request("research")
    assert evaluate(agreement, asked, World(NOW), options=profiles).result == "deny"
    assert evaluate(agreement, asked, World(NOW, facts), options=profiles).result == "permit"


def test_what_is_measured_or_declared_is_not_agreed_and_a_policy_with_errors_agrees_to_nothing():
    assert agreed(load(offer(rule(leaf("odrl:purpose", "eq", "research"), leaf("odrl:count", "lteq", "5"))))) == {}
    assert agreed(load(offer(rule(leaf("https://strange.example/moon", "eq", "full"))), strict=False)) == {}
