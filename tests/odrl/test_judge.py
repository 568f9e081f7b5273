from typing import Any

import pytest

from connector.odrl import PURPOSE, Options, Request, World, load
from connector.odrl.duties import duty_actions
from connector.odrl.judge import (
    CLASHES_MAX,
    Case,
    addresses,
    clashes,
    covers,
    deciding_atom,
    facts_of,
    granted,
    granting,
    matching,
    on_target,
    reach,
    waits,
    weigh,
)
from connector.odrl.model import FALSE, TRUE, UNKNOWN, Policy
from connector.odrl.operands import COUNT
from connector.odrl.vocabulary import ODRL
from connector.values import replace
from tests.odrl.cases import NOW, PARTIES, leaf, participant, policy, purpose, request, rule, time, world

HERE = World(NOW)
GROUPED = World(NOW, member_of={PARTIES[0]: frozenset({"urn:partners"}), "urn:d": frozenset({"urn:all"})})


def case(found: Policy, asked: Request, *atoms: dict[str, Any], world: World = HERE, **options: Any) -> Case:
    permissions, prohibitions = (matching(found, rules, asked, world) for rules in (found.permissions, found.prohibitions))
    return Case(found, asked, world, Options(**options), 7, atoms or ({},), permissions, prohibitions)


def paths(found: Policy, rules: str, asked: Request, world: World = HERE) -> list[str]:
    return [spoken.rule.path for spoken in matching(found, getattr(found, rules), asked, world)]


# --- which rules speak


def test_a_rule_about_an_action_covers_those_below_it_and_not_those_above() -> None:
    use, read, sell = policy(rule()), policy(rule(action="odrl:read")), policy(rule(action="odrl:sell"))
    for found, action, about in (
        (use, "odrl:read", True), (use, "use", True), (use, "odrl:display", True), (read, "use", False), (use, "odrl:sell", False),
        (sell, "odrl:transfer", False), (use, "urn:other", False),
    ):  # fmt: skip
        assert covers(found.permissions[0], reach(found, "permission", action)) is about


def test_a_deprecated_action_is_asked_for_by_either_name() -> None:
    found = policy(rule(action="odrl:modify"))
    assert covers(found.permissions[0], reach(found, "permission", "odrl:write"))


@pytest.mark.parametrize(
    ("target", "asked", "about"), [(None, "urn:d", True), ("urn:d", "urn:d", True), ("urn:d", "urn:e", False), ("urn:d", None, False)]
)
def test_a_policy_is_about_its_target(target: str | None, asked: str | None, about: bool) -> None:
    found = policy(rule(), **({"target": target} if target else {}))
    assert on_target(found, found.permissions[0], Request(PARTIES[0], target=asked), HERE) is about


def test_the_target_of_a_rule_goes_before_that_of_the_policy_and_a_collection_holds_its_members() -> None:
    rules = [{"action": "use", "target": "urn:e"}, {"action": "use", "target": "urn:all"}, {"action": "use"}]
    found = load({"@context": "http://www.w3.org/ns/odrl.jsonld", "uid": "urn:s", "target": "urn:d", "permission": rules})
    assert paths(found, "permissions", request(target="urn:e")) == ["/permission/0"]
    assert paths(found, "permissions", request(target="urn:d")) == ["/permission/2"]
    assert paths(found, "permissions", request(target="urn:d"), GROUPED) == ["/permission/1", "/permission/2"]
    assert paths(found, "permissions", request(), GROUPED) == []


def test_the_assignees_of_a_rule_go_before_those_of_the_policy_and_a_group_stands_for_its_members() -> None:
    found = policy(rule(), rule(assignee=PARTIES[1]), rule(assignee="urn:partners"), assignee=PARTIES[0])
    mine, theirs, group = found.permissions
    assert [addresses(found, mine, party, HERE) for party in PARTIES[:2]] == [True, False]
    assert [addresses(found, theirs, party, HERE) for party in PARTIES[:2]] == [False, True]
    assert [addresses(found, group, PARTIES[0], world) for world in (HERE, GROUPED)] == [False, True]
    assert addresses(policy(rule(), assignee="urn:partners"), mine, PARTIES[0], GROUPED)


