"""Tiles and bundles: the numbers and paths of the specification, proofs out of tiles, and a reader that trusts only the root.

What is refused, and with which code, stands in `test_refusals.py`.
"""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.errors import ProofRefused
from connector.merkle import tiles
from connector.merkle.tiles import ENTRIES, CheckedTiles, Tile, read_path, tile_of
from connector.merkle.tree import Frontier, consistency, frontier_at, inclusion, leaf_hash, nodes_of, root_of
from tests.merkle import samples

LARGE = 66_000  # partial tiles at levels 0, 1 and 2

PATHS = {
    "tile/0/000": Tile(0, 0),
    "tile/0/000.p/17": Tile(0, 0, 17),
    "tile/0/x001/067": Tile(0, 1067),
    "tile/0/x001/x234/067": Tile(0, 1234067),
    "tile/5/x123/x456/078": Tile(5, 123456078),
    "tile/5/x123/x456/078.p/2": Tile(5, 123456078, 2),
    "tile/entries/x003/x057/500": Tile(ENTRIES, 3057500),
    "tile/entries/999.p/255": Tile(ENTRIES, 999, 255),
    "tile/63/x001/000": Tile(63, 1000),
}


@cache
def large() -> tuple[list[bytes], dict[Tile, bytes], bytes]:
    """The leaf hashes, all tiles and the root of a tree of LARGE leaves."""
    leaves = [leaf_hash(number.to_bytes(4, "big")) for number in range(LARGE)]
    nodes = nodes_of(leaves)
    return leaves, {tile: tiles.write_tile(tile, nodes) for tile in tiles.tiles_between(0, LARGE)}, root_of(leaves)


@pytest.mark.parametrize("path", PATHS)
def test_paths_are_those_of_the_specification(path: str):
    assert PATHS[path].path == path
    assert read_path(path) == PATHS[path]


@given(st.integers(ENTRIES, 63), st.integers(0, 2**63 - 1), st.integers(1, 256))
def test_every_tile_has_one_path(level: int, index: int, width: int):
    tile = Tile(level, index, width)
    assert read_path(tile.path) == tile


@given(st.from_regex(r"\Atile/([0-9]{1,3}|entries)/(x?[0-9]{2,4}/){0,3}[0-9]{2,4}(\.p/[0-9]{1,3})?\Z"))
def test_reading_a_path_raises_nothing_but_a_refusal_and_loses_nothing(path: str):
    try:
        tile = read_path(path)
    except ProofRefused:
        return
    assert tile.path == path


def test_a_tree_of_seventy_thousand_leaves_has_the_tiles_of_the_specification():
    found = list(tiles.tiles_between(0, 70_000))
    assert sum(tile.level == 0 and tile.full for tile in found) == 273
    assert [tile for tile in found if not tile.full] == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert [tile for tile in found if tile.level == 1 and tile.full] == [Tile(1, 0)]
    assert list(tiles.tiles_between(0, 256)) == [Tile(0, 0), Tile(1, 0, 1)]
    assert tiles.edge(70_000) == (Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1))
    assert tiles.edge(0) == ()


