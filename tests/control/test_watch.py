import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from connector.adapters.clock import SystemClock, TimeOrderedIds
from connector.adapters.memory import MemoryStore
from connector.app import Automatic
from connector.control.compose import Sender, Times
from connector.control.journal import Journal
from connector.control.policies import Policies
from connector.control.rights import Rights
from connector.control.steps import Steps
from connector.control.watch import AT_ONCE, BATCH, Watch
from connector.dataplane.flows import Flows
from connector.dsp import wire
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move, Role
from connector.errors import StoreError
from connector.ports import Caller, Participant
from connector.records import Agreement, Changes, Evidence, Expect, Outbound
from connector.settings.fields import DeliverySettings, EdrSettings
from connector.values import replace
from tests.contracts.identity_contract import SetClock
from tests.contracts.samples import OWN, PEER, dataset, negotiation, transfer
from tests.contracts.samples import agreement as sample
from tests.control.stand import Standing
from tests.dataplane.rig import ShiftedClock
from tests.faults.patience import own_time
from tests.pair import OPEN, WAIT_SECONDS, Desk, Never, agreement, desk, fresh, pair, until_policy

T, N, P = Kind.TRANSFER, Kind.NEGOTIATION, Role.PROVIDER
SOON, QUIET = 0.15, 0.1
LATE_SECONDS = 2.0  # of a loaded machine; a timer that waits for something else would be later


class Bench:
    """A watch on a store in memory, and a way to wait for what it does."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.clock = ShiftedClock()
        self.journal = Journal(self.store, self.clock)
        self.accessed: dict[str, float] = {}
        self.owing: set[str] = set()
        steps = Steps(Never(), TimeOrderedIds(), Sender("did:web:own", "https://own.test", Times(10, 3600, 604800)))
        self.identity = Standing("did:web:own", **{PEER: {}})
        self.watch = Watch(self.journal, steps, Rights(self.store, Policies(), self.identity), self.accessed.get, QUIET, self._owing)
        self.sent: dict[str, Outbound] = {}
        self.at: dict[str, float] = {}
        self.news = asyncio.Event()
        self.journal.listen(self._heard)

    async def _owing(self, transfer: str) -> bool:
        return transfer in self.owing

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

    async def fault(self, there: bool) -> str | None:
        """What is wrong, once something is or nothing is."""
        async with asyncio.timeout(WAIT_SECONDS):
            while ((fault := await self.watch.fault()) is not None) is not there:  # noqa: ASYNC110 - nobody announces it
                await asyncio.sleep(0.01)
        return fault

    async def facts(self, pid: str) -> list[tuple[str, Any]]:
        return [(row.what, row.detail.get("code")) for row in await self.store.evidence_of(pid)]


@asynccontextmanager
async def bench(*before: Process | Agreement, store: MemoryStore | None = None) -> AsyncIterator[Bench]:
    """`before` stand in the store when the watch starts."""
    made = Bench(store)
    await made.store.commit(Changes(saves=(dataset(), *before)))
    await made.watch.start()
    try:
        yield made
    finally:
        await made.watch.close()


def waiting(pid: str = "n", seconds: float = SOON, **changed: Any) -> Process:
    return negotiation(pid, peer_pid=f"theirs:{pid}", due=time.time() + seconds, **changed)


def agreed(ends: float | None = None, id: str = "urn:uuid:a1") -> Agreement:
    """An agreement for anything, until it ends."""
    document = {
        "@id": id,
        "@type": "Agreement",
        "target": "urn:dataset:d1",
        "assigner": OWN,
        "assignee": PEER,
        "permission": [{"action": "use"}],
    }
    return sample(id, document=document, digest=wire.digest(document), final=True, ends=ends)


def running(pid: str = "t", *, state: str = "STARTED", seconds: float = SOON, agreement: str = "urn:uuid:a1", **detail: Any) -> Process:
    made = transfer(pid, role=P, peer_pid=f"theirs:{pid}", state=state, dataset="urn:dataset:d1", agreement=agreement)
    return replace(made, due=time.time() + seconds, detail={"format": "HttpData-PULL"} | detail)


@pytest.mark.parametrize("known_at_start", [True, False])
@pytest.mark.asyncio
async def test_a_step_that_nobody_takes_ends_the_process_on_its_instant(known_at_start: bool):
    one = waiting(role=Role.CONSUMER)
    async with bench(*([one] if known_at_start else [])) as at:
        if not known_at_start:
            await at.put(one)
        message, when = await at.ended("n")
        assert one.due <= when < one.due + LATE_SECONDS
        assert (message["@type"], message["code"]) == ("ContractNegotiationTerminationMessage", "deadline")
        assert message["reason"] == ["nothing came within 608400 s in state REQUESTED"], "the peer's operator and a step"
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


# What fails


def unreadable(pid: str, seconds: float = -3600.0) -> Process:
    """No step of ours writes such a decision: looking at it is an error that nobody expects."""
    return running(pid, seconds=seconds, decision="yes")


@pytest.mark.asyncio
async def test_a_process_that_cannot_be_looked_at_holds_up_no_other_and_is_tried_again(capfd: pytest.CaptureFixture[str]):
    """Always the earliest ones, and more than are read at once: the others would never have their turn."""
    broken = [unreadable(f"bad{number}") for number in range(BATCH + 1)]
    async with bench(agreed(), agreed(time.time() - 1.0, "urn:uuid:over"), *broken, waiting("early", -1.0)) as at:
        await at.ended("early")
        await at.put(soon := waiting("soon"))
        _, when = await at.ended("soon")
        assert soon.due <= when < soon.due + LATE_SECONDS, "on its instant, in the middle of what is tried again"
        assert set(at.sent) == {"early", "soon"}
        assert await at.watch.fault() is None, "a peer that could break a process could make us unready"
        await at.put(replace(broken[0], agreement="urn:uuid:over", detail={}, version=2))
        assert (await at.ended("bad0"))[0]["code"] == "EXPIRED", "at once, when it has changed"
    logged = capfd.readouterr().err
    assert all(f'"pid":"bad{number}"' in logged for number in range(BATCH + 1))
    assert logged.count('"level":"error"') < 4 * BATCH, "it does not spin"


class Failing(MemoryStore):
    """Cannot be read for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = asyncio.Event()
        self.failures = 0

    async def due(self, before: float, limit: int) -> Any:
        if self.broken.is_set():
            self.failures += 1
            raise StoreError("the store cannot be read: disk I/O error")
        return await super().due(before, limit)


