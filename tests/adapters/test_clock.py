"""Time and ids by the system."""

import time
from uuid import RFC_4122, UUID

from connector.adapters.clock import SystemClock, TimeOrderedIds


def test_now_is_the_systems_time():
    before = time.time()
    assert before <= SystemClock().now() <= time.time()


def test_an_id_is_a_uuid_of_version_7_made_now():
    before = time.time_ns() // 1_000_000
    text = TimeOrderedIds().new()
    after = time.time_ns() // 1_000_000
    assert text.startswith("urn:uuid:")
    uuid = UUID(text)
    assert (uuid.version, uuid.variant) == (7, RFC_4122)
    assert before <= uuid.int >> 80 <= after
    assert text == uuid.urn


def test_ids_are_ordered_by_the_millisecond_of_their_making():
    ids = [TimeOrderedIds().new() for _ in range(5000)]
    assert len(set(ids)) == 5000
    instants = [UUID(id).int >> 80 for id in ids]
    assert instants == sorted(instants)
    assert sorted(ids, key=lambda id: UUID(id).int >> 80) == ids


def test_every_bit_that_may_be_random_is():
    numbers = [UUID(TimeOrderedIds().new()).int for _ in range(400)]
    ones = zeros = 0
    for number in numbers:
        ones, zeros = ones | number, zeros | ~number
    random = (((1 << 12) - 1) << 64) | ((1 << 62) - 1)
    assert ones & random == random
    assert zeros & random == random
