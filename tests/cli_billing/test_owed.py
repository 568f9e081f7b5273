"""`connector usage`, `invoice`: what was used, what it costs, what is left out, and credit that is locked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command, no_file_over
from tests.cli.conftest import command as command  # noqa: PLC0414 - the fixture
from tests.cli.conftest import fake as fake  # noqa: PLC0414 - the fixture
from tests.cli.conftest import golden as golden  # noqa: PLC0414 - the fixture
from tests.cli.conftest import home as home  # noqa: PLC0414 - the fixture
from tests.fake_connector import FakeConnector

USAGE = {
    "agreement": "urn:a",
    "role": "provider",
    "at": "2026-01-31T12:00:00.000Z",
    "counts": {"bytes": 1_500_000, "records": 12, "items": 0, "calls": 2, "us": 2_500_000},
    "signed": {"bytes": 1_000_000, "records": 0, "items": 0, "calls": 0, "us": 0},
    "cost": {"currency": "EUR", "amount": "1.50", "signed": "1.00"},
    "counters": [],
    "transfers": [
        {
            "transfer": "urn:t",
            "status": "open",
            "attested": "both",
            "sequence": 3,
            "receipt": "ab12",
            "counts": {"bytes": 1_500_000, "records": 12, "items": 0, "calls": 2, "us": 2_500_000},
            "updated": "2026-01-31T12:00:00.000Z",
        }
    ],
}
INVOICE = {
    "agreement": "urn:a",
    "provider": "did:web:p.example",
    "consumer": "did:web:c.example",
    "from": "2026-01-01T00:00:00.000Z",
    "to": "2026-02-01T00:00:00.000Z",
    "currency": "EUR",
    "total": "1.50",
    "attested": "in-part",
    "digest": "d1ge57",
    "lines": [
        {
            "price": "/permission/0/duty/0",
            "unit": "MB",
            "unit_price": "1.00",
            "counted": "bytes",
            "quantity": 1_500_000,
            "per": 1_000_000,
            "attested": "provider-only",
            "amount": "1.50",
        }
    ],
}
LOST = [{"transfer": "t1", "bytes": 4_000_000, "until": "2026-02-01T12:00:00.000Z"}]
CREDIT: dict[str, Any] = {"agreement": "urn:a", "locked_bytes": 4_000_000, "credit_bytes": 8_000_000, "lost": LOST}
CREDIT_AT = ("GET", "/v1/agreements/urn%3Aa/credit")


def test_what_was_used_is_shown_with_what_it_costs(command: Command, fake: FakeConnector, home: Path, golden: Callable[[str, str], None]):
    fake.answers |= {("GET", "/v1/agreements/urn%3Aa/usage"): (200, USAGE), CREDIT_AT: (200, CREDIT | {"lost": [], "locked_bytes": 0})}
    golden("usage", command("usage", "urn:a").out)
    assert json.loads(command("usage", "urn:a", "--json").out)["cost"]["amount"] == "1.50"


def test_an_invoice_of_a_period_that_is_not_over_says_so(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("GET", "/v1/agreements/urn%3Aa/invoice")] = (200, INVOICE | {"preliminary": True})
    assert "preliminary: the period is not over" in command("invoice", "urn:a").err
    fake.answers[("GET", "/v1/agreements/urn%3Aa/invoice")] = (200, INVOICE)
    assert "preliminary" not in command("invoice", "urn:a").err


def test_that_nobody_can_say_the_cost_is_said(command: Command, fake: FakeConnector, home: Path):
    fake.answers[CREDIT_AT] = (200, CREDIT | {"lost": [], "locked_bytes": 0})
    fake.answers[("GET", "/v1/agreements/urn%3Aa/usage")] = (
        200,
        USAGE | {"cost": {"reasons": ["/permission/0: no price"]}, "transfers": []},
    )
    ended = command("usage", "urn:a")
    assert "/permission/0: no price" in ended.out
    assert ended.err == "nothing was transferred yet\n"
    fake.answers[("GET", "/v1/agreements/urn%3Aa/usage")] = (200, USAGE | {"role": "consumer", "transfers": []})
    assert "what was fetched without receipts, as by `transfers address`, only the provider has counted" in command("usage", "urn:a").err


def test_an_invoice_is_shown_for_people_and_printed_in_each_form(
    command: Command, fake: FakeConnector, home: Path, golden: Callable[[str, str], None]
):
    at = ("GET", "/v1/agreements/urn%3Aa/invoice")
    fake.answers[at] = (200, INVOICE)
    golden("invoice", command("invoice", "urn:a", "--from", "2026-01-01", "--to", "2026-02-01").out)
    assert fake.paths()[-1] == "GET /v1/agreements/urn%3Aa/invoice?format=json&from=2026-01-01&to=2026-02-01"
    for arguments in (("--format", "json"), ("--json",), ("--json", "--format", "csv")):
        assert json.loads(command("invoice", "urn:a", *arguments).out) == INVOICE
    fake.answers[at] = (200, b"a,b\r\n1,\x1b[2J2\r\n")
    assert command("invoice", "urn:a", "--format", "csv").out == "a,b\r\n1,[2J2\r\n"
    assert fake.paths()[-1].endswith("?format=csv")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ({"quantity": 3_300_000, "band": [2_000_000, None]}, ("MB beyond 2", "3.3 (3300000 bytes)")),
        ({"quantity": 5_500_000, "band": [500_000, 9_000_000]}, ("MB beyond 0.5 up to 9", "5.5 (5500000 bytes)")),
        ({"unit": "minute", "quantity": 6_533, "per": 60_000_000, "counted": "microseconds"}, ("minute", "0.000108 (6533 microseconds)")),
        ({"unit": "person", "quantity": 7, "per": 1, "counted": None, "band": None}, ("person", "7")),
    ],
)
def test_a_line_says_how_many_of_its_unit_it_is_for_and_beyond_what(
    command: Command, fake: FakeConnector, home: Path, line: dict[str, Any], shown: tuple[str, str]
):
    fake.answers[("GET", "/v1/agreements/urn%3Aa/invoice")] = (200, INVOICE | {"lines": [INVOICE["lines"][0] | line]})  # type: ignore[index]
    row = command("invoice", "urn:a").out.splitlines()[-1].split("  ")
    assert set(shown) <= {cell.strip() for cell in row}


def test_an_invoice_says_where_it_ends_by_itself_and_when_its_period_is_not_over(command: Command, fake: FakeConnector, home: Path):
    at = ("GET", "/v1/agreements/urn%3Aa/invoice")
    fake.answers[at] = (200, INVOICE)
    assert "the last acknowledged receipt, or now" in command("invoice", "urn:a").err
    assert "not over" not in command("invoice", "urn:a", "--to", "2026-02-01").err
    fake.answers[at] = (200, INVOICE | {"to": "2999-01-01T00:00:00.000Z"})
    for more in ((), ("--json",)):
        assert "the period is not over yet" in command("invoice", "urn:a", "--to", "2999-01-01", *more).err


def test_an_invoice_says_what_is_left_out_of_it(command: Command, fake: FakeConnector, home: Path):
    left = {"attested": "provider-only", "transfers": ["t2"], "counts": {"bytes": 9, "records": 3}, "amount": "0.30"}
    fake.answers[("GET", "/v1/agreements/urn%3Aa/invoice")] = (200, INVOICE | {"left_out": left | {"to": "2026-02-02T00:00:00.000Z"}})
    said = command("invoice", "urn:a").err
    assert "left out: 9 bytes, 3 records, 0.30 EUR, which the provider alone has counted and the consumer has not signed for\n" in said
    assert "an invoice `--to 2026-02-02` has it" in said


@pytest.mark.parametrize(
    ("attested", "says"),
    [
        ("both", "which both sides know"),
        ("provider-only", "by the provider's word alone"),
        ("consumer-only", "by the consumer's word alone"),
    ],
)
def test_an_invoice_says_by_whose_word_the_agreement_was_closed(
    command: Command, fake: FakeConnector, home: Path, attested: str, says: str
):
    closed = {"at": "2026-01-20T00:00:00.000Z", "by": "did:web:p.example", "attested": attested}
    fake.answers[("GET", "/v1/agreements/urn%3Aa/invoice")] = (200, INVOICE | {"closed": closed})
    assert f"2026-01-20T00:00:00.000Z by did:web:p.example, {says}\n" in command("invoice", "urn:a").out


def test_an_invoice_is_written_as_it_came_into_a_new_file(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("GET", "/v1/agreements/urn%3Aa/invoice")] = (200, b"<!doctype html>\n")
    ended = command("invoice", "urn:a", "--format", "html", "--out", "bill.html")
    assert (ended.code, ended.err) == (0, "written to bill.html\n")
    assert (home / "bill.html").read_bytes() == b"<!doctype html>\n"
    again = command("invoice", "urn:a", "--format", "html", "--out", "bill.html")
    assert (again.code, again.err) == (
        1,
        "connector: `bill.html` cannot be written: File exists; give `--out` the name of a new file\n",
    )


def test_an_invoice_that_the_disk_does_not_take_leaves_no_file_that_would_be_in_the_way(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("GET", "/v1/agreements/urn%3Aa/invoice")] = [(200, b"<!doctype html>\n")] * 2
    with no_file_over(8):
        ended = command("invoice", "urn:a", "--format", "html", "--out", "bill.html")
    assert (ended.code, "`bill.html` cannot be written: File too large" in ended.err) == (1, True)
    assert command("invoice", "urn:a", "--format", "html", "--out", "bill.html").code == 0


@pytest.mark.parametrize(("role", "locked", "says"), [("provider", LOST, True), ("provider", [], False), ("consumer", LOST, False)])
def test_credit_that_is_locked_is_said_to_the_provider_with_until_when_and_the_way_out(
    command: Command, fake: FakeConnector, home: Path, role: str, locked: list[Any], says: bool
):
    fake.answers |= {
        ("GET", "/v1/agreements/urn%3Aa/usage"): (200, USAGE | {"role": role}),
        CREDIT_AT: (200, CREDIT | {"lost": locked, "locked_bytes": sum(each["bytes"] for each in locked)}),
    }
    said = command("usage", "urn:a").err
    assert ("4.0 MB of its credit of 8.0 MB" in said) is says
    assert ("t1 until 2026-02-01 12:00" in said and "`connector agreements release urn:a`" in said) is says


def test_credit_is_released_with_a_reason(command: Command, fake: FakeConnector, home: Path):
    fake.answers[("POST", "/v1/agreements/urn%3Aa/release-credit")] = (200, CREDIT)
    ended = command("agreements", "release", "urn:a", "--reason", "its disk died")
    assert (ended.code, ended.out) == (0, "4.0 MB of the credit of urn:a are released; what was signed for stays as it is\n")
    assert fake.asked[0].body == {"reason": "its disk died"}
    assert json.loads(command("agreements", "release", "urn:a", "--json").out) == CREDIT
