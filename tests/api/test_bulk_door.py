"""Large answers under TLS: by threads as long as there are free ones, by the loop otherwise, and cut as every other stream."""

import asyncio
import os
import socket
import threading
import time
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trustme

from connector.api import bulk_door
from connector.api.bulk_door import STILL_MEGABYTES, BulkOutlet
from connector.api.outlet import HttpOutlet
from connector.dataplane import bulk
from tests.dataplane.reader import a_wire
from tests.dataplane.rig import TRANSFER, some_bytes
from tests.dataplane.test_meter import bytes_up_to
from tests.faults.patience import own_time

MUCH = some_bytes(8 * 1024 * 1024)  # more than both kernels and the reader hold
WAIT_SECONDS = 10.0


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each thread was given, one entry for each window."""
    counts: list[int] = []

    def send(descriptor: int, offset: int, count: int, progress: bulk.Progress, connection: bulk.Sends) -> None:
        counts.append(count)
        assert threading.current_thread().name.startswith("bulk")
        real(descriptor, offset, count, progress, connection)

    real = bulk.send
    monkeypatch.setattr(bulk, "send", send)
    return counts


def bulk_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("bulk")]


async def nobody_reads(wire: Any) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while wire.rig.flows.seen(TRANSFER).running:  # noqa: ASYNC110 - nobody tells when a stream ends
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("kind", "size", "threaded"), [("TLS", len(MUCH), True), ("TLS", bulk_door.LENT_BYTES - 1, False), ("sendfile", len(MUCH), False)]
)
@pytest.mark.asyncio
async def test_a_large_answer_under_tls_goes_by_a_thread(kind: str, size: int, threaded: bool, tmp_path: Path, carried: list[int]):
    async with a_wire(kind, tmp_path, trustme.CA()) as wire:
        await wire.rig.publish(MUCH[:size])
        async with wire.reading(wire.rig.authorization()) as reader:
            assert await reader.all() == MUCH[:size]
    assert sum(carried) == (size if threaded else 0)


@pytest.mark.asyncio
async def test_readers_that_hold_all_threads_keep_nobody_from_the_data_and_no_thread_is_left(tmp_path: Path, carried: list[int]):
    async with a_wire("TLS", tmp_path, trustme.CA(), bulk_threads=2) as wire:
        await wire.rig.publish(MUCH)
        async with AsyncExitStack() as stack:
            for _ in range(2):
                slow = await stack.enter_async_context(wire.reading(wire.rig.authorization()))
                await slow.take(100_000)
            for _ in range(3):
                async with wire.reading(wire.rig.authorization()) as reader:
                    assert await reader.all() == MUCH
            assert sum(carried) <= 2 * len(MUCH), "those of the slow ones; the others went through the loop"
            assert len(bulk_threads()) == 2
        await nobody_reads(wire)
        before = sum(carried)
        async with wire.reading(wire.rig.authorization()) as reader:  # the places of those that went away are free again
            assert await reader.all() == MUCH
        assert sum(carried) == before + len(MUCH)
    assert bulk_threads() == []


@pytest.mark.asyncio
async def test_without_threads_everything_goes_through_the_loop(tmp_path: Path, carried: list[int]):
    async with a_wire("TLS", tmp_path, trustme.CA(), bulk_threads=0) as wire:
        await wire.rig.publish(MUCH)
        async with wire.reading(wire.rig.authorization()) as reader:
            assert await reader.all() == MUCH
    assert carried == []


@pytest.mark.asyncio
async def test_the_last_thread_may_go_to_somebody_else_while_the_head_is_on_its_way(
    tmp_path: Path, carried: list[int], monkeypatch: pytest.MonkeyPatch
):
    def way_out(request: Any, response: Any, threads: bulk.Threads, length: int, stall_seconds: float) -> HttpOutlet:
        outlet = real(request, response, threads, length, stall_seconds)
        assert isinstance(outlet, BulkOutlet)
        threads._free = 0
        return outlet

    real = bulk_door.way_out
    monkeypatch.setattr("connector.api.data_api.way_out", way_out)
    async with a_wire("TLS", tmp_path, trustme.CA()) as wire:
        await wire.rig.publish(MUCH)
        async with wire.reading(wire.rig.authorization()) as reader:
            assert await reader.all() == MUCH
    assert carried == []


@pytest.mark.asyncio
async def test_a_withdrawn_permit_ends_a_slow_readers_stream_within_a_second_whatever_the_thread_waits_for(
    tmp_path: Path, carried: list[int]
):
    async with a_wire("TLS", tmp_path, trustme.CA()) as wire:
        await wire.rig.publish(MUCH)
        async with wire.reading(wire.rig.authorization()) as reader:
            await reader.take(100_000)
            assert carried, "a thread is at it"
            withdrawn, within = time.time(), own_time()
            wire.rig.change(state="SUSPENDED")
            await nobody_reads(wire)
            assert time.time() - withdrawn < within(1)
            assert await reader.sip_to_the_end() - withdrawn < within(1)
            assert len(reader.taken) < len(MUCH)
        async with wire.reading(wire.rig.authorization()) as refused:
            assert refused.status == 403


@pytest.mark.asyncio
async def test_who_takes_nothing_holds_a_thread_no_longer_than_another_way_would_wait(tmp_path: Path, carried: list[int]):
    """A window has time for all of its megabytes; a reader that has stopped is not given that."""
    stall_seconds = 0.15
    async with a_wire("TLS", tmp_path, trustme.CA(), stall_seconds=stall_seconds) as wire:
        await wire.rig.publish(some_bytes(bulk.WINDOW_BYTES + 1))
        async with wire.reading(wire.rig.authorization()) as reader:
            await reader.take(100_000)
            stopped = time.monotonic()
            await nobody_reads(wire)
            waited = time.monotonic() - stopped
        assert STILL_MEGABYTES * stall_seconds * 0.8 < waited < stall_seconds * bulk.WINDOW_BYTES / 2**20 * 0.8
        assert carried == [bulk.WINDOW_BYTES]


@pytest.mark.asyncio
async def test_a_quota_lets_exactly_so_many_bytes_leave_through_a_thread_too(tmp_path: Path, carried: list[int]):
    most = 3_000_001
    async with a_wire("TLS", tmp_path, trustme.CA()) as wire:
        await wire.rig.publish(MUCH, tallies=(bytes_up_to(most),))
        async with wire.reading(wire.rig.authorization()) as reader:
            await reader.take(most)
            with pytest.raises(AssertionError, match="ended before that"):
                await reader.take(1)
            assert reader.taken == MUCH[:most]
        assert sum(carried) == most


@pytest.mark.asyncio
async def test_a_file_that_is_cut_short_under_a_stream_ends_it_visibly_and_others_go_on(tmp_path: Path):
    async with a_wire("TLS", tmp_path, trustme.CA()) as wire:
        await wire.rig.publish(MUCH)
        async with wire.reading(wire.rig.authorization()) as reader:
            await reader.take(100_000)
            os.truncate(wire.rig.root / "data.bin", 10)
            await reader.sip_to_the_end()
            assert 0 < len(reader.taken) < reader.announced
        await wire.rig.publish(MUCH)
        async with wire.reading(wire.rig.authorization()) as reader:
            assert await reader.all() == MUCH


@pytest.mark.asyncio
async def test_the_process_that_stops_ends_what_is_lent(tmp_path: Path):
    async with a_wire("TLS", tmp_path, trustme.CA()) as wire:
        await wire.rig.publish(MUCH)
        async with wire.reading(wire.rig.authorization()) as reader:
            await reader.take(100_000)
            wire.rig.flows.cut_everything("shutdown")
            await nobody_reads(wire)
    assert bulk_threads() == []


class Sending(asyncio.Transport):
    """Over a socket whose kernel sends by the algorithm `by`."""

    family, by = socket.AF_INET, b"bbr"

    def __init__(self, address: str) -> None:
        super().__init__({"socket": self})
        self.getsockname = lambda: (address, 80)

    def fileno(self) -> int:
        return 3

    def getsockopt(self, *option: int) -> bytes:
        assert option[:2] == (socket.IPPROTO_TCP, socket.TCP_CONGESTION)
        return self.by.ljust(16, b"\0")

    def setsockopt(self, _level: int, _option: int, value: bytes) -> None:
        self.by = value


@pytest.mark.skipif(not hasattr(socket, "TCP_CONGESTION"), reason="sockets cannot choose")
@pytest.mark.parametrize(
    ("address", "before", "after"),
    [
        ("127.0.0.1", b"bbr", b"reno"),
        ("::1", b"bbr", b"reno"),
        ("::ffff:127.0.0.2", b"bbr", b"reno"),
        ("127.0.0.1", b"cubic", b"cubic"),
        ("192.0.2.2", b"bbr", b"bbr"),
        ("fe80::1%eth0", b"bbr", b"bbr"),
    ],
)
def test_only_what_stays_on_this_machine_is_not_paced(address: str, before: bytes, after: bytes):
    transport = Sending(address)
    transport.by = before
    request: Any = SimpleNamespace(transport=transport)
    bulk_door.way_out(request, cast(Any, None), bulk.Threads(0), len(MUCH), 1.0)
    assert transport.by == after
