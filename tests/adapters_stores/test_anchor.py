"""The file of the last checkpoint: two places in turn, and one is always whole."""

import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.adapters_stores.anchor import PLACE_BYTES, FileAnchor, MemoryAnchor
from connector.errors import StoreError


def test_a_file_that_is_not_there_is_made_for_its_owner_alone(tmp_path: Path):
    path = tmp_path / "q.db.ledger"
    assert FileAnchor(path).read() is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert FileAnchor(path).read() == []


@pytest.mark.parametrize("durable", [False, True])
def test_the_two_newest_notes_are_read_in_their_order_by_a_later_process_too(tmp_path: Path, durable: bool):
    path = tmp_path / "q.db.ledger"
    for number in range(7):
        anchor = FileAnchor(path)
        anchor.read()
        anchor.write(f"note {number}\n".encode(), durable=durable)
        assert FileAnchor(path).read() == [f"note {each}\n".encode() for each in range(max(0, number - 1), number + 1)]


@settings(max_examples=30)
@given(count=st.integers(2, 5), cut=st.integers(0, PLACE_BYTES - 1), rest=st.binary(max_size=40))
def test_a_write_that_was_torn_leaves_the_note_before_it(tmp_path_factory: pytest.TempPathFactory, count: int, cut: int, rest: bytes):
    path = tmp_path_factory.mktemp("anchor") / "q.db.ledger"
    anchor = FileAnchor(path)
    anchor.read()
    for number in range(count):
        anchor.write(b"note %d\n" % number, durable=False)
    before = path.read_bytes()
    anchor.write(b"the next\n", durable=False)
    after, start = path.read_bytes(), (count + 1) % 2 * PLACE_BYTES
    torn = (after[start : start + cut] + rest).ljust(PLACE_BYTES, b"?")[:PLACE_BYTES]
    path.write_bytes(before[:start] + torn + before[start + PLACE_BYTES :])
    assert b"note %d\n" % (count - 1) in (FileAnchor(path).read() or ())


def test_a_note_that_has_no_room_is_refused(tmp_path: Path):
    anchor = FileAnchor(tmp_path / "a")
    anchor.read()
    with pytest.raises(ValueError, match="4096 bytes"):
        anchor.write(b"x" * PLACE_BYTES, durable=False)
    assert anchor.read() == []


def test_a_place_that_cannot_be_used_is_named_with_what_to_do(tmp_path: Path):
    with pytest.raises(StoreError, match=r"ours to read and write, on a disk with space"):
        FileAnchor(tmp_path / "nowhere" / "a").read()
    with pytest.raises(StoreError, match="cannot be used"):
        FileAnchor(tmp_path).read()
    with pytest.raises(StoreError, match="cannot be used"):
        FileAnchor(tmp_path / "b").write(b"note\n", durable=True)


def test_in_memory_the_last_note_stands():
    anchor = MemoryAnchor()
    assert anchor.read() == ()
    anchor.write(b"a\n", durable=True)
    anchor.write(b"b\n", durable=False)
    assert anchor.read() == (b"b\n",)
