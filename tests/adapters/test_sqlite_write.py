"""The writer: groups, what others see meanwhile, and the end when the disk refuses."""

import asyncio
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from connector.adapters import sqlite_write
from connector.adapters.sqlite_rows import SELECT_PROCESS, process_of
from connector.adapters.sqlite_schema import connect, number_of, open_database
from connector.adapters.sqlite_write import GROUP_AT_MOST, Writer
from connector.adapters_stores.sqlite_prepared import prepare
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind
from connector.errors import StoreError
from connector.records import Changes, Conflict, Expect
from connector.values import replace
from tests.contracts.samples import OWN, dataset, fact, inbox, negotiation, outbound
from tests.faults.patience import own_time

COUNTED = ("process", "inbox", "outbox", "evidence", "dataset", "offer")


class Disk:
    """A connection whose COMMIT waits for `let`, and fails with `refuse` if that is set."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        self.let = threading.Semaphore(0)
        self.refuse: Exception | None = None
        self.threads: list[str] = []  # the thread of each COMMIT
        self.at_commit = threading.Event()

    def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:
        if sql == "commit":
            self.threads.append(threading.current_thread().name)
            self.at_commit.set()
            assert self.let.acquire(timeout=20)
            if self.refuse is not None:
                raise self.refuse
        return self.db.execute(sql, values)

    def cursor(self) -> sqlite3.Cursor:
        return self.db.cursor()

    def close(self) -> None:
        self.db.close()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    open_database(tmp_path / "q.db", cache_kib=1024).close()
    yield tmp_path / "q.db"
    db = sqlite3.connect(tmp_path / "q.db")
    assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    db.close()


@asynccontextmanager
async def writing(path: Path, *, slow: bool = False, **more: float) -> AsyncIterator[tuple[Writer, Disk, list[BaseException]]]:
    db = open_database(path, cache_kib=1024)
    number, disk, ends = number_of(db, OWN), Disk(db), []
    writer = Writer(disk if slow else db, number, ends.append, **({"quick_seconds": 0.0} if slow else {}) | more)  # type: ignore[arg-type]
    yield writer, disk, ends
    disk.let.release(1000)
    await writer.close()


def rows(path: Path) -> dict[str, int]:
    db = connect(path, cache_kib=1024, read_only=True)
    counts = {table: db.execute(f"select count(*) from {table}").fetchone()[0] for table in COUNTED}  # noqa: S608
    db.close()
    return counts


def step(name: int | str, **values: Any) -> Changes:
    pid = f"urn:uuid:n{name}"
    return Changes(
        expects=(Expect(Process, pid, None),),
        saves=(negotiation(pid, **values), inbox(pid)),
        outbox=(outbound(f"urn:uuid:o{name}", pid),),
        evidence=(fact(pid=pid),),
    )


async def at_commit(disk: Disk) -> None:
    assert await asyncio.to_thread(disk.at_commit.wait, 20)
    disk.at_commit.clear()


@pytest.mark.asyncio
async def test_writes_that_come_together_share_a_commit(database: Path):
    async with writing(database) as (writer, _, _):
        done = await asyncio.gather(*(writer.submit(prepare(1, step(n))) for n in range(40)))
        assert writer.commits == 1
        assert [each[0].sequence for each in done] == list(range(1, 41))


@pytest.mark.asyncio
async def test_a_group_is_bounded(database: Path):
    async with writing(database) as (writer, _, _):
        await asyncio.gather(*(writer.submit(prepare(1, step(n))) for n in range(3 * GROUP_AT_MOST + 1)))
        assert writer.commits == 4
    assert rows(database)["process"] == 3 * GROUP_AT_MOST + 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("gather_seconds", "commits"), [(30.0, range(2, 3)), (0.0, range(4, 7))], ids=["while it may", "no longer than it may"]
)
async def test_while_each_turn_of_the_loop_brings_more_to_a_group_it_stays_open(
    database: Path, monkeypatch: pytest.MonkeyPatch, gather_seconds: float, commits: range
):
    monkeypatch.setattr(sqlite_write, "GATHER_SECONDS", gather_seconds)
    async with writing(database, quick_seconds=5.0) as (writer, _, _):
        await writer.submit(prepare(1, step(0)))
        before = writer.commits
        done = await asyncio.gather(*(after(turns, writer, step(n)) for n, turns in enumerate((0, 0, 1, 2, 3, 12), 1)))
        assert [each[0].sequence for each in done] == list(range(2, 8))
        assert writer.commits - before in commits, "the last one comes after turns that brought nothing"


async def after(turns: int, writer: Writer, changes: Changes) -> Any:
    """Write after so many turns of the loop."""
    for _ in range(turns):
        await asyncio.sleep(0)
    return await writer.submit(prepare(1, changes))


@pytest.mark.asyncio
async def test_what_arrives_during_a_commit_is_committed_together_next(database: Path):
    async with writing(database, slow=True) as (writer, disk, _):
        first = writer.submit(prepare(1, step(0)))
        await at_commit(disk)
        later = [writer.submit(prepare(1, step(n))) for n in range(1, 30)]
        disk.let.release()
        await first
        assert not any(each.done() for each in later)
        await at_commit(disk)
        disk.let.release()
        await asyncio.gather(*later)
        assert writer.commits == 2


@pytest.mark.asyncio
async def test_nobody_is_told_and_nobody_sees_anything_before_the_commit(database: Path):
    async with writing(database, slow=True) as (writer, disk, _):
        waiting = writer.submit(prepare(1, step(1)))
        await at_commit(disk)
        assert set(rows(database).values()) == {0}
        assert not waiting.done()
        disk.let.release()
        await waiting
        assert rows(database) == {"process": 1, "inbox": 1, "outbox": 1, "evidence": 1, "dataset": 0, "offer": 0}


@pytest.mark.asyncio
async def test_the_connection_is_lent_to_readers_only_while_all_that_it_sees_is_committed(database: Path):
    async with writing(database, slow=True) as (writer, disk, _):
        assert writer.at_rest is disk
        waiting = writer.submit(prepare(1, step(1)))
        assert writer.at_rest is disk, "nothing is written yet"
        await at_commit(disk)
        assert writer.at_rest is None
        disk.let.release()
        await waiting
        assert writer.at_rest is disk
        refused = writer.submit(prepare(1, step(2, version=1 << 63)))
        with pytest.raises(OverflowError):
            await refused
        assert writer.at_rest is disk
        assert disk.execute("select count(*) from process").fetchone() == (1,)


@pytest.mark.asyncio
async def test_the_loop_goes_on_while_the_disk_is_slow(database: Path):
    async with writing(database, slow=True) as (writer, disk, _):
        waiting = writer.submit(prepare(1, step(1)))
        await at_commit(disk)
        turns = 0
        for _ in range(100):
            await asyncio.sleep(0)
            turns += 1
        assert (turns, waiting.done()) == (100, False)
        disk.let.release()
        await waiting


@pytest.mark.asyncio
@pytest.mark.parametrize(("quick_seconds", "then"), [(5.0, "MainThread"), (0.0, "store-commit")])
async def test_a_commit_wakes_no_thread_where_the_disk_is_quick(database: Path, quick_seconds: float, then: str):
    async with writing(database, slow=True, quick_seconds=quick_seconds) as (writer, disk, _):
        disk.let.release(1000)
        for number in range(3):
            await writer.submit(prepare(1, step(number)))
        assert disk.threads == ["store-commit", then, then], "of the first nobody knows how long it takes"
        await asyncio.gather(*(writer.submit(prepare(1, step(number))) for number in (3, 4)))
        assert disk.threads[3:] == [then]
        writer._pace.took(6.0, on_loop=False)
        for number in (5, 6):
            await writer.submit(prepare(1, step(number)))
        assert disk.threads[4:] == ["store-commit", then]


@pytest.mark.asyncio
async def test_the_first_write_after_a_rest_waits_for_no_company_where_the_disk_is_quick(database: Path):
    async with writing(database, quick_seconds=5.0) as (writer, _, _):
        await writer.submit(prepare(1, step(0)))
        close = writer.submit(prepare(1, step(1)))
        assert not close.done(), "others may be about to write as well"
        await close
        await rested(writer)
        assert writer.submit(prepare(1, step(2))).done()
        await rested(writer)
        writer._pace.took(6.0, on_loop=False)
        slow = writer.submit(prepare(1, step(3)))
        assert not slow.done(), "a slow disk is worth company"
        await slow
        assert writer.commits == 4


@pytest.mark.asyncio
async def test_who_computes_and_writes_in_a_row_leaves_others_their_turn(database: Path):
    async with writing(database, quick_seconds=5.0) as (writer, _, _):
        await writer.submit(prepare(1, step(0)))
        turns = list[int]()
        others = asyncio.create_task(turning(turns))
        await asyncio.sleep(0)
        for number in range(1, 20):
            writer._rested -= 10  # as long as what is decided on takes
            await writer.submit(prepare(1, step(number)))
        others.cancel()
        assert len(turns) >= 10


@pytest.mark.asyncio
async def test_who_waited_for_a_commit_is_told_before_the_next_one_is_made(database: Path):
    order: list[str] = []
    async with writing(database, quick_seconds=5.0) as (writer, _, _):
        await writer.submit(prepare(1, step(0)))
        await rested(writer)

        async def first() -> None:
            await writer.submit(prepare(1, step(1)))
            order.append("first")

        async def second() -> None:
            while writer.commits < 2:  # noqa: ASYNC110 - in the very turn in which the first one is made
                await asyncio.sleep(0)
            writer._rested -= 10  # as long as somebody else has computed meanwhile
            await writer.submit(prepare(1, step(2)))
            order.append("second")

        writer._pace.took(6.0, on_loop=False)  # the first one is made by the thread, and takes no time
        await asyncio.gather(first(), second())
    assert order == ["first", "second"]


async def rested(writer: Writer) -> None:
    """Long enough for the next write to be one that waits for nobody."""
    await asyncio.sleep(0)
    writer._rested -= 10


async def turning(turns: list[int]) -> None:
    while True:
        turns.append(len(turns))
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_what_comes_while_a_write_waits_for_the_disk_is_not_committed_on_the_loop(database: Path):
    async with writing(database, slow=True) as (writer, disk, _):
        first = writer.submit(prepare(1, step(0)))
        await at_commit(disk)
        second = writer.submit(prepare(1, step(1)))
        disk.let.release(1000)
        await asyncio.gather(first, second)
        assert disk.threads == ["store-commit"] * 2


@pytest.mark.asyncio
async def test_a_later_change_of_a_group_sees_the_earlier_ones(database: Path):
    async with writing(database) as (writer, _, _):
        second = Changes(expects=(Expect(Process, "urn:uuid:n1", 1),), saves=(negotiation("urn:uuid:n1", version=2),), evidence=(fact(),))
        done = await asyncio.gather(*(writer.submit(prepare(1, each)) for each in (step(1), second, second, step(1))))
        assert writer.commits == 1
        assert [isinstance(each, Conflict) for each in done] == [False, False, True, True]
    assert rows(database)["evidence"] == 2


@pytest.mark.asyncio
async def test_a_conflict_of_one_leaves_the_rest_of_its_group_alone(database: Path):
    async with writing(database) as (writer, _, _):
        changes = [step(n % 5) for n in range(20)]
        done = await asyncio.gather(*(writer.submit(prepare(1, each)) for each in changes))
        assert sum(isinstance(each, Conflict) for each in done) == 15
    assert rows(database) == {"process": 5, "inbox": 5, "outbox": 5, "evidence": 5, "dataset": 0, "offer": 0}


@pytest.mark.asyncio
@pytest.mark.parametrize("values", [{"agreement": "half a pair: \ud800"}, {"version": 1 << 63}], ids=["no UTF-8", "too large"])
async def test_a_change_that_no_row_can_hold_is_refused_and_the_rest_of_its_group_is_written(database: Path, values: dict[str, Any]):
    async with writing(database) as (writer, _, ends):
        wrong = Changes(saves=(inbox("urn:uuid:n9"), negotiation("urn:uuid:n9", **values)), evidence=(fact(),))
        group = [step(0), step(1), wrong, step(2), wrong, step(3)]
        done = await asyncio.gather(*(writer.submit(prepare(1, each)) for each in group), return_exceptions=True)
        assert [type(each) for each in done if isinstance(each, Exception)] == [type(done[2])] * 2
        assert isinstance(done[2], UnicodeEncodeError | OverflowError)
        assert [each[0].sequence for each in done if isinstance(each, tuple)] == [1, 2, 3, 4]
        alone = writer.submit(prepare(1, wrong))
        with pytest.raises(type(done[2])):
            await alone
        assert ends == []
    assert rows(database) == {"process": 4, "inbox": 4, "outbox": 4, "evidence": 4, "dataset": 0, "offer": 0}


@pytest.mark.asyncio
async def test_a_step_of_a_process_is_one_statement_and_two_if_it_learns_the_peers_pid(database: Path):
    async with writing(database) as (writer, disk, _):
        statements: list[str] = []
        disk.db.set_trace_callback(lambda sql: statements.append(sql.split()[0]) if "process" in sql else None)
        begun = negotiation()
        for before, process, told in (
            (None, begun, ["insert"]),
            (1, replace(begun, version=2, state="OFFERED", due=5.0, dataset="d", agreement="a", updated=9.0), ["update"]),
            (2, replace(begun, version=3, peer_pid="p"), ["update", "update"]),
            (3, replace(begun, version=4, peer_pid="p", detail={"x": 1}), ["update"]),
            (4, replace(begun, version=5, peer_pid="p", state="TERMINATED"), ["update"]),
            (5, replace(begun, version=6, peer_pid="p", state="TERMINATED", updated=9.5), ["update"]),
            (6, replace(begun, version=7, peer_pid="q", created=7.0), ["update", "update", "select", "select", "insert"]),
        ):
            statements.clear()
            done = await writer.submit(prepare(1, Changes(expects=(Expect(Process, begun.pid, before),), saves=(process,))))
            assert (done, statements) == ((), told)
            (row,) = disk.db.execute(SELECT_PROCESS).fetchall()
            assert process_of(row) == process


@pytest.mark.asyncio
async def test_a_step_that_does_not_find_what_it_expects_writes_nothing(database: Path):
    async with writing(database) as (writer, _, _):
        one, other = negotiation(peer_pid="p"), negotiation("urn:uuid:n2")
        await writer.submit(prepare(1, Changes(saves=(one, other))))
        twin = Expect(Process, (Kind.NEGOTIATION, one.peer, "p"), None)
        for expect, process, conflict in (
            (Expect(Process, one.pid, None), one, None),
            (Expect(Process, one.pid, 2), replace(one, version=3), None),
            (Expect(Process, "urn:uuid:n3", None), negotiation("urn:uuid:n3", peer_pid="p"), twin),
            (Expect(Process, "urn:uuid:n3", 1), negotiation("urn:uuid:n3"), None),
            (Expect(Process, other.pid, 1), replace(other, peer_pid="p", version=2), twin),
        ):
            changes = Changes(expects=(expect,), saves=(process, inbox()), settled=("x",), outbox=(outbound(),), evidence=(fact(),))
            assert await writer.submit(prepare(1, changes)) == Conflict(conflict or expect)
    assert rows(database) == {"process": 2, "inbox": 0, "outbox": 0, "evidence": 0, "dataset": 0, "offer": 0}


@pytest.mark.asyncio
async def test_a_full_disk_ends_the_process_and_leaves_nothing_half_written(database: Path):
    async with writing(database, quick_seconds=0.0) as (writer, disk, ends):
        await writer.submit(prepare(1, step(0)))
        before = rows(database)
        disk.db.execute(f"pragma max_page_count={disk.db.execute('pragma page_count').fetchone()[0] + 3}")
        big = [step(n, detail={"x": "y" * 20_000}) for n in range(1, 9)]
        done = await asyncio.gather(*(writer.submit(prepare(1, each)) for each in big), return_exceptions=True)
        assert [type(each) for each in done] == [StoreError] * 8
        assert [str(error) for error in ends] == ["database or disk is full"]
        with pytest.raises(StoreError, match="has to start again"):
            writer.submit(prepare(1, step(99)))
        assert rows(database) == before
    assert rows(database) == before


@pytest.mark.asyncio
async def test_a_commit_on_the_loop_that_fails_ends_the_process_too(database: Path):
    async with writing(database, slow=True, quick_seconds=5.0) as (writer, disk, ends):
        disk.let.release(1000)
        await writer.submit(prepare(1, step(0)))
        disk.refuse = sqlite3.OperationalError("disk I/O error")
        with pytest.raises(StoreError, match="cannot be written: disk I/O error"):
            await writer.submit(prepare(1, step(1)))
        assert (ends, disk.threads) == ([disk.refuse], ["store-commit", "MainThread"])
    assert rows(database)["process"] == 1


@pytest.mark.asyncio
async def test_a_commit_that_fails_ends_the_process_and_nobody_is_told_of_success(database: Path):
    async with writing(database, slow=True) as (writer, disk, ends):
        disk.refuse = sqlite3.OperationalError("disk I/O error")
        group = [writer.submit(prepare(1, step(n))) for n in range(3)]
        await at_commit(disk)
        follower = writer.submit(prepare(1, step(9)))
        disk.let.release()
        done = await asyncio.gather(*group, follower, return_exceptions=True)
        assert [type(each) for each in done] == [StoreError] * 4
        assert ends == [disk.refuse]
    assert set(rows(database).values()) == {0}


@pytest.mark.asyncio
async def test_an_error_between_two_writes_of_a_change_is_fatal_for_its_whole_group(database: Path):
    async with writing(database) as (writer, _, ends):
        wrong = Changes(saves=(dataset(), negotiation("urn:uuid:n2", state="NO-STATE-OF-THE-PROTOCOL")))
        done = await asyncio.gather(*(writer.submit(prepare(1, each)) for each in (step(1), wrong)), return_exceptions=True)
        assert [type(each) for each in done] == [StoreError] * 2
        assert isinstance(ends[0], sqlite3.IntegrityError)
    assert set(rows(database).values()) == {0}


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program that is in the middle of a write."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("begin immediate")
    try:
        yield db
    finally:
        db.close()


@pytest.mark.asyncio
async def test_the_loop_goes_on_while_another_program_is_writing_and_then_everything_is_written(database: Path):
    async with writing(database) as (writer, _, ends):
        with locked(database):
            within, begun = own_time(), time.monotonic()
            longest, last, group = 0.0, begun, [writer.submit(prepare(1, step(n))) for n in range(3)]
            while time.monotonic() - begun < 0.3:
                await asyncio.sleep(0.001)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
            group.append(writer.submit(prepare(1, step(3))))
            assert not any(each.done() for each in group)
        done = await asyncio.wait_for(asyncio.gather(*group), 5)
        assert [each[0].sequence for each in done] == [1, 2, 3, 4]
        assert longest < within(0.2), "no turn of the loop waits for the lock"
        assert (writer.commits, ends) == (1, [])


@pytest.mark.asyncio
async def test_a_program_that_never_stops_writing_ends_the_process_with_the_reason(database: Path):
    async with writing(database, locked_seconds_max=0.1) as (writer, _, ends):
        with locked(database):
            done = await asyncio.wait_for(asyncio.gather(writer.submit(prepare(1, step(0))), return_exceptions=True), 5)
        assert [type(each) for each in done] == [StoreError]
        assert [str(error) for error in ends] == ["another program has kept the database locked for 0.1 s"]
    assert set(rows(database).values()) == {0}


@pytest.mark.asyncio
async def test_two_short_locks_are_not_one_long_one(database: Path, monkeypatch: pytest.MonkeyPatch):
    looked, begun = asyncio.Event(), Writer._begun

    def look(writer: Writer, loop: asyncio.AbstractEventLoop) -> bool:
        looked.set()
        return begun(writer, loop)

    monkeypatch.setattr(Writer, "_begun", look)
    async with writing(database, locked_seconds_max=60.0) as (writer, _, ends):
        for n in range(3):
            with locked(database):
                waiting = writer.submit(prepare(1, step(n)))
                for passed in (40.0, 0.0):
                    looked.clear()
                    await asyncio.wait_for(looked.wait(), 20)
                    if writer._locked_since is not None:
                        writer._locked_since -= passed
            await asyncio.wait_for(waiting, 20)
        assert ends == []


@pytest.mark.asyncio
async def test_closing_finishes_what_was_submitted(database: Path):
    async with writing(database) as (writer, _, _):
        futures = [writer.submit(prepare(1, step(n))) for n in range(100)]
        await writer.close()
        assert all(each.done() for each in futures)
        with pytest.raises(StoreError, match="closed"):
            writer.submit(prepare(1, step(100)))
    assert rows(database)["process"] == 100


def test_an_error_while_writing_ends_a_process_with_its_own_status():
    program = (
        "{}; import sqlite3; from connector.adapters.sqlite_write import end_process;"
        "end_process(sqlite3.OperationalError('disk I/O error'))"
    )
    done, unheard = (
        subprocess.run([sys.executable, "-c", program.format(first)], capture_output=True, text=True, check=False, timeout=30)
        for first in ("import sys", "import sys; sys.stderr = None")  # Python sets that where a process begins without one
    )
    assert done.returncode == unheard.returncode == 70, "whether or not anybody can be told"
    said = json.loads(done.stderr)
    assert (said["level"], said["event"]) == ("error", "the store cannot be written, the process ends")
    assert said["reason"] == "OperationalError: disk I/O error"
    assert said["remedy"].startswith("look at its disk, and start again")
