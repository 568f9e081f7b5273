"""The Merkle tree of RFC 6962 (2.1) and RFC 9162 (2.1) with SHA-256: roots, and proofs made and verified. Pure.

A *node* (level, index) is the hash over the leaves [index·2^level, (index+1)·2^level), all of which are there: level 0 are
the leaf hashes. Such a node never changes again, so any store of rows, tiles or levels can serve it. What is not full yet is
computed from nodes each time. A proof is a tuple of 32-byte hashes in the order of the RFCs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

from connector.errors import ProofRefused
from connector.values import Value

HASH_BYTES = 32  # SHA-256
SIZE_MAX = 2**63 - 1  # leaves; every implementation of these formats counts in signed 64 bits
PROOF_HASHES_MAX = 64  # a tree of SIZE_MAX leaves has 63 levels, and a consistency proof may name where it starts
EMPTY = hashlib.sha256(b"").digest()  # the root of no leaves (RFC 6962, 2.1)

# (level, index) -> the 32 bytes of that node. Whoever gives one says what it raises for nodes that it does not have.
Nodes = Callable[[int, int], bytes]
Keep = Callable[[int, int, bytes], None]


def leaf_hash(entry: bytes | bytearray | memoryview) -> bytes:
    """The hash of one leaf: SHA-256(0x00 ‖ entry). The entry is not copied."""
    hashed = hashlib.sha256(b"\0")
    hashed.update(entry)
    return hashed.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node: SHA-256(0x01 ‖ left ‖ right)."""
    return hashlib.sha256(b"\1" + left + right).digest()


