"""A log that grows: what its rows come to, and what is left of it after an end at any moment."""

import errno
import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.dataplane_live import growing, marks
from connector.dataplane_live.growing import HEAD_BYTES, POSITION_FILE, ROW, ROWS_FILE, Growing
from connector.dataplane_live.life import LIFE_FILE
from connector.dataplane_live.marks import MARKS_FILE
from connector.errors import SinkFailed
from connector.merkle.tree import consistency, root_of, verify_consistency
from connector.metering.content import CHUNK_BYTES, Header, Known, Leaf, read_sealed

HEADER = Header(CHUNK_BYTES, None, "application/x-ndjson", "line", b"s" * 32)
LEAF = st.builds(lambda length, seed: Leaf(hashlib.sha256(b"%d" % seed).digest(), length, length // 10), st.integers(1, 900), st.integers())
BATCHES = st.lists(st.tuples(st.lists(LEAF, min_size=1, max_size=5), st.none() | st.text(max_size=9)), max_size=12)
Batches = list[tuple[list[Leaf], str | None]]


def begun(folder: Path, batches: Batches, life: str = "life") -> Growing:
    log = Growing.begin(folder, life, HEADER)
    for leaves, position in batches:
        log.append(leaves, position)
        log.show()
    return log


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory):
    return lambda: tmp_path_factory.mktemp("log") / "x"


@settings(deadline=None, max_examples=60)
@given(batches=BATCHES)
def test_it_comes_to_the_same_as_all_its_leaves_together_also_when_it_is_opened_again(fresh, batches: Batches):
    folder = fresh()
    begun(folder, batches).close(durable=False)
    log = Growing(folder, "life")
    leaves = [leaf for each, _ in batches for leaf in each]
    hashes = [HEADER.hash, *(leaf.hash for leaf in leaves)]
    assert (log.leaves, log.end, log.records_end) == (len(hashes), sum(e.length for e in leaves), sum(e.records for e in leaves))
    assert log.position == (batches[-1][1] if batches else None)
    assert log.hashes(0, 0, 1000) == b"".join(hashes)
    roots = [log.root_at(size) for size in range(1, len(hashes) + 1)]
    assert roots == [root_of(hashes[:size]) for size in range(1, len(hashes) + 1)]
    assert (log.root_at(0), log.root_at(len(hashes) + 1)) == (None, None)
    for size in range(1, len(hashes)):
        verify_consistency(size, roots[size - 1] or b"", len(hashes), roots[-1] or b"", consistency(size, len(hashes), log.node))
    if leaves:
        listed = read_sealed(log.sealed(1, log.leaves), CHUNK_BYTES)
        assert listed.measure(((1, log.leaves),)) == Known(log.end, log.records_end)
        assert log.measure(((1, log.leaves),)) == Known(log.end, log.records_end, 0)
    log.close(durable=False)


@settings(deadline=None, max_examples=60)
@given(batches=BATCHES.filter(bool), data=st.data())
def test_every_byte_is_in_the_leaf_in_which_it_is(fresh, batches: Batches, data: st.DataObject):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growing, "TAIL", data.draw(st.integers(1, 4)))  # what lies before is read from the rows
        log = begun(fresh(), batches)
    leaves = [leaf for each, _ in batches for leaf in each]
    owner = [n for n, leaf in enumerate(leaves, 1) for _ in range(leaf.length)]
    offset = data.draw(st.integers(0, log.end))
    length = data.draw(st.integers(0, log.end - offset))
    inside = owner[offset : offset + length]
    first, last = log.touched(offset, length)
    assert list(range(first, last)) == sorted(set(inside))
    low, high = log.held(offset, length)
    whole = [n for n, leaf in enumerate(leaves, 1) if log.span(n, n + 1)[0] >= offset and sum(log.span(n, n + 1)) <= offset + length]
    assert list(range(low, high)) == whole
    most = data.draw(st.integers(0, log.end + 5))
    start = data.draw(st.integers(1, log.leaves - 1))
    size = log.within(start, most, log.leaves)
    assert size == start + 1 or log.span(start, size)[1] <= most
    assert size == log.leaves or log.span(start, size + 1)[1] > most
    log.close(durable=False)


