import asyncio
import contextlib
import gc
import os
import signal
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from connector.adapters import expander as module
from connector.adapters import jsonld_worker
from connector.adapters.expander import BODY_MAX_BYTES, Expander
from connector.dsp.messages import CONTEXT, DSP_CONTEXT
from connector.dsp.schemas import REASONS_MAX, Schemas
from connector.errors import Busy, TooMany, WireError
from connector.vocabulary import read_vocabulary
from tests.faults.patience import own_time

VOCABULARY = read_vocabulary()
SCHEMAS = Schemas(VOCABULARY.schemas)
TYPE = "ContractRequestMessage"
PEER, OTHER = "did:web:peer", "did:web:other"
RULE = {"action": "use"}
COMPACT: dict[str, Any] = {
    "@context": CONTEXT,
    "@type": TYPE,
    "consumerPid": "urn:uuid:c",
    "callbackAddress": "https://c.test/dsp",
    "offer": {"@id": "urn:o:1", "@type": "Offer", "target": "urn:ds:1", "permission": [RULE]},
}
FOREIGN = {**COMPACT, "@context": DSP_CONTEXT, "offer": {**COMPACT["offer"], "permission": RULE}}
BOMB_SECONDS = 1.0  # half of what a body is given otherwise
SLACK_SECONDS = 1.0  # a bomb is answered this long after its time at the latest, on cores that others use too


def encoded(document: Any) -> bytes:
    return orjson.dumps(document)


@contextlib.asynccontextmanager
async def running(**limits: Any) -> AsyncIterator[Expander]:
    expander = Expander(VOCABULARY.schemas, VOCABULARY.contexts, **limits)
    try:
        yield expander
    finally:
        await expander.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def enduring() -> AsyncIterator[Expander]:
    """One for all bombs: what one of them leaves behind would be met by the next."""
    async with running(answer_seconds=BOMB_SECONDS) as expander:
        yield expander


@contextlib.contextmanager
def within(expander: Expander, seconds: float) -> Iterator[None]:
    """So much for a body that is to take longer. All others have the time that they need on a machine that has much else to do."""
    usual, expander._answer_seconds = expander._answer_seconds, seconds
    try:
        yield
    finally:
        expander._answer_seconds = usual


