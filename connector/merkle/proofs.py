"""Proofs that stand alone (C2SP tlog-proof v1): an entry's place, its inclusion proof and the signed checkpoint, as one text. Pure.

c2sp.org/tlog-proof@v1
extra <base64>              (only if there is any; nobody vouches for it)
index <place>
<base64 of a hash> ...
                            (an empty line)
<the signed checkpoint, as it is>
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable

from connector.errors import ProofRefused
from connector.merkle import checkpoints, notes
from connector.merkle.tree import HASH_BYTES, PROOF_HASHES_MAX, verify_inclusion
from connector.values import Value

HEADER = "c2sp.org/tlog-proof@v1"
PROOF_BYTES_MAX = notes.NOTE_BYTES_MAX + 64 * 1024


class Proof(Value):
    """What a proof says: `checkpoint` are the bytes of a signed note, `extra` is opaque and not authenticated."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""


def write(proof: Proof) -> bytes:
    """The proof as bytes. Raises ProofRefused with the code that `read` would have for it."""
    lines = [HEADER]
    if proof.extra:
        lines.append(f"extra {b64encode(proof.extra).decode('ascii')}")
    lines.append(f"index {proof.index}")
    lines += [b64encode(hash_).decode("ascii") for hash_ in proof.hashes]
    data = "".join(f"{line}\n" for line in (*lines, "")).encode("ascii") + proof.checkpoint
    read(data)
    return data


def read(data: bytes) -> Proof:
    """Read a proof strictly; of the checkpoint only the place is judged.

    Raises ProofRefused with `proof-size`, `proof-separator` (no empty line), `proof-header`, `proof-extra`, `proof-index`,
    `proof-hash` (not base64), `hash-length` or `proof-many`.
    """
    if len(data) > PROOF_BYTES_MAX:
        raise ProofRefused(f"the proof has more than {PROOF_BYTES_MAX} bytes", "proof-size")
    head, separator, checkpoint = data.partition(b"\n\n")
    if not separator:
        raise ProofRefused("the proof has no empty line before its checkpoint", "proof-separator")
    header, *lines = head.decode("utf-8", "replace").split("\n")
    if header != HEADER:
        raise ProofRefused(f"the proof does not begin with `{HEADER}`", "proof-header")
    extra = b""
    if lines and lines[0].startswith("extra "):
        extra = notes.decode_base64(lines.pop(0).removeprefix("extra "), "proof-extra", "the extra data")
        if not extra:
            raise ProofRefused("the line of extra data is there without any", "proof-extra")
    if not lines or not lines[0].startswith("index "):
        raise ProofRefused("the proof has no line `index <place>`", "proof-index")
    index = checkpoints.read_decimal(lines.pop(0).removeprefix("index "), "proof-index", "the index")
    return Proof(index, read_hashes(lines, PROOF_HASHES_MAX, "proof-hash", "proof-many"), checkpoint, extra)


def read_hashes(lines: list[str], count_max: int, code: str, many: str) -> tuple[bytes, ...]:
    """Hashes in base64, one a line. Raises ProofRefused with `code` (not base64), `hash-length` or `many` (more than `count_max`)."""
    if len(lines) > count_max:
        raise ProofRefused(f"there are more than {count_max} hashes, which no tree needs", many)
    hashes = tuple(notes.decode_base64(line, code, "a line of the proof") for line in lines)
    for hash_ in hashes:
        if len(hash_) != HASH_BYTES:
            raise ProofRefused(f"a hash has {HASH_BYTES} bytes, not {len(hash_)}", "hash-length")
    return hashes


def verify(
    proof: Proof,
    leaf: bytes,
    origin: str,
    keys: Iterable[notes.VerifierKey],
    witnesses: Iterable[notes.VerifierKey] = (),
    quorum: int = 0,
) -> checkpoints.Opened:
    """The checkpoint of the log `origin` in which the leaf hash `leaf` stands at the proof's index. Needs no network.

    Raises ProofRefused as `checkpoints.open` and `tree.verify_inclusion` do.
    """
    opened = checkpoints.open(proof.checkpoint, origin, keys, witnesses, quorum)
    verify_inclusion(leaf, proof.index, opened.checkpoint.size, proof.hashes, opened.checkpoint.root)
    return opened
