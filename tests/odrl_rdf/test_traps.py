"""The traps of ODRL on the wire and in RDF, one test each: what other readers lose, bend or cannot read (odrl.md 1.9)."""

from __future__ import annotations

import codecs
import json
from functools import cache
from typing import Any

import pytest
import rdflib
from pyld import jsonld

from connector.dsp.jsonld import compact, with_imports
from connector.dsp.messages import DSP_CONTEXT
from connector.dsp.schemas import Schemas
from connector.errors import PolicyError
from connector.odrl import Code, Result, evaluate, lint, load
from connector.odrl.operands import CORE_OPERANDS
from connector.odrl.vocabulary import EXACT_MATCH, INCLUDED_IN, ODRL, W3C_CONTEXT
from connector.odrl_rdf.contexts import CONTEXTS
from connector.odrl_rdf.report import report_rdf
from connector.vocabulary import Vocabulary, read_vocabulary
from tests.odrl.cases import NOW, request, world

REPORT = rdflib.Namespace("https://w3id.org/force/compliance-report#")
TURTLE = f"@prefix odrl: <{ODRL}> . @prefix xsd: <http://www.w3.org/2001/XMLSchema#> . @prefix a: <urn:a:> .\n"
DATE = {"leftOperand": "odrl:dateTime", "operator": "lteq", "rightOperand": {"@value": "2030-01-01Z", "@type": "xsd:date"}}


@cache
def vocabulary() -> Vocabulary:
    return read_vocabulary()


def offer(**more: Any) -> dict[str, Any]:
    return {"@id": "urn:o1", "@type": "Offer", "target": "urn:d", "permission": [{"action": "use", "constraint": [DATE]}], **more}


def message(**more: Any) -> dict[str, Any]:
    return {
        "@context": [DSP_CONTEXT], "@type": "ContractOfferMessage", "providerPid": "urn:p", "callbackAddress": "https://p.example",
        "offer": offer(), **more,
    }  # fmt: skip


def is_valid(document: dict[str, Any], shape: str = "ContractOfferMessage") -> bool:
    return Schemas(vocabulary().schemas).is_valid(shape, document)


def errors(document: Any, format: str = "json-ld") -> list[tuple[Code, str]]:
    return [(finding.code, finding.path) for finding in lint(document, format) if finding.severity == "error"]


def by_jsonld(document: dict[str, Any]) -> Any:
    """What a reader of JSON-LD makes of a message."""
    contexts = {url: with_imports(context, vocabulary().contexts) for url, context in vocabulary().contexts.items()}

    def load_context(url: str, _options: object) -> dict[str, Any]:
        return {"contentType": "application/ld+json", "contextUrl": None, "documentUrl": url, "document": contexts[url]}

    return jsonld.expand(document, {"base": None, "documentLoader": load_context})


# ---- the context of DSP 2025-1 is small


@pytest.mark.parametrize(
    ("where", "term", "value"),
    [
        ("permission", "target", "urn:d"),
        ("prohibition", "remedy", [{"action": "odrl:delete"}]),
        ("permission", "refinement", [DATE]),
        ("", "conflict", "odrl:prohibit"),
        ("", "inheritFrom", "urn:parent"),
    ],
)
def test_a_term_that_readers_of_json_ld_would_lose_is_a_finding(where: str, term: str, value: Any):
    rule = {"action": "use", term: value}
    document = offer(**({where: [rule]} if where else {term: value}))
    path = f"/{where}/0/{term}" if where else f"/{term}"
    assert (Code.TARGET_IN_RULE if term == "target" else Code.TERM_DROPPED, path) in errors(document)
    if term != "target":
        assert f'"{ODRL}{term}"' not in json.dumps(by_jsonld(message(offer=document)))


@pytest.mark.parametrize("term", ["unit", "dataType", "status"])
def test_a_term_of_a_constraint_that_would_be_lost_is_a_finding(term: str):
    constraint = {"leftOperand": "odrl:count", "operator": "lteq", "rightOperand": "5", term: "3"}
    document = offer(permission=[{"action": "use", "constraint": [constraint]}])
    assert (Code.TERM_DROPPED, f"/permission/0/constraint/0/{term}") in errors(document)


def test_the_prefix_saves_the_term_and_the_finding_says_so():
    document = offer(prohibition=[{"action": "odrl:distribute", "remedy": [{"action": "odrl:delete"}]}])
    (finding,) = (finding for finding in lint(document) if finding.severity == "error")
    assert finding.fix == "write `odrl:remedy`"
    assert finding.patch == ({"op": "move", "from": "/prohibition/0/remedy", "path": "/prohibition/0/odrl:remedy"},)
    document["prohibition"][0]["odrl:remedy"] = document["prohibition"][0].pop("remedy")
    assert load(document).prohibitions[0].duties[0].kind == "remedy"


