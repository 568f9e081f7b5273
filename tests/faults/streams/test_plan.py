"""What is cut follows from the seed, and nothing that has to be tried is left out."""

from collections import Counter

from connector.metering.content import CHUNK_BYTES
from tests.faults.streams.plan import (
    DOWN_AT_LEAST,
    HOW,
    HOW_LIVE,
    LARGEST_BYTES,
    LIVE,
    POWER_LOST,
    PUSHED,
    ROADS,
    SOURCE_KILLED,
    UP_AT_LEAST,
    WHO,
    errands,
)


def test_the_same_seed_cuts_the_same_and_another_one_does_not():
    assert errands(50, 7) == errands(50, 7)
    assert errands(50, 7) != errands(50, 8)
    assert errands(50, 7)[:20] == errands(20, 7)


def test_twenty_transfers_are_cut_in_every_way_and_on_every_road():
    todo = errands(20, 3)
    assert {errand.cuts[0].how for errand in todo} == set(HOW)
    assert {errand.road for errand in todo} == set(ROADS)
    pushed = errands(20, 3, PUSHED, first=20)
    assert {errand.cuts[0].how for errand in pushed} == set(HOW)
    assert {errand.road for errand in pushed} == set(PUSHED)
    assert [errand.number for errand in pushed] == list(range(20, 40))


def test_data_without_an_end_are_cut_in_two_more_ways_and_are_lines_and_events_slow_and_fast():
    todo = errands(40, 3, LIVE, first=300)
    assert {errand.cuts[0].how for errand in todo[: len(HOW_LIVE)]} == set(HOW_LIVE) == set(HOW) | {SOURCE_KILLED, POWER_LOST}
    for road in LIVE:
        mine = [errand for errand in todo if errand.road is road]
        assert {(errand.lines, errand.record_seconds > 0) for errand in mine} == {(a, b) for a in (True, False) for b in (True, False)}
        assert all(errand.record_seconds * errand.size_bytes / errand.record_bytes < 6 for errand in mine), "they take seconds"
    assert {errand.demanded for errand in todo} == {True, False}


def test_each_way_of_being_cut_is_somebodys():
    assert sorted(how for hows in WHO.values() for how in hows) == sorted(HOW_LIVE)


def test_two_hundred_transfers_have_all_sizes_and_ways():
    todo = errands(200, 1)
    sizes = [errand.size_bytes for errand in todo]
    for road in ROADS:
        edges = {base + beside for base in (CHUNK_BYTES, 2 * CHUNK_BYTES, road.window_bytes) for beside in (-1, 0, 1)}
        assert {0, 1} | edges <= {errand.size_bytes for errand in todo if errand.road is road}
    assert max(sizes) > LARGEST_BYTES // 2
    assert sum(sizes) < 6 * 10**9, "a run takes minutes, not hours"
    assert {errand.parallel for errand in todo} == {0, 1, 2, 3, 4}
    assert {errand.demanded for errand in todo} == {True, False}
    firsts = Counter(errand.cuts[0].how for errand in todo)
    assert min(firsts.values()) >= 8
    assert {len(errand.cuts) for errand in todo} == {1, 2, 3}


def test_a_first_cut_lies_within_what_comes_in_any_case():
    for errand in errands(500, 2):
        first = errand.cuts[0]
        assert first.at < (UP_AT_LEAST if first.way == "up" else DOWN_AT_LEAST + errand.size_bytes)
