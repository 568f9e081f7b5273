"""What can be shown of a log, from its rows: tiles, bundles, proofs; and whether its rows are what was signed.

Nodes are kept for every eighth level only, the leaves with the facts. What a proof needs is named first (`tiles.needed`), read, and
then the proof is made from it without waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from connector.errors import NotFound, ProofRefused, StoreError
from connector.merkle import checkpoints, notes, proofs, tiles
from connector.merkle.tiles import Tile
from connector.merkle.tree import Frontier, Nodes, consistency, frontier_at, inclusion, leaf_hash
from connector.ports.ledger import LedgerStore
from connector.records.ledger import TILE_LEVELS, Entry, Log

T = TypeVar("T")


async def log_of(store: LedgerStore, origin: str | None) -> Log:
    """The log with this origin, or the one that grows. Raises NotFound if there is none, or nothing in it."""
    logs = [log for log in await store.logs() if log.size and origin in (None, log.origin)]
    if not logs:
        raise NotFound("there is no log of this name here" if origin else "nothing has been written to the ledger yet")
    return logs[-1]


async def read_tile(store: LedgerStore, log: Log, tile: Tile) -> bytes:
    """The bytes of one tile of hashes. Raises NotFound if the log does not have it (yet)."""
    if tile.level < 0:
        raise NotFound("a bundle of entries is no tile of hashes")
    first = tile.index * tiles.WIDTH
    if first + tile.width > log.size >> TILE_LEVELS * tile.level:
        raise NotFound(f"the log of {log.size} entries has no `{tile.path}`")
    if tile.level == 0:
        hashes = await store.leaves(log.number, first, tile.width)
    else:
        hashes = await store.subtrees(log.number, TILE_LEVELS * tile.level, first, tile.width)
    if len(hashes) != tile.width:
        raise StoreError(f"the ledger lacks hashes of `{tile.path}` of log `{log.origin}`; restore a backup of the database")
    return b"".join(hashes)


async def read_bundle(store: LedgerStore, log: Log, tile: Tile) -> bytes:
    """A bundle of entries as C2SP tlog-tiles has it; whoever reads it sees what all peers did. Raises NotFound."""
    first = tile.index * tiles.WIDTH
    if tile.level >= 0 or first + tile.width > log.size:
        raise NotFound(f"the log of {log.size} entries has no `{tile.path}`")
    return tiles.write_bundle([entry.body for entry in await store.entries(log.number, first, tile.width)])


async def read_entry(store: LedgerStore, log: Log, index: int) -> Entry:
    """One entry. Raises NotFound."""
    found = await store.entries(log.number, index, 1) if 0 <= index < log.size else ()
    if not found:
        raise NotFound(f"the log has no entry {index}")
    return found[0]


async def _proven(store: LedgerStore, log: Log, size: int, prove: Callable[[Nodes], T]) -> T:
    data = {tile: await read_tile(store, log, tile) for tile in tiles.needed(size, prove)}
    return prove(tiles.nodes_from(size, data.__getitem__))


async def prove_inclusion(store: LedgerStore, log: Log, index: int, size: int) -> tuple[bytes, ...]:
    """The proof that entry `index` is in the tree of the first `size` entries. Raises NotFound if there is no such entry or tree."""
    if not 0 <= index < size <= log.size:
        raise NotFound(f"the log of {log.size} entries has no entry {index} in a tree of {size}")
    return await _proven(store, log, size, lambda nodes: inclusion(index, size, nodes))


async def prove_consistency(store: LedgerStore, log: Log, old: int, size: int) -> tuple[bytes, ...]:
    """The proof that the tree of `size` entries begins with that of `old`. Raises NotFound if there are no such trees."""
    if not 0 <= old <= size <= log.size:
        raise NotFound(f"the log of {log.size} entries has no trees of {old} and of {size}")
    return await _proven(store, log, size, lambda nodes: consistency(old, size, nodes))


async def tree_of(store: LedgerStore, log: Log, size: int) -> Frontier:
    """The tree of the first `size` entries, computed from what is stored."""
    return await _proven(store, log, size, lambda nodes: frontier_at(size, nodes))


async def prove_entry(store: LedgerStore, log: Log, index: int, note: str) -> bytes:
    """A proof that stands alone (C2SP tlog-proof): place, hashes and a checkpoint of the log. Raises NotFound if that is not over it."""
    size = checkpoints.read(notes.read(note.encode()).text).size
    return proofs.write(proofs.Proof(index, await prove_inclusion(store, log, index, size), note.encode()))


async def check_tail(store: LedgerStore, log: Log) -> None:
    """Whether the rows of a log are what its last checkpoint says: the tree is computed anew from the stored nodes and from the entries
    that are in no full tile yet. Raises StoreError that says what differs."""
    if not log.size:
        return
    first = (log.size - 1) // tiles.WIDTH * tiles.WIDTH
    entries: Sequence[Entry] = await store.entries(log.number, first, tiles.WIDTH)
    remedy = "restore the newest backup of the database; the file with the last checkpoint stays where it is"
    for entry in entries:
        if leaf_hash(entry.body) != entry.leaf:
            raise StoreError(f"entry {entry.index} of the ledger `{log.origin}` is not what was written; {remedy}")
    tree = await tree_of(store, log, log.size)
    try:
        signed = checkpoints.read(notes.read(log.note.encode()).text)
    except ProofRefused as error:
        raise StoreError(f"the last checkpoint of the ledger `{log.origin}` cannot be read: {error.message}; {remedy}") from error
    if first + len(entries) != log.size or (signed.origin, signed.size, signed.root) != (log.origin, log.size, tree.root):
        raise StoreError(f"the {log.size} entries of the ledger `{log.origin}` are not those of its last checkpoint; {remedy}")
    if tree.hashes != log.frontier:
        raise StoreError(f"what the ledger `{log.origin}` remembers in order to grow is not its tree; {remedy}")
