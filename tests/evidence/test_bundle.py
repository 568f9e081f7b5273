"""A file that is written line by line: what is written is read back, and what is no member is not written."""

from base64 import b64decode
from hashlib import sha256

import pytest

from connector.evidence.bundle import Bundle, Counting
from connector.evidence.members import OBJECTS, Finding, read
from connector.evidence.sealed import unsealed
from connector.evidence.verify import verify
from tests.evidence.rig import AGREEMENT, LOGS, NEGOTIATION, NOW, PROVIDER, SOUND, TRANSFER, Draft, Story, after, fact


def test_what_is_written_is_read_back_in_its_order_and_counted():
    bundle = Bundle()
    header = SOUND.one("evidence")
    data = bundle.header(header["agreement"], header["by"], header["role"], header["at"])
    data += b"".join(bundle.add(kind, value) for kind, value in SOUND.members[1:])
    attestation = SOUND.attestation(bundle.sha256)
    data += bundle.add("attestation", attestation) + bundle.close()
    assert data == SOUND.data
    body, found = unsealed(data), list[Finding]()
    assert isinstance(body, bytes)
    members = list(read(body, found))
    assert found == []
    written = [
        (kind, value | {"proof": b"".join(map(b64decode, value["proof"]))} if "proof" in value else value) for kind, value in SOUND.members
    ]
    assert [(member.kind, member.value) for member in members[:-1]] == [*written, ("attestation", attestation)]
    assert members[-1].value["members"]["entry"] == len(SOUND.all("entry"))


@pytest.mark.parametrize("value", [{}, {"pid": "x"}, {"pid": "x", "document": []}, {"pid": "x", "document": {}, "more": 1}])
def test_what_is_no_member_of_its_kind_is_not_written(value: dict[str, object]):
    with pytest.raises(ValueError, match="a member of kind `decision` cannot be written"):
        Bundle().add("decision", value)


def test_a_number_that_json_does_not_carry_is_not_written():
    with pytest.raises(ValueError, match="exceeds"):
        Bundle().add("decision", {"pid": "x", "document": {"n": 2**60}})


# ---- what an exporter with its key leaves out of its only file: the count of all entries, the last of them, shows it


def without(draft: Draft, first: int, end: int) -> Draft:
    """The file without these entries, and without the objects that they are, attested and sealed anew by its exporter."""
    gone = draft.all("entry")[first:end]
    names = {entry["jws"] for entry in gone} - {None}
    less = [each for each in draft.members if not any(each[1] is entry for entry in gone)]
    return Draft([each for each in less if each[0] not in OBJECTS or draft.entry_of(each[1]["jws"])["jws"] not in names])


RUNS = [(first, end) for first in range(14) for end in range(first + 1, 15)]


@pytest.mark.parametrize(
    "runs",
    [
        [run for run in RUNS if run[1] in (run[0] + 1, 13)],
        pytest.param([run for run in RUNS if run[1] not in (run[0] + 1, 13)], marks=pytest.mark.slow),
    ],
    ids=["one and the last ones", "some"],
)
def test_no_run_of_entries_can_be_left_out_of_a_file(runs: list[tuple[int, int]]):
    """Those that stand together, the count among them or not."""
    assert len(SOUND.all("entry")) == 14
    assert [run for run in runs if verify(without(SOUND, *run).data).sound] == []


def test_what_is_left_out_of_a_file_without_a_count_goes_unnoticed_at_the_end():
    older = SOUND.uncounted()
    less = without(older, 12, 13)
    less.one("transfer")["state"] = "STARTED"
    assert verify(less.data).sound


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_does_not_pass_for_one_of_before_there_were_counts(version: int):
    """Its facts say that their program counts, and so does a count of an earlier export."""
    draft = after(fact("dead-letter", TRANSFER, at=NOW + 30, nth=1, evidence=3))
    draft.one("evidence")["version"] = version
    draft.attest = version > 1
    assert draft.codes() == {"version-older"}
    counted = SOUND.copy()
    counted.one("evidence")["version"] = version
    counted.attest = version > 1
    assert counted.codes() == {"version-older"}


def test_facts_of_a_program_to_come_are_read():
    assert verify(Story(extra=((fact("dead-letter", TRANSFER, at=NOW + 30, evidence=4), {}),)).draft().data).sound


def test_the_count_is_told_and_what_it_does_not_prove():
    report = verify(SOUND.data)
    assert report.to_json()["agreement"]["counted"] == {"log": LOGS[PROVIDER], "index": 14, "entries": 13}
    assert f"Counted: entry 14 of {LOGS[PROVIDER]} says that these 13 entries are all" in "\n".join(report.verdict())
    (text,) = [text for text in report.unproven if "all entries about it" in text]
    assert f"where entry 14 of {LOGS[PROVIDER]} counts just these 13: a ledger that says so falsely says it for ever" in text
    assert report.told is not None
    assert report.told.entries == 13, "the count is none of what it counts"


def test_entries_in_another_order_are_others():
    moved = SOUND.copy()
    about = [each for each in moved.members if each[0] == "entry" and each[1]["pid"] == NEGOTIATION]
    rest = [each for each in moved.members if not any(each is one for one in about)]
    at = next(place for place, each in enumerate(rest) if each[0] == "entry" and each[1]["pid"] == AGREEMENT)
    moved.members = [*rest[:at], *about, *rest[at:]]
    assert moved.codes() == {"count-other"}


def test_a_count_is_a_hash_over_leaf_hashes_and_keeps_none_of_them():
    counting = Counting()
    for leaf in (b"a" * 32, b"b" * 32):
        counting.take(leaf)
    assert counting.digest == sha256(b"a" * 32 + b"b" * 32).digest()
    assert counting.detail({"x": 5}) == {"entries": 2, "logs": {"x": 5}}
