"""Records that begin in what leaves: the same however it is cut into pieces, and as the standard of events has them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.metering.begun import Begun, Events, Whole, begun


def events_of(stream: bytes) -> list[list[bytes]]:
    """The data of each event, by the standard's own algorithm (WHATWG HTML, 9.2.6): lines first, then fields."""
    found, data = list[list[bytes]](), list[bytes]()
    lines = re.split(rb"\r\n|\n|\r", stream)
    for line in lines[:-1]:  # what has no end of line is none yet
        if not line:
            if data:
                found.append(data)
            data = []
        elif not line.startswith(b":"):
            name, _, value = line.partition(b":")
            if name == b"data":
                data.append(value.removeprefix(b" "))
    return found


def counted(counter: Begun, stream: bytes, sizes: list[int]) -> int:
    total, at = 0, 0
    for size in [*sizes, len(stream)]:
        piece = stream[at : at + size]
        if piece:
            total += counter.count(piece, len(piece))
            counter.take(piece)
        at += len(piece)
    return total


LINE = st.sampled_from([b"data: x", b"data", b"data:", b"dat", b"datax: 1", b"id: 4", b": alive", b"event: data", b"retry: 1", b"", b""])
END = st.sampled_from([b"\n", b"\r", b"\r\n"])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A stream that begins with an event, so that its first block counts in any case."""
    lines = draw(st.lists(st.tuples(LINE, END), max_size=25))
    return b"data: first\n\n" + b"".join(line + end for line, end in lines) + b"\n\n"


@given(streams(), st.lists(st.integers(1, 9), max_size=40))
def test_events_are_those_of_the_standard_whatever_ends_their_lines_and_however_they_are_cut(stream: bytes, sizes: list[int]):
    assert counted(Events(), stream, sizes) == len(events_of(stream))


@given(streams(), st.lists(st.integers(1, 9), max_size=40), st.integers(0, 9))
def test_as_many_leave_as_are_allowed_and_none_is_half_there(stream: bytes, sizes: list[int], most: int):
    counter, left, out, at = Events(), most, b"", 0
    for size in [*sizes, len(stream)]:
        piece = stream[at : at + size]
        at += len(piece)
        if piece:
            end = counter.up_to(piece, len(piece), left)
            if end:
                left -= counter.count(piece, end)
                counter.take(piece[:end])
            out += piece[:end]
            if end < len(piece):
                break
    assert left >= 0
    whole = events_of(stream)
    assert events_of(out + b"\n") == whole[:most] or len(whole) <= most
    assert (len(whole) <= most) == (out == stream)


@given(streams(), st.integers(1, 60))
def test_a_piece_may_be_taken_in_parts_after_it_was_looked_at(stream: bytes, part: int):
    counter, total, rest = Events(), 0, stream
    while rest:
        end = min(part, len(rest))
        total += counter.count(rest, end)
        counter.take(rest[:end])
        rest = rest[end:]
    assert total == len(events_of(stream))


@given(streams(), st.data())
def test_whoever_begins_anywhere_pays_for_every_event_of_which_he_has_data(stream: bytes, data: st.DataObject):
    first = data.draw(st.integers(0, len(stream) - 1))
    rest = stream[first:]
    assert counted(Events(), rest, []) >= len(events_of(rest))
    inside = stream[:first].rstrip(b"\r\n") == stream[:first] and b"data" in re.split(rb"\r\r|\n\n|\r\n\r\n|\n\r\n", stream[:first])[-1]
    if inside and not rest.startswith((b"\r", b"\n")):
        assert counted(Events(), rest, []) >= 1


@pytest.mark.parametrize(("unit", "stream", "count"), [("line", b"a\n\nb", 3), ("message", b": hello\r\rdata\r\r", 2)])
def test_lines_count_when_they_begin_and_so_does_what_a_stream_begins_with(unit: str, stream: bytes, count: int):
    for sizes in ([], [1] * len(stream)):
        counter = begun(unit)
        assert counter is not None
        assert counted(counter, stream, sizes) == count


def test_what_has_no_records_has_no_counter():
    assert begun("none") is None
    assert begun("row") is None


@given(
    st.lists(st.sampled_from([b"data: a\n\n", b"event: x\ndata:\n\n", b"data\n\n"]), max_size=8).map(b"".join), st.lists(st.integers(1, 9))
)
def test_events_in_one_spelling_are_whole_however_they_come(content: bytes, sizes: list[int]):
    whole, at = Whole(), 0
    for size in [*sizes, len(content)]:
        if piece := content[at : at + size]:
            whole.take(piece)
        at += size
    assert whole.holds


@pytest.mark.parametrize(
    "content",
    [
        b"data: a\n",
        b"data: a\n\ndata: b",
        b"\ndata: a\n\n",
        b"data: a\n\n\ndata: b\n\n",
        b"data: a\r\n\r\n",
        b"data: a\n\n: still here\n\ndata: b\n\n",
        b"data: a\n\nid: 7\n\n",
        b"data: a\n\n\n",
    ],
)
@pytest.mark.parametrize("size", [1, 100])
def test_others_are_not(content: bytes, size: int):
    whole = Whole()
    for at in range(0, len(content), size):
        whole.take(content[at : at + size])
    assert not whole.holds
