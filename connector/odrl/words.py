"""Constraints and values in plain words: short, bounded, and safe to print whatever a peer has written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple

from connector.odrl.model import NEVER, Constraint, Fact, Lapse, Logic, Members, Node, Policy, Rule, Since
from connector.odrl.registry import Values
from connector.odrl.values import instant
from connector.odrl.vocabulary import ABSOLUTE, CURRENCIES, compact

VALUE_CHARS_MAX: Final = 80  # of one value in a sentence: an id or an IRI fits
VALUES_SHOWN_MAX: Final = 6  # of one list in a sentence; the pointer leads to the whole
PATH_CHARS_MAX: Final = 120  # of a pointer in a sentence: eight levels; the stored decision has the whole
TEXT_CHARS_MAX: Final = 280  # of what a sentence says, beside where it comes from
SENTENCE_CHARS_MAX: Final = 500  # a reason travels in messages and logs
BITS_MAX: Final = 160  # of a number that is shown, some 48 digits; Python itself shows none of more than 4,300
PLACES_MAX: Final = 12  # behind the point of a number that is shown as a decimal
CODE_CHARS: Final = 3  # ISO 4217
BEYOND: Final = "a number beyond all measure"


class Phrase(NamedTuple):
    """How an operator reads: what is asked, what is found instead, and what is asked in Chinese. The left operand stands before it, the
    right one behind it, in both languages."""

    asked: str
    instead: str
    zh: str


_SAME: Final = {"eq": Phrase("is", "is not", "为"), "neq": Phrase("is not", "is", "不为")}
_CHOICE: Final = _SAME | {
    "isAnyOf": Phrase("is one of", "is not one of", "为以下之一："),
    "isNoneOf": Phrase("is none of", "is one of", "不为以下任何一项："),
    "isAllOf": Phrase("is all of", "is not all of", "同时为以下各项："),
    "isA": Phrase("is a kind of", "is no kind of", "属于"),
    "isPartOf": Phrase("is part of", "is not part of", "是以下的一部分："),
    "hasPart": Phrase("includes", "does not include", "包含"),
}
_TIME: Final = _SAME | {
    "lt": Phrase("is before", "is not before", "早于"),
    "lteq": Phrase("is not after", "is after", "不晚于"),
    "gt": Phrase("is after", "is not after", "晚于"),
    "gteq": Phrase("is not before", "is before", "不早于"),
}
_AMOUNT: Final = _SAME | {
    "lt": Phrase("is less than", "is not less than", "小于"),
    "lteq": Phrase("is at most", "is more than", "不超过"),
    "gt": Phrase("is more than", "is not more than", "大于"),
    "gteq": Phrase("is at least", "is less than", "不少于"),
}
_EVENT: Final = _SAME | {
    "lt": Phrase("lies before", "does not lie before", "早于"),
    "lteq": Phrase("lies not after", "lies after", "不晚于"),
    "gt": Phrase("lies after", "does not lie after", "晚于"),
    "gteq": Phrase("lies not before", "lies before", "不早于"),
}
# The one table of phrases: sort of values -> operator -> how it reads. Reasons, the text form and plain words all speak by it.
PHRASES: Final[Mapping[Values, Mapping[str, Phrase]]] = {
    "term": _CHOICE, "instant": _TIME, "number": _AMOUNT, "duration": _AMOUNT, "event": _EVENT,
}  # fmt: skip


def shown(text: str, chars_max: int = VALUE_CHARS_MAX) -> str:
    """The text on one line without control characters, shortened."""
    if len(text) <= chars_max and text.isprintable():
        return text
    if len(text) > chars_max:
        text = text[: chars_max - 1] + "…"
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


def all_shown(texts: Iterable[str]) -> list[str]:
    """Each as `shown` has it: a decision shows some dozens, and nearly all of them are short."""
    return [text if len(text) <= VALUE_CHARS_MAX and text.isprintable() else shown(text) for text in texts]


def value(of: str) -> str:
    """A value as it is read: a string in quotes, an IRI in angle brackets."""
    return f"<{shown(of)}>" if of.startswith(ABSOLUTE) else f"'{shown(of)}'"


def asked(node: Node) -> str:
    """What a constraint asks for: `purpose is one of 'research', 'quality'`."""
    if isinstance(node, Logic):
        joined = f" {node.kind} ".join(asked(part) for part in node.parts[:VALUES_SHOWN_MAX])
        return shown(f"({joined}{_more(len(node.parts))})", SENTENCE_CHARS_MAX)
    if isinstance(node, Constraint):
        return f"{label(node)} {_phrase(node).asked} {_expected(node)}"
    return "a constraint that is not understood"


def failed(constraint: Constraint, actual: str | None) -> str:
    """Why a constraint is not satisfied: `purpose 'marketing' is not one of 'research'`; without `actual`, the value is not told."""
    found = f"{label(constraint)} {actual}" if actual else label(constraint)
    return f"{found} {_phrase(constraint).instead} {_expected(constraint)}"


def held(constraint: Constraint, actual: str | None) -> str:
    """That a constraint is satisfied: `purpose 'marketing' is one of 'marketing'`."""
    found = f"{label(constraint)} {actual}" if actual else label(constraint)
    return f"{found} {_phrase(constraint).asked} {_expected(constraint)}"


def unstated(node: Node) -> str:
    """That the fact which a constraint needs is missing."""
    if isinstance(node, Constraint):
        return f"the {label(node)} is not known, and it matters whether {asked(node)}"
    return asked(node)


def place(policy: Policy, path: str) -> str:
    """Where a sentence comes from: `offer urn:o1, /permission/0`."""
    whose = f"{policy.kind.lower()} {shown(policy.id)}".rstrip()
    return f"{whose}, {shown(path, PATH_CHARS_MAX)}" if path else whose


def acts(rule: Rule) -> str:
    """What a duty asks to do: `delete or anonymize`."""
    return shown(" or ".join(compact(action.iri).removeprefix("odrl:") for action in rule.actions) or "act")


def label(constraint: Constraint) -> str:
    """What a left operand is called."""
    return constraint.label or compact(constraint.operand)


def seconds(microseconds: int) -> str:
    """A duration as people read it: `3 d 04:05:06`, with its fraction: `00:00:04.5` is more than four seconds, and reads so."""
    if microseconds.bit_length() > BITS_MAX:
        return BEYOND
    days, rest = divmod(microseconds // 1_000_000, 86_400)
    part = f".{microseconds % 1_000_000:06}".rstrip(".0")
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}{part}"
    return f"{days} d {clock}" if days else clock


def fact(constraint: Constraint, of: Fact) -> str:
    """What was found for a constraint, as text."""
    if isinstance(of, str):
        return of
    if isinstance(of, int):
        if constraint.operand.endswith("/dateTime"):
            return clock(of)
        if isinstance(constraint.test, Lapse):
            return "never" if of == NEVER else seconds(of)
    return ", ".join(texts(of))


@lru_cache(maxsize=256)
def clock(at_microseconds: int) -> str:
    """An instant (microseconds since 1970) as text, in UTC; the one of a decision is told for each of its constraints."""
    at = instant(at_microseconds)
    return at.isoformat().replace("+00:00", "Z") if at is not None else "beyond the calendar"


def texts(of: Fact) -> list[str]:
    """Each value of a fact as text."""
    if isinstance(of, str):
        return [of]
    if isinstance(of, frozenset):
        return sorted(of)
    if isinstance(of, Since):
        return [seconds(max(0, of.now - of.anchor))]
    if max(of.numerator.bit_length(), of.denominator.bit_length()) > BITS_MAX:
        return [BEYOND]
    return [str(of) if isinstance(of, int) else _decimal(of)]


def quoted(constraint: Constraint, of: Fact) -> str:
    """What was found for a constraint, as it is read in a sentence."""
    if isinstance(of, frozenset):
        return ", ".join(value(one) for one in sorted(of)[:VALUES_SHOWN_MAX])
    return value(of) if isinstance(of, str) else fact(constraint, of)


def _decimal(of: Fraction) -> str:
    """A number as people write it, if that is exact within PLACES_MAX: `3.00000002`; else as it is: `1/3`."""
    scaled = of * 10**PLACES_MAX
    if scaled.denominator != 1 or of.denominator == 1:
        return str(of)
    whole, part = divmod(abs(scaled.numerator), 10**PLACES_MAX)
    return f"{'-' if of < 0 else ''}{whole}.{part:0{PLACES_MAX}}".rstrip("0")


def _phrase(constraint: Constraint) -> Phrase:
    if constraint.operand.endswith("/event"):
        return _EVENT[constraint.operator]
    if isinstance(constraint.test, Members):
        return _CHOICE[constraint.operator]
    if isinstance(constraint.test, Lapse) or not constraint.operand.endswith("/dateTime"):
        return _AMOUNT[constraint.operator]
    return _TIME[constraint.operator]


def _expected(constraint: Constraint) -> str:
    if not isinstance(constraint.test, Members):
        written = ", ".join(shown(v) for v in constraint.expected) + (f" {_unit(constraint.unit)}" if constraint.unit else "")
        return f"{written} with {constraint.used} used" if constraint.used else written
    listed = ", ".join(value(v) for v in constraint.expected[:VALUES_SHOWN_MAX])
    return listed + _more(len(constraint.expected))


def _unit(iri: str) -> str:
    """A currency by its code, any other unit by its IRI: the last word of one that is nobody's could pose as a currency."""
    code = next((iri[len(prefix) :] for prefix in CURRENCIES if iri.startswith(prefix)), "")
    return code if len(code) == CODE_CHARS and code.isascii() and code.isalpha() and code.isupper() else f"<{shown(iri)}>"


def _more(count: int) -> str:
    return f" and {count - VALUES_SHOWN_MAX} more" if count > VALUES_SHOWN_MAX else ""
