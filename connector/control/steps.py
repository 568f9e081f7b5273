"""One step of a process as a write: what follows from a reaction, what an operator or a timer asks for, and what nobody took.

Everything that changes a process goes through `Steps.changes`, but for what is sent again: it asks the approver, puts the act in
flight, sets when the process is due again, and returns the one `Changes` value.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from connector import telemetry
from connector.control.compose import SAID, Sender, due_of, outgoing, saying
from connector.control.journal import Journal
from connector.control.negotiate import Reaction
from connector.dsp import exchange, wire
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move, Role
from connector.errors import Contradiction
from connector.metering.content import digest_of_json, write_bytes
from connector.ports import Act, Approver, Ids
from connector.records import Agreement, Changes, Edr, Evidence, Expect, Inbox, Outbound, Record
from connector.values import replace

FORM = "evidence"  # in the detail of a fact the version of evidence files that are written of it; else one could pass for an older one
NTH, FACTS = "nth", "facts"  # in the detail of a fact its number among those of its process; in that of the process the last of these
NOTHING: Mapping[str, Any] = {}
# How a move of ours that gives a right is decided anew: from the process and the instant (POSIX seconds).
Anew = Callable[[Process, float], Awaitable[Reaction]]


class Steps:
    """Builds changes of processes. `sender` is what our messages are made from."""

    def __init__(self, approver: Approver, ids: Ids, sender: Sender) -> None:
        self._approver = approver
        self.ids = ids
        self.sender = sender

    def changes(
        self,
        before: Process | None,
        reaction: Reaction,
        now: float,
        *,
        evidence: tuple[Evidence, ...] = (),
        settled: tuple[str | None, ...] = (),
        inbox: Inbox | None = None,
        ask: bool = True,
    ) -> Changes:
        """Everything that `reaction` writes. `before` is the stored process (None for a new one), `ask` whether the
        approver has a say: operators and timers have been asked already."""
        trace = telemetry.traceparent.get()
        process, act, saves = reaction.process, reaction.act, reaction.saves
        rows: tuple[Outbound, ...] = ()
        version = before.version if before else None
        members: dict[str, Any] = {"version": (version or 0) + 1, "updated": now}
        if ask and not process.final and process.in_flight is None:
            act = self._approver.next_act(process, act)
        if act is not None:
            if act.reasons:  # what the peer is told stands here too
                process = replace(process, detail=saying(process.detail, "us", act.code, act.reasons, act.grounds))
            out = outgoing(process, act, self.sender, id=self.ids.new(), now=now, trace=trace, version=(version or 0) + 1)
            members, rows, saves = out.members, (out.outbound,), (*saves, *out.saves)
            if out.outbound.act == "deliver":
                said: dict[str, Any] = {"code": act.code, "reasons": list(act.reasons)} if act.code else {}
                evidence = (*evidence, fact(telemetry.SENT, process, now, act.move, **said))
        elif process.detail.get("waiting") and not (before and before.detail.get("waiting")):
            evidence = (*evidence, fact(telemetry.WAITING, process, now))
        begins = now + act.delay_seconds if act is not None else now  # what we put off ourselves is not time that the peer took
        digests = _digests(before, process, saves)
        if digests and not evidence:  # what changes without any other fact is one itself
            evidence = (fact(telemetry.DECIDED_AGAIN, process, now),)
        if evidence:
            kept = members.get("detail", process.detail)
            evidence, members["detail"] = _numbered(evidence, kept, before.detail if before else {}, digests)
        process = replace(process, **members)
        due = due_of(process, self.sender.times, begins)
        if due != process.due:  # most that is on its way is due by its row
            process = replace(process, due=due)
        return Changes(
            expects=(Expect(Process, process.pid, version), *reaction.expects),
            saves=(process, *saves, *((inbox,) if inbox else ())),
            deletes=((Edr, process.pid),) if _holds_secrets(process) and process.final else (),
            outbox=rows,
            settled=tuple(filter(None, settled)),
            evidence=evidence,
        )

    def end(
        self,
        before: Process,
        code: str,
        reasons: str | tuple[str, ...],
        now: float,
        grounds: tuple[Mapping[str, Any], ...] = (),
        *,
        stored: Process | None = None,
        because: tuple[Evidence, ...] = (),
    ) -> Changes:
        """Terminate a process from this side with a reason, or several, that the peer gets too, whatever is in flight. A process whose
        first message was never acknowledged has nobody to be told: it just ends here. `stored` is what `before` was before it was decided
        on anew, `because` the facts that led to it."""
        said = (reasons,) if isinstance(reasons, str) else reasons
        detail = saying(before.detail, "us", code, said, grounds)
        detail.pop("waiting", None)
        process = replace(before, detail=detail)
        if process.peer_pid is None:
            process = exchange.terminated(process)
            because = (*because, fact(telemetry.ENDED, process, now, code=code))
            act = None
        else:
            act = Act(exchange.termination_of(process), code=code, reasons=said, grounds=grounds)
        settled = (before.in_flight_id,)
        return self.changes(stored or before, Reaction(process, act), now, evidence=because, settled=settled, ask=False)

    def again(self, before: Process, reaction: Reaction, row: Outbound, now: float) -> Changes:
        """Send a dead letter once more, with a fresh deadline, from the process as it is decided now (`reaction`)."""
        process, times = reaction.process, self.sender.times
        letter = replace(row, dead=False, error=None, due=now, created=now, deadline=now + times.delivery_seconds, attempts=1)
        sent = replace(exchange.send(process, row.move, row.id), version=before.version + 1, updated=now)
        told, digests = fact(telemetry.REPLAYED, sent, now, row.move), _digests(before, process, reaction.saves)
        facts, detail = _numbered((told,), _own_words(row, process.detail), before.detail, digests)
        sent = replace(sent, detail=detail, due=due_of(sent, times, now))
        expects = (Expect(Process, before.pid, before.version), *reaction.expects)
        return Changes(expects, (sent, *reaction.saves), outbox=(letter,), evidence=facts)


class DeadLetters:
    """Messages that nobody took in their time: an operator sends them again, or drops them. `anew` says how a move that gives a right is
    decided once more. Each step looks at the letter in the turn of its process: one that somebody else has taken in hand meanwhile is
    none any more."""

    def __init__(self, journal: Journal, steps: Steps, anew: Mapping[Move, Anew]) -> None:
        self._journal, self._store = journal, journal.store
        self._steps = steps
        self._anew = anew

    async def replay(self, id: str) -> bool:
        """Send a dead letter again, with a fresh deadline. False if there is no such letter or its process has moved on.
        Raises Contradiction for what is not permitted any more, an agreement or a start; its process ends with that reason."""
        letter = await self._letter(id)
        if letter is None:
            return False
        done = False
        over: tuple[str, ...] = ()

        async def step() -> Changes | None:
            nonlocal done, over
            row, process = await self._letter(id), await self._journal.process(letter.kind, letter.pid)
            now, done, over = self._journal.clock.now(), False, ()
            if row is None or process is None or process.in_flight is not None or not exchange.legal(process, process.role, row.move):
                return None
            done = True
            reaction = Reaction(process)
            if row.move in self._anew:
                reaction = await self._anew[row.move](process, now)
                if reaction.act is not None and reaction.act.move is not row.move:
                    over = reaction.act.reasons
                    return self._steps.changes(process, reaction, now, settled=(row.id,), ask=False)
            return self._steps.again(process, reaction, row, now)

        await self._journal.decide(step, letter.pid)
        if over:
            raise Contradiction(f"{'; '.join(over)}; the letter is dropped and the {letter.kind} ends with this reason", over)
        return done

    async def discard(self, id: str) -> bool:
        """Drop a dead letter; its process ends by its deadline."""
        letter = await self._letter(id)
        if letter is None:
            return False

        async def step() -> Changes | None:
            row, process = await self._letter(id), await self._journal.process(letter.kind, letter.pid)
            if row is None:
                return None
            evidence = (fact(telemetry.DISCARDED, process, self._journal.clock.now(), row.move),) if process else ()
            return Changes(settled=(id,), evidence=evidence)

        return await self._journal.decide(step, letter.pid) is not None

    async def _letter(self, id: str) -> Outbound | None:
        row = await self._store.outbound(id)
        return row if row is not None and row.dead else None


def _holds_secrets(process: Process) -> bool:
    """Whether the provider may have given us tokens for it. They end with the transfer and are not kept after it; a download
    that finishes meanwhile has its own in memory."""
    return process.kind is Kind.TRANSFER and process.role is Role.CONSUMER


def fact(what: str, process: Process, now: float, move: Move | None = None, **detail: Any) -> Evidence:
    """An evidence row about a process, and a move in it; its trace goes with it."""
    if trace := telemetry.traceparent.get():
        detail["trace"] = trace[3:35]
    return Evidence(what, process.kind, process.pid, process.peer, process.state, now, move, None, detail)


def _numbered(
    evidence: tuple[Evidence, ...], detail: Mapping[str, Any], before: Mapping[str, Any], digests: Mapping[str, str] = NOTHING
) -> tuple[tuple[Evidence, ...], dict[str, Any]]:
    """The facts of a step with their numbers among those of their process, and its `detail` with the last of these. `before` is the detail
    that is stored. So a file that leaves out what stands between others shows it (`evidence.held`). The first fact gets the `digests` of
    what the step has put on record."""
    last = before.get(FACTS, 0)
    facts, more = [], {"digests": digests} if digests else NOTHING
    for number, each in enumerate(evidence, last + 1):
        facts.append(each.saying({NTH: number, FORM: 3, **more}))
        more = NOTHING
    return tuple(facts), {**detail, FACTS: last + len(facts)}


def _digests(before: Process | None, process: Process, saves: tuple[Record, ...]) -> dict[str, str]:
    """The digests of what a step puts on record: terms, decision, agreement. So the ledger holds them, and nobody can say later that
    something else was decided."""
    known, known_id = (before.detail, before.agreement) if before else ({}, None)
    told: dict[str, str] = {}
    for name in ("terms", "decision"):
        if (document := process.detail.get(name)) is not known.get(name):
            told |= _digest(name, document)
    for each in saves:
        if isinstance(each, Agreement) and process.kind is Kind.NEGOTIATION and known_id != each.id:
            told |= _digest("agreement", each.document)
    return told


def _digest(name: str, document: Mapping[str, Any] | None) -> Mapping[str, str]:
    try:
        return NOTHING if document is None else {name: write_bytes(digest_of_json(document))}
    except ValueError:  # JCS cannot say it (a number beyond 2^53), so no evidence file can either
        return NOTHING


def _own_words(row: Outbound, detail: Mapping[str, Any]) -> dict[str, Any]:
    """The detail of a process with what a message of ours gives for a reason, and nothing of what was said before."""
    said = saying(detail, "us", *wire.said_of(wire.object_of(row.body)))
    return said if said["reasons"] else {name: value for name, value in said.items() if name not in SAID}
