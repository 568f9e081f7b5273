"""A content log without an end: how data are cut into leaves while they come, and what counts as a record in them. Pure.

A leaf ends with a record wherever a record ends within a chunk, so what a crash cuts off is never half of one. Only a record that is
larger than a chunk goes over several leaves. It counts in the leaf in which its end is, as everywhere (`content.UNITS`): a line ends with
a line feed; a message is an event that a server has sent, which ends with an empty line, whose line feed may be the first byte of a leaf.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from connector.metering.content import CHUNK_BYTES, CHUNKS_BYTES, HASH_BYTES, SEPARATORS, feeds, read_bytes, write_bytes

LOST: Final = "live-log-lost"  # the code of a refusal: what was signed is gone, and another transfer is to begin
LAST: Final = 2**53 - 1  # the last position of a range that has no end yet (RFC 8673, 2.2)
ETAG: Final = re.compile(r'"l\.([A-Za-z0-9_-]{43})\.([1-9][0-9]{4,6})"')


def cut(data: bytes, unit: str, chunk_bytes: int = CHUNK_BYTES, leaf_bytes: int = CHUNK_BYTES) -> Iterator[tuple[int, int]]:
    """The leaves [first, end) of `data`, whole records of this unit, each as long as fits into `leaf_bytes`; what is larger goes up to the
    end of a record within a chunk."""
    first, ending, leaf_bytes = 0, SEPARATORS.get(unit), min(leaf_bytes, chunk_bytes)
    while len(data) - first > leaf_bytes:
        found = data.rfind(ending, first, first + leaf_bytes) if ending is not None else -1
        if found < 0 and ending is not None and leaf_bytes < chunk_bytes:
            found = data.find(ending, first, first + chunk_bytes)
        end = min(first + chunk_bytes, len(data)) if found < 0 or ending is None else found + len(ending)
        yield first, end
        first = end
    if first < len(data):
        yield first, len(data)


def records(data: bytes, unit: str, first: int, end: int, before: bytes) -> int:
    """How many records end in the leaf [first, end) of `data`; `before` is the byte before it, b"" at the start of the log."""
    if (ending := SEPARATORS.get(unit)) is None:
        return 0
    if unit == "line":
        return feeds(data, first, end)
    return data.count(ending, first, end) + (before == b"\n" and data[first : first + 1] == b"\n")


def write_etag(name: bytes, chunk_bytes: int = CHUNK_BYTES) -> str:
    """The strong entity tag of live data, quotes included. `name` is the hash of the log's header leaf, whose salt no other log has: the
    bytes behind an offset never change, however many there are."""
    return f'"l.{write_bytes(name)}.{chunk_bytes}"'


def read_etag(value: str | None) -> tuple[bytes, int] | None:
    """(hash of the header leaf, chunk in bytes) of an entity tag of live data in its only spelling, or None."""
    found = ETAG.fullmatch(value) if value else None
    name = read_bytes(found[1], HASH_BYTES) if found else None
    return (name, int(found[2])) if found and name is not None and int(found[2]) in CHUNKS_BYTES else None
