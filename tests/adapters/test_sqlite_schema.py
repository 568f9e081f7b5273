"""The database file: its mode, its owner, its schema."""

import errno
import hashlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from connector.adapters import sqlite_schema
from connector.adapters.sqlite import SqliteStore
from connector.adapters.sqlite_rows import BEGIN_PROCESS, END_PROCESS, LEARN_PEER_PID, MOVE_PROCESS, save_outbound, values_of_process
from connector.adapters.sqlite_schema import APPLICATION_ID, Migration, claimed, connect, number_of, open_database, shipped
from connector.dsp.exchange import TABLES, Process
from connector.dsp.messages import Kind
from connector.errors import StoreError
from connector.records import Changes, Expect
from connector.values import replace
from tests.contracts.samples import OWN, fact, inbox, negotiation, outbound, transfer


def migration(version: int, sql: str) -> Migration:
    return Migration(version, sql, hashlib.sha256(sql.encode()).hexdigest())


ONE = migration(1, "create table a(x);\ninsert into a values ('semi;colon');\n")
TWO = migration(2, "alter table a add column y default 5;\n-- a remark; with a semicolon\ncreate index a_y on a(y);\n")


def opened(path: Path, *migrations: Migration) -> sqlite3.Connection:
    return open_database(path, cache_kib=1024, migrations=migrations or None)


def test_the_migrations_that_are_shipped_are_numbered_without_gaps():
    assert [each.version for each in shipped()] == list(range(1, len(shipped()) + 1))
    assert all(len(each.sha256) == 64 for each in shipped())


def test_a_new_file_and_its_side_files_are_for_their_owner_alone(tmp_path: Path):
    db = opened(tmp_path / "q.db")
    number_of(db, "did:web:a.example")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"q.db": 0o600, "q.db-wal": 0o600, "q.db-shm": 0o600}
    db.close()


