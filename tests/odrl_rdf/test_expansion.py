"""What a word stands for is what pyld says it stands for, wherever both take the document."""

import json
from collections import Counter
from random import Random
from typing import Any

import pytest
import rdflib
from pyld import jsonld
from pyld.context_resolver import ContextResolver
from rdflib.compare import isomorphic

from connector.errors import PolicyError
from connector.odrl import Code
from connector.odrl.vocabulary import DSP_CONTEXT, ODRL, W3C_CONTEXT
from connector.odrl_rdf.contexts import CONTEXTS
from connector.odrl_rdf.expansion import Term, Words, below, entries
from connector.odrl_rdf.jsonld import graph_of
from tests.odrl_rdf.rdf_graphs import as_rdflib


def words(*context: Any) -> Words:
    return Words().opened(list(context), "/@context", CONTEXTS)


def load(url: str, _options: object) -> dict[str, Any]:
    return {"contentType": "application/ld+json", "contextUrl": None, "documentUrl": url, "document": CONTEXTS[url]}


# What it has read of contexts it keeps: they stay the same.
OPTIONS: dict[str, Any] = {"base": None, "documentLoader": load, "contextResolver": ContextResolver({}, load)}


def by_pyld(document: Any) -> rdflib.Graph | str:
    """The graph by the reference, or why it refuses the document or drops a part of it."""
    dropped: list[str | None] = []
    try:
        expanded = jsonld.expand(document, OPTIONS, on_property_dropped=dropped.append)
        text = jsonld.to_rdf(expanded, {**OPTIONS, "format": "application/n-quads"})
    except jsonld.JsonLdError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        return str(getattr(cause, "code", cause))
    return f"dropped {dropped}" if dropped else rdflib.Graph().parse(data=text, format="nt")


WORD = (
    "permission", "constraint", "leftOperand", "action", "rightOperand", "target", "odrl:permission", "ex:foo", "foo", "bar", "uid", "unit",
    "type", "@type", "@id", ODRL + "duty", "urn:x:y", "and", "operator",
)  # fmt: skip
VALUE = ("urn:a:b", "use", "odrl:use", "dateTime", "ex:v", "_:b1", "foo", "http://x.example/y", 5, True, None, ODRL + "read", "odrl:count")
IRI = ("urn:ex:", "http://ex.example/", "http://ex.example#", "ex:q", "odrl:use", "foo", "@id", "@type", ODRL, "urn:x")
DEFINED = ("ex", "foo", "bar", "odrl:action", "ex:foo", "permission", "uid", "type", "w3", "use")


def a_context(chance: Random, depth: int = 0) -> Any:
    if chance.random() < 0.35:
        return chance.choice(list(CONTEXTS))
    if depth == 0 and chance.random() < 0.6:
        return [chance.choice((W3C_CONTEXT, DSP_CONTEXT)), *(a_context(chance, 1) for _ in range(chance.randint(0, 2)))]
    found: dict[str, Any] = {"odrl": ODRL, "ex": "urn:ex:"} if chance.random() < 0.7 else {}
    found |= {"@vocab": chance.choice(("urn:v:", "http://v.example/"))} if chance.random() < 0.3 else {}
    found |= {"@language": chance.choice(("en", "DE"))} if chance.random() < 0.1 else {}
    found |= {"@protected": True} if chance.random() < 0.1 else {}
    for _ in range(chance.randint(0, 3)):
        name = chance.choice(DEFINED)
        found[name] = chance.choice((*IRI, None)) if chance.random() < 0.5 else a_definition(chance)
    return found


def a_definition(chance: Random) -> dict[str, Any]:
    parts = {
        "@id": chance.choice(IRI),
        "@type": chance.choice(("@id", "@vocab", "@none", "ex:t", "urn:t")),
        "@container": chance.choice(("@set", "@list", ["@set"])),
        "@language": chance.choice(("fr", None)),
        "@prefix": chance.choice((True, False)),
        "@protected": True,
    }
    return {key: value for (key, value), odds in zip(parts.items(), (0.8, 0.6, 0.3, 0.15, 0.1, 0.1), strict=True) if chance.random() < odds}


def a_value(chance: Random, depth: int) -> Any:
    kind = chance.random()
    if kind < 0.4:
        return chance.choice(VALUE)
    if kind < 0.5:
        more = {"@type": "http://www.w3.org/2001/XMLSchema#token"} if chance.random() < 0.4 else {"@language": "en"}
        return {"@value": chance.choice(VALUE[:7]), **(more if chance.random() < 0.6 else {})}
    if kind < 0.6:
        return {"@id": chance.choice(VALUE[:8])}
    if kind < 0.75:
        return {chance.choice(("@list", "@set")): [a_value(chance, depth + 1) for _ in range(chance.randint(0, 3))]}
    if kind < 0.85:
        return [a_value(chance, depth + 1) for _ in range(chance.randint(0, 3))]
    return a_node(chance, depth + 1)


