"""Turns a decision to act into the process in flight, its outbox row, and what else is saved with it; and says what an agreement has to be.
No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from connector.control.policies import Policies, Read
from connector.dsp import exchange, wire
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move, Role, path_of
from connector.errors import PolicyError
from connector.odrl import values
from connector.ports import Act
from connector.records import Agreement, Outbound, Record
from connector.values import Value

SAID = ("code", "reasons", "grounds", "ended_by")  # what a process keeps of who has stopped it, and why
BARE = ("@context", "@id", "@type", "target", "assigner", "assignee", "timestamp")
# DSP 2025-1, contract schema: XSD dateTime. The schema's pattern is not anchored and the member optional; the text demands it.
TIMESTAMP = re.compile(r"-?\d{4,}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?")
DAY_SECONDS = 86_400.0
# States of a negotiation in which everything is decided: who offered has said yes already, and what is left are steps of a
# machine. In every other one a person may have to think, here or over there, and nobody can see which.
DECIDED = frozenset({"ACCEPTED", "AGREED", "VERIFIED"})


class Times(Value):
    """How long a step may take, in seconds: to deliver, to wait for the peer's machine, to wait for an operator."""

    delivery_seconds: float = 86_400
    step_seconds: float = 3_600
    approval_seconds: float = 604_800


class Sender(Value):
    """What every message of ours is made from: our participant id, our base URL for callbacks, and the times."""

    participant: str
    callback: str
    times: Times


class Outgoing(Value):
    """A move of ours, ready to be committed. `members` are those of the process that change by it."""

    members: dict[str, Any]
    outbound: Outbound
    saves: tuple[Record, ...] = ()


def outgoing(process: Process, act: Act, sender: Sender, *, id: str, now: float, trace: str | None, version: int) -> Outgoing:
    """Put `act` in flight: returns what changes of the process in its new `version`, the outbox row (id `id`) and further records to
    save with them.

    An act with a delay becomes a "decide" row: it is looked at again when it is due, and only counts if the process has
    not changed meanwhile from that version. Raises IllegalMessage if the state table forbids the move.
    """
    times = sender.times
    members: dict[str, Any] = {"version": version, "updated": now}
    if act.delay_seconds > 0:
        body = orjson.dumps({"version": version, "code": act.code, "reasons": act.reasons, "grounds": act.grounds})
        return Outgoing(members, _row(process, act.move, "decide", body, id, now + act.delay_seconds, now, times, trace))
    members |= exchange.sending(process, act.move, id)
    if act.move is Move.CONTRACT_AGREEMENT:
        members["agreement"] = id
    if act.move is Move.START and process.role is Role.PROVIDER:  # each start ends the tokens of the one before
        members["detail"] = dict(process.detail) | {"generation": process.detail.get("generation", 0) + 1}
    if act.move.termination:  # what the peer is told is what an operator reads here
        members["detail"] = saying(process.detail, "us", act.code, act.reasons, act.grounds)
    said, saves = _said(process, act, sender, id, now)
    body = orjson.dumps(wire.message(act.move, consumer_pid=process.consumer_pid, provider_pid=process.provider_pid, **said))
    return Outgoing(members, _row(process, act.move, "deliver", body, id, now, now, times, trace), saves)


