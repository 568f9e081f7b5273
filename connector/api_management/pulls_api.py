"""Orders of data without an end, at the management listener: when there is enough of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from connector.api.management_shapes import answer, pull_view
from connector.api.middleware import Handler

if TYPE_CHECKING:
    from connector.api.management_api import Doors


def routes(doors: Doors) -> tuple[tuple[str, str, Handler], ...]:
    """Method, path and handler of each call."""

    async def enough(request: web.Request) -> web.Response:
        """Take no more: the order is done with what has come."""
        return answer(pull_view(await doors.pulls.enough(request.match_info["id"])))

    return (("POST", "/pulls/{id}/end", enough),)
