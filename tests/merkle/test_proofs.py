"""Proofs that stand alone: the published texts, and what an offline verification binds.

What is refused, and with which code, stands in `test_refusals.py`.
"""

import hashlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import ProofRefused
from connector.merkle import proofs
from connector.merkle.proofs import Proof
from connector.merkle.tree import inclusion, leaf_hash
from connector.values import replace
from tests.merkle.samples import COUNT, ENTRIES, INDEX, LEAVES, LOG, NODES, NOTE, ORIGIN, OTHER_WITNESS, PROOF, WITNESS, with_cosignature

ONE, TWO = hashlib.sha256(b"hash1").digest(), hashlib.sha256(b"hash2").digest()
SAMPLE = Proof(INDEX, PROOF, with_cosignature(NOTE))

# Of the tests of transparency-dev/formats (Apache License 2.0).
PUBLISHED = {
    f"c2sp.org/tlog-proof@v1\nindex 5\n{b64encode(ONE).decode()}\n{b64encode(TWO).decode()}\n\ntest checkpoint\n": Proof(
        5, (ONE, TWO), b"test checkpoint\n"
    ),
    f"c2sp.org/tlog-proof@v1\nextra ZXh0cmEgaW5mb3JtYXRpb24=\nindex 10\n{b64encode(ONE).decode()}\n\ncheckpoint data\n": Proof(
        10, (ONE,), b"checkpoint data\n", b"extra information"
    ),
    "c2sp.org/tlog-proof@v1\nindex 0\n\ncheckpoint\n": Proof(0, (), b"checkpoint\n"),
}


@pytest.mark.parametrize("text", PUBLISHED)
def test_published_proofs_are_written_and_read(text: str):
    assert proofs.write(PUBLISHED[text]) == text.encode()
    assert proofs.read(text.encode()) == PUBLISHED[text]


def test_the_head_of_the_example_of_the_specification_is_read():
    text = (
        b"c2sp.org/tlog-proof@v1\nindex 73894\ngSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=\n"
        b"B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=\n\nexample.com/fancylog\n109482\n"
    )
    assert (proofs.read(text).index, len(proofs.read(text).hashes)) == (73894, 2)


def test_as_many_hashes_and_bytes_as_there_may_be_are_read():
    most = Proof(0, (ONE,) * 64, b"x")
    assert proofs.read(proofs.write(most)) == most
    head = len(proofs.write(replace(most, checkpoint=b"")))
    largest = replace(most, checkpoint=bytes(320 * 1024 - head))
    assert proofs.read(proofs.write(largest)) == largest
    with pytest.raises(ProofRefused, check=lambda error: error.code == "proof-size"):
        proofs.write(replace(largest, checkpoint=largest.checkpoint + b"x"))


def test_a_proof_is_verified_with_nothing_but_keys():
    opened = proofs.verify(proofs.read(proofs.write(SAMPLE)), leaf_hash(ENTRIES[INDEX]), ORIGIN, [LOG.key], [WITNESS.key], 1)
    assert (opened.checkpoint.size, len(opened.cosignatures)) == (COUNT, 1)
    with pytest.raises(ProofRefused, check=lambda error: error.code == "witness-quorum"):
        proofs.verify(SAMPLE, LEAVES[INDEX], ORIGIN, [LOG.key], [OTHER_WITNESS.key], 1)


@given(st.integers(0, COUNT - 1), st.integers(0, COUNT - 1), st.binary(max_size=40))
def test_a_proof_holds_for_its_entry_alone(index: int, other: int, extra: bytes):
    proof = Proof(index, inclusion(index, COUNT, NODES), NOTE, extra)
    assert proofs.read(proofs.write(proof)) == proof
    proofs.verify(proof, LEAVES[index], ORIGIN, [LOG.key])
    if other != index:
        for wrong, leaf in (
            (proof, LEAVES[other]),
            (replace(proof, index=other), LEAVES[index]),
            (replace(proof, index=other), LEAVES[other]),
        ):
            with pytest.raises(ProofRefused):
                proofs.verify(wrong, leaf, ORIGIN, [LOG.key])


@given(st.data())
def test_a_proof_with_one_flipped_bit_is_refused(data: st.DataObject):
    written = bytearray(proofs.write(replace(SAMPLE, checkpoint=NOTE)))
    bit = data.draw(st.integers(0, len(written) * 8 - 1))
    written[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ProofRefused):
        proofs.verify(proofs.read(bytes(written)), LEAVES[INDEX], ORIGIN, [LOG.key])


TEXTS = st.lists(st.sampled_from(["extra YQ==", "index 1", "", b64encode(ONE).decode(), "x"])).map(
    lambda lines: "\n".join([proofs.HEADER, *lines]).encode()
)


@given(st.one_of(st.binary(max_size=100), TEXTS))
def test_reading_anything_raises_nothing_but_a_refusal_and_loses_nothing(data: bytes):
    try:
        proof = proofs.read(data)
    except ProofRefused:
        return
    assert proofs.write(proof) == data
