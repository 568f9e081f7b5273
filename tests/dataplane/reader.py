"""Clients of the data listener that speak HTTP by hand: as slowly, as wrongly, and with as small a window as a test wants."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trustme

from connector.api.listener import Door, tls_context
from tests.dataplane.rig import Rig, provider

WAIT_SECONDS = 10.0  # for what comes at once unless something hangs
WINDOW_BYTES = 64 * 1024  # of the client's kernel, and a sip of its own: what is beyond waits at the server, and is not read after a cut
SIP_BYTES, SIP_SECONDS = 16 * 1024, 0.02  # below 1 MB a second: the server's kernel alone holds seconds of that


@dataclass
class Reader:
    """One answer, of which the body is taken by and by."""

    stream: asyncio.StreamReader
    status: int
    headers: Mapping[str, str]
    taken: bytearray = field(default_factory=bytearray)

    @property
    def announced(self) -> int:
        return int(self.headers["content-length"])

    async def take(self, count: int) -> None:
        """Read that many bytes more of the body."""
        async with asyncio.timeout(WAIT_SECONDS):
            while count > 0 and (piece := await self.stream.read(min(count, SIP_BYTES))):
                self.taken += piece
                count -= len(piece)
        assert count <= 0, "the answer ended before that"

    async def sip_to_the_end(self) -> float:
        """Read slowly on until the connection is over; returns when that was (POSIX seconds)."""
        async with asyncio.timeout(WAIT_SECONDS):
            try:
                while piece := await self.stream.read(SIP_BYTES):
                    self.taken += piece
                    await asyncio.sleep(SIP_SECONDS)
            except (ConnectionError, ssl.SSLError):
                pass
        return time.time()

    async def all(self) -> bytes:
        """The rest of the body, quickly, until as much has come as was announced."""
        await self.take(self.announced - len(self.taken))
        return bytes(self.taken)


@asynccontextmanager
async def connected(url: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection with a small window."""
    at = urlsplit(url)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW_BYTES)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", at.port))
    reader, writer = await asyncio.open_connection(sock=raw, ssl=tls, server_hostname=at.hostname if tls else None, limit=SIP_BYTES)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def request(method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """The bytes of a request."""
    at = urlsplit(url)
    lines = [f"{method} {at.path} HTTP/1.1", f"Host: {at.netloc}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


async def head(stream: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """The status and the headers of the next answer."""
    async with asyncio.timeout(WAIT_SECONDS):
        first, *lines = (await stream.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}


@asynccontextmanager
async def reading(url: str, headers: Mapping[str, str], *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Reader]:
    """A GET whose head has arrived."""
    async with connected(url, tls) as (stream, writer):
        writer.write(request("GET", url, headers))
        yield Reader(stream, *await head(stream))


class Same:
    """A stage that changes nothing: with it the bytes pass through this process instead of `sendfile`."""

    name = "same"

    async def run(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            yield piece


@dataclass
class Wire:
    """One way the bytes can take, and whether the kernel sends them."""

    rig: Rig
    tls: ssl.SSLContext | None
    stages: tuple[Any, ...]
    by_kernel: bool

    def reading(self, authorization: dict[str, str]) -> Any:
        return reading(self.rig.endpoint, authorization, tls=self.tls)


@asynccontextmanager
async def a_wire(kind: str, root: Path, authority: trustme.CA, **options: Any) -> AsyncIterator[Wire]:
    server = client = None
    if kind == "TLS":
        certificate = authority.issue_cert("localhost")
        (root / "cert.pem").write_bytes(b"".join(each.bytes() for each in certificate.cert_chain_pems))
        certificate.private_key_pem.write_to_path(root / "key.pem")
        server = tls_context(Door("data", "localhost", 0, root / "cert.pem", root / "key.pem", 15.0, 100, 100, 1024, 20.0))
        client = ssl.create_default_context()
        authority.configure_trust(client)
    async with provider(root, tls=server, **options) as rig:
        yield Wire(rig, client, (Same(),) if kind == "pieces" else (), kind == "sendfile")
