"""The leaf hashes of a content log, a tile at a time, each proven by the root before one of them counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from connector.errors import ProofRefused
from connector.lasting import stopped
from connector.merkle.tiles import WIDTH, CheckedTiles, Tile, edge, over
from connector.merkle.tree import HASH_BYTES

KEPT_MAX = 8  # tiles of level 0 at hand: 64 KiB for 512 MiB of data in leaves of 256 KiB

Fetch = Callable[[Tile], Awaitable[bytes]]


class Leaves:
    """The leaves of a tree of `size` leaves with this `root`. `fetch` gets a tile from somebody whom nobody trusts."""

    def __init__(self, size: int, root: bytes, fetch: Fetch) -> None:
        self._size, self._fetch = size, fetch
        self._tiles = CheckedTiles(size, root)
        self._edge: dict[Tile, bytes] = {}
        self._kept: dict[Tile, bytes] = {}
        self._coming: dict[Tile, asyncio.Task[bytes]] = {}

    async def bring(self) -> None:
        """Fetch what gives the root. Raises what `fetch` raises."""
        tiles = edge(self._size)
        self._edge = dict(zip(tiles, await asyncio.gather(*(self._fetch(tile) for tile in tiles)), strict=True))

    async def enter(self, header: bytes) -> None:
        """Check what was brought, and that `header` (a hash) is the first leaf. Raises ProofRefused (`header-leaf` if it is not), and what
        `fetch` raises."""
        self._tiles.enter(self._edge)
        if await self.hashes(0, 1) != [header]:
            raise ProofRefused("the header is not the first leaf of the log", "header-leaf")

    async def hashes(self, first: int, end: int) -> list[bytes]:
        """The hashes of the leaves [first, end). Raises ProofRefused for a tile that is not of this tree, and what `fetch` raises."""
        found: list[bytes] = []
        for tile in over(first, end, self._size):
            data, start = await self._tile(tile), tile.index * WIDTH
            low, high = max(first - start, 0), min(end - start, tile.width)
            found += [data[at * HASH_BYTES : (at + 1) * HASH_BYTES] for at in range(low, high)]
        return found

    async def close(self) -> None:
        """Give up what is being fetched."""
        await stopped(*self._coming.values())

    async def _tile(self, tile: Tile) -> bytes:
        """One of level 0, fetched once however many wait for it."""
        if (data := self._edge.get(tile) or self._kept.get(tile)) is not None:
            return data
        if (task := self._coming.get(tile)) is None:
            task = self._coming[tile] = asyncio.create_task(self._bring(tile), name=f"tile {tile.index}")
            task.add_done_callback(lambda done: self._brought(tile, done))
        return await asyncio.shield(task)

    async def _bring(self, tile: Tile) -> bytes:
        data = b""
        for each in self._tiles.way(tile):  # from the top down; the last one is the tile itself
            data = self._tiles.take(each, await self._fetch(each))
        while len(self._kept) >= KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        self._kept[tile] = data
        return data

    def _brought(self, tile: Tile, task: asyncio.Task[bytes]) -> None:
        del self._coming[tile]
        if not task.cancelled():
            task.exception()  # whoever waited for it has it, and nobody may wait any more
