"""Values that are kept at hand because they may be asked for again: at most so many, and at most so many bytes. And how often something may
be done, or is tried again.

A count alone is no bound where others choose how large a value is. Sizes are the caller's estimate, on the safe side. Pure: chance and time
are values.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
FIRST_PAUSE_SECONDS, PAUSE_SECONDS_MAX = 1.0, 300.0  # after a failure, unless somebody says otherwise
DOUBLINGS_MAX = 64  # of a pause: any that begins has come to what is longest by then
SHARE = 32  # a value of more than this part of all bytes is not kept: it would push out too many others


class Remembered(Generic[K, V]):
    """The values used last, by key. What goes over a bound pushes out what was not used for longest."""

    def __init__(self, count_max: int, bytes_max: int) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K) -> V | None:
        """The value, which counts as used now; None if it is not kept."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, size_bytes: int) -> None:
        """Keep a value in place of an earlier one of the same key, unless it is too large; then neither is kept."""
        if key in self._kept:
            self.forget(key)
        if size_bytes > self._bytes_max // SHARE:
            return
        self._kept[key] = value, size_bytes
        self.size_bytes += size_bytes
        while len(self._kept) > self._count_max or self.size_bytes > self._bytes_max:
            _, (_, freed) = self._kept.popitem(last=False)
            self.size_bytes -= freed

    def forget(self, key: K) -> None:
        """Drop a value, if it is kept."""
        if (found := self._kept.pop(key, None)) is not None:
            self.size_bytes -= found[1]

    def clear(self) -> None:
        """Drop all values."""
        self._kept.clear()
        self.size_bytes = 0


class Paces(Generic[K]):
    """How often each of many may do what costs us something that is never given back: `burst` times at once, and once more every `seconds`.
    Who was not heard of for longest is forgotten, if there are more than `count_max`."""

    def __init__(self, burst: int, seconds: float, count_max: int) -> None:
        self._burst, self._seconds, self._count_max = burst, seconds, count_max
        self._left: OrderedDict[K, tuple[float, float]] = OrderedDict()

    def take(self, key: K, now: float) -> bool:
        """Whether it may at this instant (seconds of a clock that nobody sets); if so, that was one time."""
        left, at = self._left.get(key, (float(self._burst), now))
        left = min(float(self._burst), left + (now - at) / self._seconds)
        allowed = left >= 1
        self._left[key] = (left - allowed, now)
        self._left.move_to_end(key)
        if len(self._left) > self._count_max:
            self._left.popitem(last=False)
        return allowed


def pause_seconds(
    failures: int,
    first_seconds: float = FIRST_PAUSE_SECONDS,
    longest_seconds: float = PAUSE_SECONDS_MAX,
    *,
    chance: float = 0.0,
    spread: float = 0.5,
) -> float:
    """How long to leave alone what has failed so often in a row (`failures`, at least 1): `first_seconds`, twice as long after each further
    failure, and never more than `longest_seconds`.

    Many who lost the same peer at once would come back at once. So where others fail beside us, `chance` (0 to 1, drawn anew for each
    pause) takes off what it is of the share `spread` (0 to 1) of it.
    """
    pause = min(longest_seconds, first_seconds * 2.0 ** min(failures - 1, DOUBLINGS_MAX))
    return pause * (1.0 - spread * chance)
