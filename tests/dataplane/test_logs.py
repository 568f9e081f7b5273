"""Content logs of what is published: made once, found again, made anew as they were, and gone with what they are of."""

import asyncio
import errno
import hashlib
import itertools
import os
import shutil
import threading
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from connector.adapters.file_source import FileSources
from connector.adapters.memory import MemoryStore
from connector.dataplane.index import Log
from connector.dataplane.logs import REPLACED, REPLACED_SECONDS, SECRET, Logs, Sweeping
from connector.errors import Busy, DescriptorsShort, SettingsError, SinkFailed, SourceFailed, StoreError
from connector.merkle.tree import leaf_hash, root_of
from connector.metering.content import CHUNK_BYTES, read_header
from connector.ports import Page, Sources, Stat
from connector.records import Changes, Dataset
from tests.dataplane.reader import Same
from tests.dataplane.rig import some_bytes

CONTENT = some_bytes(700_000)
LINES = b'{"a":1}\n' * 5_000
NDJSON = "application/x-ndjson"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "logs"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.bin").write_bytes(CONTENT)
    return tmp_path / "data"


def sources(logs: Logs, data: Path) -> Sources:
    return logs.indexing(FileSources([data]))


async def published(logs: Logs, data: Path, **address: Any) -> tuple[Mapping[str, Any], Stat]:
    return await sources(logs, data).index({"type": "file", "path": "a.bin"} | address)


async def of_lines(logs: Logs, data: Path) -> tuple[Mapping[str, Any], Log]:
    """Published as records, and its log."""
    pinned, _ = await published(logs, data, media_type=NDJSON)
    log = await logs.at_hand(pinned)
    assert log is not None
    return pinned, log


def never() -> Any:
    raise AssertionError("the data are read, although there is an index")


class Readings:
    """Opens `content`; counts how often, and waits for `go` where that is set."""

    def __init__(self, content: bytes, go: asyncio.Event | None = None) -> None:
        self.content, self.go, self.count = content, go, 0

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[AsyncIterator[bytes]]:
        self.count += 1

        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(self.content), 300_000):
                if self.go is not None:
                    await self.go.wait()
                yield self.content[at : at + 300_000]

        yield pieces()


def write(data: Path, content: bytes) -> None:
    (data / "a.bin").write_bytes(content)


def held(folder: Path) -> list[Path]:
    return list(folder.glob("*.held-back"))


def damage(folder: Path) -> None:
    for path in folder.glob("*.log"):
        path.write_bytes(b"damaged")


def names(folder: Path) -> list[str]:
    """What is in the folder beside its secret."""
    return sorted(path.name for path in folder.iterdir() if path.name != SECRET)


def index(folder: Path) -> Path:
    (name,) = names(folder)
    return folder / name


@pytest.mark.asyncio
async def test_what_is_published_has_its_log_at_once(folder: Path, data: Path):
    logs = Logs(folder)
    address, stat = await published(logs, data)
    log = await logs.of(address, (), stat, never)
    header = read_header(log.header)
    assert (header.chunk_bytes, header.size_bytes, header.media_type) == (CHUNK_BYTES, len(CONTENT), "application/octet-stream")
    chunks = [CONTENT[at : at + CHUNK_BYTES] for at in range(0, len(CONTENT), CHUNK_BYTES)]
    assert log.root == root_of([leaf_hash(log.header), *map(leaf_hash, chunks)])
    assert log.sha256 == stat.sha256 == hashlib.sha256(CONTENT).digest()


@pytest.mark.asyncio
async def test_publishing_the_unchanged_file_again_keeps_salt_and_root_also_after_a_restart(folder: Path, data: Path):
    logs = Logs(folder)
    address, stat = await published(logs, data)
    log = await logs.of(address, (), stat, never)
    again = Logs(folder)
    assert await published(again, data) == (address, stat)
    for each in (again, Logs(folder)):
        found = await each.of(address, (), stat, never)
        assert (found.root, found.header) == (log.root, log.header)


@pytest.mark.parametrize("number", [0, 1])
def test_a_secret_that_the_disk_did_not_keep_is_none(folder: Path, number: int, monkeypatch: pytest.MonkeyPatch):
    flush, count = os.fsync, itertools.count()

    def fail(descriptor: int) -> None:
        if next(count) == number:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SettingsError, match="error"):
        Logs(folder)
    assert not (folder / SECRET).exists()
    Logs(folder)


