"""Threads that send files where the kernel cannot: each byte is encrypted on its way, which the event loop has no time for.

A thread carries one window of one answer. Whether the next one may leave is asked on the event loop in between (`stream`), at the same
place for every way out, so what cuts, meters or withholds there does so here too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

from connector.errors import SourceFailed

THREADS = 16
TOO_SHORT = "the file ended before its published size: publish it again"
WINDOW_BYTES = 16 * 1024 * 1024  # of one answer that a thread carries at a time: the way there and back is 0.3 ms of the loop
PIECE_BYTES = 256 * 1024  # read and encrypted at once: it stays in the cache of one core
_own = threading.local()


class Sends(Protocol):
    """A connection in blocking mode."""

    def sendall(self, data: memoryview, /) -> None:
        """Raises OSError if the client is gone."""


class Threads:
    """At most `most` of them. An answer holds one for as long as it takes; who finds none goes through the event loop, which is
    slower and is there for everybody: readers that take their time cannot keep others from their data."""

    def __init__(self, most: int = THREADS) -> None:
        self._free = most
        self._executor = ThreadPoolExecutor(most, thread_name_prefix="bulk") if most else None

    @property
    def free(self) -> int:
        """How many are held by nobody."""
        return self._free

    @contextmanager
    def held(self) -> Iterator[Executor | None]:
        """One thread for the block, or None if all are held."""
        if not self._free:
            yield None
            return
        self._free -= 1
        try:
            yield self._executor
        finally:
            self._free += 1

    def close(self) -> None:
        """End them. Nothing runs in them any more."""
        if self._executor is not None:
            self._executor.shutdown()


class Progress:
    """How far a thread has come, for whoever waits for it."""

    __slots__ = ("sent",)

    def __init__(self) -> None:
        self.sent = 0


def send(descriptor: int, offset: int, count: int, progress: Progress, connection: Sends) -> None:
    """Send `count` bytes of an open file, which holds the calling thread for as long as the client takes for them.

    The file is read and not mapped: one that is cut short under a mapping ends the process with SIGBUS. Raises SourceFailed if it
    is shorter or cannot be read, ConnectionError if the client is gone.
    """
    buffer: memoryview | None = getattr(_own, "buffer", None)
    if buffer is None:
        buffer = _own.buffer = memoryview(bytearray(PIECE_BYTES))
    end = offset + count
    while offset < end:
        try:
            read = os.preadv(descriptor, [buffer[: end - offset]], offset)
        except OSError as error:
            raise SourceFailed(f"the file cannot be read: {error.strerror}") from None
        if not read:
            raise SourceFailed(TOO_SHORT)
        try:
            connection.sendall(buffer[:read])
        except OSError:
            raise ConnectionResetError("the client is gone") from None
        offset += read
        progress.sent += read
