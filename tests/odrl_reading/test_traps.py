"""odrl.md 1.9: the traps of the Dataspace Protocol's wire that lie in the compact JSON itself, each with what it does elsewhere."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from connector.odrl import Code, Finding, Request, evaluate, lint, load
from connector.odrl.vocabulary import INCLUDED_IN, ODRL, OPERATORS
from tests.odrl.cases import leaf, offer, purpose, request, rule, time, world
from tests.odrl_reading.pointers import patched

CONTRACT = Path(__file__).parents[1] / "data" / "dsp-2025-1" / "negotiation" / "contract-schema.json"
DEFINITIONS = json.loads(CONTRACT.read_text())["definitions"]
SCHEMA = jsonschema_rs.validator_for({"$ref": "#/definitions/Offer", "definitions": DEFINITIONS})
PERMISSION, LEFT = "/permission/0", "/permission/0/constraint/0/leftOperand"


def errors(document: dict[str, Any]) -> list[Finding]:
    return [finding for finding in lint(document) if finding.severity == "error"]


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (offer(rule(), conflict={"@id": "odrl:perm"}), "/conflict"),
        (offer(rule(), inheritFrom=["urn:p"]), "/inheritFrom"),
        (offer(rule(), prohibitions=(rule(remedy=[{"action": "odrl:delete"}]),)), "/prohibition/0/remedy"),
        (offer(rule(duty=[{"action": "odrl:delete", "consequence": [{"action": "odrl:pay"}]}])), PERMISSION + "/duty/0/consequence"),
        (offer({"action": {"@id": "odrl:use", "refinement": [purpose("eq", "a")]}}), PERMISSION + "/action/refinement"),
        (offer(rule({**leaf("odrl:payAmount", "lteq", "5"), "unit": "urn:eur"})), PERMISSION + "/constraint/0/unit"),
        (offer(rule({**time("lteq", "2026-01-01"), "dataType": "xsd:date"})), PERMISSION + "/constraint/0/dataType"),
        (offer(rule({**leaf("odrl:count", "lteq", "5"), "status": "3"})), PERMISSION + "/constraint/0/status"),
    ],
)
def test_a_term_that_the_context_does_not_define_vanishes_elsewhere_and_is_a_finding_here(document: dict[str, Any], path: str) -> None:
    (finding,) = errors(document)
    assert (finding.code, finding.path) == (Code.TERM_DROPPED, path)
    assert finding.fix == f"write `odrl:{path.rpartition('/')[2]}`"
    assert evaluate(load(document, strict=False), request("a"), world()).result == "deny"
    assert Code.TERM_DROPPED not in {each.code for each in errors(patched(document, finding.patch))}


@pytest.mark.parametrize("left", ["dateTime", "purpose", "count", "spatial"])
def test_a_bare_left_operand_becomes_a_relative_iri_elsewhere_and_is_named_here(left: str) -> None:
    right = {"dateTime": "2027-01-01Z", "count": "5"}.get(left, "a")
    document = offer(rule(leaf(left, "eq", right)))
    (finding,) = errors(document)
    assert (finding.code, finding.path, finding.fix) == (Code.TERM_DROPPED, LEFT, f"write `odrl:{left}`")
    assert errors(patched(document, finding.patch)) == []


def test_of_all_actions_only_use_stands_bare() -> None:
    assert errors(offer(rule(action="use"))) == []
    for iri in INCLUDED_IN:
        name = iri.removeprefix(ODRL)
        if name != "use" and iri.startswith(ODRL):
            (finding,) = errors(offer(rule(action=name)))
            assert (finding.code, finding.fix) == (Code.TERM_DROPPED, f"write `odrl:{name}`")


def test_operators_stand_bare() -> None:
    for operator in OPERATORS:
        assert Code.TERM_DROPPED not in {each.code for each in lint(offer(rule(purpose(operator, "a"))))}


def test_the_context_of_the_w3c_beside_that_of_the_protocol_defines_all_the_words() -> None:
    contexts = ["https://w3id.org/dspace/2025/1/context.jsonld", "http://www.w3.org/ns/odrl.jsonld"]
    bare = offer(rule(leaf("dateTime", "lteq", "2027-01-01Z"), action="read"), conflict="perm")
    assert len(errors(bare)) == 3
    for order in (contexts, contexts[::-1]):
        assert errors({**bare, "@context": order}) == []


def test_a_bare_number_is_invalid_on_the_wire() -> None:
    document = offer(rule(leaf("odrl:count", "lteq", 5)))
    (finding,) = errors(document)
    assert (finding.code, finding.fix) == (
        Code.MALFORMED,
        'write {"@value": "5", "@type": "xsd:integer"}: a bare number is not valid in DSP messages',
    )
    assert not SCHEMA.is_valid(document)
    typed = offer(rule(leaf("odrl:count", "lteq", {"@value": "5", "@type": "xsd:integer"})))
    assert SCHEMA.is_valid(typed)
    assert errors(typed) == []


def test_a_context_is_an_array_of_strings() -> None:
    """An object in it is invalid on the wire, and one that bends a protected word is refused whatever stands beside it."""
    dsp = "https://w3id.org/dspace/2025/1/context.jsonld"
    assert errors(offer(rule(), **{"@context": [dsp]})) == []
    assert errors(offer(rule(), **{"@context": [dsp, {"permission": "urn:nothing"}]}))
    assert errors(offer(rule(), **{"@context": {"permission": "urn:nothing"}}))


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"@id": "urn:o1", "@type": "Offer", "permission": rule()}, "/permission"),
        (offer({"action": "use", "constraint": purpose("eq", "a")}), PERMISSION + "/constraint"),
        (offer(rule({"and": purpose("eq", "a")})), PERMISSION + "/constraint/0/and"),
    ],
)
def test_what_the_schema_wants_in_arrays_is_in_arrays(document: dict[str, Any], path: str) -> None:
    assert not SCHEMA.is_valid(document)
    assert (errors(document)[0].code, errors(document)[0].path) == (Code.MALFORMED, path)


def test_an_obligation_alone_is_no_policy_of_the_protocol_and_one_of_odrl() -> None:
    obligation = [{"action": "odrl:delete"}]
    alone = {"@id": "urn:o1", "@type": "Offer", "obligation": obligation}
    assert not SCHEMA.is_valid(alone)
    assert [(finding.code, finding.path) for finding in errors(alone)] == [(Code.MALFORMED, "")]
    assert errors({"@context": "http://www.w3.org/ns/odrl.jsonld", "uid": "urn:s", "obligation": obligation}) == []


def test_the_stray_operator_of_the_schema_is_none() -> None:
    document = offer(rule(time("term-lteq", "2027-01-01Z")))
    assert SCHEMA.is_valid(document)
    assert [finding.code for finding in errors(document)] == [Code.OPERATOR_UNSUPPORTED]


def test_a_rule_of_the_protocol_has_no_target() -> None:
    assert [(finding.code, finding.path) for finding in errors(offer(rule(target="urn:d")))] == [
        (Code.TARGET_IN_RULE, PERMISSION + "/target")
    ]


def test_names_that_are_methods_of_strings_are_operands_like_any_other() -> None:
    """rdflib's namespaces hand out `str.count`, `str.index`, `str.translate` for these; here words are words."""
    assert load(offer(rule(leaf("odrl:count", "lteq", "5")))).operands == {ODRL + "count"}
    asked = Request("did:web:a", "odrl:translate")
    assert evaluate(load(offer(rule(action="odrl:translate"))), asked, world()).permitted
    assert not evaluate(load(offer(rule(action="odrl:index"))), asked, world()).permitted


def test_a_misspelt_class_or_property_is_told_with_what_was_meant() -> None:
    """One SolidLab case writes `odrl:prohibited`, where the others write `odrl:prohibition`."""
    document = {**offer(rule()), "odrl:prohibited": [rule()]}
    (finding,) = errors(document)
    assert (finding.code, finding.path) == (Code.TERM_UNSUPPORTED, "/odrl:prohibited")
    assert [each.fix for each in errors({**offer(rule()), "prohibitions": [rule()]})] == ["write `prohibition`"]
