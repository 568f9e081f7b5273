"""From a source into leaves: when they are sealed and signed, who waits for whom, and what is left when it is stopped anywhere."""

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import count
from pathlib import Path

import pytest

from connector.dataplane_live import flow as flows
from connector.dataplane_live.coming import HOP_BYTES
from connector.dataplane_live.ending import Ending
from connector.dataplane_live.flow import SOURCE_CANNOT_WAIT, Flow
from connector.dataplane_live.growing import Growing
from connector.dataplane_live.rest import UNTAKEN_SECONDS, Rest
from connector.dataplane_live.spool import SEGMENT_BYTES, Spool
from connector.dataplane_live.taking import Taking
from connector.errors import SinkFailed
from connector.merkle.tree import leaf_hash, root_of
from connector.metering.content import CHUNK_BYTES, Header
from connector.ports import Stage
from connector.ports.live import LiveSource, Records
from tests.dataplane_live.faucet import MEDIA_TYPE, Faucet

HEADER = Header(CHUNK_BYTES, None, MEDIA_TYPE, "line", b"s" * 32)
MIB = 1024 * 1024

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "SEAL_SECONDS", 0.1)
    monkeypatch.setattr(flows, "PAUSE_SECONDS", 0.01)


class Cuts:
    """The codes with which streams were cut."""

    def __init__(self) -> None:
        self.codes: list[str] = []
        self.heard = asyncio.Event()

    def cut(self, code: str) -> None:
        self.codes.append(code)
        self.heard.set()

    async def first(self) -> str:
        async with asyncio.timeout(10):
            await self.heard.wait()
        return self.codes[0]


@asynccontextmanager
async def flowing(folder: Path, source: LiveSource, *stages: Stage, **limits: float) -> AsyncIterator[tuple[Flow, Cuts]]:
    log = Growing(folder, "life") if os.path.exists(folder) else Growing.begin(folder, "life", HEADER)  # noqa: ASYNC240 - it is here
    cuts = Cuts()
    spool = Spool(folder, log.end)
    taking = Taking(log, Rest(limits.pop("untaken_seconds", UNTAKEN_SECONDS), limits.pop("waited_seconds", 0.0)))
    made = Flow(log, spool, source, stages, cuts.cut, taking=taking, **limits)  # type: ignore[arg-type]
    made.start()
    try:
        yield made, cuts
    finally:
        await made.stop()
        spool.close()
        log.close(durable=False)


async def come(flow: Flow, count: int, offset: int = 0) -> bytes:
    data = b""
    async with asyncio.timeout(10), aclosing(flow.pieces(offset)) as pieces:
        async for piece in pieces:
            data += piece
            if len(data) >= count:
                return data
    raise AssertionError("it has no end")


async def signed(flow: Flow, leaves: int) -> int:
    async with asyncio.timeout(10):
        while flow.signed < leaves:
            await flow.checkpoint_after(flow.signed, 10.0)
    return flow.signed


async def test_little_is_sealed_when_its_time_is_up_and_signed_then(tmp_path: Path):
    faucet = Faucet()
    async with flowing(tmp_path / "x", faucet) as (flow, _):
        faucet.pour(b"a\n", "1")
        faucet.pour(b"b\n", "2")
        assert await come(flow, 4) == b"a\nb\n"
        assert await signed(flow, 2) == 2
        assert (flow.log.leaves, flow.log.records_end, flow.log.position) == (2, 2, "2")
        assert flow.log.root_at(2) == root_of([HEADER.hash, leaf_hash(b"a\nb\n")])


async def test_much_is_sealed_at_once_in_leaves_of_whole_records(tmp_path: Path):
    faucet, lines = Faucet(), [b"%07d" % n * 60 + b"\n" for n in range(10_000)]
    async with flowing(tmp_path / "x", faucet) as (flow, _):
        for at in range(0, len(lines), 1000):
            faucet.pour(b"".join(lines[at : at + 1000]), str(at))
        content = b"".join(lines)
        assert await come(flow, len(content)) == content
        leaves = [content[first : first + length] for first, length in (flow.log.span(n, n + 1) for n in range(1, flow.log.leaves))]
        assert b"".join(leaves) == content
        assert all(len(leaf) <= CHUNK_BYTES and leaf.endswith(b"\n") for leaf in leaves)
        assert flow.log.root_at(flow.log.leaves) == root_of([HEADER.hash, *map(leaf_hash, leaves)])
        assert flow.log.records_end == len(lines)
        assert len(leaves) < 1.2 * len(content) / CHUNK_BYTES


