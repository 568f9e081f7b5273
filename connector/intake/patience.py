"""How long attempts at the same data are repeated, and with which pauses between them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import random
from typing import Final

from connector import telemetry
from connector.dsp.answers import CLOCKS_APART
from connector.errors import PeerFailed, PeerRefused
from connector.intake.heads import NotNow, Unfit
from connector.intake.promise import Broken
from connector.metering import credit
from connector.metering.live import LOST
from connector.remembered import pause_seconds

FIRST_PAUSE_SECONDS = 0.2  # before the third attempt in a row; the second one comes at once, most cuts are single
PAUSE_SECONDS_MAX = 30.0
REFUSED_SECONDS = 30.0  # a refusal that says no reason of ours, or one of clocks, is believed after this time: a proxy restarts in less
SAID_SHARE = 0.1  # of it is for one that does: messages about the same transfer may be on their way
# What a clock says that was set wrong, here or there. It is right again, if only once an operator has seen it: to wait loses nothing.
CLOCKS = frozenset({
    "signature-old", "signature-future", "signature-expired", "receipt-ahead", "time-ahead", "ack-ahead", "manifest-ahead",
    CLOCKS_APART,
})  # fmt: skip
CLOCK_SECONDS = 86_400.0  # for it: what was signed by one that was ahead is taken once the other has come so far
# Why a receipt comes too late: the transfer is over, which its consumer may not have heard yet. Another one signs for the rest.
OVER: Final = frozenset({"account-credited", "account-stated"})
# What one flipped bit can make of an answer that holds, in a proxy or in memory, and of a request: what is wrong with its form, its
# signature or its hash. What is rightly signed, and wrong, is its signer's word; so are leaves that came twice with other bytes.
GARBLED = (
    "jws-", "signature-", "content-digest-", "note-", "checkpoint-", "hash-", "tile-", "header-", "list-", "receipts-malformed",
    "answer-unsigned",
)  # fmt: skip
AGAIN_MAX = 3  # times that such a thing is asked for again, if nothing else comes between
PROGRESS_BYTES = 1024 * 1024  # an attempt that brought so much has been one


class Doubt:
    """Whether what speaks against going on is to be believed: refusals are once they have been repeated for the time, what does not hold
    once it has come again and again to the same `leg`, each time `afresh`, over a new connection. What clocks say is Broken then.

    What does not hold is counted for each leg: of several that run beside each other each has its tries, and none is saved by what another
    has brought. A refusal is one of all, as the provider may have no room for another leg as long as one of them runs."""

    def __init__(self, afresh: Callable[[], None] = lambda: None) -> None:
        self._afresh = afresh
        self._since = dict[bool, float]()  # since when it is refused, by whether for a clock
        self._again = dict[int | None, int]()

    def well(self, leg: int | None = None) -> None:
        """Something has come: all refusals, and what did not hold of this leg, were stray ones."""
        self._since = {}
        self._again.pop(leg, None)

    def bear(self, error: PeerFailed, leg: int | None = None) -> None:
        """Raise a failure that is a refusal, or does not hold, and is believed by now."""
        now, by_clock = asyncio.get_running_loop().time(), of_clocks(error)
        if isinstance(error, Broken) and not by_clock:
            self._again[leg] = self._again.get(leg, 0) + 1
            if not error.code.startswith(GARBLED) or self._again[leg] > AGAIN_MAX:
                raise error
            self._afresh()
            return
        # Credit that is used up comes again: with our own receipts, or with those of other transfers of the agreement.
        refused = by_clock or isinstance(error, Unfit) or (isinstance(error, PeerRefused) and error.said != credit.EXHAUSTED)
        self._since = {by_clock: self._since.get(by_clock, now)} if refused else {}
        seconds = CLOCK_SECONDS if by_clock else REFUSED_SECONDS * (1.0 if doubtful(error) else SAID_SHARE)
        if now - self._since.get(by_clock, now) >= seconds:
            raise Broken(error.message, _said(error) or "") if by_clock else error


def doubtful(error: PeerFailed) -> bool:
    """Whether it is a refusal that need not be the provider's own."""
    return isinstance(error, PeerRefused) and (error.said is None or error.said in CLOCKS)


