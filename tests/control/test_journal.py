"""That one message is one commit before its answer, that whoever has to act is told after it, and what a conflict leads to."""

import asyncio
import gc
import itertools
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from connector import remembered, telemetry
from connector.adapters.clock import SystemClock
from connector.adapters.memory import MemoryStore
from connector.app import Automatic
from connector.control import journal as module
from connector.control.journal import ATTEMPTS_MAX, RECENT_MAX, Journal
from connector.dsp.exchange import Process
from connector.dsp.messages import Move
from connector.errors import IllegalMessage, StoreError
from connector.records import Agreement, Changes, Conflict, Dataset, Evidence, Expect, Inbox, Outbound, Pull, implied
from connector.values import replace
from tests.contracts.identity_contract import SetClock
from tests.contracts.samples import agreement, fact, negotiation, outbound, pull, transfer
from tests.control.stand import DATASET, C, N, P, T, offer_terms, request, say, seen, standing
from tests.pair import WAIT_SECONDS, Desk, desk, fresh


@pytest_asyncio.fixture
async def acting(tmp_path: Path) -> AsyncIterator[Desk]:
    """A connector that does at once what policy permits."""
    async with desk(tmp_path / "desk", approver=Automatic(0)) as opened:
        await opened.us.publish(DATASET)
        yield opened


@pytest.mark.asyncio
async def test_a_message_is_one_commit_of_inbox_state_evidence_and_outbox(acting: Desk):
    body = request(await offer_terms(acting), acting, fresh())
    commits: list[tuple[Changes, tuple[Evidence, ...]]] = []
    acting.us.connector.journal.listen(lambda changes, evidence: commits.append((changes, evidence)))
    answer = await acting.peer.send(acting.us, "POST", "/negotiations/request", body)
    changes, evidence = commits[0]
    (process,) = [each for each in changes.saves if isinstance(each, Process)]
    (inbox,) = [each for each in changes.saves if isinstance(each, Inbox)]
    (agreed,) = [each for each in changes.saves if isinstance(each, Agreement)]
    (row,) = changes.outbox
    assert (process.pid, process.state, process.in_flight_id) == (answer.json["providerPid"], "REQUESTED", row.id)
    assert (inbox.pid, inbox.status, inbox.answer) == (process.pid, answer.status, answer.body)
    assert orjson.loads(inbox.body) == body
    assert orjson.loads(row.body)["agreement"]["@id"] == agreed.id
    assert [e.what for e in evidence] == [telemetry.RECEIVED, telemetry.SENT]
    assert Expect(Process, process.pid, None) in changes.expects
    assert (Expect(Process, (N, acting.peer.id, body["consumerPid"]), None), process.pid) in implied(changes)


@pytest.mark.asyncio
async def test_if_the_commit_fails_nothing_was_said_and_nothing_has_changed(acting: Desk):
    process, agreed = await standing(acting, N, "ACCEPTED", P)
    before, body = await seen(acting, process), request(await offer_terms(acting), acting, fresh())

    async def broken(_changes: Changes) -> Any:
        raise StoreError("the disk is full")

    with acting.us.commits(broken):
        first = await acting.peer.send(acting.us, "POST", "/negotiations/request", body)
        later = await say(acting, Move.CONTRACT_TERMINATION, process, agreed)
    assert (first.status, later.status) == (503, 503)
    assert "disk" not in first.body.decode() + later.body.decode(), "what is wrong in this house is not for the peer"
    assert await seen(acting, process) == before
    assert await acting.us.connector.store.process_of_peer(N, acting.peer.id, body["consumerPid"]) is None
    assert acting.peer.calls == []
    assert list(await acting.us.connector.store.open_outbox()) == []
    assert (await acting.peer.send(acting.us, "POST", "/negotiations/request", body)).status == 201, "the same again is no repeat"
    assert (await say(acting, Move.CONTRACT_TERMINATION, process, agreed)).json["state"] == "TERMINATED"


