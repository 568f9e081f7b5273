"""What is on its way under one agreement: of what runs, and of what has ended with a loss, until that is written off."""

from __future__ import annotations

from typing import Any

import pytest

from connector.adapters.memory import MemoryStore
from connector.dataplane.flows import Lease
from connector.dataplane.gate import Permit
from connector.dataplane_accounts.opens import LOST_SECONDS, Held, Leaves, Open, Opens, unsigned
from connector.dsp.messages import Role
from connector.metering.content import Layout
from connector.ports import COUNTERSIGNED
from connector.records import Changes
from connector.records.metering import Counts, Metered
from connector.values import replace
from tests.dataplane.rig import ShiftedClock, process
from tests.metering.rig import CHUNK, LAYOUT, MANIFEST, account

CREDIT = MANIFEST.credit_bytes


ROOT, OTHER = b"r" * 32, b"o" * 32


def leaves(*ranges: tuple[int, int], root: bytes = ROOT) -> Held:
    """Leaves of ten bytes each."""
    layout = Layout(1000, 10)
    return Held(sum(layout.span(*each)[1] for each in ranges), Leaves(root, layout, ranges))


def test_what_has_ended_counts_until_the_same_leaves_are_signed_for_or_a_day_is_over():
    under = Open()
    under.hold("one", leaves((1, 11)))
    under.hold("two", leaves((5, 12)))
    under.end("one", 100.0)
    under.end("never seen", 100.0)
    assert (under.size_bytes, under.news.is_set()) == (170, True)
    under.signed(ROOT, ((9, 13),))
    assert under.size_bytes == 150, "what runs is told by its own account"
    under.hold("one", leaves((1, 8)))
    assert under.size_bytes == 140, "what is signed for after the end counts as well"
    under.hold("one", leaves((1, 30)))
    assert under.size_bytes == 140, "and nothing more leaves of it"
    under.end("two", 200.0)
    under.end("two", 300.0)
    assert under.size_bytes == 110, "what somebody had signed for before is not lost"
    under.forget(150.0)
    assert under.size_bytes == 40
    under.signed(ROOT, ((1, 100),))
    assert under.size_bytes == 0


def test_who_signs_for_something_else_has_no_credit_back():
    """He would get as much as he signs for, again and again, of which nobody but the provider says that he has it."""
    under = Open()
    under.hold("one", leaves((1, 11)))
    under.end("one", 100.0)
    under.signed(ROOT, ((11, 101),))
    under.signed(OTHER, ((1, 101),))
    under.signed(None, ((1, 101),))
    assert under.size_bytes == 100
    under.hold("live", Held(50))
    under.end("live", 100.0)
    under.signed(None, ((1, 101),))
    under.signed(ROOT, ((1, 101),))
    assert under.size_bytes == 50, "nobody can fetch that again"
    under.hold("live", Held(20))
    assert under.size_bytes == 20, "but sign for it late"


def test_a_late_receipt_for_what_is_written_off_takes_no_credit_away():
    under = Open()
    under.hold("one", leaves((1, 11)))
    for transfer in ("one", "all signed for"):
        under.end(transfer, 100.0)
    under.signed(ROOT, ((1, 101),))
    under.hold("one", leaves((1, 5)))
    under.hold("all signed for", leaves((1, 4)))
    assert under.size_bytes == 0, "nothing would ever end what has ended already"
    under.end("one", 120.0)
    assert under.size_bytes == 0


@pytest.mark.parametrize(("together", "left"), [(False, 60), (True, 45)])
def test_transfers_that_are_bound_together_have_two_credits(together: bool, left: int):
    under = Open()
    under.hold("one", Held(40))
    under.hold("two", Held(90))
    under.end("two", 0.0)
    under.hold("three", Held(25))
    assert under.left(100, 40, 40, together=together) == left


def stored(pid: str, sent: tuple[tuple[int, int], ...], ranges: tuple[tuple[int, int], ...] = (), **more: Any) -> Metered:
    counts = Counts(LAYOUT.measure(ranges).bytes)
    about = {"transfer": pid, "agreement": "urn:agreement", "sequence": 1, "receipt": "r", "size_bytes": LAYOUT.size_bytes, "root": ROOT}
    return replace(account(Role.PROVIDER), **about, sent=sent, ranges=ranges, counts=counts, **more)


def permit(*demands: str) -> Permit:
    return Permit("t", "urn:agreement", "c", "urn:dataset", {}, (), None, "", Lease(), demands=frozenset(demands))


@pytest.mark.asyncio
async def test_a_restart_takes_up_what_runs_and_what_has_ended_with_a_loss():
    store, clock = MemoryStore(), ShiftedClock()
    now = clock.now()
    rows = (
        stored("runs", ((0, 3 * CHUNK),), ((1, 2),), updated=now - 5),
        stored("ended", ((0, CHUNK),), updated=now - 9),
        stored("ended long ago", ((0, 9 * CHUNK),), updated=now - LOST_SECONDS - 9),
        replace(stored("signs nothing", ((0, 9 * CHUNK),)), sequence=0, receipt=""),
        replace(stored("of others", ((0, CHUNK),)), agreement="urn:other"),
    )
    states = {"runs": "STARTED", "ended": "COMPLETED", "ended long ago": "TERMINATED"}
    transfers = [replace(process(state, pid), peer_pid=f"theirs {pid}", updated=now) for pid, state in states.items()]
    await store.commit(Changes(saves=(*rows, *transfers)))
    opens = Opens(store, clock)
    under = await opens.of(permit(COUNTERSIGNED))
    assert under.size_bytes == 2 * CHUNK, "the leaf that the one has lost, the other has signed for since"
    assert await opens.of(permit(COUNTERSIGNED)) is under
    opens.ended("runs", "urn:agreement")
    opens.ended("runs", "urn:unknown")
    assert under.size_bytes == 2 * CHUNK
    clock.shift_seconds = LOST_SECONDS + 1
    assert (await opens.of(permit(COUNTERSIGNED))).size_bytes == 0
    assert (await Opens(store, ShiftedClock()).of(permit())).size_bytes == 0, "where no receipts are demanded each has its own"


