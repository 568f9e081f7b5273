"""What a catalog request asks for: conditions on datasets, and how many of those that meet them, from which on.

DSP 2025-1 leaves the items of `filter` to implementations and asks for 400 where one is not supported (catalog, CAT-4 and
CAT-5 of our research). Ours are conditions. EDC puts one `QuerySpec` there with each request, also where its user asked for
nothing in particular: offset, limit, order and criteria, of which those are taken that mean the same here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from connector.dsp import wire
from connector.errors import InvalidRequest, WireError
from connector.values import Value

FILTER = (
    "a filter is a list of objects with `property` (such as `@id`, `dct:title`, `dcat:keyword`), `operator` (`eq` or `contains`) and "
    "`value`, all strings, or one `QuerySpec` of EDC with `offset`, `limit` and `filterExpression`: criteria with `operandLeft` (`id`, or "
    "such a property), `operator` `=` and a string as `operandRight`"
)
FILTERS_MAX = 10  # each is held against thousands of datasets, while everybody else waits
FILTER_CHARACTERS_MAX = 2_048  # of all of them in an address: that is where the links of a page have them, beside a cursor
LIMIT_MAX = 1_000  # datasets on a page, however many are asked for: as many as an operator may allow
EDC = ("https://w3id.org/edc/v0.0.1/ns/", "edc:")  # before the names of a query, where no context of EDC has shortened them
QUERY = frozenset({"offset", "limit", "sortField", "sortOrder", "filterExpression"})
CRITERION = {"operandLeft", "operator", "operandRight"}
PREFIXES = {"http://purl.org/dc/terms/": "dct:", "http://www.w3.org/ns/dcat#": "dcat:"}  # as our datasets have them

Condition = Mapping[str, Any]


class Asked(Value):
    """All `conditions` have to hold; the first `offset` datasets for which they do are left out, and at most `limit` are given (None: as
    many as stand on a page)."""

    conditions: tuple[Condition, ...] = ()
    offset: int = 0
    limit: int | None = None


def read(value: Any) -> Asked:
    """Check the `filter` of a catalog request. Absent and empty ask for everything.

    Raises InvalidRequest that says what can be asked for anything else, also for more or longer conditions than a link could carry on.
    """
    conditions: list[Condition] = []
    query: Asked | None = None
    for one in value if isinstance(value, list) else [] if value is None else [value]:
        members = _members_of_query(one)
        if members is None:
            conditions.append(_condition(one))
        elif query is None:
            query = _query(members)
        else:
            raise InvalidRequest(f"this filter has more than one `QuerySpec`; {FILTER}")
    query = query or Asked()
    found = (*conditions, *query.conditions)
    if len(found) > FILTERS_MAX or len(text(found)) > FILTER_CHARACTERS_MAX:
        raise InvalidRequest(f"this filter is too long: {FILTERS_MAX} objects at most, of {FILTER_CHARACTERS_MAX} characters in an address")
    return Asked(found, query.offset, query.limit)


def text(conditions: Sequence[Condition]) -> str:
    """Conditions as they stand in an address."""
    return quote(orjson.dumps(conditions), safe="")


def read_text(said: str) -> Asked:
    """The same of a filter that stands as JSON in an address, where the links of our pages put it."""
    try:
        return read(wire.load(said.encode()))
    except WireError as error:
        raise InvalidRequest(
            f"the `filter` of the address is not JSON (UTF-8, finite numbers, each name once, not too deep); {FILTER}"
        ) from error


def matches(document: bytes, conditions: Sequence[Condition]) -> bool:
    """Whether all conditions hold of a dataset, as its JSON."""
    if not conditions:
        return True
    parsed = orjson.loads(document)
    return all(_holds(parsed.get(one["property"]), one["operator"], one["value"]) for one in conditions)


def _holds(value: Any, operator: str, wanted: str) -> bool:
    values = [
        str(v.get("@value") or v.get("@id")) if isinstance(v, Mapping) else str(v) for v in (value if isinstance(value, list) else [value])
    ]
    if value is None:
        return False
    return wanted in values if operator == "eq" else any(wanted.casefold() in v.casefold() for v in values)


def _condition(one: Any) -> Condition:
    known = isinstance(one, Mapping) and set(one) == {"property", "operator", "value"}
    if not known or one["operator"] not in ("eq", "contains") or not all(isinstance(v, str) for v in one.values()):
        raise InvalidRequest(f"this filter is not supported; {FILTER}")
    return dict(one)


def _members_of_query(one: Any) -> dict[str, Any] | None:
    """The members of a query by their short names; None for what is none."""
    if not isinstance(one, Mapping) or "property" in one:
        return None
    members = {_short(name): value for name, value in one.items()}
    return members if members.keys() & QUERY or _short(members.get("@type")) == "QuerySpec" else None


def _query(members: Mapping[str, Any]) -> Asked:
    said = _said(members)
    offset, limit = said.get("offset", 0), said.get("limit", LIMIT_MAX)
    if type(offset) is not int or type(limit) is not int or offset < 0 or limit < 1:
        raise InvalidRequest(f"`offset` is a whole number from 0 on, `limit` one from 1 on; {FILTER}")
    if said.keys() - QUERY or "sortField" in said or said.get("sortOrder", "ASC") not in ("ASC", "DESC"):  # an order of no field is none
        raise InvalidRequest(f"this query is not supported, datasets come in the order of their ids; {FILTER}")
    return Asked(tuple(_criteria(said.get("filterExpression"))), offset, min(limit, LIMIT_MAX) if "limit" in said else None)


def _criteria(value: Any) -> Iterator[Condition]:
    for one in value if isinstance(value, list) else [] if value is None else [value]:
        said = _said({_short(name): inner for name, inner in one.items()}) if isinstance(one, Mapping) else {}
        if said.keys() != CRITERION or not all(isinstance(inner, str) for inner in said.values()) or said["operator"] != "=":
            raise InvalidRequest(f"this criterion is not supported; {FILTER}")
        left = _short(said["operandLeft"])
        for long, prefix in PREFIXES.items():
            left = left.replace(long, prefix) if left.startswith(long) else left
        if left not in ("id", "@id") and not left.startswith(("dct:", "dcat:")):
            raise InvalidRequest(f"this criterion is not supported, as our datasets have no such property; {FILTER}")
        yield {"property": "@id" if left == "id" else left, "operator": "eq", "value": said["operandRight"]}


def _short(name: Any) -> Any:
    """A name of EDC without what stands before it."""
    for prefix in EDC if isinstance(name, str) else ():
        name = name.removeprefix(prefix)
    return name


def _said(members: Mapping[str, Any]) -> dict[str, Any]:
    """What an object says but who it is, without what is null, and values that JSON-LD has in an object as themselves."""
    plain = {name: value.get("@value") if isinstance(value, Mapping) and "@value" in value else value for name, value in members.items()}
    return {name: value for name, value in plain.items() if value is not None and name not in ("@type", "@id")}
