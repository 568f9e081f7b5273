"""The state table of a contract negotiation, read from the diagram of DSP 2025-1, and what each state asks of us.

Where text and diagram of the standard differ, it is decided here, once (2026-11-24):
- Termination is taken from either side in every state that is not final: the text says "at any state", the diagram
  leaves out the consumer in ACCEPTED and VERIFIED and the provider in AGREED. A refused termination helps nobody.
- A second offer of the provider in OFFERED is refused: the diagram has no such edge, the text is silent. The provider
  can terminate and begin anew.
- A second contract request in REQUESTED is refused for the same reason.
- Repeats are no matter of this table: see `connector.dsp.exchange`.
"""

from __future__ import annotations

from enum import StrEnum

from connector.dsp.messages import Move, Role


class State(StrEnum):
    """States of a negotiation. INITIAL is never on the wire: nothing has been acknowledged yet."""

    INITIAL = "INITIAL"
    REQUESTED = "REQUESTED"
    OFFERED = "OFFERED"
    ACCEPTED = "ACCEPTED"
    AGREED = "AGREED"
    VERIFIED = "VERIFIED"
    FINALIZED = "FINALIZED"
    TERMINATED = "TERMINATED"


C, P, S = Role.CONSUMER, Role.PROVIDER, State
BOTH_TERMINATE: dict[tuple[Role, Move], str] = {(C, Move.CONTRACT_TERMINATION): S.TERMINATED, (P, Move.CONTRACT_TERMINATION): S.TERMINATED}

TRANSITIONS: dict[str, dict[tuple[Role, Move], str]] = {
    S.INITIAL: {(C, Move.CONTRACT_REQUEST): S.REQUESTED, (P, Move.CONTRACT_OFFER): S.OFFERED},
    S.REQUESTED: {(P, Move.CONTRACT_OFFER): S.OFFERED, (P, Move.CONTRACT_AGREEMENT): S.AGREED} | BOTH_TERMINATE,
    S.OFFERED: {(C, Move.CONTRACT_REQUEST): S.REQUESTED, (C, Move.ACCEPTED): S.ACCEPTED} | BOTH_TERMINATE,
    S.ACCEPTED: {(P, Move.CONTRACT_AGREEMENT): S.AGREED} | BOTH_TERMINATE,
    S.AGREED: {(C, Move.VERIFICATION): S.VERIFIED} | BOTH_TERMINATE,
    S.VERIFIED: {(P, Move.FINALIZED): S.FINALIZED} | BOTH_TERMINATE,
    S.FINALIZED: {},
    S.TERMINATED: {},
}

FINAL = frozenset({S.FINALIZED, S.TERMINATED})

# Whose turn it is: the side that the standard's main line expects to speak next.
TURN: dict[str, Role] = {S.REQUESTED: P, S.OFFERED: C, S.ACCEPTED: P, S.AGREED: C, S.VERIFIED: P}
