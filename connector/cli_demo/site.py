"""The places of the demo: a connector that is made by `connector init`, run by `connector run` in a process of its own and asked over its
API; and the line between two of them, so slow that an eye can follow it, which can be cut."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from connector.client.management import ManagementClient
from connector.errors import ConnectorError

READY_SECONDS = 15.0  # a cold start takes below one second; a busy machine gets more
STOP_SECONDS = 25.0  # for what is running to end; after it the process is killed
ASK_AGAIN_SECONDS = 0.01
# Below those that systems give to outgoing connections (Linux from 32768): between a kill and the next start nobody takes ours.
PORTS = range(20_000, 32_000)
PORTS_TRIED_MAX = 200
KIB = 1024
HTTP_OK = 200
STOPPED = (0, -signal.SIGTERM, -signal.SIGINT)
PIECE_BYTES = 32 * 1024  # what goes over the line at once
SOCKET_BYTES = 64 * 1024  # what the operating system may hold back on either side: what counts is what has arrived
RANGE = re.compile(rb"^range: bytes=(\d+)-\d*\r?$", re.IGNORECASE | re.MULTILINE)


class Site:
    """A connector called `name` in `directory`; `environment` are settings that lie over its file."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name, self.directory = name, directory
        self.id = f"did:web:{name}.example"
        self.port = free_ports(len(_listeners()))
        self.environment: dict[str, str] = {}
        self.peak_bytes = 0
        self._process: asyncio.subprocess.Process | None = None
        self._unready = ""  # what keeps it from being ready, as it says

    @property
    def pid(self) -> int:
        """Its process while it runs. Raises ConnectorError if it does not."""
        return self._running().pid

    @property
    def data_port(self) -> int:
        """The port of its data listener."""
        return self.port + _listeners().index("data")

    @property
    def spans_file(self) -> Path:
        """Where it writes its spans."""
        return self.directory / "spans.jsonl"

    @property
    def description(self) -> Path:
        """Its self-description."""
        return self.directory / "participants" / f"{self.name}.jsonld"

    def client(self) -> ManagementClient:
        """A client of its management API."""
        token = (self.directory / "admin-token").read_text(encoding="utf-8").strip()
        return ManagementClient(f"http://127.0.0.1:{self.port + _listeners().index('management')}", token)

    async def init(self) -> None:
        """Make it. Raises ConnectorError with what `connector init` says."""
        options = {"--name": self.name, "--id": self.id, "--role": self.name, "--port": str(self.port), "--directory": str(self.directory)}
        arguments = [word for pair in options.items() for word in pair]
        made = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "connector", "init", *arguments, "--development", "--save-token"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=_environment({}),
        )
        _, said = await made.communicate()
        if made.returncode:
            raise ConnectorError(f"`connector init` of {self.name} failed: {said.decode(errors='replace').strip()}")

    def meet(self, other: Site) -> None:
        """Put the other's self-description into the own registry."""
        shutil.copy(other.description, self.description.parent)

    async def start(self) -> float:
        """Run it and return after how many seconds it was ready. Raises ConnectorError if it does not get there."""
        began = time.perf_counter()
        with (self.directory / "connector.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "connector", "run"), cwd=self.directory, env=_environment(self.environment), stderr=log
            )
        async with aiohttp.ClientSession() as session:
            while not await self._ready(session):
                if self._process.returncode is not None or time.perf_counter() - began > READY_SECONDS:
                    why = f"; {self._unready}" if self._unready else ""
                    raise ConnectorError(f"{self.name} did not start{why}; {self.directory / 'connector.log'} says why")
                await asyncio.sleep(ASK_AGAIN_SECONDS)
        return time.perf_counter() - began

    async def kill(self) -> None:
        """SIGKILL, as when the power fails: nothing of it runs after this."""
        process = self._running()
        self.measure()
        process.kill()
        await process.wait()
        self._process = None

    async def stop(self) -> None:
        """SIGTERM, and its end; nothing if it does not run. One that was still starting may die of it, or of the Ctrl-C that
        reaches everything in a terminal. Raises ConnectorError if it had to be killed or broke."""
        process = self._process
        if process is None:
            return
        self.measure()
        self._process = None
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                code = await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise ConnectorError(f"{self.name} did not end within {STOP_SECONDS:g} s of SIGTERM and was killed") from None
        if code not in STOPPED:
            raise ConnectorError(f"{self.name} ended with code {code}; {self.directory / 'connector.log'} says why")

    def measure(self) -> None:
        """Note the most memory (bytes) that its process and the children of it have had."""
        if self._process is not None and self._process.returncode is None:
            self.peak_bytes = max(self.peak_bytes, peak_bytes(self._process.pid))

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            raise ConnectorError(f"{self.name} is not running; {self.directory / 'connector.log'} says why")
        return self._process

    async def _ready(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"http://127.0.0.1:{self.port + _listeners().index('ops')}/readyz") as answer:
                self._unready = "; ".join((await answer.json())["faults"].values())
                return answer.status == HTTP_OK
        except aiohttp.ClientError:
            return False


