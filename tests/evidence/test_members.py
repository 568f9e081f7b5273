"""Members of a file: where each stands, and that every kind is read as strictly as it is written."""

import tracemalloc
from typing import Any

import orjson
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.evidence import members
from connector.evidence.members import KINDS, Finding, read, write
from tests.evidence.rig import SOUND

SAMPLES = dict(reversed(SOUND.members)) | {"closing": SOUND.one("statement"), "end": {"members": {"entry": 1}}}
SAMPLES["attestation"] = SOUND.attestation(b"l" * 32)
SAMPLES["closing-ack"] = SAMPLES["closing"]


def test_there_is_a_sample_of_every_kind():
    assert SAMPLES.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_has_exactly_what_its_kind_has(kind: str):
    value = SAMPLES[kind]
    for name in value:
        less = {other: each for other, each in value.items() if other != name}
        with pytest.raises(ValueError, match=f"lacks `{name}`"):
            write(kind, less)
    with pytest.raises(ValueError, match="has `more`"):
        write(kind, value | {"more": 1})


@given(st.data())
def test_each_member_says_at_which_byte_it_begins(data: st.DataObject):
    chosen = data.draw(st.lists(st.sampled_from(sorted(SAMPLES)), min_size=1, max_size=6))
    lines = [write(kind, SAMPLES[kind]) for kind in chosen]
    found: list[Finding] = []
    members = list(read(b"".join(lines), found))
    assert found == []
    assert [(member.line, member.offset) for member in members] == [(n + 1, sum(map(len, lines[:n]))) for n in range(len(lines))]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "line-json"),
        (b"\xff", "line-json"),
        (b"{}", "kind-unknown"),
        (b'{"kind":7}', "kind-unknown"),
        (b'{"kind":"end","members":{}} ', "line-spelling"),
        (b'{"members":{},"kind":"end"}', "line-spelling"),
        (b'{"kind":"end","members":{"x":1e2}}', "line-spelling"),
        (b'{"kind":"end","members":{"x":9007199254740993}}', "line-spelling"),
        (b"[" * 5_000, "line-json"),
    ],
)
def test_what_is_no_line_is_told_with_its_place(text: bytes, code: str):
    found: list[Finding] = []
    first = write("end", {"members": {}})
    assert len(list(read(first + text + b"\n" + first, found))) == 2, "the others are read"
    assert [(each.code, each.line, each.offset) for each in found] == [(code, 2, len(first))]


def test_what_stands_behind_the_last_newline_is_no_line():
    found: list[Finding] = []
    assert list(read(b'{"kind":', found)) == []
    assert [each.code for each in found] == ["line-json"]


NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e15, 1e15) | st.sampled_from([1.0, 1e-7, 10**15, -0.0])
NAMES = st.text(max_size=3) | st.sampled_from(["a\\", 'b"', "\ue000", "\U0001f600"])
JSON = st.recursive(
    st.none() | NUMBERS | st.text(max_size=4) | st.sampled_from(["\\", "[1.5", ',1e3"']),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(NAMES, each, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300)
@given(st.dictionaries(NAMES, JSON, max_size=4))
def test_a_line_is_taken_in_its_only_spelling_whatever_it_says(value: dict[str, Any]):
    """Sorted JSON is that spelling of most values, and of some it is not."""
    said = {"kind": "decision", "pid": "p", "document": value}
    for text in (rfc8785.dumps(said), orjson.dumps(said, option=orjson.OPT_SORT_KEYS)):
        found: list[Finding] = []
        list(read(text + b"\n", found))
        assert [each.code for each in found] == ([] if rfc8785.dumps(orjson.loads(text)) == text else ["line-spelling"])


def test_what_a_file_says_of_transfers_is_written_in_c(monkeypatch: pytest.MonkeyPatch):
    """An invoice may have tens of thousands of flows, and the canonical form in Python takes ten times as long."""
    monkeypatch.setattr(rfc8785, "dumps", None)
    for kind in ("invoice", "agreement", "transfer", "receipt", "entry"):
        for member in SOUND.all(kind):
            assert write(kind, member).endswith(b"\n")


def test_members_take_little_more_memory_than_their_lines():
    entry = SOUND.one("entry") | {"log": "hospital.example/a-ledger-with-a-name", "proof": ["A" * 43 + "="] * 24, "jws": None}
    body = b"".join(write("entry", entry | {"index": number, "body": f"{number:0300}"}) for number in range(500))
    tracemalloc.start()
    members = list(read(body, []))
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(members) == 500
    assert most < 1.5 * len(body), (kept, most, len(body))


VALUES: list[Any] = [None, True, -1, 1.5, "", [], {}, "A" * 43]


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_of_another_form_is_told_with_its_pointer(kind: str):
    for name, form in KINDS[kind].items():
        for value in VALUES:
            if not form.holds(value):
                with pytest.raises(ValueError, match=f"`{name}` is not .* at `/{name}`"):
                    write(kind, SAMPLES[kind] | {name: value})


def test_an_invoice_of_twelve_thousand_transfers_is_a_line_and_what_no_verifier_reads_is_not_written(monkeypatch: pytest.MonkeyPatch):
    """Where each call has a price, an agreement has as many transfers as calls."""
    flow = SOUND.one("invoice")["document"]["flows"][0]
    many = {"document": {"flows": [flow] * 12_500}}
    found: list[Finding] = []
    assert [member.kind for member in read(write("invoice", many), found)] == ["invoice"]
    assert found == []
    monkeypatch.setattr(members, "LINE_BYTES_MAX", 1_000)
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        write("invoice", many)
