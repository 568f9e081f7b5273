"""The consumer's side of the chain of receipts: the manifest that it accepts, the receipts that it signs, the acks that it gets. Pure.

The provider's side, and how both go together, is in `chain`.
"""

from __future__ import annotations

from typing import Final

from connector.errors import MeterRefused
from connector.metering import credit
from connector.metering.chain import AHEAD_SECONDS_MAX, CLOSED, STATUS, A, Account, Judged, Outcome, belongs, changed, dated, full_credit
from connector.metering.claims import RANGES_MAX
from connector.metering.codes import refused
from connector.metering.objects import Ack, Checkpoint, Manifest, Read, Receipt, Rejected, digest, kept, manifest_of, opened
from connector.metering.ranges import Ranges, limited, union
from connector.values import Value

NOT_READ: Final = b""


class Terms(Value):
    """What a consumer knows of a transfer before it sees the manifest: the parties, the ids, the SHA-256 of the agreed policy's JCS form,
    and the name of its prices (`metering_bills.terms`), None if it has none, NOT_READ where only the policy is there to go by."""

    provider: str
    consumer: str
    agreement: str
    policy: bytes
    consumer_pid: str
    provider_pid: str
    dataset: str
    prices: bytes | None = NOT_READ


def accept(token: str, terms: Terms, *, proven: Read, now: float) -> Manifest:
    """Judge a manifest, as the consumer: whether it is the provider's promise for this very transfer. Raises MeterRefused."""
    manifest = opened(Manifest, token, proven)
    checks = (
        ("manifest-issuer", manifest.issuer == terms.provider),
        ("manifest-audience", manifest.audience == terms.consumer),
        ("manifest-agreement", manifest.agreement == terms.agreement),
        ("manifest-policy", manifest.policy == terms.policy),
        ("manifest-transfer", (manifest.consumer_pid, manifest.provider_pid) == (terms.consumer_pid, terms.provider_pid)),
        ("manifest-dataset", manifest.dataset == terms.dataset),
        ("manifest-prices", terms.prices in (NOT_READ, manifest.prices)),
        ("manifest-ahead", manifest.issued <= now + AHEAD_SECONDS_MAX),
        ("manifest-ended", now <= manifest.expires),
    )
    for code, holds in checks:
        if not holds:
            raise refused(code)
    return manifest


def acceptable(token: str, *, proven: Read, now: float) -> bool:
    """Whether a consumer could accept a manifest now: it is read with a key that is valid, has not ended, and does not lie ahead, as one
    does that was signed before its provider's clock was set back."""
    try:
        manifest = opened(Manifest, token, proven)
    except MeterRefused:
        return False
    return now <= manifest.expires and manifest.issued <= now + AHEAD_SECONDS_MAX


def receipt_for(
    account: Account,
    verified: Ranges,
    *,
    log: credit.Log,
    checkpoint: Checkpoint | None,
    id: str,
    now: float,
    after: str,
    state: str = "partial",
    microseconds: int = 0,
    rejected: Rejected | None = None,
    reason: str | None = None,
    ledger: str | None = None,
) -> Receipt:
    """The next receipt over what was verified (and over what the last one covers), as the consumer, to be signed.

    `verified` are leaves whose data have got as far as `after` says. If they are in too many pieces, the largest are told. Counts that were
    told before never shrink, so the time may begin anew with a process. Raises MeterRefused: `receipt-pending` while the last one
    waits for its ack, `account-complete` or `account-disputed` when nothing follows.
    """
    if account.receipt and not account.ack:
        raise refused("receipt-pending")
    if account.status in CLOSED:
        raise refused(CLOSED[account.status])
    manifest = manifest_of(account.manifest)
    ranges = limited(union(verified, account.ranges), account.ranges, RANGES_MAX)
    told = account.counts
    return Receipt(
        issuer=manifest.audience,
        audience=manifest.issuer,
        id=id,
        issued=dated(manifest, now),
        manifest=digest(account.manifest),
        sequence=account.sequence + 1,
        previous=digest(account.receipt) if account.receipt else None,
        ranges=ranges,
        counts=credit.counted(log.measure, ranges, told.calls, max(microseconds, told.microseconds)),
        checkpoint=checkpoint,
        state=state,
        after=after,
        rejected=rejected,
        reason=reason,
        ledger=ledger,
    )


def issued(account: A, token: str, receipt: Receipt | None = None) -> A:
    """The account with a receipt that we have signed and that waits for its ack; `receipt` is what is in it, for whoever has that at hand.
    It is stored before the receipt is sent: after a crash the same one goes out again, and no other with its number. The credit is what the
    last ack gave until there is a new one."""
    receipt = receipt or kept(Receipt, token)
    changes = {"ranges": receipt.ranges, "counts": receipt.counts, "status": STATUS[receipt.state]}
    return changed(account, sequence=receipt.sequence, receipt=token, ack="", **changes)


def judge_ack(account: A, token: str, *, proven: Read, now: float) -> Judged[A]:
    """Judge an ack, as the consumer. `proven` reads what the provider of this transfer has signed."""
    if account.ack and token == account.ack:
        return Judged(Outcome.DUPLICATE, account, ack=token)
    try:
        ack = opened(Ack, token, proven)
        _answers(ack, account, now)
    except MeterRefused as error:
        outcome = Outcome.STALE if error.code == "ack-stale" else Outcome.REFUSED
        return Judged(outcome, account, error.code, error.message)
    return Judged(Outcome.ACCEPTED, changed(account, ack=token, credit_bytes=ack.credit_bytes, attested="both"), ack=token)


def _answers(ack: Ack, account: Account, now: float) -> None:
    """Whether it is the answer to our last receipt, with what was promised."""
    manifest = manifest_of(account.manifest)
    checks = (
        ("ack-issuer", ack.issuer == manifest.issuer),
        ("ack-audience", ack.audience == manifest.audience),
        ("ack-manifest", ack.manifest == digest(account.manifest)),
        ("ack-ahead", ack.issued <= dated(manifest, now) + AHEAD_SECONDS_MAX),
        ("ack-stale", ack.sequence >= account.sequence),
        ("ack-gap", ack.sequence <= account.sequence),
        ("ack-receipt", ack.receipt == digest(account.receipt)),
        ("ack-conflict", not account.ack),
    )
    for code, holds in checks:
        if not holds:
            raise refused(code)
    full = full_credit(manifest, account)
    if ack.credit_bytes != full and (ack.state == "ok" or not account.counts.bytes <= ack.credit_bytes <= full):
        raise refused("ack-credit")


def restored(account: A, receipt: str, ack: str, *, own: Read, proven: Read, now: float) -> A:
    """The account as the provider has kept it, for a consumer that has lost its own: the last receipt, by our own key (`own`), and its ack
    ("" if it was not answered yet: it is to be sent again).

    What they cover stays counted, and is not billed again when it is fetched again. What cannot be seen here is whether the provider has
    kept back a later one: a consumer that has lost everything trusts it with that. Raises MeterRefused, and nothing changes: with the code
    of the receipt or the ack at fault, or `restored-behind` if what is here is not older.
    """
    got = opened(Receipt, receipt, own)
    belongs(got, account, manifest_of(account.manifest))
    if got.sequence <= account.sequence:
        raise refused("restored-behind")
    if not ack:
        return issued(account, receipt)
    judged = judge_ack(issued(account, receipt), ack, proven=proven, now=now)
    if judged.outcome is not Outcome.ACCEPTED:
        raise MeterRefused(judged.message, judged.code)
    return judged.account
