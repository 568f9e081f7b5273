"""The connections of one listener, each from its first packet on: how many there may be, from one address and in all, and how
long one may keep an answer unread.

aiohttp bounds none of it. Under TLS a connection counts from before its handshake on: one that never ends it would hold its place
unseen. What is unread is bounded at the transport, the one place where all answers pass: it costs nothing as long as the kernel
takes what is written.
"""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import os
import re
import socket
import ssl
import struct
import sys
import termios
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import Any, NoReturn, TypeVar, cast

from aiohttp import hdrs, web
from aiohttp.http import HttpVersion10, HttpVersion11, RawRequestMessage
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

from connector import telemetry
from connector.api.secured import Secured
from connector.errors import TooSlow

UNREAD_SECONDS = 60.0  # for UNREAD_BYTES: the pace that the data plane asks of its readers too
UNREAD_BYTES = 1024 * 1024
QUIET_SECONDS, QUIET_LOOKS = 0.25, 2  # after a client has ended its half: between two looks at its answer, and how many may find nothing
LINGER_SECONDS = 2.0  # how long the rest of a refused body is still taken, unread, and how long TLS may take to say goodbye
HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")  # RFC 3986, 3.2.2 and 3.2.3
VERSIONS = HttpVersion10, HttpVersion11
NO_LINGER = struct.pack("ii", 1, 0)  # socket(7): on, for 0 seconds
SITE_BITS = 64  # of an IPv6 address: what one subscriber has, so that nobody is many by counting through it
SAID_SECONDS = 60.0  # a flood of connections is one line of the log in this time
T = TypeVar("T")


def cut(transport: asyncio.BaseTransport | None) -> None:
    """End a connection at once. A plain close, and even an abort, leave the kernel sending what it has, some megabytes, for as
    long as a slow reader likes to take."""
    if not isinstance(transport, asyncio.WriteTransport):
        return
    if (sock := transport.get_extra_info("socket")) is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    transport.abort()


