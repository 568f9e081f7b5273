"""What the README of the policies shows, runs, and prints what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "connector" / "odrl" / "README.md").read_text(), re.MULTILINE | re.DOTALL)
PRINTED = [
    ["deny NOT_YET_VALID Denied: time 2023-02-12T11:20:10.999000Z is not after 2024-01-01T00:00:00.000Z", "a report:PermissionReport"],
    ["permit\n"],
    ["no yes\n", "marketing"],
]


@pytest.mark.parametrize("number", range(len(PRINTED)), ids=["a case of SolidLab", "a profile", "a comparison"])
def test_an_example_runs_and_prints_what_it_should(number: int):
    done = subprocess.run([sys.executable, "-c", BLOCKS[number]], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    assert [words for words in PRINTED[number] if words not in done.stdout] == []


def test_each_example_is_ten_lines_at_most_beside_its_imports():
    assert len(BLOCKS) == len(PRINTED)
    assert all(len([line for line in block.splitlines() if line and "import" not in line]) <= 10 for block in BLOCKS)
