"""Which bytes a request asks for: conditional and range requests of RFC 9110 as tables. Pure.

A representation here has a strong entity tag and no date, so the conditions by date never apply (13.1.3, 13.1.4: ignored
without a modification date) and `If-Range` with a date does not match (13.1.5).
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from enum import Enum

from connector.errors import RangeNotSatisfiable
from connector.values import Value

RANGE = re.compile(r"(\d*)-(\d*)", re.ASCII)
TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
TAGS = re.compile(rf"(?:^|,)[ \t]*{TAG.pattern}[ \t]*(?=,|$)")
DIGITS_MAX = 18  # a larger position lies behind every representation; longer numbers are work for nothing
BEYOND = 10**DIGITS_MAX
SHA256 = re.compile(r"(?:^|,)[ \t]*sha-256=:([A-Za-z0-9+/]*={0,2}):[ \t]*(?=$|,|;)")
CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII | re.IGNORECASE)
SHA256_BYTES = 32


class Asked(Enum):
    """What a `Range` header comes to for a representation of a given size."""

    WHOLE = "no range, one that we may ignore (14.2), or several at once"
    PART = "one satisfiable range"
    NOTHING = "one range that lies outside"


class Span(Value):
    """`length` bytes from `first`, of a representation of `size_bytes`."""

    first: int
    length: int
    size_bytes: int

    @property
    def whole(self) -> bool:
        return self.length == self.size_bytes

    @property
    def content_range(self) -> str:
        return f"bytes {self.first}-{self.first + self.length - 1}/{self.size_bytes}"


class Plan(Value):
    """How to answer: `status` 200, 206, 304 or 412, and the bytes of the first two."""

    status: int
    span: Span


# (If-Match holds, If-None-Match holds) -> status; an absent header holds. RFC 9110, 13.2.2: If-Match is judged first.
CONDITIONS: dict[tuple[bool, bool], int] = {(True, True): 200, (True, False): 304, (False, True): 412, (False, False): 412}
# (If-Range holds, what Range comes to) -> status. RFC 9110, 13.2.2 step 5 and 14.2.
RANGES: dict[tuple[bool, Asked], int] = {
    (True, Asked.WHOLE): 200,
    (True, Asked.PART): 206,
    (True, Asked.NOTHING): 416,
    (False, Asked.WHOLE): 200,
    (False, Asked.PART): 200,
    (False, Asked.NOTHING): 200,
}


def plan(
    size_bytes: int,
    etag: str,
    *,
    range_: str | None = None,
    if_range: str | None = None,
    if_match: str | None = None,
    if_none_match: str | None = None,
) -> Plan:
    """Decide about a GET or HEAD for a representation with strong entity tag `etag` (quotes included).

    The others are header values, several lines joined by commas, None if absent. Raises RangeNotSatisfiable for 416.
    """
    whole = Span(0, size_bytes, size_bytes)
    match = if_match is None or _listed(if_match, etag, weakly=False)
    none_match = if_none_match is None or not _listed(if_none_match, etag, weakly=True)
    status = CONDITIONS[match, none_match]
    if status != 200 or range_ is None:  # noqa: PLR2004 - a status
        return Plan(status, whole)
    asked, span = read_range(range_, size_bytes)
    status = RANGES[if_range is None or if_range.strip() == etag, asked]
    if status == 416:  # noqa: PLR2004 - a status
        raise RangeNotSatisfiable(f"the range lies outside of the {size_bytes} bytes that there are", size_bytes)
    return Plan(status, span if status == 206 else whole)  # noqa: PLR2004 - a status


def read_range(value: str, size_bytes: int) -> tuple[Asked, Span]:
    """Read a `Range` header (RFC 9110, 14.1.2): `bytes=2-5`, `bytes=2-`, `bytes=-5`.

    Several ranges are answered with the whole, which 14.2 allows: nobody needs many pieces of a file in one answer, and
    overlapping ones are a way to make a server work.
    """
    whole = Span(0, size_bytes, size_bytes)
    unit, equals, spec = value.partition("=")
    found = RANGE.fullmatch(spec.strip())
    if unit.strip().lower() != "bytes" or not equals or found is None or found[1] + found[2] == "":
        return Asked.WHOLE, whole
    if found[1] == "":
        wanted = _position(found[2])
        if wanted and not size_bytes:
            return Asked.WHOLE, whole  # satisfiable (14.1.2), and no Content-Range can say "no bytes"
        length = min(wanted, size_bytes)
        return (Asked.PART, Span(size_bytes - length, length, size_bytes)) if length else (Asked.NOTHING, whole)
    first, last = _position(found[1]), _position(found[2]) if found[2] else BEYOND
    if last < first:
        return Asked.WHOLE, whole  # invalid, and an invalid Range is ignored
    if first >= size_bytes:
        return Asked.NOTHING, whole
    return Asked.PART, Span(first, min(last, size_bytes - 1) - first + 1, size_bytes)


def read_content_range(value: str) -> tuple[int, int, int | None] | None:
    """Read `Content-Range` of a 206: (first, length, size or None for `*`), or None if it makes no sense."""
    found = CONTENT_RANGE.fullmatch(value.strip())
    if found is None:
        return None
    first, last, size = int(found[1]), int(found[2]), None if found[3] == "*" else int(found[3])
    return (first, last - first + 1, size) if first <= last and (size is None or last < size) else None


def strong(etag: str | None) -> str | None:
    """The entity tag, quotes included, if it is a well-formed strong one: only such a one may stand in If-Range."""
    found = TAG.fullmatch(etag.strip()) if etag else None
    return found[0] if found and not found[1] else None


def write_repr_digest(sha256: bytes) -> str:
    """The value of `Repr-Digest` (RFC 9530, 3)."""
    return f"sha-256=:{b64encode(sha256).decode('ascii')}:"


def read_repr_digest(value: str | None) -> bytes | None:
    """The SHA-256 in a `Repr-Digest` (RFC 9530, 3), or None if there is none that makes sense. Other algorithms are ignored."""
    found = SHA256.findall(value) if value else []
    try:
        digest = b64decode(found[-1], validate=True) if found else b""
    except ValueError:
        return None
    return digest if len(digest) == SHA256_BYTES else None


def _position(digits: str) -> int:
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= DIGITS_MAX else BEYOND


def _listed(value: str, etag: str, *, weakly: bool) -> bool:
    """Whether `etag` is in a list of entity tags, `*` matching any (RFC 9110, 13.1.1 and 13.1.2)."""
    if value.strip() == "*":
        return True
    return any((weakly or not weak) and f'"{opaque}"' == etag for weak, opaque in TAGS.findall(value))
