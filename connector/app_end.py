"""How a connector comes to its end: what runs finishes, within its time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from contextlib import suppress
from typing import Any

from connector.api.connections import LINGER_SECONDS
from connector.api.listener import Listening
from connector.dataplane.flows import Flows
from connector.dataplane_live.lives import Lives

DATA = "data"  # the door at which streams leave


def spawn(tasks: set[asyncio.Task[None]], work: Any) -> None:
    """Run something that nobody waits for, until `end`."""
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Give up what is still running of it."""
    for task in tuple(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def until(stop: asyncio.Event, work: Awaitable[None]) -> None:
    """Return once `stop` is set; `work` runs meanwhile. Raises at once what it raises, since nobody goes on without it. It is given up
    when it is time to stop: the thread that it waits for may be with others for minutes, as those that hash data are."""
    working, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((working, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not stopped.done():
            await working
        await stopped
    finally:
        await end((working, stopped))


async def drain(listeners: Sequence[Listening], flows: Flows, lives: Lives, seconds: float) -> None:
    """Let what runs at these doors finish; a stream that takes longer, or has no end, is cut, and its reader comes back for the rest. What
    a reader signs for comes in by connections that it has open: the door of the data closes those no sooner than the last stream is over,
    which would stand still without. No other one begins by them, and what is asked for by them has what is left of the time."""
    loop = asyncio.get_running_loop()
    end_at = loop.time() + seconds
    flows.refuse()
    for transfer in lives.transfers:
        flows.cut(transfer, "shutdown")
    cut = loop.call_at(end_at, flows.cut_everything, "shutdown")

    async def finish(listening: Listening) -> None:
        if listening.door.name == DATA:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds + LINGER_SECONDS):
                    await flows.finished()
        await listening.drain(max(0.0, end_at - loop.time()))

    try:
        await asyncio.gather(*map(finish, listeners))
    finally:
        cut.cancel()
