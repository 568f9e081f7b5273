"""The accounts of the transfers that we serve (`dataplane_accounts`), and what is stored of them: what was promised, what may leave before
it does, and what was sent to who signs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from connector import telemetry
from connector.dataplane.flows import TRANSFERS_MAX
from connector.dataplane.gate import Permit
from connector.dataplane.index import Described
from connector.dataplane.quotas import Decide
from connector.dataplane_accounts.account import Account, same
from connector.dataplane_accounts.opens import Opens
from connector.dsp.messages import Kind, Role
from connector.errors import ConnectorError, MeterRefused, PolicyError, SinkFailed, Withdrawn
from connector.lasting import since_boot
from connector.merkle import checkpoints, notes
from connector.metering import passed
from connector.metering.chain_consumer import acceptable
from connector.metering.content import CHUNK_BYTES, digest_of, read_header
from connector.metering.dating import Dating
from connector.metering.objects import CREDIT_WINDOWS, WINDOW_BYTES, ContentLog, Manifest, digest
from connector.ports import Clock, Identity, Stage, Store
from connector.records import Changes, Evidence, Expect
from connector.records.metering import Metered
from connector.signatures.jws import claims_of
from connector.values import replace

WRITE_SECONDS: Final = 1.0  # between two writes of what was sent to who signs nothing: a crash forgets so much, in the consumer's favour
# That ended last: what is signed for soon after an end finds the account as it was, and later as after a start. Each keeps its log, which
# for data that have an end is a descriptor.
ENDED_MAX: Final = 128
MANIFEST_SECONDS: Final = 366 * 86_400  # for agreements without an end


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
        self._dating = Dating(clock.now, since_boot)
        self._known: dict[str, Account] = {}
        self.opens = Opens(store, clock)
        self._unwritten: dict[str, Account] = {}
        self._ended: dict[str, None] = {}  # transfers that are over, the oldest first
        self._writing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        telemetry.unreceipted_bytes.set_function(lambda: sum(account.out_bytes for account in self._known.values() if account.opened))

    async def of(self, permit: Permit, log: Described) -> Account:
        """The account of a transfer that gets the data of `log`. Raises Withdrawn as `Account.follow` does."""
        if (account := self._known.get(permit.transfer)) is None:
            open_ = await self.opens.of(permit)
            if (stored := await self._store.metered(permit.transfer)) is None:
                self.admit()
            account = Account(permit, log, stored, open_)
            account.follow(permit, log)  # one that was signed for of other data is not kept: what it is of may be published again
            account = self._known.setdefault(permit.transfer, account)
            account.note = account.note or partial(self._note, account)
            if len(self._known) > TRANSFERS_MAX:
                self._forget_one()
        account.follow(permit, log)
        return account

    def dated(self, receipt: str) -> float:
        """What to date the ack of this receipt (JWS) with, which was accepted now: as `Dating`, and not before it."""
        issued = float(claims_of(receipt)["iat"])
        self._dating.agreed(issued)
        return max(self._dating.now(), issued)

    def at_hand(self, transfer: str) -> Account | None:
        """The account of a transfer that was looked at before."""
        return self._known.get(transfer)

    def _forget_one(self) -> None:
        for transfer, account in self._known.items():
            if not account.flows and transfer not in self._unwritten:
                del self._known[transfer]  # what it has on its way goes on counting
                return

    async def _note(self, account: Account, *, ahead: bool = True) -> None:
        """Store what may leave of a transfer, before it does; if nothing more is to (not `ahead`), what did."""

        async def step() -> Changes | None:
            stored = await self._store.metered(account.permit.transfer)
            if stored is None or not stored.sequence or (sent := account.reserve(stored, ahead=ahead)) == stored.sent:
                return None
            return Changes((Expect(Metered, stored.transfer, stored.version),), (replace(stored, sent=sent, version=stored.version + 1),))

        await self._decide(step, account.permit.transfer)

    async def settle(self, transfer: str) -> None:
        """A transfer has ended: store what was sent to who signs nothing, or had left of what is not signed for."""
        await self.write_now(transfer)
        if (account := self._known.get(transfer)) is not None and account.opened:
            await self._note(account, ahead=False)
        if account is not None:
            account.heard = lambda _: None
            self._ended[transfer] = None
            if len(self._ended) > ENDED_MAX:
                self._known.pop(oldest := next(iter(self._ended)), None)
                del self._ended[oldest]

    async def manifest(self, account: Account, *, shown: bool = False, signs: bool = False) -> str:
        """What we promise of the data (JWS), signed and durable before anybody has it, or a byte of them. If it is to be `shown`, one that
        nobody has signed for and that has ended, or whose key has, is signed anew: who has accepted it before may sign for it until then.
        Who sees it, or `signs` at all, means to sign receipts, which is as durable. Raises Withdrawn if the agreement is gone,
        StoreError if it cannot be written."""
        stored, asked = account.stored, shown or signs
        if stored is None or (asked and stored.silent) or not (self._acceptable if shown else same)(stored, account.log):
            stored = await self._promise(account, asked)
        return stored.manifest

    def _acceptable(self, stored: Metered | None, log: Described) -> bool:
        """Whether what is promised is of this log, and is signed for or could be accepted now."""
        if stored is None or not same(stored, log):
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
                credit_windows=self.credit_windows, required=account.required, prices=self._prices(agreement.document),
            )  # fmt: skip
            token = self._identity.sign(Manifest.of(manifest.claims()).claims(), Manifest.TYP)  # none that could not be read
            shape = (permit.transfer, Role.PROVIDER, agreement.id, permit.consumer, token, origin, CHUNK_BYTES)
            made = Metered(*shape, log.root, None if log.root is None else log.leaves, log.size_bytes, version=1, updated=now)
            if stored is not None and same(stored, log):  # what was sent of it stays counted
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

    def _prices(self, document: Mapping[str, Any]) -> bytes | None:
        try:
            return self.prices(document)
        except PolicyError as error:
            text = f"what the agreement says of prices is not understood, so nobody could say what is owed: {error.reasons[0]}"
            raise Withdrawn(text, "prices-unreadable") from None

    def origin(self, log: Described) -> str:
        """The name of a content log in its checkpoints."""
        return f"{urlsplit(self._url).netloc}/log/{log.snapshot}"

    def checkpoint(self, log: Described, stages: Iterable[Stage], leaves: int | None = None, *, end: bool = False) -> bytes:
        """The signed checkpoint of a content log (C2SP signed note), or of its first `leaves` leaves, which are there. It names the
        `stages` that its bytes have passed, and says whether that is the `end` of live data, with all of what their source sent."""
        origin, leaves = self.origin(log), log.leaves if leaves is None else leaves
        root = log.root_at(leaves) or b""
        lines = passed.write((stage.name for stage in stages), end=end)
        return checkpoints.sign(checkpoints.Checkpoint(origin, leaves, root, lines), [self._signer(origin)])

    def written_soon(self, account: Account) -> None:
        """What was sent of a transfer is to be stored, together with what others do meanwhile."""
        if account.opened:
            return  # its receipts say what it comes to
        self._unwritten[account.permit.transfer] = account
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all(), name="accounts")

    async def _write_all(self) -> None:
        while self._unwritten and not self._closing.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(WRITE_SECONDS):
                    await self._closing.wait()
            try:
                await self.write_now()
            except ConnectorError as error:  # what could not be written is still to be
                telemetry.log.error("accounts not written", reason=error.message)

    async def write_now(self, transfer: str | None = None) -> None:
        """Store what was sent to those who sign nothing, or to one of them. An account of a transfer that is gone is said, and neither it
        nor one whose index cannot be read keeps anybody from theirs. Raises SinkFailed for the latter, StoreError: what is not stored then
        is still to be."""
        unread: SinkFailed | None = None
        for pid in tuple(self._unwritten) if transfer is None else (transfer,):
            if (account := self._unwritten.pop(pid, None)) is None:
                continue
            try:
                await self._write(account)
            except (Withdrawn, MeterRefused) as error:
                telemetry.log.warning("account not written", transfer=account.permit.transfer, reason=error.message)
            except SinkFailed as error:
                self._unwritten.setdefault(pid, account)
                unread = error
            except BaseException:
                self._unwritten.setdefault(pid, account)
                raise
        if unread is not None:
            raise unread

    async def _write(self, account: Account) -> None:
        await self.manifest(account)
        after: Metered | None = None

        async def step() -> Changes | None:
            nonlocal after
            stored, after = await self._store.metered(account.permit.transfer), None
            if stored is not None and not stored.sequence and same(stored, account.log):
                after = account.written(stored, self._clock.now())
            if after is None:
                return Changes(evidence=account.unrecorded) if account.unrecorded else None
            return Changes((Expect(Metered, after.transfer, after.version - 1),), (after,), evidence=account.unrecorded)

        written = await self._decide(step, account.permit.transfer)
        for fact in written.evidence if written is not None else ():  # also of a commit that saves no account, of which nobody is told
            account.recorded(fact)
        if after is not None:
            account.stored = after

    async def close(self) -> None:
        """Store what is not stored yet. Nothing is sent any more. What is just being written is waited for: to write it again would put it
        on record twice."""
        self._closing.set()
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        await self.write_now()
