"""What data have passed, as lines of a checkpoint."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import ProofRefused
from connector.merkle import checkpoints
from connector.merkle.checkpoints import Checkpoint
from connector.metering import passed

NAMES = st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20), max_size=5)
OTHERS = st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20), max_size=3)


@given(NAMES, OTHERS)
def test_stages_come_through_a_checkpoint_in_order_and_lines_of_others_beside_them(names: list[str], others: list[str]):
    written = Checkpoint("origin", 7, b"r" * 32, (*others, *passed.write(names)))
    assert passed.read(checkpoints.read(written.text).extensions) == tuple(names)
    assert passed.ends(written.extensions) == ("end" in others)
    assert passed.read(passed.write(names, end=True)) == tuple(names)
    assert passed.ends(passed.write(names, end=True))


@pytest.mark.parametrize("name", ["", "two words", "line\nfeed", "x" * 129, "\u00e9"])
def test_a_stage_without_a_name_in_one_spelling_is_none(name: str):
    with pytest.raises(ProofRefused, match="a stage has a name") as caught:
        passed.write(["first", name])
    assert caught.value.code == "checkpoint-stage"
    with pytest.raises(ProofRefused, match="a stage has a name"):
        passed.read([f"stage {name}"])


def test_what_has_no_such_line_has_passed_nothing():
    assert passed.read(()) == passed.read(("stages", "other: stage x")) == ()
