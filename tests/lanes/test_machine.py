"""A kernel in this process hashes as hashlib does, any number of leaves of any length from anywhere, and runs only where it may."""

import hashlib
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connector.lanes.machine import executable
from connector.merkle.tree import leaf_hash
from tests.lanes.compiled import kernel_of

ROOT = Path(__file__).parents[2]
DATA = b"".join(hashlib.sha512(n.to_bytes(2, "big")).digest() for n in range(256))  # 16 KiB without any repetition
LENGTHS = st.sampled_from([0, 1, 54, 55, 56, 62, 63, 64, 65, 118, 119, 126, 127, 128, 4096]) | st.integers(0, 2000)
SPANS = st.lists(st.tuples(st.integers(0, len(DATA) - 4096), LENGTHS), min_size=1, max_size=16)
KINDS = [bytes, bytearray, memoryview, lambda data: memoryview(b"..." + data)[3:]]


@pytest.mark.parametrize("lanes", [8, 16])
@settings(max_examples=100)
@given(leaves=SPANS, alike=st.none() | LENGTHS, kind=st.sampled_from(KINDS))
@example(leaves=[(n, 0) for n in range(16)], alike=63, kind=bytes)
@example(leaves=[(0, 0)], alike=0, kind=bytes)
def test_it_is_hashlib(lanes: int, leaves: list[tuple[int, int]], alike: int | None, kind: type[bytes]):
    spans = [(first, first + (length if alike is None else alike)) for first, length in leaves[:lanes]]
    assert kernel_of(lanes).leaf_hashes(kind(DATA), spans) == [leaf_hash(DATA[first:end]) for first, end in spans]


@pytest.mark.parametrize("spans", [[], [(0, 1)] * 17, [(-1, 1)], [(1, 0)], [(0, 1), (1, len(DATA) + 1)]])
def test_no_byte_outside_of_the_data_is_read(spans: list[tuple[int, int]]):
    with pytest.raises(ValueError, match="not in"):
        kernel_of(16).leaf_hashes(DATA, spans)


def test_of_leaves_of_several_lengths_no_more_is_copied_than_there_is():
    """A peer chooses the lengths of live leaves: one that is long must not be made room for in every lane."""
    data = bytes(1 << 20)
    spans = [(0, len(data) - 150_000), *((len(data) - 150_000 + n * 10_000, len(data) - 140_000 + n * 10_000) for n in range(15))]
    tracemalloc.start()
    try:
        found = kernel_of(16).leaf_hashes(data, spans)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == [leaf_hash(data[first:end]) for first, end in spans]
    assert peak_bytes < 2 * len(data)


TEXTS = st.lists(st.sampled_from([b"\n", b"\r", b"a", b"\x8a", b"x" * 31, b"y" * 32, b"z" * 100]), max_size=40).map(b"".join)


@settings(max_examples=200)
@given(text=TEXTS, first=st.integers(0, 70), less=st.integers(0, 70), kind=st.sampled_from(KINDS))
@example(text=b"x" * 31 + b"\n" + b"\n" + b"x" * 40, first=0, less=0, kind=bytes)
@example(text=b"x" * 31 + b"\n" + b"\n" + b"x" * 20, first=0, less=0, kind=bytes)
def test_line_feeds_are_those_that_are_there_and_an_empty_line_is_seen(text: bytes, first: int, less: int, kind: type[bytes]):
    first, end = min(first, len(text)), max(min(first, len(text)), len(text) - less)
    part = text[first:end]
    odd = part.startswith(b"\n") or b"\n\n" in part or b"\r" in part
    assert kernel_of(16).line_feeds(kind(text), first, end) == (part.count(b"\n"), odd)


@pytest.mark.parametrize("span", [(-1, 1), (1, 0), (1, len(DATA) + 1)])
def test_no_line_outside_of_the_data_is_counted(span: tuple[int, int]):
    with pytest.raises(ValueError, match="not in"):
        kernel_of(16).line_feeds(DATA, *span)


def test_data_may_be_let_go_of_afterwards():
    data = bytearray(DATA)
    kernel_of(16).leaf_hashes(data, [(0, 100)])
    kernel_of(16).line_feeds(data, 0, 100)
    data.clear()  # raises BufferError while anybody has a hold of it


def test_code_cannot_be_written_any_more():
    memory = executable(b"\xc3")
    lines = Path("/proc/self/maps").read_text().splitlines()
    assert not [line for line in lines if "rwx" in line.split()[1]]
    assert memory[:1] == b"\xc3"


def test_a_system_that_forbids_it_is_told_apart_and_nothing_ends():
    """As systemd's MemoryDenyWriteExecute does it: from now on no memory of this process becomes executable (PR_SET_MDWE, Linux 6.3)."""
    program = (
        "import ctypes, sys\nfrom connector.lanes.machine import Forbidden, executable\n"
        "if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): sys.exit(77)\n"
        "try: executable(b'\\xc3')\nexcept Forbidden as forbidden: print(forbidden)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=50)
    if done.returncode == 77:
        pytest.skip("this kernel cannot forbid it")
    assert done.stdout.startswith("the system does not let memory be executed: "), done.stderr
