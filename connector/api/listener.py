"""Opens a listener: its socket, its TLS, its limits, and its orderly end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from connector.errors import SettingsError

DRAIN_SECONDS = 20.0  # a request that takes longer than this at the end is cut; Kubernetes gives 30 s
BACKLOG = 1024  # connections that wait to be accepted: a burst of peers after an outage


@dataclass(frozen=True, slots=True)
class Door:
    """Where and how one listener listens. `idle_seconds` bounds an idle connection and the head of a request alike: aiohttp
    has no other bound on the latter. `connections` is how many may be open at once."""

    name: str
    host: str
    port: int
    certificate: Path | None
    key: Path | None
    idle_seconds: float
    connections: int
    body_bytes: int


async def listen(door: Door, routes: Callable[[web.Application], None], middlewares: Sequence[Any], stack: AsyncExitStack) -> int:
    """Open the listener and register its end with `stack`: no new connections, then the running requests finish.

    Returns the port. Raises SettingsError if the address or the certificate cannot be used.
    """
    app = web.Application(middlewares=middlewares, client_max_size=door.body_bytes)
    routes(app)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=door.idle_seconds, shutdown_timeout=DRAIN_SECONDS)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    serve = runner.server
    if serve is None:
        raise SettingsError(f"the listener `{door.name}` could not be set up")

    def accept() -> asyncio.BaseProtocol:
        return serve() if len(serve.connections) < door.connections else Full()

    try:
        server = await asyncio.get_running_loop().create_server(accept, door.host, door.port, ssl=tls_context(door), backlog=BACKLOG)
    except OSError as e:
        remedy = "choose another port or stop what uses it"
        raise SettingsError(f"`{door.name}.port` {door.port} on `{door.host}` cannot be opened: {e.strerror}; {remedy}") from e
    stack.callback(server.close)
    return int(server.sockets[0].getsockname()[1])


class Full(asyncio.Protocol):
    """What a connection over the limit meets: nothing. Whoever sent a request has no answer and tries again."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close at once."""
        if isinstance(transport, asyncio.Transport):
            transport.close()


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
        raise SettingsError(f"`{door.name}.certificate` `{door.certificate}` cannot be used with its key: {e}") from e
    return context
