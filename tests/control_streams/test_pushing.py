"""Which transfers are pushed: real connectors, one of which is stopped, suspended or refused in the middle."""

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from connector.adapters.memory import MemoryStore
from connector.control_streams import pushing
from connector.control_streams.pushing import Pushing
from connector.dataplane.edr import Address
from connector.dataplane_push.pusher import Pusher
from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Role
from connector.errors import PeerFailed, PeerRefused, StoreError, Withdrawn
from connector.records import Changes, Edr
from connector.values import replace
from tests import pair
from tests.contracts import samples
from tests.dataplane.rig import some_bytes
from tests.dataplane_push.test_push_pair import SIGNED
from tests.test_app import ended

CONTENT = some_bytes(20_000_000)
DATASET = "urn:test:pushed"

pytestmark = pytest.mark.asyncio


@dataclass
class Clock:
    at: float = 0.0


async def order(at: pair.Running) -> str:
    wish = {"peer": "hospital", "dataset": DATASET, "out": str(at.site.root / "out" / "file"), "push": True}
    return str((await at.asked("POST", "/pulls", wish, status=201))["id"])


async def begun(at: pair.Running, id: str) -> str:
    """Wait until something has come; returns the transfer."""
    async with asyncio.timeout(pair.WAIT_SECONDS):
        while (view := await at.asked("GET", f"/pulls/{id}"))["stage"] != "download":  # noqa: ASYNC110 - the view is what an operator sees
            await asyncio.sleep(0.01)
    return str(view["transfer"])


def right(at: pair.Running) -> bool:
    return hashlib.sha256((at.site.root / "out" / "file").read_bytes()).digest() == hashlib.sha256(CONTENT).digest()


@pytest.mark.parametrize(("who", "policy"), [("provider", pair.OPEN), ("consumer", SIGNED)], ids=["provider", "consumer, signed"])
async def test_whoever_is_stopped_goes_on_with_it_at_its_next_start(tmp_path: Path, who: str, policy: dict[str, Any]):
    one, other = (pair.site(tmp_path / name, name, store="sqlite") for name in ("hospital", "biopharma"))
    one.meet(other)
    stays, goes = (other, one) if who == "provider" else (one, other)
    async with pair.running(stays) as alive:
        async with pair.running(goes) as stopped:
            provider, consumer = (stopped, alive) if who == "provider" else (alive, stopped)
            await provider.publish(DATASET, policy, content=CONTENT)
            id = await order(consumer)
            await begun(consumer, id)
            since = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - since < goes.settings.limits.drain_seconds / 2, "it holds up no end"
        async with pair.running(goes) as again:
            consumer = alive if who == "provider" else again
            done = await ended(consumer, id)
            assert done["stage"] == "done", done
            assert right(consumer)


async def test_a_suspension_stops_it_and_a_resumption_lets_it_go_on(tmp_path: Path):
    async with pair.pair(tmp_path, store="sqlite") as both:
        await both.provider.publish(DATASET, content=CONTENT)
        id = await order(both.consumer)
        transfer = await both.consumer.connector.store.process(Kind.TRANSFER, await begun(both.consumer, id))
        assert transfer is not None
        answer = await both.provider.manage("POST", f"/transfers/{pair.quoted(transfer.peer_pid or '')}/suspend", {"reason": "a pause"})
        if answer.status == 200:  # else it was quicker
            await both.provider.state(Kind.TRANSFER, transfer.peer_pid or "", "SUSPENDED")
            await both.provider.asked("POST", f"/transfers/{pair.quoted(transfer.peer_pid or '')}/resume")
        assert (await ended(both.consumer, id))["stage"] == "done"
        assert right(both.consumer)