class Line:
    """Carries TCP connections to a port of this machine; an asynchronous context manager.

    What comes back is slowed down to `bytes_per_second`. `carried_bytes` counts it, and `resumed_at` lists the offsets from
    which requests on the line asked to go on.
    """

    def __init__(self, to_port: int, bytes_per_second: float) -> None:
        self._to_port, self._rate = to_port, bytes_per_second
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.carried_bytes = 0
        self.resumed_at: list[int] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0, limit=SOCKET_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server is not None  # noqa: S101 - entered
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Drop every connection with what is on its way. New ones are carried again."""
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _carry(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self._open.add(back)
        there: asyncio.StreamWriter | None = None
        try:
            far, there = await asyncio.open_connection("127.0.0.1", self._to_port, limit=SOCKET_BYTES)
            self._open.add(there)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forth(near, there))
                both.create_task(self._slowly_back(far, back))
        except* OSError:
            pass  # whoever is at the other end sees the cut, which is all that a line has to say
        finally:
            for writer in filter(None, (back, there)):
                self._open.discard(writer)
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    async def _forth(self, near: asyncio.StreamReader, there: asyncio.StreamWriter) -> None:
        while piece := await near.read(PIECE_BYTES):
            self.resumed_at += [int(offset) for offset in RANGE.findall(piece)]
            there.write(piece)
            await there.drain()
        raise ConnectionResetError

    async def _slowly_back(self, far: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        clock, next_at = asyncio.get_running_loop().time, 0.0
        while piece := await far.read(PIECE_BYTES):
            next_at = max(next_at, clock()) + len(piece) / self._rate
            back.write(piece)
            await back.drain()
            self.carried_bytes += len(piece)
            await asyncio.sleep(next_at - clock())
        raise ConnectionResetError


def _listeners() -> tuple[str, ...]:
    """In the order of their ports. What makes settings loads what only the command line needs."""
    from connector.cli.init import LISTENERS

    return LISTENERS


def free_ports(count: int) -> int:
    """The first of so many free ports in a row. Raises ConnectorError if none are found."""
    for _ in range(PORTS_TRIED_MAX):
        first = secrets.choice(PORTS)
        with ExitStack() as opened, suppress(OSError):
            for port in range(first, first + count):
                opened.enter_context(_bound(port))
            return first
    raise ConnectorError(f"this machine has no {count} free ports in a row from {PORTS[0]} to {PORTS[-1]}")


def _bound(port: int) -> socket.socket:
    opened = socket.socket()
    try:
        opened.bind(("127.0.0.1", port))
    except BaseException:
        opened.close()
        raise
    return opened


def peak_bytes(pid: int) -> int:
    """The most memory (bytes of RSS) that a process and its children, each at its own time, have had. 0 for one that has ended."""
    proc = Path("/proc") / str(pid)
    own = next((int(line.split()[1]) * KIB for line in _read(proc / "status").splitlines() if line.startswith("VmHWM:")), 0)
    return own + sum(peak_bytes(int(child)) for child in _read(proc / "task" / str(pid) / "children").split())


def _read(path: Path) -> str:
    """A file of /proc; empty once its process has ended, or where the kernel has no such file."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Our own environment without settings of another connector, with these instead."""
    return {name: value for name, value in os.environ.items() if not name.startswith("QIAO_")} | dict(settings)
