"""That every message of ours arrives, once: attempts, questions before a resend, back-off, dead letters, and recovery."""

import asyncio
import io
import itertools
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from connector import telemetry
from connector.adapters import keys
from connector.adapters.clock import SystemClock
from connector.control import outbox
from connector.dsp import answers, wire
from connector.dsp.messages import Kind, Move
from connector.remembered import pause_seconds
from connector.settings.fields import DeliverySettings
from connector.values import replace
from tests.control.stand import DATASET, SUSPEND, C, N, P, T, dead, facts, letters, refusing, said, say, scripted, standing, suspended
from tests.pair import OPEN, WAIT_SECONDS, Desk, agreement, desk, fresh, transfer


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def at(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """A connector that never acts by itself, with a dataset on offer."""
    async with desk(tmp_path_factory.mktemp("outbox") / "desk") as opened:
        await opened.us.publish(DATASET)
        yield opened


# Attempts


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_peer_that_cannot_take_it_now_gets_it_again(at: Desk, status: int):
    process, _ = await standing(at, T, "STARTED", P)
    with scripted(at.peer, refusing(status, 3)):
        await suspended(at, process)
    assert said(at.peer, process) == ["POST suspension", "GET"] * 3 + ["POST suspension"]
    assert await facts(at, process) == [telemetry.SENT, telemetry.ACKNOWLEDGED]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("at_commit", "after"), [(3600.0, 0.0), (0.0, 10 * 86_400.0)], ids=["before the first attempt", "after it"])
async def test_a_clock_that_is_set_back_puts_off_no_message_and_one_that_is_set_forward_ends_none(
    at: Desk, monkeypatch: pytest.MonkeyPatch, at_commit: float, after: float
):
    process, _ = await standing(at, T, "STARTED", P)
    shift = [at_commit]
    monkeypatch.setattr(SystemClock, "now", lambda _: time.time() + shift[0])
    at.us.connector.journal.listen(lambda *_: shift.__setitem__(0, min(shift[0], 0.0)))
    refuse = refusing(503, 2)

    def script(method: str, path: str, document: dict[str, Any]) -> Any:
        shift[0] = after
        return refuse(method, path, document)

    with scripted(at.peer, script):
        await suspended(at, process)


@pytest.mark.asyncio(loop_scope="module")
async def test_every_attempt_and_every_question_carries_a_token_of_its_own(at: Desk):
    process, _ = await standing(at, T, "STARTED", P)
    first = len(at.peer.headers)
    with scripted(at.peer, refusing(503, 3)):
        await suspended(at, process)
    tokens = [headers["Authorization"] for headers in at.peer.headers[first:]]
    assert len(tokens) == 7
    assert len(set(tokens)) == 7
    for token in tokens:
        assert (await at.peer.identity.verify(token)).participant.id == at.us.site.id


@pytest.mark.asyncio(loop_scope="module")
async def test_every_attempt_at_a_start_carries_a_data_address_of_its_own(at: Desk):
    process, _ = await standing(at, T, "SUSPENDED", P)
    with scripted(at.peer, refusing(503, 2)):
        await at.us.asked("POST", f"/transfers/{process.pid}/resume", {})
        await at.us.state(T, process.pid, "STARTED")
    addresses = [document["dataAddress"] for method, path, document in at.peer.calls if f"{process.peer_pid}/start" in path]
    tokens = {p["value"] for a in addresses for p in a["endpointProperties"] if p["name"] == "authorization"}
    assert (len(addresses), len(tokens)) == (3, 3)
    rows = await at.us.connector.store.evidence_of(process.pid)
    assert not any(token in repr(rows) for token in tokens), "tokens stand in no record"


