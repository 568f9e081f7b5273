"""The HTTP client towards other connectors and HTTP sources (port `Peer`), behind the egress guard: lines for messages, a session for
streams, and one aiohttp connector under both.

What a peer answers is untrusted: no redirect is followed, no cookie kept, nothing decompressed, no environment proxy used, and
a body is counted as it arrives. Each call is one attempt: whether a message may be sent again is the outbox's business. Errors
name the origin only, because the rest of a URL and all headers may be secret.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from socket import socket
from typing import Any, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.http import HttpProcessingError
from yarl import URL

from connector.adapters_streams.dialled import Dialled, Trust, not_believed
from connector.adapters_streams.peer_lines import IDENTITY, Lines, demand_headers, fields_of, written
from connector.adapters_streams.peer_unread import unread
from connector.errors import ConnectorError, EgressDenied, PeerFailed
from connector.origins import origin
from connector.ports import Detached, Reply
from connector.ports.live import Unread

CONNECT_SECONDS = 5.0  # name, TCP and TLS
TOTAL_SECONDS = 15.0  # from a message to the last byte of its answer
ANSWER_BYTES_MAX = 1_048_576  # of one answer; catalogs are asked for with a limit of their own
KEEPALIVE_SECONDS = 10.0  # below the 15 s after which servers (ours too) close an idle connection, so that they rarely do it under us
DNS_SECONDS = 10  # how long a name's addresses are kept; the guard sees the address that is dialled in any case
READ_BUFFER_BYTES = 1_048_576  # of a stream, before its sender is made to wait: large enough that the sender seldom is
AUTOMATIC_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")  # we say what we mean, and not what we are built of
# The alerts of RFC 8446, 6.2, that are about the certificate of a client, as OpenSSL names them.
OF_OUR_CERTIFICATE = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "demands a TLS certificate of us, and we have none to show",
    "TLSV1_ALERT_UNKNOWN_CA": "refuses our TLS certificate: it does not know the authority",
    "TLSV1_ALERT_ACCESS_DENIED": "refuses our TLS certificate: access denied",
    "SSLV3_ALERT_BAD_CERTIFICATE": "refuses our TLS certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "refuses our TLS certificate: it is of a kind that is not taken there",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "refuses our TLS certificate: it is revoked",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "refuses our TLS certificate: it has expired",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "refuses our TLS certificate",
}
LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)


class Guard(Protocol):
    """Whom we dial: see `egress`."""

    def check(self, url: str) -> None: ...
    def socket(self, info: tuple[Any, ...]) -> socket: ...
    def ends(self, where: str, host: str) -> EgressDenied | None: ...
    def denial(self, url: str, error: BaseException) -> EgressDenied | None: ...


class HttpDownload:
    """An answer whose body is still arriving, with the bytes as they are on the wire."""

    def __init__(self, response: aiohttp.ClientResponse, where: str) -> None:
        self._response = response
        self._where = where
        self.status = response.status
        self.headers = fields_of(response.headers, where)

    async def chunks(self) -> AsyncIterator[bytes]:
        """See the port `Download`."""
        content = self._response.content
        try:
            while piece := await content.readany():
                yield piece
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            # aiohttp raises ahead of what it holds: up to two buffers that came before the cut, and need not come again.
            if held := content._read_nowait(-1):
                yield held
            cut = "stopped sending" if isinstance(error, TimeoutError) else "closed the connection"
            raise PeerFailed(f"`{self._where}` {cut} in the middle of its answer") from None

    def detach(self) -> Detached | None:
        """See the port `Download`. The descriptor is a second one of the same connection, which closing the client's own leaves open."""
        response, connection = self._response, self._response.connection
        transport = connection.transport if connection is not None else None
        length = response.headers.get("Content-Length", "")
        plain = LENGTH.fullmatch(length) is not None and "Transfer-Encoding" not in response.headers
        if not plain or not isinstance(transport, asyncio.Transport) or transport.get_extra_info("sslcontext") is not None:
            return None
        try:
            descriptor = os.dup(transport.get_extra_info("socket").fileno())
        except OSError:  # there is none left: then it comes through the event loop
            return None
        # Nothing is awaited from here on, so nothing more can arrive at the client: what it holds now is all that it has read.
        transport.pause_reading()
        ahead = response.content._read_nowait(-1)
        response.close()
        return Detached(descriptor, ahead, int(length) - len(ahead), self._where)


