"""The index of a content log: the tree of RFC 6962 over what was read, in a file that is believed as far as it can be computed anew."""

import errno
import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.dataplane import index as index_module
from connector.dataplane.index import HASHES_AT, HEADER_AT, TILE_HASHES, Damaged, Log, Writing
from connector.errors import SinkFailed
from connector.lanes import hashing
from connector.merkle.tree import HASH_BYTES, inclusion, leaf_hash, node_hash, nodes_of, root_of, verify_inclusion
from connector.metering.content import CHUNK_BYTES, Header, Leaf, records_of, write_etag
from tests.dataplane.rig import some_bytes
from tests.lanes.compiled import by_lanes

KEY, OTHER = b"k" * 32, b"o" * 32
NAME = "one.log"


def header(size_bytes: int) -> Header:
    return Header(CHUNK_BYTES, size_bytes, "text/csv", "none", b"s" * 32)


def leaves_of(content: bytes) -> list[bytes]:
    data = [content[at : at + CHUNK_BYTES] for at in range(0, len(content), CHUNK_BYTES)]
    return [header(len(content)).hash, *map(leaf_hash, data)]


def written(folder: Path, content: bytes, piece_bytes: int = 1 << 20, *, counts: bool = False, sha256: bytes | None = None) -> Log:
    with Writing(folder, counts=counts) as writing:
        for at in range(0, len(content), piece_bytes):
            writing.update(memoryview(content)[at : at + piece_bytes])
        return writing.finish(NAME, KEY, header, sha256)


