"""Marks outlive a loss of power, and stay few."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.dataplane_live.marks import MARKS_BYTES_MAX, MARKS_FILE, Marks, Point, entry, read_entry

POINT = st.tuples(st.integers(1, 2**40), st.none() | st.text(max_size=20))


def size_of(folder: Path) -> int:
    return (folder / MARKS_FILE).stat().st_size


@given(points=st.lists(POINT, max_size=6), cut=st.integers(1, 4))
def test_what_is_written_is_read_and_what_is_half_there_is_not(points: list[Point], cut: int):
    data, at, found = b"".join(entry(*point) for point in points), 0, list[Point]()
    while (read := read_entry(data, at)) is not None:
        found.append(read)
        at += len(entry(*read))
    assert (found, at) == (points, len(data))
    if points:
        last = entry(*points[-1])
        assert read_entry(data[:-cut], len(data) - len(last)) is None


def test_the_last_one_before_a_leaf_says_where_a_source_goes_on(tmp_path: Path):
    marks = Marks(tmp_path)
    assert marks.upto(9) is None
    marks.add([(3, "a"), (5, None)], 1)
    marks.add([(9, "b")], 1)
    marks.close()
    marks = Marks(tmp_path)
    assert [marks.upto(leaves) for leaves in (2, 3, 4, 8, 9, 10)] == [None, (3, "a"), (3, "a"), (5, None), (9, "b"), (9, "b")]
    marks.close()


def test_where_nobody_acknowledges_anything_marks_become_fewer_and_are_seldom_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A stream of little that nobody signs for: its first byte may be asked for as long as it lasts, and each second makes a mark."""
    anew, rename = list[int](), Path.rename

    def counted(path: Path, target: Path) -> Path:
        anew.append(size_of(tmp_path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", counted)
    monkeypatch.setattr(os, "fdatasync", lambda _descriptor: None)  # a thousand of them take their time
    position, marks = "p" * 1000, Marks(tmp_path)
    count = 6 * MARKS_BYTES_MAX // len(entry(1, position))
    for number in range(count):
        marks.add([(number + 1, position)], 1)
        assert size_of(tmp_path) <= MARKS_BYTES_MAX
    assert len(anew) <= 12
    assert marks.points[0][0] == 1
    assert marks.points[-1][0] == count
    gaps = [after[0] - before[0] for before, after in zip(marks.points, marks.points[1:], strict=False)]
    assert max(gaps[-50:]) <= 2  # those that are new lie close: they are what a reader who was cut asks from
    marks.close()
    assert Marks(tmp_path).points == marks.points
