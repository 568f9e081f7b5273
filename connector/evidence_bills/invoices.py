"""What the invoice of an evidence file says, against the receipts and acks that it rests on and the prices of the agreement. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from hashlib import sha256
from math import inf
from typing import Any, Final

import orjson

from connector.evidence.case import Case, Object
from connector.evidence.figures import refuses
from connector.evidence.flows import DIGEST_BYTES, Flow, Flows
from connector.evidence.members import Member
from connector.evidence_bills import formed, priced
from connector.metering.content import read_bytes, write_bytes
from connector.metering.counts import DAY_SECONDS, NOTHING, Counts, counts_of, total, unsigned_time
from connector.metering_bills.currencies import exactly
from connector.metering_bills.invoice import ALONE, MILLISECOND, less
from connector.metering_bills.plans import PRICES_MAX
from connector.values import replace

AMOUNT: Final = re.compile(r"[+-]?[0-9]{1,80}(?:\.[0-9]{1,80})?")  # a price has 24 digits, and what is counted 16
LINES_MAX: Final = 3 * PRICES_MAX  # one for each price and each way in which what it is for is attested
BESIDE: Final = frozenset({"digest", "left_out", "preliminary"})  # of an invoice, what its digest is not of: one side alone knows it


def check(case: Case, found: Flows) -> None:
    """All of it."""
    for number, member in enumerate(case.of("invoice")):
        if number:
            case.fault("invoice-twice", member)
        before = len(case.found)
        _invoice(case, found, member)
        if len(case.found) == before:  # else what it comes to says nothing of its spelling
            formed.check(case, member)
        if len(case.found) == before:  # nor of its prices
            priced.check(case, found, member)


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
    for name, code in (("flows", "invoice-flow"), ("lines", "invoice-line")):
        if said.get(name) != _list(said.get(name)):
            case.fault(code, at, f"/document/{name}")
    _flows(case, found, at, said)
    if len(lines := _list(said.get("lines"))) > LINES_MAX:
        case.fault("invoice-line", at, "/document/lines")
    came_to = _came_to(said)
    for number, line in enumerate(lines[:LINES_MAX]):
        if not _follows(came_to, lines[: number + 1], line):
            case.fault("invoice-line", at, f"/document/lines/{number}")
    if not _adds_up(said):
        case.fault("invoice-total", at, "/document/total")


def _flows(case: Case, found: Flows, at: Member, said: dict[str, Any]) -> None:
    billed: set[object] = set()
    signed = _signed(case, found)
    for number, flow in enumerate(_list(said.get("flows"))):
        pointer, transfer = f"/document/flows/{number}", str(flow.get("transfer"))
        if transfer in billed:
            case.fault("invoice-flow", at, f"{pointer}/transfer")
            continue  # the receipts of a transfer are looked at once, and not with each of thousands of flows
        billed.add(transfer)
        if (flow.get("receipt") is not None) != (flow.get("attested") == "both"):
            case.fault("invoice-attested", at, f"{pointer}/attested")
        if flow.get("receipt") is None:
            if signed.get(transfer, -inf) < _instant(said.get("to"), inf) - 1:
                case.fault("invoice-alone", at, f"{pointer}/transfer")
            continue
        receipt = found.receipts.get(read_bytes(flow["receipt"], DIGEST_BYTES) or b"")
        if receipt is None or receipt.value.sequence != flow.get("sequence"):
            case.fault("invoice-receipt", at, f"{pointer}/receipt")
        elif not _is_of(found, receipt, flow):
            case.fault("invoice-flow", at, f"{pointer}/transfer")
        elif flow.get("counts_so_far") not in _attested(found, receipt):
            case.fault("invoice-counts", at, f"{pointer}/counts_so_far")
        elif not _beyond(found, receipt, flow, _instant(said.get("from"), -inf)):
            case.fault("invoice-beyond", at, f"{pointer}/beyond")
        elif not _within(flow):
            case.fault("invoice-more", at, f"{pointer}/counts")
        elif not _came(case, found, receipt, flow, said):
            case.fault("invoice-period", at, f"{pointer}/counts")


def _signed(case: Case, found: Flows) -> dict[str, float]:
    """Since when (POSIX seconds) a consumer has signed for something of each transfer of the file (the provider's pids), by the first ack.
    An ack of the second in which an invoice ends may have come after that was made."""
    since = {str(member.value["providerPid"]): inf for member in case.of("transfer")}
    for chain in found.flows.values():
        pid, acks = chain.manifest.value.provider_pid, (ack.value.issued for each in chain.acks.values() for ack in each)
        since[pid] = min(since.get(pid, inf), *acks, inf)
    return since


def by_word(invoice: Member) -> str:
    """How much of an invoice is owed by the provider's word alone; "" for what is no invoice."""
    said = invoice.value["document"]
    try:
        lines = [_exact(line["amount"]) for line in _list(said.get("lines")) if line["attested"] == ALONE]
        return exactly(sum(lines, Fraction(0)), said["currency"])
    except (KeyError, TypeError, ValueError):
        return ""


def billed(invoice: Member) -> dict[str, int]:
    """Up to which receipt an invoice bills each transfer (the provider's pids), 0 for what nobody has signed for."""
    flows = _list(invoice.value["document"].get("flows"))
    return {str(each.get("transfer")): number for each in flows if isinstance(number := each.get("sequence"), int)}


def _named(said: dict[str, Any]) -> str:
    """The digest of an invoice."""
    return write_bytes(sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).digest())


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


