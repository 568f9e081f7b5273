"""What an invoice bills by time alone is compared with the time that the file shows, and what nobody else has signed of that is told."""

import pytest

from connector.evidence.report import Report
from connector.evidence.verify import verify
from connector.metering.closing import Closing
from tests.evidence.forgeries import invoiced
from tests.evidence.rig import CONSUMER, NOW, PROVIDER, Draft, Story
from tests.evidence_bills.test_priced import DUTIES, billed_otherwise, days_later, document, draft_of
from tests.odrl_forms.shipped import options

COME = "that the time has come up to which the invoice bills"
AFTER = "what is owed for the time from"


def told(draft: Draft) -> Report:
    return verify(draft.data, profiles=options().profiles)


def up_to(draft: Draft, day: int, amount: str) -> Draft:
    """The invoice of so many days that have begun, each of which is paid for."""
    invoiced(to=f"2027-01-{14 + day}T09:00:00.000Z")(draft)
    billed_otherwise(draft, 0, quantity=day, amount=amount)
    return draft


def said(report: Report, word: str) -> list[str]:
    return [text for text in report.unproven if text.startswith(word)]


def test_an_invoice_of_time_that_is_yet_to_come_is_found():
    report = told(up_to(draft_of("subscription"), 3, "15.60"))
    assert [(each.code, each.pointer) for each in report.findings] == [("invoice-ahead", "/document/to")]


def test_a_subscription_that_is_billed_beyond_what_another_has_signed_is_told():
    draft = days_later(draft_of("subscription"))
    report = told(up_to(draft, 3, "15.60"))
    assert report.sound, report.findings
    (text,) = said(report, COME)
    assert "2027-01-17T09:00:00.000Z" in text
    assert "2027-01-15T08:00:30Z" in text, "the latest that the consumer has signed"
    (text,) = said(report, AFTER)
    assert "from 2027-01-17T09:00:00.000Z on" in text, "two more days had begun when the file was written"


def test_a_subscription_is_proven_where_another_has_signed_something_later():
    closing = Closing(CONSUMER, PROVIDER, "c1", NOW + 2 * 86_400 + 3_700, "urn:uuid:a", (NOW + 2 * 86_400 + 3_700) * 1_000_000)
    story = Story(document=document(DUTIES["subscription"]), closings=(closing,))
    report = told(up_to(days_later(story.draft()), 3, "15.60"))
    assert report.sound, report.findings
    assert not said(report, COME) + said(report, AFTER), "it has ended then"


@pytest.mark.parametrize("unit", ["record", "person"])
def test_what_costs_the_same_at_any_time_needs_nobody_to_say_when(unit: str):
    draft = days_later(draft_of(unit))
    invoiced(to="2027-01-17T09:00:00.000Z")(draft)
    report = told(draft)
    assert report.sound, report.findings
    assert not said(report, COME) + said(report, AFTER)
