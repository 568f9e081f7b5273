"""What a policy lets be used up: the counters that its rules look at, the quotas that they set, and a counter that never goes over.

`count op n` judges the uses so far and this one (odrl.md 1.7): `lteq 10` are ten uses, `lt 10` nine. So every bound is told as the largest
total that it leaves open, in whole numbers of the operand's own unit: uses, bytes, records, microseconds of metered time.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import ceil, floor
from typing import NamedTuple

from connector.odrl.judge import Case, granted, matching
from connector.odrl.model import TRUE, Constraint, Cut, Lapse, Node, Number, Policy, Rule, Window, conjuncts, leaves
from connector.odrl.values import bounds
from connector.values import Value, replace


class Quota(Value):
    """An upper bound that a permission sets for certain: beyond it the permission is not satisfied, whatever else holds.

    `rule` is the path of the permission, `path` that of the constraint; `operand` the left operand (full IRI), `limit` the bound in the
    operand's own unit (microseconds of a duration), `inclusive` whether the bound itself may be reached. `unit` is the IRI as written.
    """

    rule: str
    path: str
    operand: str
    limit: Number
    inclusive: bool
    unit: str = ""

    @property
    def most(self) -> int:
        """The largest whole total that it leaves open; negative if it leaves not even nothing."""
        return floor(self.limit) if self.inclusive else ceil(self.limit) - 1


class Pricing(NamedTuple):
    """How what is used up is paid for: `rates` say what one of each operand costs, `fixed` what is owed whatever is used, both in sub-units
    of which `scale` are one of the currency."""

    scale: int
    fixed: int
    rates: tuple[tuple[str, int], ...]

    @property
    def least(self) -> int:
        """What one use costs at the least: one of everything that is paid for."""
        return sum(rate for _, rate in self.rates)

    def rate(self, operand: str) -> int:
        """What one of an operand costs."""
        return next((rate for name, rate in self.rates if name == operand), 0)

    def worth(self, amount: int) -> Fraction:
        """What it comes to in the currency if so many sub-units were used up."""
        return Fraction(self.fixed + amount, self.scale)


class Tally(NamedTuple):
    """Something that has to be counted: the uses under `rule` (its path), in terms of `operand` (full IRI). `marks` are the totals, in
    order, beyond which a constraint on it may say something else: up to the next one a decision holds, and no further. What is counted is
    money if it has a `pricing`, in sub-units of it and beside what is fixed."""

    rule: str
    operand: str
    marks: tuple[int, ...]
    pricing: Pricing | None = None

    @property
    def least(self) -> int:
        """The least amount that is of use to anybody."""
        return self.pricing.least if self.pricing is not None else 1

    def beyond(self, spent: int) -> Tally:
        """The same with the marks that more can be used up to, after `spent`."""
        return self._replace(marks=tuple(mark for mark in self.marks if mark >= spent + max(self.least, 1)))


class Refusal(Value):
    """An amount that does not fit any more, and what is `left`."""

    amount: Number
    left: Number


class Counter(Value):
    """What is used up of a limit, and what is reserved before it is used. `used + reserved` never goes over.

    `inclusive` says whether the limit itself may be reached. Amounts are not negative; a ValueError is a defect of the caller.
    """

    limit: Number
    used: Number = 0
    reserved: Number = 0
    inclusive: bool = True

    @property
    def left(self) -> Number:
        """How far it is to the limit."""
        return self.limit - self.used - self.reserved

    def reserve(self, amount: Number) -> Counter | Refusal:
        """Set `amount` aside, or say that it does not fit."""
        _demand(amount >= 0, f"an amount is not negative: {amount}")
        if amount > self.left or (amount == self.left and not self.inclusive):
            return Refusal(amount, self.left)
        return replace(self, reserved=self.reserved + amount)

    def post(self, amount: Number, spent: Number | None = None) -> Counter:
        """Settle a reservation of `amount`: `spent` of it (all) was used, the rest was not."""
        spent = amount if spent is None else spent
        _demand(0 <= spent <= amount <= self.reserved, f"{spent} of {amount} cannot be posted, {self.reserved} are reserved")
        return replace(self, used=self.used + spent, reserved=self.reserved - amount)

    def void(self, amount: Number) -> Counter:
        """Settle a reservation of `amount` of which nothing was used."""
        return self.post(amount, 0)


def quotas(policy: Policy) -> tuple[Quota, ...]:
    """The quotas of a policy's permissions, one for each operand of each: the tightest of those that hold for certain.

    What stands in an `or` or `xone` is no quota of its own: whether the permission holds is for `evaluate` to say, by what was used.
    """
    found: dict[tuple[str, str], Quota] = {}
    for rule in policy.permissions:
        for constraint in conjuncts(rule.constraints):
            if not isinstance(constraint, Constraint) or not _counts(policy, constraint) or (bound := _upper(constraint)) is None:
                continue
            quota = Quota(rule.path, constraint.path, constraint.operand, *bound, constraint.unit)
            known = found.get((rule.path, constraint.fact))
            if known is None or (quota.limit, quota.inclusive) < (known.limit, known.inclusive):
                found[rule.path, constraint.fact] = quota
    return tuple(found.values())


def tallies(policy: Policy) -> tuple[Tally, ...]:
    """Everything that has to be counted to judge a policy's permissions and prohibitions; () for most policies.

    The operand of a constraint with a `unit` has that unit behind it (`Constraint.fact`): bytes and kilobytes are not counted together.
    """
    known: tuple[Tally, ...] | None = policy.memo.get(tallies)
    if known is None:
        known = policy.memo[tallies] = _tallies(policy)
    return known


def _tallies(policy: Policy) -> tuple[Tally, ...]:
    return tuple(
        Tally(rule, operand, tuple(sorted({mark for cut in found if (mark := last_before(cut)) >= 0})))
        for (rule, operand), found in cuts(policy).items()
    )


def cuts(policy: Policy) -> dict[tuple[str, str], list[Cut]]:
    """The places at which a test on what has to be counted may turn, by the rule (its path) and the operand of a tally."""
    operands = policy.registry.operands
    if not any(operands[iri].kind == "counter" for iri, _ in policy.measures if iri in operands):
        return {}
    found: dict[tuple[str, str], list[Cut]] = {}
    for rule in (*policy.permissions, *policy.prohibitions):
        for constraint in _leaves(rule.constraints):
            if _counts(policy, constraint):
                found.setdefault((rule.path, constraint.fact), []).extend(_cuts(constraint))
        for refinement in _leaves(rule.refinements):
            if (key := (rule.path, refinement.fact)) in found:  # it is judged by the number that a constraint has counted
                found[key].extend(_cuts(refinement))
    return found


def last_before(cut: Cut, scale: int = 1) -> int:
    """The largest whole total before a place at which a test may turn; negative if it was never open. `scale` wholes are one of the
    operand's unit."""
    return floor(cut[0] * scale) if cut[1] else ceil(cut[0] * scale) - 1


