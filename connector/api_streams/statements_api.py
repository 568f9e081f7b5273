"""Statements at the protocol listener, for the participants that they concern: `GET` and `POST /ledger/statements/{transfer}` at the end of
a transfer, by the provider's pid, `POST /ledger/statements/{transfer}/receipt` for a receipt that a crash has kept until then, and
`POST /ledger/statements` for a period of an agreement; and beside them, at `POST /ledger/closings`,
that an agreement was closed.

Whoever proves to be the other side is heard, whatever has become of the access token of the transfer by then.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from time import monotonic
from typing import Any, Final

import orjson
from aiohttp import hdrs, web

from connector.api.middleware import Limits, problem, read_body
from connector.control_billing.closings import PATH as CLOSINGS
from connector.control_billing.closings import Closings
from connector.control_billing.statements import Statements
from connector.errors import MeterRefused, TooMany
from connector.ports import Caller
from connector.remembered import Paces

PATH: Final = "/ledger/statements"
JWT: Final = "application/jwt"
AT_ONCE, SECONDS, PEERS_MAX = 64, 1.0, 10_000  # statements of one peer: each is two entries of our ledger
NO_STORE: Final = {hdrs.CACHE_CONTROL: "no-store"}


class StatementsApi:
    """The handlers. `caller` proves who sends a request, or raises Unauthenticated."""

    def __init__(self, statements: Statements, closings: Closings, caller: Callable[[web.Request], Any], limits: Limits) -> None:
        self._statements, self._closings, self._caller, self._limits = statements, closings, caller, limits
        self._paces: Paces[str] = Paces(AT_ONCE, SECONDS, PEERS_MAX)

    def add_to(self, app: web.Application) -> None:
        """Register all routes."""
        app.router.add_route("GET", f"{PATH}/{{transfer}}", self._show)
        app.router.add_route("POST", f"{PATH}/{{transfer}}", self._hear)
        app.router.add_route("POST", f"{PATH}/{{transfer}}/receipt", self._late)
        app.router.add_route("POST", PATH, self._answer)
        app.router.add_route("POST", CLOSINGS, self._close)

    async def _show(self, request: web.Request) -> web.Response:
        """What both compare: our last receipt and ack, and our statement."""
        caller: Caller = await self._caller(request)
        found = await self._statements.shown(caller.participant.id, request.match_info["transfer"])
        return web.Response(body=orjson.dumps(dict(found)), content_type="application/json", headers=NO_STORE)

    async def _hear(self, request: web.Request) -> web.Response:
        """The consumer's own statement: agreed or disputed, it is on record."""
        caller, token = await self._sent(request)
        outcome = await self._statements.hear(caller, request.match_info["transfer"], token)
        said = {"outcome": outcome.word, "code": outcome.code or None}
        return web.Response(body=orjson.dumps(said), content_type="application/json", headers=NO_STORE)

    async def _late(self, request: web.Request) -> web.Response:
        """A receipt for a transfer that is over, which is answered by its ack."""
        caller, token = await self._sent(request)
        ack = await self._statements.late(caller, request.match_info["transfer"], token)
        return web.Response(body=ack.encode("ascii"), content_type=JWT, headers=NO_STORE)

    async def _answer(self, request: web.Request) -> web.Response:
        """A statement for a period, which is answered by ours."""
        caller, token = await self._sent(request)
        own = await self._statements.answer(caller, token)
        return web.Response(body=own.encode("ascii"), content_type=JWT, headers=NO_STORE)

    async def _close(self, request: web.Request) -> web.Response:
        """A closing, and our signed answer to it, with our own closing in it if we have closed the agreement, too. What is refused for good
        is answered with a problem document (RFC 9457) that has the signed answer for its member `ack`."""
        caller, token = await self._sent(request)
        heard = await self._closings.hear(caller, token)
        if not heard.code:
            return web.Response(body=heard.ack.encode("ascii"), content_type=JWT, headers=NO_STORE)
        response = problem(request, MeterRefused(heard.message, heard.code), HTTPStatus.UNPROCESSABLE_ENTITY, heard.code)
        document = orjson.loads(response.body if isinstance(response.body, bytes) else b"{}")
        response.body = orjson.dumps(document | {"code": heard.code, "ack": heard.ack})
        response.headers.update(NO_STORE)
        return response

    async def _sent(self, request: web.Request) -> tuple[str, str]:
        caller: Caller = await self._caller(request)
        if not self._paces.take(caller.participant.id, monotonic()):
            raise TooMany("statements come faster than they are put on record here; send fewer")
        body = await read_body(request, self._limits, (JWT,))
        try:
            return caller.participant.id, body.decode("ascii").strip()
        except UnicodeDecodeError:
            raise MeterRefused("what was sent is not a compact JWS: it has other characters than ASCII", "jws-parts") from None
