import asyncio
import datetime
import errno
import gzip
import hashlib
import os
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import pytest
import trustme
from aiohttp.abc import AbstractResolver, ResolveResult

from connector.adapters import peer_http
from connector.adapters.egress import Guard, guard
from connector.adapters.peer_http import READ_BUFFER_BYTES, HttpPeer
from connector.errors import ConnectorError, EgressDenied, PeerFailed, SettingsError

LOOPBACK = guard(["127.0.0.0/8", "::1/128"], True, ())
OPEN = Guard((), True, frozenset())  # every form of URL passes, so that the address alone decides
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Names(AbstractResolver):
    """Answers names from a table; a name with several answers gets the next one each time it is asked for."""

    def __init__(self, **names: list[list[str]]) -> None:
        self.names = names

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        if (answers := self.names.get(host.partition(".")[0].lower())) is None:
            raise OSError(f"no such name: {host}")
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            ResolveResult(hostname=host, host=each, port=port, family=socket.AF_INET6 if ":" in each else socket.AF_INET, proto=0, flags=0)
            for each in addresses
        ]

    async def close(self) -> None: ...


class Server:
    """Speaks bytes as its test says, and counts connections."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.connections = 0
        self.requests: list[bytes] = []
        self.closed = asyncio.Event()  # set when a client has gone

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self.closed.set()
            writer.close()


@asynccontextmanager
async def serving(
    handler: Handler, hosts: tuple[str, ...] = ("127.0.0.1",), tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Server, int]]:
    server, port = Server(handler), 0
    async with AsyncExitStack() as stack:
        for host in hosts:
            listener = await asyncio.start_server(server, host, port, ssl=tls)
            port = listener.sockets[0].getsockname()[1]
            stack.callback(listener.close)
        yield server, port


@asynccontextmanager
async def calling(guard: Guard = LOOPBACK, **options: object) -> AsyncIterator[HttpPeer]:
    peer = HttpPeer(guard, **options)  # type: ignore[arg-type]
    try:
        yield peer
    finally:
        await peer.close()


def saying(answer: bytes, seen: list[bytes] | None = None) -> Handler:
    """Answers every request on a connection alike."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if seen is not None:
                seen.append(head)
            writer.write(answer)
            await writer.drain()

    return handler


