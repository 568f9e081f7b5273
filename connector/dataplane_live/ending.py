"""How the log of live data ends whose source cannot go on behind its last record.

Whatever such a source sends when it is asked again may be what it has sent before, and would be billed again; or something has come between
that nobody has seen. So it is asked once for a transfer, and what came of that is the log. Which end that was outlives the process, and
whoever finds a log of such a source without any was stopped in the middle of it. A transfer that has ended so waits for its consumer as
long as it may (`rest`), which a start does not begin anew: the date of what says how it ended is what that is counted from.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator
from enum import StrEnum
from pathlib import Path
from typing import Final

from connector.dataplane_live.marks import MODE, sync
from connector.errors import SourceFailed
from connector.ports.live import Records

ENDED_FILE: Final = "ended"


class Ending(StrEnum):
    """The code that a transfer ends with."""

    ENDED = "source-ended"
    BROKE_OFF = "source-broke-off"
    LEFT = "source-left"
    UNTAKEN = "live-untaken"

    @property
    def reason(self) -> str:
        """What the operators of both sides read."""
        return REASONS[self]


REASONS: Final = {
    Ending.ENDED: "the source has ended, and all of what it sent has been delivered",
    Ending.BROKE_OFF: "the source broke off and cannot go on where it was: what has been delivered is not all of it; order it anew for all",
    Ending.LEFT: "the provider was stopped, or had no room, while the source was sending, and the source cannot go on where it was: what"
    " has been delivered is not all of it; order it anew for all",
    Ending.UNTAKEN: "the source has ended, and the rest of what it sent was not taken, or not signed for, for as long as the provider keeps"
    " it (its setting `metering.untaken_seconds`): it is gone; order it anew for all",
}


class Nowhere:
    """The port `LiveSource`, for a log that nothing more comes to."""

    waits = False
    more: tuple[Records, ...] = ()

    async def follow(self, _position: str | None, _take: object = None) -> AsyncGenerator[Records, None]:
        """There is nothing to follow, which is no end. Raises SourceFailed."""
        for batch in self.more:
            yield batch
        raise SourceFailed("the source of this log is not to be asked again")

    async def close(self) -> None:
        """Nothing is open."""


def read_ending(folder: Path) -> Ending | None:
    """How the log in `folder` has ended; None if it has not. What is not understood is no clean end. Raises OSError."""
    try:
        said = (folder / ENDED_FILE).read_text()
    except FileNotFoundError:
        return None
    return Ending(said) if said in REASONS else Ending.BROKE_OFF


def age_seconds(folder: Path, at: float | None = None) -> float:
    """How long before `at` (POSIX seconds; None: now, by the clock on the wall) the log in `folder` has ended, or was last written to.
    Raises OSError."""
    return max(0.0, (time.time() if at is None else at) - _dated(folder).stat().st_mtime)


def date(folder: Path, seconds: float) -> None:
    """Let it be so long ago, as what lies between counts for nothing. Raises OSError."""
    then = time.time() - seconds
    os.utime(_dated(folder), (then, then))


def _dated(folder: Path) -> Path:
    ended = folder / ENDED_FILE
    return ended if ended.exists() else folder


def write_ending(folder: Path, ending: Ending) -> None:
    """Let it be read also after a loss of power. In a thread. Raises OSError."""
    part = folder / f"{ENDED_FILE}.part"
    part.write_text(ending)
    part.chmod(MODE)
    sync(part)
    part.rename(folder / ENDED_FILE)
    sync(folder)
