"""What is in the file of ledgers: every checkpoint signed, the exporter's all of one log, and each entry at its place in it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import chain as together
from typing import Any

import orjson

from connector.errors import ProofRefused
from connector.evidence.case import AHEAD_SECONDS, Case, Cosigned, Fact, Ledgers, Place
from connector.evidence.flows import Flows
from connector.evidence.members import Member
from connector.merkle import checkpoints, notes, succession
from connector.merkle.tree import leaf_hash, verify_consistency, verify_inclusion
from connector.metering import passed
from connector.metering.content import read_bytes

DIGEST_BYTES = 32
FACT = {"at", "detail", "digest", "kind", "move", "peer", "pid", "state", "v", "what"}  # members of an entry that is no signed object
AGREED, FINALIZED = "ContractAgreementMessage", "ContractNegotiationEventMessage:FINALIZED"
TRANSFER = ("TransferRequestMessage", "TransferStartMessage")  # each that was metered has had them


def check(case: Case, flows: Flows) -> Ledgers:
    """All of it."""
    found = Ledgers()
    for member in case.of("checkpoint"):
        _checkpoint(case, found, member)
    for by, owner, note, member, at in _shown(case, flows):
        _note(case, found, owner, note, member, "/jws", at, by)
    _grown(case, found)
    _succeeded(case, found)
    _entries(case, found, flows)
    _unlogged(case, found, flows)
    return found


def _shown(case: Case, flows: Flows) -> Iterator[tuple[str, str, str, Member, int]]:
    """The notes in signed objects: who says it, of whose ledger, the note, where, and when it was shown (POSIX seconds)."""
    for each in together(flows.receipts.values(), flows.acks, flows.statements):
        if each.value.ledger is not None:
            yield each.value.issuer, each.value.issuer, each.value.ledger, each.member, each.value.issued
    for each in flows.statements:
        if each.value.peer is not None:
            yield each.value.issuer, each.value.audience, each.value.peer, each.member, each.value.issued


def _checkpoint(case: Case, found: Ledgers, at: Member) -> None:
    owner, note = str(at.value["of"]), str(at.value["note"])
    if owner not in case.keys:
        case.fault("checkpoint-owner", at, "/of")
        return
    if (owner, note) in found._notes:
        case.fault("checkpoint-twice", at, "/note")
        return
    place = _note(case, found, owner, note, at, "/note", case.header.value["at"])
    if place is None or owner != case.exporter:
        return
    _, origin, size = place
    newest = found.newest.get(origin)
    if newest is None or newest.size < size:
        found.newest[origin] = checkpoints.read(notes.read(note.encode()).text)
    _cosignatures(case, found, note, place, at)


def _cosignatures(case: Case, found: Ledgers, note: str, place: Place, at: Member) -> None:
    owner, origin, size = place
    read = notes.read(note.encode())
    if len(read.signatures) == 1:
        return
    try:
        verified = notes.verify(read, case.witness_keys(owner, read))
    except ProofRefused as refused:
        code = "checkpoint-cosigner" if refused.code == "signature-untrusted" else refused.code
        case.refused(code, refused.message, at, "/note")
        return
    for each in verified:
        at_instant = each.at or 0
        keys = [key for key in case.keys.get(each.key.name, ()) if key.public == each.key.public]
        if keys and not any(key.valid(at_instant) or key.valid(at_instant + 1) for key in keys):  # in a second in which it was made
            case.fault("cosignature-ended", at, "/note")
        else:
            found.cosigned.append(Cosigned(origin, size, each.key.name, at_instant))


def _note(case: Case, found: Ledgers, owner: str, note: str, at: Member, pointer: str, shown: float, by: str | None = None) -> Place | None:
    """The place that a note signs for, which was `shown` then (POSIX seconds); None, and a finding, if it does not hold. What the
    counterparty has signed as a note (`by`) and is none accuses it: the exporter has to keep what it was sent. Notes that stand in many
    objects are looked at once."""
    if (owner, note) in found._notes:
        return found._notes[owner, note]
    found._notes[owner, note] = None
    data = note.encode("utf-8", "surrogatepass")
    origin = note.partition("\n")[0]
    try:
        said = checkpoints.open(data, origin, case.log_keys(owner, origin, shown, notes.read(data))).checkpoint
    except ProofRefused as refused:
        case.refused(refused.code, refused.message, at, pointer, accuses=by == case.counterparty)
        return None
    _lines(case, found, owner, said, at, pointer)
    place = found._notes[owner, note] = (owner, origin, said.size)
    root, _ = found.seen.setdefault(place, (said.root, at))
    if root != said.root:
        _wrong(case, owner, "checkpoint-forked", at, pointer, size=said.size)
    return place


def _lines(case: Case, found: Ledgers, owner: str, said: checkpoints.Checkpoint, at: Member, pointer: str) -> None:
    """Whether the extension lines of a checkpoint are what they begin as. Those of others are others' words, and are named."""
    for line in said.extensions:
        word, _, rest = line.partition(" ")
        try:
            if word == succession.WORD:
                if (cited := succession.read_follows(line)).origin == said.origin:
                    raise ProofRefused("a log takes its own place", succession.CODE)
                found._cited.append((owner, cited, at, pointer))
            elif word == passed.PREFIX.rstrip():
                passed.write((rest,))
            elif line not in (lines := found.unknown.setdefault(owner, [])):
                lines.append(line)
        except ProofRefused as refused:
            _wrong(case, owner, refused.code, at, pointer)