def response(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Length: {len(body)}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def until_the_client_goes(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


# Spellings of this machine, of its neighbours and of metadata services, as a peer could write them into a callback address.
# PORT is the port of the canary. `name.test` goes through the resolver below.
# fmt: off
SPELLINGS = [
    "http://127.0.0.1:PORT/", "http://127.0.0.2:PORT/", "http://127.255.255.254:PORT/", "http://127.0.0.1.:PORT/", "http://127.1:PORT/",
    "http://127.0.1:PORT/", "http://2130706433:PORT/", "http://0x7f000001:PORT/", "http://0x7f.0x0.0x0.0x1:PORT/",
    "http://017700000001:PORT/", "http://0177.0.0.1:PORT/", "http://0177.0.0.01:PORT/", "http://127.0.0.0x1:PORT/",
    "http://00127.0.0.1:PORT/", "http://0:PORT/", "http://0.0.0.0:PORT/", "http://0x0:PORT/", "http://00000000:PORT/",
    "http://[::1]:PORT/", "http://[0:0:0:0:0:0:0:1]:PORT/", "http://[0000::0001]:PORT/", "http://[::]:PORT/",
    "http://[::ffff:127.0.0.1]:PORT/", "http://[::FFFF:7F00:1]:PORT/", "http://[0:0:0:0:0:ffff:7f00:0001]:PORT/",
    "http://[::127.0.0.1]:PORT/", "http://[::ffff:0:127.0.0.1]:PORT/", "http://[64:ff9b::127.0.0.1]:PORT/",
    "http://[64:ff9b::7f00:1]:PORT/", "http://[64:ff9b:1::7f00:1]:PORT/", "http://[2002:7f00:1::]:PORT/",
    "http://[2001:0:7f00:1::]:PORT/", "http://[fe80::1]:PORT/", "http://[fe80::1%25lo]:PORT/", "http://[::1%25lo]:PORT/",
    "http://[::1%lo]:PORT/", "http://[fc00::1]:PORT/", "http://[ff02::1]:PORT/", "http://[::1:PORT/", "http://::1:PORT/",
    "http://localhost:PORT/", "http://LOCALHOST:PORT/", "http://localhost.:PORT/", "http://evil.test:PORT/", "http://EVIL.test:PORT/",
    "http://evil.test.:PORT/", "http://six.test:PORT/", "http://zero.test:PORT/", "http://mapped.test:PORT/", "http://nat.test:PORT/",
    "http://both.test:PORT/", "http://tunnel.test:PORT/", "http://linklocal.test:PORT/", "http://scoped.test:PORT/",
    "http://private.test:PORT/", "http://metadata.test:PORT/", "http://good.test:PORT@127.0.0.1:PORT/",
    "http://user:password@evil.test:PORT/", "http://@127.0.0.1:PORT/", "http://127.0.0.1:PORT@evil.test:PORT/",
    "http://good.test\\@127.0.0.1:PORT/", "http://good.test#@127.0.0.1:PORT/", "http://evil.test:PORT/#x",
    "http://127.0.0.1:PORT\\.good.test/", "http://①②⑦.0.0.1:PORT/", "http://127。0。0。1:PORT/", "http://ⓛocalhost:PORT/",
    "http://evil.test%00.good.test:PORT/", "http://%31%32%37.0.0.1:PORT/", "http://127.0.0.1%2f:PORT/", "http:127.0.0.1:PORT/",
    "http:/127.0.0.1:PORT/", "http:///127.0.0.1:PORT/", "//127.0.0.1:PORT/", "127.0.0.1:PORT", "HTTP://127.0.0.1:PORT/",
    "hTTp://[::1]:PORT/", "ws://127.0.0.1:PORT/", "tcp://127.0.0.1:PORT/", "unix://127.0.0.1:PORT/", "ftp://127.0.0.1:PORT/",
    "gopher://127.0.0.1:PORT/", "file:///etc/passwd", "javascript:alert(1)", "https://127.0.0.1:PORT/", "https://[::1]:PORT/",
    "https://evil.test:PORT/", "https://localhost:PORT/", "http://127.0.0.1:0PORT/", "http://127.0.0.1:+PORT/",
    "http://169.254.169.254/latest", "http://168.63.129.16/", "http://100.100.100.200/", "http://192.0.0.192/",
    "http://[fd00:ec2::254]/", "http://127.0.0.1",
]
# fmt: on
SPELLINGS += [
    "http://127.0.0.1:PORT/\r\nX: y",
    "http://127.0.0.1 :PORT/",
    "\thttp://127.0.0.1:PORT/",
    "http://127.0.0.1:PORT/\x00",
    "",
    " ",
    "http://",
]
ADDRESSES = {
    "good": [["8.8.8.8"]],
    "evil": [["127.0.0.1"]],
    "localhost": [["127.0.0.1", "::1"]],
    "six": [["::1"]],
    "zero": [["0.0.0.0"]],  # noqa: S104 - what a hostile name resolves to
    "mapped": [["::ffff:127.0.0.1"]],
    "nat": [["64:ff9b::7f00:1"]],
    "both": [["127.0.0.1", "::1", "127.0.0.2"]],
    "tunnel": [["2002:7f00:1::", "2001:0:7f00:1::"]],
    "linklocal": [["169.254.1.1"]],
    "scoped": [["fe80::1%lo"]],
    "private": [["10.0.0.1", "192.168.0.1", "fd00::1"]],
    "metadata": [["169.254.169.254"]],
}


def test_the_table_is_as_long_as_it_should_be():
    assert len(set(SPELLINGS)) == len(SPELLINGS) >= 60


@pytest.mark.asyncio
async def test_no_spelling_of_an_address_that_is_not_public_reaches_a_listening_canary():
    wrong = []
    async with (
        serving(saying(response(b"secret")), ("127.0.0.1", "::1")) as (canary, port),
        calling(OPEN, resolver=Names(**ADDRESSES), connect_seconds=1.0) as peer,
    ):
        for spelling in SPELLINGS:
            url = spelling.replace("PORT", str(port))
            for call in (peer.send("GET", url, headers={}), _read(peer, url), peer.send("POST", url, headers={}, body=b"{}")):
                try:
                    wrong.append((spelling, await call))
                except (EgressDenied, PeerFailed) as error:
                    if isinstance(error, PeerFailed) and ".test" not in spelling:
                        wrong.append((spelling, error.message))
        assert wrong == []
        assert canary.connections == 0


@pytest.mark.asyncio
async def test_the_canary_is_reached_once_its_network_is_allowed():
    async with serving(saying(response(b"hello")), ("127.0.0.1", "::1")) as (canary, port), calling(resolver=Names(**ADDRESSES)) as peer:
        for host in ("127.0.0.1", "[::1]", "evil.test", "six.test", "both.test"):
            assert (await peer.send("GET", f"http://{host}:{port}/", headers={})).body == b"hello"
        assert canary.connections == 5


@pytest.mark.asyncio
async def test_a_name_that_resolves_differently_the_second_time_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peer_http, "DNS_SECONDS", 0)
    rebinding = Names(rebind=[["127.0.0.7"], ["127.0.0.1"]])
    closing = response(b"good", Connection="close")
    async with (
        serving(saying(closing), ("127.0.0.7", "127.0.0.1")) as (server, port),
        calling(guard(["127.0.0.7/32"], True, ()), resolver=rebinding) as peer,
    ):
        assert (await peer.send("GET", f"http://rebind.test:{port}/", headers={})).body == b"good"
        with pytest.raises(EgressDenied, match=r"`http://rebind.test:[0-9]+` is not at a public address") as caught:
            await peer.send("GET", f"http://rebind.test:{port}/", headers={})
        assert "127.0.0.1" not in str(caught.value)
        assert server.connections == 1


@pytest.mark.asyncio
async def test_of_several_addresses_only_the_public_ones_are_dialled():
    async with (
        serving(saying(response(b"good")), ("127.0.0.7", "127.0.0.1")) as (server, port),
        calling(guard(["127.0.0.7/32"], True, ()), resolver=Names(mixed=[["127.0.0.1", "127.0.0.7"]])) as peer,
    ):
        assert (await peer.send("GET", f"http://mixed.test:{port}/", headers={})).body == b"good"
        assert server.connections == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_a_redirect_is_an_answer_and_is_not_followed(status: str):
    async with serving(saying(response(b"secret"))) as (canary, to):
        redirect = response(status=status, Location=f"http://127.0.0.1:{to}/secret")
        async with serving(saying(redirect)) as (_, port), calling() as peer:
            reply = await peer.send("POST", f"http://127.0.0.1:{port}/", headers={}, body=b"{}")
            async with peer.stream("GET", f"http://127.0.0.1:{port}/", headers={}) as download:
                assert download.status == reply.status == int(status[:3])
        assert canary.connections == 0


async def _read(peer: HttpPeer, url: str, idle_seconds: float = 5.0) -> bytes:
    async with peer.stream("GET", url, headers={}, idle_seconds=idle_seconds) as download:
        return b"".join([piece async for piece in download.chunks()])


@pytest.mark.asyncio
async def test_only_what_the_caller_says_is_sent():
    seen: list[bytes] = []
    async with serving(saying(response(b"", Set_Cookie="id=1; Path=/"), seen)) as (_, port), calling() as peer:
        url = f"http://127.0.0.1:{port}/a%2Fb/urn:uuid:1?q=%20+"
        for body in (None, b"{}"):
            await peer.send("POST", url, headers={"Authorization": "Bearer x"}, body=body)
    lines = [head.decode().split("\r\n")[:-2] for head in seen]
    assert [line[0] for line in lines] == ["POST /a%2Fb/urn:uuid:1?q=%20+ HTTP/1.1"] * 2
    expected = {f"Host: 127.0.0.1:{port}", "Authorization: Bearer x", "Accept-Encoding: identity"}
    assert [set(line[1:]) for line in lines] == [{*expected, f"Content-Length: {size}"} for size in (0, 2)]


@pytest.mark.asyncio
async def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch):
    async with serving(saying(response(b"proxy"))) as (canary, to), serving(saying(response(b"peer"))) as (_, port):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{to}")
        async with calling() as peer:
            assert (await peer.send("GET", f"http://127.0.0.1:{port}/", headers={})).body == b"peer"
        assert canary.connections == 0


