"""The name of what an agreement says of prices: what a manifest has in `prices`, so that both sides have signed for them. Pure."""

from __future__ import annotations

from typing import Any

from connector.metering.content import digest_of
from connector.metering_bills.plans import plan_of, terms_of
from connector.odrl.model import Policy


def name_of(policy: Policy) -> bytes | None:
    """SHA-256 of the JCS form of a policy's prices: equal for equal prices, by the same payers to the same parties, in whatever order and
    form the policy has them. None if nothing has a price. Raises PolicyError for prices that are not understood."""
    found: Any = terms_of(policy) if plan_of(policy) is not None else None
    if found is None:
        return None
    rows = [_row(terms, number) for terms, number in found]
    return digest_of({"v": 1, "prices": sorted(rows, key=repr)})


def _row(terms: Any, number: int) -> dict[str, Any]:
    """One price, numbers as text: JCS has none that are exact beyond 2^53."""
    currency, unit, amount, above, upto, times, period, payer, functions = terms
    return {
        "currency": currency,
        "unit": unit.name,
        "amount": str(amount),
        "above": str(above),
        "upto": None if upto is None else str(upto),
        "times": str(times),
        "period": None if period is None else [str(period.months), str(period.microseconds)],
        "payer": sorted(payer),
        "parties": sorted([function, party] for function, party in functions),
        "number": number,
    }
