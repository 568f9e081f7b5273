"""A provider that pushes, and a consumer with a sink, each with a real listener on loopback."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from connector import telemetry
from connector.adapters.memory import MemoryStore
from connector.adapters_streams.mover import SpliceMover
from connector.api.data_answers import Signing
from connector.api_streams.sink_api import SinkApi
from connector.control.journal import Journal
from connector.dataplane.edr import Address, Tokens, read_address
from connector.dataplane.meter import Meters
from connector.dataplane.opened import OpenSources
from connector.dataplane.stream import Representations
from connector.dataplane_push.pusher import Pusher
from connector.dataplane_push.signed import Sinks
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.intake.account import Means
from connector.intake.download import Downloads, Metering
from connector.ports import SIGNED_REQUESTS
from connector.records import Changes, Pull
from connector.records.metering import Metered
from connector.values import replace
from tests.dataplane.rig import (
    CONSUMER,
    PROVIDER,
    TRANSFER,
    Counted,
    Rig,
    Watcher,
    agreed,
    key_of,
    provider,
    pull,
    serving,
)

Lie = Callable[[web.Request, web.StreamResponse], object]
OURS = "urn:uuid:01890000-0000-7000-8000-00000000000c"


@dataclass
class Stand:
    """`between(request, handler)` is what happens to each request on its way to the sink."""

    rig: Rig
    root: Path
    url: str
    tokens: Tokens
    downloads: Downloads
    store: MemoryStore
    pusher: Pusher
    demanded: set[str]  # of the sink's requests
    lies: list[Lie]  # what happens to its answers once they are signed
    sinks: Callable[[], Sinks]  # what a provider knows of them that has started anew
    watcher: Watcher = field(default_factory=Watcher)

    @property
    def endpoint(self) -> str:
        return f"{self.url}/sink/{OURS}"

    def sink(self) -> Address:
        return read_address(self.tokens.sink_address(OURS, PROVIDER, "urn:agreement", "urn:dataset", None))

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.sink().access_token}"}

    def order(self, **changed: Any) -> Pull:
        return replace(pull(self.root / "file", transfer=OURS, agreement="urn:agreement", push=True), **changed)

    async def receive(self, order: Pull | None = None, **options: Any) -> Pull:
        return await self.downloads.fetch(order or self.order(), None, **self.watcher.calls, **options)

    async def push(self) -> None:
        await self.pusher.push(TRANSFER, self.sink())

    def demand_signatures(self) -> None:
        """From now on the agreement demands signed requests, on either side. The second in which a door began is over: what is signed in it
        is put off."""
        self.rig.clock.shift_seconds += 1.5
        self.demanded.add(SIGNED_REQUESTS)
        self.rig.change(demands=frozenset({SIGNED_REQUESTS}))

    async def accounts(self) -> tuple[Metered, Metered]:
        ours, theirs = await self.store.metered(OURS), await self.rig.store.metered(TRANSFER)
        assert ours is not None
        assert theirs is not None
        return ours, theirs


@asynccontextmanager
async def stand(tmp_path: Path, content: bytes, *middlewares: Callable[..., Any], **promised: int) -> AsyncIterator[Stand]:
    for each in ("root", "out"):
        (tmp_path / each).mkdir()
    async with provider(tmp_path / "root", metered=True, **promised) as rig:
        await rig.publish(content)
        assert rig.metering is not None
        store, app = MemoryStore(), web.Application(middlewares=middlewares)
        mine = Process(Kind.TRANSFER, OURS, Role.CONSUMER, PROVIDER, "https://x", "STARTED", peer_pid=TRANSFER, version=1)
        await store.commit(Changes(saves=(agreed(peer=PROVIDER), replace(mine, agreement="urn:agreement"))))
        other = await rig.store.process(Kind.TRANSFER, TRANSFER)
        assert other is not None
        await rig.store.commit(Changes(saves=(replace(other, peer_pid=OURS, version=other.version + 1),)))
        key = key_of(CONSUMER)
        means = Means(store, Journal(store, rig.clock).decide, rig.consumer, rig.clock, Counted())
        downloads = rig.downloads(
            tmp_path / "out", metering=Metering(means, SpliceMover, "write"), signer=lambda: key, patience_seconds=2.0
        )
        url: list[str] = []
        tokens = Tokens(
            CONSUMER, "http://sink", signer=lambda: key, key_of=lambda _: key.key.public, clock=rig.clock, ids=Counted(), token_seconds=300
        )
        signing = Signing("http://sink", lambda: key, rig.consumer.keys, rig.clock)
        demanded: set[str] = set()

        async def demands(_pid: str) -> frozenset[str]:
            return frozenset(demanded)

        SinkApi(tokens, store, downloads.receptions, telemetry.Tracing("test", 0.0), signing, demands).add_to(app)
        lies: list[Lie] = []

        async def lie(request: web.Request, response: web.StreamResponse) -> None:
            for each in lies:
                each(request, response)

        app.on_response_prepare.extend((signing.sign, lie))
        opened: OpenSources[Any] = OpenSources(rig.sources)
        means_of = Signing("http://provider", lambda: key_of(PROVIDER), rig.consumer.keys, rig.clock).means

        def sinks() -> Sinks:
            return Sinks(means_of, rig.store, Journal(rig.store, rig.clock).decide)

        pusher = Pusher(
            rig.gate,
            rig.transfers,
            rig.tokens,
            opened,
            Representations(opened, rig.logs),
            rig.metering.accounts,
            rig.metering.receipts,
            rig.flows,
            Meters(rig.ledger),
            rig.peer,
            sinks(),
            rig.metering.link,
        )
        async with serving(app) as port, aiohttp.ClientSession():
            url.append(f"http://127.0.0.1:{port}")
            tokens._url = signing._url = url[0]
            yield Stand(rig, tmp_path / "out", url[0], tokens, downloads, store, pusher, demanded, lies, sinks)
        await opened.close()
