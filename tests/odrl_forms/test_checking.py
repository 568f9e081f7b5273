import pytest

from connector.errors import PolicyError
from connector.odrl.codes import Code
from connector.odrl.registry import Label
from connector.odrl_forms.checking import Checking, at
from connector.odrl_reading.reading import FINDINGS_MAX


def findings(checking: Checking) -> list[tuple[str, str, str]]:
    return [(finding.path, finding.message, finding.fix) for finding in checking.findings]


def test_a_key_that_is_not_known_gets_the_nearest_one_or_all_of_them():
    checking = Checking("pack")
    checking.mapping({"operandz": 1, "zzz": 2}, "/a", ("operands", "aliases"))
    assert sorted(findings(checking)) == [
        ("/a/operandz", "`operandz` is not known here", "write `operands`"),
        ("/a/zzz", "`zzz` is not known here", "use one of `operands`, `aliases`"),
    ]
    assert {finding.code for finding in checking.findings} == {Code.TERM_UNSUPPORTED}


@pytest.mark.parametrize("raw", [[], "text", 5, {1: 2}])
def test_what_is_no_mapping_of_names_is_a_mistake_and_counts_as_empty(raw: object):
    checking = Checking("pack")
    assert checking.mapping(raw, "/a") == {}
    assert findings(checking) == [("/a", "it is no mapping of names", "write `name: value` lines")]


def test_one_value_is_a_list_of_one():
    checking = Checking("pack")
    assert checking.entries("a", "/x") == [("/x", "a")]
    assert checking.entries(["a", "b"], "/x") == [("/x/0", "a"), ("/x/1", "b")]
    assert checking.entries(None, "/x") == []


def test_texts_flags_and_choices_say_what_would_do():
    checking = Checking("pack")
    assert checking.text(7, "/text") == ""
    assert checking.text(None, "/gone", required=True) == ""
    assert checking.text(None, "/free") == ""
    assert checking.flag("yes", "/flag") is False
    assert checking.flag(True, "/flag") is True
    assert checking.one_of("c", ("a", "b"), "/one") == "a"
    assert checking.one_of(None, ("a", "b"), "/none") == "a"
    assert checking.one_of(None, ("a", "b"), "/default", "b") == "b"
    assert findings(checking) == [
        ("/text", "it is no text, or an empty one", "write a text, in quotes where in doubt"),
        ("/gone", "it is missing", "write a text, in quotes where in doubt"),
        ("/flag", "`yes` is neither true nor false", "write `true` or `false`"),
        ("/one", "`c` is not among the choices", "write one of `a`, `b`"),
        ("/none", "it is missing", "write one of `a`, `b`"),
    ]


def test_a_row_has_a_name_in_both_languages_or_needs_none():
    checking = Checking("pack")
    assert checking.label({"en": "use", "zh": "使用"}, "/a") == Label("use", "使用")
    assert checking.label({}, "/a", required=False) == Label("", "")
    assert checking.findings == []
    checking.label({"en": "use"}, "/a")
    assert findings(checking) == [("/a/zh", "it is missing", "write a text, in quotes where in doubt")]


def test_words_are_expanded_by_the_prefixes_of_the_file():
    checking = Checking("pack")
    assert checking.learn({"ex": "https://ex.example/#"}, "/prefixes") == {"ex": "https://ex.example/#"}
    assert checking.words(["ex:a", "odrl:use", "urn:x:y"], "/w") == ("https://ex.example/#a", "http://www.w3.org/ns/odrl/2/use", "urn:x:y")
    assert checking.word("BARE", "/w", bare=True) == "BARE"
    assert checking.word("$.credentialSubject.gx:id", "/w", bare=True) == "$.credentialSubject.gx:id"
    assert checking.findings == []
    checking.word("BARE", "/w")
    checking.word("foaf:name", "/w", bare=True)
    assert [message for _, message, _ in findings(checking)] == [
        "`BARE` is no IRI, and its prefix is not known",
        "`foaf:name` is no IRI, and its prefix is not known",
    ]


def test_a_prefix_of_the_protocol_keeps_its_meaning_and_a_namespace_is_absolute():
    checking = Checking("pack")
    assert checking.learn({"odrl": "https://evil.example/", "ex": "not absolute", "dct": "http://purl.org/dc/terms/"}, "/prefixes") == {
        "dct": "http://purl.org/dc/terms/"
    }
    assert [path for path, _, _ in findings(checking)] == ["/prefixes/odrl", "/prefixes/ex"]


def test_all_mistakes_come_together_and_a_file_full_of_them_is_given_up():
    checking = Checking("pack `x`")
    checking.done()
    checking.note("/a", "first", "mend it")
    checking.note("/b", "second", "mend it")
    with pytest.raises(PolicyError, match=r"pack `x` cannot be used: /a: first; mend it, and 1 more") as caught:
        checking.done()
    assert len(caught.value.findings) == 2
    with pytest.raises(PolicyError):
        [checking.note("/a", "again", "mend it") for _ in range(FINDINGS_MAX)]


def test_a_pointer_escapes_and_a_key_that_nobody_can_read_is_pointed_at_through_its_parent():
    assert at("/a", "x/y~z") == "/a/x~1y~0z"
    assert at("/a", "x\ny") == "/a"
    assert at("/a", "x" * 500) == "/a"
