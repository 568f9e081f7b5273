"""What accounts, statements and closings say, against the receipts and acks that they rest on. Pure."""

from __future__ import annotations

from connector.errors import MeterRefused
from connector.evidence.case import AHEAD_SECONDS, Case, Object
from connector.evidence.flows import DIGEST_BYTES, Flows
from connector.evidence.members import COUNTED_FROM, Member
from connector.metering.chain import STATUS
from connector.metering.closing import REFUSED, Closing, ClosingAck, demand_answer, first, instant_of
from connector.metering.content import read_bytes
from connector.metering.counts import NOTHING
from connector.metering.objects import opened


def check(case: Case, found: Flows) -> None:
    """All of it."""
    for member in case.of("transfer"):
        _account(case, found, member)
    pids = {str(member.value["providerPid"]) for member in case.of("transfer")}
    for statement in found.statements:
        _statement(case, found, statement, pids)
    _closings(case, found)


def _account(case: Case, found: Flows, at: Member) -> None:
    """Whether the account is what its own receipt makes of it. Receipts that came while the file was written may go beyond it."""
    if (said := at.value["account"]) is None:
        return
    signed = said["sequence"] > 0
    if signed != (said["attested"] == "both") and not (signed and case.exporter == case.consumer and said["ack"] is None):
        case.fault("account-attested", at, "/account/attested")
    if not said["sequence"]:
        if case.exporter == case.consumer and said["counts"] != NOTHING.claims():  # only its provider counts what nobody signs for
            case.fault("account-counts", at, "/account/counts")
        return
    receipt = found.receipts.get(_digest(said["receipt"]))
    if receipt is None or receipt.transfer != at.value["pid"]:
        case.fault("account-absent", at, "/account/receipt")
        return
    if receipt.value.sequence != said["sequence"]:
        case.fault("account-sequence", at, "/account/sequence")
    if receipt.value.counts.claims() != said["counts"]:
        case.fault("account-counts", at, "/account/counts")
    if said["status"] not in (STATUS[receipt.value.state], "disputed"):
        case.fault("account-status", at, "/account/status")
    acks = found.flows[receipt.value.manifest].acks.get(receipt.digest, [])
    if said["ack"] is not None and _digest(said["ack"]) not in [ack.digest for ack in acks]:
        case.fault("account-ack", at, "/account/ack")


def _statement(case: Case, found: Flows, at: Object, pids: set[str]) -> None:
    """Whether a statement is of the receipts in the file. One of the counterparty that is not accuses it: the exporter has to keep what it
    was sent, and the ledger counts all that is there. In a file without a count what it names may have been left out."""
    said, other = at.value, {case.provider: case.consumer, case.consumer: case.provider}
    accuses = said.issuer == case.counterparty and case.header.value["version"] >= COUNTED_FROM

    def wrong(code: str) -> None:
        if accuses:
            case.accuse(code, at.member)
        else:
            case.fault(code, at.member, "/jws")

    if said.audience != other[said.issuer]:
        wrong("statement-by")
    if said.agreement != case.agreement.value["id"]:
        wrong("object-agreement")
    for flow in said.flows:
        if flow.transfer not in pids:
            wrong("statement-transfer")
            continue
        if flow.manifest is not None and flow.manifest not in found.flows:
            wrong("statement-manifest")
            continue
        if flow.receipt is None:
            continue
        receipt = found.receipts.get(flow.receipt)
        if receipt is None or (receipt.value.sequence, receipt.value.manifest) != (flow.sequence, flow.manifest):
            wrong("statement-receipt")
        elif receipt.value.counts != flow.counts:
            wrong("statement-counts")


def _closings(case: Case, found: Flows) -> None:
    """Whether the agreement is closed at the instant that its parties have signed: that of the first of their closings. One that was signed
    anew, because the key of the first had ended, says the same instant."""
    agreed, other = case.agreement.value, {case.provider: case.consumer, case.consumer: case.provider}
    said: dict[str, int] = {}
    by_digest, instants = {at.digest: at for at in found.closings}, {(at.value.issuer, at.value.at) for at in found.closings}
    twice = {who for who in other if sum(issuer == who for issuer, _ in instants) > 1}
    acked = max((each.value.issued for each in found.acks), default=0)
    for at in found.closings:
        value = at.value
        if value.audience != other[value.issuer]:
            case.fault("closing-by", at.member, "/jws")
        if value.agreement != agreed["id"]:
            case.fault("object-agreement", at.member, "/jws")
        if said.setdefault(value.issuer, value.at) != value.at:
            case.accuse("closing-twice", at.member)
    for at in found.closing_acks:
        closing = by_digest.get(at.value.closing)
        if closing is None:
            case.fault("closing-ack-absent", at.member, "/jws")
        elif _answer(case, found, at, closing, said) and not _is_founded(case, at.value, closing.value, twice, acked):
            case.fault("closing-ack-unfounded", at.member, "/jws")
    standing = [at.value for at in found.closings if not refuses(found, at)]
    # Whose own closing was refused goes by the other's, which it has to show, and as long as there is none stays with its own.
    counts = first(standing or (at.value for at in found.closings if at.value.issuer == case.exporter), case.provider)
    if counts is None:
        return
    others = [each for each in standing if each.issuer == case.counterparty]
    said_by = [(each.at, "us" if each.issuer == case.exporter else "peer") for each in (counts, *others)]
    if agreed["closed"] is None or (instant_of(agreed["closed"]), agreed["closedBy"]) not in said_by:
        case.fault("closing-other", case.agreement, "/closed")


def _answer(case: Case, found: Flows, at: Object, closing: Object, said: dict[str, int]) -> bool:
    """Whether an answer to a closing says what follows from that; whether the closing in it is the one that its side has `said`
    (participant -> instant). Returns whether it is a refusal for which the exporter has to show why."""
    ack = at.value
    try:
        own = None if ack.own is None else opened(Closing, ack.own, case.reads(ack.issuer))
        demand_answer(ack, closing.token, closing.value, own, case.provider, case.header.value["at"])
    except MeterRefused as refused:
        case.refused(refused.code, refused.message, at.member, "/jws")
        return False
    if own is not None and said.setdefault(own.issuer, own.at) != own.at:
        case.accuse("closing-twice", at.member)
    if found.answered.setdefault(closing.digest, at).value.state != ack.state:
        case.accuse("closing-ack-twice", at.member)
    return bool(ack.state == REFUSED and ack.issuer == case.exporter)


def _is_founded(case: Case, ack: ClosingAck, closing: Closing, twice: set[str], acked: int) -> bool:
    """Whether something in the file of who has refused a closing bears out why: who has signed closings with different instants (`twice`),
    or when the last receipt was `acked` (POSIX seconds)."""
    if ack.why == "closing-twice":
        return closing.issuer in twice
    since = closing.seconds - AHEAD_SECONDS
    signed = closing.issuer == case.consumer and acked > since
    return ack.why != "closing-before" or signed or case.agreement.value["created"] > since


def refuses(found: Flows, closing: Object) -> bool:
    """Whether the other side has signed that it refuses a closing."""
    answer = found.answered.get(closing.digest)
    return answer is not None and answer.value.state == REFUSED


def _digest(text: object) -> bytes:
    return read_bytes(text, DIGEST_BYTES) or b""
