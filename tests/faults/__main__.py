"""Kills real connectors and calls them to account: `python -m tests.faults --kills 30`. Exit status 1 if anything was lost,
doubled, billed otherwise than it lies on the disk or complained of, or if a point was never reached."""

import argparse
import asyncio
import faulthandler
import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from tests.dataplane_live import upstream
from tests.faults import hardships, kills, lies, load, plan, table
from tests.faults.bugs import BUGS
from tests.faults.home import ROOT
from tests.faults.ledger import SIDES
from tests.faults.nursery import program
from tests.faults.pair import PATIENCE_SECONDS, Pair
from tests.faults.streams import run as streams
from tests.faults.streams import table as streams_table
from tests.faults.table import Report

BUILD = ROOT / "build"
LANES = min(6, 3 * (os.cpu_count() or 1))  # pairs that are killed side by side: a restart waits as long as it works
BUG_PATIENCE_SECONDS = 6.0  # what a planted defect has lost will not come later either
BUG_KILLS = 6


async def at_points(report: Report, bug: str | None, patience_seconds: float) -> None:
    """Record, then kill at each point; what only recoveries pass is tried afterwards."""
    async with AsyncExitStack() as stack:
        begun = time.monotonic()
        await stack.enter_async_context(upstream.running())  # once: whoever asks at the same time as another has one more
        pairs = [Pair(BUILD / f"faults-{n}", bug, patience_seconds) for n in range(LANES)]
        await asyncio.gather(*(stack.enter_async_context(pair) for pair in pairs))
        report.targets = plan.targets(await kills.record(pairs))
        report.seconds["recording"] = time.monotonic() - begun
        if bug is not None:
            report.targets = [target for target in report.targets if any(word in target.point for word in BUGS[bug].where)]
        known = {side: {target.point for target in report.targets if target.side == side} for side in SIDES}
        print(f"{len(report.targets)} kills to do at {len({(t.side, t.point) for t in report.targets})} points", flush=True)
        lanes = [kills.Lane(pair, known) for pair in pairs]
        found = await kills.run_all(lanes, plan.batches(report.targets), found_too=bug is None)
        report.targets += found if bug is None else ()
        for pair, (findings, complaints) in zip(pairs, await asyncio.gather(*(pair.account() for pair in pairs)), strict=True):
            report.findings += findings
            report.complaints += complaints
            report.billed.append(pair.billed)
            plan.blame((target for target in report.targets if not (target.lost or target.doubled or target.unequal)), findings)
        report.seconds["points"] = time.monotonic() - begun - report.seconds["recording"]


async def at_random(report: Report, count: int, seed: int, bug: str | None, patience_seconds: float) -> None:
    """Kill at moments of chance."""
    begun = time.monotonic()
    async with Pair(BUILD / "faults-load", bug, patience_seconds) as pair:
        report.load = await load.run(pair, count, random.Random(seed))
        findings, complaints = await pair.account()
        report.findings += findings
        report.complaints += complaints
        report.billed.append(pair.billed)
    report.seconds["random"] = time.monotonic() - begun


async def run(count: int, seed: int, bug: str | None = None) -> Report:
    """One whole run."""
    report, patience_seconds = Report(), BUG_PATIENCE_SECONDS if bug else PATIENCE_SECONDS
    async with program().used():
        await at_points(report, bug, patience_seconds)
        if not (bug and report.findings) and count:
            await at_random(report, count, seed, bug, patience_seconds)
    return report


def self_check(seed: int) -> int:
    """Plant each defect in turn; one that leaves the run without a finding shows that these tests have no teeth there."""
    toothless = []
    for name, bug in BUGS.items():
        report = asyncio.run(run(BUG_KILLS, seed, name))
        red = bool(report.findings)
        toothless += [] if red else [name]
        first = f"{report.findings[0].kind}: {report.findings[0].what}" if red else "NOTHING WAS FOUND"
        print(f"{name}: {bug.what}\n  {len(report.findings)} findings; {first}\n  {table.closing(report)}", flush=True)
    print(f"{len(BUGS) - len(toothless)} of {len(BUGS)} planted defects were found{': not ' if toothless else ''}{', '.join(toothless)}")
    return 1 if toothless else 0


def of_streams(count: int, seed: int) -> int:
    """Cut so many transfers; returns the exit status."""
    BUILD.mkdir(exist_ok=True)
    report = asyncio.run(streams.run(count, seed, BUILD))
    (BUILD / "faults-streams.json").write_text(json.dumps(streams_table.document(report) | {"seed": seed}, indent=1) + "\n")
    print("\n".join(streams_table.lines(report)), f"(seed {seed}, build/faults-streams.json)")
    return 0 if report.good else 1


def of_hardships() -> int:
    """Let machines have them; returns the exit status."""
    BUILD.mkdir(exist_ok=True)
    found = asyncio.run(hardships.run(BUILD / "faults-hardships"))
    print("\n".join(hardships.lines(found)))
    return 0 if hardships.good(found) else 1


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    faulthandler.register(signal.SIGUSR2)
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=30, help="random kills under load, after those at every point")
    parser.add_argument("--streams", type=int, help="instead of all that: so many transfers that are cut at offsets of chance, and revoked")
    parser.add_argument("--seed", type=int, default=None, help="of the random kills; default: another one each time")
    parser.add_argument("--bug", choices=sorted(BUGS), help="plant this defect; the run has to turn red")
    parser.add_argument("--self-check", action="store_true", help="plant each defect in turn and demand that each is found")
    parser.add_argument(
        "--hardships", action="store_true", help="instead of all that: peers that stand still, clocks that jump, full disks"
    )
    parser.add_argument("--lies", action="store_true", help="tell no lie, and print which there are and which code refuses each")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    if options.self_check:
        return self_check(seed)
    if options.lies:
        print("\n".join(lies.lines()))
        return 0
    if options.hardships:
        return of_hardships()
    if options.streams is not None:
        return of_streams(options.streams, seed)
    report = asyncio.run(run(options.kills, seed, options.bug))
    BUILD.mkdir(exist_ok=True)
    Path(BUILD / "faults.json").write_text(json.dumps(table.document(report) | {"seed": seed, "bug": options.bug}, indent=1) + "\n")
    print("\n".join(table.lines(report)), f"(seed {seed}, build/faults.json)")
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
