from hypothesis import given
from hypothesis import strategies as st

from connector.remembered import PAUSE_SECONDS_MAX, SHARE, Paces, Remembered, pause_seconds

COUNT, BYTES = 8, 3_200  # so that one value may have 100 bytes
WHATS = ("put", "get", "forget")
STEPS = st.lists(st.tuples(st.sampled_from([*WHATS, *WHATS, "clear"]), st.integers(0, 12), st.integers(0, 2 * BYTES // SHARE)), max_size=80)


@given(STEPS)
def test_it_is_what_a_plain_list_of_the_values_used_last_would_be(steps: list[tuple[str, int, int]]):
    """The model: a list of (key, size), the one used last at the end, cut at the front until it fits."""
    ours, model = Remembered[int, int](COUNT, BYTES), list[tuple[int, int]]()
    for what, key, size in steps:
        found = next((entry for entry in model if entry[0] == key), None)
        if what == "get":
            assert ours.get(key) == (found[1] if found else None)
        if found:
            model.remove(found)
        match what:
            case "put":
                ours.put(key, size, size)
                model += [(key, size)] if size <= BYTES // SHARE else []
            case "get":
                model += [found] if found else []
            case "forget":
                ours.forget(key)
            case "clear":
                ours.clear()
                model.clear()
        while len(model) > COUNT or sum(size for _, size in model) > BYTES:
            model.pop(0)
        assert (len(ours), ours.size_bytes) == (len(model), sum(size for _, size in model))
    assert [key for key in range(13) if ours.get(key) is not None] == sorted(key for key, _ in model)


def test_many_small_values_and_few_large_ones_stay_within_the_same_bytes():
    for size in (1, 10, 99, 100):
        ours = Remembered[int, str](10_000, BYTES)
        for key in range(5_000):
            ours.put(key, "x", size)
        assert ours.size_bytes <= BYTES
        assert len(ours) == BYTES // size


def test_what_has_grown_too_large_is_not_kept_as_it_was_before():
    ours = Remembered[str, str](COUNT, BYTES)
    ours.put("a", "small", 1)
    ours.put("a", "large", BYTES // SHARE + 1)
    assert ours.get("a") is None
    assert (len(ours), ours.size_bytes) == (0, 0)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 5)), max_size=60))
def test_nobody_is_faster_than_the_pace_and_nobody_slows_down_another(steps: list[tuple[str, float]]):
    paces, now = Paces[str](3, 2.0, 2), 100.0
    times: dict[str, list[float]] = {"a": [], "b": []}
    for who, pause in steps:
        now += pause
        recent = [at for at in times[who] if now - at <= 2.0]
        if paces.take(who, now):
            times[who].append(now)
        else:
            assert recent, "who has paused for one time has one again"
    for each in times.values():
        for at, first in enumerate(each):
            for count, last in enumerate(each[at:], 1):
                assert count <= 3 + (last - first) / 2.0 + 1e-6


def test_of_more_than_can_be_told_apart_the_one_that_was_quiet_for_longest_begins_anew():
    paces = Paces[str](1, 60.0, 2)
    assert [paces.take(who, 1.0) for who in "aabbc"] == [True, False, True, False, True]
    assert [paces.take(who, 2.0) for who in "ba"] == [False, True]


SECONDS, OF_ONE = st.floats(0.001, 86_400.0), st.floats(0.0, 1.0)


@given(st.integers(1, 10_000), SECONDS, SECONDS, OF_ONE, OF_ONE)
def test_a_pause_doubles_up_to_the_longest_and_chance_takes_off_its_share_at_most(
    failures: int, first: float, longest: float, chance: float, spread: float
):
    whole = pause_seconds(failures, first, longest)
    assert pause_seconds(1, first, longest) == min(first, longest)
    assert pause_seconds(failures + 1, first, longest) == min(2 * whole, longest)
    assert pause_seconds(10_000, first, longest) == longest, "it gets there from wherever it begins"
    drawn = pause_seconds(failures, first, longest, chance=chance, spread=spread)
    assert whole * (1 - spread) <= drawn <= whole
    assert pause_seconds(failures, first, longest, chance=1.0, spread=spread) <= drawn, "more chance never waits longer"


def test_what_fails_begins_with_a_second_and_comes_to_five_minutes_unless_somebody_says_otherwise():
    pauses = [pause_seconds(failures) for failures in range(1, 12)]
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, PAUSE_SECONDS_MAX, PAUSE_SECONDS_MAX]
    assert [pause_seconds(9, chance=chance) for chance in (0.0, 0.5, 1.0)] == [256.0, 192.0, 128.0]
