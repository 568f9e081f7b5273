"""The accounts of the transfers that we serve: what was promised (the manifest), what was taken, and how much more may leave.

A consumer that signs receipts has an account that both sides attest. From its first receipt on, no more than the credit of the manifest
is on its way beyond what it has acknowledged, counted in leaves and over all its ranges together (`metering.credit`). One that signs none
is counted by what was sent, each byte once. An agreement may demand receipts: then nothing leaves before the first.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from connector import telemetry
from connector.dataplane.coverage import Open, Sent
from connector.dataplane.flows import TRANSFERS_MAX
from connector.dataplane.gate import Permit
from connector.dataplane.index import Described
from connector.dataplane.quotas import Decide
from connector.dsp.messages import Kind, Role
from connector.errors import ConnectorError, MeterRefused, Withdrawn
from connector.merkle import checkpoints, notes
from connector.metering.chain_consumer import acceptable
from connector.metering.content import CHUNK_BYTES, digest_of, read_header
from connector.metering.counts import by_day, call
from connector.metering.objects import CREDIT_WINDOWS, WINDOW_BYTES, ContentLog, Manifest, digest, manifest_of
from connector.metering.ranges import Ranges, union, without
from connector.ports import COUNTERSIGNED, SIGNED_REQUESTS, Clock, Identity, Store
from connector.records import Changes, Evidence, Expect
from connector.records.metering import Counts, Metered

CREDIT_SECONDS: Final = 30.0  # that a stream waits for a receipt; then it ends, and the consumer comes back for the rest
WRITE_SECONDS: Final = 1.0  # between two writes of what was sent to who signs nothing: a crash forgets so much, in the consumer's favour
MANIFEST_SECONDS: Final = 366 * 86_400  # for agreements without an end
MICROSECONDS: Final = 1_000_000
CREDIT_EXHAUSTED: Final = "credit-exhausted"
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
        self._out: Ranges = ()  # leaves that are on their way, or were, and not acknowledged; at most those of the credit
        self._out_bytes = 0
        self.heard: Callable[[Metered], None] = lambda _: None  # of each ack
        self._layout, self._sent = log.layout, Sent(log)
        self._before = Counts()  # of other data, which were published under the same transfer before
        self._running, self._since, self._calls, self._microseconds = 0, 0.0, 0, 0
        if stored is not None:
            self._resume(stored)

    def _resume(self, stored: Metered) -> None:
        """Go on from what is stored: as far as that was sent, it is not counted again."""
        counts = stored.own if stored.sequence else stored.counts
        self._calls, self._microseconds = counts.calls, counts.microseconds
        if not stored.sequence and not _same(stored, self.log):
            self._before = replace(counts, calls=0, microseconds=0)
        elif not stored.sequence:
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
    def bound(self) -> bool:
        """Whether what may leave depends on receipts."""
        return self.required or self.opened

    def follow(self, permit: Permit, log: Described) -> None:
        """Look at the transfer as it is now. Raises Withdrawn if nothing may leave on this account any more."""
        if unknown := permit.demands - {COUNTERSIGNED, SIGNED_REQUESTS}:
            raise Withdrawn(f"the agreement demands `{min(unknown)}` of a stream, which this connector does not know", "demand-unknown")
        other = log.snapshot != self.log.snapshot
        if self.opened and (other or (log.root is None and not _same(self.stored, log))):
            text = "the data were published anew since this transfer was metered; begin another transfer for what they are now"
            raise Withdrawn(text, "snapshot-changed")
        if other:
            self._before = replace(self.counts(), calls=0, microseconds=0)
            self._layout, self._sent = log.layout, Sent(log)
        self.permit, self.log = permit, log

    def demand(self) -> None:
        """Raise Withdrawn if nothing may leave now: the agreement demands a receipt that is not there, or the account is disputed."""
        if self.required and not self.opened:
            raise Withdrawn(f"the agreement demands receipts that the consumer signs; {TO_SEND_RECEIPTS}", "receipt-required")
        if self.stored is not None and self.stored.status == "disputed":
            raise Withdrawn("the account is disputed: what both sides have signed of it contradicts itself", "account-disputed")

    async def allow(self, offset: int, count: int, waits: Callable[[], None] = lambda: None) -> int:
        """How many of `count` bytes from `offset`, one at least, may leave now; their leaves count as being on their way. Waits while
        there is no credit for the first of them, and calls `waits` before. Raises Withdrawn as `demand` does, and with the code
        `credit-exhausted` after CREDIT_SECONDS."""
        self.demand()
        if not self.opened or not count:
            return count
        first, last = self._layout.touched(offset, count)
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
                text = f"no receipt came for {CREDIT_SECONDS:g} s, and the credit of the manifest is used up; send it, and ask for the rest"
                raise Withdrawn(text, CREDIT_EXHAUSTED) from None
        begin, length = self._layout.span(first, end)
        return min(count, begin + length - offset)

    async def allow_all(self, offset: int, count: int) -> None:
        """Have all of these bytes allowed, as `allow` does: of an answer that is written at once."""
        while count:
            allowed = await self.allow(offset, count)
            offset, count = offset + allowed, count - allowed

    def _granted(self, first: int, last: int) -> int:
        """The end of those of the leaves [first, last) that may leave, from the first on."""
        if (stored := self.stored) is None:
            return last
        left = self._all.left(manifest_of(stored.manifest).credit_bytes, self._out_bytes, together=self.required)
        for begin, after in without(((first, last),), union(self._out, stored.ranges)):
            ends = range(begin + 1, after + 1)
            end = begin + bisect_right(ends, left, key=lambda end: self._layout.span(begin, end)[1])
            size_bytes = self._layout.span(begin, end)[1]
            self._out = union(self._out, ((begin, end),))
            self._hold(self._out_bytes + size_bytes)
            left -= size_bytes
            if end < after:
                return end
        return last

    def acknowledged(self, stored: Metered) -> None:
        """A receipt was accepted and its ack is durable, or the account is disputed. What was sent before the first of them is on its way
        as well: nobody has signed for it."""
        self._out = without(self._out if self.opened else self._sent.touched(), stored.ranges)
        self.stored = stored
        self._hold(self._measure(self._out))
        self._all.news.set()
        self.heard(stored)

    def _hold(self, size_bytes: int) -> None:
        self._all.size_bytes += size_bytes - self._out_bytes
        self._out_bytes = size_bytes

    def sent(self, first: int, length: int) -> None:
        """Bytes went out."""
        if not self.opened:
            self._sent.add(first, length)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around one answer with data: its time counts, once for all that run at the same time."""
        if not self._running:
            self._since = monotonic()
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._microseconds += int((monotonic() - self._since) * MICROSECONDS)

    @property
    def microseconds(self) -> int:
        """The time in which data flowed."""
        return self._microseconds + (int((monotonic() - self._since) * MICROSECONDS) if self._running else 0)

    @property
    def calls(self) -> int:
        """One, once something was delivered: signed for, or sent to who signs nothing. What was counted before stays."""
        return max(self._calls, call((self.stored.counts if self.stored and self.opened else self._before + self._sent.counts()).bytes))

    def beyond(self, ranges: Ranges) -> int:
        """How many bytes are on their way, or were, beside these leaves and those that were acknowledged."""
        return self._measure(without(self._out, ranges))

    def _measure(self, ranges: Ranges) -> int:
        return sum(self._layout.span(*each)[1] for each in ranges)

    @property
    def out_bytes(self) -> int:
        """What is on its way or arrived and is not acknowledged: without an account that both sides attest, all that was sent."""
        return self._out_bytes if self.opened else self._sent.counts().bytes

    def counts(self) -> Counts:
        """What was sent to a consumer that signs nothing."""
        return self._before + self._sent.counts() + Counts(calls=self.calls, microseconds=self.microseconds)

    def written(self, stored: Metered, now: float) -> Metered | None:
        """The account with what was sent by now to who signs nothing; None if `stored` says so already."""
        if (counts := self.counts()) == stored.counts or not stored.counts.within(counts):
            return None
        after = replace(stored, ranges=self._sent.leaves(), sent=self._sent.ranges, before=self._before, version=stored.version + 1)
        return replace(after, counts=counts, days=by_day(stored.days, now, counts), updated=now)


