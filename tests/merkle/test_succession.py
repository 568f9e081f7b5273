import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import ProofRefused
from connector.merkle.checkpoints import Checkpoint
from connector.merkle.succession import follows, read_follows

CITED = Checkpoint("a.example/ledger", 7, bytes(range(32)))


@given(st.integers(1, 2**63 - 1), st.binary(min_size=32, max_size=32), st.sampled_from(["a.example/ledger", "a b/ledger/1", "x"]))
def test_what_is_cited_is_read_as_it_was(size: int, root: bytes, origin: str):
    cited = Checkpoint(origin, size, root)
    assert read_follows(follows(cited)) == cited


@pytest.mark.parametrize(
    "line",
    ["follows", "follows ", "follows a 7", "follow a 7 x", follows(CITED).replace(" 7 ", " 07 "), follows(CITED)[:-2], follows(CITED) + " ",
     follows(CITED).replace("=", ""), follows(CITED).replace("a.example/ledger ", " ")],
)  # fmt: skip
def test_what_cites_nothing_is_refused(line: str):
    with pytest.raises(ProofRefused) as refused:
        read_follows(line)
    assert refused.value.code == "checkpoint-follows"
