"""What the transfers before have left to an order that goes on: the leaves that were signed for under them, and need not be again.

A receipt counts once both sides have it. Of one whose ack has not come nobody here knows whether the provider has it: it may have been
lost with the connection, or its ack was. The token that it could be posted with again has gone with its transfer, so the provider is asked
what it has. What it does not have is signed for under the transfer that runs: else nobody would sign for it, and else it would be billed
twice.
"""

from __future__ import annotations

from collections.abc import Iterable

from connector import telemetry
from connector.errors import PeerFailed, PeerRefused
from connector.intake.account import Means
from connector.intake.patience import Patience
from connector.metering.objects import Receipt, kept
from connector.metering.ranges import Ranges, union
from connector.records.metering import Metered


async def held(means: Means, transfers: Iterable[str], root: bytes, patience: Patience) -> Ranges:
    """The leaves of the content log `root` that earlier `transfers` (our pids) have brought and that both sides have a receipt for. Raises
    as `Patience.bear`, while the provider does not say what it has."""
    found: Ranges = ()
    for transfer in transfers:
        account = await means.store.metered(transfer)
        if account is not None and account.root == root:
            found = union(found, account.ranges if account.ack or await _heard(means, account, patience) else await _before(means, account))
    return found


async def _heard(means: Means, account: Metered, patience: Patience) -> bool:
    """Whether the provider has the last receipt of a transfer, which has no ack here. What it does not say it does not have, once that is
    its own word: what it has would be signed for twice."""
    while account.receipt and means.heard is not None:
        try:
            return await means.heard(account.transfer)
        except PeerFailed as failed:
            if isinstance(failed, PeerRefused) and not failed.status:  # it has no address to ask at
                break
            try:
                await patience.bear(failed, 0)
            except PeerRefused:  # by now it is the provider's own, and no proxy's
                break
    if account.receipt and means.heard is not None:
        telemetry.log.info("the provider says nothing of its receipts", transfer=account.transfer)
        patience.well()
    return False


async def _before(means: Means, account: Metered) -> Ranges:
    """What the receipt before the last covers: a receipt is signed once the one before has its ack."""
    rows = await means.store.receipts(account.transfer, account.sequence - 1, account.sequence)
    return next((kept(Receipt, row.receipt).ranges for row in rows if row.ack), ())
