"""The ledger over HTTP: hashes, proofs and checkpoints for every participant, bodies for those whom they concern; and all of it for our
operators.

At the protocol listener, below `/ledger`, whoever proves who it is gets checkpoints, tiles and proofs: salted, they say nothing but
how many entries there are. Bundles would show each peer what the others do, so there are none; an entry is shown to the
participant that the fact is about, and is not there for anybody else. At the management listener, below `/v1/ledger`, stands the whole
log as C2SP tlog-tiles has it, and beside it what may be erased.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any

from aiohttp import hdrs, web

from connector.api.management_shapes import answer, instant, number_of
from connector.api.middleware import Handler, Limits, Render, problem, read_body
from connector.api_management.doors import Doors
from connector.errors import InvalidRequest, NotFound, ProofRefused
from connector.ledger.book import Book
from connector.ledger.reading import log_of, prove_consistency, prove_entry, read_bundle, read_entry, read_tile
from connector.merkle import notes, tiles
from connector.merkle.tree import SIZE_MAX
from connector.ports import Caller
from connector.records.ledger import Entry, Log, Witnessed

PATH = "/ledger"
TEXT, BYTES = "text/plain", "application/octet-stream"
ENTRIES, ENTRIES_MAX = 50, 256  # entries in an answer unless asked, and at most
WIDTH_MAX_AGE = 31_536_000  # seconds: a full tile never changes
NOTE_TYPES = (TEXT, BYTES)  # curl and the standard's own clients say either, or nothing

Called = Callable[[web.Request], Any]


class LedgerApi:
    """The handlers at the protocol listener. `caller` proves who sends a request, or raises Unauthenticated."""

    def __init__(self, book: Book, caller: Called, limits: Limits) -> None:
        self._book, self._caller, self._limits = book, caller, limits

    def add_to(self, app: web.Application) -> None:
        """Register all routes."""
        for method, path, handler in (
            ("GET", "/checkpoint", self._checkpoint),
            ("GET", "/tile/{path:.+}", self._tile),
            ("GET", "/proof/{index}", self._proof),
            ("GET", "/consistency/{old}/{size}", self._consistency),
            ("GET", "/entries/{index}", self._entry),
            ("POST", "/witness/add-checkpoint", self._add),
            ("GET", "/witness/checkpoint", self._shown),
        ):
            app.router.add_route(method, PATH + path, handler)

    async def _checkpoint(self, request: web.Request) -> web.Response:
        await self._caller(request)
        _, note = await self._book.shown(request.query.get("origin"))
        return web.Response(body=note.encode(), content_type=TEXT, charset="utf-8", headers={hdrs.CACHE_CONTROL: "no-store"})

    async def _tile(self, request: web.Request) -> web.Response:
        await self._caller(request)
        log = await log_of(self._book.store, request.query.get("origin"))
        return _tile_answer(await read_tile(self._book.store, log, _tile(request)), _tile(request))

    async def _proof(self, request: web.Request) -> web.Response:
        await self._caller(request)
        return await prove(self._book, request)

    async def _consistency(self, request: web.Request) -> web.Response:
        await self._caller(request)
        log = await log_of(self._book.store, request.query.get("origin"))
        old, size = (number_of(name, request.match_info[name], 0, SIZE_MAX) for name in ("old", "size"))
        hashes = await prove_consistency(self._book.store, log, old, size)
        return web.Response(body=b"".join(b64encode(node) + b"\n" for node in hashes), content_type=TEXT)

    async def _entry(self, request: web.Request) -> web.Response:
        """The exact bytes of an entry, for the participant that it is about."""
        caller: Caller = await self._caller(request)
        log = await log_of(self._book.store, request.query.get("origin"))
        index = number_of("index", request.match_info["index"], 0, SIZE_MAX)
        try:
            entry = await read_entry(self._book.store, log, index)
        except NotFound:
            entry = None
        if entry is None or entry.peer != caller.participant.id:
            raise NotFound(f"the log has no entry {index} that concerns `{caller.participant.id}`")
        return web.Response(body=entry.body, content_type=BYTES)

    async def _add(self, request: web.Request) -> web.Response:
        """C2SP tlog-witness, `add-checkpoint`."""
        caller: Caller = await self._caller(request)
        body = await read_body(request, self._limits, NOTE_TYPES)
        said = await self._book.witness.add(caller.participant.id, body)
        return web.Response(status=said.status, body=said.body, headers={hdrs.CONTENT_TYPE: said.media_type})

    async def _shown(self, request: web.Request) -> web.Response:
        """The newest checkpoint of the caller's own log that we have: for a log that has lost it."""
        caller: Caller = await self._caller(request)
        origin = request.query.get("origin")
        if origin is None:
            raise InvalidRequest("say of which log: `?origin=`")
        note = await self._book.witness.shown(caller.participant.id, origin)
        return web.Response(body=note.encode(), content_type=TEXT, charset="utf-8", headers={hdrs.CACHE_CONTROL: "no-store"})


def rendered(otherwise: Render) -> Render:
    """Errors below `/ledger` are problem documents (RFC 9457), others have the form of the protocol."""

    def render(request: web.Request, error: Any, status: int, code: str) -> web.Response:
        return (problem if request.path.startswith(f"{PATH}/") else otherwise)(request, error, status, code)

    return render


