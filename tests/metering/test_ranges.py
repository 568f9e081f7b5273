from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from connector.metering.ranges import count, covers, limited, union, without

PAIRS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=12)


def members(ranges: object) -> set[int]:
    return {leaf for first, last in ranges for leaf in range(first, last)}  # type: ignore[attr-defined]


@given(PAIRS, PAIRS)
def test_ranges_are_sets_with_one_spelling(some: list[tuple[int, int]], others: list[tuple[int, int]]):
    one, other = union(some), union(others)
    assert members(one) == members(some)
    assert members(union(one, other)) == members(one) | members(other)
    assert members(without(one, other)) == members(one) - members(other)
    assert without(one, other) == union(without(one, other))
    assert covers(one, other) == (members(other) <= members(one))
    assert count(one) == len(members(one))
    assert all(before[1] < after[0] for before, after in pairwise(one))
    assert union(list(reversed(one))) == one


@given(PAIRS, PAIRS, st.integers(12, 14))
def test_what_was_told_stays_told_when_there_are_too_many_ranges(some: list[tuple[int, int]], kept: list[tuple[int, int]], most: int):
    told, all_ = union(kept), union(some, kept)
    few = limited(all_, told, most)
    assert len(few) <= most
    assert covers(few, told)
    assert set(few) <= set(all_)
    assert few == union(few)


def test_the_largest_are_told_first():
    assert limited(((1, 2), (3, 9), (10, 14), (20, 21)), ((20, 21),), 2) == ((3, 9), (20, 21))
