"""Connections to peers that carry one whole message after the other: a request goes out in one write, its answer is read by aiohttp's
parser.

aiohttp's connector makes them: it looks up the name, dials through the egress guard and speaks TLS. What its session does around each
request (cookies, redirects, proxies, a task that writes) costs more than all the rest of the request together, and a message to a peer
needs none of it.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections import deque
from collections.abc import Mapping
from functools import lru_cache

import aiohttp
from aiohttp.base_protocol import BaseProtocol
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError, HttpResponseParser, RawResponseMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from yarl import URL

from connector.errors import PeerFailed
from connector.origins import origin

READ_BUFFER_BYTES = 65_536  # of a body, before its sender is made to wait
SWITCHING = 101
IDENTITY = {"Accept-Encoding": "identity"}
BODILESS = frozenset({"GET", "HEAD"})
TARGET = re.compile(r"[/?]")
HEADER_NAMES = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]*")  # RFC 9110, 5.6.2
HEADER_VALUES = re.compile(r"[\t -~\x80-\U0010ffff]*")  # RFC 9110, 5.5: no line end, no control character
NO_BODY = frozenset({204, 304})  # RFC 9110, 6.4.1
CHUNKED = "chunked"

Answer = tuple[RawResponseMessage, StreamReader]


class Line(BaseProtocol):
    """One connection. It is good for another request as long as its peer has said what it was asked for, the whole of it, and no more."""

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop, *, bodies: bool) -> None:
        super().__init__(loop)
        self._connection, self._bodies = connection, bodies
        self._answer: asyncio.Future[Answer] | None = None
        self._payload: StreamReader = EMPTY_PAYLOAD
        self._last = not bodies
        self.since = 0.0  # when it was left, in the loop's time
        self._trailed = False  # whether the parser may hold trailers, which it would give to the next answer
        self._parser: HttpResponseParser = self._new_parser()

    def _new_parser(self) -> HttpResponseParser:
        return HttpResponseParser(
            self,
            self._loop,
            READ_BUFFER_BYTES,
            payload_exception=aiohttp.ClientPayloadError,
            response_with_body=self._bodies,
            read_until_eof=True,
            auto_decompress=False,
        )

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        """Send these bytes. The future has the head of the answer and its body, which may still be arriving. Raises, or fails with,
        aiohttp's errors."""
        if self.transport is None or self.transport.is_closing():
            raise aiohttp.ServerDisconnectedError
        self._answer = self._loop.create_future()
        self.transport.write(request)
        return self._answer

    @property
    def free(self) -> bool:
        """Whether it can be asked again."""
        asked = self._answer
        whole = asked is None or (asked.done() and not asked.cancelled() and self._payload.is_eof())
        return whole and not self._last and self.transport is not None and not self.transport.is_closing()

    def leave(self, now: float) -> None:
        """The answer was taken. What comes from now on was not asked for."""
        self._answer, self.since = None, now
        if self._trailed:
            self._parser, self._trailed = self._new_parser(), False

    def close(self) -> None:
        """End it, with what its peer has not taken yet: a connection to one that does not read would stay open for that."""
        if self.transport is not None and self.transport.get_write_buffer_size():
            self.transport.abort()
        self._connection.close()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._answer is None:
            self.close()
            return
        try:
            messages, upgraded, _ = self._parser.feed_data(data)
        except HttpProcessingError as error:
            self._fail(error)
            return
        for message, payload in messages:
            if message.code // 100 == 1 and message.code != SWITCHING:
                continue  # RFC 9110, 15.2: the answer is still to come
            if self._answer.done():
                self._last = True  # one answer more than there were questions
                break
            self._last = self._last or message.should_close or upgraded or message.code == SWITCHING
            self._trailed = message.chunked
            self._payload = EMPTY_PAYLOAD if message.code in NO_BODY else payload
            self._answer.set_result((message, self._payload))

    def resume_reading(self, resume_parser: bool = True) -> None:
        """See `BaseProtocol`, which would look for work at each piece that is read."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        """See `asyncio.Protocol`."""
        super().connection_lost(exc)
        if self._answer is not None and not self._answer.done():
            error = aiohttp.ServerDisconnectedError() if exc is None else aiohttp.ClientOSError(*exc.args)
            error.__cause__ = exc
            self._fail(error)
        elif not self._payload.is_eof():
            try:
                self._parser.feed_eof()  # it may be the end of a body without a length
            except (aiohttp.ClientPayloadError, HttpProcessingError) as error:
                self._fail(error)
        if (former := self._connection.protocol) is not None:
            former.connection_lost(exc)  # aiohttp waits for this when it closes
        self._connection.close()

    def late(self) -> None:
        """Its time is over: whoever waits for its answer, or for the rest of it, meets TimeoutError."""
        self._fail(TimeoutError(), TimeoutError())

    def _fail(self, error: Exception, within: Exception | None = None) -> None:
        self._last = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        elif not self._payload.is_eof():
            self._payload.set_exception(within or aiohttp.ClientPayloadError())
        self.close()


class Lines:
    """The lines that nobody speaks on, for `keep_seconds`, made by `connector` within the `connect` of `bounds`; an answer is whole within
    their `total`. Lives on one event loop."""

    def __init__(self, connector: aiohttp.TCPConnector, bounds: aiohttp.ClientTimeout, keep_seconds: float) -> None:
        self._connector, self._bounds, self._keep_seconds = connector, bounds, keep_seconds
        self._loop = asyncio.get_running_loop()
        self._idle: dict[tuple[str, ssl.SSLContext | bool], deque[Line]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._asked: dict[Line, float] = {}  # and when their time is over; one after the other, since all have as long
        self._watch: asyncio.TimerHandle | None = None  # one for all: nearly none is ever late

    async def take(self, origin: str, tls: ssl.SSLContext | bool, *, bodies: bool = True) -> Line:
        """A line to `origin`, for whoever takes it alone: the one that was left last, or a new one. `bodies` is whether answers have
        them (those to HEAD have not); a line without is not used again. Raises aiohttp's errors."""
        left = self._idle.get((origin, tls)) if bodies else None
        while left:
            line = left.pop()
            if line.free and self._loop.time() - line.since < self._keep_seconds:
                return line
            line.close()
        request = aiohttp.ClientRequest("GET", URL(origin), loop=self._loop, ssl=tls)
        connection = await self._connector.connect(request, [], self._bounds)
        line = Line(connection, self._loop, bodies=bodies)
        if (transport := connection.transport) is None:
            connection.close()
            raise aiohttp.ServerDisconnectedError
        transport.set_protocol(line)
        line.connection_made(transport)
        return line

    def ask(self, line: Line, request: bytes) -> asyncio.Future[Answer]:
        """See `Line.ask`. Fails with TimeoutError, as does the body, if the answer is not whole in time."""
        answer = line.ask(request)
        if self._bounds.total is not None:
            ends = self._asked[line] = self._loop.time() + self._bounds.total
            if self._watch is None:
                self._watch = self._loop.call_at(ends, self._look)
        return answer

    def _look(self) -> None:
        now, self._watch = self._loop.time(), None
        for line, ends in list(self._asked.items()):
            if ends > now:
                self._watch = self._loop.call_at(ends, self._look)
                break
            del self._asked[line]
            line.late()

    def leave(self, line: Line, origin: str, tls: ssl.SSLContext | bool) -> None:
        """Give a line back; one that cannot be asked again is closed."""
        self._asked.pop(line, None)
        if not line.free:
            line.close()
            return
        line.leave(self._loop.time())
        self._idle.setdefault((origin, tls), deque()).append(line)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self._keep_seconds, self._sweep)

    def end(self, origin: str) -> None:
        """Close what was left of an origin."""
        for key in [each for each in self._idle if each[0] == origin]:
            for line in self._idle.pop(key):
                line.close()

    def close(self) -> None:
        """Keep none any more. It is the connector that closes all that it has made."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._watch is not None:
            self._watch.cancel()
        self._idle.clear()

    def _sweep(self) -> None:
        end = self._loop.time() - self._keep_seconds
        for key, left in list(self._idle.items()):
            while left and left[0].since <= end:
                left.popleft().close()
            if not left:
                del self._idle[key]
        oldest = min((left[0].since for left in self._idle.values()), default=None)
        self._sweeper = None if oldest is None else self._loop.call_at(oldest + self._keep_seconds, self._sweep)


def fields_of(found: Mapping[str, str], where: str) -> dict[str, str]:
    """The fields of an answer of `where`, with lower-case names; what stands several times is one list (RFC 9110, 5.3). Raises PeerFailed
    for a transfer encoding other than `chunked`, also an empty one (RFC 9112, 6.1): nobody has asked for it, and with it no length counts
    and no end is said, so that a cut would pass for the whole."""
    fields: dict[str, str] = {}
    for name, value in found.items():
        key = name.lower()
        fields[key] = f"{fields[key]}, {value}" if key in fields else value
    if fields.get("transfer-encoding", CHUNKED).strip().lower() != CHUNKED:
        raise PeerFailed(f"`{where}` answered with a transfer encoding that was not asked for")
    return fields


def written(method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    """A request with its whole body (RFC 9112, 3). `url` is one that the guard has checked: it has no line end and no space. Raises
    PeerFailed for headers that cannot be sent."""
    demand_headers(headers)
    target = TARGET.search(url, len("https://"))
    path = url[target.start() :] if target else "/"
    own = {"Host": _host_of(origin(url)), **IDENTITY, **headers}
    if body is not None or method not in BODILESS:
        own["Content-Length"] = str(len(body or b""))
    lines = "".join([f"{name}: {value}\r\n" for name, value in own.items()])
    return f"{method} {path if path[0] == '/' else f'/{path}'} HTTP/1.1\r\n{lines}\r\n".encode() + (body or b"")


def demand_headers(headers: Mapping[str, str]) -> None:
    """Raise PeerFailed for a header that HTTP cannot carry, or that would be two."""
    names, values = "".join(headers), "".join(headers.values())  # each character is looked at, and none twice
    if not HEADER_NAMES.fullmatch(names) or not HEADER_VALUES.fullmatch(values) or "" in headers:
        raise PeerFailed("a header of the request has characters that a header cannot have; nothing was sent")


@lru_cache(maxsize=1024)
def _host_of(where: str) -> str:
    """What stands in `Host` for an origin: without a trailing dot, and without the scheme's own port (RFC 9110, 7.2)."""
    return URL(where).host_port_subcomponent or ""
