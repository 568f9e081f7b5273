from random import Random

from hypothesis import given, settings

from connector.odrl_compare.wording import changes, meaning, rule_meaning, same_words, title
from tests.odrl.cases import participant, policy, purpose, rule, shuffled, time
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


def test_a_rule_is_named_by_what_it_does_and_for_whom():
    (permission,) = policy(rule(action="odrl:read", assignee=["did:web:x", "did:web:y"])).permissions
    assert title(permission) == "the permission to read for did:web:x, did:web:y"
    assert rule_meaning(permission) == rule_meaning(policy(rule(action="odrl:read", assignee=["did:web:y", "did:web:x"])).permissions[0])


def test_target_and_assignees_are_words_unless_they_are_left_out():
    here, there = policy(rule(), target="urn:a"), policy(rule(), target="urn:b")
    assert same_words(here, there)
    assert not same_words(here, there, bare=False)
