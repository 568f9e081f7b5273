"""What data have passed on their way into a content log, as extension lines of its checkpoints (C2SP tlog-checkpoint). Pure.

One line for each stage, in order: `stage ` and its name. The bytes that are signed are those behind the last of them. A line `end` says
that the source has ended and the log has all of what it sent, so no larger one follows. Other extension lines are for others; what has none
of a stage says that the bytes are the source's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from connector.errors import ProofRefused

PREFIX: Final = "stage "
END: Final = "end"
NAME: Final = re.compile(r"[!-~]{1,128}")


def write(stages: Iterable[str], *, end: bool = False) -> tuple[str, ...]:
    """The lines of these stages, and of the `end`. Raises ProofRefused with `checkpoint-stage` for a name that is not 1 to 128 visible
    ASCII characters."""
    names = tuple(stages)
    _demand_names(names)
    return (*(f"{PREFIX}{name}" for name in names), *((END,) if end else ()))


def read(extensions: Iterable[str]) -> tuple[str, ...]:
    """The names of the stages. Raises ProofRefused with `checkpoint-stage` for one that is none."""
    names = tuple(line.removeprefix(PREFIX) for line in extensions if line.startswith(PREFIX))
    _demand_names(names)
    return names


def ends(extensions: Iterable[str]) -> bool:
    """Whether there is no more of a log."""
    return END in extensions


def _demand_names(names: tuple[str, ...]) -> None:
    if any(NAME.fullmatch(name) is None for name in names):
        raise ProofRefused("a stage has a name of 1 to 128 visible ASCII characters", "checkpoint-stage")
