"""Answers whose body nobody has read: their head is read on the event loop, and their socket goes to whoever takes the rest off it.

aiohttp's connector makes the connection, through the egress guard, and aiohttp's parser reads the head, of which it gets no byte more. How
the body is framed (RFC 9112, 6.3) is said beside the socket. Plain HTTP only: TLS has a state that does not go with a socket.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Final

import aiohttp
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, HttpResponseParser, RawResponseMessage
from yarl import URL

from connector.adapters_streams.peer_lines import SWITCHING, fields_of, written
from connector.origins import origin
from connector.ports.live import Unread

HEAD_BYTES_MAX: Final = 65_536
INTERIM_MAX: Final = 32  # answers before the answer; each costs the event loop what a head does
BODY_BYTES: Final = 65_536  # that aiohttp's parser would read ahead, if it got any
END_OF_HEAD: Final = b"\r\n\r\n"

Head = tuple[RawResponseMessage, bytes]


class _Reading(BaseProtocol):
    """Reads up to the end of the head, and no further than what has come with it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.head: asyncio.Future[Head] = loop.create_future()
        self._came, self._interim = b"", 0

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._came += data
        try:
            while not self.head.done() and (end := self._came.find(END_OF_HEAD) + len(END_OF_HEAD)) >= len(END_OF_HEAD):
                head, self._came = self._came[:end], self._came[end:]
                self._take(head)
            if not self.head.done() and len(self._came) > HEAD_BYTES_MAX:
                raise HttpProcessingError(code=400, message="the head of the answer has no end")
        except (HttpProcessingError, ValueError) as error:
            self.head.set_exception(error)

    def _take(self, head: bytes) -> None:
        parser = HttpResponseParser(self, self._loop, BODY_BYTES, auto_decompress=False, read_until_eof=True)
        ((message, _),), _, _ = parser.feed_data(head)
        if message.code // 100 != 1 or message.code == SWITCHING:  # RFC 9110, 15.2: else the answer is still to come
            assert self.transport is not None  # noqa: S101 - it has brought these bytes
            self.transport.pause_reading()
            self.head.set_result((message, self._came))
            return
        self._interim += 1
        if self._interim > INTERIM_MAX:
            raise HttpProcessingError(code=400, message="the answer does not come for all that is said before it")

    def connection_lost(self, exc: BaseException | None) -> None:
        """See `asyncio.Protocol`."""
        super().connection_lost(exc)
        if not self.head.done():
            self.head.set_exception(aiohttp.ServerDisconnectedError() if exc is None else aiohttp.ClientOSError(*exc.args))


async def unread(
    connector: aiohttp.BaseConnector | None, connect_seconds: float, url: str, headers: Mapping[str, str], idle_seconds: float
) -> Unread | None:
    """GET `url`, whose form the guard has checked; None for TLS. `connector` is that of a session that is open, `connect_seconds` the time
    to be connected in, `idle_seconds` that for the head. Raises TimeoutError, OSError, ValueError, errors of aiohttp, and PeerFailed for
    headers that cannot be sent."""
    request, where, loop = written("GET", url, headers, None), origin(url), asyncio.get_running_loop()
    if where.startswith("https:"):
        return None
    assert connector is not None  # noqa: S101
    asked = aiohttp.ClientRequest("GET", URL(where), loop=loop)
    connection = await connector.connect(asked, [], aiohttp.ClientTimeout(None, connect_seconds))
    try:
        if (transport := connection.transport) is None:
            raise aiohttp.ServerDisconnectedError
        former, reading = connection.protocol, _Reading(loop)
        transport.set_protocol(reading)
        reading.connection_made(transport)
        transport.write(request)
        try:
            async with asyncio.timeout(idle_seconds):
                message, ahead = await reading.head
            found = fields_of(message.headers, where)
            descriptor = os.dup(transport.get_extra_info("socket").fileno())
        finally:
            if former is not None:
                former.connection_lost(None)  # aiohttp waits for this when it closes
            transport.abort()
    finally:
        connection.close()
    length = None if message.chunked else found.get("content-length")
    return Unread(message.code, found, descriptor, ahead, None if length is None else int(length), message.chunked, where)
