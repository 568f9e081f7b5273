"""Hands foreign JSON-LD to a limited child process and takes back the compact form, or the reasons why there is none.

Only bodies that are not valid in compact form come here. The child is started on first use, works on one body at a
time, and is killed and replaced when it exceeds its time or memory; no body can reach the connector's own process. Senders
take turns, so that none of them can keep the child from the others.
"""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

import connector
from connector import telemetry
from connector.dsp.schemas import SCHEMA_OF
from connector.errors import Busy, ConnectorError, TooMany, WireError
from connector.lasting import stopped
from connector.values import Value

WORKER = "connector.adapters.jsonld_worker"
LENGTH = struct.Struct(">I")  # before each frame, as the worker reads and writes it
EXIT_MEMORY = 3  # the worker's status when it ran out of memory
# Of the libraries in C some do not survive an allocation that fails.
LIMIT_OF_STATUS = {EXIT_MEMORY: "its memory", -signal.SIGSEGV: "its memory", -signal.SIGXCPU: "its processor time"}
BODY_MAX_BYTES = 1 << 20  # the largest body that expansion can be expected to finish in ANSWER_SECONDS
REPLY_MAX_BYTES = 2 << 20  # compaction shortens; a longer reply is an expansion bomb
MEMORY_BYTES = 384 << 20  # the child needs 60 MiB at rest; a body of BODY_MAX_BYTES less than 200 MiB
ANSWER_SECONDS = 2.0  # wall clock for one body; an ordinary message takes 5 ms
TURNS_MAX = 3  # so many times that is waited for a child that was hardly given a processor meanwhile: no body is to blame for that
STARVED = 0.05  # the share of that time which even a body that takes all it can get does not fall below
START_SECONDS = 15.0  # an interpreter and its imports take 0.5 s on a free processor
MEND = "send the compact form of DSP 2025-1"
WAITING_MAX = 64  # bodies of all senders: a third of a second of ordinary ones
WAITING_SECONDS = 10.0  # then a body is refused: its sender waits no longer than 15 s for the answer


class _Job(Value):
    body: bytes
    expected: str
    answer: asyncio.Future[dict[str, Any]]


