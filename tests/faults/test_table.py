"""The table says how many points there were, which were hit, what was lost, and whether the run was good."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.audit import DOUBLED, LOST, UNEQUAL, Finding
from tests.faults.load import Load
from tests.faults.plan import Target
from tests.faults.streams.books import Summed
from tests.faults.table import Report, closing, document, lines, place

SEND = "api/middleware.py:guard.middleware:69 > api/dsp_api.py:DspApi._message:110 > control/receive.py:Receiver.message:99"
SETTLE = "control/outbox.py:Outbox._run:1 > control/outbox.py:Outbox._settle:2 > control/journal.py:Journal.commit:3 > adapters/x.py:4"


def report(**changed: Any) -> Report:
    targets = [
        Target("consumer", f"{SEND} [X]", 1, "pull", kills=1, ready_seconds=[0.1]),
        Target("consumer", f"{SEND} [Y]", 1, "pull", kills=1, ready_seconds=[0.3]),
        Target("provider", f"{SEND} [X]", 1, "pull", kills=1, ready_seconds=[0.2]),
        Target("provider", "before COMMIT [message-sent X, message-received Y]", 1, "pull", demanded=False),
    ]
    load = Load({"consumer": 3, "provider": 4}, {"consumer": [0.5], "provider": [0.7, 0.9]}, early=2, jobs=12)
    billed = [Summed(orders=2, receipts=4), Summed(orders=3, receipts=5)]
    return Report(**({"targets": targets, "load": load, "billed": billed, "seconds": {"points": 61.0}} | changed))


def test_a_place_is_what_waits_there_without_what_everything_goes_through():
    assert place(f"{SEND} [X]") == "DspApi._message → Receiver.message"
    assert place(SETTLE) == "Outbox._run → Outbox._settle"
    assert place("before COMMIT [message-received Y, message-sent X]") == "before COMMIT [message-received, message-sent]"
    assert place("after COMMIT [nothing on record]") == "after COMMIT [nothing on record]"


def test_points_of_one_place_are_one_line_with_both_sides():
    rows = {line.split("  ")[0]: line for line in lines(report())}
    row = rows["DspApi._message → Receiver.message"].split()
    assert row[3:] == ["2/2", "2", "0", "0", "0", "0.20/0.30", "1/1", "1", "0", "0", "0", "0.20/0.20"]
    assert rows["before COMMIT [message-sent, message-received]"].split()[-6:] == ["(0/1)", "0", "0", "0", "0", "-"]
    assert rows["all points"].split()[2:] == ["2/2", "2", "0", "0", "0", "0.20/0.30", "1/1", "(0/1)", "1", "0", "0", "0", "0.20/0.20"]
    assert rows["at random, under load (12 jobs; 2 in a start)"].split()[10:] == ["3", "0.50/0.50", "4", "0.80/0.90"]


def test_a_good_run_says_so_in_its_last_line():
    assert report().good
    assert list(lines(report()))[-1] == (
        "GOOD: 4 points, 3 kills at them (3 of 3 that have to be reached, 0 of 1 of chance), 7 random kills;"
        " lost 0, doubled 0, unequal 0 (5 files against both meters and 9 receipts), complaints 0; 61 s"
    )


BAD: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "a loss": (lambda: {"findings": [Finding(LOST, "pull-7", "it is gone")]}, "LOST pull-7: it is gone"),
    "a doubling": (lambda: {"findings": [Finding(DOUBLED, "", "there are two")]}, "DOUBLED -: there are two"),
    "a bill": (lambda: {"findings": [Finding(UNEQUAL, "live-3", "a byte more")]}, "UNEQUAL live-3: a byte more"),
    "a complaint": (lambda: {"complaints": ["consumer: boom"]}, "COMPLAINT consumer: boom"),
    "a point that was not reached": (
        lambda: {"targets": [Target("consumer", "x", 2, "pull")]},
        "NOT REACHED consumer, passage 2 in job pull: x",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_run_is_bad_for_any_of_these_and_says_which(what: str):
    make, line = BAD[what]
    bad = report(**make())
    assert not bad.good
    assert line in list(lines(bad))
    assert closing(bad).startswith("BAD")
    assert document(bad)["good"] is False


def test_a_run_without_points_is_not_good():
    assert not report(targets=[]).good


def test_the_document_holds_each_point_and_is_json():
    found = json.loads(json.dumps(document(report())))
    assert [point["point"] for point in found["points"]] == [target.point for target in report().targets]
    assert found["random"]["kills"] == {"consumer": 3, "provider": 4}
    assert (found["lost"], found["doubled"], found["unequal"], found["seconds"]) == (0, 0, 0, {"points": 61.0})
