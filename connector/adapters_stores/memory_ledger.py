"""The ledger and the meter in the store in memory."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any

import orjson
from msgspec import Struct

from connector.dsp.exchange import Process
from connector.dsp.messages import Role
from connector.errors import InvalidRequest
from connector.merkle.tree import leaf_hash
from connector.records import Evidence
from connector.records.ledger import SALT_BYTES, Entry, Log, Numbered, Subtree, Witnessed, entry_of, hidden_of
from connector.records.metering import Metered, Receipted
from connector.telemetry import CLOSING, CLOSING_TOLD
from connector.values import Value, field, replace

LIMIT_AT_MOST = 10_000  # rows of one reading, as in a database


class Entered(Value):
    """What a store keeps of a fact for its entry, beside the fact: see `sqlite_0003.sql`."""

    leaf: bytes
    detail: bytes | None
    salt: bytes | None
    hidden: bytes | None = None

    @classmethod
    def of(cls, fact: Evidence) -> Entered:
        """Raises what `entry_of` does."""
        detail, salt = orjson.dumps(fact.detail) if fact.detail else None, os.urandom(SALT_BYTES)
        return cls(leaf_hash(entry_of(fact, hidden_of(salt, detail or b""))), detail, salt)

    def erased(self) -> Entered:
        if self.salt is None:
            return self
        return Entered(self.leaf, None, None, hidden_of(self.salt, self.detail or b""))


class LedgerTables(Struct):
    """The tables of the ledger and the meter, and of the processes that they are about. `entered` is in step with `evidence`."""

    process: dict[str, Process] = field(default_factory=dict)
    evidence: list[Evidence] = field(default_factory=list)
    entered: list[Entered] = field(default_factory=list)
    metered: dict[str, Metered] = field(default_factory=dict)
    receipt: dict[tuple[str, int, bytes], Receipted] = field(default_factory=dict)
    log: dict[str, Log] = field(default_factory=dict)
    run: dict[tuple[int, int], Numbered] = field(default_factory=dict)
    subtree: dict[tuple[int, int, int], bytes] = field(default_factory=dict)
    witnessed: dict[str, Witnessed] = field(default_factory=dict)

    def keep(self, record: Any) -> bool:
        """Save a record if it is of the ledger or the meter; whether it is."""
        match record:
            case Metered():
                self.metered[record.transfer] = record
            case Receipted():
                self.receipt[record.transfer, record.sequence, record.digest] = record
            case Log():
                self.log[record.origin] = record
            case Numbered():
                self.run[record.log, record.first] = record
            case Subtree():
                self.subtree[record.log, record.level, record.index] = record.hash
            case Witnessed():
                self.witnessed[record.key] = record
            case _:
                return False
        return True

    def forget_receipts(self, transfer: str) -> None:
        self.receipt = {key: row for key, row in self.receipt.items() if key[0] != transfer}


class MemoryLedger:
    """The port `LedgerStore` over `LedgerTables`."""

    def _open(self) -> LedgerTables:
        """The tables, as long as the store is open. Raises StoreError."""
        raise TypeError("a store has tables of its own")

    async def metered(self, transfer: str) -> Metered | None:
        return self._open().metered.get(transfer)

    async def metered_of(self, agreement: str) -> Sequence[Metered]:
        return [row for _, row in sorted(self._open().metered.items()) if row.agreement == agreement]

    async def receipts(self, transfer: str, first: int = 0, end: int | None = None) -> Sequence[Receipted]:
        rows = [row for row in self._open().receipt.values() if row.transfer == transfer]
        rows = [row for row in rows if row.sequence >= first and (end is None or row.sequence < end)]
        return sorted(rows, key=lambda row: (row.sequence, row.at))

    async def newest_fact(self, pid: str, what: str) -> Evidence | None:
        return next((fact for fact in reversed(self._open().evidence) if fact.pid == pid and fact.what == what), None)

    async def unstated(self, role: Role, whats: Collection[str], since: float) -> Sequence[str]:
        tables = self._open()
        said = {fact.pid for fact in tables.evidence if fact.what in whats}
        over = [p for p in tables.process.values() if p.final and p.role is role and p.updated >= since]
        return sorted(p.pid for p in over if p.pid in tables.metered and p.pid not in said)

    async def untold(self) -> Sequence[str]:
        signed, told = ({fact.pid or "" for fact in self._open().evidence if fact.what == what} for what in (CLOSING, CLOSING_TOLD))
        return sorted(signed - told)

    async def logs(self) -> Sequence[Log]:
        return sorted(self._open().log.values(), key=lambda log: log.number)

    async def unnumbered(self, after: int, limit: int) -> Sequence[tuple[int, bytes]]:
        first = max(after, 0)
        rows = self._open().entered[first : first + _checked(limit)]
        return [(sequence, row.leaf) for sequence, row in enumerate(rows, first + 1)]

    async def numbered(self, sequence: int) -> tuple[int, int] | None:
        for run in self._open().run.values():
            if run.sequence <= sequence < run.sequence + run.count:
                return run.log, run.first + sequence - run.sequence
        return None

    async def newest_numbered(self, log: int) -> Numbered | None:
        return max((run for run in self._open().run.values() if run.log == log), key=lambda run: run.first, default=None)

    async def leaves(self, log: int, first: int, limit: int) -> Sequence[bytes]:
        return [self._open().entered[sequence - 1].leaf for _, sequence in self._places(log, first, limit)]

    async def entries(self, log: int, first: int, limit: int) -> Sequence[Entry]:
        return [self._entry(index, sequence) for index, sequence in self._places(log, first, limit)]

    async def entries_of(self, pid: str, after: int, limit: int) -> Sequence[tuple[int, Entry]]:
        found: list[tuple[int, Entry]] = []
        for sequence, fact in enumerate(self._open().evidence[max(after, 0) :], max(after, 0) + 1):
            if fact.pid == pid and len(found) < _checked(limit) and (place := await self.numbered(sequence)) is not None:
                found.append((place[0], self._entry(place[1], sequence)))
        return found

    def _places(self, log: int, first: int, limit: int) -> list[tuple[int, int]]:
        """(index, sequence) of the entries [first, first + limit) of a log."""
        runs = sorted((run for run in self._open().run.values() if run.log == log), key=lambda run: run.first)
        places = [(run.first + step, run.sequence + step) for run in runs for step in range(run.count)]
        return [(index, sequence) for index, sequence in places if first <= index < first + _checked(limit)]

    def _entry(self, index: int, sequence: int) -> Entry:
        fact, row = self._open().evidence[sequence - 1], self._open().entered[sequence - 1]
        hidden = hidden_of(row.salt, row.detail or b"") if row.salt is not None else row.hidden or b""
        open_ = row.salt is not None and fact.entry is None
        detail, salt = ((row.detail or b""), row.salt) if open_ else (None, None)
        return Entry(index, sequence, entry_of(fact, hidden), row.leaf, fact.pid, fact.peer, detail, salt)

    async def subtrees(self, log: int, level: int, first: int, limit: int) -> Sequence[bytes]:
        found, nodes = [], self._open().subtree
        for index in range(first, first + _checked(limit)):
            if (node := nodes.get((log, level, index))) is None:
                break
            found.append(node)
        return found

    async def erase(self, sequence: int) -> bool:
        tables = self._open()
        if not 1 <= sequence <= len(tables.evidence):
            return False
        place = sequence - 1
        tables.evidence[place], tables.entered[place] = replace(tables.evidence[place], detail={}), tables.entered[place].erased()
        return True

    async def witnessed(self, peer: str, origin: str) -> Witnessed | None:
        return self._open().witnessed.get(f"{peer} {origin}")

    async def witnesses(self) -> Sequence[Witnessed]:
        return [row for _, row in sorted(self._open().witnessed.items())]


def _checked(limit: int) -> int:
    if not 1 <= limit <= LIMIT_AT_MOST:
        raise InvalidRequest(f"`limit` is {limit}; it has to be from 1 to {LIMIT_AT_MOST}")
    return limit
