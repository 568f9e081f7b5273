"""What an evidence file, sound as it may be, does not prove, as sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from connector.evidence.case import AHEAD_SECONDS, Case, Ledgers, Trust
from connector.evidence.flows import Flows
from connector.evidence.report import rfc3339
from connector.evidence_bills import invoices, priced, timed
from connector.metering.closing import instant_of
from connector.metering.codes import CODES
from connector.metering.counts import NOTHING
from connector.metering.statements import Statement, agreed_in, contradiction

CHOSEN: Final = (
    "what each side has chosen in what it has signed: snapshots and origins of content logs, ids of receipts, statements and closings, and"
    " when each was signed are its signer's word, which stands as it was signed"
)
LINES_MAX, LINE_CHARACTERS_MAX = 5, 80  # of extension lines that nobody knows


def texts(case: Case, signed: Flows, logs: Ledgers, trust: Trust, attested: int | None) -> list[str]:
    """All of it, of a file that was looked at with what a verifier has in `trust`; `attested` is when (POSIX seconds) its exporter has
    signed that it is all."""
    found = []
    if not trust.given:
        found.append("who the participants are: their keys are taken from the file; give their self-descriptions with --trust")
    if all(each.value.issuer != case.counterparty for each in signed.all):
        found.append("that the other party agreed: nothing in the file is signed by it; the agreement rests on the exporter's ledger alone")
    if signed.flows and not signed.receipts:
        found.append("that the consumer got anything: it has signed no receipt")
    if any(flow.last is not flow.acked for flow in signed.flows.values()):
        found.append("that the provider has got the last receipt: it has no ack")
    found.extend(_last(case, signed))
    found.extend(_contradicted(case, signed))
    if signed.objects:
        found.append(CHOSEN)
    if any(flow.manifest.value.unit != "none" for flow in signed.flows.values()):
        found.append("the number of records by the data themselves: both have signed for it, and the data are not in the file")
    if any(flow.manifest.value.log.root is None for flow in signed.flows.values()):
        found.append("the number of bytes of live data by the data themselves: both have signed for it")
    entries = sum(map(len, logs.entries.values()))
    seen = {log: max((each.size for each in logs.cosigned if each.origin == log), default=0) for log in logs.entries}
    unseen = sum(1 for log, indexes in logs.entries.items() for index in indexes if index >= seen[log])
    if not logs.newest:
        found.append("when anything was written down: there is no ledger in the file")
    elif unseen:
        found.append(f"that {unseen} of the {entries} entries were not written later: nobody else has cosigned the ledger with them in it")
    found.extend(_set_back(case, logs))
    for owner, lines in sorted(logs.unknown.items()):
        named = ", ".join(f"`{''.join(c for c in line if c.isprintable())[:LINE_CHARACTERS_MAX]}`" for line in lines[:LINES_MAX])
        more = f" and {len(lines) - LINES_MAX} more" if len(lines) > LINES_MAX else ""
        found.append(f"what {named}{more} means: extension lines of checkpoints of {owner} that nobody here knows")
    if str(case.agreement.value["negotiation"]) not in logs.facts:
        found.append("how the agreement came about: its negotiation is not in the ledger of the file")
    found.extend(_ended(case, signed))
    found.extend(_answered(logs))
    found.extend(_owed(case, signed, logs))
    found.extend(timed.texts(case, signed, logs))
    if logs.unheld:
        found.append(f"{', '.join(logs.unheld)}: the ledger holds no digest, it was written before there were any, or was erased")
    found.append(
        "what is neither signed nor in the ledger: names, roles and addresses of participants, by which ids the other side knows what"
        " runs, when the file was exported, when the agreement is to end, by which numbers its events go, whether its account has the last"
        " ack, what is disputed, and within some minutes when processes began and changed are the exporter's word alone"
    )
    word = "nobody has signed that they are"
    if attested is not None:
        word = f"it has signed at {rfc3339(attested)} that they are, which is its word"
    found.append(_left_out(case, logs, word))
    found.append(f"that the ledger of {case.counterparty} has the same: its own export shows")
    found.append("that the data are true, and that both parties did not agree to say something else than what happened")
    return found


def _last(case: Case, signed: Flows) -> Iterator[str]:
    """What is not proven of where the receipts end, and of those that are missing."""
    closed = _closed(case, signed)
    for flow in signed.flows.values():
        if flow.last is not None and flow.last.value.state != "complete":
            until, pid = closed.get(flow.last.digest), flow.manifest.value.provider_pid
            text = f"that receipt {flow.last.value.sequence} of transfer {pid} is the last: whoever exports may leave out those that follow"
            more = f"no statement of {case.counterparty} in the file names it as the last"
            if until is not None:
                more = f"{case.counterparty} has signed that it was the last before {rfc3339(until)}, and nothing of later"
            yield f"{text}, {more}, and the other side's export shows"
        if flow.lost:
            yield (
                f"{_numbers(flow.lost)} of transfer {flow.manifest.value.provider_pid}: {case.exporter} has lost them, and has had back"
                f" a later one, which says all that they said{'' if flow.acked is flow.last else ', and which nobody has answered yet'}"
            )


def _contradicted(case: Case, signed: Flows) -> Iterator[str]:
    """Of which periods the two sides have signed statements that contradict each other: who leaves out what the other has may be behind."""
    periods: dict[tuple[int, int], dict[str, dict[object, Statement]]] = {}
    for said in (each.value for each in signed.statements):  # who asks again and again is told the same each time
        periods.setdefault((said.begins, said.ends), {}).setdefault(said.issuer, {})[agreed_in(said)] = said
    for (begins, ends), sides in sorted(periods.items()):
        own, theirs = (sides.get(who, {}) for who in (case.exporter, case.counterparty))
        if own and theirs and not own.keys() & theirs.keys():
            code = contradiction([*theirs.values()][-1], [*own.values()][-1])
            yield (
                f"that both sides say the same of {rfc3339(begins)} to {rfc3339(ends)}: what {case.counterparty} has signed of it"
                f" contradicts what {case.exporter} has (`{code}`: {CODES[code]})"
            )


def _left_out(case: Case, logs: Ledgers, word: str) -> str:
    """What may be missing, where `word` says who has signed that nothing is."""
    all_of_it = "that these are all transfers of the agreement, and all entries about it"
    if logs.counted is not None:
        log, index, entries, _ = logs.counted
        return (
            f"{all_of_it}, by more than the ledger of {case.exporter}, where entry {index} of {log} counts just these {entries}: a ledger"
            f" that says so falsely says it for ever; {word}, and its other exports and that of {case.counterparty} show"
        )
    moved = {pid for pid, facts in logs.facts.items() if any(fact.state is not None for fact in facts)}
    before = ", but no message before one that is there, as they are numbered" if moved and moved <= logs.numbered else ""
    return (
        f"{all_of_it}: {case.exporter} may have left out some, such as how something ended{before}, as a file of version"
        f" {case.header.value['version']} has no count of them; {word}, and its other exports and that of {case.counterparty} show"
    )


def _set_back(case: Case, logs: Ledgers) -> Iterator[str]:
    """What a clock that went back leaves open. It accuses nobody: which entry came first is proven by their places."""
    for log, index, seconds in logs.set_back[:LINES_MAX]:
        yield (
            f"when entries were written: the clock of {case.exporter} went back by {seconds:.0f} s before entry {index} of {log}, or that"
            " says an instant of before; their order is proven by their places"
        )
    if len(logs.set_back) > LINES_MAX:
        yield f"the same before {len(logs.set_back) - LINES_MAX} more entries"
    if case.header.value["at"] < logs.last - AHEAD_SECONDS:
        seconds = logs.last - case.header.value["at"]
        yield f"when the file was written: by the clock of {case.exporter} {seconds:.0f} s before an entry in it"
    if case.header.value["at"] < logs.own - AHEAD_SECONDS:
        seconds = logs.own - case.header.value["at"]
        yield f"when the file was written: it says {seconds:.0f} s before an instant that {case.exporter} has itself signed in it"
    if case.header.value["at"] < logs.dated - AHEAD_SECONDS:  # whose clock is wrong nobody knows; who dates ahead could spoil a file
        seconds = logs.dated - case.header.value["at"]
        yield f"when the file was written: it says {seconds:.0f} s before an instant that another has signed in it"


def _owed(case: Case, signed: Flows, logs: Ledgers) -> Iterator[str]:
    """What is not proven of who has asked for the data, and of what is owed for them."""
    unasked = sorted({each.manifest.transfer for each in signed.flows.values()} - {pid for pid, _ in (*logs.requests, *logs.sinks)})
    if case.exporter == case.provider and unasked:
        yield f"that the consumer has asked for the data of {', '.join(unasked)} with its key: it may have, its own export shows"
    if signed.unpriced:
        yield f"that the invoice is by the prices of the agreement: {signed.unpriced}"
    for pid in signed.alone:
        yield f"what transfer {pid} had come to before the period of the invoice: nobody had signed for it, {case.provider} has counted it"
    for pid in signed.forgotten:
        yield f"what transfer {pid} had come to before the period of the invoice: {case.exporter} has lost the receipt that says so"
    for member in case.of("invoice"):
        if beside := sorted((invoices.BESIDE - {"digest"}) & member.value["document"].keys()):
            named = " and ".join(f"`{name}`" for name in beside)
            yield f"what the invoice says by {named}, which its digest is not of: it is the word of {case.exporter} alone"
        if (alone := invoices.by_word(member)).strip("-0."):
            currency = member.value["document"]["currency"]
            yield f"that {alone} {currency} of the invoice are owed: {case.consumer} has not signed for it, {case.provider} has counted it"
        billed = invoices.billed(member)
        for flow in signed.flows.values():
            pid, last = flow.manifest.value.provider_pid, flow.acked.value.sequence if flow.acked is not None else 0
            if flow.counts != NOTHING and (until := billed.get(pid, 0)) < last:
                yield f"what is owed for transfer {pid} by receipt {last}: the invoice in the file goes to receipt {until}"
    if not case.of("invoice") and (text := priced.untold(case, signed)):
        yield text


def _ended(case: Case, signed: Flows) -> Iterator[str]:
    """What is not proven of the end of the agreement."""
    closed, other = case.agreement.value["closed"], case.counterparty
    answers = [each.value for each in signed.answered.values() if each.value.issuer == other]
    if closed is not None and not any(each.value.issuer == other for each in signed.closings):
        if not answers:
            yield (
                f"that {other} goes by the same end of the agreement: it has signed no closing of its own, and whether it has taken that of"
                f" {case.exporter} its own export shows"
            )
        elif all(each.ends != instant_of(closed) for each in answers):
            yield f"that {other} goes by the same end of the agreement: what it has signed says another, or none"
    if len({each.value.issuer for each in signed.closings}) > 1 and not signed.answered:
        yield "that either side knew of the closing of the other: nobody has signed an answer that is in the file"


def _answered(logs: Ledgers) -> Iterator[str]:
    """What is not proven of requests for data and of the answers to them."""
    if logs.unshown:
        yield f"what the provider said in {logs.unshown} of its answers with data: what it has signed of them is not on record"
    if logs.unplaced:
        yield f"of which transfer {logs.unplaced} answers with data are: the addresses that were asked name none that the file knows"
    if unasked := logs.answers + logs.unshown - logs.asked:
        yield f"that the consumer has signed {unasked} of its requests for data: what it has signed of them is not on record"


def _closed(case: Case, signed: Flows) -> dict[bytes | None, int]:
    """Up to when (POSIX seconds) the other side has signed of a receipt that it is the last one, by its digest: of what comes after it has
    signed that nobody knows anything."""
    found: dict[bytes | None, int] = {}
    for said in (each.value for each in signed.statements if each.value.issuer == case.counterparty):
        for flow in said.flows:
            found[flow.receipt] = max(found.get(flow.receipt, 0), min(said.ends, said.issued))
    return found


def _numbers(lost: Sequence[int]) -> str:
    return f"receipt {lost[0]}" if len(lost) == 1 else f"{len(lost)} receipts from {lost[0]} to {lost[-1]}"