def _succeeded(case: Case, found: Ledgers) -> None:
    """Whether what a log says of the one whose place it takes is what that one has signed. The exporter has one log: of several all but
    the first take the place of another, which grows no more; else it could show to each what suits it."""
    for owner, cited, at, pointer in found._cited:
        known = found.seen.get((owner, cited.origin, cited.size))
        if known is not None and known[0] != cited.root:
            _wrong(case, owner, "checkpoint-succeeds", at, pointer, size=cited.size)
        before = found.newest.get(cited.origin) if owner == case.exporter else None
        if before is not None and before.size > cited.size:
            case.fault("checkpoint-outgrown", at, pointer, size=cited.size)
    following = {origin for origin, log in found.newest.items() if any(line.split(" ")[0] == succession.WORD for line in log.extensions)}
    first = sorted(found.newest.keys() - following)
    for origin in first[1:]:
        case.fault("checkpoint-second", found.seen[case.exporter, origin, found.newest[origin].size][1], "/note")


def _wrong(case: Case, owner: str, code: str, at: Member, pointer: str, **values: object) -> None:
    """What is wrong with a checkpoint of the exporter is wrong with the file; with one of another, it accuses that one."""
    if owner == case.exporter:
        case.fault(code, at, pointer, **values)
    else:
        case.accuse(code, at, **values)


def _grown(case: Case, found: Ledgers) -> None:
    """Whether each checkpoint that the exporter has signed is the beginning of its newest."""
    proven = set()
    for member in case.of("consistency"):
        log, old = str(member.value["log"]), int(member.value["old"])
        newest, known = found.newest.get(log), found.seen.get((case.exporter, log, old))
        if newest is None or known is None or member.value["size"] != newest.size:
            case.fault("consistency-root", member, "/old")
            continue
        if (log, old) in proven:
            case.fault("consistency-twice", member, "/old")
        try:
            verify_consistency(old, known[0], newest.size, newest.root, _hashes(member.value["proof"]))
        except ProofRefused as refused:
            case.refused(refused.code, refused.message, member, "/proof")
        proven.add((log, old))
    for (owner, origin, size), (_, member) in found.seen.items():
        if owner != case.exporter or (origin, size) in proven:
            continue
        newest = found.newest.get(origin)
        if newest is None or newest.size < size:
            case.fault("checkpoint-absent", member)
        elif newest.size != size:
            case.fault("checkpoint-unproven", member, size=size)


