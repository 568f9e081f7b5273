"""What an installation gets: the wheel with its data, the locks, and targets that prepare what they need."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PRODUCT = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["lanes"]]
LOCKS = {
    "requirements.txt": PRODUCT,
    "requirements-dev.txt": [*PRODUCT, *PROJECT["optional-dependencies"]["demo"], *PROJECT["optional-dependencies"]["dev"]],
}
NAME = re.compile(r"[A-Za-z0-9._-]+")


def pinned(lock: str) -> dict[str, list[str]]:
    """Return name==version -> hashes."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / lock).read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            current = line.split(" ")[0]
            found[current] = []
        found[current] += re.findall(r"--hash=sha256:([0-9a-f]{64})", line)
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_each_dependency_is_locked_to_one_version_with_its_hashes(lock):
    pins = pinned(lock)
    assert all("==" in pin and hashes for pin, hashes in pins.items())
    wanted = {match[0] for needed in LOCKS[lock] if (match := NAME.match(needed)) and match[0] != PROJECT["name"]}
    assert wanted <= {pin.partition("==")[0] for pin in pins}


def test_what_runs_in_production_is_what_was_tested():
    tested = pinned("requirements-dev.txt")
    assert {pin: hashes for pin, hashes in pinned("requirements.txt").items() if tested.get(pin) != hashes} == {}


def test_the_wheel_carries_code_and_data(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=50)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "connector/errors.py" in names
    for folder in ("vocab", "policies"):
        files = {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file()}
        assert files <= {name.removeprefix(f"connector/_{folder}/") for name in names}
        assert files
    assert not [name for name in names if name.startswith(("tests/", "examples/"))]


def test_every_target_that_runs_something_makes_the_environment_first():
    makefile = (ROOT / "Makefile").read_text()
    rules = re.findall(r"^([a-z-]+):([^#\n]*).*\n((?:\t.*\n)*)", makefile, re.MULTILINE)
    assert {name for name, _, _ in rules} >= {"setup", "demo", "test", "tck", "bench", "faults", "lint", "format", "clean"}
    for name, needs, recipe in rules:
        assert "$(BIN)" not in recipe or "$(READY)" in needs, name
