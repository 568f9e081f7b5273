import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from connector.dsp import forms, wire
from connector.dsp.messages import Move
from tests.pair import SCHEMAS

SAID: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data/edc/messages.json").read_text())
REQUEST = Move.CONTRACT_REQUEST.type


def constraint_of(said: str) -> dict[str, Any]:
    """The one constraint of a recorded request, as we read it."""
    document = wire.parse(orjson.dumps(SAID[said]), REQUEST, SCHEMAS)
    assert not isinstance(document, wire.NeedsExpansion)
    return dict(document["offer"]["permission"][0]["constraint"][0])


def test_a_list_that_edc_sends_as_text_is_the_list():
    assert (
        SAID["request-of-a-list"]["offer"]["permission"][0]["constraint"][0]["rightOperand"]
        == '[{"@value":"research"},{"@value":"quality"}]'
    )
    assert constraint_of("request-of-a-list")["rightOperand"] == ["research", "quality"]


def test_an_iri_that_edc_sends_as_text_is_the_iri():
    assert constraint_of("request-of-an-iri")["rightOperand"] == {"@id": "https://w3id.org/dpv#AcademicResearch"}


def test_a_group_of_one_is_an_array_also_under_a_context_that_nobody_here_knows():
    assert isinstance(SAID["request-of-a-group-of-one"]["offer"]["permission"][0]["constraint"][0]["or"], dict)
    assert [each["rightOperand"] for each in constraint_of("request-of-a-group-of-one")["or"]] == ["research"]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (
            '[{"@value":"5","@type":"http://www.w3.org/2001/XMLSchema#integer"}]',
            [{"@value": "5", "@type": "http://www.w3.org/2001/XMLSchema#integer"}],
        ),
        ('[{"@id":"urn:a"},{"@value":"b"}]', [{"@id": "urn:a"}, "b"]),
    ],
)
def test_each_kind_of_value_is_read_out_of_its_text(text: str, read: Any):
    assert forms.tidy({"rightOperand": text}) == {"rightOperand": read}


@pytest.mark.parametrize(
    "text",
    [
        "research",
        '[{"@value":"a"}',  # cut
        '[{"@value":"a"},"b"]',
        '[{"@value":5}]',  # a bare number is no value in messages
        '[{"@value":"a","@language":"en"}]',
        '{"@id":"urn:a","http://example.org/more":[{"@value":"b"}]}',
        "[{@value={chars=BPNPROVIDER, string=BPNPROVIDER, valueType=STRING}}]",
    ],
)
def test_any_other_text_stays_as_it_is(text: str):
    assert forms.tidy({"rightOperand": text}) == {"rightOperand": text}


def test_only_a_right_operand_is_the_text_of_values():
    said = {"@id": '{"@id":"urn:a"}', "reason": ['[{"@value":"a"}]'], "leftOperand": '{"@id":"urn:a"}'}
    assert forms.tidy(said) == said
