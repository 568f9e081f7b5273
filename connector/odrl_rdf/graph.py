"""RDF forms of a policy -> the plain tree that `connector.odrl.parse` reads: Turtle, and JSON-LD of any shape.

A graph may be anything: nodes that contain themselves, lists without an end, rules that are named and not described. The tree is finite,
holds each thing where the policy uses it, and what a graph cannot say in it is a finding. No IRI is ever looked up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from connector.errors import PolicyError
from connector.odrl.codes import Code
from connector.odrl.vocabulary import ODRL, PREFIXES, W3C_CONTEXT
from connector.odrl.words import shown
from connector.odrl_rdf import jsonld, turtle
from connector.odrl_rdf.contexts import CLASSES, CONTEXTS, LOGIC, NODES, TERMS
from connector.odrl_rdf.decoding import json_of, refusal
from connector.odrl_rdf.expansion import Contexts
from connector.odrl_rdf.rdf import ABSOLUTE_IRI, RDF, TYPE, XSD, Graph, Literal, Term, is_blank
from connector.odrl_reading.reading import is_tree
from connector.values import Value, field, replace

DEPTH_MAX: Final = 64  # of the tree; logical constraints may nest 32 deep
# Objects and values of the tree; the largest published policy has 3,153. What is used in several places counts in each, or a small graph
# makes a huge tree.
PARTS_MAX: Final = 4_000
NAMED_MAX: Final = 5  # policies that a finding names

POLICIES: Final = ("Policy", "Set", "Offer", "Agreement", "Request", "Ticket", "Assertion", "Privacy")
RULES: Final = frozenset({"permission", "prohibition", "obligation", "duty", "remedy", "consequence"})
_PARTS: Final = RULES | {"constraint", "refinement", *LOGIC}  # described where they are used, and always arrays
_NAMES: Final = (frozenset(NODES) | frozenset(TERMS)) - _PARTS  # what has to be an IRI
# Namespaces whose properties narrow what a thing is; others describe it. The last is Gaia-X's, of conditions that hang on an assignee.
_TELLING: Final = (ODRL, RDF, "https://w3id.org/gaia-x/ovc/1/")
_THINGS: Final = (frozenset(NODES) | {"action"}) - _PARTS - {"profile", "inheritFrom", "hasPolicy", "partOf", "source"}  # and may say more
_LITERALS: Final = frozenset({"rightOperand", "rightOperandReference", "unit", "dataType", "status"})
_BARE: Final = {ODRL + name: name for name in (*_PARTS, *_NAMES, *_LITERALS)} | {
    RDF + "value": "rdf:value",
    PREFIXES["dspace"] + "timestamp": "timestamp",
}
_PREDICATES: Final = {bare: iri for iri, bare in _BARE.items()} | {"@type": TYPE}
_TYPES: Final = {ODRL + name: name for name in CLASSES}
_STRING: Final = XSD + "string"
_UID: Final = ODRL + "uid"
_SAME: Final = {"https://www.w3.org/ns/odrl.jsonld": W3C_CONTEXT}  # as many write it
# The types that say of a thing only that it is one.
_SIMPLE_TYPES: Final = frozenset({ODRL + name for name in ("Asset", "Party", "Action", "LeftOperand", "Operator")})


class Tree(Value):
    """One policy as a plain tree in the words of the W3C's context. `nodes` says from which node of `graph` each object of it was made (by
    RFC 6901 pointer), `beside` are the other policies of the document (by IRI)."""

    document: dict[str, Any]
    nodes: Mapping[str, str] | None = None
    graph: Graph | None = None
    beside: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    def source(self, path: str) -> str:
        """Where the author wrote what `path` (RFC 6901, into the tree) points at: the IRI of the node and its place in the document.
        "" where the tree is the document itself."""
        if self.nodes is None or self.graph is None:
            return ""
        step = ""
        while path not in self.nodes:
            path, _, step = path.rpartition("/")
        node = self.nodes[path]
        key = step.replace("~1", "/").replace("~0", "~")
        place = self.graph.place(node, _PREDICATES.get(key, key)) or self.graph.place(node, "")
        return ", ".join(part for part in ("" if is_blank(node) else node, place) if part)


def graph_of(document: object, format: str, contexts: Mapping[str, Mapping[str, Any]] = CONTEXTS) -> Graph:
    """The graph of a document. `format` is `turtle` (text or bytes) or `json-ld` (text, bytes, or parsed JSON).

    Raises PolicyError with findings for what is neither, and beyond the limits that the readers of both name.
    """
    if format == "turtle":
        if not isinstance(document, str | bytes):
            raise refusal(Code.FORMAT_UNSUPPORTED, "Turtle is text", "give it as a string or as bytes")
        return turtle.graph_of(document)
    return jsonld.graph_of(_json(document, format), contexts)


def trees(document: object, format: str, contexts: Mapping[str, Mapping[str, Any]] = CONTEXTS) -> dict[str, Tree]:
    """Every policy of a document by its IRI ("" for the one that has none), in their order. Arguments and errors as for `tree`."""
    if format == "json-ld":
        document = _json(document, format)
        if isinstance(document, dict) and "@context" in document:
            named = document["@context"]
            document = {**document, "@context": [_SAME.get(one, one) if isinstance(one, str) else one for one in _several(named)]}
        if isinstance(document, dict) and is_tree(document):
            name = document.get("uid", document.get("@id"))
            return {name if isinstance(name, str) else "": Tree(document)}
    graph = graph_of(document, format, contexts)
    made = [_Making(graph).policy(node) for node in _roots(graph)]
    found = {str(one.document.get("@id", "")): one for one in made}
    if len(found) < len(made):
        raise refusal(Code.MALFORMED, "several of its policies have no IRI", "give each an IRI, or each a document")
    return found


def tree(document: object, format: str, *, id: str | None = None, beside: Contexts = CONTEXTS) -> Tree:
    """One policy of a document as the tree that `connector.odrl.load` reads.

    `document` and `format` are `turtle` (text or bytes) or `json-ld` (text, bytes, or parsed JSON of any shape); JSON-LD under the contexts
    of DSP 2025-1 and of the W3C alone is returned as it is. `id` is the IRI of the policy; without it there must be one, beside those that
    it inherits from. The contexts (URL -> document) of this package, and those `beside` them, are the only ones there are.

    Raises PolicyError with findings: what is wrong, where it stands, how to mend it.
    """
    found = trees(document, format, CONTEXTS if beside is CONTEXTS else {**beside, **CONTEXTS})
    if id is not None:
        if id not in found:
            raise refusal(Code.MALFORMED, f"there is no policy `{shown(id)}`", f"name one of {_named(found)}")
        return _beside(found, id)
    inherited = {name for one in found.values() for name in _several(one.document.get("inheritFrom")) if isinstance(name, str)}
    heirs = [name for name in found if name not in inherited]
    if len(heirs) != 1:
        if not found:
            raise refusal(
                Code.MALFORMED, "there is no policy of ODRL in it", "write one: a node of type `odrl:Set`, with an `odrl:permission`"
            )
        if not heirs:
            raise refusal(Code.INHERITANCE_LOOP, f"each of its policies is inherited from: {_named(found)}", "leave one `inheritFrom` out")
        raise refusal(Code.MALFORMED, f"there are {len(found)} policies in it: {_named(found)}", "name one by its IRI")
    return _beside(found, heirs[0])


def _beside(found: Mapping[str, Tree], name: str) -> Tree:
    others = {other: one.document for other, one in found.items() if other != name}
    return replace(found[name], beside=others) if others else found[name]


def _json(document: object, format: str) -> object:
    if format != "json-ld":
        message = f"a policy in the format `{shown(format)}` cannot be read"
        raise refusal(Code.FORMAT_UNSUPPORTED, message, "give it as `json-ld` or `turtle`")
    return json_of(document) if isinstance(document, str | bytes) else document


def _several(raw: object) -> list[Any]:
    return raw if isinstance(raw, list) else [raw]


def _named(found: Mapping[str, Tree]) -> str:
    return ", ".join(f"`{shown(name)}`" for name in list(found)[:NAMED_MAX]) + (", ..." if len(found) > NAMED_MAX else "")


def _roots(graph: Graph) -> list[str]:
    """The policies of a graph: what has the type of one, or else what has rules and is itself no part of anything."""
    found = graph.typed(*(ODRL + name for name in POLICIES))
    if found:
        return found
    used = {term for said in graph.nodes.values() for terms in said.values() for term in terms}
    rules = [ODRL + name for name in ("permission", "prohibition", "obligation")]
    return [node for node, said in graph.nodes.items() if node not in used and any(rule in said for rule in rules)]


class _Making:
    """The making of one tree."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: dict[str, str] = {}
        self.parts = 0

    def policy(self, node: str) -> Tree:
        document = {"@context": W3C_CONTEXT, **self._node(node, "", ())}
        return Tree(document, self.nodes, self.graph)

    def _node(self, node: str, path: str, above: tuple[str, ...]) -> dict[str, Any]:
        """A node with everything that it says."""
        self.nodes[path] = node
        if node in above:
            raise self._refused(Code.MALFORMED, path, "it contains itself", "write what is meant, to its end")
        if len(above) >= DEPTH_MAX:
            raise self._refused(Code.LIMIT_EXCEEDED, path, f"it is nested more than {DEPTH_MAX} deep", "write it flat")
        said = self.graph.nodes.get(node, {})
        found: dict[str, Any] = {}
        inside = (*above, node)
        if name := self._id(node, path):
            found["@id"] = name
        for predicate in said:
            if predicate == _UID:
                continue
            if predicate == TYPE:
                found["@type"] = self._types(said[TYPE])
                continue
            bare = _BARE.get(predicate)
            key = bare or predicate
            found[key] = self._values(key, self.graph.objects(node, predicate), f"{path}/{bare or _step(key)}", inside)
        return found

    def _types(self, terms: Iterable[Term]) -> Any:
        """The types of a node: those of ODRL, if it has any, for a thing may be many others besides."""
        types = [term for term in terms if isinstance(term, str)]
        types = [_TYPES.get(term, term) for term in types if term.startswith(ODRL)] or types
        return types[0] if len(types) == 1 else types

    def _id(self, node: str, path: str) -> str:
        """The IRI of a node, which is also its `odrl:uid` (ODRL 2.2 IM, 2.1)."""
        uids = [term.text if isinstance(term, Literal) else term for term in self.graph.objects(node, _UID)]
        if not is_blank(node):
            uids.append(node)
        elif not uids:
            return ""
        if len(set(uids)) > 1:
            raise self._refused(Code.MALFORMED, path, "its `odrl:uid` is another one than its IRI", "give it one")
        if uids and not (isinstance(uids[0], str) and ABSOLUTE_IRI.fullmatch(uids[0])):
            raise self._refused(Code.MALFORMED, path, "its `odrl:uid` is no absolute IRI", "write it in full")
        return str(uids[0]) if uids else ""

    def _values(self, key: str, terms: list[Term], path: str, above: tuple[str, ...]) -> Any:
        self._count(terms, path)
        if len(terms) == 1 and key not in _PARTS:  # as most are
            return self._value(key, terms[0], path, above)
        if key in _PARTS:
            if key == "andSequence" and len(terms) == 1 and isinstance(terms[0], tuple):  # the only one whose order says something
                return {"@list": [self._part(key, part, f"{path}/@list/{index}", above) for index, part in enumerate(terms[0])]}
            parts = [part for term in terms for part in (term if isinstance(term, tuple) else (term,))]
            self._count(parts, path)
            return [self._part(key, part, f"{path}/{index}", above) for index, part in enumerate(parts)]
        return [self._value(key, term, f"{path}/{index}", above) for index, term in enumerate(terms)]

    def _count(self, terms: Collection[Term], path: str) -> None:
        self.parts += len(terms)
        if self.parts > PARTS_MAX:
            message = f"it has more than {PARTS_MAX} parts, counted wherever they are used"
            raise self._refused(Code.LIMIT_EXCEEDED, path, message, "split the policy")

    def _part(self, key: str, term: Term, path: str, above: tuple[str, ...]) -> Any:
        """A rule or a constraint. One that is named and not described would be a rule without conditions."""
        if not isinstance(term, str):
            raise self._refused(
                Code.MALFORMED, path, f"it is no {'rule' if key in RULES else 'constraint'}", "write a node, as in [ ... ]", above
            )
        if term not in self.graph.nodes and not term.startswith("_:#"):
            named = "it" if is_blank(term) else f"`{shown(term)}`"
            message = f"{named} is not described in this document, and nothing is ever fetched"
            raise self._refused(Code.REFERENCE_UNRESOLVED, path, message, "describe it here", above)
        return self._node(term, path, above)

    def _value(self, key: str, term: Term, path: str, above: tuple[str, ...]) -> Any:
        if isinstance(term, str) and key in _NAMES:
            return self._node(term, path, above) if key in _THINGS and self._tells(term) else term
        if isinstance(term, tuple):
            self._count(term, path)
            return {"@list": [self._value(key, member, f"{path}/@list/{index}", above) for index, member in enumerate(term)]}
        if isinstance(term, Literal):
            if key in _NAMES or key == "rdf:value":
                fix = 'write an IRI: `<...>` or `odrl:...` in Turtle, {"@id": ...} in JSON-LD'
                raise self._refused(Code.TYPE_MISMATCH, path, f"`{shown(term.text)}` is a string where an IRI belongs", fix, above)
            return term.text if key == "rightOperandReference" else _literal(term)
        if key in _LITERALS or not is_blank(term):
            return term if key in ("unit", "dataType", "rightOperandReference") else {"@id": term}
        return self._node(term, path, above)

    def _tells(self, node: str) -> bool:
        """Whether a thing says more than what it is: a collection, a refined action."""
        said = self.graph.nodes.get(node)
        if said is None or is_blank(node):
            return is_blank(node)
        types = {term for term in said.get(TYPE, ()) if isinstance(term, str) and term.startswith(ODRL)}
        telling = {predicate for predicate in said if predicate.startswith(_TELLING) and predicate not in (TYPE, _UID)}
        return bool(types - _SIMPLE_TYPES) or bool(telling - {ODRL + "includedIn", ODRL + "implies", ODRL + "partOf"})

    def _refused(self, code: Code, path: str, message: str, fix: str, above: tuple[str, ...] = ()) -> PolicyError:
        if above:
            self.nodes.setdefault(path, above[-1])
        return refusal(code, message, fix, path, Tree({}, self.nodes, self.graph).source(path))


def _literal(term: Literal) -> Any:
    """The JSON form of a literal; its datatype by its full IRI."""
    if term.language:
        return {"@value": term.text, "@language": term.language}
    return term.text if term.datatype == _STRING else {"@value": term.text, "@type": term.datatype}


def _step(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
