"""Which bytes of a representation have gone out: a union of ranges. Pure.

Kept in bounded space: a peer that asks for every second byte makes us forget ranges, never count too much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from connector.metering.content import SIZE_MAX
from connector.metering.counts import Counts
from connector.metering.ranges import Ranges, union, without
from connector.values import Value, replace

if TYPE_CHECKING:
    from connector.dataplane.index import Described

RANGES_MAX = 256  # a download that was cut this often without ever filling a gap is not a download


class Coverage(Value):
    """Sorted, disjoint, non-adjacent ranges [first, end) of a representation of `size_bytes` with entity tag `etag`."""

    etag: str
    size_bytes: int
    ranges: tuple[tuple[int, int], ...] = ()

    @property
    def full(self) -> bool:
        return self.ranges == ((0, self.size_bytes),)


def add(coverage: Coverage, first: int, length: int) -> Coverage:
    """Return the union with `length` bytes from `first`. A representation of no bytes is full once it was sent."""
    low, high = first, first + length
    if length == 0 and coverage.size_bytes > 0:
        return coverage
    before, after = [], []
    for known in coverage.ranges:
        if known[1] < low:
            before.append(known)
        elif known[0] > high:
            after.append(known)
        else:
            low, high = min(low, known[0]), max(high, known[1])
    ranges = [*before, (low, high), *after]
    if len(ranges) > RANGES_MAX:
        ranges.remove(min(ranges, key=lambda known: known[1] - known[0]))
    return Coverage(coverage.etag, coverage.size_bytes, tuple(ranges))


class Sent:
    """What has gone out of the data of `log` to a consumer that signs nothing: each byte counts once.

    Of one that reads in more pieces than are remembered, a piece that is forgotten goes on counting, and counts again when it is sent
    again: it never comes to less than what was sent, nor to more than there is.
    """

    def __init__(self, log: Described) -> None:
        self._log, self._size_bytes = log, SIZE_MAX if log.size_bytes is None else log.size_bytes
        self._coverage = Coverage(log.etag, self._size_bytes)
        self._forgotten = Counts()

    def follow(self, log: Described) -> None:
        """The same log, opened anew."""
        self._log = log

    @property
    def ranges(self) -> Ranges:
        """The bytes that went out, each [from, to), as far as they are remembered."""
        return self._coverage.ranges

    def resume(self, ranges: Ranges, size_bytes: int, records: int) -> None:
        """Go on from `ranges` that came to so many bytes and records, with what was forgotten of them."""
        for first, last in ranges:
            self._coverage = add(self._coverage, first, last - first)
        known = self._remembered()
        self._forgotten = Counts(max(0, size_bytes - known.bytes), max(0, records - known.records))

    def add(self, first: int, length: int) -> None:
        """Take up `length` bytes from `first`."""
        before, self._coverage = self._coverage, add(self._coverage, first, length)
        if len(self.ranges) == RANGES_MAX:
            for begin, end in without(union(before.ranges, ((first, first + length),)), self.ranges):
                self._forgotten += Counts(end - begin, self._log.records(*self._log.layout.held(begin, end - begin)))

    def counts(self) -> Counts:
        """What it comes to; records as far as whole leaves were sent."""
        known, more = self._remembered(), self._forgotten
        if not more.bytes:
            return known
        records = min(known.records + more.records, self._log.records(1, self._log.leaves))
        return replace(known, bytes=min(known.bytes + more.bytes, self._size_bytes), records=records)

    def leaves(self) -> Ranges:
        """The leaves that were sent as a whole."""
        return union(self._log.layout.held(first, last - first) for first, last in self.ranges)

    def touched(self) -> Ranges:
        """The leaves of which anything was sent."""
        return union(self._log.layout.touched(first, last - first) for first, last in self.ranges)

    def _remembered(self) -> Counts:
        records = sum(self._log.records(*each) for each in self.leaves())
        return Counts(sum(last - first for first, last in self.ranges), records, int(self._coverage.full))
