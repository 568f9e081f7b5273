"""The transport of TLS connections: what asyncio promises of a transport, and that a thread it is lent to has it alone."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.api.secured import Secured
from tests.dataplane.rig import some_bytes
from tests.faults.patience import own_time

WAIT_SECONDS = 5.0
MUCH = some_bytes(8 * 1024 * 1024)  # more than both kernels hold


@cache
def authority() -> trustme.CA:
    return trustme.CA()


@cache
def server_side() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("localhost").configure_cert(context)
    return context


def client_side(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority().configure_trust(context)
    if version is not None:
        context.maximum_version = version
    return context


@dataclass
class Heard(asyncio.Protocol):
    """What the transport tells its protocol."""

    told: list[str] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    made: asyncio.Event = field(default_factory=asyncio.Event)
    fresh: asyncio.Event = field(default_factory=asyncio.Event)
    failures: list[OSError | None] = field(default_factory=list)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.told.append("made")
        self.made.set()

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.fresh.set()

    def eof_received(self) -> None:
        self.told.append("eof")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.told.append("lost")
        self.over.set()

    def failed(self, error: OSError | None) -> None:
        self.failures.append(error)
        self.over.set()

    async def has(self, count: int) -> bytes:
        async with asyncio.timeout(WAIT_SECONDS):
            while len(self.data) < count:
                self.fresh.clear()
                await self.fresh.wait()
        return bytes(self.data)


def pair_of_sockets() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection over TCP, with little room on the way."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        near = socket.socket()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        near.connect(listening.getsockname())
        return listening.accept()[0], near


def begun(sock: socket.socket, heard: Heard, **changed: Any) -> Secured:
    options = {"handshake_seconds": WAIT_SECONDS, "linger_seconds": WAIT_SECONDS, "failed": heard.failed} | changed
    secured = Secured(sock, server_side(), **options)
    secured.begin(heard)
    return secured


@dataclass
class Wire:
    """A connection: our end, and the client's."""

    secured: Secured
    heard: Heard
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self, count: int) -> bytes:
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.reader.readexactly(count)


@asynccontextmanager
async def connected(version: ssl.TLSVersion | None = None) -> AsyncIterator[Wire]:
    far, near = pair_of_sockets()
    heard = Heard()
    secured = begun(far, heard)
    near.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=near, ssl=client_side(version), server_hostname="localhost", limit=65_536)
    try:
        await heard.made.wait()
        yield Wire(secured, heard, reader, writer)
    finally:
        if not writer.is_closing():  # else it may have been closed twice, and Python before 3.11.4 cannot abort it then
            writer.transport.abort()
        secured.abort()
        async with asyncio.timeout(WAIT_SECONDS):
            await heard.over.wait()
        await asyncio.sleep(0)


@pytest.fixture(scope="module")
def threads() -> Any:
    with ThreadPoolExecutor(2) as executor:
        yield executor


# ---- what a transport promises


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 700_000), max_size=8), st.booleans())
def test_what_is_written_arrives_whole_and_in_order_and_so_does_what_is_sent(sizes: list[int], old: bool):
    async def run() -> None:
        async with connected(ssl.TLSVersion.TLSv1_2 if old else None) as wire:
            sent = [some_bytes(size, seed) for seed, size in enumerate(sizes)]
            for each in sent:
                wire.secured.write(each)
            assert await wire.read(sum(sizes)) == b"".join(sent)
            for each in sent:
                wire.writer.write(each)
            assert await wire.heard.has(sum(sizes)) == b"".join(sent)

    asyncio.run(run())


@pytest.mark.asyncio
async def test_what_was_written_is_sent_as_it_was_then():
    async with connected() as wire:
        changing = bytearray(MUCH)
        wire.secured.write(changing)
        changing[:] = bytes(len(changing))
        assert await wire.read(len(MUCH)) == MUCH


@pytest.mark.asyncio
async def test_a_reader_that_takes_nothing_makes_the_writer_wait_and_one_that_reads_makes_it_go_on():
    async with connected() as wire:
        wire.secured.set_write_buffer_limits(high=1, low=0)
        wire.secured.write(MUCH)
        assert wire.heard.told == ["made", "pause"]
        waiting = wire.secured.get_write_buffer_size()
        assert 0 < waiting <= len(MUCH)
        assert await wire.read(len(MUCH)) == MUCH
        assert wire.heard.told == ["made", "pause", "resume"]
        assert wire.secured.get_write_buffer_size() == 0


