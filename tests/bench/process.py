"""Measures the process itself: its start, its memory and CPU while nothing happens, and its return after SIGKILL."""

from __future__ import annotations

import asyncio
from compileall import compile_dir

from tests.bench.connectors import ROOT, Connector, Pair, pair
from tests.bench.load import Load, driven
from tests.bench.rows import Found
from tests.bench.size import Size

SETTLE_SECONDS = 1.0
REST_SECONDS = 4.0  # of each round: 20 s over five rounds
BURST, PARALLEL = 200, 32
UNDER_LOAD_SECONDS = 0.4  # before the kill


async def measure(size: Size) -> dict[str, Found]:
    """One pair, started anew in every round on an empty database."""
    cold: list[float] = []
    memory: list[float] = []
    rest: list[float] = []
    ready: list[float] = []
    loaded = 0.0
    with pair("process") as one:
        if not compile_dir(ROOT / "connector", quiet=1):  # as it is once installed, whatever the environment says of writing bytecode
            raise RuntimeError("the package does not compile")
        for connector in one:
            connector.start()
        for _ in range(size.rounds):
            for connector in one:
                connector.stop()
                _forget(connector)
            cold.append(max(connector.start() for connector in one))
            await asyncio.sleep(SETTLE_SECONDS)
            memory.append(max(connector.memory_mb("VmRSS") for connector in one))
            async with driven(one) as load:
                await load.burst(size.of(BURST), PARALLEL)
            await asyncio.sleep(SETTLE_SECONDS)
            rest.append(await _rest(one))
            loaded = max(loaded, *(connector.memory_mb("VmRSS") for connector in one))
            async with driven(one) as load:
                ready.append(await _killed(load, one.consumer))
    return {
        "cold-start": Found(cold),
        "idle-rss": Found(memory, note=f"{loaded:.0f} MB after some negotiations"),
        "at-rest-cpu": Found(rest, note=f"over {REST_SECONDS * size.rounds:g} s in all, after some negotiations"),
        "kill-to-ready": Found(ready),
    }


def _forget(connector: Connector) -> None:
    for file in connector.folder.glob(f"{connector.database.name}*"):
        file.unlink()


async def _rest(pair: Pair) -> float:
    before = [connector.cpu_seconds() for connector in pair]
    await asyncio.sleep(REST_SECONDS)
    used = [connector.cpu_seconds() - earlier for connector, earlier in zip(pair, before, strict=True)]
    return max(used) / REST_SECONDS * 100


async def _killed(load: Load, victim: Connector) -> float:
    """Seconds from the start of the program to ready after a SIGKILL in the middle of negotiations."""
    running = asyncio.create_task(load.burst(10_000, PARALLEL))
    await asyncio.sleep(UNDER_LOAD_SECONDS)
    victim.kill()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return victim.start()
