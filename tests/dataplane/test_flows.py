"""Who cuts a running stream and how soon: at `Flows` itself, and at a real listener with a slow reader in the middle."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from connector.dataplane import flows
from connector.dataplane.flows import Flows
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move, Role
from connector.errors import Withdrawn
from connector.records import Changes, Dataset
from connector.values import replace
from tests import pair
from tests.contracts.samples import agreement
from tests.dataplane.reader import Same, a_wire, reading
from tests.dataplane.rig import TRANSFER, Rig, ShiftedClock, process, provider, some_bytes
from tests.faults.patience import own_time

SIZE_BYTES = 8 * 1024 * 1024  # more than both kernels and the readers hold: the stream is in its middle
CUT_SECONDS = 1.0  # the promise
BOUND_SECONDS = 0.1  # ahead, in tests where time cuts: it begins to pass when the stream runs


def quiet_flows(clock: ShiftedClock | None = None) -> tuple[Flows, list[str]]:
    covered: list[str] = []
    return Flows(clock or ShiftedClock(), covered.append), covered


# --- what was looked up, and when it is looked up again


def test_a_lease_holds_until_something_about_its_transfer_is_committed():
    running, _ = quiet_flows()
    lease, other = running.lease(TRANSFER), running.lease("urn:other")
    assert running.lease(TRANSFER) is lease
    running.committed(Changes(saves=(process("STARTED", "urn:third"),)), ())
    assert not lease.stale
    running.committed(Changes(saves=(process("STARTED"),)), ())
    assert (lease.stale, other.stale, running.lease(TRANSFER) is lease) == (True, False, False)


@pytest.mark.parametrize(
    ("changes", "stale"),
    [
        (Changes(saves=(pair.dataset_record("urn:d"),)), True),
        (Changes(deletes=((Dataset, "urn:d"),)), True),
        (Changes(saves=(agreement(closed=1.0),)), True),
        (Changes(saves=(agreement(final=True),)), False),
    ],
    ids=["published anew", "withdrawn", "an agreement is closed", "one is made"],
)
def test_what_many_transfers_go_by_makes_every_lease_stale(changes: Changes, stale: bool):
    running, _ = quiet_flows()
    leases = [running.lease(TRANSFER), running.lease("urn:other")]
    running.committed(changes, ())
    assert [lease.stale for lease in leases] == [stale, stale]


def test_negotiations_and_transfers_where_we_consume_concern_nobody_here():
    running, _ = quiet_flows()
    lease = running.lease(TRANSFER)
    running.changed(replace(process("TERMINATED"), kind=Kind.NEGOTIATION))
    running.changed(replace(process("TERMINATED"), role=Role.CONSUMER))
    assert not lease.stale


def test_a_lease_that_is_forgotten_for_want_of_space_is_stale_so_that_nobody_goes_on_trusting_it():
    running, _ = quiet_flows()
    oldest, *others = [running.lease(f"urn:{n}") for n in range(flows.TRANSFERS_MAX + 1)]
    assert oldest.stale
    assert not any(lease.stale for lease in others)


# --- the cut itself


async def waiting_in(
    running: Flows,
    *,
    not_after: float | None = None,
    counted_until: float | None = None,
    under: str = "",
    entered: asyncio.Event | None = None,
) -> None:
    """A copy that never ends by itself."""
    with running.running(TRANSFER, not_after, "bound", counted_until, under):
        if entered is not None:
            entered.set()
        await asyncio.Event().wait()


@asynccontextmanager
async def copying(running: Flows, **options: Any) -> AsyncIterator[asyncio.Task[None]]:
    entered = asyncio.Event()
    task = asyncio.create_task(waiting_in(running, entered=entered, **options))
    await entered.wait()
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("state", ["REQUESTED", "SUSPENDED", "COMPLETED", "TERMINATED"])
@pytest.mark.asyncio
async def test_a_transfer_that_is_not_started_any_more_ends_all_its_streams_and_no_other(state: str):
    running, _ = quiet_flows()
    async with copying(running) as first, copying(running) as second:
        running.changed(process("TERMINATED", "urn:other"))
        running.changed(process("STARTED"))
        running.changed(replace(process("REQUESTED"), in_flight=Move.START))  # whoever holds the token of that start has taken it
        await asyncio.sleep(0)
        assert not first.done()
        running.changed(process(state))
        for task in (first, second):
            with pytest.raises(Withdrawn) as cut:
                await task
            assert cut.value.code == f"transfer-{state.lower()}"


@pytest.mark.asyncio
async def test_an_agreement_that_is_closed_ends_its_streams_at_the_commit_and_no_others():
    running, _ = quiet_flows()
    made = agreement(final=True)
    async with copying(running, under=made.id) as first, copying(running, under="urn:other") as second:
        running.committed(Changes(saves=(made,)), ())
        await asyncio.sleep(0)
        assert not first.done()
        running.committed(Changes(saves=(agreement(closed=1.0),)), ())
        with pytest.raises(Withdrawn) as cut:
            await first
        assert cut.value.code == "AGREEMENT_CLOSED"
        await asyncio.sleep(0)
        assert not second.done()


@pytest.mark.asyncio
async def test_the_first_reason_counts():
    running, _ = quiet_flows()
    async with copying(running) as task:
        running.cut_everything("shutdown")
        running.changed(process("TERMINATED"))
        with pytest.raises(Withdrawn) as cut:
            await task
    assert cut.value.code == "shutdown"


@pytest.mark.asyncio
async def test_a_cancellation_by_somebody_else_stays_one_even_beside_a_cut():
    running, _ = quiet_flows()
    async with copying(running) as task:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with copying(running) as task:
        running.cut_everything("shutdown")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert running.seen(TRANSFER).running == 0


@pytest.mark.asyncio
async def test_after_a_cut_the_task_goes_on_and_is_not_cancelled_any_more():
    running, _ = quiet_flows()
    entered = asyncio.Event()

    async def copy_then_tidy_up() -> str:
        with pytest.raises(Withdrawn):
            await waiting_in(running, entered=entered)
        await asyncio.sleep(0)
        return f"tidied up, {asyncio.current_task().cancelling()} cancellations open"

    task = asyncio.create_task(copy_then_tidy_up())
    await entered.wait()
    running.changed(process("SUSPENDED"))
    assert await task == "tidied up, 0 cancellations open"


@pytest.mark.asyncio
async def test_a_bound_that_has_passed_lets_no_stream_begin_and_one_to_come_ends_it():
    running, _ = quiet_flows(clock := ShiftedClock(stands=True))
    with pytest.raises(Withdrawn, match="ended"), running.running(TRANSFER, clock.now() - 1, "policy-bound-passed"):
        pytest.fail("it began")
    assert running.seen(TRANSFER) is None
    bound = clock.now() + 0.05
    async with copying(running, not_after=bound) as task:
        within = own_time()
        clock.go()
        with pytest.raises(Withdrawn) as cut:
            await task
    assert cut.value.code == "bound"
    assert bound <= clock.now() <= bound + within(CUT_SECONDS)


def decided(state: str = "STARTED", **detail: Any) -> Process:
    return replace(process(state), detail=detail)


@pytest.mark.parametrize(
    ("detail", "code"),
    [
        pytest.param({"ends": 0.05}, "policy-bound-passed", id="its policy"),
        pytest.param({"ends": None, "claims_expire": 0.05 - flows.GRACE_SECONDS}, "claims-lapsed", id="its claims, and a moment"),
        pytest.param({"ends": 0.05, "claims_expire": 60.0}, "policy-bound-passed", id="the first of them"),
    ],
)
@pytest.mark.asyncio
async def test_a_decision_that_is_committed_moves_the_bound_of_what_runs(detail: dict[str, Any], code: str):
    running, _ = quiet_flows()
    now, within = time.time(), own_time()
    async with copying(running, not_after=now + 60) as sooner:
        running.changed(decided(**{name: None if at is None else now + at for name, at in detail.items()}))
        with pytest.raises(Withdrawn) as cut:
            await sooner
    assert (cut.value.code, now + 0.05 <= time.time() <= now + 0.05 + within(CUT_SECONDS)) == (code, True)


@pytest.mark.asyncio
async def test_a_bound_that_is_moved_away_cuts_nothing_and_a_commit_that_decides_nothing_moves_none():
    running, _ = quiet_flows(clock := ShiftedClock(stands=True))
    soon = clock.now() + 0.05
    async with copying(running, not_after=soon) as longer, copying(running, not_after=soon) as endless:
        running.changed(decided(ends=soon + 60))
        running.changed(decided(ends=None, claims_expire=None))
        clock.go()
        await asyncio.sleep(0.1)
        assert not longer.done()
        assert not endless.done()
    running, _ = quiet_flows(clock := ShiftedClock(stands=True))
    async with copying(running, not_after=clock.now() + 0.05) as bound:
        running.changed(decided(format="HttpData-PULL"))
        clock.go()
        with pytest.raises(Withdrawn):
            await bound


@pytest.mark.asyncio
async def test_no_decision_moves_the_bound_beyond_the_instant_from_which_bytes_count_under_other_rules():
    running, _ = quiet_flows(clock := ShiftedClock(stands=True))
    now = clock.now()
    async with copying(running, not_after=now + 0.1, counted_until=now + 0.1) as stream:
        running.changed(decided(ends=None, claims_expire=now + 3600))
        clock.go()
        with pytest.raises(Withdrawn) as cut:
            await stream
    assert (cut.value.code, clock.now() >= now + 0.1) == ("counted-anew", True)


@pytest.mark.asyncio
async def test_a_stream_may_ask_whether_it_may_still_go_on_before_its_timer_has_come():
    clock = ShiftedClock()
    running = Flows(clock, lambda _pid: None)
    with running.running(TRANSFER, clock.now() + 60, "bound") as stream:
        stream.demand()
        clock.shift_seconds = 61
        with pytest.raises(Withdrawn) as over:
            stream.demand()
    assert over.value.code == "bound"


# --- what went out

RANGES = st.lists(st.tuples(st.sampled_from(['"a"', '"b"']), st.integers(0, 11), st.integers(0, 12)), max_size=30)


@given(RANGES)
def test_it_is_told_once_that_every_byte_of_one_representation_has_gone_out(ranges: list[tuple[str, int, int]]):
    running, told = quiet_flows()
    size_bytes, tag, gone, expected, total = 12, None, set[int](), 0, 0
    for etag, first, asked in ranges:
        length = min(asked, size_bytes - first)
        running.sent(TRANSFER, etag, first, length, size_bytes)
        if etag != tag:
            tag, gone = etag, set()
        before = len(gone)
        gone |= set(range(first, first + length))
        expected += before < size_bytes <= len(gone)
        total += length
        seen = running.seen(TRANSFER)
        assert (len(told), seen.covered, seen.sent_bytes) == (expected, len(gone) == size_bytes, total)


def test_a_representation_of_no_bytes_is_covered_by_its_first_answer():
    running, told = quiet_flows()
    running.sent(TRANSFER, '"e"', 0, 0, 0)
    assert told == [TRANSFER]


def test_a_transfer_that_is_over_is_forgotten():
    running, _ = quiet_flows()
    running.sent(TRANSFER, '"e"', 0, 5, 10)
    running.changed(process("SUSPENDED"))
    assert running.seen(TRANSFER).sent_bytes == 5
    running.changed(process("COMPLETED"))
    assert running.seen(TRANSFER) is None


def test_what_is_remembered_of_transfers_has_a_bound():
    running, _ = quiet_flows()
    for n in range(flows.TRANSFERS_MAX + 10):
        running.sent(f"urn:{n}", '"e"', 0, 1, 2)
    assert (running.seen("urn:0"), running.seen(f"urn:{flows.TRANSFERS_MAX + 9}").sent_bytes) == (None, 1)


# --- a real listener, and a reader that is slow and in the middle of the stream


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


def in_a_moment(name: str) -> Callable[[Rig], dict[str, Any]]:
    return lambda rig: {name: rig.clock.now() + BOUND_SECONDS}


# What ends a permission -> what the transfer says from the start, and what is committed in the middle.
ENDS: dict[str, tuple[Callable[[Rig], dict[str, Any]], dict[str, Any] | None]] = {
    "transfer-suspended": (lambda _: {}, {"state": "SUSPENDED"}),
    "transfer-terminated": (lambda _: {}, {"state": "TERMINATED"}),
    "agreement-ended": (in_a_moment("agreement_ends"), None),
    "policy-bound-passed": (in_a_moment("bound"), None),
}


@pytest.mark.parametrize("code", ENDS)
@pytest.mark.parametrize("kind", ["sendfile", "pieces", "TLS"])
@pytest.mark.asyncio
async def test_the_end_of_the_permission_cuts_a_stream_within_a_second(kind: str, code: str, tmp_path: Path, authority: trustme.CA):
    first, later = ENDS[code]
    async with a_wire(kind, tmp_path, authority) as wire_:
        rig, sent_by_kernel = wire_.rig, 0
        loop = asyncio.get_running_loop()
        sendfile = loop.sendfile

        async def counting(*args: Any, **options: Any) -> int:
            nonlocal sent_by_kernel
            sent_by_kernel += 1
            return await sendfile(*args, **options)

        loop.sendfile = counting  # type: ignore[method-assign]
        content = some_bytes(SIZE_BYTES)
        await rig.publish(content, stages=wire_.stages)
        authorization = rig.authorization()  # it does not know of the end: nothing but the gate can refuse it later
        rig.clock.stand()
        rig.change(**first(rig))
        descriptors = len(os.listdir("/proc/self/fd"))
        async with wire_.reading(authorization) as reader:
            assert (reader.status, reader.announced) == (200, SIZE_BYTES)
            await reader.take(300_000)
            assert rig.flows.seen(TRANSFER).running == 1
            view = rig.transfers.views[TRANSFER]
            end = view.agreement_ends or view.bound or rig.clock.now()
            within = own_time()
            rig.clock.go()
            if later is not None:
                rig.change(**later)
            over = await reader.sip_to_the_end() + rig.clock.shift_seconds
            assert over - end <= within(CUT_SECONDS), f"the reader still got data {over - end:.2f} s after the end"
            assert 300_000 <= len(reader.taken) < SIZE_BYTES
            assert content.startswith(reader.taken), "what came before the cut is not the data"
        assert (sent_by_kernel > 0) is wire_.by_kernel
        assert rig.flows.seen(TRANSFER).running == 0
        async with wire_.reading(authorization) as again:  # the listener lives, and says why
            assert again.status == 403
            assert code.encode() in await again.all()
            assert len(os.listdir("/proc/self/fd")) <= descriptors + 3  # the source, and this connection's two ends


@pytest.mark.parametrize("kind", ["sendfile", "pieces"])
@pytest.mark.asyncio
async def test_the_end_of_the_token_cuts_nothing_and_refuses_the_next_request(kind: str, tmp_path: Path, authority: trustme.CA):
    async with a_wire(kind, tmp_path, authority) as wire_:
        content = some_bytes(SIZE_BYTES)
        await wire_.rig.publish(content, stages=wire_.stages)
        authorization = wire_.rig.authorization()
        async with reading(wire_.rig.endpoint, authorization) as reader:
            await reader.take(300_000)
            wire_.rig.clock.shift_seconds = 301
            assert await reader.all() == content
        async with reading(wire_.rig.endpoint, authorization) as again:
            assert again.status == 401
            assert b"expired" in await again.all()


@pytest.mark.asyncio
async def test_a_wall_clock_that_is_set_past_the_bound_cuts_before_the_next_piece(tmp_path: Path):
    async with provider(tmp_path) as rig:
        await rig.publish(some_bytes(SIZE_BYTES), stages=(Same(),))
        rig.change(bound=rig.clock.now() + 60)
        async with reading(rig.endpoint, rig.authorization()) as reader:
            await reader.take(300_000)
            rig.clock.shift_seconds = 61
            await reader.sip_to_the_end()
            assert len(reader.taken) < SIZE_BYTES


@pytest.mark.asyncio
async def test_a_stop_of_the_process_cuts_all_streams(tmp_path: Path):
    async with provider(tmp_path) as rig:
        await rig.publish(some_bytes(SIZE_BYTES))
        async with reading(rig.endpoint, rig.authorization()) as one, reading(rig.endpoint, rig.authorization()) as other:
            began, within = time.time(), own_time()
            rig.flows.cut_everything("shutdown")
            for reader in (one, other):
                assert await reader.sip_to_the_end() - began <= within(CUT_SECONDS)
                assert len(reader.taken) < SIZE_BYTES
