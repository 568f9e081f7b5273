"""Chains of receipts, judged anew."""

from collections.abc import Callable
from functools import reduce
from typing import Any

from connector.evidence.report import rfc3339
from connector.evidence.verify import verify
from connector.metering.content import write_bytes
from connector.metering.counts import Counts
from connector.metering.objects import Ack, digest
from connector.signatures.jws import claims_of
from connector.values import replace
from tests.evidence.forgeries import dropped, other, told
from tests.evidence.rig import CHUNK, CONSUMER, KEYS, NEGOTIATION, NOW, PROVIDER, SOUND, THEIRS, TRANSFER, Draft, Story, signed


def test_two_acks_of_one_receipt_accuse_the_provider():
    draft = SOUND.copy()
    ack = Ack.of(claims_of(draft.one("ack", 1)["jws"]))
    draft.put("ack", {"jws": signed(replace(ack, microseconds=9), KEYS[PROVIDER]), "transfer": TRANSFER}, before="statement")
    assert {("ack-twice", True)} <= {(each.code, each.accuses) for each in verify(draft.data).findings}


def test_an_ack_that_its_provider_has_dated_back_accuses_it_in_the_export_of_its_consumer():
    draft = Story({"ack 2": other(issued=NOW - 4_000)}).draft()
    assert ("ack-before", False) in {(each.code, each.accuses) for each in verify(draft.data).findings}
    draft.one("evidence").update(by=CONSUMER, role="consumer")
    assert ("ack-before", True) in {(each.code, each.accuses) for each in verify(draft.data).findings}


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
    return draft.uncounted()


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


def of_consumer(**change: Callable[[Any], Any]) -> Draft:
    """The file as the consumer exports it, without a ledger."""
    bare = {"receipt 2": other(ledger=None), "statement": other(ledger=None, peer=None)}
    changes = {name.replace("_", " "): each for name, each in change.items()}
    both = {name: _then(bare.get(name), changes.get(name)) for name in bare.keys() | changes.keys()}
    draft = Story(both, invoice=False).draft()
    draft.members = [each for each in draft.members if each[0] not in ("entry", "consistency", "checkpoint")]
    draft.one("evidence").update(by=CONSUMER, role="consumer", version=2)
    draft.one("agreement")["negotiation"] = draft.one("negotiation")["pid"] = THEIRS[NEGOTIATION]
    draft.one("transfer")["pid"] = THEIRS[TRANSFER]
    for each in draft.all("decision"):
        each["pid"] = THEIRS[each["pid"]]
    for kind in ("manifest", "receipt", "ack", "statement"):
        for each in draft.all(kind):
            each["transfer"] = THEIRS[TRANSFER]
    return draft


def _then(*steps: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    return reduce(lambda done, step: lambda value: step(done(value)) if step is not None else done(value), steps, lambda value: value)


def test_a_consumer_that_has_lost_its_receipts_shows_the_one_that_it_had_back_and_says_so():
    draft = of_consumer()
    assert draft.codes() == set()
    for kind in ("receipt", "ack"):
        draft.drop(kind)
    report = verify(draft.data)
    assert report.sound, report.findings
    assert report.told is not None
    assert (report.told.flows[0].receipts, report.told.counts.bytes) == (1, 196_613)
    assert any(text.startswith(f"receipt 1 of transfer {TRANSFER}: {CONSUMER} has lost them") for text in report.unproven)


def test_what_came_back_unanswered_is_the_consumers_own_word_and_no_fault_of_its_file():
    alone = of_consumer()
    for kind in ("receipt", "ack"):
        alone.drop(kind)
    alone.drop("ack")
    alone.one("transfer")["account"]["ack"] = None
    report = verify(alone.data)
    assert report.sound, report.findings
    assert report.told is not None
    assert report.told.counts.bytes == 0, "that the provider has it, nobody has signed"
    told = " ".join(report.unproven)
    assert "which says all that they said, and which nobody has answered yet" in told
    assert "that the provider has got the last receipt: it has no ack" in told


def test_what_came_back_has_to_hold_and_the_provider_loses_none():
    false = of_consumer(receipt_2=other(counts=Counts(10**9, 0, 1, 1, 7)))
    for kind in ("receipt", "ack"):
        false.drop(kind)
    assert "bytes-differ" in false.codes()
    provider = SOUND.copy()
    dropped("receipt", 0)(provider)
    dropped("ack", 0)(provider)
    assert "receipt-missing" in provider.codes()


def _partial(**more: Callable[[Any], Any]) -> Draft:
    """The file of a transfer that is not complete."""
    counts = Counts(3 * CHUNK, 0, 0, 1, 7)
    change = {
        "receipt 2": other(ranges=((1, 4),), counts=counts, state="partial"),
        "ack 2": other(credit_bytes=7 * CHUNK),
        "statement": _then(told(counts=counts), more.get("statement")),
    }
    draft = Story(change, invoice=False).draft()
    draft.one("transfer")["account"].update(status="open", counts=counts.claims())
    return draft


def test_a_beginning_of_a_chain_passes_and_is_said_to_be_one_as_far_as_the_other_side_has_not_signed_that_it_ends_there():
    """A statement of a period says nothing of what was signed for after it."""
    report = verify(_partial().data)
    assert report.sound, report.findings
    (said,) = [text for text in report.unproven if text.startswith(f"that receipt 2 of transfer {TRANSFER} is the last")]
    assert f"no statement of {CONSUMER} in the file names it as the last" in said
    closed = _partial(statement=other(issuer=CONSUMER, audience=PROVIDER, ledger=None, peer=None))
    report = verify(closed.data)
    (said,) = [text for text in report.unproven if text.startswith(f"that receipt 2 of transfer {TRANSFER} is the last")]
    ends = claims_of(closed.one("statement")["jws"])["to"]
    assert f"{CONSUMER} has signed that it was the last before {rfc3339(ends)}, and nothing of later" in said
    assert report.sound, report.findings


def test_a_beginning_whose_end_a_statement_names_is_not_the_whole():
    """Whoever takes off the end of a chain has to take off all that says that there was more."""
    draft = _partial(statement=other(issuer=CONSUMER, audience=PROVIDER, ledger=None, peer=None))
    dropped("receipt", 1)(draft)
    dropped("ack", 1)(draft)
    counts = dict.fromkeys(draft.one("transfer")["account"]["counts"], 0)
    one, ack = (write_bytes(digest(draft.one(kind)["jws"])) for kind in ("receipt", "ack"))
    draft.one("transfer")["account"].update(sequence=1, receipt=one, ack=ack, counts=counts)
    assert "statement-receipt" in draft.codes()


def test_a_consumer_tells_nothing_that_its_provider_alone_has_counted():
    draft = of_consumer()
    nothing = {"sequence": 0, "receipt": None, "ack": None, "status": "open", "attested": "provider-only"}
    known = {"pid": "urn:uuid:x-c", "consumerPid": "urn:uuid:x-c", "providerPid": "urn:uuid:x-p", "state": None, "created": None}
    for counts, codes in ((Counts(), set()), (Counts(bytes=5), {"account-counts"})):
        again = draft.copy()
        account = nothing | {"counts": counts.claims()}
        again.put("transfer", draft.one("transfer") | known | {"account": account}, before="decision")
        assert again.codes() == codes
