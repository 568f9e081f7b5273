"""Constraints in the small text form: fixed phrases for one operator of one left operand each, and their values.

What people write most has a phrase of its own (connector/odrl_forms/sayings.py): `until 2026-12-31Z`. Everything else is
`<left operand> <phrase of the operator> <value>`, by the table of connector/odrl/words.py: `spatial is part of {EU}`. Behind it may stand
`unit <iri>`, `with 3 used` (what was used up before) and `as <id>`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher, get_close_matches
from functools import lru_cache
from typing import Any, Final

from connector.errors import PolicyError
from connector.odrl import values
from connector.odrl.codes import Code
from connector.odrl.model import Constraint
from connector.odrl.operands import BYTE_COUNT, PARTICIPANT, RECORD_COUNT
from connector.odrl.registry import Registry, Values
from connector.odrl.vocabulary import ABSOLUTE, ODRL, PREFIXES
from connector.odrl.words import PHRASES, shown
from connector.odrl_forms.sayings import SAID, SAYINGS, Saying
from connector.odrl_forms.text_lines import Line, Mistakes, Token, angled, bare, quoted
from connector.odrl_reading.constraints import LIST_OPERATORS
from connector.odrl_reading.reading import WORD_CHARS_MAX

SUGGESTIONS_MAX: Final = 3  # for one phrase,
SUGGESTED_MAX: Final = 8  # and phrases that get any: the search takes a millisecond
LIKE_MIN: Final = 0.6  # of a phrase that is suggested for another one

_OWN: Final = {"participant": PARTICIPANT, "byteCount": BYTE_COUNT, "recordCount": RECORD_COUNT}
_OWN_WORDS: Final = {iri: word for word, iri in _OWN.items()}
# Words of phrases and what may stand behind them: as a value they stand in quotes.
_RESERVED: Final = frozenset({"and", "as", "unit", "with", "used"}).union(
    *(phrase.asked.split() for rows in PHRASES.values() for phrase in rows.values()), *(saying.text.split() for saying in SAYINGS)
)
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?")
_SIMPLE: Final = re.compile(r"P([0-9]+)([YMWD])|PT([0-9]+)([HMS])")
_LENGTHS: Final = {
    "year": "P{}Y", "month": "P{}M", "week": "P{}W", "day": "P{}D", "hour": "PT{}H", "minute": "PT{}M", "second": "PT{}S",
}  # fmt: skip


@lru_cache(maxsize=1)
def _sayings() -> tuple[tuple[tuple[str, ...], tuple[str, ...], Saying], ...]:
    """The words before and behind the value of each saying; the longest ones first, so that `for at most` goes before `for`."""
    found = []
    for saying in SAYINGS:
        before, _, behind = saying.text.partition("{}")
        found.append((tuple(before.split()), tuple(behind.split()), saying))
    return tuple(sorted(found, key=lambda row: -len(row[0]) - len(row[1])))


@lru_cache(maxsize=len(PHRASES))
def _phrases(sort: Values) -> tuple[tuple[tuple[str, ...], str], ...]:
    rows = [(tuple(phrase.asked.split()), operator) for operator, phrase in PHRASES[sort].items()]
    return tuple(sorted(rows, key=lambda row: -len(row[0])))


# From text to the tree.


def read_constraint(tokens: Sequence[Token], line: Line, registry: Registry, mistakes: Mistakes) -> dict[str, Any] | None:
    """One phrase -> a constraint of the tree; None with a mistake."""
    body, suffix = _suffix(list(tokens), line, registry, mistakes)
    if not body:
        mistakes.note(line.place(), "there is no condition", "write one like `until 2026-12-31Z`")
        return None
    for before, behind, saying in _sayings():
        end = len(body) - len(behind)
        value = body[len(before) : end]
        if not value or not _begins(body, before) or not _begins(body[end:], behind):
            continue
        if saying.operator not in LIST_OPERATORS if value[0].is_word("{") else saying.operator in ("isAnyOf", "isNoneOf"):
            continue  # `for {a}` is a list of one, `for a` is one
        sort = registry.operands[saying.operand].values
        if (right := _right(sort, saying.operator, value, registry)) is not None:
            return {"leftOperand": short(saying.operand), "operator": saying.operator, "rightOperand": right, **suffix}
    return _generic(body, suffix, line, registry, mistakes)


def _suffix(tokens: list[Token], line: Line, registry: Registry, mistakes: Mistakes) -> tuple[list[Token], dict[str, Any]]:
    """What stands behind a phrase, taken off."""
    found: dict[str, Any] = {}
    while len(tokens) > 2:  # noqa: PLR2004 - a word and its value, behind something
        if tokens[-2].is_word("as") and "@id" not in found:
            found["@id"] = name(tokens[-1], registry)
            tokens = tokens[:-2]
        elif tokens[-2].is_word("unit") and "odrl:unit" not in found:
            found["odrl:unit"] = {"@id": name(tokens[-1], registry)}
            tokens = tokens[:-2]
        elif len(tokens) > 3 and tokens[-3].is_word("with") and tokens[-1].is_word("used"):  # noqa: PLR2004
            amount = _number(tokens[-2])
            if amount is None:
                mistakes.note(line.place(), f"`{shown(tokens[-2].text)}` is no number", "write digits", Code.TYPE_MISMATCH)
            found["odrl:status"] = amount
            tokens = tokens[:-3]
        else:
            break
    return tokens, found


def _begins(tokens: Sequence[Token], words: Sequence[str]) -> bool:
    return len(tokens) >= len(words) and all(token.is_word(word) for token, word in zip(tokens, words, strict=False))


def _generic(body: list[Token], suffix: dict[str, Any], line: Line, registry: Registry, mistakes: Mistakes) -> dict[str, Any] | None:
    place = f"line {line.number}, column {body[0].column}"
    left, sort = _operand(body[0], registry)
    if sort is None:
        _unknown(body, place, registry, mistakes)
        return None
    for words, operator in _phrases(sort):
        if _begins(body[1:], words):
            right = _right(sort, operator, body[1 + len(words) :], registry)
            if right is None:
                value = shown(" ".join(token.text for token in body[1 + len(words) :]))
                message = f"`{value}` is no value that `{shown(body[0].text)} {' '.join(words)}` takes"
                mistakes.note(place, message, f"write {_FORMS[sort]}", Code.TYPE_MISMATCH)
                return None
            return {"leftOperand": left, "operator": operator, "rightOperand": right, **suffix}
    fix = f"write one of {', '.join(f'`{phrase.asked}`' for phrase in PHRASES[sort].values())} behind it"
    mistakes.note(place, f"no operator follows `{shown(body[0].text)}`", fix, Code.OPERATOR_UNSUPPORTED)
    return None


def _operand(token: Token, registry: Registry) -> tuple[str, Values | None]:
    """The left operand as it stands in the tree, and the sort of its values; an alias keeps its own word."""
    if token.kind == "text":
        return "", None
    word = token.text
    for spelling in (_OWN.get(word, ""), f"odrl:{word}", word, _full(word, registry)):
        if (alias := registry.aliases.get(spelling)) is not None and not alias.offset:
            target = registry.operands.get(alias.operand)
            return short(alias.iri), None if target is None else target.values
        if (operand := registry.operands.get(spelling)) is not None:
            return short(operand.iri), operand.values
    return "", None


def _unknown(body: Sequence[Token], place: str, registry: Registry, mistakes: Mistakes) -> None:
    """The nearest phrases and left operands for what is none."""
    words = [token.text[:WORD_CHARS_MAX] for token in body]
    found: dict[str, float] = {}
    for size, known in _heads(registry).items() if len(mistakes.findings) < SUGGESTED_MAX else ():
        start = " ".join(words[:size])
        for near in get_close_matches(start, known, SUGGESTIONS_MAX, LIKE_MIN):
            for text in known[near]:
                found[text] = SequenceMatcher(None, start, near).ratio()
    best = sorted(found, key=lambda text: (-found[text], text))[:SUGGESTIONS_MAX]
    near = ", ".join(f"`{text}`" for text in best)
    fix = f"did you mean {near}?" if near else "write a phrase like `until 2026-12-31Z`, or `<left operand> is <value>`"
    mistakes.note(place, f"`{shown(' '.join(words))}` is no condition that is known here", fix, Code.OPERAND_UNSUPPORTED)


@lru_cache(maxsize=8)
def _heads(registry: Registry) -> dict[int, dict[str, list[str]]]:
    """How many words -> the words before the value of a saying, or a left operand -> the phrases that begin so."""
    found: dict[int, dict[str, list[str]]] = {}
    for before, _, saying in _sayings():
        texts = found.setdefault(len(before), {}).setdefault(" ".join(before), [])
        texts += [text for text in (saying.text.replace("{}", "..."),) if text not in texts]
    for iri in dict.fromkeys(operand.iri for operand in registry.operands.values()):
        word = operand_word(iri, registry)
        found.setdefault(1, {}).setdefault(word, []).append(f"{word} ...")
    return found


def _right(sort: Values, operator: str, tokens: Sequence[Token], registry: Registry) -> Any:
    """The right operand of the tree, or None for what does not fit."""
    if not tokens:
        return None
    if tokens[0].is_word("{"):
        parts = _listed(tokens)
        found = [_one(sort, part, registry) for part in parts]
        return None if operator not in LIST_OPERATORS or not found or None in found else found
    one = _one(sort, tokens, registry)
    return [one] if one is not None and operator in LIST_OPERATORS else one


def _listed(tokens: Sequence[Token]) -> list[list[Token]]:
    """The values between braces; [] if it is no list."""
    if not tokens[-1].is_word("}"):
        return []
    parts: list[list[Token]] = [[]]
    for token in tokens[1:-1]:
        if token.is_word(","):
            parts.append([])
        else:
            parts[-1].append(token)
    return [] if any(not part for part in parts) else parts


def _one(sort: Values, tokens: Sequence[Token], registry: Registry) -> Any:
    first = tokens[0]
    if first.kind == "mark":
        return None
    if sort == "duration":
        return _duration(tokens)
    if len(tokens) != 1:
        return None
    if sort == "number":
        return _number(first)
    if sort == "instant":
        datatype = "xsd:dateTime" if "T" in first.text else "xsd:date"
        return {"@value": first.text, "@type": datatype} if _reads(values.stretch, first.text) else None
    if first.kind == "text":
        return first.text
    full = first.text if first.kind == "iri" else _full(first.text, registry)
    if first.kind == "word" and ":" not in first.text:
        return first.text
    return {"@id": full} if full else None


def _number(token: Token) -> dict[str, str] | None:
    if token.kind != "word" or _NUMBER.fullmatch(token.text) is None or not _reads(values.number, token.text):
        return None
    whole = token.text.lstrip("+-").isdecimal()
    return {"@value": token.text, "@type": "xsd:integer" if whole else "xsd:double" if "e" in token.text.lower() else "xsd:decimal"}


def _duration(tokens: Sequence[Token]) -> dict[str, str] | None:
    text = tokens[0].text
    if len(tokens) == 2 and text.isdecimal() and (form := _LENGTHS.get(tokens[1].text.removesuffix("s"))):  # noqa: PLR2004 - 30 days
        text = form.format(text)
    elif len(tokens) != 1:
        return None
    return {"@value": text, "@type": "xsd:duration"} if _reads(values.length, text) else None


def _reads(reader: Any, text: str) -> bool:
    try:
        reader(text)
    except PolicyError:
        return False
    return True


def name(token: Token, registry: Registry) -> str:
    """An id: a word with a known prefix in full, anything else as it is."""
    return (_full(token.text, registry) or token.text) if token.kind == "word" else token.text


def _full(word: str, registry: Registry) -> str:
    prefix, colon, rest = word.partition(":")
    space = (registry.prefixes.get(prefix) or PREFIXES.get(prefix)) if colon else None
    return space + rest if space is not None else word if word.startswith(ABSOLUTE) else ""


_FORMS: Final = {
    "term": "a word, an IRI, or a list `{a, b}`",
    "event": "an IRI",
    "number": "digits like `100`",
    "instant": "a day `2026-12-31Z` or an instant `2026-12-31T18:00:00Z`",
    "duration": "a length like `30 days` or `P1Y6M`",
}


# From the policy to text.


def constraint_text(constraint: Constraint, registry: Registry) -> str:
    """A constraint as a phrase that reads back to it."""
    operand = registry.operands[constraint.operand]
    operator = _spoken(constraint, registry)
    said = SAID.get((constraint.operand, operator))
    right = _right_text(operand.values, operator, constraint.expected, registry)
    if said is not None:
        text = said.text.replace("{}", right)
    else:
        text = f"{operand_word(constraint.operand, registry)} {PHRASES[operand.values][operator].asked} {right}"
    if constraint.unit and operand.values != "event":
        text += f" unit {id_text(constraint.unit, registry)}"
    if constraint.used:
        text += f" with {constraint.used} used"
    return text + (f" as {id_text(constraint.id, registry)}" if constraint.id else "")


def _spoken(constraint: Constraint, registry: Registry) -> str:
    """The operator as a policy has to write it, where the operand's own word is an alias that means another one by it."""
    alias = registry.aliases.get(constraint.operand)
    if alias is None:
        return constraint.operator
    written = [theirs for theirs, ours in alias.operators.items() if ours == constraint.operator]
    fitting = [theirs for theirs in written if len(constraint.expected) == 1 or theirs in LIST_OPERATORS]
    return fitting[0] if fitting else constraint.operator


