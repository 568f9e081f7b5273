"""Sources without an end, or with one that only they know: the ports `LiveSources` and `LiveSource`.

A streamed HTTP resource implements them; a broker, the log of a database or the result of a query is one adapter more, which passes
`tests/contracts/live_source_contract.py`. What is done with the bytes (leaves, spool, checkpoints, credit) is no matter of theirs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Protocol

from connector.ports import Peer, Stat, counts_records
from connector.values import Value

RECORD_BYTES_MAX = 16 * 1024 * 1024  # of one record: nothing leaves before all of it is here
BATCH_BYTES = 4 * 1024 * 1024  # of whole records that are handed on at once, if so many are there: each costs some turns of all threads
POSITION_BYTES_MAX = 2048  # of what a source is told to go on from
EVENTS = "text/event-stream"


class Records(Value):
    """Some whole records, in order. `position` is what `LiveSource.follow` goes on from after them; None if the source cannot say. They
    were `taken` in a thread of the source, if it has one."""

    data: bytes
    position: str | None
    taken: bool = False


class Unread(Value):
    """An answer whose body nobody has read. `descriptor` is its socket, which does not block and belongs to the holder; `ahead` are bytes
    that have come with the head, as they were on the wire. The body is `chunked`, or has `length` bytes, or goes on until the connection
    ends (None). `where` is the peer's origin; `headers` has lower-case names."""

    status: int
    headers: Mapping[str, str]
    descriptor: int
    ahead: bytes
    length: int | None
    chunked: bool
    where: str


class Dials(Peer, Protocol):
    """A `Peer` that hands over the sockets of answers, for threads that read what never ends."""

    async def unread(self, url: str, *, headers: Mapping[str, str], idle_seconds: float) -> Unread | None:
        """GET it; `idle_seconds` is the time for the head of the answer. None, and nothing is sent, where only `stream` can read it (TLS).
        Raises PeerFailed, EgressDenied."""


class LiveSource(Protocol):
    """The records behind one dataset, from now on."""

    @property
    def waits(self) -> bool:
        """Whether it can be followed from a position: then nothing is missed while nobody follows it. If not, and no record had a position,
        it is followed to the end of its answer once for a transfer: what it would send the next time may be the same, and be billed."""

    def follow(self, position: str | None, take: Callable[[Records], None] | None = None) -> AsyncGenerator[Records, None]:
        """The records after `position`, or from now on (None), as they come and until the source ends its answer, of which nothing
        follows. One follower at a time, who makes it wait by asking for no more. A source that has records in a thread of its own has them
        taken there, before it gives them, and those that come meanwhile as well. Raises SourceFailed, and what `take` raises.

        Its end is one that the source has made: a source that can go on is then asked again behind the last record, any other one has
        ended its transfer, and this was all. What breaks off, or cannot be told from that, raises SourceFailed, once what came before was
        given: then a source that cannot go on has ended its transfer as well, which says that there was more."""

    async def close(self) -> None:
        """Let go. Closing twice is closing."""


class LiveSources(Protocol):
    """Opens live sources of one kind; the private address says which."""

    async def index(self, address: Mapping[str, Any]) -> tuple[Mapping[str, Any], Stat]:
        """Look at the source, at publication: returns the address as it is kept, and what the source is; it has no size and no digest.
        Raises InvalidRequest for an address that is not allowed, SourceFailed if nothing answers there as it should."""

    async def open(self, address: Mapping[str, Any]) -> LiveSource:
        """Open what `index` has kept. Raises SourceFailed."""


def unit_of(media_type: str) -> str:
    """What a record is in live data of this media type (`content.UNITS`)."""
    if counts_records(media_type):
        return "line"
    return "message" if media_type.partition(";")[0].strip().lower() == EVENTS else "none"
