"""The account of a transfer that we serve: what was promised (the manifest), what was taken, and how much more may leave.

A consumer that signs receipts has an account that both sides attest. From its first receipt on, no more than the credit of the manifest
is on its way beyond what it has acknowledged, counted in leaves and over all its ranges together (`metering.credit`). One that signs none
is counted by what was sent, each byte once. An agreement may demand receipts: then nothing leaves before the first. Who means to sign has
to have done so before much has left: what nobody would sign for any more leaves later, or to somebody who signs nothing after all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from connector import telemetry
from connector.dataplane.coverage import Sent
from connector.dataplane.gate import Permit
from connector.dataplane.index import Described
from connector.dataplane_accounts.flowing import Flowing
from connector.dataplane_accounts.opens import Open
from connector.dataplane_accounts.outstanding import Outstanding
from connector.errors import MeterRefused, Withdrawn
from connector.metering import credit
from connector.metering.content import SIZE_MAX
from connector.metering.counts import by_day, call
from connector.metering.objects import manifest_of
from connector.metering.ranges import Ranges, union, without
from connector.ports import COUNTERSIGNED, SIGNED_REQUESTS
from connector.records import Evidence
from connector.records.metering import Counts, Metered
from connector.values import replace

CREDIT_SECONDS: Final = 20.0  # that a stream waits for a receipt; then it ends, with an answer while its reader, who waits for 30, is there
EARLY_BYTES: Final = 16 * 1024 * 1024  # may leave before a first receipt, or the credit, if that is more
EARLY_SECONDS: Final = 10.0  # that a first receipt is waited for, once, of whoever means to send one
GONE: Final = "the log of these live data is not kept any more; what was acknowledged stands"
TO_SEND_RECEIPTS: Final = (
    "get the manifest, whose address is this one and `/manifest`, and post a first receipt to `/receipts` beside it;"
    " `connector get` and other clients that sign receipts do so by themselves"
)


class Account:
    """One transfer: `log` is the content log of what it gets, `stored` how it stands in the store (None: it does not yet), `open_` what
    all transfers of its agreement have on their way."""

    def __init__(self, permit: Permit, log: Described, stored: Metered | None, open_: Open | None = None) -> None:
        self.permit, self.log, self.stored = permit, log, stored
        self._all = open_ or Open()
        self._out = Outstanding(permit.transfer, log.layout, self._all, log.root)
        self.note: Callable[[], Awaitable[None]] | None = None  # stores what may leave, before it does
        self.heard: Callable[[Metered], None] = lambda _: None  # of each ack
        self.asked_with = ""  # the digest of the token in the last signed request that was looked at
        self._asked: Evidence | None = None  # what the consumer has signed in it, for the next commit about the account
        self._layout, self._sent = log.layout, Sent(log)
        self._before = Counts()  # of other data, which were published under the same transfer before
        self._calls, self._flowing = 0, Flowing()
        self._early: Ranges = ()  # leaves that were let go before a first receipt, and have not all left by then
        self._mute = False  # no first receipt has come in time
        self.running, self.still = self._flowing.running, self._flowing.still  # around one answer with data; around a wait for its consumer
        if stored is not None:
            self._resume(stored)

    def _resume(self, stored: Metered) -> None:
        """Go on from what is stored: as far as that was sent, it is not counted again."""
        counts = stored.own if stored.sequence else stored.counts
        self._calls = counts.calls
        self._flowing.resume(counts.microseconds)
        if stored.sequence:
            if same(stored, self.log):  # of other data nothing leaves: `follow`
                self._out.resume(stored, self.log.leaves)
        elif not same(stored, self.log):
            self._before = replace(counts, calls=0, microseconds=0)
        else:
            self._before = stored.before
            self._sent.resume(stored.sent, counts.bytes - stored.before.bytes, counts.records - stored.before.records)

    @property
    def required(self) -> bool:
        """Whether the agreement demands receipts."""
        return COUNTERSIGNED in self.permit.demands

    @property
    def opened(self) -> bool:
        """Whether the consumer has signed a receipt."""
        return self.stored is not None and self.stored.sequence > 0

    @property
    def signs(self) -> bool:
        """Whether the consumer signs, or means to."""
        return self.required or signs(self.stored)

    @property
    def bound(self) -> bool:
        """Whether what may leave depends on receipts."""
        return self.required or self.opened

    def follow(self, permit: Permit, log: Described) -> None:
        """Look at the transfer as it is now. Raises Withdrawn if nothing may leave on this account any more."""
        if unknown := permit.demands - {COUNTERSIGNED, SIGNED_REQUESTS}:
            raise Withdrawn(f"the agreement demands `{min(unknown)}` of a stream, which this connector does not know", "demand-unknown")
        other = log.snapshot != self.log.snapshot
        if self.opened and (other or not same(self.stored, log)):
            text = "the data were published anew since this transfer was metered; begin another transfer for what they are now"
            raise Withdrawn(text, credit.SNAPSHOT_CHANGED)
        if other:
            self._before = replace(self.counts(), calls=0, microseconds=0)
            self._layout, self._sent = log.layout, Sent(log)
            self._out, self._early = Outstanding(permit.transfer, log.layout, self._all, log.root), ()
        elif log is not self.log:  # it was opened anew, and the one of before grows no more
            self._layout = log.layout
            self._sent.follow(log)
            self._out.follow(log.layout, log.leaves)
            self._early = without(self._early, ((log.leaves, SIZE_MAX),))
        self.permit, self.log = permit, log

    def demand(self) -> None:
        """Raise Withdrawn if nothing may leave now: the agreement demands a receipt that is not there, or the account is disputed."""
        if self.required and not self.opened:
            raise Withdrawn(f"the agreement demands receipts that the consumer signs; {TO_SEND_RECEIPTS}", "receipt-required")
        if self.stored is not None and self.stored.status == "disputed":
            raise Withdrawn("the account is disputed: what both sides have signed of it contradicts itself", "account-disputed")

    async def allow(self, offset: int, count: int, waits: Callable[[], None] = lambda: None) -> int:
        """How many of `count` bytes from `offset`, one at least, may leave now; their leaves count as being on their way. Waits while
        there is no credit for the first of them, or for a first receipt, and calls `waits` before. Raises Withdrawn as `demand` does, and
        with `credit.EXHAUSTED` after CREDIT_SECONDS."""
        self.demand()
        if not self.opened:
            count = await self._before_the_first(offset, count, waits)
        if not self.opened or not count:
            return count
        first, last = self._layout.touched(offset, count)
        last = self._out.free(first, last)
        if (end := self._granted(first, last)) == first:
            telemetry.credit_waits.inc()
            waits()
            try:
                async with asyncio.timeout(CREDIT_SECONDS):
                    while (end := self._granted(first, last)) == first:
                        self._all.news.clear()
                        await self._all.news.wait()
                        self.demand()
            except TimeoutError:
                of = "the transfers of the agreement have together" if self.required else "the manifest gives"
                text = f"no receipt came for {CREDIT_SECONDS:g} s, and the credit that {of} is used up; send it, and ask for the rest"
                if self.required and (lost := sum(each.size_bytes for each in self._all.lost)):
                    telemetry.log.warning("credit locked", agreement=self.permit.agreement, bytes=lost)  # its release is an operator's
                    text += f"; {lost} bytes of it were not signed for by transfers that have ended, and the provider can release them"
                raise Withdrawn(text, credit.EXHAUSTED) from None
        if self.note is not None and not self._out.covers(first, end):
            await self.note()
        begin, length = self._layout.span(first, end)
        return min(count, begin + length - offset)

    async def _before_the_first(self, offset: int, count: int, waits: Callable[[], None]) -> int:
        """How many of these bytes may leave without a receipt: all of them, to who means to sign none."""
        if count and not self._mute and self.stored is not None and self.stored.asked:
            let_go = sum(self._layout.span(*each)[1] for each in self._early)
            if (left := early_bytes(self.stored) - max(let_go, self.out_bytes)) > 0:
                count = min(count, left)
            elif await self._first(waits):
                return count
        if count:
            self._early = union(self._early, (self._layout.touched(offset, count),))
        return count

    async def _first(self, waits: Callable[[], None]) -> bool:
        """Wait for the first receipt, once; whether it has come."""
        waits()
        try:
            async with asyncio.timeout(EARLY_SECONDS):
                while not self.opened:
                    self._all.news.clear()
                    await self._all.news.wait()
                    self.demand()
        except TimeoutError:
            self._mute = True
        return self.opened

    def undivided(self, offset: int) -> int:
        """How many bytes from `offset` on are of one leaf, of data without an end: nobody could sign for a part of it, so one that a budget
        does not pay for must not leave. Of data with an end a budget pays for all, or they do not start."""
        if self.log.root is not None:
            return 0
        begin, length = self._layout.span(*self._layout.touched(offset, 1))
        return begin + length - offset

    async def allow_all(self, offset: int, count: int) -> None:
        """Have all of these bytes allowed, as `allow` does: of an answer that is written at once."""
        while count:
            allowed = await self.allow(offset, count)
            offset, count = offset + allowed, count - allowed

    def _granted(self, first: int, last: int) -> int:
        """The end of those of the leaves [first, last) that may leave, from the first on."""
        if (stored := self.stored) is None:
            return last
        return self._out.grant(first, last, stored.ranges, manifest_of(stored.manifest).credit_bytes, together=self.required)

    def reserve(self, stored: Metered, *, ahead: bool = True) -> Ranges:
        """The bytes to be stored with an account as ones that may have left and are not acknowledged by it: what did, and (`ahead`) what
        may now."""
        credit_bytes = manifest_of(stored.manifest).credit_bytes
        out = self._left(stored.ranges)
        return self._out.reserve(out, credit_bytes, together=self.required, acknowledged=stored.ranges, ahead=ahead)

    def noted(self, sent: Ranges) -> None:
        """What may have left is stored."""
        self._out.noted = sent

    def written_off(self) -> None:
        """The transfer has ended, and what it had on its way counts no more, whatever is signed for later."""
        self._out.hold(())

    def _left(self, acknowledged: Ranges) -> Ranges:
        """The leaves that are on their way once these are acknowledged: what was sent before the first receipt is as well, as nobody has
        signed for it, and what was let go, which is about to be sent."""
        return without(self._out.out if self.opened else union(self._sent.touched(), self._early), acknowledged)

    def ask(self, asked: Evidence) -> None:
        """The consumer has signed a request for data, which is to be put on record."""
        self._asked = asked

    @property
    def unrecorded(self) -> tuple[Evidence, ...]:
        """What of requests is to be put on record by the next commit about the account, if there is anything."""
        return () if self._asked is None else (self._asked,)

    def recorded(self, fact: Evidence) -> None:
        """What of a request is on record now."""
        if self._asked is not None and self._asked.digest == fact.digest:
            self._asked = None

    def acknowledged(self, stored: Metered) -> None:
        """A receipt was accepted and its ack is durable, or the account is disputed."""
        self._out.hold(self._left(stored.ranges))
        self.stored = stored
        self._all.news.set()
        self.heard(stored)

    def sent(self, first: int, length: int) -> None:
        """Bytes went out."""
        if not self.opened:
            self._sent.add(first, length)

    @property
    def flows(self) -> bool:
        """Whether data flow now."""
        return self._flowing.runs

    @property
    def microseconds(self) -> int:
        """The time in which data flowed."""
        return self._flowing.microseconds

    @property
    def calls(self) -> int:
        """One, once something was delivered: signed for, or sent to who signs nothing. What was counted before stays."""
        return max(self._calls, call((self.stored.counts if self.stored and self.opened else self._before + self._sent.counts()).bytes))

    def beyond(self, ranges: Ranges) -> int:
        """How many bytes are on their way, or were, beside these leaves and those that were acknowledged."""
        return self._out.beyond(ranges)

    @property
    def out_bytes(self) -> int:
        """What is on its way or arrived and is not acknowledged: without an account that both sides attest, all that was sent."""
        return self._out.size_bytes if self.opened else self._sent.counts().bytes

    def counts(self) -> Counts:
        """What was sent to a consumer that signs nothing."""
        return self._before + self._sent.counts() + Counts(calls=self.calls, microseconds=self.microseconds)

    def written(self, stored: Metered, now: float) -> Metered | None:
        """The account with what was sent by now to who signs nothing; None if `stored` says so already."""
        if (counts := self.counts()) == stored.counts or not stored.counts.within(counts):
            return None
        after = replace(stored, ranges=self._sent.leaves(), sent=self._sent.ranges, before=self._before, version=stored.version + 1)
        return replace(after, counts=counts, days=by_day(stored.days, now, counts), updated=now)


def signs(stored: Metered | None) -> bool:
    """Whether the consumer of an account signs, or means to: it has, or has to by its agreement, or has had to do with signatures."""
    return stored is not None and (stored.sequence > 0 or stored.asked or manifest_of(stored.manifest).required)


def early_bytes(stored: Metered | None) -> int:
    """So many bytes may leave before the first receipt of who signs: it would not be accepted after more."""
    return EARLY_BYTES if stored is None else max(EARLY_BYTES, manifest_of(stored.manifest).credit_bytes)


def late(stored: Metered, account: Account | None) -> bool:
    """Whether an account would be opened after the fact: what was counted before would be signed for by nobody."""
    sent = max(stored.counts.bytes, account.out_bytes if account is not None else 0)
    return sent > early_bytes(stored)


def same(stored: Metered | None, log: Described) -> bool:
    """Whether an account is of this log. One without a root is known by its name."""
    named = stored is not None and (log.root is not None or stored.origin.endswith(f"/log/{log.snapshot}"))
    return named and stored is not None and stored.root == log.root


def known_log(stored: Metered, account: Account | None, found: Described | None) -> credit.Log:
    """What we know of the content log: all of it while it is at hand, or `found` elsewhere, else as much as the manifest says. Raises
    MeterRefused for that of live data which is not kept any more."""
    manifest = manifest_of(stored.manifest)
    if stored.root is None:
        if found is None or manifest.snapshot != found.snapshot:
            raise MeterRefused(GONE, "log-gone")
        return found.known(manifest)
    found = account.log if account is not None else found
    return credit.finite(manifest) if found is None or found.root != stored.root else found.known(manifest)


def own_counts(stored: Metered, account: Account | None, before: Metered | None = None) -> Counts:
    """What we say of calls, which follow from what was signed for, and of time, which we have counted ourselves; as the last receipt found
    it (or what was stored `before` this one), where nobody has asked for data since a start."""
    before = before or stored
    told = before.own if before.sequence else before.counts
    microseconds = told.microseconds if account is None else account.microseconds
    return Counts(calls=max(before.own.calls, call(stored.counts.bytes)), microseconds=microseconds)