def batch(count: int, seed: int = 0) -> list[Leaf]:
    return [Leaf(hashlib.sha256(b"%d %d" % (seed, n)).digest(), 100, 3) for n in range(count)]


def test_what_was_appended_ahead_is_seen_batch_by_batch_and_all_of_it_is_there_after_a_kill(tmp_path: Path):
    batches = [(batch(2), "a"), (batch(3, 1), None), (batch(1, 2), "c")]
    log, sooner = Growing.begin(tmp_path / "x", "life", HEADER), begun(tmp_path / "y", batches)
    for leaves, position in batches:
        log.append(leaves, position)
    assert (log.leaves, log.end, log.written) == (1, 0, sooner.end)
    seen = list[tuple[int, str | None]]()
    while log.show():
        seen.append((log.leaves, log.position))
    assert seen == [(3, "a"), (6, None), (7, "c")]
    assert (log.unmarked, log.root_at(7)) == (sooner.unmarked, sooner.root_at(7))
    log.append(batch(1, 3), "d")
    log.close(durable=False)  # as a kill leaves it
    again = Growing(tmp_path / "x", "life")
    assert (again.leaves, again.position) == (8, "d")
    again.close(durable=False)
    sooner.close(durable=False)


@pytest.mark.parametrize("torn", range(1, 3 * ROW.size + 1, 7))
def test_a_batch_that_is_not_whole_never_was_a_part_of_the_log(tmp_path: Path, torn: int):
    log = begun(tmp_path / "x", [(batch(2), "a"), (batch(3, 1), "b")])
    before = log.root_at(3)
    log.close(durable=False)
    file = tmp_path / "x" / ROWS_FILE
    os.truncate(file, file.stat().st_size - torn)
    again = Growing(tmp_path / "x", "life")
    assert (again.leaves, again.end, again.position, again.root_at(3)) == (3, 200, "a", before)
    again.append(batch(1, 2), "c")
    again.show()
    assert (again.leaves, again.end, again.position) == (4, 300, "c")
    again.close(durable=False)


def test_an_end_between_the_place_in_the_source_and_the_rows_goes_on_from_the_place_before(tmp_path: Path):
    log = begun(tmp_path / "x", [(batch(2), "a")])
    rows = (tmp_path / "x" / ROWS_FILE).read_bytes()
    log.append(batch(3, 1), "b")
    log.close(durable=False)
    (tmp_path / "x" / ROWS_FILE).write_bytes(rows)
    again = Growing(tmp_path / "x", "life")
    assert (again.leaves, again.position) == (3, "a")
    again.close(durable=False)


def test_a_torn_place_counts_as_none(tmp_path: Path):
    begun(tmp_path / "x", [(batch(1), "a"), (batch(1, 1), "b")]).close(durable=False)
    file = tmp_path / "x" / POSITION_FILE
    content = bytearray(file.read_bytes())
    content[14] ^= 1
    file.write_bytes(content)
    again = Growing(tmp_path / "x", "life")
    assert again.position in ("a", "b")
    again.close(durable=False)


def test_full_tiles_stand_for_their_leaves_also_above_the_first_level(tmp_path: Path):
    log = begun(tmp_path / "x", [(batch(200, n), None) for n in range(4)])
    hashes = [log.hashes(0, n, 1) for n in range(log.leaves)]
    assert log.hashes(1, 0, 256) == b"".join(root_of(hashes[at : at + 256]) for at in (0, 256, 512))
    assert log.root_at(800) == root_of(hashes[:800])
    log.close(durable=False)
    again = Growing(tmp_path / "x", "life")
    assert (again.root_at(801), again.hashes(1, 2, 1)) == (root_of(hashes), root_of(hashes[512:768]))
    again.close(durable=False)


