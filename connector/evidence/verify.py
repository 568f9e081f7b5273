"""An evidence file checked without network and without database: what it says, whether that holds, and what it does not prove. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256

from connector.evidence import figures, flows, held, identities, ledgers, parties, private
from connector.evidence.bundle import COUNT, FORM, Attestation, Counting
from connector.evidence.case import Case, Fact, Ledgers, Trust
from connector.evidence.flows import Flow, Flows
from connector.evidence.members import BEFORE, COUNTED_FROM, PLACES, UNATTESTED, Finding, Member, finding, read
from connector.evidence.report import ClosingTold, FlowTold, Process, Report, Told
from connector.evidence.sealed import Altered, unsealed
from connector.evidence_bills import invoices, timed
from connector.evidence_told import unproven
from connector.metering.closing import seconds_of
from connector.metering.content import write_bytes
from connector.odrl.model import Options
from connector.odrl.registry import Profile

FINDINGS_MAX = 200  # findings of one file; more are not read


def verify(data: bytes, trust: Trust | None = None, profiles: Sequence[Profile] = ()) -> Report:
    """Check a file as `connector evidence export` writes it; `profiles` are those of policies that are known here. Raises nothing for
    anything that it may hold."""
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
    places = [member.offset for member in ordered[-2:] if member.kind == "attestation"]
    attested = {offset: sha256(memoryview(body)[:offset]).digest() for offset in places}
    del body  # what it says is in its members
    for member in ordered:
        members.setdefault(member.kind, []).append(member)
    _shape(members, ordered, found)
    if found:
        return Report(tuple(found[:FINDINGS_MAX]), None, trust.given)
    case = Case(members, members["evidence"][0], members["agreement"][0], found, options=Options(profiles=tuple(profiles)))
    identities.check(case, trust)
    parties.check(case)
    signed = flows.check(case)
    figures.check(case, signed)
    invoices.check(case, signed)
    logs = ledgers.check(case, signed)
    held.check(case, logs, signed)
    timed.check(case, signed, logs)
    private.check(case, logs)
    _strangers(case, logs)
    _counted(case, logs)
    signed_at = _attested(case, attested)
    return Report(
        tuple(found[:FINDINGS_MAX]),
        _told(case, signed, logs, signed_at),
        trust.given,
        tuple(unproven.texts(case, signed, logs, trust, signed_at)),
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


def _attested(case: Case, lines: Mapping[int, bytes]) -> int | None:
    """When (POSIX seconds) the exporter has signed that the file is all that it has; None if it has not, and a finding where it has to.
    `lines` is the SHA-256 of what stands before an attestation, by the byte at which this begins."""
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
    same = read.value.lines == lines.get(read.member.offset)
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
    invoice = next(iter(case.of("invoice")), None)
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
        invoice=None if invoice is None else _invoice(invoice),
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


def _invoice(invoice: Member) -> tuple[str, str, str, str]:
    total, currency, digest = (str(invoice.value["document"].get(name)) for name in ("total", "currency", "digest"))
    return total, currency, digest, invoices.by_word(invoice)


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
        snapshot=manifest.snapshot,
        origin=manifest.log.origin,
    )
