"""Buffers that are shared: of a bound together, used again, and nobody waits for ever."""

from __future__ import annotations

import threading
import tracemalloc
from contextlib import ExitStack

from connector.adapters_streams.buffers import Buffers

WAIT_SECONDS = 30.0


def test_what_came_back_is_used_again_if_it_is_long_enough():
    buffers = Buffers(10)
    with buffers.lent(4) as first:
        assert len(first) == 4
    with buffers.lent(3) as again:
        assert again is first
    with buffers.lent(5) as longer:
        assert len(longer) == 5
    buffers.let_go()
    with buffers.lent(5) as anew:
        assert anew is not longer


def test_two_never_have_the_same_and_whoever_would_have_too_much_waits_until_one_comes_back():
    buffers, has = Buffers(10, WAIT_SECONDS), threading.Event()

    def another() -> None:
        with buffers.lent(4):
            has.set()

    with buffers.lent(6) as one:
        with buffers.lent(4) as two:
            assert one is not two
            thread = threading.Thread(target=another)
            thread.start()
            assert not has.wait(0.05)
        assert has.wait(WAIT_SECONDS)
    thread.join()


class Asked(int):
    """So many bytes; `looked` says that somebody looked whether there is room for them."""

    def __init__(self, _bytes: int) -> None:
        self.looked = threading.Event()

    def __radd__(self, other: int) -> int:
        self.looked.set()
        return int(self) + other


def test_who_wants_much_has_it_before_whoever_asks_later_and_would_be_content_with_little():
    buffers, had = Buffers(10, WAIT_SECONDS), list[int]()

    def take(length: int) -> None:
        with buffers.lent(length):
            had.append(length)

    much = Asked(10)
    threads = [threading.Thread(target=take, args=(length,)) for length in (much, 1)]
    with buffers.lent(6):
        threads[0].start()
        assert much.looked.wait(WAIT_SECONDS)
        threads[1].start()
        threads[1].join(0.05)
        assert not had
    for thread in threads:
        thread.join()
    assert had == [10, 1]


def test_what_is_kept_for_later_makes_room_for_what_is_lent():
    buffers = Buffers(10_000_000)
    tracemalloc.start()
    try:
        with buffers.lent(5_000_000), buffers.lent(5_000_000):
            pass
        with buffers.lent(10_000_000):
            assert tracemalloc.get_traced_memory()[0] < 11_000_000
    finally:
        tracemalloc.stop()


def test_one_that_is_larger_than_all_may_be_is_lent_alone():
    with Buffers(10).lent(11) as buffer:
        assert len(buffer) == 11


def test_where_nothing_comes_back_nobody_waits_for_ever_and_what_was_too_much_is_not_kept():
    buffers = Buffers(10, 0.01)
    with ExitStack() as stack:
        made = [stack.enter_context(buffers.lent(6)) for _ in range(3)]
        assert len({id(each) for each in made}) == 3
    with buffers.lent(1) as one, buffers.lent(1) as other:
        assert [len(each) for each in (one, other)] == [6, 1]
