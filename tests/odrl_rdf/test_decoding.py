import codecs
import json

import pytest

from connector.errors import PolicyError
from connector.odrl import Code
from connector.odrl_rdf.decoding import DIGITS_MAX, JSON_BYTES_MAX, MARKS_MAX, decoded, json_of

TEXT = '{"a": "ä桥"}'


@pytest.mark.parametrize(
    "document",
    [
        TEXT,
        "\ufeff" + TEXT,
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"),
        codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
    ],
    ids=["text", "text with a mark", "8", "8 mark", "16le mark", "16be mark", "32le mark", "32be mark", "16le", "16be"],
)
def test_a_text_is_read_in_whatever_encoding_it_was_saved(document: str | bytes):
    assert decoded(document, 100) == TEXT
    assert json_of(document) == {"a": "ä桥"}


@pytest.mark.parametrize("document", [b'{"a": "\xe4"}', codecs.BOM_UTF16_LE + b"{\x00\x22", codecs.BOM_UTF16_LE + b"\x00\xd8\x00\x00"])
def test_bytes_of_no_encoding_are_refused_with_the_place(document: bytes):
    with pytest.raises(PolicyError, match=r"it is no UTF-.* text: byte \d+ does not fit; save it as UTF-8"):
        decoded(document, 100)


@pytest.mark.parametrize("document", ["x" * 101, b"x" * 101])
def test_the_size_is_looked_at_first(document: str | bytes):
    with pytest.raises(PolicyError) as caught:
        decoded(document, 100)
    assert [finding.code for finding in caught.value.findings] == [Code.LIMIT_EXCEEDED]


@pytest.mark.parametrize(
    ("document", "code", "complaint"),
    [
        ('{"a": 1,\n "a": 2}', Code.MALFORMED, "the key `a` stands twice in one object"),
        ('[{"b": {"x": 1, "y": 2, "x": 1}}]', Code.MALFORMED, "the key `x` stands twice"),
        ('{"a":\n }', Code.MALFORMED, r"\(line 2, column 2\): it is no JSON: expecting value"),
        ("", Code.MALFORMED, "it is no JSON"),
        ('{"a": NaN}', Code.MALFORMED, "`NaN` is no number of JSON"),
        ('{"a": -Infinity}', Code.MALFORMED, "`-Infinity` is no number of JSON"),
        ('{"a": ' + "9" * (DIGITS_MAX + 1) + "}", Code.LIMIT_EXCEEDED, "a number has more than 40 digits"),
        ("[" * 200_000, Code.LIMIT_EXCEEDED, "nested too deeply"),
        ('{"a":' * 60_000, Code.LIMIT_EXCEEDED, "nested too deeply"),
        (json.dumps(["x"] * (MARKS_MAX + 1)), Code.LIMIT_EXCEEDED, "it has more than 14000 commas and opening brackets"),
        (json.dumps("x" * JSON_BYTES_MAX), Code.LIMIT_EXCEEDED, "it has more than 512 KiB"),
    ],
)
def test_what_two_readers_could_read_in_two_ways_is_refused(document: str, code: Code, complaint: str):
    with pytest.raises(PolicyError, match=complaint) as caught:
        json_of(document)
    assert [finding.code for finding in caught.value.findings] == [code]


def test_a_number_at_the_limit_is_read():
    assert json_of("9" * DIGITS_MAX) == int("9" * DIGITS_MAX)
