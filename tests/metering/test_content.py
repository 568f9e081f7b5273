import hashlib
from typing import Any

import orjson
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import MeterRefused
from connector.metering.content import (
    CHUNK_BYTES,
    CHUNKS_BYTES,
    SIZE_MAX,
    Header,
    Known,
    Layout,
    Sealed,
    digest_of,
    digest_of_json,
    feeds,
    read_bytes,
    read_etag,
    read_header,
    read_sealed,
    records_in,
    records_of,
    write_bytes,
    write_etag,
)
from connector.metering.ranges import union
from connector.values import replace

HEADER = Header(CHUNK_BYTES, 1_000_000, "application/x-ndjson", "line", bytes(range(32)))
CHUNK = CHUNKS_BYTES[0]


def test_the_header_is_jcs_json_and_leaf_0_of_the_log():
    document = orjson.loads(HEADER.entry)
    assert document == {
        "v": 1,
        "alg": "sha256",
        "chunk": 262_144,
        "size": 1_000_000,
        "mediaType": "application/x-ndjson",
        "recordUnit": "line",
        "salt": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
    }
    assert rfc8785.dumps(document) == HEADER.entry
    assert HEADER.hash == hashlib.sha256(b"\0" + HEADER.entry).digest()
    assert "salt" not in repr(HEADER)


@pytest.mark.parametrize("chunk", CHUNKS_BYTES)
@pytest.mark.parametrize("size", [None, 0, 1, SIZE_MAX])
@pytest.mark.parametrize("unit", ["none", "line", "message", "row"])
def test_a_header_comes_back_from_its_bytes(chunk: int, size: int | None, unit: str):
    header = Header(chunk, size, "text/csv; charset=utf-8", unit, bytes(32))
    assert read_header(header.entry) == header


def header(**changed: Any) -> bytes:
    return rfc8785.dumps({**orjson.loads(HEADER.entry), **changed})


