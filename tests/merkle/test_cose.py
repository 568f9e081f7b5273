"""COSE receipts against an independent implementation (`scitt-cose`), both ways, and as laws.

What is refused, and with which code, stands in `test_refusals.py`.
"""

import cbor2
import pytest
import scitt_cose
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.errors import ProofRefused
from connector.merkle import cose
from connector.merkle.cose import Statement
from connector.merkle.tree import consistency, inclusion, root_of
from tests.merkle.samples import AT, COUNT, ENTRIES, LEAVES, LOG, NODES, STRANGER

KID = "did:web:provider.example#log"
STATEMENT = Statement(KID, "did:web:provider.example", "urn:uuid:agreement", AT)
PEM = Ed25519PublicKey.from_public_bytes(LOG.key.public).public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
SIZES = st.integers(1, 40)


def key_of(kid: str) -> bytes:
    assert kid == KID
    return LOG.key.public


def included(index: int, size: int, statement: Statement = STATEMENT) -> bytes:
    return cose.inclusion_receipt(statement, LEAVES[index], index, size, inclusion(index, size, NODES), LOG.sign)


def continued(old: int, size: int) -> bytes:
    return cose.consistency_receipt(STATEMENT, old, root_of(LEAVES[:old]), size, consistency(old, size, NODES), LOG.sign)


# ---- against scitt-cose


@settings(max_examples=40)
@given(SIZES, st.data())
def test_our_receipts_of_inclusion_are_verified_by_another_implementation(size: int, data: st.DataObject):
    index = data.draw(st.integers(0, size - 1))
    result = scitt_cose.verify_receipt(included(index, size), leaf_entry_hex=ENTRIES[index].hex(), log_public_key_pem=PEM)
    assert result.ok, result.errors
    assert (result.root, result.tree_size, result.leaf_index) == (root_of(LEAVES[:size]).hex(), size, index)
    assert (result.issuer, result.subject, result.iat) == (STATEMENT.issuer, STATEMENT.subject, AT)
    assert result.protected_header_ext == {4: KID.encode(), cose.TREE_SIZE: size}
    assert not scitt_cose.verify_receipt(included(index, size), leaf_entry_hex=b"other".hex(), log_public_key_pem=PEM).ok


@settings(max_examples=40)
@given(SIZES, st.data())
def test_receipts_of_another_implementation_are_verified(size: int, data: st.DataObject):
    index = data.draw(st.integers(0, size - 1))
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    receipt = scitt_cose.build_receipt(
        leaf_entry_hex=ENTRIES[index].hex(),
        leaf_index=index,
        tree_entries_hex=[entry.hex() for entry in ENTRIES[:size]],
        alg="EdDSA",
        log_private_key_pem=private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        iss=STATEMENT.issuer,
        sub=STATEMENT.subject,
        kid=KID.encode(),
    )
    public = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    result = cose.verify_inclusion_receipt(receipt, LEAVES[index], lambda _: public)
    assert result == cose.Included(Statement(KID, STATEMENT.issuer, STATEMENT.subject), index, size, root_of(LEAVES[:size]), sized=False)


@settings(max_examples=40)
@given(SIZES, st.data())
def test_our_receipts_of_consistency_carry_what_another_implementation_verifies(size: int, data: st.DataObject):
    old = data.draw(st.integers(1, size))
    receipt = continued(old, size)
    result = cose.verify_consistency_receipt(receipt, old, root_of(LEAVES[:old]), key_of)
    assert result == cose.Continued(STATEMENT, old, size, root_of(LEAVES[:size]), sized=True)
    signed = scitt_cose.verify_sign1(
        receipt, public_key_pem=PEM, detached_payload=result.root, understood_labels=frozenset({1, 4, 15, 395})
    )
    (blob,) = signed.unprotected[396][-2]
    start, end, hashes = cbor2.loads(blob)
    assert scitt_cose.verify_consistency(root_of(LEAVES[:old]).hex(), result.root.hex(), start, end, [hash_.hex() for hash_ in hashes])


@settings(max_examples=20)
@given(SIZES, st.data())
def test_a_statement_with_its_receipts_is_read_by_another_implementation(size: int, data: st.DataObject):
    index = data.draw(st.integers(0, size - 1))
    receipts = [included(index, size), included(index, COUNT)]
    made = cose.transparent_statement(STATEMENT, ENTRIES[index], "application/json", receipts, LOG.sign)
    said = scitt_cose.parse_signed_statement(made, public_key_pem=PEM)
    assert said["signature_verified"] is True, said
    assert (said["issuer"], said["subject"], said["content_type"], said["payload"]) == (
        STATEMENT.issuer,
        STATEMENT.subject,
        "application/json",
        ENTRIES[index],
    )
    assert scitt_cose.extract_receipts(made) == receipts
    assert all(scitt_cose.verify_receipt(each, leaf_entry_hex=said["payload"].hex(), log_public_key_pem=PEM).ok for each in receipts)
    altered = made.replace(ENTRIES[index], b"x" * len(ENTRIES[index])) if ENTRIES[index] else made[:-1] + bytes((made[-1] ^ 1,))
    assert scitt_cose.parse_signed_statement(altered, public_key_pem=PEM)["signature_verified"] is False


# ---- our own


