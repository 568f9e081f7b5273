"""What a peer may say to us and when, what it learns from our answers, and that one message is one commit."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
import pytest_asyncio

from connector import telemetry
from connector.app import Automatic
from connector.control.receive import callback_of
from connector.dsp import wire
from connector.dsp.exchange import INITIAL
from connector.dsp.messages import OTHER, Kind, Move, Role, path_of
from connector.errors import Refused
from connector.ports import Caller, Participant
from connector.records.ledger import entry_of, hidden_of
from connector.values import replace
from tests.control.stand import DATASET, C, N, P, T, facts, offer_terms, refusing, request, say, scripted, seen, standing
from tests.pair import SCHEMAS, Desk, agreement, desk, document_of, fresh, negotiation, transfer

# The tables of DSP 2025-1 for messages about a process that exists: the state that follows, or `400`. Each column is a move and who
# says it. Where the standard is of two minds the cell is as decided beside the product's tables.
TABLES = {
    N: """
                request:C  offer:P  accepted:C  agreement:P  verification:C  finalized:P  termination:C  termination:P
    REQUESTED   400        OFFERED  400         AGREED       400             400          TERMINATED     TERMINATED
    OFFERED     REQUESTED  400      ACCEPTED    400          400             400          TERMINATED     TERMINATED
    ACCEPTED    400        400      400         AGREED       400             400          TERMINATED     TERMINATED
    AGREED      400        400      400         400          VERIFIED        400          TERMINATED     TERMINATED
    VERIFIED    400        400      400         400          400             FINALIZED    TERMINATED     TERMINATED
    FINALIZED   400        400      400         400          400             400          400            400
    TERMINATED  400        400      400         400          400             400          400            400
    """,
    T: """
                start:P  start:C  suspension:C  suspension:P  completion:C  completion:P  termination:C  termination:P
    REQUESTED   STARTED  400      400           400           400           400           TERMINATED     TERMINATED
    STARTED     400      400      SUSPENDED     SUSPENDED     COMPLETED     COMPLETED     TERMINATED     TERMINATED
    SUSPENDED   STARTED  STARTED  400           400           400           400           TERMINATED     TERMINATED
    COMPLETED   400      400      400           400           400           400           400            400
    TERMINATED  400      400      400           400           400           400           400            400
    """,
}
MOVES = {
    N: {
        "request": Move.CONTRACT_REQUEST, "offer": Move.CONTRACT_OFFER, "accepted": Move.ACCEPTED, "agreement": Move.CONTRACT_AGREEMENT,
        "verification": Move.VERIFICATION, "finalized": Move.FINALIZED, "termination": Move.CONTRACT_TERMINATION,
    },
    T: {"start": Move.START, "suspension": Move.SUSPENSION, "completion": Move.COMPLETION, "termination": Move.TRANSFER_TERMINATION},
}  # fmt: skip
ROLES = {"C": C, "P": P}


def cells() -> dict[tuple[Kind, str, Role, Move], str]:
    """(kind, state, sender, move) to what follows."""
    found = {}
    for kind, text in TABLES.items():
        head, *rows = [line.split() for line in text.strip().splitlines()]
        for state, *entries in rows:
            for column, entry in zip(head, entries, strict=True):
                name, _, who = column.partition(":")
                found[kind, state, ROLES[who], MOVES[kind][name]] = entry
    return found


CELLS = cells()
ROWS = sorted({(kind, state, sender) for kind, state, sender, _ in CELLS})
LATER = [(kind, move) for kind, moves in MOVES.items() for move in moves.values()]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def at(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """A connector that never acts by itself, with a dataset on offer."""
    async with desk(tmp_path_factory.mktemp("receive") / "desk") as opened:
        await opened.us.publish(DATASET)
        yield opened


@pytest_asyncio.fixture
async def acting(tmp_path: Path) -> AsyncIterator[Desk]:
    """A connector that does at once what policy permits."""
    async with desk(tmp_path / "desk", approver=Automatic(0)) as opened:
        await opened.us.publish(DATASET)
        yield opened


# The tables


@pytest.mark.parametrize(("kind", "state", "sender"), [pytest.param(*row, id="-".join(row)) for row in ROWS])
@pytest.mark.asyncio(loop_scope="module")
async def test_every_message_moves_the_process_or_is_refused_as_the_table_says(at: Desk, kind: Kind, state: str, sender: Role):
    us = OTHER[sender]
    for move in MOVES[kind].values():
        process, agreed = await standing(at, kind, state, us)
        before = await seen(at, process)
        answer = await say(at, move, process, agreed)
        shown = await at.peer.send(at.us, "GET", f"/{kind}s/{process.pid}")
        follows = CELLS.get((kind, state, sender, move), "400")  # what the other role says is an error from this one
        if follows == "400":
            error = answer.json
            assert answer.status == 400, (move, answer)
            assert SCHEMAS.reasons(error["@type"], error) == []
            assert error["@type"] == ("ContractNegotiationError" if kind is N else "TransferError")
            assert (error["consumerPid"], error["providerPid"]) == (process.consumer_pid, process.provider_pid)
            assert error["code"] == "illegal-message"
            assert error["reason"]
            assert await seen(at, process) == before, "an error changes nothing"
            assert shown.json["state"] == state
        else:
            expected = wire.process_document(kind, process.consumer_pid, process.provider_pid, follows)
            assert (answer.status, answer.json) == (200, expected), move
            assert shown.json == expected


@pytest.mark.parametrize("state", ["REQUESTED", "STARTED", "SUSPENDED", "COMPLETED", "TERMINATED"])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_repeated_transfer_request_finds_its_process_in_every_state(at: Desk, state: str):
    agreed = agreement(at.us, at.peer, P, dataset=DATASET)
    await at.us.put(transfer(at.us, at.peer, "REQUESTED", P, agreed), agreed)
    body = wire.message(
        Move.TRANSFER_REQUEST, consumer_pid=fresh(), agreementId=agreed.id, format="HttpData-PULL", callbackAddress=at.peer.site.base
    )
    first = await at.peer.send(at.us, "POST", "/transfers/request", body)
    assert (first.status, first.json["state"]) == (201, "REQUESTED")
    stored = await at.us.connector.store.process(T, first.json["providerPid"])
    assert stored is not None
    moved = await at.us.put(replace(stored, state=state, last_accepted=None))
    before = await seen(at, moved)
    again = await at.peer.send(at.us, "POST", "/transfers/request", body)
    assert (again.status, again.json) == (200, first.json | {"state": state})
    assert await seen(at, moved) == before


# Who learns what


def spelled(pid: str) -> list[str]:
    """Process ids that name nothing: unknown ones, and ones that are no pids at all."""
    return [fresh(), f"{pid}x", pid.upper(), "x" * 3000, "%00", "%20", "%C3%A9", "%FF", "..%2F", "urn%3Auuid%3A", "'--", "%7B%7D", "0"]


@pytest.mark.parametrize(("kind", "move"), [pytest.param(*each, id="-".join(each)) for each in LATER])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_foreign_an_unknown_and_a_malformed_pid_get_one_and_the_same_empty_404(at: Desk, kind: Kind, move: Move):
    process, agreed = await standing(at, kind, "REQUESTED", P)
    before = await seen(at, process)
    ending = path_of(move, "x").removeprefix(f"/{kind}s/x")
    for body in (document_of(move, process, agreed), {}, b"no JSON", b"", None):
        method, rest = ("GET", "") if body is None else ("POST", ending)
        answers = [await at.stranger.send(at.us, method, f"/{kind}s/{process.pid}{rest}", body)]
        answers += [await at.peer.send(at.us, method, f"/{kind}s/{pid}{rest}", body) for pid in spelled(process.pid)]
        looks = {(a.status, a.body, tuple(sorted((k, v) for k, v in a.headers.items() if k != "Date"))) for a in answers}
        assert len(looks) == 1, looks
        assert next(iter(looks))[:2] == (404, b"")
    assert await seen(at, process) == before


@pytest.mark.asyncio(loop_scope="module")
async def test_whoever_proves_nothing_learns_no_more_than_a_stranger(at: Desk):
    process, agreed = await standing(at, T, "STARTED", P)
    body = document_of(Move.SUSPENSION, process, agreed)
    looks = set()
    for pid in (process.pid, fresh()):
        for path, data in ((f"/transfers/{pid}", None), (f"/transfers/{pid}/suspension", body)):
            answer = await at.peer.send(at.us, "POST" if data else "GET", path, data, anonymous=True)
            looks.add((answer.status, answer.body, answer.headers["WWW-Authenticate"]))
    assert len(looks) == 1, looks
    assert next(iter(looks))[:2] == (404, b"")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_process_whose_first_message_nobody_took_does_not_exist_for_the_peer(at: Desk):
    process, agreed = await standing(at, N, INITIAL, C, peer_pid=None)
    for answer in (
        await at.peer.send(at.us, "GET", f"/negotiations/{process.pid}"),
        await say(at, Move.CONTRACT_TERMINATION, replace(process, peer_pid="any"), agreed),
    ):
        assert (answer.status, answer.body) == (404, b"")


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("us", list(Role))
@pytest.mark.asyncio(loop_scope="module")
async def test_pids_that_contradict_the_address_are_an_error_for_the_counterparty_only(at: Desk, kind: Kind, us: Role):
    state = "REQUESTED" if kind is N else "STARTED"
    process, agreed = await standing(at, kind, state, us)
    other, _ = await standing(at, kind, state, us)
    before = await seen(at, process)
    move = Move.CONTRACT_TERMINATION if kind is N else Move.SUSPENSION
    swapped = {"consumerPid": process.provider_pid, "providerPid": process.consumer_pid}
    another = {"consumerPid": other.consumer_pid, "providerPid": other.provider_pid}
    for wrong in (swapped, another, {"consumerPid": other.consumer_pid}, {"providerPid": other.provider_pid}, {"consumerPid": fresh()}):
        answer = await say(at, move, process, agreed, **wrong)
        assert (answer.status, answer.json["code"]) == (400, "malformed-message"), wrong
        assert "contradict its address" in answer.json["reason"][0]
        body = document_of(move, process, agreed) | wrong
        hidden = await at.stranger.send(at.us, "POST", path_of(move, process.pid), body)
        assert (hidden.status, hidden.body) == (404, b""), "a stranger does not learn that the address exists"
    assert await seen(at, process) == before
    assert (await say(at, move, process, agreed)).status == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"@type":"x"}', b"\xff", b'{"a":1,"a":2}'])
@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_no_message_is_an_error_with_reasons_for_the_counterparty(at: Desk, body: bytes):
    process, _ = await standing(at, T, "STARTED", P)
    before = await seen(at, process)
    answer = await at.peer.send(at.us, "POST", f"/transfers/{process.pid}/suspension", body)
    assert answer.status == 400
    assert SCHEMAS.reasons("TransferError", answer.json) == []
    assert answer.json["reason"]
    assert await seen(at, process) == before


# First messages


@pytest.mark.asyncio(loop_scope="module")
async def test_a_callback_address_outside_of_the_callers_origins_is_an_unrecoverable_error(at: Desk):
    terms, base = await offer_terms(at), at.peer.site.base
    for address in (
        at.stranger.site.base, "https://elsewhere.example/dsp", f"{base}?a=b", f"{base}#x", base.replace("127.0.0.1", "user@127.0.0.1"),
        "http://127.0.0.1:99999/", "file:///etc/passwd", "http://[", "no address", "",
    ):  # fmt: skip
        body = request(terms, at, fresh(), callbackAddress=address)
        answer = await at.peer.send(at.us, "POST", "/negotiations/request", body)
        assert answer.status == 400, address
        assert SCHEMAS.reasons("ContractNegotiationError", answer.json) == []
        assert await at.us.connector.store.process_of_peer(N, at.peer.id, body["consumerPid"]) is None, "nothing was created"
    assert answer.json["reason"]


@pytest.mark.parametrize("ending", ["", "/", "//"])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_callback_address_may_end_in_a_slash(at: Desk, ending: str):
    body = request(await offer_terms(at), at, fresh(), callbackAddress=at.peer.site.base + ending)
    answer = await at.peer.send(at.us, "POST", "/negotiations/request", body)
    process = await at.us.connector.store.process(N, answer.json["providerPid"])
    assert process is not None
    assert process.callback == at.peer.site.base


@pytest.mark.parametrize("pid", ["a b", "é", "", "x" * 256, "a\nb", "\x7f"])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_pid_that_fits_into_no_address_begins_nothing(at: Desk, pid: str):
    answer = await at.peer.send(at.us, "POST", "/negotiations/request", request(await offer_terms(at), at, pid))
    assert answer.status == 400
    assert await at.us.connector.store.process_of_peer(N, at.peer.id, pid) is None


@pytest.mark.asyncio(loop_scope="module")
async def test_a_first_message_names_a_callback_and_no_pid_of_ours(at: Desk):
    terms = await offer_terms(at)
    for members in ({"providerPid": fresh()}, {"providerPid": fresh(), "callbackAddress": None}, {"callbackAddress": None}):
        body = {k: v for k, v in request(terms, at, fresh(), **members).items() if v is not None}
        answer = await at.peer.send(at.us, "POST", "/negotiations/request", body)
        assert answer.status == 400, members
        assert await at.us.connector.store.process_of_peer(N, at.peer.id, body["consumerPid"]) is None


@pytest.mark.asyncio
async def test_one_request_sent_three_times_is_one_negotiation_and_one_agreement(acting: Desk):
    body = request(await offer_terms(acting), acting, fresh())
    first = await acting.peer.send(acting.us, "POST", "/negotiations/request", body)
    assert (first.status, first.json["state"]) == (201, "REQUESTED")
    await acting.peer.heard("/agreement")
    await acting.us.state(N, first.json["providerPid"], "AGREED")
    for _ in range(2):
        again = await acting.peer.send(acting.us, "POST", "/negotiations/request", dict(reversed(body.items())))
        assert (again.status, again.json) == (200, first.json | {"state": "AGREED"}), "the order of members says nothing"
    store = acting.us.connector.store
    assert len((await store.processes(N, after=None, limit=10, state=None, peer=None)).items) == 1
    assert len((await store.agreements(peer=None, dataset=None, after=None, limit=10)).items) == 1
    assert [path for _, path, _ in acting.peer.calls] == [f"/negotiations/{body['consumerPid']}/agreement"]


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@pytest.mark.asyncio
async def test_equal_requests_at_the_same_time_are_one_negotiation_and_one_agreement(tmp_path: Path, store: str):
    async with desk(tmp_path / "desk", approver=Automatic(0), store=store) as at:
        await at.us.publish(DATASET)
        body = request(await offer_terms(at), at, fresh())
        answers = await asyncio.gather(*(at.peer.send(at.us, "POST", "/negotiations/request", body) for _ in range(12)))
        assert sorted(a.status for a in answers).count(201) >= 1
        assert {a.status for a in answers} <= {200, 201}
        (pid,) = {a.json["providerPid"] for a in answers}
        await at.us.state(N, pid, "AGREED")
        assert len((await at.us.connector.store.processes(N, after=None, limit=10, state=None, peer=None)).items) == 1
        assert len((await at.us.connector.store.agreements(peer=None, dataset=None, after=None, limit=10)).items) == 1
        assert [e.what for e in await at.us.evidence(pid)].count(telemetry.RECEIVED) == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_the_answer_to_a_first_message_is_kept_until_something_of_ours_was_accepted(at: Desk):
    body = request(await offer_terms(at), at, fresh())
    first = await at.peer.send(at.us, "POST", "/negotiations/request", body)
    again = await at.peer.send(at.us, "POST", "/negotiations/request", body)
    assert (again.status, again.body) == (first.status, first.body)


@pytest.mark.asyncio(loop_scope="module")
async def test_another_first_message_under_a_pid_that_is_taken_is_refused(at: Desk):
    body = request(await offer_terms(at), at, fresh())
    first = await at.peer.send(at.us, "POST", "/negotiations/request", body)
    stored = await at.us.connector.store.process(N, first.json["providerPid"])
    assert stored is not None
    before = await seen(at, stored)
    other = await at.peer.send(at.us, "POST", "/negotiations/request", body | {"extra": "words"})
    assert (other.status, other.json["code"]) == (400, "pid-taken")
    assert "use a new one" in other.json["reason"][0]
    assert await seen(at, stored) == before


@pytest.mark.asyncio(loop_scope="module")
async def test_two_participants_may_choose_the_same_pid(at: Desk):
    terms, pid = await offer_terms(at), fresh()
    one = await at.peer.send(at.us, "POST", "/negotiations/request", request(terms, at, pid))
    other = await at.stranger.send(at.us, "POST", "/negotiations/request", request(terms, at, pid, callbackAddress=at.stranger.site.base))
    assert (one.status, other.status) == (201, 201)
    assert one.json["providerPid"] != other.json["providerPid"]


# Repeats and crossings


@pytest.mark.parametrize("us", list(Role))
@pytest.mark.asyncio(loop_scope="module")
async def test_suspend_resume_suspend_resume_in_equal_words_all_take_effect(at: Desk, us: Role):
    process, agreed = await standing(at, T, "STARTED", us)
    bodies = {move: orjson.dumps(document_of(move, process, agreed)) for move in (Move.SUSPENSION, Move.START)}
    states = []
    for move in (Move.SUSPENSION, Move.START) * 2:
        answer = await at.peer.send(at.us, "POST", path_of(move, process.pid), bodies[move])
        assert answer.status == 200
        stored = await at.us.connector.store.process(T, process.pid)
        assert stored is not None
        states.append((answer.json["state"], stored.state))
    assert states == [("SUSPENDED", "SUSPENDED"), ("STARTED", "STARTED")] * 2
    assert await facts(at, process) == [telemetry.RECEIVED] * 4


@pytest.mark.parametrize(
    ("state", "us", "move"),
    [
        ("STARTED", P, Move.SUSPENSION),
        ("STARTED", P, Move.COMPLETION),
        ("STARTED", P, Move.TRANSFER_TERMINATION),
        ("VERIFIED", C, Move.FINALIZED),
        ("VERIFIED", P, Move.CONTRACT_TERMINATION),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_replay_gets_the_stored_answer_and_changes_nothing_also_of_what_has_ended(at: Desk, state: str, us: Role, move: Move):
    process, agreed = await standing(at, move.kind, state, us)
    first = await say(at, move, process, agreed)
    assert first.status == 200
    before = await seen(at, process)
    for _ in range(2):
        again = await say(at, move, process, agreed)
        assert (again.status, again.body) == (first.status, first.body)
    assert await seen(at, process) == before


@pytest.mark.asyncio(loop_scope="module")
async def test_what_comes_again_in_other_words_under_one_id_gets_the_stored_answer_and_the_first_reason_stays(at: Desk):
    process, agreed = await standing(at, T, "STARTED", P)
    first = await say(at, Move.SUSPENSION, process, agreed, **{"@id": "urn:uuid:said", "reason": ["lunch"]})
    before = await seen(at, process)
    again = await say(at, Move.SUSPENSION, process, agreed, **{"@id": "urn:uuid:said", "reason": ["it was not answered"]})
    assert (first.status, again.status, again.body) == (200, 200, first.body)
    assert await seen(at, process) == before
    other = await say(at, Move.SUSPENSION, process, agreed, **{"@id": "urn:uuid:other"})
    assert (other.status, other.json["code"]) == (400, "illegal-message")


@pytest.mark.asyncio(loop_scope="module")
async def test_after_a_message_of_ours_equal_words_are_news(at: Desk):
    process, agreed = await standing(at, T, "STARTED", P)
    await say(at, Move.SUSPENSION, process, agreed)
    await at.us.asked("POST", f"/transfers/{process.pid}/resume", {})
    await at.us.state(T, process.pid, "STARTED")
    again = await say(at, Move.SUSPENSION, process, agreed)
    assert (again.status, again.json["state"]) == (200, "SUSPENDED")
    assert [e.what for e in await at.us.evidence(process.pid)].count(telemetry.RECEIVED) == 2


@pytest.mark.asyncio(loop_scope="module")
async def test_what_crosses_a_message_of_ours_is_refused_and_both_stay(at: Desk):
    process, agreed = await standing(at, T, "STARTED", P)
    with scripted(at.peer, refusing(503, 99)):
        await at.us.asked("POST", f"/transfers/{process.pid}/complete", {})
        answer = await say(at, Move.SUSPENSION, process, agreed)
        assert (answer.status, answer.json["code"]) == (400, "illegal-message")
        assert "send it again" in answer.json["reason"][0]
        stored = await at.us.connector.store.process(T, process.pid)
        assert stored is not None
        assert (stored.state, stored.in_flight) == ("STARTED", Move.COMPLETION)
    assert (await at.us.state(T, process.pid, "COMPLETED")).version == stored.version + 1


@pytest.mark.asyncio(loop_scope="module")
async def test_a_completion_of_theirs_wins_over_a_suspension_of_ours_of_which_nobody_is_said_to_have_taken_it(at: Desk):
    process, agreed = await standing(at, T, "STARTED", P)
    with scripted(at.peer, refusing(503, 99)):
        await at.us.asked("POST", f"/transfers/{process.pid}/suspend", {"reason": "ours"})
        assert (await say(at, Move.COMPLETION, process, agreed)).json["state"] == "COMPLETED"
    assert [row for row in await at.us.connector.store.open_outbox() if row.pid == process.pid] == []
    row = [(e.what, e.move) for e in await at.us.evidence(process.pid)]
    assert row == [(telemetry.SENT, Move.SUSPENSION), (telemetry.RECEIVED, Move.COMPLETION)]


def test_of_callback_addresses_that_are_refused_nothing_is_kept():
    caller = Caller(Participant("did:web:peer", "peer", "consumer", None, ("https://peer.example",)), {}, 0.0)
    tracemalloc.start()
    try:
        for place in range(20):
            for start in ("https://", "https://peer.example/"):
                with pytest.raises(Refused, match="not understood"):
                    callback_of(caller, f"{start}{place}" + "a" * 200_000)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 200_000


@pytest.mark.parametrize("end", ["?", "#", "/?", "?x", "#x"])
def test_what_would_lead_into_a_query_or_a_fragment_is_no_callback_address(end: str):
    caller = Caller(Participant("did:web:peer", "peer", "consumer", None, ("https://peer.example",)), {}, 0.0)
    with pytest.raises(Refused, match="without query or fragment"):
        callback_of(caller, f"https://peer.example/dsp{end}")


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.asyncio(loop_scope="module")
async def test_a_termination_of_theirs_wins_over_a_message_of_ours(at: Desk, kind: Kind):
    process, agreed = await standing(at, kind, "REQUESTED" if kind is N else "STARTED", P)
    action, body = ("approve", {}) if kind is N else ("suspend", {"reason": "ours"})
    move = Move.CONTRACT_TERMINATION if kind is N else Move.TRANSFER_TERMINATION
    with scripted(at.peer, refusing(503, 99)):
        await at.us.asked("POST", f"/{kind}s/{process.pid}/{action}", body)
        answer = await say(at, move, process, agreed)
        assert (answer.status, answer.json["state"]) == (200, "TERMINATED")
    stored = await at.us.state(kind, process.pid, "TERMINATED")
    assert (stored.detail["code"], stored.detail["reasons"], stored.detail["ended_by"]) == ("X", ["because"], "peer")
    assert process.pid not in {row.pid for row in await at.us.connector.store.open_outbox()}, "nothing is sent any more"


@pytest.mark.asyncio(loop_scope="module")
async def test_a_message_that_could_not_be_said_without_ours_is_the_answer_to_ours(at: Desk):
    process, agreed = await standing(at, N, "REQUESTED", P)
    with scripted(at.peer, refusing(503, 99)):
        await at.us.asked("POST", f"/negotiations/{process.pid}/approve", {})
        await at.peer.heard(f"/negotiations/{process.peer_pid}/agreement")
        answer = await say(at, Move.VERIFICATION, process, agreed)
    assert (answer.status, answer.json["state"]) == (200, "VERIFIED")
    row = [(e.what, e.move) for e in await at.us.evidence(process.pid)]
    assert row == [
        (telemetry.SENT, Move.CONTRACT_AGREEMENT),
        (telemetry.IMPLIED, Move.CONTRACT_AGREEMENT),
        (telemetry.RECEIVED, Move.VERIFICATION),
    ]
    assert process.pid not in {row.pid for row in await at.us.connector.store.open_outbox()}


@pytest.mark.asyncio(loop_scope="module")
async def test_a_pid_that_comes_ahead_of_the_answer_to_ours_is_looked_up_only_if_the_write_finds_it_taken(
    at: Desk, monkeypatch: pytest.MonkeyPatch
):
    store, looked = at.us.connector.store, []
    look = store.process_of_peer
    monkeypatch.setattr(store, "process_of_peer", lambda *key: looked.append(key) or look(*key))
    other, agreed = await standing(at, N, "REQUESTED", C)
    ours = negotiation(at.us, at.peer, INITIAL, C, peer_pid=None, in_flight=Move.CONTRACT_REQUEST, in_flight_id=fresh("row"))
    process = await at.us.put(ours)
    refused = await say(at, Move.CONTRACT_OFFER, replace(process, peer_pid=other.peer_pid), agreed)
    assert (refused.status, refused.json["code"], len(looked)) == (400, "pid-taken", 1)
    assert await store.process(N, process.pid) == process, "nothing has changed"
    taken = await say(at, Move.CONTRACT_OFFER, replace(process, peer_pid=fresh("theirs")), agreed)
    assert (taken.status, taken.json["state"], len(looked)) == (200, "OFFERED", 1)


@pytest.mark.asyncio(loop_scope="module")
async def test_what_a_message_said_cannot_be_tried_on_its_entry_once_the_detail_is_erased(at: Desk):
    process, agreed = await standing(at, T, "STARTED", P)
    document = document_of(Move.SUSPENSION, process, agreed) | {"reason": ["born on 1 May 1953"]}
    assert (await at.peer.send(at.us, "POST", path_of(Move.SUSPENSION, process.pid), document)).status == 200
    (taken,) = [each for each in await at.us.evidence(process.pid) if each.what == telemetry.RECEIVED]
    assert taken.detail["message"] == wire.digest(document).hex()
    assert wire.digest(document).hex() not in entry_of(taken, hidden_of(b"salt", b"")).decode()
