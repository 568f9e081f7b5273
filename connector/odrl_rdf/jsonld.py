"""JSON-LD of any shape -> graph: compact, expanded or flattened, with contexts that are at hand or none. Nothing is ever fetched.

No word gets lost: what no context defines, a reader of JSON-LD drops without a sound, and a policy without one of its constraints is a
wider policy. Here it is a finding with its place in the document.
"""

from __future__ import annotations

from typing import Any, Final

from connector.errors import PolicyError
from connector.odrl.codes import Code
from connector.odrl.words import shown
from connector.odrl_rdf.bounds import Counted
from connector.odrl_rdf.decoding import refusal
from connector.odrl_rdf.expansion import Contexts, Name, Term, Words, below, entries
from connector.odrl_rdf.rdf import ABSOLUTE_IRI, RDF, TYPE, XSD, Graph, Literal
from connector.odrl_rdf.rdf import Term as Value

DEPTH_MAX: Final = 64  # levels of objects and arrays; people's policies have some fifteen
VALUES_MAX: Final = 11_000  # the largest published policy has 10,255 in its longest form
CONTEXTS_MAX: Final = 8  # each is read anew wherever it stands
TERMS_MAX: Final = 1_000  # that they define together

_IN_LITERAL: Final = frozenset({"@value", "@type", "@language", "@index", "@context"})


def graph_of(document: object, contexts: Contexts) -> Graph:
    """The graph of a JSON-LD document (an object or an array of parsed JSON). `contexts` (URL -> document) are the only ones there are.

    Raises PolicyError, its finding with a pointer into the document, for what is no JSON-LD, a term or context that is not known, a
    relative IRI without a base, what a policy has no use for (see `expansion`), and beyond the limits: VALUES_MAX values,
    CONTEXTS_MAX contexts of TERMS_MAX terms, DEPTH_MAX levels.
    """
    if not isinstance(document, dict | list):
        raise refusal(Code.MALFORMED, "it is neither a JSON object nor an array", "give one policy")
    _bound(document)
    return _Reader(contexts).document(document)


def _bound(document: object) -> None:
    """Raise PolicyError for what is too large. Iterative, so that depth cannot break it."""
    inner: list[object] = [document]
    depth = values = contexts = terms = 0
    while inner:
        depth += 1
        if depth > DEPTH_MAX:
            raise refusal(Code.LIMIT_EXCEEDED, f"objects and arrays are nested more than {DEPTH_MAX} levels deep", "write it flat")
        level = [value for value in inner if isinstance(value, dict | list)]  # most are neither
        inner = []
        for value in level:
            if isinstance(value, list):
                inner.extend(value)
            else:
                for key in value:
                    if not isinstance(key, str):
                        raise refusal(Code.MALFORMED, "the name of a property is no string", "write it as a string")
                if "@context" in value:
                    named = value["@context"] if isinstance(value["@context"], list) else [value["@context"]]
                    contexts += len(named)
                    terms += sum(len(entry) for entry in named if isinstance(entry, dict))
                inner.extend(value.values())
            if values + len(inner) > VALUES_MAX:
                raise refusal(Code.LIMIT_EXCEEDED, f"it has more than {VALUES_MAX} values", "split it")
        values += len(inner)
    if contexts > CONTEXTS_MAX or terms > TERMS_MAX:
        message = f"it has more than {CONTEXTS_MAX} contexts, or they define more than {TERMS_MAX} terms"
        raise refusal(Code.LIMIT_EXCEEDED, message, "name each once, at the top")


