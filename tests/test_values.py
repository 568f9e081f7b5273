import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.values import Value, field, replace

ROOT = Path(__file__).parents[1]
SNIPPET = """
from connector.values import Value, replace

class Pair(Value):
    left: int
    right: str = ""

pair = replace(Pair(1), right="x")
pair.left = 2
replace(pair, left="y")
replace(pair, top=1)
"""


class Row(Value):
    id: str
    detail: dict[str, int] = field(default_factory=dict)


class Key(Value):
    kind: str
    id: str


@dataclass(frozen=True)
class Beside:
    left: int
    right: int = 0


def test_values_are_equal_by_their_members_and_are_made_from_one_another():
    assert Row("a", {"x": 1}) == replace(Row("a"), detail={"x": 1}) != Row("a")
    assert repr(Row("a")) == "Row(id='a', detail={})"
    with pytest.raises(TypeError):
        replace(Row("a"), other=1)


@given(st.text(), st.dictionaries(st.text(), st.integers()), st.text())
def test_a_value_with_other_members_is_another_one_and_the_first_is_as_it_was(id: str, detail: dict[str, int], other: str):
    row = Row(id, detail)
    changed = replace(row, id=other)
    assert (changed.id, changed.detail is detail, row) == (other, True, Row(id, detail))
    assert replace(row) == row
    assert replace(row) is not row


def test_no_two_values_share_a_default_that_can_be_changed():
    assert Row("a").detail is not Row("a").detail


def test_values_are_hashed_by_their_members():
    assert {Key("a", "b"), Key("a", "b"), Key("a", "c")} == {Key("a", "b"), Key("a", "c")}
    with pytest.raises(TypeError):
        hash(Row("a"))


def test_nobody_sets_a_member_and_a_value_has_no_others():
    with pytest.raises(AttributeError):
        Row("a").id = "b"
    with pytest.raises(AttributeError):
        Row("a").other = 1


def test_a_dataclass_is_replaced_by_the_same_word():
    assert replace(Beside(1), right=2) == Beside(1, 2)
    with pytest.raises(TypeError):
        replace(Beside(1), other=2)


def test_mypy_refuses_to_set_a_member_and_to_replace_it_by_what_it_is_not(tmp_path: Path):
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
    found = [line.removeprefix(f"{tmp_path}/snippet.py:") for line in done.stdout.splitlines()[:-1]]
    assert found == [
        '9: error: Property "left" defined in "Pair" is read-only  [misc]',
        '10: error: Argument "left" to "replace" of "Pair" has incompatible type "str"; expected "int"  [arg-type]',
        '11: error: Unexpected keyword argument "top" for "replace" of "Pair"  [call-arg]',
    ], done.stdout + done.stderr