@pytest.mark.parametrize("operand", ["dateTime", "purpose", "count"])
def test_a_bare_left_operand_is_an_iri_relative_to_the_document(operand: str):
    document = offer(permission=[{"action": "use", "constraint": [{**DATE, "leftOperand": operand}]}])
    assert f'{{"@id": "{operand}"}}' in json.dumps(by_jsonld(message(offer=document)))
    assert errors(document) == [(Code.TERM_DROPPED, "/permission/0/constraint/0/leftOperand")]


def test_a_bare_action_but_use_is_no_action():
    assert errors(offer(permission=[{"action": "read"}])) == [(Code.TERM_DROPPED, "/permission/0/action")]
    assert errors(offer(permission=[{"action": "odrl:read"}, {"action": ODRL + "read"}, {"action": "use"}])) == []


@pytest.mark.parametrize("contexts", [[DSP_CONTEXT, W3C_CONTEXT], [W3C_CONTEXT, DSP_CONTEXT]])
def test_the_w3c_context_beside_that_of_dsp_saves_every_term_in_either_order(contexts: list[str]):
    rule = {"action": "distribute", "remedy": [{"action": "delete"}]}
    document = offer(prohibition=[rule], conflict="prohibit")
    again = compact(message(**{"@context": contexts, "offer": document}), "ContractOfferMessage", vocabulary().contexts)["offer"]
    policy = load(again)
    assert (policy.conflict, policy.prohibitions[0].duties[0].kind) == ("prohibit", "remedy")
    assert policy.conflict == load({**document, "@context": contexts}).conflict


def test_a_term_that_a_context_takes_away_is_missed():
    document = {"@context": [W3C_CONTEXT, {"remedy": None}], "@type": "Set", "prohibition": [{"action": "use", "remedy": []}]}
    assert errors(document) == [(Code.TERM_DROPPED, "/prohibition/0/remedy")]


def test_no_context_is_fetched():
    document = {"@context": [W3C_CONTEXT, "https://attacker.example/context"], "@type": "Set", "permission": [{"action": "use"}]}
    assert errors(document) == [(Code.CONTEXT_UNKNOWN, "/@context/1")]


def test_a_prefix_cannot_be_bent_to_another_vocabulary():
    document = {"@context": [DSP_CONTEXT, {"odrl": "urn:other:"}], **offer()}
    assert errors(document) == [(Code.MALFORMED, "/@context/1/odrl")]
    without = {"@context": {"odrl": "urn:other:"}, "@type": "odrl:Set", "odrl:permission": [{"odrl:action": {"@id": "odrl:use"}}]}
    assert errors(without) == [(Code.MALFORMED, "")]  # no policy of ODRL is in it


@pytest.mark.parametrize(
    ("rule", "code"),
    [("urn:r", Code.MALFORMED), ({"@id": "urn:r"}, Code.REFERENCE_UNRESOLVED), ({"uid": "urn:r"}, Code.REFERENCE_UNRESOLVED)],
)
def test_a_rule_that_is_only_named_is_no_rule_without_conditions(rule: Any, code: Code):
    assert (code, "/permission/0") in errors({"@context": W3C_CONTEXT, "@type": "Set", "permission": [rule]})
    assert errors(f"{TURTLE}a:p a odrl:Set ; odrl:permission a:r .", "turtle") == [(Code.REFERENCE_UNRESOLVED, "/permission/0")]


# ---- the schemas of DSP 2025-1


def test_a_bare_number_is_no_right_operand():
    def of(right: Any) -> dict[str, Any]:
        return offer(
            permission=[{"action": "use", "constraint": [{"leftOperand": "odrl:count", "operator": "lteq", "rightOperand": right}]}]
        )

    typed = of({"@value": "5", "@type": "xsd:integer"})
    assert not is_valid(message(offer=of(5)))
    assert is_valid(message(offer=typed))
    assert load(typed).permissions[0].constraints[0].expected == ("5",)  # type: ignore[union-attr]


def test_a_message_brings_no_context_of_its_own():
    assert is_valid(message(**{"@context": [DSP_CONTEXT, W3C_CONTEXT]}))
    assert not is_valid(message(**{"@context": [DSP_CONTEXT, {"ex": "urn:ex:"}]}))
    assert not is_valid(message(**{"@context": DSP_CONTEXT}))


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"permission": {"action": "use"}}, "/permission"),
        ({"permission": [{"action": "use", "constraint": DATE}]}, "/permission/0/constraint"),
        ({"permission": [{"action": "use", "constraint": [{"and": DATE}]}]}, "/permission/0/constraint/0/and"),
        ({"permission": [{"action": {"odrl:rdf:value": {"@id": "odrl:use"}}}]}, "/permission/0/action"),
    ],
)
def test_what_the_schema_wants_as_an_array_or_a_string_is_refused_here_too(change: dict[str, Any], path: str):
    assert not is_valid(message(offer=offer(**change)))
    assert any(at.startswith(path) for _, at in errors(offer(**change)))