def _attested(found: Flows, receipt: Object) -> tuple[dict[str, int], ...]:
    """What both say that a transfer has come to: what is signed, or where a quota meters time, of that what its provider has counted."""
    acks, signed = found.flows[receipt.value.manifest].acks.get(receipt.digest, []), receipt.value.counts
    least = min((signed.microseconds, *(ack.value.microseconds for ack in acks)))
    return signed.claims(), replace(signed, microseconds=least).claims()


def _beyond(found: Flows, receipt: Object, flow: dict[str, Any], begins: float) -> bool:
    """Whether what is billed beyond a receipt as the provider's word alone is the time that its ack has beyond it, and nothing else; in a
    later period less what was billed so before."""
    chain, said = found.flows[receipt.value.manifest], flow.get("beyond", NOTHING.claims())
    more, earlier = _unsigned(chain, receipt), [beyond for beyond, _ in _before(chain, begins)] or [NOTHING]
    return any(said == less(more, each).claims() for each in earlier)


def _unsigned(chain: Flow, receipt: Object) -> Counts:
    """The time that the ack of a receipt has beyond it."""
    signed, acks = receipt.value.counts.microseconds, chain.acks.get(receipt.digest, [])
    return Counts(microseconds=max((unsigned_time(signed, ack.value.microseconds) for ack in acks), default=0))


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


def _came(case: Case, found: Flows, receipt: Object, flow: dict[str, Any], said: dict[str, Any]) -> bool:
    """Whether a flow is in a period that its ack is not after, and counts all but what it had come to before that, by a receipt that was
    acknowledged then; or, where there was none yet, by what its provider had counted alone. Where a consumer has lost receipts nobody knows
    what they said, but that it was no less than what is known, and that nothing had come before the transfer."""
    chain = found.flows[receipt.value.manifest]
    begins, ends = _instant(said.get("from"), -inf), _instant(said.get("to"), inf)
    acks = chain.acks.get(receipt.digest, [])
    if acks and all(ack.value.issued >= ends + MILLISECOND for ack in acks):
        return False
    so_far = counts_of(flow["counts_so_far"]) + _unsigned(chain, receipt)
    before, known = less(so_far, counts_of(flow["counts"])), list(_before(chain, begins))
    if before == NOTHING or any(before in whole for _, whole in known):
        return True
    if chain.lost and begins > chain.manifest.value.issued:
        found.forgotten.append(str(flow["transfer"]))
        possible = NOTHING.within(before) and replace(before, microseconds=0).within(so_far)
        return possible and all(any(each.within(before) for each in whole) for _, whole in known)
    if known or not _counted_alone(case, before, begins):
        return False
    found.alone.append(str(flow["transfer"]))
    return True


