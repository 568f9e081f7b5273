"""How quick the disk is at present, and so who waits for the next COMMIT: the loop itself, or a thread beside it."""

from __future__ import annotations

from time import perf_counter

QUICK_SECONDS = 0.001  # a COMMIT that takes less is not worth waking a thread, which then has to wait for the interpreter
HELD_UP = 10  # a COMMIT on the loop that takes so many times as long is one that everybody there feels:
THREAD_SECONDS = 1.0  # for so long no further one is made there


class Pace:
    """What COMMITs take. One that takes less than `quick_seconds` is quick; how long the first one takes nobody knows."""

    def __init__(self, quick_seconds: float = QUICK_SECONDS) -> None:
        self._quick_seconds = quick_seconds
        self._took_seconds = quick_seconds
        self._thread_until = 0.0  # by `perf_counter`

    @property
    def on_loop(self) -> bool:
        """Whether the loop makes the next one: the last one was quick, and none has held the loop up lately."""
        return self._took_seconds < self._quick_seconds and perf_counter() >= self._thread_until

    def rested(self, seconds: float) -> bool:
        """Whether the disk is quick, and `seconds` without a write are more than what a COMMIT takes then."""
        return self._took_seconds < self._quick_seconds < seconds

    def took(self, seconds: float, *, on_loop: bool) -> None:
        """A COMMIT has taken so long, there or on the thread."""
        self._took_seconds = seconds
        if on_loop and seconds > HELD_UP * self._quick_seconds:
            self._thread_until = perf_counter() + THREAD_SECONDS
