"""What is said of processes and of the agreement is what the ledger has of them, and what it has not is said to be the exporter's word."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest

from connector.dsp.messages import Move
from connector.evidence import held
from connector.evidence.case import Case, Fact, Ledgers
from connector.evidence.members import Member
from connector.evidence.verify import verify
from connector.metering.content import write_bytes
from connector.metering.objects import Receipt, digest, kept
from connector.signatures import jws
from connector.signatures.digests import AUTHORIZATION, authorization_digest
from connector.signatures.fields import write_bare
from connector.signatures.http import PULL, PUSH, Answer, Binding, Request, base_of, sign, verify_answer
from connector.values import replace
from tests.evidence.rig import (
    CONSUMER,
    KEYS,
    LATER,
    NEGOTIATION,
    NOW,
    PROVIDER,
    SOUND,
    STRANGER,
    THEIRS,
    TRANSFER,
    Draft,
    after,
    cosigned,
    fact,
)

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


def gone_on(cited: object, at: float = NOW + 30) -> Draft:
    """The file with one more transfer, of which the ledger says that it takes over from there."""
    draft = after(fact("pull", LATER, at=at, state=None, stage="download", takes_over=cited))
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


def test_what_says_an_instant_before_the_receipt_that_it_cites_was_signed_is_back_dated():
    assert gone_on(CITED, NOW + 20 - 300).codes() == set(), "two clocks may be so far apart"
    assert gone_on(CITED, NOW + 20 - 301).codes() == {"entry-back-dated"}


def test_a_receipt_that_is_not_in_the_file_is_not_known_to_be_otherwise_and_that_is_said():
    report = verify(gone_on(CITED | {"receipt": write_bytes(bytes(32)), "transfer": "urn:uuid:elsewhere"}).data)
    assert report.sound, report.findings
    assert any(f"from where transfer {LATER} takes over" in text for text in report.unproven)


def test_a_process_of_which_the_ledger_has_nothing_is_the_exporter_s_word_and_that_is_said():
    draft = SOUND.uncounted()
    draft.members = [each for each in draft.members if each[0] != "entry" or each[1]["pid"] != NEGOTIATION]
    draft.one("negotiation").update(state="VERIFIED", created=1.0)
    assert draft.codes() == set()
    assert any(f"state of {NEGOTIATION}" in text for text in verify(draft.data).unproven)


def test_what_another_has_dated_ahead_spoils_no_file_and_is_told():
    draft = SOUND.copy()
    draft.put("checkpoint", {"of": PROVIDER, "note": cosigned(draft.one("checkpoint", 0)["note"], at=NOW + 3_600)}, "checkpoint")
    report = verify(draft.data)
    assert report.findings == ()
    assert [text for text in report.unproven if "before an instant that another has signed in it" in text]


# ---- what is left out by whoever has the exporter's key


def passed(*numbers: int | None, erased: tuple[int, ...] = (), unnumbered: str | None = None) -> Draft:
    """The file with facts of a transfer that have these numbers among those of it, or none and no state, or are called `unnumbered`; with
    some of them `erased`."""
    pids = {"pid": LATER, "providerPid": LATER, "consumerPid": f"{LATER}-theirs"}
    without = fact(unnumbered, LATER, at=NOW + 30) if unnumbered else fact("x", LATER, at=NOW + 30, state=None)
    facts = [without if n is None else fact("x", LATER, at=NOW + 30, nth=n) for n in numbers]
    draft = after(*facts)
    draft.put("transfer", draft.one("transfer") | pids | {"account": None}, "decision")
    draft.one("transfer", 1).update(updated=NOW + 30)
    for place in erased:
        draft.one("entry", place - len(numbers)).update(detail=None, salt=None)
    return draft


def test_a_fact_of_a_process_that_is_left_out_is_missed_by_the_one_behind_it():
    assert passed(1, 2, 3).codes() == set()
    for numbers in ((2, 3), (1, 3), (1, 2, 5), (1, 1, 2), (1, 3, 2)):
        assert passed(*numbers).codes() == {"entry-missing"}, numbers


def test_a_fact_whose_detail_was_erased_stands_for_one_that_is_numbered_and_for_no_more():
    assert passed(1, 2, 3, erased=(1,)).codes() == set()
    assert passed(1, 2, 3, 4, erased=(0, 1, 3)).codes() == set()
    assert passed(1, 2, 4, erased=(1,)).codes() == {"entry-missing"}
    assert passed(1, None, 3, erased=(1,)).codes() == {"entry-missing"}, "what changes no process has no number"


def test_a_letter_that_was_discarded_has_no_number_and_stands_for_none_that_is_missing():
    draft = passed(1, None, 3, unnumbered="dead-letter-discarded", erased=(1,))
    assert draft.codes() == {"entry-missing"}


def test_of_what_was_erased_before_the_first_number_nobody_says_that_none_is_missing():
    at = Member(1, 0, "entry", {})
    for first, whole in ((None, False), ({"nth": 1}, True)):
        facts = [Fact(number, NOW, "x", "STARTED", None, detail, at) for number, detail in enumerate((first, {"nth": 2}))]
        found = Ledgers(facts={LATER: facts})
        held._whole(Case({}, at, at, []), found, LATER)
        assert (LATER in found.numbered) is whole


# ---- answers with data that the provider has signed


URL = "https://hospital.example/data/t"  # where the manifest has it


def answered(
    *,
    by: jws.SigningKey = KEYS[PROVIDER],
    of: jws.SigningKey = KEYS[CONSUMER],
    status: int = 206,
    signed: bool = True,
    at: float = NOW + 5,
    asked_at: float | None = None,
    url: str = URL,
    heard: str = "bytes=0-9",
    method: str = "GET",
) -> dict[str, Any]:
    """What a consumer keeps of an answer."""
    told = {"etag": '"r.root.65536"', "content-range": "bytes 0-9/100", "content-type": "text/csv"}
    asked = {"authorization": "Bearer t0ken", "range": "bytes=0-9", AUTHORIZATION: authorization_digest("Bearer t0ken")}
    request = Request(method, url, lambda name: [asked[name]] if name in asked else ())
    detail: dict[str, Any] = {"status": status, "etag": told["etag"], "content-range": told["content-range"]}
    if signed:
        asked["signature-input"], asked["signature"] = sign(request, of, at if asked_at is None else asked_at, nonce="n" * 22)
        base = base_of(request, asked["signature-input"]).decode()
        detail["request"] = {"input": asked["signature-input"], "signature": asked["signature"], "base": base}
    asked["range"] = heard
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


def told_of(detail: dict[str, Any]) -> tuple[dict[str, int], list[str]]:
    """What a sound file says of its answers, and what it does not prove of them."""
    report = verify(kept(detail).data)
    assert report.findings == ()
    return report.to_json()["agreement"]["answers"], [text for text in report.unproven if "answers with data" in text or "requests" in text]


def test_an_answer_that_the_provider_has_signed_is_proven_and_so_is_the_request_that_it_is_bound_to():
    assert told_of(answered()) == ({"signed": 1, "requests_signed": 1}, [])
    assert "1 answers with data, 1 of them to requests" in "\n".join(verify(kept(answered()).data).verdict())
    assert b"t0ken" not in kept(answered()).data


def test_of_a_request_whose_base_is_not_on_record_or_that_was_not_signed_it_is_said():
    said = answered()
    del said["request"]["base"]
    for detail in (said, answered(signed=False)):
        counts, (text,) = told_of(detail)
        assert (counts, "signed 1 of its requests" in text) == ({"signed": 1, "requests_signed": 0}, True)


def test_an_answer_is_of_the_transfer_whose_address_was_asked():
    pid = f"https://elsewhere.example/flows/{TRANSFER.replace(':', '%3A')}"
    for url in (URL, pid):
        assert told_of(answered(url=url))[1] == []
    counts, (text,) = told_of(answered(url="https://hospital.example/data/another"))
    assert (counts["signed"], text.startswith("of which transfer 1 answers with data are")) == (1, True)
    draft = kept(answered(url=f"https://hospital.example/data/{LATER}"))
    pids = {"pid": LATER, "providerPid": LATER, "consumerPid": f"{LATER}-theirs"}
    draft.put("transfer", draft.one("transfer") | pids | {"account": None, "state": "STARTED", "code": None}, "decision")
    assert draft.codes() == {"answer-transfer"}


def test_an_answer_that_is_on_record_of_another_transfer_than_its_manifest_is_found():
    moved = replace(fact("leg-signed", LATER, at=NOW + 5, state=None), detail=answered())
    draft = after(moved)
    pids = {"pid": LATER, "providerPid": LATER, "consumerPid": f"{LATER}-theirs"}
    draft.put("transfer", draft.one("transfer") | pids | {"account": None, "state": "STARTED", "code": None}, "decision")
    assert draft.codes() == {"answer-transfer"}


@pytest.mark.parametrize("late", [{"at": NOW - 400}, {"at": NOW + 400}, {"asked_at": NOW - 400}, {"asked_at": NOW + 400}])
def test_an_answer_was_signed_when_it_is_on_record(late: dict[str, float]):
    assert kept(answered(**late)).codes() == {"answer-time"}  # type: ignore[arg-type]


def test_an_answer_is_on_record_once():
    leg = replace(fact("leg-signed", TRANSFER, at=NOW + 5, state=None), detail=answered())
    assert after(leg, replace(leg, at=NOW + 6)).codes() == {"answer-twice"}


@pytest.mark.slow
def test_each_byte_of_what_both_have_signed_of_a_request_and_its_answer_is_proven():
    """By whoever keeps the ledger, and could write anything into it: not one byte can be another, and each is pointed at."""
    sound, altered = answered(), list[dict[str, Any]]()
    for half in ("request", "answer"):
        for name, text in sound[half].items():
            for at, was in enumerate(text):
                other = text[:at] + ("!" if was == "~" else chr(ord(was) + 1)) + text[at + 1 :]
                altered.append(sound | {half: sound[half] | {name: other}})
    assert len(altered) > 1500
    leg = fact("leg-signed", TRANSFER, at=NOW + 5, state=None)
    for first in range(0, len(altered), 150):  # fewer than are read of one file
        part = altered[first : first + 150]
        draft = after(*(replace(leg, detail=each) for each in part))
        lines = [number for number, (kind, _) in enumerate(draft.members, 1) if kind == "entry"][-len(part) :]
        found = verify(draft.data).findings
        assert {each.line for each in found} == set(lines)
        assert {each.code for each in found} <= {"answer-signature", "answer-other", "request-signature"}


LIES: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "another status": ("answer-other", lambda said: said | {"status": 200}),
    "another tag": ("answer-other", lambda said: said | {"etag": '"r.other.65536"'}),
    "other bytes": ("answer-other", lambda said: said | {"content-range": "bytes 0-8/100"}),
    "no bytes": ("answer-other", lambda said: {name: value for name, value in said.items() if name != "content-range"}),
    "another request": ("answer-other", lambda said: said | {"request": said["request"] | {"signature": "dp=:YQ==:"}}),
    "a request by somebody else": ("request-signature", lambda _said: answered(of=KEYS[STRANGER])),
    "a request by the provider": ("request-signature", lambda _said: answered(of=KEYS[PROVIDER])),
    "a request over something else": (
        "request-signature",
        lambda said: said | {"request": said["request"] | {"base": said["request"]["base"].replace("bytes=0-9", "bytes=0-8")}},
    ),
    "a request under another label": (
        "request-signature",
        lambda said: said | {"request": said["request"] | {"input": said["request"]["input"].replace("dp=", "dq=")}},
    ),
    "a request that the answer does not name": ("request-other", lambda _said: answered(heard="bytes=0-8")),
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


# ---- requests for data that the consumer has signed, as its provider keeps them


def asked(*requests: dict[str, Any], of: str = TRANSFER, at: float = NOW + 5) -> Draft:
    """The provider's export with these on record."""
    return after(*(replace(fact("request-signed", of, at=at, state=None), detail={"request": each}) for each in requests))


