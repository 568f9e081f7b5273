"""The seal of an evidence file: it names the one byte that was altered, and never the wrong one."""

import json

from hypothesis import given
from hypothesis import strategies as st

from connector.evidence.sealed import SEAL_BYTES, Altered, Sealing, sealed, unsealed

BODIES = st.binary(min_size=1, max_size=2_000)


@given(BODIES)
def test_a_file_as_it_was_sealed_is_whole(body: bytes):
    assert unsealed(sealed(body)) == body


@given(BODIES)
def test_a_seal_says_the_sums_by_which_a_byte_is_found(body: bytes):
    said = json.loads(sealed(body)[len(body) :])["seal"]
    assert (int(said["sum"]), int(said["moment"])) == (sum(body), sum(at * byte for at, byte in enumerate(body, 1)))


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_a_body_that_is_written_piece_by_piece_has_the_seal_of_the_whole(pieces: list[bytes]):
    sealing = Sealing()
    body = b"".join(map(sealing.add, pieces))
    assert body + sealing.seal == sealed(body)


@given(BODIES, st.data())
def test_one_altered_byte_is_named_wherever_it_is(body: bytes, data: st.DataObject):
    whole = bytearray(sealed(body))
    at = data.draw(st.integers(0, len(whole) - 1))
    was = whole[at]
    whole[at] = data.draw(st.integers(0, 255).filter(lambda value: value != was))
    found = unsealed(bytes(whole))
    assert isinstance(found, Altered)
    assert (found.offset, found.was) == (at, was)


@given(BODIES, st.data())
def test_several_altered_bytes_are_never_taken_for_one(body: bytes, data: st.DataObject):
    whole = bytearray(sealed(body))
    places = data.draw(st.sets(st.integers(0, len(body) - 1), min_size=min(2, len(body)), max_size=6))
    for at in places:
        whole[at] ^= data.draw(st.integers(1, 255))
    found = unsealed(bytes(whole))
    assert isinstance(found, Altered)
    assert found.offset is None or places == {found.offset}


@given(BODIES, st.integers(1, SEAL_BYTES + 500))
def test_a_file_that_was_cut_is_not_whole(body: bytes, less: int):
    found = unsealed(sealed(body)[:-less])
    assert isinstance(found, Altered)
    assert found.offset is None


@given(BODIES, st.binary(min_size=1, max_size=50), st.data())
def test_bytes_that_were_put_in_are_told(body: bytes, more: bytes, data: st.DataObject):
    whole = sealed(body)
    at = data.draw(st.integers(0, len(body)))
    found = unsealed(whole[:at] + more + whole[at:])
    assert isinstance(found, Altered)
    assert found.offset is None


def test_every_byte_of_a_seal_is_named():
    whole = sealed(b'{"kind":"agreement"}\n')
    for at in range(len(whole)):
        found = unsealed(whole[:at] + bytes((whole[at] ^ 0x20,)) + whole[at + 1 :])
        assert isinstance(found, Altered), at
        assert (found.offset, found.was) == (at, whole[at])
