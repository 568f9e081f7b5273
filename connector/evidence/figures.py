"""What accounts, statements and the invoice say of transfers, against the receipts that they rest on. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from typing import Any, Final

import orjson

from connector.errors import MeterRefused
from connector.evidence.case import AHEAD_SECONDS, Case, Object
from connector.evidence.flows import DIGEST_BYTES, Flows
from connector.evidence.members import COUNTED_FROM, Member
from connector.metering.chain import STATUS
from connector.metering.closing import REFUSED, Closing, ClosingAck, demand_answer, first, instant_of
from connector.metering.content import read_bytes, write_bytes
from connector.metering.counts import NOTHING, Counts, counts_of, unsigned_time
from connector.metering.objects import opened

BESIDE: Final = frozenset({"digest", "left_out", "preliminary"})  # of an invoice, what its digest is not of: one side alone knows it


def check(case: Case, found: Flows) -> None:
    """All of it."""
    for member in case.of("transfer"):
        _account(case, found, member)
    pids = {str(member.value["providerPid"]) for member in case.of("transfer")}
    for statement in found.statements:
        _statement(case, found, statement, pids)
    _closings(case, found)
    for number, member in enumerate(case.of("invoice")):
        if number:
            case.fault("invoice-twice", member)
        _invoice(case, found, member)


def _account(case: Case, found: Flows, at: Member) -> None:
    """Whether the account is what its own receipt makes of it. Receipts that came while the file was written may go beyond it."""
    if (said := at.value["account"]) is None:
        return
    signed = said["sequence"] > 0
    if signed != (said["attested"] == "both") and not (signed and case.exporter == case.consumer and said["ack"] is None):
        case.fault("account-attested", at, "/account/attested")
    if not said["sequence"]:
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


def _invoice(case: Case, found: Flows, at: Member) -> None:
    said = {name: value for name, value in at.value["document"].items() if name not in BESIDE}
    if at.value["document"].get("digest") != _named(said):
        case.fault("invoice-digest", at, "/document/digest")
    agreed = case.agreement.value
    expected = (agreed["id"], agreed["provider"], agreed["consumer"], agreed["dataset"])
    if tuple(said.get(name) for name in ("agreement", "provider", "consumer", "dataset")) != expected:
        case.fault("invoice-agreement", at, "/document/agreement")
    if said.get("agreement_digest") != agreed["policy"]:
        case.fault("invoice-policy", at, "/document/agreement_digest")
    if (closed := said.get("closed")) is not None and not _ends(case, found, closed):
        case.fault("invoice-closed", at, "/document/closed")
    billed: set[object] = set()
    for number, flow in enumerate(_list(said.get("flows"))):
        pointer, transfer = f"/document/flows/{number}", str(flow.get("transfer"))
        if transfer in billed:
            case.fault("invoice-flow", at, f"{pointer}/transfer")
        billed.add(transfer)
        if (flow.get("receipt") is not None) != (flow.get("attested") == "both"):
            case.fault("invoice-attested", at, f"{pointer}/attested")
        if flow.get("receipt") is None:
            continue
        receipt = found.receipts.get(_digest(flow["receipt"]))
        if receipt is None or receipt.value.sequence != flow.get("sequence"):
            case.fault("invoice-receipt", at, f"{pointer}/receipt")
        elif flow.get("counts_so_far") != receipt.value.counts.claims():
            case.fault("invoice-counts", at, f"{pointer}/counts_so_far")
        elif not _beyond(found, receipt, flow):
            case.fault("invoice-beyond", at, f"{pointer}/beyond")
        elif not _is_of(found, receipt, flow):
            case.fault("invoice-flow", at, f"{pointer}/transfer")
        elif not _within(flow):
            case.fault("invoice-more", at, f"{pointer}/counts")
    for number, line in enumerate(lines := _list(said.get("lines"))):
        if not _follows(said, lines[: number + 1], line):
            case.fault("invoice-line", at, f"/document/lines/{number}")
    if not _adds_up(said):
        case.fault("invoice-total", at, "/document/total")


def billed(invoice: Member) -> dict[str, int]:
    """Up to which receipt an invoice bills each transfer (the provider's pids), 0 for what nobody has signed for."""
    flows = _list(invoice.value["document"].get("flows"))
    return {str(each.get("transfer")): number for each in flows if isinstance(number := each.get("sequence"), int)}


def _named(said: dict[str, Any]) -> str | None:
    """The digest of an invoice; None for one that nobody writes, as it is too deep."""
    try:
        return write_bytes(sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).digest())
    except TypeError:
        return None


