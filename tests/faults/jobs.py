"""What is done while connectors are killed: each kind of exchange once, as scripts that hold the connectors to their word.

A call with a key is repeated until it is answered. An act on a process has no key: if its answer is lost, the record says
whether it took effect. After each step both sides have to settle in the state that it leads to.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from connector.client.management import ManagementClient
from connector.client.transport import ManagementError
from tests.faults import ledger
from tests.faults.audit import SENT
from tests.faults.ledger import CONSUMER, NEGOTIATION, OTHER, PROVIDER, TRANSFER, Moves, Order, Promise
from tests.faults.pair import Pair
from tests.faults.side import CONFLICT, SERVER_ERROR

OPEN, MANUAL = "urn:faults:open", "urn:faults:manual"  # datasets: agreed to by policy, or by an operator
FINAL = ("FINALIZED", "TERMINATED", "COMPLETED")
FILE_BYTES = 256 * 1024
NOT_FOUND = 404

Key = str
Begin = Callable[[ManagementClient, Key], Awaitable[Any]]
Act = Callable[[ManagementClient, str], Awaitable[Any]]


def policy(dataset: str, purposes: tuple[str, ...] = ("research", "quality")) -> dict[str, Any]:
    """An offer for any of the purposes."""
    constraint = {"leftOperand": "odrl:purpose", "operator": "isAnyOf", "rightOperand": list(purposes)}
    return {"@id": f"{dataset}:offer", "permission": [{"action": "use", "constraint": [constraint]}]}


async def publish(pair: Pair, dataset: str, content: bytes, *, manual: bool = False) -> None:
    """Publish a file of the provider."""
    name = dataset.rpartition(":")[2]
    (pair.provider.home.directory / "data" / name).write_bytes(content)
    said = {"title": name, "source": {"type": "file", "path": name}, "policies": [policy(dataset)], "manual": manual}
    await pair.provider.insist(lambda client: client.publish(dataset, said))


async def prepare(pair: Pair) -> None:
    """Publish what the jobs negotiate about."""
    await publish(pair, OPEN, b"x" * FILE_BYTES)
    await publish(pair, MANUAL, b"y", manual=True)
    pair.ledger.datasets += [("", OPEN), ("", MANUAL)]


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

    async def act(self, begun: Begun, side: str, call: Act, moves: Moves, state: str) -> None:
        """Do something to a process at `side`, once; returns when both sides have settled in `state`."""
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
                await (connector.heard(news) if error.status == CONFLICT else connector.pause())
        promise.moves, promise.state = (*promise.moves, *moves), state
        await self.settled(begun)

    async def settled(self, begun: Begun) -> None:
        """Wait until both sides are in the promised state with nothing in flight. Raises AssertionError if one never can be."""
        promise = begun.promise

        def look(pid: str) -> Callable[[ManagementClient], Awaitable[Any]]:
            return lambda client: client.negotiation(pid) if promise.kind == NEGOTIATION else client.transfer_process(pid)

        def holds(process: Any) -> bool:
            wrong = process.state in FINAL and process.state != promise.state
            assert not wrong, f"{process.pid} ended in {process.state}, not {promise.state}: {'; '.join(process.reasons)}"
            return bool(process.state == promise.state and process.in_flight is None and process.peer_pid)

        mine = await self.pair[promise.side].until(promise.pid, look(promise.pid), holds)
        other = begun.pids[OTHER[promise.side]] = mine.peer_pid
        await self.pair[OTHER[promise.side]].until(other, look(other), holds)

    async def negotiate(self, moves: Moves = ledger.REQUESTED + ledger.AGREED, state: str = "FINALIZED", **said: Any) -> Begun:
        """Negotiate about a dataset as consumer; with nothing said, on the terms of its offer."""
        dataset = said.pop("dataset", OPEN)
        return await self.begin(
            CONSUMER, NEGOTIATION, lambda client, key: client.negotiate(PROVIDER, dataset, key=key, **said), moves, state
        )

    async def transfer(self) -> Begun:
        """Start a transfer under a new agreement."""
        negotiation = await self.negotiate()
        view = await self.pair.consumer.insist(lambda client: client.negotiation(negotiation.promise.pid))
        return await self.begin(CONSUMER, TRANSFER, lambda client, key: client.transfer(view.agreement, key=key), ledger.STARTED, "STARTED")

    async def move(self, begun: Begun, side: str, act: Any, message: str, state: str, *, echoed: bool = False) -> None:
        """Move a transfer. A consumer's start is `echoed`: the provider answers it with one of its own."""
        moves = ((side, message), *(((OTHER[side], message),) if echoed else ()))
        await self.act(begun, side, lambda client, pid: client.move_transfer(pid, act), moves, state)


async def counter(job: Job) -> None:
    """The provider answers with its own terms, which the consumer takes by itself."""
    await job.negotiate(ledger.REQUESTED + ledger.OFFERED + ledger.ACCEPTED + ledger.AGREED, purposes=("research",))


