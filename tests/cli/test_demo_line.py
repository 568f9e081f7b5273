"""The line of the demo: it carries what it is given, slowly, counts it, and can be cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import pytest_asyncio

from connector.cli.demo_line import PIECE_BYTES, Line
from tests.ports import free_ports

FAST = 1e9  # bytes a second: as good as no limit
BLOCK = bytes(range(256)) * 512  # 128 KiB in which every place differs from its neighbours


class Far:
    """What listens at the other end: it keeps what it hears, and says BLOCK once it has heard the end of a head."""

    def __init__(self) -> None:
        self.heard = b""
        self.connections = 0
        self.closed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while not self.heard.endswith(b"\r\n\r\n"):
                if not (piece := await reader.read(65536)):
                    return
                self.heard += piece
            writer.write(BLOCK)
            await writer.drain()
            await reader.read()  # the caller hangs up
        except ConnectionError:
            pass
        finally:
            self.closed.set()
            writer.close()


@pytest_asyncio.fixture
async def far() -> AsyncIterator[tuple[Far, int]]:
    one = Far()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    async with server:
        yield one, server.sockets[0].getsockname()[1]


@asynccontextmanager
async def asking(line: Line, head: bytes) -> AsyncIterator[asyncio.StreamReader]:
    """A connection over the line on which `head` was said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
    try:
        writer.write(head)
        await writer.drain()
        yield reader
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def hung_up(reader: asyncio.StreamReader) -> bool:
    """Whether the connection has ended, in whichever way."""
    try:
        while await reader.read(65536):
            pass
    except ConnectionError:
        return True
    return reader.at_eof()


@pytest.mark.asyncio
async def test_it_carries_both_ways_and_counts_what_comes_back(far: tuple[Far, int]):
    async with Line(far[1], FAST) as line:
        async with asking(line, b"GET / HTTP/1.1\r\n\r\n") as reader:
            assert await reader.readexactly(len(BLOCK)) == BLOCK
        await far[0].closed.wait()
    assert far[0].heard == b"GET / HTTP/1.1\r\n\r\n"
    assert line.carried_bytes == len(BLOCK)


@pytest.mark.asyncio
async def test_it_is_as_slow_as_it_should_be(far: tuple[Far, int]):
    began = asyncio.get_running_loop().time()
    async with Line(far[1], len(BLOCK) / 0.4) as line, asking(line, b"\r\n\r\n") as reader:
        assert await reader.readexactly(len(BLOCK)) == BLOCK
    before_the_last_piece = 0.4 * (1 - PIECE_BYTES / len(BLOCK))
    assert asyncio.get_running_loop().time() - began >= before_the_last_piece - 0.01


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("head", "offsets"),
    [
        (b"GET / HTTP/1.1\r\nRange: bytes=0-\r\nHost: x\r\n\r\n", [0]),
        (b"GET / HTTP/1.1\r\nHost: x\r\nrange: bytes=5308090-\r\n\r\n", [5308090]),
        (b"GET / HTTP/1.1\r\nIf-Range: bytes=7-\r\nX: Range: bytes=8-\r\n\r\n", []),
    ],
)
async def test_it_notes_from_where_a_request_goes_on(far: tuple[Far, int], head: bytes, offsets: list[int]):
    async with Line(far[1], FAST) as line, asking(line, head) as reader:
        await reader.readexactly(len(BLOCK))
    assert line.resumed_at == offsets


@pytest.mark.asyncio
async def test_a_cut_ends_both_sides_and_the_next_connection_is_carried(far: tuple[Far, int]):
    async with Line(far[1], len(BLOCK) / 30) as line:
        async with asking(line, b"\r\n\r\n") as reader:
            await reader.readexactly(PIECE_BYTES)
            line.cut()
            assert await hung_up(reader)
            await far[0].closed.wait()
            assert line.carried_bytes < len(BLOCK)
        far[0].heard = b""
        async with asking(line, b"\r\n\r\n") as reader:
            assert await reader.readexactly(PIECE_BYTES) == BLOCK[:PIECE_BYTES]
    assert far[0].connections == 2


@pytest.mark.asyncio
async def test_the_end_of_the_line_ends_what_is_on_it(far: tuple[Far, int]):
    line = await Line(far[1], len(BLOCK) / 30).__aenter__()
    async with asking(line, b"\r\n\r\n") as reader:
        await reader.readexactly(PIECE_BYTES)
        await line.__aexit__(None, None, None)
        assert await hung_up(reader)
        await far[0].closed.wait()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", line.port)


@pytest.mark.asyncio
async def test_where_nobody_listens_the_caller_sees_the_connection_end():
    async with Line(free_ports(1)[0], FAST) as line, asking(line, b"") as reader:
        assert await hung_up(reader)
    assert line.carried_bytes == 0
