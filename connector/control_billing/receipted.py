"""The receipt that counted at an instant: found among those of a transfer, of which a year of live data has millions, in a few looks.

What both sides go by is the instant in the ack, the provider's word that both have. Acks follow each other, so the receipts that were
acknowledged before an instant are found by halving; where the provider's clock was set back meanwhile both sides, who have the same acks,
come to the same one of those that it could be.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import Final

from connector.metering.objects import ack_of, digest
from connector.ports import Store
from connector.records.metering import Metered, Receipted

PAGE: Final = 200  # receipts at once where some are missing: 400 kB of signed objects


async def accepted(store: Store, transfer: str, sequence: int) -> Receipted | None:
    """The receipt with this number that was accepted; None if it is not here. Its `ack` is "" while there is none."""
    return next((row for row in await store.receipts(transfer, sequence, sequence + 1) if row.ack is not None), None)


async def last_before(store: Store, account: Metered, instant: float = inf, below: int | None = None) -> Receipted | None:
    """The last of the receipts of an account, of those with a number `below` this one, whose ack is of before an instant (POSIX seconds).
    None if there is none here: a consumer that has lost its receipts has the last one back."""
    first, end = 0, account.sequence + 1 if below is None else min(below, account.sequence + 1)
    found, middle = None, end - 1  # the last one is the one that is wanted most
    while first < end:
        row = await _newest(account) if middle == account.sequence and account.ack else await accepted(store, account.transfer, middle)
        if row is not None and not _acked(row, instant):
            end = middle
        else:  # what is missing here may lie anywhere
            first, found = middle + 1, row or found
        middle = (first + end) // 2
    while found is None and first > 1:
        begin = max(1, first - PAGE)
        found = next((row for row in (await store.receipts(account.transfer, begin, first))[::-1] if _acked(row, instant)), None)
        first = begin
    return found


async def _newest(account: Metered) -> Receipted:
    """The last receipt, as the account has it: to look it up costs more than all else for a transfer that has few."""
    await asyncio.sleep(0)  # a bill is of thousands, a quarter of a millisecond each: nobody else has to wait for all of them
    return Receipted(account.transfer, account.sequence, digest(account.receipt), account.receipt, account.ack, account.updated)


def _acked(row: Receipted, before: float) -> bool:
    return bool(row.ack) and ack_of(row.ack or "").issued < before
