"""Signed notes (C2SP signed-note v1.0.0) with Ed25519, and cosignatures (C2SP tlog-cosignature, `cosignature/v1`). Pure.

A note is text, an empty line, and lines `— <key name> base64(key id ‖ signature)`. Each text here has one spelling: what could be
written in two ways (base64 with loose bits, hexadecimal in capitals) is refused, so that the hash of a note names it.
Private keys stay where they are: whoever signs hands over a function.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from functools import lru_cache

from nacl.bindings import crypto_core_ed25519_is_valid_point, crypto_sign_open
from nacl.exceptions import BadSignatureError

from connector.errors import ProofRefused
from connector.values import Value

NOTE_BYTES_MAX = 256 * 1024  # "a maximum limit to the overall size"; sixteen signatures of 5 kB are to be taken
SIGNATURES_MAX = 64
KEY_BYTES = 32  # RFC 8032
SIGNATURE_BYTES = 64  # RFC 8032
KEY_ID_BYTES = 4
TIME_BYTES = 8
TIME_MAX = 2**63 - 1  # tlog-cosignature: POSIX seconds
DASH = "\u2014 "  # what a signature line begins with
VKEY = re.compile(r"([^+]*)\+([0-9a-f]{8})\+(.*)", re.DOTALL)

Sign = Callable[[bytes], bytes]  # a message -> its 64 bytes of Ed25519 signature


class Kind(IntEnum):
    """Signature type identifiers of signed-note that are taken here."""

    ED25519 = 0x01
    COSIGNATURE = 0x04


class VerifierKey(Value):
    """The key that a signature line names: by its `name` and by the first four bytes of a hash over it.

    Raises ProofRefused(`key-name`, `key-length`, `key-point`).
    """

    name: str
    public: bytes
    kind: Kind = Kind.ED25519

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.public) != KEY_BYTES:
            raise ProofRefused(f"the key of {self.name!r} has {len(self.public)} bytes, not {KEY_BYTES}", "key-length")
        if not crypto_core_ed25519_is_valid_point(self.public):
            raise ProofRefused(f"the key of {self.name!r} is no Ed25519 public key", "key-point")

    @property
    def id(self) -> bytes:
        """Four bytes: SHA-256(name ‖ LF ‖ type ‖ key)[:4]."""
        return key_id(self.name, self.public, self.kind)

    @property
    def vkey(self) -> str:
        """The key as text: `<name>+<id in hexadecimal>+<base64 of type and key>`."""
        return f"{self.name}+{self.id.hex()}+{b64encode(bytes([self.kind]) + self.public).decode('ascii')}"


class Signer(Value):
    """A key that signs. `sign` gives the Ed25519 signature of a message."""

    key: VerifierKey
    sign: Sign


class Signature(Value):
    """One signature line: who says to have signed, and 1 byte or more of which only a known key tells what they are."""

    name: str
    key_id: bytes
    value: bytes

    @property
    def line(self) -> str:
        """The line, its newline included."""
        return f"{DASH}{self.name} {b64encode(self.key_id + self.value).decode('ascii')}\n"


class Note(Value):
    """A text that ends in a newline, and its signatures. Nothing about them is proven yet."""

    text: str
    signatures: tuple[Signature, ...]


class Verified(Value):
    """A signature that holds, by a key that was asked for; `at` is the time of a cosignature in POSIX seconds, else None."""

    key: VerifierKey
    signature: Signature
    at: int | None = None


def read_vkey(text: str) -> VerifierKey:
    """Read a key as text. Raises ProofRefused(`vkey-form`, `vkey-base64`, `vkey-kind`, `vkey-id`) and as VerifierKey does."""
    found = VKEY.fullmatch(text)
    if found is None:
        raise ProofRefused("a verifier key is written `<name>+<8 hexadecimal digits>+<base64>`", "vkey-form")
    name, id_, material = found.groups()
    data = decode_base64(material, "vkey-base64", "the key")
    if not data or data[0] not in tuple(Kind):
        raise ProofRefused("the verifier key is of a signature type that is not taken: 0x01 and 0x04 are", "vkey-kind")
    key = VerifierKey(name, data[1:], Kind(data[0]))
    if key.id.hex() != id_:
        raise ProofRefused(f"the verifier key of {name!r} does not have the id that it says", "vkey-id")
    return key


def write(note: Note) -> bytes:
    """The note as bytes. Raises ProofRefused with the code that `read` would have for it."""
    data = (note.text + "\n" + "".join(signature.line for signature in note.signatures)).encode("utf-8", "surrogatepass")
    if read(data) != note:
        raise ProofRefused("the text and the signatures would be read as another note", "note-separator")
    return data


def read(data: bytes) -> Note:
    """Read a note strictly.

    Raises ProofRefused with `note-size`, `note-utf8`, `note-control` (a character below U+0020 but LF), `note-newline` (no newline at
    the end), `note-separator` (no empty line), or as `read_lines` does.
    """
    if len(data) > NOTE_BYTES_MAX:
        raise ProofRefused(f"the note has more than {NOTE_BYTES_MAX} bytes", "note-size")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ProofRefused("the note is not UTF-8", "note-utf8") from None
    _check_characters(whole)
    text, separator, lines = whole.rpartition("\n\n")
    if not separator:
        raise ProofRefused("the note has no empty line between its text and its signatures", "note-separator")
    return Note(text + "\n", read_lines(lines))


def read_lines(text: str) -> tuple[Signature, ...]:
    """Read signature lines.

    Raises ProofRefused with `note-unsigned` (there is none), `note-newline`, `signatures-many`, `signature-line`, `key-name`,
    `signature-base64` or `signature-short`.
    """
    if not text:
        raise ProofRefused("the note has no signature", "note-unsigned")
    if not text.endswith("\n"):
        raise ProofRefused("the note does not end in a newline", "note-newline")
    lines = text.removesuffix("\n").split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise ProofRefused(f"the note has more than {SIGNATURES_MAX} signatures", "signatures-many")
    return tuple(map(_read_line, lines))


def verify(note: Note, keys: Iterable[VerifierKey]) -> tuple[Verified, ...]:
    """The signatures by `keys`, in the note's order; those by unknown keys are ignored. At least one.

    Raises ProofRefused with `signature-untrusted` (none is by one of the keys), `signature-invalid` (one by such a key does not hold,
    which refuses the whole note), `cosignature-time`, or `key-ambiguous` (two of `keys` share name and id).
    """
    known: dict[tuple[str, bytes], VerifierKey] = {}
    for key in keys:
        if known.setdefault((key.name, key.id), key) != key:
            raise ProofRefused(f"two keys are called {key.name}+{key.id.hex()}", "key-ambiguous")
    found = [(known[name], each) for each in note.signatures if (name := (each.name, each.key_id)) in known]
    if not found:
        raise ProofRefused("the note is signed by none of the keys that are trusted here", "signature-untrusted")
    return tuple(_verified(note.text, key, signature) for key, signature in found)


def sign(text: str, signer: Signer, at: int | None = None) -> Signature:
    """Sign a text; `at` is the time of a cosignature (POSIX seconds), and stays None for a plain signature.

    Raises ValueError if the time is missing, out of place or out of range, or if `signer` does not give 64 bytes.
    """
    key, message, prefix = signer.key, text.encode("utf-8"), b""
    if (at is not None) != (key.kind is Kind.COSIGNATURE):
        raise ValueError("a cosignature has a time, a plain signature has none")
    if at is not None:
        if not 0 <= at <= TIME_MAX:
            raise ValueError("the time of a cosignature is from 0 to 2^63 - 1 seconds")
        message, prefix = _cosigned(text, at), at.to_bytes(TIME_BYTES, "big")
    signature = signer.sign(message)
    if len(signature) != SIGNATURE_BYTES:
        raise ValueError(f"an Ed25519 signature has {SIGNATURE_BYTES} bytes, not {len(signature)}")
    return Signature(key.name, key.id, prefix + signature)


def signed(text: str, signers: Sequence[Signer]) -> bytes:
    """The note over `text` with plain signatures, as bytes. Raises as `sign` and `write` do."""
    return write(Note(text, tuple(sign(text, signer) for signer in signers)))


def decode_base64(text: str, code: str, what: str) -> bytes:
    """Standard base64 (RFC 4648, 4) in its only spelling. Raises ProofRefused(`code`) that names `what`."""
    try:
        data = b64decode(text.encode("ascii"), validate=True)
    except ValueError:  # UnicodeEncodeError and binascii.Error are such
        data = None
    if data is None or b64encode(data).decode("ascii") != text:
        raise ProofRefused(f"{what} is not base64 in its only spelling", code)
    return data


def _read_line(line: str) -> Signature:
    fields = line.removeprefix(DASH).split(" ")
    if not line.startswith(DASH) or len(fields) != 2:  # noqa: PLR2004 - a name and a signature
        raise ProofRefused("a line after the empty one is not `— <key name> <base64>`", "signature-line")
    name, encoded = fields
    _check_name(name)
    data = decode_base64(encoded, "signature-base64", f"the signature of {name!r}")
    if len(data) <= KEY_ID_BYTES:
        raise ProofRefused(f"the signature of {name!r} has {len(data)} bytes, which is a key id at most", "signature-short")
    return Signature(name, data[:KEY_ID_BYTES], data[KEY_ID_BYTES:])


def _verified(text: str, key: VerifierKey, signature: Signature) -> Verified:
    message, value, at = text.encode("utf-8"), signature.value, None
    if key.kind is Kind.COSIGNATURE:
        at, value = int.from_bytes(value[:TIME_BYTES], "big"), value[TIME_BYTES:]
        if at > TIME_MAX:
            raise ProofRefused(f"the cosignature of {key.name!r} has a time beyond 2^63 - 1", "cosignature-time")
        message = _cosigned(text, at)
    if not verifies(message, value, key.public):
        raise ProofRefused(f"the signature of {key.name!r} is not by its key over this text", "signature-invalid")
    return Verified(key, signature, at)


def verifies(message: bytes, signature: bytes, public: bytes) -> bool:
    """Whether 64 bytes are the Ed25519 signature of a message by a public key of 32 bytes. Any other length: no."""
    if len(signature) != SIGNATURE_BYTES or len(public) != KEY_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, public)
    except BadSignatureError:
        return False
    return True


def _cosigned(text: str, at: int) -> bytes:
    """The message of `cosignature/v1`: the header keeps it apart from every note, whose first line is an origin."""
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def _check_name(name: str) -> None:
    if not name or any(character.isspace() or character < " " or character == "+" or _is_half(character) for character in name):
        raise ProofRefused("a key name is not empty and has no spaces, no plus and no control characters", "key-name")


def _is_half(character: str) -> bool:
    """Half of a surrogate pair, which JSON can carry and UTF-8 cannot."""
    return "\ud800" <= character <= "\udfff"


def _check_characters(text: str) -> None:
    if any(character < " " and character != "\n" for character in text):
        raise ProofRefused("the note has a control character", "note-control")
    if not text.endswith("\n"):
        raise ProofRefused("the note does not end in a newline", "note-newline")


@lru_cache(maxsize=1024)
def key_id(name: str, public: bytes, kind: Kind) -> bytes:
    """The id of a key, whether or not it is one: what a signature line has of it."""
    return hashlib.sha256(name.encode("utf-8") + b"\n" + bytes([kind]) + public).digest()[:KEY_ID_BYTES]
