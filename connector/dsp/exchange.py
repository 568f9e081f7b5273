"""What both processes share: receiving, sending, being answered, and telling a repeat from news. No I/O, no clock.

DSP says that a state changes when a message has been acknowledged. So `receive` moves at once (our answer is the
acknowledgement), `send` only notes what is in flight, and `answered` moves. One table serves all three, and it does not
know which side we are.

Messages may overtake answers. The rule: a message that is legal only after ours is the answer to ours; otherwise the two
have crossed, and what crosses is refused, except a termination, which always wins, a completion or a suspension that both have said, and
a completion that meets a suspension: nothing is left to suspend.

DSP has no message id. A *replay* is a message equal to the last one accepted from that peer in this process with no
accepted message of ours in between; it gets the stored answer. So does one with the move and the `@id` of that one whose words decide
nothing, if the table does not allow it, or a message of ours is in flight: Eclipse EDC words a message anew when it sends it again. The
data address of such a start counts, as its tokens may have replaced those of before, unless it is one of those word for word. Everything
else is judged by the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from connector.dsp import negotiation, transfer
from connector.dsp.messages import OTHER, TERMINATION, Kind, Message, Move, Role
from connector.errors import IllegalMessage
from connector.values import Value, field, replace

TABLES = {Kind.NEGOTIATION: negotiation.TRANSITIONS, Kind.TRANSFER: transfer.TRANSITIONS}
FINAL = {Kind.NEGOTIATION: negotiation.FINAL, Kind.TRANSFER: transfer.FINAL}
TURNS = {Kind.NEGOTIATION: negotiation.TURN, Kind.TRANSFER: transfer.TURN}
INITIAL, TERMINATED = "INITIAL", "TERMINATED"
NOWHERE: Mapping[tuple[Role, Move], str] = {}  # what leads on from a final state
# What of ours gives way to a message that crosses it: what says the same, and a suspension of what is complete. Refusing these would leave
# both sides with a message that nobody takes.
GIVES_WAY = {Move.SUSPENSION: {Move.SUSPENSION, Move.COMPLETION}, Move.COMPLETION: {Move.COMPLETION}}

# Moves on whose words nothing is agreed: all but those that carry terms.
WORDLESS = frozenset(Move) - {Move.CONTRACT_REQUEST, Move.CONTRACT_OFFER, Move.CONTRACT_AGREEMENT, Move.TRANSFER_REQUEST}
DIGEST_BYTES = 32
FORMER_MAX = 8  # starts under one id that are known for older ones: each attempt is one, and comes later than the one before


class Process(Value):
    """A negotiation or a transfer process as this side knows it.

    `pid` is ours, `peer_pid` the counterparty's (None until it told us). `peer` is the counterparty's participant id and
    `callback` the base URL that our messages to it extend. `in_flight` is the move that we sent and have no answer to,
    `in_flight_id` names its outbox row. `last_accepted` is the digest of the peer's last accepted message, behind it that of
    its move and `@id` if it is one of WORDLESS and has one, and those of the starts under that `@id` that it has replaced, or None
    once one of ours was accepted after it. `resumed` allows the provider one start in STARTED after the consumer's own. `halted` is
    set by a suspension of ours until the provider's next start, also where the peer refused it, or cannot be told yet because a start
    of ours is on its way.
    `due` is the instant (POSIX seconds) at which somebody has to look at this process again, or None. `detail` holds
    what the use cases keep with the state (terms on the table, decision, claims, reasons), plain JSON only.
    """

    kind: Kind
    pid: str
    role: Role
    peer: str
    callback: str
    state: str = INITIAL
    peer_pid: str | None = None
    in_flight: Move | None = None
    in_flight_id: str | None = None
    last_accepted: bytes | None = None
    resumed: bool = False
    halted: bool = False
    dataset: str | None = None
    agreement: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    due: float | None = None
    created: float = 0.0
    updated: float = 0.0
    version: int = 0

    @property
    def final(self) -> bool:
        return self.state in FINAL[self.kind]

    @property
    def meant(self) -> str:
        """The state as this side means it: what we have said holds from its commit on, whatever becomes of the message, and
        a suspension even if the peer refuses it. Access to data follows this one; the state waits for the peer."""
        if self.final:
            return self.state
        said = TABLES[self.kind][self.state].get((self.role, self.in_flight), self.state) if self.in_flight is not None else self.state
        return transfer.State.SUSPENDED if self.halted and said == transfer.State.STARTED else said

    @property
    def consumer_pid(self) -> str | None:
        return self.pid if self.role is Role.CONSUMER else self.peer_pid

    @property
    def provider_pid(self) -> str | None:
        return self.pid if self.role is Role.PROVIDER else self.peer_pid

    @property
    def our_turn(self) -> bool:
        return TURNS[self.kind].get(self.state) is self.role

    @property
    def their_turn(self) -> bool:
        return TURNS[self.kind].get(self.state) is OTHER[self.role]


class Received(Value):
    """The outcome of `receive`. On a replay `process` is unchanged and the stored answer is due again. `settled` is the
    id of our outbox row that this message answered by implication or, if `overruled`, made void: nothing says that the peer took it."""

    process: Process
    replay: bool = False
    settled: str | None = None
    overruled: bool = False


class _Standing(NamedTuple):
    """What of a process a move acts on: so that one can be followed by another without making a process of what lies between."""

    kind: Kind
    role: Role
    state: str
    resumed: bool
    halted: bool


def after(process: Process | _Standing, sender: Role, move: Move) -> str:
    """Return the state after `move` by `sender`; raises IllegalMessage with what would be allowed instead."""
    state = _edge(process, sender, move)
    if state is not None:
        return state
    allowed = ", ".join(sorted(str(m) for s, m in TABLES[process.kind].get(process.state, {}) if s is sender)) or "nothing"
    raise IllegalMessage(f"`{move}` from the {sender} is not allowed in state {process.state}; allowed: {allowed}")


def legal(process: Process | _Standing, sender: Role, move: Move) -> bool:
    """Whether the table allows `move` by `sender` in the present state."""
    return _edge(process, sender, move) is not None


def _edge(process: Process | _Standing, sender: Role, move: Move) -> str | None:
    state = TABLES[process.kind].get(process.state, NOWHERE).get((sender, move))
    if state is None and move is Move.START and sender is Role.PROVIDER and process.resumed and process.state == transfer.State.STARTED:
        return transfer.State.STARTED
    return state


def _next(process: Process | _Standing, sender: Role, move: Move, state: str | None = None) -> _Standing:
    """Apply `move`, which leads to `state` (None: to be looked up). Only a consumer's start opens the door for one repeated start of the
    provider."""
    state = state or after(process, sender, move)
    resumed = move is Move.START and sender is Role.CONSUMER
    # What our own move meant for access was settled when we said it: whatever was decided since then stands.
    halted = process.halted if sender is process.role else _halted(process, sender, move)
    return _Standing(process.kind, process.role, state, resumed, halted)


def _moved(process: Process, now: _Standing, **settled: Any) -> Process:
    """The process at its new place, and what the move settles."""
    return replace(process, state=now.state, resumed=now.resumed, halted=now.halted, **settled)


def _halted(process: Process | _Standing, sender: Role, move: Move) -> bool:
    """Whether we keep the transfer suspended after `move`: only the provider's start hands out access anew."""
    if move is Move.SUSPENSION and sender is process.role:
        return True
    return process.halted and not (move is Move.START and sender is Role.PROVIDER)


