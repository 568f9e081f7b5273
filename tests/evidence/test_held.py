"""What is said of processes and of the agreement is what the ledger has of them, and what it has not is said to be the exporter's word."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from connector.dsp.messages import Move
from connector.evidence.verify import verify
from connector.metering.content import write_bytes
from connector.metering.objects import Receipt, digest, kept
from connector.records import Evidence
from connector.signatures import jws
from connector.signatures.http import Answer, Request, sign, verify_answer
from tests.evidence.rig import CONSUMER, KEYS, LATER, NEGOTIATION, NOW, PROVIDER, SOUND, STRANGER, TRANSFER, Draft, Story, fact


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


SIGNED = SOUND.all("receipt")[-1]["jws"]
POINT = kept(Receipt, SIGNED).checkpoint
CITED = {"transfer": TRANSFER, "receipt": write_bytes(digest(SIGNED)), "leaves": POINT.size, "root": write_bytes(POINT.root)}  # type: ignore[union-attr]


def gone_on(cited: object) -> Draft:
    """The file with one more transfer, of which the ledger says that it takes over from there."""
    draft = after(fact("pull", LATER, at=NOW + 30, state=None, stage="download", takes_over=cited))
    pids = {"pid": LATER, "providerPid": LATER, "consumerPid": f"{LATER}-theirs"}
    draft.put("transfer", draft.one("transfer") | pids | {"account": None, "state": "STARTED", "code": None}, "decision")
    return draft


def test_a_transfer_that_goes_on_where_one_was_lost_says_from_which_checkpoint_and_that_is_shown():
    report = verify(gone_on(CITED).data)
    assert report.sound, report.findings
    number = len(SOUND.all("receipt"))
    assert report.to_json()["agreement"]["taken_over"] == [{"transfer": LATER, "from": TRANSFER, "leaves": POINT.size, "receipt": number}]
    assert f"Goes on: transfer {LATER} takes over from transfer {TRANSFER}" in "\n".join(report.verdict())


@pytest.mark.parametrize(
    "cited",
    ["x", {}, CITED | {"leaves": 99}, CITED | {"root": write_bytes(bytes(32))}, CITED | {"transfer": "urn:uuid:other"},
     CITED | {"transfer": LATER, "receipt": write_bytes(bytes(32))}],
)  # fmt: skip
def test_what_a_transfer_takes_over_from_is_what_was_signed(cited: object):
    assert gone_on(cited).codes() == {"takes-over-other"}


def test_a_receipt_that_is_not_in_the_file_is_not_known_to_be_otherwise_and_that_is_said():
    report = verify(gone_on(CITED | {"receipt": write_bytes(bytes(32)), "transfer": "urn:uuid:elsewhere"}).data)
    assert report.sound, report.findings
    assert any(f"from where transfer {LATER} takes over" in text for text in report.unproven)


def test_a_process_of_which_the_ledger_has_nothing_is_the_exporter_s_word_and_that_is_said():
    draft = SOUND.copy()
    draft.members = [each for each in draft.members if each[0] != "entry" or each[1]["pid"] != NEGOTIATION]
    draft.one("negotiation").update(state="VERIFIED", created=1.0)
    assert draft.codes() == set()
    assert any(f"state of {NEGOTIATION}" in text for text in verify(draft.data).unproven)


# ---- answers with data that the provider has signed


def answered(*, by: jws.SigningKey = KEYS[PROVIDER], status: int = 206, signed: bool = True, at: float = NOW + 5) -> dict[str, Any]:
    """What a consumer keeps of an answer."""
    told = {"etag": '"r.root.65536"', "content-range": "bytes 0-9/100", "content-type": "text/csv"}
    asked = {"authorization": "Bearer t0ken", "range": "bytes=0-9"}
    request = Request("GET", "https://hospital.example/data/t", lambda name: [asked[name]] if name in asked else ())
    detail: dict[str, Any] = {"status": status, "etag": told["etag"], "content-range": told["content-range"]}
    if signed:
        asked["signature-input"], asked["signature"] = sign(request, KEYS[CONSUMER], at, nonce="n" * 22)
        detail["request"] = {"input": asked["signature-input"], "signature": asked["signature"]}
    answer = Answer(status, lambda name: [told[name]] if name in told else (), request)
    told["signature-input"], told["signature"] = sign(answer, by, at, nonce=None if signed else "m" * 22)
    found = verify_answer(answer, by.kid.partition("#")[0], [by.key], at, nonce=None if signed else "m" * 22)
    shown = {
        "input": found.input,
        "signature": b64encode(found.signature).decode(),
        "digest": found.digest.hex(),
        "base": found.base.decode(),
    }
    return detail | {"answer": shown}


def kept(detail: dict[str, Any]) -> Draft:
    return after(replace(fact("leg-signed", TRANSFER, at=NOW + 5, state=None), detail=detail))


@pytest.mark.parametrize("signed", [True, False])
def test_an_answer_that_the_provider_has_signed_is_proven_and_its_request_is_said_not_to_be(signed: bool):
    report = verify(kept(answered(signed=signed)).data)
    assert report.findings == ()
    assert any("signed its requests for data: such a signature covers the token" in text for text in report.unproven)
    assert not any("answers with data: what it has signed" in text for text in report.unproven)
    assert b"t0ken" not in kept(answered(signed=signed)).data


LIES: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "another status": ("answer-other", lambda said: said | {"status": 200}),
    "another tag": ("answer-other", lambda said: said | {"etag": '"r.other.65536"'}),
    "other bytes": ("answer-other", lambda said: said | {"content-range": "bytes 0-8/100"}),
    "no bytes": ("answer-other", lambda said: {name: value for name, value in said.items() if name != "content-range"}),
    "another request": ("answer-other", lambda said: said | {"request": said["request"] | {"signature": "dp=:YQ==:"}}),
    "no request": ("answer-other", lambda said: {name: value for name, value in said.items() if name != "request"}),
    "another digest": ("answer-other", lambda said: said | {"answer": said["answer"] | {"digest": "00" * 32}}),
    "another base": (
        "answer-signature",
        lambda said: (
            said | {"status": 200, "answer": said["answer"] | {"base": said["answer"]["base"].replace('"@status": 206', '"@status": 200')}}
        ),
    ),
    "another signature": ("answer-signature", lambda said: said | {"answer": said["answer"] | {"signature": "AAAA"}}),
    "no signature": ("answer-signature", lambda said: said | {"answer": said["answer"] | {"signature": None}}),
    "somebody else's": ("answer-signature", lambda _said: answered(by=KEYS[STRANGER])),
    "the consumer's own": ("answer-signature", lambda _said: answered(by=KEYS[CONSUMER])),
}


@pytest.mark.parametrize(("code", "lie"), LIES.values(), ids=LIES)
def test_what_the_provider_has_not_signed_of_an_answer_is_found(code: str, lie: Callable[[dict[str, Any]], Any]):
    assert kept(lie(answered())).codes() == {code}


def test_of_an_answer_whose_base_is_not_on_record_nobody_can_tell_and_what_is_erased_is_not_missed():
    said = answered()
    del said["answer"]["base"]
    assert any("in 1 of its answers with data" in text for text in verify(kept(said).data).unproven)
    for detail in ({"status": 200}, {"status": 200, "request": {}}, {"answer": []}):
        assert kept(detail).codes() == set()
    erased = kept(answered(by=KEYS[STRANGER]))
    erased.one("entry", -1).update(detail=None, salt=None)
    assert erased.codes() == set()
