"""Whether an invoice is by the prices of the agreement: its policy is read, and what the flows of the invoice come to by that. Pure.

Which policies can be read depends on the profiles that the verifier knows. Of one that is not understood here it is said that nothing was
compared. So it is where both sides have signed, with a receipt and its manifest, for prices of another name than those that are read here:
then they have read them otherwise, by profiles of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from connector.errors import InvalidRequest, PolicyError
from connector.evidence.case import Case
from connector.evidence.flows import DIGEST_BYTES, Flows
from connector.evidence.members import Member
from connector.metering.content import read_bytes
from connector.metering.counts import NOTHING, counts_of
from connector.metering_bills.currencies import exactly
from connector.metering_bills.invoice import MICROSECONDS, MILLISECOND, Parties, Reading, invoice_of, less
from connector.metering_bills.plans import plan_of
from connector.metering_bills.prices import Plan, Price
from connector.metering_bills.terms import name_of
from connector.odrl.counters import tallies
from connector.odrl.model import Policy
from connector.odrl.operands import METERED_TIME
from connector.odrl_reading.parse import load
from connector.values import replace


def check(case: Case, found: Flows, at: Member) -> None:
    """Compare the invoice `at`, of which the rest holds."""
    said = at.value["document"]
    try:
        policy = load(case.agreement.value["document"], options=case.options)
        plan, name = plan_of(policy), name_of(policy)
    except PolicyError as error:
        found.unpriced = f"what the agreement says of prices is not understood here ({error.message})"
        return
    signed = {each.manifest.value.prices for each in found.flows.values() if each.acked is not None} - {None}
    if signed - {name}:
        found.unpriced = "both sides have signed for prices of another name than those that are read here"
    elif plan is None:
        case.fault("invoice-price", at, "/document")
    elif said.get("currency") != plan.currency:
        case.fault("invoice-price", at, "/document/currency")
    else:
        _time(case, found, at, policy)
        found.plan = _ended(case, plan)
        _lines(case, found, at, found.plan)


def untold(case: Case, found: Flows) -> str:
    """What is not proven of what is owed where the file has no invoice; "" if the agreement has no prices. Both sides have signed that it
    has some where a manifest names them; for a subscription nobody has to sign anything."""
    try:
        priced = plan_of(load(case.agreement.value["document"], options=case.options)) is not None
    except PolicyError as error:
        priced, why = False, error.message
    else:
        why = ""
    if priced or any(each.manifest.value.prices is not None for each in found.flows.values()):
        return "what is owed: the agreement has prices, and there is no invoice in the file"
    return f"whether anything is owed: what the agreement says of prices is not understood here ({why})" if why else ""


def _time(case: Case, found: Flows, at: Member, policy: Policy) -> None:
    """Whether less time than was signed for is billed where no quota meters it."""
    if any(tally.operand == METERED_TIME for tally in tallies(policy)):
        return
    for number, flow in enumerate(at.value["document"]["flows"]):
        receipt = found.receipts.get(read_bytes(flow.get("receipt"), DIGEST_BYTES) or b"")
        if receipt is not None and flow["counts_so_far"] != receipt.value.counts.claims():
            case.fault("invoice-counts", at, f"/document/flows/{number}/counts_so_far")


def _lines(case: Case, found: Flows, at: Member, plan: Plan) -> None:
    said = at.value["document"]
    known = {price.path: _row(price, plan.currency) for price in plan.prices}
    wrong = [
        number for number, line in enumerate(said["lines"]) if {name: line.get(name) for name in ROW} != known.get(str(line.get("price")))
    ]
    for number in wrong:
        case.fault("invoice-price", at, f"/document/lines/{number}")
    if wrong:
        return
    whole = _is_whole(said, plan)
    if not whole:
        found.unpriced = "it is of a period that begins after the signing, so its lines for what is metered were not compared, and what was"
        found.unpriced += " owed before is not in it"
    if not _comes_to(said, plan, whole=whole):
        case.fault("invoice-quantity", at, "/document/lines")


ROW: Final = ("unit", "unit_price", "band", "counted", "per")


def _row(price: Price, currency: str) -> dict[str, Any]:
    """What a line says of its price."""
    unit = price.unit
    band = [price.above, price.upto] if unit.counted else None
    return dict(zip(ROW, (unit.name, exactly(price.amount, currency), band, unit.counted or None, unit.size), strict=True))


def _ended(case: Case, plan: Plan) -> Plan:
    """The plan with the end that the agreement has."""
    over = [at for at in (case.agreement.value["ends"], case.agreement.value["closed"]) if at is not None]
    return replace(plan, ends=round(min(over) * MICROSECONDS)) if over else plan


def _is_whole(said: Mapping[str, Any], plan: Plan) -> bool:
    """Whether an invoice is of all from the signing on."""
    try:
        return plan.signed is None or datetime.fromisoformat(said["from"]).timestamp() * MICROSECONDS <= plan.signed
    except (KeyError, OverflowError, TypeError, ValueError):
        return False


def _comes_to(said: Mapping[str, Any], plan: Plan, *, whole: bool) -> bool:
    """Whether the lines are what the flows come to. An invoice says its period to the millisecond, in which one for time may begin."""
    try:
        begins, ends = (datetime.fromisoformat(said[name]).timestamp() for name in ("from", "to"))
        told = [_told(line) for line in said["lines"] if whole or line["counted"] is None]
        return any(told == _expected(said, plan, begins, at, whole=whole) for at in (ends, ends + MILLISECOND))
    except (InvalidRequest, KeyError, OverflowError, TypeError, ValueError):
        return False


def _expected(said: Mapping[str, Any], plan: Plan, begins: float, ends: float, *, whole: bool) -> list[tuple[object, ...]]:
    """The lines that the flows of an invoice come to in its period. One that is not the `whole` from the signing on does not tell what
    had come before by other flows, which may have used up a band: of such a one those of what is agreed."""
    readings = [reading for flow in said["flows"] for reading in _readings(flow, begins)]
    parties = Parties("", b"", "", "", "")
    lines = invoice_of(parties, plan, readings, begins, ends).to_json()["lines"]
    return [_told(line) for line in lines if whole or line["counted"] is None]


def agreed_by(said: Mapping[str, Any], plan: Plan, at: float) -> list[tuple[object, ...]]:
    """The lines of an invoice for what is paid for by agreement and not by use, if it went up to an instant (POSIX seconds)."""
    try:
        begins = datetime.fromisoformat(said["from"]).timestamp()
        return _expected(said, plan, begins, max(begins, at), whole=False)
    except (InvalidRequest, KeyError, OverflowError, TypeError, ValueError):
        return []


def _told(line: Mapping[str, Any]) -> tuple[object, ...]:
    return tuple(line[name] for name in ("price", "attested", "quantity", "amount"))


def _readings(flow: Mapping[str, Any], begins: float) -> Sequence[Reading]:
    """What a flow had come to before the period, if that is something, and at its end."""
    so_far, counts = counts_of(flow["counts_so_far"]), counts_of(flow["counts"])
    beyond = counts_of(flow["beyond"]) if "beyond" in flow else NOTHING
    receipt = None if flow["receipt"] is None else read_bytes(flow["receipt"], DIGEST_BYTES)
    last = Reading(flow["transfer"], begins, so_far, 1, None, receipt, beyond)
    before = less(so_far + beyond, counts)
    return [last] if before == NOTHING else [replace(last, at=begins - 1, counts=before, sequence=0, beyond=NOTHING), last]
