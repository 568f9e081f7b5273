"""What the tests of orders share: how one is made and waited for, a source that stops half-way, and consumers that start again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from connector.dsp.messages import Kind
from connector.records import Changes, Evidence, Pull
from tests.pair import WAIT_SECONDS, Pair, Running, Site, running, site

D = "urn:test:dataset"
CONTENT = bytes(range(256)) * 64
BIG = CONTENT * 256  # 4 MiB: its half is more than what the data plane gathers before it sends
N, T = Kind.NEGOTIATION, Kind.TRANSFER


def place(us: Running | Site, name: str = "copy.bin") -> Path:
    return (us if isinstance(us, Site) else us.site).root / "out" / name


async def order(us: Running, *purposes: str, out: str = "copy.bin", dataset: str = D, status: int = 201, **headers: str) -> Any:
    body = {"peer": "hospital", "dataset": dataset, "out": str(place(us, out)), "purposes": list(purposes)}
    return await us.asked("POST", "/pulls", body, status=status, **headers)


async def settled(us: Running, id: str, *stages: str) -> Pull:
    """Wait until the order is in one of these stages, by default until it is over."""
    changed = asyncio.Event()
    us.connector.journal.listen(lambda _changes, _evidence: changed.set())
    async with asyncio.timeout(WAIT_SECONDS):
        while (found := await us.connector.store.pull(id)) is None or found.stage not in (stages or ("done", "failed")):
            await changed.wait()
            changed.clear()
    return found


async def counts(us: Running) -> tuple[int, int, int]:
    """How many negotiations, agreements and transfers there are."""
    all_of: dict[str, Any] = {"after": None, "limit": 100}
    store = us.connector.store
    processes = [len((await store.processes(kind, state=None, peer=None, **all_of)).items) for kind in (N, T)]
    return processes[0], len((await store.agreements(peer=None, dataset=None, **all_of)).items), processes[1]


async def stages(us: Running, id: str) -> list[str]:
    rows = await us.connector.store.events(0, 1000)
    return [row.detail["stage"] for row in rows if row.what == "pull" and row.detail["pull"] == id]


@dataclass
class Upstream:
    """A web server whose resource stops after its first half until a test lets it go on. `asked` are the places from which it
    was asked for."""

    url: str = ""
    held: bool = False
    asked: list[int] = field(default_factory=list)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        first = request.http_range.start or 0
        self.asked.append(first)
        part = BIG[first : request.http_range.stop]
        headers = {"ETag": '"one"', "Accept-Ranges": "bytes", "Content-Length": str(len(part))}
        if "Range" in request.headers:
            headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(BIG)}"
        response = web.StreamResponse(status=206 if "Range" in request.headers else 200, headers=headers)
        await response.prepare(request)
        half = max(0, len(BIG) // 2 - first)
        await response.write(part[:half])
        if self.held and 0 < half < len(part):
            self.waiting.set()
            await self.go_on.wait()
        await response.write(part[half:])
        return response


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    made, app = Upstream(), web.Application()
    app.router.add_get("/data", made.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        at = web.TCPSite(runner, "127.0.0.1", 0)
        await at.start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/data"
        yield made
    finally:
        made.go_on.set()
        await runner.cleanup()


async def under_way(both: Pair, source: Upstream) -> Pull:
    """An order whose download has got half of the data and waits for the rest."""
    await both.provider.publish(D, source={"type": "http", "url": source.url})
    source.held = True
    ordered = await order(both.consumer)
    news = asyncio.Event()
    both.consumer.connector.journal.listen(lambda _changes, _evidence: news.set())
    async with asyncio.timeout(WAIT_SECONDS):
        await source.waiting.wait()
        while (found := await both.consumer.connector.store.pull(ordered["id"])).size_bytes is None:
            await news.wait()
            news.clear()
        for _ in range(1000):  # progress is no commit, and nobody is told of it but who looks
            if (await both.consumer.asked("GET", f"/pulls/{ordered['id']}"))["received_bytes"]:
                break
            await asyncio.sleep(0.02)
    return found


@asynccontextmanager
async def restartable(root: Path) -> AsyncIterator[tuple[Running, Site]]:
    """A provider that runs, and the site of a consumer on SQLite that a test starts, stops and starts again."""
    one, other = site(root / "hospital", "hospital"), site(root / "biopharma", "biopharma", store="sqlite")
    one.meet(other)
    async with running(one) as provider:
        yield provider, other


def after_commits(us: Running, count: int) -> asyncio.Event:
    """An event at the `count`-th commit from now on."""
    reached, left = asyncio.Event(), [count]

    def heard(_changes: Changes, _evidence: tuple[Evidence, ...]) -> None:
        left[0] -= 1
        if not left[0]:
            reached.set()

    us.connector.journal.listen(heard)
    return reached


def at_stage(us: Running, holds: Callable[[Pull], bool]) -> asyncio.Event:
    """An event at the commit that saves an order of which `holds`."""
    reached = asyncio.Event()

    def heard(changes: Changes, _evidence: tuple[Evidence, ...]) -> None:
        if any(isinstance(record, Pull) and holds(record) for record in changes.saves):
            reached.set()

    us.connector.journal.listen(heard)
    return reached


async def went_on(provider: Running, consumer: Site, id: str, content: bytes = CONTENT) -> None:
    async with running(consumer) as second:
        done = await settled(second, id)
        assert (done.stage, done.reasons) == ("done", ())
        assert place(consumer).read_bytes() == content
        assert await counts(provider) == await counts(second) == (1, 1, 1)
        assert await stages(second, id) == ["negotiate", "transfer", "download", "complete", "done"]
        ours = await second.state(T, done.transfer, "COMPLETED")
        await provider.state(T, ours.peer_pid, "COMPLETED")
