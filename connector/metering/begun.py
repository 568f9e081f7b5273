"""Records that begin in what leaves a stream, piece by piece: what quotas of records are counted by. Pure.

A line begins with its first byte. An event that a server sends (WHATWG HTML, 9.2.5 and 9.2.6) begins with the block of lines in which its
data are: blocks end with an empty line, lines with CR, LF or both, and a block without data, such as a comment that keeps a connection
alive, is none. What a stream begins with counts as a record, whatever it is: it may be the rest of one, whose beginning nobody counts here.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, Protocol

DATA: Final = b"data"
ENDS: Final = (b"\n", b"\r")


class Begun(Protocol):
    """Where in a stream it is. A piece is asked about before it is taken, and may be taken in parts."""

    def count(self, piece: bytes, end: int) -> int:
        """How many records begin in the first `end` bytes (one at least) of what comes next."""

    def up_to(self, piece: bytes, end: int, records: int) -> int:
        """The most of the first `end` bytes of what comes next in which at most so many records begin, and none is half there."""

    def take(self, piece: bytes) -> None:
        """These bytes (one at least) have left."""


def begun(unit: str) -> Begun | None:
    """The counter of a unit of records at the start of a stream; None if records of this unit are not counted so."""
    return Lines() if unit == "line" else Events() if unit == "message" else None


class Lines:
    """See `Begun`."""

    def __init__(self) -> None:
        self._within = False  # whether the next byte goes on with a line that counts already

    def count(self, piece: bytes, end: int) -> int:
        return (not self._within) + piece.count(b"\n", 0, end - 1)

    def up_to(self, piece: bytes, end: int, records: int) -> int:
        if self.count(piece, end) <= records:
            return end
        found = 0
        for _ in range(records + self._within):
            found = piece.index(b"\n", found) + 1
        return found

    def take(self, piece: bytes) -> None:
        self._within = piece[-1] != ord("\n")


class Whole:
    """Whether a stream of events, from its first byte to its last, is in the one spelling in which the events of finite data have a signed
    count: each has data and ends with one empty line, and lines end with LF. Then there are as many events as pairs of line feeds, which
    can be counted in any part of them."""

    def __init__(self) -> None:
        self._events, self._begun, self._ended = Events(), 0, 0
        self._tail, self._so_far = b"", True

    def take(self, piece: bytes) -> None:
        """These bytes (one at least) follow."""
        if not self._so_far:
            return
        seen = self._tail + piece
        starts = not self._tail and piece.startswith(b"\n")
        self._so_far = not starts and b"\r" not in piece and b"\n\n\n" not in seen
        self._begun += self._events.count(piece, len(piece))
        self._events.take(piece)
        self._ended += seen[-len(piece) - 1 :].count(b"\n\n")
        self._tail = seen[-2:]

    @property
    def holds(self) -> bool:
        """Whether it is, if this is all."""
        return self._so_far and self._begun == self._ended and self._tail in (b"", b"\n\n")


class Events:
    """See `Begun`."""

    def __init__(self) -> None:
        self._line = b""  # the start of the line that has begun, as much as says what it is
        self._counted = False  # whether the block counts already
        self._first = True  # it is the first one, which may have begun before
        self._after_return = False  # a line feed would belong to the line before
        self._seen: tuple[bytes, list[int], list[int]] | None = None

    def count(self, piece: bytes, end: int) -> int:
        return bisect_left(self._look(piece)[0], end)

    def up_to(self, piece: bytes, end: int, records: int) -> int:
        at, blocks = self._look(piece)
        return end if bisect_left(at, end) <= records else blocks[records]

    def take(self, piece: bytes) -> None:
        self._walk(piece, keep=True)
        self._seen = None

    def _look(self, piece: bytes) -> tuple[list[int], list[int]]:
        """For each event that begins in a piece: the place of the byte that says so, and of its block's first."""
        if self._seen is None or self._seen[0] is not piece:
            self._seen = (piece, *self._walk(piece, keep=False))
        return self._seen[1], self._seen[2]

    def _walk(self, piece: bytes, *, keep: bool) -> tuple[list[int], list[int]]:
        at, blocks = list[int](), list[int]()
        line, counted, first_block, block = self._line, self._counted, self._first, 0
        first = 1 if self._after_return and piece.startswith(b"\n") else 0
        offset = first
        for part in piece[first:].splitlines(keepends=True):
            ended = part.endswith(ENDS)
            known, line = len(line), line + part[: len(DATA) + 1]
            content = line.rstrip(b"\r\n")
            if not counted and (content.startswith(DATA + b":") or (ended and content == DATA) or (first_block and content)):
                at.append(offset if first_block else offset + max(0, min(len(DATA) - known, len(part) - 1)))
                blocks.append(block)
                counted = True
            offset += len(part)
            if ended and not content:
                counted, first_block, block = False, False, offset
            line = b"" if ended else line[: len(DATA) + 1]
        if keep:
            self._line, self._counted, self._first, self._after_return = line, counted, first_block, piece.endswith(b"\r")
        return at, blocks
