"""Receipts: what a consumer has signed is judged, made durable with its evidence, numbered in the ledger, and only then acknowledged.

Each of the two writes, the receipt and its ack, changes the account as it was read, or is judged again. A crash between them loses
nothing: the consumer sends the same receipt again and gets the ack that is made then. What cannot be written is not acknowledged, and
without an ack there is no new credit.

While more is on its way, the two are one write, and the ack names no place in the ledger: the stream would wait for three turns
of the disk instead of one, and that of its next receipt, which takes the place of this one, or of the last one is named all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from time import monotonic, perf_counter
from typing import Any, Final

from connector import telemetry
from connector.dataplane.accounts import Accounts
from connector.dataplane.flows import TRANSFERS_MAX, Flows
from connector.dataplane.gate import Permit
from connector.dataplane.index import Described
from connector.dataplane.quotas import Decide
from connector.dataplane_accounts.account import Account, known_log, late, own_counts
from connector.dataplane_accounts.indexed import nothing_indexed
from connector.dataplane_accounts.outstanding import unsigned_of
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.errors import MeterRefused, TooMany
from connector.metering import chain
from connector.metering.chain import Judged, Outcome
from connector.metering.content import Layout
from connector.metering.objects import Ack, Receipt, Rejected, digest, kept, manifest_of, pending
from connector.metering.ranges import Ranges
from connector.metering.statements import Statement, flow_of
from connector.odrl.codes import Code
from connector.ports import Clock, Identity, Ids, Store
from connector.ports.ledger import Ledger
from connector.records import Changes, Evidence, Expect
from connector.records.metering import Counts, Metered, Receipted
from connector.remembered import Paces
from connector.values import Value, replace

IDLE_AT_ONCE, IDLE_SECONDS = 64, 1.0  # receipts that sign for nothing new; each is two entries of a ledger that forgets nothing
IDLE: Final = "these receipts sign for nothing new; send one when there is something, or one a second"
DISPUTED = "disputed"
MEANT_SECONDS: Final = 3_600.0  # after the last that was sent: one that was killed before its first receipt is back by then
OWING: Final = ("open", "rejected")  # a leaf that was wrong is fetched again
ABORTED_SECONDS: Final = 3_600.0  # for who has aborted: a full disk has room again by then, or its order has ended
QUOTA, REVOKED = "quota", "revoked"  # of an ack, for why nothing more will leave
STATE_SECONDS = 5.0  # what is signed for after the end within these is one statement, an entry of a ledger that forgets nothing
STATED_SECONDS = 31 * 86_400.0  # for so long after its end a transfer is stated at the next start, if it was not before
STATED = "both sides have signed what this transfer came to, without this receipt; sign for the rest under another one"
LATE = "more was sent before the first receipt than the credit allows; begin another transfer, and sign before you read"
CREDITED = "others that are over have signed for what this transfer brought, and it is billed there; sign for the rest under another one"
MISSING = "there is no manifest of this transfer yet; get it first, a receipt names it"
SUSPECTED = "this participant has signed checkpoints of its ledger that contradict each other; nothing is acknowledged to it"

LookAt = Callable[[Permit, Described, Rejected], Awaitable[None]]


class Answered(Value):
    """What became of a receipt: `ack` is the answer, or the latest one there is where `code` and `message` refuse it ("" if none)."""

    outcome: Outcome
    ack: str
    code: str = ""
    message: str = ""


class Receipts:
    """Takes receipts for the accounts of `accounts`; `flows` are the streams that are cut when a consumer contradicts itself.
    `live(transfer)` opens the log of live data, which no manifest describes; `indexed(account)` finds that of others for an account that
    is not at hand; `look_at`, if it is set, looks at a leaf that a consumer has rejected; `credited` says whether anything of an account
    without receipts is billed elsewhere, as it is signed for there."""

    def __init__(
        self,
        store: Store,
        decide: Decide,
        identity: Identity,
        clock: Clock,
        ids: Ids,
        accounts: Accounts,
        flows: Flows,
        ledger: Ledger | None = None,
        *,
        live: Callable[[str], AbstractContextManager[Described | None]] = lambda _: nullcontext(),
    ) -> None:
        self._live = live
        self.look_at: LookAt | None = None
        self.indexed: Callable[[Metered], Awaitable[Described | None]] = nothing_indexed
        self.credited: Callable[[Metered], Awaitable[bool]] = nothing_credited
        self._store, self._decide, self._identity, self._clock, self._ids = store, decide, identity, clock, ids
        self._accounts, self._flows, self._ledger = accounts, flows, ledger
        self._paces: Paces[str] = Paces(IDLE_AT_ONCE, IDLE_SECONDS, TRANSFERS_MAX)
        self._numbers: dict[bytes, int] = {}  # digest of a receipt -> sequence of its evidence, until it is acknowledged
        self._tasks: set[asyncio.Task[None]] = set()
        self._to_state: set[str] = set()
        self._closing = asyncio.Event()

    def committed(self, changes: Changes, evidence: tuple[Evidence, ...]) -> None:
        """Listens to commits: as what number a receipt is on record, which transfers are over, which accounts disputed."""
        for record in changes.saves:
            if isinstance(record, Process) and record.kind is Kind.TRANSFER and record.role is Role.PROVIDER and record.final:
                self._accounts.opens.ended(record.pid, record.agreement or "")
                self._soon(self.state(record.pid))
            if isinstance(record, Metered):
                self._accounts.opens.committed(record)
            if isinstance(record, Metered) and (account := self._accounts.at_hand(record.transfer)):
                account.noted(record.sent if record.sequence else ())
                if _disputes(account.stored, record):
                    account.acknowledged(record)
        for fact in evidence:
            if fact.what == telemetry.REQUEST and (account := self._accounts.at_hand(fact.pid or "")):
                account.recorded(fact)
            if fact.what == telemetry.CREDIT_RELEASED and (account := self._accounts.at_hand(fact.pid or "")):
                account.written_off()
            if fact.what == telemetry.RECEIPT and fact.digest is not None:
                self._numbers[fact.digest] = fact.sequence

    async def take(self, transfer: str, token: str, state: str) -> Answered:
        """Take a receipt (JWS) for a transfer. `state` is what its ack says of the transfer: ok, quota, revoked or suspended.

        Raises MeterRefused if there is no manifest yet, TooMany if too many came that sign for nothing new, StoreError if it cannot be made
        durable: then nothing is acknowledged.
        """
        began = perf_counter()
        account = self._accounts.at_hand(transfer)
        peer = account.permit.consumer if account is not None else (await self._demand(transfer)).peer
        if self._ledger is not None and self._ledger.suspected(peer):
            raise MeterRefused(SUSPECTED, "ledger-suspected")
        judged, process = await self._judge(transfer, token, state)
        telemetry.receipts.inc(1, judged.outcome.value)
        if judged.outcome is Outcome.CONFLICT:
            self._acknowledged(judged.account)
            self._flows.cut(transfer, judged.code)
        if judged.outcome not in (Outcome.ACCEPTED, Outcome.DUPLICATE):
            return Answered(judged.outcome, judged.ack, judged.code, judged.message)
        if state == REVOKED and process is not None and process.detail.get("code") == Code.QUOTA_EXHAUSTED:
            state = QUOTA  # which has ended the transfer
        ack = judged.ack or await self._acknowledge(transfer, token, state)
        if process is not None and process.final and judged.outcome is Outcome.ACCEPTED:
            self._state_later(transfer)  # what was signed for after the end counts as well
        telemetry.receipt_seconds.observe(perf_counter() - began)
        rejected = judged.receipt.rejected if judged.receipt is not None and judged.outcome is Outcome.ACCEPTED else None
        if rejected is not None and account is not None and self.look_at is not None:  # once: whoever repeats it has no leaf read again
            await self.look_at(account.permit, account.log, rejected)
        return Answered(judged.outcome, ack)

    async def _demand(self, transfer: str) -> Metered:
        stored = await self._store.metered(transfer)
        if stored is None or stored.role is not Role.PROVIDER:
            raise MeterRefused(MISSING, "manifest-missing")
        return stored

    async def _judge(self, transfer: str, token: str, state: str) -> tuple[Judged[Metered], Process | None]:
        """Judge it, and write what follows: with its ack, if that is not to wait for the ledger. Returns the transfer as it stood, too:
        what ends it takes its turn before this or after, and states all that was signed for by then."""
        note = await self._ledger.checkpoint() if self._ledger is not None else None
        judged: Judged[Metered] | None = None
        process: Process | None = None
        told = 0

        async def step() -> Changes | None:
            nonlocal judged, process, told
            stored, now = await self._demand(transfer), self._clock.now()
            process = await self._store.process(Kind.TRANSFER, transfer)
            over = process is not None and process.final
            account = self._accounts.at_hand(transfer)
            # What was counted without receipts is no part of the chain that begins now.
            signed = stored if stored.sequence else replace(stored, ranges=(), counts=Counts())
            told = signed.counts.bytes
            with self._live(transfer) if stored.root is None else nullcontext() as growing:
                found = growing if stored.root is None or account is not None else await self.indexed(stored)
                log = known_log(stored, account, found)
                judge = partial(chain.judge, signed, token, proven=self._proven(stored.peer), log=log, now=now, watched=True)
                judged = judge()
                if judged.outcome is Outcome.STALE:
                    number = judged.receipt.sequence if judged.receipt is not None else 0
                    judged = judge(known=await self._store.receipts(transfer, number, number + 1))
                rest = stored.sent
                if judged.outcome is Outcome.ACCEPTED and account is None:  # of any other one the log may have lost what was signed for
                    rest = unsigned_of(rest, log, judged.account.ranges)
            if judged.outcome is Outcome.ACCEPTED and not stored.sequence and late(stored, account):
                judged = Judged(Outcome.REFUSED, stored, "account-late", LATE)
            if judged.outcome is Outcome.ACCEPTED and over and await self._store.newest_fact(transfer, telemetry.STATEMENT_AGREED):
                # What the statement that the consumer has signed does not have in it may be signed for elsewhere.
                judged = Judged(Outcome.REFUSED, stored, "account-stated", STATED, stored.ack)
            if judged.outcome is Outcome.ACCEPTED and not stored.sequence and await self.credited(stored):
                judged = Judged(Outcome.REFUSED, stored, "account-credited", CREDITED)
            if state == "ok" and self._flows_on(judged, account):
                acked = self._acked(judged.account, account, state, note)
                judged = replace(judged, account=acked, ack=acked.ack)
            if judged.outcome in (Outcome.ACCEPTED, Outcome.CONFLICT) and judged.account.counts.bytes <= told:
                self._demand_pace(transfer)
            return self._written(stored, judged, token, now, rest, ahead=state == "ok")

        await self._decide(step, transfer)
        if judged is None:
            raise AssertionError("a step judges")
        if judged.outcome is Outcome.ACCEPTED:
            telemetry.receipted_bytes.inc(judged.account.counts.bytes - told)
        if judged.outcome is Outcome.ACCEPTED and judged.ack:
            self._numbers.pop(digest(token), None)
            self._acknowledged(judged.account)
        return judged, process

    def _flows_on(self, judged: Judged[Metered], account: Account | None) -> bool:
        """Whether more is on its way than this receipt covers, or about to be, and the ledger keeps up with what is to be numbered."""
        if judged.outcome is not Outcome.ACCEPTED or judged.receipt is None or judged.receipt.state != "partial" or account is None:
            return False
        more = account.flows or account.beyond(judged.account.ranges) > 0
        return more and (self._ledger is None or not self._ledger.behind())

    def _demand_pace(self, transfer: str) -> None:
        """Raises TooMany for one more that signs for nothing new, if there were too many."""
        if not self._paces.take(transfer, monotonic()):
            raise TooMany(IDLE, retry_seconds=int(IDLE_SECONDS))

    def _proven(self, consumer: str) -> Callable[[str, str], Mapping[str, Any]]:
        now = self._clock.now()
        return lambda token, typ: pending(lambda at: self._identity.read(token, typ, consumer, at=at), token, now)

    def _written(self, stored: Metered, judged: Judged[Metered], token: str, now: float, rest: Ranges, *, ahead: bool) -> Changes | None:
        accepted = judged.outcome is Outcome.ACCEPTED
        if judged.receipt is None or not (accepted or judged.outcome is Outcome.CONFLICT):
            return None
        account = self._accounts.at_hand(stored.transfer)
        sent = account.reserve(judged.account, ahead=ahead) if account is not None else rest
        after = replace(judged.account, own=own_counts(judged.account, account, stored), sent=sent, version=stored.version + 1, updated=now)
        facts = [_fact(telemetry.RECEIPT if accepted else telemetry.RECEIPT_CONFLICT, stored, token, now)]
        if accepted and judged.ack:
            facts.append(_fact(telemetry.ACK, stored, judged.ack, now))
        facts += account.unrecorded if account is not None else ()
        row = Receipted(stored.transfer, judged.receipt.sequence, digest(token), token, judged.ack if accepted else None, now)
        return Changes((Expect(Metered, stored.transfer, stored.version),), (after, row), evidence=tuple(facts))

    def _acked(self, stored: Metered, account: Account | None, state: str, note: str | None, index: int | None = None) -> Metered:
        """The account with the ack of the receipt that was accepted last."""
        now = self._accounts.dated(stored.receipt)
        ack = chain.answer(stored, now=now, index=index, state=state, own=own_counts(stored, account), ledger=note)
        return chain.acked(stored, self._identity.sign(ack.claims(), Ack.TYP), ack)

    async def _acknowledge(self, transfer: str, token: str, state: str) -> str:
        """Sign the ack of the receipt that was accepted last, once that has its place in the ledger, and make it durable."""
        name, index = digest(token), None
        if self._ledger is not None:
            index = (await self._ledger.index_of(await self._number(transfer, name))).index
        note = await self._ledger.checkpoint() if self._ledger is not None else None
        signed, after = "", None

        async def step() -> Changes | None:
            nonlocal signed, after
            stored, now = await self._demand(transfer), self._clock.now()
            if stored.ack or digest(stored.receipt) != name:  # somebody was quicker: with the same, or with one that takes its place
                signed = stored.ack
                return None
            acked = self._acked(stored, self._accounts.at_hand(transfer), state, note, index)
            signed, after = acked.ack, replace(acked, version=stored.version + 1, updated=now)
            saves = (after, Receipted(transfer, stored.sequence, name, token, signed, stored.updated))
            return Changes((Expect(Metered, transfer, stored.version),), saves, evidence=(_fact(telemetry.ACK, stored, signed, now),))

        await self._decide(step, transfer)
        if after is not None:
            self._acknowledged(after)
        self._numbers.pop(name, None)
        return signed

    async def _number(self, transfer: str, name: bytes) -> int:
        """The number under which a receipt is on record."""
        if (known := self._numbers.get(name)) is not None:
            return known
        fact = await self._store.newest_fact(transfer, telemetry.RECEIPT)  # a crash came between the receipt and its ack
        if fact is None:
            raise AssertionError("a receipt that was accepted is on record")
        return fact.sequence  # of a later one, if that has taken its place: then there is nothing to sign

    def _acknowledged(self, stored: Metered) -> None:
        if (account := self._accounts.at_hand(stored.transfer)) is not None:
            account.acknowledged(stored)

    async def owing(self, transfer: str) -> bool:
        """Whether the consumer signs receipts, or means to, and has not signed for all of the data. Who has signed none at all is believed
        to mean it for MEANT_SECONDS: a client that signs its requests, and knows of no receipts, would be waited for for ever. Who has
        aborted owes for ABORTED_SECONDS: it may wait for room on its disk."""
        stored = await self._store.metered(transfer)
        if stored is None or not stored.sequence:
            return stored is not None and stored.asked and self._clock.now() - stored.updated < MEANT_SECONDS
        waits = stored.status == "aborted" and self._clock.now() - stored.updated < ABORTED_SECONDS
        return (waits or stored.status in OWING) and (
            stored.size_bytes is None or stored.ranges != Layout(stored.size_bytes, stored.chunk_bytes).whole
        )

    async def last(self, transfer: str) -> dict[str, str | None]:
        """What a consumer takes up again that has lost its own: the manifest, the last receipt and its ack, and the statement once the
        transfer is over. Raises MeterRefused if there is no manifest yet."""
        stored = await self._demand(transfer)
        found = {"manifest": stored.manifest, "receipt": stored.receipt or None, "ack": stored.ack or None, "statement": None}
        process = await self._store.process(Kind.TRANSFER, transfer)
        if process is not None and process.final:
            said = await self._store.newest_fact(transfer, telemetry.STATEMENT)
            found["statement"] = said.entry if said is not None else None
        return found

    async def stated(self, transfer: str) -> dict[str, str | None]:
        """`last`, with a statement of what the account has come to by now: one more is signed if there is none of it yet. A receipt that a
        crash has left without its ack has it then: nobody posts it again."""
        found = await self.last(transfer)
        if found["receipt"] and not found["ack"]:
            await self._acknowledge(transfer, found["receipt"], REVOKED)
            found = await self.last(transfer)
        said, stored = found["statement"], await self._demand(transfer)
        if said is None or kept(Statement, said).flows != (flow_of(stored),):
            await self.state(transfer)
            found = await self.last(transfer)
        return found

    def recover(self) -> None:
        """Begin to state what had ended and was not stated when an earlier process ended."""
        self._soon(self._make_good())

    async def _make_good(self) -> None:
        since = self._clock.now() - STATED_SECONDS
        for transfer in await self._store.unstated(Role.PROVIDER, (telemetry.STATEMENT,), since):
            try:
                await self.state(transfer)
            except Exception as error:  # the statements behind it are owed as well
                telemetry.log.error("statement failed", exc_info=error, transfer=transfer)
            else:
                telemetry.log.info("statement made good", transfer=transfer)

    async def state(self, transfer: str) -> None:
        """Sign what a transfer has come to, from what is stored. Nothing for one of which nobody wanted any data, and nothing that the last
        statement of it says already."""
        await self._accounts.settle(transfer)
        note = await self._ledger.checkpoint() if self._ledger is not None else None

        async def step() -> Changes | None:
            stored, now = await self._store.metered(transfer), self._clock.now()
            if stored is None or stored.role is not Role.PROVIDER:
                return None
            said = await self._store.newest_fact(transfer, telemetry.STATEMENT)
            if said is not None and said.entry and kept(Statement, said.entry).flows == (flow_of(stored),):
                return None
            manifest, last = manifest_of(stored.manifest), kept(Receipt, stored.receipt) if stored.receipt else None
            parties = (self._identity.own.id, stored.peer, self._ids.new(), int(now), stored.agreement)
            period = (manifest.issued, max(manifest.issued, int(now)))
            statement = Statement(*parties, *period, (flow_of(stored),), note, last.ledger if last is not None else None)
            token = self._identity.sign(statement.claims(), Statement.TYP)
            return Changes((Expect(Metered, transfer, stored.version),), evidence=(_fact(telemetry.STATEMENT, stored, token, now),))

        await self._decide(step, transfer)

    def _state_later(self, transfer: str) -> None:
        """One statement for all that is signed for by then. Who asks before (`stated`) does not wait for it."""
        if transfer not in self._to_state:
            self._to_state.add(transfer)
            self._soon(self._settled(transfer))

    async def _settled(self, transfer: str) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), STATE_SECONDS)
        self._to_state.discard(transfer)
        await self.state(transfer)

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="statement")
        self._tasks.add(task)
        task.add_done_callback(self._stated)

    def _stated(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            telemetry.log.error("statement failed", exc_info=error)

    async def close(self) -> None:
        """Come to the end of what is being signed, now."""
        self._closing.set()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)


async def nothing_credited(_account: Metered) -> bool:
    """Nothing is known of what others have signed for."""
    return False


def _disputes(known: Metered | None, record: Metered) -> bool:
    """Whether a dispute begins, or an operator has settled it."""
    if known is None or known.version >= record.version:
        return False
    return known.status != record.status and DISPUTED in (known.status, record.status)


def _fact(what: str, stored: Metered, token: str, now: float) -> Evidence:
    return Evidence(what, Kind.TRANSFER, stored.transfer, stored.peer, None, now, digest=digest(token), entry=token)