def test_a_receipt_is_tagged_and_detached_and_names_the_structure_in_its_protected_header():
    receipt = cbor2.loads(included(7, 20))
    protected, unprotected, payload, signature = receipt.value
    assert (receipt.tag, payload, len(signature)) == (18, None, 64)
    header = cbor2.loads(protected)
    assert (header[1], header[395], header[4]) == (-8, 1, KID.encode())
    assert cbor2.loads(unprotected[396][-1][0]) == [20, 7, list(inclusion(7, 20, NODES))]


def test_a_receipt_of_a_million_entries_stays_below_a_kilobyte():
    size = 1_000_000
    receipt = cose.inclusion_receipt(STATEMENT, LEAVES[0], 0, size, [bytes(32)] * 20, LOG.sign)
    assert len(receipt) < 1000


def test_the_new_name_of_the_algorithm_is_taken():
    protected, unprotected, payload, _ = cbor2.loads(included(3, 9)).value
    renamed = cbor2.dumps({**cbor2.loads(protected), 1: -19})  # RFC 9864
    signature = LOG.sign(cbor2.dumps(["Signature1", renamed, b"", root_of(LEAVES[:9])]))
    receipt = cbor2.dumps(cbor2.CBORTag(18, [renamed, unprotected, payload, signature]))
    assert cose.verify_inclusion_receipt(receipt, LEAVES[3], key_of).index == 3


def test_a_receipt_may_have_sixty_four_kibibytes():
    length = 64 * 1024 - len(included(3, 9, Statement(KID, STATEMENT.issuer, "x" * 60_000))) + 60_000
    largest = included(3, 9, Statement(KID, STATEMENT.issuer, "x" * length))
    assert len(largest) == 64 * 1024
    assert cose.verify_inclusion_receipt(largest, LEAVES[3], key_of).sized


def test_the_time_may_be_left_out():
    without = Statement(KID, STATEMENT.issuer, STATEMENT.subject)
    assert cose.verify_inclusion_receipt(included(3, 9, without), LEAVES[3], key_of).statement == without


def test_a_statement_cannot_be_exchanged_after_signing():
    for changed in (Statement(KID, "did:web:other.example", STATEMENT.subject, AT), Statement(KID, STATEMENT.issuer, "urn:x", AT)):
        theirs, ours = cbor2.loads(included(3, 9, changed)).value, cbor2.loads(included(3, 9)).value
        mixed = cbor2.dumps(cbor2.CBORTag(18, [theirs[0], *ours[1:]]))
        with pytest.raises(ProofRefused, check=lambda error: error.code == "receipt-signature"):
            cose.verify_inclusion_receipt(mixed, LEAVES[3], key_of)


def test_a_receipt_by_another_key_is_refused():
    with pytest.raises(ProofRefused, check=lambda error: error.code == "receipt-signature"):
        cose.verify_inclusion_receipt(included(3, 9), LEAVES[3], lambda _: STRANGER.key.public)


def test_what_says_that_there_is_no_key_is_passed_on():
    def nobody(_: str) -> bytes:
        raise LookupError("nobody")

    with pytest.raises(LookupError):
        cose.verify_inclusion_receipt(included(3, 9), LEAVES[3], nobody)


@given(st.data())
def test_a_receipt_with_one_flipped_bit_is_refused(data: st.DataObject):
    inclusive = data.draw(st.booleans())
    receipt = bytearray(included(137, COUNT) if inclusive else continued(137, COUNT))
    bit = data.draw(st.integers(0, len(receipt) * 8 - 1))
    receipt[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ProofRefused):
        verify_either(bytes(receipt), inclusive)


def verify_either(receipt: bytes, inclusive: bool) -> None:
    if inclusive:
        cose.verify_inclusion_receipt(receipt, LEAVES[137], lambda _: LOG.key.public)
    else:
        cose.verify_consistency_receipt(receipt, 137, root_of(LEAVES[:137]), lambda _: LOG.key.public)


def test_the_size_is_signed_for_by_us_and_may_be_exchanged_where_it_is_not():
    """RFC 9942 signs the root alone: leaf 4 of 5 becomes leaf 1 of 2 under the same signature."""
    hashes = inclusion(4, 5, NODES)
    assert hashes == (root_of(LEAVES[:4]),)
    ours = included(4, 5)
    protected, _, payload, signature = cbor2.loads(ours).value
    other = {396: {-1: [cbor2.dumps([2, 1, list(hashes)])]}}
    exchanged = cbor2.dumps(cbor2.CBORTag(18, [protected, other, payload, signature]))
    assert scitt_cose.verify_receipt(exchanged, leaf_entry_hex=ENTRIES[4].hex(), log_public_key_pem=PEM).leaf_index == 1
    with pytest.raises(ProofRefused, check=lambda error: error.code == "receipt-tree-size"):
        cose.verify_inclusion_receipt(exchanged, LEAVES[4], key_of)
    assert cose.verify_inclusion_receipt(ours, LEAVES[4], key_of).sized


@given(st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(lambda data: b"\xd2" + data)))
def test_reading_anything_raises_nothing_but_a_refusal(data: bytes):
    with pytest.raises(ProofRefused):
        cose.verify_inclusion_receipt(data, LEAVES[0], key_of)
