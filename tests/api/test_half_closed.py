"""Clients that end their half of a connection: what they have asked for whole is answered, half a request is refused, at every door."""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import trustme
from aiohttp import web

from tests.api.conftest import opened
from tests.api.test_data_hostile import LARGE
from tests.api.test_listener import issued, trusting
from tests.dataplane.reader import Wire, a_wire, request

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture(params=["sendfile", "pieces", "TLS"])
async def wire(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Wire]:
    async with a_wire(request.param, tmp_path, trustme.CA()) as one:
        await one.rig.publish(LARGE, stages=one.stages)
        yield one


def said(wire: Wire, *pieces: bytes) -> bytes:
    """All that comes back to these bytes, each sent by itself, and the end of our half."""
    at = urlsplit(wire.rig.url)
    with socket.create_connection(("127.0.0.1", at.port or 0), timeout=8) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if wire.tls is not None:
            return _said_by(wire.tls, str(at.hostname), raw, pieces)
        for piece in pieces:
            raw.sendall(piece)
        raw.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: raw.recv(65_536), b""))


def _said_by(tls: ssl.SSLContext, host: str, raw: socket.socket, pieces: tuple[bytes, ...]) -> bytes:
    """The same under TLS, whose half ends with a goodbye (RFC 8446, 6.1)."""
    come, go = ssl.MemoryBIO(), ssl.MemoryBIO()
    speaking, answer = tls.wrap_bio(come, go, server_hostname=host), bytearray()

    def until(step: Callable[[], Any]) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                raw.sendall(go.read())
                if piece := raw.recv(65_536):
                    come.write(piece)
                else:
                    come.write_eof()
            finally:
                raw.sendall(go.read())

    until(speaking.do_handshake)
    for piece in pieces:
        until(lambda piece=piece: speaking.write(piece))  # type: ignore[misc]
    with suppress(ssl.SSLWantReadError):  # it would wait for the goodbye of the other side
        speaking.unwrap()
    raw.sendall(go.read())
    with suppress(ssl.SSLZeroReturnError):  # its goodbye
        while piece := until(lambda: speaking.read(65_536)):
            answer += piece
        raise AssertionError("the connection ended without a goodbye")
    return bytes(answer)


async def statuses(wire: Wire, *pieces: bytes) -> list[int]:
    answer = await asyncio.to_thread(said, wire, *pieces)
    return [int(each) for each in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]


async def test_whole_requests_are_answered_and_the_connection_ends(wire: Wire):
    rig = wire.rig
    get, ranged = (request("GET", rig.endpoint, rig.authorization() | more) for more in ({}, {"Range": "bytes=-7"}))
    answer = await asyncio.to_thread(said, wire, get)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(LARGE)
    answer = await asyncio.to_thread(said, wire, ranged + get + ranged)
    assert answer.count(b"HTTP/1.1 ") == 3
    assert answer.endswith(LARGE[-7:])
    form = b"grant_type=refresh_token&refresh_token=x"
    head = request("POST", f"{rig.url}/token", {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(form))})
    assert await statuses(wire, head, form) == [401]


FORM = b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
HALVES: dict[str, tuple[bytes, ...]] = {
    "a letter": (b"G",),
    "a method": (b"GET",),
    "a line": (b"GET /data/x HTTP/1.1",),
    "a line and its end": (b"GET /data/x HTTP/1.1\r\n",),
    "half a header": (b"GET /data/x HTTP/1.1\r\nHost: ",),
    "all but the last line end": (b"GET /data/x HTTP/1.1\r\nHost: x\r\n",),
    "all but half of that": (b"GET /data/x HTTP/1.1\r\nHost: x\r\n\r",),
    "in two": (b"GET /data/x HT", b"TP/1.1\r\nHost: x\r\n"),
    "no body": (FORM + b"Content-Length: 9\r\n\r\n",),
    "half a body": (
        FORM + b"Content-Length: 9\r\n\r\na=",
        b"b",
    ),
    "half a chunk": (FORM + b"Transfer-Encoding: chunked\r\n\r\n9\r\na=",),
    "chunks without an end": (FORM + b"Transfer-Encoding: chunked\r\n\r\n3\r\na=b\r\n",),
}


async def test_half_a_request_is_refused_with_408_and_the_connection_ends(wire: Wire):
    assert {name: found for name, pieces in HALVES.items() if (found := await statuses(wire, *pieces)) != [408]} == {}


async def test_half_a_request_behind_a_whole_one_is_refused_after_that_is_answered(wire: Wire):
    whole = request("GET", wire.rig.endpoint, wire.rig.authorization() | {"Range": "bytes=-7"})
    found = {name: await statuses(wire, whole + pieces[0], *pieces[1:]) for name, pieces in HALVES.items()}
    assert {name: each for name, each in found.items() if each != [206, 408]} == {}


async def test_who_says_nothing_and_ends_gets_nothing(wire: Wire):
    for nothing in ((), (b"\r\n",)):
        assert await statuses(wire, *nothing) == []
    whole = request("GET", wire.rig.endpoint, wire.rig.authorization() | {"Range": "bytes=-7"})
    assert await statuses(wire, whole, b"\r\n") == [206]


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_an_answer_that_has_begun_and_waits_ends_with_a_client_that_may_be_gone_and_one_that_has_not_is_given(
    secure: bool, tmp_path: Path
):
    waits, over = asyncio.Event(), asyncio.Event()

    async def begun(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        transport = request.transport
        while transport is not None and not transport.is_closing():  # noqa: ASYNC110 - a transport tells nobody
            await asyncio.sleep(0.01)
        over.set()
        return response

    async def later(_request: web.Request) -> web.Response:
        await waits.wait()
        return web.Response(body=b"later")

    def routes(app: web.Application) -> None:
        app.router.add_get("/begun", begun)
        app.router.add_get("/later", later)

    authority = trustme.CA()
    door = issued(tmp_path, authority)
    tls, files = (trusting(authority), {"certificate": door.certificate, "key": door.key}) if secure else (None, {})
    async with opened(routes, **files) as listening:
        for path in ("begun", "later"):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", listening.port, ssl=tls, server_hostname="localhost" if tls else None
            )
            writer.write(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            if path == "begun":
                await reader.readuntil(b"first")
                writer.close()
                async with asyncio.timeout(20):
                    await over.wait()
            else:
                asyncio.get_running_loop().call_later(1.2, waits.set)
                if writer.can_write_eof():
                    writer.write_eof()
                async with asyncio.timeout(20):
                    assert b"later" in await reader.readuntil(b"later")
                writer.close()
