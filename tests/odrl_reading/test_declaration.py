from typing import Any

import pytest
from hypothesis import given

from connector.odrl import PURPOSE, Request, World, declared, evaluate, load, purposes_of
from tests.odrl.cases import NOW, PARTIES, leaf, offer, offers, participant, policy, purpose, rule, time


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
