"""What becomes of the bytes of a log after a loss of power: those that are gone are asked of the source again.

The hashes of all leaves that were signed are there, their bytes were never flushed. What the source sends again has to give the same
leaves, so the log goes on as it was: what was acknowledged is not sent again, and what was signed is what comes. A source that cannot go on
from where it was, or sends something else there, leaves a hole that nobody can fill, and the log ends.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final, TypeVar

from connector import telemetry
from connector.dataplane_live.coming import to_its_end
from connector.dataplane_live.growing import Growing
from connector.dataplane_live.spool import Spool
from connector.errors import SourceFailed, Withdrawn
from connector.ports.live import LiveSource

BROKEN: Final = "live-log-broken"
T = TypeVar("T")
MENDING_SECONDS: Final = 30.0  # that a source has to send again what is gone


def broken() -> Withdrawn:
    """Why a log ends: another transfer would begin where this one began, or nobody knows where, and nobody does that unbidden."""
    text = "what was signed of this transfer is neither here nor at its source any more since the provider's machine stopped; order it anew"
    return Withdrawn(text, BROKEN)


async def mend(log: Growing, spool: Spool, source: LiveSource, staged: Callable[[bytes], Awaitable[bytes]], needed: int) -> None:
    """Let the bytes from `needed` on be those of the log. `staged` is what leaves for what comes. Raises Withdrawn if they are lost,
    SourceFailed if the source does not answer now, SinkFailed."""
    first = log.touched(needed, 0)[0]
    wrong = await _in_thread(_first_wrong, log, spool, first)
    if wrong == log.leaves:
        return
    begin, position = log.point(wrong)
    telemetry.log.warning("live data fetched again", log=log.snapshot, lost_bytes=log.end - log.span(1, wrong)[1])
    if position is None and (log.position is None or begin > 1):  # from its first record on a source may be where it was: its hashes say so
        raise broken()
    spool.first = min(spool.first, needed)
    leaf, kept = begin, b""
    try:
        async with asyncio.timeout(MENDING_SECONDS), aclosing(source.follow(position)) as batches:
            while leaf < log.leaves:
                batch = await anext(batches, None)
                if batch is None:
                    break
                kept += await staged(batch.data)
                leaf, kept = await _in_thread(_refilled, log, spool, leaf, kept, first)
    except TimeoutError:
        pass
    if leaf < log.leaves:
        raise SourceFailed("the source does not send again what was lost when the machine stopped; ask again")


async def _in_thread(work: Callable[..., T], *args: object) -> T:
    """What it returns; also who is cancelled waits for it, as nothing is closed under it."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *args))
    await to_its_end(running)
    return running.result()


def _first_wrong(log: Growing, spool: Spool, first: int) -> int:
    """The first leaf from `first` on whose bytes are not there; the number of leaves if there is none."""
    for leaf in range(first, log.leaves):
        if _hashed(spool.look(*log.span(leaf, leaf + 1))) != log.leaf(leaf):
            return leaf
    return log.leaves


def _refilled(log: Growing, spool: Spool, leaf: int, kept: bytes, first: int) -> tuple[int, bytes]:
    """Write as many leaves as `kept` is enough for; returns the next one, and the rest."""
    at = 0
    while leaf < log.leaves:
        offset, length = log.span(leaf, leaf + 1)
        piece = kept[at : at + length]
        if len(piece) < length:
            break
        if _hashed(piece) != log.leaf(leaf):
            raise broken()
        if leaf >= first:
            spool.write(offset, [piece])
        leaf, at = leaf + 1, at + length
    return leaf, kept[at:]


def _hashed(data: bytes) -> bytes:
    digest = hashlib.sha256(b"\0")
    digest.update(data)
    return digest.digest()
