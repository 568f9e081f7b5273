"""The store on SQLite keeps the contract of all stores, answers as the one in memory does, and survives `kill -9`."""

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connector.adapters.memory import MemoryStore
from connector.adapters.sqlite import SqliteStore
from connector.adapters.sqlite_schema import connect, open_database
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind
from connector.errors import StoreError
from connector.records import Agreement, Changes, Conflict, Dataset, Edr, Expect, Idempotent, Offer, Outbound, Pull
from connector.values import replace
from tests.contracts.samples import (
    OTHER_PEER,
    OWN,
    PEER,
    agreement,
    dataset,
    edr,
    fact,
    idempotent,
    inbox,
    negotiation,
    outbound,
    pull,
    transfer,
)
from tests.contracts.store_contract import StoreContract, contents

ROOT = Path(__file__).parents[2]


class SqliteStores:
    """All participants share a file."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, count()
        self._opened: list[SqliteStore] = []

    def open(self, participant: str = OWN) -> SqliteStore:
        return self._keep(SqliteStore(self._folder / "q.db", participant))

    def fresh(self) -> SqliteStore:
        return self._keep(SqliteStore(self._folder / f"{next(self._numbers)}.db", OWN))

    def _keep(self, store: SqliteStore) -> SqliteStore:
        self._opened.append(store)
        return store

    async def close(self) -> None:
        for store in self._opened:
            await store.close()


@pytest_asyncio.fixture
async def stores(tmp_path: Path) -> AsyncIterator[SqliteStores]:
    stores = SqliteStores(tmp_path)
    yield stores
    await stores.close()


class TestSqlite(StoreContract):
    """The whole contract."""


@pytest.mark.asyncio
async def test_a_page_of_large_datasets_has_fewer_and_none_is_left_out(stores: SqliteStores, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("connector.adapters.sqlite.PAGE_BYTES_MAX", 10_000)
    store, sizes = stores.open(), {"a": 4_000, "b": 4_000, "c": 4_000, "d": 20_000, "e": 30_000, "f": 10, "g": 10, "h": 20_000}
    for id, size_bytes in sizes.items():
        await store.commit(Changes(saves=(dataset(id, document=b"x" * size_bytes),)))
    for read in (store.datasets, store.listed_datasets):
        pages = [await read(after=None, before=None, limit=5)]
        while (after := pages[-1].next) is not None:
            pages.append(await read(after=after, before=None, limit=5))
        assert ["".join(each.id for each in page.items) for page in pages] == ["ab", "c", "d", "e", "fg", "h"]
        back = [await read(after=None, before="i", limit=5)]
        while (before := back[-1].previous) is not None:
            back.append(await read(after=None, before=before, limit=5))
        assert ["".join(each.id for each in page.items) for page in back] == ["h", "fg", "e", "d", "bc", "a"]
    assert [each.id for each in (await store.datasets(after="g", before=None, limit=1)).items] == ["h"]


# Writes over few keys, so that they meet: in every second one something that was expected does not hold.
ids = st.sampled_from(["a", "b", "c"])
versions = st.integers(1, 2)
states = st.sampled_from(["REQUESTED", "FINALIZED", "TERMINATED"])
peers = st.sampled_from([PEER, OTHER_PEER])
peer_pids = st.sampled_from([None, "p", "q"])
times = st.sampled_from([None, 1.0, 2.0])
at = st.sampled_from([1.0, 2.0, 3.0])
processes = st.builds(negotiation, ids, version=versions, state=states, peer=peers, peer_pid=peer_pids, due=times, updated=at, created=at)
records = st.one_of(
    processes,
    st.builds(transfer, st.sampled_from(["d", "e"]), version=versions, peer_pid=peer_pids, state=st.sampled_from(["STARTED", "COMPLETED"])),
    st.builds(inbox, ids, at=at, answer=st.binary(max_size=2)),
    st.builds(agreement, ids, created=at),
    st.builds(dataset, ids, st.sampled_from([(), ("o",), ("o", "r")]), version=versions),
    st.builds(edr, st.sampled_from(["d", "e"]), access_token=ids),
    st.builds(pull, ids, version=versions, stage=st.sampled_from(["download", "done"])),
    st.builds(idempotent, ids, created=at),
)
expects = st.one_of(
    st.builds(Expect, st.sampled_from([Process, Dataset, Pull, Agreement, Edr, Idempotent, Outbound]), ids, st.none() | versions),
    st.builds(Expect, st.just(Offer), st.sampled_from(["o", "r"]), st.none() | versions),
    st.builds(Expect, st.just(Process), st.tuples(st.just(Kind.NEGOTIATION), peers, st.sampled_from("pq")), st.none() | versions),
)
writes = st.builds(
    Changes,
    expects=st.lists(expects, max_size=1).map(tuple),
    saves=st.lists(records, max_size=3).map(tuple),
    deletes=st.lists(st.tuples(st.sampled_from([Process, Dataset, Pull, Agreement, Edr, Idempotent]), ids), max_size=1).map(tuple),
    outbox=st.lists(st.builds(outbound, ids, ids, dead=st.booleans(), epoch=versions, created=at), max_size=2).map(tuple),
    settled=st.lists(ids, max_size=1).map(tuple),
    evidence=st.lists(st.builds(fact, pid=ids), max_size=2).map(tuple),
)
sweeps = st.fixed_dictionaries({"inbox_before": at, "processes_before": at, "keys_before": at, "limit": st.just(100)})


async def outcome(store: Any, step: Any) -> Any:
    try:
        return await (store.sweep(**step) if isinstance(step, dict) else store.commit(step))
    except ValueError as error:
        return str(error)


@pytest.mark.asyncio
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(history=st.lists(writes | sweeps, max_size=12))
async def test_any_history_leaves_both_stores_alike(stores: SqliteStores, history: list[Any]):
    sqlite, memory = stores.fresh(), MemoryStore()
    for step in history:
        assert await outcome(sqlite, step) == await outcome(memory, step)
    assert await contents(sqlite) == await contents(memory)
    assert await sqlite.next_due() == await memory.next_due()
    for pid in "abc":
        assert await sqlite.last_answer(pid) == await memory.last_answer(pid)
        assert [*await sqlite.evidence_of(pid)] == [*await memory.evidence_of(pid)]
    await sqlite.close()


CHILD = """
import asyncio, sys
from pathlib import Path
from connector.adapters.sqlite import SqliteStore
from connector.dsp.exchange import Process
from connector.records import Changes, Expect
from tests.contracts.samples import OWN, fact, inbox, negotiation, outbound

