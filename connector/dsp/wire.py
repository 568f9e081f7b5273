"""Bytes to message and message to bytes, in the compact form of DSP 2025-1.

A body that is schema-valid in compact form and whose `@context` contains the DSP URL is a message, whatever other
contexts stand beside it: those are never fetched and their terms mean nothing here (a policy that relies on one is
refused by `connector.odrl`, not here). Every other JSON document may still be a message in another JSON-LD form:
`parse` then returns `NeedsExpansion`, and whoever has a worker for it gets the compact form there. `read` takes either.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import orjson

from connector.dsp import forms
from connector.dsp.messages import CONTEXT, DSP_CONTEXT, ERROR_TYPE, PROCESS_TYPE, Kind, Message, Move
from connector.dsp.schemas import Schemas
from connector.errors import WireError
from connector.values import Value

DEPTH_MAX = 32  # an offer with nested logical constraints stays below 16; deeper is an attack or a mistake
NODES_MAX = 20_000  # the largest message we accept (256 KiB) with real content has some 8,000 values
OBJECT_BYTES_MAX = 262_144  # of an answer that is read: as large as messages are; a megabyte of empty objects takes a third of a second
STRING_CHARACTERS_MAX = 65_536  # longer strings are data, and data does not travel in messages
# The only bare names that stand for something with another name, in descriptions of participants and in the W3C's context of ODRL.
ALIASES = frozenset({"id", "type", "uid"})
REASON_ITEMS_MAX, REASONS_MAX, REASON_CHARACTERS_MAX, CODE_CHARACTERS_MAX = 32, 10, 500, 100  # of a refusal by a peer, as it is kept
VALUES_MAX, VALUE_CHARACTERS_MAX = 20, 200  # of a list in its grounds
GROUND = ("code", "policy", "rule", "constraint", "path", "leftOperand", "operator", "status")
GROUND_LISTS = ("expected", "actual")
HOW, LEAF = "how_to_fulfil", ("path", "operator", "unit", "status", "id")  # of a duty that is not done; of a refinement of its act
NAME_ENDS = re.compile(rb'"[ \t\r\n]*:')  # every name in a JSON text ends so, and a string that begins with a colon looks like it


class NeedsExpansion(Value):
    """The body is JSON, but not a compact message of `expected` (`@type`): it takes JSON-LD to know what it is."""

    expected: str


def parse(body: bytes, type_: str, schemas: Schemas) -> Mapping[str, Any] | NeedsExpansion:
    """The body as a compact, schema-valid document of `@type` `type_`, or that it takes JSON-LD to know.

    Raises WireError for what is not JSON, goes beyond the limits of depth, width and length, or is meant as the compact form
    and has a mistake that no expansion could mend: then its sender hears at once where.
    """
    document = load(body)
    if isinstance(document, dict):
        found: Mapping[str, Any]
        for found in forms.readings(document, body):
            if is_compact(found, type_, schemas):
                return found
        if document.get("@type") == type_ and _plain(document) and (reasons := schemas.lasting(type_, document)):
            raise WireError(f"the body is not a valid `{type_}`", tuple(reasons))
    return NeedsExpansion(type_)


def load(body: bytes, nodes_max: int = NODES_MAX) -> Any:
    """Decode JSON strictly (UTF-8, finite numbers, each name once). Raises WireError that says where it broke."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as e:
        raise WireError(f"the body is not JSON: {e.msg} at line {e.lineno} column {e.colno}") from e
    # What is short and spelled as we spell it, as most messages are, is within every limit and has lost no name.
    short = len(body) <= min(nodes_max, STRING_CHARACTERS_MAX) and body.count(b"[") + body.count(b"{") <= DEPTH_MAX
    if short and orjson.dumps(document) == body:
        return document
    # A name that stands twice means one thing to us and may mean another to whoever else reads the message. The parser keeps
    # the last one silently; but then the text has more ends of names than the value has members, which costs little to see.
    members = _within_limits(document, nodes_max)  # what is beyond a limit is not searched
    if next(islice(NAME_ENDS.finditer(body), members, None), None) is not None:  # nor for more than one end too many
        json.loads(body, object_pairs_hook=_each_once)
    return document


def object_of(body: bytes) -> dict[str, Any] | None:
    """The object that the body of an answer holds; None for anything else, and for one that is larger than answers are."""
    try:
        document = load(body) if 0 < len(body) <= OBJECT_BYTES_MAX else None
    except WireError:
        return None
    return document if isinstance(document, dict) else None


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


def reason_items(reasons: Sequence[str], grounds: Sequence[Mapping[str, Any]] = ()) -> list[Any]:
    """The `reason` of a refusal: its sentences, then the same as data. An object would be emptied by expansion, for none of its members is
    a term of the context; a JSON literal (JSON-LD 1.1, 4.2.2) comes through."""
    return [*reasons, *({"@type": "@json", "@value": dict(ground)} for ground in grounds)]


