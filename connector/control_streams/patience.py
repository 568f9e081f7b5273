"""A peer that cannot be reached now is asked again: an order outlives a peer that restarts, as every message does. And a store that cannot
be read for a moment leaves none where it stood."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import random
from typing import Final, TypeVar

from connector import telemetry
from connector.control_streams.orders import passes
from connector.dsp.answers import CLOCKS_APART
from connector.errors import PeerFailed, PeerRefused, StoreError
from connector.remembered import pause_seconds

PATIENCE_SECONDS: Final = 900.0  # with a peer whose catalog cannot be reached: one that restarts or moves is back by then
CLOCK_SECONDS: Final = 86_400.0  # with one that does not take who we are, by a clock that is far from ours: an operator sees it by then
FIRST_PAUSE_SECONDS, PAUSE_SECONDS_MAX = 0.1, 5.0  # between two such attempts
CLOCK_PAUSE_SECONDS_MAX: Final = 60.0  # for a day: every five seconds came to twenty thousand requests of each order
T = TypeVar("T")


async def patiently(ask: Callable[[], Awaitable[T]], waits: Callable[[PeerFailed], None]) -> T:
    """The answer to `ask`, which is asked again for PATIENCE_SECONDS while the peer gives none or says "not now", and before that for
    CLOCK_SECONDS if it is a clock that stands between: to set one right, an operator stops what goes by it. `waits` hears why. Raises
    PeerFailed for what does not pass, or has not passed in that time, which no clock on the wall measures."""
    clock = asyncio.get_running_loop().time
    began = since = clock()
    failures = 0
    while True:
        try:
            return await ask()
        except PeerFailed as error:
            now, by_clock = clock(), isinstance(error, PeerRefused) and error.said == CLOCKS_APART
            since = now if by_clock else since
            failures += 1
            longest_seconds = CLOCK_PAUSE_SECONDS_MAX if by_clock else PAUSE_SECONDS_MAX
            pause = pause_seconds(failures, FIRST_PAUSE_SECONDS, longest_seconds, chance=random())  # noqa: S311 - spreads load
            if not passes(error) or now + pause > (began + CLOCK_SECONDS if by_clock else since + PATIENCE_SECONDS):
                raise
            waits(error)
        await asyncio.sleep(pause)


async def surely(end: Callable[[], Awaitable[T]], order: str) -> T:
    """What `end` returns, which ends the order of this id, and is repeated while the store cannot be read: nobody else would do that before
    the next start."""
    failures = 0
    while True:
        try:
            return await end()
        except StoreError as error:
            telemetry.log.error("pull not ended", pull=order, reason=error.message)
        failures += 1
        await asyncio.sleep(pause_seconds(failures, FIRST_PAUSE_SECONDS, PAUSE_SECONDS_MAX))