async def test_a_push_that_nobody_waits_for_ends_with_its_consumer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pushing, "FIRST_PAUSE_SECONDS", 0.01)
    async with pair.pair(tmp_path, store="sqlite") as both:
        await both.provider.publish(DATASET, content=b"data")
        agreed = await both.consumer.asked("POST", "/negotiations", {"peer": "hospital", "dataset": DATASET}, status=201)
        done = await both.consumer.until(Kind.NEGOTIATION, agreed["pid"], lambda p: p.final)
        body = {"agreement": done.agreement, "format": "HttpData-PUSH"}
        asked = await both.consumer.asked("POST", "/transfers", body, status=201)
        started = await both.consumer.until(Kind.TRANSFER, asked["pid"], lambda p: p.state == "STARTED")
        await both.consumer.asked("POST", f"/transfers/{pair.quoted(started.pid)}/terminate", {"reason": "enough"})
        assert (await both.provider.until(Kind.TRANSFER, started.peer_pid or "", lambda p: p.final)).state == "TERMINATED"


async def test_a_defect_is_said_and_does_not_end_the_push(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    plain, ends = Pusher.push, list[str]()  # not of those that a busy machine cuts

    async def push(of: Pusher, transfer: str, sink: Address) -> None:
        if not ends:
            ends.append("a mistake")
            raise LookupError("a mistake")
        await plain(of, transfer, sink)
        ends.append("brought")

    monkeypatch.setattr(Pusher, "push", push)
    async with pair.pair(tmp_path, store="sqlite") as both:
        await both.provider.publish(DATASET, content=CONTENT)
        assert (await ended(both.consumer, await order(both.consumer)))["stage"] == "done"
        assert right(both.consumer)
    assert ends == ["a mistake", "brought"]
    assert '"event":"push failed"' in capsys.readouterr().err


@pytest.mark.parametrize("long", [True, False])
async def test_the_pause_after_a_cut_is_short_again_once_a_push_got_on_for_a_while(monkeypatch: pytest.MonkeyPatch, long: bool):
    pauses: list[float] = []
    clock = Clock()
    monkeypatch.setattr(pushing, "random", lambda: 0.0)

    async def push(_pid: str, _sink: Address) -> None:
        clock.at += 60.0 if long else 0.001
        raise PeerFailed("cut")

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 5:
            raise asyncio.CancelledError

    store = MemoryStore()
    process = replace(samples.transfer("urn:t", role=Role.PROVIDER, state="STARTED"), detail={"format": "HttpData-PUSH"})
    await store.commit(Changes(saves=(process, samples.edr("urn:t"))))
    monkeypatch.setattr(pushing, "asyncio", SimpleNamespace(get_running_loop=lambda: SimpleNamespace(time=lambda: clock.at), sleep=sleep))
    with pytest.raises(asyncio.CancelledError):
        await Pushing(SimpleNamespace(store=store), SimpleNamespace(), push)._run("urn:t")  # type: ignore[arg-type]
    assert pauses == ([0.1] * 5 if long else [0.1, 0.2, 0.4, 0.8, 1.6])


async def test_answers_that_are_garbled_now_and_then_end_no_push_that_gets_on_in_between(monkeypatch: pytest.MonkeyPatch):
    clock, left, over = Clock(), [60.0] * 6, list[str]()

    async def push(_pid: str, _sink: Address) -> None:
        if left:
            clock.at += left.pop()
            raise PeerRefused("the sink's answer does not hold", status=200, said="signature-wrong")

    async def sleep(seconds: float) -> None:
        clock.at += seconds

    async def complete(_pid: str) -> None:
        over.append("complete")

    store = MemoryStore()
    process = replace(samples.transfer("urn:t", role=Role.PROVIDER, state="STARTED"), detail={"format": "HttpData-PUSH"})
    await store.commit(Changes(saves=(process, samples.edr("urn:t"))))
    monkeypatch.setattr(pushing, "asyncio", SimpleNamespace(get_running_loop=lambda: SimpleNamespace(time=lambda: clock.at), sleep=sleep))
    await Pushing(SimpleNamespace(store=store), SimpleNamespace(complete=complete), push)._run("urn:t")  # type: ignore[arg-type]
    assert over == ["complete"]


@pytest.mark.parametrize("ends", ["complete", "terminate"])
async def test_an_end_that_cannot_be_written_now_is_written_later_and_nothing_is_brought_again(monkeypatch: pytest.MonkeyPatch, ends: str):
    monkeypatch.setattr(pushing, "FIRST_PAUSE_SECONDS", 0.001)
    full, pushes = [StoreError("the disk is full") for _ in range(2)], list[str]()

    async def push(pid: str, _sink: Address) -> None:
        pushes.append(pid)
        if ends == "terminate":
            raise PeerRefused("too large", status=413)

    async def end(*_said: object) -> None:
        if full:
            raise full.pop()

    store = MemoryStore()
    process = replace(samples.transfer("urn:t", role=Role.PROVIDER, state="STARTED"), detail={"format": "HttpData-PUSH"})
    await store.commit(Changes(saves=(process, samples.edr("urn:t"))))
    await Pushing(SimpleNamespace(store=store), SimpleNamespace(**{ends: end}), push)._run("urn:t")  # type: ignore[arg-type]
    assert (pushes, full) == (["urn:t"], [])


@pytest.mark.parametrize("error", [StoreError("the store cannot be read"), RuntimeError("8 conflicts in a row in one step")])
async def test_what_hinders_a_look_at_the_transfer_or_its_end_for_a_moment_ends_no_push(monkeypatch: pytest.MonkeyPatch, error: Exception):
    monkeypatch.setattr(pushing, "FIRST_PAUSE_SECONDS", 0.001)
    steps = list[str]()

    class Store(MemoryStore):
        async def process(self, kind: Kind, pid: str) -> Process | None:
            hindered("read")
            return await super().process(kind, pid)

    def hindered(step: str) -> None:
        steps.append(step)
        if steps.count(step) == 1:
            raise error

    async def push(_pid: str, _sink: Address) -> None:
        steps.append("push")

    async def complete(_pid: str) -> None:
        hindered("complete")

    process = replace(samples.transfer("urn:t", role=Role.PROVIDER, state="STARTED"), detail={"format": "HttpData-PUSH"})
    await (store := Store()).commit(Changes(saves=(process, samples.edr("urn:t"))))
    await Pushing(SimpleNamespace(store=store), SimpleNamespace(complete=complete), push)._run("urn:t")  # type: ignore[arg-type]
    assert steps == ["read", "read", "push", "complete", "complete"]


async def test_a_transfer_that_goes_on_as_its_push_sees_that_it_was_suspended_is_pushed(monkeypatch: pytest.MonkeyPatch):
    """Read is that it pauses, and it goes on before that is acted upon."""
    monkeypatch.setattr(pushing, "FIRST_PAUSE_SECONDS", 0.001)
    goes_on = replace(samples.transfer("urn:t", role=Role.PROVIDER, state="STARTED"), detail={"format": "HttpData-PUSH"})
    paused, resumed, completed = replace(goes_on, state="SUSPENDED", version=2), replace(goes_on, version=3), asyncio.Event()
    pushes = list[str]()

    class Store(MemoryStore):
        async def edr(self, pid: str) -> Edr | None:
            stored = await self.process(Kind.TRANSFER, pid)
            if stored is not None and stored.state == "SUSPENDED":
                await say(resumed)
            return await super().edr(pid)

    async def say(process: Process) -> None:
        await store.commit(changes := Changes(saves=(process,)))
        pushed.committed(changes, ())

    async def push(pid: str, _sink: Address) -> None:
        pushes.append(pid)
        if len(pushes) == 1:
            await say(paused)
            raise Withdrawn("it pauses", "transfer-suspended")

    async def complete(_pid: str) -> None:
        await say(replace(goes_on, state="COMPLETED", version=4))
        completed.set()

    store = Store()
    await store.commit(Changes(saves=(samples.edr("urn:t"),)))
    pushed = Pushing(SimpleNamespace(store=store), SimpleNamespace(complete=complete), push)  # type: ignore[arg-type]
    await say(goes_on)
    async with asyncio.timeout(5.0):
        await completed.wait()
    assert pushes == ["urn:t"] * 2
    await pushed.close()


async def test_data_that_were_published_anew_end_a_push_that_was_signed_for(
    monkeypatch: pytest.MonkeyPatch,
):
    """It can never go on, and its consumer would wait for a quarter of an hour without a word."""
    monkeypatch.setattr(pushing, "FIRST_PAUSE_SECONDS", 0.001)
    codes, ended_by = ["transfer-suspended", "snapshot-changed"], list[tuple[Kind, str, str]]()

    async def push(_pid: str, _sink: Address) -> None:
        raise Withdrawn("the data were published anew", codes.pop(0))

    async def terminate(*said: str) -> None:
        ended_by.append(said)  # type: ignore[arg-type]

    store = MemoryStore()
    process = replace(samples.transfer("urn:t", role=Role.PROVIDER, state="STARTED"), detail={"format": "HttpData-PUSH"})
    await store.commit(Changes(saves=(process, samples.edr("urn:t"))))
    operations = SimpleNamespace(terminate=terminate)
    await Pushing(SimpleNamespace(store=store), operations, push)._run("urn:t")  # type: ignore[arg-type]
    assert ended_by == [(Kind.TRANSFER, "urn:t", "the data were published anew", "snapshot-changed")]
    assert not codes


@pytest.mark.parametrize(
    ("status", "said", "times", "code"),
    [
        (403, None, 3, None),
        (401, None, 3, None),
        (404, None, 3, None),
        (204, "signature-old", 3, None),  # of an answer: by a clock
        (403, None, 100, "sink-forbidden"),
        (401, None, 100, "sink-unauthorized"),
        (413, None, 1, "sink-too-large"),
        (422, None, 1, "sink-refused"),
        (204, "signature-wrong", 3, None),  # of an answer: by one flipped bit
        (200, "content-digest-wrong", 3, None),
        (200, "answer-unsigned", 3, None),
        (204, "signature-wrong", 4, "signature-wrong"),
    ],
    ids=[
        "403",
        "401",
        "404",
        "a clock",
        "403 for ever",
        "401 for ever",
        "413",
        "422",
        "garbled",
        "its body is",
        "unsigned",
        "another signature",
    ],
)
async def test_a_stray_refusal_ends_no_push_and_one_that_lasts_ends_it(
    monkeypatch: pytest.MonkeyPatch, status: int, said: str | None, times: int, code: str | None
):
    clock, asked, over = Clock(), 0, list[str]()

    async def push(_pid: str, _sink: Address) -> None:
        nonlocal asked
        asked += 1
        if asked <= times:
            raise PeerRefused(f"the sink answered with status {status}", status=status, said=said)

    async def sleep(seconds: float) -> None:
        clock.at += seconds

    async def terminate(_kind: Kind, _pid: str, reason: str, code: str) -> None:
        over.extend((reason, code))

    async def complete(_pid: str) -> None:
        over.append("complete")

    store = MemoryStore()
    process = replace(samples.transfer("urn:t", role=Role.PROVIDER, state="STARTED"), detail={"format": "HttpData-PUSH"})
    await store.commit(Changes(saves=(process, samples.edr("urn:t"))))
    monkeypatch.setattr(pushing, "asyncio", SimpleNamespace(get_running_loop=lambda: SimpleNamespace(time=lambda: clock.at), sleep=sleep))
    operations = SimpleNamespace(terminate=terminate, complete=complete)
    await Pushing(SimpleNamespace(store=store), operations, push)._run("urn:t")  # type: ignore[arg-type]
    assert over == (["complete"] if code is None else [f"the data cannot be pushed: the sink answered with status {status}", code])
    assert (clock.at >= pushing.DOUBT_SECONDS) == (times == 100)
    assert clock.at < 2 * pushing.DOUBT_SECONDS + pushing.PAUSE_SECONDS_MAX
