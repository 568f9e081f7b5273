"""Which kills are done: from what a recording run has passed to targets, and from targets to what became of them. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.faults.audit import DOUBLED, LOST, UNEQUAL, Finding

OCCURRENCES = 2  # of a point that is passed more than once: one await often waits for several things, one after the other
# Lives in which a point is armed and not passed. What three recordings have passed by chance is hit at last by ten more: of
# a point that comes every other time, one run in eight thousand finds that it has to be reached and does not.
ATTEMPTS = {True: 10, False: 3}
AT_ONCE = 10  # targets of one job on one side, before a lane looks for others: no job goes through more kills than that at once
LASTING = ("live", "events", "slow")
# What a counterparty asks of us when it comes to it: its commit is an await where others have just written, and else is done at once.
IN_ITS_TIME = "LedgerApi._add"

Passed = Mapping[str, int]  # point -> passages, in the order of the first one


@dataclass
class Target:
    """A kill to be done: `side` at the given passage of `point`, while `job` runs. `demanded` targets lie on a way that each
    run takes; the others were seen by chance, or only after a kill. `after` is the target whose kill led to this point."""

    side: str
    point: str
    passage: int
    job: str
    demanded: bool = True
    after: "Target | None" = None
    kills: int = 0
    attempts: int = 0  # in vain
    ready_seconds: list[float] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)  # in which it was killed
    lost: int = 0
    doubled: int = 0
    unequal: int = 0

    @property
    def open(self) -> bool:
        return not self.kills and self.attempts < ATTEMPTS[self.demanded]


def targets(runs: Mapping[str, Sequence[Mapping[str, Passed]]]) -> list[Target]:
    """Make targets of recordings: job -> for each run of it, side -> points passed. A point belongs to the first job that
    passes it in every run, else to the first that passes it at all: then it is one of chance. What comes in its own time is demanded of
    the first job alone, which waits for it; three runs of another may all have seen it, and no later one."""
    found: dict[tuple[str, str], Target] = {}
    passages: dict[tuple[str, str], int] = {}
    for demanded in (True, False):
        for number, (job, recordings) in enumerate(runs.items()):
            for side, passed in recordings[0].items():
                always = [point for point in passed if all(point in run[side] for run in recordings)]
                ever = dict.fromkeys(point for run in recordings for point in run[side])
                for point in always if demanded else ever:
                    if (side, point) not in found and not (demanded and number and IN_ITS_TIME in point):
                        found[side, point] = Target(side, point, 1, job, demanded)
                        passages[side, point] = min(run[side].get(point, 0) for run in recordings)
    return [
        Target(first.side, first.point, passage, first.job, first.demanded)
        for key, first in found.items()
        for passage in range(1, 1 + max(1, min(OCCURRENCES, passages[key])))
    ]


def batches(found: Iterable[Target]) -> list[list[Target]]:
    """Targets that are done together: those of one job on one side, the second passages after all the first ones and those of chance after
    both, some at once. Jobs that last by the clock come first, so that no lane is left alone with them."""
    grouped: dict[tuple[str, str], list[Target]] = {}
    for target in sorted(found, key=lambda target: (not target.demanded, target.passage)):
        grouped.setdefault((target.job, target.side), []).append(target)
    pieces = [group[at : at + AT_ONCE] for group in grouped.values() for at in range(0, len(group), AT_ONCE)]
    return sorted(pieces, key=lambda piece: (piece[0].job in LASTING, len(piece)), reverse=True)


def blame(done: Iterable[Target], findings: Iterable[Finding]) -> None:
    """Charge each finding to the kills that its job went through."""
    found = list(findings)
    for target in done:
        mine = [finding.kind for finding in found if finding.job in target.jobs]
        target.lost, target.doubled, target.unequal = (mine.count(kind) for kind in (LOST, DOUBLED, UNEQUAL))