class Patience:
    """The time that a peer has for what it was sent: `seconds` for each UNREAD_BYTES, from the moment at which the kernel takes
    no more on `wire`."""

    __slots__ = ("_timer", "_wire", "seconds")

    def __init__(self, wire: asyncio.Transport, seconds: float) -> None:
        self._wire, self.seconds = wire, seconds
        self._timer: asyncio.TimerHandle | None = None
        wire.set_write_buffer_limits(high=1, low=0)  # every byte that the kernel does not take counts

    def begin(self) -> None:
        """Something is unread."""
        seconds = self.seconds * max(1.0, self._wire.get_write_buffer_size() / UNREAD_BYTES)
        self._timer = asyncio.get_running_loop().call_later(seconds, self._over, seconds)

    def end(self) -> None:
        """All of it was taken, or nobody is there any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _over(self, seconds: float) -> None:
        telemetry.log.info("connection cut", reason=f"the answer was not read within {seconds:g} s")
        cut(self._wire)


class _Answered(ConnectionError):
    """The answer is out and nothing may follow it: to aiohttp, the connection is lost."""


class _SameTask:
    """The event loop as a connection of aiohttp sees it: what it would run in a task for each request, and then wait for, runs where it is
    waited for. Such a task costs two turns of the loop, a tenth of an exchange; from Python 3.12 on aiohttp has it begin at once, which
    is nearly the same. It was to keep context variables apart: ours are reset by whoever has set them. While more requests are `waiting`
    on the connection it is two turns that others need: thousands come in one piece, and answers that wait for nothing would be one step."""

    def __init__(self, loop: asyncio.AbstractEventLoop, waiting: Collection[object]) -> None:
        self._loop, self._waiting = loop, waiting
        self.call_at, self.create_future, self.time = loop.call_at, loop.create_future, loop.time

    def create_task(self, request: Coroutine[Any, Any, T]) -> Awaitable[T]:
        return self._loop.create_task(request) if self._waiting else request

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


class Connection(web.RequestHandler):
    """aiohttp's protocol, with patience for a peer that does not read, and no word about its software. `lost` is called when
    the connection is."""

    __slots__ = ("_body", "_ended", "_lost", "_quiet", "leave", "patience")

    def __init__(self, server: web.Server, patience: Patience, lost: Callable[[], None], **options: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self.patience, self._lost = patience, lost
        self._body: StreamReader = EMPTY_PAYLOAD  # of the request that came last
        self._ended, self._quiet = False, 0
        self.leave: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        super().connection_made(transport)
        if sys.version_info < (3, 12):
            self._loop = cast(asyncio.AbstractEventLoop, _SameTask(self._loop, self._messages))
        if self._task_handler is not None:
            self._task_handler.add_done_callback(self._deserted)

    def _deserted(self, _task: asyncio.Task[None]) -> None:
        """Nobody answers here any more: a cancellation may meet the task between two requests, where aiohttp closes nothing."""
        if self.transport is not None:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        before = self._request_count
        super().data_received(data)
        for at in range(before - self._request_count, 0):  # those that came just now
            message, self._body = self._messages[at]
            if isinstance(message, RawRequestMessage) and (why := _faulty(message)) is not None:
                self._messages[at] = (_ErrInfo(status=400, exc=BadHttpMessage(why), message=why), EMPTY_PAYLOAD)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio heeds what it returns
        """The client says nothing more (RFC 9112, 8 and 9.6): what it has asked for whole is answered, half a request is refused as one
        that did not come in its time (RFC 9110, 15.5.9), and the connection ends with that."""
        if self._ended or self._upgraded:
            return self._ended
        half, self._ended = self._half(), True
        if half is not None:
            self._messages.append((_ErrInfo(status=408, exc=half, message="half a request"), EMPTY_PAYLOAD))
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)
        elif self._messages:
            last, body = self._messages.pop()
            self._messages.append((last._replace(should_close=True) if isinstance(last, RawRequestMessage) else last, body))
        elif self._waiter is not None:
            return False
        else:
            self.close()
        self._look_after()
        return True

    def _half(self) -> BadHttpMessage | None:
        """What is wrong with how it ended: within the head of a request. An end within a body is found by whoever reads that."""
        if not self._body.is_eof():
            self._body.set_exception(TooSlow("the body of the request ended before all of it had come"))
            return None
        if self._parser is None or self._close:
            return None
        try:
            messages, _, _ = self._parser.feed_data(b"\r\n\r\n")  # that ends any head, and is nothing where there is none
        except BadHttpMessage as error:
            return error
        return BadHttpMessage("the head of a request did not end") if messages else None

    def _look_after(self) -> None:
        """Of an answer that has begun nothing is left to send, and nothing comes: to a client that may be gone for good it ends here."""
        wire = self.transport
        if wire is None or wire.is_closing():
            return
        sock, running = wire.get_extra_info("socket"), self._current_request
        begun = running is not None and running.writer.output_size > 0
        left = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
        self._quiet = self._quiet + 1 if begun and not left and not wire.get_write_buffer_size() else 0
        if self._quiet > QUIET_LOOKS:
            wire.close()
        else:
            asyncio.get_running_loop().call_later(QUIET_SECONDS, self._look_after)

    def connection_lost(self, exc: BaseException | None) -> None:
        """See asyncio."""
        super().connection_lost(exc)
        self.patience.end()
        self._lost()
        if self.leave is not None:
            self.leave()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """See aiohttp, which would look for more to parse whenever a piece of a body is read, paused or not."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def pause_writing(self) -> None:
        """See asyncio: an answer waits for its reader."""
        super().pause_writing()
        self.patience.begin()

    def resume_writing(self) -> None:
        """See asyncio: all of it was taken."""
        super().resume_writing()
        self.patience.end()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> NoReturn:
        """Answer bytes that are no HTTP, and what no handler caught. No hook of aiohttp's reaches this answer, and its own form
        of it names its version; so it is written here, and the error that comes after ends the connection."""
        if isinstance(exc, _Answered):
            raise exc  # aiohttp takes the error of an answer for one of a handler
        super().handle_error(request, status, exc, message)  # logs it, or raises if an answer is on its way already
        said = (
            "this is no HTTP/1.1 request that can be served" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "an error of this connector"
        )
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(said) + 1}\r\nDate: {formatdate(usegmt=True)}\r\nConnection: close\r\n\r\n"
        )
        if self.transport is not None:
            self.transport.write(f"{head}{said}\n".encode())
        raise _Answered


def _faulty(message: RawRequestMessage) -> str | None:
    """What aiohttp lets pass of a request, and two who read it could take for two things: versions that this is not, a framing that others
    do not know (RFC 9112, 6.1 and 7), a host that is none (3.2), and two tokens (RFC 9110, 5.3 and 11.6.2). None if it is in order."""
    if message.version not in VERSIONS:
        return "the version"
    if message.chunked and (message.version != VERSIONS[1] or message.headers[hdrs.TRANSFER_ENCODING].strip(" \t").lower() != "chunked"):
        return "the transfer coding"
    if not HOST.fullmatch(message.headers.get(hdrs.HOST, "")):
        return "the host"
    return "two tokens" if len(message.headers.getall(hdrs.AUTHORIZATION, ())) > 1 else None


def patient(request: web.Request, seconds: float) -> None:
    """Give this request's peer that much time for what it has not read."""
    if isinstance(request.protocol, Connection):
        request.protocol.patience.seconds = seconds


async def nameless(_request: web.Request, response: web.StreamResponse) -> None:
    """The signal that takes the name and the version of the software out of an answer."""
    response.headers.pop("Server", None)


