"""What this connector measures of a policy, and what was used up of it: uses, bytes, records, time, and money where there are prices."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from connector.control_billing.affording import Extent, price_of
from connector.errors import PolicyError
from connector.metering_bills.budgets import demand_priced, is_budget, tallies
from connector.metering_bills.currencies import currency_of, exactly
from connector.metering_bills.plans import plan_of
from connector.metering_bills.prices import Price
from connector.odrl.codes import Code, Finding
from connector.odrl.counters import Tally, counting, quotas
from connector.odrl.model import Constraint, Number, Options, Policy, fact_key
from connector.odrl.operands import BYTE_COUNT, COUNT, DELAY_PERIOD, ELAPSED_TIME, METERED_TIME, PERCENTAGE, RECORD_COUNT, TIME_INTERVAL
from connector.odrl.vocabulary import compact
from connector.ports import counts_records
from connector.ports.live import unit_of
from connector.records import Usage
from connector.values import replace

Used = Mapping[str | tuple[str, str], Number]  # as `World.used`
MEASURED: Final = frozenset({COUNT, BYTE_COUNT, RECORD_COUNT, METERED_TIME})
DATED: Final = frozenset({ELAPSED_TIME, DELAY_PERIOD})  # they run from the signing, which an agreement shows
LINES_ONLY: Final = "records are counted in line-delimited JSON and in streams of events only"

SIGNED_ONLY: Final = "records have a signed count in line-delimited JSON and in streams of events only"
UNEVEN: Final = "the events of this file cannot be counted piece by piece, so nobody could say what is owed: one of them has no `data`, or does not end with one empty line"  # noqa: E501
EVENED: Final = (
    "end each event with LF LF, the last one too, and each line with LF alone; leave comments out; or give a price for a megabyte"
)


def measured(media_type: str) -> frozenset[str]:
    """The left operands that this connector counts where data of this media type leaves it. Records are counted where one is a line or an
    event."""
    return MEASURED if unit_of(media_type) != "none" else MEASURED - {RECORD_COUNT}


def measuring(policy: Policy, options: Options) -> Options:
    """Options by which the budgets of a policy are measured too, where its prices say what they come to. Those that say of nobody what he
    measures stay as they are."""
    able = options.measured
    if able is None or not (budgets := [tally.operand for tally in tallies(policy) if tally.pricing is not None]):
        return options
    return replace(options, measured=able.union(budgets))


def demand_measured(policy: Policy, media_type: str, *, counted: bool) -> None:
    """Raise PolicyError for a policy that counts or prices what nobody here can measure of data of this type: by its counts it would permit
    nothing, and by its prices nobody could say what is owed. Events have a signed count where the data are `counted`: live ones are, and
    files of which each event has data and ends as the next one begins."""
    able = measured(media_type)
    plan = plan_of(policy)
    unable = dict.fromkeys(tally.operand for tally in tallies(policy) if tally.operand not in able and tally.pricing is None)
    findings = [_unmeasured(policy, each) for operand in (*unable, TIME_INTERVAL) for each in counting(policy, operand)]
    if plan is not None and not (counts_records(media_type) or (counted and RECORD_COUNT in able)):
        findings += [_uncounted(price, media_type) for price in plan.prices if price.unit.operand == RECORD_COUNT]
    if findings:
        raise PolicyError("the policy counts what this connector does not measure", tuple(findings))


def unused(policy: Policy) -> Used:
    """`used` as the side that does not count has it: as if nothing had been used, of all that a connector can measure."""
    found: dict[str | tuple[str, str], Number] = {}
    for tally in tallies(policy):
        if tally.pricing is not None:
            found[tally.rule, tally.operand] = tally.pricing.worth(0)
        elif tally.operand in MEASURED:
            found[tally.rule, tally.operand] = 0
    return found


def used_of(usage: Usage, found: tuple[Tally, ...], counted: Collection[str], media_type: str, more: bool, *, paid: bool = False) -> Used:
    """What was used up, for a decision about using `more`, or about what was used so far. Uses count from the moment they are reserved,
    and those under the rules `counted` once less: they are the transfer's own. Bytes, records, time and money count when they are posted,
    as more of them has to be reserved anyway. A transfer that has `paid` need not pay more: what it has paid for is sent again for nothing.
    What nobody here measures is not known, which denies."""
    able, used = measured(media_type), dict[str | tuple[str, str], Number]()
    for tally in found:
        rule, operand = tally.rule, tally.operand
        spent = usage.spent(rule, operand)
        if tally.pricing is not None:
            used[rule, operand] = tally.pricing.worth(spent + (tally.least if more and not paid else 0))
            continue
        if operand not in able:
            continue
        if operand == COUNT:
            spent += usage.reserved(rule, operand) - (rule in counted)
        elif operand == METERED_TIME:  # the engine adds one to what is counted in whole units, and nothing to time
            spent += more
        elif not more:
            spent = max(0, spent - 1)
        used[rule, operand] = spent
    return used


def counters(policy: Policy, usage: Usage) -> list[dict[str, Any]]:
    """What is counted under the policy, as it stands, in plain JSON: `limit` is the largest total, if one is certain. Money is decimal text
    in its `currency`, with what is paid once in it."""
    limits = {(quota.rule, fact_key(quota.operand, quota.unit)): quota for quota in quotas(policy)}
    found = []
    for tally in tallies(policy):
        used, reserved = usage.spent(tally.rule, tally.operand), usage.reserved(tally.rule, tally.operand)
        said: dict[str, Any] = {"rule": tally.rule, "operand": tally.operand, "used": used, "reserved": reserved}
        quota = limits.get((tally.rule, tally.operand))
        if tally.pricing is None:
            found.append(said | {"limit": quota.most if quota else None})
            continue
        operand, _, unit = tally.operand.partition(" ")
        currency, worth = currency_of(unit), tally.pricing.worth
        money = {"used": exactly(worth(used), currency), "reserved": exactly(worth(reserved) - worth(0), currency)}
        limit = exactly(quota.limit, currency) if quota else None
        found.append(said | {"operand": operand} | money | {"limit": limit, "currency": currency})
    return found


def used_up(policy: Policy, usage: Usage, extent: Extent | None = None) -> tuple[str, ...]:
    """The left operands of which nothing more is to be had under a permission of the policy, what is reserved counted as used. A budget
    that does not pay for all of the data, where their `extent` is known, lets no transfer of them start."""
    limits = {(quota.rule, fact_key(quota.operand, quota.unit)): quota.most for quota in quotas(policy)}
    full = []
    for tally in tallies(policy):
        if (most := limits.get((tally.rule, tally.operand))) is None:
            continue
        if tally.pricing is not None:
            most = max(tally.marks, default=-1)
        all_of_it = (price_of(tally.pricing, extent) or 0) if tally.pricing is not None and extent is not None else 0
        if most - usage.spent(tally.rule, tally.operand) - usage.reserved(tally.rule, tally.operand) < max(tally.least, all_of_it, 1):
            full.append(tally.operand.partition(" ")[0])
    return tuple(dict.fromkeys(full))


def _unmeasured(policy: Policy, at: Constraint) -> Finding:
    message, fix = f"`{compact(at.operand)}` is not measured here", ""
    if is_budget(at.operand):
        try:
            demand_priced(policy, at.fact)
        except PolicyError as error:
            why, _, fix = error.message.rpartition("; ")
            message += f": {why}"
    elif at.operand == PERCENTAGE:
        message += ": no policy says of what it is a share, the bytes of the asset, its records or its time, and what goes on has no whole"
        fix = f"write the amount that is meant: {', '.join(f'`{compact(each)}`' for each in (BYTE_COUNT, RECORD_COUNT))}"
    elif at.operand == TIME_INTERVAL:
        message += ": uses are counted, and nobody keeps when the last one was"
        fix = f"write the windows as `odrl:dateTime`, or how many uses there may be as `{compact(COUNT)}`"
    elif at.operand == RECORD_COUNT:
        message, fix = LINES_ONLY, "publish the data as `application/x-ndjson`, or count bytes"
    elif at.unit:
        message, fix = f"`{compact(at.operand)}` is not counted in `{at.unit}`", "leave it out: uses, bytes, records and time have a unit"
    else:
        fix = f"use what is: {', '.join(f'`{compact(each)}`' for each in sorted(MEASURED))}"
    return Finding(Code.OPERAND_UNSUPPORTED, f"{at.path}/leftOperand", message, fix)


def _uncounted(price: Price, media_type: str) -> Finding:
    if unit_of(media_type) == "message":
        return Finding(Code.OPERAND_UNSUPPORTED, price.path, UNEVEN, EVENED)
    fix = "publish the data as `application/x-ndjson`, or give a price for a megabyte"
    return Finding(Code.OPERAND_UNSUPPORTED, price.path, f"{SIGNED_ONLY}, so nobody could say what is owed", fix)
