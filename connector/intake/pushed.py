"""Data that a provider brings: its requests to our sink stand for the answers to requests that we would have sent.

Whoever downloads asks for a part and reads it; here the part is awaited, and read from the bodies of requests. Whoever signs receipts
posts them; here the receipt is the answer. So the same code proves, receipts and takes up again, whichever side dials.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http import HTTPStatus
from typing import Final

from connector.errors import InvalidRequest, PeerFailed, TooSlow
from connector.ports import Detached, Download, Peer, Reply
from connector.ports.pushed import ALONE_SECONDS, ANSWER_SECONDS, Brought, Reception

RECEIPTS: Final = "/receipts"


async def begun(reception: Reception, over: Callable[[], bool], patience_seconds: float) -> Brought:
    """The request that opens. Raises PeerFailed if none comes in `patience_seconds`, or before the transfer is `over`: a provider that has
    our last receipt has nothing to bring, and completes it, also if we were killed before we had noted that."""
    loop = asyncio.get_running_loop()
    until = loop.time() + patience_seconds
    while True:
        try:
            return await reception.begun(ALONE_SECONDS)
        except PeerFailed as failed:
            if over():
                raise PeerFailed(f"the transfer is over, and {failed.message} any more; the part is kept") from None
            if loop.time() > until:
                raise PeerFailed(f"nothing came for {patience_seconds:g} s: {failed.message}; the part is kept") from None


class PushPeer:
    """The port `Peer` towards a provider that brings its data to `reception`: what lies beside them is asked for as ever, by `peer`.
    It `proves` them if it has said where its manifest is."""

    def __init__(self, peer: Peer, reception: Reception, *, proves: bool) -> None:
        self._peer, self._reception, self.proves = peer, reception, proves
        self._unmet = ""  # the receipt that no request came for

    def hold(self) -> None:
        """There is no room for more: nothing is to be brought until `go_on`."""
        self._reception.hold()

    def go_on(self) -> None:
        """There is room again."""
        self._reception.go_on()

    def check(self, url: str) -> None:
        """See the port."""
        self._peer.check(url)

    def afresh(self, url: str) -> None:
        """See the port."""
        self._peer.afresh(url)

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None, limit_bytes: int | None = None
    ) -> Reply:
        """See the port. A receipt is the answer to a request; where none comes any more it is posted as ever: a transfer that has ended is
        paid for by what was signed."""
        if method != "POST" or body is None or not url.endswith(RECEIPTS):
            return await self._peer.send(method, url, headers=headers, body=body, limit_bytes=limit_bytes)
        receipt = body.decode("ascii")
        if receipt != self._unmet:
            try:
                return Reply(200, {}, (await self._reception.sign(receipt)).encode("ascii"))
            except PeerFailed:
                self._unmet = receipt  # a token may have ended in the meantime: with another one nobody waits again
        reply = await self._peer.send(method, url, headers=headers, body=body, limit_bytes=limit_bytes)
        if reply.status == HTTPStatus.OK:
            self._reception.settled(receipt)
        return reply

    def stream(
        self, _method: str, _url: str, *, headers: Mapping[str, str], idle_seconds: float = 30.0
    ) -> AbstractAsyncContextManager[Download]:
        """See the port: the part that is asked for, as it is brought."""
        return self._awaited(headers.get("Range"), idle_seconds)

    @asynccontextmanager
    async def _awaited(self, range_: str | None, idle_seconds: float) -> AsyncIterator[Download]:
        first, _, last = (range_ or "bytes=0-").removeprefix("bytes=").partition("-")
        brought = await self._reception.bytes_from(int(first), idle_seconds)
        size = brought.size_bytes
        end = int(last) + 1 if last else size
        try:
            yield Bringing(self._reception, brought, int(first), end, part=range_ is not None, idle_seconds=idle_seconds)
        finally:
            self._reception.read_no_more()

    async def close(self) -> None:
        """See the port: the connections are those of the peer that was given, and stay."""


class Bringing:
    """The port `Download` over the bodies of requests: the bytes [first, end) of what is brought."""

    def __init__(self, reception: Reception, brought: Brought, first: int, end: int | None, *, part: bool, idle_seconds: float) -> None:
        self._reception, self._brought, self._first, self._end, self._idle_seconds = reception, brought, first, end, idle_seconds
        self.status = 206 if part else 200
        size = "*" if brought.size_bytes is None else str(brought.size_bytes)
        kept = {name: value for name, value in brought.headers.items() if name in ("content-type", "etag", "repr-digest")}
        if part:
            kept["content-range"] = f"bytes {first}-{(end or first + brought.length) - 1}/{size}"
        elif brought.size_bytes is not None:
            kept["content-length"] = size
        self.headers: Mapping[str, str] = kept

    async def chunks(self) -> AsyncIterator[bytes]:
        """See the port."""
        at, brought = self._first, self._brought
        while True:
            left = brought.length
            try:
                async for piece in brought.body:
                    at, left = at + len(piece), left - len(piece)
                    if not left:  # said before it is handed on: whoever has enough does not ask whether there is more
                        await self._reception.has_come(brought)
                    yield piece
            except (ConnectionError, InvalidRequest, TooSlow):  # it was cut, it ended half of its connection, or nothing came
                left = max(left, 1)
            if left:
                error = PeerFailed("the provider stopped in the middle of what it brought")
                self._reception.fail(brought, error)
                raise error
            if self._end is None or at >= self._end:
                return
            brought = await self._next(at, brought)

    async def _next(self, at: int, before: Brought) -> Brought:
        """The next request, once the one before is answered by its receipt."""
        await asyncio.wait({before.answered}, timeout=ANSWER_SECONDS)
        return await self._reception.bytes_from(at, self._idle_seconds)

    def detach(self) -> Detached | None:
        """See the port: there is no connection of ours."""
        return None
