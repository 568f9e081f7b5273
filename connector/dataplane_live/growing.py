"""A content log that grows: one file with a row for each leaf, whatever has become of its bytes.

    head      magic, length of the header leaf, and that leaf, in HEAD_BYTES
    rows      for each leaf: where its data end, how many records there are up to there, and its hash

in big endian. A batch of whole records is one write, whose last row is marked: what a crash has left behind the last mark never was part
of the log. Where the source is to go on is written before the rows that it belongs to, into one of two slots, so that records neither
are missing after a crash nor come twice.

What is signed is on the disk before, as far as the tree depends on it: `sync` flushes the rows, and then marks that say how many there are
and where the source goes on behind each batch. Their bytes are not flushed. A log that was not closed in this life of the machine is
`torn`: it goes on behind its last mark, so it never signs two trees of one size, and its bytes are not relied on until somebody has looked
at them (`mending`). If there are fewer rows than marked it is `lost`, and signs nothing more.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, Self

from connector.errors import SinkFailed
from connector.merkle.tree import HASH_BYTES, Frontier, frontier_at
from connector.metering import credit, live
from connector.metering.content import SEALED, Header, Known, Leaf, read_header
from connector.metering.objects import Manifest
from connector.metering.ranges import Ranges

MAGIC: Final = b"QIAOLIV1"
HEAD: Final = struct.Struct(">8sH")
HEAD_BYTES: Final = 4096
ROW: Final = struct.Struct(">QQ32s")
SUMS: Final = struct.Struct(">QQ")
MARK: Final = 1 << 63  # in the sum of records: a batch ends here
TILE_HASHES: Final = 256
TILE_LEVELS: Final = 8
SLOT: Final = struct.Struct(">IQH")  # CRC-32 of what follows, leaves, length of the position + 1, 0 for none
SLOT_BYTES: Final = 4096
MODE: Final = 0o600
ROWS_FILE, POSITION_FILE, LIFE_FILE, MARKS_FILE = "leaves", "position", "life", "marks"
MARKS_BYTES_MAX: Final = 256 * 1024  # then those are left out that nothing is needed from
CLOSED: Final = "closed"


class Growing:
    """The log in `folder`. Raises SinkFailed if it cannot be read. It has the form of `connector.dataplane.index.Log`, without a root and a
    size; `layout` is itself."""

    root: bytes | None = None
    size_bytes: int | None = None
    sha256: bytes | None = None

    def __init__(self, folder: Path, life: str) -> None:
        self._folder, self._life = folder, life
        self.lost = False
        try:
            self._rows = os.open(folder / ROWS_FILE, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            self._slots = os.open(folder / POSITION_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
            self._marks = os.open(folder / MARKS_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
            self.torn = (folder / LIFE_FILE).read_text() not in (CLOSED, life)
        except OSError as error:
            raise SinkFailed(f"the content log in `{folder}` cannot be read: {error.strerror}") from None
        head = os.pread(self._rows, HEAD_BYTES, 0)
        magic, length = HEAD.unpack_from(head)
        if magic != MAGIC:
            raise SinkFailed(f"`{folder / ROWS_FILE}` is no content log")
        self.header = head[HEAD.size : HEAD.size + length]
        header = read_header(self.header)
        self.media_type, self.unit, self.counts = header.media_type, header.record_unit, header.record_unit != "none"
        self.name = header.hash
        self.snapshot = self.name.hex()[:32]
        self.etag = live.write_etag(self.name)
        self._slot = 1  # that was written last
        self._upper: list[bytearray] = []  # by level of tiles, from 1
        self._points = self._read_marks()  # (leaves, position)
        self.leaves = self._marked(self.synced if self.torn else None)
        self.end, self.records_end = self._sums(self.leaves - 1)
        self._grow_upper()
        self.position = self._position()
        self._written = (self.leaves, self.end, self.records_end, self.position)
        self._coming: deque[tuple[int, int, int, str | None]] = deque()
        self._unmarked = [(self.leaves, self.position)] if self.leaves > self.synced else []
        if not self.torn:
            self._live()

    @classmethod
    def begin(cls, folder: Path, life: str, header: Header) -> Self:
        """A new log in a new folder. Raises SinkFailed."""
        try:
            folder.mkdir(0o700, parents=True)
            (folder / LIFE_FILE).write_text(life)
            entry = header.entry
            content = (HEAD.pack(MAGIC, len(entry)) + entry).ljust(HEAD_BYTES, b"\0") + ROW.pack(0, MARK, header.hash)
            part = folder / f"{ROWS_FILE}.part"
            part.write_bytes(content)
            part.chmod(MODE)
            part.rename(folder / ROWS_FILE)
            for path in (folder / ROWS_FILE, folder, folder.parent):  # the header is promised by its hash
                sync(path)
        except OSError as error:
            raise SinkFailed(f"no content log can be made in `{folder}`: {error.strerror}; look after that disk") from None
        return cls(folder, life)

    @property
    def synced(self) -> int:
        """How many leaves outlive a loss of power: the most that may be signed."""
        return self._points[-1][0] if self._points else 1

    @property
    def unmarked(self) -> tuple[tuple[int, str | None], ...]:
        """The ends of the batches that are shown and do not outlive a loss of power yet: (leaves up to there, position behind them)."""
        return tuple(self._unmarked)

    def sync(self, points: Sequence[tuple[int, str | None]], needed: int) -> None:
        """Let the leaves up to the last of these `unmarked` ends outlive a loss of power, and where the source goes on behind each.
        `needed` is the first leaf whose bytes may be asked for. One call after the other, in a thread; `append` may run meanwhile. Raises
        SinkFailed."""
        if not points:
            return
        try:
            os.fdatasync(self._rows)
            entries, at = b"".join(_slot(*point) for point in points), self._marks_bytes  # what failed before is written over
            if at + len(entries) > MARKS_BYTES_MAX:
                self._compact([*self._points, *points], needed)
            else:
                _write(self._marks, entries, at)
                os.fdatasync(self._marks)
                self._points += points
                self._marks_bytes += len(entries)
        except OSError as error:
            raise unwritten(self._folder, error) from None
        del self._unmarked[: len(points)]

    def point(self, leaf: int) -> tuple[int, str | None]:
        """The last place up to this leaf from which the source can be asked again: (leaves before it, position)."""
        return next((point for point in reversed(self._points) if point[0] <= leaf), (1, None))

    def mended(self) -> None:
        """The bytes that are needed have been looked at, and made good. Raises SinkFailed."""
        self.torn = False
        self._live()

    @property
    def layout(self) -> Self:
        """Where the bytes of each leaf are."""
        return self

    @property
    def written(self) -> int:
        """Where the data end with all that was appended, shown or not."""
        return self._written[1]

    def append(self, leaves: Sequence[Leaf], position: str | None) -> None:
        """Take up the leaves of a batch of whole records, and where the source goes on after it. One call after the other, in a thread.
        Raises SinkFailed. Nothing is to be seen of them before `show`."""
        before, end, records, _ = self._written
        rows = bytearray()
        for leaf in leaves:
            end, records = end + leaf.length, records + leaf.records
            rows += ROW.pack(end, records, leaf.hash)
        last = len(rows) - ROW.size
        rows[last:] = ROW.pack(end, records | MARK, leaves[-1].hash)
        try:
            os.pwrite(self._slots, _slot(before + len(leaves), position), SLOT_BYTES if self._slot == 0 else 0)
            _write(self._rows, rows, HEAD_BYTES + before * ROW.size)
        except OSError as error:
            raise unwritten(self._folder, error) from None
        self._slot = 1 - self._slot
        self._written = (before + len(leaves), end, records, position)
        self._coming.append(self._written)

    def show(self) -> bool:
        """Let the first batch that was appended and not shown be a part of the log; False if there is none."""
        if not self._coming:
            return False
        self.leaves, self.end, self.records_end, self.position = self._coming.popleft()
        self._unmarked.append((self.leaves, self.position))
        self._grow_upper()
        return True

    def span(self, first: int, last: int) -> tuple[int, int]:
        """(offset, length) in bytes of the leaves [first, last) of data, which are there."""
        begin = self._sums(first - 1)[0]
        return begin, self._sums(last - 1)[0] - begin if last > first else 0

    def touched(self, offset: int, length: int) -> tuple[int, int]:
        """The leaves [first, last) that have at least one of `length` bytes from `offset`."""
        first = self._leaf_at(offset)
        return (first, self._leaf_at(min(offset + length, self.end) - 1) + 1) if min(offset + length, self.end) > offset else (first, first)

    def held(self, offset: int, length: int) -> tuple[int, int]:
        """The leaves [first, last) that lie wholly within `length` bytes from `offset`."""
        first = self._leaf_at(offset)
        if first < self.leaves and self.span(first, first + 1)[0] < offset:
            first += 1
        last = self.leaves if offset + length >= self.end else self._leaf_at(offset + length)
        return first, max(first, last)

    def known(self, _manifest: Manifest) -> credit.Log:
        """What receipts are judged by: as much as there is by now."""
        return credit.Log(self.leaves, self.measure, self.root_at, self.leaf, ended=False)

    def measure(self, ranges: Ranges) -> Known:
        """What these leaves come to, none of which is behind the end; what an item is, live data do not say."""
        return Known(sum(self.span(*each)[1] for each in ranges), sum(self.records(*each) for each in ranges), 0)

    def records(self, first: int, end: int) -> int:
        """How many records end in the leaves [first, end)."""
        low, high = max(first, 1) - 1, min(end, self.leaves) - 1
        return self._sums(high)[1] - self._sums(low)[1] if low < high else 0

    def sealed(self, first: int, end: int) -> bytes:
        """The list of the leaves [first, end) of data as it goes over the wire (`content.SEALED`)."""
        rows = [SUMS.unpack_from(row) for row in self._read(first - 1, end)]
        return b"".join(SEALED.pack(to - since, (so_far & ~MARK) - (before & ~MARK)) for (since, before), (to, so_far) in pairwise(rows))

    def within(self, first: int, most_bytes: int, leaves: int) -> int:
        """How many leaves the log of at most `leaves` leaves has with at most so many bytes from leaf `first` on; one of them at least."""
        begin = self._sums(first - 1)[0]
        return max(first + 1, min(leaves, self._leaf_at(begin + most_bytes)))

    def hashes(self, level: int, first: int, count: int) -> bytes:
        """`count` hashes of a level of tiles, as `connector.dataplane.index.Log.hashes`."""
        if level:
            upper = self._upper[level - 1] if level <= len(self._upper) else b""
            return bytes(upper[first * HASH_BYTES : (first + count) * HASH_BYTES])
        return b"".join(row[SUMS.size :] for row in self._read(first, min(first + count, self.leaves)))

    def node(self, level: int, index: int) -> bytes:
        """The hash over the leaves [index·2^level, (index+1)·2^level), all of which are there."""
        tiles, height = divmod(level, TILE_LEVELS)
        return self._folded(tiles, index << height, 1 << height)

    def root_at(self, leaves: int) -> bytes | None:
        """The root over the first `leaves` leaves; None if there are not so many."""
        return frontier_at(leaves, self.node).root if 1 <= leaves <= self.leaves else None

    def leaf(self, leaf: int) -> bytes | None:
        """The hash of a leaf, None if there is none."""
        return self.hashes(0, leaf, 1) or None

    def close(self, *, durable: bool) -> None:
        """Let go. A log that is `durable` goes on in another life of the machine as if nothing had been. Raises OSError, SinkFailed."""
        if self._rows < 0:
            return
        if durable and not self.lost and not self.torn:
            self.sync(self.unmarked, 1)
            for descriptor in (self._rows, self._slots):
                os.fsync(descriptor)
            sync(self._folder)  # the files of the spool have their names there
            (self._folder / LIFE_FILE).write_text(CLOSED)
            sync(self._folder / LIFE_FILE)
        for descriptor in (self._rows, self._slots, self._marks):
            os.close(descriptor)
        self._rows = self._slots = self._marks = -1

    def _live(self) -> None:
        """Say that it is open in this life of the machine, before anything is written: after a loss of power it is not taken for closed."""
        try:
            (self._folder / LIFE_FILE).write_text(self._life)
            sync(self._folder / LIFE_FILE)
        except OSError as error:
            raise unwritten(self._folder, error) from None

    def _marked(self, most: int | None) -> int:
        """How many leaves there are up to the last end of a batch, or up to `most`; what is behind it is cut off."""
        there = leaves = max(1, (os.fstat(self._rows).st_size - HEAD_BYTES) // ROW.size)
        while leaves > 1 and not SUMS.unpack(os.pread(self._rows, SUMS.size, HEAD_BYTES + (leaves - 1) * ROW.size))[1] & MARK:
            leaves -= 1
        if most is not None:
            self.lost, leaves = there < most, min(most, there)
        if not self.lost:
            os.ftruncate(self._rows, HEAD_BYTES + leaves * ROW.size)
        return leaves

    def _position(self) -> str | None:
        """Where the source goes on: as the newest mark or slot says that is not ahead of the rows. After a loss of power both slots may be,
        until two batches have come."""
        newest, found = next((point for point in reversed(self._points) if point[0] <= self.leaves), (-1, None))
        for number in range(2):
            read = _read_slot(os.pread(self._slots, SLOT_BYTES, number * SLOT_BYTES), 0)
            if read is not None and newest < read[0] <= self.leaves:
                (newest, found), self._slot = read, number
        return found

    def _read_marks(self) -> list[tuple[int, str | None]]:
        """The marks up to the first that is not whole, which is cut off: nothing was signed by it."""
        data, at, found = os.pread(self._marks, os.fstat(self._marks).st_size, 0), 0, list[tuple[int, str | None]]()
        while (read := _read_slot(data, at)) is not None:
            found.append(read)
            at += len(_slot(*read))
        os.ftruncate(self._marks, at)
        self._marks_bytes = at
        return found

    def _compact(self, points: list[tuple[int, str | None]], needed: int) -> None:
        """Write these marks anew without those before the last one that `needed` can be had from."""
        kept = max((number for number, point in enumerate(points) if point[0] <= needed), default=0)
        part = self._folder / f"{MARKS_FILE}.part"
        part.write_bytes(content := b"".join(_slot(*point) for point in points[kept:]))
        part.chmod(MODE)
        sync(part)
        part.rename(self._folder / MARKS_FILE)
        sync(self._folder)
        descriptor = os.open(self._folder / MARKS_FILE, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        os.dup2(descriptor, self._marks, inheritable=False)
        os.close(descriptor)
        self._points, self._marks_bytes = points[kept:], len(content)

    def _sums(self, leaf: int) -> tuple[int, int]:
        """Bytes and records up to the end of a leaf."""
        end, records = SUMS.unpack(os.pread(self._rows, SUMS.size, HEAD_BYTES + leaf * ROW.size))
        return end, records & ~MARK

    def _read(self, first: int, end: int) -> list[bytes]:
        data = os.pread(self._rows, max(end - first, 0) * ROW.size, HEAD_BYTES + first * ROW.size)
        return [data[at : at + ROW.size] for at in range(0, len(data), ROW.size)]

    def _leaf_at(self, offset: int) -> int:
        """The leaf that has this byte; the one to come if it is behind the end."""
        low = high = self.leaves
        step = 1
        while low > 1 and self._sums(low - 1)[0] > offset:  # mostly it is one of the last
            low, high, step = max(1, low - step), low - 1, 2 * step
        while low < high:
            middle = (low + high) // 2
            if self._sums(middle)[0] <= offset:
                low = middle + 1
            else:
                high = middle
        return low

    def _grow_upper(self) -> None:
        """Fold the tiles that have become full."""
        count = self.leaves
        for level in range(TILE_LEVELS):
            count //= TILE_HASHES
            if not count:
                return
            if level == len(self._upper):
                self._upper.append(bytearray())
            upper = self._upper[level]
            for index in range(len(upper) // HASH_BYTES, count):
                upper += self._folded(level, index * TILE_HASHES, TILE_HASHES)

    def _folded(self, level: int, first: int, count: int) -> bytes:
        found = self.hashes(level, first, count)
        return Frontier().extend(found[at : at + HASH_BYTES] for at in range(0, len(found), HASH_BYTES)).root


def _write(descriptor: int, content: bytes | bytearray, at: int) -> None:
    left = memoryview(content)
    while left:
        taken = os.pwrite(descriptor, left, at)
        left, at = left[taken:], at + taken


def _slot(leaves: int, position: str | None) -> bytes:
    told = b"" if position is None else position.encode()
    rest = SLOT.pack(0, leaves, 0 if position is None else len(told) + 1)[4:] + told
    return zlib.crc32(rest).to_bytes(4, "big") + rest


def _read_slot(data: bytes, at: int) -> tuple[int, str | None] | None:
    """(leaves, position) of what `_slot` has written, if that is there."""
    if len(data) < at + SLOT.size:
        return None
    crc, leaves, length = SLOT.unpack_from(data, at)
    end = at + SLOT.size + max(length - 1, 0)
    if len(data) < end or crc != zlib.crc32(data[at + 4 : end]):
        return None
    return leaves, data[at + SLOT.size : end].decode() if length else None


def sync(path: Path) -> None:
    """Let a file or a folder outlive a loss of power. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritten(folder: Path, error: OSError) -> SinkFailed:
    """What is said of a disk that does not take a log."""
    return SinkFailed(f"the content log in `{folder}` cannot be written: {error.strerror}; look after that disk")
