"""Bytes that threads move from a connection into a file: all of them, at their place, hashed; stopped at once; nothing left behind."""

import asyncio
import errno
import fcntl
import os
import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from connector.adapters.egress import guard
from connector.adapters.peer_http import HttpPeer
from connector.adapters_streams import mover as module
from connector.adapters_streams.mover import SpliceMover
from connector.errors import PeerFailed, SinkFailed
from connector.lanes import hashing
from connector.merkle.tree import leaf_hash
from connector.ports import Detached
from tests.dataplane.rig import serving, some_bytes
from tests.faults.patience import own_time
from tests.lanes.compiled import by_lanes
from tests.severed import given_up

KIB, MIB = 1024, 1024 * 1024
CONTENT = some_bytes(5 * MIB + 4321)
CHUNK = 64 * KIB

pytestmark = pytest.mark.asyncio


def leaves(content: bytes, chunk_bytes: int = CHUNK) -> list[bytes]:
    return [leaf_hash(content[at : at + chunk_bytes]) for at in range(0, len(content), chunk_bytes)]


@pytest.fixture(params=["splice", "pieces", "lanes"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways into the file, and leaves hashed many at a time."""
    if request.param == "pieces":
        monkeypatch.setattr(module, "SPLICES", False)
    if request.param == "lanes":
        monkeypatch.setattr(hashing, "HASHING", by_lanes())
    return str(request.param)


@pytest.fixture
def into(tmp_path: Path) -> Any:
    descriptor = os.open(tmp_path / "part", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


class Wire:
    """A connection with a mover at one end; `far` is the other."""

    def __init__(self, into: int, *, ahead: bytes = b"", left: int = len(CONTENT), idle_seconds: float = 5.0) -> None:
        near, self.far = socket.socketpair()
        self.mover = SpliceMover(Detached(near.detach(), ahead, left, "http://peer.example"), into, idle_seconds)

    async def send(self, content: bytes) -> None:
        self.far.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(self.far, content)

    async def close(self) -> None:
        await self.mover.close()
        self.far.close()


@asynccontextmanager
async def wired(into: int, **options: Any) -> AsyncIterator[Wire]:
    """Nothing is left behind, whatever happens."""
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    wire = Wire(into, **options)
    try:
        yield wire
    finally:
        begun, within = time.monotonic(), own_time()
        await wire.close()
        assert time.monotonic() - begun < within(1.0)
        assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, descriptors)


async def test_what_arrives_lies_at_its_place_and_is_hashed_in_order(way: str, into: int):
    ahead = CONTENT[:100_001]
    async with wired(into, ahead=ahead, left=len(CONTENT) - len(ahead)) as wire:
        half = 3 * MIB
        first, second = wire.mover.move(1_000_000, half, CHUNK), wire.mover.move(1_000_000 + half, len(CONTENT) - half, CHUNK)
        sending = asyncio.create_task(wire.send(CONTENT[len(ahead) :]))
        await asyncio.gather(first.finished, second.finished, sending)
        assert first.hashes + second.hashes == leaves(CONTENT)
    assert os.pread(into, len(CONTENT) + 1, 1_000_000) == CONTENT


async def test_the_other_way_round_places_are_the_caller_s_to_say(way: str, into: int):
    async with wired(into) as wire:
        moves = [wire.mover.move(at, MIB, 256 * KIB) for at in (4 * MIB, 0, 2 * MIB)]
        await wire.send(CONTENT[: 3 * MIB])
        await asyncio.gather(*(move.finished for move in moves))
    assert [os.pread(into, MIB, at) for at in (4 * MIB, 0, 2 * MIB)] == [CONTENT[n * MIB : (n + 1) * MIB] for n in range(3)]
    assert [move.hashes for move in moves] == [leaves(CONTENT[n * MIB : (n + 1) * MIB], 256 * KIB) for n in range(3)]


async def test_one_bit_that_is_wrong_is_found_in_whichever_lane_it_is(into: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hashing, "HASHING", by_lanes())
    right = CONTENT[:MIB]
    expected = leaves(right)
    async with wired(into, left=len(expected) * MIB) as wire:
        for wrong in range(len(expected)):
            move = wire.mover.move(0, MIB, CHUNK)
            sent = bytearray(right)
            sent[wrong * CHUNK + 7919 * wrong % CHUNK] ^= 1 << wrong % 8
            await asyncio.gather(wire.send(bytes(sent)), move.finished)
            assert [n for n, found in enumerate(move.hashes) if found != expected[n]] == [wrong]


async def test_who_sends_too_little_for_all_lanes_is_not_waited_for(into: int, monkeypatch: pytest.MonkeyPatch):
    """A provider that waits for a receipt sends nothing before it, and one on a slow line seldom stops: both are hashed as they come."""
    monkeypatch.setattr(hashing, "HASHING", by_lanes())
    async with wired(into) as wire:
        move = wire.mover.move(0, len(CONTENT), CHUNK)
        for at in range(0, 4 * CHUNK, CHUNK // 4):
            await wire.send(CONTENT[at : at + CHUNK // 4])
            for _ in range(5000):
                if len(move.hashes) == (at + CHUNK // 4) // CHUNK:
                    break
                await asyncio.sleep(0.001)
        assert move.hashes == leaves(CONTENT)[:4]


async def test_a_connection_that_waits_keeps_no_room_for_what_it_hashes(into: int):
    async with AsyncExitStack() as stack:
        tracemalloc.start()
        stack.callback(tracemalloc.stop)
        for n in range(4):
            wire = await stack.enter_async_context(wired(into))
            move = wire.mover.move(n * CHUNK, CHUNK, CHUNK)
            await asyncio.gather(wire.send(CONTENT[:CHUNK]), move.finished)
        assert tracemalloc.get_traced_memory()[0] < 2 * MIB


async def test_line_feeds_are_counted_leaf_by_leaf_if_they_are_asked_for(way: str, into: int):
    text = b"".join(b"%d\n" % n for n in range(200_000))
    async with wired(into, left=len(text)) as wire:
        move = wire.mover.move(0, len(text), CHUNK, "line")
        await asyncio.gather(wire.send(text), move.finished)
    assert move.records == [text[at : at + CHUNK].count(b"\n") for at in range(0, len(text), CHUNK)]


async def test_hashes_are_seen_while_more_arrives(way: str, into: int):
    async with wired(into) as wire:
        move = wire.mover.move(0, len(CONTENT), CHUNK)
        await wire.send(CONTENT[: 2 * MIB])
        for _ in range(1000):  # it is looked at from time to time, as a progress bar does
            await asyncio.sleep(0.005)
            if len(move.hashes) == 2 * MIB // CHUNK:
                break
        assert len(move.hashes) == 2 * MIB // CHUNK
        assert not move.finished.done()
        await wire.send(CONTENT[2 * MIB :])
        await move.finished
        assert move.hashes == leaves(CONTENT)


@pytest.mark.parametrize("sent", [0, 1, CHUNK - 1, CHUNK, 5 * CHUNK + 17, 3 * MIB + 1])
async def test_a_cut_keeps_what_came_before_it(way: str, into: int, sent: int):
    async with wired(into) as wire:
        move, later = wire.mover.move(0, 4 * MIB, CHUNK), wire.mover.move(4 * MIB, MIB, CHUNK)
        await wire.send(CONTENT[:sent])
        wire.far.close()
        for each in (move, later):
            with pytest.raises(PeerFailed, match=r"`http://peer\.example` closed the connection in the middle of its answer"):
                await each.finished
        assert (move.hashes, later.hashes) == (leaves(CONTENT[: sent // CHUNK * CHUNK]), [])


async def test_a_peer_that_resets_is_one_that_has_closed(way: str, into: int, tmp_path: Path):
    listener = socket.create_server(("127.0.0.1", 0))
    near = socket.create_connection(listener.getsockname())
    far, _ = listener.accept()
    listener.close()
    mover = SpliceMover(Detached(near.detach(), b"", MIB, "http://peer.example"), into, 5.0)
    move = mover.move(0, MIB, CHUNK)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    with pytest.raises(PeerFailed, match="closed the connection"):
        await move.finished
    await mover.close()


async def test_a_peer_that_its_kernel_gives_up_is_one_that_has_closed(way: str, into: int):
    near, far = given_up()
    with far:
        mover = SpliceMover(Detached(near.detach(), b"", MIB, "http://peer.example"), into, 5.0)
        with pytest.raises(PeerFailed, match="closed the connection"):
            await mover.move(0, MIB, CHUNK).finished
        await mover.close()


async def test_no_more_is_read_than_the_body_has(way: str, into: int):
    async with wired(into, left=10) as wire:
        await wire.send(b"0123456789and more")
        move = wire.mover.move(0, 11, CHUNK)
        with pytest.raises(PeerFailed, match="closed the connection"):
            await move.finished
        assert os.pread(into, 100, 0) == b"0123456789"


async def test_a_peer_that_stops_sending_is_given_up(way: str, into: int):
    async with wired(into, idle_seconds=0.1) as wire:
        move = wire.mover.move(0, MIB, CHUNK)
        await wire.send(CONTENT[:CHUNK])
        with pytest.raises(PeerFailed, match="stopped sending"):
            await move.finished
        assert len(move.hashes) == 1


@pytest.mark.parametrize("begun", [False, True])
async def test_it_stops_at_once_while_it_waits(way: str, into: int, begun: bool):
    async with wired(into, idle_seconds=60) as wire:
        moves = [wire.mover.move(0, MIB, CHUNK), wire.mover.move(MIB, MIB, CHUNK)] if begun else []
        await asyncio.sleep(0)
        await wire.mover.close()
        for move in moves:
            with pytest.raises(PeerFailed, match="was stopped"):
                await move.finished


async def test_who_stops_in_the_instant_in_which_it_is_read_is_not_told_that_the_peer_closed(
    way: str, into: int, monkeypatch: pytest.MonkeyPatch
):
    reads, stopped, step = asyncio.Event(), threading.Event(), module._Way.step
    loop = asyncio.get_running_loop()

    def late(of: Any, offset: int, count: int) -> int:
        loop.call_soon_threadsafe(reads.set)
        assert stopped.wait(5)
        return step(of, offset, count)

    monkeypatch.setattr(module._Way, "step", late)
    async with wired(into, idle_seconds=60) as wire:
        move = wire.mover.move(0, MIB, CHUNK)
        await reads.wait()
        closing = asyncio.create_task(wire.mover.close())
        await asyncio.sleep(0)
        stopped.set()
        await closing
        with pytest.raises(PeerFailed, match="was stopped"):
            await move.finished


async def test_whoever_is_cancelled_while_it_closes_still_waits_for_the_threads(into: int):
    async with wired(into, idle_seconds=60) as wire:
        wire.mover.move(0, MIB, CHUNK)
        closing = asyncio.create_task(wire.mover.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert not [t for t in threading.enumerate() if "peer.example" in t.name]


async def test_a_full_disk_is_told_from_a_cut(way: str, into: int, monkeypatch: pytest.MonkeyPatch):
    def full(*_arguments: object, **_options: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    splice: Callable[..., int] = os.splice

    def full_for_files(source: int, target: int, count: int, **options: Any) -> int:
        return full() if "offset_dst" in options else splice(source, target, count, **options)

    monkeypatch.setattr(os, "splice", full_for_files)
    monkeypatch.setattr(os, "pwrite", full)
    async with wired(into) as wire:
        move = wire.mover.move(0, MIB, CHUNK)
        await wire.send(CONTENT[:CHUNK])
        with pytest.raises(SinkFailed, match="the disk is full; the part is kept"):
            await move.finished


async def test_a_file_system_without_splice_gets_pieces_and_nothing_is_lost(into: int, monkeypatch: pytest.MonkeyPatch):
    splice: Callable[..., int] = os.splice

    def none_into_files(source: int, target: int, count: int, **options: Any) -> int:
        if "offset_dst" in options:
            raise OSError(errno.EINVAL, "Invalid argument")
        return splice(source, target, count, **options)

    monkeypatch.setattr(os, "splice", none_into_files)
    async with wired(into) as wire:
        move = wire.mover.move(0, len(CONTENT), CHUNK)
        await asyncio.gather(wire.send(CONTENT), move.finished)
        assert move.hashes == leaves(CONTENT)


async def test_a_user_who_may_have_no_large_pipe_gets_a_small_one(into: int, monkeypatch: pytest.MonkeyPatch):
    def refused(*_arguments: object) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(fcntl, "fcntl", refused)
    async with wired(into) as wire:
        move = wire.mover.move(0, len(CONTENT), CHUNK)
        await asyncio.gather(wire.send(CONTENT), move.finished)
        assert move.hashes == leaves(CONTENT)


async def test_where_no_descriptor_is_left_for_a_pipe_a_buffer_does_it(into: int, monkeypatch: pytest.MonkeyPatch):
    def none_left() -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pipe", none_left)
    async with wired(into) as wire:
        move = wire.mover.move(0, len(CONTENT), CHUNK)
        await wire.send(CONTENT)
        await move.finished
    assert move.hashes == leaves(CONTENT)


async def test_a_defect_before_the_first_move_holds_nobody_who_closes(into: int, monkeypatch: pytest.MonkeyPatch):
    def broken(*_arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(module._Way, "__init__", broken)
    wire = Wire(into)
    with pytest.raises(ZeroDivisionError):
        await wire.mover.close()
    wire.far.close()


async def test_a_file_that_somebody_makes_shorter_ends_the_move_and_not_the_process(into: int, monkeypatch: pytest.MonkeyPatch):
    read = os.preadv

    def cut_before(descriptor: int, *arguments: Any) -> int:
        os.ftruncate(descriptor, 0)
        return read(descriptor, *arguments)

    monkeypatch.setattr(os, "preadv", cut_before)
    async with wired(into) as wire:
        move = wire.mover.move(0, MIB, CHUNK)
        await wire.send(CONTENT[:MIB])
        with pytest.raises(SinkFailed, match="made shorter"):
            await move.finished


async def test_what_is_hashed_sooner_than_what_comes_before_it_waits_its_turn(into: int, monkeypatch: pytest.MonkeyPatch):
    read, second, seen = module._read, threading.Event(), list[int]()

    def turned_round(descriptor: int, offset: int, length: int, buffer: bytearray) -> memoryview:
        if not offset:
            assert second.wait(10), "another thread hashes meanwhile"
            seen.append(len(move.hashes))
        got = read(descriptor, offset, length, buffer)
        if offset:
            second.set()
        return got

    monkeypatch.setattr(module, "_read", turned_round)
    async with wired(into) as wire:
        move = wire.mover.move(0, len(CONTENT), CHUNK)
        await asyncio.gather(wire.send(CONTENT), move.finished)
    assert (seen, move.hashes) == ([0], leaves(CONTENT))


async def test_behind_what_cannot_be_read_nothing_counts(into: int, monkeypatch: pytest.MonkeyPatch):
    read = module._read

    def broken(descriptor: int, offset: int, length: int, buffer: bytearray) -> memoryview:
        if offset <= 2 * MIB < offset + length:
            raise SinkFailed("the part cannot be written")
        return read(descriptor, offset, length, buffer)

    monkeypatch.setattr(module, "_read", broken)
    async with wired(into) as wire:
        move = wire.mover.move(0, len(CONTENT), CHUNK)
        await wire.send(CONTENT)
        with pytest.raises(SinkFailed):
            await move.finished
    assert move.hashes == leaves(CONTENT)[: len(move.hashes)]
    assert len(move.hashes) <= 2 * MIB // CHUNK


async def test_a_defect_in_a_thread_reaches_whoever_waits(into: int, monkeypatch: pytest.MonkeyPatch):
    def broken(*_arguments: object) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "_read", broken)
    wire = Wire(into)
    move = wire.mover.move(0, MIB, CHUNK)
    await wire.send(CONTENT[:MIB])
    with pytest.raises(ZeroDivisionError):
        await move.finished
    with pytest.raises(ZeroDivisionError):
        await wire.mover.close()
    wire.far.close()


async def test_after_a_defect_the_loop_is_not_held_by_a_thread_that_still_works(into: int, monkeypatch: pytest.MonkeyPatch):
    hashing, may_end, read = threading.Event(), threading.Event(), module._read

    def slow(*arguments: Any) -> memoryview:
        hashing.set()
        may_end.wait(5)
        return read(*arguments)

    def broken(*_arguments: object) -> bool:
        hashing.wait(5)
        raise ZeroDivisionError

    monkeypatch.setattr(module, "_read", slow)
    monkeypatch.setattr(module._Way, "more_comes", broken)
    wire = Wire(into)
    await wire.send(CONTENT[:CHUNK])  # before it is asked for: a mover that had to wait for it would break with nothing to hash
    move = wire.mover.move(0, MIB, CHUNK)
    with pytest.raises(ZeroDivisionError):
        await move.finished
    ending = asyncio.create_task(wire.mover.close())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not ending.done()
    may_end.set()
    with pytest.raises(ZeroDivisionError):
        await ending
    wire.far.close()


@pytest.mark.parametrize("begun", range(3))
async def test_where_the_system_starts_no_more_threads_none_is_left_nor_the_connection(
    into: int, begun: int, monkeypatch: pytest.MonkeyPatch
):
    start, left, usual, threads = threading.Thread.start, begun, sys.getswitchinterval(), threading.active_count()

    def no_more(thread: threading.Thread) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError("can't start new thread")
        start(thread)

    near, far = socket.socketpair()
    with far:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", no_more)
            with pytest.raises(PeerFailed, match="no more threads"):
                module.SpliceMover(Detached(near.detach(), b"", MIB, "http://peer.example"), into, 10.0)
        assert (threading.active_count(), sys.getswitchinterval()) == (threads, usual)
        far.settimeout(10)
        assert far.recv(1) == b""


async def test_the_lock_changes_hands_sooner_only_while_something_moves(into: int):
    usual = sys.getswitchinterval()
    async with wired(into):
        second = Wire(into)  # what it leaves behind cannot be told: the first may still be opening what it moves by
        assert sys.getswitchinterval() == pytest.approx(module.TURN_SECONDS)
        await second.close()
        assert sys.getswitchinterval() == pytest.approx(module.TURN_SECONDS)
    assert sys.getswitchinterval() == usual


async def test_an_answer_of_a_real_server_is_taken_out_of_the_client_and_moved(way: str, into: int):
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=CONTENT)

    app = web.Application()
    app.router.add_get("/", answer)
    peer = HttpPeer(guard(["127.0.0.0/8"], http=True, ports=[]))
    async with serving(app) as port:
        for _ in range(3):  # also from the second on, when the client has a connection that it could use again
            async with peer.stream("GET", f"http://127.0.0.1:{port}/", headers={}) as incoming:
                detached = incoming.detach()
                assert detached is not None
                assert len(detached.ahead) + detached.left == len(CONTENT)
                mover = SpliceMover(detached, into, 5.0)
                move = mover.move(0, len(CONTENT), CHUNK)
                await move.finished
                await mover.close()
                assert move.hashes == leaves(CONTENT)
            assert os.pread(into, len(CONTENT), 0) == CONTENT
            os.ftruncate(into, 0)
    await peer.close()
