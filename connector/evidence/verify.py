"""An evidence file checked without network and without database: what it says, whether that holds, and what it does not prove. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256

from connector.evidence import figures, flows, held, identities, ledgers, parties, private
from connector.evidence.bundle import COUNT, FORM, Attestation, Counting
from connector.evidence.case import AHEAD_SECONDS, Case, Fact, Ledgers, Trust
from connector.evidence.flows import Flow, Flows
from connector.evidence.members import BEFORE, COUNTED_FROM, PLACES, UNATTESTED, Finding, Member, finding, read
from connector.evidence.report import ClosingTold, FlowTold, Process, Report, Told, rfc3339
from connector.evidence.sealed import Altered, unsealed
from connector.metering.closing import instant_of, seconds_of
from connector.metering.content import write_bytes
from connector.metering.counts import NOTHING

FINDINGS_MAX = 200  # findings of one file; more are not read
LINES_MAX, LINE_CHARACTERS_MAX = 5, 80  # of extension lines that nobody knows


def verify(data: bytes, trust: Trust | None = None) -> Report:
    """Check a file as `connector evidence export` writes it. Raises nothing for anything that it may hold."""
    trust = trust or Trust()
    body = unsealed(data)
    if isinstance(body, Altered):
        one = body.offset is not None
        line = data.count(b"\n", 0, body.offset) + 1 if one else None
        altered = Finding("byte-altered" if one else "bytes-altered", body.says, line, body.offset)
        return Report((altered,), None, trust.given)
    del data  # it may have hundreds of MB, and all that is needed of it is the body
    found: list[Finding] = []
    members: dict[str, list[Member]] = {}
    ordered = list(read(body, found))
    for member in ordered:
        members.setdefault(member.kind, []).append(member)
    _shape(members, ordered, found)
    if found:
        return Report(tuple(found[:FINDINGS_MAX]), None, trust.given)
    case = Case(members, members["evidence"][0], members["agreement"][0], found)
    identities.check(case, trust)
    parties.check(case)
    signed = flows.check(case)
    figures.check(case, signed)
    logs = ledgers.check(case, signed)
    held.check(case, logs, signed)
    private.check(case)
    _strangers(case, logs)
    _counted(case, logs)
    attested = _attested(case, body)
    return Report(
        tuple(found[:FINDINGS_MAX]),
        _told(case, signed, logs, attested),
        trust.given,
        tuple(_unproven(case, signed, logs, trust, attested)),
        tuple(case.narrowed),
    )


def _shape(members: dict[str, list[Member]], ordered: list[Member], found: list[Finding]) -> None:
    """Whether the file has what it needs so that anything can be said of it: a header, an agreement, an end that counts, in their order."""
    if not ordered:
        found.append(finding("file-empty"))
        return
    headers, ends = members.get("evidence", []), members.get("end", [])
    if ordered[0].kind != "evidence" or len(headers) != 1:
        found.append(finding("header-first", ordered[0]))
    if ordered[-1].kind != "end" or len(ends) != 1:
        found.append(finding("end-last", ordered[-1]))
    elif not found:
        said = ends[0].value["members"]
        counted = {kind: len(each) for kind, each in members.items() if kind != "end"}
        for kind in sorted(said.keys() | counted.keys()):
            if said.get(kind, 0) != counted.get(kind, 0):
                values = {"kind": kind[:40], "said": said.get(kind, 0), "found": counted.get(kind, 0)}
                found.append(finding("end-counts", ends[0], "/members", values))
    agreements = members.get("agreement", [])
    if len(agreements) != 1:
        found.append(finding("agreement-missing", agreements[1] if agreements else None))
    place = 0
    for member in ordered:
        here = PLACES.get(member.kind, len(BEFORE))
        if here < place:
            found.append(finding("order-other", member, "/kind", {"kind": member.kind}))
        place = max(place, here)


def _attested(case: Case, body: bytes) -> int | None:
    """When (POSIX seconds) the exporter has signed that the file is all that it has; None if it has not, and a finding where it has to."""
    attestations = case.of("attestation")
    if case.header.value["version"] == UNATTESTED:
        for member in attestations:
            case.fault("kind-unknown", member, "/kind")
        return None
    if not attestations:
        case.fault("attestation-missing")
    for member in attestations[1:]:
        case.fault("attestation-twice", member)
    read = case.object(Attestation, case.exporter, attestations[0]) if attestations else None
    if read is None:
        return None
    same = read.value.lines == sha256(body[: read.member.offset]).digest()
    then = read.value.issued == int(case.header.value["at"])
    for code, holds in (("attestation-other", same), ("attestation-time", then)):
        if not holds:
            case.fault(code, read.member, "/jws")
    return int(read.value.issued) if same and then else None


def _counted(case: Case, found: Ledgers) -> None:
    """Whether the ledger counts just the entries of the file. Where something else is wrong with them no count is looked at. The count
    itself is none of what is told of entries: each export writes it, and nobody can have cosigned it yet."""
    version = case.header.value["version"]
    facts = [fact for each in found.facts.values() for fact in each]
    if version < COUNTED_FROM:
        if any(fact.what == COUNT or _is_of_now(fact) for fact in facts):
            case.fault("version-older", case.header, "/version", version=version, least=COUNTED_FROM)
        return
    entries = case.of("entry")
    last = next((fact for fact in facts if entries and fact.member is entries[-1]), None)
    if any(not each.accuses for each in case.found):
        return
    if last is None or last.what != COUNT or last.member.value["pid"] != case.agreement.value["id"]:
        case.fault("count-missing", entries[-1] if entries else None)
        return
    counting = Counting()
    for leaf in found.leaves[:-1]:
        counting.take(leaf)
    said, sizes = last.detail or {}, _sizes(last)
    if (said.get("entries"), last.digest) != (counting.entries, counting.digest.hex()):
        case.fault("count-other", last.member, "/body", said=_number(said.get("entries")), found=counting.entries)
    if last.at != case.header.value["at"]:
        case.fault("count-time", last.member, "/body")
    place = str(last.member.value["log"]), int(last.member.value["index"])
    del found.standing[place]
    found.entries[place[0]].remove(place[1])
    found.last = max((fact.at for fact in facts if fact is not last), default=float("-inf"))
    if any(index >= sizes.get(log, 0) for log, index in found.standing):
        case.fault("count-size", last.member, "/detail")
    found.counted = (*place, counting.entries, sizes)


def _is_of_now(fact: Fact) -> bool:
    """Whether a fact was written by a program whose files end with a count."""
    form = (fact.detail or {}).get(FORM)
    return isinstance(form, int) and form >= COUNTED_FROM


def _sizes(fact: Fact) -> dict[str, int]:
    logs = (fact.detail or {}).get("logs")
    return {log: size for log, size in logs.items() if isinstance(size, int)} if isinstance(logs, dict) else {}


def _number(value: object) -> object:
    return value if isinstance(value, int) else "no"


def _strangers(case: Case, logs: Ledgers) -> None:
    """Whoever is in the file without having said anything in it does not belong there."""
    known = {case.provider, case.consumer, *(each.by for each in logs.cosigned)}
    for member in case.of("identity"):
        if member.value["id"] not in known:
            case.fault("identity-stranger", member, "/id")


def _told(case: Case, signed: Flows, logs: Ledgers, attested: int | None) -> Told:
    said, agreed = case.header.value, case.agreement.value
    invoice = next((member.value["document"] for member in case.of("invoice")), None)
    accounts = [member.value["account"] for member in case.of("transfer") if member.value["account"] is not None]
    witnesses = []
    for each in sorted(logs.cosigned, key=lambda each: (each.by, each.size)):
        count = sum(1 for index in logs.entries.get(each.origin, ()) if index < each.size)
        witnesses.append((each.by, each.size, count, each.at))
    return Told(
        agreement=agreed["id"],
        by=case.exporter,
        role=said["role"],
        at=said["at"],
        provider=case.provider,
        consumer=case.consumer,
        dataset=agreed["dataset"],
        policy=agreed["policy"],
        created=agreed["created"],
        final=agreed["final"],
        closed=agreed["closed"],
        flows=tuple(sorted((_flow(flow) for flow in signed.flows.values()), key=lambda flow: (flow.transfer, flow.objects["manifest"]))),
        alone=sum(account["counts"]["bytes"] for account in accounts if account["attested"] == "provider-only"),
        entries=sum(map(len, logs.entries.values())),
        erased=logs.erased,
        through=tuple((log, note.size, max(logs.entries.get(log, ()), default=None)) for log, note in sorted(logs.newest.items())),
        last=logs.last if logs.last > float("-inf") else None,
        witnesses=tuple(witnesses),
        invoice=None if invoice is None else (str(invoice.get("total")), str(invoice.get("currency")), str(invoice.get("digest"))),
        statements=len(signed.statements),
        closings=tuple(_closings(case, signed)),
        answers=logs.answers,
        asked=logs.asked,
        requests=tuple(logs.requests),
        sinks=tuple(logs.sinks),
        taken_over=tuple(logs.taken_over),
        attested=attested,
        counted=logs.counted,
        standing=logs.standing,
        processes=_processes(case, logs),
    )


def _processes(case: Case, logs: Ledgers) -> dict[str, Process]:
    """The negotiation and the transfers by the provider's pids, which both sides know; the agreement as what it is."""
    named = {str(case.agreement.value["id"]): "the agreement", str(case.agreement.value["negotiation"]): "the negotiation"}
    named |= {str(each.value["pid"]): f"transfer {each.value['providerPid']}" for each in case.of("transfer") if each.value["providerPid"]}
    return {name: Process(pid, frozenset(logs.moves(pid))) for pid, name in named.items()}


