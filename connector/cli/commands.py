"""The tree of commands."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence

from cyclopts import App, CycloptsError, Group, UnusedCliTokensError

import connector
from connector.cli import consume, explain, init, keys, operate, processes, publish, run, show, simulate, transfers
from connector.cli_help.overview import TITLE
from connector.cli_run.ending import NOT_UNDERSTOOD, ended

app = App(
    name="connector",
    help=TITLE,
    version=connector.__version__,
    help_format="plaintext",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    exit_on_error=False,
    print_error=False,
)
# In the order in which somebody new needs them; the help shows them so.
COMMANDS: tuple[tuple[str, tuple[Callable[..., object], ...]], ...] = (
    ("Begin", (run.demo, init.init, run.check, run.run)),
    (
        "Provide and fetch data",
        (publish.publish, publish.datasets, publish.templates, consume.catalog, consume.get, consume.pulls, transfers.cancel),
    ),
    (
        "Contracts and transfers",
        (
            consume.negotiate,
            processes.negotiations,
            transfers.transfers,
            processes.agreements,
            operate.usage,
            operate.invoice,
            operate.statement,
            operate.evidence,
            processes.show_process,
            explain.explain,
            processes.approve,
            processes.counter,
            processes.terminate,
        ),
    ),
    ("Terms before anybody meets them", (simulate.lint, simulate.simulate, simulate.what_if)),
    (
        "Operate",
        (
            operate.participants,
            keys.keys,
            init.token,
            operate.reload,
            operate.ledger,
            operate.erase,
            operate.dead_letters,
            operate.replay,
            operate.discard,
        ),
    ),
)
NAMES: Mapping[Callable[..., object], str] = {processes.show_process: "show"}


def _flowing(text: str) -> str:
    """A docstring whose paragraphs, and what is said of a parameter, are one line each: where they break is the terminal's affair."""
    lines = [""]
    for line in inspect.cleandoc(text).splitlines():
        goes_on = bool(line.strip()) and bool(lines[-1].strip()) and _indent(line) == _indent(lines[-1]) and "---" not in line + lines[-1]
        lines[-1:] = [f"{lines[-1]} {line.strip()}"] if goes_on else [lines[-1], line]
    return "\n".join(lines[1:])


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


for place, (heading, functions) in enumerate(COMMANDS):
    group = Group(heading, sort_key=place)
    for number, function in enumerate(functions):
        function.__doc__ = _flowing(function.__doc__ or "")
        app.command(function, name=NAMES.get(function), group=group, sort_key=number)
options = Group("Options", sort_key=len(COMMANDS))
app["--help"].group = app["--version"].group = options


def run_command_line(arguments: Sequence[str] | None = None) -> int:
    """Run one command (default: that of this process) and return its exit code."""
    return ended(lambda: _understood(arguments))


def _understood(arguments: Sequence[str] | None) -> object:
    try:
        return app(arguments)
    except CycloptsError as error:
        unused = error.unused_tokens if isinstance(error, UnusedCliTokensError) else None
        said = f"`{unused[0]:.40}` is a word too many." if unused else error
        show.note(f"connector: {said} See `{' '.join((*app.name, *(error.command_chain or ())))} --help`.")
        return NOT_UNDERSTOOD
