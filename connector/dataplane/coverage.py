"""Which bytes of a representation have gone out: a union of ranges. Pure.

Kept in bounded space: a peer that asks for every second byte makes us forget ranges, never count too much.
"""

from __future__ import annotations

from dataclasses import dataclass

RANGES_MAX = 256  # a download that was cut this often without ever filling a gap is not a download


@dataclass(frozen=True, slots=True)
class Coverage:
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
