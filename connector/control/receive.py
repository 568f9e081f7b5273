"""Takes a message of a peer: one transaction of inbox, state, evidence and outbox, and then the answer.

The order of the checks is fixed (DSP 2025-1, HTTPS binding, and what hides existence): who is calling, which process, is it
the caller's, do the pids fit, is it a repeat, does the table allow it, can its content be accepted.
"""

from __future__ import annotations

from typing import Any

import orjson

from connector import telemetry
from connector.control.journal import Journal
from connector.control.negotiate import Negotiations, Reaction
from connector.control.steps import Steps, fact
from connector.control.transfers import Transfers
from connector.dsp import exchange, wire
from connector.dsp.exchange import Process
from connector.dsp.messages import OTHER, PID_CHARACTERS_MAX, Kind, Message, Move, Role, is_pid
from connector.errors import IllegalMessage, Refused, UnknownProcess, WireError
from connector.origins import origin
from connector.ports import Act, Caller
from connector.records import Agreement, Changes, Evidence, Inbox
from connector.values import Value

# Moves that create a process, and the role that the receiver then has.
FIRST: dict[Move, Role] = {
    Move.CONTRACT_REQUEST: Role.PROVIDER,
    Move.CONTRACT_OFFER: Role.CONSUMER,
    Move.TRANSFER_REQUEST: Role.PROVIDER,
}


class Answer(Value):
    """What goes back to the peer: status and body."""

    status: int
    body: bytes


class Receiver:
    """Receives messages for both kinds of process and both roles."""

    def __init__(self, journal: Journal, steps: Steps, negotiations: Negotiations, transfers: Transfers) -> None:
        self._journal = journal
        self._store = journal.store
        self._steps, self._transfers = steps, transfers
        self._reactions: dict[Kind, Negotiations | Transfers] = {Kind.NEGOTIATION: negotiations, Kind.TRANSFER: transfers}

    async def find(self, caller: Caller, kind: Kind, pid: str) -> Process:
        """The caller's process. Raises UnknownProcess for one that does not exist, is someone else's, or has a malformed
        pid: all three are one answer, so that nobody learns what exists."""
        process = await self._journal.process(kind, pid)
        begun = process is not None and (process.state != exchange.INITIAL or process.in_flight is not None)
        if process is None or not begun or process.peer != caller.participant.id:
            raise UnknownProcess(f"there is no {kind} `{pid}` of yours")
        return process

    async def state(self, caller: Caller, kind: Kind, pid: str) -> Answer:
        """Answer a GET of a process, from the store: it says what is durable, and all that we know is."""
        await self._journal.settled(pid)
        process = await self._store.process(kind, pid)
        if process is None or process.peer != caller.participant.id or process.state == exchange.INITIAL:
            raise UnknownProcess(f"there is no {kind} `{pid}` of yours")
        return Answer(200, _document(process))

    async def message(self, caller: Caller, message: Message, pid: str | None) -> Answer:
        """Accept `message`, addressed to our process `pid` (None: it begins one).

        Returns the answer, which is sent only after everything is durable. Raises UnknownProcess, WireError,
        IllegalMessage or Refused; nothing has changed then.
        """
        answer: Answer | None = None
        attempts = 0

        async def step() -> Changes | None:
            nonlocal answer, attempts
            attempts += 1
            again = attempts > 1  # what was to be written is not as new as the write expects: now it is looked at
            now = self._journal.clock.now()
            before = await self._find_or_none(caller, message, pid, again)
            if before is not None:
                answer = await self._repeat(before, message, first=pid is None)
                if answer is not None:
                    return None
            process = before or self._begin(caller, message, now)
            received = exchange.receive(process, message, **_vouched(process, caller))
            if received.replay:
                answer = await self._stored(before, process)
                return None
            reaction = await self._reactions[process.kind].react(received.process, message, caller, now)
            if again:
                reaction = await self._unless_taken(received.process, reaction)
            answer = Answer(201 if before is None else 200, _document(reaction.process))
            inbox = Inbox(process.pid, message.move, message.digest, _kept(message), answer.status, answer.body, now)
            evidence = self._evidence(process, received, reaction.process, message, now)
            return self._steps.changes(before, reaction, now, evidence=evidence, settled=(received.settled,), inbox=inbox)

        if message.move is Move.TRANSFER_REQUEST:
            await self._transfers.settled(message.document, caller, self._journal.clock.now)
        try:
            await self._journal.decide(step, pid)
        except (IllegalMessage, Refused, WireError):
            telemetry.count_message(message.move, "in", "refused")
            raise
        assert answer is not None  # noqa: S101 - `step` sets it or raises
        telemetry.count_message(message.move, "in", "accepted")
        telemetry.log.debug("message taken", move=message.move, pid=pid, peer=caller.participant.id, status=answer.status)
        return answer

    async def _unless_taken(self, process: Process, reaction: Reaction) -> Reaction:
        """The reaction, if the agreement that it puts on record is a new one."""
        for expect in reaction.expects:
            if expect.of is Agreement and expect.version is None and await self._store.agreement(str(expect.key)) is not None:
                fault = f"the agreement id `{expect.key}` is that of another agreement"
                return Reaction(process, Act(Move.CONTRACT_TERMINATION, code="agreement-incorrect", reasons=(fault,)))
        return reaction

    async def _find_or_none(self, caller: Caller, message: Message, pid: str | None, again: bool) -> Process | None:
        """The process that the message speaks of; None if it begins one that we do not know. Whether a pid that the peer tells us is that
        of another process the write finds out, and only then, `again`, it is looked up here."""
        kind = message.move.kind
        if pid is None:
            theirs = message.pid_of(OTHER[FIRST[message.move]])
            return await self._store.process_of_peer(kind, caller.participant.id, theirs or "")
        process = await self.find(caller, kind, pid)
        pair = {Role.CONSUMER: message.consumer_pid, Role.PROVIDER: message.provider_pid}
        ours, peers = pair[process.role], pair[OTHER[process.role]]
        if ours != process.pid or (process.peer_pid is not None and peers != process.peer_pid):
            raise WireError(f"the pids of the message contradict its address: it was sent to `{pid}`, which belongs with other pids")
        if process.peer_pid is None:  # it overtook the answer to our first message, and tells us the peer's pid
            _demand_pid(peers, OTHER[process.role])
            known = await self._store.process_of_peer(process.kind, process.peer, peers or "") if again else None
            if known is not None and known.pid != process.pid:
                raise _taken(known)
        return process

    async def _repeat(self, process: Process, message: Message, *, first: bool) -> Answer | None:
        """An equal first message finds its process; another one under the same pid is an error."""
        if not first:
            return None
        if process.detail.get("first") != _said(message):
            raise _taken(process)
        telemetry.count_message(message.move, "in", "replay")
        if exchange.repeats(process, message) and (stored := await self._store.last_answer(process.pid)):
            return Answer(stored.status, stored.answer)
        return Answer(200, _document(process))

    async def _stored(self, before: Process | None, process: Process) -> Answer:
        stored = await self._store.last_answer(process.pid) if before else None
        return Answer(stored.status, stored.answer) if stored else Answer(200, _document(process))

    def _begin(self, caller: Caller, message: Message, now: float) -> Process:
        """A process that the peer begins. Its callback address has to be one of its own registered origins."""
        move = message.move
        role = FIRST[move]
        callback = message.document.get("callbackAddress")
        if message.pid_of(role) is not None or callback is None:
            raise WireError(f"`{move}` begins a {move.kind} here: it needs `callbackAddress` and has no `{role}Pid`")
        _demand_pid(message.pid_of(OTHER[role]), OTHER[role])
        return Process(
            move.kind,
            self._steps.ids.new(),
            role,
            caller.participant.id,
            callback_of(caller, callback),
            detail={"first": _said(message)},
            created=now,
            updated=now,
        )

    @staticmethod
    def _evidence(before: Process, received: exchange.Received, after: Process, message: Message, now: float) -> tuple[Evidence, ...]:
        rows: tuple[Evidence, ...] = ()
        if received.settled and before.in_flight and not received.overruled:
            rows = (fact(telemetry.IMPLIED, before, now, before.in_flight),)
        # With the reasons, as a digest without a salt would let anybody try what they were who sees the entry after they are erased.
        said: dict[str, Any] = {"message": message.digest.hex()}
        if "code" in message.document or "reason" in message.document:
            code, reasons = wire.reasons_of(message.document)
            said |= {"code": code, "reasons": list(reasons)} if code or reasons else {}
        return (*rows, fact(telemetry.RECEIVED, after, now, message.move, **said))


