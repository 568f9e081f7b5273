"""Files below allowed directories as sources, pinned to what was published.

A path is resolved one component at a time from an open directory, and no component may be a symbolic link: what is opened
lies below the root even if somebody changes directories meanwhile, which comparing names could not promise.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import mimetypes
import os
import stat
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from connector.errors import ConnectorError, InvalidRequest, SourceFailed
from connector.ports import Along, Source, Stat

PIECE_BYTES = 1024 * 1024  # a hop to a thread costs 0.1 ms: it pays from here on
ALONG_BYTES, ALONG_PIECES = 512 * 1024, 3  # who reads along is so far behind at most: neither waits, and what both read is in a cache
TURN_BYTES = 256 * 1024  # between two who read the same on one core
OCTETS = "application/octet-stream"
MEMBERS = frozenset({"type", "path", "media_type", "inode", "mtime_ns", "size_bytes", "sha256"})
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK opening a FIFO that took the file's place would wait for a writer.
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def locate(path: object, roots: Sequence[Path], pointer: str, setting: str) -> tuple[Path, tuple[str, ...]]:
    """Split `path` into one of `roots` and the components below it, by its text alone.

    A relative path counts from the first root. `pointer` is the place in the caller's document and
    `setting` the field that allows directories, for the error. Raises InvalidRequest for anything that is not plainly a name below a root.
    """
    if not isinstance(path, str) or not path:
        raise InvalidRequest("the path is empty; name a file below an allowed directory", pointer=pointer)
    if any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in path):  # noqa: PLR2004 - C0, DEL, C1, surrogates
        raise InvalidRequest("the path contains control characters; name a file below an allowed directory", pointer=pointer)
    if not roots:
        raise InvalidRequest(f"no directory is allowed here; name one in `{setting}`", pointer=pointer)
    root, below = _split(path, roots, pointer, setting)
    parts = tuple(part for part in below.split("/") if part not in ("", "."))
    if not parts or below.endswith(("/", "/.")):
        raise InvalidRequest(f"`{path}` is a directory; name a file", pointer=pointer)
    if ".." in parts:
        raise InvalidRequest(f"`{path}` contains `..`; write the path without it", pointer=pointer)
    return root, parts


def _split(path: str, roots: Sequence[Path], pointer: str, setting: str) -> tuple[Path, str]:
    if not path.startswith("/"):
        return roots[0], path
    for root in roots:
        for spelling in {os.path.abspath(root), os.path.realpath(root)}:
            if f"{path}/".startswith(spelling.rstrip("/") + "/"):
                return root, path[len(spelling.rstrip("/")) + 1 :]
    allowed = ", ".join(f"`{root}`" for root in roots)
    remedy = f"name a file there, or allow its directory in `{setting}`"
    raise InvalidRequest(f"`{path}` does not lie below an allowed directory: {allowed}; {remedy}", pointer=pointer)


def open_directory(root: Path, parts: Sequence[str], pointer: str) -> int:
    """Open the directory `parts` below `root`. Raises InvalidRequest for a link on the way, OSError for the rest. The
    root itself may be a link: it is the operator's word."""
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            below = os.open(part, DIRECTORY, dir_fd=directory)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise InvalidRequest(f"`{part}` on the way is a link or no directory; name the true path", pointer=pointer) from None
            raise
        finally:
            os.close(directory)
        directory = below
    return directory


def open_regular(directory: int, name: str, pointer: str) -> int:
    """Open the regular file `name` in `directory` for reading. Raises InvalidRequest if it is anything else, OSError."""
    # Looked at before opening because opening a device can already do something, and after because it may have changed.
    _demand_regular(os.stat(name, dir_fd=directory, follow_symlinks=False), name, pointer)
    descriptor = os.open(name, READ, dir_fd=directory)
    try:
        _demand_regular(os.fstat(descriptor), name, pointer)
    except InvalidRequest:
        os.close(descriptor)
        raise
    return descriptor