def test_a_request_that_the_consumer_has_signed_proves_that_it_has_asked():
    draft = asked(answered()["request"])
    report = verify(draft.data)
    assert report.findings == ()
    assert report.to_json()["agreement"]["requests"] == [{"transfer": TRANSFER, "at": "2027-01-15T08:00:05Z"}]
    assert any(f"Asked: the consumer has signed a request for the data of transfer {TRANSFER}" in line for line in report.verdict())
    assert not [text for text in report.unproven if "has asked for the data" in text]
    assert [text for text in verify(SOUND.data).unproven if f"that the consumer has asked for the data of {TRANSFER}" in text]
    assert b"t0ken" not in draft.data


def test_a_request_for_data_of_who_knows_which_transfer_proves_nothing_of_this_one():
    report = verify(asked(answered(url="https://hospital.example/data/another")["request"]).data)
    assert report.findings == ()
    assert report.to_json()["agreement"]["requests"] == []
    assert [text for text in report.unproven if f"that the consumer has asked for the data of {TRANSFER}" in text]


REQUEST = answered()["request"]
OTHERS: dict[str, tuple[str, Draft]] = {
    "by the provider": ("request-signature", asked(answered(of=KEYS[PROVIDER])["request"])),
    "for other bytes": ("request-signature", asked(REQUEST | {"base": REQUEST["base"].replace("bytes=0-9", "bytes=0-8")})),
    "without a base": ("request-signature", asked({name: REQUEST[name] for name in ("input", "signature")})),
    "that is none": ("request-signature", asked([])),  # type: ignore[arg-type]
    "twice": ("request-twice", asked(REQUEST, REQUEST)),
    "at another time": ("request-time", asked(answered(asked_at=NOW - 400)["request"])),
    "of the data of another transfer": ("request-transfer", asked(answered(url=f"https://hospital.example/data/{LATER}")["request"])),
    "that brings data": ("request-other", asked(answered(method="PUT")["request"])),
}


