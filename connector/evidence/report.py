"""What a checked evidence file says: a verdict in plain words for whoever has to judge, and the same as data. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from connector.evidence.case import Narrowed
from connector.evidence.members import Finding
from connector.metering.closing import REFUSED
from connector.metering.codes import CODES
from connector.metering.counts import Counts, total
from connector.values import Value, field

INVOICE: Final = ("total", "currency", "digest", "provider_only")


class FlowTold(Value):
    """One manifest: the transfer (the provider's pid), the dataset, of which `snapshot` and by the content log of which `origin`, as the
    provider calls them, when it was promised, how far both have signed, and the digests of all that was signed, by what it is (`manifest`,
    `receipt 1`, `ack 1`, ...), with who has `signed` it, and when (POSIX seconds)."""

    transfer: str
    dataset: str
    promised: int
    receipts: int
    acknowledged: int
    state: str
    after: str
    until: int | None
    counts: Counts
    objects: Mapping[str, str]
    signed: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    snapshot: str = ""
    origin: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "transfer": self.transfer,
            "dataset": self.dataset,
            "snapshot": self.snapshot,
            "origin": self.origin,
            "promised": rfc3339(self.promised),
            "receipts": self.receipts,
            "acknowledged": self.acknowledged,
            "state": self.state,
            "after": self.after,
            "until": None if self.until is None else rfc3339(self.until),
            "counts": self.counts.claims(),
            "objects": dict(self.objects),
        }


class ClosingTold(Value):
    """What `by` has signed of the end of the agreement, at `at` (POSIX seconds), and what `other` has signed of that: `state` is taken,
    refused (for the code `why`) or "" for nothing, `ends` when the agreement ends for it."""

    by: str
    at: float
    other: str
    state: str = ""
    why: str | None = None
    ends: float | None = None

    @property
    def answer(self) -> str:
        """The answer in words."""
        if not self.state:
            return f"{self.other} has signed nothing of that in this file"
        ends = f"and that the agreement ends at {exactly(self.ends)}" if self.ends is not None else "and that the agreement has not ended"
        if self.state == REFUSED:
            return f"{self.other} has signed that it refuses that (`{self.why}`: {CODES[self.why or '']}), {ends}"
        return f"{self.other} has signed that it has taken that, {ends}"

    def to_json(self) -> dict[str, Any]:
        ends = None if self.ends is None else exactly(self.ends)
        return {
            "by": self.by,
            "at": exactly(self.at),
            "answered_by": self.other,
            "answer": self.state or None,
            "why": self.why,
            "ends": ends,
        }


class Process(Value):
    """What an exporter has on record of a process: its own `pid`, and the `moves` of it."""

    pid: str
    moves: frozenset[str]


class Told(Value):
    """What a file tells of an agreement: who, what, how much, when, attested by whom. `policy` is the digest of the agreement's document;
    `alone` are counts that no consumer has signed for; `witnesses` say who has cosigned how much of the exporter's ledger."""

    agreement: str
    by: str
    role: str
    at: float
    provider: str
    consumer: str
    dataset: str
    policy: str
    created: float
    final: bool
    closed: float | None
    flows: tuple[FlowTold, ...]
    alone: int
    entries: int
    erased: int
    through: tuple[tuple[str, int, int | None], ...]  # log, how many entries it has by the newest checkpoint, the last of those in the file
    last: float | None  # the latest instant that an entry says
    witnesses: tuple[tuple[str, int, int, int], ...]  # who, entries of the log that it has seen, of those in the file, when
    invoice: tuple[str, str, str, str] | None  # total, currency, digest, how much of the total is the provider's word alone
    statements: int
    closings: tuple[ClosingTold, ...] = ()
    answers: int = 0  # with data, that the provider has signed
    asked: int = 0  # those of them whose requests the consumer has signed
    requests: tuple[tuple[str, int], ...] = ()  # of the consumer, that its provider has on record: the provider's pid, when
    sinks: tuple[tuple[str, int], ...] = ()  # of the consumer, whose signed answers the provider has on record: the provider's pid, when
    taken_over: tuple[tuple[str, str, int, int], ...] = ()  # the provider's pids of a transfer and of the one before, leaves, receipt
    attested: int | None = None  # when the exporter has signed that the file is all that it has
    counted: tuple[str, int, int, Mapping[str, int]] | None = None  # log and index of the count, its entries, of how much of each log
    standing: Mapping[tuple[str, int], str] = field(default_factory=dict)  # log and index of each entry, the exporter's pid of its process
    processes: Mapping[str, Process] = field(default_factory=dict)  # by what both sides call them

    def reach(self, log: str) -> int:
        """Of how many entries of a log of the exporter the file has all that are about the agreement."""
        if self.counted is not None:
            return self.counted[3].get(log, 0)
        return next((size for each, size, _ in self.through if each == log), 0)

    @property
    def counts(self) -> Counts:
        """What both have signed for, over all transfers."""
        return total(flow.counts for flow in self.flows)


class Report(Value):
    """The outcome. `told` is None if too little of the file could be read; `unproven` says what a sound file does not prove, `narrowed`
    which keys end otherwise in the file than the verifier knows."""

    findings: tuple[Finding, ...]
    told: Told | None
    trusted: bool
    unproven: tuple[str, ...] = ()
    narrowed: tuple[Narrowed, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong with the file."""
        return all(each.accuses for each in self.findings)

    def to_json(self) -> dict[str, Any]:
        """The report in plain JSON types."""
        told = self.told
        return {
            "sound": self.sound,
            "findings": [each.to_json() for each in self.findings],
            "identities": "trusted" if self.trusted else "of the file",
            "agreement": None if told is None else _told(told),
            "narrowed": [{"key": each.kid, "file": _when(each.said), "trusted": _when(each.trusted)} for each in self.narrowed],
            "unproven": list(self.unproven),
            "verdict": list(self.verdict()),
        }

    def verdict(self) -> Iterator[str]:
        """The lines for a person."""
        if self.sound:
            yield "The file is sound: nothing in it was altered, and all that is signed, counted and numbered in it holds."
        else:
            yield "The file is NOT sound: nothing in it should be relied on before the following is explained."
        for each in self.findings:
            where = ", ".join(filter(None, (f"line {each.line}" if each.line else "", f"byte {each.offset}" if each.line else "")))
            at = f" ({where}{f', {each.pointer}' if each.pointer else ''})" if where else ""
            yield f"{'Accusation' if each.accuses else 'Fault'} {each.code}{at}: {each.says}."
        for key in self.narrowed:
            said, trusted = (_when(at) or "never" for at in (key.said, key.trusted))
            yield f"Key {key.kid} ends {said} by the file, {trusted} by the keys that are trusted; the earlier end counts."
        if self.told is not None and self.sound:
            yield from _said(self.told)
            for text in self.unproven:
                yield f"Not proven: {text}."


def exactly(at: float) -> str:
    """POSIX seconds as RFC 3339, to the microsecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def rfc3339(at: float) -> str:
    """POSIX seconds as RFC 3339, to the second; what it cannot say, as whoever signs may say anything, as the number that it is."""
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (OverflowError, OSError, ValueError):
        return f"{at} s after 1970"


def _when(at: float | None) -> str | None:
    return None if at is None else rfc3339(at)


def _told(told: Told) -> dict[str, Any]:
    return {
        "id": told.agreement,
        "exported_by": told.by,
        "role": told.role,
        "at": rfc3339(told.at),
        "provider": told.provider,
        "consumer": told.consumer,
        "dataset": told.dataset,
        "policy": told.policy,
        "created": rfc3339(told.created),
        "final": told.final,
        "closed": None if told.closed is None else rfc3339(told.closed),
        "counts": told.counts.claims(),
        "flows": [flow.to_json() for flow in told.flows],
        "provider_only_bytes": told.alone,
        "attested": None if told.attested is None else rfc3339(told.attested),
        "counted": None if told.counted is None else dict(zip(("log", "index", "entries"), told.counted, strict=False)),
        "entries": told.entries,
        "erased": told.erased,
        "through": [{"log": log, "size": size, "last": last} for log, size, last in told.through],
        "last": None if told.last is None else rfc3339(told.last),
        "witnesses": [{"by": by, "size": size, "entries": count, "at": rfc3339(at)} for by, size, count, at in told.witnesses],
        "invoice": None if told.invoice is None else dict(zip(INVOICE, told.invoice, strict=True)),
        "statements": told.statements,
        "closings": [each.to_json() for each in told.closings],
        "requests": [{"transfer": transfer, "at": rfc3339(at)} for transfer, at in told.requests],
        "sinks": [{"transfer": transfer, "at": rfc3339(at)} for transfer, at in told.sinks],
        "answers": {"signed": told.answers, "requests_signed": told.asked},
        "taken_over": [
            {"transfer": later, "from": before, "leaves": leaves, "receipt": number} for later, before, leaves, number in told.taken_over
        ],
    }


def _said(told: Told) -> Iterator[str]:
    yield f"Who: {told.provider} provides, {told.consumer} consumes; exported by the {told.role} at {rfc3339(told.at)}."
    closed = f", closed {rfc3339(told.closed)}" if told.closed is not None else ""
    state = "final" if told.final else "not final"
    yield f"What: dataset {told.dataset} under agreement {told.agreement}, {state}, made {rfc3339(told.created)}{closed}."
    for flow in told.flows:
        amount = f"{flow.counts.bytes} bytes" + (f", {flow.counts.records} records" if flow.counts.records else "")
        until = f", the last of them at {rfc3339(flow.until)}" if flow.until is not None else ""
        yield (
            f"How much: {amount} in transfer {flow.transfer}, promised {rfc3339(flow.promised)}; {flow.receipts} receipts signed by the "
            f"consumer{until}, {flow.acknowledged} acknowledged by the provider; {flow.state}."
        )
    for later, before, leaves, number in told.taken_over:
        yield f"Goes on: transfer {later} takes over from transfer {before}, where receipt {number} is for {leaves} leaves of its log."
    for closing in told.closings:
        yield f"Ended: {closing.by} has signed that it closed the agreement at {exactly(closing.at)}; {closing.answer}."
    if told.answers:
        asked = f", {told.asked} of them to requests that the consumer has signed" if told.asked else ""
        yield f"Answered: the provider has signed {told.answers} answers with data{asked}."
    for transfer, at in told.requests:
        yield f"Asked: the consumer has signed a request for the data of transfer {transfer} at {rfc3339(at)}."
    for transfer, at in told.sinks:
        yield f"Brought: the consumer has signed an answer of its sink for the data of transfer {transfer} at {rfc3339(at)}."
    if told.alone:
        yield f"Counted by the provider alone: {told.alone} bytes."
    if told.invoice is not None:
        total, currency, digest, by_word = told.invoice
        alone = f", of that {by_word} by the word of the provider alone" if by_word.strip("-0.") else ""
        yield f"Owed: {total} {currency}{alone} (invoice {digest})."
    erased = f"; the details of {told.erased} were erased or kept back, which the entries outlive" if told.erased else ""
    yield f"On record: {told.entries} entries of the exporter's ledger, each at its place in the signed log{erased}."
    for log, size, last in told.through:
        where = f"; the last of this agreement is entry {last}" if last is not None else ""
        when = f", of {rfc3339(told.last)}" if told.last is not None and last is not None else ""
        yield f"Up to where: {log} as it was signed with {size} entries{where}{when}. What came later is not in the file."
    if told.attested is not None:
        yield f"Attested: {told.by} has signed at {rfc3339(told.attested)} that this is all that it has of the agreement up to there."
    if told.counted is not None:
        log, index, entries, _ = told.counted
        yield f"Counted: entry {index} of {log} says that these {entries} entries are all of the agreement up to there."
    for by, size, count, at in told.witnesses:
        yield f"Witnessed: {by} has cosigned the ledger with {size} entries at {rfc3339(at)}, which are {count} of those in the file."
