"""Facts become entries in order, the tree over them is signed, and nothing smaller is ever signed again."""

import asyncio
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from connector.adapters.memory import MemoryStore
from connector.adapters.sqlite import SqliteStore
from connector.adapters_stores.anchor import MemoryAnchor
from connector.errors import NotFound, SettingsError, StoreError
from connector.ledger import sequencer as module
from connector.ledger.reading import prove_consistency, prove_entry, prove_inclusion
from connector.ledger.sequencer import GROUP_AT_MOST
from connector.merkle import checkpoints, notes, proofs
from connector.merkle.tree import leaf_hash, root_of, verify_consistency, verify_inclusion
from connector.records import Changes, Conflict
from connector.records.ledger import Log, Place
from tests.contracts.samples import OWN, fact
from tests.ledger.rig import Clock, Site, disk, key_of

pytestmark = pytest.mark.asyncio
ROOT = Path(__file__).parents[2]


def opened(note: str | None) -> checkpoints.Checkpoint:
    assert note is not None
    return checkpoints.read(notes.read(note.encode()).text)


async def the_log(site: Site) -> Log:
    return (await site.store.logs())[-1]


async def test_a_fact_has_its_place_as_soon_as_somebody_asks():
    async with Site() as site:
        facts = await site.say(3)
        assert await site.book.index_of(facts[2].sequence) == Place("hospital.example/ledger", 2)
        assert await site.book.index_of(facts[0].sequence) == Place("hospital.example/ledger", 0)


async def test_the_checkpoint_is_that_of_the_entries_in_their_order_signed_by_our_key_under_the_logs_name():
    async with Site() as site:
        facts = await site.say(5)
        await site.book.index_of(facts[-1].sequence)
        note = await site.book.checkpoint()
        assert note is not None
        entries = await site.store.entries(1, 0, 10)
        key = notes.VerifierKey("hospital.example/ledger", key_of(OWN).key.public)
        said = checkpoints.open(note.encode(), "hospital.example/ledger", [key]).checkpoint
        assert (said.size, said.root) == (5, root_of(leaf_hash(entry.body) for entry in entries))
        assert [entry.pid for entry in entries] == [f"urn:uuid:{number}" for number in range(5)]


async def test_entries_that_nobody_waits_for_are_numbered_together_a_moment_later(monkeypatch: pytest.MonkeyPatch):
    numbered = asyncio.Event()
    async with Site() as site:
        extended, real = [], site.book.sequencer._extended

        def count(log, rows, now):
            extended.append(len(rows))
            numbered.set()
            return real(log, rows, now)

        monkeypatch.setattr(site.book.sequencer, "_extended", count)
        await asyncio.gather(*(site.say() for _ in range(20)))
        await asyncio.wait_for(numbered.wait(), 5)
        assert extended == [20]


async def test_of_what_comes_bit_by_bit_and_nobody_waits_for_much_is_numbered_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.01)
    monkeypatch.setattr(module, "APART_SECONDS", 0.2)
    async with Site() as site:
        begun = asyncio.get_running_loop().time()
        for _ in range(10):
            (said,) = await site.say()
            await asyncio.sleep(3 * module.LINGER_SECONDS)
        seconds, extended = asyncio.get_running_loop().time() - begun, (await the_log(site)).version
        assert 1 <= extended <= 1 + seconds / module.APART_SECONDS
        assert (await asyncio.wait_for(site.book.index_of(said.sequence), 5)).index == 9


async def test_a_connector_with_nothing_to_say_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.02)
    store = SqliteStore(tmp_path / "q.db", OWN)
    async with Site(store=store) as site:
        (said,) = await site.say()
        await site.book.index_of(said.sequence)
        before = store.commits
        await asyncio.sleep(5 * module.LINGER_SECONDS)
        assert store.commits == before
    assert store.commits == before
    await store.close()


