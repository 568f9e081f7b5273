"""How each side of a transfer answers each message: who may begin one, what a start carries, and what ends it."""

import asyncio
import json
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from connector import telemetry
from connector.app import Automatic
from connector.control import transfers
from connector.control.transfers import Transfers
from connector.dsp import wire
from connector.dsp.exchange import Process
from connector.dsp.messages import Move
from connector.odrl import Code
from connector.records import Agreement, Changes
from connector.values import replace
from tests.control.stand import DATASET, SUSPEND, C, N, P, T, refusing, say, scripted, standing
from tests.pair import (
    ADDRESS,
    OPEN,
    SCHEMAS,
    Answer,
    Desk,
    Pair,
    agreement,
    desk,
    fresh,
    only_for,
    pair,
    purpose_policy,
    transfer,
    until_policy,
)  # fmt: skip

EDC_SAID: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data/edc/messages.json").read_text())


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def at(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """A connector that does at once what policy permits."""
    async with desk(tmp_path_factory.mktemp("transfers") / "desk", approver=Automatic(0)) as opened:
        await opened.us.publish(DATASET)
        yield opened


@pytest_asyncio.fixture
async def two(tmp_path: Path) -> AsyncIterator[Pair]:
    async with pair(tmp_path / "pair") as opened:
        yield opened


async def ask(at: Desk, agreed: Agreement, **members: Any) -> tuple[Answer, str]:
    """The peer requests a transfer under an agreement that is put into our store."""
    await at.us.connector.journal.commit(Changes(saves=(agreed,)))
    theirs = fresh("theirs")
    body = {"agreementId": agreed.id, "format": "HttpData-PULL", "callbackAddress": at.peer.site.base} | members
    return await at.peer.send(at.us, "POST", "/transfers/request", wire.message(Move.TRANSFER_REQUEST, consumer_pid=theirs, **body)), theirs


def token_of(document: dict[str, Any]) -> str:
    (token,) = [p["value"] for p in document["dataAddress"]["endpointProperties"] if p["name"] == "authorization"]
    return str(token)


async def fetched(at: Desk, document: dict[str, Any]) -> int:
    """The status that a data address gets at our data listener."""
    headers = {"Authorization": f"Bearer {token_of(document)}"}
    async with at.peer.http.get(document["dataAddress"]["endpoint"], headers=headers) as response:
        await response.read()
        return response.status


# Provider


@pytest.mark.asyncio(loop_scope="module")
async def test_who_has_a_final_agreement_gets_a_start_with_a_data_address_that_works(at: Desk):
    answer, theirs = await ask(at, agreement(at.us, at.peer, P, dataset=DATASET))
    assert (answer.status, answer.json["state"]) == (201, "REQUESTED")
    message = await at.peer.heard(f"/transfers/{theirs}/start")
    assert SCHEMAS.reasons("TransferStartMessage", message) == []
    started = await at.us.state(T, answer.json["providerPid"], "STARTED")
    assert (started.dataset, started.peer_pid) == (DATASET, theirs)
    assert await fetched(at, message) == 200


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"final": False}, id="not final"),
        pytest.param({"peer": "did:web:stranger.example", "consumer": "did:web:stranger.example"}, id="somebody else's"),
        pytest.param({"consumer": "did:web:hospital.example", "provider": "did:web:biopharma.example"}, id="one under which we consume"),
        pytest.param(None, id="unknown"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_an_agreement_that_is_not_the_callers_to_use_is_refused_alike_and_nothing_begins(at: Desk, changed: dict[str, Any] | None):
    agreed = replace(agreement(at.us, at.peer, P, dataset=DATASET), **(changed or {}))
    answer, theirs = await ask(at, agreed, **({} if changed else {"agreementId": "urn:nothing"}))
    assert (answer.status, SCHEMAS.reasons("TransferError", answer.json)) == (400, [])
    assert answer.json["code"] == "unknown-agreement"
    name = agreed.id if changed else "urn:nothing"
    assert answer.json["reason"] == [f"agreement `{name}` is not one that you may use: it is unknown, not finalized, or not with you"], (
        "no word tells which"
    )
    assert await at.us.connector.store.process_of_peer(T, at.peer.id, theirs) is None


@pytest.mark.parametrize("format", ["AmazonS3-PUSH", "AmazonS3-PULL", "", "httpdata-pull"])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_format_that_no_distribution_offers_is_refused_with_those_that_one_does(at: Desk, format: str):
    answer, theirs = await ask(at, agreement(at.us, at.peer, P, dataset=DATASET), format=format)
    assert (answer.status, answer.json["code"]) == (400, "format-not-offered")
    assert "`HttpData-PULL`" in answer.json["reason"][0]
    assert await at.us.connector.store.process_of_peer(T, at.peer.id, theirs) is None


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param(until_policy("2020-01-01T00:00:00Z"), id="over"),
        pytest.param(only_for("did:web:somebody.else"), id="for somebody else"),
        pytest.param({"permission": [{"action": "distribute"}]}, id="another action"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_the_agreement_does_not_permit_now_is_refused_with_its_reason_on_both_sides(at: Desk, policy: dict[str, Any]):
    answer, theirs = await ask(at, agreement(at.us, at.peer, P, dataset=DATASET, policy=policy))
    told = await at.peer.heard(f"/transfers/{theirs}/termination")
    ended = await at.us.state(T, answer.json["providerPid"], "TERMINATED")
    assert told["reason"]
    code, reasons = wire.reasons_of(told)
    assert (code, list(reasons)) == (ended.detail["code"], ended.detail["reasons"])
    assert list(wire.grounds_of(told)) == ended.detail["grounds"]
    assert ended.detail["decision"]["result"] != "permit"
    assert not [path for _, path, _ in at.peer.calls if path == f"/transfers/{theirs}/start"]


@pytest.mark.asyncio(loop_scope="module")
async def test_claims_decision_and_the_bound_of_the_policy_are_stored_with_the_process(at: Desk):
    agreed = agreement(at.us, at.peer, P, dataset=DATASET, policy=until_policy("2100-01-01T00:00:00Z"))
    answer, _ = await ask(at, agreed)
    started = await at.us.state(T, answer.json["providerPid"], "STARTED")
    assert started.detail["claims"] == at.peer.identity.own.claims
    assert started.detail["decision"]["result"] == "permit"
    assert started.detail["ends"] == 4102444800.0
    assert started.due == started.detail["claims_expire"] < time.time() + 86_400, "who vouches for the peer has to say so again"


@pytest.mark.asyncio(loop_scope="module")
async def test_the_purpose_of_the_agreement_is_the_purpose_of_the_transfer(at: Desk):
    answer, theirs = await ask(at, agreement(at.us, at.peer, P, dataset=DATASET, policy=purpose_policy("urn:p:care")))
    await at.peer.heard(f"/transfers/{theirs}/start")
    started = await at.us.state(T, answer.json["providerPid"], "STARTED")
    assert "urn:p:care" in str(started.detail["decision"]["facts"])


@pytest.mark.asyncio(loop_scope="module")
async def test_a_request_sent_three_times_is_one_transfer_that_is_started_once(at: Desk):
    agreed = agreement(at.us, at.peer, P, dataset=DATASET)
    await at.us.put(transfer(at.us, at.peer, "REQUESTED", P, agreed), agreed)
    theirs = fresh("theirs")
    body = wire.message(
        Move.TRANSFER_REQUEST, consumer_pid=theirs, agreementId=agreed.id, format="HttpData-PULL", callbackAddress=at.peer.site.base
    )
    first = await at.peer.send(at.us, "POST", "/transfers/request", body)
    await at.us.state(T, first.json["providerPid"], "STARTED")
    again = [await at.peer.send(at.us, "POST", "/transfers/request", body) for _ in range(2)]
    assert {(each.status, each.json["providerPid"], each.json["state"]) for each in again} == {(200, first.json["providerPid"], "STARTED")}
    assert [path for _, path, _ in at.peer.calls if theirs in path] == [f"/transfers/{theirs}/start"]


@pytest.mark.asyncio(loop_scope="module")
async def test_after_the_consumers_start_comes_one_of_ours_with_a_fresh_address_and_the_old_one_is_over(at: Desk):
    """Only a start of the provider can carry a data address."""
    answer, theirs = await ask(at, agreement(at.us, at.peer, P, dataset=DATASET))
    first = await at.peer.heard(f"/transfers/{theirs}/start")
    started = await at.us.state(T, answer.json["providerPid"], "STARTED")
    agreed = await at.us.connector.store.agreement(str(started.agreement))
    assert agreed is not None
    await say(at, Move.SUSPENSION, started, agreed)
    assert await fetched(at, first) in (401, 403)
    resumed = await say(at, Move.START, started, agreed)
    assert (resumed.status, resumed.json["state"]) == (200, "STARTED")
    second = await at.peer.heard(f"/transfers/{theirs}/start", 2)
    await at.us.state(T, started.pid, "STARTED")
    assert await fetched(at, second) == 200
    assert await fetched(at, first) in (401, 403), "the tokens of the start before"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_strict_peer_that_refuses_our_second_start_loses_nothing(at: Desk):
    answer, theirs = await ask(at, agreement(at.us, at.peer, P, dataset=DATASET))
    await at.peer.heard(f"/transfers/{theirs}/start")
    started = await at.us.state(T, answer.json["providerPid"], "STARTED")
    agreed = await at.us.connector.store.agreement(str(started.agreement))
    assert agreed is not None
    await say(at, Move.SUSPENSION, started, agreed)
    with scripted(at.peer, refusing(400, 99)):
        await say(at, Move.START, started, agreed)
        after = await at.us.state(T, started.pid, "STARTED")
    assert "ended_by" not in after.detail
    page = await at.us.asked("GET", "/dead-letters?limit=500")
    assert started.pid not in {letter["pid"] for letter in page["items"]}, "and nobody has to look at it"
    document = (await at.peer.heard(f"/transfers/{theirs}/start", 2))["dataAddress"]
    assert document, "what it was sent, it could have used"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_resume_after_the_end_of_the_agreement_is_refused_with_a_reason(at: Desk):
    ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60))
    agreed = agreement(at.us, at.peer, P, dataset=DATASET, policy=until_policy(ends))
    suspended = await at.us.put(transfer(at.us, at.peer, "SUSPENDED", P, agreed), agreed)
    await say(at, Move.START, suspended, agreed)
    told = await at.peer.heard(f"{suspended.peer_pid}/termination")
    assert told["reason"]
    await at.us.state(T, suspended.pid, "TERMINATED")