def _ends(case: Case, found: Flows, said: Any) -> bool:
    """Whether what an invoice says of the end of an agreement is what the agreement says of it. Both know only what the other side has
    signed: the closing, or that it has taken the one of the exporter, and goes by that."""
    agreed = case.agreement.value
    by = case.exporter if agreed["closedBy"] == "us" else case.counterparty
    if not isinstance(said, dict) or agreed["closed"] is None:
        return False
    at = datetime.fromtimestamp(agreed["closed"], UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    known = [each for each in found.closings if each.value.issuer == by and not refuses(found, each)]
    taken = {closing: answer.value.ends for closing, answer in found.answered.items()}
    both = any(by == case.counterparty or taken.get(each.digest) == each.value.at for each in known)
    return (said.get("at"), said.get("by")) == (at, by) and (said.get("attested") != "both" or both)


def _beyond(found: Flows, receipt: Object, flow: dict[str, Any]) -> bool:
    """Whether what is billed beyond a receipt as the provider's word alone is the time that its ack has beyond it, and nothing else."""
    acks = found.flows[receipt.value.manifest].acks.get(receipt.digest, [])
    more = max((unsigned_time(receipt.value.counts.microseconds, ack.value.microseconds) for ack in acks), default=0)
    return bool(flow.get("beyond", NOTHING.claims()) == Counts(microseconds=more).claims())


def _is_of(found: Flows, receipt: Object, flow: dict[str, Any]) -> bool:
    """Whether what is billed with a receipt is of the transfer, and by the manifest, that this is of."""
    manifest = found.flows[receipt.value.manifest].manifest.value
    return (flow.get("transfer"), flow.get("manifest")) == (manifest.provider_pid, write_bytes(receipt.value.manifest))


def _within(flow: dict[str, Any]) -> bool:
    """Whether a flow counts no more in the period of an invoice than it has come to."""
    try:
        counts, so_far = counts_of(flow["counts"]), counts_of(flow["counts_so_far"])
        return counts.within(so_far + counts_of(flow["beyond"]) if "beyond" in flow else so_far)
    except (KeyError, TypeError, ValueError):
        return False


def _follows(said: dict[str, Any], lines: Sequence[dict[str, Any]], line: dict[str, Any]) -> bool:
    """Whether a line is, together with `lines` before it of the same price, for no more than the flows come to, by what both attest if it
    says so, and its amount is what its quantity comes to at its price. What a price has come to so far is rounded, so a line differs by one
    of the smallest unit at most."""
    try:
        amount, price, quantity, per = Decimal(line["amount"]), Decimal(line["unit_price"]), line["quantity"], line["per"]
        least = Decimal(1).scaleb(int(amount.as_tuple().exponent))
        if not all(isinstance(each, int) and not isinstance(each, bool) for each in (quantity, per)) or per <= 0:
            return False
        if (name := line["counted"]) is not None:
            flows, same = _list(said["flows"]), [each for each in lines if each["price"] == line["price"]]
            if line["attested"] == "both":
                flows, same = ([each for each in of if each.get("attested") == "both"] for of in (flows, same))
            counts = sum((counts_of(each["counts"]) for each in flows), NOTHING)
            if sum(each["quantity"] for each in same) > getattr(counts, str(name)):
                return False
        return bool(abs(amount * per - price * quantity) <= least * per)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
        return False


def _adds_up(said: dict[str, Any]) -> bool:
    """Whether lines add up to the total, and flows to the counts. Exact: decimal texts of one currency have as many digits."""
    try:
        amounts = sum((Decimal(line["amount"]) for line in _list(said.get("lines"))), Decimal(0))
        counted = sum((counts_of(flow["counts"]) for flow in _list(said.get("flows"))), NOTHING)
        return amounts == Decimal(said["total"]) and counted == counts_of(said["counts"])
    except (InvalidOperation, KeyError, TypeError, ValueError):
        return False


def _list(value: object) -> Sequence[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _digest(text: object) -> bytes:
    return read_bytes(text, DIGEST_BYTES) or b""
