"""What is said of an agreement beside the ledger, as it stood at one place of that: what follows from the facts up to there, and no other.

It is read while its counterparty may change it. What has changed meanwhile is told by the facts that have come, and is read anew, a row for
each process, until none has come while that was done.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Any, Final

from connector.dsp.exchange import Process
from connector.dsp.messages import Kind
from connector.errors import Busy
from connector.evidence.secrecy import tells_secret
from connector.metering.content import digest_of, write_bytes
from connector.metering.objects import digest, manifest_of
from connector.ports import Store
from connector.records import Agreement, Evidence
from connector.records.metering import Metered
from connector.values import Value, replace

PROCESSES: Final = 500  # at once
FACTS: Final = 1_000  # at once
UNSETTLED_SECONDS: Final = 20.0  # for which facts may come while a few rows are read, each time: they would have to come without a pause

Invoiced = Callable[[str], Awaitable[Mapping[str, Any] | None]]


class Told(Value):
    """What is said of an agreement beside the ledger, as it stood when the export began."""

    agreement: Agreement
    negotiation: Process | None
    transfers: Mapping[str, Process]
    accounts: Mapping[str, Metered]
    invoice: Mapping[str, Any] | None

    @property
    def pids(self) -> list[str]:
        """All transfers, those too of which only the account is left."""
        return sorted(self.transfers.keys() | self.accounts.keys())

    @property
    def subjects(self) -> tuple[str, ...]:
        """What entries of the agreement are about: its negotiation, itself (statements of periods, closings), its transfers."""
        return (self.agreement.negotiation, self.agreement.id, *self.pids)


class Telling:
    """Reads what is said of agreements. `invoiced` gives the invoice of one as JSON, None where it has no prices."""

    def __init__(self, store: Store, invoiced: Invoiced) -> None:
        self._store, self._invoiced = store, invoiced

    async def settled(self, agreement: Agreement) -> tuple[Told, int]:
        """What is said of an agreement, and the last fact (its sequence, 0 for none) that it follows from. Raises Busy, StoreError."""
        logs, until = await self._store.logs(), monotonic() + UNSETTLED_SECONDS
        last = logs[-1].sequence if logs else 0
        async for page in self._since(last):
            last = page[-1].sequence
        told = await self._told(agreement)
        while True:
            changed: set[str] = set()
            async for page in self._since(last):
                changed |= await self._of(told, page)
                last = page[-1].sequence
            now = await self._store.agreement(agreement.id) or agreement
            if not changed and now == told.agreement:
                return told, last
            if monotonic() >= until:
                raise Busy(f"agreement `{agreement.id}` changes without a pause; export it once less goes on under it, or suspend that")
            told = await self._again(told, changed) if now == told.agreement else await self._told(now)

    async def _since(self, last: int) -> AsyncIterator[Sequence[Evidence]]:
        """The facts that came after one. Nothing of a page is kept: a ledger that is far behind has any number before it."""
        while page := await self._store.events(last, FACTS):
            yield page
            if len(page) < FACTS:
                return
            last = page[-1].sequence

    async def _of(self, told: Told, facts: Sequence[Evidence]) -> set[str]:
        """The pids, among those that facts are about, of what is said of this agreement: a new transfer is stored with its first fact."""
        subjects = frozenset(told.subjects)
        theirs = {fact.pid for fact in facts if fact.pid is not None and fact.kind is Kind.TRANSFER and fact.peer == told.agreement.peer}
        found = [await self._store.process(Kind.TRANSFER, pid) for pid in theirs - subjects]
        new = {process.pid for process in found if process is not None and process.agreement == told.agreement.id}
        return new | {fact.pid for fact in facts if fact.pid is not None and fact.pid in subjects}

    async def _again(self, told: Told, changed: set[str]) -> Told:
        """The same with the processes as they are now that have changed since. An account may be behind, as it was when it was read."""
        transfers = dict(told.transfers)
        for pid in changed - {told.agreement.negotiation}:
            process = await self._store.process(Kind.TRANSFER, pid)
            if process is not None and process.agreement == told.agreement.id:
                transfers[process.pid] = process
        negotiation = told.negotiation
        if told.agreement.negotiation in changed:
            negotiation = await self._store.process(Kind.NEGOTIATION, told.agreement.negotiation)
        return replace(told, transfers=transfers, negotiation=negotiation)

    async def _told(self, agreement: Agreement) -> Told:
        accounts = {account.transfer: account for account in await self._store.metered_of(agreement.id)}
        negotiation = await self._store.process(Kind.NEGOTIATION, agreement.negotiation)
        return Told(agreement, negotiation, await self._transfers(agreement), accounts, await self._invoiced(agreement.id))

    async def _transfers(self, agreement: Agreement) -> dict[str, Process]:
        found: dict[str, Process] = {}
        after = None
        while True:
            page = await self._store.processes(Kind.TRANSFER, after=after, limit=PROCESSES, state=None, peer=agreement.peer)
            found |= {process.pid: process for process in page.items if process.agreement == agreement.id}
            if (after := page.next) is None:
                return found


def agreement_member(agreement: Agreement) -> dict[str, Any]:
    return {
        "id": agreement.id,
        "document": dict(agreement.document),
        "policy": write_bytes(digest_of(agreement.document)),
        "provider": agreement.provider,
        "consumer": agreement.consumer,
        "dataset": agreement.dataset,
        "negotiation": agreement.negotiation,
        "created": agreement.created,
        "final": agreement.final,
        "ends": agreement.ends,
        "closed": agreement.closed,
        "closedBy": agreement.closed_by,
        "reason": None if agreement.closed_by == "us" and tells_secret(agreement.reason) else agreement.reason or None,
        "performed": [dict(act) for act in agreement.performed if not tells_secret(act)],
    }


def negotiation_member(process: Process) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "consumerPid": process.consumer_pid,
        "providerPid": process.provider_pid,
        "state": str(process.state),
        "agreement": process.agreement,
        "terms": process.detail.get("terms"),
        "created": process.created,
        "updated": process.updated,
    }


def transfer_member(pid: str, agreement: str, process: Process | None, account: Metered | None) -> dict[str, Any]:
    """A transfer; of one that is not stored any more what its account says."""
    consumer, provider = (process.consumer_pid, process.provider_pid) if process else (None, None)
    if process is None and account is not None:
        manifest = manifest_of(account.manifest)
        consumer, provider = manifest.consumer_pid, manifest.provider_pid
    return {
        "pid": pid,
        "consumerPid": consumer,
        "providerPid": provider,
        "agreement": agreement,
        "state": str(process.state) if process else None,
        "code": str(process.detail["code"]) if process and process.detail.get("code") else None,
        "created": process.created if process else None,
        "updated": process.updated if process else account.updated if account else 0.0,
        "account": None if account is None else _account(account),
    }


def _account(account: Metered) -> dict[str, Any]:
    return {
        "sequence": account.sequence,
        "receipt": write_bytes(digest(account.receipt)) if account.receipt else None,
        "ack": write_bytes(digest(account.ack)) if account.ack else None,
        "status": account.status,
        "attested": account.attested,
        "counts": account.counts.claims(),
    }
