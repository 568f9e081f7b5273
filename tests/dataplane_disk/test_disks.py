"""Disks that run full: nothing new begins, what runs is drained, and there is room for its end; also on a real one."""

import asyncio
import errno
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import orjson
import pytest

from connector.dataplane_disk import disks as module
from connector.dataplane_disk.disks import Disks, Reserve, Space, look
from connector.dsp.messages import Kind
from connector.errors import DiskShort
from connector.values import replace
from tests import pair
from tests.control_billing.test_stating import SAID, fact
from tests.dataplane.rig import some_bytes
from tests.metrics import sample
from tests.test_app import pulled

MB = 1_000_000
SIZE_MB = 10_000
CONTENT = some_bytes(3_000_000)
DATASET = "urn:test:disk"

pytestmark = pytest.mark.asyncio


class Faked:
    """A disk of 10 GB that a test fills, with what serving keeps on it."""

    def __init__(self, root: Path, percent: float = 5.0) -> None:
        self.free_mb, self.gone = float(SIZE_MB), False
        self.stopped: list[str] = []
        self.root = root
        self.reserve = Reserve(root / "q.reserve", look=lambda _: Space(0, 64 * MB))  # small: it is really written
        self.kept_mb = self.reserve.size_bytes / MB
        folders = {"database": root, "index": root / "index"}
        self.disks = Disks(folders, percent, self.reserve, self.stop, look=self.look, full_bytes=16 * MB)

    def look(self, folder: Path) -> Space:
        if self.gone and folder.name == "index":
            raise OSError(errno.EIO, "input/output error")
        kept = self.kept_mb if self.reserve.held else 0.0
        return Space(int((self.free_mb - kept) * MB), SIZE_MB * MB)

    async def stop(self, code: str) -> None:
        self.stopped.append(code)

    async def at(self, free_mb: float) -> Disks:
        """The disk with so much free beside what is kept."""
        self.free_mb = free_mb + self.kept_mb
        await self.disks.watch()
        return self.disks


async def test_with_room_everything_begins_and_something_is_kept(tmp_path: Path):
    disk = Faked(tmp_path)
    disks = await disk.at(6_000)
    disks.admit()
    disks.admit_data()
    assert await disks.fault() is None
    assert disk.reserve.held
    assert (tmp_path / "q.reserve").stat().st_size == 6_400_000
    await disks.watch()
    assert sample("qiao_disk_free_bytes", purpose="database") == 6_000 * MB
    await disks.close()
    assert not (tmp_path / "q.reserve").exists()


async def test_a_disk_that_has_room_and_takes_hardly_any_more_files_is_short_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    disk = Faked(tmp_path)
    (await disk.at(6_000)).admit()
    free, found = os.statvfs(tmp_path), list[Space]()
    for files, left in ((1_000, 49), (1_000, 51), (0, 0)):
        there = SimpleNamespace(f_bavail=free.f_blocks, f_blocks=free.f_blocks, f_frsize=free.f_frsize, f_files=files, f_favail=left)
        monkeypatch.setattr(os, "statvfs", lambda _folder, there=there: there)
        found.append(look(tmp_path))
    assert [round(space.percent, 1) for space in found] == [4.9, 5.1, 100.0]
    disk.disks._look = lambda _folder: replace(found[0], free_bytes=6_000 * MB, size_bytes=SIZE_MB * MB)
    await disk.disks.watch()
    with pytest.raises(DiskShort, match=r"\(database by inodes, index by inodes\) has less than 5 % free"):
        disk.disks.admit()
    disk.disks.admit_data()
    assert "database by inodes" in (await disk.disks.fault() or ""), "an operator who looks for bytes finds enough of them"


async def test_below_its_share_nothing_new_begins_and_what_runs_goes_on(tmp_path: Path):
    disk = Faked(tmp_path)
    disks = await disk.at(501)
    disks.admit()
    await disk.at(499)
    with pytest.raises(DiskShort, match=r"\(database, index\) has less than 5 % free") as short:
        disks.admit()
    assert short.value.retry_seconds == module.RETRY_SECONDS
    disks.admit_data()
    assert "no new transfer" in (await disks.fault() or "")
    assert (disk.stopped, disk.reserve.held) == ([], True)
    disks.percent = 4.0  # a setting that may change
    await disks.watch()
    disks.admit()