def child_of(expander: Expander) -> int:
    assert expander._child is not None
    return expander._child.pid


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def children() -> set[int]:
    return {int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


@pytest.mark.asyncio
async def test_a_foreign_form_comes_back_compact_and_valid():
    async with running() as expander:
        compacted = await expander.compact(encoded(FOREIGN), TYPE, PEER)
    assert compacted == COMPACT
    assert SCHEMAS.is_valid(TYPE, compacted)


@pytest.mark.asyncio
async def test_no_child_is_started_before_the_first_body_and_one_serves_them_all():
    before = children()
    async with running() as expander:
        assert children() == before
        await expander.compact(encoded(FOREIGN), TYPE, PEER)
        first = child_of(expander)
        await asyncio.gather(*(expander.compact(encoded(FOREIGN), TYPE, PEER) for _ in range(10)))
        assert child_of(expander) == first
        assert children() == before | {first}
    assert children() == before


@pytest.mark.asyncio
async def test_an_unknown_context_is_named_with_what_else_is_wrong():
    body = {**COMPACT, "@context": [*CONTEXT, "https://w3id.org/edc/dspace/v0.0.1"], "consumerPid": 5}
    async with running() as expander:
        with pytest.raises(
            WireError, match=r"`https://w3id.org/edc/dspace/v0.0.1` is not known here; contexts are never fetched"
        ) as refused:
            await expander.compact(encoded(body), TYPE, PEER)
    assert "`/consumerPid` must be a string, not a number" in refused.value.reasons


@pytest.mark.asyncio
async def test_an_invalid_message_is_explained_with_pointers_into_the_body_as_sent():
    body = {**FOREIGN, "offer": {**COMPACT["offer"], "permission": [{"action": 5}] * 30, "target": 5}}
    async with running() as expander:
        with pytest.raises(WireError, match=f"not a valid `{TYPE}`") as refused:
            await expander.compact(encoded(body), TYPE, PEER)
    assert "`/offer/target` must be a string, not a number" in refused.value.reasons
    assert "`/offer/permission/0/action` must be a string, not a number" in refused.value.reasons
    assert len(refused.value.reasons) == REASONS_MAX


def nested(levels: int, wrap: Callable[[Any], Any], innermost: Any) -> Any:
    for _ in range(levels):
        innermost = wrap(innermost)
    return innermost


def offering(permission: Any) -> dict[str, Any]:
    return {**FOREIGN, "offer": {**COMPACT["offer"], "permission": permission}}


def in_context(*contexts: Any, **members: Any) -> dict[str, Any]:
    return {**FOREIGN, "@context": [DSP_CONTEXT, *contexts], **members}


def doubling(levels: int) -> dict[str, Any]:
    """A term whose scoped context defines the next one twice, and so on."""
    context: dict[str, Any] = {}
    for level in range(levels):
        context = {f"a{level}": {"@id": f"urn:a{level}", "@context": context}, f"b{level}": {"@id": f"urn:b{level}", "@context": context}}
    return context


def web(count: int) -> list[dict[str, Any]]:
    """Nodes that each refer twice to the next: embedded everywhere they double at each step."""
    return [{"@id": f"urn:n{n}", "urn:left": {"@id": f"urn:n{n + 1}"}, "urn:right": {"@id": f"urn:n{n + 1}"}} for n in range(count)]


LANGUAGES = {"l": {"@id": "urn:l", "@container": "@language"}}
ATOMIC = {"leftOperand": "odrl:purpose", "operator": "eq", "rightOperand": "x"}
BOMBS: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "not JSON": lambda: b"\x00\xff" * 1000,
    "half of a message": lambda: encoded(FOREIGN)[:-9],
    "open arrays": lambda: b"[" * 500_000,
    "open objects": lambda: b'{"a":' * 100_000,
    "deep arrays": lambda: encoded(nested(240, lambda x: [x], 1)),
    "deep objects": lambda: encoded({**FOREIGN, "x": nested(240, lambda x: {"x": x}, 1)}),
    "deep as deep can be": lambda: b"[" * 1020 + b"]" * 1020,
    "deep constraints": lambda: encoded(offering([{"action": "use", "constraint": [nested(120, lambda x: {"and": [x, ATOMIC]}, ATOMIC)]}])),
    "a wide policy": lambda: encoded({**offering([{"action": "use", "constraint": [ATOMIC] * 12_000}]), "consumerPid": 5}),
    "a wide invalid policy": lambda: encoded({**COMPACT, "offer": {**COMPACT["offer"], "permission": [{"or": [{}]}] * 60_000}}),
    "many keys": lambda: encoded({**FOREIGN, "offer": 5, **{f"urn:k{n}": n for n in range(50_000)}}),
    "many undefined keys": lambda: encoded(offering([{f"k{n}": n for n in range(60_000)}])),
    "a giant string": lambda: encoded({**FOREIGN, "consumerPid": "x" * (BODY_MAX_BYTES - 1000), "callbackAddress": 5}),
    "a giant key": lambda: encoded({**FOREIGN, "x" * 900_000: 1, "callbackAddress": 5}),
    "a giant number": lambda: b'{"@type": ' + b"9" * 900_000 + b"}",
    "many contexts": lambda: encoded(in_context(*[DSP_CONTEXT] * 15_000)),
    "contexts in each node": lambda: encoded({**FOREIGN, "urn:x": [{"@context": DSP_CONTEXT, "@type": "Dataset"}] * 10_000}),
    "a wide context": lambda: encoded(in_context({f"t{n}": {"@id": f"urn:t{n}", "@type": "@id"} for n in range(20_000)}, offer=5)),
    "terms that define each other": lambda: encoded(in_context({f"t{n}": f"t{n + 1}:x" for n in range(15_000)})),
    "a term that defines itself": lambda: encoded(in_context({"a": "b:x", "b": "a:x"})),
    "contexts that double": lambda: encoded(in_context(doubling(12))),
    "a prefix that grows": lambda: encoded(in_context({"p": "urn:" + "x" * 400_000}, **{f"p:{n}": n for n in range(400)}, consumerPid=5)),
    "a web of nodes": lambda: encoded({"@context": DSP_CONTEXT, "@graph": [*web(40), {**FOREIGN, "urn:x": {"@id": "urn:n0"}}]}),
    "a circle of nodes": lambda: encoded([{"@id": f"urn:n{n}", "urn:x": [{"@id": f"urn:n{m}"} for m in range(60)]} for n in range(60)]),
    "many messages": lambda: encoded([FOREIGN] * 25),
    "a flood of languages": lambda: encoded(in_context(LANGUAGES, l={str(n): ["x"] for n in range(50_000)}, offer=5)),
    "lists of lists": lambda: encoded({**FOREIGN, "offer": 5, "urn:l": nested(15, lambda x: {"@list": [x, x]}, 1)}),
    "reversed properties": lambda: encoded({**FOREIGN, "@reverse": {"urn:r": [{"@id": f"urn:n{n}"} for n in range(20_000)]}, "offer": 5}),
    "a context file": lambda: encoded(in_context("file:///etc/passwd")),
    "a context of this machine": lambda: encoded(in_context("http://127.0.0.1:1/")),
    "a relative context": lambda: encoded(in_context("../../etc/passwd")),
}


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_bomb_is_answered_in_time_and_the_next_body_is_served(bomb: str, enduring: Expander):
    assert await enduring.compact(encoded(FOREIGN), TYPE, PEER) == COMPACT
    body = BOMBS[bomb]()
    started = time.monotonic()
    with pytest.raises(WireError) as refused:
        await enduring.compact(body, TYPE, PEER)
    assert time.monotonic() - started < BOMB_SECONDS + SLACK_SECONDS
    assert all(len(reason) < 1000 for reason in refused.value.reasons)
    assert await enduring.compact(encoded(FOREIGN), TYPE, PEER) == COMPACT


