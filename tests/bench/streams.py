"""Measures signed streams: verified, stored, receipted and on record, beside nginx into curl; under TLS; and what is published.

Every server and every client is in a session of its own: where the kernel groups processes by session, those of one group share a core's
time, and whoever has most processes would win. Ways take turns, and each round goes the other way round.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import trustme

from connector.client.management import ManagementClient
from tests.bench.connectors import BUILD, ROOT, Connector, Pair, pair, program, session
from tests.bench.data import agreed, driven, nginx, policy, publish
from tests.bench.lines import LINE
from tests.bench.rows import Found
from tests.bench.size import Size

FILE_BYTES, BLOCK_BYTES = 1 << 30, 1 << 24
DATASET, NAME = "urn:bench:stream", "stream.bin"
SLOWER = 0.9  # than what does more: no reference
UNMETERED = (sys.executable, "-m", "tests.bench.unmetered")
CURL_SECONDS = 120
CORE = "1"  # on which both are that compute hashes
INDEXED = 3  # times in one process, after one that nobody counts

Way = tuple[list[float], Callable[[], Awaitable[float]]]


async def plain(size: Size) -> dict[str, Found]:
    """Plain HTTP, in both modes of receipts, and with all of that switched off."""
    count = size.of(FILE_BYTES)
    rates: dict[str, list[float]] = {name: [] for name in ("null", "stored", "write", "fsync", "off")}
    async with AsyncExitStack() as stack:
        sides = {
            "write": stack.enter_context(pair("stream-write", QIAO_RECEIPTS_AFTER="write")),
            "fsync": stack.enter_context(pair("stream-fsync", QIAO_RECEIPTS_AFTER="fsync")),
            "off": stack.enter_context(pair("stream-off", command=UNMETERED, QIAO_RECEIPTS_AFTER="write")),
        }
        orders = {name: await stack.enter_async_context(Orders(both, count)) for name, both in sides.items()}
        folder = sides["write"].provider.folder
        port = stack.enter_context(nginx(folder / "nginx", folder / "data"))
        url, out = f"http://127.0.0.1:{port}/{NAME}", folder / "curled.bin"
        ways: list[Way] = [
            (rates["null"], lambda: curled(url, count)),
            (rates["stored"], lambda: curled(url, count, out)),
            *((rates[name], orders[name].fetched) for name in sides),
        ]
        for _, way in ways:
            await way()
        for number in range(size.rounds):
            for found, way in ways if number % 2 == 0 else ways[::-1]:
                found.append(await way())
        faults = {name: await orders[name].unsigned() for name in ("write", "fsync")}
        if await orders["off"].signed_bytes():
            raise RuntimeError("what was to be switched off has signed")
    short = f"only {count:,} bytes" if count < FILE_BYTES else ""
    slow = statistics.median(rates["off"]) < SLOWER * statistics.median(rates["write"])
    halting = "the stream with metering switched off is slower than the one with it: it waits for something" if slow else ""
    note = f"nginx into curl: {_median(rates['null'])} to /dev/null, {_median(rates['stored'])} into a file"
    return {
        "stream-write": Found(rates["write"], rates["null"], note=note, fault=short or faults["write"]),
        "stream-write-stored": Found(rates["write"], rates["stored"], fault=short or faults["write"]),
        "stream-fsync": Found(rates["fsync"], rates["null"], fault=short or faults["fsync"]),
        "stream-fsync-stored": Found(rates["fsync"], rates["stored"], fault=short or faults["fsync"]),
        "stream-metered": Found(rates["write"], rates["off"], fault=short or faults["write"] or halting),
    }


class Orders:
    """Orders of one dataset to the consumer of a pair: an asynchronous context manager that starts both."""

    def __init__(self, both: Pair, size_bytes: int) -> None:
        self._both, self._size_bytes, self._times = both, size_bytes, 0
        self._out = both.consumer.folder / NAME

    async def __aenter__(self) -> Orders:
        filled(self._both.provider.folder / "data" / NAME, self._size_bytes)
        self._both.start()
        async with session() as http:
            await publish(http, self._both.provider, DATASET, NAME, policy("stream"))
            self._agreement = await agreed(http, self._both, DATASET, "stream")
        self._consumer = await ManagementClient(self._both.consumer.url("management"), _token(self._both.consumer)).__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.__aexit__(None, None, None)

    async def fetched(self) -> float:
        """Order it, under the agreement that is there, until it is done; MB/s, from the instant at which the transfer has started to that
        at which the file has its name, as the consumer has them on record. The file is gone afterwards."""
        self._times += 1
        pull = await self._consumer.pull("provider", DATASET, str(self._out), purposes=["research"])
        async for seen in self._consumer.follow(pull.id):
            pull = seen
        if pull.stage != "done" or self._out.stat().st_size != self._size_bytes:
            raise RuntimeError(f"the order ended in {pull.stage}: {pull.reasons}")
        self._out.unlink()
        facts = await self._consumer.evidence(pull.transfer or "")
        at = {fact.detail["stage"]: fact.at or 0.0 for fact in facts if fact.what == "pull"}
        return self._size_bytes / 1e6 / (at["complete"] - at["download"])

    async def signed_bytes(self) -> int:
        """What the provider has receipts for."""
        provider = self._both.provider
        async with ManagementClient(provider.url("management"), _token(provider)) as client:
            return (await client.usage(self._agreement)).signed["bytes"]

    async def unsigned(self) -> str:
        """A fault, if not every byte of every order was signed for."""
        signed, expected = await self.signed_bytes(), self._times * self._size_bytes
        return "" if signed == expected else f"{signed:,} bytes were signed for, {expected:,} were fetched"


async def tls(size: Size) -> dict[str, Found]:
    """The provider's side under TLS 1.3, into the same curl."""
    ours: list[float] = []
    theirs: list[float] = []
    count = size.of(FILE_BYTES)
    BUILD.mkdir(parents=True, exist_ok=True)
    chain, key = BUILD / "chain.pem", BUILD / "key.pem"
    made = trustme.CA().issue_cert("127.0.0.1")
    chain.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    key.write_bytes(made.private_key_pem.bytes())
    key.chmod(0o600)
    with pair("stream-tls", QIAO_DATA_CERTIFICATE=str(chain), QIAO_DATA_KEY=str(key)) as both:
        file = both.provider.folder / "data" / NAME
        filled(file, count)
        both.start()
        async with driven(both) as load, session() as client:
            await publish(client, both.provider, DATASET, NAME, policy("stream"))
            edr = await load.transfer(await agreed(client, both, DATASET, "stream"))
            with nginx(both.provider.folder / "nginx", file.parent, (chain, key)) as port:
                authorization = {"Authorization": f"Bearer {edr['authorization']}"}
                ways: list[Way] = [
                    (ours, lambda: curled(edr["endpoint"], count, headers=authorization)),
                    (theirs, lambda: curled(f"https://127.0.0.1:{port}/{NAME}", count)),
                ]
                for _, way in ways:
                    await way()
                for number in range(size.rounds):
                    for found, way in ways if number % 2 == 0 else ways[::-1]:
                        found.append(await way())
    for each in (chain, key):
        each.unlink()
    return {"stream-tls": Found(ours, theirs, fault=f"only {count:,} bytes" if count < FILE_BYTES else "")}


