"""The Turtle reader says what rdflib says, on real files and on each production of the grammar, and no less where that is lenient."""

import logging
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import rdflib
from hypothesis import given, settings
from hypothesis import strategies as st
from rdflib.compare import isomorphic

from connector.errors import PolicyError
from connector.odrl import Code
from connector.odrl_rdf.rdf import RDF, XSD, Literal
from connector.odrl_rdf.turtle import _TOKEN, DEPTH_MAX, MARKS_MAX, TOKENS_MAX, TURTLE_BYTES_MAX, graph_of
from tests.odrl_rdf.rdf_graphs import as_rdflib

FILES = sorted((Path(__file__).parents[1] / "data" / "odrl").rglob("*.ttl"))
SMALL_BYTES = 100_000
# Three files of the static analysis have a backslash before the end of an IRI, which rdflib takes for a part of it.
NO_TURTLE = {"unit_isolation", "or_valid_restriction", "or_expansion"}
HEAD = "@prefix a: <urn:a:> . @prefix : <urn:> .\n"


@pytest.fixture(autouse=True)
def as_written(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """rdflib brings literals into a form of its own, and logs those that it cannot."""
    monkeypatch.setattr(rdflib, "NORMALIZE_LITERALS", False)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("path", [path for path in FILES if path.stat().st_size < SMALL_BYTES], ids=lambda path: path.stem)
def test_a_real_file_is_the_same_graph(path: Path):
    if path.stem in NO_TURTLE:
        with pytest.raises(PolicyError, match=r"\\>` is no IRI"):
            graph_of(path.read_bytes())
    else:
        assert isomorphic(as_rdflib(graph_of(path.read_bytes())), rdflib.Graph().parse(path, format="turtle"))


def test_the_largest_policy_is_the_same_graph():
    (path,) = (path for path in FILES if path.stem == "policy-20")
    assert set(as_rdflib(graph_of(path.read_bytes()))) == set(rdflib.Graph().parse(path, format="turtle"))


@pytest.mark.parametrize(
    "text",
    [
        "a:s a:p a:o .",
        "a:s a a:C ; a:p a:o , a:q ;; a:r :x ; .",
        "<urn:s> <urn:p> <urn:o> . # nothing\n#nothing\n a:s a:p a:o.",
        "[] a:p a:o . [ a:p a:o ] . [ a:p [ a:q [] ] ] a:r a:o .",
        "_:b a:p _:c . _:c a:p _:b , _:b1.2-x .",
        'a:s a:p () , ( a:x ) , ( a:x "y" ( 1 2 ) [ a:q () ] ) .',
        'a:s a:p "x" , \'y\' , """a "quoted" b\n""" , \'\'\'it\'s\'\'\' , "" , \'\' , """""" .',
        r'a:s a:p "\t\b\n\r\f\"\'\\ ä \U00006865" , """\\""" .',
        'a:s a:p "x"@en , "x"@zh-hans , "x"^^a:t , "x"^^<urn:t> , "1"^^a:t .',
        "a:s a:p 1 , -1 , 0 , 1.5 , -0.5 , 1e3 , 1.e3 , .5E-1 , true , false .",
        "a:s.t a:p a:x.y , a: , : , a:x:y , a:%41 , a:1 , a:x- .",
        r"a:s a:p a:x\,y , a:\~ , a:x\/y\?z .",
        "a:s a:p true.: a:p false.:s a:q true.PREFIX b: <urn:b:> b:s a:p true.base <urn:c> b:t a:p false.@prefix c: <urn:c:> .",
        "PREFIX b: <urn:b:>\nprefix c: <urn:c:>\nb:s c:p b:o .",
        "@base <http://x.example/d/e> . <f> <#g> <../h> , <//i.example/> , <j/> .",
        "BASE <http://x.example/d/>\n@prefix e: <e/> . e:f a:p <> .",
        "@prefix a: <urn:other:> . a:s a:p a:o .",
        r"<urn:ä\U00006865> a:p a:桥 .",
        "\r\n\ta:s\ta:p\r\na:o\t.",
    ],
)
def test_each_production_of_the_grammar_is_the_same_graph(text: str):
    assert isomorphic(as_rdflib(graph_of(HEAD + text)), rdflib.Graph().parse(data=HEAD + text, format="turtle"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a:s a:p a:o", r"line 2\): a statement ends with `\.`"),
        ("\na:s a:p .", r"line 3\): a value is missing"),
        ("a:s a:p a:o , .", "a value is missing"),
        ("a:s .", "a property is missing"),
        ("a:s a .", "a value is missing"),
        ('a:s "p" a:o .', "a property is missing"),
        ('"s" a:p a:o .', "a statement begins with an IRI or a blank node"),
        ("( a:x ) a:p a:o .", "a statement begins with"),
        ("b:s a:p a:o .", "the prefix `b:` is not declared; write `@prefix b:"),
        ("a:s a:p <o> .", "`<o>` is no absolute IRI; write it in full, or say `@base"),
        ("@base <x/> .", "is no absolute IRI"),
        ("<> a:p a:o .", "is no absolute IRI"),
        ("@base <http://x.example/> . a:s a:p <//[x> .", r"`<//\[x>` is no absolute IRI"),
        ("@base <http://[/> . a:s a:p <x> .", "`<x>` is no absolute IRI"),
        ("@base <http://\u2100.example/> . a:s a:p <x> .", "`<x>` is no absolute IRI"),
        ("a:s a:p <urn:a b> .", "`<urn:a` is no IRI"),
        (r"a:s a:p <urn:a\u0020b> .", "is no absolute IRI"),
        (r"a:s a:p <urn:a\u003E> .", "is no absolute IRI"),
        ('a:s a:p "x\ny" .', "is no Turtle"),
        ('a:s a:p "x', "is no Turtle"),
        ("\v", "is no Turtle"),
        (r'a:s a:p "\x" .', r"`\\x` is no escape of Turtle"),
        (r'a:s a:p "\uD800" .', "is no character"),
        (r'a:s a:p "\U00110000" .', "is no character"),
        (r'a:s a:p "\u12" .', r"`\\u` is no escape of Turtle"),
        ('a:s a:p """x .', "a statement ends with|is no Turtle|a value is missing"),
        ("a:s a:p [ a:q a:o .", r"`\]` is missing"),
        ("a:s a:p ( a:o .", "a value is missing"),
        ("a:s a:p ( a:o ", r"`\)` is missing"),
        ("a:s a:p a:o ] .", r"a statement ends with `\.`"),
        ("@prefix b <urn:b:> .", "a prefix is missing"),
        ("@prefix b: <urn:b:>", r"a directive ends with `\.`"),
        ("@prefix b: a:x", "a directive ends"),
        ("@keywords a .", "`@keywords` is no directive"),
        ("a:s a:p a:%4 .", "has a `%` without two hexadecimal digits"),
        ("a:s a:p tru .", "a value is missing"),
        ("a:s a:p { a:s a:p a:o } .", "is no Turtle"),
        ("a:s a:p ?x .", "is no Turtle"),
        ("a:s a:p a:x!a:y .", "is no Turtle"),
        ("a:s => a:o .", "is no Turtle"),
        ("a:s is a:p of a:o .", "a property is missing"),
        ('a:s a:p "x"^^"y" .', "an IRI is missing"),
    ],
)
def test_what_is_no_turtle_is_refused_with_its_line(text: str, complaint: str):
    with pytest.raises(PolicyError, match=complaint) as caught:
        graph_of(HEAD + text)
    (finding,) = caught.value.findings
    assert (finding.code, finding.source[:5]) == (Code.MALFORMED, "line ")


