from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.dsp.answers import APART_SECONDS, DOUBTFUL, LATER, REFUSALS_MIN, Doubts, by_clocks, in_words, retry_after, taken, told_by
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move, Role

NOW = 1_800_000_000.0

BEGUN = Process(Kind.NEGOTIATION, "ours", Role.PROVIDER, "did:web:b.example", "https://b.example", "REQUESTED", "theirs")
FIRST = Process(Kind.NEGOTIATION, "ours", Role.CONSUMER, "did:web:b.example", "https://b.example")


@given(st.integers(200, 299))
def test_a_success_is_taken(status: int):
    assert taken(status)


@given(st.integers(500, 599) | st.sampled_from(sorted(LATER)), st.lists(st.floats(0, 1e9), min_size=1, max_size=30))
def test_trouble_on_the_way_never_ends_the_attempts(status: int, instants: list[float]):
    doubts = Doubts(30.0)
    assert not any(doubts.over(status, Move.CONTRACT_AGREEMENT, BEGUN, now) for now in sorted(instants))
    assert doubts.count == 0


@pytest.mark.parametrize("status", [402, 405, 410, 413, 415, 422])
def test_a_refusal_that_only_the_peer_can_mean_ends_them_at_once(status: int):
    assert Doubts(30.0).over(status, Move.CONTRACT_AGREEMENT, BEGUN, 0.0)


@given(st.sampled_from(sorted(DOUBTFUL)), st.lists(st.floats(0, 100), min_size=1, max_size=40), st.floats(0, 60))
def test_a_doubtful_one_ends_them_exactly_when_it_came_often_and_long_enough(status: int, instants: list[float], seconds: float):
    doubts = Doubts(seconds)
    instants = sorted(instants)
    for number, now in enumerate(instants, 1):
        often, long = number >= REFUSALS_MIN, now - instants[0] >= DOUBTFUL[status] * seconds
        assert doubts.over(status, Move.CONTRACT_AGREEMENT, BEGUN, now) == (often and long)


@pytest.mark.parametrize(
    ("status", "code", "reasons", "challenge", "says"),
    [
        (400, "policy-differs", ("one", "two"), None, "400 policy-differs one; two"),
        (409, None, (), None, "409"),
        (404, "gone", (), 'Bearer error_description="x"', "404 gone"),
        (401, None, (), None, "401: the peer does not take who we are; if our key or address is new"),
        (404, None, (), 'Bearer error_description="no\x1bkey"', "404: the peer does not take who we are (nokey); if"),
        (404, None, (), None, "404: the peer has nothing at this address, or does not say it to whom it does not know; if our key"),
    ],
)  # fmt: skip
def test_an_error_says_what_it_means_and_what_mends_it(
    status: int, code: str | None, reasons: tuple[str, ...], challenge: str | None, says: str
):
    assert in_words(status, code, reasons, challenge).startswith(says)


def test_messages_may_have_crossed_for_as_long_as_such_a_refusal_is_doubted():
    doubts = Doubts(30.0)
    assert not doubts.crossed(0.0), "nothing was refused"
    doubts.over(409, Move.START, BEGUN, 10.0)
    assert [doubts.crossed(now) for now in (10.0, 11.9, 12.0)] == [True, True, False]


def test_a_404_with_the_error_object_of_the_process_is_the_peers_own_word():
    error = {"@type": "TransferError", "code": "404", "reason": ["agreement not found"]}
    assert told_by(404, error, Kind.TRANSFER) == 400
    for document in (None, {}, {"detail": "no such page"}, error | {"@type": "ContractNegotiationError"}):
        assert told_by(404, document, Kind.TRANSFER) == 404
    assert [told_by(status, error, Kind.TRANSFER) for status in (401, 403, 503)] == [401, 403, 503]


def test_a_burst_of_refusals_is_no_proof():
    doubts = Doubts(30.0)
    assert not any(doubts.over(404, Move.CONTRACT_AGREEMENT, BEGUN, n / 1000) for n in range(100))
    assert doubts.over(404, Move.CONTRACT_AGREEMENT, BEGUN, 30.0)


@pytest.mark.parametrize("status", [400, 409])
def test_a_termination_is_not_insisted_on(status: int):
    assert Doubts(30.0).over(status, Move.CONTRACT_TERMINATION, BEGUN, 0.0)


@pytest.mark.parametrize("status", [401, 403])
def test_who_does_not_take_who_we_are_has_not_been_told_of_a_termination(status: int):
    doubts = Doubts(30.0)
    assert not any(doubts.over(status, Move.TRANSFER_TERMINATION, BEGUN, float(second)) for second in range(0, 86_400, 60))


def test_who_does_not_know_the_process_may_be_a_proxy_and_is_told_of_a_termination_again():
    doubts = Doubts(30.0)
    assert not any(doubts.over(404, Move.TRANSFER_TERMINATION, BEGUN, float(second)) for second in range(30))
    assert doubts.over(404, Move.TRANSFER_TERMINATION, BEGUN, 30.0)


def test_nothing_crosses_a_first_message_but_a_proxy_may_stand_before_its_address():
    assert Doubts(30.0).over(400, Move.CONTRACT_REQUEST, FIRST, 0.0)
    assert not Doubts(30.0).over(404, Move.CONTRACT_REQUEST, FIRST, 0.0)


@pytest.mark.parametrize(("value", "seconds"), [("7", 7), ("0", 0), (None, 0), ("", 0), ("-1", 0), ("soon", 0), ("٣", 0), ("9" * 10, 0)])
def test_retry_after_is_read_in_seconds_or_not_at_all(value: str | None, seconds: float):
    assert retry_after(value) == seconds


@pytest.mark.parametrize(
    ("status", "date", "apart"),
    [
        (401, 3600, True),
        (401, -3600, True),
        (403, APART_SECONDS + 1, True),
        (401, APART_SECONDS, False),
        (404, 3600, False),
        (401, None, False),
        (401, "yesterday", False),
        (401, f"Mon, 01 Jan {'9' * 30} 00:00:00 GMT", False),
    ],
)
def test_who_does_not_take_who_we_are_by_another_clock_is_told_by_its_date(status: int, date: float | str | None, apart: bool):
    said = formatdate(NOW + date, usegmt=True) if isinstance(date, int | float) else date
    assert by_clocks(status, said, NOW) is apart
