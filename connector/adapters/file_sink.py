"""Files below allowed directories as the end of downloads: a part that takes its name only when it is whole.

The part is `<name>.<id>.part` beside the file it will be. The id is that of the order, so that nobody else's file can stand
there, and a part belongs to one order however many want the same name. Paths obey the rules of
`connector.adapters.file_source`. A crash between giving the name and removing the part leaves two names of one file; the order
tidies up when it goes on.

What a disk has once refused to keep can be read, and may not be on it: the kernel says so once, and to whoever flushes it again that all is
well. An open part flushes nothing more then, and its file carries a mark, as long as the kernel holds it: whoever opens it next writes all
of it once more. Where a file system has no such mark the part is removed: nobody takes it up again.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import re
import stat
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from connector.adapters.file_source import hash_file, locate, open_directory, open_regular
from connector.adapters_streams.naming import SUFFIX, disclaim, name_new, tidied
from connector.errors import Contradiction, InvalidRequest, SinkFailed
from connector.ports.sinks import Sink

MODE = 0o600  # data under a policy: what others may read is for its owner to say
DOUBTED = stat.S_ISVTX  # the mark of a part that the disk did not keep: nobody reads this bit of a file
REFUSED = "the disk has refused to keep what was written"
AGAIN_BYTES = 4 * 1024 * 1024  # are written once more at a time
POINTER = "/out"
WRITE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
T = TypeVar("T")


class FileSinks:
    """Downloads into files below `roots` (directories), but not into `ours`: directories and files of the connector itself, with whatever
    else has a name that begins like such a file's. What a peer sends is neither a key of ours nor a member of the registry."""

    def __init__(self, roots: Sequence[Path], ours: Sequence[Path] = ()) -> None:
        self.roots, self._ours = tuple(roots), tuple(ours)
        self._taken: set[tuple[int, int, str]] = set()

    async def check(self, out: str, part: str, *, overwrite: bool) -> None:
        """See `connector.ports.sinks.Sinks`."""
        directory, name = self._directory(out)
        try:
            _demand_free(directory, name, _part_name(name, part), out, overwrite)
            self._place(directory, name, out)
        except OSError as error:
            raise _failed(error, out) from None
        finally:
            os.close(directory)

    async def open(self, out: str, part: str, *, overwrite: bool) -> Sink:
        """Open `<out>.<part>.part`, kept from an earlier attempt or new. See `connector.ports.sinks.Sinks`."""
        # On the loop: a cancelled hop to a thread would leave the lock behind, and these calls only touch directory entries.
        directory, name = self._directory(out)
        try:
            part_name = _part_name(name, part)
            _demand_free(directory, name, part_name, out, overwrite)
            place = self._place(directory, name, out)
            descriptor = _open_part(directory, part_name, out)
        except BaseException as error:
            os.close(directory)
            raise (_failed(error, out) if isinstance(error, OSError) else error) from None
        self._taken.add(place)
        return FileSink(directory, name, part_name, descriptor, out, overwrite, lambda: self._taken.discard(place))

    def _place(self, directory: int, name: str, out: str) -> tuple[int, int, str]:
        """What stands for the place, however it is spelled. Raises SinkFailed if a download to it is open."""
        found = os.fstat(directory)
        place = (found.st_dev, found.st_ino, name)
        if place in self._taken:
            raise _busy(out)
        return place

    async def existing(self, out: str, part: str) -> tuple[int, bytes] | None:
        """Hash the file that has this name already. See `connector.ports.sinks.Sinks`."""
        stop = threading.Event()
        return await _in_thread(self._existing, out, part, stop, stop=stop)

    def _existing(self, out: str, part: str, stop: threading.Event) -> tuple[int, bytes] | None:
        directory, name = self._directory(out)
        try:
            descriptor = open_regular(directory, name, POINTER)
            try:
                if tidied(directory, _part_name(name, part), name, os.fstat(descriptor)):
                    return None
                size_bytes, digest = hash_file(descriptor, stop)
                return size_bytes, digest.digest()
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failed(error, out) from None
        finally:
            os.close(directory)

    def _directory(self, out: str) -> tuple[int, str]:
        root, parts = locate(out, self.roots, POINTER, "pulls.roots")
        place = root.resolve().joinpath(*parts)
        for mine in (each.resolve() for each in self._ours):
            beside = place.parent == mine.parent and place.name.startswith(mine.name) and not mine.is_dir()
            if beside or mine == place or mine in place.parents:
                said = f"`{out}` would stand in or beside `{mine.name}`, which is the connector's own; name a file elsewhere"
                raise InvalidRequest(said, pointer=POINTER)
        try:
            return open_directory(root, parts[:-1], POINTER), parts[-1]
        except OSError as error:
            raise _failed(error, out) from None


