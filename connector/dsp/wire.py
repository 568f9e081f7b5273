"""Bytes to message and message to bytes, in the compact form of DSP 2025-1.

A body that is schema-valid in compact form and whose `@context` contains the DSP URL is a message, whatever other
contexts stand beside it: those are never fetched and their terms mean nothing here (a policy that relies on one is
refused by `connector.odrl`, not here). Every other JSON document may still be a message in another JSON-LD form:
`parse` then returns `NeedsExpansion`, and whoever has a worker for it calls `read` with the compact form.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from connector.dsp.messages import CONTEXT, DSP_CONTEXT, ERROR_TYPE, PROCESS_TYPE, Kind, Message, Move
from connector.dsp.schemas import Schemas
from connector.errors import WireError

DEPTH_MAX = 32  # an offer with nested logical constraints stays below 16; deeper is an attack or a mistake
NODES_MAX = 20_000  # the largest message we accept (256 KiB) with real content has some 8,000 values
STRING_CHARACTERS_MAX = 65_536  # longer strings are data, and data does not travel in messages
NAME_ENDS = re.compile(rb'"[ \t\r\n]*:')  # every name in a JSON text ends so, and a string that begins with a colon looks like it


@dataclass(frozen=True, slots=True)
class NeedsExpansion:
    """The body is JSON, but not a compact message of `expected` (`@type`): it takes JSON-LD to know what it is."""

    expected: str


def parse(body: bytes, expected: tuple[Move, ...], schemas: Schemas) -> Message | NeedsExpansion:
    """Read a request body as one of the moves that its endpoint takes (all of one `@type`).

    Raises WireError for what is not JSON or goes beyond the limits of depth, width and length.
    """
    document = load(body)
    type_ = expected[0].type
    if not isinstance(document, dict) or not is_compact(document, type_, schemas):
        return NeedsExpansion(type_)
    return read(document, expected)


def load(body: bytes) -> Any:
    """Decode JSON strictly (UTF-8, finite numbers, each name once). Raises WireError that says where it broke."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as e:
        raise WireError(f"the body is not JSON: {e.msg} at line {e.lineno} column {e.colno}") from e
    # A name that stands twice means one thing to us and may mean another to whoever else reads the message. The parser keeps
    # the last one silently; but then the text has more ends of names than the value has members, which costs little to see.
    if len(NAME_ENDS.findall(body)) > _within_limits(document):
        json.loads(body, object_pairs_hook=_each_once)
    return document


def is_compact(document: Mapping[str, Any], type_: str, schemas: Schemas) -> bool:
    """Whether the document is a compact, schema-valid message of that type under the DSP context."""
    context = document.get("@context")
    if not isinstance(context, list) or DSP_CONTEXT not in context or document.get("@type") != type_:
        return False
    return schemas.is_valid(type_, document)


def read(document: Mapping[str, Any], expected: tuple[Move, ...]) -> Message:
    """Make a Message of a compact, schema-valid document. Raises WireError if its event is not one of `expected`."""
    type_, event = document["@type"], document.get("eventType")
    for move in expected:
        if move.type == type_ and (move.event is None or move.event == event):
            return Message(move, document.get("consumerPid"), document.get("providerPid"), document, digest(document))
    allowed = ", ".join(f"`{m}`" for m in expected)
    raise WireError(f"a message of type `{type_}` with event `{event}` is not taken here; this endpoint takes {allowed}")


def digest(document: Mapping[str, Any]) -> bytes:
    """SHA-256 over the canonical body (keys sorted): equal for messages that say the same in the same words."""
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).digest()


def message(move: Move, *, consumer_pid: str | None = None, provider_pid: str | None = None, **members: Any) -> dict[str, Any]:
    """Build the compact document of a message; members that are None are left out, as the schemas demand."""
    document: dict[str, Any] = {"@context": CONTEXT, "@type": move.type, "consumerPid": consumer_pid, "providerPid": provider_pid}
    document |= {"eventType": move.event} | members
    return {k: v for k, v in document.items() if v is not None}


def process_document(kind: Kind, consumer_pid: str | None, provider_pid: str | None, state: str) -> dict[str, Any]:
    """The `ContractNegotiation` or `TransferProcess` that acknowledges a message and answers a GET."""
    return {"@context": CONTEXT, "@type": PROCESS_TYPE[kind], "providerPid": provider_pid, "consumerPid": consumer_pid, "state": state}


def error_document(
    kind: Kind | None, code: str, reasons: tuple[str, ...], consumer_pid: str = "", provider_pid: str = ""
) -> dict[str, Any]:
    """The error object of a binding; `kind` None is the catalog's, which knows no pids.

    The schemas of the other two require both pids, which may not exist yet: the caller then passes what it knows.
    """
    if kind is None:
        return {"@context": CONTEXT, "@type": "CatalogError", "code": code, "reason": list(reasons)}
    return {
        "@context": CONTEXT,
        "@type": ERROR_TYPE[kind],
        "providerPid": provider_pid,
        "consumerPid": consumer_pid,
        "code": code,
        "reason": list(reasons) or [code],
    }


def reasons_of(document: Any) -> tuple[str | None, tuple[str, ...]]:
    """Read code and reasons from an error or termination document of a peer, as text and bounded.

    `reason` items may be strings, language-tagged values or anything; objects are shown as JSON.
    """
    if not isinstance(document, Mapping):
        return None, ()
    code, reasons = document.get("code"), document.get("reason")
    items = reasons if isinstance(reasons, list) else [] if reasons is None else [reasons]
    return (str(code)[:100] if code is not None else None), tuple(_text(item)[:500] for item in items[:10])


def _text(item: Any) -> str:
    if isinstance(item, Mapping) and isinstance(item.get("@value"), str):
        return str(item["@value"])
    return item if isinstance(item, str) else orjson.dumps(item).decode()


def _each_once(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise WireError(f"the name `{name[:100]}` stands twice in one object of the body; say it once")
        seen.add(name)


def _within_limits(document: Any) -> int:
    """Walk the value without recursion; returns how many members its objects have. Raises WireError beyond a limit."""
    level, nodes, members = [document], 0, 0
    for _ in range(DEPTH_MAX + 1):
        below: list[Any] = []
        for value in level:
            if type(value) is dict:
                below.extend(value.values())
                members += len(value)
            elif type(value) is list:
                below.extend(value)
            elif type(value) is str and len(value) > STRING_CHARACTERS_MAX:
                raise WireError(f"a string of {len(value)} characters is longer than the {STRING_CHARACTERS_MAX} that a message may hold")
        nodes += len(level)
        if nodes > NODES_MAX:
            raise WireError(f"the body has more than {NODES_MAX} values")
        if not below:
            return members
        level = below
    raise WireError(f"the body is nested deeper than {DEPTH_MAX} levels")