def test_there_are_bombs_enough():
    assert len(BOMBS) >= 20


@pytest.mark.asyncio
async def test_a_body_that_needs_too_much_memory_is_refused_and_the_next_is_served():
    async with running(memory_bytes=96 << 20, answer_seconds=20.0) as expander:
        await expander.compact(encoded(FOREIGN), TYPE, PEER)
        first = child_of(expander)
        with pytest.raises(WireError, match="exceeded its memory"):
            await expander.compact(BOMBS["a flood of languages"](), TYPE, PEER)
        assert await expander.compact(encoded(FOREIGN), TYPE, PEER) == COMPACT
        assert child_of(expander) != first


@pytest.mark.asyncio
async def test_a_body_over_the_limit_does_not_reach_the_child():
    async with running() as expander:
        with pytest.raises(WireError, match=f"it may have {BODY_MAX_BYTES}"):
            await expander.compact(b" " * (BODY_MAX_BYTES + 1), TYPE, PEER)
        assert expander._child is None


@pytest.mark.asyncio
async def test_a_type_without_a_schema_is_a_defect_of_the_caller():
    async with running() as expander:
        with pytest.raises(ValueError, match="`Greeting` has no schema"):
            await expander.compact(encoded(FOREIGN), "Greeting", PEER)


@pytest.mark.asyncio
async def test_the_loop_turns_while_a_bomb_burns():
    gaps = []

    async def heartbeat() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - before)

    async with running(answer_seconds=20.0) as expander:
        await expander.compact(encoded(FOREIGN), TYPE, PEER)
        body, stretched = BOMBS["a wide policy"](), own_time()
        beating = asyncio.create_task(heartbeat())
        with within(expander, 1.0), pytest.raises(WireError, match=r"within 1 s"):
            await expander.compact(body, TYPE, PEER)
        beating.cancel()
        assert max(gaps) < stretched(0.5)
    assert len(gaps) >= 20


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("end", "limit"),
    [(signal.SIGKILL, r"its limits \(it ended with -9\)"), (signal.SIGSEGV, "its memory"), (signal.SIGXCPU, "its processor time")],
)
async def test_a_dead_child_is_replaced(end: signal.Signals, limit: str):
    async with running() as expander:
        await expander.compact(encoded(FOREIGN), TYPE, PEER)
        os.kill(child_of(expander), end)
        with pytest.raises(WireError, match=f"exceeded {limit}"):
            await expander.compact(encoded(FOREIGN), TYPE, PEER)
        assert await expander.compact(encoded(FOREIGN), TYPE, PEER) == COMPACT