def _counted_alone(case: Case, before: Counts, begins: float) -> bool:
    """Whether a provider may have billed that by its own word before a period: it does so by whole days (UTC) since the signing. A consumer
    has no such word, and may not bill itself less by it."""
    days = [at // DAY_SECONDS for at in (case.agreement.value["created"], begins + MILLISECOND)]
    return case.exporter == case.provider and days[0] < days[1] and NOTHING.within(before)


def _before(chain: Flow, begins: float) -> Iterator[tuple[Counts, tuple[Counts, ...]]]:
    """What a flow had come to by each of its receipts that was acknowledged before a period: what of that nobody had signed for, and all of
    it, as `_attested`."""
    for receipts in chain.receipts.values():
        for signed in receipts:
            for ack in chain.acks.get(signed.digest, []):
                if ack.value.issued < begins + MILLISECOND:
                    counts, time = signed.value.counts, ack.value.microseconds
                    beyond = Counts(microseconds=unsigned_time(counts.microseconds, time))
                    yield beyond, (counts + beyond, replace(counts, microseconds=min(counts.microseconds, time)) + beyond)


def _instant(text: object, otherwise: float) -> float:
    """POSIX seconds; `otherwise` for what is no instant."""
    try:
        return datetime.fromisoformat(text).timestamp() if isinstance(text, str) else otherwise
    except (OverflowError, ValueError):
        return otherwise


def _came_to(said: dict[str, Any]) -> dict[bool, Counts]:
    """What all flows of an invoice come to, and (True) what those do that both attest; neither where that is not said."""
    try:
        flows = [(flow.get("attested") == "both", counts_of(flow["counts"])) for flow in _list(said["flows"])]
        return {False: total(each for _, each in flows), True: total(each for both, each in flows if both)}
    except (KeyError, TypeError, ValueError):
        return {}


def _follows(came_to: Mapping[bool, Counts], lines: Sequence[dict[str, Any]], line: dict[str, Any]) -> bool:
    """Whether a line is, together with `lines` before it of the same price, for no more than the flows have come to (`_came_to`), by what
    both attest if it says so, and its amount is what its quantity comes to at its price. What a price has come to so far is rounded, so a
    line differs by one of the smallest unit at most."""
    try:
        amount, price, quantity, per = _exact(line["amount"]), _exact(line["unit_price"]), line["quantity"], line["per"]
        least = Fraction(1, 10 ** len(line["amount"].partition(".")[2]))
        if not all(isinstance(each, int) and not isinstance(each, bool) for each in (quantity, per)) or per <= 0:
            return False
        if (name := line["counted"]) is not None:
            both = line["attested"] == "both"
            same = [each for each in lines if each["price"] == line["price"] and (not both or each.get("attested") == "both")]
            if sum(each["quantity"] for each in same) > getattr(came_to[both], str(name)):
                return False
        return bool(abs(amount * per - price * quantity) <= least * per)
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _adds_up(said: dict[str, Any]) -> bool:
    """Whether lines add up to the total, and flows to the counts."""
    try:
        amounts = sum((_exact(line["amount"]) for line in _list(said.get("lines"))), Fraction(0))
        counted = sum((counts_of(flow["counts"]) for flow in _list(said.get("flows"))), NOTHING)
        return amounts == _exact(said["total"]) and counted == counts_of(said["counts"])
    except (KeyError, TypeError, ValueError):
        return False


def _exact(text: object) -> Fraction:
    """An amount, however many digits it has: a `Decimal` is rounded to 28. ValueError for what is no decimal of so many as any can have."""
    if not isinstance(text, str) or AMOUNT.fullmatch(text) is None:
        raise ValueError("this is no amount")
    return Fraction(text)


def _list(value: object) -> Sequence[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
