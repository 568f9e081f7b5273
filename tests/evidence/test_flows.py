"""Chains of receipts, judged anew."""

from dataclasses import replace

from connector.evidence.verify import verify
from connector.metering.counts import Counts
from connector.metering.objects import Ack
from connector.signatures.jws import claims_of
from tests.evidence.forgeries import dropped, other, told
from tests.evidence.rig import CHUNK, KEYS, PROVIDER, SOUND, TRANSFER, Draft, Story, signed


def test_two_acks_of_one_receipt_accuse_the_provider():
    draft = SOUND.copy()
    ack = Ack.of(claims_of(draft.one("ack", 1)["jws"]))
    draft.put("ack", {"jws": signed(replace(ack, microseconds=9), KEYS[PROVIDER]), "transfer": TRANSFER}, before="statement")
    assert {("ack-twice", True)} <= {(each.code, each.accuses) for each in verify(draft.data).findings}


def test_the_counts_are_those_of_the_last_receipt_that_was_acknowledged():
    draft = SOUND.copy()
    dropped("ack", 1)(draft)
    dropped("statement", 0)(draft)
    draft.drop("invoice")
    draft.one("transfer")["account"]["ack"] = None
    draft.drop("consistency", -1)
    report = verify(draft.data)
    assert report.told is not None
    assert (report.told.flows[0].receipts, report.told.flows[0].acknowledged, report.told.counts.bytes) == (2, 1, 0)


def test_a_flow_without_receipts_is_a_promise_and_nothing_more():
    draft = _unsigned()
    report = verify(draft.data)
    assert report.sound, report.findings
    assert report.told is not None
    assert report.told.alone == 5 * CHUNK
    assert any("it has signed no receipt" in text for text in report.unproven)


def _unsigned() -> Draft:
    draft = Story(invoice=False).draft()
    for kind, number in (("statement", 0), ("ack", 1), ("receipt", 1), ("ack", 0), ("receipt", 0)):
        dropped(kind, number)(draft)
    counts = draft.one("transfer")["account"]["counts"] | {"bytes": 5 * CHUNK}
    nothing = {"sequence": 0, "receipt": None, "ack": None, "status": "open", "attested": "provider-only", "counts": counts}
    draft.one("transfer")["account"] = nothing
    draft.members = [each for each in draft.members if each[0] != "consistency" or each[1]["old"] == 12]
    return draft


def test_live_data_are_counted_by_what_both_have_signed():
    counts = Counts(196_000, 12, 0, 1, 7)
    live = Story(
        {
            "manifest": lambda each: replace(each, unit="line", log=replace(each.log, root=None, size=None)),
            "receipt 2": other(counts=counts),
            "ack 2": other(credit_bytes=counts.bytes + 4 * CHUNK),
            "statement": told(counts=counts),
        },
        invoice=False,
    ).draft()
    live.one("transfer")["account"]["counts"] = counts.claims()
    report = verify(live.data)
    assert report.sound, report.findings
    assert report.told is not None
    assert report.told.counts == counts
    assert [text for text in report.unproven if "live data" in text]
    assert [text for text in report.unproven if "the number of records" in text]
