"""The state table of a transfer process, read from the diagram of DSP 2025-1.

Decided once, where the standard is of two minds (2026-11-24):
- Start in SUSPENDED is taken from both sides: the message section names the provider only, the binding and the diagram
  the consumer too. After the consumer's start the provider sends one of its own, because only that can carry a fresh
  data address; a peer that refuses it loses nothing, and a consumer takes exactly one such start
  (`connector.dsp.exchange`, `resumed`).
- Start in STARTED is otherwise refused, as the diagram has it.
"""

from __future__ import annotations

from enum import StrEnum

from connector.dsp.messages import Move, Role


class State(StrEnum):
    """States of a transfer process. INITIAL is never on the wire."""

    INITIAL = "INITIAL"
    REQUESTED = "REQUESTED"
    STARTED = "STARTED"
    SUSPENDED = "SUSPENDED"
    COMPLETED = "COMPLETED"
    TERMINATED = "TERMINATED"


C, P, S = Role.CONSUMER, Role.PROVIDER, State
BOTH_TERMINATE: dict[tuple[Role, Move], str] = {(C, Move.TRANSFER_TERMINATION): S.TERMINATED, (P, Move.TRANSFER_TERMINATION): S.TERMINATED}
BOTH_COMPLETE: dict[tuple[Role, Move], str] = {(C, Move.COMPLETION): S.COMPLETED, (P, Move.COMPLETION): S.COMPLETED}
BOTH_SUSPEND: dict[tuple[Role, Move], str] = {(C, Move.SUSPENSION): S.SUSPENDED, (P, Move.SUSPENSION): S.SUSPENDED}

TRANSITIONS: dict[str, dict[tuple[Role, Move], str]] = {
    S.INITIAL: {(C, Move.TRANSFER_REQUEST): S.REQUESTED},
    S.REQUESTED: {(P, Move.START): S.STARTED} | BOTH_TERMINATE,
    S.STARTED: BOTH_SUSPEND | BOTH_COMPLETE | BOTH_TERMINATE,
    S.SUSPENDED: {(P, Move.START): S.STARTED, (C, Move.START): S.STARTED} | BOTH_TERMINATE,
    S.COMPLETED: {},
    S.TERMINATED: {},
}

FINAL = frozenset({S.COMPLETED, S.TERMINATED})

# Whose turn it is; in STARTED and SUSPENDED either side may speak and nobody has to.
TURN: dict[str, Role] = {S.REQUESTED: P}
