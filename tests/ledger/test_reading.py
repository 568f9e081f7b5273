"""What is shown of a log is what tlog-tiles describes, and what is not there is not invented."""

from pathlib import Path

import pytest

from connector.adapters.memory import MemoryStore
from connector.errors import NotFound
from connector.ledger.reading import log_of, prove_consistency, prove_inclusion, read_bundle, read_entry, read_tile, tree_of
from connector.merkle import tiles
from connector.merkle.tiles import CheckedTiles, Tile
from connector.merkle.tree import leaf_hash, root_of
from connector.records import Changes
from tests.contracts.samples import fact
from tests.ledger.rig import Site

pytestmark = pytest.mark.asyncio
COUNT = 600


async def filled() -> Site:
    store = MemoryStore()
    await store.commit(Changes(evidence=tuple(fact(pid=str(number)) for number in range(COUNT))))
    site = Site(store=store)
    async with site:
        await site.book.index_of(COUNT)
    return site


async def test_whoever_reads_all_tiles_and_bundles_has_the_whole_log_and_can_check_it():
    site = await filled()
    log = await log_of(site.store, None)
    checked = CheckedTiles(COUNT, (await tree_of(site.store, log, COUNT)).root)
    checked.enter({tile: await read_tile(site.store, log, tile) for tile in tiles.edge(COUNT)})
    entries: list[bytes] = []
    for tile in tiles.over(0, COUNT, COUNT):
        for needed in checked.way(tile):
            checked.take(needed, await read_tile(site.store, log, needed))
        bundle = Tile(tiles.ENTRIES, tile.index, tile.width)
        entries += tiles.verify_bundle(bundle, await read_bundle(site.store, log, bundle), await read_tile(site.store, log, tile))
    assert len(entries) == COUNT
    assert checked._root == root_of(map(leaf_hash, entries))
    assert (await read_entry(site.store, log, 300)).body == entries[300]


@pytest.mark.parametrize("tile", [Tile(0, 2, 89), Tile(0, 3, 1), Tile(1, 0, 3), Tile(1, 1, 1), Tile(2, 0, 1), Tile(tiles.ENTRIES, 0, 256)])
async def test_a_tile_that_the_log_does_not_have_is_not_found(tile: Tile):
    site = await filled()
    with pytest.raises(NotFound):
        await read_tile(site.store, await log_of(site.store, None), tile)


@pytest.mark.parametrize("bundle", [Tile(tiles.ENTRIES, 2, 89), Tile(tiles.ENTRIES, 3, 1), Tile(0, 0, 256)])
async def test_a_bundle_that_the_log_does_not_have_is_not_found(bundle: Tile):
    site = await filled()
    with pytest.raises(NotFound):
        await read_bundle(site.store, await log_of(site.store, None), bundle)


async def test_there_is_no_proof_of_what_is_not_there():
    site = await filled()
    log = await log_of(site.store, None)
    for index, size in ((COUNT, COUNT), (-1, COUNT), (0, COUNT + 1), (5, 5)):
        with pytest.raises(NotFound):
            await prove_inclusion(site.store, log, index, size)
    for old, size in ((5, 4), (0, COUNT + 1), (-1, 3)):
        with pytest.raises(NotFound):
            await prove_consistency(site.store, log, old, size)
    for index in (COUNT, -1):
        with pytest.raises(NotFound, match="no entry"):
            await read_entry(site.store, log, index)


async def test_a_log_that_nothing_was_written_to_is_not_found(tmp_path: Path):
    site = Site()
    with pytest.raises(NotFound, match="nothing has been written"):
        await log_of(site.store, None)
    with pytest.raises(NotFound, match="of this name"):
        await log_of((await filled()).store, "elsewhere.example/ledger")