def a_node(chance: Random, depth: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = {"@context": a_context(chance)} if chance.random() < (0.9 if depth == 0 else 0.05) else {}
    if chance.random() < 0.6:
        found["@id"] = chance.choice(VALUE[:8])
    for _ in range(chance.randint(0, 3) if depth < 4 else 0):
        word = chance.choice(WORD)
        if word in ("uid", "@id"):
            found[word] = chance.choice(VALUE[:8])
        elif word in ("type", "@type"):
            found[word] = chance.choice(("Set", "odrl:Set", "urn:T", ["Offer", "urn:x"]))
        else:
            found[word] = a_value(chance, depth)
    return found


def compare(seeds: range) -> Counter[str]:
    """How often both read a document, and how much there was in it; how often ours refuses it."""
    counted: Counter[str] = Counter()
    for seed in seeds:
        text = json.dumps(a_node(Random(seed)))
        try:
            ours = as_rdflib(graph_of(json.loads(text), CONTEXTS))
        except PolicyError as error:
            counted[f"refused: {error.findings[0].code}"] += 1
            continue
        theirs = by_pyld(json.loads(text))
        if theirs == "protected term redefinition":  # of one that only says `@set` otherwise, as the W3C's context after that of DSP
            counted["said again"] += 1
            continue
        assert isinstance(theirs, rdflib.Graph), (theirs, text)
        assert isomorphic(ours, theirs), text
        counted["read by both"] += 1
        counted["triples"] += len(ours)
    return counted


def test_what_is_read_says_the_same_as_by_pyld():
    counted = compare(range(500))
    assert counted["read by both"] > 80
    assert counted["triples"] > 150
    assert counted["said again"] < counted["read by both"] / 5


@pytest.mark.slow
def test_what_is_read_says_the_same_as_by_pyld_in_two_thousand_documents():
    counted = compare(range(1_000, 3_000))
    assert counted["read by both"] > 320
    assert counted["triples"] > 600
    assert counted["said again"] < counted["read by both"] / 5


def test_a_term_has_an_iri_a_type_a_container_and_a_language():
    found = words(
        {"ex": "urn:ex:", "t": {"@id": "ex:t", "@type": "@vocab", "@container": ["@list"]}, "l": {"@id": "ex:l", "@language": "en"}}
    )
    assert found.term("t") == Term("urn:ex:t", "@vocab", listed=True)
    assert found.term("l") == Term("urn:ex:l", language="en")
    assert found.term("unknown") == Term(None)


@pytest.mark.parametrize(
    ("word", "iri"),
    [
        ("use", ODRL + "use"),
        ("odrl:use", ODRL + "use"),
        ("urn:a:b", "urn:a:b"),
        ("http://a.example/", "http://a.example/"),
        ("_:b", "_:b"),
        ("ex:a:b", "urn:ex:a:b"),
        ("noprefix:a", "noprefix:a"),
        ("gone", None),
        ("unknown", "unknown"),
    ],
)
def test_a_word_is_expanded(word: str, iri: str | None):
    found = words(W3C_CONTEXT, {"ex": "urn:ex:", "noprefix": "urn:no", "gone": None})
    assert found.expand(word, vocabulary=True) == iri


def test_a_base_and_a_vocabulary_are_for_what_is_not_defined():
    found = words({"@base": "http://x.example/d/e", "@vocab": "urn:v:", "known": "urn:known"})
    assert found.expand("a", vocabulary=True) == "urn:v:a"
    assert found.expand("../a", relative=True) == "http://x.example/a"
    assert found.expand("known", relative=True) == "http://x.example/d/known"
    again = found.opened({"@base": None, "@vocab": None}, "", CONTEXTS)
    assert (again.expand("a", vocabulary=True, relative=True), again.expand("known", vocabulary=True)) == ("a", "urn:known")


@pytest.mark.parametrize(("base", "word"), [("http://x.example/", "//[x"), ("http://[/", "x"), ("http://\u2100.example/", "x")])
def test_what_makes_no_iri_with_its_base_is_left_as_it_is(base: str, word: str):
    assert words({"@base": base}).expand(word, relative=True) == word


def test_a_context_of_ours_is_read_once_and_what_a_document_says_by_it_is_not_kept():
    one, other = words(W3C_CONTEXT), words(W3C_CONTEXT)
    assert one.terms is other.terms
    graph_of({"@context": W3C_CONTEXT, "uid": "urn:a", "target": "urn:b"}, CONTEXTS)
    again = words(W3C_CONTEXT)
    assert (again.names, again.iris) == ({}, {})
    assert Words().opened(W3C_CONTEXT, "", {W3C_CONTEXT: {"@context": {}}}).terms == {}  # another one of its name is another


def test_terms_lean_on_each_other_in_any_order():
    found = words({"c": {"@id": "b:c", "@type": "a:t"}, "b": "a:b/", "a": "http://a.example/"})
    assert found.term("c") == Term("http://a.example/b/c", "http://a.example/t")


@pytest.mark.parametrize(
    ("context", "code", "path", "complaint"),
    [
        ("https://elsewhere.example/c", Code.CONTEXT_UNKNOWN, "/0", "is not at hand, and none is ever fetched"),
        ({"@context": W3C_CONTEXT}, Code.TERM_UNSUPPORTED, "/0/@context", "`@context` is not taken"),
        ({"@import": W3C_CONTEXT}, Code.TERM_UNSUPPORTED, "/0/@import", "`@import` is not taken"),
        ({"@propagate": False}, Code.TERM_UNSUPPORTED, "/0/@propagate", "`@propagate` is not taken"),
        ({"a": {"@id": "urn:a", "@container": "@index"}}, Code.TERM_UNSUPPORTED, "/0/a", "`@index` is not taken"),
        ({"a": {"@id": "urn:a", "@container": "@graph"}}, Code.TERM_UNSUPPORTED, "/0/a", "`@graph` is not taken"),
        ({"a": {"@id": "urn:a", "@type": "@json"}}, Code.TERM_UNSUPPORTED, "/0/a", "`@json` is not taken"),
        ({"a": {"@reverse": "urn:a"}}, Code.TERM_UNSUPPORTED, "/0/a", "`@reverse` is not taken"),
        ({"a": {"@id": "urn:a", "@context": {}}}, Code.TERM_UNSUPPORTED, "/0/a", "`@context` is not taken"),
        ({"a": "@value"}, Code.TERM_UNSUPPORTED, "/0/a", "`@value` is not taken"),
        ({"a": {"@id": "@graph"}}, Code.TERM_UNSUPPORTED, "/0/a", "`@graph` is not taken"),
        ({"a": "b"}, Code.MALFORMED, "/0/a", "`b` is no IRI"),
        ({"a": {"@type": "@id"}}, Code.MALFORMED, "/0/a", "it has no IRI"),
        ({"a": 5}, Code.MALFORMED, "/0/a", "it is no definition"),
        ({"": "urn:a"}, Code.MALFORMED, "/0/", "it is no definition"),
        ({"a": "b:x", "b": "a:x"}, Code.MALFORMED, "/0/a", "it is defined by itself"),
        ({"a": {"@id": 5}}, Code.MALFORMED, "/0/a", "its IRI is no string"),
        ({"a": {"@id": "urn:a", "@type": "b"}}, Code.MALFORMED, "/0/a", "its type `b` is no IRI"),
        ({"a": {"@id": "urn:a", "@language": 5}}, Code.MALFORMED, "/0/a", "its language is no string"),
        ({"x": "urn:x:", "x:a": "urn:other"}, Code.MALFORMED, "/0/x:a", "stands for another one"),
        ({"@vocab": "relative"}, Code.MALFORMED, "/0/@vocab", "it is no absolute IRI"),
        ({"ex": "urn:ex:", "ex:a": {"@prefix": True}}, Code.MALFORMED, "/0/ex:a", "it can be no prefix"),
        ({"a": {"@id": "@id", "@prefix": True}}, Code.MALFORMED, "/0/a", "it can be no prefix"),
        ({"@base": 5}, Code.MALFORMED, "/0/@base", "it is no absolute IRI"),
        (5, Code.MALFORMED, "/0", "it is no context"),
    ],
)
def test_a_context_that_is_not_taken_is_named_with_its_place(context: Any, code: Code, path: str, complaint: str):
    with pytest.raises(PolicyError, match=complaint) as caught:
        words(context)
    (finding,) = caught.value.findings
    assert (finding.code, finding.path) == (code, f"/@context{path}")


@pytest.mark.parametrize("more", [{"permission": "urn:other"}, {"odrl": "urn:other:"}, {"use": None}, None])
def test_the_dsp_context_cannot_be_bent(more: Any):
    with pytest.raises(PolicyError, match="protected"):
        words(DSP_CONTEXT, more)


def test_what_is_protected_may_be_said_again():
    assert words(DSP_CONTEXT, {"odrl": ODRL}).terms["odrl"].protected


def test_pointers_are_those_of_rfc_6901():
    assert below("/a", "b/c~d") == "/a/b~1c~0d"
    assert list(entries(["x", "y"], "/a")) == [("/a/0", "x"), ("/a/1", "y")]
    assert list(entries("x", "/a")) == [("/a", "x")]
