from typing import Any

import pytest

from connector.errors import PolicyError
from connector.odrl import Code, Options, Profile, lint
from connector.odrl.model import DEFAULT_OPTIONS
from connector.odrl.registry import registry_of
from connector.odrl_reading.reading import (
    FINDINGS_MAX,
    LEAVES_MAX,
    Dialect,
    Reading,
    canonical,
    fields,
    iri,
    nearest,
    place,
    refusal,
    several,
    text,
    type_of,
)
from tests.odrl.cases import offer, rule
from tests.odrl_reading.pointers import patched

ODRL = "http://www.w3.org/ns/odrl/2/"
KNOWN = frozenset({"@id", "action", "remedy", "duty", "value", "isReplacedBy"})


def reading(dialect: Dialect = "dsp", **more: Any) -> Reading:
    return Reading(registry_of(DEFAULT_OPTIONS), dialect, **more)


def codes(found: Reading) -> list[tuple[str, str]]:
    return [(finding.code.value, finding.path) for finding in found.findings]


# --- limits


def test_a_document_with_too_many_findings_is_given_up() -> None:
    found = reading()
    for index in range(FINDINGS_MAX):
        found.note(Code.TERM_DROPPED, f"/{index}", "what", "how")
    with pytest.raises(PolicyError) as caught:
        found.note(Code.TERM_DROPPED, "/last", "what", "how")
    assert caught.value.findings[-1].code == Code.LIMIT_EXCEEDED
    assert len(caught.value.findings) == FINDINGS_MAX + 1


def test_warnings_refuse_nothing_however_many_they_are() -> None:
    found = reading()
    for index in range(FINDINGS_MAX + 1):
        found.note(Code.CONFLICT_UNSET, f"/{index}", "what", "how", "warning")
    assert len(found.findings) == FINDINGS_MAX
    with pytest.raises(PolicyError):
        found.note(Code.TERM_DROPPED, "/last", "what", "how")


def test_a_document_with_too_many_leaves_is_given_up() -> None:
    found = reading()
    found.count(LEAVES_MAX, "")
    with pytest.raises(PolicyError, match=str(LEAVES_MAX)):
        found.count(1, "/permission")


def test_a_flood_of_unknown_properties_is_given_up_at_once() -> None:
    with pytest.raises(PolicyError, match="100000 properties"):
        fields({str(n): n for n in range(100_000)}, frozenset(), "", reading())


def test_bottomless_json_is_refused() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(PolicyError, match="more than 1000 values"):
        canonical(deep, "/x")


def test_the_error_names_the_first_mistake_and_counts_the_others() -> None:
    found = reading()
    found.note(Code.ZONE_MISSING, "/a", "careful", "so", "warning")
    found.note(Code.MALFORMED, "/b", "wrong", "right")
    found.note(Code.MALFORMED, "/c", "wrong", "right")
    assert str(refusal("policy", tuple(found.findings))).startswith("policy cannot be used: /b: wrong; right, and 1 more")


# --- properties


@pytest.mark.parametrize(
    ("dialect", "key", "term"),
    [
        ("dsp", "action", "action"),
        ("dsp", "odrl:action", "action"),
        ("dsp", ODRL + "action", "action"),
        ("dsp", "odrl:remedy", "remedy"),
        ("dsp", "odrl:uid", "@id"),
        ("dsp", "rdf:value", "value"),
        ("dsp", "dct:isReplacedBy", "isReplacedBy"),
        ("odrl", "remedy", "remedy"),
        ("odrl", "uid", "@id"),
        ("odrl", "odrl:remedy", "remedy"),
    ],
)
def test_a_property_is_known_by_every_spelling_that_its_context_gives_it(dialect: Dialect, key: str, term: str) -> None:
    found = reading(dialect)
    known, opaque = fields({key: 1}, KNOWN, "/p", found)
    assert (dict(known), opaque, found.findings) == ({term: 1}, "", [])
    assert place(known, "/p", term) == "/p/" + key.replace("/", "~1")


