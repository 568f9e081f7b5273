"""Lists of the SQLite store that are walked both ways, page by page, and the parts that one is merged from."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from connector.adapters_stores.sqlite_statements import Row
from connector.dsp.exchange import FINAL
from connector.dsp.messages import Kind

T = TypeVar("T")
Clause = tuple[str, Row]  # a condition and what it binds

OPEN = "indexed by process_open where final = 0"
ENDED = "indexed by process_ended where final = 1"
ENDED_OF_PEER = "indexed by process_ended_of_peer where final = 1"
PIECE = 5_000  # rows that are looked at in one go, where no index says which of them are wanted: some 2 ms
INBOX_PIECE = "select process from inbox where process > ? order by process limit 1 offset ?"
OLD_INBOX = """
    select process from inbox cross join process on id = process
    where process > ?1 and process <= ?2 and participant = ?3 and at < ?4 and final = 1 order by process limit ?5"""
NUMBER_AT_MOST = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Listing:
    """A list that can be walked both ways: its rows, the columns that order it, and whether it begins with the largest. It is
    put together from `parts`, each what follows the name of the table: an index, and the condition of its rows."""

    select: str
    table: str
    order: tuple[str, ...]
    newest_first: bool = True
    parts: tuple[str, ...] = ("where 1",)

    def direction(self, forward: bool) -> str:
        return "desc" if self.newest_first == forward else "asc"

    def beyond(self, forward: bool) -> str:
        """The condition for what lies further than a place in the list."""
        sign, places = "<" if self.newest_first == forward else ">", ", ".join("?" * len(self.order))
        return f"({', '.join(self.order)}) {sign} ({places})"


def parts_of_processes(kind: Kind, state: str | None, peer: str | None) -> tuple[str, ...]:
    """What the list of such processes is merged from: those that are open, which are few, and those that have ended."""
    if state is not None and state not in FINAL[kind]:
        return (OPEN,)
    ended = (ENDED if peer is None else ENDED_OF_PEER,)
    if state is not None:
        return ended
    return OPEN, *(ended if peer is not None else [f"{ENDED} and state = '{each}'" for each in sorted(FINAL[kind])])


@dataclass(frozen=True, slots=True)
class Walk:
    """One page's way through a list: the rows of participant `number` that fit `filters`, from `edges` on."""

    rows: Listing
    number: int
    filters: Sequence[Clause]
    edges: Sequence[Clause]
    forward: bool
    limit: int

    def run(self, make: Callable[[Row], T], key: Callable[[T], Row], db: sqlite3.Connection) -> tuple[list[T], bool]:
        """Return up to `limit` + 1 items in the order of the walk, and whether there is something behind its beginning."""
        sql, values = self._all(self.rows.select, (*self.filters, *self.edges))
        order = ", ".join(f"{column} {self.rows.direction(self.forward)}" for column in self.rows.order)
        found = [make(row) for row in db.execute(f"{sql} order by {order} limit ?", (*values, self.limit + 1))]
        if not found or not self.edges:
            return found, False
        behind = (self.rows.beyond(not self.forward), key(found[0]))
        sql, values = self._all(f"select 1 from {self.rows.table}", (*self.filters, behind))  # noqa: S608 - a constant
        return found, db.execute(f"{sql} limit 1", values).fetchone() is not None

    def _all(self, select: str, clauses: Sequence[Clause]) -> Clause:
        """The rows of all parts: each is in order, and so SQLite merges them."""
        conditions = " and ".join(("participant = ?", *(condition for condition, _ in clauses)))
        values = (self.number, *(value for _, values in clauses for value in values))
        return " union all ".join(f"{select} {part} and {conditions}" for part in self.rows.parts), values * len(self.rows.parts)


def old_inbox(number: int, before: float, after: int, limit: int, db: sqlite3.Connection, piece: int = PIECE) -> tuple[list[int], int | None]:
    """Which of the next `piece` answers, behind that of the process with the id `after`, are of ended processes of participant `number` and
    from `before` an instant (POSIX seconds), at most `limit`; and behind which to go on, None if there are no more."""
    row = db.execute(INBOX_PIECE, (after, piece - 1)).fetchone()
    end = None if row is None else int(row[0])
    found = db.execute(OLD_INBOX, (after, NUMBER_AT_MOST if end is None else end, number, before, limit))
    return [process for (process,) in found], end
