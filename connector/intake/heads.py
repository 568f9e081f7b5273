"""What the head of a provider's answer says about the bytes that follow. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from connector.dataplane.ranges import read_content_range, read_repr_digest, strong
from connector.errors import PeerFailed, PeerRefused

# Time-outs, overload, a proxy whose upstream restarts.
LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
LENGTH_DIGITS_MAX = 18


@dataclass(frozen=True, slots=True)
class Head:
    """`first` is where the body begins in the representation; `size_bytes` the size of the whole, None if not stated;
    `validator` the strong entity tag; `sha256` the stated digest of the whole."""

    first: int
    size_bytes: int | None
    validator: str | None
    sha256: bytes | None


class NotNow(PeerFailed):
    """An error status that asks for patience: `retry_after_seconds`, 0 if the provider named no time."""

    def __init__(self, status: int, retry_after_seconds: float) -> None:
        super().__init__(f"the provider's data listener answered with status {status}")
        self.retry_after_seconds = retry_after_seconds


class Unfit(PeerFailed):
    """An answer that cannot be meant. Whoever sends such a thing will send it again: patience is for those who are away."""


def read_head(status: int, headers: Mapping[str, str], offset: int) -> Head:
    """Read the head of the answer to a request for the bytes from `offset`. `headers` has lower-case names.

    Raises NotNow and PeerRefused for error statuses, Unfit for an answer that fits neither the request nor RFC 9110.
    """
    if status in LATER:
        raise NotNow(status, _seconds(headers.get("retry-after")))
    if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise PeerRefused(f"the provider's data listener answered with status {status}", status=status)
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise Unfit("the provider sent the data in a content encoding that was not asked for")
    validator, sha256 = strong(headers.get("etag")), read_repr_digest(headers.get("repr-digest"))
    if status == HTTPStatus.OK:
        return Head(0, _length(headers), validator, sha256)
    found = read_content_range(headers.get("content-range", ""))
    if found is None or not offset:
        raise Unfit("the provider answered with a part that was not asked for, or did not say which")
    first, length, size_bytes = found
    if first != offset:
        raise Unfit(f"the provider answered with bytes {first} to {first + length - 1}, asked for were those from {offset}")
    return Head(first, size_bytes, validator, sha256)


def _length(headers: Mapping[str, str]) -> int | None:
    value = headers.get("content-length", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) <= LENGTH_DIGITS_MAX else None


def _seconds(value: str | None) -> float:
    """`Retry-After` in seconds; a date counts as none."""
    return float(value) if value and value.isascii() and value.isdigit() and len(value) <= LENGTH_DIGITS_MAX else 0.0