def of_clocks(error: PeerFailed) -> bool:
    """Whether it is for a clock that something is refused, here or there."""
    return _said(error) in CLOCKS


def hindered(failed: PeerFailed, untaken: PeerFailed | None) -> PeerFailed:
    """Why data did not come that `failed` so while a receipt was `untaken` for another reason: if the provider's clock is wrong, or it asks
    for patience, nothing is acknowledged, and the credit is used up. A refusal is one all the same, and what does not hold."""
    refused = isinstance(failed, PeerRefused) and failed.said != credit.EXHAUSTED
    if untaken is None or isinstance(failed, Broken) or not (of_clocks(untaken) or (isinstance(untaken, NotNow) and not refused)):
        return failed
    return untaken


def _said(error: PeerFailed) -> str | None:
    if isinstance(error, Broken):
        return error.code
    return error.said if isinstance(error, PeerRefused) else None


class Patience:
    """The attempts of one download. Without a byte it lasts `patience_seconds` over all of them: a provider that restarts or moves is
    back by then. Once `over` says so, an attempt that fails was the last one. `id` is that of the order; whoever watches it hears through
    `waits` why there is a pause; `afresh` is that of `Doubt`."""

    def __init__(
        self,
        id: str,
        patience_seconds: float,
        over: Callable[[], bool],
        waits: Callable[[str], Awaitable[None]] | None = None,
        afresh: Callable[[], None] = lambda: None,
    ) -> None:
        self._id, self._patience_seconds, self._over, self._waits = id, patience_seconds, over, waits
        self._failures, self._last_byte, self._doubt = 0, asyncio.get_running_loop().time(), Doubt(afresh)

    @property
    def over(self) -> bool:
        """Whether there is to be no other attempt."""
        return self._over()

    def well(self, leg: int | None = None) -> None:
        """Take an attempt that has not failed, of one of several legs or of the download itself: something has just come (`Doubt.well`)."""
        self._last_byte = asyncio.get_running_loop().time()
        self._doubt.well(leg)

    async def bear(self, error: PeerFailed, moved_bytes: int, leg: int | None = None) -> None:
        """Take a failed attempt, which has brought so many bytes, and return when the next one may begin. Raises `error` if it is a refusal
        that is believed, or what asking again does not change, PeerFailed if there is to be no other attempt."""
        if isinstance(error, PeerRefused) and error.said == LOST:
            raise error
        loop = asyncio.get_running_loop()
        pause = error.retry_after_seconds if isinstance(error, NotNow) else 0.0
        if moved_bytes >= PROGRESS_BYTES:
            self._doubt.well(leg)
        self._doubt.bear(error, leg)
        if moved_bytes > 0 or of_clocks(error):
            self._last_byte = loop.time()
        self._failures = 1 if moved_bytes >= PROGRESS_BYTES else self._failures + 1
        if loop.time() - self._last_byte > self._patience_seconds:
            raise PeerFailed(f"nothing came for {self._patience_seconds:g} s: {error.message}; the part is kept")
        telemetry.log.info("download cut", pull=self._id, reason=error.message, moved_bytes=moved_bytes, failures=self._failures)
        if not self._over():
            pause = max(min(pause, PAUSE_SECONDS_MAX), back_off_seconds(self._failures))
            if pause > 0 and self._waits is not None:
                await self._waits(error.message)
            await asyncio.sleep(pause)
        if self._over():
            raise PeerFailed(f"the transfer is over and not all of the data has come: {error.message}; the part is kept")


def back_off_seconds(failures: int) -> float:
    """The pause after so many failed attempts in a row: none after the first, then a growing one."""
    if failures <= 1:
        return 0.0
    return pause_seconds(failures - 1, FIRST_PAUSE_SECONDS, PAUSE_SECONDS_MAX, chance=random())  # noqa: S311 - spreads load
