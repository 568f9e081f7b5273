"""Every finding that reading a policy can make: a policy that has it, one that is nearly the same and has it not, and what mends it."""

import ast
from pathlib import Path
from typing import Any

import pytest

from connector.odrl import Code, Finding, Operand, Options, Profile, evaluate, lint, load
from connector.odrl_reading.constraints import DEPTH_MAX
from tests.odrl.cases import leaf, offer, purpose, request, rule, time, world
from tests.odrl_reading.pointers import patched, resolve

READING = Path(__file__).parents[2] / "connector" / "odrl_reading"
X = "https://x.example/"
TERM = Operand(X + "liability", "liability", "责任", "term", "declarative", frozenset({"eq"}), "contract", "contract-only", "agreement")
OPTIONS = Options(profiles=(Profile("x", iris=("urn:profile",), prefixes={"x": X}, operands=(TERM,)),))
READ = "odrl:read"
BAR = (rule(action="odrl:distribute"),)
W3C = {"@context": "http://www.w3.org/ns/odrl.jsonld"}


def read(*constraints: dict[str, Any], **more: Any) -> dict[str, Any]:
    return offer(rule(*constraints, action=READ, **more))


def owing(action: object, **more: Any) -> dict[str, Any]:
    return read(duty=[{"action": action, **more}])


def obliged(action: str, **more: Any) -> dict[str, Any]:
    until = time("lteq", "2090-01-01Z")
    return read() | {"obligation": [{"action": action, "constraint": [until], **more}]}


def paying(action: str, *more: dict[str, Any]) -> dict[str, Any]:
    return owing(action, constraint=[leaf("odrl:payAmount", "eq", "5"), *more])


def nested(depth: int) -> dict[str, Any]:
    found = purpose("eq", "a")
    for _ in range(depth):
        found = {"and": [found]}
    return found


