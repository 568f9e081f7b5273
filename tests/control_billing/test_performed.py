"""Duties under an agreement: what comes first blocks the transfer until it is recorded, what was recorded lets it run, and what it says."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from connector.control_billing.performed import performance
from connector.errors import InvalidRequest
from connector.metering_bills.currencies import CURRENCY
from connector.odrl import load
from tests.control.stand import N, T
from tests.metering_bills.priced import money, priced, unit
from tests.pair import Pair, fresh, pair

CONSENT = {"action": "odrl:obtainConsent"}


def offer(*duties: dict[str, Any]) -> dict[str, Any]:
    return {
        "@type": "Offer",
        "permission": [{"action": "use", "duty": list(duties)} if duties else {"action": "use"}],
        "prohibition": [{"action": "odrl:distribute"}],
    }


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    async with pair(tmp_path_factory.mktemp("duties") / "pair", store="sqlite") as opened:
        yield opened


async def agreed(two: Pair, policy: dict[str, Any]) -> str:
    """An agreement under the policy; its id is that of both sides."""
    published = await two.provider.publish(fresh("dataset"), policy)
    said = {"peer": "hospital", "dataset": published["id"], "offer": published["offers"][0]["id"]}
    begun = await two.consumer.asked("POST", "/negotiations", said, status=201)
    return str((await two.consumer.state(N, begun["pid"], "FINALIZED")).agreement)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_duty_that_comes_first_blocks_the_transfer_until_it_is_on_record(two: Pair):
    agreement = await agreed(two, offer(CONSENT))
    begun = await two.consumer.asked("POST", "/transfers", {"agreement": agreement}, status=201)
    ended = await two.consumer.state(T, begun["pid"], "TERMINATED")
    assert ended.detail["code"] in ("CONSENT_MISSING", "PREDUTY_OPEN")
    assert "obtainConsent" in ended.detail["reasons"][0]
    duty = "/permission/0/duty/0"
    view = await two.provider.asked("POST", f"/agreements/{agreement}/performances", {"duty": duty}, status=201)
    assert [(act["duty"], act["by"]) for act in view["performed"]] == [(duty, two.consumer.site.id)], "whose duty it is"
    begun = await two.consumer.asked("POST", "/transfers", {"agreement": agreement}, status=201)
    await two.consumer.state(T, begun["pid"], "STARTED")
    await two.consumer.asked("POST", f"/transfers/{begun['pid']}/complete", {})


@pytest.mark.asyncio(loop_scope="module")
async def test_acts_that_are_recorded_at_once_take_turns_as_do_those_who_close_an_agreement(two: Pair):
    operations, many = two.provider.connector.operations, 12
    agreement = await agreed(two, offer(CONSENT))
    one = partial(operations.perform, agreement, "/permission/0/duty/0", action=None, at=None, by=None, amounts={})
    kept = await asyncio.gather(*(one() for _ in range(many)))
    assert sorted(len(each.performed) for each in kept) == list(range(1, many + 1))
    closed = await asyncio.gather(*(operations.close(agreement, f"reason {n}") for n in range(many)))
    assert len({each.reason for each in closed}) == 1


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("action", "place"), [("anonymize", "duty"), ("watermark", "duty"), ("anonymize", "obligation")])
async def test_what_shapes_the_data_is_for_who_uses_them_or_nothing_leaves_before_it_is_done(two: Pair, action: str, place: str):
    """No stage of this connector shapes data: where the provider owes it, the transfer is refused and says what is missing."""
    owed = {"action": f"odrl:{action}", "assignee": two.provider.site.id}
    of_user, ours = offer({"action": f"odrl:{action}"}), offer(owed) if place == "duty" else {**offer(), "obligation": [owed]}
    begun = await two.consumer.asked("POST", "/transfers", {"agreement": await agreed(two, of_user)}, status=201)
    await two.consumer.state(T, begun["pid"], "STARTED")
    await two.consumer.asked("POST", f"/transfers/{begun['pid']}/complete", {})
    agreement = await agreed(two, ours)
    begun = await two.consumer.asked("POST", "/transfers", {"agreement": agreement}, status=201)
    ended = await two.consumer.state(T, begun["pid"], "TERMINATED")
    assert ended.detail["code"] == "PREDUTY_OPEN"
    assert f"first it is a duty of <{two.provider.site.id}> to {action}, and nothing shows" in ended.detail["reasons"][0]
    done = {"duty": "/permission/0/duty/0" if place == "duty" else "/obligation/0", "by": two.provider.site.id}
    await two.provider.asked("POST", f"/agreements/{agreement}/performances", done, status=201)
    begun = await two.consumer.asked("POST", "/transfers", {"agreement": agreement}, status=201)
    await two.consumer.state(T, begun["pid"], "STARTED")
    await two.consumer.asked("POST", f"/transfers/{begun['pid']}/complete", {})


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"duty": "/permission/0/duty/7"}, "/duty"),
        ({"duty": "/permission/0/duty/0", "action": "odrl:delete"}, "/action"),
        ({"duty": "/permission/0/duty/0", "by": "did:web:somebody.else"}, "/action"),
        ({"duty": "/permission/0/duty/0", "at": "2999-01-01T00:00:00Z"}, "/at"),
        ({"duty": "/permission/0/duty/0", "at": "soon"}, "/at"),
        *[
            ({"duty": "/permission/0/duty/0", "amounts": {"http://www.w3.org/ns/odrl/2/payAmount": much}}, "/amounts")
            for much in ("much", "1/0", "1e99999999", "5,00", "")
        ],
    ],
)
async def test_what_fulfils_no_duty_is_not_recorded_and_the_answer_says_why(two: Pair, body: dict[str, Any], pointer: str):
    agreement = await agreed(two, offer(CONSENT))
    answer = await two.provider.manage("POST", f"/agreements/{agreement}/performances", body)
    assert (answer.status, answer.json["pointer"]) == (400, pointer), answer.body
    stored = await two.provider.connector.store.agreement(agreement)
    assert stored is not None
    assert stored.performed == ()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_duty_after_the_use_does_not_block_it_and_stands_in_the_decision(two: Pair):
    delete = {"action": "odrl:delete", "constraint": [{"leftOperand": "odrl:delayPeriod", "operator": "lteq", "rightOperand": "P30D"}]}
    agreement = await agreed(two, offer(delete))
    begun = await two.consumer.asked("POST", "/transfers", {"agreement": agreement}, status=201)
    started = await two.consumer.state(T, begun["pid"], "STARTED")
    there = await two.provider.connector.store.process(T, str(started.peer_pid))
    assert there is not None
    (duty,) = there.detail["decision"]["duties"]
    assert (there.detail["decision"]["result"], duty["when"], duty["state"]) == ("permit-with", "post", "pending")
    assert duty["due_by"] is not None
    await two.consumer.asked("POST", f"/transfers/{begun['pid']}/complete", {})


@pytest.mark.asyncio(loop_scope="module")
async def test_a_subscription_that_comes_first_is_paid_by_what_it_comes_to(two: Pair):
    agreement = await agreed(two, offer(priced(money("9.99"), unit("subscription"), constraints=())))
    duty, euro = "/permission/0/duty/0", f"http://www.w3.org/ns/odrl/2/payAmount {CURRENCY}EUR"
    begun = await two.consumer.asked("POST", "/transfers", {"agreement": agreement}, status=201)
    assert (await two.consumer.state(T, begun["pid"], "TERMINATED")).detail["code"] == "PREDUTY_OPEN"
    for amounts in ({}, {euro: "9.98"}, {euro.replace("EUR", "USD"): "9.99"}):
        answer = await two.provider.manage("POST", f"/agreements/{agreement}/performances", {"duty": duty, "amounts": amounts})
        assert (answer.status, answer.json["pointer"]) == (400, "/action")
    for who in ("Jane Roe", "mailto:jane.roe@hospital.example", "tel:+41791234567"):  # anybody may pay, and stays on record for good
        for body, pointer in (({"by": who, "amounts": {euro: "9.99"}}, "/by"), ({"amounts": {euro: "9.99", who: "1"}}, "/amounts")):
            answer = await two.provider.manage("POST", f"/agreements/{agreement}/performances", {"duty": duty} | body)
            assert (answer.status, answer.json["pointer"]) == (400, pointer)
            assert who.encode() not in answer.body
    await two.provider.asked("POST", f"/agreements/{agreement}/performances", {"duty": duty, "amounts": {euro: "9.99"}}, status=201)
    begun = await two.consumer.asked("POST", "/transfers", {"agreement": agreement}, status=201)
    await two.consumer.state(T, begun["pid"], "STARTED")
    await two.consumer.asked("POST", f"/transfers/{begun['pid']}/complete", {})


def test_who_pays_a_price_that_names_its_debtor_is_named_by_an_id_too():
    debtor = "mailto:billing@consumer.example"
    duty = priced(money("9.99"), unit("subscription"), constraints=(), assignee=debtor)
    policy, paid = load(offer(duty)), {f"http://www.w3.org/ns/odrl/2/payAmount {CURRENCY}EUR": "9.99"}
    for who in (debtor, "did:web:bank.example"):
        assert performance(policy, "/permission/0/duty/0", None, 1.0, who, paid)["by"] == who
    for who in ("Jane Roe", "TEL:+41791234567", "sip:+41791234567"):
        with pytest.raises(InvalidRequest, match="no id") as refused:
            performance(policy, "/permission/0/duty/0", None, 1.0, who, paid)
        assert refused.value.pointer == "/by"
