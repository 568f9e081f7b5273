"""What was used once, in a file beside the database: the digest of its id, and until when it would count (POSIX seconds).

A process that is killed has written what it took. What a loss of power takes is of the last half minute, and is refused for another reason
unless the clock is set back besides. Two files of PART_BYTES each: the older one goes once the other one is full.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

from connector import telemetry
from connector.errors import StoreError

ENTRY: Final = struct.Struct("=16sd")
DOUBLES: Final = ENTRY.size // 8  # an entry is so many, of which the last one is the instant
PART_BYTES: Final = 250_000 * ENTRY.size
MODE: Final = 0o600


class UsedFile:
    """The port of `signatures.used.UsedIds` on the file `path`. Raises StoreError if it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self._path, self._before = path, path.with_name(f"{path.name}.before")
        self._told = False
        self._open()

    def write(self, digest: bytes, ends: float) -> None:
        """Keep one more. What a disk does not take is said once, and is known to this process all the same."""
        try:
            self._size_bytes += os.write(self._file, ENTRY.pack(digest, ends))
            if self._size_bytes >= PART_BYTES:
                os.close(self._file)
                os.replace(self._path, self._before)
                self._open()
        except (OSError, StoreError) as error:
            if not self._told:
                telemetry.log.error("used ids not kept", reason=str(error), why="after a start and a clock set back they are good again")
            self._told = True

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
            data = data[: len(data) // ENTRY.size * ENTRY.size]  # what a crash has cut off was not taken
            ends = memoryview(data).cast("d")[DOUBLES - 1 :: DOUBLES]
            found += [ENTRY.unpack_from(data, number * ENTRY.size) for number, instant in enumerate(ends) if instant >= now]
        return found

    def close(self) -> None:
        os.close(self._file)

    def _open(self) -> None:
        try:
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
            self._size_bytes = os.fstat(self._file).st_size
            if torn := self._size_bytes % ENTRY.size:
                self._size_bytes -= torn
                os.truncate(self._path, self._size_bytes)
        except OSError as error:
            raise _unusable(self._path, error) from None


def _unusable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"the file of what was used, `{path}`, cannot be used: {error.strerror}; it has to be ours to read and write")
