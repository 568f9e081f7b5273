"""From what was passed to kills: what each run passes is demanded, nothing is dropped, findings go to the kills of their job."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tests.faults import plan
from tests.faults.audit import DOUBLED, LOST, Finding
from tests.faults.plan import ATTEMPTS, Target, batches, targets

POINTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 4))
Runs = dict[str, list[dict[str, dict[str, int]]]]
RUNS = st.dictionaries(
    st.sampled_from(["one", "two", "three"]),
    st.lists(st.fixed_dictionaries({"consumer": POINTS, "provider": POINTS}), min_size=2, max_size=3),
    min_size=1,
)


@given(RUNS)
def test_every_point_that_was_passed_is_a_target_and_demanded_only_if_a_job_always_passes_it(
    runs: Runs,
):
    found = targets(runs)
    passed = {(side, point) for recordings in runs.values() for run in recordings for side, points in run.items() for point in points}
    assert {(target.side, target.point) for target in found} == passed
    for target in found:
        always = [all(target.point in run[target.side] for run in recordings) for recordings in runs.values()]
        assert target.demanded is any(always)
        if target.demanded:
            assert all(run[target.side][target.point] >= target.passage for run in runs[target.job])


def test_what_comes_in_its_own_time_is_demanded_of_the_job_that_waits_for_it_alone():
    asked = f"{plan.IN_ITS_TIME} > commit"
    seen = {"consumer": {asked: 1, "a": 1}, "provider": {}}
    for first, demanded in (({"consumer": {}, "provider": {}}, False), (seen, True)):
        found = {target.point: target for target in targets({"waits": [first, first], "sees": [seen, seen]})}
        assert (found[asked].demanded, found["a"].demanded) == (demanded, True)


@given(RUNS)
def test_no_kill_is_planned_twice_and_batches_drop_none(runs: Runs):
    found = targets(runs)
    keys = Counter((target.side, target.point, target.passage) for target in found)
    assert set(keys.values()) <= {1}
    done = batches(found)
    assert Counter(id(target) for batch in done for target in batch) == Counter(map(id, found))
    assert all(len({(target.side, target.job) for target in batch}) == 1 for batch in done)


def test_points_are_done_in_the_order_in_which_the_job_passes_them_and_second_passages_last():
    run = {"consumer": {"z": 3, "a": 1}, "provider": {}}
    assert [(target.point, target.passage) for target in batches(targets({"job": [run, run]}))[0]] == [("z", 1), ("a", 1), ("z", 2)]


def test_a_target_is_open_until_it_was_hit_or_tried_often_enough():
    target = Target("consumer", "a", 1, "job")
    assert target.open
    target.attempts = ATTEMPTS[target.demanded]
    assert not target.open
    target.attempts, target.kills = 0, 1
    assert not target.open


def test_findings_are_charged_to_the_kills_of_their_job():
    guilty, innocent = Target("consumer", "a", 1, "job", jobs=["job-1"]), Target("consumer", "b", 1, "job", jobs=["job-2"])
    plan.blame(
        [guilty, innocent], [Finding(LOST, "job-1", ""), Finding(LOST, "job-1", ""), Finding(DOUBLED, "job-1", ""), Finding(LOST, "", "")]
    )
    assert (guilty.lost, guilty.doubled) == (2, 1)
    assert (innocent.lost, innocent.doubled) == (0, 0)
