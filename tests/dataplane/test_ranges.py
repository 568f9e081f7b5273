"""Against the tables of RFC 9110 and RFC 9530, and against references that are too simple to be wrong."""

import base64
import hashlib
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.dataplane.ranges import (
    Asked,
    Plan,
    Span,
    plan,
    read_content_range,
    read_range,
    read_repr_digest,
    strong,
    write_repr_digest,
)
from connector.errors import RangeNotSatisfiable

ETAG = '"xyzzy"'
SIZE = 10_000  # the representation of the examples of RFC 9110, 14.1.2

# `Range` -> (status, `Content-Range`), for 10,000 bytes.
EXAMPLES = {
    # RFC 9110, 14.1.2
    "bytes=0-499": (206, "bytes 0-499/10000"),
    "bytes=500-999": (206, "bytes 500-999/10000"),
    "bytes=-500": (206, "bytes 9500-9999/10000"),
    "bytes=9500-": (206, "bytes 9500-9999/10000"),
    "bytes=0-0": (206, "bytes 0-0/10000"),
    "bytes=9999-": (206, "bytes 9999-9999/10000"),
    "bytes=-1": (206, "bytes 9999-9999/10000"),
    "bytes=0-": (206, "bytes 0-9999/10000"),
    # a last position that is absent or lies outside means the remainder
    "bytes=9000-10000": (206, "bytes 9000-9999/10000"),
    "bytes=9000-99999999999999999999999": (206, "bytes 9000-9999/10000"),
    # a suffix longer than the representation means all of it
    "bytes=-10001": (206, "bytes 0-9999/10000"),
    "bytes=-99999999999999999999999": (206, "bytes 0-9999/10000"),
    # range units are case-insensitive (14.1); white space is no reason to send more than was asked for
    "Bytes=0-1": (206, "bytes 0-1/10000"),
    "BYTES=0-1": (206, "bytes 0-1/10000"),
    " bytes= 0-1 ": (206, "bytes 0-1/10000"),
    # digits have no fixed number, and zeros before them mean nothing
    "bytes=007-0009": (206, "bytes 7-9/10000"),
    "bytes=0000000000000000000000-0000000000000000000004": (206, "bytes 0-4/10000"),
    "bytes=-0000000000000000000000002": (206, "bytes 9998-9999/10000"),
    # not satisfiable (14.1.2): the first position is not less than the length, or the suffix is empty
    "bytes=10000-": (416, "bytes */10000"),
    "bytes=10000-10001": (416, "bytes */10000"),
    "bytes=99999999999999999999999-": (416, "bytes */10000"),
    "bytes=-0": (416, "bytes */10000"),
    "bytes=-000000000000000000000000": (416, "bytes */10000"),
    # invalid, of an unknown unit, or several: answered with the whole (14.2)
    "bytes=5-2": (200, None),
    "bytes=-": (200, None),
    "bytes=": (200, None),
    "bytes": (200, None),
    "": (200, None),
    "bytes=a-b": (200, None),
    "bytes=1-b": (200, None),
    "bytes=0x1-0x2": (200, None),
    "bytes=+1-2": (200, None),
    "bytes=1.0-2": (200, None),
    "bytes=1_0-2_0": (200, None),
    "bytes=\u0661-\u0662": (200, None),
    "bytes=1 - 2": (200, None),
    "bytes=--5": (200, None),
    "bytes:0-5": (200, None),
    "items=0-5": (200, None),
    "0-5": (200, None),
    "bytes=0-0,-1": (200, None),
    "bytes=500-600,601-999": (200, None),
    "bytes=20000-,30000-": (200, None),
}


@pytest.mark.parametrize(("asked", "status", "content_range"), [(asked, *answer) for asked, answer in EXAMPLES.items()])
def test_a_range_is_answered_as_the_rfc_says(asked: str, status: int, content_range: str | None):
    if status == 416:
        with pytest.raises(RangeNotSatisfiable) as refused:
            plan(SIZE, ETAG, range_=asked)
        assert f"bytes */{refused.value.size_bytes}" == content_range
        return
    planned = plan(SIZE, ETAG, range_=asked)
    assert planned.status == status
    assert planned.span.content_range == content_range if status == 206 else planned.span.whole


