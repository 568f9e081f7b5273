"""Sets of values on one axis of a request: stretches of an ordered axis, names, and the sets of names that a party can have.

Each kind has three operations: `meet` (None where nothing is left), `minus` (disjoint pieces, none empty) and `inside`. Sets of one axis
are of one kind; beside them stands GAP, the request that does not have the fact at all.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from connector.odrl.model import Number
from connector.odrl.registry import Registry

Cut = tuple[Number | float, int]  # (v, 0) lies just before v, (v, 1) just after it; infinities bound the axis
LOW: Final[Cut] = (-math.inf, 0)
HIGH: Final[Cut] = (math.inf, 1)
HIDDEN_MAX: Final = 32  # alternatives; beyond them anything counts as possible


class Gap:
    """The one set beside all values: the request does not have the fact."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "GAP"

    def misses(self, other: Side) -> bool:
        """Whether nothing lies in both."""
        return other is not self

    def meet(self, other: Side) -> Gap | None:
        """What lies in both."""
        return self if other is self else None

    def minus(self, other: Side) -> tuple[Gap, ...]:
        """What lies in this one alone."""
        return () if other is self else (self,)

    def inside(self, other: Side) -> bool:
        """Whether all of it lies in the other."""
        return other is self

    @property
    def surely(self) -> bool:
        """Whether a request is known to be without the fact: it can be."""
        return True


GAP: Final = Gap()


class Line(NamedTuple):
    """Stretches between cuts, sorted, apart from each other."""

    spans: tuple[tuple[Cut, Cut], ...]

    def misses(self, other: Side) -> bool:
        """Whether nothing lies in both."""
        if isinstance(other, Line) and len(self.spans) == 1 == len(other.spans):
            (low, high), (start, end) = self.spans[0], other.spans[0]
            return high <= start or end <= low
        return self.meet(other) is None

    def meet(self, other: Side) -> Line | None:
        """What lies in both."""
        if not isinstance(other, Line):
            return None
        mine, others = self.spans, other.spans
        if len(mine) == 1 and len(others) == 1:
            low, high = max(mine[0][0], others[0][0]), min(mine[0][1], others[0][1])
            return Line(((low, high),)) if low < high else None
        found = []
        i = j = 0
        while i < len(mine) and j < len(others):
            low, high = max(mine[i][0], others[j][0]), min(mine[i][1], others[j][1])
            if low < high:
                found.append((low, high))
            if mine[i][1] < others[j][1]:
                i += 1
            else:
                j += 1
        return Line(tuple(found)) if found else None

    def minus(self, other: Side) -> tuple[Line, ...]:
        """What lies in this one alone."""
        if not isinstance(other, Line):
            return (self,)
        found = []
        j, others = 0, other.spans
        for start, end in self.spans:
            low = start
            while j < len(others) and others[j][1] <= low:
                j += 1
            at = j
            while at < len(others) and others[at][0] < end:
                if low < others[at][0]:
                    found.append((low, others[at][0]))
                low = max(low, others[at][1])
                at += 1
            if low < end:
                found.append((low, end))
        return (Line(tuple(found)),) if found else ()

    def inside(self, other: Side) -> bool:
        """Whether all of it lies in the other."""
        if not isinstance(other, Line):
            return False
        others = other.spans
        if len(others) == 1:
            return others[0][0] <= self.spans[0][0] and self.spans[-1][1] <= others[0][1]
        return not self.minus(other)

    @property
    def surely(self) -> bool:
        """Whether a value is known to lie in it."""
        return True


def joined(spans: Iterable[tuple[Cut, Cut]]) -> Line | None:
    """The line of any stretches; None of none."""
    found: list[tuple[Cut, Cut]] = []
    for low, high in sorted(spans):
        if low >= high:
            continue
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return Line(tuple(found)) if found else None


class Kin(NamedTuple):
    """How a concept that no vocabulary names may stand to one that is named: below it, a part of it, or a whole that has it."""

    registry: Registry
    how: Literal["isA", "isPartOf", "hasPart"]
    concept: str

    def implies(self, other: Kin) -> bool:
        """Whether whatever stands so to this concept stands so to the other too."""
        if self.how != other.how:
            return False
        if self.how == "isA":
            return self.registry.below(self.concept, other.concept)
        return (
            self.registry.part_of(self.concept, other.concept)
            if self.how == "isPartOf"
            else self.registry.part_of(other.concept, self.concept)
        )

    def apart(self, other: Kin) -> bool:
        """Whether nothing stands so to both, because a vocabulary says so."""
        return self.how == other.how != "hasPart" and self.registry.apart(self.concept, other.concept)