async def test_when_it_is_full_what_was_kept_is_given_up_and_taken_back_once_there_is_room(tmp_path: Path):
    disk = Faked(tmp_path)
    disks = await disk.at(6_000)
    for _ in range(2):
        await disk.at(15)
        assert disk.reserve.held is False
        assert disks.full, "what was given up is no room for data"
    assert disk.stopped == ["disk-full"], "once"
    for admit in (disks.admit, disks.admit_data):
        with pytest.raises(DiskShort):
            admit()
    assert "given up" in (await disks.fault() or "")
    await disk.at(100)
    disks.admit_data()
    assert not disk.reserve.held, "there is not enough for all yet"
    await disk.at(600)
    disks.admit()
    assert disk.reserve.held
    await disk.at(1)
    assert disk.stopped == ["disk-full"] * 2


async def test_what_could_not_be_stopped_on_a_full_disk_is_stopped_at_the_next_look(tmp_path: Path):
    disk, stop, errors = Faked(tmp_path), Faked.stop, [OSError("of a disk")]

    async def failing(one: Faked, code: str) -> None:
        if errors:
            raise errors.pop()
        await stop(one, code)

    disk.disks._stop = partial(failing, disk)
    await disk.at(100)
    with pytest.raises(OSError, match="of a disk"):
        await disk.at(1)
    for _ in range(2):
        await disk.at(1)
    assert disk.stopped == ["disk-full"]


async def test_a_disk_that_cannot_be_looked_at_is_a_fault_and_stops_nobody(tmp_path: Path):
    disk = Faked(tmp_path)
    disk.gone = True
    disks = await disk.at(6_000)
    disks.admit()
    assert await disks.fault() == "the disk of index cannot be looked at"


async def test_whoever_asks_for_no_share_is_admitted_while_there_is_a_byte(tmp_path: Path):
    disk = Faked(tmp_path, percent=0.0)
    (await disk.at(0.1)).admit()


async def test_it_is_looked_at_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "EVERY_SECONDS", 0.001)
    disk, seen = Faked(tmp_path), asyncio.Event()
    loop, looks = asyncio.get_running_loop(), 0

    def watched(folder: Path) -> Space:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise RuntimeError("a defect")
        if looks > 8:
            loop.call_soon_threadsafe(seen.set)
        return disk.look(folder)

    disks = Disks({"database": tmp_path}, 5.0, None, disk.stop, look=watched)
    await disks.start()
    async with asyncio.timeout(20):
        await seen.wait()
    await disks.close()