@pytest.mark.parametrize(
    ("dialect", "key", "code", "fix"),
    [
        ("dsp", "target", "TARGET_IN_RULE", "leave it out"),
        ("dsp", "remedy", "TERM_DROPPED", "write `odrl:remedy`"),
        ("dsp", "refinement", "TERM_DROPPED", "leave it out"),
        ("dsp", "value", "TERM_DROPPED", "write `http://www.w3.org/1999/02/22-rdf-syntax-ns#value`"),
        ("odrl", "isReplacedBy", "TERM_DROPPED", "write `dct:isReplacedBy`"),
        ("dsp", "assigner", "TERM_UNSUPPORTED", "leave it out"),
        ("dsp", "odrl:refinement", "TERM_UNSUPPORTED", "leave it out"),
        ("dsp", ODRL + "refinement", "TERM_UNSUPPORTED", "leave it out"),
        ("dsp", "@graph", "TERM_DROPPED", "leave it out"),
        ("dsp", "edc:foo", "TERM_DROPPED", "leave it out"),
        ("dsp", "acton", "TERM_DROPPED", "write `action`"),
        ("dsp", "remedi", "TERM_DROPPED", "write `odrl:remedy`"),
        ("dsp", "uid", "TERM_DROPPED", "leave it out"),
        ("odrl", "refinement", "TERM_UNSUPPORTED", "leave it out"),
        ("odrl", "remedi", "TERM_DROPPED", "write `remedy`"),
        ("odrl", "consentingParty", "TERM_UNSUPPORTED", "leave it out"),
    ],
)
def test_a_property_that_is_not_known_is_a_finding(dialect: Dialect, key: str, code: str, fix: str) -> None:
    found = reading(dialect)
    known, opaque = fields({"action": "use", key: 1}, KNOWN, "/permission/0", found)
    assert (dict(known), opaque) == ({"action": "use"}, f'{{"{key}":1}}')
    assert codes(found) == [(code, f"/permission/0/{key.replace('/', '~1')}")]
    assert found.findings[0].fix == fix


@pytest.mark.parametrize(("key", "then"), [("remedy", "odrl:remedy"), ("acton", "action"), ("remedi", "odrl:remedy")])
def test_a_property_with_a_wrong_name_is_moved_to_the_right_one(key: str, then: str) -> None:
    document = {"permission": [{key: [1]}]}
    found = reading()
    fields(document["permission"][0], KNOWN, "/permission/0", found)
    assert patched(document, found.findings[0].patch) == {"permission": [{then: [1]}]}


def test_no_patch_overwrites_what_is_there_or_turns_one_term_into_another() -> None:
    found = reading()
    for raw in ({"acton": 1, "action": 2}, {"remedy": 1, "odrl:remedy": 2}, {"assigner": 1}, {"edc:foo": 1}):
        fields(raw, KNOWN | {"assignee"}, "", found)
    assert [finding.patch for finding in found.findings] == [()] * 4


def test_a_property_that_stands_twice_must_say_the_same() -> None:
    found = reading()
    fields({"action": "use", "odrl:action": "use"}, KNOWN, "", found)
    assert codes(found) == []
    fields({"action": "use", "odrl:action": "read"}, KNOWN, "", found)
    assert codes(found) == [("MALFORMED", "/odrl:action")]


def test_notes_of_people_are_no_properties() -> None:
    found = reading()
    known, opaque = fields({"action": "use", "dct:title": "x", "rdfs:comment": "y", "skos:note": "z"}, KNOWN, "", found)
    assert (dict(known), opaque, found.findings) == ({"action": "use"}, "", [])


def test_a_key_that_nobody_can_read_is_pointed_at_through_its_parent() -> None:
    found = reading()
    fields({"a\x00b": 1, "c" * 1000: 2}, frozenset(), "/x", found)
    assert {finding.path for finding in found.findings} == {"/x"}
    assert all(finding.message.isprintable() and len(finding.message) < 200 for finding in found.findings)
    assert [finding.patch for finding in found.findings] == [(), ()]