async def main():
    store = SqliteStore(Path(sys.argv[1]), OWN)
    async def work(task):
        for version in range(1, 1_000_000):
            pid = f"urn:uuid:{task}"
            expected = Expect(Process, pid, version - 1 if version > 1 else None)
            await store.commit(Changes(
                expects=(expected,), saves=(negotiation(pid, version=version), inbox(pid)),
                outbox=(outbound(f"{task}-{version}", pid),), settled=(f"{task}-{version - 1}",), evidence=(fact(pid=pid),)))
            sys.stdout.write(f"{task} {version}\\n")
            sys.stdout.flush()
    await asyncio.gather(*(work(task) for task in range(16)))

asyncio.run(main())
"""


@pytest.mark.asyncio
@pytest.mark.parametrize("lines", [1, 37, 800])
async def test_what_was_acknowledged_is_there_after_kill_9(tmp_path: Path, lines: int):
    child = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs on this loop
        [sys.executable, "-c", CHILD, str(tmp_path / "q.db")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    told = [child.stdout.readline() for _ in range(lines)]
    child.send_signal(signal.SIGKILL)
    told += [line for line in child.stdout if line.endswith("\n")]
    child.stdout.close()
    assert child.wait(20) == -signal.SIGKILL
    acknowledged = {task: int(version) for task, version in (line.split() for line in told if line.strip())}
    store = SqliteStore(tmp_path / "q.db", OWN)
    open_rows = [row.id for row in await store.open_outbox()]
    written = 0
    for task in range(16):
        process = await store.process(Kind.NEGOTIATION, f"urn:uuid:{task}")
        version = process.version if process else 0
        assert version - acknowledged.get(str(task), 0) in (0, 1)  # one more may be durable that nobody was told of
        assert len(await store.evidence_of(f"urn:uuid:{task}")) == version  # all of a write, or nothing
        assert [row for row in open_rows if row.startswith(f"{task}-")] == ([f"{task}-{version}"] if version else [])
        written += version
    assert written >= len(told)
    facts = await store.events(0, 10_000)
    assert [each.sequence for each in facts] == list(range(1, written + 1))
    await store.close()
    db = sqlite3.connect(tmp_path / "q.db")
    assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    db.close()


@pytest.mark.asyncio
async def test_a_store_that_is_opened_again_has_everything(tmp_path: Path):
    store = SqliteStore(tmp_path / "q.db", OWN)
    await store.commit(Changes(saves=(negotiation(), dataset(), agreement()), outbox=(outbound(),), evidence=(fact(),)))
    before = await contents(store)
    await store.close()
    again = SqliteStore(tmp_path / "q.db", OWN)
    assert await contents(again) == before
    facts = await again.commit(Changes(evidence=(fact(),)))
    assert facts[0].sequence == 2
    await again.close()


@pytest.mark.asyncio
async def test_a_store_that_cannot_write_any_more_says_so_to_readers_too(tmp_path: Path):
    ends: list[BaseException] = []
    store = SqliteStore(tmp_path / "q.db", OWN, fatal=ends.append)
    with pytest.raises(StoreError, match="cannot be written"):
        await store.commit(Changes(saves=(negotiation(state="NO-STATE-OF-THE-PROTOCOL"),)))
    assert len(ends) == 1
    for call in (store.process(Kind.NEGOTIATION, "x"), store.events(0, 5), store.commit(Changes())):
        with pytest.raises(StoreError, match="has to start again"):
            await call
    await store.close()


@pytest.mark.asyncio
async def test_a_key_is_found_while_a_long_list_is_read(tmp_path: Path):
    store = SqliteStore(tmp_path / "q.db", OWN)
    await store.commit(Changes(saves=tuple(negotiation(f"n{n}") for n in range(3000))))
    listing = asyncio.ensure_future(store.processes(Kind.NEGOTIATION, after=None, limit=3000, state=None, peer=None))
    await asyncio.sleep(0)
    found = await store.process(Kind.NEGOTIATION, "n7")
    assert (found is not None, listing.done()) == (True, False)
    assert len((await listing).items) == 3000
    await store.close()


def test_a_newer_schema_does_not_start(tmp_path: Path):
    db = open_database(tmp_path / "q.db", cache_kib=1024)
    db.execute("insert into migration values (99, ?, 0)", ("0" * 64,))
    db.close()
    with pytest.raises(StoreError, match="has schema 99"):
        SqliteStore(tmp_path / "q.db", OWN)


def test_no_reader_holds_the_log_back(tmp_path: Path):
    """A point read leaves no transaction open, else the log could never be copied back and would grow for ever."""

    async def run() -> None:
        store = SqliteStore(tmp_path / "q.db", OWN)
        await store.commit(Changes(saves=(negotiation(),)))
        await store.process(Kind.NEGOTIATION, "urn:uuid:n1")
        await store.events(0, 10)
        await store.next_due()
        other = connect(tmp_path / "q.db", cache_kib=1024)
        assert json.dumps(other.execute("pragma wal_checkpoint(truncate)").fetchone()) == "[0, 0, 0]"
        other.close()
        await store.close()

    asyncio.run(run())


@pytest.mark.asyncio
async def test_what_was_erased_is_in_no_file_any_more(tmp_path: Path):
    store, secret = SqliteStore(tmp_path / "q.db", OWN), b"born on 1 May 1953"
    await store.commit(Changes(evidence=(fact(detail={"why": secret.decode()}), fact(detail={"why": "weather"}))))

    def left() -> int:
        return sum(path.read_bytes().count(secret) for path in tmp_path.iterdir())

    other = sqlite3.connect(tmp_path / "q.db", isolation_level=None)
    other.execute("begin")
    other.execute("select count(*) from evidence").fetchone()
    assert left()
    store._lists.execute("pragma busy_timeout=1")
    with pytest.raises(StoreError, match="erase it again when that has ended"):
        await store.erase(1)
    assert left()
    other.close()
    assert await store.erase(1)
    assert not left()
    assert [event.detail for event in await store.events(0, 10)] == [{}, {"why": "weather"}]
    await store.close()


@pytest.mark.asyncio
async def test_agreements_datasets_and_offers_are_not_read_again_and_are_always_as_they_were_written_last(tmp_path: Path):
    store, reads = SqliteStore(tmp_path / "q.db", OWN), []
    store._points.set_trace_callback(reads.append)
    store._writer._db.set_trace_callback(lambda sql: reads.append(sql) if store._writer.at_rest and sql != "begin immediate" else None)
    a, b, d = agreement(), agreement("urn:uuid:a2"), dataset(offers=("o",))
    await store.commit(Changes(saves=(a, d)))
    for _ in range(3):
        assert (await store.agreement(a.id), await store.offer("o"), await store.agreement(b.id)) == (a, d.offers[0], None)
        assert await store.dataset(d.id) == d
    assert len(reads) == 4, "one for the offer, and three for what is not there"
    reads.clear()
    later = replace(a, final=True, version=2)
    conflict = await store.commit(Changes(expects=(Expect(Agreement, b.id, 1),), saves=(later, b)))
    assert (conflict, await store.agreement(a.id)) == (Conflict(Expect(Agreement, b.id, 1)), a)
    other = replace(d, offers=(Offer("o", d.id, {"@type": "Offer"}),), version=2)
    waiting = asyncio.ensure_future(store.commit(Changes(saves=(later, other))))
    while not waiting.done():  # whenever it is read: before the write, or after
        assert await store.agreement(a.id) in (a, later)
        assert await store.dataset(d.id) in (d, other)
        assert await store.offer("o") in (d.offers[0], other.offers[0])
        await asyncio.sleep(0)
    assert (await store.agreement(a.id), await store.dataset(d.id), await store.offer("o")) == (later, other, other.offers[0])
    await store.commit(Changes(deletes=((Agreement, a.id), (Dataset, d.id))))
    assert (await store.agreement(a.id), await store.dataset(d.id), await store.offer("o")) == (None, None, None)
    await store.close()
