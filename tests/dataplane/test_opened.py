import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from connector.dataplane.flows import Lease
from connector.dataplane.gate import Permit
from connector.dataplane.opened import OPEN_MAX, OpenSources
from connector.errors import SourceFailed
from connector.ports import Along, Stat

LONG = 3600.0
STAT = Stat(4, "v1", b"d" * 32, "text/plain")


class FakeSource:
    def __init__(self, owner: "FakeSources", address: Mapping[str, Any]) -> None:
        self.address, self._owner = address, owner
        self.broken = False
        self.closed = asyncio.Event()
        self.may_close = asyncio.Event()
        self.may_close.set()

    async def stat(self) -> Stat:
        assert not self.closed.is_set(), "a closed source is asked"
        if self.broken:
            raise SourceFailed("changed since it was published")
        return STAT

    async def read(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
        assert not self.closed.is_set(), "a closed source is read"
        yield b"data"[offset:]

    def fileno(self) -> int | None:
        return None

    async def close(self) -> None:
        assert not self.closed.is_set(), "a source is closed twice"
        self.closed.set()
        await self.may_close.wait()


@dataclass
class FakeSources:
    """Keeps what it opened; `slow` lets a test hold openings back."""

    opened: list[FakeSource] = field(default_factory=list)
    slow: asyncio.Event | None = None
    arrivals: asyncio.Queue[None] = field(default_factory=asyncio.Queue)

    async def index(self, address: Mapping[str, Any], along: Along | None = None) -> tuple[Mapping[str, Any], Stat]:
        return address, STAT

    async def open(self, address: Mapping[str, Any]) -> FakeSource:
        if address.get("gone"):
            raise SourceFailed("gone")
        if self.slow is not None:
            self.arrivals.put_nowait(None)
            await self.slow.wait()
        self.opened.append(FakeSource(self, address))
        return self.opened[-1]

    @property
    def still_open(self) -> list[FakeSource]:
        return [source for source in self.opened if not source.closed.is_set()]


def permit(transfer: str = "urn:transfer", **address: Any) -> Permit:
    source = {"type": "fake", "path": "a"} | address
    return Permit(transfer, "urn:agreement", "did:web:c", "urn:dataset", source, (), None, "", Lease())


@pytest.fixture
def fakes() -> FakeSources:
    return FakeSources()


@pytest_asyncio.fixture
async def sources(fakes: FakeSources) -> AsyncIterator[OpenSources[str]]:
    made: OpenSources[str] = OpenSources({"fake": fakes}, LONG)
    yield made
    await made.close()
    assert fakes.still_open == []


@pytest.mark.asyncio
async def test_requests_of_one_transfer_share_a_source_at_once_and_one_after_the_other(fakes: FakeSources, sources: OpenSources[str]):
    async with sources.use(permit()) as (first, stat), sources.use(permit()) as (second, _):
        assert first is second
        assert stat == STAT
    async with sources.use(permit()) as (third, _):
        assert third is first
    assert len(fakes.opened) == 1


@pytest.mark.asyncio
async def test_transfers_do_not_share(fakes: FakeSources, sources: OpenSources[str]):
    async with sources.use(permit("urn:one")) as (one, _), sources.use(permit("urn:other")) as (other, _):
        assert one is not other
    assert len(fakes.opened) == 2


@pytest.mark.asyncio
async def test_an_idle_source_is_closed_soon(fakes: FakeSources):
    sources: OpenSources[str] = OpenSources({"fake": fakes}, 0.01)
    async with sources.use(permit()):
        pass
    async with asyncio.timeout(20):
        await fakes.opened[0].closed.wait()
    async with sources.use(permit()) as (again, _):
        assert again is fakes.opened[1]
    await sources.close()


@pytest.mark.asyncio
async def test_a_source_in_use_is_never_idle(fakes: FakeSources):
    sources: OpenSources[str] = OpenSources({"fake": fakes}, 0.01)
    async with sources.use(permit("urn:long")) as (long, _):
        for number in range(3):  # the sweeper has been there when another one's idle source is closed
            async with sources.use(permit(f"urn:{number}")) as (short, _):
                pass
            async with asyncio.timeout(20):
                await short.closed.wait()  # type: ignore[attr-defined]
        assert await long.stat() == STAT
    await sources.close()
    assert fakes.still_open == []


@pytest.mark.asyncio
async def test_closing_leaves_a_source_to_its_last_user(fakes: FakeSources):
    sources: OpenSources[str] = OpenSources({"fake": fakes}, LONG)
    async with sources.use(permit("urn:idle")):
        pass
    async with sources.use(permit()) as (source, _):
        async with sources.use(permit()):
            await sources.close()
            assert fakes.still_open == [source]
        assert await source.stat() == STAT
    assert fakes.still_open == []


@pytest.mark.asyncio
@pytest.mark.parametrize("type_", ["smb", None, 5, ["fake"]])
async def test_a_type_that_nobody_reads_is_refused_by_its_name(sources: OpenSources[str], type_: object):
    with pytest.raises(SourceFailed, match="which this connector does not read"):
        await sources.use(permit(type=type_)).__aenter__()


@pytest.mark.asyncio
async def test_a_source_that_is_not_what_was_published_is_closed_and_opened_anew(fakes: FakeSources, sources: OpenSources[str]):
    async with sources.use(permit()) as (first, _):
        pass
    fakes.opened[0].broken = True
    with pytest.raises(SourceFailed):
        await sources.use(permit()).__aenter__()
    assert fakes.opened[0].closed.is_set()
    async with sources.use(permit()) as (second, _):
        assert second is not first


@pytest.mark.asyncio
async def test_a_source_that_breaks_while_it_is_read_is_not_shared_any_more(fakes: FakeSources, sources: OpenSources[str]):
    async with sources.use(permit()) as (first, _):
        with pytest.raises(SourceFailed):
            async with sources.use(permit()):
                raise SourceFailed("the disk is gone")
        assert not fakes.opened[0].closed.is_set()  # somebody reads it still
        async with sources.use(permit()) as (second, _):
            assert second is not first
    assert fakes.still_open == [second]


@pytest.mark.asyncio
async def test_a_reader_that_goes_away_breaks_nothing_for_the_next(fakes: FakeSources, sources: OpenSources[str]):
    with pytest.raises(ConnectionResetError):
        async with sources.use(permit()):
            raise ConnectionResetError
    async with sources.use(permit()):
        pass
    assert len(fakes.opened) == 1


@pytest.mark.asyncio
async def test_a_dataset_that_was_published_anew_is_opened_anew(fakes: FakeSources, sources: OpenSources[str]):
    async with sources.use(permit(inode=1)) as (old, _), sources.use(permit(inode=2)) as (new, _):
        assert (old, new) == (fakes.opened[0], fakes.opened[1])
        assert await old.stat() == STAT  # what was begun is finished
    assert fakes.still_open == [new]
    async with sources.use(permit(inode=2)) as (same, _):
        assert same is new
    async with sources.use(permit(inode=3)):
        assert fakes.opened[1].closed.is_set()


@pytest.mark.asyncio
async def test_a_source_that_cannot_be_opened_leaves_nothing_behind(fakes: FakeSources, sources: OpenSources[str]):
    async with sources.use(permit()):
        pass
    with pytest.raises(SourceFailed, match="gone"):
        await sources.use(permit(gone=True)).__aenter__()
    async with sources.use(permit()) as (source, _):
        assert await source.stat() == STAT


@pytest.mark.asyncio
async def test_requests_that_open_at_the_same_time_leave_nothing_open(fakes: FakeSources, sources: OpenSources[str]):
    fakes.slow = asyncio.Event()

    async def read() -> None:
        async with sources.use(permit()) as (source, _):
            assert await source.stat() == STAT

    reading = [asyncio.create_task(read()) for _ in range(5)]
    for _ in reading:
        await fakes.arrivals.get()
    fakes.slow.set()
    await asyncio.gather(*reading)
    async with sources.use(permit()) as (source, _):
        assert fakes.still_open == [source]


@pytest.mark.asyncio
async def test_a_slow_closing_holds_nobody_else_up_and_leaves_nothing_open(fakes: FakeSources, sources: OpenSources[str]):
    async with sources.use(permit(inode=1)):
        pass
    old = fakes.opened[0]
    old.may_close.clear()

    async def read() -> None:
        async with sources.use(permit(inode=2)) as (source, _):
            assert await source.stat() == STAT

    first = asyncio.create_task(read())
    await old.closed.wait()
    await read()
    old.may_close.set()
    await first
    await read()
    assert len(fakes.still_open) == 1


@pytest.mark.asyncio
async def test_a_reader_that_is_cancelled_while_it_waits_holds_nothing(fakes: FakeSources, sources: OpenSources[str]):
    fakes.slow = asyncio.Event()
    waiting = asyncio.create_task(sources.use(permit()).__aenter__())
    await fakes.arrivals.get()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    fakes.slow = None
    async with sources.use(permit()):
        pass
    assert len(fakes.opened) == 1


@pytest.mark.asyncio
async def test_beyond_its_number_a_request_opens_and_closes_its_own(fakes: FakeSources, sources: OpenSources[str]):
    for number in range(OPEN_MAX):
        async with sources.use(permit(f"urn:{number}")):
            pass
    assert len(fakes.still_open) == OPEN_MAX
    async with sources.use(permit("urn:one-more")) as (own, _):
        assert len(fakes.still_open) == OPEN_MAX + 1
    assert own not in fakes.still_open
    assert len(fakes.still_open) == OPEN_MAX


@pytest.mark.asyncio
async def test_a_value_is_kept_as_long_as_the_source_is_what_was_published(fakes: FakeSources, sources: OpenSources[str]):
    held = permit()
    assert await sources.kept(held) is None
    use = sources.use(held)
    async with use:
        assert await sources.kept(held) is None
        use.keep("body")
    assert await sources.kept(held) == "body"
    assert await sources.kept(permit("urn:other")) is None
    fakes.opened[0].broken = True
    assert await sources.kept(held) is None


@pytest.mark.asyncio
async def test_a_value_is_not_given_for_what_was_published_anew(sources: OpenSources[str]):
    use = sources.use(permit(inode=1))
    async with use:
        use.keep("old")
    assert await sources.kept(permit(inode=2)) is None


@pytest.mark.asyncio
async def test_a_value_is_kept_again_after_the_transfer_was_looked_up_again(fakes: FakeSources, sources: OpenSources[str]):
    use = sources.use(permit())
    async with use:
        use.keep("body")
    looked_up_again = permit()  # equal, and read from the store once more
    assert await sources.kept(looked_up_again) is None  # what stages it passes may have changed
    use = sources.use(looked_up_again)
    async with use:
        use.keep("body after that")
    assert await sources.kept(looked_up_again) == "body after that"
    assert len(fakes.opened) == 1


@pytest.mark.asyncio
async def test_a_source_that_only_gives_its_kept_value_is_not_idle(fakes: FakeSources):
    sources: OpenSources[str] = OpenSources({"fake": fakes}, 0.3)
    held = permit()
    use = sources.use(held)
    async with use:
        use.keep("body")
    async with sources.use(permit("urn:other")):
        pass
    other = fakes.opened[1]
    async with asyncio.timeout(20):
        while not other.closed.is_set():
            assert await sources.kept(held) == "body"
            await asyncio.sleep(0)
    assert not fakes.opened[0].closed.is_set()
    await sources.close()
    assert fakes.still_open == []
