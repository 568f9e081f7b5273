"""The time in which data flow: of all answers of a transfer together, so that two at once count once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

MICROSECONDS: Final = 1_000_000


class Flowing:
    """The time of one transfer."""

    def __init__(self) -> None:
        self._running, self._since, self._microseconds = 0, 0.0, 0

    def resume(self, microseconds: int) -> None:
        """Go on from what was counted before."""
        self._microseconds = microseconds

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around one answer with data."""
        if not self._running:
            self._since = monotonic()
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._microseconds += int((monotonic() - self._since) * MICROSECONDS)

    @property
    def runs(self) -> bool:
        """Whether data flow now."""
        return self._running > 0

    @property
    def microseconds(self) -> int:
        """The time so far."""
        return self._microseconds + (int((monotonic() - self._since) * MICROSECONDS) if self._running else 0)
