"""A small log with keys that follow from names, a witness, and one of everything that they sign."""

import hashlib
from functools import partial

from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from connector.merkle import checkpoints, notes
from connector.merkle.tree import inclusion, leaf_hash, nodes_of, root_of

ORIGIN = "provider.example/ledger"
AT = 1_790_000_000
COUNT = 300  # more than a tile


def signing(secret: bytes, message: bytes) -> bytes:
    return crypto_sign(message, secret)[:64]


def signer(name: str, kind: notes.Kind = notes.Kind.ED25519, seed: str = "") -> notes.Signer:
    """A signer whose key follows from its name, or from `seed`."""
    public, secret = crypto_sign_seed_keypair(hashlib.sha256((seed or name).encode()).digest())
    return notes.Signer(notes.VerifierKey(name, public, kind), partial(signing, secret))


LOG = signer(ORIGIN)
STRANGER = signer("stranger.example/ledger")
WITNESS = signer("witness.example/w1", notes.Kind.COSIGNATURE)
OTHER_WITNESS = signer("witness.example/w2", notes.Kind.COSIGNATURE)

ENTRIES = [f"entry {number}".encode() for number in range(COUNT)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
NODES = nodes_of(LEAVES)
INDEX = 137
PROOF = inclusion(INDEX, COUNT, NODES)
CHECKPOINT = checkpoints.Checkpoint(ORIGIN, COUNT, root_of(LEAVES))
NOTE = checkpoints.sign(CHECKPOINT, [LOG])


def checkpoint_of(size: int, origin: str = ORIGIN) -> checkpoints.Checkpoint:
    return checkpoints.Checkpoint(origin, size, root_of(LEAVES[:size]))


def with_cosignature(note: bytes, witness: notes.Signer = WITNESS, at: int = AT) -> bytes:
    own = notes.read(note)
    return notes.write(notes.Note(own.text, (*own.signatures, notes.sign(own.text, witness, at))))
