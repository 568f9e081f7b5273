"""A source that cannot go on behind its last record is asked once for a transfer, which ends as its answer does."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from connector.dataplane_live import ending as endings
from connector.dataplane_live import flow as flows
from connector.dataplane_live import taking
from connector.dataplane_live.ending import Ending, read_ending, write_ending
from connector.dataplane_live.flow import Flow
from connector.errors import SourceFailed
from tests.dataplane_live.faucet import Faucet
from tests.dataplane_live.test_flow import Defective, come, flowing

SECONDS = 20.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "SEAL_SECONDS", 0.05)
    monkeypatch.setattr(flows, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(taking, "ASK_SECONDS", 0.01)


async def over(flow: Flow) -> Ending:
    """How it has ended, with a consumer who signs for all of it."""
    ending = asyncio.create_task(flow.taken())
    async with asyncio.timeout(SECONDS):
        while flow.log.over is None:
            await flow.checkpoint_after(flow.signed, 0.01)
        assert not ending.done(), "nobody has signed for it yet"
        flow.signed_for(flow.log.end)
        return await ending


async def whole(flow: Flow) -> bytes:
    """What somebody who signs nothing reads up to the end."""
    async with asyncio.timeout(SECONDS), aclosing(flow.pieces(0)) as pieces:
        return b"".join([piece async for piece in pieces])


def test_each_end_has_its_reason_and_is_read_as_it_was_written(tmp_path: Path):
    assert read_ending(tmp_path) is None
    for ending in Ending:
        write_ending(tmp_path, ending)
        assert read_ending(tmp_path) is ending
    (tmp_path / endings.ENDED_FILE).write_text("source-")
    assert read_ending(tmp_path) is Ending.BROKE_OFF, "nobody knows that it was all"
    assert set(endings.REASONS) == set(Ending)
    assert all("anew for all" in ending.reason for ending in Ending if ending is not Ending.ENDED)
    assert "not all" not in Ending.ENDED.reason


@pytest.mark.asyncio
async def test_its_clean_end_ends_the_log_with_all_of_it_signed_and_it_is_never_asked_again(tmp_path: Path):
    faucet = Faucet(waits=False)
    async with flowing(tmp_path / "x", faucet) as (flow, _):
        faucet.pour(b"a\nb\n")
        faucet.poured.put_nowait(None)
        assert await whole(flow) == b"a\nb\n"
        assert (flow.signed, flow.log.records_end) == (flow.log.leaves, 2), "the last leaf, too"
        with pytest.raises(SourceFailed, match="has ended, and the log has 4 bytes"):
            async with aclosing(flow.pieces(0, 10)) as pieces:
                assert [piece async for piece in pieces] == [b"a\nb\n"]
        assert await over(flow) is Ending.ENDED
        await flow.stop()
        flow.start()
        faucet.pour(b"a\nb\n")
        await asyncio.sleep(0.05)
    async with flowing(tmp_path / "x", faucet) as (flow, _):  # after a kill, too, before the last receipt
        assert await whole(flow) == b"a\nb\n"
        assert await over(flow) is Ending.ENDED
    assert faucet.followed == [None]


@pytest.mark.asyncio
async def test_if_it_breaks_off_what_came_until_then_is_the_log_and_that_is_said(tmp_path: Path):
    faucet = Faucet(waits=False)
    async with flowing(tmp_path / "x", faucet) as (flow, _):
        faucet.pour(b"a\n")
        faucet.fail()
        faucet.pour(b"a\n")
        assert await whole(flow) == b"a\n"
        assert await over(flow) is Ending.BROKE_OFF
    assert faucet.followed == [None]


@pytest.mark.asyncio
async def test_whoever_was_stopped_in_the_middle_of_it_has_no_more_of_it(tmp_path: Path):
    faucet = Faucet(waits=False)
    async with flowing(tmp_path / "x", faucet) as (flow, _):
        faucet.pour(b"a\n")
        assert await come(flow, 2) == b"a\n"
    faucet.pour(b"a\n")
    async with flowing(tmp_path / "x", faucet) as (flow, _):
        assert await whole(flow) == b"a\n"
        assert await over(flow) is Ending.LEFT
    assert faucet.followed == [None]


@pytest.mark.asyncio
async def test_what_a_thread_of_it_had_sealed_when_it_was_stopped_has_come(tmp_path: Path):
    faucet = Faucet(waits=False)
    async with flowing(tmp_path / "x", faucet) as (flow, _):
        await flow.stop()
        flow._write(b"a\n", None)
        flow.log.show()
        faucet.pour(b"a\n")
        flow.start()
        assert await whole(flow) == b"a\n"
        assert await over(flow) is Ending.LEFT


@pytest.mark.asyncio
async def test_a_position_that_is_in_no_leaf_is_none_to_go_on_from(tmp_path: Path):
    faucet = Faucet(waits=False)  # events, of which only some have ids
    async with flowing(tmp_path / "x", faucet) as (flow, _):
        faucet.pour(b"a\n")
        assert await come(flow, 2) == b"a\n"
        faucet.waits = True
        await flow.stop()
        faucet.pour(b"a\n", "1")
        flow.start()
        assert await whole(flow) == b"a\n"
        assert await over(flow) is Ending.LEFT
    assert faucet.followed == [None]


@pytest.mark.asyncio
async def test_until_something_has_come_it_is_asked_again_and_of_an_empty_answer_that_is_all(tmp_path: Path):
    faucet = Faucet(waits=False)
    async with flowing(tmp_path / "x", faucet) as (flow, _):
        faucet.fail()
        faucet.fail()
        faucet.poured.put_nowait(None)
        assert await over(flow) is Ending.ENDED
        assert (faucet.followed, flow.log.end) == ([None] * 3, 0)


@pytest.mark.asyncio
async def test_what_a_defect_of_ours_has_lost_of_it_does_not_come_again(tmp_path: Path):
    faucet = Faucet(waits=False)
    async with flowing(tmp_path / "x", faucet, Defective()) as (flow, _):
        faucet.pour(b"a\n")
        assert await over(flow) is Ending.BROKE_OFF
    assert faucet.followed == [None]


@pytest.mark.asyncio
async def test_of_one_that_has_named_a_position_the_end_is_none(tmp_path: Path):
    faucet = Faucet(waits=False)  # events whose ids were seen before a restart, and not after it yet
    async with flowing(tmp_path / "x", faucet) as (flow, _):
        faucet.pour(b"a\n", "1")
        faucet.poured.put_nowait(None)
        faucet.pour(b"b\n", "2")
        assert await come(flow, 4) == b"a\nb\n"
        assert (faucet.followed, flow.log.over) == ([None, "1"], None)


@pytest.mark.asyncio
async def test_somebody_who_signs_nothing_has_taken_it_some_time_after_it_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    faucet = Faucet(waits=False)
    async with flowing(tmp_path / "x", faucet) as (flow, _):
        ending = asyncio.create_task(flow.taken())
        faucet.pour(b"a\n")
        faucet.poured.put_nowait(None)
        with flow.reading():
            await whole(flow)
            flow.left(0, 2)
        await asyncio.wait({ending}, timeout=0.05)
        assert not ending.done()
        monkeypatch.setattr(taking, "UNSIGNED_SECONDS", 0.01)
        with flow.reading():
            pass
        async with asyncio.timeout(SECONDS):
            assert await ending is Ending.ENDED


async def ended(flow: Flow, faucet: Faucet, *batches: bytes) -> None:
    """Let these be all that its source sends."""
    for data in batches:
        faucet.pour(data)
    faucet.poured.put_nowait(None)
    async with asyncio.timeout(SECONDS), aclosing(flow.pieces(0)) as pieces:
        async for _ in pieces:
            pass


@pytest.mark.asyncio
async def test_the_last_bytes_alone_are_not_all_of_it_and_who_reads_the_rest_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(taking, "UNSIGNED_SECONDS", 0.01)
    faucet = Faucet(waits=False)
    async with flowing(tmp_path / "x", faucet) as (flow, _):
        await ended(flow, faucet, b"a\nb\n")
        ending = asyncio.create_task(flow.taken())
        flow.left(2, 2)
        with flow.reading():
            pass
        await asyncio.wait({ending}, timeout=0.1)
        assert not ending.done()
        flow.left(0, 2)
        with flow.reading():
            pass
        async with asyncio.timeout(SECONDS):
            assert await ending is Ending.ENDED


@pytest.mark.asyncio
@pytest.mark.parametrize("signs", [False, True], ids=["a reader who left before the last byte", "one who signs and is away for good"])
async def test_whoever_takes_no_more_is_waited_for_as_long_as_the_rest_is_kept_from_the_last_that_it_took(tmp_path: Path, signs: bool):
    faucet = Faucet(waits=False)
    async with flowing(tmp_path / "x", faucet, untaken_seconds=1000.0) as (flow, _):
        await ended(flow, faucet, b"a\nb\n")
        ending, rest = asyncio.create_task(flow.taken()), flow.taking.rest
        await asyncio.sleep(0)  # it waits
        rest._since -= 900
        assert rest.left_seconds <= 100
        if signs:
            flow.signed_for(2)
        else:
            flow.left(0, 2)
        assert rest.left_seconds > 900
        rest._since -= 1000
        rest.news.set()
        async with asyncio.timeout(SECONDS):
            assert await ending is Ending.UNTAKEN


@pytest.mark.asyncio
async def test_a_start_does_not_begin_the_time_anew(tmp_path: Path):
    faucet = Faucet(waits=False)
    async with flowing(tmp_path / "x", faucet) as (flow, _):
        await ended(flow, faucet, b"a\n")
    async with flowing(tmp_path / "x", faucet, untaken_seconds=3600.0, waited_seconds=3600.0) as (flow, _):
        async with asyncio.timeout(SECONDS):
            assert await flow.taken() is Ending.UNTAKEN
