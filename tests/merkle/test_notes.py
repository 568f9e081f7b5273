"""Signed notes: the published ones of Go's sumdb and of C2SP, a public checkpoint with its cosignatures, and laws.

What is refused, and with which code, stands in `test_refusals.py`.
"""

import base64
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import ProofRefused
from connector.merkle import notes
from connector.merkle.notes import Kind, Note, Signature, read_vkey
from tests.merkle.samples import AT, LOG, NOTE, STRANGER, WITNESS, signer, signing

PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]  # of `PRIVATE+KEY+PeterNeumann+c74f20a3+...`
ENOCH = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_LINE = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
ENOCH_LINE = "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
BOTH = f"{TEXT}\n{PETER_LINE}{ENOCH_LINE}".encode()

ARCHE = (Path(__file__).parents[1] / "data" / "merkle" / "arche2025h1.checkpoint").read_bytes()
ARCHE_KEY = "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
REMORA = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"

C2SP_NOTE = """Ognuno sta solo sul cuor della terra
trafitto da un raggio di sole:

ed è subito sera.

— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=
"""
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Zs", "Zl", "Zp", "Cc"), exclude_characters="+"), min_size=1)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc",), include_characters="\n"), max_size=80).map(
    lambda text: text + "\n"
)


# ---- published notes


def test_gos_keys_are_read_and_written():
    for vkey in (PETER, ENOCH, REMORA, ARCHE_KEY):
        assert read_vkey(vkey).vkey == vkey
    assert read_vkey(PETER).id.hex() == "c74f20a3"
    assert read_vkey(REMORA).kind is Kind.COSIGNATURE


def test_gos_note_is_signed_to_the_byte():
    from nacl.bindings import crypto_sign_seed_keypair

    _, secret = crypto_sign_seed_keypair(PETER_SEED)
    peter = notes.Signer(read_vkey(PETER), lambda message: signing(secret, message))
    assert notes.signed(TEXT, [peter]) == f"{TEXT}\n{PETER_LINE}".encode()


def test_gos_notes_are_opened_with_the_keys_that_are_known():
    note = notes.read(BOTH)
    assert note.text == TEXT
    assert notes.write(note) == BOTH
    assert [each.key.name for each in notes.verify(note, [read_vkey(PETER)])] == ["PeterNeumann"]
    assert [each.key.name for each in notes.verify(note, [read_vkey(ENOCH), read_vkey(PETER)])] == ["PeterNeumann", "EnochRoot"]


def test_none_of_gos_manglings_of_a_key_is_read():
    mangled = {PETER[start:end] for start in range(len(PETER) + 1) for end in range(start + 1, len(PETER) + 1)} - {PETER}
    mangled |= {PETER[:at] + chr(ord(PETER[at]) + 1) + PETER[at + 1 :] for at in range(len(PETER))}
    mangled |= {
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    }
    for text in mangled:
        with pytest.raises(ProofRefused):
            read_vkey(text)


def test_a_public_checkpoint_is_verified_with_the_keys_of_its_log_and_of_a_witness():
    verified = notes.verify(notes.read(ARCHE), [read_vkey(ARCHE_KEY), read_vkey(REMORA)])
    assert [(each.key.name, each.at) for each in verified] == [(read_vkey(ARCHE_KEY).name, None), ("remora.n621.de", 1779573024)]
    with pytest.raises(ProofRefused, check=lambda error: error.code == "signature-invalid"):
        notes.verify(notes.read(ARCHE.replace(b"1432088532", b"1432088533")), [read_vkey(REMORA)])


def test_the_notes_of_the_specifications_are_read_and_written_to_the_byte():
    note = notes.read(C2SP_NOTE.encode())
    assert note.text.endswith("\n\ned è subito sera.\n")
    assert note.signatures[0].name == "quasimodo.example/salvatore"
    assert notes.write(note) == C2SP_NOTE.encode()
    assert notes.write(notes.read(ARCHE)) == ARCHE


def test_the_time_stands_in_front_of_a_cosignature_as_published():
    value = base64.b64decode("ZGhGuQAAAABm/qTPeyKXD+R2rzyQsxPiP8mXum7qq/iF0u4vanlqJyocWODBt97w9uL+8qT7S5gxEHWWOworDcFiEBYJXORmnFBOBA==")
    assert (len(value), int.from_bytes(value[4:12], "big")) == (4 + 8 + 64, 1727964367)


