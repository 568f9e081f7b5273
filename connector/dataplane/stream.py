"""From source through stages to the wire: the copy loop, in pieces, with one of them in memory.

`Range` addresses what leaves after the stages. Without stages the bytes are the source's own: a span of them is read in place,
or handed to the kernel as a file. With stages the output is produced from its start and what lies before the span is dropped;
its size and digest are found by running the stages once, before anything is promised.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import lru_cache, partial
from typing import Any, Protocol
from weakref import WeakValueDictionary

from connector.dataplane.gate import Permit
from connector.dataplane.index import Log
from connector.dataplane.logs import Logs
from connector.dataplane.meter import METERED_PIECE_BYTES, Meter
from connector.dataplane.opened import OpenSources
from connector.dataplane.ranges import Span
from connector.errors import SourceFailed, Withdrawn
from connector.ports import Source, Stage, Stat
from connector.values import Value

PIECE_BYTES = 1 * 1024 * 1024
FILE_PIECE_BYTES = 4 * PIECE_BYTES  # sent by the kernel: they cost no memory here, and fewer turns of the loop
STALL_SECONDS = 60.0  # for PIECE_BYTES: a reader slower than 17 KiB a second holds a place that others could use
MEASURED_MAX = 1024  # outputs of stages whose size and digest are remembered, some 200 bytes each


class Representation(Value):
    """What leaves after the stages: `etag` is strong, quotes included; `sha256` is None if the source was never indexed. `log` is its
    content log, where there are any."""

    size_bytes: int
    etag: str
    sha256: bytes | None
    media_type: str
    log: Log | None = None


class Outlet(Protocol):
    """The way out to one client. Both methods return when the kernel or a bounded buffer has taken the bytes."""

    @property
    def sends_files(self) -> bool:
        """Whether `send_file` may be used."""

    @property
    def window_bytes(self) -> int:
        """The most of a file that is sent at a time; what may leave is asked in between."""

    async def write(self, piece: bytes) -> None:
        """Raises ConnectionError if the client is gone."""

    async def send_file(self, descriptor: int, offset: int, count: int) -> None:
        """Send from a file without copying it through this process. Raises ConnectionError if the client is gone."""

    def push(self) -> None:
        """What was taken goes out now, also where it waits for more to go with it."""


class Credit(Protocol):
    """What bounds how much may be on its way: see `connector.dataplane_accounts.account.Account`."""

    async def allow(self, offset: int, count: int, waits: Callable[[], None]) -> int:
        """How many of `count` bytes from `offset`, one at least, may leave now; `waits` is called before it waits. Raises Withdrawn."""

    def undivided(self, offset: int) -> int:
        """How many bytes from `offset` on leave together or not at all where they are paid for; 0 if any may."""


class Representations:
    """Knows what leaves for a source and stages. With `logs` it is the content log that says so, made of what `opened` gives."""

    def __init__(self, opened: OpenSources[Any] | None = None, logs: Logs | None = None) -> None:
        self._opened, self._logs = opened, logs
        self._measured: dict[tuple[str, ...], Representation] = {}
        self._measuring: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()  # as long as somebody waits

    async def of(self, permit: Permit, source: Source, stat: Stat) -> Representation:
        """Return what leaves for `permit` from `source`, which stands at `stat`. Raises SourceFailed, and Busy if that is not known yet."""
        if self._logs is not None:
            log = await self._logs.of(permit.source, permit.stages, stat, partial(self._reading, permit))
            return Representation(log.size_bytes, log.etag, log.sha256, stat.media_type, log)
        if not permit.stages and stat.size_bytes is not None:
            return _as_it_is(stat, stat.size_bytes)
        key = (permit.dataset, stat.version, *(stage.name for stage in permit.stages))
        lock = self._measuring.setdefault(key, asyncio.Lock())
        async with lock:
            if key not in self._measured:
                self._measured[key] = await _measure(source, permit.stages, stat)
                if len(self._measured) > MEASURED_MAX:
                    del self._measured[next(iter(self._measured))]
        return self._measured.get(key) or await self.of(permit, source, stat)

    @asynccontextmanager
    async def _reading(self, permit: Permit) -> AsyncIterator[AsyncIterator[bytes]]:
        """All that leaves. Not from the source of who asked: it may be given back before the end."""
        if self._opened is None:
            raise SourceFailed("nothing opens the sources of these data")
        async with self._opened.use(permit) as (source, _), aclosing(pieces(source, permit.stages, None)) as output:
            yield output


@lru_cache(maxsize=MEASURED_MAX)
def _as_it_is(stat: Stat, size_bytes: int) -> Representation:
    tag = stat.sha256.hex() if stat.sha256 is not None else hashlib.sha256(stat.version.encode()).hexdigest()
    return Representation(size_bytes, f'"{tag}"', stat.sha256, stat.media_type)


async def _measure(source: Source, stages: tuple[Stage, ...], stat: Stat) -> Representation:
    digest, size_bytes = hashlib.sha256(), 0
    async with aclosing(pieces(source, stages, None)) as output:
        async for piece in output:
            await asyncio.to_thread(digest.update, piece)
            size_bytes += len(piece)
    return Representation(size_bytes, f'"{digest.hexdigest()}"', digest.digest(), stat.media_type)


async def pieces(source: Source, stages: tuple[Stage, ...], span: Span | None) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of `span` (None: all) of what leaves after the stages, PIECE_BYTES at a time, the last one shorter.

    Raises SourceFailed, also if there are fewer bytes than promised: what was promised has to break visibly.
    """
    if not stages:
        first, length = (span.first, span.length) if span else (0, None)
        run, skip = [source.read(first, length)], 0
    else:
        run, skip = [source.read(0, None)], span.first if span else 0
        for stage in stages:
            run.append(stage.run(run[-1]))
    try:
        async for piece in _exactly(run[-1], skip, span.length if span else None):
            yield piece
    finally:
        for output in reversed(run):
            if (close := getattr(output, "aclose", None)) is not None:
                await close()


