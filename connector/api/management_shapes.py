"""The typed JSON of the management API: what a call may say, and how records are shown."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import orjson
from aiohttp import web

from connector.api.middleware import Whole
from connector.control.compose import ours_to_say
from connector.control.operate import ACCEPTS
from connector.control.publish import COUNTERS
from connector.control_streams.orders import part_bytes
from connector.dsp import wire
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind
from connector.errors import InvalidRequest, TellsSecret, WireError
from connector.evidence.secrecy import secrets_in, tells_secret
from connector.ports import Participant
from connector.records import Agreement, Dataset, Evidence, Offer, Outbound, Pull

WAIT_SECONDS, WAIT_SECONDS_MAX = 30.0, 300.0  # `?wait=`: proxies cut idle requests after some minutes
SECONDS_MAX = 1e9  # of an order, 31 years: an end behind the year 9999 can be shown to nobody
PARALLEL_MAX = 16  # connections for one order: more of them make nothing faster, and a peer takes 256 from one address
PAGE, PAGE_MAX = 50, 500  # items on a page of a list, unless asked, and at most
PAGES = frozenset({"after", "limit"})  # what every list is asked with
NUMBER_CHARACTERS_MAX = 19  # as many as 2^63 - 1 has, the largest number that a store keeps
CALENDAR_ENDS = 253_402_300_799.0  # POSIX seconds of the last second that can be written: an order of before may have a later end
Limit = Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 1, "maximum": PAGE_MAX})]


class Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Unknown members are mistakes, and mistakes are said."""


class Publish(Body):
    """PUT /v1/datasets/{id}."""

    title: str
    source: dict[str, Any]
    policies: list[dict[str, Any]]
    description: str | None = None
    keywords: tuple[str, ...] = ()
    media_type: str | None = None
    manual: bool = False
    properties: dict[str, Any] = {}
    counter: Annotated[str, msgspec.Meta(extra_json_schema={"enum": COUNTERS})] = COUNTERS[0]
    envelope: dict[str, Any] | None = None
    templates: list[dict[str, Any] | None] = []
    binding: bool = False


class CatalogQuery(Body):
    """POST /v1/catalog."""

    peer: str
    after: str | None = None
    filter: list[Any] = []


class DatasetQuery(Body):
    """POST /v1/catalog/dataset."""

    peer: str
    dataset: str


class Purposed(Body, kw_only=True):
    """What names purposes, if any. Raises InvalidRequest for one that is no name."""

    purposes: tuple[Annotated[str, msgspec.Meta(extra_json_schema={"pattern": r"\S"})], ...] = ()

    def __post_init__(self) -> None:
        for number, purpose in enumerate(self.purposes):
            if not purpose.strip():
                text = "a purpose is empty; say what the data are for, as `research`, or leave it out and the offer's own purposes count"
                raise InvalidRequest(text, pointer=f"/purposes/{number}")


class Negotiate(Purposed):
    """POST /v1/negotiations."""

    peer: str
    dataset: str
    offer: str | None = None
    policy: dict[str, Any] | None = None
    accept: Annotated[str, msgspec.Meta(extra_json_schema={"enum": ACCEPTS})] = "permitted"
    acceptance: dict[str, Any] | list[dict[str, Any]] = []


class MakeOffer(Body):
    """POST /v1/negotiations/offers."""

    peer: str
    dataset: str
    offer: str


class Counter(Body):
    """POST /v1/negotiations/{pid}/counter."""

    policy: dict[str, Any]


class Reasoned(Body, kw_only=True):
    """What gives a reason, which the peer reads and evidence holds. Raises TellsSecret for one that neither may."""

    reason: str

    def __post_init__(self) -> None:
        if tells_secret(self.reason):
            text = "the reason looks like a token or a key: the peer would read it, and it would stay on record; say it without that"
            raise TellsSecret(text, pointer="/reason")


class Reason(Reasoned):
    """Body of what an operator does to a process; may be empty."""

    reason: str = "ended by an operator"


class Settled(Reasoned):
    """POST /v1/transfers/{pid}/settle-dispute; may be empty."""

    reason: str = "settled by an operator"


class Released(Reasoned):
    """POST /v1/agreements/{id}/release-credit; may be empty."""

    reason: str = "released by an operator"


class Performance(Body):
    """POST /v1/agreements/{id}/performances. Raises TellsSecret for what no record may have."""

    duty: str
    action: str | None = None
    at: str | None = None
    by: str | None = None
    amounts: dict[str, str] = {}

    def __post_init__(self) -> None:
        said = {"action": self.action, "by": self.by, "amounts": self.amounts}
        if (found := next(secrets_in(said), None)) is not None:
            text = "this looks like a token or a key, and what is recorded of an act is evidence for good; say it without that"
            raise TellsSecret(text, pointer="/amounts" if found[0].startswith("/amounts") else found[0])


