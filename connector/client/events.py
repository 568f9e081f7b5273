"""Reads a `text/event-stream` (WHATWG HTML, 9.2.6) into what the connector says: events of the record, and pulls on their way. Pure."""

from __future__ import annotations

import msgspec
from msgspec import Struct, field

from connector.client.views import Event, Pull

LINE_BYTES = 1_048_576  # longest line taken: an event carries one row of the record, some kilobytes at most


class EventReader(Struct):
    """Takes the stream in pieces of any size and gives whole events. `last` is the sequence to go on after.

    An event of the record has an `id`; a pull that received more bytes is shown without one, since it is not kept.
    """

    last: int | None = None
    _rest: bytes = b""
    _data: list[bytes] = field(default_factory=list)
    _id: bytes | None = None

    def feed(self, piece: bytes) -> list[Event | Pull]:
        """Return the events that `piece` completes. Raises ValueError for a stream that is not ours."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > LINE_BYTES:
            raise ValueError(f"the event stream has a line of more than {LINE_BYTES} bytes")
        return [event for line in lines if (event := self._line(line.removesuffix(b"\r"))) is not None]

    def _line(self, line: bytes) -> Event | Pull | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"id":
            self._id = value
        return None

    def _dispatch(self) -> Event | Pull | None:
        data, mark = b"\n".join(self._data), self._id
        self._data, self._id = [], None
        if not data:
            return None
        if mark is None:
            return msgspec.json.decode(data, type=Pull)
        event = msgspec.json.decode(data, type=Event)
        self.last = event.sequence
        return event
