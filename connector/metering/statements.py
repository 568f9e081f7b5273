"""What one side counts of an agreement over a period, signed: the statement, as a value and as claims of a JWS. Pure.

Each side signs its own from its own records; where the consumer has signed receipts both come to the same, flow by flow, and `compare`
says which flow does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Self

from connector.errors import MeterRefused
from connector.metering import claims as read
from connector.metering.chain import Account
from connector.metering.codes import refused
from connector.metering.content import write_bytes
from connector.metering.counts import COUNTS, Counts, counts_of, total, unsigned_time
from connector.metering.objects import Ack, Receipt, digest, manifest_of
from connector.values import Value

FLOWS_MAX: Final = 128  # of one statement: it fits an entry of the ledger


class Flow(Value):
    """One transfer in a statement. `transfer` is the provider's pid; `manifest` and `receipt` are digests, both None and `sequence` 0
    where the consumer has signed nothing (`attested` provider-only)."""

    transfer: str
    manifest: bytes | None
    sequence: int
    receipt: bytes | None
    attested: str
    counts: Counts

    def claims(self) -> dict[str, Any]:
        signed = {"man": _hash(self.manifest), "seq": self.sequence, "rcpt": _hash(self.receipt), "attested": self.attested}
        return {"transfer": self.transfer, **signed, **self.counts.claims()}


FLOW: Final[read.Table] = {
    "transfer": read.id_,
    "man": read.optional(read.digest),
    "seq": read.number,
    "rcpt": read.optional(read.digest),
    "attested": read.one_of("both", "provider-only"),
    **COUNTS,
}


def _flow(**got: Any) -> Flow:
    signed = {got["seq"] > 0, got["rcpt"] is not None, got["attested"] == "both"}
    if len(signed) > 1 or (got["rcpt"] is not None and got["man"] is None):
        raise ValueError
    return Flow(got["transfer"], got["man"], got["seq"], got["rcpt"], got["attested"], counts_of(got))


def _flows(value: object) -> tuple[Flow, ...]:
    if not isinstance(value, list) or len(value) > FLOWS_MAX:
        raise ValueError
    flows = tuple(read.part(FLOW, _flow)(each) for each in value)
    if len({flow.transfer for flow in flows}) != len(flows):
        raise refused("flows-twice")
    return flows


STATEMENT: Final[read.Table] = {
    "iss": read.did,
    "aud": read.did,
    "jti": read.jti,
    "iat": read.number,
    "agr": read.id_,
    "from": read.number,
    "to": read.number,
    "flows": _flows,
    "totals": read.part(COUNTS, lambda **counts: counts_of(counts)),
    "led": read.optional(read.note),
    "peer": read.optional(read.note),
}


class Statement(Value):
    """What one side counts of an agreement over a period [`begins`, `ends`], signed: `flows` and their sum. `ledger` and `peer` are the
    newest checkpoints of both ledgers."""

    TYP: ClassVar[str] = "dp-statement+jwt"

    issuer: str
    audience: str
    id: str
    issued: int
    agreement: str
    begins: int
    ends: int
    flows: tuple[Flow, ...]
    ledger: str | None = None
    peer: str | None = None

    @property
    def totals(self) -> Counts:
        """The sums of all flows."""
        return total(flow.counts for flow in self.flows)

    def claims(self) -> dict[str, Any]:
        return {
            "iss": self.issuer,
            "aud": self.audience,
            "jti": self.id,
            "iat": self.issued,
            "agr": self.agreement,
            "from": self.begins,
            "to": self.ends,
            "flows": [flow.claims() for flow in self.flows],
            "totals": self.totals.claims(),
            "led": self.ledger,
            "peer": self.peer,
        }

    @classmethod
    def of(cls, claims: Mapping[str, Any]) -> Self:
        """Read the claims of a statement. Raises MeterRefused."""
        got = read.read(claims, STATEMENT)
        totals = got.pop("totals")
        if got["to"] < got["from"]:
            raise refused("claim-to")
        statement = cls(*got.values())
        if statement.totals != totals:
            raise refused("totals-differ")
        return statement


def flow_of(account: Account) -> Flow:
    """What this side counts of one transfer, for its statement. Raises MeterRefused if the manifest cannot be read."""
    manifest, signed = manifest_of(account.manifest), account.receipt
    attested = "both" if signed else "provider-only"
    name = digest(signed) if signed else None
    return Flow(manifest.provider_pid, digest(account.manifest), account.sequence, name, attested, account.counts)


def compare(theirs: Statement, own: Statement) -> None:
    """Whether both sides say the same. What is attested by the provider alone is not compared: there is nothing that both have signed, and
    the consumer need not have heard of it.

    Raises MeterRefused with a `statement-` code.
    """
    if (theirs.issuer, theirs.audience) != (own.audience, own.issuer):
        raise refused("statement-parties")
    if (theirs.agreement, theirs.begins, theirs.ends) != (own.agreement, own.begins, own.ends):
        raise refused("statement-agreement")
    if any(one is None or other is None for one, other in _apart(theirs, own).values()):
        raise refused("statement-flow")
    if _apart(theirs, own):
        raise refused("statement-differs")


def contradiction(theirs: Statement, own: Statement) -> str:
    """The code of how two statements contradict each other (`compare`), "" if they do not."""
    try:
        compare(theirs, own)
    except MeterRefused as refusal:
        return refusal.code
    return ""


def agreed_in(said: Statement) -> object:
    """What is compared of a statement: those of two sides for one period contradict each other (`compare`) if and only if it differs."""
    return frozenset((said.issuer, said.audience)), said.agreement, frozenset(flow for flow in said.flows if flow.attested == "both")


def compare_time(receipt: Receipt, ack: Ack) -> None:
    """Whether the time of a flow is signed for by both: two who sign the same say nothing of the provider's own, which stands in the ack
    of the receipt and is billed as its word alone where it is more than two clocks explain.

    Raises MeterRefused with the code `statement-time`.
    """
    if unsigned_time(receipt.counts.microseconds, ack.microseconds):
        raise refused("statement-time")


def contradicted(theirs: Statement, own: Statement) -> tuple[str, ...]:
    """The transfers (the provider's pids) of which both have signed, for the same number of receipts, what cannot both be. One that knows a
    later receipt than the other is only ahead."""
    pairs = _apart(theirs, own).items()
    return tuple(sorted(pid for pid, (one, other) in pairs if one is not None and other is not None and one.sequence == other.sequence))


def _apart(theirs: Statement, own: Statement) -> dict[str, tuple[Flow | None, Flow | None]]:
    """The flows that differ, as both have them, as far as either says that both have signed them."""
    one, other = ({flow.transfer: flow for flow in each.flows} for each in (theirs, own))
    pairs = {pid: (one.get(pid), other.get(pid)) for pid in one.keys() | other.keys()}
    return {pid: pair for pid, pair in pairs.items() if pair[0] != pair[1] and any(flow and flow.attested == "both" for flow in pair)}


def _hash(value: bytes | None) -> str | None:
    return None if value is None else write_bytes(value)