C = "/permission/0/constraint/0"
CASES: list[tuple[Code, str, dict[str, Any], dict[str, Any]]] = [
    # code, where, a policy that has it, one that has it not
    (Code.MALFORMED, C, read({**purpose("eq", "a"), "or": []}), read(purpose("eq", "a"))),
    (Code.MALFORMED, "/permission/0", offer({"constraint": []}), read()),
    (Code.MALFORMED, "/target", {**read(), "target": ["urn:a", "urn:b"]}, {**read(), "target": ["urn:a"]}),
    (Code.LIMIT_EXCEEDED, f"{C}{'/and/0' * DEPTH_MAX}/and", read(nested(DEPTH_MAX + 1)), read(nested(DEPTH_MAX))),
    (Code.TERM_DROPPED, C + "/leftOperand", read(leaf("purpose", "eq", "a")), read(purpose("eq", "a"))),
    (Code.TERM_DROPPED, "/permission/0/refinement", read(refinement=[]), read(**{"dct:title": "x"})),
    (Code.TERM_DROPPED, "/conflict", {**read(), "conflict": "perm"}, {**read(), "odrl:conflict": "odrl:perm"}),
    (Code.TERM_DROPPED, "/permission/0/action", offer(rule(action="read")), read()),
    (Code.TERM_DROPPED, "/permission/0/assigne", read(assigne="urn:a"), read(assignee="urn:a")),
    (
        Code.TERM_DROPPED,
        "/prohibition/0/remedy",
        offer(prohibitions=(rule(remedy=[rule()]),)),
        offer(prohibitions=(rule(**{"odrl:remedy": [rule()]}),)),
    ),
    (Code.TERM_UNSUPPORTED, "/permission/0/odrl:status", read(**{"odrl:status": 1}), read()),
    (Code.TERM_UNSUPPORTED, "/@type", {**read(), "@type": "Duty"}, {**read(), "@type": "Set"}),
    (Code.TARGET_IN_RULE, "/permission/0/target", read(target="urn:d"), {**read(), "target": "urn:d"}),
    (Code.OPERAND_UNSUPPORTED, C + "/leftOperand", read(leaf("odrl:mood", "eq", "x")), read(leaf("odrl:media", "eq", "x"))),
    (Code.OPERATOR_UNSUPPORTED, C + "/operator", read(purpose("gt", "a")), read(purpose("eq", "a"))),
    (Code.ACTION_UNSUPPORTED, "/permission/0/action", offer(rule(action="odrl:scry")), read()),
    (Code.TYPE_MISMATCH, C + "/rightOperand", read(time("lt", "soon")), read(time("lt", "2027-01-01Z"))),
    (Code.TYPE_MISMATCH, C + "/rightOperand", read(purpose("eq", ["a", "b"])), read(purpose("isAnyOf", ["a", "b"]))),
    (
        Code.UNIT_MISMATCH,
        C + "/odrl:unit",
        read({**purpose("eq", "a"), "odrl:unit": "urn:e"}),
        read({**leaf("odrl:payAmount", "lt", "5"), "odrl:unit": "urn:e"}),
    ),
    (Code.EMPTY_SET, C + "/rightOperand", read(purpose("isAnyOf", [])), read(purpose("isAnyOf", ["a"]))),
    (Code.EMPTY_SET, "/assignee", {**read(), "assignee": []}, {**read(), "assignee": ["urn:a"]}),
    (Code.PROFILE_UNKNOWN, "/profile", {**read(), "profile": "urn:other"}, {**read(), "profile": "urn:profile"}),
    (Code.POLICY_REPLACED, "", {**read(), "dct:isReplacedBy": "urn:o2"}, {**read(), "dct:source": "urn:o0"}),
    (Code.CONFLICTING_TERMS, "/odrl:conflict", {**read(), "odrl:conflict": "odrl:me"}, {**read(), "odrl:conflict": "odrl:invalid"}),
    (Code.INHERITANCE_UNKNOWN, "/odrl:inheritFrom", {**read(), "odrl:inheritFrom": "urn:p"}, read()),
    (Code.INHERITANCE_LOOP, "/odrl:inheritFrom", {**read(), "odrl:inheritFrom": "urn:o1"}, read()),
    (
        Code.REFERENCE_UNRESOLVED,
        C + "/odrl:rightOperandReference",
        read({"leftOperand": "odrl:purpose", "operator": "eq", "odrl:rightOperandReference": "urn:x"}),
        read(purpose("eq", {"@id": "urn:x"})),
    ),
    (Code.REFERENCE_UNRESOLVED, "/permission/1", offer(rule(action=READ), {"@id": "urn:rule"}), read()),
    (Code.ZONE_MISSING, C + "/rightOperand", read(time("lt", "2027-01-01")), read(time("lt", "2027-01-01Z"))),
    (Code.ZONE_MISSING, C + "/rightOperand", read(time("lt", ["2027-01-01T00:00:00"])), read(time("lt", ["2027-01-01T00:00:00+08:00"]))),
    (
        Code.ZONE_MISSING,
        C + "/rightOperand",
        read(time("lt", {"@value": "2027-01-01", "@type": "xsd:date"})),
        read(time("lt", {"@value": "2027-01-01Z", "@type": "xsd:date"})),
    ),
    (
        Code.IRI_AS_STRING,
        C + "/rightOperand",
        read(purpose("eq", "https://x.example/a")),
        read(purpose("eq", {"@id": "https://x.example/a"})),
    ),
    (
        Code.IRI_AS_STRING,
        C + "/rightOperand",
        read(purpose("isAnyOf", ["a", "urn:b", {"@id": "urn:c"}])),
        read(purpose("isAnyOf", ["a", {"@id": "urn:b"}])),
    ),
    (
        Code.IRI_AS_STRING,
        C + "/rightOperand",
        read(purpose("isAnyOf", {"@list": ["urn:b", "urn:c"]})),
        read(leaf("urn:qiao:participant", "eq", "did:web:a")),
    ),
    (
        Code.ACTION_MISSING,
        "/permission/0",
        {**W3C, "permission": [{"target": "urn:d"}]},
        {**W3C, "permission": [{"target": "urn:d", "action": "read"}]},
    ),
    (Code.DEPRECATED, "/permission/0/action", offer(rule(action="odrl:write")), offer(rule(action="odrl:modify"))),
    (
        Code.DEPRECATED,
        "/permission/0/action/rdf:value",
        {**W3C, "permission": [{"action": {"rdf:value": {"@id": "odrl:copy"}, "refinement": [leaf("purpose", "eq", "a")]}}]},
        {**W3C, "permission": [{"action": {"rdf:value": {"@id": "odrl:reproduce"}}}]},
    ),
    (Code.USE_IMPLIES_DISTRIBUTE, "/permission/0", offer(rule()), offer(rule(), prohibitions=BAR)),
    (Code.USE_IMPLIES_DISTRIBUTE, "/permission/1", offer(rule(action=READ), rule(), prohibitions=(rule(action="odrl:sell"),)), read()),
    (
        Code.PROHIBITION_OF_USE,
        "/prohibition/0",
        offer(rule(action=READ), prohibitions=(rule(),)),
        offer(rule(action=READ), prohibitions=(rule(purpose("eq", "a")),)),
    ),
    (
        Code.OBLIGATION_NO_DEADLINE,
        "/obligation/0",
        {**read(), "obligation": [{"action": "odrl:delete", "constraint": [leaf("odrl:count", "lteq", "5")]}]},
        {**read(), "obligation": [{"action": "odrl:delete", "constraint": [{"and": [time("lteq", "2027-01-01Z")]}]}]},
    ),
    (
        Code.MONTHS_AS_MINUTES,
        C + "/rightOperand",
        read(leaf("odrl:elapsedTime", "lteq", "P60M")),
        read(leaf("odrl:elapsedTime", "lteq", "PT60M")),
    ),
    (Code.EQ_AS_LIMIT, C + "/operator", read(leaf("odrl:count", "eq", "10")), read(leaf("odrl:count", "lteq", "10"))),
    (Code.EQ_AS_LIMIT, C + "/operator", read(leaf("odrl:elapsedTime", "eq", "P3M")), read(leaf("odrl:timeInterval", "eq", "P3M"))),
    (
        Code.EQ_AS_LIMIT,
        C + "/operator",
        read(leaf("odrl:count", "eq", "10")),
        offer(rule(action={"rdf:value": {"@id": "odrl:compensate"}, "odrl:refinement": [leaf("odrl:count", "eq", "10")]})),
    ),
    (Code.PAYMENT_AS_CONDITION, "/permission/0/duty/0/constraint/0", paying("odrl:compensate"), paying("odrl:inform")),
    (
        Code.PAYMENT_AS_CONDITION,
        "/permission/0/duty/0/constraint/0",
        paying("odrl:compensate", purpose("eq", "a")),
        owing({"rdf:value": {"@id": "odrl:compensate"}, "odrl:refinement": [leaf("odrl:payAmount", "eq", "5")]}),
    ),
    (
        Code.INTERVAL_AS_WINDOW,
        C + "/leftOperand",
        read(leaf("odrl:timeInterval", "lteq", "P30D")),
        read(leaf("odrl:timeInterval", "gteq", "P30D")),
    ),
    (
        Code.SEQUENCE_UNORDERED,
        C + "/andSequence",
        read({"andSequence": [purpose("eq", "a"), purpose("neq", "b")]}),
        read({"andSequence": {"@list": [purpose("eq", "a"), purpose("neq", "b")]}}),
    ),
    (Code.POLICY_CONSTRAINT, "/constraint", {**read(), "constraint": [purpose("eq", "a")]}, read(purpose("eq", "a"))),
    (Code.DECLARATIVE_ONLY, C + "/leftOperand", read(leaf("x:liability", "eq", "full")), read(leaf("odrl:media", "eq", "full"))),
    (Code.DECLARATIVE_ONLY, "/permission/0/duty/0", owing("odrl:anonymize"), owing("odrl:anonymize", assignee="did:web:p")),
    (Code.DECLARATIVE_ONLY, "/permission/0/duty/0", owing("odrl:watermark"), owing("odrl:delete")),
    (Code.DECLARATIVE_ONLY, "/obligation/0", obliged("odrl:transform"), obliged("odrl:transform", assignee="did:web:p")),
    (Code.UNSATISFIABLE, C + "/operator", read(purpose("isAllOf", ["a", "b"])), read(purpose("isAllOf", ["a", "a"]))),
    (Code.UNSATISFIABLE, C + "/operator", read(leaf("odrl:count", "isAllOf", ["1", "2"])), read(leaf("odrl:count", "isAnyOf", ["1", "2"]))),
]
MENDED = {
    Code.TERM_DROPPED,
    Code.ZONE_MISSING,
    Code.IRI_AS_STRING,
    Code.DEPRECATED,
    Code.USE_IMPLIES_DISTRIBUTE,
    Code.EQ_AS_LIMIT,
    Code.PAYMENT_AS_CONDITION,
    Code.UNSATISFIABLE,
}
ids = [f"{code}-{number}" for number, (code, *_) in enumerate(CASES)]


