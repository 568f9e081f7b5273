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
GAP_SECONDS = 0.7  # at most between two kills, so that jobs are in the middle of something
IN_A_START = 0.2  # share of the kills that do not wait until the last victim serves again


@dataclass
class Load:
    """What was done and what it took. `kills` and `ready_seconds` are by side, `early` kills met a connector that did not
    serve yet."""

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIDES, 0))
    ready_seconds: dict[str, list[float]] = field(default_factory=dict)
    early: int = 0
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
        while sum(load.kills.values()) < kills and not over.is_set():
            if chance.random() > IN_A_START:
                await asyncio.gather(*(pair[name].ready.wait() for name in SIDES))
            await asyncio.sleep(chance.uniform(0, GAP_SECONDS))
            side = pair[chance.choice(SIDES)]
            early = not side.ready.is_set()
            if await side.kill():
                load.kills[side.name] += 1
                load.early += early
        over.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(kill())
        for number in range(WORKERS):
            group.create_task(work(number, chance.sample(list(JOBS), len(JOBS))))
    load.ready_seconds = {name: pair[name].ready_seconds for name in SIDES}
    load.repeats = sum(pair[name].repeats for name in SIDES)
    return load
