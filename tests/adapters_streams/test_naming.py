"""A part gets its name, whatever its file system knows, and nothing that has that name is replaced."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from connector.adapters_streams.naming import NO_LINKS, name_new, tidied


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "part").write_bytes(b"all of it")
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def without_links(*_names: Any, **_more: Any) -> NoReturn:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.parametrize("links", [True, False])
def test_a_part_is_the_file_once_and_replaces_none(directory: int, tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch):
    if not links:
        monkeypatch.setattr(os, "link", without_links)
    (tmp_path / "taken").write_bytes(b"somebody else's")
    with pytest.raises(FileExistsError):
        name_new(directory, "part", "taken")
    name_new(directory, "part", "file")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"all of it", "taken": b"somebody else's"}


def test_a_name_that_was_taken_for_a_part_that_cannot_have_it_is_free_again(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fails(*_names: Any, **_more: Any) -> NoReturn:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", without_links)
    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="Input/output"):
        name_new(directory, "part", "file")
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


def test_another_failure_of_a_link_is_one(directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_names: Any, **_more: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", full)
    assert errno.ENOSPC not in NO_LINKS
    with pytest.raises(OSError, match="No space"):
        name_new(directory, "part", "file")
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


def test_an_empty_file_of_somebody_else_is_none_of_a_crash_of_ours(directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "link", without_links)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        name_new(directory, "part", "file")
    assert not tidied(directory, "part", "file", (tmp_path / "file").stat())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "part"]


def test_what_a_file_system_says_has_failed_and_was_done_loses_no_data(directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rename = os.replace

    def unanswered(*names: Any, **more: Any) -> NoReturn:
        rename(*names, **more)
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    monkeypatch.setattr(os, "link", without_links)
    monkeypatch.setattr(os, "replace", unanswered)
    with pytest.raises(OSError, match="timed out"):
        name_new(directory, "part", "file")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"all of it"}


def test_an_empty_file_that_was_made_though_its_file_system_said_otherwise_is_taken_back(
    directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make = os.open

    def unanswered(path: str, *how: Any, **more: Any) -> int:
        made = make(path, *how, **more)
        if path == "file":
            os.close(made)
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        return made

    monkeypatch.setattr(os, "link", without_links)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", unanswered)
        with pytest.raises(OSError, match="timed out"):
            name_new(directory, "part", "file")
    assert tidied(directory, "part", "file", (tmp_path / "file").stat())
    assert [path.name for path in tmp_path.iterdir()] == ["part"]