class Entrance:
    """Lets connections in: the protocol factory of a listener. `speak` makes the protocol of one; `connections` and
    `per_address` bound how many are open at once, handshakes counted. `tls` gives the server's side of TLS for the next connection,
    or None."""

    def __init__(
        self,
        name: str,
        speak: Callable[[Patience, Callable[[], None]], Connection],
        tls: Callable[[], ssl.SSLContext | None],
        *,
        unread_seconds: float,
        connections: int,
        per_address: int,
        handshake_seconds: float,
    ) -> None:
        self._name, self._speak, self._tls, self._unread_seconds = name, speak, tls, unread_seconds
        self._connections, self._per_address, self._handshake_seconds = connections, per_address, handshake_seconds
        self._open: Counter[str] = Counter()
        self._count = 0
        self._said: dict[str, float] = {}
        self._secured: set[Secured] = set()
        self._none_secured = asyncio.Event()
        self._none_secured.set()
        self.closed = False

    def __call__(self) -> asyncio.Protocol:
        return _Arriving(self)

    def admit(self, wire: asyncio.Transport) -> None:
        """Let a connection in, or close it unheard: whoever sent a request has no answer and tries again."""
        if self.closed:  # it was accepted before the door was closed, and arrives after it
            wire.close()
            return
        address = site_of(wire.get_extra_info("peername"))
        if self._count >= self._connections or self._open[address] >= self._per_address:
            self._refused(wire, address)
            return
        self._count += 1
        self._open[address] += 1
        if (tls := self._tls()) is None:
            protocol = self._speak(Patience(wire, self._unread_seconds), partial(self._left, address))
            wire.set_protocol(protocol)
            protocol.connection_made(wire)
        else:
            self._secure(wire, tls, address)

    def _secure(self, wire: asyncio.Transport, tls: ssl.SSLContext, address: str) -> None:
        """Shake hands on a socket of our own: asyncio's lets go of it without having read anything."""
        try:
            sock = socket.socket(fileno=os.dup(wire.get_extra_info("socket").fileno()))
        except OSError as error:  # there is no descriptor left: it is closed unheard, and whoever comes again finds its place free
            self._left(address)
            self._say("connection refused", address, f"it could not be taken over: {error.strerror}")
            return
        finally:
            wire.abort()

        def lost() -> None:
            self._secured.discard(secured)
            self._left(address)
            if not self._secured:
                self._none_secured.set()

        def failed(error: OSError | None) -> None:
            lost()
            self._not_shaken(address, error)

        try:
            secured = Secured(sock, tls, handshake_seconds=self._handshake_seconds, linger_seconds=LINGER_SECONDS, failed=failed)
        except OSError:  # it is gone already
            sock.close()
            self._left(address)
            return
        self._secured.add(secured)
        self._none_secured.clear()
        secured.begin(self._speak(Patience(secured, self._unread_seconds), lost))

    async def end(self) -> None:
        """End what is still open under TLS, goodbyes above all. Nothing comes in any more."""
        for secured in self._secured:
            secured.abort()
        await self._none_secured.wait()

    def cut_certified(self) -> None:
        """End the connections whose clients have shown a certificate, or are about to: by what was believed when they came."""
        for secured in tuple(self._secured):
            if secured.certified:
                secured.abort()

    def _left(self, address: str) -> None:
        self._count -= 1
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]

    def _refused(self, wire: asyncio.Transport, address: str) -> None:
        bound = "connections" if self._count >= self._connections else "connections_per_address"
        self._say("connection refused", address, f"`limits.{bound}` is reached")
        wire.close()

    def _not_shaken(self, address: str, error: OSError | None) -> None:
        # What went wrong is a word of OpenSSL's, such as CERTIFICATE_VERIFY_FAILED; a scanner that speaks no TLS has none.
        if (reason := getattr(error, "reason", None)) is not None:
            why = getattr(error, "verify_message", None)  # such as `certificate revoked`
            self._say("handshake failed", address, str(reason).lower().replace("_", " ") + (f": {why}" if why else ""))

    def _say(self, event: str, address: str, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._said.get(event, float("-inf")) > SAID_SECONDS:
            self._said[event] = now
            telemetry.log.warning(event, door=self._name, peer=address, reason=reason)


class _Arriving(asyncio.Protocol):
    """What a connection speaks until it was let in."""

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._entrance.admit(transport)


def site_of(peername: Any) -> str:
    """Who counts as one peer: an IPv4 address, mapped into IPv6 or not, and the first SITE_BITS of an IPv6 address."""
    if not isinstance(peername, tuple) or not peername:
        return ""  # it is gone already
    host = str(peername[0]).partition("%")[0]
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, SITE_BITS), strict=False))