@pytest.mark.asyncio
async def test_a_store_that_cannot_be_read_for_a_while_stops_no_timer_for_good(capfd: pytest.CaptureFixture[str]):
    store = Failing()
    async with bench(store=store) as at:
        assert await at.watch.fault() is None
        store.broken.set()
        await at.put(waiting(seconds=0.01))
        assert "StoreError" in str(await at.fault(True))
        store.broken.clear()
        assert (await at.ended("n"))[0]["code"] == "deadline"
        await at.fault(False)
        assert store.failures <= 2
    assert "watch failed" in capfd.readouterr().err


@pytest.mark.asyncio
async def test_many_that_are_due_together_are_all_ended():
    many = [waiting(f"n{number}", 0.0) for number in range(BATCH * 2 + 5)]
    async with bench(*many) as at:
        await at.until(lambda: len(at.sent) == len(many))
    assert len([row for row in await at.store.open_outbox() if row.move is Move.CONTRACT_TERMINATION]) == len(many), "each once"


@pytest.mark.asyncio
async def test_a_wall_clock_that_is_set_forward_ends_at_once_what_ends_at_an_instant_and_gives_a_step_its_time_anew():
    step = waiting(seconds=3600.0)
    async with bench(step, agreed(time.time() + 3600.0), running(seconds=3600.0)) as at:
        await asyncio.sleep(0)
        at.clock.shift_seconds, began, within = 3601.0, time.time(), own_time()
        await at.ended("t")
        assert time.time() - began < within(1.0)
        async with asyncio.timeout(WAIT_SECONDS):
            while (known := await at.store.process(Kind.NEGOTIATION, "n")) is None or known.due == step.due:  # noqa: ASYNC110 - a store tells nobody
                await asyncio.sleep(0.01)
        assert known.due is not None
        assert known.due > at.clock.now() + 3000.0
        assert "n" not in at.sent
        await at.put(replace(waiting("since", 3601.1), updated=at.clock.now()))
        await at.ended("since")


@pytest.mark.asyncio
async def test_a_wall_clock_that_is_set_back_gives_the_time_back():
    async with bench() as at:
        await at.put(waiting("later", 0.1))
        at.clock.shift_seconds = -3600.0
        await asyncio.sleep(0.3)
        assert "later" not in at.sent


# What is suspected


