"""The entry of a fact: canonical JSON, or the signed object itself, and nothing in it that may have to be erased."""

import hashlib

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from connector.dsp.messages import Kind, Move
from connector.records import Evidence
from connector.records.ledger import ENTRY_BYTES_MAX, Witnessed, entry_of, hidden_of

texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]))
facts = st.builds(
    Evidence,
    what=st.text(st.characters(exclude_categories=["Cs"])),
    kind=st.none() | st.sampled_from(Kind),
    pid=texts,
    peer=texts,
    state=texts,
    at=st.floats(0, 2**53).filter(lambda at: at == 0 or at > 1e-4) | st.integers(0, 2**53).map(float),
    move=st.none() | st.sampled_from(Move),
    digest=st.none() | st.binary(min_size=32, max_size=32),
    detail=st.just({"secret": "never in an entry"}),
)


@given(fact=facts, hidden=st.binary(min_size=32, max_size=32))
def test_an_entry_is_the_canonical_json_of_what_the_fact_says(fact: Evidence, hidden: bytes):
    said = {name: getattr(fact, name) for name in ("what", "kind", "pid", "peer", "state", "at", "move")}
    said = {name: str(value) if isinstance(value, str) else value for name, value in said.items()}
    said |= {"v": 1, "digest": fact.digest.hex() if fact.digest else None, "detail": hidden.hex()}
    assert entry_of(fact, hidden) == rfc8785.dumps(said)


def test_an_entry_of_the_first_form_stays_what_it_was():
    """Logs are full of them: a change of a single byte makes every proof of before invalid."""
    fact = Evidence("message-sent", Kind.TRANSFER, "urn:uuid:1", "did:web:a.example", "STARTED", 1764000000.25, Move.START, b"\x01" * 32)
    assert entry_of(fact, b"\x02" * 32).decode() == (
        '{"at":1764000000.25,"detail":"' + "02" * 32 + '","digest":"' + "01" * 32 + '","kind":"transfer","move":"TransferStartMessage",'
        '"peer":"did:web:a.example","pid":"urn:uuid:1","state":"STARTED","v":1,"what":"message-sent"}'
    )


def test_a_signed_object_is_its_own_entry_whatever_the_row_says_about_it():
    fact = Evidence("receipt", None, "urn:uuid:1", None, None, 1.0, detail={"a": 1}, entry="x.y.z")
    assert entry_of(fact, b"\x02" * 32) == b"x.y.z"


@pytest.mark.parametrize("size", [ENTRY_BYTES_MAX, ENTRY_BYTES_MAX + 1])
def test_an_entry_fits_into_a_bundle(size: int):
    fact = Evidence("receipt", None, None, None, None, 1.0, entry="e" * size)
    if size > ENTRY_BYTES_MAX:
        with pytest.raises(ValueError, match="keep what is larger outside"):
            entry_of(fact, b"")
    else:
        assert len(entry_of(fact, b"")) == size


def test_what_is_hidden_depends_on_the_salt_and_on_every_byte():
    assert hidden_of(b"s" * 16, b'{"a":1}') == hashlib.sha256(b"s" * 16 + b'{"a":1}').digest()
    assert len({hidden_of(salt, detail) for salt in (b"s" * 16, b"t" * 16) for detail in (b"", b"{}")}) == 4


def test_what_is_witnessed_of_one_log_by_two_peers_has_two_keys():
    rows = [Witnessed(peer, "a.example/ledger", 1, b"", "") for peer in ("did:web:b.example", "did:web:c.example")]
    assert len({row.key for row in rows}) == 2
