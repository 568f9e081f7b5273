import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.metering.content import Known
from connector.metering.counts import Counts
from connector.metering.credit import allowance, counted, credit, due, finite, open_to
from connector.metering.objects import ContentLog
from connector.metering.ranges import Ranges, union, without
from connector.values import replace
from tests.metering.rig import CHUNK, LAYOUT, MANIFEST, WINDOW, log

MEASURE = log().measure
LEAVES = LAYOUT.leaves


def test_a_transfer_from_the_front_stops_at_an_offset():
    assert allowance(4 * WINDOW, MEASURE, (), (), 1, LEAVES) == 16
    assert allowance(4 * WINDOW, MEASURE, (), ((1, 17),), 17, LEAVES) == 0
    acknowledged = ((1, 5),)
    now = credit(MANIFEST, Counts(bytes=4 * CHUNK))
    assert now == 4 * CHUNK + 4 * WINDOW
    assert LAYOUT.span(1, 21)[1] == now
    assert allowance(now, MEASURE, acknowledged, ((1, 17),), 17, LEAVES) == 4


def test_nothing_may_leave_before_there_is_credit_but_what_was_sent_may_leave_again():
    assert allowance(0, MEASURE, (), (), 1, LEAVES) == 0
    assert allowance(0, MEASURE, (), (), 5, 5) == allowance(9 * WINDOW, MEASURE, (), (), 5, 4) == 0
    assert allowance(4 * WINDOW, MEASURE, (), ((1, 17),), 1, 17) == 16
    assert allowance(4 * WINDOW, MEASURE, (), ((1, 17),), 1, 18) == 16


def test_parallel_ranges_share_one_credit():
    sent = ()
    for first in (1, 11, 21):
        got = allowance(4 * WINDOW, MEASURE, (), sent, first, first + 5)
        assert got == 5
        sent = union(sent, ((first, first + got),))
    assert allowance(4 * WINDOW, MEASURE, (), sent, 31, 36) == 1
    assert allowance(4 * WINDOW, MEASURE, (), sent, 24, 29) == 3  # two of these have left already


def test_what_was_sent_and_got_lost_uses_credit_and_may_be_fetched_again_without():
    sent = ((2, 18),)
    assert allowance(4 * WINDOW, MEASURE, (), sent, 1, LEAVES) == 0
    assert open_to((), sent) == sent
    assert allowance(4 * WINDOW, MEASURE, (), sent, 2, 18) == 16
    assert open_to(((2, 18),), sent) == ()
    assert allowance(4 * WINDOW + 16 * CHUNK, MEASURE, ((2, 18),), sent, 1, 2) == 1


@given(st.lists(st.tuples(st.integers(1, LEAVES), st.integers(1, LEAVES)), max_size=6), st.lists(st.integers(0, 3), max_size=8))
def test_no_more_than_the_credit_is_ever_on_its_way(asked: list[tuple[int, int]], receipts: list[int]):
    acknowledged: tuple[tuple[int, int], ...] = ()
    sent: tuple[tuple[int, int], ...] = ()
    for turn, (first, last) in enumerate(asked):
        limit = credit(MANIFEST, counted(MEASURE, acknowledged))
        many = allowance(limit, MEASURE, acknowledged, sent, first, last)
        sent = union(sent, ((first, first + many),))
        assert MEASURE(without(sent, acknowledged)).bytes <= MANIFEST.credit_bytes
        # All of it is used: one leaf more would be too much, if there is one that is new.
        if many < last - first:
            more = union(sent, ((first, first + many + 1),))
            assert MEASURE(without(more, acknowledged)).bytes > MANIFEST.credit_bytes
        if turn < len(receipts):
            acknowledged = union(acknowledged, sent[: receipts[turn]])


@pytest.mark.parametrize(
    ("windows", "leaves", "live"),
    [(1, 4, 4), (2, 4, 4), (3, 6, 6), (4, 8, 8), (5, 10, 8), (8, 16, 8), (64, 16, 8)],
)
@pytest.mark.parametrize("grows", [False, True])
def test_a_receipt_is_due_after_half_of_the_credit_of_one_to_four_windows_and_of_live_data_two(
    windows: int, leaves: int, live: int, grows: bool
):
    manifest = replace(MANIFEST, credit_windows=windows)
    if grows:
        manifest, leaves = replace(manifest, log=ContentLog("p.example/live", CHUNK)), live

    def measure(ranges: Ranges) -> Known:
        return Known(sum(last - first for first, last in ranges) * CHUNK, 0, 0)

    assert not due(manifest, Counts(), measure, ((1, leaves),))
    assert due(manifest, Counts(), measure, ((1, leaves), (leaves + 3, leaves + 4)))
    assert not due(manifest, Counts(bytes=CHUNK), measure, ((1, leaves + 1),))


def test_a_provider_that_waits_after_each_window_has_a_receipt_for_each():
    assert not due(MANIFEST, Counts(), MEASURE, ((1, 4),), each_window=True)
    assert due(MANIFEST, Counts(), MEASURE, ((1, 4), (7, 8)), each_window=True)


def test_what_is_known_of_a_finite_log_is_what_its_manifest_says():
    whole = LAYOUT.whole
    assert log().measure(whole) == Known(LAYOUT.size_bytes, 0, 1)
    assert counted(log().measure, ((1, 2),), 3, 4) == Counts(CHUNK, 0, 0, 3, 4)
    assert (counted(log().measure, ((1, 2),)).calls, counted(log().measure, ()).calls) == (1, 0)
    lines = replace(MANIFEST, unit="line")
    assert finite(lines).measure(whole).records is None
    assert counted(finite(lines).measure, whole).records == 0
    assert finite(lines, records=lambda first, last: 10 * (last - first)).measure(((1, 3), (5, 6))).records == 30
    assert (log().root(LEAVES), log().root(LEAVES - 1), finite(lines).leaf(3)) == (MANIFEST.log.root, None, None)
    with pytest.raises(ValueError, match="live log"):
        finite(replace(MANIFEST, log=ContentLog("p.example/live", CHUNK)))
