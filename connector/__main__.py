"""`connector`, and `python -m connector`."""

from __future__ import annotations

import gc
import os
import sys
from functools import partial

from connector.cli_help.overview import ASKED, show_overview
from connector.cli_run.ending import ended
from connector.cli_run.serving import serve, told


def main() -> None:
    """Run the command line and end the process with its exit code."""
    gc.disable()  # what is imported is no garbage
    if sys.argv[1:] in ASKED:
        sys.exit(show_overview())
    if (settings := told(sys.argv[1:], os.environ)) is not None:
        sys.exit(ended(partial(serve, settings)))
    from connector.cli.commands import run_command_line

    gc.enable()

    sys.exit(run_command_line())


if __name__ == "__main__":
    main()
