"""The sink of the data listener: `HEAD` and `PUT /sink/{transfer pid}`, for what a provider brings of a transfer of ours.

A token opens the sink of one transfer, to its provider, while it runs and an order waits for it. A request says which bytes it brings
(`Content-Range`) and how many (`Content-Length`); without bytes it says where the manifest is (JSON with a `dataAddress`), or carries an
ack alone. It is answered by the receipt (200), or by the byte that is wanted next (204 with `Upload-Offset`; 409 if it brought another),
or by 204 alone once nothing more is.

Where the agreement demands signed requests, the token counts only in one that the provider has signed (RFC 9421, tag `dp-push`). Answers
are signed for whoever signs or asks for it, and name their body.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import orjson
from aiohttp import hdrs, web

from connector import telemetry
from connector.api.data_answers import NO_STORE, Signing, answered, bearer, not_allowed
from connector.dataplane.edr import NOT_VALID, Tokens
from connector.dataplane.possession import Proof
from connector.dataplane.ranges import read_content_range, read_repr_digest
from connector.dataplane_push.pusher import ACK, JWT, OFFSET, RECEIPTS_RELATION
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.dsp.transfer import State
from connector.errors import Busy, InvalidRequest, SignatureRefused, TokenRefused, TooLarge, TooSlow, UnsupportedMedia, Withdrawn
from connector.ports import SIGNED_REQUESTS, Store
from connector.ports.pushed import Answer, Brought, Reception, Receptions, no_room
from connector.signatures.digests import DIGEST, content_digest
from connector.signatures.jws import OBJECT_CHARACTERS_MAX

ADDRESS_BYTES_MAX: Final = 16 * 1024
PIECE_BYTES: Final = 1024 * 1024
STALL_SECONDS: Final = 60.0  # without a byte
UNSATISFIED: Final = "bytes */"
UNNAMED: Final = "the request is signed without its body; name the SHA-256 of that in `Repr-Digest`, and cover it"
RETRY_SECONDS: Final = 2


class SinkApi:
    """The handlers. `tokens` are ours; a transfer is looked up in `store`; `demands(pid)` is what its agreement demands, None if there is
    none. `signing` looks at the signatures of requests; whoever has the listener signs its answers."""

    def __init__(
        self,
        tokens: Tokens,
        store: Store,
        receptions: Receptions,
        tracing: telemetry.Tracing,
        signing: Signing,
        demands: Callable[[str], Awaitable[frozenset[str] | None]],
    ) -> None:
        self._tokens, self._store, self._receptions, self._tracing = tokens, store, receptions, tracing
        self._signing, self._demands = signing, demands

    def add_to(self, app: web.Application) -> None:
        """Register the routes. They need no middleware."""
        app.router.add_route("HEAD", "/sink/{pid}", answered(self._tracing, "HEAD /sink/{pid}", self._asked))
        for method in ("PUT", "POST"):
            app.router.add_route(method, "/sink/{pid}", answered(self._tracing, "PUT /sink/{pid}", self._brought))
        app.router.add_route("*", "/sink/{pid}", not_allowed("HEAD, PUT"))

    async def _asked(self, request: web.Request) -> web.Response:
        """What is wanted next."""
        reception = await self._reception(request, self._signing.proof(request))
        if reception.full:
            raise no_room()
        headers: dict[str, str] = {str(name): value for name, value in NO_STORE.items()} | {
            hdrs.LINK: f'<{request.path}>; rel="{RECEIPTS_RELATION}"'
        }
        if reception.wanted is not None:
            headers[OFFSET] = str(reception.wanted)
        return web.Response(status=204, headers=headers)

    async def _brought(self, request: web.Request) -> web.StreamResponse:
        proof, body = self._signing.proof(request), _Body(request)
        reception = await self._reception(request, proof)
        brought = await self._read(request, body, proof)
        try:
            answer = await reception.take(brought)
        finally:
            await body.end()
        response = _answer(answer)
        if brought.length and not brought.read:
            response.force_close()  # a body that was not read would be read as the next request
        return response

    async def _reception(self, request: web.Request, proof: Proof) -> Reception:
        """That of the transfer, if the token is its provider's, who has signed the request if it has to. Raises TokenRefused,
        SignatureRefused, Withdrawn, Busy."""
        pid = request.match_info["pid"]
        claims = self._tokens.check_access(bearer(request.headers.get(hdrs.AUTHORIZATION)), pid)
        process = await self._store.process(Kind.TRANSFER, pid)
        if process is None or process.role is not Role.CONSUMER or process.peer != claims.consumer:
            raise TokenRefused(NOT_VALID)
        demands = await self._demands(pid)
        if demands is None or SIGNED_REQUESTS in demands:  # an agreement that is not known may have demanded it
            proof.demand(process.peer)
        _demand_running(process)
        if (reception := self._receptions.of(pid)) is not None:
            return reception
        stored = await self._store.metered(pid)
        if stored is not None and stored.status == "complete" and stored.ack:  # its provider was killed before it knew
            return Reception(over=True)
        raise Busy("nobody waits for these data at the moment; come back", retry_seconds=RETRY_SECONDS)

    async def _read(self, request: web.Request, body: _Body, proof: Proof) -> Brought:
        """The request as what it brings. Raises InvalidRequest, UnsupportedMedia, TooLarge, TooSlow, SignatureRefused."""
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower() != "identity":
            raise UnsupportedMedia("send the data as they are, in no content encoding")
        length = request.content_length
        if length is None or request.headers.get(hdrs.TRANSFER_ENCODING):
            raise InvalidRequest("say with `Content-Length` how many bytes come")
        ack = request.headers.get(ACK)
        if ack is not None and len(ack) > OBJECT_CHARACTERS_MAX:
            raise TooLarge("the ack is longer than any")
        if ack is not None and not ack.isascii():
            raise InvalidRequest(f"`{ACK}` is no compact JWS: it has other characters than ASCII")
        said = request.headers.get(hdrs.CONTENT_RANGE, "").strip()
        headers = {name.lower(): value for name, value in request.headers.items()}
        if said.startswith(UNSATISFIED):
            size = said.removeprefix(UNSATISFIED)
            if not (size.isascii() and size.isdigit()) or len(size) > 18:  # noqa: PLR2004 - digits
                raise InvalidRequest("`Content-Range` does not say how large the data are")
            address = await _address(request, body, length, proof) if length else None
            return Brought(0, 0, int(size), _nothing(), headers, address, ack, read=True)
        whole = (0, length, length)  # all of them, by somebody who knows nothing of windows
        found = read_content_range(said) if said else whole
        if found is None or found[1] != length:
            raise InvalidRequest("`Content-Range` and `Content-Length` do not say the same")
        first, _, size_bytes = found
        brought = Brought(first, length, size_bytes, body.pieces(), headers, None, ack)
        if brought.alone:  # nothing proves its leaves
            headers.setdefault("repr-digest", headers.get(DIGEST, ""))  # the same of what is whole and in no encoding
            if proof.proven and length and read_repr_digest(headers["repr-digest"]) is None:
                raise SignatureRefused(UNNAMED, "content-digest-missing")
        return brought


def _demand_running(process: Process) -> None:
    if process.meant != State.STARTED:
        raise Withdrawn(f"the transfer is {process.meant}, data are taken while it is STARTED", f"transfer-{process.meant.lower()}")


async def _address(request: web.Request, pieces: _Body, length: int, proof: Proof) -> dict[str, Any]:
    """Where the manifest is to be had."""
    if request.content_type != "application/json":
        raise UnsupportedMedia("a request without data carries a `dataAddress` in JSON, or nothing")
    if length > ADDRESS_BYTES_MAX:
        raise TooLarge(f"a data address has {ADDRESS_BYTES_MAX} bytes at most")
    body = b"".join([piece async for piece in pieces.pieces()])
    proof.cover(body)
    try:
        address = orjson.loads(body)["dataAddress"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        address = None
    if not isinstance(address, dict):
        raise InvalidRequest("the body is no JSON with a `dataAddress`")
    return address


class _Body:
    """The body of a request as it comes, until it is answered: whoever reads it would wait for what never comes, and aiohttp reads the rest
    then."""

    def __init__(self, request: web.Request) -> None:
        self._content, self._over = request.content, False
        self._reading, self._patience = asyncio.Lock(), asyncio.timeout(None)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Raises TooSlow, ConnectionResetError."""
        while piece := await self._next():
            yield piece

    async def _next(self) -> bytes:
        async with self._reading:
            if self._over:
                raise ConnectionResetError("the request was answered before all of it was read")
            try:
                async with asyncio.timeout(STALL_SECONDS) as self._patience:
                    return await self._content.readany()
            except TimeoutError:
                if self._over:
                    raise ConnectionResetError("the request was answered before all of it was read") from None
                raise TooSlow(f"nothing came for {STALL_SECONDS:g} s") from None
            except RuntimeError:  # what aiohttp says of a connection that was lost while nobody read
                raise ConnectionResetError("the client is gone") from None

    async def end(self) -> None:
        """Returns once nobody reads any more."""
        self._over = True
        if self._reading.locked() and not self._patience.expired():
            self._patience.reschedule(0.0)
        async with self._reading:
            pass


async def _nothing() -> AsyncIterator[bytes]:
    for piece in tuple[bytes]():
        yield piece


def _answer(answer: Answer) -> web.Response:
    headers: dict[str, str] = {str(name): value for name, value in NO_STORE.items()} | (
        {OFFSET: str(answer.wanted)} if answer.wanted is not None else {}
    )
    if answer.receipt is not None:
        receipt = answer.receipt.encode("ascii")
        return web.Response(body=receipt, content_type=JWT, headers=headers | {DIGEST: content_digest(receipt)})
    return web.Response(status=409 if answer.conflict else 204, headers=headers)
