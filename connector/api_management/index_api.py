"""What there is under `/v1`, for who writes a program: each call, and what its body may hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web
from msgspec.json import schema_components

from connector.api import decisions_api, policies_api
from connector.api import management_shapes as shapes
from connector.api.middleware import Handler

Row = tuple[str, str, Handler]
# Method and path of each call with a body, and the body.
TAKES: Mapping[tuple[str, str], type[Any]] = {
    ("PUT", "/datasets/{id}"): shapes.Publish,
    ("POST", "/catalog"): shapes.CatalogQuery,
    ("POST", "/catalog/dataset"): shapes.DatasetQuery,
    ("POST", "/negotiations"): shapes.Negotiate,
    ("POST", "/negotiations/offers"): shapes.MakeOffer,
    ("POST", "/negotiations/{pid}/counter"): shapes.Counter,
    ("POST", "/negotiations/{pid}/terminate"): shapes.Reason,
    ("POST", "/agreements/{id}/close"): shapes.Reason,
    ("POST", "/agreements/{id}/performances"): shapes.Performance,
    ("POST", "/agreements/{id}/release-credit"): shapes.Released,
    ("POST", "/transfers"): shapes.Transfer,
    ("POST", "/transfers/{pid}/suspend"): shapes.Reason,
    ("POST", "/transfers/{pid}/terminate"): shapes.Reason,
    ("POST", "/transfers/{pid}/settle-dispute"): shapes.Settled,
    ("POST", "/pulls"): shapes.OrderPull,
    ("POST", "/pulls/{id}/cancel"): shapes.Reason,
    ("POST", "/simulate"): decisions_api.Simulate,
    ("POST", "/simulate/change"): decisions_api.OtherTerms,
    ("POST", "/policies"): policies_api.Policy,
}
REF = "#/$defs/{name}"


def route(table: Iterable[Row]) -> Row:
    """The call that lists those of a table, and itself: `takes` is the JSON Schema of a body (2020-12), None where there is none."""
    listed = [("GET", ""), *((method, path) for method, path, _ in table)]

    async def index(_request: web.Request) -> web.Response:
        found, defs = schema_components(TAKES.values(), ref_template=REF)
        bodies = dict(zip(TAKES, found, strict=True))
        items = [{"method": method, "path": f"/v1{path}", "takes": bodies.get((method, path))} for method, path in listed]
        return shapes.answer({"items": items, "next": None, "$defs": defs})

    return "GET", "", index