def _right_text(sort: Values, operator: str, expected: Sequence[str], registry: Registry) -> str:
    if sort == "duration":
        return _length_text(expected[0])
    if sort in ("number", "instant"):
        return expected[0]
    parts = [term_text(text, registry) for text in expected]
    return "{" + ", ".join(parts) + "}" if operator in LIST_OPERATORS else parts[0]


def _length_text(text: str) -> str:
    match = _SIMPLE.fullmatch(text)
    if match is None:
        return text
    count, unit, clock_count, clock_unit = match.groups()
    form = f"P{{}}{unit}" if unit else f"PT{{}}{clock_unit}"
    noun = next(noun for noun, of in _LENGTHS.items() if of == form)
    number = count or clock_count
    return f"{number} {noun}" + ("" if number == "1" else "s")


def operand_word(iri: str, registry: Registry) -> str:
    """A left operand as it is written: of the core bare, else with its prefix, else in full."""
    if iri in _OWN_WORDS:
        return _OWN_WORDS[iri]
    if iri.startswith(ODRL) and bare(iri[len(ODRL) :]):
        return iri[len(ODRL) :]
    if not iri.startswith(ABSOLUTE):
        return iri if bare(iri) else angled(iri)
    return iri_text(iri, registry)


def iri_text(iri: str, registry: Registry) -> str:
    """An IRI with a known prefix, bare, or in angle brackets."""
    for prefix, space in (*registry.prefixes.items(), *PREFIXES.items()):
        rest = iri[len(space) :]
        if iri.startswith(space) and bare(f"{prefix}:{rest}"):
            return f"{prefix}:{rest}"
    return iri if bare(iri) and iri.startswith(ABSOLUTE) else angled(iri)


def term_text(text: str, registry: Registry) -> str:
    """A value: an IRI, or a string, which stands in quotes unless it is a plain word. What begins as an IRI and is none is a string."""
    if text.startswith(ABSOLUTE) and values.tellable(text) and not values.spoils(text):
        return iri_text(text, registry)
    return text if bare(text) and ":" not in text and text not in _RESERVED else quoted(text)


def id_text(text: str, registry: Registry) -> str:
    """An id: bare where it reads as itself."""
    return text if bare(text) and text not in _RESERVED and _full(text, registry) in ("", text) else quoted(text)


def short(iri: str) -> str:
    """The IRI as it stands in the tree: the core's with its prefix, everything else as it is."""
    return f"odrl:{iri[len(ODRL) :]}" if iri.startswith(ODRL) else iri
