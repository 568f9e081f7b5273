"""Transfers that nobody reads keep nothing open, and lose nothing by that; nor does anything where as much is open as may be."""

import asyncio
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path

import pytest

from connector.dataplane_live import flow as flow_module
from connector.dataplane_live import resting, spool
from connector.dataplane_live.coming import HOP_BYTES
from connector.dataplane_live.life import CLOSED, LIFE_FILE
from connector.dataplane_live.lives import Lives
from connector.dataplane_live.spool import PREFIX, Spool
from connector.errors import DescriptorsShort, SourceFailed
from connector.records import Changes
from connector.values import replace
from tests.dataplane.rig import TRANSFER, process
from tests.dataplane_live.faucet import Faucet, Faucets
from tests.dataplane_live.test_live_over import opened
from tests.dataplane_live.test_lives import PERMIT, come, living

MANY = 8

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "SEAL_SECONDS", 0.01)
    monkeypatch.setattr(resting, "LOOK_SECONDS", 0.01)


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """What is open stays, and nothing more can be opened."""
    before, held = resource.getrlimit(resource.RLIMIT_NOFILE), [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, before[1]))
    try:
        with suppress(OSError):
            while True:
                held.append(os.dup(held[0]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for each in held:
            os.close(each)


async def at_rest(lives: Lives) -> None:
    async with asyncio.timeout(10):
        while lives.transfers or lives._tasks or lives._meanwhile:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)


async def test_transfers_that_are_suspended_or_whose_consumers_are_away_keep_nothing_open_and_go_on_where_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with living(tmp_path, faucet := Faucet()) as lives:
        for number in range(MANY):
            permit = replace(PERMIT, transfer=f"urn:{number}")
            await come(lives, faucet, b"a\n", permit)
            flow = await lives.of(permit)
            if number % 2:
                lives.committed(Changes(saves=(process("SUSPENDED", permit.transfer),)), ())
            await flow.stop()  # what is poured next is for the next one
        for transfer in lives.transfers[::2]:
            (await lives.of(replace(PERMIT, transfer=transfer))).start()  # its consumer is away
        root, kept = flow.log.root_at(2), opened(tmp_path)
        assert len(kept) >= 3 * MANY
        monkeypatch.setattr(resting, "REST_SECONDS", 0.0)
        await at_rest(lives)
        assert (opened(tmp_path), faucet.open) == ([], 0)
        assert {(folder / LIFE_FILE).read_text() for folder in (tmp_path / "live").iterdir()} == {CLOSED}, "all of it is on the disk"
        monkeypatch.setattr(resting, "REST_SECONDS", 300.0)
        permit = replace(PERMIT, transfer=f"urn:{MANY - 1}")
        with lives.log_of(permit.transfer) as read:  # a receipt that comes meanwhile
            assert read is not None
            assert read.root_at(2) == root
        lives.committed(Changes(saves=(process("STARTED", permit.transfer),)), ())
        faucet.followed.clear()
        await come(lives, faucet, b"b\n", permit)
        again = await lives.of(permit)
        assert (faucet.followed, again.log.root_at(2), await again.spool.read(0, 4)) == (["1"], root, b"a\nb\n")


async def test_what_is_read_or_could_not_go_on_does_not_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resting, "REST_SECONDS", 0.0)
    looked = asyncio.Semaphore(0)
    short = resting.short_of_descriptors
    monkeypatch.setattr(resting, "short_of_descriptors", lambda: looked.release() or short())
    async with living(tmp_path, faucet := Faucet(waits=False)) as lives:
        flow = await lives.of(PERMIT)
        with flow.reading():
            faucet.pour(b"a\n", "1")
            async with asyncio.timeout(10), aclosing(flow.pieces(0)) as pieces:
                assert await anext(pieces) == b"a\n"
                for _ in range(3):
                    await looked.acquire()
                assert lives.transfers == (TRANSFER,), "somebody reads"
        await at_rest(lives)
        flow = await lives.of(PERMIT)
        with flow.reading():
            faucet.pour(b"b\n")
            async with asyncio.timeout(10), aclosing(flow.pieces(2)) as pieces:
                assert await anext(pieces) == b"b\n"
        for _ in range(3):
            await looked.acquire()
        assert (lives.transfers, faucet.open) == ((TRANSFER,), 1), "what its source has sent since it could not send again"


