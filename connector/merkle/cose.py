"""COSE receipts (RFC 9942) over our trees: the same proofs in the form that SCITT (RFC 9943) and its tools read. Pure.

A receipt is a COSE_Sign1 (RFC 9052, 4.2) by the log: its payload, which is left out, is the root; the proof stands in the unprotected
header, and whoever verifies computes the root from it. `RFC9162_SHA256` is the tree of `tree.py`. Ed25519 only.

A root alone does not say of how many leaves it is, and the RFC signs nothing else: the size and with it the index of a receipt can be
exchanged for others of the same shape (leaf 4 of 5 for leaf 1 of 2). Ours therefore say the size once more, in the protected header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import cbor2

from connector.errors import ProofRefused
from connector.merkle.notes import Sign, verifies
from connector.merkle.tree import root_from_consistency, root_from_inclusion
from connector.values import Value

RECEIPT_BYTES_MAX = 64 * 1024
DEPTH_MAX = 8
SIGN1_TAG = 0xD2  # tag 18 in its shortest form (RFC 9052, 2)
ALG, CRIT, CONTENT_TYPE, KID, CLAIMS = 1, 2, 3, 4, 15  # RFC 9052, 3.1; RFC 9597
RECEIPTS, VDS, VDP = 394, 395, 396  # RFC 9942, 2: receipts beside a statement, the structure and the proofs
EDDSA, ED25519 = -8, -19  # RFC 9053, 2.2, which everybody sends; RFC 9864, which renames it
RFC9162_SHA256 = 1
INCLUSION, CONSISTENCY = -1, -2  # RFC 9942, 5.2 and 5.3
ISS, SUB, IAT = 1, 2, 6  # RFC 8392, 4
TREE_SIZE = "https://w3id.org/qiao/v1/tree-size"  # a label of our own, which others pass over

# The 32-byte public key of a `kid`. Raises what says that there is none.
KeyOf = Callable[[str], bytes]


class Statement(Value):
    """What a receipt says beside its proof, protected by the signature: RFC 9943 demands all of it but the time.

    `kid` is the DID URL of the key, `issuer` the log, `subject` what the entry is about, `at` the time of issue in POSIX seconds.
    """

    kid: str
    issuer: str
    subject: str
    at: int | None = None


class Included(Value):
    """A verified receipt of inclusion. `sized` says whether `size` and `index` are signed for; if not, only the root is."""

    statement: Statement
    index: int
    size: int
    root: bytes
    sized: bool


class Continued(Value):
    """A verified receipt of consistency. `sized` says whether `size` is signed for; if not, only the root is."""

    statement: Statement
    old: int
    size: int
    root: bytes
    sized: bool


def inclusion_receipt(statement: Statement, leaf: bytes, index: int, size: int, hashes: Sequence[bytes], sign: Sign) -> bytes:
    """The receipt that the leaf hash `leaf` stands at `index` of the log's tree of `size` leaves (RFC 9942, 5.2).

    Raises ProofRefused as `tree.root_from_inclusion` does. That its root is the log's is for the caller to know.
    """
    root = root_from_inclusion(leaf, index, size, hashes)
    return _receipt(statement, size, root, INCLUSION, [size, index, list(hashes)], sign)


def consistency_receipt(statement: Statement, old: int, old_root: bytes, size: int, hashes: Sequence[bytes], sign: Sign) -> bytes:
    """The receipt that the log's tree of `size` leaves begins with the tree of `old` leaves and root `old_root` (RFC 9942, 5.3).

    Raises ProofRefused as `tree.root_from_consistency` does.
    """
    root = root_from_consistency(old, old_root, size, hashes)
    return _receipt(statement, size, root, CONSISTENCY, [old, size, list(hashes)], sign)


def transparent_statement(statement: Statement, payload: bytes, media_type: str, receipts: Sequence[bytes], sign: Sign) -> bytes:
    """A statement with the receipts that make it transparent (RFC 9943, 5 and 7): a COSE_Sign1 over `payload` by `statement.issuer`, the
    receipts beside it in the unprotected header, where they can be added without touching what is signed. What the receipts are of, here
    `payload` itself, is a matter of the log."""
    claims: dict[int, Any] = {ISS: statement.issuer, SUB: statement.subject}
    if statement.at is not None:
        claims[IAT] = statement.at
    protected = _encoded({ALG: EDDSA, CONTENT_TYPE: media_type, KID: statement.kid.encode("utf-8"), CLAIMS: claims})
    signature = sign(_to_be_signed(protected, payload))
    return bytes([SIGN1_TAG]) + _encoded([protected, {RECEIPTS: list(receipts)}, payload, signature])


def verify_inclusion_receipt(receipt: bytes, leaf: bytes, key_of: KeyOf) -> Included:
    """Judge a receipt of inclusion for the leaf hash `leaf`.

    Raises ProofRefused with `receipt-size`, `receipt-cbor` (not CBOR, or not in its only spelling but for the order of maps),
    `receipt-form`, `receipt-payload` (it is attached), `receipt-header`, `receipt-critical`, `receipt-alg`, `receipt-kid`,
    `receipt-vds`, `receipt-claims`, `receipt-proofs` (not exactly one of this kind), `receipt-proof`, `receipt-tree-size` (the proof is
    for another size than the one signed for), `receipt-signature`, or as `tree.root_from_inclusion` does; and what `key_of` raises.
    """
    read = _read(receipt, INCLUSION)
    size, index = read.numbers
    root = root_from_inclusion(leaf, index, size, read.hashes)
    read.check(size, root, key_of)
    return Included(read.statement, index, size, root, read.size is not None)


def verify_consistency_receipt(receipt: bytes, old: int, old_root: bytes, key_of: KeyOf) -> Continued:
    """Judge a receipt of consistency with the tree of `old` leaves and root `old_root`.

    Raises ProofRefused as `verify_inclusion_receipt` and `tree.root_from_consistency` do, and with `receipt-old` if it starts from
    another size.
    """
    read = _read(receipt, CONSISTENCY)
    start, size = read.numbers
    if start != old:
        raise ProofRefused(f"the receipt starts from {start} leaves, not from {old}", "receipt-old")
    root = root_from_consistency(old, old_root, size, read.hashes)
    read.check(size, root, key_of)
    return Continued(read.statement, old, size, root, read.size is not None)


def _receipt(statement: Statement, size: int, root: bytes, kind: int, proof: list[Any], sign: Sign) -> bytes:
    claims: dict[int, Any] = {ISS: statement.issuer, SUB: statement.subject}
    if statement.at is not None:
        claims[IAT] = statement.at
    header = {ALG: EDDSA, KID: statement.kid.encode("utf-8"), CLAIMS: claims, VDS: RFC9162_SHA256, TREE_SIZE: size}
    protected = _encoded(header)
    signature = sign(_to_be_signed(protected, root))
    return bytes([SIGN1_TAG]) + _encoded([protected, {VDP: {kind: [_encoded(proof)]}}, None, signature])


class _Read(Value):
    """A receipt taken apart, of which nothing is proven yet. `size` is what its protected header says, None if nothing."""

    statement: Statement
    size: int | None
    protected: bytes
    signature: bytes
    numbers: tuple[int, int]
    hashes: tuple[bytes, ...]

    def check(self, size: int, root: bytes, key_of: KeyOf) -> None:
        if self.size is not None and self.size != size:
            raise ProofRefused(f"the receipt is signed for a tree of {self.size} leaves, its proof is of {size}", "receipt-tree-size")
        if not verifies(_to_be_signed(self.protected, root), self.signature, key_of(self.statement.kid)):
            raise ProofRefused("the receipt's signature is not by the log's key over the root that follows from it", "receipt-signature")


def _read(receipt: bytes, kind: int) -> _Read:
    if len(receipt) > RECEIPT_BYTES_MAX:
        raise ProofRefused(f"the receipt has more than {RECEIPT_BYTES_MAX} bytes", "receipt-size")
    if not receipt or receipt[0] != SIGN1_TAG:
        raise ProofRefused("the receipt is not tagged as COSE_Sign1", "receipt-form")
    parts = _decoded(receipt[1:], "the receipt")
    if not isinstance(parts, list) or len(parts) != 4:  # noqa: PLR2004 - RFC 9052, 4.2
        raise ProofRefused("the receipt is not an array of header, header, payload and signature", "receipt-form")
    protected, unprotected, payload, signature = parts
    if not isinstance(protected, bytes) or not isinstance(unprotected, dict) or not isinstance(signature, bytes):
        raise ProofRefused("the receipt's headers and signature are not a byte string, a map and a byte string", "receipt-form")
    if payload is not None:
        raise ProofRefused("the receipt carries its root, which has to follow from the proof", "receipt-payload")
    header = _decoded(protected, "the receipt's protected header")
    statement, (first, second, hashes) = _statement(header), _proof(unprotected, kind)
    return _Read(statement, header.get(TREE_SIZE), protected, signature, (first, second), hashes)


def _statement(header: object) -> Statement:
    if not isinstance(header, dict):
        raise ProofRefused("the receipt's protected header is not a map", "receipt-header")
    if CRIT in header:
        raise ProofRefused("the receipt marks parameters as critical, which RFC 9942 does not know", "receipt-critical")
    if header.get(ALG) not in (EDDSA, ED25519):
        raise ProofRefused("the receipt's algorithm is not EdDSA", "receipt-alg")
    if not _is_uint(header.get(VDS)) or header[VDS] != RFC9162_SHA256:
        raise ProofRefused("the receipt's verifiable data structure is not RFC9162_SHA256", "receipt-vds")
    claims = header.get(CLAIMS)
    issuer, subject, at = (claims.get(claim) for claim in (ISS, SUB, IAT)) if isinstance(claims, dict) else (None, None, None)
    if not isinstance(issuer, str) or not isinstance(subject, str) or not (at is None or _is_uint(at)):
        raise ProofRefused("the receipt does not say its issuer and its subject, or its time is none", "receipt-claims")
    try:
        kid = header[KID].decode("utf-8")
    except (KeyError, AttributeError, UnicodeDecodeError):
        raise ProofRefused("the receipt does not name its key", "receipt-kid") from None
    return Statement(kid, issuer, subject, at)


def _proof(unprotected: dict[Any, Any], kind: int) -> tuple[int, int, tuple[bytes, ...]]:
    """One proof: a second one would say something of which nobody knows whether it was looked at."""
    proofs = unprotected.get(VDP)
    blobs = proofs.get(kind) if isinstance(proofs, dict) else None
    if not isinstance(blobs, list) or len(blobs) != 1 or not isinstance(blobs[0], bytes):
        raise ProofRefused("the receipt does not have exactly one proof of the kind asked for", "receipt-proofs")
    proof = _decoded(blobs[0], "the receipt's proof")
    if not isinstance(proof, list) or len(proof) != 3 or not isinstance(proof[2], list):  # noqa: PLR2004 - RFC 9942, 5.2
        raise ProofRefused("the receipt's proof is not two numbers and hashes", "receipt-proof")
    first, second, hashes = proof
    if not _is_uint(first) or not _is_uint(second) or not all(isinstance(each, bytes) for each in hashes):
        raise ProofRefused("the receipt's proof is not two numbers and hashes", "receipt-proof")
    return first, second, tuple(hashes)


def _to_be_signed(protected: bytes, payload: bytes) -> bytes:
    """The Sig_structure of RFC 9052, 4.4, without external data."""
    return _encoded(["Signature1", protected, b"", payload])


def _encoded(value: object) -> bytes:
    return cbor2.dumps(value)


class _NoTags(Mapping[int, Callable[..., NoReturn]]):
    """Every tag is refused: behind tags are expressions, references and numbers of any size, and no receipt has one inside."""

    def __getitem__(self, tag: int) -> Callable[..., NoReturn]:
        def refuse(*_: object) -> NoReturn:
            raise ValueError(f"tag {tag}")

        return refuse

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _decoded(data: bytes, what: str) -> Any:
    """CBOR of which nothing could be written otherwise, but for the order of maps (RFC 8949, 4.2.1)."""
    try:
        value = cbor2.loads(data, semantic_decoders=_NoTags(), max_depth=DEPTH_MAX, allow_indefinite=False, allow_duplicate_keys=False)
        same = _encoded(value) == data
    except (cbor2.CBORError, ValueError, TypeError, RecursionError):
        same = False
    if not same:
        raise ProofRefused(f"{what} is not CBOR in its shortest form", "receipt-cbor")
    return value


def _is_uint(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
