"""How each side of a negotiation answers each message: agreements, counter-offers, refusals with reasons, and what is kept of them."""

import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from connector import telemetry
from connector.app import Automatic
from connector.control.terms import MORE_TO_PAY
from connector.dsp import wire
from connector.dsp.exchange import Process
from connector.dsp.messages import Move
from connector.odrl import differences, load
from connector.records import Agreement
from connector.values import replace
from tests.control.stand import C, N, P, request, say
from tests.metering_bills.priced import leaf, price
from tests.pair import (
    OPEN,
    SCHEMAS,
    Answer,
    Desk,
    agreement,
    desk,
    fresh,
    negotiation,
    only_for,
    purpose_policy,
    until_policy,
)  # fmt: skip

CARE, STUDY, MARKETING = "urn:p:care", "urn:p:study", "urn:p:marketing"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def at(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    """A connector that does at once what policy permits."""
    async with desk(tmp_path_factory.mktemp("negotiate") / "desk", approver=Automatic(0)) as opened:
        yield opened


async def on_offer(at: Desk, *policies: dict[str, Any], **members: Any) -> list[dict[str, Any]]:
    """Publish a dataset of its own; returns the terms of its offers as a consumer would repeat them."""
    dataset = fresh("dataset")
    await at.us.publish(dataset, *policies, **members)
    stored = await at.us.connector.store.dataset(dataset)
    assert stored is not None
    return [dict(offer.policy) | {"@id": offer.id, "@type": "Offer", "target": dataset} for offer in stored.offers]


async def ask(at: Desk, terms: dict[str, Any]) -> tuple[Answer, str, str]:
    """The peer requests a contract; returns the answer, our pid and the peer's."""
    theirs = fresh("theirs")
    answer = await at.peer.send(at.us, "POST", "/negotiations/request", request(terms, at, theirs))
    return answer, answer.json.get("providerPid", ""), theirs


def narrowed(terms: dict[str, Any], *purposes: str) -> dict[str, Any]:
    return terms | {"permission": purpose_policy(*purposes)["permission"]}


def bounded(*purposes: str) -> dict[str, Any]:
    """An offer for these purposes that ends: who asks for them for good asks for more."""
    (rule,), (until,) = purpose_policy(*purposes)["permission"], until_policy("2099-01-01T00:00:00Z")["permission"]
    return {"@type": "Offer", "permission": [rule | {"constraint": [*rule["constraint"], *until["constraint"]]}]}


# Provider


@pytest.mark.asyncio(loop_scope="module")
async def test_who_asks_for_what_is_on_offer_gets_an_agreement_over_it(at: Desk):
    (terms,) = await on_offer(at, purpose_policy(CARE))
    answer, pid, theirs = await ask(at, terms)
    assert answer.status == 201
    message = await at.peer.heard(f"/negotiations/{theirs}/agreement")
    assert SCHEMAS.reasons("ContractAgreementMessage", message) == []
    agreed = message["agreement"]
    assert (agreed["assigner"], agreed["assignee"], agreed["target"]) == (at.us.site.id, at.peer.id, terms["target"])
    assert agreed["permission"] == terms["permission"]
    done = await at.us.state(N, pid, "AGREED")
    stored = await at.us.connector.store.agreement(agreed["@id"])
    assert stored is not None
    assert (done.agreement, stored.document, stored.final) == (stored.id, agreed, False)


@pytest.mark.asyncio(loop_scope="module")
async def test_an_agreement_counts_from_the_moment_we_say_that_it_is_final(at: Desk):
    (terms,) = await on_offer(at)
    _, pid, theirs = await ask(at, terms)
    process = await at.us.state(N, pid, "AGREED")
    document = wire.message(Move.VERIFICATION, consumer_pid=theirs, provider_pid=pid)
    finals = list[bool]()
    at.us.connector.journal.listen(lambda changes, _: finals.extend(each.final for each in changes.saves if isinstance(each, Agreement)))
    answer = await at.peer.send(at.us, "POST", f"/negotiations/{pid}/agreement/verification", document)
    assert answer.json["state"] == "VERIFIED"
    assert finals == [True], "with the commit that puts the event in flight: who hears it may use it at once"
    assert (await at.peer.heard(f"/negotiations/{theirs}/events"))["eventType"] == "FINALIZED"
    await at.us.state(N, process.pid, "FINALIZED")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_purpose_that_is_not_permitted_is_refused_with_its_reason_on_both_sides(at: Desk):
    (terms,) = await on_offer(at, purpose_policy(CARE))
    answer, pid, theirs = await ask(at, narrowed(terms, MARKETING))
    assert answer.status == 201, "the request is in order; the answer to it is no"
    told = await at.peer.heard(f"/negotiations/{theirs}/termination")
    ended = await at.us.state(N, pid, "TERMINATED")
    code, reasons = wire.reasons_of(told)
    assert (code, list(reasons)) == (ended.detail["code"], ended.detail["reasons"])
    assert list(wire.grounds_of(told)) == ended.detail["grounds"]
    assert MARKETING in " ".join(reasons) or CARE in " ".join(reasons)
    assert terms["@id"] in " ".join(reasons), "which offer, although its policy was published without an id"
    assert ended.detail["ended_by"] == "us"
    sent = [e for e in await at.us.evidence(pid) if e.what == telemetry.SENT]
    assert sent[0].detail["reasons"] == list(reasons)
    view = await at.us.asked("GET", f"/negotiations/{pid}")
    assert (view["code"], view["reasons"]) == (code, list(reasons))


@pytest.mark.asyncio(loop_scope="module")
async def test_a_refusal_says_as_data_which_constraint_of_which_offer_and_what_was_found(at: Desk):
    (terms,) = await on_offer(at, purpose_policy(CARE))
    _, _, theirs = await ask(at, narrowed(terms, MARKETING))
    (ground,) = wire.grounds_of(await at.peer.heard(f"/negotiations/{theirs}/termination"))
    assert ground == {
        "code": "CONSTRAINT_UNSATISFIED",
        "policy": terms["@id"],
        "rule": "/permission/0",
        "constraint": "/permission/0/constraint/0",
        "leftOperand": "odrl:purpose",
        "operator": "isAnyOf",
        "expected": [CARE],
        "actual": [MARKETING],
    }


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("as_data", [True, False])
async def test_what_a_peer_gives_for_a_reason_is_kept_with_the_negotiation(at: Desk, as_data: bool):
    process = await at.us.put(negotiation(at.us, at.peer, "REQUESTED", C, detail={"grounds": [{"code": "OLD"}], "reasons": ["old"]}))
    ground = {"code": "PROHIBITED", "rule": "/prohibition/0"}
    reason = wire.reason_items(("no",), (ground,) if as_data else ())
    document = wire.message(
        Move.CONTRACT_TERMINATION, consumer_pid=process.pid, provider_pid=process.peer_pid, code="PROHIBITED", reason=reason
    )
    assert (await at.peer.send(at.us, "POST", f"/negotiations/{process.pid}/termination", document)).status == 200
    kept = (await at.us.state(N, process.pid, "TERMINATED")).detail
    assert (kept["code"], kept["reasons"], kept["ended_by"]) == ("PROHIBITED", ["no"], "peer")
    assert kept.get("grounds") == ([ground] if as_data else None), "what was said before is no part of it"


@pytest.mark.asyncio(loop_scope="module")
async def test_claims_and_decision_are_stored_with_the_process(at: Desk):
    (terms,) = await on_offer(at, purpose_policy(CARE))
    for asked, result in ((terms, "permit"), (narrowed(terms, MARKETING), "deny")):
        _, pid, _ = await ask(at, asked)
        stored = await at.us.connector.store.process(N, pid)
        assert stored is not None
        caller = await at.us.connector.operations._identity.verify(await at.peer.identity.mint(at.us.site.id))
        assert stored.detail["claims"] == caller.claims
        decision = stored.detail["decision"]
        assert decision["result"] == result
        assert [(rule["path"], rule["active"]) for rule in decision["rules"]] == [("/permission/0", result == "permit")]
        assert decision["reason"]
        assert stored.detail["decision"], "with a reason for every rule"
        assert stored.detail["terms"] == asked


@pytest.mark.asyncio(loop_scope="module")
async def test_other_terms_than_those_on_offer_are_answered_with_the_offer(at: Desk):
    (terms,) = await on_offer(at, bounded(CARE, STUDY))
    _, pid, theirs = await ask(at, narrowed(terms, CARE, STUDY))
    message = await at.peer.heard(f"/negotiations/{theirs}/offers")
    assert SCHEMAS.reasons("ContractOfferMessage", message) == []
    assert message["offer"] == terms
    await at.us.state(N, pid, "OFFERED")


@pytest.mark.asyncio(loop_scope="module")
async def test_the_consumer_may_take_a_counter_offer_or_ask_again(at: Desk):
    (terms,) = await on_offer(at, bounded(CARE, STUDY))
    _, pid, theirs = await ask(at, narrowed(terms, CARE, STUDY))
    await at.us.state(N, pid, "OFFERED")
    own = narrowed(terms, STUDY, CARE) | {"@id": fresh("offer")}
    again = wire.message(Move.CONTRACT_REQUEST, consumer_pid=theirs, provider_pid=pid, offer=own)
    answer = await at.peer.send(at.us, "POST", f"/negotiations/{pid}/request", again)
    assert (answer.status, answer.json["state"]) == (200, "REQUESTED"), "an offer of the consumer's own making has an id of its own"
    second = await at.peer.heard(f"/negotiations/{theirs}/offers", 2)
    assert second["offer"] == terms
    await at.us.state(N, pid, "OFFERED")
    accepted = wire.message(Move.ACCEPTED, consumer_pid=theirs, provider_pid=pid)
    answer = await at.peer.send(at.us, "POST", f"/negotiations/{pid}/events", accepted)
    assert answer.json["state"] == "ACCEPTED"
    agreed = (await at.peer.heard(f"/negotiations/{theirs}/agreement"))["agreement"]
    assert agreed["permission"] == terms["permission"], "over what was offered, not what was asked"
    await at.us.state(N, pid, "AGREED")


@pytest.mark.asyncio(loop_scope="module")
async def test_offers_that_are_unknown_hidden_or_withdrawn_answer_alike_and_create_nothing(at: Desk):
    (hidden,) = await on_offer(at, only_for("did:web:somebody.else"))
    (gone,) = await on_offer(at)
    (past,) = await on_offer(at, until_policy("2020-01-01T00:00:00Z"))
    await at.us.asked("DELETE", f"/datasets/{gone['target']}", status=204)
    unknown = dict(OPEN) | {"@id": fresh("offer"), "target": hidden["target"]}
    looks = set()
    for terms in (hidden, gone, past, unknown):
        answer, _, theirs = await ask(at, terms)
        assert (answer.status, SCHEMAS.reasons("ContractNegotiationError", answer.json)) == (400, [])
        looks.add((answer.json["code"], answer.json["reason"][0].replace(terms["@id"], "…")))
        assert await at.us.connector.store.process_of_peer(N, at.peer.id, theirs) is None
    assert len(looks) == 1, looks
    assert next(iter(looks))[0] == "unknown-offer"


@pytest.mark.asyncio(loop_scope="module")
async def test_an_offer_belongs_to_one_dataset(at: Desk):
    (one,), (other,) = await on_offer(at, bounded(CARE)), await on_offer(at)
    answer, _, theirs = await ask(at, one | {"target": other["target"]})
    assert (answer.status, answer.json["code"]) == (400, "unknown-offer")
    assert await at.us.connector.store.process_of_peer(N, at.peer.id, theirs) is None
    _, pid, theirs = await ask(at, narrowed(one, CARE))
    await at.us.state(N, pid, "OFFERED")
    crossed = wire.message(Move.CONTRACT_REQUEST, consumer_pid=theirs, provider_pid=pid, offer=other)
    answer = await at.peer.send(at.us, "POST", f"/negotiations/{pid}/request", crossed)
    assert answer.status == 400, "a counter-request stays with its dataset"
    await at.us.state(N, pid, "OFFERED")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_request_without_a_target_means_the_dataset_of_its_offer(at: Desk):
    (terms,) = await on_offer(at)
    answer, pid, _ = await ask(at, {k: v for k, v in terms.items() if k != "target"})
    assert answer.status == 201
    assert (await at.us.state(N, pid, "AGREED")).dataset == terms["target"]


@pytest.mark.asyncio(loop_scope="module")
async def test_terms_that_we_do_not_understand_are_denied_with_what_is_wrong_in_them(at: Desk):
    (terms,) = await on_offer(at)
    strange = {"leftOperand": "https://edc.example/ns/region", "operator": "eq", "rightOperand": "eu"}
    _, pid, theirs = await ask(at, terms | {"permission": [{"action": "use", "constraint": [strange]}]})
    told = await at.peer.heard(f"/negotiations/{theirs}/termination")
    assert told["code"] == "POLICY_NOT_UNDERSTOOD"
    assert "https://edc.example/ns/region" in " ".join(wire.reasons_of(told)[1])
    await at.us.state(N, pid, "TERMINATED")


@pytest.mark.asyncio(loop_scope="module")
async def test_an_offer_that_is_left_to_an_operator_waits_for_one(at: Desk):
    (terms,) = await on_offer(at, manual=True)
    _, pid, theirs = await ask(at, terms)
    view = await at.us.asked("GET", f"/negotiations/{pid}")
    assert (view["state"], view["waiting"]) == ("REQUESTED", "approval")
    assert telemetry.WAITING in [e.what for e in await at.us.evidence(pid)]
    await at.us.asked("POST", f"/negotiations/{pid}/approve", {})
    await at.peer.heard(f"/negotiations/{theirs}/agreement")
    assert "waiting" not in (await at.us.state(N, pid, "AGREED")).detail


@pytest.mark.asyncio(loop_scope="module")
async def test_an_offer_that_is_left_to_an_operator_is_still_refused_to_who_may_not_have_it(at: Desk):
    (terms,) = await on_offer(at, purpose_policy(CARE), manual=True)
    _, pid, theirs = await ask(at, narrowed(terms, MARKETING))
    assert (await at.peer.heard(f"/negotiations/{theirs}/termination"))["reason"]
    await at.us.state(N, pid, "TERMINATED")


# Consumer


async def offered(at: Desk, accept: str, asked: dict[str, Any], terms: dict[str, Any], *purposes: str) -> Process:
    """We have asked for something; the peer offers `terms`."""
    base = negotiation(at.us, at.peer, "REQUESTED", C, dataset=asked["target"], terms=asked)
    detail = dict(base.detail) | {"accept": accept, "purposes": list(purposes)}
    process = await at.us.put(replace(base, detail=detail))
    document = wire.message(Move.CONTRACT_OFFER, consumer_pid=process.pid, provider_pid=process.peer_pid, offer=terms)
    answer = await at.peer.send(at.us, "POST", f"/negotiations/{process.pid}/offers", document)
    assert (answer.status, answer.json["state"]) == (200, "OFFERED")
    stored = await at.us.connector.store.process(N, process.pid)
    assert stored is not None
    return stored


def terms_for(*purposes: str, **members: Any) -> dict[str, Any]:
    return purpose_policy(*purposes) | {"@id": fresh("offer"), "target": "urn:test:d"} | members


@pytest.mark.parametrize(
    ("accept", "offer", "taken"),
    [
        pytest.param("same", (CARE,), True, id="what we asked for"),
        pytest.param("same", (CARE, STUDY), False, id="more than we asked for, and only the same will do"),
        pytest.param("permitted", (CARE,), True, id="what we asked for, and all that permits will do"),
        pytest.param("permitted", (CARE, STUDY), True, id="something that permits what we want"),
        pytest.param("permitted", (STUDY,), False, id="something that does not permit what we want"),
        pytest.param("operator", (CARE,), False, id="an operator decides"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_an_offer_is_taken_if_it_is_what_we_asked_for_or_still_permits_it_and_that_will_do(
    at: Desk, accept: str, offer: tuple[str, ...], taken: bool
):
    process = await offered(at, accept, terms_for(CARE), terms_for(*offer), CARE)
    if taken:
        assert (await at.peer.heard(f"{process.peer_pid}/events"))["eventType"] == "ACCEPTED"
        await at.us.state(N, process.pid, "ACCEPTED")
    else:
        assert (process.detail["waiting"], process.in_flight) == ("approval", None)
    assert process.detail["decision"]["result"] == ("permit" if CARE in offer else "deny")


@pytest.mark.asyncio(loop_scope="module")
async def test_an_offer_that_takes_the_bound_from_what_we_may_owe_is_for_an_operator(at: Desk):
    def at_a_price(*constraints: dict[str, Any]) -> dict[str, Any]:
        return terms_for() | {"permission": [{"action": "use", "constraint": list(constraints), "duty": [price("1", "record")]}]}

    end = leaf("odrl:dateTime", "lt", {"@value": "2099-01-01T00:00:00Z", "@type": "xsd:dateTime"})
    process = await offered(at, "permitted", at_a_price(end), at_a_price())
    assert (process.detail["waiting"], process.in_flight) == ("approval", None)
    assert MORE_TO_PAY in process.detail["changes"]


@pytest.mark.asyncio(loop_scope="module")
async def test_an_offer_of_another_dataset_ends_the_negotiation(at: Desk):
    process = await offered(at, "permitted", terms_for(CARE), terms_for(CARE, target="urn:test:other"), CARE)
    told = await at.peer.heard(f"{process.peer_pid}/termination")
    assert told["code"] == "wrong-dataset"
    assert "urn:test:other" in told["reason"][0]
    await at.us.state(N, process.pid, "TERMINATED")


async def agreed(at: Desk, state: str, *, accept: str = "operator", **changed: Any) -> tuple[Process, dict[str, Any]]:
    """The peer sends an agreement over the terms on the table, with something changed in it (None: left out)."""
    base = negotiation(at.us, at.peer, state, C, dataset="urn:test:d", terms=terms_for(CARE))
    process = await at.us.put(replace(base, detail=dict(base.detail) | {"accept": accept}))
    right = agreement(at.us, at.peer, C, dataset="urn:test:d", policy=purpose_policy(CARE), negotiation=process.pid)
    document = {k: v for k, v in (dict(right.document) | changed).items() if v is not None}
    answer = await say(at, Move.CONTRACT_AGREEMENT, process, replace(right, document=document))
    assert (answer.status, answer.json["state"]) == (200, "AGREED"), answer.body
    return process, document


@pytest.mark.asyncio(loop_scope="module")
async def test_terms_that_came_long_ago_are_read_while_others_have_their_turn(at: Desk, monkeypatch: pytest.MonkeyPatch):
    """What was read when they came is not known any more after a start, or after thousands of others."""
    (terms,) = await on_offer(at, purpose_policy(CARE, STUDY))
    narrower = narrowed(terms, STUDY)
    mine = await at.us.put(negotiation(at.us, at.peer, "OFFERED", P, dataset=terms["target"], terms=narrower))
    threads: list[int] = []
    for module in ("policies", "terms"):
        monkeypatch.setattr(f"connector.control.{module}.load", lambda *a, **k: (threads.append(threading.get_ident()), load(*a, **k))[1])
    monkeypatch.setattr("connector.control.policies.ASIDE_BYTES", 0)
    document = wire.message(Move.ACCEPTED, consumer_pid=mine.peer_pid, provider_pid=mine.pid)
    assert (await at.peer.send(at.us, "POST", f"/negotiations/{mine.pid}/events", document)).status == 200
    await at.us.state(N, mine.pid, "AGREED")
    assert threads
    waits = await at.us.put(negotiation(at.us, at.peer, "REQUESTED", P, dataset=terms["target"], terms=narrower))
    await at.us.asked("POST", f"/negotiations/{waits.pid}/approve")
    assert threading.get_ident() not in threads


@pytest.mark.asyncio(loop_scope="module")
async def test_what_large_terms_of_a_provider_say_otherwise_is_found_while_others_have_their_turn(
    at: Desk, monkeypatch: pytest.MonkeyPatch
):
    """Of two offers of 400 permissions each it takes 40 ms."""
    threads: list[int] = []
    monkeypatch.setattr(
        "connector.control.policies.differences", lambda a, b: (threads.append(threading.get_ident()), differences(a, b))[1]
    )
    monkeypatch.setattr("connector.control.policies.ASIDE_LEAVES", 0)
    await offered(at, "operator", terms_for(CARE), terms_for(STUDY))
    await agreed(at, "REQUESTED", accept="permitted", permission=OPEN["permission"])
    await agreed(at, "REQUESTED", permission=OPEN["permission"])
    assert len(threads) == 3
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("state", ["REQUESTED", "ACCEPTED"])
@pytest.mark.asyncio(loop_scope="module")
async def test_an_agreement_over_what_is_on_the_table_is_verified_and_kept(at: Desk, state: str):
    process, document = await agreed(at, state)
    await at.peer.heard(f"{process.peer_pid}/agreement/verification")
    verified = await at.us.state(N, process.pid, "VERIFIED")
    stored = await at.us.connector.store.agreement(document["@id"])
    assert stored is not None
    assert (verified.agreement, stored.document, stored.negotiation, stored.final) == (stored.id, document, process.pid, False)
    event = wire.message(Move.FINALIZED, consumer_pid=process.pid, provider_pid=process.peer_pid)
    assert (await at.peer.send(at.us, "POST", f"/negotiations/{process.pid}/events", event)).json["state"] == "FINALIZED"
    final = await at.us.connector.store.agreement(stored.id)
    assert final == replace(stored, final=True)


@pytest.mark.asyncio(loop_scope="module")
async def test_an_agreement_that_gives_more_is_verified_where_whatever_permits_will_do(at: Desk):
    process, document = await agreed(at, "REQUESTED", accept="permitted", permission=purpose_policy(CARE, MARKETING)["permission"])
    await at.peer.heard(f"{process.peer_pid}/agreement/verification")
    verified = await at.us.state(N, process.pid, "VERIFIED")
    stored = await at.us.connector.store.agreement(document["@id"])
    assert stored is not None
    assert (verified.agreement, stored.document) == (stored.id, document)
    (change,) = verified.detail["changes"]
    assert MARKETING in change


WRONG = {
    "more than was asked": {"permission": purpose_policy(CARE, MARKETING)["permission"]},
    "less than was asked": {"permission": purpose_policy(STUDY)["permission"]},
    "without the condition": {"permission": [{"action": "use"}]},
    "with a prohibition more": {"prohibition": [{"action": "use"}]},
    "with an obligation more": {"obligation": [{"action": "odrl:delete"}]},
    "another dataset": {"target": "urn:test:other"},
    "another consumer": {"assignee": "did:web:stranger.example"},
    "another provider": {"assigner": "did:web:stranger.example"},
    "the parties swapped": {"assigner": "did:web:hospital.example", "assignee": "did:web:biopharma.example"},
    "no timestamp": {"timestamp": None},
}


@pytest.mark.parametrize("changed", WRONG.values(), ids=WRONG)
@pytest.mark.asyncio(loop_scope="module")
async def test_an_agreement_that_differs_from_what_is_on_the_table_is_refused_with_the_difference(at: Desk, changed: dict[str, Any]):
    process, document = await agreed(at, "REQUESTED", **changed)
    told = await at.peer.heard(f"{process.peer_pid}/termination")
    ended = await at.us.state(N, process.pid, "TERMINATED")
    assert told["code"] == ended.detail["code"] == "agreement-incorrect"
    assert told["reason"] == ended.detail["reasons"]
    assert told["reason"]
    assert await at.us.connector.store.agreement(document["@id"]) is None, "it is no agreement of ours"
    assert ended.agreement is None


@pytest.mark.asyncio(loop_scope="module")
async def test_the_id_of_another_agreement_is_refused_and_that_one_stays(at: Desk):
    _, first = await agreed(at, "REQUESTED")
    kept = await at.us.connector.store.agreement(first["@id"])
    process, _ = await agreed(at, "REQUESTED", **{"@id": first["@id"]})
    told = await at.peer.heard(f"{process.peer_pid}/termination")
    assert "that of another agreement" in " ".join(told["reason"])
    assert await at.us.connector.store.agreement(first["@id"]) == kept


@pytest.mark.asyncio(loop_scope="module")
async def test_a_provider_may_begin_and_an_operator_decides(at: Desk):
    terms = terms_for(CARE)
    document = wire.message(Move.CONTRACT_OFFER, provider_pid=fresh("theirs"), offer=terms, callbackAddress=at.peer.site.base)
    answer = await at.peer.send(at.us, "POST", "/negotiations/offers", document)
    assert (answer.status, answer.json["state"]) == (201, "OFFERED")
    assert SCHEMAS.reasons("ContractNegotiation", answer.json) == []
    again = await at.peer.send(at.us, "POST", "/negotiations/offers", document)
    assert again.json == answer.json, "the same offer again is the same negotiation"
    view = await at.us.asked("GET", f"/negotiations/{answer.json['consumerPid']}")
    assert (view["waiting"], view["role"], view["terms"], view["dataset"]) == ("approval", "consumer", terms, "urn:test:d")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_termination_keeps_what_the_peer_said_in_whatever_form(at: Desk):
    process = await at.us.put(negotiation(at.us, at.peer, "REQUESTED", C))
    document = wire.message(
        Move.CONTRACT_TERMINATION, consumer_pid=process.pid, provider_pid=process.peer_pid, code="C-7",
        reason=["plain", {"@value": "in words", "@language": "en"}, {"a": 1}],
    )  # fmt: skip
    answer = await at.peer.send(at.us, "POST", f"/negotiations/{process.pid}/termination", document)
    assert answer.json["state"] == "TERMINATED"
    view = await at.us.asked("GET", f"/negotiations/{process.pid}")
    assert (view["code"], view["reasons"], view["ended_by"]) == ("C-7", ["plain", "in words", '{"a":1}'], "peer")
    received = (await at.us.evidence(process.pid))[-1]
    assert received.detail["reasons"] == view["reasons"]
