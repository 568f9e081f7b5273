"""What the outbox keeps to when peers are hostile, away or many: back-off, doubts, pids of others, and defects of our own."""

import asyncio
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from connector import telemetry
from connector.control import outbox
from connector.dsp import wire
from connector.dsp.messages import Kind, Move
from connector.records import Changes
from connector.settings.fields import DeliverySettings
from tests.control.stand import DATASET, SUSPEND, C, N, P, T, offer_terms, scripted, standing
from tests.pair import OPEN, WAIT_SECONDS, Desk, Script, desk, fresh


async def begun(at: Desk) -> str:
    """A negotiation of ours, as consumer, whose request is on its way."""
    body = {"peer": at.peer.id, "dataset": DATASET, "policy": OPEN | {"@id": fresh("offer")}}
    return str((await at.us.asked("POST", "/negotiations", body, status=201))["pid"])


def always(status: int) -> Script:
    return lambda method, _path, _document: (status, None) if method == "POST" else None


@pytest.mark.asyncio
async def test_errors_of_a_peer_are_no_sign_of_life_however_many_messages_wait_for_it(tmp_path: Path):
    many, seconds = 15, 1.0
    delivery = DeliverySettings(first_retry_seconds=0.4, retry_seconds_max=5.0)
    async with desk(tmp_path / "desk", delivery=delivery) as at:
        at.peer.script = always(503)
        for _ in range(many):
            await begun(at)
        await asyncio.sleep(seconds)  # the time over which attempts are counted
        posts = sum(method == "POST" for method, _, _ in at.peer.calls)
    # The pauses are at least 0.2, 0.4, 0.8 s and so on: four attempts of each in the first second and a half.
    assert many <= posts <= 4 * many


@pytest.mark.asyncio
async def test_a_404_is_believed_after_its_time_and_not_after_a_burst(tmp_path: Path):
    delivery = DeliverySettings(first_retry_seconds=0.01, retry_seconds_max=0.05, doubt_seconds=1.0)
    async with desk(tmp_path / "desk", delivery=delivery) as at:
        began, many = time.monotonic(), 8
        with scripted(at.peer, always(404)):
            pids = [await begun(at) for _ in range(many)]
            for pid in pids:
                ended = await at.us.state(N, pid, "TERMINATED")
                assert ended.detail["ended_by"] == "peer"
            assert time.monotonic() - began >= 1.0


@pytest.mark.asyncio
async def test_a_peer_that_does_not_take_who_we_are_by_a_clock_that_is_an_hour_from_ours_is_told_again(tmp_path: Path):
    delivery = DeliverySettings(first_retry_seconds=0.01, retry_seconds_max=0.02, doubt_seconds=0.0)
    async with desk(tmp_path / "desk", delivery=delivery) as at:
        left = [3600.0, -3600.0] * 6  # more than a refusal that is believed has to come

        def wrong(method: str, path: str, _document: dict[str, Any]) -> Any:
            if method != "POST" or not path.endswith("/negotiations/request") or not left:
                return None
            return 401, None, {"Date": formatdate(time.time() + left.pop(), usegmt=True)}

        with scripted(at.peer, wrong):
            pid = await begun(at)
            await at.us.state(N, pid, "REQUESTED")
        assert left == []


@pytest.mark.asyncio
async def test_a_peer_that_names_a_time_is_left_alone_for_it(tmp_path: Path):
    async with desk(tmp_path / "desk", delivery=DeliverySettings(first_retry_seconds=0.01, retry_seconds_max=10.0)) as at:
        await at.us.publish(DATASET)
        process, _ = await standing(at, T, "STARTED", P)
        times: list[float] = []

        def busy(method: str, _path: str, _document: dict[str, Any]) -> Any:
            if method == "POST":
                times.append(time.monotonic())
                if len(times) == 1:
                    return 429, None, {"Retry-After": "1"}
            return None

        with scripted(at.peer, busy):
            await at.us.asked("POST", f"/transfers/{process.pid}/suspend", SUSPEND)
            await at.us.state(T, process.pid, "SUSPENDED")
    assert times[1] - times[0] >= 1.0


@pytest.mark.asyncio
async def test_a_pid_that_the_peer_gave_twice_ends_the_second_process_with_a_reason(tmp_path: Path):
    async with desk(tmp_path / "desk") as at:
        theirs = fresh("twice")

        def twice(method: str, path: str, document: dict[str, Any]) -> Any:
            if path.endswith("/negotiations/request"):
                return 201, wire.process_document(Kind.NEGOTIATION, document["consumerPid"], theirs, "REQUESTED")
            return None

        with scripted(at.peer, twice):
            first, second = await begun(at), await begun(at)
            states = {first: "", second: ""}
            async with asyncio.timeout(WAIT_SECONDS):
                for pid in states:
                    settled = await at.us.until(N, pid, lambda p: p.in_flight is None)
                    states[pid] = settled.state
            assert sorted(states.values()) == ["REQUESTED", "TERMINATED"]
            ended = next(pid for pid, state in states.items() if state == "TERMINATED")
            view = await at.us.asked("GET", f"/negotiations/{ended}")
            assert "that of another negotiation" in str(view["reasons"])


