"""What an invoice says, against the receipts and acks: what it leaves out is no lie."""

from time import process_time

import pytest

from connector.evidence.verify import verify
from connector.evidence_bills import invoices
from connector.evidence_bills.invoices import BESIDE
from connector.metering.content import digest_of
from connector.metering.counts import Counts
from connector.metering.objects import Ack, Receipt, digest
from connector.metering_bills.invoice import Parties, Reading, invoice_of
from connector.metering_bills.plans import plan_of
from connector.odrl import load
from connector.values import replace
from tests.evidence.forgeries import invoiced, other
from tests.evidence.rig import (
    AGREEMENT,
    CONSUMER,
    COUNTS,
    DATASET,
    DOCUMENT,
    LATER,
    LAYOUT,
    NOW,
    PROVIDER,
    SOUND,
    TRANSFER,
    Draft,
    Story,
    billed,
    fact,
)  # fmt: skip
from tests.evidence.test_flows import of_consumer
from tests.evidence.test_held import CLOSED
from tests.metering_bills.priced import price
from tests.metering_bills.test_invoice import DAY, PARTIES, PLAN, START, alone, receipt
from tests.odrl_forms.shipped import options


@pytest.mark.parametrize("total", [" 5.25", "5_.25", "525E-2", "\u0665.25", "5.25\n", "1e999999999", "21/4", "NaN", 5.25, None])
def test_a_total_that_is_no_decimal_adds_up_to_nothing(total: object):
    draft = SOUND.copy()
    invoiced(total=total)(draft)
    assert draft.codes() == {"invoice-total"}


def test_sums_of_any_size_are_exact():
    """A price may have 24 digits and a count 16: a decimal of the interpreter holds 28."""
    document = DOCUMENT | {"permission": [{"action": "use", "duty": [price("99999999999999999999999.5", "record")]}]}
    counts = Counts(LAYOUT.size_bytes, LAYOUT.size_bytes, 1, 1, 7)
    draft = Story({"manifest": other(unit="line")}, document=document, counts=counts).draft()
    total = draft.one("invoice")["document"]["total"]
    assert total == "19661299999999999999999901693.50"
    assert draft.codes() == set()
    invoiced(total=total.replace("93.50", "93.51"))(draft)
    assert draft.codes() == {"invoice-total"}


def test_an_agreement_without_prices_has_no_invoice():
    assert Story(invoice=False).draft().codes() == set()


def test_an_invoice_that_bills_less_than_was_signed_for_is_no_lie_and_that_is_said():
    draft = SOUND.copy()
    said = draft.one("invoice")["document"]
    assert not [text for text in verify(draft.data).unproven if "what is owed" in text]
    invoiced(flows=[], counts=Counts().claims(), lines=said["lines"][1:], total="5.20")(draft)
    report = verify(draft.data)
    assert report.sound, report.findings
    assert f"what is owed for transfer {TRANSFER} by receipt 2: the invoice in the file goes to receipt 0" in report.unproven


def test_what_an_invoice_leaves_out_stands_beside_it_and_its_digest_is_not_of_that():
    known = [receipt("t1", 5, 1, records=10)]
    said = replace(invoice_of(PARTIES, PLAN, known, START, START + DAY, alone=[alone("t2", 6, bytes=9)]), preliminary=True).to_json()
    assert not BESIDE - said.keys()
    assert billed({name: value for name, value in said.items() if name not in BESIDE})["digest"] == said["digest"]
    draft = SOUND.copy()
    beside = "which its digest is not of: it is the word of"
    assert not [text for text in verify(draft.data).unproven if beside in text]
    draft.one("invoice")["document"] |= {name: said[name] for name in BESIDE - {"digest"}}
    report = verify(draft.data)
    assert report.sound, report.findings
    assert f"what the invoice says by `left_out` and `preliminary`, {beside} {PROVIDER} alone" in report.unproven


def test_time_that_the_provider_alone_has_counted_is_billed_as_its_ack_says_it():
    draft = Story({"ack 2": other(microseconds=3_000_007)}).draft()
    assert draft.codes() == {"invoice-beyond"}
    said = draft.one("invoice")["document"]
    flow = said["flows"][0]
    flow["beyond"] = dict.fromkeys(flow["counts"], 0) | {"us": 3_000_000}
    flow["counts"] = flow["counts"] | {"us": flow["counts"]["us"] + 3_000_000}
    draft.one("invoice")["document"] = billed(said | {"counts": flow["counts"]})
    assert draft.codes() == set()


def test_of_what_was_acknowledged_before_its_period_an_invoice_counts_the_rest_and_of_nothing_else():
    draft = Story({"receipt 1": other(counts=Counts(microseconds=3))}).draft()
    assert draft.codes() == set()
    said = draft.one("invoice")["document"]
    invoiced(lines=said["lines"][:1], total="0.05")(draft)  # the subscription was paid at the signing
    flow = said["flows"][0]
    counts = flow["counts"] | {"us": flow["counts"]["us"] - 3}
    for begins, codes in (("12", set()), ("10", {"invoice-period"})):
        invoiced(**{"from": f"2027-01-15T08:00:{begins}.000Z"}, flows=[flow | {"counts": counts}], counts=counts)(draft)
        assert draft.codes() == codes


