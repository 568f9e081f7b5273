"""Connector processes for the benchmark: made by `connector init`, run by `connector run`, watched through `/proc`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.free_ports import free_block

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "bench"
LISTENERS = ("protocol", "data", "management", "ops")  # on consecutive ports
READY_SECONDS = 30.0
LOOK_SECONDS = 0.005  # between two looks at a connector that starts
CPU_CLOCK_OF_A_PROCESS = 2  # CPUCLOCK_SCHED of the kernel's dynamic clocks
ROLES = {"consumer": "biopharma", "provider": "hospital"}
COMMAND = (sys.executable, "-m", "connector")


def did(name: str) -> str:
    return f"did:web:{name}.example"


@dataclass(slots=True)
class Connector:
    """One connector: its folder, its first port, and its process while it runs."""

    name: str
    folder: Path
    port: int
    environ: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = COMMAND
    process: subprocess.Popen[bytes] | None = None

    def url(self, listener: str) -> str:
        return f"http://127.0.0.1:{self.port + LISTENERS.index(listener)}"

    @property
    def id(self) -> str:
        return did(self.name)

    @property
    def token(self) -> dict[str, str]:
        """The header that lets us in at the management listener."""
        return {"Authorization": f"Bearer {(self.folder / 'admin-token').read_text().strip()}"}

    @property
    def database(self) -> Path:
        return self.folder / "connector.db"

    def start(self) -> float:
        """Start the process and wait until it is ready; returns the seconds between."""
        environ = {**os.environ, "QIAO_TELEMETRY_LOG_LEVEL": "warning", **self.environ}
        log = (self.folder / "connector.log").open("ab")
        begun = time.perf_counter()
        with log:
            self.process = subprocess.Popen(
                [*self.command, "run", "--config", str(self.folder / "connector.toml")],
                cwd=ROOT,
                env=environ,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a group of its own for a kernel that shares out cores by session
            )
        while not self._ready():
            if self.process.poll() is not None or time.perf_counter() - begun > READY_SECONDS:
                raise RuntimeError(f"the connector in `{self.folder}` does not start; see its connector.log")
            time.sleep(LOOK_SECONDS)
        return time.perf_counter() - begun

    def _ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port + LISTENERS.index("ops")), timeout=1) as s:
                s.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return s.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def cpu_seconds(self) -> float:
        """CPU that the process has used, all its threads together, user and system."""
        assert self.process is not None
        return time.clock_gettime(~self.process.pid << 3 | CPU_CLOCK_OF_A_PROCESS)

    def memory_mb(self, *fields: str) -> float:
        """The sum of fields of `/proc/PID/status`, such as VmRSS, in megabytes (10^6 bytes)."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return sum(int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.partition(":")[0] in fields)

    def kill(self) -> None:
        """End the process at once, as if the power had gone; nothing if it does not run."""
        self.stop(signal.SIGKILL)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the process, by default as an operator would, and wait for its end."""
        if self.process is not None:
            self.process.send_signal(how)
            try:
                self.process.wait(READY_SECONDS)
            finally:
                self.process.kill()
                self.process = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A consumer and a provider that know each other."""

    consumer: Connector
    provider: Connector

    def __iter__(self) -> Iterator[Connector]:
        return iter((self.consumer, self.provider))

    def start(self) -> None:
        for connector in self:
            connector.start()


@contextmanager
def pair(name: str, command: Sequence[str] = COMMAND, **settings: str) -> Iterator[Pair]:
    """A pair of connectors below `build/bench/<name>`, not started yet; afterwards both are ended and the folder is removed.

    `settings` go into the environment of both, such as QIAO_EDR_TOKEN_SECONDS; `command` is the program that they run.
    """
    folder = BUILD / name
    shutil.rmtree(folder, ignore_errors=True)
    made = [_init(each, folder / each, settings, command) for each in ROLES]
    for one, other in (made, made[::-1]):
        shutil.copy(other.folder / "participants" / f"{other.name}.jsonld", one.folder / "participants")
    try:
        yield Pair(*made)
    except BaseException:
        for connector in made:
            connector.kill()
        raise
    for connector in made:
        connector.stop()
    shutil.rmtree(folder)


def _init(name: str, folder: Path, environ: Mapping[str, str], command: Sequence[str]) -> Connector:
    port = free_block(len(LISTENERS))
    subprocess.run(
        [
            *(*COMMAND, "init", "--name", name, "--id", did(name), "--role", ROLES[name], "--port", str(port)),
            *("--directory", str(folder), "--development", "--save-token"),
        ],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return Connector(name, folder, port, environ, command)


@contextmanager
def program(*command: str) -> Iterator[int]:
    """Run a Python module that prints its port; yields the port and ends the process afterwards."""
    with subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def session() -> aiohttp.ClientSession:
    """A client without limits of its own: as many connections as there are calls at a time."""
    return aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(), connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
    )