@pytest.mark.asyncio
async def test_the_answer_waits_for_the_commit(acting: Desk):
    """Held in the middle of the commit, the peer has no answer and hears nothing; it does as soon as the commit is through."""
    held, reached = asyncio.Event(), asyncio.Event()
    store = acting.us.connector.store

    async def slow(changes: Changes) -> Any:
        reached.set()
        await held.wait()
        return await type(store).commit(store, changes)

    body = request(await offer_terms(acting), acting, fresh())
    with acting.us.commits(slow):
        sending = asyncio.create_task(acting.peer.send(acting.us, "POST", "/negotiations/request", body))
        await reached.wait()
        assert await store.process_of_peer(N, acting.peer.id, body["consumerPid"]) is None
        assert not sending.done()
        assert acting.peer.calls == []
        held.set()
        assert (await sending).status == 201
    await acting.peer.heard("/agreement")


@pytest.mark.asyncio
async def test_a_write_that_came_in_between_is_read_and_decided_on_again(acting: Desk):
    """The peer's termination meets another one: what was decided on an old state is not written, and the answer is the new state's."""
    process, agreed = await standing(acting, T, "STARTED", P)
    store, turns = acting.us.connector.store, itertools.count()

    async def overtaken(changes: Changes) -> Any:
        if next(turns) == 0:
            await type(store).commit(store, Changes(saves=(replace(process, state="COMPLETED", version=process.version + 1),)))
            return Conflict(changes.expects[0])
        return await type(store).commit(store, changes)

    with acting.us.commits(overtaken):
        answer = await say(acting, Move.TRANSFER_TERMINATION, process, agreed)
    assert (answer.status, answer.json["code"]) == (400, "illegal-message")
    assert "COMPLETED" in answer.json["reason"][0]


# Alone


class Rival(MemoryStore):
    """A store in which somebody else was faster, a number of times."""

    def __init__(self, wins: int) -> None:
        super().__init__()
        self.wins, self.reads = wins, 0

    async def commit(self, changes: Changes) -> tuple[Evidence, ...] | Conflict:
        if self.wins:
            self.wins -= 1
            return Conflict(changes.expects[0])
        return await super().commit(changes)

    async def process(self, kind: Any, pid: str) -> Process | None:
        self.reads += 1
        return await super().process(kind, pid)


def saved(pid: str = "urn:p", version: int = 1) -> Changes:
    process = Process(T, pid, C, "did:web:peer", "https://peer.test", "STARTED", f"{pid}:theirs", version=version)
    evidence = Evidence(telemetry.RECEIVED, T, pid, process.peer, process.state, 0.0)
    return Changes((Expect(Process, pid, version - 1 or None),), (process,), evidence=(evidence,))


@pytest.mark.asyncio
async def test_listeners_hear_of_a_commit_when_it_is_durable_in_the_order_of_their_registration():
    journal, heard = Journal(MemoryStore(), SetClock()), list[Any]()
    journal.listen(lambda changes, evidence: heard.append(("first", changes, [e.sequence for e in evidence])))
    journal.listen(lambda changes, _: heard.append(("second", changes)))
    changes = saved()
    result = await journal.commit(changes)
    assert isinstance(result, tuple)
    assert heard == [("first", changes, [e.sequence for e in result]), ("second", changes)]


@pytest.mark.asyncio
async def test_nobody_hears_of_what_met_a_conflict_or_failed():
    store = Rival(1)
    journal, heard = Journal(store, SetClock()), list[Changes]()
    journal.listen(lambda changes, _: heard.append(changes))
    assert isinstance(await journal.commit(saved()), Conflict)
    await store.close()
    with pytest.raises(StoreError):
        await journal.commit(saved())
    assert heard == []


@pytest.mark.asyncio
async def test_a_step_is_decided_again_after_each_conflict_and_given_up_after_many_in_a_row():
    for wins, steps in ((0, 1), (3, 4), (ATTEMPTS_MAX - 1, ATTEMPTS_MAX)):
        asked = list[int]()

        async def step(asked: list[int] = asked) -> Changes:
            asked.append(1)
            return saved()

        assert await Journal(Rival(wins), SetClock()).decide(step) == saved()
        assert len(asked) == steps
    with pytest.raises(RuntimeError, match=f"{ATTEMPTS_MAX} conflicts in a row"):
        await Journal(Rival(ATTEMPTS_MAX), SetClock()).decide(step)