@pytest.mark.asyncio
async def test_an_origin_whose_answer_was_garbled_is_dialled_anew_and_no_other():
    async with serving(saying(response(b"x"))) as (there, port), serving(saying(response(b"x"))) as (other, elsewhere), calling() as peer:
        peer.afresh("http://127.0.0.1:1/")
        urls = [f"http://127.0.0.1:{each}/" for each in (port, elsewhere)]

        async def ask() -> tuple[int, int]:
            for url in urls:
                assert (await peer.send("GET", url, headers={})).body == b"x"
                async with peer.stream("GET", url, headers={}) as download:
                    assert b"".join([piece async for piece in download.chunks()]) == b"x"
            return there.connections, other.connections

        assert [await ask(), await ask()] == [(2, 2)] * 2
        peer.afresh(f"{urls[0]}path?query")
        assert [await ask(), await ask()] == [(4, 2)] * 2


@pytest.mark.asyncio
async def test_headers_of_an_answer_have_lower_case_names_and_lists_are_joined():
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nLink: <a>\r\nLINK: <b>\r\nETag: x\r\n\r\n{}"
    async with serving(saying(answer)) as (_, port), calling() as peer:
        reply = await peer.send("GET", f"http://127.0.0.1:{port}/", headers={})
    assert (reply.status, reply.body) == (404, b"{}")
    assert reply.headers == {"content-length": "2", "link": "<a>, <b>", "etag": "x"}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "headers", [{"Authorization": "Bearer x\r\nX-Evil: 1"}, {"A": "\0"}, {"A b": "c"}, {"A:": "b"}, {"": "b"}, {"A": "\n"}]
)
async def test_a_header_that_would_be_two_is_not_sent(headers: dict[str, str]):
    async with serving(saying(response())) as (canary, port), calling() as peer:
        with pytest.raises(PeerFailed, match="nothing was sent"):
            await peer.send("GET", f"http://127.0.0.1:{port}/", headers=headers)
        assert canary.connections == 0


