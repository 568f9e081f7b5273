"""Forks connectors: the other end of `tests.faults.child`.

One program forks all of them, whichever home they live in: it takes a second and a half of a processor until it has imported the product.
It ends with the last nursery, and there is one for each loop and no more.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

from tests.faults.home import ROOT, Home

COMMAND = (sys.executable, "-m", "tests.faults.child")
LINE_BYTES_MAX = 2**24  # of a log: the points that a life has passed are one line


class Program:
    """The one of a loop, while somebody uses it."""

    def __init__(self) -> None:
        self._users = 0
        self._program: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def used(self) -> AsyncIterator[None]:
        """It runs at least as long as this block."""
        async with self._turn:
            if not self._users:
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
                self._program = await asyncio.create_subprocess_exec(*COMMAND, cwd=ROOT, **pipes)
            self._users += 1
        try:
            yield
        finally:
            async with self._turn:
                self._users -= 1
                if not self._users and (program := self._program) is not None and program.stdin is not None:
                    program.stdin.close()
                    await program.wait()

    async def say(self, order: dict[str, Any]) -> dict[str, Any]:
        """Give an order; returns the answer. Raises RuntimeError if there is none."""
        assert self._program is not None
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        async with self._turn:
            self._program.stdin.write(json.dumps(order).encode() + b"\n")
            if not (line := await self._program.stdout.readline()):
                raise RuntimeError("the program that forks connectors has ended; what it had to say it has said on standard error")
            answer: dict[str, Any] = json.loads(line)
        return answer


_programs: WeakKeyDictionary[asyncio.AbstractEventLoop, Program] = WeakKeyDictionary()


def program() -> Program:
    """The one of this loop."""
    return _programs.setdefault(asyncio.get_running_loop(), Program())


class Nursery:
    """Where the connectors of `home` are born, each of them with the planted defect `bug`."""

    def __init__(self, home: Home, bug: str | None) -> None:
        self._home, self._bug = home, bug
        self._stack = AsyncExitStack()

    async def open(self) -> asyncio.StreamReader:
        """Returns the log of its connectors, one after the other: a pipe by name, as the program that forks them is older than this."""
        path, loop = self._home.directory / "log.pipe", asyncio.get_running_loop()
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        lines, log = asyncio.StreamReader(LINE_BYTES_MAX), os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), log)
        self._stack.callback(transport.close)
        self._stack.callback(os.close, os.open(path, os.O_WRONLY))  # between two lives nobody writes, and the log has not ended
        await self._stack.enter_async_context(program().used())
        return lines

    async def close(self) -> None:
        """Leave the program to others. Idempotent."""
        await self._stack.aclose()

    async def start(self, order: dict[str, Any], ended: Callable[[int], None]) -> int:
        """Fork a connector, ordered as `tests.faults.child` has it; returns its pid. `ended` is told its pid when it is gone."""
        where = {"settings": str(self._home.settings), "log": str(self._home.directory / "log.pipe"), "bug": self._bug}
        pid: int = (await program().say({"start": order} | where))["started"]
        loop, descriptor = asyncio.get_running_loop(), os.pidfd_open(pid)

        def gone() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            ended(pid)

        loop.add_reader(descriptor, gone)
        return pid

    async def reap(self, pid: int) -> int:
        """How a connector that is gone has ended: minus the signal, or its exit status."""
        status: int = (await program().say({"reap": pid}))["status"]
        return status


async def first(*waits: Coroutine[Any, Any, object]) -> int:
    """Wait for the first of several; returns its place among them. The others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(place for place, task in enumerate(tasks) if task.done())
    finally:
        for task in tasks:
            task.cancel()
