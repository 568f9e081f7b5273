"""An invoice has one spelling: what another program, or a person, could read otherwise is found, though it comes to the same."""

from typing import Any

import pytest

from connector.evidence.verify import verify
from connector.evidence_bills.formed import wrong
from connector.metering_bills.invoice import Closed, invoice_of
from connector.values import replace
from tests.evidence.forgeries import invoiced
from tests.evidence.rig import PROVIDER, SOUND, STRANGER, Draft
from tests.metering_bills.test_invoice import DAY, PARTIES, PLAN, START, alone, receipt

FLOW = SOUND.one("invoice")["document"]["flows"][0]
LINES = SOUND.one("invoice")["document"]["lines"]
COUNTS = SOUND.one("invoice")["document"]["counts"]
LEFT = {"attested": "provider-only", "transfers": ["t"], "counts": COUNTS, "amount": "1.00", "to": "2027-01-15T08:00:22.000Z"}


def without(value: dict[str, Any], name: str) -> dict[str, Any]:
    return {each: value[each] for each in value if each != name}


SPELLED_OTHERWISE: list[tuple[str, dict[str, Any]]] = [
    *[("/total", {"total": text}) for text in ("5.250", "05.25", "+5.25")],
    *[("/from", {"from": text}) for text in ("2027-01-15T08:00:00.000", "2027-01-15T08:00:00Z", "2027-01-15T09:00:00.000+01:00", None)],
    *[("/to", {"to": text}) for text in ("2027-01-15T08:00:22.000", "2027-01-15 08:00:22.000Z", "2027-01-15T10:00:22.000+02:00")],
    *[("/rounding", {"rounding": text}) for text in ("half-up", "", None)],
    *[("/attested", {"attested": text}) for text in ("in-part", "BOTH", "", None, STRANGER)],
    ("/lines/0", {"lines": [LINES[0] | {"discount": "1.00"}, LINES[1]]}),
    ("/lines/1", {"lines": [LINES[0], without(LINES[1], "band")]}),
    ("/lines/1", {"lines": [LINES[0], LINES[1] | {"amount": "05.20"}]}),
    ("/lines/1", {"lines": [LINES[0], LINES[1] | {"unit_price": "5.200"}]}),
    ("/lines/1", {"lines": [LINES[0], LINES[1] | {"attested": "consumer-only"}]}),
    ("/counts", {"counts": COUNTS | {"x": 1}}),
    ("/flows/0", {"flows": [FLOW | {"x": 1}]}),
    ("/flows/0", {"flows": [FLOW | {"counts": COUNTS | {"x": 1}}]}),
    ("", {"x": 1}),
    ("", {"currency_name": "Euro"}),
    ("/currency", {"currency": "eur"}),
    ("/disputed", {"disputed": []}),
    ("/disputed", {"disputed": [1]}),
    ("/disputed", {"disputed": ["b", "a"]}),
]
BESIDE: list[tuple[str, Any]] = [
    ("preliminary", "yes"),
    ("preliminary", False),
    ("left_out", None),
    ("left_out", LEFT | {"amount": "1"}),
    ("left_out", LEFT | {"attested": "both"}),
    ("left_out", LEFT | {"x": 1}),
]


def found(draft: Draft) -> list[tuple[str, str]]:
    return [(each.code, each.pointer) for each in verify(draft.data).findings]


@pytest.mark.parametrize(("pointer", "values"), SPELLED_OTHERWISE, ids=lambda value: str(value)[:60])
def test_an_invoice_that_is_spelled_otherwise_is_found(pointer: str, values: dict[str, Any]):
    draft = SOUND.copy()
    invoiced(**values)(draft)
    assert found(draft) == [("invoice-form", f"/document{pointer}")]


@pytest.mark.parametrize("name", ["rounding", "attested"])
def test_an_invoice_that_lacks_what_nothing_is_compared_with_is_found(name: str):
    draft = SOUND.copy()
    draft.one("invoice")["document"] = without(draft.one("invoice")["document"], name)
    invoiced()(draft)
    assert found(draft) == [("invoice-form", "/document")]


@pytest.mark.parametrize(("name", "value"), BESIDE)
def test_so_is_what_stands_beside_it_and_under_no_digest(name: str, value: Any):
    draft = SOUND.copy()
    draft.one("invoice")["document"][name] = value
    assert found(draft) == [("invoice-form", f"/document/{name}")]
    draft.one("invoice")["document"] |= {"left_out": LEFT, "preliminary": True}
    assert found(draft) == []


@pytest.mark.parametrize("begins", [START, START + 0.9996, START + 1 / 3, START - 86_400 * 365.2422])
@pytest.mark.parametrize("currency", ["JPY", "EUR", "TND", "UYW"])
def test_whatever_we_write_is_spelled_so(begins: float, currency: str):
    known = [receipt("t1", 5, 1, records=10), receipt("t2", 3, 1, bytes=2**53 - 1), alone("t3", 4, bytes=7)]
    closed = Closed(START + 7.0004, PROVIDER, "consumer-only")
    more: dict[str, Any] = {"disputed": ["t2", "t1"], "alone": [alone("t9", 6, bytes=9)], "closed": closed}
    for plan in (replace(PLAN, currency=currency), replace(PLAN, currency=currency, ends=round(START * 1_000_000) + 9)):
        made = replace(invoice_of(PARTIES, plan, known, begins, START + DAY + 0.0007, **more), preliminary=True)
        assert not list(wrong(made.to_json()))
