"""Files as the end of downloads: whole or not there, one writer, nothing outside, whatever the disk and the process do."""

import asyncio
import errno
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
from connector.ports.sinks import Sink
from tests.contracts.sink_contract import Shelf, SinkContract
from tests.dataplane.rig import some_bytes

ROOT = Path(__file__).parents[2]
CONTENT = some_bytes(300_000)
HALF = len(CONTENT) // 2
SECRET = b"what others keep here\n"
ID = "urn:uuid:01"
PART = "a.bin.01.part"

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


async def download(sinks: FileSinks, name: str, content: bytes = CONTENT, *, part: str = ID, overwrite: bool = False) -> None:
    """A whole one."""
    sink = await sinks.open(name, part, overwrite=overwrite)
    try:
        await sink.restart()
        await write(sink, content)
        await sink.commit()
    finally:
        await sink.close()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if not path.is_dir())


class Directory(Shelf):
    """A directory of files."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.sinks = directory, FileSinks([directory])

    def under(self, name: str) -> bytes | None:
        path = self.directory / name
        return path.read_bytes() if path.exists() else None

    def put(self, name: str, content: bytes) -> None:
        (self.directory / name).write_bytes(content)

    def parts(self) -> int:
        return len(list(self.directory.glob("*.part")))


class TestContract(SinkContract):
    @pytest.fixture
    def shelf(self, out: Path) -> Directory:
        return Directory(out)


async def test_a_file_takes_its_name_when_it_is_whole_and_not_before(out: Path):
    sink = await FileSinks([out]).open("wards/a.bin", ID, overwrite=False)
    await sink.reserve(len(CONTENT))
    for end in (HALF, len(CONTENT)):
        await write(sink, CONTENT[sink.size_bytes : end])
        assert (sink.size_bytes, sink.digest()) == (end, hashlib.sha256(CONTENT[:end]).digest())
        assert names(out) == [PART]
    await sink.commit()
    assert names(out) == ["a.bin"]
    assert (out / "wards/a.bin").read_bytes() == CONTENT
    await sink.close()
    assert names(out) == ["a.bin"]


async def test_only_its_owner_can_read_what_was_downloaded(out: Path):
    await download(FileSinks([out]), "a.bin")
    assert (out / "a.bin").stat().st_mode & 0o777 == 0o600


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(["close", "restart"])), max_size=12))
async def test_size_and_digest_always_say_what_the_part_holds(steps: list[bytes | str]):
    """Over any way of pieces, new beginnings and interruptions."""
    with tempfile.TemporaryDirectory() as directory:
        sinks, expected = FileSinks([Path(directory)]), b""
        sink = await sinks.open("a", ID, overwrite=False)
        for step in steps:
            if step == "close":
                await sink.close()
                sink = await sinks.open("a", ID, overwrite=False)
                assert await sink.resume() == len(expected)
            elif isinstance(step, str):
                await sink.restart()
                expected = b""
            else:
                await sink.append([step[:7], step[7:]])
                expected += step
            assert (sink.size_bytes, sink.digest()) == (len(expected), hashlib.sha256(expected).digest())
            assert (Path(directory) / "a.01.part").read_bytes() == expected
        await sink.commit()
        await sink.close()
        assert (Path(directory) / "a").read_bytes() == expected


async def test_a_file_that_is_there_is_kept_unless_it_may_be_overwritten(out: Path):
    sinks = FileSinks([out])
    await download(sinks, "a.bin", b"first")
    with pytest.raises(Contradiction, match=r"`a\.bin` exists already; remove it or name another file"):
        await sinks.check("a.bin", ID, overwrite=False)
    with pytest.raises(Contradiction, match="exists already"):
        await sinks.open("a.bin", ID, overwrite=False)
    assert (out / "a.bin").read_bytes() == b"first"
    os.link(out / "a.bin", out.parent / "secret/twin")  # another name of the old file
    await download(sinks, "a.bin", b"second", overwrite=True)
    assert (out / "a.bin").read_bytes() == b"second"
    assert (out.parent / "secret/twin").read_bytes() == b"first"
    assert names(out) == ["a.bin"]


async def test_a_file_that_came_meanwhile_is_not_replaced(out: Path):
    sink = await FileSinks([out]).open("a.bin", ID, overwrite=False)
    await write(sink)
    (out / "a.bin").write_bytes(b"somebody else's")
    with pytest.raises(Contradiction, match="the part is kept"):
        await sink.commit()
    await sink.close()
    assert (out / "a.bin").read_bytes() == b"somebody else's"
    assert (out / PART).read_bytes() == CONTENT


async def test_two_downloads_never_write_to_the_same_part_and_one_place_takes_one_download(out: Path):
    sinks, others = FileSinks([out]), FileSinks([out.parent])
    sink = await sinks.open("a.bin", ID, overwrite=False)
    await write(sink, CONTENT[:HALF])
    busy = r"another download is writing to `.*a\.bin`; wait for it or name another file"
    for other, name, id in ((sinks, "a.bin", "another"), (sinks, f"{out}/a.bin", ID), (others, "out/a.bin", ID)):
        with pytest.raises(SinkFailed, match=busy):
            await other.open(name, id, overwrite=True)
    with pytest.raises(SinkFailed, match=busy):
        await sinks.check("a.bin", "another", overwrite=False)
    assert names(out) == [PART]
    await write(sink, CONTENT[HALF:])
    await sink.commit()
    for _ in range(2):
        await sink.close()
    assert (out / "a.bin").read_bytes() == CONTENT


async def test_a_place_is_free_again_once_its_download_has_let_go_and_stays_its_next_ones(out: Path):
    sinks = FileSinks([out])
    first = await sinks.open("a.bin", ID, overwrite=False)
    await first.close()
    second = await sinks.open("a.bin", "another", overwrite=False)
    await first.close()
    with pytest.raises(SinkFailed, match="another download"):
        await sinks.open("a.bin", ID, overwrite=False)
    await second.close()


async def test_each_order_has_a_part_of_its_own_and_the_first_that_is_whole_has_the_name(out: Path):
    """Also where two connectors write into one directory: each knows only its own downloads."""
    bodies = {"urn:uuid:01": CONTENT, "urn:uuid:02": CONTENT[:HALF]}
    sinks = {id: await FileSinks([out]).open("a.bin", id, overwrite=False) for id in bodies}
    for id, body in bodies.items():
        await write(sinks[id], body)
    assert names(out) == ["a.bin.01.part", "a.bin.02.part"]
    await sinks["urn:uuid:02"].commit()
    with pytest.raises(Contradiction, match="came into being meanwhile; the part is kept"):
        await sinks["urn:uuid:01"].commit()
    for sink in sinks.values():
        await sink.close()
    assert (out / "a.bin").read_bytes() == CONTENT[:HALF]
    assert (out / "a.bin.01.part").read_bytes() == CONTENT


async def test_a_foreign_file_that_looks_like_a_part_is_left_as_it_is(out: Path):
    foreign = [out / name for name in ("a.bin.part", "a.bin.02.part", "a.bin.01.part.part", "a.part")]
    for path in foreign:
        path.write_bytes(SECRET)
    sinks = FileSinks([out])
    sink = await sinks.open("a.bin", ID, overwrite=False)
    await sink.restart()
    await write(sink)
    await sink.discard()
    await sink.close()
    await download(sinks, "a.bin")
    assert [path.read_bytes() for path in foreign] == [SECRET] * 4
    assert (out / "a.bin").read_bytes() == CONTENT


async def test_what_stands_where_the_part_was_is_not_removed_with_it(out: Path):
    sink = await FileSinks([out]).open("a.bin", ID, overwrite=False)
    await write(sink)
    (out / PART).unlink()
    (out / PART).write_bytes(SECRET)
    await sink.discard()
    await sink.close()
    assert (out / PART).read_bytes() == SECRET


@given(st.text(max_size=30), st.text(min_size=1, max_size=80))
async def test_whatever_an_id_holds_its_part_stands_beside_the_file(start: str, id: str):
    with tempfile.TemporaryDirectory() as directory:
        sink = await FileSinks([Path(directory)]).open("a", f"{start}/../{id}", overwrite=False)
        (name,) = os.listdir(directory)
        assert name.startswith("a.")
        assert name.endswith(".part")
        await sink.discard()
        await sink.close()


async def test_a_second_name_that_a_crash_has_left_is_gone_once_the_file_was_looked_at(out: Path):
    sinks = FileSinks([out])
    (out / "a.bin").write_bytes(CONTENT)
    os.link(out / "a.bin", out / PART)
    os.link(out / "a.bin", out / "a.bin.02.part")  # not this order's
    assert await sinks.existing("a.bin", ID) == (len(CONTENT), hashlib.sha256(CONTENT).digest())
    assert names(out) == ["a.bin", "a.bin.02.part"]
    (out / PART).write_bytes(SECRET)  # no second name, but a file of its own
    await sinks.existing("a.bin", ID)
    assert (out / PART).read_bytes() == SECRET


@pytest.mark.parametrize("name", ["keys/new.key", "keys/below/x", "keys", "connector.db", "connector.db-wal"])
async def test_nothing_that_a_peer_sends_stands_among_what_is_our_own(out: Path, name: str):
    (out / "keys" / "below").mkdir(parents=True)
    sinks = FileSinks([out], ours=[out / "keys", out / "connector.db"])
    for refused in (sinks.check(name, "id", overwrite=True), sinks.open(name, "id", overwrite=True), sinks.existing(name, "id")):
        with pytest.raises(InvalidRequest) as caught:
            await refused
        assert caught.value.pointer == "/out"
    assert (names(out), names(out / "keys")) == ([], [])


@pytest.mark.parametrize("name", ["keys.csv", "my-connector.db", "other/connector.db"])
async def test_what_is_only_called_like_it_is_taken(out: Path, name: str):
    for folder in ("keys", "other"):
        (out / folder).mkdir()
    await FileSinks([out], ours=[out / "keys", out / "connector.db"]).check(name, "id", overwrite=False)


async def test_of_many_who_want_one_name_one_has_it_and_it_is_whole(out: Path):
    sinks = FileSinks([out])
    bodies = [some_bytes(50_000 + n, n) for n in range(20)]
    done = await asyncio.gather(*(download(sinks, "a.bin", body, part=str(n)) for n, body in enumerate(bodies)), return_exceptions=True)
    assert done.count(None) == 1
    assert all(error is None or isinstance(error, SinkFailed | Contradiction) for error in done)
    assert (out / "a.bin").read_bytes() == bodies[done.index(None)]
    assert names(out) == ["a.bin"]


async def test_a_part_that_became_a_file_before_it_was_locked_is_not_written_to(out: Path, monkeypatch: pytest.MonkeyPatch):
    """Another process gives a part its name between our opening and our locking it: what we hold then is a finished file."""
    part, lock = out / PART, fcntl.flock

    def late_lock(descriptor: int, how: int) -> None:
        part.rename(out / "a.bin")
        lock(descriptor, how)

    part.write_bytes(CONTENT)
    monkeypatch.setattr(fcntl, "flock", late_lock)
    with pytest.raises(SinkFailed, match="another download"):
        await FileSinks([out]).open("a.bin", ID, overwrite=False)
    assert (out / "a.bin").read_bytes() == CONTENT


async def test_whoever_asks_for_the_name_in_the_middle_of_a_commit_does_not_disturb_it(out: Path, monkeypatch: pytest.MonkeyPatch):
    sinks, link, told = FileSinks([out]), os.link, []

    def link_and_be_asked(*arguments: Any, **options: Any) -> None:
        link(*arguments, **options)
        with pytest.raises(Contradiction) as caught:
            sinks.check("a.bin", ID, overwrite=False).send(None)  # in the middle of a step, where nobody can wait
        told.append(caught.value.message)

    monkeypatch.setattr(os, "link", link_and_be_asked)
    await download(sinks, "a.bin")
    assert told == ["`a.bin` exists already; remove it or name another file"]
    assert names(out) == ["a.bin"]
    assert (out / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("replacement", [None, b"forged"])
async def test_only_the_part_that_was_written_and_hashed_gets_the_name(out: Path, replacement: bytes | None):
    for overwrite in (False, True):
        sink = await FileSinks([out]).open("a.bin", ID, overwrite=overwrite)
        await write(sink)
        (out / PART).unlink()
        if replacement is not None:
            (out / PART).write_bytes(replacement)
        with pytest.raises(SinkFailed, match=r"`a\.bin\.01\.part` was removed or replaced while it was written; ask again"):
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
    *["n" * 256, "n" * 250, "link/x", "wards/up/x", "away", "dangling", "fifo", "socket", "proc/self/comm", "~/x/y"],
]


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
    with pytest.raises(InvalidRequest, match=r"no directory is allowed here; name one in `pulls\.roots`"):
        await FileSinks([]).check("a.bin", ID, overwrite=overwrite)


async def refused(sinks: FileSinks, path: str, overwrite: bool) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await sinks.open(path, ID, overwrite=overwrite)
    assert caught.value.pointer == "/out"
    with pytest.raises(InvalidRequest):
        await sinks.check(path, ID, overwrite=overwrite)


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
    plant(out / PART, out.parent / "secret/key")
    async with asyncio.timeout(10):
        with pytest.raises((InvalidRequest, SinkFailed)) as caught:
            await FileSinks([out]).open("a.bin", ID, overwrite=False)
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
    assert await sinks.existing("a.bin", ID) is None
    (out / "a.bin").write_bytes(CONTENT)
    assert await sinks.existing("a.bin", ID) == (len(CONTENT), hashlib.sha256(CONTENT).digest())
    (out / "away").symlink_to("../secret/key")
    os.mkfifo(out / "fifo")
    for path in ("away", "fifo", "wards", "../secret/key", "/etc/passwd", "none/x"):
        with pytest.raises(InvalidRequest):
            await sinks.existing(path, ID)


async def test_on_a_file_system_without_links_the_file_gets_its_name_all_the_same(out: Path, monkeypatch: pytest.MonkeyPatch):
    def none(*_names: Any, **_more: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "link", none)
    sink = await FileSinks([out]).open("a.bin", ID, overwrite=False)
    await sink.append([b"all of it"])
    await sink.commit()
    await sink.close()
    assert ((out / "a.bin").read_bytes(), (out / PART).exists()) == (b"all of it", False)


async def test_what_a_file_system_elsewhere_has_not_kept_is_said_when_it_is_closed_and_nothing_is_closed_twice(
    out: Path, monkeypatch: pytest.MonkeyPatch
):
    close, closed = os.close, list[int]()

    def full(descriptor: int) -> None:
        close(descriptor)
        closed.append(descriptor)
        if len(closed) == 1:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    sinks = FileSinks([out])
    sink = await sinks.open("a.bin", ID, overwrite=False)
    with monkeypatch.context() as patched:
        patched.setattr(os, "close", full)
        with pytest.raises(SinkFailed, match="the disk is full") as caught:
            await sink.close()
        await sink.close()
    assert caught.value.full
    assert len(closed) == len(set(closed)) == 2, "the part, and its directory"
    await (await sinks.open("a.bin", ID, overwrite=False)).close()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", range(1, 7))
async def test_on_a_file_system_without_links_a_crash_at_any_step_of_naming_leaves_what_the_next_attempt_goes_on_with(
    out: Path, monkeypatch: pytest.MonkeyPatch, at: int
):
    def none(*_names: Any, **_more: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    sinks, steps = FileSinks([out]), 0
    sink = await sinks.open("a.bin", ID, overwrite=False)
    await sink.append([CONTENT])

    def killed(step: Any) -> Any:
        def do(*args: Any, **more: Any) -> Any:
            nonlocal steps
            if (steps := steps + 1) >= at:
                raise Killed
            return step(*args, **more)

        return do

    monkeypatch.setattr(os, "link", none)
    with monkeypatch.context() as patched:
        for name in ("open", "replace", "unlink", "fsync"):
            patched.setattr(os, name, killed(getattr(os, name)))
        with pytest.raises(Killed):
            await sink.commit()
    await sink.close()
    found = await sinks.existing("a.bin", ID)
    if found is None:  # it goes on with the part
        sink = await sinks.open("a.bin", ID, overwrite=False)
        assert await sink.resume() == len(CONTENT)
        await sink.commit()
        await sink.close()
    assert ((out / "a.bin").read_bytes(), names(out)) == (CONTENT, ["a.bin"])


async def test_an_empty_file_that_comes_after_a_crash_before_the_name_was_taken_is_somebody_elses(out: Path):
    sinks = FileSinks([out])
    (out / PART).with_suffix(".name").touch()  # and there it crashed
    await (await sinks.open("a.bin", ID, overwrite=False)).close()
    (out / "a.bin").touch()
    with pytest.raises(Contradiction):
        await sinks.open("a.bin", ID, overwrite=False)
    assert names(out) == ["a.bin", PART]


async def test_a_file_system_elsewhere_that_has_lost_a_part_is_a_failure_of_the_sink(out: Path, monkeypatch: pytest.MonkeyPatch):
    def stale(_descriptor: int) -> os.stat_result:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    sink = await FileSinks([out]).open("a.bin", ID, overwrite=False)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(os, "fstat", stale)
        with pytest.raises(SinkFailed, match="cannot be written: Stale file handle"):
            _ = sink.size_bytes
    await sink.close()


async def test_a_cancelled_download_leaves_its_part_to_the_next(out: Path):
    sinks = FileSinks([out])
    sink = await sinks.open("a.bin", ID, overwrite=False)
    writing = asyncio.create_task(sink.append([bytes(1 << 20)] * 64))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    size, digest = sink.size_bytes, sink.digest()
    assert (out / PART).stat().st_size == size  # nobody writes any more
    await sink.close()
    again = await sinks.open("a.bin", ID, overwrite=False)
    assert (await again.resume(), again.digest()) == (size, digest)
    await again.close()


async def test_what_was_closed_refuses_and_writes_into_nobody_elses_file(out: Path):
    sink = await FileSinks([out]).open("a.bin", ID, overwrite=False)
    await sink.close()
    await sink.close()
    with (out / "other").open("wb"):  # takes the number of the descriptor that was closed
        for attempt in (sink.append([b"x"]), sink.restart(), sink.resume(), sink.reserve(1)):
            with pytest.raises(SinkFailed, match=r"a\.bin"):
                await attempt
    assert (out / "other").read_bytes() == b""


async def test_what_plainly_does_not_fit_is_refused_before_it_is_fetched(out: Path):
    sink = await FileSinks([out]).open("a.bin", ID, overwrite=False)
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
                await sinks.open("a.bin", ID, overwrite=False)
        else:
            await download(sinks, "a.bin", CONTENT, overwrite=overwrite)
        assert names(place) == ["a.bin"]  # no second name is left of it
        assert (place / "a.bin").read_bytes() == CONTENT


async def test_what_the_disk_did_not_keep_is_never_said_to_be_durable_before_it_is_written_once_more(
    out: Path, monkeypatch: pytest.MonkeyPatch
):
    flush, fails, written = os.fdatasync, [True], list[tuple[int, int]]()

    def once(descriptor: int) -> None:
        if fails.pop() if fails else False:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flush(descriptor)

    sinks = FileSinks([out])
    sink = await sinks.open("a.bin", ID, overwrite=False)
    await sink.write(0, CONTENT[:HALF])
    await sink.sync()
    monkeypatch.setattr(os, "fdatasync", once)
    await sink.write(HALF, CONTENT[HALF:])
    await sink.extents()
    for call in (sink.sync, sink.sync, sink.commit):
        with pytest.raises(SinkFailed, match="cannot be written"):
            await call()
    await sink.close()
    sink = await sinks.open("a.bin", ID, overwrite=False)
    with pytest.raises(SinkFailed, match="refused to keep"):
        await sink.sync()  # nobody has looked at what is there
    write = os.pwrite

    def noted(descriptor: int, piece: memoryview, at: int) -> int:
        written.append((at, len(piece)))
        return write(descriptor, piece, at)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", noted)
        await sink.extents()
        await sink.resume()
    assert written == [(0, len(CONTENT))]
    assert (out / PART).stat().st_mode & 0o7777 == 0o1600, "until the disk has it"
    await sink.sync()
    await sink.commit()
    await sink.close()
    assert ((out / "a.bin").read_bytes(), (out / "a.bin").stat().st_mode & 0o7777) == (CONTENT, 0o600)


@pytest.mark.parametrize("refuses", [True, False])
async def test_a_part_that_the_disk_did_not_keep_is_gone_where_a_file_system_has_no_mark_for_it(
    out: Path, refuses: bool, monkeypatch: pytest.MonkeyPatch
):
    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def unmarked(_descriptor: int, _mode: int) -> None:
        if refuses:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    sinks = FileSinks([out])
    sink = await sinks.open("a.bin", ID, overwrite=False)
    await sink.write(0, CONTENT)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fchmod", unmarked)
        patched.setattr(os, "fdatasync", broken)
        with pytest.raises(SinkFailed, match="cannot be written"):
            await sink.sync()
    for call in (sink.sync, sink.commit):
        with pytest.raises(SinkFailed, match="cannot be written"):
            await call()
    await sink.close()
    sink = await sinks.open("a.bin", ID, overwrite=False)
    assert await sink.resume() == 0
    await sink.sync()
    await sink.close()


@pytest.mark.parametrize("durable", [True, False])
async def test_a_part_that_is_begun_anew_needs_no_look_at_what_the_disk_did_not_keep(out: Path, durable: bool):
    (out / PART).write_bytes(CONTENT)
    (out / PART).chmod(0o1600)
    sink = await FileSinks([out]).open("a.bin", ID, overwrite=False)
    await sink.restart()
    await sink.append([CONTENT])
    await sink.commit(durable=durable)
    await sink.close()
    assert ((out / "a.bin").read_bytes(), (out / "a.bin").stat().st_mode & 0o7777) == (CONTENT, 0o600)


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
