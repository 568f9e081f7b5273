"""Any JSON-LD form -> graph. No context is fetched, and no word gets lost without a finding.

A document without a context (the expanded form, flattened or not) is read as it stands. Everything else goes through `pyld` with the
contexts that are at hand, under a vocabulary that catches the terms which no context defines: a reader of JSON-LD would drop them, and a
policy without one of its constraints is a wider policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from connector.odrl.codes import Code
from connector.odrl.words import shown
from connector.odrl_forms.decoding import refusal
from connector.odrl_forms.rdf import ABSOLUTE_IRI, RDF, TYPE, XSD, Graph, Literal, Term

DEPTH_MAX: Final = 64  # levels of objects and arrays; people's policies have some fifteen
VALUES_MAX: Final = 12_000  # of a document in full IRIs; the largest published policy has 10,255
COMPACT_VALUES_MAX: Final = 2_000  # of one that has to be expanded, which takes some ten times as long
CONTEXTS_MAX: Final = 8  # contexts are processed anew wherever they stand
CAUSE_CHARS_MAX: Final = 200  # the library's own sentences fit; longer ones carry a value of the sender's

UNDEFINED: Final = "urn:undefined-term:"  # the vocabulary of terms without a definition
PLACE: Final = "urn:place-of-node:"  # a property that carries the JSON pointer of each object through the expansion

# What a context inside a document may say. Other containers, nesting, JSON literals, imports and contexts of single terms have no use in a
# policy, and each of them is a way to say something that only some readers see, or to make them work for it.
_IN_CONTEXT: Final = frozenset({"@version", "@vocab", "@base", "@language", "@protected"})
_IN_TERM: Final = frozenset({"@id", "@type", "@container", "@language", "@protected", "@prefix"})
_CONTAINERS: Final = frozenset({"@set", "@list"})
_ALIASED: Final = frozenset({"@id", "@type"})


def graph_of(document: object, contexts: Mapping[str, Mapping[str, Any]]) -> Graph:
    """The graph of a JSON-LD document (an object or an array of parsed JSON). `contexts` are the only ones there are (URL -> document).

    Raises PolicyError, its finding with a pointer into the document, for what is no JSON-LD, a term or context that is not known, a
    relative IRI, and beyond the limits: VALUES_MAX values, or COMPACT_VALUES_MAX where there is a context, DEPTH_MAX levels.
    """
    if not isinstance(document, dict | list):
        raise refusal(Code.MALFORMED, "it is neither a JSON object nor an array", "give one policy")
    named = _bound(document)
    if named:
        return _Nodes(tagged=True).read(_expanded(document, contexts))
    return _Nodes(tagged=False).read(document)


def _bound(document: object) -> bool:
    """Whether there is a context; raises PolicyError for what is too large. Iterative, so that depth cannot break it."""
    level: list[object] = [document]
    depth = values = contexts = 0
    while level:
        depth += 1
        if depth > DEPTH_MAX:
            raise refusal(Code.LIMIT_EXCEEDED, f"objects and arrays are nested more than {DEPTH_MAX} levels deep", "write it flat")
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                if "@context" in value:
                    contexts += len(value["@context"]) if isinstance(value["@context"], list) else 1
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
            if values + len(below) > VALUES_MAX:
                raise refusal(Code.LIMIT_EXCEEDED, f"it has more than {VALUES_MAX} values", "split it")
        values += len(below)
        level = below
    if contexts > CONTEXTS_MAX:
        raise refusal(Code.LIMIT_EXCEEDED, f"it has more than {CONTEXTS_MAX} contexts", "name them once, at the top")
    if contexts and values > COMPACT_VALUES_MAX:
        fix = "split it, or give it in the W3C's context alone, in full IRIs, or as Turtle"
        raise refusal(Code.LIMIT_EXCEEDED, f"under contexts of its own it has more than {COMPACT_VALUES_MAX} values", fix)
    return contexts > 0


def _expanded(document: object, contexts: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    from pyld import jsonld
    from pyld.context_resolver import ContextResolver

    tagged = _tagged(document, "", contexts)

    def load(url: str, _options: object) -> dict[str, Any]:
        return {"contentType": "application/ld+json", "contextUrl": None, "documentUrl": url, "document": contexts[url]}

    # The library keeps what it has resolved for the life of the process; with its own resolver, no document sees another's contexts.
    options = {"base": None, "documentLoader": load, "contextResolver": ContextResolver({}, load), "expandContext": {"@vocab": UNDEFINED}}
    dropped: list[str | None] = []
    try:
        expanded: list[Any] = jsonld.expand(tagged, options, on_property_dropped=dropped.append)
    except jsonld.JsonLdError as error:
        raise refusal(Code.MALFORMED, f"it is no valid JSON-LD: {_cause(error)}", "mend it") from error
    if dropped:  # not undefined, for that is caught: mapped to null on purpose, or looking like a keyword
        named = ", ".join(f"`{shown(str(term))}`" for term in sorted(set(map(str, dropped)))[:5])
        raise refusal(Code.TERM_DROPPED, f"its contexts give no meaning to {named}", "leave it out, or give it a meaning")
    return expanded


def _tagged(value: object, at: str, contexts: Mapping[str, Mapping[str, Any]]) -> Any:
    """A copy of the document in which each object that may be a node says where it stands. Checks every context on the way."""
    if isinstance(value, list):
        return [_tagged(item, f"{at}/{index}", contexts) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if "@context" in value:
        _check(value["@context"], f"{at}/@context", contexts)
    found = {key: inner if key == "@context" else _tagged(inner, f"{at}/{_step(key)}", contexts) for key, inner in value.items()}
    if not value.keys() & {"@value", "@list", "@set"}:
        found[PLACE] = at
    return found


def _check(context: object, at: str, contexts: Mapping[str, Mapping[str, Any]]) -> None:
    if isinstance(context, str):
        if context not in contexts:
            known = ", ".join(f"`{url}`" for url in contexts)
            message = f"the context `{shown(context)}` is not at hand, and none is ever fetched"
            raise refusal(Code.CONTEXT_UNKNOWN, message, f"write full IRIs, or one of {known}", at)
    elif isinstance(context, list):
        for index, entry in enumerate(context):
            _check(entry, f"{at}/{index}", contexts)
    elif isinstance(context, dict):
        for term, meaning in context.items():
            _check_term(str(term), meaning, f"{at}/{_step(term)}")
    elif context is not None:
        raise refusal(Code.MALFORMED, "it is no context", "write a URL or an object", at)


def _check_term(term: str, meaning: object, at: str) -> None:
    odd: object = None
    if term.startswith("@"):
        odd = term if term not in _IN_CONTEXT else None
    elif isinstance(meaning, str):
        odd = meaning if meaning.startswith("@") and meaning not in _ALIASED else None
    elif isinstance(meaning, dict):
        containers = meaning.get("@container", [])
        odd = next(iter(meaning.keys() - _IN_TERM), None)
        odd = odd or next((one for one in (containers if isinstance(containers, list) else [containers]) if one not in _CONTAINERS), None)
        odd = odd or (meaning["@type"] if meaning.get("@type") == "@json" else None)
        odd = odd or (meaning["@id"] if str(meaning.get("@id", "")).startswith("@") and meaning["@id"] not in _ALIASED else None)
    if odd is not None:
        raise refusal(
            Code.TERM_UNSUPPORTED, f"`{shown(str(odd))}` is not taken in the context of a policy", "write the policy without it", at
        )


def _cause(error: BaseException) -> str:
    """What the innermost cause says; the outer ones of the library speak of servers and CORS."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error.args[0]).removeprefix("Invalid JSON-LD syntax; ").rstrip(".") if error.args else type(error).__name__
    return text if text.isprintable() and len(text) <= CAUSE_CHARS_MAX else "a term or value is malformed"


