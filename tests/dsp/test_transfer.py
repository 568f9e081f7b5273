"""The table of a transfer process, written out a second time as the standard draws it: rows are states, columns who says what."""

import itertools

import pytest

from connector.dsp.messages import Kind, Move, Role
from connector.dsp.transfer import FINAL, TRANSITIONS, TURN, State

C, P = Role.CONSUMER, Role.PROVIDER
MOVES = [move for move in Move if move.kind is Kind.TRANSFER]
COLUMNS = (
    *((C, Move.TRANSFER_REQUEST), (P, Move.START), (C, Move.START)),
    *((who, move) for move in (Move.SUSPENSION, Move.COMPLETION, Move.TRANSFER_TERMINATION) for who in (C, P)),
)
# DSP 2025-1, transfer process, state machine; a dash is refused. The consumer starts only what was suspended.
DIAGRAM = """
INITIAL     REQUESTED  -        -        -          -          -          -          -           -
REQUESTED   -          STARTED  -        -          -          -          -          TERMINATED  TERMINATED
STARTED     -          -        -        SUSPENDED  SUSPENDED  COMPLETED  COMPLETED  TERMINATED  TERMINATED
SUSPENDED   -          STARTED  STARTED  -          -          -          -          TERMINATED  TERMINATED
COMPLETED   -          -        -        -          -          -          -          -           -
TERMINATED  -          -        -        -          -          -          -          -           -
"""
EXPECTED = {
    state: {column: after for column, after in zip(COLUMNS, cells, strict=True) if after != "-"}
    for state, *cells in (line.split() for line in DIAGRAM.strip().splitlines())
}


@pytest.mark.parametrize("state", list(State))
def test_every_cell_of_the_table_is_the_diagrams(state: State):
    found = {(who, move): TRANSITIONS[state].get((who, move)) for who, move in itertools.product(Role, MOVES)}
    assert {cell: after for cell, after in found.items() if after} == EXPECTED[state]


def test_the_table_speaks_of_no_other_state_and_no_other_move():
    assert set(TRANSITIONS) == set(State) == set(EXPECTED)
    assert {after for row in TRANSITIONS.values() for after in row.values()} == set(State) - {State.INITIAL}
    assert {move for row in TRANSITIONS.values() for _, move in row} == set(MOVES)


def test_a_final_state_has_no_way_out():
    assert {state for state in State if not TRANSITIONS[state]} == FINAL


def test_only_the_first_step_waits_for_one_side():
    assert TURN == {State.REQUESTED: P}