@pytest.mark.asyncio
async def test_what_changed_while_nobody_looked_is_decided_on_at_start():
    closed = replace(agreed(id="urn:uuid:closed"), closed=1.0, closed_by="us", reason="over")
    rows = [running("lost", agreement="urn:uuid:closed", seconds=3600.0), running("kept", seconds=3600.0)]
    async with bench(agreed(), closed, *rows) as at:
        message, _ = await at.ended("lost")
        assert message["code"] == "AGREEMENT_CLOSED"
        await at.until(lambda: not at.watch._causes and not at.watch._suspects)
        assert (await at.store.process(T, "kept")).meant == "STARTED"


@pytest.mark.asyncio
async def test_among_many_that_are_suspected_those_come_first_that_are_read_and_what_is_due_is_not_held_up():
    crowd = [running(f"t{number}", seconds=3600.0) for number in range(BATCH * 3)]
    async with bench(agreed(), *crowd) as at:
        await at.until(lambda: not at.watch._causes and not at.watch._suspects)
        at.accessed["t250"] = time.time()
        await at.put(waiting("due", -1.0))
        at.identity.claims.clear()
        at.watch.reconsider(PEER)
        await at.until(lambda: len(at.sent) == len(crowd) + 1)
        order = sorted(at.at, key=at.at.__getitem__)
        assert order.index("t250") < AT_ONCE + 2
        assert order.index("due") < BATCH + 2
    assert len([row for row in await at.store.open_outbox() if row.move is Move.SUSPENSION]) == len(crowd), "each once"


