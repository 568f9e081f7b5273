"""The tree of commands, and how every one of them ends: 0 done, 1 not done, 2 not understood, 130 interrupted."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

import connector
from connector.cli import consume, init, operate, processes, publish, run, show
from connector.errors import ConnectorError

DONE, FAILED, NOT_UNDERSTOOD, INTERRUPTED = 0, 1, 2, 130  # 130 is what shells say for Ctrl-C

app = App(
    name="connector",
    help="Qiao 桥: a connector for the Dataspace Protocol 2025-1.",
    version=connector.__version__,
    help_format="plaintext",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    exit_on_error=False,
    print_error=False,
)
app.command(init.init)
app.command(run.run)
app.command(run.check)
app.command(run.demo)
app.command(publish.publish)
app.command(consume.catalog)
app.command(consume.get)
app.command(consume.pulls)
app.command(processes.negotiations)
app.command(processes.show_process, name="show")
app.command(processes.approve)
app.command(processes.terminate)
app.command(processes.transfers)
app.command(operate.participants)
app.command(operate.dead_letters)
app.command(operate.replay)
app.command(operate.reload)


def run_command_line(arguments: Sequence[str] | None = None) -> int:
    """Run one command (default: that of this process) and return its exit code."""
    try:
        result = app(arguments)
        sys.stdout.flush()
    except ConnectorError as error:
        show.failure(error)
        return FAILED
    except CycloptsError as error:
        show.note(f"connector: {error} See `connector --help`.")
        return NOT_UNDERSTOOD
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output (`head`) has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return result if isinstance(result, int) else DONE
