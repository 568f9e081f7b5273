"""When a receipt or an ack was signed, where a clock may have been set. Pure: both clocks are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from connector.metering.chain import AHEAD_SECONDS_MAX

SET_SECONDS: Final = 30.0  # by which the clock on the wall has run ahead of the machine's own: then somebody has set it


class Dating:
    """The time of the clock on the wall, `wall` (POSIX seconds), as far as one that nobody sets, `steady`, bears it out. A receipt is
    signed once, and so is its ack: one that a clock had dated which was set an hour ahead would be taken in an hour, even where that clock
    was mended at once."""

    def __init__(self, wall: Callable[[], float], steady: Callable[[], float]) -> None:
        self._wall, self._steady = wall, steady
        self._since = wall(), steady()

    def now(self) -> float:
        """What to date with."""
        now, (wall, steady) = self._wall(), self._since
        borne = wall + self._steady() - steady
        return now if now - borne < SET_SECONDS else borne

    def agreed(self, issued: float) -> None:
        """The other side has dated something by now: the clock on the wall counts from here on if theirs says the same, as after a machine
        that has slept."""
        if abs((now := self._wall()) - issued) <= AHEAD_SECONDS_MAX:
            self._since = now, self._steady()