@pytest.fixture(params=["hashlib", "lanes"])
def _by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves hashed one by one, and many at a time."""
    if request.param == "lanes":
        monkeypatch.setattr(hashing, "HASHING", by_lanes())


@pytest.mark.usefixtures("_by")
@pytest.mark.parametrize("size_bytes", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 1_000_003, 4_500_007])
@pytest.mark.parametrize("piece_bytes", [99_991, 1 << 20, 5 << 20])
def test_root_and_leaves_are_those_of_rfc_6962_however_the_data_came(tmp_path: Path, size_bytes: int, piece_bytes: int):
    content = some_bytes(size_bytes)
    log, leaves = written(tmp_path, content, piece_bytes), leaves_of(content)
    assert (log.leaves, log.root, log.header) == (len(leaves), root_of(leaves), header(size_bytes).entry)
    assert (log.size_bytes, log.etag) == (size_bytes, write_etag(log.root, CHUNK_BYTES))
    assert log.hashes(0, 0, 1_000) == b"".join(leaves)
    assert log.hashes(0, 1, 2) == b"".join(leaves[1:3])
    assert (log.hashes(0, len(leaves), 5), log.hashes(1, 0, 1), log.hashes(7, 0, 1)) == (b"", b"", b"")


def test_many_indexes_that_are_written_at_once_keep_no_more_together_than_a_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hashing, "HASHING", by_lanes())
    monkeypatch.setattr(index_module, "BATCHES_BYTES", 8 * CHUNK_BYTES)
    content, half = memoryview(some_bytes(9 * CHUNK_BYTES + 1000)), 9 * CHUNK_BYTES // 2
    with ExitStack() as stack:
        alone = stack.enter_context(Writing(tmp_path, counts=False))
        alone.update(content[:half])
        others = [stack.enter_context(Writing(tmp_path, counts=False)) for _ in range(3)]
        for each in (alone, *others):
            each.update(content[half:] if each is alone else content[: 7 * CHUNK_BYTES])
        kept_bytes = sum(len(each._kept) for each in (alone, *others))
        assert kept_bytes <= 8 * CHUNK_BYTES
        assert alone.finish(NAME, KEY, header).root == root_of(leaves_of(bytes(content)))
    with Writing(tmp_path, counts=False) as again:
        again.update(content[: 7 * CHUNK_BYTES])
        assert len(again._kept) == 7 * CHUNK_BYTES, "who is alone has all of it again"


def test_the_levels_of_tiles_and_every_proof_come_from_the_index(tmp_path: Path):
    leaves = [leaf_hash(number.to_bytes(4, "big")) for number in range(66_000)]  # of data of 16 GiB, as far as anybody can tell
    size_bytes = len(leaves) * CHUNK_BYTES
    with Writing(tmp_path, counts=False) as writing:
        for leaf in leaves:
            writing.append(Leaf(leaf, CHUNK_BYTES, 0))
        log = writing.finish(NAME, KEY, header)
    leaves.insert(0, header(size_bytes).hash)
    nodes = nodes_of(leaves)
    assert log.root == root_of(leaves)
    assert log.hashes(1, 0, 300) == b"".join(nodes(8, n) for n in range(len(leaves) // 256))
    assert log.hashes(2, 0, 300) == nodes(16, 0) == node_hash(nodes(15, 0), nodes(15, 1))
    for index in (0, 1, 255, 256, 65_535, 65_536, 66_000):
        verify_inclusion(leaves[index], index, len(leaves), inclusion(index, len(leaves), log.node), log.root)


@given(cuts=st.lists(st.integers(1, 700_000), max_size=8), lines=st.integers(0, 4_000))
def test_records_are_the_lines_that_end_in_a_leaf(tmp_path_factory: pytest.TempPathFactory, cuts: list[int], lines: int):
    content = b"".join(b'{"n":%d}\n' % number + b" " * (number % 400) for number in range(lines)) + b"no end"
    at = 0
    with Writing(tmp_path_factory.mktemp("index"), counts=True) as writing:
        for count in [*cuts, len(content)]:
            writing.update(memoryview(content)[at : at + count])
            at += count
        log = writing.finish(NAME, KEY, header)
    assert log.records(0, log.leaves) == log.records(1, 10**9) == lines
    for leaf in range(1, log.leaves):
        assert log.records(leaf, leaf + 1) == content[(leaf - 1) * CHUNK_BYTES : leaf * CHUNK_BYTES].count(b"\n")
    assert log.records(2, 2) == log.records(0, 1) == 0


def test_the_records_of_any_range_are_known_without_looking_at_each_of_its_leaves(tmp_path: Path):
    counts = [number * number % 1000 for number in range(1000)]
    with Writing(tmp_path, counts=True) as writing:
        for records in counts:
            writing.append(Leaf(b"h" * 32, CHUNK_BYTES, records))
        log = writing.finish("l.log", b"k" * 32, lambda size: Header(CHUNK_BYTES, size, "application/x-ndjson", "line", b"s" * 32))
    for first in (0, 1, 2, 255, 256, 257, 258, 512, 513, 1000, 1001):
        for end in (1, 2, 256, 257, 258, 513, 514, 1000, 1001, 1002):
            assert log.records(first, end) == sum(counts[max(first, 1) - 1 : end - 1])
    looked = 0
    inner = log._counted

    def counted(low: int, high: int) -> int:
        nonlocal looked
        looked += high - low
        return inner(low, high)

    log._counted = counted  # type: ignore[method-assign]
    assert log.records(1, 1001) == sum(counts)
    assert looked < 2 * TILE_HASHES


def test_the_events_of_any_range_are_those_that_it_shows_by_itself(tmp_path: Path):
    """Two of three leaves begin with the line feed that the one before has left over: who has not that one does not see an event there."""
    counts = [number % 50 << 2 | (number % 3 != 1) << 1 | (number % 3 != 0) for number in range(600)]
    with Writing(tmp_path, counts=True, unit="message") as writing:
        for records in counts:
            writing.append(Leaf(b"h" * 32, CHUNK_BYTES, records))
        log = writing.finish("l.log", b"k" * 32, lambda size: Header(CHUNK_BYTES, size, "text/event-stream", "message", b"s" * 32))
    assert (log.unit, log.counts) == ("message", True)
    for first in (0, 1, 2, 3, 4, 255, 256, 257, 258, 259, 512, 513, 514, 600):
        for end in (1, 2, 256, 257, 258, 259, 513, 514, 515, 600, 601, 602):
            assert log.records(first, end) == records_of(counts[max(first, 1) - 1 : end - 1], "message")


def test_the_digest_of_the_data_is_kept_with_them(tmp_path: Path):
    assert written(tmp_path, b"abc", sha256=b"d" * 32).sha256 == b"d" * 32
    assert written(tmp_path, b"abc").sha256 is None


def test_it_is_ours_alone_and_leaves_nothing_beside_it(tmp_path: Path):
    written(tmp_path, b"abc")
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


def test_what_is_given_up_has_never_been_there(tmp_path: Path):
    log = written(tmp_path, b"abc")

    def give_up() -> None:
        with Writing(tmp_path, counts=False) as writing:
            writing.update(memoryview(b"other"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give_up()
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert Log(tmp_path / NAME, KEY).root == log.root


def test_a_thread_that_still_reads_along_writes_into_nobody_elses_file(tmp_path: Path):
    with Writing(tmp_path, counts=False) as writing:
        pass
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)  # has the number of the descriptor that was let go
    try:
        late = threading.Thread(target=lambda: writing.update(memoryview(some_bytes(40 * CHUNK_BYTES))))
        late.start()
        late.join()
        assert os.fstat(other).st_size == 0
    finally:
        os.close(other)


def changed(path: Path, at: int, to: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.pwrite(descriptor, to, at)
    finally:
        os.close(descriptor)


CONTENT = some_bytes(700_000)
DAMAGE: dict[str, Callable[[Path], None]] = {
    "empty": lambda path: path.write_bytes(b""),
    "short head": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "magic": lambda path: changed(path, 0, b"X"),
    "leaves": lambda path: changed(path, 12, (2**40).to_bytes(8, "big")),
    "no leaves": lambda path: changed(path, 12, bytes(8)),
    "header length": lambda path: changed(path, 10, b"\xff\xff"),
    "root": lambda path: changed(path, 20, b"r" * 32),
    "sha256": lambda path: changed(path, 52, b"s" * 32),
    "header": lambda path: changed(path, HEADER_AT, b"["),
    "a hash": lambda path: changed(path, HASHES_AT + 2 * HASH_BYTES + 5, b"\0\0\0\0"),
    "records": lambda path: changed(path, HASHES_AT + 4 * HASH_BYTES, b"\1"),
    "digest": lambda path: changed(path, path.stat().st_size - 1, b"\0\0"[:1]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_file_that_is_not_what_was_written_is_no_index(tmp_path: Path, damage: Callable[[Path], None]):
    written(tmp_path, CONTENT, counts=True)
    before = (tmp_path / NAME).read_bytes()
    damage(tmp_path / NAME)
    if (tmp_path / NAME).read_bytes() == before:
        changed(tmp_path / NAME, len(before) - 1, b"\1")
    with pytest.raises(Damaged):
        Log(tmp_path / NAME, KEY)


def test_an_index_of_other_data_is_not_taken_for_these(tmp_path: Path):
    written(tmp_path, CONTENT)
    with pytest.raises(Damaged, match="other data"):
        Log(tmp_path / NAME, OTHER)
    with pytest.raises(FileNotFoundError):
        Log(tmp_path / "none.log", KEY)


def test_an_index_is_no_link(tmp_path: Path):
    written(tmp_path, CONTENT)
    (tmp_path / "link.log").symlink_to(tmp_path / NAME)
    with pytest.raises(SinkFailed, match=os.strerror(errno.ELOOP)):
        Log(tmp_path / "link.log", KEY)


def test_a_disk_that_takes_no_more_is_said_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write() -> None:
        with Writing(tmp_path, counts=False) as writing:
            monkeypatch.setattr(os, "pwrite", full)
            writing.update(memoryview(CONTENT))
            writing.finish(NAME, KEY, header)

    with pytest.raises(SinkFailed, match="No space left on device; look after that disk"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_is_said(tmp_path: Path):
    with pytest.raises(SinkFailed, match="No such file"):
        Writing(tmp_path / "none", counts=False)
