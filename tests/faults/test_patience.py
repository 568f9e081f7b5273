"""Time in a queue for a processor stretches a deadline; time in which nothing is done does not."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.patience import STRETCH, Patience, Queue, disk_seconds, own_time, patience, queued_seconds

BUSY = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
ASLEEP = "import time\nprint(flush=True)\ntime.sleep(60)"


def test_who_shares_a_processor_is_in_the_queue_and_who_sleeps_is_not():
    one = str(min(os.sched_getaffinity(0)))
    busy = [subprocess.Popen([sys.executable, "-c", BUSY, one]) for _ in range(2)]
    asleep = subprocess.Popen([sys.executable, "-c", ASLEEP], stdout=subprocess.PIPE)
    try:
        assert asleep.stdout is not None
        asleep.stdout.readline()
        before = queued_seconds(asleep.pid)
        while min(queued_seconds(each.pid) for each in busy) < 0.2:
            time.sleep(0.01)
        assert queued_seconds(asleep.pid) - before < 0.1
        queue = Queue()
        first = queue.seconds(busy[0].pid)
        assert first >= 0.2
        assert queue.seconds(busy[1].pid) >= first + 0.2
    finally:
        for each in (*busy, asleep):
            each.kill()
            each.communicate()
    assert queued_seconds(busy[0].pid) == 0.0
    assert queue.seconds(busy[1].pid) >= first + 0.2


def test_what_has_a_time_of_its_own_has_as_much_more_as_its_process_is_in_the_queue(monkeypatch: pytest.MonkeyPatch):
    queued = iter([7.0, 7.0, 7.25, 90.0])
    monkeypatch.setattr("tests.faults.patience.queues", lambda _pid: {1: next(queued)})
    within = own_time()
    assert [within(0.5) for _ in range(3)] == [0.5, 0.75, STRETCH * 0.5]


def test_threads_that_end_meanwhile_take_no_time_away_with_them(monkeypatch: pytest.MonkeyPatch):
    """As those of a connection whose close is timed: the longer they had waited for a processor, the less was left for it."""
    queued = iter([{1: 7.0, 2: 3.0}, {1: 7.25}])
    monkeypatch.setattr("tests.faults.patience.queues", lambda _pid: next(queued))
    assert own_time()(0.5) == 0.75


@pytest.mark.asyncio
async def test_a_deadline_is_as_much_later_as_the_queue_was_long():
    queued, begun = [0.0], time.monotonic()
    task = asyncio.create_task(_waiting(0.2, lambda: queued[0]))
    await asyncio.sleep(0)
    queued[0] = 0.3
    with pytest.raises(TimeoutError):
        await task
    assert time.monotonic() - begun > 0.45


@pytest.mark.asyncio
async def test_without_a_queue_a_deadline_is_one_and_who_keeps_it_is_not_disturbed():
    with pytest.raises(TimeoutError):
        await _waiting(0.1, lambda: 7.0)
    async with patience(0.1, lambda: 0.0):
        pass
    await asyncio.sleep(0.15)


async def _waiting(seconds: float, queued: Callable[[], float]) -> None:
    async with patience(seconds, queued):
        await asyncio.Event().wait()


def test_nobody_is_waited_for_for_ever_and_who_begins_again_has_all_of_it():
    queued = [0.0]
    having = Patience(1.0, lambda: queued[0])
    queued[0] = 1e9
    assert having.ends == having.since + STRETCH
    having.anew()
    assert having.ends == having.since + 1.0


def test_waits_for_disks_are_read_as_the_system_writes_them_and_are_none_where_it_does_not(tmp_path: Path):
    told = tmp_path / "io"
    told.write_text("some avg10=3.36 avg60=3.89 avg300=7.13 total=2266663692\nfull avg10=0.00 avg60=0.01 avg300=0.20 total=247653555\n")
    assert disk_seconds(told) == 2266.663692
    assert disk_seconds(tmp_path / "nothing") == 0.0
