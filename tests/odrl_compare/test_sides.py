"""Sets of values against a small universe in which everything can be counted."""

from itertools import combinations, pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.odrl.registry import registry_of
from connector.odrl_compare.sides import CROWD, GAP, HIGH, LOW, NAMES, Crowd, Line, Names, joined, related, union
from tests.odrl_compare.cases import OPTIONS, holds, seeds

REGISTRY = registry_of(OPTIONS)
POINTS = tuple(range(6))
LETTERS = ("a", "b", "c", "d")
CROWDS = tuple(frozenset(names) for size in (1, 2, 3, 4) for names in combinations(LETTERS, size))


def a_line(chance: Random) -> Line:
    cuts = sorted({(chance.randint(0, 6), chance.randint(0, 1)) for _ in range(chance.choice((2, 4, 6)))} | {LOW, HIGH})
    spans = [pair for pair in pairwise(cuts) if chance.random() < 0.5]
    return joined(spans or [(LOW, HIGH)]) or Line(((LOW, HIGH),))


def some_names(chance: Random) -> Names:
    return Names(frozenset(chance.sample(LETTERS, chance.randint(1, 3))), chance.random() < 0.4)


def a_crowd(chance: Random) -> Crowd:
    """Made as constraints make it: from all, by what it has to lie within and what it has to hit."""
    found = CROWD
    for _ in range(chance.randint(1, 3)):
        more = Crowd(some_names(chance)) if chance.random() < 0.4 else Crowd(NAMES, (some_names(chance),))
        found = found.meet(more) or found
    return found


KINDS = ((a_line, POINTS), (some_names, LETTERS), (a_crowd, CROWDS))


@settings(max_examples=300)
@given(seeds, st.sampled_from(KINDS))
def test_meet_minus_inside_and_misses_are_what_they_are_of_sets(chance: Random, kind):
    draw, universe = kind
    one, other = draw(chance), draw(chance)
    mine, its = ({value for value in universe if holds(side, value)} for side in (one, other))
    common, rest = one.meet(other), one.minus(other)
    assert {value for value in universe if common is not None and holds(common, value)} == mine & its
    assert {value for value in universe if any(holds(piece, value) for piece in rest)} == mine - its
    if one.misses(other):
        assert not mine & its
    if one.inside(other):
        assert mine <= its
        assert not rest
    assert one.inside(one)
    assert one.meet(one) == one
    assert not one.minus(one)


@settings(max_examples=200)
@given(seeds)
def test_names_are_joined(chance: Random):
    one, other = some_names(chance), some_names(chance)
    assert [holds(union(one, other), letter) for letter in LETTERS] == [holds(one, letter) or holds(other, letter) for letter in LETTERS]


@pytest.mark.parametrize("side", [a_line(Random(1)), some_names(Random(2)), a_crowd(Random(3))])
def test_the_gap_is_beside_every_value(side):
    assert GAP.meet(side) is None
    assert side.meet(GAP) is None
    assert GAP.minus(side) == (GAP,)
    assert side.minus(GAP) == (side,)
    assert not side.inside(GAP)
    assert not GAP.inside(side)
    assert GAP.misses(side)
    assert GAP.meet(GAP) is GAP
    assert GAP.inside(GAP)
    assert GAP.surely
    assert repr(GAP) == "GAP"


def test_siblings_may_share_what_no_vocabulary_names():
    cancer, rare, marketing = (related(REGISTRY, "isA", f"urn:t:{name}") for name in ("cancer", "rare", "marketing"))
    common = cancer.meet(rare)
    assert common is not None
    assert not common.surely
    assert cancer.meet(marketing) is None, "what lies below research is asserted to be apart from marketing"


def test_what_is_taken_away_is_no_longer_possible():
    research, cancer = (related(REGISTRY, "isA", f"urn:t:{name}") for name in ("research", "cancer"))
    assert cancer.inside(research)
    assert not cancer.minus(research)
    (rest,) = research.minus(cancer)
    assert rest.meet(cancer) is None
    assert rest.surely
    assert not research.inside(cancer)


def test_a_listed_name_is_a_name_and_nothing_else():
    research = related(REGISTRY, "isA", "urn:t:research")
    assert Names(frozenset({"urn:t:quality"})).meet(research) is None
    known = Names(frozenset({"urn:t:research", "urn:t:cancer", "urn:t:rare"}))
    (hidden,) = research.minus(known)
    assert not hidden.surely, "there may be research that no vocabulary names"


def test_parts_and_wholes():
    france = related(REGISTRY, "isPartOf", "urn:t:france")
    assert france.values == {"urn:t:france", "urn:t:paris"}
    assert france.inside(related(REGISTRY, "isPartOf", "urn:t:europe"))
    paris = related(REGISTRY, "hasPart", "urn:t:paris")
    assert paris.values == {"urn:t:paris", "urn:t:france", "urn:t:europe"}
    assert related(REGISTRY, "hasPart", "urn:t:france").inside(paris)


def test_many_concepts_that_are_not_known_to_be_apart_stay_possible():
    whole = related(REGISTRY, "isA", "urn:t:0")
    for index in range(1, 80):
        whole = union(whole, related(REGISTRY, "isA", f"urn:t:{index}"))
    common = whole.meet(related(REGISTRY, "isA", "urn:t:elsewhere"))
    assert common is not None
    assert not common.surely


def test_an_empty_line_is_no_line():
    assert joined([]) is None
    assert joined([((3, 0), (3, 0))]) is None
    assert joined([((1, 0), (2, 0)), ((2, 0), (3, 1)), ((5, 0), (6, 0))]) == Line((((1, 0), (3, 1)), ((5, 0), (6, 0))))
