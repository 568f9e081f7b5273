"""What was signed of transfers: each chain of receipts judged anew, by the rules by which it was judged when it came. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256

from msgspec import Struct

from connector.errors import MeterRefused, Unauthenticated
from connector.evidence.case import AHEAD_SECONDS, Case, Object
from connector.evidence.members import OBJECTS, Member
from connector.metering import chain, credit
from connector.metering.chain import Outcome
from connector.metering.chain_consumer import Terms, accept, judge_ack, restored
from connector.metering.closing import Closing, ClosingAck
from connector.metering.content import Known, read_bytes
from connector.metering.counts import NOTHING, Counts
from connector.metering.objects import Ack, Manifest, Receipt
from connector.metering.ranges import Ranges
from connector.metering.statements import Statement
from connector.metering_bills.prices import Plan
from connector.signatures.jws import claims_of
from connector.values import Value, field

DIGEST_BYTES = 32
OF_TRANSFERS = frozenset({"manifest", "receipt", "ack", "statement"})
OF_ALL = frozenset({"statement", "closing", "closing-ack"})  # what may be about the agreement and no transfer


class Replayed(Value):
    """An account as the receipts make it, one after the other (`metering.chain.Account`)."""

    manifest: str
    sequence: int = 0
    receipt: str = ""
    ack: str = ""
    ranges: Ranges = ()
    counts: Counts = NOTHING
    credit_bytes: int = 0
    status: str = "open"
    attested: str = "provider-only"


class Flow(Struct):
    """One manifest with its receipts, by their numbers, and the acks of these, by the digests of the receipts. `last` is the last receipt
    that follows from those before it, `acked` the last of them that has its ack; `counts` are what that one comes to. `whole` says
    whether all that is there was followed to its end, `lost` the numbers of those that a consumer has lost."""

    manifest: Object
    receipts: dict[int, list[Object]] = field(default_factory=dict)
    acks: dict[bytes, list[Object]] = field(default_factory=dict)
    last: Object | None = None
    acked: Object | None = None
    counts: Counts = NOTHING
    whole: bool = False
    lost: list[int] = field(default_factory=list)


class Flows(Struct):
    """All signed objects: `flows` by the digests of their manifests, `receipts`, `acks`, `statements`, `closings` and the answers to these
    (`closing_acks`) as they stand, `answered` those of the answers that hold by the digests of the closings, and `objects`, all of them by
    digest; `transfers` are the members of that kind by the exporter's pids; `unpriced` says why prices of the invoice were not
    compared with those of the agreement, "" if they were; `alone` are the transfers (the provider's pids) of which it leaves out what
    their provider had counted before anything was signed for, `forgotten` those of which a consumer has lost how far they had come before
    it begins."""

    flows: dict[bytes, Flow] = field(default_factory=dict)
    receipts: dict[bytes, Object] = field(default_factory=dict)
    acks: list[Object] = field(default_factory=list)
    statements: list[Object] = field(default_factory=list)
    closings: list[Object] = field(default_factory=list)
    closing_acks: list[Object] = field(default_factory=list)
    answered: dict[bytes, Object] = field(default_factory=dict)
    objects: dict[bytes, Member] = field(default_factory=dict)
    transfers: dict[str, Member] = field(default_factory=dict)
    unpriced: str = ""
    plan: Plan | None = None
    alone: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)

    @property
    def all(self) -> Iterator[Object]:
        """Whatever holds."""
        yield from (each.manifest for each in self.flows.values())
        yield from (*self.receipts.values(), *self.acks, *self.statements, *self.closings, *self.closing_acks)


Reader = Callable[[Case, Flows, Member], None]


def check(case: Case) -> Flows:
    """Read all objects, put them in their chains, and follow these."""
    found = Flows(transfers={str(member.value["pid"]): member for member in case.of("transfer")})
    for kind in OBJECTS:
        for member in case.of(kind):
            name = sha256(str(member.value["jws"]).encode()).digest()
            if name in found.objects:
                case.fault("object-twice", member, "/jws")
                continue
            found.objects[name] = member
            whole = kind in OF_ALL and member.value["transfer"] == case.agreement.value["id"]
            if not whole and (kind not in OF_TRANSFERS or member.value["transfer"] not in found.transfers):
                case.fault("object-transfer", member, "/transfer")
                continue
            _READERS[kind](case, found, member)
    for flow in found.flows.values():
        _follow(case, flow)
    return found


def _manifest(case: Case, found: Flows, at: Member) -> None:
    read = case.object(Manifest, case.provider, at)
    if read is None:
        return
    manifest, agreed = read.value, case.agreement.value
    transfer = found.transfers[read.transfer].value
    pids = manifest.consumer_pid, manifest.provider_pid
    policy = read_bytes(agreed["policy"], DIGEST_BYTES) or b""
    terms = Terms(case.provider, case.consumer, agreed["id"], policy, *pids, agreed["dataset"])
    try:
        accept(read.token, terms, proven=case.reads(case.provider), now=manifest.issued)
    except MeterRefused as refused:
        case.refused(refused.code, refused.message, at, "/jws")
        return
    if (transfer["consumerPid"], transfer["providerPid"]) != pids:
        case.fault("transfer-pids", at, "/transfer")
    found.flows[read.digest] = Flow(read)


def _receipt(case: Case, found: Flows, at: Member) -> None:
    read = case.object(Receipt, case.consumer, at)
    if read is None:
        return
    flow = found.flows.get(read.value.manifest)
    if flow is None or flow.manifest.transfer != read.transfer:
        case.fault("manifest-absent", at, "/jws")
        return
    found.receipts[read.digest] = read
    flow.receipts.setdefault(read.value.sequence, []).append(read)


def _ack(case: Case, found: Flows, at: Member) -> None:
    read = case.object(Ack, case.provider, at)
    if read is None:
        return
    receipt = found.receipts.get(read.value.receipt)
    if receipt is None or receipt.transfer != read.transfer:
        case.fault("receipt-absent", at, "/jws")
        return
    found.acks.append(read)
    found.flows[receipt.value.manifest].acks.setdefault(receipt.digest, []).append(read)


def _by_either(kind: type[Statement | Closing | ClosingAck], code: str, of: Callable[[Flows], list[Object]]) -> Reader:
    """Reads what either side may have made: the one whose key it names is to have signed it."""

    def reader(case: Case, found: Flows, at: Member) -> None:
        issuer = next((who for who in (case.provider, case.consumer) if _says(at, who)), None)
        if issuer is None:
            case.fault(code, at, "/jws")
        elif (read := case.object(kind, issuer, at)) is not None:
            of(found).append(read)

    return reader


_READERS: Mapping[str, Reader] = {
    "manifest": _manifest,
    "receipt": _receipt,
    "ack": _ack,
    "statement": _by_either(Statement, "statement-by", lambda found: found.statements),
    "closing": _by_either(Closing, "closing-by", lambda found: found.closings),
    "closing-ack": _by_either(ClosingAck, "closing-ack-by", lambda found: found.closing_acks),
}


def _says(at: Member, issuer: str) -> bool:
    try:
        return bool(claims_of(str(at.value["jws"])).get("iss") == issuer)
    except Unauthenticated:
        return False


def _follow(case: Case, flow: Flow) -> None:
    """Judge the receipts of a flow in their order, each with its ack, and stop at the first that does not follow."""
    account, manifest = Replayed(flow.manifest.token), flow.manifest.value
    whole = None if manifest.log.layout is None else credit.finite(manifest)
    numbers = sorted(flow.receipts)
    for number in numbers:
        signed = flow.receipts[number]
        if number > account.sequence + 1:
            if (back := _taken_up(case, flow, account, signed[0], last=number == numbers[-1])) is None:
                return
            account = back
            continue
        signed.sort(key=lambda each: each.digest not in flow.acks)  # the one that was accepted has an ack
        for other in signed[1:]:
            case.accuse("receipt-conflict", other.member)
        receipt = signed[0]
        judged = chain.judge(
            account, receipt.token, proven=case.reads(case.consumer), log=whole or _live(receipt.value), now=receipt.value.issued
        )
        if judged.outcome is not Outcome.ACCEPTED:
            case.refused(judged.code, judged.message, receipt.member, "/jws")
            return
        account, flow.last = judged.account, receipt
        acks = flow.acks.get(receipt.digest, [])
        for other in acks[1:]:
            case.accuse("ack-twice", other.member)
        if not acks:
            if number < numbers[-1]:
                case.fault("ack-missing", receipt.member, "/jws")
                return
            break
        ack = acks[0]
        answered = judge_ack(account, ack.token, proven=case.reads(case.provider), now=ack.value.issued)
        if answered.outcome is not Outcome.ACCEPTED:
            case.refused(answered.code, answered.message, ack.member, "/jws")
            return
        if ack.value.issued < receipt.value.issued - AHEAD_SECONDS:
            if case.exporter == case.provider:
                case.fault("ack-before", ack.member, "/jws")
            else:  # a consumer takes an ack by its own clock, whatever its provider dates back
                case.accuse("ack-before", ack.member)
        account, flow.acked, flow.counts = answered.account, receipt, receipt.value.counts
    flow.whole = True


def _taken_up(case: Case, flow: Flow, account: Replayed, receipt: Object, *, last: bool) -> Replayed | None:
    """The account by a receipt before which some are missing: a consumer that has lost them has had it back from the provider,
    and as each says all that was signed for before, it stands for them if the provider has signed that it has it. The `last` one it may
    have had back unanswered: that is its own word, and counts for nothing yet. A provider lost none."""
    acks, manifest = flow.acks.get(receipt.digest, []), flow.manifest.value
    if case.exporter != case.consumer or not (acks or last):
        case.fault("receipt-missing", receipt.member, "/jws", number=account.sequence + 1)
        return None
    ack, at = (acks[0].token, acks[0].value.issued) if acks else ("", receipt.value.issued)
    try:
        chain.measured(receipt.value, account, _log(manifest, receipt.value), finite=manifest.log.root is not None)
        reads = case.reads(case.consumer), case.reads(case.provider)
        after = restored(account, receipt.token, ack, own=reads[0], proven=reads[1], now=at)
    except MeterRefused as refused:
        case.refused(refused.code, refused.message, receipt.member, "/jws")
        return None
    flow.lost += range(account.sequence + 1, receipt.value.sequence)
    flow.last = receipt
    if acks:
        flow.acked, flow.counts = receipt, receipt.value.counts
    return after


def _log(manifest: Manifest, receipt: Receipt) -> credit.Log:
    """What can be known of a content log without its data: all that follows from sizes where it is finite."""
    return _live(receipt) if manifest.log.layout is None else credit.finite(manifest)


def _live(receipt: Receipt) -> credit.Log:
    """Of a live one what the receipt itself was verified against."""
    size, root = (receipt.checkpoint.size, receipt.checkpoint.root) if receipt.checkpoint else (1, b"")
    return credit.Log(size, lambda _: Known(receipt.counts.bytes), {size: root}.get)
