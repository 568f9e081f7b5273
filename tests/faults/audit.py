"""Compares what was promised with what both connectors have on disk. *Lost* is what was acknowledged and has no effect on
both sides; *doubled* is a second negotiation, agreement, transfer or evidence row; *unequal* are a file and what it is billed by."""

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.ledger import (
    AGREED,
    CONSUMER,
    NEGOTIATION,
    OTHER,
    PROVIDER,
    REQUESTED,
    SIDES,
    STARTED,
    TRANSFER,
    Cosigned,
    Ledger,
    Order,
    Promise,
    Quota,
)

LOST, DOUBLED, UNEQUAL = "lost", "doubled", "unequal"
SENT, RECEIVED = "message-sent", "message-received"
CLOSED = ("message-acknowledged", "message-implied", "message-refused", "message-unanswered")  # what ends one in flight, one of them
COMPLETION, TERMINATION = "TransferCompletionMessage", "TerminationMessage"
STAGES = ("negotiate", "transfer", "download", "complete", "done")


class Process(NamedTuple):
    """A row of a process, as far as it matters here."""

    kind: str
    pid: str
    peer_pid: str | None
    state: str
    in_flight: str | None = None


class Agreement(NamedTuple):
    """A row of an agreement."""

    id: str
    negotiation: str
    digest: str
    final: bool


class Fact(NamedTuple):
    """A row of evidence."""

    what: str
    pid: str | None
    move: str | None
    pull: str | None = None
    stage: str | None = None


class Pull(NamedTuple):
    """A row of a pull."""

    id: str
    stage: str
    negotiation: str | None
    transfer: str | None


class Usage(NamedTuple):
    """What was used under an agreement, by the last part of the left operand's name, and how many reservations are open."""

    posted: Mapping[str, int]
    open: int


class Witnessed(NamedTuple):
    """A checkpoint of the log `origin` that is on disk with the signature of its owner or of its witness; `conflict` if it has
    contradicted itself."""

    origin: str
    size: int
    conflict: bool = False


@dataclass
class Book:
    """What one connector has on disk. `outbox` holds (pid, move) of each row, `files` the SHA-256 of each downloaded file, `usage`
    what was used by agreement, `logs` the origins of its own logs."""

    processes: list[Process] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    outbox: list[tuple[str, str]] = field(default_factory=list)
    pulls: list[Pull] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    usage: dict[str, Usage] = field(default_factory=dict)
    logs: list[str] = field(default_factory=list)
    witnessed: list[Witnessed] = field(default_factory=list)
    damage: str = ""


class Finding(NamedTuple):
    """Something that was lost, doubled or is unequal, with the job that it belongs to ("" if to none)."""

    kind: str
    job: str
    what: str