async def test_who_has_a_flow_that_was_let_go_is_told_to_ask_again_and_drops_nothing_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with living(tmp_path, faucet := Faucet()) as lives:
        await come(lives, faucet, b"a\n")
        flow = await lives.of(PERMIT)
        monkeypatch.setattr(resting, "REST_SECONDS", 0.0)
        await at_rest(lives)
        with pytest.raises(Exception, match="ask for it again"), flow.reading():
            pass
        assert not flow.runs


@pytest.mark.parametrize("ends", [False, True], ids=["rests", "is over"])
async def test_who_has_asked_for_a_flow_a_moment_before_it_is_let_go_does_not_have_it_followed_any_more(
    tmp_path: Path, ends: bool, monkeypatch: pytest.MonkeyPatch
):
    closes, go, sync = threading.Event(), threading.Event(), Spool.sync

    def slow(spool: Spool) -> None:
        closes.set()
        assert go.wait(10)
        sync(spool)

    async with living(tmp_path, faucet := Faucet()) as lives:
        await come(lives, faucet, b"a\n")
        flow = await lives.of(PERMIT)
        monkeypatch.setattr(Spool, "sync", slow)
        if ends:
            lives.committed(Changes(saves=(process("TERMINATED"),)), ())
        else:
            monkeypatch.setattr(resting, "REST_SECONDS", 0.0)
        assert await asyncio.to_thread(closes.wait, 10)
        try:
            with pytest.raises(SourceFailed, match="ask for it again"), flow.reading():
                pass
            with pytest.raises(SourceFailed, match="ask for it again"):
                await flow.mend(0)
        finally:
            go.set()
        await at_rest(lives)
        flow.start()
        assert (flow.runs, faucet.open) == (False, 0)


async def test_who_waits_for_more_of_a_flow_in_whose_place_another_comes_is_told_to_ask_again(tmp_path: Path):
    async with living(tmp_path, Faucet()) as lives:
        flow = await lives.of(PERMIT)
        with flow.reading():
            async with aclosing(flow.pieces(0)) as pieces:
                waiting = asyncio.ensure_future(anext(pieces))
                await asyncio.sleep(0)
                await lives.of(replace(PERMIT, source=PERMIT.source | {"url": "another"}))
                done, _ = await asyncio.wait({waiting}, timeout=5)
                waiting.cancel()
                with pytest.raises(SourceFailed, match="ask for it again"):
                    await asyncio.gather(waiting)
        assert done


async def test_who_has_not_read_all_of_a_flow_in_whose_place_another_comes_opens_none_of_its_files_again(tmp_path: Path):
    async with living(tmp_path, faucet := Faucet()) as lives:
        for _ in range(3):  # what came last is at hand
            await come(lives, faucet, b"a\n")
        flow = await lives.of(PERMIT)
        with flow.reading():
            async with aclosing(flow.pieces(0)) as pieces:
                await lives.of(replace(PERMIT, source=PERMIT.source | {"url": "another"}))
                with pytest.raises(SourceFailed, match="ask for it again"):
                    await anext(pieces)
    assert opened(tmp_path) == []


async def test_what_a_disk_gives_once_another_flow_has_taken_the_files_over_is_sent_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    reads, gives, read = threading.Event(), threading.Event(), spool._read

    def slow(descriptor: int, count: int, offset: int) -> bytes:
        reads.set()
        assert gives.wait(10)
        return read(descriptor, count, offset)

    def not_in_memory(*_arguments: object) -> int:
        raise BlockingIOError

    async with living(tmp_path, faucet := Faucet()) as lives:
        for _ in range(3):  # what came last is at hand
            await come(lives, faucet, b"a\n")
        monkeypatch.setattr(os, "preadv", not_in_memory)
        monkeypatch.setattr(spool, "_read", slow)
        async with aclosing((await lives.of(PERMIT)).pieces(0)) as pieces:
            reading = asyncio.ensure_future(anext(pieces))
            assert await asyncio.to_thread(reads.wait, 10)
            await lives.of(replace(PERMIT, source=PERMIT.source | {"url": "another"}))
            gives.set()
            with pytest.raises(SourceFailed, match="ask for it again"):
                await reading