def test_time_that_was_billed_before_as_the_providers_word_is_not_billed_so_again():
    first = {"receipt 1": other(counts=Counts(microseconds=3)), "ack 1": other(microseconds=3_000_003)}
    draft = Story(first | {"ack 2": other(microseconds=4_000_007)}).draft()
    said = draft.one("invoice")["document"]
    flow = said["flows"][0]
    counts = flow["counts"] | {"us": 7 + 4_000_000 - 3_000_003}
    rest = {"from": "2027-01-15T08:00:12.000Z", "lines": said["lines"][:1], "total": "0.05", "counts": counts}
    for more, codes in ((1_000_000, set()), (4_000_000, {"invoice-beyond"})):
        beyond = dict.fromkeys(counts, 0) | {"us": more}
        invoiced(flows=[flow | {"counts": counts, "beyond": beyond}], **rest)(draft)
        assert draft.codes() == codes


def test_what_a_provider_has_billed_by_its_own_word_before_its_first_receipt_it_bills_no_more_and_that_is_said():
    late = dict.fromkeys(("receipt 1", "ack 1", "receipt 2", "ack 2"), later) | {"manifest": other(expires=NOW + 3 * int(DAY))}
    draft = Story(late).draft()
    said = draft.one("invoice")["document"]
    counts = said["counts"] | {"bytes": said["counts"]["bytes"] - 7}
    line = said["lines"][0] | {"quantity": counts["bytes"]}
    flow = said["flows"][0] | {"counts": counts}
    rest = {"to": "2027-01-16T08:05:00.000Z", "flows": [flow], "counts": counts, "lines": [line], "total": line["amount"]}
    invoiced(**{"from": "2027-01-15T08:00:01.000Z"} | rest)(draft)
    assert draft.codes() == {"invoice-period"}, "of no day that was over"
    invoiced(**{"from": "2027-01-16T00:00:00.000Z"} | rest)(draft)
    report = verify(draft.data)
    assert report.sound, report.findings
    assert any(f"what transfer {TRANSFER} had come to before the period" in text for text in report.unproven)


def later(value: Receipt | Ack) -> Receipt | Ack:
    """It was signed a day later."""
    return replace(value, issued=value.issued + int(DAY))


def test_where_a_quota_meters_time_and_nowhere_else_no_more_is_billed_than_the_provider_has_counted():
    quota = {"leftOperand": "odrl:meteredTime", "operator": "lteq", "rightOperand": {"@value": "PT60S", "@type": "xsd:duration"}}
    (permission,) = DOCUMENT["permission"]
    document = DOCUMENT | {"permission": [permission | {"constraint": [quota]}]}
    lies = {"ack 2": other(microseconds=1)}
    draft = Story(lies, document=document).draft()
    said = draft.one("invoice")["document"]
    flow = said["flows"][0]
    assert flow["counts_so_far"]["us"] > 1
    for name in ("counts", "counts_so_far"):
        flow[name] = flow[name] | {"us": 1}
    draft.one("invoice")["document"] = billed(said | {"counts": flow["counts"]})
    assert draft.codes() == set()
    unbound = Story(lies).draft()
    names = {name: unbound.one("invoice")["document"]["flows"][0][name] for name in ("manifest", "receipt")}
    invoiced(flows=[flow | names], counts=flow["counts"])(unbound)
    assert unbound.codes() == {"invoice-counts"}
    flow["counts_so_far"] = flow["counts_so_far"] | {"us": 2}
    draft.one("invoice")["document"] = billed(said | {"counts": flow["counts"]})
    assert draft.codes() == {"invoice-counts"}


def test_an_end_that_both_know_is_one_that_somebody_has_signed():
    draft = Story(extra=((CLOSED, {}),)).draft()
    draft.one("agreement").update(closed=NOW + 30, closedBy="us", reason="it is over")
    said = {"at": "2027-01-15T08:00:30.000Z", "by": PROVIDER}
    for attested, codes in (("provider-only", set()), ("both", {"invoice-closed"})):
        invoiced(closed=said | {"attested": attested}, attested="both" if attested == "both" else "in-part")(draft)
        assert draft.codes() == codes


def counted_alone(draft: Draft, transfer: str) -> None:
    """An invoice with a flow that nobody has signed for, and by the prices of the agreement what that comes to."""
    manifest, receipt = (digest(draft.one(kind, number)["jws"]) for kind, number in (("manifest", 0), ("receipt", 1)))
    known = [Reading(TRANSFER, NOW + 21, COUNTS, 2, manifest, receipt)] if transfer != TRANSFER else []
    plan = plan_of(load(DOCUMENT, options=options()))
    assert plan is not None
    parties = Parties(AGREEMENT, digest_of(DOCUMENT), DATASET, PROVIDER, CONSUMER)
    readings = [*known, Reading(transfer, NOW + 5, Counts(10**12))]
    draft.one("invoice")["document"] = invoice_of(parties, plan, readings, NOW, NOW + 22).to_json()


