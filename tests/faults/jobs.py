"""What is done while connectors are killed: each kind of exchange once, as a script."""

import hashlib
import random
from typing import Any

import aiohttp

from connector.client.transport import ManagementError
from tests.dataplane_live import upstream
from tests.faults import ledger
from tests.faults.job import OPEN, Begun, Job
from tests.faults.ledger import CONSUMER, NEGOTIATION, OTHER, PROVIDER, TRANSFER, Cosigned, Order, Promise, Quota
from tests.faults.pair import Pair

MANUAL = "urn:faults:manual"  # a dataset whose requests are left to an operator
FILE_BYTES = 256 * 1024
SLOW_BYTES = 1024 * 1024
LIVE_BYTES = 500_000  # of a source without an end: at that rate it takes more than one checkpoint, which comes once a second
RECORD_BYTES, RECORD_SECONDS = 4000, 0.01
QUOTA_BYTES = FILE_BYTES * 5 // 2
UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT = 401, 403, 404, 409
FETCHES_MAX = 9  # of a file that fits twice into what is allowed
USED_UP = (ledger.NOT_STARTED, "TERMINATED")  # what becomes of a transfer under an agreement that is used up


def policy(dataset: str, purposes: tuple[str, ...] = ("research", "quality")) -> dict[str, Any]:
    """An offer for any of the purposes."""
    constraint = {"leftOperand": "odrl:purpose", "operator": "isAnyOf", "rightOperand": list(purposes)}
    return {"@id": f"{dataset}:offer", "permission": [{"action": "use", "constraint": [constraint]}]}


def limited(dataset: str, starts: int, size_bytes: int) -> dict[str, Any]:
    """An offer for so many starts and so many bytes."""
    limits = {"odrl:count": starts, "urn:qiao:byteCount": size_bytes}
    constraints = [
        {"leftOperand": operand, "operator": "lteq", "rightOperand": {"@value": str(most), "@type": "xsd:integer"}}
        for operand, most in limits.items()
    ]
    return {"@id": f"{dataset}:offer", "permission": [{"action": "use", "constraint": constraints}]}


async def publish(pair: Pair, dataset: str, content: bytes, *, manual: bool = False, terms: dict[str, Any] | None = None) -> None:
    """Publish a file of the provider."""
    name = dataset.rpartition(":")[2]
    (pair.provider.home.directory / "data" / name).write_bytes(content)
    await _published(pair, dataset, {"type": "file", "path": name}, manual=manual, terms=terms)


async def _published(
    pair: Pair, dataset: str, source: dict[str, Any], *, manual: bool = False, terms: dict[str, Any] | None = None
) -> None:
    said = {"title": dataset, "source": source, "policies": [terms or policy(dataset)], "manual": manual}
    await pair.provider.insist(lambda client: client.publish(dataset, said))


async def prepare(pair: Pair) -> None:
    """Publish what the jobs negotiate about."""
    await publish(pair, OPEN, b"x" * FILE_BYTES)
    await publish(pair, MANUAL, b"y", manual=True)
    pair.ledger.datasets += [("", OPEN), ("", MANUAL)]


async def counter(job: Job) -> None:
    """The consumer asks for a purpose too many; the provider answers with what both have in common, which the consumer takes by itself."""
    asked = policy(OPEN, ("research", "teaching"))
    await job.negotiate(ledger.REQUESTED + ledger.OFFERED + ledger.ACCEPTED + ledger.AGREED, policy=asked, purposes=("research",))


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
    await _pulled(job, *await _new(job))


async def pushed(job: Job) -> None:
    """The same, and the provider brings the data."""
    await _pulled(job, *await _new(job), push=True)


