"""How `connector usage` and `connector invoice` look: what was used, by whom it is attested, what is owed for it, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_DOWN, Decimal
from typing import TYPE_CHECKING, Any

from connector.cli import show

if TYPE_CHECKING:
    from connector.client.views import AgreementUsage, Credit

FLOWS = ("TRANSFER", "STATUS", "ATTESTED", "BYTES", "RECORDS", "CALLS", "RECEIPT")
WORD = {
    "both": "which both sides know",
    "provider-only": "by the provider's word alone",
    "consumer-only": "by the consumer's word alone",
}
NOTHING_SIGNED = "nothing was signed for; what was fetched without receipts, as by `transfers address`, only the provider has counted"
LINES = ("PRICE", "UNIT", "UNIT PRICE", "QUANTITY", "ATTESTED", "AMOUNT")


def show_usage(view: AgreementUsage, credit: Credit | None) -> None:
    """Print what was used under an agreement, and of the provider's `credit` what is locked."""
    cost = view.cost or {}
    owed = f"{cost['amount']} {cost['currency']}, signed for {cost['signed']}" if "amount" in cost else "; ".join(cost.get("reasons", ()))
    show.facts(
        {"agreement": view.agreement, "as": view.role, "used": _counted(view.counts), "signed for": _counted(view.signed), "cost": owed}
    )
    if view.disputed:
        show.note(f"disputed, the two sides have signed what contradicts itself: {', '.join(view.disputed)}")
    if credit is not None and credit.locked_bytes:
        show.note(_locked(credit))
    rows = [
        (t["transfer"], t["status"], t["attested"], t["counts"]["bytes"], t["counts"]["records"], t["counts"]["calls"], t["receipt"])
        for t in view.transfers
    ]
    show.line()
    show.table(FLOWS, rows, NOTHING_SIGNED if view.role == "consumer" else "nothing was transferred yet")


def show_invoice(said: Mapping[str, Any]) -> None:
    """Print an invoice, as the management API gives it in JSON, and beside it what is left out."""
    currency = said["currency"]
    names = ("agreement", "provider", "consumer", "from", "to", "digest")
    argued = {"disputed": ", ".join(said["disputed"])} if said.get("disputed") else {}
    if (closed := said.get("closed")) is not None:
        argued["closed"] = f"{closed['at']} by {closed['by']}, {WORD[closed['attested']]}"
    show.facts({name: said[name] for name in names} | {"total": f"{said['total']} {currency}", "attested": said["attested"]} | argued)
    rows = [
        (e["price"], _unit(e), f"{e['unit_price']} {currency}", _quantity(e), e["attested"], f"{e['amount']} {currency}")
        for e in said["lines"]
    ]
    show.line()
    show.table(LINES, rows, "nothing is owed")
    if said.get("preliminary"):
        show.note("preliminary: the period is not over; once it is, an invoice of it stays as it is")
    if (left := said.get("left_out")) is not None:
        of = f"{_counted(left['counts'])}, {left['amount']} {currency}"
        show.note(f"left out: {of}, which the provider alone has counted and the consumer has not signed for")
        show.note(f"an invoice `--to {left['to'][:10]}` has it, and stays as it is once that day has begun (UTC)")


def _unit(line: Mapping[str, Any]) -> str:
    """What a price is for, and of which units: MB beyond 2."""
    above, upto = line.get("band") or (0, None)
    beyond = f" beyond {_units(above, line['per'])}" if above else ""
    return f"{line['unit']}{beyond}" + (f" up to {_units(upto, line['per'])}" if upto is not None else "")


def _quantity(line: Mapping[str, Any]) -> str:
    """So many of what has the unit price, and what was counted for it: 1.5 (1500000 bytes)."""
    return _units(line["quantity"], line["per"]) + (f" ({line['quantity']} {line['counted']})" if line["per"] != 1 else "")


def _units(of: int, per: int) -> str:
    """Cut behind six places, as on the page that is printed."""
    return f"{(Decimal(of) / per).quantize(Decimal('0.000001'), ROUND_DOWN):f}".rstrip("0").rstrip(".")


def _counted(counts: Mapping[str, int]) -> str:
    seconds = counts.get("us", 0) / 1_000_000
    told = {"records": counts.get("records", 0), "items": counts.get("items", 0), "calls": counts.get("calls", 0)}
    more = "".join(f", {number} {name if number > 1 else name.removesuffix('s')}" for name, number in told.items() if number)
    return f"{counts.get('bytes', 0)} bytes{more}" + (f", {seconds:.1f} s" if seconds else "")


def _locked(credit: Credit) -> str:
    """What of the credit of an agreement is locked, and the way out."""
    of = f"{show.size(credit.locked_bytes)} of its credit of {show.size(credit.credit_bytes)}"
    pids = ", ".join(f"{each['transfer']} until {show.moment(each['until'])}" for each in credit.lost)
    return (
        f"of this agreement {of} count as on their way in transfers that ended unsigned: {pids}; where receipts are demanded only the rest"
        f" is to be had. `connector agreements release {credit.agreement}` writes that off"
    )
