"""The management listener: typed JSON under `/v1` for operators and programs. Handlers decode, call a use case, encode."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any

from aiohttp import hdrs, web
from msgspec.structs import asdict

from connector.api import decisions_api, ledger_api, policies_api
from connector.api import management_shapes as shapes
from connector.api.middleware import Handler, Limits, read_body
from connector.api_management import billing_api, credit_api, events_api, evidence_api, index_api, pulls_api
from connector.api_management.doors import Doors
from connector.control.publish import Manifest
from connector.dataplane.edr import read_address
from connector.dsp import negotiation, transfer
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind
from connector.errors import Contradiction, IdempotencyConflict, InvalidRequest, NotAuthorized, NotFound
from connector.records import Idempotent

KEY_CHARACTERS_MAX = 200
STATES: Mapping[Kind, type[StrEnum]] = {Kind.NEGOTIATION: negotiation.State, Kind.TRANSFER: transfer.State}


def authorized(token_hash: Callable[[], bytes]) -> Any:
    """The middleware that lets in whoever holds the admin token; `token_hash` returns the SHA-256 of the one that counts now."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        given = hashlib.sha256(token.strip().encode(errors="surrogateescape")).digest()  # bytes that are no UTF-8 come in as that
        if scheme.lower() != "bearer" or not hmac.compare_digest(given, token_hash()):
            raise NotAuthorized(
                "this call needs the header `Authorization: Bearer` with the admin token that `connector init` or `connector token` showed"
            )
        return await handler(request)

    return middleware


