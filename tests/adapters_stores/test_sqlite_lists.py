"""Pages are found by indexes, however they are filtered and from however many parts they are merged."""

import itertools
import sqlite3
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from connector.adapters.sqlite import DATASETS
from connector.adapters.sqlite_rows import BEGIN_PROCESS, SELECT_PROCESS, dataset_of, process_of, values_of_process
from connector.adapters.sqlite_schema import open_database
from connector.adapters_stores.sqlite_lists import Pieces, Walk, old_inbox, processes
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind
from tests.contracts.samples import PEER, negotiation

T = TypeVar("T")


class Explained:
    """A connection that notes the plan of each statement."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.steps: list[str] = []

    def execute(self, sql: str, values: Any) -> sqlite3.Cursor:
        self.steps += [row[3] for row in self._db.execute(f"explain query plan {sql}", values)]
        return self._db.execute(sql, values)


@pytest.mark.parametrize("peer", [None, PEER])
@pytest.mark.parametrize(("state", "parts"), [(None, 2), ("OFFERED", 1), ("FINALIZED", 1), ("NO-STATE", 1)])
def test_a_page_of_processes_is_found_by_indexes_and_not_sorted(tmp_path: Path, state: str | None, parts: int, peer: str | None):
    db = Explained(open_database(tmp_path / "q.db", cache_kib=1024))
    rows = [negotiation(str(number), state=state, created=float(number)) for number, state in enumerate(["OFFERED", "FINALIZED"] * 3)]
    begun(db._db, rows)
    where = [("kind = ?", ("negotiation",)), *((f"{name} = ?", (value,)) for name, value in (("state", state), ("peer", peer)) if value)]
    listing = processes(SELECT_PROCESS, Kind.NEGOTIATION, state, peer)
    assert len(listing.parts) == parts + (state is None and peer is None)
    for forward in (True, False):
        walk = Walk(listing, 1, where, [(listing.beyond(forward), (3.0, "3"))], forward, 9)
        found, behind = walked(walk.run(process_of, place, db))  # type: ignore[arg-type]
        expected = sorted((row for row in rows if state in (None, row.state)), key=place, reverse=forward)
        assert found == [row for row in expected if (row.created < 3.0 if forward else row.created > 3.0)]
        assert behind == any(row.created >= 3.0 if forward else row.created <= 3.0 for row in (expected if found else ()))
    assert [step for step in db.steps if step.startswith("SEARCH")]
    assert not [step for step in db.steps if step.startswith("SCAN") or "TEMP B-TREE" in step]
    db._db.close()


def test_a_list_without_an_index_of_its_own_is_walked_in_pieces_and_is_the_same(tmp_path: Path):
    db = Explained(open_database(tmp_path / "q.db", cache_kib=1024))
    states = ["OFFERED", "FINALIZED", "OFFERED", "OFFERED", "REQUESTED", "OFFERED", "OFFERED"]
    rows = [negotiation(f"{number:02}", state=states[number % 7], created=float(number % 11)) for number in range(36)]
    begun(db._db, rows)
    for state, peer in itertools.product((None, "OFFERED", "REQUESTED", "VERIFIED", "FINALIZED"), (None, "did:web:nobody.example")):
        wanted = [row for row in rows if state in (None, row.state) and peer in (None, row.peer)]
        where = [
            ("kind = ?", ("negotiation",)),
            *((f"{name} = ?", (value,)) for name, value in (("state", state), ("peer", peer)) if value),
        ]
        for piece, forward, start in itertools.product((1, 4, 33), (True, False), (None, (5.0, "16"))):
            listing = processes(SELECT_PROCESS, Kind.NEGOTIATION, state, peer, piece)
            assert (listing.sieved is None) == (state == "FINALIZED" or (state, peer) == (None, None))
            edges = [] if start is None else [(listing.beyond(forward), start)]
            expected = sorted(wanted, key=place, reverse=forward)
            beyond = [row for row in expected if start is None or ((place(row) < start) if forward else (place(row) > start))]
            found, behind = walked(Walk(listing, 1, where, edges, forward, 5).run(process_of, place, db))  # type: ignore[arg-type]
            assert found == beyond[:6]
            assert behind == (len(beyond) < len(expected) and bool(found))
    assert not [step for step in db.steps if step.startswith("SCAN") or "TEMP B-TREE" in step]
    db._db.close()


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("state", [None, "OFFERED"])
def test_what_changes_between_two_pieces_is_in_no_page_twice_and_hides_nothing_that_stays(tmp_path: Path, state: str | None, forward: bool):
    db = open_database(tmp_path / "q.db", cache_kib=1024)
    rows = [negotiation(f"{number:02}", state="OFFERED", created=float(number)) for number in range(30)]
    begun(db, rows)
    where = [("kind = ?", ("negotiation",)), ("state = ?", ("OFFERED",)) if state else ("peer = ?", (PEER,))]
    listing = processes(SELECT_PROCESS, Kind.NEGOTIATION, state, None if state else PEER, 4)
    pieces = Walk(listing, 1, where, (), forward, 100).run(process_of, place, db)
    next(pieces)
    seen = {row.pid for row in (rows[-4:] if forward else rows[:4])}
    for number in (0, 1, 9, 15, 28, 29):  # before the place that was come to, and behind it
        db.execute("update process set state = 'FINALIZED', final = 1 where pid = ?", (rows[number].pid,))
    for number in (2, 14, 27):
        db.execute("delete from process where pid = ?", (rows[number].pid,))
    begun(db, [negotiation(f"new {number}", state="OFFERED", created=number) for number in (-1.0, 16.5, 99.0)])
    found, behind = walked(pieces)
    pids = [row.pid for row in found]
    assert [place(row) for row in found] == sorted((place(row) for row in found), reverse=forward)
    assert len(set(pids)) == len(pids)
    touched = {rows[number].pid for number in ((0, 1, 9, 15, 28, 29) if state else ())} | {rows[number].pid for number in (2, 14, 27)}
    assert seen | {row.pid for row in rows} - touched <= set(pids)
    assert negotiation("new 16.5").pid in pids
    assert not behind
    db.close()


def test_no_piece_of_a_list_by_a_state_that_none_has_looks_at_more_than_its_rows(tmp_path: Path):
    """By the instructions of SQLite, not by a clock."""
    db = open_database(tmp_path / "q.db", cache_kib=1024)
    begun(db, [negotiation(f"{number:03}", state="OFFERED", created=float(number)) for number in range(200)])
    steps, counts = itertools.count(), list[int]()
    db.set_progress_handler(lambda: next(steps) < 0, 1)
    where = [("kind = ?", ("negotiation",)), ("state = ?", ("VERIFIED",))]
    pieces = Walk(processes(SELECT_PROCESS, Kind.NEGOTIATION, "VERIFIED", None, 20), 1, where, (), True, 9).run(process_of, place, db)
    for _ in pieces:
        counts.append(next(steps))
    each = [later - before for before, later in itertools.pairwise(counts)]
    assert len(counts) == 10
    assert max(each) < 1.5 * min(each), "and not more from piece to piece"
    assert max(each) < counts[-1] / 5
    db.close()


def begun(db: sqlite3.Connection, rows: list[Process], participant: int = 1) -> None:
    db.execute("begin")
    db.executemany(BEGIN_PROCESS, [values_of_process(participant, row) for row in rows])
    db.execute("commit")


def walked(pieces: Pieces[T]) -> T:
    """What a reading comes to that is run to its end."""
    while True:
        try:
            next(pieces)
        except StopIteration as done:
            return cast("T", done.value)


def place(process: Process) -> tuple[float, str]:
    return process.created, process.pid


def test_a_page_of_datasets_is_found_by_an_index_and_not_sorted(tmp_path: Path):
    db = Explained(open_database(tmp_path / "q.db", cache_kib=1024))
    for forward in (True, False):
        walk = Walk(DATASETS, 1, (), [(DATASETS.beyond(forward), ("x",))], forward, 9)
        assert walked(walk.run(dataset_of, lambda row: (row.id,), db)) == ([], False)  # type: ignore[arg-type]
    assert [step.partition(" USING ")[0] for step in db.steps] == ["SEARCH dataset"] * 2
    db._db.close()


def test_old_answers_are_found_piece_by_piece_and_no_piece_walks_the_table(tmp_path: Path):
    db = Explained(open_database(tmp_path / "q.db", cache_kib=1024))
    states = ["FINALIZED", "OFFERED", "FINALIZED", "TERMINATED"]
    for participant in (1, 2):
        rows = [negotiation(str(number), state=states[number % 4], created=1.0) for number in range(20)]
        begun(db._db, rows, participant)
    db._db.execute("insert into inbox select id, (id * 7) % 5, 'm', 200, x'', x'', x'' from process where id % 9")
    wanted = """
        select process from inbox join process on id = process where participant = 1 and final = 1 and at < 3.0 order by process"""
    expected = [process for (process,) in db._db.execute(wanted)]
    assert len(expected) > 7
    for piece, limit in ((1, 100), (4, 100), (4, 2), (100, 100)):
        found: list[int] = []
        after: int | None = 0
        while after is not None:
            old, later = old_inbox(1, 3.0, after, limit, db, piece)  # type: ignore[arg-type]
            assert len(old) <= min(piece, limit)
            assert all(after < process <= (later or process) for process in old)
            found, after = found + old, later
        assert found == expected or limit < piece
    assert {step.partition(" USING ")[0] for step in db.steps} == {"SEARCH inbox", "SEARCH process"}
    assert not [step for step in db.steps if "SCAN" in step or "TEMP B-TREE" in step]
    db._db.close()
