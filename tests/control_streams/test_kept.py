"""Orders as they are kept: a step is one commit, a stage is a fact, and what a failed order leaves is found."""

import asyncio

import pytest

from connector.adapters.memory import MemoryStore
from connector.api.management_shapes import pull_view
from connector.control.journal import Journal
from connector.control_streams import orders
from connector.control_streams.kept import FAILED, Kept
from connector.metering.content import write_bytes
from connector.metering.objects import Receipt, digest
from connector.metering.objects import kept as kept_object
from connector.records import Changes, Conflict, Pull
from connector.values import replace
from tests.metering.rig import MANIFEST, both, signed

PULL = Pull("urn:p", "did:web:x", "urn:d", "/x/y", "download", version=1)


class Fixed:
    def now(self) -> float:
        return 7.0


@pytest.fixture
def kept() -> Kept:
    return Kept(Journal(MemoryStore(), Fixed()))


@pytest.mark.asyncio
async def test_a_stage_is_a_fact_and_progress_within_one_is_none(kept: Kept):
    assert isinstance(await kept._journal.commit(kept.write(None, PULL)), tuple)
    more = await kept.save(PULL, size_bytes=9)
    done = await kept.save(more, stage="complete")
    assert (done.version, done.updated) == (3, 7.0)
    assert [fact.detail["stage"] for fact in await kept._store.events(0, 10)] == ["download", "complete"]


@pytest.mark.asyncio
async def test_what_was_changed_by_another_meanwhile_is_not_written_over(kept: Kept):
    await kept._journal.commit(kept.write(None, PULL))
    first = kept.next(PULL, stage="complete")
    assert not isinstance(await kept._journal.commit(kept.write(PULL, first)), Conflict)
    assert isinstance(await kept._journal.commit(kept.write(PULL, kept.next(PULL, stage=FAILED))), Conflict)
    stored = await kept._store.pull("urn:p")
    assert stored is not None
    assert stored.stage == "complete"


@pytest.mark.asyncio
async def test_only_an_order_that_failed_once_its_download_had_begun_leaves_a_part(kept: Kept):
    cases = (
        ("transfer", None, False),
        ("download", None, True),
        ("cancel", None, True),
        ("transfer", '"v"', True),
        ("complete", '"v"', False),
    )
    for number, (stage, validator, left) in enumerate(cases):
        before = Pull(f"urn:{number}", "did:web:x", "urn:d", f"/x/{number}", stage, validator=validator, version=1)
        await kept._journal.commit(kept.write(None, before))
        await kept.save(before, stage=FAILED)
        assert (await kept._store.idempotent(orders.left_by(before)) is not None) is left


@pytest.mark.asyncio
async def test_a_part_is_shown_with_its_size_by_the_order_that_left_it_until_another_goes_on_with_it(kept: Kept):
    first = replace(PULL, validator='"v"', received_bytes=7)
    await kept._journal.commit(kept.write(None, first))
    left = await kept.save(first, stage=FAILED)
    assert [pull_view(each)["part_bytes"] for each in (first, left)] == [None, 7]
    second = replace(PULL, id="urn:q")
    await kept._journal.commit(kept.write(None, second))
    second = await kept.inherit(second)
    stored = [await kept._store.pull(id) for id in ("urn:p", "urn:q")]
    assert stored[1] == second
    assert (second.part, second.validator) == ("urn:p", '"v"')
    assert [pull_view(each)["part_bytes"] for each in stored if each is not None] == [None, None]
    third = await kept.save(second, stage=FAILED, received_bytes=9)
    assert pull_view(third)["part_bytes"] == 9


@pytest.mark.asyncio
async def test_of_two_orders_for_a_file_one_goes_on_with_the_part_and_none_after_it(kept: Kept):
    first = replace(PULL, validator='"v"', received_bytes=7)
    await kept._journal.commit(kept.write(None, first))
    await kept.save(first, stage=FAILED)
    others = [replace(PULL, id=f"urn:{name}") for name in ("one", "other", "later")]
    for each in others:
        await kept._journal.commit(kept.write(None, each))
    taken = await asyncio.gather(*(kept.inherit(each) for each in others[:2]))
    assert sorted((each.part or "", each.version) for each in taken) == [("", 1), ("urn:p", 2)]
    assert await kept.inherit(others[2]) == others[2], "to begin anew in it would take it from who goes on with it"


@pytest.mark.asyncio
async def test_all_that_are_not_over_are_found_also_beyond_a_page(kept: Kept):
    pulls = [Pull(f"urn:{n:03}", "did:web:x", "urn:d", f"/{n}", "done" if n % 2 else "download", version=1) for n in range(450)]
    await kept._journal.commit(Changes(saves=tuple(pulls)))
    assert {pull.id async for pull in kept.open()} == {pull.id for pull in pulls if pull.stage == "download"}


@pytest.mark.asyncio
@pytest.mark.parametrize("live", [True, False])
async def test_where_live_data_go_on_by_another_transfer_the_fact_cites_what_was_signed_for_by_the_one_before(kept: Kept, live: bool):
    log = replace(MANIFEST.log, root=None, size=None) if live else MANIFEST.log
    before = both(((1, 3),))[1]
    point = kept_object(Receipt, before.receipt).checkpoint
    assert point is not None
    row = replace(before, transfer="urn:t1", manifest=signed(replace(MANIFEST, log=log)))
    pull = replace(PULL, stage="transfer", transfer="urn:t2", earlier=("urn:t1",))
    await kept._journal.commit(Changes(saves=(pull, row)))
    await kept.save(pull, stage="download")
    (fact,) = await kept._store.events(0, 10)
    cited = {"transfer": "urn:t1", "receipt": write_bytes(digest(before.receipt)), "leaves": point.size}
    assert fact.pid == "urn:t2"
    assert fact.detail.get("takes_over") == (cited | {"root": write_bytes(point.root)} if live else None)


@pytest.mark.asyncio
async def test_what_was_begun_for_an_order_is_known_by_its_key(kept: Kept):
    assert await kept.noted(PULL, "negotiation") is None
    key = kept.key(PULL, "negotiation")
    await kept._journal.commit(Changes(saves=(type(key)(key.key, b"", b"urn:n", 7.0),)))
    assert await kept.noted(PULL, "negotiation") == "urn:n"
    assert await kept.noted(PULL, "transfer:0") is None