# ---- our own


def test_a_cosignature_is_over_the_header_the_time_and_the_note():
    asked: list[bytes] = []

    def sign(message: bytes) -> bytes:
        asked.append(message)
        return WITNESS.sign(message)

    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    signature = notes.sign(text, notes.Signer(WITNESS.key, sign), 1679315147)
    assert asked == [b"cosignature/v1\ntime 1679315147\n" + text.encode()]
    assert signature.value[:8] == (1679315147).to_bytes(8, "big")
    (verified,) = notes.verify(Note(text, (signature,)), [WITNESS.key])
    assert verified.at == 1679315147


def test_one_key_under_two_types_has_two_ids_and_neither_verifies_the_other():
    plain, cosigning = signer("a.example"), signer("a.example", Kind.COSIGNATURE)
    assert plain.key.public == cosigning.key.public
    assert plain.key.id != cosigning.key.id
    with pytest.raises(ProofRefused, check=lambda error: error.code == "signature-untrusted"):
        notes.verify(Note("x\n", (notes.sign("x\n", cosigning, AT),)), [plain.key])


def test_signatures_of_strangers_are_ignored_even_under_a_known_name():
    impostor = signer(LOG.key.name, seed="another")
    note = notes.read(NOTE)
    assert impostor.key.id != LOG.key.id
    mixed = Note(note.text, (notes.sign("other\n", impostor), *note.signatures, notes.sign("other\n", STRANGER)))
    assert [each.key for each in notes.verify(notes.read(notes.write(mixed)), [LOG.key])] == [LOG.key]


def test_sixteen_signatures_of_five_kilobytes_are_taken():
    strangers = tuple(Signature(f"pq.example/{number}", b"\0\0\0\1", bytes(5000)) for number in range(16))
    note = notes.read(NOTE)
    assert notes.verify(notes.read(notes.write(Note(note.text, (*strangers, *note.signatures)))), [LOG.key])


@pytest.mark.parametrize("at", [0, 2**63 - 1])
def test_a_cosignature_may_be_of_the_first_and_of_the_last_second(at: int):
    (verified,) = notes.verify(Note("x\n", (notes.sign("x\n", WITNESS, at),)), [WITNESS.key])
    assert verified.at == at


def test_a_signer_is_not_asked_for_what_its_key_does_not_sign():
    for key, at in ((LOG, AT), (WITNESS, None), (WITNESS, -1), (WITNESS, 2**63)):
        with pytest.raises(ValueError, match="cosignature"):
            notes.sign("x\n", key, at)
    with pytest.raises(ValueError, match="64 bytes"):
        notes.sign("x\n", notes.Signer(LOG.key, lambda _: b"short"))


@given(NAMES)
def test_a_key_survives_being_written(name: str):
    key = signer(name, seed="one").key
    assert read_vkey(key.vkey) == key


@given(TEXTS, st.lists(NAMES, min_size=1, max_size=4))
def test_what_is_signed_is_read_and_verified(text: str, names: list[str]):
    signers = [signer(name, seed="one") for name in dict.fromkeys(names)]
    data = notes.signed(text, signers)
    note = notes.read(data)
    assert note.text == text
    assert notes.write(note) == data
    assert [each.key for each in notes.verify(note, [each.key for each in signers])] == [each.key for each in signers]


@given(st.integers(0, len(NOTE) * 8 - 1))
def test_a_note_with_one_flipped_bit_is_refused(bit: int):
    damaged = bytes(byte ^ (1 << bit % 8 if at == bit // 8 else 0) for at, byte in enumerate(NOTE))
    with pytest.raises(ProofRefused):
        notes.verify(notes.read(damaged), [LOG.key])


@given(st.one_of(st.binary(max_size=200), st.text(string.printable + "— ", max_size=200).map(str.encode)))
def test_reading_anything_raises_nothing_but_a_refusal_and_loses_nothing(data: bytes):
    try:
        note = notes.read(data)
    except ProofRefused:
        return
    assert notes.write(note) == data
