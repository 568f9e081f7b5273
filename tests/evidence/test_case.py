"""What the checks share: objects are read by the keys that counted when they were signed, or told with the code of what is wrong."""

import pytest
from nacl.bindings import crypto_sign_open

from connector.evidence.case import Case
from connector.evidence.members import OBJECTS, Finding, Member
from connector.evidence.verify import verify
from connector.merkle import notes
from connector.metering.objects import Ack, Manifest
from connector.signatures import jws
from tests.evidence.rig import CONSUMER, KEYS, MANIFEST, NOW, OLD, PROVIDER, SOUND, note_over, signed


def case() -> Case:
    members = {kind: [Member(1, 0, kind, value) for each, value in SOUND.members if each == kind] for kind, _ in SOUND.members}
    found: list[Finding] = []
    made = Case(members, members["evidence"][0], members["agreement"][0], found)
    made.keys = {PROVIDER: (KEYS[PROVIDER].key,), CONSUMER: (OLD.key, KEYS[CONSUMER].key)}
    return made


def test_the_two_sides_are_told_apart():
    at = case()
    assert (at.provider, at.consumer, at.exporter, at.counterparty) == (PROVIDER, CONSUMER, PROVIDER, CONSUMER)


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("a.b", "jws-parts"),
        ("\u00e4.b.c", "jws-parts"),
        (signed(MANIFEST, OLD), "jws-kid"),
        (signed(MANIFEST)[:-4] + "AAAA", "jws-signature"),
        ("e30.e30.e30", "jws-payload"),
    ],
)
def test_an_object_that_does_not_hold_is_told_with_its_code(token: str, code: str):
    at = case()
    assert at.object(Manifest, PROVIDER, Member(7, 70, "manifest", {"jws": token, "transfer": "t"})) is None
    assert [(each.code, each.line, each.offset, each.pointer) for each in at.found] == [(code, 7, 70, "/jws")]


def test_an_object_is_read_by_the_keys_of_its_own_instant():
    at = case()
    token = signed(MANIFEST)
    read = at.object(Manifest, PROVIDER, Member(1, 0, "manifest", {"jws": token, "transfer": "t"}))
    assert read is not None
    assert (read.value, read.token, read.transfer) == (MANIFEST, token, "t")
    assert at.object(Ack, PROVIDER, Member(1, 0, "ack", {"jws": token, "transfer": "t"})) is None
    assert at.found[-1].code == "jws-typ"
    assert (OLD.key.not_after or 0) < NOW


def test_a_signature_is_looked_at_once_in_a_whole_file(monkeypatch: pytest.MonkeyPatch):
    seen: list[bytes] = []

    def look(signed: bytes, key: bytes) -> bytes:
        seen.append(signed)
        return crypto_sign_open(signed, key)

    monkeypatch.setattr(jws, "crypto_sign_open", look)
    assert verify(SOUND.data).sound
    assert len(seen) == len(set(seen)) == 1 + sum(kind in OBJECTS for kind, _ in SOUND.members), "with the attestation"


def test_nobody_cosigns_his_own_ledger():
    at, note = case(), notes.read(note_over([b"x" * 32]).encode())
    assert {key.name for key in at.witness_keys(PROVIDER, note)} == {CONSUMER}
    assert {key.name for key in at.log_keys(PROVIDER, "hospital.example/ledger", NOW, note)} == {"hospital.example/ledger"}