def test_a_log_that_was_not_closed_in_this_life_of_the_machine_goes_on_behind_what_was_synced(tmp_path: Path):
    log = begun(tmp_path / "x", [(batch(2), "a"), (batch(3, 1), "b")], life="before")
    log.sync(log.unmarked, 1)
    root = log.root_at(6)
    log.append(batch(4, 2), "c")
    log.show()
    assert (log.synced, log.unmarked) == (6, ((10, "c"),))
    log.close(durable=False)
    for _ in range(2):
        log = Growing(tmp_path / "x", "after")
        assert (log.torn, log.lost, log.leaves, log.synced, log.position, log.root_at(6)) == (True, False, 6, 6, "b", root)
        assert [log.point(leaf) for leaf in (2, 3, 5, 6)] == [(1, None), (3, "a"), (3, "a"), (6, "b")]
        log.close(durable=True)
    log = Growing(tmp_path / "x", "after")
    log.mended()
    log.append(batch(1, 3), "d")
    log.show()
    log.close(durable=False)
    log = Growing(tmp_path / "x", "after")
    assert (log.torn, log.leaves, log.position, log.unmarked) == (False, 7, "d", ((7, "d"),))
    log.close(durable=False)


@pytest.mark.parametrize("durable", [True, False])
def test_a_log_that_was_mended_goes_on_from_its_place_in_the_source_also_if_nothing_came_since(tmp_path: Path, durable: bool):
    log = begun(tmp_path / "x", [(batch(2), "a"), (batch(3, 1), "b")], life="before")
    log.sync(log.unmarked, 1)
    for position in ("c", "d"):  # both slots are ahead of what is left
        log.append(batch(4, 2), position)
        log.show()
    log.close(durable=False)
    log = Growing(tmp_path / "x", "after")
    log.mended()
    log.close(durable=durable)
    log = Growing(tmp_path / "x", "after")
    assert (log.torn, log.leaves, log.position) == (False, 6, "b")
    log.append(batch(1, 3), "e")  # its place in the source is written, and then the process ends
    log.close(durable=False)
    os.truncate(tmp_path / "x" / ROWS_FILE, HEAD_BYTES + 6 * ROW.size)
    log = Growing(tmp_path / "x", "after")
    assert (log.leaves, log.position) == (6, "b")
    log.close(durable=False)


def test_a_mark_that_found_no_room_does_not_hide_those_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = begun(tmp_path / "x", [(batch(2), "a")], life="before")
    write = os.pwrite

    def full(descriptor: int, data: bytes, at: int) -> int:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name != MARKS_FILE:
            return write(descriptor, data, at)
        if at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:10], at)

    with monkeypatch.context() as disk:
        disk.setattr(os, "pwrite", full)
        with pytest.raises(SinkFailed, match="cannot be written"):
            log.sync(log.unmarked, 1)
    log.sync(log.unmarked, 1)
    log.append(batch(1, 1), "b")
    log.show()
    log.sync(log.unmarked, 1)
    log.close(durable=False)
    log = Growing(tmp_path / "x", "after")
    assert (log.leaves, log.position, log.synced) == (4, "b", 4)
    log.close(durable=False)


def test_a_log_with_less_than_was_synced_is_lost_for_good(tmp_path: Path):
    log = begun(tmp_path / "x", [(batch(2), "a")], life="before")
    log.sync(log.unmarked, 1)
    log.close(durable=False)
    os.truncate(tmp_path / "x" / ROWS_FILE, HEAD_BYTES + 2 * ROW.size)
    for _ in range(2):
        log = Growing(tmp_path / "x", "after")
        assert log.lost
        log.close(durable=True)


