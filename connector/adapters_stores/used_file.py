"""What was used once, in a file beside the database: the digest of its id, and until when it would count (POSIX seconds).

A process that is killed has written what it took. What a loss of power takes is of the last half minute, and is refused for another reason
unless the clock is set back besides. Two files of PART_BYTES each: the older one goes once the other one is full.
"""

from __future__ import annotations

import errno
import os
import struct
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Final

from connector import telemetry
from connector.errors import StoreError

ENTRY: Final = struct.Struct("=16sd")
DOUBLES: Final = ENTRY.size // 8  # an entry is so many, of which the last one is the instant
PART_BYTES: Final = 250_000 * ENTRY.size
MODE: Final = 0o600
FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class UsedFile:
    """The port of `signatures.used.UsedIds` on the file `path`. Raises StoreError if it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self._path, self._before = path, path.with_name(f"{path.name}.before")
        self._told, self._file = False, -1
        self._open()

    def write(self, digest: bytes, ends: float) -> None:
        """Keep one more. What a disk does not take is said once, and is known to this process all the same."""
        try:
            taken = os.write(self._file, ENTRY.pack(digest, ends))
            if taken < ENTRY.size:  # the disk is full: a part of one would displace all that follow
                os.ftruncate(self._file, self._size_bytes)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._size_bytes += taken
        except OSError as error:
            self._tell("used ids not kept", error, "after a start and a clock set back they are good again")
        if self._size_bytes >= PART_BYTES:
            self._begin_next()

    def read(self, now: float) -> list[tuple[bytes, float]]:
        """What would count at this instant, or later. Raises StoreError."""
        found = list[tuple[bytes, float]]()
        for path in (self._before, self._path):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _unusable(path, error) from None
            data = data[: len(data) // ENTRY.size * ENTRY.size]  # what a crash has cut off was not taken, nor is an instant without end
            ends = memoryview(data).cast("d")[DOUBLES - 1 :: DOUBLES]
            found += [ENTRY.unpack_from(data, number * ENTRY.size) for number, instant in enumerate(ends) if now <= instant < inf]
        return found

    def close(self) -> None:
        os.close(self._file)

    def _begin_next(self) -> None:
        """The one of now is full. It is written to until there is another: where none can be had its number, closed, would be that of
        whatever is opened next."""
        part = self._path.with_name(f"{self._path.name}.part")
        try:
            following = os.open(part, FLAGS | os.O_TRUNC, MODE)
            try:
                with suppress(FileNotFoundError):  # it has that name already, and only the next one had not got its own
                    os.replace(self._path, self._before)
                os.replace(part, self._path)
            except OSError:
                os.close(following)
                raise
        except OSError as error:
            self._tell("used ids fill their file", error, "it grows until another can be made")
        else:
            os.close(self._file)
            self._file, self._size_bytes = following, 0

    def _tell(self, what: str, error: OSError, why: str) -> None:
        if not self._told:
            telemetry.log.error(what, reason=str(error), why=why)
        self._told = True

    def _open(self) -> None:
        try:
            self._file = os.open(self._path, FLAGS, MODE)
            self._size_bytes = os.fstat(self._file).st_size
            if torn := self._size_bytes % ENTRY.size:
                self._size_bytes -= torn
                os.truncate(self._path, self._size_bytes)
        except OSError as error:
            raise _unusable(self._path, error) from None


def _unusable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"the file of what was used, `{path}`, cannot be used: {error.strerror}; it has to be ours to read and write")
