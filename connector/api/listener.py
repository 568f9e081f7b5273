"""Opens a listener: its socket, its TLS, its limits, and its orderly end."""

from __future__ import annotations

import asyncio
import errno
import logging
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

from aiohttp import web
from msgspec import Struct

from connector import telemetry
from connector.api.connections import LINGER_SECONDS, UNREAD_SECONDS, Connection, Entrance, Patience, nameless
from connector.api.middleware import Running, Straight
from connector.errors import SettingsError
from connector.lasting import OfFiles, revoke
from connector.values import Value

REQUIRE, REQUEST = "require", "request"  # what is asked of clients where there are authorities for their certificates
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2: forward secret and authenticated; those of 1.3 all are
NAMES_DIFFER = (62, 64)  # OpenSSL's numbers (x509_vfy.h) for a certificate that is not for this name, or not for this address
BACKLOG = 1024  # connections that wait to be accepted: a burst of peers after an outage

REMEDIES = {  # of an address that cannot be listened on; with any other it is no address of ours
    errno.EADDRINUSE: "choose another port or stop what uses it",
    errno.EACCES: "choose a port from 1024 on, or let this program use those below",
}


class Door(Value):
    """Where and how one listener listens. `idle_seconds` bounds an idle connection, a TLS handshake and the head of a request
    alike: aiohttp has no other bound on the latter. `connections` is how many may be open at once, `per_address` how many of
    them from one address; `unread_seconds` is what a peer has to read an answer (`connector.api.connections`), `drain_seconds`
    what a running request has to finish at the end. Where `client_ca` is given, clients show a certificate by one of these
    authorities: all (`client_auth` is REQUIRE), or those that have one (REQUEST). It opens the connection and names nobody; one that
    `client_crl` lists opens none, nor does any by an authority of which there is no list, or none that is in its time."""

    name: str
    host: str
    port: int
    certificate: Path | None
    key: Path | None
    idle_seconds: float
    connections: int
    per_address: int
    body_bytes: int
    drain_seconds: float
    unread_seconds: float = UNREAD_SECONDS
    client_ca: Path | None = None
    client_auth: str = REQUIRE
    client_crl: Path | None = None


class Listening(Struct):
    """An open listener. Its end has two parts, so that several can end together."""

    door: Door
    port: int
    server: asyncio.Server
    entrance: Entrance
    runner: web.AppRunner
    running: Running
    tls: OfFiles[ssl.SSLContext | None]

    def renew(self) -> list[str]:
        """Load the certificates again if their files are others: they count for connections from now on. Returns what to say of it.
        Raises SettingsError as `tls_context`, and keeps the former ones."""
        return [f"{self.door.name}.certificate: loaded again"] if self.tls.renew() else []

    def refuse(self) -> None:
        """Take no new connections. asyncio loses one that it has accepted and not begun, and leaves it open, if its server is
        closed at that moment: so it listens no more from now on, and closes after what is begun already."""
        loop = asyncio.get_running_loop()
        self.entrance.closed = True
        for each in self.server.sockets:
            loop.remove_reader(each.fileno())
        loop.call_soon(self.server.close)

    async def drain(self, seconds: float) -> None:
        """Let the running requests finish for so long, then close all connections.

        The wait is ours: from its own shutdown on, aiohttp drops what still arrives, and a request whose body is on its way
        would never end.
        """
        await self.running.finish(seconds)
        self.runner._shutdown_timeout = min(self.runner._shutdown_timeout, seconds + LINGER_SECONDS)
        await self.runner.cleanup()


async def listen(door: Door, routes: Callable[[web.Application], None], middlewares: Sequence[Any], stack: AsyncExitStack) -> Listening:
    """Open the listener and register its end with `stack`: no new connections, then the running requests finish.

    Raises SettingsError if the address or the certificate cannot be used.
    """
    files = [each for each in (door.certificate, door.key, door.client_ca, door.client_crl) if each is not None]

    def changed(_context: ssl.SSLContext | None, others: frozenset[Path]) -> None:
        """Other authorities and lists count for whoever is in already: who showed a certificate comes in again, if it is still good."""
        if door.client_crl in others or door.client_ca in others:
            entrance.cut_certified()

    tls = OfFiles(f"{door.name}.certificate", files, lambda: tls_context(door), changed)
    running = Running()
    app = web.Application(middlewares=middlewares, client_max_size=door.body_bytes)
    app.on_response_prepare.append(nameless)
    routes(app)
    log = logging.Logger(f"listener {door.name}")
    log.addHandler(_Events(door.name))
    # Without middleware, every request counts its microseconds: there aiohttp waits, and drops the bodies of forms.
    runner = web.AppRunner(app, shutdown_timeout=LINGER_SECONDS if middlewares else door.drain_seconds + LINGER_SECONDS)
    await runner.setup()
    serve = runner.server
    if serve is None:
        raise SettingsError(f"the listener `{door.name}` could not be set up; start the connector again")
    if middlewares:
        serve.request_factory = partial(web.Request, loop=asyncio.get_running_loop(), client_max_size=door.body_bytes)
        serve.request_handler = cast(Any, Straight(app, middlewares, serve.request_handler, running))  # its requests are those of `app`

    def speak(patience: Patience, lost: Callable[[], None]) -> Connection:
        return Connection(
            serve,
            patience,
            lost,
            access_log=None,
            logger=log,
            keepalive_timeout=door.idle_seconds,
            lingering_time=LINGER_SECONDS,
            auto_decompress=False,  # aiohttp would inflate a body before any handler could refuse it
        )

    entrance = Entrance(
        door.name,
        speak,
        tls.now,
        connections=door.connections,
        per_address=door.per_address,
        handshake_seconds=door.idle_seconds,
        unread_seconds=door.unread_seconds,
    )
    stack.push_async_callback(entrance.end)
    stack.push_async_callback(runner.cleanup)
    try:
        server = await asyncio.get_running_loop().create_server(entrance, door.host, door.port, backlog=BACKLOG)
    except OSError as e:
        remedy = REMEDIES.get(e.errno or 0, f"set `{door.name}.host` to an address of this machine")
        why = str(e.strerror).rpartition(": ")[2]  # asyncio repeats the address in front of it
        raise SettingsError(f"`{door.name}.port` {door.port} on `{door.host}` cannot be opened: {why}; {remedy}") from e
    listening = Listening(door, int(server.sockets[0].getsockname()[1]), server, entrance, runner, running, tls)
    stack.callback(listening.refuse)
    return listening