def saying(
    detail: Mapping[str, Any], by: str | None, code: str | None, reasons: Sequence[str], grounds: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """The detail of a process with who has stopped it (`us` or `peer`; None: nobody has) and why, in place of whatever was said
    before. `grounds` are the reasons as data (`Decision.grounds`)."""
    kept = {name: value for name, value in detail.items() if name not in SAID}
    said = {"code": code, "reasons": list(reasons), "ended_by": by}
    return kept | said | ({"grounds": list(grounds)} if grounds else {})


def _row(process: Process, move: Move, act: str, body: bytes, id: str, due: float, now: float, times: Times, trace: str | None) -> Outbound:
    path = path_of(move, process.peer_pid)
    return Outbound(id, process.pid, process.kind, process.peer, act, move, path, body, due, due + times.delivery_seconds, now, trace=trace)


def _said(process: Process, act: Act, sender: Sender, id: str, now: float) -> tuple[dict[str, Any], tuple[Record, ...]]:
    """The members of the message beyond type and pids."""
    detail, first = process.detail, process.peer_pid is None
    callback = sender.callback if first else None
    match act.move:
        case Move.CONTRACT_REQUEST | Move.CONTRACT_OFFER:
            return {"offer": detail["terms"], "callbackAddress": callback}, ()
        case Move.CONTRACT_AGREEMENT:
            agreement = agreement_record(process, sender.participant, id, now)
            return {"agreement": agreement.document}, (agreement,)
        case Move.TRANSFER_REQUEST:
            return {"agreementId": process.agreement, "format": detail["format"], "callbackAddress": callback}, ()
        case Move.CONTRACT_TERMINATION | Move.TRANSFER_TERMINATION | Move.SUSPENSION:
            return {"code": act.code, "reason": wire.reason_items(act.reasons, act.grounds) or None}, ()
        case _:
            return {}, ()


def agreement_record(process: Process, participant: str, id: str, now: float) -> Agreement:
    """The agreement over the terms on the table; we are the provider, hence the assigner. `id` is the outbox row's, so
    that what is decided twice after a crash would still be one agreement."""
    terms: Mapping[str, Any] = process.detail["terms"]
    rules = {k: v for k, v in terms.items() if k not in BARE}
    document = {
        "@id": id,
        "@type": "Agreement",
        "target": process.dataset,
        "assigner": participant,
        "assignee": process.peer,
        "timestamp": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    } | rules
    return agreement_of(document, process, now, process.detail.get("ends"))


def agreement_of(document: Mapping[str, Any], process: Process, now: float, ends: float | None) -> Agreement:
    """The record of an agreement document, ours or one that a provider sent us, whose policy ends at that instant."""
    return Agreement(
        id=document["@id"],
        negotiation=process.pid,
        peer=process.peer,
        provider=document["assigner"],
        consumer=document["assignee"],
        dataset=document["target"],
        document=document,
        digest=wire.digest(document),
        ends=ends,
        created=now,
    )


async def faults(process: Process, agreement: Read, policies: Policies, own: str, now: float) -> tuple[str, ...]:
    """What is wrong about an agreement for participant `own`: it is between the two of us, over the terms on the table, with all that the
    text demands. Where whatever permits our purposes will do, so will terms that give all that we asked for and ask no more of us: Eclipse
    EDC agrees on the policy of its offer, however it was narrowed."""
    document = agreement.document
    wanted = {"target": process.dataset, "assigner": process.peer, "assignee": own}
    found = [f"{name} is `{document.get(name)}`, it has to be `{value}`" for name, value in wanted.items() if document.get(name) != value]
    if not TIMESTAMP.fullmatch(said := str(document.get("timestamp", ""))):
        found.append("the agreement has no timestamp in the form of an XSD dateTime")
    elif not _in_its_time(said, process, now):
        found.append(f"the agreement is dated `{said[:40]}`, and was made between the begin of its negotiation and now")
    table = await policies.read_aside(process.detail["terms"])
    if not policies.same(table, agreement) and not _gives_more(process, table, agreement, policies, own):
        found += ["the terms differ from the last offer", *await policies.differences_aside(table, agreement)]
    return tuple(found)


def _in_its_time(timestamp: str, process: Process, now: float) -> bool:
    """Whether an agreement may have been signed at that time. What has to be done so long after it would else be overdue, or not due, as
    whoever dates it likes. It may lack its zone, and clocks may be wrong: by hours, or nobody would believe a token of the other."""
    try:
        signed = values.stretch({"@value": timestamp, "@type": "xsd:dateTime"}).start / values.SECOND
    except PolicyError:
        return False
    return min(process.created, now) - DAY_SECONDS <= signed <= now + DAY_SECONDS


def _gives_more(process: Process, table: Read, agreement: Read, policies: Policies, own: str) -> bool:
    """Whether we took no risk with such an agreement, and had said that it will do."""
    understood = not isinstance(table.policy, PolicyError) and not isinstance(agreement.policy, PolicyError)
    if process.detail.get("accept") != "permitted" or not understood:
        return False
    target, templates = process.dataset or "", process.detail.get("acceptance", ())
    within = policies.settle(table, agreement, party=own, target=target).kind == "refines"
    if not within or policies.burdens(agreement, table, own=own, target=target):
        return False
    return not templates or policies.settle_any(agreement, templates, own=own, target=target).kind == "refines"


def patience_of(process: Process, times: Times) -> float:
    """How long a process in which nothing is in flight may stay in its state, in seconds.

    Where it is our turn an operator has to say something: it waits for approval, or its message is a dead letter. Where the
    peer may have to decide, its operator has as long as ours, and then the time of a step for the word to come here: so the
    side where nobody decided is the one that ends it, and its reason stands on both.
    """
    if ours_to_say(process):
        return times.approval_seconds
    return times.step_seconds if process.state in DECIDED else times.approval_seconds + times.step_seconds


def ours_to_say(process: Process) -> bool:
    """Whether it is for this side to say something: in INITIAL nobody else knows of the process."""
    return process.our_turn or process.state == exchange.INITIAL


def due_of(process: Process, times: Times, now: float) -> float | None:
    """When somebody has to look at the process again: the end of a step that waits for the peer or an operator, or the next
    instant at which the decision on a transfer of ours may be another, or the end of the quiet time of one that runs and has been
    fully delivered. Nothing else is due while a message is in flight: its row has a deadline."""
    if process.final:
        return None
    if process.kind is Kind.TRANSFER and process.meant in ("STARTED", "SUSPENDED"):
        if process.role is Role.CONSUMER:
            return None
        names = ["ends", *(("claims_expire", "looks") if process.meant == "STARTED" else ("returns",))]
        if process.in_flight is None:
            names += ["again", "covered"] if process.state == "STARTED" else ["again"]
        return min((at for name in names if (at := process.detail.get(name)) is not None), default=None)
    return None if process.in_flight else now + patience_of(process, times)