@given(
    st.integers(0, 60),
    st.none() | st.integers(0, 70) | st.integers(0, 10**30),
    st.none() | st.integers(0, 70) | st.integers(0, 10**30),
    st.integers(0, 25),
    st.integers(0, 25),
)
def test_one_range_gives_exactly_the_bytes_that_its_two_numbers_mean(
    size: int, first: int | None, last: int | None, zeros: int, more_zeros: int
):
    text = ["" if number is None else "0" * count + str(number) for number, count in ((first, zeros), (last, more_zeros))]
    if first is not None:
        wanted = [at for at in range(size) if at >= first and (last is None or at <= last)]
        satisfiable, valid = first < size, last is None or last >= first
    else:
        wanted = [at for at in range(size) if last is not None and at >= size - last]
        satisfiable, valid = last != 0, last is not None
    asked, span = read_range(f"bytes={text[0]}-{text[1]}", size)
    if not valid:
        assert (asked, span) == (Asked.WHOLE, Span(0, size, size))
    elif not satisfiable:
        assert asked is Asked.NOTHING
    elif not wanted:  # an empty file's last bytes: satisfiable, but no Content-Range can say so
        assert (asked, span) == (Asked.WHOLE, Span(0, 0, 0))
    else:
        assert asked is Asked.PART
        assert list(range(span.first, span.first + span.length)) == wanted
        assert read_content_range(span.content_range) == (wanted[0], len(wanted), size)


@given(st.text() | st.from_regex(r"bytes=[-0-9, ]*", fullmatch=True), st.integers(0, 20))
def test_no_text_in_a_range_header_does_more_than_be_ignored_or_lie_outside(text: str, size: int):
    try:
        planned = plan(size, ETAG, range_=text)
    except RangeNotSatisfiable:
        assert read_range(text, size)[0] is Asked.NOTHING
        return
    assert planned.status in (200, 206)
    assert 0 <= planned.span.first <= planned.span.first + planned.span.length <= size
    assert planned.status == 206 or planned.span.whole


def test_an_absent_range_is_the_whole_even_of_nothing():
    assert plan(SIZE, ETAG) == Plan(200, Span(0, SIZE, SIZE))
    assert plan(0, ETAG) == Plan(200, Span(0, 0, 0))


@pytest.mark.parametrize("asked", ["bytes=0-", "bytes=0-0", "bytes=-0"])
def test_nothing_has_no_first_byte(asked: str):
    with pytest.raises(RangeNotSatisfiable):
        plan(0, ETAG, range_=asked)


@dataclass(frozen=True)
class Tag:
    weak: bool
    opaque: str

    def __str__(self) -> str:
        return f'{"W/" if self.weak else ""}"{self.opaque}"'


OPAQUE = st.sampled_from(["xyzzy", "other", "", "a,b", "W/", "*", "\xff"])
TAGS = st.builds(Tag, st.booleans(), OPAQUE)
LISTS = st.none() | st.just("*") | st.lists(TAGS, min_size=1, max_size=4)
RANGE_CASES = st.sampled_from([None, "bytes=2-5", "bytes=99-", "bytes=7-3", "bytes=0-1,3-4"])


def written(tags: list[Tag] | str | None, separator: str) -> str | None:
    return separator.join(map(str, tags)) if isinstance(tags, list) else tags


@given(LISTS, LISTS, st.none() | TAGS | st.just("Wed, 25 Nov 2026 12:00:00 GMT"), RANGE_CASES, st.sampled_from([", ", ",", " ,\t"]))
def test_preconditions_are_judged_in_the_order_of_13_2_2(
    match: list[Tag] | str | None, none_match: list[Tag] | str | None, if_range: Tag | str | None, range_: str | None, separator: str
):
    def expected() -> int:
        ours = Tag(False, "xyzzy")
        # Step 1: If-Match by the strong comparison (13.1.1).
        if match is not None and match != "*" and ours not in match:
            return 412
        # Step 3: If-None-Match by the weak comparison (13.1.2); for GET and HEAD the answer is 304.
        if none_match is not None and (none_match == "*" or "xyzzy" in [tag.opaque for tag in none_match]):
            return 304
        # Step 5: Range, if If-Range holds by the strong comparison (13.1.5); without a date of ours a date never does.
        if range_ is None or (if_range is not None and if_range != ours):
            return 200
        return {"bytes=2-5": 206, "bytes=99-": 416}.get(range_, 200)

    headers = {
        "range_": range_,
        "if_range": None if if_range is None else str(if_range),
        "if_match": written(match, separator),
        "if_none_match": written(none_match, separator),
    }
    try:
        planned = plan(10, ETAG, **headers)
    except RangeNotSatisfiable:
        assert expected() == 416
        return
    assert planned.status == expected()
    assert planned.span == (Span(2, 4, 10) if planned.status == 206 else Span(0, 10, 10))


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        # The comparison table of RFC 9110, 8.8.3.2, with ours being "1".
        ({"if_match": 'W/"1"'}, 412),
        ({"if_match": 'W/"2"'}, 412),
        ({"if_match": '"1"'}, 200),
        ({"if_match": '"2"'}, 412),
        ({"if_none_match": 'W/"1"'}, 304),
        ({"if_none_match": 'W/"2"'}, 200),
        ({"if_none_match": '"1"'}, 304),
        ({"if_none_match": '"2"'}, 200),
        # What is no entity tag matches none.
        ({"if_match": "1"}, 412),
        ({"if_match": ""}, 412),
        ({"if_match": "'1'"}, 412),
        ({"if_none_match": "1"}, 200),
        ({"if_match": 'w/"1"'}, 412),
        ({"if_match": '"2""1"'}, 412),
        ({"if_none_match": '"2" "1"'}, 200),
    ],
)
def test_entity_tags_compare_as_the_table_of_8_8_3_2_says(condition: dict[str, str], status: int):
    assert plan(10, '"1"', **condition).status == status