async def test_who_is_just_about_to_read_when_a_flow_is_let_go_opens_none_of_its_files_again(tmp_path: Path):
    async with living(tmp_path, faucet := Faucet()) as lives:
        for _ in range(3):
            await come(lives, faucet, b"a\n")
        flow = await lives.of(PERMIT)
        async with aclosing(flow.pieces(0)) as pieces:
            async with flow._news:  # as those have it in turn who were told of more
                reading = asyncio.ensure_future(anext(pieces))
                await asyncio.sleep(0)
                flow.leave()
            with pytest.raises(SourceFailed, match="ask for it again"):
                await reading


async def test_nothing_is_closed_under_who_looks_for_what_was_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with living(tmp_path, faucet := Faucet()) as lives:
        await come(lives, faucet, b"a\n")
        flow = await lives.of(PERMIT)
        await flow.stop()
    (folder,) = (tmp_path / "live").iterdir()
    (folder / LIFE_FILE).write_text("before a loss of power")
    looks, go, look = threading.Event(), threading.Event(), Spool.look
    seen = list[bytes]()

    def slow(spool: Spool, offset: int, count: int) -> bytes:
        looks.set()
        assert go.wait(10)
        seen.append(look(spool, offset, count))
        return seen[-1]

    monkeypatch.setattr(Spool, "look", slow)
    lives = Lives(tmp_path / "live", {"faucet": Faucets(faucet)}, lambda _transfer, _code: None, life="now")
    flow = await lives.of(PERMIT)
    mending = asyncio.create_task(flow.mend(0))
    assert await asyncio.to_thread(looks.wait, 10)
    mending.cancel()
    closing = asyncio.create_task(lives.close())
    done, _ = await asyncio.wait({closing}, timeout=0.3)
    assert not done, "a thread reads there"
    assert len(opened(tmp_path)) >= 3
    go.set()
    await closing
    assert (seen, opened(tmp_path)) == ([b"a\n"], [])
    with pytest.raises(asyncio.CancelledError):
        await mending


async def test_the_bytes_of_a_transfer_that_ends_at_rest_are_removed_as_those_of_any_that_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with living(tmp_path, faucet := Faucet()) as lives:
        await come(lives, faucet, b"a\n")
        monkeypatch.setattr(resting, "REST_SECONDS", 0.0)
        await at_rest(lives)
        assert [*(tmp_path / "live").glob(f"*/{PREFIX}*")]
        lives.committed(Changes(saves=(process("TERMINATED"),)), ())
        await at_rest(lives)
        assert not [*(tmp_path / "live").glob(f"*/{PREFIX}*")]


@pytest.mark.parametrize("data", [b"a\n", b"a\n" * HOP_BYTES], ids=["at-once", "in-a-thread"])
async def test_without_a_descriptor_what_came_waits_for_one_though_its_source_would_not_send_it_again(
    tmp_path: Path, data: bytes, capsys: pytest.CaptureFixture[str]
):
    async with living(tmp_path, faucet := Faucet(waits=False)) as lives:
        flow = await lives.of(PERMIT)
        with flow.reading():
            with no_more_descriptors():
                faucet.pour(data)
                async with asyncio.timeout(10):
                    while "wait for a descriptor" not in capsys.readouterr().err:  # noqa: ASYNC110 - it tells nobody
                        await asyncio.sleep(0.01)
            got = b""
            async with asyncio.timeout(10), aclosing(flow.pieces(0)) as pieces:
                while len(got) < len(data):
                    got += await anext(pieces)
            assert (got, flow.log.over) == (data, None)


async def test_a_log_that_finds_no_descriptor_while_it_is_let_go_is_not_doubted_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    async with living(tmp_path, faucet := Faucet()) as lives:
        await come(lives, faucet, b"a\n")
        with no_more_descriptors():
            await at_rest(lives)  # at once: others need what it holds
            (folder,) = (tmp_path / "live").iterdir()
            assert "live transfer not durable" in capsys.readouterr().err
            with pytest.raises(DescriptorsShort):  # noqa: PT012 - as many as it has let go
                held = list[int]()
                try:
                    while len(held) < MANY:
                        held.append(os.open(os.devnull, os.O_RDONLY))
                except OSError:
                    await lives.of(PERMIT)
                finally:
                    for each in held:
                        os.close(each)
        assert (folder / LIFE_FILE).exists()
        await come(lives, faucet, b"b\n")
        flow = await lives.of(PERMIT)
        assert (flow.log.torn, flow.log.end, await flow.spool.read(0, 4)) == (False, 4, b"a\nb\n")
