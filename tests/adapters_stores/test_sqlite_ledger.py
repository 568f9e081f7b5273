"""The ledger in SQLite: old files, statements that stay short, erasure that leaves nothing on the disk, and kill -9."""

import sqlite3
from pathlib import Path

import pytest

from connector.adapters.sqlite import SqliteStore
from connector.adapters.sqlite_schema import connect, open_database, shipped
from connector.adapters_stores import sqlite_ledger
from connector.records import Changes
from connector.records.ledger import Numbered
from tests.contracts.samples import OWN, fact


@pytest.mark.asyncio
async def test_rows_of_before_the_ledger_are_read_and_are_in_no_log(tmp_path: Path):
    path = tmp_path / "q.db"
    old = open_database(path, cache_kib=1024, migrations=shipped()[:2])
    old.execute("insert into participant(number, id) values (1, ?)", (OWN,))
    columns = "participant, sequence, what, kind, pid, peer, state, at, move, digest, detail"
    old.execute(f"insert into evidence({columns}) values (1, 1, 'pull', null, 'p', 'q', null, 5.0, null, null, ?)", (b'{"a":1}',))  # noqa: S608
    old.close()
    store = SqliteStore(path, OWN)
    await store.commit(Changes(evidence=(fact(),)))
    assert [(event.what, event.detail, event.entry) for event in await store.events(0, 10)] == [
        ("pull", {"a": 1}, None),
        ("message-received", {}, None),
    ]
    assert [sequence for sequence, _ in await store.unnumbered(0, 10)] == [2]
    assert await store.erase(1)
    assert (await store.events(0, 1))[0].detail == {}
    assert await store.numbered(1) is None
    assert [tuple(row) for row in store._lists.execute("select log, first, sequence, count from numbered")] == [(0, 0, 1, 1)]
    await store.close()


def whole(folder: Path) -> bytes:
    """All that stands in a folder: the database, once it is closed."""
    return b"".join(path.read_bytes() for path in folder.iterdir())


@pytest.mark.asyncio
async def test_what_is_erased_is_nowhere_in_the_file(tmp_path: Path):
    store = SqliteStore(tmp_path / "q.db", OWN)
    secret = "canary-of-somebody"
    await store.commit(Changes(evidence=tuple(fact(detail={"n": n, "who": secret if n == 20 else "x" * 40}) for n in range(60))))
    await store.commit(Changes(saves=(Numbered(1, 0, 1, 60),)))
    salt = (await store.entries(1, 20, 1))[0].salt
    assert salt is not None
    assert await store.erase(21)
    await store.commit(Changes(evidence=(fact(),)))
    await store.close()
    content = whole(tmp_path)
    assert secret.encode() not in content
    assert salt not in content
    assert b"x" * 40 in content


@pytest.mark.asyncio
async def test_after_an_erasure_deleting_costs_what_it_did(tmp_path: Path):
    store = SqliteStore(tmp_path / "q.db", OWN)
    fast = store._writer._db.execute("pragma secure_delete").fetchone()
    await store.commit(Changes(evidence=(fact(detail={"a": 1}),)))
    await store.erase(1)
    assert store._writer._db.execute("pragma secure_delete").fetchone() == fast == (2,)
    await store.close()


STATEMENTS = [name for name in vars(sqlite_ledger) if name.startswith(("READ_", "LIST_"))]


@pytest.mark.parametrize("name", [name for name in STATEMENTS if name not in ("LIST_LOGS", "LIST_WITNESSED")])
def test_no_statement_of_the_ledger_walks_a_table(tmp_path: Path, name: str):
    db = open_database(tmp_path / "q.db", cache_kib=1024)
    sql = vars(sqlite_ledger)[name]
    parameters = max((int(c) for c in "1234" if f"?{c}" in sql), default=sql.count("?"))
    plan = [row[3] for row in db.execute(f"explain query plan {sql}", (0,) * parameters)]
    assert plan
    wide = [step for step in plan if step.endswith("(participant=?)")]
    assert not [step for step in plan if step.startswith("SCAN") or step in wide], plan
    if name != "LIST_RECEIPTS":  # the few of one number are put in order by their time
        assert not [step for step in plan if "TEMP B-TREE" in step], plan
    db.close()


def test_a_row_of_the_log_cannot_be_numbered_twice(tmp_path: Path):
    db = open_database(tmp_path / "q.db", cache_kib=1024)
    db.execute(sqlite_ledger.SAVE_NUMBERED, (1, 1, 0, 5, 3))
    with pytest.raises(sqlite3.IntegrityError):
        db.execute(sqlite_ledger.SAVE_NUMBERED, (1, 2, 0, 5, 1))
    db.execute(sqlite_ledger.SAVE_SUBTREE, (1, 1, 8, 0, b"a" * 32))
    with pytest.raises(sqlite3.IntegrityError):
        db.execute(sqlite_ledger.SAVE_SUBTREE, (1, 1, 8, 0, b"b" * 32))
    db.close()
    connect(tmp_path / "q.db", cache_kib=1024).close()
