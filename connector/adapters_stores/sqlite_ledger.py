"""The ledger and the meter in the SQLite store: their rows and how they are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from connector.adapters_stores.sqlite_statements import NULL, Row, Statement, blob, bytes_of, hex_of, insert, json_of, select, upsert
from connector.dsp.messages import Kind, Move, Role
from connector.errors import InvalidRequest
from connector.merkle.tree import leaf_hash
from connector.records import Evidence
from connector.records.ledger import SALT_BYTES, Entry, Log, Numbered, Subtree, Witnessed, entry_of, hidden_of
from connector.records.metering import Counts, Metered, Receipted

LIMIT_AT_MOST = 10_000  # rows of one reading
NUMBER_AT_MOST = (1 << 63) - 1  # the largest integer that SQLite has
FACT_AT_MOST = (1 << 44) - 1  # what an id has room for: at ten thousand facts a second, for fifty years

T = TypeVar("T")

EVIDENCE = "participant, sequence, what, kind, pid, peer, state, at, move, digest, detail, entry"
METERED = "participant, transfer, agreement, version, rest"
RECEIPT = "participant, transfer, sequence, digest, receipt, ack, at"
LOG = "participant, origin, number, version, rest"
NUMBERED = "participant, log, first, sequence, count"
SUBTREE = "participant, log, level, place, hash"
WITNESSED = "participant, id, version, rest"

# The id of a fact is made of its participant and its number, so that facts are walked by number. What is empty is null.
SAVE_EVIDENCE = f"""
    insert into evidence(id, {EVIDENCE.partition("sequence, ")[2]}, leaf, salt)
    values ((?1 << 44) + ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, nullif(?11, x''), nullif(?12, ''), ?13, ?14)"""  # noqa: S608 - names from constants
NEWEST_EVIDENCE = "select max(id) & 0xFFFFFFFFFFF from evidence where id > ?1 << 44 and id < (?1 + 1) << 44"
SAVE_METERED = upsert("metered", METERED, "participant, transfer")
SAVE_RECEIPT = upsert("receipt", RECEIPT, "participant, transfer, sequence, digest")
# A log that grows keeps its number, and a run of its entries the place where it began: what stands in an index is not written again.
SAVE_LOG = f"""
    {insert("log", LOG)} on conflict(participant, origin) do update set version = excluded.version, rest = excluded.rest
    where number = excluded.number"""
SAVE_NUMBERED = f"""
    {insert("numbered", NUMBERED)} on conflict(participant, log, first) do update set count = excluded.count
    where sequence = excluded.sequence"""
LEDGER_INSTEAD = {
    SAVE_LOG: upsert("log", LOG, "participant, origin"),
    SAVE_NUMBERED: upsert("numbered", NUMBERED, "participant, log, first"),
}
SAVE_SUBTREE = insert("subtree", SUBTREE)
SAVE_WITNESSED = upsert("witnessed", WITNESSED, "participant, id")

SELECT_EVIDENCE = select("evidence", EVIDENCE)
KINDS = {kind.value: kind for kind in Kind}  # a look-up costs a third of a call of the enumeration
MOVES = {move.value: move for move in Move}
ROLES = {role.value: role for role in Role}

READ_METERED = f"{select('metered', METERED)} where participant = ? and transfer = ?"
READ_WITNESSED = f"{select('witnessed', WITNESSED)} where participant = ? and id = ?"
LIST_METERED_OF = f"{select('metered', METERED)} where participant = ? and agreement = ? order by transfer"
LIST_RECEIPTS = f"""{select("receipt", RECEIPT)} where participant = ? and transfer = ? and sequence >= ? and sequence < ?
    order by sequence, at"""
LIST_NEWEST_FACT = f"""{select("evidence", EVIDENCE)} indexed by evidence_process where participant = ? and pid = ? and what = ?
    order by id desc limit 1"""
LIST_UNSTATED = """
    select p.pid from process p join metered m on m.participant = p.participant and m.transfer = p.pid
    where p.participant = ?1 and p.final = 1 and p.kind = 'transfer' and p.updated >= ?4 and p.role = ?2 and not exists (
      select 1 from evidence e indexed by evidence_process
      where e.participant = ?1 and e.pid = p.pid and instr(?3, json_quote(e.what)))"""
LIST_UNTOLD = """
    select s.pid from evidence s indexed by evidence_closing where s.participant = ?1 and s.what = 'closing-signed' and not exists (
      select 1 from evidence e indexed by evidence_process where e.participant = ?1 and e.pid = s.pid and e.what = 'closing-told')"""
LIST_LOGS = f"{select('log', LOG)} where participant = ? order by number"
LIST_WITNESSED = f"{select('witnessed', WITNESSED)} where participant = ? order by id"
LIST_UNNUMBERED = """
    select sequence, leaf from evidence where id < (?1 + 1) << 44 and id > (?1 << 44) + max(?2, coalesce((
      select max(sequence + count - 1) from numbered where participant = ?1 and log = 0), 0))
    and leaf is not null order by id limit ?3"""
LIST_NUMBERED = f"{select('numbered', NUMBERED)} where participant = ? and sequence <= ? order by sequence desc limit 1"
LIST_NEWEST_NUMBERED = f"{select('numbered', NUMBERED)} where participant = ? and log = ? order by first desc limit 1"
LIST_RUNS = """
    select log, first, sequence, count from numbered where participant = ?1 and log = ?2 and first < ?4
    and first >= coalesce((select max(first) from numbered where participant = ?1 and log = ?2 and first <= ?3), 0) order by first"""
LIST_LEAVES = "select leaf from evidence where id >= (?1 << 44) + ?2 and id < (?1 << 44) + ?3 order by id"
LIST_SUBTREES = "select place, hash from subtree where participant = ? and log = ? and level = ? and place >= ? order by place limit ?"
LIST_ENTRIES = f"""{select("evidence", f"{EVIDENCE}, leaf, salt, hidden")}
    where id >= (?1 << 44) + ?2 and id < (?1 << 44) + ?3 order by id"""
LIST_ENTRIES_OF = f"""
    select {", ".join(f"e.{name}" for name in f"{EVIDENCE}, leaf, salt, hidden".split(", "))}, n.log, n.first + e.sequence - n.sequence
    from evidence e join numbered n on n.participant = e.participant and n.sequence = (
      select max(sequence) from numbered where participant = e.participant and sequence <= e.sequence)
    where e.participant = ?1 and e.pid = ?2 and e.id > (?1 << 44) + ?3 and n.log > 0 and e.sequence < n.sequence + n.count
    order by e.id limit ?4"""  # noqa: S608 - names from constants
LIST_ERASABLE = "select detail, salt, hidden from evidence where id = (?1 << 44) + ?2"
# What is erased must not stay behind on the pages that SQLite frees, nor in the write-ahead log, which has them as they were.
OVERWRITE, OVERWRITE_NO_MORE = "pragma secure_delete=on", "pragma secure_delete=fast"
ERASE = "update evidence set detail = null, salt = null, hidden = ?1 where id = (?2 << 44) + ?3"


def values_of_evidence(number: int, facts: Sequence[Evidence]) -> list[list[Any]]:
    """What `SAVE_EVIDENCE` binds, but for the sequence numbers (the second values), which are set in the transaction. The entries are
    made here, and with them all that can be wrong about them is found. Raises TypeError or ValueError for what no row can hold."""
    rows: list[list[Any]] = []
    salts = os.urandom(SALT_BYTES * len(facts)) if facts else b""  # the system is asked once for all of them
    for place, e in enumerate(facts):
        salt = salts[place * SALT_BYTES : (place + 1) * SALT_BYTES]
        detail = json_of(e.detail) if e.detail else b""
        digest = NULL if e.digest is None else blob(e.digest)
        leaf = leaf_hash(entry_of(e, hidden_of(salt, detail)))
        if e.entry is not None:  # then the rest of the row is no part of it
            f"{e.what}{e.pid}{e.peer}{e.state}".encode()
        kind, move, state = e.kind and str(e.kind), e.move and str(e.move), e.state and str(e.state)
        rows.append(
            [number, 0, e.what, kind, e.pid, e.peer, state, e.at, move, digest, blob(detail), e.entry or "", blob(leaf), blob(salt)]
        )
    return rows


def evidence_of(row: Row) -> Evidence:
    _, sequence, what, kind, pid, peer, state, at, move, digest, detail, entry = row
    facts = orjson.loads(detail) if detail else {}
    return Evidence(
        what, KINDS[kind] if kind else None, pid, peer, state, at, MOVES[move] if move else None, digest, facts, sequence, entry
    )


def _entry(index: int, row: Row) -> Entry:
    *columns, leaf, salt, hidden = row
    fact, detail = evidence_of(tuple(columns)), columns[10]
    body = entry_of(fact, hidden_of(salt, detail or b"") if hidden is None else hidden)
    open_ = salt is not None and fact.entry is None
    return Entry(index, fact.sequence, body, leaf, fact.pid, fact.peer, (detail or b"") if open_ else None, salt if open_ else None)


def _entry_of(row: Row) -> tuple[int, Entry]:
    *columns, log, index = row
    return log, _entry(index, tuple(columns))


def _save_metered(number: int, m: Metered) -> list[Statement]:
    rest = {
        "role": m.role,
        "peer": m.peer,
        "manifest": m.manifest,
        "origin": m.origin,
        "chunk_bytes": m.chunk_bytes,
        "root": hex_of(m.root),
        "leaves": m.leaves,
        "size_bytes": m.size_bytes,
        "sequence": m.sequence,
        "receipt": m.receipt,
        "ack": m.ack,
        "ranges": m.ranges,
        "counts": _numbers(m.counts),
        "credit_bytes": m.credit_bytes,
        "status": m.status,
        "attested": m.attested,
        "updated": m.updated,
        "sent": m.sent,
        "before": _numbers(m.before),
        "own": _numbers(m.own),
        "asked": m.asked,
        "days": [[day, *_numbers(counts)] for day, counts in m.days],
    }
    return [(SAVE_METERED, (number, m.transfer, m.agreement, m.version, json_of(rest)))]


def metered_of(row: Row) -> Metered:
    _, transfer, agreement, version, blob = row
    rest = orjson.loads(blob)
    rest |= {"role": ROLES[rest["role"]], "root": bytes_of(rest["root"])}
    rest |= {name: Counts(*rest[name]) for name in ("counts", "before", "own")}
    rest |= {name: tuple(map(tuple, rest[name])) for name in ("ranges", "sent")}
    rest["days"] = tuple((day, Counts(*counts)) for day, *counts in rest["days"])
    return Metered(transfer=transfer, agreement=agreement, version=version, **rest)


def _numbers(counts: Counts) -> list[int]:
    return [counts.bytes, counts.records, counts.items, counts.calls, counts.microseconds]


def _save_receipted(number: int, r: Receipted) -> list[Statement]:
    return [(SAVE_RECEIPT, (number, r.transfer, r.sequence, r.digest, r.receipt, r.ack, r.at))]


def receipted_of(row: Row) -> Receipted:
    return Receipted(*row[1:])


def _save_log(number: int, log: Log) -> list[Statement]:
    rest = {
        "follows": log.follows,
        "size": log.size,
        "frontier": [node.hex() for node in log.frontier],
        "note": log.note,
        "sequence": log.sequence,
        "holder": log.holder,
        "epoch": log.epoch,
        "until": log.until,
        "updated": log.updated,
    }
    return [(SAVE_LOG, (number, log.origin, log.number, log.version, json_of(rest)))]


def log_of(row: Row) -> Log:
    _, origin, number, version, blob = row
    rest = orjson.loads(blob)
    rest["frontier"] = tuple(map(bytes.fromhex, rest["frontier"]))
    return Log(origin, number, version=version, **rest)


def _save_numbered(number: int, run: Numbered) -> list[Statement]:
    return [(SAVE_NUMBERED, (number, run.log, run.first, run.sequence, run.count))]


def numbered_of(row: Row) -> Numbered:
    return Numbered(*row[1:])


def _save_subtree(number: int, node: Subtree) -> list[Statement]:
    return [(SAVE_SUBTREE, (number, node.log, node.level, node.index, node.hash))]


def _save_witnessed(number: int, w: Witnessed) -> list[Statement]:
    rest = {
        "peer": w.peer,
        "origin": w.origin,
        "size": w.size,
        "root": w.root.hex(),
        "note": w.note,
        "conflict": w.conflict,
        "updated": w.updated,
    }
    return [(SAVE_WITNESSED, (number, w.key, w.version, json_of(rest)))]


def witnessed_of(row: Row) -> Witnessed:
    _, _, version, blob = row
    rest = orjson.loads(blob)
    rest["root"] = bytes.fromhex(rest["root"])
    return Witnessed(version=version, **rest)


LEDGER_SAVES: dict[type[Any], Callable[[int, Any], list[Statement]]] = {
    Metered: _save_metered,
    Receipted: _save_receipted,
    Log: _save_log,
    Numbered: _save_numbered,
    Subtree: _save_subtree,
    Witnessed: _save_witnessed,
}
DELETE_RECEIPTS = "delete from receipt where participant = ? and transfer = ?"
# Of a log nothing is ever deleted.
LEDGER_DELETES: dict[type[Any], tuple[str, ...]] = {
    Metered: ("delete from metered where participant = ? and transfer = ?", DELETE_RECEIPTS),
    Receipted: (DELETE_RECEIPTS,),
}
LEDGER_VERSIONS: dict[type[Any], str] = {
    Metered: "select version from metered where participant = ? and transfer = ?",
    Log: "select version from log where participant = ? and origin = ?",
    Witnessed: "select version from witnessed where participant = ? and id = ?",
}


class LedgerReads:
    """The port `LedgerStore` over what a store on SQLite has: the readings of rows, and of lists on a thread."""

    if TYPE_CHECKING:
        _number: int

        def _row(self, sql: str, *key: str) -> Row | None: ...
        async def _rows(self, make: Callable[[Row], T], sql: str, *values: Any) -> list[T]: ...
        async def _write(self, *writes: Statement) -> None: ...
        async def _fold(self) -> None: ...

    async def metered(self, transfer: str) -> Metered | None:
        row = self._row(READ_METERED, transfer)
        return metered_of(row) if row else None

    async def metered_of(self, agreement: str) -> Sequence[Metered]:
        return await self._rows(metered_of, LIST_METERED_OF, agreement)

    async def receipts(self, transfer: str, first: int = 0, end: int | None = None) -> Sequence[Receipted]:
        last = NUMBER_AT_MOST if end is None else _bounded(end)
        return await self._rows(receipted_of, LIST_RECEIPTS, transfer, _bounded(first), last)

    async def newest_fact(self, pid: str, what: str) -> Evidence | None:
        return next(iter(await self._rows(evidence_of, LIST_NEWEST_FACT, pid, what)), None)

    async def unstated(self, role: Role, whats: Collection[str], since: float) -> Sequence[str]:
        return sorted(pid for (pid,) in await self._rows(tuple, LIST_UNSTATED, role.value, orjson.dumps(sorted(whats)).decode(), since))

    async def untold(self) -> Sequence[str]:
        return sorted({id for (id,) in await self._rows(tuple, LIST_UNTOLD)})

    async def logs(self) -> Sequence[Log]:
        return await self._rows(log_of, LIST_LOGS)

    async def unnumbered(self, after: int, limit: int) -> Sequence[tuple[int, bytes]]:
        return await self._rows(tuple, LIST_UNNUMBERED, fact_number(after), _checked(limit))

    async def numbered(self, sequence: int) -> tuple[int, int] | None:
        for run in await self._rows(numbered_of, LIST_NUMBERED, _bounded(sequence)):
            if run.log and sequence < run.sequence + run.count:
                return run.log, run.first + sequence - run.sequence
        return None

    async def newest_numbered(self, log: int) -> Numbered | None:
        found = await self._rows(numbered_of, LIST_NEWEST_NUMBERED, log)
        return found[0] if found else None

    async def leaves(self, log: int, first: int, limit: int) -> Sequence[bytes]:
        return [leaf for _, leaf in await self._in_order(log, first, limit, LIST_LEAVES, lambda _, row: row[0])]

    async def entries(self, log: int, first: int, limit: int) -> Sequence[Entry]:
        return [entry for _, entry in await self._in_order(log, first, limit, LIST_ENTRIES, _entry)]

    async def entries_of(self, pid: str, after: int, limit: int) -> Sequence[tuple[int, Entry]]:
        return await self._rows(_entry_of, LIST_ENTRIES_OF, pid, fact_number(after), _checked(limit))

    async def _in_order(self, log: int, first: int, limit: int, sql: str, make: Callable[[int, Row], T]) -> list[tuple[int, T]]:
        """What the evidence rows of entries [first, first + limit) come to, each with its index."""
        start, end = _bounded(first), _bounded(first + _checked(limit))
        found: list[tuple[int, T]] = []
        for _, begins, sequence, count in await self._rows(tuple, LIST_RUNS, log, start, end):
            low, high = max(start, begins), min(end, begins + count)
            rows = await self._rows(tuple, sql, sequence + low - begins, sequence + high - begins)
            found += [(index, make(index, row)) for index, row in enumerate(rows, low)]
        return found

    async def subtrees(self, log: int, level: int, first: int, limit: int) -> Sequence[bytes]:
        rows = await self._rows(tuple, LIST_SUBTREES, log, level, _bounded(first), _checked(limit))
        return [node for place, (index, node) in enumerate(rows, first) if place == index]

    async def erase(self, sequence: int) -> bool:
        rows = await self._rows(tuple, LIST_ERASABLE, fact_number(sequence))
        if not rows:
            return False
        ((detail, salt, hidden),) = rows
        if detail is not None or salt is not None:
            kept = hidden if salt is None else hidden_of(salt, detail or b"")
            await self._write((OVERWRITE, ()), (ERASE, (kept, self._number, sequence)), (OVERWRITE_NO_MORE, ()))
        await self._fold()  # also for what was erased before: then nobody may have come to this
        return True

    async def witnessed(self, peer: str, origin: str) -> Witnessed | None:
        row = self._row(READ_WITNESSED, f"{peer} {origin}")
        return witnessed_of(row) if row else None

    async def witnesses(self) -> Sequence[Witnessed]:
        return await self._rows(witnessed_of, LIST_WITNESSED)


def fact_number(number: int) -> int:
    """The number, or the nearest one that an id has room for: no fact has 0, nor the largest."""
    return min(max(number, 0), FACT_AT_MOST)


def _bounded(number: int) -> int:
    return min(max(number, 0), NUMBER_AT_MOST)


def _checked(limit: int) -> int:
    if not 1 <= limit <= LIMIT_AT_MOST:
        raise InvalidRequest(f"`limit` is {limit}; it has to be from 1 to {LIMIT_AT_MOST}")
    return limit
