import pytest

from connector.odrl_rdf.rdf import ABSOLUTE_IRI, RDF, Graph, Literal, Term, is_blank

FIRST, REST, NIL = RDF + "first", RDF + "rest", RDF + "nil"


def chain(*members: Term, end: Term = NIL) -> Graph:
    graph = Graph()
    for index, member in enumerate(members):
        graph.add(f"_:{index}", FIRST, member)
        graph.add(f"_:{index}", REST, f"_:{index + 1}" if index + 1 < len(members) else end)
    graph.add("urn:s", "urn:p", "_:0" if members else NIL)
    return graph


@pytest.mark.parametrize("members", [(), ("urn:a",), ("urn:a", Literal("b"), "urn:a")])
def test_a_chain_is_the_list_that_it_stands_for(members: tuple[Term, ...]):
    assert chain(*members).objects("urn:s", "urn:p") == [members]


def test_a_chain_may_end_in_a_list():
    assert chain("urn:a", end=("urn:b",)).objects("urn:s", "urn:p") == [("urn:a", "urn:b")]
    assert chain("urn:a", end=()).objects("urn:s", "urn:p") == [("urn:a",)]


def test_a_chain_without_an_end_is_no_list():
    for graph in (chain("urn:a", "urn:b", end="_:0"), chain("urn:a", end="urn:elsewhere"), chain("urn:a", end=Literal("x"))):
        assert graph.objects("urn:s", "urn:p") == ["_:0"]


@pytest.mark.parametrize("more", [(FIRST, "urn:c"), (REST, "_:0")])
def test_a_chain_that_forks_is_no_list(more: tuple[str, str]):
    graph = chain("urn:a", "urn:b")
    graph.add("_:1", *more)
    assert graph.objects("urn:s", "urn:p") == ["_:0"]


def test_what_is_said_twice_is_said_once():
    graph = Graph()
    for value in ("urn:a", Literal("a"), "urn:a", Literal("a"), Literal("a", language="en")):
        graph.add("urn:s", "urn:p", value)
    assert graph.objects("urn:s", "urn:p") == ["urn:a", Literal("a"), Literal("a", language="en")]


@pytest.mark.parametrize("iri", ["urn:a", "http://a.example/ä?b#c", "did:web:a", "x-y.z+1:"])
def test_an_absolute_iri_is_known(iri: str):
    assert ABSOLUTE_IRI.fullmatch(iri)


@pytest.mark.parametrize(
    "iri", ["", "a", "/a", "1:a", ":a", "_:a", "urn:a b", 'urn:"a"', "urn:a\n", "urn:<a>", "urn:{a}", "urn:a\\", "urn:\ud800"]
)
def test_what_could_break_out_of_an_iri_is_none(iri: str):
    assert not ABSOLUTE_IRI.fullmatch(iri)


def test_a_blank_node_is_told_from_an_iri_and_a_literal():
    assert [is_blank(term) for term in ("_:a", "urn:a", Literal("_:a"), ("_:a",))] == [True, False, False, False]
