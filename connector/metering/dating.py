"""What time it is, where a clock may have been set. Pure: both clocks are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from connector.metering.chain import AHEAD_SECONDS_MAX

SET_SECONDS: Final = 30.0  # by which the clock on the wall has run ahead of the machine's own: then somebody has set it
BELIEVED_SECONDS: Final = 86_400.0  # that it has to stay ahead to be right all the same: an operator mends a wrong one in less


class Dating:
    """The time of the clock on the wall, `wall` (POSIX seconds), as far as one that nobody sets, `steady`, bears it out. A receipt is
    signed once, and so is its ack: one that a clock had dated which was set an hour ahead would be taken in an hour, even where that clock
    was mended at once. The other one may stand still while a machine is halted: so the clock on the wall counts again after
    BELIEVED_SECONDS, or once somebody else's has `agreed`."""

    def __init__(self, wall: Callable[[], float], steady: Callable[[], float]) -> None:
        self._wall, self._steady = wall, steady
        self._since = wall(), steady()
        self._ahead: float | None = None  # since when, by the steady one, the other was at each call

    def now(self) -> float:
        """What to date with."""
        now, steady, (wall, since) = self._wall(), self._steady(), self._since
        borne = wall + steady - since
        if now - borne < SET_SECONDS:
            self._ahead = None
            return now
        self._ahead = steady if self._ahead is None else self._ahead
        if steady - self._ahead < BELIEVED_SECONDS:
            return borne
        self._since, self._ahead = (now, steady), None
        return now

    def agreed(self, issued: float) -> None:
        """The other side has dated something by now: the clock on the wall counts from here on if theirs says the same, as after a machine
        that has slept."""
        if abs((now := self._wall()) - issued) <= AHEAD_SECONDS_MAX:
            self._since = now, self._steady()
