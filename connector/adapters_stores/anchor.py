"""The port `Anchor` on a small file beside the database, and in memory.

The file has two places of the same size, written in turn: one that a loss of power has torn leaves the other. It is text, so that
an operator can read which checkpoint was the last.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from connector.errors import StoreError

PLACE_BYTES = 4096  # a block: what a disk writes whole, or nearly so; a note has some 250 bytes, 1,400 at most
PLACES = 2
MODE = 0o600


class MemoryAnchor:
    """The anchor of a store in memory: both are gone together."""

    def __init__(self) -> None:
        self._notes: tuple[bytes, ...] = ()

    def read(self) -> Sequence[bytes] | None:
        """See the port."""
        return self._notes

    def write(self, note: bytes, *, durable: bool) -> None:
        """See the port."""
        self._notes = (note,)


class FileAnchor:
    """The anchor in the file `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = 0

    def read(self) -> Sequence[bytes] | None:
        """See the port. Raises StoreError if the file is there and cannot be read."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            self._make()
            return None
        except OSError as error:
            raise self._unusable(error) from error
        places = [content[at : at + PLACE_BYTES] for at in range(0, max(len(content), 1), PLACE_BYTES)]
        return [note for place in places if (note := place.rstrip(b"\0"))]

    def write(self, note: bytes, *, durable: bool) -> None:
        """See the port. Raises ValueError for a note that has no room, StoreError if the disk refuses."""
        if len(note) > PLACE_BYTES:
            raise ValueError(f"the place of a note has {PLACE_BYTES} bytes, the note {len(note)}")
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(descriptor, note.ljust(PLACE_BYTES, b"\0"), self._next * PLACE_BYTES)
                if durable:
                    os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._unusable(error) from error
        self._next = (self._next + 1) % PLACES

    def _make(self) -> None:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
            try:
                os.pwrite(descriptor, bytes(PLACES * PLACE_BYTES), 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> StoreError:
        return StoreError(
            f"the file of the last checkpoint, `{self._path}`, cannot be used: {error.strerror}; it has to be ours to read and write,"
            " on a disk with space"
        )