async def test_a_large_backlog_is_numbered_in_groups_and_every_node_is_kept():
    store = MemoryStore()
    count = 2 * GROUP_AT_MOST + 7
    await store.commit(Changes(evidence=tuple(fact(pid=str(number)) for number in range(count))))
    leaves = [leaf for _, leaf in await store.unnumbered(0, 1000)]
    async with Site(store=store) as site:
        assert await site.book.index_of(count) == Place("hospital.example/ledger", count - 1)
        log = await the_log(site)
        assert log.version == 3
        root = opened(log.note).root
        assert [*await store.subtrees(1, 8, 0, 10)] == [root_of(leaves[:256]), root_of(leaves[256:512])]
        for index in (0, 255, 256, 511, 512, count - 1):
            verify_inclusion(leaves[index], index, count, await prove_inclusion(store, log, index, count), root)
        for old in (1, 255, 256, 300, count):
            verify_consistency(old, root_of(leaves[:old]), count, root, await prove_consistency(store, log, old, count))
        proof = proofs.read(await prove_entry(store, log, 300, log.note))
        proofs.verify(proof, leaves[300], log.origin, [notes.VerifierKey(log.origin, key_of(OWN).key.public)])


async def test_rows_of_before_the_ledger_have_no_place(tmp_path: Path):
    store = SqliteStore(tmp_path / "q.db", OWN)
    await store.commit(Changes(evidence=(fact(),)))
    await store.close()
    with sqlite3.connect(tmp_path / "q.db") as db:
        db.execute("update evidence set leaf = null, salt = null")
    db.close()
    store = SqliteStore(tmp_path / "q.db", OWN)
    async with Site(store=store) as site:
        (said,) = await site.say()
        assert await site.book.index_of(said.sequence) == Place("hospital.example/ledger", 0)
        with pytest.raises(NotFound, match="from before the ledger"):
            await site.book.index_of(1)
    await store.close()


async def test_a_later_start_goes_on_where_the_log_ended(tmp_path: Path):
    for turn in range(3):
        store = SqliteStore(tmp_path / "q.db", OWN)
        async with Site(store=store, anchor=disk(tmp_path)) as site:
            (said,) = await site.say()
            assert await site.book.index_of(said.sequence) == Place("hospital.example/ledger", turn)
            log = await the_log(site)
            assert (log.number, log.epoch) == (1, turn + 1)
        await store.close()


async def test_what_is_left_is_numbered_at_the_end():
    async with Site() as site:
        await site.say(3)
    assert (await the_log(site)).size == 3
    with pytest.raises(StoreError, match="closed"):
        await site.book.index_of(3)


async def test_a_checkpoint_by_a_key_that_was_replaced_still_counts_as_ours():
    site = Site()
    async with site:
        await site.say(2)
    site.identity.generations[OWN] = 2
    again = Site(store=site.store, anchor=site.anchor)
    again.identity.generations[OWN] = 2
    async with again:
        (said,) = await again.say()
        assert await again.book.index_of(said.sequence) == Place("hospital.example/ledger", 2)
        note = await again.book.checkpoint()
        new = notes.VerifierKey("hospital.example/ledger", key_of(OWN, 2).key.public)
        assert note is not None
        assert checkpoints.open(note.encode(), "hospital.example/ledger", [new]).checkpoint.size == 3


# Two at once


class Hasty(Clock):
    """Leases end while one looks at them."""

    def now(self) -> float:
        self.at += 0.2
        return self.at


@pytest.mark.parametrize("lease_seconds", [0.0, 0.3])
async def test_two_sequencers_on_one_store_make_one_log(monkeypatch: pytest.MonkeyPatch, lease_seconds: float):
    monkeypatch.setattr(module, "LEASE_SECONDS", lease_seconds)
    clock, store = Hasty(), MemoryStore()
    async with Site(store=store, clock=clock, holder="one") as one, Site(store=store, clock=clock, holder="two") as two:

        async def work(site: Site, pid: str) -> list[Place]:
            places = []
            for _ in range(30):
                (said,) = await site.say(pid=pid)
                places.append(await site.book.index_of(said.sequence))
            return places

        first, second = await asyncio.gather(work(one, "one"), work(two, "two"))
        assert sorted(place.index for place in (*first, *second)) == list(range(60))
        log = await the_log(one)
        assert log.size == 60
        assert log.epoch > (0 if lease_seconds else 1)  # without leases they can only compete
        entries = await store.entries(1, 0, 100)
        assert opened(log.note).root == root_of(leaf_hash(entry.body) for entry in entries)
        assert [entry.sequence for entry in entries] == list(range(1, 61))


