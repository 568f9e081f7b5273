"""The file of an index under whoever reads it: what becomes of it there ends no process, and an index is there again for who asks next."""

import errno
import os
from pathlib import Path

import pytest

from connector.adapters.file_source import FileSources
from connector.dataplane.logs import SUFFIX, Logs
from connector.dataplane_disk.index_file import IndexFile
from connector.errors import SinkFailed
from connector.metering.content import CHUNK_BYTES
from tests.dataplane.rig import some_bytes


@pytest.mark.asyncio
async def test_an_index_that_is_cut_short_under_us_is_said_and_made_anew_and_ends_no_process(tmp_path: Path):
    data, logs = tmp_path / "data", Logs(tmp_path / "logs")
    data.mkdir()
    (data / "a.bin").write_bytes(some_bytes(3 * CHUNK_BYTES))
    sources = FileSources([data])
    pinned, stat = await logs.indexing(sources).index({"type": "file", "path": "a.bin"})
    log = await logs.at_hand(pinned)
    assert log is not None
    (index,) = (tmp_path / "logs").glob(f"*{SUFFIX}")
    before, hashes = index.read_bytes(), log.hashes(0, 0, 4)
    os.truncate(index, 0)
    with pytest.raises(SinkFailed, match="cut short"):
        log.hashes(0, 0, 4)
    assert await logs.at_hand(pinned) is None
    index.write_bytes(before)
    again = await logs.at_hand(pinned)
    assert again is not None
    assert again.hashes(0, 0, 4) == hashes
    assert await logs.of(pinned, (), stat, lambda: pytest.fail("it is there")) is again


def test_a_disk_that_cannot_read_it_is_said_and_nothing_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "index"
    path.write_bytes(b"abcdef")
    descriptor, before = os.open(path, os.O_RDONLY), len(os.listdir("/proc/self/fd"))

    def fails(*_: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    try:
        file = IndexFile(descriptor, path)
        assert (len(file), file[1:3], file[4:], file[9:]) == (6, b"bc", b"ef", b"")
        with monkeypatch.context() as disk:
            disk.setattr(os, "pread", fails)
            with pytest.raises(SinkFailed, match="look after that disk"):
                file.digest(6)
        assert file.lost
        del file
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        os.close(descriptor)
