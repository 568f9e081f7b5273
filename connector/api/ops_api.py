"""The operations listener: is it alive, is it ready, and its metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from connector import telemetry


class OpsApi:
    """`checks` are (name, check); a check returns None if all is well, else what is wrong."""

    def __init__(self, checks: tuple[tuple[str, Callable[[], Awaitable[str | None]]], ...]) -> None:
        self._checks = checks
        self.draining = False

    def add_to(self, app: web.Application) -> None:
        """Register all routes."""
        app.router.add_get("/livez", self._live)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._metrics)

    async def _live(self, _request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _ready(self, _request: web.Request) -> web.Response:
        """503 while draining or while a check fails, with the reason for each."""
        faults = {name: fault for name, check in self._checks if (fault := await check()) is not None}
        if self.draining:
            faults["draining"] = "the connector is shutting down"
        return web.Response(
            status=503 if faults else 200, body=orjson.dumps({"ready": not faults, "faults": faults}), content_type="application/json"
        )

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=telemetry.exposition(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
