import pytest

from connector.odrl import PURPOSE, Options, Request, World
from connector.odrl.judge import ATOMS_MAX, action_and_above, addresses, gather, matching, on_target, stated, weigh
from connector.odrl.model import FALSE, TRUE, UNKNOWN
from connector.odrl.operands import DATE_TIME, PARTICIPANT
from tests.odrl.cases import NOW, PARTIES, policy, purpose, request, rule

ODRL = "http://www.w3.org/ns/odrl/2/"


def test_a_rule_about_an_action_covers_those_below_it_and_not_those_above() -> None:
    assert ODRL + "use" in action_and_above("odrl:read")
    assert ODRL + "read" not in action_and_above("use")
    assert action_and_above("cx-policy:access") == frozenset()


@pytest.mark.parametrize(
    ("target", "asked", "about"), [(None, "urn:d", True), ("urn:d", "urn:d", True), ("urn:d", "urn:e", False), ("urn:d", None, False)]
)
def test_a_policy_is_about_its_target(target: str | None, asked: str | None, about: bool) -> None:
    found = policy(rule(), **({"target": target} if target else {}))
    assert on_target(found, Request(PARTIES[0], target=asked)) is about


def test_the_assignees_of_a_rule_go_before_those_of_the_policy() -> None:
    found = policy(rule(), rule(assignee=PARTIES[1]), assignee=PARTIES[0])
    first, second = found.permissions
    assert addresses(found, first, PARTIES[0])
    assert not addresses(found, first, PARTIES[1])
    assert addresses(found, second, PARTIES[1])
    assert not addresses(found, second, PARTIES[0])


def test_only_rules_about_the_action_the_party_and_the_target_match() -> None:
    found = policy(rule(), rule(action="odrl:distribute"), rule(assignee=PARTIES[1]))
    assert [r.path for r in matching(found, found.permissions, request())] == ["/permission/0"]
    assert [r.path for r in matching(found, found.permissions, request(action="odrl:distribute"))] == ["/permission/0", "/permission/1"]


def test_declared_values_and_facts_are_joined() -> None:
    found = policy(rule(purpose("eq", "a")))
    atoms = gather(found, Request(PARTIES[0], params={"odrl:purpose": ("a",), PURPOSE: ("b",)}), World(NOW, {PURPOSE: ("c",)}), 7)
    assert [atom[PURPOSE] for atom in atoms] == ["b", "a", "c"]
    assert all(atom[DATE_TIME] == 7 and atom[PARTICIPANT] == PARTIES[0] for atom in atoms)


def test_a_policy_that_asks_for_no_purpose_is_judged_once() -> None:
    assert len(gather(policy(rule()), request("a", "b"), World(NOW), 7)) == 1


@pytest.mark.parametrize("given", [5, None, ("",), ({"x": 1},), (None,), b"research"])
def test_a_value_that_cannot_be_read_is_not_known(given: object) -> None:
    atoms = gather(policy(rule(purpose("eq", "a"))), Request(PARTIES[0], params={PURPOSE: given}), World(NOW), 7)  # type: ignore[dict-item]
    assert [atom.get(PURPOSE) for atom in atoms] == [None]


def test_a_readable_value_beside_an_unreadable_one_hides_nothing() -> None:
    assert list(stated(PURPOSE, {PURPOSE: ("a", 5)})) == ["a", None]


def test_a_single_value_needs_no_tuple() -> None:
    assert list(stated(PURPOSE, {PURPOSE: "research"})) == ["research"]
    assert list(stated(PURPOSE, {PURPOSE: {"@id": "urn:x"}})) == ["urn:x"]


def test_what_is_not_known_about_party_and_time_is_left_out() -> None:
    assert gather(policy(rule()), Request(""), World(NOW), None) == ({},)


def test_too_many_purposes_are_no_atoms_at_all() -> None:
    found = policy(rule(purpose("neq", "x")))
    assert len(gather(found, request(*map(str, range(ATOMS_MAX))), World(NOW), 7)) == ATOMS_MAX
    assert gather(found, request(*map(str, range(ATOMS_MAX + 1))), World(NOW), 7) == ()


RULES = {
    FALSE: rule(purpose("neq", "a")),
    UNKNOWN: rule({"leftOperand": "urn:qiao:participant", "operator": "eq", "rightOperand": "x"}),
    TRUE: rule(),
}


@pytest.mark.parametrize(
    ("permission", "prohibition", "open_result", "enforced"),
    [
        (TRUE, None, TRUE, TRUE),
        (UNKNOWN, None, UNKNOWN, FALSE),
        (FALSE, None, FALSE, FALSE),
        (TRUE, FALSE, TRUE, TRUE),
        (TRUE, UNKNOWN, UNKNOWN, FALSE),
        (TRUE, TRUE, FALSE, FALSE),
        (UNKNOWN, UNKNOWN, UNKNOWN, FALSE),
        (UNKNOWN, TRUE, FALSE, FALSE),
        (FALSE, TRUE, FALSE, FALSE),
    ],
)
def test_the_table_of_permissions_and_prohibitions(permission: int, prohibition: int | None, open_result: int, enforced: int) -> None:
    found = policy(RULES[permission], prohibitions=() if prohibition is None else (RULES[prohibition],))
    atoms = ({PURPOSE: "a"},)
    assert weigh(found.permissions, found.prohibitions, atoms, Options(), False) == open_result
    assert weigh(found.permissions, found.prohibitions, atoms, Options(), True) == enforced


def test_a_permission_may_win_by_option() -> None:
    found = policy(rule(), prohibitions=(rule(),))
    assert weigh(found.permissions, found.prohibitions, ({},), Options(conflict="permit"), True) == TRUE
    assert weigh((), found.prohibitions, ({},), Options(conflict="permit"), True) == FALSE


def test_the_worst_atom_decides() -> None:
    found = policy(rule(purpose("eq", "a")))
    weighed = [
        weigh(found.permissions, (), atoms, Options(), False) for atoms in (({PURPOSE: "a"}, {}), ({}, {PURPOSE: "b"}), ({PURPOSE: "a"},))
    ]
    assert weighed == [UNKNOWN, FALSE, TRUE]
