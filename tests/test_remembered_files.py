"""A value made of files: made anew once they are others, and kept when they cannot be used."""

import os
from pathlib import Path

import pytest

from connector import remembered_files
from connector.remembered_files import OfFiles


class Unusable(Exception):
    """What `make` says of files that it cannot use."""


def joined(*paths: Path) -> OfFiles[str]:
    """The texts of these files one after the other; `!` in one of them cannot be used."""

    def make() -> str:
        text = "".join(path.read_text() for path in paths)
        if "!" in text:
            raise Unusable
        return text

    return OfFiles(paths, make)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("a")
    other.write_text("b")
    return one, other


def replace(path: Path, text: str) -> None:
    """Put another file in its place, as whoever renews certificates does."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


def test_files_that_stay_are_read_once(files: tuple[Path, Path]):
    made = joined(*files)
    assert (made.value, made.changed(), made.renew()) == ("ab", False, False)


@pytest.mark.parametrize("which", [0, 1])
def test_another_file_gives_another_value(files: tuple[Path, Path], which: int):
    made = joined(*files)
    replace(files[which], "c")
    assert made.changed()
    assert made.renew()
    assert made.value == ("cb", "ac")[which]
    assert not made.changed()


def test_a_file_behind_a_link_whose_directory_is_swapped_is_another(tmp_path: Path):
    """Kubernetes: `file` -> `..data/file`, `..data` -> a directory with a time in its name, replaced as a whole."""
    for name, text in (("..1", "a"), ("..2", "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "file").symlink_to("..data/file")
    made = joined(tmp_path / "file")
    (tmp_path / "..data.new").symlink_to("..2")
    os.replace(tmp_path / "..data.new", tmp_path / "..data")
    assert made.changed()
    assert made.renew()
    assert made.value == "b"


def test_what_cannot_be_used_is_refused_once_and_the_former_value_stays(files: tuple[Path, Path]):
    made = joined(*files)
    replace(files[0], "!")
    assert made.changed()
    for _ in range(2):  # whoever asks for it in words is told each time
        with pytest.raises(Unusable):
            made.renew()
        assert (made.value, made.changed()) == ("ab", False)
    replace(files[0], "c")
    assert made.changed()
    assert made.renew()
    assert made.value == "cb"


def test_what_was_refused_is_tried_again_after_a_while(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch):
    made = joined(*files)
    replace(files[0], "!")
    with pytest.raises(Unusable):
        made.renew()
    monkeypatch.setattr(remembered_files, "AGAIN_SECONDS", 0.0)
    assert made.changed()


def test_a_file_that_is_gone_is_a_change_and_one_that_is_back_is_none(files: tuple[Path, Path]):
    made = joined(*files)
    files[0].unlink()
    assert made.changed()
    with pytest.raises(FileNotFoundError):
        made.renew()
    replace(files[0], "a")
    assert made.changed()
    assert not made.renew()
    assert (made.value, made.changed()) == ("ab", False)


def test_a_file_that_is_only_touched_makes_nothing_anew(files: tuple[Path, Path]):
    made = joined(*files)
    os.utime(files[0], ns=(1, 1))
    assert made.changed()
    assert not made.renew()
    assert not made.changed()


def test_what_cannot_be_used_from_the_first_is_said_at_once(files: tuple[Path, Path]):
    files[0].write_text("!")
    with pytest.raises(Unusable):
        joined(*files)