class _Reader:
    """One pass over one document."""

    def __init__(self, contexts: Contexts) -> None:
        self.contexts = contexts
        self.places: dict[tuple[str, str], str] = {}
        self.graph = Graph(place=lambda node, predicate: self.places.get((node, predicate), ""))
        self.blanks = 0
        self.counted = Counted(refusal)

    def document(self, document: object) -> Graph:
        for at, entry in entries(document, ""):
            if not isinstance(entry, dict):
                raise refusal(Code.MALFORMED, "it is no object", "leave it out", at)
            if "@graph" not in entry:
                self._node(entry, at, Words())
                continue
            if entry.keys() - {"@graph", "@context"}:
                message = "a graph with a name or properties has no meaning in a policy"
                raise refusal(Code.TERM_UNSUPPORTED, message, "leave them out", below(at, "@graph"))
            words = self._words(entry, at, Words())
            for where, inner in entries(entry["@graph"], below(at, "@graph")):
                self._node(inner, where, words)
        return self.graph

    def _words(self, raw: dict[str, Any], at: str, words: Words) -> Words:
        return words.opened(raw["@context"], below(at, "@context"), self.contexts) if "@context" in raw else words

    def _node(self, raw: object, at: str, words: Words) -> str:
        if not isinstance(raw, dict):
            raise refusal(Code.MALFORMED, "it is no object", "write an object", at)
        words = self._words(raw, at, words)
        names, places = words.names, self.places
        keywords = {} if raw.keys() <= names.keys() else {key: word for key in raw if key not in names and (word := words.keyword(key))}
        node = self._id(raw, [key for key in keywords if keywords[key] == "@id" and raw[key] is not None], at, words)
        if len(raw) > len(keywords):
            places.setdefault((node, ""), at)
        for key, value in raw.items():
            if key in keywords:
                if keywords[key] not in ("@context", "@id", "@index"):
                    places.setdefault((node, ""), at)
                    self._keyword(node, key, keywords[key], value, below(at, key), words)
                continue
            predicate, step, term = names.get(key) or self._property(key, at, words)
            where = f"{at}/{step}"
            places.setdefault((node, predicate), where)
            self.counted.property(predicate, where, len(value) if isinstance(value, list) else 1)
            if type(value) is str and not term.listed:  # as most of them are
                self._add(node, predicate, words.iris.get((value, term.type)) or self._text(value, where, words, term), where)
            else:
                self._say(node, predicate, value, where, words, term)
        return node

    def _keyword(self, node: str, key: str, keyword: str, value: object, where: str, words: Words) -> None:
        if keyword != "@type":
            raise refusal(Code.TERM_UNSUPPORTED, f"`{shown(key)}` has no meaning in a policy", "leave it out", where)
        for place, type_ in entries(value, where):
            self._add(node, TYPE, self._iri(type_, place, words, vocabulary=True), place)

    def _add(self, node: str, predicate: str, found: Value, at: str) -> None:
        if node not in self.graph.nodes:
            self.counted.node(self.places.get((node, ""), at))
        if self.graph.add(node, predicate, found):
            self.counted.statement(at)

    def _id(self, raw: dict[str, Any], named: list[str], at: str, words: Words) -> str:
        if len(named) > 1:
            raise refusal(Code.MALFORMED, "it has two ids", "write one", at)
        if not named:
            self.blanks += 1
            return f"_:#{self.blanks}"  # no label may hold `#`, so this is nobody else's
        return self._iri(raw[named[0]], below(at, named[0]), words)

    def _property(self, key: str, at: str, words: Words) -> Name:
        iri = words.expand(key, vocabulary=True)
        if iri is None or not ABSOLUTE_IRI.fullmatch(iri):
            raise _undefined(key, below(at, key))
        self.counted.name(at)
        words.names[key] = name = (iri, below("", key)[1:], words.term(key))
        return name

    def _say(self, node: str, predicate: str, raw: object, at: str, words: Words, term: Term) -> None:
        if term.listed and raw is not None and not (isinstance(raw, dict) and "@list" in raw):
            self._add(node, predicate, self._list(raw if isinstance(raw, list) else [raw], at, words, term), at)
            return
        for where, value in entries(raw, at):
            if isinstance(value, list):
                self._say(node, predicate, value, where, words, term)
            elif isinstance(value, dict) and "@set" in value and value.keys() <= {"@set", "@index"}:
                self._say(node, predicate, value["@set"], below(where, "@set"), words, term)
            elif (found := self._value(value, where, words, term)) is not None:
                self._add(node, predicate, found, where)

    def _value(self, raw: object, at: str, words: Words, term: Term) -> Value | None:
        """A value; None for null, which JSON-LD leaves out."""
        if isinstance(raw, str):
            return self._text(raw, at, words, term)
        if isinstance(raw, dict):
            if len(raw) == 1 and isinstance(raw.get("@id"), str):
                return self._iri(raw["@id"], f"{at}/@id", words)
            if "@value" in raw:
                return self._literal(raw, at, self._words(raw, at, words) if "@context" in raw else words)
            if "@list" in raw:
                if raw.keys() - {"@list", "@index"}:
                    raise refusal(Code.MALFORMED, "a list has nothing beside its members", "leave it out", at)
                members = raw["@list"]
                return self._list(members if isinstance(members, list) else [members], below(at, "@list"), words, term)
            return self._node(raw, at, words)
        if isinstance(raw, list):
            return self._list(raw, at, words, term)
        plain = _plain(raw)
        return plain if plain is None or term.type in ("", "@none", "@id", "@vocab") else Literal(plain.text, term.type)

    def _text(self, raw: str, at: str, words: Words, term: Term) -> Value:
        """What a string stands for."""
        if term.type in ("@id", "@vocab"):
            return self._iri(raw, at, words, vocabulary=term.type == "@vocab")
        if term.type not in ("", "@none"):
            return Literal(raw, term.type)
        language = words.language if term.language == "@unset" else term.language
        return Literal(raw, RDF + "langString", language.lower()) if language and not term.type else Literal(raw)

    def _list(self, members: list[Any], at: str, words: Words, term: Term) -> Value:
        self.counted.statement(at, len(members))
        found = [self._value(member, f"{at}/{index}", words, term) for index, member in enumerate(members)]
        return tuple(value for value in found if value is not None)

    def _literal(self, raw: dict[str, Any], at: str, words: Words) -> Value | None:
        value, type_, language = raw["@value"], raw.get("@type"), raw.get("@language")
        if not raw.keys() <= _IN_LITERAL or ("@type" in raw and "@language" in raw):
            raise refusal(Code.MALFORMED, "a literal has a value, and a type or a language", 'write {"@value": ..., "@type": ...}', at)
        text = value if isinstance(value, str) else None
        if text is None:
            if value is None:
                return None
            plain = _plain(value)
            if plain is None:
                raise refusal(Code.TERM_UNSUPPORTED, "a JSON literal has no meaning in a policy", "write a string", at)
            if language is None and type_ is None:
                return plain
            text = plain.text
        if language is not None:
            return Literal(text, RDF + "langString", str(language).lower())
        return Literal(text) if type_ is None else Literal(text, self._iri(type_, below(at, "@type"), words, vocabulary=True))

    def _iri(self, raw: object, at: str, words: Words, *, vocabulary: bool = False) -> str:
        if not isinstance(raw, str):
            raise refusal(Code.MALFORMED, "it is no IRI", "write a string", at)
        kind = "@vocab" if vocabulary else "@id"
        if (known := words.iris.get((raw, kind))) is not None:
            return known
        if words.base and ":" not in raw:
            self.counted.relative(at)
        iri = words.expand(raw, vocabulary=vocabulary, relative=True)
        if iri is not None and (ABSOLUTE_IRI.fullmatch(iri) or (iri.startswith("_:") and "#" not in iri)):
            words.iris[raw, kind] = iri
            return iri
        if vocabulary and ":" not in raw:
            raise _undefined(raw, at)
        fix = "write it in full; a relative one means something else in each place it is read from"
        raise refusal(Code.MALFORMED, f"`{shown(raw)}` is no absolute IRI", fix, at)


def _undefined(word: str, at: str) -> PolicyError:
    fix = f"write it with a prefix that the context defines (`odrl:{shown(word)}`), or name a context that knows it"
    return refusal(Code.TERM_DROPPED, f"no context gives a meaning to `{shown(word)}`, so readers of JSON-LD lose it", fix, at)


def _plain(raw: object) -> Literal | None:
    """The literal of a JSON scalar; None for anything else."""
    if isinstance(raw, str):
        return Literal(raw)
    if isinstance(raw, bool):
        return Literal("true" if raw else "false", XSD + "boolean")
    return Literal(str(raw), XSD + ("integer" if isinstance(raw, int) else "double")) if isinstance(raw, int | float) else None
