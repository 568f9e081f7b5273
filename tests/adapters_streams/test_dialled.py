"""Whom we believe and for how long: certificates that are revoked, on every way on which we dial, and connections that end once they
would not be made any more."""

import asyncio
import io
import os
import re
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from functools import cache
from pathlib import Path

import pytest
import trustme

from connector import telemetry
from connector.adapters.egress import Guard, guard
from connector.adapters.peer_http import HttpPeer
from connector.adapters_streams import dialled
from connector.adapters_streams.mover import SpliceMover
from connector.errors import EgressDenied, PeerFailed, SettingsError
from tests.adapters.test_peer_http import BODY, calling, response, saying, serving, until_the_client_goes
from tests.api.test_listener import revoking

NOBODY = guard(["192.0.2.0/24"], True, ())
HERE = guard(["127.0.0.0/8", "::1/128"], True, ())
SOON = 1.0  # seconds: what may pass until a connection is over


async def sent(peer: HttpPeer, url: str) -> bytes:
    return (await peer.send("GET", url, headers={})).body


async def streamed(peer: HttpPeer, url: str) -> bytes:
    async with peer.stream("GET", url, headers={}, idle_seconds=5.0) as incoming:
        return b"".join([piece async for piece in incoming.chunks()])


async def uploaded(peer: HttpPeer, url: str) -> bytes:
    return (await peer.upload(url, nothing(), 0, headers={}, idle_seconds=5.0, limit_bytes=1 << 20)).body


async def nothing() -> AsyncIterator[bytes]:
    for piece in tuple[bytes]():
        yield piece


WAYS = (sent, streamed, uploaded)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    out = io.StringIO()
    telemetry.configure_logging("info", "json", out)
    yield out
    telemetry.configure_logging("info", "json")


@cache
def authorities() -> tuple[trustme.CA, trustme.CA, trustme.LeafCert]:
    root = trustme.CA()
    between = root.create_child_ca()
    return root, between, between.issue_cert("127.0.0.1", "localhost")


class Space:
    """A root that is trusted, an authority under it, the certificate of a server by that, and a file with lists."""

    def __init__(self, directory: Path) -> None:
        self.root, self.between, self.leaf = authorities()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.leaf.configure_cert(self.server)
        self.files = {"ca_file": directory / "ca.pem", "crl_file": directory / "revoked.pem"}
        self.root.cert_pem.write_to_path(str(self.files["ca_file"]))
        self.put(revoking(self.root), revoking(self.between))

    def put(self, *lists: bytes) -> None:
        """Put other lists in the place of those that are there, as whoever fetches them does."""
        new = self.files["crl_file"].with_suffix(".new")
        new.write_bytes(b"".join(lists))
        new.replace(self.files["crl_file"])


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return Space(tmp_path)


# ---- certificates of servers that are revoked

UNBELIEVED: dict[str, tuple[str, Callable[[Space], tuple[bytes, ...]]]] = {
    "the server's": ("is revoked, or that of an authority", lambda at: (revoking(at.root), revoking(at.between, at.leaf))),
    "the authority's": ("is revoked, or that of an authority", lambda at: (revoking(at.root, at.between), revoking(at.between))),
    "no list of the authority": ("has no list", lambda at: (revoking(at.root),)),
    "no list of the root": ("has no list", lambda at: (revoking(at.between),)),
    "a list that has ended": ("has ended; renew", lambda at: (revoking(at.root), revoking(at.between, first=-9, last=-1))),
    "a list from tomorrow": ("does not count yet", lambda at: (revoking(at.root), revoking(at.between, first=2))),
}


@pytest.mark.asyncio
@pytest.mark.parametrize(("said", "lists"), UNBELIEVED.values(), ids=UNBELIEVED)
async def test_whoever_is_revoked_or_may_be_gets_nothing_on_any_way_from_the_next_connection_on(
    space: Space, said: str, lists: Callable[[Space], tuple[bytes, ...]]
):
    seen: list[bytes] = []
    good = revoking(space.root), revoking(space.between)
    async with serving(saying(response(b"sealed"), seen), tls=space.server) as (_, port), calling(**space.files) as peer:
        url = f"https://127.0.0.1:{port}/"
        for count, way in enumerate(WAYS, 1):
            assert await way(peer, url) == b"sealed"
            space.put(*lists(space))
            with pytest.raises(PeerFailed, match=said) as refused:
                await way(peer, url)
            assert f"`https://127.0.0.1:{port}`" in refused.value.message
            assert len(seen) == count
            space.put(*good)


