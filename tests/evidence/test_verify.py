"""Evidence files: what is true passes, one altered byte is named, and whatever is forged and sealed anew is refused with its own code."""

import json
from random import Random

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.evidence import members
from connector.evidence.verify import verify
from connector.evidence_told.compared import compare
from tests.evidence.edits import edited
from tests.evidence.forgeries import BOOK_BYTES, CLOSING, FORGERIES, LIES, OWN_CLOSING, Forge, answer, other
from tests.evidence.rig import AGREEMENT, CONSUMER, NOW, PROVIDER, SOUND, Draft, Story

KINDS_AT_LEAST = 60
PARTS, EVERY = 2, 9  # each byte of a small file is looked at


def test_a_file_that_is_as_it_was_is_sound_and_says_who_what_how_much_and_when():
    report = verify(SOUND.data)
    assert report.sound, report.findings
    assert report.told is not None
    assert (report.told.agreement, report.told.provider, report.told.consumer) == (AGREEMENT, PROVIDER, CONSUMER)
    (flow,) = report.told.flows
    assert (flow.receipts, flow.acknowledged, flow.state, flow.counts.bytes) == (2, 2, "complete", 196_613)
    assert report.told.witnesses == ((CONSUMER, 12, 11, NOW + 30),)
    assert report.told.invoice is not None
    assert report.told.invoice[:2] == ("5.25", "EUR")


@pytest.mark.parametrize(("code", "forge"), [each[1:] for each in FORGERIES], ids=[each[0] for each in FORGERIES])
def test_whatever_is_forged_and_sealed_anew_is_refused_with_its_code(code: str, forge: Forge, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(members, "LINE_BYTES_MAX", BOOK_BYTES)
    draft = SOUND.copy()
    forge(draft)
    report = verify(draft.data)
    assert code in {each.code for each in report.findings}, report.findings
    assert not report.sound
    assert report.to_json()["sound"] is False
    if code in ("attestation-other", "attestation-time"):
        assert report.told is not None
        assert report.told.attested is None, "nobody has signed these lines"


@pytest.mark.parametrize(("code", "story"), [each[1:] for each in LIES], ids=[each[0] for each in LIES])
def test_what_a_party_signs_that_is_not_so_is_refused_with_its_code(code: str, story: Story):
    found = {each.code for each in verify(story.draft().data).findings}
    assert code in found, found


def test_there_are_more_kinds_of_forgery_than_sixty():
    assert len({code for _, code, _ in FORGERIES}) > KINDS_AT_LEAST
    assert len({name for name, *_ in (*FORGERIES, *LIES)}) == len(FORGERIES) + len(LIES) > 2 * KINDS_AT_LEAST


def test_a_finding_names_line_byte_and_place():
    draft = SOUND.copy()
    draft.one("agreement")["provider"] = "did:web:other.example"
    data = draft.data
    found = next(each for each in verify(data).findings if each.code == "agreement-provider")
    assert found.offset is not None
    line = data[found.offset :].split(b"\n")[0]
    assert json.loads(line)["kind"] == "agreement"
    assert data[: found.offset].count(b"\n") + 1 == found.line
    assert found.pointer == "/document/assigner"


@settings(max_examples=60)
@given(st.data())
def test_one_altered_byte_is_named_with_its_line(data: st.DataObject):
    whole = bytearray(SOUND.data)
    at = data.draw(st.integers(0, len(whole) - 1))
    was = whole[at]
    whole[at] = data.draw(st.integers(0, 255).filter(lambda value: value != was))
    _demand_named(bytes(whole), at, was)


def test_every_altered_byte_of_a_small_file_is_named():
    small = Draft([(kind, dict(value)) for kind, value in SOUND.members if kind in ("evidence", "identity", "agreement", "negotiation")])
    small.one("evidence")["version"] = 2
    whole = small.data
    assert verify(whole).sound
    for at in range(len(whole)):
        _demand_named(whole[:at] + bytes((whole[at] ^ 1 << at % 8,)) + whole[at + 1 :], at, whole[at])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_every_ninth_byte_of_a_whole_file_is_named_when_it_is_altered(part: int):
    whole = SOUND.data
    for at in range(part * EVERY, len(whole), PARTS * EVERY):
        _demand_named(whole[:at] + bytes((whole[at] ^ 0x01,)) + whole[at + 1 :], at, whole[at])


def _demand_named(data: bytes, at: int, was: int) -> None:
    report = verify(data)
    (found,) = report.findings
    assert (found.code, found.offset, found.line) == ("byte-altered", at, data.count(b"\n", 0, at) + 1)
    assert f"0x{was:02x}" in found.says
    assert not report.sound


@given(st.binary(max_size=300))
def test_nothing_that_is_no_evidence_file_is_taken_for_one_or_breaks_anything(data: bytes):
    assert not verify(data).sound
    assert not verify(SOUND.data + data + b"x").sound


@settings(max_examples=40)
@given(st.data())
def test_whatever_stands_in_a_member_nothing_breaks(data: st.DataObject):
    draft = SOUND.copy()
    _, value = data.draw(st.sampled_from(draft.members))
    name = data.draw(st.sampled_from(sorted(value)))
    scalars = st.none() | st.booleans() | st.integers(-5, 2**53 - 1) | st.text(max_size=9)
    value[name] = data.draw(
        st.recursive(scalars, lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each, max_size=3))
    )
    said = orjson.loads(orjson.dumps(verify(draft.data).to_json()))
    assert said["sound"] is not any(not each["accuses"] for each in said["findings"])


