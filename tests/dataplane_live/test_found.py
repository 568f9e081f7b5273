"""What nobody has open is seen to, however often that fails."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from connector.dataplane_live import flow, found, taking
from connector.dataplane_live import lives as lives_module
from connector.dataplane_live.ending import Ending
from connector.dataplane_live.found import Found
from connector.dataplane_live.growing import Growing
from connector.dataplane_live.spool import Spool
from connector.errors import DescriptorsShort
from tests.dataplane_live.faucet import Faucet
from tests.dataplane_live.test_lives import PERMIT, TRANSFER, kept, living, looked_at

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(flow, "SEAL_SECONDS", 0.05)


@pytest.mark.parametrize("what", [Growing, Spool], ids=["the log", "its spool"])
async def test_a_log_that_has_ended_and_cannot_be_opened_anew_for_who_asks_ends_its_transfer_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: Callable[..., object]
):
    told, refusals = asyncio.Queue[str](), ["twice", "once"]

    def short(*arguments: object) -> object:
        if refusals:
            raise DescriptorsShort(f"too many open files, {refusals.pop()}")
        return what(*arguments)

    async def complete(_transfer: str, _reason: str, code: str) -> None:
        told.put_nowait(code)

    store = await kept(tmp_path, ends=True, signed=2)
    async with living(tmp_path, Faucet(waits=False), complete=complete) as lives:
        monkeypatch.setattr(taking, "TOLD_SECONDS", 3600.0)  # it does not end before somebody asks
        await looked_at(lives, store)
        monkeypatch.setattr(taking, "TOLD_SECONDS", 0.01)
        monkeypatch.setattr(lives_module, what.__name__, short)
        with pytest.raises(DescriptorsShort):
            await lives.of(PERMIT)
        async with asyncio.timeout(5):
            assert await told.get() == Ending.ENDED
    assert not refusals


async def test_a_log_of_which_a_start_cannot_read_whose_it_is_stays_and_is_seen_to_once_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ended = asyncio.Queue[str]()

    async def complete(transfer: str, _reason: str, _code: str) -> None:
        ended.put_nowait(transfer)

    store = await kept(tmp_path, ends=True, signed=2)
    (name,) = (tmp_path / "live").glob(f"*/{found.NAME_FILE}")
    name.rename(name.with_suffix(".away"))
    monkeypatch.setattr(taking, "TOLD_SECONDS", 0.01)
    name.symlink_to(name)  # ELOOP, as another time it is EIO, or EMFILE
    async with living(tmp_path, Faucet(waits=False), complete=complete) as lives:
        assert await lives.sweep(store) == 0
        name.with_suffix(".away").replace(name)
        async with asyncio.timeout(5):
            assert await ended.get() == TRANSFER


async def test_what_cannot_be_looked_at_keeps_no_other_waiting_and_is_looked_at_again_until_it_can_be(tmp_path: Path):
    looks, seen = list[str](), asyncio.Event()

    async def look(_folder: Path, transfer: str) -> None:
        looks.append(transfer)
        if transfer == "damaged" and len(looks) < 4:
            raise OSError("damaged")
        if len(looks) > 3:
            seen.set()

    tasks = list[asyncio.Task[None]]()
    all_found = Found(look, lambda work, _name: tasks.append(asyncio.create_task(work)))
    all_found.add(tmp_path, "damaged")
    all_found.add(tmp_path, "sound")
    async with asyncio.timeout(10):
        await seen.wait()
        await asyncio.gather(*tasks)
    assert looks == ["damaged", "sound", "damaged", "damaged"]
    all_found.add(tmp_path, "another")
    all_found.close()
    async with asyncio.timeout(10):
        await asyncio.gather(*tasks)
    assert "another" not in looks


async def test_a_close_waits_for_no_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    looked = asyncio.Event()

    async def look(_folder: Path, _transfer: str) -> None:
        looked.set()
        raise OSError("damaged")

    monkeypatch.setattr(found, "FIRST_PAUSE_SECONDS", 3600.0)
    tasks = list[asyncio.Task[None]]()
    all_found = Found(look, lambda work, _name: tasks.append(asyncio.create_task(work)))
    all_found.add(tmp_path, "damaged")
    async with asyncio.timeout(10):
        await looked.wait()
        all_found.close()
        await asyncio.gather(*tasks)
