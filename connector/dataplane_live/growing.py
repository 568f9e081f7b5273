"""A content log that grows: one file with a row for each leaf, whatever has become of its bytes.

    head      magic, length of the header leaf, and that leaf, in HEAD_BYTES
    rows      for each leaf: where its data end, how many records there are up to there, and its hash

in big endian. A batch of whole records is one write, whose last row is marked: what a crash has left behind the last mark never was part
of the log. Where the source is to go on is written before the rows that it belongs to, into one of two slots, so that records neither
are missing after a crash nor come twice.

What is signed is on the disk before, as far as the tree depends on it: `sync` flushes the rows, and then marks that say how many there are
and where the source goes on behind each batch. Their bytes are not flushed. A log that was not closed in this life of the machine is
`torn`: it goes on behind its last mark, so it never signs two trees of one size, and its bytes are not relied on until somebody has looked
at them (`mending`). If there are fewer rows than marked it is `lost`, and signs nothing more. One that the disk has once refused to flush
is taken for torn, too, and never said to be closed in this life.
"""

from __future__ import annotations

import errno
import os
import struct
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from shutil import rmtree
from threading import Lock
from typing import Final, Self

from connector.dataplane_live.ending import Ending, read_ending, write_ending
from connector.dataplane_live.life import CLOSED, DOUBTED, LIFE_FILE, doubt, said, say
from connector.dataplane_live.marks import MODE, SCARCE, Marks, Point, Unflushed, entry, failed, flush, read_entry, sync, unwritten, write
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
SLOT_BYTES: Final = 4096
ROWS_FILE, POSITION_FILE = "leaves", "position"
TAIL: Final = 512  # leaves of which it is known where they end: those that come, and are sent and acknowledged now
REFUSED: Final = "it has refused to keep what was written, and says so only once"

Sums = tuple[int, int]


