"""The head of an answer is read and nothing of its body; whatever goes wrong before that ends the connection."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp.http import HttpProcessingError

from connector.adapters_streams.peer_unread import unread
from connector.errors import PeerFailed
from connector.ports.live import Unread

pytestmark = pytest.mark.asyncio
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
ENDLESS = HEAD + b"\r\n"
WAIT_SECONDS = 10.0


class Server:
    """Says `answer` to whoever asks, in `steps`, and stays; with `ends` it closes behind that."""

    def __init__(self, *steps: bytes, ends: bool = False) -> None:
        self.steps, self.ends = steps, ends
        self.asked: list[bytes] = []
        self.left = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append(await reader.readuntil(b"\r\n\r\n"))
        for step in self.steps:
            writer.write(step)
            await writer.drain()
            await asyncio.sleep(0.01)
        try:
            if not self.ends:
                await reader.read()
        except ConnectionError:
            pass
        writer.close()
        self.left.set()


@asynccontextmanager
async def asking(server: Server) -> AsyncIterator[Callable[..., "asyncio.Task[Unread | None]"]]:
    """A way to ask it. In the end it must have been left: no connection stays behind."""
    listening = await asyncio.start_server(server, "127.0.0.1", 0)
    connector = aiohttp.TCPConnector(limit=0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/lines?a=b"

    def ask(idle_seconds: float = WAIT_SECONDS, **headers: str) -> "asyncio.Task[Unread | None]":
        return asyncio.create_task(unread(connector, 5.0, url, headers, idle_seconds))

    try:
        yield ask
        if server.asked:
            async with asyncio.timeout(WAIT_SECONDS):
                await server.left.wait()
        assert not connector._acquired
    finally:
        await connector.close()
        listening.close()


async def got(asked: "asyncio.Task[Unread | None]") -> Unread:
    found = await asked
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("head", "length", "chunked"),
    [
        (ENDLESS, None, False),
        (HEAD + b"Content-Length: 70\r\n\r\n", 70, False),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", None, True),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ENDLESS, None, False),
        (b"HTTP/1.0 200 OK\r\nX: a\r\nX: b\r\n\r\n", None, False),
    ],
    ids=["endless", "length", "chunks", "hints before", "HTTP/1.0"],
)
@pytest.mark.parametrize("step", [1, 1000])
async def test_what_came_with_the_head_and_what_comes_after_it_are_the_body_as_it_was_sent(
    head: bytes, length: int | None, chunked: bool, step: int
):
    sent = head + b"the body"
    server = Server(*(sent[at : at + step] for at in range(0, len(sent), step)), b" and more", ends=True) if step > 1 else Server(sent)
    async with asking(server) as ask:
        found = await got(ask(Accept="application/x-ndjson"))
        with socket.socket(fileno=found.descriptor) as held:
            assert (found.status, found.length, found.chunked) == (200, length, chunked)
            body = found.ahead
            while len(body) < len(b"the body" if step == 1 else b"the body and more"):
                async with asyncio.timeout(WAIT_SECONDS):
                    body += await asyncio.get_running_loop().sock_recv(held, 100)
            assert body == (b"the body" if step == 1 else b"the body and more")
        assert server.asked[0].startswith(b"GET /lines?a=b HTTP/1.1\r\n")
        assert b"\r\nAccept: application/x-ndjson\r\n" in server.asked[0]
        assert b"\r\nAccept-Encoding: identity\r\n" in server.asked[0]


async def test_headers_have_lower_case_names_and_what_stands_twice_is_one_list():
    async with asking(Server(b"HTTP/1.1 404 Not Found\r\nX-One: a\r\nx-one: b\r\n\r\n")) as ask:
        found = await got(ask())
        os.close(found.descriptor)
        assert (found.status, found.headers) == (404, {"x-one": "a, b"})
        assert found.where.startswith("http://127.0.0.1:")


FAULTS: dict[str, tuple[Server, type[Exception]]] = {
    "no answer": (Server(ends=True), aiohttp.ServerDisconnectedError),
    "half a head": (Server(HEAD, ends=True), aiohttp.ServerDisconnectedError),
    "no HTTP": (Server(b"hello\r\n\r\n"), HttpProcessingError),
    "a length that is none": (Server(HEAD + b"Content-Length: x\r\n\r\n"), HttpProcessingError),
    "a head without an end": (Server(HEAD, b"X: y\r\n" * 20_000), HttpProcessingError),
    "answers before it without end": (Server(b"HTTP/1.1 100 Continue\r\n\r\n" * 33), HttpProcessingError),
    "silence": (Server(HEAD), TimeoutError),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_an_answer_that_is_none_ends_the_connection(fault: str):
    made, error = FAULTS[fault]
    server = Server(*made.steps, ends=made.ends)  # of this test's event loop
    async with asking(server) as ask:
        with pytest.raises(error):
            await ask(0.3 if fault == "silence" else WAIT_SECONDS)


async def test_whoever_waits_no_longer_leaves_nothing_behind():
    async with asking(server := Server(HEAD)) as ask:
        asked = ask()
        while not server.asked:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked


async def test_headers_that_http_cannot_carry_are_sent_to_nobody():
    async with asking(server := Server()) as ask:
        with pytest.raises(PeerFailed, match="nothing was sent"):
            await ask(Authorization="Bearer a\r\nX: y")
        assert server.asked == []


async def test_over_tls_nobody_is_asked():
    async with aiohttp.TCPConnector() as connector:
        assert await unread(connector, 5.0, "https://127.0.0.1:1/", {}, 1.0) is None
