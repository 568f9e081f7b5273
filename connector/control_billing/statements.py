"""Statements: what each side has counted, signed, before the other; the same, or on record as disputed.

At the end of a transfer the provider signs one by itself (`Receipts.state`); the consumer asks for it, compares it with its own account,
signs its own for the same period, and posts it. A receipt that it had signed before, and that the provider has not heard of, it posts first
(`Statements.late`): the account judges it as any other, and nobody but its consumer could have signed it. For a period of an agreement
either side signs, and the other answers with its own. What both have signed is evidence on both sides, and so is what contradicts it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from connector import telemetry
from connector.control_billing.receipted import accepted, last_before
from connector.dsp.messages import Kind, Role
from connector.errors import Contradiction, InvalidRequest, MeterRefused, NotFound
from connector.metering.chain import AHEAD_SECONDS_MAX
from connector.metering.objects import Ack, Read, Receipt, digest, kept, manifest_of, opened, pending
from connector.metering.statements import FLOWS_MAX, Flow, Statement, compare_time, contradicted, contradiction
from connector.ports import Clock, Identity, Ids, Store
from connector.records import Agreement, Changes, Evidence, Expect
from connector.records.metering import Metered
from connector.values import Value, replace

AGREED, DISPUTED, TIME = "agreed", "disputed", "statement-time"
WHATS: Final = {AGREED: telemetry.STATEMENT_AGREED, DISPUTED: telemetry.STATEMENT_DISPUTED}
LATE_SECONDS: Final = 86_400.0  # after the end of a transfer, in which a receipt for it is taken here: then its loss is written off
OURS_MAX: Final = 1_000  # facts about an agreement that are looked through for a statement that came before

Decide = Callable[[Callable[[], Awaitable[Changes | None]], str], Awaitable[Changes | None]]


class Means(Value):
    """What statements need: `decide` commits (`Journal.decide`), `note` gives our newest signed checkpoint or None."""

    store: Store
    decide: Decide
    identity: Identity
    clock: Clock
    ids: Ids
    note: Callable[[], Awaitable[str | None]]

    def proven(self, peer: str) -> Read:
        """Reads what this participant has signed."""
        now = self.clock.now()
        return lambda token, typ: pending(lambda at: self.identity.read(token, typ, peer, at=at), token, now)


class Outcome(Value):
    """What comparing has come to: `code` says why two statements contradict each other, or (`statement-time`) what is not in them though
    they agree; "" if there is nothing to say. `own` is our own (JWS)."""

    own: str
    code: str = ""

    @property
    def disputed(self) -> bool:
        """Whether the two contradict each other."""
        return self.code not in ("", TIME)

    @property
    def word(self) -> str:
        return DISPUTED if self.disputed else AGREED


class Statements:
    """The provider's half of the end of a transfer, and both halves of a period. `stated(pid)` is `Receipts.stated`; `take(pid, receipt)`
    gives the ack of a receipt, and raises MeterRefused for one that is not taken."""

    def __init__(
        self,
        means: Means,
        stated: Callable[[str], Awaitable[Mapping[str, str | None]]],
        take: Callable[[str, str], Awaitable[str]] | None = None,
    ) -> None:
        self._means, self._stated, self._take = means, stated, take

    async def shown(self, caller: str, transfer: str) -> Mapping[str, str | None]:
        """What the consumer `caller` compares once a transfer (our pid) is over: its last receipt and ack, and our statement. Raises
        NotFound for a transfer that is not the caller's or has no account, Contradiction while it runs."""
        await self._of(caller, transfer)
        process = await self._means.store.process(Kind.TRANSFER, transfer)
        if process is None or not process.final:
            raise Contradiction("the transfer is not over; its statement is signed then")
        return await self._stated(transfer)

    async def late(self, caller: str, transfer: str, receipt: str) -> str:
        """The ack (JWS) of the receipt (JWS) of the consumer `caller` for a transfer that is over, whose token has ended by now: of what
        was signed before a crash, and not heard. Raises NotFound for a transfer that is not the caller's or has no account, Contradiction
        while it runs, and MeterRefused for what the account does not take, or a day after the end, when what was lost is written off."""
        await self._of(caller, transfer)
        process = await self._means.store.process(Kind.TRANSFER, transfer)
        if process is None or not process.final:
            raise Contradiction("the transfer is not over; post the receipt where its manifest says")
        if self._take is None or process.updated + LATE_SECONDS < self._means.clock.now():
            raise MeterRefused("the transfer was over a day ago: what was not signed for is written off", "receipt-late")
        return await self._take(transfer, receipt)

    async def hear(self, caller: str, transfer: str, token: str) -> Outcome:
        """Take the statement (JWS) of the consumer `caller` about a transfer that is over. What is disputed is kept too. Raises NotFound,
        and MeterRefused for what is no statement of it or answers none of ours: that is not kept."""
        stored = await self._of(caller, transfer)
        theirs = opened(Statement, token, self._means.proven(caller))
        facts = await self._means.store.evidence_of(transfer)
        if (before := _heard(facts, token)) is not None:
            return before
        ours = [fact.entry for fact in facts if fact.what == telemetry.STATEMENT and fact.entry]
        period = theirs.begins, theirs.ends
        own = next((each for each in reversed(ours) if (kept(Statement, each).begins, kept(Statement, each).ends) == period), None)
        if own is None:
            raise MeterRefused("the statement is for a period of which we have signed none; ask for ours first", "statement-agreement")
        outcome = Outcome(own, contradiction(theirs, kept(Statement, own)) or await timed(self._means, (stored,), theirs))
        apart = (stored.transfer,) if outcome.disputed else ()
        await concluded(self._means, Kind.TRANSFER, transfer, caller, token, outcome, apart)
        return outcome

    async def _of(self, caller: str, transfer: str) -> Metered:
        stored = await self._means.store.metered(transfer)
        if stored is None or stored.role is not Role.PROVIDER or stored.peer != caller:
            raise NotFound(f"there is no account of a transfer `{transfer}` with you")
        return stored

    async def answer(self, caller: str, token: str) -> str:
        """Our statement (JWS) for the period of an agreement of which `caller` posts its own; both are on record then, and what came of
        comparing them. Raises NotFound for an agreement that is not one with it, MeterRefused for what is no statement of it."""
        theirs = opened(Statement, token, self._means.proven(caller))
        agreement = await self._agreement(theirs.agreement)
        if agreement.peer != caller:
            raise NotFound(f"there is no agreement `{theirs.agreement}` with you")
        if (before := _heard((await self._means.store.evidence_of(agreement.id))[-OURS_MAX:], token)) is not None:
            return before.own
        if theirs.ends > self._means.clock.now() + AHEAD_SECONDS_MAX:
            raise MeterRefused("the statement is for a period that is not over", "statement-agreement")
        own = await self.sign(agreement, theirs.begins, theirs.ends, theirs.ledger)
        await self.conclude(agreement, token, theirs, own)
        return own

    async def sign(self, agreement: Agreement, begins: int, ends: int, peer_note: str | None = None) -> str:
        """Our statement (JWS) for the period [`begins`, `ends`) of an agreement, on record: of every transfer for which the consumer has
        signed in it, what that has come to by its end. Raises InvalidRequest if it does not fit one."""
        means = self._means
        flows = [flow for account in await means.store.metered_of(agreement.id) if (flow := await self._flow(account, begins, ends))]
        if len(flows) > FLOWS_MAX:
            raise InvalidRequest(
                f"{len(flows)} transfers were signed for in this period, a statement has {FLOWS_MAX}: ask for shorter ones"
            )
        note, now = await means.note(), means.clock.now()
        parties = means.identity.own.id, agreement.peer, means.ids.new(), int(now), agreement.id
        token = means.identity.sign(Statement(*parties, begins, ends, tuple(flows), note, peer_note).claims(), Statement.TYP)
        fact = Evidence(telemetry.STATEMENT, None, agreement.id, agreement.peer, None, now, digest=digest(token), entry=token)

        async def step() -> Changes:
            return Changes(evidence=(fact,))

        await means.decide(step, agreement.id)
        return token

    async def _flow(self, account: Metered, begins: int, ends: int) -> Flow | None:
        """What a transfer had come to by the end of a period, by the instants of the acks, which both sides have; None if nobody has signed
        for any of it within."""
        row = await last_before(self._means.store, account, ends)
        if row is None or kept(Ack, row.ack or "").issued < begins:
            return None
        receipt = kept(Receipt, row.receipt)
        return Flow(manifest_of(account.manifest).provider_pid, receipt.manifest, receipt.sequence, row.digest, "both", receipt.counts)

    async def conclude(self, agreement: Agreement, token: str, theirs: Statement, own: str) -> Outcome:
        """Put on record what the other side has signed for a period, and what came of comparing it with `own`."""
        ours = kept(Statement, own)
        accounts = await self._means.store.metered_of(agreement.id)
        outcome = Outcome(own, contradiction(theirs, ours) or await timed(self._means, accounts, theirs))
        apart = frozenset(contradicted(theirs, ours))
        pids = tuple(each.transfer for each in accounts if manifest_of(each.manifest).provider_pid in apart)
        await concluded(self._means, None, agreement.id, agreement.peer, token, outcome, pids)
        return outcome

    async def _agreement(self, id: str) -> Agreement:
        found = await self._means.store.agreement(id)
        if found is None:
            raise NotFound(f"there is no agreement `{id}`")
        return found


