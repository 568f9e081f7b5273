"""What of the credit of an agreement is locked by transfers that ended without signing, and its release, at the management listener."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from connector.api.management_shapes import Released, answer, decode, instant
from connector.api.middleware import Handler, Limits, read_body
from connector.api_management.doors import Doors
from connector.control_billing import losses
from connector.dataplane_accounts.opens import CREDITS, Opens
from connector.errors import Contradiction, NotFound
from connector.metering.objects import manifest_of


def routes(doors: Doors, limits: Limits) -> tuple[tuple[str, str, Handler], ...]:
    """Method, path and handler of each call."""

    async def look(id: str) -> dict[str, Any]:
        if await doors.store.agreement(id) is None:
            raise NotFound(f"there is no agreement `{id}`")
        lost = await Opens(doors.store, doors.journal.clock).lost(id)
        accounts = {each.transfer: each for each in await doors.store.metered_of(id)}
        credit = max((CREDITS * manifest_of(accounts[each.transfer].manifest).credit_bytes for each in lost), default=0)
        return {
            "agreement": id,
            "locked_bytes": sum(each.size_bytes for each in lost),
            "credit_bytes": credit or None,
            "lost": [{"transfer": each.transfer, "bytes": each.size_bytes, "until": instant(each.until)} for each in lost],
        }

    async def credit(request: web.Request) -> web.Response:
        """What transfers that have ended had not signed for, of the credit that all of the agreement have together, and until when."""
        return answer(await look(request.match_info["id"]))

    async def release(request: web.Request) -> web.Response:
        """Write it off; why stands on record."""
        said = decode(await read_body(request, limits) if request.can_read_body else b"", Released)
        id = request.match_info["id"]
        found = await look(id)
        if not found["lost"]:
            raise Contradiction(f"no credit of agreement `{id}` is locked")
        await losses.write_off(doors.journal, id, {each["transfer"]: each["bytes"] for each in found["lost"]}, said.reason)
        return answer(found)

    return (("GET", "/agreements/{id}/credit", credit), ("POST", "/agreements/{id}/release-credit", release))