def chunked_for_ever(piece: bytes, pause_seconds: float = 0.0) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(pause_seconds)

    return handler


@pytest.mark.asyncio
@pytest.mark.parametrize("handler", [chunked_for_ever(b"x" * 4096), saying(response(b"x" * 20_000_000))])
async def test_an_answer_over_its_limit_is_cut_off_and_its_connection_closed(handler: Handler):
    async with serving(handler) as (server, port), calling() as peer:
        with pytest.raises(PeerFailed, match="answered with more than 1000 bytes"):
            await peer.send("GET", f"http://127.0.0.1:{port}/", headers={}, limit_bytes=1000)
        await asyncio.wait_for(server.closed.wait(), 5)


@pytest.mark.asyncio
async def test_the_limit_itself_and_an_own_limit_are_kept():
    async with serving(saying(response(b"x" * 1000))) as (_, port), calling(answer_bytes_max=999) as peer:
        url = f"http://127.0.0.1:{port}/"
        assert len((await peer.send("GET", url, headers={}, limit_bytes=1000)).body) == 1000
        with pytest.raises(PeerFailed, match="more than 999 bytes"):
            await peer.send("GET", url, headers={})


@pytest.mark.asyncio
async def test_a_bomb_stays_packed():
    bomb = response(gzip.compress(bytes(10_000_000)), Content_Encoding="gzip")
    async with serving(saying(bomb)) as (_, port), calling() as peer:
        with pytest.raises(PeerFailed, match="content encoding that was not asked for"):
            await peer.send("GET", f"http://127.0.0.1:{port}/", headers={})
        assert len(await _read(peer, f"http://127.0.0.1:{port}/")) < 10_000 * 2


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await until_the_client_goes(reader)


async def stalled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    await until_the_client_goes(reader)


@pytest.mark.asyncio
@pytest.mark.parametrize("handler", [silent, stalled, chunked_for_ever(b"x", 0.01)])
async def test_a_slow_answer_ends_at_the_total_time(handler: Handler):
    async with serving(handler) as (server, port), calling(total_seconds=0.15) as peer:
        with pytest.raises(PeerFailed, match=r"`http://127.0.0.1:[0-9]+` did not answer in time"):
            await peer.send("GET", f"http://127.0.0.1:{port}/secret", headers={})
        await asyncio.wait_for(server.closed.wait(), 5)


def raw(data: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()

    return handler


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "did not answer with HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "closed the connection in the middle"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "closed the connection in the middle"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n", "did not answer with HTTP|in the middle"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", "did not answer with HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 500 + b"\r\n", "did not answer with HTTP"),
    ],
)
async def test_what_is_no_answer_is_a_failure_of_the_peer(data: bytes, problem: str):
    async with serving(raw(data)) as (_, port), calling() as peer:
        for _ in range(2):
            with pytest.raises(PeerFailed, match=problem) as caught:
                await peer.send("GET", f"http://127.0.0.1:{port}/path?token=secret", headers={"Authorization": "Bearer secret"})
            assert "secret" not in str(caught.value)


@pytest.mark.asyncio
@pytest.mark.parametrize("said", [b"", b" ", b"identity", b"gzip, chunked", b"chunked\r\nTransfer-Encoding:"])
async def test_an_answer_in_an_encoding_that_says_no_end_is_none(said: bytes):
    """Whatever has come of it: where it was cut, it looks whole."""
    framed = b"5\r\nhello\r\n0\r\n\r\n" if b"chunked" in said else b"hello"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding:" + said + b"\r\nConnection: close\r\n\r\n"
    async with serving(raw(head + framed)) as (_, port), calling() as peer:
        url, refused = f"http://127.0.0.1:{port}/", "answered with a transfer encoding that was not asked for"
        with pytest.raises(PeerFailed, match=refused):
            await peer.send("GET", url, headers={})
        with pytest.raises(PeerFailed, match=refused):
            async with peer.stream("GET", url, headers={}):
                pass
        with pytest.raises(PeerFailed, match=refused):
            await peer.unread(url, headers={}, idle_seconds=5.0)


