"""Forks connectors: the other end of `tests.faults.child`."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from tests.faults.home import ROOT, Home


class Nursery:
    """The program that forks connectors for `home`, each of them with the planted defect `bug`."""

    def __init__(self, home: Home, bug: str | None) -> None:
        self._home, self._bug = home, bug
        self._program: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> asyncio.StreamReader:
        """Start the program; returns the log of its connectors."""
        bug = ["--bug", self._bug] if self._bug else []
        command = [sys.executable, "-m", "tests.faults.child", str(self._home.settings), *bug]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self._program = await asyncio.create_subprocess_exec(*command, cwd=ROOT, limit=2**24, **pipes)
        assert self._program.stderr is not None
        return self._program.stderr

    async def close(self) -> None:
        """End the program. Idempotent."""
        if self._program is not None and self._program.stdin is not None:
            self._program.stdin.close()
            await self._program.wait()
        self._program = None

    async def start(self, order: dict[str, Any], ended: Callable[[int], None]) -> int:
        """Fork a connector, ordered as `tests.faults.child` has it; returns its pid. `ended` is told its pid when it is gone."""
        pid: int = (await self._say({"start": order}))["started"]
        loop, descriptor = asyncio.get_running_loop(), os.pidfd_open(pid)

        def gone() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            ended(pid)

        loop.add_reader(descriptor, gone)
        return pid

    async def reap(self, pid: int) -> int:
        """How a connector that is gone has ended: minus the signal, or its exit status."""
        status: int = (await self._say({"reap": pid}))["status"]
        return status

    async def _say(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._program is not None
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        async with self._turn:
            self._program.stdin.write(json.dumps(order).encode() + b"\n")
            if not (line := await self._program.stdout.readline()):
                raise RuntimeError(f"the program that forks connectors has ended; see {self._home.directory / 'log'}")
            answer: dict[str, Any] = json.loads(line)
        return answer


async def first(*waits: Coroutine[Any, Any, object]) -> int:
    """Wait for the first of several; returns its place among them. The others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(place for place, task in enumerate(tasks) if task.done())
    finally:
        for task in tasks:
            task.cancel()
