"""Budgets between two connectors: what was agreed on is spent and not one part more, and the end says why on both sides."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from connector.metering_bills.currencies import CURRENCY
from connector.odrl.operands import PAY_AMOUNT
from tests.control.orders import D, N, T
from tests.control.test_quotas import RULE, USERS, agreed, begin, fetch, offer, used
from tests.metering_bills.priced import count, every, money, price, unit
from tests.pair import Pair, pair, quoted

EUR = f"{PAY_AMOUNT} {CURRENCY}EUR"


@pytest_asyncio.fixture
async def two(tmp_path: Path) -> AsyncIterator[Pair]:
    async with pair(tmp_path / "pair", store="sqlite") as opened:
        yield opened


def within(limit: str, *duties: dict[str, Any]) -> dict[str, Any]:
    return {"@type": "Offer", "permission": [{"action": "use", "constraint": [money(limit, operator="lteq")], "duty": list(duties)}]}


@pytest.mark.asyncio
async def test_fifty_transfers_of_one_agreement_spend_its_budget_to_the_last_byte_that_it_pays_for(two: Pair):
    content, policy = bytes(range(256)) * 1000, within("3.000001", price("1", "megabyte"))
    agreement = await agreed(two, policy, content)
    transfers = await asyncio.gather(*(begin(two, agreement) for _ in range(USERS)))
    assert all(each.state == "STARTED" for each in transfers)
    taken = await asyncio.gather(*(fetch(two, each) for each in transfers))
    assert sum(len(body) for _, body, _ in taken) == 3_000_001
    assert (await used(two, agreement)).posted == ((RULE, EUR, 3_000_001),)
    seen = await two.provider.asked("GET", f"/agreements/{quoted(agreement)}")
    assert seen["counters"] == [
        {"rule": RULE, "operand": PAY_AMOUNT, "used": "3.000001", "reserved": "0.00", "limit": "3.000001", "currency": "EUR"}
    ]
    short = [mine for mine, (_, body, _) in zip(transfers, taken, strict=True) if len(body) < len(content)]
    for mine in short:
        ended = await two.consumer.state(T, mine.pid, "TERMINATED")
        assert (ended.detail["code"], ended.detail["ended_by"]) == ("QUOTA_EXHAUSTED", "peer")
    late = await begin(two, agreement)
    assert (late.state, late.detail["code"]) == ("TERMINATED", "QUOTA_EXHAUSTED")


@pytest.mark.asyncio
async def test_records_are_paid_for_whole_and_a_new_agreement_is_for_a_person_to_make(two: Pair):
    content = b"".join(b'{"n":%d}\n' % n for n in range(1000))
    (two.provider.site.root / "data" / "lines.ndjson").write_bytes(content)
    said = {"type": "file", "path": "lines.ndjson", "media_type": "application/x-ndjson"}
    agreement = await agreed(two, within("2.47", price("0.02", "record")), source=said)
    mine = await begin(two, agreement)
    assert (await fetch(two, mine))[1] == b"".join(content.splitlines(keepends=True)[:123])
    assert (await used(two, agreement)).posted == ((RULE, EUR, 246 // 2),)
    again = await two.consumer.asked("POST", "/negotiations", {"peer": "hospital", "dataset": D}, status=201)
    asked = await two.consumer.until(N, again["pid"], lambda p: p.state == "REQUESTED" and p.peer_pid is not None)
    view = await two.provider.asked("GET", f"/negotiations/{asked.peer_pid}")
    assert view["waiting"] == "approval"
    assert "is used up (`odrl:payAmount`)" in view["changes"][0], "the last cent pays for nothing"


@pytest.mark.asyncio
async def test_what_is_paid_once_is_a_part_of_the_budget(two: Pair):
    policy = within("2", price("1.5", "subscription"), price("1", "megabyte"))
    agreement = await agreed(two, policy, bytes(800_000))
    mine = await begin(two, agreement)
    assert len((await fetch(two, mine))[1]) == 500_000
    seen = await two.provider.asked("GET", f"/agreements/{quoted(agreement)}")
    assert (seen["counters"][0]["used"], seen["counters"][0]["limit"]) == ("2.00", "2.00")


@pytest.mark.parametrize(
    ("duties", "says"),
    [
        ((), "`odrl:payAmount` is not measured here: what a use costs is not known: the policy has no prices"),
        ((price("1", "megabyte", currency="USD"),), "the budget is in EUR, and the prices are in USD"),
        ((price("1", "minute"),), "a price by the minute (`/permission/0/duty/0`) cannot be kept within a budget"),
        ((price("1", "subscription", every("P1M")),), "a price by the period"),
        ((price("1", "megabyte", count("gt", 5)),), "a price for a band of units"),
        ((price("1", "record"),), "records have a signed count in line-delimited JSON and live events only, so"),
        ((price("1", "person"),), "persons are not counted by this connector"),
        (({"action": {"rdf:value": {"@id": "odrl:compensate"}, "odrl:refinement": [unit("record")]}},), "a price without `odrl:payAmount`"),
    ],
)
@pytest.mark.asyncio
async def test_what_nobody_could_charge_or_hold_to_is_refused_when_it_is_written(two: Pair, duties: tuple[dict[str, Any], ...], says: str):
    (two.provider.site.root / "data" / "x.bin").write_bytes(b"x")
    body = {"title": "x", "source": {"type": "file", "path": "x.bin"}, "policies": [within("20", *duties)]}
    answer = await two.provider.manage("PUT", f"/datasets/{quoted(D)}", body)
    assert (answer.status, answer.json["type"]) == (422, "urn:qiao:problem:policy-not-understood")
    assert says in answer.json["reasons"][0]
    assert answer.json["reasons"][0].startswith("/permission/0/")
    assert (await two.provider.manage("GET", f"/datasets/{quoted(D)}")).status == 404


@pytest.mark.asyncio
async def test_no_agreement_is_made_on_a_budget_that_has_no_prices(two: Pair):
    await two.provider.publish(D, offer())
    terms = within("20") | {"@id": (await two.provider.asked("GET", f"/datasets/{quoted(D)}"))["offers"][0]["id"]}
    begun = await two.consumer.asked("POST", "/negotiations", {"peer": "hospital", "dataset": D, "policy": terms}, status=201)
    ended = await two.consumer.state(N, begun["pid"], "TERMINATED")
    assert "`odrl:payAmount` is not measured here" in "; ".join(ended.detail["reasons"])


@pytest.mark.parametrize(
    "asked", [(price("0.01", "megabyte"),), (), (price("0.02", "megabyte", count("gt", 5)),), (price("0.02", "call"),)]
)
@pytest.mark.asyncio
async def test_nobody_gets_data_at_another_price_than_is_offered_unless_a_person_says_so(two: Pair, asked: tuple[dict[str, Any], ...]):
    await two.provider.publish(D, {"@type": "Offer", "permission": [{"action": "use", "duty": [price("0.02", "megabyte")]}]})
    offered = (await two.provider.asked("GET", f"/datasets/{quoted(D)}"))["offers"][0]["id"]
    terms = {"@id": offered, "@type": "Offer", "permission": [{"action": "use", "duty": list(asked)} if asked else {"action": "use"}]}
    begun = await two.consumer.asked("POST", "/negotiations", {"peer": "hospital", "dataset": D, "policy": terms}, status=201)
    mine = await two.consumer.until(N, begun["pid"], lambda p: p.peer_pid is not None)
    theirs = await two.provider.until(N, mine.peer_pid or "", lambda p: p.state == "OFFERED" or p.final or "waiting" in p.detail)
    if theirs.state == "OFFERED":
        assert theirs.detail["terms"]["permission"][0]["duty"] == [price("0.02", "megabyte")], "a counter-offer has the price of the offer"
    else:
        assert (theirs.state, theirs.detail["waiting"]) == ("REQUESTED", "approval")
