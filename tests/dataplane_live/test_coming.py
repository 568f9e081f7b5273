"""What a source has sent and is in no leaf yet: when it is due, and how much of it waits."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable

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
    return None if found is None else (len(found.data), found.position)


def nobody(_data: bytes, _position: str | None) -> None:
    raise AssertionError("what the loop brings is not sealed here")


async def test_little_is_due_when_its_time_is_up_and_more_than_a_chunk_when_no_more_comes():
    for size, seal_seconds in ((10, 0.05), (CHUNK_BYTES + 1, LONG)):
        coming = Coming(seal_seconds, nobody)
        filling = asyncio.create_task(coming.fill(batches([], size, stays=True)))
        assert await due(coming) == (size, "0")
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)


async def test_little_that_is_not_due_waits_for_more():
    coming = Coming(LONG, nobody)
    filling = asyncio.create_task(coming.fill(batches([], 10, 10, CHUNK_BYTES, stays=True)))
    assert await due(coming) == (CHUNK_BYTES + 20, "2")
    filling.cancel()
    await asyncio.gather(filling, return_exceptions=True)


async def test_no_more_than_a_hop_and_a_batch_is_taken_ahead():
    taken, size = list[int](), HOP_BYTES // 2 - 10
    coming = Coming(LONG, nobody)
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
    coming = Coming(LONG, nobody)
    filling = asyncio.create_task(coming.fill(batches([], 10, 20, failed=True)))
    assert await due(coming) == (30, "1")
    assert await due(coming) is None
    with pytest.raises(SourceFailed):
        await filling


class Threaded:
    """A source with a thread of its own, which is always `ahead` batches ahead; `sealed` is what it, and whoever follows it, has sealed."""

    def __init__(self, *sizes: int, ahead: int = 2) -> None:
        self.sealed: list[tuple[int, str | None]] = []
        self.coming = Coming(0.01, self.seal)
        self._sizes, self._ahead = sizes, ahead
        self.content = b""

    def seal(self, data: bytes, position: str | None) -> None:
        self.sealed.append((len(data), position))
        self.content += data

    async def batches(self) -> AsyncGenerator[Records, None]:
        given: list[Records] = []
        for number, size in enumerate(self._sizes):
            given.append(Records(b"%d" % (number % 10) * (size - 1) + b"\n", str(number), taken=True))
            await asyncio.to_thread(self.coming.take, given[-1])
            if len(given) > self._ahead:
                yield given.pop(0)
        for each in given:
            yield each

    async def followed(self, pause_seconds: float = 0.0) -> bytes:
        """All that comes, sealed by whoever is to."""
        found = b""
        filling = asyncio.create_task(self.coming.fill(self.batches()))
        async with asyncio.timeout(10):
            while (due := await self.coming.next()) is not None:
                if not due.sealed:
                    await asyncio.sleep(pause_seconds)
                    self.seal(due.data, due.position)
                found += due.data
        await filling
        return found


@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize("pause_seconds", [0.0, 0.03])
async def test_what_comes_in_a_thread_is_sealed_there_if_it_is_much_and_always_in_its_order(ahead: int, pause_seconds: float):
    sizes = [10, 2 * HOP_BYTES, 20, CHUNK_BYTES, HOP_BYTES - 1, 2 * HOP_BYTES, *[HOP_BYTES] * 6, 5]
    source = Threaded(*sizes, ahead=ahead)
    found = await source.followed(pause_seconds)
    assert found == source.content == b"".join(b"%d" % (number % 10) * (size - 1) + b"\n" for number, size in enumerate(sizes))
    positions = [int(position or -1) for _, position in source.sealed]
    assert positions == sorted(positions)
    assert positions[-1] == len(sizes) - 1


class Lost:
    """A lock that the thread of the source gets first, which does `first` then; the event loop gets it after that."""

    def __init__(self, first: Callable[[], None]) -> None:
        self._lock, self._first = threading.Lock(), [first]

    def acquire(self, blocking: bool = True) -> bool:
        if not blocking and self._first:
            thread = threading.Thread(target=self._first.pop())
            thread.start()
            thread.join()
        return self._lock.acquire(blocking)

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


@pytest.mark.parametrize("more", [b"", b"c" * 9])
async def test_what_a_thread_has_sealed_just_before_the_loop_could_comes_first(more: bytes, monkeypatch: pytest.MonkeyPatch):
    little, much = Records(b"a" * 10, "1", taken=True), Records(b"b" * HOP_BYTES, "2", taken=True)
    rest, sealed, come = [Records(more, "3", taken=True)] if more else [], list[str | None](), asyncio.Event()
    coming = Coming(0.01, lambda _data, position: sealed.append(position))

    def first() -> None:
        for each in (much, *rest):
            coming.take(each)
        come_loop.call_soon_threadsafe(come.set)

    come_loop = asyncio.get_running_loop()
    monkeypatch.setattr(coming, "_lock", Lost(first))

    async def batches() -> AsyncGenerator[Records, None]:
        await asyncio.to_thread(coming.take, little)
        yield little
        await come.wait()
        for each in (much, *rest):
            yield each

    filling = asyncio.create_task(coming.fill(batches()))
    assert await due(coming) == (HOP_BYTES + 10, "2")
    assert await due(coming) == ((len(more), "3") if more else None)
    assert sealed == ["2"]
    await filling


async def test_nothing_more_is_sealed_in_a_thread_once_it_is_closed():
    source = Threaded()
    source.coming.close()
    source.coming.take(Records(b"x" * HOP_BYTES, "1", taken=True))
    assert source.sealed == []


async def test_a_thread_that_is_ahead_waits_for_what_is_sealed_to_be_seen():
    source = Threaded(*[HOP_BYTES] * 9, ahead=1)
    filling = asyncio.create_task(source.coming.fill(source.batches()))
    while len(source.sealed) < 2:  # noqa: ASYNC110 - a thread tells nobody
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    assert len(source.sealed) == 2
    filling.cancel()
    await asyncio.gather(filling, return_exceptions=True)
