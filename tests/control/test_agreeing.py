"""How two connectors come to an agreement, or do not: begun by either, with counter-offers from either, and one reason on both sides."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from connector import telemetry
from connector.dsp.exchange import Process
from connector.dsp.messages import Move
from connector.records import Agreement
from tests.control.stand import C, N
from tests.pair import Pair, pair, purpose_policy

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
    await two.provider.publish("urn:d", purpose_policy(CARE, STUDY))
    body = {"peer": "hospital", "dataset": "urn:d", "purposes": [CARE], "accept": "permitted"}
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
