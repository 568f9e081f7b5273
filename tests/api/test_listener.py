"""A listener: what it bounds, what it says to bytes that are no HTTP, its TLS, and its orderly end."""

import asyncio
import datetime
import gzip
import io
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from connector import telemetry
from connector.api import listener
from connector.api.listener import LINGER_SECONDS, REQUEST, REQUIRE, Door, other_names, tls_context
from connector.api.middleware import Handler
from connector.errors import SettingsError
from connector.values import replace
from tests.api.conftest import DOOR, opened, spoken
from tests.free_ports import free_ports
from tests.pair import call

IDLE = 0.2


async def hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


def routes(app: web.Application) -> None:
    app.router.add_get("/", hello)
    app.router.add_post("/", echo)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    out = io.StringIO()
    telemetry.configure_logging("debug", "json", out)
    yield out
    telemetry.configure_logging("info", "json")


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.asyncio
async def test_a_connection_that_comes_while_the_door_closes_is_closed_with_it(turns: int):
    """Between the kernel's handing it over and its first word here the loop turns, and the door may close in any of these."""
    async with opened(routes) as door:
        client = socket.create_connection(("127.0.0.1", door.port))
        for _ in range(turns):
            await asyncio.sleep(0)
    client.setblocking(False)
    with client:
        async with asyncio.timeout(20):
            with suppress(ConnectionError):
                assert await asyncio.get_running_loop().sock_recv(client, 1) == b""


# ---- what it bounds


@pytest.mark.asyncio
@pytest.mark.parametrize("drip", [b"", b"X", b"X-Slow: y\r\n"])
async def test_the_head_of_a_request_has_its_time_however_it_drips(drip: bytes):
    async with opened(routes, idle_seconds=IDLE) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        started = time.monotonic()

        async def dripping() -> None:
            while True:
                writer.write(drip)
                await asyncio.sleep(IDLE / 10)

        task = asyncio.create_task(dripping())
        try:
            async with asyncio.timeout(20):
                with suppress(ConnectionError):
                    assert await reader.read() == b""
            assert IDLE * 0.5 < time.monotonic() - started < IDLE * 10
        finally:
            task.cancel()
            writer.close()


@pytest.mark.asyncio
async def test_an_idle_connection_ends_and_one_in_use_stays():
    async with opened(routes, idle_seconds=IDLE) as door:
        assert await spoken(door.port, b"") == b""
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        for _ in range(6):  # together longer than the idle time
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(IDLE / 4)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