@pytest.mark.asyncio
async def test_who_is_dialled_while_all_connections_are_closed_is_dialled_anew(monkeypatch: pytest.MonkeyPatch):
    """As authorities are loaded for the first, a connector may be told to end."""
    async with calling() as peer:
        peer._open_session()

        async def loading(_origin: str) -> bool:
            await peer.close()
            return True

        monkeypatch.setattr(peer._tls, "of", loading)
        with pytest.raises(PeerFailed):
            async with peer.stream("GET", "http://127.0.0.1:9/", headers={}):
                pass


@pytest.mark.asyncio
async def test_where_nobody_listens_no_connection_is_made():
    async with serving(silent) as (_, port):
        pass
    async with calling(resolver=Names()) as peer:
        with pytest.raises(PeerFailed, match=r"no connection to `http://127.0.0.1:[0-9]+` could be made \(connection refused\): "):
            await peer.send("GET", f"http://127.0.0.1:{port}/", headers={})


@pytest.mark.asyncio
async def test_a_name_without_an_address_is_a_failure_of_the_peer():
    async with calling(OPEN, resolver=Names()) as peer:
        with pytest.raises(PeerFailed, match=r"the host of `http://absent.test` has no address; is its name right"):
            await peer.send("GET", "http://absent.test/", headers={})


@pytest.mark.asyncio
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_kept_connection_that_drops_is_a_failure_and_nothing_is_sent_twice(method: str):
    requests = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await reader.readuntil(b"\r\n\r\n")
        requests += 1
        if requests == 1:
            writer.write(response(b"first"))
            await reader.readuntil(b"\r\n\r\n")
            requests += 1

    async with serving(handler) as (server, port), calling() as peer:
        url = f"http://127.0.0.1:{port}/"
        assert (await peer.send(method, url, headers={})).body == b"first"
        with pytest.raises(PeerFailed, match="closed the connection without an answer"):
            await peer.send(method, url, headers={})
        assert (requests, server.connections) == (2, 1)


@pytest.mark.asyncio
async def test_connections_are_kept_and_their_number_is_not_bounded():
    together = asyncio.Barrier(90)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await together.wait()
            writer.write(response(b"x"))

    async with serving(handler) as (server, port), calling() as peer:
        for _ in range(2):
            await asyncio.gather(*(peer.send("GET", f"http://127.0.0.1:{port}/", headers={}) for _ in range(90)))
        assert server.connections == 90


@pytest.mark.asyncio
async def test_a_stream_delivers_every_byte_and_closes_nothing_early():
    body = b"0123456789abcdef" * 65_536 * 4
    async with serving(saying(response(body, ETag='"v1"', Content_Encoding="x"))) as (server, port), calling(answer_bytes_max=10) as peer:
        for _ in range(2):
            digest, size = hashlib.sha256(), 0
            async with peer.stream("GET", f"http://127.0.0.1:{port}/data", headers={"Range": "bytes=0-"}) as download:
                assert (download.status, download.headers["etag"]) == (200, '"v1"')
                async for piece in download.chunks():
                    digest.update(piece)
                    size += len(piece)
            assert (size, digest.digest()) == (len(body), hashlib.sha256(body).digest())
        assert server.connections == 1


@pytest.mark.asyncio
async def test_a_stream_reads_more_at_once_than_asyncio_does_by_itself():
    body = bytes(16 << 20)
    async with (
        serving(saying(response(body))) as (_, port),
        calling(answer_bytes_max=10) as peer,
        peer.stream("GET", f"http://127.0.0.1:{port}/data", headers={}) as download,
    ):
        connection = download._response.connection
        assert connection is not None
        assert connection.transport is not None
        assert getattr(connection.transport, "max_size", None) == READ_BUFFER_BYTES  # else asyncio calls it something else now
        assert sum([len(piece) async for piece in download.chunks()]) == len(body)


@pytest.mark.asyncio
async def test_leaving_a_stream_early_closes_its_connection():
    async with serving(chunked_for_ever(b"x" * 4096)) as (server, port), calling() as peer:
        async with peer.stream("GET", f"http://127.0.0.1:{port}/", headers={}) as download:
            assert (await anext(download.chunks())).startswith(b"x")
        await asyncio.wait_for(server.closed.wait(), 5)


