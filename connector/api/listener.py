"""Opens a listener: its socket, its TLS, its limits, and its orderly end."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from connector import telemetry
from connector.api.connections import LINGER_SECONDS, UNREAD_SECONDS, Connection, Entrance, Patience, nameless
from connector.errors import SettingsError

BACKLOG = 1024  # connections that wait to be accepted: a burst of peers after an outage


@dataclass(frozen=True, slots=True)
class Door:
    """Where and how one listener listens. `idle_seconds` bounds an idle connection, a TLS handshake and the head of a request
    alike: aiohttp has no other bound on the latter. `connections` is how many may be open at once, `per_address` how many of
    them from one address; `unread_seconds` is what a peer has to read an answer (`connector.api.connections`), `drain_seconds`
    what a running request has to finish at the end."""

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


@dataclass(slots=True)
class Listening:
    """An open listener. Its end has two parts, so that several can end together. `chain` is the certificate it shows, PEM."""

    door: Door
    port: int
    server: asyncio.Server
    entrance: Entrance
    runner: web.AppRunner
    running: _Running
    tls: ssl.SSLContext | None
    chain: bytes

    def renew(self) -> list[str]:
        """Load the certificate again if its file is another: it counts for connections from now on. Returns what to say of it.
        Raises SettingsError as `tls_context`, and keeps the former one."""
        if self.tls is None or self.door.certificate is None or (chain := _chain(self.door)) == self.chain:
            return []
        tls_context(self.door)  # what does not fit together must not get half into the context that is in use
        self.tls.load_cert_chain(self.door.certificate, self.door.key)
        self.chain = chain
        return [f"{self.door.name}.certificate: loaded again"]

    def refuse(self) -> None:
        """Take no new connections. asyncio loses one that it has accepted and not begun, and leaves it open, if its server is
        closed at that moment: so it listens no more from now on, and closes after what is begun already."""
        loop = asyncio.get_running_loop()
        self.entrance.closed = True
        for each in self.server.sockets:
            loop.remove_reader(each.fileno())
        loop.call_soon(self.server.close)

    async def drain(self) -> None:
        """Let the running requests finish, then close all connections.

        The wait is ours: from its own shutdown on, aiohttp drops what still arrives, and a request whose body is on its way
        would never end.
        """
        await self.running.finish(self.door.drain_seconds)
        await self.runner.cleanup()


async def listen(door: Door, routes: Callable[[web.Application], None], middlewares: Sequence[Any], stack: AsyncExitStack) -> Listening:
    """Open the listener and register its end with `stack`: no new connections, then the running requests finish.

    Raises SettingsError if the address or the certificate cannot be used.
    """
    chain, tls = _chain(door), tls_context(door)
    running = _Running()
    # Without middleware, every request counts its microseconds: there aiohttp waits, and drops the bodies of forms.
    counted = [running.count, *middlewares] if middlewares else []
    app = web.Application(middlewares=counted, client_max_size=door.body_bytes)
    app.on_response_prepare.append(nameless)
    routes(app)
    log = logging.Logger(f"listener {door.name}")
    log.addHandler(_Events(door.name))
    runner = web.AppRunner(app, shutdown_timeout=LINGER_SECONDS if counted else door.drain_seconds + LINGER_SECONDS)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    serve = runner.server
    if serve is None:
        raise SettingsError(f"the listener `{door.name}` could not be set up; start the connector again")

    def speak(patience: Patience, lost: Callable[[], None] | None) -> Connection:
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
        tls,
        connections=door.connections,
        per_address=door.per_address,
        handshake_seconds=door.idle_seconds,
        unread_seconds=door.unread_seconds,
    )
    try:
        server = await asyncio.get_running_loop().create_server(entrance, door.host, door.port, backlog=BACKLOG)
    except OSError as e:
        remedy = "choose another port or stop what uses it"
        why = str(e.strerror).rpartition(": ")[2]  # asyncio repeats the address in front of it
        raise SettingsError(f"`{door.name}.port` {door.port} on `{door.host}` cannot be opened: {why}; {remedy}") from e
    listening = Listening(door, int(server.sockets[0].getsockname()[1]), server, entrance, runner, running, tls, chain)
    stack.callback(listening.refuse)
    return listening


class _Running:
    """The requests that a door is at."""

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    @web.middleware
    async def count(self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        """The middleware that counts."""
        self._count += 1
        self._none.clear()
        try:
            return await handler(request)
        finally:
            self._count -= 1
            if not self._count:
                self._none.set()

    async def finish(self, seconds: float) -> None:
        """Wait until none runs, but no longer than this."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._none.wait()


class _Events(logging.Handler):
    """What aiohttp has to say about bytes that are no HTTP, as an event of ours: its own text quotes them, secrets included."""

    def __init__(self, door: str) -> None:
        super().__init__(logging.WARNING)
        self._door = door

    def emit(self, record: logging.LogRecord) -> None:
        """Write the event: the kind of error, without its text."""
        kind = record.exc_info[0] if record.exc_info else None
        telemetry.log.info("not served", door=self._door, error=kind.__name__ if kind else "unknown")


def _chain(door: Door) -> bytes:
    try:
        return door.certificate.read_bytes() if door.certificate else b""
    except OSError:
        return b""  # `tls_context` says what is wrong with it


def tls_context(door: Door) -> ssl.SSLContext | None:
    """The TLS side of a listener, 1.2 or later, or None without a certificate. Raises SettingsError for files that do not
    fit together."""
    if door.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(door.certificate, door.key)
    except (OSError, ssl.SSLError) as e:
        raise SettingsError(
            f"`{door.name}.certificate` is `{door.certificate}`, which cannot be used with `{door.name}.key`: {e}; give a pair in PEM"
        ) from None
    return context
