"""A second is what was promised: queues of a busy machine are not counted, and they excuse no more than a busy machine could."""

import pytest

from tests.faults.streams.revocation import Revoked


@pytest.mark.parametrize(
    ("seconds", "queued", "late"),
    [(0.9, 0.0, False), (1.1, 0.0, True), (1.9, 1.0, False), (2.1, 1.0, True), (5.1, 4.0, True), (10.7, 40.0, True)],
)
def test_a_queue_is_no_excuse_for_what_ends_only_when_the_data_does(seconds: float, queued: float, late: bool):
    assert Revoked("terminated", "plain", 4, demanded=True, seconds=seconds, queued=queued).late is late