@pytest.mark.asyncio
async def test_pauses_between_attempts_grow_up_to_a_bound_and_are_jittered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first, longest, meant = 0.02, 0.2, list[float]()

    def noted(*of: Any, **more: Any) -> float:
        meant.append(pause_seconds(*of, **more))
        return meant[-1]

    monkeypatch.setattr(outbox, "pause_seconds", noted)
    delivery = DeliverySettings(first_retry_seconds=first, retry_seconds_max=longest)
    async with desk(tmp_path / "desk", delivery=delivery) as at:
        await at.us.publish(DATASET)
        process, _ = await standing(at, T, "STARTED", P)
        times, take = list[float](), refusing(503, 8)

        def script(method: str, path: str, document: dict[str, Any]) -> Any:
            if method == "POST":
                times.append(time.monotonic())
            return take(method, path, document)

        with scripted(at.peer, script):
            await suspended(at, process)
    bounds = [min(longest, first * 2**attempt) for attempt in range(1, 9)]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(bound / 4 <= pause <= bound for pause, bound in zip(meant, bounds, strict=True))
    assert any(pause < bound * 0.95 for pause, bound in zip(meant, bounds, strict=True)), "not always the whole pause"
    assert all(pause >= at_least for pause, at_least in zip(pauses, meant, strict=True)), "and that is what it waits"


@pytest.mark.asyncio
async def test_any_sign_of_life_of_the_peer_ends_the_pause(tmp_path: Path):
    """Fourteen pauses come to a minute at least. The peer speaks all the while about something else, and they come to nothing."""
    delivery = DeliverySettings(first_retry_seconds=0.01, retry_seconds_max=3600)
    async with desk(tmp_path / "desk", delivery=delivery) as at:
        await at.us.publish(DATASET)
        process, _ = await standing(at, T, "STARTED", P)

        async def chatter() -> None:
            while True:
                await at.peer.send(at.us, "GET", f"/transfers/{fresh()}")

        with scripted(at.peer, refusing(503, 14)):
            talking = asyncio.create_task(chatter())
            await suspended(at, process)
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)
    assert said(at.peer, process).count("POST suspension") == 15


@pytest.mark.asyncio(loop_scope="module")
async def test_a_start_that_has_not_arrived_is_held_back_while_there_is_nothing_to_start(at: Desk):
    await at.us.publish("urn:test:comes-and-goes")
    elsewhere = agreement(at.us, at.peer, P, dataset="urn:test:comes-and-goes")
    gone = await at.us.put(transfer(at.us, at.peer, "SUSPENDED", P, elsewhere), elsewhere)
    with scripted(at.peer, lambda method, path, _: (503, None) if path.endswith(f"{gone.peer_pid}/start") else None):
        await at.us.asked("POST", f"/transfers/{gone.pid}/resume", {})
        await at.peer.heard(f"/{gone.peer_pid}/start")
        await at.us.asked("DELETE", f"/datasets/{elsewhere.dataset}", status=204)
        await at.us.until(T, gone.pid, lambda p: p.halted and p.in_flight is Move.START)
        async with asyncio.timeout(WAIT_SECONDS):
            while "no longer published" not in str((view := await at.us.asked("GET", f"/transfers/{gone.pid}"))["last_error"]):
                pass
        heard = len(at.peer.calls)
    assert view["decision"]["code"] == "dataset-withdrawn"
    await at.peer.heard(f"/transfers/{gone.peer_pid}", 3)  # the questions before further attempts
    assert "POST start" not in [f"{method} {path.rpartition('/')[2]}" for method, path, _ in at.peer.calls[heard:]]
    await at.us.publish(elsewhere.dataset)
    started = await at.us.state(T, gone.pid, "STARTED")
    assert (started.halted, started.meant, "held" in started.detail) == (False, "STARTED", False)


@pytest.mark.asyncio
async def test_without_a_valid_key_a_message_waits_for_one_and_goes_on_without_a_restart(tmp_path: Path):
    async with desk(tmp_path / "desk") as at:
        await at.us.publish(DATASET)
        process, _ = await standing(at, T, "STARTED", P)
        directory = at.us.site.settings.keys.directory
        (file,) = directory.glob("*.key")
        keys.retire(directory, file.stem, time.time() - 60)
        await at.us.asked("POST", "/reload", {})
        await at.us.asked("POST", f"/transfers/{process.pid}/suspend", SUSPEND)
        async with asyncio.timeout(WAIT_SECONDS):
            while (view := await at.us.asked("GET", f"/transfers/{process.pid}"))["last_error"] is None:
                pass
        assert "is valid now; make a new one" in view["last_error"]
        keys.generate(directory, time.time() - 1)
        await at.us.asked("POST", "/reload", {})
        await at.us.state(T, process.pid, "SUSPENDED")
    assert said(at.peer, process)[-1] == "POST suspension"


