"""How long the rest of a log that nothing more comes to is kept for its consumer.

The time begins with the last that was taken, and stands still while it is we who withhold the rest: whoever cannot come is not late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from math import inf
from pathlib import Path
from time import monotonic, time
from typing import Final

from connector import telemetry
from connector.dataplane_live.ending import age_seconds, date
from connector.dsp.exchange import Process
from connector.dsp.transfer import State

BACK_SECONDS: Final = 3600.0  # that a consumer has at least after a start of ours: while we were away it could not come
UNTAKEN_SECONDS: Final = 604_800.0  # that the rest of a log that has ended is kept for a consumer who takes nothing more of it


class Rest:
    """Nothing more was taken for `waited_seconds` before, of the `kept_seconds` for which a consumer is waited for. `withheld_seconds` ago
    we have begun to withhold it; None: we do not. `news` is set where something of this may have changed."""

    def __init__(self, kept_seconds: float = UNTAKEN_SECONDS, waited_seconds: float = 0.0, withheld_seconds: float | None = None) -> None:
        self._kept_seconds = kept_seconds
        self._still_since = None if withheld_seconds is None else monotonic() - withheld_seconds
        self._since = self._now - waited_seconds
        self.news = asyncio.Event()

    @property
    def still(self) -> bool:
        """Whether the time stands still."""
        return self._still_since is not None

    @property
    def waited_seconds(self) -> float:
        """How much of the time has passed."""
        return max(0.0, self._now - self._since)

    @property
    def left_seconds(self) -> float:
        """How much of it is left, without an end while it stands still."""
        return inf if self.still else self._since + self._kept_seconds - self._now

    def taken(self, ago_seconds: float = 0.0) -> None:
        """Some was taken, so long ago: what came after that does not count."""
        self._since = max(self._since, monotonic() - ago_seconds)

    def withhold(self, withheld: bool) -> None:
        """Nothing may leave by our own word from now on; or it may again."""
        if withheld == self.still:
            return
        now, since = monotonic(), self._still_since
        if since is not None:
            self._since = min(now, self._since + now - since)
        self._still_since = now if withheld else None
        self.news.set()

    def keep(self, kept_seconds: float) -> None:
        """It is kept for so long, whatever was said before."""
        self._kept_seconds = kept_seconds
        self.news.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for news, `seconds` at most; whether some came."""
        self.news.clear()
        try:
            async with asyncio.timeout(None if seconds == inf else seconds):
                await self.news.wait()
        except TimeoutError:
            return False
        return True

    async def over(self) -> None:
        """Wait until the time has passed."""
        while (left := self.left_seconds) > 0:
            await self.wait(left)

    @property
    def _now(self) -> float:
        return monotonic() if self._still_since is None else self._still_since


class Rests:
    """Those of all transfers that are open, each kept for `kept_seconds`."""

    def __init__(self, kept_seconds: float) -> None:
        self.kept_seconds = kept_seconds
        self._known: dict[str, tuple[Rest, Path]] = {}

    def of(self, transfer: str, folder: Path, withheld: float | None = None, *, begun: bool = True) -> Rest:
        """That of a log in a folder that is opened now, where the time has `begun`. We have withheld it since `withheld` (POSIX seconds).
        Raises OSError."""
        ago_seconds = None if withheld is None else max(0.0, time() - withheld)
        waited_seconds = min(age_seconds(folder, withheld), max(0.0, self.kept_seconds - BACK_SECONDS)) if begun else 0.0
        rest = Rest(self.kept_seconds, waited_seconds, ago_seconds)
        self._known[transfer] = rest, folder
        return rest

    def keep(self, kept_seconds: float) -> None:
        """All are kept for so long from now on."""
        self.kept_seconds = kept_seconds
        for rest, _ in self._known.values():
            rest.keep(kept_seconds)

    def follow(self, process: Process) -> Callable[[], None] | None:
        """A transfer is as it says now. Where we had withheld the rest, what is given is to be called in a thread: the next start is to
        know how much of the time has passed, and knows only since when the transfer is as it says."""
        if (known := self._known.get(process.pid)) is None:
            return None
        rest, folder = known
        before = rest.still
        rest.withhold(withheld_since(process) is not None)
        if process.final:
            del self._known[process.pid]
        return partial(date, folder, rest.waited_seconds) if before and not process.final else None


async def dated(transfer: str, date: Callable[[], None]) -> None:
    """Have that written which `Rests.follow` has given."""
    try:
        await asyncio.to_thread(date)
    except OSError as error:  # the next start leaves less time than there is, and an hour at least
        telemetry.log.warning("live transfer cannot be dated", transfer=transfer, reason=str(error))


def withheld_since(process: Process) -> float | None:
    """Since when we have suspended a transfer (POSIX seconds); None if we have not: its consumer can come then, or has said itself that it
    does not."""
    return process.updated if process.meant == State.SUSPENDED and process.halted else None