def test_the_prefixes_of_a_profile_are_known_beside_those_of_the_context() -> None:
    found = Reading(registry_of(Options(profiles=(Profile("x", prefixes={"x": "https://x.example/"}),))))
    assert found.expand("x:mood") == "https://x.example/mood"
    assert found.expand("odrl:read") == ODRL + "read"
    assert [found.expand(word) for word in ("y:mood", "mood", "skos:note")] == [None, None, "http://www.w3.org/2004/02/skos/core#note"]


# --- shapes


@pytest.mark.parametrize("written", ["Offer", "odrl:Offer", ODRL + "Offer", ["Offer"]])
def test_a_type_is_known_in_every_spelling(written: object) -> None:
    found = reading()
    assert type_of({"@type": written}, "policy", "", found) == "Offer"
    assert not found.findings


@pytest.mark.parametrize("written", ["Duty", ["Offer", "Agreement"], 1, {"a": {}}, []])
def test_another_type_is_a_finding(written: object) -> None:
    found = reading()
    assert type_of({"@type": written}, "policy", "", found) is None
    assert codes(found) == [("TERM_UNSUPPORTED", "/@type")]


def test_of_several_types_in_a_graph_one_is_ours() -> None:
    found = reading("odrl")
    assert type_of({"@type": ["https://schema.org/Thing", "odrl:Asset"]}, "asset", "", found) == "Asset"
    assert type_of({}, "asset", "", found) is None
    assert not found.findings


def test_several_values_have_pointers_of_their_own() -> None:
    assert several(["a", "b"], "/p") == [("/p/0", "a"), ("/p/1", "b")]
    assert several({"@list": ["a"]}, "/p") == [("/p/@list/0", "a")]
    assert several("a", "/p") == [("/p", "a")]
    assert several(None, "/p") == []


@pytest.mark.parametrize("raw", ["urn:x", {"@id": "urn:x"}, {"@value": "urn:x"}])
def test_an_id_is_a_string_in_any_form(raw: object) -> None:
    found = reading()
    assert iri(raw, "/x", found) == "urn:x"
    assert not found.findings


@pytest.mark.parametrize("raw", ["", 5, ["a"], {"@id": 5}, {"@id": "a", "x": 1}])
def test_what_is_no_id_is_a_finding(raw: object) -> None:
    found = reading()
    assert iri(raw, "/x", found) is None
    assert codes(found) == [("MALFORMED", "/x")]


def test_a_text_that_is_missing_matters_where_it_is_required() -> None:
    found = reading()
    assert text(None, "/a", found) is None
    assert codes(found) == []
    assert text(None, "/b", found, required=True) is None
    assert codes(found) == [("MALFORMED", "/b")]


def test_a_finding_says_where_in_a_graph_it_stands() -> None:
    found = reading()
    found.source = {"/a": "urn:node, line 3"}.__getitem__
    found.note(Code.MALFORMED, "/a", "wrong", "right")
    assert found.findings[0].source == "urn:node, line 3"


def test_canonical_json_ignores_the_order_of_keys() -> None:
    assert canonical({"b": 1, "a": [2]}, "") == canonical({"a": [2], "b": 1}, "") == '{"a":[2],"b":1}'


def test_long_words_get_no_suggestion() -> None:
    assert nearest("purpos", {"purpose"}) == "purpose"
    assert nearest("purpos" * 100, {"purpose"}) is None


def test_the_first_unknown_words_get_a_suggestion_and_all_get_a_finding() -> None:
    found = lint(offer(*[rule(action=f"odrl:distribut{n}") for n in range(20)]))
    unknown = [finding for finding in found if finding.code is Code.ACTION_UNSUPPORTED]
    assert [finding.fix for finding in unknown[:5]] == ["write `odrl:distribute` if that is meant"] * 5
    assert {finding.fix for finding in unknown[5:]} == {"write `use` or another core action"}
    assert len(unknown) == 20
