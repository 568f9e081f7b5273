"""Invoices by other prices than those of the agreement are found, whatever is priced, and those that nobody here can read are no alarm."""

from decimal import Decimal
from typing import Any

import pytest

from connector.evidence.verify import verify
from connector.metering.content import write_bytes
from connector.metering.counts import Counts
from connector.metering.objects import digest
from connector.metering_bills.terms import name_of
from connector.odrl import load
from tests.evidence.forgeries import invoiced, other
from tests.evidence.rig import DOCUMENT, LAYOUT, NOW, SOUND, Draft, Story
from tests.metering_bills.priced import count, every, price
from tests.odrl_forms.shipped import options

COUNTS = Counts(LAYOUT.size_bytes, 40, 1, 1, 90_000_000)
DUTIES = {
    "record": price("0.02", "record", count("gt", 10)),
    "MB": price("0.50", "megabyte"),
    "call": price("1.25", "call"),
    "minute": price("0.40", "minute"),
    "subscription": price("5.20", "subscription", every("P1D")),
    "person": price("3.10", "person", count("eq", 4)),
}
UNITS = {"manifest": other(unit="line")}


def document(*duties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return DOCUMENT | {"permission": [{"action": "use", "duty": list(duties)}]} | more


def draft_of(*units: str) -> Draft:
    return Story(UNITS, document=document(*map(DUTIES.__getitem__, units)), counts=COUNTS).draft()


def codes_and_places(draft: Draft) -> list[tuple[str, str]]:
    return [(each.code, each.pointer) for each in verify(draft.data, profiles=options().profiles).findings]


def billed_otherwise(draft: Draft, number: int, **values: Any) -> None:
    """A line that says something else, in an invoice that adds up to that."""
    lines = [dict(line) for line in draft.one("invoice")["document"]["lines"]]
    lines[number] |= values
    invoiced(lines=lines, total=str(sum(Decimal(line["amount"]) for line in lines)))(draft)


def put_invoice(draft: Draft, other: Draft) -> None:
    """The invoice of another file, made to fit."""
    said = other.one("invoice")["document"]
    names = {kind: write_bytes(digest(draft.one(kind, at)["jws"])) for kind, at in (("manifest", 0), ("receipt", 1))}
    draft.put("invoice", {"document": said}, "checkpoint")
    invoiced(agreement_digest=draft.one("agreement")["policy"], flows=[said["flows"][0] | names])(draft)


def days_later(draft: Draft) -> Draft:
    """The file as it would have been written some days later, which nobody has signed."""
    draft = draft.uncounted()
    draft.attest = False
    draft.one("evidence").update(version=1, at=NOW + 4 * 86_400)
    return draft


def test_an_invoice_by_the_prices_of_its_agreement_is_sound_whatever_is_priced():
    draft = draft_of(*DUTIES)
    said = draft.one("invoice")["document"]
    assert [line["unit"] for line in said["lines"]] == list(DUTIES)
    report = verify(draft.data, profiles=options().profiles)
    assert report.sound, report.findings
    assert not [text for text in report.unproven if "prices" in text]


@pytest.mark.parametrize("unit", DUTIES)
def test_a_line_at_another_price_is_found_though_it_is_what_its_quantity_comes_to(unit: str):
    (line,) = draft_of(unit).one("invoice")["document"]["lines"]
    for factor in (2, 0):
        draft, price = draft_of(unit), factor * Decimal(line["unit_price"])
        billed_otherwise(draft, 0, unit_price=f"{price:.2f}", amount=f"{price * line['quantity'] / line['per']:.2f}")
        assert codes_and_places(draft) == [("invoice-price", "/document/lines/0")]


@pytest.mark.parametrize("unit", DUTIES)
def test_a_line_that_is_left_out_is_found(unit: str):
    draft = draft_of(unit)
    invoiced(lines=[], total="0.00")(draft)
    assert codes_and_places(draft) == [("invoice-quantity", "/document/lines")]


def test_another_number_of_what_is_agreed_is_found():
    draft = draft_of("subscription", "person")
    for number, values in ((0, {"quantity": 3, "amount": "15.60"}), (1, {"quantity": 5, "amount": "15.50"})):
        forged = draft.copy()
        billed_otherwise(forged, number, **values)
        assert codes_and_places(forged) == [("invoice-quantity", "/document/lines")]


def test_a_line_for_another_unit_band_or_price_than_the_agreement_has_is_found():
    for values in (
        {"per": 2},
        {"unit": "call"},
        {"band": [0, None]},
        {"price": "/permission/0/duty/7"},
        {"counted": "calls", "quantity": 1},
    ):
        draft = draft_of("record")
        line = draft.one("invoice")["document"]["lines"][0] | values
        billed_otherwise(draft, 0, **values, amount=f"{0.02 * line['quantity'] / line['per']:.2f}")
        assert codes_and_places(draft) == [("invoice-price", "/document/lines/0")], values


def test_an_invoice_in_another_currency_or_of_an_agreement_without_prices_is_found():
    draft = draft_of("call")
    invoiced(currency="USD")(draft)
    assert codes_and_places(draft) == [("invoice-price", "/document/currency")]
    free = Story(document=document(), invoice=False).draft()
    assert codes_and_places(free) == []
    put_invoice(free, SOUND)
    assert codes_and_places(free) == [("invoice-price", "/document")]


def test_a_subscription_of_an_agreement_that_has_ended_is_billed_up_to_there():
    draft = days_later(draft_of("subscription"))
    invoiced(to="2027-01-18T08:00:00.000Z")(draft)
    assert codes_and_places(draft) == [("invoice-quantity", "/document/lines")], "three days have begun"
    billed_otherwise(draft, 0, quantity=3, amount="15.60")
    assert codes_and_places(draft) == []
    draft.one("agreement")["ends"] = 1_800_000_000 + 86_401
    assert codes_and_places(draft) == [("invoice-quantity", "/document/lines")]
    billed_otherwise(draft, 0, quantity=2, amount="10.40")
    assert codes_and_places(draft) == []


def test_an_invoice_of_a_later_period_is_no_alarm_and_its_subscriptions_are_looked_at():
    draft = days_later(draft_of("record", "subscription"))
    begins = {"from": "2027-01-16T09:00:00.000Z", "to": "2027-01-17T09:00:00.000Z"}
    invoiced(**begins)(draft)
    assert codes_and_places(draft) == []
    billed_otherwise(draft, 1, quantity=2, amount="10.40")
    assert codes_and_places(draft) == [("invoice-quantity", "/document/lines")]


def test_of_an_invoice_of_a_later_period_it_is_said_that_little_was_compared():
    draft = days_later(draft_of("record"))
    invoiced(**{"from": "2027-01-16T09:00:00.000Z", "to": "2027-01-17T09:00:00.000Z"}, lines=[], total="0.00")(draft)
    report = verify(draft.data, profiles=options().profiles)
    assert report.sound, report.findings
    assert [text for text in report.unproven if "begins after the signing" in text]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"lines": ["x"], "total": "0.00"}, ("invoice-line", "/document/lines")),
        ({"lines": None, "total": "0.00"}, ("invoice-line", "/document/lines")),
        ({"from": "2027-02-16T09:00:00.000Z"}, ("invoice-quantity", "/document/lines")),
    ],
)
def test_an_invoice_of_another_form_is_found_and_read_no_further(values: dict[str, Any], found: tuple[str, str]):
    draft = draft_of("record", "subscription")
    invoiced(**values)(draft)
    assert codes_and_places(draft) == [found]