# What a concept that no vocabulary names would have to be: all of the first, none of the second.
Hidden = tuple[tuple[frozenset[Kin], frozenset[Kin]], ...]
ANY: Final[Hidden] = ((frozenset(), frozenset()),)


def _alone(one: Collection[Kin], others: Collection[Kin]) -> bool:
    """Whether there can be a concept that stands so to the first, and to none of the others."""
    return not others or not any(kin.implies(other) for kin in one for other in others)


def _together(one: Iterable[Kin], others: Iterable[Kin]) -> bool:
    """Whether no vocabulary keeps one of the first from one of the others."""
    return not any(kin.apart(other) for kin in one for other in others)


def _kept(found: Iterable[tuple[frozenset[Kin], frozenset[Kin]]]) -> Hidden:
    possible = tuple(dict.fromkeys(found))
    return possible if len(possible) <= HIDDEN_MAX else ANY


def _hidden_meet(one: Hidden, other: Hidden) -> Hidden:
    if not one or not other or one is other:
        return one and other
    if ANY in (one, other):
        return other if one == ANY else one
    mine, its = ([pair for pair in hidden if not any(kin.apart(kin) for kin in pair[0])] for hidden in (one, other))
    return _kept((a | c, b | d) for a, b in mine for c, d in its if _alone(a, d) and _alone(c, b) and _together(a, c))


def _hidden_minus(one: Hidden, other: Hidden) -> Hidden:
    if not one or not other:
        return one
    if other in (ANY, one):
        return ()
    for wanted, barred in other:
        without = [(a, b | {kin}) for a, b in one for kin in wanted if _alone(a, (kin,))]
        one = _kept(without + [(a | {kin}, b) for a, b in one for kin in barred if _alone((kin,), b) and _together((*a, kin), (kin,))])
    return one


class Names(NamedTuple):
    """Names: those of `values`, or all others if `negated`. `hidden` says which concepts could be meant beside them that no vocabulary
    names: two concepts that are not asserted to be apart may share one."""

    values: frozenset[str]
    negated: bool = False
    hidden: Hidden = ()

    def misses(self, other: Side) -> bool:
        """Whether nothing lies in both."""
        if not isinstance(other, Names):
            return True
        if self.hidden and other.hidden:
            return self.meet(other) is None
        if self.negated:
            return not other.negated and other.values <= self.values
        return self.values <= other.values if other.negated else self.values.isdisjoint(other.values)

    def meet(self, other: Side) -> Names | None:
        """What lies in both."""
        if not isinstance(other, Names):
            return None
        hidden = _hidden_meet(self.hidden, other.hidden)
        if self.negated and other.negated:
            return Names(self.values | other.values, True, hidden)
        values = other.values - self.values if self.negated else self.values - other.values if other.negated else self.values & other.values
        return Names(values, False, hidden) if values or hidden else None

    def minus(self, other: Side) -> tuple[Names, ...]:
        """What lies in this one alone."""
        if not isinstance(other, Names):
            return (self,)
        hidden = _hidden_minus(self.hidden, other.hidden)
        if self.negated and not other.negated:
            return (Names(self.values | other.values, True, hidden),)
        values = other.values - self.values if self.negated else self.values & other.values if other.negated else self.values - other.values
        return (Names(values, False, hidden),) if values or hidden else ()

    def inside(self, other: Side) -> bool:
        """Whether all of it lies in the other."""
        if not isinstance(other, Names):
            return False
        if self.negated:
            named = other.negated and other.values <= self.values
        else:
            named = self.values.isdisjoint(other.values) if other.negated else self.values <= other.values
        return named and not (self.hidden and _hidden_minus(self.hidden, other.hidden))

    @property
    def surely(self) -> bool:
        """Whether a name is known to lie in it."""
        return self.negated or bool(self.values)


NAMES: Final = Names(frozenset(), True, ANY)  # every name


