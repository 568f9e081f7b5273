"""The consumer's account of one transfer: what was verified is receipted, and each receipt acknowledged, while more comes.

A receipt is signed when half of the credit more was verified, of one to four windows, a second after something was (after each window from
then on, if one was), when a leaf is wrong, and at the end. It is stored before it is posted, so that after a crash the same one goes out
again and no other with its number. One at a time waits for its ack; it is posted again after 2 s, 4 s and so on. What a receipt covers lies
on the disk when it is signed, as far as `after` says; if that is `fsync`, the disk writes what the next one covers meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from http import HTTPStatus

from connector import telemetry
from connector.dsp.messages import Kind, Role
from connector.errors import ConnectorError, PeerFailed, PeerRefused, SinkFailed
from connector.intake.beside import Beside, problem_code
from connector.intake.patience import CLOCKS, OVER, Doubt, doubtful, hindered
from connector.intake.promise import Broken, Promised
from connector.intake_accounts.remembered import remembered, theirs
from connector.lasting import since_boot, stopped
from connector.metering import chain_consumer as chain
from connector.metering.chain import CLOSED, Outcome
from connector.metering.content import SEPARATORS
from connector.metering.credit import due
from connector.metering.dating import Dating
from connector.metering.objects import Ack, Receipt, Rejected, digest, kept
from connector.metering.ranges import Ranges, covers, union, without
from connector.ports import Clock, Identity, Ids, Store
from connector.ports.sinks import Placed
from connector.records import Changes, Evidence, Expect
from connector.records.metering import Metered, Receipted
from connector.remembered import pause_seconds
from connector.values import Value, replace

QUIET_SECONDS = 1.0  # after which what was verified is receipted, be it less than a window
FIRST_PAUSE_SECONDS, PAUSE_SECONDS_MAX = 2.0, 30.0  # before a receipt without an ack is posted again
LAST_SECONDS = 5.0  # for the receipt that is the last one: whoever stops does not wait long

Decide = Callable[[Callable[[], Awaitable[Changes | None]], str], Awaitable[Changes | None]]


class Means(Value):
    """What all accounts share: `decide` commits (`Journal.decide`), `ledger` gives our newest signed checkpoint or None, `heard(transfer)`
    says of a transfer that is over whether the provider has our last receipt (`control_billing.stating`)."""

    store: Store
    decide: Decide
    identity: Identity
    clock: Clock
    ids: Ids
    ledger: Callable[[], Awaitable[str | None]] | None = None
    heard: Callable[[str], Awaitable[bool]] | None = None


class Account:
    """The account of the transfer `transfer` (our pid) with `peer` under `agreement`.

    `records(first, end)` are those that end in leaves, where they are counted; `measured()` the microseconds so far. `look()`
    calls `verified` if there is more by now."""

    def __init__(
        self,
        means: Means,
        promise: Promised,
        beside: Beside,
        sink: Placed,
        *,
        transfer: str,
        peer: str,
        agreement: str,
        after: str,
        records: Callable[[int, int], int],
        measured: Callable[[], int],
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self._means, self._promise, self._beside, self._sink = means, promise, beside, sink
        self._transfer, self._peer, self._agreement, self._after = transfer, peer, agreement, after
        self._measured, self._look, self._dating = measured, look, Dating(means.clock.now, since_boot)
        manifest = promise.manifest
        self._log = promise.known(records if manifest.unit in SEPARATORS else None)
        self._account = Metered(transfer, Role.CONSUMER, agreement, peer, promise.token, manifest.log.origin, *promise.form)
        self._said: Ranges = ()
        self._kept: Ranges = ()  # what of it has got as far as `after` says
        self._news, self._more, self._signed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._rejected: list[Rejected] = []
        self._ending = self._halting = self._hurried = False
        self._unsaved = False  # an ack is here that is not on record
        self._untaken: PeerFailed | None = None  # why the receipt that waits is not taken yet

    @property
    def told(self) -> Ranges:
        """The leaves that were receipted."""
        return self._account.ranges

    @property
    def stored(self) -> Metered:
        """The account as it stands."""
        return self._account

    async def open(self, *, first: bool = True) -> None:
        """Take up the account where it stands, here or at the provider, and have its last receipt acknowledged, or the `first` one, which
        opens it; else `run` or whatever ends it does. Raises PeerFailed, and may be called again then; Broken if nothing can come of it."""
        stored = await self._means.store.metered(self._transfer)
        if stored is not None:
            if stored.manifest != self._promise.token:
                raise Broken("the provider has signed another manifest for this transfer than before", "manifest-changed")
            self._account = stored
        await self._restore()
        await self._post()
        if first and not self._account.sequence:
            await self._sign("partial")
            await self._post()

    async def run(self) -> None:
        """Write receipts until `end`; `complete` or `last` follows. Raises Broken if the provider refuses one, PeerRefused, SinkFailed,
        StoreError."""
        if self._after == "fsync":
            self._keeping = asyncio.create_task(self._keep_up(), name=f"disk {self._transfer}")
            self._keeping.add_done_callback(lambda _: self._news.set())
        try:
            while not self._ending:
                await self._until_due()
                if self._rejected:
                    await self._sign_rejected()
                elif self._new and not self._ending:
                    await self._sign("partial", disk=self._after == "fsync" and self._due)
                elif not self._ending:  # at the end the last receipt puts it on record
                    await self._settle()
                await self._post_until_acknowledged()
        finally:
            await stopped(self._keeping)
            self._keeping = None

    async def _keep_up(self) -> None:
        """Let each window get to the disk as soon as it has come, and the one before is there. Raises SinkFailed."""
        while True:
            await self._more.wait()
            self._more.clear()
            while self._bytes(self._said) - self._bytes(self._kept) >= self._promise.manifest.window_bytes:
                await self._keep()

    async def _keep(self) -> None:
        """Let what is verified by now get as far as `after` says. What comes meanwhile may get there as well; it is told the next time."""
        self._look()
        said = self._said
        if said and self._after == "fsync":
            await self._sink.sync()
        self._kept = union(self._kept, said)  # two may be at it
        self._news.set()

    def _bytes(self, ranges: Ranges) -> int:
        return self._log.measure(ranges).bytes

    def verified(self, ranges: Ranges) -> None:
        """Say which leaves are verified and lie at their place, all of them so far that this transfer has brought."""
        self._said = ranges
        self._news.set()
        self._more.set()

    @property
    def _verified(self) -> Ranges:
        """What can be signed for, now or when it is on the disk."""
        return self._to_sign(self._said)

    def _to_sign(self, ranges: Ranges) -> Ranges:
        """Without the leaves that were wrong and are right by now, until they have been rejected."""
        return without(ranges, tuple(sorted((each.leaf, each.leaf + 1) for each in self._rejected)))

    @property
    def _due(self) -> bool:
        """Whether there is a window to be signed for that has got as far as `after` says. Of the last one `complete` says all there is."""
        ranges, told = self._to_sign(self._kept if self._after == "fsync" else self._said), self._account
        if not covers(ranges, told.ranges) or covers(self._verified, self._promise.whole):
            return False
        return due(self._promise.manifest, told.counts, self._log.measure, ranges, each_window=self._halting or self._beside.brought)

    def reject(self, leaf: int, got: bytes) -> None:
        """Say that a leaf came with another hash."""
        if not covers(self._account.ranges, ((leaf, leaf + 1),)):  # of one that was right before, and is lost here, we signed otherwise
            self._rejected.append(Rejected(leaf, got))
            self._news.set()

    async def signed(self, ranges: Ranges) -> None:
        """Return once a receipt over these leaves, which are verified, is stored. It is signed as soon as the one before has its ack."""
        self._hurried = True
        while not covers(self._account.ranges, ranges):
            self._signed.clear()
            self._news.set()
            await self._signed.wait()

    def end(self) -> None:
        """Let `run` end, after what it does now."""
        self._ending = True
        self._news.set()

    async def complete(self) -> None:
        """The last receipt, once all is verified. Raises as `run`, PeerFailed: then it may be called again."""
        await self._say_rejected()
        if self._account.status not in CLOSED:
            whole = covers(union(self._verified, self._account.ranges), self._promise.whole)
            await self._sign("complete" if whole else "partial")
            await self._post()
        await self._settle()

    async def last(self, reason: str | None = None) -> None:
        """The last receipt as we stop: over what was verified since the one before, as far as that lies where it is to, and with the
        `reason` why we stop. Only if it can be said quickly."""
        try:
            async with asyncio.timeout(LAST_SECONDS):
                await self._say_rejected()
                with nullcontext() if reason is None else suppress(SinkFailed):
                    if self._new and self._account.status not in CLOSED:
                        await self._sign("partial")
                        await self._post()
                if reason is not None:
                    await self._sign("aborted", reason=reason)
                    await self._post()
                await self._settle()
        except (ConnectorError, TimeoutError) as error:
            telemetry.log.info("no receipt about the end", transfer=self._transfer, reason=str(error))

    @property
    def _pending(self) -> bool:
        return bool(self._account.receipt) and not self._account.ack

    @property
    def _new(self) -> bool:
        """Whether there is something to be receipted, or nothing is yet. What was receipted and is lost comes first: it is covered anew."""
        told = self._account
        return not told.sequence or (covers(self._verified, told.ranges) and not covers(told.ranges, self._verified))

    async def _until_due(self) -> None:
        loop = asyncio.get_running_loop()
        by: float | None = None
        self._look()
        while not (self._ending or self._rejected):
            if self._keeping is not None and self._keeping.done():
                await self._keeping  # raises what has ended it
            if self._due or (self._hurried and self._new):
                return
            if self._new or self._unsaved:
                by = by or loop.time() + QUIET_SECONDS
            self._news.clear()
            try:
                async with asyncio.timeout_at(by):
                    await self._news.wait()
            except TimeoutError:  # it may be that the provider has credit for no more: some is lost, or is more than it can keep
                self._halting |= self._bytes(self._said) - self._account.counts.bytes >= self._promise.manifest.window_bytes
                return

    async def _say_rejected(self) -> None:
        """Post the receipt that waits for its ack, then one for each leaf that is still to be rejected. Raises as `_post`."""
        await self._post()
        while self._rejected:
            await self._sign_rejected()
            await self._post()

    async def _sign_rejected(self) -> None:
        rejected = self._rejected[0]
        telemetry.log.warning("leaf rejected", transfer=self._transfer, leaf=rejected.leaf, got=rejected.got.hex())
        if covers(self._verified, self._account.ranges):
            await self._sign("rejected", rejected=rejected)
        self._rejected.remove(rejected)

    async def _sign(self, state: str, *, rejected: Rejected | None = None, reason: str | None = None, disk: bool = False) -> None:
        """Sign the next receipt over what is verified now, or over what is on the `disk` by now, and store it."""
        if reason is None and not disk:
            await self._keep()
        verified, told = self._to_sign(self._kept), self._account.ranges
        covered = union(verified, told) if reason is None and covers(verified, told) else told
        receipt = chain.receipt_for(
            self._account,
            covered,
            log=self._log,
            checkpoint=self._promise.signed(covered),
            id=self._means.ids.new(),
            now=self._dating.now(),
            after=self._after,
            state=state,
            microseconds=self._measured(),
            rejected=rejected,
            reason=reason,
            ledger=await self._means.ledger() if self._means.ledger is not None else None,
        )
        token = self._means.identity.sign(receipt.claims(), Receipt.TYP)
        await self._save(chain.issued(self._account, token, receipt), (telemetry.RECEIPT_SIGNED, token))

    async def _post_until_acknowledged(self) -> None:
        """Returns also without an ack, at the end. Raises Broken, PeerRefused for a refusal that is believed."""
        failures, doubt = 0, Doubt(self._beside.afresh)
        while self._pending:
            try:
                await self._post()
            except PeerFailed as error:
                doubt.bear(error)
                self._untaken = error
                telemetry.log.info("receipt without ack", transfer=self._transfer, sequence=self._account.sequence, reason=error.message)
                pause = pause_seconds(failures := failures + 1, FIRST_PAUSE_SECONDS, PAUSE_SECONDS_MAX)
                if self._ending and pause >= PAUSE_SECONDS_MAX:  # whoever ends posts it on, with patience that ends
                    return
                await asyncio.sleep(pause)
        self._untaken = None

    def hindered(self, failed: PeerFailed) -> PeerFailed:
        """Why data did not come that `failed` so: those that wait for credit wait for what the receipt waits for."""
        return hindered(failed, self._untaken)

    async def _post(self) -> None:
        """Post the receipt that waits for its ack, if one does. Raises Broken, PeerFailed."""
        if not self._pending:
            return
        reply = await self._beside.post(self._promise.manifest.receipts, self._account.receipt)
        if reply.status != HTTPStatus.OK:
            code = problem_code(reply.body)
            if code == "sequence-stale" and await self._restore():
                return
            if code is None or code in CLOCKS | OVER:
                text = f"the provider took no receipt: status {reply.status}" + (f", `{code}`" if code else "")
                raise PeerRefused(text, status=reply.status, said=code)
            raise Broken(f"the provider refused receipt {self._account.sequence}: `{code}`", code)
        token = _text(reply.body)
        now = self._means.clock.now()
        judged = chain.judge_ack(self._account, token, proven=theirs(self._means.identity, self._peer, now), now=now)
        if judged.outcome is Outcome.STALE:
            raise PeerFailed("the ack is for an earlier receipt")
        if judged.outcome is not Outcome.ACCEPTED:
            text = f"the provider's ack does not hold: {judged.message}"
            raise PeerRefused(text, said=judged.code) if judged.code in CLOCKS else Broken(text, judged.code)
        self._account, self._unsaved = judged.account, True
        self._dating.agreed(kept(Ack, token).issued)

    async def _restore(self) -> bool:
        """Take what the provider has kept of our receipts, if it is more than we have. Raises Broken if it does not hold."""
        try:
            told = await self._beside.receipts(self._promise.manifest.receipts)
        except PeerRefused as refused:
            if doubtful(refused):
                raise
            return False  # nothing is kept there
        account = remembered(self._account, told, self._means.identity, self._means.clock.now())
        if account is None:
            return False
        telemetry.log.warning("receipts taken up from the provider", transfer=self._transfer, sequence=account.sequence)
        await self._save(account, (telemetry.RECEIPT_SIGNED, account.receipt), (telemetry.RECEIPT_ACKNOWLEDGED, account.ack))
        return True

    async def _save(self, account: Metered, *objects: tuple[str, str]) -> None:
        """Commit the account with the `objects` that have changed it (what they are, JWS), and with the last ack, if that is not on record
        yet. Durable on return.

        An ack is put on record with the receipt that follows, which saves every second write: whoever loses it in a crash posts its receipt
        again, and gets the same one. Whoever states what the transfer came to, once it is over, may have put it on record before us. Raises
        Broken if the account was changed otherwise.
        """
        now = self._means.clock.now()
        before, saved = self._account, replace(account, version=account.version + 1, updated=now)
        unsaved = (before,) if self._unsaved else ()
        rows = {digest(each.receipt): self._row(each, now) for each in (*unsaved, saved) if each.receipt}
        facts = [self._fact(telemetry.RECEIPT_ACKNOWLEDGED, each.ack, now) for each in unsaved]
        if not account.version:
            facts.append(self._fact(telemetry.MANIFEST_ACCEPTED, self._promise.token, now))
        facts += [self._fact(what, token, now) for what, token in objects]
        known: Metered | None = None

        async def step() -> Changes:
            nonlocal known, saved
            known = await self._means.store.metered(self._transfer) if known is not None else before  # again after a conflict
            if known is not None and known.version >= saved.version:
                if replace(known, version=before.version, updated=before.updated) != before:
                    raise Broken("the account of this transfer was changed meanwhile by somebody else", "account-changed")
                facts[:] = [fact for fact in facts if fact.what != telemetry.RECEIPT_ACKNOWLEDGED]
                saved = replace(saved, version=known.version + 1)
            return Changes((Expect(Metered, self._transfer, saved.version - 1 or None),), (saved, *rows.values()), evidence=tuple(facts))

        await self._means.decide(step, self._transfer)
        self._account, self._unsaved = saved, False
        self._signed.set()

    async def _settle(self) -> None:
        """Put the last ack on record, if it is not yet."""
        if self._unsaved:
            await self._save(self._account)

    def _row(self, account: Metered, now: float) -> Receipted:
        return Receipted(self._transfer, account.sequence, digest(account.receipt), account.receipt, account.ack or None, now)

    def _fact(self, what: str, token: str, now: float) -> Evidence:
        return Evidence(what, Kind.TRANSFER, self._transfer, self._peer, None, now, digest=digest(token), entry=token)


def _text(body: bytes) -> str:
    try:
        return body.decode("ascii").strip()
    except UnicodeDecodeError:
        raise Broken("the provider's ack is not a JWS", "jws-parts") from None
