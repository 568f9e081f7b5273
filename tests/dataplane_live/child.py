"""A connector in a process of its own, which can be killed and started again.

    python -m tests.dataplane_live.child FILE

`FILE` holds its settings as this process's Python writes them. It says `ready` on its standard output.
"""

import asyncio
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from connector import app, telemetry
from connector.settings import Settings
from tests import pair


def main() -> None:
    settings: Settings = pickle.loads(Path(sys.argv[1]).read_bytes())  # noqa: S301 - the test has written it
    telemetry.configure_logging("warning", "text")
    asyncio.run(app.serve(settings, ready=lambda _: print("ready", flush=True)))


@dataclass
class Child:
    """The connector of a site, with ways to speak to its management API as an operator."""

    site: pair.Site
    http: aiohttp.ClientSession
    process: asyncio.subprocess.Process | None = field(default=None)

    async def start(self) -> None:
        file = self.site.root / "settings.pickle"
        file.write_bytes(pickle.dumps(self.site.settings))
        command = (sys.executable, "-m", "tests.dataplane_live.child", str(file))
        self.process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            assert await self.process.stdout.readline() == b"ready\n"

    async def stop(self) -> None:
        """As an operator does, or who runs it."""
        if self.process is not None:
            self.process.terminate()
            assert await self.process.wait() == 0
            self.process = None

    async def kill(self) -> None:
        """With SIGKILL."""
        if self.process is not None:
            self.process.kill()
            await self.process.wait()
            self.process = None

    async def asked(self, method: str, path: str, body: Any = None, *, status: int = 200, **headers: str) -> Any:
        """The JSON of a management call that has to answer with `status`."""
        url = f"{self.site.settings.management.url}/v1{path}"
        said: Mapping[str, str] = {"Authorization": f"Bearer {pair.TOKEN}"} | headers
        answer = await pair.call(self.http, method, url, body, said)
        assert answer.status == status, (answer.status, answer.body)
        return answer.json


if __name__ == "__main__":
    main()