@pytest.mark.asyncio
async def test_nothing_is_heard_while_reading_is_paused():
    async with connected() as wire:
        wire.secured.pause_reading()
        assert not wire.secured.is_reading()
        wire.writer.write(b"early")
        await asyncio.sleep(0.05)  # ten times what it takes to arrive
        assert wire.heard.data == b""
        wire.secured.resume_reading()
        assert await wire.heard.has(5) == b"early"


@pytest.mark.asyncio
async def test_all_that_was_written_before_the_close_arrives_and_then_the_goodbye():
    async with connected() as wire:
        wire.writer.write(b"a body that nobody reads")  # a plain close would make the kernel take back what is under way
        wire.secured.write(MUCH)
        wire.secured.close()
        assert wire.secured.is_closing()
        wire.secured.write(b"too late")
        async with asyncio.timeout(WAIT_SECONDS):
            assert await wire.reader.read(-1) == MUCH
        wire.writer.close()
        async with asyncio.timeout(WAIT_SECONDS):
            await wire.heard.over.wait()
        assert wire.heard.told[-1] == "lost"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
@pytest.mark.asyncio
async def test_the_end_is_said_within_tls_so_that_nobody_else_can_say_it(version: ssl.TLSVersion):
    far, near = pair_of_sockets()
    heard = Heard()
    secured = begun(far, heard)

    def client() -> bytes:
        with client_side(version).wrap_socket(near, server_hostname="localhost", suppress_ragged_eofs=False) as tls:
            return tls.recv(5) + tls.recv(5)  # the second one raises if the connection ends without a goodbye

    reading = asyncio.create_task(asyncio.to_thread(client))
    await heard.made.wait()
    secured.write(b"whole")
    secured.close()
    async with asyncio.timeout(WAIT_SECONDS):
        assert await reading == b"whole"
        await heard.over.wait()
    await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_a_peer_that_does_not_say_goodbye_is_waited_for_no_longer_than_said():
    far, near = pair_of_sockets()
    heard = Heard()
    secured = begun(far, heard, linger_seconds=0.1)
    near.setblocking(False)
    _, writer = await asyncio.open_connection(sock=near, ssl=client_side(), server_hostname="localhost")
    await heard.made.wait()
    writer.transport.pause_reading()
    begun_at, within = time.monotonic(), own_time()
    secured.close()
    async with asyncio.timeout(WAIT_SECONDS):
        await heard.over.wait()
    assert 0.05 < time.monotonic() - begun_at < within(1)
    writer.transport.abort()
    await asyncio.sleep(0)


@pytest.mark.parametrize("how", ["says goodbye", "is gone"])
@pytest.mark.asyncio
async def test_a_client_that_ends_is_heard_of(how: str):
    async with connected() as wire:
        wire.writer.close() if how == "says goodbye" else wire.writer.transport.abort()
        async with asyncio.timeout(WAIT_SECONDS):
            await wire.heard.over.wait()
        assert wire.heard.told in (["made", "eof", "lost"], ["made", "lost"])
        assert wire.secured.is_closing()


@pytest.mark.parametrize(
    "said", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", bytes(1000)], ids=["nothing", "a part", "words", "zeros"]
)
@pytest.mark.asyncio
async def test_what_is_no_handshake_is_told_once_and_never_as_a_connection(said: bytes):
    far, near = pair_of_sockets()
    heard = Heard()
    begun(far, heard, handshake_seconds=0.1)
    with near:
        near.sendall(said)
        async with asyncio.timeout(WAIT_SECONDS):
            await heard.over.wait()
        await asyncio.sleep(0)
    assert (heard.told, len(heard.failures)) == ([], 1)
    assert far.fileno() == -1


@pytest.mark.asyncio
async def test_bytes_that_are_no_tls_end_the_connection():
    async with connected() as wire:
        raw = socket.socket(fileno=socket.dup(wire.writer.get_extra_info("socket").fileno()))
        with raw:
            raw.sendall(b"plain words where a record should be")
        async with asyncio.timeout(WAIT_SECONDS):
            await wire.heard.over.wait()
        assert wire.heard.data == b""


