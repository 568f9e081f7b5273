"""The connector with signing, metering and ledger of streams switched off, to see what they cost.

What is left is our own stream: the provider sends the same bytes the same way, and the consumer compares each leaf with the content log
and stores it: that the bytes are right is what the stream is for, and the hashing for that, nearly half of what a stream costs, is not the
price of metering. No receipt is signed, posted, judged or acknowledged, and nothing of what was sent is counted. What comes after
`python -m tests.bench.unmetered` is what comes after `connector`.
"""

from typing import Any

from connector.__main__ import main
from connector.dataplane.accounts import Accounts
from connector.dataplane_accounts.account import Account as Served
from connector.intake.account import Account


async def nothing(*_: Any, **__: Any) -> None:
    """Instead of a receipt."""


def ignored(*_: Any) -> None:
    """Instead of counting."""


async def unbound(_account: Any, _offset: int, count: int, _waits: Any) -> int:
    """Instead of credit: no receipt is waited for."""
    return count


def switch_off() -> None:
    """Before the connector starts."""
    consumer: Any = Account
    consumer.open = consumer.run = consumer.complete = consumer.last = nothing
    consumer.told = property(lambda account: account._promise.whole)  # nobody has signed, and nobody is to miss it
    served: Any = Served
    served.sent, served._before_the_first = ignored, unbound
    accounts: Any = Accounts
    accounts.written_soon = ignored


if __name__ == "__main__":
    switch_off()
    main()
