"""Whole records become the same leaves, whoever hashes them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.dataplane_live.sealing import SHARE, at_most, sealed
from connector.errors import SinkFailed
from connector.lanes import hashing
from connector.metering.content import CHUNK_BYTES, Leaf
from tests.lanes.compiled import by_lanes

BATCH = (b"x" * 1023 + b"\n") * (8 * CHUNK_BYTES // 1024)


@pytest.fixture
def two() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as beside:
        yield beside


class Full(Executor):
    """A system that starts no more threads."""

    def submit(self, work: Callable[..., object], /, *_: object, **__: object) -> Future[object]:  # type: ignore[override]
        raise RuntimeError("can't start new thread")


def nothing() -> None:
    """There is nothing to write."""


def hashed(data: bytes) -> bytes:
    return hashlib.sha256(b"\0" + data).digest()


@given(
    sizes=st.lists(st.sampled_from([1, 700, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1]), min_size=1, max_size=6),
    before=st.sampled_from([b"", b"\n"]),
)
def test_two_threads_come_to_the_leaves_of_one(sizes: list[int], before: bytes) -> None:
    data = b"".join(b"d" * (size - 1) + b"\n" for size in sizes)
    alone = sealed(data, "line", before, nothing)
    with ThreadPoolExecutor(1) as beside:
        assert sealed(data, "line", before, nothing, beside) == alone
    at = 0
    for leaf in alone:
        assert leaf.hash == hashed(data[at : at + leaf.length])
        at += leaf.length
    assert at == len(data)
    assert sum(leaf.records for leaf in alone) == len(sizes)


def test_leaves_that_are_hashed_many_at_a_time_keep_their_places(two: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "HASHING", by_lanes())
    lines = [b"%d " % n * (1000 + n % 7) + b"\n" for n in range(40)]
    leaves = sealed(b"".join(lines), "line", b"", nothing, two, leaf_bytes=1)
    assert leaves == [Leaf(hashed(line), len(line), 1) for line in lines]


def test_an_event_whose_empty_line_begins_a_leaf_is_counted_by_what_stands_before() -> None:
    assert [leaf.records for leaf in sealed(b"\ndata: 1\n\n", "message", b"\n", nothing)] == [2]
    assert [leaf.records for leaf in sealed(b"\ndata: 1\n\n", "message", b"", nothing)] == [1]


def test_another_thread_hashes_while_this_one_writes(two: ThreadPoolExecutor) -> None:
    begun = threading.Event()

    def write() -> None:
        assert begun.wait(10)  # nobody but the other thread says so

    class Seen(Executor):
        def submit(self, work: Callable[..., None], /, *_: object, **__: object) -> Future[None]:  # type: ignore[override]
            def run() -> None:
                begun.set()
                work()

            return two.submit(run)

    assert len(sealed(BATCH, "line", b"", write, Seen())) == 8


def test_where_no_thread_is_free_one_does_all_of_it(two: ThreadPoolExecutor) -> None:
    alone, free = sealed(BATCH, "line", b"", nothing), threading.Event()
    busy = two.submit(free.wait, 10)
    try:
        assert sealed(BATCH, "line", b"", nothing, two) == alone
        assert not busy.done()  # it was not waited for
    finally:
        free.set()
    assert sealed(BATCH, "line", b"", nothing, Full()) == alone


def test_a_disk_that_takes_nothing_is_what_the_caller_hears_of(two: ThreadPoolExecutor) -> None:
    def full() -> None:
        raise SinkFailed("no room")

    with pytest.raises(SinkFailed, match="no room"):
        sealed(BATCH, "line", b"", full, two)
    assert two.submit(list[Leaf]).result(10) == []  # the other thread is free again


@given(st.integers(0, 1 << 45))
def test_where_leaves_are_small_the_last_one_is_a_small_part_and_a_long_log_has_no_more_than_it_needs(log_bytes: int) -> None:
    size = at_most(1024, log_bytes)
    assert 1024 <= size <= CHUNK_BYTES
    assert size == 1024 or size <= log_bytes / SHARE
    assert size == CHUNK_BYTES or log_bytes < SHARE * CHUNK_BYTES
    assert at_most(CHUNK_BYTES, log_bytes) == CHUNK_BYTES
