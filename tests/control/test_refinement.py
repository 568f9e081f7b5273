"""Terms other than those on offer: taken where they lie within the envelope, answered with what both have in common, or refused with what
parts them; and what a consumer's acceptance template lets through."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from connector.app import Automatic
from connector.dsp import wire
from connector.dsp.messages import Move
from tests.control.stand import N, request
from tests.pair import OPEN, SCHEMAS, Answer, Desk, Pair, desk, fresh, pair, purpose_policy, until_policy

CARE, STUDY, MARKETING = "urn:p:care", "urn:p:study", "urn:p:marketing"
LATE, LATER = "2098-01-01T00:00:00Z", "2099-01-01T00:00:00Z"


def terms_of(*purposes: str, until: str | None = None, **more: Any) -> dict[str, Any]:
    """An offer for purposes, for good or until an instant."""
    (rule,) = purpose_policy(*purposes)["permission"]
    ends = until_policy(until)["permission"][0]["constraint"] if until else []
    return {"@type": "Offer", "permission": [rule | {"constraint": [*rule["constraint"], *ends]}]} | more


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def at(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    async with desk(tmp_path_factory.mktemp("refinement") / "desk", approver=Automatic(0)) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    async with pair(tmp_path_factory.mktemp("refinement") / "pair") as opened:
        yield opened


async def asked(at: Desk, policy: dict[str, Any], wanted: dict[str, Any], **members: Any) -> tuple[Answer, str, str, dict[str, Any]]:
    """Publish under `policy` and let the peer ask for `wanted`; returns the answer, our pid, the peer's, and the terms on offer."""
    dataset = fresh("dataset")
    await at.us.publish(dataset, policy, **members)
    stored = await at.us.connector.store.dataset(dataset)
    assert stored is not None
    offer = stored.offers[0]
    on_offer = dict(offer.policy) | {"@id": offer.id, "@type": "Offer", "target": dataset}
    terms = {key: value for key, value in wanted.items() if key != "@id"} | {"@id": offer.id, "@type": "Offer", "target": dataset}
    theirs = fresh("theirs")
    answer = await at.peer.send(at.us, "POST", "/negotiations/request", request(terms, at, theirs))
    return answer, answer.json.get("providerPid", ""), theirs, on_offer


# Provider


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "wanted",
    [
        terms_of(CARE, until=LATER),
        terms_of(CARE, STUDY, until=LATE),
        terms_of(STUDY, CARE, until=LATER) | {"prohibition": [{"action": "odrl:distribute"}]},
        terms_of(CARE, until=LATER) | {"obligation": [{"action": "odrl:inform"}]},
    ],
    ids=["fewer purposes", "a shorter time", "another prohibition", "another obligation"],
)
async def test_who_asks_for_less_or_takes_on_more_gets_an_agreement_over_what_they_asked(at: Desk, wanted: dict[str, Any]):
    _, pid, theirs, _ = await asked(at, terms_of(CARE, STUDY, until=LATER), wanted)
    agreed = (await at.peer.heard(f"/negotiations/{theirs}/agreement"))["agreement"]
    assert agreed["permission"] == wanted["permission"]
    done = await at.us.state(N, pid, "AGREED")
    assert done.detail["changes"], "the operator reads what was asked otherwise"


@pytest.mark.asyncio(loop_scope="module")
async def test_who_asks_for_more_here_and_less_there_is_offered_what_both_have_in_common(at: Desk):
    _, pid, theirs, on_offer = await asked(at, terms_of(CARE, STUDY, until=LATE), terms_of(CARE, until=LATER))
    message = await at.peer.heard(f"/negotiations/{theirs}/offers")
    assert SCHEMAS.reasons("ContractOfferMessage", message) == []
    counter = message["offer"]
    assert (counter["@id"], counter["target"]) == (on_offer["@id"], on_offer["target"])
    policies = at.us.connector.operations._policies
    assert policies.same(counter, terms_of(CARE, until=LATE)), "one purpose, as asked, until the end that is on offer"
    process = await at.us.state(N, pid, "OFFERED")
    assert any(LATER in change for change in process.detail["changes"]), "what was asked otherwise, axis by axis, in plain words"
    assert any("2097-12-31" in change or LATE in change for change in process.detail["instead"]), "and what was offered instead"
    accepted = wire.message(Move.ACCEPTED, consumer_pid=theirs, provider_pid=pid)
    assert (await at.peer.send(at.us, "POST", f"/negotiations/{pid}/events", accepted)).status == 200
    agreed = (await at.peer.heard(f"/negotiations/{theirs}/agreement"))["agreement"]
    assert policies.same(agreed, counter)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("counter", ["auto-counter", "approve"])
