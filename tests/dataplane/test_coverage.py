import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.dataplane.coverage import RANGES_MAX, Coverage, add

SIZE = 40
SPANS = st.lists(st.integers(0, SIZE).flatmap(lambda first: st.tuples(st.just(first), st.integers(0, SIZE - first))), max_size=30)


def covered(size_bytes: int, spans: list[tuple[int, int]]) -> Coverage:
    coverage = Coverage('"tag"', size_bytes)
    for first, length in spans:
        coverage = add(coverage, first, length)
    return coverage


def positions(coverage: Coverage) -> set[int]:
    return {at for first, end in coverage.ranges for at in range(first, end)}


@given(SPANS, st.randoms(use_true_random=False))
def test_in_any_order_ranges_cover_the_whole_exactly_if_their_union_is_the_whole(spans: list[tuple[int, int]], order: random.Random):
    union = {at for first, length in spans for at in range(first, first + length)}
    shuffled = order.sample(spans, len(spans))
    for result in (covered(SIZE, spans), covered(SIZE, shuffled)):
        assert positions(result) == union
        assert result.full == (union == set(range(SIZE)))
        assert sum(end - first for first, end in result.ranges) == len(union)
    assert covered(SIZE, spans) == covered(SIZE, shuffled)


@given(SPANS)
def test_ranges_stay_sorted_with_a_gap_between_each_two(spans: list[tuple[int, int]]):
    ranges = covered(SIZE, spans).ranges
    assert all(first < end for first, end in ranges)
    assert all(end < following for (_, end), (following, _) in pairwise(ranges))


@given(st.sets(st.integers(1, SIZE - 1)), st.randoms(use_true_random=False), st.data())
def test_pieces_of_a_cut_download_cover_it_and_without_one_of_them_they_do_not(cuts: set[int], order: random.Random, data: st.DataObject):
    edges = [0, *sorted(cuts), SIZE]
    pieces = [(first, end - first) for first, end in pairwise(edges)]
    missing = data.draw(st.integers(0, len(pieces) - 1))
    order.shuffle(pieces)
    assert covered(SIZE, pieces).full
    assert not covered(SIZE, pieces[:missing] + pieces[missing + 1 :]).full


@given(SPANS, st.integers(0, SIZE - 1))
def test_what_was_sent_twice_counts_once(spans: list[tuple[int, int]], first: int):
    once = covered(SIZE, [*spans, (first, 1)])
    assert covered(SIZE, [*spans, (first, 1), *spans, (first, 1)]) == once


def test_a_representation_of_no_bytes_is_full_once_it_was_sent():
    assert not Coverage('"tag"', 0).full
    assert covered(0, [(0, 0)]).full


def test_an_empty_part_of_something_says_nothing():
    assert covered(SIZE, [(0, 0), (7, 0), (SIZE, 0)]) == Coverage('"tag"', SIZE)


def test_all_bytes_but_the_last_are_not_all():
    assert not covered(2**40, [(0, 2**40 - 1)]).full
    assert covered(2**40, [(2**39, 2**39), (0, 2**39)]).full


@pytest.mark.parametrize("seed", range(3))
def test_a_reader_of_scattered_bytes_makes_it_forget_but_never_count_too_much(seed: int):
    size, order = 4 * RANGES_MAX, random.Random(seed)
    spans = [(at, 1) for at in range(0, size, 2)]
    order.shuffle(spans)
    coverage = covered(size, spans)
    assert len(coverage.ranges) <= RANGES_MAX
    assert positions(coverage) <= {at for at, _ in spans}
    assert not coverage.full
    assert add(coverage, 0, size).full


def test_after_scattered_bytes_a_plain_download_in_pieces_still_covers():
    size = 4 * RANGES_MAX
    coverage = covered(size, [(at, 1) for at in range(0, size, 2)])
    for first in range(0, size, 64):
        coverage = add(coverage, first, 64)
    assert coverage.full
