"""What the file says of processes, decisions and the agreement, against what the exporter's ledger has of them. Pure.

The ledger has the messages and moves of each process with the instants and states, the digests of terms, decisions and agreement, and, as
long as they are not erased, the codes and reasons that were given. What it has not, the exporter could have said otherwise: that is said.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final
from urllib.parse import unquote

from connector.errors import SignatureRefused
from connector.evidence.case import AHEAD_SECONDS, Case, Fact, Ledgers
from connector.evidence.flows import DIGEST_BYTES, Flows
from connector.evidence.ledgers import AGREED, FINALIZED
from connector.evidence.members import Member
from connector.metering.closing import instant_of
from connector.metering.content import digest_of, read_bytes, write_bytes
from connector.signatures.fields import Item, read_dictionary, write_bare
from connector.signatures.http import PULL, PUSH
from connector.signatures.shown import Shown, show

# The names of facts (`connector.telemetry`, which a verifier does without).
RECEIVED, SENT, ENDED, CLOSED, PERFORMED = "message-received", "message-sent", "ended-here", "agreement-closed", "duty-performed"
REQUESTED = "request-signed"  # the first request for data with each token, at the provider
LEG, SHOWN_CHARACTERS_MAX = "leg-signed", 256  # an answer with data; so much of a header of it is on record
SINK: Final = "sink"  # at the provider: the first answer of the consumer's sink that was signed
REPEATED: Final = ("@method", "@target-uri", "range")  # what an answer says of the request that it is bound to
BRINGING: Final = ("HEAD", "PUT")  # what a provider asks of a sink
IMPLIED, ENDED_BY_PEER = "message-implied", "ended-by-peer"  # the peer's state said so, and no message of it
ORDERED, TAKES_OVER = "pull", "takes_over"  # a stage of an order of the consumer's, and where it goes on from
BEGINNINGS: Final = frozenset({"ContractRequestMessage", "ContractOfferMessage", "TransferRequestMessage"})
TERMINATED, TERMINATION = "TERMINATED", "TransferTerminationMessage"
DISCARDED: Final = "dead-letter-discarded"  # a letter that changes no process any more
NTH: Final = "nth"  # in the detail of a fact: its number among those of its process
AGREEMENT_CLOSED = "AGREEMENT_CLOSED"  # `odrl.codes`: what a provider says of an agreement that it has closed


def check(case: Case, found: Ledgers, flows: Flows) -> None:
    """All of it. Nothing that the ledger says nothing about is refused: it was written before there was one, or was erased."""
    if not found.newest:
        return
    _digests(case, found)
    for member in (*case.of("negotiation"), *case.of("transfer")):
        if member.value["state"] is not None:
            _process(case, found, member)
    for member in case.of("transfer"):
        if member.value["state"] is not None:
            _code(case, found, member)
        _taken_over(case, found, flows, member)
    _agreement(case, found, flows)
    places = _places(flows)
    for pid in found.facts:
        _whole(case, found, pid)
        _answers(case, found, places, pid)
        _requests(case, found, places, pid)
        _sinks(case, found, flows, pid)
    signed = [each.value for each in flows.all]
    instants = [each.issued for each in signed if each.issuer == case.counterparty] + [each.at for each in found.cosigned]
    found.dated = max(instants, default=found.dated)
    found.own = max((float(each.issued) for each in signed if each.issuer == case.exporter), default=found.own)


def _digests(case: Case, found: Ledgers) -> None:
    """Whether terms, decisions and the agreement are those whose digests the ledger holds."""
    pid, agreed = str(case.agreement.value["negotiation"]), case.agreement.value
    told: list[tuple[str, str, Member, str]] = [("agreement", pid, case.agreement, "document")]
    told += [("terms", str(each.value["pid"]), each, "terms") for each in case.of("negotiation") if each.value["terms"] is not None]
    told += [("decision", str(each.value["pid"]), each, "document") for each in case.of("decision")]
    for name, of, member, at in told:
        sequence, value = found.digests.get((of, name), (0, None))
        if sequence == 0 or found.blank.get(of, 0) > sequence:
            found.unheld.append(name if name == "agreement" else f"{name} of {of}")
        elif write_bytes(digest_of(member.value[at])) != value:
            case.fault(f"{name}-digest", member, f"/{at}")
    decided = {member.value["pid"] for member in case.of("decision")}
    for member in (*case.of("negotiation"), *case.of("transfer")):
        of = str(member.value["pid"])
        if member.kind == "negotiation" and member.value["terms"] is None and (of, "terms") in found.digests:
            case.fault("terms-digest", member, "/terms")
        if member.value["state"] is not None and of not in decided and (of, "decision") in found.digests:
            case.fault("decision-missing", member, "/pid")
    if FINALIZED in found.moves(pid) and not agreed["final"]:
        case.fault("agreement-final", case.agreement, "/final")


def _process(case: Case, found: Ledgers, at: Member) -> None:
    """Whether a process began when its first message is on record, is in the state that its last fact says, and has not changed since."""
    facts = found.facts.get(str(at.value["pid"]), [])
    states = [fact for fact in facts if fact.state is not None]
    if not states:
        found.unheld.append(f"state of {at.value['pid']}")
        return
    if states[-1].state != at.value["state"]:
        case.fault("state-other", at, "/state")
    first, created = states[0], at.value["created"]
    begins = first.move in BEGINNINGS and first.what in (SENT, RECEIVED)
    if created is not None and begins and abs(first.at - created) > AHEAD_SECONDS:
        case.fault("created-other", at, "/created")
    changed = next((fact.at for fact in reversed(states) if fact.what in (SENT, RECEIVED)), 0.0)
    latest = max(case.header.value["at"], found.last)  # the clock may have been set back meanwhile
    if not changed - AHEAD_SECONDS <= at.value["updated"] <= latest + AHEAD_SECONDS:
        case.fault("updated-other", at, "/updated")


def _whole(case: Case, found: Ledgers, pid: str) -> None:
    """Whether no fact of a process is missing before another one: they are numbered (`control.steps`). One whose detail was erased may
    have had the number that is missing; those that change no process have no number, and no state."""
    last, erased, whole = 0, 0, True
    for fact in found.facts[pid]:
        if fact.detail is None:
            erased += fact.state is not None and fact.what != DISCARDED
        elif isinstance(number := fact.detail.get(NTH), int):
            if not last < number <= last + 1 + erased:
                case.fault("entry-missing", fact.member, "/detail", number=number, last=last)
            whole = whole and (last > 0 or not erased)  # else those may be from before there were numbers, and stand for none
            last, erased = number, 0
        else:
            whole = whole and (fact.state is None or fact.what == DISCARDED)
    if last and whole:
        found.numbered.add(pid)


def _code(case: Case, found: Ledgers, at: Member) -> None:
    """Whether a transfer was stopped for the reason that was given then."""
    facts, code = found.facts.get(str(at.value["pid"]), []), at.value["code"]
    if any(fact.detail is None for fact in facts):
        found.unheld.append(f"code of {at.value['pid']}")
        return
    ends = [each for fact in facts if (each := _ended(fact)) is not None]
    ended = ends[-1][0] if at.value["state"] == TERMINATED and ends else None
    given = {fact.code for fact in facts} | {each for (each,) in ends}
    if (facts and code is not None and code not in given) or (ended is not None and code != ended):
        case.fault("code-other", at, "/code")


def _taken_over(case: Case, found: Ledgers, flows: Flows, at: Member) -> None:
    """Whether the receipt that a transfer of live data takes over from is one of another transfer, with this checkpoint. One that is not in
    the file is not known to be otherwise."""
    for fact in found.facts.get(str(at.value["pid"]), ()):
        cited = (fact.detail or {}).get(TAKES_OVER)
        if fact.what != ORDERED or cited is None:
            continue
        said = cited if isinstance(cited, dict) else {}
        receipt = flows.receipts.get(read_bytes(said.get("receipt"), DIGEST_BYTES) or b"")
        if receipt is None and isinstance(cited, dict) and said.get("transfer") not in (None, at.value["pid"]):
            found.unheld.append(f"from where transfer {at.value['pid']} takes over")
            continue
        point = receipt.value.checkpoint if receipt is not None else None
        held = None if receipt is None or point is None else (receipt.transfer, point.size, write_bytes(point.root))
        if held is None or held != (said.get("transfer"), said.get("leaves"), said.get("root")) or held[0] == at.value["pid"]:
            case.fault("takes-over-other", at, "/pid")
        elif receipt is not None and fact.at < receipt.value.issued - AHEAD_SECONDS:
            case.fault("entry-back-dated", fact.member, "/body", most=AHEAD_SECONDS)
        else:
            before = flows.transfers[held[0]].value["providerPid"]
            found.taken_over.append(
                (str(at.value["providerPid"]), str(before), held[1], receipt.value.sequence if receipt is not None else 0)
            )


def _ended(fact: Fact) -> tuple[str | None] | None:
    """The code of a fact that ends a transfer, None of any other. What we learn of by asking the peer for its state has one code."""
    if fact.what == IMPLIED and fact.state == TERMINATED:
        return (ENDED_BY_PEER,)
    return (fact.code,) if fact.what == ENDED or (fact.move == TERMINATION and fact.what in (SENT, RECEIVED)) else None


def _agreement(case: Case, found: Ledgers, flows: Flows) -> None:
    """Whether the agreement was made, closed and fulfilled when and as the ledger says."""
    said, facts = case.agreement.value, found.facts.get(str(case.agreement.value["negotiation"]), [])
    if not facts:
        return
    made = next((fact for fact in facts if fact.move == AGREED), None)
    if made is not None and made.at != said["created"]:
        case.fault("agreement-created", case.agreement, "/created")
    others = [fact for pid, each in found.facts.items() if pid != said["negotiation"] for fact in each]
    signed = {instant_of(said["closed"] or 0.0)} & {at.value.at for at in flows.closings if at.value.issuer == case.counterparty}
    if not _closed(said, facts, others, signed=bool(signed)):
        case.fault("agreement-closed", case.agreement, "/closed")
    acts = [fact.detail for fact in facts if fact.what == PERFORMED]
    if None in acts:
        found.unheld.append("duties performed")
    elif [{name: value for name, value in (act or {}).items() if name != "agreement"} for act in acts] != said["performed"]:
        case.fault("agreement-performed", case.agreement, "/performed")


def _closed(said: dict[str, Any] | Any, facts: Sequence[Fact], others: Sequence[Fact], *, signed: bool) -> bool:
    """Whether the end of the agreement is on record: as closed by the exporter, or as the peer's word in a termination. Of a closing that
    the peer has `signed` the instant is known, and a termination only says why."""
    closings = [fact for fact in facts if fact.what == CLOSED]
    if said["closed"] is None:
        return not closings and said["closedBy"] is None and said["reason"] is None
    if said["closedBy"] == "peer":
        closings = [fact for fact in others if fact.what == RECEIVED and fact.move == TERMINATION and fact.code in (AGREEMENT_CLOSED, None)]
        if signed:
            return said["reason"] is None or any(fact.detail is None or _reason(fact) == said["reason"] for fact in closings)
    return any(fact.at == said["closed"] and (fact.detail is None or _reason(fact) == (said["reason"] or "")) for fact in closings)


def _reason(fact: Fact) -> str:
    reasons = (fact.detail or {}).get("reasons")
    return "; ".join(map(str, reasons)) if isinstance(reasons, list) else ""


def _answers(case: Case, found: Ledgers, places: Mapping[str, str], pid: str) -> None:
    """Whether the provider has signed the answers with data that are on record of a transfer, and with what is on record of them; whether
    they are of this transfer, and of then; and whether the consumer has signed the requests that they answer. Where a base is not there
    nobody can tell."""
    for fact in (each for each in found.facts[pid] if each.what == LEG):
        detail = fact.detail or {}
        answer, request = detail.get("answer"), detail.get("request")
        if not isinstance(answer, dict):
            continue
        if not isinstance(base := answer.get("base"), str):
            found.unshown += 1
            continue
        try:
            shown = show(base, str(answer.get("input")), _signature(answer), case.provider, case.keys.get(case.provider, ()))
        except (SignatureRefused, ValueError):
            case.fault("answer-signature", fact.member, "/detail")
            continue
        if _said_of(detail) != _said_by(shown) or answer.get("digest") != sha256(base.encode()).hexdigest():
            case.fault("answer-other", fact.member, "/detail")
        elif base in found.bases:
            case.fault("answer-twice", fact.member, "/detail")
        elif abs(shown.created - fact.at) > AHEAD_SECONDS:
            case.fault("answer-time", fact.member, "/detail")
        elif _is_placed(case, found, places, fact, shown) and _is_asked(case, found, fact, shown, request):
            found.bases.add(base)
            found.answers += 1


def _requests(case: Case, found: Ledgers, places: Mapping[str, str], pid: str) -> None:
    """Whether the consumer has signed the requests for data that its provider has on record of a transfer, then, and for this one. One
    whose address names no transfer of the file may be of any other, and proves nothing here."""
    for fact in (each for each in found.facts[pid] if each.what == REQUESTED and each.detail is not None):
        request: Any = (fact.detail or {}).get("request")
        try:
            shown = _shown(case, request)
        except (SignatureRefused, ValueError):
            case.fault("request-signature", fact.member, "/detail")
            continue
        target = shown.values.get('"@target-uri"', "")
        named = {places[each] for each in (target, *map(unquote, target.split("/")[3:])) if each in places}
        if shown.tag != PULL.tag or shown.values.get('"@method"') != "GET":
            case.fault("request-other", fact.member, "/detail")
        elif str(request["base"]) in found.bases:
            case.fault("request-twice", fact.member, "/detail")
        elif abs(shown.created - fact.at) > AHEAD_SECONDS:
            case.fault("request-time", fact.member, "/detail")
        elif named and pid not in named:
            case.fault("request-transfer", fact.member, "/detail")
        elif named:
            found.bases.add(str(request["base"]))
            found.requests.append((pid, shown.created))


def _sinks(case: Case, found: Ledgers, flows: Flows, pid: str) -> None:
    """Whether the consumer has signed what its sink has answered its provider, as that has it on record of a transfer, then: so it wanted
    the data brought, where the address names this transfer and no other of the file. Which one it names, and whether two have the same,
    the consumer has chosen, so it is no fault of who brings the data."""
    ours = {str(each.value["consumerPid"]): of for of, each in flows.transfers.items()}
    for fact in (each for each in found.facts[pid] if each.what == LEG and SINK in (each.detail or {})):
        said = (fact.detail or {})[SINK]
        if not isinstance(said, dict):  # its answers cover what is nobody else's business
            continue
        try:
            base, input, text = (str(said.get(name)) for name in ("base", "input", "signature"))
            sealed = _sealed(f"x={text}", "x")
            shown = show(base, input, sealed if write_bare(sealed) == text else b"", case.consumer, case.keys.get(case.consumer, ()))
        except (SignatureRefused, ValueError):
            case.fault("sink-signature", fact.member, "/detail")
            continue
        named = {ours[each] for each in map(unquote, shown.values.get('"@target-uri";req', "").split("/")[3:]) if each in ours}
        if shown.tag != PUSH.tag or shown.values.get('"@method";req') not in BRINGING:
            case.fault("sink-other", fact.member, "/detail")
        elif abs(shown.created - fact.at) > AHEAD_SECONDS:
            case.fault("sink-time", fact.member, "/detail")
        elif named != {pid}:
            continue
        elif base in found.bases:
            case.fault("sink-twice", fact.member, "/detail")
        elif not shown.values.get('"@status"', "").startswith("4"):  # a refusal is no wish; that it is not ready yet is one
            found.bases.add(base)
            found.sinks.append((pid, shown.created))


def _shown(case: Case, request: Any) -> Shown:
    """What the consumer has signed of a request that is on record. Raises SignatureRefused, ValueError."""
    if not isinstance(request, dict) or not isinstance(base := request.get("base"), str):
        raise ValueError("there is no base")
    label, _, input = str(request.get("input")).partition("=")
    return show(base, input, _sealed(str(request.get("signature")), label), case.consumer, case.keys.get(case.consumer, ()))


def _sealed(field: str, label: str) -> bytes:
    """The signature under a label of a `Signature`; none if there is none. Raises ValueError."""
    sealed = read_dictionary(field).get(label)
    return sealed.value if isinstance(sealed, Item) and isinstance(sealed.value, bytes) else b""


def _signature(answer: Mapping[str, Any]) -> bytes:
    """The signature of an answer, in its only spelling. Raises ValueError."""
    text = str(answer.get("signature"))
    signature = b64decode(text, validate=True)
    if b64encode(signature).decode("ascii") != text:
        raise ValueError("unused bits are set")
    return signature


def _places(flows: Flows) -> dict[str, str]:
    """The transfers that an address can be of: by the provider's pids, and by the addresses to which it has promised to take receipts."""
    promised = {of.manifest.value.receipts.rpartition("/")[0]: of.manifest.transfer for of in flows.flows.values()}
    return {str(each.value["providerPid"]): pid for pid, each in flows.transfers.items()} | promised


