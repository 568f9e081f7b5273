"""Opening the database file: who may read it, whose it is, and which schema it has."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from connector.errors import StoreError
from connector.values import Value

APPLICATION_ID = 0x5169616F  # "Qiao" in ASCII: tells our file from somebody else's database
FILE_MODE = 0o600  # the file holds access tokens and who deals with whom
BUSY_TIMEOUT_MS = 5_000  # how long a start waits for another program that is writing; the running writer never waits like this
CACHED_STATEMENTS = 256  # more than there are different statements, so that none is compiled twice
LEAST_SQLITE = (3, 37, 0)  # the first with STRICT tables
WAL_LIMIT_BYTES = 64 << 20  # a log that a burst has blown up is cut back to this
AGAIN_BYTES = 1 << 20  # of such a log are written once more at a time


class Migration(Value):
    """One step of the schema, forward only: the statements of file `sqlite_<version>.sql` and the SHA-256 of the file."""

    version: int
    sql: str
    sha256: str


def shipped() -> tuple[Migration, ...]:
    """The migrations that belong to this program, in order."""
    return tuple(
        Migration(int(file.stem.rpartition("_")[2]), file.read_text("utf-8"), hashlib.sha256(file.read_bytes()).hexdigest())
        for file in sorted(Path(__file__).parent.glob("sqlite_[0-9][0-9][0-9][0-9].sql"))
    )


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Hold the database in `path` for one connector. Raises StoreError if another has it, and says which process that is.

    Two of them would each deliver every message. The claim is a lock on a file beside the database, which the kernel releases
    with the process, however that ends; nobody else asks for it, so a backup reads as it likes.
    """
    place = path.resolve()
    try:
        descriptor = os.open(place.with_name(f"{place.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        raise _cannot_be_opened(path, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise StoreError(
                f"the database `{path}` is in use by another connector, process {holder}; stop that one, or give this one a"
                " `store.path` of its own: one SQLite file serves one process"
            ) from error
        try:
            os.pwrite(descriptor, f"{os.getpid():<20}".encode(), 0)
        except OSError as error:
            raise _cannot_be_opened(path, error) from error
        yield
    finally:
        os.close(descriptor)


def connect(path: Path, *, cache_kib: int, read_only: bool = False, busy_ms: int = BUSY_TIMEOUT_MS) -> sqlite3.Connection:
    """One more connection to the file; usable from any thread, but by one at a time. `busy_ms` is how long a statement waits
    for another program's lock."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=CACHED_STATEMENTS)
    db.execute(f"pragma busy_timeout={busy_ms}")
    db.execute(f"pragma cache_size=-{cache_kib}")
    db.execute(f"pragma query_only={int(read_only)}")
    return db


def open_database(path: Path, *, cache_kib: int, migrations: Sequence[Migration] | None = None) -> sqlite3.Connection:
    """Return the writing connection to the database in `path`, created and migrated as needed.

    Every commit on it waits until the disk has it (`synchronous=FULL`). Raises StoreError, with what to do, if the file
    cannot be opened, belongs to another program, or has a newer schema; nothing was changed then.
    """
    if sqlite3.sqlite_version_info < LEAST_SQLITE:
        raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old; use a Python that is linked to SQLite 3.37 or later")
    _create(path)
    db: sqlite3.Connection | None = None
    try:
        db = connect(path, cache_kib=cache_kib)
        _check_ours(db, path)
        _make_private(path)
        _write_ahead(db)
        db.execute("pragma synchronous=full")
        db.execute("pragma secure_delete=fast")  # overwrite what is deleted where that costs no page more, on whatever build
        db.execute(f"pragma journal_size_limit={WAL_LIMIT_BYTES}")
        _once_more(db, path)
        migrate(db, path, shipped() if migrations is None else migrations)
    except (sqlite3.Error, StoreError) as error:
        if db is not None:
            db.close()
        if isinstance(error, StoreError):
            raise
        remedy = "end the program that writes to it; a backup only has to read" if is_busy(error) else "check the disk, or restore a backup"
        raise StoreError(f"the database `{path}` cannot be used: {error}; {remedy}") from error
    return db


def _write_ahead(db: sqlite3.Connection) -> None:
    """Switch to a write-ahead log. SQLite does not wait for the lock that this needs, as it does for others, so we do."""
    ends = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            db.execute("pragma journal_mode=wal").fetchone()
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > ends:
                raise
            time.sleep(0.01)


def _once_more(db: sqlite3.Connection, path: Path) -> None:
    """Write what a process has left in the write-ahead log once more: it may have ended because the disk did not keep that, and a kernel
    says so once. In its place, which needs no room: a checkpoint would, and a disk that is full is no reason not to start."""
    db.execute("begin immediate")  # nobody else appends to it
    try:
        log = os.open(f"{path.resolve()}-wal", os.O_RDWR | os.O_CLOEXEC)
        try:
            at = 0
            while piece := os.pread(log, AGAIN_BYTES, at):
                at += os.pwrite(log, piece, at)
            os.fsync(log)
        finally:
            os.close(log)
    except OSError as error:
        raise StoreError(
            f"the write-ahead log of the database `{path}` cannot be written: {error.strerror}; look after that disk"
        ) from error
    finally:
        db.execute("rollback")


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another program's lock was in the way, and nothing else."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY  # the primary code, whatever the extended one adds


def _create(path: Path) -> None:
    """Create the file if there is none, for its owner alone; SQLite gives its side files the mode of the main one. The
    folder is flushed, else a loss of power could take the new file along."""
    try:
        existed = path.exists()
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
        if not existed:
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            except OSError:
                path.unlink()  # the next start would find it, and a loss of power not
                raise
            finally:
                os.close(folder)
    except OSError as error:
        raise _cannot_be_opened(path, error) from error


def _cannot_be_opened(path: Path, error: OSError) -> StoreError:
    why = error.strerror or str(error)
    if error.filename is not None and Path(error.filename) != path:  # of another user, as after a first run as root
        why += f", of `{error.filename}`"
    return StoreError(
        f"the database `{path}` cannot be opened: {why}; the folder must exist and the file be ours to write, on a disk with room"
    )


def _make_private(path: Path) -> None:
    """Take the rights of others away: volumes and backups come back with wider ones."""
    try:
        for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            if file.exists() and file.stat().st_mode & 0o777 != FILE_MODE:
                file.chmod(FILE_MODE)
    except OSError as error:
        raise StoreError(
            f"others can read the database `{path}` and that cannot be changed ({error.strerror}); make its owner ours"
        ) from error


def _check_ours(db: sqlite3.Connection, path: Path) -> None:
    # In this order: who makes the file at this moment writes tables and mark in one transaction.
    tables = db.execute("select count(*) from sqlite_schema").fetchone()[0]
    mark = db.execute("pragma application_id").fetchone()[0]
    if tables and mark != APPLICATION_ID:
        raise StoreError(f"`{path}` is the database of another program; name a file of our own or one that does not exist yet")


def migrate(db: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    """Bring the schema forward, each migration in a transaction of its own.

    Raises StoreError if the schema is newer than `migrations`, or if one that was applied differs from ours.
    """
    known = migrations[-1].version
    for migration in migrations:
        db.execute("begin immediate")  # another process may be doing the same: look again now that it cannot
        try:
            applied = _applied(db)
            newest = max(applied, default=0)
            if newest > known:
                raise StoreError(
                    f"the database `{path}` has schema {newest}, this program knows up to {known};"
                    " start the newer program, or restore the backup that was made before it ran"
                )
            if applied.get(migration.version, migration.sha256) != migration.sha256:
                raise StoreError(
                    f"schema {migration.version} of the database `{path}` was made by other statements than ours;"
                    " start the program that made it, or restore a backup"
                )
            if migration.version not in applied:
                for statement in _statements(migration.sql):
                    db.execute(statement)
                db.execute(
                    "insert into migration(version, sha256, applied) values (?, ?, unixepoch())", (migration.version, migration.sha256)
                )
            db.execute("commit")
        finally:
            if db.in_transaction:
                db.execute("rollback")


def _applied(db: sqlite3.Connection) -> dict[int, str]:
    """version -> SHA-256 of what the file went through; makes the table for it in a fresh file."""
    if db.execute("select 1 from sqlite_schema where name = 'migration'").fetchone() is None:
        db.execute(f"pragma application_id={APPLICATION_ID}")
        db.execute("create table migration(version integer primary key, sha256 text not null, applied integer not null) strict")
    return dict(db.execute("select version, sha256 from migration").fetchall())


def _statements(script: str) -> Iterator[str]:
    """The single statements of a script: `executescript` would commit before the first and after none."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending.strip():
        yield pending


def number_of(db: sqlite3.Connection, participant: str) -> int:
    """The number that stands for `participant` in every key of this file; a new one gets the next."""
    db.execute("insert into participant(id) values (?) on conflict(id) do nothing", (participant,))
    return int(db.execute("select number from participant where id = ?", (participant,)).fetchone()[0])