def test_a_relative_iri_is_resolved_as_rfc_3986_says():
    graph = graph_of("@base <http://x.example/d/e> . <f> <#g> <?j> , <> .")
    assert graph.nodes == {
        "http://x.example/d/f": {"http://x.example/d/e#g": {"http://x.example/d/e?j": None, "http://x.example/d/e": None}}
    }


def test_a_percent_sign_may_be_escaped_in_a_name():
    assert graph_of(HEAD + r"a:s a:p a:5\%x .").objects("urn:a:s", "urn:a:p") == ["urn:a:5%x"]  # rdflib has no word for it


def test_literals_stay_as_they_are_written():
    graph = graph_of(HEAD + '<urn:s> a:p 007 , 1.50 , "2024-02-12T11:20:10.999Z"^^<http://www.w3.org/2001/XMLSchema#dateTime> , "X"@EN .')
    assert graph.objects("urn:s", "urn:a:p") == [
        Literal("007", XSD + "integer"),
        Literal("1.50", XSD + "decimal"),
        Literal("2024-02-12T11:20:10.999Z", XSD + "dateTime"),
        Literal("X", RDF + "langString", "en"),
    ]


def test_each_node_and_what_it_says_is_known_by_its_line():
    graph = graph_of("@prefix a: <urn:a:> .\na:s a:p a:o ;\n  a:q [\n    a:r 1 ] .\na:s a:t 2 .")
    (blank,) = graph.objects("urn:a:s", "urn:a:q")
    places = [("urn:a:s", ""), ("urn:a:s", "urn:a:q"), ("urn:a:s", "urn:a:t"), (blank, ""), (blank, "urn:a:r"), ("urn:a:o", "")]
    assert [graph.place(*place) for place in places] == ["line 2", "line 3", "line 5", "line 3", "line 4", ""]