@pytest.mark.asyncio
async def test_a_child_that_ended_while_idle_costs_nobody_an_answer():
    async with running() as expander:
        await expander.compact(encoded(FOREIGN), TYPE, PEER)
        child = expander._child
        assert child is not None
        os.kill(child.pid, signal.SIGKILL)
        await child.wait()
        assert await expander.compact(encoded(FOREIGN), TYPE, PEER) == COMPACT


@pytest.mark.asyncio
async def test_a_body_is_not_to_blame_for_a_machine_that_stood_still(monkeypatch: pytest.MonkeyPatch):
    used, looks = module._processor_seconds, []

    def look(pid: int) -> float:
        looks.append(used(pid))
        if len(looks) == 2:  # its time is over
            os.kill(pid, signal.SIGCONT)
        return looks[-1]

    async with running(answer_seconds=0.5) as expander:
        with within(expander, 20.0):
            await expander.compact(encoded(FOREIGN), TYPE, PEER)
        monkeypatch.setattr(module, "_processor_seconds", look)
        os.kill(child_of(expander), signal.SIGSTOP)
        assert await expander.compact(encoded(FOREIGN), TYPE, PEER) == COMPACT
    assert len(looks) > 2, "it was given one turn more"


@pytest.mark.asyncio
async def test_a_child_that_does_not_answer_is_replaced(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "TURNS_MAX", 1)
    async with running(answer_seconds=20.0) as expander:
        await expander.compact(encoded(FOREIGN), TYPE, PEER)
        os.kill(child_of(expander), signal.SIGSTOP)
        with within(expander, 0.3), pytest.raises(WireError, match=r"could not be expanded within 0.3 s"):
            await expander.compact(encoded(FOREIGN), TYPE, PEER)
        assert await expander.compact(encoded(FOREIGN), TYPE, PEER) == COMPACT


@pytest.mark.asyncio
async def test_a_reply_that_is_too_long_counts_as_a_broken_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "REPLY_MAX_BYTES", 100)
    async with running() as expander:
        with pytest.raises(WireError, match="exceeded its limits"):
            await expander.compact(encoded(FOREIGN), TYPE, PEER)


@contextlib.asynccontextmanager
async def held(**limits: Any) -> AsyncIterator[tuple[Expander, asyncio.Task[Any], Callable[[], None]]]:
    """An expander whose child is at a body and stands still until it is told to go on."""
    async with running(**limits) as expander:
        await expander.compact(encoded(FOREIGN), TYPE, PEER)
        child = child_of(expander)
        os.kill(child, signal.SIGSTOP)
        at_work = asyncio.create_task(expander.compact(encoded(FOREIGN), TYPE, PEER))
        await turns(3)  # the runner has taken it
        yield expander, at_work, lambda: os.kill(child, signal.SIGCONT)


async def bodies(expander: Expander, sender: str, count: int) -> list[asyncio.Task[Any]]:
    """So many bodies of a sender, waiting in their order."""
    tasks = [asyncio.create_task(expander.compact(encoded(FOREIGN), TYPE, sender)) for _ in range(count)]
    await turns(2)
    return tasks