def test_a_file_that_others_may_read_is_closed_to_them(tmp_path: Path):
    path = tmp_path / "q.db"
    opened(path).close()
    path.chmod(0o664)
    opened(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_a_process_has_left_in_the_write_ahead_log_is_written_once_more_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In its place: a disk that is full has no room for it elsewhere."""
    db = opened(tmp_path / "q.db", ONE)
    for suffix in ("", "-wal"):  # as it stands when a process ends, here because the disk did not keep what it wrote
        shutil.copy(tmp_path / f"q.db{suffix}", tmp_path / f"left.db{suffix}")
    db.close()
    log, size_bytes = tmp_path / "left.db-wal", (tmp_path / "left.db").stat().st_size
    left, done, write, flush = log.read_bytes(), list[bytes | str](), os.pwrite, os.fsync

    def noted(descriptor: int, content: bytes, at: int) -> int:
        assert os.path.samestat(log.stat(), os.fstat(descriptor))
        done.append(content[:1000])
        return write(descriptor, content[:1000], at)

    def flushed(descriptor: int) -> None:
        assert os.path.samestat(log.stat(), os.fstat(descriptor))
        done.append("flushed")
        flush(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", noted)
        patched.setattr(os, "fsync", flushed)
        db = opened(tmp_path / "left.db", ONE)
    assert done == [*(left[at : at + 1000] for at in range(0, len(left), 1000)), "flushed"]
    assert (log.read_bytes(), (tmp_path / "left.db").stat().st_size) == (left, size_bytes)
    assert db.execute("select x from a").fetchall() == [("semi;colon",)]
    db.close()


def test_a_write_ahead_log_that_the_disk_does_not_take_is_no_ground_to_start_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    opened(tmp_path / "q.db").close()
    with monkeypatch.context() as failing:
        failing.setattr(os, "fsync", broken)
        with pytest.raises(StoreError, match="look after that disk"):
            opened(tmp_path / "q.db")
    opened(tmp_path / "q.db").close()


def test_a_database_may_stand_elsewhere(tmp_path: Path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "q.db").symlink_to("disk/q.db")
    for _ in range(2):
        opened(tmp_path / "q.db").close()
    assert [each.name for each in (tmp_path / "disk").iterdir()] == ["q.db"]


def test_a_database_whose_name_the_disk_did_not_keep_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as failing:
        failing.setattr(os, "fsync", broken)
        with pytest.raises(StoreError, match="cannot be opened"):
            opened(tmp_path / "q.db")
    assert not (tmp_path / "q.db").exists()
    opened(tmp_path / "q.db").close()


def test_every_commit_waits_for_the_disk(tmp_path: Path):
    db = opened(tmp_path / "q.db")
    assert db.execute("pragma synchronous").fetchone() == (2,)
    assert db.execute("pragma journal_mode").fetchone() == ("wal",)
    db.close()


def test_a_reader_cannot_write(tmp_path: Path):
    opened(tmp_path / "q.db").close()
    reader = connect(tmp_path / "q.db", cache_kib=1024, read_only=True)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("delete from process")
    reader.close()


def test_a_schema_is_brought_forward_step_by_step_and_keeps_the_rows(tmp_path: Path):
    path = tmp_path / "q.db"
    opened(path, ONE).close()
    db = opened(path, ONE, TWO)
    assert db.execute("select x, y from a").fetchall() == [("semi;colon", 5)]
    assert db.execute("select version, sha256 from migration").fetchall() == [(1, ONE.sha256), (2, TWO.sha256)]
    db.close()
    opened(path, ONE, TWO).close()


def test_processes_of_before_are_the_same_and_are_checked_as_they_were(tmp_path: Path):
    """Schema 4 writes a check anew, for which the table is made anew."""
    path, before = tmp_path / "q.db", shipped()[:3]
    states = sorted({state for table in TABLES.values() for state in table})
    rows = [values_of_process(1, negotiation(f"urn:{state}", state=state, peer_pid=f"urn:their:{state}", due=5.0)) for state in states]
    unfit = values_of_process(1, negotiation("urn:unfit", state="NONE"))
    about = "select name, sql from sqlite_schema where tbl_name = 'process' and type = 'index' order by name"
    db = opened(path, *before)
    db.executemany(BEGIN_PROCESS, rows)
    db.execute("delete from process where pid = 'urn:AGREED'")
    indexes, kept = db.execute(about).fetchall(), db.execute("select * from process order by id").fetchall()
    db.close()
    opened(path, *shipped()[:4]).close()
    db = opened(path, *shipped()[:4])
    assert (db.execute(about).fetchall(), db.execute("select * from process order by id").fetchall()) == (indexes, kept)
    assert len(kept) == len(states) - 1
    db.execute(BEGIN_PROCESS, next(row for row in rows if row[1] == "urn:AGREED"))
    with pytest.raises(sqlite3.IntegrityError, match="CHECK constraint failed: state"):
        db.execute(BEGIN_PROCESS, unfit)
    assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    db.close()
    db = opened(path)
    for sql in (MOVE_PROCESS, END_PROCESS, LEARN_PEER_PID):
        assert not [step for step in db.execute(f"explain {sql}", (0,) * 16) if step[1] == "OpenEphemeral"]
    db.close()


def _put(db: sqlite3.Connection, table: str, **values: object) -> None:
    db.execute(f"insert into {table}({', '.join(values)}) values ({', '.join('?' * len(values))})", tuple(values.values()))  # noqa: S608


@pytest.mark.asyncio
async def test_a_database_of_schema_5_opens_with_all_that_it_had_and_goes_on(tmp_path: Path):
    path, db = tmp_path / "q.db", opened(tmp_path / "q.db", *shipped()[:5])
    other = "did:web:other.example"
    for number, own in enumerate((OWN, other), 1):
        _put(db, "participant", number=number, id=own)
        for sequence in range(1, 41):
            leaf = bytes([sequence]) * 32
            _put(db, "evidence", participant=number, sequence=sequence, what="pull", pid=f"p{sequence % 3}", at=1.0, leaf=leaf, salt=b"s")
        db.execute("update evidence set what = 'closing-signed', entry = 'jws' where sequence = 7")
        _put(db, "numbered", participant=number, log=1, first=0, sequence=1, count=30)
    processes = [
        negotiation(f"n{n}", state=state, created=float(n % 3), updated=9.0, peer_pid=f"their{n}", version=3)
        for n, state in enumerate(("OFFERED", "FINALIZED", "TERMINATED", "FINALIZED", "REQUESTED"))
    ]
    processes += [transfer("t1", state="STARTED", due=5.0), transfer("t2", state="COMPLETED", created=4.0)]
    db.executemany(BEGIN_PROCESS, [values_of_process(1, process) for process in processes])
    db.execute("delete from process where pid = 'n4'")
    accepted = {"participant": 1, "move": "ContractRequestMessage", "digest": b"d", "body": b"{}", "status": 201}
    for pid, answer in (("n1", b"a"), ("n1", b"b"), ("n3", b"c"), ("gone", b"x")):
        _put(db, "inbox", **accepted, pid=pid, answer=answer, at=5.0)
    letters = [outbound("o2", "n0", created=2.0), outbound("o1", "n0", created=1.0), outbound("dead", "n2", dead=True, error="no")]
    for letter in letters:
        db.execute(*save_outbound(1, letter))
    db.close()

    async with opening(path, OWN) as store, opening(path, other) as theirs:
        newest = sorted((row for row in processes[:4]), key=lambda row: (row.created, row.pid), reverse=True)
        everything = {"after": None, "limit": 9, "peer": None}
        assert [*(await store.processes(Kind.NEGOTIATION, state=None, **everything)).items] == newest
        ended = await store.processes(Kind.NEGOTIATION, state="FINALIZED", **everything)
        assert [*ended.items] == [row for row in newest if row.state == "FINALIZED"]
        assert [row.pid for row in await store.open_transfers()] == ["t1"]
        answers = [await store.last_answer(pid) for pid in ("n0", "n1", "n3")]
        assert [answer and (answer.answer, answer.at, answer.status) for answer in answers] == [None, (b"b", 5.0, 201), (b"c", 5.0, 201)]
        assert [row.id for row in await store.open_outbox()] == ["o1", "o2"]
        assert [*(await store.dead_letters(after=None, limit=9)).items] == letters[2:]
        for each in (store, theirs):
            assert [(fact.sequence, fact.pid) for fact in await each.events(0, 99)] == [(n, f"p{n % 3}") for n in range(1, 41)]
            assert [(fact.sequence, fact.entry) for fact in await each.evidence_of("p1")][:3] == [(1, None), (4, None), (7, "jws")]
            assert [sequence for sequence, _ in await each.unnumbered(0, 99)] == list(range(1, 41))
            assert await each.leaves(1, 28, 9) == [bytes([29]) * 32, bytes([30]) * 32]
            assert await each.untold() == ["p1"]
            (told,) = await each.commit(Changes(evidence=(fact(),)))
            assert told.sequence == 41
        step = replace(processes[0], state="AGREED", version=4)
        changes = Changes(expects=(Expect(Process, "n0", 3),), saves=(step, inbox("n0")), settled=("o1",), outbox=(letters[0],))
        assert await store.commit(changes) == ()
        assert await store.process(Kind.NEGOTIATION, "n0") == step
        swept = await store.sweep(inbox_before=8.0, processes_before=1e9, keys_before=0.0, limit=9)
        assert swept == {"inbox": 2, "process": 3, "pull": 0, "idempotent": 0}
        assert [row.pid for row in (await store.processes(Kind.NEGOTIATION, state=None, **everything)).items] == ["n2", "n0"]
    with closing(connect(path, cache_kib=1024)) as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)


@asynccontextmanager
async def opening(path: Path, participant: str) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, participant)
    yield store
    await store.close()


def test_a_migration_that_fails_leaves_the_schema_as_it_was(tmp_path: Path):
    path = tmp_path / "q.db"
    opened(path, ONE).close()
    with pytest.raises(StoreError, match="cannot be used: no such table: nowhere"):
        opened(path, ONE, migration(2, "create table b(x);\ninsert into nowhere values (1);\n"))
    db = opened(path, ONE)
    assert db.execute("select name from sqlite_schema where name = 'b'").fetchall() == []
    db.close()


def test_a_newer_schema_refuses_and_says_what_to_do(tmp_path: Path):
    path = tmp_path / "q.db"
    opened(path, ONE, TWO).close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"has schema 2, this program knows up to 1; start the newer program, or restore the backup"):
        opened(path, ONE)
    assert path.read_bytes() == before


def test_a_schema_that_was_made_by_other_statements_refuses(tmp_path: Path):
    path = tmp_path / "q.db"
    opened(path, ONE).close()
    with pytest.raises(StoreError, match="was made by other statements"):
        opened(path, migration(1, "create table a(x, other);\n"))


def test_the_database_of_another_program_is_left_alone(tmp_path: Path):
    path = tmp_path / "theirs.db"
    theirs = sqlite3.connect(path)
    theirs.execute("create table bookmarks(url)")
    theirs.close()
    path.chmod(0o644)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="is the database of another program"):
        opened(path)
    assert path.read_bytes() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but somebody's notes\n" * 100)
    with pytest.raises(StoreError, match="cannot be used: file is not a database"):
        opened(path)
    assert path.read_text().startswith("not a database")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(StoreError, match=r"nowhere/q\.db` cannot be opened: No such file or directory; the folder must exist"):
        opened(tmp_path / "nowhere" / "q.db")


def test_the_file_is_marked_as_ours(tmp_path: Path):
    db = opened(tmp_path / "q.db")
    assert db.execute("pragma application_id").fetchone() == (APPLICATION_ID,)
    db.close()


def test_a_participant_keeps_its_number(tmp_path: Path):
    db = opened(tmp_path / "q.db")
    first, second = number_of(db, "did:web:a.example"), number_of(db, "did:web:b.example")
    assert (first, second) == (1, 2)
    db.close()
    db = opened(tmp_path / "q.db")
    assert number_of(db, "did:web:b.example") == 2
    db.close()


def test_two_that_open_a_new_file_at_once_both_find_the_schema(tmp_path: Path):
    from threading import Barrier, Thread

    path, barrier, found = tmp_path / "q.db", Barrier(4), []

    def start() -> None:
        barrier.wait()
        db = opened(path, ONE, TWO)
        found.append(db.execute("select count(*) from a").fetchone()[0])
        db.close()

    threads = [Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * 4


# ---- whose it is while we run

HOLD = """
import sys
from pathlib import Path
from connector.adapters.sqlite_schema import claimed
with claimed(Path(sys.argv[1])):
    print(flush=True)
    sys.stdin.read()
"""


def test_a_second_connector_on_a_file_is_refused_and_told_what_to_do(tmp_path: Path):
    path = tmp_path / "q.db"
    (tmp_path / "same.db").symlink_to(path)
    with claimed(path):
        opened(path).close()
        for name in ("q.db", "same.db"):
            with pytest.raises(
                StoreError, match=rf"in use by another connector, process {os.getpid()}; stop that one, or give .*store\.path"
            ):
                claimed(tmp_path / name).__enter__()
        with claimed(tmp_path / "other.db"):
            pass
    with claimed(path):
        assert stat.S_IMODE((tmp_path / "q.db.lock").stat().st_mode) == 0o600


def test_a_claim_ends_with_its_process_however_that_ends(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "q.db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(StoreError, match=f"process {other.pid};"):
            claimed(tmp_path / "q.db").__enter__()
        other.kill()
    with claimed(tmp_path / "q.db"):
        pass


def test_a_backup_reads_what_is_claimed(tmp_path: Path):
    with claimed(tmp_path / "q.db"), closing(opened(tmp_path / "q.db")) as db:
        number_of(db, "did:web:a.example")
        with (
            closing(sqlite3.connect(f"file:{tmp_path / 'q.db'}?mode=ro", uri=True)) as reader,
            closing(sqlite3.connect(":memory:")) as copy,
        ):
            reader.backup(copy)
            assert copy.execute("select id from participant").fetchall() == [("did:web:a.example",)]
            reader.execute("vacuum into ?", (str(tmp_path / "backup.db"),))
        number_of(db, "did:web:b.example")
    with closing(opened(tmp_path / "backup.db")) as restored:
        assert number_of(restored, "did:web:a.example") == 1


def test_a_folder_that_is_not_there_has_nothing_to_claim(tmp_path: Path):
    with pytest.raises(StoreError, match="the folder must exist and the file be ours to write"):
        claimed(tmp_path / "nowhere" / "q.db").__enter__()


def test_what_keeps_a_start_from_its_claim_is_named_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, lock = tmp_path / "q.db", tmp_path / "q.db.lock"
    lock.mkdir()  # as good as one of another user, for who may do anything
    with pytest.raises(StoreError, match=f"Is a directory, of `{lock}`; the folder must exist"):
        claimed(path).__enter__()
    lock.rmdir()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreError, match=f"the database `{path}` cannot be opened: No space left on device; .*on a disk with room"):
        claimed(path).__enter__()
    monkeypatch.undo()
    with claimed(path):
        pass


def test_a_file_that_somebody_writes_to_is_waited_for_and_then_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sqlite_schema.connect, "__kwdefaults__", {"read_only": False, "busy_ms": 100})
    opened(tmp_path / "q.db").close()
    with closing(sqlite3.connect(tmp_path / "q.db", isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(StoreError, match="cannot be used: database is locked; end the program that writes to it; a backup only has to"):
            opened(tmp_path / "q.db")
