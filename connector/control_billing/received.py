"""What we as the consumer have received, by our own count: of a provider that takes no receipts nothing else says it, and of one that does
nothing says it yet while a window is on its way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from connector.metering.counts import NOTHING, Counts, call
from connector.metering.objects import manifest_of
from connector.ports import Store
from connector.records import Pull
from connector.records.metering import Metered
from connector.values import Value, replace

PAGE: Final = 200
ORDERS_MAX: Final = 1_000  # the newest, that are looked through


class Came(Value):
    """What has come by one transfer (our pid), and when that was last seen (POSIX seconds)."""

    transfer: str
    counts: Counts
    at: float


class Received:
    """Reads orders. `live` are those that fetch now, by id, as far as they have got."""

    def __init__(self, store: Store, live: Mapping[str, Pull]) -> None:
        self._store, self._live = store, live

    async def under(self, agreement: str) -> dict[str, Came]:
        """What has come by the transfers of an agreement."""
        found: dict[str, Came] = {}
        after: str | None = None
        for _ in range(ORDERS_MAX // PAGE):
            page = await self._store.pulls(open_only=False, after=after, limit=PAGE)
            for stored in page.items:
                pull = self._live.get(stored.id, stored)
                if pull.agreement == agreement and pull.transfer is not None and pull.received_bytes:
                    size = pull.received_bytes
                    found.setdefault(pull.transfer, Came(pull.transfer, Counts(size, calls=call(size)), stored.updated))
            if (after := page.next) is None:
                break
        return found


def unsigned(came: Came, account: Metered) -> Counts:
    """What has come by a transfer that we sign for and have not signed for yet: never more than its credit. An order may have had some of
    its bytes from another transfer."""
    beyond = came.counts.bytes - account.counts.bytes
    size = max(0, min(beyond, manifest_of(account.manifest).credit_bytes)) if account.status == "open" else 0
    return replace(NOTHING, bytes=size, calls=max(0, call(size) - account.counts.calls))
