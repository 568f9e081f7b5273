"""The rows of the benchmark: what is promised, what was found, whether it is met, and how both are shown."""

from __future__ import annotations

import statistics
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROMISES = Path(__file__).parent / "rows.toml"
KEPT = {"<=": lambda found, target: found <= target, ">=": lambda found, target: found >= target}


@dataclass(frozen=True, slots=True)
class Promise:
    """A line of `rows.toml`."""

    name: str
    says: str
    unit: str
    by: str
    on: str
    op: str
    target: float


@dataclass(frozen=True, slots=True)
class Found:
    """What a measurement came to: one value for each round, and the reference's of the same round where there is one.

    `note` is for the reader of the table, `fault` says why the figure does not count though it was measured.
    """

    values: Sequence[float]
    references: Sequence[float] = ()
    note: str = ""
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A promise with what was found."""

    promise: Promise
    value: float | None = None
    reference: float | None = None
    ratio: float | None = None
    met: bool = False
    samples: tuple[float, ...] = field(default=())
    note: str = ""

    def document(self) -> dict[str, Any]:
        """The row as `build/bench.json` has it; `samples` are what the judged figure is the median of."""
        p = self.promise
        return {
            "name": p.name,
            "value": self.value,
            "unit": p.unit,
            "reference": self.reference,
            "ratio": self.ratio,
            "op": p.op,
            "target": p.target,
            "on": p.on,
            "met": self.met,
            "samples": list(self.samples),
        }


def promises(path: Path = PROMISES) -> tuple[Promise, ...]:
    """All promises, in the order of the file. Raises TypeError or ValueError for a line that cannot be judged."""
    read = tuple(Promise(name, **line) for name, line in tomllib.loads(path.read_text()).items())
    for promise in read:
        if promise.op not in KEPT or promise.on not in ("ratio", "value"):
            raise ValueError(f"`{promise.name}`: `op` is one of {', '.join(KEPT)}, `on` is ratio or value")
    return read


def judge(promise: Promise, found: Found | None) -> Row:
    """The row of a promise. What was not measured, or is marked with a fault, is not met."""
    if found is None or not found.values:
        return Row(promise, note=(found.fault or found.note) if found else "not measured")
    value = statistics.median(found.values)
    ratios = tuple(value / reference for value, reference in zip(found.values, found.references, strict=True)) if found.references else ()
    reference = statistics.median(found.references) if found.references else None
    ratio = statistics.median(ratios) if ratios else None
    judged = ratio if promise.on == "ratio" else value
    met = judged is not None and not found.fault and KEPT[promise.op](judged, promise.target)
    samples = ratios if promise.on == "ratio" else tuple(found.values)
    note = "; ".join(part for part in (found.fault and f"does not count: {found.fault}", found.note) if part)
    return Row(promise, value, reference, ratio, met, samples, note)


def judged(asked: Sequence[Promise], found: Mapping[str, Found]) -> tuple[Row, ...]:
    """A row for each promise that was asked for. Raises ValueError for a figure that no line of the file promises."""
    if unknown := sorted(found.keys() - {promise.name for promise in promises()}):
        raise ValueError(f"`{unknown[0]}` has no line in {PROMISES.name}")
    return tuple(judge(promise, found.get(promise.name)) for promise in asked)


def table(rows: Sequence[Row]) -> str:
    """The rows for people, notes below."""
    lines = [("", "name", "value", "reference", "ratio", "target", "range of rounds")]
    for row in rows:
        p = row.promise
        spread = f"{_short(min(row.samples))} .. {_short(max(row.samples))} ({len(row.samples)})" if row.samples else ""
        target = f"{p.op} {_short(p.target)}{' x' if p.on == 'ratio' else ' ' + p.unit}"
        value = f"{_short(row.value)} {p.unit}" if row.value is not None else "-"
        lines.append(("met" if row.met else "NOT", p.name, value, _short(row.reference), _short(row.ratio), target, spread))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    notes = [f"{row.promise.name}: {row.note}" for row in rows if row.note]
    return "\n".join([*text, "", *notes])


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _short(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