async def test_what_does_not_fit_is_not_kept_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    def no_room(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    disk = Faked(tmp_path)
    await disk.at(6_000)
    assert not (tmp_path / "q.reserve").exists()
    assert "nothing kept" in capfd.readouterr().err


# ---- whole connectors


def short(at: pair.Running, free: float) -> None:
    """Let the disks of a connector have so much free, of 100."""
    at.connector.disks._look = lambda _folder: Space(int(free * 1_000 * MB), 100_000 * MB)


async def metrics(at: pair.Running) -> str:
    async with at.http.get(f"{at.connector.settings.ops.url}/metrics") as answer:
        return (await answer.read()).decode()


async def ready(at: pair.Running) -> tuple[int, dict[str, str]]:
    async with at.http.get(f"{at.connector.settings.ops.url}/readyz") as answer:
        return answer.status, orjson.loads(await answer.read())["faults"]


async def test_new_transfers_wait_and_one_that_runs_is_drained(tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        await both.provider.publish(DATASET, pair.OPEN, content=CONTENT)
        order = await pulled(both.consumer, "hospital", DATASET)
        assert order["stage"] == "done"
        before = await both.consumer.connector.store.process(Kind.TRANSFER, order["transfer"])
        assert before is not None
        await fact(both.consumer, before.pid, *SAID)
        short(both.provider, 4.0)
        await both.provider.connector.disks.watch()
        status, faults = await ready(both.provider)
        assert (status, [*faults]) == (503, ["disk"])
        assert 'qiao_disk_free_bytes{purpose="database"} 4e+09' in await metrics(both.provider)
        refused, heard = await refusals(both.consumer)
        waiting = asyncio.create_task(pulled(both.consumer, "hospital", DATASET, "again"))
        async with asyncio.timeout(pair.WAIT_SECONDS):
            await heard.wait()
        assert refused[0] == 503
        short(both.provider, 50.0)
        await both.provider.connector.disks.watch()
        assert (await waiting)["stage"] == "done"
        assert (await ready(both.provider))[0] == 200


async def refusals(at: pair.Running) -> tuple[list[int], asyncio.Event]:
    """The statuses with which transfer requests of ours are refused, from now on."""
    found, heard = list[int](), asyncio.Event()
    peer: Any = at.connector.book.witnesses._peer
    send: Callable[..., Awaitable[Any]] = peer.send

    async def watched(method: str, url: str, **options: Any) -> Any:
        reply = await send(method, url, **options)
        if url.endswith("/transfers/request") and reply.status >= 400:
            found.append(reply.status)
            heard.set()
        return reply

    peer.send = watched
    return found, heard


async def test_a_transfer_that_was_started_and_not_begun_is_refused_with_its_own_code(tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        await both.provider.publish(DATASET, pair.OPEN, content=CONTENT)
        order = await pulled(both.consumer, "hospital", DATASET)
        body = {"agreement": order["agreement"], "format": "HttpData-PULL"}
        begun = await both.consumer.asked("POST", "/transfers", body, status=201)
        await both.consumer.state(Kind.TRANSFER, begun["pid"], "STARTED")
        edr = await both.consumer.connector.store.edr(begun["pid"])
        assert edr is not None
        short(both.provider, 4.0)
        await both.provider.connector.disks.watch()
        headers = {"Authorization": f"Bearer {edr.access_token}"}
        async with aiohttp.request("GET", edr.address["endpoint"], headers=headers) as answer:
            said = orjson.loads(await answer.read())
            assert (answer.status, said["type"], answer.headers["Retry-After"]) == (503, "urn:qiao:problem:disk-short", "60")
            assert "4" not in said["detail"], "how much is free is nobody's"
        short(both.provider, 50.0)
        await both.provider.connector.disks.watch()
        async with aiohttp.request("GET", edr.address["endpoint"], headers=headers) as answer:
            assert (answer.status, await answer.read()) == (200, CONTENT)
        short(both.provider, 4.0)
        await both.provider.connector.disks.watch()
        async with aiohttp.request("GET", edr.address["endpoint"], headers=headers) as answer:
            assert (answer.status, await answer.read()) == (200, CONTENT), "it runs, and is drained"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 MiB."""
    at = tmp_path / "disk"
    at.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(at)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip() or 'not root'}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def fill(at: Path, leave_bytes: int) -> None:
    """Let a disk have only so much free; with 0 until nothing more goes on it."""
    with (at / "ballast").open("ab", buffering=0) as file:
        size = os.statvfs(at)
        for piece in (1 << 20, 4096, 1):
            while os.statvfs(at).f_bavail * size.f_frsize - leave_bytes >= (piece if leave_bytes else 1):
                try:
                    file.write(bytes(piece))
                except OSError:
                    break


async def test_on_a_disk_that_runs_full_a_transfer_is_still_ended_and_on_record(small_disk: Path):
    async with pair.pair(small_disk, store="sqlite") as both:
        await both.provider.publish(DATASET, pair.OPEN, content=CONTENT)
        order = await pulled(both.consumer, "hospital", DATASET)
        body = {"agreement": order["agreement"], "format": "HttpData-PULL"}
        begun = await both.consumer.asked("POST", "/transfers", body, status=201)
        started = await both.consumer.state(Kind.TRANSFER, begun["pid"], "STARTED")
        fill(small_disk, 2 << 20)
        assert look(small_disk).free_bytes < 4 << 20
        await both.provider.connector.disks.watch()
        assert both.provider.connector.disks.full
        assert look(small_disk).free_bytes > 20 << 20, "what was kept is there to be used"
        status, faults = await ready(both.provider)
        assert (status, "given up" in faults["disk"]) == (503, True)
        pid = started.peer_pid or ""
        await both.provider.asked("POST", f"/transfers/{pair.quoted(pid)}/terminate", {"reason": "the disk is full"})
        await both.provider.state(Kind.TRANSFER, pid, "TERMINATED")
        await both.consumer.state(Kind.TRANSFER, begun["pid"], "TERMINATED")
        last = (await both.provider.evidence(pid))[-1]
        assert (await both.provider.connector.book.index_of(last.sequence)).index > 0
        (small_disk / "ballast").unlink()
        await both.provider.connector.disks.watch()
        assert (await ready(both.provider))[0] == 200


async def test_a_connector_starts_on_a_disk_that_is_full_to_the_last_byte(small_disk: Path):
    at = pair.site(small_disk / "hospital", "hospital", store="sqlite")
    async with pair.running(at) as running:
        await running.publish(DATASET, pair.OPEN, content=CONTENT)
    kept = Reserve(at.root / "connector.db.reserve")
    kept.take()  # as a process that was killed leaves it
    fill(small_disk, 0)
    assert look(small_disk).free_bytes == 0
    async with pair.running(at) as again:
        assert look(small_disk).free_bytes > 20 << 20
        status, faults = await ready(again)
        assert (status, [*faults]) == (503, ["disk"])
        await again.asked("DELETE", f"/datasets/{pair.quoted(DATASET)}", status=204)