@pytest.mark.parametrize("cut", [1, 10, 20])
def test_a_mark_that_is_half_there_was_never_signed_by(tmp_path: Path, cut: int):
    log = begun(tmp_path / "x", [(batch(2), "a")], life="before")
    log.sync(log.unmarked, 1)
    log.append(batch(1, 1), None)
    log.show()
    size = (tmp_path / "x" / MARKS_FILE).stat().st_size
    log.sync(log.unmarked, 1)
    log.close(durable=False)
    os.truncate(tmp_path / "x" / MARKS_FILE, min(size + cut, (tmp_path / "x" / MARKS_FILE).stat().st_size - 1))
    log = Growing(tmp_path / "x", "after")
    assert (log.leaves, log.position, log.lost) == (3, "a", False)
    log.close(durable=False)
    assert (tmp_path / "x" / MARKS_FILE).stat().st_size == size


def test_marks_that_nobody_needs_are_left_out_before_they_become_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(marks, "MARKS_BYTES_MAX", 200)
    log = begun(tmp_path / "x", [], life="before")
    for number in range(40):
        log.append(batch(1, number), str(number))
        log.show()
        log.sync(log.unmarked, max(1, number - 3))
        assert (tmp_path / "x" / MARKS_FILE).stat().st_size <= 200
    log.close(durable=False)
    log = Growing(tmp_path / "x", "after")
    assert (log.leaves, log.position, log.point(37)) == (41, "39", (37, "35"))
    log.close(durable=False)


