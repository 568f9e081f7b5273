"""Usage and invoices over HTTP: what is shown, in each form, and what of a call is not understood."""

import csv
from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from connector.dsp.messages import Role
from connector.metering.counts import Counts
from connector.records import Agreement, Changes
from connector.values import replace
from tests.api.conftest import desk as desk  # noqa: PLC0414 - the fixture
from tests.control.test_quotas import agreed
from tests.control_billing.test_bills import flow, unsigned
from tests.metering.rig import CHUNK
from tests.metering_bills.priced import money, price, priced, unit
from tests.pair import Desk, agreement, negotiation, pair, quoted, transfer

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRICED = {"permission": [{"action": "use", "duty": [price("0.50", "megabyte"), price("5", "subscription")]}]}
PERIOD = "from=2026-11-24&to=2100-01-01T00:00:00Z"


async def metered(desk: Desk, policy: dict[str, Any], **changed: Any) -> Agreement:
    """An agreement as provider, with a transfer that both have signed for and one that only we have counted."""
    made = agreement(desk.us, desk.peer, Role.PROVIDER, policy=policy, **changed)
    await desk.us.put(negotiation(desk.us, desk.peer, "FINALIZED", Role.PROVIDER), made)
    mine, _ = flow(f"t-{made.id}", [((1, 11),), ((11, 21),)])
    alone = unsigned(f"u-{made.id}", Counts(bytes=4_000_000, calls=1))
    kept = (*mine[:-1], *(replace(each, agreement=made.id) for each in (mine[-1], alone)))
    assert isinstance(await desk.us.connector.journal.commit(Changes(saves=kept)), tuple)
    return made


async def test_usage_says_what_was_used_and_signed_for_and_what_it_costs(desk: Desk):
    made = await metered(desk, PRICED)
    said = await desk.us.asked("GET", f"/agreements/{quoted(made.id)}/usage")
    assert (said["agreement"], said["role"]) == (made.id, "provider")
    assert (said["counts"]["bytes"], said["signed"]["bytes"]) == (20 * CHUNK + 4_000_000, 20 * CHUNK)
    assert said["cost"] == {"currency": "EUR", "amount": "7.66", "signed": "5.66"}
    assert [(each["attested"], each["sequence"]) for each in said["transfers"]] == [("both", 2), ("provider-only", 0)]


async def test_an_account_is_open_while_its_transfer_lives_and_ended_when_that_is_over_though_nobody_has_signed_how(desk: Desk):
    made = await metered(desk, PRICED)
    kept = [transfer(desk.us, desk.peer, state, Role.PROVIDER, made) for state in ("STARTED", "SUSPENDED", "COMPLETED", "TERMINATED")]
    accounts = [replace(unsigned(each.pid, Counts(bytes=1, calls=1)), agreement=made.id) for each in kept]
    await desk.us.put(*kept)
    assert isinstance(await desk.us.connector.journal.commit(Changes(saves=tuple(accounts))), tuple)
    said = (await desk.us.asked("GET", f"/agreements/{quoted(made.id)}/usage"))["transfers"]
    found = {each["transfer"]: each["status"] for each in said}
    assert [found[each.pid] for each in kept] == ["open", "open", "ended", "ended"]


