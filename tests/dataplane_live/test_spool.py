import os
from pathlib import Path

import pytest

from connector.dataplane_live.spool import Spool
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
async def test_what_is_dropped_is_gone_a_whole_file_at_a_time(tmp_path: Path):
    spool = filled(tmp_path)
    spool.drop(3500)
    assert (spool.first, len(os.listdir(tmp_path))) == (3000, 7)
    assert await read(spool, 3000, len(CONTENT)) == CONTENT[3000:]
    with pytest.raises(SourceFailed, match="acknowledged"):
        await spool.read(2999, 1)
    spool.close()
    assert Spool(tmp_path, len(CONTENT), SEGMENT).first == 3000
    spool.empty()
    assert os.listdir(tmp_path) == []
    assert Spool(tmp_path, len(CONTENT), SEGMENT).first == len(CONTENT)


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
