"""Tokens, secrets and private keys are found wherever they stand, and nothing else is taken for one."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.dsp.messages import Move
from connector.evidence.verify import verify
from connector.odrl.vocabulary import ODRL
from tests.evidence.forgeries import other
from tests.evidence.rig import CONSUMER, DOCUMENT, PROVIDER, SOUND, Story, fact
from tests.evidence.rig import TRANSFER as PID

SECRETS: list[tuple[Any, str]] = [
    ("Bearer 0123456789abcdef", "secret-token"),
    ("it said: bearer   abc.def-ghi_jkl~", "secret-token"),
    ("eyJhbGciOiJFZERTQSJ9.eyJhIjoxfQ12.c2lnbmF0dXJl", "secret-token"),
    ({"Authorization": "x"}, "secret-name"),
    ({"refresh_token": "x"}, "secret-name"),
    ({"kty": "OKP", "crv": "Ed25519", "x": "x", "d": "y"}, "secret-key"),
    ({"kty": "oct", "k": "y"}, "secret-key"),
    ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMII", "secret-key"),
]


@pytest.mark.parametrize(("secret", "code"), SECRETS)
def test_a_secret_is_found_wherever_it_stands(secret: Any, code: str):
    draft = SOUND.copy()
    draft.one("decision")["document"]["facts"] = [{"deep": [secret]}]
    assert code in draft.codes()


def test_a_secret_in_the_detail_of_a_fact_is_found_though_the_ledger_holds_it_as_it_is():
    said = fact("message-received", PID, password="x", said={"why": "Bearer 0123456789abcdef"})
    found = Story(extra=((said, {}),)).draft().codes()
    assert found == {"secret-name", "secret-token"}


def test_a_peer_whose_reason_looks_like_a_token_is_accused_and_spoils_no_file():
    for what, accuses in (("message-received", True), ("message-sent", False)):
        said = fact(what, PID, reasons=["no", "Bearer 0123456789abcdef"])
        report = verify(Story(extra=((said, {}),)).draft().data)
        assert [(each.code, each.accuses) for each in report.findings] == [("secret-token", accuses)]
    draft = Story(extra=((said, {}),)).draft()
    draft.one("entry", -2)["body"] = "[]"
    assert {"entry-json", "secret-token"} <= draft.codes()


TOKEN = "eyJhbGciOiJFZERTQSJ9.eyJhIjoxfQ12.c2lnbmF0dXJl"


def test_what_a_peer_names_or_has_agreed_on_accuses_it_and_spoils_no_file():
    terms = DOCUMENT | {"permission": [*DOCUMENT["permission"], {"action": "use", "target": TOKEN}]}
    ended = fact("message-received", PID, Move.TRANSFER_TERMINATION, state="TERMINATED", code=TOKEN, reasons=["no"])
    asked = fact("leg-signed", PID, state=None, request={"target": TOKEN})
    for draft, place in (
        (Story(document=terms, invoice=False).draft(), None),
        (Story(extra=((asked, {}),)).draft(), None),
        (Story(extra=((ended, {}),)).draft(), ("transfer", {"code": TOKEN, "state": "TERMINATED"})),
    ):
        if place is not None:
            draft.one(place[0]).update(place[1])
        report = verify(draft.data)
        assert {(each.code, each.accuses) for each in report.findings} == {("secret-token", True)}, report.findings
    for kind, name in (("transfer", "consumerPid"), ("negotiation", "consumerPid"), ("negotiation", "terms")):
        draft = SOUND.copy()
        draft.one(kind)[name] = {"@id": "urn:uuid:offer", "says": TOKEN} if name == "terms" else TOKEN
        assert ("secret-token", True) in {(each.code, each.accuses) for each in verify(draft.data).findings}
        assert ("secret-token", False) not in {(each.code, each.accuses) for each in verify(draft.data).findings}


def test_the_same_in_the_words_of_the_exporter_is_its_fault():
    said = fact("message-sent", PID, Move.TRANSFER_TERMINATION, state="TERMINATED", code=TOKEN)
    drafts = [Story(extra=((said, {}),)).draft(), SOUND.copy(), SOUND.copy(), SOUND.copy()]
    drafts[1].one("transfer")["code"] = TOKEN
    drafts[2].one("decision")["document"]["facts"] = [TOKEN]
    drafts[3].one("identity")["name"] = TOKEN
    for draft in drafts:
        assert ("secret-token", False) in {(each.code, each.accuses) for each in verify(draft.data).findings}


@given(
    st.recursive(st.text(alphabet="abc .-:/", max_size=30), lambda each: st.dictionaries(st.sampled_from(["note", "key", "code"]), each))
)
def test_ordinary_texts_are_no_secrets(value: Any):
    draft = SOUND.copy()
    draft.one("decision")["document"]["facts"] = orjson.loads(orjson.dumps([value]))
    assert draft.codes() == {"decision-digest"}, "no secret"


@pytest.mark.parametrize(
    ("kind", "name", "accuses"), [("negotiation", "terms", True), ("agreement", "document", True), ("decision", "document", False)]
)
def test_a_document_that_is_a_key_itself_is_found_and_whose_it_is(kind: str, name: str, accuses: bool):
    draft = SOUND.copy()
    draft.one(kind)[name] |= {"kty": "oct", "k": "y"}
    found = verify(draft.data).findings
    assert [each.accuses for each in found if each.code == "secret-key"] == [accuses]


@pytest.mark.parametrize(("source", "accuses"), [("declared", True), ("claims", True), ("meter", False), (["declared"], False)])
def test_a_purpose_that_looks_like_a_secret_spoils_no_evidence_of_whom_it_was_declared_to(source: object, accuses: bool):
    draft = SOUND.copy()
    purpose = f"{ODRL}purpose"
    draft.one("decision")["document"]["facts"] = {purpose: {"value": ["https://user:opensesame@consumer.example/"], "source": source}}
    found = [each for each in verify(draft.data).findings if each.code == "secret-token"]
    assert [each.accuses for each in found] == [accuses]


@pytest.mark.parametrize(
    ("name", "claim", "accuses"),
    [
        ("manifest", "snapshot", False),
        ("manifest", "receipts", False),
        ("statement", "id", False),
        ("receipt 2", "id", True),
        ("manifest", "consumer_pid", True),
    ],
)
def test_a_secret_in_what_a_party_has_signed_is_found_and_is_its_own(name: str, claim: str, accuses: bool):
    told = "https://store.example/a?access_token=opensesame" if claim == "receipts" else TOKEN
    draft = Story({name: other(**{claim: told})}).draft()
    if claim == "consumer_pid":
        draft.one("transfer")["consumerPid"] = told
    found = {(each.code, each.accuses) for each in verify(draft.data).findings if each.pointer != "/consumerPid"}
    assert ("secret-token", accuses) in found, found
    assert ("secret-token", not accuses) not in found


@pytest.mark.parametrize("issuer", [PROVIDER, CONSUMER])
def test_what_stands_as_the_other_sides_checkpoint_in_a_statement_is_the_words_of_the_other_side_whoever_signs_it(issuer: str):
    """The exporter repeats what it was shown, and its peer may say anything of the exporter."""
    other_side = {PROVIDER: CONSUMER, CONSUMER: PROVIDER}[issuer]
    said = other(issuer=issuer, audience=other_side, ledger=None, peer=f"{TOKEN}\n1\nAAAA\n\nno line\n")
    found = [each for each in verify(Story({"statement": said}).draft().data).findings if each.code == "secret-token"]
    assert [each.accuses for each in found] == [True]
