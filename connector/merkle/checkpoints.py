"""Checkpoints (C2SP tlog-checkpoint v1.0.0): the signed statement that a log has so many leaves and this root. Pure.

    <origin>
    <number of leaves>
    <base64 of the root>
    <extension line> ...

A log signs one tree for each size. Two checkpoints of one origin and size with different roots are proof against it.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence

from connector.errors import ProofRefused
from connector.merkle import notes
from connector.merkle.tree import EMPTY, HASH_BYTES, SIZE_MAX
from connector.values import Value

ORIGIN_BYTES_MAX = 255  # what the subtree signatures of tlog-cosignature can hold
DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
LINES = 3  # origin, size, root


class Checkpoint(Value):
    """What a checkpoint says. Raises ProofRefused with the code that `read` has for it: nothing else can be held."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.origin.encode("utf-8")) <= ORIGIN_BYTES_MAX:
            raise ProofRefused(f"the origin does not have 1 to {ORIGIN_BYTES_MAX} bytes", "checkpoint-origin")
        if not 0 <= self.size <= SIZE_MAX:
            raise ProofRefused("the size is not from 0 to 2^63 - 1", "checkpoint-size")
        if len(self.root) != HASH_BYTES:
            raise ProofRefused(f"the root has {len(self.root)} bytes, not {HASH_BYTES}", "checkpoint-root-length")
        if self.size == 0 and self.root != EMPTY:
            raise ProofRefused("the root of no leaves is the SHA-256 of nothing", "checkpoint-root-empty")
        if not all(self.extensions):
            raise ProofRefused("an extension line is empty", "checkpoint-extension")
        if any("\n" in line for line in (self.origin, *self.extensions)):
            raise ProofRefused("the origin and each extension are one line", "checkpoint-lines")

    @property
    def text(self) -> str:
        """The text of the note, its last newline included."""
        lines = (self.origin, str(self.size), b64encode(self.root).decode("ascii"), *self.extensions)
        return "".join(f"{line}\n" for line in lines)


class Opened(Value):
    """A checkpoint that its log has signed: what it says, the note, the log's signatures, and those of the witnesses asked for."""

    checkpoint: Checkpoint
    note: notes.Note
    signatures: tuple[notes.Verified, ...]
    cosignatures: tuple[notes.Verified, ...] = ()


def read(text: str) -> Checkpoint:
    """Read the text of a checkpoint's note strictly.

    Raises ProofRefused with `checkpoint-newline`, `checkpoint-lines` (fewer than three), `checkpoint-origin`, `checkpoint-size` (not
    a decimal number in its only spelling, or too large), `checkpoint-root` (not base64), `checkpoint-root-length`,
    `checkpoint-root-empty` (a root of no leaves that is none) or `checkpoint-extension` (an empty line).
    """
    if not text.endswith("\n"):
        raise ProofRefused("the checkpoint does not end in a newline", "checkpoint-newline")
    lines = text.removesuffix("\n").split("\n")
    if len(lines) < LINES:
        raise ProofRefused("the checkpoint does not have origin, size and root", "checkpoint-lines")
    origin, size, root, *extensions = lines
    return Checkpoint(
        origin,
        read_decimal(size, "checkpoint-size", "the size"),
        notes.decode_base64(root, "checkpoint-root", "the root"),
        tuple(extensions),
    )


def sign(checkpoint: Checkpoint, signers: Sequence[notes.Signer]) -> bytes:
    """The signed checkpoint as bytes. The log's key name is its origin, so that a name cannot stand for two logs.

    Raises ValueError for a signer of another name, and ProofRefused if the origin or an extension cannot stand in a note.
    """
    for signer in signers:
        if signer.key.name != checkpoint.origin:
            raise ValueError(f"the log {checkpoint.origin!r} is signed for by a key of its name, not by {signer.key.name!r}")
    return notes.signed(checkpoint.text, signers)


def open(
    data: bytes, origin: str, keys: Iterable[notes.VerifierKey], witnesses: Iterable[notes.VerifierKey] = (), quorum: int = 0
) -> Opened:
    """Read a signed checkpoint of the log `origin`, whose signature by one of `keys` holds and which `quorum` of `witnesses` have cosigned.

    Raises ProofRefused as `notes.read`, `notes.verify` and `read` do; with `checkpoint-other-origin` if it is of another log, and with
    `witness-quorum` if too few distinct witnesses have cosigned.
    """
    note = notes.read(data)
    signatures = notes.verify(note, keys)
    checkpoint = read(note.text)
    if checkpoint.origin != origin:
        raise ProofRefused("the checkpoint is of another log than the one asked for", "checkpoint-other-origin")
    cosigners = tuple(witnesses)
    known = {(key.name, key.id) for key in cosigners}
    cosigned = any((each.name, each.key_id) in known for each in note.signatures)
    cosignatures = notes.verify(note, cosigners) if cosigned else ()
    if len({each.key.public for each in cosignatures}) < quorum:
        raise ProofRefused(f"fewer than {quorum} of the witnesses have cosigned the checkpoint", "witness-quorum")
    return Opened(checkpoint, note, signatures, cosignatures)


def forked(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether no log can have both: one origin, one size, two roots. Different sizes are judged by a consistency proof."""
    return one.origin == other.origin and one.size == other.size and one.root != other.root


def read_decimal(text: str, code: str, what: str) -> int:
    """An ASCII decimal without leading zeros, at most 2^63 - 1. Raises ProofRefused(`code`) that names `what`."""
    if DECIMAL.fullmatch(text) is None or int(text) > SIZE_MAX:
        raise ProofRefused(f"{what} is not a decimal number from 0 to 2^63 - 1 without leading zeros", code)
    return int(text)
