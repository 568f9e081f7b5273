"""HTTP resources as sources: a URL that the operator configured, pinned to what was published.

Nothing that a consumer sends reaches the upstream: the request is made of the URL, our own conditions and range, and a
credential that the address names and the settings hold. What comes back must be what was indexed: the entity tag is demanded
(`If-Match`) and compared, or the modification date, or at least the size.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from http import HTTPStatus
from typing import Any

from connector.errors import EgressDenied, InvalidRequest, PeerFailed, SourceFailed
from connector.ports import Along, Download, Peer, Source, Stat

PIECE_BYTES = 1024 * 1024  # what is handed on at once; the network delivers far smaller pieces
CHECKED_SECONDS = 5.0  # how long a look at the upstream counts; each read is checked anyway
URL_CHARACTERS_MAX = 2048
FRAMED = frozenset({"content-length", "transfer-encoding"})  # an answer with one of them says where it ends
OCTETS = "application/octet-stream"
GIVEN = frozenset({"type", "url", "credential", "media_type"})
PINNED = frozenset({"size_bytes", "sha256", "etag", "last_modified", "ranges"})
CHANGED = "changed since it was published: publish it again"
# What an upstream says about itself is kept and said again, in a catalog and in headers: only in the characters that both can
# carry. RFC 9110, 8.8.3 (a weak tag does not promise the same bytes), 8.8.2 and 8.3.1.
STRONG_TAG = re.compile(r'"[!#-~]*"')
DATE = re.compile(r"[ -~]+")
MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*;[\t -~]*)?")
GONE = frozenset({HTTPStatus.PRECONDITION_FAILED, HTTPStatus.NOT_FOUND, HTTPStatus.GONE, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE})


class HttpSources:
    """Resources behind `peer`, the guarded client. `credential(name)` is the value of the `Authorization` header that the
    settings hold under that name, or None."""

    def __init__(self, peer: Peer, credential: Callable[[str], str | None]) -> None:
        self._peer, self._credential = peer, credential

    async def index(self, address: Mapping[str, Any], along: Along | None = None) -> tuple[Mapping[str, Any], Stat]:
        """Read the resource once for its size and digest; twice, if it ends with its connection, as a cut does, which nobody could tell
        from the end else. See `connector.ports.Sources`."""
        url = self._demand_allowed(address)
        found, size_bytes, headers = await self._read(address, along)
        if not headers.keys() & FRAMED and (found, size_bytes) != (await self._read(address, None))[:2]:
            text = "the upstream of the source closed the connection, had not said where its answer ends, and sent something else before"
            raise SourceFailed(f"{text}; publish it when it is at rest, from a server that says how much comes")
        pinned: dict[str, Any] = {
            "type": "http",
            "url": url,
            "media_type": address.get("media_type") or _said(headers, "content-type", MEDIA_TYPE) or OCTETS,
            "size_bytes": size_bytes,
            "sha256": found.hex(),
            "etag": _said(headers, "etag", STRONG_TAG),
            "last_modified": _said(headers, "last-modified", DATE),
            "ranges": headers.get("accept-ranges", "").strip().lower() == "bytes",
        }
        if "credential" in address:
            pinned["credential"] = address["credential"]
        return pinned, _stat(pinned)

    async def _read(self, address: Mapping[str, Any], along: Along | None) -> tuple[bytes, int, Mapping[str, str]]:
        """The SHA-256 of all of it, its size, and what its answer says. Raises SourceFailed."""
        digest, size_bytes = hashlib.sha256(), 0
        try:
            async with self._get(address, {}) as download:
                _demand_plain(download)
                if download.status != HTTPStatus.OK:
                    raise SourceFailed(f"the upstream of the source answered with status {download.status} instead of 200")
                async with aclosing(batches(download.chunks())) as pieces:
                    async for piece in pieces:
                        await _both(digest, along, piece)
                        size_bytes += len(piece)
        except (PeerFailed, EgressDenied) as error:
            raise SourceFailed(f"the upstream of the source cannot be read: {error.message}") from None
        return digest.digest(), size_bytes, download.headers

    async def open(self, address: Mapping[str, Any]) -> Source:
        """Open what `index` pinned. See `connector.ports.Sources`."""
        try:
            self._demand_allowed(address)
        except InvalidRequest as error:
            raise SourceFailed(f"the source is not what was published: {error.message}") from None
        source = HttpSource(address, lambda headers: self._get(address, headers))
        await source.stat()
        return source

    def _demand_allowed(self, address: Mapping[str, Any]) -> str:
        if unknown := sorted(address.keys() - GIVEN - PINNED):
            raise InvalidRequest(
                f"an HTTP source has no member `{unknown[0]}`; it has `url`, `credential` and `media_type`", pointer=f"/source/{unknown[0]}"
            )
        url = address.get("url")
        if not isinstance(url, str) or not 0 < len(url) <= URL_CHARACTERS_MAX or not all("!" <= c <= "~" for c in url):
            raise InvalidRequest(
                f"the source's `url` is not a URL of 1 to {URL_CHARACTERS_MAX} visible ASCII characters; percent-encode the others",
                pointer="/source/url",
            )
        try:
            self._peer.check(url)
        except EgressDenied as error:
            raise InvalidRequest(f"the source's `url` cannot be used: {error.message}", pointer="/source/url") from None
        name = address.get("credential")
        if name is not None and (not isinstance(name, str) or self._credential(name) is None):
            raise InvalidRequest(
                "the source's `credential` is not a name in the settings' section `credentials`", pointer="/source/credential"
            )
        return url

    def _get(self, address: Mapping[str, Any], headers: Mapping[str, str]) -> AbstractAsyncContextManager[Download]:
        sent = {"Accept": "*/*", "Accept-Encoding": "identity", **headers}
        if (name := address.get("credential")) is not None:
            secret = self._credential(name)
            if secret is None:
                raise SourceFailed("the credential of the source cannot be read any more; look after the settings' section `credentials`")
            sent["Authorization"] = secret
        return self._peer.stream("GET", address["url"], headers=sent)


class HttpSource:
    """One resource. `address` is what `HttpSources.index` returned, `get(headers)` a request for it."""

    def __init__(self, address: Mapping[str, Any], get: Callable[[Mapping[str, str]], AbstractAsyncContextManager[Download]]) -> None:
        self._address, self._get = address, get
        self._size_bytes: int = address["size_bytes"]
        self._checked_at = float("-inf")

    async def stat(self) -> Stat:
        now = asyncio.get_running_loop().time()
        if now - self._checked_at >= CHECKED_SECONDS:
            try:
                async with self._get(self._conditions(0, min(1, self._size_bytes))) as download:
                    self._demand_same(download, 0)
            except (PeerFailed, EgressDenied) as error:
                raise SourceFailed(f"the upstream of the source cannot be read: {error.message}") from None
            self._checked_at = now
        return _stat(self._address)

    async def read(self, offset: int, length: int | None) -> AsyncIterator[bytes]:
        left = max(0, self._size_bytes - offset) if length is None else max(0, min(length, self._size_bytes - offset))
        if left == 0:
            return
        to_the_end = offset + left == self._size_bytes
        try:
            async with self._get(self._conditions(offset, left)) as download:
                skip = offset - self._demand_same(download, offset)
                async with aclosing(batches(download.chunks())) as pieces:
                    async for batch in pieces:
                        piece = batch[skip : skip + left]
                        used, skip = skip + len(piece), max(0, skip - len(batch))
                        left -= len(piece)
                        if left == 0 and to_the_end and (len(batch) > used or await anext(pieces, None) is not None):
                            break  # more than was published: a body whose length nobody had announced
                        if piece:
                            yield piece
                        if left == 0:
                            return
        except (PeerFailed, EgressDenied) as error:
            raise SourceFailed(f"the upstream of the source cannot be read: {error.message}") from None
        raise SourceFailed(f"the source {CHANGED}")

    def fileno(self) -> int | None:
        return None

    async def close(self) -> None:
        """Nothing stays open between reads."""

    def _conditions(self, offset: int, length: int) -> dict[str, str]:
        headers: dict[str, str] = {}
        if self._address["etag"] is not None:
            headers["If-Match"] = self._address["etag"]
        elif self._address["last_modified"] is not None:
            headers["If-Unmodified-Since"] = self._address["last_modified"]
        if self._address["ranges"] and 0 < length < self._size_bytes:
            headers["Range"] = f"bytes={offset}-{offset + length - 1}"
        return headers

    def _demand_same(self, download: Download, offset: int) -> int:
        """Return where the body begins. Raises SourceFailed if it is not a part of what was published."""
        headers, status, size = download.headers, download.status, self._size_bytes
        if status in GONE:
            raise SourceFailed(f"the source {CHANGED} (status {status})")
        if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            raise SourceFailed(f"the upstream of the source answered with status {status}")
        _demand_plain(download)
        for name in ("etag", "last_modified"):
            pinned = self._address[name]
            # A server may leave the condition unread; what it says it sends is compared all the same.
            if pinned is not None:
                if headers.get(name.replace("_", "-"), pinned).strip() != pinned:
                    raise SourceFailed(f"the source {CHANGED}")
                break
        if status == HTTPStatus.OK:
            if headers.get("content-length", str(size)) != str(size):
                raise SourceFailed(f"the source {CHANGED}")
            return 0
        stated = headers.get("content-range", "").lower().removeprefix("bytes").strip()
        if not stated.startswith(f"{offset}-") or not stated.endswith((f"/{size}", "/*")):
            raise SourceFailed("the upstream of the source answered with another part than was asked for")
        return offset


async def _both(digest: hashlib._Hash, along: Along | None, piece: bytes) -> None:
    """Hash a piece, and let who reads along read it at the same time."""
    hashing = asyncio.to_thread(digest.update, piece)
    if along is None:
        await hashing
        return
    _, read = await asyncio.gather(hashing, asyncio.to_thread(along, memoryview(piece)), return_exceptions=True)
    if read is not None:
        raise read


async def batches(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Join what the network delivers to pieces of PIECE_BYTES; the last one is shorter."""
    kept: list[bytes] = []
    size_bytes = 0
    async for chunk in chunks:
        kept.append(chunk)
        size_bytes += len(chunk)
        if size_bytes >= PIECE_BYTES:
            joined = b"".join(kept)
            full = size_bytes - size_bytes % PIECE_BYTES
            for at in range(0, full, PIECE_BYTES):
                yield joined[at : at + PIECE_BYTES]
            kept, size_bytes = [joined[full:]], size_bytes - full
    if size_bytes:
        yield b"".join(kept)


def _said(headers: Mapping[str, str], name: str, form: re.Pattern[str]) -> str | None:
    value = headers.get(name, "").strip()
    return value if form.fullmatch(value) else None


def _demand_plain(download: Download) -> None:
    if download.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise SourceFailed("the upstream of the source sent a content encoding that was not asked for")


def _stat(address: Mapping[str, Any]) -> Stat:
    version = f"{address['etag'] or address['last_modified'] or ''} {address['sha256']}"
    return Stat(address["size_bytes"], version, bytes.fromhex(address["sha256"]), address["media_type"])
