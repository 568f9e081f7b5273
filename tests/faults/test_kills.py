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
    """A connector whose job passes `points` in order; after a kill it goes on with the next one, through `recovery`."""

    def __init__(self, points: list[str], recovery: list[str]) -> None:
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
        if self.armed.get("kill") != point or self.passed[point] < self.armed["passage"]:
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
                died = any([await self.side.go_past(again) for again in self.side.recovery])
        return True


def lane(points: str, recovery: str = "") -> tuple[Lane, FakePair, list[Target]]:
    side, found = FakeSide(list(points), list(recovery)), list[Target]()
    pair = FakePair(side)
    return Lane(pair, {"consumer": set(points), "provider": set()}, found.append), pair, found  # type: ignore[arg-type]


def armed(points: str, **more: Any) -> list[Target]:
    return [Target("consumer", point, 1, "refused", **more) for point in points]


@pytest.mark.asyncio
async def test_all_points_of_a_job_are_hit_in_one_run_if_they_come_in_order():
    tested, pair, _ = lane("abc")
    batch = armed("abc")
    await tested.run(batch)
    assert pair.side.kills == ["a", "b", "c"]
    assert [target.kills for target in batch] == [1, 1, 1]
    assert pair.jobs == 1
    assert all(target.ready_seconds and target.jobs == ["refused-1"] for target in batch)


@pytest.mark.asyncio
async def test_a_point_that_has_gone_by_is_hit_in_the_next_run():
    tested, pair, _ = lane("abc")
    batch = armed("cab")
    await tested.run(batch)
    assert [target.kills for target in batch] == [1, 1, 1]
    assert pair.jobs == 2
    assert batch[1].jobs == ["refused-2"]


@pytest.mark.asyncio
async def test_a_point_that_never_comes_is_tried_often_enough_and_given_up_and_the_others_are_hit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kills, "LIFE_SECONDS", 0.0)
    tested, pair, _ = lane("abc")
    batch = armed("xab")
    await tested.run(batch)
    assert [(target.kills, target.attempts) for target in batch] == [(0, ATTEMPTS[True]), (1, 0), (1, 0)]
    assert pair.jobs == ATTEMPTS[True] * JOBS_OF_A_LIFE + 1
    assert pair.side.armed == {}, "the connector is left unarmed"


@pytest.mark.parametrize("count", [2, JOBS_OF_A_LIFE])
@pytest.mark.asyncio
async def test_what_a_life_passes_in_a_later_job_only_is_hit_then(count: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kills, "LIFE_SECONDS", 0.0)
    tested, pair, _ = lane("a")
    batch = armed("a")
    batch[0].passage = count
    await tested.run(batch)
    assert (pair.side.kills, pair.jobs, batch[0].attempts) == (["a"], count, 0)
    assert batch[0].jobs == [f"refused-{count}"]


@pytest.mark.asyncio
async def test_a_life_lasts_longer_than_what_goes_by_the_clock_and_what_comes_by_chance_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kills, "LIFE_SECONDS", 0.2)
    monkeypatch.setattr(plan, "ATTEMPTS", {True: 1, False: 1})
    tested, pair, _ = lane("a")
    began = time.monotonic()
    await tested.run(armed("x"))
    assert time.monotonic() - began >= 0.2
    assert pair.jobs > JOBS_OF_A_LIFE
    before = pair.jobs
    await tested.run(armed("x", demanded=False))
    assert pair.jobs == before + 1


@pytest.mark.asyncio
async def test_what_only_a_recovery_passes_is_found_with_the_kill_that_led_there_and_then_hit():
    tested, pair, found = lane("ab", recovery="r")
    batch = armed("a")
    await tested.run(batch)
    (new,) = found
    assert (new.point, new.demanded, new.after) == ("r", False, batch[0])
    await tested.run(found[:])
    assert pair.side.kills[-2:] == ["a", "r"]
    assert new.kills == 1


@pytest.mark.asyncio
async def test_a_lane_that_has_lost_something_stops():
    tested, pair, _ = lane("ab")
    pair.broken = True
    await run_all([tested], [armed("a"), armed("b")])
    assert pair.jobs == 1
    assert [finding.job for finding in pair.stuck] == ["refused-1"]