async def test_a_checkpoint_for_somebody_is_at_most_a_window_beyond_what_he_has(tmp_path: Path):
    faucet, line = Faucet(), b"x" * 99_999 + b"\n"
    async with flowing(tmp_path / "x", faucet) as (flow, _):
        for _ in range(50):
            faucet.pour(line)
        await come(flow, 50 * len(line))
        await signed(flow, flow.log.leaves)
        have = 1
        while have < flow.log.leaves:
            size = await flow.checkpoint_after(have, 1.0, MIB)
            assert size is not None
            assert size > have
            assert flow.log.span(have, size)[1] <= MIB
            have = size
        assert await flow.checkpoint_after(have, 0.01, MIB) is None


async def test_the_source_waits_while_nobody_takes_and_goes_on_when_somebody_has(tmp_path: Path):
    faucet, line = Faucet(), b"x" * 99_999 + b"\n"
    async with flowing(tmp_path / "x", faucet, spool_bytes=2 * MIB) as (flow, cuts):
        for _ in range(80):
            faucet.pour(line)
        await come(flow, 5 * len(line))
        await asyncio.sleep(0.3)
        assert flow.log.end <= 2 * MIB
        assert 80 - faucet.poured.qsize() <= (2 * MIB + 2 * HOP_BYTES) // len(line) + 2  # one hop waits for room, and one for that
        while flow.log.end < 80 * len(line):
            flow.release(flow.log.end)
            await come(flow, 1, flow.log.end)
        assert cuts.codes == []


