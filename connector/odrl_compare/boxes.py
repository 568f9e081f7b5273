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
Reach = tuple[str | None, bool, bool]  # what a stretch measures, whether it begins at nothing, whether it never ends
Leaves = dict[tuple[int, bool], tuple[Constraint, Axis, Region]]  # by the identity of the constraint, and whether it holds

BOXES_MAX: Final = 4096
STEPS_MAX: Final = 10_000  # operations on one axis; some 25 ms
WIDE: Final = 16  # axes that a step goes through for nothing; of a wider box each one more counts
SMALL: Final = 24  # boxes of which each is compared with each


class TooComplex(Exception):
    """A comparison would take too long."""


class Work:
    """The axes that came up, and how much may still be done. `leaves` are kept for who reads the same again, under one calendar after the
    other: where single constraints hold, or do not."""

    __slots__ = ("_crowds", "axes", "leaves", "left")

    def __init__(self, steps: int = STEPS_MAX, leaves: Leaves | None = None) -> None:
        self.axes: dict[str, Axis] = {}
        self._crowds: dict[int, tuple[Crowd, bool]] = {}
        self.leaves = leaves
        self.left = steps

    def spend(self, steps: int) -> None:
        """Count work. Raises TooComplex beyond the bound."""
        self.left -= steps
        if self.left < 0:
            raise TooComplex

    def go_through(self, box: Box) -> None:
        """Count a look at every axis of a box. Raises TooComplex beyond the bound."""
        self.left -= 1 if len(box) <= WIDE else 1 + (len(box) - WIDE >> 2)
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
        self.spend(1 + (len(one) >> 7))
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
        self.go_through(other)
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
        self.go_through(other)
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
        found, rest, wide = [], dict(box), 2 + (len(box) >> 7)
        for key, side in other.items():
            axis = self.axes[key]
            mine = rest.get(key)
            if mine is side:
                continue
            self.spend(wide + _cost(mine, side))
            if mine is None:
                outside = (axis.full,) if side is GAP else (*axis.full.minus(side), *((GAP,) if axis.gap else ()))
                inner: Side | None = side
            else:
                outside, inner = mine.minus(side), mine.meet(side)
            found += [piece for left in outside if _possible(piece := {**rest, key: left})]
            if inner is None:
                return found
            rest[key] = inner
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
            known, whole = found[at], None
            self.spend(1)
            alike = known.keys() == box.keys()
            if (alike or known.keys() < box.keys()) and self.inside(box, known):
                return
            if (alike or known.keys() > box.keys()) and self.inside(known, box):
                whole = box
            elif alike:
                whole = _joined(known, box)
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
            self.spend(sum(4 if len(box) <= WIDE else 4 + (len(box) - WIDE >> 1) for box in region))
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
        if len(box) > WIDE:
            self.spend(len(box) - WIDE)
        counted: dict[str, dict[Reach, Axis]] = {}
        for key, side in box.items():
            axis = self.axes[key]
            if axis.guess:
                return f"{axis.label} cannot be judged here"
            if not self._surely(side):
                return f"no vocabulary says whether a {axis.label} can be both"
            if isinstance(axis.full, Line):
                reach = _reach(axis, axis.full, side)
                others = counted.setdefault(axis.operand, {})
                for its, other in others.items():
                    if not _in_any_unit(reach, its):
                        return f"{axis.label} is counted in {_unit(other.unit)} and in {_unit(axis.unit)}, and nobody here can convert them"
                others.setdefault(reach, axis)
        return ""

    def _surely(self, side: Side) -> bool:
        """Whether a value is known to lie in a side. Crowds with many hits stand in many boxes and are asked once each."""
        if not isinstance(side, Crowd) or not side.hits:
            return side.surely
        known = self._crowds.get(id(side))
        if known is None:
            known = self._crowds[id(side)] = side, side.surely
        return known[1]


def _reach(axis: Axis, full: Line, side: Side) -> Reach:
    """Of a stretch, what matters where another one is in another unit."""
    (start, end), what = full.spans[0], MEASURES.get(axis.unit)
    if axis.integral or not isinstance(side, Line) or start[0] != 0:
        return what, False, False
    return what, side.spans[0][0] == start, side.spans[-1][1] == HIGH == end


def _in_any_unit(one: Reach, other: Reach) -> bool:
    """Whether something lies in both stretches however the one unit is converted to the other: of amounts that begin at nothing, both take
    what is as small as one likes, or as large. What measures two things that do not depend on each other needs no conversion."""
    return {one[0], other[0]} == {"time", "length"} or (one[1] and other[1]) or (one[2] and other[2])


def _unit(iri: str) -> str:
    return f"<{shown(iri)}>" if iri else "no unit"


def _joined(one: Box, other: Box) -> Box | None:
    """Two boxes on the same axes as one, if they differ on one of which any sides can be joined."""
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
        if not isinstance(one, Names):
            return (len(other.values) >> 6) + (_kinds(other) if other.hidden else 0)
        hidden = _kinds(one) * _kinds(other) if one.hidden and other.hidden else 0
        return (len(other.values) >> 6) + (len(one.values) >> 8) + (hidden if hidden > 1 else 0)
    if isinstance(other, Crowd):
        return _hits(other) * (_hits(one) if isinstance(one, Crowd) else 1)
    return 0


def _kinds(names: Names) -> int:
    """How much is said of concepts that no vocabulary names."""
    return sum(len(wanted) + len(barred) or 1 for wanted, barred in names.hidden)


def _hits(crowd: Crowd) -> int:
    return sum(_kinds(names) or 1 for names in (crowd.within, *crowd.hits))


def _possible(box: Box) -> bool:
    """Whether facts that hang together leave anything: no use is longer than the time since it began."""
    metered, elapsed = box.get(METERED_TIME), box.get(ELAPSED_TIME)
    if isinstance(metered, Line) and isinstance(elapsed, Line):
        return metered.spans[0][0] < elapsed.spans[-1][1]
    return True
