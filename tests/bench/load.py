"""The load: calls to the management API of a pair, and the ends of what they began, learned from both event streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from tests.bench.connectors import Connector, Pair, program, session

DATASET, OFFER = "urn:bench:dataset:1", "urn:bench:offer:1"
POLICY = {
    "@id": OFFER,
    "permission": [
        {"action": "use", "constraint": [{"leftOperand": "odrl:purpose", "operator": "isAnyOf", "rightOperand": ["research", "quality"]}]}
    ],
}
PAUSE_SECONDS = 0.002  # between two idle calls
END_SECONDS = 60.0  # a negotiation that takes longer is lost
PIECE = 1 << 16
ECHO = {
    "@context": ["https://w3id.org/dspace/2025/1/context.jsonld"],
    "@type": "ContractRequestMessage",
    "consumerPid": "urn:uuid:0b0c2c86-7f5c-4c0e-9a5e-8f2b3a1d0002",
    "callbackAddress": "https://consumer.example/dsp/2025-1",
    "offer": {"@id": OFFER, "@type": "Offer", "target": DATASET, "permission": [{"action": "use"}]},
}


class Events:
    """The event stream of one connector: who waits for a process, and how many negotiations have ended in FINALIZED."""

    def __init__(self, http: aiohttp.ClientSession, connector: Connector) -> None:
        self._http, self._connector = http, connector
        self._reached: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._threshold: tuple[int, asyncio.Future[None]] | None = None
        self.finalized: set[str] = set()

    async def read(self, ready: asyncio.Event) -> None:
        """Read from now on, until cancelled."""
        # Nothing else is asked for: whoever watches more costs those who are watched.
        url = self._connector.url("management") + "/v1/events?after=now&state=FINALIZED&state=STARTED"
        async with self._http.get(url, headers=self._connector.token) as response:
            response.raise_for_status()
            rest = b""
            async for chunk in response.content.iter_any():
                ready.set()  # the stream greets as soon as it stands
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line.startswith(b"data:"):
                        self._happened(orjson.loads(line[5:]))

    def _happened(self, event: dict[str, Any]) -> None:
        pid, state = event["pid"], event["state"]
        if state == "FINALIZED":
            self.finalized.add(pid)
            if self._threshold and len(self.finalized) >= self._threshold[0]:
                self._threshold[1].set_result(None)
                self._threshold = None
        future = self._reached.setdefault((pid, state), asyncio.get_running_loop().create_future())
        if not future.done():
            future.set_result(None)

    async def reached(self, pid: str, state: str) -> None:
        """Wait until the process has this state. Events may be faster than the answer that names the process."""
        await self._reached.setdefault((pid, state), asyncio.get_running_loop().create_future())
        del self._reached[pid, state]

    async def count(self, finalized: int) -> None:
        """Wait until so many negotiations are FINALIZED here."""
        self._reached = {key: future for key, future in self._reached.items() if not future.done()}
        if len(self.finalized) < finalized:
            self._threshold = (finalized, asyncio.get_running_loop().create_future())
            await self._threshold[1]


@dataclass(frozen=True, slots=True)
class Burst:
    """So many negotiations at once: how many a second, and the CPU seconds of both connectors and of the load program."""

    count: int
    rate: float
    connectors_seconds: float
    load_seconds: float


class Load:
    """Drives a running pair whose provider has published `DATASET` under `OFFER`."""

    def __init__(self, http: aiohttp.ClientSession, pair: Pair) -> None:
        self.pair, self._http = pair, http
        self._begin = pair.consumer.url("management") + "/v1/"
        self._token = pair.consumer.token | {"Content-Type": "application/json"}
        self.consumer, self.provider = Events(http, pair.consumer), Events(http, pair.provider)
        self._request = orjson.dumps({"peer": "provider", "dataset": DATASET, "offer": OFFER, "policy": POLICY})

    async def negotiate(self) -> str:
        """Begin a negotiation and wait for its end at the consumer; returns its pid there."""
        async with self._http.post(self._begin + "negotiations", data=self._request, headers=self._token) as response:
            document = orjson.loads(await response.read())
        await self.consumer.reached(document["pid"], "FINALIZED")
        return document["pid"]

    async def agreement(self) -> str:
        """The agreement of a new negotiation."""
        pid = await self.negotiate()
        async with self._http.get(f"{self._begin}negotiations/{pid}", headers=self._token) as response:
            return orjson.loads(await response.read())["agreement"]

    async def transfer(self, agreement: str) -> Mapping[str, str]:
        """Begin a transfer; returns where to read it and with which token, once both are there."""
        async with self._http.post(self._begin + "transfers", data=orjson.dumps({"agreement": agreement}), headers=self._token) as response:
            pid = orjson.loads(await response.read())["pid"]
        await self.consumer.reached(pid, "STARTED")
        async with self._http.get(f"{self._begin}transfers/{pid}/edr", headers=self._token) as response:
            response.raise_for_status()
            return orjson.loads(await response.read())

    async def idle_negotiations(self, count: int) -> list[float]:
        """Seconds of each of `count` negotiations, one after the other, to FINALIZED on both sides."""

        async def one() -> None:
            ends = len(self.provider.finalized) + 1
            await self.negotiate()
            await self.provider.count(ends)

        return await one_by_one(count, one)

    async def burst(self, count: int, parallel: int) -> Burst:
        """`count` negotiations, `parallel` at a time. Raises TimeoutError if some do not end."""
        todo, ends = iter(range(count)), len(self.provider.finalized) + count

        async def worker() -> None:
            for _ in todo:
                async with asyncio.timeout(END_SECONDS):
                    await self.negotiate()

        before, own, begun = sum(c.cpu_seconds() for c in self.pair), time.process_time(), time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(parallel)))
        async with asyncio.timeout(END_SECONDS):
            await self.provider.count(ends)
        seconds = time.perf_counter() - begun
        return Burst(count, count / seconds, sum(c.cpu_seconds() for c in self.pair) - before, time.process_time() - own)


async def publish(
    http: aiohttp.ClientSession,
    provider: Connector,
    dataset: str,
    file: str,
    policy: Mapping[str, Any],
    *,
    source: Mapping[str, Any] | None = None,
) -> None:
    """Publish a file below the provider's `data` folder, or another `source`."""
    body = orjson.dumps({"title": dataset, "source": source or {"type": "file", "path": file}, "policies": [policy]})
    headers = provider.token | {"Content-Type": "application/json"}
    async with http.put(f"{provider.url('management')}/v1/datasets/{dataset}", data=body, headers=headers) as response:
        if response.status >= 300:
            raise RuntimeError(f"`{dataset}` cannot be published: {await response.text()}")


