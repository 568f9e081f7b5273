"""Every rule of these formats has a code, and a mutation of something right that meets it. The table is complete: a code in the
product without a mutation here is a failure, and so is a mutation that is taken or refused for another reason.
"""

import ast
import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pytest

from connector.errors import ProofRefused
from connector.merkle import checkpoints, cose, notes, proofs, tiles, tree, witness
from connector.merkle.checkpoints import Checkpoint
from connector.merkle.notes import Kind, Note, Signature, VerifierKey
from connector.merkle.tiles import ENTRIES as BUNDLE
from connector.merkle.tiles import CheckedTiles, Tile
from connector.values import replace
from tests.merkle.samples import (
    AT,
    CHECKPOINT,
    COUNT,
    ENTRIES,
    INDEX,
    LEAVES,
    LOG,
    NODES,
    NOTE,
    ORIGIN,
    OTHER_WITNESS,
    PROOF,
    STRANGER,
    WITNESS,
    signer,
    with_cosignature,
)
from tests.merkle.test_cose import STATEMENT, continued, included, key_of

PRODUCT = Path(__file__).parents[2] / "connector" / "merkle"
Mutation = tuple[Callable[[], Any], str]

TEXT, LINE = NOTE.decode().split("\n\n")
SIGNATURE = LINE.rstrip("\n").rsplit(" ", 1)[1]
VKEY = LOG.key.vkey
NAME, ID, MATERIAL = VKEY.split("+", 2)
ROOT = base64.b64encode(CHECKPOINT.root).decode()
HASH = base64.b64encode(bytes(32)).decode()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def opened(data: bytes | str) -> Callable[[], Any]:
    return lambda: checkpoints.open(data if isinstance(data, bytes) else data.encode(), ORIGIN, [LOG.key])


def signed_line(line: str) -> Callable[[], Any]:
    return opened(f"{TEXT}\n\n{line}")


def checkpoint(text: str) -> Callable[[], Any]:
    """A text that the log has signed: only what it says is wrong."""
    return opened(notes.signed(text, [LOG]))


def vkey(text: str) -> Callable[[], Any]:
    return lambda: notes.read_vkey(text)


def cosigned(value: bytes) -> Callable[[], Any]:
    own = notes.read(NOTE)
    note = notes.write(Note(own.text, (*own.signatures, Signature(WITNESS.key.name, WITNESS.key.id, value))))
    return lambda: checkpoints.open(note, ORIGIN, [LOG.key], [WITNESS.key], 0)


COSIGNATURE = notes.sign(notes.read(NOTE).text, WITNESS, AT).value

