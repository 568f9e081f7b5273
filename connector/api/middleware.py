"""What every request meets on its way in and out: a body within its limits, a trace, one place where errors become answers, and an answer
that leaves in one write."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import orjson
from aiohttp import hdrs, web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion10
from aiohttp.web_response import REASON_PHRASES
from msgspec import Struct
from multidict import CIMultiDict

from connector import telemetry
from connector.errors import (
    Busy,
    ConnectorError,
    PolicyError,
    SettingsError,
    SourceFailed,
    TooLarge,
    TooSlow,
    UnsupportedMedia,
    WireError,
    answer_to,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Nowhere = Callable[[web.Request], Awaitable[None]]
Render = Callable[[web.Request, ConnectorError, int, str], web.Response]
JSON = "application/json"
JSON_TYPES = (JSON, "application/ld+json")
IDS_OF_OTHERS = (
    *("/datasets/{id}", "/agreements/{id}", "/processes/{id}"),
    *("/v1/negotiations/{pid}", "/v1/transfers/{pid}", "/v1/pulls/{id}"),  # ours, for which an operator may take one of a peer
)
FORBIDDEN_IN_PATH = re.compile(r"//|%2f|%5c|%00|;|\\|/\.\.?/", re.IGNORECASE)
ORIGIN = re.compile(r"https?://[^/?]*", re.IGNORECASE)  # before the path, where a whole address is asked for (RFC 9112, 3.2.2)
FORBIDDEN_EVERYWHERE = re.compile(r"//|%00|\\|/\.\.?/")

NAMED = re.compile(r"\(\?P<\w+>")  # where a variable begins in a pattern of aiohttp's: in one of many routes, names would stand twice
VARIABLE = "{"  # where the first one begins in a path as it was registered


class Limits(Struct):
    """What one request may cost: bytes of body, seconds for the body to arrive. Changes with the settings while it is used."""

    body_bytes: int
    body_seconds: float


async def read_body(request: web.Request, limits: Limits, types: tuple[str, ...] = JSON_TYPES) -> bytes:
    """The whole body, counted by what arrives, of one of these media types. Raises TooLarge, TooSlow, UnsupportedMedia.

    No decompression here: a compressed body is a way to send more than its length says.
    """
    headers, content = request.headers, request.content
    encoding = headers.get(hdrs.CONTENT_ENCODING, "identity").lower()
    if encoding != "identity":
        raise UnsupportedMedia(f"content encoding `{encoding[:40]}` is not taken; send the body as it is")
    if headers.get(hdrs.CONTENT_TYPE) not in types and request.content_type not in types:
        raise UnsupportedMedia(f"media type `{request.content_type[:80]}` is not taken; send {' or '.join(types)}")
    if content.is_eof():  # all of it is here, as of most messages: nothing is waited for
        whole = content.read_nowait()
        if len(whole) > limits.body_bytes:
            raise TooLarge(f"the body of {len(whole)} bytes is over the limit of {limits.body_bytes}")
        return whole
    if (length := request.content_length) is not None and length > limits.body_bytes:
        raise TooLarge(f"the body of {length} bytes is over the limit of {limits.body_bytes}")
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            while chunk := await content.readany():
                body += chunk
                if len(body) > limits.body_bytes:
                    raise TooLarge(f"the body is over the limit of {limits.body_bytes} bytes")
    except TimeoutError:
        raise TooSlow(f"the body did not arrive within {limits.body_seconds:g} s") from None
    return bytes(body)


class Whole(web.Response):
    """An answer of JSON that stays as it is. For any method but HEAD.

    aiohttp asks of every answer on its way out whether it is to be compressed, cut into chunks or made of a file, and what hooks have to
    say of it: a hundredth of a negotiation, which has six. What puts its head together and sends it are ten functions more.
    """

    def __init__(self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        # What `StreamResponse` sets, without `Response`'s questions of what `body` is.
        self._state, self._headers, self._status, self._reason = {}, CIMultiDict(headers or ()), status, REASON_PHRASES[status]
        self._headers[hdrs.CONTENT_TYPE] = JSON
        self._body = self._whole = body

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write all of it. Raises ConnectionError if the peer is gone, ValueError for a header that would be two."""
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        version, writer, wire = request.version, request.writer, request.transport
        head = f"HTTP/{version.major}.{version.minor} {self._status} {self._reason}\r\nContent-Length: {len(self._whole)}\r\n"
        if self._keep_alive is (version == HttpVersion10):  # what the version does not say by itself (RFC 9112, 9.3)
            head += "Connection: keep-alive\r\n" if self._keep_alive else "Connection: close\r\n"
        for name, value in self._headers.items():
            if not (line := f"{name}: {value}").isprintable():
                raise ValueError(f"the header `{name}` of an answer has characters that a header cannot have")
            head += line + "\r\n"
        sent = f"{head}Date: {rfc822_formatted_time()}\r\n\r\n".encode() + self._whole
        if wire is None or wire.is_closing():
            raise ConnectionResetError
        wire.write(sent)
        writer.output_size += len(sent)  # from now on no other answer can follow
        await writer.drain()
        self._eof_sent = True

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


