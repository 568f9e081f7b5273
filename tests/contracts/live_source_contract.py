"""What every implementation of the ports `LiveSources` and `LiveSource` must do, as tests. An adapter's test file inherits, and its
fixture `spring` says where the records of one source come from."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, nullcontext
from typing import Any

import pytest

from connector.errors import InvalidRequest, SourceFailed
from connector.metering.content import SEPARATORS
from connector.ports.live import LiveSource, LiveSources, Records, unit_of

WAIT_SECONDS = 10.0


class Spring(ABC):
    """Where one source comes from. Its records are numbered from 1, and `numbers` reads them."""

    sources: LiveSources
    resumable: bool

    @abstractmethod
    def address(self, **members: Any) -> Mapping[str, Any]:
        """The address that an operator would give."""

    @abstractmethod
    def ending(self, count: int, *, breaks: bool) -> Mapping[str, Any]:
        """The address of one like it, whose answers end after so many records, or break off there."""

    @abstractmethod
    async def remove(self) -> None:
        """Let there be nothing any more."""

    @abstractmethod
    def numbers(self, data: bytes) -> list[int]:
        """The numbers of whole records."""


@asynccontextmanager
async def opened(spring: Spring, **members: Any) -> AsyncIterator[LiveSource]:
    """Look at it, and let the address go through a store, as publishing does."""
    address, _ = await spring.sources.index(spring.address(**members))
    source = await spring.sources.open(json.loads(json.dumps(address)))
    try:
        yield source
    finally:
        await source.close()


async def taken(spring: Spring, source: LiveSource, count: int, position: str | None = None) -> tuple[list[int], list[Records]]:
    """At least so many records after a position."""
    found: list[int] = []
    batches: list[Records] = []
    async with asyncio.timeout(WAIT_SECONDS), aclosing(source.follow(position)) as coming:
        async for batch in coming:
            batches.append(batch)
            found += spring.numbers(batch.data)
            if len(found) >= count:
                break
    return found, batches


class LiveSourceContract:
    """Publishing, following, and going on. `spring` is a fixture."""

    pytestmark = pytest.mark.asyncio

    async def test_it_has_no_size_and_no_digest_and_says_what_its_records_are(self, spring: Spring):
        address, stat = await spring.sources.index(spring.address())
        assert (stat.size_bytes, stat.sha256) == (None, None)
        assert unit_of(stat.media_type) in SEPARATORS
        assert address["media_type"] == stat.media_type

    async def test_each_batch_is_whole_records_in_order(self, spring: Spring):
        address, stat = await spring.sources.index(spring.address())
        source = await spring.sources.open(address)
        found, batches = await taken(spring, source, 1000)
        assert found == list(range(found[0], found[0] + len(found)))
        ending = SEPARATORS[unit_of(stat.media_type)]
        assert all(batch.data.endswith(ending) for batch in batches)
        assert sum(batch.data.count(ending) for batch in batches) == len(found)
        await source.close()

    async def test_it_goes_on_after_any_position_that_it_has_named_or_says_that_it_cannot(self, spring: Spring):
        async with opened(spring) as source:
            _, batches = await taken(spring, source, 500)
            if not spring.resumable:
                assert not source.waits
                assert {batch.position for batch in batches} == {None}
                return
            for number in (0, len(batches) // 2, len(batches) - 1):
                last = spring.numbers(batches[number].data)[-1]
                more, _ = await taken(spring, source, 10, batches[number].position)
                assert more[:10] == list(range(last + 1, last + 11))
            assert source.waits

    async def test_a_follower_may_leave_at_any_time_and_another_begin(self, spring: Spring):
        async with opened(spring) as source:
            for _ in range(3):
                found, _ = await taken(spring, source, 1)
                assert found

    async def test_it_waits_for_whoever_asks_for_no_more(self, spring: Spring):
        async with opened(spring) as source, aclosing(source.follow(None)) as coming:
            first = await anext(coming)
            await asyncio.sleep(0.2)
            second = await anext(coming)
            assert spring.numbers(second.data)[0] == spring.numbers(first.data)[-1] + 1

    async def test_what_a_thread_of_its_own_brings_is_taken_there_in_order_before_it_is_given(self, spring: Spring):
        had: list[Records] = []
        async with opened(spring) as source, aclosing(source.follow(None, had.append)) as coming:
            given = 0
            while given < 8:
                batch = await anext(coming)
                if not batch.taken:
                    assert had == []
                    return
                assert batch is had[given]
                given += 1
            await asyncio.sleep(0.1)
            assert len(had) <= given + 4  # it waits for whoever asks for no more

    async def test_what_is_not_there_cannot_be_published_or_followed(self, spring: Spring):
        address, _ = await spring.sources.index(spring.address())
        source = await spring.sources.open(address)
        await spring.remove()
        with pytest.raises(SourceFailed):
            await spring.sources.index(spring.address())
        with pytest.raises(SourceFailed):
            await taken(spring, source, 1)
        await source.close()

    async def test_an_end_of_its_own_is_told_from_one_that_breaks_off_and_what_came_before_is_given(self, spring: Spring):
        for breaks in (False, True):
            address, _ = await spring.sources.index(spring.ending(3, breaks=breaks))
            source, found = await spring.sources.open(address), list[int]()
            with pytest.raises(SourceFailed) if breaks else nullcontext():
                async with asyncio.timeout(WAIT_SECONDS), aclosing(source.follow(None)) as coming:
                    async for batch in coming:
                        found += spring.numbers(batch.data)
            assert found == [1, 2, 3]
            assert source.waits == spring.resumable, "or the transfer would not end, or end too early"
            await source.close()

    async def test_closing_twice_is_closing(self, spring: Spring):
        async with opened(spring) as source:
            await source.close()

    async def test_a_member_that_no_such_source_has_is_a_mistake_that_is_named(self, spring: Spring):
        with pytest.raises(InvalidRequest, match="no member `pasword`; it has") as caught:
            await spring.sources.index(spring.address(pasword="x"))
        assert caught.value.pointer == "/source/pasword"

    async def test_publishing_what_was_published_gives_the_same(self, spring: Spring):
        address, stat = await spring.sources.index(spring.address())
        assert await spring.sources.index(address) == (address, stat)
