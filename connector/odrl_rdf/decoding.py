"""Bytes as they lie in files and come from other connectors -> text, and text -> JSON of which every part says one thing.

Real policy files are UTF-16, or carry a byte order mark; hostile ones are large, deep, or say a key twice so that two readers see two
policies. All limits are looked at before anything is built.
"""

from __future__ import annotations

import codecs
import json
from contextlib import suppress
from typing import Any, Final, NoReturn

from connector.errors import PolicyError
from connector.odrl.codes import Code, Finding

JSON_BYTES_MAX: Final = 512 * 1024  # the largest published policy has 313 kB as expanded JSON-LD
# Commas and opening brackets, one to each value, and those of the prose; the largest has 10,256 of both. Each value is looked at several
# times before anything can be said of it.
MARKS_MAX: Final = 14_000
BEGINNING: Final = 16 * 1024  # characters, in which a text of objects in each other is deeper than can be read
DIGITS_MAX: Final = 40  # of a number: no quantity in the world needs more

# The longest mark first: that of UTF-16 is the beginning of that of UTF-32.
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def refusal(code: Code, message: str, fix: str, path: str = "", source: str = "") -> PolicyError:
    """The error of a document that cannot be read at all, with its one finding."""
    finding = Finding(code, path, message, fix, source=source)
    return PolicyError(f"the document cannot be read: {finding}", (finding,))


def decoded(document: str | bytes, bytes_max: int) -> str:
    """The text of a document: UTF-8, or what its byte order mark or the zeros of its first two bytes say.

    Raises PolicyError for one of more than `bytes_max` bytes (or characters), or of no encoding that is known.
    """
    if len(document) > bytes_max:
        raise refusal(Code.LIMIT_EXCEEDED, f"it has more than {bytes_max // 1024} KiB", "split it")
    if isinstance(document, str):
        return document.removeprefix("\ufeff")
    mark, encoding = next(((mark, name) for mark, name in _MARKS if document.startswith(mark)), (b"", "utf-8"))
    if not mark and document[:2].count(0) == 1:  # the first character of Turtle and of JSON is ASCII (RFC 4627, 3)
        encoding = "utf-16-be" if document[0] == 0 else "utf-16-le"
    try:
        return document[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        message = f"it is no {encoding.upper()} text: byte {error.start + len(mark)} does not fit"
        raise refusal(Code.MALFORMED, message, "save it as UTF-8") from error


def json_of(document: str | bytes, bytes_max: int = JSON_BYTES_MAX) -> object:
    """The JSON value of a text (see `decoded`).

    Raises PolicyError for what is no JSON (RFC 8259), a key that stands twice in one object, a number of more than DIGITS_MAX digits,
    nesting that is too deep to be read, and more than MARKS_MAX commas and opening brackets.
    """
    text = decoded(document, bytes_max)
    many = text.count(",") + text.count("[") + text.count("{") > MARKS_MAX
    try:
        if many:
            raise _too_many(text)
        return json.loads(text, object_pairs_hook=_once, parse_int=_integer, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise refusal(Code.MALFORMED, f"it is no JSON: {error.msg.lower()}", "mend it there", source=place) from error
    except RecursionError:
        raise refusal(Code.LIMIT_EXCEEDED, "its objects and arrays are nested too deeply", "write it flat") from None


def _too_many(text: str) -> PolicyError:
    """The error of a text with too many marks. Raises RecursionError where they stand in each other, which its beginning shows."""
    with suppress(json.JSONDecodeError):
        json.loads(text[:BEGINNING])
    return refusal(Code.LIMIT_EXCEEDED, f"it has more than {MARKS_MAX} commas and opening brackets", "split it")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    raise refusal(Code.MALFORMED, f"the key `{twice[:DIGITS_MAX]}` stands twice in one object", "write it once")


def _integer(text: str) -> int:
    if len(text) > DIGITS_MAX:
        raise refusal(Code.LIMIT_EXCEEDED, f"a number has more than {DIGITS_MAX} digits", "no quantity needs them")
    return int(text)


def _no_number(text: str) -> NoReturn:
    raise refusal(Code.MALFORMED, f"`{text}` is no number of JSON", "write a number")