def routes(doors: Doors, _limits: Limits) -> tuple[tuple[str, str, Handler], ...]:
    """Method, path and handler of each call of the management API."""
    api = _Operators(doors)
    return (
        ("GET", "/ledger", api.show),
        ("GET", "/ledger/entries", api.entries),
        ("GET", "/ledger/proof/{index}", api.proof),
        ("GET", "/ledger/tile/{path:.+}", api.tile),
        ("POST", "/ledger/witnesses/{id}", api.exchange),
        ("POST", "/ledger/witnesses/{id}/forgive", api.forgive),
        ("DELETE", "/events/{sequence}/detail", api.erase),
    )


class _Operators:
    def __init__(self, doors: Doors) -> None:
        self._d = doors

    async def show(self, _request: web.Request) -> web.Response:
        """All logs, the keys that sign them, and who has witnessed what."""
        logs = await self._d.book.store.logs()
        ours = {log.origin for log in logs}
        own = self._d.book.sequencer.keys()
        rows = await self._d.book.store.witnesses()
        return answer(
            {
                "logs": [_log(log) | {"keys": [notes.VerifierKey(log.origin, key).vkey for key in own]} for log in logs],
                "cosigned": [_witnessed(row) for row in rows if row.origin in ours],
                "witnessed": [_witnessed(row) for row in rows if row.origin not in ours],
                "waiting": [
                    {"peer": peer, "since": instant(each.since), "reason": each.reason}
                    for peer, each in sorted(self._d.book.witnesses.waiting.items())
                ],
                "fault": self._d.book.sequencer.fault,
            }
        )

    async def entries(self, request: web.Request) -> web.Response:
        """Entries from `?first=` on, with what stands outside of them."""
        log = await log_of(self._d.book.store, request.query.get("origin"))
        first = number_of("first", request.query.get("first", "0"), 0, SIZE_MAX)
        limit = number_of("limit", request.query.get("limit", str(ENTRIES)), 1, ENTRIES_MAX)
        found = await self._d.book.store.entries(log.number, first, limit)
        return answer({"origin": log.origin, "size": log.size, "items": [_entry(entry) for entry in found]})

    async def proof(self, request: web.Request) -> web.Response:
        return await prove(self._d.book, request)

    async def tile(self, request: web.Request) -> web.Response:
        """A tile of hashes or a bundle of entries (C2SP tlog-tiles)."""
        log = await log_of(self._d.book.store, request.query.get("origin"))
        tile = _tile(request)
        read = read_bundle if tile.level < 0 else read_tile
        return _tile_answer(await read(self._d.book.store, log, tile), tile)

    async def exchange(self, request: web.Request) -> web.Response:
        """Have a peer, by its id or name, cosign our newest checkpoint now; what it has cosigned."""
        peer = self._d.operations.participant(request.match_info["id"])
        return answer(_witnessed(await self._d.book.witnesses.exchange(peer)))

    async def forgive(self, request: web.Request) -> web.Response:
        """An operator has looked at what a peer's ledger contradicts, and trusts it again."""
        await self._d.book.witness.forgive(request.match_info["id"])
        return answer({"forgiven": request.match_info["id"]})

    async def erase(self, request: web.Request) -> web.Response:
        """Take away for good what an event says in detail; its entry in the ledger stays valid."""
        sequence = number_of("sequence", request.match_info["sequence"], 1, SIZE_MAX)
        if not await self._d.book.store.erase(sequence):
            raise NotFound(f"there is no event {sequence}")
        return web.Response(status=204)


async def prove(book: Book, request: web.Request) -> web.Response:
    """A proof that stands alone, for one entry and the newest checkpoint that is shown (C2SP tlog-proof)."""
    index = number_of("index", request.match_info["index"], 0, SIZE_MAX)
    log, note = await book.shown(request.query.get("origin"), beyond=index)
    return web.Response(body=await prove_entry(book.store, log, index, note), content_type=TEXT, charset="utf-8")


def _tile(request: web.Request) -> tiles.Tile:
    try:
        return tiles.read_path(f"tile/{request.match_info['path']}")
    except ProofRefused as refused:
        raise NotFound(refused.message) from refused


def _tile_answer(data: bytes, tile: tiles.Tile) -> web.Response:
    lasts = f"private, max-age={WIDTH_MAX_AGE}, immutable" if tile.full else "no-store"
    return web.Response(body=data, content_type=BYTES, headers={hdrs.CACHE_CONTROL: lasts})


def _log(log: Log) -> dict[str, Any]:
    return {
        "origin": log.origin,
        "size": log.size,
        "follows": log.follows or None,
        "checkpoint": log.note or None,
        "updated": instant(log.updated or None),
    }


def _witnessed(row: Witnessed) -> dict[str, Any]:
    return {
        "peer": row.peer,
        "origin": row.origin,
        "size": row.size,
        "note": row.note,
        "conflict": row.conflict,
        "updated": instant(row.updated),
    }


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "index": entry.index,
        "sequence": entry.sequence,
        "entry": entry.body.decode(),
        "leaf": entry.leaf.hex(),
        "pid": entry.pid,
        "peer": entry.peer,
        "detail": entry.detail.decode() if entry.detail is not None else None,
        "salt": entry.salt.hex() if entry.salt is not None else None,
    }
