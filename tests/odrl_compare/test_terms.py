from random import Random
from typing import Any

import pytest
from hypothesis import given, settings

from connector.odrl import Request, World, differences, evaluate, load, same_terms
from connector.values import replace
from tests.odrl.cases import ODRL, leaf, offer, offers, policy, purpose, requests, rule, seeds, shuffled, time, worlds

BASE = policy(rule(purpose("isAnyOf", ["a", "b"]), time("lteq", "2026-12-31Z")), prohibitions=(rule(action="odrl:distribute"),))
many = settings(max_examples=120)


@pytest.mark.parametrize(
    "other",
    [
        offer(rule(time("lteq", "2026-12-31Z"), purpose("isAnyOf", ["b", "a", "a"])), prohibitions=(rule(action="odrl:distribute"),)),
        offer(
            rule({"and": [purpose("isAnyOf", ["a", "b"]), time("lteq", "2026-12-31Z")]}), prohibitions=(rule(action=ODRL + "distribute"),)
        ),
        offer(
            rule(purpose("isAnyOf", ["a", "b"]), time("lt", "2027-01-01T01:00:00+01:00")), prohibitions=(rule(action="odrl:distribute"),)
        ),
        offer(
            rule(leaf(ODRL + "purpose", "isAnyOf", [{"@value": "a"}, "b"]), time("lteq", {"@value": "2026-12-31Z", "@type": "xsd:date"})),
            prohibitions=(rule(action="odrl:distribute"), rule(action="odrl:distribute")),
        ),
        offer(
            rule(purpose("isAnyOf", ["a", "b"]), time("lteq", "2026-12-31Z"), **{"@id": "urn:r"}),
            prohibitions=(rule(action="odrl:distribute"),),
            **{
                "@id": "urn:a1",
                "@type": "Agreement",
                "target": "urn:d",
                "assigner": "did:web:p",
                "assignee": "did:web:c",
                "timestamp": "2026-01-01T00:00:00Z",
            },
        ),
    ],
)
def test_the_same_terms_in_other_words(other: dict[str, Any]) -> None:
    assert same_terms(BASE, load(other))
    assert differences(BASE, load(other)) == []


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (
            policy(rule(purpose("isAnyOf", ["a"]), time("lteq", "2026-12-31Z")), prohibitions=(rule(action="odrl:distribute"),)),
            [
                "the permission to use asks that purpose is one of 'a', and no longer that purpose is one of 'a', 'b'",
            ],
        ),
        (
            policy(rule(purpose("isAnyOf", ["a", "b"])), prohibitions=(rule(action="odrl:distribute"),)),
            ["the permission to use no longer asks that time is not after 2026-12-31Z"],
        ),
        (
            policy(rule(purpose("isAnyOf", ["a", "b"]), time("lteq", "2026-12-31Z"))),
            ["the prohibition to distribute is missing"],
        ),
        (
            policy(
                rule(purpose("isAnyOf", ["a", "b"]), time("lteq", "2026-12-31Z")),
                rule(purpose("eq", "c"), action="odrl:read", assignee="did:web:x"),
                prohibitions=(rule(action="odrl:distribute"),),
            ),
            ["the permission to read for did:web:x is added, which asks that purpose is 'c'"],
        ),
        (
            policy(
                rule(purpose("isNoneOf", ["a", "b"]), time("lteq", "2026-12-31Z")),
                prohibitions=(rule(action="odrl:distribute"),),
            ),
            [
                "the permission to use asks that purpose is none of 'a', 'b', and no longer that purpose is one of 'a', 'b'",
            ],
        ),
    ],
)
def test_other_terms_are_told_apart_in_plain_words(other: Any, told: list[str]) -> None:
    assert not same_terms(BASE, other)
    assert differences(BASE, other) == told


def test_a_rule_for_somebody_else_is_another_rule() -> None:
    assert not same_terms(policy(rule()), policy(rule(assignee="did:web:x")))
    assert same_terms(policy(rule()), policy(rule(), assignee="did:web:x"))


def test_what_is_not_understood_must_be_equal_as_it_stands() -> None:
    odd = offer(rule(leaf("edc:foo", "eq", "x"), duty=[{"action": "odrl:delete"}]), profile="urn:p", note={"a": 1, "b": 2})
    same = offer(rule(leaf("edc:foo", "eq", "x"), duty=[{"action": "odrl:delete"}]), profile=["urn:p"], note={"b": 2, "a": 1})
    assert same_terms(load(odd, strict=False), load(same, strict=False))
    for change in (
        {"profile": "urn:q"},
        {"note": {"a": 1, "b": 3}},
        {"permission": [rule(leaf("edc:foo", "eq", "y"), duty=[{"action": "odrl:delete"}])]},
        {"permission": [rule(leaf("edc:foo", "eq", "x"), duty=[{"action": "odrl:inform"}])]},
    ):
        a, b = load(odd, strict=False), load({**odd, **change}, strict=False)
        assert not same_terms(a, b)
        assert differences(a, b)


