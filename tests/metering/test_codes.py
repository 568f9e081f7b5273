from pathlib import Path

import pytest

from connector.metering.claims import Table
from connector.metering.closing import CLOSING, CLOSING_ACK
from connector.metering.codes import CLAIMS, CODES, refused
from connector.metering.objects import ACK, LOG, MANIFEST, RECEIPT
from connector.metering.statements import FLOW, STATEMENT

FAULTS = {"length", "parts", "header", "alg", "typ", "kid", "key-unknown", "key-ended", "signature", "payload", "issuer"}


def test_every_claim_of_every_kind_has_its_code():
    tables: list[Table] = [MANIFEST, RECEIPT, ACK, STATEMENT, CLOSING, CLOSING_ACK]
    assert {name for table in tables for name in table} <= CLAIMS.keys()
    assert {f"jws-{fault}" for fault in FAULTS} == {code for code in CODES if code.startswith("jws-")}
    assert {"alg", "chunk", "root"} < LOG.keys()
    assert "transfer" in FLOW


def test_every_code_is_one_that_some_test_is_refused_with():
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py") if path.name != "test_codes.py")
    assert [code for code in CODES if f'"{code}"' not in tests] == []


@pytest.mark.parametrize("code", CODES)
def test_a_sentence_can_be_said_and_names_numbers_only(code: str):
    error = refused(code, expected=1, limit=2, known=3, leaf=4)
    assert error.code == code
    assert "{" not in error.message
    assert error.message[0].islower() or error.message[0] == "`"
    assert not error.message.endswith(".")