@asynccontextmanager
async def driven(pair: Pair, size_bytes: int = 10 * 1024) -> AsyncIterator[Load]:
    """A load for a pair that runs: publishes a file of `size_bytes` as `DATASET` and follows both event streams."""
    (pair.provider.folder / "data" / "sample.bin").write_bytes(bytes(range(256)) * (size_bytes // 256))
    async with session() as http:
        await publish(http, pair.provider, DATASET, "sample.bin", POLICY)
        load = Load(http, pair)
        ready = [asyncio.Event(), asyncio.Event()]
        streams = [asyncio.create_task(events.read(one)) for events, one in zip((load.consumer, load.provider), ready, strict=True)]
        try:
            await asyncio.gather(*(one.wait() for one in ready))
            yield load
        finally:
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*streams, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Echo:
    """A bare aiohttp handler that answers JSON with the same JSON, on connections that stay open."""

    http: aiohttp.ClientSession
    url: str

    async def once(self) -> None:
        async with self.http.post(self.url, json=ECHO) as response:
            await response.json()

    async def idle(self, count: int) -> list[float]:
        """Seconds of each of `count` requests, one after the other."""
        return await one_by_one(count, self.once)

    async def rate(self, count: int, parallel: int) -> float:
        """Requests a second, `parallel` at a time."""
        return await rate(count, parallel, self.once)


@asynccontextmanager
async def echo() -> AsyncIterator[Echo]:
    with program("tests.bench.bare", "echo") as port:
        async with session() as http:
            found = Echo(http, f"http://127.0.0.1:{port}/")
            await found.idle(100)
            yield found


async def one_by_one(count: int, call: Callable[[], Awaitable[object]]) -> list[float]:
    """Seconds of each of `count` calls, with a pause after each."""
    seconds = []
    for _ in range(count):
        begun = time.perf_counter()
        await call()
        seconds.append(time.perf_counter() - begun)
        await asyncio.sleep(PAUSE_SECONDS)
    return seconds


async def rate(count: int, parallel: int, call: Callable[[], Awaitable[object]]) -> float:
    """Calls a second of `count` calls, `parallel` at a time."""
    todo = iter(range(count))

    async def worker() -> None:
        for _ in todo:
            await call()

    begun = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(parallel)))
    return count / (time.perf_counter() - begun)
