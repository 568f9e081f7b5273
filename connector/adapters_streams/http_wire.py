"""The body of an answer that does not end, off its socket in large steps, by a thread that is held only while there is something to take.

What has come lies in one buffer that is used again and again, with the framing of chunks (RFC 9112, 7.1) taken out where it lies: a byte is
received into memory that is at hand, and copied once, by whoever keeps it.
"""

from __future__ import annotations

import asyncio
import re
import select
import socket
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor, Future
from typing import Any, Final, TypeVar

from connector.errors import PeerFailed
from connector.ports.live import Unread

LINGER_SECONDS: Final = 0.01  # after the first byte, for more of them
LOW_BYTES: Final = 256 * 1024  # that are waited for meanwhile: fewer cost a turn each
HELD_SECONDS: Final = 0.25  # that a thread takes what comes without a pause: others have their turn then, and frames alone fill no buffer
FIRST_BYTES: Final = 256 * 1024  # the room for what comes, until that was full once: most sources are quiet ones, and there may be many
AHEAD: Final = 2  # buffers that are taken and nobody has asked for yet
FRAME_BYTES_MAX: Final = 8192  # of a line between chunks, its extensions included, and of all trailers
T = TypeVar("T")
NEXT: Final = re.compile(rb"\r\n(?!0+\r)([0-9A-Fa-f]{1,15})\r\n")  # between two chunks
CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r]*)?\r")


