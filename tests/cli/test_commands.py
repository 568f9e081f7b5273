"""The tree of commands: exit codes, help, and the time until it shows."""

import io
import resource
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from connector.cli import commands
from tests.cli.conftest import Command

ROOT = Path(__file__).parents[2]
HELP_SECONDS = 0.4
COLUMNS = 80  # of a terminal that does not say how many it has
NAMES = (
    "agreements approve cancel catalog check counter datasets dead-letters demo discard erase evidence explain get init invoice keys ledger"
    " lint negotiate negotiations participants publish pulls reload replay run show simulate statement templates terminate token transfers"
    " usage what-if"
)


def test_help_lists_every_command(command: Command):
    ended = command("--help")
    assert ended.code == 0
    assert [name for name in NAMES.split() if f" {name} " not in ended.out] == []


def test_the_names_are_all_commands_that_there_are():
    assert set(NAMES.split()) == {name for name in commands.app if not name.startswith("-")}


def test_help_begins_with_what_somebody_new_needs(command: Command):
    said = command("--help").out
    places = [said.index(f" {name} ") for name in ("demo", "init", "run", "publish", "get", "transfers", "dead-letters", "--help")]
    assert places == sorted(places)


@pytest.mark.parametrize("name", NAMES.split())
def test_every_command_explains_itself_and_every_option(command: Command, name: str):
    ended = command(name, "--help")
    assert ended.code == 0
    assert f"Usage: connector {name}" in ended.out
    assert name == "demo" or "--json" in ended.out


@pytest.mark.parametrize("name", NAMES.split())
def test_help_breaks_where_the_terminal_does_and_not_where_the_source_did(command: Command, name: str):
    """A line that ends with room for the next word ends a paragraph."""
    lines = command(name, "--help").out.splitlines()
    prose = [line.rstrip() for line in lines[1 : next(n for n, line in enumerate(lines) if line.startswith("╭"))]]
    early = [line for line, after in pairwise(prose) if line and after and len(line) + 1 + len(after.split()[0]) < COLUMNS]
    assert early == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("gett",), 'Did you mean "get"'),
        (("get", "hospital"), "dataset"),
        (("get", "h", "d"), "--out"),
        (("get", "h", "d", "--out", "x", "--color", "red"), "--color"),
        (("init", "--name", "x", "--id", "y", "--role", "z", "--port", "eighty"), "eighty"),
        (("approve",), "--pid"),
        (("usage", "urn:a", "urn:b"), "`urn:b` is a word too many"),
        (("usage", "urn:a", "x" * 50), f"`{'x' * 40}` is a word too many"),
    ],
)
def test_a_command_line_that_is_not_understood_ends_with_2(command: Command, arguments: tuple[str, ...], says: str):
    ended = command(*arguments)
    assert ended.code == 2
    assert says.lower() in ended.err.lower()
    known = arguments[0] if arguments[0] in NAMES.split() else ""
    assert ended.err.endswith(f"See `{' '.join(f'connector {known}'.split())} --help`.\n")
    assert ended.err.count("\n") == 1
    assert ended.out == ""


def test_an_interrupted_command_ends_with_130(command: Command, monkeypatch: pytest.MonkeyPatch):
    def interrupt(_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "app", interrupt)
    assert command("participants").code == 130


def test_the_version_is_shown(command: Command):
    assert command("--version").out.strip() == commands.connector.__version__


def test_help_is_there_at_once():
    """Processor time, the best of five: what is measured is our imports, not the other work of the machine."""
    taken = []
    while len(taken) < 5 and min(taken, default=HELP_SECONDS) >= HELP_SECONDS:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-m", "connector", "--help"], cwd=ROOT, capture_output=True, check=True, timeout=30)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert b"negotiations" in done.stdout
    assert min(taken) < HELP_SECONDS


def test_help_loads_nothing_that_only_work_needs():
    program = "from connector.cli.commands import run_command_line\nrun_command_line(['--help'])\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    assert not {"aiohttp", "asyncio", "msgspec", "ssl", "nacl", "structlog", "connector.app", "connector.settings"} & set(
        done.stdout.split()
    )


def test_a_reader_that_has_enough_is_no_error():
    program = f"{sys.executable} -m connector --help | head -1"
    done = subprocess.run(["sh", "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    assert done.stdout.startswith("Usage:")
    assert "Traceback" not in done.stderr


def test_a_terminal_without_unicode_gets_a_question_mark_and_not_a_trace(monkeypatch: pytest.MonkeyPatch):
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii"))
    assert commands.run_command_line(["--help"]) == 0
    assert b"Qiao ?: a connector" in printed.getvalue()


def test_a_disk_that_is_full_is_one_line_with_what_was_not_written(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert commands.run_command_line(["--help"]) == 1
    said = "connector: the output cannot be written: No space left on device; make room, or send it elsewhere\n"
    assert capsys.readouterr().err == said


def test_an_output_that_is_closed_takes_nothing_and_harms_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert commands.run_command_line(["--help"]) == 0
    sys.stdout.close()
