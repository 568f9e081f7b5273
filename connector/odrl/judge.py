"""The judgement itself: which rules speak about a request, what is known about it, and what follows in Kleene's logic.

A request with several values of a usage operand is several acts ("atoms"): it is permitted only if each of them is, and a prohibition that
bites one of them bites the request. Otherwise "research is permitted" would let a request for research and marketing through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from connector.errors import PolicyError
from connector.odrl import values
from connector.odrl.codes import Stage
from connector.odrl.core import DATE_TIME, DELAY_PERIOD, ELAPSED_TIME, PARTICIPANT, POLICY_USAGE, TIME_INTERVAL
from connector.odrl.duties import blocking, conjuncts, duty_actions, exercises, signed, state_of
from connector.odrl.judges import all_of, any_of
from connector.odrl.model import (
    DEFAULT_OPTIONS,
    FALSE,
    NEVER,
    TRUE,
    UNKNOWN,
    Action,
    Constraint,
    Fact,
    Facts,
    Judge,
    Members,
    Node,
    Number,
    Options,
    Policy,
    Request,
    Rule,
    Scope,
    Since,
    Window,
    World,
    fact_key,
    leaves,
)
from connector.odrl.registry import Operand
from connector.odrl.vocabulary import compact

ATOMS_MAX: Final = 16  # acts in one request; who names more purposes than this states none, and each is judged by itself
LATER: Final = frozenset({"agreement", "transfer", "end"})  # stages at which a fact is measured, and not before


class Spoken(NamedTuple):
    """A rule that speaks about a request, and the judge of its constraints together with the refinements of what it speaks about."""

    rule: Rule
    judge: Judge


class Case(NamedTuple):
    """One policy, one request, and what was known when it was judged. `atoms` is empty if there were more than ATOMS_MAX; `permissions` and
    `prohibitions` are those that speak about the request."""

    policy: Policy
    request: Request
    world: World
    options: Options
    now: int | None
    atoms: tuple[Facts, ...]
    permissions: Sequence[Spoken] = ()
    prohibitions: Sequence[Spoken] = ()

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
        return any(scope.holds(target, world) for scope in rule.targets)
    return policy.target is None or policy.target == target or Scope(policy.target).holds(target, world)


def addresses(policy: Policy, rule: Rule, party: str, world: World) -> bool:
    """Whether the rule is for this party; its own assignees go before those of the policy."""
    if rule.assignees:
        return any(scope.holds(party, world) for scope in rule.assignees)
    return not policy.assignees or party in policy.assignees or not policy.assignees.isdisjoint(world.member_of.get(party, ()))


def covers(rule: Rule, within: frozenset[str]) -> bool:
    """Whether the rule is about an action, given with all that it is included in; one without an action is about any."""
    if not rule.actions:
        return True
    for action in rule.actions:  # noqa: SIM110 - this runs for every rule of every decision, and a generator takes three times as long
        if action.iri in within:
            return True
    return False


def reach(policy: Policy, kind: str, action: str) -> frozenset[str]:
    """An action in any spelling -> the actions that a rule of this kind may name to be about it: itself and all that it is included in.

    What somebody has to do under the policy is prohibited only by its own name: a prohibition of `use`, in which ODRL includes nearly
    every action, would forbid to delete and to pay (odrl.md 1.8, row 8b).
    """
    within = policy.registry.action_within(action)
    if kind == "prohibition" and (named := policy.registry.actions.get(action)) in duty_actions(policy) and named is not None:
        return frozenset({named})
    return within


def matching(policy: Policy, rules: tuple[Rule, ...], request: Request, world: World) -> list[Spoken]:
    """The rules (all of one kind) that speak about this action of this party on this target."""
    if not rules:
        return []
    within, party = reach(policy, rules[0].kind, request.action), request.party
    return [
        Spoken(rule, _whole_judge(rule, within, request, world))
        for rule in rules
        if covers(rule, within) and addresses(policy, rule, party, world) and on_target(policy, rule, request, world)
    ]


def _whole_judge(rule: Rule, within: frozenset[str], request: Request, world: World) -> Judge:
    """Constraints, and of each part one alternative whose refinements hold."""
    if not rule.refinements:
        return rule.judge
    ways: list[list[tuple[Node, ...]]] = [
        [action.refinements for action in rule.actions if action.iri in within],
        [scope.refinements for scope in rule.targets if scope.holds(request.target, world)],
        [scope.refinements for scope in rule.assignees if scope.holds(request.party, world)],
    ]
    refined = [any_of([all_of([node.judge for node in way]) for way in part]) for part in ways if part and all(part)]
    return all_of([rule.judge, *refined])


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
        if not permit_wins:
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


def deciding_atom(case: Case) -> Facts:
    """The facts of the act that decided: the first that fares worst."""
    if len(case.atoms) == 1:
        return case.atoms[0]
    worst = weigh(case, case.permissions, case.prohibitions, case.atoms, enforcing=case.enforcing)
    for atom in case.atoms:
        if weigh(case, case.permissions, case.prohibitions, (atom,), enforcing=case.enforcing) == worst:
            return atom
    return {}


def granting(case: Case, facts: Facts) -> list[Rule]:
    """The permission that grants and leaves least to be done, or else one that would grant if its duties did not stand in the way; at most
    one. Permissions are alternatives: the order in which they are written says nothing."""
    grants = [one.rule for one in case.permissions if granted(case, one, facts) == TRUE or waits(case, one, facts)]
    if grants:
        return [min(grants, key=lambda rule: _open(case, rule, facts))] if len(grants) > 1 else grants
    return [one.rule for one in case.permissions if one.judge(facts_of(case, one.rule, facts)) != FALSE][:1]


def _open(case: Case, rule: Rule, facts: Facts) -> int:
    """How many duties of a permission are not done yet."""
    own = facts_of(case, rule, facts)
    return sum(state_of(case.policy, duty, case.world, case.now, own) in ("pending", "overdue") for duty in rule.duties)


def waits(case: Case, spoken: Spoken, facts: Facts) -> bool:
    """Whether a rule is left to the transfer: nothing is missing at the negotiation but what is measured later (odrl.md 1.4)."""
    own = facts_of(case, spoken.rule, facts)
    if case.request.stage != Stage.NEGOTIATION or spoken.judge(own) != UNKNOWN:
        return False
    operands = case.policy.registry.operands
    missing = [leaf for leaf in leaves((*spoken.rule.constraints, *spoken.rule.refinements)) if leaf.judge(own) == UNKNOWN]
    return bool(missing) and all(isinstance(leaf, Constraint) and operands[leaf.operand].stage in LATER for leaf in missing)


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


def gather(policy: Policy, request: Request, world: World, now: int | None, options: Options = DEFAULT_OPTIONS) -> tuple[Facts, ...]:
    """What is known, one mapping for each act of the request; () if there are more than ATOMS_MAX."""
    known: dict[str, Fact] = {}
    if now is not None:
        known[DATE_TIME] = now
    registry = policy.registry
    for iri, unit in policy.measures:
        fact = _measured(registry.operands[iri], unit, policy, request, world, now, options)
        if fact is not None:
            known[fact_key(iri, unit)] = fact
    several = []
    for iri in policy.usage:
        found = stated(iri, request.params)
        found |= stated(iri, world.facts)
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
    operand: Operand, unit: str, policy: Policy, request: Request, world: World, now: int | None, options: Options
) -> Fact | None:
    iri = operand.iri
    if iri == PARTICIPANT:
        return frozenset({request.party}) if request.party else None
    if operand.kind in ("subject", "declarative"):
        told = stated(iri, world.facts)
        if operand.source != "claims":  # what a credential has to show, nobody gets by declaring it
            told |= stated(iri, request.params)
        return frozenset(value for value in told if value is not None) if told and None not in told else None
    if operand.values == "event":
        return "during" if unit == POLICY_USAGE else _one(stated(fact_key(iri, unit), world.facts))
    if operand.kind == "counter":
        used = _counted(operand, fact_key(iri, unit), policy, world)
        if used is not None:
            return used
    elif operand.values == "duration" and now is not None and (since := _since(iri, policy, world, now, options)) is not None:
        return since
    return _quantity(operand, unit, request, world)


def _counted(operand: Operand, key: str, policy: Policy, world: World) -> Number | None:
    """What a counter would stand at with this use: what the world says, else the sum over the log."""
    if (used := world.used.get(key)) is not None:
        return _used(operand, used)
    if world.log is None:
        return None
    if operand.step and operand.iri.endswith("/count"):
        return _used(operand, sum(event.amounts.get(key, 1) for event in exercises(policy, world)))
    told = [event.amounts[key] for event in world.log if key in event.amounts]
    return _used(operand, sum(told)) if told or not exercises(policy, world) else None  # uses without an amount are of unknown size


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
        return NEVER if iri == TIME_INTERVAL else Since(now, now)  # this use is the first
    return Since(max(known) if iri == TIME_INTERVAL else min(known), now)


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
                    found.add(values.number(value)[0] if operand.values == "number" else values.exact(value))
                except PolicyError:
                    return None
    return found.pop() if len(found) == 1 else None


def _listed(given: object) -> Sequence[object]:
    if given is None:
        return ()
    return tuple(given) if isinstance(given, tuple | list | set | frozenset) else (given,)


def _one(found: dict[str | None, None]) -> Fact | None:
    return next(iter(found)) if len(found) == 1 else None


def stated(operand: str, source: Mapping[str, object]) -> dict[str | None, None]:
    """The values that a mapping states for an operand, in order; None stands for those that cannot be read, and counts as not known."""
    found: dict[str | None, None] = {}
    for spelling in (operand, compact(operand)):
        given = source.get(spelling)
        if given is None:
            continue
        for raw in _listed(given):
            try:
                found[values.term(raw)] = None
            except PolicyError:
                found[None] = None
    return found


def clashes(policy: Policy, world: World) -> list[tuple[Rule, Rule]]:
    """The permissions and prohibitions of a policy that may both apply to one act. Which do not is said for certain only where actions,
    targets, parties, or what one constraint of each asks of a single value have nothing in common."""
    return [(one, other) for one in policy.permissions for other in policy.prohibitions if _may_meet(policy, one, other, world)]


def _may_meet(policy: Policy, one: Rule, other: Rule, world: World) -> bool:
    if one.actions and other.actions and not any(_related(a, b) for a in one.actions for b in other.actions):
        return False
    everybody = tuple(Scope(party) for party in sorted(policy.assignees))
    scopes = ((one.targets, other.targets), (one.assignees or everybody, other.assignees or everybody))
    if any(mine and yours and not any(_overlap(a, b, world) for a in mine for b in yours) for mine, yours in scopes):
        return False
    bounds = [node for node in conjuncts(one.constraints) if isinstance(node, Constraint)]
    limits = [node for node in conjuncts(other.constraints) if isinstance(node, Constraint)]
    return not any(_apart(policy, a, b) for a in bounds for b in limits if a.fact == b.fact)


def _related(one: Action, other: Action) -> bool:
    return one.iri in other.within or other.iri in one.within


def _overlap(one: Scope, other: Scope, world: World) -> bool:
    return one.collection or other.collection or one.holds(other.id, world) or other.holds(one.id, world)


def _apart(policy: Policy, one: Constraint, other: Constraint) -> bool:
    """Whether no value satisfies both; a subject has several at once."""
    a, b = one.test, other.test
    if isinstance(a, Window) and isinstance(b, Window) and not a.negated and not b.negated:
        starts, ends = [cut for cut in (a.start, b.start) if cut], [cut for cut in (a.end, b.end) if cut]
        return bool(starts and ends) and max(starts) >= min(ends)
    if not isinstance(a, Members) or not isinstance(b, Members) or not policy.registry.operands[one.operand].single:
        return False
    plain = ("eq", "isAnyOf")
    if a.operator in plain and b.operator in plain:
        return a.values.isdisjoint(b.values)
    for chosen, barred in ((a, b), (b, a)):
        if chosen.operator in plain and barred.operator in ("neq", "isNoneOf"):
            return chosen.values <= barred.values
    return False
