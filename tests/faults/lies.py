"""What a consumer or a provider may lie about at the other's door, and by which code each lie is refused.

A lie is made of the truth: the very object that would be taken next, with one thing changed. `LIES_OF` has them by what they are told
about; those about receipts are told to a provider, all others to a consumer.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
import rfc8785

from connector.merkle import notes
from connector.metering.objects import Ack, Manifest, Receipt
from connector.signatures import jws
from connector.signatures.jws import SigningKey
from tests.dataplane.rig import STRANGER, key_of

Claims = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Truth:
    """What would be taken: `claims` of the object or the `entry` of a log, `by` whom it is, and the `token` before it, if any. Of a log
    also its `origin`, `size` and `root`."""

    claims: Mapping[str, Any]
    by: str
    typ: str = ""
    before: str = ""
    entry: bytes = b""
    origin: str = ""
    size: int = 0
    root: bytes = bytes(32)

    def signed(self, **changed: Any) -> str:
        """The object with other claims, signed as it has to be."""
        return jws.sign(dict(self.claims) | changed, key_of(self.by), self.typ)


@dataclass(frozen=True, slots=True)
class Lie:
    """`told(truth)` is what is sent instead, `code` is that of the refusal."""

    about: str
    name: str
    code: str
    told: Callable[[Truth], bytes]


# Of no claim are these a value.
NEVER: Final = {"below zero": -1, "a fraction": 1.5, "an object": {"a": 1}, "a list": ["x"]}
TYPS: Final = {"receipt": Receipt.TYP, "manifest": Manifest.TYP, "ack": Ack.TYP}
NAMES: Final = {
    "receipt": (
        "aud", "jti", "iat", "man", "seq", "prev", "ranges", "bytes", "records", "items", "calls", "us", "cp", "st", "after", "rej", "why",
        "led",
    ),
    "manifest": (
        "v", "aud", "iat", "exp", "agr", "pol", "tp", "ds", "snap", "log", "unit", "window", "credit", "required", "receipts", "prices",
    ),
    "ack": ("aud", "iat", "man", "rcpt", "seq", "idx", "credit", "st", "calls", "us", "led"),
}  # fmt: skip


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def parts(token: str) -> list[str]:
    return token.split(".")


def raw(header: object, payload: bytes, key: SigningKey) -> bytes:
    """A compact JWS of any header over any payload, truly signed."""
    signing_input = f"{b64(orjson.dumps(header))}.{b64(payload)}"
    return f"{signing_input}.{b64(jws.crypto_sign(signing_input.encode(), key.secret)[:64])}".encode()


def of_signature(about: str) -> list[Lie]:
    """What may be wrong with any signed object, whatever it says."""
    typ, other = TYPS[about], "dp-statement+jwt"

    def headed(truth: Truth, payload: bytes | None = None, **header: Any) -> bytes:
        said = {"alg": "EdDSA", "typ": typ, "kid": key_of(truth.by).kid} | header
        return raw(said, orjson.dumps(truth.claims) if payload is None else payload, key_of(truth.by))

    def flipped(truth: Truth, part: int) -> bytes:
        found = parts(truth.signed())
        found[part] = found[part][:20] + ("A" if found[part][20] != "A" else "B") + found[part][21:]
        return ".".join(found).encode()

    told: list[tuple[str, str, Callable[[Truth], bytes]]] = [
        ("one part alone", "jws-parts", lambda t: parts(t.signed())[1].encode()),
        ("without its signature", "jws-parts", lambda t: t.signed().rpartition(".")[0].encode()),
        ("four parts", "jws-parts", lambda t: t.signed().encode() + b".e30"),
        ("nothing", "jws-parts", lambda _: b""),
        ("a header that is no JSON", "jws-header", lambda t: b"aGVsbG8." + ".".join(parts(t.signed())[1:]).encode()),
        ("a header with a key in it", "jws-header", lambda t: headed(t, jwk=jws.to_jwk(key_of(STRANGER).key.public))),
        ("a header with the address of a key", "jws-header", lambda t: headed(t, jku="https://x.example/")),
        ("a header with a critical extension", "jws-header", lambda t: headed(t, crit=["b64"], b64=False)),
        ("no algorithm", "jws-alg", lambda t: headed(t, alg="none")),
        ("an algorithm with a shared secret", "jws-alg", lambda t: headed(t, alg="HS256")),
        ("of another kind", "jws-typ", lambda t: headed(t, typ=other)),
        ("of no kind", "jws-typ", lambda t: headed(t, typ=None)),
        ("no key named", "jws-kid", lambda t: headed(t, kid="")),
        ("a stranger's key named", "jws-kid", lambda t: headed(t, kid=key_of(STRANGER).kid)),
        ("signed by a stranger", "jws-kid", lambda t: jws.sign(t.claims, key_of(STRANGER), typ).encode()),
        ("a key that nobody knows", "jws-key-unknown", lambda t: headed(t, kid=f"{t.by}#other")),
        ("a bit of the payload changed", "jws-signature", lambda t: flipped(t, 1)),
        ("a bit of the signature changed", "jws-signature", lambda t: flipped(t, 2)),
        ("the signature cut short", "jws-signature", lambda t: t.signed()[:-4].encode()),
        ("the signature of another one", "jws-signature", _mixed),
        ("a signature in padded base64", "jws-signature", lambda t: t.signed().encode() + b"=="),
        ("a payload that is no JSON", "jws-payload", lambda t: headed(t, b"hello")),
        ("a payload that is a list", "jws-payload", lambda t: headed(t, b"[]")),
        ("a payload with a name twice", "jws-payload", lambda t: headed(t, b'{"v":1,' + orjson.dumps({"v": 1} | dict(t.claims))[1:])),
        ("a payload in padded base64", "jws-payload", lambda t: "{}.{}==.{}".format(*parts(t.signed())).encode()),
        ("somebody else's words", "jws-issuer", lambda t: t.signed(iss=STRANGER).encode()),
        ("a claim that nobody knows", "claims-unknown", lambda t: t.signed(x=1).encode()),
    ]
    return [Lie(about, name, code, say) for name, code, say in told]


def _mixed(truth: Truth) -> bytes:
    one, other = parts(truth.signed()), parts(truth.signed(aud=STRANGER))
    return ".".join((*one[:2], other[2])).encode()


def of_claims(about: str) -> list[Lie]:
    """Each claim left out, and each with values that it never has."""

    def without(truth: Truth, name: str) -> bytes:
        return jws.sign({key: value for key, value in truth.claims.items() if key != name}, key_of(truth.by), truth.typ).encode()

    lies = [Lie(about, f"no `{name}`", "claims-missing", lambda t, n=name: without(t, n)) for name in NAMES[about]]  # type: ignore[misc]
    for name in NAMES[about]:
        lies += [
            Lie(about, f"`{name}` is {what}", f"claim-{name}", lambda t, n=name, v=value: t.signed(**{n: v}).encode())  # type: ignore[misc]
            for what, value in NEVER.items()
        ]
    return lies


def changed(about: str, name: str, code: str, **claims: Any) -> Lie:
    """One claim with another value; a function of the truth is asked for it."""

    def told(truth: Truth) -> bytes:
        return truth.signed(**{key: value(truth) if callable(value) else value for key, value in claims.items()}).encode()

    return Lie(about, name, code, told)


def within(claim: str, **members: object) -> dict[str, Any]:
    """A claim that is an object, with other members."""
    return {claim: lambda truth: truth.claims[claim] | members}


OTHER: Final = b64(b"o" * 32)
# The truth is the third receipt of a log of eight leaves: over the leaves 1 to 3, after one over 1 and 2.
RECEIPTS: Final = [
    *of_signature("receipt"),
    *of_claims("receipt"),
    changed("receipt", "a later one before its turn", "sequence-gap", seq=4),
    changed("receipt", "one from far ahead", "sequence-gap", seq=2**40),
    changed("receipt", "after another one", "previous-other", prev=OTHER),
    changed("receipt", "the first one, with one before it", "claim-prev", seq=1),
    changed("receipt", "the number of one that was accepted, without one before it", "claim-prev", seq=2, prev=None),
    changed("receipt", "the id of the one before", "receipt-id-used", jti=lambda t: jws.claims_of(t.before)["jti"]),
    changed("receipt", "for somebody else", "receipt-audience", aud=STRANGER),
    changed("receipt", "for another manifest", "receipt-manifest", man=OTHER),
    changed("receipt", "out of the future", "receipt-ahead", iat=lambda t: t.claims["iat"] + 1000),
    changed("receipt", "out of the past", "receipt-before", iat=lambda t: t.claims["iat"] - 10_000_000),
    changed("receipt", "a range without leaves", "ranges-empty", ranges=[[1, 4], [5, 5]]),
    changed("receipt", "a range that runs backwards", "ranges-empty", ranges=[[4, 1]]),
    changed("receipt", "ranges in another order", "ranges-unsorted", ranges=[[3, 4], [1, 2]]),
    changed("receipt", "ranges that overlap", "ranges-overlap", ranges=[[1, 3], [2, 4]]),
    changed("receipt", "a range in two pieces", "ranges-adjacent", ranges=[[1, 2], [2, 4]]),
    changed("receipt", "the header as data", "ranges-header", ranges=[[0, 4]]),
    changed("receipt", "leaves that there are not", "ranges-outside", ranges=[[1, 9]]),
    changed("receipt", "fewer leaves than before", "ranges-shrunk", ranges=[[1, 2]]),
    changed("receipt", "other leaves than before", "ranges-shrunk", ranges=[[2, 5]]),
    changed("receipt", "no leaves any more", "ranges-shrunk", ranges=[]),
    changed("receipt", "a byte less than verified", "bytes-differ", bytes=lambda t: t.claims["bytes"] - 1),
    changed("receipt", "a byte more than verified", "bytes-differ", bytes=lambda t: t.claims["bytes"] + 1),
    changed("receipt", "more leaves, and no more bytes", "bytes-differ", ranges=[[1, 6]]),
    changed("receipt", "an item that is not there yet", "items-differ", items=1),
    changed("receipt", "fewer calls than there were", "calls-differ", calls=0),
    changed("receipt", "more calls than there were", "calls-differ", calls=2),
    changed("receipt", "less time than before", "counts-shrunk", us=0),
    changed("receipt", "more time than has passed", "time-ahead", us=10**12),
    changed("receipt", "verified by nothing any more", "checkpoint-older", cp=None),
    changed("receipt", "verified by another root", "checkpoint-other", cp=lambda t: t.claims["cp"] | {"root": OTHER}),
    changed("receipt", "verified by a longer log", "checkpoint-other", cp=lambda t: t.claims["cp"] | {"size": 9}),
    changed("receipt", "verified by a shorter log", "checkpoint-older", cp=lambda t: t.claims["cp"] | {"size": 7}),
    changed("receipt", "complete, with leaves missing", "complete-early", st="complete"),
    changed("receipt", "rejected, and nothing named", "claim-rej", st="rejected"),
    changed("receipt", "a leaf named, and not rejected", "claim-rej", rej={"leaf": 5, "got": OTHER}),
    changed("receipt", "rejects a leaf that there is not", "rejected-outside", st="rejected", rej={"leaf": 8, "got": OTHER}),
    changed("receipt", "rejects what it covers", "rejected-covered", st="rejected", rej={"leaf": 2, "got": OTHER}),
    changed("receipt", "rejects what is right", "rejected-true", st="rejected", rej=lambda t: {"leaf": 5, "got": b64(t.root)}),
    changed("receipt", "a reason, and not aborted", "claim-why", why="disk"),
]
# The truth is the one that opens the account.
FIRST_RECEIPTS: Final = [
    changed("first receipt", "verified by nothing", "checkpoint-missing", cp=None),
    changed("first receipt", "not the first", "claim-prev", seq=2),
    changed("first receipt", "the second", "sequence-gap", seq=2, prev=OTHER),
    changed("first receipt", "all of it at once, and not counted", "bytes-differ", ranges=[[1, 8]]),
    changed("first receipt", "complete before anything came", "complete-early", st="complete"),
]
MANIFESTS: Final = [
    *of_signature("manifest"),
    *of_claims("manifest"),
    changed("manifest", "for somebody else", "manifest-audience", aud=STRANGER),
    changed("manifest", "under another agreement", "manifest-agreement", agr="urn:uuid:other"),
    changed("manifest", "under another policy", "manifest-policy", pol=OTHER),
    changed("manifest", "of another transfer of ours", "manifest-transfer", **within("tp", consumerPid="urn:uuid:other")),
    changed("manifest", "of another transfer of theirs", "manifest-transfer", **within("tp", providerPid="urn:uuid:other")),
    changed("manifest", "of another dataset", "manifest-dataset", ds="urn:other"),
    changed("manifest", "at other prices", "manifest-prices", prices=OTHER),
    changed("manifest", "with receipts to somebody else", "receipts-origin", receipts="http://127.0.0.1:9/data/1/receipts"),
    changed("manifest", "out of the future", "manifest-ahead", iat=lambda t: t.claims["iat"] + 1000, exp=lambda t: t.claims["exp"] + 1000),
    changed("manifest", "that has ended", "manifest-ended", iat=lambda t: t.claims["iat"] - 1000, exp=lambda t: t.claims["iat"] - 10),
    changed("manifest", "that ends before it begins", "claim-exp", exp=lambda t: t.claims["iat"]),
    changed("manifest", "a window that ends within a leaf", "claim-window", window=lambda t: t.claims["window"] + 1),
    changed("manifest", "other data than the header", "header-other", **within("log", size=5)),
    changed("manifest", "another unit than the header", "header-other", unit="line"),
    changed("manifest", "another chunk than the header", "header-other", window=1 << 20, **within("log", chunk=1 << 17)),
    changed("manifest", "another root than the checkpoint", "checkpoint-other-tree", **within("log", root=OTHER)),
    changed("manifest", "another algorithm", "claim-log", **within("log", alg="md5")),
    changed("manifest", "a size and no root", "claim-log", **within("log", root=None)),
]  # fmt: skip
ACKS: Final = [
    *of_signature("ack"),
    *of_claims("ack"),
    changed("ack", "for somebody else", "ack-audience", aud=STRANGER),
    changed("ack", "for another manifest", "ack-manifest", man=OTHER),
    changed("ack", "for another receipt", "ack-receipt", rcpt=OTHER),
    changed("ack", "for a receipt to come", "ack-gap", seq=lambda t: t.claims["seq"] + 1),
    changed("ack", "out of the future", "ack-ahead", iat=lambda t: t.claims["iat"] + 1000),
    changed("ack", "more credit than was promised", "ack-credit", credit=lambda t: t.claims["credit"] + 1),
    changed("ack", "less credit than was promised", "ack-credit", credit=lambda t: t.claims["credit"] - 1),
    changed("ack", "credit below what was signed for", "ack-credit", st="quota", credit=0),
]


def entry(name: str, code: str, **members: Any) -> Lie:
    """A header leaf with other members; None takes one out."""

    def told(truth: Truth) -> bytes:
        said = orjson.loads(truth.entry) | members
        return rfc8785.dumps({key: value for key, value in said.items() if value is not ...})

    return Lie("header", name, code, told)


HEADERS: Final = [
    Lie("header", "nothing", "header-json", lambda _: b""),
    Lie("header", "no JSON", "header-json", lambda t: t.entry[:-1]),
    Lie("header", "a list", "header-json", lambda _: b"[]"),
    Lie("header", "a space more", "header-spelling", lambda t: t.entry + b" "),
    Lie("header", "in another order", "header-spelling", lambda t: orjson.dumps(dict(reversed(orjson.loads(t.entry).items())))),
    entry("a member more", "header-members", x=1),
    entry("a member less", "header-members", salt=...),
    entry("another version", "header-version", v=2),
    entry("another algorithm", "header-alg", alg="md5"),
    entry("a chunk that is no power of two", "header-chunk", chunk=100_000),
    entry("a chunk that is too small", "header-chunk", chunk=1024),
    entry("a size below zero", "header-size", size=-1),
    entry("no media type", "header-media", mediaType="two\nlines"),
    entry("a unit that nobody counts", "header-unit", recordUnit="kilo"),
    entry("a short salt", "header-salt", salt="AAAA"),
    entry("another salt", "header-leaf", salt=b64(b"x" * 32)),
    entry("another media type", "header-leaf", mediaType="text/csv"),
    entry("live data", "header-other", size=None),
    entry("another size", "header-other", size=5),
    entry("another chunk", "header-other", chunk=1 << 18),
]


def note(name: str, code: str, text: Callable[[Truth], str], by: str = "") -> Lie:
    """A checkpoint with another text, truly signed under the name of the log, by somebody else if `by` says so."""

    def told(truth: Truth) -> bytes:
        key = key_of(by or truth.by)
        signer = notes.Signer(notes.VerifierKey(truth.origin, key.key.public), lambda message: jws.crypto_sign(message, key.secret)[:64])
        return notes.signed(text(truth), [signer])

    return Lie("checkpoint", name, code, told)


def said(truth: Truth, *, origin: str | None = None, size: object = None, root: str | None = None) -> str:
    """The text of a checkpoint."""
    root64 = base64.b64encode(truth.root).decode() if root is None else root
    return f"{truth.origin if origin is None else origin}\n{truth.size if size is None else size}\n{root64}\n"


def true_note(truth: Truth) -> bytes:
    return note("", "", said).told(truth)


def resigned(name: str, code: str, change: Callable[[bytes], bytes]) -> Lie:
    """The true note with its bytes changed."""
    return Lie("checkpoint", name, code, lambda t: change(true_note(t)))


def _line(note_: bytes, at: int, line: bytes) -> bytes:
    lines = note_.split(b"\n")
    lines[at] = line
    return b"\n".join(lines)


CHECKPOINTS: Final = [
    resigned("nothing", "note-newline", lambda _: b""),
    resigned("no signature", "note-separator", lambda n: n.partition(b"\n\n")[0] + b"\n"),
    resigned("an empty signature", "note-unsigned", lambda n: n.partition(b"\n\n")[0] + b"\n\n"),
    resigned("cut short", "note-newline", lambda n: n[:-1]),
    resigned("a control character", "note-control", lambda n: b"\a" + n),
    resigned("a line that is no signature", "signature-line", lambda n: n + b"hello\n"),
    resigned("a signature that is no base64", "signature-base64", lambda n: n.partition(b"\n\n")[0] + b"\n\n" + "— a !!!!\n".encode()),
    resigned("a signature by nobody", "signature-untrusted", lambda n: n.partition(b"\n\n")[0] + b"\n\n" + "— a AAAAAAAAAAAA\n".encode()),
    resigned("another size under the signature", "signature-invalid", lambda n: _line(n, 1, b"5")),
    resigned("another root under the signature", "signature-invalid", lambda n: _line(n, 2, base64.b64encode(b"x" * 32))),
    resigned("another log under the signature", "signature-invalid", lambda n: _line(n, 0, b"x.example/log")),
    resigned("a line more under the signature", "signature-invalid", lambda n: n.replace(b"\n\n", b"\nmore\n\n", 1)),
    note("by a stranger", "signature-untrusted", said, STRANGER),
    note("of another log", "checkpoint-other-origin", lambda t: said(t, origin="hospital.example/ds/other")),
    note("of a shorter tree", "checkpoint-other-tree", lambda t: said(t, size=2)),
    note("of a longer tree", "checkpoint-other-tree", lambda t: said(t, size=t.size + 1)),
    note("of another tree", "checkpoint-other-tree", lambda t: said(t, root=base64.b64encode(b"x" * 32).decode())),
    note("no root", "checkpoint-lines", lambda t: f"{t.origin}\n{t.size}\n"),
    note("no origin", "checkpoint-origin", lambda t: said(t, origin="")),
    note("a size with a zero before it", "checkpoint-size", lambda t: said(t, size=f"0{t.size}")),
    note("a size below zero", "checkpoint-size", lambda t: said(t, size=-1)),
    note("a size that is no number", "checkpoint-size", lambda t: said(t, size="many")),
    note("a root that is no base64", "checkpoint-root", lambda t: said(t, root="?" * 44)),
    note("a short root", "checkpoint-root-length", lambda t: said(t, root="AAAA")),
    note("an empty tree with a root", "checkpoint-root-empty", lambda t: said(t, size=0)),
    note("an empty line", "checkpoint-extension", lambda t: said(t) + "\nx\n"),
]


# The truth is the partial tile of the edge.
TILES: Final = [
    Lie("tile", "zeros", "tile-root", lambda t: bytes(len(t.entry))),
    Lie("tile", "a bit changed", "tile-root", lambda t: bytes([t.entry[0] ^ 1]) + t.entry[1:]),
    Lie("tile", "the last bit changed", "tile-root", lambda t: t.entry[:-1] + bytes([t.entry[-1] ^ 1])),
    Lie("tile", "two hashes exchanged", "tile-root", lambda t: t.entry[32:64] + t.entry[:32] + t.entry[64:]),
    Lie("tile", "a hash twice", "tile-root", lambda t: t.entry[:32] + t.entry[:32] + t.entry[64:]),
    Lie("tile", "backwards", "tile-root", lambda t: b"".join(t.entry[at : at + 32] for at in reversed(range(0, len(t.entry), 32)))),
    Lie("tile", "nothing", "tile-length", lambda _: b""),
    Lie("tile", "a hash less", "tile-length", lambda t: t.entry[:-32]),
    Lie("tile", "a byte less", "tile-length", lambda t: t.entry[:-1]),
    Lie("tile", "a hash more", "tile-length", lambda t: t.entry + bytes(32)),
]
# The truth is a whole tile of the lowest level, below the edge.
LOWER_TILES: Final = [Lie("lower tile", lie.name, lie.code.replace("tile-root", "tile-mismatch"), lie.told) for lie in TILES[:9]]
LIES: Final = [*RECEIPTS, *FIRST_RECEIPTS, *MANIFESTS, *ACKS, *HEADERS, *CHECKPOINTS, *TILES, *LOWER_TILES]
LIES_OF: Final = {about: [lie for lie in LIES if lie.about == about] for about in dict.fromkeys(lie.about for lie in LIES)}


def lines() -> Iterator[str]:
    """The table: what each lie is about, the code that refuses it, and the lie; and how many there are of each kind."""
    for lie in LIES:
        yield f"{lie.about:<14} {lie.code:<26} {lie.name}"
    for about, lies in LIES_OF.items():
        yield f"{about}: {len(lies)} lies, {len({lie.code for lie in lies})} codes"
    yield f"{len(LIES)} lies, {len({lie.code for lie in LIES})} codes; each is told at a real door by `tests/faults/test_lies.py`"