class Transfer(Body):
    """POST /v1/transfers."""

    agreement: str
    format: str = "HttpData-PULL"


class OrderPull(Purposed):
    """POST /v1/pulls. `range` is a range of bytes of data with an end, as HTTP spells one (RFC 9110, 14.1.2): `0-99`, `100-`, `-100`. The
    leaves that hold it are proven and signed for whole. A budget has to pay for all of the data as the transfer starts."""

    peer: str
    dataset: str
    out: str
    parallel: Annotated[int, msgspec.Meta(ge=0, le=PARALLEL_MAX)] = 0
    most_bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    seconds: Annotated[float, msgspec.Meta(gt=0, le=SECONDS_MAX)] | None = None
    push: bool = False
    range: str | None = None


def answer(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A document as the body of an answer."""
    return Whole(orjson.dumps(document), status, headers)


def decode(body: bytes, shape: type[Any]) -> Any:
    """Read a body as `shape`. Raises InvalidRequest with the RFC 6901 place of the fault. What is no message for a peer is none
    here either: what an operator says becomes records and messages."""
    try:
        return msgspec.convert(wire.load(body or b"{}"), type=shape)
    except WireError as e:
        raise InvalidRequest(e.message) from None
    except msgspec.ValidationError as e:
        text, _, where = str(e).partition(" - at `$")
        pointer = where.rstrip("`").replace(".", "/").replace("[", "/").replace("]", "")
        raise InvalidRequest(f"{text[:1].lower()}{text[1:]}{f' at `{pointer}`' if pointer else ''}", pointer=pointer) from None


def number_of(name: str, said: str, low: int, high: int) -> int:
    """A whole number of a query. Raises InvalidRequest."""
    if not (said.isascii() and said.isdecimal() and len(said) <= NUMBER_CHARACTERS_MAX and low <= int(said) <= high):
        raise InvalidRequest(f"`{name}` is `{said[:40]}`; it is a whole number from {low} to {high}")
    return int(said)


def limit_of(query: Mapping[str, str]) -> int:
    """How many items a page of a list has. Raises InvalidRequest."""
    return number_of("limit", query.get("limit", str(PAGE)), 1, PAGE_MAX)


def one_of(query: Mapping[str, str], name: str, known: Sequence[str]) -> str | None:
    """A value of a query, None if it is not given. Raises InvalidRequest for one that nothing has: a list that is empty says that there is
    nothing of the kind."""
    said = query.get(name)
    if said is not None and said not in known:
        raise InvalidRequest(f"`{name}` is `{said[:40]}`; it is one of {', '.join(known)}")
    return said


def demand_known(query: Mapping[str, str], what: str, parameters: Collection[str]) -> None:
    """Raise InvalidRequest for a parameter that is not taken, or that stands twice: a misspelled `from` would be an invoice of everything,
    and of two nobody knows which is meant."""
    names = [name for name, _ in query.items()]  # of the keys alone each comes once
    if twice := [name for name in names if names.count(name) > 1]:
        raise InvalidRequest(f"`{twice[0][:40]}` stands twice in the query; say it once")
    if strange := sorted(set(query) - set(parameters)):
        known = ", ".join(f"`{name}`" for name in sorted(parameters)) or "no parameters"
        raise InvalidRequest(f"`{strange[0][:40]}` is not known here; {what} takes {known}")


def seconds_of(said: str | None) -> float:
    """How long a call is ready to wait. Raises InvalidRequest."""
    try:
        seconds = WAIT_SECONDS if said is None else float(said)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= WAIT_SECONDS_MAX:
        raise InvalidRequest(f"`timeout_seconds` is `{(said or '')[:40]}`; it is a number from 0 to {WAIT_SECONDS_MAX:g}")
    return seconds


def read_instant(said: str, name: str) -> float:
    """An instant as POSIX seconds; `name` is that of the member or parameter. Raises InvalidRequest."""
    try:
        at = datetime.fromisoformat(said)
        if at.tzinfo is None and "T" in said:
            raise ValueError
        seconds = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
        datetime.fromtimestamp(seconds, UTC)  # the calendar ends: what lies before or behind it is no instant here
        return seconds
    except (ValueError, OverflowError):
        remedy = "write it as 2030-12-31T18:00:00Z, with its zone, or as a day, which begins at midnight UTC"
        raise InvalidRequest(f"`{name}` is `{said[:40]}`, which is no instant; {remedy}", pointer=f"/{name}") from None


def instant(at: float | None) -> str | None:
    """POSIX seconds as RFC 3339 in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if at is not None else None


def participant_view(p: Participant) -> dict[str, Any]:
    return {"id": p.id, "name": p.name, "role": p.role, "protocol": p.protocol}


def offer_view(offer: Offer) -> dict[str, Any]:
    """An offer of ours, with what its forms are opened with."""
    more = {"envelope": offer.envelope, "template": offer.template}
    shown = {"id": offer.id, "policy": offer.policy, "manual": offer.manual, "counter": offer.counter}
    return shown | {name: value for name, value in more.items() if value is not None}


def dataset_view(dataset: Dataset) -> dict[str, Any]:
    document = orjson.loads(dataset.document)
    return {
        "id": dataset.id,
        "title": document.get("dct:title"),
        "size_bytes": dataset.size_bytes,
        "sha256": dataset.sha256.hex() if dataset.sha256 else None,
        "offers": [offer_view(offer) for offer in dataset.offers],
        "version": dataset.version,
        "binding": instant(dataset.binding),
        "updated": instant(dataset.updated),
    }


def process_view(p: Process, last_error: str | None) -> dict[str, Any]:
    """A negotiation or a transfer. `waiting` says whose turn it is: `approval` an operator's, to decide; `us` ours, with nothing on
    its way, so that it is put off or a dead letter; `peer`; or nobody's."""
    waiting = p.detail.get("waiting")
    if waiting is None and p.in_flight is None and ours_to_say(p):
        waiting = "us"
    elif waiting is None and not p.final and (p.kind is Kind.NEGOTIATION or p.state == "REQUESTED"):
        waiting = "peer"
    view = {
        "pid": p.pid,
        "role": p.role,
        "peer": p.peer,
        "peer_pid": p.peer_pid,
        "state": p.state,
        "dataset": p.dataset,
        "agreement": p.agreement,
        "waiting": waiting,
        "code": p.detail.get("code"),
        "reasons": p.detail.get("reasons", []),
        "grounds": p.detail.get("grounds", []),
        "ended_by": p.detail.get("ended_by"),
        "decision": p.detail.get("decision"),
        "claims": p.detail.get("claims"),
        "in_flight": p.in_flight,
        "last_error": last_error,
        "due": instant(p.due),
        "created": instant(p.created),
        "updated": instant(p.updated),
    }
    extra = (
        {"terms": p.detail.get("terms"), "changes": p.detail.get("changes", []), "instead": p.detail.get("instead", [])}
        if p.kind is Kind.NEGOTIATION
        else {"format": p.detail.get("format"), "ends": instant(p.detail.get("ends")), "suspended_by": _suspended_by(p)}
    )
    return view | extra


def _suspended_by(p: Process) -> str | None:
    """By whose word nothing of a transfer may leave now: ours also where the peer has refused to suspend, or to go on after it, which
    `ended_by` and the reasons say."""
    return None if p.meant != "SUSPENDED" else "us" if p.halted else "peer"


def agreement_view(a: Agreement) -> dict[str, Any]:
    return {
        "id": a.id,
        "peer": a.peer,
        "dataset": a.dataset,
        "provider": a.provider,
        "consumer": a.consumer,
        "document": a.document,
        "ends": instant(a.ends),
        "closed": instant(a.closed),
        "closed_by": a.closed_by,
        "closing": None,  # which the agreement alone does not say, as what follows
        "closing_refused": None,
        "reason": a.reason,
        "performed": [{**act, "at": instant(act["at"])} for act in a.performed],
        "final": a.final,
        "negotiation": a.negotiation,
        "created": instant(a.created),
    }


def pull_view(p: Pull) -> dict[str, Any]:
    return {
        "id": p.id,
        "stage": p.stage,
        "peer": p.peer,
        "dataset": p.dataset,
        "out": p.out,
        "purposes": list(p.purposes),
        "size_bytes": p.size_bytes,
        "received_bytes": p.received_bytes,
        "part_bytes": part_bytes(p),
        "sha256": p.sha256.hex() if p.sha256 else None,
        "negotiation": p.negotiation,
        "agreement": p.agreement,
        "transfer": p.transfer,
        "reused": p.agreement is not None and p.negotiation is None,
        "reasons": list(p.reasons),
        "most_bytes": p.most_bytes,
        "range": p.range,
        "until": instant(min(p.until, CALENDAR_ENDS)) if p.until is not None else None,
        "created": instant(p.created),
        "updated": instant(p.updated),
    }


def event_view(e: Evidence) -> dict[str, Any]:
    return {
        "sequence": e.sequence,
        "what": e.what,
        "kind": e.kind,
        "pid": e.pid,
        "peer": e.peer,
        "state": e.state,
        "move": e.move,
        "digest": e.digest.hex() if e.digest else None,
        "at": e.at,
        "detail": e.detail,
    }


def event_lines(e: Evidence) -> bytes:
    """An event as the feed sends it (HTML, server-sent events)."""
    return f"id: {e.sequence}\nevent: {e.what}\ndata: ".encode() + orjson.dumps(event_view(e)) + b"\n\n"


def letter_view(row: Outbound) -> dict[str, Any]:
    return {
        "id": row.id,
        "pid": row.pid,
        "kind": row.kind,
        "peer": row.peer,
        "move": row.move,
        "error": row.error,
        "created": instant(row.created),
        "deadline": instant(row.deadline),
    }