@pytest.mark.asyncio
async def test_a_sender_with_too_many_bodies_waiting_is_asked_to_send_fewer():
    async with held(waiting_max=2) as (expander, at_work, go_on):
        waiting = await bodies(expander, PEER, 2)
        with pytest.raises(TooMany, match="too many bodies of yours wait") as refused:
            await expander.compact(encoded(FOREIGN), TYPE, PEER)
        assert refused.value.retry_seconds >= 1
        go_on()
        assert await asyncio.gather(at_work, *waiting) == [COMPACT] * 3


@pytest.mark.asyncio
async def test_nobody_finds_no_place_because_of_another_and_senders_take_turns():
    async with held(waiting_max=8) as (expander, at_work, go_on):
        done = list[str]()
        flood = await bodies(expander, PEER, 8)
        few = await bodies(expander, OTHER, 3)
        for name, tasks in (("flood", flood), ("few", few)):
            for task in tasks:
                task.add_done_callback(lambda task, name=name: done.append(name) if not task.exception() else None)
        assert [task.done() for task in flood] == [False] * 5 + [True] * 3, "the newest bodies of the one with most places give way"
        go_on()
        outcomes = await asyncio.gather(at_work, *few, *flood, return_exceptions=True)
        await turns(1)
        assert [type(outcome) for outcome in outcomes[-3:]] == [TooMany] * 3
        assert outcomes[:-3] == [COMPACT] * 9
        assert done == ["flood", "few"] * 3 + ["flood"] * 2


@pytest.mark.asyncio
async def test_places_that_are_shared_equally_are_taken_from_nobody():
    async with held(waiting_max=4) as (expander, at_work, go_on):
        waiting = [task for name in ("a", "b", "c", "d") for task in await bodies(expander, name, 1)]
        with pytest.raises(TooMany):
            await expander.compact(encoded(FOREIGN), TYPE, "e")
        go_on()
        assert await asyncio.gather(at_work, *waiting) == [COMPACT] * 5


@pytest.mark.asyncio
async def test_the_place_of_a_caller_that_has_gone_is_free():
    async with held(waiting_max=2) as (expander, at_work, go_on):
        gone, stays = await bodies(expander, PEER, 2)
        gone.cancel()
        await turns(2)
        (late,) = await bodies(expander, PEER, 1)
        go_on()
        assert await asyncio.gather(at_work, stays, late) == [COMPACT] * 3


@pytest.mark.asyncio
async def test_no_body_waits_longer_than_its_sender_does():
    async with held(answer_seconds=30.0) as (expander, at_work, go_on):
        expander._waiting_seconds = 0.1  # the first body had to wait for the child to start
        with pytest.raises(TooMany, match=r"waited 0.1 s"):
            await expander.compact(encoded(FOREIGN), TYPE, OTHER)
        go_on()
        assert await at_work == COMPACT
        expander._waiting_seconds = 10.0
        assert await expander.compact(encoded(FOREIGN), TYPE, OTHER) == COMPACT


@pytest.mark.asyncio
async def test_a_caller_that_gives_up_disturbs_nobody():
    async with running() as expander:
        await expander.compact(encoded(FOREIGN), TYPE, PEER)
        first = child_of(expander)
        impatient = [asyncio.create_task(expander.compact(encoded(FOREIGN), TYPE, PEER)) for _ in range(3)]
        patient = asyncio.create_task(expander.compact(encoded({**FOREIGN, "consumerPid": "urn:uuid:d"}), TYPE, PEER))
        await asyncio.sleep(0)
        for task in impatient:
            task.cancel()
        assert (await patient)["consumerPid"] == "urn:uuid:d"
        assert child_of(expander) == first


@pytest.mark.asyncio
async def test_closing_answers_whoever_waits_and_leaves_nothing_behind():
    before = children()
    expander = Expander(VOCABULARY.schemas, VOCABULARY.contexts)
    await expander.compact(encoded(FOREIGN), TYPE, PEER)
    os.kill(child_of(expander), signal.SIGSTOP)
    tasks = [asyncio.create_task(expander.compact(encoded(FOREIGN), TYPE, PEER)) for _ in range(3)]
    await asyncio.sleep(0)
    await expander.close()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Busy] * 3
    assert children() == before
    await expander.close()
    with pytest.raises(Busy, match="the connector is stopping"):
        await expander.compact(encoded(FOREIGN), TYPE, PEER)


