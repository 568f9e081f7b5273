"""What streams cost, over real sockets: a budget is never gone over, and all of it can be spent."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import orjson
import pytest
import pytest_asyncio

from connector.adapters.memory import MemoryStore
from connector.adapters.sqlite import SqliteStore
from connector.dataplane.meter import most
from connector.dataplane.quotas import LARGEST, LEAST, portion, portions
from connector.metering_bills.prices import CALL_COUNT
from connector.odrl.counters import Counter, Pricing, Tally
from connector.odrl.operands import BYTE_COUNT, PAY_AMOUNT, RECORD_COUNT
from connector.values import replace
from tests.dataplane.rig import PROVIDER, TRANSFER, Rig, provider, some_bytes
from tests.dataplane.test_meter import LINES, RULE, USERS, _both, begun, fetch, settled

MONEY = f"{PAY_AMOUNT} urn:eur"


def budget(limit: int, *, byte: int = 0, record: int = 0, call: int = 0) -> Tally:
    rates = {BYTE_COUNT: byte, RECORD_COUNT: record, CALL_COUNT: call}
    return Tally(RULE, MONEY, (limit,), Pricing(100, 0, tuple((name, rate) for name, rate in sorted(rates.items()) if rate)))


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with provider(tmp_path) as one:
        yield one


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


@pytest.mark.parametrize(("limit", "byte"), [(100_000, 1), (100_001, 2), (999_999, 7), (7_000_000_000_000, 70_000_000)])
@pytest.mark.asyncio
async def test_as_many_bytes_leave_as_the_budget_pays_for(limit: int, byte: int, rig: Rig, http: aiohttp.ClientSession):
    content = some_bytes(200_000)
    await rig.publish(content, tallies=(budget(limit, byte=byte),))
    _, body, _ = await fetch(http, rig)
    assert body == content[: limit // byte]
    assert await settled(rig, MONEY) == limit // byte * byte
    assert (await fetch(http, rig))[:2] == (403, b""), "what is left of it pays for nothing"


@pytest.mark.parametrize(("limit", "record"), [(1, 1), (999, 2), (1_000, 2), (123_456, 100)])
@pytest.mark.asyncio
async def test_as_many_whole_records_leave_as_the_budget_pays_for(limit: int, record: int, rig: Rig, http: aiohttp.ClientSession):
    await rig.publish(LINES, media_type="application/x-ndjson", tallies=(budget(limit, record=record),))
    _, body, _ = await fetch(http, rig)
    assert body == b"".join(line + b"\n" for line in LINES.split(b"\n")[: limit // record])
    assert await settled(rig, MONEY) == limit // record * record


@pytest.mark.parametrize("limit", [1_000, 1_011, 54_321, 1_000_000])
@pytest.mark.asyncio
async def test_everything_that_has_a_price_is_paid_for_from_one_budget(limit: int, rig: Rig, http: aiohttp.ClientSession):
    tally = budget(limit, byte=1, record=10, call=500)
    await rig.publish(LINES, media_type="application/x-ndjson", tallies=(tally,))
    _, body, _ = await fetch(http, rig)
    cost = 500 + len(body) + 10 * begun(body)
    assert await settled(rig, MONEY) == cost <= limit
    assert limit - cost < tally.least, "not enough for a call, a record and a byte"
    assert LINES.startswith(body)
    assert (await fetch(http, rig))[0] == 403


@pytest.mark.asyncio
async def test_a_transfer_is_one_call_in_however_many_requests_and_what_it_brings_may_be_free(rig: Rig, http: aiohttp.ClientSession):
    content = some_bytes(300_000)
    await rig.publish(content, tallies=(budget(599, call=200),))
    rig.transfers.views["t2"] = replace(rig.transfers.views[TRANSFER], pid="t2")
    ranges = [{"Range": f"bytes={first}-"} for first in (0, 299_999)]
    assert [await fetch(http, rig, **each) for each in ranges] == [(206, content, ""), (206, content[-1:], "")]
    assert await settled(rig, MONEY) == 200
    assert [status for status, _, _ in await asyncio.gather(*(fetch(http, rig, "t2", **each) for each in ranges * 2))] == [206] * 4
    assert await settled(rig, MONEY) == 400
    rig.transfers.views["t3"] = replace(rig.transfers.views[TRANSFER], pid="t3")
    assert (await fetch(http, rig, "t3"))[::2] == (403, "QUOTA_EXHAUSTED")


@pytest.mark.asyncio
async def test_what_a_transfer_has_paid_for_costs_nothing_when_it_is_sent_again(rig: Rig, http: aiohttp.ClientSession):
    """As on its bill: what was cut, and is asked for from before the cut, would take the end of the file from a budget that pays for it."""
    content = some_bytes(300_000)
    await rig.publish(content, tallies=(budget(2 * 300_000, byte=2), Tally(RULE, BYTE_COUNT, (900_000,))))
    assert (await fetch(http, rig, Range="bytes=0-199999"))[1] == content[:200_000]
    assert await settled(rig, MONEY) == 400_000
    assert (await fetch(http, rig, Range="bytes=150000-"))[1] == content[150_000:]
    assert await settled(rig, MONEY) == 600_000
    assert (await fetch(http, rig, Range="bytes=299000-"))[1] == content[299_000:], "all of it is paid for, and nothing is left"
    assert (await settled(rig, MONEY), await settled(rig, BYTE_COUNT)) == (600_000, 351_000), "a quota of bytes counts each that leaves"
    rig.transfers.views["t2"] = replace(rig.transfers.views[TRANSFER], pid="t2")
    assert (await fetch(http, rig, "t2", Range="bytes=0-9"))[::2] == (403, "QUOTA_EXHAUSTED"), "another transfer is another bill"


@pytest.mark.asyncio
async def test_records_that_a_transfer_has_paid_for_cost_nothing_when_they_are_sent_again(rig: Rig, http: aiohttp.ClientSession):
    records = LINES.count(b"\n")
    await rig.publish(LINES, media_type="application/x-ndjson", tallies=(budget(3 * records, record=3),))
    cut = LINES.index(b"\n", len(LINES) // 2) + 1
    for part in (f"bytes=0-{cut - 1}", "bytes=0-", "bytes=0-"):
        await fetch(http, rig, Range=part)
    assert await settled(rig, MONEY) == 3 * records


@pytest.mark.asyncio
async def test_records_of_what_has_none_have_no_price(rig: Rig, http: aiohttp.ClientSession):
    await rig.publish(b"%PDF", media_type="application/pdf", tallies=(budget(5, record=1),))
    assert await fetch(http, rig) == (403, b"", "OPERAND_UNSUPPORTED")


@pytest.mark.asyncio
async def test_what_costs_nothing_is_not_counted(rig: Rig, http: aiohttp.ClientSession):
    await rig.publish(b"data", tallies=(budget(5),))
    assert await fetch(http, rig) == (200, b"data", "")
    assert await settled(rig, MONEY) == 0


@pytest.mark.asyncio
async def test_fifty_users_of_one_budget_spend_it_to_the_last_part_and_never_more(tmp_path: Path, http: aiohttp.ClientSession):
    limit, byte, call = 50_000_017, 9, 1_000
    store = SqliteStore(tmp_path / "connector.db", PROVIDER)
    async with provider(tmp_path, store=store) as rig:
        content = some_bytes(400_000)
        await rig.publish(content)
        view = rig.transfers.views[TRANSFER]
        for number in range(USERS):
            rig.transfers.views[f"t{number}"] = replace(view, pid=f"t{number}", tallies=(budget(limit, byte=byte, call=call),))
        highest = 0

        def watch(*_: object) -> None:
            nonlocal highest
            for (rest,) in store._points.execute("select rest from usage").fetchall():  # type: ignore[attr-defined]
                said = orjson.loads(rest)
                highest = max(highest, sum(row[2] for row in said["posted"]) + sum(row[4] for row in said["open"]))

        rig.ledger.tell = _both(rig.ledger.tell, watch)  # type: ignore[method-assign]
        taken = await asyncio.gather(*(fetch(http, rig, f"t{number}") for number in range(USERS)))
        spent = await settled(rig, MONEY)
        calls = sum(1 for status, _, _ in taken if status == 200)
        assert spent == byte * sum(len(body) for _, body, _ in taken) + call * calls
        assert highest <= limit
        assert limit - spent < byte + call, "nothing more was to be had for it"
    await store.close()


def test_a_portion_of_money_pays_for_portions_of_what_is_used():
    pricing = Pricing(1, 0, ((BYTE_COUNT, 2), (CALL_COUNT, 7), (RECORD_COUNT, 3)))
    least, largest = 2 * LEAST[BYTE_COUNT] + 7 + 3 * LEAST[RECORD_COUNT], 2 * LARGEST[BYTE_COUNT] + 7 + 3 * LARGEST[RECORD_COUNT]
    assert portion(MONEY, 10**15, 10**15, pricing) == largest
    assert portion(MONEY, 10**9, 10**7, pricing) == least
    assert portion(MONEY, 10**9, 5, pricing) == 5


@pytest.mark.parametrize(
    ("left", "reserved", "state", "held"), [(12, 0, "granted", 12), (11, 0, "spent", 0), (11, 1, "busy", 0), (0, 5, "busy", 0)]
)
def test_less_than_one_use_costs_is_of_no_use(left: int, reserved: int, state: str, held: int):
    tally = budget(1_000, byte=2, record=3, call=7)
    assert tally.pricing is not None
    counter = Counter(1_000, 1_000 - left - reserved, reserved)
    amounts, found = portions({tally: counter}, {MONEY: most(tally.pricing, 0)}, {})
    assert (amounts.get(MONEY, 0), found) == (held, state)


@pytest.mark.asyncio
async def test_a_call_that_was_paid_for_is_not_paid_for_again_after_a_restart(tmp_path: Path, http: aiohttp.ClientSession):
    content, store = some_bytes(300_000), MemoryStore()
    (tmp_path / "data").mkdir()
    async with provider(tmp_path / "data", metered=True, store=store) as rig:
        await rig.publish(content, tallies=(budget(399, call=200),))
        view = rig.transfers.views[TRANSFER]
        assert (await fetch(http, rig))[:2] == (200, content)
        assert await settled(rig, MONEY) == 200
        assert rig.metering is not None
        await rig.metering.accounts.write_now()
    async with provider(tmp_path / "data", metered=True, store=store) as rig:
        rig.transfers.views[TRANSFER] = view
        assert (await fetch(http, rig, Range="bytes=9-"))[:2] == (206, content[9:])
        assert await settled(rig, MONEY) == 200