async def test_who_does_not_hold_the_lease_writes_nothing_and_sees_what_the_holder_did():
    clock, store = Clock(), MemoryStore()
    async with Site(store=store, clock=clock, holder="one") as one, Site(store=store, clock=clock, holder="two") as two:
        (said,) = await one.say()
        await one.book.index_of(said.sequence)
        (other,) = await two.say()
        waiting = asyncio.create_task(two.book.index_of(other.sequence))
        assert await one.book.index_of(other.sequence) == Place("hospital.example/ledger", 1)
        assert await asyncio.wait_for(waiting, 5) == Place("hospital.example/ledger", 1)
        assert (await the_log(one)).holder == "one"


async def test_a_lease_that_is_over_is_taken():
    clock, store = Clock(), MemoryStore()
    async with Site(store=store, clock=clock, holder="one") as one:
        (said,) = await one.say()
        await one.book.index_of(said.sequence)
    clock.at += module.LEASE_SECONDS
    async with Site(store=store, clock=clock, holder="two") as two:
        (said,) = await two.say()
        await asyncio.wait_for(two.book.index_of(said.sequence), 5)
        log = await the_log(two)
        assert (log.holder, log.epoch) == ("two", 2)


# Failures


class Broken(MemoryStore):
    """A store that takes facts, and refuses what the ledger writes."""

    broken = True

    async def commit(self, changes: Changes) -> tuple | Conflict:
        if self.broken and any(isinstance(record, Log) for record in changes.saves):
            raise StoreError("the disk is full")
        return await super().commit(changes)


async def test_a_ledger_that_cannot_be_written_acknowledges_nothing_and_goes_on_when_it_can():
    store = Broken()
    async with Site(store=store) as site:
        (said,) = await site.say()
        with pytest.raises(StoreError, match="nothing is acknowledged"):
            await site.book.index_of(said.sequence)
        assert await site.book.fault() is not None
        store.broken = False
        assert await site.book.index_of(said.sequence) == Place("hospital.example/ledger", 0)
        assert await site.book.fault() is None


class Refusing(MemoryAnchor):
    """An anchor on a disk that is full."""

    full = True

    def write(self, note: bytes, *, durable: bool) -> None:
        if self.full:
            raise StoreError("no space left")
        super().write(note, durable=durable)


async def test_no_place_is_told_before_the_file_beside_the_database_knows_of_it():
    anchor = Refusing()
    async with Site(anchor=anchor) as site:
        (said,) = await site.say()
        for _ in range(3):
            with pytest.raises(StoreError, match="nothing is acknowledged"):
                await site.book.index_of(said.sequence)
        assert (await the_log(site)).size == 1
        with pytest.raises(StoreError, match="no space"):
            await site.book.checkpoint()
        anchor.full = False
        assert await site.book.index_of(said.sequence) == Place("hospital.example/ledger", 0)
        assert [opened(note.decode()).size for note in anchor.read()] == [1]


async def test_without_a_key_that_is_valid_nothing_is_signed_and_the_end_is_clean():
    site = Site()

    def gone(_log: str) -> notes.Signer:
        raise SettingsError("no key is valid now")

    site.book.sequencer._signer = gone
    await site.book.start()
    (said,) = await site.say()
    with pytest.raises(StoreError, match="nothing is acknowledged"):
        await site.book.index_of(said.sequence)
    await site.book.close()
    assert await site.store.logs() == []


async def test_what_waits_when_the_ledger_is_closed_is_told_so():
    store = Broken()
    site = Site(store=store)
    await site.book.start()
    (said,) = await site.say()
    waiting = asyncio.create_task(site.book.index_of(said.sequence))
    await asyncio.sleep(0)
    await site.book.close()
    with pytest.raises(StoreError):
        await waiting


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("update evidence set state = 'TERMINATED' where sequence = 3", "entry 2 of the ledger .* is not what was written"),
        ("update evidence set salt = zeroblob(16) where sequence = 4", "entry 3 of the ledger .* is not what was written"),
        ("update evidence set leaf = zeroblob(32) where sequence = 2", "entry 1 of the ledger"),
        ("update numbered set count = 4", "lacks hashes"),
        ("update numbered set sequence = 2, count = 4", "are not those of its last checkpoint|lacks hashes"),
        ("update log set rest = cast(replace(cast(rest as text), '\\n5\\n', '\\n6\\n') as blob)", "are not those of its last checkpoint"),
        ("update log set rest = cast(replace(cast(rest as text), '\\n5\\n', '\\n5') as blob)", "cannot be read"),
    ],
)
async def test_a_log_whose_end_is_not_what_was_signed_is_not_extended(tmp_path: Path, damage: str, message: str):
    store = SqliteStore(tmp_path / "q.db", OWN)
    async with Site(store=store, anchor=disk(tmp_path)) as site:
        await site.say(5)
    await store.close()
    with sqlite3.connect(tmp_path / "q.db") as db:
        db.execute(damage)
    db.close()
    store = SqliteStore(tmp_path / "q.db", OWN)
    with pytest.raises(StoreError, match=message):
        await Site(store=store, anchor=disk(tmp_path)).book.start()
    await store.close()