@pytest.mark.asyncio
async def test_a_list_that_its_authority_has_not_signed_says_nothing(space: Space):
    body = revoking(space.between)
    forged = bytearray(ssl.PEM_cert_to_DER_cert(body.decode().replace("X509 CRL", "CERTIFICATE")))
    forged[-1] ^= 1
    pem = ssl.DER_cert_to_PEM_cert(bytes(forged)).replace("CERTIFICATE", "X509 CRL")
    space.put(revoking(space.root), pem.encode())
    async with serving(saying(response()), tls=space.server) as (_, port), calling(**space.files) as peer:
        with pytest.raises(PeerFailed, match="TLS certificate of"):
            await sent(peer, f"https://127.0.0.1:{port}/")


@pytest.mark.asyncio
async def test_without_lists_nobody_is_revoked_and_without_tls_there_is_nothing_to_revoke(space: Space):
    space.put(revoking(space.root), revoking(space.between, space.leaf))
    async with serving(saying(response(b"sealed")), tls=space.server) as (_, port), calling(ca_file=space.files["ca_file"]) as peer:
        assert await sent(peer, f"https://127.0.0.1:{port}/") == b"sealed"
    async with serving(saying(response(b"open"))) as (_, port), calling(**space.files) as peer:
        assert await sent(peer, f"http://127.0.0.1:{port}/") == b"open"


@pytest.mark.parametrize("content", ["", "words", "a certificate", "a certificate and a list", "nothing"])
def test_what_is_no_list_of_revoked_certificates_is_named_with_its_setting(space: Space, content: str):
    cert = trustme.CA().cert_pem.bytes()
    contents = {"": b"", "words": b"words", "a certificate": cert, "a certificate and a list": revoking(space.root) + cert}
    if content == "nothing":
        space.files["crl_file"].unlink()
    else:
        space.put(contents[content])
    said = r"`egress\.crl_file` .*not a PEM file of lists of revoked certificates: .*; give a list"
    with pytest.raises(SettingsError, match=said):
        HttpPeer(HERE, **space.files)


@pytest.mark.asyncio
async def test_lists_that_cannot_be_read_leave_the_former_ones_in_force(space: Space):
    async with serving(saying(response()), tls=space.server) as (_, port), calling(**space.files) as peer:
        url = f"https://127.0.0.1:{port}/"
        space.put(revoking(space.root), revoking(space.between, space.leaf))
        assert peer.renew() == ["egress.certificate: loaded again"]
        space.put(b"words")
        with pytest.raises(SettingsError, match="crl_file"):
            peer.renew()
        with pytest.raises(PeerFailed, match="is revoked"):
            await sent(peer, url)


@pytest.mark.asyncio
async def test_other_lists_end_what_is_open_at_once_and_who_is_still_good_is_dialled_again(space: Space, log: io.StringIO):
    sealed, opened = saying(response(b"sealed")), saying(response(b"open"))
    async with AsyncExitStack() as stack:
        idle, port = await stack.enter_async_context(serving(sealed, tls=space.server))
        busy, other = await stack.enter_async_context(serving(beginning, tls=space.server))
        plain, third = await stack.enter_async_context(serving(opened))
        async with calling(**space.files) as peer:
            assert await sent(peer, f"https://127.0.0.1:{port}/") == b"sealed"
            assert await sent(peer, f"http://127.0.0.1:{third}/") == b"open"
            async with peer.stream("GET", f"https://127.0.0.1:{other}/", headers={}) as incoming:
                pieces = incoming.chunks()
                assert await anext(pieces) == b"first"
                space.put(revoking(space.root), revoking(space.between, trustme.CA().issue_cert("x")))
                peer.renew()
                async with asyncio.timeout(SOON):
                    with pytest.raises(PeerFailed, match="in the middle of its answer"):
                        await anext(pieces)
                    await asyncio.gather(idle.closed.wait(), busy.closed.wait())
            assert await sent(peer, f"https://127.0.0.1:{port}/") == b"sealed"
            assert not plain.closed.is_set()
    ended = [line for line in log.getvalue().splitlines() if "connection ended" in line]
    assert len(ended) == 2
    assert all("lists of revoked certificates have changed" in line for line in ended)


