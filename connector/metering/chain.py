"""The chain of receipts: what follows from a receipt, as the provider judges it. Pure.

A receipt is cumulative: it says all that was verified so far, names the one before by its digest, and takes its place. So loss and
reordering do no harm; what is repeated is recognised and answered the same; and two receipts with the same number are proof that
their signer has said two things. `judge` is total: it returns what is to be done, and never raises for anything that a peer has sent.

    provider                                             consumer (`chain_consumer`)
    judge(account, receipt)  -> account, to be stored    accept(manifest)
    answer(account)          -> ack, to be signed        receipt_for(account)      -> receipt, to be signed
    acked(account, ack)      -> account                  issued(account, receipt)  -> account, stored BEFORE the receipt is sent
                                                         judge_ack(account, ack)   -> account
                                                         restored(account, receipt, ack), if the provider has kept more

An ack is signed once: it is stored before it is sent, and sent again when its receipt comes again. A consumer signs no second receipt
while one waits for its ack; it sends the same one. In push the roles are the same and the messages go the other way: the consumer's
answer to a window is its receipt, and the provider's next request carries the ack.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from connector.errors import MeterRefused
from connector.metering import credit
from connector.metering.codes import refused
from connector.metering.counts import Counts, call
from connector.metering.objects import Ack, Manifest, Read, Receipt, Rejected, digest, kept, manifest_of, opened
from connector.metering.ranges import Ranges, covers, union
from connector.signatures import jws
from connector.values import Value, replace

AHEAD_SECONDS_MAX: Final = 300  # how far the clock of a participant may run ahead; order is by `seq`, never by time
SET_BACK_SECONDS: Final = 86_400  # by so much a clock may have been set back since a manifest, and its consumer still signs for its time
MICROSECONDS: Final = 1_000_000
# What a receipt makes of the account. A rejection or an abort ends nothing: the leaf may come right, the disk may be emptied.
STATUS: Final = {"partial": "open", "complete": "complete", "rejected": "rejected", "aborted": "aborted"}
CLOSED: Final = {"complete": "account-complete", "disputed": "account-disputed"}


class Account(Protocol):
    """How far the metering of a transfer has got: the part of `records.metering.Metered` that the chain reads and writes. On the
    provider's side an `ack` of "" means that the last receipt was accepted and not answered yet, on the consumer's that it was signed and
    not acknowledged yet."""

    @property
    def manifest(self) -> str: ...
    @property
    def sequence(self) -> int: ...
    @property
    def receipt(self) -> str: ...
    @property
    def ack(self) -> str: ...
    @property
    def ranges(self) -> Ranges: ...
    @property
    def counts(self) -> Counts: ...
    @property
    def credit_bytes(self) -> int: ...
    @property
    def status(self) -> str: ...


class Kept(Protocol):
    """A receipt as it is stored (`records.metering.Receipted`): `ack` is None if it is evidence only."""

    @property
    def sequence(self) -> int: ...
    @property
    def digest(self) -> bytes: ...
    @property
    def ack(self) -> str | None: ...


A = TypeVar("A", bound=Account)


class Outcome(StrEnum):
    """What became of a receipt or an ack."""

    ACCEPTED = "accepted"  # the account is another one: store it
    DUPLICATE = "duplicate"  # it is here already: nothing changes, and the answer is the same
    STALE = "stale"  # a later one is here: nothing changes, and the answer is the latest ack
    CONFLICT = "conflict"  # another one with this number is here: both are kept, the account is disputed
    REFUSED = "refused"  # it does not hold: nothing changes


class Judged(Value, Generic[A]):
    """What follows. `account` is the one to store (the same unless accepted or conflict); `code` and `message` say why it was not accepted
    ("" where it was); `ack` is the one to answer with, "" if there is none yet: make it with `answer`. `receipt` is what was read."""

    outcome: Outcome
    account: A
    code: str = ""
    message: str = ""
    ack: str = ""
    receipt: Receipt | None = None


def judge(
    account: A, token: str, *, proven: Read, log: credit.Log, now: float, known: Iterable[Kept] = (), watched: bool = False
) -> Judged[A]:
    """Judge a receipt, as the provider.

    `proven` reads what the consumer of this transfer has signed. `known` are stored receipts of this transfer: without them a receipt
    with an earlier number is stale; with them it is told whether it is one that was accepted (duplicate) or another (conflict). Where it is
    `watched`, `now` is when it came by our own clock, and it signs for no more time than has passed since its manifest, nor for more
    records than bytes. In evidence what was accepted once stays accepted.
    """
    manifest = manifest_of(account.manifest)
    try:
        # What was proven before it was stored is not proven by keys of now.
        receipt = kept(Receipt, token) if token == account.receipt else opened(Receipt, token, proven)
        belongs(receipt, account, manifest)
    except MeterRefused as error:
        return refusal(account, error)
    if receipt.sequence <= account.sequence:
        return _again(account, token, receipt, known)
    try:
        _next(receipt, account, manifest, now)
        measured(receipt, account, log, finite=manifest.log.root is not None)
        if watched:
            _possible(receipt.counts, dated(manifest, now) - manifest.issued)
    except MeterRefused as error:
        return refusal(account, error, receipt)
    after = changed(
        account,
        sequence=receipt.sequence,
        receipt=token,
        ack="",
        ranges=receipt.ranges,
        counts=receipt.counts,
        credit_bytes=credit.credit(manifest, receipt.counts),
        status=STATUS[receipt.state],
        attested="both",
    )
    return Judged(Outcome.ACCEPTED, after, receipt=receipt)


def belongs(receipt: Receipt, account: Account, manifest: Manifest) -> None:
    """Whether a receipt is of this account. Raises MeterRefused."""
    if receipt.issuer != manifest.audience:
        raise refused("receipt-issuer")
    if receipt.audience != manifest.issuer:
        raise refused("receipt-audience")
    if receipt.manifest != digest(account.manifest):
        raise refused("receipt-manifest")


def _again(account: A, token: str, receipt: Receipt, known: Iterable[Kept]) -> Judged[A]:
    """Whatever has a number that was used."""
    name = digest(token)
    accepted = {each.digest: each.ack for each in known if each.sequence == receipt.sequence and each.ack is not None}
    if receipt.sequence == account.sequence:
        accepted = {digest(account.receipt): account.ack}
    if name in accepted:
        return Judged(Outcome.DUPLICATE, account, ack=accepted[name] or "", receipt=receipt)
    if accepted:
        error = refused("sequence-conflict")
        return Judged(Outcome.CONFLICT, changed(account, status="disputed"), error.code, error.message, account.ack, receipt)
    error = refused("sequence-stale")
    return Judged(Outcome.STALE, account, error.code, error.message, account.ack, receipt)


def _next(receipt: Receipt, account: Account, manifest: Manifest, now: float) -> None:
    """Whether it is the one that follows the last."""
    if account.status in CLOSED:
        raise refused(CLOSED[account.status])
    if receipt.sequence != account.sequence + 1:
        raise refused("sequence-gap", expected=account.sequence + 1)
    if receipt.previous != (digest(account.receipt) if account.receipt else None):
        raise refused("previous-other")
    if receipt.issued > dated(manifest, now) + AHEAD_SECONDS_MAX:
        raise refused("receipt-ahead")
    if receipt.issued < manifest.issued - AHEAD_SECONDS_MAX:
        raise refused("receipt-before")
    if receipt.issued > manifest.expires:
        raise refused("manifest-ended")
    if account.receipt:
        last = jws.claims_of(account.receipt)  # all of it was read when it was accepted
        if receipt.id == last["jti"]:
            raise refused("receipt-id-used")
        if last["cp"] is not None and (receipt.checkpoint is None or receipt.checkpoint.size < last["cp"]["size"]):
            raise refused("checkpoint-older")


def dated(manifest: Manifest, now: float) -> int:
    """The time that an object which follows a manifest is dated with, and is not to lie far ahead of: now, and never before the manifest. A
    clock that says so was set back since; what it dated so would be refused for ever, as a receipt is signed once."""
    return max(int(now), manifest.issued)


def measured(receipt: Receipt, account: Account, log: credit.Log, *, finite: bool) -> None:
    """Whether a receipt says what its leaves come to, and whether the log has them. Raises MeterRefused."""
    size = 1 if receipt.checkpoint is None else receipt.checkpoint.size
    if receipt.checkpoint is None and (finite or receipt.ranges or receipt.rejected):
        raise refused("checkpoint-missing")
    if receipt.checkpoint is not None and (size > log.leaves or log.root(size) != receipt.checkpoint.root):
        raise refused("checkpoint-other")
    if receipt.ranges and receipt.ranges[-1][1] > size:
        raise refused("ranges-outside", limit=size)
    if not covers(receipt.ranges, account.ranges):
        raise refused("ranges-shrunk")
    counts, measured = receipt.counts, log.measure(receipt.ranges)
    for name in ("bytes", "records", "items"):
        right = getattr(measured, name)
        if right is not None and getattr(counts, name) != right:
            raise refused(f"{name}-differ", known=right)
    if counts.calls != (right := max(account.counts.calls, call(counts.bytes))):  # what was told before never shrinks
        raise refused("calls-differ", known=right)
    if not account.counts.within(counts):
        raise refused("counts-shrunk")
    if receipt.state == "complete" and not (log.ended and union(receipt.ranges, ((0, 1),)) == ((0, log.leaves),)):
        raise refused("complete-early")
    if receipt.rejected is not None:
        _rejected(receipt.rejected, receipt.ranges, size, log)


def _possible(counts: Counts, seconds: int) -> None:
    """Whether so much can have been counted in this time since the manifest, where nobody here has counted it. Raises MeterRefused."""
    if counts.records > counts.bytes:  # each has one byte at least: its line feed
        raise refused("records-differ", known=counts.bytes)
    if counts.microseconds > (seconds + SET_BACK_SECONDS) * MICROSECONDS:
        raise refused("time-ahead")


def _rejected(rejected: Rejected, ranges: Ranges, size: int, log: credit.Log) -> None:
    if rejected.leaf >= size:
        raise refused("rejected-outside")
    if covers(ranges, ((rejected.leaf, rejected.leaf + 1),)):
        raise refused("rejected-covered")
    if rejected.got == log.leaf(rejected.leaf):
        raise refused("rejected-true")


def answer(
    account: Account,
    *,
    now: float,
    index: int | None,
    state: str = "ok",
    limit_bytes: int | None = None,
    own: Counts | None = None,
    ledger: str | None = None,
) -> Ack:
    """The ack of the receipt that was accepted last, as the provider, to be signed and stored before it is sent.

    `index` is where the receipt stands in our ledger, `own` what we have counted of calls and time. In another `state` than ok nothing
    more is sent than was acknowledged, or up to `limit_bytes` in all.
    """
    manifest = manifest_of(account.manifest)
    own = own or Counts()
    grant = account.counts.bytes if limit_bytes is None else min(max(limit_bytes, account.counts.bytes), full_credit(manifest, account))
    return Ack(
        issuer=manifest.issuer,
        audience=manifest.audience,
        issued=dated(manifest, now),
        manifest=digest(account.manifest),
        receipt=digest(account.receipt),
        sequence=account.sequence,
        index=index,
        credit_bytes=full_credit(manifest, account) if state == "ok" else grant,
        state=state,
        calls=own.calls,
        microseconds=own.microseconds,
        ledger=ledger,
    )


def full_credit(manifest: Manifest, account: Account) -> int:
    """What the manifest promises after the last receipt."""
    return credit.credit(manifest, account.counts)


def acked(account: A, token: str, ack: Ack | None = None) -> A:
    """The account with the ack that we have signed; `ack` is what is in it, for whoever has that at hand."""
    return changed(account, ack=token, credit_bytes=(ack or kept(Ack, token)).credit_bytes)


def refusal(account: A, error: MeterRefused, receipt: Receipt | None = None) -> Judged[A]:
    """What follows from something that does not hold: nothing, and the latest ack says how far the account is."""
    return Judged(Outcome.REFUSED, account, error.code, error.message, account.ack, receipt)


def changed(account: A, **changes: Any) -> A:
    """The account with other values."""
    return cast(A, replace(cast(Any, account), **changes))
