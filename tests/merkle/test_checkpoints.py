"""Checkpoints: published ones, what they bind, and the proof that a log has forked.

What is refused, and with which code, stands in `test_refusals.py`.
"""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import ProofRefused
from connector.merkle import checkpoints, notes
from connector.merkle.checkpoints import Checkpoint
from connector.merkle.tree import SIZE_MAX, leaf_hash
from connector.values import replace
from tests.merkle.samples import AT, CHECKPOINT, LOG, NOTE, ORIGIN, OTHER_WITNESS, STRANGER, WITNESS, checkpoint_of, with_cosignature
from tests.merkle.test_notes import ARCHE, ARCHE_KEY, REMORA

LINES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), min_size=1, max_size=40)


def test_gos_tree_is_written_and_read_as_published():
    text = "go.sum database tree\n123456789012\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBb0=\n"
    tree = Checkpoint("go.sum database tree", 123456789012, leaf_hash(b"hello world"))
    assert tree.text == text
    assert checkpoints.read(text) == tree
    assert checkpoints.read(text + "JOE\n").extensions == ("JOE",)


def test_the_checkpoint_of_the_specification_is_read():
    read = checkpoints.read("example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n")
    assert (read.origin, read.size, read.root.hex()[:8]) == ("example.com/behind-the-sofa", 20852163, "0ac5186a")


def test_a_public_checkpoint_is_opened_with_one_witness():
    key, witness = notes.read_vkey(ARCHE_KEY), notes.read_vkey(REMORA)
    opened = checkpoints.open(ARCHE, key.name, [key], [witness], 1)
    assert opened.checkpoint.size == 1432088532
    assert [each.key for each in opened.signatures] == [key]
    assert [each.at for each in opened.cosignatures] == [1779573024]


def test_a_signed_checkpoint_has_about_two_hundred_bytes():
    assert len(NOTE) < 220
    opened = checkpoints.open(NOTE, ORIGIN, [LOG.key])
    assert opened.checkpoint == CHECKPOINT
    assert opened.cosignatures == ()


def test_extension_lines_are_signed_and_cosigned():
    extended = replace(CHECKPOINT, extensions=("stages consent-filter@2", "x"))
    note = with_cosignature(checkpoints.sign(extended, [LOG]))
    assert checkpoints.open(note, ORIGIN, [LOG.key], [WITNESS.key], 1).checkpoint == extended
    for keys in ([LOG.key], [STRANGER.key, LOG.key]):
        with pytest.raises(ProofRefused, check=lambda error: error.code == "signature-invalid"):
            checkpoints.open(note.replace(b"consent-filter@2", b"consent-filter@1"), ORIGIN, keys)


def test_a_quorum_counts_witnesses_and_not_signatures():
    twice = with_cosignature(with_cosignature(NOTE), at=AT + 1)
    witnesses = [WITNESS.key, OTHER_WITNESS.key]
    assert len(checkpoints.open(twice, ORIGIN, [LOG.key], witnesses, 1).cosignatures) == 2
    with pytest.raises(ProofRefused, check=lambda error: error.code == "witness-quorum"):
        checkpoints.open(twice, ORIGIN, [LOG.key], witnesses, 2)
    assert checkpoints.open(with_cosignature(twice, OTHER_WITNESS), ORIGIN, [LOG.key], witnesses, 2)


def test_a_log_signs_under_its_own_name_only():
    with pytest.raises(ValueError, match="by a key of its name"):
        checkpoints.sign(CHECKPOINT, [STRANGER])


def test_two_roots_for_one_size_are_a_fork_and_growth_is_none():
    other = replace(CHECKPOINT, root=leaf_hash(b"other"))
    assert checkpoints.forked(CHECKPOINT, other)
    assert not checkpoints.forked(CHECKPOINT, CHECKPOINT)
    assert not checkpoints.forked(CHECKPOINT, checkpoint_of(CHECKPOINT.size - 1))
    assert not checkpoints.forked(CHECKPOINT, replace(other, origin="other.example"))


def test_the_largest_size_is_read():
    assert checkpoints.read(replace(CHECKPOINT, size=SIZE_MAX).text).size == SIZE_MAX


@given(LINES, st.integers(1, SIZE_MAX), st.binary(min_size=32, max_size=32), st.lists(LINES, max_size=3))
def test_what_is_written_is_read(origin: str, size: int, root: bytes, extensions: list[str]):
    checkpoint = Checkpoint(origin, size, root, tuple(extensions))
    assert checkpoints.read(checkpoint.text) == checkpoint


@given(st.lists(st.sampled_from(["a", "0", "7", "01", "", base64.b64encode(bytes(32)).decode(), "é"]), max_size=6), st.booleans())
def test_reading_anything_raises_nothing_but_a_refusal_and_loses_nothing(lines: list[str], ended: bool):
    text = "\n".join(lines) + "\n" * ended
    try:
        checkpoint = checkpoints.read(text)
    except ProofRefused:
        return
    assert checkpoint.text == text


@given(st.data())
def test_a_checkpoint_with_a_cosignature_and_one_flipped_bit_is_refused(data: st.DataObject):
    note = with_cosignature(NOTE)
    bit = data.draw(st.integers(0, len(note) * 8 - 1))
    damaged = bytes(byte ^ (1 << bit % 8 if at == bit // 8 else 0) for at, byte in enumerate(note))
    with pytest.raises(ProofRefused):
        checkpoints.open(damaged, ORIGIN, [LOG.key], [WITNESS.key], 1)
