"""After a loss of power: the log goes on, with the leaves that were signed, from whatever is left of its bytes."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from connector.dataplane_live import flow as flows
from connector.dataplane_live import mending
from connector.dataplane_live.ending import Ending
from connector.dataplane_live.flow import Flow
from connector.dataplane_live.growing import POSITION_FILE, ROW, ROWS_FILE, Growing
from connector.dataplane_live.life import LIFE_FILE
from connector.dataplane_live.mending import BROKEN
from connector.dataplane_live.spool import PREFIX, Spool
from connector.errors import SinkFailed, SourceFailed, Withdrawn
from connector.lanes import hashing
from connector.metering.content import CHUNK_BYTES, Header
from connector.ports.live import Records
from tests.dataplane_live.faucet import MEDIA_TYPE
from tests.dataplane_live.test_flow import Upper, come, signed
from tests.lanes.compiled import by_lanes

HEADER = Header(CHUNK_BYTES, None, MEDIA_TYPE, "line", b"s" * 32)
SEGMENT = 1 << 20
BATCH, FIRST, LAST = 700, 60_000, 80_000

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "SEAL_SECONDS", 0.05)
    monkeypatch.setattr(flows, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(flows, "WINDOW_BYTES", 1 << 20)


def line(number: int, said: bytes = b"x") -> bytes:
    return b"%08d" % number + said * 90 + b"\n"


class Numbers:
    """A source of numbered lines, each of which it can send again."""

    def __init__(self, *, waits: bool = True, said: bytes = b"x", most: int = LAST) -> None:
        self.waits, self.said, self.most = waits, said, most
        self.followed: list[str | None] = []

    async def follow(self, position: str | None, _take: object = None) -> AsyncGenerator[Records, None]:
        self.followed.append(position)
        number = int(position or 0)
        while number < self.most:
            after = min(number + BATCH, self.most)
            yield Records(b"".join(line(n, self.said) for n in range(number + 1, after + 1)), str(after) if self.waits else None)
            number = after
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass


@asynccontextmanager
async def flowing(folder: Path, life: str, source: Any, *stages: Any) -> AsyncIterator[Flow]:
    log = Growing(folder, life) if os.path.exists(folder) else Growing.begin(folder, life, HEADER)  # noqa: ASYNC240 - it is here
    spool = Spool(folder, log.end, SEGMENT)
    made = Flow(log, spool, source, stages, lambda _code: None)
    try:
        yield made
    finally:
        await made.stop()
        spool.close()
        log.close(durable=False)  # the power has gone


async def begun(folder: Path, *stages: Any, source: Numbers | None = None) -> tuple[bytes, int, bytes]:
    """A log that the power has gone under: what it had said, how many leaves it has signed, and their root."""
    async with flowing(folder, "before", source or Numbers(most=FIRST), *stages) as flow:
        flow.start()
        content = await come(flow, FIRST * len(line(0)))
        await signed(flow, flow.log.leaves)
        root = flow.log.root_at(flow.signed)
        assert root is not None
        return content, flow.signed, root


def first_point(flow: Flow) -> int:
    """The first byte that can be had again."""
    return next(flow.log.span(1, leaf)[1] for leaf in range(2, flow.log.leaves) if flow.log.point(leaf)[1] is not None)


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{PREFIX}*"))


def garbled(folder: Path) -> None:
    with segments(folder)[-1].open("r+b") as file:
        file.seek(1000)
        file.write(b"\0" * 4096)


def truncated(folder: Path) -> None:
    os.truncate(segments(folder)[-1], 100)


def one_gone(folder: Path) -> None:
    segments(folder)[1].unlink()


def all_gone(folder: Path) -> None:
    for path in segments(folder):
        path.unlink()


def nothing_lost(_folder: Path) -> None:
    pass


def more_than_was_marked(folder: Path) -> None:
    """Rows and slots that were written and not flushed: some of them are there, and one is half there."""
    rows = folder / ROWS_FILE
    with rows.open("ab") as file:
        file.write(ROW.pack(1 << 40, 1 << 63, b"z" * 32) + b"\1" * 20)
    (folder / POSITION_FILE).write_bytes(b"\0" * 5000)


HARMS = [garbled, truncated, one_gone, all_gone, nothing_lost, more_than_was_marked]


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("acknowledged", [False, True])
async def test_the_log_goes_on_with_the_same_tree_and_nothing_is_missing_or_twice(tmp_path: Path, harm: Any, acknowledged: bool):
    content, leaves, root = await begun(tmp_path / "x")
    harm(tmp_path / "x")
    source = Numbers()
    async with flowing(tmp_path / "x", "after", source) as flow:
        done = flow.log.span(1, flow.log.leaves // 2)[1] if acknowledged else first_point(flow)
        flow.release(done)
        await flow.mend(done)
        assert (flow.log.leaves, flow.signed, flow.log.root_at(leaves)) == (leaves, leaves, root)
        assert (flow.log.end, flow.log.records_end) == (len(content), FIRST)
        refetched = list(source.followed)
        assert len(refetched) == (harm not in (nothing_lost, more_than_was_marked) and not (acknowledged and harm is one_gone)), refetched
        flow.start()
        data = await come(flow, LAST * len(line(0)) - done, done)
        assert data == b"".join(line(n) for n in range(1, LAST + 1))[done:]
        assert source.followed[-1] == str(FIRST)


@pytest.mark.parametrize("harm", [garbled, all_gone])
async def test_leaves_that_are_hashed_many_at_a_time_are_found_wrong_and_made_good_one_by_one(
    tmp_path: Path, harm: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hashing, "HASHING", by_lanes())
    monkeypatch.setattr(mending, "TOGETHER", 5)
    content, leaves, root = await begun(tmp_path / "x")
    harm(tmp_path / "x")
    async with flowing(tmp_path / "x", "after", Numbers()) as flow:
        done = first_point(flow)
        await flow.mend(done)
        assert (flow.log.leaves, flow.log.root_at(leaves)) == (leaves, root)
        assert await come(flow, len(content) - done, done) == content[done:]


async def test_what_was_fetched_again_is_only_what_was_missing(tmp_path: Path):
    await begun(tmp_path / "x")
    truncated(tmp_path / "x")
    source = Numbers()
    async with flowing(tmp_path / "x", "after", source) as flow:
        await flow.mend(0)  # all but the end of it is there
    assert int(source.followed[0] or 0) > 40_000


async def test_stages_are_run_on_what_comes_again(tmp_path: Path):
    content, *_ = await begun(tmp_path / "x", Upper())
    all_gone(tmp_path / "x")
    async with flowing(tmp_path / "x", "after", Numbers(), Upper()) as flow:
        point = flow.log.point(flow.log.leaves // 2)
        assert point[1] is not None
        done = flow.log.span(1, point[0])[1]
        await flow.mend(done)
        assert await come(flow, 1000, done) == content[done : done + 1000] or (await come(flow, 1000, done)).startswith(
            content[done : done + 1000]
        )


@pytest.mark.parametrize(
    ("source", "ending"),
    [(Numbers(said=b"y"), None), (Numbers(waits=False), Ending.BROKE_OFF)],
    ids=["whose source sends other records now", "whose source cannot go on"],
)
async def test_bytes_that_are_gone_for_good_end_the_log(tmp_path: Path, source: Numbers, ending: Ending | None):
    await begun(tmp_path / "x", source=Numbers(most=FIRST, waits=source.waits))
    all_gone(tmp_path / "x")
    async with flowing(tmp_path / "x", "after", source) as flow:
        done = flow.log.span(1, flow.log.point(flow.log.leaves // 2)[0])[1]
        for _ in range(2):
            with pytest.raises(Withdrawn, match="machine stopped") as caught:
                await flow.mend(done)
            assert caught.value.code == BROKEN
        assert flow.log.over is ending
        if ending is not None:
            assert await flow.taken() is ending, "nobody is waited for who cannot have it"
        await flow.mend(flow.log.end)  # but if all of it was acknowledged nothing is missing
        assert not flow.log.torn


async def test_a_disk_that_refuses_to_say_that_a_log_has_ended_holds_up_nobody_who_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(_log: Growing, _ending: Ending) -> None:
        raise SinkFailed("no space left on device")

    await begun(tmp_path / "x", source=Numbers(most=FIRST, waits=False))
    all_gone(tmp_path / "x")
    async with flowing(tmp_path / "x", "after", Numbers(waits=False)) as flow:
        with monkeypatch.context() as disk:
            disk.setattr(Growing, "conclude", full)
            async with asyncio.timeout(10):
                with pytest.raises(SinkFailed, match="no space left"):
                    await flow.mend(0)
                await flow.stop()
        with pytest.raises(Withdrawn, match="machine stopped"):
            await flow.mend(0)
        assert (flow.log.over, await flow.taken()) == (Ending.BROKE_OFF, Ending.BROKE_OFF)


async def test_what_was_lost_from_the_first_byte_on_comes_again_from_where_the_source_begins_if_that_is_where_it_was(tmp_path: Path):
    content, leaves, root = await begun(tmp_path / "x")
    all_gone(tmp_path / "x")
    async with flowing(tmp_path / "x", "after", Numbers(said=b"y")) as flow:
        with pytest.raises(Withdrawn) as caught:
            await flow.mend(0)
        assert caught.value.code == BROKEN
    source = Numbers()
    async with flowing(tmp_path / "x", "after", source) as flow:
        await flow.mend(0)
        assert source.followed == [None]
        assert (await come(flow, len(content)))[: len(content)] == content
        assert flow.log.root_at(leaves) == root


async def test_of_what_nobody_has_signed_for_as_much_is_to_be_had_again_as_there_is_room_for_from_any_byte_on(tmp_path: Path):
    content, *_ = await begun(tmp_path / "x")
    all_gone(tmp_path / "x")
    async with flowing(tmp_path / "x", "after", Numbers()) as flow:
        assert flow.oldest == 0
        needed = CHUNK_BYTES * 20 + 5  # within a leaf
        await flow.mend(needed)
        assert flow.oldest == needed
        assert (await come(flow, len(content) - needed, needed))[: len(content) - needed] == content[needed:]
    for path in segments(tmp_path / "x"):
        path.unlink()
    log = Growing(tmp_path / "x", "later")
    flow = Flow(log, Spool(tmp_path / "x", log.end, SEGMENT), Numbers(), (), lambda _code: None, spool_bytes=SEGMENT)
    assert flow.oldest == log.end - SEGMENT
    log.close(durable=False)


async def test_what_lies_before_the_byte_that_was_needed_is_not_to_be_had_as_nobody_has_looked_at_it(tmp_path: Path):
    content, *_ = await begun(tmp_path / "x")
    with segments(tmp_path / "x")[0].open("r+b") as file:
        file.write(b"\0" * 4096)
    async with flowing(tmp_path / "x", "after", Numbers()) as flow:
        needed = SEGMENT - 100
        await flow.mend(needed)
        assert flow.oldest == needed
        with pytest.raises(SourceFailed, match="dropped"):
            await come(flow, 10, 0)
        assert (await come(flow, len(content) - needed, needed))[: len(content) - needed] == content[needed:]
    async with flowing(tmp_path / "x", "after", Numbers()) as flow:  # nor after another start: the machine lives on, so nobody looks again
        assert (flow.log.torn, flow.oldest) == (False, needed)
        with pytest.raises(SourceFailed, match="dropped"):
            await come(flow, 10, 0)


async def test_a_source_that_does_not_answer_now_is_asked_again_by_the_next_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mending, "MENDING_SECONDS", 0.1)
    await begun(tmp_path / "x")
    truncated(tmp_path / "x")
    source = Numbers(most=0)
    async with flowing(tmp_path / "x", "after", source) as flow:
        with pytest.raises(SourceFailed, match="does not send again"):
            await flow.mend(0)
        assert flow.log.torn
        assert (tmp_path / "x" / LIFE_FILE).read_text() == "before"
        source.most = LAST
        monkeypatch.setattr(mending, "MENDING_SECONDS", 20.0)  # it answers now, however slow a machine is
        await flow.mend(0)
        assert not flow.log.torn


async def test_a_loss_of_power_while_it_mends_is_one_more(tmp_path: Path):
    content, leaves, root = await begun(tmp_path / "x")
    all_gone(tmp_path / "x")
    for _ in range(2):
        async with flowing(tmp_path / "x", "after", Numbers(most=0)) as flow:
            assert flow.log.torn
    async with flowing(tmp_path / "x", "later", Numbers()) as flow:
        done = flow.log.span(1, flow.log.point(flow.log.leaves - 1)[0])[1]
        await flow.mend(done)
        assert flow.log.root_at(leaves) == root
        assert (await come(flow, len(content) - done, done))[: len(content) - done] == content[done:]


async def test_marks_are_written_one_after_the_other_whoever_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flows, "SEAL_SECONDS", 60.0)  # nothing is marked until it is stopped
    monkeypatch.setattr(flows, "WINDOW_BYTES", 1 << 30)
    at_once, most, flush = 0, 0, os.fdatasync

    def slow(descriptor: int) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.05)  # the disk takes its time
        flush(descriptor)
        at_once -= 1

    monkeypatch.setattr(os, "fdatasync", slow)
    async with flowing(tmp_path / "x", "before", Numbers(most=FIRST)) as flow:
        flow.start()
        await come(flow, len(line(0)) * BATCH)
        await asyncio.gather(flow.stop(), flow.stop())  # as one that is suspended while everything is halted
        assert (most, flow.signed, flow.log.unmarked) == (1, flow.log.leaves, ())
        leaves = flow.log.leaves
    log = Growing(tmp_path / "x", "after")
    assert (log.leaves, log.synced) == (leaves, leaves)
    log.close(durable=False)
