from typing import Any

import pytest

from connector.errors import PolicyError
from connector.odrl import load
from connector.odrl.model import DEFAULT_OPTIONS, Action
from connector.odrl.registry import registry_of
from connector.odrl.vocabulary import INCLUDED_IN, ODRL, WITHOUT_SUCCESSOR
from connector.odrl_reading.naming import actions, scopes
from connector.odrl_reading.reading import Dialect, Reading
from tests.odrl.cases import offer, purpose, rule
from tests.odrl_reading.pointers import patched

RDF_VALUE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#value"


def reading(dialect: Dialect = "dsp") -> Reading:
    return Reading(registry_of(DEFAULT_OPTIONS), dialect)


def codes(found: Reading) -> list[tuple[str, str]]:
    return [(finding.code.value, finding.path) for finding in found.findings]


def named(raw: object, dialect: Dialect = "dsp") -> tuple[tuple[Action, ...], Reading]:
    found = reading(dialect)
    return actions(raw, "/action", found), found


@pytest.mark.parametrize(
    ("dialect", "raw", "names"),
    [
        ("dsp", "use", ["use"]),
        ("dsp", "odrl:read", ["read"]),
        ("dsp", ODRL + "read", ["read"]),
        ("dsp", {"@id": "odrl:read"}, ["read"]),
        ("dsp", ["use", "odrl:read"], ["use", "read"]),
        ("dsp", {"rdf:value": "odrl:read"}, ["read"]),
        ("dsp", {RDF_VALUE: {"@id": "odrl:read"}}, ["read"]),
        ("odrl", "read", ["read"]),
        ("odrl", {"rdf:value": {"@id": "odrl:read"}}, ["read"]),
        ("odrl", {"@id": "odrl:read", "@type": "Action"}, ["read"]),
        ("dsp", None, []),
        ("dsp", [], []),
    ],
)
def test_an_action_is_known_in_every_form(dialect: Dialect, raw: object, names: list[str]) -> None:
    found, noted = named(raw, dialect)
    assert [each.iri.removeprefix(ODRL) for each in found] == names
    assert noted.findings == []
    assert all(each.within == noted.registry.within[each.iri] for each in found)


def test_an_action_may_be_narrowed() -> None:
    (found,), noted = named({"rdf:value": {"@id": "odrl:use"}, "odrl:refinement": [purpose("eq", "a")]})
    assert [node.path for node in found.refinements] == ["/action/odrl:refinement/0"]
    assert noted.usage == {ODRL + "purpose"}


@pytest.mark.parametrize(
    ("dialect", "raw", "code", "path"),
    [
        ("dsp", "read", "TERM_DROPPED", "/action"),
        ("dsp", "scry", "TERM_DROPPED", "/action"),
        ("dsp", "x:scry", "TERM_DROPPED", "/action"),
        ("dsp", "odrl:scry", "ACTION_UNSUPPORTED", "/action"),
        ("odrl", "scry", "ACTION_UNSUPPORTED", "/action"),
        ("dsp", ["use", {"@id": "odrl:scry"}], "ACTION_UNSUPPORTED", "/action/1"),
        ("dsp", {"rdf:value": "odrl:scry"}, "ACTION_UNSUPPORTED", "/action/rdf:value"),
        ("dsp", {"rdf:value": "odrl:use", "x": 1}, "TERM_DROPPED", "/action/x"),
        ("dsp", {"rdf:value": "odrl:use", "@type": "Asset"}, "TERM_UNSUPPORTED", "/action/@type"),
        ("dsp", "", "MALFORMED", "/action"),
        ("dsp", 5, "MALFORMED", "/action"),
        ("dsp", {"odrl:refinement": []}, "MALFORMED", "/action"),
    ],
)
def test_an_action_that_cannot_be_meant_is_a_finding(dialect: Dialect, raw: object, code: str, path: str) -> None:
    _, noted = named(raw, dialect)
    assert codes(noted) == [(code, path)]


