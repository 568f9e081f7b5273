"""Bodies off a socket: in whatever frames and steps they come, cut anywhere, and while nobody waits for them any more."""

import asyncio
import gc
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import aclosing, asynccontextmanager, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.adapters_streams import http_wire
from connector.adapters_streams.http_wire import Wire
from connector.errors import PeerFailed
from connector.ports.live import Unread
from tests.faults.patience import own_patience
from tests.severed import given_up

ENDLESS, LENGTH, CHUNKS = "endless", "length", "chunks"
WAIT_SECONDS = 10.0


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as found:
        yield found


@asynccontextmanager
async def wire(
    threads: ThreadPoolExecutor, ahead: bytes = b"", length: int | None = None, *, chunked: bool = False
) -> AsyncIterator[tuple[Wire, socket.socket]]:
    """An answer, and the end at which a test speaks for its server."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        found = Wire(Unread(200, {}, ours.detach(), ahead, length, chunked, "http://peer.example"), threads)
        try:
            yield found, theirs
        finally:
            found.close()


def kept(buffer: bytearray, size: int) -> bytes:
    return bytes(buffer[:size])


async def body(of: Wire, most_bytes: int = 1000, idle_seconds: float = WAIT_SECONDS) -> bytes:
    async with asyncio.timeout(WAIT_SECONDS):
        return b"".join([piece async for piece in of.each(kept, most_bytes, idle_seconds)])


CHUNK = st.tuples(st.binary(min_size=1, max_size=40), st.sampled_from([b"%x", b"%X", b"00%x", b"%x;n", b'%x ;n="v"']))
FRAMED = st.lists(CHUNK, max_size=8)


@settings(deadline=None)
@given(
    FRAMED,
    st.sampled_from([ENDLESS, LENGTH, CHUNKS]),
    st.sampled_from([b"", b"x-trailer: 1\r\n", b"a: 1\r\nb: 2\r\n"]),
    st.integers(1, 60),
    st.integers(0, 60),
    st.integers(1, 50),
)
def test_a_body_is_what_was_sent_however_it_is_framed_and_cut(
    threads: ThreadPoolExecutor, chunks: Sequence[tuple[bytes, bytes]], framing: str, trailers: bytes, step: int, ahead: int, most: int
):
    plain = b"".join(data for data, _ in chunks)
    framed = b"".join(form % len(data) + b"\r\n" + data + b"\r\n" for data, form in chunks) + b"0\r\n" + trailers + b"\r\n"
    sent = (framed if framing == CHUNKS else plain) + (b"" if framing == ENDLESS else b"what follows is no part of it")

    async def run() -> bytes:
        length = len(plain) if framing == LENGTH else None
        async with wire(threads, sent[:ahead], length, chunked=framing == CHUNKS) as (found, theirs):
            for at in range(ahead, len(sent), step):
                theirs.sendall(sent[at : at + step])
            if framing == ENDLESS:
                theirs.shutdown(socket.SHUT_WR)
            return await body(found, most)

    assert asyncio.run(run()) == plain


@pytest.mark.asyncio
@pytest.mark.parametrize("pause", [1, 3, 7])
async def test_frames_that_come_byte_by_byte_with_pauses_are_read_all_the_same(threads: ThreadPoolExecutor, pause: int):
    sent = b"5\r\nhello\r\n6;x\r\n world\r\n0\r\n\r\n"
    async with wire(threads, chunked=True) as (found, theirs):
        reading = asyncio.create_task(body(found))
        for at in range(0, len(sent), pause):
            theirs.sendall(sent[at : at + pause])
            await asyncio.sleep(1.5 * http_wire.LINGER_SECONDS)
        assert await reading == b"hello world"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "sent",
    [
        b"x\r\n",
        b"\r\n",
        b"5\nhello",
        b"-1\r\n",
        b"0x5\r\nhello",
        b"5\r\nhelloo\r\n",
        b"5\r\nhello\n",
        b"5" * 9000,
        b"1;" + b"x" * 9000 + b"\r\n",
        b"0\r\n" + b"x\r\n" * 5000,
    ],
    ids=lambda sent: repr(sent[:20]),
)
async def test_what_is_not_framed_as_chunks_is_a_fault_of_the_peer(threads: ThreadPoolExecutor, sent: bytes):
    async with wire(threads, chunked=True) as (found, theirs):
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(PeerFailed, match="not that of chunks"):
            await body(found, 20_000)


@pytest.mark.asyncio
@pytest.mark.parametrize("framing", [LENGTH, CHUNKS])
async def test_what_came_before_a_cut_is_taken_before_the_cut_is_told(threads: ThreadPoolExecutor, framing: str):
    chunked, sent = framing == CHUNKS, b"b\r\nhello" if framing == CHUNKS else b"hello"
    async with wire(threads, length=None if chunked else 11, chunked=chunked) as (found, theirs):
        theirs.sendall(sent)
        theirs.close()
        taken = found.each(kept, 1000, WAIT_SECONDS)
        assert await anext(taken) == b"hello"
        with pytest.raises(PeerFailed, match=r"`http://peer.example` closed the connection in the middle"):
            await anext(taken)


@pytest.mark.asyncio
async def test_a_peer_that_its_kernel_gives_up_has_closed_the_connection(threads: ThreadPoolExecutor):
    near, far = given_up()
    near.setblocking(False)
    with far:
        found = Wire(Unread(200, {}, near.detach(), b"hello", 11, False, "http://peer.example"), threads)
        with pytest.raises(PeerFailed, match="closed the connection in the middle"):
            await body(found)
        found.close()


@pytest.mark.asyncio
async def test_a_peer_that_says_nothing_for_too_long_is_told_so(threads: ThreadPoolExecutor):
    async with wire(threads) as (found, theirs):
        theirs.sendall(b"hello")
        taken = found.each(kept, 1000, 0.05)
        assert await anext(taken) == b"hello"
        with pytest.raises(PeerFailed, match="stopped sending"):
            await anext(taken)


@pytest.mark.asyncio
async def test_little_is_handed_on_soon_and_much_as_soon_as_the_buffer_is_full(threads: ThreadPoolExecutor):
    async with wire(threads) as (found, theirs):
        taken = found.each(kept, 100_000, WAIT_SECONDS)
        theirs.sendall(b"little")
        async with own_patience(1):
            assert await anext(taken) == b"little"
        await asyncio.get_running_loop().run_in_executor(None, theirs.sendall, b"x" * 150_000)
        assert [len(await anext(taken)) for _ in range(2)] == [100_000, 50_000]
        await taken.aclose()


@pytest.mark.asyncio
async def test_there_is_room_for_much_once_much_has_come(threads: ThreadPoolExecutor):
    room, most = list[int](), 4 * http_wire.FIRST_BYTES

    def take(buffer: bytearray, size: int) -> int:
        room.append(len(buffer))
        return size

    def pour(into: socket.socket) -> None:
        with suppress(OSError):  # until nobody takes it
            while True:
                into.sendall(bytes(most))

    async with wire(threads) as (found, theirs):
        async with aclosing(found.each(take, most, WAIT_SECONDS)) as taken:
            theirs.sendall(b"x")
            assert await anext(taken) == 1
            pouring = asyncio.get_running_loop().run_in_executor(None, pour, theirs)
            async with asyncio.timeout(WAIT_SECONDS):
                while room[-1] != most:
                    await anext(taken)
        theirs.shutdown(socket.SHUT_RDWR)
        await pouring
    assert set(room) == {http_wire.FIRST_BYTES, most}


@pytest.mark.asyncio
async def test_a_thread_goes_on_while_nobody_asks_but_not_far(threads: ThreadPoolExecutor):
    took: list[bytes] = []

    def take(buffer: bytearray, size: int) -> bytes:
        took.append(kept(buffer, size))
        return took[-1]

    sent = bytes(range(200)) * 50
    async with wire(threads, length=len(sent)) as (found, theirs):
        theirs.sendall(sent)
        taken = found.each(take, 1000, WAIT_SECONDS)
        assert await anext(taken) == sent[:1000]
        async with asyncio.timeout(WAIT_SECONDS):
            while len(took) < http_wire.AHEAD:  # noqa: ASYNC110 - a thread tells nobody
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        assert len(took) <= 1 + http_wire.AHEAD
        assert b"".join([piece async for piece in taken]) == sent[1000:]


@pytest.mark.asyncio
async def test_nobody_is_held_while_nothing_comes(threads: ThreadPoolExecutor):
    """More answers than there are threads, all of them quiet: one more is served."""
    async with wire(threads) as (one, _), wire(threads) as (two, _), wire(threads, b"x", 1) as (three, _):
        quiet = [asyncio.create_task(body(each)) for each in (one, two)]
        await asyncio.sleep(0)
        assert await body(three) == b"x"
        for task in quiet:
            task.cancel()
        await asyncio.gather(*quiet, return_exceptions=True)


@pytest.mark.asyncio
async def test_who_sends_each_byte_in_a_frame_holds_no_thread_of_whoever_is_gone():
    flood = b"1\r\n.\r\n"
    loop = asyncio.get_running_loop()

    def pour(into: socket.socket) -> None:
        with suppress(OSError):  # until nobody takes it
            while True:
                into.sendall(flood * 100_000)

    with ThreadPoolExecutor(1) as source, ThreadPoolExecutor(1) as one:
        async with wire(one, chunked=True) as (found, theirs):
            pouring = loop.run_in_executor(source, pour, theirs)
            async with aclosing(found.each(kept, 1 << 26, WAIT_SECONDS)) as taken:
                assert (await anext(taken)).strip(b".") == b""
                task = asyncio.ensure_future(anext(taken))
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            found.close()
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    await loop.run_in_executor(one, bool)
            finally:
                theirs.shutdown(socket.SHUT_RDWR)
                await pouring


@pytest.mark.asyncio
async def test_the_connection_is_closed_once_the_thread_has_let_go_of_it(threads: ThreadPoolExecutor):
    begun, go_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(buffer: bytearray, size: int) -> bytes:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(WAIT_SECONDS)
        return kept(buffer, size)

    async with wire(threads) as (found, theirs):
        theirs.sendall(b"x")
        theirs.setblocking(False)
        async with aclosing(found.each(slow, 10, WAIT_SECONDS)) as taken:
            task = asyncio.ensure_future(anext(taken))
            await begun.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        found.close()
        with pytest.raises(BlockingIOError):  # it is still open
            theirs.recv(1)
        go_on.set()
        async with asyncio.timeout(WAIT_SECONDS):
            assert await loop.sock_recv(theirs, 1) == b""


@pytest.mark.asyncio
async def test_what_a_thread_fails_with_for_whoever_is_gone_is_nobody_s(threads: ThreadPoolExecutor):
    loop, begun, go_on, said = asyncio.get_running_loop(), asyncio.Event(), threading.Event(), list[object]()
    loop.set_exception_handler(lambda _, told: said.append(told))

    def failing(_buffer: bytearray, _size: int) -> bytes:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(WAIT_SECONDS)
        raise PeerFailed("nobody asks")

    async with wire(threads) as (found, theirs):
        theirs.sendall(b"x")
        async with aclosing(found.each(failing, 10, WAIT_SECONDS)) as taken:
            task = asyncio.ensure_future(anext(taken))
            await begun.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    go_on.set()
    await loop.run_in_executor(None, wait, [threads.submit(bool) for _ in range(2)])
    del found, taken, task
    gc.collect()
    await asyncio.sleep(0)
    assert said == []