async def _nobody_asks(_request: web.Request) -> None:
    """At most doors, who asks for an address that leads nowhere need not say who it is."""


def guard(
    tracing: telemetry.Tracing, door: str, render: Render, nowhere: Nowhere = _nobody_asks
) -> Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]:
    """The middleware of a listener: `door` names it in spans, `render` gives its errors their form, `nowhere` may raise something
    else for an address that leads nowhere.

    An error of the tree becomes its answer; anything else is a defect: it is logged with its trace and answered with 500,
    which says nothing but the trace.
    """

    names: dict[web.AbstractRoute, str] = {}

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        route = request.match_info.route
        if (name := names.get(route)) is None:
            name = f"{request.method} unknown"  # whose route is of this request alone
            if route.resource is not None:
                name = names[route] = f"{route.method} {route.resource.canonical}"
        with tracing.span(f"{door} {name}", telemetry.SpanKind.SERVER, request.headers.get("traceparent"), route=name) as trace:
            try:
                try:
                    if FORBIDDEN_IN_PATH.search(_sent_path(request)) and not _escaped_id(request):
                        raise web.HTTPNotFound
                    return await handler(request)
                except web.HTTPNotFound:
                    await nowhere(request)
                    raise
            except ConnectorError as e:
                status, code = answer_to(e)
                # What is wrong with the form of a message or a file is for both sides; other reasons may speak of persons.
                more = {"reasons": e.reasons} if isinstance(e, WireError | SettingsError) and e.reasons != (e.message,) else {}
                say = telemetry.log.warning if isinstance(e, SourceFailed) else telemetry.log.info  # who asked has done nothing wrong
                say("refused", door=door, route=name, status=status, code=code, reason=e.message, **more)
                return _close_if_unread(request, again(render(request, e, status, code), e))
            except web.HTTPException as e:
                taken = ", ".join(e.headers.get(hdrs.ALLOW, "").split(","))
                error = ConnectorError(
                    {
                        404: "there is nothing at this address",
                        405: f"this method is not taken here; taken are {taken}",
                    }.get(e.status, e.reason)
                )
                response = render(request, error, e.status, f"http-{e.status}")
                if hdrs.ALLOW in e.headers:
                    response.headers[hdrs.ALLOW] = e.headers[hdrs.ALLOW]
                return _close_if_unread(request, response)
            except (asyncio.CancelledError, ConnectionResetError):
                raise
            except Exception as e:
                telemetry.log.error("defect", door=door, route=name, error=type(e).__name__, exc_info=e)
                return render(request, ConnectorError(f"an error of this connector; trace {trace[3:35]}"), 500, "internal")

    return middleware


def _escaped_id(request: web.Request) -> bool:
    """Ids of datasets are IRIs, and those of agreements, and of a peer's own processes, are what a peer chose: they travel
    percent-encoded in one segment. Only their routes, and those below them, take an escaped slash."""
    resource = request.match_info.route.resource
    return (
        resource is not None
        and any(f"{place}/" in f"{resource.canonical}/" for place in IDS_OF_OTHERS)
        and not FORBIDDEN_EVERYWHERE.search(_sent_path(request))
    )


def target_of(request: web.BaseRequest) -> str:
    """Path and query as they were sent, with their escapes, also by who asked for a whole address."""
    target = request.raw_path
    return target if target.startswith("/") else ORIGIN.sub("", target, count=1)


def _sent_path(request: web.Request) -> str:
    return target_of(request).partition("?")[0]


def _close_if_unread(request: web.Request, response: web.Response) -> web.Response:
    """A body that was refused unread would be read as the next request: the connection ends with the answer."""
    if request.can_read_body and not request.content.at_eof():
        response.force_close()
    return response