def test_the_right_spelling_of_an_action_is_offered() -> None:
    for raw, mended in (("read", "odrl:read"), ({"rdf:value": "read"}, {"rdf:value": "odrl:read"})):
        _, noted = named(raw)
        assert noted.findings[0].fix == "write `odrl:read`"
        assert patched({"action": raw}, noted.findings[0].patch) == {"action": mended}
    assert named("odrl:distribut")[1].findings[0].fix == "write `odrl:distribute` if that is meant"
    assert named("scry")[1].findings[0].patch == ()


@pytest.mark.parametrize(
    ("dialect", "raw", "mended"),
    [
        ("dsp", "odrl:write", "odrl:modify"),
        ("odrl", "write", "odrl:modify"),
        ("dsp", {"@id": "odrl:pay"}, "odrl:compensate"),
        (
            "dsp",
            {"rdf:value": {"@id": "odrl:copy"}, "odrl:refinement": []},
            {"rdf:value": {"@id": "odrl:reproduce"}, "odrl:refinement": []},
        ),
    ],
)
def test_a_deprecated_action_is_taken_and_its_name_of_today_offered_without_losing_what_narrows_it(
    dialect: Dialect, raw: object, mended: object
) -> None:
    found, noted = named(raw, dialect)
    assert [each.code for each in noted.findings] == ["DEPRECATED"]
    after = patched({"action": raw}, noted.findings[0].patch)["action"]
    assert after in (mended, {"@id": mended})
    again, clean = named(after, dialect)
    assert ([each.iri for each in again], clean.findings) == ([each.iri for each in found], [])


def scoped(raw: object, what: Any = "party", dialect: Dialect = "dsp") -> tuple[list[tuple[str, bool, int]], Reading]:
    found = reading(dialect)
    return [(each.id, each.collection, len(each.refinements)) for each in scopes(raw, what, "/x", found)], found


@pytest.mark.parametrize(
    ("dialect", "raw", "found"),
    [
        ("dsp", None, []),
        ("dsp", "did:web:a", [("did:web:a", False, 0)]),
        ("dsp", {"@id": "did:web:a"}, [("did:web:a", False, 0)]),
        ("dsp", ["did:web:a", {"@id": "did:web:b"}], [("did:web:a", False, 0), ("did:web:b", False, 0)]),
        ("dsp", {"@id": "urn:g", "@type": "PartyCollection", "odrl:refinement": [purpose("eq", "a")]}, [("urn:g", True, 1)]),
        ("dsp", {"odrl:source": "urn:g", "odrl:refinement": [purpose("eq", "a")] * 2}, [("urn:g", True, 2)]),
        ("odrl", {"type": "Party", "uid": "urn:a"}, [("urn:a", False, 0)]),
        ("odrl", {"type": "PartyCollection", "source": {"@id": "urn:g"}}, [("urn:g", True, 0)]),
    ],
)
def test_a_party_or_an_asset_is_an_id_or_a_collection(dialect: Dialect, raw: object, found: list[tuple[str, bool, int]]) -> None:
    scopes_found, noted = scoped(raw, dialect=dialect)
    assert scopes_found == found
    assert noted.findings == []


@pytest.mark.parametrize(
    ("raw", "what", "finding"),
    [
        ([], "party", ("EMPTY_SET", "/x")),
        ("", "party", ("MALFORMED", "/x")),
        ([1], "party", ("MALFORMED", "/x/0")),
        ({"@type": "Party"}, "party", ("MALFORMED", "/x")),
        ({"@id": "a", "x": 1}, "party", ("TERM_DROPPED", "/x/x")),
        ({"@id": "a", "@type": "Asset"}, "party", ("TERM_UNSUPPORTED", "/x/@type")),
        ({"@id": "a", "@type": "Party"}, "asset", ("TERM_UNSUPPORTED", "/x/@type")),
    ],
)
def test_parties_that_cannot_be_read_are_findings_and_not_everybody(raw: object, what: str, finding: tuple[str, str]) -> None:
    _, noted = scoped(raw, what)
    assert codes(noted) == [finding]