@given(st.integers(0, 140_000), st.integers(0, 140_000))
def test_the_tiles_of_growth_are_those_that_were_not_there(one: int, other: int):
    old, size = sorted((one // 40, other // 40))
    assert set(tiles.tiles_between(old, size)) == set(tiles.tiles_between(0, size)) - set(tiles.tiles_between(0, old))


def test_tiles_of_a_gibibyte_are_as_many_as_the_design_says():
    found = list(tiles.tiles_between(0, 4097))
    assert len(found) == 18
    assert sum(tile.width for tile in found if tile.level == 0) * 32 == 4097 * 32


def test_the_top_of_a_full_tile_is_its_hash_in_the_tile_above():
    _, data, _ = large()
    for index in (0, 1, 255, 256):
        above = data[tile_of(1, index // 256, LARGE)]
        assert tiles.top(data[Tile(0, index)]) == above[index % 256 * 32 :][:32]
    assert tiles.top(b"") == root_of([])


@given(st.integers(0, 300))
def test_the_top_of_any_hashes_is_their_root(count: int):
    assert tiles.top(b"".join(samples.LEAVES[:count])) == root_of(samples.LEAVES[:count])


@settings(max_examples=30)
@given(st.integers(1, LARGE), st.data())
def test_proofs_are_made_out_of_the_tiles_that_they_need(size: int, data: st.DataObject):
    leaves, _, _ = large()
    whole = nodes_from_leaves()
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    for prove in (
        lambda nodes: inclusion(index, size, nodes),
        lambda nodes: consistency(old, size, nodes),
        lambda nodes: frontier_at(size, nodes),
    ):
        needed = tiles.needed(size, prove)
        at_hand = {tile: tiles.write_tile(tile, whole) for tile in needed}
        assert prove(tiles.nodes_from(size, at_hand.__getitem__)) == prove(whole)
        assert len(needed) <= 6
    assert leaves[index] == tiles.nodes_from(size, lambda tile: tiles.write_tile(tile, whole))(0, index)


@cache
def nodes_from_leaves():
    return nodes_of(large()[0])


def test_tiles_over_a_range_of_leaves():
    assert tiles.over(0, 256, LARGE) == (Tile(0, 0),)
    assert tiles.over(255, 257, LARGE) == (Tile(0, 0), Tile(0, 1))
    assert tiles.over(LARGE - 1, LARGE, LARGE) == (Tile(0, 257, LARGE % 256),)
    assert tiles.over(7, 7, LARGE) == ()
    assert len(tiles.over(0, LARGE, LARGE)) == 258


# ---- a reader that trusts only the root


def test_a_reader_checks_every_tile_of_a_tree_against_its_root():
    leaves, data, root = large()
    reader = CheckedTiles(LARGE, root)
    reader.enter({tile: data[tile] for tile in tiles.edge(LARGE)})
    read, taken = [], 0
    for wanted in tiles.over(0, LARGE, LARGE):
        for tile in reader.way(wanted):
            reader.take(tile, data[tile])
            taken += 1
        read.append(data[wanted])
    assert b"".join(read) == b"".join(leaves)
    assert taken == 257 + 1  # the full tiles of level 0, and the one above them, once


def test_a_reader_of_a_small_tree_needs_its_partial_tile_only():
    reader = CheckedTiles(samples.COUNT, samples.CHECKPOINT.root)
    data = {tile: tiles.write_tile(tile, samples.NODES) for tile in tiles.edge(samples.COUNT)}
    reader.enter(data)
    last = Tile(0, 1, samples.COUNT - 256)
    assert reader.way(last) == ()
    assert reader.take(last, data[last]) == data[last]
    assert reader.way(Tile(0, 0)) == (Tile(0, 0),)
    CheckedTiles(0, root_of([])).enter({})


def test_a_tile_counts_only_after_the_one_above_it():
    _, data, root = large()
    reader = CheckedTiles(LARGE, root)
    reader.enter({tile: data[tile] for tile in tiles.edge(LARGE)})
    assert reader.way(Tile(0, 3)) == (Tile(1, 0), Tile(0, 3))
    with pytest.raises(ProofRefused, check=lambda error: error.code == "tile-order"):
        reader.take(Tile(0, 3), data[Tile(0, 3)])
    reader.take(Tile(1, 0), data[Tile(1, 0)])
    assert reader.way(Tile(0, 3)) == (Tile(0, 3),)
    assert reader.take(Tile(0, 3), data[Tile(0, 3)]) == data[Tile(0, 3)]


@settings(max_examples=60)
@given(st.data())
def test_a_tile_with_one_flipped_bit_is_refused_wherever_it_stands(data: st.DataObject):
    _, whole, root = large()
    victim = data.draw(st.sampled_from(sorted(whole)))
    bit = data.draw(st.integers(0, len(whole[victim]) * 8 - 1))
    damaged = bytearray(whole[victim])
    damaged[bit // 8] ^= 1 << bit % 8
    served = whole | {victim: bytes(damaged)}
    reader = CheckedTiles(LARGE, root)
    with pytest.raises(ProofRefused, check=lambda error: error.code in {"tile-root", "tile-mismatch"}):
        read_all(reader, served, victim)


def read_all(reader: CheckedTiles, served: dict[Tile, bytes], wanted: Tile) -> None:
    reader.enter({tile: served[tile] for tile in tiles.edge(reader.size)})
    for tile in reader.way(wanted):
        reader.take(tile, served[tile])


@settings(max_examples=30)
@given(st.lists(st.sampled_from(range(257)), min_size=2, max_size=2, unique=True))
def test_a_tile_in_the_place_of_another_is_refused(places: list[int]):
    _, whole, root = large()
    one, other = Tile(0, places[0]), Tile(0, places[1])
    reader = CheckedTiles(LARGE, root)
    with pytest.raises(ProofRefused, check=lambda error: error.code == "tile-mismatch"):
        read_all(reader, whole | {one: whole[other]}, one)


# ---- bundles


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=20))
def test_bundles_are_read_as_written_and_checked_against_their_tile(entries: list[bytes]):
    bundle = Tile(ENTRIES, 0, len(entries))
    data = tiles.write_bundle(entries)
    assert tiles.read_bundle(bundle, data) == tuple(entries)
    leaves = b"".join(map(leaf_hash, entries))
    assert tiles.verify_bundle(bundle, data, leaves) == tuple(entries)
    assert Frontier().extend(tiles.read_tile(bundle, leaves)).root == root_of(map(leaf_hash, entries))


@given(st.data())
def test_a_bundle_with_one_flipped_bit_is_refused(data: st.DataObject):
    entries = samples.ENTRIES[:12]
    written = bytearray(tiles.write_bundle(entries))
    bit = data.draw(st.integers(0, len(written) * 8 - 1))
    written[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ProofRefused, check=lambda error: error.code in {"bundle-short", "bundle-count", "bundle-mismatch"}):
        tiles.verify_bundle(Tile(ENTRIES, 0, 12), bytes(written), b"".join(samples.LEAVES[:12]))


@given(st.binary(max_size=60), st.integers(1, 256))
def test_reading_any_bundle_raises_nothing_but_a_refusal_and_loses_nothing(data: bytes, width: int):
    try:
        entries = tiles.read_bundle(Tile(ENTRIES, 0, width), data)
    except ProofRefused:
        return
    assert tiles.write_bundle(entries) == data


def test_the_longest_entry_fits():
    entry = bytes(65_535)
    assert tiles.read_bundle(Tile(ENTRIES, 0, 1), tiles.write_bundle([entry])) == (entry,)
