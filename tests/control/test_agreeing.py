"""How two connectors come to an agreement, or do not: begun by either, with counter-offers from either, and one reason on both sides."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from connector import telemetry
from connector.adapters.clock import SystemClock
from connector.adapters.memory import MemoryStore
from connector.control.negotiate import Negotiations
from connector.control.policies import Policies
from connector.dsp.exchange import Process
from connector.dsp.messages import Move
from connector.records import Agreement, Changes, Dataset, Offer
from connector.settings.fields import ApprovalSettings
from connector.values import replace
from tests.control.stand import C, N, P, Standing
from tests.pair import OPEN, Pair, pair, purpose_policy, until_policy

CARE, STUDY, MARKETING = "urn:p:care", "urn:p:study", "urn:p:marketing"


@pytest_asyncio.fixture
async def two(tmp_path: Path) -> AsyncIterator[Pair]:
    async with pair(tmp_path / "pair") as opened:
        yield opened


async def finalized(two: Pair, process: Process) -> tuple[Agreement, Agreement]:
    """Both agreements, once both sides are through."""
    us, them = (two.consumer, two.provider) if process.role is C else (two.provider, two.consumer)
    ours = await us.state(N, process.pid, "FINALIZED")
    theirs = await them.state(N, str(ours.peer_pid), "FINALIZED")
    found = [await each.connector.store.agreement(str(p.agreement)) for each, p in ((us, ours), (them, theirs))]
    assert None not in found
    return found[0], found[1]  # type: ignore[return-value]


@pytest.mark.asyncio
async def test_two_connectors_come_to_one_agreement_with_a_counter_offer_on_the_way(two: Pair):
    published = await two.provider.publish("urn:d", until_policy("2099-01-01T00:00:00Z"))
    asked = {"policy": OPEN, "offer": published["offers"][0]["id"]}
    body = {"peer": "hospital", "dataset": "urn:d", "accept": "permitted"} | asked
    begun = await two.consumer.asked("POST", "/negotiations", body, status=201)
    process = await two.consumer.until(N, begun["pid"], lambda p: p.final)
    ours, theirs = await finalized(two, process)
    assert (ours.id, ours.digest, ours.final, theirs.final) == (theirs.id, theirs.digest, True, True)
    moves = [e.move for e in await two.consumer.evidence(process.pid) if e.what == telemetry.RECEIVED]
    assert moves == [Move.CONTRACT_OFFER, Move.CONTRACT_AGREEMENT, Move.FINALIZED]


@pytest.mark.asyncio
async def test_operators_of_both_sides_haggle_and_either_may_end_on_the_others_terms(two: Pair):
    """Request, counter-offer, counter-request, counter-offer, acceptance: each by hand, and the last terms count."""
    await two.provider.publish("urn:d", purpose_policy(CARE, STUDY), manual=True)
    body = {"peer": "hospital", "dataset": "urn:d", "purposes": [CARE], "accept": "operator"}
    begun = await two.consumer.asked("POST", "/negotiations", body, status=201)
    ours = await two.consumer.state(N, begun["pid"], "REQUESTED")
    there = str(ours.peer_pid)
    last = purpose_policy(STUDY)
    await two.provider.asked("POST", f"/negotiations/{there}/counter", {"policy": purpose_policy(CARE)})
    await two.provider.state(N, there, "OFFERED")
    await two.consumer.until(N, ours.pid, lambda p: p.detail.get("waiting") == "approval")
    await two.consumer.asked("POST", f"/negotiations/{ours.pid}/counter", {"policy": purpose_policy(CARE, STUDY)})
    await two.consumer.state(N, ours.pid, "REQUESTED")
    await two.provider.until(N, there, lambda p: p.state == "REQUESTED" and p.detail.get("waiting") == "approval")
    await two.provider.asked("POST", f"/negotiations/{there}/counter", {"policy": last})
    await two.consumer.until(N, ours.pid, lambda p: p.state == "OFFERED" and p.detail.get("waiting") == "approval")
    await two.consumer.asked("POST", f"/negotiations/{ours.pid}/approve", {})
    one, other = await finalized(two, ours)
    assert one.document == other.document
    assert one.document["permission"] == last["permission"]


@pytest.mark.asyncio
async def test_a_provider_begins_and_the_consumer_says_yes_or_no(two: Pair):
    published = await two.provider.publish("urn:d")
    offer = published["offers"][0]["id"]
    pids = []
    for _ in range(2):
        begun = await two.provider.asked(
            "POST", "/negotiations/offers", {"peer": "biopharma", "dataset": "urn:d", "offer": offer}, status=201
        )
        pids.append((await two.provider.state(N, begun["pid"], "OFFERED")).peer_pid)
    yes, no = pids
    await two.consumer.asked("POST", f"/negotiations/{yes}/approve", {})
    await two.consumer.asked("POST", f"/negotiations/{no}/terminate", {"reason": "not interested"})
    process = await two.consumer.state(N, str(yes), "FINALIZED")
    one, other = await finalized(two, process)
    assert one.document == other.document
    ended = await two.consumer.state(N, str(no), "TERMINATED")
    there = await two.provider.state(N, str(ended.peer_pid), "TERMINATED")
    assert (there.state, there.detail["reasons"], there.detail["ended_by"]) == ("TERMINATED", ["not interested"], "peer")


@pytest.mark.asyncio
async def test_a_refusal_stands_on_both_sides_with_one_and_the_same_reason(two: Pair):
    await two.provider.publish("urn:d", purpose_policy(CARE))
    body = {"peer": "hospital", "dataset": "urn:d", "purposes": [MARKETING], "accept": "permitted"}
    begun = await two.consumer.asked("POST", "/negotiations", body, status=201)
    ours = await two.consumer.state(N, begun["pid"], "TERMINATED")
    there = await two.provider.state(N, str(ours.peer_pid), "TERMINATED")
    assert ours.detail["reasons"] == there.detail["reasons"]
    assert ours.detail["reasons"]
    assert (ours.detail["ended_by"], there.detail["ended_by"]) == ("peer", "us")


@pytest.mark.asyncio
async def test_many_negotiations_at_once_all_come_to_their_own_agreement(two: Pair):
    await two.provider.publish("urn:d")
    body = {"peer": "hospital", "dataset": "urn:d"}
    begun = await asyncio.gather(*(two.consumer.asked("POST", "/negotiations", body, status=201) for _ in range(12)))
    done = await asyncio.gather(*(two.consumer.until(N, each["pid"], lambda p: p.final) for each in begun))
    assert {process.state for process in done} == {"FINALIZED"}
    assert len({process.agreement for process in done}) == 12


# What was on offer when it was asked for, and is not when it would be agreed to


async def asked_by_hand(two: Pair, policy: dict[str, Any]) -> tuple[str, str]:
    """A negotiation that waits for the provider's operator; our pid and the provider's."""
    await two.provider.publish("urn:d", policy, manual=True)
    begun = await two.consumer.asked("POST", "/negotiations", {"peer": "hospital", "dataset": "urn:d"}, status=201)
    ours = await two.consumer.state(N, begun["pid"], "REQUESTED")
    await two.provider.until(N, str(ours.peer_pid), lambda p: p.detail.get("waiting") == "approval")
    return ours.pid, str(ours.peer_pid)


async def ended(two: Pair, pid: str, there: str) -> tuple[str, str]:
    """Both sides have ended with one and the same reason, and no agreement was made; returns code and reason."""
    ours = await two.consumer.state(N, pid, "TERMINATED")
    theirs = await two.provider.state(N, there, "TERMINATED")
    assert (ours.detail["code"], ours.detail["reasons"]) == (theirs.detail["code"], theirs.detail["reasons"])
    assert (ours.detail["ended_by"], theirs.detail["ended_by"]) == ("peer", "us")
    assert "waiting" not in theirs.detail
    for side in (two.consumer, two.provider):
        assert (await side.asked("GET", "/agreements"))["items"] == []
    return ours.detail["code"], " ".join(ours.detail["reasons"])


def until(instant: float) -> dict[str, Any]:
    return until_policy(f"{datetime.fromtimestamp(instant, UTC):%Y-%m-%dT%H:%M:%S.%f}Z")


LATER_SECONDS = 60.0  # ahead, where terms lapse: time enough to ask for them on any machine, and both sides' clocks jump over the rest


def pass_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SystemClock, "now", lambda _: time.time() + LATER_SECONDS)


@pytest.mark.asyncio
async def test_what_was_withdrawn_is_not_agreed_to_by_an_operator_and_both_sides_read_why(two: Pair):
    pid, there = await asked_by_hand(two, OPEN)
    await two.provider.asked("DELETE", "/datasets/urn:d", status=204)
    answer = await two.provider.asked("POST", f"/negotiations/{there}/approve", {})
    assert "withdrawn" in " ".join(answer["reasons"]), "the operator reads it at once"
    code, reason = await ended(two, pid, there)
    assert (code, "`urn:d` is not on offer any more" in reason) == ("offer-withdrawn", True)


@pytest.mark.asyncio
async def test_what_was_published_anew_on_other_terms_is_not_agreed_to_on_the_old_ones(two: Pair):
    pid, there = await asked_by_hand(two, OPEN)
    await two.provider.publish("urn:d", purpose_policy(CARE), manual=True)
    await two.provider.asked("POST", f"/negotiations/{there}/approve", {})
    assert (await ended(two, pid, there))[0] == "offer-withdrawn"


@pytest.mark.asyncio
async def test_what_has_lapsed_is_not_agreed_to_by_the_providers_operator(two: Pair, monkeypatch: pytest.MonkeyPatch):
    pid, there = await asked_by_hand(two, until(time.time() + LATER_SECONDS))
    pass_by(monkeypatch)
    await two.provider.asked("POST", f"/negotiations/{there}/approve", {})
    code, reason = await ended(two, pid, there)
    assert code not in ("offer-withdrawn", "operator")
    assert "is not before" in reason


@pytest.mark.asyncio
async def test_an_offer_that_lapsed_while_the_consumers_operator_thought_is_not_accepted(two: Pair, monkeypatch: pytest.MonkeyPatch):
    offer = (await two.provider.publish("urn:d", until(time.time() + LATER_SECONDS)))["offers"][0]["id"]
    body = {"peer": "biopharma", "dataset": "urn:d", "offer": offer}
    there = (await two.provider.asked("POST", "/negotiations/offers", body, status=201))["pid"]
    pid = str((await two.provider.state(N, there, "OFFERED")).peer_pid)
    pass_by(monkeypatch)
    await two.consumer.asked("POST", f"/negotiations/{pid}/approve", {})
    ours = await two.consumer.state(N, pid, "TERMINATED")
    theirs = await two.provider.state(N, there, "TERMINATED")
    assert ours.detail["reasons"] == theirs.detail["reasons"]
    assert "is not before" in " ".join(ours.detail["reasons"])


@pytest.mark.asyncio
async def test_an_acceptance_of_what_was_withdrawn_meanwhile_ends_the_negotiation(two: Pair):
    """The finding: offered, withdrawn, accepted, agreed."""
    offer = (await two.provider.publish("urn:d"))["offers"][0]["id"]
    body = {"peer": "biopharma", "dataset": "urn:d", "offer": offer}
    there = (await two.provider.asked("POST", "/negotiations/offers", body, status=201))["pid"]
    pid = str((await two.provider.state(N, there, "OFFERED")).peer_pid)
    await two.provider.asked("DELETE", "/datasets/urn:d", status=204)
    await two.consumer.asked("POST", f"/negotiations/{pid}/approve", {})
    assert (await ended(two, pid, there))[0] == "offer-withdrawn"


@pytest.mark.asyncio
async def test_an_agreement_that_was_put_off_is_decided_on_again(tmp_path: Path):
    async with pair(tmp_path, provider={"approval": ApprovalSettings(delay_seconds=0.5)}) as two:
        await two.provider.publish("urn:d")
        begun = await two.consumer.asked("POST", "/negotiations", {"peer": "hospital", "dataset": "urn:d"}, status=201)
        ours = await two.consumer.state(N, begun["pid"], "REQUESTED")
        await two.provider.asked("DELETE", "/datasets/urn:d", status=204)
        assert (await ended(two, ours.pid, str(ours.peer_pid)))[0] == "offer-withdrawn"


@pytest.mark.asyncio
async def test_a_withdrawal_between_our_reading_and_the_write_counts(two: Pair):
    """The dataset goes in the moment before the agreement would be written."""
    await two.provider.publish("urn:d")
    store = two.provider.connector.store

    async def instead(changes: Changes) -> Any:
        if any(isinstance(each, Agreement) for each in changes.saves):
            await type(store).commit(store, Changes(deletes=((Dataset, "urn:d"),)))
        return await type(store).commit(store, changes)

    with two.provider.commits(instead):
        begun = await two.consumer.asked("POST", "/negotiations", {"peer": "hospital", "dataset": "urn:d"}, status=201)
        ours = await two.consumer.state(N, begun["pid"], "TERMINATED")
    assert "withdrawn" in " ".join(ours.detail["reasons"])
    assert (await two.provider.asked("GET", "/agreements"))["items"] == []


@pytest.mark.asyncio
async def test_other_terms_that_are_published_between_our_reading_and_the_write_count(two: Pair):
    await two.provider.publish("urn:d", OPEN)
    store = two.provider.connector.store
    (offer,) = getattr(await store.dataset("urn:d"), "offers", ())

    async def instead(changes: Changes) -> Any:
        found = await store.dataset("urn:d")
        if found is not None and offer in found.offers and any(isinstance(each, Agreement) for each in changes.saves):
            narrower = replace(offer, policy=purpose_policy("urn:p:research"))
            await type(store).commit(store, Changes(saves=(replace(found, version=found.version + 1, offers=(narrower,)),)))
        return await type(store).commit(store, changes)

    with two.provider.commits(instead):
        begun = await two.consumer.asked("POST", "/negotiations", {"peer": "hospital", "dataset": "urn:d"}, status=201)
        await two.consumer.until(N, begun["pid"], lambda p: p.state in ("OFFERED", "TERMINATED", "FINALIZED") and p.in_flight is None)
    assert (await two.provider.asked("GET", "/agreements"))["items"] == []


TERMS = {"@id": "urn:o", "@type": "Offer", "target": "urn:d"}
NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("state", "published", "terms", "made"),
    [
        pytest.param("ACCEPTED", purpose_policy(CARE), purpose_policy(CARE), True, id="as published"),
        pytest.param("ACCEPTED", purpose_policy(CARE), purpose_policy(STUDY), True, id="an operator's own offer is its own"),
        pytest.param("REQUESTED", purpose_policy(CARE), purpose_policy(STUDY), False, id="a wish has to fit what is published"),
        pytest.param("REQUESTED", purpose_policy(CARE, STUDY), purpose_policy(STUDY), True, id="and may be narrower"),
        pytest.param("ACCEPTED", OPEN, until(NOW - 1), False, id="terms of an operator lapse too"),
        pytest.param("REQUESTED", OPEN, until(NOW - 1), False, id="and those of a consumer"),
        pytest.param("REQUESTED", until(NOW - 1), OPEN, False, id="the offer's own time counts, whatever was asked"),
    ],
)
@pytest.mark.asyncio
async def test_only_what_is_on_offer_and_permitted_now_is_agreed_to(
    state: str, published: dict[str, Any], terms: dict[str, Any], made: bool
):
    store = MemoryStore()
    await store.commit(Changes(saves=(Dataset("urn:d", b"{}", {}, (Offer("urn:o", "urn:d", published),)),)))
    detail = {"terms": terms | TERMS, "offer": "urn:o", "waiting": "approval"}
    process = Process(N, "urn:n", P, "did:web:peer.example", "https://peer.test", state, "urn:theirs", dataset="urn:d", detail=detail)
    reaction = await Negotiations(store, Policies(), Standing("did:web:us.example")).agree(process, {}, NOW)
    assert reaction.act is not None
    assert reaction.act.move is (Move.CONTRACT_AGREEMENT if made else Move.CONTRACT_TERMINATION)
    assert bool(reaction.act.reasons) is not made
    assert "waiting" not in reaction.process.detail


@pytest.mark.asyncio
async def test_an_agreement_ends_when_its_own_terms_do():
    """What both have signed counts: an operator may agree to more than is on offer."""
    for published, asked in ((NOW + 10, NOW + 20), (NOW + 20, NOW + 10)):
        store = MemoryStore()
        await store.commit(Changes(saves=(Dataset("urn:d", b"{}", {}, (Offer("urn:o", "urn:d", until(published)),)),)))
        detail = {"terms": until(asked) | TERMS, "offer": "urn:o"}
        process = Process(N, "urn:n", P, "did:web:p.example", "https://peer.test", "REQUESTED", "urn:t", dataset="urn:d", detail=detail)
        reaction = await Negotiations(store, Policies(), Standing("did:web:us.example")).agree(process, {}, NOW)
        assert reaction.process.detail["ends"] == pytest.approx(asked, abs=0.001)


@pytest.mark.parametrize(
    ("decision", "move"),
    [
        pytest.param({"result": "permit"}, Move.CONTRACT_TERMINATION, id="it was permitted when the operator read it"),
        pytest.param({"result": "deny"}, Move.ACCEPTED, id="the operator has read that it is not, and wants it"),
    ],
)
@pytest.mark.asyncio
async def test_a_consumers_operator_decides_on_what_it_has_read(decision: dict[str, Any], move: Move):
    detail = {"terms": until(NOW - 1) | TERMS, "decision": decision, "waiting": "approval"}
    process = Process(N, "urn:n", C, "did:web:p.example", "https://peer.test", "OFFERED", "urn:t", dataset="urn:d", detail=detail)
    reaction = await Negotiations(MemoryStore(), Policies(), Standing("did:web:us.example")).approved(process, NOW)
    assert reaction.act is not None
    assert (reaction.act.move, bool(reaction.act.reasons)) == (move, move.termination)
    assert "waiting" not in reaction.process.detail


@pytest.mark.parametrize(
    ("claims", "lapsed", "move", "code"),
    [
        ({"odrl:industry": ("health",)}, False, Move.CONTRACT_AGREEMENT, None),
        ({"odrl:industry": ("arms",)}, False, Move.CONTRACT_TERMINATION, "CONSTRAINT_UNSATISFIED"),
        ({"odrl:industry": ("health",)}, True, Move.CONTRACT_TERMINATION, "CONSTRAINT_UNKNOWN"),
        (None, False, Move.CONTRACT_TERMINATION, "CREDENTIAL_REVOKED"),
    ],
)
@pytest.mark.asyncio
async def test_what_an_operator_approves_is_decided_by_what_is_known_of_the_consumer_then(
    claims: dict[str, Any] | None, lapsed: bool, move: Move, code: str | None
):
    """The consumer has said its word days ago, and was something else then."""
    peer, store = "did:web:p.example", MemoryStore()
    constraint = {"leftOperand": "odrl:industry", "operator": "isAnyOf", "rightOperand": ["health"]}
    policy = {"@type": "Offer", "permission": [{"action": "use", "constraint": [constraint]}]}
    await store.commit(Changes(saves=(Dataset("urn:d", b"{}", {}, (Offer("urn:o", "urn:d", policy),)),)))
    detail = {"terms": policy | TERMS, "offer": "urn:o", "claims": {"odrl:industry": ["health"]}, "claims_expire": NOW - 1}
    process = Process(N, "urn:n", P, peer, "https://peer.test", "REQUESTED", "urn:t", dataset="urn:d", detail=detail)
    identity = Standing("did:web:us.example", now=lambda: NOW, **({peer: claims} if claims is not None else {}))
    identity.lapse[peer] = NOW - 1 if lapsed else NOW + 60
    reaction = await Negotiations(store, Policies(), identity).approved(process, NOW)
    assert reaction.act is not None
    assert (reaction.act.move, reaction.act.code) == (move, code)