def found(document: dict[str, Any], code: Code) -> list[Finding]:
    return [finding for finding in lint(document, options=OPTIONS) if finding.code is code]


@pytest.mark.parametrize(("code", "path", "positive", "negative"), CASES, ids=ids)
def test_each_finding_is_made_where_it_belongs_and_not_where_it_does_not(
    code: Code, path: str, positive: dict[str, Any], negative: dict[str, Any]
) -> None:
    assert path in [finding.path for finding in found(positive, code)]
    assert found(negative, code) == []
    for finding in lint(positive, options=OPTIONS):
        assert finding.message
        assert finding.fix
        assert len(str(finding)) < 1000


@pytest.mark.parametrize(("code", "path", "positive", "negative"), CASES, ids=ids)
def test_every_pointer_leads_to_what_the_author_wrote(code: Code, path: str, positive: dict[str, Any], negative: dict[str, Any]) -> None:
    for document in (positive, negative):
        for finding in lint(document, options=OPTIONS):
            resolve(document, finding.path)


@pytest.mark.parametrize(("code", "path", "positive", "negative"), CASES, ids=ids)
def test_what_a_patch_mends_is_gone_and_nothing_new_is_wrong(
    code: Code, path: str, positive: dict[str, Any], negative: dict[str, Any]
) -> None:
    for finding in lint(positive, options=OPTIONS):
        if not finding.patch:
            continue
        after = lint(patched(positive, finding.patch), options=OPTIONS)
        assert (finding.code, finding.path) not in [(each.code, each.path) for each in after]
        before = {each.code for each in lint(positive, options=OPTIONS)}
        assert {each.code for each in after if each.severity == "error"} <= before


def test_whatever_can_be_mended_mechanically_has_its_patch() -> None:
    patches = {code for code, path, positive, _ in CASES for finding in found(positive, code) if finding.path == path and finding.patch}
    assert patches == MENDED


def test_an_error_refuses_and_a_warning_does_not() -> None:
    for code, path, positive, _ in CASES:
        if code in (Code.MALFORMED, Code.LIMIT_EXCEEDED):
            continue  # these are no policies at all
        (finding, *_) = [each for each in found(positive, code) if each.path == path]
        policy = load(positive, options=OPTIONS, strict=False)
        if finding.severity == "error":
            assert policy.refused
            assert evaluate(policy, request(), world(), options=OPTIONS).result == "deny"
        elif all(each.severity == "warning" for each in policy.findings):
            assert not policy.refused


def test_every_finding_of_the_reader_has_its_rows_here() -> None:
    noted = {
        node.attr
        for path in READING.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Code"
    }
    assert noted == {code.name for code, *_ in CASES}
