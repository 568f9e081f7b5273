"""What a transfer sets aside of a budget when it starts is there for it until it stops, whatever it holds and spends meanwhile."""

from hypothesis import given
from hypothesis import strategies as st

from connector.records import Reservation, Usage
from connector.records.aside import TAKEN_MAX, aside_id, balanced, drawn, is_aside, is_taken, reckoned, set_aside, taken_id, taking

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


BEGUN = Usage("urn:a", ((RULE, EUR, 5_000),)).reserve((reserved(aside_id("t1"), "t1", ASIDE), reserved(aside_id("t2"), "t2", 77)), 0.0)
TAKES = BEGUN.reserve((*taking(BEGUN, "t1", [(RULE, EUR)], 0.0), *taking(BEGUN, "t2", [(RULE, EUR)], 0.0)), 0.0)


def takes(usage: Usage, held: int, spent: int | None = None) -> Usage:
    """A holder of the first transfer holds so much, and if it says what was `spent` of it gives back the rest."""
    usage = drawn(usage, usage.reserve((reserved("holder", "t1", held),), 1.0), "t1") if held else usage
    return usage if spent is None or not held else drawn(usage, usage.settle("holder", {EUR: spent}, 1.0), "t1")


@given(st.lists(st.tuples(st.integers(0, 900), st.floats(0, 1)), max_size=5), st.integers(0, 3_000), st.booleans())
def test_what_is_over_has_spent_what_it_was_signed_for_and_until_both_have_signed_no_less_than_it_took(
    steps: list[tuple[int, float]], due: int, agreed: bool
):
    usage, spent = TAKES, 0
    for amount, share in steps:
        usage, spent = takes(usage, amount, int(amount * share)), spent + int(amount * share)
    after = balanced(usage, "t1", {(RULE, EUR): due}, 2.0, agreed=agreed)
    assert after.spent(RULE, EUR) - 5_000 == (due if agreed else max(due, spent))
    assert after.reserved(RULE, EUR) == 77, "nothing of it is set aside any more, and all of the other is"
    last = balanced(after, "t1", {(RULE, EUR): due}, 3.0, agreed=True)
    assert (last.spent(RULE, EUR) - 5_000, [each.transfer for each in last.open]) == (due, ["t2", "t2"])
    assert balanced(last, "t1", {(RULE, EUR): due}, 4.0, agreed=True) is last


@given(st.integers(1, 900), st.lists(st.integers(0, 900), min_size=1, max_size=3), st.booleans())
def test_what_becomes_less_in_steps_goes_back_in_steps(taken: int, dues: list[int], held: bool):
    """Of what was never signed for more and more is signed for by others: each time that goes back, and what is left stays noted."""
    usage = takes(TAKES, taken, taken)
    usage = takes(usage, 50) if held else usage
    for due in sorted(dues, reverse=True):
        after = balanced(usage, "t1", {(RULE, EUR): due}, 2.0, agreed=True, more=True)
        assert balanced(after, "t1", {(RULE, EUR): due}, 3.0, agreed=True, more=True) is after
        noted = next(each.amount for each in after.open if each.id == taken_id("t1"))
        if not held:
            assert (after.spent(RULE, EUR) - 5_000, noted) == (due, -due)
        usage = after
    if held:
        assert usage.spent(RULE, EUR) + usage.reserved(RULE, EUR) - 5_077 >= taken + 50, "it may have left to the last of it"
        usage = drawn(usage, usage.settle("holder", {EUR: 0}, 3.0), "t1")
    last = balanced(usage, "t1", {(RULE, EUR): 0}, 4.0, agreed=True)
    assert (last.spent(RULE, EUR) - 5_000, [each.transfer for each in last.open]) == (0, ["t2", "t2"])


@given(st.integers(1, 1_500), st.floats(0, 1), st.integers(0, 2_000))
def test_what_a_stream_still_holds_goes_back_once_it_is_settled(held: int, share: float, due: int):
    waits = balanced(takes(TAKES, held), "t1", {(RULE, EUR): due}, 2.0, agreed=True)
    assert waits.spent(RULE, EUR) + waits.reserved(RULE, EUR) - 5_077 >= held, "it may have left to the last of it"
    settled = drawn(waits, waits.settle("holder", {EUR: int(held * share)}, 3.0), "t1")
    after = balanced(settled, "t1", {(RULE, EUR): due}, 4.0, agreed=True)
    assert (after.spent(RULE, EUR) - 5_000, after.reserved(RULE, EUR)) == (due, 77)


@given(st.integers(0, 1_500), st.integers(0, 2_000), st.integers(0, 2_000))
def test_after_a_crash_it_is_known_what_a_transfer_has_taken(held: int, rest: int, due: int):
    after = reckoned(takes(TAKES, held), "t1", {(RULE, EUR): rest}, 2.0)
    taken = -next(each.amount for each in after.open if each.id == taken_id("t1"))
    assert taken == after.spent(RULE, EUR) - 5_000
    assert balanced(after, "t1", {(RULE, EUR): due}, 3.0, agreed=True).spent(RULE, EUR) - 5_000 == due


def test_of_what_nobody_can_say_what_is_due_all_that_left_stays_spent():
    after = balanced(takes(TAKES, 500, 300), "t1", {}, 2.0, agreed=True)
    assert (after.spent(RULE, EUR), after.reserved(RULE, EUR), [each.transfer for each in after.open]) == (5_300, 77, ["t2", "t2"])
    many = Usage("urn:a").reserve([each for n in range(TAKEN_MAX) for each in taking(TAKES, f"t{n}", [(RULE, EUR)], 0.0)], 0.0)
    assert all(map(is_taken, many.open))
    assert taking(many, "one more", [(RULE, EUR)], 0.0) == ()
