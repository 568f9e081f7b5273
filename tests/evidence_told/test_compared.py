"""Two exports: what both sides tell alike, and every way in which they do not."""

import pytest

from connector.evidence.report import ClosingTold, Process, Told
from connector.evidence.verify import verify
from connector.evidence_told.compared import compare
from connector.metering.counts import Counts
from connector.values import replace
from tests.evidence.rig import CONSUMER, LOGS, NOW, PROVIDER, SOUND, STRANGER, TRANSFER, Draft, Story, fact


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


def test_a_transfer_that_only_the_provider_knows_is_not_said_to_be_of_no_bytes():
    unsigned = replace(FLOW, transfer="urn:uuid:u", objects={"manifest": "another"}, receipts=0, acknowledged=0, counts=Counts())
    said = "transfer urn:uuid:u is in the first file alone, and its consumer has signed for nothing of it"
    assert compare(replace(ONE, flows=(FLOW, unsigned)), THEIRS) == (said,)


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


def told_by(draft: Draft) -> Told:
    report = verify(draft.data)
    assert report.sound, report.findings
    assert report.told is not None
    return report.told


LONGER = told_by(Story(extra=((fact("decided-again", TRANSFER), {}),)).draft())


@pytest.mark.parametrize("place", [0, 3, 5, 12])
def test_an_entry_that_an_exporter_has_left_out_once_is_shown_by_its_other_export_wherever_it_stood(place: int):
    """The same side, twice: what is left out in the middle, and at the end of what there was then."""
    entry = SOUND.all("entry")[place]
    assert compare(ONE, LONGER) == (), "a log may have grown meanwhile"
    less = replace(ONE, standing={key: pid for key, pid in ONE.standing.items() if key[1] != entry["index"]})
    for found in (compare(less, LONGER), compare(LONGER, less)):
        (said,) = found
        assert said.startswith(f"entries {entry['index']} of {LOGS[PROVIDER]}, about ")
        assert said.endswith(f"file alone, and {PROVIDER} has signed at 2027-01-15T08:01:00Z that the other is all")


def test_what_came_while_an_export_was_counted_is_for_the_next_one():
    log = LOGS[PROVIDER]
    early = {place: pid for place, pid in ONE.standing.items() if place[1] < 10}
    assert compare(replace(ONE, standing=early, counted=(log, 14, len(early), {log: 10})), LONGER) == ()


def test_the_count_of_an_export_stands_in_all_that_come_later():
    log = LOGS[PROVIDER]
    later = replace(ONE, counted=(log, 40, 14, {log: 40}))
    (said,) = compare(ONE, later)
    assert said.startswith(f"entries 14 of {log}, about the agreement, stand in the first file alone, and {PROVIDER} has signed at")
    assert compare(ONE, replace(later, standing=later.standing | {(log, 14): ONE.agreement})) == ()


def test_entries_of_a_transfer_that_was_removed_meanwhile_are_told_to_be_so_perhaps():
    named = {name: process for name, process in ONE.processes.items() if process.pid != TRANSFER}
    later = replace(ONE, processes=named, standing={key: pid for key, pid in ONE.standing.items() if pid != TRANSFER})
    (said,) = compare(ONE, later)
    assert said.startswith("entries 5, 6, 7, 8, 9, 10, 11, 12, 13 of")
    assert said.endswith("unless it was removed for the other because its time to be kept was over")


def test_a_sound_file_that_lacks_an_entry_in_the_middle_is_told_apart_from_the_whole_one():
    draft = SOUND.uncounted()
    middle = draft.move("ContractAgreementVerificationMessage")
    draft.members = [each for each in draft.members if each[1] is not middle]
    said, count = compare(told_by(draft), ONE)
    assert count.startswith(f"entries 14 of {LOGS[PROVIDER]}, about the agreement, stand in the second file alone")
    assert said.startswith(f"entries {middle['index']} of {LOGS[PROVIDER]}, about the negotiation, stand in the second file alone, and ")
    (said,) = compare(told_by(draft), THEIRS)
    assert said == "ContractAgreementVerificationMessage of the negotiation is on record in the second file alone"


def test_what_ended_and_is_kept_back_is_shown_by_the_other_side():
    moves = ONE.processes[f"transfer {TRANSFER}"].moves
    less = Process(TRANSFER, moves - {"TransferCompletionMessage"})
    (said,) = compare(ONE, replace(THEIRS, processes=ONE.processes | {f"transfer {TRANSFER}": less}))
    assert said == f"TransferCompletionMessage of transfer {TRANSFER} is on record in the first file alone"
    without_beginning = replace(THEIRS, processes=ONE.processes | {f"transfer {TRANSFER}": Process(TRANSFER, frozenset())})
    assert compare(ONE, without_beginning) == (), "from before the ledger"


def test_a_transfer_that_only_one_side_names_is_told_though_nothing_was_signed_of_it():
    more = replace(THEIRS, processes=ONE.processes | {"transfer urn:uuid:x": Process("urn:uuid:y", frozenset({"TransferRequestMessage"}))})
    (said,) = compare(ONE, more)
    assert said.startswith("transfer urn:uuid:x is in the second file alone, unless it was removed for the other")


def test_who_has_signed_what_its_own_file_lacks_is_told_to_have():
    ours = replace(ONE, attested=NOW + 3_600)
    lacking = replace(ours, flows=(replace(FLOW, objects={name: each for name, each in FLOW.objects.items() if name != "ack 2"}),))
    found = compare(lacking, THEIRS)
    assert found[0] == f"ack 2 of transfer {TRANSFER} is in the second file alone"
    assert found[1].startswith(f"{PROVIDER} has signed ack 2 of transfer {TRANSFER} itself, and at 2027-01-15T09:00:00Z that its file has")
    assert len(compare(replace(lacking, attested=NOW + 60), THEIRS)) == 1, "what is signed in that minute may have come later"
    assert len(compare(ours, replace(lacking, by=CONSUMER))) == 1, "the consumer need not have got it"
    gone = compare(replace(ours, flows=()), THEIRS)
    assert gone[1].startswith(f"{PROVIDER} has signed manifest, ack 1, ack 2 of transfer {TRANSFER} itself")
