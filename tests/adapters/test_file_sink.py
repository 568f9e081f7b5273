"""Files as the end of downloads: whole or not there, one writer, nothing outside, whatever the disk and the process do."""

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.adapters.file_sink import FileSinks
from connector.errors import Contradiction, InvalidRequest, SinkFailed
from connector.ports import Sink
from tests.dataplane.rig import some_bytes

ROOT = Path(__file__).parents[2]
CONTENT = some_bytes(300_000)
HALF = len(CONTENT) // 2
SECRET = b"what others keep here\n"

pytestmark = pytest.mark.asyncio


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The allowed directory, with another beside it."""
    for each in ("out/wards", "secret"):
        (tmp_path / each).mkdir(parents=True)
    (tmp_path / "secret/key").write_bytes(SECRET)
    return tmp_path / "out"


async def write(sink: Sink, content: bytes = CONTENT) -> None:
    await sink.append([content[at : at + 70_000] for at in range(0, len(content), 70_000)])


async def download(sinks: FileSinks, name: str, content: bytes = CONTENT, *, overwrite: bool = False) -> None:
    """A whole one."""
    sink = await sinks.open(name, overwrite=overwrite)
    try:
        await sink.restart()
        await write(sink, content)
        await sink.commit()
    finally:
        await sink.close()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if not path.is_dir())


async def test_a_file_takes_its_name_when_it_is_whole_and_not_before(out: Path):
    sink = await FileSinks([out]).open("wards/a.bin", overwrite=False)
    await sink.reserve(len(CONTENT))
    for end in (HALF, len(CONTENT)):
        await write(sink, CONTENT[sink.size_bytes : end])
        assert (sink.size_bytes, sink.digest()) == (end, hashlib.sha256(CONTENT[:end]).digest())
        assert names(out) == ["a.bin.part"]
    await sink.commit()
    assert names(out) == ["a.bin"]
    assert (out / "wards/a.bin").read_bytes() == CONTENT
    await sink.close()
    assert names(out) == ["a.bin"]


async def test_only_its_owner_can_read_what_was_downloaded(out: Path):
    await download(FileSinks([out]), "a.bin")
    assert (out / "a.bin").stat().st_mode & 0o777 == 0o600


async def test_a_part_is_taken_up_where_it_ended(out: Path):
    sinks = FileSinks([out])
    sink = await sinks.open("a.bin", overwrite=False)
    await write(sink, CONTENT[:HALF])
    await sink.close()
    again = await sinks.open("a.bin", overwrite=False)
    assert await again.resume() == again.size_bytes == HALF
    assert again.digest() == hashlib.sha256(CONTENT[:HALF]).digest()
    await write(again, CONTENT[HALF:])
    await again.commit()
    await again.close()
    assert await sinks.existing("a.bin") == (len(CONTENT), hashlib.sha256(CONTENT).digest())


async def test_starting_again_leaves_nothing_of_the_longer_part_before(out: Path):
    sinks = FileSinks([out])
    sink = await sinks.open("a.bin", overwrite=False)
    await write(sink)
    await sink.restart()
    assert (sink.size_bytes, sink.digest()) == (0, hashlib.sha256().digest())
    await write(sink, b"short")
    await sink.commit()
    await sink.close()
    assert (out / "a.bin").read_bytes() == b"short"


async def test_what_is_discarded_stands_under_neither_name(out: Path):
    sink = await FileSinks([out]).open("a.bin", overwrite=False)
    await write(sink)
    await sink.discard()
    await sink.discard()
    await sink.close()
    assert names(out) == []


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(["close", "restart"])), max_size=12))
async def test_size_and_digest_always_say_what_the_part_holds(steps: list[bytes | str]):
    """Over any way of pieces, new beginnings and interruptions."""
    with tempfile.TemporaryDirectory() as directory:
        sinks, expected = FileSinks([Path(directory)]), b""
        sink = await sinks.open("a", overwrite=False)
        for step in steps:
            if step == "close":
                await sink.close()
                sink = await sinks.open("a", overwrite=False)
                assert await sink.resume() == len(expected)
            elif isinstance(step, str):
                await sink.restart()
                expected = b""
            else:
                await sink.append([step[:7], step[7:]])
                expected += step
            assert (sink.size_bytes, sink.digest()) == (len(expected), hashlib.sha256(expected).digest())
            assert (Path(directory) / "a.part").read_bytes() == expected
        await sink.commit()
        await sink.close()
        assert (Path(directory) / "a").read_bytes() == expected


async def test_a_file_that_is_there_is_kept_unless_it_may_be_overwritten(out: Path):
    sinks = FileSinks([out])
    await download(sinks, "a.bin", b"first")
    with pytest.raises(Contradiction, match=r"`a\.bin` exists already; remove it or name another file"):
        sinks.check("a.bin", overwrite=False)
    with pytest.raises(Contradiction, match="exists already"):
        await sinks.open("a.bin", overwrite=False)
    assert (out / "a.bin").read_bytes() == b"first"
    os.link(out / "a.bin", out.parent / "secret/twin")  # another name of the old file
    await download(sinks, "a.bin", b"second", overwrite=True)
    assert (out / "a.bin").read_bytes() == b"second"
    assert (out.parent / "secret/twin").read_bytes() == b"first"
    assert names(out) == ["a.bin"]


async def test_a_file_that_came_meanwhile_is_not_replaced(out: Path):
    sink = await FileSinks([out]).open("a.bin", overwrite=False)
    await write(sink)
    (out / "a.bin").write_bytes(b"somebody else's")
    with pytest.raises(Contradiction, match="the part is kept"):
        await sink.commit()
    await sink.close()
    assert (out / "a.bin").read_bytes() == b"somebody else's"
    assert (out / "a.bin.part").read_bytes() == CONTENT


async def test_two_downloads_never_write_to_the_same_part(out: Path):
    sinks, others = FileSinks([out]), FileSinks([out.parent])
    sink = await sinks.open("a.bin", overwrite=False)
    await write(sink, CONTENT[:HALF])
    for other, name in ((sinks, "a.bin"), (sinks, f"{out}/a.bin"), (others, "out/a.bin")):
        with pytest.raises(SinkFailed, match=r"another download is writing to `.*a\.bin`; wait for it or name another file"):
            await other.open(name, overwrite=True)
    await write(sink, CONTENT[HALF:])
    await sink.commit()
    await sink.close()
    assert (out / "a.bin").read_bytes() == CONTENT


async def test_of_many_who_want_one_name_one_has_it_and_it_is_whole(out: Path):
    sinks = FileSinks([out])
    bodies = [some_bytes(50_000 + n, n) for n in range(20)]
    done = await asyncio.gather(*(download(sinks, "a.bin", body) for body in bodies), return_exceptions=True)
    assert done.count(None) == 1
    assert all(error is None or isinstance(error, SinkFailed | Contradiction) for error in done)
    assert (out / "a.bin").read_bytes() == bodies[done.index(None)]
    assert names(out) == ["a.bin"]


async def test_a_part_that_became_a_file_before_it_was_locked_is_not_written_to(out: Path, monkeypatch: pytest.MonkeyPatch):
    """Another process gives a part its name between our opening and our locking it: what we hold then is a finished file."""
    part, lock = out / "a.bin.part", fcntl.flock

    def late_lock(descriptor: int, how: int) -> None:
        part.rename(out / "a.bin")
        lock(descriptor, how)

    part.write_bytes(CONTENT)
    monkeypatch.setattr(fcntl, "flock", late_lock)
    with pytest.raises(SinkFailed, match="another download"):
        await FileSinks([out]).open("a.bin", overwrite=False)
    assert (out / "a.bin").read_bytes() == CONTENT


async def test_whoever_asks_for_the_name_in_the_middle_of_a_commit_does_not_disturb_it(out: Path, monkeypatch: pytest.MonkeyPatch):
    sinks, link, told = FileSinks([out]), os.link, []

    def link_and_be_asked(*arguments: Any, **options: Any) -> None:
        link(*arguments, **options)
        with pytest.raises(Contradiction) as caught:
            sinks.check("a.bin", overwrite=False)
        told.append(caught.value.message)

    monkeypatch.setattr(os, "link", link_and_be_asked)
    await download(sinks, "a.bin")
    assert told == ["`a.bin` exists already; remove it or name another file"]
    assert names(out) == ["a.bin"]
    assert (out / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("replacement", [None, b"forged"])
async def test_only_the_part_that_was_written_and_hashed_gets_the_name(out: Path, replacement: bytes | None):
    for overwrite in (False, True):
        sink = await FileSinks([out]).open("a.bin", overwrite=overwrite)
        await write(sink)
        (out / "a.bin.part").unlink()
        if replacement is not None:
            (out / "a.bin.part").write_bytes(replacement)
        with pytest.raises(SinkFailed, match=r"`a\.bin\.part` was removed or replaced while it was written; ask again"):
            await sink.commit()
        await sink.close()
        assert not (out / "a.bin").exists()


PATHS = [
    *[
        "",
        ".",
        "/",
        "wards",
        "wards/",
        "x/",
        "x/.",
        "..",
        "../secret/new",
        "wards/../../secret/new",
        "ROOT/secret/new",
        "ROOT/out/../secret/new",
    ],
    *["/etc/qiao-test", "/proc/self/fd/1", "/run/qiao-test", "ROOT/output/x", "none/x", "wards/none/x", "x\0", "x\ny", "\ud800"],
    *["n" * 256, "n" * 252, "link/x", "wards/up/x", "away", "dangling", "fifo", "socket", "proc/self/comm", "~/x/y"],
]


WITH_SUFFIX = "n" * 252  # too long for a part


@pytest.mark.parametrize("overwrite", [False, True])
async def test_no_spelling_and_no_link_leads_out_of_the_directory(out: Path, overwrite: bool):
    for link, target in (
        ("link", "../secret"),
        ("wards/up", "../.."),
        ("away", "../secret/key"),
        ("dangling", "../secret/new"),
        ("proc", "/proc"),
    ):
        (out / link).symlink_to(target)
    (out.parent / "output").mkdir()
    os.mkfifo(out / "fifo")
    before, descriptors = names(out.parent), sorted(os.listdir("/proc/self/fd"))
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(out / "socket"))
        async with asyncio.timeout(10):
            for path in PATHS:
                await refused(FileSinks([out]), path.replace("ROOT", str(out.parent)), overwrite)
    assert names(out.parent) == sorted([*before, "socket"])
    assert (out.parent / "secret/key").read_bytes() == SECRET
    assert sorted(os.listdir("/proc/self/fd")) == descriptors
    with pytest.raises(InvalidRequest, match="no directory is allowed"):
        FileSinks([]).check("a.bin", overwrite=overwrite)


async def refused(sinks: FileSinks, path: str, overwrite: bool) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await sinks.open(path, overwrite=overwrite)
    assert caught.value.pointer == "/out"
    if path != WITH_SUFFIX:
        with pytest.raises(InvalidRequest):
            sinks.check(path, overwrite=overwrite)


@pytest.mark.parametrize(
    "plant",
    [
        lambda part, secret: part.symlink_to(secret),
        lambda part, secret: part.symlink_to("../secret/new"),
        lambda part, secret: part.symlink_to("/dev/null"),
        lambda part, secret: part.symlink_to("/proc/self/mem"),
        lambda part, secret: os.link(secret, part),
        lambda part, secret: os.mkfifo(part),
        lambda part, secret: part.mkdir(),
    ],
    ids=["link", "dangling link", "link to a device", "link to memory", "hard link", "fifo", "directory"],
)
async def test_what_others_have_put_where_the_part_goes_is_not_written_to(out: Path, plant: Callable[[Path, Path], object]):
    plant(out / "a.bin.part", out.parent / "secret/key")
    async with asyncio.timeout(10):
        with pytest.raises((InvalidRequest, SinkFailed)) as caught:
            await FileSinks([out]).open("a.bin", overwrite=False)
    assert "`a.bin" in caught.value.message
    assert (out.parent / "secret/key").read_bytes() == SECRET
    assert names(out.parent / "secret") == ["key"]
    assert not (out / "a.bin").exists()


async def test_a_directory_that_becomes_a_link_meanwhile_leads_nowhere(out: Path):
    sinks, stop = FileSinks([out]), threading.Event()

    def turn() -> None:
        while not stop.is_set():
            (out / "wards").rename(out / "away")
            (out / "wards").symlink_to("../secret")
            stop.wait(0.0002)
            (out / "wards").unlink()
            (out / "away").rename(out / "wards")
            stop.wait(0.0002)

    turning = threading.Thread(target=turn)
    turning.start()
    written = refused = 0
    until = time.monotonic() + 10
    try:
        while (written < 20 or refused < 20) and time.monotonic() < until:
            try:
                await download(sinks, f"wards/{written}.bin", b"x")
                written += 1
            except InvalidRequest:
                refused += 1
    finally:
        stop.set()
        turning.join()
    assert min(written, refused) > 0
    assert names(out.parent / "secret") == ["key"]
    assert len(names(out)) == written


async def test_what_has_the_name_already_is_known_by_size_and_digest(out: Path):
    sinks = FileSinks([out])
    assert await sinks.existing("a.bin") is None
    (out / "a.bin").write_bytes(CONTENT)
    assert await sinks.existing("a.bin") == (len(CONTENT), hashlib.sha256(CONTENT).digest())
    (out / "away").symlink_to("../secret/key")
    os.mkfifo(out / "fifo")
    for path in ("away", "fifo", "wards", "../secret/key", "/etc/passwd", "none/x"):
        with pytest.raises(InvalidRequest):
            await sinks.existing(path)


async def test_a_cancelled_download_leaves_its_part_to_the_next(out: Path):
    sinks = FileSinks([out])
    sink = await sinks.open("a.bin", overwrite=False)
    writing = asyncio.create_task(sink.append([bytes(1 << 20)] * 64))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    size, digest = sink.size_bytes, sink.digest()
    assert (out / "a.bin.part").stat().st_size == size  # nobody writes any more
    await sink.close()
    again = await sinks.open("a.bin", overwrite=False)
    assert (await again.resume(), again.digest()) == (size, digest)
    await again.close()


async def test_what_was_closed_refuses_and_writes_into_nobody_elses_file(out: Path):
    sink = await FileSinks([out]).open("a.bin", overwrite=False)
    await sink.close()
    await sink.close()
    with (out / "other").open("wb"):  # takes the number of the descriptor that was closed
        for attempt in (sink.append([b"x"]), sink.restart(), sink.resume(), sink.reserve(1)):
            with pytest.raises(SinkFailed, match=r"a\.bin"):
                await attempt
    assert (out / "other").read_bytes() == b""


async def test_what_plainly_does_not_fit_is_refused_before_it_is_fetched(out: Path):
    sink = await FileSinks([out]).open("a.bin", overwrite=False)
    with pytest.raises(SinkFailed, match=r"there is no space for `a\.bin`: \d+ bytes to come, \d+ free; the part is kept"):
        await sink.reserve(1 << 60)
    await sink.reserve(0)
    await sink.close()


async def child(*arguments: object, content: bytes = CONTENT, before: tuple[str, ...] = ()) -> tuple[int | None, str]:
    """Run `sink_child` as a process; returns its exit code and what it printed."""
    command = (*before, sys.executable, "-m", "tests.adapters.sink_child", *map(str, arguments))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe)
    printed, _ = await process.communicate(content)
    return process.returncode, printed.decode()


@pytest.mark.parametrize("overwrite", [False, True])
async def test_a_kill_at_any_step_of_a_commit_leaves_the_whole_file_or_none(tmp_path: Path, overwrite: bool):
    def prepared(name: str) -> Path:
        (tmp_path / name).mkdir()
        if overwrite:
            (tmp_path / name / "a.bin").write_bytes(b"the one before")
        return tmp_path / name

    code, printed = await child("kill", prepared("unharmed"), overwrite, 0, False)
    steps = printed.split()
    assert code == 0
    assert steps[0] == "fsync"  # the bytes are on the disk before the name is
    assert steps[-1] == "fsync"  # and then the name
    assert {"link", "replace"} & set(steps)
    places = {(n, after): prepared(f"{n}-{after}") for n in range(1, len(steps) + 1) for after in (False, True)}
    for (n, after), place in places.items():
        code, printed = await child("kill", place, overwrite, n, after)
        assert (code, printed.split()) == (-signal.SIGKILL, steps[:n])
        named = (place / "a.bin").read_bytes() if (place / "a.bin").exists() else None
        took = any(step in ("link", "replace") for step in steps[: n if after else n - 1])
        assert named == (CONTENT if took else b"the one before" if overwrite else None)
        sinks = FileSinks([place])
        if took and not overwrite:
            with pytest.raises(Contradiction):
                await sinks.open("a.bin", overwrite=False)
        else:
            await download(sinks, "a.bin", CONTENT, overwrite=overwrite)
        assert names(place) == ["a.bin"]  # no second name is left of it
        assert (place / "a.bin").read_bytes() == CONTENT


async def test_a_full_disk_fails_keeps_the_part_and_goes_on_when_there_is_room(out: Path):
    content = CONTENT[:200_000]
    mount = ("sh", "-c", f"mount -t tmpfs -o size=256k tmpfs '{out}' && exec \"$@\"", "sh")
    for space in (("unshare", "-m"), ("unshare", "-r", "-m")):
        if shutil.which("unshare") and (await child("nothing", out, before=(*space, *mount)))[0] == 0:
            break
    else:
        pytest.skip("this system lets nobody here mount a small disk")
    code, printed = await child("fill", out, content=content, before=(*space, *mount))
    assert code == 0
    told = json.loads(printed)
    assert told["reserve"] == ["SinkFailed", told["reserve"][1]]
    assert "there is no space for `a.bin`: 200000 bytes to come" in told["reserve"][1]
    said = "the disk is full: `a.bin` cannot be written; the part is kept, free some space and ask again"
    assert told["append"] == ["SinkFailed", said]
    size, counted, held = told["kept"]
    assert 0 < size < len(content)
    assert counted == held == hashlib.sha256(content[:size]).hexdigest()
    assert not told["named"]
    assert told["end"] == hashlib.sha256(content).hexdigest()
