"""Kernels for tests, each compiled once in a process."""

import platform
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

import pytest

from connector.lanes import hashing
from connector.lanes.hashing import LeafHashing
from connector.lanes.machine import Kernel

ROOT = Path(__file__).parents[2]


@cache
def code_of(lanes: int) -> bytes:
    """As `hashing.made` has it made, whatever this processor would choose."""
    command = (sys.executable, "-m", hashing.COMPILER, str(lanes))
    return hashing.without_digest(subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=50).stdout)


@cache
def kernel_of(lanes: int) -> Kernel:
    if platform.machine() != "x86_64":
        pytest.skip("the kernel is for x86 processors")
    return Kernel(code_of(lanes), lanes)


@cache
def by_lanes() -> LeafHashing:
    """What hashes sixteen at a time wherever three are at hand."""
    found = LeafHashing(lambda: kernel_of(16), 0, lambda _: 3)
    found.leaf_hashes(b"", [(0, 0)])
    assert found.settled.wait(50)
    for thread in threading.enumerate():
        if thread.name == "lanes":  # it has said so, and may be there yet: threads are counted
            thread.join(50)
    assert found.together(3) == 16
    return found
