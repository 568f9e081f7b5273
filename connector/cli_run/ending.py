"""How every command ends: 0 done, 1 not done, 2 not understood, 130 interrupted."""

from __future__ import annotations

import sys
from collections.abc import Callable

from connector.cli import show
from connector.errors import ConnectorError

DONE, FAILED, NOT_UNDERSTOOD, INTERRUPTED = 0, 1, 2, 130  # 130 is what shells say for Ctrl-C


def ended(command: Callable[[], object]) -> int:
    """Run a command and return its exit code, which is its result if that is a number; what went wrong is said on the error output."""
    show.take_anything()
    try:
        result = command()
        sys.stdout.flush()
    except ConnectorError as error:
        show.failure(error)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        show.unwritten(error)
        return FAILED
    return result if isinstance(result, int) else DONE
