"""A lane hits every point that its job passes, finds those that only a recovery passes, and gives up on what never comes."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from tests.faults import kills, plan
from tests.faults.audit import LOST, Finding
from tests.faults.kills import JOBS_OF_A_LIFE, Lane, run_all
from tests.faults.plan import ATTEMPTS, Target


class FakeSide:
    """A connector whose job passes `points` in order; after a kill it goes on with the next one, through its `recovery`."""

    def __init__(self, points: str, recovery: dict[str, str]) -> None:
        self.points, self.recovery = points, recovery
        self.ready, self.dead = asyncio.Event(), asyncio.Event()
        self.ready_seconds: list[float] = []
        self.ready_at = time.monotonic()
        self.died_at: str | None = None
        self.passed: Counter[str] = Counter()
        self.kills: list[str] = []
        self.armed: dict[str, Any] = {}
        self.restart: Callable[[], Awaitable[None]] | None = None

    async def start(self, **order: Any) -> None:
        self.armed, self.died_at = order, None
        self.dead.clear()
        self.ready.set()
        self.ready_seconds.append(0.1)
        self.ready_at = time.monotonic()

    async def kill(self) -> None:
        self.died_at = None
        await self.end()

    async def end(self) -> None:
        self.ready.clear()
        self.dead.set()
        if self.restart is not None:
            await self.restart()

    async def go_past(self, point: str) -> bool:
        """Pass a point; True if that was the end of this life."""
        self.passed[point] += 1
        if self.passed[point] != self.armed.get("kill", {}).get(point):
            return False
        self.died_at = point
        self.kills.append(point)
        await self.end()
        return True

    def take_passed(self) -> Counter[str]:
        passed, self.passed = self.passed, Counter()
        return passed

    async def collect(self) -> Counter[str]:
        return self.take_passed()


class FakePair:
    def __init__(self, side: FakeSide) -> None:
        self.side, self.stuck, self.jobs = side, [], 0
        self.broken = False

    def __getitem__(self, _name: str) -> FakeSide:
        return self.side

    def guard(self, side: FakeSide, start: Callable[[], Awaitable[None]]) -> None:
        side.restart = start

    async def unguard(self) -> None:
        self.side.restart = None

    async def finish(self, job: str, work: Coroutine[Any, Any, None]) -> bool:
        work.close()
        self.jobs += 1
        if self.broken:
            self.stuck.append(Finding(LOST, job, "it had not ended"))
            return False
        for point in self.side.points:
            died = await self.side.go_past(point)
            while died:
                died = any([await self.side.go_past(again) for again in self.side.recovery.get(self.side.kills[-1], "")])
        return True


def lane(points: str, **recovery: str) -> tuple[Lane, FakePair]:
    pair = FakePair(FakeSide(points, recovery))
    return Lane(pair, {"consumer": set(points), "provider": set()}), pair  # type: ignore[arg-type]


def armed(points: str, **more: Any) -> list[Target]:
    return [Target("consumer", point, 1, "refused", **more) for point in points]


@pytest.mark.asyncio
async def test_all_points_of_a_job_are_hit_in_one_run_in_whichever_order_they_are_asked_for():
    tested, pair = lane("abc")
    batch = armed("cab")
    assert await tested.run(batch) == []
    assert pair.side.kills == ["a", "b", "c"]
    assert [target.kills for target in batch] == [1, 1, 1]
    assert pair.jobs == 1
    assert all(target.ready_seconds and target.jobs == ["refused-1"] for target in batch)


@pytest.mark.asyncio
async def test_a_job_that_was_killed_for_long_enough_is_left_alone_and_what_is_left_is_hit_in_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kills, "ROW_SECONDS", -1.0)
    tested, pair = lane("abc")
    batch = armed("abc")
    await tested.run(batch)
    assert [(target.kills, target.attempts, target.jobs) for target in batch] == [(1, 0, [f"refused-{n}"]) for n in (1, 2, 3)]
    assert pair.side.kills == ["a", "b", "c"]


@pytest.mark.asyncio
async def test_a_second_passage_is_hit_in_a_life_that_has_passed_the_first_one():
    tested, pair = lane("aab")
    batch = [*armed("ab"), Target("consumer", "a", 2, "refused")]
    await tested.run(batch)
    assert pair.side.kills == ["a", "b", "a"]
    assert [(target.kills, target.attempts, target.jobs) for target in batch] == [
        (1, 0, ["refused-1"]),
        (1, 0, ["refused-1"]),
        (1, 0, ["refused-2"]),
    ]


@pytest.mark.asyncio
async def test_a_life_in_vain_is_one_for_all_that_never_comes_and_after_enough_of_them_it_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kills, "LIFE_SECONDS", 0.0)
    tested, pair = lane("abc")
    batch = armed("xyab")
    await tested.run(batch)
    assert [(target.kills, target.attempts) for target in batch] == [(0, ATTEMPTS[True])] * 2 + [(1, 0)] * 2
    assert pair.jobs == ATTEMPTS[True] * JOBS_OF_A_LIFE + 1
    assert pair.side.armed == {}, "the connector is left unarmed"


@pytest.mark.parametrize("count", [2, JOBS_OF_A_LIFE])
@pytest.mark.asyncio
async def test_what_a_life_passes_in_a_later_job_only_is_hit_then(count: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kills, "LIFE_SECONDS", 0.0)
    tested, pair = lane("a")
    batch = armed("a")
    batch[0].passage = count
    await tested.run(batch)
    assert (pair.side.kills, pair.jobs, batch[0].attempts) == (["a"], count, 0)
    assert batch[0].jobs == [f"refused-{count}"]


@pytest.mark.asyncio
async def test_a_life_lasts_longer_than_what_goes_by_the_clock_and_what_comes_by_chance_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kills, "LIFE_SECONDS", 0.2)
    monkeypatch.setattr(plan, "ATTEMPTS", {True: 1, False: 1})
    tested, pair = lane("a")
    began = time.monotonic()
    await tested.run(armed("x"))
    assert time.monotonic() - began >= 0.2
    assert pair.jobs > JOBS_OF_A_LIFE
    before = pair.jobs
    await tested.run(armed("x", demanded=False))
    assert pair.jobs == before + 1


@pytest.mark.asyncio
async def test_what_only_a_recovery_passes_is_found_with_the_kill_that_led_there_and_then_hit():
    tested, pair = lane("ab", a="r", r="s")
    batch = armed("a")
    new, other = await run_all([tested], [batch])
    assert (new.point, new.demanded, new.after) == ("r", False, batch[0])
    assert pair.side.kills == ["a", "a", "r"]
    assert (new.kills, batch[0].kills) == (1, 1)
    assert (other.point, other.kills, other.after) == ("s", 0, new), "known, and left at that"


@pytest.mark.asyncio
async def test_each_of_several_points_behind_a_kill_has_that_kill_before_it_once_in_a_job_and_no_more_than_that():
    tested, pair = lane("ab", a="qr", q="q", r="r")
    batch = armed("a")
    found = await run_all([tested], [batch], found_too=False)
    assert [target.point for target in found] == ["q", "r"]
    found.append(Target("consumer", "x", 1, "refused", demanded=False, after=batch[0]))
    await tested.run(found)
    assert [(target.kills, target.attempts) for target in found] == [(1, 0), (1, 0), (0, ATTEMPTS[False])]
    assert pair.side.kills == ["a", *"aqr", *"a" * ATTEMPTS[False]], "it leads to `q` and `r`, and each time in vain to `x`"


@pytest.mark.asyncio
async def test_a_lane_that_has_lost_something_stops():
    tested, pair = lane("ab")
    pair.broken = True
    await run_all([tested], [armed("a"), armed("b")])
    assert pair.jobs == 1
    assert [finding.job for finding in pair.stuck] == ["refused-1"]
