import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from connector.adapters.clock import SystemClock, TimeOrderedIds
from connector.adapters.memory import MemoryStore
from connector.app import Automatic
from connector.control.compose import Sender, Times
from connector.control.journal import Journal
from connector.control.steps import Steps
from connector.control.watch import BATCH, Watch
from connector.dataplane.flows import Flows
from connector.dsp import wire
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move, Role
from connector.records import Changes, Evidence, Outbound
from connector.settings_fields import DeliverySettings, EdrSettings
from tests.contracts.identity_contract import SetClock
from tests.contracts.samples import negotiation, transfer
from tests.pair import OPEN, WAIT_SECONDS, Desk, Never, agreement, desk, fresh, until_policy

T, N, P = Kind.TRANSFER, Kind.NEGOTIATION, Role.PROVIDER
SOON, QUIET = 0.15, 0.1
LATE_SECONDS = 2.0  # of a loaded machine; a timer that waits for something else would be later


class Bench:
    """A watch on a store in memory, and a way to wait for what it does."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.journal = Journal(self.store, SystemClock())
        self.accessed: dict[str, float] = {}
        steps = Steps(Never(), TimeOrderedIds(), Sender("did:web:own", "https://own.test", Times(10, 3600, 604800)))
        self.watch = Watch(self.journal, steps, self.accessed.get, QUIET)
        self.sent: dict[str, Outbound] = {}
        self.at: dict[str, float] = {}
        self.news = asyncio.Event()
        self.journal.listen(self._heard)

    def _heard(self, changes: Changes, _evidence: tuple[Evidence, ...]) -> None:
        for row in changes.outbox:
            self.sent[row.pid], self.at[row.pid] = row, time.time()
        self.news.set()

    async def put(self, *processes: Process) -> None:
        await self.journal.commit(Changes(saves=processes))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not holds():
                await self.news.wait()
                self.news.clear()

    async def ended(self, pid: str) -> tuple[dict[str, Any], float]:
        """The message that went out about this process, and when."""
        await self.until(lambda: pid in self.sent)
        return wire.load(self.sent[pid].body), self.at[pid]

    async def facts(self, pid: str) -> list[tuple[str, Any]]:
        return [(row.what, row.detail.get("code")) for row in await self.store.evidence_of(pid)]


@asynccontextmanager
async def bench(*before: Process, store: MemoryStore | None = None) -> AsyncIterator[Bench]:
    """`before` stand in the store when the watch starts."""
    made = Bench(store)
    await made.store.commit(Changes(saves=before))
    await made.watch.start()
    try:
        yield made
    finally:
        await made.watch.close()


def waiting(pid: str = "n", seconds: float = SOON, **changed: Any) -> Process:
    return negotiation(pid, peer_pid=f"theirs:{pid}", due=time.time() + seconds, **changed)


def running(pid: str = "t", *, state: str = "STARTED", seconds: float = SOON, **detail: Any) -> Process:
    return transfer(
        pid, role=P, peer_pid=f"theirs:{pid}", state=state, due=time.time() + seconds, detail={"format": "HttpData-PULL"} | detail
    )


@pytest.mark.parametrize("known_at_start", [True, False])
@pytest.mark.asyncio
async def test_a_step_that_nobody_takes_ends_the_process_on_its_instant(known_at_start: bool):
    one = waiting()
    async with bench(*([one] if known_at_start else [])) as at:
        if not known_at_start:
            await at.put(one)
        message, when = await at.ended("n")
        assert one.due <= when < one.due + LATE_SECONDS
        assert (message["@type"], message["code"]) == ("ContractNegotiationTerminationMessage", "deadline")
        assert message["reason"] == ["nothing came within 3600 s in state REQUESTED"]
        assert await at.facts("n") == [("deadline-passed", "deadline"), ("message-sent", "deadline")]
        kept = await at.store.process(N, "n")
        assert (kept.detail["reasons"], kept.detail["ended_by"], kept.due) == (message["reason"], "us", None)


@pytest.mark.asyncio
async def test_what_became_due_while_nobody_looked_is_looked_at_at_once():
    async with bench(waiting(seconds=-86_400.0)) as at:
        assert (await at.ended("n"))[0]["code"] == "deadline"


@pytest.mark.asyncio
async def test_an_approval_that_nobody_gives_ends_with_its_own_reason():
    async with bench(waiting(detail={"waiting": "approval"})) as at:
        message, _ = await at.ended("n")
        assert (message["code"], message["reason"]) == ("no-decision", ["nobody decided within 604800 s"])
        assert "waiting" not in (await at.store.process(N, "n")).detail


@pytest.mark.asyncio
async def test_an_earlier_instant_moves_the_timer_forward_and_a_step_in_time_stops_it():
    async with bench(waiting("far", 3600.0)) as at:
        await at.put(stepped := waiting("stepped", 0.05))
        await at.put(negotiation("stepped", state="AGREED", peer_pid="theirs:stepped", due=None, version=2))
        await at.put(near := waiting("near"))
        _, when = await at.ended("near")
        assert when >= near.due > stepped.due
        assert set(at.sent) == {"near"}


class Slow(MemoryStore):
    """Its answer to `next_due` arrives late, as from a reader in a thread: it was true when it was read."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.go_on = asyncio.Event(), asyncio.Event()

    async def next_due(self) -> float | None:
        found = await super().next_due()
        self.read.set()
        await self.go_on.wait()
        return found


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.asyncio
async def test_a_commit_while_the_watch_reads_is_not_overlooked(first: bool):
    store = Slow()
    made = Bench(store)
    starting = asyncio.create_task(made.watch.start())
    try:
        if not first:  # the reading after a look
            store.go_on.set()
            await starting
            store.go_on.clear()
            store.read.clear()
            await made.put(waiting("before", 0.01))
        async with asyncio.timeout(WAIT_SECONDS):
            await store.read.wait()
        await made.put(waiting("n", 0.01))
        store.go_on.set()
        assert (await made.ended("n"))[0]["code"] == "deadline"
    finally:
        await starting
        await made.watch.close()


