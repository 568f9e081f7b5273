import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from connector.dsp.exchange import Process
from connector.dsp.messages import Kind, Move, Role
from connector.errors import Contradiction
from connector.odrl import load
from connector.records import Agreement, Changes, Offer
from connector.values import replace
from tests.control.test_peer_datasets import described
from tests.pair import (
    OPEN,
    Answer,
    Desk,
    agreement,
    dataset_record,
    desk,
    document_of,
    negotiation,
    only_for,
    purpose_policy,
    transfer,
    until_policy,
)

N, T, C, P = Kind.NEGOTIATION, Kind.TRANSFER, Role.CONSUMER, Role.PROVIDER
D = "urn:test:dataset"
UNKNOWN: dict[str, Any] = {
    "@type": "Offer",
    "permission": [{"action": "use", "constraint": [{"leftOperand": "urn:mood", "operator": "eq", "rightOperand": "good"}]}],
}


@pytest_asyncio.fixture
async def at(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path) as made:
        yield made


def offering(at: Desk, *offers: dict[str, Any]) -> None:
    """Let the peer's catalog have the dataset with these offers."""
    document = described(*offers)
    at.peer.script = lambda method, path, _document: (200, document) if "/catalog/datasets/" in path else None


async def negotiate(at: Desk, *, status: int = 201, **members: Any) -> Any:
    return await at.us.asked("POST", "/negotiations", {"peer": "biopharma", "dataset": D} | members, status=status)


async def on_offer(at: Desk) -> None:
    """Publish the offer that a `negotiation` of ours is about."""
    dataset = replace(dataset_record(D), offers=(Offer("urn:test:offer", D, OPEN),))
    assert isinstance(await at.us.connector.journal.commit(Changes(saves=(dataset,))), tuple)


async def act(at: Desk, process: Process, verb: str, body: Any = None) -> Answer:
    part = "transfers" if process.kind is T else "negotiations"
    return await at.us.manage("POST", f"/{part}/{process.pid}/{verb}", body)


@pytest.mark.asyncio
async def test_a_negotiation_takes_the_offer_from_the_catalog_and_asks_for_our_purposes_only(at: Desk):
    offering(at, purpose_policy("research", "quality") | {"@id": "urn:o1"})
    begun = await negotiate(at, purposes=["research"])
    asked = await at.peer.heard("/negotiations/request")
    assert asked["offer"]["@id"] == "urn:o1"
    assert asked["offer"]["target"] == D
    (constraint,) = asked["offer"]["permission"][0]["constraint"]
    assert (constraint["operator"], constraint["rightOperand"]) == ("eq", "research")
    assert asked["callbackAddress"] == at.us.site.base
    assert asked["consumerPid"] == begun["pid"]
    assert (begun["state"], begun["in_flight"], begun["role"]) == ("INITIAL", "ContractRequestMessage", "consumer")
    await at.us.state(N, begun["pid"], "REQUESTED")


@pytest.mark.asyncio
async def test_of_several_offers_the_first_that_permits_our_purpose_is_taken_or_the_one_that_is_named(at: Desk):
    theirs = only_for("did:web:somebody.example") | {"@id": "urn:theirs"}
    offering(at, theirs, purpose_policy("quality") | {"@id": "urn:q"}, purpose_policy("research") | {"@id": "urn:r"})
    await negotiate(at, purposes=["research"])
    assert (await at.peer.heard("/negotiations/request"))["offer"]["@id"] == "urn:r"
    await negotiate(at, purposes=["research"], offer="urn:q")
    assert (await at.peer.heard("/negotiations/request", 2))["offer"]["@id"] == "urn:q"
    await negotiate(at, purposes=["marketing"])
    assert (await at.peer.heard("/negotiations/request", 3))["offer"]["@id"] == "urn:theirs", "the peer says why not"
    missing = await negotiate(at, offer="urn:none", status=404)
    assert missing["detail"] == f"`biopharma` has no such offer for dataset `{D}`"


