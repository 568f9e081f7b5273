"""What is over leaves nothing open behind it: no descriptor, and nothing in memory that grows with each transfer."""

import asyncio
import os
from collections import Counter
from contextlib import aclosing
from pathlib import Path

import pytest

from connector.dataplane import accounts as accounts_module
from connector.dataplane_live import flow as flow_module
from connector.dataplane_live.flow import Flow
from connector.dataplane_live.lives import Lives
from connector.dsp.messages import Kind
from connector.errors import SourceFailed, Withdrawn
from connector.intake import account
from connector.records import Changes
from connector.values import replace
from tests.dataplane.rig import TRANSFER, process
from tests.dataplane_live.faucet import Faucet
from tests.dataplane_live.test_live_pair import accounts, both, follow
from tests.dataplane_live.test_lives import PERMIT, come, living
from tests.test_app import ended

MANY = 20

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "SEAL_SECONDS", 0.01)


def opened(below: Path) -> list[str]:
    """The files below a folder of which this process has a descriptor."""
    found = list[str]()
    for number in os.listdir("/proc/self/fd"):
        try:
            at = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # that of the list itself
            continue
        if at.startswith(f"{below}/"):
            found.append(at)
    return found


async def done(lives: Lives) -> None:
    async with asyncio.timeout(10):
        while lives._tasks or lives._ends:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)


async def test_each_transfer_that_is_over_is_forgotten_and_its_rows_are_read_all_the_same(tmp_path: Path):
    async with living(tmp_path, faucet := Faucet()) as lives:
        flows = list[Flow]()
        for number in range(MANY):
            permit = replace(PERMIT, transfer=f"urn:{number}")
            await come(lives, faucet, b"a\n", permit)
            flows.append(await lives.of(permit))
            await flows[-1].stop()  # what is poured next is for the next one
        root, sealed, before = flows[0].log.root_at(2), flows[0].log.sealed(1, 2), len(opened(tmp_path))
        assert before >= 3 * MANY
        for number in range(MANY):
            lives.committed(Changes(saves=(process("COMPLETED", f"urn:{number}"),)), ())
        await done(lives)
        assert opened(tmp_path) == []
        kept = (lives._flows, lives._addresses, lives._opening, lives._stopped, lives._rests._known, lives._meanwhile)
        assert [len(each) for each in kept] == [0] * len(kept)
        log = flows[0].log
        assert (log.root_at(2), log.sealed(1, 2), log.span(1, 2), log.touched(0, 2)) == (root, sealed, (0, 2), (1, 2))
        with lives.log_of("urn:0") as read:
            assert read is not None
            assert read.root_at(2) == root
        with pytest.raises(Withdrawn, match="COMPLETED"):  # who had passed the gate a moment before
            await lives.of(replace(PERMIT, transfer="urn:0"))
        with pytest.raises(SourceFailed, match="over"):
            await flows[0].spool.read(0, 2)
        assert opened(tmp_path) == []


async def test_a_log_whose_source_has_ended_is_open_while_somebody_reads_it_and_waits_for_the_rest_of_a_week_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(flow_module, "PIECE_BYTES", 2)

    async def all_of(lives: Lives) -> list[bytes]:
        flow = await lives.of(PERMIT)
        async with asyncio.timeout(10), aclosing(flow.pieces(0)) as pieces:
            with flow.reading():
                return [piece async for piece in pieces]

    async with living(tmp_path, faucet := Faucet(waits=False)) as lives:
        flow = await lives.of(PERMIT)
        with flow.reading():
            faucet.pour(b"a\nb\n")
            faucet.poured.put_nowait(None)
            async with asyncio.timeout(10), flow._news:
                await flow._news.wait_for(lambda: flow.log.over is not None)
        assert opened(tmp_path) == []
        assert b"".join(await all_of(lives)) == b"a\nb\n"
        assert opened(tmp_path) == []
        root = flow.log.root_at(2)
    async with living(tmp_path, Faucet(), life="another") as lives:
        flow = await lives.of(PERMIT)
        assert (flow.log.torn, flow.log.root_at(2), opened(tmp_path)) == (False, root, []), "it was closed as it should be"
        assert b"".join(await all_of(lives)) == b"a\nb\n"
        assert opened(tmp_path) == []
        lives.committed(Changes(saves=(process("COMPLETED", TRANSFER),)), ())


async def test_orders_that_are_done_leave_nothing_open_on_either_side_and_what_was_signed_stays_to_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(account, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr(accounts_module, "ENDED_MAX", 1)
    async with both(tmp_path, "/lines?count=20") as two:
        before, transfers = Counter(opened(tmp_path)), list[str]()
        for number in range(4):
            order = await ended(two.consumer, await follow(two.consumer, f"file-{number}"))
            assert order["stage"] == "done"
            _, theirs = await accounts(two, order["transfer"])
            await two.provider.until(Kind.TRANSFER, theirs.transfer, lambda p: p.final)
            transfers.append(theirs.transfer)
        provider = two.provider.connector.states.receipts
        async with asyncio.timeout(10):
            while Counter(opened(tmp_path)) - before:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        known = provider._accounts._known
        assert set(known) <= set(transfers[-1:])
        taken = await provider.stated(transfers[0])
        assert taken["statement"]
        assert taken["receipt"]
        again = await provider.take(transfers[0], taken["receipt"], "ok")
        assert again.ack == taken["ack"]