def test_every_party_counts_as_a_leaf() -> None:
    _, noted = scoped([f"did:web:{n}" for n in range(5)])
    assert noted.leaves == 4  # the rule itself counts as the first


def test_actions_count_among_the_leaves_of_a_policy_and_stand_once():
    known = sorted(INCLUDED_IN)[:40]
    with pytest.raises(PolicyError, match="more than 800 constraints and values"):
        load(offer(*[rule(action=known) for _ in range(30)]))
    with pytest.raises(PolicyError, match="more than 3200 words; write each once"):
        load(offer(*[rule(action=["odrl:read", "odrl:play"] * 100) for _ in range(30)]))
    (permission,) = load(offer(rule(action=["odrl:read", "odrl:play", "odrl:read"]))).permissions
    assert len(permission.actions) == 2


@pytest.mark.parametrize("iri", WITHOUT_SUCCESSOR)
def test_a_deprecated_action_that_nothing_replaces_is_refused_with_what_says_it_today(iri: str) -> None:
    bare = iri.removeprefix(ODRL)
    for word, dialect in ((iri, "dsp"), (f"odrl:{bare}", "dsp"), ({"@id": iri}, "dsp"), (bare, "odrl")):
        _, found = named(word, dialect)  # type: ignore[arg-type]
        (finding,) = found.findings
        assert (finding.code, finding.severity, finding.fix) == ("DEPRECATED", "error", WITHOUT_SUCCESSOR[iri])


def test_what_is_written_instead_of_a_deprecated_action_is_known() -> None:
    registry = registry_of(DEFAULT_OPTIONS)
    words = {word for fix in WITHOUT_SUCCESSOR.values() for word in fix.split("`")[1::2]}
    assert words <= {*registry.actions, *registry.operands}
    assert WITHOUT_SUCCESSOR.keys().isdisjoint(registry.actions)


RESEARCH = {"refinement": [purpose("eq", "research")]}
ACT = {"@id": "urn:act", RDF_VALUE: {"@id": "odrl:read"}}
GROUP = {"@id": "urn:g", "@type": "PartyCollection"}


@pytest.mark.parametrize(
    ("narrowed", "otherwise", "more", "path"),
    [
        ({"action": ACT | RESEARCH}, {"action": ACT}, {}, "/permission/1/action"),
        ({"action": {"@id": "odrl:use"} | RESEARCH}, {"action": "use"}, {}, "/permission/1/action"),
        ({"action": "use", "assignee": GROUP | RESEARCH}, {"action": "use", "assignee": GROUP}, {}, "/permission/1/assignee"),
        ({"action": "use", "assignee": GROUP | RESEARCH}, {"action": "use", "assignee": "urn:g"}, {}, "/permission/1/assignee"),
        ({"action": "use", "assignee": GROUP | RESEARCH}, {"action": "use"}, {"assignee": "urn:g"}, "/permission/0/assignee"),
    ],
)
def test_what_an_id_narrows_in_one_place_it_narrows_in_each_as_for_readers_of_rdf(
    narrowed: dict[str, Any], otherwise: dict[str, Any], more: dict[str, Any], path: str
):
    """As a graph the second rule permits research; read one after the other, it would permit anything, or anybody."""
    document = offer(narrowed, otherwise, **more) | {"@context": "http://www.w3.org/ns/odrl.jsonld"}
    with pytest.raises(PolicyError, match=f"{path}: .* readers of RDF take both for one"):
        load(document)
    assert not load(offer(narrowed, narrowed) | {"@context": document["@context"]}).refused


def test_what_has_no_id_is_narrowed_by_itself():
    act = {RDF_VALUE: {"@id": "odrl:read"}}
    one, other = {"@type": "PartyCollection", "source": "urn:g"} | RESEARCH, {"@type": "PartyCollection", "source": "urn:g"}
    document = offer({"action": act | RESEARCH, "assignee": one}, {"action": act, "assignee": other})
    assert not load(document | {"@context": "http://www.w3.org/ns/odrl.jsonld"}).refused