@pytest.mark.asyncio
async def test_the_same_bytes_have_another_root_elsewhere(folder: Path, data: Path, tmp_path: Path):
    roots = set()
    for place in (folder, tmp_path / "other"):
        logs = Logs(place)
        address, stat = await published(logs, data)
        roots.add((await logs.of(address, (), stat, never)).root)
    assert len(roots) == 2


@pytest.mark.asyncio
async def test_records_are_counted_where_the_media_type_has_some(folder: Path, data: Path):
    (data / "a.bin").write_bytes(LINES)
    logs = Logs(folder)
    address, stat = await published(logs, data, media_type=NDJSON)
    log = await logs.of(address, (), stat, never)
    assert (log.records(0, log.leaves), read_header(log.header).record_unit) == (5_000, "line")


@pytest.mark.asyncio
async def test_a_media_type_that_is_known_only_once_all_was_read_is_counted_at_first_need(folder: Path, data: Path):
    class Upstream:
        """Says what it has only with the answer."""

        async def index(self, address: Mapping[str, Any], along: Any = None) -> tuple[Mapping[str, Any], Stat]:
            along(memoryview(LINES))
            return address, Stat(len(LINES), "1", hashlib.sha256(LINES).digest(), NDJSON)

        async def open(self, address: Mapping[str, Any]) -> Any:
            raise SourceFailed("not here")

    logs, reading = Logs(folder), Readings(LINES)
    address, stat = await logs.indexing(Upstream()).index({"type": "http"})
    log = await logs.of(address, (), stat, reading)
    assert (log.records(0, log.leaves), reading.count) == (5_000, 1)


@pytest.mark.parametrize("happens", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-9])])
@pytest.mark.asyncio
async def test_an_index_that_is_missing_or_damaged_is_made_as_it_was(folder: Path, data: Path, happens: Any):
    logs = Logs(folder)
    address, stat = await published(logs, data)
    before = (await logs.of(address, (), stat, never)).root
    content = index(folder).read_bytes()
    happens(index(folder))
    reading = Readings(CONTENT)
    assert (await Logs(folder).of(address, (), stat, reading)).root == before
    assert (reading.count, index(folder).read_bytes()) == (1, content)


@pytest.mark.asyncio
async def test_data_that_are_not_what_was_published_get_no_index(folder: Path, data: Path):
    logs = Logs(folder)
    address, stat = await published(logs, data)
    index(folder).unlink()
    with pytest.raises(SourceFailed, match="publish them again"):
        await Logs(folder).of(address, (), stat, Readings(CONTENT[:-1] + b"x"))
    assert names(folder) == []


@pytest.mark.asyncio
async def test_it_is_made_once_however_many_ask_and_who_cannot_wait_comes_back(folder: Path, data: Path):
    go = asyncio.Event()
    reading, stat = Readings(CONTENT, go), Stat(len(CONTENT), "1", None, "text/csv")
    logs = Logs(folder, patience_seconds=0.01)
    asked = await asyncio.gather(*(logs.of({"a": 1}, (), stat, reading) for _ in range(5)), return_exceptions=True)
    assert [type(each) for each in asked] == [Busy] * 5
    go.set()
    logs._patience_seconds = 10.0
    found = await asyncio.gather(*(logs.of({"a": 1}, (), stat, reading) for _ in range(5)))
    assert len({id(log) for log in found}) == reading.count == 1
    await logs.close()


@pytest.mark.asyncio
async def test_what_fails_is_tried_again_by_who_asks_next(folder: Path, data: Path):
    logs, stat = Logs(folder), Stat(len(CONTENT), "1", None, "text/csv")

    @asynccontextmanager
    async def broken() -> AsyncIterator[AsyncIterator[bytes]]:
        raise SourceFailed("the upstream is away")
        yield Readings(b"")  # type: ignore[misc]

    with pytest.raises(SourceFailed):
        await logs.of({"a": 1}, (), stat, broken)
    assert (await logs.of({"a": 1}, (), stat, Readings(CONTENT))).leaves == 4
    assert len(names(folder)) == 1


@pytest.mark.asyncio
async def test_what_the_stages_leave_is_a_log_of_its_own_and_goes_with_the_same_source(folder: Path, data: Path):
    logs = Logs(folder)
    address, stat = await published(logs, data)
    plain = await logs.of(address, (), stat, never)
    staged = await logs.of(address, (Same(),), stat, Readings(CONTENT[:5]))
    assert plain.root != staged.root
    assert staged.sha256 == hashlib.sha256(CONTENT[:5]).digest()
    assert logs.sweep([address]) == 0
    logs._unclaimed.clear()
    assert logs.sweep([]) == 2


