"""What every implementation of the ports `Sources` and `Source` must do, as tests. An adapter's test file inherits, and its
fixture `place` says where the bytes of one source come from."""

import asyncio
import hashlib
import json
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from connector.errors import InvalidRequest, SinkFailed, SourceFailed
from connector.ports import Source, Sources, Stat
from tests.dataplane.rig import some_bytes

KIB, MIB = 1024, 1024 * 1024
CONTENT = some_bytes(2 * MIB + 4321)
SMALL = b"patient,age\nA,1\n"


class Place(ABC):
    """Where one source lies, and what happens to it."""

    sources: Sources

    @abstractmethod
    def put(self, content: bytes) -> Mapping[str, Any]:
        """Let the source be `content`; returns the address that an operator would give."""

    @abstractmethod
    def remove(self) -> None:
        """Let there be nothing any more."""

    async def publish(self, content: bytes) -> tuple[Mapping[str, Any], Stat]:
        """Index it, and let the address go through a store, as publishing does."""
        address, stat = await self.sources.index(self.put(content))
        return json.loads(json.dumps(address)), stat


@asynccontextmanager
async def opened(place: Place, address: Mapping[str, Any]) -> AsyncIterator[Source]:
    source = await place.sources.open(address)
    try:
        yield source
    finally:
        await source.close()


async def read(source: Source, offset: int = 0, length: int | None = None) -> bytes:
    async with aclosing(source.read(offset, length)) as pieces:  # type: ignore[type-var]
        return b"".join([piece async for piece in pieces])


