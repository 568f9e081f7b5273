"""What was used under an agreement, and its invoice, at the management listener alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import orjson
from aiohttp import hdrs, web

from connector.api.management_shapes import Settled, answer, decode, demand_known, read_instant
from connector.api.middleware import Handler, Limits, read_body
from connector.api_management.doors import Doors
from connector.control_billing import disputes
from connector.errors import InvalidRequest, NotFound
from connector.metering_bills.invoice import Invoice
from connector.metering_bills.pages import as_csv, as_html

# Of each format its media type and its writer. A page loads nothing and runs nothing, whatever it says.
FORMATS: Final[Mapping[str, tuple[str, Callable[[Invoice], str]]]] = {
    "json": ("application/json", lambda invoice: orjson.dumps(invoice.to_json()).decode()),
    "csv": ("text/csv", as_csv),
    "html": ("text/html", as_html),
}
ALONE: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
PERIOD: Final = frozenset({"from", "to"})
PARAMETERS: Final = PERIOD | {"format"}


def routes(doors: Doors, limits: Limits) -> tuple[tuple[str, str, Handler], ...]:
    """Method, path and handler of each call."""

    async def usage(request: web.Request) -> web.Response:
        """What was used so far, by whom it is attested, and what it costs."""
        return answer(await doors.bills.usage(request.match_info["id"]))

    async def invoice(request: web.Request) -> web.Response:
        """The invoice for the period [`from`, `to`); without them from the signing up to the last acknowledged receipt, or to now. One
        whose end is yet to come says that it is preliminary."""
        demand_known(request.query, "an invoice", PARAMETERS)
        format = request.query.get("format", "json")
        if format not in FORMATS:
            raise InvalidRequest(f"`format` is `{format[:40]}`; it is one of {', '.join(FORMATS)}")
        media_type, write = FORMATS[format]
        found = await doors.bills.invoice(request.match_info["id"], *_period(request.query))
        return web.Response(text=write(found), content_type=media_type, charset="utf-8", headers=ALONE | {hdrs.CACHE_CONTROL: "no-store"})

    async def statement(request: web.Request) -> web.Response:
        """Have both sides sign for the period [`from`, `to`); from the beginning and up to a moment ago where they are not given."""
        demand_known(request.query, "a statement", PERIOD)
        if doors.bills.stating is None:
            raise NotFound("this connector signs no statements")
        found = await doors.bills.stating.period(request.match_info["id"], *_period(request.query))
        return answer(found.to_json())

    async def settle(request: web.Request) -> web.Response:
        """End the dispute about the account of a transfer; why stands in the evidence."""
        said = decode(await read_body(request, limits) if request.can_read_body else b"", Settled)
        found = await disputes.settle(doors.journal, request.match_info["pid"], said.reason)
        return answer({"transfer": found.transfer, "status": found.status})

    return (
        ("POST", "/transfers/{pid}/settle-dispute", settle),
        ("GET", "/agreements/{id}/usage", usage),
        ("GET", "/agreements/{id}/invoice", invoice),
        ("POST", "/agreements/{id}/statement", statement),
    )


def _period(query: Mapping[str, str]) -> tuple[float | None, float | None]:
    begins, ends = (None if (said := query.get(name)) is None else read_instant(said, name) for name in ("from", "to"))
    return begins, ends