@pytest.mark.asyncio
async def test_connections_over_the_limit_are_closed_unheard_and_later_ones_are_served():
    async with opened(routes, connections=2) as door:
        held = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(2)]
        for reader, writer in held:
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"hello")
        with suppress(ConnectionError):
            assert await spoken(door.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") == b""
        held[0][1].write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await held[0][0].read()
        assert (await spoken(door.port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).endswith(b"hello")
        held[0][1].close()
        held[1][1].close()


@pytest.mark.asyncio
async def test_a_compressed_body_is_not_inflated():
    """Ten megabytes that arrive as ten kilobytes stay ten kilobytes; a handler has to refuse them, and can."""
    bomb = gzip.compress(b" " * 10_000_000)
    async with opened(routes) as door, aiohttp.ClientSession() as http:
        answer = await call(http, "POST", f"http://127.0.0.1:{door.port}/", bomb, {"Content-Encoding": "gzip"})
    assert answer.body == bomb


@pytest.mark.asyncio
async def test_a_body_that_nobody_reads_holds_its_connection_for_a_bounded_time():
    async def refuse(_request: web.Request) -> web.Response:
        return web.Response(status=400, text="no")

    async with opened(lambda app: app.router.add_post("/", refuse) and None) as door:
        started = time.monotonic()
        said = await spoken(door.port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{", LINGER_SECONDS + 5)
    assert said.endswith(b"no")
    assert time.monotonic() - started < LINGER_SECONDS + 2


# ---- what is no HTTP

SECRET = b"s3cret-t0ken"
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + SECRET + b"\r\n"
NO_HTTP = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + SECRET + b"\r\n\r\n",
    "words": SECRET + b"\r\n\r\n",
    "another version": b"GET /" + SECRET + b" HTTP/9.9\r\n\r\n",
    "a line without end": b"GET /" + SECRET * 1000 + b" HTTP/1.1\r\n\r\n",
    "a path of bytes": b"GET /\xff" + SECRET + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header without end": HEAD + b"X: " + b"a" * 20_000 + b"\r\n\r\n",
    "a thousand headers": HEAD + b"".join(b"X%d: y\r\n" % n for n in range(1000)) + b"\r\n",
    "NUL in a header": HEAD.replace(SECRET, SECRET + b"\0") + b"\r\n",
    "a header without a name": HEAD + b": x\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length below zero": HEAD + b"Content-Length: -1\r\n\r\n{}",
    "a length and chunks": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks of no size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz" + SECRET + b"\r\n",
    "a chunk that is longer than it says": HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{" + SECRET + b"\r\n0\r\n\r\n",
}


@pytest.mark.asyncio
@pytest.mark.parametrize("name", NO_HTTP)
async def test_bytes_that_are_no_http_get_a_400_and_leave_no_secret_in_the_log(name: str, log: io.StringIO):
    async with opened(routes) as door:
        answer = await spoken(door.port, NO_HTTP[name])
        assert answer.split(b"\r\n")[0].split(b" ")[1] == b"400"
        assert (await spoken(door.port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).endswith(b"hello")
    assert SECRET.decode() not in log.getvalue()
    assert all('"event":"not served"' in line and '"door":"protocol"' in line for line in log.getvalue().splitlines())


# ---- TLS


def issued(directory: Path, authority: trustme.CA) -> Door:
    """A door with a certificate of its own in `directory`."""
    made = authority.issue_cert("localhost", "127.0.0.1")
    certificate, key = directory / "chain.pem", directory / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    key.write_bytes(made.private_key_pem.bytes())
    return Door("data", "127.0.0.1", 0, certificate, key, 5.0, 100, 100, 1 << 20, 20.0)


def trusting(authority: trustme.CA, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


async def handshake(port: int, context: ssl.SSLContext) -> tuple[str | None, bytes | None]:
    """The version that was agreed, and the certificate that was shown."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    shown = writer.get_extra_info("ssl_object")
    found = shown.version(), shown.getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return found


def test_a_door_without_a_certificate_speaks_no_tls():
    assert tls_context(DOOR) is None


def test_a_certificate_is_believed_by_its_alternative_names_and_by_those_alone(tmp_path: Path):
    made = trustme.CA().issue_cert("*.hospital.example", "127.0.0.1", common_name="hospital.example")
    made.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "pair.pem"))
    door = replace(DOOR, certificate=tmp_path / "pair.pem", key=tmp_path / "pair.pem")
    for name in ("a.hospital.example", "A.Hospital.Example", "127.0.0.1"):
        assert other_names(door, name) is None, name
    for name in ("hospital.example", "a.b.hospital.example", "localhost", "127.0.0.2", "::1", ".", "a" * 64, "\udc80"):
        assert other_names(door, name) == ("*.hospital.example", "127.0.0.1"), name


@pytest.mark.asyncio
async def test_tls_is_1_2_or_later_and_plain_http_gets_nowhere(tmp_path: Path):
    authority = trustme.CA()
    door = issued(tmp_path, authority)
    async with opened(routes, certificate=door.certificate, key=door.key) as at:
        for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
            assert (await handshake(at.port, trusting(authority, version)))[0] == name
        tls = at.tls.now()
        assert tls is not None
        assert tls.minimum_version is ssl.TLSVersion.TLSv1_2
        assert tls.options & ssl.OP_NO_RENEGOTIATION
        with suppress(ConnectionError):
            assert b"hello" not in await spoken(at.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with aiohttp.ClientSession() as http, http.get(f"https://localhost:{at.port}/", ssl=trusting(authority)) as answer:
            assert await answer.text() == "hello"


@pytest.mark.asyncio
@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01"], ids=["nothing", "a beginning"])
async def test_a_handshake_has_its_time(tmp_path: Path, said: bytes):
    door = issued(tmp_path, trustme.CA())
    async with opened(routes, certificate=door.certificate, key=door.key, idle_seconds=IDLE) as at:
        started = time.monotonic()
        with suppress(ConnectionError):
            assert await spoken(at.port, said) == b""
        assert IDLE * 0.5 < time.monotonic() - started < IDLE * 10


@pytest.mark.asyncio
async def test_only_http_1_1_is_agreed_on_and_only_ciphers_that_are_forward_secret_and_authenticated(tmp_path: Path):
    authority = trustme.CA()
    door = issued(tmp_path, authority)
    async with opened(routes, certificate=door.certificate, key=door.key) as at:
        modern = trusting(authority, ssl.TLSVersion.TLSv1_2)
        modern.set_alpn_protocols(["h2", "http/1.1"])
        _, writer = await asyncio.open_connection("127.0.0.1", at.port, ssl=modern, server_hostname="localhost")
        shown = writer.get_extra_info("ssl_object")
        assert shown.selected_alpn_protocol() == "http/1.1"
        assert shown.cipher()[0].startswith("ECDHE-")
        writer.transport.abort()
        for ciphers in ("AES128-GCM-SHA256", "ECDHE+AES:!AESGCM:!AESCCM"):  # no forward secrecy; authenticated after encryption
            weak = trusting(authority, ssl.TLSVersion.TLSv1_2)
            weak.set_ciphers(ciphers)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await handshake(at.port, weak)


# ---- other certificates


@pytest.mark.asyncio
async def test_another_certificate_counts_from_the_next_connection_and_a_running_one_goes_on(tmp_path: Path):
    authority = trustme.CA()
    door = issued(tmp_path, authority)
    async with opened(routes, certificate=door.certificate, key=door.key) as at:
        assert at.renew() == [], "nothing is new"
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port, ssl=trusting(authority), server_hostname="localhost")
        first = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        issued(tmp_path, authority)
        assert at.renew() == ["protocol.certificate: loaded again"]
        second = (await handshake(at.port, trusting(authority)))[1]
        assert second != first
        issued(tmp_path, authority)  # and now nobody says anything
        third = (await handshake(at.port, trusting(authority)))[1]
        assert third not in (first, second)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"hello")
        writer.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["another key", "no certificate", "nothing", "over"])
async def test_a_certificate_that_cannot_be_used_is_refused_with_a_reason_and_the_former_one_stays(
    tmp_path: Path, how: str, log: io.StringIO
):
    authority = trustme.CA()
    door = issued(tmp_path, authority)
    assert door.certificate is not None
    assert door.key is not None
    async with opened(routes, certificate=door.certificate, key=door.key) as at:
        first = (await handshake(at.port, trusting(authority)))[1]
        match how:
            case "another key":
                door.key.write_bytes(authority.issue_cert("localhost").private_key_pem.bytes())
            case "no certificate":
                door.certificate.write_text("words")
            case "nothing":
                door.certificate.unlink()
            case "over":
                ended = authority.issue_cert("localhost", not_before=at_day(-10), not_after=at_day(-1))
                door.certificate.write_bytes(b"".join(blob.bytes() for blob in ended.cert_chain_pems))
                door.key.write_bytes(ended.private_key_pem.bytes())
        for _ in range(2):
            assert (await handshake(at.port, trusting(authority)))[1] == first
        said = [line for line in log.getvalue().splitlines() if "files refused" in line]
        assert len(said) == 1, "once, and not at every connection"
        assert "`protocol.certificate`" in said[0]
        assert ("expired" in said[0]) == (how == "over")
        with pytest.raises(SettingsError, match=r"`protocol\.certificate`"):
            at.renew()
        issued(tmp_path, authority)
        assert (await handshake(at.port, trusting(authority)))[1] != first


def at_day(days: int) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)


def test_a_key_that_somebody_would_have_to_type_a_password_for_is_refused(tmp_path: Path):
    door = issued(tmp_path, trustme.CA())
    assert door.key is not None
    key = serialization.load_pem_private_key(door.key.read_bytes(), None)
    sealed = serialization.BestAvailableEncryption(b"secret")
    door.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed))
    with pytest.raises(SettingsError, match="the key is encrypted"):
        tls_context(door)


# ---- certificates of clients


def with_certificate(context: ssl.SSLContext, authority: trustme.CA, directory: Path, **changed: Any) -> ssl.SSLContext:
    """The context of a client that shows a certificate by this authority."""
    made = authority.issue_cert("client@example.org", **changed)
    with made.private_key_and_cert_chain_pem.tempfile(str(directory)) as path:
        context.load_cert_chain(path)
    return context


@pytest.fixture
def mutual(tmp_path: Path) -> tuple[trustme.CA, trustme.CA, dict[str, Any]]:
    """Who vouches for the door, who for its clients, and the door's files."""
    server, clients = trustme.CA(), trustme.CA()
    door = issued(tmp_path, server)
    clients.cert_pem.write_to_path(tmp_path / "clients.pem")
    return server, clients, {"certificate": door.certificate, "key": door.key, "client_ca": tmp_path / "clients.pem"}


async def answered(port: int, context: ssl.SSLContext) -> bool:
    """Whether a client with this context is served. In TLS 1.3 it learns that it is not when it reads."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    except (ssl.SSLError, ConnectionError):
        return False
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(20):
            return (await reader.read()).endswith(b"hello")
    except (ssl.SSLError, ConnectionError):
        return False
    finally:
        writer.transport.abort()


@pytest.mark.asyncio
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
@pytest.mark.parametrize("client_auth", [REQUIRE, REQUEST])
async def test_a_client_shows_a_certificate_where_it_is_asked_for_one(
    tmp_path: Path, mutual: Any, client_auth: str, version: ssl.TLSVersion, log: io.StringIO
):
    server, clients, files = mutual
    async with opened(routes, **files, client_auth=client_auth) as at:
        assert await answered(at.port, with_certificate(trusting(server, version), clients, tmp_path))
        assert await answered(at.port, trusting(server, version)) == (client_auth == REQUEST)
        assert not await answered(at.port, with_certificate(trusting(server, version), trustme.CA(), tmp_path))
        late = with_certificate(trusting(server, version), clients, tmp_path, not_before=at_day(-9), not_after=at_day(-1))
        assert not await answered(at.port, late)
    said = [line for line in log.getvalue().splitlines() if '"event":"handshake failed"' in line]
    assert len(said) == 1, "a flood is one line"
    assert ("peer did not return a certificate" if client_auth == REQUIRE else "certificate verify failed") in said[0]


@pytest.mark.asyncio
async def test_other_authorities_for_clients_count_from_the_next_connection(tmp_path: Path, mutual: Any):
    server, clients, files = mutual
    others = trustme.CA()
    async with opened(routes, **files) as at:
        assert not await answered(at.port, with_certificate(trusting(server), others, tmp_path))
        others.cert_pem.write_to_path(files["client_ca"])
        assert await answered(at.port, with_certificate(trusting(server), others, tmp_path))
        assert not await answered(at.port, with_certificate(trusting(server), clients, tmp_path)), "they were replaced"
        files["client_ca"].write_text("nobody")
        assert await answered(at.port, with_certificate(trusting(server), others, tmp_path))
        with pytest.raises(SettingsError, match=r"`protocol\.client_ca` .*not a PEM file of certificates"):
            at.renew()


# ---- certificates of clients that are revoked


def revoking(authority: trustme.CA, *certificates: trustme.LeafCert | trustme.CA, first: int = -1, last: int = 30) -> bytes:
    """The authority's list of these certificates, good from day `first` to day `last`."""
    key = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    name = x509.load_pem_x509_certificate(authority.cert_pem.bytes()).subject
    made = x509.CertificateRevocationListBuilder(name, at_day(first), at_day(last))
    for each in certificates:
        pem = each.cert_pem if isinstance(each, trustme.CA) else each.cert_chain_pems[0]
        serial = x509.load_pem_x509_certificate(pem.bytes()).serial_number
        made = made.add_revoked_certificate(x509.RevokedCertificateBuilder(serial, at_day(first)).build())
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def showing(context: ssl.SSLContext, certificate: trustme.LeafCert, directory: Path) -> ssl.SSLContext:
    with certificate.private_key_and_cert_chain_pem.tempfile(str(directory)) as path:
        context.load_cert_chain(path)
    return context


@pytest.mark.asyncio
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
@pytest.mark.parametrize("client_auth", [REQUIRE, REQUEST])
async def test_a_certificate_that_is_revoked_opens_nothing_from_the_next_connection_on(
    tmp_path: Path, mutual: Any, client_auth: str, version: ssl.TLSVersion, log: io.StringIO
):
    server, clients, files = mutual
    good, lost = (clients.issue_cert(f"{name}@example.org") for name in ("good", "lost"))
    lists = tmp_path / "revoked.pem"
    lists.write_bytes(revoking(clients))
    async with opened(routes, **files, client_auth=client_auth, client_crl=lists) as at:
        for each in (good, lost):
            assert await answered(at.port, showing(trusting(server, version), each, tmp_path))
        lists.write_bytes(revoking(clients, lost))
        assert not await answered(at.port, showing(trusting(server, version), lost, tmp_path))
        assert await answered(at.port, showing(trusting(server, version), good, tmp_path))
        assert await answered(at.port, trusting(server, version)) == (client_auth == REQUEST)
        lists.write_text("nothing")
        assert not await answered(at.port, showing(trusting(server, version), lost, tmp_path)), "the former list stays"
    assert "certificate verify failed: certificate revoked" in log.getvalue()


@pytest.mark.asyncio
async def test_whoever_is_in_is_put_out_by_another_list_and_comes_in_again_if_its_certificate_is_good(tmp_path: Path, mutual: Any):
    server, clients, files = mutual
    good, lost = (clients.issue_cert(f"{name}@example.org") for name in ("good", "lost"))
    lists = tmp_path / "revoked.pem"
    lists.write_bytes(revoking(clients))

    async def connected(context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port, ssl=context, server_hostname="localhost")
        await asked(reader, writer)
        return reader, writer

    async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(20):
            assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200")

    async with opened(routes, **files, client_auth=REQUEST, client_crl=lists, idle_seconds=30.0) as at:
        one, other, nobody = [
            await connected(context)
            for context in (
                showing(trusting(server), lost, tmp_path),
                showing(trusting(server), good, tmp_path),
                trusting(server),
            )
        ]
        issued(tmp_path, server)
        assert at.renew() == ["protocol.certificate: loaded again"]
        for each in (one, other, nobody):
            await asked(*each)
        lists.write_bytes(revoking(clients, lost))
        assert at.renew() == ["protocol.certificate: loaded again"]
        for reader, _ in (one, other):
            async with asyncio.timeout(20):
                with suppress(ConnectionError):
                    assert await reader.read() == b""
        await asked(*nobody)
        assert not await answered(at.port, showing(trusting(server), lost, tmp_path))
        assert await answered(at.port, showing(trusting(server), good, tmp_path))
        for _, writer in (one, other, nobody):
            writer.transport.abort()


@pytest.mark.asyncio
async def test_a_certificate_by_an_authority_that_is_revoked_opens_nothing(tmp_path: Path, mutual: Any):
    server, clients, files = mutual
    between, lists = clients.create_child_ca(), tmp_path / "revoked.pem"
    theirs = between.issue_cert("client@example.org")
    lists.write_bytes(revoking(clients) + revoking(between))
    async with opened(routes, **files, client_crl=lists) as at:
        assert await answered(at.port, showing(trusting(server), theirs, tmp_path))
        lists.write_bytes(revoking(clients, between) + revoking(between))
        assert not await answered(at.port, showing(trusting(server), theirs, tmp_path))
        lists.write_bytes(revoking(between))
        assert not await answered(at.port, showing(trusting(server), theirs, tmp_path)), "nobody can say whether it is revoked"


@pytest.mark.asyncio
async def test_whoever_is_in_by_an_authority_that_is_believed_no_more_is_put_out(tmp_path: Path, mutual: Any):
    server, clients, files = mutual
    context = showing(trusting(server), clients.issue_cert("one@example.org"), tmp_path)
    async with opened(routes, **files, idle_seconds=30.0) as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port, ssl=context, server_hostname="localhost")
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(20):
            assert (await reader.readuntil(b"hello")).startswith(b"HTTP/1.1 200")
            files["client_ca"].write_bytes(trustme.CA().cert_pem.bytes())
            assert at.renew() == ["protocol.certificate: loaded again"]
            with suppress(ConnectionError):
                assert await reader.read() == b""
        assert not await answered(at.port, context)
        writer.transport.abort()


@pytest.mark.asyncio
async def test_who_shakes_hands_while_the_list_changes_does_not_come_in_by_the_one_before(tmp_path: Path, mutual: Any):
    server, clients, files = mutual
    lost, lists = clients.issue_cert("lost@example.org"), tmp_path / "revoked.pem"
    lists.write_bytes(revoking(clients))

    async def secured() -> bytes:
        await writer.start_tls(showing(trusting(server), lost, tmp_path), server_hostname="localhost")
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return await asyncio.wait_for(reader.readexactly(1), 5)

    async with opened(routes, **files, client_crl=lists) as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        assert await answered(at.port, showing(trusting(server), lost, tmp_path))  # the one that came before has been let in by now
        lists.write_bytes(revoking(clients, lost))
        assert at.renew() == ["protocol.certificate: loaded again"]
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await secured()
        writer.transport.abort()


@pytest.mark.asyncio
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
async def test_a_session_from_before_is_not_taken_up_by_who_is_revoked_since(tmp_path: Path, mutual: Any, version: ssl.TLSVersion):
    server, clients, files = mutual
    lost, lists = clients.issue_cert("lost@example.org"), tmp_path / "revoked.pem"
    lists.write_bytes(revoking(clients))
    context = showing(trusting(server, version), lost, tmp_path)

    def served(session: ssl.SSLSession | None) -> ssl.SSLSession | None:
        secured = partial(context.wrap_socket, server_hostname="localhost", session=session)
        with socket.create_connection(("127.0.0.1", at.port), 5) as plain, secured(plain) as secure:
            secure.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert secure.recv(65536).startswith(b"HTTP/1.1 200")
            return secure.session

    async with opened(routes, **files, client_crl=lists) as at:
        session = await asyncio.to_thread(served, None)
        assert session is not None
        await asyncio.to_thread(served, session)
        lists.write_bytes(revoking(clients, lost))
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            await asyncio.to_thread(served, session)


@pytest.mark.asyncio
@pytest.mark.parametrize("unknown", ["a list of somebody else", "a list that has ended", "a list that does not count yet"])
async def test_where_nobody_can_say_whether_it_is_revoked_a_certificate_opens_nothing(tmp_path: Path, mutual: Any, unknown: str):
    server, clients, files = mutual
    lists = tmp_path / "revoked.pem"
    match unknown:
        case "a list of somebody else":
            lists.write_bytes(revoking(trustme.CA()))
        case "a list that has ended":
            lists.write_bytes(revoking(clients, first=-9, last=-1))
        case _:
            lists.write_bytes(revoking(clients, first=2))
    async with opened(routes, **files, client_crl=lists) as at:
        assert not await answered(at.port, with_certificate(trusting(server), clients, tmp_path))
        lists.write_bytes(revoking(trustme.CA()) + revoking(clients))
        assert await answered(at.port, with_certificate(trusting(server), clients, tmp_path))


@pytest.mark.parametrize("content", ["nothing", "words", "a certificate", "a certificate and a list", "no file"])
def test_what_is_no_list_of_revoked_certificates_is_named_with_its_setting(tmp_path: Path, mutual: Any, content: str):
    _, clients, files = mutual
    lists = tmp_path / "revoked.pem"
    written = {
        "nothing": b"",
        "words": b"words",
        "a certificate": trustme.CA().cert_pem.bytes(),
        "a certificate and a list": revoking(clients) + trustme.CA().cert_pem.bytes(),
    }
    if content in written:
        lists.write_bytes(written[content])
    door = replace(DOOR, **files, client_crl=lists)
    with pytest.raises(SettingsError, match=r"`protocol\.client_crl` .*not a PEM file of lists of revoked certificates: .*; give a list"):
        tls_context(door)


@pytest.mark.parametrize("broken", ["certificate", "key", "another key"])
def test_a_certificate_that_does_not_fit_is_named_with_its_setting(tmp_path: Path, broken: str):
    door = issued(tmp_path, trustme.CA())
    assert door.certificate is not None
    assert door.key is not None
    if broken == "another key":
        door.key.write_bytes(trustme.CA().issue_cert("localhost").private_key_pem.bytes())
    else:
        getattr(door, broken).write_text("nothing")
    with pytest.raises(SettingsError, match=r"`data\.certificate` .*cannot be used with .*key"):
        tls_context(door)


# ---- its beginning and its end


@pytest.mark.asyncio
async def test_an_address_that_cannot_be_opened_is_named_with_a_remedy():
    (port,) = free_ports(1)
    async with opened(routes, port=port):
        with pytest.raises(SettingsError, match=rf"`protocol\.port` {port} on `127\.0\.0\.1` cannot be opened: .*; choose another port"):
            async with opened(routes, port=port):
                pass
    with pytest.raises(SettingsError, match=r"`192\.0\.2\.1` cannot be opened.*; set `protocol\.host` to an address of this machine"):
        async with opened(routes, host="192.0.2.1"):
            pass


@pytest.mark.asyncio
@pytest.mark.parametrize("counted", [True, False], ids=["", "without middleware"])
async def test_at_the_end_what_runs_finishes_and_nobody_new_comes_in(counted: bool):
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(_request: web.Request) -> web.Response:
        begun.set()
        await go.wait()
        return web.Response(text="done")

    async with opened(lambda app: app.router.add_get("/", slow) and None, [passing] if counted else []) as door:
        idle_reader, idle = await asyncio.open_connection("127.0.0.1", door.port)
        running = asyncio.create_task(spoken(door.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
        await begun.wait()
        door.refuse()
        with pytest.raises(ConnectionError):
            await spoken(door.port, b"")
        draining = asyncio.create_task(door.drain(DOOR.drain_seconds))
        assert not (await asyncio.wait({draining, running}, timeout=0.05))[0]
        go.set()
        assert (await running).endswith(b"done")
        await asyncio.wait_for(draining, 5)
        assert await asyncio.wait_for(idle_reader.read(), 5) == b""
        idle.close()


@pytest.mark.asyncio
async def test_what_runs_at_the_end_has_what_is_left_of_the_time_and_not_all_of_it_once_more(monkeypatch: pytest.MonkeyPatch):
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def endless(_request: web.Request) -> web.Response:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError("unreachable")

    monkeypatch.setattr(listener, "LINGER_SECONDS", 0.01)
    async with opened(lambda app: app.router.add_get("/", endless) and None, [], drain_seconds=60.0) as door:
        running = asyncio.create_task(spoken(door.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
        await begun.wait()
        door.refuse()
        await asyncio.wait_for(door.drain(0.0), 5)
        assert cancelled.is_set()
        assert await running == b""


@web.middleware
async def passing(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request)


@pytest.mark.asyncio
async def test_a_body_that_is_on_its_way_at_the_end_still_arrives():
    begun = asyncio.Event()

    async def counting(request: web.Request) -> web.Response:
        begun.set()
        return web.Response(text=f"{len(await request.read())} bytes")

    async with opened(lambda app: app.router.add_post("/", counting) and None, [passing]) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
        await begun.wait()
        door.refuse()
        draining = asyncio.create_task(door.drain(DOOR.drain_seconds))
        assert not (await asyncio.wait({draining}, timeout=0.05))[0]
        writer.write(b"67890")
        assert (await asyncio.wait_for(reader.read(), 5)).endswith(b"10 bytes")
        await asyncio.wait_for(draining, 5)
        writer.close()
