"""The judgement itself: which rules speak about a request, what is known about it, and what follows in Kleene's logic.

A request with several values of a usage operand is several acts ("atoms"): it is permitted only if each of them is, and a prohibition that
bites one of them bites the request. Otherwise "research is permitted" would let a request for research and marketing through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from connector.errors import PolicyError
from connector.odrl import values
from connector.odrl.codes import Stage
from connector.odrl.core import DATE_TIME, PARTICIPANT, POLICY_USAGE, TIME_INTERVAL
from connector.odrl.duties import blocking
from connector.odrl.judges import all_of, any_of
from connector.odrl.model import (
    FALSE,
    TRUE,
    UNKNOWN,
    Event,
    Fact,
    Facts,
    Judge,
    Node,
    Number,
    Options,
    Policy,
    Request,
    Rule,
    Scope,
    Since,
    Span,
    World,
    fact_key,
)
from connector.odrl.registry import Operand
from connector.odrl.vocabulary import compact

ATOMS_MAX: Final = 16  # acts in one request; who names more purposes than this states none, and each is judged by itself


@dataclass(frozen=True, slots=True)
class Spoken:
    """A rule that speaks about a request, and the judge of its constraints together with the refinements of what it speaks about."""

    rule: Rule
    judge: Judge


@dataclass(frozen=True, slots=True)
class Case:
    """One policy, one request, and what was known when it was judged. `atoms` is empty if there were more than ATOMS_MAX."""

    policy: Policy
    request: Request
    world: World
    options: Options
    now: int | None
    atoms: tuple[Facts, ...]

    @property
    def enforcing(self) -> bool:
        """Whether a missing fact closes."""
        return self.request.stage != Stage.CATALOG

    @property
    def conflict(self) -> str:
        """Who wins: what the policy says, else what the options say."""
        return self.policy.conflict or self.options.conflict


def on_target(policy: Policy, rule: Rule, request: Request, world: World) -> bool:
    """Whether the rule is about what is requested. One without a target is about the dataset that it hangs on (DSP 2025-1, catalog)."""
    target = request.target
    if rule.targets:
        return target is not None and any(_is(scope, target, world) for scope in rule.targets)
    return policy.target is None or (target is not None and _is(Scope(policy.target), target, world))


def addresses(policy: Policy, rule: Rule, party: str, world: World) -> bool:
    """Whether the rule is for this party; its own assignees go before those of the policy."""
    if rule.assignees:
        return any(_is(scope, party, world) for scope in rule.assignees)
    return not policy.assignees or party in policy.assignees or not policy.assignees.isdisjoint(world.member_of.get(party, ()))


def covers(rule: Rule, within: frozenset[str]) -> bool:
    """Whether the rule is about an action, given with all that it is included in; one without an action is about any."""
    return not rule.actions or any(action.iri in within for action in rule.actions)


def matching(policy: Policy, rules: tuple[Rule, ...], request: Request, world: World) -> list[Spoken]:
    """The rules that speak about this action of this party on this target."""
    if not rules:
        return []
    within, party = policy.registry.action_within(request.action), request.party
    return [
        Spoken(rule, _whole_judge(rule, within, request, world))
        for rule in rules
        if covers(rule, within) and addresses(policy, rule, party, world) and on_target(policy, rule, request, world)
    ]


def _is(scope: Scope, thing: str, world: World) -> bool:
    return scope.id == thing or scope.id in world.member_of.get(thing, ())


def _whole_judge(rule: Rule, within: frozenset[str], request: Request, world: World) -> Judge:
    """Constraints, and of each part one alternative whose refinements hold."""
    ways: list[list[tuple[Node, ...]]] = [
        [action.refinements for action in rule.actions if action.iri in within],
        [scope.refinements for scope in rule.targets if request.target is not None and _is(scope, request.target, world)],
        [scope.refinements for scope in rule.assignees if _is(scope, request.party, world)],
    ]
    refined = [any_of([all_of([node.judge for node in way]) for way in part]) for part in ways if part and all(part)]
    return all_of([rule.judge, *refined]) if refined else rule.judge


def weigh(case: Case, permissions: Sequence[Spoken], prohibitions: Sequence[Spoken], atoms: Sequence[Facts], *, enforcing: bool) -> int:
    """TRUE to permit, FALSE to deny, UNKNOWN (never where it is enforced) if a missing fact decides."""
    worst = TRUE
    permit_wins = case.conflict == "permit"
    for facts in atoms:
        state = FALSE
        for spoken in permissions:
            state = max(state, granted(case, spoken, facts))
            if state == TRUE:
                break
        if prohibitions and not (permit_wins and state == TRUE):
            for spoken in prohibitions:
                state = min(state, TRUE - spoken.judge(facts_of(case, spoken.rule, facts)))
        if state == FALSE or (enforcing and state == UNKNOWN):
            return FALSE
        worst = min(worst, state)
    return worst


def granted(case: Case, spoken: Spoken, facts: Facts) -> int:
    """Whether a permission grants: its constraints hold and none of its duties stands in the way."""
    own = facts_of(case, spoken.rule, facts)
    state = spoken.judge(own)
    if state == FALSE or not spoken.rule.duties:
        return state
    return FALSE if blocking(case.policy, spoken.rule, case.world, case.now, own, case.options, case.request.stage) else state


def facts_of(case: Case, rule: Rule, facts: Facts) -> Facts:
    """The facts with what this rule alone has used up."""
    if not case.world.used or not case.policy.measures:
        return facts
    own = {
        key[1]: _used(case.policy.registry.operands.get(key[1].partition(" ")[0]), number)
        for key, number in case.world.used.items()
        if isinstance(key, tuple) and key[0] == rule.path
    }
    return {**facts, **own} if own else facts


def gather(policy: Policy, request: Request, world: World, now: int | None) -> tuple[Facts, ...]:
    """What is known, one mapping for each act of the request; () if there are more than ATOMS_MAX."""
    known: dict[str, Fact] = {}
    if now is not None:
        known[DATE_TIME] = now
    registry = policy.registry
    for iri, unit in policy.measures:
        fact = _measured(registry.operands[iri], unit, policy, request, world, now)
        if fact is not None:
            known[fact_key(iri, unit)] = fact
    if not policy.usage:
        return (known,)
    atoms = [known]
    for iri in policy.usage:
        found = stated(iri, request.params) | stated(iri, world.facts) or {None: None}
        if len(atoms) * len(found) > ATOMS_MAX:
            return ()
        atoms = [atom if of is None else {**atom, iri: of} for atom in atoms for of in found]
    return tuple(atoms)


def _measured(operand: Operand, unit: str, policy: Policy, request: Request, world: World, now: int | None) -> Fact | None:
    iri = operand.iri
    if iri == PARTICIPANT:
        return frozenset({request.party}) if request.party else None
    if operand.kind in ("subject", "declarative"):
        told = (*stated(iri, request.params), *stated(iri, world.facts))
        return frozenset(value for value in told if value is not None) if told and None not in told else None
    if operand.values == "event":
        return "during" if unit == POLICY_USAGE else _one(stated(fact_key(iri, unit), world.facts))
    key = fact_key(iri, unit)
    if operand.kind == "counter" and (used := world.used.get(key)) is not None:
        return _used(operand, used)
    if operand.kind == "counter" and world.log and operand.values == "number":
        exercised = _exercises(policy, world)
        return _used(operand, sum(event.amounts.get(key, 1 if operand.step == 1 and iri.endswith("count") else 0) for event in exercised))
    if operand.values == "duration" and now is not None:
        anchor = world.anchors.get(iri)
        if anchor is None and (exercised := _exercises(policy, world)):
            anchor = exercised[-1].at if iri == TIME_INTERVAL else exercised[0].at
        at = None if anchor is None else values.microseconds(anchor)
        if at is not None:
            return Since(at, now)
    return _quantity(operand, unit, request, world)


def _exercises(policy: Policy, world: World) -> list[Event]:
    """The acts of the log that are uses, and not performances of duties, in the order of time."""
    duties = {
        action.iri
        for rule in policy.rules
        for duty in (rule, *rule.duties)
        if duty.kind not in ("permission", "prohibition")
        for action in duty.actions
    }
    acts = [event for event in world.log if not event.duty and policy.registry.actions.get(event.action) not in duties]
    return sorted(acts, key=lambda event: event.at)


def _used(operand: Operand | None, number: Number) -> Number:
    """What a counter would stand at with one more use (odrl.md 1.7): `lteq 10` lets ten uses through and not eleven."""
    return number + (operand.step if operand else 0)


def _quantity(operand: Operand, unit: str, request: Request, world: World) -> Fact | None:
    """The one number or duration that the request or the world states in this unit."""
    found: set[Fact] = set()
    names = [operand.iri, compact(operand.iri), *([unit] if unit else [])]
    for source in (request.params, world.facts):
        for name in names:
            for raw in _listed(source.get(name)):
                of = raw.get("unit", "") if isinstance(raw, Mapping) else ""
                if unit not in (name, of):
                    continue
                value = {k: v for k, v in raw.items() if k != "unit"} if isinstance(raw, Mapping) else raw
                try:
                    found.add(values.number(value)[0] if operand.values == "number" else _exact(values.length(value)[0]))
                except PolicyError:
                    return None
    return found.pop() if len(found) == 1 else None


def _exact(span: Span) -> int:
    if span.months:
        raise PolicyError("a duration in months is no fact")
    return span.microseconds


def _listed(given: object) -> Sequence[object]:
    if given is None:
        return ()
    return tuple(given) if isinstance(given, tuple | list | set | frozenset) else (given,)


def _one(found: dict[str | None, None]) -> Fact | None:
    return next(iter(found)) if len(found) == 1 else None


def stated(operand: str, source: Mapping[str, object]) -> dict[str | None, None]:
    """The values that a mapping states for an operand, in order; None stands for those that cannot be read, and counts as not known."""
    found: dict[str | None, None] = {}
    for spelling in dict.fromkeys((operand, compact(operand))):
        for raw in _listed(source.get(spelling)):
            try:
                found[values.term(raw)] = None
            except PolicyError:
                found[None] = None
    return found
