"""A source without an end in a process of its own: lines of JSON or events, numbered, which it can send again from any number on.

    python -m tests.dataplane_live.upstream PORT

It listens on PORT of 127.0.0.1, or on the socket that it has by inheritance as `fd=N`, until its standard input ends.
`GET /lines?since=N` and `GET /events` (`Last-Event-ID: N`) send what comes after N, or from the first on; `count=N` ends the answer after
so many, or breaks it off with `breaks=1`, `pause=S` waits between records, `size=B` pads each of them. Without them as fast as it is taken.
"""

import asyncio
import atexit
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from functools import cache
from http.client import HTTPConnection
from threading import Thread
from typing import Any

from aiohttp import ClientConnectorError, ClientSession, web

from tests.free_ports import free_ports

BATCH = 200
START_SECONDS = 120.0  # of an interpreter with this program: where every processor is taken, half a minute was not enough


def line(number: int, size: int = 0) -> bytes:
    return b'{"n":%d,"x":"%s"}\n' % (number, b"y" * size)


def event(number: int, size: int = 0) -> bytes:
    return b"id: %d\nevent: reading\ndata: %d %s\n\n" % (number, number, b"y" * size)


def whole(make: Callable[[int, int], bytes], size: int, size_bytes: int) -> list[bytes]:
    """The first records, as many as come to so many bytes or more."""
    found, number = list[bytes](), 0
    while size_bytes > 0:
        number += 1
        found.append(make(number, size))
        size_bytes -= len(found[-1])
    return found


async def serve(request: web.Request) -> web.StreamResponse:
    events = request.path == "/events"
    since = request.headers.get("Last-Event-ID") if events else request.query.get("since")
    number, size = int(since or 0), int(request.query.get("size", 0))
    left, pause = int(request.query.get("count", 1 << 60)), float(request.query.get("pause", 0))
    make = event if events else line
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream" if events else "application/x-ndjson"})
    response.enable_chunked_encoding()
    batch = 1 if pause else BATCH
    with suppress(ConnectionError):  # whoever has enough goes
        await response.prepare(request)
        while left > 0:
            numbers = range(number + 1, number + 1 + min(batch, left))
            await response.write(b"".join(make(n, size) for n in numbers))
            number, left = numbers[-1], left - len(numbers)
            if pause:
                await asyncio.sleep(pause)
        if "breaks" in request.query and request.transport is not None:
            request.transport.close()  # what was written leaves before
            await asyncio.Event().wait()
    return response


def main() -> None:
    app = web.Application()
    app.router.add_get("/lines", serve)
    app.router.add_get("/events", serve)
    Thread(target=end_with_input, daemon=True).start()
    kind, _, number = sys.argv[1].rpartition("=")
    where: dict[str, Any] = {"sock": socket.socket(fileno=int(number))} if kind else {"host": "127.0.0.1", "port": int(number)}
    web.run_app(app, **where, print=None, access_log=None, shutdown_timeout=0.1)


def end_with_input() -> None:
    """Nobody is left who would stop it."""
    sys.stdin.buffer.read()
    os._exit(0)


class Upstream:
    """One in a process, which can be killed and started again on its port."""

    def __init__(self, port: int) -> None:
        self._port, self.url = port, f"http://127.0.0.1:{port}"
        self._child: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Returns when it serves."""
        command = (sys.executable, "-m", "tests.dataplane_live.upstream", str(self._port))
        self._child = child = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
        async with ClientSession() as http, asyncio.timeout(START_SECONDS):
            while True:
                try:
                    async with http.get(f"{self.url}/lines?count=1") as answer:
                        await answer.read()
                    break
                except ClientConnectorError:
                    assert child.returncode is None
                    await asyncio.sleep(0.05)  # it is not listening yet, and nothing says when it will

    async def kill(self) -> None:
        """With SIGKILL."""
        if self._child is not None:
            self._child.kill()
            await self._child.wait()
            self._child = None


@asynccontextmanager
async def running() -> AsyncIterator[str]:
    """The URL of one that nobody kills. It remembers nothing, so all tests of a process have the same, which ends with the process."""
    yield await asyncio.to_thread(_shared)


@asynccontextmanager
async def alone() -> AsyncIterator[str]:
    """The URL of one of its own, which is gone in the end."""
    one = Upstream(free_ports(1)[0])
    try:
        await one.start()
        yield one.url
    finally:
        await one.kill()


@cache
def _shared() -> str:
    with socket.create_server(("127.0.0.1", 0)) as at:
        port, fd = at.getsockname()[1], at.fileno()
        command = (sys.executable, "-m", "tests.dataplane_live.upstream", f"fd={fd}")
        atexit.register(_end, subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[fd]))
    with closing(HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)) as first:
        first.request("GET", "/lines?count=1")
        assert first.getresponse().read() == line(1)
    return f"http://127.0.0.1:{port}"


def _end(child: subprocess.Popen[bytes]) -> None:
    with child:  # it ends with its standard input
        pass


if __name__ == "__main__":
    main()
