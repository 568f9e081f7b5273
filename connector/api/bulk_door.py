"""The way out for large answers under TLS: the connection is lent to a thread, one window of the file at a time.

There is no second door beside the data listener that could take other requests than it. One parser reads each request, one handler
asks the gate, and only then the answer to a GET of one transfer's data takes this way, or the other.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial

from aiohttp import web

from connector.api.outlet import HttpOutlet
from connector.api.secured import Secured
from connector.dataplane import bulk
from connector.errors import SourceFailed

LENT_BYTES = 512 * 1024  # below, the way to a thread and back costs what it saves


def way_out(request: web.Request, response: web.StreamResponse, threads: bulk.Threads, length: int) -> HttpOutlet:
    """The way for an answer of `length` bytes: by a thread if it is large, goes over TLS, and one is free."""
    secured = request.transport
    if isinstance(secured, Secured) and length >= LENT_BYTES and threads.free:
        return BulkOutlet(request, response, secured, threads)
    return HttpOutlet(request, response)


class BulkOutlet(HttpOutlet):
    """See `connector.dataplane.stream.Outlet`."""

    def __init__(self, request: web.Request, response: web.StreamResponse, secured: Secured, threads: bulk.Threads) -> None:
        super().__init__(request, response)
        self._secured, self._threads = secured, threads
        self._thread: Executor | None = None
        self.sends_files = True

    @contextmanager
    def corked(self, _transport: asyncio.Transport | None) -> Iterator[None]:
        """Hold a thread. TLS makes full segments by itself."""
        with self._threads.held() as self._thread:
            yield

    async def send_file(self, descriptor: int, offset: int, count: int) -> None:
        if self._thread is not None:
            await self._secured.lend(partial(bulk.send, descriptor, offset, count), self._thread)
            return
        # The last free one went to somebody else while the head of this answer was on its way.
        piece = await asyncio.to_thread(os.pread, descriptor, count, offset)
        await self.write(piece)
        if len(piece) != count:
            raise SourceFailed(bulk.TOO_SHORT)
