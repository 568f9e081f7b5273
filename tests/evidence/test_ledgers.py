"""Ledgers in a file: what a witness has cosigned tells how much of it was written before."""

from base64 import b64encode
from hashlib import sha256
from time import process_time
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from nacl.signing import SigningKey

from connector.dsp.messages import Move
from connector.evidence.verify import verify
from connector.ledger.book import signer_of
from connector.merkle import checkpoints, notes
from connector.merkle.succession import follows
from connector.merkle.tree import leaf_hash
from connector.records import Evidence
from connector.signatures import jws
from connector.values import replace
from tests.evidence import rig
from tests.evidence.forgeries import lined
from tests.evidence.rig import (
    CONSUMER,
    KEYS,
    LOGS,
    NOW,
    PROVIDER,
    SOUND,
    STRANGER,
    TRANSFER,
    Story,
    after,
    cosigned,
    fact,
    identity,
    key_of,
    named,
    note_over,
)  # fmt: skip

LATER = jws.signing_key(f"{PROVIDER}#k2", b"l" * 32)


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        (b'{"at":', b'{"at":1700000000,"at":', "entry-json"),
        (b'{"at":', b'{ "at":', "entry-json"),
        (b'"v":1', b'"v":2', "entry-json"),
        (b'"state":"COMPLETED"', b'"state":"TERMINATED","state":"COMPLETED"', "entry-json"),
        (b'{"reason":', b'{"reason":"Bearer 0123456789abcdef","reason":', "entry-text"),
        (b'{"reason":', b'["reason":', "entry-text"),
    ],
)
def test_an_entry_that_programs_read_differently_is_found(monkeypatch: pytest.MonkeyPatch, before: bytes, after: bytes, code: str):
    """Of two members of one name some take the first and some the last, and what was hidden in the other was looked at by nobody."""
    entry, dumps = rig.entry_of, orjson.dumps

    def of_completion(said: Evidence, hidden: bytes) -> bytes:
        return entry(said, hidden).replace(before, after) if said.move is Move.COMPLETION else entry(said, hidden)

    def text(value: Any, **how: Any) -> bytes:
        return dumps(value, **how).replace(before, after) if isinstance(value, dict) and "reason" in value else dumps(value, **how)

    monkeypatch.setattr(rig, "entry_of", of_completion)
    monkeypatch.setattr(rig, "orjson", SimpleNamespace(dumps=text, loads=orjson.loads, OPT_SORT_KEYS=orjson.OPT_SORT_KEYS))
    assert code in Story().draft().codes()


def note_over_lines(note: str, by: jws.SigningKey) -> str:
    """The same checkpoint by another key."""
    said = checkpoints.read(notes.read(note.encode()).text)
    return checkpoints.sign(said, (signer_of(by, LOGS[PROVIDER]),)).decode()


def test_a_witness_whose_identity_is_in_the_file_counts():
    draft = SOUND.copy()
    bare = draft.one("checkpoint")["note"]
    draft.put("identity", identity(STRANGER), "agreement")
    draft.put("checkpoint", {"of": draft.one("evidence")["by"], "note": cosigned(bare, STRANGER, NOW + 40)}, "consistency")
    report = verify(draft.data)
    assert report.sound, report.findings
    assert report.told is not None
    assert report.told.witnesses == ((CONSUMER, 12, 11, NOW + 30), (STRANGER, 15, 13, NOW + 40))
    assert not any("were not written later" in text for text in report.unproven)


def test_a_counterparty_whose_ledger_forks_is_accused_and_the_file_is_sound():
    draft = SOUND.copy()
    draft.put("checkpoint", {"of": CONSUMER, "note": note_over([leaf_hash(b"other")] * 20, CONSUMER)}, "consistency")
    report = verify(draft.data)
    assert [(each.code, each.accuses) for each in report.findings] == [("checkpoint-forked", True)]
    assert report.sound
    assert any(each.startswith("Accusation checkpoint-forked") for each in report.verdict())


def test_lines_that_are_known_are_no_news_and_those_of_others_are_named():
    draft = SOUND.copy()
    lined(follows(checkpoints.Checkpoint("before.example/ledger", 3, b"x" * 32)), "stage pseudonyms", "weather fair\u202e", "x" * 200)(
        draft
    )
    report = verify(draft.data)
    assert report.sound, report.findings
    (told,) = [text for text in report.unproven if "extension lines" in text]
    assert told == f"what `weather fair`, `{'x' * 80}` means: extension lines of checkpoints of {PROVIDER} that nobody here knows"
    assert not any("extension lines" in text for text in verify(SOUND.data).unproven)


def test_a_line_of_the_counterparty_that_is_wrong_accuses_it_and_the_file_is_sound():
    note = note_over([leaf_hash(b"other")] * 20, CONSUMER)
    said = replace(checkpoints.read(notes.read(note.encode()).text), extensions=("follows x",))
    draft = SOUND.copy()
    signed = checkpoints.sign(said, (signer_of(KEYS[CONSUMER], said.origin),)).decode()
    draft.put("checkpoint", {"of": CONSUMER, "note": signed}, "consistency")
    report = verify(draft.data)
    assert ("checkpoint-follows", True) in [(each.code, each.accuses) for each in report.findings]
    assert report.sound