async def _exactly(output: AsyncIterator[bytes], skip: int, left: int | None) -> AsyncIterator[bytes]:
    """`left` bytes (None: all) of `output` after the first `skip`, PIECE_BYTES at a time. Raises SourceFailed if it is shorter."""
    kept: list[bytes] = []
    kept_bytes = 0
    while left != 0 and (taken := await anext(output, None)) is not None:
        piece, skip = taken[skip : None if left is None else skip + left], max(0, skip - len(taken))
        left = None if left is None else left - len(piece)
        kept.append(piece)
        kept_bytes += len(piece)
        if kept_bytes >= PIECE_BYTES or left == 0:
            joined = b"".join(kept) if len(kept) > 1 else piece
            kept, kept_bytes = [], 0
            for at in range(0, len(joined), PIECE_BYTES):
                yield joined[at : at + PIECE_BYTES] if len(joined) > PIECE_BYTES else joined
    if left:
        raise SourceFailed(f"the source ended {left} bytes before the end that was promised")
    if kept_bytes:
        yield b"".join(kept)


async def stream(
    _permit: Permit,
    source: Source | None,
    span: Span,
    outlet: Outlet,
    output: AsyncIterator[bytes] | None,
    *,
    still: Callable[[], None],
    sent: Callable[[int, int], None],
    stall_seconds: float = STALL_SECONDS,
    meter: Meter | None = None,
    credit: Credit | None = None,
) -> None:
    """Copy `span` to `outlet`, piece by piece. Whoever asks for it holds a permit, which the caller keeps true: `still()` is called
    before each piece and raises Withdrawn once nothing more may leave.

    `output` is what `pieces` yields for it, or None to send the file of `source` itself, which `by_file` allows. `sent(first, length)`
    is called after each piece. `stall_seconds` is the time that a reader has for PIECE_BYTES. `meter` says what may leave, where
    that is counted, and `credit` how much of it may be on its way. Raises Withdrawn when `still` or `credit` does, a quota is used up
    or the reader is too slow, SourceFailed, ConnectionError. What the client got is then short of what it was promised: the caller
    has to close the connection.
    """
    offset, end, rest = span.first, span.first + span.length, b""
    while offset < end:
        still()
        if output is None:
            count = min(outlet.window_bytes, end - offset)
            if credit is not None:
                count = await credit.allow(offset, count, outlet.push)
            if meter is not None:
                count = await meter.allow(min(METERED_PIECE_BYTES, count))
            # The kernel sends what the file holds now; it must still be what was published.
            if source is not None:
                await source.stat()
            if source is None or (descriptor := source.fileno()) is None:
                raise SourceFailed("the source is no open file any more")
            taking = outlet.send_file(descriptor, offset, count)
        else:
            piece, rest = rest or await anext(output), b""
            if whole := 0 if meter is None or credit is None or not meter.pays else min(credit.undivided(offset), end - offset):
                while len(piece) < whole:
                    piece += await anext(output)
                piece, rest = piece[:whole], piece[whole:]
            count = len(piece) if credit is None else await credit.allow(offset, len(piece), outlet.push)
            piece, rest = piece[:count], piece[count:] + rest
            count = len(piece) if meter is None else await meter.allow(len(piece), piece)
            while meter is not None and count < min(whole, len(piece)):
                count += await meter.allow(len(piece) - count, piece[count:])
            piece, rest = piece[:count], piece[count:] + rest
            taking = outlet.write(piece)
        patience_seconds = stall_seconds * max(1.0, count / PIECE_BYTES)
        try:
            async with asyncio.timeout(patience_seconds):
                await taking
        except TimeoutError:
            raise Withdrawn(f"the reader took less than {count} bytes in {patience_seconds:g} s", "reader-too-slow") from None
        sent(offset, count)
        offset += count


async def read_small(source: Source, stages: tuple[Stage, ...], span: Span) -> bytes:
    """All of a small span at once. Raises SourceFailed."""
    output = pieces(source, stages, span) if stages else source.read(span.first, span.length)
    body = b"".join([piece async for piece in output])
    if len(body) != span.length:
        raise SourceFailed(f"the source gave {len(body)} bytes of the {span.length} that were promised")
    return body


def by_file(permit: Permit, source: Source, outlet: Outlet) -> bool:
    """Whether the bytes can go from the source's file to the client without passing through this process."""
    return not permit.stages and outlet.sends_files and source.fileno() is not None