def count(operator: str, n: int) -> dict[str, Any]:
    return leaf("odrl:count", operator, {"@value": str(n), "@type": "xsd:integer"})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([count("lt", 6)], [count("lteq", 5)]),
        ([count("lteq", 5), count("lteq", 9)], [count("lteq", 5)]),
        ([{"or": [count("eq", 1), count("eq", 2)]}], [{"xone": [count("eq", 1), count("eq", 2)]}]),
        ([purpose("isAnyOf", ["a", "b"]), purpose("isNoneOf", ["b"])], [purpose("eq", "a")]),
        ([time("gteq", "2026-01-01Z"), time("lteq", "2026-12-31Z")], [time("gteq", "2026-01-01Z"), time("lt", "2027-01-01T00:00:00Z")]),
    ],
)
def test_the_same_terms_by_what_they_permit(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert same_terms(policy(rule(*one)), policy(rule(*other)))
    assert differences(policy(rule(*one)), policy(rule(*other))) == []


def test_a_permission_that_another_contains_is_no_difference() -> None:
    assert same_terms(policy(rule(), rule(purpose("eq", "a"))), policy(rule()))
    assert not same_terms(policy(rule(count("lteq", 5)), rule(purpose("eq", "a"))), policy(rule(count("lteq", 5))))


def test_terms_that_are_too_complex_are_the_same_in_the_same_words() -> None:
    names = ("purpose", "recipient", "industry", "product", "media", "language", "version", "spatial")
    parts = [{"or": [leaf(f"odrl:{names[n % 8]}", "eq", f"v{n}"), leaf(f"odrl:{names[(n + 3) % 8]}", "neq", f"w{n}")]} for n in range(60)]
    one, other = policy(rule(*parts)), policy(rule(*reversed(parts)))
    assert same_terms(one, other)
    assert not same_terms(one, policy(rule(*parts[1:])))
    assert differences(one, policy(rule(*parts[1:])))


def respelt(node: Any, chance: Random) -> Any:
    """The same policy with its words in other spellings and its single values in arrays."""
    if isinstance(node, list):
        return [respelt(entry, chance) for entry in node]
    if not isinstance(node, dict):
        return node
    found = {key: respelt(value, chance) for key, value in node.items()}
    if "action" in found:
        name = found["action"].removeprefix("odrl:").removeprefix(ODRL)
        found["action"] = chance.choice(["odrl:" + name, ODRL + name])
    if "operator" in found:
        found["operator"] = chance.choice(["", "odrl:", ODRL]) + found["operator"]
        found["leftOperand"] = found["leftOperand"].replace("odrl:", ODRL)
        if isinstance(found["rightOperand"], str):
            found["rightOperand"] = chance.choice([found["rightOperand"], [found["rightOperand"]], {"@value": found["rightOperand"]}])
    return found


@many
@given(offers, seeds)
def test_order_and_spelling_are_no_terms(document: dict[str, Any], chance: Random) -> None:
    one, other = load(document), load(respelt(shuffled(document, chance), chance))
    assert same_terms(one, other)
    assert differences(one, other) == []


@many
@given(offers, offers, offers)
def test_same_terms_is_an_equivalence(a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]) -> None:
    one, two, three = load(a), load(b), load(c)
    assert same_terms(one, load(a))
    assert same_terms(one, two) == same_terms(two, one)
    assert not (same_terms(one, two) and same_terms(two, three)) or same_terms(one, three)


@many
@given(offers, seeds)
def test_there_are_differences_if_and_only_if_the_terms_differ(document: dict[str, Any], chance: Random) -> None:
    changed = {**document, "permission": chance.choices(document["permission"], k=len(document["permission"]))}
    one, other = load(document), load(changed)
    assert (differences(one, other) == []) == same_terms(one, other)
    assert (differences(other, one) == []) == same_terms(one, other)


@many
@given(offers, seeds, requests, worlds)
def test_the_same_terms_decide_the_same(document: dict[str, Any], chance: Random, asked: Request, now: World) -> None:
    changed = {**document, "permission": chance.choices(document["permission"], k=len(document["permission"]))}
    one, other = load(document), load(changed)
    asked = replace(asked, stage="transfer")  # in a catalog, a rule that can never apply may still be one of which a fact is missing
    if same_terms(one, other):
        assert evaluate(one, asked, now).result == evaluate(other, asked, now).result
