"""`make bench`: prints a table and writes `build/bench.json`; the exit code is 1 unless every promise of `rows.toml` is met.

Options: `--rounds N` of each measurement, `--only NAME` (a row; repeatable; what measures it is run whole), `--scale 0.05` for a
quick trial, on whose figures nothing rests.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import platform
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from tests.bench import calls, catalog, data, ledger, policies, process, streams
from tests.bench.connectors import BUILD, ROOT
from tests.bench.rows import Found, Promise, judged, promises, table
from tests.bench.size import ROUNDS, Size

OUT = ROOT / "build" / "bench.json"
ROUNDS_AT_LEAST = 5  # fewer prove nothing on a machine whose speed moves
MEASURES: dict[str, Callable[[Size], Awaitable[dict[str, Found]]]] = {
    "process": process.measure,
    "calls": calls.measure,
    "catalog": catalog.measure,
    "small": data.small,
    "large": data.large,
    "get": data.get,
    "streams": streams.plain,
    "streams-tls": streams.tls,
    "streams-live": streams.live,
    "indexing": streams.indexing,
    "policies": policies.measure,
    "ledger": ledger.measure,
}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="measures what the product promises")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", metavar="NAME", action="append", choices=[promise.name for promise in promises()])
    parser.add_argument("--scale", type=float, default=1.0, help="below 1: a trial")
    options = parser.parse_args(arguments)
    size = Size(max(1, options.rounds), options.scale)
    asked = tuple(promise for promise in promises() if not options.only or promise.name in options.only)
    begun = time.perf_counter()
    found, about = measured(asked, size)
    rows = judged(asked, {name: one for name, one in found.items() if name in {promise.name for promise in asked}})
    about |= {"seconds": round(time.perf_counter() - begun, 1), "rounds": size.rounds, "scale": size.scale}
    write(OUT, {"rows": [row.document() for row in rows], "notes": {row.promise.name: row.note for row in rows if row.note}, "run": about})
    print(table(rows))
    print(f"\n{about['seconds']:.0f} s; written to {OUT.relative_to(ROOT)}")
    enough = size.rounds >= ROUNDS_AT_LEAST
    if not enough:
        print(f"{size.rounds} rounds are too few to judge: {ROUNDS_AT_LEAST} are needed")
    return 0 if enough and all(row.met for row in rows) else 1


def measured(asked: tuple[Promise, ...], size: Size) -> tuple[dict[str, Found], dict[str, Any]]:
    """Run what measures the promises. A measurement that fails leaves its rows with the reason; the others go on."""
    found: dict[str, Found] = {}
    loads: dict[str, str] = {}
    shutil.rmtree(BUILD, ignore_errors=True)
    for name in dict.fromkeys(promise.by for promise in asked):
        before, begun = os.getloadavg()[0], time.perf_counter()
        try:
            found |= asyncio.run(MEASURES[name](size))
        except Exception as error:  # one broken measurement must not hide the others
            reason = f"{type(error).__name__}: {error}"
            found |= {promise.name: Found([], fault=reason) for promise in asked if promise.by == name}
            print(f"{name} failed: {reason}", file=sys.stderr)
        gc.collect()
        loads[name] = f"load average {before:.1f} before, {os.getloadavg()[0]:.1f} after, {time.perf_counter() - begun:.0f} s"
        print(f"{name}: {loads[name]}", file=sys.stderr, flush=True)
    return found, {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "load": loads,
    }


def write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    sys.exit(main())
