"""Where nodes are satisfied, against their judges: one fact after the other, known and missing."""

from random import Random

import pytest
from hypothesis import given, settings

from connector.odrl import load
from connector.odrl.model import FALSE, TRUE, Logic
from connector.odrl.registry import registry_of
from connector.odrl_compare.boxes import TooComplex, Work
from connector.odrl_compare.regions import Reader
from tests.odrl_compare.cases import AXES, OPTIONS, a_constraint, an_offer, lies, read, seeds, some_facts


def reader() -> Reader:
    return Reader(registry_of(OPTIONS), Work(200_000), {})


def node_of(document: dict):
    return (
        read({"@id": "urn:o", "@type": "Offer", "permission": [{"action": "use", "constraint": [document]}]}).permissions[0].constraints[0]
    )


@settings(max_examples=500)
@given(seeds)
def test_a_node_is_true_in_its_true_boxes_and_false_in_its_false_ones(chance: Random):
    node = node_of(a_constraint(chance))
    true, false = reader().true(node), reader().false(node)
    for _ in range(12):
        facts = some_facts(chance)
        state = node.judge(facts)
        assert any(lies(box, facts) for box in true) == (state == TRUE)
        assert any(lies(box, facts) for box in false) == (state == FALSE)


TIMES = {"leftOperand": "odrl:dateTime", "operator": "gteq", "rightOperand": "2026-06-14Z"}
ENDS = {"leftOperand": "odrl:dateTime", "operator": "lt", "rightOperand": "2026-06-16Z"}
DELAY = {"leftOperand": "odrl:delayPeriod", "operator": "gteq", "rightOperand": "P1D"}
MONTH = {"leftOperand": "odrl:delayPeriod", "operator": "lteq", "rightOperand": "P1M"}
COUNT = {"leftOperand": "odrl:count", "operator": "lteq", "rightOperand": {"@value": "3", "@type": "xsd:integer"}}


@pytest.mark.parametrize(
    "parts", [[TIMES, DELAY], [TIMES, MONTH], [TIMES, DELAY, MONTH], [COUNT, DELAY], [TIMES, COUNT, ENDS], [ENDS, COUNT], [ENDS, TIMES]]
)
def test_a_sequence_is_true_where_its_order_can_have_held(parts: list[dict]):
    """A delay runs from when the part before it held, so here it is an instant; a window may have held before now."""
    node = node_of({"andSequence": {"@list": parts}})
    assert isinstance(node, Logic)
    true, false = reader().true(node), reader().false(node)
    for seed in range(200):
        facts = some_facts(Random(seed))
        state = node.judge(facts)
        assert any(lies(box, facts) for box in true) == (state == TRUE), facts
        assert any(lies(box, facts) for box in false) == (state == FALSE), facts


@settings(max_examples=100)
@given(seeds)
def test_what_was_read_under_one_calendar_is_the_same_under_the_next_but_for_the_months(chance: Random):
    """Constraints that are kept between calendars give the regions that are read anew, and every axis of them comes up."""
    policy = load(an_offer(chance, (*AXES, ("odrl:elapsedTime", ("lt", "lteq", "gteq"), ("P1M", "P2M", "P30D"), ""))), options=OPTIONS)
    kept = Work(leaves={})
    for days in (28, 30, 31):
        lengths, anew = {1: days, 2: 2 * days}, Work()
        readers = Reader(policy.registry, Work(leaves=kept.leaves), lengths), Reader(policy.registry, anew, lengths)
        for rule in (*policy.permissions, *policy.prohibitions):
            one, other = (reader.rule(policy, rule) + reader.not_rule(policy, rule) for reader in readers)
            assert one == other
        assert readers[0].work.axes == anew.axes
        assert readers[0].work.left >= anew.left


def test_exactly_one_of_fifty_takes_as_many_steps():
    part = {"leftOperand": "odrl:purpose", "operator": "eq"}
    node = node_of({"xone": [part | {"rightOperand": f"v{n}"} for n in range(50)]})
    bounded = Reader(registry_of(OPTIONS), Work(3000), {})
    (box,) = bounded.true(node)
    assert len(box["http://www.w3.org/ns/odrl/2/purpose"].values) == 50
    with pytest.raises(TooComplex):
        Reader(registry_of(OPTIONS), Work(100), {}).true(node)


def opaque(operator: str, right: object) -> object:
    document = {"@id": "urn:o", "@type": "Offer", "permission": [{"action": "use", "constraint": [
        {"leftOperand": "urn:foreign", "operator": operator, "rightOperand": right}]}]}  # fmt: skip
    return load(document, strict=False).permissions[0].constraints[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("isAnyOf", ["a"]), ("isAnyOf", ["a", "b"])),
        (("isAllOf", ["a", "b"]), ("isAllOf", ["a"])),
        (("isNoneOf", ["a", "b"]), ("isNoneOf", ["a"])),
        (("eq", "a"), ("isAnyOf", ["b", "a"])),
        (("lteq", {"@value": "5", "@type": "xsd:integer"}), ("lt", {"@value": "6", "@type": "xsd:integer"})),
        (("term-lteq", "a"), ("term-lteq", "a")),
    ],
)
def test_of_what_is_not_understood_lists_and_orders_keep_their_meaning(one, other):
    found = reader()
    narrow, wide = found.true(opaque(*one)), found.true(opaque(*other))
    assert not found.work.without(narrow, wide)
    rest = found.work.without(wide, narrow)
    assert all(found.work.guessed(box) for box in rest)
    assert bool(rest) == (one != other)
