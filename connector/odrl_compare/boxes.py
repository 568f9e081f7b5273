"""Boxes: what a rule asks for on each axis, silent on all others. Regions are lists of boxes.

Every operation counts what it costs; beyond the bound TooComplex ends the comparison, which then has no answer. So a policy of a peer costs
a bounded time, whatever it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from connector.odrl.model import Constraint
from connector.odrl.operands import ELAPSED_TIME, METERED_TIME
from connector.odrl.words import shown
from connector.odrl_compare.axes import MEASURES, Axis
from connector.odrl_compare.sides import GAP, HIGH, Crowd, Line, Names, Side, joined, union

Box = dict[str, Side]  # key of an axis -> what is left of it; never empty, and silent means anything, the gap too
Region = list[Box]
Leaves = dict[tuple[int, bool], tuple[Constraint, Axis, Region]]  # by the identity of the constraint, and whether it holds

BOXES_MAX: Final = 4096
STEPS_MAX: Final = 10_000  # operations on one axis; some 25 ms
SMALL: Final = 24  # boxes of which each is compared with each


class TooComplex(Exception):
    """A comparison would take too long."""


class Work:
    """The axes that came up, and how much may still be done. `leaves` are kept for who reads the same again, under one calendar after the
    other: where single constraints hold, or do not."""

    __slots__ = ("axes", "leaves", "left")

    def __init__(self, steps: int = STEPS_MAX, leaves: Leaves | None = None) -> None:
        self.axes: dict[str, Axis] = {}
        self.leaves = leaves
        self.left = steps

    def spend(self, steps: int) -> None:
        """Count work. Raises TooComplex beyond the bound."""
        self.left -= steps
        if self.left < 0:
            raise TooComplex

    def on(self, axis: Axis, sides: Iterable[Side]) -> Region:
        """The region that one axis is left to."""
        self.axes[axis.key] = axis
        return [{axis.key: side} for side in sides]

    def meet(self, one: Box, other: Box) -> Box | None:
        """What lies in both boxes."""
        if len(one) < len(other):
            one, other = other, one
        found = dict(one)
        self.spend(1)
        for key, side in other.items():
            mine = one.get(key)
            if mine is None:
                found[key] = side
            elif mine is not side:
                self.spend(1 + _cost(mine, side))
                left = mine.meet(side)
                if left is None:
                    return None
                found[key] = left
        return found if METERED_TIME not in found or _possible(found) else None

    def apart(self, one: Box, other: Box) -> bool:
        """Whether nothing lies in both boxes."""
        self.spend(1)
        for key, side in other.items():
            mine = one.get(key)
            if mine is not None and mine is not side:
                self.left -= _cost(mine, side)
                if mine.misses(side):
                    return True
        return False

    def both(self, one: Region, other: Region) -> Region:
        """What lies in both regions."""
        found = []
        for mine in one:
            for its in other:
                box = self.meet(mine, its)
                if box is not None:
                    found.append(box)
                    if len(found) > BOXES_MAX:
                        raise TooComplex
        return self.tidy(found) if len(found) > 1 else found

    def inside(self, one: Box, other: Box) -> bool:
        """Whether the first box lies in the second."""
        self.spend(1)
        for key, side in other.items():
            mine = one.get(key)
            if mine is not side:
                if mine is None:
                    return False
                self.left -= _cost(mine, side)
                if not mine.inside(side):
                    return False
        return True

    def minus(self, box: Box, other: Box) -> Region:
        """What lies in the first of two boxes that meet, and not in the second."""
        found, rest = [], box
        for key, side in other.items():
            axis = self.axes[key]
            mine = rest.get(key)
            if mine is side:
                continue
            self.spend(2 + _cost(mine, side))
            if mine is None:
                outside = (axis.full,) if side is GAP else (*axis.full.minus(side), *((GAP,) if axis.gap else ()))
                inner: Side | None = side
            else:
                outside, inner = mine.minus(side), mine.meet(side)
            found += [piece for left in outside if _possible(piece := {**rest, key: left})]
            if inner is None:
                return found
            rest = {**rest, key: inner}
        return found

    def rest(self, box: Box, others: Iterable[Box]) -> Iterator[Box]:
        """What lies in a box and in none of `others`, one disjoint piece after the other: who only asks for one has it soon."""
        near = [other for other in others if not self.apart(box, other)]
        if any(self.inside(box, other) for other in near):
            return
        waiting = [(box, 0)]
        while waiting:
            piece, at = waiting.pop()
            while at < len(near) and self.apart(piece, near[at]):
                at += 1
            if at == len(near):
                yield piece
            else:
                waiting += [(left, at + 1) for left in reversed(self.minus(piece, near[at]))]

    def without(self, region: Region, others: Sequence[Box]) -> Region:
        """What lies in no box of `others`."""
        return [left for box in region for left in self.rest(box, others)]

    def tidy(self, region: Region) -> Region:
        """The same region in fewer boxes: those that differ on one axis are joined, what lies in another box goes."""
        if len(region) > SMALL:
            region = self._grouped(region)
        if len(region) > SMALL:
            return region
        found: Region = []
        for box in region:
            self._add(found, box)
        return found

    def _add(self, found: Region, box: Box) -> None:
        """Add a box to a small region, joined with one that is there if the two are one box together."""
        at = 0
        while at < len(found):
            known = found[at]
            self.spend(1)
            if self.inside(box, known):
                return
            whole = box if self.inside(known, box) else _joined(known, box)
            if whole is None:
                at += 1
                continue
            del found[at]
            box, at = whole, 0
        found.append(box)

    def _grouped(self, region: Region) -> Region:
        """Joins boxes that differ on one axis, one axis after the other."""
        for key in dict.fromkeys(key for box in region for key in box):
            groups: dict[frozenset[tuple[str, Side]], list[Side]] = {}
            others: Region = []
            self.spend(4 * len(region))
            for box in region:
                side = box.get(key)
                if isinstance(side, Line | Names):
                    groups.setdefault(frozenset(item for item in box.items() if item[0] != key), []).append(side)
                else:
                    others.append(box)
            if len(groups) + len(others) < len(region):
                region = [*others, *({**dict(rest), key: _union(sides)} for rest, sides in groups.items())]
        return region

    def guessed(self, box: Box) -> str:
        """Why nobody here can know that a request lies in the box; "" if one surely does."""
        counted: dict[str, list[tuple[Axis, Side]]] = {}
        for key, side in box.items():
            axis = self.axes[key]
            if axis.guess:
                return f"{axis.label} cannot be judged here"
            if not side.surely:
                return f"no vocabulary says whether a {axis.label} can be both"
            if isinstance(axis.full, Line):
                others = counted.setdefault(axis.operand, [])
                for other, its in others:
                    if not _in_any_unit(axis, side, other, its):
                        return f"{axis.label} is counted in {_unit(other.unit)} and in {_unit(axis.unit)}, and nobody here can convert them"
                others.append((axis, side))
        return ""


def _in_any_unit(axis: Axis, side: Side, other: Axis, its: Side) -> bool:
    """Whether something lies in both stretches however the one unit is converted to the other: of amounts that begin at nothing, both take
    what is as small as one likes, or as large. What measures two things that do not depend on each other needs no conversion."""
    full = axis.full
    if {MEASURES.get(axis.unit), MEASURES.get(other.unit)} == {"time", "length"}:
        return True
    if not (isinstance(full, Line) and isinstance(side, Line) and isinstance(its, Line)) or axis.integral or other.integral:
        return False
    (start, end), lines = full.spans[0], (side, its)
    small = start[0] == 0 and all(line.spans[0][0] == start for line in lines)
    return small or (start[0] == 0 and end == HIGH and all(line.spans[-1][1] == HIGH for line in lines))


def _unit(iri: str) -> str:
    return f"<{shown(iri)}>" if iri else "no unit"


def _joined(one: Box, other: Box) -> Box | None:
    """Two boxes as one, if they differ on one axis of which any sides can be joined."""
    if len(one) != len(other) or one.keys() != other.keys():
        return None
    unlike = [key for key, side in one.items() if side is not other[key] and side != other[key]]
    if len(unlike) != 1:
        return None
    side, its = one[unlike[0]], other[unlike[0]]
    if isinstance(side, Line | Names) and isinstance(its, Line | Names):
        return {**one, unlike[0]: _union([side, its])}
    return None


def _union(sides: list[Side]) -> Side:
    if isinstance(sides[0], Line):
        line = joined(span for side in sides if isinstance(side, Line) for span in side.spans)
        return line or sides[0]
    whole = sides[0]
    for side in sides[1:]:
        if isinstance(whole, Names) and isinstance(side, Names):
            whole = union(whole, side)
    return whole


def _cost(one: Side | None, other: Side) -> int:
    """What an operation on two sides costs, in simple ones."""
    if isinstance(other, Line):
        return (len(other.spans) + (len(one.spans) if isinstance(one, Line) else 1)) >> 2
    if isinstance(other, Names):
        hidden = len(other.hidden) * (len(one.hidden) if isinstance(one, Names) else 1)
        return (len(other.values) >> 6) + (hidden if hidden > 1 else 0)
    if isinstance(other, Crowd):
        return (len(other.hits) + 1) * (len(one.hits) + 1 if isinstance(one, Crowd) else 1)
    return 0


def _possible(box: Box) -> bool:
    """Whether facts that hang together leave anything: no use is longer than the time since it began."""
    metered, elapsed = box.get(METERED_TIME), box.get(ELAPSED_TIME)
    if isinstance(metered, Line) and isinstance(elapsed, Line):
        return metered.spans[0][0] < elapsed.spans[-1][1]
    return True
