"""The end of data without an end: what the provider has signed to be all is, and a lie about it is found."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from connector.intake.promise import Broken
from connector.merkle import notes
from connector.merkle.checkpoints import Checkpoint, read, sign
from tests.dataplane.rig import _note_signer as note_signer
from tests.dataplane_live import upstream
from tests.intake.test_live import Stand, quick, stand

__all__ = ["quick"]
pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def ending(tmp_path: Path, path: str) -> AsyncIterator[Stand]:
    """What has an end that only its source knows."""
    async with stand(tmp_path) as at, upstream.running() as url, asyncio.timeout(30):
        await at.rig.publish_live(url + path)
        yield at


@pytest.mark.parametrize("cuts", [[], [1000, 30_000, 0]], ids=["in one go", "cut again and again"])
async def test_what_is_signed_to_be_all_is_all_and_the_order_is_done_without_a_doubt(tmp_path: Path, cuts: list[int]):
    async with ending(tmp_path, "/lines?count=300&size=900") as at:
        at.between.cuts = cuts
        done = await at.fetch(None)
        ours, theirs = await at.accounts()
        assert (ours.counts, ours.counts.records, done.reasons) == (theirs.counts, 300, ())
        assert (at.root / "file").stat().st_size == done.size_bytes == ours.counts.bytes


async def test_of_nothing_that_is_all(tmp_path: Path):
    async with ending(tmp_path, "/lines?count=0") as at:
        done = await at.fetch(None)
        assert (done.size_bytes, done.reasons) == (0, ())


async def test_an_end_of_another_tree_is_found_and_named(tmp_path: Path):
    def lie(note: bytes) -> bytes:
        found = read(notes.read(note).text)
        return sign(Checkpoint(found.origin, 1, b"w" * 32, ("end",)), [note_signer(found.origin)])

    async with ending(tmp_path, "/lines?count=300") as at:
        at.between.lies["/checkpoint"] = lie
        with pytest.raises(Broken) as caught:
            await at.fetch(None)
        assert caught.value.code == "checkpoint-other-tree"
