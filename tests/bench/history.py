"""Stored history: a database that holds one finished negotiation is given many more like it, and databases are audited.

`python -m tests.bench.history DATABASE PARTICIPANT COUNT`. The rows are the store's own (`connector.adapters.sqlite_rows`) with
other ids and times; the same number gives the same ids on both sides, so that the two histories fit each other.
"""

from __future__ import annotations

import sqlite3
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from connector.adapters.sqlite_rows import SELECT_AGREEMENT, SELECT_INBOX, SELECT_PROCESS, agreement_of, inbox_of, process_of
from connector.adapters.sqlite_schema import number_of, open_database
from connector.adapters_stores.sqlite_ledger import SAVE_EVIDENCE, SAVE_NUMBERED, SELECT_EVIDENCE, evidence_of, values_of_evidence
from connector.adapters_stores.sqlite_prepared import prepare
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind
from connector.records import Changes

AGE_SECONDS = 86_400.0  # how long before the template the first one was
STEP_SECONDS = 0.005  # between two of them
COMMIT_EACH = 5_000
CACHE_KIB = 262_144


@dataclass(frozen=True, slots=True)
class Template:
    """The rows of one negotiation: its three ids, and each statement with what it binds."""

    ids: tuple[str, str, str]
    created: float
    statements: tuple[tuple[str, tuple[Any, ...]], ...]


def template(db: sqlite3.Connection, number: int) -> Template:
    """Read the only negotiation in `db`. Raises ValueError if it is not there, or not finished."""
    processes = [process_of(row) for row in db.execute(SELECT_PROCESS)]
    if len(processes) != 1 or processes[0].state != "FINALIZED":
        raise ValueError(f"one FINALIZED negotiation is needed as the template, there are {len(processes)} processes")
    process = processes[0]
    agreement = next(agreement_of(row) for row in db.execute(SELECT_AGREEMENT))
    inbox = tuple(inbox_of(row) for row in db.execute(SELECT_INBOX))
    evidence = [evidence_of(row) for row in db.execute(f"{SELECT_EVIDENCE} where pid = ?", (process.pid,))]
    writes = prepare(number, Changes(saves=(process, agreement, *inbox))).writes
    rows = tuple((SAVE_EVIDENCE, row) for row in values_of_evidence(number, evidence))
    return Template((str(process.consumer_pid), str(process.provider_pid), agreement.id), process.created, (*writes, *rows))


def grow(path: Path, participant: str, count: int) -> None:
    """Add `count` negotiations like the one in the database at `path`. Their facts are from before the ledger: only its key can sign."""
    with closing(open_database(path, cache_kib=CACHE_KIB)) as db:
        db.execute("pragma synchronous=off")  # nobody relies on this file before it is complete
        number = number_of(db, participant)
        like = template(db, number)
        newest = sequence = db.execute("select max(sequence) from evidence").fetchone()[0]
        for first in range(0, count, COMMIT_EACH):
            db.execute("begin immediate")
            for index in range(first, min(first + COMMIT_EACH, count)):
                for sql, values in _another(like, index):
                    if sql is SAVE_EVIDENCE:
                        sequence += 1
                        values[1], values[-2:] = sequence, (None, None)
                    db.execute(sql, values)
            db.execute("commit")
        db.execute(SAVE_NUMBERED, (number, 0, newest, newest + 1, sequence - newest))
        db.execute("pragma wal_checkpoint(truncate)")


def _another(like: Template, index: int) -> Iterator[tuple[str, list[Any]]]:
    """The statements of the `index`th negotiation."""
    shift = index * STEP_SECONDS - AGE_SECONDS
    random = Random(index)
    new = [_id(like.created + shift, random) for _ in like.ids]
    pairs = list(zip(like.ids, new, strict=True))
    raw = [(old.encode(), fresh.encode()) for old, fresh in pairs]
    for sql, values in like.statements:
        yield sql, [_changed(value, pairs, raw, shift) for value in values]


def _changed(value: Any, pairs: list[tuple[str, str]], raw: list[tuple[bytes, bytes]], shift: float) -> Any:
    if isinstance(value, float):
        return value + shift
    if isinstance(value, str | bytes | bytearray):
        for old, fresh in pairs if isinstance(value, str) else raw:
            value = value.replace(old, fresh)
    return value


def _id(at: float, random: Random) -> str:
    """A `urn:uuid:` of version 7, as the product makes them: ordered by time, so that new rows share pages."""
    digits = f"{int(at * 1000):012x}7{random.getrandbits(12):03x}8{random.getrandbits(60):015x}"
    return f"urn:uuid:{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@dataclass(frozen=True, slots=True)
class Audit:
    """What two databases say together about their negotiations: how many the consumer began, and what is wrong."""

    count: int
    lost: int
    doubled: int
    left: int


def audit(consumer: Path, provider: Path) -> Audit:
    """Compare the databases of a pair that has stopped.

    *Lost* is a negotiation that is not FINALIZED on both sides with one and the same agreement, *doubled* one that only the
    provider has, *left* a row in an outbox.
    """
    ours, our_agreements, our_rows = _negotiations(consumer)
    theirs, their_agreements, their_rows = _negotiations(provider)
    by_peer = {process.peer_pid: process for process in theirs}

    def whole(process: Process) -> bool:
        other = by_peer.get(process.pid)
        if other is None or {process.state, other.state} != {"FINALIZED"} or other.pid != process.peer_pid:
            return False
        return our_agreements[process.pid] == their_agreements[other.pid] == [process.agreement] == [other.agreement]

    lost = sum(not whole(process) for process in ours)
    return Audit(len(ours), lost, max(0, len(theirs) - len(ours)), our_rows + their_rows)


def _negotiations(path: Path) -> tuple[list[Process], defaultdict[str, list[str]], int]:
    """The negotiations, the ids of the agreements of each, and the number of rows in the outbox."""
    agreements: defaultdict[str, list[str]] = defaultdict(list)
    with closing(sqlite3.connect(path)) as db:
        for row in db.execute(SELECT_AGREEMENT):
            agreement = agreement_of(row)
            agreements[agreement.negotiation].append(agreement.id)
        processes = [process_of(row) for row in db.execute(SELECT_PROCESS)]
        (rows,) = db.execute("select count(*) from outbox").fetchone()
    return [process for process in processes if process.kind is Kind.NEGOTIATION], agreements, rows


if __name__ == "__main__":
    grow(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
