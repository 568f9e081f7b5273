"""Kernels for tests, each compiled once in a process."""

import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from connector.lanes import hashing, kernel
from connector.lanes.machine import Kernel

ROOT = Path(__file__).parents[2]


@cache
def code_of(lanes: int) -> bytes:
    """As `hashing.made` has it made, whatever this processor would choose."""
    command = (sys.executable, "-m", hashing.COMPILER)
    return subprocess.run(command, cwd=ROOT, input=kernel.text(lanes).encode(), capture_output=True, check=True, timeout=50).stdout


@cache
def kernel_of(lanes: int) -> Kernel:
    if platform.machine() != "x86_64":
        pytest.skip("the kernel is for x86 processors")
    return Kernel(code_of(lanes), lanes)
