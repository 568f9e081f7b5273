"""Witnessing: a log that grows is cosigned step by step, and every other step is answered as the specification demands.

What is refused while a request is read, and with which code, stands in `test_refusals.py`.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from connector.errors import ProofRefused
from connector.merkle import checkpoints, notes, witness
from connector.merkle.tree import EMPTY, Nodes, consistency, leaf_hash, nodes_of, root_of
from connector.merkle.witness import Answer, Seen
from connector.values import replace
from tests.merkle.samples import (
    AT,
    COUNT,
    LEAVES,
    LOG,
    NODES,
    NOTE,
    ORIGIN,
    OTHER_WITNESS,
    STRANGER,
    WITNESS,
    checkpoint_of,
    with_cosignature,
)

# The request of the specification; its keys are not published.
C2SP_REQUEST = """old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
"""


def signed(size: int, signer: notes.Signer = LOG) -> bytes:
    return checkpoints.sign(checkpoint_of(size, signer.key.name), [signer])


def seen(size: int) -> Seen:
    return Seen(size, checkpoint_of(size).root)


def body(old: int, size: int, note: bytes | None = None) -> bytes:
    return witness.write(old, consistency(old, size, NODES), note or signed(size))


def answered(data: bytes, known: Seen, keys: tuple[notes.VerifierKey, ...] = (LOG.key,)) -> Answer:
    return witness.add_checkpoint(data, keys, known, WITNESS, AT)


def test_the_request_of_the_specification_is_read_and_written_to_the_byte():
    request = witness.read(C2SP_REQUEST.encode())
    assert (request.old, len(request.hashes), request.checkpoint.size) == (20852014, 4, 20852163)
    assert witness.write(request.old, request.hashes, request.note) == C2SP_REQUEST.encode()


def test_a_log_that_grows_is_cosigned_and_remembered():
    known, note = Seen(), NOTE
    for size in (0, 0, 1, 5, 5, 256, COUNT):
        note = signed(size)
        answer = answered(body(known.size, size, note), known)
        assert (answer.status, answer.code, answer.media_type, answer.seen) == (200, "", "text/plain; charset=utf-8", seen(size))
        assert answer.seen is not None
        known = answer.seen
        cosigned = witness.cosigned(note, answer.body, [WITNESS.key])
        opened = checkpoints.open(cosigned, ORIGIN, [LOG.key], [WITNESS.key], 1)
        assert [each.at for each in opened.cosignatures] == [AT]
    assert known.size == COUNT


# what is asked -> (status, code, body of the answer or None)
ANSWERS: dict[str, tuple[bytes, Seen, tuple[notes.VerifierKey, ...], int, str]] = {
    "a log that nobody knows": (body(0, 5), Seen(), (), 404, "witness-origin"),
    "no signature by a trusted key": (body(0, 5), Seen(), (STRANGER.key,), 403, "signature-untrusted"),
    "a forged signature": (
        body(0, 5, signed(5).replace(f"\n{5}\n".encode(), b"\n6\n")),
        Seen(),
        (LOG.key,),
        403,
        "signature-invalid",
    ),
    "an old size above the size": (body(0, 4).replace(b"old 0", b"old 5"), seen(5), (LOG.key,), 400, "sizes-order"),
    "an old size above the size that is not the last either": (
        body(0, 4).replace(b"old 0", b"old 5"),
        seen(3),
        (LOG.key,),
        400,
        "sizes-order",
    ),
    "an old size that is not the last": (body(3, 9), seen(5), (LOG.key,), 409, "witness-old-size"),
    "a first request to a witness that knows more": (body(0, 9), seen(5), (LOG.key,), 409, "witness-old-size"),
    "another tree of the same size": (body(5, 5), replace(seen(5), root=leaf_hash(b"x")), (LOG.key,), 409, "witness-forked"),
    "a proof between the same trees": (witness.write(5, LEAVES[:1], signed(5)), seen(5), (LOG.key,), 422, "consistency-length"),
    "a proof from the empty tree": (witness.write(0, LEAVES[:1], signed(5)), Seen(), (LOG.key,), 422, "consistency-length"),
    "a proof that is missing": (witness.write(3, (), signed(5)), seen(3), (LOG.key,), 422, "consistency-length"),
    "a rewritten past": (body(3, 9), replace(seen(3), root=leaf_hash(b"x")), (LOG.key,), 422, "consistency-old-mismatch"),
    "a proof to another tree": (witness.write(4, consistency(4, 7, NODES), signed(8)), seen(4), (LOG.key,), 422, "consistency-mismatch"),
    "an empty tree with another root": (
        b"old 0\n\n" + notes.signed(f"{ORIGIN}\n0\n{'A' * 43}=\n", [LOG]),
        Seen(),
        (LOG.key,),
        422,
        "checkpoint-root-empty",
    ),
    "no request at all": (b"hello", Seen(), (LOG.key,), 400, "witness-separator"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_step_that_does_not_continue_the_last_is_answered_as_specified(name: str):
    data, known, keys, status, code = ANSWERS[name]
    answer = answered(data, known, keys)
    assert (answer.status, answer.code, answer.seen) == (status, code, None)
    assert b"\xe2\x80\x94" not in answer.body
    if code == "witness-old-size":
        assert (answer.body, answer.media_type) == (f"{known.size}\n".encode(), "text/x.tlog.size")
    else:
        assert answer.body.startswith(f"{code}: ".encode())


def test_every_code_with_a_status_of_its_own_is_met():
    assert set(witness.STATUSES) == {code for *_, code in ANSWERS.values()} - {"witness-separator"}


def test_a_log_takes_cosignatures_of_its_witnesses_only_and_each_once():
    mine = answered(body(0, COUNT), Seen()).body
    others = witness.add_checkpoint(body(0, COUNT), [LOG.key], Seen(), OTHER_WITNESS, AT).body
    note = witness.cosigned(NOTE, mine + others, [WITNESS.key])
    assert note == with_cosignature(NOTE)
    assert witness.cosigned(note, mine, [WITNESS.key]) == note
    for code, answer, keys in (
        ("signature-untrusted", others, [WITNESS.key]),
        ("signature-invalid", answered(body(0, 5), Seen()).body, [WITNESS.key]),
        ("note-unsigned", b"", [WITNESS.key]),
        ("signature-line", b"409\n", [WITNESS.key]),
        ("note-utf8", b"\xff\n", [WITNESS.key]),
    ):
        with pytest.raises(ProofRefused, check=lambda error, code=code: error.code == code):
            witness.cosigned(NOTE, answer, keys)


def test_as_many_proof_lines_and_bytes_as_there_may_be_are_read():
    assert len(witness.read(witness.write(1, LEAVES[:63], NOTE)).hashes) == 63
    own = notes.read(NOTE)
    padding = 256 * 1024 - len(NOTE)
    name = "a" * (padding - len(notes.Signature("", b"1234", b"x").line.encode()))
    largest = notes.write(notes.Note(own.text, (*own.signatures, notes.Signature(name, b"1234", b"x"))))
    assert len(largest) == 256 * 1024
    assert witness.read(witness.write(1, LEAVES[:63], largest)).note == largest
    with pytest.raises(ProofRefused, check=lambda error: error.code == "witness-separator"):
        witness.read(bytes(264 * 1024))
    with pytest.raises(ProofRefused, check=lambda error: error.code == "witness-size"):
        witness.read(bytes(264 * 1024 + 1))


def test_a_witness_without_a_cosigning_key_signs_nothing():
    with pytest.raises(ValueError, match="cosignature"):
        witness.add_checkpoint(body(0, 5), [LOG.key], Seen(), LOG, AT)


@given(st.data())
def test_a_request_with_one_flipped_bit_is_not_cosigned(data: st.DataObject):
    request = bytearray(body(5, 9))
    bit = data.draw(st.integers(0, len(request) * 8 - 1))
    request[bit // 8] ^= 1 << bit % 8
    answer = answered(bytes(request), seen(5))
    assert answer.status in {400, 403, 404, 409, 422}
    assert answer.seen is None


@given(st.binary(max_size=120))
def test_anything_posted_is_answered(data: bytes):
    assert answered(data, seen(5)).status == 400
    with pytest.raises(ProofRefused):
        witness.read(data)


FORKED = LEAVES[:7] + [leaf_hash(bytes([number])) for number in range(40)]
LINES = [(leaves, nodes_of(leaves), [root_of(leaves[:size]) for size in range(41)]) for leaves in (LEAVES[:47], FORKED)]


class Witnessing(RuleBasedStateMachine):
    """Whatever logs ask for in any order, a witness has cosigned one line of trees, each the beginning of the next."""

    def __init__(self) -> None:
        super().__init__()
        self.known = Seen()
        self.cosigned: list[Seen] = []

    @rule(old=st.none() | st.integers(0, 40), size=st.integers(0, 40), line=st.sampled_from(LINES))
    def asked(self, old: int | None, size: int, line: tuple[list[bytes], Nodes, list[bytes]]) -> None:
        _, nodes, roots = line
        old = self.known.size if old is None else old
        note = checkpoints.sign(checkpoints.Checkpoint(ORIGIN, size, roots[size]), [LOG])
        hashes = consistency(old, size, nodes) if old <= size else ()
        answer = answered(witness.write(old, hashes, note), self.known)
        if answer.seen is not None:
            self.known = answer.seen
            self.cosigned.append(answer.seen)

    @invariant()
    def one_line(self) -> None:
        assert any(all(roots[each.size] == each.root for each in self.cosigned) for _, _, roots in LINES)
        assert [each.size for each in self.cosigned] == sorted(each.size for each in self.cosigned)


TestWitnessing = Witnessing.TestCase
TestWitnessing.settings = settings(max_examples=40, stateful_step_count=20)


def test_the_empty_tree_has_been_seen_before_anything():
    assert Seen() == Seen(0, EMPTY)
