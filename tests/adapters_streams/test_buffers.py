"""Buffers that are shared: of a bound together, used again, and nobody waits for ever."""

import threading
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