@pytest.mark.asyncio
async def test_a_connection_that_is_being_closed_keeps_no_other_from_being_ended(space: Space):
    """Python before 3.11.4 neither aborts one that was closed twice over TLS, nor says anything of it."""
    async with AsyncExitStack() as stack:
        first, port = await stack.enter_async_context(serving(beginning, tls=space.server))
        second, other = await stack.enter_async_context(serving(saying(response(b"sealed")), tls=space.server))
        async with calling(**space.files) as peer, peer.stream("GET", f"https://127.0.0.1:{port}/", headers={}) as incoming:
            assert await anext(incoming.chunks()) == b"first"
            ((*_, known),) = peer._open_session().connector._known.values()
            assert await sent(peer, f"https://127.0.0.1:{other}/") == b"sealed"
            known().close()
            known().close()
            space.put(revoking(space.root), revoking(space.between, trustme.CA().issue_cert("x")))
            peer.renew()
            async with asyncio.timeout(SOON):
                await asyncio.gather(first.closed.wait(), second.closed.wait())


@pytest.mark.asyncio
async def test_an_authority_that_is_taken_away_ends_what_it_vouched_for_and_vouches_for_nobody_again(space: Space, log: io.StringIO):
    async with AsyncExitStack() as stack:
        idle, port = await stack.enter_async_context(serving(saying(response(b"sealed")), tls=space.server))
        busy, other = await stack.enter_async_context(serving(beginning, tls=space.server))
        async with calling(ca_file=space.files["ca_file"]) as peer:
            assert await sent(peer, f"https://127.0.0.1:{port}/") == b"sealed"
            async with peer.stream("GET", f"https://127.0.0.1:{other}/", headers={}) as incoming:
                pieces = incoming.chunks()
                assert await anext(pieces) == b"first"
                space.files["ca_file"].write_bytes(trustme.CA().cert_pem.bytes())
                peer.renew()
                async with asyncio.timeout(SOON):
                    with pytest.raises(PeerFailed, match="in the middle of its answer"):
                        await anext(pieces)
                    await asyncio.gather(idle.closed.wait(), busy.closed.wait())
            with pytest.raises(PeerFailed, match="not by an authority that we trust"):
                await sent(peer, f"https://127.0.0.1:{port}/")
    ended = [line for line in log.getvalue().splitlines() if "connection ended" in line]
    assert len(ended) == 2
    assert all("trusted authorities" in line for line in ended)


@pytest.mark.asyncio
async def test_an_authority_more_ends_nothing(space: Space):
    async with serving(saying(response(b"sealed")), tls=space.server) as (server, port), calling(**space.files) as peer:
        assert await sent(peer, f"https://127.0.0.1:{port}/") == b"sealed"
        with space.files["ca_file"].open("ab") as more:
            more.write(trustme.CA().cert_pem.bytes())
        assert peer.renew() == ["egress.certificate: loaded again"]
        peer.guard = HERE
        await asyncio.sleep(0)
        assert not server.closed.is_set()


def test_an_authority_that_is_taken_away_while_it_is_loaded_counts_no_more_at_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    one, other = (trustme.CA().cert_pem.bytes() for _ in range(2))
    trusted, loaded = tmp_path / "ca.pem", dialled.client_tls
    trusted.write_bytes(one)
    trust = dialled.Trust(trusted, None, None, None)

    def meanwhile(*files: Path | None) -> ssl.SSLContext:
        context = loaded(*files)
        trusted.write_bytes(one)
        return context

    trusted.write_bytes(one + other)
    monkeypatch.setattr(dialled, "client_tls", meanwhile)
    trust.renew()
    believing = trust._files._value  # a look at the files goes before each use
    assert trust.counts(believing)
    monkeypatch.undo()
    assert trust.renew()
    assert not trust.counts(believing)