async def concluded(means: Means, kind: Kind | None, pid: str, peer: str, token: str, outcome: Outcome, apart: Sequence[str] = ()) -> None:
    """Put on record what `peer` has signed (JWS) and what came of comparing it, about a transfer or (`kind` None) an agreement. The
    accounts of the transfers `apart` are disputed from now on."""
    now = means.clock.now()
    detail = {"outcome": outcome.word, "own": digest(outcome.own).hex()} | ({"code": outcome.code} if outcome.code else {})
    fact = Evidence(WHATS[outcome.word], kind, pid, peer, None, now, digest=digest(token), detail=detail, entry=token)

    async def step() -> Changes:
        found = [account for each in apart if (account := await means.store.metered(each)) is not None and account.status != DISPUTED]
        expects = tuple(Expect(Metered, each.transfer, each.version) for each in found)
        saves = tuple(replace(each, status=DISPUTED, version=each.version + 1, updated=now) for each in found)
        return Changes(expects, saves, evidence=(fact,))

    await means.decide(step, pid)
    if outcome.disputed:
        telemetry.log.warning("statements contradict each other", pid=pid, peer=peer, code=outcome.code)


async def timed(means: Means, accounts: Sequence[Metered], said: Statement) -> str:
    """TIME if the provider's acks of receipts in a statement count time that nobody has signed for, which is billed as its word alone;
    else "". `accounts` are those of its flows."""
    own = {manifest_of(each.manifest).provider_pid: each.transfer for each in accounts}
    for flow in said.flows:
        row = await accepted(means.store, own[flow.transfer], flow.sequence) if flow.transfer in own and flow.sequence else None
        if row is None or not row.ack or row.digest != flow.receipt:
            continue
        try:
            compare_time(kept(Receipt, row.receipt), kept(Ack, row.ack))
        except MeterRefused as refused:
            return refused.code
    return ""


def _heard(facts: Sequence[Evidence], token: str) -> Outcome | None:
    """What came of a statement that has come before."""
    name = digest(token)
    for fact in facts:
        if fact.what in WHATS.values() and fact.digest == name:
            own = next((each.entry for each in facts if each.digest and each.digest.hex() == fact.detail.get("own")), None)
            return None if own is None else Outcome(own, fact.detail.get("code", ""))
    return None
