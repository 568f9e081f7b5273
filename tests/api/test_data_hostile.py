"""Clients of the data listener that mean no good, or are too slow, or want old TLS: a clear 4xx or an end, never a 5xx, never a hang."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest
import pytest_asyncio
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.api import data_api
from tests.dataplane.reader import Wire, a_wire, connected, head, request
from tests.dataplane.rig import TRANSFER, Rig, provider, some_bytes

SMALL, LARGE = b"0123456789", some_bytes(1_000_000)  # under TLS, the large one goes out by a thread


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with provider(tmp_path) as one:
        await one.publish(SMALL)
        yield one


@pytest_asyncio.fixture(params=["sendfile", "TLS"])
async def wire(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Wire]:
    """Both ways out of the listener, each behind its own way in."""
    async with a_wire(request.param, tmp_path, trustme.CA()) as one:
        await one.rig.publish(LARGE)
        yield one


HOSTILE: dict[str, bytes] = {
    "two lengths": b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "length and chunks": b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "length below zero": b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\nabc",
    "encoding unknown": b"POST /token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\nabc",
    "chunk without size": b"POST /token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nabc\r\n0\r\n\r\n",
    "broken chunk after a good one": b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n3\r\na=b\r\nZZ\r\n",
    "space before colon": b"GET /data/x HTTP/1.1\r\nHost : x\r\n\r\n",
    "folded header": b"GET /data/x HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
    "zero byte in a header": b"GET /data/x HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
    "no host": b"GET /data/x HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /data/x HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "bare line ends": b"GET /data/x HTTP/1.1\nHost: x\n\n",
    "space in the path": b"GET /data/a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "raw bytes in the path": b"GET /data/\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "dots in the path": b"GET /data/../data/x HTTP/1.1\r\nHost: x\r\n\r\n",
    "escaped dots": b"GET /data/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "escaped slashes": b"GET /data/..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: x\r\n\r\n",
    "escaped zero": b"GET /data/%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "escaped no UTF-8": b"GET /data/%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n",
    "broken escape": b"GET /data/%zz HTTP/1.1\r\nHost: x\r\n\r\n",
    "double slash": b"GET //data/x HTTP/1.1\r\nHost: x\r\n\r\n",
    "another host's address": b"GET http://elsewhere.example/data/x HTTP/1.1\r\nHost: x\r\n\r\n",
    "tunnel": b"CONNECT elsewhere.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "star": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "method unknown": b"FOO /data/x HTTP/1.1\r\nHost: x\r\n\r\n",
    "method in small letters": b"get /data/x HTTP/1.1\r\nHost: x\r\n\r\n",
    "method not taken": b"DELETE /data/x HTTP/1.1\r\nHost: x\r\n\r\n",
    "method not taken at token": b"GET /token HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP of later": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP of never": b"GET /data/x HTTP/9.9\r\nHost: x\r\n\r\n",
    "no name for a host": b"GET /data/x HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a user at the host": b"GET /data/x HTTP/1.1\r\nHost: user@x\r\n\r\n",
    "HTTP of before": b"GET /data/x\r\n\r\n",
    "HTTP of later, framed as ours": b"GET /data/x HTTP/2.0\r\nHost: x\r\n\r\n",
    "chunks by HTTP/1.0": b"POST /token HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a coding before the chunks": b"POST /token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two tokens": b"GET /data/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
    "TLS at a plain door": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "a huge header": b"GET /data/x HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    "a huge path": b"GET /data/" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a great many headers": b"GET /data/x HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X%d: a\r\n" % n for n in range(20_000)) + b"\r\n",
    "an expectation unknown": b"POST /token HTTP/1.1\r\nHost: x\r\nExpect: tea\r\nContent-Length: 3\r\n\r\nabc",
    "upgrade": b"GET /data/x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "compressed form": b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    "strange media type": b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Type: \xff;;;=\r\nContent-Length: 3\r\n\r\nabc",
    "strange query": b"POST /token?%ff=%zz&a[]=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "strange trace": b"GET /data/x HTTP/1.1\r\nHost: x\r\ntraceparent: \xff-zz\r\n\r\n",
}


async def statuses(wire: Wire, sent: bytes) -> tuple[int, int]:
    """The status of the answer to `sent` and of one to a good request on another connection afterwards."""
    async with connected(wire.rig.url, wire.tls) as (stream, writer):
        writer.write(sent)
        status, _ = await head(stream)
    async with wire.reading(wire.rig.authorization()) as reader:
        return status, reader.status


@pytest.mark.asyncio
async def test_malformed_and_hostile_requests_get_a_clear_4xx_and_harm_nobody(wire: Wire):
    found = {name: await statuses(wire, sent) for name, sent in HOSTILE.items()}
    assert {name: each for name, each in found.items() if not 400 <= each[0] < 500 or each[1] != 200} == {}


def bodies() -> st.SearchStrategy[bytes]:
    noise = st.binary(max_size=60)
    lines = st.lists(st.sampled_from([b"Host: x", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Range: bytes=0-", b"\x00: \xff"]))
    first = st.sampled_from([b"GET /data/x HTTP/1.1", b"POST /token HTTP/1.1", b"HEAD /data/%ff HTTP/1.1", b"GET ?? HTTP/1.0", b"\x00"])
    return st.builds(lambda start, rest, tail: b"\r\n".join([start, *rest, b"", b""]) + tail, first, lines, noise)


def told(wire: Wire, sent: bytes) -> bytes:
    """What comes back to these bytes and an end without a goodbye. Half an end is something that TLS does not know: it says an
    error, after what was answered before."""
    at = urlsplit(wire.rig.url)
    answer = bytearray()
    with socket.create_connection(("127.0.0.1", at.port or 0), timeout=10) as raw:
        speaking = wire.tls.wrap_socket(raw, server_hostname=at.hostname) if wire.tls else raw
        with suppress(ConnectionError, ssl.SSLError), speaking:
            speaking.sendall(sent)
            socket.socket.shutdown(speaking, socket.SHUT_WR)
            while piece := speaking.recv(65_536):
                answer += piece
    return bytes(answer)


@pytest.mark.parametrize("kind", ["sendfile", "TLS"])
@settings(max_examples=15)
@given(st.lists(bodies(), min_size=10, max_size=10))
def test_no_bytes_at_all_are_answered_with_5xx(kind: str, tmp_path_factory: pytest.TempPathFactory, sent: list[bytes]):
    async def run() -> None:
        async with a_wire(kind, tmp_path_factory.mktemp("fuzz"), trustme.CA()) as wire:
            for each in sent:
                answer = await asyncio.to_thread(told, wire, each)
                assert not answer or 400 <= int(answer.split()[1]) < 500, (each, answer)

    asyncio.run(run())


@pytest.mark.asyncio
async def test_a_request_hidden_in_a_body_that_was_refused_is_never_answered(wire: Wire):
    hidden = request("GET", wire.rig.endpoint, wire.rig.authorization())
    for outer in ("DELETE /data/x", "POST /data/x", "PUT /token", "POST /elsewhere", "POST /token"):
        async with connected(wire.rig.url, wire.tls) as (stream, writer):
            writer.write(f"{outer} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(hidden)}\r\nConnection: close\r\n\r\n".encode() + hidden)
            async with asyncio.timeout(10):
                answer = await stream.read()
        assert answer.count(b"HTTP/1.") == 1, outer
        assert LARGE[:100] not in answer


@pytest.mark.asyncio
async def test_nothing_behind_a_request_that_two_could_read_as_two_is_answered(wire: Wire):
    """Whoever stands before us may have taken it for something else, and what follows for a part of that."""
    hidden = request("GET", wire.rig.endpoint, wire.rig.authorization())
    for name in (
        "HTTP of before",
        "HTTP of later, framed as ours",
        "chunks by HTTP/1.0",
        "a coding before the chunks",
        "two tokens",
        "no name for a host",
    ):
        async with connected(wire.rig.url, wire.tls) as (stream, writer):
            writer.write(HOSTILE[name] + hidden)
            async with asyncio.timeout(10):
                answer = await stream.read()
        assert answer.startswith(b"HTTP/1.1 400 "), name
        assert answer.count(b"HTTP/1.") == 1 + answer.count(b"no HTTP/1.1 request"), name
        assert LARGE[:100] not in answer


@pytest.mark.asyncio
async def test_a_request_hidden_in_the_body_of_one_that_is_served_is_never_answered(wire: Wire):
    """It waits unread while the answer goes out, by whatever way."""
    rig = wire.rig
    hidden = request("GET", rig.endpoint, rig.authorization())
    for framing in ({"Content-Length": str(len(hidden))}, {"Transfer-Encoding": "chunked"}):
        body = hidden if "Content-Length" in framing else b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden)
        async with connected(rig.url, wire.tls) as (stream, writer):
            writer.write(request("GET", rig.endpoint, rig.authorization() | framing | {"Connection": "close"}, body))
            async with asyncio.timeout(10):
                answer = await stream.read()
        assert answer.count(b"HTTP/1.1 ") == 1
        assert answer.endswith(LARGE)


@pytest.mark.asyncio
async def test_requests_that_come_while_an_answer_goes_out_are_answered_after_it_in_their_order(wire: Wire):
    rig = wire.rig
    ranges = ["bytes=0-", "bytes=1-", "bytes=-7", "bytes=5-600000"]
    async with connected(rig.url, wire.tls) as (stream, writer):
        writer.write(b"".join(request("GET", rig.endpoint, rig.authorization() | {"Range": each}) for each in ranges))
        for expected in (LARGE, LARGE[1:], LARGE[-7:], LARGE[5:600_001]):
            status, told = await head(stream)
            assert (status, int(told["content-length"])) == (206, len(expected))
            async with asyncio.timeout(10):
                assert await stream.readexactly(len(expected)) == expected


# --- slow clients


@pytest.mark.parametrize("kind", ["sendfile", "pieces", "TLS"])
@pytest.mark.asyncio
async def test_a_reader_that_takes_nothing_is_cut_and_frees_its_place(kind: str, tmp_path: Path):
    async with a_wire(kind, tmp_path, trustme.CA(), stall_seconds=0.15) as wire:
        await wire.rig.publish(some_bytes(8 * 1024 * 1024), stages=wire.stages)
        async with wire.reading(wire.rig.authorization()) as reader:
            await reader.take(100_000)
            async with asyncio.timeout(20):
                while wire.rig.flows.seen(TRANSFER).running:  # noqa: ASYNC110 - nobody tells when a stream ends
                    await asyncio.sleep(0.01)
            await reader.sip_to_the_end()
            assert len(reader.taken) < reader.announced


@pytest.mark.asyncio
async def test_a_form_that_does_not_arrive_is_given_up(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(data_api, "FORM_SECONDS", 0.2)
    opening = b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    chunked = b"Transfer-Encoding: chunked\r\n\r\n3\r\na=b\r\n"
    for rest, later in (
        (b"Content-Length: 20\r\n\r\ngrant_type=", b"a" * 9),
        (chunked, b"0\r\n\r\n"),
    ):
        async with connected(rig.url) as (stream, writer):
            writer.write(opening + rest)
            status, told = await head(stream)
            assert (status, told["connection"]) == (408, "close")
            assert orjson.loads(await stream.readexactly(int(told["content-length"])))["error"] == "invalid_request"
            writer.write(later + request("GET", rig.endpoint, rig.authorization()))
            async with asyncio.timeout(10):
                assert await stream.read() == b""  # the connection ends: what comes late is no request


# --- TLS


@pytest.mark.asyncio
async def test_data_goes_over_tls_1_2_and_1_3_and_not_over_1_1(tmp_path: Path):
    authority = trustme.CA()
    async with a_wire("TLS", tmp_path, authority) as wire:
        await wire.rig.publish(LARGE)

        async def spoken(version: ssl.TLSVersion) -> str | None:
            context = ssl.create_default_context()
            authority.configure_trust(context)
            context.set_ciphers("ALL:@SECLEVEL=0")  # a client that would take anything
            context.minimum_version = context.maximum_version = version
            async with connected(wire.rig.url, context) as (stream, writer):
                writer.write(request("GET", wire.rig.endpoint, wire.rig.authorization()))
                status, _ = await head(stream)
                assert (status, await stream.readexactly(len(LARGE))) == (200, LARGE)
                return writer.get_extra_info("ssl_object").version()

        assert await spoken(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        assert await spoken(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        with pytest.warns(DeprecationWarning, match="TLSv1_1"), pytest.raises((ssl.SSLError, ConnectionError)):
            await spoken(ssl.TLSVersion.TLSv1_1)