class Wire:
    """The answer `unread`; `threads` take what comes of it."""

    def __init__(self, unread: Unread, threads: Executor) -> None:
        self._threads = threads
        self._work: Future[Any] | None = None
        self.status, self.headers = unread.status, unread.headers
        self._socket, self._where = socket.socket(fileno=unread.descriptor), unread.where
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._ahead = memoryview(unread.ahead)
        self._chunked, self._left = unread.chunked, 0 if unread.chunked else unread.length  # of the body, or of a chunk of it
        self._frame, self._behind = b"", False  # a line in part; behind a chunk
        self._trails = 0  # bytes behind the last chunk, its line included
        self._ended = self._left == 0 and not self._chunked

    async def each(self, take: Callable[[bytearray, int], T], most_bytes: int, idle_seconds: float) -> AsyncGenerator[T, None]:
        """What `take` makes of the body, in a thread: of the first bytes of a buffer, up to `most_bytes` of them at a time. A thread that
        fills its buffer goes on, AHEAD of who asks and for HELD_SECONDS. Raises what `take` raises, and PeerFailed if the body is cut, or
        nothing of it comes for `idle_seconds`; what came before that is taken first."""
        buffer, loop = bytearray(min(FIRST_BYTES, most_bytes)), asyncio.get_running_loop()
        taken, news = deque[T](), asyncio.Event()
        work: asyncio.Future[bool] | None = None

        def steps() -> bool:
            """Whether more is there already."""
            nonlocal buffer
            filled, until = True, time.monotonic() + HELD_SECONDS
            while filled and not self._ended and len(taken) < AHEAD and time.monotonic() < until:
                count = self._fill(buffer)
                taken.append(take(buffer, count))
                loop.call_soon_threadsafe(news.set)
                if (filled := count == len(buffer)) and count < most_bytes:
                    buffer = bytearray(most_bytes)
            return filled

        full = False
        try:
            while taken or work is not None or not self._ended:
                if work is not None and work.done() and not (taken and work.exception()):
                    full, work = work.result(), None
                if work is None and not self._ended and len(taken) < AHEAD and (full or not taken):
                    if not full:
                        await self._come(idle_seconds)
                    self._work = self._threads.submit(steps)
                    work = asyncio.wrap_future(self._work)
                    work.add_done_callback(lambda _: news.set())
                if taken:
                    yield taken.popleft()
                elif work is not None:
                    await news.wait()
                    news.clear()
        finally:
            if work is not None:
                work.cancel()  # one that has not begun never does; what another one comes to, nobody asks any more

    def close(self) -> None:
        """Let go of the connection, once no thread takes of it any more."""
        if self._work is None:
            self._socket.close()
        else:
            self._work.add_done_callback(lambda _: self._socket.close())

    async def _come(self, idle_seconds: float) -> None:
        """Return once there is something to take."""
        if self._ahead:
            return
        loop = asyncio.get_running_loop()
        there = asyncio.Event()
        loop.add_reader(self._socket, there.set)
        try:
            async with asyncio.timeout(idle_seconds):
                await there.wait()
        except TimeoutError:
            raise PeerFailed(f"`{self._where}` stopped sending in the middle of its answer") from None
        finally:
            loop.remove_reader(self._socket)

    def _fill(self, buffer: bytearray) -> int:
        """Take what there is, or comes within LINGER_SECONDS of its first byte, until the buffer is full. Returns how much of the body
        that is."""
        view, end, until = memoryview(buffer), 0, 0.0
        while end < len(buffer) and not self._ended:
            try:
                got = self._receive(view[end:] if self._left is None or self._chunked else view[end : end + self._left])
            except BlockingIOError:
                if until and self._more_comes(until):
                    continue
                break
            if not got:
                self._ended = self._left is None
                if end or self._ended:
                    break
                raise PeerFailed(f"`{self._where}` closed the connection in the middle of its answer")
            now = time.monotonic()
            until = until or now + LINGER_SECONDS
            end = self._joined(buffer, end, end + got) if self._chunked else self._counted(end, got)
            if now > until + HELD_SECONDS:
                break
        return end

    def _receive(self, into: memoryview) -> int:
        """How many bytes came, 0 if none will. Raises BlockingIOError if there are none yet."""
        if self._ahead:
            got = min(len(into), len(self._ahead))
            into[:got], self._ahead = self._ahead[:got], self._ahead[got:]
            return got
        try:
            return self._socket.recv_into(into)
        except BlockingIOError:
            raise
        except OSError:  # also for a network that was cut, or that says there is no way to the peer
            return 0

    def _more_comes(self, until: float) -> bool:
        """Wait for a good piece more, and take what there is when the time is up."""
        if (left := until - time.monotonic()) <= 0:
            return False
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, LOW_BYTES)
        try:
            return bool(self._poll.poll(left * 1000)) or time.monotonic() >= until
        finally:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    def _counted(self, end: int, got: int) -> int:
        if self._left is not None:
            self._left -= got
            self._ended = not self._left
        return end + got

    def _joined(self, buffer: bytearray, first: int, end: int) -> int:
        """Move what is of the body in [first, end) together; returns where it ends."""
        view, at, next_chunk = memoryview(buffer), first, NEXT.match
        while at < end and not self._ended:
            # Where each record is a chunk this is done to each record: from the end of one chunk to that of the next in one step.
            while self._behind and not (self._left or self._frame) and (found := next_chunk(buffer, at, end)) is not None:
                at, size = found.end(), int(found[1], 16)
                stop = at + size
                if stop > end:
                    stop, self._left = end, stop - end
                count = stop - at
                view[first : first + count] = view[at:stop]
                first, at = first + count, stop
            if self._left:
                count = min(self._left, end - at)
                if first != at:
                    view[first : first + count] = view[at : at + count]
                first, at, self._left = first + count, at + count, self._left - count
                continue
            stop = buffer.find(b"\n", at, end)
            self._frame += buffer[at : end if stop < 0 else stop]
            if len(self._frame) > FRAME_BYTES_MAX:
                raise self._misframed()
            if stop < 0:
                break
            at = stop + 1
            self._framed()
        return first

    def _framed(self) -> None:
        """Read a line between chunks: the size of the next one, the end of the last, or a trailer, which says nothing to us."""
        line, self._frame = self._frame, b""
        if self._trails:
            self._ended, self._trails = line == b"\r", self._trails + len(line)
            if self._trails > FRAME_BYTES_MAX:
                raise self._misframed()
        elif self._behind:
            if line != b"\r":
                raise self._misframed()
            self._behind = False
        elif (found := CHUNK.fullmatch(line)) is None:
            raise self._misframed()
        else:
            self._left = int(found[1], 16)
            self._behind, self._trails = bool(self._left), 0 if self._left else len(line)

    def _misframed(self) -> PeerFailed:
        return PeerFailed(f"`{self._where}` has framed its answer in a way that is not that of chunks")
