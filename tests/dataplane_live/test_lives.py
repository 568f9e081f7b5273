"""Which transfers are followed, and what is left of them."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from connector.adapters.memory import MemoryStore
from connector.dataplane.flows import Lease
from connector.dataplane.gate import Permit
from connector.dataplane_live import finishing, marks, rest, taking
from connector.dataplane_live import flow as flow_module
from connector.dataplane_live import lives as lives_module
from connector.dataplane_live.ending import Ending
from connector.dataplane_live.found import NAME_FILE
from connector.dataplane_live.growing import Growing
from connector.dataplane_live.life import LIFE_FILE
from connector.dataplane_live.lives import Lives
from connector.dataplane_live.mending import BROKEN
from connector.dataplane_live.spool import PREFIX
from connector.dsp.messages import Kind, Role
from connector.errors import Contradiction, DiskShort, SettingsError, SourceFailed, StoreError, Withdrawn
from connector.metering.content import CHUNK_BYTES, Leaf
from connector.ports.live import LiveSource
from connector.records import Changes
from connector.records.metering import Metered
from connector.values import replace
from tests.dataplane.rig import CONSUMER, TRANSFER, process
from tests.dataplane_live.faucet import MEDIA_TYPE, Faucet, Faucets

SOURCE = {"type": "faucet", "media_type": MEDIA_TYPE}
PERMIT = Permit(TRANSFER, "urn:agreement", CONSUMER, "urn:dataset", SOURCE, (), None, "", Lease())

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "SEAL_SECONDS", 0.05)
    monkeypatch.setattr(taking, "ASK_SECONDS", 0.01)
    monkeypatch.setattr(taking, "TOLD_SECONDS", 0.01)


@asynccontextmanager
async def living(folder: Path, faucet: Faucet, **options: Any) -> AsyncIterator[Lives]:
    lives = Lives(folder / "live", {"faucet": Faucets(faucet)}, lambda _transfer, _code: None, **({"life": "now"} | options))
    try:
        yield lives
    finally:
        await lives.close()


async def come(lives: Lives, faucet: Faucet, data: bytes, permit: Permit = PERMIT) -> None:
    """Let it flow and be read."""
    flow = await lives.of(permit)
    flow.start()
    offset = flow.log.end
    faucet.pour(data, "1")
    async with asyncio.timeout(10), aclosing(flow.pieces(offset)) as pieces:
        assert await anext(pieces) == data


async def test_whose_log_it_is_outlives_a_loss_of_power_before_anything_is_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    flushed: list[tuple[Path, bytes]] = []
    flush = os.fsync

    def noted(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        flushed.append((path, path.read_bytes() if path.is_file() else b""))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    async with living(tmp_path, Faucet()) as lives:
        await lives.of(PERMIT)
        (folder,) = (tmp_path / "live").iterdir()
        named = flushed.index((folder / NAME_FILE, TRANSFER.encode()))
        assert (folder, b"") in flushed[named:], "the folder that the name stands in, too"


async def test_who_is_cancelled_while_a_log_is_opened_leaves_nothing_of_it_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opens, go, begun = threading.Event(), threading.Event(), lives_module.begun

    def slow(*how: Any) -> Growing:
        opens.set()
        assert go.wait(10)
        return begun(*how)

    monkeypatch.setattr(lives_module, "begun", slow)
    async with living(tmp_path, Faucet()) as lives:
        asking = asyncio.create_task(lives.of(PERMIT))
        assert await asyncio.to_thread(opens.wait, 10)
        asking.cancel()
        again = asyncio.create_task(lives.of(PERMIT))
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await again
    assert open_below(tmp_path) == []


async def test_a_transfer_has_one_log_whoever_asks_and_another_one_has_another(tmp_path: Path):
    async with living(tmp_path, Faucet()) as lives:
        first, second = await asyncio.gather(lives.of(PERMIT), lives.of(PERMIT))
        other = await lives.of(replace(PERMIT, transfer="urn:other"))
        assert first is second
        assert first.log.snapshot != other.log.snapshot
        assert lives.serves(SOURCE)
        assert not lives.serves({"type": "file"})


async def test_a_transfer_that_is_suspended_is_not_followed_and_goes_on_in_the_same_log(tmp_path: Path):
    faucet = Faucet()
    async with living(tmp_path, faucet) as lives:
        await come(lives, faucet, b"a\n")
        flow = await lives.of(PERMIT)
        lives.committed(Changes(saves=(process("SUSPENDED"),)), ())
        async with asyncio.timeout(10):
            while flow.runs:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0)
        assert (faucet.open, flow.log.end) == (0, 2)
        lives.committed(Changes(saves=(process("STARTED"),)), ())
        await come(lives, faucet, b"b\n")
        assert (await lives.of(PERMIT)).log is flow.log
        assert faucet.followed == [None, "1"]


async def test_of_one_that_cannot_go_on_all_is_taken_in_while_it_is_suspended_and_its_end_is_that_of_the_transfer_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(finishing, "pause_seconds", lambda _failures: 0.0)
    faucet, told = Faucet(waits=False), asyncio.Queue[tuple[str, ...]]()
    refusals = [Contradiction("it is over"), RuntimeError("conflicts in a row"), StoreError("busy")]

    async def over(*said: str) -> None:
        told.put_nowait(said)
        if refusals:
            raise refusals.pop()

    async with living(tmp_path, faucet, over=over) as lives:
        flow = await lives.of(PERMIT)
        flow.start()
        faucet.pour(b"a\n")
        async with asyncio.timeout(10), aclosing(flow.pieces(0)) as pieces:
            assert await anext(pieces) == b"a\n"
        lives.committed(Changes(saves=(process("SUSPENDED"),)), ())
        faucet.pour(b"b\n")
        async with asyncio.timeout(10), aclosing(flow.pieces(2)) as pieces:
            assert await anext(pieces) == b"b\n"
        faucet.poured.put_nowait(None)
        async with asyncio.timeout(10), aclosing(flow.pieces(4)) as pieces:
            assert [piece async for piece in pieces] == []
    async with living(tmp_path, faucet, over=over) as lives:  # its last receipt is yet to come
        flow = await lives.of(PERMIT)
        flow.start()
        flow.signed_for(4)
        async with asyncio.timeout(10):
            first = await told.get()
            assert [await told.get() for _ in range(2)] == [first] * 2, "a store that is busy is asked again, and one that others write to"
        assert first == (Kind.TRANSFER, TRANSFER, Ending.ENDED.reason, Ending.ENDED)
    assert (told.empty(), faucet.followed) == (True, [None])


async def test_nobody_waits_for_the_consumer_of_a_transfer_that_is_over(tmp_path: Path):
    async with living(tmp_path, faucet := Faucet(waits=False)) as lives:
        flow = await lives.of(PERMIT)
        flow.start()
        faucet.pour(b"a\n")
        faucet.poured.put_nowait(None)
        async with asyncio.timeout(10), aclosing(flow.pieces(0)) as pieces:
            assert [piece async for piece in pieces] == [b"a\n"]
        (waiting,) = lives._ends.values()
        lives.committed(Changes(saves=(process("COMPLETED"),)), ())
        async with asyncio.timeout(10):
            await asyncio.wait({waiting})
        assert waiting.cancelled()


async def test_what_a_disk_does_not_let_go_of_a_transfer_that_is_over_keeps_nothing_of_it_open(tmp_path: Path):
    async with living(tmp_path, faucet := Faucet()) as lives:
        await come(lives, faucet, b"a\n")
        (folder,) = (tmp_path / "live").iterdir()
        (folder / f"{PREFIX}{0xF:012x}").mkdir()  # which is not removed as a file is
        lives.committed(Changes(saves=(process("COMPLETED"),)), ())
        async with asyncio.timeout(10):
            await asyncio.gather(*lives._tasks)
        assert open_below(tmp_path) == []


async def test_of_a_transfer_that_is_over_the_rows_stay_and_the_bytes_do_not(tmp_path: Path):
    faucet = Faucet()
    async with living(tmp_path, faucet) as lives:
        await come(lives, faucet, b"a\n")
        lives.committed(Changes(saves=(process("COMPLETED"),)), ())
    assert [path.name for path in (tmp_path / "live").glob("*/data-*")] == []
    async with living(tmp_path, Faucet()) as lives:
        with lives.log_of(TRANSFER) as log:
            assert log is not None
            assert (log.leaves, log.end) == (2, 2)
        with lives.log_of("urn:other") as log:
            assert log is None


@pytest.mark.parametrize("how", ["closed", "torn", "fewer rows than were marked"])
async def test_after_a_loss_of_power_a_log_goes_on_behind_its_last_mark_and_one_that_has_less_is_lost(tmp_path: Path, how: str):
    faucet = Faucet()
    lives = Lives(tmp_path / "live", {"faucet": Faucets(faucet)}, lambda _transfer, _code: None, life="before")
    await come(lives, faucet, b"a\n")
    if how == "closed":
        await lives.close()
    else:
        await (await lives.of(PERMIT)).stop()
    if how.startswith("fewer"):
        (rows,) = (tmp_path / "live").glob("*/leaves")
        os.truncate(rows, rows.stat().st_size - 48)
    async with living(tmp_path, faucet, life="after") as again:
        if how.startswith("fewer"):
            with pytest.raises(Withdrawn, match="order it anew") as caught:
                await again.of(PERMIT)
            assert caught.value.code == BROKEN
        else:
            flow = await again.of(PERMIT)
            await flow.mend(flow.oldest)
            assert (flow.log.torn, flow.log.end, flow.log.position) == (False, 2, "1")
            await come(again, faucet, b"b\n")
            assert faucet.followed == [None, "1"]
    if not how.startswith("fewer"):
        await lives.close()


async def test_what_was_killed_in_the_same_life_of_the_machine_goes_on(tmp_path: Path):
    faucet = Faucet()
    lives = Lives(tmp_path / "live", {"faucet": Faucets(faucet)}, lambda _transfer, _code: None, life="now")
    await come(lives, faucet, b"a\n")
    await (await lives.of(PERMIT)).stop()
    async with living(tmp_path, faucet) as again:
        await come(again, faucet, b"b\n")
        flow = await again.of(PERMIT)
        assert (flow.log.leaves, flow.log.end, await flow.spool.read(0, 4)) == (3, 4, b"a\nb\n")
    await lives.close()


async def test_another_source_of_the_same_transfer_is_followed_once_it_is_published(tmp_path: Path):
    faucet = Faucet()
    async with living(tmp_path, faucet) as lives:
        await come(lives, faucet, b"a\n")
        await come(lives, faucet, b"b\n", replace(PERMIT, source=SOURCE | {"url": "other"}))
        assert (len(faucet.followed), faucet.open) == (2, 1)


def open_below(folder: Path) -> list[Path]:
    """The files of a folder that this process has open."""
    opened = [each.readlink() for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    return [path for path in opened if folder in path.parents]


async def test_a_log_that_cannot_be_made_durable_leaves_no_file_open_and_is_not_taken_for_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with living(tmp_path, faucet := Faucet()) as lives:
        await come(lives, faucet, b"a\n")
        (folder,) = (tmp_path / "live").iterdir()
        monkeypatch.setattr(os, "fsync", broken)
    assert not open_below(folder)
    assert (folder / LIFE_FILE).read_text() == "now doubted"
    assert "live transfer not durable" in capsys.readouterr().err


async def test_a_log_that_the_disk_has_not_kept_is_opened_anew_as_after_a_loss_of_power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    flush, failed = os.fdatasync, list[int]()

    def once(descriptor: int) -> None:
        if not failed:
            failed.append(descriptor)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flush(descriptor)

    async with living(tmp_path, faucet := Faucet()) as lives:
        monkeypatch.setattr(os, "fdatasync", once)
        await come(lives, faucet, b"a\n")
        flow = await lives.of(PERMIT)
        await flow.stop()
        assert (flow.log.broken, flow.signed) == (True, 1)
        again = await lives.of(PERMIT)
        assert (again.log.broken, again.log.torn, again.log.leaves) == (False, True, 1)


async def test_a_receipt_that_comes_while_a_log_is_opened_anew_takes_no_mark_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A doubted log has its marks written anew, into another file: done by two, the one that goes on would mark in a file that is gone."""
    looked = list[int]()
    async with living(tmp_path, faucet := Faucet()) as lives:
        await come(lives, faucet, b"a\n")
        first = await lives.of(PERMIT)
        await first.stop()
        first.log.doubt()

        def opened(folder: Path, life: str, **options: Any) -> Growing:
            log = Growing(folder, life, **options)
            if not looked:
                looked.append(0)
                with lives.log_of(TRANSFER) as seen:  # as the event loop does beside the thread that opens
                    assert seen is not None
                    looked.append(seen.leaves)
            return log

        monkeypatch.setattr(lives_module, "Growing", opened)
        again = await lives.of(PERMIT)
        assert looked == [0, again.log.leaves]
        again.log.append([Leaf(bytes(32), 2, 1)], "2")
        again.log.show()
        again.log.sync(again.log.unmarked, 1)
        (folder,) = (path.parent for path in (tmp_path / "live").rglob(NAME_FILE))
        found = Growing(folder, "after a loss of power")
        assert (found.lost, found.leaves) == (False, again.log.leaves)
        found.close(durable=False)


