"""The script of the system under test: complete, and made of moves that the product's own tables allow."""

import pytest

from connector.dsp import negotiation, transfer
from connector.dsp.messages import Kind, Move, Role
from tests.tck import script

TABLES = {Kind.NEGOTIATION: negotiation.TRANSITIONS, Kind.TRANSFER: transfer.TRANSITIONS}


def test_there_is_a_line_for_each_subject_of_the_kit_and_no_other():
    subjects = {script.subject(group, n) for group in ("CN", "CN_C", "TP", "TP_C") for n in getattr(script, group)}
    assert set(script.STEPS) == subjects
    assert len(subjects) == 15 + 16 + 16 + 16


@pytest.mark.parametrize("subject", sorted(script.STEPS))
def test_each_step_is_a_move_that_our_table_allows_us(subject):
    role = Role.CONSUMER if subject.startswith(("ACNC", "ATPC")) else Role.PROVIDER
    table = TABLES[Kind.NEGOTIATION if subject.startswith("ACN") else Kind.TRANSFER]
    for state, move in script.STEPS[subject]:
        assert (role, move) in table[state]


def test_the_same_state_asks_for_another_move_on_its_second_visit():
    assert script.move("ACN0102", "REQUESTED", 1) is Move.CONTRACT_OFFER
    assert script.move("ACN0102", "REQUESTED", 2) is Move.CONTRACT_TERMINATION
    assert script.move("ATP0104", "STARTED", 1) is Move.SUSPENSION
    assert script.move("ATP0104", "STARTED", 2) is Move.COMPLETION


def test_a_visit_without_an_entry_means_stay_still():
    assert script.move("ACN0304", "REQUESTED", 2) is None
    assert script.move("ACN0202", "REQUESTED", 1) is None


def test_an_id_that_the_kit_does_not_use_is_an_error():
    with pytest.raises(KeyError):
        script.move("ACN9999", "REQUESTED", 1)


def test_asking_twice_in_one_visit_counts_once_and_a_new_message_begins_another():
    visits = script.Visits()
    assert visits.count("p", "REQUESTED", b"first") == 1
    assert visits.count("p", "REQUESTED", b"first") == 1
    assert visits.count("p", "REQUESTED", b"counter") == 2
    assert visits.count("q", "REQUESTED", b"first") == 1


def test_coming_back_to_a_state_is_another_visit():
    visits = script.Visits()
    assert [visits.count("p", state, None) for state in ("STARTED", "SUSPENDED", "STARTED")] == [1, 1, 2]
