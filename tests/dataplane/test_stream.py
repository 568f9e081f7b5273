"""From source through stages to the wire: laws over spans and stages, promises that break visibly, one piece in memory."""

import asyncio
import gc
import hashlib
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.dataplane import stream as module
from connector.dataplane.flows import Lease
from connector.dataplane.gate import Permit
from connector.dataplane.ranges import Span
from connector.dataplane.stream import PIECE_BYTES, Representations, by_file, pieces, read_small, stream
from connector.errors import SourceFailed, Withdrawn
from connector.ports import Stage, Stat
from connector.values import replace
from tests.dataplane.rig import CONSUMER, TRANSFER, Rig, provider, pull, some_bytes


class Bytes:
    """A source in memory that gives pieces of any size, and keeps count of what is open."""

    def __init__(self, content: bytes, sizes: Sequence[int] = (4,), *, promised: int | None = None, indexed: bool = True) -> None:
        self.content, self._sizes, self._indexed = content, sizes, indexed
        self._promised = len(content) if promised is None else promised
        self.reads: list[tuple[int, int | None]] = []
        self.open = self.looked = 0
        self.broken: Exception | None = None

    async def stat(self) -> Stat:
        self.looked += 1
        if self.broken is not None:
            raise self.broken
        digest = hashlib.sha256(self.content).digest() if self._indexed else None
        return Stat(self._promised, "v1", digest, "text/plain")

    async def read(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
        self.reads.append((offset, length))
        self.open += 1
        try:
            end, turn = len(self.content) if length is None else offset + length, 0
            while offset < min(end, len(self.content)):
                count = self._sizes[turn % len(self._sizes)]
                yield self.content[offset : min(offset + count, end)]
                offset, turn = offset + count, turn + 1
        finally:
            self.open -= 1

    def fileno(self) -> int | None:
        return None

    async def close(self) -> None: ...


def twice(content: bytes) -> bytes:
    doubled = bytearray(2 * len(content))
    doubled[::2] = doubled[1::2] = content
    return bytes(doubled)


class Doubling:
    """Every byte twice: what leaves has another size than the source."""

    name = "doubling"

    async def run(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            yield twice(piece)


class Framing:
    """A head, a mark after each piece, a tail: the output depends on where the pieces end."""

    name = "framing"

    async def run(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        yield b"<"
        async for piece in pieces:
            yield piece
            yield b""
            yield b"|"
        yield b">"


class Growing:
    """Without end."""

    name = "growing"

    async def run(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for _ in pieces:
            while True:
                yield bytes(PIECE_BYTES)


def permit(*stages: Stage, **changed: Any) -> Permit:
    made = Permit(TRANSFER, "urn:agreement", CONSUMER, "urn:dataset", {"type": "x"}, stages, None, "", Lease())
    return replace(made, **changed)


async def collected(output: AsyncIterator[bytes]) -> list[bytes]:
    return [piece async for piece in output]


# --- pieces

STAGES: st.SearchStrategy[tuple[Stage, ...]] = st.lists(st.sampled_from([Doubling(), Framing()]), max_size=3).map(tuple)
SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=4)


@given(st.binary(max_size=60), SIZES, STAGES, st.data())
def test_a_span_of_what_leaves_is_that_slice_of_the_whole(content: bytes, sizes: list[int], stages: tuple[Stage, ...], data: st.DataObject):
    async def run() -> None:
        source = Bytes(content, sizes)
        whole = b"".join(await collected(pieces(source, stages, None)))
        if not stages:
            assert whole == content
        first = data.draw(st.integers(0, len(whole)))
        span = Span(first, data.draw(st.integers(0, len(whole) - first)), len(whole))
        part = b"".join(await collected(pieces(source, stages, span)))
        assert part == whole[first : first + span.length]
        if span.length:
            assert await read_small(source, stages, span) == part
        assert source.open == 0  # whatever was begun was closed
        if span.length and not stages:
            assert source.reads[1] == (first, span.length)  # in place: what lies before is not read

    asyncio.run(run())


@given(st.lists(st.integers(40_000, 3 * PIECE_BYTES), min_size=1, max_size=3), st.integers(0, 5 * PIECE_BYTES))
def test_pieces_have_one_size_whatever_the_source_delivers(sizes: list[int], total: int):
    async def run() -> None:
        source = Bytes(bytes(total), sizes)
        found = [len(piece) for piece in await collected(pieces(source, (), Span(0, total, total)))]
        assert sum(found) == total
        assert all(0 < size <= PIECE_BYTES for size in found)
        assert len(found) <= 2 * (total // PIECE_BYTES + 1)

    asyncio.run(run())


@pytest.mark.parametrize("stages", [(), (Framing(),), (Doubling(), Framing())])
@pytest.mark.asyncio
async def test_fewer_bytes_than_promised_are_an_error_and_not_an_end(stages: tuple[Stage, ...]):
    source = Bytes(b"12345")
    with pytest.raises(SourceFailed, match="before the end that was promised"):
        await collected(pieces(source, stages, Span(0, 100, 100)))
    with pytest.raises(SourceFailed):
        await read_small(source, stages, Span(0, 100, 100))
    assert source.open == 0


@pytest.mark.asyncio
async def test_a_reader_that_stops_early_leaves_nothing_open():
    source = Bytes(bytes(4 * PIECE_BYTES), (PIECE_BYTES,))
    async with aclosing(pieces(source, (Framing(), Doubling()), None)) as output:
        await anext(output)
        assert source.open == 1
    assert source.open == 0


@pytest.mark.asyncio
async def test_a_span_of_an_endless_output_ends():
    async with aclosing(pieces(Bytes(b"x"), (Growing(),), Span(PIECE_BYTES + 5, 3, 10**12))) as output:
        assert await collected(output) == [bytes(3)]


# --- what leaves


@pytest.mark.asyncio
async def test_without_stages_the_source_speaks_for_itself_and_nothing_is_read():
    source = Bytes(b"abc")
    found = await Representations().of(permit(), source, await source.stat())
    digest = hashlib.sha256(b"abc")
    assert (found.size_bytes, found.etag, found.sha256) == (3, f'"{digest.hexdigest()}"', digest.digest())
    assert (found.media_type, source.reads) == ("text/plain", [])


@pytest.mark.asyncio
async def test_a_source_that_was_never_indexed_has_a_tag_of_its_version_and_no_digest():
    source = Bytes(b"abc", indexed=False)
    stat = await source.stat()
    found = await Representations().of(permit(), source, stat)
    assert found.sha256 is None
    assert found.etag != (await Representations().of(permit(), source, replace(stat, version="v2"))).etag


@pytest.mark.asyncio
async def test_a_source_of_unknown_size_is_read_once_to_know_it():
    source = Bytes(b"abc")
    found = await Representations().of(permit(), source, replace(await source.stat(), size_bytes=None))
    assert (found.size_bytes, found.sha256) == (3, hashlib.sha256(b"abc").digest())


@pytest.mark.asyncio
async def test_with_stages_size_and_digest_are_those_of_the_output_measured_once_for_all_who_ask():
    known, source = Representations(), Bytes(b"abcdef")
    stat, allowed = await source.stat(), permit(Framing(), Doubling())
    found = await asyncio.gather(*(known.of(allowed, source, stat) for _ in range(5)))
    output = b"".join(await collected(pieces(Bytes(b"abcdef"), allowed.stages, None)))
    assert {(each.size_bytes, each.sha256) for each in found} == {(len(output), hashlib.sha256(output).digest())}
    assert len(source.reads) == 1
    others = [permit(Framing()), permit(Framing(), Doubling(), dataset="urn:other")]
    await asyncio.gather(*(known.of(each, source, stat) for each in others))
    await known.of(allowed, source, replace(stat, version="v2"))
    assert len(source.reads) == 4  # other stages, another dataset, other bytes: each is measured


@pytest.mark.asyncio
async def test_a_measurement_that_failed_is_tried_again():
    class Once(Framing):
        failed = False

        async def run(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            if not self.failed:
                self.failed = True
                raise SourceFailed("the disk coughed")
            async for piece in super().run(pieces):
                yield piece

    known, source, allowed = Representations(), Bytes(b"abc"), permit(Once())
    with pytest.raises(SourceFailed, match="coughed"):
        await known.of(allowed, source, await source.stat())
    assert (await known.of(allowed, source, await source.stat())).size_bytes == 6


@pytest.mark.asyncio
async def test_what_is_remembered_of_outputs_has_a_bound(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MEASURED_MAX", 2)
    known, source = Representations(), Bytes(b"abc")
    stat = await source.stat()
    for version in ("a", "b", "c", "a"):
        assert (await known.of(permit(Framing()), source, replace(stat, version=version))).size_bytes == 6
    assert len(source.reads) == 4  # `a` had been forgotten


# --- the copy loop


@dataclass
class Sink:
    """The way out, in a list; `before(count)` runs ahead of each piece."""

    sends_files: bool = False
    window_bytes: int = module.FILE_PIECE_BYTES
    got: list[bytes] = field(default_factory=list)
    files: list[tuple[int, int, int]] = field(default_factory=list)
    before: Callable[[int], None] = lambda _count: None
    blocked: asyncio.Event | None = None

    async def write(self, piece: bytes) -> None:
        self.before(len(self.got))
        if self.blocked is not None:
            await self.blocked.wait()
        self.got.append(piece)

    def push(self) -> None:
        """Nothing waits here for company."""

    async def send_file(self, descriptor: int, offset: int, count: int) -> None:
        self.before(len(self.files))
        self.files.append((descriptor, offset, count))


async def copy(source: Any, span: Span, sink: Sink, allowed: Permit, **options: Any) -> list[tuple[int, int]]:
    sent: list[tuple[int, int]] = []
    settings = {"still": lambda: None, "sent": lambda *part: sent.append(part)} | options
    async with aclosing(pieces(source, allowed.stages, span)) as output:
        await stream(allowed, source, span, sink, None if sink.sends_files else output, **settings)
    return sent


class InFile(Bytes):
    def fileno(self) -> int | None:
        return 7


@pytest.mark.asyncio
async def test_what_was_sent_is_told_piece_by_piece_where_it_lies_in_the_output():
    content = some_bytes(2 * PIECE_BYTES + 10)
    sink = Sink()
    sent = await copy(Bytes(content, (PIECE_BYTES,)), Span(5, 2 * PIECE_BYTES, len(content)), sink, permit())
    assert sent == [(5, PIECE_BYTES), (5 + PIECE_BYTES, PIECE_BYTES)]
    assert b"".join(sink.got) == content[5 : 5 + 2 * PIECE_BYTES]


@pytest.mark.asyncio
async def test_a_file_is_handed_to_the_kernel_and_looked_at_before_each_piece():
    size = module.FILE_PIECE_BYTES + 100
    source, sink = InFile(bytes(8), promised=size), Sink(sends_files=True)
    assert by_file(permit(), source, sink)
    sent = await copy(source, Span(3, size - 3, size), sink, permit())
    assert sink.files == [(7, 3, module.FILE_PIECE_BYTES), (7, 3 + module.FILE_PIECE_BYTES, 97)]
    assert sent == [(offset, count) for _, offset, count in sink.files]
    assert source.looked == 2

    def changes(count: int) -> None:
        source.broken = SourceFailed("it changed") if count else None

    sink = Sink(sends_files=True, before=lambda _count: changes(1))
    with pytest.raises(SourceFailed, match="it changed"):
        await copy(source, Span(0, size, size), sink, permit())
    assert len(sink.files) == 1


def test_a_file_goes_by_the_kernel_only_where_nothing_has_to_touch_its_bytes():
    assert by_file(permit(), InFile(b""), Sink(sends_files=True))
    assert not by_file(permit(Framing()), InFile(b""), Sink(sends_files=True))
    assert not by_file(permit(), InFile(b""), Sink(sends_files=False))
    assert not by_file(permit(), Bytes(b""), Sink(sends_files=True))


@pytest.mark.asyncio
async def test_whether_it_may_still_go_on_is_asked_before_each_piece():
    sink = Sink()

    def still() -> None:
        if len(sink.got) == 2:
            raise Withdrawn("no more", "policy-bound-passed")

    with pytest.raises(Withdrawn) as ended:
        await copy(Bytes(bytes(5 * PIECE_BYTES), (PIECE_BYTES,)), Span(0, 5 * PIECE_BYTES, 5 * PIECE_BYTES), sink, permit(), still=still)
    assert (ended.value.code, len(sink.got)) == ("policy-bound-passed", 2)


@pytest.mark.asyncio
async def test_a_reader_has_time_for_a_piece_and_no_more():
    sink, began = Sink(blocked=asyncio.Event()), time.monotonic()
    with pytest.raises(Withdrawn, match=r"less than 10 bytes in 0.1 s") as ended:
        await copy(Bytes(bytes(10), (10,)), Span(0, 10, 10), sink, permit(), stall_seconds=0.1)
    assert ended.value.code == "reader-too-slow"
    assert 0.1 <= time.monotonic() - began < 5


# --- over the wire


async def got(rig: Rig, **headers: str) -> tuple[int, bytes, str | None]:
    async with aiohttp.ClientSession() as http, http.get(rig.endpoint, headers=rig.authorization() | headers) as answer:
        return answer.status, await answer.read(), answer.headers.get("Content-Range")


@pytest.mark.parametrize("size", [1000, 1_500_000])
@pytest.mark.asyncio
async def test_over_the_wire_a_range_addresses_what_leaves_after_the_stages(size: int, tmp_path: Path):
    content = some_bytes(size)
    async with provider(tmp_path) as rig:
        await rig.publish(content, stages=(Doubling(),))
        output = twice(content)
        assert await got(rig) == (200, output, None)
        first, last = size - 100, size + 100  # beyond the end of the source
        part = await got(rig, Range=f"bytes={first}-{last}")
        assert part == (206, output[first : last + 1], f"bytes {first}-{last}/{2 * size}")


@pytest.mark.asyncio
async def test_over_the_wire_a_pull_through_stages_is_checked_against_the_output(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    async with provider(tmp_path / "in") as rig:
        await rig.publish(b"abc", stages=(Doubling(), Framing()))

        async def nothing(_: Any) -> None: ...

        done = await rig.downloads(tmp_path / "out").fetch(pull(tmp_path / "out" / "f"), rig.edr(), renewed=nothing, progress=nothing)
        assert (tmp_path / "out" / "f").read_bytes() == b"<aabbcc|>"
        assert done.sha256 == hashlib.sha256(b"<aabbcc|>").digest()


@pytest.mark.asyncio
async def test_memory_does_not_grow_with_what_passes_through_stages():
    total = 100 * PIECE_BYTES

    class Zeros(Bytes):
        async def read(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
            for _ in range(total // PIECE_BYTES):
                yield bytes(PIECE_BYTES)

    class Through(Framing):
        async def run(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
            async for piece in pieces:
                yield piece

    gc.collect()
    tracemalloc.start()
    try:
        count = 0
        async with aclosing(pieces(Zeros(b""), (Through(), Through()), Span(0, total, total))) as output:
            async for piece in output:
                count += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == total
    assert peak < 6 * PIECE_BYTES