@pytest.mark.parametrize("validator", ['W/"xyzzy"', "xyzzy", '"xyzz"', '"xyzzy", "xyzzy"', "*", "", "Wed, 25 Nov 2026 12:00:00 GMT"])
def test_a_part_is_sent_only_to_who_holds_the_strong_tag_of_this_representation(validator: str):
    assert plan(10, ETAG, range_="bytes=2-5", if_range=ETAG).status == 206
    assert plan(10, ETAG, range_="bytes=2-5", if_range=validator) == Plan(200, Span(0, 10, 10))
    # 13.1.5: a range that lies outside of changed data is no error, for it addresses what is no more.
    assert plan(10, ETAG, range_="bytes=99-", if_range=validator).status == 200


@given(st.text(st.characters(codec="latin-1", exclude_characters='"\x7f', min_codepoint=0x21), max_size=20))
def test_a_strong_tag_is_read_with_its_quotes_and_a_weak_one_is_none(opaque: str):
    assert strong(f' "{opaque}"\t') == strong(f'"{opaque}"') == f'"{opaque}"'
    assert strong(f'W/"{opaque}"') is None
    assert strong(opaque) is None


@pytest.mark.parametrize("text", [None, "", '"', '"a', 'a"', '"a""b"', '"a", "b"', '"a b"', '"a\x7f"', '"a\n"', "*", 'w/"a"'])
def test_what_is_no_strong_tag_is_none(text: str | None):
    assert strong(text) is None


@given(st.binary(max_size=64))
def test_a_digest_that_was_written_is_read(content: bytes):
    digest = hashlib.sha256(content).digest()
    value = write_repr_digest(digest)
    assert value == f"sha-256=:{base64.b64encode(digest).decode()}:"
    assert read_repr_digest(value) == digest
    assert read_repr_digest(f"sha-512=:{base64.b64encode(bytes(64)).decode()}:, {value}") == digest
    assert read_repr_digest(f"{value},unixsum=:MTIzNA==:") == digest
    assert read_repr_digest(f"{value};q=1") == digest


A, B = (base64.b64encode(bytes([byte]) * 32).decode() for byte in b"ab")


@pytest.mark.parametrize(
    ("value", "digest"),
    [
        (f"sha-256=:{A}:, sha-256=:{B}:", b"b" * 32),  # RFC 8941, 3.2: the last one of a name counts
        (f"x-sha-256=:{A}:", None),
        (f"sha-2567=:{A}:", None),
        (f"SHA-256=:{A}:", None),  # keys are lower-case
        (f"sha-256={A}", None),
        (f"sha-256=:{A}", None),
        (f"sha-256=:{A[:-4]}:", None),
        (f"sha-256=:{A}{A}:", None),
        ("sha-256=::", None),
        ("sha-256=:=:", None),
        ("sha-256=:a:", None),
        (f"sha-512=:{A}:", None),
        ("", None),
        (None, None),
    ],
)
def test_a_digest_is_taken_from_the_dictionary_of_rfc_9530_or_not_at_all(value: str | None, digest: bytes | None):
    assert read_repr_digest(value) == digest


def test_the_digest_of_the_rfc_is_read():
    # RFC 9530, appendix B.1: {"hello": "world"} and a line end.
    value = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
    assert read_repr_digest(value) == hashlib.sha256(b'{"hello": "world"}\n').digest()


@given(st.text())
def test_no_text_breaks_a_reader(text: str):
    for read in (read_repr_digest, read_content_range, strong):
        assert read(text) is None or read(text)


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("bytes 42-1233/1234", (42, 1192, 1234)),  # RFC 9110, 14.4
        ("bytes 42-1233/*", (42, 1192, None)),
        (" Bytes 0-0/1 ", (0, 1, 1)),
        ("bytes */1234", None),
        ("bytes 5-4/10", None),
        ("bytes 0-10/10", None),
        ("bytes 0-9/0", None),
        ("bytes=0-9/10", None),
        ("bytes 0-9", None),
        ("items 0-9/10", None),
        ("bytes -9/10", None),
        ("bytes 0-1111111111111111111/*", None),
        ("", None),
    ],
)
def test_a_content_range_is_read_or_makes_no_sense(value: str, read: tuple[int, int, int | None] | None):
    assert read_content_range(value) == read
