"""The contract of sinks holds for one that keeps everything behind HTTP, and data that are fetched or brought arrive there, proven."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from connector.errors import SinkFailed
from tests.contracts.object_store import HttpSinks, ObjectStore
from tests.contracts.sink_contract import CONTENT, ID, NAME, Shelf, SinkContract, opened
from tests.dataplane.rig import serving
from tests.dataplane_push.stand import OURS, stand


class Bucket(Shelf):
    """What an object store holds, behind a real listener."""

    def __init__(self, store: ObjectStore, sinks: HttpSinks) -> None:
        self.store, self.sinks = store, sinks

    def under(self, name: str) -> bytes | None:
        return self.store.objects.get(f"files/{name}")

    def put(self, name: str, content: bytes) -> None:
        self.store.objects[f"files/{name}"] = content

    def parts(self) -> int:
        return len({key.rpartition("/")[0] for key in self.store.objects if key.startswith("parts/")})


@asynccontextmanager
async def bucket() -> AsyncIterator[Bucket]:
    store, app = ObjectStore(), web.Application(client_max_size=1 << 30)
    store.add_to(app)
    async with serving(app) as port, aiohttp.ClientSession() as http:
        yield Bucket(store, HttpSinks(f"http://127.0.0.1:{port}", http))


@pytest_asyncio.fixture
async def shelf() -> AsyncIterator[Bucket]:
    async with bucket() as found:
        yield found


class TestContract(SinkContract):
    """The whole contract."""


@pytest.mark.asyncio
async def test_a_store_that_fails_keeps_what_it_has_taken(shelf: Bucket):
    async with opened(shelf) as sink:
        await sink.append([CONTENT[:1000]])
        shelf.store.down = True
        with pytest.raises(SinkFailed, match="status 503; the part is kept"):
            await sink.append([CONTENT[1000:]])
        shelf.store.down = False
    async with opened(shelf) as sink:
        assert await sink.resume() == 1000
        await sink.append([CONTENT[1000:]])
        await sink.commit()
    assert shelf.under(NAME) == CONTENT
    assert await shelf.sinks.existing(NAME, ID) is not None


@pytest.mark.asyncio
async def test_what_is_pushed_goes_into_the_object_store_proven_and_receipted(tmp_path: Path):
    async with bucket() as place, stand(tmp_path, CONTENT, window_bytes=262_144) as at:
        at.downloads._sinks = place.sinks
        async with asyncio.timeout(30):
            await asyncio.gather(at.receive(at.order(out=NAME)), at.push())
        assert (place.under(NAME), place.parts()) == (CONTENT, 0)
        ours, theirs = await at.accounts()
        assert (ours.receipt, ours.counts, theirs.status) == (theirs.receipt, theirs.counts, "complete")
        assert (await at.store.metered(OURS)) == ours