@pytest.mark.parametrize(("pid", "status"), [("taken", 400), ("x" * 5000, 400), ("é", 400)])
@pytest.mark.asyncio
async def test_a_message_that_overtakes_the_answer_to_our_first_one_brings_a_pid_that_can_be_used(pid: str, status: int, tmp_path: Path):
    async with desk(tmp_path / "desk", delivery=DeliverySettings(first_retry_seconds=5.0)) as at:
        await at.us.publish(DATASET)
        other, _ = await standing(at, N, "REQUESTED", C)
        with scripted(at.peer, always(503)):
            ours = await begun(at)
            await at.peer.heard("/negotiations/request")
            theirs = other.peer_pid if pid == "taken" else pid
            offer = {"offer": await offer_terms(at)}
            body = wire.message(Move.CONTRACT_OFFER, consumer_pid=ours, provider_pid=theirs, **offer)
            answer = await at.peer.send(at.us, "POST", f"/negotiations/{ours}/offers", body)
            assert answer.status == status, answer.body
            process = await at.us.connector.store.process(N, ours)
            assert process is not None
            assert (process.state, process.peer_pid) == ("INITIAL", None)
            body = wire.message(Move.CONTRACT_OFFER, consumer_pid=ours, provider_pid=fresh("theirs"), **offer)
            assert (await at.peer.send(at.us, "POST", f"/negotiations/{ours}/offers", body)).status == 200


@pytest.mark.asyncio
async def test_a_defect_on_the_way_of_a_message_does_not_strand_it(tmp_path: Path):
    async with desk(tmp_path / "desk") as at:
        await at.us.publish(DATASET)
        process, _ = await standing(at, T, "STARTED", P)
        left = 2

        async def breaks_twice(changes: Changes) -> Any:
            nonlocal left
            if changes.settled and left:
                left -= 1
                raise ZeroDivisionError("a defect")
            store = at.us.connector.store
            return await type(store).commit(store, changes)

        with at.us.commits(breaks_twice):
            await at.us.asked("POST", f"/transfers/{process.pid}/suspend", SUSPEND)
            await at.us.state(T, process.pid, "SUSPENDED")
        assert left == 0


@pytest.mark.asyncio
async def test_whoever_asks_sees_what_a_peer_has_just_acknowledged_without_waiting_for_its_next_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(outbox, "NEXT_WORD_SECONDS", 2 * WAIT_SECONDS)
    async with desk(tmp_path / "desk") as at:
        await at.us.publish(DATASET)
        for look in ("operator", "peer"):
            pid = await begun(at)
            await at.peer.heard("/negotiations/request", 1 if look == "operator" else 2)
            async with asyncio.timeout(WAIT_SECONDS / 2):
                while True:
                    if look == "operator":
                        state = (await at.us.asked("GET", f"/negotiations/{pid}"))["state"]
                    else:
                        answer = await at.peer.send(at.us, "GET", f"/negotiations/{pid}")
                        state = answer.json["state"] if answer.status == 200 else "INITIAL"
                    if state == "REQUESTED":
                        break
            traces = {row.what: row.detail["trace"] for row in await at.us.evidence(pid)}
            assert traces[telemetry.ACKNOWLEDGED] == traces[telemetry.SENT], "the trace is that of the message, and not of who asks"


@pytest.mark.asyncio
async def test_the_peers_next_word_spares_the_note_of_its_answer(tmp_path: Path):
    async with desk(tmp_path / "desk") as at:
        await at.us.publish(DATASET)
        pid = await begun(at)
        await at.peer.heard("/negotiations/request")
        body = wire.message(Move.CONTRACT_OFFER, consumer_pid=pid, provider_pid=fresh("theirs"), offer=await offer_terms(at))
        assert (await at.peer.send(at.us, "POST", f"/negotiations/{pid}/offers", body)).status == 200
        await at.us.state(N, pid, "OFFERED")
        assert [row.what for row in await at.us.evidence(pid)] == [telemetry.SENT, telemetry.IMPLIED, telemetry.RECEIVED]


@pytest.mark.asyncio
async def test_what_an_operator_ends_just_after_its_beginning_is_told_to_the_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outbox, "NEXT_WORD_SECONDS", 2 * WAIT_SECONDS)
    async with desk(tmp_path / "desk") as at:
        await at.us.publish(DATASET)
        pid = await begun(at)
        await at.peer.heard("/negotiations/request")
        async with asyncio.timeout(WAIT_SECONDS):
            while pid not in vars(at.us.connector.journal)["_held"]:  # noqa: ASYNC110 - nothing says when a note is put off
                await asyncio.sleep(0.001)
        await at.us.asked("POST", f"/negotiations/{pid}/terminate", {"reason": "a mistake"})
        assert (await at.peer.heard("/termination"))["reason"] == ["a mistake"]
        await at.us.state(N, pid, "TERMINATED")
