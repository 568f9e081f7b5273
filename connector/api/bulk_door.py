"""The way out for large answers under TLS: the connection is lent to a thread, one window of the file at a time.

There is no second door beside the data listener that could take other requests than it. One parser reads each request, one handler
asks the gate, and only then the answer to a GET of one transfer's data takes this way, or the other.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address

from aiohttp import web

from connector.api.outlet import HttpOutlet, read_piece
from connector.api.secured import Secured
from connector.dataplane import bulk
from connector.errors import SourceFailed

LENT_BYTES = 512 * 1024  # below, the way to a thread and back costs what it saves
NAME_BYTES = 16  # of an algorithm of congestion control, at most
STILL_MEGABYTES = 4  # a kernel takes more only when a third of its buffer is free: a thread may stand still while a client reads


def way_out(request: web.Request, response: web.StreamResponse, threads: bulk.Threads, length: int, stall_seconds: float) -> HttpOutlet:
    """The way for an answer of `length` bytes: by a thread if it is large, goes over TLS, and one is free. A client has
    `stall_seconds` for a megabyte; once STILL_MEGABYTES have not moved in their time, it is given up."""
    secured = request.transport
    unpace(secured)
    if isinstance(secured, Secured) and length >= LENT_BYTES and threads.free:
        return BulkOutlet(request, response, secured, threads, stall_seconds)
    return HttpOutlet(request, response)


def unpace(transport: asyncio.Transport | None) -> None:
    """Let a kernel that paces what it sends (BBR) not do so towards this machine, where there is no road to spare: it sets a timer for
    each segment, which is a third of what sending a file costs here. A proxy in front of us is such a peer."""
    sock = transport.get_extra_info("socket") if transport is not None and hasattr(socket, "TCP_CONGESTION") else None
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.fileno() < 0:
        return
    if not ip_address(sock.getsockname()[0].removeprefix("::ffff:")).is_loopback:
        return
    if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, NAME_BYTES).startswith(b"bbr"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")  # which every kernel has and allows everybody


class BulkOutlet(HttpOutlet):
    """See `connector.dataplane.stream.Outlet`."""

    def __init__(
        self, request: web.Request, response: web.StreamResponse, secured: Secured, threads: bulk.Threads, stall_seconds: float
    ) -> None:
        super().__init__(request, response)
        self._secured, self._threads, self._stall_seconds = secured, threads, stall_seconds
        self._thread: Executor | None = None
        self.sends_files, self.window_bytes = True, bulk.WINDOW_BYTES

    @contextmanager
    def corked(self, _transport: asyncio.Transport | None) -> Iterator[None]:
        """Hold a thread. Corking gains nothing where every record is encrypted before it is sent."""
        with self._threads.held() as self._thread:
            yield

    async def send_file(self, descriptor: int, offset: int, count: int) -> None:
        if self._thread is not None:
            progress = bulk.Progress()
            with self._watched(progress) as patience:
                async with patience:
                    await self._secured.lend(partial(bulk.send, descriptor, offset, count, progress), self._thread)
            return
        # The last free one went to somebody else while the head of this answer was on its way.
        piece = await read_piece(descriptor, offset, count)
        await self.write(piece)
        if len(piece) != count:
            raise SourceFailed(bulk.TOO_SHORT)

    @contextmanager
    def _watched(self, progress: bulk.Progress) -> Iterator[asyncio.Timeout]:
        """A timeout that passes once nothing has moved for a while: that of the copy is one for the whole window."""
        loop, patience, seconds = asyncio.get_running_loop(), asyncio.timeout(None), self._stall_seconds * STILL_MEGABYTES
        timer: asyncio.TimerHandle

        def look(before: int) -> None:
            nonlocal timer
            if progress.sent == before:
                patience.reschedule(loop.time())
            else:
                timer = loop.call_later(seconds, look, progress.sent)

        timer = loop.call_later(seconds, look, 0)
        try:
            yield patience
        finally:
            timer.cancel()
