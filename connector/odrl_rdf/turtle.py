"""RDF 1.1 Turtle -> graph.

Written here and not taken from a library for what a policy needs and a library does not give: a bound on the time it takes (one pass over
the tokens, counted before they are read), literals as they are written, the line of each node, and nothing beyond Turtle. `rdflib` is the
oracle of the tests.
"""

from __future__ import annotations

import re
from itertools import accumulate
from operator import add
from typing import Final

from connector.errors import PolicyError
from connector.odrl.codes import Code
from connector.odrl.words import shown
from connector.odrl_rdf.bounds import Counted
from connector.odrl_rdf.decoding import decoded, refusal
from connector.odrl_rdf.rdf import ABSOLUTE_IRI, RDF, TYPE, XSD, Graph, Literal, Term, resolved
from connector.odrl_reading.reading import LEAVES_MAX

TURTLE_BYTES_MAX: Final = 256 * 1024  # the largest published policy has 162 kB
TOKENS_MAX: Final = 12_000  # it has 10,021
MARKS_MAX: Final = 12_000  # quotes and backslashes, each of which costs as much as a token; it has 1,048
DEPTH_MAX: Final = 64  # nested [ ] and ( ); rules, constraints and refinements of people nest five deep

# The terminals of the grammar (Turtle, 6.5), longest first where one begins like another, each with the space before it: half as many
# matches. What most documents are made of stands first, and by its first character each is told from those before it. Nothing is given
# back (`++`, `*+`, and `(?>` around a group that is repeated: a `*+` behind one keeps what its last turn took before it failed, in Python
# before 3.11.5, cpython issue 106052), and a word after which a name goes on is none (but a truth may end a statement before a directive):
# or what is no token after a long comment, or a long row of words and dots, would cost its square. What is none of them is all the rest.
_BASE: Final = (
    "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02ff\u0370-\u037d\u037f-\u1fff\u200c\u200d\u2070-\u218f\u2c00-\u2fef\u3001-\ud7ff\uf900-\ufdcf"
    "\ufdf0-\ufffd\U00010000-\U000effff"
)
_CHARS: Final = _BASE + "_0-9\u00b7\u0300-\u036f\u203f\u2040-"
_ESCAPE: Final = r"\\[_~.\-!$&'()*+,;=/?#@%]"
_DOTTED: Final = rf"[{_CHARS}]*+(?>(?:\.++[{_CHARS}]++)*)"  # a dot may stand in it, and not at its end
_LOCAL: Final = rf"(?:[%{_BASE}_:0-9]|{_ESCAPE})[:%{_CHARS}]*+(?>(?:(?:\.++(?=[\\:%{_CHARS}])|{_ESCAPE})[:%{_CHARS}]*+)*)"
_IN_IRI: Final = r"""[^\x00-\x20<>"{}|^`\\]*+"""
_TOKEN: Final = re.compile(
    rf"""
    ([ \t\r\n]*+(?>(?:\#[^\r\n]*+[ \t\r\n]*+)*))
    (?:([A-Za-z][A-Za-z0-9]*+:[A-Za-z0-9]++(?=[ \t\r\n;,\]])
    | [;,\[\]()]
    | <{_IN_IRI}(?>(?:\\[uU][0-9A-Fa-f]{{4}}{_IN_IRI})*)>
    | \"\"\"[^"\\]*+(?>(?:(?:\\.|"(?!""))[^"\\]*+)*)\"\"\"
    | \'\'\'[^'\\]*+(?>(?:(?:\\.|'(?!''))[^'\\]*+)*)\'\'\'
    | "[^"\\\r\n]*+(?>(?:\\.[^"\\\r\n]*+)*)"
    | '[^'\\\r\n]*+(?>(?:\\.[^'\\\r\n]*+)*)'
    | [{_BASE}]{_DOTTED}:(?:{_LOCAL})?
    | :(?:{_LOCAL})?
    | [a-zA-Z]++(?!\.*+[:{_CHARS}])
    | (?:true|false)(?=\.(?::|(?i:prefix|base)[ \t\r\n\#<]))
    | @[a-zA-Z]++(?>(?:-[a-zA-Z0-9]++)*)
    | _:[{_BASE}_0-9]{_DOTTED}
    | [+-]?(?:[0-9]++\.[0-9]*+|\.?[0-9]++)[eE][+-]?[0-9]++
    | [+-]?[0-9]*+\.[0-9]++
    | [+-]?[0-9]++
    | \.
    | \^\^
    | \Z)|(.+))
    """,
    re.VERBOSE | re.DOTALL,
)
_GROUPS: Final = 4  # strings to a token in what `split` gives: nothing, the space, the token, what is none
_BAD_PERCENT: Final = re.compile(r"(?<!\\)%(?![0-9A-Fa-f]{2})")
_ESCAPED: Final = re.compile(r"\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)", re.DOTALL)
_PLAIN: Final = {"t": "\t", "b": "\b", "n": "\n", "r": "\r", "f": "\f", '"': '"', "'": "'", "\\": "\\"}
_TRUTHS: Final = frozenset({"true", "false"})
_NO_NAME: Final = frozenset("<_\"'")  # how IRIs, blank nodes and strings begin, which may have a colon too