NOTES: dict[str, Mutation] = {
    "a note of more than 256 KiB": (opened(b"x" * (256 * 1024) + b"\n" + NOTE), "note-size"),
    "a note that is not UTF-8": (opened(b"\xff" + NOTE), "note-utf8"),
    "a note with an overlong encoding": (opened(NOTE.replace(b"provider", b"\xc1\xb0rovider", 1)), "note-utf8"),
    "a note with half a surrogate pair": (opened(b"\xed\xa0\x80" + NOTE), "note-utf8"),
    "a note with a NUL": (opened(NOTE.replace(b"\n", b"\0\n", 1)), "note-control"),
    "a note with a tab": (opened(NOTE.replace(b"ledger", b"led\tger", 1)), "note-control"),
    "a note with CRLF": (opened(NOTE.replace(b"\n", b"\r\n")), "note-control"),
    "a note whose last newline is cut off": (opened(NOTE[:-1]), "note-newline"),
    "a note cut within its signature": (opened(NOTE[:-20]), "note-newline"),
    "nothing": (opened(b""), "note-newline"),
    "a newline alone": (opened(b"\n"), "note-separator"),
    "a text without signatures": (opened(f"{TEXT}\n"), "note-separator"),
    "a note without its empty line": (opened(NOTE.replace(b"\n\n", b"\n")), "note-separator"),
    "a note that ends after the empty line": (opened(f"{TEXT}\n\n"), "note-unsigned"),
    "sixty-five signatures": (signed_line(LINE * 65), "signatures-many"),
    "a signature line with a hyphen": (signed_line(LINE.replace("—", "-")), "signature-line"),
    "a signature line without its space": (signed_line(LINE.replace("— ", "—")), "signature-line"),
    "a signature line with two spaces": (signed_line(LINE.replace("— ", "—  ")), "signature-line"),
    "a signature line with three fields": (signed_line(LINE.replace("\n", " x\n")), "signature-line"),
    "a signature line without a signature": (signed_line(f"— {ORIGIN}\n"), "signature-line"),
    "text after the signatures": (opened(NOTE + b"more\n"), "signature-line"),
    "a signature without a name": (signed_line(f"—  {SIGNATURE}\n"), "key-name"),
    "a name with a plus": (signed_line(f"— a+b {SIGNATURE}\n"), "key-name"),
    "a name with a no-break space": (signed_line(f"— a\u00a0b {SIGNATURE}\n"), "key-name"),
    "a name with an ideographic space": (signed_line(f"— a\u3000b {SIGNATURE}\n"), "key-name"),
    "a signature that is not base64": (signed_line(f"— {ORIGIN} !!!!\n"), "signature-base64"),
    "a signature in base64url": (signed_line(LINE.replace(SIGNATURE, "_" + SIGNATURE[1:])), "signature-base64"),
    "a signature without padding": (signed_line(LINE.replace("=", "")), "signature-base64"),
    "a signature with too much padding": (signed_line(LINE.replace("\n", "====\n")), "signature-base64"),
    "a signature of a key id alone": (signed_line(f"— {ORIGIN} {b64(LOG.key.id)}\n"), "signature-short"),
    "a signature under another name": (signed_line(LINE.replace(ORIGIN, STRANGER.key.name)), "signature-untrusted"),
    "a signature under another id": (signed_line(f"— {ORIGIN} {b64(b'1234' + bytes(64))}\n"), "signature-untrusted"),
    "a note by a stranger": (opened(notes.signed(CHECKPOINT.text, [STRANGER])), "signature-untrusted"),
    "a key trusted for cosignatures only": (
        lambda: checkpoints.open(NOTE, ORIGIN, [VerifierKey(ORIGIN, LOG.key.public, Kind.COSIGNATURE)]),
        "signature-untrusted",
    ),
    "a signature of zeros": (signed_line(f"— {ORIGIN} {b64(LOG.key.id + bytes(64))}\n"), "signature-invalid"),
    "a signature of 63 bytes": (signed_line(f"— {ORIGIN} {b64(base64.b64decode(SIGNATURE)[:-1])}\n"), "signature-invalid"),
    "a signature of 65 bytes": (signed_line(f"— {ORIGIN} {b64(base64.b64decode(SIGNATURE) + b'x')}\n"), "signature-invalid"),
    "a signature that carries a part of the text": (
        signed_line(f"— {ORIGIN} {b64(LOG.key.id + LOG.sign(b'x' + CHECKPOINT.text.encode()) + b'x')}\n"),
        "signature-invalid",
    ),
    "a true signature and a false one by the same key": (
        opened(NOTE + f"— {ORIGIN} {b64(LOG.key.id + bytes(64))}\n".encode()),
        "signature-invalid",
    ),
    "another size under the signature": (opened(NOTE.replace(b"\n300\n", b"\n299\n")), "signature-invalid"),
    "another root under the signature": (opened(NOTE.replace(ROOT.encode(), HASH.encode())), "signature-invalid"),
    "another origin under the signature": (opened(NOTE.replace(b"provider.example", b"consumer.example", 1)), "signature-invalid"),
    "a line added to the text": (opened(f"{TEXT}\nmore\n\n{LINE}"), "signature-invalid"),
    "an empty line added to the text": (opened(f"{TEXT}\n\n\n{LINE}"), "signature-invalid"),
    "a cosignature passed off as the log's": (
        signed_line(Signature(ORIGIN, LOG.key.id, notes.sign(CHECKPOINT.text, WITNESS, AT).value[8:]).line),
        "signature-invalid",
    ),
    "two keys of one name and id": (
        lambda: notes.verify(notes.read(NOTE), [LOG.key, twin()]),
        "key-ambiguous",
    ),
    "a cosignature of another time": (cosigned((AT + 1).to_bytes(8, "big") + COSIGNATURE[8:]), "signature-invalid"),
    "a cosignature beyond all time": (cosigned(b"\xff" * 8 + COSIGNATURE[8:]), "cosignature-time"),
    "a cosignature without its time": (cosigned(COSIGNATURE[8:]), "signature-invalid"),
    "a cosignature of the time alone": (cosigned(COSIGNATURE[:8]), "signature-invalid"),
    "a name of two lines to be written": (lambda: notes.write(Note("x\n", (Signature("a\n\nb", b"1234", b"x"),))), "signature-line"),
    "a text that ends in what would be a signature": (
        lambda: notes.write(Note("x\n\n" + LINE.rstrip("\n"), notes.read(NOTE).signatures)),
        "note-separator",
    ),
    "a text without a newline to be signed": (lambda: notes.signed("x", [LOG]), "note-separator"),
    "a text with a bell to be signed": (lambda: notes.signed("\a\n", [LOG]), "note-control"),
    "a note without signatures to be written": (lambda: notes.write(Note("x\n", ())), "note-unsigned"),
    "a vkey of two parts": (vkey(f"{NAME}+{ID}"), "vkey-form"),
    "a vkey with an id in capitals": (vkey(f"{NAME}+{ID.upper()}+{MATERIAL}"), "vkey-form"),
    "a vkey with a short id": (vkey(f"{NAME}+{ID[1:]}+{MATERIAL}"), "vkey-form"),
    "a private key": (vkey(f"PRIVATE+KEY+{VKEY}"), "vkey-form"),
    "a vkey that is not base64": (vkey(f"{NAME}+{ID}+?"), "vkey-base64"),
    "a vkey with a newline": (vkey(f"{VKEY}\n"), "vkey-base64"),
    "a vkey without a key": (vkey(f"{NAME}+{ID}+"), "vkey-kind"),
    "a vkey for ECDSA": (vkey(f"{NAME}+{ID}+{b64(bytes([2]) + LOG.key.public)}"), "vkey-kind"),
    "a vkey for ML-DSA-44": (vkey(f"{NAME}+{ID}+{b64(bytes([6]) + bytes(1312))}"), "vkey-kind"),
    "a vkey of 31 bytes": (vkey(f"{NAME}+{ID}+{b64(bytes([1]) + LOG.key.public[:-1])}"), "key-length"),
    "a vkey of 33 bytes": (vkey(f"{NAME}+{ID}+{b64(bytes([1]) + LOG.key.public + b'x')}"), "key-length"),
    "a vkey that is no point": (vkey(f"{NAME}+{ID}+{b64(bytes([1]) + bytes([2]) + bytes(31))}"), "key-point"),
    "a vkey of small order": (vkey(f"{NAME}+{ID}+{b64(bytes([1]) + bytes([1]) + bytes(31))}"), "key-point"),
    "a vkey with the id of another": (vkey(f"{NAME}+{STRANGER.key.id.hex()}+{MATERIAL}"), "vkey-id"),
    "a vkey under another name": (vkey(f"x{VKEY}"), "vkey-id"),
    "a vkey under another type": (vkey(f"{NAME}+{ID}+{b64(bytes([4]) + LOG.key.public)}"), "vkey-id"),
    "a vkey without a name": (vkey(f"+{ID}+{MATERIAL}"), "key-name"),
    "a vkey with a space in its name": (vkey(f"a b+{ID}+{MATERIAL}"), "key-name"),
    "a vkey with half a surrogate pair": (vkey(f"\ud800+{ID}+{MATERIAL}"), "key-name"),
}


