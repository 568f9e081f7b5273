"""The routes of the data listener beside the bytes: manifest, checkpoint, header leaf and tiles of the content log, and receipts.

They stand behind the same gate as the bytes. Receipts are taken as long as the token is one for the transfer, also after it was
suspended or has ended: what was verified can be signed for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import hdrs, web
from msgspec import Struct

from connector import telemetry
from connector.api.data_answers import NO_STORE, Signing, answered, bearer, not_allowed, proof_of
from connector.api.middleware import problem
from connector.api_streams.live_api import LiveApi
from connector.dataplane.accounts import Accounts
from connector.dataplane.gate import Gate, Permit
from connector.dataplane.opened import OpenSources
from connector.dataplane.possession import Proof
from connector.dataplane.receipts import Answered, Receipts
from connector.dataplane.stream import Representations
from connector.dataplane_accounts.account import Account
from connector.dataplane_live.lives import Lives
from connector.errors import (
    ConnectorError,
    MeterRefused,
    NotFound,
    ProofRefused,
    SinkFailed,
    TokenRefused,
    TooLarge,
    TooSlow,
    UnsupportedMedia,
    Withdrawn,
)
from connector.merkle.tiles import WIDTH, read_path
from connector.merkle.tree import HASH_BYTES
from connector.metering.chain import Outcome
from connector.odrl.codes import Code
from connector.signatures.jws import OBJECT_CHARACTERS_MAX

LISTED: Final = r"/sealed/{first:[1-9]\d{0,17}}-{end:[1-9]\d{0,17}}"
JWT, NOTE, OCTETS = "application/jwt", "text/plain", "application/octet-stream"
RECEIPT_SECONDS: Final = 10.0  # for a body of some 600 bytes
# (method, path below `/data/{pid}`, other methods)
ALLOWED: Final = {"/manifest": "GET, HEAD", "/checkpoint": "GET, HEAD", "/header": "GET, HEAD", "/receipts": "GET, HEAD, POST"}
# Refusals of a receipt that fits the account as the sender knows it, but not as it is; all others are about the receipt itself.
AGAINST_STATE: Final = frozenset(
    {"sequence-gap", "previous-other", "account-complete", "account-disputed", "account-late", "account-credited", "account-stated"}
    | {"manifest-missing", "ledger-suspected"}
)
# Code of why nothing more may leave -> the state of an ack; any other one is "revoked".
STATES: Final = {Code.QUOTA_EXHAUSTED: "quota", "transfer-suspended": "suspended", "transfer-completed": "ok"}


class Metering(Struct):
    """What the data listener needs to meter: `url` is its own address, as others use it. `lives` are the transfers of live data."""

    accounts: Accounts
    receipts: Receipts
    url: str
    lives: Lives | None = None

    def link(self, transfer: str) -> str:
        """The `Link` header of an answer with data (RFC 8288): where its manifest is."""
        return f'<{self.url}/data/{transfer}/manifest>; rel="describedby"; type="{JWT}"'


class MeteringApi:
    """The handlers. `opened` and `representations` are those of the bytes."""

    def __init__(
        self,
        metering: Metering,
        gate: Gate,
        opened: OpenSources[Any],
        representations: Representations,
        tracing: telemetry.Tracing,
        signing: Signing | None,
        live: LiveApi | None = None,
    ) -> None:
        self._live = live
        self._accounts, self._receipts = metering.accounts, metering.receipts
        self._gate, self._signing = gate, signing
        self._opened, self._representations = opened, representations
        self._tracing = tracing

    def add_to(self, app: web.Application) -> None:
        """Register the routes. They need no middleware."""
        routes: tuple[tuple[str, str, Callable[[web.Request], Awaitable[web.StreamResponse]]], ...] = (
            ("GET", "/manifest", self._manifest),
            ("GET", "/checkpoint", self._checkpoint),
            ("GET", "/header", self._header),
            ("GET", "/tile/{path:.+}", self._tile),
            ("GET", "/receipts", self._last),
            ("POST", "/receipts", self._take),
        )
        if self._live is not None:
            routes = (*routes, ("GET", LISTED, self._sealed))
        for method, path, handler in routes:
            for each in (method, "HEAD") if method == "GET" else (method,):
                app.router.add_route(each, f"/data/{{pid}}{path}", answered(self._tracing, f"{method} /data/{{pid}}{path}", handler))
        for path, allow in (ALLOWED | {"/tile/{path:.+}": "GET, HEAD", LISTED: "GET, HEAD"}).items():
            app.router.add_route("*", f"/data/{{pid}}{path}", not_allowed(allow))

    async def _permit(self, request: web.Request) -> Permit:
        token = bearer(request.headers.get(hdrs.AUTHORIZATION))
        return await self._gate.permit(token, request.match_info["pid"], proof_of(self._signing, request))

    async def _account(self, request: web.Request) -> Account:
        """The account that a request is about, behind the gate."""
        permit = await self._permit(request)
        if self._live is not None and self._live.serves(permit):
            return (await self._live.account(permit))[1]
        return await self._finite(permit)

    async def _finite(self, permit: Permit) -> Account:
        """The account of a transfer of data that have an end."""
        async with self._opened.use(permit) as (source, stat):
            representation = await self._representations.of(permit, source, stat)
        if representation.log is None:
            raise NotFound("these data have no content log")
        return await self._accounts.of(permit, representation.log)

    async def _manifest(self, request: web.Request) -> web.Response:
        """What we promise of the data, signed."""
        account = await self._account(request)
        return _answer(JWT, (await self._accounts.manifest(account, shown=True)).encode("ascii"))

    async def _checkpoint(self, request: web.Request) -> web.Response:
        permit = await self._permit(request)  # once: a signature holds for one look
        if self._live is not None and self._live.serves(permit):
            return await self._live.checkpoint(request, permit)
        account = await self._finite(permit)
        return _answer(NOTE, self._accounts.checkpoint(account.log, permit.stages))

    async def _sealed(self, request: web.Request) -> web.Response:
        """The list beside the log of live data."""
        if self._live is None or not self._live.serves(permit := await self._permit(request)):
            raise NotFound("the leaves of these data are all full, so that nobody lists them")
        return await self._live.sealed(request, permit)

    async def _header(self, request: web.Request) -> web.Response:
        """Leaf 0, whose hash is the first of the first tile."""
        account = await self._account(request)
        return _answer("application/json", account.log.header)

    async def _tile(self, request: web.Request) -> web.Response:
        """Hashes of the content log (C2SP tlog-tiles)."""
        account = await self._account(request)
        try:
            tile = read_path(f"tile/{request.match_info['path']}")
        except ProofRefused as error:
            raise NotFound(error.message) from None
        found = account.log.hashes(tile.level, tile.index * WIDTH, tile.width) if tile.level >= 0 else b""
        if len(found) != tile.width * HASH_BYTES:
            raise NotFound(f"the content log of {account.log.leaves} leaves has no `{tile.path}`")
        return _answer(OCTETS, found)

    async def _take(self, request: web.Request) -> web.Response:
        """A receipt, which is answered by its ack."""
        transfer = request.match_info["pid"]
        ask, proof = await self._demand_party(request)
        body = await _object(request)
        if proof is not None:
            proof.cover(body)
        receipt = _jws(body)
        try:
            taken = await self._taken(transfer, receipt, await self._state(ask))
        except MeterRefused as error:
            taken = Answered(Outcome.REFUSED, "", error.code, error.message)
        return _answer(JWT, taken.ack.encode("ascii")) if not taken.code else _refused(request, taken)

    async def _taken(self, transfer: str, receipt: str, state: str) -> Answered:
        """`Receipts.take`, once more where the index of the data could not be read: for who asks for them it is opened anew, or made, and
        who signs last asks for nothing any more."""
        try:
            return await self._receipts.take(transfer, receipt, state)
        except SinkFailed:
            account = self._accounts.at_hand(transfer)
            if account is None or account.log.root is None:
                raise
            await self._finite(account.permit)
        return await self._receipts.take(transfer, receipt, state)

    async def _last(self, request: web.Request) -> web.Response:
        """What a consumer takes up again that has lost its own."""
        await self._demand_party(request)
        try:
            found = await self._receipts.last(request.match_info["pid"])
        except MeterRefused as error:
            raise NotFound(error.message) from None
        return _answer("application/json", orjson.dumps(found))

    async def _demand_party(self, request: web.Request) -> tuple[Callable[[], Awaitable[Permit]], Proof | None]:
        """Look at the token, which has to be one for this transfer, and at the signature if the agreement demands one; whether the
        transfer runs is no matter. Returns what asks the gate for more, and what the request proves."""
        proof = proof_of(self._signing, request)
        held = bearer(request.headers.get(hdrs.AUTHORIZATION)), request.match_info["pid"], proof
        await self._gate.party(*held)
        return partial(self._gate.permit, *held), proof

    async def _state(self, ask: Callable[[], Awaitable[Permit]]) -> str:
        """What an ack says of the transfer: whether, and why not, more of it may leave."""
        try:
            await ask()
        except Withdrawn as error:
            return STATES.get(error.code, "revoked")
        except TokenRefused:  # of a start before the last one, or what it was for is not published any more
            return "revoked"
        return "ok"


def _answer(media_type: str, body: bytes) -> web.Response:
    return web.Response(body=body, content_type=media_type, headers=NO_STORE)


def _refused(request: web.Request, taken: Answered) -> web.Response:
    """Why a receipt was not accepted, with the latest ack: whoever has lost it goes on from there (RFC 9457)."""
    against = taken.outcome in (Outcome.STALE, Outcome.CONFLICT) or taken.code in AGAINST_STATE
    status = HTTPStatus.CONFLICT if against else HTTPStatus.UNPROCESSABLE_ENTITY
    telemetry.log.info("receipt refused", transfer=request.match_info["pid"], code=taken.code)
    response = problem(request, ConnectorError(taken.message), status, taken.code)
    document = orjson.loads(response.body if isinstance(response.body, bytes) else b"{}")
    response.body = orjson.dumps(document | {"code": taken.code, "ack": taken.ack or None})
    response.headers.update(NO_STORE)
    return response


async def _object(request: web.Request) -> bytes:
    """A body that is to be a JWS. Raises UnsupportedMedia, TooLarge, TooSlow."""
    if request.content_type != JWT or request.headers.get(hdrs.CONTENT_ENCODING):
        raise UnsupportedMedia(f"send the receipt as `{JWT}`, not encoded")
    body = bytearray()
    try:
        async with asyncio.timeout(RECEIPT_SECONDS):
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > OBJECT_CHARACTERS_MAX:
                    raise TooLarge(f"a receipt has {OBJECT_CHARACTERS_MAX} bytes at most")
    except TimeoutError:
        raise TooSlow(f"the receipt did not arrive within {RECEIPT_SECONDS:g} s") from None
    return bytes(body)


def _jws(body: bytes) -> str:
    try:
        return body.decode("ascii").strip()
    except UnicodeDecodeError:
        raise MeterRefused("the receipt is not a compact JWS: it has other characters than ASCII", "jws-parts") from None
