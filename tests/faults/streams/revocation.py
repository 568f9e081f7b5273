"""Transfers that are revoked while they flow: how long bytes still leave, and how many.

What is measured is what comes out of the provider's data listener, as the wire sees it, from the instant at which the operator's call
was sent off and from the one at which it was answered. The reader is slower than the provider could send, so there is always more.
Time in which the provider, or the wire, waited for a processor that others had, or anybody for a disk, is told, and not its own.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from connector.client.management import ManagementClient
from connector.client.views import Transfer
from connector.dsp.messages import Kind
from tests.faults.patience import STRETCH, Queue, disk_seconds, patience, stretched
from tests.faults.streams.books import differences, opened
from tests.faults.streams.lane import SINCE, Lane
from tests.faults.streams.plan import MIB, Road
from tests.faults.streams.wire import DOWN

FILE_BYTES: Final = 1 << 29  # sparse: it takes no disk, and nobody gets so far; each publication hashes it whole
RATE: Final = 100e6  # bytes a second, of each connection
MARKS: Final = (9 * MIB, 40 * MIB)  # after which it is revoked: over one connection, and over several or without an end
QUIET_SECONDS: Final = 0.5  # without a byte, after which none is expected any more
SECONDS_MAX, WINDOW_BYTES = 1.0, 16 * MIB  # of the promise, and as it is set if nobody says otherwise
END_SECONDS: Final = 30.0
ROADS: Final = (
    Road("plain", False, "fsync", WINDOW_BYTES),
    Road("TLS", True, "fsync", WINDOW_BYTES),
    Road("pushed", False, "fsync", WINDOW_BYTES, pushed=True),
    Road("4 MiB windows", False, "write", 4 * MIB),  # of smaller ones more than one lies in the sockets of four connections
    Road("live", False, "fsync", WINDOW_BYTES, live=True),
)
DATASETS: Final = {False: "urn:streams:open", True: "urn:streams:demanding"}  # by whether receipts are demanded: each is hashed whole
Call = Callable[[ManagementClient, str, str], Awaitable[object]]
CALLS: Final[dict[str, Call]] = {
    "terminated": lambda client, pid, _: client.move_transfer(pid, "terminate", "revoked"),
    "suspended": lambda client, pid, _: client.move_transfer(pid, "suspend", "revoked"),
    "agreement closed": lambda client, _, agreement: client.close_agreement(agreement, "revoked"),
}


@dataclass
class Revoked:
    """One of them: `seconds` from the call to the last byte, of which `queued` were spent in the queue for a processor or a disk; `bytes`
    that came after its answer; `signed` by the consumer, in the end."""

    how: str
    road: str
    parallel: int
    demanded: bool
    seconds: float = 0.0
    queued: float = 0.0
    bytes: int = 0
    signed: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def late(self) -> bool:
        """Whether it took longer than was promised, whatever queues there were: no machine is so busy that nothing ends for ever."""
        return self.seconds > stretched(SECONDS_MAX, self.queued)


@asynccontextmanager
async def revocable(root: Path, roads: Sequence[Road] = ROADS) -> AsyncIterator[list[Lane]]:
    """Lanes over these roads below `root`, each with its data published: to get so far takes as long as to revoke, and may be done before
    the machine has to be quiet. One after the other, as who is told to publish has a minute to answer."""
    async with AsyncExitStack() as stack:
        lanes = []
        for at, road in enumerate(roads):
            lanes.append(lane := await stack.enter_async_context(Lane(root / str(at), road, RATE)))
            with (lane.homes["provider"].directory / "data" / "much.bin").open("wb") as much:
                much.truncate(FILE_BYTES)
            for demanded in DATASETS:
                await _publish(lane, demanded)
        yield lanes


async def revocations(lanes: Sequence[Lane], complaints: list[str], parallels: Sequence[int] = (1, 4)) -> list[Revoked]:
    """Revoke in these lanes, one after the other, and over so many connections in every way; complaints of connectors go to
    `complaints`."""
    found: list[Revoked] = []
    for lane in lanes:
        mine: list[tuple[Revoked, str]] = []
        for number, (how, call) in enumerate(CALLS.items()):
            for parallel in (1,) if lane.road.pushed or lane.road.live else parallels:
                one = Revoked(how, lane.road.name, parallel, (number + parallel) % 2 == 0)
                found.append(one)
                try:
                    mine.append((one, await _revoke(lane, one, call, MARKS[parallel > 1 or lane.road.live])))
                except TimeoutError:
                    one.wrong.append(f"something that was to come had not {END_SECONDS:g} s later")
        complaints += await lane.stop()
        for one, transfer in mine:
            await _settled(lane, one, transfer)
    return found


async def _revoke(lane: Lane, one: Revoked, call: Call, mark: int) -> str:
    """Returns the consumer's pid of the transfer."""
    wire, name = lane.wire, f"{one.how}-{one.parallel}".replace(" ", "-")
    wire.mark = mark
    wire.arm((), lane.strike)
    how = {"push": True} if lane.road.pushed else {} if lane.road.live else {"parallel": one.parallel}
    pull = await lane.ordered(DATASETS[one.demanded], lane.homes["consumer"].directory / name, **how)
    async with patience(END_SECONDS, lane.queued_seconds):
        await wire.flowing.wait()
    pull = await lane.consumer.insist(lambda client: client.pull_order(pull.id))
    mine = await lane.consumer.insist(lambda client: client.transfer_process(pull.transfer or ""))
    async with patience(END_SECONDS, lane.queued_seconds):  # what came before the consumer had an account is the provider's word alone
        while not await _attested(lane, pull.agreement or "", mine.peer_pid):  # noqa: ASYNC110 - a process of its own tells nobody
            await asyncio.sleep(0.02)
    queue, own = Queue(), os.getpid()

    def queued() -> float:
        return lane.provider.queued_seconds() + queue.seconds(own) + disk_seconds()

    sent, before = time.monotonic(), queued()
    await lane.provider.insist(lambda client: call(client, mine.peer_pid or "", pull.agreement or ""))
    answered_bytes = wire.passed[DOWN]
    last = 0.0
    while time.monotonic() - max(wire.last_down, sent) < QUIET_SECONDS and wire.last_down - sent <= STRETCH * SECONDS_MAX:
        if wire.last_down != last:
            last, one.queued = wire.last_down, queued() - before
        await asyncio.sleep(0.01)
    one.seconds, one.bytes = max(0.0, wire.last_down - sent), wire.passed[DOWN] - answered_bytes
    if one.late:
        one.wrong.append(f"bytes came for {one.seconds:.2f} s, {one.queued:.2f} s of it in a queue for a processor or a disk")
    if one.bytes > lane.road.window_bytes:
        one.wrong.append(f"{one.bytes} bytes came after the answer, more than one window")
    ended = "SUSPENDED" if one.how == "suspended" else "TERMINATED"

    async def look(client: ManagementClient) -> Transfer:
        return await client.transfer_process(mine.pid)

    async with patience(END_SECONDS, lane.queued_seconds):
        await lane.consumer.until(mine.pid, look, lambda seen: seen.state == ended)
    if ended == "SUSPENDED":
        await lane.provider.insist(lambda client: client.move_transfer(mine.peer_pid or "", "terminate"))
    async with patience(END_SECONDS, lane.queued_seconds):
        await lane.consumer.until(pull.id, lambda client: client.pull_order(pull.id), lambda seen: seen.is_over)
    async with patience(END_SECONDS, lane.queued_seconds):  # the last receipt is on its way when the order is over
        while not await _heard(lane, pull.agreement or ""):  # noqa: ASYNC110 - a process of its own tells nobody
            await asyncio.sleep(0.02)
    return mine.pid