def test_only_rules_about_the_action_the_party_and_the_target_match() -> None:
    found = policy(rule(), rule(action="odrl:distribute"), rule(assignee=PARTIES[1]))
    assert paths(found, "permissions", request()) == ["/permission/0"]
    assert paths(found, "permissions", request(action="odrl:distribute")) == ["/permission/0", "/permission/1"]
    assert matching(found, (), request(), HERE) == []


def test_what_is_somebodys_duty_is_prohibited_by_its_own_name_only() -> None:
    found = policy(
        rule(duty=[{"action": "odrl:delete"}]), prohibitions=(rule(), rule(action="odrl:delete"), rule(action="odrl:distribute"))
    )
    assert duty_actions(found) == {ODRL + "delete"}
    assert paths(found, "prohibitions", request(action="odrl:delete")) == ["/prohibition/1"]
    assert paths(found, "prohibitions", request()) == ["/prohibition/0"]
    assert paths(found, "permissions", request(action="odrl:delete")) == ["/permission/0"]


# --- refinements: of each part one alternative


def refined(**parts: Any) -> Policy:
    return load({"@context": "http://www.w3.org/ns/odrl.jsonld", "uid": "urn:s", "permission": [{"action": "use", **parts}]})


def narrowed(name: str, *terms: str) -> dict[str, Any]:
    return {"uid": name, "refinement": [leaf("purpose", "isAnyOf", list(terms))]}


def judged(found: Policy, asked: Request, facts: dict[str, Any], world: World = HERE) -> int:
    (spoken,) = matching(found, found.permissions, asked, world)
    return spoken.judge(facts)


def test_a_refined_action_is_judged_by_what_the_act_declares() -> None:
    found = refined(action={"rdf:value": {"@id": "odrl:use"}, "refinement": [leaf("purpose", "eq", "a")]})
    assert [judged(found, request(), facts) for facts in ({PURPOSE: "a"}, {PURPOSE: "b"}, {})] == [TRUE, FALSE, UNKNOWN]


def test_of_several_actions_one_whose_refinements_hold_is_enough() -> None:
    ways = [{"rdf:value": {"@id": f"odrl:{name}"}, "refinement": [leaf("purpose", "eq", of)]} for name, of in (("use", "a"), ("read", "b"))]
    found = refined(action=ways)
    assert [judged(found, request(action="odrl:read"), {PURPOSE: of}) for of in "abc"] == [TRUE, TRUE, FALSE]
    assert [judged(found, request(), {PURPOSE: of}) for of in "abc"] == [TRUE, FALSE, FALSE]
    assert judged(refined(action=[*ways, "use"]), request(), {PURPOSE: "c"}) == TRUE


def test_members_of_a_collection_are_chosen_by_its_refinements() -> None:
    assets = refined(target={"@type": "AssetCollection", **narrowed("urn:all", "a")})
    asked = request(target="urn:d")
    assert [judged(assets, asked, {PURPOSE: of}, GROUPED) for of in "ab"] == [TRUE, FALSE]
    assert matching(assets, assets.permissions, asked, HERE) == []
    parties = refined(assignee={"@type": "PartyCollection", "source": "urn:partners", "refinement": [leaf("purpose", "eq", "a")]})
    assert [judged(parties, request(), {PURPOSE: of}, GROUPED) for of in "ab"] == [TRUE, FALSE]


def test_refinements_and_constraints_all_count() -> None:
    found = refined(target=narrowed("urn:d", "a", "b"), assignee=narrowed(PARTIES[0], "a", "c"), constraint=[leaf("purpose", "neq", "x")])
    assert [judged(found, request(target="urn:d"), {PURPOSE: of}) for of in "abc"] == [TRUE, FALSE, FALSE]


# --- the tables


RULES = {FALSE: rule(purpose("neq", "a")), UNKNOWN: rule(leaf("odrl:spatial", "eq", "x")), TRUE: rule()}