def receive(process: Process, message: Message, **more: Any) -> Received:
    """Take a message of the peer.

    Parameters: `process` as stored, `message` whose pids were found to fit, `more` members that change by it. Returns a `Received`.
    Raises IllegalMessage if the table does not allow it now, or if it crossed a message of ours; nothing has changed then.
    """
    peer, move = OTHER[process.role], message.move
    ours = process.in_flight
    base: Process | _Standing = process
    said = _edge(process, process.role, ours) if ours else None
    implied = _next(process, process.role, ours, said) if ours and said else None
    state = _edge(implied, peer, move) if implied else None
    equal, same = repeats(process, message), reworded(process, message)
    if implied is not None and state is not None and not same:
        base = implied  # our message arrived: this one could not have been said without it, or ends it either way
    elif same and not equal and move is Move.START and process.state == transfer.State.STARTED and peer is Role.PROVIDER:
        # Nothing moves, but what it hands out is another address.
        return Received(replace(process, last_accepted=_mark(message) + _former(process)))
    elif equal or (same and (ours or not legal(process, peer, move))):
        return Received(process, replay=True)
    elif ours and not move.termination and move not in GIVES_WAY.get(ours, ()) and legal(process, peer, move):
        raise IllegalMessage(f"`{move}` crossed our `{ours}`, which has no answer yet; send it again after answering")
    peer_pid = process.peer_pid or message.pid_of(peer)
    now = _next(base, peer, move, state)
    moved = _moved(process, now, peer_pid=peer_pid, in_flight=None, in_flight_id=None, last_accepted=_mark(message), **more)
    overruled = ours is not None and (move.termination or (base is process and move is not ours))
    return Received(moved, settled=process.in_flight_id, overruled=overruled)


def repeats(process: Process, message: Message) -> bool:
    """Whether the message equals the last one accepted from the peer, or a start that this one has replaced."""
    accepted = process.last_accepted or b""
    former = range(2 * DIGEST_BYTES, len(accepted), DIGEST_BYTES)
    return any(accepted[begin : begin + DIGEST_BYTES] == message.digest for begin in (0, *former))


