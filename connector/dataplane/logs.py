"""The content logs of what is published: where their indexes are, how they come to be, and when they go.

An index is a function of the data, of what the source is pinned to, of the stages, and of a secret of this folder, from which the salt
of the header leaf follows. So publishing the same again gives the same root and entity tag, and an index that is missing or damaged is
made again as it was. One that is missing (of a dataset that was published before there were any) is made at first need, once, while
whoever asks waits for a moment and is then told to come back. One with counted records outlives its data by a day: who has got them
signs for them late, and how many records end in which leaf stands nowhere else.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from time import monotonic, time
from typing import Any, Final

import orjson

from connector import telemetry
from connector.dataplane.index import MODE, PART, Damaged, Log, Writing, described, snapshot_of, sync
from connector.errors import Busy, DescriptorsShort, SettingsError, SinkFailed, SourceFailed
from connector.lasting import stopped
from connector.metering.content import CHUNK_BYTES, MEDIA_TYPE, Header
from connector.ports import Along, Source, Sources, Stage, Stat, Store
from connector.ports.live import unit_of
from connector.records import Changes, Dataset, Evidence
from connector.remembered import pause_seconds
from connector.values import replace

FOLDER_MODE: Final = 0o700
SECRET, SECRET_BYTES = "salt", 32
SUFFIX: Final = ".log"
REPLACED: Final = ".replaced"  # an index that nothing published has any more, under the name of its snapshot
REPLACED_SECONDS: Final = 86_400.0  # that it is kept: for so long after an end it is signed for what was brought
HELD_BACK: Final = ".held-back"  # beside the indexes: an empty file for each source whose data are not what was signed
OCTETS: Final = "application/octet-stream"
PATIENCE_SECONDS: Final = 10.0  # that a request waits for an index: what most data are read in, and less than any client waits
RETRY_SECONDS: Final = 5
UNCLAIMED_SECONDS: Final = 3_600.0  # an index is made before its dataset is committed; one that nobody claims by then is nobody's
PAUSE_SECONDS: Final = 2.0
PAGE: Final = 500  # datasets read at once
OPEN_MAX: Final = 256  # indexes at hand; each is a descriptor, and some hundred bytes for a gigabyte of data

Reading = Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]  # opens the data from their start


class Logs:
    """The indexes in `folder`, which is made if it is not there. Raises SettingsError if it cannot be used."""

    def __init__(self, folder: Path, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.folder = self._folder = folder
        self._patience_seconds = patience_seconds
        try:
            folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
            for left in folder.glob(f"{PART}*"):  # by a process that ended while it wrote
                left.unlink()
            self._secret = _secret(folder / SECRET)
            self._held_back = {path.name.removesuffix(HELD_BACK) for path in folder.glob(f"*{HELD_BACK}")}
        except OSError as error:
            raise SettingsError(f"`metering.directory` `{folder}` cannot be used: {error.strerror}; name a directory of ours") from error
        self._open: dict[str, Log] = {}
        self._making: dict[str, asyncio.Task[Log]] = {}
        self._unclaimed: dict[str, float] = {}
        self.swept = False  # whether every index of what is published no more has the name of its snapshot
        self._left: frozenset[str] = frozenset()  # but for these, which the last look at them has left as they were

    def hold_back(self, address: Mapping[str, Any]) -> None:
        """The data behind a pinned address are not those of their logs: `of` raises SourceFailed until they are indexed anew, also after a
        restart. What cannot be written is held back by this process all the same, and said."""
        self._held_back.add(_source(address))
        path = self._folder / f"{_source(address)}{HELD_BACK}"
        try:
            path.touch(MODE)
            sync(self._folder)
        except OSError as error:
            telemetry.log.error("data are held back until the next start only", file=path.name, reason=error.strerror)

    def trust(self, address: Mapping[str, Any]) -> None:
        """The data behind a pinned address have been read, and are what it says."""
        if (source := _source(address)) in self._held_back:
            self._held_back.discard(source)
            (self._folder / f"{source}{HELD_BACK}").unlink(missing_ok=True)

    def indexing(self, sources: Sources) -> Sources:
        """The same sources, with an index made of whatever is published of them."""
        return _Indexed(self, sources)

    def begin(self, unit: str) -> Writing:
        """An index to be written, of data whose records are of this unit: see `Writing`. Raises SinkFailed."""
        return Writing(self._folder, counts=unit != "none", unit=unit)

    def keep(self, writing: Writing, address: Mapping[str, Any], stages: Sequence[Stage], media_type: str, sha256: bytes | None) -> Log:
        """Make what was written the index of the data behind a pinned address; reads and writes the disk. Raises SinkFailed."""
        key, name = self._key(address, stages)
        self._unclaimed[name] = monotonic()
        salt = hmac.digest(self._secret, key, "sha256")
        telemetry.index_bytes.inc(writing.size_bytes)
        log = writing.finish(name, key, lambda size_bytes: header_of(size_bytes, media_type, salt, writing.unit), sha256)
        self._remember(name, log)
        return log

    async def of(self, address: Mapping[str, Any], stages: Sequence[Stage], stat: Stat, reading: Reading) -> Log:
        """The content log of the data behind a pinned address, after the stages; made from `reading` if there is none.

        Raises Busy if that takes longer than somebody would wait (it goes on meanwhile), SinkFailed, SourceFailed for data that are held
        back, and what `reading` raises.
        """
        key, name = self._key(address, stages)
        if self._held_back and _source(address) in self._held_back:
            raise SourceFailed("the data are not what was published, as a consumer has found: publish them again")
        if (log := self._open.get(name)) is not None and not log.lost:
            return log
        if (task := self._making.get(name)) is None:
            task = self._making[name] = asyncio.create_task(self._obtain(name, key, address, stages, stat, reading), name="content log")
            task.add_done_callback(lambda done: self._made(name, done))
        try:
            async with asyncio.timeout(self._patience_seconds):
                return await asyncio.shield(task)
        except TimeoutError:
            if task.done():
                return task.result()
            text = "the content log of these data is being made; come back for them"
            raise Busy(text, retry_seconds=RETRY_SECONDS) from None

    async def at_hand(self, address: Mapping[str, Any]) -> Log | None:
        """The content log of the data behind a pinned address as they are, if there is one: none is made. Raises SinkFailed if it
        cannot be read now."""
        key, name = self._key(address, ())
        if (log := self._open.get(name)) is None or log.lost:
            try:
                log = await asyncio.to_thread(Log, self._folder / name, key)
            except (FileNotFoundError, Damaged):  # it is made at first need
                return None
            self._remember(name, log)
        return log

    async def replaced(self, root: bytes) -> Log | None:
        """The content log with this root, of data that were withdrawn or published anew within REPLACED_SECONDS and whose records are
        counted; None if there is none. Raises SinkFailed."""
        log = next((log for log in tuple(self._open.values()) if log.root == root and not log.lost), None)
        if log is None and (log := await asyncio.to_thread(self._replaced, root)) is not None:
            self._remember(f"{snapshot_of(root)}{REPLACED}", log)  # whoever signs does so again, and all of it was read and hashed
        return log

    def _replaced(self, root: bytes) -> Log | None:
        others = [self._folder / name for name in self._left] if self.swept else self._folder.glob(f"*{SUFFIX}")
        paths = [self._folder / f"{snapshot_of(root)}{REPLACED}", *others]
        for path in paths:
            try:
                found, key, _ = described(path)
                if found == root:
                    return Log(path, key)
            except DescriptorsShort:  # nobody knows whether it is there
                raise
            except (FileNotFoundError, Damaged, SinkFailed):  # moved on meanwhile, or of no use to anybody
                continue
        return None

    async def _obtain(
        self, name: str, key: bytes, address: Mapping[str, Any], stages: Sequence[Stage], stat: Stat, reading: Reading
    ) -> Log:
        try:
            log = await asyncio.to_thread(Log, self._folder / name, key)
        except (FileNotFoundError, Damaged) as error:
            telemetry.log.warning(
                "content log is made anew", index=name, reason=str(error) if isinstance(error, Damaged) else "there is none"
            )
        else:
            self._remember(name, log)
            return log
        digest = hashlib.sha256()
        with self.begin(unit_of(stat.media_type)) as writing:
            async with reading() as pieces:
                async for piece in pieces:
                    await asyncio.gather(asyncio.to_thread(digest.update, piece), asyncio.to_thread(writing.update, memoryview(piece)))
            if stat.sha256 is not None and not stages and digest.digest() != stat.sha256:
                raise SourceFailed("the data are not what was published: publish them again")
            return await asyncio.to_thread(self.keep, writing, address, stages, stat.media_type, digest.digest())

    def _made(self, name: str, task: asyncio.Task[Log]) -> None:
        del self._making[name]
        if not task.cancelled() and (error := task.exception()) is not None:  # whoever waits hears of it, too
            telemetry.log.error("content log failed", index=name, reason=str(error))

    def _remember(self, name: str, log: Log) -> None:
        if (before := self._open.pop(name, None)) is not None and before.lost:
            before.follow(log)
        self._open[name] = log
        if len(self._open) > OPEN_MAX:
            self._open.pop(next(iter(self._open)), None)  # a thread that sweeps may have been quicker

    def sweep(self, addresses: Iterable[Mapping[str, Any]]) -> int:
        """Remove the indexes of whatever is behind none of these addresses, which are all that is published; returns how many. Takes 10 ms
        for 1,000 of them, so call it from a thread. One that is made again meanwhile may be gone with it, and is made at first need."""
        claimed = {_source(address) for address in addresses}
        removed, left = 0, set[str]()
        for path in self._folder.glob(f"*{SUFFIX}"):
            if path.name.partition("-")[0] in claimed:
                self._unclaimed.pop(path.name, None)
            elif monotonic() - self._unclaimed.get(path.name, -UNCLAIMED_SECONDS) < UNCLAIMED_SECONDS or path.name in self._making:
                left.add(path.name)
            else:
                self._open.pop(path.name, None)
                self._unclaimed.pop(path.name, None)
                try:
                    removed += not self._put_by(path)
                except (OSError, SinkFailed) as error:  # the next time may be another
                    telemetry.log.warning("index stays", index=path.name, reason=str(error))
                    left.add(path.name)
        self._left = frozenset(left)
        removed += self.expire(time())
        for path in self._folder.glob(f"*{HELD_BACK}"):  # what is published again is read before
            if (source := path.name.removesuffix(HELD_BACK)) not in claimed:
                self._held_back.discard(source)
                path.unlink(missing_ok=True)
        return removed

    def expire(self, now: float) -> int:
        """Remove the indexes that were replaced REPLACED_SECONDS before `now` (POSIX seconds); returns how many. In a thread. Raises
        OSError."""
        removed = 0
        for path in self._folder.glob(f"*{REPLACED}"):
            with suppress(FileNotFoundError):  # whoever sweeps just now was quicker
                if now - path.stat().st_mtime >= REPLACED_SECONDS:
                    self._open.pop(path.name, None)
                    path.unlink()
                    removed += 1
        return removed

    def _put_by(self, path: Path) -> bool:
        """Keep an index that nothing published has any more for a while, from now on, if anybody may ask for it; else it is removed."""
        try:
            root, _, counts = described(path)
        except (FileNotFoundError, Damaged):
            counts = False
        if not counts:
            path.unlink(missing_ok=True)
            return False
        os.utime(path)
        os.replace(path, self._folder / f"{snapshot_of(root)}{REPLACED}")
        return True

    async def close(self) -> None:
        """Give up what is being made."""
        await stopped(*self._making.values())

    def _key(self, address: Mapping[str, Any], stages: Sequence[Stage]) -> tuple[bytes, str]:
        """The key of an index, and the name of its file: it begins with what is told of the source alone."""
        source, names = _source(address), [stage.name for stage in stages]
        key = hashlib.sha256(orjson.dumps([source, names])).digest()
        return key, f"{source}-{key[:8].hex()}{SUFFIX}"


class Sweeping:
    """Removes indexes once nothing that is published has them any more: after a start, and a while after datasets were withdrawn or
    published anew, for as many as there are by then."""

    def __init__(self, logs: Logs, store: Store, pause_seconds: float = PAUSE_SECONDS) -> None:
        self._logs, self._store, self._pause_seconds = logs, store, pause_seconds
        self._again = False
        self._task: asyncio.Task[None] | None = None

    def committed(self, changes: Changes, _evidence: tuple[Evidence, ...]) -> None:
        """Listens to commits."""
        replaced = any(isinstance(record, Dataset) and record.version > 1 for record in changes.saves)
        if replaced or any(of is Dataset for of, _ in changes.deletes):
            self.start()

    def start(self) -> None:
        """Look at all that is published, once more if that is being done."""
        self._again, self._logs.swept = True, False
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._sweep(), name="content logs")

    async def _sweep(self) -> None:
        failures = 0
        while self._again:
            await asyncio.sleep(pause_seconds(max(failures, 1), self._pause_seconds))
            self._again = False
            try:
                addresses = await self._published()
                if self._again:
                    continue
                if removed := await asyncio.to_thread(self._logs.sweep, addresses):
                    telemetry.log.info("indexes removed", count=removed)
            except Exception as error:  # of a disk, or for want of descriptors: what is left then would stay for good
                failures += 1
                telemetry.log.error("indexes not looked at", failures=failures, exc_info=error)
                self._again = True
            else:
                failures, self._logs.swept = 0, not self._again

    async def _published(self) -> list[Mapping[str, Any]]:
        """The addresses of all that is published; of a part of it, once something else was committed: then it is looked at once more."""
        addresses, after = list[Mapping[str, Any]](), None
        while not self._again:
            page = await self._store.datasets(after=after, before=None, limit=PAGE)
            addresses += [dataset.source for dataset in page.items]
            if (after := page.next) is None:
                break
        return addresses

    async def close(self) -> None:
        await stopped(self._task)


class _Indexed:
    """See `Logs.indexing`."""

    def __init__(self, logs: Logs, inner: Sources) -> None:
        self._logs, self._inner = logs, inner

    async def index(self, address: Mapping[str, Any], along: Along | None = None) -> tuple[Mapping[str, Any], Stat]:
        """Read the source once: for its digest, and for its content log. See `connector.ports.Sources`."""
        unit = unit_of(str(address.get("media_type") or ""))
        with telemetry.index_seconds.time(), self._logs.begin(unit) as writing:

            def both(piece: memoryview) -> None:
                writing.update(piece)
                if along is not None:
                    along(piece)

            pinned, stat = await self._inner.index(address, both)
            self._logs.trust(pinned)
            if unit == unit_of(stat.media_type):  # else it is made at first need: only now is it known to have records
                await asyncio.to_thread(self._logs.keep, writing, pinned, (), stat.media_type, stat.sha256)
                stat = replace(stat, counted=writing.unit != "none")
        return pinned, stat

    async def open(self, address: Mapping[str, Any]) -> Source:
        """See `connector.ports.Sources`."""
        return await self._inner.open(address)


def header_of(size_bytes: int, media_type: str, salt: bytes, unit: str) -> Header:
    """Leaf 0 of data of ours. A media type that no header can hold stands there as bytes of any kind."""
    return Header(CHUNK_BYTES, size_bytes, media_type if MEDIA_TYPE.fullmatch(media_type) else OCTETS, unit, salt)


def _source(address: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(address, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _secret(path: Path) -> bytes:
    """The secret of a folder, made at first. Raises OSError, SettingsError if it is not whole."""
    if not path.exists():
        part = path.with_name(f"{PART}{SECRET}")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        try:
            os.write(descriptor, os.urandom(SECRET_BYTES))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(part, path)
        try:
            sync(path.parent)
        except OSError:
            path.unlink()  # the next start would find it, and a loss of power not
            raise
    if len(secret := path.read_bytes()) != SECRET_BYTES:
        raise SettingsError(f"`{path}` does not have {SECRET_BYTES} bytes; restore it, or remove it: then all content logs are other ones")
    return secret