@pytest.mark.parametrize(("code", "draft"), OTHERS.values(), ids=OTHERS)
def test_a_request_that_the_consumer_has_not_signed_so_is_found(code: str, draft: Draft):
    pids = {"pid": LATER, "providerPid": LATER, "consumerPid": f"{LATER}-theirs"}
    draft.put("transfer", draft.one("transfer") | pids | {"account": None, "state": "STARTED", "code": None}, "decision")
    report = verify(draft.data)
    assert {each.code for each in report.findings} == {code}
    assert {draft.members[(each.line or 0) - 1][0] for each in report.findings} == {"entry"}


# ---- answers of sinks that the consumer has signed, as its provider keeps the first


SINK = f"https://biopharma.example/sink/{THEIRS[TRANSFER].replace(':', '%3A')}"


def sink_answer(
    *,
    by: jws.SigningKey = KEYS[CONSUMER],
    method: str = "HEAD",
    url: str = SINK,
    status: int = 204,
    at: float = NOW + 5,
    binding: Binding = PUSH,
) -> dict[str, str]:
    """What a provider keeps of it."""
    asked: dict[str, str] = {}
    request = Request(method, url, lambda name: [asked[name]] if name in asked else (), binding)
    asked["signature-input"], asked["signature"] = sign(request, KEYS[PROVIDER], at, nonce="n" * 22)
    told = {"link": '<x>; rel="receipts"'}
    answer = Answer(status, lambda name: [told[name]] if name in told else (), request)
    told["signature-input"], told["signature"] = sign(answer, by, at)
    found = verify_answer(answer, by.kid.partition("#")[0], [by.key], at, nonce=None)
    return {"input": found.input, "signature": write_bare(found.signature), "base": found.base.decode()}


