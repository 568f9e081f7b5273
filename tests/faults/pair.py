"""Two connectors that deal with each other while either is killed: kept alive, watched, and called to account."""

import asyncio
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.dataplane_live import upstream
from tests.faults import audit
from tests.faults.home import make
from tests.faults.ledger import CONSUMER, PROVIDER, SIDES, Ledger
from tests.faults.nursery import first
from tests.faults.patience import Patience, patience
from tests.faults.side import Side
from tests.faults.source import slow_source
from tests.faults.streams.books import Summed, summed
from tests.faults.streams.run import ledger_verified

PATIENCE_SECONDS = 60.0  # after the last restart: what has not happened by then is lost; the longest pauses are 30 s
STOP_SECONDS = 30.0


@dataclass
class Owed:
    """An order of a job whose file is there, and what is wrong with its bills."""

    job: str
    order: str
    size_bytes: int
    wrong: list[str] = field(default_factory=list)


class Pair:
    """A consumer and a provider below `root`; an asynchronous context manager. `bugs` names a planted defect by side."""

    def __init__(self, root: Path, bug: str | None = None, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.root = root
        self.ledger = Ledger()
        self.stuck: list[audit.Finding] = []  # jobs that did not come to their end
        self.billed = Summed()  # of the orders, once they are called to account
        self._bug, self._patience = bug, patience_seconds
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._leave = asyncio.Event()

    async def __aenter__(self) -> Self:
        shutil.rmtree(self.root, ignore_errors=True)
        homes = await asyncio.to_thread(make, self.root, SIDES)
        self.downloads = homes[CONSUMER].directory / "downloads"
        self.downloads.mkdir()
        self._sides = {name: Side(home, self._bug) for name, home in homes.items()}
        async with AsyncExitStack() as stack:
            self.source = await stack.enter_async_context(slow_source())
            self.upstream = await stack.enter_async_context(upstream.running())
            for side in self._sides.values():
                stack.push_async_callback(side.close)
                await side.open()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.unguard()
        finally:
            await self._stack.aclose()

    def __getitem__(self, name: str) -> Side:
        return self._sides[name]

    @property
    def consumer(self) -> Side:
        return self._sides[CONSUMER]

    @property
    def provider(self) -> Side:
        return self._sides[PROVIDER]

    def guard(self, side: Side, start: Callable[[], Awaitable[None]]) -> None:
        """From now on start the connector whenever it is dead. An error of `start` ends the guard and shows in `finish`."""

        async def keep() -> None:
            while await first(side.dead.wait(), self._leave.wait()) == 0:
                await start()

        self._leave.clear()
        self._keepers[side.name] = asyncio.create_task(keep())

    async def unguard(self) -> None:
        """Leave dead connectors dead; a start that runs comes to its end. Raises what starting one has raised."""
        keepers, self._keepers = list(self._keepers.values()), {}
        self._leave.set()
        for error in await asyncio.gather(*keepers, return_exceptions=True):
            if isinstance(error, BaseException):
                raise error

    async def finish(self, job: str, work: Coroutine[Any, Any, None]) -> bool:
        """Run a job to its end. If it fails, or has not ended when both connectors could have run for `patience_seconds` since, what
        it waited for is lost: that is noted, and the answer is False."""
        task, having = asyncio.create_task(work), Patience(self._patience, self.queued_seconds)
        try:
            while not task.done():
                await asyncio.wait({task, *self._keepers.values()}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
                if broken := next((keeper for keeper in self._keepers.values() if keeper.done()), None):
                    broken.result()
                if gone := next((name for name, side in self._sides.items() if side.dead.is_set() and name not in self._keepers), None):
                    raise RuntimeError(f"the {gone} has ended by itself; see {self._sides[gone].home.directory / 'log'}")
                if not task.done() and self._overdue(having):
                    task.cancel()
                    await asyncio.wait({task})
                    self.stuck.append(audit.Finding(audit.LOST, job, f"it had not ended {self._patience:g} s after the last restart"))
                    return False
        finally:
            task.cancel()
        if error := task.exception():
            self.stuck.append(audit.Finding(audit.LOST, job, f"it failed: {type(error).__name__}: {error}"))
        return error is None

    def _overdue(self, having: Patience) -> bool:
        sides = self._sides.values()
        if max(side.ready_at for side in sides) > having.since:
            having.anew()
        return all(side.ready.is_set() for side in sides) and time.monotonic() > having.ends

    def queued_seconds(self) -> float:
        """How long both were in the queue for a processor."""
        return sum(side.queued_seconds() for side in self._sides.values())

    async def account(self) -> tuple[list[audit.Finding], list[str]]:
        """Have both ledgers computed anew, and stop both connectors, as an operator would. Returns what was lost, doubled or is
        unequal, and what they complained of."""
        await self.unguard()
        serving = {name: side.home for name, side in self._sides.items() if side.ready.is_set()}
        verified = await asyncio.gather(*(asyncio.to_thread(ledger_verified, home) for home in serving.values()))
        told = dict(zip(serving, verified, strict=True))
        for side in self._sides.values():
            async with patience(STOP_SECONDS, side.queued_seconds):
                await side.kill(signal.SIGTERM)
        books = {name: audit.read(side.home.database, self.downloads) for name, side in self._sides.items()}
        unequal = await self._metered()
        complaints = [f"{name}: {what} ({count} times)" for name, side in self._sides.items() for what, count in side.complaints.items()]
        complaints += [said for name, said in told.items() if said.startswith("BAD") and books[name].logs]  # of a ledger that has begun
        return [*self.stuck, *audit.audit(self.ledger, books), *unequal], complaints

    async def _metered(self) -> list[audit.Finding]:
        """What the file of each order, both meters and every receipt that was signed do not agree on. Both connectors have ended."""
        owed = list(_owed(self.ledger))
        self.billed = await summed({name: side.home for name, side in self._sides.items()}, owed)
        return [audit.Finding(audit.UNEQUAL, each.job, f"pull {each.order}: {text}") for each in owed for text in each.wrong]


def _owed(ledger: Ledger) -> Iterator[Owed]:
    """The orders whose files are there."""
    for order in ledger.orders:
        with suppress(FileNotFoundError):
            yield Owed(order.job, order.id, Path(order.out).stat().st_size)