class Frontier(Value):
    """All that a tree of `size` leaves has to remember in order to grow: its largest full subtrees, from left to right.

    Raises ProofRefused(`frontier`) if there are not as many hashes as `size` has bits set.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.hashes) != self.size.bit_count():
            raise ProofRefused(f"{len(self.hashes)} subtrees are not a tree of {self.size} leaves", "frontier")

    def append(self, leaf: bytes) -> Frontier:
        """The tree with one more leaf, given by its hash."""
        return self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes], keep: Keep | None = None) -> Frontier:
        """The tree with more leaves, given by their hashes. `keep` is called with (level, index, hash) of each node that becomes full.

        Raises ProofRefused(`hash-length`) before it returns, if a leaf is not a hash.
        """
        size, stack = self.size, list(self.hashes)
        pop, push, sha256 = stack.pop, stack.append, hashlib.sha256
        for leaf in leaves:
            if len(leaf) != HASH_BYTES:
                raise _length(leaf)
            node, index, level = leaf, size, 0
            if keep is not None:
                keep(0, index, node)
            while index & 1:
                node = sha256(b"\1" + pop() + node).digest()
                index >>= 1
                level += 1
                if keep is not None:
                    keep(level, index, node)
            push(node)
            size += 1
        return Frontier(size, tuple(stack))

    @property
    def root(self) -> bytes:
        """The root of the tree: 32 bytes."""
        return _joined(self.hashes) if self.hashes else EMPTY


def frontier_at(size: int, nodes: Nodes) -> Frontier:
    """The frontier of the first `size` leaves, from stored nodes: how a log goes on after a restart, or looks back."""
    return Frontier(size, tuple(_parts(0, size, nodes)))


def root_of(leaves: Iterable[bytes]) -> bytes:
    """The root over leaf hashes."""
    return Frontier().extend(leaves).root


def nodes_of(leaves: Sequence[bytes]) -> Nodes:
    """All nodes over leaf hashes that are at hand, computed once. A node outside raises IndexError."""
    levels: list[list[bytes]] = [list(leaves)]
    while len(below := levels[-1]) > 1:
        levels.append([node_hash(below[i], below[i + 1]) for i in range(0, len(below) - 1, 2)])

    def node(level: int, index: int) -> bytes:
        if level < 0 or index < 0:
            raise IndexError(f"there is no node ({level}, {index})")
        return levels[level][index]

    return node


def subtree(start: int, end: int, nodes: Nodes) -> bytes:
    """The hash over the leaves [start, end). `start` is a multiple of a power of two that is not less than `end - start`, which
    makes it a subtree of every tree that has leaf `end - 1` as its last, or that goes on at a boundary."""
    return _joined(_parts(start, end, nodes)) if end > start else EMPTY


def inclusion(index: int, size: int, nodes: Nodes) -> tuple[bytes, ...]:
    """The proof that leaf `index` is in the tree of the first `size` leaves (RFC 6962, 2.1.1).

    Raises ProofRefused(`index-outside`) if the tree does not have that leaf, and what `nodes` raises.
    """
    _sized(size)
    _inside(index, size)
    return _path(index, size, 0, nodes)


def consistency(old: int, size: int, nodes: Nodes) -> tuple[bytes, ...]:
    """The proof that the tree of `size` leaves begins with the tree of `old` leaves (RFC 6962, 2.1.2); empty from or to the same tree.

    Raises ProofRefused(`sizes-order`) if `old` is larger, and what `nodes` raises.
    """
    _ordered(old, size)
    if old in (0, size):
        return ()
    level = _trailing_zeros(old)
    # From the last full subtree of the old tree upwards it is the inclusion proof of that subtree. Where the subtree is the
    # whole old tree, the verifier has it as the old root.
    start = () if old == 1 << level else (nodes(level, (old >> level) - 1),)
    return start + _path(old - 1, size, level, nodes)


def root_from_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root that a tree of `size` leaves has, if `proof` is right that the leaf hash stands at `index` (RFC 9162, 2.1.3.2).

    Nothing is proven before somebody has signed that root together with that size: a root alone does not say of how many leaves it is,
    and leaf 4 of 5 has the proof of leaf 1 of 2. Raises ProofRefused with `index-outside`, `inclusion-length` (more or
    fewer hashes than this place in this tree has) or `hash-length`.
    """
    _sized(size)
    _inside(index, size)
    inner, border = _shape(index, size)
    if len(proof) != inner + border:
        raise ProofRefused(f"leaf {index} of {size} is proven by {inner + border} hashes, not by {len(proof)}", "inclusion-length")
    _hashes(leaf, *proof)
    return _chained(_climbed(leaf, index, proof[:inner]), proof[inner:])


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Judge an inclusion proof. Raises ProofRefused as `root_from_inclusion` does, and `inclusion-mismatch` if it leads to another root."""
    if root_from_inclusion(leaf, index, size, proof) != root:
        raise ProofRefused(f"the proof of leaf {index} leads to another root than that of the {size} leaves", "inclusion-mismatch")


def root_from_consistency(old: int, old_root: bytes, size: int, proof: Sequence[bytes]) -> bytes:
    """The root that a tree of `size` leaves has, if `proof` is right that it begins with the tree of `old` >= 1 leaves and root `old_root`.

    RFC 9162, 2.1.4.2. Raises ProofRefused with `sizes-order`, `consistency-empty` (every tree begins with the empty one, which
    therefore determines no root), `consistency-length`, `hash-length` or `consistency-old-mismatch`.
    """
    _ordered(old, size)
    if old == 0:
        raise ProofRefused("every tree begins with the empty one, so that its root says nothing about the others", "consistency-empty")
    if old == size:
        inner, border, start, level = 0, 0, 0, 0
    else:
        level = _trailing_zeros(old)
        inner, border = _shape(old - 1, size)
        inner, start = inner - level, 0 if old == 1 << level else 1
    if len(proof) != start + inner + border:
        raise ProofRefused(
            f"from {old} to {size} leaves is proven by {start + inner + border} hashes, not by {len(proof)}", "consistency-length"
        )
    _hashes(old_root, *proof)
    seed, path = (proof[0], proof[1:]) if start else (old_root, proof)
    place = (old - 1) >> level
    # The old tree ends with the seed: of the hashes on the way up only those to its left belong to it.
    lefts = [hash_ for step, hash_ in enumerate(path[:inner]) if place >> step & 1]
    if _chained(seed, [*lefts, *path[inner:]]) != old_root:
        raise ProofRefused(f"the proof does not contain the tree of the first {old} leaves", "consistency-old-mismatch")
    return _chained(_climbed(seed, place, path[:inner]), path[inner:])


def verify_consistency(old: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> None:
    """Judge a consistency proof; from the empty tree it has to be empty.

    Raises ProofRefused as `root_from_consistency` does, `consistency-mismatch` if it leads to another root, and
    `consistency-old-mismatch` if `old_root` is said to be of no leaves and is not EMPTY.
    """
    _ordered(old, size)
    if old == 0:
        if proof:
            raise ProofRefused(f"the empty tree is proven by no hashes, not by {len(proof)}", "consistency-length")
        if old_root != EMPTY:
            raise ProofRefused("the root of no leaves is the SHA-256 of nothing", "consistency-old-mismatch")
        if size == 0 and root != EMPTY:
            raise ProofRefused("the root of no leaves is the SHA-256 of nothing", "consistency-mismatch")
        return
    if root_from_consistency(old, old_root, size, proof) != root:
        raise ProofRefused(f"the proof leads to another root than that of the {size} leaves", "consistency-mismatch")


def _shape(index: int, size: int) -> tuple[int, int]:
    """(inner, border) of the way from leaf `index` to the root: below the level at which it joins the way of the last leaf there is
    a sibling at each level, above it only where the sibling is on the left."""
    inner = (index ^ (size - 1)).bit_length()
    return inner, (index >> inner).bit_count()


def _path(index: int, size: int, level: int, nodes: Nodes) -> tuple[bytes, ...]:
    inner, _ = _shape(index, size)
    found = []
    for at in range(level, inner):
        sibling = index >> at ^ 1
        full = (sibling + 1) << at <= size
        found.append(nodes(at, sibling) if full else subtree(sibling << at, size, nodes))
    found += [nodes(at, (index >> at) - 1) for at in range(inner, index.bit_length()) if index >> at & 1]
    return tuple(found)


def _parts(start: int, end: int, nodes: Nodes) -> list[bytes]:
    """The full subtrees of [start, end), from left to right, which is from large to small."""
    found, at = [], start
    for level in reversed(range((end - start).bit_length())):
        if (end - start) >> level & 1:
            found.append(nodes(level, at >> level))
            at += 1 << level
    return found


def _joined(parts: Sequence[bytes]) -> bytes:
    return _chained(parts[-1], parts[-2::-1])


def _chained(node: bytes, lefts: Sequence[bytes]) -> bytes:
    for left in lefts:
        node = node_hash(left, node)
    return node


def _climbed(node: bytes, index: int, siblings: Sequence[bytes]) -> bytes:
    for sibling in siblings:
        node = node_hash(sibling, node) if index & 1 else node_hash(node, sibling)
        index >>= 1
    return node


def _trailing_zeros(number: int) -> int:
    return (number & -number).bit_length() - 1


def _sized(size: int) -> None:
    if not 0 <= size <= SIZE_MAX:
        raise ProofRefused("a tree has from 0 to 2^63 - 1 leaves", "size-outside")


def _inside(index: int, size: int) -> None:
    if not 0 <= index < size:
        raise ProofRefused(f"there is no leaf {index} in a tree of {size}", "index-outside")


def _ordered(old: int, size: int) -> None:
    _sized(old)
    _sized(size)
    if old > size:
        raise ProofRefused(f"a tree of {size} leaves does not begin with one of {old}", "sizes-order")


def _hashes(*hashes: bytes) -> None:
    for hash_ in hashes:
        if len(hash_) != HASH_BYTES:
            raise _length(hash_)


def _length(hash_: bytes) -> ProofRefused:
    return ProofRefused(f"a hash has {HASH_BYTES} bytes, not {len(hash_)}", "hash-length")
