"""What all routes of the data listener share: the token, and errors as answers. Not the middleware of the other listeners: small reads are
many, and need neither its look at paths nor at bodies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web
from multidict import istr
from opentelemetry.trace import SpanKind

from connector import telemetry
from connector.api.middleware import again, problem
from connector.errors import ConnectorError, RangeNotSatisfiable, TokenRefused, answer_to, told

BEARER_CHARACTERS_MAX = 4096
TRACEPARENT = istr("traceparent")
NO_STORE = {hdrs.CACHE_CONTROL: "no-store"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answered(tracing: telemetry.Tracing, name: str, handler: Handler) -> Handler:
    """`handler` with its errors as answers. Not the middleware of the other listeners: small reads are many, and need
    neither its look at paths nor at bodies. A trace that the consumer began goes on here; a read begins none."""
    span = tracing.span

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            if (parent := request.headers.get(TRACEPARENT)) is None:
                return await handler(request)
            with span(f"data {name}", SpanKind.SERVER, parent, route=name):
                return await handler(request)
        except ConnectorError as error:
            return refusal(request, name, error)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:
            telemetry.log.error("defect", door="data", route=name, error=type(error).__name__, exc_info=error)
            return problem(request, ConnectorError("an error of this connector"), 500, "internal")

    return handle


def bearer(authorization: str | None) -> str:
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token or len(token) > BEARER_CHARACTERS_MAX:
        raise TokenRefused("send the access token as `Authorization: Bearer ...`")
    return token.strip()


def refusal(request: web.Request, name: str, error: ConnectorError) -> web.Response:
    status, code = answer_to(error)
    telemetry.log.info("refused", door="data", route=name, status=status, code=code, reason=error.message)
    error = told(error)
    response = again(problem(request, error, status, code), error)
    response.headers.update(NO_STORE)
    if isinstance(error, TokenRefused):
        # RFC 6750, 3.1: no error code for a request without any token.
        presented = request.headers.get(hdrs.AUTHORIZATION)
        challenge = f'Bearer error="invalid_token", error_description="{error.message}"' if presented else "Bearer"
        response.headers[hdrs.WWW_AUTHENTICATE] = challenge.replace("`", "'")
    if isinstance(error, RangeNotSatisfiable):
        response.headers[hdrs.CONTENT_RANGE] = f"bytes */{error.size_bytes}"
    return response


def not_allowed(allow: str) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        response = problem(request, ConnectorError(f"this method is not taken here; taken are {allow}"), 405, "http-405")
        response.headers[hdrs.ALLOW] = allow
        response.force_close()
        return response

    return handle


async def not_found(request: web.Request) -> web.Response:
    response = problem(request, ConnectorError("there is nothing at this address"), 404, "http-404")
    response.force_close()
    return response
