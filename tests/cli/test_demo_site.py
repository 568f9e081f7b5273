"""A connector of the demo: made, started, killed and stopped for real, and nothing of it is left."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import pytest_asyncio

from connector.cli.demo_site import PORTS, Site, free_ports, peak_bytes
from connector.errors import ConnectorError


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
        monkeypatch.setattr("connector.cli.demo_site.PORTS", range(taken.getsockname()[1], taken.getsockname()[1] + 1))
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
