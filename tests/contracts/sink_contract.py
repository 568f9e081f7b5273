"""What every implementation of the ports `Sinks` and `Sink` must do, as tests. An adapter's test file inherits, and its fixture `shelf`
says what stands under a name in the end."""

import asyncio
import hashlib
import os
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from connector.errors import Contradiction, SinkFailed
from connector.ports.sinks import Sink, Sinks
from tests.dataplane.rig import some_bytes

KIB = 1024
CONTENT = some_bytes(3 * 256 * KIB + 4321)
NAME, ID, OTHER = "a.bin", "urn:uuid:01", "urn:uuid:02"


class Shelf(ABC):
    """Where one kind of sink puts its things."""

    sinks: Sinks

    @abstractmethod
    def under(self, name: str) -> bytes | None:
        """What stands under this name, or None."""

    @abstractmethod
    def put(self, name: str, content: bytes) -> None:
        """Let something stand under this name that no download of ours has brought."""

    @abstractmethod
    def parts(self) -> int:
        """How many parts there are."""


@asynccontextmanager
async def opened(shelf: Shelf, name: str = NAME, part: str = ID, *, overwrite: bool = False) -> AsyncIterator[Sink]:
    sink = await shelf.sinks.open(name, part, overwrite=overwrite)
    try:
        yield sink
    finally:
        await sink.close()


def digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


