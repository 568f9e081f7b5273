"""A policy is looked at before it is published as a connector would look at it."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.app_settings import examined, library, published
from connector.odrl_forms.drafts import Examined
from tests.odrl import cases
from tests.pair import OPEN, purpose_policy, until_policy

NOW = cases.NOW.timestamp()
SOUND = purpose_policy("research") | {"prohibition": [{"action": "odrl:distribute"}], "odrl:conflict": {"@id": "odrl:prohibit"}}
POLICIES = sorted((Path(__file__).parents[1] / "policies").glob("*.json"))


def look(document: Any, format: Any = "json-ld", language: Any = "en") -> Examined:
    content = document if isinstance(document, bytes) else document.encode() if isinstance(document, str) else json.dumps(document).encode()
    return examined(content, format, language, NOW)


def codes(found: Examined) -> set[str]:
    return {finding.code.value for finding in found.findings}


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.name)
def test_the_ready_policies_can_be_used(path: Path):
    found = look(path.read_bytes())
    assert not found.refused, found.findings
    assert found.plain is not None
    assert found.plain.sentences


def test_a_sound_policy_has_no_finding_and_two_languages():
    found, chinese = look(SOUND), look(SOUND, language="zh")
    assert (found.findings, found.refused) == ((), False)
    assert found.plain is not None
    assert chinese.plain is not None
    assert "may use" in found.plain.sentences[0]
    assert "用于" in chinese.plain.sentences[0]


def test_what_the_schema_says_points_into_the_policy():
    strange = {"@type": "Offer", "permission": [{"action": "use", "constraint": [{"leftOperand": "odrl:purpose", "operator": "equals"}]}]}
    found = look(strange)
    assert found.refused
    assert found.plain is None
    assert any(finding.path.startswith("/permission/0/constraint/0") for finding in found.findings)
    assert not any("hasPolicy" in str(finding) for finding in found.findings)


def test_words_of_the_profiles_of_this_installation_are_known():
    constraint = {"leftOperand": "https://w3id.org/edc/v0.0.1/ns/inForceDate", "operator": "lteq", "rightOperand": "contractAgreement+30d"}
    assert not look(OPEN | {"permission": [{"action": "use", "constraint": [constraint]}]}).refused


def test_what_is_over_already_is_said():
    assert "ALREADY_OVER" in codes(look(until_policy("2020-01-01T00:00:00Z")))
    assert "ALREADY_OVER" not in codes(look(until_policy("2999-01-01T00:00:00Z")))


def test_what_is_over_is_said_of_turtle_too():
    rule = 'odrl:action odrl:use ; odrl:constraint [ odrl:leftOperand odrl:dateTime ; odrl:operator odrl:lteq ; odrl:rightOperand "{}" ]'
    head = "@prefix odrl: <http://www.w3.org/ns/odrl/2/> . <urn:o> a odrl:Offer ; odrl:target <urn:d> ; odrl:permission"
    for year, over in ((2020, True), (2999, False)):
        at = f"{rule.format(f'{year}-01-01T00:00:00Z')}".replace('Z"', 'Z"^^<http://www.w3.org/2001/XMLSchema#dateTime>')
        assert ("ALREADY_OVER" in codes(look(f"{head} [ {at} ] .", "turtle"))) is over


def test_every_form_of_a_policy_is_read():
    rule, context = "odrl:permission [ odrl:action odrl:use ; odrl:target <urn:d> ]", "http://www.w3.org/ns/odrl.jsonld"
    turtle = f"@prefix odrl: <http://www.w3.org/ns/odrl/2/> . <urn:o> a odrl:Set ; {rule} ."
    text = "offer urn:o\n  permit use\n    for {research}\n  forbid distribute\n"
    w3c = {"@context": context, "@type": "Set", "uid": "urn:o", "permission": [{"target": "urn:d", "action": "use"}]}
    for content, format in ((turtle, "turtle"), (text, "text"), (w3c, "json-ld")):
        found = look(content, format)
        assert not found.refused, found.findings
        assert found.plain is not None


@pytest.mark.parametrize("format", ["json-ld", "turtle", "text"])
@settings(max_examples=25)
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_bytes_are_more_than_a_finding(format: str, content: bytes):
    found = look(content, format)
    assert found.refused is (found.plain is None)


@settings(max_examples=25)
@given(cases.offers)
def test_what_can_be_used_is_told_in_words(offer: dict[str, Any]):
    found = look(offer)
    assert found.refused is (found.plain is None)


CHOICE = [{"template": "purpose", "parameters": {"purposes": ["research"]}}, {"template": "count", "parameters": {"times": 100}}]


def test_a_choice_of_templates_is_looked_at_as_the_offer_that_it_makes():
    found = look(CHOICE)
    assert (found.findings, found.refused) == ((), False)
    assert (found.document, found.template) == published(json.dumps(CHOICE).encode(), "json-ld")
    assert found.template is not None
    assert [each["version"] for each in found.template["templates"]] == [library()[each["template"]].version for each in CHOICE]
    assert look([{"template": "count", "parameters": {"times": "often"}}]).findings[0].path == "/0/parameters/times"


def test_a_sound_policy_that_is_no_offer_has_nothing_to_publish():
    turtle = (
        "@prefix odrl: <http://www.w3.org/ns/odrl/2/> . <urn:o> a odrl:Set ; odrl:permission"
        " [ odrl:action odrl:use ; odrl:target <urn:d> ], [ odrl:action odrl:use ; odrl:target <urn:e> ] ."
    )
    found = look(turtle, "turtle")
    assert (found.refused, found.document) == (False, None)
    assert found.to_json()["plain"]["sentences"]
