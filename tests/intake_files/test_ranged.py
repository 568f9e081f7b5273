"""An order of a range: the leaves that hold it come, are proven and signed for, the range alone is the file, and any cut is got over."""

import asyncio
import hashlib
from pathlib import Path

import pytest
from aiohttp import web

from connector.adapters.file_sink import FileSink, FileSinks
from connector.errors import PeerRefused
from connector.intake import patience, proven
from connector.intake.promise import Broken
from connector.intake_files.ranged import RangedSink
from connector.metering.content import Layout
from connector.metering.spans import Part, read_span
from connector.ports.sinks import Sinks
from connector.values import replace
from tests.contracts.memory_sinks import MemorySink, MemorySinks
from tests.dataplane.rig import some_bytes
from tests.intake.signed_provider import CHUNK, Consumer, both, of_both

CONTENT = some_bytes(40 * CHUNK + 4321)
LAYOUT = Layout(len(CONTENT), CHUNK)

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(patience, "PAUSE_SECONDS_MAX", 0.01)
    monkeypatch.setattr(patience, "REFUSED_SECONDS", 0.1)
    monkeypatch.setattr(proven, "WINDOW_BYTES", 4 * CHUNK)


@pytest.fixture(params=["file", "memory"])
def sinks(request: pytest.FixtureRequest, tmp_path: Path) -> Sinks:
    (tmp_path / "out").mkdir()
    return FileSinks([tmp_path / "out"]) if request.param == "file" else MemorySinks()


def part_of(text: str) -> Part:
    part = read_span(text).of(LAYOUT)
    assert part is not None
    return part


def written(consumer: Consumer) -> bytes:
    if isinstance(consumer.sinks, MemorySinks):
        return consumer.sinks.files[str(consumer.out)]
    return consumer.out.read_bytes()


@pytest.mark.parametrize("text", ["0-0", "70000-70001", "65535-65536", "131072-196607", "100000-1500000", "-5000", "2600000-", "0-"])
async def test_the_leaves_that_hold_a_range_come_and_the_range_is_the_file(tmp_path: Path, sinks: Sinks, text: str):
    part = part_of(text)
    async with both(tmp_path, CONTENT, sinks=sinks, required=True) as (provider, consumer):
        done = await consumer.fetch(consumer.order(range=text, parallel=2))
        right = CONTENT[part.begin : part.end]
        assert written(consumer) == right
        digest, (low, high) = hashlib.sha256(right).digest(), part.cover
        assert (done.size_bytes, done.received_bytes, done.sha256) == (len(right), len(right), digest)
        assert [f"{high - low} bytes" in reason for reason in done.reasons] == [True] * (high - low != len(right))
        assert provider.sent_bytes == high - low, "not a byte of any other leaf has left"
        of_both(provider, await consumer.account())
        assert (provider.account.ranges, provider.account.counts.bytes) == (part.leaves, high - low)
        assert provider.account.status == ("complete" if part.whole else "open")


async def test_a_leaf_that_is_wrong_outside_the_range_is_wrong_all_the_same(tmp_path: Path, sinks: Sinks):
    async with both(tmp_path, CONTENT, sinks=sinks) as (provider, consumer):
        provider.corrupt = {2: 9}  # its first byte, and the range begins at its tenth
        with pytest.raises(Broken, match="leaf 2") as broken:
            await consumer.fetch(consumer.order(range=f"{CHUNK + 9}-{3 * CHUNK}"))
        assert broken.value.code == "leaf-wrong"
        assert provider.account.counts.bytes <= 2 * CHUNK


async def test_a_range_goes_on_where_it_was_cut_and_nothing_is_fetched_or_signed_for_twice(tmp_path: Path, sinks: Sinks):
    part = part_of("100000-2500001")
    async with both(tmp_path, CONTENT, sinks=sinks) as (provider, consumer):
        provider.cuts = [5 * CHUNK + 17]
        order = consumer.order(range="100000-2500001")
        enough = asyncio.Event()
        consumer.watcher.on_report = lambda seen: enough.set() if seen.received_bytes > 20 * CHUNK else None
        running = asyncio.create_task(consumer.fetch(order))
        await enough.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        held, provider.ranges = consumer.watcher.reports[-1].received_bytes, []
        await consumer.fetch(order)
        low, high = part.cover
        assert written(consumer) == CONTENT[part.begin : part.end]
        asked = [[int(at) for at in each.removeprefix("bytes=").split("-")] for each in provider.ranges]
        assert sum(last + 1 - first for first, last in asked) <= high - low - held
        of_both(provider, await consumer.account())
        assert provider.account.counts.bytes == high - low


