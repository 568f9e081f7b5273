"""The wire between consumer and provider, before the door of whoever is dialled: it counts what passes, and breaks where it is told to."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Self

from tests.faults.streams.plan import KILLS, Cut

PIECE_BYTES = 1 << 18
LINK_BYTES = 8 << 20  # that whoever sends may lose in a link that is cut, or of which nobody hears any more: buffers of both systems
LEG_BYTES = 1 << 16  # a connection that has brought so many brings data, and not what is said about them
DOWN, UP = "down", "up"
# What the consumer and what the provider see of a connection that is cut.
SEEN = {
    "client reset": ("end", "reset"),
    "server reset": ("reset", "end"),
    "both reset": ("reset", "reset"),
    "orderly end": ("end", "end"),
    "stall": ("reset", "reset"),
}
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closed without waiting, with a reset


class Line:
    """One connection, as it passes through, whichever side has dialled it."""

    def __init__(self, consumer: asyncio.StreamWriter, provider: asyncio.StreamWriter) -> None:
        self.consumer, self.provider = consumer, provider
        self.silent = asyncio.Event()  # set once nothing passes any more
        self.gone = asyncio.Event()  # set once it is over
        self.brought = 0  # bytes, to the consumer
        self.over = False

    def end(self, consumer: str, provider: str) -> None:
        """Let both sides see an `end` or a `reset`."""
        self.over = True
        self.gone.set()
        for writer, how in ((self.consumer, consumer), (self.provider, provider)):
            transport: asyncio.Transport = writer.transport
            if how == "end":  # what still comes is read and dropped: unread, it would be a reset
                with suppress(OSError, RuntimeError):
                    writer.write_eof()
                continue
            one: socket.socket | None = transport.get_extra_info("socket")
            if one is not None and one.fileno() != -1:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            transport.abort()


class Wire:
    """An asynchronous context manager: listens on `port`, and passes on to `to`. `rate` bounds what goes down, in bytes a second. It is
    the consumer that dials, or, where data are `pushed`, the provider."""

    def __init__(self, port: int, to: int, rate: float | None = None, *, pushed: bool = False) -> None:
        self._port, self._to, self.rate, self._pushed = port, to, rate, pushed
        self._cuts: deque[Cut] = deque()
        self._strike: Callable[[Cut], Awaitable[None]] | None = None
        self._lines: set[Line] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._down = False
        self._since = {DOWN: 0, UP: 0}
        self.passed = {DOWN: 0, UP: 0}
        self.last_down = 0.0  # `time.monotonic` of the last byte that came from the provider
        self.done: list[Cut] = []
        self.legs: list[int] = []  # over how many connections data came when each of them was done
        self.flowing = asyncio.Event()  # set once `mark` bytes have gone down
        self.mark = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port, limit=PIECE_BYTES)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for line in tuple(self._lines):
            line.end("reset", "reset")

    def arm(self, cuts: Sequence[Cut], strike: Callable[[Cut], Awaitable[None]]) -> None:
        """Count anew, and cut so; `strike` does what the wire cannot, which is to kill."""
        self._cuts, self._strike, self.done, self.legs = deque(cuts), strike, [], []
        self._since, self.passed = {DOWN: 0, UP: 0}, {DOWN: 0, UP: 0}
        self.flowing.clear()

    def disarm(self) -> list[Cut]:
        """Cut no more; returns what was cut."""
        self._cuts.clear()
        return self.done

    async def settled(self) -> None:
        """Wait for what was struck: whoever was killed runs again."""
        while strikes := [task for task in self._tasks if task.get_name() == "strike"]:
            await asyncio.gather(*strikes)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._carry(reader, writer)
        except asyncio.CancelledError:
            return
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._down:
            writer.transport.abort()
            return
        try:
            server_reader, server = await asyncio.open_connection(sock=await self._dial(), limit=PIECE_BYTES)
        except OSError:  # it was killed
            writer.transport.abort()
            return
        line = Line(server, writer) if self._pushed else Line(writer, server)
        there, back = (DOWN, UP) if self._pushed else (UP, DOWN)
        self._lines.add(line)
        pumps = [
            asyncio.create_task(self._pump(line, there, reader, server)),
            asyncio.create_task(self._pump(line, back, server_reader, writer)),
        ]
        try:
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._lines.discard(line)
            server.close()

    async def _dial(self) -> socket.socket:
        """A connection to whoever is dialled. One that is to be slow holds little on its way: what comes through has just left."""
        one = socket.socket()
        try:
            if self.rate is not None:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE_BYTES)
            one.setblocking(False)
            await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", self._to))
        except BaseException:
            one.close()
            raise
        return one

    async def _pump(self, line: Line, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lost = 0
        try:
            while data := await reader.read(PIECE_BYTES):
                if line.silent.is_set() or line.over:  # what is said goes nowhere
                    lost += len(data)
                    if lost > LINK_BYTES and not line.over:
                        await line.gone.wait()
                    elif lost > LINK_BYTES:
                        line.end("reset", "reset")
                    continue
                await self._passing.wait()
                if way == DOWN:
                    self.last_down = time.monotonic()
                await self._pass_on(line, way, data, writer)
                if way == DOWN and self.rate is not None:
                    await asyncio.sleep(len(data) / self.rate)
            if not line.silent.is_set() and not line.over:
                writer.write_eof()
        except OSError:
            if not line.over:
                line.end("reset", "reset")
        if line.silent.is_set():
            line.end("reset", "reset")  # one side has given up

    async def _pass_on(self, line: Line, way: str, data: bytes, writer: asyncio.StreamWriter) -> None:
        while self._cuts and self._cuts[0].way == way and self._since[way] + len(data) > self._cuts[0].at:
            cut = self._cuts.popleft()
            head = max(cut.at - self._since[way], 0)
            writer.write(data[:head])
            self._count(line, way, head)
            self._since = {DOWN: 0, UP: 0}
            data = data[head:]
            with suppress(ConnectionError):
                await writer.drain()
            self.done.append(cut)
            self.legs.append(sum(each.brought >= LEG_BYTES and not each.over for each in self._lines))
            await self._do(cut, line)
            if line.over or line.silent.is_set():
                return
        writer.write(data)
        self._count(line, way, len(data))
        await writer.drain()

    def _count(self, line: Line, way: str, count: int) -> None:
        self._since[way] += count
        self.passed[way] += count
        line.brought += count if way == DOWN else 0
        if way == DOWN and self.passed[DOWN] >= self.mark:
            self.flowing.set()

    async def _do(self, cut: Cut, line: Line) -> None:
        match cut.how:
            case "link down":
                self._down = True
                for each in tuple(self._lines):
                    each.end("reset", "reset")
                self._spawn(self._up_again(cut.pause_seconds))
            case "silence":
                line.silent.set()
            case how if how in KILLS:
                assert self._strike is not None
                self._spawn(self._strike(cut))
                await asyncio.sleep(0)  # it begins before another byte passes
            case how:
                if how == "stall":
                    self._passing.clear()
                    await asyncio.sleep(cut.pause_seconds)
                    self._passing.set()
                line.end(*SEEN[how])

    async def _up_again(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._down = False

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[Any] = asyncio.create_task(work, name="strike")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