def charged(case: Case) -> tuple[str, ...]:
    """The rules (paths) under which a use that is permitted counts: each permission that grants an act of the request, and each
    prohibition that speaks about it. An exercise of an action counts wherever it is one, not only where it was allowed."""
    policy, request, world = case.policy, case.request, case.world
    permissions = matching(policy, policy.permissions, request, world)
    grants = [each.rule.path for each in permissions if any(granted(case, each, facts) == TRUE for facts in case.atoms)]
    return (*grants, *(each.rule.path for each in matching(policy, policy.prohibitions, request, world)))


def counting(policy: Policy, operand: str) -> Iterator[Constraint]:
    """The constraints of permissions and prohibitions that look at what `tallies` calls `operand`."""
    rules: tuple[Rule, ...] = (*policy.permissions, *policy.prohibitions)
    return (each for rule in rules for each in _leaves(rule.constraints) if each.fact == operand)


def _counts(policy: Policy, constraint: Constraint) -> bool:
    known = policy.registry.operands.get(constraint.operand)
    return known is not None and known.kind == "counter"


def _leaves(nodes: tuple[Node, ...]) -> Iterator[Constraint]:
    return (leaf for leaf in leaves(nodes) if isinstance(leaf, Constraint))


def _upper(constraint: Constraint) -> tuple[Number, bool] | None:
    """The bound that a constraint sets from above, and whether it may be reached. A month counts as short as one can be."""
    match constraint.test:
        case Window(end=(value, side), negated=False):
            return value, side == 1
        case Lapse(end=end, end_in=inclusive, negated=False) if end is not None:
            return bounds(end)[0], inclusive
    return None


def _cuts(constraint: Constraint) -> Iterator[Cut]:
    match constraint.test:
        case Window(start, end):
            yield from (cut for cut in (start, end) if cut is not None)
        case Lapse(start, end, start_in, end_in):
            if start is not None:
                yield from ((value, int(not start_in)) for value in bounds(start))
            if end is not None:
                yield from ((value, int(end_in)) for value in bounds(end))


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
