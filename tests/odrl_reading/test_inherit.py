from typing import Any

import pytest

from connector.errors import PolicyError
from connector.odrl import Code, Options, Profile, evaluate, load
from connector.odrl_reading.inherit import GENERATIONS_MAX
from tests.odrl.cases import NOW, leaf, purpose, request, rule, world

DSP, W3C = "https://w3id.org/dspace/2025/1/context.jsonld", "http://www.w3.org/ns/odrl.jsonld"


def w3c(name: str, *parents: str, **more: object) -> dict[str, Any]:
    return {"@context": W3C, "uid": name, **({"inheritFrom": list(parents)} if parents else {}), **more}


def errors(document: object, **parents: object) -> list[tuple[str, str]]:
    found = load(document, strict=False, parents={f"urn:{name}": parent for name, parent in parents.items()})
    return [(finding.code.value, finding.path) for finding in found.findings if finding.severity == "error"]


def test_an_heir_has_the_rules_of_its_parents_beside_its_own_each_with_a_path_of_its_own() -> None:
    parent = w3c("urn:p", permission=rule(purpose("eq", "a"), action="read"), prohibition=[rule(action="distribute")])
    found = load(w3c("urn:c", "urn:p", permission=[rule(action="use")]), parents={"urn:p": parent})
    assert [each.path for each in found.rules] == ["/permission/0", "/inheritFrom/0/permission", "/inheritFrom/0/prohibition/0"]
    assert found.permissions[1].constraints[0].path == "/inheritFrom/0/permission/constraint/0"
    assert found.inherits == ("urn:p",)
    decision = evaluate(found, request(action="odrl:read"), world())
    assert [(each.path, each.active) for each in decision.rules[:2]] == [("/permission/0", True), ("/inheritFrom/0/permission", None)]


def test_what_the_rules_of_a_parent_used_up_is_not_mixed_with_that_of_the_heir() -> None:
    limit = leaf("count", "lteq", {"@value": "1", "@type": "xsd:integer"})
    parent = w3c("urn:p", permission=[rule(limit)])
    found = load(w3c("urn:c", "urn:p", permission=[rule(limit)]), parents={"urn:p": parent})
    key = "http://www.w3.org/ns/odrl/2/count"
    for own, inherited, result in ((1, 1, "deny"), (1, 0, "permit"), (0, 1, "permit")):
        used = {("/permission/0", key): own, ("/inheritFrom/0/permission/0", key): inherited}
        assert evaluate(found, request(), world().__class__(NOW, used=used)).result == result


def test_an_heir_takes_over_what_it_does_not_say_itself() -> None:
    parent = w3c("urn:p", target="urn:d", assigner="urn:x", assignee=["urn:a"], conflict="perm", permission=[rule()])
    found = load(w3c("urn:c", "urn:p", assignee="urn:b"), parents={"urn:p": parent})
    assert (found.target, found.assigner, found.assignees, found.conflict) == ("urn:d", "urn:x", {"urn:b"}, "permit")


def test_what_an_heir_looks_at_is_gathered_from_all() -> None:
    parent = w3c("urn:p", permission=[rule(purpose("eq", "a"), leaf("dateTime", "lt", "2027-01-01Z"), leaf("count", "lteq", 5))])
    found = load(w3c("urn:c", "urn:p", permission=[rule(leaf("spatial", "eq", "x"))]), parents={"urn:p": parent})
    assert len(found.instants) == 1
    assert found.operands == {f"http://www.w3.org/ns/odrl/2/{name}" for name in ("purpose", "spatial", "count")}
    assert found.leaves == 6


def test_grandparents_are_inherited_from_too() -> None:
    parents = {"urn:p": w3c("urn:p", "urn:g"), "urn:g": w3c("urn:g", permission=[rule(action="read")])}
    found = load(w3c("urn:c", "urn:p"), parents=parents)
    assert found.inherits == ("urn:p", "urn:g")
    assert [each.path for each in found.permissions] == ["/inheritFrom/0/inheritFrom/0/permission/0"]


def test_under_the_context_of_dsp_the_word_needs_its_prefix_and_the_pointer_has_it() -> None:
    parent = {"@id": "urn:p", "permission": [rule(purpose("eq", "a"))]}
    child = {"@id": "urn:c", "permission": [rule()], "odrl:inheritFrom": {"@id": "urn:p"}}
    found = load(child, parents={"urn:p": parent})
    assert [each.path for each in found.permissions] == ["/permission/0", "/odrl:inheritFrom/permission/0"]


