import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from aiohttp.http import HttpProcessingError

from connector.adapters_streams.peer_lines import Line, Lines

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
TLS = ssl.create_default_context()  # only a part of the key here: everything is in clear
REQUEST = b"GET / HTTP/1.1\r\nHost: peer.example\r\n\r\n"
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Peer:
    """A peer that answers each request with the next of `answers`, the last one again and again, and closes after `last` of them."""

    def __init__(self, *answers: bytes, last: int | None = None) -> None:
        self.answers, self.last = answers, last
        self.connections = 0
        self.closed = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        said = 0
        try:
            while said != self.last:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(self.answers[min(said, len(self.answers) - 1)])
                await writer.drain()
                said += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.closed.set()
            writer.close()


@asynccontextmanager
async def lines_to(peer: Handler, keep_seconds: float = 10.0, total_seconds: float = 5.0) -> AsyncIterator[tuple[Lines, str]]:
    server = await asyncio.start_server(peer, "127.0.0.1", 0)
    connector = aiohttp.TCPConnector(limit=0)
    lines = Lines(connector, aiohttp.ClientTimeout(total_seconds, 5), keep_seconds)
    try:
        yield lines, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        lines.close()
        await connector.close()
        server.close()


async def asked(lines: Lines, origin: str, *, bodies: bool = True) -> tuple[int, bytes, Line]:
    line = await lines.take(origin, TLS, bodies=bodies)
    try:
        head, content = await asyncio.wait_for(lines.ask(line, REQUEST), 5)
        return head.code, await asyncio.wait_for(content.read(), 5), line
    finally:
        lines.leave(line, origin, TLS)


@pytest.mark.asyncio
async def test_an_answer_is_whole_in_its_time_or_fails_and_one_that_was_taken_is_never_late():
    async def choosy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                if b"/silence" not in await reader.readuntil(b"\r\n\r\n"):
                    writer.write(WHOLE)
        writer.close()

    loop = asyncio.get_running_loop()
    async with lines_to(choosy, total_seconds=0.6) as (lines, origin):
        late, taken = await lines.take(origin, TLS), await lines.take(origin, TLS)
        begun, answer = loop.time(), lines.ask(late, REQUEST.replace(b"/", b"/silence", 1))
        _, body = await lines.ask(taken, REQUEST)
        assert await body.read() == b"hello"
        lines.leave(taken, origin, TLS)
        with pytest.raises(TimeoutError):
            await answer
        assert loop.time() - begun > 0.59
        lines.leave(late, origin, TLS)
        assert taken.free
        assert not late.free
        assert (await asked(lines, origin))[2] is taken
        assert not vars(lines)["_asked"]


@pytest.mark.asyncio
async def test_a_line_that_was_left_is_taken_again_and_one_that_is_in_use_is_not():
    peer = Peer(WHOLE)
    async with lines_to(peer) as (lines, origin):
        one, other = await lines.take(origin, TLS), await lines.take(origin, TLS)
        assert one is not other
        for line in (one, other):
            await line.ask(REQUEST)
            lines.leave(line, origin, TLS)
        assert [(await asked(lines, origin))[2] for _ in range(3)] == [other] * 3
        assert peer.connections == 2


@pytest.mark.asyncio
async def test_a_line_belongs_to_its_origin_and_to_the_certificates_it_was_made_with():
    peer = Peer(WHOLE)
    async with lines_to(peer) as (lines, origin):
        _, _, line = await asked(lines, origin)
        renewed = await lines.take(origin, ssl.create_default_context())
        elsewhere = await lines.take(origin.replace("127.0.0.1", "localhost"), TLS)
        assert len({line, renewed, elsewhere}) == 3


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (WHOLE + WHOLE, b"hello"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nhello", b""),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b""),
    ],
    ids=["said so", "HTTP 1.0", "two answers", "another protocol", "another protocol unnamed"],
)
async def test_a_line_whose_peer_says_that_it_is_the_last_or_says_too_much_is_not_taken_again(answer: bytes, body: bytes):
    peer = Peer(answer)
    async with lines_to(peer) as (lines, origin):
        for connections in (1, 2):
            _, said, line = await asked(lines, origin)
            await asyncio.wait_for(peer.closed.wait(), 5)
            assert (said, peer.connections, line.free) == (body, connections, False)
            peer.closed.clear()


@pytest.mark.asyncio
async def test_half_an_answer_too_many_fails_the_next_request_and_ends_the_line():
    peer = Peer(WHOLE + b"HTTP/1.1 4", WHOLE)
    async with lines_to(peer) as (lines, origin):
        _, _, line = await asked(lines, origin)
        with pytest.raises(HttpProcessingError):
            await asked(lines, origin)
        await asyncio.wait_for(peer.closed.wait(), 5)
        assert (line.free, (await asked(lines, origin))[1], peer.connections) == (False, b"hello", 2)


