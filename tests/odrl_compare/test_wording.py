from random import Random
from typing import Any

import pytest
from hypothesis import given, settings

from connector.odrl.model import Node
from connector.odrl_compare import wording
from connector.odrl_compare.wording import changes, meaning, rule_meaning, same_words, title
from tests.odrl.cases import leaf, participant, policy, purpose, rule, shuffled, time
from tests.odrl_compare.cases import an_offer, read, seeds


def test_nested_logic_has_one_meaning() -> None:
    a, b, c = purpose("eq", "a"), participant("eq", "did:web:b"), time("lt", "2026-01-01Z")
    nested = policy(rule({"or": [a, {"or": [b, {"or": [a]}]}]}, {"and": [c]})).permissions[0].constraints
    flat = policy(rule({"or": [b, a]}, c)).permissions[0].constraints
    assert [meaning(node) for node in nested] == [meaning(node) for node in flat]
    assert meaning(flat[0]) != meaning(policy(rule({"and": [b, a]})).permissions[0].constraints[0])


@settings(max_examples=150)
@given(seeds)
def test_the_order_of_rules_constraints_and_values_is_no_word(chance: Random):
    document = an_offer(chance)
    if "andSequence" not in str(document):
        assert same_words(read(document), read(shuffled(document, chance)))


@settings(max_examples=150)
@given(seeds)
def test_there_are_changes_if_and_only_if_the_words_differ(chance: Random):
    one, other = read(an_offer(chance)), read(an_offer(chance))
    assert same_words(one, other) == (changes(one, other) == [])
    assert changes(one, one) == []


def test_a_condition_that_takes_the_place_of_another_is_one_change():
    before, after = policy(rule(time("lteq", "2026-12-31Z"), purpose("eq", "a"))), policy(rule(time("lteq", "2027-12-31Z")))
    assert changes(before, after) == [
        "the permission to use asks that time is not after 2027-12-31Z, and no longer that time is not after 2026-12-31Z",
        "the permission to use no longer asks that purpose is 'a'",
    ]
    assert changes(after, before)[-1] == "the permission to use also asks that purpose is 'a'"


def pay(amount: str) -> dict[str, Any]:
    value = {"@value": amount, "@type": "xsd:decimal"}
    refined = {"odrl:value": {"@id": "odrl:compensate"}, "odrl:refinement": [leaf("odrl:payAmount", "eq", value)]}
    return {"action": refined, "odrl:compensatedParty": "did:web:provider"}


def test_duties_that_come_and_go_are_told_with_what_they_ask():
    until = time("lteq", "2029-12-31Z")
    plain, paid = policy(rule(until)), policy(rule(until, duty=[pay("5"), {"action": "odrl:delete"}]))
    asked = "the duty to compensate, which asks that amount paid is 5 and compensatedParty is did:web:provider"
    deleted = "the duty to delete"
    assert changes(plain, paid) == [f"the permission to use also asks for {each}" for each in (asked, deleted)]
    assert changes(paid, plain) == [
        f"the permission to use no longer asks for {asked}",
        "the permission to use no longer asks for the duty to delete",
    ]
    dear = policy(rule(until, duty=[pay("1000000"), {"action": "odrl:delete"}]))
    assert changes(paid, dear) == [
        "the duty to compensate of the permission to use asks that amount paid is 1000000, and no longer that amount paid is 5"
    ]


def test_a_rule_that_has_other_conditions_and_other_duties_says_both():
    before, after = policy(rule(purpose("eq", "a"))), policy(rule(purpose("eq", "b"), duty=[{"action": "odrl:delete"}]))
    assert changes(before, after) == [
        "the permission to use asks that purpose is 'b', and no longer that purpose is 'a'",
        "the permission to use also asks for the duty to delete",
    ]


def test_obligations_remedies_and_consequences_are_told_too():
    fine = {"action": "odrl:compensate"}
    before = policy(rule(), prohibition=[rule(action="odrl:sell")])
    after = policy(
        rule(),
        prohibition=[rule(action="odrl:sell", **{"odrl:remedy": [fine]})],
        obligation=[{"action": "odrl:delete", "constraint": [time("lteq", "2029-12-31Z")], "odrl:consequence": [fine]}],
    )
    assert changes(before, after) == [
        "the prohibition to sell also asks for the remedy to compensate",
        "the obligation to delete is added, which asks that time is not after 2029-12-31Z, and for the consequence to compensate",
    ]


def test_a_rule_is_named_by_what_it_does_and_for_whom():
    (permission,) = policy(rule(action="odrl:read", assignee=["did:web:x", "did:web:y"])).permissions
    assert title(permission) == "the permission to read for did:web:x, did:web:y"
    assert rule_meaning(permission) == rule_meaning(policy(rule(action="odrl:read", assignee=["did:web:y", "did:web:x"])).permissions[0])


def test_target_and_assignees_are_words_unless_they_are_left_out():
    here, there = policy(rule(), target="urn:a"), policy(rule(), target="urn:b")
    assert same_words(here, there)
    assert not same_words(here, there, bare=False)


def test_what_differs_in_many_conditions_is_told_without_holding_each_against_each(monkeypatch: pytest.MonkeyPatch):
    asked: list[Node] = []
    operand = wording._operand
    monkeypatch.setattr(wording, "_operand", lambda node: asked.append(node) or operand(node))
    one, other = (policy(rule(*[leaf("urn:qiao:participant", "neq", f"did:web:{name}{n}") for n in range(100)])) for name in "ab")
    assert len(changes(one, other)) == 200
    assert len(asked) <= 1000