async def live(size: Size) -> dict[str, Found]:
    """Lines that come over HTTP, hashed while they go through, into curl, and as many of them from a file by nginx into curl."""
    ours: list[float] = []
    theirs: list[float] = []
    count = size.of(FILE_BYTES)
    with pair("stream-live") as both:
        file = both.provider.folder / "data" / "lines.ndjson"
        filled(file, count, LINE)
        both.start()
        async with driven(both) as load, session() as client:
            with nginx(both.provider.folder / "nginx", file.parent) as port, program("tests.bench.lines", str(count)) as coming:
                url = f"http://127.0.0.1:{port}/{file.name}"
                for number in range(size.rounds + 1):
                    dataset = f"urn:bench:live:{number}"  # a source without an end is followed once for each transfer
                    source = {"type": "http-stream", "url": f"http://127.0.0.1:{coming}/"}
                    await publish(client, both.provider, dataset, file.name, policy(f"live-{number}"), source=source)
                    edr = await load.transfer(await agreed(client, both, dataset, f"live-{number}"))
                    ways = [(ours, edr["endpoint"], {"Authorization": f"Bearer {edr['authorization']}"}), (theirs, url, {})]
                    for found, address, headers in ways if number % 2 == 0 else ways[::-1]:
                        rate = await curled(address, count, headers=headers, part=True)
                        if number:  # the first one warms up
                            found.append(rate)
    return {"stream-live": Found(ours, theirs, fault=f"only {count:,} bytes" if count < FILE_BYTES else "")}


