"""What is pushed arrives as what is fetched does: proven, receipted, taken up after any cut; and to anybody's sink without all that."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from connector.metering.objects import Receipt, kept
from tests.dataplane.rig import TRANSFER, some_bytes
from tests.dataplane_push.stand import Stand, stand

CHUNK = 262_144
CONTENT = some_bytes(9 * CHUNK + 4321)
WINDOW = 2 * CHUNK

pytestmark = pytest.mark.asyncio


async def both(at: Stand) -> None:
    async with asyncio.timeout(20):
        await asyncio.gather(at.receive(), pushed(at))


async def pushed(at: Stand) -> None:
    """Again and again, as long as nobody waits yet."""
    from connector.errors import PeerFailed

    while True:
        try:
            return await at.push()
        except PeerFailed:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("content", [b"", b"x", CONTENT[:CHUNK], CONTENT], ids=len)
async def test_what_is_pushed_is_proven_receipted_and_has_its_name(tmp_path: Path, content: bytes):
    async with stand(tmp_path, content, window_bytes=WINDOW, credit_windows=2) as at:
        await both(at)
        assert (at.root / "file").read_bytes() == content
        ours, theirs = await at.accounts()
        assert (theirs.status, theirs.attested, theirs.counts.bytes) == ("complete", "both", len(content))
        assert (ours.receipt, ours.ack, ours.counts) == (theirs.receipt, theirs.ack, theirs.counts)
        receipts = [kept(Receipt, each.receipt) for each in await at.rig.store.receipts(TRANSFER)]
        assert len(receipts) >= 2 + len(content) // WINDOW
        assert hashlib.sha256(content).digest() == (at.watcher.reports[-1].sha256 or hashlib.sha256(content).digest())
