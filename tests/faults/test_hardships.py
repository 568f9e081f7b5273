"""What befell and what came of it is told in a table; a run in which nothing befell anybody, or something was lost, is not good."""

import subprocess
import sys

from tests.faults.audit import LOST, Finding
from tests.faults.hardships import Suffered, good, lines
from tests.faults.home import ROOT

THROUGH = Suffered("the consumer stands still", jobs=7, seconds=3.2)
SKIPPED = Suffered("a full disk", skipped="no disk can be mounted here")


def test_a_run_is_good_if_all_jobs_came_through_something():
    assert good([THROUGH, SKIPPED])
    assert not good([SKIPPED])
    told = lines([THROUGH, SKIPPED])
    assert told[-1] == "GOOD: 1 hardships, 7 jobs through them"
    assert told[2].endswith("not done: no disk can be mounted here")


def test_a_loss_and_a_complaint_make_it_bad_and_are_told():
    lost = Suffered("x", jobs=1, findings=[Finding(LOST, "pull-1", "it is gone")])
    complained = Suffered("y", jobs=1, complaints=["consumer: boom"])
    assert not good([THROUGH, lost])
    assert not good([THROUGH, complained])
    told = lines([lost, complained])
    assert told[-3:-1] == ["LOST pull-1: it is gone (x)", "COMPLAINT consumer: boom (y)"]
    assert told[-1].startswith("BAD")


def test_the_clock_of_a_child_jumps_at_each_signal_as_the_product_reads_it():
    program = (
        "import os, signal, time\n"
        "from connector.adapters.clock import SystemClock\n"
        "from tests.faults.child import jumping\n"
        "clock, before, ticks = SystemClock(), time.time(), time.monotonic()\n"
        "jumping([3600.0, -7200.0])\n"
        "found = []\n"
        "for _ in range(2):\n"
        "    os.kill(os.getpid(), signal.SIGRTMIN)\n"
        "    found.append(round(clock.now() - before, -2))\n"
        "assert found == [3600.0, -3600.0], found\n"
        "assert time.monotonic() - ticks < 60\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