async def test_a_disk_that_is_full_while_a_log_is_closed_makes_nothing_doubtful_that_it_has_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(marks, "write", full)
        async with living(tmp_path, faucet := Faucet()) as lives:
            await come(lives, faucet, b"a\n")
    assert "live transfer not durable" in capsys.readouterr().err
    async with living(tmp_path, faucet) as lives:
        flow = await lives.of(PERMIT)
        assert (flow.log.torn, flow.log.leaves, flow.log.end) == (False, 2, 2), "it was written, and the machine has run on"


async def test_on_a_full_disk_nothing_is_followed_and_nothing_begins_until_there_is_room(tmp_path: Path):
    faucet = Faucet()
    asked: list[bool] = []

    def admit(new: bool) -> None:
        asked.append(new)
        raise DiskShort("no room")

    async with living(tmp_path, faucet) as lives:
        await come(lives, faucet, b"a\n")
        flow = await lives.of(PERMIT)
        await lives.halt("disk-full")
        assert (flow.runs, faucet.open) == (False, 0)
        lives.admit, before = admit, lives.admit
        for permit in (PERMIT, replace(PERMIT, transfer="urn:other")):
            with pytest.raises(DiskShort):
                await lives.of(permit)
        assert asked == [False, True]
        assert len([*(tmp_path / "live").iterdir()]) == 1, "of one that did not begin nothing is left"
        lives.admit = before
        await come(lives, faucet, b"b\n")
        assert flow.log.end == 4


