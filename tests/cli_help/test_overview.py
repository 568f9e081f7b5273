import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from connector.cli import commands
from connector.cli_help import overview

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("columns", [20, 47, 80, 200])
@pytest.mark.parametrize("colours", ["truecolor", None])
def test_what_is_shown_at_once_is_what_the_tree_of_commands_shows_of_itself(columns: int, colours: str | None):
    at_once, from_tree = [
        Console(file=io.StringIO(), width=columns, force_terminal=colours is not None, color_system=colours)  # type: ignore[arg-type]
        for _ in range(2)
    ]
    overview.print_on(at_once)
    commands.app.help_print([], console=from_tree)
    assert at_once.file.getvalue() == from_tree.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("arguments", overview.ASKED)
def test_whoever_only_looks_loads_no_command(arguments: list[str]):
    program = f"import sys\nsys.argv[1:] = {arguments!r}\nfrom connector.__main__ import main\ntry: main()\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.startswith("Usage: connector COMMAND\n")
    assert not {"cyclopts", "attrs", "connector.cli.commands", "connector.cli.consume"} & set(done.stdout.split())


def test_a_disk_that_is_full_is_one_line_and_the_end(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert overview.show_overview() == 1
    assert capsys.readouterr().err == (
        "connector: the output cannot be written: No space left on device; make room, or send it elsewhere\n"
    )
