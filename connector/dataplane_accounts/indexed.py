"""The content log of data with an end, where nobody has asked for them since a start and their consumer signs for more: a manifest does not
say how many records end in which leaf, and what nobody compares a consumer could choose.
"""

from __future__ import annotations

from connector.dataplane.index import Described
from connector.dataplane.logs import Logs
from connector.dsp.messages import Kind
from connector.ports import Store
from connector.records.metering import Metered


class Indexed:
    """Finds them among `logs`."""

    def __init__(self, store: Store, logs: Logs) -> None:
        self._store, self._logs = store, logs

    async def of(self, stored: Metered) -> Described | None:
        """The log of the data of an account: as they are published now, or were until lately. None if there is none at hand."""
        if stored.root is None:
            return None
        process = await self._store.process(Kind.TRANSFER, stored.transfer)
        dataset = await self._store.dataset(process.dataset or "") if process is not None else None
        log = await self._logs.at_hand(dataset.source) if dataset is not None else None
        return log if log is not None and log.root == stored.root else await self._logs.replaced(stored.root)


async def nothing_indexed(_stored: Metered) -> Described | None:
    """No log is known."""
    return None