def _entries(case: Case, found: Ledgers, flows: Flows) -> None:
    agreed = case.agreement.value
    pids = {str(member.value["pid"]) for member in case.of("transfer")} | {str(agreed["id"]), str(agreed["negotiation"])}
    sequences: set[int] = set()
    standing: dict[str, dict[int, tuple[int, Member]]] = {}
    before: dict[str, int] = {}  # the last sequence of each pid, whose entries stand in their order
    for member in case.of("entry"):
        said = member.value
        log, index, sequence = str(said["log"]), int(said["index"]), int(said["sequence"])
        newest, places = found.newest.get(log), standing.setdefault(log, {})
        if newest is None:
            case.fault("entry-log", member, "/log")
        elif sequence in sequences or index in places:
            case.fault("entry-twice", member, "/index")
        elif said["pid"] not in pids:
            case.fault("entry-foreign", member, "/pid")
        elif (entry := _body(case, found, flows, member)) is not None:
            try:
                verify_inclusion(leaf := leaf_hash(entry), index, newest.size, _hashes(said["proof"]), newest.root)
            except ProofRefused as refused:
                code = "entry-index" if refused.code == "index-outside" else refused.code
                case.refused(code, refused.message, member, "/proof")
                continue
            if sequence < before.setdefault(str(said["pid"]), sequence):
                case.fault("entry-order", member, "/sequence")
            before[str(said["pid"])] = sequence
            sequences.add(sequence)
            places[index] = sequence, member
            found.leaves.append(leaf)
            found.standing[log, index] = str(said["pid"])
    for log, places in standing.items():
        found.entries[log] = sorted(places)
        _in_order(case, found, [places[index] for index in found.entries[log]])


def _in_order(case: Case, found: Ledgers, entries: Sequence[tuple[int, Member]]) -> None:
    """Whether entries, in the order of their places, are in the order of their sequences. Where the clock that they were written by went
    back is noted, and accuses nobody: the places prove the order, and an operator sets a clock that was ahead."""
    last, before = 0, float("-inf")
    for sequence, member in entries:
        if sequence <= last:
            case.fault("entry-order", member, "/sequence")
        last = max(last, sequence)
        if (at := _instant(member.value)) is not None:
            if at < before - AHEAD_SECONDS:
                found.set_back.append((str(member.value["log"]), int(member.value["index"]), before - at))
            before, found.last = at, max(found.last, at)


def _body(case: Case, found: Ledgers, flows: Flows, at: Member) -> bytes | None:
    """The bytes of an entry; None, and a finding, if it is none of this agreement."""
    said = at.value
    if (said["body"] is None) == (said["jws"] is None):
        case.fault("entry-form", at)
        return None
    if said["jws"] is not None:
        if said["detail"] is not None or said["salt"] is not None:  # nothing would prove them
            case.fault("entry-half", at, "/detail")
            return None
        name = read_bytes(said["jws"], DIGEST_BYTES) or b""
        signed = flows.objects.get(name)
        anywhere = signed is not None and signed.kind == "statement"  # one may be sent for its transfer, and for a period
        if signed is None or not (anywhere or signed.value["transfer"] == said["pid"]):
            case.fault("entry-object", at, "/jws")
            return None
        found.places.setdefault(name, (str(said["log"]), int(said["index"])))
        return str(signed.value["jws"]).encode()
    return str(said["body"]).encode() if _fact(case, found, at) else None


