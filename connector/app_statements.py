"""How the parts that sign and compare statements are put together: for the composition root alone."""

from __future__ import annotations

from contextlib import AsyncExitStack

from connector import telemetry
from connector.control.journal import Journal
from connector.control.operate import Operations
from connector.control_billing.closings import Closings
from connector.control_billing.elsewhere import crediting
from connector.control_billing.statements import Means, Statements
from connector.control_billing.stating import Stating
from connector.dataplane.receipts import REVOKED, Receipts
from connector.dsp.messages import Kind
from connector.errors import MeterRefused
from connector.ledger.book import Book
from connector.ports import Identity, Ids, Peer
from connector.values import Value


class Stated(Value):
    """Both halves: `statements` answers, `stating` asks; and `closings`, which does both."""

    receipts: Receipts
    statements: Statements
    stating: Stating
    closings: Closings

    async def recover(self) -> None:
        """Make good what a crash has left without a statement, on either side."""
        self.receipts.recover()
        await self.stating.recover()
        await self.closings.recover()


def stated(
    journal: Journal,
    identity: Identity,
    ids: Ids,
    book: Book,
    receipts: Receipts,
    peer: Peer,
    stack: AsyncExitStack,
    pause_seconds_max: float,
    operations: Operations,
) -> Stated:
    """Both halves, told of every commit; `stack` ends what they do. They try again after `pause_seconds_max` at the latest. What
    `operations` close is signed."""
    receipts.credited = crediting(journal.store)
    means = Means(journal.store, journal.decide, identity, journal.clock, ids, book.checkpoint)

    async def late(transfer: str, receipt: str) -> str:
        taken = await receipts.take(transfer, receipt, REVOKED)
        if taken.code:
            raise MeterRefused(taken.message, taken.code)
        return taken.ack

    statements = Statements(means, receipts.stated, late)
    stating = Stating(means, statements, peer, pause_seconds_max)
    journal.listen(stating.committed, Kind.TRANSFER)
    stack.push_async_callback(stating.close)
    closings = Closings(means, stating)
    operations.sign_closing, operations.stated = closings.sign, stating.stated
    journal.listen(closings.committed, telemetry.CLOSING)
    stack.push_async_callback(closings.close)
    return Stated(receipts, statements, stating, closings)
