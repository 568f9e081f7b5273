import json

import pytest

from connector.odrl.codes import Code, Finding, Result, Stage


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


def test_a_finding_shows_both_sides_its_place_in_a_graph_and_what_mends_it_where_there_are_any() -> None:
    patch = ({"op": "replace", "path": "/a", "value": 1},)
    finding = Finding(Code.OPERATOR_UNSUPPORTED, "/a", "no", "yes", "warning", ("eq", "neq"), "like", patch, "urn:node, line 7")
    assert str(finding) == "/a (urn:node, line 7): no; yes"
    document = json.loads(json.dumps(finding.to_json()))
    assert (document["expected"], document["found"], document["source"]) == (["eq", "neq"], "like", "urn:node, line 7")
    assert document["patch"] == [{"op": "replace", "path": "/a", "value": 1}]


@pytest.mark.parametrize("words", [Code, Result, Stage])
def test_every_word_is_its_own_text_so_that_it_is_stored_and_sent_as_it_reads(words: type[Code | Result | Stage]) -> None:
    for word in words:
        assert words(str(word)) is word
        assert f"{word}" == word.value


def test_the_codes_are_the_stable_words_that_peers_know() -> None:
    assert all(code.value == code.name for code in Code)
    assert {result.value for result in Result} == {"permit", "permit-with", "deny", "unknown"}
    assert {stage.value for stage in Stage} == {"catalog", "negotiation", "transfer"}