@pytest.mark.asyncio
async def test_a_step_that_has_nothing_to_write_writes_nothing_and_its_errors_pass_through():
    store = Rival(0)
    journal = Journal(store, SetClock())

    async def nothing() -> None:
        return None

    async def refusal() -> None:
        raise IllegalMessage("not now")

    assert await journal.decide(nothing) is None
    with pytest.raises(IllegalMessage, match="not now"):
        await journal.decide(refusal)
    assert list(await store.events(0, 10)) == []


@pytest.mark.asyncio
async def test_who_named_topics_hears_of_commits_about_one_of_them_and_of_no_others():
    journal, heard = Journal(MemoryStore(), SystemClock()), list[str]()
    topics: dict[str, tuple[Any, ...]] = {
        "all": (),
        "transfers": (T,),
        "processes": (N, T),
        "data": (Dataset, Agreement),
        "evidence": (Evidence,),
        "rows": (Outbound,),
    }
    topics["closings"] = (telemetry.CLOSING,)  # what a fact says
    for name, wanted in topics.items():
        journal.listen(lambda _changes, _evidence, name=name: heard.append(name), *wanted)
    row = replace(outbound(), pid="urn:t")
    for changes, told in (
        (Changes(saves=(transfer("urn:t"),)), ["all", "transfers", "processes"]),
        (Changes(saves=(transfer("urn:t"), agreement()), outbox=(row,)), ["all", "transfers", "processes", "data", "rows"]),
        (Changes(saves=(negotiation(),), evidence=(fact(),)), ["all", "processes", "evidence"]),
        (Changes(evidence=(fact(), replace(fact(), what=telemetry.CLOSING))), ["all", "evidence", "closings"]),
        (Changes(deletes=((Dataset, "urn:d"),)), ["all", "data"]),
        (Changes(settled=(row.id,)), ["all", "rows"]),
        (Changes(saves=(pull(),)), ["all"]),
    ):
        for _ in range(2):
            heard.clear()
            await journal.commit(changes)
            assert heard == told
    journal.listen(lambda _changes, _evidence: heard.append("later"), Pull)
    heard.clear()
    await journal.commit(Changes(saves=(pull(),)))
    assert heard == ["all", "later"]


@pytest.mark.asyncio
async def test_a_process_is_read_from_the_store_only_if_it_was_not_committed_here_lately():
    store = Rival(0)
    journal = Journal(store, SetClock())
    await journal.commit(saved("urn:old"))
    assert (await journal.process(T, "urn:old"), store.reads) == (saved("urn:old").saves[0], 0)
    assert (await journal.process(N, "urn:old"), store.reads) == (None, 1), "a pid of the other kind is another process"
    await journal.commit(Changes(saves=tuple(saved(f"urn:{number}").saves[0] for number in range(RECENT_MAX))))
    assert await journal.process(T, "urn:old") == saved("urn:old").saves[0]
    assert store.reads == 2, "what is kept at hand is bounded"
    (process,) = (record for record in saved("urn:old", version=2).saves if isinstance(record, Process))
    ended = replace(process, state="COMPLETED")
    await journal.commit(Changes(saves=(ended,)))
    assert (await journal.process(T, "urn:old"), store.reads) == (ended, 3), "what has ended is not kept: it has no message on its way"


class Elsewhere(MemoryStore):
    """A store that takes no memory of this process."""

    async def commit(self, changes: Changes) -> tuple[Evidence, ...] | Conflict:
        return changes.evidence


def with_terms(pid: str, words: int) -> Changes:
    """A process over terms of so many words, each an object of its own, as they come off the wire."""
    (process,) = (record for record in saved(pid).saves if isinstance(record, Process))
    return Changes(saves=(replace(process, detail={"terms": [f"{pid}{number}" for number in range(words)]}),))


@pytest.mark.asyncio
async def test_what_is_kept_at_hand_is_bounded_in_bytes_whatever_peers_send(monkeypatch: pytest.MonkeyPatch):
    bound = 4 << 20
    monkeypatch.setattr(module, "RECENT_BYTES_MAX", bound)
    monkeypatch.setattr(remembered, "SHARE", 4)
    journal = Journal(Elsewhere(), SetClock())
    await journal.commit(with_terms("warm", 1))
    tracemalloc.start()
    try:
        for number in range(40):
            await journal.commit(with_terms(f"{number}:", 5_000))
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < bound


