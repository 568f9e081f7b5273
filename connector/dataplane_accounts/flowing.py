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
        self._running = self._still = self._microseconds = 0
        self._since = 0.0

    def resume(self, microseconds: int) -> None:
        """Go on from what was counted before."""
        self._microseconds = microseconds

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around one answer with data."""
        self._count()
        self._running += 1
        try:
            yield
        finally:
            self._count()
            self._running -= 1

    @contextmanager
    def still(self, since: float | None = None) -> Iterator[None]:
        """Around a wait in which nothing of any of its answers leaves by our own word, `since` an instant of `monotonic`, or now."""
        self._count(since)
        self._still += 1
        try:
            yield
        finally:
            self._count()
            self._still -= 1

    @property
    def runs(self) -> bool:
        """Whether data flow now."""
        return self._running > 0

    @property
    def microseconds(self) -> int:
        """The time so far."""
        return self._until(monotonic())

    def _until(self, instant: float) -> int:
        runs = self._running and not self._still
        return self._microseconds + (int(max(0.0, instant - self._since) * MICROSECONDS) if runs else 0)

    def _count(self, until: float | None = None) -> None:
        now = monotonic()
        self._microseconds, self._since = self._until(now if until is None else until), now
