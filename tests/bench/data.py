"""Measures bytes: small reads beside a bare handler, a large one beside nginx, and the memory of fetching 10 GB."""

from __future__ import annotations

import asyncio
import http.client
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import orjson

from tests.bench.connectors import BUILD, Connector, Pair, pair, program, session
from tests.bench.load import POLICY, driven, publish, rate
from tests.bench.rows import Found
from tests.bench.size import Size
from tests.free_ports import free_ports

SMALL_BYTES, PARALLEL, GETS = 10 * 1024, 32, 4_000
LARGE_BYTES = 1 << 30
GET_BYTES, GET_SECONDS = 10_000_000_000, 300.0
SPARE_BYTES = 2_000_000_000  # of disk that are to stay free
LOOK_SECONDS = 0.02  # between two looks at the memory
BUFFER = bytearray(1 << 20)
NGINX = ("nginx", "/usr/sbin/nginx")
CONFIGURATION = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log; {user}
events {{ worker_connections 64; }}
http {{
  sendfile on; tcp_nopush on; access_log off; default_type application/octet-stream; types {{ application/x-ndjson ndjson; }}
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ listen 127.0.0.1:{port}{secured}; root {root}; }}
}}
"""


async def small(size: Size) -> dict[str, Found]:
    """10 KiB, 32 at a time, on one token."""
    ours: list[float] = []
    bare: list[float] = []
    with pair("small") as both:
        both.start()
        async with driven(both, SMALL_BYTES) as load, session() as client:
            edr = await load.transfer(await load.agreement())
            file = both.provider.folder / "data" / "sample.bin"
            with program("tests.bench.bare", str(file)) as port:
                calls = [
                    (ours, _get(client, edr["endpoint"], {"Authorization": f"Bearer {edr['authorization']}"}, file.read_bytes())),
                    (bare, _get(client, f"http://127.0.0.1:{port}/", {}, file.read_bytes())),
                ]
                for _, call in calls:
                    await rate(500, PARALLEL, call)
                for number in range(size.rounds):
                    for rates, call in calls if number % 2 == 0 else calls[::-1]:
                        rates.append(await rate(size.of(GETS), PARALLEL, call))
    return {"small-gets-parallel-32": Found(ours, bare)}


class _get:  # noqa: N801 - a function with its arguments
    """A GET that must give exactly `expected`."""

    def __init__(self, client: aiohttp.ClientSession, url: str, headers: Mapping[str, str], expected: bytes) -> None:
        self._client, self._url, self._headers, self._expected = client, url, headers, expected

    async def __call__(self) -> None:
        async with self._client.get(self._url, headers=self._headers) as response:
            if await response.read() != self._expected:
                raise RuntimeError(f"a GET was answered with {response.status} and other bytes")


async def large(size: Size) -> dict[str, Found]:
    """1 GiB, warm, into the same blocking client."""
    ours: list[float] = []
    theirs: list[float] = []
    with pair("large") as both:
        file = both.provider.folder / "data" / "large.bin"
        sparse(file, size.of(LARGE_BYTES))
        both.start()
        async with driven(both) as load, session() as client:
            await publish(client, both.provider, "urn:bench:large", file.name, policy("large"))
            edr = await load.transfer(await agreed(client, both, "urn:bench:large", "large"))
            with nginx(both.provider.folder / "nginx", file.parent) as port:
                pulls = [
                    (ours, edr["endpoint"], {"Authorization": f"Bearer {edr['authorization']}"}),
                    (theirs, f"http://127.0.0.1:{port}/{file.name}", {}),
                ]
                for _, url, headers in pulls:
                    await asyncio.to_thread(drain, url, headers)
                for number in range(size.rounds):
                    for rates, url, headers in pulls if number % 2 == 0 else pulls[::-1]:
                        rates.append(await asyncio.to_thread(drain, url, headers) / 1e6)
    short = f"only {size.of(LARGE_BYTES):,} bytes" if size.of(LARGE_BYTES) < LARGE_BYTES else ""
    return {"large-pull": Found(ours, theirs, fault=short)}


def drain(url: str, headers: Mapping[str, str]) -> float:
    """Read an answer to its end and throw it away; returns bytes a second. Raises RuntimeError if it is cut or refused."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.netloc, timeout=60)
    begun = time.perf_counter()
    connection.request("GET", where.path, headers=dict(headers))
    response = connection.getresponse()
    announced, taken = int(response.headers["Content-Length"]), 0
    while count := response.readinto(BUFFER):
        taken += count
    seconds = time.perf_counter() - begun
    connection.close()
    if response.status != 200 or taken != announced:
        raise RuntimeError(f"an answer with status {response.status} gave {taken} of {announced} bytes")
    return taken / seconds


