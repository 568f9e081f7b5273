from copy import deepcopy
from typing import Any

import pytest

from connector.errors import PolicyError
from connector.odrl import Code, Result
from connector.odrl.registry import Label
from connector.odrl_forms.template_files import read_templates
from tests.odrl_forms.shipped import library

UNTIL: dict[str, Any] = {
    "class": "IDS 9",
    "en": "Until a day",
    "zh": "截止日期",
    "parameters": {"end": {"type": "date", "en": "last day", "zh": "最后一天", "default": "2030-12-31"}},
    "constraint": [{"leftOperand": "odrl:dateTime", "operator": "lteq", "rightOperand": "$end"}],
    "cases": [
        {"say": "in time", "request": {"party": "did:web:a.example"}, "result": "permit"},
        {"say": "too late", "request": {"party": "did:web:a.example"}, "world": {"now": "2031-01-01T00:00:00Z"}, "result": "deny"},
    ],
}
FILE: dict[str, Any] = {"id": "ours", "version": "1.0", "en": "ours", "zh": "自有", "source": "our own", "licence": "Apache-2.0"}


def file(**parts: Any) -> dict[str, Any]:
    return {**FILE, "templates": {"until": {**deepcopy(UNTIL), **parts}}}


def mistakes(*documents: Any) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        read_templates({f"{index}.yaml": document for index, document in enumerate(documents)})
    return [str(finding) for finding in caught.value.findings]


def test_a_template_has_its_parameters_and_cases():
    template = read_templates({"ours.yaml": file()})["until"]
    assert (template.label, template.stands_for, template.version) == (Label("Until a day", "截止日期"), "IDS 9", "1.0")
    assert template.parameters["end"].default == "2030-12-31"
    assert template.body == {"constraint": [{"leftOperand": "odrl:dateTime", "operator": "lteq", "rightOperand": "$end"}]}
    assert [case.result for case in template.cases] == [Result.PERMIT, Result.DENY]
    assert template.cases[1].world.now.year == 2031


def test_words_of_a_template_are_written_in_full_and_those_of_the_core_short():
    parts = {
        "constraint": [
            {"or": [
                {"leftOperand": "ex:a", "operator": "eq", "rightOperand": {"@id": "ex:b"}},
                {"leftOperand": "http://www.w3.org/ns/odrl/2/dateTime", "operator": "lteq", "rightOperand": "$end"},
            ]},
        ],
    }  # fmt: skip
    document = {**file(**parts), "prefixes": {"ex": "https://ex.example/#"}}
    assert read_templates({"ours.yaml": document})["until"].body["constraint"] == [
        {"or": [
            {"leftOperand": "https://ex.example/#a", "operator": "eq", "rightOperand": {"@id": "https://ex.example/#b"}},
            {"leftOperand": "odrl:dateTime", "operator": "lteq", "rightOperand": "$end"},
        ]},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (None, "0.yaml#: it is empty; write a file with `id`, `version` and `templates`"),
        ({**file(), "template": {}}, "0.yaml#/template: `template` is not known here; write `templates`"),
        (file(permission=[]), "0.yaml#/templates/until/permission: `permission` is not known here"),
        (file(zh=""), "0.yaml#/templates/until/zh: it is no text, or an empty one"),
        (file(constraint=[]), "0.yaml#/templates/until/parameters/end: it is used nowhere; write `$end` where it belongs, or leave it out"),
        (file(parameters={}), "0.yaml#/templates/until: `$end` is no parameter of it; add it to `parameters`"),
        (file(parameters={"end": {"type": "day", "en": "x", "zh": "x"}}), "/parameters/end/type: `day` is not among the choices"),
        (file(parameters={"end": {"type": "integer", "low": "x", "en": "x", "zh": "x"}}), "/parameters/end/low: `x` is no number"),
        (file(cases=UNTIL["cases"][:1]), "0.yaml#/templates/until/cases: it has not both an allowed and a denied case"),
        (file(cases=[{**UNTIL["cases"][0], "result": "maybe"}]), "/cases/0/result: `maybe` is not among the choices"),
        (file(cases=[{**UNTIL["cases"][0], "world": {"now": "soon"}}]), "/cases/0/world/now: it is no date or instant"),
        (file(cases=[{**UNTIL["cases"][0], "world": {"used": {"odrl:count": "x"}}}]), "/cases/0/world/used/odrl:count: it is no number"),
        (file(cases=[{**UNTIL["cases"][0], "request": {"who": "x"}}]), "/cases/0/request/who: `who` is not known here"),
        (file(constraint={"leftOperand": "odrl:dateTime"}), "/templates/until/constraint: it is no list; write a list"),
        (file(constraint=[{"leftOperand": "purpose:x", "operator": "eq", "rightOperand": "$end"}]), "its prefix is not known"),
        (file(constraint=[{"leftOperand": "odrl:count", "operator": "is", "rightOperand": "$end"}]), "/constraint/0/operator: `is` is not"),
        (file(constraint=[{"leftOperand": "odrl:count", "operator": "eq"}]), "/constraint/0/rightOperand: it is missing"),
        (file(prohibition=[{"action": "odrl:sell", "duty": []}]), "/prohibition/0/duty: `duty` is not known here"),
        (file(duty=[{"constraint": []}]), "/templates/until/duty/0/action: it is missing"),
        ({**FILE, "templates": {"x": {key: UNTIL[key] for key in ("en", "zh", "cases")}}}, "/templates/x: it says nothing"),
    ],
)
def test_each_mistake_is_named_with_its_place_and_its_remedy(document: object, expected: str):
    assert any(expected in mistake for mistake in mistakes(document)), mistakes(document)


def test_the_mistakes_of_all_files_come_together():
    found = mistakes(file(en=5), {**file(), "licence": None, "templates": {}}, file())
    assert [mistake.partition(":")[0] for mistake in found] == ["0.yaml#/templates/until/en", "1.yaml#/licence", "2.yaml#/templates/until"]
    assert "there is another template `until`; choose another id" in found[2]


def test_two_templates_of_one_name_are_a_contradiction():
    with pytest.raises(PolicyError) as caught:
        read_templates({"a.yaml": file(), "b.yaml": file()})
    assert [finding.code for finding in caught.value.findings] == [Code.CONFLICTING_TERMS]


def test_the_25_usage_classes_are_there_and_every_code_of_duo_that_limits_use():
    classes = {template.stands_for for template in library().values()}
    assert {f"IDS {number}" for number in range(1, 26)} <= classes
    assert classes >= {
        "NRES", "GRU", "HMB", "DS", "POA", "CC", "RS", "GSO", "NMDS", "NPOA", "NPU", "NCU", "NPUNCU", "GS", "IS", "US", "PS", "TS", "MOR",
        "PUB", "COL", "IRB", "RTN",
    }  # fmt: skip


def test_every_template_has_names_in_both_languages_and_typed_parameters():
    assert len(library()) >= 70
    for template in library().values():
        assert all(template.label)
        assert all(all(parameter.label) for parameter in template.parameters.values())