@pytest.mark.asyncio
async def test_terms_of_our_own_are_sent_as_they_are(at: Desk):
    begun = await negotiate(at, policy=purpose_policy("research") | {"@id": "urn:o"})
    asked = await at.peer.heard("/negotiations/request")
    assert asked["offer"] == {"@id": "urn:o", "@type": "Offer", "target": D} | {"permission": purpose_policy("research")["permission"]}
    assert [path for method, path, _ in at.peer.calls if method == "GET"] == [], "no catalog was asked for"
    assert (await at.us.state(N, begun["pid"], "REQUESTED")).detail["purposes"] == ["research"]


@pytest.mark.parametrize(
    ("members", "status", "pointer", "text"),
    [
        ({"accept": "anything"}, 400, "/accept", "it is one of same, permitted, operator"),
        ({"policy": OPEN}, 400, "/offer", "the terms need the id of an offer"),
        ({"peer": "nobody"}, 404, None, "known are `biopharma`, `hospital`, `stranger`"),
        ({"policy": UNKNOWN | {"@id": "urn:o"}}, 422, None, ""),
    ],
)
@pytest.mark.asyncio
async def test_a_wish_that_cannot_be_meant_is_refused_and_nothing_is_sent(
    at: Desk, members: dict[str, Any], status: int, pointer: str | None, text: str
):
    answer = await negotiate(at, status=status, **members)
    assert answer.get("pointer") == pointer
    assert text in answer["detail"]
    assert at.peer.calls == []
    assert (await at.us.asked("GET", "/negotiations"))["items"] == []


@pytest.mark.asyncio
async def test_an_offer_of_the_peer_that_we_do_not_understand_is_not_asked_for(at: Desk):
    offering(at, UNKNOWN | {"@id": "urn:o"})
    answer = await negotiate(at, status=422)
    assert answer["reasons"][0].startswith("/permission/0/constraint/0/leftOperand: ")
    assert not [path for method, path, _ in at.peer.calls if method == "POST"]


@pytest.mark.asyncio
async def test_what_a_peer_has_written_is_read_for_an_order_while_others_have_their_turn(at: Desk, monkeypatch: pytest.MonkeyPatch):
    """A large offer or agreement takes 25 ms, and there may be many of them."""
    threads: list[int] = []
    for module in ("policies", "terms"):
        monkeypatch.setattr(f"connector.control.{module}.load", lambda *a, **k: (threads.append(threading.get_ident()), load(*a, **k))[1])
    monkeypatch.setattr("connector.control.policies.ASIDE_BYTES", 0)
    offering(at, only_for("did:web:x.example") | {"@id": "urn:o:1"}, purpose_policy("research") | {"@id": "urn:o:2"})
    await negotiate(at, purposes=["research"])
    assert len(threads) == 3, "two offers, and what is asked for"
    agreed = agreement(at.us, at.peer, C, policy=purpose_policy("research"))
    await at.us.connector.journal.commit(Changes(saves=(agreed,)))
    assert await at.us.connector.operations.reusable(at.peer.id, D, ("research",)) == agreed
    assert len(threads) == 4
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("path", ["/negotiations", "/transfers"])
@pytest.mark.asyncio
async def test_calls_under_one_key_begin_one_process(at: Desk, path: str):
    body: dict[str, Any] = {"peer": "biopharma", "dataset": D, "policy": OPEN | {"@id": "urn:o"}}
    if path == "/transfers":
        agreed = agreement(at.us, at.peer, C)
        await at.us.connector.journal.commit(Changes(saves=(agreed,)))
        body = {"agreement": agreed.id}
    key = {"Idempotency-Key": "k"}
    begun = await asyncio.gather(*(at.us.asked("POST", path, body, status=201, **key) for _ in range(5)))
    assert len({each["pid"] for each in begun}) == 1
    await at.peer.heard("/request")
    assert (await at.us.asked("POST", path, body, status=201, **key))["pid"] == begun[0]["pid"]
    assert len([p for _, p, _ in at.peer.calls if p.endswith("/request")]) == 1
    other = await at.us.asked(
        "POST", path, body | {"format": "x"} if path == "/transfers" else body | {"accept": "same"}, status=409, **key
    )
    assert other["title"] == "idempotency conflict"
    assert (await at.us.asked("POST", path, body, status=201))["pid"] != begun[0]["pid"], "without a key it is another one"