def test_an_obligation_alone_is_no_policy_of_the_protocol():
    alone = {"@id": "urn:o1", "@type": "Offer", "target": "urn:d", "obligation": [{"action": "odrl:inform"}]}
    assert not is_valid(message(offer=alone))
    assert (Code.MALFORMED, "") in errors(alone)


def test_an_offer_in_a_catalog_has_no_target():
    def dataset(policy: dict[str, Any]) -> dict[str, Any]:
        distribution = {"@type": "Distribution", "format": "http-pull", "accessService": "urn:s"}
        return {"@context": [DSP_CONTEXT], "@id": "urn:d", "@type": "Dataset", "hasPolicy": [policy], "distribution": [distribution]}

    bare = {key: value for key, value in offer().items() if key != "target"}
    assert is_valid(dataset(bare), "Dataset")
    assert not is_valid(dataset(offer()), "Dataset")
    assert load(bare).target is None


def test_the_stray_operator_of_the_schema_has_no_meaning():
    document = offer(permission=[{"action": "use", "constraint": [{**DATE, "operator": "term-lteq"}]}])
    assert is_valid(message(offer=document))
    assert errors(document) == [(Code.OPERATOR_UNSUPPORTED, "/permission/0/constraint/0/operator")]


def test_a_plain_object_as_reason_is_emptied_and_a_json_literal_is_not():
    def reason(*raw: Any) -> str:
        ended = {
            "@context": [DSP_CONTEXT],
            "@type": "ContractNegotiationError",
            "providerPid": "urn:p",
            "consumerPid": "urn:c",
            "code": "1",
        }
        return json.dumps(by_jsonld({**ended, "reason": list(raw)}))

    said = {"code": "EXPIRED", "rule": "/permission/0"}
    assert "EXPIRED" not in reason(said)
    found = reason("Denied: it is over.", {"@type": "@json", "@value": said})
    assert "EXPIRED" in found
    assert "Denied: it is over." in found


# ---- RDF


def test_terms_that_are_methods_of_strings_are_terms():
    assert not isinstance(rdflib.Namespace(ODRL).count, rdflib.URIRef)  # the trap: `NS.count` is `str.count`
    rules = "[ odrl:action odrl:index ] , [ odrl:action odrl:translate ; odrl:constraint a:c ]"
    count = "a:c odrl:leftOperand odrl:count ; odrl:operator odrl:lteq ; odrl:rightOperand 5 ."
    policy = load(f"{TURTLE}a:p a odrl:Set ; odrl:permission {rules} . {count}", "turtle")
    assert [rule.actions[0].iri for rule in policy.permissions] == [ODRL + "index", ODRL + "translate"]
    assert policy.permissions[1].constraints[0].operand == ODRL + "count"  # type: ignore[union-attr]
    report = report_rdf(evaluate(policy, request(action="odrl:index"), world()))
    assert (None, REPORT.constraintOperator, rdflib.URIRef(ODRL + "lteq")) in report
    assert (None, REPORT.constraint, rdflib.URIRef("urn:a:c")) in report


@pytest.mark.parametrize("iri", [*INCLUDED_IN, *EXACT_MATCH], ids=lambda iri: iri.removeprefix(ODRL))
def test_each_action_of_the_core_is_read_from_turtle_by_its_iri(iri: str):
    policy = load(f"{TURTLE}a:p a odrl:Set ; odrl:permission [ odrl:action <{iri}> ] .", "turtle")
    assert policy.permissions[0].actions[0].iri == EXACT_MATCH.get(iri, iri)


@pytest.mark.parametrize("operand", [row for row in CORE_OPERANDS if row.iri.startswith(ODRL)], ids=lambda row: row.iri.removeprefix(ODRL))
def test_each_left_operand_of_the_core_is_read_from_turtle_and_from_json_ld(operand: Any):
    right = {"instant": "2030-01-01T00:00:00Z", "duration": "P1D", "number": "5", "term": "x", "event": ODRL + "policyUsage"}[
        operand.values
    ]
    turtle = f"<{right}>" if operand.values == "event" else f'"{right}"'
    operator = "lt" if operand.values in ("instant", "duration", "number", "event") else "eq"
    leaf = f"[ odrl:leftOperand <{operand.iri}> ; odrl:operator odrl:{operator} ; odrl:rightOperand {turtle} ]"
    text = f"{TURTLE}a:p a odrl:Set ; odrl:permission [ odrl:action odrl:use ; odrl:constraint {leaf} ] ."
    value = {"@id": right} if operand.values == "event" else right
    constraint = {"leftOperand": operand.iri.removeprefix(ODRL), "operator": operator, "rightOperand": value}
    document = {"@context": W3C_CONTEXT, "uid": "urn:a:p", "@type": "Set", "permission": [{"action": "use", "constraint": [constraint]}]}
    for policy in (load(text, "turtle"), load(document)):
        assert policy.permissions[0].constraints[0].operand == operand.iri  # type: ignore[union-attr]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-32"])