@pytest.mark.parametrize("move", [Move.SUSPENSION, Move.TRANSFER_TERMINATION])
@pytest.mark.asyncio(loop_scope="module")
async def test_why_the_peer_suspends_or_ends_is_what_an_operator_reads(at: Desk, move: Move):
    process, agreed = await standing(at, T, "STARTED", P)
    await say(at, move, process, agreed, code="C-7", reason=["the pump broke"])
    view = await at.us.asked("GET", f"/transfers/{process.pid}")
    assert (view["code"], view["reasons"], view["ended_by"]) == ("C-7", ["the pump broke"], "peer")
    assert (await at.us.evidence(process.pid))[-1].detail["reasons"] == ["the pump broke"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_reason_for_a_suspension_does_not_outlive_it(at: Desk):
    process, agreed = await standing(at, T, "STARTED", P)
    await say(at, Move.SUSPENSION, process, agreed)
    await say(at, Move.START, process, agreed)
    resumed = await at.us.state(T, process.pid, "STARTED")
    assert not {"code", "reasons", "ended_by"} & resumed.detail.keys()


# Consumer


async def requested(at: Desk) -> tuple[Process, Agreement]:
    agreed = agreement(at.us, at.peer, C)
    return await at.us.put(transfer(at.us, at.peer, "REQUESTED", C, agreed), agreed), agreed


@pytest.mark.asyncio(loop_scope="module")
async def test_a_provider_that_suspends_and_starts_again_leaves_no_refusal_behind(at: Desk):
    process, agreed = await standing(at, T, "STARTED", C)
    await say(at, Move.SUSPENSION, process, agreed)
    suspended = await at.us.state(T, process.pid, "SUSPENDED")
    assert suspended.detail["ended_by"] == "peer"
    await say(at, Move.START, process, agreed)
    resumed = await at.us.state(T, process.pid, "STARTED")
    assert not {"code", "reasons", "grounds", "ended_by"} & resumed.detail.keys()


@pytest.mark.asyncio(loop_scope="module")
async def test_the_data_address_of_a_start_is_kept_with_the_step(at: Desk):
    process, agreed = await requested(at)
    assert (await say(at, Move.START, process, agreed)).json["state"] == "STARTED"
    edr = await at.us.connector.store.edr(process.pid)
    assert edr is not None
    assert (edr.address, edr.access_token) == (ADDRESS, "secret-token")
    assert not any("secret-token" in repr(row) for row in await at.us.evidence(process.pid))


@pytest.mark.asyncio(loop_scope="module")
async def test_a_start_that_comes_again_under_its_id_brings_the_address_that_counts_and_leaves_our_suspension_alone(at: Desk):
    """Eclipse EDC mints one for each attempt, and the tokens of the attempt before may have ended with it."""
    process, agreed = await requested(at)
    started = {"@id": "urn:uuid:started", "dataAddress": EDC_SAID["started"]["dataAddress"]}
    assert (await say(at, Move.START, process, agreed, **started)).status == 200
    with scripted(at.peer, refusing(503, 99)):
        await at.us.asked("POST", f"/transfers/{process.pid}/suspend", {"reason": "lunch"})
        again = await say(at, Move.START, process, agreed, **started | {"dataAddress": EDC_SAID["started-again"]["dataAddress"]})
        late = await say(at, Move.START, process, agreed, **started)  # the first once more, from a proxy that had kept it
        shown = await at.us.asked("GET", f"/transfers/{process.pid}")
    assert (again.status, again.json["state"]) == (late.status, late.json["state"]) == (200, "STARTED")
    assert (shown["in_flight"], shown["reasons"]) == (Move.SUSPENSION, ["lunch"])
    edr = await at.us.connector.store.edr(process.pid)
    assert edr is not None
    assert edr.access_token == "head.claims.signature1"
    await at.us.state(T, process.pid, "SUSPENDED")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_start_that_comes_again_leaves_the_reason_of_a_suspension_that_the_peer_has_refused(at: Desk):
    process, agreed = await requested(at)
    started = {"@id": "urn:uuid:started", "dataAddress": EDC_SAID["started"]["dataAddress"]}
    assert (await say(at, Move.START, process, agreed, **started)).status == 200
    running = await at.us.state(T, process.pid, "STARTED")
    await at.us.put(replace(running, halted=True, detail=dict(running.detail) | {"reasons": ["lunch"], "ended_by": "us"}))
    again = await say(at, Move.START, process, agreed, **started | {"dataAddress": EDC_SAID["started-again"]["dataAddress"]})
    left = await at.us.connector.store.process(T, process.pid)
    assert left is not None
    assert (again.status, left.meant, left.detail["reasons"]) == (200, "SUSPENDED", ["lunch"])


@pytest.mark.asyncio(loop_scope="module")
async def test_an_operator_sees_where_the_data_are_also_if_edc_says_it_among_the_properties(at: Desk):
    process, agreed = await requested(at)
    assert (await say(at, Move.START, process, agreed, dataAddress=EDC_SAID["start"]["dataAddress"])).json["state"] == "STARTED"
    shown = await at.us.asked("GET", f"/transfers/{process.pid}/edr")
    assert shown == {"endpoint": "http://127.0.0.1:21691/public", "authorization": "head.claims.signature", "expires": None}


@pytest.mark.parametrize(
    "address",
    [
        {"@type": "DataAddress", "endpointType": "urn:t"},
        ADDRESS | {"endpoint": "ftp://files.example/x"},
        ADDRESS | {"endpoint": "not a url"},
        ADDRESS | {"endpoint": "https://x.example/" + "y" * 3000},
    ],
    ids=["no endpoint", "no web address", "no address", "too long"],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_data_address_that_cannot_be_used_is_an_error_and_starts_nothing(at: Desk, address: dict[str, Any]):
    process, agreed = await requested(at)
    answer = await say(at, Move.START, process, agreed, dataAddress=address)
    assert (answer.status, SCHEMAS.reasons("TransferError", answer.json)) == (400, [])
    assert await at.us.connector.store.edr(process.pid) is None
    assert await at.us.connector.store.process(T, process.pid) == process
    assert (await say(at, Move.START, process, agreed)).json["state"] == "STARTED", "a right one still does"


REFRESH = {"@type": "EndpointProperty", "name": "refreshEndpoint", "value": "http://127.0.0.1:9/token"}


@pytest.mark.parametrize("name", ["endpoint", "refreshEndpoint"])
@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://192.168.7.7/data", "is not at a public address"),
        ("https://[::ffff:10.0.0.1]/data", "is not at a public address"),
        ("https://0x7f.1/data", "numeric host"),
        ("http://someone:secret@127.0.0.1:9/data", "user"),
        ("http://127.0.0.1:9/data#part", "fragment"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_data_address_that_we_would_never_dial_is_refused_when_it_comes(at: Desk, name: str, url: str, why: str):
    process, agreed = await requested(at)
    properties = [*ADDRESS["endpointProperties"], REFRESH | ({"value": url} if name == "refreshEndpoint" else {})]
    address = ADDRESS | {"endpointProperties": properties} | ({"endpoint": url} if name == "endpoint" else {})
    answer = await say(at, Move.START, process, agreed, dataAddress=address)
    assert (answer.status, SCHEMAS.reasons("TransferError", answer.json)) == (400, [])
    (reason,) = answer.json["reason"]
    assert (answer.json["code"], f"its `{name}` is not one that we dial" in reason, why in reason) == ("address-denied", True, True)
    assert "secret" not in reason
    assert await at.us.connector.store.edr(process.pid) is None
    assert await at.us.connector.store.process(T, process.pid) == process
    right = ADDRESS | {"endpointProperties": [*ADDRESS["endpointProperties"], REFRESH]}
    assert (await say(at, Move.START, process, agreed, dataAddress=right)).json["state"] == "STARTED"


@pytest.mark.asyncio(loop_scope="module")
async def test_after_our_own_resume_one_start_of_the_provider_brings_the_fresh_address_and_no_second_one(at: Desk):
    process, agreed = await standing(at, T, "SUSPENDED", C)
    await at.us.asked("POST", f"/transfers/{process.pid}/resume", {})
    resumed = await at.peer.heard(f"{process.peer_pid}/start")
    assert "dataAddress" not in resumed, "a consumer has none to give"
    await at.us.state(T, process.pid, "STARTED")
    fresher = ADDRESS | {"endpoint": "http://127.0.0.1:9/data/fresh"}
    assert (await say(at, Move.START, process, agreed, dataAddress=fresher)).status == 200
    edr = await at.us.connector.store.edr(process.pid)
    assert edr is not None
    assert edr.address == fresher
    assert (await say(at, Move.START, process, agreed)).status == 400


# Both


async def running_transfer(two: Pair) -> tuple[str, str]:
    """A transfer between two connectors: the consumer's pid and the provider's."""
    await two.provider.publish("urn:d", OPEN)
    begun = await two.consumer.asked("POST", "/negotiations", {"peer": "hospital", "dataset": "urn:d"}, status=201)
    final = await two.consumer.state(N, begun["pid"], "FINALIZED")
    started = await two.consumer.asked("POST", "/transfers", {"agreement": final.agreement}, status=201)
    ours = await two.consumer.state(T, started["pid"], "STARTED")
    await two.provider.state(T, str(ours.peer_pid), "STARTED")
    return ours.pid, str(ours.peer_pid)


@pytest.mark.parametrize("by", ["consumer", "provider"])
@pytest.mark.asyncio
async def test_suspend_resume_suspend_resume_take_effect_on_both_sides(two: Pair, by: str):
    ours, theirs = await running_transfer(two)
    sides = {"consumer": (two.consumer, ours), "provider": (two.provider, theirs)}
    us, pid = sides[by]
    addresses = []
    for _ in range(2):
        await us.asked("POST", f"/transfers/{pid}/suspend", SUSPEND)
        for side, its in sides.values():
            await side.state(T, its, "SUSPENDED")
        await us.asked("POST", f"/transfers/{pid}/resume", {})
        for side, its in sides.values():
            await side.until(T, its, lambda p: p.state == "STARTED" and p.in_flight is None and not p.resumed)
        edr = await two.consumer.connector.store.edr(ours)
        assert edr is not None
        addresses.append(edr.access_token)
    assert len(set(addresses)) == 2, "each start brings tokens of its own"
    rows = [(e.what, e.move) for e in await us.evidence(pid)]
    assert rows.count((telemetry.ACKNOWLEDGED, Move.SUSPENSION)) == 2


@pytest.mark.asyncio
async def test_both_may_suspend_at_once_and_it_is_one_suspension(two: Pair):
    ours, theirs = await running_transfer(two)
    sides = ((two.consumer, ours), (two.provider, theirs))
    for _ in range(10):
        await asyncio.gather(*(side.asked("POST", f"/transfers/{its}/suspend", SUSPEND) for side, its in sides))
        for side, its in sides:
            await side.until(T, its, lambda p: p.state == "SUSPENDED" and p.in_flight is None)
            assert (await side.asked("GET", "/dead-letters"))["items"] == []
        await two.provider.asked("POST", f"/transfers/{theirs}/resume", {})
        for side, its in sides:
            await side.until(T, its, lambda p: p.state == "STARTED" and p.in_flight is None)


@pytest.mark.parametrize("by", ["consumer", "provider"])
@pytest.mark.parametrize(("call", "state"), [("complete", "COMPLETED"), ("terminate", "TERMINATED")])
@pytest.mark.asyncio
async def test_either_side_completes_or_terminates_and_both_are_done(two: Pair, by: str, call: str, state: str):
    ours, theirs = await running_transfer(two)
    us, pid = (two.consumer, ours) if by == "consumer" else (two.provider, theirs)
    await us.asked("POST", f"/transfers/{pid}/{call}", {"reason": "enough"} if call == "terminate" else {})
    for side, its in ((two.consumer, ours), (two.provider, theirs)):
        done = await side.state(T, its, state)
        if call == "terminate":
            assert (done.detail["reasons"], done.detail["ended_by"]) == (["enough"], "us" if side is us else "peer")


def texts(database: Path) -> str:
    """Everything that a connector has stored, as one text."""
    with closing(sqlite3.connect(database)) as db:
        tables = [name for (name,) in db.execute("select name from sqlite_schema where type = 'table' and name not like 'sqlite_%'")]
        cells = [cell for table in tables for row in db.execute(f"select * from {table}") for cell in row]  # noqa: S608 - its own names
    return "\n".join(cell.decode(errors="replace") if isinstance(cell, bytes) else str(cell) for cell in cells)


@pytest.mark.parametrize(("by", "call", "state"), [("consumer", "complete", "COMPLETED"), ("provider", "terminate", "TERMINATED")])
@pytest.mark.asyncio
async def test_no_token_is_left_when_a_transfer_has_ended(tmp_path: Path, by: str, call: str, state: str):
    """Neither where the data address stands nor in the message that brought it."""
    async with pair(tmp_path / "pair", store="sqlite") as two:
        ours, theirs = await running_transfer(two)
        edr = await two.consumer.connector.store.edr(ours)
        assert edr is not None
        secrets = [str(edr.access_token), str(edr.refresh_token)]
        databases = [side.site.settings.store.path for side in (two.consumer, two.provider)]
        assert all(secret in texts(databases[0]) for secret in secrets)
        assert not any(secret in texts(databases[1]) for secret in secrets), "the provider signs, and stores none"
        us, pid = (two.consumer, ours) if by == "consumer" else (two.provider, theirs)
        await us.asked("POST", f"/transfers/{pid}/{call}", {"reason": "enough"} if call == "terminate" else {})
        await two.consumer.state(T, ours, state)
        assert await two.consumer.connector.store.edr(ours) is None
        assert not any(secret in texts(databases[0]) for secret in secrets)
        assert (await two.consumer.manage("GET", f"/transfers/{ours}/edr")).status == 409


# An agreement that is over


@pytest.mark.asyncio(loop_scope="module")
async def test_under_a_closed_agreement_nothing_begins_and_the_peer_learns_why(at: Desk):
    agreed = agreement(at.us, at.peer, P, dataset=DATASET)
    await at.us.connector.journal.commit(Changes(saves=(agreed,)))
    closed = await at.us.asked("POST", f"/agreements/{agreed.id}/close", {"reason": "the study is over"})
    assert (closed["closed_by"], closed["reason"]) == ("us", "the study is over")
    answer, theirs = await ask(at, replace(agreed, closed=1.0, closed_by="us", reason="the study is over", version=2))
    told = await at.peer.heard(f"/transfers/{theirs}/termination")
    assert (told["code"], told["reason"]) == ("AGREEMENT_CLOSED", ["the agreement was closed: the study is over"])
    ended = await at.us.state(T, answer.json["providerPid"], "TERMINATED")
    assert ended.detail["decision"]["code"] == "AGREEMENT_CLOSED"


@pytest.mark.parametrize(
    ("role", "move", "code", "closed"),
    [
        (C, Move.TRANSFER_TERMINATION, "AGREEMENT_CLOSED", True),
        (C, Move.TRANSFER_TERMINATION, "EXPIRED", False),
        (C, Move.SUSPENSION, "AGREEMENT_CLOSED", False),
        (P, Move.TRANSFER_TERMINATION, "AGREEMENT_CLOSED", False),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_consumer_believes_its_provider_that_an_agreement_is_closed_and_nobody_else(
    at: Desk, role: Any, move: Move, code: str, closed: bool
):
    process, agreed = await standing(at, T, "STARTED", role)
    others = transfer(at.us, at.peer, "STARTED", role, agreed)
    await at.us.put(others)
    answer = await say(at, move, process, agreed, code=code, reason=["over", "and out"])
    assert answer.status == 200
    kept = await at.us.connector.store.agreement(agreed.id)
    expected = (None, None, 0) if not closed else ("peer", "over; and out", 1)
    assert (kept.closed_by, kept.reason, kept.version) == expected
    assert (await at.us.connector.store.process(T, others.pid)).meant == "STARTED", "each transfer is ended by whoever ends it"


@pytest.mark.asyncio(loop_scope="module")
async def test_terminations_that_come_together_close_an_agreement_once(at: Desk):
    process, agreed = await standing(at, T, "STARTED", C)
    crowd = [process, *[transfer(at.us, at.peer, "STARTED", C, agreed) for _ in range(9)]]
    for each in crowd[1:]:
        await at.us.put(each)
    answers = await asyncio.gather(*(say(at, Move.TRANSFER_TERMINATION, each, agreed, code="AGREEMENT_CLOSED") for each in crowd))
    assert {answer.status for answer in answers} == {200}
    assert (await at.us.connector.store.agreement(agreed.id)).version == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_an_agreement_that_is_closed_while_a_transfer_is_asked_for_gives_no_start(at: Desk):
    """The commit of the start finds another agreement than was read, and decides again."""
    agreed = agreement(at.us, at.peer, P, dataset=DATASET)
    store = at.us.connector.store

    async def instead(changes: Changes) -> Any:
        if any(isinstance(each, Process) for each in changes.saves) and (await store.agreement(agreed.id)).closed is None:
            closed = replace(agreed, closed=1.0, closed_by="us", reason="just now", version=1)
            await type(store).commit(store, Changes(saves=(closed,)))
        return await type(store).commit(store, changes)

    await at.us.connector.journal.commit(Changes(saves=(agreed,)))
    theirs = fresh("theirs")
    body = {"agreementId": agreed.id, "format": "HttpData-PULL", "callbackAddress": at.peer.site.base}
    with at.us.commits(instead):
        message = wire.message(Move.TRANSFER_REQUEST, consumer_pid=theirs, **body)
        assert (await at.peer.send(at.us, "POST", "/transfers/request", message)).status == 201
        await at.peer.heard(f"/transfers/{theirs}/termination")
    assert not [path for _, path, _ in at.peer.calls if path == f"/transfers/{theirs}/start"]


@pytest.mark.asyncio
async def test_requests_that_wait_for_money_on_its_way_back_are_few_of_each_participant_and_look_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
):
    """While a stream under the agreement changes all the time what is used: who asks a hundred times would have each change looked at a
    hundred times."""
    looks, changes = Counter[str](), dict[str, asyncio.Event]()

    async def returns(*_: object) -> bool:
        return True

    async def found(*_: object) -> Any:
        return SimpleNamespace(id="urn:a", peer=caller.participant.id)

    class Denies:
        async def counts(self, _agreement: Agreement) -> bool:
            return True

        async def under(self, *_: object, starts: str, **__: object) -> Any:
            looks[starts] += 1
            return SimpleNamespace(verdict=SimpleNamespace(code=Code.QUOTA_EXHAUSTED))

    def news(_agreement: str) -> asyncio.Event:
        event = changes["last"] = asyncio.Event()
        asyncio.get_running_loop().call_soon(event.set)
        return event

    monkeypatch.setattr(transfers, "about_to_return", returns)
    monkeypatch.setattr(transfers, "AWAITED_SECONDS", 0.3)
    monkeypatch.setattr(transfers, "LOOK_SECONDS", 0.1)
    making: Any = Transfers
    waits = making(SimpleNamespace(agreement=found, usage=found), Denies(), lambda _: None)
    waits.news = news
    caller: Any = SimpleNamespace(participant=SimpleNamespace(id="did:web:many.example"), claims={}, expires=9e9)
    asked = [{"agreementId": "urn:a", "consumerPid": f"urn:{n}"} for n in range(100)]
    await asyncio.gather(*(waits.settled(each, caller, time.time) for each in asked))
    assert len(looks) == transfers.WAITING_MAX
    assert max(looks.values()) <= 4
    await waits.settled({"agreementId": "urn:a", "consumerPid": "urn:later"}, caller, time.time)
    assert looks["urn:later"], "nobody waits any more"