async def test_an_invoice_is_the_same_in_all_three_forms(desk: Desk):
    made = await metered(desk, PRICED)
    path = f"/agreements/{quoted(made.id)}/invoice?{PERIOD}"
    said = await desk.us.asked("GET", path)
    assert (said["from"], said["to"], said["total"], said["attested"]) == (
        "2026-11-24T00:00:00.000Z",
        "2100-01-01T00:00:00.000Z",
        "7.66",
        "in-part",
    )
    assert said["preliminary"] is True
    assert [(line["unit"], line["attested"], line["amount"]) for line in said["lines"]] == [
        ("MB", "both", "0.66"),
        ("MB", "provider-only", "2.00"),
        ("subscription", "agreed", "5.00"),
    ]
    table = await desk.us.manage("GET", f"{path}&format=csv")
    assert (table.status, table.headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
    *rows, last = csv.DictReader(StringIO(table.body.decode(), newline=""))
    assert ([row["amount"] for row in rows], last["line"]) == (["0.66", "2.00", "5.00", "7.66"], "preliminary")
    page = await desk.us.manage("GET", f"{path}&format=html")
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    for text in (said["digest"], "7.66 EUR", "provider only, not signed by the consumer"):
        assert text.encode() in page.body


async def test_without_a_period_it_is_from_the_signing_up_to_now(desk: Desk):
    made = await metered(desk, PRICED)
    said = await desk.us.asked("GET", f"/agreements/{quoted(made.id)}/invoice")
    assert said["from"] == made.document["timestamp"].replace("Z", ".000Z")
    assert said["total"] == "5.00", "the receipts of the tests are from a time to come"


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("format=pdf", 400, "`format` is `pdf`; it is one of json, csv, html"),
        ("from=yesterday", 400, "`from` is `yesterday`, which is no instant"),
        ("to=2026-02-30", 400, "`to` is `2026-02-30`, which is no instant"),
        ("from=2027-01-01&to=2026-01-01", 400, "the period ends before it begins"),
        ("form=2026-01-01", 400, "`form` is not known here; an invoice takes `format`, `from`, `to`"),
        ("to=99999-01-01", 400, "`to` is `99999-01-01`, which is no instant"),
    ],
)
async def test_a_call_that_is_not_understood_says_why(desk: Desk, query: str, status: int, says: str):
    made = await metered(desk, PRICED)
    answer = await desk.us.manage("GET", f"/agreements/{quoted(made.id)}/invoice?{query}")
    assert answer.status == status
    assert says in answer.json["detail"]


async def test_what_is_not_there_is_not_billed(desk: Desk):
    for part in ("usage", "invoice"):
        answer = await desk.us.manage("GET", f"/agreements/urn%3Anowhere/{part}")
        assert (answer.status, answer.json["detail"]) == (404, "there is no agreement `urn:nowhere`")
    free = await metered(desk, {"permission": [{"action": "use"}]})
    answer = await desk.us.manage("GET", f"/agreements/{quoted(free.id)}/invoice")
    assert answer.status == 404
    assert "has no prices, so there is no invoice" in answer.json["detail"]
    assert (await desk.us.asked("GET", f"/agreements/{quoted(free.id)}/usage"))["cost"] is None


async def test_an_operator_ends_a_dispute_and_says_why(desk: Desk):
    made = await metered(desk, PRICED)
    path = f"/transfers/{quoted(f't-{made.id}')}/settle-dispute"
    refused = await desk.us.manage("POST", path)
    assert (refused.status, "not disputed" in refused.json["detail"]) == (409, True)
    store = desk.us.connector.store
    stored = await store.metered(f"t-{made.id}")
    assert stored is not None
    await desk.us.connector.journal.commit(Changes(saves=(replace(stored, status="disputed", version=stored.version + 1),)))
    assert (await desk.us.asked("GET", f"/agreements/{quoted(made.id)}/usage"))["disputed"] != []
    assert await desk.us.asked("POST", path, {"reason": "we have met"}) == {"transfer": f"t-{made.id}", "status": "open"}
    assert (await desk.us.asked("GET", f"/agreements/{quoted(made.id)}/usage"))["disputed"] == []
    assert (await store.evidence_of(f"t-{made.id}"))[-1].detail == {"reason": "we have met"}


async def test_prices_that_are_not_understood_are_named_with_their_place(desk: Desk):
    odd = await metered(desk, {"permission": [{"action": "use", "duty": [priced(money("1"), unit("parsec"))]}]})
    answer = await desk.us.manage("GET", f"/agreements/{quoted(odd.id)}/invoice")
    assert answer.status == 422
    assert answer.json["reasons"][0].startswith("/permission/0/duty/0/action/odrl:refinement/1/rightOperand: nobody here counts this")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    path: Path = tmp_path_factory.mktemp("bills")
    async with pair(path / "pair", store="sqlite") as opened:
        yield opened


async def test_both_sides_of_an_agreement_that_was_negotiated_have_the_same_invoice(two: Any):
    id = await agreed(two, {"@type": "Offer", **PRICED})
    path = f"/agreements/{quoted(id)}/invoice?from=2020-01-01&to=2100-01-01"
    provider, consumer = [await side.asked("GET", path) for side in (two.provider, two.consumer)]
    assert provider == consumer
    assert (provider["total"], provider["provider"], provider["consumer"]) == ("5.00", two.provider.site.id, two.consumer.site.id)
