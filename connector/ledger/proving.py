"""Many proofs of one log, each as `ledger.reading` makes one, with the tiles and nodes of those before at hand, within a bound."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from connector.errors import NotFound
from connector.ledger.reading import read_tile
from connector.merkle import tiles
from connector.merkle.tiles import Tile
from connector.merkle.tree import Nodes, consistency, inclusion
from connector.ports.ledger import LedgerStore
from connector.records.ledger import Log

T = TypeVar("T")
TILES_MAX = 256  # of 8 kB: neighbours share theirs, and all share those above
NODES_MAX = 4_000  # of 32 bytes, which take some 200 with their place


class Proving:
    """Proves entries and checkpoints of logs. Raises NotFound for what is not in the tree, StoreError for a ledger that lacks hashes."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store
        self._tiles: dict[tuple[int, Tile], bytes] = {}
        self._nodes: dict[tuple[int, int, int, int], bytes] = {}

    async def inclusion(self, log: Log, index: int, size: int) -> tuple[bytes, ...]:
        """That entry `index` is in the tree of the first `size` entries."""
        if not 0 <= index < size <= log.size:
            raise NotFound(f"the log of {log.size} entries has no entry {index} in a tree of {size}")
        return await self._proven(log, size, lambda nodes: inclusion(index, size, nodes))

    async def consistency(self, log: Log, old: int, size: int) -> tuple[bytes, ...]:
        """That the tree of `size` entries begins with that of `old`."""
        if not 0 <= old <= size <= log.size:
            raise NotFound(f"the log of {log.size} entries has no trees of {old} and of {size}")
        return await self._proven(log, size, lambda nodes: consistency(old, size, nodes))

    async def _proven(self, log: Log, size: int, prove: Callable[[Nodes], T]) -> T:
        if len(self._tiles) > TILES_MAX:
            self._tiles.clear()
        if len(self._nodes) > NODES_MAX:
            self._nodes.clear()
        for tile in tiles.needed(size, prove):
            if (log.number, tile) not in self._tiles:
                self._tiles[log.number, tile] = await read_tile(self._store, log, tile)
        nodes = tiles.nodes_from(size, lambda tile: self._tiles[log.number, tile])

        def node(level: int, index: int) -> bytes:
            key = (log.number, size, level, index)
            if (known := self._nodes.get(key)) is None:
                known = self._nodes[key] = nodes(level, index)
            return known

        return prove(node)
