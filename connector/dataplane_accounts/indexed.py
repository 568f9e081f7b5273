"""The content log of data with an end, where nobody has asked for them since a start and their consumer signs for more: a manifest does not
say how many records end in which leaf, and what nobody compares a consumer could choose.
"""

from __future__ import annotations

from connector.dataplane.index import Described
from connector.dataplane.logs import Logs
from connector.dsp.messages import Kind
from connector.ports import Store


class Indexed:
    """Finds them among `logs`."""

    def __init__(self, store: Store, logs: Logs) -> None:
        self._store, self._logs = store, logs

    async def of(self, transfer: str) -> Described | None:
        """The log of the data behind a transfer as they are published now, which need not be those that it is of; None if there is none at
        hand, as of data that were withdrawn."""
        process = await self._store.process(Kind.TRANSFER, transfer)
        dataset = await self._store.dataset(process.dataset or "") if process is not None else None
        return await self._logs.at_hand(dataset.source) if dataset is not None else None


async def nothing_indexed(_transfer: str) -> Described | None:
    """No log is known."""
    return None