class _Waiting:
    """What waits: a queue for each sender, served in turn. If all places are taken, the sender with the most of them gives up
    its newest one, so that nobody finds no place because of another."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._queues: OrderedDict[str, deque[_Job]] = OrderedDict()
        self._news = asyncio.Event()
        self._closed = False

    def put(self, sender: str, job: _Job) -> _Job | None:
        """Let `job` wait. Returns the one that has no place then: another, `job` itself, or None."""
        if sum(map(len, self._queues.values())) >= self._places:
            self._forget_who_has_gone()
        out = None
        if sum(map(len, self._queues.values())) >= self._places:
            most = max(self._queues.values(), key=len)
            if len(most) <= len(self._queues.get(sender, ())) + 1:
                return job
            out = most.pop()
        self._queues.setdefault(sender, deque()).append(job)
        self._news.set()
        return out

    async def get(self) -> _Job | None:
        """The next one: the oldest of the sender whose turn it is. None once it is closed."""
        while not self._queues:
            if self._closed:
                return None
            self._news.clear()
            await self._news.wait()
        sender, queue = self._queues.popitem(last=False)
        job = queue.popleft()
        if queue:
            self._queues[sender] = queue
        return job

    def close(self) -> list[_Job]:
        """Let nobody wait any longer. Returns those who did."""
        left = [job for queue in self._queues.values() for job in queue]
        self._queues.clear()
        self._closed = True
        self._news.set()
        return left

    def _forget_who_has_gone(self) -> None:
        for sender, queue in tuple(self._queues.items()):
            left = deque(job for job in queue if not job.answer.done())
            if left:
                self._queues[sender] = left
            else:
                del self._queues[sender]


class Expander:
    """Compacts and explains in a child process with limits. Belongs to one event loop; `close` ends the child.

    `schemas` maps `$id` -> JSON Schema, `contexts` URL -> JSON-LD context: all that the child will ever know.
    """

    def __init__(
        self,
        schemas: Mapping[str, Mapping[str, Any]],
        contexts: Mapping[str, Mapping[str, Any]],
        *,
        answer_seconds: float = ANSWER_SECONDS,
        memory_bytes: int = MEMORY_BYTES,
        waiting_max: int = WAITING_MAX,
        waiting_seconds: float = WAITING_SECONDS,
    ) -> None:
        self._answer_seconds = answer_seconds
        self._waiting_seconds = waiting_seconds
        setup = {"schemas": dict(schemas), "contexts": dict(contexts), "memory_bytes": memory_bytes, "cpu_seconds": int(answer_seconds) + 1}
        self._setup = orjson.dumps(setup)
        self._jobs = _Waiting(waiting_max)
        self._runner: asyncio.Task[None] | None = None
        self._child: asyncio.subprocess.Process | None = None
        self._closed = False

    async def compact(self, body: bytes, expected: str, sender: str) -> dict[str, Any]:
        """Return `body`, any JSON-LD form of a message, in the compact form that the schema of type `expected` accepts.

        Raises `WireError` with reasons if there is no such form, if a context is not one of ours, or if the body
        exceeds the limits of the worker; `TooMany` if `sender` has too many bodies waiting, or this one waited too long;
        `Busy` if no worker can be started; `ValueError` for an `expected` that has no schema.
        """
        if expected not in SCHEMA_OF:
            raise ValueError(f"`{expected}` has no schema; expected is one of {', '.join(SCHEMA_OF)}")
        if len(body) > BODY_MAX_BYTES:
            raise WireError(f"the body has {len(body)} bytes; in any but the compact form of DSP 2025-1 it may have {BODY_MAX_BYTES}")
        if self._closed:
            raise Busy("the JSON-LD worker is closed; the connector is stopping")
        if self._runner is None:
            self._runner = asyncio.create_task(self._run(), name="jsonld-worker")
        job = _Job(body, expected, asyncio.get_running_loop().create_future())
        if (out := self._jobs.put(sender, job)) is not None:
            _settle(out, TooMany(f"too many bodies of yours wait for JSON-LD expansion; {MEND}, or fewer at once"))
        try:
            async with asyncio.timeout(self._waiting_seconds):
                return await job.answer
        except TimeoutError:
            raise TooMany(f"the body waited {self._waiting_seconds:g} s for JSON-LD expansion; {MEND}, or try later") from None

    async def close(self) -> None:
        """End the child and refuse whatever waits. May be called again."""
        self._closed = True
        if self._runner is None or self._runner.done():
            return
        for job in self._jobs.close():
            _settle(job, Busy("the connector is stopping"))
        if self._child is not None:
            _kill(self._child)
        await asyncio.shield(self._runner)

    async def _run(self) -> None:
        try:
            while (job := await self._jobs.get()) is not None:
                if job.answer.done():  # its caller has gone
                    continue
                try:
                    _settle(job, await self._exchange(job))
                except ConnectorError as error:
                    _settle(job, error)
                except Exception as error:  # a defect of ours: its caller learns of it, the next body gets a new child
                    _settle(job, error)
                    try:
                        await self._end_child()
                    except Exception as defect:  # it is given up, and nobody would read any body any more without this loop
                        telemetry.log.error("JSON-LD worker not ended", exc_info=defect)
        finally:
            await self._end_child()

    async def _exchange(self, job: _Job) -> dict[str, Any]:
        if self._child is not None and self._child.returncode is not None:  # it ended while idle, through no body's fault
            await self._end_child()
        child = self._child or await self._start()
        try:
            reply = await self._asked(child, orjson.dumps({"expected": job.expected}), job.body)
        except TimeoutError:
            await self._end_child()
            raise WireError(f"the body could not be expanded within {self._answer_seconds:g} s; {MEND}") from None
        except (ConnectionError, EOFError):
            status = await self._end_child()
            if self._closed:
                raise Busy("the connector is stopping") from None
            limit = LIMIT_OF_STATUS.get(status or 0, f"its limits (it ended with {status})")
            raise WireError(f"the body could not be expanded: the worker exceeded {limit}; {MEND}") from None
        if "document" in reply:
            document: dict[str, Any] = reply["document"]
            return document
        raise WireError(reply["error"], tuple(reply["reasons"]))

    async def _asked(self, child: asyncio.subprocess.Process, *frames: bytes) -> dict[str, Any]:
        """The reply to `frames`. Raises TimeoutError once the child had its time; where it was kept from working, only after TURNS_MAX."""

        async def converse() -> dict[str, Any]:
            await _send(child, *frames)
            return await _receive(child)

        task = asyncio.create_task(converse(), name="jsonld-body")
        try:
            for _ in range(TURNS_MAX):
                worked = _processor_seconds(child.pid)
                if (await asyncio.wait({task}, timeout=self._answer_seconds))[0]:
                    return task.result()
                if _processor_seconds(child.pid) - worked >= STARVED * self._answer_seconds:
                    break
            raise TimeoutError
        finally:
            await stopped(task)

    async def _start(self) -> asyncio.subprocess.Process:
        # the child gets no settings and no secrets, only where to find the package and the interpreter's libraries
        environment = {"PYTHONPATH": str(Path(connector.__file__).parent.parent), "LC_ALL": "C.UTF-8"}
        environment |= {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PYTHONHOME") if name in os.environ}
        try:
            child = self._child = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-s", "-m", WORKER, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment
            )
            async with asyncio.timeout(START_SECONDS):
                await _send(child, self._setup)
                await _receive(child)
        except (OSError, EOFError) as error:  # TimeoutError is an OSError
            status = await self._end_child()
            raise Busy(f"the JSON-LD worker could not be started ({type(error).__name__}, exit status {status})") from error
        return child

    async def _end_child(self) -> int | None:
        """Kill the child, if any, and wait until nothing of it is left. Returns its exit status."""
        child, self._child = self._child, None
        if child is None or child.stdin is None or child.stdout is None:
            return None
        _kill(child)
        child.stdin.close()
        while await child.stdout.read(1 << 16):  # unread output would keep the pipe open
            pass
        with suppress(ConnectionError):
            await child.stdin.wait_closed()
        return await child.wait()


def _processor_seconds(pid: int) -> float:
    """What a child has used of the processors: Linux names that clock by the pid (clock_getcpuclockid(3)). Elsewhere, and of one that has
    ended, the wall clock stands for it."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return time.monotonic()


def _kill(child: asyncio.subprocess.Process) -> None:
    # not `child.kill()`: that looks whether the child has ended, and by looking takes the exit status from asyncio's watcher
    if child.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)


def _settle(job: _Job, outcome: dict[str, Any] | Exception) -> None:
    if job.answer.done():
        return
    if isinstance(outcome, Exception):
        job.answer.set_exception(outcome)
    else:
        job.answer.set_result(outcome)


async def _send(child: asyncio.subprocess.Process, *frames: bytes) -> None:
    if child.stdin is None:
        raise EOFError("the worker has no input")
    child.stdin.writelines(part for frame in frames for part in (LENGTH.pack(len(frame)), frame))
    await child.stdin.drain()


async def _receive(child: asyncio.subprocess.Process) -> dict[str, Any]:
    if child.stdout is None:
        raise EOFError("the worker has no output")
    (length,) = LENGTH.unpack(await child.stdout.readexactly(LENGTH.size))
    if length > REPLY_MAX_BYTES:
        raise EOFError("the worker's reply is too long")
    reply: dict[str, Any] = orjson.loads(await child.stdout.readexactly(length))
    return reply
