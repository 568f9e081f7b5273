"""One answer with data, compared leaf by leaf with what the content log says, and put where it belongs.

A leg takes windows, one after the other. Where it can, threads move the bytes (`Mover`); what they have moved counts when its hashes
are right, and what is wrong is moved over once more. Elsewhere (TLS, sinks without a descriptor) a leaf is compared first and
written then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from msgspec import Struct

from connector.errors import ConnectorError, PeerFailed
from connector.lanes.counting import records_in
from connector.lanes.hashing import batch_bytes, leaf_hashes, spans_of
from connector.lasting import stopped
from connector.ports import Download as Incoming
from connector.ports.sinks import Move, Mover, Movers, Placed
from connector.values import Value, field

STILL_SECONDS = 0.005  # without more of an answer: what has come is looked at
BATCH_BYTES = 1024 * 1024  # hashed in a thread at once: below, the hop costs more than the work
BATCHES_BYTES = 16 * BATCH_BYTES  # of all legs whose bytes come through the event loop, where each would take more of them at once


class Window(Struct, eq=False):
    """Leaves that are on their way: from leaf `first` on those with the hashes `expected`, at `offset`, `length` bytes in all.

    `seen` of them have come. `wrong` holds the leaves that had another hash, and which. `move` tells when there are no more to come.
    """

    first: int
    expected: Sequence[bytes]
    offset: int
    length: int
    move: Move
    seen: int = 0
    wrong: dict[int, bytes] = field(default_factory=dict)

    def look(self) -> list[tuple[int, int]]:
        """Compare what has come since the last time; returns the leaves that are right, in ranges [from, to)."""
        right: list[tuple[int, int]] = []
        hashes = self.move.hashes
        for at in range(self.seen, len(hashes)):
            leaf = self.first + at
            if hashes[at] != self.expected[at]:
                self.wrong[leaf] = hashes[at]
            elif right and right[-1][1] == leaf:
                right[-1] = (right[-1][0], leaf + 1)
            else:
                right.append((leaf, leaf + 1))
        self.seen = len(hashes)
        return right


class Leg(Protocol):
    """One answer."""

    def take(self, first: int, expected: Sequence[bytes], offset: int, length: int) -> Window:
        """Let the next `length` bytes of the body be these leaves."""

    async def close(self) -> None:
        """Stop at once, and let go of everything."""


class Cut(Value):
    """How the data are cut into leaves: `chunk_bytes` each, and the `unit` of the records that are counted."""

    chunk_bytes: int
    unit: str


def leg(incoming: Incoming, sink: Placed, cut: Cut, movers: Movers, idle_seconds: float) -> Leg:
    """The fastest that there is for this answer and this sink."""
    into = sink.fileno()
    detached = incoming.detach() if into is not None else None
    if into is None or detached is None:
        return Pieces(incoming, sink, cut)
    return Moved(movers(detached, into, idle_seconds), cut)


class Moved:
    """A leg whose bytes threads move."""

    def __init__(self, mover: Mover, cut: Cut) -> None:
        self._mover, self._cut = mover, cut

    def take(self, first: int, expected: Sequence[bytes], offset: int, length: int) -> Window:
        """See `Leg`."""
        return Window(first, expected, offset, length, self._mover.move(offset, length, self._cut.chunk_bytes, self._cut.unit))

    async def close(self) -> None:
        """See `Leg`."""
        await self._mover.close()


class Pieces:
    """A leg whose bytes come through the event loop. A leaf that is wrong is not written."""

    filling = 0  # legs that read just now, of all orders

    def __init__(self, incoming: Incoming, sink: Placed, cut: Cut) -> None:
        self._pieces, self._sink, self._cut = incoming.chunks(), sink, cut
        self._rest = b""
        self._coming: asyncio.Future[bytes] | None = None
        self._broken: ConnectorError | None = None
        self._windows: asyncio.Queue[Window] = asyncio.Queue()
        self._task = asyncio.create_task(self._run(), name="leg")

    def take(self, first: int, expected: Sequence[bytes], offset: int, length: int) -> Window:
        """See `Leg`."""
        finished = asyncio.get_running_loop().create_future()
        finished.add_done_callback(_seen)
        window = Window(first, expected, offset, length, Move(finished))
        self._windows.put_nowait(window)
        return window

    async def close(self) -> None:
        """See `Leg`."""
        await stopped(self._task, self._coming)
        if isinstance(self._pieces, AsyncGenerator):
            await self._pieces.aclose()
        while not self._windows.empty():
            _settle(self._windows.get_nowait().move.finished, PeerFailed("the download was stopped"))

    async def _run(self) -> None:
        while True:
            window = await self._windows.get()
            finished = window.move.finished
            try:
                Pieces.filling += 1
                if self._broken is None:
                    await self._fill(window)
            except ConnectorError as error:
                self._broken = error
            except BaseException as error:
                _settle(finished, error if isinstance(error, Exception) else PeerFailed("the download was stopped"))
                raise
            finally:
                Pieces.filling -= 1
            _settle(finished, self._broken)

    async def _fill(self, window: Window) -> None:
        at, end, chunk_bytes = window.offset, window.offset + window.length, self._cut.chunk_bytes
        while at < end:
            body, cut = await self._read(end - at)
            view, spans = memoryview(body), spans_of(len(body), chunk_bytes)
            hashes = await asyncio.to_thread(leaf_hashes, body, spans)
            done = len(window.move.hashes)
            right = [got == window.expected[done + n] for n, got in enumerate(hashes)]
            if all(right):
                if body:
                    await self._sink.write(at, body)
            else:
                for n, (first, last) in enumerate(spans):
                    if right[n]:
                        await self._sink.write(at + first, view[first:last])
            if self._cut.unit != "none":
                window.move.records += [records_in(body, self._cut.unit, *span) for span in spans]
            window.move.hashes += hashes
            at += len(body)
            if cut is not None:
                raise cut

    def _most(self, left: int) -> int:
        """How many of `left` bytes are hashed at once."""
        most = max(min(batch_bytes(BATCH_BYTES), BATCHES_BYTES // Pieces.filling), BATCH_BYTES)
        return min(max(most // self._cut.chunk_bytes, 1) * self._cut.chunk_bytes, left)

    async def _read(self, left: int) -> tuple[bytes, PeerFailed | None]:
        """The next of `left` bytes, as many as are hashed at once; fewer, but whole chunks, if no more are there now, or, with the reason,
        if no more come."""
        pieces, have = [self._rest], len(self._rest)
        cut: PeerFailed | None = None
        while have < (count := self._most(left)) and cut is None:
            if self._coming is None:
                self._coming = asyncio.ensure_future(anext(self._pieces, b""))
            # A provider that waits for a receipt sends nothing before it: what is here must not wait for more.
            if have >= self._cut.chunk_bytes and not (await asyncio.wait({self._coming}, timeout=STILL_SECONDS))[0]:
                break
            coming, self._coming = self._coming, None
            try:
                piece = await coming
            except PeerFailed as error:
                piece, cut = b"", error
            if not piece and cut is None:
                cut = PeerFailed("the provider ended its answer before the end that it had announced")
            pieces.append(piece)
            have += len(piece)
        whole, most = b"".join(pieces), count if cut is None else left  # what has come is not asked for again, though others take less now
        end = most if have >= most else have // self._cut.chunk_bytes * self._cut.chunk_bytes
        self._rest = whole[end:]
        return whole[:end], cut


def _settle(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():  # whoever waited for it was cancelled
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _seen(future: asyncio.Future[None]) -> None:
    """A window that nobody waits for any more may fail."""
    if not future.cancelled():
        future.exception()