def heard(*said: object, at: float = NOW + 5) -> Draft:
    """The provider's export with these on record."""
    return after(*(replace(fact("leg-signed", TRANSFER, at=at, state=None), detail={"sink": each}) for each in said))


def test_an_answer_of_its_sink_that_the_consumer_has_signed_proves_that_it_wanted_the_data_brought():
    for status in (204, 503):
        assert verify(heard(sink_answer(status=status)).data).to_json()["agreement"]["sinks"]
    report = verify(heard(sink_answer()).data)
    assert report.findings == ()
    assert report.to_json()["agreement"]["sinks"] == [{"transfer": TRANSFER, "at": "2027-01-15T08:00:05Z"}]
    assert any(
        f"Brought: the consumer has signed an answer of its sink for the data of transfer {TRANSFER}" in line for line in report.verdict()
    )
    assert not [text for text in report.unproven if "has asked for the data" in text]


@pytest.mark.parametrize("said", ["signs", sink_answer(status=404), sink_answer(url="https://biopharma.example/sink/another")], ids=str)
def test_what_is_not_shown_or_refuses_or_is_of_who_knows_which_transfer_proves_no_wish(said: object):
    report = verify(heard(said).data)
    assert (report.findings, report.to_json()["agreement"]["sinks"]) == ((), [])
    assert [text for text in report.unproven if "has asked for the data" in text]