def _fact(case: Case, found: Ledgers, at: Member) -> bool:
    said = at.value
    fact = _written(said["body"])
    if not isinstance(fact, dict) or fact.keys() != FACT or type(fact["at"]) not in (int, float) or fact["v"] != 1:
        case.fault("entry-json", at, "/body")
        return False
    if (fact["pid"], fact["peer"]) != (said["pid"], case.counterparty):
        case.fault("entry-foreign", at, "/body")
        return False
    if (said["detail"] is None) != (said["salt"] is None):
        case.fault("entry-half", at, "/detail")
        return False
    if said["detail"] is None:
        found.erased += 1
        found.blank[str(fact["pid"])] = max(int(said["sequence"]), found.blank.get(str(fact["pid"]), 0))
    elif sha256(bytes.fromhex(said["salt"]) + said["detail"].encode()).hexdigest() != fact["detail"]:
        case.fault("entry-detail", at, "/detail")
        return False
    elif not _is_single(said["detail"]):
        case.fault("entry-text", at, "/detail")
        return False
    else:
        _digests(found, str(fact["pid"]), int(said["sequence"]), said["detail"])
    detail = None if said["detail"] is None else _detail(said["detail"])
    state, move, digest = (each if isinstance(each := fact[name], str) else None for name in ("state", "move", "digest"))
    known = found.facts.setdefault(str(fact["pid"]), [])
    known.append(Fact(int(said["sequence"]), float(fact["at"]), str(fact["what"]), state, move, detail, at, digest))
    return True


def _written(body: str) -> Any:
    """The fact of a body in its only spelling (`records.ledger.entry_of`), as what another program reads otherwise says nothing; None for
    what is not written so."""
    try:
        fact = orjson.loads(body)
        return fact if orjson.dumps(fact, option=orjson.OPT_SORT_KEYS) == body.encode() else None
    except (ValueError, TypeError):  # a TypeError of orjson's: too deep to be written back
        return None


def _is_single(detail: str) -> bool:
    """Whether a detail is JSON in which no name stands twice: of two each program takes the one it likes, and secrets are looked for in
    one of them."""
    try:
        if detail and orjson.dumps(orjson.loads(detail)) != detail.encode():  # written back to the letter it has lost nothing
            json.loads(detail, object_pairs_hook=_without_twins)
    except (ValueError, TypeError, RecursionError):
        return False
    return True


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _detail(text: str) -> Mapping[str, Any]:
    """What the detail of an entry says; that it is what was written is proven already."""
    try:
        said = orjson.loads(text) if text else {}
    except orjson.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}


def _digests(found: Ledgers, pid: str, sequence: int, detail: str) -> None:
    """What the detail of an entry says of terms, decision and agreement."""
    digests = _detail(detail).get("digests")
    for name, value in digests.items() if isinstance(digests, dict) else ():
        if sequence > found.digests.get((pid, name), (0, None))[0]:
            found.digests[pid, name] = sequence, value


def _instant(said: Mapping[str, Any]) -> float | None:
    """The instant that a fact says; a signed object says one of its signer's clock."""
    return float(orjson.loads(said["body"])["at"]) if said["body"] is not None else None


def _unlogged(case: Case, found: Ledgers, flows: Flows) -> None:
    """Whether everything that has to be in the exporter's ledger is there, and stands where it was said to stand."""
    if not found.newest:
        return
    for name, member in flows.objects.items():
        if name not in found.places:
            case.fault("entry-unlogged", member, "/jws")
    if case.exporter == case.provider:
        for ack in flows.acks:
            place = found.places.get(ack.value.receipt)
            if ack.value.index is not None and place is not None and place[1] != ack.value.index:
                case.fault("ack-index", ack.member, "/jws")
    wanted: dict[str, Sequence[str]] = {flow.manifest.transfer: TRANSFER for flow in flows.flows.values()}
    wanted[str(case.agreement.value["negotiation"])] = (AGREED, FINALIZED) if case.agreement.value["final"] else (AGREED,)
    for pid, moves in wanted.items():
        known = found.moves(pid)
        for move in moves if known else ():
            if move not in known:
                case.fault("entry-message", case.agreement, "", move=move)


def _hashes(proof: bytes) -> tuple[bytes, ...]:
    return tuple(proof[at : at + DIGEST_BYTES] for at in range(0, len(proof), DIGEST_BYTES))