@pytest.mark.asyncio
async def test_indexes_of_what_is_published_no_more_are_removed_and_those_not_yet_committed_stay(folder: Path, data: Path):
    logs = Logs(folder)
    address, stat = await published(logs, data)
    assert logs.sweep([]) == 0  # its dataset may be committed in a moment
    assert logs.sweep([address]) == 0
    assert logs.sweep([]) == 1
    assert names(folder) == []
    reading = Readings(CONTENT)
    await logs.of(address, (), stat, reading)
    assert reading.count == 1  # what was at hand of it is gone, too


@pytest.mark.asyncio
async def test_an_index_with_records_outlives_its_data_by_a_day_from_when_that_is_seen_over_starts_too(folder: Path, data: Path):
    write(data, LINES)
    _, log = await of_lines(Logs(folder), data)
    (index,) = (folder / name for name in names(folder))
    os.utime(index, (0, 0))
    assert Logs(folder).sweep([]) == 0, "however old it is"
    (left,) = (folder / name for name in names(folder))
    assert left.suffix == REPLACED
    for logs in (Logs(folder), Logs(folder)):
        assert logs.sweep([]) == 0
        logs.swept = True
        found = await logs.replaced(log.root)
        assert found is not None
        assert found.records(1, found.leaves) == 5_000
        assert await logs.replaced(log.root) is found, "whoever sends receipts has it read once"
        assert await logs.replaced(b"x" * 32) is None
    replaced_at = left.stat().st_mtime
    assert logs.expire(replaced_at + REPLACED_SECONDS - 1) == 0
    assert await logs.replaced(log.root) is found
    assert logs.expire(replaced_at + REPLACED_SECONDS) == 1, "though nothing is published or withdrawn any more"
    assert await logs.replaced(log.root) is None


@pytest.mark.asyncio
async def test_an_index_of_replaced_data_that_was_cut_short_is_opened_anew_and_whoever_had_it_goes_on(folder: Path, data: Path):
    write(data, LINES)
    _, log = await of_lines(Logs(folder), data)
    logs = Logs(folder)
    logs.sweep([])
    found = await logs.replaced(log.root)
    assert found is not None
    place, content = index(folder), index(folder).read_bytes()
    os.truncate(place, 0)
    with pytest.raises(SinkFailed, match="cut short"):
        found.records(1, log.leaves)
    place.unlink()
    place.write_bytes(content)
    again = await logs.replaced(log.root)
    assert again is not None
    assert [each.records(1, log.leaves) for each in (again, found)] == [5_000] * 2


@pytest.mark.asyncio
async def test_an_index_of_data_that_were_replaced_within_the_hour_is_found_though_it_has_no_other_name_yet(folder: Path, data: Path):
    write(data, LINES)
    logs = Logs(folder)
    _, log = await of_lines(logs, data)
    assert logs.sweep([]) == 0  # nobody had claimed it before: it may be about to be
    logs.swept = True
    logs._open.clear()  # more others are at hand than may be
    assert (await logs.replaced(log.root)) is not None


@pytest.mark.asyncio
async def test_an_index_that_cannot_be_read_now_is_neither_removed_nor_a_defect_and_keeps_no_other(folder: Path, data: Path):
    write(data, LINES)
    pinned, stat = await published(Logs(folder), data, media_type=NDJSON)
    log = await Logs(folder).at_hand(pinned)
    assert log is not None
    unreadable, away = index(folder), folder.with_name("away")
    unreadable.rename(away)
    unreadable.symlink_to(unreadable)  # ELOOP, as another time it is EIO, or EMFILE
    logs = Logs(folder)
    for asked in (logs.at_hand(pinned), logs.of(pinned, (), stat, never)):
        with pytest.raises(SinkFailed, match="cannot be read"):
            await asked
    assert logs.sweep([]) == 0
    logs.swept = True
    assert await logs.replaced(log.root) is None
    away.replace(unreadable)
    found = await logs.replaced(log.root)
    assert found is not None
    assert found.root == log.root
    assert logs.sweep([]) == 0
    assert index(folder).suffix == REPLACED


