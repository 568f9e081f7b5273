"""A management listener that answers what a test says and remembers what it was asked. It runs in a thread of its own, so
that it can stand before a client in the same test and before a whole command line alike."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

TOKEN = "the-admin-token"
WAIT_SECONDS = 50.0  # for what comes at once, also where every processor is taken: a test has a minute
Answer = tuple[int, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    path: str
    body: Any
    headers: dict[str, str]


@dataclass(slots=True)
class FakeConnector:
    """`answers` maps (method, path) to (status, JSON) or a list of such for one call each, the last one for all further.
    `streams` are the event streams, one for each connection: its pieces, then its end; the last one stays open."""

    answers: dict[tuple[str, str], Answer | list[Answer]] = field(default_factory=dict)
    streams: list[list[bytes]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    def bodies(self, method: str, path: str) -> list[Any]:
        return [asked.body for asked in self.asked if (asked.method, asked.path.partition("?")[0]) == (method, path)]

    def paths(self) -> list[str]:
        return [f"{asked.method} {asked.path}" for asked in self.asked]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        self.asked.append(Asked(request.method, request.raw_path, json.loads(text) if text else None, dict(request.headers)))
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _answer(401, problem(401, "not-authorized", "this call needs the admin token"))
        path = request.raw_path.partition("?")[0]
        if path == "/v1/events" and ("GET", path) not in self.answers:
            return await self._stream(request)
        found = self.answers.get((request.method, path), (404, problem(404, "not-found", "there is nothing at this address")))
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        return _answer(*found)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": from here\n\n")
        for piece in self.streams.pop(0):
            await response.write(piece)
        if not self.streams:
            await self._over.wait()
        return response

    async def _serve(self, ready: threading.Event) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await self._over.wait()
        await runner.cleanup()
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(left, timeout=5)


@contextmanager
def serving(fake: FakeConnector) -> Iterator[FakeConnector]:
    """Serve `fake` while the block runs."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(fake._serve(ready),))
    thread.start()
    try:
        assert ready.wait(WAIT_SECONDS)
        yield fake
    finally:
        loop.call_soon_threadsafe(fake._over.set)
        thread.join(WAIT_SECONDS)
        loop.close()


def problem(status: int, code: str, detail: str, reasons: tuple[str, ...] = (), **more: str) -> dict[str, Any]:
    """An RFC 9457 problem as the management API answers it."""
    return {
        "type": f"urn:qiao:problem:{code}",
        "title": code,
        "status": status,
        "detail": detail,
        "reasons": list(reasons or (detail,)),
        **more,
    }


def event(sequence: int, what: str, **members: Any) -> bytes:
    """One event of the record on the stream."""
    data = {"sequence": sequence, "what": what, "kind": None, "pid": None, "peer": None, "state": None, "at": 1.5, "detail": {}, **members}
    return f"id: {sequence}\nevent: {what}\ndata: {json.dumps(data)}\n\n".encode()


def moving(pull: dict[str, Any]) -> bytes:
    """A pull on its way on the stream."""
    return f"event: progress\ndata: {json.dumps(pull)}\n\n".encode()


def pull_view(stage: str, **members: Any) -> dict[str, Any]:
    """A pull as the management API shows it."""
    return {
        "id": "urn:uuid:p1",
        "stage": stage,
        "peer": "did:web:hospital.example",
        "dataset": "urn:d:1",
        "out": "/data/x.csv",
        "purposes": [],
        "size_bytes": None,
        "received_bytes": 0,
        "sha256": None,
        "negotiation": None,
        "agreement": None,
        "transfer": None,
        "reused": False,
        "reasons": [],
        "created": "2026-01-31T12:00:00.000Z",
        "updated": "2026-01-31T12:00:00.000Z",
        **members,
    }


def process_view(**members: Any) -> dict[str, Any]:
    """A negotiation or transfer as the management API shows it."""
    return {
        "pid": "urn:uuid:n1",
        "role": "consumer",
        "peer": "did:web:hospital.example",
        "peer_pid": "urn:uuid:peer-n1",
        "state": "REQUESTED",
        "dataset": "urn:d:1",
        "agreement": None,
        "waiting": "peer",
        "code": None,
        "reasons": [],
        "ended_by": None,
        "decision": None,
        "claims": None,
        "in_flight": None,
        "last_error": None,
        "due": None,
        "created": "2026-01-31T12:00:00.000Z",
        "updated": "2026-01-31T12:00:01.000Z",
        **members,
    }


def _answer(status: int, document: Any) -> web.Response:
    kind = "application/problem+json" if status >= 400 else "application/json"
    if isinstance(document, bytes):
        return web.Response(status=status, body=document, content_type="text/plain")
    return web.Response(status=status, text="" if document is None else json.dumps(document), content_type=kind)
