"""What the product is measured against: a bare aiohttp handler in a process of its own.

`python -m tests.bench.bare echo` answers a POST with the JSON that it got; `python -m tests.bench.bare FILE` answers a GET with
the bytes of that file from memory. The first line on standard output is the port.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from aiohttp import web


def application(what: str) -> web.Application:
    """The one handler for `what`: `echo` or the path of a file."""
    app = web.Application()
    if what == "echo":

        async def echo(request: web.Request) -> web.Response:
            return web.json_response(await request.json())

        app.router.add_post("/", echo)
    else:
        body = Path(what).read_bytes()

        async def give(_request: web.Request) -> web.Response:
            return web.Response(body=body)

        app.router.add_get("/", give)
    return app


async def serve(what: str) -> None:
    """Serve until the process is ended."""
    runner = web.AppRunner(application(what), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
