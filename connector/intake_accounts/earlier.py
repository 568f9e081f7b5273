"""What the transfers before have left to an order that goes on: the leaves that were signed for under them, and need not be again.

What was signed for once is signed for again only if the provider has signed that it does not have that receipt: of one whose ack has not
come nobody here knows, it may have been lost with the connection, or its ack was. The token that it could be posted with again has gone
with its transfer, so the provider is asked, and gets it by who we are if it has not. One that says no more than "no such place", or
nothing at all, may have it all the same, and acknowledge it when the same leaves are signed for a second time: it would be paid twice. So
it has the one receipt, or has lost it.
"""

from __future__ import annotations

from collections.abc import Iterable

from connector import telemetry
from connector.errors import MeterRefused, PeerFailed, PeerRefused
from connector.intake.account import Means
from connector.intake.patience import Patience
from connector.metering.objects import Receipt, kept
from connector.metering.ranges import Ranges, union
from connector.records.metering import Metered


async def held(means: Means, transfers: Iterable[str], root: bytes, patience: Patience) -> Ranges:
    """The leaves of the content log `root` that earlier `transfers` (our pids) have brought and that we have signed for, but for those of
    a receipt that the provider has signed not to have. Raises as `Patience.bear`, while it does not say what it has."""
    found: Ranges = ()
    for transfer in transfers:
        account = await means.store.metered(transfer)
        if account is not None and account.root == root:
            denied = not account.ack and await _denied(means, account, patience)
            found = union(found, await _before(means, account) if denied else account.ranges)
    return found


async def _denied(means: Means, account: Metered, patience: Patience) -> bool:
    """Whether the provider has signed that it does not have the last receipt of a transfer, which has no ack here."""
    while account.receipt and means.heard is not None:
        try:
            return not await means.heard(account.transfer)
        except MeterRefused as refused:  # what it has signed does not hold, so it has signed nothing
            telemetry.log.warning("what the provider has signed does not hold", transfer=account.transfer, code=refused.code)
            break
        except PeerFailed as failed:
            if isinstance(failed, PeerRefused) and not failed.status:  # it has no address to ask at
                break
            try:
                await patience.bear(failed, 0)
            except PeerRefused:  # by now it is the provider's own, and no proxy's
                break
    if account.receipt and means.heard is not None:
        telemetry.log.info("the provider signs nothing of our last receipt: it counts", transfer=account.transfer)
        patience.well()
    return False


async def _before(means: Means, account: Metered) -> Ranges:
    """What the receipt before the last covers: a receipt is signed once the one before has its ack."""
    rows = await means.store.receipts(account.transfer, account.sequence - 1, account.sequence)
    return next((kept(Receipt, row.receipt).ranges for row in rows if row.ack), ())


def durable(account: Metered) -> bool:
    """Whether what an account covers outlives a loss of power."""
    return bool(account.receipt) and kept(Receipt, account.receipt).after == "fsync"