@pytest.mark.asyncio
async def test_the_authorities_of_the_system_are_read_for_the_first_that_is_dialled_over_tls_once_and_beside_the_loop(
    monkeypatch: pytest.MonkeyPatch,
):
    loaded, threads = dialled.client_tls, []

    def beside(*files: Path | None) -> ssl.SSLContext:
        threads.append(threading.get_ident())
        return loaded(*files)

    monkeypatch.setattr(dialled, "client_tls", beside)
    trust = dialled.Trust(None, None, None, None)
    assert await trust.of("http://a.example") is True
    assert (trust.renew(), threads) == (False, []), "without TLS nobody is to be believed"
    first, second = await asyncio.gather(trust.of("https://a.example"), trust.of("https://b.example"))
    assert isinstance(first, ssl.SSLContext)
    assert first is second is await trust.of("https://a.example")
    assert trust.counts(first)
    assert len(threads) == 1
    assert threads != [threading.get_ident()]


@pytest.mark.asyncio
@pytest.mark.parametrize("change", ["lists", "guard"])
async def test_what_changes_while_hands_are_shaken_counts_too(space: Space, change: str):
    async with serving(saying(response()), tls=space.server) as (server, port), calling(**space.files) as peer:

        def meanwhile(*_: object) -> None:
            if change == "guard":
                peer.guard = NOBODY
            else:
                space.put(revoking(space.root), revoking(space.between), revoking(trustme.CA()))
                peer.renew()

        space.server.sni_callback = meanwhile
        with pytest.raises(EgressDenied if change == "guard" else PeerFailed, match=r"not at a public address|lists of revoked .* changed"):
            await sent(peer, f"https://localhost:{port}/")
        async with asyncio.timeout(SOON):
            await server.closed.wait()


# ---- connections that would not be made any more


async def beginning(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Begins an answer, and is slow to go on."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(response(BODY)[: -len(BODY)] + b"first")
    await until_the_client_goes(reader)


def ended(log: io.StringIO, port: int) -> bool:
    """Whether it is said of whom a connection was ended, and why."""
    lines = [line for line in log.getvalue().splitlines() if "connection ended" in line]
    return bool(lines) and all(f"127.0.0.1:{port}" in line and "not at a public address" in line for line in lines)


@pytest.mark.asyncio
@pytest.mark.parametrize("way", [sent, streamed], ids=["message", "stream"])
async def test_a_line_that_nobody_speaks_on_is_closed_at_once_when_its_host_is_allowed_no_more(
    way: Callable[[HttpPeer, str], Awaitable[bytes]], log: io.StringIO
):
    async with serving(saying(response(b"here"))) as (server, port), calling() as peer:
        assert await way(peer, f"http://127.0.0.1:{port}/") == b"here"
        assert not server.closed.is_set()
        peer.guard = NOBODY
        async with asyncio.timeout(SOON):
            await server.closed.wait()
        with pytest.raises(EgressDenied):
            await way(peer, f"http://127.0.0.1:{port}/")
    assert ended(log, port)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "change", [NOBODY, guard(["127.0.0.0/8"], False, ()), guard(["127.0.0.0/8"], True, (443,))], ids=["networks", "http", "ports"]
)
async def test_a_stream_is_cut_when_its_host_its_port_or_http_is_allowed_no_more(change: Guard, log: io.StringIO):
    async with AsyncExitStack() as stack:
        server, port = await stack.enter_async_context(serving(beginning))
        peer = await stack.enter_async_context(calling())
        incoming = await stack.enter_async_context(peer.stream("GET", f"http://127.0.0.1:{port}/", headers={}))
        pieces = incoming.chunks()
        assert await anext(pieces) == b"first"
        peer.guard = change
        async with asyncio.timeout(SOON):
            with pytest.raises(PeerFailed, match="in the middle of its answer"):
                await anext(pieces)
            await server.closed.wait()
    assert "connection ended" in log.getvalue()


@pytest.mark.asyncio
async def test_a_message_and_an_upload_under_way_are_cut(log: io.StringIO):
    came = asyncio.Queue[None]()

    async def deaf(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        came.put_nowait(None)
        await until_the_client_goes(reader)

    async def endless() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async with serving(deaf) as (_, port), calling() as peer, aclosing(endless()) as body:
        url = f"http://127.0.0.1:{port}/"
        tasks = [
            asyncio.create_task(peer.send("POST", url, headers={}, body=b"x")),
            asyncio.create_task(peer.upload(url, body, 10, headers={}, idle_seconds=30.0, limit_bytes=10)),
        ]
        for _ in tasks:
            await came.get()
        peer.guard = NOBODY
        async with asyncio.timeout(SOON):
            found = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, PeerFailed) for each in found), found
    assert ended(log, port)


