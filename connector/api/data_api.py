"""The data listener: `GET` and `HEAD /data/{transfer pid}`, and `POST /token`, which renews access tokens (RFC 6749, 6).

What may be read is judged in `connector.dataplane`; this is HTTP. A stream that is cut ends with its connection, short of the
length that it announced, so that nobody takes it for the whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, nullcontext
from functools import partial
from urllib.parse import parse_qs

import orjson
from aiohttp import hdrs, web
from multidict import CIMultiDict, istr

from connector import telemetry
from connector.api.bulk_door import way_out
from connector.api.data_answers import (
    ACCEPT_SIGNATURE,
    NO_STORE,
    Signing,
    answered,
    bearer,
    cut_short,
    not_allowed,
    not_found,
    proof_of,
    signs,
    to_sign,
)
from connector.api.metering_api import Metering, MeteringApi
from connector.api.middleware import problem
from connector.api_streams.live_api import LiveApi
from connector.dataplane import bulk, ranges
from connector.dataplane.edr import Tokens
from connector.dataplane.flows import Flows
from connector.dataplane.gate import Gate, Permit
from connector.dataplane.logs import Logs
from connector.dataplane.meter import Meters
from connector.dataplane.opened import OpenSources
from connector.dataplane.ranges import Plan, Span
from connector.dataplane.renewal import renew
from connector.dataplane.stream import STALL_SECONDS, Representation, Representations, by_file, pieces, read_small, stream
from connector.dataplane_accounts.account import Account
from connector.errors import ConnectorError, TooLarge, TooSlow
from connector.ports import Identity, Source, Sources
from connector.values import Value

SMALL_BYTES = 64 * 1024  # what an asyncio transport buffers before it makes the writer wait: as much as any answer may hold
FORM_BYTES_MAX = 16 * 1024  # a renewal has about 1 KiB
FORM_SECONDS = 10.0
FORM_FIELDS_MAX = 16
FORM_TYPE = "application/x-www-form-urlencoded"
REPR_DIGEST = istr("Repr-Digest")


class _Small(Value):
    """A whole representation that is small enough to stay in memory as long as its source is open, and whose account it is."""

    representation: Representation
    body: bytes
    headers: CIMultiDict[str]
    account: Account | None


class DataApi:
    """The handlers. `sources` maps a source type to what opens it; a client that takes no piece for `stall_seconds` is cut.
    `bulk_threads` carry large answers under TLS. Without `signing` nothing is signed, and what an agreement demands to be signed is
    not served."""

    def __init__(
        self,
        gate: Gate,
        flows: Flows,
        tokens: Tokens,
        identity: Identity,
        sources: Mapping[str, Sources],
        tracing: telemetry.Tracing,
        meters: Meters,
        *,
        stall_seconds: float = STALL_SECONDS,
        bulk_threads: int = bulk.THREADS,
        logs: Logs | None = None,
        metering: Metering | None = None,
        signing: Signing | None = None,
    ) -> None:
        self._gate, self._flows, self._tokens, self._identity, self._meters = gate, flows, tokens, identity, meters
        self._opened: OpenSources[_Small] = OpenSources(sources)
        self._representations = Representations(self._opened, logs)
        self._metering, self._signing = metering, signing
        self._live = None
        if metering is not None and metering.lives is not None:
            note = signing.note if signing is not None else None
            self._live = LiveApi(metering.lives, metering.accounts, flows, meters, metering.link, note, stall_seconds=stall_seconds)
        self._tracing = tracing
        self._stall_seconds = stall_seconds
        self._threads = bulk.Threads(bulk_threads)

    def add_to(self, app: web.Application) -> None:
        """Register all routes; whatever else is asked gets a problem document too. They need no middleware."""
        app.on_cleanup.append(self._close)
        if self._signing is not None:
            app.on_response_prepare.append(self._signing.sign)
        add = app.router.add_route
        for method in ("GET", "HEAD"):
            add(method, "/data/{pid}", answered(self._tracing, "GET /data/{pid}", self._read))
        if self._metering is not None:
            shared = (self._gate, self._opened, self._representations, self._tracing, self._signing)
            MeteringApi(self._metering, *shared, self._live).add_to(app)
        add("POST", "/token", answered(self._tracing, "POST /token", self._renew))
        add("*", "/data/{pid}", not_allowed("GET, HEAD"))
        add("*", "/token", not_allowed("POST"))
        add("*", "/{anything:.*}", not_found)

    async def _close(self, _app: web.Application) -> None:
        await asyncio.to_thread(self._threads.close)
        await self._opened.close()

    async def _read(self, request: web.Request) -> web.StreamResponse:
        """Serve the dataset of a transfer, or a part of it."""
        transfer = request.match_info["pid"]
        token = bearer(request.headers.get(hdrs.AUTHORIZATION))
        ask = partial(self._gate.permit, token, transfer, proof_of(self._signing, request))
        permit = await ask()
        self._flows.demand()
        if self._live is not None and self._live.serves(permit):
            return await self._live.read(request, ask, permit)
        plain = request.method == hdrs.METH_GET and not _conditional(request) and not permit.tallies
        if plain and (small := await self._opened.kept(permit)) is not None and not permit.lease.stale and not _bound(small.account):
            if small.account is not None and self._signing is not None:
                self._signing.note(request, permit, small.account)
            self._sent_small(transfer, small.representation, Span(0, len(small.body), len(small.body)), small.account)
            return web.Response(body=small.body, headers=small.headers)
        use = self._opened.use(permit)
        async with use as (source, stat):
            representation = await self._representations.of(permit, source, stat)
            plan = _plan(request, representation)
            if permit.lease.stale:  # something about the transfer was committed while the source was opened
                permit = await ask()
            account = await self._account_of(permit, representation)
            headers = _headers(representation)
            if account is not None and self._metering is not None:
                headers[hdrs.LINK] = self._metering.link(transfer)
            if plan.status == 206:  # noqa: PLR2004 - a status
                headers[hdrs.CONTENT_RANGE] = plan.span.content_range
            if plan.status == 412:  # noqa: PLR2004 - a status
                return problem(request, ConnectorError("the data is not what `If-Match` names"), 412, "precondition-failed")
            if plan.status == 304:  # noqa: PLR2004 - a status
                del headers[hdrs.CONTENT_TYPE]
                return web.Response(status=304, headers=headers)
            if plan.status == 206 and _continues(request, plan):  # noqa: PLR2004 - a status
                self._flows.holds(transfer, representation.etag, plan.span.first, plan.span.size_bytes)
            if request.method == hdrs.METH_HEAD:
                headers[hdrs.CONTENT_LENGTH] = str(plan.span.length)
                return web.Response(status=plan.status, headers=headers)
            if account is not None and self._metering is not None:
                account.demand()
                if self._signing is not None:
                    self._signing.note(request, permit, account)
                # A ledger that cannot be written stops the transfer before its first byte.
                await self._metering.accounts.manifest(account, signs=signs(request))
            if plan.span.length > SMALL_BYTES or (permit.tallies and plan.span.length):
                return await self._send_large(request, ask, permit, representation, plan, source, headers, account)
            # One answer that is written at once and waits for nobody: there is no stream that could be cut.
            body = await read_small(source, permit.stages, plan.span)
            if account is not None:
                await account.allow_all(plan.span.first, plan.span.length)
            if permit.lease.stale:
                permit = await ask()
            if plain:
                use.keep(_Small(representation, body, headers, account))
            self._sent_small(transfer, representation, plan.span, account)
            return web.Response(status=plan.status, body=body, headers=headers)

    async def _account_of(self, permit: Permit, representation: Representation) -> Account | None:
        if self._metering is None or representation.log is None:
            return None
        return await self._metering.accounts.of(permit, representation.log)

    def _sent_small(self, transfer: str, representation: Representation, span: Span, account: Account | None) -> None:
        """An answer that is written at once is one call, and takes no time."""
        self._flows.sent(transfer, representation.etag, span.first, span.length, span.size_bytes)
        if account is not None and self._metering is not None:
            with account.running():
                account.sent(span.first, span.length)
            self._metering.accounts.written_soon(account)

    async def _send_large(
        self,
        request: web.Request,
        ask: Callable[[], Awaitable[Permit]],
        permit: Permit,
        representation: Representation,
        plan: Plan,
        source: Source,
        headers: CIMultiDict[str],
        account: Account | None,
    ) -> web.StreamResponse:
        span = plan.span
        response = web.StreamResponse(status=plan.status, headers=headers)
        response.content_length = span.length
        outlet = way_out(request, response, self._threads, span.length, self._stall_seconds)

        def sent(first: int, length: int) -> None:
            self._flows.sent(permit.transfer, representation.etag, first, length, span.size_bytes)
            if account is not None:
                account.sent(first, length)

        calls = 0 if account is None else account.calls
        at = representation.etag, span.first
        meter = self._meters.meter(permit, span.length, representation.media_type, calls, at) if permit.tallies else None
        copy = partial(stream, sent=sent, stall_seconds=self._stall_seconds, meter=meter, credit=account)
        try:
            # A quota that is used up, or a source that cannot even begin, is an answer with its own status, not a cut.
            async with meter or nullcontext():
                if permit.lease.stale:  # something about the transfer was committed while the meter waited
                    permit = await ask()
                bounds = (permit.not_after, permit.not_after_code, permit.counted_until, permit.agreement)
                with self._flows.running(permit.transfer, *bounds) as running:
                    if account is not None:
                        await account.allow(span.first, 1)
                    async with aclosing(pieces(source, permit.stages, span)) as output:
                        direct = by_file(permit, source, outlet) and not (meter and meter.reads)
                        begun = None if direct else _chain(await anext(output), output)
                        await response.prepare(request)
                        with _running(account), outlet.corked(request.transport):
                            await copy(permit, source, span, outlet, begun, still=running.demand)
                        await response.write_eof()
        except Exception as error:  # whatever it is: once bytes have gone out, an answer of its own would stand in the middle of them
            if not response.prepared:
                raise
            return cut_short(request, response, permit, error, meter)
        finally:
            if account is not None and self._metering is not None:
                self._metering.accounts.written_soon(account)
        return response

    async def _renew(self, request: web.Request) -> web.Response:
        """Renew an access token; errors are OAuth's own."""
        try:
            parameters, body = await _form(request)
        except (ValueError, TooLarge, TooSlow) as error:
            status, answer = 408 if isinstance(error, TooSlow) else 400, {"error": "invalid_request", "error_description": str(error)}
        else:
            authorization = request.headers.get(hdrs.AUTHORIZATION)
            proof = proof_of(self._signing, request)
            status, answer = await renew(
                parameters, authorization, identity=self._identity, gate=self._gate, tokens=self._tokens, proof=proof, body=body
            )
        headers = NO_STORE
        if status == 401:  # noqa: PLR2004 - a status
            headers = NO_STORE | {hdrs.WWW_AUTHENTICATE: "Bearer", ACCEPT_SIGNATURE: to_sign(request)}
        response = web.Response(status=status, body=orjson.dumps(answer), content_type="application/json", headers=headers)
        if not request.content.at_eof():
            response.force_close()  # a body that was refused unread would be read as the next request
        return response


