from random import Random
from typing import Any

import pytest
from hypothesis import given, settings

from connector.errors import PolicyError
from connector.odrl import load
from connector.odrl_compare.wording import same_words
from connector.odrl_compare.writing import CONFLICTS, node_json, rule_json
from tests.odrl.cases import leaf, offer, purpose, rule, time
from tests.odrl_compare.cases import EUR, OPTIONS, an_offer, read, seeds


def written(document: dict[str, Any]) -> dict[str, Any]:
    """The document again, from what it means."""
    policy = load(document, options=OPTIONS)
    found: dict[str, Any] = {"@id": "urn:o1", "@type": "Offer"}
    for name, rules in (("permission", policy.permissions), ("prohibition", policy.prohibitions), ("obligation", policy.obligations)):
        if rules:
            found[name] = [rule_json(one) for one in rules]
    return found | ({"odrl:conflict": {"@id": CONFLICTS[policy.conflict]}} if policy.conflict else {})


@settings(max_examples=200)
@given(seeds)
def test_what_is_written_reads_as_what_it_was(chance: Random):
    document = an_offer(chance)
    assert same_words(read(document), read(written(document)))


def one(constraint: dict[str, Any]) -> dict[str, Any]:
    (node,) = load(offer(rule(constraint)), options=OPTIONS).permissions[0].constraints
    return node_json(node)


@pytest.mark.parametrize(
    ("constraint", "operator", "right"),
    [
        (time("lteq", "2026-12-31Z"), "lteq", {"@value": "2026-12-31Z", "@type": "xsd:date"}),
        (time("lt", "2027-01-01T01:00:00+01:00"), "lteq", {"@value": "2026-12-31Z", "@type": "xsd:date"}),
        (time("gteq", "2026-12-31"), "gteq", {"@value": "2026-12-31Z", "@type": "xsd:date"}),
        (time("gt", "2026-12-31Z"), "gteq", {"@value": "2027-01-01Z", "@type": "xsd:date"}),
        (time("eq", "2026-12-31Z"), "eq", {"@value": "2026-12-31Z", "@type": "xsd:date"}),
        (time("neq", "2026-12-31T12:00:00Z"), "neq", {"@value": "2026-12-31T12:00:00Z", "@type": "xsd:dateTime"}),
        (time("lteq", "2026-12-31T12:00:00Z"), "lteq", {"@value": "2026-12-31T12:00:00Z", "@type": "xsd:dateTime"}),
        (time("gt", "2026-12-31T12:00:00Z"), "gt", {"@value": "2026-12-31T12:00:00Z", "@type": "xsd:dateTime"}),
        (leaf("odrl:count", "lteq", {"@value": "5"}), "lteq", {"@value": "5", "@type": "xsd:integer"}),
        (leaf("odrl:elapsedTime", "gt", "P1Y2M3DT4H5M6.5S"), "gt", {"@value": "P1Y2M3DT4H5M6.500000S", "@type": "xsd:duration"}),
        (leaf("odrl:elapsedTime", "eq", "PT0S"), "eq", {"@value": "PT0S", "@type": "xsd:duration"}),
        (purpose("eq", "a"), "eq", "a"),
        (purpose("isAnyOf", ["b", {"@id": "https://x.example/a"}]), "isAnyOf", ["b", {"@id": "https://x.example/a"}]),
        (leaf("odrl:event", "gteq", {"@id": "odrl:policyUsage"}), "gteq", {"@id": "http://www.w3.org/ns/odrl/2/policyUsage"}),
    ],
)
def test_each_sort_of_value_has_its_form(constraint: dict[str, Any], operator: str, right: object):
    found = one(constraint)
    assert (found["operator"], found["rightOperand"]) == (operator, right)


def test_a_unit_and_an_alias_come_out_in_the_words_of_the_core():
    assert one(leaf("odrl:payAmount", "eq", {"@value": "2.50", "@type": "xsd:decimal"}) | {"odrl:unit": EUR}) == {
        "leftOperand": "odrl:payAmount",
        "operator": "eq",
        "rightOperand": {"@value": "2.5", "@type": "xsd:decimal"},
        "odrl:unit": {"@id": EUR},
    }
    assert one(leaf("odrl:system", "eq", "x"))["leftOperand"] == "odrl:systemDevice"


def test_duties_with_all_they_say():
    duty = {
        "@id": "urn:duty",
        "action": "odrl:compensate",
        "assignee": "did:web:x",
        "odrl:compensatedParty": "did:web:y",
        "constraint": [leaf("odrl:delayPeriod", "lteq", {"@value": "P30D", "@type": "xsd:duration"})],
        "odrl:consequence": [{"action": "odrl:inform"}],
    }
    document = offer(rule(duty=[duty]), prohibitions=(rule(action="odrl:sell", **{"odrl:remedy": [{"action": "odrl:delete"}]}),))
    assert written(document)["permission"][0]["duty"] == [duty]
    assert written(document)["prohibition"][0]["odrl:remedy"] == [{"action": "odrl:delete"}]


def test_a_payment_is_written_with_its_amount_and_a_price_is_for_a_person():
    amount = leaf("odrl:payAmount", "gteq", {"@value": "5", "@type": "xsd:integer"}) | {"odrl:unit": {"@id": EUR}}
    refined = {"action": {"rdf:value": {"@id": "odrl:compensate"}, "odrl:refinement": [amount]}}
    for duty in ({"action": "odrl:compensate", "constraint": [amount]}, refined):
        assert written(offer(rule(duty=[duty])))["permission"][0]["duty"] == [refined]
    refined["action"]["odrl:refinement"].append(leaf("odrl:unitOfCount", "eq", {"@id": "urn:unit:record"}))
    with pytest.raises(PolicyError, match="not one plain action"):
        written(offer(rule(duty=[refined])))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"permission": [{"action": [{"@id": "odrl:read"}, {"@id": "odrl:play"}]}]}, "not one plain action"),
        ({"permission": [{"action": "read", "target": "urn:d"}]}, "a target of its own"),
    ],
)
def test_what_dsp_has_no_form_for_is_refused(document: dict[str, Any], message: str):
    policy = load({"@context": "http://www.w3.org/ns/odrl.jsonld", "@type": "Set", "uid": "urn:o", **document})
    with pytest.raises(PolicyError, match=message):
        rule_json(policy.permissions[0])


def test_what_is_not_understood_is_not_written():
    (node,) = load(offer(rule(leaf("urn:not:known", "eq", "a"))), strict=False).permissions[0].constraints
    with pytest.raises(PolicyError, match="not understood"):
        node_json(node)