def twin() -> VerifierKey:
    """A key whose four bytes of id are those of the log's: what somebody can find by trying four billion."""
    other = signer(ORIGIN, seed="twin").key

    class Twin(VerifierKey):
        @property
        def id(self) -> bytes:
            return LOG.key.id

    return Twin(ORIGIN, other.public)


CHECKPOINTS: dict[str, Mutation] = {
    "two lines": (checkpoint(f"{ORIGIN}\n300\n"), "checkpoint-lines"),
    "an empty text": (checkpoint("\n"), "checkpoint-lines"),
    "a text that does not end": (lambda: checkpoints.read(CHECKPOINT.text[:-1]), "checkpoint-newline"),
    "no origin": (checkpoint(f"\n300\n{ROOT}\n"), "checkpoint-origin"),
    "an origin of 256 bytes": (checkpoint(f"{'é' * 128}\n300\n{ROOT}\n"), "checkpoint-origin"),
    "an origin of two lines": (lambda: Checkpoint("a\nb", 1, bytes(32)), "checkpoint-lines"),
    "an extension of two lines": (lambda: replace(CHECKPOINT, extensions=("a\nb",)), "checkpoint-lines"),
    "another log by the same key": (checkpoint(f"{ORIGIN}/2\n300\n{ROOT}\n"), "checkpoint-other-origin"),
    "another log in capitals": (checkpoint(f"{ORIGIN.upper()}\n300\n{ROOT}\n"), "checkpoint-other-origin"),
    "a size with a leading zero": (checkpoint(f"{ORIGIN}\n0300\n{ROOT}\n"), "checkpoint-size"),
    "a size with a plus": (checkpoint(f"{ORIGIN}\n+300\n{ROOT}\n"), "checkpoint-size"),
    "a negative size": (checkpoint(f"{ORIGIN}\n-1\n{ROOT}\n"), "checkpoint-size"),
    "a size with a space": (checkpoint(f"{ORIGIN}\n300 \n{ROOT}\n"), "checkpoint-size"),
    "a size with an underscore": (checkpoint(f"{ORIGIN}\n3_00\n{ROOT}\n"), "checkpoint-size"),
    "a size in hexadecimal": (checkpoint(f"{ORIGIN}\n0x12c\n{ROOT}\n"), "checkpoint-size"),
    "a size in Arabic digits": (checkpoint(f"{ORIGIN}\n٣٠٠\n{ROOT}\n"), "checkpoint-size"),
    "a size of 2^63": (checkpoint(f"{ORIGIN}\n{2**63}\n{ROOT}\n"), "checkpoint-size"),
    "a size of ten thousand digits": (checkpoint(f"{ORIGIN}\n{'9' * 10_000}\n{ROOT}\n"), "checkpoint-size"),
    "no size": (checkpoint(f"{ORIGIN}\n\n{ROOT}\n"), "checkpoint-size"),
    "a size that is no number": (checkpoint(f"{ORIGIN}\nmany\n{ROOT}\n"), "checkpoint-size"),
    "a size below zero, held": (lambda: replace(CHECKPOINT, size=-1), "checkpoint-size"),
    "a root that is not base64": (checkpoint(f"{ORIGIN}\n300\n{'?' * 44}\n"), "checkpoint-root"),
    "a root in hexadecimal": (checkpoint(f"{ORIGIN}\n300\n{CHECKPOINT.root.hex()}\n"), "checkpoint-root-length"),
    "a root without padding": (checkpoint(f"{ORIGIN}\n300\n{ROOT[:-1]}\n"), "checkpoint-root"),
    "a root with loose bits": (checkpoint(f"{ORIGIN}\n300\n{ROOT[:-2] + chr(ord(ROOT[-2]) + 1)}=\n"), "checkpoint-root"),
    "a root that is not ASCII": (checkpoint(f"{ORIGIN}\n300\n{ROOT[:-1]}é\n"), "checkpoint-root"),
    "a root of 31 bytes": (checkpoint(f"{ORIGIN}\n300\n{b64(bytes(31))}\n"), "checkpoint-root-length"),
    "a root of 33 bytes": (checkpoint(f"{ORIGIN}\n300\n{b64(bytes(33))}\n"), "checkpoint-root-length"),
    "no root": (checkpoint(f"{ORIGIN}\n300\n\n{ROOT}\n"), "checkpoint-root-length"),
    "an empty tree with a root": (checkpoint(f"{ORIGIN}\n0\n{ROOT}\n"), "checkpoint-root-empty"),
    "an empty tree with a root of zeros": (checkpoint(f"{ORIGIN}\n0\n{HASH}\n"), "checkpoint-root-empty"),
    "an empty extension line": (checkpoint(f"{CHECKPOINT.text}\nx\n"), "checkpoint-extension"),
    "no witness where one is demanded": (lambda: checkpoints.open(NOTE, ORIGIN, [LOG.key], [WITNESS.key], 1), "witness-quorum"),
    "one witness where two are demanded": (
        lambda: checkpoints.open(with_cosignature(NOTE), ORIGIN, [LOG.key], [WITNESS.key, OTHER_WITNESS.key], 2),
        "witness-quorum",
    ),
    "a witness who vouched for another checkpoint": (
        lambda: checkpoints.open(moved_cosignature(), ORIGIN, [LOG.key], [WITNESS.key], 1),
        "signature-invalid",
    ),
}