@pytest.mark.asyncio
async def test_two_transfers_that_lost_their_whole_credit_lock_it_until_a_day_is_over_or_it_is_written_off():
    store, clock = MemoryStore(), ShiftedClock()
    now = clock.now()
    rows = [stored(pid, ((0, CREDIT),), updated=now - age) for pid, age in (("one", 9), ("two", 5))]
    ended = [replace(process("TERMINATED", row.transfer), peer_pid=f"theirs {row.transfer}", updated=now) for row in rows]
    await store.commit(Changes(saves=(*rows, *ended)))
    opens = Opens(store, clock)
    under = await opens.of(permit(COUNTERSIGNED))
    assert under.left(CREDIT, 0, 0, together=True) == 0
    assert await opens.lost("urn:agreement") == await Opens(store, clock).lost("urn:agreement") == under.lost
    assert [(each.transfer, each.size_bytes, each.until) for each in under.lost] == [
        ("one", CREDIT, now - 9 + LOST_SECONDS),
        ("two", CREDIT, now - 5 + LOST_SECONDS),
    ]
    under.news.clear()
    opens.committed(replace(rows[0], sent=()))
    opens.committed(replace(rows[1], agreement="urn:other", sent=()))
    assert (under.left(CREDIT, 0, 0, together=True), under.news.is_set()) == (CREDIT, True), "who waits for credit has it at once"
    assert [each.transfer for each in under.lost] == ["two"]
    opens.committed(replace(rows[0], sent=((0, CREDIT),)))
    assert under.left(CREDIT, 0, 0, together=True) == CREDIT, "it does not come back"


@pytest.mark.asyncio
async def test_a_receipt_that_comes_late_does_not_put_off_the_day_after_which_the_rest_is_written_off():
    store, clock = MemoryStore(), ShiftedClock()
    now = clock.now()
    over = replace(process("TERMINATED", "late"), peer_pid="theirs", updated=now - LOST_SECONDS + 60)
    await store.commit(Changes(saves=(stored("late", ((0, CHUNK),), updated=now - 5), over)))
    (lost,) = await Opens(store, clock).lost("urn:agreement")
    assert lost.until == pytest.approx(now + 60)


@pytest.mark.asyncio
@pytest.mark.parametrize("first", [True, False])
async def test_what_is_locked_is_the_same_to_the_process_that_lived_and_to_whoever_reads_the_store(first: bool):
    """An operator is told what is stored: he could not release what only the process knows of."""
    store, clock = MemoryStore(), ShiftedClock()
    now = clock.now()
    lost, signs = stored("lost", ((0, 5 * CHUNK),), updated=now - 9), stored("signs", (), updated=now - 8)
    await store.commit(Changes(saves=(lost, signs, replace(process("STARTED", "lost"), peer_pid="theirs"))))
    opens = Opens(store, clock)
    under = await opens.of(permit(COUNTERSIGNED))
    if not first:
        opens.ended("lost", "urn:agreement")
    after = (stored("signs", (), ((3, 6),), updated=now - 7), stored("lost", ((CHUNK, 5 * CHUNK),), ((1, 2),), updated=now - 5))
    for row in after:
        opens.committed(row)
    under.hold("lost", unsigned(after[1]))
    opens.ended("lost", "urn:agreement")
    await store.commit(Changes(saves=(*after, replace(process("TERMINATED", "lost"), peer_pid="theirs", version=2, updated=now))))
    assert (
        [each.size_bytes for each in under.lost] == [each.size_bytes for each in await Opens(store, clock).lost("urn:agreement")] == [CHUNK]
    )
    assert under.size_bytes == CHUNK


def test_of_a_loss_that_is_known_by_its_size_alone_nothing_comes_back():
    under = Open()
    under.hold("one", leaves((1, 11)))
    under.end("one", 100.0)
    under.hold("one", Held(20))
    under.signed(ROOT, ((1, 2),))
    assert under.size_bytes == 20


def test_of_live_data_that_are_not_at_hand_as_much_counts_as_was_stored():
    live = replace(stored("live", ((0, 10), (20, 25))), size_bytes=None)
    assert unsigned(live) == Held(15)
    assert unsigned(replace(live, sent=((0, 2**40),))) == Held(CREDIT)
    assert unsigned(stored("finite", ((5, 6), (CHUNK, CHUNK + 1), (LAYOUT.size_bytes, 2**40)), ((2, 3),))).size_bytes == CHUNK
    assert Layout(LAYOUT.size_bytes, CHUNK).leaves == LAYOUT.leaves
