"""RDF 1.1 Turtle -> graph.

Written here and not taken from a library for what a policy needs and a library does not give: a bound on the time it takes (one pass over
the tokens, counted before they are read), literals as they are written, the line of each node, and nothing beyond Turtle. `rdflib` is the
oracle of the tests.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urljoin

from connector.errors import PolicyError
from connector.odrl.codes import Code
from connector.odrl.words import shown
from connector.odrl_rdf.decoding import decoded, refusal
from connector.odrl_rdf.rdf import ABSOLUTE_IRI, RDF, TYPE, XSD, Graph, Literal, Term

TURTLE_BYTES_MAX: Final = 256 * 1024  # the largest published policy has 162 kB
TOKENS_MAX: Final = 12_000  # it has 10,021
MARKS_MAX: Final = 12_000  # quotes and backslashes, each of which costs as much as a token; it has 1,048
DEPTH_MAX: Final = 64  # nested [ ] and ( ); rules, constraints and refinements of people nest five deep

# The terminals of the grammar (Turtle, 6.5), longest first where one begins like another, each with the space before it: half as many
# matches. Of that nothing is given back (`?>`), or what is no token after a long comment would cost its square.
_BASE: Final = (
    "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02ff\u0370-\u037d\u037f-\u1fff\u200c\u200d\u2070-\u218f\u2c00-\u2fef\u3001-\ud7ff\uf900-\ufdcf"
    "\ufdf0-\ufffd\U00010000-\U000effff"
)
_CHARS: Final = _BASE + "_0-9\u00b7\u0300-\u036f\u203f\u2040-"
_ESCAPE: Final = r"\\[_~.\-!$&'()*+,;=/?#@%]"
_NAME: Final = rf"[{_BASE}](?:[.{_CHARS}]*(?<!\.))?"
_LOCAL: Final = rf"(?:[%{_BASE}_:0-9]|{_ESCAPE})[.:%{_CHARS}]*(?:{_ESCAPE}[.:%{_CHARS}]*)*(?<!\.)"
_TOKEN: Final = re.compile(
    rf"""
    (?>[ \t\r\n]*(?:\#[^\r\n]*[ \t\r\n]*)*)
    (?:<(?P<iri>[^\x00-\x20<>"{{}}|^`\\]*(?:\\[uU][0-9A-Fa-f]{{4,8}}[^\x00-\x20<>"{{}}|^`\\]*)*)>
    | \"\"\"(?P<long>[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*)\"\"\"
    | '''(?P<long1>[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*)'''
    | "(?P<short>[^"\\\r\n]*(?:\\.[^"\\\r\n]*)*)"
    | '(?P<short1>[^'\\\r\n]*(?:\\.[^'\\\r\n]*)*)'
    | (?P<double>[+-]?(?:[0-9]+\.[0-9]*|\.?[0-9]+)[eE][+-]?[0-9]+)
    | (?P<decimal>[+-]?[0-9]*\.[0-9]+)
    | (?P<integer>[+-]?[0-9]+)
    | (?P<at>@[a-zA-Z]+(?:-[a-zA-Z0-9]+)*)
    | (?P<blank>_:[{_BASE}_0-9](?:[.{_CHARS}]*(?<!\.))?)
    | (?P<name>(?:{_NAME})?:(?:{_LOCAL})?)
    | (?P<word>[a-zA-Z]+)
    | (?P<datatype>\^\^)
    | (?P<mark>[;,.\[\]()])
    | (?P<end>\Z))
    """,
    re.VERBOSE | re.DOTALL,
)
_SPACE: Final = re.compile(r"[ \t\r\n]*(?:\#[^\r\n]*[ \t\r\n]*)*")
_NUMBERS: Final = {kind: XSD + kind for kind in ("integer", "decimal", "double")}
_STRINGS: Final = frozenset({"long", "long1", "short", "short1"})
_BAD_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPED: Final = re.compile(r"\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)", re.DOTALL)
_PLAIN: Final = {"t": "\t", "b": "\b", "n": "\n", "r": "\r", "f": "\f", '"': '"', "'": "'", "\\": "\\"}

Token = tuple[str, str, int]  # kind, text without its delimiters, offset; the kind of a mark is the mark itself


def graph_of(document: str | bytes) -> Graph:
    """The graph of a Turtle document (text, or bytes in the encodings of `decoding`).

    Raises PolicyError, its finding with the line, for what is no Turtle, for a relative IRI without a base, and beyond the limits:
    TURTLE_BYTES_MAX bytes, TOKENS_MAX tokens, brackets DEPTH_MAX deep.
    """
    return _Reader(decoded(document, TURTLE_BYTES_MAX)).document()


class _Reader:
    """One pass over one document."""

    def __init__(self, text: str) -> None:
        self.text = text
        if text.count("\\") + text.count('"') + text.count("'") > MARKS_MAX:
            raise refusal(Code.LIMIT_EXCEEDED, f"it has more than {MARKS_MAX} quotes and backslashes", "split it")
        self.tokens = self._tokens()
        self.next = 0
        self.base = ""
        self.prefixes: dict[str, str] = {}
        self.names: dict[str, str] = {}  # that were read, under these prefixes
        self.offsets: dict[tuple[str, str], int] = {}
        self.blanks = 0
        self.depth = 0
        self.graph = Graph(place=self._place)

    def document(self) -> Graph:
        while (token := self.tokens[self.next])[0] != "end":
            kind, text, at = token
            if kind == "at" or (kind == "word" and text.upper() in ("PREFIX", "BASE")):
                self._directive()
                continue
            if kind == "[":
                subject = self._anonymous()
                if self.tokens[self.next][0] != ".":
                    self._statements(subject)
            else:
                subject = self._subject()
                self.offsets.setdefault((subject, ""), at)
                self._statements(subject)
            self._expect(".", "a statement ends with `.`")
        return self.graph

    def _tokens(self) -> list[Token]:
        text, at, kind = self.text, 0, ""
        found: list[Token] = []
        match = _TOKEN.match
        while kind != "end":
            token = match(text, at)
            if token is None:
                raise self._no_token(at)
            kind = str(token.lastgroup)
            value, at = token[kind], token.start(kind)
            found.append((value if kind == "mark" else kind, value, at))
            if len(found) > TOKENS_MAX + 1:
                message = f"it has more than {TOKENS_MAX} words, values and marks"
                raise refusal(Code.LIMIT_EXCEEDED, message, "split it", source=f"line {self._line(at)}")
            at = token.end()
        return found

    def _no_token(self, at: int) -> PolicyError:
        space = _SPACE.match(self.text, at)
        at = space.end() if space is not None else at
        what = "is no IRI" if self.text[at] == "<" else "is no Turtle"
        word = self.text[at : at + 40].split() or [self.text[at]]  # a blank that is none in Turtle
        return self._error(at, f"`{shown(word[0])}` {what}", "mend it there")

    def _directive(self) -> None:
        kind, word, at = self._take()
        what = word.removeprefix("@")
        if kind == "at" and what not in ("prefix", "base"):
            raise self._error(at, f"`{shown(word)}` is no directive", "write `@prefix` or `@base`")
        if what.lower() == "prefix":
            kind, name, at = self._take()
            if kind != "name" or not name.endswith(":") or name.count(":") != 1:
                raise self._error(at, "a prefix is missing", "write it like `@prefix odrl: <http://www.w3.org/ns/odrl/2/> .`")
            self.prefixes[name[:-1]] = self._iri()
            self.names.clear()
        else:
            self.base = self._iri()
        if word.startswith("@"):
            self._expect(".", "a directive ends with `.`")

    def _subject(self) -> str:
        kind, _, at = self.tokens[self.next]
        if kind == "blank":
            return self._take()[1]
        if kind in ("iri", "name"):
            return self._iri()
        raise self._error(at, "a statement begins with an IRI or a blank node", "mend it there")

    def _statements(self, subject: str) -> None:
        """`predicateObjectList`: what a node says, up to the mark after it."""
        while True:
            kind, text, at = self.tokens[self.next]
            if kind == "word" and text == "a":
                self.next += 1
                predicate = TYPE
            elif kind in ("iri", "name"):
                predicate = self._iri()
            else:
                raise self._error(at, "a property is missing", "write an IRI, or `a`")
            self.offsets.setdefault((subject, predicate), at)
            self.graph.add(subject, predicate, self._object())
            while self.tokens[self.next][0] == ",":
                self.next += 1
                self.graph.add(subject, predicate, self._object())
            if self.tokens[self.next][0] != ";":
                return
            while self.tokens[self.next][0] == ";":
                self.next += 1
            if self.tokens[self.next][0] in (".", "]"):
                return

    def _object(self) -> Term:
        kind, text, at = self.tokens[self.next]
        if kind in ("iri", "name"):
            return self._iri()
        if kind == "[":
            return self._anonymous()
        if kind == "(":
            return self._list()
        self.next += 1
        if kind == "blank":
            return text
        if kind in _STRINGS:
            return self._literal(text, at)
        if kind in _NUMBERS:
            return Literal(text, _NUMBERS[kind])
        if kind == "word" and text in ("true", "false"):
            return Literal(text, XSD + "boolean")
        raise self._error(at, "a value is missing", "write an IRI, a literal, `[ ]` or `( )`")

    def _anonymous(self) -> str:
        """`[ ... ]`: a node without a name."""
        self.blanks += 1
        node = f"_:#{self.blanks}"  # no label may hold `#`, so this is nobody else's
        self.offsets[node, ""] = self._enter()
        self.graph.nodes[node] = {}
        if self.tokens[self.next][0] != "]":
            self._statements(node)
        self._leave("]")
        return node

    def _list(self) -> Term:
        self._enter()
        members: list[Term] = []
        while self.tokens[self.next][0] not in (")", "end"):
            members.append(self._object())
        self._leave(")")
        return tuple(members)

    def _enter(self) -> int:
        at = self._take()[2]
        self.depth += 1
        if self.depth > DEPTH_MAX:
            source = f"line {self._line(at)}"
            raise refusal(Code.LIMIT_EXCEEDED, f"brackets are nested more than {DEPTH_MAX} deep", "write it flat", source=source)
        return at

    def _leave(self, mark: str) -> None:
        self._expect(mark, f"`{mark}` is missing")
        self.depth -= 1

    def _literal(self, raw: str, at: int) -> Literal:
        text = self._unescaped(raw, at) if "\\" in raw else raw
        kind, value, _ = self.tokens[self.next]
        if kind == "at":
            self.next += 1
            return Literal(text, RDF + "langString", value[1:].lower())
        if kind == "datatype":
            self.next += 1
            return Literal(text, self._iri())
        return Literal(text)

    def _iri(self) -> str:
        kind, text, at = self._take()
        if kind == "name":
            if (known := self.names.get(text)) is not None:
                return known
            prefix, _, local = text.partition(":")
            if prefix not in self.prefixes:
                raise self._error(
                    at, f"the prefix `{shown(prefix)}:` is not declared", f"write `@prefix {shown(prefix)}: <...> .` above it"
                )
            if "%" in local and _BAD_PERCENT.search(local):
                raise self._error(at, f"`{shown(text)}` has a `%` without two hexadecimal digits", "write `\\%` for a percent sign")
            if "\\" in local:
                local = re.sub(r"\\(.)", r"\1", local)
            self.names[text] = full = self.prefixes[prefix] + local
            return full
        if kind != "iri":
            raise self._error(at, "an IRI is missing", "write it like `<https://...>` or `odrl:use`")
        full = self._unescaped(text, at) if "\\" in text else text
        if ABSOLUTE_IRI.fullmatch(full):
            return full
        full = urljoin(self.base, full)
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

    def _take(self) -> Token:
        token = self.tokens[self.next]
        self.next += token[0] != "end"
        return token

    def _expect(self, mark: str, message: str) -> None:
        kind, _, at = self._take()
        if kind != mark:
            raise self._error(at, message, "mend it there")

    def _place(self, node: str, predicate: str) -> str:
        return f"line {self._line(self.offsets[node, predicate])}" if (node, predicate) in self.offsets else ""

    def _line(self, at: int) -> int:
        return self.text.count("\n", 0, at) + 1

    def _error(self, at: int, message: str, fix: str) -> PolicyError:
        return refusal(Code.MALFORMED, message, fix, source=f"line {self._line(at)}")