@pytest.mark.asyncio
async def test_where_no_descriptor_is_left_nobody_says_that_there_is_no_index(folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch):
    pinned, log = await of_lines(Logs(folder), data)

    def none_left(*_arguments: object, **_options: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    logs = Logs(folder)
    with monkeypatch.context() as patched:
        patched.setattr("connector.dataplane.index.os.open", none_left)
        patched.setattr(Path, "open", none_left)
        for asked in (logs.at_hand(pinned), logs.replaced(log.root)):
            with pytest.raises(DescriptorsShort):
                await asked
    assert await logs.replaced(log.root) is not None


@pytest.mark.asyncio
async def test_a_receipt_for_data_that_nobody_knows_has_no_index_looked_into_of_what_is_published(
    folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch
):
    logs = Logs(folder)
    logs.swept = True
    await published(logs, data)
    looked = list[Path]()

    def look(path: Path) -> tuple[bytes, bytes, bool]:
        looked.append(path)
        return b"another", b"", True

    monkeypatch.setattr("connector.dataplane.logs.described", look)
    assert await logs.replaced(b"x" * 32) is None
    assert [path.suffix for path in looked] == [REPLACED]


@pytest.mark.asyncio
async def test_what_lies_damaged_among_the_indexes_is_in_nobodys_way(folder: Path, data: Path):
    write(data, LINES)
    _, log = await of_lines(Logs(folder), data)
    damage(folder)
    assert await Logs(folder).replaced(log.root) is None
    assert Logs(folder).sweep([]) == 1
    assert names(folder) == []


def test_a_folder_of_ours_is_private_and_what_a_crash_left_is_cleared_away(folder: Path):
    folder.mkdir()
    (folder / ".part-0123").write_bytes(b"half")
    Logs(folder)
    assert [path.name for path in folder.iterdir()] == [SECRET]
    assert (folder / SECRET).stat().st_mode & 0o777 == 0o600
    other = folder.with_name("made")
    Logs(other)
    assert other.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_used_is_a_mistake_of_the_settings(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SettingsError, match=r"metering\.directory"):
        Logs(tmp_path / "file")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / SECRET).write_bytes(b"short")
    with pytest.raises(SettingsError, match="does not have 32 bytes"):
        Logs(tmp_path / "logs")


@pytest.mark.asyncio
async def test_without_room_for_its_index_nothing_is_published(folder: Path, data: Path):
    logs = Logs(folder)
    shutil.rmtree(folder)
    with pytest.raises(SinkFailed, match="look after that disk"):
        await published(logs, data)


@pytest.mark.asyncio
async def test_what_is_opened_is_what_the_source_opens(folder: Path, data: Path):
    logs = Logs(folder)
    address, stat = await published(logs, data)
    source = await sources(logs, data).open(address)
    assert await source.stat() == stat
    await source.close()


@pytest.mark.asyncio
async def test_what_is_at_hand_is_bounded(folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("connector.dataplane.logs.OPEN_MAX", 2)
    logs, stat = Logs(folder), Stat(3, "1", None, "text/csv")
    made: list[Log] = [await logs.of({"n": n}, (), stat, Readings(b"abc")) for n in range(4)]
    assert len(logs._open) == 2
    assert (await logs.of({"n": 0}, (), stat, never)).root == made[0].root


@pytest.mark.asyncio
async def test_an_index_goes_with_the_withdrawal_and_stays_as_long_as_another_dataset_has_it(folder: Path, data: Path):
    logs, store = Logs(folder), MemoryStore()
    sweeping = Sweeping(logs, store, 0.0)
    address, _ = await published(logs, data)
    for id in ("urn:a", "urn:b"):
        changes = Changes(saves=(Dataset(id, b"{}", address, (), version=1),))
        await store.commit(changes)
        sweeping.committed(changes, ())
    for id, left in (("urn:a", 1), ("urn:b", 0)):
        changes = Changes(deletes=((Dataset, id),))
        await store.commit(changes)
        sweeping.committed(changes, ())
        while sweeping._task is not None and not sweeping._task.done():
            await sweeping._task
        assert len(names(folder)) == left
    await sweeping.close()


@pytest.mark.asyncio
async def test_while_indexes_are_looked_through_everything_else_goes_on(folder: Path, data: Path):
    class Watched(Logs):
        at: threading.Thread | None = None

        def sweep(self, addresses: Iterable[Mapping[str, Any]]) -> int:
            self.at = threading.current_thread()
            return super().sweep(addresses)

    logs = Watched(folder)
    sweeping = Sweeping(logs, MemoryStore(), 0.0)
    await published(Logs(folder), data)
    sweeping.start()
    assert sweeping._task is not None
    await sweeping._task
    assert logs.at not in (None, threading.current_thread())
    assert not names(folder)
    await sweeping.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [StoreError("the store cannot be read"), OSError(errno.EMFILE, os.strerror(errno.EMFILE))])