@pytest.mark.parametrize(
    "text",
    [
        "#" * (TURTLE_BYTES_MAX + 1),
        HEAD + "a:s a:p a:o .\n" * (TOKENS_MAX // 4),
        HEAD + "a:s a:p " + "[ a:p " * (DEPTH_MAX + 1),
        HEAD + "a:s a:p " + "( " * (DEPTH_MAX + 1),
        HEAD + 'a:s a:p "' + "\\n" * MARKS_MAX + '" .',
    ],
    ids=["bytes", "tokens", "[", "(", "escapes"],
)
def test_beyond_each_limit_there_is_a_finding(text: str):
    with pytest.raises(PolicyError) as caught:
        graph_of(text)
    assert [finding.code for finding in caught.value.findings] == [Code.LIMIT_EXCEEDED]


def test_at_the_limits_there_is_none():
    nested = "[ a:p " * DEPTH_MAX + "1" + " ]" * DEPTH_MAX
    assert len(graph_of(HEAD + f"a:s a:p {nested} .").nodes) == DEPTH_MAX + 1
    statements = (TOKENS_MAX - 8) // 4
    graph = graph_of(HEAD + "".join(f"a:s{n // 2} a:p a:o{n} ." for n in range(statements)))
    assert sum(len(said["urn:a:p"]) for said in graph.nodes.values()) == statements


NAMES = st.sampled_from(["a:s", "a:o", ":", "<urn:x>", "_:b", "_:c"])
VALUES = st.recursive(
    NAMES | st.sampled_from(["1", "-2.5", "1e3", "true", '"x"', "'y'@en", '"""z"z"""', '"1"^^a:t', r'"\u6865\n"', "[ ]"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: f"( {' '.join(parts)} )")
        | st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"[ a:p {' , '.join(parts)} ; a a:C ]")
    ),
    max_leaves=6,
)
SLIPS = ["", ".", ";", ",", "[", "]", "(", ")", '"', "<", ">", "\\", ":", " ", "#", "@", "1"]


@st.composite
def statements(draw: st.DrawFn) -> str:
    """Some statements. No two lists or nodes without a name are alike: lists that are alike are two in RDF and one to us, and rdflib's
    comparison errs on such nodes."""
    said = st.tuples(NAMES, st.sampled_from(["a", "a:p", "<urn:q>"]), st.lists(VALUES, min_size=1, max_size=3))
    text = "\n".join(f"{subject} {predicate} {' , '.join(values)} ." for subject, predicate, values in draw(st.lists(said, max_size=4)))
    parts = re.split(r"(?<=[(\[]) ", text)
    return parts[0] + "".join(
        f" {index} {part}" if before[-1] == "(" else f" a:n {index} ; {part}" for index, (before, part) in enumerate(pairwise(parts))
    )


@settings(max_examples=60)
@given(statements())
def test_generated_statements_are_the_same_graph(text: str):
    assert isomorphic(as_rdflib(graph_of(HEAD + text)), rdflib.Graph().parse(data=HEAD + text, format="turtle"))


@given(statements(), st.integers(0, 10_000), st.sampled_from(SLIPS))
def test_a_slip_of_the_pen_is_a_finding_or_another_graph(text: str, at: int, slip: str):
    at %= len(text) + 1
    text = HEAD + text[:at] + slip + text[at + 1 :]
    try:
        graph = graph_of(text)
    except PolicyError as error:
        assert error.findings[0].source.startswith("line ")  # noqa: PT017 - either is fine, anything else is not
    else:
        assert all(said for node, said in graph.nodes.items() if not node.startswith("_:"))


def test_a_name_means_what_its_prefix_means_where_it_stands():
    graph = graph_of("@prefix a: <urn:x:> . a:s a:p a:o . @prefix a: <urn:y:> . a:s a:p a:o .")
    assert {node: list(said) for node, said in graph.nodes.items()} == {"urn:x:s": ["urn:x:p"], "urn:y:s": ["urn:y:p"]}


def test_no_group_is_repeated_without_giving_back_as_older_pythons_take_half_of_a_repetition():
    """Before 3.11.5, which Debian 12 has, `(?:\\.++[a-z]++)*+` takes the last dot of `.a.b.` too (cpython issue 106052)."""
    assert set(groups_that_give_nothing_back(re._parser.parse(r"a*+(?>(?:b|c)*)"))) == set()
    assert set(groups_that_give_nothing_back(re._parser.parse(r"(a(?:bc)*+|d)"))) == {2}
    assert set(groups_that_give_nothing_back(re._parser.parse(_TOKEN.pattern, _TOKEN.flags))) == set()


def groups_that_give_nothing_back(parsed: object) -> Iterator[int]:
    """How many parts each has that is repeated as a whole by `*+` or its like."""
    if isinstance(parsed, re._parser.SubPattern | list | tuple):
        for each in parsed:
            yield from groups_that_give_nothing_back(each)
            if isinstance(each, tuple) and each and each[0] is re._constants.POSSESSIVE_REPEAT and len(each[1][2]) > 1:
                yield len(each[1][2])
