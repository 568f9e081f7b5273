"""The codes of an evidence file: each is what some forgery is refused with, each has its sentence."""

from connector.evidence.codes import CODES
from tests.evidence.forgeries import FORGERIES, LIES

ELSEWHERE = {
    "byte-altered", "bytes-altered",  # `test_verify`
    "trust-unknown", "trust-key", "trust-validity",  # `test_identities`
    "ack-twice",  # `test_flows`
    "entry-text",  # `test_ledgers`
    "closing-twice", "closing-ack-twice",  # `test_figures`
    "takes-over-other", "entry-back-dated", "entry-missing",  # `test_held`
    "answer-signature", "answer-other", "answer-twice", "answer-time", "answer-transfer",  # `test_held`
    "request-signature", "request-other", "request-twice", "request-time", "request-transfer",  # `test_held`
    "sink-signature", "sink-other", "sink-twice", "sink-time",  # `test_held`
}  # fmt: skip


def test_every_code_is_what_something_is_refused_with():
    used = {code for _, code, _ in FORGERIES} | {code for _, code, _ in LIES} | ELSEWHERE
    assert sorted(CODES.keys() - used) == []


def test_sentences_are_sentences_without_their_full_stop():
    assert [code for code, says in CODES.items() if says.endswith(".") or not says] == []
