"""What is known when a request is judged: the clock, the party, what was declared, what was used up, how long ago.

What nobody says is not among the facts, and no constraint on it holds (odrl.md 1.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Final

from connector.errors import PolicyError
from connector.odrl import values
from connector.odrl.duties import exercises, signed
from connector.odrl.model import DEFAULT_OPTIONS, NEVER, Fact, Facts, Number, Options, Policy, Request, Since, World, fact_key
from connector.odrl.operands import DATE_TIME, DELAY_PERIOD, ELAPSED_TIME, PARTICIPANT, PAY_AMOUNT, POLICY_USAGE, TIME_INTERVAL
from connector.odrl.registry import Operand
from connector.odrl.vocabulary import compact

ATOMS_MAX: Final = 16  # acts in one request; who names more purposes than this states none, and each is judged by itself


def gather(policy: Policy, request: Request, world: World, now: int | None, options: Options = DEFAULT_OPTIONS) -> tuple[Facts, ...]:
    """What is known, one mapping for each act of the request; () if there are more than ATOMS_MAX."""
    known: dict[str, Fact] = {}
    if now is not None:
        known[DATE_TIME] = now
    measures, usage = _asked(policy)
    for operand, unit, key in measures:
        fact = _measured(operand, unit, key, policy, request, world, now, options)
        if fact is not None:
            known[key] = fact
    several = []
    for iri, spellings, declared in usage:
        found: dict[str | None, None] = {}
        if declared:
            _read(spellings, request.params, found)
        _read(spellings, world.facts, found)
        if len(found) > 1:
            several.append((iri, found))
        elif found and (of := next(iter(found))) is not None:
            known[iri] = of
    atoms = [known]
    for iri, found in several:
        if len(atoms) * len(found) > ATOMS_MAX:
            return ()
        atoms = [atom if of is None else {**atom, iri: of} for atom in atoms for of in found]
    return tuple(atoms)


def _measured(
    operand: Operand, unit: str, key: str, policy: Policy, request: Request, world: World, now: int | None, options: Options
) -> Fact | None:
    iri = operand.iri
    if iri == PARTICIPANT:
        return frozenset({request.party}) if request.party else None
    if operand.kind in ("subject", "declarative"):
        told: dict[str | None, None] = {}
        for source in _told(operand, request, world):
            told |= stated(iri, source)
        return frozenset(value for value in told if value is not None) if told and None not in told else None
    if operand.values == "event":
        return "during" if unit == POLICY_USAGE else _one(stated(key, world.facts))
    if operand.kind == "counter":
        return _counted(operand, key, policy, world)
    if operand.values == "duration" and now is not None and (since := _since(iri, policy, world, now, options)) is not None:
        return lasting(operand, since)
    return _quantity(operand, unit, request, world)


def _told(operand: Operand, request: Request, world: World) -> tuple[Mapping[str, tuple[object, ...]], ...]:
    """Who may state a fact, whatever its kind: what a credential, an identity, a log, a meter or the contract has to show, nobody gets by
    declaring it."""
    return (request.params, world.facts) if operand.source == "declared" else (world.facts,)


_Asked = tuple[tuple[tuple[Operand, str, str], ...], tuple[tuple[str, tuple[str, str], bool], ...]]


def _asked(policy: Policy) -> _Asked:
    """What a policy asks for: of what is measured the operand, its unit and the key of its fact, of what an act does the operand, in full
    and in short, and whether the requester may declare it."""
    known: _Asked | None = policy.memo.get(_asked)
    if known is None:
        operands = policy.registry.operands
        measures = tuple((operands[iri], unit, fact_key(iri, unit)) for iri, unit in policy.measures)
        usage = tuple((iri, (iri, compact(iri)), operands[iri].source == "declared") for iri in policy.usage)
        known = policy.memo[_asked] = (measures, usage)
    return known


def _counted(operand: Operand, key: str, policy: Policy, world: World) -> Number | None:
    """What a counter would stand at with this use: what was used up before, else the sum over the log. No claim says it: a party whose
    credential states a low count has not used less."""
    if (used := world.used.get(key)) is not None:
        return with_this_use(operand, used)
    if world.log is None:
        return None
    if operand.step and operand.iri.endswith("/count"):
        return with_this_use(operand, sum(event.amounts.get(key, 1) for event in exercises(policy, world)))
    told = [event.amounts[key] for event in world.log if key in event.amounts]
    if not told and operand.iri != PAY_AMOUNT and exercises(policy, world):
        return None  # uses of which no size is told are of unknown size; where no payment is told, there was none
    return with_this_use(operand, sum(told))


def _since(iri: str, policy: Policy, world: World, now: int, options: Options) -> Fact | None:
    """The duration that runs up to now: from the anchor that the world names, from the last use (`timeInterval`), from the signing of the
    agreement or from the first use, as the options have it."""
    anchor = world.anchors.get(iri)
    if anchor is not None:
        at = values.microseconds(anchor)
        return None if at is None else Since(at, now)
    if iri in (ELAPSED_TIME, DELAY_PERIOD) and options.recurrence_anchor == "agreement" and (at := signed(policy)) is not None:
        return Since(at, now)
    if world.log is None or iri not in (ELAPSED_TIME, DELAY_PERIOD, TIME_INTERVAL):
        return None
    uses = [values.microseconds(event.at) for event in exercises(policy, world)]
    known = [at for at in uses if at is not None]
    if len(known) < len(uses):
        return None  # a use at nobody knows what time may have been the first, or the last
    if not known:
        return NEVER if iri == TIME_INTERVAL else 0  # this use is the first, whenever it is
    return Since(max(known) if iri == TIME_INTERVAL else min(known), now)


def with_this_use(operand: Operand | None, number: Number) -> Number:
    """What a counter would stand at with one more use (odrl.md 1.7): `lteq 10` lets ten uses through and not eleven. A float or decimal,
    which no caller should give, counts as what it is exactly; raises ValueError or OverflowError for one that is no number."""
    exact = Fraction(number) if isinstance(number, (float, Decimal)) else number
    return exact + (operand.step if operand else 0)


def lasting(operand: Operand, duration: Fact) -> Fact:
    """A duration that is no shorter than a use is under these options."""
    if not operand.step:
        return duration
    if isinstance(duration, Since):
        return Since(duration.anchor, max(duration.now, duration.anchor + int(operand.step)))
    return max(duration, int(operand.step)) if isinstance(duration, int) else duration


def _quantity(operand: Operand, unit: str, request: Request, world: World) -> Fact | None:
    """The one number or duration that is stated in this unit."""
    found: set[Fact] = set()
    names = [operand.iri, compact(operand.iri), *([unit] if unit else [])]
    for source in _told(operand, request, world):
        for name in names:
            for raw in listed(source.get(name)):
                of = raw.get("unit", "") if isinstance(raw, Mapping) else ""
                if unit not in (name, of):
                    continue
                value = {k: v for k, v in raw.items() if k != "unit"} if isinstance(raw, Mapping) else raw
                try:
                    found.add(values.number(value)[0] if operand.values == "number" else lasting(operand, values.exact(value)))
                except PolicyError:
                    return None
    return found.pop() if len(found) == 1 else None


def listed(given: object) -> Sequence[object]:
    """What is stated for an operand, one value or several, as a sequence."""
    if given is None:
        return ()
    if isinstance(given, tuple):
        return given
    return tuple(given) if isinstance(given, list | set | frozenset) else (given,)


def _one(found: dict[str | None, None]) -> Fact | None:
    return next(iter(found)) if len(found) == 1 else None


def stated(operand: str, source: Mapping[str, object]) -> dict[str | None, None]:
    """The values that a mapping states for an operand, in order; None stands for those that cannot be read, and counts as not known."""
    found: dict[str | None, None] = {}
    _read((operand, compact(operand)), source, found)
    return found


def _read(spellings: tuple[str, str], source: Mapping[str, object], found: dict[str | None, None]) -> None:
    for spelling in spellings:
        given = source.get(spelling)
        for raw in given if type(given) is tuple else listed(given):
            if type(raw) is str and raw:
                found[raw] = None  # as `values.term` has it; nearly every value is one
                continue
            try:
                found[values.term(raw)] = None
            except PolicyError:
                found[None] = None