class Forgetful(MemoryStore):
    """Cannot list its transfers the first time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def open_transfers(self) -> Any:
        self.asked += 1
        if self.asked == 2:
            raise StoreError("the store cannot be read: disk I/O error")
        return await super().open_transfers()


@pytest.mark.asyncio
async def test_a_cause_that_could_not_be_looked_into_is_not_forgotten(capfd: pytest.CaptureFixture[str]):
    store = Forgetful()
    async with bench(agreed(), running(seconds=3600.0), store=store) as at:
        await at.until(lambda: store.asked == 1 and not at.watch._suspects)
        at.identity.claims.clear()
        at.watch.reconsider(PEER)
        assert (await at.ended("t"))[0]["code"] == "CREDENTIAL_REVOKED"
        assert store.asked == 3
    assert "watch failed" in capfd.readouterr().err


class Unread(MemoryStore):
    """Cannot read a process as often as this."""

    failures = 0

    async def process(self, kind: Kind, pid: str) -> Process | None:
        if self.failures:
            self.failures -= 1
            raise StoreError("the store cannot be read: disk I/O error")
        return await super().process(kind, pid)


@pytest.mark.asyncio
async def test_a_transfer_that_is_suspected_and_could_not_be_read_then_is_still_suspected():
    store = Unread()
    async with bench(agreed(), running(seconds=3600.0), store=store) as at:
        await at.until(lambda: not at.watch._causes and not at.watch._suspects)
        at.watch._loop._first_pause_seconds = 0.01
        store.failures = 2
        at.identity.claims.clear()
        at.watch.reconsider(PEER)
        assert (await at.ended("t"))[0]["code"] == "CREDENTIAL_REVOKED"


@pytest.mark.asyncio
async def test_who_vouches_until_an_instant_that_is_over_vouches_for_nobody_and_nothing_spins():
    async with bench(agreed()) as at:
        vouch = lambda *_: Caller(Participant(PEER, PEER, "role", None, ()), {}, time.time() - 1.0)  # noqa: E731
        at.identity.standing = vouch  # type: ignore[method-assign]
        await at.put(running(seconds=3600.0))
        at.watch.suspect("t")
        assert (await at.ended("t"))[0]["code"] == "CREDENTIAL_REVOKED"
        await asyncio.sleep(0.1)
        assert (await at.store.process(T, "t")).version == 2


@pytest.mark.parametrize("state", ["STARTED", "SUSPENDED"])
@pytest.mark.asyncio
async def test_the_end_of_an_agreement_or_a_bound_ends_a_transfer_whether_it_runs_or_not(state: str):
    one = running(state=state)
    async with bench(agreed(one.due), one) as at:
        message, when = await at.ended("t")
        assert when >= one.due
        assert (message["@type"], message["code"]) == ("TransferTerminationMessage", "EXPIRED")
        assert message["reason"] == ["the agreement has ended"]


@pytest.mark.asyncio
async def test_a_transfer_without_end_is_never_due():
    async with bench(agreed()) as at:
        await at.put(running(state="STARTED", seconds=3600.0))
        await at.watch.covered("t")
        kept = await at.store.process(T, "t")
        assert kept.due == kept.detail["covered"], "only coverage makes it so"


@pytest.mark.asyncio
async def test_full_coverage_and_a_quiet_time_complete_a_transfer_once():
    async with bench(agreed(), running(seconds=3600.0)) as at:
        began = time.time()
        await at.watch.covered("t")
        await at.watch.covered("t")
        message, when = await at.ended("t")
        assert message["@type"] == "TransferCompletionMessage"
        assert when >= began + QUIET
        told = [("fully-delivered", None), ("decided-again", None), ("message-sent", None)]  # it was put here without a decision
        assert await at.facts("t") == told


@pytest.mark.asyncio
async def test_a_full_coverage_that_cannot_be_written_now_is_written_later(monkeypatch: pytest.MonkeyPatch):
    """It is said once."""
    monkeypatch.setattr("connector.control.watch.pause_seconds", lambda _failures: 0.001)
    store = Unread()
    async with bench(agreed(), running(seconds=3600.0), store=store) as at:
        await at.until(lambda: not at.watch._causes and not at.watch._suspects)
        store.failures = 2
        await at.watch.covered("t")
        assert (await at.ended("t"))[0]["@type"] == "TransferCompletionMessage"


@pytest.mark.asyncio
async def test_a_consumer_that_still_reads_puts_the_completion_off():
    async with bench(agreed(), running(seconds=3600.0)) as at:
        await at.watch.covered("t")
        at.accessed["t"] = last = time.time() + 0.15
        _, when = await at.ended("t")
        assert when >= last + QUIET


@pytest.mark.asyncio
async def test_a_consumer_that_owes_a_receipt_is_waited_for_ever_longer_and_the_transfer_completes_once_it_has_come():
    async with bench(agreed(), running(seconds=3600.0)) as at:
        at.owing.add("t")
        looks: list[float] = []  # when each is due, as the commits say it

        def heard(changes: Changes, _evidence: tuple[Evidence, ...]) -> None:
            looks.extend(p.detail["covered"] for p in changes.saves if isinstance(p, Process) and p.detail["covered"] not in looks)

        at.journal.listen(heard)
        await at.watch.covered("t")
        await at.until(lambda: len(looks) >= 4)
        assert "t" not in at.sent
        gaps = [after - before for before, after in pairwise(looks)]
        assert all(gap >= 0.99 * QUIET * 2**number for number, gap in enumerate(gaps)), gaps
        at.owing.clear()
        assert (await at.ended("t"))[0]["@type"] == "TransferCompletionMessage"


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
    async with bench(agreed(time.time() + 0.02), running(seconds=3600.0)) as at:
        await at.watch.covered("t")
        assert (await at.ended("t"))[0]["code"] == "EXPIRED"


@pytest.mark.parametrize("state", ["REQUESTED", "SUSPENDED", "COMPLETED"])
@pytest.mark.asyncio
async def test_coverage_of_a_transfer_that_does_not_run_is_nothing(state: str):
    async with bench(agreed()) as at:
        await at.put(one := running(state=state, seconds=3600.0))
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
async def test_the_bound_of_a_policy_ends_the_transfer_on_both_sides(
    tmp_path: Path, serving: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    end, ahead_seconds = int(time.time()) + 25.0, [0.0]  # longer than it takes to start
    monkeypatch.setattr(SystemClock, "now", lambda _: time.time() + ahead_seconds[0])
    async with desk(tmp_path, **serving) as at:
        pid, address, _ = await started(at, until_policy(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end))))
        assert (await read(at.us.http, address, Range="bytes=0-3"))[0] == 206
        ahead_seconds[0] = end - 0.2 - time.time()
        said = await at.peer.heard("/termination")
        assert said["code"] == "EXPIRED"
        assert end - 0.01 <= SystemClock().now() < end + LATE_SECONDS
        await at.us.state(T, pid, "TERMINATED")
        assert (await read(at.us.http, address))[0] in (401, 403)


@pytest.mark.asyncio
async def test_a_step_that_a_machine_takes_has_the_time_that_the_settings_say(tmp_path: Path):
    quick = DeliverySettings(first_retry_seconds=0.02, retry_seconds_max=0.1, step_deadline_seconds=0.3)
    async with desk(tmp_path, approver=Automatic(0), delivery=quick) as at:
        (offer,) = (await at.us.publish("urn:d"))["offers"]
        theirs = fresh("theirs")
        terms = OPEN | {"@id": offer["id"], "target": "urn:d"}
        asked = wire.message(Move.CONTRACT_REQUEST, consumer_pid=theirs, offer=terms, callbackAddress=at.peer.site.base)
        pid = (await at.peer.send(at.us, "POST", "/negotiations/request", asked)).json["providerPid"]
        said = await at.peer.heard("/termination")
        assert (said["code"], said["reason"]) == ("deadline", ["nothing came within 0.3 s in state AGREED"])
        await at.us.state(N, pid, "TERMINATED")


@pytest.mark.asyncio
async def test_a_message_that_nobody_replays_ends_its_process_after_the_time_of_an_operator(tmp_path: Path):
    """The peer refuses our agreement for good. Its process is held for an operator, not for the time of a machine's step."""
    times = DeliverySettings(step_deadline_seconds=0.1, approval_deadline_seconds=1.0)
    async with desk(tmp_path, approver=Automatic(0), delivery=times) as at:
        (offer,) = (await at.us.publish("urn:d"))["offers"]
        terms = OPEN | {"@id": offer["id"], "target": "urn:d"}
        asked = wire.message(Move.CONTRACT_REQUEST, consumer_pid=fresh("theirs"), offer=terms, callbackAddress=at.peer.site.base)
        at.peer.script = lambda _method, path, _document: (422, None) if path.endswith("/agreement") else None
        pid = (await at.peer.send(at.us, "POST", "/negotiations/request", asked)).json["providerPid"]
        dead = await at.us.until(N, pid, lambda p: p.in_flight is None and "reasons" in p.detail)
        assert (dead.state, dead.due) == ("REQUESTED", dead.updated + 1.0)
        said = await at.peer.heard("/termination")
        assert said["reason"] == ["nothing was sent from here within 1 s in state REQUESTED"]
        await at.us.state(N, pid, "TERMINATED")


