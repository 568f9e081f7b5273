"""What there is under `/v1`, for who writes a program: each call, and what its body may hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
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
PATTERN = re.compile(r"\{(\w+):[^}]*\}")  # of a part of a path, as the router wants it
RAISES = re.compile(r"\s*\bRaises .*", re.DOTALL)  # of a docstring, which is for who reads the source


def route(table: Iterable[Row]) -> Row:
    """The call that lists those of a table, and itself: `takes` is the JSON Schema of a body (2020-12), None where there is none. What it
    refuses is refused; not all that is refused can be told by a schema."""
    listed = [("GET", ""), *((method, path) for method, path, _ in table)]

    @cache
    def document() -> Mapping[str, Any]:
        found, defs = schema_components(TAKES.values(), ref_template=REF)
        for each in defs.values():
            each["description"] = " ".join(RAISES.sub("", each["description"]).split())
        bodies = dict(zip(TAKES, found, strict=True))
        items = [
            {"method": method, "path": PATTERN.sub(r"{\1}", f"/v1{path}"), "takes": bodies.get((method, path))} for method, path in listed
        ]
        return {"items": items, "next": None, "$defs": defs}

    async def index(request: web.Request) -> web.Response:
        shapes.demand_known(request.query, "the list of calls", ())
        return shapes.answer(document())

    return "GET", "", index