@pytest.mark.asyncio
async def test_a_provider_begins_with_an_offer_of_its_own(at: Desk):
    await at.us.publish(D, OPEN | {"@id": "urn:o"})
    body = {"peer": "biopharma", "dataset": D, "offer": "urn:o"}
    begun = await at.us.asked("POST", "/negotiations/offers", body, status=201)
    said = await at.peer.heard("/negotiations/offers")
    assert (said["offer"]["@id"], said["offer"]["target"], said["providerPid"]) == ("urn:o", D, begun["pid"])
    await at.us.state(N, begun["pid"], "OFFERED")
    for wrong in ({"offer": "urn:x"}, {"dataset": "urn:other"}):
        await at.us.asked("POST", "/negotiations/offers", body | wrong, status=404)


@pytest.mark.parametrize(
    ("role", "state", "verb", "ending"),
    [
        (P, "REQUESTED", "approve", "/agreement"),
        (C, "OFFERED", "approve", "/events"),
        (P, "REQUESTED", "counter", "/offers"),
        (C, "OFFERED", "counter", "/request"),
    ],
)
@pytest.mark.asyncio
async def test_where_a_negotiation_waits_an_operator_says_yes_or_other_terms(at: Desk, role: Role, state: str, verb: str, ending: str):
    await on_offer(at)
    process = negotiation(at.us, at.peer, state, role)
    waits = await at.us.put(replace(process, detail=dict(process.detail) | {"waiting": "approval"}))
    body = {"policy": purpose_policy("research")} if verb == "counter" else None
    answer = await act(at, waits, verb, body)
    assert (answer.status, answer.json["waiting"]) == (200, "peer"), answer.body
    said = await at.peer.heard(f"{waits.peer_pid}{ending}")
    if verb == "counter":
        assert said["offer"]["permission"] == purpose_policy("research")["permission"]
        assert said["offer"]["target"] == waits.dataset


@pytest.mark.parametrize(
    ("role", "state", "verb"),
    [
        (C, "REQUESTED", "approve"),
        (P, "OFFERED", "approve"),
        (P, "AGREED", "approve"),
        (C, "FINALIZED", "approve"),
        (C, "REQUESTED", "counter"),
    ],
)
@pytest.mark.asyncio
async def test_there_is_nothing_to_decide_where_it_is_not_our_turn(at: Desk, role: Role, state: str, verb: str):
    process = await at.us.put(negotiation(at.us, at.peer, state, role))
    answer = await act(at, process, verb, {"policy": OPEN} if verb == "counter" else None)
    assert answer.status == 409
    assert answer.json["detail"].startswith(f"negotiation `{process.pid}` is in state {state} and we are the {role}")
    assert await at.us.connector.store.process(N, process.pid) == process


@pytest.mark.asyncio
async def test_a_counter_that_is_not_understood_is_refused(at: Desk):
    process = await at.us.put(negotiation(at.us, at.peer, "REQUESTED", P))
    answer = await act(at, process, "counter", {"policy": UNKNOWN})
    assert answer.status == 422
    assert at.peer.calls == []


@pytest.mark.parametrize("role", [C, P])
@pytest.mark.asyncio
async def test_a_transfer_is_suspended_resumed_and_completed_from_either_side(at: Desk, role: Role):
    agreed = agreement(at.us, at.peer, role)
    process = await at.us.put(transfer(at.us, at.peer, "STARTED", role, agreed), agreed)
    await at.us.connector.journal.commit(Changes(saves=(dataset_record(agreed.dataset),)))
    for verb, body, ending, state in (
        ("suspend", {"reason": "a pause"}, "/suspension", "SUSPENDED"),
        ("resume", None, "/start", "STARTED"),
        ("complete", None, "/completion", "COMPLETED"),
    ):
        answer = await act(at, process, verb, body)
        assert answer.status == 200, answer.body
        said = await at.peer.heard(f"{process.peer_pid}{ending}")
        await at.us.state(T, process.pid, state)
        if verb == "suspend":
            assert said["reason"] == ["a pause"]
        if verb == "resume":
            assert ("dataAddress" in said) is (role is P), "only a provider has one to give"


