"""How long the rest of a log is kept: the time runs for a consumer who does not come, and not for one whom we do not let."""

import asyncio
import os
import time
from math import inf
from pathlib import Path

import pytest

from connector.dataplane_live import rest as rests
from connector.dataplane_live.ending import ENDED_FILE, age_seconds
from connector.dataplane_live.rest import Rest, Rests
from connector.values import replace
from tests.dataplane.rig import TRANSFER, process

SUSPENDED = process("SUSPENDED")
OURS = replace(SUSPENDED, halted=True)
DAY = 86_400.0


class Steady:
    """The clock that nobody sets, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> Steady:
    clock = Steady()
    monkeypatch.setattr(rests, "monotonic", clock)
    return clock


def test_the_time_stands_still_while_we_withhold_the_rest_and_goes_on_where_it_was(steady: Steady):
    rest = Rest(7 * DAY, waited_seconds=DAY)
    steady.seconds += DAY
    rest.withhold(True)
    steady.seconds += 30 * DAY
    assert (rest.left_seconds, rest.waited_seconds) == (inf, 2 * DAY)
    rest.withhold(False)
    assert rest.left_seconds == 5 * DAY
    steady.seconds += DAY
    assert rest.left_seconds == 4 * DAY
    rest.withhold(True)
    rest.taken()  # a receipt that was on its way
    steady.seconds += DAY
    rest.withhold(False)
    assert (rest.left_seconds, rest.waited_seconds) == (7 * DAY, 0), "no more than all of it"


def test_only_our_own_suspension_makes_it_stand_still_and_what_had_passed_outlives_the_process(tmp_path: Path, steady: Steady):
    (tmp_path / ENDED_FILE).touch()
    all_ = Rests(7 * DAY)
    rest = all_.of(TRANSFER, tmp_path)
    assert all_.follow(SUSPENDED) is None
    assert not rest.still, "its consumer has suspended it, and can go on when it likes"
    assert all_.follow(OURS) is None
    steady.seconds += 30 * DAY
    os.utime(tmp_path / ENDED_FILE, (time.time() - 31 * DAY,) * 2)
    date = all_.follow(process("STARTED"))
    assert date is not None
    date()
    assert age_seconds(tmp_path) < DAY
    assert all_.of(TRANSFER, tmp_path).left_seconds > 6 * DAY


def test_what_is_written_of_a_transfer_while_it_is_suspended_makes_nobody_later_after_a_start(tmp_path: Path, steady: Steady):
    """Its consumer may be away, and be told of it days later."""
    (tmp_path / ENDED_FILE).touch()
    all_, now = Rests(7 * DAY), time.time()
    all_.of(TRANSFER, tmp_path)
    all_.follow(OURS)
    steady.seconds += 6 * DAY
    os.utime(tmp_path / ENDED_FILE, (now - 6 * DAY,) * 2)
    if (date := all_.follow(replace(OURS, updated=now))) is not None:
        date()
    assert Rests(7 * DAY).of(TRANSFER, tmp_path, withheld=now).waited_seconds < DAY


def test_a_start_finds_how_much_had_passed_when_it_was_suspended(tmp_path: Path):
    (tmp_path / ENDED_FILE).touch()
    now = time.time()
    os.utime(tmp_path / ENDED_FILE, (now - 30 * DAY,) * 2)
    rest = Rests(7 * DAY).of(TRANSFER, tmp_path, withheld=now - 29 * DAY)
    rest.taken(29.5 * DAY)
    assert rest.still
    assert rest.waited_seconds == pytest.approx(DAY / 2, abs=60)
    rest.withhold(False)
    assert rest.left_seconds == pytest.approx(6.5 * DAY, abs=60)


@pytest.mark.asyncio
async def test_what_is_open_is_kept_for_as_long_as_a_reload_says(tmp_path: Path):
    all_ = Rests(7 * DAY)
    rest, over = all_.of(TRANSFER, tmp_path), all_.of("urn:over", tmp_path)
    all_.follow(replace(process("COMPLETED"), pid="urn:over"))
    waits = asyncio.create_task(rest.over())
    await asyncio.sleep(0)
    all_.keep(0.01)
    async with asyncio.timeout(10):
        await waits
    assert over.left_seconds > DAY, "of one that is over nothing is kept in mind"
