"""What was sent before a first receipt that never came, and is signed for under another transfer: it is billed there, and not twice.

Some data leave before the first receipt of who means to sign. Where that is lost with its connection and the transfer ends, the provider
alone has counted them; and the order goes on by another transfer, which signs for all that has come, by whichever of the two. So the word
of the provider counts for what the consumer has signed for nowhere. Nobody gains by it: what was sent could have been signed away by a
first receipt over nothing, which opens the account of every transfer, and is no more than may leave before that.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from connector.control_billing.receipted import last_before
from connector.dsp.messages import Kind, Role
from connector.metering.content import Layout
from connector.metering.objects import Ack, Receipt, kept
from connector.metering.ranges import Ranges, covers, union, without
from connector.ports import Store
from connector.records.metering import Metered
from connector.telemetry import STATEMENT


async def signed_elsewhere(store: Store, account: Metered, accounts: Sequence[Metered]) -> float | None:
    """The second (POSIX) since which all that `account` holds, of which we alone say that it was sent, is signed for by others of the
    `accounts` of its agreement. None as long as it is not, or as a receipt of its own may still come; of live data, whose log is
    that of one transfer; and of who never meant to sign: what he fetches by a second transfer he has fetched twice."""
    leaves = alone(account)
    if not leaves or not account.asked:
        return None
    signed = [each for each in accounts if each.sequence and each.ack and each.root == account.root and each.status != "disputed"]
    if not covers(union(*(each.ranges for each in signed)), leaves):
        return None
    if (over := await _over(store, account)) is None:
        return None
    signers = list[tuple[float, Metered]]()
    for each in signed:
        if without(leaves, each.ranges) != leaves:
            stays = 0.0 if each.status == "complete" else await _over(store, each)
            signers += [(stays, each)] if stays is not None else []  # before, nobody could know what it comes to
    if not covers(union(*(each.ranges for _, each in signers)), leaves):
        return None
    first, last = ceil(over), ceil(max(over, *(max(stays, kept(Ack, each.ack).issued) for stays, each in signers)))
    while first < last:
        middle = (first + last) // 2
        if covers(await _signed_by(store, signers, middle), leaves):
            last = middle
        else:
            first = middle + 1
    return float(last)


async def _signed_by(store: Store, signers: Sequence[tuple[float, Metered]], second: int) -> Ranges:
    """What accounts had signed for by the end of a second (POSIX), of transfers that were over by then. What is signed for later moves
    nothing: else what was credited in one period could be credited once more in the next."""
    rows = [await last_before(store, each, second + 1) for stays, each in signers if stays <= second]
    return union(*(kept(Receipt, row.receipt).ranges for row in rows if row is not None))


def alone(account: Metered) -> Ranges:
    """The leaves of finite data of which anything was sent and nothing signed for, as we alone say."""
    if account.role is not Role.PROVIDER or account.sequence or account.root is None or account.size_bytes is None:
        return ()
    layout = Layout(account.size_bytes, account.chunk_bytes)
    return union(account.ranges, (layout.touched(first, last - first) for first, last in account.sent))


async def _over(store: Store, account: Metered) -> float | None:
    """When a transfer has ended (POSIX seconds), None if it runs. Of one that is not stored any more our statement of it says when it was,
    if it was stated."""
    process = await store.process(Kind.TRANSFER, account.transfer)
    if process is not None:
        return process.updated if process.final else None
    said = await store.newest_fact(account.transfer, STATEMENT)
    return 0.0 if said is None else said.at