@pytest.mark.parametrize(
    ("state", "verb"),
    [
        ("REQUESTED", "suspend"),
        ("REQUESTED", "complete"),
        ("STARTED", "resume"),
        ("SUSPENDED", "complete"),
        ("SUSPENDED", "suspend"),
        ("COMPLETED", "suspend"),
    ],
)
@pytest.mark.asyncio
async def test_what_the_state_does_not_allow_is_refused_and_changes_nothing(at: Desk, state: str, verb: str):
    agreed = agreement(at.us, at.peer, C)
    process = await at.us.put(transfer(at.us, at.peer, state, C, agreed), agreed)
    answer = await act(at, process, verb, {"reason": "x"} if verb == "suspend" else None)
    assert answer.status == 409
    assert f"`{process.pid}` is in state {state}; " in answer.json["detail"]
    assert await at.us.connector.store.process(T, process.pid) == process
    assert at.peer.calls == []


@pytest.mark.asyncio
async def test_a_second_wish_waits_for_the_answer_to_the_first_and_only_an_end_does_not(at: Desk):
    answered = asyncio.Event()
    agreed = agreement(at.us, at.peer, C)
    process = await at.us.put(transfer(at.us, at.peer, "STARTED", C, agreed), agreed)
    at.peer.script = lambda _m, path, _d: (503, None) if path.endswith("/suspension") and not answered.is_set() else None
    assert (await act(at, process, "suspend", {"reason": "x"})).status == 200
    refused = await act(at, process, "complete")
    assert (refused.status, "waits for the answer to `TransferSuspensionMessage`" in refused.json["detail"]) == (409, True)
    ended = await act(at, process, "terminate", {"reason": "no more"})
    assert ended.status == 200
    said = await at.peer.heard("/termination")
    assert said["reason"] == ["no more"]
    kept = await at.us.state(T, process.pid, "TERMINATED")
    assert (kept.detail["reasons"], kept.detail["code"], kept.detail["ended_by"]) == (["no more"], "operator", "us")
    again = await act(at, process, "terminate", {"reason": "again"})
    assert (again.status, again.json["detail"]) == (409, f"{T} `{process.pid}` has already ended in TERMINATED")


