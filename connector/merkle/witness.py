"""Witnessing (C2SP tlog-witness v1): who cosigns a checkpoint vouches that it continues the last one that he cosigned. Pure.

A log posts `add-checkpoint`; the witness judges it against the one checkpoint that it remembers of that log. What it remembers has
to be compared and replaced in one transaction, and be durable before the answer leaves: otherwise two requests at once roll it back.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence

from connector.errors import ProofRefused
from connector.merkle import checkpoints, notes, proofs
from connector.merkle.tree import EMPTY, verify_consistency
from connector.values import Value

PROOF_LINES_MAX = 63
REQUEST_BYTES_MAX = notes.NOTE_BYTES_MAX + 8 * 1024
SIZE_TYPE = "text/x.tlog.size"
TEXT_TYPE = "text/plain; charset=utf-8"

# code -> the status that the specification demands; every other code is about a request that cannot be read: 400.
STATUSES = {
    "witness-origin": 404,
    "signature-untrusted": 403,
    "signature-invalid": 403,
    "sizes-order": 400,
    "witness-old-size": 409,
    "witness-forked": 409,
    "checkpoint-root-empty": 422,  # no proof leads to it
    "consistency-length": 422,
    "consistency-old-mismatch": 422,
    "consistency-mismatch": 422,
}


class Request(Value):
    """What a log asks for: to cosign `checkpoint` (a signed note, and what it says), which continues its first `old` leaves."""

    old: int
    hashes: tuple[bytes, ...]
    note: bytes
    checkpoint: checkpoints.Checkpoint


class Seen(Value):
    """The latest tree of one log that was cosigned here; without arguments: none."""

    size: int = 0
    root: bytes = EMPTY


class Answer(Value):
    """An answer over HTTP. `code` is why, empty for 200. `seen` is what has to be durable first, None if nothing changes."""

    status: int
    body: bytes
    media_type: str = TEXT_TYPE
    code: str = ""
    seen: Seen | None = None


def write(old: int, hashes: Sequence[bytes], note: bytes) -> bytes:
    """The body of `add-checkpoint`. Raises ProofRefused with the code that `read` would have for it."""
    lines = [f"old {old}", *(b64encode(hash_).decode("ascii") for hash_ in hashes), ""]
    data = "".join(f"{line}\n" for line in lines).encode("ascii") + note
    read(data)
    return data


def read(data: bytes) -> Request:
    """Read the body of `add-checkpoint` strictly. Nothing in it is proven yet; its origin says which keys are to be asked.

    Raises ProofRefused with `witness-size`, `witness-separator`, `witness-old`, `witness-hash`, `hash-length`, `witness-many`, or as
    `notes.read` and `checkpoints.read` do.
    """
    if len(data) > REQUEST_BYTES_MAX:
        raise ProofRefused(f"the request has more than {REQUEST_BYTES_MAX} bytes", "witness-size")
    head, separator, note = data.partition(b"\n\n")
    if not separator:
        raise ProofRefused("the request has no empty line before its checkpoint", "witness-separator")
    first, *lines = head.decode("utf-8", "replace").split("\n")
    if not first.startswith("old "):
        raise ProofRefused("the request does not begin with `old <size>`", "witness-old")
    old = checkpoints.read_decimal(first.removeprefix("old "), "witness-old", "the old size")
    hashes = proofs.read_hashes(lines, PROOF_LINES_MAX, "witness-hash", "witness-many")
    return Request(old, hashes, note, checkpoints.read(notes.read(note).text))


def judge(request: Request, keys: Iterable[notes.VerifierKey], seen: Seen) -> None:
    """Whether the checkpoint may be cosigned after `seen`; `keys` are those trusted for its origin, none if it is unknown.

    In the order of the specification. Raises ProofRefused with a code of STATUSES.
    """
    trusted, checkpoint = tuple(keys), request.checkpoint
    if not trusted:
        raise ProofRefused("this witness does not know the log", "witness-origin")
    notes.verify(notes.read(request.note), trusted)
    if request.old > checkpoint.size:
        raise ProofRefused(f"a tree of {checkpoint.size} leaves does not continue one of {request.old}", "sizes-order")
    if request.old != seen.size:
        raise ProofRefused(f"the last tree cosigned here has {seen.size} leaves, not {request.old}", "witness-old-size")
    if request.old == checkpoint.size and checkpoint.root != seen.root:  # whatever is said to prove it
        raise ProofRefused(f"another tree of {seen.size} leaves has been cosigned here: the log has forked", "witness-forked")
    verify_consistency(seen.size, seen.root, checkpoint.size, checkpoint.root, request.hashes)


def add_checkpoint(data: bytes, keys: Iterable[notes.VerifierKey], seen: Seen, signer: notes.Signer, at: int) -> Answer:
    """Answer a request: 200 with the cosignature made at `at` (POSIX seconds), or the status that the specification has for the fault.

    `keys` and `seen` are those of the request's origin, which the caller reads with `read`. Raises ValueError if `signer` does not
    make cosignatures.
    """
    try:
        request = read(data)
        judge(request, keys, seen)
    except ProofRefused as refused:
        return refusal(refused, seen)
    checkpoint = request.checkpoint
    line = notes.sign(checkpoint.text, signer, at).line
    return Answer(200, line.encode("utf-8"), seen=Seen(checkpoint.size, checkpoint.root))


def refusal(refused: ProofRefused, seen: Seen) -> Answer:
    """The answer to a request that was refused: the size that would have been right if that was the fault, else the reason."""
    status = STATUSES.get(refused.code, 400)
    if refused.code == "witness-old-size":
        return Answer(status, f"{seen.size}\n".encode("ascii"), SIZE_TYPE, refused.code)
    return Answer(status, f"{refused.code}: {refused.message}\n".encode(), TEXT_TYPE, refused.code)


def cosigned(note: bytes, answer: bytes, witnesses: Iterable[notes.VerifierKey]) -> bytes:
    """The log's side: its signed checkpoint with those cosignatures of the answer that are by `witnesses`; others are left out.

    Raises ProofRefused with `note-utf8`, or as `notes.read`, `notes.read_lines`, `notes.verify` and `notes.write` do.
    """
    own = notes.read(note)
    try:
        lines = notes.read_lines(answer.decode("utf-8"))
    except UnicodeDecodeError:
        raise ProofRefused("the answer of the witness is not UTF-8", "note-utf8") from None
    verified = notes.verify(notes.Note(own.text, lines), witnesses)
    new = tuple(each.signature for each in verified if each.at is not None and each.signature not in own.signatures)
    return notes.write(notes.Note(own.text, own.signatures + new))