@pytest.mark.asyncio
async def test_closing_without_a_first_body_does_nothing():
    expander = Expander(VOCABULARY.schemas, VOCABULARY.contexts)
    await expander.close()
    assert expander._child is None


@pytest.mark.asyncio
@pytest.mark.parametrize("program", ["/bin/false", "/nowhere/python"], ids=["ends at once", "is missing"])
async def test_a_worker_that_cannot_start_is_our_fault_and_may_be_tried_again(monkeypatch: pytest.MonkeyPatch, program: str):
    async with running() as expander:
        with monkeypatch.context() as patched:
            patched.setattr(module.sys, "executable", program)
            with pytest.raises(Busy, match="could not be started"):
                await expander.compact(encoded(FOREIGN), TYPE, PEER)
        assert await expander.compact(encoded(FOREIGN), TYPE, PEER) == COMPACT


@pytest.mark.asyncio
async def test_a_defect_reaches_its_caller_and_not_the_next_one(monkeypatch: pytest.MonkeyPatch):
    async with running() as expander:
        with monkeypatch.context() as patched:
            patched.setattr(module.orjson, "loads", lambda _: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                await expander.compact(encoded(FOREIGN), TYPE, PEER)
        assert await expander.compact(encoded(FOREIGN), TYPE, PEER) == COMPACT


@pytest.mark.asyncio
async def test_the_child_gets_no_environment_of_ours_and_no_files(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CONNECTOR_ADMIN_TOKEN", "s3cret")
    async with running() as expander:
        await expander.compact(encoded(FOREIGN), TYPE, PEER)
        process = Path("/proc") / str(child_of(expander))
        assert b"s3cret" not in (process / "environ").read_bytes()
        assert {path.name for path in (process / "fd").iterdir()} == {"0", "1", "2"}
        limits = {line[:26].strip(): line[26:].split()[:2] for line in (process / "limits").read_text().splitlines()[1:]}
    assert limits["Max open files"] == ["3", "3"]
    assert limits["Max file size"] == ["0", "0"]
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max address space"] == limits["Max data size"] == [str(module.MEMORY_BYTES)] * 2
    assert limits["Max cpu time"][0] != "unlimited"


def test_nothing_is_left_unclosed_when_the_loop_ends():
    async def serve() -> None:
        async with running(answer_seconds=20.0) as expander:
            await expander.compact(encoded(FOREIGN), TYPE, PEER)
            with within(expander, 0.3), pytest.raises(WireError):
                await expander.compact(BOMBS["a wide policy"](), TYPE, PEER)
            await expander.compact(encoded(FOREIGN), TYPE, PEER)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(serve())
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


def test_both_ends_agree_on_frames_and_on_the_status_for_memory():
    assert module.LENGTH.format == jsonld_worker.LENGTH.format
    assert module.EXIT_MEMORY == jsonld_worker.EXIT_MEMORY
    assert jsonld_worker.__spec__ is not None
    assert jsonld_worker.__spec__.name == module.WORKER


@pytest.mark.asyncio
async def test_a_child_whose_end_meets_a_defect_is_followed_by_another(monkeypatch: pytest.MonkeyPatch):
    errors, end = [OSError("of a pipe")], Expander._end_child

    async def broken(_expander: Expander, _job: object) -> None:
        raise RuntimeError("a defect")

    async def failing(expander: Expander) -> int | None:
        status = await end(expander)
        if errors:
            raise errors.pop()
        return status

    async with running() as expander:
        with monkeypatch.context() as patched:
            patched.setattr(Expander, "_exchange", broken)
            patched.setattr(Expander, "_end_child", failing)
            async with asyncio.timeout(10):
                with pytest.raises(RuntimeError, match="a defect"):
                    await expander.compact(encoded(FOREIGN), TYPE, PEER)
        assert await expander.compact(encoded(FOREIGN), TYPE, PEER) == COMPACT
