"""The file of an index that is at hand, read where it is asked for: one that is cut short under a mapping, or lies where its disk cannot be
read, would end the process (SIGBUS), and whoever asks again would end the next one."""

from __future__ import annotations

import errno
import hashlib
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from connector.errors import DescriptorsShort, SinkFailed

READ_BYTES: Final = 1024 * 1024  # at once, of all of it


class IndexFile:
    """What the file `where`, open as `descriptor`, holds now; whoever opened that may close it. `lost` says that something of it could not
    be read any more. Raises SinkFailed."""

    def __init__(self, descriptor: int, where: Path) -> None:
        self._where, self.lost = where, False
        with disk(where, "read from"):
            self._descriptor = os.dup(descriptor)
            weakref.finalize(self, os.close, self._descriptor)
            self._size_bytes = os.fstat(descriptor).st_size

    def __len__(self) -> int:
        return self._size_bytes

    def __getitem__(self, part: slice) -> bytes:
        """The bytes of a part, as of an object of bytes. Raises SinkFailed if they cannot be read now, or are gone."""
        first, end, _ = part.indices(self._size_bytes)
        try:
            found = os.pread(self._descriptor, max(0, end - first), first)
        except OSError as error:
            self.lost = True
            raise _refused(self._where, "read from", error) from None
        if len(found) < end - first:
            self.lost = True
            raise SinkFailed(f"the index of a content log `{self._where}` was cut short; it is made anew once somebody asks again")
        return found

    def digest(self, end: int) -> bytes:
        """The SHA-256 of what stands before `end`. Raises as `__getitem__`."""
        digest = hashlib.sha256()
        for at in range(0, end, READ_BYTES):
            digest.update(self[at : min(at + READ_BYTES, end)])
        return digest.digest()


@contextmanager
def disk(where: Path, done: str = "written into", but: tuple[type[OSError], ...] = ()) -> Iterator[None]:
    """Around what is `done` with an index at a disk. Raises SinkFailed for what the system says of it, `but` for these."""
    try:
        yield
    except but:
        raise
    except OSError as error:
        raise _refused(where, done, error) from None


def _refused(where: Path, done: str, error: OSError) -> SinkFailed:
    text = f"the index of a content log cannot be {done} `{where}`: {error.strerror}"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return DescriptorsShort(text)
    return SinkFailed(f"{text}; look after that disk")