def test_a_file_without_a_ledger_says_so():
    draft = SOUND.copy()
    kept = [
        each
        for each in draft.members
        if each[0] not in ("entry", "consistency") and not (each[0] == "checkpoint" and each[1]["of"] != CONSUMER)
    ]
    draft.members = [each for each in kept if each[0] not in ("ack", "statement", "invoice")]
    draft.one("transfer")["account"] = None
    codes = draft.codes()
    assert "entry-unlogged" not in codes
    assert any("there is no ledger" in text for text in verify(draft.data).unproven)


def test_a_key_that_begins_later_cannot_have_signed_what_was_shown_before():
    draft = SOUND.copy()
    draft.one("identity")["keys"].append(key_of(replace(LATER.key, not_before=NOW + 86_400.0)))
    assert draft.codes() == set()
    note = draft.one("checkpoint")["note"]
    draft.one("checkpoint")["note"] = note_over_lines(note, LATER)
    assert "signature-untrusted" in draft.codes()


def test_a_ledger_that_was_signed_by_a_key_that_is_no_longer_used_holds():
    """A note has no time of its own: the keys that have ended count for it."""
    draft = Story().draft()
    note = note_over([leaf_hash(b"theirs %d" % n) for n in range(20)], CONSUMER, KEYS[CONSUMER])
    assert draft.one("checkpoint", 2)["note"] == note
    assert verify(draft.data).sound


def test_hashes_are_in_base64_in_one_spelling():
    draft = SOUND.copy()
    draft.move("TransferStartMessage")["proof"][0] = b64encode(b"x" * 31).decode()
    assert draft.codes() == {"member-form"}


def test_what_was_written_before_there_were_digests_or_was_erased_is_not_refused_and_is_said():
    draft = SOUND.copy()
    assert not any("holds no digest" in text for text in verify(draft.data).unproven)
    draft.move("TransferStartMessage").update(detail=None, salt=None)
    draft.one("decision", 1)["document"]["reason"] = ["Something else."]
    report = verify(draft.data)
    assert report.sound, report.findings
    (told,) = [text for text in report.unproven if "holds no digest" in text]
    assert told.startswith(f"decision of {TRANSFER}, code of {TRANSFER}: ")


def test_the_last_digest_counts_and_one_that_may_have_been_erased_after_it_is_not_missed():
    again = fact("decided-again", TRANSFER, digests={"decision": named({"result": "deny"})})
    draft = after(again)
    assert draft.codes() == {"decision-digest"}
    draft.one("decision", 1)["document"] = {"result": "deny"}
    assert draft.codes() == set()
    draft.one("entry", -1).update(detail=None, salt=None)
    assert draft.codes() == set(), "what was decided last nobody can know any more"


def test_an_operator_whose_clock_was_set_back_is_not_accused_and_that_its_clock_was_is_said():
    """The transfer ends, and the file is written, by a clock that is an hour behind the one by which it began."""
    ahead = 3_600
    late = fact("message-received", TRANSFER, at=NOW + ahead, state="SUSPENDED"), fact("message-sent", TRANSFER, at=NOW + 40)
    draft = Story(extra=tuple((each, {}) for each in late)).draft()
    draft.one("transfer")["updated"] = NOW + 40
    report = verify(draft.data)
    assert report.sound, report.findings
    told = [text for text in report.unproven if "clock of" in text]
    assert told[0] == (
        f"when entries were written: the clock of {PROVIDER} went back by {ahead - 40} s before entry 15 of {LOGS[PROVIDER]}, or that says"
        " an instant of before; their order is proven by their places"
    )
    assert told[1] == f"when the file was written: by the clock of {PROVIDER} {ahead - 60} s before an entry in it"
    assert len(told) == 2
    assert not any("clock of" in text for text in verify(SOUND.data).unproven)


def test_a_detail_that_is_no_object_holds_nothing():
    for digests in ("text", ["decision"], None):
        assert Story(extra=((fact("decided-again", TRANSFER, digests=digests), {}),)).draft().codes() == set()


def test_a_key_counts_from_the_beginning_of_its_first_second_for_a_cosignature_which_says_whole_ones():
    draft = SOUND.copy()
    draft.one("identity", 1)["keys"][1]["notBefore"] = NOW + 30.5
    assert "cosignature-ended" not in draft.codes()
    draft.one("identity", 1)["keys"][1]["notBefore"] = NOW + 31.5
    assert "cosignature-ended" in draft.codes()


def test_a_file_with_many_keys_and_many_checkpoints_is_looked_at_by_those_that_its_signatures_name():
    """Each self-description may have thousands of keys, and whoever exports writes as many checkpoints of the other side as it likes."""
    draft = SOUND.copy()
    publics = [bytes(SigningKey(sha256(b"%d" % number).digest()).verify_key) for number in range(300)]
    more = [key_of(jws.PublicKey(f"{CONSUMER}#more{number}", public)) for number, public in enumerate(publics)]
    for who in (0, 1):
        draft.one("identity", who)["keys"][:0] = more if who else [each | {"kid": f"{PROVIDER}#{at}"} for at, each in enumerate(more)]
    for number in range(60):
        note = note_over([leaf_hash(b"%d" % number)], CONSUMER, origin=f"biopharma.example/{number}")
        draft.put("checkpoint", {"of": CONSUMER, "note": note}, before="consistency")
    data, began = draft.data, process_time()
    report = verify(data)
    assert report.sound, report.findings
    assert report.told is not None
    assert [by for by, *_ in report.told.witnesses] == [CONSUMER]
    assert process_time() - began < 0.7, "to look at each key closely for each note takes seconds"