@contextmanager
def nginx(folder: Path, root: Path, tls: tuple[Path, Path] | None = None) -> Iterator[int]:
    """nginx over the files in `root`, with its own files in `folder`, and a certificate chain and key if it is to speak TLS; yields its
    port."""
    command = next((found for name in NGINX if (found := shutil.which(name))), None)
    if command is None:
        raise RuntimeError("nginx is not installed: `sh tests/install_servers.sh nginx`")
    folder.mkdir()
    (port,) = free_ports(1)
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = folder / "nginx.conf"
    secured = f" ssl; ssl_protocols TLSv1.3; ssl_certificate {tls[0]}; ssl_certificate_key {tls[1]}" if tls is not None else ""
    configuration.write_text(CONFIGURATION.format(folder=folder, root=root, port=port, user=user, secured=secured))
    started = [command, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(configuration)]
    with subprocess.Popen(started, start_new_session=True) as process:
        try:
            for _ in range(200):
                time.sleep(0.02)
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    continue
            else:
                raise RuntimeError("nginx does not answer")
            yield port
        finally:
            process.terminate()


async def get(size: Size) -> dict[str, Found]:
    """10 GB by an order to the consumer, which is what `connector get` gives; the memory of both on the way."""
    count = size.of(GET_BYTES)
    BUILD.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(BUILD).free) < count + SPARE_BYTES:
        missing = Found([], fault=f"{free / 1e9:.1f} GB of disk are free, {(count + SPARE_BYTES) / 1e9:.1f} are needed")
        return {"get-10-gb-provider-memory": missing, "get-10-gb-consumer-memory": missing}
    with pair("get") as both:
        file = both.provider.folder / "data" / "huge.bin"
        sparse(file, count)
        both.start()
        async with session() as client:
            await publish(client, both.provider, "urn:bench:huge", file.name, policy("huge"))
            most, seconds = await _fetched(client, both, "urn:bench:huge", count)
    note = f"{count / 1e9:g} GB in {seconds:.1f} s, {count / 1e6 / seconds:.0f} MB/s"
    short = f"only {count:,} bytes" if count < GET_BYTES else ""
    return {f"get-10-gb-{name}-memory": Found([most[name]], note=note, fault=short) for name in most}


async def _fetched(client: aiohttp.ClientSession, both: Pair, dataset: str, size_bytes: int) -> tuple[dict[str, float], float]:
    """The most memory of each side while a dataset is fetched, and the seconds that it took. Raises RuntimeError if it fails."""
    pulls, token = f"{both.consumer.url('management')}/v1/pulls", both.consumer.token | {"Content-Type": "application/json"}
    most = {connector.name: _memory(connector) for connector in both}
    begun = time.perf_counter()
    order = orjson.dumps({"peer": "provider", "dataset": dataset, "out": str(both.consumer.folder / "huge.bin"), "purposes": ["research"]})
    async with client.post(pulls, data=order, headers=token) as response:
        response.raise_for_status()
        id = orjson.loads(await response.read())["id"]
    looks = 0
    while True:
        most = {connector.name: max(most[connector.name], _memory(connector)) for connector in both}
        if looks % 10 == 0:
            async with client.get(f"{pulls}/{id}", headers=token) as response:
                pull = orjson.loads(await response.read())
            if pull["stage"] in ("done", "failed"):
                break
        if time.perf_counter() - begun > GET_SECONDS:
            raise RuntimeError(f"the fetch did not end within {GET_SECONDS:g} s")
        looks += 1
        await asyncio.sleep(LOOK_SECONDS)
    seconds = time.perf_counter() - begun
    if pull["stage"] != "done" or (both.consumer.folder / "huge.bin").stat().st_size != size_bytes:
        raise RuntimeError(f"the fetch failed: {pull['reasons']}")
    async with client.get(
        f"{both.provider.url('management')}/v1/agreements/{pull['agreement']}/usage", headers=both.provider.token
    ) as response:
        signed = orjson.loads(await response.read())["signed"]["bytes"]
    if signed != size_bytes:
        raise RuntimeError(f"the provider has receipts for {signed} of the {size_bytes} bytes")
    return most, seconds


def _memory(connector: Connector) -> float:
    return connector.memory_mb("RssAnon", "RssShmem")


def policy(name: str) -> dict[str, object]:
    return POLICY | {"@id": f"urn:bench:offer:{name}"}


async def agreed(client: aiohttp.ClientSession, both: Pair, dataset: str, name: str) -> str:
    """The agreement of a negotiation about another dataset than the load's own."""
    begin, token = f"{both.consumer.url('management')}/v1/negotiations", both.consumer.token | {"Content-Type": "application/json"}
    said = {"peer": "provider", "dataset": dataset, "offer": f"urn:bench:offer:{name}", "policy": policy(name)}
    async with client.post(begin, data=orjson.dumps(said), headers=token) as response:
        pid = orjson.loads(await response.read())["pid"]
    async with client.get(f"{begin}/{pid}?wait=final", headers=token) as response:
        view = orjson.loads(await response.read())
    if view["state"] != "FINALIZED":
        raise RuntimeError(f"the negotiation about `{dataset}` ended in {view['state']}: {view['reasons']}")
    return str(view["agreement"])


def sparse(file: Path, size_bytes: int) -> None:
    """A file of zeros that takes no disk; what reads it does the same work as for any other."""
    with file.open("wb") as out:
        out.truncate(size_bytes)
