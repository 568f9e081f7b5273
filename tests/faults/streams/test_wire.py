"""The wire does to connections what it says, at the byte that it says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.faults.patience import own_patience
from tests.faults.streams.plan import Cut
from tests.faults.streams.wire import DOWN, LINK_BYTES, UP, Wire
from tests.free_ports import free_ports

CONTENT = bytes(range(256)) * 4096
WAIT_SECONDS = 5.0
SILENT_SECONDS = 0.7  # after which whoever reads believes that nothing more comes

pytestmark = pytest.mark.asyncio


class Ends:
    """How the server saw its connections end."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.got = b""
        self.news = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONTENT)
        try:
            while piece := await reader.read(65536):
                self.got += piece
            self.seen.append("end")
        except ConnectionError:
            self.seen.append("reset")
        self.news.set()
        writer.close()


@asynccontextmanager
async def wired(*, pushed: bool = False) -> AsyncIterator[tuple[Wire, int, Ends]]:
    ends = Ends()
    public, behind = free_ports(2)
    server = await asyncio.start_server(ends.serve, "127.0.0.1", behind)
    try:
        async with Wire(public, behind, pushed=pushed) as wire:
            yield wire, public, ends
    finally:
        server.close()


async def strike(_cut: Cut) -> None:
    raise AssertionError("nobody was to be killed")


async def read(port: int, said: bytes = b"", *, patience_seconds: float = WAIT_SECONDS) -> tuple[bytes, str]:
    """All that comes, and how it ends: with nothing more where that lasts for so long."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    got = bytearray()
    try:
        while len(got) < len(CONTENT):
            async with own_patience(patience_seconds):
                piece = await reader.read(65536)
            if not piece:
                return bytes(got), "end"
            got += piece
    except ConnectionError:
        return bytes(got), "reset"
    except TimeoutError:
        return bytes(got), "nothing"
    finally:
        writer.close()
    return bytes(got), "whole"


async def test_what_is_not_to_be_cut_passes_and_is_counted():
    async with wired() as (wire, port, ends):
        wire.arm((), strike)
        assert await read(port, b"hello") == (CONTENT, "whole")
        await asyncio.wait_for(ends.news.wait(), WAIT_SECONDS)
        assert (ends.got, ends.seen) == (b"hello", ["end"])
        assert wire.passed == {DOWN: len(CONTENT), UP: 5}
        assert wire.disarm() == []


@pytest.mark.parametrize(
    ("how", "client", "server"),
    [
        ("client reset", "end", "reset"),
        ("server reset", "reset", "end"),
        ("both reset", "reset", "reset"),
        ("orderly end", "end", "end"),
        ("stall", "reset", "reset"),
        ("silence", "nothing", None),
    ],
)
async def test_each_way_of_being_cut_looks_as_it_is_called(how: str, client: str, server: str | None):
    async with wired() as (wire, port, ends):
        cut = Cut(how, DOWN, 300_001, 0.05)
        wire.arm([cut], strike)
        got, ended = await read(port, patience_seconds=SILENT_SECONDS if how == "silence" else WAIT_SECONDS)
        assert ended == client
        assert CONTENT.startswith(got)
        assert len(got) == 300_001 if client == "end" else len(got) <= 300_001
        assert wire.disarm() == [cut]
        assert wire.passed[DOWN] == 300_001
        if server is not None:
            await asyncio.wait_for(ends.news.wait(), WAIT_SECONDS)
            assert ends.seen == [server]
        assert await read(port) == (CONTENT, "whole"), "the next one is left alone"


async def test_a_cut_may_lie_in_what_the_client_says():
    async with wired() as (wire, port, ends):
        wire.arm([Cut("both reset", UP, 3, 0.0)], strike)
        assert (await read(port, b"hello"))[1] == "reset"
        await asyncio.wait_for(ends.news.wait(), WAIT_SECONDS)
        assert b"hel".startswith(ends.got)


async def test_where_data_are_pushed_they_come_from_whoever_dials():
    async with wired(pushed=True) as (wire, port, ends):
        wire.arm([Cut("client reset", DOWN, 3, 0.0)], strike)
        assert (await read(port, b"hello"))[1] == "reset", "the provider, who has dialled"
        await asyncio.wait_for(ends.news.wait(), WAIT_SECONDS)
        assert (ends.got, ends.seen) == (b"hel", ["end"]), "the consumer"
        assert wire.passed[DOWN] == 3
        assert (await read(port, b"hello"))[0] == CONTENT
        assert wire.passed[UP] >= len(CONTENT)


async def test_a_link_that_is_down_takes_nobody_until_it_is_up(monkeypatch: pytest.MonkeyPatch):
    over = asyncio.Event()

    async def as_long_as_it_lasts(_seconds: float) -> None:
        await over.wait()

    monkeypatch.setattr(asyncio, "sleep", as_long_as_it_lasts)
    async with wired() as (wire, port, _):
        wire.arm([Cut("link down", DOWN, 10, 0.2)], strike)
        assert (await read(port))[1] == "reset"
        assert await read(port) in ((b"", "reset"), (b"", "end"))
        over.set()
        await wire.settled()
        assert await read(port) == (CONTENT, "whole")


async def test_cuts_follow_each_other_each_counted_from_the_one_before():
    async with wired() as (wire, port, _):
        wire.arm([Cut("orderly end", DOWN, 1000, 0.0), Cut("orderly end", DOWN, 2000, 0.0)], strike)
        assert [len((await read(port))[0]) for _ in range(3)] == [1000, 2000, len(CONTENT)]


async def test_who_is_to_be_killed_is_told_to_whoever_can():
    told: list[Cut] = []

    async def note(cut: Cut) -> None:
        told.append(cut)

    async with wired() as (wire, port, _):
        cut = Cut("provider killed", DOWN, 5, 0.0)
        wire.arm([cut], note)
        assert (await read(port))[0] == CONTENT
        await wire.settled()
        assert told == [cut]


@pytest.mark.parametrize("how", ["silence", "server reset"])
async def test_a_link_that_is_cut_takes_no_more_than_its_buffers_however_much_is_sent(how: str):
    sent, over, public, behind = 0, asyncio.Event(), *free_ports(2)

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        try:
            while sent < 16 * LINK_BYTES:
                writer.write(CONTENT)
                await writer.drain()
                sent += len(CONTENT)
        except ConnectionError:
            over.set()

    server = await asyncio.start_server(serve, "127.0.0.1", behind)
    async with Wire(public, behind) as wire:
        wire.arm([Cut(how, DOWN, 300_001, 0.05)], strike)
        await read(public, patience_seconds=SILENT_SECONDS)  # which goes when nothing more comes
        await asyncio.wait_for(over.wait(), WAIT_SECONDS)
    server.close()
    assert sent < 4 * LINK_BYTES
