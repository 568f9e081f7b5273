"""The bytes of live data between the source and those who have them: files of SEGMENT_BYTES each, by their offset in the log.

What was acknowledged is dropped, a whole file at a time, and the file written over for what comes: pages that are in the cache take a
tenth of the time of new ones. The room is bounded by whoever writes: he waits.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final

from connector import telemetry
from connector.dataplane_live.marks import failed, sync
from connector.errors import SinkFailed, SourceFailed

SEGMENT_BYTES: Final = 16 * 1024 * 1024
PREFIX, SPARE, MARK = "data-", "spare-", "begins"
SPARES_MAX: Final = 2  # files that wait to be written over
MODE: Final = 0o600
OPEN: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Spool:
    """The files in `folder` of a log whose data end at `end`; what lies behind that is of no log. Raises SinkFailed."""

    def __init__(self, folder: Path, end: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder, self._segment_bytes = folder, segment_bytes
        self._open: dict[int, int] = {}
        self._opening = Lock()  # who writes and who reads may want the same file at once: of two descriptors nobody would close one
        self._emptied = False
        try:
            mark = int(self._mark.read_text()) if self._mark.exists() else 0
            kept = sorted(int(path.name.removeprefix(PREFIX), 16) for path in folder.glob(f"{PREFIX}*"))
            self._spare = [int(path.name.removeprefix(SPARE), 16) for path in folder.glob(f"{SPARE}*")]
        except OSError as error:
            raise _failed(folder, error) from None
        self.first = min(max(kept[0] * segment_bytes, mark), end) if kept else end

    def write(self, offset: int, pieces: Sequence[memoryview | bytes]) -> None:
        """Write where the data end; in a thread. Raises SinkFailed."""
        try:
            for piece in pieces:
                left = memoryview(piece)
                while left:
                    number, within = divmod(offset, self._segment_bytes)
                    taken = os.pwrite(self._descriptor(number, new=not within), left[: self._segment_bytes - within], within)
                    left, offset = left[taken:], offset + taken
        except OSError as error:
            raise _failed(self._folder, error) from None

    async def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`, or those up to the end of a file. Raises SourceFailed if they are not there."""
        number, within = divmod(offset, self._segment_bytes)
        count = min(count, self._segment_bytes - within)
        if offset < self.first or self._emptied:
            raise SourceFailed("these bytes of the log were dropped, as they had been acknowledged, or the transfer is over")
        try:
            descriptor, buffer = self._descriptor(number), bytearray(count)
            with suppress(OSError):  # EAGAIN: not all in memory
                if os.preadv(descriptor, [buffer], within, os.RWF_NOWAIT) == count:
                    return bytes(buffer)
            own = os.dup(descriptor)  # the file may be dropped meanwhile, and the number be another's
            found = await asyncio.shield(asyncio.to_thread(_read, own, count, within))
        except OSError as error:
            raise SourceFailed(f"the spool cannot be read: {error.strerror}") from None
        if len(found) != count:
            raise SourceFailed("bytes of the log are missing in its spool")
        if offset < self.first:
            raise SourceFailed("these bytes of the log were dropped while they were read")
        return found

    def look(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`, or as many as are there; in a thread, while nobody writes. Raises SinkFailed."""
        found = b""
        try:
            while len(found) < count:
                number, within = divmod(offset + len(found), self._segment_bytes)
                if number not in self._open and not self._path(number).exists():
                    break
                piece = os.pread(self._descriptor(number), min(count - len(found), self._segment_bytes - within), within)
                if not piece:
                    break
                found += piece
        except OSError as error:
            raise _failed(self._folder, error) from None
        return found

    def drop(self, before: int) -> None:
        """Drop what lies before this offset, as far as whole files do. Raises SinkFailed."""
        for number in range(self.first // self._segment_bytes, before // self._segment_bytes):
            self.first = (number + 1) * self._segment_bytes
            if (descriptor := self._open.pop(number, None)) is not None:
                os.close(descriptor)
            try:
                if len(self._spare) < SPARES_MAX and self._path(number).exists():
                    self._path(number).rename(self._path(number, SPARE))
                    self._spare.append(number)
                else:
                    self._path(number).unlink(missing_ok=True)
            except OSError as error:
                raise _failed(self._folder, error) from None

    def begin_at(self, offset: int) -> None:
        """Nothing before this offset is to be had, also where a file begins before it, and whoever opens the spool. Raises SinkFailed."""
        try:
            part = self._mark.with_suffix(".part")
            part.write_text(str(offset))
            sync(part)  # its name need not outlive a loss of power, as all bytes are looked at anew then; but it must not be empty
            part.rename(self._mark)
        except OSError as error:
            raise _failed(self._folder, error) from None
        self.first = offset

    def empty(self) -> None:
        """Drop everything: nothing leaves any more. See `empty`."""
        self._emptied = True
        self.close()
        self._spare.clear()
        empty(self._folder)

    def sync(self) -> None:
        """Make it outlive a loss of power, with what another process has left; in a thread. What is dropped meanwhile need not. Raises
        OSError."""
        for path in self._folder.glob(f"{PREFIX}*"):
            if int(path.name.removeprefix(PREFIX), 16) not in self._open:
                with suppress(FileNotFoundError):
                    sync(path)
        for number, descriptor in tuple(self._open.items()):
            try:
                os.fsync(descriptor)
            except OSError:
                if number in self._open:
                    raise

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    @property
    def _mark(self) -> Path:
        return self._folder / MARK

    def _descriptor(self, number: int, *, new: bool = False) -> int:
        with self._opening:
            if (found := self._open.get(number)) is None:
                if new and self._spare:
                    self._path(self._spare.pop(), SPARE).rename(self._path(number))
                found = self._open[number] = os.open(self._path(number), OPEN, MODE)
        return found

    def _path(self, number: int, prefix: str = PREFIX) -> Path:
        return self._folder / f"{prefix}{number:012x}"


def empty(folder: Path) -> None:
    """Remove what is spooled in a folder, which nobody has open. What cannot be removed the next start tries again."""
    try:
        for path in (folder / MARK, *folder.glob(f"{PREFIX}*"), *folder.glob(f"{SPARE}*")):
            path.unlink(missing_ok=True)
    except OSError as error:
        telemetry.log.warning("spool not emptied", folder=folder.name, reason=str(error))


async def emptied(folders: Sequence[Path]) -> None:
    """Remove what is spooled of transfers that were over while nobody had their logs open."""
    for folder in folders:
        await asyncio.to_thread(empty, folder)


def _read(descriptor: int, count: int, offset: int) -> bytes:
    try:
        return os.pread(descriptor, count, offset)
    finally:
        os.close(descriptor)


def _failed(folder: Path, error: OSError) -> SinkFailed:
    return failed(f"the spool in `{folder}` cannot be written", error)
