"""A range of bytes as an order names it, spelled as HTTP spells one (RFC 9110, 14.1.2), and the leaves that hold it. Pure.

A leaf is proven, signed for and counted whole. So whoever wants a range has the leaves that hold it, and keeps the range alone.
"""

from __future__ import annotations

import re
from typing import Final

from connector.metering.content import SIZE_MAX, Layout
from connector.metering.ranges import Ranges, union
from connector.values import Value

WRITTEN: Final = re.compile(r"(?:bytes=)?(\d{0,16})-(\d{0,16})", re.ASCII)


class Part(Value):
    """The bytes [begin, end) of data in this `layout`. What is written of them begins at zero."""

    layout: Layout
    begin: int
    end: int

    @property
    def length(self) -> int:
        """How many bytes there are."""
        return self.end - self.begin

    @property
    def whole(self) -> bool:
        """Whether it is all of the data."""
        return self.length == self.layout.size_bytes

    @property
    def leaves(self) -> Ranges:
        """The leaves that hold one of the bytes."""
        return union((self.layout.touched(self.begin, self.length),))

    @property
    def cover(self) -> tuple[int, int]:
        """The bytes [from, to) of those leaves."""
        spans = [self.layout.span(*each) for each in self.leaves]
        return (spans[0][0], sum(spans[0])) if spans else (self.begin, self.end)

    def bytes_in(self, ranges: Ranges) -> int:
        """How many of the bytes are in these leaves."""
        spans = [self.layout.span(*each) for each in ranges]
        return sum(max(0, min(at + length, self.end) - max(at, self.begin)) for at, length in spans)


class Span(Value):
    """The bytes from `first` to `last`, both included; to the end of the data without a `last`; without a `first` the last `last` bytes."""

    first: int | None
    last: int | None

    def __str__(self) -> str:
        return f"{'' if self.first is None else self.first}-{'' if self.last is None else self.last}"

    def of(self, layout: Layout) -> Part | None:
        """What of the data it names: as in HTTP no more than there is, and None if there is nothing of it."""
        size = layout.size_bytes
        if self.first is None:
            begin, end = max(0, size - (self.last or 0)), size
        else:
            begin, end = self.first, size if self.last is None else min(self.last + 1, size)
        return Part(layout, begin, end) if begin < end else None


def read_span(text: str) -> Span:
    """Read `FIRST-LAST`, `FIRST-` or `-SUFFIX`, with or without `bytes=` before it. Raises ValueError for anything else, and for what
    can name no byte of any data."""
    found = WRITTEN.fullmatch(text.strip())
    if found is None:
        raise ValueError("one range is written as in HTTP: `0-99` is the first 100 bytes, `100-` all after them, `-100` the last 100")
    first, last = (int(each) if each else None for each in found.groups())
    if first is None and not last:
        raise ValueError("it names no byte: `-100` is the last 100 bytes")
    if first is not None and last is not None and last < first:
        raise ValueError(f"it ends at byte {last}, before it begins at byte {first}; both are included")
    if max(first or 0, last or 0) > SIZE_MAX:
        raise ValueError("no data are that large")
    return Span(first, last)
