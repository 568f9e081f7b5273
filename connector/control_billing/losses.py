"""What transfers had not signed for when they ended counts against the credit of their agreement; an operator may write it off."""

from __future__ import annotations

from collections.abc import Mapping

from connector import telemetry
from connector.control.journal import Journal
from connector.dsp.messages import Kind, Role
from connector.errors import Contradiction, NotFound
from connector.records import Changes, Evidence, Expect
from connector.records.metering import Metered
from connector.values import replace


async def write_off(journal: Journal, agreement: str, lost: Mapping[str, int], reason: str) -> None:
    """Let nothing of these transfers of ours that have ended (our pids) count as on its way any more: so many bytes of each did. It is one
    write, so that no crash leaves half of it. What was signed for stays as it is, and who has written off how much, and why, stays on
    record. Raises NotFound for a transfer of which we keep no account as its provider, Contradiction for one that runs."""

    async def step() -> Changes:
        expects, saves, facts, now = list[Expect](), list[Metered](), list[Evidence](), journal.clock.now()
        for transfer, size_bytes in lost.items():
            stored = await journal.store.metered(transfer)
            if stored is None or stored.role is not Role.PROVIDER:
                raise NotFound(f"we keep no account of a transfer `{transfer}` as its provider")
            process = await journal.store.process(Kind.TRANSFER, transfer)
            if process is not None and not process.final:
                raise Contradiction(f"transfer `{transfer}` is in state {process.state}: what is on its way may still be signed for")
            detail = {"reason": reason, "bytes": size_bytes}
            facts.append(Evidence(telemetry.CREDIT_RELEASED, Kind.TRANSFER, transfer, stored.peer, None, now, detail=detail))
            saves.append(replace(stored, sent=(), version=stored.version + 1))  # when it ended is what `updated` says
            expects.append(Expect(Metered, transfer, stored.version))
        return Changes(tuple(expects), tuple(saves), evidence=tuple(facts))

    await journal.decide(step, agreement)
