"""A range of data in a file of its own, although its leaves come whole: what of the first and the last one is outside the range is kept
behind it until the file gets its name.

So nothing has to be moved in the end, and after a crash each leaf can be compared again. Offsets are those of the data, as everywhere.
In the part the range comes first, then what the last leaf has more, then what the first leaf has before it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

from connector.metering.ranges import union
from connector.metering.spans import Part
from connector.ports.sinks import Placed

READ_BYTES = 1024 * 1024  # of the range, to hash it


class RangedSink:
    """The port `Placed` over a sink that shall have `part` of the data alone. Whoever gives the file its name cuts it to the length of the
    part first. It has no descriptor to write into: one leaf may lie in two places."""

    def __init__(self, sink: Placed, part: Part) -> None:
        self._sink, self._part = sink, part
        self._base, self._end = part.cover
        self._behind = self._end - part.begin  # where in the file the bytes before the range lie
        self._digest = hashlib.sha256()

    @property
    def size_bytes(self) -> int:
        """See the port."""
        return self._sink.size_bytes

    def digest(self) -> bytes:
        """SHA-256 of the range, as `resume` has found it."""
        return self._digest.digest()

    async def resume(self) -> int:
        """Hash the range; returns its size in bytes, as far as it is there."""
        digest, at = hashlib.sha256(), 0
        while piece := await self._sink.read(at, min(READ_BYTES, self._part.length - at)):
            await asyncio.to_thread(digest.update, piece)
            at += len(piece)
        self._digest = digest
        return at

    async def restart(self) -> None:
        """See the port."""
        await self._sink.restart()

    async def extents(self) -> Sequence[tuple[int, int]]:
        """See the port."""
        found: list[tuple[int, int]] = []
        for low, high in await self._sink.extents():
            found += [
                (low + self._part.begin, min(high, self._behind) + self._part.begin),
                (max(low, self._behind) - self._behind + self._base, min(high - self._behind + self._base, self._part.begin)),
            ]
        return union(found)

    async def write(self, offset: int, piece: bytes | memoryview) -> None:
        """See the port."""
        before, whole = max(0, min(self._part.begin - offset, len(piece))), memoryview(piece)
        if before:
            await self._sink.write(self._behind + offset - self._base, whole[:before])
        if before < len(piece):
            await self._sink.write(offset + before - self._part.begin, whole[before:])

    async def read(self, offset: int, length: int) -> bytes:
        """See the port."""
        before = max(0, min(self._part.begin - offset, length))
        pieces = [await self._sink.read(self._behind + offset - self._base, before)] if before else []
        if length > before:
            at = offset + before - self._part.begin
            pieces.append(await self._sink.read(at, min(length - before, self._behind - at)))
        return b"".join(pieces)

    async def sync(self) -> None:
        """See the port."""
        await self._sink.sync()

    def fileno(self) -> int | None:
        """See the port."""
        return None

    async def reserve(self, more_bytes: int) -> None:
        """See the port."""
        await self._sink.reserve(more_bytes)

    async def discard(self) -> None:
        """See the port."""
        await self._sink.discard()