@pytest.mark.parametrize("first", [0, *(pytest.param(first, marks=pytest.mark.slow) for first in range(60, 300, 60))])
def test_whatever_is_edited_anywhere_and_signed_anew_gets_a_verdict_with_codes(first: int):
    """Deep within members, in the texts of entries, and in what is signed: by whoever has the keys of both."""
    answered = Story(closings=(CLOSING, OWN_CLOSING), answers=(answer(CLOSING),)).draft()
    for number in range(first, first + 60):
        chance = Random(number)
        report = verify(edited(chance, chance.choice([SOUND, answered])).data)
        said = orjson.loads(orjson.dumps(report.to_json()))
        assert said["verdict"], number
        assert all(each["code"] and each["says"] for each in said["findings"])
        assert report.told is None or compare(report.told, report.told) == (), number


def test_what_was_erased_is_said_and_the_file_stays_sound():
    draft = SOUND.copy()
    draft.move("TransferStartMessage").update(detail=None, salt=None)
    report = verify(draft.data)
    assert report.sound, report.findings
    assert report.told is not None
    assert report.told.erased == 1
    assert any("the details of 1 were erased" in each for each in report.verdict())


def test_two_receipts_of_one_number_accuse_the_consumer_and_the_file_is_sound():
    """The provider has kept both: that is what they are evidence of."""
    story = Story()
    second = story.draft()
    twin = Story({"receipt 2": other(id="j3")}).draft()
    second.put("receipt", twin.one("receipt", 1))
    report = verify(second.data)
    assert {(each.code, each.accuses) for each in report.findings} >= {("receipt-conflict", True)}


def test_a_key_or_an_agreement_may_begin_or_end_however_far_away():
    draft = SOUND.copy()
    draft.one("identity")["keys"][0] |= {"notBefore": -62_135_596_800.0, "notAfter": 253_402_300_800.0}
    draft.one("agreement")["ends"] = 1e14
    report = verify(draft.data)
    assert report.sound, report.findings
    assert report.to_json()["sound"] is True


def test_a_file_of_before_there_were_attestations_is_read_and_is_nobodys_word():
    draft = SOUND.uncounted()
    draft.attest = False
    draft.one("evidence")["version"] = 1
    report = verify(draft.data)
    assert report.sound, report.findings
    assert any("nobody has signed that they are" in text for text in report.unproven)
    assert report.told is not None
    assert report.told.attested is None
