"""What a word in a JSON-LD document stands for (JSON-LD 1.1 API, 4 and 5.2): contexts, terms, prefixes, types.

The part of JSON-LD that policies use, and no more: terms with an IRI, a type, a language, and arrays or lists; prefixes, a vocabulary, a
base. Other containers, nesting, JSON literals, imports and contexts of single terms are refused: each is a way to say something that only
some readers see. Written here and not taken from `pyld`, which takes longer to load than an event loop may stand still and some ten times
as long to read, and does not say where a word stood; it is the oracle of the tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from connector.errors import PolicyError
from connector.odrl.codes import Code
from connector.odrl.words import shown
from connector.odrl_rdf.contexts import CONTEXTS
from connector.odrl_rdf.decoding import refusal
from connector.odrl_rdf.rdf import ABSOLUTE_IRI, resolved
from connector.values import Value, replace

Contexts = Mapping[str, Mapping[str, Any]]

_IN_CONTEXT: Final = frozenset({"@version", "@vocab", "@base", "@language", "@protected"})
_IN_TERM: Final = frozenset({"@id", "@type", "@container", "@language", "@protected", "@prefix"})
_CONTAINERS: Final = frozenset({"@set", "@list"})
_ALIASED: Final = frozenset({"@id", "@type"})
_COERCIONS: Final = frozenset({"@id", "@vocab", "@none"})
_PREFIX_ENDS: Final = tuple(":/?#[]@")  # a plain term whose IRI ends so may be a prefix
_NOT_SAID: Final = "@unset"
LEAN_MAX: Final = 32  # terms of one context, each of which is defined by the next


class Term(Value):
    """A word of a context. `iri` is a full IRI or a keyword, None if it has no meaning on purpose; `type` a coercion (`@id`, `@vocab`), a
    datatype, or "". Whether one value stands in an array says nothing, so a protected term may be said again without its `@set`."""

    iri: str | None
    type: str = ""
    listed: bool = False
    language: str | None = _NOT_SAID
    prefix: bool = False
    protected: bool = False


PLAIN: Final = Term(None)
Name = tuple[str, str, Term]  # of a property: its IRI, its step of a pointer, and how its values are read


@dataclass(frozen=True, slots=True)
class Words:
    """An active context: what each word stands for from here on downwards."""

    terms: Mapping[str, Term] = field(default_factory=dict)
    vocabulary: str | None = None
    base: str = ""
    language: str | None = None
    # What was found of names of properties and, by `@id` or `@vocab`, of IRIs: a document says the same few thousands of times.
    names: dict[str, Name] = field(default_factory=dict, repr=False, compare=False)
    iris: dict[tuple[str, str], str] = field(default_factory=dict, repr=False, compare=False)

    def opened(self, raw: object, at: str, contexts: Contexts) -> Words:
        """These words under a further `@context`. `contexts` (URL -> document) are the only ones there are.

        Raises PolicyError, its finding with the pointer `at`, for one that is not known or says what is not taken.
        """
        found = self
        for where, entry in entries(raw, at):
            if entry is None:
                if any(term.protected for term in found.terms.values()):
                    raise refusal(Code.MALFORMED, "it takes back a protected context", "leave `null` out", where)
                found = Words()
            elif isinstance(entry, str):
                if entry not in contexts:
                    known = ", ".join(f"`{url}`" for url in contexts)
                    message = f"the context `{shown(entry)}` is not at hand, and none is ever fetched"
                    raise refusal(Code.CONTEXT_UNKNOWN, message, f"write full IRIs, or one of {known}", where)
                if found == Words() and contexts[entry] is CONTEXTS.get(entry):
                    found = replace(_alone(entry), names={}, iris={})
                else:
                    found = _Defining(found, contexts[entry]["@context"], where).words()
            elif isinstance(entry, dict):
                found = _Defining(found, entry, where).words()
            else:
                raise refusal(Code.MALFORMED, "it is no context", "write a URL or an object", where)
        return found

    def term(self, word: str) -> Term:
        """How the values of a property are read."""
        return self.terms.get(word, PLAIN)

    def keyword(self, word: str) -> str:
        """The keyword that a word is or stands for, or ""."""
        if word.startswith("@"):
            return word
        iri = self.terms[word].iri if word in self.terms else None
        return iri if iri is not None and iri.startswith("@") else ""

    def expand(self, word: str, *, vocabulary: bool = False, relative: bool = False) -> str | None:
        """The IRI that a word stands for (JSON-LD 1.1 API, 5.2), None if it is without meaning on purpose. `vocabulary`: it may be a term;
        `relative`: it may be relative to the base. What is left as it is may be no IRI."""
        if vocabulary and word in self.terms:
            return self.terms[word].iri
        if ":" in word[1:]:
            prefix, _, rest = word.partition(":")
            if prefix == "_" or rest.startswith("//"):
                return word
            if prefix in self.terms and self.terms[prefix].prefix:
                return f"{self.terms[prefix].iri}{rest}"
            if ABSOLUTE_IRI.fullmatch(word):
                return word
        if vocabulary and self.vocabulary is not None:
            return self.vocabulary + word
        return resolved(self.base, word) if relative and self.base else word


@cache
def _alone(url: str) -> Words:
    """The words of a context of ours before which none stands: to read one takes as long as a hundred constraints."""
    return _Defining(Words(), CONTEXTS[url]["@context"], "").words()


class _Defining:
    """The definition of the terms of one context, which may lean on each other in any order."""

    def __init__(self, before: Words, local: Mapping[str, Any], at: str) -> None:
        self.before, self.local, self.at = before, local, at
        self.terms = dict(before.terms)
        self.done: dict[str, bool] = {}
        self.leaning = 0
        self.protected = local.get("@protected") is True

    def words(self) -> Words:
        for name in self.local:
            if name.startswith("@") and name not in _IN_CONTEXT:
                raise self._not_taken(name, name)
        base, vocabulary, language = self.before.base, self.before.vocabulary, self.before.language
        if "@base" in self.local:
            base = self._iri_or_null("@base", resolved(base, str(self.local["@base"]))) or ""
        if "@vocab" in self.local:
            vocabulary = self._iri_or_null("@vocab", self.before.expand(str(self.local["@vocab"]), vocabulary=True))
        if "@language" in self.local:
            language = self._text_or_null(self.local["@language"], "@language")
        self.now = Words(self.terms, vocabulary, base, language)
        for name in self.local:
            if not name.startswith("@"):
                self._define(name)
        return self.now

    def _define(self, name: str) -> None:
        if name in self.done:
            if not self.done[name]:
                raise self._malformed(name, "it is defined by itself", "write its IRI in full")
            return
        self.done[name] = False
        self.leaning += 1
        if self.leaning > LEAN_MAX:
            message = f"more than {LEAN_MAX} terms are defined by each other"
            raise refusal(Code.LIMIT_EXCEEDED, message, "write their IRIs in full", below(self.at, name))
        raw = self.local[name]
        if not name or not (raw is None or isinstance(raw, str | dict)):
            raise self._malformed(name, "it is no definition of a term", "write an IRI or an object")
        self.terms.pop(name, None)
        term = replace(self._term(name, raw), protected=self._protected(raw))
        if (old := self.before.terms.get(name)) is not None and old.protected:
            if replace(term, protected=True) != old:
                raise self._malformed(name, "it is protected by the context before", "leave its meaning as it is")
            term = old
        self.terms[name] = term
        self.done[name] = True
        self.leaning -= 1

    def _term(self, name: str, raw: str | dict[str, Any] | None) -> Term:
        if raw is None:
            return Term(None)
        if isinstance(raw, str):
            iri = self._mapping(name, raw)
            simple = ":" not in name[1:] and "/" not in name
            return Term(iri, prefix=simple and iri.endswith(_PREFIX_ENDS))
        if odd := sorted(raw.keys() - _IN_TERM):
            raise self._not_taken(name, odd[0])
        if "@id" in raw and raw["@id"] is None:
            return Term(None)
        containers = raw.get("@container", [])
        containers = containers if isinstance(containers, list) else [containers]
        for one in containers:
            if one not in _CONTAINERS:
                raise self._not_taken(name, one)
        language = self._text_or_null(raw["@language"], name) if "@language" in raw else _NOT_SAID
        iri = self._mapping(name, raw["@id"]) if raw.get("@id", name) != name else self._own(name)
        if "@prefix" in raw and (":" in name or "/" in name or iri in _ALIASED or not isinstance(raw["@prefix"], bool)):
            raise self._malformed(name, "it can be no prefix", "leave `@prefix` out")
        return Term(iri, self._type(name, raw.get("@type")), "@list" in containers, language, raw.get("@prefix") is True)

    def _mapping(self, name: str, written: object) -> str:
        if not isinstance(written, str):
            raise self._malformed(name, "its IRI is no string", "write an IRI")
        if written.startswith("@"):
            if written not in _ALIASED or ":" in name:
                raise self._not_taken(name, written)
            return written
        iri = self._expanded(written, name)
        if iri is None or not (ABSOLUTE_IRI.fullmatch(iri) or iri in _ALIASED):
            raise self._malformed(name, f"`{shown(written)}` is no IRI", "write it in full, or with a prefix of the context")
        if (":" in name[1:-1] or "/" in name) and self._expanded(name, name) != iri:
            raise self._malformed(name, "it looks like an IRI and stands for another one", "leave its IRI out")
        return iri

    def _own(self, name: str) -> str:
        """The IRI of a term that does not say one."""
        iri = self._expanded(name, name)
        if iri is None or not ABSOLUTE_IRI.fullmatch(iri):
            raise self._malformed(name, "it has no IRI", "write an `@id`")
        return iri

    def _type(self, name: str, written: object) -> str:
        if written is None:
            return ""
        if not isinstance(written, str) or (written.startswith("@") and written not in _COERCIONS):
            raise self._not_taken(name, written)
        iri = written if written in _COERCIONS else self._expanded(written, name)
        if iri is None or not (iri in _COERCIONS or ABSOLUTE_IRI.fullmatch(iri)):
            raise self._malformed(name, f"its type `{shown(written)}` is no IRI", "write it in full, or with a prefix of the context")
        return iri

    def _expanded(self, word: str, name: str) -> str | None:
        """A word in the definition of `name`, by this context and those before it; what it leans on is defined first."""
        for one in (word, word.partition(":")[0]):
            if one in self.local and not one.startswith("@") and not one == word == name:
                self._define(one)
        return self.now.expand(word, vocabulary=True)

    def _protected(self, raw: object) -> bool:
        said = raw.get("@protected") if isinstance(raw, dict) else None
        return said if isinstance(said, bool) else self.protected

    def _iri_or_null(self, name: str, iri: str | None) -> str | None:
        if self.local[name] is None:
            return None
        if not isinstance(self.local[name], str) or iri is None or not ABSOLUTE_IRI.fullmatch(iri):
            raise self._malformed(name, "it is no absolute IRI", "write it in full")
        return iri

    def _text_or_null(self, raw: object, name: str) -> str | None:
        if raw is not None and not isinstance(raw, str):
            raise self._malformed(name, "its language is no string", "write it like `en`")
        return raw

    def _malformed(self, name: str, message: str, fix: str) -> PolicyError:
        return refusal(Code.MALFORMED, f"the term `{shown(name)}`: {message}", fix, below(self.at, name))

    def _not_taken(self, name: str, what: object) -> PolicyError:
        message = f"`{shown(str(what))}` is not taken in the context of a policy"
        return refusal(Code.TERM_UNSUPPORTED, message, "write the policy without it", below(self.at, name))


def entries(raw: object, at: str) -> Iterable[tuple[str, Any]]:
    """The members of an array, or the one value, each with its pointer."""
    return ((f"{at}/{index}", entry) for index, entry in enumerate(raw)) if isinstance(raw, list) else ((at, raw),)


def below(at: str, key: object) -> str:
    """The pointer (RFC 6901) to a key of what `at` points to."""
    step = str(key)
    return f"{at}/{step}" if "/" not in step and "~" not in step else f"{at}/{step.replace('~', '~0').replace('/', '~1')}"
