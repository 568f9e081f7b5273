"""A provider that others reach through a reverse proxy, below a path of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from connector.settings import ListenerSettings
from connector.settings.fields import LimitsSettings
from tests.free_ports import free_ports
from tests.pair import running, site
from tests.test_app import pulled

PREFIX = "/spaces/one/hospital"
END_TO_END = {"authorization", "accept-encoding", "content-type", "content-encoding", "link", "vary", "traceparent", "range"}


@asynccontextmanager
async def proxy(port: int, to: int) -> AsyncIterator[list[str]]:
    """A reverse proxy as operators have them: below PREFIX everything is passed on without it, elsewhere nothing is there. Yields
    the addresses that it was asked for."""
    asked: list[str] = []

    async def forward(request: web.Request) -> web.Response:
        asked.append(request.raw_path)
        if not request.raw_path.startswith(PREFIX + "/"):
            return web.Response(status=404)
        url = URL(f"http://127.0.0.1:{to}{request.raw_path.removeprefix(PREFIX)}", encoded=True)
        headers = {name: value for name, value in request.headers.items() if name.lower() in END_TO_END}
        async with http.request(request.method, url, data=await request.read(), headers=headers) as answer:
            kept = [(name, value) for name, value in answer.headers.items() if name.lower() in END_TO_END]
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            yield asked
        finally:
            await runner.cleanup()


@pytest.mark.asyncio
async def test_a_consumer_walks_the_catalog_and_pulls_through_a_proxy_with_a_path(tmp_path: Path):
    inside, outside = free_ports(2)
    protocol = ListenerSettings(port=inside, url=f"http://127.0.0.1:{outside}{PREFIX}")
    one = site(tmp_path / "hospital", "hospital", protocol=protocol, limits=LimitsSettings(catalog_page=2))
    other = site(tmp_path / "biopharma", "biopharma")
    one.meet(other)
    ids = [f"urn:test:{n}" for n in range(5)]
    async with running(one) as provider, running(other) as consumer, proxy(outside, inside) as asked:
        for id in ids:
            await provider.publish(id, content=id.encode())
        met: list[str] = []
        body: dict[str, object] = {"peer": "hospital", "filter": [{"property": "@id", "operator": "contains", "value": "urn:test"}]}
        while True:
            page = await consumer.asked("POST", "/catalog", body)
            met += [dataset["@id"] for dataset in page["catalog"]["dataset"]]
            if page["next"] is None:
                break
            body["after"] = page["next"]
        assert met == ids
        assert (await pulled(consumer, "hospital", ids[3]))["stage"] == "done"
        assert (other.root / "out" / "file").read_bytes() == ids[3].encode()
        assert all(path.startswith(PREFIX) for path in asked)
        assert len([path for path in asked if path.startswith(f"{PREFIX}/dsp/2025-1/catalog/request")]) == 3
