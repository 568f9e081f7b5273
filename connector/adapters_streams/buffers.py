"""Room for bytes while a thread hashes them, shared by all connections: as much as is hashed at a time, not as may ever be.

With a buffer of its own each of the two threads of a connection kept 4 MiB, from its first sixteen leaves on and for as long as it lived:
128 MiB for 16 connections.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

MOST_BYTES: Final = 16 << 20  # sixteen leaves for each of four threads, which hash more than a network brings, or a MiB for each of 16
WAIT_SECONDS: Final = 1.0  # for others: a disk that stands still under them holds nobody else


class Buffers:
    """Of `most_bytes` together, or more where nothing came back for `wait_seconds`. Safe for threads."""

    def __init__(self, most_bytes: int = MOST_BYTES, wait_seconds: float = WAIT_SECONDS) -> None:
        self._most_bytes, self._wait_seconds = most_bytes, wait_seconds
        self._changed = threading.Condition()
        self._free: list[bytearray] = []
        self._lent_bytes = 0

    @contextmanager
    def lent(self, length: int) -> Iterator[bytearray]:
        """One of at least `length` bytes, with anything in it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lent_bytes or self._lent_bytes + length <= self._most_bytes, self._wait_seconds)
            buffer = self._free.pop() if self._free else bytearray()
            if len(buffer) < length:
                buffer = bytearray(length)
            self._lent_bytes += len(buffer)
        try:
            yield buffer
        finally:
            with self._changed:
                self._lent_bytes -= len(buffer)
                if self._lent_bytes + sum(map(len, self._free)) + len(buffer) <= self._most_bytes:
                    self._free.append(buffer)
                self._changed.notify_all()

    def let_go(self) -> None:
        """Keep nothing for the next one: there is nothing to hash for now."""
        with self._changed:
            self._free.clear()
