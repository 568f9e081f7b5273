"""Cursors of the catalog: they lead everywhere, survive a restart, and say nothing of what their holder may not see."""

from base64 import urlsafe_b64decode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.adapters.memory import MemoryStore
from connector.control import catalog as module
from connector.control.catalog import COUNTED_SECONDS, SEALED_BYTES
from connector.errors import InvalidRequest
from connector.records import Changes, Dataset
from tests.contracts.identity_contract import SetClock
from tests.control.test_catalog import HIDDEN, IDS, Walk, caller, catalog, ids_of, put, some_visible
from tests.pair import OPEN, dataset_record

READ = 2  # rows of a page, instead of thousands: two of three pages end among what is hidden


async def filled(published: dict[str, bool]) -> MemoryStore:
    store = MemoryStore()
    for id, visible in published.items():
        await put(store, id, OPEN if visible else HIDDEN)
    return store


def said(cursor: str | None) -> str:
    """All that can be read out of a cursor, its sealed part included."""
    seen, _, sealed = (cursor or "").partition(" ")
    return seen + urlsafe_b64decode(sealed).decode("latin-1")


@pytest.mark.asyncio
@settings(max_examples=100, deadline=None)
@given(published=some_visible, limit=st.integers(1, 4), restart=st.integers(0, 6))
async def test_a_walk_among_hidden_datasets_meets_all_that_is_visible_and_no_cursor_names_another(
    published: dict[str, bool], limit: int, restart: int
):
    store = await filled(published)
    expected = sorted(id for id, visible in published.items() if visible)

    async def between() -> None:
        if len(walk.pages) == restart:
            walk._ours = catalog(store)  # the connector was started again: it opens no seal of before

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROWS_READ_MAX", READ)
        walk = Walk(catalog(store), limit, between)
        assert await walk.forward() == expected
        assert await walk.back() == expected[::-1]
    for page in walk.pages:
        for cursor in (page.next, page.previous):
            assert not any(id in said(cursor) for id in published if id not in expected)
            assert (cursor or "").partition(" ")[0] in (*expected, "")


@pytest.mark.asyncio
async def test_a_place_among_hidden_datasets_is_sealed_and_nobody_can_make_one_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "ROWS_READ_MAX", READ)
    store = await filled({id: id in (IDS[0], IDS[-1]) for id in IDS})
    ours = catalog(store)
    first = await ours.page(caller(), after=None, before=None, limit=5)
    assert ids_of(first) == [IDS[0]]
    seen, _, sealed = (first.next or "").partition(" ")
    assert seen == IDS[0]
    forged = [sealed[:-4] + "AAAA", sealed.swapcase(), "AAAA", "x", "\u00e9", "%", sealed[4:]]
    for other in forged:
        again = await ours.page(caller(), after=f"{seen} {other}", before=None, limit=5)
        plain = await ours.page(caller(), after=seen, before=None, limit=5)
        assert (ids_of(again), (again.next or "").partition(" ")[0]) == (ids_of(plain), seen), "taken for what stands in clear"
    assert (await ours.page(caller(), after=first.next, before=None, limit=5)).next != first.next


@pytest.mark.asyncio
async def test_the_length_of_a_seal_says_nothing_of_an_id(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "ROWS_READ_MAX", READ)
    lengths = set()
    for id in ("urn:d:b", "urn:d:b" + "x" * (SEALED_BYTES - 20)):
        store = MemoryStore()
        await store.commit(Changes(saves=(dataset_record("urn:d:a"), *(dataset_record(f"{id}{n}", HIDDEN) for n in range(9)))))
        page = await catalog(store).page(caller(), after=None, before=None, limit=1)
        lengths.add(len((page.next or "").partition(" ")[2]))
    assert len(lengths) == 1
    assert lengths != {0}


@pytest.mark.asyncio
@settings(max_examples=60, deadline=None)
@given(published=some_visible, limit=st.integers(1, 4), gone=st.sets(st.sampled_from(IDS)), restart=st.integers(0, 6))
async def test_who_counts_instead_of_following_links_meets_all_that_stays_once(
    published: dict[str, bool], limit: int, gone: set[str], restart: int
):
    """As EDC does, until there are fewer than it has asked for."""
    store, met = await filled(published), []
    ours, pages = catalog(store), 0
    while len(met) == limit * pages:
        page = await ours.counted(caller(), offset=len(met), limit=limit)
        met, pages = met + ids_of(page), pages + 1
        assert not any(id in said(cursor) for id, visible in published.items() if not visible for cursor in (page.next, page.previous))
        if pages == 1:
            for id in gone - set(met):
                await store.commit(Changes(deletes=((Dataset, id),)))
        if pages == restart:
            ours = catalog(store)
    expected = sorted(id for id, visible in published.items() if visible)
    assert met == [id for id in expected if id not in gone or id in expected[:limit]]


@pytest.mark.asyncio
async def test_who_begins_to_count_far_away_is_refused_and_who_has_counted_there_is_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "ROWS_READ_MAX", 4)
    monkeypatch.setattr(module, "ROWS_COUNTED", 2)
    store, clock = await filled(dict.fromkeys(IDS, True)), SetClock()
    ours = catalog(store, clock)
    for offset in range(0, 13, 3):
        assert ids_of(await ours.counted(caller(), offset=offset, limit=3)) == IDS[offset : offset + 3]
    with pytest.raises(InvalidRequest, match="ask from 0 on"):
        await ours.counted(caller("did:web:other.example"), offset=9, limit=3)
    with pytest.raises(InvalidRequest, match="ask from 0 on"):
        await ours.counted(caller(), offset=9, limit=3, filters=({"property": "@id", "operator": "contains", "value": "urn"},))
    clock.at += COUNTED_SECONDS
    with pytest.raises(InvalidRequest, match="ask from 0 on"):
        await ours.counted(caller(), offset=9, limit=3)
    assert ids_of(await ours.counted(caller(), offset=3, limit=3)) == IDS[3:6], "which is near"