async def test_a_full_disk_cuts_all_readers_and_stops_all_sources_before_it_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cut, stops, may_stop, stop = list[str](), asyncio.Semaphore(0), asyncio.Event(), flow_module.Flow.stop

    async def slow(flow: flow_module.Flow) -> None:
        stops.release()
        await may_stop.wait()
        if flow is broken:
            raise OSError("of a disk")
        await stop(flow)

    async with living(tmp_path, Faucet()) as lives:
        monkeypatch.setattr(lives, "_cut", lambda transfer, _code: cut.append(transfer))
        broken, other = [await lives.of(replace(PERMIT, transfer=transfer)) for transfer in (TRANSFER, "urn:other")]
        other.start()
        with monkeypatch.context() as patched:
            patched.setattr(flow_module.Flow, "stop", slow)
            halting = asyncio.create_task(lives.halt("disk-full"))
            async with asyncio.timeout(10):
                await stops.acquire()
                before = tuple(cut)
                await stops.acquire()
            may_stop.set()
            with pytest.raises(OSError, match="of a disk"):
                await halting
        assert not other.runs
    assert before == (TRANSFER, "urn:other")


async def test_what_is_left_of_transfers_that_are_not_stored_is_removed_at_a_start(tmp_path: Path):
    async with living(tmp_path, Faucet()) as lives:
        await lives.of(PERMIT)
        await lives.of(replace(PERMIT, transfer="urn:other"))
    (tmp_path / "live" / "half").mkdir()
    store = MemoryStore()
    await store.commit(Changes(saves=(process("COMPLETED"),)))
    async with living(tmp_path, Faucet()) as lives:
        assert await lives.sweep(store) == 2
        with lives.log_of(TRANSFER) as log:
            assert log is not None


