"""How a transfer ends of which a provider has no more: the source of its live data has ended, and its consumer has all of it."""

from __future__ import annotations

from connector.control.operate import Operations
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind
from connector.dsp.transfer import State
from connector.errors import Contradiction, PeerFailed
from connector.ports import Store


async def complete(operations: Operations, store: Store, transfer: str, reason: str, code: str) -> Process:
    """Complete it, which every consumer understands as what it is. One that is suspended cannot be completed (DSP 2025-1, transfer
    process): it is terminated with `reason` and `code`. Raises NotFound, Contradiction if it is over, PeerFailed while it waits for the
    peer's answer to something else: then ask again."""
    process = await store.process(Kind.TRANSFER, transfer)
    if process is not None and process.meant == State.SUSPENDED:
        return await operations.terminate(Kind.TRANSFER, transfer, reason, code)
    try:
        return await operations.complete(transfer)
    except Contradiction as error:
        process = await store.process(Kind.TRANSFER, transfer)
        if process is None or process.final:
            raise
        raise PeerFailed(error.message) from None
