import itertools
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.errors import TooMany
from connector.signatures.used import BUCKET_SECONDS, PAST_SECONDS, PAST_SHARE, UsedIds

BIO = "did:web:bio.example"


class Clocks:
    """The one on the wall, which is set, and the machine's own."""

    def __init__(self) -> None:
        self.now = self.steady = 0.0

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.steady += seconds

    def used(self, capacity: int = 1_000) -> UsedIds:
        return UsedIds(lambda: self.steady, capacity)


def test_used_ids_are_forgotten_when_their_tokens_have_ended():
    clocks = Clocks()
    used = clocks.used(800)
    for second in range(3600):
        assert used.take(BIO, f"j{second}", second + 90.0, float(second))
        assert len(used) <= 90 + 31
        assert used._past_total <= 800 // PAST_SHARE
        clocks.passes(1.0)
    clocks.passes(400.0)
    assert used.take(BIO, "j0", 5000.0, 4000.0)
    assert len(used) == 1


@settings(max_examples=30)
@given(
    st.integers(1, 300),
    st.lists(st.tuples(st.integers(-100_000, 100_000), st.integers(0, 20_000)), max_size=8),
    st.integers(-600, 600),
)
def test_an_id_is_known_whenever_its_token_counts_again_however_the_clock_was_set(life: int, sets: list[tuple[int, int]], within: int):
    clocks = Clocks()
    used = clocks.used()
    assert used.take(BIO, "once", float(life), 0.0)
    for number, (ahead, lasts) in enumerate(sets):
        clocks.now += ahead
        assert used.take(BIO, f"other {number}", clocks.now + 60, clocks.now)
        clocks.passes(min(lasts, PAST_SECONDS / 10))
        assert used.take(BIO, f"more {number}", clocks.now + 60, clocks.now)
    clocks.now = life - within  # whatever it is by the clock on the wall
    assert not used.take(BIO, "once", float(life), clocks.now)


def test_what_has_ended_is_kept_as_far_as_there_is_room_and_for_a_day():
    clocks = Clocks()
    used = clocks.used(40)
    for number in range(12):
        assert used.take(BIO, f"{number}", clocks.now + 10, clocks.now)
        clocks.passes(100.0)
    clocks.now = 0.0
    assert not used.take(BIO, "11", 1110.0, 1100.0), "the last ten ended last"
    assert used.take(BIO, "0", 10.0, 0.0), "the first one had to give way"
    clocks.now = clocks.steady
    clocks.passes(PAST_SECONDS + 100.0)
    assert used.take(BIO, "late", clocks.now + 10, clocks.now)
    assert used._past_total == 0
    assert len(used) == 1


def test_what_has_ended_is_told_apart_by_issuer_and_costs_little_however_many_they_are():
    clocks, issuers, times = Clocks(), 40, 50
    used = clocks.used(issuers * times * PAST_SHARE + 4 * issuers)
    tracemalloc.start()
    for number in range(times):
        for issuer in range(issuers):
            assert used.take(f"{BIO}:{issuer}", f"{number}", clocks.now + 10, clocks.now)
        clocks.passes(60.0)
    size_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used._past_total >= issuers * (times - 1)
    assert size_bytes < 200 * issuers * times
    at = clocks.now - 120.0
    assert not used.take(f"{BIO}:1", f"{times - 2}", at + 10, at)
    assert used.take(f"{BIO}:{issuers}", f"{times - 2}", at + 10, at)


def test_an_issuer_with_more_ids_than_its_part_is_refused_until_others_end():
    clocks = Clocks()
    used = clocks.used(4)
    assert used.take(BIO, "a", 100.0, 0.0)
    assert used.take(BIO, "b", 100.0, 0.0)
    assert not used.take(BIO, "b", 100.0, 0.0)
    with pytest.raises(TooMany, match="of yours") as refused:
        used.take(BIO, "c", 100.0, 0.0)
    assert refused.value.retry_seconds == BUCKET_SECONDS
    assert not used.take(BIO, "a", 100.0, 0.0), "what was used stays used"
    with pytest.raises(TooMany):
        used.take(BIO, "c", 300.0, 200.0)
    clocks.passes(200.0)
    assert used.take(BIO, "c", 300.0, 200.0)


def test_no_issuer_is_refused_because_of_another():
    used, capacity = Clocks().used(1_000), 1_000
    taken = {name: filled(used, name) for name in ("greedy", "too", "modest", "late", "later")}
    assert taken == {"greedy": capacity // 2, "too": capacity // 2, "modest": capacity // 3, "late": capacity // 4, "later": capacity // 5}


def filled(used: UsedIds, issuer: str) -> int:
    """How many ids an issuer may use at once."""
    for number in itertools.count():
        try:
            assert used.take(issuer, str(number), 100.0, 0.0)
        except TooMany:
            return number
    raise AssertionError("unreachable")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(1, 300), st.integers(0, 40)), max_size=60))
def test_an_id_is_new_once_while_its_token_lives(calls: list[tuple[str, int, int, int]]):
    clocks, alive = Clocks(), dict[tuple[str, int], float]()
    used = clocks.used()
    for issuer, number, life, pause in calls:
        clocks.passes(pause)
        now = clocks.now
        key, ends = (issuer, number), now + life
        new = used.take(issuer, f"j{number}", ends, now)
        assert new or key in alive
        assert not (new and alive.get(key, -1.0) >= now)
        if new:
            alive[key] = ends
    assert sum(ends >= clocks.now for ends in alive.values()) <= len(used) <= len(calls)