def _said(message: Message) -> str:
    """What a first message says whenever it is sent. A data address is minted for each attempt: the first that came counts."""
    document = message.document
    if "dataAddress" not in document:
        return message.digest.hex()
    return wire.digest({name: value for name, value in document.items() if name != "dataAddress"}).hex()


def _demand_pid(pid: str | None, role: Role) -> None:
    if not is_pid(pid):
        raise WireError(
            f"`{role}Pid` is not usable: it has to be at most {PID_CHARACTERS_MAX} visible ASCII characters, and neither `.` nor `..` alone"
        )


def _taken(process: Process) -> Refused:
    name = "consumerPid" if process.role is Role.PROVIDER else "providerPid"
    return Refused(f"`{name}` `{process.peer_pid}` is taken by another {process.kind} of yours; use a new one", code="pid-taken")


def _vouched(process: Process, caller: Caller) -> dict[str, Any]:
    """The claims that a provider goes by in a negotiation are kept with the instant until which they are vouched for (POSIX seconds)."""
    if process.kind is Kind.TRANSFER or process.role is Role.CONSUMER:
        return {}
    return {"detail": {**process.detail, "claims_expire": caller.expires}}


def _kept(message: Message) -> bytes:
    """What stays of a message when it has been taken. The tokens of a data address are no part of it: they are kept once, and
    go with their transfer."""
    document = message.document
    if "dataAddress" in document:
        document = {name: value for name, value in document.items() if name != "dataAddress"}
    return orjson.dumps(document)


def callback_of(caller: Caller, address: str) -> str:
    """Check a callback address against the caller's registered origins; returns it without a trailing slash.

    Raises Refused, which DSP 2025-1 calls an unrecoverable error: nothing is created.
    """
    try:
        known_origin = origin(address) in caller.participant.origins
    except ValueError:
        known_origin = False
    if "?" in address or "#" in address or not known_origin:  # also an empty one: what follows would be in it
        known = ", ".join(f"`{o}`" for o in caller.participant.origins) or "none"
        raise Refused(
            f"the callback address `{address[:200]}` is not understood: it has to lie under an origin registered for "
            f"`{caller.participant.id}` ({known}), without query or fragment",
            code="callback-not-understood",
        )
    return address.rstrip("/")


def _document(process: Process) -> bytes:
    return orjson.dumps(wire.process_document(process.kind, process.consumer_pid, process.provider_pid, process.state))
