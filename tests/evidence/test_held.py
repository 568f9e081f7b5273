"""What is said of processes and of the agreement is what the ledger has of them, and what it has not is said to be the exporter's word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from connector.dsp.messages import Move
from connector.evidence.verify import verify
from connector.records import Evidence
from tests.evidence.rig import NEGOTIATION, NOW, SOUND, TRANSFER, Draft, Story, fact


def after(*facts: Evidence, **agreement: Any) -> Draft:
    """The file with more facts at the end of the ledger, of which its agreement says this."""
    draft = Story(extra=tuple((each, {}) for each in facts)).draft()
    draft.one("agreement").update(agreement)
    return draft


CLOSED = fact("agreement-closed", NEGOTIATION, at=NOW + 30, state=None, agreement="urn:uuid:a", reasons=["it is over"])
BY_PEER = fact(
    "message-received",
    TRANSFER,
    Move.TRANSFER_TERMINATION,
    at=NOW + 30,
    state="TERMINATED",
    code="AGREEMENT_CLOSED",
    reasons=["no", "more"],
)
ACT = {"duty": "/permission/0/duty/0", "action": "odrl:inform", "at": NOW + 1.5, "by": "did:web:x.example", "amounts": {}}
DONE = replace(fact("duty-performed", NEGOTIATION, at=NOW + 31, state=None), detail={"agreement": "urn:uuid:a"} | ACT)


def ended(code: str | None, state: str = "TERMINATED") -> Callable[[Draft], None]:
    return lambda draft: draft.one("transfer").update(state=state, code=code)


def test_an_agreement_is_closed_when_and_by_whom_and_why_the_ledger_says():
    said: dict[str, Any] = {"closed": NOW + 30, "closedBy": "us", "reason": "it is over"}
    assert after(CLOSED, **said).codes() == set()
    for lie in ({"closed": NOW + 31}, {"closedBy": "peer"}, {"reason": "another"}, {"closed": None}, {"closed": None, "closedBy": None}):
        assert after(CLOSED, **(said | lie)).codes() == {"agreement-closed"}, lie
    erased = after(CLOSED, **(said | {"reason": "what is erased nobody knows"}))
    erased.one("entry", -1).update(detail=None, salt=None)
    assert erased.codes() == set()


def test_an_agreement_that_the_peer_has_closed_says_what_the_peer_said():
    said: dict[str, Any] = {"closed": NOW + 30, "closedBy": "peer", "reason": "no; more"}
    for change, codes in (({}, set()), ({"reason": "another"}, {"agreement-closed"}), ({"closedBy": "us"}, {"agreement-closed"})):
        draft = after(BY_PEER, **(said | change))
        ended("AGREEMENT_CLOSED")(draft)
        assert draft.codes() == codes


def test_duties_are_those_on_record():
    assert after(DONE, performed=[ACT]).codes() == set()
    for acts in ([], [ACT, ACT], [ACT | {"at": NOW}]):
        assert after(DONE, performed=acts).codes() == {"agreement-performed"}
    erased = after(DONE, performed=[ACT, ACT])
    erased.one("entry", -1).update(detail=None, salt=None)
    assert erased.codes() == set()
    assert any("duties performed" in text for text in verify(erased.data).unproven)


@pytest.mark.parametrize(
    ("said", "state", "code", "found"),
    [
        ("QUOTA_EXHAUSTED", "TERMINATED", "QUOTA_EXHAUSTED", set()),
        ("QUOTA_EXHAUSTED", "TERMINATED", "EXPIRED", {"code-other"}),
        ("QUOTA_EXHAUSTED", "TERMINATED", None, {"code-other"}),
        ("QUOTA_EXHAUSTED", "COMPLETED", "QUOTA_EXHAUSTED", {"state-other"}),
        (None, "TERMINATED", None, set()),
        (None, "TERMINATED", "EXPIRED", {"code-other"}),
    ],
)
def test_a_transfer_has_ended_for_the_reason_that_is_on_record(said: str | None, state: str, code: str | None, found: set[str]):
    detail = {"code": said, "reasons": ["so it is"]} if said else {}
    draft = after(fact("message-sent", TRANSFER, Move.TRANSFER_TERMINATION, at=NOW + 30, state="TERMINATED", **detail))
    ended(code, state)(draft)
    assert draft.codes() == found
    draft.one("entry", -1).update(detail=None, salt=None)
    assert draft.codes() == found - {"code-other"}


@pytest.mark.parametrize(("code", "found"), [("ended-by-peer", set()), ("EXPIRED", {"code-other"}), (None, {"code-other"})])
def test_a_transfer_that_the_peer_s_state_says_is_over_was_ended_by_the_peer(code: str | None, found: set[str]):
    draft = after(fact("message-implied", TRANSFER, Move.START, at=NOW + 30, state="TERMINATED"))
    ended(code)(draft)
    assert draft.codes() == found


def test_a_process_of_which_the_ledger_has_nothing_is_the_exporter_s_word_and_that_is_said():
    draft = SOUND.copy()
    draft.members = [each for each in draft.members if each[0] != "entry" or each[1]["pid"] != NEGOTIATION]
    draft.one("negotiation").update(state="VERIFIED", created=1.0)
    assert draft.codes() == set()
    assert any(f"state of {NEGOTIATION}" in text for text in verify(draft.data).unproven)
