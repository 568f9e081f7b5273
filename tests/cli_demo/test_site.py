"""A connector of the demo: made, started, killed and stopped for real, and nothing of it is left. The line carries what it is given,
slowly, counts it, and can be cut."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from connector.cli_demo.site import PIECE_BYTES, PORTS, Line, Site, free_ports, peak_bytes
from connector.errors import ConnectorError
from tests import free_ports as loopback

FAST = 1e9  # bytes a second: as good as no limit
BLOCK = bytes(range(256)) * 512  # 128 KiB in which every place differs from its neighbours


@pytest_asyncio.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site("hospital", tmp_path / "hospital")
    await made.init()
    yield made
    await made.stop()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.asyncio
async def test_it_starts_answers_survives_a_kill_and_ends(site: Site):
    assert 0 < await site.start() < 15
    first = site.pid
    async with site.client() as client:
        assert (await client.own()).id == "did:web:hospital.example"
        await site.kill()
        assert not alive(first)
        await site.start()
        assert site.pid != first
        assert (await client.own()).name == "hospital"
    second = site.pid
    await site.stop()
    assert not alive(second)
    assert site.peak_bytes > 10_000_000
    with pytest.raises(ConnectorError, match="hospital is not running"):
        _ = site.pid


@pytest.mark.asyncio
async def test_settings_of_another_connector_in_the_environment_are_not_its_own(site: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QIAO_PARTICIPANT_NAME", "somebody-else")
    monkeypatch.setenv("QIAO_STORE_KIND", "nonsense")
    site.environment = {"QIAO_PARTICIPANT_ROLE": "clinic"}
    await site.start()
    async with site.client() as client:
        own = await client.own()
    assert (own.name, own.role) == ("hospital", "clinic")


@pytest.mark.asyncio
async def test_one_that_is_stopped_while_it_still_starts_ends_well(site: Site):
    starting = asyncio.create_task(site.start())
    pid = None
    while pid is None:
        await asyncio.sleep(0.001)
        with suppress(ConnectorError):
            pid = site.pid
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    await site.stop()
    assert not alive(pid)
    await site.stop()  # nothing runs: nothing to do


@pytest.mark.asyncio
async def test_one_that_cannot_start_says_where_the_reason_is(site: Site):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", site.data_port))
        taken.listen()
        with pytest.raises(ConnectorError, match=r"hospital did not start; .*connector\.log says why"):
            await site.start()
    assert f"`data.port` {site.data_port}" in (site.directory / "connector.log").read_text()
    with pytest.raises(ConnectorError, match="hospital ended with code 1"):
        await site.stop()


@pytest.mark.asyncio
async def test_what_keeps_it_from_being_ready_is_said(site: Site):
    """Of a connector that is up and whose disk is all but full nobody would read the log to know that."""

    async def ready(_request: web.Request) -> web.Response:
        return web.json_response({"ready": False, "faults": {"disk": "make room"}}, status=503)

    app = web.Application()
    app.router.add_get("/readyz", ready)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", site.data_port + 2).start()
        with pytest.raises(ConnectorError, match=r"hospital did not start; make room; .*connector\.log says why"):
            await site.start()
    finally:
        await runner.cleanup()
    with pytest.raises(ConnectorError, match="hospital ended with code 1"):
        await site.stop()


@pytest.mark.asyncio
async def test_what_init_says_is_passed_on(site: Site):
    with pytest.raises(ConnectorError, match="there is a connector already"):
        await site.init()


@pytest.mark.asyncio
async def test_two_that_have_met_know_each_other(site: Site, tmp_path: Path):
    other = Site("biopharma", tmp_path / "biopharma")
    await other.init()
    other.meet(site)
    assert (tmp_path / "biopharma" / "participants" / "hospital.jsonld").read_bytes() == site.description.read_bytes()


def test_ports_are_free_in_a_row_and_never_those_of_outgoing_connections():
    limits = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if limits.exists():
        assert PORTS[-1] < int(limits.read_text().split()[0])
    first = free_ports(4)
    assert first in PORTS
    with ExitStack() as opened:
        for port in range(first, first + 4):
            opened.enter_context(socket.socket()).bind(("127.0.0.1", port))


def test_ports_that_are_not_to_be_had_are_said(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr("connector.cli_demo.site.PORTS", range(taken.getsockname()[1], taken.getsockname()[1] + 1))
        with pytest.raises(ConnectorError, match="no 4 free ports in a row"):
            free_ports(4)


def test_memory_is_that_of_a_process_with_its_children():
    program = "import subprocess, sys; x = bytearray(40_000_000); subprocess.run([sys.executable, '-c', CHILD])"
    child = "import sys; y = bytearray(60_000_000); print('there', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", f"CHILD = {child!r}\n{program}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"there\n"
        assert peak_bytes(parent.pid) > 100_000_000
        parent.communicate(b"")
    assert peak_bytes(parent.pid) == 0


# ---- the line


class Far:
    """What listens at the other end: it keeps what it hears, and says BLOCK once it has heard the end of a head."""

    def __init__(self) -> None:
        self.heard = b""
        self.connections = 0
        self.closed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while not self.heard.endswith(b"\r\n\r\n"):
                if not (piece := await reader.read(65536)):
                    return
                self.heard += piece
            writer.write(BLOCK)
            await writer.drain()
            await reader.read()  # the caller hangs up
        except ConnectionError:
            pass
        finally:
            self.closed.set()
            writer.close()


@pytest_asyncio.fixture
async def far() -> AsyncIterator[tuple[Far, int]]:
    one = Far()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    async with server:
        yield one, server.sockets[0].getsockname()[1]


@asynccontextmanager
async def asking(line: Line, head: bytes) -> AsyncIterator[asyncio.StreamReader]:
    """A connection over the line on which `head` was said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
    try:
        writer.write(head)
        await writer.drain()
        yield reader
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def hung_up(reader: asyncio.StreamReader) -> bool:
    """Whether the connection has ended, in whichever way."""
    try:
        while await reader.read(65536):
            pass
    except ConnectionError:
        return True
    return reader.at_eof()