def test_that_it_is_open_outlives_a_loss_of_power_before_anything_is_written_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    flushed: list[tuple[str, str]] = []
    flush = os.fsync

    def noted(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        flushed.append((path.name, path.read_text() if path.name == LIFE_FILE else ""))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    begun(tmp_path / "x", [(batch(2), "a")], life="before").close(durable=True)
    assert [name for name, _ in flushed][-2:] == ["x", LIFE_FILE]  # the names of its files, and then that it is closed
    log = Growing(tmp_path / "x", "after")
    assert flushed[-1] == (LIFE_FILE, "after")
    log.close(durable=False)


def test_a_log_that_was_closed_goes_on_in_another_life(tmp_path: Path):
    begun(tmp_path / "x", [(batch(2), "a")], life="before").close(durable=True)
    log = Growing(tmp_path / "x", "after")
    assert (log.torn, log.leaves, log.position) == (False, 3, "a")
    log.close(durable=False)
    log = Growing(tmp_path / "x", "third")
    assert (log.torn, log.leaves, log.position) == (True, 3, "a")
    log.close(durable=False)


class Failing:
    """A disk that refuses to keep what is written at some flushes, by number, and says at the next that all is well."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, *numbers: int) -> None:
        self.count, flush = 0, getattr(os, name)

        def fail(descriptor: int) -> None:
            self.count += 1
            if self.count in numbers:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            flush(descriptor)

        monkeypatch.setattr(os, name, fail)


@pytest.mark.parametrize("number", [3, 4], ids=["rows", "marks"])
def test_what_the_disk_has_once_refused_to_keep_is_never_said_to_be_durable(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch):
    Failing(monkeypatch, "fdatasync", number)
    log = begun(tmp_path / "x", [(batch(2), "a")])
    log.sync(log.unmarked, 1)
    log.append(batch(2), "b")
    log.show()
    for _ in range(2):
        with pytest.raises(SinkFailed, match="look after that disk"):
            log.sync(log.unmarked, 1)
        assert (log.synced, log.broken) == (3, True)
    with pytest.raises(SinkFailed, match="refused to keep"):
        log.append(batch(2), "c")
    log.close(durable=True)
    assert (tmp_path / "x" / LIFE_FILE).read_text() == "life doubted"
    flushes = Failing(monkeypatch, "fsync")
    log = Growing(tmp_path / "x", "life")
    assert (log.torn, log.broken, log.leaves) == (True, False, log.synced), "what lies behind the last mark is not relied on"
    assert log.synced == (3 if number == 3 else 5)
    assert flushes.count == 2, "the marks were written anew"
    log.mended()
    log.append(batch(1), "d")
    log.show()
    log.sync(log.unmarked, 1)
    log.close(durable=True)
    for life, said in (("life", "life doubted"), ("after", "after")):  # in another one the disk says what it has
        log = Growing(tmp_path / "x", life)
        assert log.torn
        log.mended()
        assert (tmp_path / "x" / LIFE_FILE).read_text() == said
        log.close(durable=False)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_of_a_log_whose_beginning_the_disk_did_not_keep_nothing_is_left(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch):
    Failing(monkeypatch, "fsync", number)
    with pytest.raises(SinkFailed, match="can be made"):
        begun(tmp_path / "x", [])
    assert not (tmp_path / "x").exists()
    begun(tmp_path / "x", []).close(durable=True)


@pytest.mark.parametrize("number", [2, 3, 4])
def test_a_log_that_could_not_be_closed_is_torn_for_whoever_opens_it(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch):
    log = begun(tmp_path / "x", [(batch(2), "a")])
    Failing(monkeypatch, "fsync", number)
    with pytest.raises(OSError, match="error"):
        log.close(durable=True)
    log = Growing(tmp_path / "x", "life")
    assert log.torn
    log.close(durable=False)


def test_a_log_of_which_nothing_could_be_said_but_that_it_is_doubted_is_torn_and_can_be_read(tmp_path: Path):
    log = begun(tmp_path / "x", [(batch(2), "a")])
    log.sync(log.unmarked, 1)
    log.close(durable=False)
    (tmp_path / "x" / LIFE_FILE).unlink()
    log = Growing(tmp_path / "x", "life")
    assert (log.torn, log.leaves) == (True, 3)
    log.mended()
    log.close(durable=True)
    assert (tmp_path / "x" / LIFE_FILE).read_text() == "life doubted"


@pytest.mark.parametrize("number", [1, 2])
def test_a_doubted_log_that_cannot_be_opened_leaves_no_file_open_however_often_it_is_asked_for(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
):
    log = begun(tmp_path / "x", [(batch(2), "a")])
    log.sync(log.unmarked, 1)
    log.doubt()
    log.close(durable=True)
    with monkeypatch.context() as patched:
        Failing(patched, "fsync", number)
        with pytest.raises(SinkFailed, match="cannot be read"):
            Growing(tmp_path / "x", "life")
    held = [each.readlink() for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    assert [path for path in held if tmp_path in path.parents] == []
    log = Growing(tmp_path / "x", "life")
    assert (log.torn, log.leaves) == (True, 3)
    log.close(durable=False)


def test_what_is_no_log_is_refused(tmp_path: Path):
    begun(tmp_path / "x", []).close(durable=False)
    (tmp_path / "x" / ROWS_FILE).write_bytes(b"x" * HEAD_BYTES)
    with pytest.raises(SinkFailed, match="no content log"):
        Growing(tmp_path / "x", "life")
    with pytest.raises(SinkFailed, match="cannot be read"):
        Growing(tmp_path / "y", "life")
    with pytest.raises(SinkFailed, match="can be made"):
        Growing.begin(tmp_path / "x", "life", HEADER)


def test_a_log_is_not_closed_under_who_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The number of a file that is closed is the next one's."""
    log = begun(tmp_path / "x", [(batch(2), "a")])
    reads, go, read = threading.Event(), threading.Event(), os.pread

    def slow(descriptor: int, count: int, offset: int) -> bytes:
        reads.set()
        assert go.wait(10)
        return read(descriptor, count, offset)

    root = log.hashes(0, 0, 3)
    monkeypatch.setattr(os, "pread", slow)
    with ThreadPoolExecutor(2) as threads:
        found = threads.submit(log.hashes, 0, 0, 3)
        assert reads.wait(10)
        closed = threads.submit(log.close, durable=False)
        assert not wait([closed], timeout=0.2).done
        go.set()
        assert (found.result(), closed.result()) == (root, None)
