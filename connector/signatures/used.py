"""What may be used once: the ids of identity tokens, and the nonces of signed requests. In memory and bounded; others keep it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Protocol

from msgspec import Struct, field

from connector.errors import TooMany

DIGEST_BYTES = 16  # of an id: an equal one by chance refuses something, it never admits anything
BUCKET_SECONDS = 30.0  # used ids are forgotten in lots that end in the same half minute
REMEMBERED_MAX = 500_000  # about 60 MB; one issuer may have half: at 60 s of life 2,000 calls a second without a pause
PAST_SHARE = 4  # this part of it is for ids that have ended, which a clock that is set back would make good again
PAST_SECONDS = 86_400.0  # that they are kept there: an operator mends a wrong clock in less
RETRY_SECONDS = 30  # the next lot is forgotten after BUCKET_SECONDS at the latest, if any has ended


class _Lot(Struct):
    """Ids by issuer whose tokens end in the same half minute; `ends` is when the last of them has by the steady clock."""

    ends: float = 0.0
    ids: dict[str, set[bytes]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(map(len, self.ids.values()))


class Kept(Protocol):
    """Remembers for the next process what was used: digests of ids, and until when they would count (POSIX seconds)."""

    def write(self, digest: bytes, ends: float) -> None: ...
    def read(self, now: float) -> Sequence[tuple[bytes, float]]:
        """What would count at this instant, or later. Raises StoreError."""


class UsedIds:
    """The ids of what was used, each kept until its token or signature has ended for every clock that we tolerate: by the clock on the
    wall and by `steady`, which nobody sets (seconds). A clock that was set ahead and comes back finds them still. What has ended by both is
    kept on for PAST_SECONDS, as far as there is room: a clock that is set back, ahead of which it was used, finds it.

    An id that is dropped early is one that works twice; so who takes more than there is room for is refused, and nobody
    else. One issuer has at most half of `capacity`. Where several have filled it, each still gets an equal part: beyond the
    capacity, what is held grows with the logarithm of their number only.
    """

    def __init__(self, steady: Callable[[], float], capacity: int = REMEMBERED_MAX, kept: Kept | None = None) -> None:
        self._lots: dict[int, _Lot] = {}
        self._past: dict[int, tuple[float, set[bytes]]] = {}  # (end, ids) of what has ended, the longest ago first
        self._held: Counter[str] = Counter()  # issuer -> ids, over all lots that have not ended
        self._total = self._past_total = 0
        self._capacity, self._steady, self._kept = capacity, steady, kept

    def __len__(self) -> int:
        """How many have not ended."""
        return self._total

    def take(self, issuer: str, jti: str, ends: float, now: float) -> bool:
        """Remember an id until `ends`; False if it was taken before. Raises TooMany if this issuer has too many in use."""
        steady, taken = self._steady(), False
        ended: list[int] = []
        digest, number = blake2b(f"{issuer} {jti}".encode(), digest_size=DIGEST_BYTES).digest(), int(ends // BUCKET_SECONDS)
        for each, lot in self._lots.items():
            if lot.ends < steady and (each + 1) * BUCKET_SECONDS < now:
                ended.append(each)
            elif digest in lot.ids.get(issuer, ()):
                taken = True
        for each in ended:
            self._end(each)
        if self._past:
            self._forget(steady)
        if taken or ((before := self._past.get(number)) is not None and digest in before[1]):
            return False
        held = self._held[issuer]
        if held >= self._capacity // 2 or (self._total >= self._capacity and held >= self._capacity // len(self._held)):
            raise TooMany("more tokens or signatures of yours are in use than are remembered; send fewer", retry_seconds=RETRY_SECONDS)
        if (own := self._lots.get(number)) is None:
            own = self._lots[number] = _Lot()
        own.ids.setdefault(issuer, set()).add(digest)
        own.ends = max(own.ends, steady + ends - now)
        self._held[issuer] += 1
        self._total += 1
        if self._kept is not None:
            self._kept.write(digest, ends)
        return True

    def recall(self, now: float) -> None:
        """Take up what earlier processes have taken and would count now, or later: at a start, and where the clock is set back to before
        it. It is held as what has ended is, so it takes no room from what comes. Raises StoreError."""
        steady = self._steady()
        for digest, ends in self._kept.read(now) if self._kept is not None else ():
            before, ids = self._past.get(number := int(ends // BUCKET_SECONDS), (0.0, set[bytes]()))
            self._past_total += digest not in ids
            ids.add(digest)
            self._past[number] = max(before, steady + ends - now), ids

    def _end(self, number: int) -> None:
        lot = self._lots.pop(number)
        self._held -= Counter({each: len(ids) for each, ids in lot.ids.items()})
        self._total -= lot.count
        _, before = self._past.pop(number, (0.0, set[bytes]()))  # of a time that has come twice
        gone = before.union(*lot.ids.values())  # whose they were is in their digests: a set for each issuer would cost three times as much
        self._past[number] = lot.ends, gone
        self._past_total += len(gone) - len(before)

    def _forget(self, steady: float) -> None:
        room = min(self._capacity // PAST_SHARE, self._capacity - self._total)
        while self._past:
            number, (ended, ids) = next(iter(self._past.items()))
            if self._past_total <= room and steady - ended < PAST_SECONDS:
                return
            del self._past[number]
            self._past_total -= len(ids)
