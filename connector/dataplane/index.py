"""The index of a content log: one file with the header leaf and the hash of every leaf of what is published.

It is written once, while the data are read at publication, and served from then on: 32 bytes for 256 KiB of data. The file is

    head      magic, whether records are counted, length of the header leaf, number of leaves, root, the SHA-256 of all data (zeros: not
              known), and the key that it is found by
    header    the header leaf (leaf 0), at HEADER_AT
    hashes    the hash of each leaf, at HASHES_AT, in order
    records   where they are counted: how many there are in each leaf of data, four bytes each (of events with two bits that say whether
              the leaf begins and ends with a line feed: `connector.metering.content.records_in`)
    digest    the SHA-256 of all that stands before

in big endian. Nothing in it is believed: whoever opens one computes digest and root anew, and a file that does not fit is no index.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
from array import array
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from connector.dataplane_disk.index_file import IndexFile, disk
from connector.errors import MeterRefused, SinkFailed
from connector.lanes.counting import records_in
from connector.lanes.hashing import batch_bytes, leaf_hashes, spans_of
from connector.merkle.tree import HASH_BYTES, Frontier, frontier_at, leaf_hash
from connector.metering import credit
from connector.metering.begun import Whole
from connector.metering.content import CHUNK_BYTES, Header, Layout, Leaf, read_header, records_of, write_etag
from connector.metering.objects import Manifest

TILE_HASHES: Final = 256  # C2SP tlog-tiles: a tile has this many, and each of the next level stands for one of these
TILE_LEVELS: Final = 8  # 256^8 leaves are more than can be counted
HEAD: Final = struct.Struct(">8sHHQ32s32s32s")
MAGIC: Final = b"QIAOLOG1"
HEADER_AT, HASHES_AT = 128, 4096
RECORD_BYTES: Final = 4
NO_DIGEST: Final = bytes(HASH_BYTES)
MODE: Final = 0o600  # what the data are is told by their hashes, to whoever can guess them
READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
WRITE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
PART: Final = ".part-"
SNAPSHOT_DIGITS: Final = 32
BATCHES_BYTES: Final = 16 << 20  # of data that are kept for all indexes that are written at once, a leaf for each of them at least
FLUSH_BYTES: Final = 1 << 20  # of hashes kept before they are written: those of 8 GiB


class Damaged(Exception):
    """A file that is no index of what it should be. Nobody is told: it is made anew from the data."""


class Writing:
    """An index that is being written, into a file of `folder` that has no name of its own yet. `counts` says whether to count the
    records, which are lines, or another `unit` of finite data. `update` is an `Along` of the port `Sources`. All methods raise SinkFailed
    if the disk does not take it."""

    under_way = 0  # indexes that are written just now

    def __init__(self, folder: Path, *, counts: bool, unit: str = "line") -> None:
        self._folder = folder
        self._whole = Whole() if counts and unit == "message" else None
        self._part = folder / f"{PART}{os.urandom(8).hex()}"
        with disk(folder):
            self._descriptor = os.open(self._part, WRITE, MODE)
        self._hashes = bytearray(HASH_BYTES)  # the place of the header
        self._written = HASHES_AT
        self._counts, self._records = counts, array("I")
        self.size_bytes = 0
        self.unit = unit if counts else "none"
        self._kept = bytearray()  # of the data: what is in no leaf yet
        # Whoever gives up may do so while a thread still reads along; what that writes must not go into somebody else's file.
        self._turn = threading.Lock()
        Writing.under_way += 1

    def update(self, piece: memoryview) -> None:
        """Take the next bytes of the data."""
        with self._turn:
            self._take(memoryview(piece))
            if self._whole is not None and piece:
                self._whole.take(bytes(piece))

    def _take(self, piece: memoryview) -> None:
        """Seal what is enough to be hashed together; keep the rest."""
        share = BATCHES_BYTES // max(Writing.under_way, 1) // CHUNK_BYTES * CHUNK_BYTES
        batch = max(min(batch_bytes(CHUNK_BYTES), share), CHUNK_BYTES)
        if len(self._kept) >= batch:  # others have come since
            self._seal_kept()
        while piece:
            if not self._kept and len(piece) >= batch:
                end = len(piece) // CHUNK_BYTES * CHUNK_BYTES
                self._seal(piece[:end])
            else:
                end = min(batch - len(self._kept), len(piece))
                self._kept += piece[:end]
                if len(self._kept) == batch:
                    self._seal_kept()
            piece = piece[end:]

    def _seal_kept(self, *, rest: bool = False) -> None:
        """Seal the whole leaves of what is kept, or also the `rest` of it."""
        kept = self._kept
        end = len(kept) if rest else len(kept) // CHUNK_BYTES * CHUNK_BYTES
        self._kept = kept[end:]
        self._seal(memoryview(kept)[:end])

    def _seal(self, data: memoryview) -> None:
        spans = spans_of(len(data), CHUNK_BYTES)
        for hash_, (first, end) in zip(leaf_hashes(data, spans), spans, strict=True):
            counted = records_in(data, self.unit, first, end) if self._counts else 0
            self._append(Leaf(hash_, end - first, counted))

    def append(self, leaf: Leaf) -> None:
        """Take the next leaf, of data that somebody else has cut."""
        with self._turn:
            self._append(leaf)

    def _append(self, leaf: Leaf) -> None:
        if self._descriptor < 0:
            return
        self._hashes += leaf.hash
        self.size_bytes += leaf.length
        if self._counts:
            self._records.append(leaf.records)
        if len(self._hashes) >= FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        with disk(self._folder):
            _write(self._descriptor, self._hashes, self._written)
        self._written += len(self._hashes)
        self._hashes = bytearray()

    def finish(self, name: str, key: bytes, header: Callable[[int], Header], sha256: bytes | None = None) -> Log:
        """Make it the index of `key` (32 bytes), durable and under its name, and open it. `header(size in bytes)` is leaf 0, `sha256` the
        digest of all data where somebody knows it. From here on `unit` is `none` for events that have no signed count."""
        with self._turn, disk(self._folder):
            if self._whole is not None and not self._whole.holds:
                self.unit, self._counts = "none", False
            self._seal_kept(rest=True)
            self._flush()
            leaves = (self._written - HASHES_AT) // HASH_BYTES
            entry = header(self.size_bytes).entry
            if len(entry) > HASHES_AT - HEADER_AT:
                raise SinkFailed(f"the header of a content log has {len(entry)} bytes, more than its index has room for")
            os.pwrite(self._descriptor, leaf_hash(entry), HASHES_AT)
            os.pwrite(self._descriptor, entry, HEADER_AT)
            if self._counts:
                _write(self._descriptor, _big_endian(self._records).tobytes(), self._written)
                self._written += len(self._records) * RECORD_BYTES
            file = IndexFile(self._descriptor, self._folder)
            root = _Tree(file, leaves).root
            os.pwrite(self._descriptor, HEAD.pack(MAGIC, self._counts, len(entry), leaves, root, sha256 or NO_DIGEST, key), 0)
            os.pwrite(self._descriptor, file.digest(self._written), self._written)
            os.fsync(self._descriptor)
            os.replace(self._part, self._folder / name)
            sync(self._folder)
        return Log(self._folder / name, key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        """Let go of it; what has no name by now is removed."""
        with self._turn:
            descriptor, self._descriptor = self._descriptor, -1
            Writing.under_way -= 1
            os.close(descriptor)
            self._part.unlink(missing_ok=True)


def described(path: Path) -> tuple[bytes, bytes, bool]:
    """The root, the key, and whether records are counted, as the head of an index has them: whoever believes that opens it. Raises
    as `Log`."""
    with disk(path, "read from", (FileNotFoundError,)), path.open("rb") as file:
        head = file.read(HEAD.size)
    if len(head) < HEAD.size:
        raise Damaged("it is not the index of a content log")
    _, counts, _, _, root, _, key = HEAD.unpack(head)
    return root, key, bool(counts)


def snapshot_of(root: bytes) -> str:
    """The name of the data with this root."""
    return root.hex()[:SNAPSHOT_DIGITS]


class _Tree:
    """The nodes of the tree over the leaf hashes that stand in an index."""

    def __init__(self, bytes_: IndexFile, leaves: int) -> None:
        self.leaves, self._bytes = leaves, bytes_
        self._upper: list[bytes] = []  # by level of tiles, from 1: the roots of the full tiles of the level below
        count = leaves
        for level in range(TILE_LEVELS):
            count //= TILE_HASHES
            if not count:
                break
            self._upper.append(b"".join(self._folded(level, n * TILE_HASHES, TILE_HASHES) for n in range(count)))
        self.root = frontier_at(leaves, self.node).root

    def hashes(self, level: int, first: int, count: int) -> bytes:
        """`count` hashes of a level of tiles, from index `first`; fewer where there are no more."""
        if level:
            return self._upper[level - 1][first * HASH_BYTES : (first + count) * HASH_BYTES] if level <= len(self._upper) else b""
        end = min(first + count, self.leaves)
        return self._bytes[HASHES_AT + first * HASH_BYTES : HASHES_AT + end * HASH_BYTES] if first < end else b""

    def node(self, level: int, index: int) -> bytes:
        """The hash over the leaves [index·2^level, (index+1)·2^level)."""
        tiles, within = divmod(level, TILE_LEVELS)
        return self._folded(tiles, index << within, 1 << within)

    def _folded(self, level: int, first: int, count: int) -> bytes:
        found = self.hashes(level, first, count)
        return Frontier().extend(found[at : at + HASH_BYTES] for at in range(0, len(found), HASH_BYTES)).root


class Place(Protocol):
    """Where the bytes of each leaf of a content log are: see `connector.metering.content.Layout`."""

    def span(self, first: int, last: int) -> tuple[int, int]: ...
    def touched(self, offset: int, length: int) -> tuple[int, int]: ...
    def held(self, offset: int, length: int) -> tuple[int, int]: ...


class Described(Protocol):
    """A content log, to whoever promises, counts and proves its data: `Log`, and the one of live data, which grows and has no root and no
    size. `snapshot` names it among all logs."""

    @property
    def header(self) -> bytes: ...
    @property
    def leaves(self) -> int: ...
    @property
    def root(self) -> bytes | None: ...
    @property
    def size_bytes(self) -> int | None: ...
    @property
    def etag(self) -> str: ...
    @property
    def snapshot(self) -> str: ...
    @property
    def layout(self) -> Place: ...
    def hashes(self, level: int, first: int, count: int) -> bytes: ...
    def records(self, first: int, end: int) -> int: ...
    def root_at(self, leaves: int) -> bytes | None: ...
    def known(self, manifest: Manifest) -> credit.Log: ...


class Log:
    """The content log that an index describes: `header` is leaf 0, `leaves` counts it, `etag` is the entity tag of the data.

    Reads all of the index once: a terabyte of data has 128 MiB of it. Raises Damaged for a file that is not the index of `key`,
    FileNotFoundError if there is none, SinkFailed if it cannot be read now.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        with disk(path, "read from", (FileNotFoundError,)):
            descriptor = os.open(path, READ)
            try:
                self._bytes = IndexFile(descriptor, path)
            finally:
                os.close(descriptor)
        if len(self._bytes) < HASHES_AT:
            raise Damaged("it is shorter than any index")
        head: tuple[bytes, int, int, int, bytes, bytes, bytes] = HEAD.unpack(self._bytes[: HEAD.size])
        magic, counts, length, self.leaves, self.root, sha256, found = head
        data = self.leaves - 1
        self._records_at = HASHES_AT + self.leaves * HASH_BYTES
        end = self._records_at + (data * RECORD_BYTES if counts else 0)
        if magic != MAGIC or counts > 1 or data < 0 or length > HASHES_AT - HEADER_AT or len(self._bytes) != end + HASH_BYTES:
            raise Damaged("it is not the index of a content log, or not all of one")
        if found != key:
            raise Damaged("it is the index of other data")
        if self._bytes.digest(end) != self._bytes[end:]:
            raise Damaged("its digest is not that of its content")
        self.counts, self.sha256, self.key = bool(counts), sha256 if sha256 != NO_DIGEST else None, key
        self.header = self._bytes[HEADER_AT : HEADER_AT + length]
        self.etag = write_etag(self.root, CHUNK_BYTES)
        self._tree = _Tree(self._bytes, self.leaves)
        if self._tree.root != self.root or self.hashes(0, 0, 1) != leaf_hash(self.header):
            raise Damaged("its hashes do not come to its root")
        try:
            told = read_header(self.header)
        except MeterRefused as error:
            raise Damaged(error.message) from None
        self.size_bytes, self.unit = told.size_bytes or 0, told.record_unit
        self._sums = array("Q", (0,))  # of the records before each 256th leaf of data: each receipt asks for its ranges
        for at in range(0, data if counts else 0, TILE_HASHES):
            self._sums.append(self._sums[-1] + self._counted(at, min(at + TILE_HASHES, data)))
        if self.leaves != Layout(self.size_bytes).leaves:
            raise Damaged("it has another number of leaves than its header says")

    @property
    def lost(self) -> bool:
        """Whether its file could not be read any more: who wants it opens it anew."""
        return self._bytes.lost

    def follow(self, other: Log) -> None:
        """Read what another one of these data reads, as it was opened anew: accounts that have this one go on counting."""
        if other.root == self.root:
            self._bytes, self._tree = other._bytes, other._tree

    @property
    def snapshot(self) -> str:
        """The name of the data as they were published: part of the root, which is salted, so it tells nobody what they are."""
        return snapshot_of(self.root)

    @property
    def layout(self) -> Layout:
        return Layout(self.size_bytes)

    def root_at(self, leaves: int) -> bytes | None:
        """The root over the first `leaves` leaves; None but for all of them."""
        return self.root if leaves == self.leaves else None

    def known(self, manifest: Manifest) -> credit.Log:
        """What receipts are judged by."""
        return credit.finite(manifest, records=self.records if self.counts else None, leaf=lambda leaf: self.hashes(0, leaf, 1) or None)

    def hashes(self, level: int, first: int, count: int) -> bytes:
        """`count` hashes, 32 bytes each, of a level of tiles (0: the leaves; 1: each stands for 256 of them; ...), from index `first`;
        fewer where there are no more. A hash of a higher level is there once all that it stands for is."""
        return self._tree.hashes(level, first, count)

    def node(self, level: int, index: int) -> bytes:
        """The hash over the leaves [index·2^level, (index+1)·2^level), all of which are there."""
        return self._tree.node(level, index)

    def records(self, first: int, end: int) -> int:
        """How many records there are in the leaves [first, end), as these alone show them; 0 where they are not counted."""
        low, high = max(first, 1) - 1, min(end, self.leaves) - 1
        if not self.counts or low >= high:
            return 0
        return self._before(high) - self._before(low) - self._across(low)

    def _before(self, leaf: int) -> int:
        """How many records there are before a leaf of data, counted from 0."""
        tile = leaf // TILE_HASHES
        return self._sums[tile] + self._counted(tile * TILE_HASHES, leaf)

    def _across(self, leaf: int) -> int:
        """How many records end at the first byte of a leaf of data, counted from 0: whoever has not the one before does not see that."""
        values = self._values(max(leaf - 1, 0), leaf + 1)
        return records_of(values, self.unit) - sum(records_of((each,), self.unit) for each in values)

    def _counted(self, low: int, high: int) -> int:
        """How many there are in these leaves, with one that ends at the first byte of them."""
        return records_of(self._values(low, high), self.unit) + self._across(low) if low < high else 0

    def _values(self, low: int, high: int) -> array[int]:
        return _big_endian(array("I", self._bytes[self._records_at + low * RECORD_BYTES : self._records_at + high * RECORD_BYTES]))


def _write(descriptor: int, content: bytes | bytearray, at: int) -> None:
    """All of it: a disk that is nearly full may take a part."""
    left = memoryview(content)
    while left:
        taken = os.pwrite(descriptor, left, at)
        left, at = left[taken:], at + taken


def _big_endian(numbers: array[int]) -> array[int]:
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def sync(folder: Path) -> None:
    """Make what is named in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
