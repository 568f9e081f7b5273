"""What nobody took, and what was put off: dead letters that an operator sees, replays and drops, and the way on after a restart."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from connector import telemetry
from connector.app import Automatic
from connector.control.outbox import Outbox
from connector.control.steps import DeadLetters
from connector.dsp import wire
from connector.dsp.exchange import INITIAL, Process
from connector.dsp.messages import Move
from connector.metering.content import digest_of, write_bytes
from connector.records import Changes, Outbound, Usage
from connector.settings.fields import DeliverySettings
from connector.values import replace
from tests.control.stand import (
    DATASET,
    SUSPEND,
    N,
    P,
    T,
    dead,
    letters,
    offer_terms,
    refusing,
    request,
    said,
    say,
    scripted,
    settled,
    standing,
)
from tests.pair import OPEN, WAIT_SECONDS, Answer, Desk, Never, agreement, desk, fresh, running


@pytest_asyncio.fixture
async def hurried(tmp_path: Path) -> AsyncIterator[Desk]:
    """A connector whose messages are dead after one second."""
    delivery = DeliverySettings(deadline_seconds=1.0, first_retry_seconds=0.2, retry_seconds_max=0.5)
    async with desk(tmp_path / "desk", delivery=delivery) as opened:
        yield opened


@pytest.mark.asyncio
async def test_what_nobody_takes_in_its_time_is_a_dead_letter_that_an_operator_sees_and_replays(hurried: Desk):
    process, _ = await standing_alone(hurried)
    with scripted(hurried.peer, refusing(503, 99)):
        await hurried.us.asked("POST", f"/transfers/{process.pid}/suspend", SUSPEND)
        letter = await dead(hurried, process)
    assert (letter["peer"], letter["move"], letter["kind"]) == (hurried.peer.id, Move.SUSPENSION, "transfer")
    assert "503" in letter["error"]
    stored = await hurried.us.connector.store.process(T, process.pid)
    assert stored is not None
    assert (stored.state, stored.in_flight) == ("STARTED", None), "whether the peer has seen it is unknown: the state stays"
    view = await hurried.us.asked("GET", f"/transfers/{process.pid}")
    assert (view["code"], view["ended_by"], view["suspended_by"]) == ("no-answer", None, "us"), "who gave no answer has refused nothing"
    explained = (await hurried.us.asked("GET", f"/transfers/{process.pid}/decision"))["refusal"]
    assert (explained["by"], explained["code"], explained["reasons"]) == (None, "no-answer", view["reasons"])
    await hurried.us.asked("POST", f"/dead-letters/{letter['id']}/replay", {})
    done = await hurried.us.state(T, process.pid, "SUSPENDED")
    assert (done.detail["code"], done.detail["reasons"]) == ("operator", ["maintenance"]), "what failed before is no reason any more"
    assert await letters(hurried) == {}
    whats = [e.what for e in await hurried.us.evidence(process.pid)]
    assert whats == [telemetry.SENT, telemetry.UNANSWERED, telemetry.DEAD, telemetry.REPLAYED, telemetry.ACKNOWLEDGED]
    assert (await hurried.us.manage("POST", f"/dead-letters/{letter['id']}/replay", {})).status == 409, "it is gone"


async def standing_alone(at: Desk) -> tuple[Process, Any]:
    await at.us.publish(DATASET)
    return await standing(at, T, "STARTED", P)


@pytest.mark.parametrize(("first", "second"), [("replay", "discard"), ("discard", "replay"), ("discard", "discard")])
@pytest.mark.asyncio
async def test_of_two_operators_who_take_a_dead_letter_in_hand_at_once_one_comes_late(
    hurried: Desk, monkeypatch: pytest.MonkeyPatch, first: str, second: str
):
    """Else one hears that it is dropped and it is sent, or a message that is on its way has no row and nobody sends it again."""
    process, _ = await standing_alone(hurried)
    with scripted(hurried.peer, refusing(503, 99)):
        await hurried.us.asked("POST", f"/transfers/{process.pid}/suspend", SUSPEND)
        id = (await dead(hurried, process))["id"]
    connector = hurried.us.connector
    outbox = next(each.__self__ for each, _ in connector.journal._listeners if isinstance(getattr(each, "__self__", None), Outbox))
    in_hand = DeadLetters(connector.journal, outbox._steps, outbox._anew)
    late: list[asyncio.Task[bool]] = []
    commit = connector.store.commit

    async def slow(changes: Changes) -> Any:
        if not late:
            late.append(asyncio.create_task(getattr(in_hand, second)(id)))
            for _ in range(20):
                await asyncio.sleep(0)  # the second one looks at the letter while the write of the first is on its way
        return await commit(changes)

    monkeypatch.setattr(connector.store, "commit", slow)
    assert (await getattr(in_hand, first)(id), await late[0]) == (True, False)
    told = [e.what for e in await hurried.us.evidence(process.pid) if e.what in (telemetry.REPLAYED, telemetry.DISCARDED)]
    assert told == [telemetry.REPLAYED if first == "replay" else telemetry.DISCARDED]
    if first == "replay":
        await hurried.us.state(T, process.pid, "SUSPENDED")


@pytest.mark.asyncio
async def test_who_comes_late_to_send_a_dead_letter_again_hears_that_there_is_none_any_more(hurried: Desk, monkeypatch: pytest.MonkeyPatch):
    process, _ = await standing_alone(hurried)
    with scripted(hurried.peer, refusing(503, 99)):
        await hurried.us.asked("POST", f"/transfers/{process.pid}/suspend", SUSPEND)
        id = (await dead(hurried, process))["id"]
    journal, late = hurried.us.connector.journal, list[asyncio.Task[Answer]]()
    commit, turn, waits = journal.store.commit, journal._turn, asyncio.Event()

    async def slow(changes: Changes) -> Any:
        if id in changes.settled and not late:
            late.append(asyncio.create_task(hurried.us.manage("POST", f"/dead-letters/{id}/replay", {})))
            await asyncio.wait_for(waits.wait(), WAIT_SECONDS)
        return await commit(changes)

    async def waiting(pid: str) -> None:
        waits.set()
        await turn(pid)

    monkeypatch.setattr(journal.store, "commit", slow)
    monkeypatch.setattr(journal, "_turn", waiting)
    assert (await hurried.us.manage("DELETE", f"/dead-letters/{id}")).status == 204
    answer = await late[0]
    assert (answer.status, answer.json["detail"]) == (409, f"there is no dead letter `{id}`")


@pytest.mark.asyncio
async def test_a_dead_letter_asks_before_it_is_sent_again(hurried: Desk):
    """All answers were lost, but the peer has taken the message: the replay finds out and repeats nothing."""
    process, _ = await standing_alone(hurried)
    with scripted(hurried.peer, lambda method, _path, _document: (503, None)):
        await hurried.us.asked("POST", f"/transfers/{process.pid}/suspend", SUSPEND)
        letter = await dead(hurried, process)
    count = said(hurried.peer, process).count("POST suspension")
    hurried.peer.states[str(process.peer_pid)] = "SUSPENDED"
    await hurried.us.asked("POST", f"/dead-letters/{letter['id']}/replay", {})
    await hurried.us.state(T, process.pid, "SUSPENDED")
    assert said(hurried.peer, process).count("POST suspension") == count


@pytest.mark.asyncio
async def test_a_first_message_that_nobody_took_can_be_replayed_too(hurried: Desk):
    with scripted(hurried.peer, refusing(503, 99)):
        body = {"peer": hurried.peer.id, "dataset": "urn:d", "offer": "urn:o", "policy": OPEN}
        begun = await hurried.us.asked("POST", "/negotiations", body, status=201)
        waiting = await hurried.us.until(N, begun["pid"], lambda p: p.in_flight is None)
    assert waiting.state == INITIAL
    (letter,) = (await letters(hurried)).values()
    await hurried.us.asked("POST", f"/dead-letters/{letter['id']}/replay", {})
    assert (await hurried.us.state(N, begun["pid"], "REQUESTED")).peer_pid
    requests = [document for _, path, document in hurried.peer.calls if path.endswith("/request")]
    assert all(each == requests[0] for each in requests), "an equal one, so that the peer finds its process"


@pytest.mark.asyncio
async def test_an_agreement_that_nobody_took_is_not_sent_again_when_its_offer_is_gone(tmp_path: Path):
    async with desk(tmp_path / "desk", approver=Automatic(0)) as at:
        await at.us.publish(DATASET)
        asked = request(await offer_terms(at), at, fresh())
        with scripted(at.peer, refusing(422, 1)):
            pid = (await at.peer.send(at.us, "POST", "/negotiations/request", asked)).json["providerPid"]
            await at.us.until(N, pid, lambda p: p.in_flight is None and p.state == "REQUESTED")
        letter = (await letters(at))[pid]
        assert letter["move"] == Move.CONTRACT_AGREEMENT
        await at.us.asked("DELETE", f"/datasets/{DATASET}", status=204)
        answer = await at.us.manage("POST", f"/dead-letters/{letter['id']}/replay", {})
        assert answer.status == 409
        assert "is not on offer any more" in answer.json["detail"]
        told = await at.peer.heard("/termination")
        ended = await at.us.state(N, pid, "TERMINATED")
        assert told["reason"] == ended.detail["reasons"]
        assert await letters(at) == {}
        assert len([path for _, path, _ in at.peer.calls if path.endswith("/agreement")]) == 1


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.asyncio
async def test_a_start_that_nobody_took_is_sent_again_only_if_it_is_permitted_then(hurried: Desk, closed: bool):
    at = hurried
    await at.us.publish(DATASET)
    process, agreed = await standing(at, T, "SUSPENDED", P)
    with scripted(at.peer, refusing(422, 1)):
        await at.us.asked("POST", f"/transfers/{process.pid}/resume", {})
        letter = await dead(at, process)
    assert letter["move"] == Move.START
    if not closed:
        await at.us.asked("POST", f"/dead-letters/{letter['id']}/replay", {})
        started = await at.us.state(T, process.pid, "STARTED")
        assert started.due == started.detail["claims_expire"], "and it is decided on again in time"
        return
    over = replace(agreed, closed=1.0, closed_by="us", reason="over", version=1)
    await at.us.connector.store.commit(Changes(saves=(over,)))  # as another program would
    answer = await at.us.manage("POST", f"/dead-letters/{letter['id']}/replay", {})
    assert (answer.status, "the transfer ends with this reason" in answer.json["detail"]) == (409, True)
    told = await at.peer.heard("/termination")
    assert told["code"] == "AGREEMENT_CLOSED"
    await at.us.state(T, process.pid, "TERMINATED")
    assert await letters(at) == {}


@pytest.mark.asyncio
async def test_a_start_that_is_sent_again_under_another_rule_counts_under_that_and_its_decision_is_on_record(hurried: Desk):
    at = hurried
    await at.us.publish(DATASET)
    process, agreed = await standing(at, T, "SUSPENDED", P)
    with scripted(at.peer, refusing(422, 1)):
        await at.us.asked("POST", f"/transfers/{process.pid}/resume", {})
        letter = await dead(at, process)
    counted = {"leftOperand": "odrl:count", "operator": "lteq", "rightOperand": {"@value": "3", "@type": "xsd:integer"}}
    limited = agreed.document | {"permission": [{"action": "use", "constraint": [counted]}]}
    await at.us.connector.store.commit(Changes(saves=(replace(agreed, document=limited, digest=wire.digest(limited), version=1),)))
    await at.us.asked("POST", f"/dead-letters/{letter['id']}/replay", {})
    started = await at.us.state(T, process.pid, "STARTED")
    usage = await at.us.connector.store.usage(agreed.id) or Usage(agreed.id)
    assert usage.spent("/permission/0", "http://www.w3.org/ns/odrl/2/count") == 1
    (again,) = [each for each in await at.us.evidence(process.pid) if each.what == telemetry.REPLAYED]
    assert again.detail["digests"] == {"decision": write_bytes(digest_of(started.detail["decision"]))}


@pytest.mark.asyncio
async def test_a_dead_letter_whose_process_has_moved_on_is_not_sent_but_can_be_dropped(hurried: Desk):
    at, (process, agreed) = hurried, await standing_alone(hurried)
    with scripted(at.peer, refusing(422, 1)):
        await at.us.asked("POST", f"/transfers/{process.pid}/suspend", SUSPEND)
        letter = await dead(at, process)
    assert (await say(at, Move.COMPLETION, process, agreed)).json["state"] == "COMPLETED"
    answer = await at.us.manage("POST", f"/dead-letters/{letter['id']}/replay", {})
    assert (answer.status, f"`connector discard {letter['id']}` drops it" in answer.json["detail"]) == (409, True), answer.json
    assert (await at.us.manage("DELETE", f"/dead-letters/{letter['id']}")).status in (200, 204)
    assert process.pid not in await letters(at)
    assert (await at.us.manage("DELETE", f"/dead-letters/{letter['id']}")).status == 404
    assert [e.what for e in await at.us.evidence(process.pid)][-1] == telemetry.DISCARDED


# Put off, and taken up again


@pytest.mark.asyncio
async def test_what_was_put_off_is_done_when_it_is_due_and_not_if_the_process_has_changed(tmp_path: Path):
    async with desk(tmp_path / "desk", approver=Automatic(0.6)) as at:  # by then the other one is ended, on a busy machine too
        await at.us.publish(DATASET)
        terms = await offer_terms(at)
        one, other = (request(terms, at, fresh()) for _ in range(2))
        begun = time.monotonic()
        first = await at.peer.send(at.us, "POST", "/negotiations/request", one)
        second = await at.peer.send(at.us, "POST", "/negotiations/request", other)
        rows = await at.us.connector.store.open_outbox()
        pid = second.json["providerPid"]
        ended = wire.message(Move.CONTRACT_TERMINATION, consumer_pid=other["consumerPid"], provider_pid=pid, code="X", reason=["no"])
        assert (await at.peer.send(at.us, "POST", f"/negotiations/{pid}/termination", ended)).status == 200
        await at.us.state(N, first.json["providerPid"], "AGREED")
        assert time.monotonic() - begun >= 0.6
        await at.us.until(N, pid, lambda p: p.state == "TERMINATED")
        (row,) = [row for row in rows if row.pid == pid]
        await settled(at, row.id)
        assert [path for _, path, _ in at.peer.calls] == [f"/negotiations/{one['consumerPid']}/agreement"]


@pytest.mark.asyncio
async def test_a_start_that_was_put_off_is_made_only_if_it_is_permitted_when_it_is_due(tmp_path: Path):
    async with desk(tmp_path / "desk", approver=Automatic(0.15)) as at:
        await at.us.publish(DATASET)
        agreed = agreement(at.us, at.peer, P, dataset=DATASET)
        await at.us.connector.journal.commit(Changes(saves=(agreed,)))
        body = {"agreementId": agreed.id, "format": "HttpData-PULL", "callbackAddress": at.peer.site.base}
        asked = wire.message(Move.TRANSFER_REQUEST, consumer_pid=fresh("theirs"), **body)
        pid = (await at.peer.send(at.us, "POST", "/transfers/request", asked)).json["providerPid"]
        over = replace(agreed, closed=1.0, closed_by="us", reason="over", version=1)
        await at.us.connector.store.commit(Changes(saves=(over,)))
        assert (await at.peer.heard("/termination"))["code"] == "AGREEMENT_CLOSED"
        await at.us.state(T, pid, "TERMINATED")
        assert not [path for _, path, _ in at.peer.calls if path.endswith("/start")]


@pytest.mark.asyncio
async def test_after_a_restart_what_was_open_is_delivered_and_asked_about_first(tmp_path: Path):
    """The connector stops while nobody takes its message. It cannot know what the peer has seen, so it asks."""
    async with desk(tmp_path / "desk", store="sqlite") as at:
        process, _ = await standing_alone(at)
        with scripted(at.peer, refusing(503, 99)):
            await at.us.asked("POST", f"/transfers/{process.pid}/suspend", SUSPEND)
            await at.peer.heard("/suspension")
            await at.us.connector.close()
            before = len(at.peer.calls)
        async with running(at.us.site, approver=Never()) as again:
            await again.state(T, process.pid, "SUSPENDED")
        assert [method for method, _, _ in at.peer.calls[before:]] == ["GET", "POST"]


@pytest.mark.asyncio
async def test_a_row_whose_process_is_gone_is_settled_without_a_word(hurried: Desk):
    at = hurried
    now = at.us.connector.journal.clock.now()
    row = Outbound(fresh(), fresh(), T, at.peer.id, "deliver", Move.SUSPENSION, "/transfers/x/suspension", b"{}", now, now + 60, now)
    before = len(at.peer.calls)
    await at.us.connector.journal.commit(Changes(outbox=(row,)))
    await settled(at, row.id)
    assert len(at.peer.calls) == before