async def test_a_batch_that_is_more_than_the_room_beside_what_is_kept_comes_all_the_same(tmp_path: Path):
    faucet = Faucet()
    async with flowing(tmp_path / "x", faucet, spool_bytes=2 * MIB) as (flow, cuts):
        faucet.pour(b"x" * (MIB - 1) + b"\n")
        await come(flow, MIB)  # kept, as for a reader who signs nothing and may be cut
        faucet.pour(b"y" * (MIB + MIB // 2) + b"\n")
        await come(flow, MIB, MIB)
        assert cuts.codes == []


async def test_a_source_that_cannot_wait_is_cut_off_with_a_reason_and_for_good(tmp_path: Path):
    faucet, line = Faucet(waits=False), b"x" * 99_999 + b"\n"
    async with flowing(tmp_path / "x", faucet, spool_bytes=MIB, wait_seconds=0.1) as (flow, cuts):
        for _ in range(60):
            faucet.pour(line)
        assert await cuts.first() == SOURCE_CANNOT_WAIT
        async with asyncio.timeout(10):
            while flow.log.over is None:
                await flow.checkpoint_after(flow.signed, 0.01)
        assert (flow.log.over, len(faucet.followed)) == (Ending.BROKE_OFF, 1)


@pytest.mark.parametrize("seed", range(6))
async def test_wherever_it_is_stopped_the_next_one_goes_on_behind_what_is_in_the_log(tmp_path: Path, seed: int):
    size, sent = 200_000 * (seed % 3) + 50, 0
    for _ in range(4):
        faucet = Faucet()
        async with flowing(tmp_path / "x", faucet) as (flow, _):
            begun = int(flow.log.position or 0)
            for number in range(begun + 1, begun + 21):
                faucet.pour(b"%09d" % number + b"x" * size + b"\n", str(number))
            await come(flow, 1, flow.log.end)
            for _ in range(seed):
                await asyncio.sleep(0)
        sent = max(sent, begun)
    async with flowing(tmp_path / "x", Faucet()) as (flow, _):
        content = await come(flow, flow.log.end)
        numbers = [int(line[:9]) for line in content.splitlines()]
        assert numbers == list(range(1, len(numbers) + 1))
        assert str(numbers[-1]) == flow.log.position


class Quick:
    """A source that always has more, in a thread of its own."""

    waits = True

    async def follow(self, position: str | None, take: Callable[[Records], None] | None = None) -> AsyncGenerator[Records, None]:
        assert take is not None
        for number in count(int(position or 0) + 1):
            records = Records(b"x" * HOP_BYTES + b"\n", str(number), taken=True)
            await asyncio.to_thread(take, records)
            yield records

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("turns", range(4))
async def test_who_stops_it_waits_for_the_thread_that_writes_however_often_it_is_stopped(
    tmp_path: Path, turns: int, monkeypatch: pytest.MonkeyPatch
):
    loop, writes, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    async with flowing(tmp_path / "x", Quick()) as (flow, _):
        write = flow.spool.write

        def slow(offset: int, pieces: Sequence[memoryview | bytes]) -> None:
            loop.call_soon_threadsafe(writes.set)
            assert go_on.wait(10)
            write(offset, pieces)

        monkeypatch.setattr(flow.spool, "write", slow)
        await writes.wait()
        stopping = [asyncio.create_task(flow.stop())]
        for _ in range(turns):
            await asyncio.sleep(0)
        stopping.append(asyncio.create_task(flow.stop()))
        try:
            assert not (await asyncio.wait(stopping, timeout=0.1))[0]
        finally:
            go_on.set()
            await asyncio.gather(*stopping)
        assert flow.log.end == flow.log.written > 0


async def test_who_starts_it_just_as_it_was_stopped_has_it_followed_and_waits_for_its_checkpoints(tmp_path: Path):
    async with flowing(tmp_path / "x", faucet := Faucet()) as (flow, _):
        faucet.pour(b"a\n", "1")
        await come(flow, 2)
        await signed(flow, 2)
        stopping = asyncio.create_task(flow.stop())
        while flow.runs:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
        assert not stopping.done()
        flow.start()
        await stopping
        waiting = asyncio.create_task(flow.checkpoint_after(2, 10.0))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done(), "or its consumer asks again and again"
        faucet.pour(b"b\n", "2")
        assert await waiting == 3


async def test_whoever_hears_late_of_a_flow_that_was_let_go_moves_no_file_of_the_one_in_its_place(tmp_path: Path):
    faucet = Faucet()
    async with flowing(tmp_path / "x", faucet) as (flow, _):
        faucet.pour(b"a\n" * SEGMENT_BYTES, "1")
        await come(flow, 2 * SEGMENT_BYTES)
        files = sorted(os.listdir(tmp_path / "x"))
        flow.leave()
        flow.release(2 * SEGMENT_BYTES)
        flow.signed_for(2 * SEGMENT_BYTES)
        assert sorted(os.listdir(tmp_path / "x")) == files


async def test_a_source_that_fails_or_ends_is_asked_again_from_where_it_was(tmp_path: Path):
    faucet = Faucet()
    async with flowing(tmp_path / "x", faucet) as (flow, _):
        faucet.pour(b"a\n", "1")
        await come(flow, 2)
        faucet.fail()
        faucet.pour(b"b\n", "2")
        await come(flow, 2, 2)
        faucet.poured.put_nowait(None)
        faucet.pour(b"c\n", "3")
        assert await come(flow, 6) == b"a\nb\nc\n"
        assert faucet.followed == [None, "1", "2"]


class Upper:
    """A stage."""

    name = "upper"

    def run(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        return self._run(pieces)

    async def _run(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            yield b"".join(line.upper() for line in piece.splitlines(keepends=True) if b"secret" not in line)


async def test_stages_come_before_the_log_and_get_whole_records(tmp_path: Path):
    faucet = Faucet()
    async with flowing(tmp_path / "x", faucet, Upper()) as (flow, _):
        faucet.pour(b"a\nsecret\n", "1")
        faucet.pour(b"b\n", "2")
        assert await come(flow, 4) == b"A\nB\n"
        assert (flow.log.records_end, flow.log.position) == (2, "2")


class Defective(Upper):
    """A stage that fails the first time."""

    failed = False

    async def _run(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        if not self.failed:
            self.failed = True
            raise ZeroDivisionError
        async for piece in super()._run(pieces):
            yield piece


async def test_a_defect_ends_no_transfer_and_is_in_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    faucet = Faucet()
    async with flowing(tmp_path / "x", faucet, Defective()) as (flow, cuts):
        faucet.pour(b"a\n", "1")
        async with asyncio.timeout(10):
            while len(faucet.followed) < 2:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        faucet.pour(b"a\n", "1")
        assert await come(flow, 2) == b"A\n"
        assert (faucet.followed, cuts.codes) == ([None, None], [])
    assert "ZeroDivisionError" in capsys.readouterr().err


async def test_a_disk_that_does_not_take_it_cuts_the_transfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    faucet = Faucet()
    async with flowing(tmp_path / "x", faucet) as (flow, cuts):
        monkeypatch.setattr(flow.spool, "_folder", tmp_path / "gone")
        faucet.pour(b"a\n", "1")
        assert await cuts.first() == "SinkFailed"
        assert (flow.log.leaves, flow.log.end) == (1, 0)


async def test_a_disk_that_takes_nothing_is_asked_less_and_less_often_and_has_what_came_once_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pauses, sleep, sync, works = list[float](), asyncio.sleep, Growing.sync, asyncio.Event()

    async def noted(seconds: float) -> None:
        if seconds:
            pauses.append(seconds)
            if len(pauses) > 11:
                works.set()
        await sleep(0)

    def full(log: Growing, points: Sequence[tuple[int, str | None]], needed: int) -> None:
        if not works.is_set():
            raise SinkFailed("no space left on device")
        sync(log, points, needed)

    monkeypatch.setattr(flows, "SEAL_SECONDS", 0.0)
    monkeypatch.setattr(Growing, "sync", full)
    async with flowing(tmp_path / "log", source := Faucet()) as (flow, cuts):
        monkeypatch.setattr(asyncio, "sleep", noted)
        source.pour(b"a\n", "1")
        async with asyncio.timeout(10):
            assert await flow.checkpoint_after(1, 10) == 2
        assert pauses[:3] == [0.2, 0.4, 0.8]
        assert pauses[11] == 5.0
        assert set(cuts.codes) == {"SinkFailed"}
