"""Who waits for the next COMMIT."""

from __future__ import annotations

import pytest

from connector.adapters_stores import pace
from connector.adapters_stores.pace import HELD_UP, THREAD_SECONDS, Pace

QUICK = 0.001


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    at = [100.0]
    monkeypatch.setattr(pace, "perf_counter", lambda: at[0])
    return at


def test_of_the_first_commit_nobody_knows_how_long_it_takes(clock: list[float]):
    assert not Pace(QUICK).on_loop


def test_after_a_quick_one_the_loop_makes_the_next_and_after_a_slow_one_a_thread(clock: list[float]):
    pace = Pace(QUICK)
    pace.took(QUICK / 2, on_loop=False)
    assert pace.on_loop
    pace.took(QUICK, on_loop=True)
    assert not pace.on_loop
    pace.took(QUICK / 2, on_loop=False)
    assert pace.on_loop, "it held up nobody"


def test_a_disk_that_held_the_loop_up_may_not_do_it_again_at_once_however_quick_it_is_then(clock: list[float]):
    pace = Pace(QUICK)
    pace.took(2 * HELD_UP * QUICK, on_loop=True)
    pace.took(QUICK / 2, on_loop=False)
    clock[0] += THREAD_SECONDS * 0.9
    assert not pace.on_loop
    clock[0] += THREAD_SECONDS * 0.2
    assert pace.on_loop


def test_what_a_thread_waits_for_holds_nobody_up(clock: list[float]):
    pace = Pace(QUICK)
    pace.took(2 * HELD_UP * QUICK, on_loop=False)
    pace.took(QUICK / 2, on_loop=False)
    assert pace.on_loop
