"""From the order to the invoice, between two connectors: bytes on disk, both meters and both invoices are the same number."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from connector.dsp.messages import Role
from connector.metering.content import CHUNK_BYTES
from connector.metering_bills.prices import QIAO
from connector.odrl.operands import BYTE_COUNT
from connector.records.metering import Metered
from tests.control.orders import D, order, settled
from tests.control.test_quotas import limit, used
from tests.metering_bills.priced import leaf, money, price
from tests.pair import WAIT_SECONDS, Pair, Running, pair, quoted

LINES = b"".join(b'{"n":%d,"text":"%s"}\n' % (number, b"x" * (number % 90)) for number in range(20_000))
PERIOD = "from=2020-01-01&to=2100-01-01"
COUNTERSIGNED = leaf(QIAO + "metering", "eq", {"@id": QIAO + "countersigned"})


@pytest_asyncio.fixture
async def two(tmp_path: Path) -> AsyncIterator[Pair]:
    async with pair(tmp_path / "pair", store="sqlite") as opened:
        yield opened


async def completed(side: Running, agreement: str) -> Metered:
    """The account of the one transfer of an agreement, once its last receipt is acknowledged."""
    changed, store = asyncio.Event(), side.connector.store
    side.connector.journal.listen(lambda _changes, _evidence: changed.set())
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            found = await store.metered_of(agreement)
            if found and found[0].status == "complete" and found[0].ack:
                return found[0]
            await changed.wait()
            changed.clear()


@pytest.mark.parametrize("demanded", [True, False])
@pytest.mark.asyncio
async def test_bytes_on_disk_both_meters_and_both_invoices_are_the_same_to_the_unit(two: Pair, demanded: bool):
    (two.provider.site.root / "data" / "lines.ndjson").write_bytes(LINES)
    rule: dict[str, Any] = {"action": "use", "duty": [price("0.50", "megabyte"), price("0.0003", "record"), price("2", "subscription")]}
    rule["constraint"] = [money("50", operator="lteq"), *([COUNTERSIGNED] if demanded else [])]
    source = {"type": "file", "path": "lines.ndjson", "media_type": "application/x-ndjson"}
    await two.provider.publish(D, {"@type": "Offer", "permission": [rule]}, source=source)
    done = await settled(two.consumer, (await order(two.consumer, out="lines.ndjson"))["id"])
    assert (done.stage, done.reasons) == ("done", ())
    agreement = done.agreement or ""
    provider, consumer = [await completed(side, agreement) for side in (two.provider, two.consumer)]
    assert (provider.role, consumer.role, provider.attested) == (Role.PROVIDER, Role.CONSUMER, "both")
    assert provider.counts.bytes == consumer.counts.bytes == len(LINES)
    assert provider.counts.records == consumer.counts.records == 20_000
    bills = [await side.asked("GET", f"/agreements/{quoted(agreement)}/invoice?{PERIOD}") for side in (two.provider, two.consumer)]
    assert bills[0] == bills[1]
    minor = round(len(LINES) / 10**6 * 50)
    assert [(line["unit"], line["attested"], line["amount"]) for line in bills[0]["lines"]] == [
        ("MB", "both", f"{minor // 100}.{minor % 100:02}"),
        ("record", "both", "6.00"),
        ("subscription", "agreed", "2.00"),
    ]
    await used(two, agreement)
    usage = await two.provider.asked("GET", f"/agreements/{quoted(agreement)}/usage")
    assert usage["cost"]["amount"] == usage["cost"]["signed"] == bills[0]["total"]
    (counter,) = usage["counters"]
    assert float(counter["used"]) == pytest.approx(float(bills[0]["total"]), abs=0.01), "the budget has spent what the bill says, unrounded"


@pytest.mark.asyncio
async def test_a_quota_that_ends_in_the_middle_is_not_gone_over_by_the_bill_and_both_bills_are_the_same(two: Pair):
    """Of bytes: it says how many may be taken, not of what, and who has a part has paid for a part. A budget would not let it start."""
    rule = {"action": "use", "duty": [price("1", "megabyte")], "constraint": [limit(BYTE_COUNT, "lteq", 1_500_000), COUNTERSIGNED]}
    await two.provider.publish(D, {"@type": "Offer", "permission": [rule]}, content=bytes(range(256)) * 12_000)
    ended = await settled(two.consumer, (await order(two.consumer, out="part.bin"))["id"])
    assert ended.stage == "failed"
    agreement = ended.agreement or ""
    posted = await used(two, agreement)
    assert sum(amount for _, _, amount in posted.posted) == 1_500_000, "to the last byte that is allowed"
    bills = [await side.asked("GET", f"/agreements/{quoted(agreement)}/invoice?{PERIOD}") for side in (two.provider, two.consumer)]
    assert bills[0] == bills[1]
    whole = 1_500_000 // CHUNK_BYTES * CHUNK_BYTES
    assert bills[0]["counts"]["bytes"] == whole, "all that was verified, leaf by leaf, and no more: signed for after the end, too"
    assert bills[0]["lines"][0]["attested"] == "both"
    assert float(bills[0]["total"]) <= 1.50


@pytest.mark.asyncio
async def test_the_events_of_a_file_are_paid_for_one_by_one_and_both_come_to_the_same(two: Pair):
    """A leaf has 262144 bytes, and an event ends with two: some of them lie in two leaves."""
    events = b"".join(b"id: %d\ndata: %s\n\n" % (number, b"x" * (number % 90)) for number in range(20_000))
    rule = {"action": "use", "duty": [price("0.0003", "record")], "constraint": [COUNTERSIGNED]}
    source, said = {"type": "file", "path": "events.txt", "media_type": "text/event-stream"}, {"@type": "Offer", "permission": [rule]}
    (two.provider.site.root / "data" / "events.txt").write_bytes(events[:-1])
    answer = await two.provider.manage("PUT", f"/datasets/{quoted(D)}", {"title": D, "source": source, "policies": [said]})
    assert answer.status == 422
    assert "does not end with one empty line" in answer.json["reasons"][0]
    (two.provider.site.root / "data" / "events.txt").write_bytes(events)
    await two.provider.publish(D, said, source=source)
    done = await settled(two.consumer, (await order(two.consumer, out="events.txt"))["id"])
    assert (done.stage, done.reasons) == ("done", ())
    agreement = done.agreement or ""
    provider, consumer = [await completed(side, agreement) for side in (two.provider, two.consumer)]
    assert provider.counts.records == consumer.counts.records == 20_000
    bills = [await side.asked("GET", f"/agreements/{quoted(agreement)}/invoice?{PERIOD}") for side in (two.provider, two.consumer)]
    assert bills[0] == bills[1]
    assert [(line["unit"], line["attested"], line["amount"]) for line in bills[0]["lines"]] == [("record", "both", "6.00")]
