"""When the log of a transfer that is not over is let go: nobody has read it for a while, and its source waits.

A log that is open holds three descriptors, its spool one and its source a connection, and a node may have thousands of transfers that are
suspended, or whose consumer is away. What rests is durable first, and is opened again for whoever comes, as after a start. Where nearly as
much is open as may be nobody's while is waited for.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from time import monotonic
from typing import Final

from connector import telemetry
from connector.dataplane_live.flow import Flow
from connector.dataplane_live.marks import SCARCE

REST_SECONDS: Final = 300.0  # that a reader who was cut may take to come back to a log that is still open, and ahead of him
LOOK_SECONDS: Final = 5.0
SPARE: Final = 16  # descriptors: a log that is opened takes five, with its spool and its source


class Resting:
    """Looks at `flows` while there are any; `rest(transfer, flow, quiet_seconds)` has one let go, if it still may be."""

    def __init__(self, flows: Mapping[str, Flow], rest: Callable[[str, Flow, float], Awaitable[None]]) -> None:
        self._flows, self._rest = flows, rest
        self._task: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()

    def look(self) -> None:
        """There is a flow."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look(), name="live rest")

    async def close(self) -> None:
        """Let nothing more go: what is just being closed is, first."""
        self._closed.set()
        if self._task is not None:
            await self._task

    async def _look(self) -> None:
        told = False
        while self._flows and not self._closed.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._closed.wait()
            crowded = short_of_descriptors()
            if crowded and not told:
                telemetry.log.error("descriptors short", reason="as many files and connections are open as may be: `ulimit -n`")
            told = crowded
            for transfer, flow in tuple(self._flows.items()):
                if not self._closed.is_set() and may_rest(flow, quiet := 0.0 if crowded else REST_SECONDS):
                    try:
                        await self._rest(transfer, flow, quiet)
                    except Exception as error:  # a defect, or a disk that does not even close: the others are looked at
                        telemetry.log.error("live transfer cannot rest", transfer=transfer, exc_info=error)


def may_rest(flow: Flow, quiet_seconds: float) -> bool:
    """Whether nobody has asked for a log for so long, and nothing is missed while its source is not followed."""
    if flow.taking.readers or flow.busy or flow.log.over is not None or monotonic() - flow.taking.asked_at < quiet_seconds:
        return False
    return flow.log.position is not None or (flow.goes_on and not flow.runs)


def short_of_descriptors() -> bool:
    """Whether there are fewer than SPARE of them."""
    held = list[int]()
    try:
        for _ in range(SPARE):
            held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in SCARCE
    finally:
        for each in held:
            os.close(each)
    return False
