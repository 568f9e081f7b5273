"""What becomes of the bytes of a log after a loss of power: those that are gone are asked of the source again.

The hashes of all leaves that were signed are there, their bytes were never flushed. What the source sends again has to give the same
leaves, so the log goes on as it was: what was acknowledged is not sent again, and what was signed is what comes. A source that cannot go on
from where it was, or sends something else there, leaves a hole that nobody can fill, and the log ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Final, TypeVar

from connector import telemetry
from connector.dataplane_live.coming import to_its_end
from connector.dataplane_live.growing import Growing
from connector.dataplane_live.spool import Spool
from connector.errors import SourceFailed, Withdrawn
from connector.lanes.hashing import batch_bytes, leaf_hashes
from connector.ports.live import LiveSource

BROKEN: Final = "live-log-broken"
T = TypeVar("T")
READ_BYTES: Final = 1024 * 1024  # of the spool at once, where leaves are hashed one by one
TOGETHER: Final = 1024  # leaves at most: those of some logs have a few bytes
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
    while first < log.leaves:
        offset, length = log.span(first, first + 1)
        spans = _spans(log, first, max(batch_bytes(READ_BYTES), length))
        found = spool.look(offset, spans[-1][1])
        there = [span for span in spans if span[1] <= len(found)]
        for n, got in enumerate(leaf_hashes(found, there)):
            if got != log.leaf(first + n):
                return first + n
        first += len(there)
        if len(there) < len(spans):
            return first
    return first


def _refilled(log: Growing, spool: Spool, leaf: int, kept: bytes, first: int) -> tuple[int, bytes]:
    """Write as many leaves as `kept` is enough for; returns the next one, and the rest."""
    at = 0
    while spans := _spans(log, leaf, len(kept) - at):
        end, offset = leaf + len(spans), log.span(leaf, leaf)[0]
        if leaf_hashes(memoryview(kept)[at:], spans) != [log.leaf(each) for each in range(leaf, end)]:
            raise broken()
        if end > first:
            skipped = spans[max(first - leaf, 0)][0]
            spool.write(offset + skipped, [memoryview(kept)[at + skipped : at + spans[-1][1]]])
        leaf, at = end, at + spans[-1][1]
    return leaf, kept[at:]


def _spans(log: Growing, leaf: int, most_bytes: int) -> list[tuple[int, int]]:
    """Where the leaves from this one on are that have at most so many bytes together, from its first byte on; at most TOGETHER of them."""
    begin, spans = log.span(leaf, leaf)[0], list[tuple[int, int]]()
    while leaf < log.leaves and len(spans) < TOGETHER:
        offset, length = log.span(leaf, leaf + 1)
        if (end := offset - begin + length) > most_bytes:
            break
        spans.append((offset - begin, end))
        leaf += 1
    return spans
