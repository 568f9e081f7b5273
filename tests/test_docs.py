"""What the documents say is so: each command block of the front page runs, each link leads somewhere, each diagram is the table."""

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.diagrams import README as ARCHITECTURE
from tests.diagrams import drawn
from tests.free_ports import free_block

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path for top in (ROOT, *(ROOT / name for name in ("connector", "vocab", "policies", "helm", "tests", "examples"))) for path in
    (top.glob("*.md") if top == ROOT else top.rglob("*.md"))
)  # fmt: skip
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)[^)]*\)")
PLACE = re.compile(r"`((?:api|control|dataplane|adapters|odrl|exchange|wire|dcat|jsonld)[\w/]*)(?:\.(\w+))?`")
PORTS = {"8080": "--port 8080", "8090": "--port 8090"}
READY_SECONDS = 20.0


def blocks() -> list[str]:
    """The command blocks of the front page, in order."""
    return BLOCK.findall((ROOT / "README.md").read_text())


@pytest.mark.parametrize("command", [block.strip() for block in blocks() if block.startswith("make ")])
def test_a_make_target_of_the_front_page_is_run_in_ci(command: str):
    target = command.removeprefix("make ")
    assert re.search(rf"^{target}:.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert f"step {command}\n" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.slow
def test_the_front_page_leads_by_hand_to_the_first_transfer(tmp_path: Path):
    """Every other block, in order, as it stands: only the ports are others, so that tests can run side by side."""
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    blocks_by_hand = [block for block in blocks() if not block.startswith("make ")]
    assert len(blocks_by_hand) >= 5
    first = {said: free_block(4) for said in PORTS}
    said = ""
    with processes() as background:
        for block in blocks_by_hand:
            text = block
            for port, words in PORTS.items():
                text = text.replace(words, f"--port {first[port]}")
            if text.strip().endswith("connector run"):
                background.append(start(text, tmp_path))
                ready(first["8080" if "hospital" in text else "8090"] + 3)
            else:
                said += run(text, tmp_path)
    assert (tmp_path / "build" / "biopharma" / "heart.csv").read_text() == "day,heart_rate\n1,72\n2,68\n"
    assert "Heart rates" in said
    assert "FINALIZED" in said
    assert "COMPLETED" in said


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QIAO_")}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def run(text: str, directory: Path) -> str:
    """What a shell prints for a block; it stops at the first command that fails."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text], cwd=directory, env=environment(), capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, (text, done.stdout, done.stderr)
    return done.stdout


def start(text: str, directory: Path) -> subprocess.Popen[bytes]:
    with (directory / f"log-{time.monotonic_ns()}").open("wb") as log:
        return subprocess.Popen(["bash", "-euo", "pipefail", "-c", text], cwd=directory, env=environment(), stdout=log, stderr=log)


def ready(ops_port: int) -> None:
    """Wait until the connector behind this ops listener is ready."""
    ends = time.monotonic() + READY_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{ops_port}/readyz", timeout=2) as answer:
                assert answer.status == 200
                return
        except OSError:
            assert time.monotonic() < ends, "it did not get ready"
            time.sleep(0.05)


@contextmanager
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Programs that end with the block, and have to end well."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        yield started
    finally:
        for each in started:
            subprocess.run(["pkill", "-TERM", "-P", str(each.pid)], check=False)
            each.terminate()
        ends = [each.wait(timeout=20) for each in started]
    assert all(end in (0, -15) for end in ends), ends


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_each_link_leads_to_a_file(path: Path):
    missing = [link for link in LINK.findall(path.read_text()) if not (path.parent / link).exists()]
    assert not missing


def test_the_state_diagrams_are_those_of_the_tables():
    assert drawn(ARCHITECTURE.read_text()) == ARCHITECTURE.read_text(), "run `python -m tests.diagrams`"


def test_what_was_decided_names_places_that_exist():
    text = (ROOT / "connector" / "dsp" / "README.md").read_text()
    places = PLACE.findall(text)
    assert len(places) > 20
    for module, name in places:
        inside = module if "/" in module else f"dsp/{module}"
        file = ROOT / "connector" / f"{inside}.py"
        assert file.exists() or (ROOT / "connector" / inside).is_dir(), module
        if name:
            assert re.search(rf"^\s*(?:async )?(?:def|class) {name}\b|^{name}\b", file.read_text(), re.MULTILINE), (module, name)


def test_every_decision_is_dated():
    heads = re.findall(r"^## (.*)$", (ROOT / "connector" / "DECISIONS.md").read_text(), re.MULTILINE)
    assert heads
    assert all(re.match(r"20\d\d-\d\d-\d\d \S", head) for head in heads)