async def test_what_hinders_a_look_at_all_indexes_is_said_and_they_are_looked_at_again(
    folder: Path, data: Path, error: Exception, capfd: pytest.CaptureFixture[str]
):
    class Store(MemoryStore):
        async def datasets(self, **page: Any) -> Page[Dataset]:
            if isinstance(error, StoreError):
                hindered()
            return await super().datasets(**page)

    class Hindered(Logs):
        def sweep(self, addresses: Iterable[Mapping[str, Any]]) -> int:
            if isinstance(error, OSError):
                hindered()
            return super().sweep(addresses)

    def hindered() -> None:
        if (at := len(looks)) < 2:
            looks.append(at)
            raise error

    looks, logs = list[int](), Hindered(folder)
    await published(Logs(folder), data)
    sweeping = Sweeping(logs, Store(), 0.0)
    sweeping.start()
    assert sweeping._task is not None
    async with asyncio.timeout(10):
        await sweeping._task
    assert (looks, names(folder), logs.swept) == ([0, 1], [], True)
    assert capfd.readouterr().err.count("indexes not looked at") == 2
    await sweeping.close()


@pytest.mark.asyncio
async def test_a_start_clears_away_what_was_withdrawn_while_nobody_looked(folder: Path, data: Path):
    store = MemoryStore()
    kept, _ = await published(Logs(folder), data)
    (data / "b.bin").write_bytes(b"gone")
    await published(Logs(folder), data, path="b.bin")
    for number in range(501):  # more than a page of them
        await store.commit(
            Changes(saves=(Dataset(f"urn:{number:03}", b"{}", kept if number == 500 else {"type": "other"}, (), version=1),))
        )
    sweeping = Sweeping(Logs(folder), store, 0.0)
    sweeping.start()
    assert sweeping._task is not None
    await sweeping._task
    assert len(names(folder)) == 1
    await sweeping.close()


@pytest.mark.asyncio
async def test_a_log_is_at_hand_once_it_is_made_also_after_a_restart_and_none_is_made_for_who_only_asks(folder: Path, data: Path):
    pinned, _ = await published(logs := Logs(folder), data, media_type=NDJSON)
    for each in (logs, Logs(folder)):
        log = await each.at_hand(pinned)
        assert log is not None
        assert (log.size_bytes, log.counts) == (len(CONTENT), True)
    assert await logs.at_hand({**pinned, "path": "b.bin"}) is None
    damage(folder)
    assert await Logs(folder).at_hand(pinned) is None


@pytest.mark.asyncio
async def test_what_is_held_back_is_so_after_a_kill_too_until_it_is_published_again_or_not_at_all_any_more(folder: Path, data: Path):
    pinned, stat = await published(logs := Logs(folder), data)
    logs.hold_back(pinned)
    for each in (logs, Logs(folder)):
        with pytest.raises(SourceFailed, match="publish them again"):
            await each.of(pinned, (), stat, never)
    again = Logs(folder)
    assert (again.sweep([pinned]), len(held(folder))) == (0, 1), "it is published"
    assert (await published(again, data))[0] == pinned
    for each in (again, Logs(folder)):
        assert (await each.of(pinned, (), stat, never)).size_bytes == len(CONTENT)
    again.hold_back(pinned)
    again.sweep([])
    assert held(folder) == []


@pytest.mark.asyncio
@pytest.mark.parametrize(("content", "unit"), [(b"data: a\n\n" * 50_000, "message"), (b"data: a\n\n" * 50_000 + b": on\n\n", "none")])
async def test_events_of_a_file_are_counted_where_each_ends_as_the_next_one_begins(folder: Path, data: Path, content: bytes, unit: str):
    write(data, content)
    pinned, stat = await published(logs := Logs(folder), data, media_type="text/event-stream")
    log = await logs.at_hand(pinned)
    assert log is not None
    assert (log.unit, log.counts, stat.counted) == (unit, unit != "none", unit != "none")
    assert log.records(1, log.leaves) == (50_000 if unit == "message" else 0)
    again = await Logs(folder.with_name("another")).of(pinned, (), stat, Readings(content))
    assert (again.unit, again.records(1, 9)) == (unit, log.records(1, 9)), "also where it is made at first need"
