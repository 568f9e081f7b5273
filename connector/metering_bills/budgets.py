"""Budgets: what a policy lets a use cost, counted by the prices of the same policy, in whole numbers.

`odrl:payAmount` in a constraint of a permission or a prohibition is what the use under it has cost so far and with this use, by the price
plan of the policy: what is paid once, and of what leaves each byte, record and call. All of them are whole multiples of a sub-unit of the
currency, so that a budget is reserved before and posted after without any rounding, like bytes are. A bill is rounded (see
`connector.metering_bills.prices`). Both count each byte of a transfer once; what a crash has kept from being known a budget counts in full.

What streams cannot be held to has no budget, and is refused: minutes (they are billed by transfer, and transfers run beside each other),
bands (which unit is the thousand-and-first is known only when all have been counted), and periods (they begin whether anything leaves or
not).
"""

from __future__ import annotations

from fractions import Fraction
from math import lcm
from typing import Final

from connector.errors import PolicyError
from connector.metering_bills.currencies import CURRENCY, currency_of
from connector.metering_bills.plans import plan_of
from connector.metering_bills.prices import Plan, Price
from connector.odrl.counters import Pricing, Tally, cuts, last_before
from connector.odrl.counters import tallies as counted
from connector.odrl.model import Policy
from connector.odrl.operands import PAY_AMOUNT

SUBUNITS_MAX: Final = 2**62  # what every store can count


def tallies(policy: Policy) -> tuple[Tally, ...]:
    """Everything that has to be counted to judge a policy, as `odrl.counters.tallies`; budgets that the policy's prices measure have their
    `pricing`, and marks in its sub-units."""
    known: tuple[Tally, ...] | None = policy.memo.get(tallies)
    if known is None:
        known = policy.memo[tallies] = tuple(_priced(policy, tally) for tally in counted(policy))
    return known


def is_budget(operand: str) -> bool:
    """Whether what a tally calls `operand` is money."""
    return operand.partition(" ")[0] == PAY_AMOUNT


def demand_priced(policy: Policy, operand: str) -> None:
    """Raise PolicyError, whose text says what is wrong and what would do, for a budget that the policy's prices do not measure."""
    _pricing(policy, operand)


def _priced(policy: Policy, tally: Tally) -> Tally:
    if not is_budget(tally.operand):
        return tally
    try:
        pricing = _pricing(policy, tally.operand)
    except PolicyError:
        return tally  # nobody here measures it, and what is not measured is not known
    marks = {last_before(cut, pricing.scale) - pricing.fixed for cut in cuts(policy)[tally.rule, tally.operand]}
    return tally._replace(marks=tuple(sorted(mark for mark in marks if mark >= 0)), pricing=pricing)


def _pricing(policy: Policy, operand: str) -> Pricing:
    plan = plan_of(policy)
    if plan is None:
        raise PolicyError("what a use costs is not known: the policy has no prices; add a price, or count bytes")
    if not operand.partition(" ")[2]:
        raise PolicyError(f"a budget is in a currency; write `odrl:unit` like `{CURRENCY}{plan.currency}`")
    if (currency := currency_of(operand.partition(" ")[2])) != plan.currency:
        raise PolicyError(f"the budget is in {currency}, and the prices are in {plan.currency}; write both in one currency")
    rates: dict[str, Fraction] = {}
    fixed = Fraction(0)
    for price in plan.prices:
        if not price.unit.counted and price.period is None:
            fixed += price.amount * price.times
        elif price.unit.operand and not price.above and price.upto is None:
            rates[price.unit.operand] = rates.get(price.unit.operand, Fraction(0)) + price.amount / price.unit.size
        else:
            raise PolicyError(f"{_unbounded(price)} cannot be kept within a budget; price records, megabytes or calls from the first on")
    return _whole(policy, operand, plan, rates, fixed)


def _whole(policy: Policy, operand: str, plan: Plan, rates: dict[str, Fraction], fixed: Fraction) -> Pricing:
    scale = lcm(fixed.denominator, *(rate.denominator for rate in rates.values()))
    bounds = [Fraction(cut[0]) for (_, named), found in cuts(policy).items() if named == operand for cut in found]
    if any(abs(bound) * scale >= SUBUNITS_MAX for bound in bounds) or fixed * scale >= SUBUNITS_MAX:
        raise PolicyError(
            f"at these prices the budget is too large to be counted exactly; write a smaller one, or rounder prices in {plan.currency}"
        )
    if any(0 <= bound < fixed for bound in bounds):
        raise PolicyError("the budget is less than what is paid once, so it permits nothing; write more of it")
    return Pricing(scale, int(fixed * scale), tuple((name, int(rate * scale)) for name, rate in sorted(rates.items()) if rate))


def _unbounded(price: Price) -> str:
    if price.period is not None:
        return f"a price by the period (`{price.path}`)"
    return f"a price for a band of units (`{price.path}`)" if price.unit.operand else f"a price by the minute (`{price.path}`)"
