"""What a consumer has found wrong is looked at where it came from: both sides know whose fault it is, and nothing wrong goes on leaving."""

import asyncio
import os
from pathlib import Path

import pytest

from connector.adapters.file_source import FileSources
from connector.dataplane.flows import Lease
from connector.dataplane.gate import Permit
from connector.dataplane.index import Log
from connector.dataplane.logs import Logs
from connector.dataplane_accounts.rejected import REMEDY, Rejections
from connector.dsp.messages import Kind
from connector.errors import SourceFailed
from connector.metering.content import CHUNK_BYTES
from connector.metering.objects import Receipt, Rejected, kept
from connector.ports import Stat
from connector.values import replace
from tests import pair
from tests.dataplane.rig import CONSUMER, some_bytes
from tests.dataplane.test_stream import Doubling
from tests.test_app import pulled

CONTENT = some_bytes(3 * CHUNK_BYTES)
DATASET = "urn:test:rejected"

pytestmark = pytest.mark.asyncio


def change(path: Path, offset: int) -> None:
    """Change a byte of a file in its place, so that it looks as it did."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


async def test_a_published_file_that_was_changed_in_its_place_is_held_back_until_it_is_published_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    async with pair.pair(tmp_path, store="sqlite") as both:
        await both.provider.publish(DATASET, content=CONTENT)
        (path,) = (both.provider.site.root / "data").iterdir()
        change(path, CHUNK_BYTES + 7)
        order = await pulled(both.consumer, "hospital", DATASET)
        assert order["stage"] == "failed", order
        assert f"leaf 2 (bytes {CHUNK_BYTES} to {2 * CHUNK_BYTES - 1}) came" in order["reasons"][-1]
        assert "other bytes than `did:web:hospital.example` has signed" in order["reasons"][-1]
        ours = await both.consumer.connector.store.process(Kind.TRANSFER, order["transfer"])
        assert ours is not None
        rows = await both.provider.connector.store.receipts(ours.peer_pid or "")
        assert [kept(Receipt, row.receipt).rejected.leaf for row in rows if kept(Receipt, row.receipt).rejected] == [2]  # type: ignore[union-attr]
        said = [line for line in capsys.readouterr().err.splitlines() if '"level":"error"' in line]
        assert len(said) == 1
        assert all(each in said[0] for each in ("published data are not what was signed", DATASET, REMEDY)), said
        change(path, CHUNK_BYTES + 7)  # it is what it was, and looks as it did: nobody serves it before it was read
        again = asyncio.create_task(pulled(both.consumer, "hospital", DATASET))
        while "502, `source-failed`" not in str((await both.consumer.asked("GET", "/pulls"))["items"][0]["reasons"]):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        body = {"title": DATASET, "source": {"type": "file", "path": path.name}, "policies": [pair.OPEN]}
        await both.provider.asked("PUT", f"/datasets/{pair.quoted(DATASET)}", body)
        assert (await again)["stage"] == "done"
        assert (both.consumer.site.root / "out" / "file").read_bytes() == CONTENT


class Stand:
    """A published file, what looks at its leaves, and how often what was looked up is looked up again."""

    def __init__(self, root: Path) -> None:
        self.path, self.logs, self.looked = root / "a.bin", Logs(root / "logs"), 0
        self.path.write_bytes(CONTENT)
        self.sources = FileSources([root])
        self.rejections = Rejections({"file": self.sources}, self.logs, self.again)

    def again(self) -> None:
        self.looked += 1

    async def publish(self) -> tuple[Permit, Stat, Log]:
        source, stat = await self.logs.indexing(self.sources).index({"type": "file", "path": "a.bin"})
        permit = Permit("t", "urn:agreement", CONSUMER, DATASET, source, (), None, "", Lease())
        return permit, stat, await self.log(permit, stat)

    async def log(self, permit: Permit, stat: Stat) -> Log:
        return await self.logs.of(permit.source, permit.stages, stat, lambda: pytest.fail("there is an index"))


REJECTED = Rejected(2, b"g" * 32)


async def test_a_leaf_that_is_right_here_was_changed_on_the_way_and_the_data_go_on_being_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    stand = Stand(tmp_path)
    permit, stat, log = await stand.publish()
    change(stand.path, 5)  # of another leaf
    await stand.rejections.look_at(permit, log, REJECTED)
    assert (await stand.log(permit, stat), stand.looked) == (log, 0)
    assert "leaf rejected by its consumer, and right here" in capsys.readouterr().err


async def test_data_that_are_held_back_are_served_again_once_they_were_read_anew(tmp_path: Path):
    stand = Stand(tmp_path)
    permit, stat, log = await stand.publish()
    change(stand.path, CHUNK_BYTES)
    await stand.rejections.look_at(permit, log, REJECTED)
    assert stand.looked == 1
    with pytest.raises(SourceFailed, match="publish them again"):
        await stand.log(permit, stat)
    change(stand.path, CHUNK_BYTES)
    again, stat, same = await stand.publish()
    assert (again.source, same.root) == (permit.source, log.root)


async def test_what_cannot_be_looked_at_is_only_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    stand = Stand(tmp_path)
    permit, _, log = await stand.publish()
    change(stand.path, CHUNK_BYTES)
    for each in (replace(permit, stages=(Doubling(),)), replace(permit, source={"type": "of another kind"})):
        await stand.rejections.look_at(each, log, REJECTED)
        assert '"event":"leaf rejected by its consumer"' in capsys.readouterr().err
    stand.path.unlink()
    await stand.rejections.look_at(permit, log, REJECTED)
    assert '"event":"published data cannot be read"' in capsys.readouterr().err
    assert stand.looked == 0
