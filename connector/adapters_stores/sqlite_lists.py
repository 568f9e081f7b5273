"""Lists of the SQLite store that are walked both ways, page by page, and the parts that one is merged from."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from connector.adapters_stores.sqlite_statements import Row
from connector.dsp.exchange import FINAL
from connector.dsp.messages import Kind
from connector.values import Value

T = TypeVar("T")
U = TypeVar("U")
Pieces = Generator[None, None, T]  # a reading in pieces, which may be run on one after the other
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


class Listing(Value):
    """A list that can be walked both ways: its rows, the columns that order it, and whether it begins with the largest. It is
    put together from `parts`, each what follows the name of the table: an index, and the condition of its rows. Where one of them is
    `sieved` (such a part, and what it binds), there is no index for all that is asked of its rows: it is walked by `piece` of them."""

    select: str
    table: str
    order: tuple[str, ...]
    newest_first: bool = True
    parts: tuple[str, ...] = ("where 1",)
    sieved: Clause | None = None
    piece: int = PIECE

    def direction(self, forward: bool) -> str:
        return "desc" if self.newest_first == forward else "asc"

    def beyond(self, forward: bool) -> str:
        """The condition for what lies further than a place in the list."""
        sign, places = "<" if self.newest_first == forward else ">", ", ".join("?" * len(self.order))
        return f"({', '.join(self.order)}) {sign} ({places})"

    def until(self, forward: bool) -> str:
        """The condition for what lies no further than a place in the list."""
        sign, places = ">=" if self.newest_first == forward else "<=", ", ".join("?" * len(self.order))
        return f"({', '.join(self.order)}) {sign} ({places})"


def parts_of_processes(kind: Kind, state: str | None, peer: str | None) -> tuple[str, ...]:
    """What the list of such processes is merged from: those that are open, which are few, and those that have ended."""
    if state is not None and state not in FINAL[kind]:
        return (OPEN,)
    ended = (ENDED if peer is None else ENDED_OF_PEER,)
    if state is not None:
        return ended
    return OPEN, *(ended if peer is not None else [f"{ENDED} and state = '{each}'" for each in sorted(FINAL[kind])])


def processes(select: str, kind: Kind, state: str | None, peer: str | None, piece: int = PIECE) -> Listing:
    """The list of such processes. The open ones have one index, in which all of them stand: one by state would be written with each step
    of every process, for lists that operators ask for now and then."""
    parts = parts_of_processes(kind, state, peer)
    sieved = (f"{OPEN} and kind = ?", (kind.value,)) if OPEN in parts and (state, peer) != (None, None) else None
    return Listing(select, "process", ("created", "pid"), parts=parts, sieved=sieved, piece=piece)


class Weighed:
    """The bytes of rows that may be large, as they are read: `over` is whether they are more than `bytes_max`."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_left = bytes_max

    @property
    def over(self) -> bool:
        return self._bytes_left < 0

    def add(self, row: Row) -> bool:
        """Count one row in; return `over`."""
        self._bytes_left -= sum(len(value) for value in row if isinstance(value, bytes))
        return self.over


class Walk(Value):
    """One page's way through a list: the rows of participant `number` that fit `filters`, from `edges` on."""

    rows: Listing
    number: int
    filters: Sequence[Clause]
    edges: Sequence[Clause]
    forward: bool
    limit: int

    def run(
        self, make: Callable[[Row], T], key: Callable[[T], Row], db: sqlite3.Connection, weighed: Weighed | None = None
    ) -> Pieces[tuple[list[T], bool]]:
        """Return up to `limit` + 1 items in the order of the walk, and whether there is something behind its beginning. With the row by
        which `weighed` is over it ends early, but not with the first. Yields between two pieces: somebody else may read then."""
        found = yield from self._through(self.rows.select, make, self.edges, self.forward, self.limit + 1, db, weighed)
        if not found or not self.edges:
            return found, False
        behind = [(self.rows.beyond(not self.forward), key(found[0]))]
        return found, bool((yield from self._through("", tuple, behind, not self.forward, 1, db)))

    def _through(
        self,
        select: str,
        make: Callable[[Row], U],
        edges: Sequence[Clause],
        forward: bool,
        count: int,
        db: sqlite3.Connection,
        weighed: Weighed | None = None,
    ) -> Pieces[list[U]]:
        """The next `count` rows from `edges` on, in order; without `select`, whether there are any."""
        found: list[U] = []
        order = ", ".join(f"{column} {self.rows.direction(forward)}" for column in self.rows.order)
        while True:
            end = self._end_of_piece(edges, order, db)
            until = () if end is None else ((self.rows.until(forward), end),)
            sql, values = self._all(select or f"select 1 from {self.rows.table}", (*self.filters, *edges, *until))  # noqa: S608 - a constant
            ordered = f"{sql} order by {order}" if select else sql
            for row in db.execute(f"{ordered} limit ?", (*values, count - len(found))):
                found.append(make(row))
                if weighed is not None and weighed.add(row) and len(found) > 1:
                    return found
            if end is None or len(found) == count:
                return found
            edges = ((self.rows.beyond(forward), end),)
            yield

    def _end_of_piece(self, edges: Sequence[Clause], order: str, db: sqlite3.Connection) -> Row | None:
        """The place of the last row of the next piece; None if there is no whole one, or the list is walked at once."""
        if self.rows.sieved is None:
            return None
        part, bound = self.rows.sieved
        conditions = " and ".join(("participant = ?", *(condition for condition, _ in edges)))
        place = f"select {', '.join(self.rows.order)} from {self.rows.table} {part}"  # noqa: S608 - constants
        sql = f"{place} and {conditions} order by {order} limit 1 offset ?"
        values = (*bound, self.number, *(value for _, values in edges for value in values), self.rows.piece - 1)
        row: Row | None = db.execute(sql, values).fetchone()
        return row

    def _all(self, select: str, clauses: Sequence[Clause]) -> Clause:
        """The rows of all parts: each is in order, and so SQLite merges them."""
        conditions = " and ".join(("participant = ?", *(condition for condition, _ in clauses)))
        values = (self.number, *(value for _, values in clauses for value in values))
        return " union all ".join(f"{select} {part} and {conditions}" for part in self.rows.parts), values * len(self.rows.parts)


def old_inbox(
    number: int, before: float, after: int, limit: int, db: sqlite3.Connection, piece: int = PIECE
) -> tuple[list[int], int | None]:
    """Which of the next `piece` answers, behind that of the process with the id `after`, are of ended processes of participant `number`
    and from `before` an instant (POSIX seconds), at most `limit`; and behind which to go on, None if there are no more."""
    row = db.execute(INBOX_PIECE, (after, piece - 1)).fetchone()
    end = None if row is None else int(row[0])
    found = db.execute(OLD_INBOX, (after, NUMBER_AT_MOST if end is None else end, number, before, limit))
    return [process for (process,) in found], end