def reworded(process: Process, message: Message) -> bool:
    """Whether the message is the last one accepted from the peer by its move and `@id`, and nothing is agreed on its words."""
    mark = _mark(message)[DIGEST_BYTES:]
    return process.last_accepted is not None and mark != b"" and process.last_accepted[DIGEST_BYTES : 2 * DIGEST_BYTES] == mark


def _mark(message: Message) -> bytes:
    """What a repeat of the message is told by."""
    id = message.document.get("@id")
    if message.move not in WORDLESS or not isinstance(id, str):
        return message.digest
    return message.digest + sha256(f"{message.move} {id}".encode()).digest()


def _former(process: Process) -> bytes:
    """The digests of the last accepted message and of those before it under its id, newest first."""
    accepted = process.last_accepted or b""
    return (accepted[:DIGEST_BYTES] + accepted[2 * DIGEST_BYTES :])[: FORMER_MAX * DIGEST_BYTES]


def send(process: Process, move: Move, outbox_id: str) -> Process:
    """Put a move of ours in flight; the state stays until it is answered. Raises IllegalMessage as `sending`."""
    return replace(process, **sending(process, move, outbox_id))


def sending(process: Process, move: Move, outbox_id: str) -> dict[str, Any]:
    """The members of a process that change when a move of ours is put in flight, for who changes others with them. Raises
    IllegalMessage if the table forbids it or another move is in flight; only a termination replaces one that is."""
    if process.in_flight and not move.termination:
        raise IllegalMessage(f"`{process.in_flight}` is still without an answer; `{move}` has to wait for it")
    after(process, process.role, move)
    return {"in_flight": move, "in_flight_id": outbox_id, "halted": _halted(process, process.role, move)}


def answered(process: Process, outbox_id: str, peer_pid: str | None = None) -> Process:
    """Our message in flight was acknowledged: the state moves. A late answer to another one changes nothing."""
    if process.in_flight is None or process.in_flight_id != outbox_id:
        return process
    known, now = process.peer_pid or peer_pid, _next(process, process.role, process.in_flight)
    return _moved(process, now, in_flight=None, in_flight_id=None, last_accepted=None, peer_pid=known)


def asks_back(process: Process) -> bool:
    """Whether it is the peer's turn to speak once our message in flight has been acknowledged."""
    if process.in_flight is None:
        return process.their_turn
    return TURNS[process.kind].get(after(process, process.role, process.in_flight)) is OTHER[process.role]


def refused(process: Process, outbox_id: str) -> Process:
    """Our message in flight was refused for good. An error never changes the state (DSP 2025-1), with two exceptions
    that both sides can live with: a refused first message never created a process over there, and an error in reply to
    our own termination may be ignored; both end here in TERMINATED."""
    if process.in_flight is None or process.in_flight_id != outbox_id:
        return process
    over = process.state == INITIAL or process.in_flight.termination
    return replace(process, in_flight=None, in_flight_id=None, state=TERMINATED if over else process.state)


def unanswered(process: Process) -> Process:
    """Our message in flight found nobody in its time. Whether the peer has seen it is unknown, so the state stays; the same
    message may be sent again."""
    return replace(process, in_flight=None, in_flight_id=None)


def told(process: Process, outbox_id: str, peer_state: str, *, refused: bool = False) -> Process | None:
    """Settle a message without an answer by the state that the peer reports (GET before a resend). `refused` says that the
    peer has refused it at least once.

    Returns the process moved on (the peer has taken our message), unchanged (it has not, or cannot say yet: send again), or
    terminated (it has ended the process). Returns None if the two states cannot be explained by one message in flight on
    either side: they differ.
    """
    if process.in_flight is None or process.in_flight_id != outbox_id:
        return process
    if peer_state == process.state or (not refused and _may_lag(process, peer_state)):
        return process
    if peer_state == after(process, process.role, process.in_flight):
        return answered(process, outbox_id)
    return terminated(process) if peer_state == TERMINATED else None


def _may_lag(process: Process, peer_state: str) -> bool:
    """Whether the peer may have said its last message in that state and still lack our answer to it. It moves when ours
    arrives, so neither do the states differ, nor has ours been taken where the state before theirs is also the one after
    ours (offer and counter-offer, suspension and start). A peer that refuses ours does not lag."""
    row = TABLES[process.kind].get(peer_state, {})
    return process.last_accepted is not None and any(
        sender is not process.role and state == process.state for (sender, _), state in row.items()
    )


def terminated(process: Process) -> Process:
    """End the process on this side, whatever is in flight."""
    return replace(process, state=TERMINATED, in_flight=None, in_flight_id=None, last_accepted=None)


def termination_of(process: Process) -> Move:
    """The move that ends this kind of process."""
    return TERMINATION[process.kind]
