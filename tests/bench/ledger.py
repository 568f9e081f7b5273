"""Measures the ledger: facts that are durable, numbered, in the tree and under a signed checkpoint, on the disk and with the code that a
connector has (SQLite with `synchronous=FULL`, the file beside it, Ed25519)."""

from __future__ import annotations

import asyncio
import shutil
from time import perf_counter, process_time

from connector.adapters.sqlite import SqliteStore
from connector.merkle.tree import leaf_hash, root_of
from connector.records import Changes, Evidence
from tests.bench.connectors import BUILD
from tests.bench.rows import Found
from tests.bench.size import Size
from tests.contracts.samples import OWN, fact
from tests.ledger.rig import Site, disk

ENTRIES, EACH = 8_000, 16  # in a round, and in a commit
IN_FLIGHT = 4  # an ack waits for its index while the next windows are under way: the credit is four of them


async def measure(size: Size) -> dict[str, Found]:
    """Entries a second, and what the event loop's process spends on each."""
    rates: list[float] = []
    costs: list[float] = []
    fault = ""
    for _ in range(size.rounds):
        count = size.of(ENTRIES) // EACH
        shutil.rmtree(BUILD / "ledger", ignore_errors=True)
        (BUILD / "ledger").mkdir(parents=True)
        store = SqliteStore(BUILD / "ledger" / "q.db", OWN)
        async with Site(store=store, anchor=disk(BUILD / "ledger")) as site:
            facts = tuple(fact(pid=f"urn:uuid:{number}", detail={"trace": "0" * 32}) for number in range(EACH))
            gate = asyncio.Semaphore(IN_FLIGHT)
            began, spent = perf_counter(), process_time()
            async with asyncio.TaskGroup() as group:
                for _ in range(count):
                    await gate.acquire()
                    group.create_task(_acknowledged(site, facts, gate))
            rates.append(count * EACH / (perf_counter() - began))
            costs.append((process_time() - spent) / (count * EACH) * 1e6)
            fault = fault or await _wrong(site, count * EACH)
        await store.close()
    note = f"{EACH} facts to a commit, {IN_FLIGHT} commits in flight, each waits for its index; one core for all of it"
    return {"ledger-entries": Found(rates, note=note, fault=fault), "ledger-entry-cpu": Found(costs, fault=fault)}


async def _acknowledged(site: Site, facts: tuple[Evidence, ...], gate: asyncio.Semaphore) -> None:
    written = await site.journal.commit(Changes(evidence=facts))
    if not isinstance(written, tuple):
        raise TypeError("a fact has met a conflict")
    await site.book.index_of(written[-1].sequence)
    gate.release()


async def _wrong(site: Site, count: int) -> str:
    """What is wrong with the log after it: each entry has to be in it once, under the checkpoint that is signed."""
    log = (await site.store.logs())[-1]
    entries = await site.store.entries(log.number, 0, min(count, 10_000))
    expected = root_of(leaf_hash(entry.body) for entry in entries)
    said = await site.book.sequencer.checkpoint(fresh_seconds=0.0) or ""
    if log.size != count or site.book.sequencer.read_own(said.encode()).root != expected:
        return f"the checkpoint is not that of the {count} entries"
    return ""
