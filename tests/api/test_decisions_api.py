"""Decisions at the management listener, over sockets: what is told to the operator, in which form, and to nobody else."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from connector.api.decisions_api import LANGUAGES
from connector.dsp.messages import Kind, Role
from tests import pair
from tests.pair import ADDRESS, OPEN, Desk, Pair, agreement, call, fresh, negotiation, only_for, purpose_policy, transfer, until_policy

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    async with pair.pair(tmp_path_factory.mktemp("decisions") / "x") as made:
        yield made


async def refused(two: Pair) -> tuple[str, str, str]:
    """A negotiation that ended with a refusal: its pid at the provider and at the consumer, and the offer."""
    dataset = fresh("dataset")
    offer = (await two.provider.publish(dataset, purpose_policy("research", "quality")))["offers"][0]["id"]
    begun = await two.consumer.asked(
        "POST", "/negotiations", {"peer": "hospital", "dataset": dataset, "purposes": ["marketing"]}, status=201
    )
    done = await two.consumer.state(Kind.NEGOTIATION, begun["pid"], "TERMINATED")
    return str(done.peer_pid), done.pid, offer


async def test_a_refusal_is_explained_on_both_sides_down_to_the_constraint(two: Pair):
    ours, theirs, offer = await refused(two)
    told = await two.provider.asked("GET", f"/negotiations/{ours}/decision")
    heard = await two.consumer.asked("GET", f"/negotiations/{theirs}/decision")
    ground = {
        "code": "CONSTRAINT_UNSATISFIED",
        "policy": offer,
        "rule": "/permission/0",
        "constraint": "/permission/0/constraint/0",
        "leftOperand": "odrl:purpose",
        "operator": "isAnyOf",
        "expected": ["research", "quality"],
        "actual": ["marketing"],
    }
    assert told["refusal"]["grounds"] == heard["refusal"]["grounds"] == [ground]
    assert (told["refusal"]["by"], heard["refusal"]["by"]) == ("us", "peer")
    assert told["refusal"]["reasons"] == heard["refusal"]["reasons"]
    (constraint,) = told["decision"]["rules"][0]["constraints"]
    assert (constraint["expected"], constraint["actual"], constraint["state"]) == (["research", "quality"], "marketing", "unsatisfied")
    assert told["decision"]["near_misses"][0]["path"] == "/permission/0/constraint/0"
    assert told["terms"]["permission"] == purpose_policy("research", "quality")["permission"], "the terms that were judged: our offer"
    assert heard["decision"] is None, "the consumer has decided nothing"


async def test_what_we_have_said_is_told_in_the_language_that_is_asked_for_and_a_peer_is_quoted(two: Pair):
    ours, theirs, offer = await refused(two)
    told = await two.provider.asked("GET", f"/negotiations/{ours}/decision?lang=zh")
    (reason,) = told["decision"]["reason"]
    assert reason == told["refusal"]["reasons"][0]
    assert (
        told["told"][reason] == f"拒绝：未满足：用于“research”或“quality”；实际为 marketing（要约 {offer}, /permission/0/constraint/0）。"
    )
    assert (await two.provider.asked("GET", f"/negotiations/{ours}/decision"))["told"] == {}
    assert (await two.consumer.asked("GET", f"/negotiations/{theirs}/decision?lang=zh"))["told"] == {}


@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_terms_are_told_in_plain_words_of_both_languages(two: Pair, language: str):
    ours, _, _ = await refused(two)
    plain = (await two.provider.asked("GET", f"/negotiations/{ours}/decision?lang={language}"))["plain"]
    assert plain["sentences"]
    (condition,) = plain["conditions"]
    assert (condition["path"], condition["held"]) == ("/permission/0/constraint/0", "declared")
    assert ("用于" in plain["sentences"][0]) is (language == "zh")


async def test_what_was_judged_is_shown_although_the_offer_was_replaced_meanwhile(two: Pair):
    dataset, offer = fresh("dataset"), fresh("offer")
    await two.provider.publish(dataset, purpose_policy("research") | {"@id": offer})
    begun = await two.consumer.asked(
        "POST", "/negotiations", {"peer": "hospital", "dataset": dataset, "purposes": ["marketing"]}, status=201
    )
    done = await two.consumer.state(Kind.NEGOTIATION, begun["pid"], "TERMINATED")
    path = f"/negotiations/{done.peer_pid}/decision"
    assert (await two.provider.asked("GET", path))["terms"]["@id"] == offer
    await two.provider.publish(dataset, OPEN | {"@id": offer})
    replaced = await two.provider.asked("GET", path)
    assert (replaced["terms"]["permission"], replaced["decision"]["result"]) == (purpose_policy("research")["permission"], "deny")
    assert replaced["plain"] is not None


async def test_a_process_about_which_nothing_was_said_has_neither_decision_nor_refusal(desk: Desk):
    process = await desk.us.put(negotiation(desk.us, desk.peer, "REQUESTED", Role.CONSUMER))
    answer = await desk.us.asked("GET", f"/negotiations/{process.pid}/decision")
    assert (answer["decision"], answer["refusal"], answer["changes"]) == (None, None, [])
    assert answer["terms"]["permission"] == [{"action": "use"}]


async def test_no_secret_of_a_transfer_is_told(desk: Desk):
    agreed = agreement(desk.us, desk.peer, Role.CONSUMER)
    process = await desk.us.put(transfer(desk.us, desk.peer, "REQUESTED", Role.CONSUMER, agreed), agreed)
    document = {
        "@context": ["https://w3id.org/dspace/2025/1/context.jsonld"],
        "@type": "TransferStartMessage",
        "consumerPid": process.pid,
        "providerPid": process.peer_pid,
        "dataAddress": ADDRESS,
    }
    assert (await desk.peer.send(desk.us, "POST", f"/transfers/{process.pid}/start", document)).status == 200
    answer = await desk.us.manage("GET", f"/transfers/{process.pid}/decision")
    assert answer.json["state"] == "STARTED"
    assert b"secret-token" not in answer.body


async def test_only_the_operator_is_told(two: Pair):
    ours, _, _ = await refused(two)
    for base in (two.provider.site.settings.management.url, two.provider.site.base.removesuffix("/dsp/2025-1")):
        for method, path in (("GET", f"/v1/negotiations/{ours}/decision"), ("POST", "/v1/simulate"), ("POST", "/v1/simulate/change")):
            answer = await call(two.provider.http, method, base + path, b"{}" if method == "POST" else None)
            assert answer.status in (401, 404)
            assert b"marketing" not in answer.body


# ---- the shapes


async def test_a_simulation_has_its_members_and_its_pages(two: Pair):
    for number, policy in enumerate((purpose_policy("care"), only_for("did:web:other.example"), until_policy("2999-01-01T00:00:00Z"))):
        await two.provider.publish(f"urn:api:{number}", policy)
    found: list[Any] = []
    begun, after = False, None
    while after is not None or not begun:
        begun = True
        page = await two.provider.asked("POST", "/simulate", {"as": "biopharma", "at": "2998-01-01", "after": after, "limit": 1})
        found, after = found + [item for item in page["items"] if item["id"].startswith("urn:api:")], page["next"]
        assert page["at"] == "2998-01-01T00:00:00.000Z"
        assert page["as"]["id"] == two.consumer.site.id
    assert [item["shown"] for item in found] == [True, False, True]
    care, hidden, until = (item["offers"][0] for item in found)
    assert (care["decision"]["result"], care["decision"]["missing"]) == ("unknown", ["http://www.w3.org/ns/odrl/2/purpose"])
    assert care["request"]["result"] == "permit"
    assert (hidden["request"], hidden["grounds"][0]["rule"]) == (None, "/permission/0")
    assert (found[2]["next_change"], until["decision"]["valid_until"]) == ("2999-01-01T00:00:00.000Z", "2999-01-01T00:00:00Z")
    assert "rules" not in until["decision"], "a list stays a list"
    exact = await two.provider.asked("POST", "/simulate", {"as": "biopharma", "dataset": "urn:api:0"})
    assert exact["items"][0]["offers"][0]["decision"]["rules"]


async def test_an_act_that_is_not_use_is_asked_about_too(two: Pair):
    dataset = fresh("dataset")
    await two.provider.publish(
        dataset, {"@type": "Offer", "permission": [{"action": "use"}], "prohibition": [{"action": "odrl:distribute"}]}
    )
    results = {}
    for action in ("odrl:use", "odrl:read", "odrl:distribute"):
        page = await two.provider.asked("POST", "/simulate", {"as": "biopharma", "dataset": dataset, "action": action})
        results[action] = page["items"][0]["offers"][0]["request"]["result"]
    assert results == {"odrl:use": "permit", "odrl:read": "permit", "odrl:distribute": "deny"}


async def test_claims_stand_for_those_of_the_registry(two: Pair):
    dataset = fresh("dataset")
    await two.provider.publish(dataset, purpose_policy("care"))
    for claims, result in (({"odrl:purpose": ["care"]}, "permit"), ({"odrl:purpose": ["war"]}, "deny"), ({}, "unknown")):
        page = await two.provider.asked("POST", "/simulate", {"claims": claims, "dataset": dataset})
        assert page["items"][0]["offers"][0]["decision"]["result"] == result
        assert page["as"]["claims"] == claims


@pytest.mark.parametrize("at", ["2030-12-31", "2030-12-31T00:00:00Z", "2030-12-31T08:00:00+08:00"])
async def test_an_instant_is_written_as_a_day_or_with_its_zone(two: Pair, at: str):
    assert (await two.provider.asked("POST", "/simulate", {"as": "biopharma", "at": at}))["at"] == "2030-12-31T00:00:00.000Z"


async def test_a_mistake_points_to_its_place(desk: Desk):
    strange = {"permission": [{"action": "use"}, {"action": "eat"}]}
    await desk.us.publish("urn:api:change")
    for path, body, status, pointer in (
        ("/simulate", {"as": "biopharma", "at": "x"}, 400, "/at"),
        ("/simulate", {"as": "biopharma", "limit": 501}, 400, "/limit"),
        ("/simulate", {"as": 1}, 400, "/as"),
        ("/simulate", {}, 400, "/as"),
        ("/simulate/change", {"policy": OPEN}, 400, "/offer"),
        ("/simulate/change", {"policy": strange, "dataset": "urn:api:change"}, 422, "/policy/permission/1/action"),
    ):
        answer = await desk.us.manage("POST", path, body)
        assert (answer.status, answer.json["pointer"]) == (status, pointer), answer.json
        assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert [finding["path"] for finding in answer.json["findings"] if finding["severity"] == "error"] == ["/permission/1/action"]
    assert answer.json["findings"][0]["fix"]


async def test_a_change_has_its_members(two: Pair):
    dataset = fresh("dataset")
    offer = (await two.provider.publish(dataset, purpose_policy("care")))["offers"][0]["id"]
    answer = await two.provider.asked("POST", "/simulate/change", {"offer": offer, "policy": only_for("did:web:other.example")})
    assert answer["dataset"] == dataset
    assert answer["replaced"][0]["offer"] == offer
    assert answer["replaced"][0]["differences"]
    (lost,) = answer["items"]
    assert (lost["name"], lost["effect"], lost["known"]) == ("biopharma", "loses", True)
    assert lost["before"] == {"sees": True, "as_offered": True, "purposes": ["care"]}
    assert lost["after"] == {"sees": False, "as_offered": False, "purposes": []}
    assert "participant" in lost["reasons"][0]
    assert answer["agreements"] == {"items": [], "next": None}
    stands = await two.provider.asked("GET", f"/datasets/{dataset}")
    assert stands["offers"][0]["policy"]["permission"] == purpose_policy("care")["permission"], "nothing was changed"


@pytest.mark.parametrize("action", ["dance", "odrl:reads", "x" * 5000, "ns:", ""])
async def test_an_action_that_nobody_knows_is_refused_with_the_nearest_ones(two: Pair, action: str):
    answer = await two.provider.manage("POST", "/simulate", {"as": "biopharma", "action": action})
    assert (answer.status, answer.json["pointer"]) == (400, "/action")
    assert "nearest are `odrl:" in answer.json["detail"]
    assert len(answer.json["detail"]) < 400
    if action == "odrl:reads":
        assert "`odrl:read`" in answer.json["detail"]


@pytest.mark.parametrize("action", ["use", "odrl:read", "http://www.w3.org/ns/odrl/2/distribute"])
async def test_every_spelling_of_a_known_action_is_taken(two: Pair, action: str):
    await two.provider.asked("POST", "/simulate", {"as": "biopharma", "action": action})


@pytest.mark.parametrize("cursor", ["x'--", "", "urn:d:1", "AAAA", "é", "A" * 9])
async def test_a_cursor_that_no_page_gave_is_refused(two: Pair, cursor: str):
    dataset = fresh("dataset")
    await two.provider.publish(dataset)
    bodies = [("/simulate", {"as": "biopharma"}, "after")]
    bodies += [("/simulate/change", {"dataset": dataset, "policy": OPEN}, name) for name in ("after", "agreements_after")]
    for path, body, name in bodies:
        answer = await two.provider.manage("POST", path, body | {name: cursor})
        assert (answer.status, answer.json["pointer"]) == (400, f"/{name}")
        assert "which no page gave" in answer.json["detail"]