class Running:
    """The requests that a door is at: `count` of them. `Straight` counts."""

    def __init__(self) -> None:
        self.count = 0
        self.last: asyncio.Event | None = None  # set when none runs any more, if somebody waits for that

    async def finish(self, seconds: float) -> None:
        """Wait until none runs, but no longer than this."""
        if not self.count:
            return
        self.last = asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.last.wait()


class Way(NamedTuple):
    """Where a route leads: its `handler` within the middlewares, and the names of its variables."""

    route: web.AbstractRoute
    handler: Handler
    names: tuple[str, ...]


class Straight:
    """The handler of all requests of `app`: the straight way, past aiohttp's router, which asks one resource after the other, and past its
    chain of middlewares, which it looks up anew each time. That is a tenth of what a message costs at the door.

    Each route of `app` has one method, `middlewares` are its own, the first one outermost, and `otherwise` is its own handler: for whatever
    no route is for, escapes in a path, and a client that waits for `100`. What `running` says counts all of them.
    """

    def __init__(self, app: web.Application, middlewares: Sequence[Any], otherwise: Handler, running: Running) -> None:
        self._app, self._apps, self._otherwise, self._running = app, [app], otherwise, running
        self._plain: dict[tuple[str, str], Way] = {}  # (method, path) -> way
        self._ways: dict[int, Way] = {}  # the group of the pattern that is a whole request -> way
        texts: list[tuple[str, str, web.AbstractRoute]] = []
        for route in app.router.routes():
            if (resource := route.resource) is None:
                continue
            info = resource.get_info()
            if "path" in info:
                self._plain[route.method, info["path"]] = self._way(route, middlewares, ())
            elif "pattern" in info:
                texts.append((resource.canonical.partition(VARIABLE)[0].rpartition("/")[0], info["pattern"].pattern, route))
        pattern, groups = [], 0
        for _, text, route in sorted(texts, key=lambda each: -len(each[0])):  # as aiohttp has it: what begins the same the longest is first
            compiled = re.compile(text)
            self._ways[groups + 1] = self._way(route, middlewares, tuple(compiled.groupindex))
            groups += 1 + compiled.groups
            pattern.append(f"({route.method} {NAMED.sub('(', text)})")
        self._pattern = re.compile("|".join(pattern) or "(?!)")

    @staticmethod
    def _way(route: web.AbstractRoute, middlewares: Sequence[Any], names: tuple[str, ...]) -> Way:
        handler = route.handler
        for each in reversed(middlewares):
            handler = partial(each, handler=handler)
        return Way(route, handler, names)

    def find(self, method: str, path: str) -> tuple[Way, dict[str, str]] | None:
        """The way for a path without escapes, and its variables; None where aiohttp has to look."""
        if (way := self._plain.get((method, path))) is not None:
            return way, {}
        found = self._pattern.fullmatch(f"{method} {path}") if "%" not in path else None
        if found is None or (whole := found.lastindex) is None:
            return None
        way = self._ways[whole]
        return way, dict(zip(way.names, found.groups()[whole:], strict=False))

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """The answer to a request."""
        running = self._running
        running.count += 1
        try:
            found = self.find(request.method, request.rel_url.raw_path)
            if found is None or hdrs.EXPECT in request.headers:
                return await self._otherwise(request)
            way, variables = found
            request._match_info = info = web.UrlMappingMatchInfo(variables, way.route)
            info._apps, info._current_app = self._apps, self._app  # what `add_app` does
            return await way.handler(request)
        finally:
            running.count -= 1
            if running.last is not None and not running.count:
                running.last.set()


def again(response: web.Response, error: ConnectorError) -> web.Response:
    """The answer to an error, with the time of another try where that makes sense (RFC 9110, 10.2.3)."""
    if isinstance(error, Busy):
        response.headers[hdrs.RETRY_AFTER] = str(error.retry_seconds)
    return response


def problem(request: web.Request, error: ConnectorError, status: int, code: str) -> web.Response:
    """RFC 9457 problem details."""
    trace = telemetry.traceparent.get()
    document = {
        "type": f"urn:qiao:problem:{code}",
        "title": code.replace("-", " "),
        "status": status,
        "detail": error.message,
        "reasons": list(error.reasons),
        "trace": trace[3:35] if trace else None,
    }
    if pointer := getattr(error, "pointer", ""):
        document["pointer"] = pointer
    if isinstance(error, PolicyError):
        document["findings"] = [finding.to_json() for finding in error.findings]
    headers = {hdrs.WWW_AUTHENTICATE: "Bearer"} if status == 401 else None  # noqa: PLR2004
    return web.Response(status=status, body=orjson.dumps(document), content_type="application/problem+json", headers=headers)
