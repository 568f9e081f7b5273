"""What may be used once: the ids of identity tokens, and the nonces of signed requests. In memory, and bounded."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b

from connector.errors import TooMany

DIGEST_BYTES = 16  # of an id: an equal one by chance refuses something, it never admits anything
BUCKET_SECONDS = 30.0  # used ids are forgotten in lots that end in the same half minute
REMEMBERED_MAX = 500_000  # about 60 MB; one issuer may have half: at 60 s of life 2,000 calls a second without a pause
RETRY_SECONDS = 30  # the next lot is forgotten after BUCKET_SECONDS at the latest, if any has ended


class UsedIds:
    """The ids of what was used, each kept until its token or signature has ended for every clock that we tolerate.

    An id that is dropped early is one that works twice; so who takes more than there is room for is refused, and nobody
    else. One issuer has at most half of `capacity`. Where several have filled it, each still gets an equal part: beyond the
    capacity, what is held grows with the logarithm of their number only.
    """

    def __init__(self, capacity: int = REMEMBERED_MAX) -> None:
        self._buckets: dict[int, dict[str, set[bytes]]] = {}
        self._held: Counter[str] = Counter()  # issuer -> ids, over all buckets
        self._total = 0
        self._capacity = capacity

    def __len__(self) -> int:
        return self._total

    def take(self, issuer: str, jti: str, ends: float, now: float) -> bool:
        """Remember an id until `ends`; False if it was taken before. Raises TooMany if this issuer has too many in use."""
        for number in [number for number in self._buckets if (number + 1) * BUCKET_SECONDS < now]:
            ended = Counter({each: len(ids) for each, ids in self._buckets.pop(number).items()})
            self._held -= ended
            self._total -= ended.total()
        digest = blake2b(jti.encode(), digest_size=DIGEST_BYTES).digest()
        if any(digest in bucket.get(issuer, ()) for bucket in self._buckets.values()):
            return False
        held = self._held[issuer]
        if held >= self._capacity // 2 or (self._total >= self._capacity and held >= self._capacity // len(self._held)):
            raise TooMany("more tokens or signatures of yours are in use than are remembered; send fewer", retry_seconds=RETRY_SECONDS)
        self._buckets.setdefault(int(ends // BUCKET_SECONDS), {}).setdefault(issuer, set()).add(digest)
        self._held[issuer] += 1
        self._total += 1
        return True
