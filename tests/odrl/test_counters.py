"""Quotas and tallies as they are read from policies, and the laws of a counter: never over, and the order of settling does not matter."""

from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.odrl import Policy, Request, World, evaluate, load
from connector.odrl.counters import Counter, Refusal, Tally, charged, counting, quotas, tallies
from connector.odrl.operands import BYTE_COUNT, COUNT, METERED_TIME, PAY_AMOUNT

RULE = "/permission/0"
HOUR = 3_600_000_000
NOW = datetime(2026, 6, 15, tzinfo=UTC)


def number(value: object, kind: str = "integer") -> dict[str, str]:
    return {"@value": str(value), "@type": f"xsd:{kind}"}


def on(operand: str, operator: str, value: object, **more: Any) -> dict[str, Any]:
    return {"leftOperand": operand, "operator": operator, "rightOperand": value if isinstance(value, str) else number(value), **more}


def policy(*constraints: dict[str, Any], **more: Any) -> Policy:
    rule = {"action": "use", "constraint": list(constraints)}
    return load({"@type": "Offer", "@id": "urn:o", "permission": [rule], **more})


@pytest.mark.parametrize(
    ("constraint", "limit", "inclusive", "most"),
    [
        (on("odrl:count", "lteq", 10), 10, True, 10),
        (on("odrl:count", "lt", 10), 10, False, 9),
        (on("odrl:count", "lt", 0), 0, False, -1),
        (on("urn:qiao:byteCount", "lteq", number("10.5", "decimal")["@value"]), Fraction(21, 2), True, 10),
        (on("urn:qiao:byteCount", "lt", number("10.5", "decimal")["@value"]), Fraction(21, 2), False, 10),
        (on("odrl:meteredTime", "lteq", "PT1H"), HOUR, True, HOUR),
        (on("odrl:meteredTime", "lt", "PT1H"), HOUR, False, HOUR - 1),
        (on("odrl:meteredTime", "lteq", "P1M"), 28 * 24 * HOUR, True, 28 * 24 * HOUR),
    ],
)
def test_an_upper_bound_is_a_quota(constraint: dict[str, Any], limit: object, inclusive: bool, most: int):
    (quota,) = quotas(policy(constraint))
    assert (quota.rule, quota.path, quota.limit, quota.inclusive) == (RULE, f"{RULE}/constraint/0", limit, inclusive)
    assert quota.most == most


@pytest.mark.parametrize("operator", ["gt", "gteq", "neq"])
def test_what_does_not_bound_from_above_is_no_quota(operator: str):
    assert quotas(policy(on("odrl:count", operator, 10))) == ()


def test_the_tightest_of_several_bounds_counts():
    bounds = [on("odrl:count", "lteq", 10), on("odrl:count", "lt", 10), on("odrl:count", "lteq", 12)]
    for order in permutations(bounds):
        (quota,) = quotas(policy(*order))
        assert (quota.limit, quota.inclusive, quota.most) == (10, False, 9)


def test_a_bound_within_a_conjunction_is_certain_and_one_within_a_choice_is_not():
    count, volume = on("odrl:count", "lteq", 10), on("urn:qiao:byteCount", "lteq", 1000)
    until = {"leftOperand": "odrl:dateTime", "operator": "lt", "rightOperand": "2027-01-01T00:00:00Z"}
    assert [quota.operand for quota in quotas(policy({"and": [count, {"and": [volume]}]}))] == [COUNT, BYTE_COUNT]
    assert [quota.operand for quota in quotas(policy({"andSequence": {"@list": [until, count]}}))] == [COUNT]
    for kind in ("or", "xone"):
        assert [quota.operand for quota in quotas(policy({kind: [count, until]}, volume))] == [BYTE_COUNT]


def test_the_tallies_are_all_that_has_to_be_counted_wherever_it_stands_with_every_mark():
    until = {"leftOperand": "odrl:dateTime", "operator": "lt", "rightOperand": "2027-01-01T00:00:00Z"}
    read = policy(
        on("odrl:count", "lteq", 10),
        {"or": [on("urn:qiao:byteCount", "lteq", 1000), until]},
        on("urn:qiao:byteCount", "gteq", 1),
        prohibition=[{"action": "use", "constraint": [on("odrl:count", "gt", 7)]}],
    )
    assert tallies(read) == (
        Tally(RULE, COUNT, (10,)),
        Tally(RULE, BYTE_COUNT, (0, 1000)),
        Tally("/prohibition/0", COUNT, (7,)),
    )
    assert tallies(policy(until)) == ()


def test_other_units_are_counted_apart_and_their_constraints_can_be_found():
    read = policy(on("odrl:payAmount", "lteq", 10, **{"odrl:unit": {"@id": "https://example.org/EUR"}}), on("odrl:payAmount", "lteq", 20))
    assert [tally.operand for tally in tallies(read)] == [f"{PAY_AMOUNT} https://example.org/EUR", PAY_AMOUNT]
    assert [each.path for each in counting(read, PAY_AMOUNT)] == [f"{RULE}/constraint/1"]


