"""A source without an end in a process of its own: lines of JSON or events, numbered, which it can send again from any number on.

    python -m tests.dataplane_live.upstream PORT

`GET /lines?since=N` and `GET /events` (`Last-Event-ID: N`) send what comes after N, or from the first on; `count=N` ends the answer after
so many, `pause=S` waits between records, `size=B` pads each of them. Without them as fast as it is taken.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiohttp import ClientConnectorError, ClientSession, web

BATCH = 200


def line(number: int, size: int = 0) -> bytes:
    return b'{"n":%d,"x":"%s"}\n' % (number, b"y" * size)


def event(number: int, size: int = 0) -> bytes:
    return b"id: %d\nevent: reading\ndata: %d %s\n\n" % (number, number, b"y" * size)


async def serve(request: web.Request) -> web.StreamResponse:
    events = request.path == "/events"
    since = request.headers.get("Last-Event-ID") if events else request.query.get("since")
    number, size = int(since or 0), int(request.query.get("size", 0))
    left, pause = int(request.query.get("count", 1 << 60)), float(request.query.get("pause", 0))
    make = event if events else line
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream" if events else "application/x-ndjson"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    batch = 1 if pause else BATCH
    with suppress(ConnectionError):  # whoever has enough goes
        while left > 0:
            numbers = range(number + 1, number + 1 + min(batch, left))
            await response.write(b"".join(make(n, size) for n in numbers))
            number, left = numbers[-1], left - len(numbers)
            if pause:
                await asyncio.sleep(pause)
    return response


def main() -> None:
    app = web.Application()
    app.router.add_get("/lines", serve)
    app.router.add_get("/events", serve)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None, shutdown_timeout=0.1)


@asynccontextmanager
async def running(port: int) -> AsyncIterator[str]:
    """Its URL; it is killed in the end."""
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.dataplane_live.upstream", str(port))
    url = f"http://127.0.0.1:{port}"
    try:
        async with ClientSession() as http, asyncio.timeout(20):
            while True:
                try:
                    async with http.get(f"{url}/lines?count=1") as answer:
                        await answer.read()
                    break
                except ClientConnectorError:
                    assert child.returncode is None
                    await asyncio.sleep(0.05)  # it is not listening yet, and nothing says when it will
        yield url
    finally:
        child.kill()
        await child.wait()


if __name__ == "__main__":
    main()
