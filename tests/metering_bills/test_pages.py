import csv
from decimal import Decimal
from html.parser import HTMLParser
from io import StringIO

import pytest

from connector.metering.counts import Counts
from connector.metering_bills.invoice import Reading, invoice_of
from connector.metering_bills.pages import ALONE, COLUMNS, DISPUTED, LEFT_OUT, PRELIMINARY, SECONDS_ALONE, as_csv, as_html, quantity
from connector.values import replace
from tests.metering_bills.priced import count, every, plan, price
from tests.metering_bills.test_invoice import DAY, PARTIES, PLAN, START, alone, bill, receipt

READINGS = [receipt("urn:uuid:t1", 5, 3, bytes=3_000_000, records=12_345, calls=2), alone("urn:uuid:t2", 6, records=5)]
EVIL = '=cmd|"/c calc"!A0,<script>alert(1)</script>\r\n&'


class Page(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_table_has_a_row_for_each_line_and_the_total():
    invoice = bill(READINGS)
    rows = list(csv.DictReader(StringIO(as_csv(invoice), newline="")))
    assert as_csv(invoice).endswith("\r\n")
    assert tuple(rows[0]) == COLUMNS
    assert [(row["unit"], row["quantity"], row["attested"], row["amount"]) for row in rows] == [
        ("record", "12345", "both", "246.90"),
        ("record", "5", "provider-only", "0.10"),
        ("MB", "2000000", "both", "1.00"),
        ("subscription", "1", "agreed", "9.99"),
        ("", "", "in-part", "257.99"),
    ]
    assert {row["digest"] for row in rows} == {invoice.digest}
    assert rows[-1]["line"] == "total"
    assert sum(Decimal(row["amount"]) for row in rows[:-1]) == Decimal(rows[-1]["amount"]) == Decimal(invoice.total) / 100


def test_a_page_stands_alone_and_says_all_that_the_invoice_does():
    invoice = bill(READINGS)
    page = Page(as_html(invoice))
    said = invoice.to_json()
    for text in (said["digest"], said["agreement"], "12,345", "246.90 EUR", "257.99 EUR", "3: " + said["flows"][0]["receipt"], ALONE):
        assert text in page.text
    assert not {"script", "link", "img", "iframe", "form"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in ("src", "href") or name.startswith("on")]
    assert ("lang", "en") in page.attributes
    assert as_html(invoice).count('class="alone"') == 2, "the line and the flow that only the provider vouches for"


def test_what_is_disputed_is_said_in_every_form():
    plain = bill(READINGS)
    argued = invoice_of(PARTIES, PLAN, READINGS, plain.begins, plain.ends, disputed=["urn:uuid:t1", "urn:uuid:elsewhere"])
    assert argued.to_json()["disputed"] == ["urn:uuid:t1"]
    assert "disputed" not in plain.to_json()
    assert argued.digest != plain.digest
    assert list(csv.DictReader(StringIO(as_csv(argued), newline="")))[-1]["attested"] == "disputed"
    assert f"{DISPUTED} urn:uuid:t1" in Page(as_html(argued)).text
    assert DISPUTED not in Page(as_html(plain)).text


def test_what_is_left_out_is_said_in_every_form_with_its_amount():
    left = invoice_of(PARTIES, PLAN, READINGS[:1], START, START + DAY, alone=[alone(EVIL, DAY, bytes=2_000, records=1_005, calls=1)])
    rows = list(csv.DictReader(StringIO(as_csv(left), newline="")))
    assert [(row["line"], row["attested"], row["amount"]) for row in rows[-2:]] == [
        ("total", "both", "257.89"),
        ("left out", "provider-only", "20.10"),
    ]
    page = Page(as_html(left))
    assert f"{LEFT_OUT} 2,000 bytes, 1,005 records, 1 call: 20.10 EUR. An invoice up to 2026-02-01T09:00:00.000Z has it" in page.text
    assert LEFT_OUT not in Page(as_html(bill(READINGS))).text


def test_that_its_period_is_not_over_is_said_in_every_form_and_is_no_part_of_the_digest():
    plain = bill(READINGS)
    early = replace(plain, preliminary=True)
    assert (early.to_json().pop("preliminary"), "preliminary" in plain.to_json(), early.digest) == (True, False, plain.digest)
    rows = [list(csv.DictReader(StringIO(as_csv(each), newline=""))) for each in (plain, early)]
    assert rows[1][:-1] == rows[0]
    assert (rows[1][-1]["line"], rows[1][-1]["amount"], rows[1][-1]["to"]) == ("preliminary", "", early.to_json()["to"])
    assert [PRELIMINARY in Page(as_html(each)).text for each in (plain, early)] == [False, True]


def test_a_page_without_doubt_has_no_warning():
    assert ALONE not in as_html(bill(READINGS[:1]))
    assert "Nothing was used." in as_html(bill([], terms=plan(price("1", "record"))))


def test_time_that_nobody_pays_for_makes_no_bill_doubtful_and_stands_beside_what_was_transferred():
    reading = replace(receipt("t1", 5, 1, bytes=3_000_000, microseconds=5_900_000), beyond=Counts(microseconds=3_900_000))
    by_bytes, by_time = bill([reading], terms=plan(price("1", "megabyte"))), bill([reading], terms=plan(price("1", "minute")))
    assert [each.to_json()["attested"] for each in (by_bytes, by_time)] == ["both", "in-part"]
    assert [ALONE in as_html(each) for each in (by_bytes, by_time)] == [False, True]
    for each in (by_bytes, by_time):
        assert f"9.8 s, {SECONDS_ALONE} 3.9 s" in Page(as_html(each)).text


def test_what_peers_have_named_is_neither_markup_nor_a_formula():
    parties = replace(PARTIES, agreement=EVIL, dataset=EVIL, consumer=EVIL)
    invoice = invoice_of(parties, PLAN, [Reading(EVIL, START + 1, Counts(records=1))], START, START + DAY)
    page = Page(as_html(invoice))
    assert "script" not in page.tags
    assert page.text.count("<script>alert(1)</script>") >= 3
    rows = list(csv.reader(StringIO(as_csv(invoice), newline="")))
    assert rows[1][0] == f"'{EVIL}"
    assert {len(row) for row in rows} == {len(COLUMNS)}


@pytest.mark.parametrize("unseen", ["\u202e", "\u2066", "\u200b", "\x00", "\n"])
def test_what_nobody_sees_in_an_id_is_written_out(unseen: str):
    """What turns round the order of letters would let one id look like another, or a sentence of ours."""
    parties = replace(PARTIES, agreement=f"urn:a{unseen}b", consumer=f"did:web:x{unseen}y")
    invoice = invoice_of(
        parties, PLAN, [Reading(f"t{unseen}u", START + 1, Counts(records=1))], START, START + DAY, disputed=[f"t{unseen}u"]
    )
    page, number = Page(as_html(invoice)).text, f"\\u{ord(unseen):04x}"
    assert page.count(f"urn:a{number}b") == 2
    assert page.count(f"t{number}u") == 2
    assert f"a{unseen}b" not in page


@pytest.mark.parametrize("sign", "=+-@\n\uff1d\uff0b\uff0d\uff20")
def test_no_cell_begins_as_a_formula_does(sign: str):
    invoice = invoice_of(replace(PARTIES, dataset=f"{sign}1+1"), PLAN, [], START, START + DAY)
    assert next(csv.DictReader(StringIO(as_csv(invoice), newline="")))["dataset"] == f"'{sign}1+1"


def test_a_printed_page_repeats_the_heads_of_its_tables():
    page = as_html(bill(READINGS))
    assert page.count("<thead>") == page.count("</thead>") == 2
    assert "thead { display: table-header-group; }" in page


def test_a_band_is_told_with_its_ends():
    terms = plan(price("1", "megabyte", count("gt", 5), count("lteq", 7)), price("2", "subscription", every("P1M")))
    page = Page(as_html(bill([receipt("t", 1, 1, bytes=6_500_000)], terms=terms)))
    assert "per MB beyond 5 up to 7" in page.text
    assert "1.5" in page.text


@pytest.mark.parametrize(
    ("of", "per", "text"),
    [(1_500_000, 1_000_000, "1.5"), (3, 1, "3"), (1, 60_000_000, "0"), (100_000_000, 60_000_000, "1.666666"), (-5, 1, "-5"),
     (-1, 10**9, "0"), (12_345_678, 1, "12,345,678"), (1_000_001, 1_000_000, "1.000001")],
)  # fmt: skip
def test_a_quantity_is_written_for_people(of: int, per: int, text: str):
    assert quantity(of, per) == text
