from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from connector.odrl import Options, Request, Stage, World, load
from connector.odrl.model import Constraint, Lapse, Logic, Members, Scope, Span, Window, constraints_of, fact_key, leaves
from tests.odrl.cases import NOW, ODRL, leaf, offer, participant, policy, purpose, rule, time


def test_a_request_that_names_no_stage_is_enforced() -> None:
    assert Request("did:web:a.example").stage == Stage.TRANSFER


def test_a_policy_cannot_be_changed() -> None:
    found = policy(rule(purpose("eq", "research")))
    with pytest.raises(FrozenInstanceError):
        found.refused = False  # type: ignore[misc]


def test_two_readings_of_one_document_are_equal_and_what_they_computed_since_does_not_matter() -> None:
    one, other = (policy(rule(purpose("eq", "research"))) for _ in range(2))
    one.memo["x"] = 1
    assert one == other
    assert one != policy(rule(purpose("eq", "quality")))


def test_requests_and_worlds_have_nothing_to_say_by_default() -> None:
    assert Request("did:web:a.example").params == {}
    world = World(NOW)
    assert [getattr(world, name) for name in World.__struct_fields__ if name not in ("now", "id")] == [{}, {}, {}, None, {}, {}, {}]


def test_the_default_options_are_those_of_odrl_md() -> None:
    assert (Options().conflict, Options().duty_mode, Options().recurrence_anchor) == ("prohibit", "strict", "agreement")


def test_numbers_in_different_units_are_different_facts() -> None:
    five = leaf("odrl:payAmount", "eq", "5")
    plain, money = policy(rule(five, {**five, "odrl:unit": "urn:eur"})).permissions[0].constraints
    assert isinstance(plain, Constraint)
    assert isinstance(money, Constraint)
    assert (plain.fact, money.fact) == (ODRL + "payAmount", fact_key(ODRL + "payAmount", "urn:eur"))
    assert fact_key("a", "") == "a"


@pytest.mark.parametrize(
    ("written", "test"),
    [
        (purpose("isNoneOf", ["a"]), Members(frozenset("a"), "isNoneOf")),
        (leaf("odrl:count", "lteq", "5"), Window(None, (5, 1))),
        (leaf("odrl:count", "lt", "5"), Window(None, (5, 0))),
        (leaf("odrl:count", "gt", "5"), Window((5, 1), None)),
        (leaf("odrl:count", "neq", "5"), Window((5, 0), (5, 1), negated=True)),
        (leaf("odrl:elapsedTime", "lt", "P1M"), Lapse(None, Span(1, 0), end_in=False)),
        (leaf("odrl:elapsedTime", "gteq", "P1D"), Lapse(Span(0, 86_400_000_000), None)),
    ],
)
def test_what_a_constraint_means_is_data(written: dict[str, Any], test: object) -> None:
    (found,) = policy(rule(written)).permissions[0].constraints
    assert isinstance(found, Constraint)
    assert found.test == test


@pytest.mark.parametrize(("operator", "negated"), [("eq", False), ("neq", True), ("isAnyOf", False), ("isNoneOf", True), ("isA", False)])
def test_a_choice_knows_whether_it_leaves_out(operator: str, negated: bool) -> None:
    assert Members(frozenset("a"), operator).negated is negated


def paths(found: Iterator[Any]) -> list[str]:
    return [each.path for each in found]


def test_the_leaves_of_constraints_are_found_however_deep_they_stand() -> None:
    both = {"and": [purpose("eq", "b"), {"xone": [time("lt", "2026-01-01Z")]}]}
    (node,) = policy(rule({"or": [purpose("eq", "a"), both]})).permissions[0].constraints
    assert isinstance(node, Logic)
    at = "/permission/0/constraint/0/or"
    assert paths(leaves([node])) == [f"{at}/0", f"{at}/1/and/0", f"{at}/1/and/1/xone/0"]


def test_every_constraint_of_a_policy_is_found_those_of_refinements_and_duties_too() -> None:
    duty = {"action": "odrl:delete", "constraint": [leaf("odrl:delayPeriod", "lteq", "P1D")]}
    action = {"rdf:value": {"@id": "odrl:use"}, "odrl:refinement": [purpose("eq", "a")]}
    assignee = {"@id": "urn:g", "odrl:refinement": [participant("eq", "did:web:a")]}
    found = policy({"action": action, "assignee": assignee, "duty": [{**duty, "odrl:consequence": [duty]}]}, obligation=[duty])
    assert set(paths(constraints_of(found))) == {
        "/permission/0/action/odrl:refinement/0", "/permission/0/assignee/odrl:refinement/0", "/permission/0/duty/0/constraint/0",
        "/permission/0/duty/0/odrl:consequence/0/constraint/0", "/obligation/0/constraint/0",
    }  # fmt: skip
    refinements = ["/permission/0/action/odrl:refinement/0", "/permission/0/assignee/odrl:refinement/0"]
    assert paths(iter(found.permissions[0].refinements)) == refinements


def test_a_scope_holds_a_thing_or_the_members_of_a_collection() -> None:
    world = World(NOW, member_of={"urn:a": frozenset({"urn:all"})})
    assert [Scope("urn:all").holds(thing, world) for thing in ("urn:all", "urn:a", "urn:b", None)] == [True, True, False, False]


def test_a_policy_says_what_it_is_about() -> None:
    limits = purpose("eq", "a"), leaf("odrl:count", "lteq", "5"), time("lt", "2027-01-01Z")
    found = load(offer(rule(*limits), obligation=[{"action": "odrl:delete"}]))
    assert found.operands == {ODRL + "purpose", ODRL + "count"}
    assert (found.usage, found.measures) == ((ODRL + "purpose",), ((ODRL + "count", ""),))
    assert [each.kind for each in found.rules] == ["permission", "obligation"]
    assert found.dutiful
    assert not policy(rule()).dutiful
    assert policy(rule(duty=[{"action": "odrl:delete"}])).dutiful
    assert not found.targeted


@pytest.mark.parametrize(
    ("name", "word"), [("duty_mode", "Strict"), ("conflict", "perm"), ("recurrence_anchor", ""), ("duration_mode", "solid")]
)
def test_an_option_of_an_unknown_word_is_none(name: str, word: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is '{word}'; write one of "):
        Options(**{name: word})
