from typing import Any

import pytest

from connector.errors import PolicyError
from connector.odrl import Code
from connector.odrl_reading.reading import FINDINGS_MAX, LEAVES_MAX, Reading, canonical, nearest, parties, several, strangers, text, type_of


def codes(reading: Reading) -> list[tuple[str, str]]:
    return [(finding.code.value, finding.path) for finding in reading.findings]


def test_a_document_with_too_many_findings_is_given_up() -> None:
    reading = Reading()
    for index in range(FINDINGS_MAX):
        reading.note(Code.TERM_DROPPED, f"/{index}", "what", "how")
    with pytest.raises(PolicyError) as caught:
        reading.note(Code.TERM_DROPPED, "/last", "what", "how")
    assert caught.value.findings[-1].code == Code.LIMIT_EXCEEDED
    assert len(caught.value.findings) == FINDINGS_MAX + 1


def test_a_document_with_too_many_leaves_is_given_up() -> None:
    reading = Reading()
    reading.count(LEAVES_MAX, "")
    with pytest.raises(PolicyError, match=str(LEAVES_MAX)):
        reading.count(1, "/permission")


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("target", "TARGET_IN_RULE"),
        ("remedy", "DUTY_UNSUPPORTED"),
        ("odrl:duty", "DUTY_UNSUPPORTED"),
        ("odrl:action", "TERM_UNSUPPORTED"),
        ("odrl:refinement", "TERM_UNSUPPORTED"),
        ("http://www.w3.org/ns/odrl/2/refinement", "TERM_UNSUPPORTED"),
        ("refinement", "TERM_DROPPED"),
        ("edc:foo", "TERM_DROPPED"),
        ("acton", "TERM_DROPPED"),
    ],
)
def test_a_property_that_is_not_known_is_a_finding(key: str, code: str) -> None:
    reading = Reading()
    assert strangers({"action": "use", key: 1}, frozenset({"action"}), "/permission/0", reading) == f'{{"{key}":1}}'
    assert codes(reading) == [(code, f"/permission/0/{key.replace('/', '~1')}")]


def test_a_misspelt_property_gets_its_right_name() -> None:
    reading = Reading()
    strangers({"acton": 1}, frozenset({"action"}), "", reading)
    assert reading.findings[0].fix == "write `action`"


def test_a_key_that_nobody_can_read_is_pointed_at_through_its_parent() -> None:
    reading = Reading()
    strangers({"a\x00b": 1, "c" * 1000: 2}, frozenset(), "/x", reading)
    assert {finding.path for finding in reading.findings} == {"/x"}
    assert all(finding.message.isprintable() and len(finding.message) < 200 for finding in reading.findings)


def test_a_flood_of_unknown_properties_is_given_up_at_once() -> None:
    reading = Reading()
    with pytest.raises(PolicyError, match="100000 properties"):
        strangers({str(n): n for n in range(100_000)}, frozenset(), "", reading)


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (None, frozenset()),
        ("did:web:a", {"did:web:a"}),
        ({"@id": "did:web:a"}, {"did:web:a"}),
        (["did:web:a", {"@id": "did:web:b"}], {"did:web:a", "did:web:b"}),
    ],
)
def test_parties_are_ids_in_any_form(raw: object, found: set[str]) -> None:
    reading = Reading()
    assert parties(raw, "/assignee", reading) == found
    assert not reading.findings


@pytest.mark.parametrize(
    ("raw", "finding"),
    [
        ([], ("EMPTY_SET", "/assignee")),
        ("", ("MALFORMED", "/assignee")),
        ([1], ("MALFORMED", "/assignee/0")),
        ({"@id": "a", "x": 1}, ("MALFORMED", "/assignee")),
    ],
)
def test_parties_that_cannot_be_read_are_findings_and_not_everybody(raw: object, finding: tuple[str, str]) -> None:
    reading = Reading()
    parties(raw, "/assignee", reading)
    assert codes(reading) == [finding]


def test_a_required_party_or_text_that_is_missing_is_a_finding() -> None:
    reading = Reading()
    parties(None, "/assigner", reading, required=True)
    text(None, "/@id", reading, required=True)
    assert codes(reading) == [("MALFORMED", "/assigner"), ("MALFORMED", "/@id")]


@pytest.mark.parametrize("written", ["Offer", "odrl:Offer", "http://www.w3.org/ns/odrl/2/Offer", ["Offer"]])
def test_a_type_is_known_in_every_spelling(written: object) -> None:
    reading = Reading()
    assert type_of({"@type": written}, "policy", "", reading) == "Offer"
    assert not reading.findings


@pytest.mark.parametrize("written", ["Set", ["Offer", "Agreement"], 1, {"a": {}}])
def test_another_type_is_a_finding(written: object) -> None:
    reading = Reading()
    assert type_of({"@type": written}, "policy", "", reading) is None
    assert codes(reading) == [("TERM_UNSUPPORTED", "/@type")]


def test_several_values_have_pointers_of_their_own() -> None:
    assert several(["a", "b"], "/p") == [("/p/0", "a"), ("/p/1", "b")]
    assert several("a", "/p") == [("/p", "a")]
    assert several(None, "/p") == []


def test_canonical_json_ignores_the_order_of_keys() -> None:
    assert canonical({"b": 1, "a": [2]}, "") == canonical({"a": [2], "b": 1}, "") == '{"a":[2],"b":1}'


def test_bottomless_json_is_refused() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(PolicyError, match="nested too deeply"):
        canonical(deep, "/x")


def test_long_words_get_no_suggestion() -> None:
    assert nearest("purpos", {"purpose"}) == "purpose"
    assert nearest("purpos" * 100, {"purpose"}) is None