class HttpPeer:
    """The client. Connections stay open between calls and their number is not bounded, because a connection carries one
    message at a time and a message that waits for one is late. `ca_file` holds certificate authorities (PEM) that are trusted
    beside the system's; there is no way to trust none. `certificate` and `key` are shown to peers that ask for one; whom `crl_file` lists
    is none. Files that have changed count from the next connection on. Raises SettingsError if they cannot be used."""

    def __init__(
        self,
        guard: Guard,
        *,
        ca_file: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        crl_file: Path | None = None,
        connect_seconds: float = CONNECT_SECONDS,
        total_seconds: float = TOTAL_SECONDS,
        answer_bytes_max: int = ANSWER_BYTES_MAX,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._guard, self._tls = guard, Trust(ca_file, certificate, key, crl_file)
        self._connect_seconds = connect_seconds
        self._message_bounds = aiohttp.ClientTimeout(total_seconds, connect_seconds)
        self._answer_bytes_max = answer_bytes_max
        self._resolver = resolver
        self._dialled: Dialled | None = None
        self._session: aiohttp.ClientSession | None = None
        self._lines: Lines | None = None

    @property
    def guard(self) -> Guard:
        """Whom we dial. With another one, connections that it would not let be made end at once."""
        return self._guard

    @guard.setter
    def guard(self, guard: Guard) -> None:
        self._guard = guard
        if self._dialled is not None:
            self._dialled.look_again()

    def check(self, url: str) -> None:
        """See the port."""
        self.guard.check(url)

    def afresh(self, url: str) -> None:
        """See the port."""
        if self._lines is not None:
            self._lines.end(origin(url))
        if self._dialled is not None:
            self._dialled.end_idle(origin(url))

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None, limit_bytes: int | None = None
    ) -> Reply:
        """See the port."""
        limit = self._answer_bytes_max if limit_bytes is None else limit_bytes
        self._guard.check(url)
        begun = False
        try:
            where, request = origin(url), written(method, url, headers, body)
            tls = await self._tls.of(where)
            lines = self._lines or self._open_lines()
            line = await lines.take(where, tls, bodies=method != "HEAD")
            try:
                head, content = await lines.ask(line, request)
                begun = True
                return Reply(head.code, fields_of(head.headers, where), await _read(head.headers, content, limit, url))
            finally:
                lines.leave(line, where, tls)
        except TimeoutError:
            raise self._late(url) from None
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            if begun:
                raise _cut(url) from None
            raise self._failure(url, error) from None

    @asynccontextmanager
    async def stream(self, method: str, url: str, *, headers: Mapping[str, str], idle_seconds: float = 30.0) -> AsyncIterator[HttpDownload]:
        """See the port."""
        bounds = aiohttp.ClientTimeout(None, self._connect_seconds, idle_seconds)
        response = await self._request(method, url, headers, None, bounds, READ_BUFFER_BYTES)
        _read_much(response.connection.transport if response.connection is not None else None)
        try:
            yield HttpDownload(response, origin(url))
        finally:
            response.close()

    async def unread(self, url: str, *, headers: Mapping[str, str], idle_seconds: float) -> Unread | None:
        """See the port `connector.ports.live.Dials`."""
        self.guard.check(url)
        try:
            return await unread(self._open_session().connector, self._connect_seconds, url, headers, idle_seconds)
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            raise self._failure(url, error) from None

    async def upload(
        self, url: str, body: AsyncIterator[bytes], length: int, *, headers: Mapping[str, str], idle_seconds: float, limit_bytes: int | None
    ) -> Reply:
        """One PUT of `length` bytes, with no bound on its whole time but `idle_seconds` for each step of it; of an answer without
        `limit_bytes` nothing is kept but the head. Raises as `send`, and what `body` raises."""
        failed: list[BaseException] = []
        steps: set[asyncio.Task[bytes | None]] = set()  # the one in which `body` is at its next piece

        async def step() -> bytes | None:
            return await anext(body, None)

        async def watched() -> AsyncIterator[bytes]:
            try:
                while True:
                    steps.add(stepping := asyncio.create_task(step(), name="upload"))
                    piece = await stepping
                    steps.clear()
                    if piece is None:
                        break
                    patience.reschedule(loop.time() + idle_seconds)
                    yield piece
                patience.reschedule(loop.time() + 2 * idle_seconds)
            except Exception as error:
                failed.append(error)
                raise

        loop = asyncio.get_running_loop()
        bounds = aiohttp.ClientTimeout(None, self._connect_seconds, None)
        sent = {**headers, "Content-Length": str(length)}
        try:
            async with asyncio.timeout(idle_seconds) as patience:
                response = await self._request("PUT", url, sent, watched() if length else b"", bounds, None)
                try:
                    fields = fields_of(response.headers, origin(url))
                    return Reply(response.status, fields, await _read(response.headers, response.content, limit_bytes, url))
                finally:
                    response.close()
        except TimeoutError:
            raise self._late(url) from None
        except PeerFailed:
            if failed:
                raise failed[0] from None
            raise
        except (aiohttp.ClientError, OSError):
            raise _cut(url) from None
        finally:
            for stepping in steps:  # aiohttp does not wait until whoever writes has let go of `body`
                stepping.cancel()
            await asyncio.gather(*steps, return_exceptions=True)

    async def close(self) -> None:
        """Close all connections. The next call would open a new session."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None
        if self._session is not None:
            await self._session.close()
            self._session = self._dialled = None

    async def _request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | AsyncIterator[bytes] | None,
        bounds: aiohttp.ClientTimeout,
        read_bufsize: int | None,
    ) -> aiohttp.ClientResponse:
        self.guard.check(url)
        demand_headers(headers)
        try:
            tls = await self._tls.of(origin(url))  # before there is a session, which may be closed meanwhile
            return await self._open_session().request(
                method,
                URL(url, encoded=True),
                headers=headers,
                data=body,
                allow_redirects=False,
                timeout=bounds,
                read_bufsize=read_bufsize,
                ssl=tls,
                middlewares=() if method == "POST" else (_once,),  # aiohttp repeats no POST
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._failure(url, error) from None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._dialled = Dialled(
                lambda where, host: self.guard.ends(where, host),  # noqa: PLW0108 - the guard may be another one by then
                self._tls,
                limit=0,
                keepalive_timeout=KEEPALIVE_SECONDS,
                ttl_dns_cache=DNS_SECONDS,
                socket_factory=self._socket,
                resolver=self._resolver,
            )
            self._tls.renewed = self._dialled.look_again
            self._session = aiohttp.ClientSession(
                connector=self._dialled,
                headers=IDENTITY,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=AUTOMATIC_HEADERS,
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    def _open_lines(self) -> Lines:
        connector = self._open_session().connector
        assert isinstance(connector, Dialled)  # noqa: S101 - the one above
        self._lines = Lines(connector, self._message_bounds, KEEPALIVE_SECONDS)
        return self._lines

    async def prepare(self) -> None:
        """Make ready what the first connection over TLS would wait for."""
        await self._tls.of("https:")

    def renew(self) -> list[str]:
        """Take the certificates as they are now. Returns what to say of it. Raises SettingsError, and keeps the former ones."""
        return ["egress.certificate: loaded again"] if self._tls.renew() else []

    def _socket(self, info: tuple[Any, ...]) -> socket:
        return self.guard.socket(info)  # asked anew for each: the guard may be another one by now

    def _late(self, url: str) -> PeerFailed:
        return PeerFailed(f"`{origin(url)}` did not answer in time")

    def _failure(self, url: str, error: Exception) -> ConnectorError:
        """What a failed attempt is called, without the addresses, paths and headers that aiohttp's own texts show."""
        where = origin(url)
        match error:
            case TimeoutError():
                return self._late(url)
            case aiohttp.ClientConnectorCertificateError():
                return not_believed(where, error.certificate_error)
            case aiohttp.ClientConnectorSSLError():
                text = f"no TLS connection to `{where}` could be agreed on; it must speak TLS 1.2 or 1.3"
                return _uncertified(where, error) or PeerFailed(f"{text}, and may want a certificate of ours (`egress.certificate`)")
            case aiohttp.ClientConnectorDNSError():
                return PeerFailed(f"the host of `{where}` has no address; is its name right, and does our resolver know it?")
            case aiohttp.ClientConnectorError():
                return self.guard.denial(url, error.os_error) or _unreached(where, error.os_error)
            case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
                return _closed(where, error)
            case _:
                return PeerFailed(f"`{where}` did not answer with HTTP")


