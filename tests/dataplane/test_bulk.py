"""Threads that send files: what they send, what they say of files and clients that fail, and that there are never more than said."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.dataplane.bulk import PIECE_BYTES, Progress, Threads, send
from connector.errors import SourceFailed
from tests.dataplane.rig import some_bytes

CONTENT = some_bytes(3 * PIECE_BYTES + 17)


class Client:
    """Keeps what it is sent, or is gone after so many pieces."""

    def __init__(self, pieces: int = 1_000) -> None:
        self.taken: list[bytes] = []
        self._pieces = pieces

    def sendall(self, data: memoryview, /) -> None:
        if len(self.taken) == self._pieces:
            raise BrokenPipeError
        self.taken.append(bytes(data))


@pytest.fixture(scope="module")
def descriptor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    path = tmp_path_factory.mktemp("bulk") / "data.bin"
    path.write_bytes(CONTENT)
    found = os.open(path, os.O_RDONLY)
    yield found
    os.close(found)


@given(st.integers(0, len(CONTENT)), st.integers(0, len(CONTENT)))
def test_a_part_of_a_file_is_sent_exactly_and_no_piece_is_larger_than_said(descriptor: int, one: int, other: int):
    first, end = sorted((one, other))
    client = Client()
    progress = Progress()
    send(descriptor, first, end - first, progress, client)
    assert progress.sent == end - first
    assert b"".join(client.taken) == CONTENT[first:end]
    assert all(0 < len(piece) <= PIECE_BYTES for piece in client.taken)


def test_a_file_that_is_shorter_than_was_promised_is_an_error_after_what_there_is(descriptor: int):
    client = Client()
    with pytest.raises(SourceFailed, match="ended before its published size"):
        send(descriptor, len(CONTENT) - 10, 11, Progress(), client)
    assert client.taken == [CONTENT[-10:]]


def test_a_file_that_is_cut_while_it_is_sent_is_an_error_and_ends_no_process(tmp_path: Path):
    path = tmp_path / "data.bin"
    path.write_bytes(CONTENT)
    with path.open("rb") as file:

        class Cuts(Client):
            def sendall(self, data: memoryview, /) -> None:
                super().sendall(data)
                os.truncate(path, PIECE_BYTES)

        client = Cuts()
        with pytest.raises(SourceFailed, match="ended before its published size"):
            send(file.fileno(), 0, len(CONTENT), Progress(), client)
        assert client.taken == [CONTENT[:PIECE_BYTES]]


def test_a_client_that_is_gone_is_one_and_a_file_that_cannot_be_read_is_the_source(descriptor: int, tmp_path: Path):
    with pytest.raises(ConnectionError):
        send(descriptor, 0, len(CONTENT), Progress(), Client(pieces=1))
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(SourceFailed, match="cannot be read: Is a directory"):
            send(directory, 0, 1, Progress(), Client())
    finally:
        os.close(directory)


def test_who_finds_no_free_thread_goes_without_and_one_that_is_given_back_is_had_again():
    threads = Threads(2)
    try:
        with threads.held() as first, threads.held() as second:
            assert first is not None
            assert second is not None
            assert threads.free == 0
            with threads.held() as third:
                assert third is None
            assert threads.free == 0
        assert threads.free == 2
        with pytest.raises(LookupError), threads.held():
            raise LookupError
        assert threads.free == 2
    finally:
        threads.close()


def test_none_is_a_number_of_threads_too():
    threads = Threads(0)
    with threads.held() as thread:
        assert thread is None
    threads.close()