class Crowd(NamedTuple):
    """The sets of names that a party can have at once: not empty, all of them `within`, at least one in each of `hits`, which all lie
    within."""

    within: Names
    hits: tuple[Names, ...] = ()

    def misses(self, other: Side) -> bool:
        """Whether no set is in both."""
        return self.meet(other) is None

    def meet(self, other: Side) -> Crowd | None:
        """The sets that are in both."""
        if not isinstance(other, Crowd):
            return None
        within = self.within.meet(other.within)
        mine, its = _clipped(within, self.hits, self.within), _clipped(within, other.hits, other.within)
        if within is None or mine is None or its is None:
            return None
        for hit in its:
            mine = _added(mine, hit)
        return Crowd(within, mine)

    def minus(self, other: Side) -> tuple[Crowd, ...]:
        """The sets that are in this one alone, in pieces that may overlap."""
        if not isinstance(other, Crowd):
            return (self,)
        found = [Crowd(self.within, _added(self.hits, outside)) for outside in self.within.minus(other.within)]
        for hit in other.hits:
            if any(mine.inside(hit) for mine in self.hits):
                continue
            for within in self.within.minus(hit):
                hits = _clipped(within, self.hits, self.within)
                if hits is not None:
                    found.append(Crowd(within, hits))
        return tuple(found)

    def inside(self, other: Side) -> bool:
        """Whether each of its sets is in the other."""
        if not isinstance(other, Crowd):
            return False
        return self.within.inside(other.within) and all(
            self.within.inside(hit) or any(mine.inside(hit) for mine in self.hits) for hit in other.hits
        )

    @property
    def surely(self) -> bool:
        """Whether a set is known to be in it."""
        return self.within.surely and all(hit.surely for hit in self.hits)


def _clipped(within: Names | None, hits: tuple[Names, ...], before: Names) -> tuple[Names, ...] | None:
    """What of each hit lies within; None if nothing of one does."""
    if within is None or within == before:
        return hits
    found = []
    for hit in hits:
        inner = hit.meet(within)
        if inner is None:
            return None
        found.append(inner)
    return tuple(found)


def _added(hits: tuple[Names, ...], hit: Names) -> tuple[Names, ...]:
    """The hits and one more; of two of which one lies in the other, the wider goes."""
    if any(known.inside(hit) for known in hits):
        return hits
    return (*(known for known in hits if not hit.inside(known)), hit)


CROWD: Final = Crowd(NAMES)


Side = Line | Names | Crowd | Gap


@lru_cache(maxsize=16)
def _reversed(registry: Registry, how: Literal["isA", "isPartOf"]) -> dict[str, frozenset[str]]:
    """Concept -> all that are known to lie below it, or to be a part of it."""
    found: dict[str, set[str]] = {}
    for concept, up in (registry.above if how == "isA" else registry.whole).items():
        for above in up:
            found.setdefault(above, set()).add(concept)
    return {concept: frozenset(below) for concept, below in found.items()}


def related(registry: Registry, how: Literal["isA", "isPartOf", "hasPart"], concept: str) -> Names:
    """The names that stand in a relation to a concept, by the vocabularies at hand and by those that are not."""
    known = registry.whole.get(concept, ()) if how == "hasPart" else _reversed(registry, how).get(concept, ())
    return Names(frozenset({concept, *known}), False, ((frozenset({Kin(registry, how, concept)}), frozenset()),))


@lru_cache(maxsize=1024)
def unrelated(registry: Registry, how: Literal["isA", "isPartOf", "hasPart"], concept: str) -> Names:
    """The names of which it is known that they do not stand in a relation to a concept: those beside it in a vocabulary, and those that one
    keeps apart from it. Of any other nobody knows it (`Registry.stands`)."""
    others = {one for names in (registry.kinds if how == "isA" else registry.wholes) if concept in names for one in names}
    if registry.disjoint:
        mine = registry.above.get(concept, frozenset({concept}))
        barred = {one for pair in registry.disjoint if pair & mine for one in (pair - mine or pair)}
        below = _reversed(registry, "isA")
        others.update(one for top in barred for one in (top, *below.get(top, ())))
    does = related(registry, how, concept)
    return Names(frozenset(others) - does.values, False, NAMES.minus(does)[0].hidden)


def union(one: Names, other: Names) -> Names:
    """The names that lie in either."""
    hidden = one.hidden if one.hidden == other.hidden else ANY if ANY in (one.hidden, other.hidden) else (*one.hidden, *other.hidden)
    if len(hidden) > HIDDEN_MAX:
        hidden = ANY
    if one.negated and other.negated:
        return Names(one.values & other.values, True, hidden)
    if one.negated or other.negated:
        out, plain = (one, other) if one.negated else (other, one)
        return Names(out.values - plain.values, True, hidden)
    return Names(one.values | other.values, False, hidden)
