"""One run of a script against a pair, and the word that it holds both connectors to.

A call with a key is repeated until it is answered. An act on a process has no key: if its answer is lost, the record says
whether it took effect. After each step both sides have to settle in the state that it leads to.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from connector import telemetry
from connector.client.management import ManagementClient
from connector.client.transport import ManagementError
from tests.faults import ledger
from tests.faults.audit import SENT
from tests.faults.ledger import CONSUMER, NEGOTIATION, OTHER, PROVIDER, TRANSFER, Moves, Promise
from tests.faults.pair import Pair
from tests.faults.side import CONFLICT, SERVER_ERROR

OPEN = "urn:faults:open"  # a dataset whose offer is agreed to by policy
FINAL = ("FINALIZED", "TERMINATED", "COMPLETED")

Key = str
Begin = Callable[[ManagementClient, Key], Awaitable[Any]]
Act = Callable[[ManagementClient, str], Awaitable[Any]]


@dataclass
class Begun:
    """A process of a job: what is promised of it, and its pid on either side."""

    promise: Promise
    pids: dict[str, str]


class Job:
    """One run of a script against a pair."""

    def __init__(self, pair: Pair, name: str, number: int) -> None:
        self.pair, self.name, self.id = pair, name, f"{name}-{number}"
        self._keys = 0

    def key(self) -> Key:
        """A new idempotency key."""
        self._keys += 1
        return f"{self.id}-{self._keys}"

    async def begin(self, side: str, kind: str, call: Begin, moves: Moves, state: str) -> Begun:
        """Begin a process by a call of `side`; returns when both sides have settled in `state`."""
        key = self.key()
        answer = await self.pair[side].insist(lambda client: call(client, key))
        begun = Begun(Promise(self.id, side, kind, answer.pid, moves, state), {side: answer.pid})
        self.pair.ledger.promises.append(begun.promise)
        await self.settled(begun)
        return begun

    async def act(self, begun: Begun, side: str, call: Act, moves: Moves, state: str) -> bool:
        """Do something to a process at `side`, once; returns True when both sides have settled in `state`, and False if the
        process has ended before."""
        connector, pid, promise = self.pair[side], begun.pids[side], begun.promise
        before = promise.moves.count(moves[0])
        while True:
            news = connector.listen(pid)
            try:
                await connector.once(lambda client: call(client, pid))
                break
            except ManagementError as error:
                if error.status and error.status < SERVER_ERROR and error.status != CONFLICT:
                    raise
                record = await connector.insist(lambda client: client.evidence(pid))
                if sum((fact.what, fact.move) == (SENT, moves[0][1]) for fact in record) > before:
                    break
                if error.status != CONFLICT:
                    await connector.pause()
                elif (await connector.insist(_look(promise.kind, pid))).state in FINAL:
                    return False
                else:
                    await connector.heard(news)
        promise.moves, promise.state = (*promise.moves, *moves), state
        await self.settled(begun)
        return True

    async def settled(self, begun: Begun) -> None:
        """Wait until both sides are in the promised state with nothing in flight. Raises AssertionError if one never can be."""
        promise = begun.promise

        def holds(process: Any) -> bool:
            wrong = process.state in FINAL and process.state != promise.state
            assert not wrong, f"{process.pid} ended in {process.state}, not {promise.state}: {'; '.join(process.reasons)}"
            return bool(process.state == promise.state and process.in_flight is None and process.peer_pid)

        mine = await self.pair[promise.side].until(promise.pid, _look(promise.kind, promise.pid), holds)
        other = begun.pids[OTHER[promise.side]] = mine.peer_pid
        await self.pair[OTHER[promise.side]].until(other, _look(promise.kind, other), holds)

    async def stated(self, transfer: Begun) -> None:
        """Wait until a transfer that is over has been stated by who has metered it: that comes in its own time, and is of this job."""
        for side, pid in transfer.pids.items():

            def holds(facts: Any) -> bool:
                seen = {fact.what for fact in facts}
                signed = not seen & {telemetry.RECEIPT, telemetry.RECEIPT_SIGNED} or telemetry.STATEMENT_AGREED in seen
                return signed and (telemetry.MANIFEST not in seen or telemetry.STATEMENT in seen)

            await self.pair[side].until(pid, lambda client, pid=pid: client.evidence(pid), holds)

    async def negotiate(self, moves: Moves = ledger.REQUESTED + ledger.AGREED, state: str = "FINALIZED", **said: Any) -> Begun:
        """Negotiate about a dataset as consumer; with nothing said, on the terms of its offer."""
        dataset = said.pop("dataset", OPEN)
        return await self.begin(
            CONSUMER, NEGOTIATION, lambda client, key: client.negotiate(PROVIDER, dataset, key=key, **said), moves, state
        )

    async def agree(self, **said: Any) -> str:
        """Negotiate; returns the id of the agreement."""
        negotiation = await self.negotiate(**said)
        view = await self.pair.consumer.insist(lambda client: client.negotiation(negotiation.promise.pid))
        return str(view.agreement)

    async def transfer(self, agreement: str | None = None, moves: Moves = ledger.STARTED, state: str = "STARTED") -> Begun:
        """Start a transfer, under a new agreement if none is named."""
        known = agreement or await self.agree()
        return await self.begin(CONSUMER, TRANSFER, lambda client, key: client.transfer(known, key=key), moves, state)

    async def move(self, begun: Begun, side: str, act: Any, message: str, state: str, *, echoed: bool = False) -> bool:
        """Move a transfer, as `act`. A consumer's start is `echoed`: the provider answers it with one of its own."""
        moves = ((side, message), *(((OTHER[side], message),) if echoed else ()))
        return await self.act(begun, side, lambda client, pid: client.move_transfer(pid, act), moves, state)


def _look(kind: str, pid: str) -> Callable[[ManagementClient], Awaitable[Any]]:
    return lambda client: client.negotiation(pid) if kind == NEGOTIATION else client.transfer_process(pid)
