"""Tokens, secrets and private keys are found wherever they stand, and nothing else is taken for one."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.evidence.verify import verify
from tests.evidence.rig import SOUND, Story, fact
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


@given(
    st.recursive(st.text(alphabet="abc .-:/", max_size=30), lambda each: st.dictionaries(st.sampled_from(["note", "key", "code"]), each))
)
def test_ordinary_texts_are_no_secrets(value: Any):
    draft = SOUND.copy()
    draft.one("decision")["document"]["facts"] = orjson.loads(orjson.dumps([value]))
    assert draft.codes() == {"decision-digest"}, "no secret"