def test_of_prices_that_cannot_be_read_here_it_is_said_that_nothing_was_compared():
    draft = Story(document=document(profile="https://elsewhere.example/profile"), invoice=False).draft()
    put_invoice(draft, SOUND)
    billed_otherwise(draft, 1, unit_price="9.00", amount="9.00")
    report = verify(draft.data)
    assert report.sound, report.findings
    assert [text for text in report.unproven if "prices of the agreement: what the agreement says of prices is not understood here" in text]


def test_prices_that_both_sides_have_signed_for_and_are_read_otherwise_here_are_no_alarm():
    for name, sound in ((b"x" * 32, True), (name_of(load(DOCUMENT)), False)):
        draft = Story({"manifest": other(prices=name)}).draft()
        billed_otherwise(draft, 1, unit_price="9.00", amount="9.00")
        report = verify(draft.data, profiles=options().profiles)
        assert report.sound is sound, report.findings
        assert sound is any("prices of another name" in text for text in report.unproven)


def test_a_file_without_an_invoice_does_not_hide_that_something_is_owed():
    """A subscription is owed though nothing flows, and no manifest has to name prices."""
    use = {"action": "use"}
    for rules, told in (
        (DOCUMENT["permission"], "what is owed: the agreement has prices, and there is no invoice in the file"),
        ([use], ""),
        ([use | {"constraint": [{"leftOperand": "odrl:nothing", "operator": "eq", "rightOperand": 1}]}], "whether anything is owed: "),
    ):
        report = verify(Story(document=DOCUMENT | {"permission": rules}, invoice=False).draft().data)
        assert report.sound, report.findings
        found = [text for text in report.unproven if "is owed" in text]
        assert [text[: len(told)] for text in found] == [told] * bool(told)
