import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.dsp.schemas import Schemas
from connector.odrl.codes import Code, Finding
from connector.odrl.vocabulary import W3C_CONTEXT
from connector.odrl_forms.mending import apply_patch
from connector.odrl_forms.validate import from_schema, validate
from connector.vocabulary import read_vocabulary
from tests.odrl.cases import leaf, rule
from tests.odrl_forms.shipped import POLICIES, options

SCHEMAS = Schemas(read_vocabulary().schemas)
NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
COUNT = leaf("odrl:count", "lteq", {"@value": "5", "@type": "xsd:integer"})
SELL = rule(action="odrl:sell")


def offer(*permissions: dict[str, Any], **more: Any) -> dict[str, Any]:
    # nobody may pass it on, so that nothing is found that a case is not about
    barred: dict[str, Any] = {"prohibition": [rule(action="odrl:distribute")], "odrl:conflict": {"@id": "odrl:prohibit"}}
    return {"@id": "urn:o1", "@type": "Offer", "permission": list(permissions), **barred, **more}


def found(document: object, **more: Any) -> list[Finding]:
    ours = not isinstance(document, dict) or document.get("@context") != W3C_CONTEXT
    faults = from_schema(SCHEMAS.faults("MessageOffer", document)) if ours else []
    return validate(document, schema_findings=faults, options=options(), **{"now": NOW, **more})


def brief(findings: list[Finding]) -> list[tuple[Code, str]]:
    return [(finding.code, finding.path) for finding in findings]


def test_a_sound_offer_has_no_findings():
    assert found(offer(rule(COUNT))) == []


def test_the_layers_stand_in_their_order_and_each_fault_once():
    document = offer(rule(leaf("purpose", "eq", "research"), leaf("odrl:spatial", "lt", "DE")))
    del document["@id"]
    assert brief(found(document)) == [
        (Code.MALFORMED, ""),  # the schema: it lacks `@id`
        (Code.TERM_DROPPED, "/permission/0/constraint/0/leftOperand"),  # the words
        (Code.OPERATOR_UNSUPPORTED, "/permission/0/constraint/1/operator"),  # the model
    ]


def test_the_deepest_fault_of_the_schema_is_told_with_the_remedy_of_the_model():
    (finding,) = found(offer(rule({"and": [{"or": [leaf("odrl:count", "lteq", 5)]}]})))
    assert finding.path == "/permission/0/constraint/0/and/0/or/0/rightOperand"
    assert "must be a string or an array or an object, not a number" in finding.message
    assert finding.fix.startswith('write {"@value": "5", "@type": "xsd:integer"}')


def test_a_wrong_operator_in_a_nested_group_is_told_once_and_where_it_stands():
    (finding,) = found(offer(rule({"and": [leaf("odrl:count", "equals", "5")]})))
    assert brief([finding]) == [(Code.OPERATOR_UNSUPPORTED, "/permission/0/constraint/0/and/0/operator")]


def test_what_only_the_schema_misses_is_told_by_it():
    document = {"@type": "Offer"}
    assert brief(found(document)) == [(Code.MALFORMED, ""), (Code.MALFORMED, "")]
    assert [finding.message for finding in found(document)] == ["the document lacks `@id`", "it has no rule"]


def test_sense_is_only_looked_for_where_everything_is_understood():
    never = (leaf("odrl:count", "lt", COUNT["rightOperand"]), leaf("odrl:count", "gt", COUNT["rightOperand"]))
    assert brief(found(offer(rule(*never)))) == [(Code.UNSATISFIABLE, "/permission/0")]
    assert Code.UNSATISFIABLE not in {finding.code for finding in found(offer(rule(*never), rule(action="odrl:nothing")))}


def test_what_is_over_is_told_where_the_time_is_known():
    document = offer(rule(leaf("odrl:dateTime", "lteq", "2026-01-01Z")))
    assert (Code.ALREADY_OVER, "/permission/0") in brief(found(document))
    assert Code.ALREADY_OVER not in {finding.code for finding in found(document, now=None)}