def read(database: Path, downloads: Path) -> Book:
    """Read the book of a connector that has stopped."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        rows = db.execute("select kind, pid, peer_pid, state, rest ->> 'in_flight' from process").fetchall()
        facts = db.execute("select what, pid, move, detail ->> 'pull', detail ->> 'stage' from evidence order by sequence").fetchall()
        agreements = db.execute("select id, rest ->> 'negotiation', rest ->> 'digest', rest ->> 'final' from agreement").fetchall()
        pulls = db.execute("select id, rest ->> 'stage', rest ->> 'negotiation', rest ->> 'transfer' from pull").fetchall()
        seen = db.execute("select id, rest ->> 'size', rest ->> 'conflict' is not null from witnessed").fetchall()
        check = db.execute("pragma integrity_check").fetchone()[0]
        return Book(
            [Process(*row) for row in rows],
            [Agreement(*row[:3], bool(row[3])) for row in agreements],
            [Fact(*row) for row in facts],
            db.execute("select pid, move from outbox").fetchall(),
            [Pull(*row) for row in pulls],
            [id for (id,) in db.execute("select id from dataset")],
            {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in downloads.iterdir()},
            {agreement: _usage(json.loads(rest)) for agreement, rest in db.execute("select agreement, rest from usage")},
            [origin for (origin,) in db.execute("select origin from log order by number")],
            [Witnessed(id.partition(" ")[2], size, bool(conflict)) for id, size, conflict in seen],
            "" if check == "ok" else str(check),
        )


def _usage(rest: Mapping[str, Any]) -> Usage:
    posted: Counter[str] = Counter()
    for _, operand, amount in rest["posted"]:
        posted[operand.replace(":", "/").rpartition("/")[2]] += amount
    return Usage(posted, len(rest["open"]))


def audit(ledger: Ledger, books: Mapping[str, Book]) -> list[Finding]:
    """Everything that was lost or doubled."""
    promises = [*ledger.promises, *(promise for order in ledger.orders for promise in _promised_by(order, books))]
    findings = [finding for promise in promises for finding in _of_promise(promise, books)]
    findings += [finding for order in ledger.orders for finding in _of_order(order, books[CONSUMER])]
    findings += [
        Finding(LOST, job, f"dataset {id} was published and is not there")
        for job, id in ledger.datasets
        if id not in books[PROVIDER].datasets
    ]
    findings += [
        finding for quota in ledger.quotas for finding in _of_quota(quota, books[PROVIDER].usage.get(quota.agreement, Usage({}, 0)))
    ]
    findings += [finding for cosigned in ledger.cosigned for finding in _of_cosigned(cosigned, books)]
    return [*findings, *_of_logs(books), *_unasked(ledger, promises, books), *_left_over(promises, books)]


def _promised_by(order: Order, books: Mapping[str, Book]) -> Iterator[Promise]:
    """The processes that a pull begins. Its transfer is completed by the consumer, by the provider if that was faster, or by both at
    once; then one of them has heard it from the other."""
    for pull in books[CONSUMER].pulls:
        if pull.id == order.id and pull.negotiation:
            yield Promise(order.job, CONSUMER, NEGOTIATION, pull.negotiation, REQUESTED + AGREED, "FINALIZED")
        if pull.id == order.id and pull.transfer:
            said = _completions(pull.transfer, books)
            heard = next((side for side in SIDES if RECEIVED in said[OTHER[side]]), CONSUMER if said[CONSUMER] else PROVIDER)
            crossed = ((OTHER[heard], COMPLETION),) if all(said[side][:1] == [SENT] for side in SIDES) else ()
            yield Promise(order.job, CONSUMER, TRANSFER, pull.transfer, (*STARTED, (heard, COMPLETION)), "COMPLETED", crossed=crossed)


def _completions(transfer: str, books: Mapping[str, Book]) -> dict[str, list[str]]:
    """By side what is on record of its completion, in order: who has received one sends none."""
    pids = {CONSUMER: {transfer}, PROVIDER: {process.pid for process in books[PROVIDER].processes if process.peer_pid == transfer}}
    return {
        side: [fact.what for fact in books[side].facts if fact.pid in pids[side] and fact.move == COMPLETION and fact.what not in CLOSED]
        for side in SIDES
    }


def _of_promise(promise: Promise, books: Mapping[str, Book]) -> Iterator[Finding]:
    """Both sides have the process once, in the promised state, and each message once in both records."""
    name = f"{promise.kind} {promise.pid}"
    found = {promise.side: [p for p in books[promise.side].processes if p.pid == promise.pid]}
    found[OTHER[promise.side]] = [p for p in books[OTHER[promise.side]].processes if p.peer_pid == promise.pid and p.kind == promise.kind]
    for side, processes in found.items():
        if not processes:
            yield Finding(LOST, promise.job, f"{name} is not there at the {side}")
        if len(processes) > 1:
            yield Finding(DOUBLED, promise.job, f"{name} is there {len(processes)} times at the {side}")
        for process in processes[:1]:
            if process.state != promise.state or process.in_flight:
                at = f"{process.state}{f' with {process.in_flight} in flight' if process.in_flight else ''}"
                yield Finding(LOST, promise.job, f"{name} is at {at} at the {side}, not at {promise.state}")
    pids = {side: processes[0].pid for side, processes in found.items() if processes}
    said = {side: Counter((f.what, f.move) for f in books[side].facts if f.pid == pid) for side, pid in pids.items()}
    promised = Counter(promise.moves)
    seen = {(side, move) for side, counts in said.items() for what, move in counts if what == SENT and move}
    seen |= {(OTHER[side], move) for side, counts in said.items() for what, move in counts if what == RECEIVED and move}
    for sender, move in sorted(seen | set(promised)):
        wanted = promised[sender, move]
        crossed = int((sender, move) in promise.crossed)
        in_vain = max(crossed, int((sender, move) in promise.overruled))
        for side, what, more in ((sender, SENT, in_vain), (OTHER[sender], RECEIVED, crossed)):
            if side in said:
                count = said[side][what, move]
                yield from _counted(promise.job, f"{name}: {what} {move} at the {side}", max(count - more, min(count, wanted)), wanted)
        if sender in said:
            closings, sent = sum(said[sender][what, move] for what in CLOSED), said[sender][SENT, move]
            least = sent - any(other.endswith(TERMINATION) for _, other in promise.moves)  # which may overrule what is in flight
            yield from _counted(promise.job, f"{name}: an end of {move} at the {sender}", closings, min(max(closings, least), sent))
    if promise.kind == NEGOTIATION:
        yield from _of_agreement(promise, pids, books)


def _of_agreement(promise: Promise, pids: Mapping[str, str], books: Mapping[str, Book]) -> Iterator[Finding]:
    """A finalized negotiation has one agreement, the same on both sides; any other has none."""
    wanted = int(promise.state == "FINALIZED")
    digests = set()
    for side, pid in pids.items():
        agreements = [a for a in books[side].agreements if a.negotiation == pid]
        yield from _counted(promise.job, f"negotiation {promise.pid}: an agreement at the {side}", len(agreements), wanted)
        digests |= {(a.id, a.digest) for a in agreements}
        if wanted and not all(a.final for a in agreements):
            yield Finding(LOST, promise.job, f"negotiation {promise.pid}: its agreement is not final at the {side}")
    if len(digests) > 1:
        yield Finding(DOUBLED, promise.job, f"negotiation {promise.pid}: the two sides have different agreements")


def _of_quota(quota: Quota, usage: Usage) -> Iterator[Finding]:
    """Never over, nothing open, and nothing that was used is missing. A crash may have charged what did not leave, so that less than
    the quota was received; but nobody is told that nothing is left as long as something is."""
    name, starts, counted = f"agreement {quota.agreement}", usage.posted.get("count", 0), usage.posted.get("byteCount", 0)
    yield from _counted(quota.job, f"{name}: a use", starts, quota.starts)
    if usage.open:
        yield Finding(LOST, quota.job, f"{name}: {usage.open} reservations are neither posted nor voided")
    if counted > quota.bytes_max or starts > quota.starts_max:
        yield Finding(
            DOUBLED, quota.job, f"{name}: {starts} starts and {counted} bytes, more than {quota.starts_max} and {quota.bytes_max}"
        )
    if quota.received > counted:
        yield Finding(LOST, quota.job, f"{name}: {quota.received} bytes were received and {counted} counted")
    if quota.ended and counted < quota.bytes_max:
        yield Finding(LOST, quota.job, f"{name}: a transfer was ended at {counted} of {quota.bytes_max} bytes")


def _of_cosigned(cosigned: Cosigned, books: Mapping[str, Book]) -> Iterator[Finding]:
    """What the other side has signed is known on both, and nothing smaller."""
    for side in (cosigned.side, OTHER[cosigned.side]):
        size = max((row.size for row in books[side].witnessed if row.origin == cosigned.origin), default=0)
        if size < cosigned.size:
            yield Finding(LOST, cosigned.job, f"{cosigned.size} entries of {cosigned.origin} were cosigned, and the {side} knows of {size}")


def _of_logs(books: Mapping[str, Book]) -> Iterator[Finding]:
    """A kill loses nothing that was signed, so there is no reason to begin a second log, nor to say something else than before."""
    for side, book in books.items():
        if len(book.logs) > 1:
            yield Finding(LOST, "", f"the {side} has begun its ledger anew: {', '.join(book.logs)}")
        for row in book.witnessed:
            if row.conflict:
                yield Finding(DOUBLED, "", f"the ledger {row.origin} contradicts itself, says the {side}")


def _of_order(order: Order, book: Book) -> Iterator[Finding]:
    pulls = [pull for pull in book.pulls if pull.id == order.id]
    if not pulls or pulls[0].stage != "done":
        yield Finding(LOST, order.job, f"pull {order.id} is at {pulls[0].stage if pulls else 'nothing'}, not done")
    if book.files.get(order.out) != order.sha256:
        yield Finding(LOST, order.job, f"pull {order.id}: its file is {'damaged' if order.out in book.files else 'not there'}")
    for stage in STAGES:
        rows = sum(fact.pull == order.id and fact.stage == stage for fact in book.facts)
        yield from _counted(order.job, f"pull {order.id}: stage {stage}", rows, 1)


def _unasked(ledger: Ledger, promises: list[Promise], books: Mapping[str, Book]) -> Iterator[Finding]:
    """What nobody has asked for was begun twice."""
    known = {(promise.side, promise.pid) for promise in promises}
    orders = {order.id for order in ledger.orders}
    for side, book in books.items():
        mine = {p.pid for p in book.processes if (side, p.pid) in known or (OTHER[side], p.peer_pid) in known}
        for process in book.processes:
            if process.pid not in mine:
                yield Finding(DOUBLED, "", f"{process.kind} {process.pid} at the {side} ({process.state}), which no call has begun")
        for agreement in book.agreements:
            if agreement.negotiation not in mine:
                yield Finding(DOUBLED, "", f"agreement {agreement.id} at the {side}, of no negotiation that a call has begun")
        for pull in book.pulls:
            if pull.id not in orders:
                yield Finding(DOUBLED, "", f"pull {pull.id} at the {side}, which no call has ordered")


def _left_over(promises: list[Promise], books: Mapping[str, Book]) -> Iterator[Finding]:
    jobs = {promise.pid: promise.job for promise in promises}
    for side, book in books.items():
        peers = {process.pid: process.peer_pid for process in book.processes}
        for pid, move in book.outbox:
            job = jobs.get(pid) or jobs.get(peers.get(pid) or "", "")
            yield Finding(LOST, job, f"{move} of {pid} was never delivered by the {side}: its outbox row is still there")
        if book.damage:
            yield Finding(LOST, "", f"the database of the {side} is damaged: {book.damage}")


def _counted(job: str, what: str, found: int, wanted: int) -> Iterator[Finding]:
    if found < wanted:
        yield Finding(LOST, job, f"{what}: {found} instead of {wanted}")
    if found > wanted:
        yield Finding(DOUBLED, job, f"{what}: {found} instead of {wanted}")
