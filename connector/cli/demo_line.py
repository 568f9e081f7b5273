"""The line between the two connectors of the demo: so slow that an eye can follow it, and it can be cut."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from types import TracebackType
from typing import Self

PIECE_BYTES = 32 * 1024  # what goes over the line at once
SOCKET_BYTES = 64 * 1024  # what the operating system may hold back on either side: what counts is what has arrived
RANGE = re.compile(rb"^range: bytes=(\d+)-\r?$", re.IGNORECASE | re.MULTILINE)


class Line:
    """Carries TCP connections to a port of this machine; an asynchronous context manager.

    What comes back is slowed down to `bytes_per_second`. `carried_bytes` counts it, and `resumed_at` lists the offsets from
    which requests on the line asked to go on.
    """

    def __init__(self, to_port: int, bytes_per_second: float) -> None:
        self._to_port, self._rate = to_port, bytes_per_second
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.carried_bytes = 0
        self.resumed_at: list[int] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0, limit=SOCKET_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server is not None  # noqa: S101 - entered
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Drop every connection with what is on its way. New ones are carried again."""
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _carry(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self._open.add(back)
        there: asyncio.StreamWriter | None = None
        try:
            far, there = await asyncio.open_connection("127.0.0.1", self._to_port, limit=SOCKET_BYTES)
            self._open.add(there)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forth(near, there))
                both.create_task(self._slowly_back(far, back))
        except* OSError:
            pass  # whoever is at the other end sees the cut, which is all that a line has to say
        finally:
            for writer in filter(None, (back, there)):
                self._open.discard(writer)
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    async def _forth(self, near: asyncio.StreamReader, there: asyncio.StreamWriter) -> None:
        while piece := await near.read(PIECE_BYTES):
            self.resumed_at += [int(offset) for offset in RANGE.findall(piece)]
            there.write(piece)
            await there.drain()
        raise ConnectionResetError

    async def _slowly_back(self, far: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        clock, next_at = asyncio.get_running_loop().time, 0.0
        while piece := await far.read(PIECE_BYTES):
            next_at = max(next_at, clock()) + len(piece) / self._rate
            back.write(piece)
            await back.drain()
            self.carried_bytes += len(piece)
            await asyncio.sleep(next_at - clock())
        raise ConnectionResetError
