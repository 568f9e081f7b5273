"""The table of a negotiation, written out a second time as the standard draws it: rows are states, columns who says what."""

import itertools

import pytest

from connector.dsp.messages import Kind, Move, Role
from connector.dsp.negotiation import FINAL, TRANSITIONS, TURN, State

C, P = Role.CONSUMER, Role.PROVIDER
REQUEST, OFFER, ACCEPTED, AGREEMENT = (C, Move.CONTRACT_REQUEST), (P, Move.CONTRACT_OFFER), (C, Move.ACCEPTED), (P, Move.CONTRACT_AGREEMENT)
VERIFICATION, FINALIZED = (C, Move.VERIFICATION), (P, Move.FINALIZED)
END_C, END_P = (C, Move.CONTRACT_TERMINATION), (P, Move.CONTRACT_TERMINATION)

# DSP 2025-1, contract negotiation, state machine; a dash is refused. Termination is taken from both in every open state.
COLUMNS = (REQUEST, OFFER, ACCEPTED, AGREEMENT, VERIFICATION, FINALIZED, END_C, END_P)
DIAGRAM = """
INITIAL     REQUESTED  OFFERED  -         -       -         -          -           -
REQUESTED   -          OFFERED  -         AGREED  -         -          TERMINATED  TERMINATED
OFFERED     REQUESTED  -        ACCEPTED  -       -         -          TERMINATED  TERMINATED
ACCEPTED    -          -        -         AGREED  -         -          TERMINATED  TERMINATED
AGREED      -          -        -         -       VERIFIED  -          TERMINATED  TERMINATED
VERIFIED    -          -        -         -       -         FINALIZED  TERMINATED  TERMINATED
FINALIZED   -          -        -         -       -         -          -           -
TERMINATED  -          -        -         -       -         -          -           -
"""
EXPECTED = {
    state: {column: after for column, after in zip(COLUMNS, cells, strict=True) if after != "-"}
    for state, *cells in (line.split() for line in DIAGRAM.strip().splitlines())
}
MOVES = [move for move in Move if move.kind is Kind.NEGOTIATION]


@pytest.mark.parametrize("state", list(State))
def test_every_cell_of_the_table_is_the_diagrams(state: State):
    found = {(who, move): TRANSITIONS[state].get((who, move)) for who, move in itertools.product(Role, MOVES)}
    assert {cell: after for cell, after in found.items() if after} == EXPECTED[state]


def test_the_table_speaks_of_no_other_state_and_no_other_move():
    assert set(TRANSITIONS) == set(State) == set(EXPECTED)
    assert {after for row in TRANSITIONS.values() for after in row.values()} == set(State) - {State.INITIAL}
    assert {move for row in TRANSITIONS.values() for _, move in row} == set(MOVES)


def test_a_final_state_has_no_way_out_and_every_other_one_has_a_termination_from_both_sides():
    for state in set(State) - {State.INITIAL}:
        if state in FINAL:
            assert TRANSITIONS[state] == {}
        else:
            assert TRANSITIONS[state][END_C] == TRANSITIONS[state][END_P] == State.TERMINATED


def test_whose_turn_it_is_follows_from_who_may_move():
    for state, role in TURN.items():
        movers = {who for who, move in TRANSITIONS[state] if not move.termination}
        assert movers == {role}
    assert set(TURN) == {state for state in State if state not in FINAL and state is not State.INITIAL}