@pytest.mark.asyncio
async def test_two_operators_at_one_process_do_one_thing(at: Desk):
    agreed = agreement(at.us, at.peer, C)
    process = await at.us.put(transfer(at.us, at.peer, "STARTED", C, agreed), agreed)
    operations = at.us.connector.operations
    done = await asyncio.gather(*(operations.complete(process.pid) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(each, Process) for each in done) == 1
    assert sum(isinstance(each, Contradiction) for each in done) == 4
    await at.us.state(T, process.pid, "COMPLETED")
    assert [p for _, p, _ in at.peer.calls if p.endswith("/completion")] == [f"/transfers/{process.peer_pid}/completion"]


@pytest.mark.asyncio
async def test_what_does_not_exist_cannot_be_acted_on(at: Desk):
    for path in ("/negotiations/x/approve", "/transfers/x/resume", "/transfers/x/complete"):
        assert (await at.us.manage("POST", path)).status == 404
    for path in ("/negotiations/x/terminate", "/transfers/x/terminate", "/transfers/x/suspend"):
        assert (await at.us.manage("POST", path, {"reason": "x"})).status == 404


@pytest.mark.parametrize(
    ("changed", "status", "text"),
    [
        ({"final": False}, 409, "is not finalized yet"),
        ({"ends": 1.0}, 409, "has ended; negotiate a new one"),
        ({"closed": 1.0, "closed_by": "peer", "reason": "over"}, 409, "was closed: over; negotiate a new one"),
        ({"consumer": "did:web:stranger.example"}, 404, "is not one under which we are the consumer"),
        (None, 404, "is not one under which we are the consumer"),
    ],
)
@pytest.mark.asyncio
async def test_a_transfer_needs_an_agreement_that_holds(at: Desk, changed: dict[str, Any] | None, status: int, text: str):
    agreed = agreement(at.us, at.peer, C, **(changed or {}))
    if changed is not None:
        await at.us.connector.journal.commit(Changes(saves=(agreed,)))
    answer = await at.us.asked("POST", "/transfers", {"agreement": agreed.id}, status=status)
    assert text in answer["detail"]
    assert at.peer.calls == []


@pytest.mark.asyncio
async def test_an_agreement_that_is_closed_while_a_transfer_waits_for_those_before_begins_none(at: Desk):
    agreed = agreement(at.us, at.peer, C)
    await at.us.connector.journal.commit(Changes(saves=(replace(agreed, version=1),)))
    operations = at.us.connector.operations

    async def closes(id: str) -> None:
        await operations.close(id, "over")

    operations.stated = closes
    answer = await at.us.asked("POST", "/transfers", {"agreement": agreed.id}, status=409)
    assert "was closed" in answer["detail"]
    assert [each for each in at.peer.calls if each[1].endswith("/transfers/request")] == []


@pytest.mark.asyncio
async def test_an_agreement_is_used_again_only_if_it_still_permits_the_purpose(at: Desk):
    def made(name: str, policy: dict[str, Any], **changed: Any) -> Agreement:
        return agreement(at.us, at.peer, changed.pop("role", C), id=name, policy=policy, created=changed.pop("created", 1.0), **changed)

    research = purpose_policy("research")
    await at.us.connector.journal.commit(
        Changes(
            saves=(
                made("good", research),
                made("not final", research, final=False, created=9.0),
                made("ended", research, ends=2.0, created=9.0),
                made("closed here", research, closed=2.0, closed_by="us", created=9.0),
                made("closed there", research, closed=2.0, closed_by="peer", created=9.0),
                made("of another dataset", research, dataset="urn:other", created=9.0),
                made("we provide", research, role=P, created=9.0),
                made("lapsed", until_policy("2001-01-01T00:00:00Z"), created=9.0),
                made("for others", only_for("did:web:x.example"), created=9.0),
            )
        )
    )
    reusable = at.us.connector.operations.reusable
    found = await reusable(at.peer.id, D, ("research",))
    assert found is not None
    assert found.id == "good"
    assert await reusable(at.peer.id, D, ("marketing",)) is None
    assert (await reusable(at.peer.id, D, ())).id == "good", "who says no purpose takes the one that was agreed"
    assert await reusable(at.stranger.id, D, ("research",)) is None
    assert await reusable(at.peer.id, "urn:nothing", ("research",)) is None


@pytest.mark.asyncio
async def test_a_process_that_the_peer_never_heard_of_just_ends_here(at: Desk):
    at.peer.script = lambda _m, path, _d: (503, None) if path.endswith("/request") else None
    begun = await negotiate(at, policy=OPEN | {"@id": "urn:o"})
    await at.peer.heard("/request")
    ended = await at.us.asked("POST", f"/negotiations/{begun['pid']}/terminate", {"reason": "enough"})
    assert (ended["state"], ended["ended_by"], ended["in_flight"]) == ("TERMINATED", "us", None)
    assert list(await at.us.connector.store.open_outbox()) == []


@pytest.mark.asyncio
async def test_after_our_approval_the_peer_goes_on(at: Desk):
    """The way of a manual approval, to its end."""
    await on_offer(at)
    process = await at.us.put(negotiation(at.us, at.peer, "REQUESTED", P))
    assert (await act(at, process, "approve")).status == 200
    said = await at.peer.heard("/agreement")
    agreed = await at.us.state(N, process.pid, "AGREED")
    assert said["agreement"]["@id"] == agreed.agreement
    assert (said["agreement"]["assigner"], said["agreement"]["assignee"]) == (at.us.site.id, at.peer.id)
    message = document_of(Move.VERIFICATION, agreed)
    assert (await at.peer.send(at.us, "POST", f"/negotiations/{process.pid}/agreement/verification", message)).status == 200
    assert (await at.us.connector.store.agreement(agreed.agreement)).final