def _step(key: object) -> str:
    """One step of an RFC 6901 pointer."""
    return str(key).replace("~", "~0").replace("/", "~1")


class _Nodes:
    """One pass over a document in full IRIs. `tagged`: its objects say themselves where the author wrote them, nothing else is known."""

    def __init__(self, *, tagged: bool) -> None:
        self.places: dict[str, str] = {}
        self.graph = Graph(place=lambda node: self.places.get(node, ""))
        self.blanks = 0
        self.tagged = tagged

    def read(self, document: object) -> Graph:
        for at, entry in self._entries(document, ""):
            if not isinstance(entry, dict):
                raise refusal(Code.MALFORMED, "it is no object", "leave it out", at)
            if "@graph" in entry:
                if entry.keys() - {"@graph", "@context", PLACE}:
                    raise refusal(
                        Code.TERM_UNSUPPORTED, "a named graph has no meaning in a policy", "leave the name out", self._below(at, "@graph")
                    )
                for where, inner in self._entries(entry["@graph"], self._below(at, "@graph")):
                    self._node(inner, where)
            else:
                self._node(entry, at)
        return self.graph

    def _node(self, raw: object, at: str) -> str:
        if not isinstance(raw, dict):
            raise refusal(Code.MALFORMED, "it is no object", "write an object", at)
        if self.tagged:
            at = raw[PLACE][0]["@value"] if PLACE in raw else at
        node = self._id(raw, at)
        says = raw.keys() - {"@id", "@context", "@index", PLACE}
        if says:
            self.places.setdefault(node, at)
        for key in raw:
            if key not in says:
                continue
            where = self._below(at, key)
            if key == "@type":
                for place, type_ in self._entries(raw[key], where):
                    self.graph.add(node, TYPE, self._iri(type_, place))
            else:
                self._say(node, self._property(key, where), raw[key], where)
        return node

    def _id(self, raw: dict[str, Any], at: str) -> str:
        if raw.get("@id") is None:
            self.blanks += 1
            return f"_:#{self.blanks}"  # no label may hold `#`, so this is nobody else's
        name = raw["@id"]
        if isinstance(name, str) and name.startswith("_:") and "#" not in name:
            return name
        return self._iri(name, self._below(at, "@id"))

    def _property(self, key: str, at: str) -> str:
        if key.startswith(UNDEFINED):
            raise self._undefined(key, at)
        if not ABSOLUTE_IRI.fullmatch(key):
            if key.startswith("@"):
                raise refusal(Code.TERM_UNSUPPORTED, f"`{shown(key)}` has no meaning in a policy", "leave it out", at)
            fix = "name a context that defines it, or write its full IRI"
            raise refusal(Code.TERM_DROPPED, f"no context gives a meaning to `{shown(key)}`", fix, at)
        return key

    def _say(self, node: str, predicate: str, raw: object, at: str) -> None:
        for where, value in self._entries(raw, at):
            if isinstance(value, dict) and value.keys() <= {"@set", "@index"} and "@set" in value:
                self._say(node, predicate, value["@set"], self._below(where, "@set"))
            elif (term := self._term(value, where)) is not None:
                self.graph.add(node, predicate, term)

    def _term(self, value: object, at: str) -> Term | None:
        """A value; None for null, which JSON-LD leaves out."""
        if value is None:
            return None
        if isinstance(value, bool):
            return Literal("true" if value else "false", XSD + "boolean")
        if isinstance(value, int | float):
            return Literal(str(value), XSD + ("integer" if isinstance(value, int) else "double"))
        if isinstance(value, str):
            return Literal(value)
        if isinstance(value, list):
            return self._list(value, at)
        if isinstance(value, dict) and "@value" in value:
            return self._literal(value, at)
        if isinstance(value, dict) and "@list" in value:
            if value.keys() - {"@list", "@index"}:
                raise refusal(Code.MALFORMED, "a list has nothing beside its members", "leave it out", at)
            members = value["@list"]
            return self._list(members if isinstance(members, list) else [members], self._below(at, "@list"))
        return self._node(value, at)

    def _list(self, members: list[Any], at: str) -> Term:
        terms = [self._term(member, self._below(at, index)) for index, member in enumerate(members)]
        return tuple(term for term in terms if term is not None)

    def _literal(self, raw: dict[str, Any], at: str) -> Term | None:
        if raw.keys() - {"@value", "@type", "@language", "@index"} or ("@type" in raw and "@language" in raw):
            raise refusal(Code.MALFORMED, "a literal has a value, and a type or a language", 'write {"@value": ..., "@type": ...}', at)
        value = raw["@value"]
        if isinstance(value, dict | list):
            raise refusal(Code.TERM_UNSUPPORTED, "a JSON literal has no meaning in a policy", "write a string", at)
        plain = self._term(value, at)
        if not isinstance(plain, Literal):
            return None
        if raw.get("@language") is not None:
            return Literal(plain.text, RDF + "langString", str(raw["@language"]).lower())
        if raw.get("@type") is not None:
            return Literal(plain.text, self._iri(raw["@type"], self._below(at, "@type")))
        return plain

    def _iri(self, raw: object, at: str) -> str:
        if isinstance(raw, str) and raw.startswith(UNDEFINED):
            raise self._undefined(raw, at)
        if not isinstance(raw, str) or not ABSOLUTE_IRI.fullmatch(raw):
            what = f"`{shown(raw)}` is no absolute IRI" if isinstance(raw, str) else "it is no IRI"
            fix = "write it in full; a relative one means something else in each place it is read from"
            raise refusal(Code.MALFORMED, what, fix, at)
        return raw

    def _undefined(self, iri: str, at: str) -> Exception:
        term = shown(iri.removeprefix(UNDEFINED))
        fix = f"write it with a prefix that the context defines (`odrl:{term}`), or name a context that knows it"
        return refusal(Code.TERM_DROPPED, f"no context gives a meaning to `{term}`, so readers of JSON-LD lose it", fix, at)

    def _entries(self, raw: object, at: str) -> Iterator[tuple[str, object]]:
        """The members of an array, or the one value, each with its pointer."""
        if isinstance(raw, list):
            for index, entry in enumerate(raw):
                yield self._below(at, index), entry
        else:
            yield at, raw

    def _below(self, at: str, key: object) -> str:
        return at if self.tagged else f"{at}/{_step(key)}"
