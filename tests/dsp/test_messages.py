import pytest

from connector.dsp.exchange import TABLES
from connector.dsp.messages import ERROR_TYPE, OTHER, PATHS, PROCESS_TYPE, TERMINATION, Kind, Message, Move, Role, is_pid, path_of
from connector.dsp.schemas import SCHEMA_OF

# DSP 2025-1, HTTPS binding: where each message goes, below the receiver's base; `{}` is the receiver's pid.
BINDING = {
    Move.CONTRACT_REQUEST: ("/negotiations/request", "/negotiations/p/request"),
    Move.CONTRACT_OFFER: ("/negotiations/offers", "/negotiations/p/offers"),
    Move.ACCEPTED: (None, "/negotiations/p/events"),
    Move.FINALIZED: (None, "/negotiations/p/events"),
    Move.CONTRACT_AGREEMENT: (None, "/negotiations/p/agreement"),
    Move.VERIFICATION: (None, "/negotiations/p/agreement/verification"),
    Move.CONTRACT_TERMINATION: (None, "/negotiations/p/termination"),
    Move.TRANSFER_REQUEST: ("/transfers/request", None),
    Move.START: (None, "/transfers/p/start"),
    Move.SUSPENSION: (None, "/transfers/p/suspension"),
    Move.COMPLETION: (None, "/transfers/p/completion"),
    Move.TRANSFER_TERMINATION: (None, "/transfers/p/termination"),
}


@pytest.mark.parametrize("move", list(Move))
def test_a_move_goes_where_the_binding_says(move: Move):
    first, later = BINDING[move]
    if first is not None:
        assert path_of(move, None) == first
    if later is not None:
        assert path_of(move, "p") == later


@pytest.mark.parametrize(
    ("pid", "segment"),
    [
        ("urn:uuid:0a-b_c.d~e@f!$&'()*+,;=", "urn:uuid:0a-b_c.d~e@f!$&'()*+,;="),
        ("a/../transfers/x", "a%2F..%2Ftransfers%2Fx"),
        ("a?b#c", "a%3Fb%23c"),
        ("a%2Fb", "a%252Fb"),
        ("a\\b", "a%5Cb"),
    ],
)
def test_a_pid_of_the_peer_is_one_segment_of_a_path_whatever_it_holds(pid: str, segment: str):
    assert path_of(Move.VERIFICATION, pid) == f"/negotiations/{segment}/agreement/verification"


def test_every_move_has_a_path_and_a_type_with_a_schema():
    assert set(PATHS) == set(Move) == set(BINDING)
    assert {move.type for move in Move} <= set(SCHEMA_OF)
    assert {*PROCESS_TYPE.values(), *ERROR_TYPE.values()} <= set(SCHEMA_OF)


def test_only_the_two_events_share_a_type():
    types = [move.type for move in Move]
    assert {move for move in Move if types.count(move.type) > 1} == {Move.ACCEPTED, Move.FINALIZED}
    assert {move: move.event for move in Move if move.event} == {Move.ACCEPTED: "ACCEPTED", Move.FINALIZED: "FINALIZED"}


def test_a_move_belongs_to_the_kind_whose_table_has_it():
    for kind, table in TABLES.items():
        assert {move for row in table.values() for _, move in row} == {move for move in Move if move.kind is kind}


def test_each_kind_has_one_termination():
    assert {move for move in Move if move.termination} == set(TERMINATION.values())
    assert all(move.kind is kind for kind, move in TERMINATION.items())


def test_the_other_of_the_other_is_oneself():
    assert all(OTHER[OTHER[role]] is role and OTHER[role] is not role for role in Role)


def test_a_message_knows_both_pids_by_role():
    message = Message(Move.START, "c", "p", {}, b"")
    assert (message.pid_of(Role.CONSUMER), message.pid_of(Role.PROVIDER), message.move.kind) == ("c", "p", Kind.TRANSFER)


@pytest.mark.parametrize(
    ("text", "good"),
    [("urn:uuid:1", True), ("a/b?c#d%", True), ("...", True), (".a", True), ("x" * 255, True), ("x" * 256, False), ("a b", False),
     ("\u00fc", False), ("", False), ("a\n", False), (".", False), ("..", False), ("..\n", False), (None, False), (5, False)],
)  # fmt: skip
def test_a_pid_is_what_stands_in_one_segment_of_an_address(text: object, good: bool):
    assert is_pid(text) is good