def moved_cosignature() -> bytes:
    own = notes.read(NOTE)
    other = checkpoints.sign(replace(CHECKPOINT, extensions=("x",)), [LOG])
    return notes.write(Note(own.text, (*own.signatures, notes.sign(notes.read(other).text, WITNESS, AT))))


EDGE = {tile: tiles.write_tile(tile, NODES) for tile in tiles.edge(COUNT)}
FIRST = tiles.write_tile(Tile(0, 0), NODES)
PARTIAL = Tile(0, 1, COUNT - 256)


def reader(size: int = COUNT, entered: bool = True) -> CheckedTiles:
    checked = CheckedTiles(size, CHECKPOINT.root)
    if entered:
        checked.enter(EDGE)
    return checked


def bundle(entries: list[bytes], width: int, leaves: list[bytes] | None = None) -> Callable[[], Any]:
    data = b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)
    expected = b"".join(LEAVES[:width] if leaves is None else leaves)
    return lambda: tiles.verify_bundle(Tile(BUNDLE, 0, width), data, expected)


TILES: dict[str, Mutation] = {
    **{
        f"the path {path or 'of nothing'}": (lambda path=path: tiles.read_path(path), code)
        for path, code in {
            "": "tile-path",
            "tile/0/0": "tile-path",
            "tile/0/00": "tile-path",
            "tile/0/0000": "tile-path",
            "tile/00/000": "tile-path",
            "tile/-1/000": "tile-path",
            "tile/data/000": "tile-path",
            "tile/0/000/": "tile-path",
            "/tile/0/000": "tile-path",
            "tile/0/../000": "tile-path",
            "tile/0/x000/001": "tile-path",
            "tile/0/001/067": "tile-path",
            "tile/0/x001/x067": "tile-path",
            "tile/0/X001/067": "tile-path",
            "tile/0/x001x067": "tile-path",
            "tile/0/000.p/0": "tile-path",
            "tile/0/000.p/01": "tile-path",
            "tile/0/000.p/256": "tile-path",
            "tile/0/000.p/": "tile-path",
            "tile/0/000.p": "tile-path",
            "tile/0/000\n": "tile-path",
            "tile/0/٠٠٠": "tile-path",
            "tile/3/5/x123": "tile-path",
            "tile/0/000.p/257": "tile-width",
            "tile/0/000.p/999": "tile-width",
            "tile/64/000": "tile-level",
            "tile/99/000": "tile-level",
            "tile/0/x009/x223/x372/x036/x854/x775/808": "tile-index",
        }.items()
    },
    "a level below the bundles": (lambda: Tile(-2, 0), "tile-level"),
    "a negative index": (lambda: Tile(0, -1), "tile-index"),
    "no width": (lambda: Tile(0, 0, 0), "tile-width"),
    "a tile behind the tree": (lambda: tiles.tile_of(0, 2, COUNT), "tile-outside"),
    "a tile above the tree": (lambda: tiles.tile_of(2, 0, COUNT), "tile-outside"),
    "leaves behind the tree": (lambda: tiles.over(0, COUNT + 1, COUNT), "tile-outside"),
    "leaves that run backwards": (lambda: tiles.over(2, 1, COUNT), "tile-outside"),
    "a node behind the tree": (lambda: tiles.nodes_from(COUNT, EDGE.__getitem__)(3, 37), "tile-outside"),
    "a node out of a short tile": (lambda: tiles.nodes_from(COUNT, lambda _: FIRST[:-32])(0, 0), "tile-length"),
    "a tile that is a hash short": (lambda: tiles.read_tile(Tile(0, 0), FIRST[:-32]), "tile-length"),
    "a tile that is a byte short": (lambda: reader().take(Tile(0, 0), FIRST[:-1]), "tile-length"),
    "a tile that is a hash long": (lambda: reader().take(Tile(0, 0), FIRST + bytes(32)), "tile-length"),
    "an empty tile": (lambda: reader().take(Tile(0, 0), b""), "tile-length"),
    "a partial tile that is missing": (lambda: reader(entered=False).enter({PARTIAL: EDGE[PARTIAL]}), "tile-missing"),
    "a partial tile of zeros": (lambda: reader(entered=False).enter(EDGE | {PARTIAL: bytes(PARTIAL.width * 32)}), "tile-root"),
    "partial tiles in the other order": (
        lambda: reader(entered=False).enter(EDGE | {PARTIAL: EDGE[PARTIAL][32:] + EDGE[PARTIAL][:32]}),
        "tile-root",
    ),
    "a partial tile that is too short": (lambda: reader(entered=False).enter(EDGE | {PARTIAL: b""}), "tile-length"),
    "partial tiles of another tree": (lambda: CheckedTiles(COUNT, bytes(32)).enter(EDGE), "tile-root"),
    "an empty tree with a root, read": (lambda: CheckedTiles(0, bytes(32)).enter({}), "tile-root"),
    "a tile before the partial ones": (lambda: reader(entered=False).take(Tile(0, 0), FIRST), "tile-order"),
    "a partial tile that was not entered": (lambda: reader(entered=False).take(PARTIAL, EDGE[PARTIAL]), "tile-order"),
    "the way before the partial tiles": (lambda: reader(entered=False).way(Tile(0, 0)), "tile-order"),
    "a tile of another width": (lambda: reader().take(Tile(0, 1), FIRST), "tile-outside"),
    "a tile that the tree has not": (lambda: reader().take(Tile(0, 7), FIRST), "tile-outside"),
    "a bundle where a tile belongs": (lambda: reader().take(Tile(BUNDLE, 0), FIRST), "tile-level"),
    "a tile of zeros": (lambda: reader().take(Tile(0, 0), bytes(8192)), "tile-mismatch"),
    "a tile with two hashes exchanged": (lambda: reader().take(Tile(0, 0), FIRST[32:64] + FIRST[:32] + FIRST[64:]), "tile-mismatch"),
    "a tile with a hash twice": (lambda: reader().take(Tile(0, 0), FIRST[:32] + FIRST[:32] + FIRST[64:]), "tile-mismatch"),
    "a tile read backwards": (
        lambda: reader().take(Tile(0, 0), b"".join(reversed(tiles.read_tile(Tile(0, 0), FIRST)))),
        "tile-mismatch",
    ),
    "a partial tile that has changed since": (lambda: reader().take(PARTIAL, bytes(PARTIAL.width * 32)), "tile-mismatch"),
    "a bundle cut within a length": (lambda: tiles.read_bundle(Tile(BUNDLE, 0, 1), b"\0"), "bundle-short"),
    "a bundle cut within an entry": (lambda: tiles.read_bundle(Tile(BUNDLE, 0, 1), b"\0\5abc"), "bundle-short"),
    "a bundle of one entry too few": (bundle(ENTRIES[:3], 4), "bundle-count"),
    "a bundle of one entry too many": (bundle(ENTRIES[:5], 4), "bundle-count"),
    "an empty bundle": (bundle([], 4), "bundle-count"),
    "a bundle with another entry": (bundle([*ENTRIES[:3], b"x"], 4), "bundle-mismatch"),
    "a bundle with two entries exchanged": (bundle([ENTRIES[1], ENTRIES[0]], 2), "bundle-mismatch"),
    "a bundle with an empty entry": (bundle([b"", *ENTRIES[1:4]], 4), "bundle-mismatch"),
    "a bundle beside a short tile": (bundle(ENTRIES[:4], 4, LEAVES[:3]), "tile-length"),
    "a bundle of nothing to be written": (lambda: tiles.write_bundle([]), "bundle-count"),
    "a bundle of 257 entries to be written": (lambda: tiles.write_bundle(ENTRIES[:257]), "bundle-count"),
    "an entry of 64 KiB to be written": (lambda: tiles.write_bundle([bytes(2**16)]), "entry-length"),
}