@pytest.mark.parametrize(
    ("permission", "prohibition", "open_result", "enforced"),
    [
        (TRUE, None, TRUE, TRUE),
        (UNKNOWN, None, UNKNOWN, FALSE),
        (FALSE, None, FALSE, FALSE),
        (TRUE, FALSE, TRUE, TRUE),
        (TRUE, UNKNOWN, UNKNOWN, FALSE),
        (TRUE, TRUE, FALSE, FALSE),
        (UNKNOWN, FALSE, UNKNOWN, FALSE),
        (UNKNOWN, UNKNOWN, UNKNOWN, FALSE),
        (UNKNOWN, TRUE, FALSE, FALSE),
        (FALSE, FALSE, FALSE, FALSE),
        (FALSE, UNKNOWN, FALSE, FALSE),
        (FALSE, TRUE, FALSE, FALSE),
    ],
)
def test_the_table_of_permissions_and_prohibitions(permission: int, prohibition: int | None, open_result: int, enforced: int) -> None:
    found = policy(RULES[permission], prohibitions=() if prohibition is None else (RULES[prohibition],))
    at = case(found, request(), {PURPOSE: "a"})
    assert weigh(at, at.permissions, at.prohibitions, at.atoms, enforcing=False) == open_result
    assert weigh(at, at.permissions, at.prohibitions, at.atoms, enforcing=True) == enforced


@pytest.mark.parametrize("prohibition", [FALSE, UNKNOWN, TRUE])
@pytest.mark.parametrize("permission", [FALSE, UNKNOWN, TRUE])
def test_where_permissions_win_a_prohibition_changes_nothing(permission: int, prohibition: int) -> None:
    found = policy(RULES[permission], prohibitions=(RULES[prohibition],))
    at = case(found, request(), {PURPOSE: "a"}, conflict="permit")
    assert weigh(at, at.permissions, at.prohibitions, at.atoms, enforcing=False) == permission
    own = case(policy(RULES[permission], prohibitions=(RULES[prohibition],), **{"odrl:conflict": "odrl:perm"}), request(), {PURPOSE: "a"})
    assert weigh(own, own.permissions, own.prohibitions, own.atoms, enforcing=False) == permission


def test_what_the_policy_says_of_conflicts_goes_before_the_options() -> None:
    found = policy(rule(), **{"odrl:conflict": "odrl:prohibit"})
    assert case(found, request(), conflict="permit").conflict == "prohibit"
    assert case(policy(rule()), request(), conflict="permit").conflict == "permit"


def test_the_worst_atom_decides_and_is_told() -> None:
    at = case(policy(rule(purpose("eq", "a"))), request(stage="catalog"))
    for atoms, state, worst in (
        (({PURPOSE: "a"}, {}), UNKNOWN, {}), (({}, {PURPOSE: "b"}), FALSE, {PURPOSE: "b"}), (({PURPOSE: "a"},), TRUE, {PURPOSE: "a"}),
    ):  # fmt: skip
        assert weigh(at, at.permissions, (), atoms, enforcing=False) == state
        assert deciding_atom(at._replace(atoms=atoms)) == worst


def test_what_a_rule_alone_has_used_up_counts_for_it_alone() -> None:
    limit = leaf("odrl:count", "lteq", {"@value": "3", "@type": "xsd:integer"})
    found = policy(rule(limit), rule(limit, action="odrl:read"))
    world = World(NOW, used={("/permission/0", COUNT): 3, ("/permission/1", COUNT): 2})
    at = case(found, request(action="odrl:read"), world=world)
    assert [facts_of(at, one.rule, {})[COUNT] for one in at.permissions] == [4, 3]
    assert [granted(at, one, {}) for one in at.permissions] == [FALSE, TRUE]
    assert facts_of(case(policy(rule()), request(), world=world), found.permissions[0], {}) == {}


def test_the_permission_that_grants_and_leaves_least_to_do_is_the_one() -> None:
    found = policy(rule(purpose("eq", "b")), rule(duty=[{"action": "odrl:inform"}]), rule())
    at = case(found, request(), {PURPOSE: "a"})
    assert [granting(at, at.atoms[0])[0].path] == ["/permission/2"]
    blocked = case(policy(rule(purpose("eq", "b")), rule(duty=[{"action": "odrl:compensate"}])), request(), {PURPOSE: "a"})
    assert [each.path for each in granting(blocked, blocked.atoms[0])] == ["/permission/1"]
    assert granting(case(policy(rule(purpose("eq", "b"))), request(), {PURPOSE: "a"}), {PURPOSE: "a"}) == []


