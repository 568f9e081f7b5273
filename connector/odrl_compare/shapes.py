"""What a policy grants, as boxes: each permission without what the prohibitions forbid, kept with the policy once it was computed."""

from __future__ import annotations

from typing import Final

from connector.odrl.judge import clashes
from connector.odrl.model import Constraint, Lapse, Options, Policy, Rule, World, leaves
from connector.odrl.values import EPOCH
from connector.odrl_compare.axes import Axis, Lengths
from connector.odrl_compare.boxes import Box, Region, Work
from connector.odrl_compare.regions import Reader
from connector.values import Value

NOBODY: Final = World(EPOCH)  # a world in which no collection has members
KEPT_BOXES_MAX: Final = 64  # of a shape that stays with its policy; a larger one is rare, and computed again
KEPT_SHAPES_MAX: Final = 8  # of one policy: two or three are common, and each month makes more of them


class Grant(Value):
    """A permission and the boxes in which it grants."""

    rule: Rule
    region: Region


class Shape(Value):
    """What a policy grants. `axes` are those that came up."""

    policy: Policy
    grants: tuple[Grant, ...]
    axes: dict[str, Axis]

    @property
    def boxes(self) -> list[Box]:
        """All boxes of all permissions."""
        return [box for grant in self.grants for box in grant.region]


def shape_of(policy: Policy, work: Work, lengths: Lengths, options: Options, *, bare: bool = False) -> Shape:
    """The shape of a policy for one length of months. `bare` leaves out its target and assignees. One that is known counts as much as it
    took: what two policies are to each other must not depend on what was asked of them before. Raises TooComplex."""
    wins = policy.conflict or options.conflict
    kept: dict[object, tuple[Shape, int]] = policy.memo.setdefault(shape_of, {})
    key = (wins, bare, tuple(lengths.items()))
    if (known := kept.get(key)) is not None:
        shape = known[0]
        work.spend(known[1])
    else:
        mine = Work(work.left, work.leaves)
        reader = Reader(policy.registry, mine, lengths)
        void = wins == "invalid" and bool(clashes(policy, NOBODY))  # as a whole, whatever is asked for (ODRL 2.2 IM, 2.9)
        prohibitions = () if wins == "permit" or void else policy.prohibitions
        spared = [reader.not_rule(policy, rule, bare=bare) for rule in prohibitions]
        grants = []
        for rule in policy.permissions:
            region = [] if void else reader.rule(policy, rule, bare=bare)
            for left in spared:
                region = _left(region, left, mine)
            grants.append(Grant(rule, region))
        shape = Shape(policy, tuple(grants), mine.axes)
        took, work.left = work.left - mine.left, mine.left
        if len(shape.boxes) <= KEPT_BOXES_MAX and len(kept) < KEPT_SHAPES_MAX:
            kept[key] = shape, took
    work.axes.update(shape.axes)
    return shape


def _left(region: Region, left: Region, work: Work) -> Region:
    """What a prohibition leaves of a region. A box that it does not touch stays whole."""
    found: Region = []
    for box in region:
        found += [box] if any(work.inside(box, spared) for spared in left) else work.both([box], left)
    return found


def months_of(policy: Policy) -> frozenset[int]:
    """How many months the durations of a policy count that run by the calendar."""
    found: frozenset[int] | None = policy.memo.get("months")
    if found is None:
        operands = policy.registry.operands
        found = frozenset(
            span.months
            for rule in (*policy.permissions, *policy.prohibitions)
            for leaf in leaves((*rule.constraints, *rule.refinements))
            if isinstance(leaf, Constraint) and isinstance(leaf.test, Lapse) and operands[leaf.operand].kind != "counter"
            for span in (leaf.test.start, leaf.test.end)
            if span is not None and span.months
        )
        policy.memo["months"] = found
    return found