async def kept(folder: Path, *, ends: bool, signed: int = 0, data: bytes = b"a\nb\n") -> MemoryStore:
    """What a kill leaves of a transfer whose source cannot go on, and has sent two leaves by then, or `ends`."""
    faucet, store = Faucet(waits=False), MemoryStore()
    async with living(folder, faucet) as lives:
        flow = await lives.of(PERMIT)
        flow.start()
        for at in range(0, len(data), 2):
            faucet.pour(data[at : at + 2])
            async with asyncio.timeout(10), aclosing(flow.pieces(at)) as pieces:
                assert await anext(pieces) == data[at : at + 2]
        if ends:
            faucet.poured.put_nowait(None)
            async with asyncio.timeout(10), aclosing(flow.pieces(len(data))) as pieces:
                assert [piece async for piece in pieces] == []
        origin = f"host/log/{flow.log.snapshot}"
        ranges = ((1, 1 + signed),) if signed else ()
    account = Metered(TRANSFER, Role.PROVIDER, "urn:agreement", CONSUMER, "manifest", origin, CHUNK_BYTES, None, None, None, ranges=ranges)
    await store.commit(Changes(saves=(process("STARTED"), replace(account, sequence=1, version=1))))
    return store


@pytest.mark.parametrize(
    ("ends", "signed", "limits", "said"),
    [
        (True, 2, {}, Ending.ENDED),
        (False, 2, {}, Ending.LEFT),
        (True, 1, {"untaken_seconds": 0.05}, Ending.UNTAKEN),
        (False, 1, {"untaken_seconds": 0.05}, Ending.UNTAKEN),
    ],
    ids=["all was signed for", "left in the middle", "the rest of it is not asked for", "nor of what was left in the middle"],
)
async def test_what_nothing_more_will_come_of_ends_after_a_start_though_nobody_asks_for_it(
    tmp_path: Path, ends: bool, signed: int, limits: dict[str, float], said: Ending
):
    told = asyncio.Queue[tuple[str, ...]]()

    async def over(*words: str) -> None:
        told.put_nowait(words)

    async def complete(*words: str) -> None:
        told.put_nowait(("completed", *words))

    store = await kept(tmp_path, ends=ends, signed=signed)
    async with living(tmp_path, faucet := Faucet(waits=False), over=over, complete=complete, **limits) as lives:
        assert await lives.sweep(store) == 0
        how = "completed" if said is Ending.ENDED else Kind.TRANSFER
        async with asyncio.timeout(10):
            assert await told.get() == (how, TRANSFER, said.reason, said)
        assert faucet.followed == []


