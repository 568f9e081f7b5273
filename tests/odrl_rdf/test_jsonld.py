"""JSON-LD of any shape is one graph; what a reader of JSON-LD would drop or guess is a finding with its place."""

from typing import Any

import pytest

from connector.errors import PolicyError
from connector.odrl import Code
from connector.odrl.vocabulary import DSP_CONTEXT, ODRL, W3C_CONTEXT
from connector.odrl_rdf.contexts import CONTEXTS
from connector.odrl_rdf.jsonld import CONTEXTS_MAX, DEPTH_MAX, TERMS_MAX, VALUES_MAX, graph_of
from connector.odrl_rdf.rdf import RDF, TYPE, XSD, Graph, Literal

P = "urn:p"


def graph(document: Any) -> Graph:
    return graph_of(document, CONTEXTS)


def values(raw: Any, *context: Any) -> list[Any]:
    """What a node says by `urn:p`."""
    return graph({"@context": [{"p": P}, *context], "@id": "urn:s", "p": raw}).objects("urn:s", P)


def test_compact_expanded_and_flattened_forms_are_one_graph():
    compact = {"@context": W3C_CONTEXT, "uid": "urn:s", "@type": "Set", "permission": {"uid": "urn:r", "action": "use"}}
    rule = {"@id": "urn:r", ODRL + "action": {"@id": ODRL + "use"}}
    expanded = [{"@id": "urn:s", "@type": [ODRL + "Set"], ODRL + "permission": [rule]}]
    flattened = {"@graph": [{"@id": "urn:s", "@type": ODRL + "Set", ODRL + "permission": {"@id": "urn:r"}}, rule]}
    prefixed = {
        "@context": {"o": ODRL, "o:action": {"@type": "@id"}},
        "@graph": [{"@id": "urn:s", "@type": "o:Set", "o:permission": {"@id": "urn:r", "o:action": "o:use"}}],
    }
    found = [graph(document).nodes for document in (compact, expanded, flattened, prefixed)]
    assert found[0] == found[1] == found[2] == found[3]
    assert found[0]["urn:r"] == {ODRL + "action": {ODRL + "use": None}}


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ("x", [Literal("x")]),
        (["x", ["y", ["x"]]], [Literal("x"), Literal("y")]),
        ({"@set": ["x", {"@set": "y"}]}, [Literal("x"), Literal("y")]),
        ({"@list": ["x", {"@list": []}, ["y"]]}, [(Literal("x"), (), (Literal("y"),))]),
        ([None, {"@value": None}, {"@list": [None]}], [()]),
        ([5, -1, 2.5, True, False], [Literal("5", XSD + "integer"), Literal("-1", XSD + "integer"), Literal("2.5", XSD + "double"),
            Literal("true", XSD + "boolean"), Literal("false", XSD + "boolean")]),
        ({"@value": "5", "@type": XSD + "integer"}, [Literal("5", XSD + "integer")]),
        ({"@value": "x", "@language": "EN", "@index": "i"}, [Literal("x", RDF + "langString", "en")]),
        ({"@id": "urn:o"}, ["urn:o"]),
        ({"@id": "_:b"}, ["_:b"]),
    ],
)  # fmt: skip
def test_a_value_is_read(raw: Any, found: list[Any]):
    assert values(raw) == found


@pytest.mark.parametrize(
    ("term", "raw", "found"),
    [
        ({"@type": "@id"}, "urn:o", "urn:o"),
        ({"@type": "@id"}, "_:o", "_:o"),
        ({"@type": "@id"}, 5, Literal("5", XSD + "integer")),
        ({"@type": "@vocab"}, "odrl:use", ODRL + "use"),
        ({"@type": "@vocab"}, "use", ODRL + "use"),
        ({"@type": "@none"}, "x", Literal("x")),
        ({"@type": "odrl:t"}, 5, Literal("5", ODRL + "t")),
        ({"@language": "fr"}, "x", Literal("x", RDF + "langString", "fr")),
        ({"@language": "fr"}, 5, Literal("5", XSD + "integer")),
        ({"@container": "@list"}, ["x", "x"], (Literal("x"), Literal("x"))),
        ({"@container": "@list"}, "x", (Literal("x"),)),
        ({"@container": "@list"}, {"@list": ["x"]}, (Literal("x"),)),
        ({"@container": "@set"}, "x", Literal("x")),
    ],
)
def test_a_value_is_read_as_its_term_says(term: dict[str, str], raw: Any, found: Any):
    assert values(raw, {"odrl": ODRL, "use": "odrl:use", "p": {"@id": P, **term}}) == [found]


def test_a_context_counts_from_where_it_stands_downwards():
    inner = {"@context": {"x": "urn:inner:x"}, "@id": "urn:i", "x": {"@id": "urn:ii", "x": "1"}}
    document = {"@context": {"x": "urn:outer:x"}, "@id": "urn:o", "x": [inner, {"@id": "urn:j", "x": "2"}]}
    assert list(graph(document).nodes["urn:ii"]) == ["urn:inner:x"]
    assert list(graph(document).nodes["urn:j"]) == ["urn:outer:x"]


def test_nodes_of_one_id_are_one_node_and_others_are_not():
    found = graph({"@context": {"p": P}, "@graph": [{"@id": "urn:s", "p": 1}, {"@id": "urn:s", "p": 2}, {"p": 3}, {"p": 3}]})
    assert len(found.objects("urn:s", P)) == 2
    assert len(found.nodes) == 3


