import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.dsp.schemas import Schemas
from connector.errors import PolicyError
from connector.odrl import Code, Request, World, evaluate, load
from connector.odrl.vocabulary import DSP_CONTEXT
from connector.odrl_forms.template_files import Template
from connector.odrl_forms.templates import RDF_VALUE, instantiate, origin
from connector.odrl_forms.validate import validate
from connector.vocabulary import read_vocabulary
from tests.odrl.cases import NOW
from tests.odrl_forms.shipped import library, options

SCHEMAS = Schemas(read_vocabulary().schemas)
CASES = [(template, case) for template in library().values() for case in template.cases]


def choice(template: str, **parameters: Any) -> dict[str, Any]:
    return {"template": template, "parameters": parameters}


def mistakes(*chosen: Any) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        instantiate(library(), list(chosen))
    return [str(finding) for finding in caught.value.findings]


@pytest.mark.parametrize(("template", "case"), CASES, ids=lambda of: of.id if isinstance(of, Template) else of.say)
def test_each_template_decides_its_cases_as_it_says(template: Template, case: Any):
    policy = load(instantiate(library(), [choice(template.id, **case.parameters)]), options=options())
    decision = evaluate(policy, case.request, case.world, options=options())
    assert decision.result == case.result, decision.reason("full")
    assert not decision.error


@pytest.mark.parametrize("template", library().values(), ids=lambda template: template.id)
def test_what_a_template_makes_is_valid_on_the_wire_and_has_no_findings(template: Template):
    offer = instantiate(library(), [choice(template.id, **template.cases[0].parameters)])
    assert SCHEMAS.reasons("MessageOffer", {"@id": "urn:o1", **offer}) == []
    assert SCHEMAS.reasons("Offer", {"@id": "urn:o1", **offer}) == []
    assert not load(offer, options=options()).refused
    # a term that only the contract holds says so, and so does a template that lets the data go on: their author has to know
    known = {Code.DECLARATIVE_ONLY} | ({Code.USE_IMPLIES_DISTRIBUTE} if template.distribution else set())
    assert {finding.code for finding in validate(offer, options=options(), now=NOW.replace(year=2025))} <= known


def test_several_templates_are_joined_with_and():
    chosen = [choice("purpose", purposes=["research"]), choice("until", end="2026-12-31"), choice("count", times=10)]
    offer = instantiate(library(), [*chosen, choice("consumer", parties=["did:web:a.example"]), choice("log")])
    assert offer == {
        "@context": [DSP_CONTEXT],
        "@type": "Offer",
        "permission": [
            {
                "action": "use",
                "assignee": ["did:web:a.example"],
                "constraint": [
                    {"leftOperand": "odrl:purpose", "operator": "isAnyOf", "rightOperand": ["research"]},
                    {"leftOperand": "odrl:dateTime", "operator": "lteq", "rightOperand": {"@value": "2026-12-31Z", "@type": "xsd:date"}},
                    {"leftOperand": "odrl:count", "operator": "lteq", "rightOperand": {"@value": "10", "@type": "xsd:integer"}},
                ],
                "duty": [
                    {
                        "action": {
                            RDF_VALUE: {"@id": "https://w3id.org/idsa/code/log"},
                            "odrl:refinement": [
                                {
                                    "leftOperand": "https://w3id.org/idsa/code/LOG_LEVEL",
                                    "operator": "eq",
                                    "rightOperand": {"@id": "https://w3id.org/idsa/code/ON_ALLOW"},
                                }
                            ],
                        }
                    }
                ],
            }
        ],
        "prohibition": [{"action": "odrl:distribute"}],
        "odrl:conflict": {"@id": "odrl:prohibit"},
    }
    policy = load(offer, options=options())
    request = Request("did:web:a.example", params={"odrl:purpose": ("research",)})
    used = {"http://www.w3.org/ns/odrl/2/count": 9}
    assert evaluate(policy, request, World(NOW, used=used), options=options()).result == "permit-with"
    assert evaluate(policy, request, World(NOW.replace(year=2027), used=used), options=options()).result == "deny"
    other = Request("did:web:b.example", params={"odrl:purpose": ("research",)})
    assert evaluate(policy, other, World(NOW, used=used), options=options()).result == "deny"


def test_a_template_may_be_used_twice_and_what_is_said_twice_stands_once():
    offer = instantiate(library(), [choice("notify", whom="did:web:a.example"), choice("notify", whom="did:web:b.example"), choice("open")])
    assert [duty["odrl:informedParty"] for duty in offer["permission"][0]["duty"]] == ["did:web:a.example", "did:web:b.example"]
    twice = instantiate(library(), [choice("until", end="2026-12-31"), choice("until", end="2026-12-31")])
    assert len(twice["permission"][0]["constraint"]) == 1


