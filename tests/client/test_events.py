"""The event stream: pieces of any size become the same events."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.client.events import LINE_BYTES, EventReader
from connector.client.views import Event, Pull
from tests.fake_connector import event, moving, pull_view

STREAM = (
    b": from here\n\n"
    + event(7, "message-sent", pid="p", state="REQUESTED")
    + moving(pull_view("download", received_bytes=5))
    + event(9, "pull")
)


def test_a_stream_becomes_events_and_moving_pulls():
    reader = EventReader()
    first, pull, second = reader.feed(STREAM)
    assert isinstance(first, Event)
    assert (first.sequence, first.what, first.pid, first.state) == (7, "message-sent", "p", "REQUESTED")
    assert isinstance(pull, Pull)
    assert pull.received_bytes == 5
    assert isinstance(second, Event)
    assert reader.last == 9


@given(st.lists(st.integers(1, len(STREAM) - 1), max_size=12))
def test_where_the_stream_is_cut_into_pieces_makes_no_difference(cuts: list[int]):
    edges = [0, *sorted(cuts), len(STREAM)]
    reader = EventReader()
    events = [found for start, end in pairwise(edges) for found in reader.feed(STREAM[start:end])]
    assert events == EventReader().feed(STREAM)


def test_lines_may_end_with_carriage_returns_and_data_may_have_several_lines():
    data = json.dumps({"sequence": 3, "what": "x", "at": 1.0}, indent=1).replace("\n", "\r\ndata: ")
    assert EventReader().feed(f"id: 3\r\ndata: {data}\r\n\r\n".encode()) == [Event(3, "x", at=1.0)]


def test_an_event_without_its_end_is_not_taken():
    reader = EventReader(last=4)
    assert reader.feed(event(5, "pull")[:-1]) == []
    assert reader.last == 4


def test_a_line_without_end_is_refused():
    with pytest.raises(ValueError, match="a line of more than"):
        EventReader().feed(b"data: " + b"x" * (LINE_BYTES + 1))