def graph_of(document: str | bytes) -> Graph:
    """The graph of a Turtle document (text, or bytes in the encodings of `decoding`).

    Raises PolicyError, its finding with the line, for what is no Turtle, for a relative IRI without a base, and beyond the limits:
    TURTLE_BYTES_MAX bytes, TOKENS_MAX tokens, brackets DEPTH_MAX deep.
    """
    return _Reader(decoded(document, TURTLE_BYTES_MAX)).document()


class _Reader:
    """One pass over one document. A place in it is the number of a token, whose line is only looked for when somebody asks."""

    def __init__(self, text: str) -> None:
        self.text = text
        if text.count("\\") + text.count('"') + text.count("'") > MARKS_MAX:
            raise refusal(Code.LIMIT_EXCEEDED, f"it has more than {MARKS_MAX} quotes and backslashes", "split it")
        parts = _TOKEN.split(text, TOKENS_MAX + 2)
        self.spaces: list[str] = parts[1::_GROUPS]
        self.tokens: list[str] = parts[2::_GROUPS]
        self.starts: list[int] = []
        if rest := next(filter(None, parts[-2 : -2 - 2 * _GROUPS : -_GROUPS]), ""):  # behind it there is the end
            raise self._no_token(rest)
        if len(self.tokens) > TOKENS_MAX and self.tokens[TOKENS_MAX]:
            message = f"it has more than {TOKENS_MAX} words, values and marks"
            raise self._refused(Code.LIMIT_EXCEEDED, message, "split it", TOKENS_MAX + 1)
        self.next = 0
        self.base = ""
        self.prefixes: dict[str, str] = {}
        self.names: dict[str, str] = {}  # that were read, under these prefixes and this base
        self.places: dict[tuple[str, str], int] = {}
        self.blanks = 0
        self.depth = 0
        self.counted = Counted(self._refused)
        self.graph = Graph(place=self._place)

    def document(self) -> Graph:
        while word := self.tokens[self.next]:
            if word[0] == "@" or word.upper() in ("PREFIX", "BASE"):
                self._directive()
                continue
            if word == "[":
                subject = self._anonymous()
                if self.tokens[self.next] != ".":
                    self._statements(subject)
            else:
                at = self.next
                subject = self._subject()
                self.places.setdefault((subject, ""), at)
                self._statements(subject)
            self._expect(".", "a statement ends with `.`")
        return self.graph

    def _no_token(self, rest: str) -> PolicyError:
        what = "is no IRI" if rest[0] == "<" else "is no Turtle"
        word = rest[:40].split() or [rest[0]]  # a blank that is none in Turtle
        source = f"line {self._line_at(len(self.text) - len(rest))}"
        return refusal(Code.MALFORMED, f"`{shown(word[0])}` {what}", "mend it there", source=source)

    def _directive(self) -> None:
        word, at = self._take()
        what = word.removeprefix("@")
        if word[0] == "@" and what not in ("prefix", "base"):
            raise self._error(at, f"`{shown(word)}` is no directive", "write `@prefix` or `@base`")
        if what.lower() == "prefix":
            name, at = self._take()
            if not _is_name(name) or not name.endswith(":") or name.count(":") != 1:
                raise self._error(at, "a prefix is missing", "write it like `@prefix odrl: <http://www.w3.org/ns/odrl/2/> .`")
            before, self.prefixes[name[:-1]] = self.prefixes.get(name[:-1]), self._iri()
            same = before in (None, self.prefixes[name[:-1]])
        else:
            before, self.base = self.base, self._iri()
            same = before in ("", self.base)
        if not same:
            self.names.clear()
        if word[0] == "@":
            self._expect(".", "a directive ends with `.`")

    def _subject(self) -> str:
        word = self.tokens[self.next]
        if word[:2] == "_:":
            return self._take()[0]
        if _is_iri(word):
            return self._iri()
        raise self._error(self.next, "a statement begins with an IRI or a blank node", "mend it there")

    def _statements(self, subject: str) -> None:
        """`predicateObjectList`: what a node says, up to the mark after it."""
        tokens, names, nodes, places, counted = self.tokens, self.names, self.graph.nodes, self.places, self.counted
        while True:
            at = self.next
            word = tokens[at]
            if (predicate := names.get(word)) is not None:
                self.next = at + 1
            elif word == "a":
                self.next = at + 1
                predicate = TYPE
            elif _is_iri(word):
                predicate = self._iri()
                counted.name(at)
            else:
                raise self._error(at, "a property is missing", "write an IRI, or `a`")
            places.setdefault((subject, predicate), at)
            counted.property(predicate, at)
            found = self._object()
            if not (said := nodes.get(subject)):  # one in brackets is there before it says anything
                counted.node(at)
                said = nodes[subject] = {}
            if (objects := said.get(predicate)) is None:
                objects = said[predicate] = {}
            objects[found] = None
            while (mark := tokens[self.next]) == ",":
                self.next += 1
                objects[self._object()] = None
                if len(objects) > LEAVES_MAX:
                    counted.property(predicate, at, len(objects))
            if mark != ";":
                return
            while mark == ";":
                self.next += 1
                mark = tokens[self.next]
            if mark in (".", "]"):
                return

    def _object(self) -> Term:
        at = self.next
        word = self.tokens[at]
        self.counted.statement(at)
        if (known := self.names.get(word)) is not None:
            self.next = at + 1
            return known
        if word == "[":
            return self._anonymous()
        if word == "(":
            return self._list()
        if _is_iri(word):
            return self._iri()
        self.next = at + 1
        first = word[:1]
        if first in ('"', "'"):
            return self._literal(word, at)
        if word[:2] == "_:":
            return word
        if first.isdigit() or first in ("+", "-") or (first == "." and len(word) > 1):
            return Literal(word, XSD + ("double" if "e" in word or "E" in word else "decimal" if "." in word else "integer"))
        if word in _TRUTHS:
            return Literal(word, XSD + "boolean")
        raise self._error(at, "a value is missing", "write an IRI, a literal, `[ ]` or `( )`")

    def _anonymous(self) -> str:
        """`[ ... ]`: a node without a name."""
        self.blanks += 1
        node = f"_:#{self.blanks}"  # no label may hold `#`, so this is nobody else's
        self.places[node, ""] = self._enter()
        self.graph.nodes[node] = {}
        if self.tokens[self.next] != "]":
            self._statements(node)
        self._leave("]")
        return node

    def _list(self) -> Term:
        self._enter()
        members: list[Term] = []
        while self.tokens[self.next] not in (")", ""):
            members.append(self._object())
        self._leave(")")
        return tuple(members)

    def _enter(self) -> int:
        _, at = self._take()
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise self._refused(Code.LIMIT_EXCEEDED, f"brackets are nested more than {DEPTH_MAX} deep", "write it flat", at)
        return at

    def _leave(self, mark: str) -> None:
        self._expect(mark, f"`{mark}` is missing")
        self.depth -= 1

    def _literal(self, word: str, at: int) -> Literal:
        quote = word[:3]
        text = word[3:-3] if quote in ('"""', "'''") else word[1:-1]
        text = self._unescaped(text, at) if "\\" in text else text
        after = self.tokens[self.next]
        if after[:1] == "@":
            self.next += 1
            return Literal(text, RDF + "langString", after[1:].lower())
        if after == "^^":
            self.next += 1
            return Literal(text, self._iri())
        return Literal(text)

    def _iri(self) -> str:
        word, at = self._take()
        if (known := self.names.get(word)) is not None:
            return known
        if _is_name(word):
            prefix, _, local = word.partition(":")
            if prefix not in self.prefixes:
                raise self._error(
                    at, f"the prefix `{shown(prefix)}:` is not declared", f"write `@prefix {shown(prefix)}: <...> .` above it"
                )
            if "%" in local and _BAD_PERCENT.search(local):
                raise self._error(at, f"`{shown(word)}` has a `%` without two hexadecimal digits", "write `\\%` for a percent sign")
            full = self.prefixes[prefix] + local.replace("\\", "")
        elif word[:1] != "<":
            raise self._error(at, "an IRI is missing", "write it like `<https://...>` or `odrl:use`")
        else:
            full = self._absolute(word[1:-1], at)
        self.names[word] = full
        return full

    def _absolute(self, text: str, at: int) -> str:
        full = self._unescaped(text, at) if "\\" in text else text
        if ABSOLUTE_IRI.fullmatch(full):
            return full
        self.counted.relative(at)
        full = resolved(self.base, full)
        if not ABSOLUTE_IRI.fullmatch(full):
            raise self._error(at, f"`<{shown(text)}>` is no absolute IRI", "write it in full, or say `@base <https://...> .` above it")
        return full

    def _unescaped(self, raw: str, at: int) -> str:
        def char(match: re.Match[str]) -> str:
            escape = match[1]
            if escape[0] not in "uU" or len(escape) == 1:
                if escape not in _PLAIN:
                    raise self._error(at, f"`\\{shown(escape)}` is no escape of Turtle", "write `\\\\` for a backslash")
                return _PLAIN[escape]
            code = int(escape[1:], 16)
            if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:  # noqa: PLR2004 - the end of Unicode, and its surrogates
                raise self._error(at, f"`\\{escape}` is no character", "mend it there")
            return chr(code)

        return _ESCAPED.sub(char, raw)

    def _take(self) -> tuple[str, int]:
        at = self.next
        word = self.tokens[at]
        self.next += word != ""
        return word, at

    def _expect(self, mark: str, message: str) -> None:
        word, at = self._take()
        if word != mark:
            raise self._error(at, message, "mend it there")

    def _place(self, node: str, predicate: str) -> str:
        at = self.places.get((node, predicate))
        return "" if at is None else f"line {self._line(at)}"

    def _line(self, number: int) -> int:
        """The line of a token by its number."""
        if not self.starts:
            ends = accumulate(map(add, map(len, self.spaces), map(len, self.tokens)), initial=0)
            self.starts = list(map(add, ends, map(len, self.spaces)))
        return self._line_at(self.starts[number])

    def _line_at(self, offset: int) -> int:
        return self.text.count("\n", 0, offset) + 1

    def _error(self, at: int, message: str, fix: str) -> PolicyError:
        return self._refused(Code.MALFORMED, message, fix, at)

    def _refused(self, code: Code, message: str, fix: str, at: int) -> PolicyError:
        return refusal(code, message, fix, source=f"line {self._line(at)}")


def _is_name(word: str) -> bool:
    return ":" in word and word[0] not in _NO_NAME


def _is_iri(word: str) -> bool:
    return word[:1] == "<" or _is_name(word)
