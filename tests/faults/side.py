"""One connector of the pair as a process: started, killed, started again, and asked through its management API."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from connector.client.management import ManagementClient
from connector.client.transport import ManagementError
from tests.faults.home import ROOT, Home
from tests.faults.nursery import Nursery, first
from tests.faults.patience import Queue, patience

READY_SECONDS = 60.0
LOOK_SECONDS = 2.0  # a look without news: costs little, and the run does not hang on an event that was never sent
CONFLICT, SERVER_ERROR = 409, 500
KILLED = -signal.SIGKILL
T = TypeVar("T")


class Side:
    """A connector in `home`. `bug` is planted in each of its processes."""

    def __init__(self, home: Home, bug: str | None = None) -> None:
        self.home, self.name, self.bug = home, home.name, bug
        self.ready = asyncio.Event()  # set while the connector serves
        self.dead = asyncio.Event()  # set while there is no process
        self.dead.set()
        self.repeats = 0  # management calls that had to be said again
        self.complaints: Counter[str] = Counter()  # errors in its log, and ends that were not ours
        self.ready_seconds: list[float] = []  # from each start to its `ready`
        self.ready_at = time.monotonic()
        self.passed: Counter[str] = Counter()  # points, since the last `collect`
        self.died_at: str | None = None  # the point at which the last process ended itself
        self._said = asyncio.Event()
        self._armed = False  # whether the process is to end itself
        self._may_end = False  # whether we have ended it
        self._news: dict[str, asyncio.Event] = {}
        self._sequence = 0
        self._began = 0.0
        self._pid = 0
        self._queue = Queue()
        self._starting = asyncio.Lock()  # while there is no pid to kill yet
        self._tasks: set[asyncio.Task[None]] = set()
        self._follower: asyncio.Task[None] | None = None
        self._nursery = Nursery(home, bug)
        self._client: ManagementClient | None = None

    @property
    def lives(self) -> int:
        """How often it came to serve."""
        return len(self.ready_seconds)

    def queued_seconds(self) -> float:
        """How long the threads of its processes were in the queue for a processor, all together."""
        return self._queue.seconds(self._pid)

    async def open(self) -> None:
        """Start the program that forks connectors, and the client."""
        self._spawn(self._read_log(await self._nursery.open()))
        self._client = await ManagementClient(self.home.url, self.home.token).__aenter__()

    async def close(self) -> None:
        """End everything. Idempotent."""
        await self.kill()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.__aexit__(None, None, None)
        self._client = None
        await self._nursery.close()

    async def start(self, **order: Any) -> None:
        """Start a connector by a fork; returns when it serves, or has ended before. `order` as `tests.faults.child` has it."""
        async with self._starting:
            self._begin()
            self._armed = "kill" in order
            self._lives_as(await self._nursery.start(order, self._gone))
        await self._until_serving()

    async def start_program(self) -> None:
        """Start the real program, `connector run`; returns when it serves, or has been killed before."""
        if self.bug:  # only our own program can plant it
            await self.start()
            return
        command = [sys.executable, "-m", "connector", "run", "--config", str(self.home.settings)]
        async with self._starting:
            self._begin()
            program = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE, cwd=ROOT, limit=2**24)
            self._lives_as(program.pid)
        assert program.stderr is not None
        self._spawn(self._read_log(program.stderr))
        self._spawn(self._wait_for(program))
        await self._until_serving()

    def _begin(self) -> None:
        self._began = time.monotonic()
        self.died_at = None
        self._armed = self._may_end = False
        self._said.clear()

    def _lives_as(self, pid: int) -> None:
        """From now on there is somebody to kill; before, the number would be that of another, or 0, which is all of our own group."""
        self._pid = pid
        self.dead.clear()

    async def _until_serving(self) -> None:
        where = f"see {self.home.directory / 'log'}"
        try:
            async with patience(READY_SECONDS, self.queued_seconds):
                ended = await first(self.ready.wait(), self.dead.wait()) == 1
        except TimeoutError:
            raise RuntimeError(f"the {self.name} is not ready after {READY_SECONDS:g} s; {where}") from None
        if ended and not self._armed and not self._may_end:
            raise RuntimeError(f"the {self.name} has ended by itself before it was ready; {where}")

    async def kill(self, how: int = signal.SIGKILL) -> bool:
        """End the process; returns when it is gone. False if there was none."""
        async with self._starting:
            if self.dead.is_set():
                return False
            self.ready.clear()
            self._armed, self._may_end = False, True
            with suppress(ProcessLookupError):
                os.kill(self._pid, how)
        await self.dead.wait()
        return True

    def signal(self, number: int) -> None:
        """Send the process a signal, if there is one."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, number)

    async def collect(self) -> Counter[str]:
        """The points that were passed since the last time, in the order of their first passage. The connector must be a fork."""
        self._said.clear()
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGUSR1)
        await first(self._said.wait(), self.dead.wait())
        return self.take_passed()

    def take_passed(self) -> Counter[str]:
        """The points of lives that have ended, as `collect`."""
        passed, self.passed = self.passed, Counter()
        return passed

    async def insist(self, call: Callable[[ManagementClient], Awaitable[T]]) -> T:
        """Make a call until it is answered, as programs do that use idempotency keys. Raises ManagementError if the answer is
        that the call is wrong."""
        while True:
            try:
                return await self.once(call)
            except ManagementError as error:
                if error.status and error.status < SERVER_ERROR:
                    raise
            await self.pause()

    async def once(self, call: Callable[[ManagementClient], Awaitable[T]]) -> T:
        """Make a call once, as soon as the connector serves. Raises ManagementError; what has happened is unknown then."""
        await self.ready.wait()
        assert self._client is not None
        return await call(self._client)

    async def pause(self) -> None:
        """Wait a moment after a call that failed: for the end of a dying process, or for the peer that it needs."""
        self.repeats += 1
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await self.dead.wait()

    async def until(self, pid: str, look: Callable[[ManagementClient], Awaitable[T]], holds: Callable[[T], bool]) -> T:
        """Look at something after each news of the process or pull `pid`, until it is as it should be."""
        while True:
            news = self.listen(pid)
            found = await self.insist(look)
            if holds(found):
                return found
            await self.heard(news)

    @staticmethod
    async def heard(news: asyncio.Event) -> None:
        """Wait for news that `listen` has promised."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await news.wait()

    def listen(self, pid: str) -> asyncio.Event:
        """An event that the next news of this process or pull sets. Ask for it before looking at what it is about."""
        return self._news.setdefault(pid, asyncio.Event())

    def _gone(self, pid: int) -> None:
        self.ready.clear()
        self._spawn(self._reap(pid))

    async def _reap(self, pid: int) -> None:
        status = await self._nursery.reap(pid)
        if self._armed:  # its last words are in the pipe: read them first
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._said.wait()
        self._ended(status)

    async def _wait_for(self, program: asyncio.subprocess.Process) -> None:
        self._ended(await program.wait())

    def _ended(self, status: int) -> None:
        self.ready.clear()
        if self._follower is not None:
            self._follower.cancel()
        if status not in (KILLED, 0):
            self.complaints[f"the process ended with status {status}"] += 1
        self.dead.set()

    async def _read_log(self, lines: asyncio.StreamReader) -> None:
        """Read what the connectors log: when they are ready, what they complain of, and which points they passed."""
        with (self.home.directory / "log").open("ab", buffering=0) as log:
            async for line in lines:
                try:
                    said = json.loads(line)
                except ValueError:
                    log.write(line)
                    self.complaints[line.decode(errors="replace").strip()[:200]] += 1
                    continue
                if said.get("event") == "passed":
                    self.passed.update(said["counts"])
                    self.died_at = said["died_at"]
                    self._said.set()
                    continue
                log.write(line)
                if said.get("event") == "ready":
                    self.ready_at = time.monotonic()
                    self.ready_seconds.append(self.ready_at - self._began)
                    self.ready.set()
                    self._follower = self._spawn(self._follow())
                elif said.get("level") in ("error", "critical"):
                    self.complaints[f"{said.get('event')} {said.get('error', '')} {str(said.get('exception', ''))[-300:]}".strip()] += 1

    async def _follow(self) -> None:
        """Wake whoever waits for news; a new life goes on after what the last one has said."""
        assert self._client is not None
        with suppress(ManagementError):
            async for event in self._client.events(self._sequence):
                about = [getattr(event, "pid", None), getattr(event, "id", None)]
                if (sequence := getattr(event, "sequence", None)) is not None:
                    self._sequence = sequence
                    about.append((event.detail or {}).get("pull"))
                for pid in about:
                    if pid in self._news:
                        self._news.pop(pid).set()

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
