"""The kills at points: record which points the jobs pass, then kill a connector at each of them and let the job go on."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from tests.faults import jobs, plan
from tests.faults.job import Job
from tests.faults.jobs import JOBS
from tests.faults.ledger import SIDES
from tests.faults.pair import Pair
from tests.faults.plan import Target
from tests.faults.side import Side

RECORDINGS = 3  # what each of them passes is demanded
START = "start"  # the job of points that are passed before a connector serves; what runs afterwards shows that it does
FIRST = jobs.witnessed.__name__  # what comes in its own time belongs to the job that waits for it, not to one that may see it
SCRIPTS = {FIRST: JOBS[FIRST], START: jobs.refused} | JOBS
# What goes by the clock is passed by a job or not, as its life happens to stand: so a life that waits for a point which has to be reached
# sees as many jobs, and lasts longer than anything that comes again by the clock here.
JOBS_OF_A_LIFE, LIFE_SECONDS = 3, 4.0
# A job is killed again and again for so long and then left alone, however slow the machine is: in `edr.quiet_seconds` the provider would
# take a transfer for complete whose consumer never lives long enough to say that it is.
ROW_SECONDS = 1.0


Runs = dict[str, list[dict[str, Counter[str]]]]  # job -> for each run, side -> points passed


async def record(pairs: Sequence[Pair]) -> Runs:
    """Run each job undisturbed, so many times on one of the pairs; they share the jobs, and what one side passes while it starts is the
    word of the first."""
    runs: Runs = {job: [] for job in SCRIPTS}
    shares = [list(JOBS)[at :: len(pairs)] for at in range(len(pairs))]
    async with asyncio.TaskGroup() as group:
        for pair, share in zip(pairs, shares, strict=True):
            group.create_task(_record(pair, share, runs, starts=pair is pairs[0]))
    return runs


async def _record(pair: Pair, share: Sequence[str], runs: Runs, *, starts: bool) -> None:
    for number in range(RECORDINGS):
        await asyncio.gather(*(_anew(pair[name]) for name in SIDES))
        if starts:
            runs[START].append({name: await pair[name].collect() for name in SIDES})
        if number == 0:
            await jobs.prepare(pair)
        for name in share:
            for side in SIDES:
                await pair[side].collect()
            await pair.finish(f"record-{name}-{number}", JOBS[name](Job(pair, f"record-{name}", number)))
            runs[name].append({side: await pair[side].collect() for side in SIDES})


async def _anew(side: Side) -> None:
    await side.kill()
    await side.start()


class Lane:
    """One pair that is killed at point after point. What it passes is added to what is `known`, side -> points.

    All targets that are left are armed at once, and the first one that is passed is the end of a life: in which order a job passes them
    says nothing about which of them can be hit, and a life in vain is one for all of them.
    """

    def __init__(self, pair: Pair, known: Mapping[str, set[str]]) -> None:
        self.pair = pair
        self._known = known
        self._found: list[Target] = []
        self._left: list[Target] = []
        self._last: Target | None = None  # whose kill led to the present life
        self._led: set[int] = set()  # the targets, by `id`, whose kill led to another one while the present job runs
        self._row_began: float | None = None  # when the first kill was while it runs
        self._left_alone = False
        self._side = self._script = self._job = ""
        self._number = 0

    async def run(self, batch: list[Target]) -> list[Target]:
        """Do the kills of a batch: one side, one job, as many runs of it as it takes. Returns the points that nobody knew: only a recovery
        passes them."""
        self._side, self._script = batch[0].side, batch[0].job
        self._left, self._last, self._job, self._found = list(batch), None, "", []
        side = self.pair[self._side]

        async def start() -> None:
            self._died(side.died_at, side.take_passed())
            await side.start(**self._order())
            if side.ready.is_set() and self._last is not None:
                self._last.ready_seconds.append(side.ready_seconds[-1])

        self.pair.guard(side, start)
        await self._another_life(side)
        in_vain = 0
        while self._left:
            left = len(self._left)
            self._number += 1
            job = Job(self.pair, self._script, self._number)
            self._job, self._row_began = job.id, None
            if not await self.pair.finish(job.id, SCRIPTS[self._script](job)):
                break  # what was lost is noted; the same job would only wait for it again
            if len(self._left) < left:
                in_vain = 0
                if self._left_alone or any(id(target.after) in self._led for target in self._left):
                    await self._another_life(side)
                continue
            in_vain += 1
            demanded = any(target.demanded for target in self._left)
            if demanded and (in_vain < JOBS_OF_A_LIFE or time.monotonic() - side.ready_at < LIFE_SECONDS):
                continue
            in_vain = 0
            self._in_vain()
            await self._another_life(side)
        await self.pair.unguard()
        if side.dead.is_set():
            await side.start()
        self._seen(await side.collect())
        return self._found

    async def _another_life(self, side: Side) -> None:
        """End this one, which may have been led to all that it can be led to."""
        self._led.clear()
        self._row_began, self._left_alone = None, False
        await side.kill()

    def _armed(self) -> dict[str, Target]:
        """What ends the next life, by point: each target that is left, and once in a job the one whose kill leads to it. Of one point it is
        the first passage."""
        leading = [target.after for target in self._left if target.after not in (None, self._last) and id(target.after) not in self._led]
        armed: dict[str, Target] = {}
        for target in (*self._left, *leading):
            if target is not None and (target.point not in armed or target.passage < armed[target.point].passage):
                armed[target.point] = target
        return armed

    def _order(self) -> dict[str, Any]:
        armed = self._armed()
        self._left_alone = self._row_began is not None and time.monotonic() - self._row_began > ROW_SECONDS
        if self._left_alone:
            return {}
        return {"kill": {point: target.passage for point, target in armed.items()}} if armed else {}

    def _died(self, died_at: str | None, passed: Mapping[str, int]) -> None:
        """Note what a life has passed and where it ended."""
        self._seen(passed)
        target = self._armed().get(died_at) if died_at is not None else None
        self._last = target
        if target is None:
            return
        self._row_began = self._row_began or time.monotonic()
        if target in self._left:
            target.kills += 1
            self._left.remove(target)
        else:
            self._led.add(id(target))
        target.jobs.append(self._job)

    def _in_vain(self) -> None:
        """A life has seen its jobs and nothing was killed: no point that is left was passed."""
        for target in self._left:
            target.attempts += 1
        self._left = [target for target in self._left if target.open]

    def _seen(self, passed: Mapping[str, int]) -> None:
        for point in passed:
            if point not in self._known[self._side]:
                self._known[self._side].add(point)
                self._found.append(Target(self._side, point, 1, self._script, demanded=False, after=self._last))


async def run_all(lanes: Sequence[Lane], todo: Sequence[list[Target]], *, found_too: bool = True) -> list[Target]:
    """Share batches among the lanes, and with `found_too` what they find meanwhile, as soon as nothing else waits. Returns all that was
    found; what is seen on the way back from that is known, and left at that. A lane that has lost something stops: the run has failed,
    and its books are wanted."""
    waiting, new, found, running = deque((batch, found_too) for batch in todo), list[Target](), list[Target](), 0
    news = asyncio.Condition()

    def goes_on() -> bool:
        return bool(waiting or new or not running)

    async def work(lane: Lane) -> None:
        nonlocal running
        while not lane.pair.stuck:
            async with news:
                await news.wait_for(goes_on)
                if not waiting:
                    waiting.extend((batch, False) for batch in plan.batches(new))
                    new.clear()
                if not waiting:
                    return
                batch, finds = waiting.popleft()
                running += finds
            more = await lane.run(batch)
            done = sum(bool(target.kills) for target in batch)
            print(f"  {batch[0].side} killed in `{batch[0].job}`: {done} of {len(batch)} kills done", flush=True)
            async with news:
                running -= finds
                found.extend(more)
                new.extend(more if finds else ())
                news.notify_all()

    async with asyncio.TaskGroup() as group:
        for lane in lanes:
            group.create_task(work(lane))
    return found
