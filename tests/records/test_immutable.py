import subprocess
import sys
from dataclasses import field, replace
from pathlib import Path

import pytest

from connector.records.immutable import changed, immutable

ROOT = Path(__file__).parents[2]
SNIPPET = """
from dataclasses import replace
from connector.records.immutable import immutable

@immutable
class Pair:
    left: int
    right: str = ""

pair = replace(Pair(1), right="x")
pair.left = 2
"""


@immutable
class Row:
    id: str
    detail: dict[str, int] = field(default_factory=dict)


def test_values_are_equal_by_their_members_and_are_made_from_one_another():
    assert Row("a", {"x": 1}) == replace(Row("a"), detail={"x": 1}) != Row("a")
    assert repr(Row("a")) == "Row(id='a', detail={})"
    with pytest.raises(TypeError):
        replace(Row("a"), other=1)


def test_a_changed_value_is_another_one_with_the_members_that_were_named():
    row = Row("a", {"x": 1})
    assert (changed(row, id="b"), changed(row), row) == (Row("b", {"x": 1}), row, Row("a", {"x": 1}))
    assert changed(row) is not row
    with pytest.raises(AttributeError):
        changed(row, other=1)


def test_values_are_hashed_by_their_members():
    @immutable
    class Key:
        kind: str
        id: str

    assert {Key("a", "b"), Key("a", "b"), Key("a", "c")} == {Key("a", "b"), Key("a", "c")}


def test_a_value_has_no_other_members():
    with pytest.raises(AttributeError):
        Row("a").other = 1  # type: ignore[attr-defined]


def test_mypy_refuses_to_set_a_member(tmp_path: Path):
    (tmp_path / "snippet.py").write_text(SNIPPET)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(tmp_path), str(tmp_path / "snippet.py")]
    done = subprocess.run(
        [*command, "--follow-imports=silent"],
        cwd=ROOT,
        env={"MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.stdout.splitlines()[:-1] == [f'{tmp_path}/snippet.py:11: error: Property "left" defined in "Pair" is read-only  [misc]'], (
        done.stdout + done.stderr
    )
