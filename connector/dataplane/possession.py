"""Proof of possession: where an agreement demands it, a token counts only in a request that its holder has signed (RFC 9421): the
consumer, or, of data that are brought to its sink, their provider.

Which key is no matter, as long as it is one of the holder's that is valid now. Each signature is good once: its nonce is remembered
for as long as it is fresh, also by the next process; but a loss of power may take the last of them, so a signature from before the start is
put off until another can be made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from connector.errors import Busy, SignatureRefused
from connector.ports import Clock, VerificationKey
from connector.signatures.digests import DIGEST, check_content
from connector.signatures.http import AGE_SECONDS_MAX, Request, verify_request
from connector.signatures.used import Kept, UsedIds

TO_SIGN = (
    "the agreement demands requests that whoever has the token signs (RFC 9421), and this one is not; `Accept-Signature` says what to cover"
)


class Possession:
    """Judges the signatures of requests. `keys` are those known of a participant (`Identity.keys`), `used` remembers nonces for the next
    process."""

    def __init__(self, keys: Callable[[str], Sequence[VerificationKey]], clock: Clock, used: Kept | None = None) -> None:
        self._keys, self._clock = keys, clock
        self._started = clock.now()
        self._used = UsedIds(monotonic, kept=used)
        self._used.recall(self._started)

    def demand(self, request: Request, holder: str) -> None:
        """Raise SignatureRefused unless `holder` (a participant id) has signed this request, and just now; Busy if that cannot be
        told so soon after a start, TooMany if more of its nonces are fresh than are remembered."""
        now = self._clock.now()
        signed = verify_request(request, holder, self._keys(holder), now)
        if now < self._started:  # the clock was set back since
            self._used.recall(now)
            self._started = now  # only now: where that cannot be read nobody is heard
        if signed.created < self._started:
            raise Busy("the request was signed before this connector started, which has forgotten what was used; sign again")
        if not self._used.take(holder, signed.nonce or "", signed.created + AGE_SECONDS_MAX, now):
            raise SignatureRefused("the signature was used before; sign each request anew, with a fresh `nonce`", "signature-used")


class Proof:
    """What a request proves beside its token. The gate may ask any number of times: a request is judged, and its nonce used up, once."""

    __slots__ = ("_possession", "_proven", "_request")

    def __init__(self, possession: Possession, request: Request) -> None:
        self._possession, self._request = possession, request
        self._proven: str | None = None

    @property
    def proven(self) -> bool:
        """Whether a signature was demanded, and is there."""
        return self._proven is not None

    def demand(self, holder: str) -> None:
        """Raise as `Possession.demand`."""
        if self._proven == holder:
            return
        try:
            self._possession.demand(self._request, holder)
        except SignatureRefused as refused:
            raise SignatureRefused(TO_SIGN, refused.code) if refused.code == "signature-missing" else refused from None
        self._proven = holder

    def cover(self, body: bytes) -> None:
        """Raise SignatureRefused for another body than the one that `Content-Digest` names, and for one that it does not name though the
        request had to be signed: who is asked for a signature signs all that is said. Call it once that was demanded."""
        if self._request.fields(DIGEST):
            check_content(self._request.fields, body)
        elif self.proven and body:
            raise SignatureRefused(
                "the request is signed without its body; name that in `Content-Digest`, and cover it", "content-digest-missing"
            )


def demand(proof: Proof | None, holder: str) -> None:
    """Raise as `Possession.demand`; a door that looks at no signatures lets nobody through."""
    if proof is None:
        raise SignatureRefused(TO_SIGN, "signature-missing")
    proof.demand(holder)
