"""The random kills: several jobs at a time, and the real program killed and restarted at moments of chance."""

import asyncio
import random
from dataclasses import dataclass, field

from tests.faults import jobs
from tests.faults.job import Job
from tests.faults.jobs import JOBS
from tests.faults.ledger import SIDES
from tests.faults.pair import Pair

WORKERS = 6
GAP_SECONDS = (0.05, 1.4)  # between two kills: from the middle of a start to well after it
WARM_SECONDS = 0.5


@dataclass
class Load:
    """What was done and what it took. `ready_seconds` by side."""

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIDES, 0))
    ready_seconds: dict[str, list[float]] = field(default_factory=dict)
    jobs: int = 0
    repeats: int = 0


async def run(pair: Pair, kills: int, chance: random.Random) -> Load:
    """Kill so many times under load, then let every job come to its end."""
    load = Load()
    await asyncio.gather(*(pair[name].start_program() for name in SIDES))
    await jobs.prepare(pair)
    for name in SIDES:
        pair.guard(pair[name], pair[name].start_program)
    over = asyncio.Event()

    async def work(number: int, names: list[str]) -> None:
        while not over.is_set():
            load.jobs += 1
            name = names[load.jobs % len(names)]
            job = Job(pair, f"load-{name}-{number}", load.jobs)
            if not await pair.finish(job.id, JOBS[name](job)):
                over.set()

    async def kill() -> None:
        await asyncio.sleep(WARM_SECONDS)
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(*GAP_SECONDS))
            side = pair[chance.choice(SIDES)]
            if over.is_set():
                break
            await side.kill()
            load.kills[side.name] += 1
        over.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(kill())
        for number in range(WORKERS):
            group.create_task(work(number, chance.sample(list(JOBS), len(JOBS))))
    load.ready_seconds = {name: pair[name].ready_seconds for name in SIDES}
    load.repeats = sum(pair[name].repeats for name in SIDES)
    return load