def reasons_of(document: Any) -> tuple[str | None, tuple[str, ...]]:
    """Read code and reasons from an error or termination document of a peer, as text and bounded.

    `reason` items may be strings, language-tagged values or anything; objects are shown as JSON, but not those that `grounds_of` reads
    beside sentences.
    """
    if not isinstance(document, Mapping):
        return None, ()
    code, items = document.get("code"), _items(document)
    said = [item for item in items if _ground(item) is None] or items
    texts = tuple(_text(item)[:REASON_CHARACTERS_MAX] for item in said[:REASONS_MAX])
    return (str(code)[:CODE_CHARACTERS_MAX] if code is not None else None), texts


def grounds_of(document: Any) -> tuple[dict[str, Any], ...]:
    """Read the grounds of a refusal that a peer gave as data: which rule and constraint, what was expected and what was found, and how a
    duty that is not done can be (`how_to_fulfil`). Bounded; members that are not known are left out. Empty for a peer that gives
    sentences only."""
    if not isinstance(document, Mapping):
        return ()
    return tuple(ground for item in _items(document) if (ground := _ground(item)) is not None)[:REASONS_MAX]


def said_of(document: Any) -> tuple[str | None, tuple[str, ...], tuple[dict[str, Any], ...]]:
    """Code, reasons and grounds of a peer's refusal, as `reasons_of` and `grounds_of` read them."""
    return (*reasons_of(document), grounds_of(document))


def _items(document: Mapping[str, Any]) -> list[Any]:
    reasons = document.get("reason")
    return (reasons if isinstance(reasons, list) else [] if reasons is None else [reasons])[:REASON_ITEMS_MAX]


def _ground(item: Any) -> dict[str, Any] | None:
    """A JSON literal that says a code, as text and bounded; None for everything else."""
    said = item.get("@value") if isinstance(item, Mapping) and item.get("@type") == "@json" else None
    if not isinstance(said, Mapping) or not isinstance(said.get("code"), str):
        return None
    texts = {name: _text(said[name])[:REASON_CHARACTERS_MAX] for name in GROUND if name in said}
    lists = {name: _texts(said[name]) for name in GROUND_LISTS if name in said}
    how = {HOW: found} if isinstance(said.get(HOW), Mapping) and (found := _fulfilment(said[HOW])) else {}
    return texts | lists | how


def _fulfilment(said: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be on record for a duty to be done, as `Decision.grounds` writes it."""
    found: dict[str, Any] = {name: _texts(said[name]) for name in ("action", "target") if name in said}
    if "by" in said:
        found["by"] = _text(said["by"])[:REASON_CHARACTERS_MAX]
    if isinstance(said.get("refinements"), list):
        found["refinements"] = [_leaf(each) for each in said["refinements"][:VALUES_MAX] if isinstance(each, Mapping)]
    if isinstance(said.get("with"), Mapping):
        parties = tuple(said["with"].items())[:VALUES_MAX]
        found["with"] = {str(name)[:VALUE_CHARACTERS_MAX]: _text(party)[:REASON_CHARACTERS_MAX] for name, party in parties}
    return found


def _leaf(said: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {name: _text(said[name])[:VALUE_CHARACTERS_MAX] for name in LEAF if name in said}
    left = said.get("left")
    if isinstance(left, Mapping) and isinstance(left.get("iri"), str):
        found["left"] = {name: _text(left[name])[:VALUE_CHARACTERS_MAX] for name in ("iri", "label") if name in left}
        found["expected"] = _texts(said.get("expected", []))
    return found


def _texts(values: Any) -> list[str]:
    return [_text(value)[:VALUE_CHARACTERS_MAX] for value in (values if isinstance(values, list) else [values])[:VALUES_MAX]]


def _text(item: Any) -> str:
    if isinstance(item, Mapping) and isinstance(item.get("@value"), str):
        return str(item["@value"])
    return item if isinstance(item, str) else orjson.dumps(item).decode()


def _plain(document: Mapping[str, Any]) -> bool:
    """Whether the document names everything by bare terms, under contexts that are URLs, DSP's among them. Then each term can
    only be what the DSP context says, and expansion changes how values are written, never which there are."""
    contexts = document.get("@context")
    if not isinstance(contexts, list) or DSP_CONTEXT not in contexts or not all(isinstance(url, str) for url in contexts):
        return False
    left: list[Any] = [{name: value for name, value in document.items() if name != "@context"}]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if any(":" in name or name in ALIASES or (name[:1] == "@" and name not in ("@id", "@type")) for name in value):
                return False
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    return True


def _each_once(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise WireError(f"the name `{name[:100]}` stands twice in one object of the body; say it once")
        seen.add(name)


def _within_limits(document: Any, nodes_max: int) -> int:
    """Walk the value without recursion; returns how many members its objects have. Raises WireError beyond a limit."""
    level, nodes, members = [document], 0, 0
    for _ in range(DEPTH_MAX + 1):
        below: list[Any] = []
        nodes += len(level)
        if nodes > nodes_max:
            raise WireError(f"the body has more than {nodes_max} values")
        for value in level:
            if type(value) is dict:
                below.extend(value.values())
                members += len(value)
            elif type(value) is list:
                below.extend(value)
            elif type(value) is str and len(value) > STRING_CHARACTERS_MAX:
                raise WireError(f"a string of {len(value)} characters is longer than the {STRING_CHARACTERS_MAX} that a message may hold")
        if not below:
            return members
        level = below
    raise WireError(f"the body is nested deeper than {DEPTH_MAX} levels")
