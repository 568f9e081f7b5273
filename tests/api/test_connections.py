"""The connections of a listener: how many, from where, how long unread, and that no answer names the software."""

import asyncio
import errno
import io
import os
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from connector import telemetry
from connector.api.connections import UNREAD_SECONDS, patient, site_of
from connector.api.middleware import guard, problem
from connector.api_management import events_api
from connector.records import Changes
from tests.api.conftest import opened, spoken
from tests.api.test_listener import issued, trusting
from tests.contracts.samples import fact
from tests.pair import TOKEN, running, site

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
UNREAD = 0.15  # seconds for a MiB
BIG = 3 * 1024 * 1024  # more than the kernel keeps for a reader with a small window


async def big(_request: web.Request) -> web.Response:
    return web.Response(body=bytes(BIG))


async def small(_request: web.Request) -> web.Response:
    return web.Response(body=bytes(20_000))


def at_root(handler: object) -> object:
    return lambda app: app.router.add_get("/", handler) and None


@asynccontextmanager
async def deaf(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that reads as little as a client can: nothing, but what its kernel takes for it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    named = {"ssl": tls, "server_hostname": "localhost"} if tls else {}
    reader, writer = await asyncio.open_connection(sock=sock, limit=1024, **named)  # type: ignore[arg-type]
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def drained(reader: asyncio.StreamReader) -> int:
    """How many bytes come until the connection is over."""
    count = 0
    with suppress(ConnectionError):
        while piece := await reader.read(65536):
            count += len(piece)
    return count


async def said_cut(log: io.StringIO) -> None:
    """Wait until the door has cut a connection."""
    async with asyncio.timeout(BIG / 2**20 * UNREAD + 5):
        while '"event":"connection cut"' not in log.getvalue():  # noqa: ASYNC110 - a log has no event to wait for
            await asyncio.sleep(0.01)


async def at_last(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask until it holds: what ends at the other side of a socket has no event here."""
    async with asyncio.timeout(20):
        while not await holds():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)


# ---- answers that nobody reads


@pytest.mark.asyncio
async def test_a_request_runs_in_the_task_of_its_connection_and_leaves_nothing_to_the_next_one():
    seen: list[tuple[object, str | None]] = []

    async def late(_request: web.Request) -> web.Response:
        seen.append((asyncio.current_task(), telemetry.traceparent.get()))
        with suppress(TimeoutError):  # a handler that is interrupted, as a stream is that is cut
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        return web.Response(text="late")

    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    traced = GET.replace(b"\r\n\r\n", f"\r\ntraceparent: {trace}\r\n\r\n".encode())
    tracing = telemetry.Tracing("test", 0.0)
    async with opened(at_root(late), [guard(tracing, "test", problem)]) as listening:
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.port)
        for request in (traced, GET, LAST):
            writer.write(request)
            async with asyncio.timeout(20):
                await reader.readuntil(b"late")
        writer.close()
    (task, first), *others = seen
    assert first is not None
    assert first[3:35] == "a" * 32
    assert all(each[1] is not None and each[1][3:35] != "a" * 32 for each in others), "a trace is that of its request"
    assert sys.version_info >= (3, 12) or {each[0] for each in others} == {task}


@pytest.mark.asyncio
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="aiohttp begins tasks at once there, whatever this connector does")
async def test_between_requests_that_come_in_one_piece_others_have_their_turn():
    turns, answered = 0, False

    async def at_once(_request: web.Request) -> web.Response:
        return web.Response(text="at once")

    def turn() -> None:
        nonlocal turns
        turns += 1
        if not answered:
            asyncio.get_running_loop().call_soon(turn)

    async with opened(at_root(at_once)) as listening:
        turn()
        answers = await spoken(listening.port, 500 * GET + LAST)
        answered = True
    assert answers.count(b"at once") == 501
    assert turns > 500


@pytest.mark.asyncio
async def test_a_connection_whose_task_is_cancelled_between_two_requests_is_closed_and_not_left_without_an_answer():
    async def cut(_request: web.Request) -> web.Response:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()  # as a stream is that is cut in its own step, and has nothing left to wait for
        task.uncancel()
        return web.Response(text="cut")

    async with opened(at_root(cut)) as listening:
        answer = await spoken(listening.port, GET)
    assert answer.endswith(b"cut")


@pytest.mark.asyncio
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_an_answer_that_nobody_reads_is_cut_after_its_time(tmp_path: Path, log: io.StringIO, secure: bool):
    authority = trustme.CA()
    door = issued(tmp_path, authority)
    files = {"certificate": door.certificate, "key": door.key} if secure else {}
    trust = trusting(authority) if secure else None
    async with opened(at_root(big), unread_seconds=UNREAD, idle_seconds=30.0, **files) as at, deaf(at.port, trust) as (reader, writer):
        begun = time.monotonic()
        writer.write(GET)
        await said_cut(log)
        assert time.monotonic() - begun > UNREAD
        assert await asyncio.wait_for(drained(reader), 5) < BIG, "what was not read is thrown away"


@pytest.mark.asyncio
async def test_a_rest_that_fits_into_a_buffer_is_cut_too(log: io.StringIO):
    """No writer has to wait for so little, and the plain close of an idle connection would wait for it for ever."""
    answering, wires = asyncio.Event(), set[asyncio.Transport]()

    async def answer(request: web.Request) -> web.Response:
        wires.update([request.transport] if request.transport else [])
        answering.set()
        return await small(request)

    async with opened(at_root(answer), unread_seconds=UNREAD) as at, deaf(at.port) as (reader, writer):
        asked, server = 0, at.runner.server
        assert server is not None
        async with asyncio.timeout(20):
            while not any(wire.get_write_buffer_size() for wire in wires):
                asked += 1
                answering.clear()
                writer.write(GET)
                await answering.wait()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        assert 0 < sum(wire.get_write_buffer_size() for wire in wires) < 20_000
        server.pre_shutdown()  # as when it was idle for too long, which it must not have been before
        await said_cut(log)
        assert await asyncio.wait_for(drained(reader), 5) < asked * 20_000
        await at_last(gone(server))


def gone(server: web.Server | None) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return server is not None and not server.connections

    return ask


@pytest.mark.asyncio
async def test_who_reads_slowly_but_reads_gets_all_of_it(log: io.StringIO):
    async with opened(at_root(big), unread_seconds=0.5) as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.write(LAST)
        count, begun = 0, time.monotonic()
        while piece := await reader.read(65_536):
            count += len(piece)
            await asyncio.sleep(0.01)
        assert count > BIG
        assert time.monotonic() - begun > 0.4, "not read at once"
        writer.close()
    assert "connection cut" not in log.getvalue()


@pytest.mark.asyncio
async def test_a_handler_may_ask_for_another_patience(log: io.StringIO):
    asked = {"seconds": 30.0}

    async def stream(request: web.Request) -> web.StreamResponse:
        patient(request, asked["seconds"])
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(bytes(65_536))
        return response

    async with opened(at_root(stream), unread_seconds=0.05) as at:  # type: ignore[arg-type]
        async with deaf(at.port) as (_, writer):
            writer.write(GET)
            await asyncio.sleep(0.3)  # six times what others have
            assert "connection cut" not in log.getvalue()
        asked["seconds"] = UNREAD
        async with deaf(at.port) as (reader, writer):
            writer.write(GET)
            await said_cut(log)
            await asyncio.wait_for(drained(reader), 5)


@pytest.mark.asyncio
async def test_a_reader_of_the_event_feed_may_pause_for_as_long_as_its_own_rule_says(
    tmp_path: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
):
    """Its patience is not that of the door, which has a minute here and is not what cuts."""
    assert UNREAD < UNREAD_SECONDS < events_api.EVENTS_UNREAD_SECONDS
    monkeypatch.setattr(events_api, "EVENTS_UNREAD_SECONDS", UNREAD)
    at = site(tmp_path / "a", "hospital")
    async with running(at) as us, deaf(us.connector.ports["management"]) as (reader, writer):
        facts = tuple(fact(detail={"text": "x" * 5_000}) for _ in range(BIG // 5_000))
        await us.connector.journal.commit(Changes(evidence=facts))
        writer.write(GET.replace(b"GET /", b"GET /v1/events").replace(b"Host", b"Authorization: Bearer %b\r\nHost" % TOKEN.encode()))
        await said_cut(log)
        assert await asyncio.wait_for(drained(reader), 5) < BIG
        assert (await us.asked("GET", "/self"))["name"] == "hospital"


# ---- how many


async def served(port: int, host: str = "127.0.0.1") -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(host, 0))
    try:
        writer.write(LAST)
        with suppress(ConnectionError):
            return b"200 OK" in await asyncio.wait_for(reader.read(), 5)
        return False
    finally:
        writer.close()


@pytest.mark.asyncio
async def test_one_address_cannot_take_all_places(log: io.StringIO):
    async with opened(at_root(small), connections=10, per_address=2) as at:  # type: ignore[arg-type]
        held = [await asyncio.open_connection("127.0.0.1", at.port) for _ in range(2)]
        assert not await served(at.port)
        assert not await served(at.port)
        assert await served(at.port, "127.0.0.2")
        assert log.getvalue().count("limits.connections_per_address") == 1, "a flood is one line"
        held.pop()[1].close()
        await at_last(lambda: served(at.port))
        held.pop()[1].close()


@pytest.mark.asyncio
async def test_who_comes_while_no_descriptor_is_left_is_sent_away_and_holds_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
):
    authority = trustme.CA()
    door = issued(tmp_path, authority)

    def none(_descriptor: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with opened(at_root(small), connections=2, per_address=2, certificate=door.certificate, key=door.key) as at:  # type: ignore[arg-type]
        with monkeypatch.context() as short:
            short.setattr(os, "dup", none)
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
                async with asyncio.timeout(5):
                    assert await drained(reader) == 0
                writer.close()
        assert log.getvalue().count("could not be taken over: Too many open files") == 1
        tls = {"ssl": trusting(authority), "server_hostname": "localhost"}
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port, **tls)  # type: ignore[arg-type]
        writer.write(LAST)
        assert await drained(reader) > 20_000
        writer.close()


@pytest.mark.asyncio
async def test_a_handshake_that_does_not_end_holds_a_place_and_gives_it_back(tmp_path: Path):
    authority = trustme.CA()
    door = issued(tmp_path, authority)

    async def shaken(port: int) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(authority), server_hostname="localhost")
        except (ssl.SSLError, ConnectionError):
            return False
        writer.close()
        with suppress(ssl.SSLError, ConnectionError):
            await writer.wait_closed()
        return True

    async with opened(at_root(small), connections=2, idle_seconds=30.0, certificate=door.certificate, key=door.key) as at:  # type: ignore[arg-type]
        held = [await asyncio.open_connection("127.0.0.1", at.port) for _ in range(2)]
        await asyncio.sleep(0)
        assert not await shaken(at.port), "both places are taken by who says nothing"
        held[0][1].close()
        held[1][1].write(b"no TLS at all, but plain words\r\n\r\n")
        with suppress(ConnectionError):
            await asyncio.wait_for(held[1][0].read(), 5)
        await at_last(lambda: shaken(at.port))
        for _ in range(5):  # neither a success nor a failure leaves anything behind
            with suppress(ConnectionError):
                await spoken(at.port, b"\x16\x03\x01" + bytes(100))
            await at_last(lambda: shaken(at.port))
        held[1][1].close()


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_one_peer_also_when_it_comes_mapped(address: object):
    assert site_of((str(address), 1)) == site_of((f"::ffff:{address}", 1, 0, 0)) == str(address)


@given(st.ip_addresses(v=6, network="2000::/3"), st.integers(0, 2**64 - 1), st.integers(0, 127))
def test_an_ipv6_address_counts_with_all_of_its_subnet(address: object, host: int, bit: int):
    number = int(address)  # type: ignore[call-overload]
    near, far = number >> 64 << 64 | host, number ^ 1 << bit
    named = [site_of((str(type(address)(each)), 1, 0, 0)) for each in (number, near, far)]  # type: ignore[call-arg]
    assert named[0] == named[1]
    assert (named[0] == named[2]) == (bit < 64)


def test_a_scoped_address_and_one_that_is_gone_have_a_name_too():
    assert site_of(("fe80::1%eth0", 1, 0, 2)) == "fe80::/64"
    assert site_of(None) == site_of("") == ""


# ---- who answers


async def broken(_request: web.Request) -> web.Response:
    raise ValueError("a defect")


@pytest.mark.asyncio
@pytest.mark.parametrize("guarded", [False, True], ids=["bare", "guarded"])
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (LAST, 200),
        (LAST.replace(b"GET /", b"GET /nothing"), 404),
        (LAST.replace(b"GET", b"PUT"), 405),
        (LAST.replace(b"GET /", b"GET /broken"), 500),
        (LAST.replace(b"Host", b"Expect: everything\r\nHost"), 417),
        (b"words\r\n\r\n", 400),
        (LAST.replace(b"Host: x", b"X: \0"), 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
)
async def test_no_answer_names_the_software(request_: bytes, status: int, guarded: bool):
    def routes(app: web.Application) -> None:
        app.router.add_get("/", small)
        app.router.add_get("/broken", broken)

    middlewares = [guard(telemetry.Tracing("test", 0.0), "management", problem)] if guarded else []
    async with opened(routes, middlewares) as at:
        said = await spoken(at.port, request_)
    head = said.partition(b"\r\n\r\n")[0]
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"aiohttp" not in said.replace(bytes(20_000), b"")
    assert not any(line.lower().startswith(b"server:") for line in said.split(b"\r\n"))
    if status != 200:
        length = next(int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        assert len(said) == len(head) + 4 + length, "whole, and nothing after it"