async def curled(
    url: str, size_bytes: int, out: Path | None = None, *, headers: Mapping[str, str] | None = None, part: bool = False
) -> float:
    """Let curl fetch it, or only a first `part` of `size_bytes`; MB/s by its own clock. Raises RuntimeError if it is not all of it. It is
    thrown away, also where it was stored before in a file `out`."""
    said = [word for name, value in (headers or {}).items() for word in ("-H", f"{name}: {value}")]
    if part:
        said += ["-r", f"0-{size_bytes - 1}"]
    command = ["curl", "-sSk", "-o", str(out or "/dev/null"), "-w", "%{http_code} %{size_download} %{time_total}", *said, url]
    ran = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=CURL_SECONDS, start_new_session=True, check=False
    )
    if ran.returncode or ran.stdout.split()[:2] != ["206" if part else "200", str(size_bytes)]:
        raise RuntimeError(f"curl got something else than {size_bytes} bytes: {ran.stdout} {ran.stderr}")
    if out is not None:
        await asyncio.to_thread(out.unlink)
    return size_bytes / 1e6 / float(ran.stdout.split()[2])


def filled(file: Path, size_bytes: int, line: bytes = b"") -> None:
    """A file with every page of it in the cache, as reading and sending depend on what those are; what stands in them is no matter, or so
    many lines."""
    block = line * (BLOCK_BYTES // len(line)) if line else os.urandom(min(BLOCK_BYTES, size_bytes))
    with file.open("wb") as out:
        for at in range(0, size_bytes, len(block)):
            out.write(block[: size_bytes - at])


async def indexing(size: Size) -> dict[str, Found]:
    """Reading, hashing and writing the index of what is published, on one core, beside `openssl speed` on the same one; by the CPU that
    each took, as `openssl speed` has it, so that a core that is shared does no harm."""
    ours: list[float] = []
    theirs: list[float] = []
    BUILD.mkdir(parents=True, exist_ok=True)
    file, pinned = BUILD / NAME, ("taskset", "-c", CORE)
    filled(file, size.of(FILE_BYTES))
    index = (*pinned, sys.executable, "-m", "tests.bench.indexing", str(file), str(BUILD / "index"), str(1 + INDEXED))
    speed = (*pinned, "openssl", "speed", "-seconds", "1", "-bytes", str(1 << 18), "-evp", "sha256")
    for _ in range(size.rounds):
        theirs.append(float((await _said(speed)).split()[-1].removesuffix("k")) / 1000)  # thousands of bytes a second
        ours.append(sorted(float(line) for line in (await _said(index)).splitlines()[1:])[INDEXED // 2])
    file.unlink()
    return {"publish-index": Found(ours, theirs, fault="only a part" if size.of(FILE_BYTES) < FILE_BYTES else "")}


async def _said(command: tuple[str, ...]) -> str:
    ran = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True, check=True
    )
    return ran.stdout


def _token(connector: Connector) -> str:
    return (connector.folder / "admin-token").read_text().strip()


def _median(rates: list[float]) -> str:
    return f"{sorted(rates)[len(rates) // 2]:,.0f} MB/s"