def test_a_rule_waits_for_the_transfer_only_if_nothing_else_is_missing() -> None:
    limit, spatial = leaf("odrl:count", "lteq", {"@value": "3", "@type": "xsd:integer"}), leaf("odrl:spatial", "eq", "x")
    at = case(
        policy(rule(limit), rule(limit, spatial), rule(), rule(limit, purpose("eq", "b"))), request(stage="negotiation"), {PURPOSE: "a"}
    )
    assert [waits(at, one, at.atoms[0]) for one in at.permissions] == [True, False, False, False]
    later = case(policy(rule(limit)), request(), {})
    assert not waits(later, later.permissions[0], {})


# --- policies that contradict themselves


@pytest.mark.parametrize(
    ("permission", "prohibition", "may"),
    [
        (rule(), rule(), True),
        (rule(), rule(action="odrl:distribute"), True),
        (rule(action="odrl:read"), rule(), True),
        (rule(action="odrl:read"), rule(action="odrl:distribute"), False),
        (rule(action="odrl:sell"), rule(), False),
        (rule(assignee=PARTIES[0]), rule(assignee=PARTIES[1]), False),
        (rule(assignee=PARTIES[0]), rule(assignee=list(PARTIES)), True),
        (rule(assignee=PARTIES[0]), rule(assignee="urn:partners"), True),
        (rule(assignee=PARTIES[1]), rule(assignee="urn:partners"), False),
        (rule(purpose("eq", "a")), rule(purpose("eq", "b")), False),
        (rule(purpose("isAnyOf", ["a", "b"])), rule(purpose("isAnyOf", ["b", "c"])), True),
        (rule(purpose("isAnyOf", ["a", "b"])), rule(purpose("isNoneOf", ["a", "b", "c"])), False),
        (rule(purpose("neq", "a")), rule(purpose("eq", "a")), False),
        (rule(purpose("neq", "a")), rule(purpose("neq", "b")), True),
        (rule(purpose("isA", "a")), rule(purpose("eq", "b")), True),  # it may lie below it
        (rule(participant("eq", PARTIES[0])), rule(participant("eq", PARTIES[1])), True),  # a party has several names
        (rule(time("lt", "2026-01-01Z")), rule(time("gteq", "2026-01-01Z")), False),
        (rule(time("lteq", "2026-01-01Z")), rule(time("gteq", "2026-01-01Z")), True),
        (rule({"and": [time("lt", "2026-01-01Z"), purpose("eq", "a")]}), rule(time("gteq", "2027-01-01Z")), False),
        (rule({"or": [time("lt", "2026-01-01Z")]}), rule(time("gteq", "2027-01-01Z")), False),
        (rule({"or": [time("lt", "2026-01-01Z"), time("lt", "2025-01-01Z")]}), rule(time("gteq", "2027-01-01Z")), True),  # no choice is
        (rule(time("neq", "2026-01-01Z")), rule(time("eq", "2026-01-01Z")), True),
    ],
)
def test_rules_that_may_meet_clash(permission: dict[str, Any], prohibition: dict[str, Any], may: bool) -> None:
    found = policy(permission, prohibitions=(prohibition,))
    assert [(one.path, other.path) for one, other in clashes(found, GROUPED)] == ([("/permission/0", "/prohibition/0")] if may else [])


def test_clashes_are_looked_for_once_for_each_membership_and_as_far_as_the_steps_lead() -> None:
    found = policy(rule(assignee=PARTIES[1]), prohibitions=(rule(assignee="urn:partners"),))
    apart, joined = world(), replace(world(), member_of={PARTIES[1]: frozenset({"urn:partners"})})
    assert clashes(found, apart) == []
    assert len(clashes(found, joined)) == 1
    assert clashes(found, apart) is clashes(found, world())
    wide = policy(*[rule(purpose("eq", f"a{n}")) for n in range(20)], prohibitions=tuple(rule() for _ in range(20)))
    assert len(clashes(wide, world())) == CLASHES_MAX
    deep = policy(rule(*[purpose("neq", "a")] * 300, purpose("eq", "a")), prohibitions=(rule(*[purpose("neq", "b")] * 300),))
    assert clashes(deep, world()), "what is not looked at may meet"