def _is_placed(case: Case, found: Ledgers, places: Mapping[str, str], fact: Fact, shown: Shown) -> bool:
    """Whether an answer is not of another transfer in the file. An address that names none of them says of no transfer."""
    target = shown.values.get('"@target-uri";req', "").partition("?")[0]
    named = {places[each] for each in (target, *map(unquote, target.split("/")[3:])) if each in places}
    if named and fact.member.value["pid"] not in named:
        case.fault("answer-transfer", fact.member, "/detail")
        return False
    found.unplaced += not named
    return True


def _is_asked(case: Case, found: Ledgers, fact: Fact, shown: Shown, request: object) -> bool:
    """Whether what is on record of the request that an answer is bound to is what the consumer has signed."""
    if not isinstance(request, dict) or not isinstance(request.get("base"), str):
        return True
    try:
        asked = _shown(case, request)
    except (SignatureRefused, ValueError):
        case.fault("request-signature", fact.member, "/detail")
        return False
    if asked.tag != PULL.tag or any(asked.values.get(f'"{name}"') != shown.values.get(f'"{name}";req') for name in REPEATED):
        case.fault("request-other", fact.member, "/detail")
        return False
    if abs(asked.created - fact.at) > AHEAD_SECONDS:
        case.fault("answer-time", fact.member, "/detail")
        return False
    found.asked += 1
    return True


def _said_of(detail: Mapping[str, Any]) -> list[object]:
    """What is on record of an answer, beside its signature."""
    request = detail.get("request")
    asked = request.get("signature") if isinstance(request, dict) else None
    return [str(detail.get("status")), detail.get("etag"), detail.get("content-range"), asked, PULL.tag]


def _said_by(shown: Shown) -> list[object]:
    """The same by the provider."""
    of = shown.values.get
    seen = [value[:SHOWN_CHARACTERS_MAX] if (value := of(f'"{name}"')) is not None else None for name in ("etag", "content-range")]
    return [of('"@status"'), *seen, of('"signature";req'), shown.tag]