async def test_who_asks_for_a_purpose_too_many_is_offered_the_others(at: Desk, counter: str):
    """One purpose that nobody may have does not make the rest a no."""
    _, pid, theirs, _ = await asked(at, terms_of(CARE, STUDY), terms_of(STUDY, MARKETING), counter=counter)
    if counter == "approve":
        process = await at.us.state(N, pid, "REQUESTED")
        assert process.detail["waiting"] == "approval"
        assert any(MARKETING in change for change in process.detail["changes"])
        return
    offered = (await at.peer.heard(f"/negotiations/{theirs}/offers"))["offer"]
    assert at.us.connector.operations._policies.same(offered, terms_of(STUDY))


@pytest.mark.asyncio(loop_scope="module")
async def test_who_says_no_purpose_is_offered_the_offer(at: Desk):
    _, _, theirs, on_offer = await asked(at, terms_of(CARE, STUDY), OPEN)
    assert (await at.peer.heard(f"/negotiations/{theirs}/offers"))["offer"] == on_offer


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("now_on_offer", [terms_of(CARE, until=LATE), OPEN | {"assignee": "did:web:somebody.else"}], ids=["less", "nobody"])
async def test_a_counter_offer_does_not_outlive_the_offer_that_it_was_made_from(at: Desk, now_on_offer: dict[str, Any]):
    id = fresh("offer")
    _, pid, theirs, on_offer = await asked(at, terms_of(CARE, until=LATER, **{"@id": id}), terms_of(CARE))
    await at.peer.heard(f"/negotiations/{theirs}/offers")
    await at.us.state(N, pid, "OFFERED")
    await at.us.publish(on_offer["target"], now_on_offer | {"@id": id})
    accepted = wire.message(Move.ACCEPTED, consumer_pid=theirs, provider_pid=pid)
    assert (await at.peer.send(at.us, "POST", f"/negotiations/{pid}/events", accepted)).status == 200
    code, reasons = wire.reasons_of(await at.peer.heard(f"/negotiations/{theirs}/termination"))
    assert code == "offer-withdrawn"
    assert id in reasons[0]


@pytest.mark.asyncio(loop_scope="module")
async def test_where_the_offer_wants_a_person_for_it_overlapping_terms_wait_for_one(at: Desk):
    _, pid, _, _ = await asked(at, terms_of(CARE, STUDY, until=LATE), terms_of(CARE, until=LATER), counter="approve")
    process = await at.us.state(N, pid, "REQUESTED")
    assert process.detail["waiting"] == "approval"
    assert any(LATER in change or LATE in change for change in process.detail["changes"])


@pytest.mark.asyncio(loop_scope="module")
async def test_terms_that_share_nothing_with_the_offer_end_the_negotiation_and_say_what_parts_them(at: Desk):
    before = {"leftOperand": "odrl:dateTime", "operator": "lt", "rightOperand": "2001-01-01T00:00:00Z"}
    wanted = {"permission": [{"action": "use", "constraint": [before]}]}
    after = {
        "leftOperand": "odrl:dateTime",
        "operator": "gteq",
        "rightOperand": {"@value": "2020-01-01T00:00:00Z", "@type": "xsd:dateTime"},
    }
    _, pid, theirs, _ = await asked(at, {"@type": "Offer", "permission": [{"action": "use", "constraint": [after]}]}, wanted)
    code, reasons = wire.reasons_of(await at.peer.heard(f"/negotiations/{theirs}/termination"))
    assert code == "terms-disjoint"
    assert "2001" in reasons[0]
    assert (await at.us.state(N, pid, "TERMINATED")).detail["reasons"] == list(reasons)


