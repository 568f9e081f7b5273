import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import TooMany
from connector.signatures.used import BUCKET_SECONDS, UsedIds

BIO = "did:web:bio.example"


def test_used_ids_are_forgotten_when_their_tokens_have_ended():
    used = UsedIds()
    for second in range(3600):
        assert used.take(BIO, f"j{second}", second + 90.0, float(second))
        assert len(used) <= 90 + 31
    assert used.take(BIO, "j0", 5000.0, 4000.0)
    assert len(used) == 1


def test_an_issuer_with_more_ids_than_its_part_is_refused_until_others_end():
    used = UsedIds(capacity=4)
    assert used.take(BIO, "a", 100.0, 0.0)
    assert used.take(BIO, "b", 100.0, 0.0)
    assert not used.take(BIO, "b", 100.0, 0.0)
    with pytest.raises(TooMany, match="of yours") as refused:
        used.take(BIO, "c", 100.0, 0.0)
    assert refused.value.retry_seconds == BUCKET_SECONDS
    assert not used.take(BIO, "a", 100.0, 0.0), "what was used stays used"
    assert used.take(BIO, "c", 300.0, 200.0)


def test_no_issuer_is_refused_because_of_another():
    used, capacity = UsedIds(capacity=1_000), 1_000
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
    used, now, alive = UsedIds(), 0.0, dict[tuple[str, int], float]()
    for issuer, number, life, pause in calls:
        now += pause
        key, ends = (issuer, number), now + life
        new = used.take(issuer, f"j{number}", ends, now)
        assert new or key in alive
        assert not (new and alive.get(key, -1.0) >= now)
        if new:
            alive[key] = ends
    assert sum(ends >= now for ends in alive.values()) <= len(used) <= len(calls)
