"""A log computed anew: the entry that was altered is named, and a log that was made to fit is found out by what was signed."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.errors import ProofRefused
from connector.evidence.whole_log import WholeLog
from connector.ledger.book import signer_of
from connector.merkle import checkpoints, tiles
from connector.merkle.tree import leaf_hash, root_of
from connector.signatures.jws import signing_key

ORIGIN = "hospital.example/ledger"
KEY = signing_key("did:web:hospital.example#1", hashlib.sha256(b"seed").digest())
SIGNER = signer_of(KEY, ORIGIN)
ENTRIES = [b"entry %d" % number for number in range(520)]


def note(entries: list[bytes]) -> bytes:
    return checkpoints.sign(checkpoints.Checkpoint(ORIGIN, len(entries), root_of(map(leaf_hash, entries))), (SIGNER,))


def check(log: WholeLog, entries: list[bytes], leaves: list[bytes] | None = None) -> None:
    hashes = leaves or [leaf_hash(entry) for entry in entries]
    for tile, bundle in log.wanted():
        start = tiles.read_path(tile).index * tiles.WIDTH
        end = min(start + tiles.WIDTH, len(entries))
        log.take(bundle, b"".join(hashes[start:end]), tiles.write_bundle(entries[start:end]))


@pytest.mark.parametrize("size", [1, 255, 256, 257, 520])
def test_a_log_that_is_as_it_was_signed_passes(size: int):
    older = [note(ENTRIES[:count]) for count in (1, size)]
    check(WholeLog(ORIGIN, note(ENTRIES[:size]), [SIGNER.key.vkey], older), ENTRIES[:size])


@settings(max_examples=30)
@given(place=st.integers(0, 519), fitted=st.booleans())
def test_one_altered_entry_is_found_whether_its_hash_was_made_to_fit_or_not(place: int, fitted: bool):
    altered = [*ENTRIES[:place], b"another", *ENTRIES[place + 1 :]]
    leaves = [leaf_hash(entry) for entry in (altered if fitted else ENTRIES)]
    with pytest.raises(ProofRefused) as refused:
        check(WholeLog(ORIGIN, note(ENTRIES), [SIGNER.key.vkey]), altered, leaves)
    assert refused.value.code == ("log-mismatch" if fitted else "bundle-mismatch")
    assert fitted or refused.value.message.startswith(f"entry {place} ")


def test_a_log_that_was_signed_anew_is_found_out_by_what_a_witness_has():
    rewritten = [b"another", *ENTRIES[1:]]
    with pytest.raises(ProofRefused, match="the first 300 entries"):
        check(WholeLog(ORIGIN, note(rewritten), [SIGNER.key.vkey], [note(ENTRIES[:300])]), rewritten)


def test_a_log_that_has_become_shorter_is_refused_before_it_is_read():
    with pytest.raises(ProofRefused, match="was signed with 9 entries, and now it has 5"):
        WholeLog(ORIGIN, note(ENTRIES[:5]), [SIGNER.key.vkey], [note(ENTRIES[:9])])


def test_a_checkpoint_by_another_key_counts_for_nothing():
    other = signer_of(signing_key("did:web:x.example#1", bytes(32)), ORIGIN)
    with pytest.raises(ProofRefused) as refused:
        WholeLog(ORIGIN, note(ENTRIES[:5]), [other.key.vkey])
    assert refused.value.code == "signature-untrusted"