def _bound(account: Account | None) -> bool:
    return account is not None and account.bound


def _running(account: Account | None) -> AbstractContextManager[None]:
    return nullcontext() if account is None else account.running()


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


def _conditional(request: web.Request) -> bool:
    headers = request.headers
    return hdrs.RANGE in headers or hdrs.IF_NONE_MATCH in headers or hdrs.IF_MATCH in headers


def _continues(request: web.Request, plan: Plan) -> bool:
    """Whether this is the rest of what the client has already: `Range: bytes=N-`, with `If-Range`, which held."""
    return plan.span.first > 0 and hdrs.IF_RANGE in request.headers and request.headers.get(hdrs.RANGE, "").strip().endswith("-")


def _plan(request: web.Request, representation: Representation) -> Plan:
    return ranges.plan(
        representation.size_bytes,
        representation.etag,
        # RFC 9110, 14.2: Range is defined for GET only.
        range_=_joined(request, hdrs.RANGE) if request.method == hdrs.METH_GET else None,
        if_range=_joined(request, hdrs.IF_RANGE),
        if_match=_joined(request, hdrs.IF_MATCH),
        if_none_match=_joined(request, hdrs.IF_NONE_MATCH),
    )


def _joined(request: web.Request, name: str) -> str | None:
    values = request.headers.getall(name, None)
    return ", ".join(values) if values else None