def _closings(case: Case, signed: Flows) -> Iterator[ClosingTold]:
    """What both have signed of the end of the agreement: of a closing that was signed anew once, with its answer if there is one."""
    told: dict[tuple[str, int], ClosingTold] = {}
    for at in signed.closings:
        value, answer = at.value, signed.answered.get(at.digest)
        other = case.consumer if value.issuer == case.provider else case.provider
        said = ClosingTold(value.issuer, value.seconds, other)
        if answer is not None:
            ends = None if answer.value.ends is None else seconds_of(answer.value.ends)
            said = ClosingTold(value.issuer, value.seconds, other, answer.value.state, answer.value.why, ends)
        if answer is not None or (value.issuer, value.at) not in told:
            told[value.issuer, value.at] = said
    yield from (told[key] for key in sorted(told, key=lambda key: (key[1], key[0])))


def _flow(flow: Flow) -> FlowTold:
    manifest, last = flow.manifest.value, flow.last.value if flow.last is not None else None
    found = {"manifest": flow.manifest}
    for number, receipts in sorted(flow.receipts.items()):
        found[f"receipt {number}"] = receipts[0]
        if acks := flow.acks.get(receipts[0].digest):
            found[f"ack {number}"] = acks[0]
    return FlowTold(
        transfer=manifest.provider_pid,
        dataset=manifest.dataset,
        promised=manifest.issued,
        receipts=len(flow.receipts),
        acknowledged=sum(1 for receipts in flow.receipts.values() if receipts[0].digest in flow.acks),
        state=last.state if last is not None else "no receipt",
        after=last.after if last is not None else "",
        until=last.issued if last is not None else None,
        counts=flow.counts,
        objects={name: write_bytes(each.digest) for name, each in found.items()},
        signed={name: (each.value.issuer, each.value.issued) for name, each in found.items()},
    )