MENDABLE: dict[Code, dict[str, Any]] = {
    Code.TERM_DROPPED: offer(rule(leaf("purpose", "eq", "research"), action="read"), **{"odrl:conflict": ..., "conflict": "prohibit"}),
    Code.MALFORMED: offer(
        rule(leaf("odrl:count", "lteq", 5)), obligation=rule(leaf("odrl:dateTime", "lteq", "2027-01-01Z"), action="odrl:inform")
    ),
    Code.TARGET_IN_RULE: offer({**rule(COUNT), "target": "urn:x"}),
    Code.ZONE_MISSING: offer(rule(leaf("odrl:dateTime", "lteq", "2026-12-31"))),
    Code.IRI_AS_STRING: offer(rule(leaf("odrl:purpose", "isAnyOf", ["https://w3id.org/dpv#Marketing", "x"]))),
    Code.MONTHS_AS_MINUTES: offer(rule(leaf("odrl:elapsedTime", "lteq", {"@value": "P60M", "@type": "xsd:duration"}))),
    Code.EQ_AS_LIMIT: offer(rule(leaf("odrl:count", "eq", COUNT["rightOperand"]))),
    Code.DEPRECATED: offer(rule(action="odrl:write")),
    Code.UNSATISFIABLE: offer(rule(leaf("odrl:language", "isAllOf", ["de", "en"]))),
    Code.SEQUENCE_UNORDERED: offer(
        rule({"andSequence": [leaf("odrl:dateTime", "gteq", "2026-01-01Z"), COUNT]}), **{"@context": W3C_CONTEXT}
    ),
    Code.DUPLICATE_RULE: offer(rule(COUNT), rule(COUNT)),
    Code.REDUNDANT: offer(rule(COUNT, leaf("odrl:count", "lteq", {"@value": "9", "@type": "xsd:integer"}))),
    Code.TAUTOLOGY: offer(rule(COUNT, leaf("odrl:count", "gteq", {"@value": "0", "@type": "xsd:integer"}))),
    Code.USE_IMPLIES_DISTRIBUTE: offer(rule(COUNT), prohibition=[SELL]),
    Code.CONFLICT_UNSET: offer(rule(COUNT), **{"odrl:conflict": ...}),
}  # fmt: skip


@pytest.mark.parametrize("code", MENDABLE)
def test_a_patch_mends_its_finding_and_breaks_nothing(code: Code):
    document = {key: value for key, value in MENDABLE[code].items() if value is not ...}
    before = found(document)
    told = [finding for finding in before if finding.code is code]
    assert told, brief(before)
    assert all(finding.patch for finding in told)
    for finding in told:
        after = found(apply_patch(document, finding.patch))
        assert (code, finding.path) not in brief(after) or len(after) < len(before)
        errors = {(one.code, one.path) for one in after if one.severity == "error"} - {(one.code, one.path) for one in before}
        assert not errors
    whole = document
    for _ in range(12):  # one after another: a patch may move what the next one is about
        patch = next((finding.patch for finding in found(whole) if finding.patch and finding.code is code), None)
        if patch is None:
            break
        whole = apply_patch(whole, patch)
    assert code not in {finding.code for finding in found(whole)}


KEYS = ["@id", "@type", "permission", "action", "constraint", "and", "leftOperand", "operator", "rightOperand", "x"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=12,
)


@given(JSON)
def test_whatever_is_given_has_findings_and_no_error_of_ours(document: object):
    for finding in validate(document, schema_findings=from_schema(SCHEMAS.faults("MessageOffer", document)), options=options(), now=NOW):
        assert finding.message
        assert finding.fix
        if finding.patch:
            apply_patch(document, finding.patch)


@pytest.mark.parametrize("path", sorted(POLICIES.glob("*.json")), ids=lambda path: path.stem)
def test_the_ready_policies_have_no_findings(path: Path):
    document = {"@id": "urn:o1", **json.loads(path.read_text())}
    # `open` means what the finding warns of
    assert brief(found(document)) == ([(Code.USE_IMPLIES_DISTRIBUTE, "/permission/0")] if path.stem == "open" else [])
