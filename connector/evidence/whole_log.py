"""A ledger computed anew from all of its entries, and compared with what was signed and cosigned. Pure: whoever has the tiles hands them
over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from connector.errors import ProofRefused
from connector.merkle import checkpoints, notes, tiles
from connector.merkle.tree import Frontier, leaf_hash


class WholeLog:
    """The log `origin` under its signed checkpoint `note`. `vkeys` are the keys of its owner (signed-note), `cosigned` older checkpoints of
    it that witnesses have cosigned: it has to contain the trees of all of them.

    Raises ProofRefused as `checkpoints.open` does.
    """

    def __init__(self, origin: str, note: bytes, vkeys: Sequence[str], cosigned: Sequence[bytes] = ()) -> None:
        keys = [notes.read_vkey(vkey) for vkey in vkeys]
        said = [checkpoints.open(each, origin, keys).checkpoint for each in (note, *cosigned)]
        self.origin, self.size = origin, said[0].size
        self._signed, self._tree = said, Frontier()
        if larger := next((each for each in said if each.size > self.size), None):
            raise ProofRefused(f"`{origin}` was signed with {larger.size} entries, and now it has {self.size}", "sizes-order")

    def wanted(self) -> Iterator[tuple[str, str]]:
        """The paths of each tile of leaf hashes and of the bundle of entries beside it, in the order in which `take` needs them."""
        for index in range(-(-self.size // tiles.WIDTH)):
            yield tiles.tile_of(0, index, self.size).path, tiles.tile_of(tiles.ENTRIES, index, self.size).path

    def take(self, bundle: str, leaves: bytes, entries: bytes) -> None:
        """Take the next bundle (its path, the bytes of the tile beside it, its own bytes).

        Raises ProofRefused as `tiles.verify_bundle` does: `bundle-mismatch` names the entry that is another; and with `log-mismatch` when
        the tree so far is another than the one that was signed at this size.
        """
        for entry in tiles.verify_bundle(tiles.read_path(bundle), entries, leaves):
            self._tree = self._tree.append(leaf_hash(entry))
            if any(each.size == self._tree.size and each.root != self._tree.root for each in self._signed):
                raise ProofRefused(
                    f"the first {self._tree.size} entries of `{self.origin}` are not those of the checkpoint that was signed for them",
                    "log-mismatch",
                )