async def _publish(lane: Lane, demanded: bool) -> None:
    url = f"{lane.upstream.url}/lines?size=20000" if lane.road.live else ""
    source = {"type": "http-stream", "url": url, "since": SINCE} if url else {"type": "file", "path": "much.bin"}
    await lane.publish(DATASETS[demanded], source, demanded)


async def _attested(lane: Lane, agreement: str, pid: str | None) -> bool:
    """Whether the consumer has signed a first receipt of this transfer, by the provider's pid."""
    used = await lane.provider.insist(lambda client: client.usage(agreement))
    return any(each["attested"] == "both" for each in used.transfers if each["transfer"] == pid)


async def _heard(lane: Lane, agreement: str) -> bool:
    """Whether the provider has all that the consumer has signed, and that its acks: the last receipt may bring nothing but time."""
    consumer, provider = [(await side.insist(lambda client: client.usage(agreement))).signed for side in lane.sides.values()]
    return consumer == provider


async def _settled(lane: Lane, one: Revoked, transfer: str) -> None:
    """What was verified before it ended is signed for, on both sides alike."""
    consumer, provider = (opened(lane.homes[name]) for name in ("consumer", "provider"))
    try:
        process = await consumer.store.process(Kind.TRANSFER, transfer)
        mine, theirs = await consumer.store.metered(transfer), await provider.store.metered(process.peer_pid)
    finally:
        await consumer.store.close()
        await provider.store.close()
    one.wrong += differences(mine, theirs)
    one.signed = mine.counts.bytes if mine is not None else 0