@pytest.mark.asyncio(loop_scope="module")
async def test_an_envelope_lets_through_what_the_offer_itself_does_not_say(at: Desk):
    envelope = terms_of(CARE, STUDY, until=LATER)
    _, pid, theirs, _ = await asked(at, terms_of(CARE, until=LATE), terms_of(STUDY, until=LATER), envelope=envelope)
    agreed = (await at.peer.heard(f"/negotiations/{theirs}/agreement"))["agreement"]
    assert agreed["permission"] == terms_of(STUDY, until=LATER)["permission"]
    await at.us.state(N, pid, "AGREED")
    _, _, theirs, _ = await asked(at, terms_of(CARE, until=LATE), terms_of(MARKETING, until=LATE), envelope=envelope)
    assert MARKETING in " ".join(wire.reasons_of(await at.peer.heard(f"/negotiations/{theirs}/termination"))[1])


@pytest.mark.asyncio(loop_scope="module")
async def test_what_nobody_can_compare_waits_for_a_person(at: Desk):
    """Whether three months are within ninety days depends on the months."""
    span = {"leftOperand": "odrl:elapsedTime", "operator": "lteq"}
    months, days = ({"permission": [{"action": "use", "constraint": [span | {"rightOperand": of}]}]} for of in ("P3M", "P90D"))
    _, pid, _, _ = await asked(at, {"@type": "Offer"} | days, months)
    process = await at.us.state(N, pid, "REQUESTED")
    assert process.detail["waiting"] == "approval"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("member", "value", "pointer"),
    [("counter", "sometimes", "/counter"), ("envelope", {"permission": [{"action": "dance"}]}, "")],
)
async def test_an_envelope_or_a_way_to_counter_that_is_not_understood_is_refused_when_it_is_written(
    at: Desk, member: str, value: object, pointer: str
):
    body = {"title": "x", "source": {"type": "file", "path": "x.bin"}, "policies": [OPEN], member: value}
    answer = await at.us.manage("PUT", f"/datasets/{fresh('dataset')}", body)
    assert answer.status in (400, 422), answer.body
    assert answer.json.get("pointer", "") == pointer
    assert "dance" in str(answer.json) or "auto-counter" in str(answer.json)


# Consumer


async def begun(two: Pair, offered: dict[str, Any], **body: Any) -> Answer:
    dataset = fresh("dataset")
    published = await two.provider.publish(dataset, offered)
    said = {"peer": "hospital", "dataset": dataset, "offer": published["offers"][0]["id"]} | body
    return await two.consumer.manage("POST", "/negotiations", said)


@pytest.mark.asyncio(loop_scope="module")
async def test_nothing_wider_than_the_acceptance_template_is_sent(two: Pair):
    template = terms_of(CARE, until=LATE)
    answer = await begun(two, OPEN, policy=terms_of(CARE, until=LATER), acceptance=template)
    assert (answer.status, answer.json["pointer"]) == (400, "/acceptance")
    assert any(LATE in reason for reason in answer.json["reasons"])