class _Events(logging.Handler):
    """What aiohttp has to say about bytes that are no HTTP, as an event of ours: its own text quotes them, secrets included."""

    def __init__(self, door: str) -> None:
        super().__init__(logging.WARNING)
        self._door = door

    def emit(self, record: logging.LogRecord) -> None:
        """Write the event: the kind of error, without its text."""
        kind = record.exc_info[0] if record.exc_info else None
        telemetry.log.info("not served", door=self._door, error=kind.__name__ if kind else "unknown")


def tls_context(door: Door) -> ssl.SSLContext | None:
    """The TLS side of a listener, 1.2 or later, or None without a certificate. Raises SettingsError for files that cannot be used:
    they do not fit together, or nobody would believe them now."""
    if door.certificate is None:
        return None
    context = _server_side(door)
    try:
        context.load_cert_chain(door.certificate, door.key, password=_nobody_types)
        _prove(door.certificate, context)
    except (OSError, ValueError) as e:
        why = getattr(e, "verify_message", None) or e
        raise SettingsError(
            f"`{door.name}.certificate` is `{door.certificate}`, which cannot be used with `{door.name}.key`: {why}; give a pair in PEM"
        ) from None
    if door.client_ca is not None:
        try:
            context.load_verify_locations(door.client_ca)
        except OSError as e:
            raise SettingsError(
                f"`{door.name}.client_ca` is `{door.client_ca}`, which is not a PEM file of certificates: {e}; give one, or leave it empty"
            ) from None
        if door.client_crl is not None and (why := revoke(context, door.client_crl)) is not None:
            raise SettingsError(
                f"`{door.name}.client_crl` is `{door.client_crl}`, which is not a PEM file of lists of revoked certificates: {why};"
                f" give a list by each authority in `{door.name}.client_ca`, or leave it empty"
            )
        context.verify_mode = ssl.CERT_REQUIRED if door.client_auth == REQUIRE else ssl.CERT_OPTIONAL
    return context


def other_names(door: Door, host: str) -> tuple[str, ...] | None:
    """The names that a listener's certificate has, if who dials `host` (a name or an address) would not believe it: clients look for that
    among its subject alternative names (RFC 9525, 6). None if they find it. Raises SSLError, OSError, as its files cannot be used."""
    server = _server_side(door)
    certificate = cast(Path, door.certificate)
    server.load_cert_chain(certificate, door.key, password=_nobody_types)
    try:
        _prove(certificate, server, host)
    except ValueError as e:  # the verdict on a name is one; and what cannot be one is in no certificate
        if isinstance(e, ssl.SSLError) and getattr(e, "verify_code", None) not in NAMES_DIFFER:
            raise
        return tuple(name for _, name in _prove(certificate, server).get("subjectAltName", ()))
    return None


def _server_side(door: Door) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION  # it costs us more than whoever asks for it
    return context


def _nobody_types() -> str:
    raise ValueError("the key is encrypted, and nobody is there to type a password")


def _prove(certificate: Path, server: ssl.SSLContext, host: str | None = None) -> Mapping[str, Any]:
    """Shake hands with ourselves, as a client that trusts just this certificate, and return what it says: it is in its time, its key signs,
    and `host`, if given, is among its names. Raises SSLError; ValueError for a `host` that is none."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = host is not None  # by which of its names others call us is theirs to know
    client.hostname_checks_common_name = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(certificate)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    dialling = client.wrap_bio(back, there, server_hostname=host)
    ends = [dialling, server.wrap_bio(there, back, server_side=True)]
    while ends:
        for end in tuple(ends):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
                ends.remove(end)
    return dialling.getpeercert() or {}