def begun() -> Draft:
    """A file with another transfer, by which nothing was signed for."""
    draft = Story(extra=((fact("message-received", LATER, state=None), {}),)).draft()
    known = {"pid": LATER, "providerPid": LATER, "consumerPid": "urn:uuid:l-c", "state": None, "created": None, "account": None}
    draft.put("transfer", draft.one("transfer") | known, before="decision")
    counted_alone(draft, LATER)
    return draft


def test_what_the_provider_alone_has_counted_needs_no_receipt_in_an_invoice_and_is_attested_by_nobody_else():
    draft = begun()
    assert draft.codes() == set()
    lines = draft.one("invoice")["document"]["lines"]
    invoiced(lines=[line | {"attested": "both"} for line in lines[:2]] + lines[2:])(draft)
    assert draft.codes() == {"invoice-line"}, "both attest none of it"


def test_what_nobody_has_signed_for_is_told_to_be_the_providers_word_alone():
    draft = begun()
    report = verify(draft.data)
    assert report.sound, report.findings
    assert "Owed: 250005.25 EUR, of that 250000.00 by the word of the provider alone (invoice" in "\n".join(report.verdict())
    assert f"that 250000.00 EUR of the invoice are owed: {CONSUMER} has not signed for it, {PROVIDER} has counted it" in report.unproven
    assert report.to_json()["agreement"]["invoice"]["provider_only"] == "250000.00"
    assert verify(SOUND.data).to_json()["agreement"]["invoice"]["provider_only"] == "0.00"


@pytest.mark.parametrize("transfer", ["urn:uuid:invented", TRANSFER])
def test_a_provider_does_not_bill_by_its_word_what_is_no_transfer_or_what_was_signed_for(transfer: str):
    draft = SOUND.copy()
    counted_alone(draft, transfer)
    assert draft.codes() == {"invoice-alone"}


@pytest.mark.parametrize(("seconds", "more", "codes"), [(0, -1, {"invoice-period"}), (12, -1, set()), (12, 1, {"invoice-period"})])
def test_a_consumer_owes_no_less_because_it_has_lost_a_receipt(seconds: int, more: int, codes: set[str]):
    """Which ones it loses it chooses itself. Of a period that began before the transfer it cannot have come to anything before that; of any
    other one nobody knows, and that is said."""
    draft = of_consumer()
    draft.drop("receipt")
    draft.drop("ack")
    manifest, receipt = (digest(draft.one(kind)["jws"]) for kind in ("manifest", "receipt"))
    plan = plan_of(load(DOCUMENT, options=options()))
    assert plan is not None
    parties = Parties(AGREEMENT, digest_of(DOCUMENT), DATASET, PROVIDER, CONSUMER)
    lost = Reading(TRANSFER, NOW - 1, replace(COUNTS, bytes=COUNTS.bytes + more), 1, manifest, b"x" * 32)
    whole = Reading(TRANSFER, NOW + 21, COUNTS, 2, manifest, receipt)
    said = invoice_of(parties, plan, [lost, whole], NOW + seconds, NOW + 22).to_json()
    draft.put("invoice", {"document": said}, before="manifest")
    report = verify(draft.data)
    assert {each.code for each in report.findings} == codes
    untold = f"what transfer {TRANSFER} had come to before the period of the invoice: {CONSUMER} has lost the receipt that says so"
    assert (untold in report.unproven) or codes


def test_an_invoice_of_more_lines_than_there_can_be_prices_takes_no_longer_to_look_at():
    """A forged one may have tens of thousands, each of which is looked at together with those before it."""
    draft = SOUND.copy()
    line = draft.one("invoice")["document"]["lines"][0] | {"quantity": 0, "amount": "0.00"}
    invoiced(lines=[line] * 3_000)(draft)
    began = process_time()
    assert {"invoice-line", "invoice-total"} == draft.codes()
    assert process_time() - began < 0.6, "the square of their number takes seconds"


@pytest.mark.parametrize("name", [TRANSFER, "urn:uuid:{}"])
def test_each_flow_of_an_invoice_is_looked_at_once_and_the_receipts_of_each_transfer(name: str, monkeypatch: pytest.MonkeyPatch):
    """A forged one may have thousands of flows by a receipt of a transfer that has thousands, and each of its lines add all of them up."""
    looked = list[str]()
    before, counts_of = invoices._before, invoices.counts_of
    monkeypatch.setattr(invoices, "_before", lambda *given: looked.append("receipts") or before(*given))
    monkeypatch.setattr(invoices, "counts_of", lambda given: looked.append("counts") or counts_of(given))
    draft = SOUND.copy()
    said = draft.one("invoice")["document"]
    flow, line = said["flows"][0], said["lines"][0]
    invoiced(flows=[flow, *(flow | {"transfer": name.format(number)} for number in range(50))], lines=[line] * 50)(draft)
    looked.clear()
    assert "invoice-flow" in draft.codes()
    assert looked.count("receipts") <= 2
    assert looked.count("counts") <= 200