class FileSink:
    """One open part. It is locked: two processes never write to the same one. `release` gives its place free."""

    def __init__(
        self, directory: int, name: str, part: str, descriptor: int, out: str, overwrite: bool, release: Callable[[], None]
    ) -> None:
        self._directory, self._name, self._part, self._descriptor = directory, name, part, descriptor
        self._out, self._overwrite, self._release = out, overwrite, release
        self._appended_bytes, self._digest = 0, hashlib.sha256()
        self._marked = self._doubted = bool(os.fstat(descriptor).st_mode & DOUBTED)

    @property
    def size_bytes(self) -> int:
        """As the file system has it: what is moved without copying passes by us. Raises SinkFailed."""
        try:
            return os.fstat(self._descriptor).st_size
        except OSError as error:  # of a file system elsewhere
            raise _failed(error, self._out) from None

    def digest(self) -> bytes:
        return self._digest.digest()

    async def resume(self) -> int:
        stop = threading.Event()
        await self._do(self._once_more, stop, stop=stop)
        self._appended_bytes, self._digest = await self._do(hash_file, self._descriptor, stop, stop=stop)
        return self._appended_bytes

    async def restart(self) -> None:
        await self._do(_empty, self._descriptor)
        self._doubted = self._doubted and not self._marked
        self._appended_bytes, self._digest = 0, hashlib.sha256()

    async def append(self, pieces: Sequence[bytes]) -> None:
        await self._do(self._append, pieces)

    def _append(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                written = os.pwrite(self._descriptor, rest, self._appended_bytes)
                # Counted as it is written: after an error size and hash still say what the part holds.
                self._digest.update(rest[:written])
                self._appended_bytes += written
                rest = rest[written:]

    async def extents(self) -> Sequence[tuple[int, int]]:
        stop = threading.Event()
        await self._do(self._once_more, stop, stop=stop)
        return await self._do(_extents, self._descriptor)

    def _once_more(self, stop: threading.Event) -> None:
        """Write what an earlier attempt has left once more, if the disk did not keep it; nobody writes yet."""
        if not (self._marked and self._doubted):
            return
        for first, end in _extents(self._descriptor):
            for at in range(first, end, AGAIN_BYTES):
                if stop.is_set():
                    return
                _write(self._descriptor, at, _read(self._descriptor, at, min(AGAIN_BYTES, end - at)))
        self._doubted = False

    def _flush(self, flush: Callable[[int], None]) -> None:
        if self._doubted:
            raise OSError(errno.EIO, REFUSED)
        try:
            flush(self._descriptor)
        except OSError:
            self._doubted, self._marked = True, False
            with suppress(OSError):
                os.fchmod(self._descriptor, MODE | DOUBTED)
            if not os.fstat(self._descriptor).st_mode & DOUBTED:
                self._discard()
            raise
        if self._marked:
            os.fchmod(self._descriptor, MODE)
            self._marked = False

    async def write(self, offset: int, piece: bytes | memoryview) -> None:
        await self._do(_write, self._descriptor, offset, piece)

    async def read(self, offset: int, length: int) -> bytes:
        return await self._do(_read, self._descriptor, offset, length)

    async def cut(self, size_bytes: int) -> None:
        if self.size_bytes > size_bytes:
            await self._do(os.ftruncate, self._descriptor, size_bytes)

    async def sync(self) -> None:
        await self._do(self._flush, os.fdatasync)

    def fileno(self) -> int | None:
        return self._descriptor

    async def reserve(self, more_bytes: int) -> None:
        free = await self._do(_free_bytes, self._descriptor)
        if more_bytes > free:
            raise SinkFailed(f"there is no space for `{self._out}`: {more_bytes} bytes to come, {free} free; the part is kept", full=True)

    async def commit(self, *, durable: bool = True) -> None:
        await self._do(self._commit, durable)

    def _commit(self, durable: bool) -> None:
        if durable:
            self._flush(os.fsync)
        elif self._marked:
            os.fchmod(self._descriptor, MODE)  # it is no part any more
        part = self._part
        if not _is_at(self._directory, part, self._descriptor):
            raise SinkFailed(f"`{_beside(self._out, part)}` was removed or replaced while it was written; ask again")
        if self._overwrite:
            os.replace(part, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        else:
            name_new(self._directory, part, self._name)
        if durable:
            os.fsync(self._directory)

    async def discard(self) -> None:
        await self._do(self._discard)

    def _discard(self) -> None:
        if _is_at(self._directory, self._part, self._descriptor):
            with suppress(FileNotFoundError):
                os.unlink(self._part, dir_fd=self._directory)
        os.fsync(self._directory)

    async def close(self) -> None:
        opened, self._descriptor, self._directory = (self._descriptor, self._directory), -1, -1
        if opened[0] < 0:  # once, whatever comes of it: place and numbers may be somebody else's by then
            return
        self._release()
        try:
            os.close(opened[0])
        except OSError as error:  # file systems elsewhere say only now what they have not kept
            raise _failed(error, self._out) from None
        finally:
            os.close(opened[1])

    async def _do(self, job: Callable[..., T], *args: object, stop: threading.Event | None = None) -> T:
        try:
            return await _in_thread(job, *args, stop=stop)
        except OSError as error:
            raise _failed(error, self._out) from None


def _open_part(directory: int, part: str, out: str) -> int:
    descriptor = os.open(part, WRITE, MODE, dir_fd=directory)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise InvalidRequest(f"`{_beside(out, part)}` is not a plain file of its own; remove it", pointer=POINTER)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held the lock until now may have given the file its name since we opened it: it is no part any more.
        if not _is_at(directory, part, descriptor):
            raise BlockingIOError
    except BlockingIOError:
        os.close(descriptor)
        raise _busy(out) from None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _part_name(name: str, part: str) -> str:
    """Of an id only what is its own and fits into any file name."""
    return f"{name}.{re.sub('[^0-9A-Za-z-]+', '-', part.removeprefix('urn:uuid:'))}{SUFFIX}"


def _beside(out: str, part: str) -> str:
    """The part as an operator finds it."""
    return out[: out.rfind("/") + 1] + part


def _busy(out: str) -> SinkFailed:
    return SinkFailed(f"another download is writing to `{out}`; wait for it or name another file")


def _is_at(directory: int, name: str, descriptor: int) -> bool:
    """Whether `name` in `directory` is the open file itself."""
    try:
        found, own = os.stat(name, dir_fd=directory, follow_symlinks=False), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)


def _demand_free(directory: int, name: str, part: str, out: str, overwrite: bool) -> None:
    """Refuse a name that is taken, or that leaves no room for that of the part; also tidies up after a crash in `commit`."""
    with suppress(FileNotFoundError):
        os.stat(part, dir_fd=directory, follow_symlinks=False)
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        disclaim(directory, part)
        return
    if not stat.S_ISREG(found.st_mode):
        raise InvalidRequest(f"`{out}` is there and is not a regular file; name another", pointer=POINTER)
    if not tidied(directory, part, name, found) and not overwrite:
        raise Contradiction(f"`{out}` exists already; remove it or name another file")


def _write(descriptor: int, offset: int, piece: bytes | memoryview) -> None:
    rest = memoryview(piece)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        offset, rest = offset + written, rest[written:]


def _empty(descriptor: int) -> None:
    """Not what is empty: ext4 takes a file that was cut to nothing for one that is replaced, and its close waits for the disk."""
    if os.fstat(descriptor).st_size:
        os.ftruncate(descriptor, 0)


def _read(descriptor: int, offset: int, length: int) -> bytes:
    """Up to the end of the file, however many calls that takes."""
    pieces = []
    while length and (piece := os.pread(descriptor, length, offset)):
        pieces.append(piece)
        offset, length = offset + len(piece), length - len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _extents(descriptor: int) -> list[tuple[int, int]]:
    """By what the file system has kept blocks for; one that knows no gaps says that there are none."""
    found: list[tuple[int, int]] = []
    end = 0
    while True:
        try:
            first = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing behind it
                return found
            raise
        end = os.lseek(descriptor, first, os.SEEK_HOLE)
        found.append((first, end))


def _free_bytes(descriptor: int) -> int:
    found = os.fstatvfs(descriptor)
    return found.f_bavail * found.f_frsize


def _failed(error: OSError, out: str) -> SinkFailed | InvalidRequest | Contradiction:
    if error.errno in FULL:
        return SinkFailed(f"the disk is full: `{out}` cannot be written; the part is kept, free some space and ask again", full=True)
    if error.errno == errno.ENAMETOOLONG:
        return InvalidRequest(f"`{out}` has a name that is too long for this file system", pointer=POINTER)
    if error.errno == errno.ELOOP:
        return InvalidRequest(f"the part of `{out}` is a symbolic link; remove it", pointer=POINTER)
    if error.errno == errno.EEXIST:
        return Contradiction(f"`{out}` came into being meanwhile; the part is kept beside it")
    if error.errno == errno.ENOENT:
        return InvalidRequest(f"the directory of `{out}` does not exist; make it first", pointer=POINTER)
    return SinkFailed(f"`{out}` cannot be written: {error.strerror}")


async def _in_thread(job: Callable[..., T], *args: object, stop: threading.Event | None = None) -> T:
    """Run `job` in a thread and never leave it behind: a cancelled caller waits for its end, so that no descriptor is closed
    under it. `stop` tells a long job to hurry."""
    running = asyncio.get_running_loop().run_in_executor(None, job, *args)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if stop is not None:
            stop.set()
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        running.exception()
        raise
