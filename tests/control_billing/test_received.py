"""What has come is our own count: shown while a window is on its way, and where nobody takes receipts; on no bill."""

from __future__ import annotations

from typing import Any

import pytest

from connector.adapters.memory import MemoryStore
from connector.control_billing.received import Came, Received, unsigned
from connector.dsp.messages import Role
from connector.metering.counts import Counts
from connector.records import Changes, Pull
from connector.values import replace
from tests.control_billing.test_bills import DAY, DUTIES, ID, bills, flow, terms
from tests.metering.rig import CHUNK, LAYOUT, MANIFEST, NOW, PROVIDER, account
from tests.metering_bills.priced import price

CREDIT = MANIFEST.credit_bytes


def order(id: str, transfer: str | None, size_bytes: int, **more: Any) -> Pull:
    pull = Pull(id, PROVIDER, "urn:d", f"{id}.csv", "download", version=1, created=float(len(id)), updated=float(NOW))
    return replace(pull, **({"agreement": ID, "transfer": transfer, "received_bytes": size_bytes} | more))


@pytest.mark.asyncio
async def test_orders_of_the_agreement_say_what_has_come_and_those_that_run_how_far_they_are():
    store = MemoryStore()
    rows = (
        order("a", "t1", 5),
        order("bb", "t2", 7, agreement="urn:other"),
        order("ccc", "t3", 0),
        order("dddd", None, 9),
        order("eeeee", "t4", 11, stage="done"),
    )
    await store.commit(Changes(saves=rows))
    found = await Received(store, {"a": replace(rows[0], received_bytes=6)}).under(ID)
    assert found == {pid: Came(pid, Counts(size, calls=1), NOW) for pid, size in (("t1", 6), ("t4", 11))}


@pytest.mark.parametrize(("came", "signed", "more"), [(5, 3, 2), (3, 3, 0), (2, 3, 0), (CREDIT + 9, 3, CREDIT)])
def test_what_is_not_signed_for_yet_is_never_more_than_the_credit(came: int, signed: int, more: int):
    at = replace(account(Role.CONSUMER), counts=Counts(signed, calls=1))
    assert unsigned(Came("t", Counts(came, calls=1), 0.0), at) == Counts(more)
    assert unsigned(Came("t", Counts(came, calls=1), 0.0), replace(at, status="complete")) == Counts()
    assert unsigned(Came("t", Counts(came, calls=1), 0.0), replace(at, counts=Counts())) == Counts(min(came, CREDIT), calls=1)


@pytest.mark.asyncio
async def test_a_consumer_sees_what_has_come_and_what_it_costs_before_a_window_is_over():
    _, theirs = flow("t1", [((1, 11),)])
    running = order("a", "c-t1", 10 * CHUNK + 700_000)
    one = await bills(Role.CONSUMER, *theirs, running, document=terms(price("1", "megabyte")))
    told = await one.usage(ID)
    assert (told["counts"]["bytes"], told["signed"]["bytes"], told["counts"]["calls"]) == (10 * CHUNK + 700_000, 10 * CHUNK, 1)
    assert (told["cost"]["amount"], told["cost"]["signed"]) == ("1.36", "0.66")
    assert told["transfers"][0]["counts"]["bytes"] == 10 * CHUNK
    assert (await one.invoice(ID, None, NOW + DAY)).counts.bytes == 10 * CHUNK, "a bill is of what is signed for"


@pytest.mark.parametrize("receipts", [1, 2])
@pytest.mark.asyncio
async def test_what_a_receipt_says_whose_ack_is_on_its_way_has_come_and_costs_what_it_costs(receipts: int):
    _, theirs = flow("t1", [((1, 11),), ((11, 21),)][:receipts])
    *earlier, last, held = theirs
    running = order("a", "c-t1", 10 * receipts * CHUNK + 5)
    one = await bills(
        Role.CONSUMER, *earlier, replace(last, ack=""), replace(held, ack=""), running, document=terms(price("1", "megabyte"))
    )
    told = await one.usage(ID)
    assert told["counts"]["bytes"] == 10 * receipts * CHUNK + 5
    assert told["transfers"][0]["counts"]["bytes"] == 10 * receipts * CHUNK
    assert told["signed"]["bytes"] == 10 * (receipts - 1) * CHUNK
    assert told["cost"]["amount"] == {1: "0.66", 2: "1.31"}[receipts]


@pytest.mark.asyncio
async def test_what_comes_without_receipts_is_shown_as_the_consumer_s_own_count():
    done = order("a", "c-t9", LAYOUT.size_bytes, stage="done")
    one = await bills(Role.CONSUMER, done, document=terms(*DUTIES))
    told = await one.usage(ID)
    (row,) = told["transfers"]
    assert (row["transfer"], row["attested"], row["status"], row["receipt"]) == ("c-t9", "consumer-only", "ended", None)
    assert row["counts"]["bytes"] == told["counts"]["bytes"] == LAYOUT.size_bytes
    assert told["signed"] == Counts().claims()
    assert not (await one.invoice(ID, None, NOW + DAY)).flows
    unsigned_account = replace(account(Role.CONSUMER), transfer="c-t9")
    again = await (await bills(Role.CONSUMER, done, unsigned_account)).usage(ID)
    assert [(each["transfer"], each["attested"]) for each in again["transfers"]] == [("c-t9", "consumer-only")]
    assert (await (await bills(Role.PROVIDER, done)).usage(ID))["transfers"] == [], "the provider has its own"
