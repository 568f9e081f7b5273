"""Parts that nobody goes on with any more are removed, those of all of the data later, and no other."""

import os
from functools import partial
from pathlib import Path

import pytest

from connector.adapters.file_sink import FileSinks
from connector.adapters.memory import MemoryStore
from connector.control.journal import Journal
from connector.control.watch import Keep, Retention
from connector.control_streams import orders
from connector.control_streams.parts import Parts
from connector.errors import SinkFailed
from connector.intake_files.finishing import forget
from connector.records import Changes, Idempotent, Pull
from connector.values import replace
from tests.contracts.memory_sinks import MemorySinks

NOW = 1e6
LEFT = Pull("urn:left", "did:web:x", "urn:d", "/left", "failed", validator='"v"', range="0-9", version=1, updated=1.0)
OTHERS = (
    replace(LEFT, id="urn:all", out="/all", range=None),
    replace(LEFT, id="urn:lately", out="/lately", updated=NOW - 1),
    replace(LEFT, id="urn:found", out="/found"),
    replace(LEFT, id="urn:goes-on", out="/goes-on"),
    replace(LEFT, id="urn:again", out="/goes-on", stage="download", part="urn:goes-on"),
    replace(LEFT, id="urn:once-more", out="/once-more"),
    replace(LEFT, id="urn:lately-again", out="/once-more", part="urn:once-more", updated=NOW - 1),
    replace(LEFT, id="urn:written", out="/written"),
)


class Fixed:
    def now(self) -> float:
        return NOW


@pytest.mark.asyncio
async def test_a_part_of_a_range_goes_once_no_order_can_go_on_with_it_and_no_other_does():
    store, sinks = MemoryStore(), MemorySinks()
    key = Idempotent(orders.left_by(OTHERS[2]), b"", b"urn:found", 1.0)
    await store.commit(Changes(saves=(LEFT, *OTHERS, key)))
    for pull in (LEFT, *OTHERS):
        sink = await sinks.open(pull.out, pull.part or pull.id, overwrite=False)
        await sink.append([b"come"])
        await sink.close()
    before = set(sinks.kept)
    busy = await sinks.open("/written", "urn:written", overwrite=False)
    parts = Parts(Journal(store, Fixed()), partial(forget, sinks))
    assert await parts.sweep(NOW - 100, LEFT.updated) == 1
    assert before - set(sinks.kept) == {("/left", "urn:left")}
    await busy.close()
    swept = [await parts.sweep(NOW - 100, LEFT.updated) for _ in range(2)]
    assert swept == [1, 0], "what was written to has its turn, and none has it twice"
    stored = await store.pull("urn:left")
    assert stored is not None
    assert (stored.validator, stored.updated) == (None, LEFT.updated), "its order is kept no longer for that"


@pytest.mark.asyncio
async def test_a_part_of_all_of_the_data_stays_longer_and_goes_too_unless_an_order_may_go_on_with_it(tmp_path: Path):
    store, sinks = MemoryStore(), FileSinks([tmp_path])
    alone, found, again, lately = (
        replace(LEFT, id=f"urn:{name}", range=None, out=str(tmp_path / name)) for name in ("alone", "found", "again", "lately")
    )
    goes_on = replace(again, id="urn:goes-on", stage="download", part="urn:again")
    key = Idempotent(orders.left_by(found), b"", b"urn:found", 1.0)
    await store.commit(Changes(saves=(alone, found, again, goes_on, replace(lately, updated=20.0), key)))
    for pull in (alone, found, again, lately):
        sink = await sinks.open(pull.out, pull.id, overwrite=False)
        await sink.append([b"come"])
        await sink.close()
    parts = Parts(Journal(store, Fixed()), partial(forget, sinks))
    assert await parts.sweep(NOW, LEFT.updated) == 0
    assert await parts.sweep(NOW, 10.0) == 1
    left = sorted(os.listdir(tmp_path))
    assert left == ["again.urn-again.part", "found.urn-found.part", "lately.urn-lately.part"]


@pytest.mark.asyncio
async def test_they_are_looked_for_at_each_start_as_long_after_as_they_are_found():
    asked = list[tuple[float, ...]]()

    async def removed(*before: float) -> int:
        asked.append(before)
        return 1

    for processes, whole, lost in ((900.0, 500.0, 1800.0), (300.0, 300.0, 600.0), (2.0, 100.0, 200.0)):  # no part outlives its order
        retention = Retention(Journal(MemoryStore(), Fixed()), Keep(1.0, processes, 100.0, 500.0), parts=removed)
        await retention._turn()
        assert asked.pop() == (NOW - 100.0, NOW - whole, NOW - lost)


@pytest.mark.asyncio
async def test_a_directory_that_is_not_there_holds_nothing_up():
    store = MemoryStore()
    await store.commit(Changes(saves=(LEFT,)))

    async def gone(_pull: Pull) -> None:
        raise SinkFailed("it is not here")

    parts, kept = Parts(Journal(store, Fixed()), gone), list[bool]()
    for lost_before in (LEFT.updated, LEFT.updated + 1):
        assert await parts.sweep(NOW, NOW, lost_before) == 0
        stored = await store.pull(LEFT.id)
        kept.append(stored is not None and stored.validator is not None)
    assert kept == [True, False], "its order, which is kept for its part, is not kept for ever"
