import pytest

from connector.dataplane.ranges import Asked, read_range
from connector.metering.content import Layout
from connector.metering.spans import Part, Span, read_span

CHUNK = 65_536
LAYOUT = Layout(3 * CHUNK + 10, CHUNK)


@pytest.mark.parametrize(
    "text", ["0-0", "5-9", "5-", "-7", "0-", "65535-65536", "196617-", "196617-999999", "-999999", "196618-", "500000-"]
)
def test_an_order_means_the_bytes_that_http_means(text: str):
    asked, http = read_range(f"bytes={text}", LAYOUT.size_bytes)
    part = read_span(text).of(LAYOUT)
    if asked is Asked.NOTHING:
        assert part is None
    else:
        assert part is not None
        assert (part.begin, part.length) == (http.first, http.length)


@pytest.mark.parametrize(
    "text", ["", "-", "5", "9-5", "-0", "0-1,3-4", "a-b", "bytes 0-1", "items=0-1", "+1-2", "１-２", "9007199254740992-"]
)
def test_what_names_no_byte_is_refused(text: str):
    with pytest.raises(ValueError, match=r"\S"):
        read_span(text)


def test_a_range_has_one_spelling():
    assert [str(read_span(text)) for text in ("bytes=007-9", " 7-9 ", "7-", "-09")] == ["7-9", "7-9", "7-", "-9"]
    assert read_span("7-9") == Span(7, 9)


@pytest.mark.parametrize(
    ("begin", "end", "leaves", "cover"),
    [
        (0, 1, ((1, 2),), (0, CHUNK)),
        (CHUNK - 1, CHUNK + 1, ((1, 3),), (0, 2 * CHUNK)),
        (CHUNK, 2 * CHUNK, ((2, 3),), (CHUNK, 2 * CHUNK)),
        (3 * CHUNK + 9, 3 * CHUNK + 10, ((4, 5),), (3 * CHUNK, 3 * CHUNK + 10)),
        (0, 3 * CHUNK + 10, LAYOUT.whole, (0, 3 * CHUNK + 10)),
    ],
)
def test_the_leaves_that_hold_a_range_are_the_fewest(begin: int, end: int, leaves: object, cover: object):
    part = Part(LAYOUT, begin, end)
    assert (part.leaves, part.cover, part.whole) == (leaves, cover, part.length == LAYOUT.size_bytes)
    assert part.bytes_in(part.leaves) == part.bytes_in(LAYOUT.whole) == part.length


def test_of_no_data_there_is_no_leaf():
    nothing = Layout(0, CHUNK)
    part = Part(nothing, 0, 0)
    assert (part.leaves, part.cover, part.whole, part.bytes_in(())) == ((), (0, 0), True, 0)
    assert Span(0, None).of(nothing) is Span(None, 5).of(nothing) is None
