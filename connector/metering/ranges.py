"""Sets of leaves as ranges: sorted, disjoint and not adjacent, so that each set has one spelling. Pure."""

from __future__ import annotations

from collections.abc import Iterable

Ranges = tuple[tuple[int, int], ...]  # each [from, to)


def union(*sets: Iterable[tuple[int, int]]) -> Ranges:
    """The union of ranges in any order, overlapping or not; empty ones vanish."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(each for ranges in sets for each in ranges):
        if first >= last:
            continue
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)


def without(ranges: Ranges, taken: Ranges) -> Ranges:
    """What is in `ranges` and not in `taken`."""
    left: list[tuple[int, int]] = []
    at = 0
    for first, last in ranges:
        while at < len(taken) and taken[at][1] <= first:
            at += 1
        begin, next_ = first, at
        while next_ < len(taken) and taken[next_][0] < last:
            if begin < taken[next_][0]:
                left.append((begin, taken[next_][0]))
            begin = taken[next_][1]
            next_ += 1
        if begin < last:
            left.append((begin, last))
    return tuple(left)


def covers(ranges: Ranges, others: Ranges) -> bool:
    """Whether everything in `others` is in `ranges`."""
    return not without(others, ranges)


def count(ranges: Ranges) -> int:
    """How many leaves there are."""
    return sum(last - first for first, last in ranges)


def limited(ranges: Ranges, kept: Ranges, most: int) -> Ranges:
    """At most `most` of `ranges`: those that hold something of `kept`, which has at most so many and is covered, then the largest."""
    if len(ranges) <= most:
        return ranges
    holding = {each for each in ranges if without((each,), kept) != (each,)}
    largest = sorted(ranges, key=lambda each: (each not in holding, each[0] - each[1]))
    return tuple(sorted(largest[:most]))
