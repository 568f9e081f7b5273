"""The time of a transfer: two answers at once count once, and a restart goes on."""

from contextlib import suppress

import pytest

from connector.dataplane_accounts import flowing
from connector.dataplane_accounts.flowing import Flowing


def test_time_runs_while_anything_flows_and_what_runs_at_once_counts_once(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr(flowing, "monotonic", lambda: now)
    time = Flowing()
    time.resume(7)
    assert (time.runs, time.microseconds) == (False, 7)
    with time.running():
        now += 1.0
        with time.running():
            now += 2.0
            assert (time.runs, time.microseconds) == (True, 3_000_007)
        now += 0.5
    now += 60.0
    assert (time.runs, time.microseconds) == (False, 3_500_007)
    with time.running():
        with time.still(), time.still():
            now += 60.0
            assert (time.runs, time.microseconds) == (True, 3_500_007), "we give nothing"
        now += 0.25
    with time.still(), time.running():
        now += 60.0
    assert (time.runs, time.microseconds) == (False, 3_750_007)
    with time.running():
        now += 0.25
        ended = now
        now += 7.0
        with time.still(ended):
            now += 60.0
            assert time.microseconds == 4_000_007, "however late somebody comes to it"
    with suppress(ConnectionError), time.running():
        now += 1.0
        raise ConnectionError
    assert (time.runs, time.microseconds) == (False, 5_000_007), "what is cut has flowed until then"