def test_each_node_and_what_it_says_is_known_by_its_pointer():
    document = {"@context": W3C_CONTEXT, "@graph": [{"uid": "urn:s", "odrl:permission": [{"uid": "urn:r", "action": "use"}]}]}
    found = graph(document)
    places = [("urn:s", ""), ("urn:s", ODRL + "permission"), ("urn:r", ""), ("urn:r", ODRL + "action"), ("urn:r", ODRL + "target")]
    assert [found.place(*place) for place in places] == [
        "/@graph/0", "/@graph/0/odrl:permission", "/@graph/0/odrl:permission/0", "/@graph/0/odrl:permission/0/action", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "code", "path"),
    [
        ({"@context": {"p": P}, "p": {"remedy": 1}}, Code.TERM_DROPPED, "/p/remedy"),
        ({"@context": {"p": P, "gone": None}, "gone": 1}, Code.TERM_DROPPED, "/gone"),
        ({"@context": DSP_CONTEXT, "leftOperand": "dateTime"}, Code.TERM_DROPPED, "/leftOperand"),
        ({"@context": DSP_CONTEXT, "action": ["use", "read"]}, Code.TERM_DROPPED, "/action/1"),
        ({"@context": DSP_CONTEXT, "@type": "LogicalConstraint"}, Code.TERM_DROPPED, "/@type"),
        ({"permission": []}, Code.TERM_DROPPED, "/permission"),
        ({"@context": W3C_CONTEXT, "target": "relative"}, Code.MALFORMED, "/target"),
        ({"@context": W3C_CONTEXT, "uid": "relative"}, Code.MALFORMED, "/uid"),
        ({"@id": 5}, Code.MALFORMED, "/@id"),
        ({"@id": "urn:a", "@type": [5]}, Code.MALFORMED, "/@type/0"),
        ({"@context": W3C_CONTEXT, "uid": "urn:a", "@id": "urn:b"}, Code.MALFORMED, ""),
        ({P: {"@id": 'urn:"a"'}}, Code.MALFORMED, "/urn:p/@id"),
        ({P: {"@id": "urn:a\nb"}}, Code.MALFORMED, "/urn:p/@id"),
        ({P: {"@value": "x", "@type": "t"}}, Code.TERM_DROPPED, "/urn:p/@type"),
        ({P: {"@value": "x", "@type": XSD + "token", "@language": "en"}}, Code.MALFORMED, "/urn:p"),
        ({P: {"@value": "x", "@id": "urn:a"}}, Code.MALFORMED, "/urn:p"),
        ({P: {"@value": {"a": 1}}}, Code.TERM_UNSUPPORTED, "/urn:p"),
        ({P: {"@list": [], "@id": "urn:a"}}, Code.MALFORMED, "/urn:p"),
        ({"@reverse": {P: {"@id": "urn:a"}}}, Code.TERM_UNSUPPORTED, "/@reverse"),
        ({"@included": []}, Code.TERM_UNSUPPORTED, "/@included"),
        ({P: {"@graph": []}}, Code.TERM_UNSUPPORTED, "/urn:p/@graph"),
        ({"@id": "urn:g", "@graph": []}, Code.TERM_UNSUPPORTED, "/@graph"),
        ({"@graph": ["urn:a"]}, Code.MALFORMED, "/@graph/0"),
        (["urn:a"], Code.MALFORMED, "/0"),
        ("urn:a", Code.MALFORMED, ""),
        (None, Code.MALFORMED, ""),
        ({"@context": "https://elsewhere.example/", P: 1}, Code.CONTEXT_UNKNOWN, "/@context"),
        ({P: [{"@context": ["https://elsewhere.example/"]}]}, Code.CONTEXT_UNKNOWN, "/urn:p/0/@context/0"),
    ],
)  # fmt: skip
def test_what_a_reader_would_drop_or_guess_is_a_finding(document: Any, code: Code, path: str):
    with pytest.raises(PolicyError) as caught:
        graph(document)
    (finding,) = caught.value.findings
    assert (finding.code, finding.path) == (code, path)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels - 1):
        value = [value]
    return {P: value}


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (deep(DEPTH_MAX - 1), deep(DEPTH_MAX)),
        ({P: [0] * (VALUES_MAX - 1)}, {P: [0] * VALUES_MAX}),
        ({"@context": [{}] * CONTEXTS_MAX}, {"@context": [{}] * (CONTEXTS_MAX + 1)}),
        ({"@context": dict.fromkeys(map(str, range(TERMS_MAX)), P)}, {"@context": dict.fromkeys(map(str, range(TERMS_MAX + 1)), P)}),
    ],
    ids=["depth", "values", "contexts", "terms"],
)
def test_beyond_each_limit_there_is_a_finding(small: Any, large: Any):
    graph(small)
    with pytest.raises(PolicyError) as caught:
        graph(large)
    assert [finding.code for finding in caught.value.findings] == [Code.LIMIT_EXCEEDED]


def test_an_object_within_itself_is_a_finding():
    document: dict[str, Any] = {}
    document[P] = document
    with pytest.raises(PolicyError, match="nested more than"):
        graph(document)


def test_nothing_of_the_document_is_changed():
    document = {"@context": [W3C_CONTEXT, {"ex": "urn:ex:"}], "uid": "ex:s", "permission": [{"action": "use"}]}
    before = repr(document)
    graph(document)
    assert repr(document) == before


def test_a_type_is_a_property_like_others():
    assert graph({"@context": W3C_CONTEXT, "uid": "urn:s", "type": ["Set", "urn:T"]}).objects("urn:s", TYPE) == [ODRL + "Set", "urn:T"]