@pytest.mark.parametrize("digest", [True, False], ids=["digest", "signed"])
@pytest.mark.parametrize("dies", ["cut", "commit"])
async def test_a_crash_before_the_file_had_its_name_costs_no_byte(
    tmp_path: Path, sinks: Sinks, dies: str, digest: bool, monkeypatch: pytest.MonkeyPatch
):
    class Gone(Exception):
        """The process ends here."""

    async def die(*_: object, **__: object) -> None:
        raise Gone

    async with both(tmp_path, CONTENT, sinks=sinks) as (provider, consumer):
        with monkeypatch.context() as patched:
            patched.setattr(MemorySink if isinstance(sinks, MemorySinks) else FileSink, dies, die)
            with pytest.raises(Gone):
                await consumer.fetch(consumer.order(range="70000-500000"))
        asked, seen = provider.asked.total(), consumer.watcher.reports[-1]
        if digest:  # the transfer goes on
            await consumer.fetch(seen)
        else:  # it is over
            assert (
                await consumer.downloads().finish(replace(seen, sha256=None, stated=True), progress=consumer.watcher.progress) is not None
            )
        assert (written(consumer), provider.asked.total()) == (CONTENT[70_000:500_001], asked)


async def test_what_is_not_all_of_the_range_is_not_the_file_when_the_transfer_is_over(tmp_path: Path):
    async with both(tmp_path, CONTENT) as (provider, consumer):
        await consumer.fetch(consumer.order(range="0-70000"))
        order = consumer.order(range="0-700000", validator=provider.etag)
        consumer.out.rename(consumer.part)
        assert await consumer.downloads().finish(order, progress=consumer.watcher.progress) is None
        assert consumer.part.stat().st_size == 70_001


async def test_a_range_that_there_is_nothing_of_is_refused_before_anything_is_signed_for(tmp_path: Path):
    async with both(tmp_path, CONTENT) as (provider, consumer):
        with pytest.raises(Broken, match="lies outside of the 2625761 bytes that there are; `0-2625760` is all of them") as broken:
            await consumer.fetch(consumer.order(range="2625761-"))
        assert broken.value.code == "range-beyond-end"
        assert (provider.receipts, provider.sent_bytes) == ([], 0)
        assert not list(consumer.out.parent.glob("*.part")), "nobody would go on with a part that has nothing"


async def test_a_range_is_no_order_to_a_provider_that_proves_nothing(tmp_path: Path):
    async with both(tmp_path, CONTENT) as (provider, consumer):
        provider.lies["manifest"] = lambda _provider, _request: web.Response(status=404)
        with pytest.raises(PeerRefused, match="order them without a range") as refused:
            await consumer.fetch(consumer.order(range="0-9"))
        assert (refused.value.said, provider.sent_bytes) == ("range-unproven", 0)


async def test_what_lies_before_and_behind_the_range_is_read_back_where_it_belongs(sinks: Sinks, tmp_path: Path):
    part = part_of(f"{CHUNK + 9}-{3 * CHUNK}")
    low, high = part.cover
    sink = await sinks.open(str(tmp_path / "out" / "file"), "p", overwrite=False)
    try:
        ranged = RangedSink(sink, part)
        assert (list(await ranged.extents()), ranged.fileno()) == ([], None)
        for at in range(low, high, CHUNK):
            await ranged.write(at, CONTENT[at : min(at + CHUNK, high)])
        assert list(await ranged.extents()) == [(low, high)]
        assert ranged.size_bytes == high - low
        for at, length in ((low, 5), (low, high - low), (part.begin - 1, 2), (part.begin, 3), (part.end - 1, 9), (high - 2, 9)):
            assert await ranged.read(at, length) == CONTENT[at : min(at + length, high)]
        assert (await ranged.resume(), ranged.digest()) == (part.length, hashlib.sha256(CONTENT[part.begin : part.end]).digest())
    finally:
        await sink.close()
