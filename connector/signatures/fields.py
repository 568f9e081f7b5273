"""Structured fields for HTTP (RFC 9651) as far as signatures need them: dictionaries of items and inner lists, read strictly.

Pure. Values are integers, strings, tokens, byte sequences and booleans; decimals, dates and display strings have no place in what is read
here and are refused. So is a key that stands twice, of which RFC 9651 would take the last: one reader's last is another's first.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Mapping
from functools import lru_cache

from connector.values import Value, field

Bare = int | str | bytes | bool  # a token is a `Token`, any other `str` a string
KEY = re.compile(r"[a-z*][a-z0-9_.*-]*")
STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
BYTES = re.compile(r":([A-Za-z0-9+/=]*):")
BOOLEAN = re.compile(r"\?([01])")
INTEGER = re.compile(r"(-?[0-9]{1,15})(?![0-9.])")
TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*")
ESCAPED = re.compile(r"\\(.)")
TO_ESCAPE = re.compile(r'(["\\])')
LISTED = re.compile(r'(?: *"[ !#-\[\]-~]*"(?:;req)?)* *\)')  # an inner list as signatures have it: most are the same to the letter
SPACES, BLANKS = re.compile(r" *"), re.compile(r"[ \t]*")
INTEGER_MAX = 999_999_999_999_999  # RFC 9651, 3.3.1


class Token(str):
    """A word without quotes (RFC 9651, 3.3.4)."""

    __slots__ = ()


class Item(Value):
    """A value with its parameters, which keep their order."""

    value: Bare
    parameters: Mapping[str, Bare] = field(default_factory=dict)


class InnerList(Value):
    """A list with parameters, whose items may have some of their own."""

    items: tuple[Item, ...]
    parameters: Mapping[str, Bare] = field(default_factory=dict)


Member = Item | InnerList


def read_dictionary(text: str) -> dict[str, Member]:
    """Read a dictionary (RFC 9651, 4.2.2), whose field lines are joined by commas. Raises ValueError with the place that cannot be read."""
    members: dict[str, Member] = {}
    at, end = _skip(SPACES, text, 0), len(text.rstrip(" "))
    while at < end:
        key, at = _key(text, at)
        if key in members:
            raise ValueError(f"`{key}` stands twice")
        if text.startswith("=(", at):
            members[key], at = _inner_list(text, at + 2)
        elif text.startswith("=", at):
            value, at = _bare(text, at + 1)
            parameters, at = _parameters(text, at)
            members[key] = Item(value, parameters)
        else:
            parameters, at = _parameters(text, at)
            members[key] = Item(True, parameters)
        at = _skip(BLANKS, text, at)
        if at >= end:
            break
        if text[at] != ",":
            raise _unreadable(at)
        at = _skip(BLANKS, text, at + 1)
        if at >= end:
            raise ValueError("it ends with a comma")
    return members


def write_item(item: Item) -> str:
    """An item in its only canonical spelling (RFC 9651, 4.1.3). Raises ValueError for a value that it cannot have."""
    return write_bare(item.value) + write_parameters(item.parameters)


def write_inner_list(items: Iterable[str], parameters: Mapping[str, Bare]) -> str:
    """An inner list of items that are written already (RFC 9651, 4.1.1.1)."""
    return f"({' '.join(items)}){write_parameters(parameters)}"


def write_parameters(parameters: Mapping[str, Bare]) -> str:
    """Parameters in their order (RFC 9651, 4.1.1.2): what is true has no value."""
    return "".join(f";{name}" if value is True else f";{name}={write_bare(value)}" for name, value in parameters.items())


def write_bare(value: Bare) -> str:
    """A value (RFC 9651, 4.1.3.1). Raises ValueError for one that it cannot have."""
    match value:
        case bool():
            return f"?{value:d}"
        case int():
            if abs(value) > INTEGER_MAX:
                raise ValueError(f"an integer has 15 digits at most; this is {value}")
            return str(value)
        case Token():
            if not TOKEN.fullmatch(value):
                raise ValueError("it has characters that a token cannot have")
            return str(value)
        case str():
            if not (value.isascii() and value.isprintable()):
                raise ValueError("a string has visible ASCII and spaces only")
            return '"' + (TO_ESCAPE.sub(r"\\\1", value) if '"' in value or "\\" in value else value) + '"'
        case bytes():
            return f":{b2a_base64(value, newline=False).decode('ascii')}:"


def _inner_list(text: str, at: int) -> tuple[InnerList, int]:
    """Read on behind the opening parenthesis."""
    listed = LISTED.match(text, at)
    items, at = _items(text, at) if listed is None else (_same_items(listed[0]), listed.end())
    parameters, at = _parameters(text, at)
    return InnerList(items, parameters), at


def _items(text: str, at: int) -> tuple[tuple[Item, ...], int]:
    """The items of an inner list, and where its closing parenthesis ends."""
    items: list[Item] = []
    while True:
        spaced = _skip(SPACES, text, at)
        if text.startswith(")", spaced):
            return tuple(items), spaced + 1
        if items and spaced == at:
            raise _unreadable(at)
        value, at = _bare(text, spaced)
        parameters, at = _parameters(text, at)
        items.append(Item(value, parameters))


@lru_cache(maxsize=64)
def _same_items(text: str) -> tuple[Item, ...]:
    return _items(text, 0)[0]


def _parameters(text: str, at: int) -> tuple[dict[str, Bare], int]:
    parameters: dict[str, Bare] = {}
    while text.startswith(";", at):
        key, at = _key(text, _skip(SPACES, text, at + 1))
        if key in parameters:
            raise ValueError(f"`{key}` stands twice")
        parameters[key] = True
        if text.startswith("=", at):
            parameters[key], at = _bare(text, at + 1)
    return parameters, at


def _key(text: str, at: int) -> tuple[str, int]:
    if (found := KEY.match(text, at)) is None:
        raise _unreadable(at)
    return found[0], found.end()


def _bare(text: str, at: int) -> tuple[Bare, int]:
    value: Bare
    if (found := STRING.match(text, at)) is not None:
        value = ESCAPED.sub(r"\1", found[1]) if "\\" in found[1] else found[1]
    elif (found := INTEGER.match(text, at)) is not None:
        value = int(found[1])
    elif (found := BYTES.match(text, at)) is not None:
        value = _from_base64(found[1])
    elif (found := BOOLEAN.match(text, at)) is not None:
        value = found[1] == "1"
    elif (found := TOKEN.match(text, at)) is not None:
        value = Token(found[0])
    else:
        raise _unreadable(at)
    return value, found.end()


def _from_base64(text: str) -> bytes:
    """In its only spelling: padded, unused bits zero, so that no field has a twin."""
    try:
        data = a2b_base64(text, strict_mode=True) if text else b""
    except ValueError:
        data = None
    if data is None or b2a_base64(data, newline=False) != text.encode("ascii"):
        raise ValueError("a byte sequence is not base64 in its canonical spelling")
    return data


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found is not None else at


def _unreadable(at: int) -> ValueError:
    return ValueError(f"character {at + 1} fits nothing that a structured field can have there")
