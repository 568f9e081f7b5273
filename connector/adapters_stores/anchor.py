"""The port `Anchor` on a small file beside the database, and in memory.

The file has two places of the same size, written in turn: one that a loss of power has torn leaves the other. Each begins with a line
that counts the writes, then comes the note: an operator can read which checkpoint was the last.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

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
        self._written = 0
        self._lock = Lock()  # it is called from threads

    def read(self) -> Sequence[bytes] | None:
        """See the port. Raises StoreError if the file is there and cannot be read."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            self._make()
            return None
        except OSError as error:
            raise self._unusable(error) from error
        places = [content[at : at + PLACE_BYTES].rstrip(b"\0") for at in range(0, len(content), PLACE_BYTES)]
        found = sorted(_counted(place) for place in places if place)
        self._written = max((count for count, _ in found), default=0)
        return [note for _, note in found]

    def write(self, note: bytes, *, durable: bool) -> None:
        """See the port. Raises ValueError for a note that has no room, StoreError if the disk refuses."""
        with self._lock:
            count = self._written + 1
            place = b"%d\n%s" % (count, note)
            if len(place) > PLACE_BYTES:
                raise ValueError(f"the place of a note has {PLACE_BYTES} bytes, the note {len(note)}")
            try:
                descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.pwrite(descriptor, place.ljust(PLACE_BYTES, b"\0"), count % PLACES * PLACE_BYTES)
                    if durable:
                        os.fdatasync(descriptor)
                finally:
                    os.close(descriptor)
            except OSError as error:
                raise self._unusable(error) from error
            self._written = count

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


def _counted(place: bytes) -> tuple[int, bytes]:
    """How many writes there had been, and the note; what has no count is torn and the oldest."""
    count, _, note = place.partition(b"\n")
    return (int(count), note) if count.isdigit() else (0, place)