def test_a_file_of_another_encoding_is_read(encoding: str):
    text = f"{TURTLE}a:p a odrl:Set ; odrl:permission [ odrl:action odrl:use ] . # 桥"
    document = json.dumps(
        {"@context": W3C_CONTEXT, "uid": "urn:a:p", "permission": [{"action": "use"}], "dct:title": "桥"}, ensure_ascii=False
    )
    assert load(text.encode(encoding), "turtle").id == load(document.encode(encoding)).id == "urn:a:p"


@pytest.mark.parametrize(
    ("document", "format", "complaint"),
    [
        ('{"@type": "Set", }', "json-ld", "it is no JSON"),
        ("a:p a odrl:Set .", "turtle", "the prefix `a:` is not declared"),
        (f"{TURTLE}a:p a odrl:Set ; odrl:permission [ odrl:action odrl:use ]", "turtle", "a statement ends with"),
        (f"{TURTLE}a:p a odrl:Set ; odrl:prohibited [ odrl:action odrl:use ] ; odrl:permission [ odrl:action odrl:use ] .", "turtle",
            "`http://www.w3.org/ns/odrl/2/prohibited` has no meaning here"),
        (codecs.BOM_UTF16_LE + b"{", "json-ld", "it is no UTF-16-LE text"),
    ],
)  # fmt: skip
def test_a_dirty_file_is_refused_with_its_fault_and_never_read_in_part(document: str | bytes, format: str, complaint: str):
    with pytest.raises(PolicyError, match=complaint):
        load(document, format)


def test_repeated_triples_lists_and_arrays_are_one_set_of_values():
    def turtle(right: str) -> str:
        leaf = f"[ odrl:leftOperand odrl:purpose ; odrl:operator odrl:isAnyOf ; odrl:rightOperand {right} ]"
        return f"{TURTLE}a:p a odrl:Set ; odrl:permission [ odrl:action odrl:use ; odrl:constraint {leaf} ] ."

    def tree(right: Any) -> dict[str, Any]:
        constraint = {"leftOperand": "purpose", "operator": "isAnyOf", "rightOperand": right}
        return {"@context": W3C_CONTEXT, "@type": "Set", "permission": [{"action": "use", "constraint": [constraint]}]}

    policies = [load(turtle(right), "turtle") for right in ("a:x , a:y", "( a:x a:y )", "a:x , a:y , a:x")]
    policies += [
        load(tree(right)) for right in ([{"@id": "urn:a:x"}, {"@id": "urn:a:y"}], {"@list": [{"@id": "urn:a:y"}, {"@id": "urn:a:x"}]})
    ]
    assert {policy.permissions[0].constraints[0].test for policy in policies} == {policies[0].permissions[0].constraints[0].test}  # type: ignore[union-attr]
    assert all(evaluate(policy, request("urn:a:y"), world()).result is Result.PERMIT for policy in policies)


def test_the_zone_of_a_day_is_not_lost():
    leaf = '[ odrl:leftOperand odrl:dateTime ; odrl:operator odrl:lt ; odrl:rightOperand "2026-06-15+14:00"^^xsd:date ]'
    policy = load(f"{TURTLE}a:p a odrl:Set ; odrl:permission [ odrl:action odrl:use ; odrl:constraint {leaf} ] .", "turtle")
    assert str(rdflib.Literal("2026-06-15+14:00", datatype=rdflib.XSD.date)) != "2026-06-15+14:00"  # the trap
    assert evaluate(policy, request(), world(NOW.replace(day=14, hour=9, minute=59))).permitted
    assert not evaluate(policy, request(), world(NOW.replace(day=14, hour=10, minute=0))).permitted


def test_an_iri_and_a_string_of_its_letters_are_told_apart_where_an_iri_belongs():
    text = f'{TURTLE}a:p a odrl:Set ; odrl:permission [ odrl:action odrl:use ; odrl:assignee "urn:a:x" ] .'
    assert errors(text, "turtle") == [(Code.TYPE_MISMATCH, "/permission/0/assignee")]
    document = {"@context": {"odrl": ODRL}, "@type": "odrl:Set", "odrl:permission": [{"odrl:action": "odrl:use"}]}
    assert errors(document) == [(Code.TYPE_MISMATCH, "/permission/0/action")]


def test_every_context_that_is_at_hand_is_closed():
    for document in CONTEXTS.values():
        assert "@import" not in json.dumps(document)
