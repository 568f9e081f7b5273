"""One connector of the pair as a process: made, started, killed, started again, and asked through its management API."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from connector.client.management import ManagementClient
from connector.client.transport import ManagementError

ROOT = Path(__file__).parents[2]
READY_SECONDS = 30.0
CONFLICT, SERVER_ERROR = 409, 500
# What `connector init` does not ask for. Short times: a peer that was killed comes back within two seconds.
SETTINGS = {
    "QIAO_TELEMETRY_LOG_FORMAT": "json",
    "QIAO_DELIVERY_RETRY_SECONDS_MAX": "0.5",
    "QIAO_EDR_TOKEN_SECONDS": "5",
    "QIAO_EDR_QUIET_SECONDS": "10",
}
T = TypeVar("T")


class Side:
    """A connector `name` in its own directory below `root`. `bug` is planted in each of its processes."""

    def __init__(self, name: str, root: Path, bug: str | None = None) -> None:
        self.name = name
        self.directory = root / name
        self.bug = bug
        self.port = _free_block()
        self.url = f"http://127.0.0.1:{self.port + 2}"
        self.ready = asyncio.Event()  # set while the connector serves
        self.dead = asyncio.Event()  # set while there is no process
        self.dead.set()
        self.news = asyncio.Event()  # set by each event of its feed
        self.lives = 0
        self.repeats = 0  # management calls that had to be said again
        self.complaints: Counter[str] = Counter()  # errors in its log
        self.ends: list[int] = []  # how its processes ended: minus the signal, or the exit status
        self.points: asyncio.Future[dict[str, int]] | None = None
        self.began = self.ready_at = 0.0
        self._pid = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._nursery: asyncio.subprocess.Process | None = None
        self._client: ManagementClient | None = None

    async def make(self) -> None:
        """Write settings, keys and token. The token is asked for from the file that `init` saved."""
        command = [
            *("init", "--name", self.name, "--id", f"did:web:{self.name}.example", "--role", self.name),
            "--development",
            "--save-token",
        ]
        where = ["--directory", str(self.directory), "--port", str(self.port)]
        subprocess.run([sys.executable, "-m", "connector", *command, *where], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)  # noqa: ASYNC221
        settings = self.directory / "connector.toml"
        text = settings.read_text()
        for variable, value in SETTINGS.items():
            _, section, field = variable.lower().split("_", 2)
            quoted = value if re.fullmatch(r"[\d.]+", value) else json.dumps(value)
            text = re.sub(rf"(?ms)(^\[{section}\]$.*?^{field} = )\S+", rf"\g<1>{quoted}", text, count=1)
        settings.write_text(text)
        self.token = (self.directory / "admin-token").read_text().strip()

    def meet(self, other: "Side") -> None:
        """Give our self-description to the other side."""
        mine = self.directory / "participants" / f"{self.name}.jsonld"
        (other.directory / "participants" / mine.name).write_bytes(mine.read_bytes())

    @property
    def client(self) -> ManagementClient:
        assert self._client is not None
        return self._client

    async def open(self) -> None:
        """Start the program that forks connectors, and the client."""
        bug = ["--bug", self.bug] if self.bug else []
        self._nursery = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.faults.child", str(self.directory / "connector.toml"), *bug),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            limit=2**24,
        )
        self._spawn(self._read_log(self._nursery))
        self._client = await ManagementClient(self.url, self.token).__aenter__()

    async def close(self) -> None:
        await self.kill()
        if self._client is not None:
            await self._client.__aexit__(None, None, None)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._nursery is not None and self._nursery.stdin is not None:
            self._nursery.stdin.close()
            await self._nursery.wait()

    async def start(self, **order: Any) -> None:
        """Start a connector; returns when it serves, or has ended before. `order` as `tests.faults.child` has it."""
        self.began = time.perf_counter()
        self.dead.clear()
        self.lives += 1
        if order or self.lives or self.bug:
            self._pid = (await self._order({"start": order}))["started"]
            self._watch_end(self._pid)
        await self.until_serving()

    async def start_program(self) -> None:
        """Start the real program, `connector run`, in an interpreter of its own; returns when it serves."""
        if self.bug:
            return await self.start()
        self.began = time.perf_counter()
        self.dead.clear()
        self.lives += 1
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "connector", "run", "--config", str(self.directory / "connector.toml")),
            stderr=subprocess.PIPE,
            cwd=ROOT,
            limit=2**24,
        )
        self._pid = program.pid
        self._spawn(self._read_log(program))
        self._spawn(self._wait_for(program))
        return await self.until_serving()

    async def until_serving(self) -> None:
        """Return when the connector serves or has ended. Raises TimeoutError."""
        async with asyncio.timeout(READY_SECONDS):
            await _first(self.ready.wait(), self.dead.wait())

    async def kill(self) -> None:
        """SIGKILL, if there is a process; returns when it is gone."""
        if not self.dead.is_set():
            self.ready.clear()
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            await self.dead.wait()

    async def passed(self) -> dict[str, int]:
        """The points that a recording connector has passed so far, with how often."""
        self.points = asyncio.get_running_loop().create_future()
        os.kill(self._pid, signal.SIGUSR1)
        return await self.points

    async def insist(self, call: Callable[[ManagementClient], Awaitable[T]]) -> T:
        """Make a call until it is answered, as programs do that use idempotency keys. Raises ManagementError if the answer is
        that the call is wrong."""
        while True:
            await self.ready.wait()
            try:
                return await call(self.client)
            except ManagementError as error:
                if error.status and error.status < SERVER_ERROR:
                    raise
            self.repeats += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await self.dead.wait()

    async def until(self, look: Callable[[ManagementClient], Awaitable[T]], holds: Callable[[T], bool]) -> T:
        """Look at something after each event until it is as it should be."""
        while True:
            self.news.clear()
            found = await self.insist(look)
            if holds(found):
                return found
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self.news.wait()

    async def _order(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._nursery is not None
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(json.dumps(order).encode() + b"\n")
        answer: dict[str, Any] = json.loads(await self._nursery.stdout.readline())
        return answer

    def _watch_end(self, pid: int) -> None:
        loop = asyncio.get_running_loop()
        descriptor = os.pidfd_open(pid)

        def ended() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            self.ready.clear()
            self._spawn(self._reap(pid))

        loop.add_reader(descriptor, ended)

    async def _reap(self, pid: int) -> None:
        self._ended((await self._order({"reap": pid}))["status"])

    async def _wait_for(self, program: asyncio.subprocess.Process) -> None:
        self._ended(await program.wait())

    def _ended(self, status: int) -> None:
        self.ready.clear()
        self.ends.append(status)
        self.dead.set()

    async def _read_log(self, program: asyncio.subprocess.Process) -> None:
        """Read what the connectors log: when they are ready, what they complain of, and what was recorded."""
        assert program.stderr is not None
        with (self.directory / "log").open("ab") as log:
            async for line in program.stderr:
                log.write(line)
                log.flush()
                try:
                    said = json.loads(line)
                except ValueError:
                    self.complaints[line.decode(errors="replace").strip()[:120]] += 1
                    continue
                match said.get("event"):
                    case "ready":
                        self.ready_at = time.perf_counter()
                        self.ready.set()
                        self._spawn(self._follow())
                    case "points" if self.points is not None:
                        self.points.set_result(said["counts"])
                    case event if said.get("level") in ("error", "critical"):
                        self.complaints[f"{event} {said.get('error', '')} {str(said.get('exception', ''))[-200:]}".strip()] += 1

    async def _follow(self) -> None:
        """Wake whoever waits at each event of this life."""
        with suppress(ManagementError):
            async for _ in self.client.live():
                self.news.set()
                if self.dead.is_set():
                    return

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _first(*waits: Any) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _free_block() -> int:
    """The first of four free ports of 127.0.0.1 in a row."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                for more in (1, 2, 3):
                    with socket.socket() as another:
                        another.bind(("127.0.0.1", port + more))
            except OSError:
                continue
            return port
