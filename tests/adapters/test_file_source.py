"""Files as sources: the contract, every way out of the allowed directories, and what is no plain file."""

import asyncio
import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from connector.adapters.file_source import FileSources, locate
from connector.errors import ConnectorError, InvalidRequest, SourceFailed
from tests.contracts.source_contract import CONTENT, SMALL, Place, SourceContract, opened, read

SECRET = b"the secret of another directory\n"


class FilePlace(Place):
    """A file that others write into, later each time."""

    def __init__(self, root: Path) -> None:
        self.sources = FileSources([root])
        self.path = root / "patients.csv"
        self._tick = 0

    def put(self, content: bytes) -> Mapping[str, Any]:
        self.path.write_bytes(content)
        self._tick += 1  # file systems count time in steps of some milliseconds, and a test is faster
        os.utime(self.path, ns=(1_800_000_000_000_000_000 + self._tick,) * 2)
        return address("patients.csv")

    def remove(self) -> None:
        self.path.unlink()


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[FilePlace]:
    (tmp_path / "data").mkdir()
    yield FilePlace(tmp_path / "data")


class TestFileSource(SourceContract):
    """The whole contract."""


@pytest.mark.asyncio
@pytest.mark.parametrize("cores", [1, 2])
async def test_who_reads_along_takes_turns_with_who_hashes_where_there_is_one_core(
    place: FilePlace, cores: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    pieces, names = bytearray(), set[str]()

    def along(piece: memoryview) -> None:
        names.add(threading.current_thread().name.partition("_")[0])
        pieces.extend(piece)

    content = CONTENT * (1 + 2_000_000 // len(CONTENT))  # several pieces
    address = place.put(content)
    assert await place.sources.index(address, along) == await place.sources.index(address)
    assert pieces == content
    assert names == {"asyncio" if cores == 1 else "index"}


def address(path: object) -> dict[str, Any]:
    return {"type": "file", "path": path}


def pinned(path: object) -> dict[str, Any]:
    """What a store could hold for this path, whoever wrote it there."""
    return {**address(path), "media_type": "x/y", "inode": 1, "mtime_ns": 1, "size_bytes": 1, "sha256": "00" * 32}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """`data` is allowed, `secret` and `database` beside it are not."""
    for each in ("data/wards", "secret", "database"):
        (tmp_path / each).mkdir(parents=True)
    (tmp_path / "data/wards/a.csv").write_bytes(SMALL)
    for each in ("secret/key", "database/key"):
        (tmp_path / each).write_bytes(SECRET)
    return tmp_path


async def refused(sources: FileSources, path: object) -> ConnectorError:
    """Neither publishing nor opening gets at it, at once and with nothing of it in the text. Returns publishing's error."""
    with pytest.raises(SourceFailed) as opening:
        await sources.open(pinned(path))
    with pytest.raises((InvalidRequest, SourceFailed)) as indexing:
        await sources.index(address(path))
    assert SECRET.decode().strip() not in f"{opening.value.message} {indexing.value.message}"
    return indexing.value


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before


PATHS = [
    *["", ".", "/", "wards", "wards/", "wards/.", "wards/a.csv/", "wards/a.csv/.", "wards/a.csv/x", "wards/none/a.csv", "none"],
    *["..", "../secret/key", "wards/../../secret/key", "wards/../wards/a.csv", "./../secret/key", "wards//..//../secret/key"],
    *["ROOT/secret/key", "ROOT/data/../secret/key", "ROOT/data", "ROOT/data/", "ROOT/database/key", "/etc/passwd", "//etc/passwd"],
    *["wards/a.csv\0", "\0", "wards/a.csv\n", "wards/\x7f", "wards/\x9b1m", "\ud800", "w" * 300, "w/" * 3000 + "x", "~/x", "~root/x"],
    *[
        "file:///etc/passwd",
        "wards\\a.csv",
        "%2e%2e/secret/key",
        "wards/%2e%2e/a.csv",
        None,
        5,
        ["wards/a.csv"],
        {"path": "x"},
        b"wards/a.csv",
    ],
]


@pytest.mark.asyncio
@pytest.mark.parametrize("path", PATHS, ids=lambda path: repr(path)[:40])
async def test_no_spelling_of_a_path_leaves_the_directory(tree: Path, path: object):
    with no_descriptor_left():
        error = await refused(FileSources([tree / "data"]), path.replace("ROOT", str(tree)) if isinstance(path, str) else path)
    if isinstance(error, InvalidRequest):
        assert error.pointer == "/source/path"


@pytest.mark.asyncio
async def test_a_path_is_relative_to_the_first_root_or_absolute_below_any_by_either_of_its_names(tree: Path):
    (tree / "alias").symlink_to("data")
    (tree / "other").mkdir()
    (tree / "other/b.csv").write_bytes(b"b")
    sources = FileSources([tree / "alias", tree / "other"])
    for path in ("wards/a.csv", "./wards//a.csv", f"{tree}/alias/wards/a.csv", f"{tree}/data/wards/a.csv"):
        assert (await sources.index(address(path)))[1].size_bytes == len(SMALL)
    assert (await sources.index(address(f"{tree}/other/b.csv")))[1].size_bytes == 1
    await refused(sources, "b.csv")
    assert "no directory is allowed here; name one in `sources.roots`" in (await refused(FileSources([]), "wards/a.csv")).message
    assert (await refused(sources, "/etc/passwd")).message.endswith("name a file there, or allow its directory in `sources.roots`")


@given(st.lists(st.sampled_from(["/", ".", "..", "a", "/srv/data", "~", "%2e", "\\", " ", "é", "\0", "\n"]), max_size=9).map("".join))
def test_what_is_located_lies_below_its_root(path: str):
    with contextlib.suppress(InvalidRequest):
        root, parts = locate(path, [Path("/srv/data")], "/source/path", "sources.roots")
        assert root == Path("/srv/data")
        assert parts
        assert all(part not in ("", ".", "..") and "/" not in part and "\0" not in part for part in parts)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("link", "target", "path"),
    [
        ("data/wards/b.csv", "../../secret/key", "wards/b.csv"),
        ("data/wards/b.csv", "ROOT/secret/key", "wards/b.csv"),
        ("data/b", "ROOT/secret", "b/key"),
        ("data/b", "..", "b/secret/key"),
        ("data/b.csv", "wards/a.csv", "b.csv"),  # even one that stays inside: where it points is for others to change
        ("data/b", "wards", "b/a.csv"),
        ("data/b.csv", "nowhere", "b.csv"),
        ("data/b.csv", "b.csv", "b.csv"),
        ("data/b.csv", "/proc/self/environ", "b.csv"),
        ("data/b.csv", "/dev/zero", "b.csv"),
        ("data/b", "/proc/self/root", "b/etc/passwd"),
    ],
)
async def test_a_link_is_not_followed(tree: Path, link: str, target: str, path: str):
    (tree / link).symlink_to(target.replace("ROOT", str(tree)))
    error = await refused(FileSources([tree / "data"]), path)
    assert isinstance(error, InvalidRequest)
    assert "link" in error.message


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "path", ["self/environ", "PID/environ", "PID/mem", "PID/cmdline", "/".join(("PID", "root", "etc", "passwd")), "PID/cwd/x", "PID/fd/0"]
)
@pytest.mark.parametrize("root", ["/proc", "/"])
async def test_the_process_itself_is_no_source_even_where_its_directory_is_allowed(root: str, path: str):
    path = path.replace("PID", str(os.getpid()))
    with no_descriptor_left():
        await refused(FileSources([Path(root)]), path if root == "/proc" else f"/proc/{path}")


