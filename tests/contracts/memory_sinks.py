"""Sinks in memory that have no file descriptor, as an object store has none: the second implementation that every contract needs."""

import hashlib
from collections.abc import Sequence

from connector.errors import Contradiction, SinkFailed

PIECE_BYTES = 64 * 1024  # of which it is known whether they were written


class MemorySinks:
    """Downloads into `files`; what is not whole is in `kept`."""

    def __init__(self, *, space_bytes: int = 1 << 30) -> None:
        self.files: dict[str, bytes] = {}
        self.kept: dict[tuple[str, str], bytearray] = {}
        self.written: dict[tuple[str, str], set[int]] = {}
        self.space_bytes = space_bytes
        self.syncs = 0
        self.taken: set[str] = set()

    async def check(self, out: str, part: str, *, overwrite: bool) -> None:
        if out in self.files and not overwrite:
            raise Contradiction(f"`{out}` exists already; remove it or name another")
        if out in self.taken:
            raise SinkFailed(f"another download is writing to `{out}`; wait for it or name another")

    async def open(self, out: str, part: str, *, overwrite: bool) -> "MemorySink":
        await self.check(out, part, overwrite=overwrite)
        self.taken.add(out)
        self.kept.setdefault((out, part), bytearray())
        self.written.setdefault((out, part), set())
        return MemorySink(self, out, part, overwrite)

    async def existing(self, out: str, part: str) -> tuple[int, bytes] | None:
        found = self.files.get(out)
        return None if found is None else (len(found), hashlib.sha256(found).digest())


class MemorySink:
    """One part."""

    def __init__(self, sinks: MemorySinks, out: str, part: str, overwrite: bool) -> None:
        self._sinks, self._key, self._overwrite = sinks, (out, part), overwrite
        self._digest = hashlib.sha256()
        self._open = True

    @property
    def _content(self) -> bytearray:
        return self._sinks.kept[self._key]

    @property
    def size_bytes(self) -> int:
        return len(self._sinks.kept.get(self._key, b""))

    def digest(self) -> bytes:
        return self._digest.digest()

    async def resume(self) -> int:
        self._digest = hashlib.sha256(self._content)
        return len(self._content)

    async def restart(self) -> None:
        self._content.clear()
        self._sinks.written[self._key].clear()
        self._digest = hashlib.sha256()

    async def append(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            await self.write(len(self._content), piece)
            self._digest.update(piece)

    async def extents(self) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for n in sorted(self._sinks.written[self._key]):
            first, end = n * PIECE_BYTES, min((n + 1) * PIECE_BYTES, len(self._content))
            if found and found[-1][1] == first:
                found[-1] = (found[-1][0], end)
            else:
                found.append((first, end))
        return found

    async def write(self, offset: int, piece: bytes | memoryview) -> None:
        end = offset + len(piece)
        if end > self._sinks.space_bytes:
            raise SinkFailed("no space is left; the part is kept", full=True)
        self._content.extend(bytes(max(0, end - len(self._content))))
        self._content[offset:end] = piece
        if piece:
            self._sinks.written[self._key].update(range(offset // PIECE_BYTES, (end - 1) // PIECE_BYTES + 1))

    async def read(self, offset: int, length: int) -> bytes:
        return bytes(self._content[offset : offset + length])

    async def cut(self, size_bytes: int) -> None:
        del self._content[size_bytes:]
        written = self._sinks.written[self._key]
        written.difference_update({n for n in written if n * PIECE_BYTES >= size_bytes})

    async def sync(self) -> None:
        self._sinks.syncs += 1

    def fileno(self) -> int | None:
        return None

    async def reserve(self, more_bytes: int) -> None:
        if len(self._content) + more_bytes > self._sinks.space_bytes:
            raise SinkFailed(f"there is no space for `{self._key[0]}`: {more_bytes} bytes to come; the part is kept", full=True)

    async def commit(self, *, durable: bool = True) -> None:
        out, _ = self._key
        if out in self._sinks.files and not self._overwrite:
            raise Contradiction(f"`{out}` came into being meanwhile; the part is kept")
        self._sinks.files[out] = bytes(self._content)
        await self.discard()

    async def discard(self) -> None:
        self._sinks.kept.pop(self._key, None)

    async def close(self) -> None:
        if self._open:
            self._sinks.taken.discard(self._key[0])
        self._open = False
