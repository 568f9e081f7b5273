"""In which life of the machine a log is open: its folder says so before anything is written, and that it was closed once all is on disk.

Whoever finds it open in another life takes it for torn by a loss of power; and in this one, if it is doubted.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from connector.dataplane_live.marks import sync

BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
LIFE_FILE: Final = "life"
CLOSED, DOUBTED = "closed", " doubted"  # the second one behind the name of the life


def this_life() -> str:
    """What names the time since the machine started. Where nobody says it is another one each time: then nothing is taken up."""
    with suppress(OSError):
        return BOOT.read_text().strip()
    return os.urandom(16).hex()


def said(folder: Path, life: str) -> str:
    """What the log in `folder` says; that it is doubted in this `life`, where nothing is left of that. Raises OSError."""
    try:
        return (folder / LIFE_FILE).read_text()
    except FileNotFoundError:
        return life + DOUBTED


def say(folder: Path, life: str) -> None:
    """Let it say so also after a loss of power. Raises OSError."""
    (folder / LIFE_FILE).write_text(life)
    sync(folder / LIFE_FILE)


def doubt(folder: Path, life: str) -> None:
    """Let it say that it is doubted in this life, as well as that can be done now."""
    try:
        (folder / LIFE_FILE).write_text(life.removesuffix(DOUBTED) + DOUBTED)
    except OSError:
        with suppress(OSError):  # of a disk that does not even do that nobody opens it for writing
            (folder / LIFE_FILE).unlink()