def inclusion(**changed: Any) -> Callable[[], Any]:
    given = {"leaf": LEAVES[INDEX], "index": INDEX, "size": COUNT, "proof": PROOF, "root": CHECKPOINT.root} | changed
    return lambda: tree.verify_inclusion(**given)


def consistency(**changed: Any) -> Callable[[], Any]:
    given = {
        "old": 137,
        "old_root": tree.root_of(LEAVES[:137]),
        "size": COUNT,
        "root": CHECKPOINT.root,
        "proof": tree.consistency(137, COUNT, NODES),
    } | changed
    return lambda: tree.verify_consistency(**given)


TREES: dict[str, Mutation] = {
    "a frontier with a subtree too few": (lambda: tree.Frontier(3, LEAVES[:1]), "frontier"),
    "a frontier with a subtree too many": (lambda: tree.Frontier(4, (LEAVES[0], LEAVES[1])), "frontier"),
    "a frontier of less than nothing": (lambda: tree.Frontier(-1, (LEAVES[0],)), "frontier"),
    "a leaf that is no hash": (lambda: tree.Frontier().append(b"entry"), "hash-length"),
    "a leaf hash of 31 bytes": (inclusion(leaf=bytes(31)), "hash-length"),
    "a proof with a hash of 33 bytes": (inclusion(proof=(bytes(33), *PROOF[1:])), "hash-length"),
    "an index behind the tree": (inclusion(index=COUNT), "index-outside"),
    "a negative leaf": (inclusion(index=-1), "index-outside"),
    "a leaf of the empty tree": (inclusion(index=0, size=0), "index-outside"),
    "a tree of 2^63 leaves": (inclusion(size=2**63), "size-outside"),
    "a proof without its first hash": (inclusion(proof=PROOF[1:]), "inclusion-length"),
    "a proof with its last hash twice": (inclusion(proof=(*PROOF, PROOF[-1])), "inclusion-length"),
    "a proof read backwards": (inclusion(proof=PROOF[::-1]), "inclusion-mismatch"),
    "a proof of the neighbour": (inclusion(index=INDEX + 1), "inclusion-mismatch"),
    "a proof of another leaf": (inclusion(leaf=LEAVES[0]), "inclusion-mismatch"),
    "a proof to another root": (inclusion(root=LEAVES[0]), "inclusion-mismatch"),
    "a tree that shrinks": (consistency(old=COUNT + 1), "sizes-order"),
    "a consistency proof without its first hash": (consistency(proof=tree.consistency(137, COUNT, NODES)[1:]), "consistency-length"),
    "a consistency proof of nothing": (consistency(proof=()), "consistency-length"),
    "a consistency proof with a short hash": (consistency(old_root=b"x"), "hash-length"),
    "another past": (consistency(old_root=LEAVES[0]), "consistency-old-mismatch"),
    "another present": (consistency(root=LEAVES[0]), "consistency-mismatch"),
    "a past of nothing with a root": (consistency(old=0, proof=()), "consistency-old-mismatch"),
    "a past of nothing with a proof": (consistency(old=0, old_root=tree.EMPTY), "consistency-length"),
    "nothing that is not empty": (consistency(old=0, size=0, old_root=tree.EMPTY, proof=()), "consistency-mismatch"),
    "a root out of nothing": (lambda: tree.root_from_consistency(0, tree.EMPTY, 5, ()), "consistency-empty"),
}