@pytest.mark.parametrize("signed", [1, -1], ids=["the rest was not taken", "the log is lost"])
async def test_while_we_have_suspended_a_transfer_nobody_is_late_also_over_a_start_and_a_reload_counts_for_what_is_open(
    tmp_path: Path, signed: int
):
    told = asyncio.Queue[str]()

    async def over(_kind: Kind, _transfer: str, _reason: str, code: str) -> None:
        told.put_nowait(code)

    store = await kept(tmp_path, ends=True, signed=abs(signed))
    if signed < 0:
        (rows,) = (tmp_path / "live").glob("*/leaves")
        os.truncate(rows, rows.stat().st_size - 48)
        (rows.parent / LIFE_FILE).write_text("before")
    await store.commit(Changes(saves=(replace(process("SUSPENDED"), halted=True, version=2),)))
    async with living(tmp_path, Faucet(waits=False), over=over, untaken_seconds=0.01) as lives:
        await looked_at(lives, store)
        await asyncio.wait(lives._ends.values(), timeout=0.1)
        assert told.empty()
        lives.untaken_seconds = 3600.0
        lives.committed(Changes(saves=(process("STARTED"),)), ())
        await asyncio.wait(lives._ends.values(), timeout=0.1)
        assert told.empty()
        lives.untaken_seconds = 0.01
        async with asyncio.timeout(10):
            assert await told.get() == Ending.UNTAKEN


