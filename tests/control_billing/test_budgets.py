"""Budgets between two connectors: what they do not pay for whole does not start, and both sides read why."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from connector.metering.content import CHUNK_BYTES
from connector.metering_bills.currencies import CURRENCY
from connector.odrl.operands import PAY_AMOUNT
from tests.control.orders import D, N, T
from tests.control.test_quotas import RULE, USERS, agreed, begin, fetch, offer, used
from tests.metering_bills.priced import count, every, money, price, unit
from tests.pair import Pair, pair, quoted, running, site
from tests.test_app import pulled

EUR = f"{PAY_AMOUNT} {CURRENCY}EUR"


@pytest_asyncio.fixture
async def two(tmp_path: Path) -> AsyncIterator[Pair]:
    async with pair(tmp_path / "pair", store="sqlite") as opened:
        yield opened


def within(limit: str, *duties: dict[str, Any]) -> dict[str, Any]:
    return {"@type": "Offer", "permission": [{"action": "use", "constraint": [money(limit, operator="lteq")], "duty": list(duties)}]}


@pytest.mark.asyncio
async def test_of_fifty_starts_at_once_as_many_happen_as_the_budget_pays_for_and_each_of_them_gets_all(two: Pair):
    """A transfer that the budget does not pay for whole would spend what it can get, take it from the others, and bring no file."""
    content, policy = bytes(range(256)) * 1000, within("3.000001", price("1", "megabyte"))
    agreement = await agreed(two, policy, content)
    begun = await asyncio.gather(*(begin(two, agreement) for _ in range(USERS)))
    started, refused = [[each for each in begun if each.state == state] for state in ("STARTED", "TERMINATED")]
    assert (len(started), len(refused)) == (11, USERS - 11)
    seen = await two.provider.asked("GET", f"/agreements/{quoted(agreement)}")
    assert [(each["used"], each["reserved"]) for each in seen["counters"]] == [("0.00", "2.816")], "it is set aside for those that run"
    for mine in refused:
        theirs = await two.provider.connector.store.process(T, mine.peer_pid or "")
        for side in (mine, theirs):
            assert side is not None
            assert side.detail["code"] == "budget-short"
            (said,) = side.detail["reasons"]
            assert f"does not pay for all of `{D}`: that costs 0.256 EUR, and 0.184001 EUR of 3.000001 EUR are left" in said
            assert "2.816 EUR are set aside for transfers that run; nothing was spent: ask the provider for an offer with a larger" in said
    taken = await asyncio.gather(*(fetch(two, each) for each in started))
    assert [body for _, body, _ in taken] == [content] * 11
    assert (await used(two, agreement)).posted == ((RULE, EUR, 11 * len(content)),)
    late = await begin(two, agreement)
    assert (late.state, late.detail["code"]) == ("TERMINATED", "budget-short")


@pytest.mark.asyncio
async def test_records_are_paid_for_whole_and_a_new_agreement_is_for_a_person_to_make(two: Pair):
    content = b"".join(b'{"n":%d}\n' % n for n in range(1000))
    (two.provider.site.root / "data" / "lines.ndjson").write_bytes(content)
    said = {"type": "file", "path": "lines.ndjson", "media_type": "application/x-ndjson"}
    agreement = await agreed(two, within("20.99", price("0.02", "record")), source=said)
    mine = await begin(two, agreement)
    assert (await fetch(two, mine))[1] == content
    assert (await used(two, agreement)).posted == ((RULE, EUR, 1000),)
    late = await begin(two, agreement)
    assert (late.detail["code"], "costs 20.00 EUR, and 0.98 EUR of 20.98 EUR are left" in late.detail["reasons"][0]) == (
        "budget-short",
        True,
    )
    again = await two.consumer.asked("POST", "/negotiations", {"peer": "hospital", "dataset": D}, status=201)
    asked = await two.consumer.until(N, again["pid"], lambda p: p.state == "REQUESTED" and p.peer_pid is not None)
    view = await two.provider.asked("GET", f"/negotiations/{asked.peer_pid}")
    assert view["waiting"] == "approval"
    assert "is used up (`odrl:payAmount`)" in view["changes"][0], "what is left does not pay for the data"


@pytest.mark.asyncio
async def test_an_order_that_the_budget_does_not_pay_for_begins_nothing_and_another_agreement_is_asked_for_by_nobody(two: Pair):
    await two.provider.publish(D, within("0.5", price("1", "megabyte")), content=bytes(800_000))
    order = await pulled(two.consumer, "hospital", D)
    assert (order["stage"], order["received_bytes"]) == ("failed", 0)
    assert "costs 0.80 EUR, and 0.50 EUR of 0.50 EUR are left" in order["reasons"][0]
    again = await pulled(two.consumer, "hospital", D)
    assert (again["stage"], again["agreement"]) == ("failed", order["agreement"])
    assert len((await two.consumer.asked("GET", "/negotiations"))["items"]) == 1
    assert (await used(two, order["agreement"])).posted == ()


@pytest.mark.asyncio
async def test_what_is_paid_once_is_a_part_of_the_budget(two: Pair):
    agreement = await agreed(two, within("2", price("1.5", "subscription"), price("1", "megabyte")), bytes(500_000))
    mine = await begin(two, agreement)
    assert len((await fetch(two, mine))[1]) == 500_000
    await used(two, agreement)
    seen = await two.provider.asked("GET", f"/agreements/{quoted(agreement)}")
    assert (seen["counters"][0]["used"], seen["counters"][0]["limit"]) == ("2.00", "2.00")
    late = await begin(two, agreement)
    assert late.detail["code"] == "QUOTA_EXHAUSTED"


@pytest.mark.asyncio
async def test_what_a_transfer_does_not_use_is_free_once_it_stops_and_the_rest_of_what_has_come_is_paid_for(two: Pair):
    """Two thirds have come when the transfer ends: the budget does not pay for all once more, and it does for what is missing."""
    content = bytes(range(256)) * 6144
    agreement = await agreed(two, within("2", price("1", "megabyte")), content)
    mine = await begin(two, agreement)
    some = await fetch(two, mine, Range=f"bytes=0-{4 * CHUNK_BYTES - 1}")
    assert len(some[1]) == 4 * CHUNK_BYTES
    beside = await begin(two, agreement)
    assert beside.detail["code"] == "budget-short", "what is missing of the first is set aside, whoever else asks"
    await two.consumer.asked("POST", f"/transfers/{quoted(mine.pid)}/terminate", {"reason": "enough"})
    await two.provider.state(T, mine.peer_pid or "", "TERMINATED")
    assert [amount for *_, amount in (await used(two, agreement)).posted] == [4 * CHUNK_BYTES]
    rest = await begin(two, agreement)
    assert rest.state == "STARTED", rest.detail
    assert (await fetch(two, rest, Range=f"bytes={4 * CHUNK_BYTES}-"))[1] == content[4 * CHUNK_BYTES :]
    assert (await used(two, agreement)).posted == ((RULE, EUR, len(content)),)


@pytest.mark.asyncio
async def test_what_was_paid_for_before_a_restart_costs_nothing_when_it_is_sent_again(tmp_path: Path):
    """The budget pays for all of it once: what has come before is lost over there, and it comes to its end all the same."""
    content = bytes(range(256)) * 6144
    one, other = site(tmp_path / "hospital", "hospital", store="sqlite"), site(tmp_path / "biopharma", "biopharma", store="sqlite")
    one.meet(other)
    async with running(other) as consumer:
        async with running(one) as provider:
            two = Pair(provider, consumer)
            agreement = await agreed(two, within("1.572864", price("1", "megabyte")), content)
            mine = await begin(two, agreement)
            assert len((await fetch(two, mine, Range=f"bytes=0-{4 * CHUNK_BYTES - 1}"))[1]) == 4 * CHUNK_BYTES
        async with running(one) as provider:
            two = Pair(provider, consumer)
            assert (await fetch(two, mine))[1] == content
            assert (await used(two, agreement)).posted == ((RULE, EUR, len(content)),)


@pytest.mark.parametrize(
    ("duties", "says"),
    [
        ((), "`odrl:payAmount` is not measured here: what a use costs is not known: the policy has no prices"),
        ((price("1", "megabyte", currency="USD"),), "the budget is in EUR, and the prices are in USD"),
        ((price("1", "minute"),), "a price by the minute (`/permission/0/duty/0`) cannot be kept within a budget"),
        ((price("1", "subscription", every("P1M")),), "a price by the period"),
        ((price("1", "megabyte", count("gt", 5)),), "a price for a band of units"),
        ((price("1", "record"),), "records have a signed count in line-delimited JSON and in streams of events only, so"),
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


@pytest.mark.asyncio
async def test_a_transfer_that_has_paid_for_all_of_it_goes_on_after_a_suspension(two: Pair):
    """All of it has left, into buffers perhaps that the suspension has emptied: the budget has nothing left, and nothing more to pay."""
    content = bytes(range(256)) * 1000
    agreement = await agreed(two, within("0.256", price("1", "megabyte")), content)
    mine = await begin(two, agreement)
    assert (await fetch(two, mine))[1] == content
    assert (await used(two, agreement)).posted == ((RULE, EUR, len(content)),)
    path = f"/transfers/{quoted(mine.pid)}"
    await two.consumer.asked("POST", f"{path}/suspend", {"reason": "maintenance"})
    await two.consumer.state(T, mine.pid, "SUSPENDED")
    await two.provider.state(T, mine.peer_pid or "", "SUSPENDED")
    await two.consumer.asked("POST", f"{path}/resume")
    await two.provider.until(T, mine.peer_pid or "", lambda p: p.final or (p.state == "STARTED" and p.in_flight is None and not p.resumed))
    again = await two.consumer.until(T, mine.pid, lambda p: p.final or p.state == "STARTED")
    assert again.state == "STARTED", again.detail
    assert (await fetch(two, again))[1] == content
    assert (await used(two, agreement)).posted == ((RULE, EUR, len(content)),)
    assert (await begin(two, agreement)).detail["code"] == "QUOTA_EXHAUSTED", "another transfer is another bill"
