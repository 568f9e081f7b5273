"""The price plan of an agreement, read from its policy: every duty that is a price, or what in it is not understood. Pure.

A price is a duty to `odrl:compensate` whose action is refined by `odrl:payAmount` eq (in a currency, its `odrl:unit`) and
`odrl:unitOfCount` eq: so much for each unit (ODRL 2.2, vocabulary). `odrl:count` beside them is, of what is metered, the band of units that
the price is for (`gt 1000`: from the 1001st on, so that the first thousand are free if nothing else is said of them), and of persons and
subscriptions how many were agreed on. `billingPeriod` says that these are paid for each period that has begun since the signing; without
it they are paid once. A payment without `unitOfCount` is no price but a duty like any other. All prices of an agreement are added up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from fractions import Fraction
from math import ceil, floor
from typing import Final

from msgspec import Struct, field

from connector.errors import PolicyError
from connector.metering_bills.currencies import currency_of
from connector.metering_bills.prices import HEALTH, QIAO, UNITS, Plan, Price, Unit
from connector.odrl import values
from connector.odrl.codes import Code, Finding
from connector.odrl.duties import COMPENSATE, signed
from connector.odrl.model import Constraint, Cut, Event, Lapse, Node, Policy, Rule, Span, Window, conjuncts, leaves
from connector.odrl.operands import COUNT, PAY_AMOUNT, TIMES, UNIT_OF_COUNT, is_use
from connector.odrl.vocabulary import compact

BILLING_PERIOD: Final = QIAO + "billingPeriod"
PLACES_MAX, DIGITS_MAX = 12, 24  # decimal places and digits of a price: enough for a byte's, and sums stay short
PERIOD_MIN_MICROSECONDS = values.DAY
PRICES_MAX = 32  # of an agreement


class _Reading(Struct):
    """What was found of one duty, and what is wrong with it."""

    duty: Rule
    findings: list[Finding]
    parts: dict[str, Constraint] = field(default_factory=dict)

    def note(self, path: str, message: str, fix: str, code: Code = Code.TERM_UNSUPPORTED) -> None:
        self.findings.append(Finding(code, path, message, fix))


def plan_of(policy: Policy) -> Plan | None:
    """The price plan of a policy: of its permissions, if all of them have the same, or of its obligations; None if nothing has a price.

    Raises PolicyError whose findings name every price that is not understood, with its pointer, and how to mend it.
    """
    if "prices" not in policy.memo:
        policy.memo["prices"] = _read(policy)
    found: Plan | PolicyError | None = policy.memo["prices"]
    if isinstance(found, PolicyError):
        raise PolicyError(found.message, found.findings)
    return found


def terms_of(policy: Policy) -> frozenset[object] | None:
    """All that the prices of a policy say, whatever else it says: equal for equal prices, by the same payers to the same parties. None if
    they are not understood."""
    try:
        plan_of(policy)
    except PolicyError:
        return None
    found: frozenset[object] = policy.memo[terms_of]
    return found


def pays(policy: Policy, duty: Rule, event: Event) -> bool | None:
    """Whether an act pays a price of the policy, None for a duty that is none. What is paid once is paid in full; of what is metered any
    payment is one, since what is owed is for the bill to say."""
    try:
        plan = plan_of(policy)
    except PolicyError:
        return None
    price: Price | None = policy.memo[pays].get(duty.path)
    if plan is None or price is None:
        return None
    paid = sum((Fraction(amount) for key, amount in event.amounts.items() if _is_in(plan.currency, key)), Fraction(0))
    enough = paid > 0 if price.unit.counted else paid >= price.amount * price.times
    return COMPENSATE in policy.registry.action_within(event.action) and (enough or not price.amount)


def _is_in(currency: str, key: str) -> bool:
    operand, _, unit = key.partition(" ")
    try:
        return operand == PAY_AMOUNT and currency_of(unit) == currency
    except PolicyError:
        return False


def _read(policy: Policy) -> Plan | PolicyError | None:
    findings: list[Finding] = []
    general = list(_prices(policy.obligations, findings))
    sets = [list(_prices(rule.duties, findings)) for rule in policy.permissions]
    told = [{_terms(*each) for each in found} for found in sets]
    policy.memo[terms_of] = frozenset(Counter(_terms(*each) for each in (*general, *(sets[0] if sets else ()))).items())
    policy.memo[pays] = {price.path: price for one in (general, *sets) for _, _, price in one}
    if any(each != told[0] for each in told[1:]):
        path = next(rule.path for rule, each in zip(policy.permissions, told, strict=True) if each != told[0])
        message = "its prices are not those of the other permissions, and what is metered does not say under which it was used"
        fix = "write the same prices under each permission, or all of them once as an `obligation` of the policy"
        findings.append(Finding(Code.CONFLICTING_TERMS, path, message, fix))
    found = [*general, *(sets[0] if sets else ())]
    for _, currency, price in found[1:]:
        if currency != found[0][1]:
            message = f"it is in {currency}, others are in {found[0][1]}: the prices of an agreement are added up"
            findings.append(Finding(Code.UNIT_MISMATCH, price.path, message, f"write it in {found[0][1]}"))
    if len(found) > PRICES_MAX:
        findings.append(Finding(Code.LIMIT_EXCEEDED, found[PRICES_MAX][2].path, f"there are more than {PRICES_MAX} prices", "write fewer"))
    if findings:
        more = f", and {len(findings) - 1} more" if len(findings) > 1 else ""
        return PolicyError(f"the prices are not understood: {findings[0]}{more}", tuple(findings))
    return Plan(found[0][1], tuple(price for _, _, price in found), signed(policy)) if found else None


def _terms(duty: Rule, currency: str, price: Price) -> tuple[object, ...]:
    payer = tuple(scope.id for scope in duty.assignees)
    return currency, price.unit, price.amount, price.above, price.upto, price.times, price.period, payer, duty.functions


def _prices(duties: Iterable[Rule], findings: list[Finding]) -> Iterator[tuple[Rule, str, Price]]:
    """The duties that are prices, as far as they are understood."""
    for duty in duties:
        if any(action.iri == COMPENSATE for action in duty.actions) and any(
            isinstance(leaf, Constraint) and leaf.operand == UNIT_OF_COUNT for leaf in leaves(duty.refinements)
        ):
            reading = _Reading(duty, [])
            found = _price(reading)
            findings += reading.findings
            if found is not None and not reading.findings:
                yield duty, *found


def _price(reading: _Reading) -> tuple[str, Price] | None:
    duty = reading.duty
    if len(duty.actions) != 1 or any(scope.refinements or scope.collection for scope in (*duty.targets, *duty.assignees)):
        reading.note(duty.path, "a price is one action, for all that is used", "leave other actions and choices of targets and parties out")
        return None
    for node in duty.constraints:
        _demand_terms_of_payment(node, reading)
    for node in conjuncts(duty.actions[0].refinements):
        _part(node, reading)
    parts = reading.parts
    for operand in (PAY_AMOUNT, UNIT_OF_COUNT):
        if operand not in parts:
            fix = f"refine the action by `{compact(operand)}` eq ..."
            reading.note(duty.path, f"a price without `{compact(operand)}` says nothing", fix, Code.MALFORMED)
            return None
    unit = UNITS.get(parts[UNIT_OF_COUNT].expected[0]) or HEALTH.get(parts[UNIT_OF_COUNT].expected[0])
    if unit is None:
        named = ", ".join(f"`{each}`" for each in UNITS)
        path = f"{parts[UNIT_OF_COUNT].path}/rightOperand"
        reading.note(path, "nobody here counts this", f"use one of {named}", Code.UNIT_MISMATCH)
        return None
    if not reading.findings and unit.counted and duty.kind == "duty" and duty.when != "post":
        message = f"{unit.name}s are paid for before any of them is used, so none ever is"
        reading.note(duty.path, message, "add the constraint `odrl:event` gt `odrl:policyUsage`", Code.UNSATISFIABLE)
    currency, amount = _amount(parts[PAY_AMOUNT], reading)
    number, period = parts.get(COUNT), parts.get(BILLING_PERIOD)
    if unit.counted:
        if period is not None:
            message = f"{unit.name}s are paid for as they are used, whatever the period"
            reading.note(period.path, message, "leave the period out, or give it to a subscription", Code.CONFLICTING_TERMS)
        above, upto = _band(number, unit, reading)
        return currency, Price(duty.path, unit, amount, above, upto)
    times = _times(number, unit, reading)
    return currency, Price(duty.path, unit, amount, times=times, period=_period(period, reading))


def _demand_terms_of_payment(node: Node, reading: _Reading) -> None:
    """By when it is to be paid does not change the price; whatever else is a condition would."""
    for leaf in conjuncts((node,)):
        if isinstance(leaf, Constraint):
            if is_use(leaf) and leaf.operator in ("gt", "gteq"):
                continue
            if leaf.operand in TIMES and isinstance(leaf.test, Window | Lapse) and leaf.test.start is None and not leaf.test.negated:
                continue
        path = leaf.path
        fix = "leave it out: of conditions a price has the latest time of payment, and that it follows `odrl:policyUsage`"
        reading.note(path, "whether the price is owed would depend on it, and nobody could say the price", fix)


def _part(node: Node, reading: _Reading) -> None:
    known = (PAY_AMOUNT, UNIT_OF_COUNT, COUNT, BILLING_PERIOD)
    if not isinstance(node, Constraint) or node.operand not in known:
        reading.note(node.path, "it is no part of a price", f"use {', '.join(f'`{compact(each)}`' for each in known)}")
        return
    if node.operand == COUNT and node.operand in reading.parts:
        node = _narrowed(reading.parts[COUNT], node)
    elif node.operand in reading.parts:
        reading.note(node.path, f"there is another `{compact(node.operand)}`", "write one", Code.CONFLICTING_TERMS)
    if node.operator != "eq" and node.operand != COUNT:
        fix = "write `eq`: a price is one number for one unit"
        reading.note(f"{node.path}/operator", f"`{node.operator}` leaves the price open", fix, Code.OPERATOR_UNSUPPORTED)
    reading.parts[node.operand] = node


def _narrowed(one: Constraint, other: Constraint) -> Constraint:
    """Two bounds of a band, as one constraint."""
    if not isinstance(one.test, Window) or not isinstance(other.test, Window) or one.test.negated or other.test.negated:
        return other
    starts = [cut for cut in (one.test.start, other.test.start) if cut is not None]
    ends = [cut for cut in (one.test.end, other.test.end) if cut is not None]
    window = Window(max(starts, default=None), min(ends, default=None))
    return Constraint(other.path, other.operand, "within", other.expected, window, other.judge, other.unit)


def _amount(part: Constraint, reading: _Reading) -> tuple[str, Fraction]:
    try:
        currency = currency_of(part.unit)
    except PolicyError as error:
        path = f"{part.path}/odrl:unit" if part.unit else part.path
        message, _, fix = error.message.partition("; ")
        reading.note(
            path, message if part.unit else "a price is in a currency", fix.replace("write it", "write `odrl:unit`"), Code.UNIT_MISMATCH
        )
        currency = ""
    amount = Fraction(values.number(part.expected[0])[0])
    if amount < 0 or (amount * 10**PLACES_MAX).denominator != 1 or amount.numerator >= 10**DIGITS_MAX:
        message = f"a price is not negative, and has at most {PLACES_MAX} decimal places and {DIGITS_MAX} digits"
        reading.note(f"{part.path}/rightOperand", message, "write it for more or fewer units", Code.TYPE_MISMATCH)
    return currency, amount


def _band(part: Constraint | None, unit: Unit, reading: _Reading) -> tuple[int, int | None]:
    if part is None:
        return 0, None
    if not isinstance(part.test, Window) or part.test.negated or part.operator == "eq":
        fix = "write `gt` and `lteq`: above so many, and up to so many"
        reading.note(f"{part.path}/operator", "a price is for a band of units", fix, Code.OPERATOR_UNSUPPORTED)
        return 0, None

    def edge(cut: Cut) -> int:
        """The last unit before a cut, in what the unit counts: of what is whole, `gteq 5` and `lt 5` leave the fifth behind it."""
        place = cut[0] * unit.size
        return max(0, floor(place) if cut[1] or unit.size > 1 else ceil(place) - 1)

    above = 0 if part.test.start is None else edge(part.test.start)
    upto = None if part.test.end is None else edge(part.test.end)
    if upto is not None and upto <= above:
        reading.note(part.path, "no unit lies in the band", "write the smaller bound first", Code.UNSATISFIABLE)
    return above, upto


def _times(part: Constraint | None, unit: Unit, reading: _Reading) -> int:
    if part is None:
        if unit.name == "person":
            fix = "say how many are agreed on, by `odrl:count` eq, or price records"
            reading.note(reading.duty.path, "persons are not counted by this connector", fix, Code.OPERAND_UNSUPPORTED)
        return 1
    number = values.number(part.expected[0])[0]
    if part.operator != "eq" or not isinstance(number, int) or not 0 < number < 10**PLACES_MAX:
        reading.note(
            part.path, f"the number of {unit.name}s is one whole number", "write `odrl:count` eq, and the number", Code.TYPE_MISMATCH
        )
        return 1
    return number


def _period(part: Constraint | None, reading: _Reading) -> Span | None:
    if part is None:
        return None
    span, text = values.length(part.expected[0])
    if values.bounds(span)[0] < PERIOD_MIN_MICROSECONDS:
        reading.note(f"{part.path}/rightOperand", f"`{text}` is shorter than a day", "write `P1D`, `P1M`, `P1Y` or so", Code.TYPE_MISMATCH)
        return None
    return span