WRONG_HEADERS = {
    "too long": (HEADER.entry + b" " * 4096, "header-length"),
    "no JSON": (b"{", "header-json"),
    "NaN": (HEADER.entry.replace(b"1000000", b"NaN"), "header-json"),
    "an array": (b"[]", "header-json"),
    "a member more": (header(x=1), "header-members"),
    "a member less": (rfc8785.dumps({"v": 1}), "header-members"),
    "version 2": (header(v=2), "header-version"),
    "version true": (header(v=True), "header-version"),
    "another algorithm": (header(alg="blake3"), "header-alg"),
    "an algorithm in an array": (header(alg=["sha256"]), "header-alg"),
    "a chunk that is no power of two": (header(chunk=100_000), "header-chunk"),
    "a chunk of 32 KiB": (header(chunk=32_768), "header-chunk"),
    "a chunk of 8 MiB": (header(chunk=8_388_608), "header-chunk"),
    "a chunk as text": (header(chunk="262144"), "header-chunk"),
    "a chunk as a float": (HEADER.entry.replace(b"262144", b"262144.0"), "header-chunk"),
    "a negative size": (header(size=-1), "header-size"),
    "a size beyond what JSON counts": (HEADER.entry.replace(b"1000000", b"9007199254740992"), "header-size"),
    "a size as a float": (HEADER.entry.replace(b"1000000", b"1e6"), "header-size"),
    "a size that is true": (header(size=True), "header-size"),
    "no media type": (header(mediaType=""), "header-media"),
    "a media type with a line end": (header(mediaType="text/csv\n"), "header-media"),
    "a long media type": (header(mediaType="a" * 256), "header-media"),
    "another unit": (header(recordUnit="byte"), "header-unit"),
    "a unit in an array": (header(recordUnit=["line"]), "header-unit"),
    "a short salt": (header(salt="AAEC"), "header-salt"),
    "a salt with other unused bits": (HEADER.entry.replace(b"Hh8", b"Hh9"), "header-salt"),
    "a padded salt": (header(salt="AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), "header-salt"),
    "a salt in other letters": (HEADER.entry.replace(b"Hh8", "Hé8".encode()), "header-salt"),
    "a salt of a number": (header(salt=5), "header-salt"),
    "space": (HEADER.entry.replace(b":", b": "), "header-spelling"),
    "another order": (orjson.dumps(dict(reversed(orjson.loads(HEADER.entry).items()))), "header-spelling"),
    "a name twice": (HEADER.entry[:-1] + b',"v":1}', "header-spelling"),
    "an escape": (HEADER.entry.replace(b'"line"', b'"\\u006cine"'), "header-spelling"),
}


@pytest.mark.parametrize(("entry", "code"), WRONG_HEADERS.values(), ids=WRONG_HEADERS.keys())
def test_what_is_no_header_is_refused(entry: bytes, code: str):
    with pytest.raises(MeterRefused) as refused:
        read_header(entry)
    assert refused.value.code == code


SIZES = st.one_of(st.integers(0, 5 * CHUNK), st.sampled_from([0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK]))


@given(size=SIZES, offset=st.integers(0, 6 * CHUNK), length=st.integers(0, 6 * CHUNK))
def test_bytes_and_leaves_are_the_same_places(size: int, offset: int, length: int):
    layout = Layout(size, CHUNK)
    leaves = [layout.span(leaf, leaf + 1) for leaf in range(1, layout.leaves)]
    assert sum(each for _, each in leaves) == size
    assert all(0 < each <= CHUNK for _, each in leaves)
    end = min(offset + length, size)
    touched = [leaf for leaf, (first, many) in enumerate(leaves, 1) if max(first, offset) < min(first + many, end)]
    held = [leaf for leaf, (first, many) in enumerate(leaves, 1) if offset <= first and first + many <= end]
    assert list(range(*layout.touched(offset, length))) == touched
    assert list(range(*layout.held(offset, length))) == held


@given(size=SIZES, cuts=st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), max_size=4))
def test_ranges_measure_what_they_hold_once(size: int, cuts: list[tuple[int, int]]):
    layout = Layout(size, CHUNK)
    ranges = union([(min(a, layout.leaves), min(b, layout.leaves)) for a, b in cuts])
    known = layout.measure(ranges)
    assert known.bytes == sum(min(CHUNK, size - (leaf - 1) * CHUNK) for each in ranges for leaf in range(*each))
    assert known.records is None
    assert known.items == int(ranges == layout.whole)
    assert layout.measure(layout.whole) == Known(size, None, 1)


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(0, 1)), max_size=20), st.data())
def test_the_list_of_a_live_log_measures_and_comes_back(leaves: list[tuple[int, int]], data: st.DataObject):
    sealed = Sealed()
    for each in leaves:
        sealed.append(*each)
    again = read_sealed(sealed.write(), CHUNK)
    assert (again.leaves, again.size_bytes, again.write()) == (len(leaves) + 1, sum(size for size, _ in leaves), sealed.write())
    first = data.draw(st.integers(1, sealed.leaves))
    last = data.draw(st.integers(first, sealed.leaves))
    part = leaves[first - 1 : last - 1]
    assert again.span(first, last) == (sum(size for size, _ in leaves[: first - 1]), sum(size for size, _ in part))
    assert again.measure(((first, last),)) == Known(sum(size for size, _ in part), sum(records for _, records in part), None)
    assert len(sealed.write(first, last)) == 8 * (last - first)
    grown = read_sealed(sealed.write(1, first), CHUNK)
    assert read_sealed(sealed.write(first), CHUNK, grown).write() == sealed.write()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (bytes(7), "list-length"),
        (bytes(8), "list-chunk"),
        (b"\0\1\0\1" + bytes(4), "list-chunk"),
        (b"\0\0\0\2\0\0\0\3", "list-records"),
        (b"\0\0\0\2\0\0\0\1" + bytes(8), "list-chunk"),
    ],
)
def test_a_list_that_cannot_be_changes_nothing(data: bytes, code: str):
    sealed = Sealed()
    sealed.append(5, 1)
    with pytest.raises(MeterRefused) as refused:
        read_sealed(data, CHUNK, sealed)
    assert refused.value.code == code
    assert (sealed.leaves, sealed.size_bytes) == (2, 5)


def test_leaves_that_are_not_there_are_not_measured():
    with pytest.raises(IndexError):
        Sealed().measure(((1, 2),))


EVENTS = st.lists(st.sampled_from([b"data: a\n\n", b"data\n\n", b"id: 1\ndata: bc\n\n", b"data:d\ndata:e\n\n"]), max_size=30).map(b"".join)


@given(EVENTS, st.integers(1, 7), st.data())
def test_events_end_in_leaves_that_follow_each_other_also_where_their_two_line_feeds_lie_in_two(
    content: bytes, size: int, data: st.DataObject
):
    leaves = [content[at : at + size] for at in range(0, len(content), size)]
    found = [records_in(leaf, "message") for leaf in leaves]
    first = data.draw(st.integers(0, len(leaves)))
    last = data.draw(st.integers(first, len(leaves)))
    assert records_of(found[first:last], "message") == content[first * size : last * size].count(b"\n\n")
    assert records_of(found, "message") == content.count(b"\n\n")


def test_of_other_data_nothing_is_counted():
    assert (records_in(b"a\n\nb", "none"), records_in(b"", "line"), records_of([], "message")) == (0, 0, 0)
    assert records_in(b"a\nb\n", "line", 2, 4) == 1


