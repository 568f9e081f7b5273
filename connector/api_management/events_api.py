"""The feed of events at the management listener: what was put on record, and then what comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from aiohttp import hdrs, web

from connector.api import management_shapes as shapes
from connector.api.connections import patient
from connector.api.middleware import Handler
from connector.api.outlet import attended
from connector.api_management.doors import Doors
from connector.dsp import negotiation, transfer
from connector.errors import InvalidRequest

if TYPE_CHECKING:
    from connector.ports import Store

EVENTS_READ = 500  # events in one reading of the feed
EVENTS_UNREAD_SECONDS = 600.0  # a reader of the feed that takes nothing for so long is gone; it comes back with `Last-Event-ID`
STATES = frozenset({*negotiation.State, *transfer.State})
SEQUENCE_MAX = 2**63 - 1  # of an event: what a store can count


def routes(doors: Doors) -> tuple[tuple[str, str, Handler], ...]:
    """Method, path and handler of each call."""

    async def events(request: web.Request) -> web.StreamResponse:
        """Server-sent events: history after a sequence number (`?after=` or `Last-Event-ID`; `now` skips it), then
        what comes. A reader may pause: what it missed it is told from the store, so a slow one costs a place and no memory.
        With `?state=`, once or several times, nothing but the facts of processes in these states."""
        said = request.headers.get("Last-Event-ID") or request.query.get("after")
        begin = 0 if said is None or said == "now" else shapes.number_of("after", said, 0, SEQUENCE_MAX)
        states = frozenset(request.query.getall("state", ()))
        if strange := sorted(states - STATES):
            raise InvalidRequest(f"`state` is `{strange[0][:40]}`; it is one of {', '.join(sorted(STATES))}")
        patient(request, EVENTS_UNREAD_SECONDS)
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream", hdrs.CACHE_CONTROL: "no-store"})
        reader = doors.feed.reader(request.transport.abort if request.transport else lambda: None, states)
        try:
            with attended(request, reader.woken.set):
                await response.prepare(request)
                after, shown = begin, dict[str, tuple[int, tuple[str, ...]]]()
                if said == "now":
                    after = doors.feed.newest = await _newest(doors.store, doors.feed.newest)
                await response.write(b": from here\n\n")
                events = await doors.store.events(after, EVENTS_READ)
                while True:
                    while events:
                        after = events[-1].sequence
                        if told := reader.wanted(events):
                            await response.write(b"".join(map(shapes.event_lines, told)))
                        events = await doors.store.events(after, EVENTS_READ) if len(events) == EVENTS_READ else ()
                    for pull in () if states else list(doors.pulls.live.values()):
                        if shown.get(pull.id) != (now := (pull.received_bytes, pull.reasons)):
                            shown[pull.id] = now
                            await response.write(b"event: progress\ndata: " + orjson.dumps(shapes.pull_view(pull)) + b"\n\n")
                    reader.idle = True
                    await reader.woken.wait()
                    reader.woken.clear()  # ahead of every look: what is committed while the store is read wakes again
                    reader.idle = False
                    if doors.feed.closed or request.transport is None:  # who is gone may be written to never again
                        return response
                    live = reader.following(after)
                    events = live if live is not None else await doors.store.events(after, EVENTS_READ)
        except ConnectionResetError:
            return response  # the reader has gone
        finally:
            doors.feed.leave(reader)

    return (("GET", "/events", events),)


async def _newest(store: Store, known: int) -> int:
    """The sequence number of the newest event, which is `known` or later: sequences only grow, so one read says that there is no other,
    and doubling and halving find it in some forty."""
    low, high, step = known, known, 1
    while await store.events(high, 1):
        low, high, step = high + 1, high + step, step * 2
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if await store.events(middle, 1) else (low, middle)
    return low