@pytest.mark.asyncio
async def test_a_stream_has_no_total_time():
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        for _ in range(8):
            await asyncio.sleep(0.03)
            writer.write(b"x")

    async with serving(handler) as (_, port), calling(total_seconds=0.1) as peer:
        assert await _read(peer, f"http://127.0.0.1:{port}/", idle_seconds=5) == b"x" * 8


@pytest.mark.asyncio
async def test_a_stream_ends_when_nothing_arrives_any_more():
    async with serving(stalled) as (server, port), calling() as peer:
        with pytest.raises(PeerFailed, match="stopped sending in the middle"):
            await _read(peer, f"http://127.0.0.1:{port}/", idle_seconds=0.1)
        await asyncio.wait_for(server.closed.wait(), 5)
    async with serving(silent) as (_, port), calling() as peer:
        with pytest.raises(PeerFailed, match="did not answer in time"):
            await _read(peer, f"http://127.0.0.1:{port}/", idle_seconds=0.1)


@pytest.mark.asyncio
async def test_a_stream_that_is_cut_says_so():
    async with serving(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")) as (_, port), calling() as peer:
        with pytest.raises(PeerFailed, match="closed the connection in the middle"):
            await _read(peer, f"http://127.0.0.1:{port}/")


@pytest.mark.asyncio
async def test_an_error_of_the_reader_passes_through_a_stream_unchanged():
    async with serving(saying(response(b"x"))) as (_, port), calling() as peer:
        with pytest.raises(ZeroDivisionError):
            async with peer.stream("GET", f"http://127.0.0.1:{port}/", headers={}):
                raise ZeroDivisionError


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def tls_server(authority: trustme.CA, *hosts: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*hosts).configure_cert(context)
    return context


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem"


@pytest.mark.asyncio
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_an_authority_of_ours_is_trusted(authority: trustme.CA, ca_file: Path, version: ssl.TLSVersion):
    context = tls_server(authority, "127.0.0.1")
    context.minimum_version = context.maximum_version = version
    async with serving(saying(response(b"sealed")), tls=context) as (_, port), calling(ca_file=ca_file) as peer:
        assert (await peer.send("GET", f"https://127.0.0.1:{port}/", headers={})).body == b"sealed"
        assert await _read(peer, f"https://127.0.0.1:{port}/") == b"sealed"


@pytest.mark.asyncio
async def test_a_foreign_authority_and_another_host_are_refused(authority: trustme.CA, ca_file: Path):
    async with serving(saying(response()), tls=tls_server(trustme.CA(), "127.0.0.1")) as (_, port), calling(ca_file=ca_file) as peer:
        with pytest.raises(PeerFailed, match=r"TLS certificate of `https://127.0.0.1:[0-9]+` is not by an authority that we trust"):
            await peer.send("GET", f"https://127.0.0.1:{port}/", headers={})
    async with serving(saying(response()), tls=tls_server(authority, "other.example")) as (_, port), calling(ca_file=ca_file) as peer:
        with pytest.raises(PeerFailed, match="is for other names than that of this host"):
            await peer.send("GET", f"https://127.0.0.1:{port}/", headers={})
    async with serving(saying(response()), tls=tls_server(authority, "127.0.0.1")) as (_, port), calling() as peer:
        with pytest.raises(PeerFailed, match=r"authority that we trust; `egress\.ca_file` names further ones"):
            await peer.send("GET", f"https://127.0.0.1:{port}/", headers={})


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("begins", "ends", "says"), [(-2, -1, "has ended; its owner has to renew it"), (1, 2, "is not valid yet; compare")]
)
async def test_a_certificate_out_of_its_time_is_refused_as_such(authority: trustme.CA, ca_file: Path, begins: int, ends: int, says: str):
    now = datetime.datetime.now(datetime.UTC)
    times = {"not_before": now + datetime.timedelta(days=begins), "not_after": now + datetime.timedelta(days=ends)}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", **times).configure_cert(context)
    async with serving(saying(response()), tls=context) as (_, port), calling(ca_file=ca_file) as peer:
        with pytest.raises(PeerFailed, match=says):
            await peer.send("GET", f"https://127.0.0.1:{port}/", headers={})


@pytest.mark.asyncio
async def test_no_tls_before_1_2_is_spoken(authority: trustme.CA, ca_file: Path):
    context, lenient = tls_server(authority, "127.0.0.1"), ssl.create_default_context(cafile=ca_file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = lenient.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    for each in (context, lenient):
        each.set_ciphers("ALL:@SECLEVEL=0")
    async with serving(saying(response()), tls=context) as (server, port), calling(ca_file=ca_file) as peer:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=lenient)  # the server is really there
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.1"
        writer.close()
        with pytest.raises(PeerFailed, match=r"no (TLS )?connection to `https://127.0.0.1:[0-9]+` could be"):
            await peer.send("GET", f"https://127.0.0.1:{port}/", headers={})
        assert server.connections == 1