def _demand_regular(found: os.stat_result, name: str, pointer: str) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise InvalidRequest(f"`{name}` is a symbolic link; name the file it points to", pointer=pointer)
    if stat.S_ISDIR(found.st_mode):
        raise InvalidRequest(f"`{name}` is a directory; name a file in it", pointer=pointer)
    if not stat.S_ISREG(found.st_mode):
        raise InvalidRequest(f"`{name}` is not a regular file; name one", pointer=pointer)


def hash_file(descriptor: int, stop: threading.Event) -> tuple[int, hashlib._Hash]:
    """Read an open file from its start to its end; returns (bytes, hash object). Ends early, with what it has, when `stop` is set."""
    digest, offset, buffer = hashlib.sha256(), 0, memoryview(bytearray(PIECE_BYTES))
    while not stop.is_set() and (n := os.preadv(descriptor, [buffer], offset)):
        digest.update(buffer[:n])
        offset += n
    return offset, digest


def hash_along(descriptor: int, stop: threading.Event, along: Along) -> tuple[int, hashlib._Hash]:
    """As `hash_file`, and `along` reads each piece in a second thread, while this one hashes it: both let go of the interpreter. On one
    core they would only take turns, each with what the other left of the cache: a tenth slower than one after the other."""
    if len(os.sched_getaffinity(0)) == 1:
        return _hash_in_turns(descriptor, stop, along)
    digest, offset, free = hashlib.sha256(), 0, [memoryview(bytearray(ALONG_BYTES)) for _ in range(ALONG_PIECES)]
    behind: deque[tuple[memoryview, Future[None]]] = deque()
    with ThreadPoolExecutor(1, "index") as beside:
        while not stop.is_set():
            if not free:
                buffer, done = behind.popleft()
                done.result()
                free.append(buffer)
            buffer = free.pop()
            if not (n := os.preadv(descriptor, [buffer], offset)):
                break
            behind.append((buffer, beside.submit(along, buffer[:n])))
            digest.update(buffer[:n])
            offset += n
        for _, done in behind:
            done.result()
    return offset, digest


def _hash_in_turns(descriptor: int, stop: threading.Event, along: Along) -> tuple[int, hashlib._Hash]:
    digest, offset, buffer = hashlib.sha256(), 0, memoryview(bytearray(PIECE_BYTES))
    while not stop.is_set() and (n := os.preadv(descriptor, [buffer], offset)):
        for at in range(0, n, TURN_BYTES):  # what one has read is in the nearest cache for the other
            part = buffer[at : min(at + TURN_BYTES, n)]
            along(part)
            digest.update(part)
        offset += n
    return offset, digest


