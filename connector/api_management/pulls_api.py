"""Orders at the management listener, once they are made: what has come of them, when there is enough of data without an end, and when
one is cancelled."""

from __future__ import annotations

from aiohttp import web

from connector.api.management_shapes import PAGES, Reason, answer, decode, demand_known, limit_of, one_of, pull_view
from connector.api.middleware import Handler, Limits, read_body
from connector.api_management.doors import Doors
from connector.errors import NotFound


def routes(doors: Doors, limits: Limits) -> tuple[tuple[str, str, Handler], ...]:
    """Method, path and handler of each call."""

    async def pulls(request: web.Request) -> web.Response:
        """A page of the orders, newest first; with `open=true` those alone that are not over."""
        demand_known(request.query, "the list of orders", {*PAGES, "open"})
        open_only = one_of(request.query, "open", ("true", "false")) == "true"
        page = await doors.store.pulls(open_only=open_only, after=request.query.get("after"), limit=limit_of(request.query))
        return answer({"items": [pull_view(doors.pulls.live.get(each.id, each)) for each in page.items], "next": page.next})

    async def pull(request: web.Request) -> web.Response:
        found = doors.pulls.live.get(request.match_info["id"]) or await doors.store.pull(request.match_info["id"])
        if found is None:
            raise NotFound(f"there is no pull `{request.match_info['id']}`")
        return answer(pull_view(found))

    async def enough(request: web.Request) -> web.Response:
        """Take no more: the order is done with what has come."""
        return answer(pull_view(await doors.pulls.enough(request.match_info["id"])))

    async def cancel(request: web.Request) -> web.Response:
        """End the order and what it has begun: it is not done, and the peer is told why."""
        said = decode(await read_body(request, limits) if request.can_read_body else b"", Reason)
        return answer(pull_view(await doors.pulls.cancel(request.match_info["id"], said.reason)))

    return (
        ("GET", "/pulls", pulls),
        ("GET", "/pulls/{id}", pull),
        ("POST", "/pulls/{id}/end", enough),
        ("POST", "/pulls/{id}/cancel", cancel),
    )