async def test_what_is_said_of_a_transfer_while_its_log_is_opened_at_a_start_counts_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told = asyncio.Queue[str]()

    async def over(_kind: Kind, _transfer: str, _reason: str, code: str) -> None:
        told.put_nowait(code)

    store = await kept(tmp_path, ends=True)
    await store.commit(Changes(saves=(replace(process("SUSPENDED"), halted=True, version=2),)))
    metered = store.metered
    async with living(tmp_path, Faucet(waits=False), over=over, untaken_seconds=0.01) as lives:

        async def meanwhile(transfer: str) -> Metered | None:
            lives.committed(Changes(saves=(process("STARTED"),)), ())
            return await metered(transfer)

        monkeypatch.setattr(store, "metered", meanwhile)
        await looked_at(lives, store)
        async with asyncio.timeout(5):
            assert await told.get() == Ending.UNTAKEN


async def test_who_has_had_to_do_with_signatures_is_waited_for_as_others_who_sign_though_it_has_signed_nothing_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(taking, "UNSIGNED_SECONDS", 0.01)
    told = asyncio.Queue[str]()

    async def over(_kind: Kind, _transfer: str, _reason: str, code: str) -> None:
        told.put_nowait(code)

    async def completed(_transfer: str, _reason: str, _code: str) -> None:
        told.put_nowait("completed")

    store = await kept(tmp_path, ends=True)
    stored = await store.metered(TRANSFER)
    assert stored is not None
    await store.commit(Changes(saves=(replace(stored, sequence=0, asked=True, sent=((0, 4),), version=2),)))
    async with living(tmp_path, Faucet(waits=False), over=over, complete=completed, untaken_seconds=0.3) as lives:
        await looked_at(lives, store)
        async with asyncio.timeout(10):
            assert await told.get() == Ending.UNTAKEN


async def looked_at(lives: Lives, store: MemoryStore) -> None:
    await lives.sweep(store)
    async with asyncio.timeout(10):
        await asyncio.gather(*lives._tasks)


@pytest.mark.parametrize("signed", [0, 1], ids=["nothing was taken", "something was taken long ago"])
async def test_the_time_for_the_rest_goes_on_over_a_start_and_leaves_an_hour_after_it(tmp_path: Path, signed: int):
    store = await kept(tmp_path, ends=True, signed=signed)
    (folder,) = (tmp_path / "live").iterdir()
    (folder / "ended").touch()
    os.utime(folder / "ended", (0, 0))
    async with living(tmp_path, Faucet(waits=False)) as lives:
        await looked_at(lives, store)
        flow = lives._flows[TRANSFER]
        assert flow.taking.rest.left_seconds == pytest.approx(rest.BACK_SECONDS, abs=60)


