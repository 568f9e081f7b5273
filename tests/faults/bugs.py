"""Defects to plant, which show that these tests have teeth: each must turn the run red.

They are patched into the process that runs the connector; the product has no switch for them.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from connector.api.management_api import ManagementApi
from connector.control.journal import Journal
from connector.control.outbox import Outbox
from connector.control.pulls import Pulls
from connector.control.receive import Answer, Receiver
from connector.dataplane.quotas import Ledger
from connector.records import Changes, Inbox

FIRST_RECEIVED = ("COMMIT [message-received ContractRequest", "COMMIT [message-received TransferRequest")
FIRST_SENT = ("COMMIT [message-sent ContractRequest", "COMMIT [message-sent TransferRequest")
LATE_SECONDS = 0.01  # how long the early answer is ahead of its commit


@dataclass(frozen=True)
class Bug:
    """What is wrong, how to make it so, and words in the names of the points at which a kill shows it."""

    what: str
    plant: Callable[[], None]
    where: tuple[str, ...]


def settle_early() -> None:
    attempt = Outbox._attempt

    async def forgetful(self: Outbox, row: Any, process: Any) -> Any:
        await self._journal.store.commit(Changes(settled=(row.id,)))
        return await attempt(self, row, process)

    Outbox._attempt = forgetful  # type: ignore[method-assign]


def answer_early() -> None:
    commit, message = Journal.commit, Receiver.message
    answers: dict[Any, asyncio.Future[Answer]] = {}

    async def late(self: Journal, changes: Changes) -> Any:
        early = answers.get(asyncio.current_task())
        for record in changes.saves:
            if early is not None and not early.done() and isinstance(record, Inbox):
                early.set_result(Answer(record.status, record.answer))
                await asyncio.sleep(LATE_SECONDS)
        return await commit(self, changes)

    async def hasty(self: Receiver, *arguments: Any) -> Answer:
        early: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        work = asyncio.create_task(message(self, *arguments))
        answers[work] = early
        work.add_done_callback(answers.pop)
        await asyncio.wait({early, work}, return_when=asyncio.FIRST_COMPLETED)
        return early.result() if early.done() else work.result()

    Journal.commit = late  # type: ignore[method-assign]
    Receiver.message = hasty  # type: ignore[method-assign]


def no_replays() -> None:
    async def unknown(*_: Any, **__: Any) -> None:
        return None

    async def news(self: Receiver, caller: Any, message: Any, pid: str | None, again: bool) -> Any:
        return None if pid is None else await find(self, caller, message, pid, again)

    find = Receiver._find_or_none
    Receiver._repeat = unknown  # type: ignore[method-assign]
    Receiver._find_or_none = news  # type: ignore[method-assign]


def no_keys() -> None:
    async def unknown(*_: Any) -> None:
        return None

    ManagementApi._once = unknown  # type: ignore[method-assign]


def no_recovery() -> None:
    async def nothing(_self: Outbox) -> int:
        return 0

    Outbox.recover = nothing  # type: ignore[method-assign]


def pulls_forgotten() -> None:
    async def nothing(_self: Pulls) -> None:
        return None

    Pulls.recover = nothing  # type: ignore[method-assign]


def quotas_voided() -> None:
    settle, recover = Ledger.settle, Ledger.recover

    async def nothing_was_used(self: Ledger, agreement: str, id: str, _spent: Any) -> None:
        await settle(self, agreement, id, {})

    async def careless(self: Ledger) -> int:
        self.settle = nothing_was_used.__get__(self)  # type: ignore[method-assign]
        try:
            return await recover(self)
        finally:
            del self.settle

    Ledger.recover = careless  # type: ignore[method-assign]


def quotas_unsettled() -> None:
    async def nothing(_self: Ledger) -> int:
        return 0

    Ledger.recover = nothing  # type: ignore[method-assign]


METERED = ("Meter.allow", "stream.py:stream")
BUGS = {
    "settle-early": Bug("an outbox row is settled before the peer has answered", settle_early, ("Outbox._attempt",)),
    "answer-early": Bug("a message is acknowledged before its COMMIT", answer_early, ("before COMMIT [message-received",)),
    "no-replays": Bug(
        "a repeated first message is taken for a new one",
        no_replays,
        FIRST_RECEIVED,
    ),
    "no-keys": Bug(
        "idempotency keys of management calls are ignored",
        no_keys,
        FIRST_SENT,
    ),
    "no-recovery": Bug("the outbox is not read at start", no_recovery, ("COMMIT [message-sent", "Outbox._attempt")),
    "pulls-forgotten": Bug("open pulls are not taken up at start", pulls_forgotten, ("COMMIT [pull",)),
    "quotas-voided": Bug("what was reserved when a connector died counts as not used", quotas_voided, METERED),
    "quotas-unsettled": Bug("what was reserved when a connector died stays reserved", quotas_unsettled, METERED),
}
