"""An RDF graph as small as a policy needs it: what each node says, in the order in which it was written, and where that stands."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urljoin

from connector.values import Value

RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
XSD: Final = "http://www.w3.org/2001/XMLSchema#"
TYPE: Final = RDF + "type"
_FIRST: Final = RDF + "first"
_NIL: Final = RDF + "nil"

# RFC 3987 as far as it matters: a scheme, and none of the characters that could end an IRI or begin something else where it is printed.
ABSOLUTE_IRI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\x00-\x20<>\"{}|\\^`\x7f-\x9f\ud800-\udfff]*")


class Literal(Value):
    """A literal as it is written: its text is never brought into another form. `language` only where the datatype is rdf:langString."""

    text: str
    datatype: str = XSD + "string"
    language: str = ""


# An absolute IRI, a blank node ("_:" and a label), a literal, or an RDF list.
Term = str | Literal | tuple["Term", ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """Node -> property -> objects, each once. `place` says where a node, or what it says by a property, stands in the document ("line 12"),
    "" if that is not known.
    `lists` are those that were followed already: a chain that many nodes share is followed once."""

    nodes: dict[str, dict[str, dict[Term, None]]] = field(default_factory=dict)
    place: Callable[[str, str], str] = lambda node, predicate: ""
    lists: dict[str, Term] = field(default_factory=dict, repr=False, compare=False)

    def add(self, subject: str, predicate: str, object: Term) -> bool:
        """Add one statement; whether it says anything new."""
        said = self.nodes.get(subject)
        if said is None:
            said = self.nodes[subject] = {}
        objects = said.get(predicate)
        if objects is None:
            objects = said[predicate] = {}
        before = len(objects)
        objects[object] = None
        return len(objects) > before

    def objects(self, subject: str, predicate: str) -> list[Term]:
        """What a node says by a property; a chain of rdf:first and rdf:rest is the list that it stands for."""
        return [self.listed(term) for term in self.nodes.get(subject, {}).get(predicate, ())]

    def typed(self, *types: str) -> list[str]:
        """The nodes of any of these types, in order."""
        wanted = frozenset(types)
        return [node for node, said in self.nodes.items() if not wanted.isdisjoint(said.get(TYPE, ()))]

    def listed(self, term: Term) -> Term:
        """The list that begins at a node with rdf:first and rdf:rest; anything else, and a chain that is no list, as it is."""
        if not isinstance(term, str):
            return term
        if term == _NIL:
            return ()
        if _FIRST not in self.nodes.get(term, ()):
            return term
        if term not in self.lists:
            self._follow(term)
        return self.lists[term]

    def _follow(self, start: str) -> None:
        found: list[Term] = []
        seen: set[str] = set()
        at: Term = start
        while at not in (RDF + "nil", ()):
            if isinstance(at, tuple):  # ( ... ) as the rest of one that is written out
                found += at
                break
            said = self.nodes.get(at, {}) if isinstance(at, str) and at not in seen else {}
            first, rest = list(said.get(RDF + "first", ())), list(said.get(RDF + "rest", ()))
            if len(first) != 1 or len(rest) != 1:
                self.lists.update({node: node for node in (start, *seen)})  # nor is any list that ends like this one
                return
            seen.add(str(at))
            found += first
            at = rest[0]
        self.lists[start] = tuple(found)


def is_blank(term: object) -> bool:
    """Whether a term is a blank node."""
    return isinstance(term, str) and term.startswith("_:")


def resolved(base: str, reference: str) -> str:
    """What a relative reference stands for (RFC 3986, 5.2); the reference itself where it and the base can make no IRI, as `//[` cannot."""
    try:
        return urljoin(base, reference)
    except ValueError:
        return reference
