"""Whether an invoice is spelled as every program of ours spells one: what it has, and how amounts and instants are written. Pure.

Who reads an invoice by eye, or by another program, takes its words as they are: an amount that is written otherwise may be read otherwise,
and an instant without its zone is another one on each machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from connector.evidence.case import Case
from connector.evidence.members import Member
from connector.metering.counts import COUNTED
from connector.metering_bills.currencies import PLACES
from connector.metering_bills.invoice import ALONE, ROUNDING, rfc3339

NAMES: Final = frozenset(
    {
        "agreement", "agreement_digest", "dataset", "provider", "consumer", "from", "to", "currency", "rounding", "lines", "total",
        "counts", "flows", "attested", "digest",
    }
)  # fmt: skip
AT_TIMES: Final = frozenset({"disputed", "closed", "left_out", "preliminary"})
LINE: Final = frozenset({"price", "unit", "unit_price", "band", "counted", "quantity", "per", "attested", "amount"})
FLOW: Final = frozenset({"transfer", "attested", "sequence", "manifest", "receipt", "counts", "counts_so_far"})
LEFT_OUT: Final = frozenset({"attested", "transfers", "counts", "amount", "to"})
CLOSED: Final = frozenset({"at", "by", "attested"})
WORDS: Final = ("both", ALONE, "consumer-only")
DECIMAL: Final = re.compile(r"(?!-0(?:\.0*)?\Z)-?(?:0|[1-9][0-9]*)(?:\.([0-9]+))?")


def check(case: Case, at: Member) -> None:
    """Look at the invoice `at`, of which all that is compared with something else holds."""
    for pointer in wrong(at.value["document"]):
        case.fault("invoice-form", at, f"/document{pointer}")


def wrong(said: Mapping[str, Any]) -> Iterator[str]:
    """The places (RFC 6901, below the invoice) of what is not as `Invoice.to_json` writes it."""
    if not NAMES <= said.keys() <= NAMES | AT_TIMES:
        yield ""
        return
    places = PLACES.get(str(said["currency"]))
    if places is None:
        yield "/currency"
        return
    yield from (f"/{name}" for name in ("from", "to") if not _is_instant(said[name]))
    if said["rounding"] != ROUNDING:
        yield "/rounding"
    if not _is_amount(said["total"], places):
        yield "/total"
    if not _are_counts(said["counts"]):
        yield "/counts"
    for number, line in enumerate(said["lines"]):
        amounts = _is_amount(line.get("amount"), places) and _is_amount(line.get("unit_price"), places, more=True)
        if line.keys() != LINE or not amounts or line["attested"] not in ("both", ALONE, "agreed"):
            yield f"/lines/{number}"
    for number, flow in enumerate(said["flows"]):
        counts = all(_are_counts(each) for name, each in flow.items() if name in ("counts", "counts_so_far", "beyond"))
        if flow.keys() - {"beyond"} != FLOW or not counts or flow["attested"] not in ("both", ALONE):
            yield f"/flows/{number}"
    yield from _at_times(said, places)


def _at_times(said: Mapping[str, Any], places: int) -> Iterator[str]:
    """What stands in some invoices, and what follows from it."""
    disputed, closed = said.get("disputed", ["x"]), said.get("closed", {"attested": "both"})
    texts = isinstance(disputed, list) and all(isinstance(each, str) for each in disputed)
    if not texts or not disputed or disputed != sorted(set(disputed)):
        yield "/disputed"
    if not isinstance(closed, dict) or closed.get("attested") not in WORDS or ("closed" in said and closed.keys() != CLOSED):
        yield "/closed"
        return
    if said.get("preliminary", True) is not True:
        yield "/preliminary"
    if "left_out" in said and not _is_left_out(said["left_out"], places):
        yield "/left_out"
    whole = closed["attested"] == "both" and all(line["attested"] != ALONE for line in said["lines"] if "attested" in line)
    if said["attested"] != ("both" if whole else "in-part"):
        yield "/attested"


def _is_left_out(left: Any, places: int) -> bool:
    if not isinstance(left, dict) or left.keys() != LEFT_OUT or left["attested"] != ALONE or not isinstance(left["transfers"], list):
        return False
    return _are_counts(left["counts"]) and _is_amount(left["amount"], places) and _is_instant(left["to"])


def _is_amount(text: object, places: int, *, more: bool = False) -> bool:
    """Whether a decimal has as many places as its currency; with `more` at the least so many."""
    found = DECIMAL.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return False
    known = len(found[1] or "")
    return known == places or (more and known > places and not str(found[1]).endswith("0"))


def _are_counts(value: object) -> bool:
    if not isinstance(value, dict) or value.keys() != COUNTED.keys():
        return False
    return all(isinstance(each, int) and not isinstance(each, bool) for each in value.values())


def _is_instant(text: object) -> bool:
    try:
        at = datetime.fromisoformat(text) if isinstance(text, str) else None
        return at is not None and at.tzinfo is not None and rfc3339(at.timestamp()) == text
    except (OverflowError, ValueError):
        return False
