"""Where the source of a live log goes on: as it stands in a file, behind one batch of records or after each other behind many.

What is here says how many leaves a batch ends with, and where the source goes on behind it; a checksum says whether all of it is there. A
mark is on the disk before anything is signed by it. It is kept as long as something may be asked of the source again that comes after it;
where nobody acknowledges anything, every other one is let go once there are many: then a little more is asked for again.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from connector.errors import DescriptorsShort, SinkFailed

ENTRY: Final = struct.Struct(">IQH")  # CRC-32 of what follows, leaves, length of the position + 1, 0 for none
MARKS_FILE: Final = "marks"
MARKS_BYTES_MAX: Final = 256 * 1024
MODE: Final = 0o600
SCARCE: Final = (errno.EMFILE, errno.ENFILE)

Point = tuple[int, str | None]


class Unflushed(OSError):
    """Something that was written, and can be read, is not on the disk. A kernel says so once, and takes it for written from then on:
    whoever flushes the same again hears that all is well."""


class Marks:
    """The marks of the log in `folder`, up to the first that is not whole, which is cut off: nothing was signed by it. Who only `looks`
    leaves it, as somebody else may be writing it. Raises OSError."""

    def __init__(self, folder: Path, *, looks: bool = False) -> None:
        self._folder = folder
        self._file = os.open(folder / MARKS_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
        data, at, self.points = os.pread(self._file, os.fstat(self._file).st_size, 0), 0, list[Point]()
        while (found := read_entry(data, at)) is not None:
            self.points.append(found)
            at += len(entry(*found))
        if not looks:
            os.ftruncate(self._file, at)
        self._size_bytes = at

    def add(self, points: Sequence[Point], needed: int) -> None:
        """Let these outlive a loss of power, too; `needed` is the first leaf that may be asked for again. In a thread. Raises OSError."""
        entries, at = b"".join(entry(*point) for point in points), self._size_bytes  # what failed before is written over
        if at + len(entries) > MARKS_BYTES_MAX:
            self._compact([*self.points, *points], needed)
        else:
            write(self._file, entries, at)
            flush(self._file)
            self.points += points
            self._size_bytes += len(entries)

    def again(self) -> None:
        """Write all of them anew: what is read may not be on the disk. Raises OSError."""
        self._compact(self.points, 0)

    def upto(self, leaves: int) -> Point | None:
        """The last one of at most so many leaves."""
        return next((point for point in reversed(self.points) if point[0] <= leaves), None)

    def close(self) -> None:
        os.close(self._file)

    def _compact(self, points: list[Point], needed: int) -> None:
        """Write these anew without those before the last one that `needed` can be had from."""
        kept = points[max((number for number, point in enumerate(points) if point[0] <= needed), default=0) :]
        while len(content := b"".join(entry(*point) for point in kept)) > MARKS_BYTES_MAX // 2 and len(kept) > 2:  # noqa: PLR2004 - the ends
            kept = [*kept[:-1:2], kept[-1]]
        part = self._folder / f"{MARKS_FILE}.part"
        part.write_bytes(content)
        part.chmod(MODE)
        descriptor = os.open(part, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)  # before the old ones are gone: it may be one too many
        try:
            os.fsync(descriptor)
            part.rename(self._folder / MARKS_FILE)
            sync(self._folder)
            os.dup2(descriptor, self._file, inheritable=False)
        finally:
            os.close(descriptor)
        self.points, self._size_bytes = kept, len(content)


def entry(leaves: int, position: str | None) -> bytes:
    """How a point is written."""
    told = b"" if position is None else position.encode()
    rest = ENTRY.pack(0, leaves, 0 if position is None else len(told) + 1)[4:] + told
    return zlib.crc32(rest).to_bytes(4, "big") + rest


def read_entry(data: bytes, at: int) -> Point | None:
    """What `entry` has written, if that is there."""
    if len(data) < at + ENTRY.size:
        return None
    crc, leaves, length = ENTRY.unpack_from(data, at)
    end = at + ENTRY.size + max(length - 1, 0)
    if len(data) < end or crc != zlib.crc32(data[at + 4 : end]):
        return None
    return leaves, data[at + ENTRY.size : end].decode() if length else None


def unwritten(folder: Path, error: OSError) -> SinkFailed:
    """What is said of a disk that does not take a log."""
    return failed(f"the content log in `{folder}` cannot be written", error)


def failed(what: str, error: OSError) -> SinkFailed:
    """What is said of files that could not be used so: their disk is to blame, if there were descriptors for them."""
    if error.errno in SCARCE:
        return DescriptorsShort(f"{what}: {error.strerror}; let it have more (`ulimit -n`), or less open at once")
    return SinkFailed(f"{what}: {error.strerror}; look after that disk")


def write(descriptor: int, content: bytes | bytearray, at: int) -> None:
    """Write all of it. Raises OSError."""
    left = memoryview(content)
    while left:
        taken = os.pwrite(descriptor, left, at)
        left, at = left[taken:], at + taken


def flush(descriptor: int) -> None:
    """Let what was written outlive a loss of power. Raises Unflushed."""
    try:
        os.fdatasync(descriptor)
    except OSError as error:
        raise Unflushed(*error.args) from None


def sync(path: Path) -> None:
    """Let a file or a folder outlive a loss of power. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