@pytest.mark.parametrize("operator", ["lt", "lteq", "gt", "gteq", "eq", "neq"])
@pytest.mark.parametrize(("operand", "iri", "value"), [("odrl:count", COUNT, 3), ("odrl:meteredTime", METERED_TIME, "PT0.000003S")])
def test_between_two_marks_a_decision_stays_what_it_is(operator: str, operand: str, iri: str, value: object):
    """One more use is judged: so a mark is the last total at which what was decided before it still stands."""
    read = policy(on(operand, operator, value))
    (tally,) = tallies(read)
    more = 1 if iri == METERED_TIME else 0  # of time there is no least use: a decision is asked about what comes after
    results = [evaluate(read, Request("did:web:x.example"), World(NOW, used={(RULE, iri): used + more})).permitted for used in range(10)]
    turns = {used for used in range(1, 10) if results[used] != results[used - 1]}
    assert turns <= set(tally.marks)
    assert turns, "else this shows nothing"


def test_a_use_counts_under_every_permission_that_grants_it_and_every_prohibition_that_speaks_about_it():
    def rule(purpose: str, most: int) -> dict[str, Any]:
        said = {"leftOperand": "odrl:purpose", "operator": "eq", "rightOperand": purpose}
        return {"action": "use", "constraint": [said, on("odrl:count", "lteq", most)]}

    document = {
        "@type": "Offer",
        "permission": [rule("research", 5), rule("quality", 5), rule("research", 1)],
        "prohibition": [{"action": "use", "constraint": [on("odrl:count", "gt", 9)]}, {"action": "odrl:distribute"}],
    }
    read = load(document)
    used = {(each.path, COUNT): 1 for each in (*read.permissions, *read.prohibitions)}

    def under(*purposes: str) -> tuple[str, ...]:
        request = Request("did:web:x.example", params={"odrl:purpose": purposes})
        decision = evaluate(read, request, World(NOW, used=used))
        assert decision.permitted
        return charged(decision.case)

    assert under("research") == ("/permission/0", "/prohibition/0"), "the third permission is used up"
    assert under("research", "quality") == ("/permission/0", "/permission/1", "/prohibition/0")


AMOUNTS = st.integers(0, 50) | st.fractions(0, 50, max_denominator=7)


def holds(counter: Counter) -> bool:
    total = counter.used + counter.reserved
    below = total < counter.limit or total == 0  # nothing is no use, also where not even nothing is left open
    return min(counter.used, counter.reserved) >= 0 and (below or (counter.inclusive and total == counter.limit))


@given(st.data(), AMOUNTS, st.booleans())
def test_a_counter_is_never_over(data: st.DataObject, limit: Any, inclusive: bool):
    counter, open_ = Counter(limit, inclusive=inclusive), []
    for _ in range(data.draw(st.integers(0, 20))):
        if open_ and data.draw(st.booleans()):
            amount = open_.pop(data.draw(st.integers(0, len(open_) - 1)))
            spent = data.draw(st.sampled_from([0, amount, Fraction(amount) / 2]))
            before, counter = counter, counter.post(amount, spent) if spent else counter.void(amount)
            assert counter.left == before.left + amount - spent
        else:
            amount = data.draw(AMOUNTS)
            result = counter.reserve(amount)
            if isinstance(result, Refusal):
                assert amount > counter.left or (amount == counter.left and not inclusive), "what fits is not refused"
                assert (result.amount, result.left) == (amount, counter.left)
                continue
            counter = result
            open_.append(amount)
        assert holds(counter)
        assert counter.reserved == sum(open_)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=6), st.randoms())
def test_the_order_of_settling_does_not_matter(reservations: list[tuple[int, bool]], chance: Any):
    def settled(order: list[tuple[int, bool]]) -> Counter:
        counter = Counter(100)
        for amount, _ in order:
            counter = counter.reserve(amount)  # type: ignore[assignment]
        for amount, used in sorted(order, key=lambda _: chance.random()):
            counter = counter.post(amount) if used else counter.void(amount)
        return counter

    assert settled(reservations) == settled(reservations[::-1])


WRONG: list[Callable[[Counter], object]] = [
    lambda c: c.reserve(-1),
    lambda c: c.post(3),
    lambda c: c.post(2, 3),
    lambda c: c.post(2, -1),
    lambda c: c.void(3),
]


@pytest.mark.parametrize("wrong", WRONG)
def test_what_was_not_reserved_cannot_be_settled(wrong: Callable[[Counter], object]):
    with pytest.raises(ValueError, match=r"cannot be posted|is not negative"):
        wrong(Counter(10, reserved=2))