async def test_a_start_waits_for_no_log_and_one_that_is_damaged_keeps_no_other_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told, opens = asyncio.Queue[str](), threading.Event()

    async def over(_kind: Kind, transfer: str, _reason: str, _code: str) -> None:
        told.put_nowait(transfer)

    def slow(folder: Path, life: str) -> Growing:
        assert opens.wait(10)
        return Growing(folder, life)

    store = await kept(tmp_path, ends=True, signed=2)
    monkeypatch.setattr(lives_module, "Growing", slow)
    async with living(tmp_path, Faucet(waits=False), over=over) as lives:
        for other in ("urn:before", "urn:behind"):  # one of them is looked at first, whatever the order
            await store.commit(Changes(saves=(replace(process("STARTED"), pid=other, peer_pid=other),)))
            (place := lives._place(other)).mkdir()
            (place / NAME_FILE).write_text(other)
            for file in ("leaves", LIFE_FILE):
                (place / file).write_bytes(b"")
        async with asyncio.timeout(5):
            assert await lives.sweep(store) == 0
        opens.set()
        async with asyncio.timeout(10):
            assert await told.get() == TRANSFER


async def test_whose_source_cannot_be_opened_any_more_keeps_no_transfer_from_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    told = asyncio.Queue[tuple[str, ...]]()

    async def over(*words: str) -> None:
        told.put_nowait(words)

    async def gone(_faucets: Faucets, _address: Mapping[str, Any]) -> LiveSource:
        raise SourceFailed("its credential was taken away")

    store = await kept(tmp_path, ends=True, signed=1)
    monkeypatch.setattr(Faucets, "open", gone)
    async with living(tmp_path, Faucet(waits=False), over=over) as lives:
        await looked_at(lives, store)
        with pytest.raises(SourceFailed):
            await lives.of(PERMIT)
        lives._flows[TRANSFER].signed_for(4)
        async with asyncio.timeout(10):
            assert (await told.get())[-1] == Ending.ENDED


async def test_a_log_that_is_lost_and_not_asked_for_ends_its_transfer_too_and_one_whose_source_can_go_on_does_not(tmp_path: Path):
    told = asyncio.Queue[tuple[str, ...]]()

    async def over(*words: str) -> None:
        told.put_nowait(words)

    store = MemoryStore()
    await store.commit(Changes(saves=(process("STARTED"),)))
    async with living(tmp_path, faucet := Faucet()) as lives:
        await come(lives, faucet, b"a\n")
        await (await lives.of(PERMIT)).stop()
    async with living(tmp_path, Faucet(), over=over, untaken_seconds=0.01) as lives:
        await looked_at(lives, store)
        assert lives.transfers == ()
        assert not lives._ends
    (rows,) = (tmp_path / "live").glob("*/leaves")
    os.truncate(rows, rows.stat().st_size - 48)
    (rows.parent / LIFE_FILE).write_text("before")
    async with living(tmp_path, Faucet(), over=over, untaken_seconds=0.01) as lives:
        await lives.sweep(store)
        async with asyncio.timeout(10):
            assert (await told.get())[-1] == Ending.UNTAKEN


async def test_what_cannot_go_on_and_is_stopped_by_a_full_disk_has_ended_though_nobody_comes_back(tmp_path: Path):
    async with living(tmp_path, faucet := Faucet(waits=False)) as lives:
        flow = await lives.of(PERMIT)
        flow.start()
        faucet.pour(b"a\n")
        async with asyncio.timeout(10), aclosing(flow.pieces(0)) as pieces:
            assert await anext(pieces) == b"a\n"
        await lives.halt("disk-full")
        flow.signed_for(2)
        async with asyncio.timeout(10):
            assert await flow.taken() is Ending.LEFT


async def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be used for live data"):
        Lives(tmp_path / "file", {}, lambda _transfer, _code: None)
