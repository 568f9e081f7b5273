"""The protocol listener: the endpoints of DSP 2025-1 for both roles, bytes in and bytes out, nothing decided here.

One router serves both roles under one base, since every process knows its own role. The order of the checks is: who is
calling, which process is meant and is it the caller's, and only then what the body says.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

import orjson
from aiohttp import hdrs, web

from connector.api.middleware import Limits, Whole, read_body
from connector.control.catalog import Catalog
from connector.control.outbox import Outbox
from connector.control.policies import ASIDE_BYTES
from connector.control.receive import Receiver
from connector.dsp import filters, wire
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Message, Move
from connector.dsp.schemas import Schemas
from connector.errors import ConnectorError, InvalidRequest, Unauthenticated, told
from connector.lasting import aside
from connector.ports import Caller, Expander, Identity
from connector.values import Value

PATH = "/dsp/2025-1"
# gzip in a list of codings, in lower case, unless its weight is zero, however many digits that has (RFC 9110, 12.4.2 and 12.5.3).
GZIP = re.compile(r"\s*gzip\s*(?:;\s*q\s*=\s*(?!0(?:\.0*)?\s*$)[0-9.]+\s*)?")
GZIP_BYTES_MIN = 1024  # below, a compressed answer is no smaller
GZIP_ASIDE_BYTES = 128 * 1024  # what takes longer than some 2 ms is compressed in a thread: a full page took 39 ms
NOT_FOUND = 404
MESSAGE = web.RequestKey("message", Message)  # what was read, for the pids of an error that follows
PROCESS = web.RequestKey("process", Process)  # the caller's, to which the address belongs
NEW_KEYS = "if the peer has new keys, put its self-description as it is now into our registry, and `connector reload`"

# Path below the base and what the body may be. Those below a process are tried one after the other: first what each negotiation needs.
ROUTES: tuple[tuple[str, tuple[Move, ...]], ...] = (
    ("/negotiations/request", (Move.CONTRACT_REQUEST,)),
    ("/negotiations/offers", (Move.CONTRACT_OFFER,)),
    ("/negotiations/{pid}/agreement", (Move.CONTRACT_AGREEMENT,)),
    ("/negotiations/{pid}/agreement/verification", (Move.VERIFICATION,)),
    ("/negotiations/{pid}/events", (Move.ACCEPTED, Move.FINALIZED)),
    ("/negotiations/{pid}/request", (Move.CONTRACT_REQUEST,)),
    ("/negotiations/{pid}/offers", (Move.CONTRACT_OFFER,)),
    ("/negotiations/{pid}/termination", (Move.CONTRACT_TERMINATION,)),
    ("/transfers/request", (Move.TRANSFER_REQUEST,)),
    ("/transfers/{pid}/start", (Move.START,)),
    ("/transfers/{pid}/suspension", (Move.SUSPENSION,)),
    ("/transfers/{pid}/completion", (Move.COMPLETION,)),
    ("/transfers/{pid}/termination", (Move.TRANSFER_TERMINATION,)),
)


class Description(Value):
    """What this connector says about itself at its well-known addresses."""

    versions: bytes
    participant: Callable[[], Mapping[str, Any]]


class DspApi:
    """The handlers. `page_datasets` is the size of a catalog page; `admit` raises while no transfer may begin here, `ready` waits for what
    policies need, `read_ahead` reads a large policy of a message: both beside the loop."""

    def __init__(
        self,
        receiver: Receiver,
        catalog: Catalog,
        outbox: Outbox,
        identity: Identity,
        schemas: Schemas,
        expander: Expander,
        limits: Limits,
        page_datasets: int,
        description: Description,
    ) -> None:
        self._receiver = receiver
        self._catalog = catalog
        self._outbox = outbox
        self._identity = identity
        self._schemas = schemas
        self._expander = expander
        self._limits = limits
        self.page_datasets = page_datasets
        self.admit: Callable[[], None] = lambda: None
        self.ready: Callable[[], Awaitable[None]] = _at_once
        self.read_ahead: Callable[[Mapping[str, Any]], Awaitable[object]] = _not_read
        self._description = description

    def add_to(self, app: web.Application) -> None:
        """Register all routes."""
        add = app.router.add_route
        for path, moves in ROUTES:
            add("POST", PATH + path, self._message(moves))
        add("GET", PATH + "/negotiations/{pid}", self._state(Kind.NEGOTIATION))
        add("GET", PATH + "/transfers/{pid}", self._state(Kind.TRANSFER))
        for method in ("GET", "POST"):
            add(method, PATH + "/catalog/request", self._page)
        add("GET", PATH + "/catalog/datasets/{id}", self._dataset)
        for method in ("GET", "HEAD"):  # what is there for everybody is looked at by monitors too
            add(method, "/.well-known/dspace-version", self._versions)
            add(method, "/.well-known/participant.jsonld", self._participant)

    async def caller(self, request: web.Request) -> Caller:
        """Who sends a request, as it proves with it. Raises Unauthenticated."""
        caller = await self._identity.verify(request.headers.get(hdrs.AUTHORIZATION))
        self._outbox.sign_of_life(caller.participant.id)
        return caller

    async def nowhere(self, request: web.Request) -> None:
        """What an address below processes says that leads nowhere: who cannot prove who it is hears that first, as at every
        other one there, so that none of their 404s differs. Raises Unauthenticated."""
        if _kind(request) is not None:
            await self.caller(request)

    def _message(self, moves: tuple[Move, ...]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            pid = request.match_info.get("pid")
            try:
                caller = await self.caller(request)
            except Unauthenticated as error:
                if pid is not None:  # whoever says our pid is its counterparty, or has heard of it from that one
                    self._outbox.unheard(pid, f"what came for it was not taken: {error.message}; {NEW_KEYS}")
                raise
            if pid is not None:
                request[PROCESS] = await self._receiver.find(caller, moves[0].kind, pid)
            if Move.TRANSFER_REQUEST in moves:
                self.admit()
            message = wire.read(await self._document(request, moves[0].type, caller), moves)
            request[MESSAGE] = message
            await self.ready()
            answer = await self._receiver.message(caller, message, pid)
            return Whole(answer.body, answer.status)

        return handle

    async def _document(self, request: web.Request, type_: str, caller: Caller) -> Mapping[str, Any]:
        """The body as a compact, valid document of this `@type`, whatever form of JSON-LD it has."""
        body = await read_body(request, self._limits)
        asked = body, type_, self._schemas
        found = wire.parse(*asked) if len(body) <= ASIDE_BYTES else await aside(wire.parse, *asked)  # the largest take 30 ms
        if isinstance(found, wire.NeedsExpansion):
            found = await self._expander.compact(body, type_, caller.participant.id)
        if len(body) > ASIDE_BYTES and isinstance(terms := found.get("offer", found.get("agreement")), Mapping):
            await self.read_ahead(terms)
        return found

    def _state(self, kind: Kind) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            caller = await self.caller(request)
            answer = await self._receiver.state(caller, kind, request.match_info["pid"])
            return Whole(answer.body, answer.status)

        return handle

    async def _page(self, request: web.Request) -> web.Response:
        """DSP 2025-1, catalog request; the links of a page may be followed by GET and POST alike."""
        caller = await self.caller(request)
        asked = filters.Asked()
        if request.method == "POST":
            document = await self._document(request, "CatalogRequestMessage", caller)
            asked = filters.read(document.get("filter"))
        if not asked.conditions and (text := request.query.get("filter")):  # a link of ours has it, also for who posts to it without one
            linked = filters.read_text(text)
            asked = filters.Asked(linked.conditions, asked.offset or linked.offset, asked.limit or linked.limit)
        after, before = request.query.get("after"), request.query.get("before")
        if sum((after is not None, before is not None, asked.offset > 0)) > 1:
            raise InvalidRequest("a page lies after one dataset, before one or behind so many, not more than one of these")
        limit = asked.limit or self.page_datasets
        await self.ready()
        if asked.offset or (asked.limit and after is None and before is None):
            page = await self._catalog.counted(caller, offset=asked.offset, limit=limit, filters=asked.conditions)
        else:
            page = await self._catalog.page(caller, after=after, before=before, limit=limit, filters=asked.conditions)
        response = web.Response(body=page.body, content_type="application/json")
        more = f"&filter={filters.text(asked.conditions)}" if asked.conditions else ""
        links = [(page.next, "after", "next"), (page.previous, "before", "previous")]
        for cursor, name, relation in links:
            if cursor is not None:
                # Nothing but the query: it is right under whatever path a proxy puts this connector (RFC 3986, 5.2.2).
                response.headers.add(hdrs.LINK, f'<?{name}={quote(cursor, safe="")}{more}>; rel="{relation}"')
        return await _compressed(request, response)

    async def _dataset(self, request: web.Request) -> web.Response:
        caller = await self.caller(request)
        await self.ready()
        body = await self._catalog.dataset(caller, request.match_info["id"])
        return await _compressed(request, web.Response(body=body, content_type="application/json"))

    async def _versions(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._description.versions, content_type="application/json")

    async def _participant(self, _request: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(self._description.participant()), content_type="application/ld+json")


async def _at_once() -> None:
    """Nothing has to be waited for."""


async def _not_read(_document: Mapping[str, Any]) -> None:
    """Who decides on a policy reads it."""


def render(request: web.Request, error: ConnectorError, status: int, code: str) -> web.Response:
    """Errors in the form of the protocol.

    Negotiation and transfer hide what exists: no process, someone else's, a malformed pid and a caller without a valid
    identity are all 404 with an empty body (DSP 2025-1, HTTPS binding, authorization); what was wrong with an identity is said
    in `WWW-Authenticate`, alike for every address. The catalog's error body is mandatory.
    """
    kind = _kind(request)
    headers = {hdrs.WWW_AUTHENTICATE: _challenge(error)} if isinstance(error, Unauthenticated) else None
    if kind is not None and (isinstance(error, Unauthenticated) or status == NOT_FOUND):
        return web.Response(status=404, headers=headers)
    consumer_pid, provider_pid = _pids(request)
    document = wire.error_document(kind, code, told(error).reasons, consumer_pid, provider_pid)
    return web.Response(status=status, body=orjson.dumps(document), content_type="application/json", headers=headers)


def _kind(request: web.Request) -> Kind | None:
    """Whose process the address speaks of, if any."""
    path = request.path.removeprefix(PATH)
    return Kind.NEGOTIATION if path.startswith("/negotiations") else Kind.TRANSFER if path.startswith("/transfers") else None


def _pids(request: web.Request) -> tuple[str, str]:
    """What can be said about the pids of an error: what the message said, else those of the process that its address belongs to, else an
    identifier that names nothing; the schema demands both (DSP 2025-1, error messages)."""
    said = request.get(MESSAGE) or request.get(PROCESS)
    nothing = "urn:uuid:00000000-0000-0000-0000-000000000000"
    return (said.consumer_pid or nothing, said.provider_pid or nothing) if said is not None else (nothing, nothing)


def _challenge(error: ConnectorError) -> str:
    text = "".join(c for c in error.message if c.isascii() and c.isprintable() and c not in '"\\')[:200]
    return f'Bearer error="invalid_token", error_description="{text}"'


async def _compressed(request: web.Request, response: web.Response) -> web.Response:
    accepts = request.headers.get(hdrs.ACCEPT_ENCODING, "")
    body = response.body
    if isinstance(body, bytes) and len(body) >= GZIP_BYTES_MIN:
        response.headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
        if any(GZIP.fullmatch(part) for part in accepts.lower().split(",")):
            response.body = _gzip(body) if len(body) < GZIP_ASIDE_BYTES else await aside(_gzip, body)
            response.headers[hdrs.CONTENT_ENCODING] = "gzip"
    return response


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()


def version_document(service: str, own: str) -> bytes:
    """DSP 2025-1, version metadata: one version, one binding. `own` is our DID; its method is the kind of our identifiers."""
    entry = {
        "version": "2025-1",
        "path": PATH,
        "binding": "HTTPS",
        "serviceId": service,
        "identifierType": ":".join(own.split(":")[:2]),
        "auth": {"protocol": "OAuth", "version": "2", "profile": ["self-issued-eddsa"]},
    }
    return orjson.dumps({"protocolVersions": [entry]})