class SourceContract:
    """Publishing, reading, and the refusal of what is no longer what was published. `place` is a fixture."""

    pytestmark = pytest.mark.asyncio

    @pytest.mark.parametrize("content", [b"", b"x", SMALL, CONTENT], ids=len)
    async def test_what_is_published_is_known_by_size_and_digest_and_read_as_it_was(self, place: Place, content: bytes):
        address, stat = await place.publish(content)
        assert (stat.size_bytes, stat.sha256) == (len(content), hashlib.sha256(content).digest())
        async with opened(place, address) as source:
            assert await source.stat() == stat
            assert await read(source) == content
            assert await source.stat() == stat

    @pytest.mark.parametrize(
        ("offset", "length"),
        [
            (0, 0),
            (0, 1),
            (0, None),
            (1, None),
            (len(CONTENT) - 1, 1),
            (len(CONTENT) - 1, None),
            (len(CONTENT), None),
            (len(CONTENT) + 5, 7),
            (len(CONTENT) - 3, 100),
            (MIB - 1, 2),
            (MIB, MIB),
            (12_345, MIB + 99),
            (256 * KIB + 1, None),
        ],
    )
    async def test_a_span_is_exactly_these_bytes(self, place: Place, offset: int, length: int | None):
        address, _ = await place.publish(CONTENT)
        async with opened(place, address) as source:
            assert await read(source, offset, length) == CONTENT[offset : None if length is None else offset + length]

    async def test_pieces_are_of_256_kib_to_1_mib_but_for_the_last(self, place: Place):
        address, _ = await place.publish(CONTENT)
        async with opened(place, address) as source:
            sizes = [len(piece) async for piece in source.read(7, None)]
        assert sum(sizes) == len(CONTENT) - 7
        assert all(256 * KIB <= size <= MIB for size in sizes[:-1])
        assert 0 < sizes[-1] <= MIB

    async def test_a_file_descriptor_shows_the_same_bytes_or_there_is_none(self, place: Place):
        address, _ = await place.publish(CONTENT)
        async with opened(place, address) as source:
            descriptor = source.fileno()
            if descriptor is not None:
                assert os.pread(descriptor, len(CONTENT) + 1, 0) == CONTENT

    async def test_readers_do_not_disturb_each_other(self, place: Place):
        address, _ = await place.publish(CONTENT)
        async with opened(place, address) as source, opened(place, address) as other:
            spans = [(n * 70_001, 600_000) for n in range(8)]
            found = await asyncio.gather(*(read(each, *span) for span in spans for each in (source, other)))
        assert found == [CONTENT[first : first + length] for first, length in spans for _ in range(2)]

    async def test_a_reader_may_leave_in_the_middle(self, place: Place):
        address, _ = await place.publish(CONTENT)
        async with opened(place, address) as source:
            async with aclosing(source.read(0, None)) as pieces:  # type: ignore[type-var]
                assert CONTENT.startswith(await anext(pieces))
            assert await read(source, 0, 10) == CONTENT[:10]

    async def test_closing_twice_is_closing(self, place: Place):
        address, _ = await place.publish(SMALL)
        source = await place.sources.open(address)
        await source.close()
        await source.close()

    async def test_the_version_changes_with_the_bytes(self, place: Place):
        _, first = await place.publish(SMALL)
        _, second = await place.publish(SMALL.replace(b"1", b"2"))
        assert first.version != second.version
        assert first.sha256 != second.sha256

    @pytest.mark.parametrize(
        "happens",
        [
            lambda place: place.put(SMALL.replace(b"1", b"2")),
            lambda place: place.put(SMALL + b"B,2\n"),
            lambda place: place.put(SMALL[:-1]),
            lambda place: place.put(b""),
            lambda place: place.remove(),
        ],
        ids=["other bytes", "more bytes", "fewer bytes", "no bytes", "removed"],
    )
    async def test_a_source_that_changed_since_it_was_published_is_not_opened(self, place: Place, happens: Callable[[Place], object]):
        address, _ = await place.publish(SMALL)
        happens(place)
        with pytest.raises(SourceFailed):
            await place.sources.open(address)
        republished, stat = await place.publish(SMALL)
        async with opened(place, republished) as source:
            assert (await source.stat()).sha256 == stat.sha256

    @pytest.mark.parametrize(
        "happens",
        [lambda place: place.put(CONTENT[::-1]), lambda place: place.put(CONTENT + b"more"), lambda place: place.put(CONTENT[:-1])],
        ids=["other bytes", "more bytes", "fewer bytes"],
    )
    async def test_a_source_that_changes_while_it_is_open_gives_what_was_published_or_fails(
        self, place: Place, happens: Callable[[Place], object]
    ):
        address, _ = await place.publish(CONTENT)
        async with opened(place, address) as source:
            assert await read(source, 0, 10) == CONTENT[:10]
            happens(place)
            for offset, length in ((0, None), (MIB, 5)):
                with pytest.raises(SourceFailed, match="publish it again"):
                    await read(source, offset, length)

    async def test_what_is_not_there_cannot_be_published(self, place: Place):
        address = place.put(SMALL)
        place.remove()
        with pytest.raises(SourceFailed):
            await place.sources.index(address)

    async def test_the_operator_may_name_the_media_type(self, place: Place):
        address = {**place.put(SMALL), "media_type": "text/csv; charset=utf-8"}
        pinned, stat = await place.sources.index(address)
        assert stat.media_type == "text/csv; charset=utf-8"
        async with opened(place, pinned) as source:
            assert (await source.stat()).media_type == stat.media_type

    async def test_a_member_that_no_such_source_has_is_a_mistake_that_is_named(self, place: Place):
        with pytest.raises(InvalidRequest, match="no member `pasword`; it has") as caught:
            await place.sources.index({**place.put(SMALL), "pasword": "x"})
        assert caught.value.pointer == "/source/pasword"

    @pytest.mark.parametrize("content", [b"", SMALL, CONTENT], ids=len)
    async def test_who_reads_along_gets_every_byte_once_and_in_order_in_another_thread(self, place: Place, content: bytes):
        pieces, threads = bytearray(), set[int]()

        def along(piece: memoryview) -> None:
            threads.add(threading.get_ident())
            pieces.extend(piece)

        address = place.put(content)
        assert await place.sources.index(address, along) == await place.sources.index(address)
        assert pieces == content
        assert threading.get_ident() not in threads

    async def test_what_goes_wrong_for_who_reads_along_is_raised(self, place: Place):
        def along(_piece: memoryview) -> None:
            raise SinkFailed("no space")

        with pytest.raises(SinkFailed, match="no space"):
            await place.sources.index(place.put(CONTENT), along)

    async def test_publishing_what_was_published_gives_the_same(self, place: Place):
        address, stat = await place.publish(SMALL)
        assert await place.sources.index(address) == (address, stat)
