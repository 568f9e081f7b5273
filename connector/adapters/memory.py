"""The port `Store` in memory, for tests: the same semantics over dicts, and nothing survives.

What goes in and what comes out are copies, so that nobody can change a stored value from outside, and JSON comes back as
it would from a database (lists for tuples).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import orjson
from msgspec import field

from connector.adapters_stores.memory_ledger import Entered, LedgerTables, MemoryLedger
from connector.dsp.exchange import Process
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
    implied,
    paged,
)
from connector.records.ledger import Log, Witnessed
from connector.records.metering import Metered, Receipted
from connector.values import replace

LIMIT_AT_MOST = 10_000  # rows of one page, as in a database
CLOSED = frozenset({"done", "failed"})  # the stages of a pull from which nothing follows
JSON = {Process: "detail", Agreement: "document", Dataset: "source", Edr: "address", Offer: "policy", Evidence: "detail"}
TABLES: dict[type[Any], str] = {
    Process: "process",
    Dataset: "dataset",
    Agreement: "agreement",
    Usage: "usage",
    Edr: "edr",
    Pull: "pull",
    Idempotent: "idempotent",
    Outbound: "outbox",
    Metered: "metered",
    Log: "log",
    Witnessed: "witnessed",
}
KEPT = frozenset({Outbound, Log, Witnessed})  # is not deleted by itself

T = TypeVar("T")


def copied(record: T) -> T:
    """An equal record that shares nothing that can be changed. Raises TypeError for what is not plain JSON."""
    changes: dict[str, Any] = {}
    if name := JSON.get(cast(Any, type(record))):
        changes[name] = orjson.loads(orjson.dumps(getattr(record, name), default=_plain))
    if isinstance(record, Dataset):
        changes["offers"] = tuple(copied(replace(offer, dataset=record.id)) for offer in record.offers)
    return cast(T, replace(cast(Any, record), **changes))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a `{type(value).__name__}` is not plain JSON and cannot be stored")


class _Tables(LedgerTables):
    dataset: dict[str, Dataset] = field(default_factory=dict)
    agreement: dict[str, Agreement] = field(default_factory=dict)
    usage: dict[str, Usage] = field(default_factory=dict)
    edr: dict[str, Edr] = field(default_factory=dict)
    pull: dict[str, Pull] = field(default_factory=dict)
    idempotent: dict[str, Idempotent] = field(default_factory=dict)
    outbox: dict[str, Outbound] = field(default_factory=dict)
    inbox: dict[str, Inbox] = field(default_factory=dict)


class MemoryStore(MemoryLedger):
    """The port `Store` for one participant, gone with the object. Each store is a database of its own."""

    def __init__(self) -> None:
        self._tables = _Tables()
        self._closed = False

    async def commit(self, changes: Changes) -> tuple[Evidence, ...] | Conflict:
        saves = tuple(copied(record) for record in changes.saves)
        for of, _ in changes.deletes:
            if of in KEPT or (of not in TABLES and of not in (Inbox, Receipted)):
                raise TypeError(f"a `{of.__name__}` cannot be deleted by itself")
        for expect in changes.expects:
            if expect.of not in TABLES and expect.of is not Offer:
                raise TypeError(f"a `{expect.of.__name__}` cannot be expected by itself")
        claims = implied(changes)
        facts = tuple(copied(fact) for fact in changes.evidence)
        entered = tuple(Entered.of(fact) for fact in facts)
        result = self._write(changes, saves, claims, facts, entered)
        await asyncio.sleep(0)  # as with a disk, others get their turn before it is told, and nobody can stop it any more
        return result

    def _write(
        self,
        changes: Changes,
        saves: Sequence[Any],
        claims: Sequence[tuple[Expect, str]],
        facts: Sequence[Evidence],
        entered: Sequence[Entered],
    ) -> tuple[Evidence, ...] | Conflict:
        tables = self._open()
        for expect in changes.expects:
            if not self._holds(expect):
                return Conflict(expect)
        for expect, owner in claims:
            if self._owner(expect) not in (None, owner):
                return Conflict(expect)
        for id in changes.settled:
            tables.outbox.pop(id, None)
        for of, id in changes.deletes:
            self._delete(of, id)
        for record in sorted(saves, key=lambda record: type(record) is Inbox):  # a process comes before its inbox
            self._save(record)
        tables.outbox.update({row.id: row for row in changes.outbox})
        first = len(tables.evidence) + 1
        committed = tuple(fact.numbered(number) for number, fact in enumerate(facts, first))
        tables.evidence += committed
        tables.entered += entered
        return tuple(copied(fact) for fact in committed)

    def _open(self) -> _Tables:
        if self._closed:
            raise StoreError("the store is closed")
        return self._tables

    def _table(self, of: type[Any]) -> dict[str, Any]:
        table: dict[str, Any] = getattr(self._tables, TABLES[of])
        return table

    def _holds(self, expect: Expect) -> bool:
        if isinstance(expect.key, tuple):
            found: Any = self._process_of_peer(*expect.key)
        elif expect.of is Offer:
            found = self._owner(expect)
        else:
            found = self._table(expect.of).get(expect.key)
        if found is None or expect.version is None:
            return found is None and expect.version is None
        version = found.epoch if expect.of is Outbound else getattr(found, "version", expect.version)
        return bool(version == expect.version)

    def _owner(self, expect: Expect) -> str | None:
        """The pid or the dataset that has a key which only one may have."""
        if isinstance(expect.key, tuple):
            process = self._process_of_peer(*expect.key)
            return process.pid if process else None
        return next((d.id for d in self._tables.dataset.values() for offer in d.offers if offer.id == expect.key), None)

    def _process_of_peer(self, kind: str, peer: str, peer_pid: str) -> Process | None:
        key = (kind, peer, peer_pid)
        return next((p for p in self._tables.process.values() if (p.kind, p.peer, p.peer_pid) == key), None)

    def _save(self, record: Any) -> None:
        tables = self._tables
        if isinstance(record, Inbox):
            if record.pid in tables.process:
                tables.inbox[record.pid] = record
        elif not tables.keep(record):
            name = {Edr: "transfer", Idempotent: "key", Process: "pid", Usage: "agreement"}.get(cast(Any, type(record)), "id")
            self._table(type(record))[getattr(record, name)] = record

    def _delete(self, of: type[Any], key: str) -> None:
        if of in (Process, Inbox):
            self._tables.inbox.pop(key, None)
        if of is Agreement:
            self._tables.usage.pop(key, None)
        if of in (Metered, Receipted):
            self._tables.forget_receipts(key)
        if of not in (Inbox, Receipted):
            self._table(of).pop(key, None)

    async def process(self, kind: Kind, pid: str) -> Process | None:
        process = self._open().process.get(pid)
        return copied(process) if process and process.kind is kind else None

    async def process_of_peer(self, kind: Kind, peer: str, peer_pid: str) -> Process | None:
        self._open()
        return _copy(self._process_of_peer(kind, peer, peer_pid))

    async def processes(self, kind: Kind, *, after: str | None, limit: int, state: str | None, peer: str | None) -> Page[Process]:
        rows = [
            process
            for process in self._open().process.values()
            if process.kind is kind and state in (None, process.state) and peer in (None, process.peer)
        ]
        return _page(rows, after, limit, lambda process: (process.created, process.pid))

    async def due(self, before: float, limit: int) -> Sequence[Process]:
        rows = [(process.due, process.pid, process) for process in self._open().process.values() if process.due is not None]
        return [copied(process) for due, _, process in sorted(rows, key=lambda row: row[:2]) if due <= before][: _checked(limit)]

    async def next_due(self) -> float | None:
        return min((process.due for process in self._open().process.values() if process.due is not None), default=None)

    async def open_transfers(self) -> Sequence[Open]:
        rows = self._open().process.values()
        return [Open(p.pid, p.peer, p.agreement, p.dataset) for p in rows if p.kind is Kind.TRANSFER and not p.final]

    async def last_answer(self, pid: str) -> Inbox | None:
        return self._open().inbox.get(pid)

    async def agreement(self, id: str) -> Agreement | None:
        return _copy(self._open().agreement.get(id))

    async def agreements(self, *, peer: str | None, dataset: str | None, after: str | None, limit: int) -> Page[Agreement]:
        rows = [row for row in self._open().agreement.values() if peer in (None, row.peer) and dataset in (None, row.dataset)]
        return _page(rows, after, limit, lambda agreement: (agreement.created, agreement.id))

    async def usage(self, agreement: str) -> Usage | None:
        return self._open().usage.get(agreement)

    async def open_usage(self) -> Sequence[Usage]:
        return [usage for usage in self._open().usage.values() if usage.open]

    async def dataset(self, id: str) -> Dataset | None:
        return _copy(self._open().dataset.get(id))

    async def offer(self, id: str) -> Offer | None:
        return _copy(next((offer for row in self._open().dataset.values() for offer in row.offers if offer.id == id), None))

    async def datasets(self, *, after: str | None, before: str | None, limit: int) -> Page[Dataset]:
        forward = before is None
        everything = sorted(self._open().dataset.values(), key=lambda dataset: dataset.id, reverse=not forward)
        rows = [row for row in everything if (after is None or row.id > after) and (before is None or row.id < before)]
        behind = bool(rows) and rows[0] is not everything[0]
        found = [copied(row) for row in rows[: _checked(limit) + 1]]
        return paged(found, limit, forward=forward, behind=behind, cursor=lambda dataset, _: dataset.id)

    async def listed_dataset(self, id: str) -> Listed | None:
        dataset = await self.dataset(id)
        return None if dataset is None else _listed(dataset)

    async def listed_datasets(self, *, after: str | None, before: str | None, limit: int) -> Page[Listed]:
        page = await self.datasets(after=after, before=before, limit=limit)
        return Page(tuple(map(_listed, page.items)), page.next, page.previous)

    async def edr(self, transfer: str) -> Edr | None:
        return _copy(self._open().edr.get(transfer))

    async def pull(self, id: str) -> Pull | None:
        return self._open().pull.get(id)

    async def pulls(self, *, open_only: bool, after: str | None, limit: int) -> Page[Pull]:
        rows = [row for row in self._open().pull.values() if not (open_only and row.stage in CLOSED)]
        return _page(rows, after, limit, lambda pull: (pull.created, pull.id))

    async def idempotent(self, key: str) -> Idempotent | None:
        return self._open().idempotent.get(key)

    async def outbound(self, id: str) -> Outbound | None:
        return self._open().outbox.get(id)

    async def open_outbox(self) -> Sequence[Outbound]:
        return sorted((row for row in self._open().outbox.values() if not row.dead), key=lambda row: (row.created, row.id))

    async def dead_letters(self, *, after: str | None, limit: int) -> Page[Outbound]:
        rows = [row for row in self._open().outbox.values() if row.dead]
        return _page(rows, after, limit, lambda row: (row.created, row.id))

    async def events(self, after: int, limit: int) -> Sequence[Evidence]:
        first = max(after, 0)
        return [copied(fact) for fact in self._open().evidence[first : first + _checked(limit)]]

    async def evidence_of(self, pid: str) -> Sequence[Evidence]:
        return [copied(fact) for fact in self._open().evidence if fact.pid == pid]

    async def sweep(self, *, inbox_before: float, processes_before: float, keys_before: float, limit: int) -> Mapping[str, int]:
        tables, most = self._open(), _checked(limit)
        over = [p.pid for p in tables.process.values() if p.final and p.pid in tables.inbox and tables.inbox[p.pid].at < inbox_before]
        inbox = over[:most]
        for pid in inbox:
            del tables.inbox[pid]
        busy = {row.pid for row in tables.outbox.values()}
        ended = [p for p in tables.process.values() if p.final and max(p.created, p.updated) < processes_before and p.pid not in busy]
        processes = sorted(ended, key=lambda process: (process.created, process.pid))[:most]
        for process in processes:
            self._delete(Process, process.pid)
            self._delete(Edr, process.pid)
        done = [pull for pull in tables.pull.values() if pull.stage in CLOSED and max(pull.created, pull.updated) < processes_before]
        done = [pull for pull in done if pull.stage == "done" or pull.validator is None]
        pulls = sorted(done, key=lambda pull: pull.created)[:most]
        for pull in pulls:
            self._delete(Pull, pull.id)
        old = [row for row in tables.idempotent.values() if row.created < keys_before]
        keys = sorted(old, key=lambda row: row.created)[:most]
        for row in keys:
            del tables.idempotent[row.key]
        return {"inbox": len(inbox), "process": len(processes), "pull": len(pulls), "idempotent": len(keys)}

    async def close(self) -> None:
        self._closed = True


def _copy(record: T | None) -> T | None:
    return None if record is None else copied(record)


def _listed(dataset: Dataset) -> Listed:
    terms = hash(orjson.dumps([[offer.id, offer.policy] for offer in dataset.offers]))
    return Listed(dataset.id, dataset.document, terms, lambda: dataset)


def _checked(limit: int) -> int:
    if not 1 <= limit <= LIMIT_AT_MOST:
        raise InvalidRequest(f"`limit` is {limit}; it has to be from 1 to {LIMIT_AT_MOST}")
    return limit


def _page(rows: Sequence[T], after: str | None, limit: int, key: Callable[[T], tuple[float, str]]) -> Page[T]:
    """A page of `rows`, newest first."""
    cursor = Cursor.read(after) if after is not None else None
    forward = cursor is None or cursor.forward
    everything = rest = sorted(rows, key=key, reverse=forward)
    if cursor is not None:
        edge = (cursor.at, cursor.id)
        rest = [item for item in everything if (key(item) < edge if forward else key(item) > edge)]
    behind = bool(rest) and rest[0] is not everything[0]
    found = [copied(item) for item in rest[: _checked(limit) + 1]]
    return paged(found, limit, forward=forward, behind=behind, cursor=lambda item, onward: str(Cursor(onward, *key(item))))