def _headers(representation: Representation) -> CIMultiDict[str]:
    headers = CIMultiDict(
        {
            hdrs.CONTENT_TYPE: representation.media_type,
            hdrs.ETAG: representation.etag,
            hdrs.ACCEPT_RANGES: "bytes",
            hdrs.CACHE_CONTROL: "no-store",
        }
    )
    if representation.sha256 is not None:
        headers[REPR_DIGEST] = ranges.write_repr_digest(representation.sha256)
    return headers


async def _form(request: web.Request) -> tuple[dict[str, list[str]], bytes]:
    """The parameters of the body and of the query (some consumers send them there), and the body. Raises ValueError, TooLarge, TooSlow."""
    if request.content_type not in (FORM_TYPE, "application/octet-stream") or request.headers.get(hdrs.CONTENT_ENCODING):
        raise ValueError(f"send the parameters as `{FORM_TYPE}`, without a `Content-Encoding`")
    body = bytearray()
    try:
        async with asyncio.timeout(FORM_SECONDS):
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > FORM_BYTES_MAX:
                    raise TooLarge(f"the form is over the limit of {FORM_BYTES_MAX} bytes")
    except TimeoutError:
        raise TooSlow(f"the form did not arrive within {FORM_SECONDS:g} s") from None
    try:
        text = body.decode("ascii")
        parameters = parse_qs(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=FORM_FIELDS_MAX, errors="strict")
        for name in request.query:
            parameters[name] = [*parameters.get(name, []), *request.query.getall(name)]
    except ValueError:
        said = f"at most {FORM_FIELDS_MAX} pairs `name=value`, in ASCII, joined by `&`"
        raise ValueError(f"the form cannot be read; it is {said}, such as `grant_type=refresh_token&refresh_token=...`") from None
    return parameters, bytes(body)