@pytest.mark.asyncio
async def test_a_process_that_has_grown_too_large_to_be_kept_is_read_from_the_store_and_not_as_it_was():
    store = Rival(0)
    journal = Journal(store, SetClock())
    await journal.commit(with_terms("urn:p", 1))
    grown = with_terms("urn:p", 20_000)
    await journal.commit(grown)
    assert await journal.process(T, "urn:p") == grown.saves[0]
    assert store.reads == 1


@pytest.mark.asyncio
async def test_after_a_conflict_the_next_reading_is_the_stores():
    store = Rival(0)
    journal = Journal(store, SetClock())
    await journal.commit(saved())
    await store.commit(saved(version=2))  # by another replica
    behind = await journal.process(T, "urn:p")
    assert behind is not None
    assert behind.version == 1
    assert isinstance(await journal.commit(saved(version=2)), Conflict)
    now = await journal.process(T, "urn:p")
    assert now is not None
    assert now.version == 2


@pytest.mark.asyncio
async def test_steps_of_one_process_take_turns_and_those_of_others_do_not_wait():
    journal = Journal(MemoryStore(), SystemClock())
    inside: list[str] = []
    order: list[str] = []
    gate = asyncio.Event()

    def step(name: str, pid: str) -> Any:
        async def run() -> None:
            assert pid not in inside, "two at a time"
            inside.append(pid)
            order.append(name)
            await (gate.wait() if name == "first" else asyncio.sleep(0))
            inside.remove(pid)

        return run

    tasks = [asyncio.create_task(journal.decide(step(name, "a"), "a")) for name in ("first", "second", "cancelled", "third")]
    other = asyncio.create_task(journal.decide(step("other", "b"), "b"))
    await other
    assert order == ["first", "other"]
    tasks[2].cancel()
    gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["first", "other", "second", "third"]
    assert not vars(journal)["_turns"], "nothing is kept of processes that nobody steps any more"


@pytest.mark.asyncio
async def test_who_is_cancelled_in_the_moment_of_its_turn_passes_it_on():
    journal, loop, order = Journal(MemoryStore(), SystemClock()), asyncio.get_running_loop(), list[str]()

    def step(name: str) -> Any:
        async def run() -> None:
            order.append(name)
            if name == "first":
                await asyncio.sleep(0)  # the others are waiting by now
                loop.call_soon(tasks[1].cancel)  # ahead of what gives it the turn, and behind the giving

        return run

    tasks = [asyncio.create_task(journal.decide(step(name), "a")) for name in ("first", "cancelled", "third")]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[1], asyncio.CancelledError)
    assert order == ["first", "third"]
    assert not vars(journal)["_turns"]


@pytest.mark.asyncio
async def test_what_is_put_off_waits_its_time_or_until_somebody_wants_to_know_or_it_is_needed_no_more():
    journal, loop = Journal(MemoryStore(), SystemClock()), asyncio.get_running_loop()
    ends: dict[str, float] = {}
    last, over = loop.time(), asyncio.Event()

    def put_off(pid: str, at: Journal = journal, seconds: float = 0.05) -> None:
        begun = loop.time()

        def write() -> None:
            ends[pid] = loop.time() - begun
            if pid == "d":
                over.set()

        at.hold(pid, seconds, write)

    put_off("b", patient := Journal(MemoryStore(), SystemClock()), WAIT_SECONDS)
    await patient.settled("b")
    assert "b" in ends, "who wants to know waits for no time"
    for pid in "ac":
        put_off(pid)
    journal.drop("a")
    await asyncio.sleep(0.02)
    put_off("d")
    await over.wait()
    assert "a" not in ends
    assert (ends["c"] > 0.045, ends["d"] > 0.045, loop.time() - last < WAIT_SECONDS) == (True, True, True)
    put_off("e")
    put_off("e")
    assert "e" in ends, "of two about one process neither is lost"
    assert [*vars(journal)["_held"]] == ["e"], "nothing is kept of what nobody waits for"
