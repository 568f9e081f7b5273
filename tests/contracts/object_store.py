"""A small store of objects on a real HTTP listener, and a sink that keeps its parts and its files there: what an adapter for an object
store comes to. It knows no ranges of what is written (S3 has none either), so a part is a row of blocks until it is whole.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from urllib.parse import quote

import aiohttp
import orjson
from aiohttp import web

from connector.errors import Contradiction, SinkFailed

BLOCK_BYTES = 128 * 1024
OBJECT_BYTES_MAX = 5 * 1024**4  # of S3


class ObjectStore:
    """`PUT` (with `If-None-Match: *`), `GET`, `HEAD`, `DELETE`, and `GET ?prefix=`, which lists keys and sizes."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.down = False

    def add_to(self, app: web.Application) -> None:
        app.router.add_route("*", "/{key:.*}", self._handle)

    async def _handle(self, request: web.Request) -> web.Response:
        key, content = request.match_info["key"], await request.read()
        if self.down:
            return web.Response(status=503)
        if "prefix" in request.query:
            return web.json_response({each: len(body) for each, body in self.objects.items() if each.startswith(request.query["prefix"])})
        if request.method == "PUT":
            if request.headers.get("If-None-Match") == "*" and key in self.objects:
                return web.Response(status=412)
            self.objects[key] = content
        elif request.method == "DELETE":
            self.objects.pop(key, None)
        elif key not in self.objects:
            return web.Response(status=404)
        return web.Response(body=self.objects.get(key, b"") if request.method == "GET" else b"")


class HttpSinks:
    """Downloads into the object store at `url`."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._url, self._http, self._taken = url, http, set[str]()

    async def send(self, method: str, key: str, body: object = None, **headers: str) -> tuple[int, bytes]:
        """Raises SinkFailed unless it was done, is not there, or was not to be replaced."""
        try:
            async with self._http.request(method, f"{self._url}/{key}", data=body, headers=headers) as answer:
                status, said = answer.status, await answer.read()
        except aiohttp.ClientError:
            raise SinkFailed("the object store does not answer; the part is kept") from None
        if status not in (200, 404, 412):
            raise SinkFailed(f"the object store answered with status {status}; the part is kept")
        return status, said

    async def check(self, out: str, part: str, *, overwrite: bool) -> None:
        if out in self._taken:
            raise SinkFailed(f"another download is writing to `{out}`; wait for it or name another")
        if not overwrite and (await self.send("HEAD", f"files/{quote(out)}"))[0] != 404:
            raise Contradiction(f"`{out}` exists already; remove it or name another")

    async def open(self, out: str, part: str, *, overwrite: bool) -> "HttpSink":
        await self.check(out, part, overwrite=overwrite)
        self._taken.add(out)
        try:
            prefix = f"parts/{quote(out, '')}/{quote(part, '')}/"
            _, listed = await self.send("GET", f"?prefix={prefix}")
            sizes = {int(key.rpartition("/")[2]): size for key, size in orjson.loads(listed).items()}
            return HttpSink(self, out, prefix, sizes, overwrite, lambda: self._taken.discard(out))
        except BaseException:
            self._taken.discard(out)
            raise

    async def existing(self, out: str, part: str) -> tuple[int, bytes] | None:
        status, found = await self.send("GET", f"files/{quote(out)}")
        return None if status == 404 else (len(found), hashlib.sha256(found).digest())


class HttpSink:
    """One part: block n has the bytes from n * BLOCK_BYTES on. `sizes` are those of the blocks that are there."""

    def __init__(self, store: HttpSinks, out: str, prefix: str, sizes: dict[int, int], overwrite: bool, closed: Callable[[], None]) -> None:
        self._store, self._out, self._prefix, self._sizes, self._overwrite, self._closed = store, out, prefix, sizes, overwrite, closed
        self._digest, self._lock = hashlib.sha256(), asyncio.Lock()

    @property
    def size_bytes(self) -> int:
        return max((n * BLOCK_BYTES + size for n, size in self._sizes.items()), default=0)

    def digest(self) -> bytes:
        return self._digest.digest()

    async def resume(self) -> int:
        self._digest = hashlib.sha256(b"".join([piece async for piece in self._content()]))
        return self.size_bytes

    async def restart(self) -> None:
        await self.discard()
        self._digest = hashlib.sha256()

    async def append(self, pieces: Sequence[bytes]) -> None:
        await self.write(self.size_bytes, b"".join(pieces))
        for piece in pieces:
            self._digest.update(piece)

    async def extents(self) -> list[tuple[int, int]]:
        return [(n * BLOCK_BYTES, n * BLOCK_BYTES + size) for n, size in sorted(self._sizes.items())]

    async def write(self, offset: int, piece: bytes | memoryview) -> None:
        rest = memoryview(piece)
        async with self._lock:  # two writers may meet in one block
            while rest:
                n, at = divmod(offset, BLOCK_BYTES)
                fits = rest[: BLOCK_BYTES - at]
                block = bytearray() if at == 0 and len(fits) >= self._sizes.get(n, 0) else bytearray(await self._block(n))
                block.extend(bytes(max(0, at + len(fits) - len(block))))
                block[at : at + len(fits)] = fits
                await self._put(n, bytes(block))
                offset, rest = offset + len(fits), rest[len(fits) :]

    async def read(self, offset: int, length: int) -> bytes:
        end, found = min(offset + length, self.size_bytes), bytearray()
        while offset + len(found) < end:
            n, at = divmod(offset + len(found), BLOCK_BYTES)
            found += (await self._block(n)).ljust(BLOCK_BYTES, b"\0")[at : at + end - offset - len(found)]
        return bytes(found)

    async def cut(self, size_bytes: int) -> None:
        if size_bytes >= self.size_bytes:
            return
        n, at = divmod(size_bytes, BLOCK_BYTES)
        for gone in [each for each in self._sizes if each > n or (each == n and not at)]:
            await self._delete(gone)
        if at:
            await self._put(n, (await self._block(n)).ljust(at, b"\0")[:at])

    async def sync(self) -> None:
        """What the store has answered is durable."""

    def fileno(self) -> int | None:
        return None

    async def reserve(self, more_bytes: int) -> None:
        if self.size_bytes + more_bytes > OBJECT_BYTES_MAX:
            raise SinkFailed(f"there is no space for `{self._out}`: an object has {OBJECT_BYTES_MAX} bytes at most; the part is kept")

    async def commit(self, *, durable: bool = True) -> None:
        unless = {} if self._overwrite else {"If-None-Match": "*"}
        if (await self._store.send("PUT", f"files/{quote(self._out)}", self._content(), **unless))[0] == 412:
            raise Contradiction(f"`{self._out}` came into being meanwhile; the part is kept")
        await self.discard()

    async def discard(self) -> None:
        for n in tuple(self._sizes):
            await self._delete(n)

    async def close(self) -> None:
        self._closed()
        self._closed = lambda: None

    async def _content(self) -> AsyncIterator[bytes]:
        for first in range(0, self.size_bytes, BLOCK_BYTES):
            yield await self.read(first, BLOCK_BYTES)

    async def _block(self, n: int) -> bytes:
        return (await self._store.send("GET", f"{self._prefix}{n}"))[1] if n in self._sizes else b""

    async def _put(self, n: int, block: bytes) -> None:
        await self._store.send("PUT", f"{self._prefix}{n}", block)
        self._sizes[n] = len(block)

    async def _delete(self, n: int) -> None:
        await self._store.send("DELETE", f"{self._prefix}{n}")
        del self._sizes[n]
