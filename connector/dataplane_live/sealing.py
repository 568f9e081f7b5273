"""Whole records as leaves: hashing them takes longer than all that is done with them beside, so two threads do it.

The thread that has them shares it out with one that is free, a leaf at a time or as many as are hashed together, and writes them meanwhile:
both end with the last leaf, whatever else a core has to do. Hashing lets go of the interpreter's lock.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Executor, Future

from connector.lanes import hashing
from connector.lanes.counting import live_records
from connector.metering import live
from connector.metering.content import CHUNK_BYTES, Leaf
from connector.ports import Stage

SHARE = 64  # of the data before it a leaf is one part at most, where leaves are to be small


def at_most(least_bytes: int, log_bytes: int) -> int:
    """What a leaf may have at this end of a log: `least_bytes`, or more where there is more before it, so that a long log has no more
    leaves than it needs."""
    return min(CHUNK_BYTES, max(least_bytes, log_bytes // SHARE))


def sealed(
    data: bytes, unit: str, before: bytes, write: Callable[[], None], beside: Executor | None = None, leaf_bytes: int = CHUNK_BYTES
) -> list[Leaf]:
    """The leaves of `data`, whole records of this unit, of `leaf_bytes` at most where a record is no larger, with `write()` called on the
    way. `before` is the byte before them, b"" at the start of the log. A thread of `beside` helps, if one is free and there is more than
    one leaf. Raises what `write` does."""
    spans = tuple(live.cut(data, unit, leaf_bytes=leaf_bytes))
    step = hashing.together(len(spans))
    leaves, left = dict[int, Leaf](), iter(range(0, len(spans), step))  # each step of it is one of the interpreter's

    def some() -> None:
        for number in left:
            these = spans[number : number + step]
            for n, (hash_, (first, end)) in enumerate(zip(hashing.leaf_hashes(data, these), these, strict=True), number):
                last = data[first - 1 : first] if first else before
                leaves[n] = Leaf(hash_, end - first, live_records(data, unit, first, end, last))

    other: Future[None] | None = None
    if beside is not None and len(spans) > 1:
        try:
            other = beside.submit(some)
        except RuntimeError:  # the system starts no more threads: what has come is not lost by that
            other = None
    write()
    some()
    if other is not None and not other.cancel():
        other.result()
    return [leaves[number] for number in range(len(spans))]


async def staged(stages: Sequence[Stage], data: bytes) -> bytes:
    """What leaves of some whole records."""
    for stage in stages:
        data = b"".join([piece async for piece in stage.run(_once(data))])
    return data


async def _once(data: bytes) -> AsyncGenerator[bytes, None]:
    yield data