def test_each_byte_of_what_the_consumer_has_signed_of_an_answer_is_proven():
    sound = sink_answer()
    altered = [
        sound | {name: text[:at] + ("!" if was == "~" else chr(ord(was) + 1)) + text[at + 1 :]}
        for name, text in sound.items()
        for at, was in enumerate(text)
    ]
    for first in range(0, len(altered), 150):  # fewer than are read of one file
        part = altered[first : first + 150]
        found = verify(heard(*part).data).findings
        assert [each.code for each in found] == ["sink-signature"] * len(part)


@pytest.mark.parametrize("url", [f"https://biopharma.example/sink/{LATER}-theirs", f"{SINK}/{LATER}-theirs"])
def test_a_consumer_that_has_the_data_of_two_transfers_brought_to_one_address_spoils_no_file_and_proves_no_wish(url: str):
    draft, pids = heard(*(sink_answer(url=url),) * 2), {"pid": LATER, "providerPid": LATER, "consumerPid": f"{LATER}-theirs"}
    draft.put("transfer", draft.one("transfer") | pids | {"account": None, "state": "STARTED", "code": None}, "decision")
    report = verify(draft.data)
    assert (report.findings, report.to_json()["agreement"]["sinks"]) == ((), [])


UNSAID: dict[str, tuple[str, Draft]] = {
    "by the provider": ("sink-signature", heard(sink_answer(by=KEYS[PROVIDER]))),
    "by somebody else": ("sink-signature", heard(sink_answer(by=KEYS[STRANGER]))),
    "without a base": ("sink-signature", heard({name: text for name, text in sink_answer().items() if name != "base"})),
    "with more than a signature": ("sink-signature", heard(sink_answer() | {"signature": sink_answer()["signature"] + ";a"})),
    "to another question": ("sink-other", heard(sink_answer(method="GET"))),
    "of a pull": ("sink-other", heard(sink_answer(binding=PULL))),
    "twice": ("sink-twice", heard(sink_answer(), sink_answer())),
    "at another time": ("sink-time", heard(sink_answer(at=NOW - 400))),
}


@pytest.mark.parametrize(("code", "draft"), UNSAID.values(), ids=UNSAID)
def test_an_answer_of_a_sink_that_the_consumer_has_not_signed_so_is_found(code: str, draft: Draft):
    pids = {"pid": LATER, "providerPid": LATER, "consumerPid": f"{LATER}-theirs"}
    draft.put("transfer", draft.one("transfer") | pids | {"account": None, "state": "STARTED", "code": None}, "decision")
    report = verify(draft.data)
    assert {each.code for each in report.findings} == {code}
