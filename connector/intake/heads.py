"""What the head of a provider's answer says about the bytes that follow. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urljoin

from connector.dataplane.ranges import read_content_range, read_repr_digest, strong
from connector.errors import PeerFailed, PeerRefused
from connector.origins import origin
from connector.values import Value

# Time-outs, overload, a proxy whose upstream restarts.
LATER = frozenset({408, 425, 429, 500, 502, 503, 504, 507})  # the last: what it has to write finds no place now (RFC 4918, 11.5)
LENGTH_DIGITS_MAX = 18
LINK_CHARACTERS_MAX = 8192  # of all links of an answer: ours has one of 150
# RFC 8288, 3: `<target>; name=value; name="value", <target> ...`. What does not fit is no link.
PARAMETER = r"""[ \t]*;[ \t]*([!#$&+\-.^_`|~0-9A-Za-z*]+)(?:[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^ \t;,"]*)))?"""
LINK = re.compile(rf"[ \t]*<([^<>]*)>((?:{PARAMETER})*)[ \t]*(?:,|$)")
PARAMETERS = re.compile(PARAMETER)
DESCRIBED_BY, JWT = "describedby", "application/jwt"
FRAMED = frozenset({"content-length", "transfer-encoding"})  # an answer with one of them says where it ends: RFC 9112, 6.3
# What a code means that asking again does not change before somebody over there has done something: ours to say, as no text of theirs is.
MEANS: Mapping[str, str] = {
    "source-failed": "the data cannot be read there, or are others than were published; its operator has to look after them",
    "sink-failed": "it cannot write what it has to; its operator has to look after its disk",
    "disk-short": "it has too little room on its disk; its operator has to make some",
}


class Head(Value):
    """`first` is where the body begins in the representation; `size_bytes` the size of the whole, None if not stated;
    `validator` the strong entity tag; `sha256` the stated digest of the whole."""

    first: int
    size_bytes: int | None
    validator: str | None
    sha256: bytes | None


class NotNow(PeerFailed):
    """An error status that asks for patience: `retry_after_seconds`, 0 if the provider named no time; `said` is the code of its problem
    details."""

    def __init__(self, status: int, retry_after_seconds: float, code: str | None = None) -> None:
        super().__init__(answered(status, code))
        self.retry_after_seconds, self.said = retry_after_seconds, code


class Unfit(PeerFailed):
    """An answer that cannot be meant. Whoever sends such a thing will send it again: patience is for those who are away."""


def answered(status: int, code: str | None) -> str:
    """What an error says of an answer with an error status, and of the `code` that its problem details have."""
    means = f": {MEANS[code]}" if code and code in MEANS else ""
    return f"the provider's data listener answered with status {status}" + (f", `{code}`{means}" if code else "")


def read_head(status: int, headers: Mapping[str, str], offset: int, *, part: bool = False, code: str | None = None) -> Head:
    """Read the head of the answer to a request for the bytes from `offset`, or for a part that ends before the data do (`part`).
    `headers` has lower-case names; `code` is that of the problem details of an answer with an error status.

    Raises NotNow and PeerRefused for error statuses, Unfit for an answer that fits neither the request nor RFC 9110.
    """
    if status in LATER:
        raise NotNow(status, seconds_of(headers.get("retry-after")), code)
    if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise PeerRefused(answered(status, code), status=status, said=code)
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise Unfit("the provider sent the data in a content encoding that was not asked for")
    validator, sha256 = strong(headers.get("etag")), read_repr_digest(headers.get("repr-digest"))
    if status == HTTPStatus.OK:
        return Head(0, _length(headers), validator, sha256)
    found = read_content_range(headers.get("content-range", ""))
    if found is None or not (offset or part):
        raise Unfit("the provider answered with a part that was not asked for, or did not say which")
    first, length, size_bytes = found
    if first != offset:
        raise Unfit(f"the provider answered with bytes {first} to {first + length - 1}, asked for were those from {offset}")
    return Head(first, size_bytes, validator, sha256)


def manifest_url(headers: Mapping[str, str], endpoint: str) -> str | None:
    """Where the signed manifest of the data at `endpoint` is, if the answer says so: `Link: <...>; rel="describedby";
    type="application/jwt"` (RFC 8288). Other descriptions are not ours to read.

    Raises Unfit for one at another origin: the token goes where the data is, and nowhere else.
    """
    for target, parameters in _links(headers.get("link", "")):
        if DESCRIBED_BY in parameters.get("rel", "").lower().split() and parameters.get("type", "").lower() == JWT:
            return same_origin(target, endpoint, "a manifest")
    return None


def same_origin(target: str, endpoint: str, what: str) -> str:
    """The URL of `target`, which may be relative. Raises Unfit unless it is at the origin of the data's endpoint."""
    try:
        url = urljoin(endpoint, target)
        same = origin(url) == origin(endpoint)
    except ValueError:
        same = False
    if not same:
        raise Unfit(f"the provider names {what} at another origin than that of the data; the token is not sent there")
    return url


def _links(value: str) -> list[tuple[str, dict[str, str]]]:
    """The links of a header: target and parameters, of which the first of a name counts (RFC 8288, 3.3 and 3.4.1)."""
    found, at = [], 0
    value = value[:LINK_CHARACTERS_MAX]
    while (link := LINK.match(value, at)) is not None and link.end() > at:
        parameters: dict[str, str] = {}
        for name, quoted, plain in PARAMETERS.findall(link[2]):
            parameters.setdefault(name.lower(), re.sub(r"\\(.)", r"\1", quoted) if quoted else plain)
        found.append((link[1], parameters))
        at = link.end()
    return found


def _length(headers: Mapping[str, str]) -> int | None:
    value = headers.get("content-length", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) <= LENGTH_DIGITS_MAX else None


def seconds_of(value: str | None) -> float:
    """`Retry-After` in seconds; a date counts as none."""
    return float(value) if value and value.isascii() and value.isdigit() and len(value) <= LENGTH_DIGITS_MAX else 0.0
