"""A policy in any form becomes the offer that is published: with the same meaning, or not at all."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings

from connector.errors import PolicyError
from connector.odrl import load, same_terms
from connector.odrl_forms.drafts import Draft, chosen, offer_of, read_draft
from connector.odrl_forms.template_files import read_templates
from connector.odrl_forms.text_form import render_text
from connector.vocabulary import read_data
from tests.odrl import cases

LIBRARY = read_templates(read_data(Path(__file__).parents[2] / "policies" / "templates"))
DSP = "https://w3id.org/dspace/2025/1/context.jsonld"
W3C = "http://www.w3.org/ns/odrl.jsonld"
PERMISSION: dict[str, Any] = {"action": "use", "constraint": [{"leftOperand": "purpose", "operator": "eq", "rightOperand": "x"}]}
CONSTRAINT = {"leftOperand": "odrl:purpose", "operator": "eq", "rightOperand": "x"}


def made(document: Any, form: Any = "json-ld") -> dict[str, Any]:
    content = document.encode() if isinstance(document, str) else json.dumps(document).encode()
    return offer_of(read_draft(content, form, lambda: LIBRARY))


def w3c(**said: Any) -> dict[str, Any]:
    return {"@context": W3C, "@type": "Set", "uid": "urn:p"} | said


def test_what_is_in_the_form_of_the_protocol_stays_as_it_is_with_its_mistakes():
    for document in ({"permission": [{"action": "dance"}]}, {"@context": [DSP], "mood": 1}, {"@context": DSP}):
        assert made(document) == document


def test_the_asset_and_the_assigner_of_all_rules_are_said_of_the_whole():
    rule = PERMISSION | {"target": "urn:d", "assigner": "urn:us"}
    found = made(w3c(permission=[rule], prohibition=[{"action": "distribute", "target": "urn:d", "assigner": "urn:us"}]))
    assert found == {
        "@context": [DSP],
        "@type": "Offer",
        "@id": "urn:p",
        "assigner": "urn:us",
        "permission": [{"action": "use", "constraint": [CONSTRAINT]}],
        "prohibition": [{"action": "odrl:distribute"}],
    }


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (w3c(permission=[PERMISSION | {"target": "urn:d"}, PERMISSION | {"target": "urn:e"}]), "an offer of DSP 2025-1 cannot say it"),
        (w3c(permission=[{"target": "urn:d", "action": ["use", "read"]}]), "an offer of DSP 2025-1 cannot say it"),
        (
            {"@context": W3C, "@type": "Agreement", "uid": "urn:p", "permission": [PERMISSION | {"target": "urn:d"}]},
            "only an offer can be published",
        ),
        (w3c(permission=[{"action": "dance", "target": "urn:d"}]), "dance"),
        ([], "no template is chosen"),
    ],
)
def test_what_cannot_be_published_is_refused_with_a_remedy(document: Any, says: str):
    with pytest.raises(PolicyError, match=says):
        made(document)


def test_a_choice_of_templates_is_kept_as_it_is_read_again():
    choice = [{"template": "count", "parameters": {"times": 3}}, {"template": "delete-after-use"}]
    draft = chosen(choice, lambda: LIBRARY)
    assert draft.template is not None
    again = read_draft(json.dumps(draft.template).encode(), "json-ld", lambda: LIBRARY)
    assert (again.document, again.template) == (draft.document, draft.template)
    assert [entry.keys() for entry in draft.template["templates"]] == [{"template", "version", "parameters"}] * 2
    assert offer_of(draft) == draft.document


def test_a_template_may_stand_alone_and_its_mistakes_are_those_of_a_choice():
    alone = {"template": "unit-price", "parameters": {"price": "0.50"}}
    assert made(alone) == made([alone])
    with pytest.raises(PolicyError, match="did you mean `unit-price`"):
        made({"template": "unit-prise"})


def test_templates_are_not_read_for_other_forms():
    def library() -> Any:
        raise AssertionError

    assert read_draft(b"{}", "json-ld", library).document == {}
    assert read_draft(b"offer\n  permit use\n", "text", library).form == "text"


@settings(max_examples=50)
@given(cases.offers)
def test_an_offer_means_the_same_when_it_was_written_as_text(offer: dict[str, Any]):
    policy = load(offer, strict=False)
    if not policy.refused:
        try:
            found = made(render_text(policy), "text")
        except PolicyError as error:
            event(error.reasons[0])
            return
        assert same_terms(load(found), policy)


def test_a_draft_knows_its_format():
    assert (Draft("turtle", b"").format, Draft("text", {}).format) == ("turtle", "json-ld")


@pytest.mark.parametrize(("name", "fix"), [("counts", "did you mean `count`?"), ("zzz", "list them"), (7, "list them"), ([], "list them")])
def test_a_template_that_is_none_is_said_with_the_nearest_and_not_with_all(name: Any, fix: str):
    with pytest.raises(PolicyError) as refused:
        chosen([{"template": name}], lambda: LIBRARY)
    (finding,) = refused.value.findings
    assert (finding.path, fix in finding.fix, len(str(finding)) < 200) == ("/0/template", True, True)