@pytest.mark.asyncio
async def test_who_waits_for_the_others_operator_waits_longer_than_that_one_has(tmp_path: Path):
    """Either would do, if it were not for the reason: it should be that of the side where nobody decided, on both."""
    slow = {"delivery": DeliverySettings(step_deadline_seconds=0.5, approval_deadline_seconds=1.0)}
    async with pair(tmp_path, provider=slow, consumer=slow) as two:
        await two.provider.publish("urn:d", manual=True)
        begun = await two.consumer.asked("POST", "/negotiations", {"peer": "hospital", "dataset": "urn:d"}, status=201)
        ours = await two.consumer.state(N, begun["pid"], "REQUESTED")
        there = await two.provider.until(N, str(ours.peer_pid), lambda p: p.detail.get("waiting") == "approval")
        assert ours.due > there.due >= there.updated + 1.0
        ended = [await two.provider.state(N, there.pid, "TERMINATED"), await two.consumer.state(N, ours.pid, "TERMINATED")]
        assert [each.detail["reasons"] for each in ended] == [["nobody decided within 1 s"]] * 2
        assert [each.detail["ended_by"] for each in ended] == ["us", "peer"]


@pytest.mark.asyncio
async def test_a_peer_that_has_just_taken_our_first_message_is_told_that_its_process_is_over():
    """That it has taken it is written a moment later: without its pid nobody could be told, and it would wait for us."""
    asked = replace(waiting("n", 0.0, state="REQUESTED"), peer_pid=None, in_flight=Move.CONTRACT_REQUEST, in_flight_id="m", due=None)
    made, tasks = Bench(), list[asyncio.Task[Any]]()
    await made.put(asked)

    async def taken() -> Changes:
        now = await made.journal.process(N, "n")
        assert now is not None
        after = replace(now, peer_pid="theirs:n", in_flight=None, in_flight_id=None, version=now.version + 1, due=time.time())
        return Changes((Expect(Process, "n", now.version),), (after,))

    made.journal.hold("n", 3600.0, lambda: tasks.append(asyncio.create_task(made.journal.decide(taken, "n"))))
    await made.journal.commit(Changes(saves=(replace(asked, version=asked.version + 1, due=time.time()),)))
    await made.watch._look(N, "n")
    process = await made.store.process(N, "n")
    assert process is not None
    assert (process.in_flight, made.sent["n"].move) == (Move.CONTRACT_TERMINATION, Move.CONTRACT_TERMINATION)
    await asyncio.gather(*tasks)
