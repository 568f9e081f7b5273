"""`connector`, and `python -m connector`."""

from __future__ import annotations

import gc
import sys

from connector.cli_help.overview import ASKED, show_overview


def main() -> None:
    """Run the command line and end the process with its exit code."""
    gc.disable()  # what is imported is no garbage
    if sys.argv[1:] in ASKED:
        sys.exit(show_overview())
    from connector.cli.commands import run_command_line

    gc.enable()

    sys.exit(run_command_line())


if __name__ == "__main__":
    main()
