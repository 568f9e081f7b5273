"""What the documents say is so: each command block of the front page runs, each link leads somewhere, each diagram is the table."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from connector.cli import commands
from connector.settings import SECTIONS, Settings
from connector.settings.fields import fields_of, is_section
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
NAMED = re.compile(r"`connector ([a-z][\w-]*)([^`\n]*)`")
COMMAND = re.compile(r"(?:^|&& )connector ([a-z][\w-]*)(.*)$", re.MULTILINE)
OPTION = re.compile(r"(?<!\S)--[a-z][\w-]*")
SETTING = re.compile(r"`([a-z]+\.[a-z_]+)`")
PORTS = {"8080": "--port 8080", "8090": "--port 8090"}
PATIENCE_SECONDS = 120  # with a block, a start or an end: a machine that is five times slower and busy takes most of it for six commands
WHOLE_SECONDS = 600


def blocks(page: str = "README.md") -> list[str]:
    """The command blocks of the front page, or of another, in order."""
    return BLOCK.findall((ROOT / page).read_text())


@pytest.mark.parametrize("command", [block.strip() for block in blocks() if block.startswith("make ")])
def test_a_make_target_of_the_front_page_is_run_in_ci(command: str):
    target = command.removeprefix("make ")
    assert re.search(rf"^{target}:.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert f"step {command}\n" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.slow
@pytest.mark.timeout(WHOLE_SECONDS)
def test_the_front_page_leads_by_hand_to_the_first_transfer(tmp_path: Path):
    """Every other block, in order, as it stands: only the ports are others, so that tests can run side by side."""
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    gateway = str(free_block(1))
    for each in ("vitals.py", "vitals.toml"):
        (tmp_path / "examples" / each).write_text((ROOT / "examples" / each).read_text().replace("9100", gateway))
    blocks_by_hand = [block for block in (*blocks(), *blocks("examples/README.md")) if not block.startswith("make ")]
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
            elif text.strip().endswith("vitals.py"):
                background.append(start(f"exec {text.strip()}", tmp_path))
                listening(int(gateway))
            else:
                said += run(text, tmp_path)
    assert (tmp_path / "build" / "biopharma" / "heart.csv").read_text() == "day,heart_rate\n1,72\n2,68\n"
    assert "Heart rates" in said
    assert "FINALIZED" in said
    assert "COMPLETED" in said
    assert (tmp_path / "build" / "biopharma" / "beats.ndjson").read_text().count("\n") == 2
    assert re.search(r"^cost +1\.00 EUR, signed for 1\.00$", said, re.MULTILINE), "usage"
    assert re.search(r"^total +1\.00 EUR$", said, re.MULTILINE), "invoice"
    # On a busy machine the provider may count a second more than is signed for, which it says behind that, and for which nobody pays here.
    assert re.search(r"^outcome +both sides say the same(, and the provider has counted more time .*)?$", said, re.MULTILINE), "statement"
    assert "The file is sound: nothing in it was altered" in said
    lines = [json.loads(line)["seq"] for line in (tmp_path / "build" / "biopharma" / "vitals.ndjson").read_text().splitlines()]
    assert lines == list(range(len(lines)))
    assert len(lines) > 5


def commands_named() -> list[tuple[str, str, str]]:
    """Each command that a document, a help text or a remedy names: where, which, and what stands behind it."""
    sources = [*DOCUMENTS, *sorted((ROOT / "connector").rglob("*.py"))]
    found = []
    for path in sources:
        text = path.read_text()
        said = [*NAMED.findall(text), *(line for block in BLOCK.findall(text) for line in COMMAND.findall(block))]
        found += [(path.relative_to(ROOT).as_posix(), name, rest) for name, rest in said]
    return found


def test_each_command_that_is_named_anywhere_is_there_with_its_options():
    named = commands_named()
    assert len({name for _, name, _ in named}) > 25
    known = {name: options(name) for name in commands.app if not name.startswith("-")}
    wrong = [
        (where, name, option)
        for where, name, rest in named
        for option in (["", *OPTION.findall(rest)] if name in known else ["no such command"])
        if option and option not in known.get(name, ())
    ]
    assert wrong == []


def options(name: str) -> set[str]:
    """The options of a command as a person writes them, and those of its parents."""
    taken = {option for argument in commands.app[name].assemble_argument_collection() for option in argument.names}
    return {*taken, "--help", "--version"}


@pytest.mark.parametrize("name", ["usage", "invoice", "statement", "evidence", "get", "publish", "init", "run", "lint"])
def test_the_front_page_shows_the_command(name: str):
    assert any(re.search(rf"\bconnector {name}\b", block) for block in blocks())


def test_each_setting_that_is_named_is_there():
    sections = {section.name: SECTIONS[section.name] for section in fields_of(Settings)}
    known = {f"{name}.{field.name}" for name, cls in sections.items() if is_section(cls) for field in fields_of(cls)}
    named = {
        (path.relative_to(ROOT).as_posix(), setting)
        for path in DOCUMENTS
        for setting in SETTING.findall(path.read_text())
        if setting.partition(".")[0] in sections and setting.partition(".")[2] not in ("py", "md", "toml")
    }
    assert named
    assert [(path, setting) for path, setting in sorted(named) if setting not in known] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_message_of_a_sequence_diagram_has_a_semicolon(path: Path):
    """It ends a statement there, and what follows is a syntax error: the picture would be one of a bomb."""
    for diagram in re.findall(r"^```mermaid\nsequenceDiagram\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
        assert ";" not in diagram


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QIAO_")}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def run(text: str, directory: Path) -> str:
    """What a shell prints for a block; it stops at the first command that fails."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, (text, done.stdout, done.stderr)
    return done.stdout


def start(text: str, directory: Path) -> subprocess.Popen[bytes]:
    with (directory / f"log-{time.monotonic_ns()}").open("wb") as log:
        return subprocess.Popen(["bash", "-euo", "pipefail", "-c", text], cwd=directory, env=environment(), stdout=log, stderr=log)


def ready(ops_port: int) -> None:
    """Wait until the connector behind this ops listener is ready."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{ops_port}/readyz", timeout=2) as answer:
                assert answer.status == 200
                return
        except OSError:
            assert time.monotonic() < ends, "it did not get ready"
            time.sleep(0.05)


def listening(port: int) -> None:
    """Wait until somebody listens there."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2):
                return
        except OSError:
            assert time.monotonic() < ends, "nobody listens"
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
        ends = [each.wait(timeout=PATIENCE_SECONDS) for each in started]
    assert all(end in (0, -15) for end in ends), ends


def test_the_front_page_shows_the_way_of_a_message_and_of_a_byte_through_places_that_exist():
    pictures = re.findall(r"^## The way of one (\w+)\n\n```mermaid\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert [what for what, _ in pictures] == ["message", "byte"]
    places = re.findall(r"\b[a-z]+/[a-z_]+\b", pictures[0][1])
    assert len(places) == 4
    assert [place for place in places if not (ROOT / "connector" / f"{place}.py").is_file()] == []


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
