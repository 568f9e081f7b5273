"""What of one transfer is on its way and not signed for, in leaves.

It outlives the process. Before a leaf leaves it is stored, as bytes, as one that may have left; so that this costs no write of its own,
what is likely to leave next is stored with each receipt: as much as the credit lets, from where each connection stands. After a restart
all of that counts as sent, as nobody can say how much of it was. Nobody is locked out by that: what counts as sent is sent again without
credit, and signed for then. And nobody gains by it: what was stored was never more than the credit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from connector.dataplane.index import Place
from connector.dataplane_accounts.opens import Held, Leaves, Open, touched
from connector.metering.content import CHUNK_BYTES, SIZE_MAX, Layout
from connector.metering.credit import Log
from connector.metering.ranges import Ranges, covers, union, without
from connector.records.metering import Metered

CONNECTIONS_MAX: Final = 8  # whose next leaves are foreseen


class Outstanding:
    """What of one transfer is on its way and not acknowledged: `out` in leaves, `size_bytes` of them, `noted` the bytes that are stored as
    ones that may have left. `root` is that of the log of finite data."""

    def __init__(self, transfer: str, layout: Place, all_: Open, root: bytes | None = None) -> None:
        self._transfer, self._layout, self._all, self._root = transfer, layout, all_, root
        self.out: Ranges = ()
        self.size_bytes = 0
        self.noted: Ranges = ()
        self._ends: dict[int, None] = {}  # the leaves at which connections stand, the latest last

    def resume(self, stored: Metered, leaves: int) -> None:
        """Go on from what is stored, of a log that has so many leaves by now."""
        self.noted = stored.sent
        self.hold(without(touched(self._layout, stored.sent, leaves), stored.ranges))

    def follow(self, layout: Place, leaves: int) -> None:
        """The same log, opened anew, has so many leaves by now: fewer, if the disk has not kept all of them."""
        self._layout, self._ends = layout, {end: None for end in self._ends if end <= leaves}
        self.hold(without(self.out, ((leaves, SIZE_MAX),)))

    def grant(self, first: int, last: int, acknowledged: Ranges, credit_bytes: int, *, together: bool) -> int:
        """The end of those of the leaves [first, last) that may leave, from the first on; they count as being on their way."""
        left = self._all.left(credit_bytes, self.size_bytes, self.size_bytes, together=together)
        granted: list[tuple[int, int]] = []
        stop = last
        for begin, after in without(((first, last),), union(self.out, acknowledged)):
            ends = range(begin + 1, after + 1)
            end = begin + bisect_right(ends, left, key=lambda end: self._layout.span(begin, end)[1])
            left -= self._layout.span(begin, end)[1]
            granted.append((begin, end))
            if end < after:
                stop = end
                break
        if granted:
            self.hold(union(self.out, granted))
        if stop > first:
            for each in [end for end in self._ends if first <= end <= stop]:
                del self._ends[each]
            self._ends[stop] = None
            if len(self._ends) > CONNECTIONS_MAX:
                del self._ends[next(iter(self._ends))]
        return stop

    def covers(self, first: int, last: int) -> bool:
        """Whether it is stored of these leaves that they may have left."""
        return covers(self.noted, _bytes(self._layout, ((first, last),)))

    def free(self, first: int, last: int) -> int:
        """The end of those of the leaves [first, last), from the first on, of which that is stored; `last` if there are none."""
        begin, _ = self._layout.span(first, first + 1)
        stored = next((high - begin for low, high in self.noted if low <= begin < high), 0)
        end = first + bisect_right(range(first + 1, last + 1), stored, key=lambda end: self._layout.span(first, end)[1])
        return end if end > first else last

    def reserve(self, out: Ranges, credit_bytes: int, *, together: bool, acknowledged: Ranges = (), ahead: bool = True) -> Ranges:
        """The bytes to be stored as ones that may have left, where `out` are the leaves on their way: these, and (`ahead`) what may follow
        where connections stand, as far as it is not on its way or `acknowledged`: then a connection has ended there. Until that is durable
        no more counts as stored than what was before and will be then."""
        size_bytes = self._measure(out)
        left = self._all.left(credit_bytes, size_bytes, self.size_bytes, together=together) if ahead else 0
        finite = isinstance(self._layout, Layout)
        chunk = self._layout.chunk_bytes if isinstance(self._layout, Layout) else CHUNK_BYTES
        gone = union(out, acknowledged)
        ends = [end for end in self._ends if not covers(gone, ((end, end + 1),))] if ahead else []
        share = left // max(1, len(ends)) // chunk * chunk - (0 if finite else chunk)  # of live data a leaf may end anywhere
        at = [self._layout.span(1, end)[1] for end in ends] if share > 0 else []
        most = self._layout.size_bytes if isinstance(self._layout, Layout) else max(at, default=0) + share
        new = union(_bytes(self._layout, out), ((begin, min(begin + share, most)) for begin in at))
        self.noted = without(self.noted, without(self.noted, new))
        return new

    def beyond(self, ranges: Ranges) -> int:
        """How many bytes are on their way beside these leaves."""
        return self._measure(without(self.out, ranges))

    def _measure(self, ranges: Ranges) -> int:
        return sum(self._layout.span(*each)[1] for each in ranges)

    def hold(self, out: Ranges) -> None:
        """These leaves are on their way."""
        self.out, self.size_bytes = out, self._measure(out)
        leaves = Leaves(self._root, self._layout, out) if isinstance(self._layout, Layout) else None
        self._all.hold(self._transfer, Held(self.size_bytes, leaves))


def unsigned_of(sent: Ranges, log: Log, ranges: Ranges) -> Ranges:
    """What is left of bytes that may have left, once these leaves of a log that nobody has at hand were signed for."""
    return without(
        sent, tuple((log.measure(((1, first),)).bytes if first > 1 else 0, log.measure(((1, end),)).bytes) for first, end in ranges)
    )


def _bytes(layout: Place, leaves: Iterable[tuple[int, int]]) -> Ranges:
    return union((begin, begin + length) for begin, length in (layout.span(*each) for each in leaves))