def _unreached(where: str, error: OSError) -> PeerFailed:
    why = os.strerror(error.errno).lower() if error.errno else "it was not accepted"
    return PeerFailed(f"no connection to `{where}` could be made ({why}): nothing runs there, or a firewall lets nobody in")


def _read_much(transport: Any) -> None:
    """Let more be read at once than the 256 KiB of asyncio's plain transports, which cost a sixth of the CPU of live data."""
    if hasattr(transport, "max_size"):
        transport.max_size = READ_BUFFER_BYTES


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """aiohttp would repeat a GET whose kept-alive connection turns out to be closed. A token is good for one attempt, and the
    peer may have seen this one."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
        raise _closed(str(request.url.origin()), error) from None


def _closed(where: str, error: Exception) -> PeerFailed:
    return _uncertified(where, error) or PeerFailed(f"`{where}` closed the connection without an answer")


def _uncertified(where: str, error: BaseException | None) -> PeerFailed | None:
    """What a peer says in TLS of the certificate that we have shown, or have not: in 1.3 it does so after the handshake."""
    while error is not None:
        if isinstance(error, ssl.SSLError) and (said := OF_OUR_CERTIFICATE.get(getattr(error, "reason", None) or "")) is not None:
            return PeerFailed(f"`{where}` {said}; see `egress.certificate`")
        error = error.__cause__ or error.__context__
    return None


async def _read(headers: Mapping[str, str], content: aiohttp.StreamReader, limit: int | None, url: str) -> bytes:
    """The whole body, which must not be encoded, if it has at most `limit` bytes; without one it is let go of as it comes."""
    if limit is not None and headers.get("Content-Encoding", "identity").strip().lower() not in ("identity", ""):
        raise PeerFailed(f"`{origin(url)}` answered with a content encoding that was not asked for")
    body = bytearray()
    while not content.at_eof():
        body += await content.readany()
        if limit is None:
            body.clear()
        elif len(body) > limit:
            raise PeerFailed(f"`{origin(url)}` answered with more than {limit} bytes")
    return bytes(body)


def _cut(url: str) -> PeerFailed:
    return PeerFailed(f"`{origin(url)}` closed the connection in the middle of its answer")