def proof(data: bytes | str) -> Callable[[], Any]:
    return lambda: proofs.verify(proofs.read(data if isinstance(data, bytes) else data.encode()), LEAVES[INDEX], ORIGIN, [LOG.key])


WRITTEN = proofs.write(proofs.Proof(INDEX, PROOF, NOTE, b"extra"))
HEAD = proofs.HEADER

PROOFS: dict[str, Mutation] = {
    "a proof of half a megabyte": (proof(WRITTEN + bytes(512 * 1024)), "proof-size"),
    "a proof without an empty line": (proof(WRITTEN.replace(b"\n\n", b"\n")), "proof-separator"),
    "a proof of another version": (proof(WRITTEN.replace(b"@v1", b"@v2")), "proof-header"),
    "a proof with a space after its header": (proof(WRITTEN.replace(b"@v1\n", b"@v1 \n")), "proof-header"),
    "a proof with CRLF": (proof(WRITTEN.replace(b"@v1\n", b"@v1\r\n")), "proof-header"),
    "extra data that are not base64": (proof(f"{HEAD}\nextra !!notbase64!!\nindex 0\n\ncheckpoint\n"), "proof-extra"),
    "extra data without any": (proof(f"{HEAD}\nextra \nindex 0\n\ncheckpoint\n"), "proof-extra"),
    "extra data twice": (proof(f"{HEAD}\nextra YQ==\nextra YQ==\nindex 0\n\ncheckpoint\n"), "proof-index"),
    "extra data after the index": (proof(f"{HEAD}\nindex 0\nextra YQ==\n\ncheckpoint\n"), "proof-hash"),
    "no index": (proof(f"{HEAD}\n{HASH}\n\ncheckpoint\n"), "proof-index"),
    "a bare index": (proof(WRITTEN.replace(b"index 137", b"137")), "proof-index"),
    "an index that is no number": (proof(f"{HEAD}\nindex notanumber\n\ncheckpoint\n"), "proof-index"),
    "an index below zero": (proof(f"{HEAD}\nindex -5\n\ncheckpoint\n"), "proof-index"),
    "an index with a leading zero": (proof(WRITTEN.replace(b"index 137", b"index 0137")), "proof-index"),
    "a hash that is not base64": (proof(f"{HEAD}\nindex 0\n!!notbase64!!\n\ncheckpoint\n"), "proof-hash"),
    "a hash of 64 bytes": (proof(f"{HEAD}\nindex 0\n{b64(bytes(64))}\n\ncheckpoint\n"), "hash-length"),
    "sixty-five hashes": (proof(f"{HEAD}\nindex 0\n{(HASH + chr(10)) * 65}\ncheckpoint\n"), "proof-many"),
    "another index": (proof(WRITTEN.replace(b"index 137", b"index 138")), "inclusion-mismatch"),
    "a hash too few": (proof(WRITTEN.replace(b64(PROOF[0]).encode() + b"\n", b"")), "inclusion-length"),
    "another checkpoint": (proof(WRITTEN.replace(b"\n300\n", b"\n301\n")), "signature-invalid"),
    "a proof that cannot be written": (lambda: proofs.write(proofs.Proof(-1, (), NOTE)), "proof-index"),
}


def request(data: bytes | str) -> Callable[[], Any]:
    return lambda: witness.read(data if isinstance(data, bytes) else data.encode())


REQUEST = witness.write(137, tree.consistency(137, COUNT, NODES), NOTE)

REQUESTS: dict[str, Mutation] = {
    "a request of half a megabyte": (request(REQUEST + bytes(512 * 1024)), "witness-size"),
    "a request without an empty line": (request(b"old 0\n" + NOTE.replace(b"\n\n", b"\n")), "witness-separator"),
    "a request of an empty line and a note": (request(b"\n\n" + NOTE), "witness-old"),
    "a request without an old size": (request(REQUEST.replace(b"old 137\n", b"")), "witness-old"),
    "a request with a bare size": (request(REQUEST.replace(b"old 137", b"137")), "witness-old"),
    "a request with a new size": (request(REQUEST.replace(b"old ", b"new ")), "witness-old"),
    "an old size with a leading zero": (request(REQUEST.replace(b"old 137", b"old 0137")), "witness-old"),
    "an old size below zero": (request(REQUEST.replace(b"old 137", b"old -1")), "witness-old"),
    "an old size of 2^63": (request(REQUEST.replace(b"old 137", f"old {2**63}".encode())), "witness-old"),
    "a proof line that is not base64": (request(REQUEST.replace(b"old 137\n", b"old 137\n?\n")), "witness-hash"),
    "a proof line of 31 bytes": (request(REQUEST.replace(b"old 137\n", f"old 137\n{b64(bytes(31))}\n".encode())), "hash-length"),
    "sixty-four proof lines": (request(f"old 0\n{(HASH + chr(10)) * 64}\n".encode() + NOTE), "witness-many"),
    "a request without signatures": (request(f"old 0\n\n{CHECKPOINT.text}\n"), "note-unsigned"),
    "a request for no checkpoint": (request(b"old 0\n\n" + notes.signed("hello\n", [LOG])), "checkpoint-lines"),
    "an unknown log": (lambda: witness.judge(witness.read(REQUEST), [], witness.Seen()), "witness-origin"),
    "another old size": (lambda: witness.judge(witness.read(REQUEST), [LOG.key], witness.Seen()), "witness-old-size"),
    "a fork": (
        lambda: witness.judge(witness.read(b"old 300\n\n" + NOTE), [LOG.key], witness.Seen(COUNT, LEAVES[0])),
        "witness-forked",
    ),
    "an answer that is not UTF-8": (lambda: witness.cosigned(NOTE, b"\xff\n", [WITNESS.key]), "note-utf8"),
}


