import asyncio
import errno
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from connector.dataplane_live.spool import PREFIX, SPARE, Spool
from connector.errors import SinkFailed, SourceFailed
from tests.dataplane.rig import some_bytes

CONTENT = some_bytes(10_000)
SEGMENT = 1000


async def read(spool: Spool, offset: int, end: int) -> bytes:
    found = b""
    while offset < end:
        piece = await spool.read(offset, end - offset)
        assert piece
        found, offset = found + piece, offset + len(piece)
    return found


def filled(folder: Path) -> Spool:
    spool = Spool(folder, 0, SEGMENT)
    for at in range(0, len(CONTENT), 700):
        spool.write(at, [CONTENT[at : at + 300], memoryview(CONTENT)[at + 300 : at + 700]])
    return spool


@pytest.mark.asyncio
async def test_what_is_written_is_read_over_the_ends_of_files_also_when_it_is_opened_again(tmp_path: Path):
    filled(tmp_path).close()
    spool = Spool(tmp_path, len(CONTENT), SEGMENT)
    assert spool.first == 0
    assert await read(spool, 0, len(CONTENT)) == CONTENT
    assert await read(spool, 999, 3001) == CONTENT[999:3001]
    spool.close()


@pytest.mark.asyncio
async def test_what_is_dropped_is_gone_a_whole_file_at_a_time_and_two_files_are_kept_to_be_written_over(tmp_path: Path):
    spool = filled(tmp_path)
    spool.drop(3500)
    names = os.listdir(tmp_path)
    assert (spool.first, sum(name.startswith(PREFIX) for name in names), sum(name.startswith(SPARE) for name in names)) == (3000, 7, 2)
    assert await read(spool, 3000, len(CONTENT)) == CONTENT[3000:]
    with pytest.raises(SourceFailed, match="acknowledged"):
        await spool.read(2999, 1)
    spool.close()
    assert Spool(tmp_path, len(CONTENT), SEGMENT).first == 3000
    spool.empty()
    assert os.listdir(tmp_path) == []
    assert Spool(tmp_path, len(CONTENT), SEGMENT).first == len(CONTENT)


@pytest.mark.asyncio
@pytest.mark.parametrize("again", [False, True])
async def test_a_file_that_is_written_over_holds_what_comes_and_the_spool_grows_no_larger(tmp_path: Path, again: bool):
    spool = filled(tmp_path)
    spool.drop(9000)
    if again:
        spool.close()
        spool = Spool(tmp_path, len(CONTENT), SEGMENT)
    more = some_bytes(2500, 7)
    spool.write(len(CONTENT), [more])
    assert await read(spool, 9000, len(CONTENT) + 2500) == CONTENT[9000:] + more
    assert len(os.listdir(tmp_path)) == 4
    spool.close()


@pytest.mark.asyncio
async def test_what_is_dropped_while_it_is_read_from_the_disk_is_not_given_as_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spool = filled(tmp_path)
    monkeypatch.setattr(os, "RWF_NOWAIT", 1 << 20)  # the kernel knows no such flag: everything is read in a thread
    reading = asyncio.create_task(spool.read(0, 100))
    await asyncio.sleep(0)
    spool.drop(1000)
    with pytest.raises(SourceFailed, match="dropped while"):
        await reading
    assert await spool.read(1000, 100) == CONTENT[1000:1100]
    spool.close()


@pytest.mark.parametrize("before", [1000, 2000, len(CONTENT)])
def test_what_is_dropped_while_it_is_made_durable_is_no_fault(tmp_path: Path, before: int, monkeypatch: pytest.MonkeyPatch):
    spool, flush, flushed = filled(tmp_path), os.fsync, list[int]()

    def acknowledged(descriptor: int) -> None:
        flushed.append(descriptor)
        if len(flushed) == 2:
            spool.drop(before)
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", acknowledged)
    spool.sync()
    assert len(flushed) >= min(10, 2 + (len(CONTENT) - before) // SEGMENT)
    spool.close()


def test_what_cannot_be_made_durable_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    spool = filled(tmp_path)
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="error"):
        spool.sync()
    spool.close()


def test_what_a_process_has_left_is_made_durable_by_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    filled(tmp_path).close()
    flushed, flush = set[str](), os.fsync

    def noted(descriptor: int) -> None:
        flushed.add(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    spool = Spool(tmp_path, len(CONTENT), SEGMENT)
    spool.sync()
    spool.close()
    assert flushed == {path.name for path in tmp_path.glob("data-*")}
    assert len(flushed) == 10


@pytest.mark.asyncio
async def test_bytes_that_are_missing_are_not_made_up(tmp_path: Path):
    spool = filled(tmp_path)
    with pytest.raises(SourceFailed, match="missing"):
        await spool.read(len(CONTENT), 5)
    spool.close()


def test_a_disk_that_does_not_take_it_is_named(tmp_path: Path):
    spool = Spool(tmp_path / "gone", 0, SEGMENT)
    with pytest.raises(SinkFailed, match="cannot be written"):
        spool.write(0, [b"x"])


def test_where_the_bytes_begin_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file that has its name and nothing in it would say nothing, and be taken for one that somebody has damaged."""
    flushed, flush = list[str](), os.fsync

    def noted(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name + ":" + os.pread(descriptor, 9, 0).decode())
        flush(descriptor)

    spool = filled(tmp_path)
    monkeypatch.setattr(os, "fsync", noted)
    spool.begin_at(1500)
    assert flushed == ["begins.part:1500"]
    spool.close()
    assert Spool(tmp_path, len(CONTENT), SEGMENT).first == 1500


def test_who_writes_and_who_reads_at_once_have_one_descriptor_of_a_file_which_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    filled(tmp_path).close()
    spool, both, opened, at_once = Spool(tmp_path, len(CONTENT), SEGMENT), threading.Barrier(2), list[int](), os.open

    def slow(*how: Any) -> int:
        opened.append(at_once(*how))
        with suppress(threading.BrokenBarrierError):
            both.wait(0.2)
        return opened[-1]

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", slow)
        writing = threading.Thread(target=spool.write, args=(len(CONTENT) - 1, [CONTENT[-1:]]))
        writing.start()
        assert spool.look(len(CONTENT) - 10, 5) == CONTENT[-10:-5]
        writing.join()
    spool.close()
    assert len(opened) == 1
