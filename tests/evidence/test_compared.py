"""Two exports: what both sides tell alike, and every way in which they do not."""

from dataclasses import replace

import pytest

from connector.evidence.compared import compare
from connector.evidence.report import ClosingTold, Told
from connector.evidence.verify import verify
from connector.metering.counts import Counts
from tests.evidence.rig import CONSUMER, PROVIDER, SOUND, STRANGER


def told() -> Told:
    found = verify(SOUND.data).told
    assert found is not None
    return found


ONE = told()
THEIRS = replace(ONE, by=CONSUMER, role="consumer", entries=9, witnesses=())
FLOW = ONE.flows[0]


def test_both_sides_tell_the_same_whatever_their_ledgers_have_besides():
    assert compare(ONE, THEIRS) == ()


def other(**objects: str) -> Told:
    return replace(THEIRS, flows=(replace(FLOW, objects=FLOW.objects | objects),))


def less(*names: str) -> Told:
    return replace(THEIRS, flows=(replace(FLOW, objects={name: each for name, each in FLOW.objects.items() if name not in names}),))


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (replace(THEIRS, provider=STRANGER), "the provider is another in the first file than in the second"),
        (replace(THEIRS, policy="x"), "the policy is another"),
        (replace(THEIRS, flows=()), "transfer urn:uuid:t-p is in the first file alone, with 196613 bytes"),
        (replace(THEIRS, flows=(replace(FLOW, counts=Counts(1)),)), "comes to 196613 bytes in the first file, to 1 in the second"),
        (other(**{"receipt 2": "x"}), "receipt 2 of transfer urn:uuid:t-p is another"),
        (other(**{"ack 1": "x"}), "ack 1 of transfer urn:uuid:t-p is another"),
        (less("ack 2"), "ack 2 of transfer urn:uuid:t-p is in the first file alone"),
        (less("ack 2", "receipt 2"), "ack 2, receipt 2 of transfer urn:uuid:t-p are in the first file alone"),
        (replace(THEIRS, invoice=("9.00", "EUR", "x")), "the first file says 5.25 EUR are owed, the second 9.00 EUR"),
    ],
)
def test_every_difference_is_a_sentence(second: Told, says: str):
    (found,) = compare(ONE, second)
    assert says in found
    assert len(compare(second, ONE)) == 1


def test_a_promise_that_only_the_provider_has_made_is_no_difference():
    again = replace(FLOW, objects={"manifest": "another"}, receipts=0, acknowledged=0, counts=Counts())
    assert compare(replace(ONE, flows=(again, FLOW)), THEIRS) == ()
    assert ONE.by == PROVIDER


def test_a_closing_or_an_answer_that_only_one_side_shows_is_told():
    said = ClosingTold(PROVIDER, 60.25, CONSUMER)
    (found,) = compare(replace(ONE, closings=(said,)), THEIRS)
    assert found == f"the closing by {PROVIDER} at 1970-01-01T00:01:00.250000Z is in the first file alone"
    answered = replace(ONE, closings=(replace(said, state="taken", ends=60.25),))
    (found,) = compare(answered, replace(THEIRS, closings=(said,)))
    assert f"by the second {CONSUMER} has signed nothing of that in this file" in found
    assert compare(answered, replace(THEIRS, closings=answered.closings)) == ()


def test_an_agreement_that_is_closed_otherwise_in_the_other_file_is_told():
    (found,) = compare(replace(ONE, closed=60.0), THEIRS)
    assert found == "the agreement is closed at 1970-01-01T00:01:00.000+00:00 in the first file, not closed in the second"
    assert compare(replace(ONE, closed=60.0), replace(THEIRS, closed=60.0)) == ()
    assert len(compare(replace(ONE, closed=60.0), replace(THEIRS, closed=60.5))) == 1
