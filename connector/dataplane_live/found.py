"""Logs whose transfers are not over, and whose they are: each is looked at until somebody sees to its end, or nobody has to.

A start finds them; and one is left where a log was to be opened in place of another, and could not be. What hinders it may pass, as a want
of descriptors does: so it is tried again, however often, and one that is damaged keeps no other from its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from typing import Any, Final

from connector import telemetry
from connector.dataplane_live.coming import to_its_end
from connector.dataplane_live.growing import Growing
from connector.dataplane_live.marks import sync, unwritten
from connector.metering.content import Header
from connector.remembered import pause_seconds

NAME_FILE: Final = "transfer"
FIRST_PAUSE_SECONDS: Final = 1.0  # before those are looked at again that could not be; doubles


class Found:
    """`look(folder, transfer)` sees to a log, or raises whatever hinders that; `run(work, name)` has work done beside everything else."""

    def __init__(self, look: Callable[[Path, str], Awaitable[None]], run: Callable[[Coroutine[Any, Any, None], str], None]) -> None:
        self._look, self._run = look, run
        self._found: list[tuple[Path, str]] = []
        self._news = asyncio.Event()
        self._runs = self._closed = False

    def add(self, folder: Path, transfer: str) -> None:
        """Have this one looked at; "" is that of which nobody can say yet whose it is."""
        self._found.append((folder, transfer))
        self._news.set()
        if not (self._runs or self._closed):
            self._runs = True
            self._run(self._all(), "live transfers found")

    def close(self) -> None:
        """Look at nothing more but what is just being looked at."""
        self._closed = True
        self._news.set()

    async def _all(self) -> None:
        failures = 0
        while self._found and not self._closed:
            self._news.clear()
            found, self._found = self._found, []
            for folder, transfer in found:
                try:
                    if not self._closed:
                        await self._look(folder, transfer)
                except Exception as error:  # whatever a disk has made of it: the others go on
                    telemetry.log.error("live transfer cannot be looked at", transfer=transfer, folder=folder.name, exc_info=error)
                    self._found.append((folder, transfer))
            if self._found:
                failures += 1
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_seconds(failures, FIRST_PAUSE_SECONDS)):
                        await self._news.wait()
        self._runs = False


def whose(folder: Path) -> str:
    """The transfer that the log in `folder` is of; "" where it does not say, as a crash came while it was made: nobody has seen it. Raises
    OSError if it cannot be read: whose it is may be known later."""
    try:
        return (folder / NAME_FILE).read_text()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def begun(folder: Path, life: str, header: Header, transfer: str) -> Growing:
    """A new log, which says whose it is also after a loss of power: one that does not is removed. Raises SinkFailed."""
    log = Growing.begin(folder, life, header)
    try:
        (folder / NAME_FILE).write_text(transfer)
        for path in (folder / NAME_FILE, folder):
            sync(path)
    except OSError as error:
        log.close(durable=False)
        rmtree(folder, ignore_errors=True)
        raise unwritten(folder, error) from None
    return log


async def opened(make: Callable[[], Growing]) -> Growing:
    """The log that `make` opens, in a thread. Also who is cancelled waits for that, and closes it: nobody else knows that it is open, and
    whoever comes next opens the same files."""
    opening = asyncio.ensure_future(asyncio.to_thread(make))
    try:
        await to_its_end(opening)
    except asyncio.CancelledError:
        if not opening.cancelled() and opening.exception() is None:
            opening.result().close(durable=False)
        raise
    return opening.result()
