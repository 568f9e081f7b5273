"""A connector in a process of its own, which can be killed and started again.

    python -m tests.dataplane_live.child

It imports the product once, and forks a connector for each line that it reads: the name of a file with its settings, as this process's
Python writes them. It says `ready PID` once that one serves, and `ended STATUS` once it is gone, with the signal below zero. A fork instead
of a fresh interpreter saves the second that imports take.
"""

import asyncio
import atexit
import os
import pickle
import random
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import yaml  # noqa: F401 - which the product imports in each of its starts, to read its profiles

from connector import app, telemetry
from connector.dataplane_live import flow
from connector.intake import account, patience
from connector.settings import Settings
from tests import pair

READY_SECONDS = 60.0
# Checkpoints and receipts follow each other sooner than in the field. A receipt comes later than what it signs for is proven.
SOON: tuple[tuple[Any, str, float], ...] = (
    (flow, "SEAL_SECONDS", 0.2),
    (account, "QUIET_SECONDS", 0.4),
    (account, "FIRST_PAUSE_SECONDS", 0.2),
    (account, "PAUSE_SECONDS_MAX", 0.5),
    (patience, "FIRST_PAUSE_SECONDS", 0.2),
    (patience, "PAUSE_SECONDS_MAX", 0.5),
)


def main() -> None:
    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            status = 1
            try:
                live(Path(line.rstrip("\n")))
                status = 0
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(status)
        print("ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def live(file: Path) -> None:
    """Be a connector until a signal ends it."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    random.seed()
    for module, name, value in SOON:
        setattr(module, name, value)
    settings: Settings = pickle.loads(file.read_bytes())  # noqa: S301 - the test has written it
    telemetry.configure_logging("warning", "text")
    asyncio.run(app.serve(settings, ready=lambda _: print("ready", os.getpid(), flush=True)))


@cache
def _forking() -> subprocess.Popen[str]:
    """The program that forks them, one after the other. It ends with its standard input."""
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.dataplane_live.child"], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    atexit.register(program.communicate)
    return program


async def _heard() -> list[str]:
    """The next words of the program."""
    stdout = _forking().stdout
    assert stdout is not None
    async with asyncio.timeout(READY_SECONDS):
        return (await asyncio.to_thread(stdout.readline)).split()


@dataclass
class Child:
    """The connector of a site, with ways to speak to its management API as an operator. One lives at a time."""

    site: pair.Site
    http: aiohttp.ClientSession
    pid: int = field(default=0)

    async def start(self) -> None:
        file = self.site.root / "settings.pickle"
        file.write_bytes(pickle.dumps(self.site.settings))
        stdin = _forking().stdin
        assert stdin is not None
        stdin.write(f"{file}\n")
        stdin.flush()
        said, pid = await _heard()
        assert said == "ready"
        self.pid = int(pid)

    async def stop(self) -> None:
        """As an operator does, or who runs it."""
        assert await self._end(signal.SIGTERM) in (0, None)

    async def kill(self) -> None:
        """With SIGKILL."""
        assert await self._end(signal.SIGKILL) in (-signal.SIGKILL, None)

    async def _end(self, how: signal.Signals) -> int | None:
        """The status with which it ended; None if there is none."""
        if not self.pid:
            return None
        os.kill(self.pid, how)
        self.pid = 0
        said, status = await _heard()
        assert said == "ended"
        return int(status)

    async def asked(self, method: str, path: str, body: Any = None, *, status: int = 200, **headers: str) -> Any:
        """The JSON of a management call that has to answer with `status`."""
        url = f"{self.site.settings.management.url}/v1{path}"
        said: Mapping[str, str] = {"Authorization": f"Bearer {pair.TOKEN}"} | headers
        answer = await pair.call(self.http, method, url, body, said)
        assert answer.status == status, (answer.status, answer.body)
        return answer.json


if __name__ == "__main__":
    main()
