"""The port `Store` on SQLite: one writer that groups commits, and readers beside it that see only what is committed.

What is looked up by its key is read on the event loop: on the writer's connection while that has no transaction open, and else on one
of its own that never waits for a COMMIT (WAL).
Lists, pages, feeds and the choice of what retention removes may take longer: they go to a third connection on a thread.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from connector.adapters.sqlite_rows import (
    DELETE_AGREEMENT,
    DELETE_DATASET,
    DELETE_OFFERS,
    SAVE_AGREEMENT,
    SAVE_DATASET,
    SELECT_AGREEMENT,
    SELECT_DATASET,
    SELECT_EDR,
    SELECT_IDEMPOTENT,
    SELECT_INBOX,
    SELECT_OUTBOX,
    SELECT_PROCESS,
    SELECT_PULL,
    SELECT_USAGE,
    agreement_of,
    dataset_of,
    edr_of,
    idempotent_of,
    inbox_of,
    listed_of,
    outbound_of,
    process_of,
    pull_of,
    usage_of,
)
from connector.adapters.sqlite_schema import connect, number_of, open_database
from connector.adapters.sqlite_write import Committed, Fatal, Writer, end_process
from connector.adapters_stores.sqlite_kept import Kept
from connector.adapters_stores.sqlite_ledger import SELECT_EVIDENCE, LedgerReads, evidence_of, fact_number
from connector.adapters_stores.sqlite_lists import Listing, Pieces, Walk, Weighed, old_inbox, processes
from connector.adapters_stores.sqlite_prepared import Prepared, Questions, prepare
from connector.adapters_stores.sqlite_statements import Row, Statement
from connector.dsp.exchange import FINAL, Process
from connector.dsp.messages import Kind
from connector.errors import InvalidRequest, StoreError
from connector.records import (
    Agreement,
    Changes,
    Conflict,
    Cursor,
    Dataset,
    Edr,
    Evidence,
    Expect,
    Idempotent,
    Inbox,
    Listed,
    Offer,
    Open,
    Outbound,
    Page,
    Pull,
    Usage,
    paged,
)
from connector.remembered import Remembered

WRITER_CACHE_KIB = 8_192  # holds the pages that a busy hour touches; counts against the memory of an idle connector
READER_CACHE_KIB = 4_096  # for each of the two readers; the rest comes from the system's page cache
LIMIT_AT_MOST = 10_000  # rows of one page: what fits into memory without anybody noticing
OFFERS_MAX, OFFERS_BYTES_MAX = 2_000, 4 << 20  # that are not read again, by the JSON of their datasets
PAGE_BYTES_MAX = 4 << 20  # of datasets on one page, if it has more than one: their descriptions and terms may be large
SWEEP_PIECE = 50  # rows that retention removes in one write, so that the loop is never held up for long

T = TypeVar("T")
D = TypeVar("D", Dataset, Listed)


AGREEMENTS = Listing(SELECT_AGREEMENT, "agreement", ("created", "id"))
PULLS = Listing(SELECT_PULL, "pull", ("created", "id"))
DEAD_LETTERS = Listing(SELECT_OUTBOX, "outbox", ("created", "id"))
DATASETS = Listing(SELECT_DATASET, "dataset", ("id",), newest_first=False)

READ_PROCESS = f"{SELECT_PROCESS} where participant = ? and pid = ?"
READ_PROCESS_OF_PEER = f"{SELECT_PROCESS} where participant = ? and kind = ? and peer = ? and peer_pid = ?"
READ_NEXT_DUE = "select due from process where participant = ? and due is not null order by due limit 1"
READ_LAST_ANSWER = f"{SELECT_INBOX} where participant = ? and pid = ?"
READ_AGREEMENT = f"{SELECT_AGREEMENT} where participant = ? and id = ?"
READ_USAGE = f"{SELECT_USAGE} where participant = ? and agreement = ?"
READ_DATASET = f"{SELECT_DATASET} where participant = ? and id = ?"
DATASET_OF_OFFER = "select dataset from offer where participant = ?1 and id = ?2"
READ_DATASET_OF_OFFER = f"{SELECT_DATASET} where participant = ?1 and id = ({DATASET_OF_OFFER})"
READ_EDR = f"{SELECT_EDR} where participant = ? and transfer = ?"
READ_PULL = f"{SELECT_PULL} where participant = ? and id = ?"
READ_IDEMPOTENT = f"{SELECT_IDEMPOTENT} where participant = ? and key = ?"
READ_OUTBOUND = f"{SELECT_OUTBOX} where participant = ? and id = ?"

SAVED = {SAVE_AGREEMENT: READ_AGREEMENT, SAVE_DATASET: READ_DATASET}
GONE = {DELETE_AGREEMENT: READ_AGREEMENT, DELETE_DATASET: READ_DATASET}
KEPT = frozenset({*SAVED, *GONE, DELETE_OFFERS})  # the writes of what is at hand: few are

LIST_DUE = f"{SELECT_PROCESS} where participant = ? and due is not null and due <= ? order by due, id limit ?"
LIST_OPEN_TRANSFERS = "select pid, peer, agreement, dataset from process where participant = ? and kind = 'transfer' and final = 0"
LIST_OPEN_OUTBOX = f"{SELECT_OUTBOX} where participant = ? and dead = 0 order by created, id"
LIST_OPEN_USAGE = f"{SELECT_USAGE} where participant = ? and open = 1"
LIST_EVENTS = f"{SELECT_EVIDENCE} where id > (?1 << 44) + ?2 and id < (?1 + 1) << 44 order by id limit ?3"
LIST_EVIDENCE_OF = f"{SELECT_EVIDENCE} indexed by evidence_process where participant = ? and pid = ? order by id"

# What retention may remove. A process with a row in the outbox (a dead letter) waits until an operator has dealt with it.
# All of it began before: it is looked for, and goes, in the order in which it began.
OLD_PROCESS = """
    select created, pid, version from process indexed by process_ended
    where participant = ?1 and kind = '{}' and state = '{}' and final = 1 and created < ?2 and updated < ?2
    and pid not in (select pid from outbox where participant = ?1)"""
OLD_PROCESSES = (
    f"{' union all '.join(OLD_PROCESS.format(kind, state) for kind in FINAL for state in sorted(FINAL[kind]))} order by 1, 2 limit ?3"
)
OLD_PULLS = """
    select id, version from pull where participant = ?1 and open = 0 and created < ?2
    and json_extract(cast(rest as text), '$.updated') < ?2
    and (json_extract(cast(rest as text), '$.stage') = 'done' or json_extract(cast(rest as text), '$.validator') is null)
    order by created limit ?3"""
OLD_KEYS = "select key from idempotent where participant = ? and created < ? order by created limit ?"
DELETE_INBOX_ROW = "delete from inbox where process = ?"


class SqliteStore(LedgerReads):
    """The port `Store` on the SQLite file `path`, for one participant (a DID). Lives on one event loop.

    `fatal` is called on the loop with the error of a write that failed; it ends the process. Raises StoreError if the
    file cannot be used.
    """

    def __init__(self, path: Path, participant: str, *, fatal: Fatal = end_process) -> None:
        db = open_database(path, cache_kib=WRITER_CACHE_KIB)
        try:
            self._number = number_of(db, participant)
            self._points = connect(path, cache_kib=READER_CACHE_KIB, read_only=True, busy_ms=0)
            self._lists = connect(path, cache_kib=READER_CACHE_KIB, read_only=True)
        except sqlite3.Error as error:
            db.close()
            raise StoreError(f"the database `{path}` cannot be used: {error}") from error
        self._kept = Kept(SAVED, GONE)
        self._offers: Remembered[str, Offer] = Remembered(OFFERS_MAX, OFFERS_BYTES_MAX)
        self._writer = Writer(db, self._number, fatal, self._written)
        self._executor = ThreadPoolExecutor(1, "store-read")

    @property
    def commits(self) -> int:
        """How many COMMITs there were; fewer than there were writes, if they came together."""
        return self._writer.commits

    async def commit(self, changes: Changes) -> Committed:
        return await self._writer.submit(prepare(self._number, changes))

    async def process(self, kind: Kind, pid: str) -> Process | None:
        row = self._row(READ_PROCESS, pid)
        return process_of(row) if row and row[2] == kind else None

    async def process_of_peer(self, kind: Kind, peer: str, peer_pid: str) -> Process | None:
        row = self._row(READ_PROCESS_OF_PEER, kind.value, peer, peer_pid)
        return process_of(row) if row else None

    async def processes(self, kind: Kind, *, after: str | None, limit: int, state: str | None, peer: str | None) -> Page[Process]:
        filters = {"kind": kind.value, "state": state and str(state), "peer": peer}
        rows = processes(SELECT_PROCESS, kind, state, peer)
        return await self._page(rows, filters, after, limit, process_of, lambda p: (p.created, p.pid))

    async def due(self, before: float, limit: int) -> Sequence[Process]:
        return await self._rows(process_of, LIST_DUE, before, _checked(limit))

    async def next_due(self) -> float | None:
        row = self._row(READ_NEXT_DUE)
        return row[0] if row else None

    async def open_transfers(self) -> Sequence[Open]:
        return await self._rows(Open._make, LIST_OPEN_TRANSFERS)

    async def last_answer(self, pid: str) -> Inbox | None:
        row = self._row(READ_LAST_ANSWER, pid)
        return inbox_of(row) if row else None

    async def agreement(self, id: str) -> Agreement | None:
        row = self._at_hand(READ_AGREEMENT, id)
        return agreement_of(row) if row else None

    async def agreements(self, *, peer: str | None, dataset: str | None, after: str | None, limit: int) -> Page[Agreement]:
        filters = {"peer": peer, "dataset": dataset}
        return await self._page(AGREEMENTS, filters, after, limit, agreement_of, lambda a: (a.created, a.id))

    async def usage(self, agreement: str) -> Usage | None:
        row = self._row(READ_USAGE, agreement)
        return usage_of(row) if row else None

    async def open_usage(self) -> Sequence[Usage]:
        return await self._rows(usage_of, LIST_OPEN_USAGE)

    async def dataset(self, id: str) -> Dataset | None:
        row = self._at_hand(READ_DATASET, id)
        return dataset_of(row) if row else None

    async def offer(self, id: str) -> Offer | None:
        offer = self._offers.get(id)
        if offer is None and (row := self._row(READ_DATASET_OF_OFFER, id)) is not None:
            offer = next(offer for offer in dataset_of(row).offers if offer.id == id)
            self._offers.put(id, offer, len(row[-1]))
        return offer

    async def datasets(self, *, after: str | None, before: str | None, limit: int) -> Page[Dataset]:
        return await self._datasets(dataset_of, after, before, limit)

    async def listed_dataset(self, id: str) -> Listed | None:
        row = self._at_hand(READ_DATASET, id)
        return listed_of(row) if row else None

    async def listed_datasets(self, *, after: str | None, before: str | None, limit: int) -> Page[Listed]:
        return await self._datasets(listed_of, after, before, limit)

    async def edr(self, transfer: str) -> Edr | None:
        row = self._row(READ_EDR, transfer)
        return edr_of(row) if row else None

    async def pull(self, id: str) -> Pull | None:
        row = self._row(READ_PULL, id)
        return pull_of(row) if row else None

    async def pulls(self, *, open_only: bool, after: str | None, limit: int) -> Page[Pull]:
        return await self._page(PULLS, {"open": 1 if open_only else None}, after, limit, pull_of, lambda p: (p.created, p.id))

    async def idempotent(self, key: str) -> Idempotent | None:
        row = self._row(READ_IDEMPOTENT, key)
        return idempotent_of(row) if row else None

    async def outbound(self, id: str) -> Outbound | None:
        row = self._row(READ_OUTBOUND, id)
        return outbound_of(row) if row else None

    async def open_outbox(self) -> Sequence[Outbound]:
        return await self._rows(outbound_of, LIST_OPEN_OUTBOX)

    async def dead_letters(self, *, after: str | None, limit: int) -> Page[Outbound]:
        return await self._page(DEAD_LETTERS, {"dead": 1}, after, limit, outbound_of, lambda o: (o.created, o.id))

    async def events(self, after: int, limit: int) -> Sequence[Evidence]:
        return await self._rows(evidence_of, LIST_EVENTS, fact_number(after), _checked(limit))

    async def evidence_of(self, pid: str) -> Sequence[Evidence]:
        return await self._rows(evidence_of, LIST_EVIDENCE_OF, pid)

    async def sweep(self, *, inbox_before: float, processes_before: float, keys_before: float, limit: int) -> Mapping[str, int]:
        inbox = await self._old_inbox(inbox_before, _checked(limit))
        for answers in _pieces(inbox):
            await self._write(*[(DELETE_INBOX_ROW, (process,)) for process in answers])
        ended = [row[1:] for row in await self._rows(tuple, OLD_PROCESSES, processes_before, limit)]
        processes = await self._sweep(Process, (Process, Edr), ended)
        pulls = await self._sweep(Pull, (Pull,), await self._rows(tuple, OLD_PULLS, processes_before, limit))
        keys = await self._rows(_first, OLD_KEYS, keys_before, limit)
        for piece in _pieces(keys):
            await self.commit(Changes(deletes=tuple((Idempotent, key) for key in piece)))
        return {"inbox": len(inbox), "process": processes, "pull": pulls, "idempotent": len(keys)}

    async def _old_inbox(self, before: float, limit: int) -> list[int]:
        """The answers that retention may remove. No index says when each was given, as it would be written with every message that comes:
        all are looked at, in pieces, so that other lists need not wait for all of it."""
        found: list[int] = []
        after: int | None = 0
        while after is not None and len(found) < limit:
            old, after = await self._read(partial(old_inbox, self._number, before, after, limit - len(found)))
            found += old
        return found

    def _written(self, writes: Sequence[Statement]) -> None:
        for sql, values in writes:
            if sql in KEPT:
                self._kept.written(sql, values)
                if sql is DELETE_OFFERS:  # which is also how a dataset is saved
                    self._offers.clear()

    async def _write(self, *writes: Statement) -> None:
        await self._writer.submit(Prepared(Questions(), writes))

    async def _fold(self) -> None:
        """Fold the write-ahead log into the database, so that nothing is left of it. Raises StoreError while somebody else reads in it."""
        busy, *_ = await self._read(lambda db: db.execute("pragma wal_checkpoint(truncate)").fetchone())
        if busy:
            raise StoreError(
                "it is erased, and still stands in the write-ahead log, in which another program reads; erase it again when that has ended"
            )

    async def _sweep(self, of: type[Any], with_it: tuple[type[Any], ...], rows: Sequence[Row]) -> int:
        """Delete what has these keys and versions; what somebody touched meanwhile is not old any more, and stays."""
        swept = 0
        for piece in _pieces(rows):
            gone = [Changes(expects=(Expect(of, key, version),), deletes=tuple((each, key) for each in with_it)) for key, version in piece]
            swept += sum(not isinstance(result, Conflict) for result in await asyncio.gather(*map(self.commit, gone)))
        return swept

    async def close(self) -> None:
        """Finish the writes that were submitted, then let go of the file."""
        await self._writer.close()
        await asyncio.to_thread(self._executor.shutdown)
        self._points.close()
        self._lists.close()

    def _row(self, sql: str, *key: str) -> Row | None:
        """One row by its key, on the loop."""
        if self._writer.broken is not None:
            raise self._writer.broken
        try:
            row: Row | None = (self._writer.at_rest or self._points).execute(sql, (self._number, *key)).fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"the store cannot be read: {error}") from error
        except UnicodeEncodeError:  # half a surrogate pair: no stored key has one
            return None
        return row

    def _at_hand(self, sql: str, id: str) -> Row | None:
        """One row of those that are kept, read if it is not yet."""
        row = self._kept.get(sql, id)
        if row is None and (row := self._row(sql, id)) is not None:
            self._kept.put(sql, row)
        return row

    async def _rows(self, make: Callable[[Row], T], sql: str, *values: Any) -> list[T]:
        return await self._read(lambda db: [make(row) for row in db.execute(sql, (self._number, *values))])

    async def _page(
        self,
        rows: Listing,
        filters: Mapping[str, str | int | None],
        after: str | None,
        limit: int,
        make: Callable[[Row], T],
        key: Callable[[T], tuple[float, str]],
    ) -> Page[T]:
        cursor = Cursor.read(after) if after is not None else None
        forward = cursor is None or cursor.forward
        wanted = [(f"{name} = ?", (value,)) for name, value in filters.items() if value is not None]
        edges = [] if cursor is None else [(rows.beyond(forward), (cursor.at, cursor.id))]
        walk = Walk(rows, self._number, wanted, edges, forward, _checked(limit))
        found, behind = await self._in_pieces(partial(walk.run, make, key))
        return paged(found, limit, forward=forward, behind=behind, cursor=lambda item, onward: str(Cursor(onward, *key(item))))

    async def _datasets(self, make: Callable[[Row], D], after: str | None, before: str | None, limit: int) -> Page[D]:
        forward = before is None
        edges = [(f"id {sign} ?", (id,)) for sign, id in ((">", after), ("<", before)) if id is not None]
        walk = Walk(DATASETS, self._number, (), edges, forward, _checked(limit))
        weighed = Weighed(PAGE_BYTES_MAX)
        found, behind = await self._in_pieces(partial(walk.run, make, lambda dataset: (dataset.id,), weighed=weighed))
        items = max(1, min(limit, len(found) - 1)) if weighed.over else limit
        return paged(found, items, forward=forward, behind=behind, cursor=lambda dataset, _: dataset.id)

    async def _in_pieces(self, query: Callable[[sqlite3.Connection], Pieces[T]]) -> T:
        """Run a query that takes long in pieces, between which others have their turn."""
        pieces = query(self._lists)
        while not (done := await self._read(lambda _: _next_of(pieces))):
            pass
        return done[0]

    async def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query that may take longer on the readers' thread."""
        if self._writer.broken is not None:
            raise self._writer.broken
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, query, self._lists)
        except sqlite3.Error as error:
            raise StoreError(f"the store cannot be read: {error}") from error
        except UnicodeEncodeError as error:
            raise InvalidRequest("a filter holds half a surrogate pair, which no text of the store has") from error


def _checked(limit: int) -> int:
    if not 1 <= limit <= LIMIT_AT_MOST:
        raise InvalidRequest(f"`limit` is {limit}; it has to be from 1 to {LIMIT_AT_MOST}")
    return limit


def _next_of(pieces: Pieces[T]) -> list[T]:
    """What a reading comes to, if it is done with its next piece; else nothing. (A thread cannot hand over a StopIteration.)"""
    try:
        next(pieces)
    except StopIteration as done:
        return [done.value]
    return []


def _first(row: Row) -> Any:
    return row[0]


def _pieces(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + SWEEP_PIECE] for start in range(0, len(items), SWEEP_PIECE))
