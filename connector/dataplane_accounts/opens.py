"""What is on its way and not signed for under one agreement, over all its transfers: as it is stored, if nobody here has seen them."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from connector.dataplane.gate import Permit
from connector.dataplane.index import Place
from connector.dsp.messages import Kind
from connector.metering.content import Layout
from connector.metering.objects import manifest_of
from connector.metering.ranges import Ranges, union, without
from connector.ports import COUNTERSIGNED, Clock, Store
from connector.records.metering import Metered

CREDITS: Final = 2  # that the transfers of an agreement have together
LOST_SECONDS: Final = 86_400.0  # after which what a transfer that has ended had not signed for is written off


class Leaves(NamedTuple):
    """Leaves of finite data, cut so: of the log with this root."""

    root: bytes | None
    layout: Layout
    ranges: Ranges

    @property
    def size_bytes(self) -> int:
        """How many bytes they have."""
        return sum(self.layout.span(*each)[1] for each in self.ranges)


class Held(NamedTuple):
    """What of a transfer is on its way, or was when it ended: so many bytes, and which leaves, if they are of finite data."""

    size_bytes: int
    leaves: Leaves | None = None

    def within(self, other: Held) -> Held:
        """What both hold; no more than the smaller of them, where nobody can say which leaves that is."""
        if self.leaves is None or other.leaves is None or self.leaves.root != other.leaves.root:
            return self if self.size_bytes <= other.size_bytes else Held(other.size_bytes)
        mine = self.leaves.ranges
        return _held(self.leaves._replace(ranges=without(mine, without(mine, other.leaves.ranges))))

    def signed(self, root: bytes | None, ranges: Ranges) -> Held:
        """What is left of it once these leaves of that log were signed for."""
        if self.leaves is None or root is None or self.leaves.root != root:
            return self
        return _held(self.leaves._replace(ranges=without(self.leaves.ranges, ranges)))


def _held(leaves: Leaves) -> Held:
    return Held(leaves.size_bytes, leaves)


NOTHING: Final = Held(0)


class Lost(NamedTuple):
    """So many bytes of a transfer that has ended were not signed for, and count against the credit of its agreement `until` then (POSIX
    seconds)."""

    transfer: str
    size_bytes: int
    until: float


class Open:
    """What is on its way under one agreement and not acknowledged, over all its transfers; `news` is set when that becomes less.

    What a transfer has lost when it ends is written off when the same leaves are signed for, in whichever transfer and whether before or
    after, after LOST_SECONDS, and when an operator says so. So whoever signs for nothing does not get another credit by each transfer,
    nor by signing for something else; and whoever fetches again what he has lost, and signs for it, has the credit back. Who has lost all
    of it in transfers that ended gets nothing more to sign for under the agreement until one of the other two: nobody can tell him from
    one who does not want to sign. Nobody can fetch again what is of data without an end, of which each transfer has leaves of its own,
    nor what is of data that were published anew since.
    """

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.size_bytes = 0  # that count against the credit of all
        self._held: dict[str, Held] = {}
        self._lost: dict[str, tuple[float, Held]] = {}  # since when, the oldest first
        self._signed: dict[bytes, Ranges] = {}  # by root: whatever order it came in, a restart finds the same
        self._ended: dict[str, float] = {}  # since when: a late receipt for one whose loss is written off takes nothing up again

    def hold(self, transfer: str, held: Held) -> None:
        """So much of a transfer is on its way now. Of one that has ended it may only become less: by what is signed for after all."""
        if (known := self._lost.get(transfer)) is not None:
            self._lose(transfer, known[0], known[1].within(held))
        elif transfer not in self._ended:
            self.size_bytes += held.size_bytes - self._held.get(transfer, NOTHING).size_bytes
            self._held[transfer] = held

    def end(self, transfer: str, at: float) -> None:
        """A transfer has ended (POSIX seconds): what it had on its way is lost."""
        held = self._held.pop(transfer, NOTHING)
        self.size_bytes -= held.size_bytes
        if transfer not in self._ended:
            self._ended[transfer] = at
            leaves = held.leaves
            known = self._signed.get(leaves.root, ()) if leaves is not None and leaves.root is not None else ()
            self._lose(transfer, at, held.signed(leaves.root, known) if leaves is not None else held)
        self.news.set()

    def signed(self, root: bytes | None, ranges: Ranges) -> None:
        """These leaves of the log with this root were signed for: what is lost of them, or will be, is written off. None: of data without
        an end."""
        if root is None:
            return
        self._signed[root] = union(self._signed.get(root, ()), ranges)
        for transfer, (at, lost) in tuple(self._lost.items()):
            self._lose(transfer, at, lost.signed(root, ranges))

    def forget(self, before: float) -> None:
        """What was lost before this instant is written off."""
        for transfer in [transfer for transfer, (at, _) in self._lost.items() if at < before]:
            self._lose(transfer, 0.0, NOTHING)
        for transfer in [transfer for transfer, at in self._ended.items() if at < before]:  # no token of one reaches us any more
            del self._ended[transfer]

    @property
    def lost(self) -> tuple[Lost, ...]:
        """What counts of transfers that have ended, the oldest first."""
        return tuple(Lost(transfer, lost.size_bytes, at + LOST_SECONDS) for transfer, (at, lost) in self._lost.items())

    def _lose(self, transfer: str, at: float, lost: Held) -> None:
        self.size_bytes += lost.size_bytes - self._lost.get(transfer, (0.0, NOTHING))[1].size_bytes
        if lost.size_bytes:
            self._lost[transfer] = at, lost
        else:
            self._lost.pop(transfer, None)

    def left(self, credit_bytes: int, own_bytes: int, held_bytes: int, *, together: bool) -> int:
        """What is left of the credit of a transfer with `own_bytes` on their way, `held_bytes` of which count here; of that of all of them,
        where they are bound `together`: else each further transfer would bring another credit to who signs for none."""
        own = credit_bytes - own_bytes
        return min(own, CREDITS * credit_bytes - self.size_bytes + held_bytes - own_bytes) if together else own


class Opens:
    """All of them, by agreement, as long as somebody has one."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._known: WeakValueDictionary[str, Open] = WeakValueDictionary()

    async def of(self, permit: Permit) -> Open:
        """That of the agreement of a transfer. Only where receipts are demanded anything depends on other transfers than this."""
        if (open_ := self._known.get(permit.agreement)) is None:
            open_ = await self._stored(permit.agreement) if COUNTERSIGNED in permit.demands else Open()
            open_ = self._known.setdefault(permit.agreement, open_)
        open_.forget(self._clock.now() - LOST_SECONDS)
        return open_

    async def lost(self, agreement: str) -> tuple[Lost, ...]:
        """What transfers of an agreement that have ended had not signed for, and is not written off. It matters where receipts are
        demanded."""
        open_ = self._known.get(agreement) or await self._stored(agreement)
        open_.forget(self._clock.now() - LOST_SECONDS)
        return open_.lost

    async def _stored(self, agreement: str) -> Open:
        open_ = Open()
        accounts = sorted((each for each in await self._store.metered_of(agreement) if each.sequence), key=lambda each: each.updated)
        for stored in accounts:
            open_.signed(stored.root, stored.ranges)
        for stored in accounts:
            await self._take_up(open_, stored)
        return open_

    async def _take_up(self, open_: Open, stored: Metered) -> None:
        open_.forget(stored.updated - LOST_SECONDS)
        open_.hold(stored.transfer, unsigned(stored))
        process = await self._store.process(Kind.TRANSFER, stored.transfer)
        if process is None or process.final:  # what was signed for late was written later
            open_.end(stored.transfer, stored.updated if process is None else min(stored.updated, process.updated))

    def committed(self, stored: Metered) -> None:
        """An account was written: what is signed for in it is lost nowhere. Of one that has ended less may count from now on: it was signed
        for late, or written off."""
        if (open_ := self._known.get(stored.agreement)) is None:
            return
        before = open_.size_bytes
        if stored.sequence:
            open_.signed(stored.root, stored.ranges)
        if any(each.transfer == stored.transfer for each in open_.lost):
            open_.hold(stored.transfer, unsigned(stored))
        if open_.size_bytes < before:
            open_.news.set()

    def ended(self, transfer: str, agreement: str) -> None:
        """A transfer has ended: what it had on its way is lost."""
        if (open_ := self._known.get(agreement)) is not None:
            open_.end(transfer, self._clock.now())


def unsigned(stored: Metered) -> Held:
    """What of an account that is not at hand counts as sent and is not signed for. Of live data, whose leaves only their log knows, as much
    as was stored."""
    if stored.size_bytes is None:
        return Held(min(sum(last - first for first, last in stored.sent), manifest_of(stored.manifest).credit_bytes))
    layout = Layout(stored.size_bytes, stored.chunk_bytes)
    return _held(Leaves(stored.root, layout, without(touched(layout, stored.sent, layout.leaves), stored.ranges)))


def touched(layout: Place, sent: Ranges, leaves: int) -> Ranges:
    """The leaves, of so many that there are, of which any of these bytes are."""
    end = layout.span(1, leaves)[1]
    return union(layout.touched(first, min(last, end) - first) for first, last in sent if first < end)