@pytest.mark.asyncio
async def test_it_carries_both_ways_and_counts_what_comes_back(far: tuple[Far, int]):
    async with Line(far[1], FAST) as line:
        async with asking(line, b"GET / HTTP/1.1\r\n\r\n") as reader:
            assert await reader.readexactly(len(BLOCK)) == BLOCK
        await far[0].closed.wait()
    assert far[0].heard == b"GET / HTTP/1.1\r\n\r\n"
    assert line.carried_bytes == len(BLOCK)


@pytest.mark.asyncio
async def test_it_is_as_slow_as_it_should_be(far: tuple[Far, int]):
    began = asyncio.get_running_loop().time()
    async with Line(far[1], len(BLOCK) / 0.4) as line, asking(line, b"\r\n\r\n") as reader:
        assert await reader.readexactly(len(BLOCK)) == BLOCK
    before_the_last_piece = 0.4 * (1 - PIECE_BYTES / len(BLOCK))
    assert asyncio.get_running_loop().time() - began >= before_the_last_piece - 0.01


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("head", "offsets"),
    [
        (b"GET / HTTP/1.1\r\nRange: bytes=0-\r\nHost: x\r\n\r\n", [0]),
        (b"GET / HTTP/1.1\r\nHost: x\r\nrange: bytes=5308090-\r\n\r\n", [5308090]),
        (b"GET / HTTP/1.1\r\nIf-Range: bytes=7-\r\nX: Range: bytes=8-\r\n\r\n", []),
    ],
)
async def test_it_notes_from_where_a_request_goes_on(far: tuple[Far, int], head: bytes, offsets: list[int]):
    async with Line(far[1], FAST) as line, asking(line, head) as reader:
        await reader.readexactly(len(BLOCK))
    assert line.resumed_at == offsets


@pytest.mark.asyncio
async def test_a_cut_ends_both_sides_and_the_next_connection_is_carried(far: tuple[Far, int]):
    async with Line(far[1], len(BLOCK) / 30) as line:
        async with asking(line, b"\r\n\r\n") as reader:
            await reader.readexactly(PIECE_BYTES)
            line.cut()
            assert await hung_up(reader)
            await far[0].closed.wait()
            assert line.carried_bytes < len(BLOCK)
        far[0].heard = b""
        async with asking(line, b"\r\n\r\n") as reader:
            assert await reader.readexactly(PIECE_BYTES) == BLOCK[:PIECE_BYTES]
    assert far[0].connections == 2


@pytest.mark.asyncio
async def test_the_end_of_the_line_ends_what_is_on_it(far: tuple[Far, int]):
    line = await Line(far[1], len(BLOCK) / 30).__aenter__()
    async with asking(line, b"\r\n\r\n") as reader:
        await reader.readexactly(PIECE_BYTES)
        await line.__aexit__(None, None, None)
        assert await hung_up(reader)
        await far[0].closed.wait()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", line.port)


@pytest.mark.asyncio
async def test_where_nobody_listens_the_caller_sees_the_connection_end():
    async with Line(loopback.free_ports(1)[0], FAST) as line, asking(line, b"") as reader:
        assert await hung_up(reader)
    assert line.carried_bytes == 0
