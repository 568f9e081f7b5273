"""What a transfer had not signed for when it ended counts against the credit of its agreement; an operator may write it off."""

from __future__ import annotations

from dataclasses import replace

from connector import telemetry
from connector.control.journal import Journal
from connector.dsp.messages import Kind, Role
from connector.errors import Contradiction, NotFound
from connector.records import Changes, Evidence, Expect
from connector.records.metering import Metered


async def write_off(journal: Journal, transfer: str, reason: str, size_bytes: int) -> None:
    """Let nothing of a transfer of ours that has ended (our pid) count as on its way any more: `size_bytes` did. What was signed for stays
    as it is, and who has written off how much, and why, stays on record. Raises NotFound for a transfer of which we keep no account as its
    provider, Contradiction for one that runs."""

    async def step() -> Changes:
        stored, now = await journal.store.metered(transfer), journal.clock.now()
        if stored is None or stored.role is not Role.PROVIDER:
            raise NotFound(f"we keep no account of a transfer `{transfer}` as its provider")
        process = await journal.store.process(Kind.TRANSFER, transfer)
        if process is not None and not process.final:
            raise Contradiction(f"transfer `{transfer}` is in state {process.state}: what is on its way may still be signed for")
        detail = {"reason": reason, "bytes": size_bytes}
        fact = Evidence(telemetry.CREDIT_RELEASED, Kind.TRANSFER, transfer, stored.peer, None, now, detail=detail)
        after = replace(stored, sent=(), version=stored.version + 1)  # when it ended is what `updated` says
        return Changes((Expect(Metered, transfer, stored.version),), (after,), evidence=(fact,))

    await journal.decide(step, transfer)
