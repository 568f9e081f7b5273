"""The hashes of a content log from somebody whom nobody trusts: each proven before it counts, and few kept."""

import asyncio
import hashlib
import random
from collections import Counter

import pytest

from connector.errors import PeerFailed, ProofRefused
from connector.intake.leaves import KEPT_MAX, Leaves
from connector.merkle.tiles import WIDTH, Tile, write_tile
from connector.merkle.tree import Frontier

pytestmark = pytest.mark.asyncio


class Log:
    """A tree of so many leaves, served tile by tile. `forged` tiles have one bit that is wrong."""

    def __init__(self, size: int) -> None:
        self.hashes = [hashlib.sha256(n.to_bytes(8, "big")).digest() for n in range(size)]
        self.nodes = {(0, n): each for n, each in enumerate(self.hashes)}
        self.root = Frontier().extend(self.hashes, lambda level, index, node: self.nodes.__setitem__((level, index), node)).root
        self.asked: Counter[Tile] = Counter()
        self.forged: set[tuple[int, int]] = set()
        self.away = False

    async def tile(self, tile: Tile) -> bytes:
        self.asked[tile] += 1
        await asyncio.sleep(0)
        if self.away:
            raise PeerFailed("away")
        data = bytearray(write_tile(tile, lambda *node: self.nodes[node]))
        if (tile.level, tile.index) in self.forged:
            data[random.randrange(len(data))] ^= 1
        return bytes(data)

    async def leaves(self, header: bytes | None = None) -> Leaves:
        leaves = Leaves(len(self.hashes), self.root, self.tile)
        await leaves.bring()
        await leaves.enter(self.hashes[0] if header is None else header)
        return leaves


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 600, WIDTH * WIDTH + WIDTH + 3])
async def test_any_range_of_leaves_is_what_the_root_says(size: int):
    log, chance = Log(size), random.Random(size)
    leaves = await log.leaves()
    for _ in range(20):
        first = chance.randrange(size)
        end = min(size, chance.randrange(first, first + 400))
        assert await leaves.hashes(first, end) == log.hashes[first:end]
    await leaves.close()


async def test_a_tile_that_many_want_is_fetched_once_and_few_are_kept():
    log = Log(WIDTH * (KEPT_MAX + 4))
    leaves = await log.leaves()
    await asyncio.gather(*(leaves.hashes(10, 20) for _ in range(50)))
    assert log.asked[Tile(0, 0)] == 1
    for index in range(KEPT_MAX + 4):
        await leaves.hashes(index * WIDTH, index * WIDTH + 1)
    assert len(leaves._kept) == KEPT_MAX
    await leaves.hashes(0, 1)
    assert log.asked[Tile(0, 0)] == 2


async def test_a_header_that_is_not_the_first_leaf_is_refused():
    log = Log(300)
    with pytest.raises(ProofRefused) as caught:
        await log.leaves(bytes(32))
    assert caught.value.code == "header-leaf"


@pytest.mark.parametrize(("forged", "code"), [((0, 2), "tile-root"), ((1, 0), "tile-root"), ((0, 1), "tile-mismatch")])
async def test_a_forged_tile_is_refused_wherever_it_stands(forged: tuple[int, int], code: str):
    log = Log(WIDTH * 2 + 5)
    log.forged = {forged}

    async def read() -> None:
        await (await log.leaves()).hashes(WIDTH, WIDTH + 1)

    with pytest.raises(ProofRefused) as caught:
        await read()
    assert caught.value.code == code


async def test_a_tile_that_did_not_come_is_asked_for_again():
    log = Log(WIDTH * 3)
    leaves = await log.leaves()
    log.away = True
    with pytest.raises(PeerFailed):
        await leaves.hashes(WIDTH, WIDTH + 1)
    log.away = False
    assert await leaves.hashes(WIDTH, WIDTH + 1) == log.hashes[WIDTH : WIDTH + 1]


async def test_whoever_closes_leaves_nothing_running():
    log = Log(WIDTH * 3)
    leaves = await log.leaves()
    waiting = asyncio.create_task(leaves.hashes(WIDTH, WIDTH + 1))
    await asyncio.sleep(0)
    await leaves.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("tile")]