class FileSources:
    """Files below `roots` (directories)."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(roots)

    async def index(self, address: Mapping[str, Any], along: Along | None = None) -> tuple[Mapping[str, Any], Stat]:
        """Hash the file at `address["path"]`. See `connector.ports.Sources`."""
        if unknown := sorted(address.keys() - MEMBERS):
            raise InvalidRequest(
                f"a file source has no member `{unknown[0]}`; it has `path` and `media_type`", pointer=f"/source/{unknown[0]}"
            )
        media_type = address.get("media_type") or _guessed(address.get("path"))
        stop = threading.Event()
        try:
            pin, digest = await asyncio.to_thread(self._index, address, stop, along)
        finally:
            stop.set()
        pinned = {"type": "file", "path": address["path"], "media_type": media_type, **pin, "sha256": digest.hex()}
        return pinned, Stat(pin["size_bytes"], _version(pin), digest, media_type)

    def _index(self, address: Mapping[str, Any], stop: threading.Event, along: Along | None) -> tuple[dict[str, int], bytes]:
        descriptor = self._open(address.get("path"))
        try:
            before = _pin(os.fstat(descriptor))
            size_bytes, digest = hash_file(descriptor, stop) if along is None else hash_along(descriptor, stop, along)
            if _pin(os.fstat(descriptor)) != before or size_bytes != before["size_bytes"]:
                raise SourceFailed(f"`{address['path']}` changed while it was read; publish it when nobody writes to it")
            return before, digest.digest()
        except OSError as error:
            raise SourceFailed(f"`{address['path']}` cannot be read: {error.strerror}") from None
        finally:
            os.close(descriptor)

    async def open(self, address: Mapping[str, Any]) -> Source:
        """Open what `index` pinned. See `connector.ports.Sources`."""
        try:
            descriptor = self._open(address["path"])
        except SourceFailed:
            raise
        except ConnectorError as error:
            raise SourceFailed(f"the source is not what was published: {error.message}") from None
        source = FileSource(descriptor, address)
        try:
            await source.stat()
        except SourceFailed:
            await source.close()
            raise
        return source

    def _open(self, path: object) -> int:
        root, parts = locate(path, self.roots, "/source/path", "sources.roots")
        try:
            directory = open_directory(root, parts[:-1], "/source/path")
            try:
                return open_regular(directory, parts[-1], "/source/path")
            finally:
                os.close(directory)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise InvalidRequest(f"`{path}` has a name that is too long for this file system", pointer="/source/path") from None
            raise SourceFailed(f"`{path}` cannot be read: {error.strerror}") from None


class FileSource:
    """One open file. `address` is what `FileSources.index` returned."""

    def __init__(self, descriptor: int, address: Mapping[str, Any]) -> None:
        self._descriptor = descriptor
        self._path = address["path"]
        self._pin = {name: address[name] for name in ("inode", "mtime_ns", "size_bytes")}
        self._stat = Stat(address["size_bytes"], _version(self._pin), bytes.fromhex(address["sha256"]), address["media_type"])

    async def stat(self) -> Stat:
        self._demand_unchanged()
        return self._stat

    def _demand_unchanged(self) -> None:
        # An open file keeps its inode: a path that meanwhile names another file still gives the bytes that were published.
        try:
            same = self._descriptor >= 0 and _pin(os.fstat(self._descriptor)) == self._pin
        except OSError as error:  # of a file system elsewhere, which has lost it or does not answer
            raise SourceFailed(f"`{self._path}` cannot be read: {error.strerror}") from None
        if not same:
            raise SourceFailed(f"`{self._path}` changed since it was published: publish it again")

    async def read(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
        end = self._pin["size_bytes"] if length is None else min(offset + length, self._pin["size_bytes"])
        while offset < end:
            piece = await self._piece(offset, min(PIECE_BYTES, end - offset))
            self._demand_unchanged()
            if not piece:
                raise SourceFailed(f"`{self._path}` ended before its published size: publish it again")
            yield piece
            offset += len(piece)

    async def _piece(self, offset: int, count: int) -> bytes:
        """From the page cache at once, from the disk in a thread: the loop never waits for a disk."""
        buffer = bytearray(count)
        with suppress(OSError):  # EAGAIN: not all in memory; EOPNOTSUPP: a file system that cannot say
            if os.preadv(self._descriptor, [buffer], offset, os.RWF_NOWAIT) == count:
                return bytes(buffer)
        # A cancelled read may outlive `close`; what it then reads is nobody's and is dropped.
        try:
            return await asyncio.to_thread(os.pread, self._descriptor, count, offset)
        except OSError as error:
            raise SourceFailed(f"`{self._path}` cannot be read: {error.strerror}") from None

    def fileno(self) -> int | None:
        return self._descriptor

    async def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _guessed(path: object) -> str:
    """The media type that a name stands for. `.csv.gz` is not CSV: the bytes that leave are the compressed ones."""
    kind, encoding = mimetypes.guess_type(str(path))
    return kind if kind and not encoding else OCTETS


def _pin(found: os.stat_result) -> dict[str, int]:
    return {"inode": found.st_ino, "mtime_ns": found.st_mtime_ns, "size_bytes": found.st_size}


def _version(pin: Mapping[str, int]) -> str:
    return f"{pin['inode']}-{pin['mtime_ns']}-{pin['size_bytes']}"
