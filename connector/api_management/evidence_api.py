"""Evidence at the management listener: of a process as it is on record; of an agreement as one file, and of one entry of the ledger for
tools of SCITT, to take away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from aiohttp import hdrs, web

from connector import telemetry
from connector.api.connections import patient
from connector.api.management_shapes import answer, event_view, number_of
from connector.api.middleware import Handler
from connector.api_management.doors import Doors
from connector.errors import InvalidRequest, NotFound, PolicyError
from connector.ledger.collecting import Exports
from connector.merkle.tree import SIZE_MAX

JSON_LINES: Final = "application/x-ndjson"
COSE: Final = "application/cose"  # RFC 9052, 11.3.1
PIECE_BYTES: Final = 64 * 1024  # what is written at once; a reader that is slower keeps the rest in the store
UNREAD_SECONDS: Final = 60.0
WITNESSES: Final = ("counterparty", "all")


def routes(doors: Doors) -> tuple[tuple[str, str, Handler], ...]:
    """Method, path and handler of each call."""

    async def invoiced(agreement: str) -> Mapping[str, Any] | None:
        try:
            return (await doors.bills.invoice(agreement, None, None)).to_json()
        except (NotFound, PolicyError):
            return None  # there are no prices, or none that anybody could bill by

    async def recorded(request: web.Request) -> web.Response:
        """The events of one process."""
        rows = await doors.store.evidence_of(request.match_info["pid"])
        return answer({"items": [event_view(row) for row in rows], "next": None})

    async def export(request: web.Request) -> web.StreamResponse:
        """The evidence file of an agreement, written while it is read. `?witnesses=all`: with the cosignatures of all witnesses."""
        witnesses = request.query.get("witnesses", "counterparty")
        if witnesses not in WITNESSES or request.query.keys() - {"witnesses"}:
            raise InvalidRequest(f"an export takes `witnesses` alone, which is one of {', '.join(WITNESSES)}")
        exports = Exports(doors.store, doors.book, doors.identity, doors.journal.clock, invoiced)
        lines = await exports.open(request.match_info["id"], everybody=witnesses == "all")
        patient(request, UNREAD_SECONDS)
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: JSON_LINES, hdrs.CACHE_CONTROL: "no-store"})
        await response.prepare(request)
        try:
            await _write(response, lines)
        except ConnectionResetError:
            pass  # the reader has gone
        except Exception as error:  # what was promised with the head cannot be taken back: the answer is cut, and has no seal
            telemetry.log.error("export failed", agreement=request.match_info["id"], exc_info=error)
            if request.transport is not None:
                request.transport.abort()
        return response

    async def transparent(request: web.Request) -> web.Response:
        """The entry of an event as a signed statement with its receipt (RFC 9942)."""
        sequence = number_of("sequence", request.match_info["sequence"], 1, SIZE_MAX)
        body = await doors.book.transparent(sequence, doors.journal.clock.now())
        return web.Response(body=body, content_type=COSE, headers={hdrs.CACHE_CONTROL: "no-store"})

    return (
        ("GET", "/processes/{pid}/evidence", recorded),
        ("GET", "/agreements/{id}/evidence", export),
        ("GET", "/evidence/{sequence}/cose", transparent),
    )


async def _write(response: web.StreamResponse, lines: AsyncIterator[bytes]) -> None:
    piece = bytearray()
    async for line in lines:
        piece += line
        if len(piece) >= PIECE_BYTES:
            await response.write(bytes(piece))
            piece.clear()
    await response.write(bytes(piece))
    await response.write_eof()