def test_the_status_of_a_parent_is_not_inherited() -> None:
    counted = {**leaf("count", "lteq", 10), "status": 4}
    parent = w3c("urn:p", permission=[rule(counted)])
    own = load(parent).permissions[0].constraints[0]
    inherited = load(w3c("urn:c", "urn:p"), parents={"urn:p": parent}).permissions[0].constraints[0]
    assert (own.test.end, inherited.test.end) == ((6, 1), (10, 1))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("parents", "finding"),
    [
        ({}, ("INHERITANCE_UNKNOWN", "/inheritFrom/0")),
        ({"p": w3c("urn:p", "urn:c", permission=[rule()])}, ("INHERITANCE_LOOP", "/inheritFrom/0")),
        ({"p": w3c("urn:p", "urn:p", permission=[rule()])}, ("INHERITANCE_LOOP", "/inheritFrom/0")),
        ({"p": w3c("urn:p", permission=[rule(leaf("mood", "eq", "x"))])}, ("OPERAND_UNSUPPORTED", "/inheritFrom/0")),
        ({"p": w3c("urn:p", profile="urn:unknown", permission=[rule()])}, ("PROFILE_UNKNOWN", "/inheritFrom/0")),
    ],
)
def test_a_parent_that_cannot_be_had_or_understood_refuses_the_heir(parents: dict[str, object], finding: tuple[str, str]) -> None:
    document = w3c("urn:c", "urn:p", permission=[rule()])
    assert finding in errors(document, **parents)
    with pytest.raises(PolicyError):
        load(document, parents={f"urn:{name}": parent for name, parent in parents.items()})


def test_a_finding_in_a_parent_says_in_which_and_where() -> None:
    parent = w3c("urn:p", permission=[rule(leaf("mood", "eq", "x"))])
    found = load(w3c("urn:c", "urn:p"), strict=False, parents={"urn:p": parent})
    assert (
        found.findings[0].message
        == "in `urn:p`/permission/0/constraint/0/leftOperand: `mood` is a left operand that cannot be checked here"
    )


def test_a_policy_that_is_no_policy_is_no_parent() -> None:
    with pytest.raises(PolicyError):
        load(w3c("urn:c", "urn:p", permission=[rule()]), strict=False, parents={"urn:p": "no policy"})


def test_a_long_line_of_parents_is_given_up() -> None:
    line = {f"urn:{n}": w3c(f"urn:{n}", f"urn:{n + 1}", permission=[rule()]) for n in range(GENERATIONS_MAX + 2)}
    with pytest.raises(PolicyError) as caught:
        load(w3c("urn:c", "urn:0"), strict=False, parents=line)
    assert caught.value.findings[-1].code is Code.LIMIT_EXCEEDED
    short = {f"urn:{n}": w3c(f"urn:{n}", *([f"urn:{n + 1}"] if n < 6 else []), permission=[rule()]) for n in range(7)}
    assert len(load(w3c("urn:c", "urn:0"), parents=short).permissions) == 7


@pytest.mark.parametrize(
    ("own", "theirs", "path"),
    [
        ("perm", ("prohibit",), "/conflict"),
        (None, ("perm", "prohibit"), "/inheritFrom/1"),
        (None, ("perm", "perm"), None),
        ("perm", ("perm",), None),
    ],
)
def test_policies_that_differ_in_who_wins_are_not_merged_in_silence(own: str | None, theirs: tuple[str, ...], path: str | None) -> None:
    parents = {f"p{n}": w3c(f"urn:p{n}", conflict=word, permission=[rule()]) for n, word in enumerate(theirs)}
    child = w3c("urn:c", *(f"urn:{name}" for name in parents), **({"conflict": own} if own else {}))
    assert errors(child, **parents) == ([("CONFLICTING_TERMS", path)] if path else [])


def test_an_heir_under_a_profile_is_read_again_with_its_parents() -> None:
    parent = w3c("urn:p", permission=[rule(action="read")])
    child = load(w3c("urn:c", "urn:p"), parents={"urn:p": parent})
    options = Options(profiles=(Profile("x"),))
    assert evaluate(child, request(action="odrl:read"), world(), options=options).result == "permit"


def test_a_parent_is_read_by_its_own_context_or_else_by_that_of_its_heir() -> None:
    dsp = {"@context": "https://w3id.org/dspace/2025/1/context.jsonld", "@id": "urn:p", "permission": [rule(purpose("eq", "a"))]}
    child = {"@id": "urn:c", "odrl:inheritFrom": "urn:p"}
    for parent in (dsp, w3c("urn:p", permission=rule(leaf("purpose", "eq", "a"))), {**dsp, "@context": None}):
        assert [each.kind for each in load(child, parents={"urn:p": parent}).permissions] == ["permission"]
    bare = {"uid": "urn:p", "permission": rule(leaf("purpose", "eq", "a"))}
    assert load(w3c("urn:c", "urn:p"), parents={"urn:p": bare}).permissions
    with pytest.raises(PolicyError):
        load(child, parents={"urn:p": bare})


@pytest.mark.parametrize("context", ["https://example.org/x.jsonld", [{"permission": "urn:x"}], [DSP, {"permission": "urn:x"}]])
def test_a_parent_under_a_context_that_may_bend_its_words_is_none(context: object) -> None:
    parent = {"@context": context, "@id": "urn:p", "permission": [rule()]}
    assert errors({"@id": "urn:c", "odrl:inheritFrom": "urn:p"}, p=parent) == [("TERM_UNSUPPORTED", "/odrl:inheritFrom")]


def test_what_is_no_name_is_no_parent() -> None:
    with pytest.raises(PolicyError, match="/inheritFrom/0"):
        load(w3c("urn:c", permission=[rule()], inheritFrom=[5]), strict=False)
