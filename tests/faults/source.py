"""A slow upstream behind a dataset: a pull from it outlives its access token, and is cut in the middle by a kill."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiohttp import web

PIECE_BYTES = 64 * 1024
PIECE_SECONDS = 0.2  # 16 pieces take longer than a token lives


class Slow:
    """Serves `contents` by name; slow once `slow` is set, as publishing reads everything first."""

    def __init__(self) -> None:
        self.url = ""
        self.contents: dict[str, bytes] = {}
        self.slow: set[str] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a GET, whole or from an offset on."""
        name = request.match_info["name"]
        content = self.contents[name]
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        first, last = (int(asked[1]), int(asked[2] or len(content) - 1)) if asked else (0, len(content) - 1)
        response = web.StreamResponse(status=206 if asked else 200, headers={"ETag": tag})
        response.content_length = last - first + 1
        if asked:
            response.headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        await response.prepare(request)
        with suppress(ConnectionResetError):  # who reads was killed, or has seen enough
            for offset in range(first, last + 1, PIECE_BYTES):
                await response.write(content[offset : min(offset + PIECE_BYTES, last + 1)])
                if name in self.slow:
                    await asyncio.sleep(PIECE_SECONDS)
        return response


@asynccontextmanager
async def slow_source() -> AsyncIterator[Slow]:
    """Serve on loopback while the block runs."""
    source = Slow()
    app = web.Application()
    app.router.add_get("/{name}", source.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        source.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield source
    finally:
        await runner.cleanup()
