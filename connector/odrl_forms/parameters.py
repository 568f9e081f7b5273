"""The typed parameters of templates: what a form gives -> the literal or IRI that stands on the wire, or what would do instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from connector.errors import PolicyError
from connector.odrl import values
from connector.odrl.model import Number
from connector.odrl.registry import Label
from connector.odrl.vocabulary import ABSOLUTE, PREFIXES, compact
from connector.odrl.words import shown
from connector.values import Value

TYPES: Final = ("term", "iri", "text", "participant", "date", "instant", "duration", "integer", "decimal")
TEXT_CHARS_MAX: Final = 1000  # of one value; the longest id of a participant is a DID of some hundred
ENTRIES_MAX: Final = 100  # of one list


class Parameter(Value):
    """A parameter of a template. `default` is what a form would give (None: it has to be given), `many` takes a list, `choices` are the
    only values, `low` and `high` bound numbers."""

    name: str
    type: str
    label: Label
    many: bool = False
    default: Any = None
    choices: tuple[Any, ...] = ()
    low: Number | None = None
    high: Number | None = None


def written(parameter: Parameter, given: object, prefixes: Mapping[str, str]) -> Any:
    """A value as it stands on the wire: a string, {"@id"}, {"@value", "@type"}, or a list of them.

    Raises PolicyError whose message says what is wrong, and whose last reason how to mend it.
    """
    if given is None:
        raise _wrong("it is missing", f"give {_EXAMPLES[parameter.type]}")
    if not parameter.many:
        if isinstance(given, list | tuple):
            raise _wrong("it takes one value, not a list", "give one value")
        return _value(parameter, given, prefixes)
    entries = list(given) if isinstance(given, list | tuple) else [given]
    if not 0 < len(entries) <= ENTRIES_MAX:
        raise _wrong(f"it has {len(entries)} values", f"give 1 to {ENTRIES_MAX}")
    return [_value(parameter, entry, prefixes) for entry in entries]


def _value(parameter: Parameter, given: object, prefixes: Mapping[str, str]) -> Any:
    found = _literal(parameter, given, prefixes)
    if parameter.choices and found not in [_literal(parameter, choice, prefixes) for choice in parameter.choices]:
        listed = ", ".join(f"`{choice}`" for choice in parameter.choices)
        raise _wrong(f"`{shown(str(given))}` is not among the choices", f"choose one of {listed}")
    return found


def _literal(parameter: Parameter, given: object, prefixes: Mapping[str, str]) -> Any:
    kind = parameter.type
    if kind in ("integer", "decimal"):
        return _number(parameter, given)
    if not isinstance(given, str) or not given or given != given.strip() or not given.isprintable() or len(given) > TEXT_CHARS_MAX:
        raise _wrong(f"`{shown(str(given))}` is no plain text", f"give {_EXAMPLES[kind]}")
    if kind in ("date", "instant", "duration"):
        return _time(kind, given)
    if kind in ("iri", "term"):
        full = _iri(given, prefixes)
        if full is None and kind == "iri":
            raise _wrong(f"`{shown(given)}` is no IRI", f"give {_EXAMPLES[kind]}")
        return given if full is None else {"@id": full}
    if kind == "participant" and any(character.isspace() for character in given):
        raise _wrong(f"`{shown(given)}` is no id of a participant", f"give {_EXAMPLES[kind]}")
    return given


def _number(parameter: Parameter, given: object) -> dict[str, str]:
    if isinstance(given, bool):
        raise _wrong("it is no number", f"give {_EXAMPLES[parameter.type]}")
    try:
        found, text = values.number(given)
    except PolicyError as error:
        raise _wrong(f"`{shown(str(given))}` is no number", f"give {_EXAMPLES[parameter.type]}") from error
    if parameter.type == "integer" and not isinstance(found, int):
        raise _wrong(f"`{shown(text)}` is no whole number", f"give {_EXAMPLES[parameter.type]}")
    if parameter.low is not None and found < parameter.low:
        raise _wrong(f"{shown(text)} is too small", f"give {parameter.low} at least")
    if parameter.high is not None and found > parameter.high:
        raise _wrong(f"{shown(text)} is too large", f"give {parameter.high} at most")
    if parameter.type == "integer" or "e" in text.lower():
        text = str(found) if isinstance(found, int) else _decimal(found)
    return {"@value": text, "@type": f"xsd:{parameter.type}"}


def _decimal(found: Number) -> str:
    """A number that was written with an exponent, in digits: what an xsd:decimal is."""
    digits = 0
    while found * 10**digits % 1:
        digits += 1
    whole = int(found * 10**digits)
    sign, text = "-" if whole < 0 else "", str(abs(whole)).rjust(digits + 1, "0")
    return f"{sign}{text[:-digits]}.{text[-digits:]}" if digits else f"{sign}{text}"


def _time(kind: str, given: str) -> dict[str, str]:
    try:
        if kind == "duration":
            return {"@value": values.length(given)[1], "@type": "xsd:duration"}
        stretch = values.stretch(given)
    except PolicyError as error:
        raise _wrong(f"`{shown(given)}`: {error.message.partition(';')[0]}", f"give {_EXAMPLES[kind]}") from error
    if ("T" in given) != (kind == "instant"):
        raise _wrong(f"`{shown(given)}` is no {kind}", f"give {_EXAMPLES[kind]}")
    return {"@value": given if stretch.zoned else f"{given}Z", "@type": "xsd:dateTime" if kind == "instant" else "xsd:date"}


def _iri(given: str, prefixes: Mapping[str, str]) -> str | None:
    prefix, colon, rest = given.partition(":")
    if colon and any(character.isspace() for character in given):
        return None
    if colon and (space := prefixes.get(prefix) or PREFIXES.get(prefix)):
        return compact(space + rest)
    return given if given.startswith(ABSOLUTE) else None


def _wrong(message: str, fix: str) -> PolicyError:
    error = PolicyError(message)
    error.reasons = (message, fix)
    return error


_EXAMPLES: Final = {
    "term": "a word like `research`, or an IRI",
    "iri": "an IRI like `https://example.org/thing`, or one with a prefix of the template",
    "text": "a text of one line",
    "participant": "the id of a participant like `did:web:example.org`",
    "date": "a day like `2026-12-31` (UTC, if no zone is given)",
    "instant": "an instant like `2026-12-31T18:00:00Z`",
    "duration": "a duration like `P30D` (30 days), `P6M` (6 months) or `PT12H` (12 hours)",
    "integer": "a whole number like `100`",
    "decimal": "a number like `0.02`",
}