@pytest.mark.asyncio
async def test_only_plain_files_are_sources_and_nothing_waits_for_another(tree: Path):
    os.mkfifo(tree / "data/fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tree / "data/socket"))
        async with asyncio.timeout(20):
            for root, name in [
                ("data", "fifo"),
                ("data", "socket"),
                ("/dev", "zero"),
                ("/dev", "null"),
                ("/dev", "full"),
                ("/dev", "random"),
            ]:
                error = await refused(FileSources([tree / root]), name)
                assert error.message == f"`{name}` is not a regular file; name one"


@pytest.mark.asyncio
async def test_a_directory_is_said_to_be_one_also_where_it_is_the_one_that_is_allowed(tree: Path):
    for path, says in ((str(tree / "data"), f"`{tree / 'data'}` is a directory; name a file"), ("wards", "`wards` is a directory; name a")):
        assert says in (await refused(FileSources([tree / "data"]), path)).message


@contextmanager
def meanwhile(job: Callable[[], None]) -> Iterator[None]:
    """Repeat `job` in a thread."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            job()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def swap_directory(data: Path) -> Callable[[], None]:
    def job() -> None:
        os.rename(data / "wards", data / "away")
        os.symlink("../secret", data / "wards")
        time.sleep(0.0002)
        os.unlink(data / "wards")
        os.rename(data / "away", data / "wards")
        time.sleep(0.0002)

    return job


def swap_file(data: Path) -> Callable[[], None]:
    def job() -> None:
        for make in (lambda to: os.symlink("../../secret/key", to), os.mkfifo, lambda to: os.link(data / "original", to)):
            make(data / "next")
            os.replace(data / "next", data / "wards/key")
            time.sleep(0.0002)

    return job


@pytest.mark.asyncio
@pytest.mark.parametrize("swapping", [swap_directory, swap_file])
async def test_whoever_changes_names_meanwhile_gets_no_other_file_out(tree: Path, swapping: Callable[[Path], Callable[[], None]]):
    data = tree / "data"
    for each in ("wards/key", "original"):
        (data / each).write_bytes(SMALL)
    sources = FileSources([data])
    read_, refused_, until = 0, 0, time.monotonic() + 10
    with no_descriptor_left(), meanwhile(swapping(data)):
        while (read_ < 30 or refused_ < 30) and time.monotonic() < until:
            try:
                pin, stat = await sources.index(address("wards/key"))
                async with opened_if_same(sources, pin) as found:
                    assert found in (None, SMALL)
                assert stat.size_bytes == len(SMALL)
                read_ += 1
            except (InvalidRequest, SourceFailed):
                refused_ += 1
    assert read_ > 0
    assert refused_ > 0


@contextlib.asynccontextmanager
async def opened_if_same(sources: FileSources, pin: Mapping[str, Any]) -> AsyncIterator[bytes | None]:
    try:
        source = await sources.open(pin)
    except SourceFailed:
        yield None
        return
    try:
        yield await read(source)
    finally:
        await source.close()


def later(path: Path) -> None:
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1))


def twin(path: Path) -> None:
    """The same bytes and times under the same name, in another file."""
    found = path.stat()
    other = path.with_name("twin")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    os.replace(other, path)


def longer(path: Path) -> None:
    found = path.stat()
    with path.open("ab") as out:
        out.write(b"x")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.mark.asyncio
@pytest.mark.parametrize("change", [later, twin, longer])
async def test_modification_time_inode_and_size_are_each_enough_to_refuse(place: FilePlace, change: Callable[[Path], None]):
    pin, _ = await place.publish(SMALL)
    async with opened(place, pin):
        change(place.path)
        with no_descriptor_left(), pytest.raises(SourceFailed, match=r"`patients\.csv` changed since it was published: publish it again"):
            await place.sources.open(pin)


@pytest.mark.asyncio
@pytest.mark.parametrize("go", [lambda path: path.unlink(), twin, lambda path: path.rename(path.with_name("elsewhere"))])
async def test_a_file_that_is_open_is_read_to_its_end_whatever_becomes_of_its_name(place: FilePlace, go: Callable[[Path], object]):
    pin, stat = await place.publish(CONTENT)
    async with opened(place, pin) as source:
        async with aclosing(source.read(0, None)) as pieces:  # type: ignore[type-var]
            found = [await anext(pieces)]
            go(place.path)
            found += [piece async for piece in pieces]
        assert b"".join(found) == CONTENT
        assert await source.stat() == stat


@pytest.mark.asyncio
async def test_a_file_system_elsewhere_that_has_lost_a_file_is_a_failure_of_the_source(place: FilePlace, monkeypatch: pytest.MonkeyPatch):
    address, _ = await place.publish(SMALL)
    async with opened(place, address) as source:
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(os, "fstat", stale)
            with pytest.raises(SourceFailed, match="cannot be read: Stale file handle"):
                await source.stat()
        await source.stat()


def stale(_descriptor: int) -> os.stat_result:
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


@pytest.mark.asyncio
async def test_a_file_that_is_cut_while_it_is_read_fails_and_never_ends_short(place: FilePlace):
    pin, _ = await place.publish(CONTENT)
    async with opened(place, pin) as source:
        async with aclosing(source.read(0, None)) as pieces:  # type: ignore[type-var]
            assert CONTENT.startswith(await anext(pieces))
            os.truncate(place.path, 10)
            with pytest.raises(SourceFailed, match="publish it again"):
                await anext(pieces)
        with pytest.raises(SourceFailed):
            await source.stat()


@pytest.mark.asyncio
@pytest.mark.parametrize("flags", [os.O_APPEND, 0], ids=["appending", "in place"])
async def test_a_file_that_somebody_writes_to_is_not_published(place: FilePlace, flags: int):
    place.put(b"")
    os.truncate(place.path, 128 << 20)  # long enough to hash that the writer gets its turn
    descriptor = os.open(place.path, os.O_WRONLY | flags)
    text = "changed while it was read; publish it when nobody writes to it"

    def write() -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, b"x")

    with meanwhile(write), pytest.raises(SourceFailed, match=text):
        await place.sources.index(address("patients.csv"))
    os.close(descriptor)


@pytest.mark.asyncio
async def test_bytes_that_are_not_in_memory_come_from_the_disk(place: FilePlace):
    pin, _ = await place.publish(CONTENT)
    with place.path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    async with opened(place, pin) as source:
        assert await read(source) == CONTENT


def bytes_read() -> int:
    """What this process has read so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.asyncio
async def test_a_publication_that_is_cancelled_stops_reading(place: FilePlace):
    place.put(b"")
    os.truncate(place.path, 1 << 42)  # sparse: no disk, but hours of hashing
    task = asyncio.create_task(place.sources.index(address("patients.csv")))
    before = bytes_read()
    async with asyncio.timeout(10):
        while bytes_read() < before + (8 << 20):  # noqa: ASYNC110 - only the kernel knows how far a thread has read
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        await asyncio.get_running_loop().shutdown_default_executor()


@pytest.mark.asyncio
async def test_a_source_that_was_closed_gives_nothing(place: FilePlace):
    pin, _ = await place.publish(SMALL)
    source = await place.sources.open(pin)
    await source.close()
    with pytest.raises(SourceFailed):
        await read(source)
    with pytest.raises(SourceFailed):
        await source.stat()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("name", "media_type"),
    [("a.csv", "text/csv"), ("a.json", "application/json"), ("a.csv.gz", "application/octet-stream"), ("a", "application/octet-stream")],
)
async def test_the_media_type_follows_from_the_name(tree: Path, name: str, media_type: str):
    (tree / "data" / name).write_bytes(SMALL)
    assert (await FileSources([tree / "data"]).index(address(name)))[1].media_type == media_type