async def haggle(job: Job) -> None:
    """Counter-offers in both directions, each by an operator, until the provider's operator approves."""
    begun = await job.negotiate(ledger.REQUESTED, "REQUESTED", dataset=MANUAL, policy=policy(MANUAL, ("quality",)), accept="operator")
    await job.act(begun, PROVIDER, lambda client, pid: client.counter(pid, policy(MANUAL)), ledger.OFFERED, "OFFERED")
    await job.act(begun, CONSUMER, lambda client, pid: client.counter(pid, policy(MANUAL, ("research",))), ledger.REQUESTED, "REQUESTED")
    await job.act(begun, PROVIDER, lambda client, pid: client.approve(pid), ledger.AGREED, "FINALIZED")


async def refused(job: Job) -> None:
    """The provider's policy refuses a purpose."""
    await job.negotiate(ledger.REQUESTED + ledger.REFUSED, "TERMINATED", policy=policy(OPEN, ("marketing",)))


async def offered(job: Job) -> None:
    """The provider begins, the consumer's operator accepts; another offer is given up."""
    for end in ("approve", "give up"):
        begun = await job.begin(
            PROVIDER, NEGOTIATION, lambda client, key: client.offer(CONSUMER, OPEN, f"{OPEN}:offer", key=key), ledger.OFFERED, "OFFERED"
        )
        if end == "approve":
            await job.act(begun, CONSUMER, lambda client, pid: client.approve(pid), ledger.ACCEPTED + ledger.AGREED, "FINALIZED")
        else:
            await job.act(begun, CONSUMER, lambda client, pid: client.terminate_negotiation(pid), ledger.GIVEN_UP, "TERMINATED")


async def transfer(job: Job) -> None:
    """Both sides suspend and resume a transfer, the consumer completes it."""
    begun = await job.transfer()
    for side in (CONSUMER, PROVIDER):
        await job.move(begun, side, "suspend", "TransferSuspensionMessage", "SUSPENDED")
        await job.move(begun, side, "resume", "TransferStartMessage", "STARTED", echoed=side == CONSUMER)
    await job.move(begun, CONSUMER, "complete", "TransferCompletionMessage", "COMPLETED")


async def ended(job: Job) -> None:
    """Transfers that the provider completes and that either side terminates."""
    await job.move(await job.transfer(), PROVIDER, "complete", "TransferCompletionMessage", "COMPLETED")
    for side in (CONSUMER, PROVIDER):
        await job.move(await job.transfer(), side, "terminate", "TransferTerminationMessage", "TERMINATED")


async def pull(job: Job) -> None:
    """One call from a new dataset to a file with the same bytes."""
    dataset, content = f"urn:faults:{job.id}", hashlib.sha256(job.id.encode()).digest() * (FILE_BYTES // 32)
    await publish(job.pair, dataset, content)
    job.pair.ledger.datasets.append((job.id, dataset))
    out, key, consumer = job.pair.downloads / job.id, job.key(), job.pair.consumer
    order = await consumer.insist(lambda client: client.pull(PROVIDER, dataset, str(out), key=key))
    job.pair.ledger.orders.append(Order(job.id, order.id, str(out), hashlib.sha256(content).hexdigest()))
    done = await consumer.until(order.id, lambda client: client.pull_order(order.id), lambda order: order.is_over)
    assert done.stage == "done", f"the pull failed: {'; '.join(done.reasons)}"
    for kind, pid, state in ((NEGOTIATION, done.negotiation, "FINALIZED"), (TRANSFER, done.transfer, "COMPLETED")):
        await job.settled(Begun(Promise(job.id, CONSUMER, kind, pid, (), state), {}))


async def quiet(job: Job) -> None:
    """A consumer fetches everything and never completes: the provider does after a quiet time. What was fetched from a process
    that died is not remembered, so it is fetched again."""
    begun = await job.transfer()
    promise, provider, pid = begun.promise, job.pair.provider, begun.pids[PROVIDER]
    edr = await job.pair.consumer.insist(lambda client: client.edr(promise.pid))
    fetched_from = 0

    def over(process: Any) -> bool:
        return process.state == "COMPLETED" or provider.lives > fetched_from

    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {edr.authorization}"}) as http:
        while promise.state == "STARTED":
            await provider.ready.wait()
            fetched_from = provider.lives
            try:
                async with http.get(edr.endpoint) as response:
                    response.raise_for_status()
                    await response.read()
            except (aiohttp.ClientError, OSError):
                await provider.pause()
                continue
            process = await provider.until(pid, lambda client: client.transfer_process(pid), over)
            if process.state == "COMPLETED" or process.in_flight:
                promise.moves, promise.state = (*promise.moves, (PROVIDER, "TransferCompletionMessage")), "COMPLETED"
    await job.settled(begun)


async def withdrawn(job: Job) -> None:
    """A dataset is published and withdrawn."""
    dataset = f"urn:faults:{job.id}"
    await publish(job.pair, dataset, b"z")
    try:
        await job.pair.provider.insist(lambda client: client.withdraw(dataset))
    except ManagementError as error:
        if error.status != NOT_FOUND:  # it was withdrawn, and only the answer was lost
            raise


JOBS = {each.__name__: each for each in (counter, haggle, refused, offered, transfer, ended, pull, withdrawn, quiet)}
