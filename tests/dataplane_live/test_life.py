"""What a log says of the life of the machine in which it is open."""

import os
from pathlib import Path

import pytest

from connector.dataplane_live.life import CLOSED, LIFE_FILE, doubt, said, say, this_life


def test_a_life_lasts_as_long_as_the_machine_runs_and_what_is_said_of_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    flushed = list[str]()
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    assert this_life() == this_life()
    say(tmp_path, CLOSED)
    assert (said(tmp_path, "now"), flushed) == (CLOSED, [str(tmp_path / LIFE_FILE)])


def test_what_is_doubted_stays_so_once_however_often_that_is_said_and_where_nothing_more_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    say(tmp_path, "now")
    for _ in range(2):
        doubt(tmp_path, said(tmp_path, "now"))
        assert said(tmp_path, "now") == "now doubted"

    def full(*_: object) -> None:
        raise OSError("no more")

    say(tmp_path, "now")
    monkeypatch.setattr(Path, "write_text", full)
    doubt(tmp_path, "now")
    assert said(tmp_path, "now") == "now doubted"