class Growing:
    """The log in `folder`. Raises SinkFailed if it cannot be read. It has the form of `connector.dataplane.index.Log`, without a root and a
    size; `layout` is itself. Who only `looks` changes nothing in the folder, as somebody else may have the log open, or open it."""

    root: bytes | None = None
    size_bytes: int | None = None
    sha256: bytes | None = None

    def __init__(self, folder: Path, life: str, *, looks: bool = False) -> None:
        self._folder, self._life, self._looks = folder, life, looks
        self.lost = self.broken = False
        self._closing = Lock()  # a number that is closed under who reads by it is the next file's
        with ExitStack() as opened:  # a disk that fails is asked again and again
            self._open(opened, folder, life)
            self._opened = opened.pop_all()

    def _open(self, opened: ExitStack, folder: Path, life: str) -> None:
        try:
            self._rows = os.open(folder / ROWS_FILE, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            opened.callback(os.close, self._rows)
            self._slots = os.open(folder / POSITION_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
            opened.callback(os.close, self._slots)
            self._marks = Marks(folder, looks=self._looks)
            opened.callback(self._marks.close)
            self.over: Ending | None = read_ending(folder)
            self.torn = (found := said(folder, life)) not in (CLOSED, life)
            if found == life + DOUBTED:
                self._life = found
                if not self._looks:
                    self._marks.again()
        except OSError as error:
            raise failed(f"the content log in `{folder}` cannot be read", error) from None
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
        self._tail = 0, tuple[Sums, ...]()  # bytes and records up to the end of each leaf from some leaf on
        self.leaves = self._marked(self.synced if self.torn else None)
        self.end, self.records_end = self._sums(self.leaves - 1)
        self._grow_upper()
        self.position = self._position()
        self._written = (self.leaves, self.end, self.records_end, self.position)
        self._coming: deque[tuple[tuple[int, int, int, str | None], tuple[Sums, ...]]] = deque()
        self._unmarked = [(self.leaves, self.position)] if self.leaves > self.synced else []
        if not (self.torn or self._looks):
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
            rmtree(folder, ignore_errors=True)  # or whoever comes next would take what may not be on the disk for a log
            raise failed(f"no content log can be made in `{folder}`", error) from None
        return cls(folder, life)

    @property
    def synced(self) -> int:
        """How many leaves outlive a loss of power: the most that may be signed."""
        return self._marks.points[-1][0] if self._marks.points else 1

    @property
    def unmarked(self) -> tuple[Point, ...]:
        """The ends of the batches that are shown and do not outlive a loss of power yet: (leaves up to there, position behind them)."""
        return tuple(self._unmarked)

    def sync(self, points: Sequence[Point], needed: int) -> None:
        """Let the leaves up to the last of these `unmarked` ends outlive a loss of power, and where the source goes on behind each.
        `needed` is the first leaf whose bytes may be asked for. One call after the other, in a thread; `append` may run meanwhile. Raises
        SinkFailed; if the disk has not kept what was written, for good: then the log is `broken`, and has to be opened anew."""
        if not points:
            return
        self._demand_whole()
        try:
            flush(self._rows)
            self._marks.add(points, needed)
        except OSError as error:
            if isinstance(error, Unflushed):
                self.doubt()
            raise unwritten(self._folder, error) from None
        del self._unmarked[: len(points)]

    def doubt(self) -> None:
        """What can be read of the log, or of its data, may not be on the disk: this object makes nothing durable any more, and whoever
        opens it again goes on with what was before."""
        self.broken = True
        doubt(self._folder, self._life)

    def point(self, leaf: int) -> Point:
        """The last place up to this leaf from which the source can be asked again: (leaves before it, position)."""
        return self._marks.upto(leaf) or (1, None)

    def conclude(self, ending: Ending) -> None:
        """Nothing more comes, in this object or any other one. In a thread. Raises SinkFailed."""
        self._demand_whole()
        try:
            write_ending(self._folder, ending)
        except OSError as error:
            raise unwritten(self._folder, error) from None
        self.over = ending

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
        self._demand_whole()
        before, end, records, _ = self._written
        rows, sums = bytearray(), list[Sums]()
        for leaf in leaves:
            end, records = end + leaf.length, records + leaf.records
            rows += ROW.pack(end, records, leaf.hash)
            sums.append((end, records))
        last = len(rows) - ROW.size
        rows[last:] = ROW.pack(end, records | MARK, leaves[-1].hash)
        try:
            os.pwrite(self._slots, entry(before + len(leaves), position), SLOT_BYTES if self._slot == 0 else 0)
            write(self._rows, rows, HEAD_BYTES + before * ROW.size)
        except OSError as error:
            raise unwritten(self._folder, error) from None
        self._slot = 1 - self._slot
        self._written = (before + len(leaves), end, records, position)
        self._coming.append((self._written, tuple(sums[-TAIL:])))

    def show(self) -> bool:
        """Let the first batch that was appended and not shown be a part of the log; False if there is none."""
        if not self._coming:
            return False
        (self.leaves, self.end, self.records_end, self.position), sums = self._coming.popleft()
        tail = (*self._tail[1], *sums)[-TAIL:]
        self._tail = self.leaves - len(tail), tail
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
        try:
            if durable:
                self.finish()
        finally:
            with self._closing:
                self._rows = self._slots = -1
                self._opened.close()

    def finish(self) -> None:
        """Say that it was closed, once everything is on the disk. Nothing is written after that. Raises OSError, SinkFailed."""
        if self.lost or self.torn or self.broken:
            return
        self.sync(self.unmarked, 1)
        try:
            for descriptor in (self._rows, self._slots) if self._rows >= 0 else ():  # what was let go before had ended, all of it marked
                os.fsync(descriptor)
            sync(self._folder)  # the files of the spool have their names there
            if not self._life.endswith(DOUBTED):
                say(self._folder, CLOSED)
        except OSError as error:
            if error.errno not in SCARCE:  # nobody has asked the disk
                self.doubt()
            raise

    def _demand_whole(self) -> None:
        if self.broken:
            raise unwritten(self._folder, OSError(errno.EIO, REFUSED))

    def _live(self) -> None:
        """Say that it is open in this life of the machine, before anything is written: after a loss of power it is not taken for closed."""
        try:
            say(self._folder, self._life)
        except OSError as error:
            raise unwritten(self._folder, error) from None

    def _marked(self, most: int | None) -> int:
        """How many leaves there are up to the last end of a batch, or up to `most`; what is behind it is cut off."""
        there = leaves = max(1, (os.fstat(self._rows).st_size - HEAD_BYTES) // ROW.size)
        while leaves > 1 and not SUMS.unpack(os.pread(self._rows, SUMS.size, HEAD_BYTES + (leaves - 1) * ROW.size))[1] & MARK:
            leaves -= 1
        if most is not None:
            self.lost, leaves = there < most, min(most, there)
        if not (self.lost or self._looks):
            os.ftruncate(self._rows, HEAD_BYTES + leaves * ROW.size)
        return leaves

    def _position(self) -> str | None:
        """Where the source goes on: as the newest mark or slot says that is not ahead of the rows. After a loss of power both slots may be,
        until two batches have come."""
        newest, found = self._marks.upto(self.leaves) or (-1, None)
        for number in range(2):
            read = read_entry(os.pread(self._slots, SLOT_BYTES, number * SLOT_BYTES), 0)
            if read is not None and newest < read[0] <= self.leaves:
                (newest, found), self._slot = read, number
        return found

    def _sums(self, leaf: int) -> tuple[int, int]:
        """Bytes and records up to the end of a leaf."""
        first, tail = self._tail
        if first <= leaf < first + len(tail):
            return tail[leaf - first]
        end, records = SUMS.unpack(self._bytes(SUMS.size, leaf))
        return end, records & ~MARK

    def _read(self, first: int, end: int) -> list[bytes]:
        data = self._bytes(max(end - first, 0) * ROW.size, first)
        return [data[at : at + ROW.size] for at in range(0, len(data), ROW.size)]

    def _bytes(self, count: int, leaf: int) -> bytes:
        """Of a log that was let go, which its account outlives, from a file that is opened for this. Raises SinkFailed."""
        with self._closing:
            if self._rows >= 0:
                return os.pread(self._rows, count, HEAD_BYTES + leaf * ROW.size)
        try:
            with (self._folder / ROWS_FILE).open("rb", buffering=0) as rows:
                return os.pread(rows.fileno(), count, HEAD_BYTES + leaf * ROW.size)
        except OSError as error:
            raise failed(f"the content log in `{self._folder}` cannot be read", error) from None

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