def receipt(change: Callable[[dict[Any, Any], dict[Any, Any], list[Any]], Any], inclusive: bool = True) -> Callable[[], Any]:
    """A receipt whose protected header, unprotected header or parts were changed before the log signed it anew."""

    def verify() -> Any:
        parts = list(cbor2.loads(included(INDEX, COUNT) if inclusive else continued(137, COUNT)).value)
        header, unprotected = dict(cbor2.loads(parts[0])), {396: dict(dict(parts[1])[396])}
        root = CHECKPOINT.root
        change(header, unprotected, parts)
        parts[0] = cbor2.dumps(header) if isinstance(parts[0], bytes) else parts[0]
        parts[1] = unprotected if not isinstance(parts[1], str) else parts[1]
        if isinstance(parts[3], bytes):
            parts[3] = LOG.sign(cbor2.dumps(["Signature1", parts[0], b"", root]))
        return taken(cbor2.dumps(cbor2.CBORTag(18, parts)), inclusive)

    return verify


def taken(data: bytes, inclusive: bool = True) -> Any:
    if inclusive:
        return cose.verify_inclusion_receipt(data, LEAVES[INDEX], key_of)
    return cose.verify_consistency_receipt(data, 137, tree.root_of(LEAVES[:137]), key_of)


def proven(*values: Any) -> Callable[[], Any]:
    return receipt(lambda _, unprotected, __: unprotected.update({396: {-1: list(values)}}))


RECEIPT = included(INDEX, COUNT)
BLOB = cbor2.dumps([COUNT, INDEX, list(PROOF)])

RECEIPTS: dict[str, Mutation] = {
    "a receipt of more than 64 KiB": (lambda: taken(RECEIPT + bytes(65536)), "receipt-size"),
    "no receipt": (lambda: taken(b""), "receipt-form"),
    "a receipt without its tag": (lambda: taken(RECEIPT[1:]), "receipt-form"),
    "a receipt under the tag of a COSE_Mac0": (lambda: taken(b"\xd1" + RECEIPT[1:]), "receipt-form"),
    "a receipt under its tag in two bytes": (lambda: taken(b"\xd8\x12" + RECEIPT[1:]), "receipt-form"),
    "a receipt that is cut": (lambda: taken(RECEIPT[:-1]), "receipt-cbor"),
    "a receipt with a byte after it": (lambda: taken(RECEIPT + b"\0"), "receipt-cbor"),
    "a receipt of indefinite length": (lambda: taken(b"\xd2\x9f" + RECEIPT[2:] + b"\xff"), "receipt-cbor"),
    "a receipt with a length in two bytes": (lambda: taken(b"\xd2\x98\x04" + RECEIPT[2:]), "receipt-cbor"),
    "a receipt with a tag inside": (receipt(lambda h, *_: h.update({"x": cbor2.CBORTag(55799, 1)})), "receipt-cbor"),
    "a receipt with an expression inside": (receipt(lambda h, *_: h.update({"x": re.compile("(a+)+")})), "receipt-cbor"),
    "a receipt of nine arrays in each other": (lambda: taken(b"\xd2" + b"\x81" * 9 + b"\0"), "receipt-cbor"),
    "a header that says something twice": (lambda: taken(doubled()), "receipt-cbor"),
    "three parts": (lambda: taken(cbor2.dumps(cbor2.CBORTag(18, [b"", {}, None]))), "receipt-form"),
    "a number": (lambda: taken(b"\xd2\x05"), "receipt-form"),
    "a header that is not wrapped": (receipt(lambda _, __, parts: parts.__setitem__(0, {})), "receipt-form"),
    "a signature that is a text": (receipt(lambda _, __, parts: parts.__setitem__(3, "x")), "receipt-form"),
    "an unprotected header that is a text": (receipt(lambda _, __, parts: parts.__setitem__(1, "x")), "receipt-form"),
    "an attached root": (receipt(lambda _, __, parts: parts.__setitem__(2, CHECKPOINT.root)), "receipt-payload"),
    "a protected header that is a list": (
        lambda: taken(cbor2.dumps(cbor2.CBORTag(18, [cbor2.dumps([]), {}, None, b""]))),
        "receipt-header",
    ),
    "a critical parameter": (receipt(lambda h, *_: h.update({2: ["x"], "x": 1})), "receipt-critical"),
    "no algorithm": (receipt(lambda h, *_: h.pop(1)), "receipt-alg"),
    "ES256": (receipt(lambda h, *_: h.update({1: -7})), "receipt-alg"),
    "no verifiable data structure": (receipt(lambda h, *_: h.pop(395)), "receipt-vds"),
    "the structure of another ledger": (receipt(lambda h, *_: h.update({395: 2})), "receipt-vds"),
    "a structure that is `true`": (receipt(lambda h, *_: h.update({395: True})), "receipt-vds"),
    "no claims": (receipt(lambda h, *_: h.pop(15)), "receipt-claims"),
    "claims without an issuer": (receipt(lambda h, *_: h.update({15: {2: "x"}})), "receipt-claims"),
    "claims without a subject": (receipt(lambda h, *_: h.update({15: {1: "x"}})), "receipt-claims"),
    "a time that is a text": (receipt(lambda h, *_: h.update({15: {1: "x", 2: "y", 6: "now"}})), "receipt-claims"),
    "a time before 1970": (receipt(lambda h, *_: h.update({15: {1: "x", 2: "y", 6: -1}})), "receipt-claims"),
    "no key": (receipt(lambda h, *_: h.pop(4)), "receipt-kid"),
    "a key that is a text": (receipt(lambda h, *_: h.update({4: "did:web:x"})), "receipt-kid"),
    "a key that is not UTF-8": (receipt(lambda h, *_: h.update({4: b"\xff"})), "receipt-kid"),
    "no proofs": (receipt(lambda _, u, __: u.pop(396)), "receipt-proofs"),
    "a proof of another kind": (receipt(lambda _, u, __: u.update({396: {-2: [BLOB]}})), "receipt-proofs"),
    "no proof in the list": (proven(), "receipt-proofs"),
    "two proofs": (proven(BLOB, BLOB), "receipt-proofs"),
    "a proof that is not wrapped": (proven([COUNT, INDEX, list(PROOF)]), "receipt-proofs"),
    "a proof with a byte after it": (proven(BLOB + b"\0"), "receipt-cbor"),
    "a proof of two parts": (proven(cbor2.dumps([COUNT, INDEX])), "receipt-proof"),
    "a proof that is a map": (proven(cbor2.dumps({1: 2})), "receipt-proof"),
    "a proof with an index below zero": (proven(cbor2.dumps([COUNT, -1, list(PROOF)])), "receipt-proof"),
    "a proof with `true` for a size": (proven(cbor2.dumps([True, 0, []])), "receipt-proof"),
    "a proof with a hash in hexadecimal": (proven(cbor2.dumps([COUNT, INDEX, [PROOF[0].hex(), *PROOF[1:]]])), "receipt-proof"),
    "a proof of another size than signed for": (proven(cbor2.dumps([COUNT + 1, INDEX, list(PROOF)])), "receipt-tree-size"),
    "a proof of the neighbour, signed": (proven(cbor2.dumps([COUNT, INDEX + 1, list(PROOF)])), "receipt-signature"),
    "a proof with a hash too few, signed": (proven(cbor2.dumps([COUNT, INDEX, list(PROOF[1:])])), "inclusion-length"),
    "a proof of an index behind the tree, signed": (proven(cbor2.dumps([COUNT, COUNT, list(PROOF)])), "index-outside"),
    "a statement that was exchanged": (lambda: taken(RECEIPT.replace(b"urn:uuid:agreement", b"urn:uuid:agreemenT")), "receipt-signature"),
    "a continuation from another size": (
        lambda: cose.verify_consistency_receipt(continued(136, COUNT), 137, tree.root_of(LEAVES[:137]), key_of),
        "receipt-old",
    ),
    "a continuation of another past": (
        lambda: cose.verify_consistency_receipt(continued(137, COUNT), 137, LEAVES[0], key_of),
        "consistency-old-mismatch",
    ),
    "a continuation taken for an inclusion": (lambda: taken(continued(137, COUNT)), "receipt-proofs"),
}