async def _new(job: Job) -> tuple[str, bytes]:
    dataset, content = f"urn:faults:{job.id}", hashlib.sha256(job.id.encode()).digest() * (FILE_BYTES // 32)
    await publish(job.pair, dataset, content)
    return dataset, content


async def slow(job: Job) -> None:
    """A pull that takes longer than its access token lives, from an upstream behind the provider."""
    dataset, content = f"urn:faults:{job.id}", random.Random(job.id).randbytes(SLOW_BYTES)
    job.pair.source.contents[job.id] = content
    await _published(job.pair, dataset, {"type": "http", "url": f"{job.pair.source.url}/{job.id}"})
    job.pair.source.slow.add(job.id)
    await _pulled(job, dataset, content)


async def live(job: Job) -> None:
    """So much of lines that a source never ends to send."""
    order = await _ordered(job, await _flowing(job, "lines", since={"parameter": "since", "member": "n"}), most_bytes=LIVE_BYTES)
    _know(order, upstream.line, await _done(job, order), LIVE_BYTES)


async def events(job: Job) -> None:
    """Events without an end, until an operator says that they are enough."""
    consumer, provider = job.pair.consumer, job.pair.provider
    order = await _ordered(job, await _flowing(job, "events"))
    flows = await consumer.until(
        order.id, lambda client: client.pull_order(order.id), lambda seen: seen.is_over or (seen.received_bytes or 0) >= LIVE_BYTES
    )
    lives = consumer.lives, provider.lives
    assert not flows.is_over, f"what has no end has ended: {'; '.join(flows.reasons)}"
    try:
        await consumer.insist(lambda client: client.enough(order.id))
    except ManagementError as error:
        if error.status != CONFLICT:  # it was said, and only the answer was lost
            raise
    # Whoever has the answer has what was shown before, whoever is killed then: it is signed for. Where a kill came between, what had come
    # and was not signed for comes again, unless it is told first that there is enough: that may be nothing.
    least_bytes = LIVE_BYTES if (consumer.lives, provider.lives) == lives else 0
    _know(order, upstream.event, await _done(job, order), least_bytes)


async def _flowing(job: Job, path: str, **members: Any) -> str:
    """Publish a source without an end."""
    dataset, url = f"urn:faults:{job.id}", f"{job.pair.upstream}/{path}?size={RECORD_BYTES}&pause={RECORD_SECONDS}"
    await _published(job.pair, dataset, {"type": "http-stream", "url": url} | members)
    return dataset


def _know(order: Order, make: Any, done: Any, least_bytes: int) -> None:
    """What has to be in the file: the first records, and as many as the connector says that it has."""
    found = upstream.whole(make, RECORD_BYTES, done.size_bytes)
    order.sha256 = hashlib.sha256(b"".join(found)).hexdigest()
    assert done.size_bytes >= least_bytes, f"only {done.size_bytes} bytes have come"


async def _pulled(job: Job, dataset: str, content: bytes, *, push: bool = False) -> None:
    order = await _ordered(job, dataset, push=push)
    order.sha256 = hashlib.sha256(content).hexdigest()
    await _done(job, order)


async def _ordered(job: Job, dataset: str, **bounds: Any) -> Order:
    """Order a dataset. What its file has to be is not known yet."""
    job.pair.ledger.datasets.append((job.id, dataset))
    out, key = job.pair.downloads / job.id, job.key()
    pull = await job.pair.consumer.insist(lambda client: client.pull(PROVIDER, dataset, str(out), key=key, **bounds))
    job.pair.ledger.orders.append(order := Order(job.id, pull.id, str(out), ""))
    return order


async def _done(job: Job, order: Order) -> Any:
    """Wait for the end of an order, and for what follows it on both sides; returns the order as it stands."""
    consumer = job.pair.consumer
    done = await consumer.until(order.id, lambda client: client.pull_order(order.id), lambda order: order.is_over)
    assert done.stage == "done", f"the pull failed: {'; '.join(done.reasons)}"
    for kind, pid, state in ((NEGOTIATION, done.negotiation, "FINALIZED"), (TRANSFER, done.transfer, "COMPLETED")):
        await job.settled(begun := Begun(Promise(job.id, CONSUMER, kind, pid, (), state), {CONSUMER: pid}))
    await job.stated(begun)
    return done


async def quiet(job: Job) -> None:
    """A consumer fetches everything and never completes: the provider does after a quiet time. What was fetched from a process
    that died is not remembered, so it is fetched again, while the token holds."""
    begun = await job.transfer()
    promise, provider, pid = begun.promise, job.pair.provider, begun.pids[PROVIDER]
    edr = await job.pair.consumer.insist(lambda client: client.edr(promise.pid))
    lives = 0

    def over(process: Any) -> bool:
        return process.state != "STARTED" or process.in_flight or provider.lives > lives

    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {edr.authorization}"}) as http:
        while True:
            lives = provider.lives
            process = await provider.insist(lambda client: client.transfer_process(pid))
            if process.state != "STARTED" or process.in_flight:
                break
            try:
                async with http.get(edr.endpoint) as response:
                    await response.read()
            except (aiohttp.ClientError, OSError):
                await provider.pause()
                continue
            if response.status == UNAUTHORIZED:
                if await job.move(begun, CONSUMER, "terminate", "TransferTerminationMessage", "TERMINATED"):
                    promise.overruled = ((PROVIDER, "TransferCompletionMessage"),)
                    return await job.stated(begun)
                break
            await provider.until(pid, lambda client: client.transfer_process(pid), over)
    promise.moves, promise.state = (*promise.moves, (PROVIDER, "TransferCompletionMessage")), "COMPLETED"
    await job.settled(begun)
    return await job.stated(begun)


async def quota(job: Job) -> None:
    """Two transfers use up what an agreement allows, two starts and some bytes; the second one is ended when nothing is left, and a
    third is refused."""
    dataset, content = f"urn:faults:{job.id}", random.Random(job.id).randbytes(FILE_BYTES)
    await publish(job.pair, dataset, content, terms=limited(dataset, 2, QUOTA_BYTES))
    agreement = await job.agree(dataset=dataset)
    allowed = Quota(job.id, agreement, 2, QUOTA_BYTES)
    job.pair.ledger.quotas.append(allowed)
    for fetches in (1, FETCHES_MAX):
        begun = await job.transfer(agreement, *(USED_UP if allowed.ended else ()))
        if not allowed.ended:
            allowed.starts += 1
            await _use(job, begun, allowed, fetches)
    await job.transfer(agreement, *USED_UP)


async def _use(job: Job, begun: Begun, allowed: Quota, fetches: int) -> None:
    """Fetch what a transfer gives so many times, or as long as its token holds, and end it. The provider may do so before: when nothing
    is left, or after a quiet time, as all has gone out once."""
    promise, provider = begun.promise, job.pair.provider
    edr = await job.pair.consumer.insist(lambda client: client.edr(promise.pid))
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {edr.authorization}"}) as http:
        while fetches:
            try:
                async with http.get(edr.endpoint) as response:
                    if response.status in (UNAUTHORIZED, FORBIDDEN):
                        break
                    async for piece in response.content.iter_any():
                        allowed.received += len(piece)
                fetches -= 1
            except (aiohttp.ClientError, OSError):
                await provider.pause()
    pid, terminated = begun.pids[PROVIDER], ("TransferTerminationMessage", "TERMINATED")
    process = await provider.insist(lambda client: client.transfer_process(pid))
    if process.state == "STARTED" and not process.in_flight:
        promise.overruled = ((PROVIDER, "TransferCompletionMessage"),)
        if await job.move(begun, CONSUMER, "terminate", *terminated):
            # Whoever was killed in using it all up may not have said so yet: then it is we who ended it, and nothing is left all the same.
            used = await provider.insist(lambda client: client.usage(allowed.agreement))
            allowed.ended = any(each["limit"] == allowed.bytes_max and each["used"] >= each["limit"] for each in used.counters)
            return await job.stated(begun)
    process = await provider.until(pid, lambda client: client.transfer_process(pid), _final)
    allowed.ended = process.state == "TERMINATED"
    message, promise.state = terminated if allowed.ended else ("TransferCompletionMessage", "COMPLETED")
    promise.moves = (*promise.moves, (PROVIDER, message))
    await job.settled(begun)
    return await job.stated(begun)


def _final(process: Any) -> bool:
    return process.state in ("COMPLETED", "TERMINATED")


async def withdrawn(job: Job) -> None:
    """A dataset is published and withdrawn."""
    dataset = f"urn:faults:{job.id}"
    await publish(job.pair, dataset, b"z")
    try:
        await job.pair.provider.insist(lambda client: client.withdraw(dataset))
    except ManagementError as error:
        if error.status != NOT_FOUND:  # it was withdrawn, and only the answer was lost
            raise


async def witnessed(job: Job) -> None:
    """Something is agreed upon, then each side has the other cosign the ledger that says so."""
    await job.agree()
    for side, other in OTHER.items():
        row = await job.pair[side].insist(lambda client, other=other: client.witness(other))
        job.pair.ledger.cosigned.append(Cosigned(job.id, side, row["origin"], row["size"]))


SCRIPTS = (witnessed, counter, haggle, refused, offered, transfer, ended, pull, pushed, withdrawn, quiet, slow, quota, live, events)
JOBS = {each.__name__: each for each in SCRIPTS}