class Accounts:
    """All accounts of this process. `url` is that of the data listener, `signer(origin)` our key of now under the name of a log,
    `prices(document)` the name of the prices of an agreement, `admit` raises for a transfer that must not begin now."""

    def __init__(
        self,
        store: Store,
        decide: Decide,
        identity: Identity,
        clock: Clock,
        url: str,
        signer: Callable[[str], notes.Signer],
        *,
        window_bytes: int = WINDOW_BYTES,
        credit_windows: int = CREDIT_WINDOWS,
        prices: Callable[[Mapping[str, Any]], bytes | None] = lambda _: None,
        admit: Callable[[], None] = lambda: None,
    ) -> None:
        self.prices, self.admit = prices, admit
        self._store, self._decide, self._identity, self._clock = store, decide, identity, clock
        self._url, self._signer = url, signer
        self.window_bytes, self.credit_windows = window_bytes, credit_windows  # of manifests to come
        self._known: dict[str, Account] = {}
        self._open: WeakValueDictionary[str, Open] = WeakValueDictionary()  # by agreement
        self._unwritten: dict[str, Account] = {}
        self._writing: asyncio.Task[None] | None = None
        telemetry.unreceipted_bytes.set_function(lambda: sum(account.out_bytes for account in self._known.values() if account.opened))

    async def of(self, permit: Permit, log: Described) -> Account:
        """The account of a transfer that gets the data of `log`. Raises Withdrawn as `Account.follow` does."""
        if (account := self._known.get(permit.transfer)) is None:
            if (stored := await self._store.metered(permit.transfer)) is None:
                self.admit()
            open_ = self._open.setdefault(permit.agreement, Open())
            account = self._known.setdefault(permit.transfer, Account(permit, log, stored, open_))
            if len(self._known) > TRANSFERS_MAX:
                self._forget_one()
        account.follow(permit, log)
        return account

    def at_hand(self, transfer: str) -> Account | None:
        """The account of a transfer that was looked at before."""
        return self._known.get(transfer)

    def _forget_one(self) -> None:
        for transfer, account in self._known.items():
            if not account._running and transfer not in self._unwritten:
                account._hold(0)
                del self._known[transfer]
                return

    async def manifest(self, account: Account, *, shown: bool = False, signs: bool = False) -> str:
        """What we promise of the data (JWS), signed and durable before anybody has it, or a byte of them. If it is to be `shown`, one that
        nobody has signed for and that has ended, or whose key has, is signed anew: who has accepted it before may sign for it until then.
        Who sees it, or `signs` at all, means to sign receipts, which is as durable. Raises Withdrawn if the agreement is gone,
        StoreError if it cannot be written."""
        stored, asked = account.stored, shown or signs
        if stored is None or (asked and stored.silent) or not (self._acceptable if shown else _same)(stored, account.log):
            stored = await self._promise(account, asked)
        return stored.manifest

    def _acceptable(self, stored: Metered | None, log: Described) -> bool:
        """Whether what is promised is of this log, and is signed for or could be accepted now."""
        if stored is None or not _same(stored, log):
            return False
        proven = partial(self._identity.read, issuer=self._identity.own.id)
        return stored.sequence > 0 or acceptable(stored.manifest, proven=proven, now=self._clock.now())

    async def _promise(self, account: Account, asked: bool) -> Metered:
        permit, log = account.permit, account.log
        made: Metered | None = None

        async def step() -> Changes | None:
            nonlocal made
            stored = await self._store.metered(permit.transfer)
            if stored is not None and self._acceptable(stored, log):
                news = asked and stored.silent
                made = replace(stored, asked=True, version=stored.version + 1, updated=self._clock.now()) if news else stored
                return Changes((Expect(Metered, permit.transfer, stored.version),), (made,)) if news else None
            agreement = await self._store.agreement(permit.agreement)
            process = await self._store.process(Kind.TRANSFER, permit.transfer)
            if agreement is None or process is None or process.peer_pid is None:
                raise Withdrawn("the transfer or its agreement is no longer stored", "unknown-agreement")
            now = int(self._clock.now())
            ends = now + MANIFEST_SECONDS if agreement.ends is None else int(agreement.ends)
            origin = self.origin(log)
            manifest = Manifest(
                issuer=self._identity.own.id, audience=permit.consumer, issued=now, expires=max(now + 1, ends),
                agreement=agreement.id, policy=digest_of(agreement.document), dataset=permit.dataset,
                consumer_pid=process.peer_pid, provider_pid=permit.transfer, unit=read_header(log.header).record_unit,
                snapshot=log.snapshot, log=ContentLog(origin, CHUNK_BYTES, log.root, log.size_bytes),
                receipts=f"{self._url}/data/{permit.transfer}/receipts", window_bytes=self.window_bytes,
                credit_windows=self.credit_windows, required=account.required, prices=self.prices(agreement.document),
            )  # fmt: skip
            token = self._identity.sign(manifest.claims(), Manifest.TYP)
            shape = (permit.transfer, Role.PROVIDER, agreement.id, permit.consumer, token, origin, CHUNK_BYTES)
            made = Metered(*shape, log.root, None if log.root is None else log.leaves, log.size_bytes, version=1, updated=now)
            if stored is not None and _same(stored, log):  # what was sent of it stays counted
                made = replace(stored, manifest=token, version=stored.version + 1, updated=now)
            elif stored is not None:
                before = replace(stored.counts, calls=0, microseconds=0)
                made = replace(made, version=stored.version + 1, counts=stored.counts, before=before, days=stored.days)
            made = replace(made, asked=asked or (stored is not None and stored.asked))
            fact = (telemetry.MANIFEST, Kind.TRANSFER, permit.transfer, permit.consumer, process.state, self._clock.now())
            evidence = Evidence(*fact, digest=digest(token), entry=token)
            return Changes((Expect(Metered, permit.transfer, stored.version if stored else None),), (made,), evidence=(evidence,))

        await self._decide(step, permit.transfer)
        if made is None:
            raise AssertionError("a promise is there or was made")
        account.stored = made
        return made

    def origin(self, log: Described) -> str:
        """The name of a content log in its checkpoints."""
        return f"{urlsplit(self._url).netloc}/log/{log.snapshot}"

    def checkpoint(self, log: Described, leaves: int | None = None) -> bytes:
        """The signed checkpoint of a content log (C2SP signed note), or of its first `leaves` leaves, which are there."""
        origin, leaves = self.origin(log), log.leaves if leaves is None else leaves
        root = log.root_at(leaves) or b""
        return checkpoints.sign(checkpoints.Checkpoint(origin, leaves, root), [self._signer(origin)])

    def written_soon(self, account: Account) -> None:
        """What was sent of a transfer is to be stored, together with what others do meanwhile."""
        if account.opened:
            return  # its receipts say what it comes to
        self._unwritten[account.permit.transfer] = account
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all(), name="accounts")

    async def _write_all(self) -> None:
        while self._unwritten:
            await asyncio.sleep(WRITE_SECONDS)
            try:
                await self.write_now()
            except ConnectorError as error:  # what could not be written is still to be
                telemetry.log.error("accounts not written", reason=error.message)

    async def write_now(self, transfer: str | None = None) -> None:
        """Store what was sent to those who sign nothing, or to one of them. An account of a transfer that is gone is said, and keeps nobody
        from theirs. Raises StoreError: what is not stored then is still to be."""
        for pid in tuple(self._unwritten) if transfer is None else (transfer,):
            if (account := self._unwritten.pop(pid, None)) is None:
                continue
            try:
                await self._write(account)
            except (Withdrawn, MeterRefused) as error:
                telemetry.log.warning("account not written", transfer=account.permit.transfer, reason=error.message)
            except BaseException:
                self._unwritten.setdefault(pid, account)
                raise

    async def _write(self, account: Account) -> None:
        await self.manifest(account)
        after: Metered | None = None

        async def step() -> Changes | None:
            nonlocal after
            stored, after = await self._store.metered(account.permit.transfer), None
            if stored is not None and not stored.sequence and _same(stored, account.log):
                after = account.written(stored, self._clock.now())
            return Changes((Expect(Metered, after.transfer, after.version - 1),), (after,)) if after is not None else None

        await self._decide(step, account.permit.transfer)
        if after is not None:
            account.stored = after

    async def close(self) -> None:
        """Store what is not stored yet. Nothing is sent any more."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        await self.write_now()


def _same(stored: Metered | None, log: Described) -> bool:
    """Whether an account is of this log. One without a root is known by its name."""
    named = stored is not None and (log.root is not None or stored.origin.endswith(f"/log/{log.snapshot}"))
    return named and stored is not None and stored.root == log.root
