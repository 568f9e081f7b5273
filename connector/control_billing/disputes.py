"""The way back from a dispute: an operator has looked at what contradicts itself, and takes up the account where it was."""

from __future__ import annotations

from connector import telemetry
from connector.control.journal import Journal
from connector.dsp.messages import Kind
from connector.errors import Contradiction, NotFound
from connector.metering.chain import STATUS
from connector.metering.objects import Receipt, kept
from connector.records import Changes, Evidence, Expect
from connector.records.metering import Metered
from connector.values import replace

DISPUTED = "disputed"


async def settle(journal: Journal, transfer: str, reason: str) -> Metered:
    """End the dispute about the account of a transfer (our pid), on either side: the receipt that was accepted counts, as before, and the
    next may follow. What contradicts itself stays on record, and so does who has settled it, and why. Raises NotFound for a transfer
    without an account, Contradiction for one that is not disputed."""
    settled: Metered | None = None

    async def step() -> Changes:
        nonlocal settled
        stored, now = await journal.store.metered(transfer), journal.clock.now()
        if stored is None:
            raise NotFound(f"there is no account of a transfer `{transfer}`")
        if stored.status != DISPUTED:
            raise Contradiction(f"the account of transfer `{transfer}` is {stored.status}, not disputed")
        status = STATUS[kept(Receipt, stored.receipt).state] if stored.receipt else "open"
        settled = replace(stored, status=status, version=stored.version + 1, updated=now)
        fact = Evidence(telemetry.DISPUTE_SETTLED, Kind.TRANSFER, transfer, stored.peer, None, now, detail={"reason": reason})
        return Changes((Expect(Metered, transfer, stored.version),), (settled,), evidence=(fact,))

    await journal.decide(step, transfer)
    if settled is None:
        raise AssertionError("a step settles or raises")
    return settled
