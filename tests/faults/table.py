"""What the run prints and keeps: a line for each place in the code, on both sides, and a closing line. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from tests.faults.audit import DOUBLED, LOST, UNEQUAL, Finding
from tests.faults.ledger import SIDES
from tests.faults.load import Load
from tests.faults.plan import Target
from tests.faults.streams.books import Summed

# What everything goes through, and what says nothing about where a point is.
THROUGH = ("api/middleware.py", "api/listener.py", "api/management_api.py:authorized", "control/journal.py", "adapters/")
PLACE = 60


@dataclass
class Report:
    """Everything that a run found. `seconds` by phase."""

    targets: list[Target] = field(default_factory=list)
    load: Load = field(default_factory=Load)
    findings: list[Finding] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    billed: list[Summed] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def unreached(self) -> list[Target]:
        """Targets that had to be reached and were not."""
        return [target for target in self.targets if target.demanded and not target.kills]

    @property
    def good(self) -> bool:
        return not (self.findings or self.complaints or self.unreached) and bool(self.targets)

    def count(self, kind: str) -> int:
        """Findings of a kind."""
        return sum(finding.kind == kind for finding in self.findings)


def place(point: str) -> str:
    """Where a point is, in words for a line of the table: what a COMMIT is of, or the task and the step that waits in it."""
    chain, _, about = point.partition(" [")
    if "COMMIT" in chain:
        facts = dict.fromkeys(fact.split()[0] for fact in about.rstrip("]").split(", "))
        return f"{chain} [{', '.join(facts) if about != 'nothing on record]' else about.rstrip(']')}]"
    frames = [frame.rsplit(":", 1)[0] for frame in chain.split(" > ")]
    own = [frame for frame in frames if not frame.startswith(THROUGH)] or frames
    names = dict.fromkeys((own[0], own[-1]))
    return " → ".join(name.partition(":")[2] for name in names)


def lines(report: Report) -> Iterator[str]:
    """The table and what follows it."""
    yield f"{'place':<{PLACE}} " + " ".join(f"{side + ': points':>17} kills lost dbl. uneq ready" for side in SIDES)
    rows: dict[str, dict[str, list[Target]]] = {}
    for target in report.targets:
        rows.setdefault(place(target.point), {}).setdefault(target.side, []).append(target)
    for name in sorted(rows, key=lambda name: ("COMMIT" not in name, name)):
        yield f"{_short(name):<{PLACE}} " + " ".join(_cells(rows[name].get(side, [])) for side in SIDES).rstrip()
    by_side = {side: [target for target in report.targets if target.side == side] for side in SIDES}
    yield f"{'all points':<{PLACE}} " + " ".join(_cells(by_side[side]) for side in SIDES)
    at_random = (
        f"{'':>17} {report.load.kills[side]:>5} {'':>4} {'':>4} {'':>4} {_ready(report.load.ready_seconds.get(side, []))}" for side in SIDES
    )
    under = f"at random, under load ({report.load.jobs} jobs; {report.load.early} in a start)"
    yield f"{under:<{PLACE}} " + " ".join(at_random)
    yield "points: hit/known; those of chance, which need a certain order of events, in brackets; ready: median/longest seconds"
    yield ""
    for finding in report.findings[:40]:
        yield f"{finding.kind.upper()} {finding.job or '-'}: {finding.what}"
    for complaint in report.complaints[:40]:
        yield f"COMPLAINT {complaint}"
    for target in report.unreached[:40]:
        yield f"NOT REACHED {target.side}, passage {target.passage} in job {target.job}: {target.point}"
    yield closing(report)


def closing(report: Report) -> str:
    """One line that says it all."""
    kills, demanded = sum(target.kills for target in report.targets), [target for target in report.targets if target.demanded]
    chance = [target for target in report.targets if not target.demanded]
    points = {(target.side, target.point) for target in report.targets}
    orders, receipts = (sum(getattr(each, of) for each in report.billed) for of in ("orders", "receipts"))
    return (
        f"{'GOOD' if report.good else 'BAD'}: {len(points)} points, {kills} kills at them"
        f" ({sum(bool(t.kills) for t in demanded)} of {len(demanded)} that have to be reached, {sum(bool(t.kills) for t in chance)} of"
        f" {len(chance)} of chance), {sum(report.load.kills.values())} random kills; lost {report.count(LOST)},"
        f" doubled {report.count(DOUBLED)}, unequal {report.count(UNEQUAL)} ({orders} files against both meters and {receipts} receipts),"
        f" complaints {len(report.complaints)}; {sum(report.seconds.values()):.0f} s"
    )


def document(report: Report) -> dict[str, Any]:
    """The report as JSON."""
    return {
        "good": report.good,
        "lost": report.count(LOST),
        "doubled": report.count(DOUBLED),
        "unequal": report.count(UNEQUAL),
        "findings": [finding._asdict() for finding in report.findings],
        "complaints": report.complaints,
        "points": [_target(target) for target in report.targets],
        "random": {"kills": report.load.kills, "early": report.load.early, "jobs": report.load.jobs, "repeated_calls": report.load.repeats}
        | {"ready_seconds": {side: _rounded(seconds) for side, seconds in report.load.ready_seconds.items()}},
        "seconds": {phase: round(seconds, 1) for phase, seconds in report.seconds.items()},
    }


def _target(target: Target) -> Mapping[str, Any]:
    return {
        "side": target.side,
        "point": target.point,
        "passage": target.passage,
        "job": target.job,
        "demanded": target.demanded,
        "kills": target.kills,
        "lost": target.lost,
        "doubled": target.doubled,
        "unequal": target.unequal,
        "ready_seconds": _rounded(target.ready_seconds),
    }


def _cells(targets: Sequence[Target]) -> str:
    """points kills lost doubled unequal ready, of one side."""
    if not targets:
        return f"{'':>17} {'':>5} {'':>4} {'':>4} {'':>4} {'':>9}"
    demanded, chance = ([t for t in targets if t.demanded is wanted] for wanted in (True, False))
    points = f"{_hit(demanded)}/{_points(demanded)}" if demanded else ""
    points += f" ({_hit(chance)}/{_points(chance)})" if chance else ""
    found = " ".join(f"{sum(getattr(target, kind) for target in targets):>4}" for kind in (LOST, DOUBLED, UNEQUAL))
    ready = [seconds for target in targets for seconds in target.ready_seconds]
    return f"{points:>17} {sum(t.kills for t in targets):>5} {found} {_ready(ready)}"


def _points(targets: Iterable[Target]) -> int:
    return len({(target.side, target.point) for target in targets})


def _hit(targets: Iterable[Target]) -> int:
    return _points(target for target in targets if target.kills)


def _ready(seconds: Sequence[float]) -> str:
    return f"{median(seconds):.2f}/{max(seconds):.2f}" if seconds else f"{'-':>9}"


def _rounded(seconds: Sequence[float]) -> list[float]:
    return [round(each, 3) for each in seconds]


def _short(name: str) -> str:
    return name if len(name) <= PLACE else name[: PLACE - 1] + "…"