@pytest.mark.asyncio
async def test_trailers_of_an_answer_are_no_headers_of_the_next_one():
    peer = Peer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nContent-Encoding: gzip\r\n\r\n", WHOLE)
    async with lines_to(peer) as (lines, origin):
        assert (await asked(lines, origin))[:2] == (200, b"hello")
        line = await lines.take(origin, TLS)
        head, content = await asyncio.wait_for(lines.ask(line, REQUEST), 5)
        assert (dict(head.headers), await content.read(), peer.connections) == ({"Content-Length": "5"}, b"hello", 1)
        lines.leave(line, origin, TLS)


@pytest.mark.asyncio
async def test_bytes_that_nobody_asked_for_end_a_line_that_waits():
    unasked: list[asyncio.StreamWriter] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        unasked.append(writer)
        await peer(reader, writer)

    peer = Peer(WHOLE)
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with lines_to(peer) as (lines, _):
        origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asked(lines, origin)
        unasked[0].write(WHOLE.replace(b"hello", b"false"))
        await asyncio.wait_for(peer.closed.wait(), 5)
        assert (await asked(lines, origin))[:2] == (200, b"hello")
        assert peer.connections == 2
        server.close()


@pytest.mark.asyncio
async def test_an_interim_answer_is_not_the_answer():
    peer = Peer(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + WHOLE)
    async with lines_to(peer) as (lines, origin):
        assert [(await asked(lines, origin))[:2] for _ in range(2)] == [(200, b"hello")] * 2
        assert peer.connections == 1


@pytest.mark.asyncio
async def test_a_body_without_a_length_ends_with_its_connection():
    peer = Peer(b"HTTP/1.1 200 OK\r\n\r\nhello", last=1)
    async with lines_to(peer) as (lines, origin):
        assert (await asked(lines, origin))[:2] == (200, b"hello")


@pytest.mark.asyncio
@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_an_answer_that_has_no_body_by_its_status_leaves_its_line_free(status: str):
    peer = Peer(f"HTTP/1.1 {status}\r\nETag: x\r\n\r\n".encode())
    async with lines_to(peer) as (lines, origin):
        assert [(await asked(lines, origin))[:2] for _ in range(2)] == [(int(status[:3]), b"")] * 2
        assert peer.connections == 1


@pytest.mark.asyncio
async def test_the_answer_to_head_has_the_length_of_a_body_and_none():
    peer = Peer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    async with lines_to(peer) as (lines, origin):
        assert [(await asked(lines, origin, bodies=False))[:2] for _ in range(2)] == [(200, b"")] * 2


@pytest.mark.asyncio
async def test_a_line_that_nobody_takes_is_closed_after_its_time():
    peer = Peer(WHOLE)
    async with lines_to(peer, keep_seconds=0.05) as (lines, origin):
        await asked(lines, origin)
        await asyncio.wait_for(peer.closed.wait(), 5)


@pytest.mark.asyncio
async def test_a_line_that_its_peer_has_closed_meanwhile_is_not_taken():
    peer = Peer(WHOLE, last=1)
    async with lines_to(peer) as (lines, origin):
        for connections in (1, 2):
            assert (await asked(lines, origin))[:2] == (200, b"hello")
            await asyncio.wait_for(peer.closed.wait(), 5)
            await asyncio.sleep(0.01)  # until its word of it is here
            assert peer.connections == connections


@pytest.mark.asyncio
async def test_a_large_body_waits_for_its_reader_and_arrives_whole():
    body = bytes(range(256)) * 20_000
    peer = Peer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    async with lines_to(peer) as (lines, origin):
        for _ in range(2):
            line = await lines.take(origin, TLS)
            _, content = await line.ask(REQUEST)
            pieces = []
            while not content.at_eof():
                await asyncio.sleep(0)
                pieces.append(await content.readany())
            assert b"".join(pieces) == body
            lines.leave(line, origin, TLS)
        assert peer.connections == 1


@pytest.mark.asyncio
async def test_a_request_that_its_peer_does_not_read_goes_with_its_line():
    size, left, seen = 32 << 20, asyncio.Event(), asyncio.get_running_loop().create_future()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await left.wait()
        try:
            seen.set_result(len(await reader.read()))
        except ConnectionError:
            seen.set_result(0)
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with lines_to(Peer(WHOLE)) as (lines, _):
        origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        line = await lines.take(origin, TLS)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(line.ask(REQUEST + bytes(size)), 0.05)
        lines.leave(line, origin, TLS)
        left.set()
        assert await asyncio.wait_for(seen, 5) < size
        server.close()
