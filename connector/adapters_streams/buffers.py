"""Room for bytes while a thread hashes them, shared by all connections: as much as is hashed at a time, not as may ever be.

With a buffer of its own each of the two threads of a connection kept 4 MiB, from its first sixteen leaves on and for as long as it lived:
128 MiB for 16 connections.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

MOST_BYTES: Final = 16 << 20  # sixteen leaves for each of four threads, which hash more than a network brings, or a MiB for each of 16
WAIT_SECONDS: Final = 1.0  # for others: a disk that stands still under them holds nobody else


class Buffers:
    """Of `most_bytes` together, in the order in which they are asked for; what does not come back within `wait_seconds` counts no more.
    Safe for threads."""

    def __init__(self, most_bytes: int = MOST_BYTES, wait_seconds: float = WAIT_SECONDS) -> None:
        self._most_bytes, self._wait_seconds = most_bytes, wait_seconds
        self._lock = threading.Lock()
        self._waiting: deque[threading.Condition] = deque()  # each is told when it may be its turn: all at once would wake for nothing
        self._free: list[bytearray] = []
        self._lent: dict[int, tuple[float, int]] = {}  # by the number of the loan: until when it counts, and its bytes; the oldest first
        self._loans = 0

    @contextmanager
    def lent(self, length: int) -> Iterator[bytearray]:
        """One of at least `length` bytes, with anything in it."""
        with self._lock:
            self._wait_for(length)
            buffer = self._free.pop() if self._free else bytearray()
            if len(buffer) < length:
                buffer = bytearray(length)
            self._loans += 1
            loan, self._lent[self._loans] = self._loans, (monotonic() + self._wait_seconds, len(buffer))
            self._trim()
        try:
            yield buffer
        finally:
            with self._lock:
                del self._lent[loan]
                self._free.append(buffer)
                self._trim()
                self._tell_next()

    def let_go(self) -> None:
        """Keep nothing for the next one: there is nothing to hash for now."""
        with self._lock:
            self._free.clear()

    def _trim(self) -> None:
        """Keep no more for later than there may be beside what is lent."""
        while self._free and sum(map(len, self._free)) + sum(length for _, length in self._lent.values()) > self._most_bytes:
            self._free.pop()

    def _wait_for(self, length: int) -> None:
        turn = threading.Condition(self._lock)
        self._waiting.append(turn)
        try:
            while (seconds := self._seconds_for(turn, length)) != 0:
                turn.wait(seconds)
        finally:
            self._waiting.remove(turn)
            self._tell_next()

    def _seconds_for(self, turn: threading.Condition, length: int) -> float | None:
        """For how long there will be no room for the one whose turn this is, unless something comes back; None: until it is told."""
        if self._waiting[0] is not turn:
            return None
        now = monotonic()
        counting = [(until, each) for until, each in self._lent.values() if until > now]
        if not counting or sum(each for _, each in counting) + length <= self._most_bytes:
            return 0
        return counting[0][0] - now

    def _tell_next(self) -> None:
        if self._waiting:
            self._waiting[0].notify()
