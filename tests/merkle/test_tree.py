"""RFC 6962 trees against a reference that follows the RFC's own recursion, against published vectors, and as laws."""

import hashlib

from connector.merkle.tree import consistency, inclusion, leaf_hash, node_hash, nodes_of, root_of, verify_consistency, verify_inclusion

LEAVES = [leaf_hash(bytes([number])) for number in range(66)]


def split(size: int) -> int:
    """The largest power of two smaller than `size` (RFC 6962, 2.1)."""
    power = 1
    while power * 2 < size:
        power *= 2
    return power


def mth(leaves: list[bytes]) -> bytes:
    """MTH(D[n]) of RFC 6962, 2.1, over leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return node_hash(mth(leaves[:k]), mth(leaves[k:]))


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH(m, D[n]) of RFC 6962, 2.1.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    return [*path(m, leaves[:k]), mth(leaves[k:])] if m < k else [*path(m - k, leaves[k:]), mth(leaves[:k])]


def proof(m: int, leaves: list[bytes]) -> list[bytes]:
    """PROOF(m, D[n]) of RFC 6962, 2.1.2."""

    def subproof(m: int, part: list[bytes], whole: bool) -> list[bytes]:
        if m == len(part):
            return [] if whole else [mth(part)]
        k = split(len(part))
        if m <= k:
            return [*subproof(m, part[:k], whole), mth(part[k:])]
        return [*subproof(m - k, part[k:], False), mth(part[:k])]

    return subproof(m, leaves, True)


def test_roots_and_proofs_of_all_small_trees_are_those_of_the_rfc():
    nodes = nodes_of(LEAVES)
    for size in range(1, len(LEAVES) + 1):
        leaves, root = LEAVES[:size], root_of(LEAVES[:size])
        assert root == mth(leaves)
        for index in range(size):
            proven = inclusion(index, size, nodes)
            assert list(proven) == path(index, leaves)
            verify_inclusion(leaves[index], index, size, proven, root)
        for old in range(1, size + 1):
            proven = consistency(old, size, nodes)
            assert list(proven) == proof(old, leaves)
            verify_consistency(old, mth(leaves[:old]), size, root, proven)
