"""The kills at points: record which points the jobs pass, then kill a connector at each of them and let the job go on."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

from tests.faults import jobs
from tests.faults.job import Job
from tests.faults.jobs import JOBS
from tests.faults.ledger import SIDES
from tests.faults.pair import Pair
from tests.faults.plan import Target

RECORDINGS = 3  # what each of them passes is demanded
START = "start"  # the job of points that are passed before a connector serves; what runs afterwards shows that it does
FIRST = jobs.witnessed.__name__  # what comes in its own time belongs to the job that waits for it, not to one that may see it
SCRIPTS = {FIRST: JOBS[FIRST], START: jobs.refused} | JOBS
# What goes by the clock is passed by a job or not, as its life happens to stand: so a life that waits for a point which has to be reached
# sees as many jobs, and lasts longer than anything that comes again by the clock here.
JOBS_OF_A_LIFE, LIFE_SECONDS = 3, 4.0


async def record(pair: Pair) -> dict[str, list[dict[str, Counter[str]]]]:
    """Run each job undisturbed: job -> for each run, side -> points passed."""
    runs: dict[str, list[dict[str, Counter[str]]]] = {job: [] for job in SCRIPTS}
    for number in range(RECORDINGS):
        for name in SIDES:
            await pair[name].kill()
            await pair[name].start()
        runs[START].append({name: await pair[name].collect() for name in SIDES})
        if number == 0:
            await jobs.prepare(pair)
        for name, script in JOBS.items():
            for side in SIDES:
                await pair[side].collect()
            await pair.finish(f"record-{name}-{number}", script(Job(pair, f"record-{name}", number)))
            runs[name].append({side: await pair[side].collect() for side in SIDES})
    return runs


class Lane:
    """One pair that is killed at point after point. `found` is told of points that nobody knew: only a recovery passes them."""

    def __init__(self, pair: Pair, known: Mapping[str, set[str]], found: Callable[[Target], None]) -> None:
        self.pair = pair
        self._known, self._found = known, found
        self._queue: deque[Target] = deque()
        self._armed: Target | None = None
        self._last: Target | None = None  # whose kill led to the present life
        self._side = self._script = self._job = ""
        self._number = 0

    async def open(self) -> None:
        """Start both connectors."""
        await asyncio.gather(*(self.pair[name].start() for name in SIDES))
        await jobs.prepare(self.pair)

    async def run(self, batch: list[Target]) -> None:
        """Do the kills of a batch: one side, one job, as many runs of it as it takes."""
        self._side, self._script = batch[0].side, batch[0].job
        self._queue, self._armed, self._last, self._job = deque(batch), None, None, ""
        side = self.pair[self._side]

        async def start() -> None:
            self._died(side.died_at, side.take_passed())
            await side.start(**self._order())
            if side.ready.is_set() and self._last is not None:
                self._last.ready_seconds.append(side.ready_seconds[-1])

        self.pair.guard(side, start)
        await side.kill()
        in_vain = 0
        while self._queue or self._armed:
            kills = sum(target.kills for target in batch)
            self._number += 1
            job = Job(self.pair, self._script, self._number)
            self._job = job.id
            if not await self.pair.finish(job.id, SCRIPTS[self._script](job)):
                break  # what was lost is noted; the same job would only wait for it again
            if self._armed is None or kills < sum(target.kills for target in batch):
                in_vain = 0
                continue
            in_vain += 1
            if self._armed.demanded and (in_vain < JOBS_OF_A_LIFE or time.monotonic() - side.ready_at < LIFE_SECONDS):
                continue
            in_vain = 0
            self._in_vain(self._armed)
            await side.kill()
        await self.pair.unguard()
        if side.dead.is_set():
            await side.start()
        self._seen(await side.collect())

    def _order(self) -> dict[str, Any]:
        """Arm the next target, or the one whose kill leads to it."""
        if self._armed is None and self._queue:
            self._armed = self._queue.popleft()
        target = self._armed
        if target is not None and target.after is not None and self._last is not target.after:
            target = target.after
        return {"kill": target.point, "passage": target.passage} if target else {}

    def _died(self, died_at: str | None, passed: Mapping[str, int]) -> None:
        """Note what a life has passed and where it ended."""
        self._seen(passed)
        armed, self._last = self._armed, None
        if armed is None or died_at is None:
            return
        if died_at == armed.point:
            armed.kills += 1
            self._last, self._armed = armed, None
        elif armed.after is not None:
            self._last = armed.after
        if self._last is not None:
            self._last.jobs.append(self._job)

    def _in_vain(self, target: Target) -> None:
        """A life has seen its jobs and nothing was killed: the point that is armed was not passed. Others first, then it again."""
        self._armed = None
        target.attempts += 1
        if target.open:
            self._queue.append(target)

    def _seen(self, passed: Mapping[str, int]) -> None:
        for point in passed:
            if point not in self._known[self._side]:
                self._known[self._side].add(point)
                self._found(Target(self._side, point, 1, self._script, demanded=False, after=self._last))


async def run_all(lanes: list[Lane], todo: list[list[Target]]) -> None:
    """Share batches among the lanes. A lane that has lost something stops: the run has failed, and its books are wanted."""
    waiting = deque(todo)

    async def work(lane: Lane) -> None:
        while waiting and not lane.pair.stuck:
            batch = waiting.popleft()
            await lane.run(batch)
            print(
                f"  {batch[0].side} killed in `{batch[0].job}`: {sum(bool(t.kills) for t in batch)} of {len(batch)} kills done", flush=True
            )

    async with asyncio.TaskGroup() as group:
        for lane in lanes:
            group.create_task(work(lane))