def doubled() -> bytes:
    """`alg` twice in the protected header: two readers might take two different ones."""
    header = cbor2.dumps({1: -8, 395: 1})
    twice = bytes([header[0] + 1]) + header[1:] + cbor2.dumps(1) + cbor2.dumps(-7)
    return cbor2.dumps(cbor2.CBORTag(18, [twice, {}, None, bytes(64)]))


TABLES = {
    "note": NOTES,
    "checkpoint": CHECKPOINTS,
    "tile": TILES,
    "tree": TREES,
    "proof": PROOFS,
    "request": REQUESTS,
    "receipt": RECEIPTS,
}
ALL = [pytest.param(*mutation, id=f"{table}: {name}") for table, rows in TABLES.items() for name, mutation in rows.items()]


@pytest.mark.parametrize(("mutated", "code"), ALL)
def test_a_mutation_is_refused_with_its_own_code(mutated: Callable[[], Any], code: str):
    with pytest.raises(ProofRefused) as caught:
        mutated()
    assert caught.value.code == code
    assert len(caught.value.message.split()) > 4  # a sentence that says what is wrong


def test_what_the_mutations_start_from_is_right():
    assert checkpoints.open(with_cosignature(NOTE), ORIGIN, [LOG.key], [WITNESS.key], 1).checkpoint == CHECKPOINT
    assert notes.read_vkey(VKEY) == LOG.key
    assert reader().take(Tile(0, 0), FIRST) == FIRST
    assert bundle(ENTRIES[:4], 4)() == tuple(ENTRIES[:4])
    inclusion()()
    consistency()()
    assert proof(WRITTEN)().checkpoint == CHECKPOINT
    assert witness.read(REQUEST).old == 137
    assert receipt(lambda *_: None)().sized
    assert receipt(lambda *_: None, inclusive=False)().statement == STATEMENT
    assert proven(BLOB)().index == INDEX


def codes() -> set[str]:
    """Every code that the product can give: the texts without spaces in the calls that take one."""
    found = set()
    for path in PRODUCT.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and (isinstance(node.func, ast.Name | ast.Attribute)):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                if name in {"ProofRefused", "decode_base64", "read_decimal", "read_hashes"}:
                    found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    return {text for text in found if re.fullmatch(r"[a-z][a-z0-9-]*", text)}


def test_every_code_of_the_product_is_met_by_a_mutation_and_no_other():
    assert {code for rows in TABLES.values() for _, code in rows.values()} == codes()
    assert len(ALL) >= 200


def test_there_are_enough_mutations_of_notes_checkpoints_and_tiles():
    assert sum(len(TABLES[name]) for name in ("note", "checkpoint", "tile")) >= 60
