"""What was made of files, and is made anew when they are others: certificates above all, which somebody else renews.

Whoever uses such a value asks for it each time, and a look at the files goes before the answer: three calls of `stat(2)`, some
5 microseconds beside a TLS handshake of a thousand. So the next connection has the new certificate, on every file system, also
where Kubernetes swaps a directory behind a link; nothing polls, and nothing has to be told.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

AGAIN_SECONDS = 60.0  # what was refused may hold by now although its files are the same: a certificate begins to be valid
T = TypeVar("T")
Seen = tuple[tuple[int, ...], ...]


class OfFiles(Generic[T]):
    """`make()` reads `paths` and returns the value, or raises. It is called at once; what it raises then is raised here."""

    def __init__(self, paths: Sequence[Path], make: Callable[[], T]) -> None:
        self._paths, self._make = tuple(paths), make
        # Looked at before they are read: what changes in between is found at the next look.
        self._seen, self._content = self._look(), self._read()
        self.value = make()
        self._refused_at: float | None = None

    def renew(self) -> bool:
        """Make the value again if the content of the files is another. Returns whether it was. Raises what `make` raises, and keeps
        the former value."""
        self._seen, content = self._look(), self._read()
        if content == self._content:
            self._refused_at = None  # it is what is in use, perhaps again
            return False
        self._refused_at = time.monotonic()
        self.value = self._make()
        self._refused_at, self._content = None, content
        return True

    def changed(self) -> bool:
        """Whether `renew` could find something new: the files are not those that were looked at last, or they were refused a while
        ago."""
        refused = self._refused_at is not None and time.monotonic() - self._refused_at > AGAIN_SECONDS
        return refused or self._look() != self._seen

    def _look(self) -> Seen:
        return tuple(_stat(path) for path in self._paths)

    def _read(self) -> tuple[bytes, ...]:
        return tuple(_digest(path) for path in self._paths)


def _stat(path: Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()  # `make` says what is wrong with it
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return b""