# ---- lending


class Work:
    """What a thread does with the socket: it sends `data`, and says when it began and when it let go."""

    def __init__(self, data: bytes, then: Callable[[], None] = lambda: None) -> None:
        self.data, self.then = data, then
        self.began, self.let_go = threading.Event(), threading.Event()
        self.open_at_the_end: bool | None = None

    def __call__(self, sock: ssl.SSLSocket) -> str:
        self.began.set()
        try:
            sock.sendall(self.data)
            self.then()
            return "sent"
        finally:
            time.sleep(0.05)  # long enough for whoever closes it under us
            self.open_at_the_end = sock.fileno() >= 0
            self.let_go.set()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
@pytest.mark.asyncio
async def test_what_a_thread_sends_stands_between_what_was_written_before_and_after(threads: Any, version: ssl.TLSVersion):
    async with connected(version) as wire:
        for _ in range(2):
            wire.secured.write(MUCH[:1_000_000])
            lent = asyncio.create_task(wire.secured.lend(Work(MUCH), threads))
            reading = asyncio.create_task(wire.read(1_000_000 + len(MUCH) + 5))
            assert await lent == "sent"
            wire.secured.write(b"after")
            assert await reading == MUCH[:1_000_000] + MUCH + b"after"


@pytest.mark.asyncio
async def test_what_comes_or_is_written_while_it_is_lent_waits_until_it_is_back(threads: Any):
    go = threading.Event()
    async with connected() as wire:
        work = Work(b"thread ", lambda: go.wait(WAIT_SECONDS) and None)
        lent = asyncio.create_task(wire.secured.lend(work, threads))
        await asyncio.to_thread(work.began.wait)
        wire.writer.write(b"early")
        wire.secured.write(b"loop")
        await asyncio.sleep(0.05)
        assert wire.heard.data == b""
        go.set()
        assert await lent == "sent"
        assert await wire.read(11) == b"thread loop"
        assert await wire.heard.has(5) == b"early"


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.asyncio
async def test_a_cancelled_loan_ends_at_once_and_only_when_the_thread_has_let_go(threads: Any, times: int):
    async with connected() as wire:
        work = Work(MUCH)
        lent = asyncio.create_task(wire.secured.lend(work, threads))
        await wire.read(100_000)  # and no more: the thread is in the middle of a write that would never end
        begun_at, within = time.monotonic(), own_time()
        for _ in range(times):
            lent.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await lent
        assert time.monotonic() - begun_at < within(1)
        assert work.let_go.is_set()
        assert work.open_at_the_end


@pytest.mark.parametrize("how", ["abort", "close", "the client"])
@pytest.mark.asyncio
async def test_a_socket_that_a_thread_uses_is_not_closed_under_it(threads: Any, how: str):
    """Its number could be another connection's a moment later."""
    async with connected() as wire:
        work = Work(MUCH)
        lent = asyncio.create_task(wire.secured.lend(work, threads))
        await wire.read(100_000)
        match how:
            case "abort":
                wire.secured.abort()
            case "close":
                wire.secured.close()
                assert await wire.read(len(MUCH) - 100_000) == MUCH[100_000:]
            case _:
                wire.writer.transport.abort()
        with suppress(OSError):
            assert await lent == "sent"
            assert how == "close"
        assert work.open_at_the_end
        wire.writer.transport.abort()
        async with asyncio.timeout(WAIT_SECONDS):
            await wire.heard.over.wait()
        await asyncio.sleep(0)
        assert wire.heard.told[-1] == "lost"


@pytest.mark.asyncio
async def test_a_connection_that_is_over_is_not_lent_and_what_the_thread_meets_is_raised(threads: Any):
    async with connected() as wire:

        def fails() -> None:
            raise LookupError("of its own")

        with pytest.raises(LookupError, match="of its own"):
            await wire.secured.lend(Work(b"", fails), threads)
        wire.secured.write(MUCH)
        lent = asyncio.create_task(wire.secured.lend(Work(b""), threads))
        await asyncio.sleep(0)
        wire.secured.abort()  # while it waits for what was written before
        with pytest.raises(ConnectionError):
            await lent
        with pytest.raises(ConnectionError):
            await wire.secured.lend(Work(b""), threads)
