"""What a transfer sets aside of a budget when it starts is there for it until it stops, whatever it holds and spends meanwhile."""

from hypothesis import given
from hypothesis import strategies as st

from connector.records import Reservation, Usage
from connector.records.aside import aside_id, drawn, is_aside, reckoned, set_aside

RULE, EUR, ASIDE, MOST = "/permission/0", "EUR", 1_000, 10_000


def reserved(id: str, transfer: str, amount: int) -> Reservation:
    return Reservation(id, transfer, RULE, EUR, amount, 0.0)


STARTED = Usage("urn:a").reserve((reserved(aside_id("t1"), "t1", ASIDE), reserved(aside_id("t2"), "t2", 77)), 0.0)


@given(st.lists(st.tuples(st.integers(0, 1_500), st.floats(0, 1)), max_size=12))
def test_what_is_set_aside_held_and_spent_is_one_sum_until_all_of_it_is_spent(steps: list[tuple[int, float]]):
    """A holder of a transfer has its portions exchanged: some was spent, the rest is given back, the next is held."""
    usage, held, spent = STARTED, 0, 0
    for amount, share in steps:
        used = int(held * share)
        after = usage.settle("holder", {EUR: used}, 1.0) if held else usage
        after = after.reserve((reserved("holder", "t1", amount),), 1.0) if amount else after
        usage, held, spent = drawn(usage, after, "t1"), amount, spent + used
        aside = set_aside(usage, RULE, EUR, "t1")
        assert aside >= 0
        assert aside + held + spent == max(ASIDE, held + spent), "what it needs to come to its end is there, and no more than that"
        assert usage.reserved(RULE, EUR) == aside + held + 77
        assert set_aside(usage, RULE, EUR, "t2") == 77
        assert usage.spent(RULE, EUR) == spent


@given(st.integers(0, 1_500), st.integers(0, 2_000))
def test_after_a_crash_what_the_rest_costs_is_set_aside_and_all_else_of_it_was_spent(held: int, rest: int):
    usage = drawn(STARTED, STARTED.reserve((reserved("holder", "t1", held),), 1.0), "t1")
    after = reckoned(usage, "t1", {(RULE, EUR): rest, (RULE, "USD"): 5}, 2.0)
    left = min(ASIDE, rest)
    assert (set_aside(after, RULE, EUR, "t1"), after.spent(RULE, EUR)) == (left, ASIDE - left)
    assert after.reserved(RULE, EUR) == left + 77
    assert reckoned(after, "t1", {(RULE, EUR): rest}, 3.0).posted == after.posted, "a second crash spends nothing"


def test_after_a_crash_nothing_changes_of_what_has_no_price():
    usage = STARTED.reserve((reserved("holder", "t1", 5),), 1.0)
    assert reckoned(usage, "t1", {}, 2.0) is usage
    assert reckoned(usage, "t3", {(RULE, EUR): 1}, 2.0) is usage


def test_what_another_transfer_does_takes_nothing_of_it():
    after = STARTED.reserve((reserved("other", "t3", 500),), 1.0)
    assert drawn(STARTED, after, "t3") is after
    assert set_aside(after, RULE, EUR, "t1") == ASIDE
    assert [is_aside(each) for each in after.open] == [True, True, False]


def test_what_was_held_to_the_last_of_it_comes_back_to_it():
    held = drawn(STARTED, STARTED.reserve((reserved("holder", "t1", ASIDE),), 1.0), "t1")
    assert set_aside(held, RULE, EUR, "t1") == 0
    back = drawn(held, held.settle("holder", {EUR: 0}, 2.0), "t1")
    assert set_aside(back, RULE, EUR, "t1") == ASIDE


def test_what_was_held_beyond_it_comes_back_to_everybody_and_it_can_be_given_up_meanwhile():
    """A stream holds for each byte what a record costs, for it has not seen how many there are."""
    held = drawn(STARTED, STARTED.reserve((reserved("holder", "t1", 3 * ASIDE),), 1.0), "t1")
    assert held.reserved(RULE, EUR) == 3 * ASIDE + 77
    back = drawn(held, held.settle("holder", {EUR: ASIDE}, 2.0), "t1")
    assert (back.spent(RULE, EUR), back.reserved(RULE, EUR)) == (ASIDE, 77)
    assert held.settle(aside_id("t1"), {}, 2.0).reserved(RULE, EUR) == 3 * ASIDE + 77
