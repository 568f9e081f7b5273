"""A server of the operator, spoken byte by byte: honest, or whatever its test makes of it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Headers = dict[str, str]


def response(body: bytes = b"", status: str = "200 OK", length: int | None = -1, **headers: str) -> bytes:
    """An answer as it stands on the wire. `length` -1 announces the true one, None none at all: the body ends with the connection."""
    said = headers if length is None else {"Content-Length": str(len(body) if length < 0 else length), **headers}
    lines = [f"HTTP/1.1 {status}", "Connection: close", *(f"{name.replace('_', '-')}: {value}" for name, value in said.items())]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


def chunked(pieces: Iterable[bytes], **headers: str) -> bytes:
    framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])
    return response(framed, length=None, Transfer_Encoding="chunked", **headers)


@dataclass
class Upstream:
    """The operator's server. Honest, unless `lie(headers)` has another answer; after that it may stall with the connection open."""

    content: bytes | None = b"data"
    etags: bool = True
    ranges: bool = True
    chunks: bool = False
    more: Headers = field(default_factory=dict)  # of each honest answer
    lie: Callable[[Headers], bytes | None] = lambda _headers: None
    stalls: bool = False
    version: int = 0
    requests: list[Headers] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)  # set when a client left before the end

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            self.requests.append({"": first} | headers)
            lie = self.lie(headers)
            writer.write(self.honest(headers) if lie is None else lie)
            await writer.drain()
            if self.stalls:
                await reader.read()
                self.gone.set()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone.set()
        finally:
            writer.close()

    @property
    def said(self) -> Headers:
        etag = {"ETag": f'"{hashlib.sha256(self.content or b"").hexdigest()}"'} if self.etags else {}
        ranges = {"Accept-Ranges": "bytes"} if self.ranges else {}
        return {"Content-Type": "text/csv", "Last-Modified": f"Tue, 24 Nov 2026 12:00:{self.version:02} GMT"} | etag | ranges | self.more

    def honest(self, headers: Headers) -> bytes:
        if self.content is None:
            return response(b"gone", "404 Not Found")
        said, content = self.said, self.content
        if headers.get("if-match", said.get("ETag")) != said.get("ETag"):
            return response(status="412 Precondition Failed")
        if headers.get("if-unmodified-since", said["Last-Modified"]) != said["Last-Modified"]:
            return response(status="412 Precondition Failed")
        if self.ranges and (asked := headers.get("range")):
            first, last = (int(n) for n in asked.removeprefix("bytes=").split("-"))
            return response(content[first : last + 1], "206 Partial", Content_Range=f"bytes {first}-{last}/{len(content)}", **said)
        pieces = [content[at : at + 300_000] for at in range(0, len(content), 300_000)]
        return chunked(pieces, **said) if self.chunks else response(content, **said)


@asynccontextmanager
async def serving(upstream: Upstream) -> AsyncIterator[int]:
    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
