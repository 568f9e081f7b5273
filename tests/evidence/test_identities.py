"""Whose keys count: those of the file, unless the verifier has others."""

import pytest

from connector.errors import ProofRefused
from connector.evidence.case import Trust
from connector.evidence.identities import pinned
from connector.evidence.verify import verify
from connector.ledger.book import signer_of
from connector.merkle.notes import Kind
from connector.signatures.jws import PublicKey
from connector.values import replace
from tests.evidence.rig import CONSUMER, KEYS, LOGS, OLD, PROVIDER, SOUND, STRANGER

BOTH = {PROVIDER: (KEYS[PROVIDER].key,), CONSUMER: (OLD.key, KEYS[CONSUMER].key)}


def codes(trust: Trust) -> set[str]:
    return {each.code for each in verify(SOUND.data, trust).findings}


def test_keys_that_are_trusted_and_are_those_of_the_file_prove_who_it_was():
    report = verify(SOUND.data, pinned(BOTH))
    assert report.sound
    assert report.trusted
    assert not any("--trust" in text for text in report.unproven)


def test_who_is_not_trusted_is_said():
    assert codes(pinned({PROVIDER: BOTH[PROVIDER]})) == {"trust-unknown"}


def test_a_file_with_keys_of_its_own_is_found_out():
    """Somebody has made up a whole agreement, signed by keys that he calls those of the participants."""
    others: dict[str, tuple[PublicKey, ...]] = {who: (replace(KEYS[STRANGER].key, kid=KEYS[who].kid),) for who in (PROVIDER, CONSUMER)}
    assert {"trust-key", "jws-signature"} <= codes(pinned(others))


def test_a_key_that_counts_at_other_times_is_found_out():
    assert "trust-validity" in codes(pinned(BOTH | {CONSUMER: (replace(OLD.key, not_before=2_000.0), KEYS[CONSUMER].key)}))
    ended = pinned(BOTH | {PROVIDER: (replace(KEYS[PROVIDER].key, not_after=1.0),)})
    assert codes(ended) >= {"jws-key-ended"}
    assert "1970-01-01T00:00:01Z by the keys that are trusted" in "\n".join(verify(SOUND.data, ended).verdict()), "why it is not sound"


def test_a_key_may_have_ended_since_the_file_was_made():
    later = max(said.not_after or 0.0 for said in (OLD.key, *(key.key for key in KEYS.values()))) + 1e10
    since = {who: tuple(replace(key, not_after=min(key.not_after or later, later)) for key in keys) for who, keys in BOTH.items()}
    assert codes(pinned(since)) == set()
    report = verify(SOUND.data, pinned(since))
    named = report.to_json()["narrowed"]
    assert {each["key"] for each in named} == {KEYS[PROVIDER].kid, KEYS[CONSUMER].kid}
    assert all(each["file"] is None and each["trusted"].endswith("Z") for each in named)
    assert f"Key {KEYS[PROVIDER].kid} ends never by the file" in "\n".join(report.verdict())
    assert verify(SOUND.data, pinned(BOTH)).narrowed == ()


def test_an_end_that_the_file_knows_of_counts_also_for_who_trusts_a_key_without_one():
    assert OLD.key.not_after is not None
    assert codes(pinned(BOTH | {CONSUMER: (replace(OLD.key, not_after=None), KEYS[CONSUMER].key)})) == set()


def test_a_participant_may_have_keys_that_the_file_does_not_know_of():
    assert codes(pinned(BOTH | {PROVIDER: (KEYS[PROVIDER].key, replace(KEYS[STRANGER].key, kid=f"{PROVIDER}#k2"))})) == set()


def test_a_log_and_a_witness_may_be_trusted_by_their_verifier_keys_alone():
    log, witness = signer_of(KEYS[PROVIDER], LOGS[PROVIDER]).key.vkey, signer_of(KEYS[CONSUMER], CONSUMER, Kind.COSIGNATURE).key.vkey
    report = verify(SOUND.data, pinned({}, [log, witness]))
    assert report.sound
    assert report.to_json()["identities"] == "of the file", "a file with parties of its own invention could have the same witness"
    assert any(text.startswith("who the participants are") for text in report.unproven)
    other = signer_of(KEYS[STRANGER], LOGS[PROVIDER]).key.vkey
    assert "signature-untrusted" in codes(pinned({}, [other]))
    assert "checkpoint-cosigner" in codes(pinned({}, [signer_of(KEYS[STRANGER], CONSUMER, Kind.COSIGNATURE).key.vkey]))


def test_what_is_no_verifier_key_is_refused():
    with pytest.raises(ProofRefused):
        pinned({}, ["hospital.example/ledger"])