def test_what_may_not_be_passed_on_is_forbidden_unless_a_template_rules_it():
    assert instantiate(library(), [choice("open")])["prohibition"] == [{"action": "odrl:distribute"}]
    onward = instantiate(library(), [choice("next-policy", policy="urn:policy:onward")])
    assert "prohibition" not in onward
    assert "odrl:conflict" not in onward


def test_the_profile_of_a_template_is_named_once():
    offer = instantiate(library(), [choice("stream"), choice("permit", permit="urn:permit:1"), choice("until", end="2030-01-01")])
    assert offer["profile"] == ["https://hds.example/ns/1.0#profile"]
    assert offer["permission"][0]["action"] == "https://hds.example/ns/1.0#receiveStream"


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ([], ["the policy: no template is chosen; choose one at least; `open` sets no condition"]),
        ([choice("untill", end="2026-01-01")], ["/0/template: `untill` is no template; did you mean `until`?"]),
        ([choice("until")], ["/0/parameters/end: `end` (last day) of `until`: it is missing; give a day like `2026-12-31`"]),
        ([choice("until", end="31.12.2026")], ["/0/parameters/end: `end` (last day) of `until`: `31.12.2026`: it is no date or instant"]),
        ([choice("count", times=0)], ["/0/parameters/times: `times` (times) of `count`: 0 is too small; give 1 at least"]),
        ([choice("count", tymes=5)], ["/0/parameters/tymes: `tymes` is not known here; write `times`"]),
        ([choice("open"), {"template": "until", "params": {}}], ["/1/params: `params` is not known here", "/1/parameters/end: `end`"]),
        ([{**choice("open"), "version": "0.9"}], ["/0/version: it was made with version 0.9 of `open`, which has version 1.0 now"]),
        (
            [choice("consumer", parties=["did:web:a"]), choice("DUO_0000028", institutions=["did:web:b"])],
            ["/1: `consumer` and `DUO_0000028` both say the assignee; choose one of them"],
        ),
        (["until"], ["/0: it is no mapping of names", "/0/template: it is missing"]),
    ],
)
def test_each_mistake_of_a_choice_names_template_and_parameter(chosen: list[Any], expected: list[str]):
    found = mistakes(*chosen)
    assert len(found) == len(expected)
    assert all(part in mistake for part, mistake in zip(expected, found, strict=True)), found


def test_a_value_is_never_more_than_a_value():
    hostile = '"}],"action":"odrl:distribute'
    offer = instantiate(library(), [choice("purpose", purposes=[hostile, "$end", "${x}"])])
    assert offer["permission"] == [
        {
            "action": "use",
            "constraint": [{"leftOperand": "odrl:purpose", "operator": "isAnyOf", "rightOperand": [hostile, "$end", "${x}"]}],
        }
    ]


def test_the_form_of_a_policy_opens_again():
    chosen = [choice("security-level"), choice("until", end="2026-12-31")]
    kept = json.loads(json.dumps(origin(library(), chosen)))
    assert kept == [
        {"template": "security-level", "version": "1.0", "parameters": {"level": "idsc:TRUST_SECURITY_PROFILE"}},
        {"template": "until", "version": "1.0", "parameters": {"end": "2026-12-31"}},
    ]
    assert instantiate(library(), kept) == instantiate(library(), chosen)
    with pytest.raises(PolicyError):
        origin(library(), [choice("until")])


FREE = [template for template in library().values() if template.cases]


@given(st.lists(st.sampled_from(FREE), min_size=1, max_size=6))
def test_any_choice_of_templates_loads_or_says_which_two_contradict(templates: list[Template]):
    chosen = [choice(template.id, **template.cases[0].parameters) for template in templates]
    said_twice = [part for part in ("action", "assignee") if len({json.dumps(t.body[part]) for t in templates if part in t.body}) > 1]
    if said_twice and not same_assignees(templates):
        assert all("both say the" in mistake for mistake in mistakes(*chosen))
        return
    offer = instantiate(library(), chosen)
    assert SCHEMAS.is_valid("MessageOffer", {"@id": "urn:o1", **offer})
    assert not load(offer, options=options()).refused
    assert instantiate(library(), origin(library(), chosen)) == offer


def same_assignees(templates: list[Template]) -> bool:
    """Whether all cases of those that say the assignee name the same one."""
    return len({json.dumps(list(t.cases[0].parameters.values())) for t in templates if "assignee" in t.body}) < 2