class SinkContract:
    """In order and at offsets; taken up, begun anew, thrown away; named once. `shelf` is a fixture."""

    pytestmark = pytest.mark.asyncio

    async def test_what_is_appended_is_hashed_and_takes_its_name_when_it_is_whole_and_not_before(self, shelf: Shelf):
        async with opened(shelf) as sink:
            await sink.reserve(len(CONTENT))
            for first in range(0, len(CONTENT), 100_000):
                await sink.append([CONTENT[first : first + 1], CONTENT[first + 1 : first + 100_000]])
                end = min(first + 100_000, len(CONTENT))
                assert (sink.size_bytes, sink.digest()) == (end, digest(CONTENT[:end]))
                assert (shelf.under(NAME), shelf.parts()) == (None, 1)
            await sink.commit()
        assert (shelf.under(NAME), shelf.parts()) == (CONTENT, 0)
        assert await shelf.sinks.existing(NAME, ID) == (len(CONTENT), digest(CONTENT))

    async def test_what_was_appended_is_taken_up_where_it_ended(self, shelf: Shelf):
        async with opened(shelf) as sink:
            await sink.append([CONTENT[:1000]])
        async with opened(shelf) as sink:
            assert await sink.resume() == sink.size_bytes == 1000
            await sink.append([CONTENT[1000:]])
            assert sink.digest() == digest(CONTENT)
            await sink.commit()
        assert shelf.under(NAME) == CONTENT

    @pytest.mark.parametrize("seed", range(8))
    async def test_pieces_in_any_order_and_over_an_interruption_come_to_the_same(self, shelf: Shelf, seed: int):
        chance = random.Random(seed)
        order, stop = chance.sample(range(13), 13), chance.randint(0, 13)
        piece_bytes = 64 * KIB
        for these in (order[:stop], order[stop:]):
            async with opened(shelf) as sink:
                for n in these:
                    await sink.write(n * piece_bytes, CONTENT[n * piece_bytes : (n + 1) * piece_bytes])
        async with opened(shelf) as sink:
            assert sink.size_bytes == len(CONTENT)
            await sink.commit()
        assert shelf.under(NAME) == CONTENT

    async def test_what_is_written_can_be_read_at_once_and_gaps_read_as_zeros(self, shelf: Shelf):
        async with opened(shelf) as sink:
            await sink.write(500_000, memoryview(CONTENT)[:1000])
            assert sink.size_bytes == 501_000
            assert await sink.read(500_000, 1000) == CONTENT[:1000]
            assert await sink.read(499_998, 4) == b"\0\0" + CONTENT[:2]
            assert await sink.read(500_990, 1000) == CONTENT[990:1000]
            assert await sink.read(501_000, 10) == b""
            await sink.write(500_500, b"again")
            assert await sink.read(500_499, 7) == CONTENT[499:500] + b"again" + CONTENT[505:506]

    async def test_extents_leave_nothing_out_that_was_written_and_say_nothing_of_what_was_not(self, shelf: Shelf):
        async with opened(shelf) as sink:
            assert await sink.extents() == []
            await sink.write(3_000_000, b"x" * 1000)
            await sink.write(0, b"y" * 10)
            await sink.sync()
        async with opened(shelf) as sink:
            extents = await sink.extents()
            assert [first for first, _ in extents] == sorted(first for first, _ in extents)
            for first, end in ((0, 10), (3_000_000, 3_001_000)):
                assert any(low <= first and end <= high for low, high in extents)
            assert not any(low <= 1_500_000 < high for low, high in extents)
            assert extents[-1][1] == sink.size_bytes

    async def test_many_write_read_and_sync_at_the_same_time(self, shelf: Shelf):
        piece_bytes = 64 * KIB

        async def one(n: int, sink: Sink) -> None:
            piece = CONTENT[n * piece_bytes : (n + 1) * piece_bytes]
            await sink.write(n * piece_bytes, piece)
            await sink.sync()
            assert await sink.read(n * piece_bytes, piece_bytes) == piece

        async with opened(shelf) as sink:
            await asyncio.gather(*(one(n, sink) for n in range(13)))
            await sink.commit()
        assert shelf.under(NAME) == CONTENT

    async def test_a_descriptor_if_there_is_one_is_the_part_itself(self, shelf: Shelf):
        async with opened(shelf) as sink:
            if (descriptor := sink.fileno()) is None:
                return
            os.pwrite(descriptor, b"moved", 7)
            assert (sink.size_bytes, await sink.read(7, 5)) == (12, b"moved")
            await sink.write(9, b"-")
            assert os.pread(descriptor, 5, 7) == b"mo-ed"

    async def test_a_part_ends_where_it_is_cut_and_grows_again_from_there(self, shelf: Shelf):
        async with opened(shelf) as sink:
            await sink.write(0, CONTENT[:100_000])
            for size_bytes in (200_000, 70_000):
                await sink.cut(size_bytes)
            assert sink.size_bytes == 70_000
            await sink.write(70_000, b"other")
            assert await sink.read(69_999, 10) == CONTENT[69_999:70_000] + b"other"
            await sink.commit()
        assert shelf.under(NAME) == CONTENT[:70_000] + b"other"

    async def test_starting_again_leaves_nothing_of_the_longer_part_before(self, shelf: Shelf):
        async with opened(shelf) as sink:
            await sink.append([CONTENT])
            await sink.restart()
            assert (sink.size_bytes, sink.digest(), list(await sink.extents())) == (0, digest(b""), [])
            await sink.append([b"short"])
            await sink.commit()
        assert shelf.under(NAME) == b"short"

    @pytest.mark.parametrize("durable", [True, False])
    async def test_nothing_at_all_is_a_file_too(self, shelf: Shelf, durable: bool):
        async with opened(shelf) as sink:
            await sink.commit(durable=durable)
        assert shelf.under(NAME) == b""

    async def test_what_is_discarded_stands_under_neither_name(self, shelf: Shelf):
        async with opened(shelf) as sink:
            await sink.append([CONTENT])
            for _ in range(2):
                await sink.discard()
        assert (shelf.under(NAME), shelf.parts()) == (None, 0)
        assert await shelf.sinks.existing(NAME, ID) is None

    async def test_a_name_that_is_taken_is_kept_unless_it_may_be_overwritten(self, shelf: Shelf):
        shelf.put(NAME, b"first")
        for call in (shelf.sinks.open, shelf.sinks.check):
            with pytest.raises(Contradiction, match="exists already"):
                await call(NAME, ID, overwrite=False)
        async with opened(shelf, overwrite=True) as sink:
            await sink.append([b"second"])
            assert shelf.under(NAME) == b"first"
            await sink.commit()
        assert shelf.under(NAME) == b"second"

    async def test_what_came_meanwhile_is_not_replaced_and_the_part_is_kept(self, shelf: Shelf):
        async with opened(shelf) as sink:
            await sink.append([CONTENT])
            shelf.put(NAME, b"somebody else's")
            with pytest.raises(Contradiction, match="the part is kept"):
                await sink.commit()
            assert sink.size_bytes == len(CONTENT)
        assert (shelf.under(NAME), shelf.parts()) == (b"somebody else's", 1)

    async def test_one_place_takes_one_download_at_a_time(self, shelf: Shelf):
        async with opened(shelf):
            for part in (ID, OTHER):
                with pytest.raises(SinkFailed, match="another download"):
                    await shelf.sinks.open(NAME, part, overwrite=True)
            with pytest.raises(SinkFailed, match="another download"):
                await shelf.sinks.check(NAME, OTHER, overwrite=False)
        await shelf.sinks.check(NAME, OTHER, overwrite=False)

    async def test_each_order_has_a_part_of_its_own(self, shelf: Shelf):
        async with opened(shelf, part=ID) as sink:
            await sink.append([CONTENT])
        async with opened(shelf, part=OTHER) as sink:
            assert await sink.resume() == 0
            await sink.append([b"other"])
            await sink.commit()
        assert (shelf.under(NAME), shelf.parts()) == (b"other", 1)

    async def test_there_is_no_space_for_more_than_there_is(self, shelf: Shelf):
        async with opened(shelf) as sink:
            with pytest.raises(SinkFailed, match="no space"):
                await sink.reserve(2**62)
