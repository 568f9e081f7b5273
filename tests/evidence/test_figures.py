"""What accounts, statements and invoices say, against the receipts: what came after them is no contradiction."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from connector.evidence import figures
from connector.evidence.verify import verify
from connector.metering.content import write_bytes
from connector.metering.objects import digest
from connector.values import replace
from tests.evidence.forgeries import CLOSING, OWN_CLOSING, REFUSAL, TWIN, answer, invoiced, other, told
from tests.evidence.rig import CONSUMER, NOW, PROVIDER, SOUND, Story, signed

TraceFunction = Callable[[FrameType, str, Any], Any]


def test_an_account_may_be_behind_the_receipts_that_came_while_the_file_was_written():
    draft = SOUND.copy()
    receipt, ack = (write_bytes(digest(draft.one(kind)["jws"])) for kind in ("receipt", "ack"))
    counts = dict.fromkeys(draft.one("transfer")["account"]["counts"], 0)
    draft.one("transfer")["account"].update(sequence=1, receipt=receipt, ack=ack, status="open", counts=counts)
    assert draft.codes() == set()


def test_a_disputed_account_stays_what_its_receipt_says():
    draft = SOUND.copy()
    draft.one("transfer")["account"]["status"] = "disputed"
    assert draft.codes() == set()


def test_an_agreement_is_closed_by_what_its_parties_have_signed_and_the_earlier_counts():
    later = replace(OWN_CLOSING, at=CLOSING.at + 1, issued=CLOSING.issued + 1)
    for closings in ((CLOSING,), (OWN_CLOSING,), (CLOSING, later), (CLOSING, replace(CLOSING, id="c3", issued=NOW + 44))):
        draft = Story(closings=closings).draft()
        assert draft.codes() == set(), closings
        for answers in ((), (answer(closings[0]),)):
            draft = Story(closings=closings, answers=answers).draft()
            invoiced(closed={"at": "2027-01-15T08:00:30.500Z", "by": closings[0].issuer, "attested": "both"})(draft)
            assert draft.codes() == (set() if answers or closings[0] is CLOSING else {"invoice-closed"}), "both know what both have signed"
    before = signed(replace(CLOSING, at=CLOSING.at - 9))  # by which the other side goes, and the exporter does not
    draft = Story(closings=(OWN_CLOSING,), answers=(answer(OWN_CLOSING, own=before, ends=CLOSING.at - 9),)).draft()
    invoiced(closed={"at": "2027-01-15T08:00:30.500Z", "by": PROVIDER, "attested": "both"})(draft)
    assert draft.codes() == {"invoice-closed"}
    # of one that only the exporter has signed nothing says that the other side goes by it
    for closings, said in (((CLOSING,), False), ((OWN_CLOSING,), True)):
        report = verify(Story(closings=closings).draft().data)
        assert any(f"that {CONSUMER} goes by the same end" in each for each in report.unproven) is said


def test_of_an_end_that_the_other_side_refuses_it_is_said_that_it_goes_by_another():
    for said in (answer(OWN_CLOSING, **REFUSAL | {"ends": None}), answer(OWN_CLOSING)):
        report = verify(Story(closings=(OWN_CLOSING,), answers=(said,)).draft().data)
        assert report.sound, report.findings
        found = [each for each in report.unproven if f"that {CONSUMER} goes by the same end" in each]
        assert [each.endswith("what it has signed says another, or none") for each in found] == [True] * (said.state == "refused")


def test_a_statement_of_the_other_side_that_does_not_fit_accuses_it_where_the_ledger_counts_what_is_there():
    """Without a count who exports may have left out what it names."""
    theirs = other(issuer=CONSUMER, audience=PROVIDER, ledger=None, peer=None)
    draft = Story({"statement": lambda value: theirs(told(receipt=b"x" * 32)(value))}).draft()
    report = verify(draft.data)
    assert [(each.code, each.accuses) for each in report.findings] == [("statement-receipt", True)]
    report = verify(draft.uncounted().data)
    assert [(each.code, each.accuses) for each in report.findings] == [("statement-receipt", False)]


def test_two_closings_of_one_side_with_different_instants_accuse_it():
    twice = Story(closings=(CLOSING, replace(CLOSING, id="c4", at=CLOSING.at + 7))).draft()
    report = verify(twice.data)
    assert report.sound
    assert [(each.code, each.accuses) for each in report.findings] == [("closing-twice", True)]
    later = signed(replace(CLOSING, at=CLOSING.at + 7))
    within = Story(closings=(OWN_CLOSING, CLOSING), answers=(answer(OWN_CLOSING, own=later),)).draft()
    report = verify(within.data)
    assert report.sound
    assert [(each.code, each.accuses) for each in report.findings] == [("closing-twice", True)]


def test_what_either_side_has_signed_of_the_closing_of_the_other_is_told():
    later = replace(OWN_CLOSING, at=CLOSING.at + 9, issued=CLOSING.issued + 1)
    for closings, answers, says in (
        ((CLOSING, later), (), f"{CONSUMER} has signed nothing of that in this file"),
        (
            (CLOSING, later),
            (answer(CLOSING, own=signed(later)),),
            f"{PROVIDER} has signed that it has taken that, and that the agreement ends",
        ),
        (
            (CLOSING, TWIN),
            (answer(TWIN, **REFUSAL, ends=CLOSING.at),),
            f"{PROVIDER} has signed that it refuses that (`closing-twice`: another",
        ),
        (
            (OWN_CLOSING, CLOSING),
            (answer(CLOSING, state="refused", why="closing-before", ends=None),),
            "and that the agreement has not ended",
        ),
    ):
        report = verify(Story(closings=closings, answers=answers).draft().data)
        assert report.sound, report.findings
        assert sum(says in line for line in report.verdict()) == 1, [*report.verdict()]
        assert any("nobody has signed an answer" in each for each in report.unproven) is (not answers)
        assert report.told is not None
        assert [each["answer"] for each in report.to_json()["agreement"]["closings"] if each["answer"]] == [each.state for each in answers]


def test_who_has_signed_that_a_closing_is_taken_and_refused_is_accused():
    contrary = answer(CLOSING, id="a-2", **(REFUSAL | {"why": "closing-before"}), ends=CLOSING.at)
    report = verify(Story(closings=(CLOSING,), answers=(answer(CLOSING), contrary)).draft().data)
    assert report.sound, report.findings
    assert [(each.code, each.accuses) for each in report.findings] == [("closing-ack-twice", True)]


def test_a_closing_that_the_other_side_has_refused_does_not_end_the_agreement():
    story = Story(closings=(OWN_CLOSING, replace(CLOSING, at=CLOSING.at - 9)))
    assert story.draft().codes() == {"closing-other"}
    refused = answer(story.closings[1], state="refused", why="closing-before", ends=OWN_CLOSING.at)
    assert replace(story, answers=(refused,)).draft().codes() == set()


def test_a_reason_for_a_closing_of_the_peer_is_one_that_it_gave():
    draft = Story(closings=(CLOSING,)).draft()
    draft.one("agreement")["reason"] = "what nobody has said"
    assert draft.codes() == {"agreement-closed"}


def test_many_answers_to_many_closings_take_as_much_longer_as_there_are_more_of_them():
    """By the instructions of the interpreter in the module: no clock is asked."""

    def steps(number: int) -> int:
        closings = tuple(replace(CLOSING, id=f"c{each}", issued=CLOSING.issued + each) for each in range(number))
        data = Story(closings=closings, answers=tuple(answer(each) for each in closings)).draft().data
        count = 0

        def step(frame: FrameType, event: str, _: object) -> TraceFunction | None:
            nonlocal count
            if frame.f_code.co_filename != figures.__file__:
                return None
            frame.f_trace_opcodes = True
            count += event == "opcode"
            return step

        before = sys.gettrace()
        sys.settrace(step)
        try:
            report = verify(data)
        finally:
            sys.settrace(before)
        assert report.sound, report.findings
        return count

    none, few, many = steps(0), steps(5), steps(20)
    assert none < few
    assert many - none < 5 * (few - none)