# Backups


async def grown(folder: Path, count: int) -> tuple[str, Path]:
    """Let the ledger in `folder` grow; the checkpoint that was shown, and a copy of the database as it is after."""
    store = SqliteStore(folder / "q.db", OWN)
    async with Site(store=store, anchor=disk(folder)) as site:
        said = await site.say(count)
        await site.book.index_of(said[-1].sequence)
        note = await site.book.checkpoint()
        assert note is not None
    await store.close()
    backup = folder / f"backup-{opened(note).size}.db"
    shutil.copy(folder / "q.db", backup)
    return note, backup


async def test_a_restored_backup_begins_a_log_of_another_name_that_cites_what_was_signed(tmp_path: Path):
    old, backup = await grown(tmp_path, 3)
    lost, _ = await grown(tmp_path, 2)
    shutil.copy(backup, tmp_path / "q.db")
    store = SqliteStore(tmp_path / "q.db", OWN)
    async with Site(store=store, anchor=disk(tmp_path)) as site:
        (said,) = await site.say()
        place = await site.book.index_of(said.sequence)
        assert place == Place("hospital.example/ledger/1764000000", 1)
        note = opened(await site.book.checkpoint())
        assert note.extensions == ("follows " + " ".join(lost.splitlines()[:3]),)
        log = await the_log(site)
        first = orjson.loads((await store.entries(log.number, 0, 1))[0].body)
        assert first == {
            "what": "ledger-begun",
            "v": 1,
            "origin": place.origin,
            "follows": {"origin": "hospital.example/ledger", "size": 5, "root": opened(lost).root.hex()},
            "kept": {"origin": "hospital.example/ledger", "size": 3, "root": opened(old).root.hex()},
        }
        # What the backup holds stays provable by the checkpoint of then.
        former = (await store.logs())[0]
        assert (former.size, former.note) == (3, old)
        assert await site.book.index_of(2) == Place("hospital.example/ledger", 1)
    await store.close()
    store = SqliteStore(tmp_path / "q.db", OWN)
    async with Site(store=store, anchor=disk(tmp_path)) as site:  # the new log is the one that goes on
        (said,) = await site.say()
        assert (await site.book.index_of(said.sequence)).origin == place.origin
    await store.close()


async def test_a_backup_of_before_the_new_log_begins_another_one(tmp_path: Path):
    _, backup = await grown(tmp_path, 3)
    await grown(tmp_path, 2)
    origins = set()
    for _ in range(2):
        shutil.copy(backup, tmp_path / "q.db")
        store = SqliteStore(tmp_path / "q.db", OWN)
        async with Site(store=store, anchor=disk(tmp_path)) as site:
            (said,) = await site.say()
            origins.add((await site.book.index_of(said.sequence)).origin)
        await store.close()
    assert origins == {"hospital.example/ledger/1764000000", "hospital.example/ledger/1764000001"}


async def test_a_backup_that_has_grown_again_is_noticed_by_the_root(tmp_path: Path):
    _, backup = await grown(tmp_path, 3)
    await grown(tmp_path, 2)
    anchor = (tmp_path / "q.db.ledger").read_bytes()
    shutil.copy(backup, tmp_path / "q.db")
    await grown(tmp_path, 4)  # this one knows of it and begins anew; now as if it had not
    shutil.copy(backup, tmp_path / "q.db")
    (tmp_path / "q.db.ledger").write_bytes(bytes(len(anchor)))
    await grown(tmp_path, 4)
    (tmp_path / "q.db.ledger").write_bytes(anchor)
    store = SqliteStore(tmp_path / "q.db", OWN)
    async with Site(store=store, anchor=disk(tmp_path)) as site:
        assert (await the_log(site)).origin != "hospital.example/ledger"
    await store.close()