PAY = {"action": "odrl:compensate", "constraint": [{"leftOperand": "odrl:payAmount", "operator": "eq", "rightOperand": "1000000"}]}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("with_template", [True, False])
@pytest.mark.parametrize("where", ["duty", "obligation"])
async def test_a_duty_that_nobody_asked_for_is_not_taken_on_without_an_operator(two: Pair, where: str, with_template: bool):
    wanted = terms_of(CARE)
    published = await two.provider.publish(fresh("dataset"), wanted, manual=True)
    said = {"peer": "hospital", "dataset": published["id"], "offer": published["offers"][0]["id"], "policy": wanted}
    pid = (await two.consumer.asked("POST", "/negotiations", said | ({"acceptance": wanted} if with_template else {}), status=201))["pid"]
    there = str((await two.consumer.state(N, pid, "REQUESTED")).peer_pid)
    (rule,) = wanted["permission"]
    dear = wanted | ({"obligation": [PAY]} if where == "obligation" else {"permission": [rule | {"duty": [PAY]}]})
    await two.provider.asked("POST", f"/negotiations/{there}/counter", {"policy": dear})
    process = await two.consumer.until(N, pid, lambda p: p.state == "OFFERED" and p.detail.get("waiting") == "approval")
    assert any("compensate" in change for change in process.detail["changes"]), "the operator reads what was added"
    await two.consumer.asked("POST", f"/negotiations/{pid}/terminate", {"reason": "too dear"})


@pytest.mark.asyncio(loop_scope="module")
async def test_one_of_several_templates_is_enough(two: Pair):
    templates = [terms_of(MARKETING), terms_of(CARE, until=LATER)]
    answer = await begun(two, terms_of(CARE, STUDY, until=LATE), policy=terms_of(CARE, until=LATER), acceptance=templates)
    assert answer.status == 201, answer.body
    await two.consumer.state(N, answer.json["pid"], "FINALIZED")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_counter_offer_within_the_template_is_taken_by_itself(two: Pair):
    answer = await begun(two, terms_of(CARE, STUDY, until=LATE), policy=terms_of(CARE, until=LATER), acceptance=terms_of(CARE, until=LATER))
    assert answer.status == 201, answer.body
    process = await two.consumer.state(N, answer.json["pid"], "FINALIZED")
    agreement = await two.consumer.connector.store.agreement(process.agreement or "")
    assert agreement is not None
    assert two.consumer.connector.operations._policies.same(agreement.document, terms_of(CARE, until=LATE))


@pytest.mark.asyncio(loop_scope="module")
async def test_an_offer_beyond_the_template_waits_and_not_even_an_operator_takes_it(two: Pair):
    offered = terms_of(CARE, until=LATER)
    published = await two.provider.publish(fresh("dataset"), offered, manual=True)
    dataset, offer = published["id"], published["offers"][0]["id"]
    template = terms_of(CARE, until=LATE)
    said = {"peer": "hospital", "dataset": dataset, "offer": offer, "policy": template, "acceptance": template}
    pid = (await two.consumer.asked("POST", "/negotiations", said, status=201))["pid"]
    there = str((await two.consumer.state(N, pid, "REQUESTED")).peer_pid)
    await two.provider.asked("POST", f"/negotiations/{there}/counter", {"policy": offered})
    await two.consumer.until(N, pid, lambda p: p.state == "OFFERED" and p.detail.get("waiting") == "approval")
    answer = await two.consumer.manage("POST", f"/negotiations/{pid}/approve", {})
    assert 400 <= answer.status < 500, answer.body
    assert "template" in answer.json["detail"]
    await two.consumer.state(N, pid, "OFFERED")
    await two.consumer.asked("POST", f"/negotiations/{pid}/terminate", {"reason": "too wide"})


@pytest.mark.asyncio(loop_scope="module")
async def test_an_offer_that_shares_nothing_with_the_template_is_refused_with_what_parts_them(two: Pair):
    template = terms_of(CARE)
    published = await two.provider.publish(fresh("dataset"), template, manual=True)
    said = {
        "peer": "hospital",
        "dataset": published["id"],
        "offer": published["offers"][0]["id"],
        "policy": template,
        "acceptance": template,
    }
    pid = (await two.consumer.asked("POST", "/negotiations", said, status=201))["pid"]
    there = str((await two.consumer.state(N, pid, "REQUESTED")).peer_pid)
    await two.provider.asked("POST", f"/negotiations/{there}/counter", {"policy": terms_of(STUDY)})
    ended = await two.consumer.state(N, pid, "TERMINATED")
    assert ended.detail["code"] == "terms-disjoint"
    assert (await two.provider.state(N, there, "TERMINATED")).detail["reasons"] == ended.detail["reasons"]
