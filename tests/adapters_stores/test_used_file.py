"""What was used once, for the next process."""

import errno
import os
from math import inf, nan
from pathlib import Path

import pytest

from connector.adapters_stores import used_file
from connector.adapters_stores.used_file import ENTRY, UsedFile
from connector.errors import StoreError


def digest(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_the_next_process_finds_what_would_count_and_what_a_crash_has_cut_is_nothing(tmp_path: Path):
    one = UsedFile(tmp_path / "used")
    for number in range(100):
        one.write(digest(number), float(number))
    os.truncate(tmp_path / "used", 99 * ENTRY.size + 5)  # it was killed in the middle
    two = UsedFile(tmp_path / "used")
    two.write(digest(100), 100.0)
    assert two.read(97.0) == [(digest(number), float(number)) for number in (97, 98, 100)]
    assert (tmp_path / "used").stat().st_mode & 0o777 == 0o600
    one.close()
    two.close()


def test_of_ever_so_many_the_last_ones_are_there_and_the_room_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(used_file, "PART_BYTES", 10 * ENTRY.size)
    file = UsedFile(tmp_path / "used")
    for number in range(1005):
        file.write(digest(number), 7.0)
        assert sum(each.stat().st_size for each in tmp_path.iterdir()) <= 20 * ENTRY.size
    assert [each for each, _ in file.read(7.0)] == [digest(number) for number in range(990, 1005)]
    file.close()


def test_where_no_other_file_can_be_begun_the_one_of_now_is_written_on_and_nobody_elses_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(used_file, "PART_BYTES", 2 * ENTRY.size)

    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    file = UsedFile(tmp_path / "used")
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", none_left)
        file.write(digest(0), 7.0)
        file.write(digest(1), 7.0)
    of_another = os.open(tmp_path / "of another", os.O_RDWR | os.O_CREAT)
    for number in (2, 3):
        file.write(digest(number), 7.0)
    assert os.fstat(of_another).st_size == 0
    os.close(of_another)
    assert [each for each, _ in file.read(7.0)] == [digest(number) for number in range(4)]
    file.close()


def test_where_the_other_file_was_made_and_could_not_be_named_once_it_is_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(used_file, "PART_BYTES", 2 * ENTRY.size)
    file, replace = UsedFile(tmp_path / "used"), os.replace

    def broken(source: Path, target: Path) -> None:
        if target == tmp_path / "used":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", broken)
        for number in (0, 1):
            file.write(digest(number), 7.0)
    for number in (2, 3):
        file.write(digest(number), 7.0)
    assert [each for each, _ in file.read(7.0)] == [digest(number) for number in range(4)]
    assert (tmp_path / "used").stat().st_size == ENTRY.size
    file.close()


def test_an_id_that_a_full_disk_takes_a_part_of_displaces_none_that_follows_and_what_is_damaged_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file, write = UsedFile(tmp_path / "used"), os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:9]))
        file.write(digest(1), 7.0)
    for instant in (7.0, inf, nan, 8.0):
        file.write(digest(2), instant)
    assert file.read(7.0) == [(digest(2), 7.0), (digest(2), 8.0)]
    file.close()


def test_a_disk_that_does_not_take_it_is_said_once_and_one_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    file = UsedFile(tmp_path / "used")

    def full(*_: object) -> int:
        raise OSError("full")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        file.write(digest(1), 1.0)
        file.write(digest(2), 1.0)
    assert capsys.readouterr().err.count("used ids not kept") == 1
    file.close()
    with pytest.raises(StoreError, match="absent"):
        UsedFile(tmp_path / "absent" / "used")
