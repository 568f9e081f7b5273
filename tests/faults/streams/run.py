"""All of it: the lanes side by side, their books, their ledgers, and the report."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.faults.home import ROOT, Home
from tests.faults.nursery import program
from tests.faults.streams.books import summed
from tests.faults.streams.lane import Lane
from tests.faults.streams.plan import ALL, LIVE, PUSHED, Errand, Road, errands
from tests.faults.streams.revocation import revocable, revocations
from tests.faults.streams.table import Report


async def run(count: int, seed: int, build: Path) -> Report:
    """Cut so many transfers that are fetched, half as many that are pushed and a fifth as many of data without an end, below the folder
    `build`; afterwards revoke some while they flow."""
    pushed, live = count // 2, count // 5
    todo = [*errands(count, seed), *errands(pushed, seed, PUSHED, first=count), *errands(live, seed, LIVE, first=count + pushed)]
    async with program().used(), AsyncExitStack() as stack:
        async with asyncio.TaskGroup() as group:
            ready = group.create_task(stack.enter_async_context(revocable(build / "streams-revoked")))
            report = await cut(todo, build)
        report.revoked = await revocations(ready.result(), report.complaints)
    return report


async def cut(todo: Sequence[Errand], build: Path) -> Report:
    """Run errands, those of each road after each other and the roads side by side."""
    report = Report()
    async with asyncio.TaskGroup() as group:
        for number, road in enumerate(ALL):
            mine = [errand for errand in todo if errand.road is road]
            if mine:
                group.create_task(_lane(build / f"streams-{number}", road, mine, report))
    return report


async def _lane(root: Path, road: Road, todo: list[Errand], report: Report) -> None:
    async with Lane(root, road) as lane:
        for errand in todo:
            done = await lane.run(errand)
            report.done.append(done)
            if done.wrong:
                print(f"  {errand.number}: {'; '.join(done.wrong)}", flush=True)
        report.ledgers += await asyncio.gather(*(asyncio.to_thread(ledger_verified, home) for home in lane.homes.values()))
        report.complaints += await lane.stop()
        report.books.append(await summed(lane.homes, lane.done))


def ledger_verified(home: Home) -> str:
    """What `connector ledger verify` says of a connector that runs; it begins with `BAD` if that is not good."""
    command: list[Any] = [sys.executable, "-m", "connector", "ledger", "verify", "--config", home.settings]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    said = " ".join((told.stdout + told.stderr).split())
    return said if told.returncode == 0 and "entries are those" in told.stdout else f"BAD {home.directory.name}: {said}"