def _unproven(case: Case, signed: Flows, logs: Ledgers, trust: Trust, attested: int | None) -> list[str]:
    """What this file, sound as it may be, does not prove."""
    texts = []
    if not trust.given:
        texts.append("who the participants are: their keys are taken from the file; give keys from elsewhere with --trust")
    if not signed.flows:
        texts.append("that the other party agreed: nothing in the file is signed by it; the agreement rests on the exporter's ledger alone")
    elif not signed.receipts:
        texts.append("that the consumer got anything: it has signed no receipt")
    if any(flow.last is not flow.acked for flow in signed.flows.values()):
        texts.append("that the provider has got the last receipt: it has no ack")
    for flow in signed.flows.values():
        if flow.last is not None and flow.last.value.state != "complete":
            until, pid = _closed(case, signed, flow), flow.manifest.value.provider_pid
            text = f"that receipt {flow.last.value.sequence} of transfer {pid} is the last: whoever exports may leave out those that follow"
            more = f"no statement of {case.counterparty} in the file names it as the last"
            if until is not None:
                more = f"{case.counterparty} has signed that it was the last before {rfc3339(until)}, and nothing of later"
            texts.append(f"{text}, {more}, and the other side's export shows")
        if flow.lost:
            texts.append(
                f"{_numbers(flow.lost)} of transfer {flow.manifest.value.provider_pid}: {case.exporter} has lost them, and has had back"
                " a later one, which says all that they said"
            )
    if any(flow.manifest.value.unit != "none" for flow in signed.flows.values()):
        texts.append("the number of records by the data themselves: both have signed for it, and the data are not in the file")
    if any(flow.manifest.value.log.root is None for flow in signed.flows.values()):
        texts.append("the number of bytes of live data by the data themselves: both have signed for it")
    entries = sum(map(len, logs.entries.values()))
    seen = {log: max((each.size for each in logs.cosigned if each.origin == log), default=0) for log in logs.entries}
    unseen = sum(1 for log, indexes in logs.entries.items() for index in indexes if index >= seen[log])
    if not logs.newest:
        texts.append("when anything was written down: there is no ledger in the file")
    elif unseen:
        texts.append(f"that {unseen} of the {entries} entries were not written later: nobody else has cosigned the ledger with them in it")
    texts.extend(_set_back(case, logs))
    for owner, lines in sorted(logs.unknown.items()):
        named = ", ".join(f"`{''.join(c for c in line if c.isprintable())[:LINE_CHARACTERS_MAX]}`" for line in lines[:LINES_MAX])
        more = f" and {len(lines) - LINES_MAX} more" if len(lines) > LINES_MAX else ""
        texts.append(f"what {named}{more} means: extension lines of checkpoints of {owner} that nobody here knows")
    if str(case.agreement.value["negotiation"]) not in logs.facts:
        texts.append("how the agreement came about: its negotiation is not in the ledger of the file")
    texts.extend(_ended(case, signed))
    texts.extend(_answered(logs))
    texts.extend(_owed(case, signed, logs))
    if logs.unheld:
        texts.append(f"{', '.join(logs.unheld)}: the ledger holds no digest, it was written before there were any, or was erased")
    texts.append(
        "what is neither signed nor in the ledger: names, roles and addresses of participants, by which ids the other side knows what"
        " runs, when the file was exported, when the agreement is to end, the prices of invoices, by which numbers its events go, whether"
        " its account has the last ack, and within some minutes when processes began and changed are the exporter's word alone"
    )
    word = "nobody has signed that they are"
    if attested is not None:
        word = f"it has signed at {rfc3339(attested)} that they are, which is its word"
    texts.append(_left_out(case, logs, word))
    texts.append(f"that the ledger of {case.counterparty} has the same: its own export shows")
    texts.append("that the data are true, and that both parties did not agree to say something else than what happened")
    return texts


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
    if case.header.value["at"] < logs.dated - AHEAD_SECONDS:  # whose clock is wrong nobody knows; who dates ahead could spoil a file
        seconds = logs.dated - case.header.value["at"]
        yield f"when the file was written: it says {seconds:.0f} s before an instant that another has signed in it"