@pytest.mark.asyncio
async def test_many_that_are_due_together_are_all_ended():
    many = [waiting(f"n{number}", 0.0) for number in range(BATCH * 2 + 5)]
    async with bench(*many) as at:
        await at.until(lambda: len(at.sent) == len(many))
    assert len([row for row in await at.store.open_outbox() if row.move is Move.CONTRACT_TERMINATION]) == len(many), "each once"


@pytest.mark.parametrize("state", ["STARTED", "SUSPENDED"])
@pytest.mark.asyncio
async def test_the_end_of_an_agreement_or_a_bound_ends_a_transfer_whether_it_runs_or_not(state: str):
    one = running(state=state, ends=time.time() + SOON)
    async with bench(one) as at:
        message, when = await at.ended("t")
        assert when >= one.due
        assert (message["@type"], message["code"]) == ("TransferTerminationMessage", "EXPIRED")
        assert message["reason"] == ["the agreement or a bound of its policy has ended"]


@pytest.mark.asyncio
async def test_a_transfer_without_end_is_never_due():
    async with bench() as at:
        await at.put(running(state="STARTED", seconds=3600.0))
        await at.watch.covered("t")
        kept = await at.store.process(T, "t")
        assert kept.due == kept.detail["covered"], "only coverage makes it so"


@pytest.mark.asyncio
async def test_full_coverage_and_a_quiet_time_complete_a_transfer_once():
    async with bench(running(seconds=3600.0)) as at:
        began = time.time()
        await at.watch.covered("t")
        await at.watch.covered("t")
        message, when = await at.ended("t")
        assert message["@type"] == "TransferCompletionMessage"
        assert when >= began + QUIET
        assert await at.facts("t") == [("fully-delivered", None), ("message-sent", None)]


@pytest.mark.asyncio
async def test_a_consumer_that_still_reads_puts_the_completion_off():
    async with bench(running(seconds=3600.0)) as at:
        await at.watch.covered("t")
        at.accessed["t"] = last = time.time() + 0.15
        _, when = await at.ended("t")
        assert when >= last + QUIET


@pytest.mark.asyncio
async def test_a_stream_that_still_runs_is_not_quiet():
    clock = SetClock()
    flows = Flows(clock, lambda _pid: None)
    flows.sent("t", "tag", 0, 5, 5)
    with flows.running("t", None, ""):
        clock.at += 100.0
        assert flows.seen("t").last_access == clock.at
    clock.at += 10.0
    assert flows.seen("t").last_access == clock.at - 10.0


@pytest.mark.asyncio
async def test_the_end_of_the_agreement_overrules_the_quiet_time():
    async with bench(running(seconds=3600.0, ends=time.time() + 0.02)) as at:
        await at.watch.covered("t")
        assert (await at.ended("t"))[0]["code"] == "EXPIRED"


@pytest.mark.parametrize("state", ["REQUESTED", "SUSPENDED", "COMPLETED"])
@pytest.mark.asyncio
async def test_coverage_of_a_transfer_that_does_not_run_is_nothing(state: str):
    async with bench(one := running(state=state, seconds=3600.0)) as at:
        await at.watch.covered("t")
        await at.watch.covered("unknown")
        assert await at.store.process(T, "t") == one