@pytest.mark.parametrize("lengths", [[0], [1], [39], [40], [300], [0] * 2000 + [70_000], [70_000] + [0] * 140_000, [500, 3] * 400])
def test_line_feeds_are_those_that_are_there_however_long_lines_are(lengths: list[int]):
    text = b"".join(b"x" * length + b"\n" for length in lengths * max(150_000 // (sum(lengths) + len(lengths)), 1))
    for first, last in ((0, len(text)), (1, len(text) - 1), (len(text) // 3, len(text) // 2), (5, 5)):
        assert feeds(text, first, last) == feeds(bytearray(text), first, last) == text[first:last].count(b"\n")


class Watched(bytes):
    """Notes how many line feeds there were in what was taken out of it, which is how those that are far apart are counted."""

    def __init__(self, _text: bytes) -> None:
        self.taken: list[int] = []

    def __getitem__(self, key: Any) -> Any:
        self.taken.append((found := super().__getitem__(key)).count(b"\n"))
        return found


@pytest.mark.parametrize("period", [16_384, 65_536, 100_000])
def test_short_lines_behind_a_long_one_wherever_it_is_looked_for_are_taken_for_long_ones_once_at_most(period: int):
    text = Watched((b"x" * 2048 + b"\n" * (period - 2048)) * (4 * 65_536 // period))
    assert feeds(text, 0, len(text)) == text.count(b"\n")
    assert sum(count > 1000 for count in text.taken) <= 1
    assert max(text.taken, default=0) <= 16_384


@given(st.binary(min_size=32, max_size=32), st.sampled_from(CHUNKS_BYTES))
def test_an_entity_tag_says_root_and_chunk(root: bytes, chunk: int):
    assert read_etag(write_etag(root, chunk)) == (root, chunk)


TAG = write_etag(bytes(32), CHUNK_BYTES)
OTHER_TAGS = {
    "none": None,
    "nothing": "",
    "weak": "W/" + TAG,
    "unquoted": TAG[1:-1],
    "another kind": '"5f-6"',
    "a short root": '"r.AAAA.262144"',
    "unused bits": TAG.replace("A.", "B."),
    "a chunk of its own": TAG.replace("262144", "262145"),
    "a chunk beyond": TAG.replace("262144", "8388608"),
    "a zero before": TAG.replace("262144", "0262144"),
    "other digits": TAG.replace("262144", "٢٦٢١٤٤"),
    "space": TAG + " ",
    "a list": f"{TAG}, {TAG}",
    "padding": TAG.replace("A.", "A=."),
}


@pytest.mark.parametrize("tag", OTHER_TAGS.values(), ids=OTHER_TAGS.keys())
def test_another_entity_tag_belongs_to_no_content_log(tag: str | None):
    assert read_etag(tag) is None


@given(st.one_of(st.text(max_size=50), st.text("ABab01-_=+/", min_size=43, max_size=43), st.integers(), st.none()))
def test_bytes_have_one_spelling(text: object):
    data = read_bytes(text, 32)
    assert data is None or write_bytes(data) == text


def test_a_document_is_named_by_its_canonical_form():
    assert digest_of({"b": 1, "a": "é"}) == hashlib.sha256('{"a":"é","b":1}'.encode()).digest() == digest_of({"a": "é", "b": 1})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-SIZE_MAX, SIZE_MAX) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(), each, max_size=4),
)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_the_cheap_digest_of_json_is_the_digest(document: dict[str, Any]):
    assert digest_of_json(document) == digest_of(document)


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        1e16,
        1e21,
        1.5e-7,
        -0.0,
        -5,
        0.1,
        [1e2],
        "1.0",
        'a"1.5',
        "\\",
        '\\"',
        "\u007f\x1f",
        {"\U0001f600": 1, "\uffff": 2},
        {"a\\": 1.0},
        {'a"': [1.0]},
        '\\":1.5',
        "[1.5",
        ",1e3",
        [[2, 1.0]],
    ],
)
def test_the_cheap_digest_sees_what_jcs_spells_otherwise(value: Any):
    assert digest_of_json({"a": value, "b": 1}) == digest_of({"b": 1, "a": value})


@pytest.mark.parametrize("value", [2**53, 2**64, "\ud800"])
def test_the_cheap_digest_refuses_what_jcs_cannot_say(value: Any):
    for each in (digest_of, digest_of_json):
        with pytest.raises(ValueError, match=r"."):
            each({"a": value})


def test_the_cheap_digest_refuses_what_could_be_read_and_not_written():
    deep = orjson.loads(b'{"a":%s}' % (b"[" * 300 + b"]" * 300))
    with pytest.raises(ValueError, match="limit"):
        digest_of_json(deep)


def test_each_part_of_the_header_changes_its_hash():
    others = [
        replace(HEADER, chunk_bytes=CHUNK),
        replace(HEADER, size_bytes=None),
        replace(HEADER, media_type="text/csv"),
        replace(HEADER, record_unit="none"),
        replace(HEADER, salt=bytes(32)),
    ]
    assert len({HEADER.hash, *(other.hash for other in others)}) == 6
