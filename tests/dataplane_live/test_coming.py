"""What a source has sent and is in no leaf yet: when it is due, and how much of it waits."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from connector.dataplane_live.coming import HOP_BYTES, Coming
from connector.errors import SourceFailed
from connector.metering.content import CHUNK_BYTES
from connector.ports.live import Records

pytestmark = pytest.mark.asyncio
LONG = 3600.0


async def batches(taken: list[int], *sizes: int, failed: bool = False, stays: bool = False) -> AsyncGenerator[Records, None]:
    for number, size in enumerate(sizes):
        taken.append(number)
        yield Records(b"%d" % (number % 10) * (size - 1) + b"\n", str(number))
    if failed:
        raise SourceFailed("it has failed")
    if stays:
        await asyncio.Event().wait()


async def due(coming: Coming) -> tuple[int, str | None] | None:
    async with asyncio.timeout(10):
        found = await coming.next()
    return None if found is None else (len(found[0]), found[1])


async def test_little_is_due_when_its_time_is_up_and_more_than_a_chunk_when_no_more_comes():
    for size, seal_seconds in ((10, 0.05), (CHUNK_BYTES + 1, LONG)):
        coming = Coming(seal_seconds)
        filling = asyncio.create_task(coming.fill(batches([], size, stays=True)))
        assert await due(coming) == (size, "0")
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)


async def test_little_that_is_not_due_waits_for_more():
    coming = Coming(LONG)
    filling = asyncio.create_task(coming.fill(batches([], 10, 10, CHUNK_BYTES, stays=True)))
    assert await due(coming) == (CHUNK_BYTES + 20, "2")
    filling.cancel()
    await asyncio.gather(filling, return_exceptions=True)


async def test_no_more_than_a_hop_and_a_batch_is_taken_ahead():
    taken, size = list[int](), HOP_BYTES // 2 - 10
    coming = Coming(LONG)
    filling = asyncio.create_task(coming.fill(batches(taken, *[size] * 9)))
    assert await due(coming) == (3 * size, "2")
    for _ in range(20):
        await asyncio.sleep(0)
    assert taken == [0, 1, 2, 3, 4, 5]
    assert await due(coming) == (3 * size, "5")
    assert await due(coming) == (3 * size, "8")
    await filling
    assert await due(coming) is None


async def test_what_came_before_its_source_failed_is_not_lost():
    coming = Coming(LONG)
    filling = asyncio.create_task(coming.fill(batches([], 10, 20, failed=True)))
    assert await due(coming) == (30, "1")
    assert await due(coming) is None
    with pytest.raises(SourceFailed):
        await filling
