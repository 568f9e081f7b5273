"""The small text form of policies, its outer shape: lines, indentation, tokens.

A line holds words, IRIs in `<...>`, texts in `"..."` (both with the escapes of JSON) and the marks `{ } ,`. What is indented deeper belongs
to the line above. A token that begins with `#` begins a comment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from itertools import islice
from typing import Final, Literal

from connector.odrl.codes import Code, Finding
from connector.odrl.words import shown
from connector.odrl_reading.reading import FINDINGS_MAX, refusal
from connector.values import Value, field

CHARS_MAX: Final = 100_000  # of a text: 800 conditions with ids fit, and
TOKENS_MAX: Final = 5_000  # of its words: 800 conditions, the most that a policy may have, fit and take 50 ms
DEPTH_MAX: Final = 40  # levels of indentation; a policy has rules, duties, consequences, and 32 levels of conditions at most

_TOKEN: Final = re.compile(r'"((?:[^"\\]|\\.)*)"|<((?:[^>\\]|\\.)*)>|([{},])|([^\s{},"<>]+)')
_WORD: Final = re.compile(r'[^\s{},"<>#][^\s{},"<>]*')


class Token(Value):
    """A token: its text without marks and escapes, and the column (from 1) where it begins."""

    kind: Literal["word", "text", "iri", "mark"]
    text: str
    column: int

    def is_word(self, *words: str) -> bool:
        """Whether it is one of these words, written bare."""
        return self.kind in ("word", "mark") and self.text in words


class Line(Value):
    """A line with what is indented below it. `number` counts from 1."""

    number: int
    tokens: tuple[Token, ...]
    below: list[Line] = field(default_factory=list)

    def place(self, index: int = 0) -> str:
        """Where a token stands; behind the last one, where the line ends."""
        if index < len(self.tokens):
            column = self.tokens[index].column
        else:
            last = self.tokens[-1]
            column = last.column + len(last.text)
        return f"line {self.number}, column {column}"


class Mistakes:
    """What is wrong with a text, each with line and column."""

    __slots__ = ("findings",)

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def note(self, place: str, message: str, fix: str, code: Code = Code.MALFORMED) -> None:
        """Add a mistake; a text full of them is given up. Raises PolicyError."""
        self.findings.append(Finding(code, place, message, fix))
        if len(self.findings) >= FINDINGS_MAX:
            self.done()

    def done(self) -> None:
        """Raise PolicyError with all mistakes, if there is one."""
        if self.findings:
            raise refusal("the text", tuple(self.findings))


def read_lines(text: str, mistakes: Mistakes) -> list[Line]:
    """The lines of a text as a tree."""
    if len(text) > CHARS_MAX:
        mistakes.note("line 1, column 1", f"the text has {len(text)} characters", f"write {CHARS_MAX} at most", Code.LIMIT_EXCEEDED)
        return []
    count, top = 0, list[Line]()
    open_lines: list[tuple[int, list[Line]]] = [(-1, top)]
    for number, raw in enumerate(text.splitlines(), 1):
        if not raw or raw.isspace():
            continue
        body = raw.lstrip(" ")
        indent = len(raw) - len(body)
        if body[0].isspace():
            mistakes.note(f"line {number}, column {indent + 1}", "it is indented with something else than spaces", "use spaces")
        tokens = tuple(islice(_tokens(raw, indent, number, mistakes), TOKENS_MAX - count))
        count += len(tokens)
        if count >= TOKENS_MAX:
            mistakes.note(f"line {number}, column 1", f"there are more than {TOKENS_MAX} words", "split the policy", Code.LIMIT_EXCEEDED)
            return top
        if not tokens:
            continue
        while open_lines[-1][0] >= indent:
            open_lines.pop()
        line = Line(number, tokens)
        open_lines[-1][1].append(line)
        if len(open_lines) > DEPTH_MAX:
            mistakes.note(line.place(), f"it is nested more than {DEPTH_MAX} deep", "write it flat", Code.LIMIT_EXCEEDED)
            return top
        open_lines.append((indent, line.below))
    return top


def _tokens(raw: str, start: int, number: int, mistakes: Mistakes) -> Iterable[Token]:
    at = start
    while at < len(raw):
        if raw[at].isspace():
            at += 1
            continue
        if raw[at] == "#":
            return
        match = _TOKEN.match(raw, at)
        if match is None:
            fix = 'write a text as "..." and an IRI as <...>'
            mistakes.note(f"line {number}, column {at + 1}", f"`{shown(raw[at:])}` does not end", fix)
            return
        text, iri, mark, word = match.groups()
        try:
            if word is not None or mark is not None:
                yield Token("mark" if mark else "word", mark or word, at + 1)
            elif text is not None:
                yield Token("text", json.loads(f'"{text}"'), at + 1)
            else:
                yield Token("iri", json.loads(f'"{iri}"'.replace("\\>", ">")), at + 1)
        except ValueError:
            mistakes.note(
                f"line {number}, column {at + 1}", f"`{shown(match[0])}` has an escape that JSON does not know", 'write \\" or \\\\'
            )
        at = match.end()


def bare(text: str) -> bool:
    """Whether a text can stand as a word."""
    return _WORD.fullmatch(text) is not None and text.isprintable()


def quoted(text: str) -> str:
    """A text in quotes, on one line."""
    return json.dumps(text)


def angled(iri: str) -> str:
    """An IRI in angle brackets, on one line."""
    return f"<{json.dumps(iri)[1:-1].replace('>', chr(92) + 'u003e')}>"
