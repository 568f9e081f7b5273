"""What provider and consumer sign about a flow: manifest, receipt and ack, as values and as claims of a JWS. Pure.

Each value knows the `typ` of its JWS, turns into claims by `claims()` and comes back by `of(claims)`, which is strict: every claim of
the kind is there, nothing else is, and each has one spelling. Hashes are SHA-256 in base64url without padding, times whole POSIX
seconds, numbers whole and at most 2^53-1. A JWS is named by the SHA-256 of its compact form (`digest`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any, ClassVar, Final, Protocol, Self, TypeVar

from connector.errors import Unauthenticated
from connector.metering import claims as read
from connector.metering.codes import refused
from connector.metering.content import ALGORITHM, SIZE_MAX, UNITS, VERSION, Layout, is_chunk, write_bytes
from connector.metering.counts import COUNTS, Counts, counts_of
from connector.metering.ranges import Ranges
from connector.signatures import jws
from connector.values import Value

WINDOW_BYTES: Final = 16 * 1024 * 1024  # W: a receipt is signed for half of the credit, and for a window at least
PENDING_SECONDS: Final = 900  # an object may be on its way, over all attempts
CREDIT_WINDOWS: Final = 8  # K: hides the latency of a receipt and of its commit; at most K·W can ever be disputed
CREDIT_WINDOWS_MAX: Final = 64
STATES: Final = ("partial", "complete", "rejected", "aborted")  # of a receipt
GRANTS: Final = ("ok", "quota", "revoked", "suspended")  # of an ack
AFTER: Final = ("write", "fsync")  # what the consumer had done with the leaves before it signed


class Checkpoint(Value):
    """A state of a content log that the provider has signed: `size` in leaves, the header included, and the `root` over them."""

    size: int
    root: bytes

    def claims(self) -> dict[str, Any]:
        return {"size": self.size, "root": write_bytes(self.root)}


class Rejected(Value):
    """A leaf that failed, and the hash that its bytes had instead."""

    leaf: int
    got: bytes

    def claims(self) -> dict[str, Any]:
        return {"leaf": self.leaf, "got": write_bytes(self.got)}


class ContentLog(Value):
    """The log of a flow as its manifest names it: `origin` of its checkpoints, `chunk` in bytes, and `root` and `size` in bytes, both None
    while it is live."""

    origin: str
    chunk: int
    root: bytes | None = None
    size: int | None = None

    @property
    def layout(self) -> Layout | None:
        """Where the bytes of finite data lie; None while the log is live."""
        return None if self.size is None else Layout(self.size, self.chunk)

    def claims(self) -> dict[str, Any]:
        root = None if self.root is None else write_bytes(self.root)
        return {"origin": self.origin, "alg": ALGORITHM, "chunk": self.chunk, "root": root, "size": self.size}


def _log(origin: str, alg: str, chunk: int, root: bytes | None, size: int | None) -> ContentLog:
    if (root is None) != (size is None):
        raise ValueError(alg)
    return ContentLog(origin, chunk, root, size)


def _chunk(value: object) -> int:
    if not is_chunk(value):
        raise ValueError
    return read.number(value)


LOG: Final[read.Table] = {
    "origin": read.text(read.ORIGIN),
    "alg": read.one_of(ALGORITHM),
    "chunk": _chunk,
    "root": read.optional(read.digest),
    "size": read.optional(read.number),
}
INSTANT: Final = read.number
MANIFEST: Final[read.Table] = {
    "v": read.between(VERSION, VERSION),
    "iss": read.did,
    "aud": read.did,
    "iat": INSTANT,
    "exp": INSTANT,
    "agr": read.id_,
    "pol": read.digest,
    "tp": read.part({"consumerPid": read.id_, "providerPid": read.id_}, lambda **pids: (pids["consumerPid"], pids["providerPid"])),
    "ds": read.dataset,
    "snap": read.id_,
    "log": read.part(LOG, _log),
    "unit": read.one_of(*UNITS),
    "window": read.between(1),
    "credit": read.between(1, CREDIT_WINDOWS_MAX),
    "required": read.flag,
    "receipts": read.url,
    "prices": read.optional(read.digest),
}


class Manifest(Value):
    """What the provider promises of a flow, signed before its first byte.

    `policy` is the SHA-256 of the agreed policy's JCS form, `prices` that of the price terms. `unit` says what a record is. The provider
    sends at most `credit_windows` of `window_bytes` beyond what was acknowledged; if receipts are `required`, nothing before the first.
    `receipts` is the URL that takes them. What was verified until `expires` can be receipted at any time.
    """

    TYP: ClassVar[str] = "dp-manifest+jwt"

    issuer: str
    audience: str
    issued: int
    expires: int
    agreement: str
    policy: bytes
    consumer_pid: str
    provider_pid: str
    dataset: str
    snapshot: str
    log: ContentLog
    unit: str
    receipts: str
    window_bytes: int = WINDOW_BYTES
    credit_windows: int = CREDIT_WINDOWS
    required: bool = False
    prices: bytes | None = None

    @property
    def credit_bytes(self) -> int:
        """How much may be unacknowledged at once."""
        return self.window_bytes * self.credit_windows

    def claims(self) -> dict[str, Any]:
        return {
            "v": VERSION,
            "iss": self.issuer,
            "aud": self.audience,
            "iat": self.issued,
            "exp": self.expires,
            "agr": self.agreement,
            "pol": write_bytes(self.policy),
            "tp": {"consumerPid": self.consumer_pid, "providerPid": self.provider_pid},
            "ds": self.dataset,
            "snap": self.snapshot,
            "log": self.log.claims(),
            "unit": self.unit,
            "window": self.window_bytes,
            "credit": self.credit_windows,
            "required": self.required,
            "receipts": self.receipts,
            "prices": _hash(self.prices),
        }

    @classmethod
    def of(cls, claims: Mapping[str, Any]) -> Self:
        """Read the claims of a manifest. Raises MeterRefused."""
        got = read.read(claims, MANIFEST)
        if got["exp"] <= got["iat"]:
            raise refused("claim-exp")
        # A window that ends within a leaf would be one whose last leaf nobody can verify.
        if got["window"] % got["log"].chunk or got["window"] * got["credit"] > SIZE_MAX:
            raise refused("claim-window")
        consumer_pid, provider_pid = got["tp"]
        parties = got["iss"], got["aud"], got["iat"], got["exp"], got["agr"], got["pol"], consumer_pid, provider_pid
        data = got["ds"], got["snap"], got["log"], got["unit"], got["receipts"]
        return cls(*parties, *data, got["window"], got["credit"], got["required"], got["prices"])


CHECKPOINT: Final = read.part({"size": read.between(1), "root": read.digest}, Checkpoint)
RECEIPT: Final[read.Table] = {
    "iss": read.did,
    "aud": read.did,
    "jti": read.jti,
    "iat": INSTANT,
    "man": read.digest,
    "seq": read.between(1),
    "prev": read.optional(read.digest),
    "ranges": read.ranges,
    **COUNTS,
    "cp": read.optional(CHECKPOINT),
    "st": read.one_of(*STATES),
    "after": read.one_of(*AFTER),
    "rej": read.optional(read.part({"leaf": read.number, "got": read.digest}, Rejected)),
    "why": read.optional(read.text(read.WHY)),
    "led": read.optional(read.note),
}


class Receipt(Value):
    """What the consumer has verified, signed. `sequence` counts from 1 and `previous` is the digest of the receipt before.

    `ranges` are all leaves verified so far and `counts` what they come to, both cumulative; `checkpoint` is what they were verified
    against. `after` says what a crash leaves of them: `write` survives the end of a process, `fsync` the loss of power too.
    `rejected` goes with the state of that name, `reason` with aborted. `ledger` is the consumer's newest signed checkpoint.
    """

    TYP: ClassVar[str] = "dp-receipt+jwt"

    issuer: str
    audience: str
    id: str
    issued: int
    manifest: bytes
    sequence: int
    previous: bytes | None
    ranges: Ranges
    counts: Counts
    checkpoint: Checkpoint | None
    state: str = "partial"
    after: str = "fsync"
    rejected: Rejected | None = None
    reason: str | None = None
    ledger: str | None = None

    def claims(self) -> dict[str, Any]:
        return {
            "iss": self.issuer,
            "aud": self.audience,
            "jti": self.id,
            "iat": self.issued,
            "man": write_bytes(self.manifest),
            "seq": self.sequence,
            "prev": _hash(self.previous),
            "ranges": [list(each) for each in self.ranges],
            **self.counts.claims(),
            "cp": None if self.checkpoint is None else self.checkpoint.claims(),
            "st": self.state,
            "after": self.after,
            "rej": None if self.rejected is None else self.rejected.claims(),
            "why": self.reason,
            "led": self.ledger,
        }

    @classmethod
    def of(cls, claims: Mapping[str, Any]) -> Self:
        """Read the claims of a receipt. Raises MeterRefused."""
        got = read.read(claims, RECEIPT)
        if (got["prev"] is None) != (got["seq"] == 1):
            raise refused("claim-prev")
        if (got["rej"] is None) == (got["st"] == "rejected"):
            raise refused("claim-rej")
        if got["why"] is not None and got["st"] != "aborted":
            raise refused("claim-why")
        chain = got["iss"], got["aud"], got["jti"], got["iat"], got["man"], got["seq"], got["prev"]
        return cls(*chain, got["ranges"], counts_of(got), got["cp"], got["st"], got["after"], got["rej"], got["why"], got["led"])


ACK: Final[read.Table] = {
    "iss": read.did,
    "aud": read.did,
    "iat": INSTANT,
    "man": read.digest,
    "rcpt": read.digest,
    "seq": read.between(1),
    "idx": read.optional(read.number),
    "credit": read.number,
    "st": read.one_of(*GRANTS),
    "calls": read.number,
    "us": read.number,
    "led": read.optional(read.note),
}


class Ack(Value):
    """The provider's answer to a receipt, signed: it has it, at `index` of its ledger, and will send up to `credit_bytes` in all.

    `calls` and `microseconds` are what the provider has counted itself.
    """

    TYP: ClassVar[str] = "dp-ack+jwt"

    issuer: str
    audience: str
    issued: int
    manifest: bytes
    receipt: bytes
    sequence: int
    index: int | None
    credit_bytes: int
    state: str = "ok"
    calls: int = 0
    microseconds: int = 0
    ledger: str | None = None

    def claims(self) -> dict[str, Any]:
        return {
            "iss": self.issuer,
            "aud": self.audience,
            "iat": self.issued,
            "man": write_bytes(self.manifest),
            "rcpt": write_bytes(self.receipt),
            "seq": self.sequence,
            "idx": self.index,
            "credit": self.credit_bytes,
            "st": self.state,
            "calls": self.calls,
            "us": self.microseconds,
            "led": self.ledger,
        }

    @classmethod
    def of(cls, claims: Mapping[str, Any]) -> Self:
        """Read the claims of an ack. Raises MeterRefused."""
        return cls(*read.read(claims, ACK).values())


class Signed(Protocol):
    """One of the kinds of objects."""

    TYP: ClassVar[str]

    @classmethod
    def of(cls, claims: Mapping[str, Any]) -> Self: ...


O = TypeVar("O", bound=Signed)  # noqa: E741 - an object
# (JWS, typ) -> its claims, for one issuer and one time: `Identity.read` or `jws.read` with both filled in. Raises Unauthenticated.
Read = Callable[[str, str], Mapping[str, Any]]


def opened(kind: type[O], token: str, proven: Read) -> O:
    """The object in a JWS that somebody else has sent. Raises MeterRefused: with a `jws-` code if `proven` refuses it."""
    try:
        claims = proven(token, kind.TYP)
    except Unauthenticated as error:
        raise refused(f"jws-{error.fault}") from None
    return kind.of(claims)


def pending(read_at: Callable[[float], Mapping[str, Any]], token: str, now: float) -> Mapping[str, Any]:
    """The claims of an object that may have been on its way while its key was replaced. `read_at(at)` reads it by a key that is valid at
    `at` (POSIX seconds), and raises Unauthenticated.

    A key that has ended still proves what says (`iat`) that it was signed while the key was valid, and at most PENDING_SECONDS ago: as
    long as a transfer waits for its other side. Older objects are refused, as `iat` is the signer's own word: with a key that has ended
    long ago, and may be in other hands since, nobody signs anything any more. A key that is revoked ends at an instant that may lie before.
    """
    try:
        return read_at(now)
    except Unauthenticated as error:
        if error.fault != "key-ended":
            raise
        signed = jws.claims_of(token).get("iat")
        if type(signed) is not int or not now - PENDING_SECONDS <= signed <= now:
            raise
        return read_at(signed)


def kept(kind: type[O], token: str) -> O:
    """The object in a JWS that was `opened` before it was stored, or that is ours: its signature is not looked at again. Raises
    MeterRefused."""
    try:
        return kind.of(jws.claims_of(token))
    except Unauthenticated as error:
        raise refused(f"jws-{error.fault}") from None


@lru_cache(maxsize=1024)  # each receipt of a flow is judged by the same manifest
def manifest_of(token: str) -> Manifest:
    """The manifest that was stored. Raises MeterRefused."""
    return kept(Manifest, token)


@lru_cache(maxsize=64)  # it is looked at for its instant, and then read for what it says
def ack_of(token: str) -> Ack:
    """The ack that was stored. Raises MeterRefused."""
    return kept(Ack, token)


@lru_cache(maxsize=64)  # a receipt is named by its judge, its row, its evidence, its ack and the one that follows
def digest(token: str) -> bytes:
    """By which an object is named: SHA-256 of its compact JWS."""
    return sha256(token.encode("ascii")).digest()


def _hash(value: bytes | None) -> str | None:
    return None if value is None else write_bytes(value)
