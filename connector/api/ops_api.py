"""The operations listener: is it alive, is it ready, and its metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from connector import telemetry_metrics

NOT_READY = {"starting": "the connector has not begun its work yet", "draining": "the connector is shutting down"}


class OpsApi:
    """`checks` are (name, check); a check returns None if all is well, else what is wrong. `phase` is `starting` until every door
    is open and all that was left open is taken up again, then `running`, and `draining` from the first moment of the end."""

    def __init__(self, checks: tuple[tuple[str, Callable[[], Awaitable[str | None]]], ...]) -> None:
        self._checks = checks
        self.phase, self._loaded = "starting", False

    def add_to(self, app: web.Application) -> None:
        """Register all routes."""
        app.router.add_get("/livez", self._live)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._metrics)

    async def _live(self, _request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _ready(self, _request: web.Request) -> web.Response:
        """503 unless the connector is running and no check fails, with the reason for each."""
        faults = {name: fault for name, check in self._checks if (fault := await check()) is not None}
        if self.phase in NOT_READY:
            faults[self.phase] = NOT_READY[self.phase]
        return web.Response(
            status=503 if faults else 200, body=orjson.dumps({"ready": not faults, "faults": faults}), content_type="application/json"
        )

    async def _metrics(self, _request: web.Request) -> web.Response:
        if not self._loaded:  # not each time: where every thread hashes, numbers are what an operator wants to see
            await asyncio.to_thread(telemetry_metrics.load)
            self._loaded = True
        return web.Response(body=telemetry_metrics.exposition(), headers={"Content-Type": telemetry_metrics.CONTENT_TYPE})
