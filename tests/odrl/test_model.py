from dataclasses import FrozenInstanceError

import pytest

from connector.odrl import Code, Finding, Request, Stage, World
from tests.odrl.cases import NOW, policy, purpose, rule


def test_a_finding_reads_as_a_sentence_and_as_json() -> None:
    finding = Finding(Code.TYPE_MISMATCH, "/permission/0", "it does not fit", "write a string")
    assert str(finding) == "/permission/0: it does not fit; write a string"
    assert str(Finding(Code.MALFORMED, "", "it is no object", "give one")).startswith("the policy: ")
    assert finding.to_json() == {
        "code": "TYPE_MISMATCH",
        "path": "/permission/0",
        "message": "it does not fit",
        "fix": "write a string",
        "severity": "error",
    }


def test_a_request_that_names_no_stage_is_enforced() -> None:
    assert Request("did:web:a.example").stage == Stage.TRANSFER


def test_a_policy_cannot_be_changed() -> None:
    found = policy(rule(purpose("eq", "research")))
    with pytest.raises(FrozenInstanceError):
        found.refused = False  # type: ignore[misc]


def test_two_readings_of_one_document_are_equal() -> None:
    assert policy(rule(purpose("eq", "research"))) == policy(rule(purpose("eq", "research")))


def test_requests_and_worlds_have_nothing_to_say_by_default() -> None:
    assert Request("did:web:a.example").params == {}
    assert World(NOW).facts == {}
