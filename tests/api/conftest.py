"""A connector behind its protocol listener, a peer and a stranger who say whatever a test wants, and what a message could change."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import orjson
import pytest
import pytest_asyncio
from aiohttp import web

from connector import telemetry
from connector.api.listener import Door, Listening, listen
from connector.dsp.messages import Kind
from connector.settings.fields import LimitsSettings
from connector.values import replace
from tests import pair
from tests.pair import OPEN, TOKEN, Desk, Running, fresh
from tests.vocab import corpus

Routes = Callable[[web.Application], None]
DOOR = Door("protocol", "127.0.0.1", 0, None, None, 5.0, 100, 100, 1 << 20, 20.0)
LIMIT_BYTES = 64 * 1024  # of a message, at this desk
DATASET, OFFER = "urn:test:dataset", "urn:test:offer"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """One for all tests of a module; the connector at it never acts by itself."""
    limits = LimitsSettings(message_bytes=LIMIT_BYTES, catalog_page=2, body_seconds=0.3)
    async with pair.desk(tmp_path_factory.mktemp("dsp") / "x", limits=limits) as made:
        await made.us.publish(DATASET, OPEN | {"@id": OFFER})
        yield made


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    out = io.StringIO()
    telemetry.configure_logging("info", "json", out)
    yield out
    telemetry.configure_logging("info", "json")


def valid(shape: str, document: Any) -> Any:
    """The document, which the official schema has to accept."""
    assert [e.message for e in corpus.oracle()[shape].iter_errors(document)] == []
    return document


async def everything(desk: Desk) -> list[Any]:
    """All that a message could change, as the store has it."""
    store = desk.us.connector.store
    lists = [(await store.processes(kind, after=None, limit=1_000, state=None, peer=None)).items for kind in Kind]
    agreements = (await store.agreements(peer=None, dataset=None, after=None, limit=1_000)).items
    return [*lists, agreements, tuple(await store.open_outbox()), tuple(await store.events(0, 10_000))]


def first_request(**changed: Any) -> dict[str, Any]:
    """A request that could be accepted from whoever is called back at that address."""
    offer = OPEN | {"@id": OFFER, "target": DATASET}
    return {
        "@context": corpus.CONTEXT,
        "@type": "ContractRequestMessage",
        "consumerPid": fresh(),
        "callbackAddress": "http://127.0.0.1:1/",
        "offer": offer,
    } | changed


@asynccontextmanager
async def opened(routes: Routes, middlewares: Sequence[Any] = (), **changed: Any) -> AsyncIterator[Listening]:
    """A listener with these routes."""
    async with AsyncExitStack() as stack:
        yield await listen(replace(DOOR, **changed), routes, middlewares, stack)


async def spoken(port: int, data: bytes, seconds: float = 5.0) -> bytes:
    """What is answered to these bytes until the connection is closed. Fails if it stays open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(seconds):
            return await reader.read()
    finally:
        writer.close()
        await asyncio.wait_for(writer.wait_closed(), seconds)


@asynccontextmanager
async def events(at: Running, query: str = "", **headers: str) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
    """The event feed as (what, document)."""
    url = f"http://127.0.0.1:{at.connector.ports['management']}/v1/events{query}"
    async with at.http.get(url, headers={"Authorization": f"Bearer {TOKEN}"} | headers) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"

        async def read() -> AsyncIterator[tuple[str, Any]]:
            what = ""
            async for line in answer.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "event":
                    what = value
                elif name == "data":
                    yield what, orjson.loads(value)

        yield read()