@pytest.fixture
def serving() -> dict[str, Any]:
    return {"approver": Automatic(0.0), "edr": EdrSettings(quiet_seconds=0.3)}


async def started(at: Desk, policy: dict[str, Any] = OPEN, content: bytes = b"0123456789") -> tuple[str, dict[str, Any], str]:
    """A transfer that the scripted peer asked for and that runs: its pid here, its data address, and its pid there."""
    await at.us.publish("urn:d", policy, content=content)
    agreed = agreement(at.us, at.peer, P, dataset="urn:d", policy=policy)
    await at.us.connector.journal.commit(Changes(saves=(agreed,)))
    theirs = fresh()
    request = wire.message(
        Move.TRANSFER_REQUEST, consumer_pid=theirs, provider_pid=None, agreementId=agreed.id, format="HttpData-PULL",
        callbackAddress=at.peer.site.base,
    )  # fmt: skip
    answer = await at.peer.send(at.us, "POST", "/transfers/request", request)
    assert answer.status == 201, answer.body
    address = (await at.peer.heard("/start"))["dataAddress"]
    pid = answer.json["providerPid"]
    await at.us.state(T, pid, "STARTED")
    return pid, address, theirs


async def read(http: aiohttp.ClientSession, address: dict[str, Any], **headers: str) -> tuple[int, bytes]:
    token = next(p["value"] for p in address["endpointProperties"] if p["name"] == "authorization")
    async with http.get(address["endpoint"], headers={"Authorization": f"Bearer {token}"} | headers) as response:
        return response.status, await response.read()


@pytest.mark.asyncio
async def test_for_a_peer_that_never_completes_the_provider_does(tmp_path: Path, serving: dict[str, Any]):
    async with desk(tmp_path, **serving) as at:
        pid, address, _ = await started(at)
        assert await read(at.us.http, address, Range="bytes=0-4") == (206, b"01234")
        assert "covered" not in (await at.us.connector.store.process(T, pid)).detail, "half is not all"
        assert await read(at.us.http, address, Range="bytes=3-9") == (206, b"3456789")
        await at.peer.heard("/completion")
        await at.us.state(T, pid, "COMPLETED")
        assert (await read(at.us.http, address))[0] in (401, 403)


@pytest.mark.asyncio
async def test_a_suspension_before_the_quiet_time_is_over_holds_completion_back_until_it_runs_again(
    tmp_path: Path, serving: dict[str, Any]
):
    async with desk(tmp_path, **serving) as at:
        pid, address, theirs = await started(at)
        await read(at.us.http, address)
        await at.us.until(T, pid, lambda p: "covered" in p.detail)
        said = wire.message(Move.SUSPENSION, consumer_pid=theirs, provider_pid=pid, code="x", reason=["y"])
        assert (await at.peer.send(at.us, "POST", f"/transfers/{pid}/suspension", said)).status == 200
        assert (await at.us.connector.store.process(T, pid)).due is None
        other, _, _ = await started(at)  # the watch still does its work for others
        await at.us.connector.operations.terminate(T, other, "enough")
        await at.us.connector.operations.resume(pid)
        await at.peer.heard("/completion")
        await at.us.state(T, pid, "COMPLETED")


@pytest.mark.asyncio
async def test_the_bound_of_a_policy_ends_the_transfer_on_both_sides(tmp_path: Path, serving: dict[str, Any]):
    end = time.time() + 1.0
    instant = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(end)) + f".{int(end % 1 * 1000):03}Z"
    async with desk(tmp_path, **serving) as at:
        pid, address, _ = await started(at, until_policy(instant))
        assert (await read(at.us.http, address, Range="bytes=0-3"))[0] == 206
        said = await at.peer.heard("/termination")
        assert said["code"] == "EXPIRED"
        assert end - 0.01 <= time.time() < end + LATE_SECONDS
        await at.us.state(T, pid, "TERMINATED")
        assert (await read(at.us.http, address))[0] in (401, 403)


@pytest.mark.asyncio
async def test_a_peer_whose_turn_it_is_has_the_time_that_the_settings_say(tmp_path: Path):
    quick = DeliverySettings(first_retry_seconds=0.02, retry_seconds_max=0.1, step_deadline_seconds=0.3)
    async with desk(tmp_path, delivery=quick) as at:
        body = {"peer": "biopharma", "dataset": "urn:d", "policy": OPEN | {"@id": "urn:o"}}
        pid = (await at.us.asked("POST", "/negotiations", body, status=201))["pid"]
        said = await at.peer.heard("/termination")
        assert (said["code"], said["reason"]) == ("deadline", ["nothing came within 0.3 s in state REQUESTED"])
        await at.us.state(N, pid, "TERMINATED")
