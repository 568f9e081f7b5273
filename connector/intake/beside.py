"""What lies beside the data of a transfer: its manifest, header leaf, checkpoint and tiles, and where receipts are posted.

All of it is behind the same token as the data, small, and bounded. Nothing here is believed: whoever asks checks what comes.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from urllib.parse import urlsplit, urlunsplit

import orjson

from connector import telemetry
from connector.errors import PeerFailed, PeerRefused
from connector.intake.access import Access
from connector.intake.heads import LATER, NotNow, answered, same_origin, seconds_of
from connector.intake.pushed import PushPeer
from connector.merkle.tiles import TILE_BYTES, WIDTH, Tile, over
from connector.merkle.tree import HASH_BYTES
from connector.metering.content import HEADER_BYTES_MAX, SEALED
from connector.ports import Download, Peer, Reply

OBJECT_BYTES_MAX = 64 * 1024  # of a signed object: ours have 1 KiB, a receipt with many ranges 8
CHECKPOINT_BYTES_MAX = 16 * 1024  # of a signed note with its cosignatures
PROBLEM_BYTES_MAX = 16 * 1024  # of a refusal that is read
PROBLEM_SECONDS = 5.0  # for it to arrive
JWT = "application/jwt"
PROBLEM = "urn:qiao:problem:"
CODE = re.compile(r"[a-z][a-z0-9-]{0,63}")


class Beside:
    """Asks for it with the token of `access`. All methods raise PeerFailed; NotNow if the provider asks for patience, PeerRefused for
    other error statuses."""

    def __init__(self, access: Access, peer: Peer) -> None:
        self._access, self._peer = access, peer
        parts = urlsplit(access.endpoint)
        self._base = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))

    @property
    def brought(self) -> bool:
        """Whether the provider brings the data, and waits with each window until a receipt answers it."""
        return isinstance(self._peer, PushPeer)

    def demand_here(self, url: str, what: str) -> None:
        """Raise Unfit for a URL at another origin than that of the data: the token is not sent there."""
        same_origin(url, self._access.endpoint, what)

    async def manifest(self, url: str | None = None) -> str:
        """The JWS at `url`, else where it stands beside the data."""
        return _text(await self._get(url or f"{self._base}/manifest", OBJECT_BYTES_MAX))

    async def header(self) -> bytes:
        """The bytes of leaf 0."""
        return await self._get(f"{self._base}/header", HEADER_BYTES_MAX)

    async def checkpoint(self) -> bytes:
        """A signed note."""
        return await self._get(f"{self._base}/checkpoint", CHECKPOINT_BYTES_MAX)

    async def checkpoint_after(self, leaves: int) -> bytes | None:
        """The next signed note of a log that grows, for somebody who has so many leaves, or the one that says that they are all; None if
        there is none yet. A provider that knows of no end gives none."""
        return await self._get(f"{self._base}/checkpoint?after={leaves}&end", CHECKPOINT_BYTES_MAX) or None

    async def sealed(self, first: int, end: int) -> bytes:
        """The list of the leaves [first, end) of a log that grows."""
        return await self._get(f"{self._base}/sealed/{first}-{end}", SEALED.size * (end - first))

    async def leaves(self, first: int, end: int) -> list[bytes]:
        """The hashes of the leaves [first, end) of a log of at least `end` leaves."""
        found: list[bytes] = []
        for tile in over(first, end, end):
            data, start = await self.tile(tile), tile.index * WIDTH
            found += [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)][max(first - start, 0) :]
        return found

    async def tile(self, tile: Tile) -> bytes:
        """The hashes of one tile."""
        return await self._get(f"{self._base}/{tile.path}", TILE_BYTES)

    async def receipts(self, url: str) -> bytes:
        """What the provider remembers of our receipts, as JSON."""
        return await self._get(url, 2 * OBJECT_BYTES_MAX)

    def afresh(self) -> None:
        """Ask over a new connection the next time: see the port `Peer`."""
        self._peer.afresh(self._access.endpoint)

    async def post(self, url: str, receipt: str) -> Reply:
        """Post a receipt. An answer that refuses it is an answer, too: only those that ask for patience or for another token are raised."""

        async def call(authorization: str | None) -> Reply:
            headers = _headers(authorization) | {"Content-Type": JWT}
            reply = await self._peer.send("POST", url, headers=headers, body=receipt.encode("ascii"), limit_bytes=OBJECT_BYTES_MAX)
            if reply.status in LATER or reply.status == HTTPStatus.UNAUTHORIZED:
                raise _refusal(reply)
            return reply

        return await self._access.presented(call)

    async def _get(self, url: str, limit_bytes: int) -> bytes:
        async def call(authorization: str | None) -> bytes:
            reply = await self._peer.send("GET", url, headers=_headers(authorization), limit_bytes=limit_bytes)
            if reply.status not in (HTTPStatus.OK, HTTPStatus.NO_CONTENT):
                raise _refusal(reply)
            return reply.body

        return await self._access.presented(call)


def problem_code(body: bytes) -> str | None:
    """The code in problem details (RFC 9457): `code`, else the end of a `type` of ours. None if there is none: `about:blank` is one too."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict):
        return None
    before, _, kind = str(document.get("type", "")).partition(PROBLEM)
    code = document.get("code") or (kind if not before else None)
    return code if isinstance(code, str) and CODE.fullmatch(code) else None


async def code_of(incoming: Download) -> str | None:
    """The code in the body of a streamed answer with an error status; None if it has none, or does not say it in time."""
    body = b""
    if incoming.status < HTTPStatus.BAD_REQUEST:
        return None
    try:
        async with asyncio.timeout(PROBLEM_SECONDS):
            async for piece in incoming.chunks():
                body += piece
                if len(body) > PROBLEM_BYTES_MAX:
                    return None
    except (PeerFailed, TimeoutError):
        return None  # the status says that it is a refusal; what for, nobody hears
    return problem_code(body)


def _headers(authorization: str | None) -> dict[str, str]:
    headers = {"Accept": "*/*", "Accept-Encoding": "identity"} | telemetry.trace_header()
    return headers if authorization is None else headers | {"Authorization": authorization}


def _refusal(reply: Reply) -> PeerFailed:
    code = problem_code(reply.body)
    if reply.status in LATER:
        return NotNow(reply.status, seconds_of(reply.headers.get("retry-after")), code)
    return PeerRefused(answered(reply.status, code), status=reply.status, said=code)


def _text(body: bytes) -> str:
    try:
        return body.decode("ascii").strip()
    except UnicodeDecodeError:
        raise PeerFailed("the provider's manifest is not a JWS") from None