class ManagementApi:
    """The handlers."""

    def __init__(self, doors: Doors, limits: Limits) -> None:
        self._d = doors
        self._limits = limits

    def add_to(self, app: web.Application) -> None:
        """Register all routes: the table is the API."""
        n, t = Kind.NEGOTIATION, Kind.TRANSFER
        table: tuple[tuple[str, str, Handler], ...] = (
            ("GET", "/self", self._self),
            ("GET", "/participants", self._participants),
            ("PUT", "/datasets/{id}", self._publish),
            ("GET", "/datasets/{id}", self._dataset),
            ("DELETE", "/datasets/{id}", self._withdraw),
            ("GET", "/datasets", self._datasets),
            ("POST", "/catalog", self._catalog),
            ("POST", "/catalog/dataset", self._catalog_dataset),
            ("POST", "/negotiations", self._negotiate),
            ("POST", "/negotiations/offers", self._offer),
            ("GET", "/processes/{id}", self._kind),
            ("GET", "/negotiations", self._processes(n)),
            ("GET", "/negotiations/{pid}", self._process(n)),
            ("POST", "/negotiations/{pid}/approve", self._approve),
            ("POST", "/negotiations/{pid}/counter", self._counter),
            ("POST", "/negotiations/{pid}/terminate", self._terminate(n)),
            ("GET", "/agreements", self._agreements),
            ("GET", "/agreements/{id}", self._agreement),
            ("POST", "/agreements/{id}/close", self._close_agreement),
            ("POST", "/transfers", self._transfer),
            ("GET", "/transfers", self._processes(t)),
            ("GET", "/transfers/{pid}", self._process(t)),
            ("GET", "/transfers/{pid}/edr", self._edr),
            ("POST", "/transfers/{pid}/suspend", self._suspend),
            ("POST", "/transfers/{pid}/resume", self._resume),
            ("POST", "/transfers/{pid}/complete", self._complete),
            ("POST", "/transfers/{pid}/terminate", self._terminate(t)),
            ("POST", "/pulls", self._order),
            ("GET", "/dead-letters", self._letters),
            ("POST", "/dead-letters/{id}/replay", self._replay),
            ("DELETE", "/dead-letters/{id}", self._discard),
            ("POST", "/reload", self._reload),
            *decisions_api.routes(self._d, self._limits),
            *policies_api.routes(self._d, self._limits),
            *billing_api.routes(self._d, self._limits),
            *credit_api.routes(self._d, self._limits),
            *events_api.routes(self._d),
            *pulls_api.routes(self._d, self._limits),
            *evidence_api.routes(self._d),
            *ledger_api.routes(self._d, self._limits),
        )
        for method, path, handler in (
            *table,
            index_api.route(table),
        ):  # an id of another is any text: a segment is all up to the next slash, braces too
            app.router.add_route(method, "/v1" + path.replace("{id}", "{id:[^/]+}"), handler)

    async def _body(self, request: web.Request, shape: type[Any]) -> Any:
        return shapes.decode(await read_body(request, self._limits) if request.can_read_body else b"", shape)

    async def _once(self, request: web.Request, body: bytes) -> Idempotent | None:
        """The idempotency key of a call as a record to save with its effect, or None. Raises IdempotencyConflict."""
        key = request.headers.get("Idempotency-Key")
        if key is None:
            return None
        if not key or len(key) > KEY_CHARACTERS_MAX or not key.isprintable():
            raise InvalidRequest(f"an idempotency key has 1 to {KEY_CHARACTERS_MAX} printable characters")
        digest = hashlib.sha256(request.path.encode() + b"\0" + body).digest()
        known = await self._d.store.idempotent(f"api:{key}")
        if known is not None and known.digest != digest:
            raise IdempotencyConflict(f"the idempotency key `{key}` was used with another body; use a new key for a new call")
        return known or Idempotent(f"api:{key}", digest, b"", self._d.journal.clock.now())

    async def _self(self, _request: web.Request) -> web.Response:
        return shapes.answer(shapes.participant_view(self._d.identity.own) | self._d.about)

    async def _participants(self, request: web.Request) -> web.Response:
        shapes.demand_known(request.query, "the list of participants", ())
        return shapes.answer({"items": [shapes.participant_view(p) for p in self._d.identity.participants()], "next": None})

    async def _publish(self, request: web.Request) -> web.Response:
        said: shapes.Publish = await self._body(request, shapes.Publish)
        manifest = Manifest(request.match_info["id"], **asdict(said))
        dataset, new = await self._d.publishing.publish(manifest)
        return shapes.answer(shapes.dataset_view(dataset), 201 if new else 200)

    async def _dataset(self, request: web.Request) -> web.Response:
        dataset = await self._d.store.dataset(request.match_info["id"])
        if dataset is None:
            raise NotFound(f"dataset `{request.match_info['id']}` is not published here")
        return shapes.answer(shapes.dataset_view(dataset))

    async def _withdraw(self, request: web.Request) -> web.Response:
        await self._d.publishing.withdraw(request.match_info["id"])
        return web.Response(status=204)

    async def _datasets(self, request: web.Request) -> web.Response:
        shapes.demand_known(request.query, "the list of datasets", shapes.PAGES)
        page = await self._d.store.datasets(after=request.query.get("after"), before=None, limit=shapes.limit_of(request.query))
        return shapes.answer({"items": [shapes.dataset_view(d) for d in page.items], "next": page.next})

    async def _catalog(self, request: web.Request) -> web.Response:
        said: shapes.CatalogQuery = await self._body(request, shapes.CatalogQuery)
        page = await self._d.catalogs.page(self._d.operations.participant(said.peer), said.after, said.filter)
        return shapes.answer({"catalog": page.catalog, "next": page.next, "left_out": page.left_out})

    async def _catalog_dataset(self, request: web.Request) -> web.Response:
        said: shapes.DatasetQuery = await self._body(request, shapes.DatasetQuery)
        return shapes.answer({"dataset": await self._d.catalogs.dataset(self._d.operations.participant(said.peer), said.dataset)})

    async def _negotiate(self, request: web.Request) -> web.Response:
        def begin(n: shapes.Negotiate, key: Idempotent | None) -> Awaitable[Process]:
            return self._d.operations.negotiate(**asdict(n), key=key)

        return await self._begin(request, shapes.Negotiate, Kind.NEGOTIATION, begin)

    async def _offer(self, request: web.Request) -> web.Response:
        offer = self._d.operations.offer
        return await self._begin(request, shapes.MakeOffer, Kind.NEGOTIATION, lambda o, key: offer(o.peer, o.dataset, o.offer, key))

    async def _transfer(self, request: web.Request) -> web.Response:
        transfer = self._d.operations.transfer
        return await self._begin(request, shapes.Transfer, Kind.TRANSFER, lambda t, key: transfer(t.agreement, t.format, key))

    async def _begin(
        self, request: web.Request, shape: type[Any], kind: Kind, begin: Callable[[Any, Idempotent | None], Awaitable[Process]]
    ) -> web.Response:
        """A call that begins a process; under a key that was used it finds the one that it began then."""
        body = await read_body(request, self._limits)
        said = shapes.decode(body, shape)
        key = await self._once(request, body)
        if key is not None and key.answer:
            return self._begun(await self._known(kind, key.answer.decode()))
        return self._begun(await begin(said, key))

    def _begun(self, process: Process) -> web.Response:
        part = "transfers" if process.kind is Kind.TRANSFER else "negotiations"
        return shapes.answer(self._view(process), 201, {hdrs.LOCATION: f"/v1/{part}/{process.pid}"})

    def _view(self, process: Process) -> dict[str, Any]:
        return shapes.process_view(process, self._d.outbox.last_errors.get(process.pid))

    async def _known(self, kind: Kind, pid: str) -> Process:
        await self._d.journal.settled(pid)
        process = await self._d.store.process(kind, pid)
        if process is None:
            raise NotFound(f"there is no {kind} `{pid}`")
        return process

    async def _kind(self, request: web.Request) -> web.Response:
        """What a process is, of whose pid nobody remembers that, and which of ours: statements, evidence and the operator over there name
        it by the pid of the peer."""
        pid = request.match_info["id"]
        await self._d.journal.settled(pid)
        for kind in Kind:
            if await self._d.store.process(kind, pid) is not None:
                return shapes.answer({"kind": kind, "pid": pid})
        peers = [each.id for each in self._d.identity.participants()]
        found = [p for kind in Kind for peer in peers if (p := await self._d.store.process_of_peer(kind, peer, pid)) is not None]
        if len(found) > 1:  # a peer gives its processes what names it likes, also that of another peer's: nobody knows which is meant
            ours = ", ".join(f"`{process.pid}`" for process in found)
            raise Contradiction(f"`{pid}` is the peer's pid of {len(found)} processes; name the one that is meant by ours: {ours}")
        if found:
            return shapes.answer({"kind": found[0].kind, "pid": found[0].pid})
        raise NotFound(f"there is no negotiation or transfer `{pid}`")

    def _processes(self, kind: Kind) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            shapes.demand_known(request.query, f"the list of {kind}s", {*shapes.PAGES, "state", "peer"})
            peer = request.query.get("peer")
            page = await self._d.store.processes(
                kind,
                after=request.query.get("after"),
                limit=shapes.limit_of(request.query),
                state=shapes.one_of(request.query, "state", tuple(STATES[kind])),
                peer=self._d.operations.participant(peer).id if peer else None,
            )
            return shapes.answer({"items": [self._view(p) for p in page.items], "next": page.next})

        return handle

    def _process(self, kind: Kind) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            shapes.demand_known(request.query, f"one {kind}", ("wait", "timeout_seconds"))
            pid, wait = request.match_info["pid"], request.query.get("wait")
            if wait is None:
                return shapes.answer(self._view(await self._known(kind, pid)))
            if wait not in ("final", "started"):
                raise InvalidRequest(f"`wait` is `{wait[:40]}`; it is `final` or `started`")

            def settled(process: Process) -> bool:
                return process.final or bool(process.detail.get("waiting")) or (wait == "started" and process.state == "STARTED")

            process = await self._d.feed.wait(kind, pid, settled, shapes.seconds_of(request.query.get("timeout_seconds")))
            if process is None:
                raise NotFound(f"there is no {kind} `{pid}`")
            return shapes.answer(self._view(process))

        return handle

    async def _approve(self, request: web.Request) -> web.Response:
        return shapes.answer(self._view(await self._d.operations.approve(request.match_info["pid"])))

    async def _counter(self, request: web.Request) -> web.Response:
        said: shapes.Counter = await self._body(request, shapes.Counter)
        return shapes.answer(self._view(await self._d.operations.counter(request.match_info["pid"], said.policy)))

    def _terminate(self, kind: Kind) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            said: shapes.Reason = await self._body(request, shapes.Reason)
            return shapes.answer(self._view(await self._d.operations.terminate(kind, request.match_info["pid"], said.reason)))

        return handle

    async def _suspend(self, request: web.Request) -> web.Response:
        said: shapes.Reason = await self._body(request, shapes.Reason)
        return shapes.answer(self._view(await self._d.operations.suspend(request.match_info["pid"], said.reason)))

    async def _resume(self, request: web.Request) -> web.Response:
        return shapes.answer(self._view(await self._d.operations.resume(request.match_info["pid"])))

    async def _complete(self, request: web.Request) -> web.Response:
        return shapes.answer(self._view(await self._d.operations.complete(request.match_info["pid"])))

    async def _agreements(self, request: web.Request) -> web.Response:
        shapes.demand_known(request.query, "the list of agreements", {*shapes.PAGES, "peer", "dataset"})
        peer = request.query.get("peer")
        page = await self._d.store.agreements(
            peer=self._d.operations.participant(peer).id if peer else None,
            dataset=request.query.get("dataset"),
            after=request.query.get("after"),
            limit=shapes.limit_of(request.query),
        )
        return shapes.answer({"items": [shapes.agreement_view(a) for a in page.items], "next": page.next})

    async def _agreement(self, request: web.Request) -> web.Response:
        agreement = await self._d.store.agreement(request.match_info["id"])
        if agreement is None:
            raise NotFound(f"there is no agreement `{request.match_info['id']}`")
        counters = await self._d.operations.counters(agreement)
        closing = await self._d.bills.closing(agreement)
        return shapes.answer(shapes.agreement_view(agreement) | closing | ({"counters": counters} if counters else {}))

    async def _close_agreement(self, request: web.Request) -> web.Response:
        said: shapes.Reason = await self._body(request, shapes.Reason)
        closed = await self._d.operations.close(request.match_info["id"], said.reason)
        return shapes.answer(shapes.agreement_view(closed) | await self._d.bills.closing(closed, wait=True))

    async def _edr(self, request: web.Request) -> web.Response:
        process = await self._known(Kind.TRANSFER, request.match_info["pid"])
        edr = await self._d.store.edr(process.pid)
        if process.state != "STARTED" or edr is None:
            raise Contradiction(f"transfer `{process.pid}` is in state {process.state} and has no data address to use now")
        view = {"endpoint": read_address(edr.address).endpoint, "authorization": edr.access_token, "expires": shapes.instant(edr.expires)}
        return shapes.answer(view, headers={hdrs.CACHE_CONTROL: "no-store"})

    async def _order(self, request: web.Request) -> web.Response:
        body = await read_body(request, self._limits)
        said: shapes.OrderPull = shapes.decode(body, shapes.OrderPull)
        key = await self._once(request, body)
        if key is not None and key.answer:
            known = await self._d.store.pull(key.answer.decode())
            if known is not None:
                return shapes.answer(shapes.pull_view(known), 201, {hdrs.LOCATION: f"/v1/pulls/{known.id}"})
        pull = await self._d.pulls.order(
            said.peer, said.dataset, said.out, said.purposes, key, parallel=said.parallel, most_bytes=said.most_bytes,
            seconds=said.seconds, push=said.push, range=said.range,
        )  # fmt: skip
        return shapes.answer(shapes.pull_view(pull), 201, {hdrs.LOCATION: f"/v1/pulls/{pull.id}"})

    async def _letters(self, request: web.Request) -> web.Response:
        shapes.demand_known(request.query, "the list of dead letters", shapes.PAGES)
        page = await self._d.store.dead_letters(after=request.query.get("after"), limit=shapes.limit_of(request.query))
        return shapes.answer({"items": [shapes.letter_view(row) for row in page.items], "next": page.next})

    async def _replay(self, request: web.Request) -> web.Response:
        id = request.match_info["id"]
        if not await self._d.letters.replay(id):
            letter = await self._d.store.outbound(id)  # after that: another operator may have taken it in hand meanwhile
            if letter is None or not letter.dead:
                raise Contradiction(f"there is no dead letter `{id}`")
            process = await self._d.store.process(letter.kind, letter.pid)
            if process is not None and process.in_flight is not None:
                raise Contradiction(f"`{process.in_flight}` of its {letter.kind} has no answer yet; replay it when that has one")
            now = f"is {process.state} now" if process is not None else "is gone"
            raise Contradiction(f"its {letter.kind} {now}, where `{letter.move}` has no place; `connector discard {id}` drops it")
        return shapes.answer({"replayed": id})

    async def _discard(self, request: web.Request) -> web.Response:
        if not await self._d.letters.discard(request.match_info["id"]):
            raise NotFound(f"there is no dead letter `{request.match_info['id']}`")
        return web.Response(status=204)

    async def _reload(self, _request: web.Request) -> web.Response:
        return shapes.answer({"changed": await self._d.reload()})
