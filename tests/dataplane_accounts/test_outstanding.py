"""What of one transfer is on its way: what is stored as foreseen, from where each connection stands, and no more than the credit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from connector.dataplane_accounts.opens import Held, Open
from connector.dataplane_accounts.outstanding import CONNECTIONS_MAX, Outstanding, unsigned_of
from connector.dsp.messages import Role
from connector.metering.content import Known, Layout, Sealed
from connector.metering.credit import Log
from connector.metering.ranges import Ranges, without
from connector.values import replace
from tests.metering.rig import CHUNK, account

LAYOUT = Layout(40 * CHUNK - 9, CHUNK)
CREDIT = 8 * CHUNK


def outstanding(all_: Open | None = None) -> Outstanding:
    return Outstanding("t", LAYOUT, all_ or Open())


def test_where_one_connection_reads_on_the_rest_of_the_credit_is_foreseen_behind_it():
    out = outstanding()
    assert out.grant(1, 4, (), CREDIT, together=False) == 4
    assert not out.covers(1, 4)
    assert out.reserve(out.out, CREDIT, together=False) == ((0, 8 * CHUNK),)
    assert not out.covers(1, 4), "it is not stored yet"
    out.noted = ((0, 8 * CHUNK),)
    assert out.covers(1, 9)
    out.hold(without(out.out, ((1, 3),)))
    assert out.reserve(out.out, CREDIT, together=False) == ((2 * CHUNK, 10 * CHUNK),)
    assert out.noted == ((2 * CHUNK, 8 * CHUNK),), "until that is durable only what both have counts as stored"
    assert out.reserve(out.out, CREDIT, together=False, ahead=False) == ((2 * CHUNK, 3 * CHUNK),)


def test_several_connections_share_what_is_foreseen_and_only_so_many_are_remembered():
    out = outstanding()
    for first in (1, 11, 21, 31):
        assert out.grant(first, first + 1, (), CREDIT, together=False) == first + 1
    assert out.reserve(out.out, CREDIT, together=False) == tuple((n * CHUNK, (n + 2) * CHUNK) for n in (0, 10, 20, 30))
    for first in range(1, 39, 2):
        out.grant(first, first + 1, (), 100 * CHUNK, together=False)
    assert len(out._ends) == CONNECTIONS_MAX


def test_where_a_connection_has_ended_nothing_is_foreseen():
    out = outstanding()
    out.grant(1, 3, (), CREDIT, together=False)
    out.grant(11, 12, (), CREDIT, together=False)
    out.grant(9, 11, (), CREDIT, together=False)  # up to where another one goes on
    out.grant(31, 32, (), CREDIT, together=False)
    told = without(out.out, ((31, 32),))
    acknowledged = ((31, 33),)  # also what came behind it by another one
    assert out.reserve(told, CREDIT, together=False, acknowledged=acknowledged) == ((0, 3 * CHUNK), (8 * CHUNK, 12 * CHUNK))


def test_what_is_stored_already_goes_first_and_costs_no_write():
    out = outstanding()
    out.noted = ((2 * CHUNK, 5 * CHUNK + 1), (38 * CHUNK, LAYOUT.size_bytes))
    assert [out.free(first, 41) for first in (3, 5, 39)] == [6, 6, 41]
    assert out.free(3, 5) == 5
    assert [out.free(first, 20) for first in (1, 6)] == [20, 20], "none of it is stored: all of it is to be"


def test_nothing_is_foreseen_behind_the_end_nor_beyond_what_all_have_together():
    all_ = Open()
    out = outstanding(all_)
    out.grant(38, 41, (), CREDIT, together=True)
    assert out.reserve(out.out, CREDIT, together=True) == ((37 * CHUNK, LAYOUT.size_bytes),)
    out = outstanding(all_ := Open())
    all_.hold("another", Held(2 * CREDIT - 3 * CHUNK))
    assert out.grant(1, 9, (), CREDIT, together=True) == 4
    assert out.reserve(out.out, CREDIT, together=True) == ((0, 3 * CHUNK),)
    assert out.grant(4, 9, (), CREDIT, together=True) == 4
    assert out.grant(1, 4, (), CREDIT, together=True) == 4, "again it is free"


def test_of_live_data_less_is_foreseen_by_a_leaf_as_it_may_end_anywhere():
    class Growing(Sealed):
        def touched(self, offset: int, length: int) -> tuple[int, int]:
            ends = [self.span(1, leaf + 1)[1] for leaf in range(1, self.leaves)]
            return 1 + sum(end <= offset for end in ends), 1 + sum(
                end - self.span(n, n + 1)[1] < offset + length for n, end in enumerate(ends, 1)
            )

        held = touched

    growing = Growing()
    for length in (CHUNK, 100, CHUNK, 7):
        growing.append(length, 1)
    out = Outstanding("t", growing, Open())
    out.grant(1, 3, (), 2 * 2**20, together=False)
    sent = out.reserve(out.out, 2 * 2**20, together=False)
    assert sent[0][0] == 0
    assert CHUNK + 100 < sent[0][1] < 2 * 2**20
    again = Outstanding("t", growing, Open())
    again.resume(replace(account(Role.PROVIDER), sent=sent, ranges=((1, 2),)), growing.leaves)
    assert again.out == ((2, 5),), "what came meanwhile lies in what was foreseen"


LEAVES = st.tuples(st.integers(1, 40), st.integers(1, 9)).map(lambda each: (each[0], min(41, each[0] + each[1])))


@given(st.lists(LEAVES, max_size=12), st.lists(LEAVES, max_size=4))
def test_what_is_stored_covers_what_is_out_and_is_never_more_than_the_credit(asks: list[tuple[int, int]], signed: list[tuple[int, int]]):
    out, acknowledged = outstanding(), Ranges()
    for first, last in asks:
        out.grant(first, last, acknowledged, CREDIT, together=False)
        sent = out.reserve(out.out, CREDIT, together=False)
        again = outstanding()
        again.resume(replace(account(Role.PROVIDER), sent=sent), LAYOUT.leaves)
        assert not without(out.out, again.out)
        assert out.size_bytes <= again.size_bytes <= CREDIT
        if signed:
            acknowledged = (signed.pop(),)
            out.hold(without(out.out, acknowledged))


def test_of_a_log_that_is_not_at_hand_what_was_signed_for_is_no_longer_what_may_be_lost():
    sizes = [10, 20, 30, 40]

    def measure(ranges: Ranges) -> Known:
        return Known(sum(sum(sizes[first - 1 : end - 1]) for first, end in ranges), 0, 0)

    log = Log(5, measure, lambda _: None)
    assert unsigned_of(((0, 100),), log, ((1, 3),)) == ((30, 100),)
    assert unsigned_of(((0, 100),), log, ((1, 2), (3, 4))) == ((10, 30), (60, 100))
    assert unsigned_of(((0, 5), (40, 90)), log, ()) == ((0, 5), (40, 90))
