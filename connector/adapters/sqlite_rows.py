"""Records as rows of the SQLite store and back: the statements of every table, and what they bind."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from connector.adapters_stores.sqlite_ledger import KINDS, LEDGER_DELETES, LEDGER_INSTEAD, LEDGER_SAVES, LEDGER_VERSIONS, MOVES, ROLES
from connector.adapters_stores.sqlite_statements import NULL, Row, Statement, blob, bytes_of, hex_of, insert, json_of, select, upsert
from connector.dsp.exchange import Process
from connector.records import Agreement, Dataset, Edr, Idempotent, Inbox, Listed, Offer, Outbound, Pull, Reservation, Usage

CLOSED = frozenset({"done", "failed"})  # the stages of a pull from which nothing follows


PROCESS = "participant, pid, kind, role, peer, peer_pid, state, final, dataset, agreement, due, created, updated, version, rest"
OUTBOX = (
    "participant, id, pid, kind, peer, act, move, path, body, "
    "due, deadline, created, attempts, dead, error, trace, claimed_by, epoch, until"
)
AGREEMENT = "participant, id, peer, dataset, created, rest"
USAGE = "participant, agreement, open, version, rest"
DATASET = "participant, id, document, version, rest"
EDR = "participant, transfer, rest"
PULL = "participant, id, open, created, version, rest"
IDEMPOTENT = "participant, key, digest, answer, created"

SAVE_PROCESS = upsert("process", PROCESS, "participant, pid")
# An index is written for whatever a statement sets of it, be it the same as before: so a step sets what it can change, and no more.
BEGIN_PROCESS = f"{insert('process', PROCESS)} on conflict do nothing"
MOVED = "state = ?7, dataset = ?9, agreement = ?10, due = ?11, updated = ?13, version = ?14, rest = ?15"
SAME = "participant = ?1 and pid = ?2 and version = ?16 and kind = ?3 and role = ?4 and peer = ?5 and created = ?12"
MOVE_PROCESS = f"update process set {MOVED} where {SAME} and peer_pid is ?6 and final = ?8"  # noqa: S608 - constants, as are those below
END_PROCESS = f"update process set {MOVED}, final = ?8 where {SAME} and peer_pid is ?6"  # noqa: S608
LEARN_PEER_PID = f"update or ignore process set {MOVED}, peer_pid = ?6 where {SAME} and peer_pid is null and final = ?8"  # noqa: S608
SAVE_INBOX = """
    insert or replace into inbox(process, move, digest, body, status, answer, at)
    select id, ?3, ?4, ?5, ?6, ?7, ?8 from process where participant = ?1 and pid = ?2"""
DELETE_INBOX = "delete from inbox where process = (select id from process where participant = ? and pid = ?)"
SAVE_OUTBOX = upsert("outbox", OUTBOX, "participant, id")
SAVE_AGREEMENT = f"""
    {insert("agreement", AGREEMENT)} on conflict(participant, id) do update set rest = excluded.rest
    where peer = excluded.peer and dataset = excluded.dataset and created = excluded.created"""
SAVE_USAGE = upsert("usage", USAGE, "participant, agreement")
SAVE_DATASET = upsert("dataset", DATASET, "participant, id")
SAVE_OFFER = insert("offer", "participant, id, dataset")
SAVE_EDR = upsert("edr", EDR, "participant, transfer")
SAVE_PULL = upsert("pull", PULL, "participant, id")
SAVE_IDEMPOTENT = upsert("idempotent", IDEMPOTENT, "participant, key")
SETTLE = "delete from outbox where participant = ? and id = ?"
DELETE_AGREEMENT = "delete from agreement where participant = ? and id = ?"
DELETE_USAGE = "delete from usage where participant = ? and agreement = ?"
DELETE_DATASET = "delete from dataset where participant = ? and id = ?"
DELETE_OFFERS = "delete from offer where participant = ? and dataset = ?"

SELECT_PROCESS = select("process", PROCESS)
SELECT_INBOX = """
    select participant, pid, move, digest, body, status, answer, at from process join inbox on inbox.process = process.id"""
SELECT_OUTBOX = select("outbox", OUTBOX)
SELECT_AGREEMENT = select("agreement", AGREEMENT)
SELECT_USAGE = select("usage", USAGE)
SELECT_DATASET = select("dataset", DATASET)
SELECT_EDR = select("edr", EDR)
SELECT_PULL = select("pull", PULL)
SELECT_IDEMPOTENT = select("idempotent", IDEMPOTENT)


def values_of_process(number: int, p: Process) -> Row:
    """What `SAVE_PROCESS` binds."""
    rest = {
        "callback": p.callback,
        "in_flight": p.in_flight,
        "in_flight_id": p.in_flight_id,
        "last_accepted": hex_of(p.last_accepted),
        "resumed": p.resumed,
        "halted": p.halted,
        "detail": p.detail,
    }
    state, final = str(p.state), int(p.final)
    key = (number, p.pid, str(p.kind), str(p.role), p.peer, p.peer_pid)
    due = NULL if p.due is None else p.due
    return (*key, state, final, p.dataset, p.agreement, due, p.created, p.updated, p.version, blob(json_of(rest)))


def _save_process(number: int, p: Process) -> list[Statement]:
    return [(SAVE_PROCESS, values_of_process(number, p))]


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
        last_accepted=bytes_of(rest["last_accepted"]),
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
    return [(SAVE_INBOX, (number, i.pid, str(i.move), blob(i.digest), blob(i.body), i.status, blob(i.answer), i.at))]


def inbox_of(row: Row) -> Inbox:
    _, pid, move, digest, body, status, answer, at = row
    return Inbox(pid, MOVES[move], digest, body, status, answer, at)


def save_outbound(number: int, o: Outbound) -> Statement:
    what = (number, o.id, o.pid, str(o.kind), o.peer, o.act, str(o.move), o.path, blob(o.body))
    error, claimed_by = NULL if o.error is None else o.error, NULL if o.claimed_by is None else o.claimed_by
    return SAVE_OUTBOX, (*what, o.due, o.deadline, o.created, o.attempts, int(o.dead), error, o.trace, claimed_by, o.epoch, o.until)


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
    return [(SAVE_AGREEMENT, (number, a.id, a.peer, a.dataset, a.created, blob(json_of(rest))))]


def agreement_of(row: Row) -> Agreement:
    _, id, peer, dataset, created, blob = row
    rest = orjson.loads(blob)
    rest["digest"] = bytes.fromhex(rest["digest"])
    rest["performed"] = tuple(rest.get("performed", ()))
    return Agreement(id=id, peer=peer, dataset=dataset, created=created, **rest)


def _save_usage(number: int, u: Usage) -> list[Statement]:
    rows = [[each.id, each.transfer, each.rule, each.operand, each.amount, each.at] for each in u.open]
    rest = {"posted": u.posted, "open": rows, "updated": u.updated}
    return [(SAVE_USAGE, (number, u.agreement, int(bool(u.open)), u.version, json_of(rest)))]


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
        "sha256": hex_of(d.sha256),
        "updated": d.updated,
        "binding": d.binding,
    }
    row = (SAVE_DATASET, (number, d.id, d.document, d.version, json_of(rest)))
    return [row, (DELETE_OFFERS, (number, d.id)), *((SAVE_OFFER, (number, offer.id, d.id)) for offer in d.offers)]


def dataset_of(row: Row) -> Dataset:
    _, dataset, document, version, blob = row
    rest = orjson.loads(blob)
    offers = tuple(Offer(id, dataset, *more) for id, *more in rest["offers"])  # rows of before have fewer members
    size_bytes, sha256 = rest["size_bytes"], bytes_of(rest["sha256"])
    return Dataset(dataset, document, rest["source"], offers, size_bytes, sha256, version, rest["updated"], rest.get("binding"))


def listed_of(row: Row) -> Listed:
    _, dataset, document, _, blob = row
    return Listed(dataset, document, hash(blob), partial(dataset_of, row))


def _save_edr(number: int, e: Edr) -> list[Statement]:
    rest = {
        "address": e.address,
        "access_token": e.access_token,
        "refresh_token": e.refresh_token,
        "refresh_endpoint": e.refresh_endpoint,
        "expires": e.expires,
        "updated": e.updated,
    }
    return [(SAVE_EDR, (number, e.transfer, json_of(rest)))]


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
        "sha256": hex_of(p.sha256),
        "received_bytes": p.received_bytes,
        "reasons": p.reasons,
        "stated": p.stated,
        "part": p.part,
        "transfers": p.transfers,
        "earlier": p.earlier,
        "parallel": p.parallel,
        "most_bytes": p.most_bytes,
        "until": p.until,
        "push": p.push,
        "range": p.range,
        "updated": p.updated,
    }
    return [(SAVE_PULL, (number, p.id, int(p.stage not in CLOSED), p.created, p.version, json_of(rest)))]


def pull_of(row: Row) -> Pull:
    _, id, _, created, version, blob = row
    rest = orjson.loads(blob)
    rest |= {
        "purposes": tuple(rest["purposes"]),
        "reasons": tuple(rest["reasons"]),
        "earlier": tuple(rest.get("earlier", ())),
        "sha256": bytes_of(rest["sha256"]),
    }
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
    **LEDGER_SAVES,
}

# What is run instead of a statement that has found nothing to write: it leaves indexes alone, and takes the rest as it is.
INSTEAD = {SAVE_AGREEMENT: upsert("agreement", AGREEMENT, "participant, id"), **LEDGER_INSTEAD}

# What is run with (participant, key) when a record is deleted.
DELETES: dict[type[Any], tuple[str, ...]] = {
    Process: (DELETE_INBOX, "delete from process where participant = ? and pid = ?"),
    Inbox: (DELETE_INBOX,),
    Agreement: (DELETE_AGREEMENT, DELETE_USAGE),
    Usage: (DELETE_USAGE,),
    Dataset: (DELETE_DATASET, DELETE_OFFERS),
    Edr: ("delete from edr where participant = ? and transfer = ?",),
    Pull: ("delete from pull where participant = ? and id = ?",),
    Idempotent: ("delete from idempotent where participant = ? and key = ?",),
    **LEDGER_DELETES,
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
    **LEDGER_VERSIONS,
}
VERSIONED = frozenset({Process, Dataset, Agreement, Usage, Pull, Outbound, *LEDGER_VERSIONS})
PROCESS_OF_PEER = "select version, pid from process where participant = ? and kind = ? and peer = ? and peer_pid = ?"
DATASET_OF_OFFER = "select dataset from offer where participant = ? and id = ?"
