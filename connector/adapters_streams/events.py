"""Events that a server sends (WHATWG HTML, 9.2), in one spelling, and where to go on after each of them.

A server is asked for what follows the last id that it gave (`Last-Event-ID`). An event without an id leaves that as it is, so it comes
again after a cut, though it was delivered and billed. A position is therefore the id and what has come behind it: that is left out if it
comes again, byte for byte and in the same order. All of it or nothing: where anything differs it is something new, and is delivered. What
may be new is held until that is known; of more than there is room for only hashes are, and the server is asked once more if it was new.
A server may also begin with the very event that it was asked to go on behind: by the hash of that in the position it is left out.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from connector.errors import SourceFailed
from connector.ports.live import POSITION_BYTES_MAX, RECORD_BYTES_MAX
from connector.values import Value

BOM: Final = "\ufeff".encode()
GAP: Final = b"\n\n"  # between two events, and behind the last one
EACH_MAX: Final = 32  # events behind an id that are known each by itself, so that the first one that is another is delivered at once
EACH_BYTES, CHAIN_BYTES = 8, 16


class Behind(Value):
    """`count` events that came behind an id: the first of them each by its hash, and all of them by a `chain` of hashes."""

    count: int = 0
    each: bytes = b""
    chain: bytes = b""

    def and_then(self, event: bytes) -> Behind:
        """These and one more."""
        hashed = hashlib.sha256(event).digest()
        each = self.each + hashed[:EACH_BYTES] if self.count < EACH_MAX else self.each
        return Behind(self.count + 1, each, hashlib.sha256(self.chain + hashed).digest()[:CHAIN_BYTES])

    def begins_with(self, other: Behind) -> bool:
        """Whether these may be what `other` is, and more: as far as each by itself is known. Of as many it is certain."""
        if other.count >= self.count:
            return other == self
        return self.each.startswith(other.each)


NOTHING: Final = Behind()


def write_place(id: str | None, behind: Behind, mark: bytes = b"") -> str | None:
    """Where to go on, as one text, with the `mark` (`marked`) of the event that had the id, if there is one: an id alone is itself, and no
    id holds a line feed. None without an id."""
    if id is None or not (behind.count or mark):
        return id
    return f"{id}\n{behind.count} {urlsafe_b64encode(mark + behind.chain + behind.each).decode()}"


def read_place(position: str | None) -> tuple[str | None, Behind, bytes]:
    """What `write_place` has written. Raises ValueError."""
    id, told, rest = (position or "").partition("\n")
    if not told:
        return position, NOTHING, b""
    number, _, hashes = rest.partition(" ")
    count, read = int(number), urlsafe_b64decode(hashes)
    at = len(read) - (CHAIN_BYTES + EACH_BYTES * min(count, EACH_MAX) if count else 0)
    if count < 0 or at not in ((0, EACH_BYTES) if count else (EACH_BYTES,)):
        raise ValueError(position)
    return id, Behind(count, read[at + CHAIN_BYTES :], read[at : at + CHAIN_BYTES]), read[:at]


def marked(event: bytes) -> bytes:
    """What an event is known by."""
    return hashlib.sha256(event).digest()[:EACH_BYTES]


class Another(SourceFailed):
    """What came instead of what had come before is new, and was not held: it has to be asked for again."""


class Events:
    """The events of one answer from `position` on. `id` is what the server is asked with, `position` where to go on after the last event
    that was given; `found` says whether there was one. `again`: what comes may have come before; not, if that was found to be `Another`.
    Raises SourceFailed for a position that is none."""

    def __init__(self, position: str | None, *, again: bool = True) -> None:
        try:
            self.id, self._behind, self._mark = read_place(position)
        except ValueError:
            raise SourceFailed("the place to go on after is none of a source of events; begin another transfer") from None
        self._behind = self._behind if again else NOTHING
        self._before, self._latest = self._mark, b""  # of the event that was asked behind; the last one with an id, until that is marked
        self._again = self._behind.count > 0  # whether all that came may be what has come before
        self._unheld = False  # too much for the room there is
        self._seen, self._held = NOTHING, bytearray()
        self._rest = b""
        self._begun = self.found = False

    @property
    def position(self) -> str | None:
        """See `Cutter`."""
        return write_place(self.id, self._behind, self._mark)

    def take(self, piece: bytes | bytearray, size: int | None = None) -> bytes:
        """See `Cutter`."""
        data = self._rest + memoryview(piece)[:size]
        if not self._begun:
            if len(data) < len(BOM) and BOM.startswith(data):
                self._rest = data
                return b""
            data, self._begun = data.removeprefix(BOM), True
        held = b""
        if b"\r" in data:
            if data.endswith(b"\r"):  # the line feed that belongs to it may be yet to come
                data, held = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        end = data.rfind(b"\n\n") + 2
        whole, rest = (data[:end], data[end:]) if end > 1 else (b"", data)
        demand_room(rest)
        self._rest, found = rest + held, list[bytes]()
        for each in whole.split(b"\n\n"):
            if event := each.lstrip(b"\n"):
                self._look(event, found)
        if self._latest:
            self._mark, self._latest = marked(self._latest), b""
        return _written(found)

    def last(self) -> bytes:
        """See `Cutter`. An event that is not ended by an empty line is none (WHATWG HTML, 9.2.6)."""
        return self.take(b"\n") if self._rest.endswith(b"\r") else b""  # no line feed has come to the last carriage return

    def unrepeated(self) -> bytes:
        """What looked as if it came again, of an answer that was all: less came than what had come before, so it was none of that."""
        found = list[bytes]()
        self._let_go(found)
        return _written(found)

    def _look(self, event: bytes, found: list[bytes]) -> None:
        """Take up one block of lines: it is an event if it has data. An id counts without, too."""
        at = event.rfind(b"\nid:") + 1
        if has_id := event.startswith(b"id:", at):
            if self._before and not self.found and marked(event) == self._before:
                self.found = True
                return
            if self._again:
                self._let_go(found)
            value = event[at + 3 :].partition(b"\n")[0].removeprefix(b" ")
            text = value.decode("utf-8", "replace")
            self.id = text if text.isprintable() and 0 < len(text.encode()) <= POSITION_BYTES_MAX else None
            self._behind, self._mark, self._latest = NOTHING, b"", b""
        if not (event.startswith(b"data") or b"\ndata" in event):
            return
        self.found = True
        if has_id:
            self._latest = event
        if has_id or self.id is None:
            found.append(event)
        elif self._again:
            self._hold(event, found)
        else:
            self._behind = self._behind.and_then(event)
            found.append(event)

    def _hold(self, event: bytes, found: list[bytes]) -> None:
        """Leave out what comes again, once all of it has."""
        self._seen = self._seen.and_then(event)
        if not self._unheld:
            self._held += GAP + event if self._held else event  # not one by one: each of a few bytes would take ten times its room
        if not self._behind.begins_with(self._seen):
            self._let_go(found)
        elif len(self._held) > RECORD_BYTES_MAX and self._seen.count < self._behind.count:
            self._unheld, self._held = True, bytearray()
        elif self._seen.count == self._behind.count:
            self._again, self._held = False, bytearray()

    def _let_go(self, found: list[bytes]) -> None:
        """What came is nothing that has come before: from now on it is what came behind the id. Raises Another."""
        if self._again and self._unheld:
            raise Another("the source has sent something else than before behind an event with an id; it is asked for that again")
        if self._again and self._held:
            self._behind = self._seen
            found.append(bytes(self._held))
        self._again, self._held = False, bytearray()


def _written(events: list[bytes]) -> bytes:
    return GAP.join(events) + GAP if events else b""


def demand_room(rest: bytes) -> None:
    """Raise SourceFailed if a record that has no end yet is too large."""
    if len(rest) > RECORD_BYTES_MAX:
        raise SourceFailed(f"the source has sent a record of more than {RECORD_BYTES_MAX} bytes")