# The question before a resend


@pytest.mark.asyncio(loop_scope="module")
async def test_a_peer_that_has_taken_our_message_does_not_get_it_again(at: Desk):
    process, _ = await standing(at, T, "STARTED", P)
    at.peer.states[str(process.peer_pid)] = "SUSPENDED"
    with scripted(at.peer, refusing(503, 1)):
        await suspended(at, process)
    assert said(at.peer, process) == ["POST suspension", "GET"]
    assert await facts(at, process) == [telemetry.SENT, telemetry.IMPLIED]
    assert (await at.us.asked("GET", f"/transfers/{process.pid}"))["last_error"] is None, "what failed on the way is over"


@pytest.mark.parametrize(("reported", "state"), [("SUSPENDED", "SUSPENDED"), ("TERMINATED", "TERMINATED")])
@pytest.mark.asyncio(loop_scope="module")
async def test_what_the_peer_reports_settles_a_message_also_if_the_process_was_written_for_another_reason_meanwhile(
    at: Desk, reported: str, state: str
):
    process, _ = await standing(at, T, "STARTED", P)
    at.peer.states[str(process.peer_pid)] = reported
    refuse = refusing(503, 1)

    async def meanwhile(method: str, path: str, document: dict[str, Any]) -> Any:
        if method == "GET":
            current = await at.us.connector.store.process(T, process.pid)
            assert current is not None
            await at.us.put(replace(current, detail=dict(current.detail) | {"noted": True}))
        return refuse(method, path, document)

    with scripted(at.peer, meanwhile):
        await at.us.asked("POST", f"/transfers/{process.pid}/suspend", SUSPEND)
        settled = await at.us.state(T, process.pid, state)
    assert settled.detail["noted"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_peer_that_has_not_taken_our_message_gets_it_again(at: Desk):
    process, _ = await standing(at, T, "STARTED", P)
    at.peer.states[str(process.peer_pid)] = "STARTED"
    with scripted(at.peer, refusing(503, 2)):
        await suspended(at, process)
    assert said(at.peer, process) == ["POST suspension", "GET"] * 2 + ["POST suspension"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_peer_that_has_ended_the_process_ends_it_here(at: Desk):
    process, _ = await standing(at, T, "STARTED", P)
    at.peer.states[str(process.peer_pid)] = "TERMINATED"
    with scripted(at.peer, refusing(503, 1)):
        await at.us.asked("POST", f"/transfers/{process.pid}/suspend", SUSPEND)
        ended = await at.us.state(T, process.pid, "TERMINATED")
    assert (ended.detail["code"], ended.detail["ended_by"]) == ("ended-by-peer", "peer")
    assert ended.detail["reasons"]
    assert said(at.peer, process) == ["POST suspension", "GET"]
    assert process.pid not in await letters(at)


@pytest.mark.parametrize(
    ("kind", "state", "call", "reported"),
    [
        pytest.param(T, "STARTED", "suspend", "COMPLETED", id="transfer"),
        pytest.param(N, "REQUESTED", "approve", "FINALIZED", id="negotiation"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_states_that_still_differ_end_in_a_termination_with_a_reason_and_an_alarm(
    at: Desk, capsys: pytest.CaptureFixture[str], kind: Kind, state: str, call: str, reported: str
):
    process, _ = await standing(at, kind, state, P)
    at.peer.states[str(process.peer_pid)] = reported
    capsys.readouterr()
    with scripted(at.peer, lambda method, path, _: (503, None) if method == "POST" and not path.endswith("/termination") else None):
        await at.us.asked("POST", f"/{kind}s/{process.pid}/{call}", SUSPEND if kind is T else {})
        ended = await at.us.state(kind, process.pid, "TERMINATED")
        told = await at.peer.heard(f"{process.peer_pid}/termination")
    assert told["code"] == ended.detail["code"] == "states-differ"
    assert told["reason"] == ended.detail["reasons"]
    assert state in told["reason"][0]
    assert telemetry.DIVERGED in [e.what for e in await at.us.evidence(process.pid)]
    assert '"states diverged"' in capsys.readouterr().err
    assert said(at.peer, process).count("GET") >= 2, "once may be a message on its way"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_peer_that_refuses_ours_while_it_waits_for_our_answer_to_its_own_is_given_the_time_to_send_it_again(
    at: Desk, monkeypatch: pytest.MonkeyPatch
):
    """So does Eclipse EDC: until its resume has been answered it stands where it was, and it sends that again after a second."""
    monkeypatch.setattr(answers, "DOUBTFUL", dict.fromkeys(answers.DOUBTFUL, 1e6))
    process, _ = await standing(at, T, "STARTED", P)

    def script(method: str, _path: str, _document: dict[str, Any]) -> Any:
        lags = said(at.peer, process).count("GET") < 4
        if method == "POST":
            return (409, None) if lags else None
        return 200, wire.process_document(T, process.consumer_pid, process.provider_pid, "COMPLETED" if lags else "STARTED")

    with scripted(at.peer, script):
        await suspended(at, process)
    assert telemetry.DIVERGED not in [e.what for e in await at.us.evidence(process.pid)]


@pytest.mark.asyncio(loop_scope="module")
async def test_one_strange_state_that_is_right_the_next_time_does_no_harm(at: Desk):
    process, _ = await standing(at, T, "STARTED", P)
    states = iter(["COMPLETED", "STARTED", "COMPLETED"])

    def script(method: str, _path: str, _document: dict[str, Any]) -> Any:
        if method == "POST":
            return (503, None) if len(said(at.peer, process)) < 7 else None
        return 200, wire.process_document(T, process.consumer_pid, process.provider_pid, next(states))

    with scripted(at.peer, script):
        await suspended(at, process)
    assert telemetry.DIVERGED not in [e.what for e in await at.us.evidence(process.pid)]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_peer_that_still_lacks_our_answer_to_its_last_message_is_not_taken_for_one_with_another_state(at: Desk):
    """It said its start and has not heard that we took it, so it reports the state before; our suspension is its answer."""
    process, agreed = await standing(at, T, "SUSPENDED", C)
    assert (await say(at, Move.START, process, agreed)).json["state"] == "STARTED"
    at.peer.states[str(process.peer_pid)] = "SUSPENDED"
    with scripted(at.peer, refusing(503, 3)):
        await suspended(at, process)
    assert said(at.peer, process) == ["POST suspension", "GET"] * 3 + ["POST suspension"], "nor for one that has taken our suspension"


@pytest.mark.parametrize(
    "answer",
    [(500, None), (404, None), (200, None), (200, {"state": 7}), (200, {})],
    ids=["error", "unknown", "no body", "no text", "no state"],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_peer_that_cannot_say_its_state_gets_the_message_again(at: Desk, answer: Any):
    process, _ = await standing(at, T, "STARTED", P)
    refuse = refusing(503, 2)
    with scripted(at.peer, lambda method, path, document: answer if method == "GET" else refuse(method, path, document)):
        await suspended(at, process)
    assert said(at.peer, process) == ["POST suspension", "GET"] * 2 + ["POST suspension"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_state_may_come_as_an_iri(at: Desk):
    process, _ = await standing(at, T, "STARTED", P)
    at.peer.states[str(process.peer_pid)] = "https://w3id.org/dspace/2025/1/SUSPENDED"
    with scripted(at.peer, refusing(503, 1)):
        await suspended(at, process)
    assert said(at.peer, process) == ["POST suspension", "GET"]


@pytest.mark.asyncio(loop_scope="module")
async def test_whoever_wants_to_see_each_message_has_it_in_the_log_at_debug_without_a_secret(at: Desk):
    process, agreed = await standing(at, T, "STARTED", P)
    out = io.StringIO()
    telemetry.configure_logging("debug", "json", out)
    try:
        with scripted(at.peer, refusing(503, 1)):
            await suspended(at, process)
        assert (await say(at, Move.START, process, agreed)).status == 200
    finally:
        telemetry.configure_logging("info", "json")
    lines = [orjson.loads(line) for line in out.getvalue().splitlines()]
    seen = [(line["event"], line["move"], line["peer"]) for line in lines if line.get("pid") == process.pid]
    assert seen[:2] == [("message not taken", Move.SUSPENSION, at.peer.id), ("message delivered", Move.SUSPENSION, at.peer.id)]
    assert ("message taken", Move.START, at.peer.id) in seen
    assert "503" in next(line["why"] for line in lines if line["event"] == "message not taken")
    assert "eyJ" not in out.getvalue(), "no token of either side"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_message_that_is_not_taken_again_and_again_is_in_the_log_of_everybody_and_does_not_fill_it(at: Desk):
    process, _ = await standing(at, T, "STARTED", P)
    out = io.StringIO()
    telemetry.configure_logging("info", "json", out)
    try:
        with scripted(at.peer, refusing(503, 9)):
            await suspended(at, process)
    finally:
        telemetry.configure_logging("info", "json")
    told = [line for line in map(orjson.loads, out.getvalue().splitlines()) if line["event"] == "message not taken"]
    assert [(line["attempt"], line["pid"], "503" in line["why"]) for line in told] == [(n, process.pid, True) for n in (4, 8)]


# Refusals


@pytest.mark.asyncio(loop_scope="module")
async def test_a_refusal_for_good_becomes_a_dead_letter_with_the_peers_reasons_and_changes_no_state(at: Desk):
    process, _ = await standing(at, T, "STARTED", P)
    error = wire.error_document(T, "no-way", ("not on a Sunday",), str(process.consumer_pid), str(process.provider_pid))
    with scripted(at.peer, refusing(422, 1, error)):
        await at.us.asked("POST", f"/transfers/{process.pid}/suspend", SUSPEND)
        letter = await dead(at, process)
    assert "not on a Sunday" in letter["error"]
    stored = await at.us.connector.store.process(T, process.pid)
    assert stored is not None
    assert (stored.state, stored.detail["code"], stored.detail["reasons"]) == ("STARTED", "no-way", ["not on a Sunday"])
    assert await facts(at, process) == [telemetry.SENT, telemetry.REFUSED, telemetry.DEAD]
    assert said(at.peer, process) == ["POST suspension"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409])
@pytest.mark.asyncio(loop_scope="module")
async def test_what_may_be_a_crossing_or_a_proxy_is_tried_again_before_it_counts(at: Desk, status: int):
    process, _ = await standing(at, T, "STARTED", P)
    with scripted(at.peer, refusing(status, 4)):
        await suspended(at, process)
    other, _ = await standing(at, T, "STARTED", P)
    with scripted(at.peer, refusing(status, 99)):
        await at.us.asked("POST", f"/transfers/{other.pid}/suspend", SUSPEND)
        letter = await dead(at, other)
    assert str(status) in letter["error"]
    assert said(at.peer, other).count("POST suspension") < 10


@pytest.mark.parametrize("status", [400, 404], ids=["as the standard says", "as Eclipse EDC says it of what it does not know"])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_refused_first_message_ends_the_process_with_the_peers_reasons(at: Desk, status: int):
    error = wire.error_document(N, "unknown-offer", ("no such offer",), "urn:a", "urn:b")
    with scripted(at.peer, refusing(status, 1, error)):
        body = {"peer": at.peer.id, "dataset": "urn:d", "offer": "urn:o", "policy": OPEN}
        begun = await at.us.asked("POST", "/negotiations", body, status=201)
        ended = await at.us.state(N, begun["pid"], "TERMINATED")
    assert (ended.detail["code"], ended.detail["reasons"], ended.detail["ended_by"]) == ("unknown-offer", ["no such offer"], "peer")
    assert begun["pid"] not in await letters(at), "there is nothing to be sent again"


@pytest.mark.parametrize("answer", [{}, {"providerPid": "urn:x"}, {"consumerPid": "urn:x"}, {"providerPid": "a b", "consumerPid": "urn:x"}])
@pytest.mark.asyncio(loop_scope="module")
async def test_an_acknowledgement_that_names_no_usable_pid_is_none(at: Desk, answer: dict[str, Any]):
    with scripted(at.peer, lambda _method, _path, _document: (201, answer)):
        body = {"peer": at.peer.id, "dataset": "urn:d", "offer": "urn:o", "policy": OPEN}
        begun = await at.us.asked("POST", "/negotiations", body, status=201)
        ended = await at.us.state(N, begun["pid"], "TERMINATED")
    assert ended.detail["code"] == "bad-answer"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_refused_termination_of_ours_ends_the_process_all_the_same(at: Desk):
    process, _ = await standing(at, T, "STARTED", P)
    with scripted(at.peer, refusing(400, 1)):
        await at.us.asked("POST", f"/transfers/{process.pid}/terminate", {"reason": "enough"})
        ended = await at.us.state(T, process.pid, "TERMINATED")
    assert (ended.detail["code"], ended.detail["reasons"], ended.detail["ended_by"]) == ("operator", ["enough"], "us")
    assert said(at.peer, process) == ["POST termination"]
    assert process.pid not in await letters(at)


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_termination_that_met_a_proxy_or_a_clock_instead_of_the_peer_is_said_again(at: Desk, status: int):
    process, _ = await standing(at, T, "STARTED", P)
    with scripted(at.peer, refusing(status, 3)):
        await at.us.asked("POST", f"/transfers/{process.pid}/terminate", {"reason": "enough"})
        await at.us.state(T, process.pid, "TERMINATED")
    assert [word for word in said(at.peer, process) if word.startswith("POST")] == ["POST termination"] * 4


@pytest.mark.asyncio(loop_scope="module")
async def test_a_termination_of_ours_overtakes_what_is_in_flight(at: Desk):
    process, _ = await standing(at, T, "STARTED", P)
    with scripted(at.peer, lambda _method, path, _document: (503, None) if path.endswith("/suspension") else None):
        await at.us.asked("POST", f"/transfers/{process.pid}/suspend", SUSPEND)
        await at.peer.heard(f"{process.peer_pid}/suspension")
        await at.us.asked("POST", f"/transfers/{process.pid}/terminate", {"reason": "enough"})
        await at.us.state(T, process.pid, "TERMINATED")
    assert process.pid not in {row.pid for row in await at.us.connector.store.open_outbox()}
    assert said(at.peer, process)[-1] == "POST termination"


@pytest.mark.asyncio(loop_scope="module")
async def test_the_answer_to_a_message_that_was_settled_meanwhile_changes_nothing(at: Desk):
    """The peer's next message is faster than its answer to ours; then that answer comes, and it is even an error."""
    process, agreed = await standing(at, N, "REQUESTED", P)
    reached, go = asyncio.Event(), asyncio.Event()

    async def slowly() -> tuple[int, None]:
        reached.set()
        await go.wait()
        return 400, None

    with scripted(at.peer, lambda _method, _path, _document: slowly()):
        await at.us.asked("POST", f"/negotiations/{process.pid}/approve", {})
        await reached.wait()
        assert (await say(at, Move.VERIFICATION, process, agreed)).json["state"] == "VERIFIED"
        go.set()
    await at.us.asked("POST", f"/negotiations/{process.pid}/terminate", {"reason": "to see the end of it"})
    await at.us.state(N, process.pid, "TERMINATED")
    assert [e.what for e in await at.us.evidence(process.pid)] == [
        telemetry.SENT, telemetry.IMPLIED, telemetry.RECEIVED, telemetry.SENT, telemetry.ACKNOWLEDGED,
    ]  # fmt: skip
    assert said(at.peer, process) == ["POST agreement", "POST termination"]