def _owed(case: Case, signed: Flows, logs: Ledgers) -> Iterator[str]:
    """What is not proven of who has asked for the data, and of what is owed for them."""
    unasked = sorted({each.manifest.transfer for each in signed.flows.values()} - {pid for pid, _ in (*logs.requests, *logs.sinks)})
    if case.exporter == case.provider and unasked:
        yield f"that the consumer has asked for the data of {', '.join(unasked)} with its key: it may have, its own export shows"
    for member in case.of("invoice"):
        for flow in signed.flows.values():
            pid, last = flow.manifest.value.provider_pid, flow.acked.value.sequence if flow.acked is not None else 0
            if flow.counts != NOTHING and (until := figures.billed(member).get(pid, 0)) < last:
                yield f"what is owed for transfer {pid} by receipt {last}: the invoice in the file goes to receipt {until}"
    if not case.of("invoice") and any(flow.manifest.value.prices is not None for flow in signed.flows.values()):
        yield "what is owed: the agreement has prices, and there is no invoice in the file"


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


def _closed(case: Case, signed: Flows, flow: Flow) -> int | None:
    """Up to when (POSIX seconds) the other side has signed that the last receipt of the file is the last one. None if it never has."""
    last = flow.last.digest if flow.last is not None else None
    theirs = [each.value for each in signed.statements if each.value.issuer == case.counterparty]
    return max((said.ends for said in theirs if any(each.receipt == last for each in said.flows)), default=None)


def _numbers(lost: Sequence[int]) -> str:
    return f"receipt {lost[0]}" if len(lost) == 1 else f"{len(lost)} receipts from {lost[0]} to {lost[-1]}"
