"""What befalls machines while jobs run: a peer stands still, a clock is set, a disk is full or can only be read.

All jobs of a round run at once, and in their middle it happens; then it is over, and every job has to come to its end as if nothing had
been: nothing is lost, doubled or billed otherwise than it lies on the disk.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.faults import jobs
from tests.faults.audit import LOST, Finding
from tests.faults.job import Job
from tests.faults.jobs import JOBS
from tests.faults.ledger import SIDES
from tests.faults.pair import Pair
from tests.faults.patience import patience
from tests.faults.side import Side
from tests.faults.streams.books import Summed

BEFORE_SECONDS: Final = 0.3  # from when all orders negotiate until it happens
FROZEN_SECONDS: Final = 30.0
JUMPS_SECONDS: Final = (7200.0, -3600.0, -3600.0)  # never before their keys were made
WRONG_SECONDS: Final = 4.0  # that a disk is full
PATIENCE_SECONDS: Final = 150.0
DISK_MIB: Final = 320  # both connectors keep 64 MiB of it for what has to end
AGAIN_SECONDS: Final = 0.5
ORDERS: Final = ("pull", "pushed", "slow", "live", "events")
ALL: Final = ("counter", "transfer", *ORDERS)
# What a connector may say as an error while it happens.
OF_DISKS: Final = ("disk", "No space left", "store cannot be written", "Read-only", "cannot be written", "read-only", "ended with status")


@dataclass
class Suffered:
    """One hardship: what became of it, and how long its jobs took after it was over."""

    name: str
    jobs: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    billed: Summed = field(default_factory=Summed)
    skipped: str = ""

    @property
    def good(self) -> bool:
        return not (self.findings or self.complaints)


Act = Callable[[Pair, asyncio.Event], Awaitable[None]]  # the event is set while whoever has ended may be started again


async def _round(pair: Pair, number: int, act: Act, may_start: asyncio.Event) -> float:
    """Run jobs at once and let it happen in their middle; returns how long they took afterwards."""
    works = [asyncio.create_task(pair.finish(f"{name}-{number}", JOBS[name](Job(pair, f"{name}-{number}", number)))) for name in ALL]
    try:
        await _begun(pair, len(ORDERS), number)
        await asyncio.sleep(BEFORE_SECONDS)
        await act(pair, may_start)
        over = time.monotonic()
        await asyncio.gather(*works)
    finally:
        may_start.set()
        for work in works:
            work.cancel()
    return time.monotonic() - over


async def _begun(pair: Pair, count: int, number: int) -> None:
    """Wait until all orders negotiate: one that finds no offer because of what happens says so at once, and has begun nothing."""
    begun = set[str]()
    async with patience(PATIENCE_SECONDS, pair.queued_seconds):
        while len(begun) < count:
            for order in [order for order in pair.ledger.orders if order.job.endswith(f"-{number}")]:
                if order.id not in begun and (await pair.consumer.insist(lambda client, id=order.id: client.pull_order(id))).negotiation:  # type: ignore[misc]
                    begun.add(order.id)
            await asyncio.sleep(0.02)


def frozen(side: str, seconds: float = FROZEN_SECONDS) -> Act:
    """A connector that stands still, and takes connections all the same."""

    async def act(pair: Pair, _: asyncio.Event) -> None:
        pair[side].signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        pair[side].signal(signal.SIGCONT)

    return act


async def on_machines(root: Path) -> list[Suffered]:
    """What needs no disk of its own."""
    found = [await _suffer(f"the {side} stands still for {FROZEN_SECONDS:g} s", root, [frozen(side)], {}) for side in SIDES]
    return [*found, await clocks_set(root)]


async def clocks_set(root: Path) -> Suffered:
    """The clocks of both sides are set two hours ahead, then twice an hour back, each time when everything has come to its end: who is
    spoken to from another hour, or finds its time over, refuses and ends what it is about."""
    one = Suffered("the clocks of both are set two hours ahead, and twice an hour back")
    async with Pair(root, None, PATIENCE_SECONDS) as pair:
        for side in SIDES:
            await pair[side].start(jumps=JUMPS_SECONDS)
        await jobs.prepare(pair)
        for number in range(1 + len(JUMPS_SECONDS)):
            began = time.monotonic()
            await asyncio.gather(*(pair.finish(f"{name}-{number}", JOBS[name](Job(pair, name, number))) for name in ALL))
            one.jobs, one.seconds = one.jobs + len(ALL), max(one.seconds, time.monotonic() - began)
            if number < len(JUMPS_SECONDS):
                for side in SIDES:
                    pair[side].signal(signal.SIGRTMIN)
        one.findings, one.complaints = await pair.account()
        one.billed = pair.billed
    return told(one)


async def _suffer(name: str, root: Path, acts: Sequence[Act], order: dict[str, Any], said: Sequence[str] = ()) -> Suffered:
    """`order` is what connectors are started with, `said` words of what they may complain of: then they may end, too, and are started
    again as by a supervisor."""
    one, may_start = Suffered(name), asyncio.Event()
    may_start.set()
    async with Pair(root, None, PATIENCE_SECONDS) as pair:
        for side in SIDES:
            await pair[side].start(**order)
        await jobs.prepare(pair)
        if said:
            for side in SIDES:
                pair.guard(pair[side], partial(_again, pair[side], may_start))
        for number, act in enumerate(acts):
            one.seconds = max(one.seconds, await _round(pair, number, act, may_start))
            one.jobs += len(ALL)
        findings, complaints = await pair.account()
        one.findings, one.billed = findings, pair.billed
        one.complaints = [each for each in complaints if not any(word in each for word in said)]
    return told(one)


def told(one: Suffered) -> Suffered:
    """The same, once it is said how it went."""
    print(f"  {one.name}: {len(one.findings)} findings, {len(one.complaints)} complaints, {one.seconds:.1f} s", flush=True)
    return one


async def _again(side: Side, may_start: asyncio.Event) -> None:
    while True:
        await may_start.wait()
        try:
            return await side.start()
        except RuntimeError:  # it says why it cannot start, and ends
            await asyncio.sleep(AGAIN_SECONDS)


@asynccontextmanager
async def disk(at: Path, mib: int) -> AsyncIterator[bool]:
    """A disk of so many MiB at this folder; False if none can be had here."""
    await asyncio.to_thread(at.mkdir, parents=True, exist_ok=True)
    if not await _mount("-t", "tmpfs", "-o", f"size={mib}m,mode=0755", "tmpfs", str(at)):
        yield False
        return
    try:
        yield True
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", "--lazy", str(at)], check=True)


async def _mount(*arguments: str) -> bool:
    done = await asyncio.to_thread(subprocess.run, ["mount", *arguments], check=False, capture_output=True)
    return done.returncode == 0


def full(ballast: Path) -> Act:
    """The disk of both connectors has no byte left."""

    async def act(_pair: Pair, _: asyncio.Event) -> None:
        await asyncio.to_thread(_fill, ballast)
        await asyncio.sleep(WRONG_SECONDS)
        await asyncio.to_thread(ballast.unlink)

    return act


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(1 << 20)):
            pass
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while file.write(bytes(512)):
            pass


def read_only(pair_root: Path) -> Act:
    """Connectors that are killed find folders that they cannot write: none of them serves until they can."""

    async def act(pair: Pair, may_start: asyncio.Event) -> None:
        may_start.clear()
        for side in SIDES:
            await pair[side].kill()
        async with AsyncExitStack() as stack:
            for side in SIDES:
                await stack.enter_async_context(_sealed(pair_root / side))
            may_start.set()
            await asyncio.sleep(WRONG_SECONDS)
            serves = [side for side in SIDES if pair[side].ready.is_set()]
        pair.stuck += [Finding(LOST, "", f"the {side} serves from a disk that it cannot write") for side in serves]

    return act


@asynccontextmanager
async def _sealed(at: Path) -> AsyncIterator[None]:
    """What is opened here from now on cannot be written."""
    if not (await _mount("--bind", str(at), str(at)) and await _mount("-o", "remount,bind,ro", str(at))):
        raise RuntimeError(f"`{at}` cannot be made read-only")
    try:
        yield
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", "--lazy", str(at)], check=True)


async def on_disks(root: Path) -> list[Suffered]:
    """What needs a disk of its own, which only root may make."""
    async with disk(root, DISK_MIB) as there:
        if not there:
            return [Suffered("a disk that is full, and one that can only be read", skipped="no disk can be mounted here")]
        return [
            await _suffer("the disk of both is full", root / "pair", [full(root / "ballast")], {}, OF_DISKS),
            await _suffer("the disk of both can only be read", root / "pair", [read_only(root / "pair")], {}, OF_DISKS),
        ]


async def run(root: Path) -> list[Suffered]:
    """All of them, below the folder `root`."""
    return [*await on_machines(root / "machines"), *await on_disks(root / "disk")]


def lines(found: Sequence[Suffered]) -> list[str]:
    """The table and what follows it."""
    rows = [f"{'what befell':<72} {'jobs':>5} {'receipts':>8} {'over after':>10} {'wrong':>5}"]
    for one in found:
        if one.skipped:
            rows.append(f"{one.name:<72} not done: {one.skipped}")
            continue
        wrong = len(one.findings) + len(one.complaints)
        rows.append(f"{one.name:<72} {one.jobs:>5} {one.billed.receipts:>8} {one.seconds:>8.1f} s {wrong:>5}")
    rows += [f"{each.kind.upper()} {each.job or '-'}: {each.what} ({one.name})" for one in found for each in one.findings]
    rows += [f"COMPLAINT {each} ({one.name})" for one in found for each in one.complaints]
    good, done = all(one.good for one in found), [one for one in found if not one.skipped]
    rows.append(f"{'GOOD' if good else 'BAD'}: {len(done)} hardships, {sum(one.jobs for one in done)} jobs through them")
    return rows


def good(found: Sequence[Suffered]) -> bool:
    """Whether all jobs came through, and something befell them."""
    return all(one.good for one in found) and any(not one.skipped for one in found)