@pytest.mark.asyncio
async def test_a_socket_that_a_thread_reads_is_cut_too(tmp_path: Path, log: io.StringIO):
    async with serving(beginning) as (server, port), calling() as peer:
        async with peer.stream("GET", f"http://127.0.0.1:{port}/", headers={}) as incoming:
            detached = incoming.detach()
            assert detached is not None
        into = os.open(tmp_path / "part", os.O_RDWR | os.O_CREAT)
        mover = SpliceMover(detached, into, 30.0)
        try:
            move = mover.move(0, len(BODY), len(BODY))
            peer.guard = HERE
            assert not server.closed.is_set()
            peer.guard = NOBODY
            async with asyncio.timeout(SOON):
                with pytest.raises(PeerFailed, match="closed the connection"):
                    await move.finished
                await server.closed.wait()
        finally:
            await mover.close()
            os.close(into)
    assert ended(log, port)


@pytest.mark.asyncio
async def test_a_socket_of_what_never_ends_is_cut_too(log: io.StringIO):
    async with serving(beginning) as (server, port), calling() as peer:
        found = await peer.unread(f"http://127.0.0.1:{port}/", headers={}, idle_seconds=5.0)
        assert found is not None
        with socket.socket(fileno=found.descriptor) as mine:
            peer.guard = HERE
            assert not server.closed.is_set()
            peer.guard = NOBODY
            async with asyncio.timeout(SOON):
                while await asyncio.get_running_loop().sock_recv(mine, 65536):
                    pass
                await server.closed.wait()
    assert ended(log, port)


@pytest.mark.asyncio
async def test_whoever_is_still_allowed_keeps_what_is_open(log: io.StringIO):
    async with AsyncExitStack() as stack:
        _, port = await stack.enter_async_context(serving(beginning, hosts=("127.0.0.1", "127.0.0.2")))
        peer = await stack.enter_async_context(calling())
        urls = [f"http://127.0.0.{n}:{port}/" for n in (1, 2)]
        kept, cut = [(await stack.enter_async_context(peer.stream("GET", url, headers={}))).chunks() for url in urls]
        assert [await anext(kept), await anext(cut)] == [b"first", b"first"]
        peer.guard = guard(["127.0.0.1/32"], True, ())
        with pytest.raises(PeerFailed):
            await anext(cut)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(kept)
    assert log.getvalue().count("connection ended") == 1


@pytest.mark.asyncio
async def test_what_is_known_of_connections_does_not_grow_with_those_that_are_over(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dialled, "KNOWN_MIN", 4)

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response(b"here", Connection="close"))

    async with serving(once) as (server, port), calling() as peer:
        for _ in range(40):
            assert await sent(peer, f"http://127.0.0.1:{port}/") == b"here"
        assert server.connections == 40
        connector = peer._open_session().connector
        assert isinstance(connector, dialled.Dialled)
        connector._many = 4
        for _ in range(20):
            await sent(peer, f"http://127.0.0.1:{port}/")
            assert len(connector._known) <= 10


def test_a_descriptor_or_a_number_that_is_somebody_elses_by_now_is_left_alone():
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as near:
        far, _ = listening.accept()
        number, there = os.fstat(near.fileno()).st_ino, near.getpeername()
        with far:
            dialled._shut(near.fileno(), number + 1, there)
            dialled._shut(near.fileno(), number, ("127.0.0.1", 1))
            near.sendall(b"still there")
            assert far.recv(100) == b"still there"
            dialled._shut(near.fileno(), number, there)
            assert far.recv(100) == b""
        dialled._shut(10_000, number, there)


def test_nobody_else_dials():
    """What is not dialled through here is judged by nobody: the command line speaks to its own connector, and the demo to its own two."""
    root = Path(dialled.__file__).parents[1]
    dials = re.compile(r"ClientSession\(|aiohttp\.TCPConnector[()]|open_connection\(|urlopen\(|sock_connect\(|\.create_connection\(")
    found = {path.relative_to(root).as_posix() for path in root.rglob("*.py") if dials.search(path.read_text())}
    assert found == {"adapters/peer_http.py", "adapters_streams/dialled.py", "client/transport.py", "cli_demo/site.py"}
