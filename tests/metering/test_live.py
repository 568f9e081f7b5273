import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.metering import live
from connector.metering.content import CHUNK_BYTES, CHUNKS_BYTES, write_bytes

CHUNK = 64
LINES = st.lists(st.binary(max_size=150).map(lambda line: line.replace(b"\n", b".") + b"\n"), max_size=40)
EVENTS = st.lists(st.binary(min_size=1, max_size=150).map(lambda text: b"data:" + text.replace(b"\n", b".") + b"\n\n"), max_size=40)


def counted(data: bytes, unit: str) -> list[int]:
    return [live.records(data, unit, first, end, data[first - 1 : first] if first else b"") for first, end in live.cut(data, unit, CHUNK)]


@given(LINES | EVENTS, st.sampled_from(["none", "line", "message"]))
def test_leaves_are_all_of_the_data_in_order_and_none_is_empty_or_larger_than_a_chunk(records: list[bytes], unit: str):
    data = b"".join(records)
    leaves = list(live.cut(data, unit, CHUNK))
    assert b"".join(data[first:end] for first, end in leaves) == data
    assert all(0 < end - first <= CHUNK for first, end in leaves)


@pytest.mark.parametrize(("unit", "records"), [("line", LINES), ("message", EVENTS)])
def test_every_record_counts_once_wherever_leaves_end(unit: str, records: st.SearchStrategy[list[bytes]]):
    @given(records)
    def check(given_records: list[bytes]) -> None:
        assert sum(counted(b"".join(given_records), unit)) == len(given_records)

    check()


@given(LINES)
def test_a_leaf_ends_within_a_record_only_if_that_is_larger_than_a_chunk(records: list[bytes]):
    data = b"".join(records)
    for first, end in live.cut(data, "line", CHUNK):
        assert data[end - 1 : end] == b"\n" or b"\n" not in data[first:end]


def test_an_event_whose_empty_line_begins_a_leaf_counts_there():
    data = b"data:" + b"x" * (CHUNK - 6) + b"\n\n" + b"data:y\n\n"
    assert list(live.cut(data, "message", CHUNK)) == [(0, CHUNK), (CHUNK, len(data))]
    assert counted(data, "message") == [0, 2]


def test_data_without_records_have_none_and_fill_their_chunks():
    data = random.Random(1).randbytes(3 * CHUNK + 1)
    assert [end - first for first, end in live.cut(data, "none", CHUNK)] == [CHUNK, CHUNK, CHUNK, 1]
    assert counted(data, "none") == [0, 0, 0, 0]


@given(st.binary(min_size=32, max_size=32), st.sampled_from(CHUNKS_BYTES))
def test_a_tag_comes_back_as_what_it_was_made_of(name: bytes, chunk_bytes: int):
    assert live.read_etag(live.write_etag(name, chunk_bytes)) == (name, chunk_bytes)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        '"l.x.262144"',
        f'"r.{write_bytes(bytes(32))}.{CHUNK_BYTES}"',
        f'W/"l.{write_bytes(bytes(32))}.{CHUNK_BYTES}"',
        f'"l.{write_bytes(bytes(32))}.100000"',
        f'"l.{write_bytes(bytes(32))[:-1]}B.{CHUNK_BYTES}"',
        json.dumps(f"l.{write_bytes(bytes(31))}.{CHUNK_BYTES}"),
    ],
)
def test_nothing_else_is_a_tag_of_live_data(value: str | None):
    assert live.read_etag(value) is None
