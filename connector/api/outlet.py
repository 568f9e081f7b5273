"""The way out of the data listener: bytes of this process, or of a file that the kernel sends."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, cast

from aiohttp import web

from connector import telemetry
from connector.api.connections import Connection, cut
from connector.dataplane.stream import FILE_PIECE_BYTES
from connector.errors import SourceFailed
from connector.values import Value

FAST_PIECE_BYTES = 4 * FILE_PIECE_BYTES  # for a reader that took the last piece within FAST_SECONDS: a quarter of the turns of the loop
FAST_SECONDS = 0.25
PROBES = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))  # tcp(7): gone after a minute without an answer
UNREADABLE = frozenset({errno.EIO, errno.ESTALE})  # what `sendfile` says of the file, and not of the client
SILENT_SECONDS, UNANSWERED = 60.0, 3  # and so is who has something on its way; one probe of a full window may stay without an answer
LOOK_SECONDS = 5.0
INFO = struct.Struct("=2xBB52xI")  # of `struct tcp_info`: retransmissions and probes without an answer, milliseconds since one came


@contextmanager
def attended(request: web.BaseRequest, leave: Callable[[], None]) -> Iterator[None]:
    """Around an answer that waits for what may never come: `leave` is called once its client is gone, which no write would find out.
    Where nothing says so, as a network that is cut does not, the kernel asks; while something is on its way it only repeats that, for a
    quarter of an hour (tcp(7), `tcp_retries2`), so that is looked at here."""
    connection, transport = request.protocol, request.transport
    watch = _Watch(transport)
    if isinstance(connection, Connection):
        connection.leave = leave
    try:
        if transport is None:
            leave()
        yield
    finally:
        watch.end()
        if isinstance(connection, Connection):
            connection.leave = None


class _Watch:
    """Cuts a connection whose peer answers nothing any more. Who only pauses is not cut: its kernel answers for it."""

    def __init__(self, transport: asyncio.Transport | None) -> None:
        self._transport = transport
        self._timer: asyncio.TimerHandle | None = None
        if (sock := self._socket) is not None:
            for option, value in PROBES:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
            self._again()

    @property
    def _socket(self) -> socket.socket | None:
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        return sock if sock is not None and sock.fileno() >= 0 else None

    def _look(self) -> None:
        if (sock := self._socket) is None:
            return
        if is_silent(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO.size)):
            telemetry.log.info("connection cut", reason=f"nothing was answered for {SILENT_SECONDS:g} s, as where a network is cut")
            cut(self._transport)
        else:
            self._again()

    def _again(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def end(self) -> None:
        """Nobody waits any more."""
        if self._timer is not None:
            self._timer.cancel()


def is_silent(info: bytes) -> bool:
    """Whether a peer whose connection is as the kernel tells (`struct tcp_info`) is taken for gone. A window that is full is probed less
    and less often, every two minutes in the end, so neither the time alone says it, nor one probe."""
    repeated, probed, silent_ms = cast(tuple[int, int, int], INFO.unpack(info))
    return repeated + probed >= UNANSWERED and silent_ms >= SILENT_SECONDS * 1000


class HttpOutlet:
    """The way out to one client: see `connector.dataplane.stream.Outlet`."""

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self._request, self._response = request, response
        self._corked: socket.socket | None = None
        self.window_bytes = FILE_PIECE_BYTES
        transport = request.transport
        # Under TLS the event loop would read files 16 KiB at a time: pieces of 1 MiB are ten times faster.
        self.sends_files = transport is not None and transport.get_extra_info("sslcontext") is None

    @contextmanager
    def corked(self, transport: asyncio.Transport | None) -> Iterator[None]:
        """Full segments only while a file is sent (a tenth more on loopback, and fewer packets anywhere); what is left over at
        the end goes out at once. Linux only, where a listener of TCP has it."""
        sock = transport.get_extra_info("socket") if transport is not None and self.sends_files else None
        if sock is None or not hasattr(socket, "TCP_CORK") or sock.family not in (socket.AF_INET, socket.AF_INET6):
            yield
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        self._corked = sock
        try:
            yield
        finally:
            self._corked = None
            if sock.fileno() >= 0:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)

    def push(self) -> None:
        """See the protocol. Without it the kernel holds the end of a window for 200 ms, and a receipt waits for that end."""
        if self._corked is not None and self._corked.fileno() >= 0:
            self._corked.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
            self._corked.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)

    async def write(self, piece: bytes) -> None:
        await self._response.write(piece)

    async def send_file(self, descriptor: int, offset: int, count: int) -> None:
        transport = self._request.transport
        if transport is None or transport.is_closing():  # for the latter `sendfile` has an error that says nothing of whose it is
            raise ConnectionResetError("the client is gone")
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            taken = await loop.sendfile(transport, cast(IO[bytes], _Descriptor(descriptor)), offset, count, fallback=False)
            self.window_bytes = FAST_PIECE_BYTES if loop.time() - began < FAST_SECONDS else FILE_PIECE_BYTES
        except asyncio.SendfileNotAvailableError:  # some file systems have none; nothing has been sent then
            piece = await read_piece(descriptor, offset, count)
            await self._response.write(piece)
            taken = len(piece)
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            raise _unreadable(error) from None
        if taken != count:
            raise SourceFailed("the file ended before its published size: publish it again")


async def read_piece(descriptor: int, offset: int, count: int) -> bytes:
    """A piece of an open file, as much of it as there is. Raises SourceFailed."""
    try:
        return await asyncio.to_thread(os.pread, descriptor, count, offset)
    except OSError as error:
        raise _unreadable(error) from None


def _unreadable(error: OSError) -> SourceFailed:
    return SourceFailed(f"the file cannot be read: {error.strerror}")


class _Descriptor(Value):
    """As much of a file as `sendfile` looks at."""

    descriptor: int

    def fileno(self) -> int:
        return self.descriptor