async def test_a_database_without_the_file_beside_it_may_be_any_backup(tmp_path: Path):
    await grown(tmp_path, 3)
    (tmp_path / "q.db.ledger").unlink()
    store = SqliteStore(tmp_path / "q.db", OWN)
    async with Site(store=store, anchor=disk(tmp_path)) as site:
        log = await the_log(site)
        assert log.follows.startswith("follows hospital.example/ledger 3 ")
    await store.close()


async def test_a_new_database_beside_an_old_file_begins_a_log_that_cites_it(tmp_path: Path):
    await grown(tmp_path, 3)
    (tmp_path / "q.db").unlink()
    note, _ = await grown(tmp_path, 1)
    assert opened(note).origin == "hospital.example/ledger/1764000000"
    assert opened(note).extensions[0].startswith("follows hospital.example/ledger 3 ")


@pytest.mark.parametrize(("torn", "goes_on"), [(1, True), (2, False)])
async def test_a_torn_place_in_the_file_leaves_the_other_and_two_leave_nothing(tmp_path: Path, torn: int, goes_on: bool):
    await grown(tmp_path, 3)
    path = tmp_path / "q.db.ledger"
    content = path.read_bytes()
    assert content.count(b"hospital.example/ledger\n3\n") == 2
    path.write_bytes(content.replace(b"hospital.example/ledger\n3\n", bytes(26), torn))
    store = SqliteStore(tmp_path / "q.db", OWN)
    async with Site(store=store, anchor=disk(tmp_path)) as site:
        assert ((await the_log(site)).origin == "hospital.example/ledger") == goes_on
    await store.close()


async def test_erasing_what_a_fact_said_leaves_its_proof_valid(tmp_path: Path):
    store = SqliteStore(tmp_path / "q.db", OWN)
    async with Site(store=store, anchor=disk(tmp_path)) as site:
        said = await site.say(4, detail={"who": "somebody"})
        await site.book.index_of(said[-1].sequence)
        assert await store.erase(said[1].sequence)
    async with Site(store=store, anchor=disk(tmp_path)) as site:  # the check of the start holds
        log = await the_log(site)
        entry = (await store.entries(1, 1, 1))[0]
        proof = proofs.read(await prove_entry(store, log, 1, log.note))
        proofs.verify(proof, leaf_hash(entry.body), log.origin, [notes.VerifierKey(log.origin, key_of(OWN).key.public)])
        assert b"somebody" not in entry.body
    await store.close()


# kill -9

CHILD = """
import asyncio, sys
from pathlib import Path
from connector.adapters.sqlite import SqliteStore
from tests.contracts.samples import OWN
from tests.ledger.rig import Site, disk

async def main():
    folder = Path(sys.argv[1])
    async with Site(store=SqliteStore(folder / "q.db", OWN), anchor=disk(folder)) as site:
        async def work(task):
            while True:
                (said,) = await site.say(pid=f"urn:uuid:{task}")
                if task % 2:
                    place = await site.book.index_of(said.sequence)
                    print(said.sequence, place.index, flush=True)
        await asyncio.gather(*(work(task) for task in range(6)))

asyncio.run(main())
"""


async def test_after_kill_minus_nine_every_place_that_was_told_is_as_it_was_told(tmp_path: Path):
    told: dict[int, int] = {}
    for lines in (40, 1, 90):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
        assert child.stdout is not None
        for _ in range(lines):
            sequence, index = map(int, child.stdout.readline().split())
            told[sequence] = index
        child.send_signal(signal.SIGKILL)
        told |= dict(map(int, line.split()) for line in child.stdout if line.endswith("\n"))  # type: ignore[misc]
        child.wait()
        child.stdout.close()
        store = SqliteStore(tmp_path / "q.db", OWN)
        async with Site(store=store, anchor=disk(tmp_path)) as site:
            events = len(await store.events(0, 10_000))
            assert await site.book.index_of(events) == Place("hospital.example/ledger", events - 1)
            for sequence, index in told.items():
                assert await site.book.index_of(sequence) == Place("hospital.example/ledger", index)
            entries = await store.entries(1, 0, 10_000)
            assert opened((await the_log(site)).note).root == root_of(leaf_hash(entry.body) for entry in entries)
        await store.close()
    assert len(told) >= 131
