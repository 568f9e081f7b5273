"""Measures negotiations and transfers: one at a time, 32 at a time, with much stored, and whether all arrived."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys

from tests.bench.connectors import ROOT, Pair, pair
from tests.bench.history import Audit, audit, grow
from tests.bench.load import Burst, Load, driven, echo, one_by_one
from tests.bench.rows import Found, quantile
from tests.bench.size import Size

PARALLEL = 32
ECHOES, ECHOES_PARALLEL = 150, 4_000  # in a round: one at a time, 32 at a time
IDLE, TRANSFERS, BURST = 100, 50, 600  # in a round
ALL, STORED = 10_000, 100_000
MS = 1e3


async def measure(size: Size) -> dict[str, Found]:
    """Everything about calls, round by round beside the echo."""
    echoes: list[float] = []
    idle: list[list[float]] = []
    transfers: list[list[float]] = []
    transfer_echoes: list[float] = []
    echo_rates: list[float] = []
    fresh_bursts: list[Burst] = []
    stored_bursts: list[Burst] = []
    with pair("fresh") as fresh, pair("stored") as stored:
        fresh.start()
        await _fill(stored, size.of(STORED))
        async with echo() as bare, driven(fresh) as load, driven(stored) as full:
            await load.burst(100, 8)
            await full.burst(100, 8)
            agreement = await load.agreement()
            await one_by_one(5, lambda: load.transfer(agreement))
            await bare.rate(size.of(1000), PARALLEL)
            for number in range(size.rounds):
                echoes.append(statistics.median(await bare.idle(ECHOES)))
                idle.append(await load.idle_negotiations(size.of(IDLE)))
                transfer_echoes.append(statistics.median(await bare.idle(ECHOES)))
                transfers.append(await one_by_one(size.of(TRANSFERS), lambda: load.transfer(agreement)))
                echo_rates.append(await bare.rate(size.of(ECHOES_PARALLEL), PARALLEL))
                for driver, bursts in _turns(number, (load, fresh_bursts), (full, stored_bursts)):
                    bursts.append(await driver.burst(size.of(BURST), PARALLEL))
            missing = max(0, size.of(ALL) - len(load.provider.finalized))
            last = await load.burst(missing, PARALLEL) if missing else None
        for connector in fresh:
            connector.stop()
        told = audit(fresh.consumer.database, fresh.provider.database)
    every = [seconds for one in idle for seconds in one]
    rates = [burst.rate for burst in fresh_bursts]
    return {
        "negotiation-idle-p50": Found([statistics.median(one) * MS for one in idle], [e * MS for e in echoes], _spread(every)),
        "negotiation-idle-p99": Found(
            [quantile(every, 0.99) * MS], [statistics.median(every) * MS], f"maximum {max(every) * MS:.1f} ms of {len(every)}"
        ),
        "transfer-start-p50": Found(
            [statistics.median(one) * MS for one in transfers],
            [e * MS for e in transfer_echoes],
            _spread([seconds for one in transfers for seconds in one]),
        ),
        "negotiations-parallel-32": Found(rates, echo_rates, f"then {last.count:,} more at {last.rate:.0f}/s" if last else ""),
        "negotiation-cpu": _cpu(fresh_bursts),
        "negotiations-stored-100000": Found([burst.rate for burst in stored_bursts], rates, fault=_short_of(size, STORED, "stored")),
        "negotiations-lost": _lost(told, size),
    }


def _turns(number: int, *drivers: tuple[Load, list[Burst]]) -> tuple[tuple[Load, list[Burst]], ...]:
    """Who is first changes with each round."""
    return drivers if number % 2 == 0 else drivers[::-1]


async def _fill(stored: Pair, count: int) -> None:
    """One negotiation, `count` more like it straight into both databases, and a new start."""
    stored.start()
    async with driven(stored) as load:
        await load.negotiate()
        await load.provider.count(1)
    for connector in stored:
        connector.stop()
    writing = [
        await asyncio.create_subprocess_exec(sys.executable, "-m", grow.__module__, str(each.database), each.id, str(count), cwd=ROOT)
        for each in stored
    ]
    if any([await each.wait() for each in writing]):
        raise RuntimeError("the history could not be written")
    os.sync()  # what is still to be flushed would be paid for by the first round
    stored.start()


def _cpu(bursts: list[Burst]) -> Found:
    load = statistics.median(burst.load_seconds / burst.count for burst in bursts)
    note = f"both connectors; the load program, which is not included, uses {load * MS:.2f} ms more"
    return Found([burst.connectors_seconds / burst.count * MS for burst in bursts], note=note)


def _lost(told: Audit, size: Size) -> Found:
    note = f"{told.count:,} begun, {told.lost} lost, {told.doubled} doubled, {told.left} rows left in outboxes"
    short = f"only {told.count:,} were begun" if told.count < ALL else _short_of(size, ALL, "begun")
    return Found([float(told.lost + told.doubled + told.left)], note=note, fault=short)


def _short_of(size: Size, wanted: int, what: str) -> str:
    return f"only {size.of(wanted):,} of {wanted:,} {what}" if size.of(wanted) < wanted else ""


def _spread(seconds: list[float]) -> str:
    p95, p99 = quantile(seconds, 0.95) * MS, quantile(seconds, 0.99) * MS
    return f"p95 {p95:.1f}, p99 {p99:.1f}, maximum {max(seconds) * MS:.1f} ms of {len(seconds)}"
