"""Boxes against every point of a small space."""

from itertools import product
from random import Random

import pytest
from hypothesis import given, settings

from connector.odrl import compare, evaluate, load
from connector.odrl.operands import ELAPSED_TIME, METERED_TIME
from connector.odrl_compare.axes import Axis
from connector.odrl_compare.boxes import Box, TooComplex, Work
from connector.odrl_compare.sides import GAP, HIGH, LOW, NAMES, Line, Names, Side
from tests.odrl_compare.cases import lies, seeds
from tests.odrl_compare.test_sides import LETTERS, a_line, some_names

AXES = {
    "n": Axis("n", "n", "", "number", Line(((LOW, HIGH),)), gap=True),
    "t": Axis("t", "t", "", "time", Line(((LOW, HIGH),)), gap=False),
    "p": Axis("p", "p", "", "purpose", NAMES, gap=True),
}
SPACE = [{"n": n, "t": t, "p": p} for n, t, p in product((None, 0, 2, 4, 6), (0, 2, 4, 6), (None, *LETTERS))]


def a_box(chance: Random) -> Box:
    found: Box = {}
    for key, draw in (("n", a_line), ("t", a_line), ("p", some_names)):
        if chance.random() < 0.6:
            side: Side = draw(chance)
            found[key] = GAP if AXES[key].gap and chance.random() < 0.1 else side
    return found


def work() -> Work:
    found = Work()
    found.axes = dict(AXES)
    return found


def points(*boxes: Box) -> list[int]:
    return [index for index, point in enumerate(SPACE) if any(lies(box, point) for box in boxes)]


@settings(max_examples=300)
@given(seeds)
def test_what_is_left_of_a_box_is_what_lies_in_none_of_the_others(chance: Random):
    box, others = a_box(chance), [a_box(chance) for _ in range(chance.randint(0, 4))]
    left = list(work().rest(box, others))
    taken = set(points(*others))
    assert points(*left) == [point for point in points(box) if point not in taken]
    assert sum(len(points(piece)) for piece in left) == len(points(*left)), "the pieces are disjoint"


@settings(max_examples=300)
@given(seeds)
def test_regions_meet_where_both_are(chance: Random):
    one, other = ([a_box(chance) for _ in range(chance.randint(1, 3))] for _ in range(2))
    found = work().both(one, other)
    its = set(points(*other))
    assert points(*found) == [point for point in points(*one) if point in its]


@settings(max_examples=200)
@given(seeds)
def test_a_tidy_region_is_the_same_region(chance: Random):
    region = [a_box(chance) for _ in range(chance.choice((2, 4, 40)))]
    found = work().tidy(list(region))
    assert points(*found) == points(*region)
    assert len(found) <= len(region)


@settings(max_examples=200)
@given(seeds)
def test_inside_and_apart_are_never_wrong(chance: Random):
    one, other = a_box(chance), a_box(chance)
    if work().inside(one, other):
        assert set(points(one)) <= set(points(other))
    if work().apart(one, other):
        assert not set(points(one)) & set(points(other))


def test_stretches_on_one_axis_become_one_box():
    region: list[Box] = [{"t": Line((((2 * n, 0), (2 * n + 1, 0)),))} for n in range(300)]
    assert len(work().tidy(region)) == 1


def test_work_has_an_end():
    bounded = Work(10)
    bounded.axes = dict(AXES)
    with pytest.raises(TooComplex):
        bounded.both([a_box(Random(n)) for n in range(20)], [a_box(Random(n)) for n in range(20)])


def test_no_use_is_longer_than_the_time_since_it_began():
    long, short = Line((((10, 0), HIGH),)), Line((((0, 0), (5, 1)),))
    assert work().meet({METERED_TIME: long}, {ELAPSED_TIME: short}) is None
    assert work().meet({METERED_TIME: short}, {ELAPSED_TIME: long}) is not None


def test_what_cannot_be_known_is_said():
    bounded = work()
    bounded.axes |= {"o": Axis("o", "", "", "a riddle", NAMES, gap=True, guess=True)}
    bounded.axes |= {f"m {unit}": Axis(f"m {unit}", "m", unit, "amount", Line(((LOW, HIGH),)), gap=True) for unit in ("urn:eur", "urn:usd")}
    span = Line((((0, 0), (1, 0)),))
    assert bounded.guessed({"n": span}) == ""
    assert bounded.guessed({"o": Names(frozenset({"x"}))}) == "a riddle cannot be judged here"
    assert "<urn:eur> and in <urn:usd>" in bounded.guessed({"m urn:eur": span, "m urn:usd": span})
    at, where, byte = (f"http://qudt.org/vocab/unit/{name}" for name in ("SEC", "PX", "BYTE"))
    bounded.axes |= {f"m {unit}": Axis(f"m {unit}", "m", unit, "place", Line(((LOW, HIGH),)), gap=True) for unit in (at, where, byte)}
    assert bounded.guessed({f"m {at}": span, f"m {where}": span}) == "", "a moment and a place on a picture are two coordinates"
    assert bounded.guessed({f"m {at}": span, f"m {byte}": span}), "what lies further in a file comes later"
    assert bounded.guessed({"m urn:eur": span, "m urn:usd": GAP}), "an amount in one unit may be known and not be convertible"


@pytest.mark.parametrize(
    ("one", "other", "sure"),
    [
        ("lteq", "lteq", True),  # whatever an inch is in pixels, there is something that is small enough for both
        ("lt", "lteq", True),
        ("gteq", "gt", True),
        ("lteq", "gteq", False),
        ("eq", "lteq", False),
        ("eq", "eq", False),
    ],
)
def test_two_units_of_one_operand_are_compared_where_any_conversion_will_do(one: str, other: str, sure: bool):
    limits = [
        {"leftOperand": "odrl:absoluteSize", "operator": operator, "rightOperand": number, "odrl:unit": {"@id": unit}}
        for operator, number, unit in ((one, "10", "urn:unit:inch"), (other, "1000", "urn:unit:pixel"))
    ]
    found = [load({"@id": "urn:o", "@type": "Offer", "permission": [{"action": "use", "constraint": [limit]}]}) for limit in limits]
    verdict = compare(*found)
    assert verdict.compatible == ("yes" if sure else "unknown")
    if sure:
        met = verdict.witnesses["compatible"]
        assert [evaluate(each, met.request, met.world).result for each in found] == ["permit", "permit"]