@pytest.mark.asyncio
async def test_https_is_never_given_up_for_http():
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.read(1))[0] == 22  # TLS 1.3, RFC 8446, 5.1: a handshake record, and nothing after our answer
        writer.write(response(b"plain"))

    async with serving(handler) as (server, port), calling() as peer:
        with pytest.raises(PeerFailed, match="no TLS connection"):
            await peer.send("GET", f"https://127.0.0.1:{port}/", headers={})
        assert server.connections == 1


@pytest.mark.parametrize("content", [None, b"", b"not PEM"])
def test_a_file_without_authorities_is_a_settings_error(tmp_path: Path, content: bytes | None):
    if content is not None:
        (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(SettingsError, match=r"`egress.ca_file` is `.*ca.pem`, which is not a PEM file"):
        HttpPeer(LOOPBACK, ca_file=tmp_path / "ca.pem")


def put_pair(ca: trustme.CA, directory: Path) -> dict[str, Path]:
    """A certificate by this authority in `directory`, as arguments of `HttpPeer`."""
    made = ca.issue_cert("connector@biopharma.example")
    files = {"certificate": directory / "client.pem", "key": directory / "client.key"}
    files["certificate"].write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))
    files["key"].write_bytes(made.private_key_pem.bytes())
    return files


@pytest.mark.asyncio
async def test_a_peer_that_asks_for_a_certificate_is_shown_ours_and_a_renewed_one_from_the_next_connection_on(
    authority: trustme.CA, ca_file: Path, tmp_path: Path
):
    ours, later = trustme.CA(), trustme.CA()
    context = tls_server(authority, "127.0.0.1")
    ours.configure_trust(context)
    later.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    shown: list[bytes] = []

    async def handler(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        writer.write(response(b"sealed"))

    files = put_pair(ours, tmp_path)
    async with serving(handler, tls=context) as (_, port):
        url = f"https://127.0.0.1:{port}/"
        async with calling(ca_file=ca_file) as nobody:
            with pytest.raises(PeerFailed):
                await nobody.send("GET", url, headers={})
        async with calling(ca_file=ca_file, **files) as peer:
            assert (await peer.send("GET", url, headers={})).body == b"sealed"
            assert peer.renew() == []
            put_pair(later, tmp_path)
            assert (await peer.send("GET", url, headers={})).body == b"sealed"
            files["key"].write_text("words")
            with pytest.raises(SettingsError, match=r"`egress\.certificate` .*cannot be used with `egress\.key`"):
                peer.renew()
            assert (await peer.send("GET", url, headers={})).body == b"sealed"
            put_pair(ours, tmp_path)
            assert peer.renew() == ["egress.certificate: loaded again"]
    assert len(shown) == 3
    assert shown[0] != shown[1] == shown[2]


def refuse_one(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Shake hands as OpenSSL does it, and let its alert arrive."""
    plain, _ = listener.accept()
    with plain:
        secure = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        with secure:
            with pytest.raises(ssl.SSLError):
                secure.do_handshake()
            socket.socket.shutdown(secure, socket.SHUT_WR)
            while socket.socket.recv(secure, 65536):
                pass


@pytest.mark.asyncio
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("shown", ["none", "of somebody else"])
async def test_a_peer_that_does_not_take_our_certificate_is_named_with_what_it_says(
    authority: trustme.CA, ca_file: Path, tmp_path: Path, shown: str, method: str, version: ssl.TLSVersion
):
    context = tls_server(authority, "127.0.0.1")
    trustme.CA().configure_trust(context)
    context.verify_mode, context.minimum_version, context.maximum_version = ssl.CERT_REQUIRED, version, version
    files = {} if shown == "none" else put_pair(trustme.CA(), tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/secret"
        async with calling(ca_file=ca_file, **files) as peer:
            refusing = asyncio.create_task(asyncio.to_thread(refuse_one, listener, context))
            with pytest.raises(PeerFailed) as caught:
                await peer.send(method, url, headers={}, body=b"message" if method == "POST" else None)
            await refusing
    said = {
        "none": "may want a certificate of ours" if version == ssl.TLSVersion.TLSv1_2 else "demands a TLS certificate of us",
        "of somebody else": "refuses our TLS certificate: it does not know the authority; see `egress.certificate`",
    }
    assert said[shown] in caught.value.message
    assert "secret" not in caught.value.message


def test_a_certificate_of_ours_that_cannot_be_used_is_a_settings_error(tmp_path: Path):
    files = put_pair(trustme.CA(), tmp_path)
    other = trustme.CA().issue_cert("localhost")
    files["key"].write_bytes(other.private_key_pem.bytes())
    with pytest.raises(SettingsError, match=r"`egress\.certificate` is `.*client.pem`, which cannot be used with `egress\.key`"):
        HttpPeer(LOOPBACK, **files)


@pytest.mark.asyncio
async def test_a_client_that_was_never_used_closes_and_check_needs_no_session():
    peer = HttpPeer(Guard())
    with pytest.raises(ConnectorError):
        peer.check("http://127.0.0.1/")
    await peer.close()


BODY = b"x" * 200_000
ENDLESS = b"HTTP/1.1 200 OK\r\n"
CHUNKED = ENDLESS + b"Transfer-Encoding: chunked\r\n\r\n30d40\r\n" + BODY + b"\r\n0\r\n\r\n"


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", [CHUNKED, ENDLESS + b"\r\n" + BODY, response(b"whole already"), response()], ids=len)
async def test_a_connection_whose_bytes_are_not_those_of_a_body_to_come_is_not_given_away(answer: bytes):
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    async with AsyncExitStack() as stack:
        _, port = await stack.enter_async_context(serving(handler))
        peer = await stack.enter_async_context(calling())
        async with peer.stream("GET", f"http://127.0.0.1:{port}/", headers={}) as incoming:
            assert incoming.detach() is None
            assert answer.endswith(body := b"".join([piece async for piece in incoming.chunks()])) or body == BODY


@pytest.mark.asyncio
async def test_a_connection_under_tls_is_not_given_away(tmp_path: Path):
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with AsyncExitStack() as stack:
        _, port = await stack.enter_async_context(serving(saying(response(BODY)), tls=context))
        peer = await stack.enter_async_context(calling(ca_file=tmp_path / "ca.pem"))
        async with peer.stream("GET", f"https://127.0.0.1:{port}/", headers={}) as incoming:
            assert incoming.detach() is None
            assert b"".join([piece async for piece in incoming.chunks()]) == BODY


@pytest.mark.asyncio
async def test_a_connection_that_cannot_be_given_away_for_want_of_a_descriptor_is_read_on(monkeypatch: pytest.MonkeyPatch):
    def none(_descriptor: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with AsyncExitStack() as stack:
        _, port = await stack.enter_async_context(serving(saying(response(BODY))))
        peer = await stack.enter_async_context(calling())
        incoming = await stack.enter_async_context(peer.stream("GET", f"http://127.0.0.1:{port}/", headers={}))
        with monkeypatch.context() as short:
            short.setattr(os, "dup", none)
            assert incoming.detach() is None
        assert b"".join([piece async for piece in incoming.chunks()]) == BODY


@pytest.mark.asyncio
async def test_a_connection_that_is_given_away_is_its_new_holder_s_to_read_and_to_close():
    async with serving(saying(response(BODY))) as (server, port), calling() as peer:
        async with peer.stream("GET", f"http://127.0.0.1:{port}/", headers={}) as incoming:
            detached = incoming.detach()
            assert detached is not None
            assert (len(detached.ahead) + detached.left, detached.where) == (len(BODY), f"http://127.0.0.1:{port}")
        await peer.close()
        assert not server.closed.is_set()
        with socket.socket(fileno=detached.descriptor) as mine:
            left, rest = detached.left, b""
            while len(rest) < left:
                rest += await asyncio.get_running_loop().sock_recv(mine, 65536)
        assert detached.ahead + rest == BODY
        await asyncio.wait_for(server.closed.wait(), 5)


@pytest.mark.asyncio
@pytest.mark.parametrize("ends", ["an answer", "a cut", "a cancellation"])
async def test_what_is_uploaded_is_let_go_of_whoever_ends_the_request_in_the_middle_of_it(ends: str):
    waiting = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        waiting.set()
        await asyncio.Event().wait()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"first")
        if ends == "an answer":
            writer.write(response(status="409 Conflict"))
        elif ends == "a cut":
            writer.transport.abort()
        await until_the_client_goes(reader)

    async with serving(handler) as (_, port), calling() as peer, aclosing(body()) as pieces, asyncio.timeout(10):
        url = f"http://127.0.0.1:{port}/"
        sending = asyncio.create_task(peer.upload(url, pieces, 10, headers={}, idle_seconds=5.0, limit_bytes=100))
        await waiting.wait()
        if ends == "a cancellation":
            sending.cancel()
        (found,) = await asyncio.gather(sending, return_exceptions=True)
        if ends == "an answer":
            assert found.status == 409
        else:
            assert isinstance(found, PeerFailed if ends == "a cut" else asyncio.CancelledError)
