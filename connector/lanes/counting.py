"""Records counted by vector registers, where there are some, without the interpreter's lock: as `connector.metering` counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connector.lanes import hashing
from connector.metering import content, live

if TYPE_CHECKING:
    from connector.lanes.machine import Data


def records_in(piece: Data, unit: str, first: int = 0, last: int | None = None) -> int:
    """As `content.records_in`."""
    last = len(piece) if last is None else last
    seen = hashing.line_feeds(piece, first, last) if unit == "line" else None
    if seen is not None:
        return seen[0]
    if isinstance(piece, memoryview):
        piece, first, last = bytes(piece[first:last]), 0, max(last - first, 0)
    return content.records_in(piece, unit, first, last)


def live_records(data: bytes | memoryview, unit: str, first: int, end: int, before: bytes) -> int:
    """As `live.records`."""
    seen = hashing.line_feeds(data, first, end) if unit == "line" else None
    if seen is not None:
        return seen[0]
    if isinstance(data, memoryview):
        data, first, end = bytes(data[first:end]), 0, end - first
    return live.records(data, unit, first, end, before)


def may_be_empty(lines: bytes) -> bool:
    """Whether one of these whole lines may have nothing in it; where nobody has looked, it may."""
    seen = hashing.line_feeds(lines, 0, len(lines))
    return seen is None or seen[1]
