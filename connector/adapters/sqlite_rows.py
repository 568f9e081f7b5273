"""Records as rows of the SQLite store and back: the statements of every table, and what they bind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move, Role
from connector.records import Agreement, Dataset, Edr, Evidence, Idempotent, Inbox, Offer, Outbound, Pull, Reservation, Usage

Row = tuple[Any, ...]
Statement = tuple[str, Row]

KINDS = {kind.value: kind for kind in Kind}  # a look-up costs a third of a call of the enumeration
ROLES = {role.value: role for role in Role}
MOVES = {move.value: move for move in Move}
CLOSED = frozenset({"done", "failed"})  # the stages of a pull from which nothing follows


def _insert(table: str, columns: str) -> str:
    names = columns.split(", ")
    return f"insert into {table}({columns}) values ({', '.join('?' * len(names))})"  # noqa: S608 - names from the constants below


def _upsert(table: str, columns: str, key: str) -> str:
    others = [name for name in columns.split(", ") if name not in key.split(", ")]
    return f"{_insert(table, columns)} on conflict({key}) do update set {', '.join(f'{name} = excluded.{name}' for name in others)}"


def _select(table: str, columns: str) -> str:
    return f"select {columns} from {table}"  # noqa: S608 - names from the constants below


PROCESS = "participant, pid, kind, role, peer, peer_pid, state, final, dataset, agreement, due, created, updated, version, rest"
INBOX = "participant, pid, move, digest, body, status, answer, at"
OUTBOX = (
    "participant, id, pid, kind, peer, act, move, path, body, "
    "due, deadline, created, attempts, dead, error, trace, claimed_by, epoch, until"
)
EVIDENCE = "participant, sequence, what, kind, pid, peer, state, at, move, digest, detail"
AGREEMENT = "participant, id, peer, dataset, created, rest"
USAGE = "participant, agreement, open, version, rest"
DATASET = "participant, id, document, version, rest"
EDR = "participant, transfer, rest"
PULL = "participant, id, open, created, version, rest"
IDEMPOTENT = "participant, key, digest, answer, created"

SAVE_PROCESS = _upsert("process", PROCESS, "participant, pid")
SAVE_INBOX = _insert("inbox", INBOX)
SAVE_OUTBOX = _upsert("outbox", OUTBOX, "participant, id")
SAVE_EVIDENCE = _insert("evidence", EVIDENCE)
SAVE_AGREEMENT = _upsert("agreement", AGREEMENT, "participant, id")
SAVE_USAGE = _upsert("usage", USAGE, "participant, agreement")
SAVE_DATASET = _upsert("dataset", DATASET, "participant, id")
SAVE_OFFER = _insert("offer", "participant, id, dataset")
SAVE_EDR = _upsert("edr", EDR, "participant, transfer")
SAVE_PULL = _upsert("pull", PULL, "participant, id")
SAVE_IDEMPOTENT = _upsert("idempotent", IDEMPOTENT, "participant, key")
SETTLE = "delete from outbox where participant = ? and id = ?"
DELETE_USAGE = "delete from usage where participant = ? and agreement = ?"
DELETE_OFFERS = "delete from offer where participant = ? and dataset = ?"

SELECT_PROCESS = _select("process", PROCESS)
SELECT_INBOX = _select("inbox", INBOX)
SELECT_OUTBOX = _select("outbox", OUTBOX)
SELECT_EVIDENCE = _select("evidence", EVIDENCE)
SELECT_AGREEMENT = _select("agreement", AGREEMENT)
SELECT_USAGE = _select("usage", USAGE)
SELECT_DATASET = _select("dataset", DATASET)
SELECT_EDR = _select("edr", EDR)
SELECT_PULL = _select("pull", PULL)
SELECT_IDEMPOTENT = _select("idempotent", IDEMPOTENT)


def _json(value: Any) -> bytes:
    """Plain JSON. Raises TypeError for anything else, before any statement has run."""
    return orjson.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a `{type(value).__name__}` is not plain JSON and cannot be stored")


def _hex(digest: bytes | None) -> str | None:
    return None if digest is None else digest.hex()


def _bytes(digits: str | None) -> bytes | None:
    return None if digits is None else bytes.fromhex(digits)


def _save_process(number: int, p: Process) -> list[Statement]:
    rest = {
        "callback": p.callback,
        "in_flight": p.in_flight,
        "in_flight_id": p.in_flight_id,
        "last_accepted": _hex(p.last_accepted),
        "resumed": p.resumed,
        "halted": p.halted,
        "detail": p.detail,
    }
    state, final = str(p.state), int(p.final)
    key = (number, p.pid, p.kind.value, p.role.value, p.peer, p.peer_pid)
    return [(SAVE_PROCESS, (*key, state, final, p.dataset, p.agreement, p.due, p.created, p.updated, p.version, _json(rest)))]


def process_of(row: Row) -> Process:
    _, pid, kind, role, peer, peer_pid, state, _, dataset, agreement, due, created, updated, version, blob = row
    rest = orjson.loads(blob)
    in_flight = rest["in_flight"]
    return Process(
        kind=KINDS[kind],
        pid=pid,
        role=ROLES[role],
        peer=peer,
        callback=rest["callback"],
        state=state,
        peer_pid=peer_pid,
        in_flight=MOVES[in_flight] if in_flight else None,
        in_flight_id=rest["in_flight_id"],
        last_accepted=_bytes(rest["last_accepted"]),
        resumed=rest["resumed"],
        halted=rest["halted"],
        dataset=dataset,
        agreement=agreement,
        detail=rest["detail"],
        due=due,
        created=created,
        updated=updated,
        version=version,
    )


def _save_inbox(number: int, i: Inbox) -> list[Statement]:
    return [(SAVE_INBOX, (number, i.pid, i.move.value, i.digest, i.body, i.status, i.answer, i.at))]


def inbox_of(row: Row) -> Inbox:
    _, pid, move, digest, body, status, answer, at = row
    return Inbox(pid, MOVES[move], digest, body, status, answer, at)


def save_outbound(number: int, o: Outbound) -> Statement:
    what = (number, o.id, o.pid, o.kind.value, o.peer, o.act, o.move.value, o.path, o.body)
    when = (o.due, o.deadline, o.created, o.attempts, int(o.dead), o.error, o.trace, o.claimed_by, o.epoch, o.until)
    return SAVE_OUTBOX, what + when


def outbound_of(row: Row) -> Outbound:
    _, id, pid, kind, peer, act, move, path, body, due, deadline, created, attempts, dead, error, trace, claimed_by, epoch, until = row
    return Outbound(
        id=id,
        pid=pid,
        kind=KINDS[kind],
        peer=peer,
        act=act,
        move=MOVES[move],
        path=path,
        body=body,
        due=due,
        deadline=deadline,
        created=created,
        attempts=attempts,
        dead=bool(dead),
        error=error,
        trace=trace,
        claimed_by=claimed_by,
        epoch=epoch,
        until=until,
    )


def values_of_evidence(number: int, e: Evidence) -> Row:
    """What `SAVE_EVIDENCE` binds, but for the sequence number (the second value), which is known in the transaction."""
    kind, move = e.kind and e.kind.value, e.move and e.move.value
    state, detail = e.state and str(e.state), _json(e.detail) if e.detail else None
    return number, 0, e.what, kind, e.pid, e.peer, state, e.at, move, e.digest, detail


def evidence_of(row: Row) -> Evidence:
    _, sequence, what, kind, pid, peer, state, at, move, digest, detail = row
    facts = orjson.loads(detail) if detail else {}
    return Evidence(what, KINDS[kind] if kind else None, pid, peer, state, at, MOVES[move] if move else None, digest, facts, sequence)


def _save_agreement(number: int, a: Agreement) -> list[Statement]:
    rest = {
        "negotiation": a.negotiation,
        "provider": a.provider,
        "consumer": a.consumer,
        "document": a.document,
        "digest": a.digest.hex(),
        "final": a.final,
        "ends": a.ends,
        "closed": a.closed,
        "closed_by": a.closed_by,
        "reason": a.reason,
        "version": a.version,
        "performed": a.performed,
    }
    return [(SAVE_AGREEMENT, (number, a.id, a.peer, a.dataset, a.created, _json(rest)))]


def agreement_of(row: Row) -> Agreement:
    _, id, peer, dataset, created, blob = row
    rest = orjson.loads(blob)
    rest["digest"] = bytes.fromhex(rest["digest"])
    rest["performed"] = tuple(rest.get("performed", ()))
    return Agreement(id=id, peer=peer, dataset=dataset, created=created, **rest)


def _save_usage(number: int, u: Usage) -> list[Statement]:
    rows = [[each.id, each.transfer, each.rule, each.operand, each.amount, each.at] for each in u.open]
    rest = {"posted": u.posted, "open": rows, "updated": u.updated}
    return [(SAVE_USAGE, (number, u.agreement, int(bool(u.open)), u.version, _json(rest)))]


def usage_of(row: Row) -> Usage:
    _, agreement, _, version, blob = row
    rest = orjson.loads(blob)
    posted, reservations = tuple(map(tuple, rest["posted"])), tuple(Reservation(*each) for each in rest["open"])
    return Usage(agreement, posted, reservations, version, rest["updated"])


def _save_dataset(number: int, d: Dataset) -> list[Statement]:
    rest = {
        "source": d.source,
        "offers": [[o.id, o.policy, o.manual, o.counter, o.envelope, o.template] for o in d.offers],
        "size_bytes": d.size_bytes,
        "sha256": _hex(d.sha256),
        "updated": d.updated,
        "binding": d.binding,
    }
    row = (SAVE_DATASET, (number, d.id, d.document, d.version, _json(rest)))
    return [row, (DELETE_OFFERS, (number, d.id)), *((SAVE_OFFER, (number, offer.id, d.id)) for offer in d.offers)]


def dataset_of(row: Row) -> Dataset:
    _, dataset, document, version, blob = row
    rest = orjson.loads(blob)
    offers = tuple(Offer(id, dataset, *more) for id, *more in rest["offers"])  # rows of before have fewer members
    size_bytes, sha256 = rest["size_bytes"], _bytes(rest["sha256"])
    return Dataset(dataset, document, rest["source"], offers, size_bytes, sha256, version, rest["updated"], rest.get("binding"))


def _save_edr(number: int, e: Edr) -> list[Statement]:
    rest = {
        "address": e.address,
        "access_token": e.access_token,
        "refresh_token": e.refresh_token,
        "refresh_endpoint": e.refresh_endpoint,
        "expires": e.expires,
        "updated": e.updated,
    }
    return [(SAVE_EDR, (number, e.transfer, _json(rest)))]


def edr_of(row: Row) -> Edr:
    _, transfer, blob = row
    return Edr(transfer=transfer, **orjson.loads(blob))


def _save_pull(number: int, p: Pull) -> list[Statement]:
    rest = {
        "peer": p.peer,
        "dataset": p.dataset,
        "out": p.out,
        "stage": p.stage,
        "purposes": p.purposes,
        "negotiation": p.negotiation,
        "agreement": p.agreement,
        "transfer": p.transfer,
        "validator": p.validator,
        "size_bytes": p.size_bytes,
        "sha256": _hex(p.sha256),
        "received_bytes": p.received_bytes,
        "reasons": p.reasons,
        "stated": p.stated,
        "part": p.part,
        "transfers": p.transfers,
        "updated": p.updated,
    }
    return [(SAVE_PULL, (number, p.id, int(p.stage not in CLOSED), p.created, p.version, _json(rest)))]


def pull_of(row: Row) -> Pull:
    _, id, _, created, version, blob = row
    rest = orjson.loads(blob)
    rest |= {"purposes": tuple(rest["purposes"]), "reasons": tuple(rest["reasons"]), "sha256": _bytes(rest["sha256"])}
    return Pull(id=id, created=created, version=version, **rest)


def _save_idempotent(number: int, i: Idempotent) -> list[Statement]:
    return [(SAVE_IDEMPOTENT, (number, i.key, i.digest, i.answer, i.created))]


def idempotent_of(row: Row) -> Idempotent:
    _, key, digest, answer, created = row
    return Idempotent(key, digest, answer, created)


SAVES: dict[type[Any], Callable[[int, Any], list[Statement]]] = {
    Process: _save_process,
    Inbox: _save_inbox,
    Agreement: _save_agreement,
    Usage: _save_usage,
    Dataset: _save_dataset,
    Edr: _save_edr,
    Pull: _save_pull,
    Idempotent: _save_idempotent,
}

# What is run with (participant, key) when a record is deleted.
DELETES: dict[type[Any], tuple[str, ...]] = {
    Process: ("delete from process where participant = ? and pid = ?", "delete from inbox where participant = ? and pid = ?"),
    Inbox: ("delete from inbox where participant = ? and pid = ?",),
    Agreement: ("delete from agreement where participant = ? and id = ?", DELETE_USAGE),
    Usage: (DELETE_USAGE,),
    Dataset: ("delete from dataset where participant = ? and id = ?", DELETE_OFFERS),
    Edr: ("delete from edr where participant = ? and transfer = ?",),
    Pull: ("delete from pull where participant = ? and id = ?",),
    Idempotent: ("delete from idempotent where participant = ? and key = ?",),
}

# What is asked with (participant, key) when a record is expected: its version, or 0 for one that has none.
VERSIONS: dict[type[Any], str] = {
    Process: "select version, peer_pid from process where participant = ? and pid = ?",
    Dataset: "select version from dataset where participant = ? and id = ?",
    Usage: "select version from usage where participant = ? and agreement = ?",
    Pull: "select version from pull where participant = ? and id = ?",
    Outbound: "select epoch from outbox where participant = ? and id = ?",
    # Rows from before agreements had one are of version 0.
    Agreement: "select coalesce(json_extract(cast(rest as text), '$.version'), 0) from agreement where participant = ? and id = ?",
    Offer: "select 0 from offer where participant = ? and id = ?",
    Edr: "select 0 from edr where participant = ? and transfer = ?",
    Idempotent: "select 0 from idempotent where participant = ? and key = ?",
}
VERSIONED = frozenset({Process, Dataset, Agreement, Usage, Pull, Outbound})
NEWEST_EVIDENCE = "select max(sequence) from evidence where participant = ?"
PROCESS_OF_PEER = "select version, pid from process where participant = ? and kind = ? and peer = ? and peer_pid = ?"
DATASET_OF_OFFER = "select dataset from offer where participant = ? and id = ?"
