"""Orders at the management listener, once they are made: when there is enough of data without an end, and when an order is cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from connector.api.management_shapes import Reason, answer, decode, pull_view
from connector.api.middleware import Handler, Limits, read_body

if TYPE_CHECKING:
    from connector.api.management_api import Doors


def routes(doors: Doors, limits: Limits) -> tuple[tuple[str, str, Handler], ...]:
    """Method, path and handler of each call."""

    async def enough(request: web.Request) -> web.Response:
        """Take no more: the order is done with what has come."""
        return answer(pull_view(await doors.pulls.enough(request.match_info["id"])))

    async def cancel(request: web.Request) -> web.Response:
        """End the order and what it has begun: it is not done, and the peer is told why."""
        said = decode(await read_body(request, limits) if request.can_read_body else b"", Reason)
        return answer(pull_view(await doors.pulls.cancel(request.match_info["id"], said.reason)))

    return (("POST", "/pulls/{id}/end", enough), ("POST", "/pulls/{id}/cancel", cancel))
