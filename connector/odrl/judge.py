"""The judgement itself: which rules speak about a request, what is known about it, and what follows in Kleene's logic.

A request with several values of a usage operand is several acts ("atoms"): it is permitted only if each of them is, and a prohibition that
bites one of them bites the request. Otherwise "research is permitted" would let a request for research and marketing through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from connector.odrl.codes import Code, Stage
from connector.odrl.duties import duty_actions, gate, state_of
from connector.odrl.facts import with_this_use
from connector.odrl.judges import all_of, any_of
from connector.odrl.model import (
    FALSE,
    TRUE,
    UNKNOWN,
    Action,
    Constraint,
    Fact,
    Facts,
    Judge,
    Members,
    Node,
    Options,
    Policy,
    Request,
    Rule,
    Scope,
    Window,
    World,
    conjuncts,
    leaves,
)

T = TypeVar("T")

LATER: Final = frozenset({"agreement", "transfer", "end"})  # stages at which a fact is measured, and not before
CLASHES_MAX: Final = 100  # more than anybody mends in one go
CLASH_STEPS_MAX: Final = 40_000  # pairs of words and constraints that are looked at; the rest may meet, for all that is known
WORLDS_KEPT_MAX: Final = 8  # memberships for which the clashes of a policy are kept


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
    return all_of([rule.judge, refined(rule, within, request, world)]) if rule.refinements else rule.judge


def refined(rule: Rule, within: frozenset[str], request: Request, world: World) -> Judge:
    """The judge of the refinements: of action, target and assignee one alternative each that the request falls under. `within` is what the
    action of the request is included in."""
    ways = _ways(rule, within, request, world)
    return all_of([any_of([all_of([node.judge for node in way]) for way in part]) for part in ways if part and all(part)])


def _ways(rule: Rule, within: frozenset[str], request: Request, world: World) -> list[list[tuple[Node, ...]]]:
    """The refinements of those actions, targets and assignees of a rule that a request falls under."""
    return [
        [action.refinements for action in rule.actions if action.iri in within],
        [scope.refinements for scope in rule.targets if scope.holds(request.target, world)],
        [scope.refinements for scope in rule.assignees if scope.holds(request.party, world)],
    ]


def weigh(case: Case, permissions: Sequence[Spoken], prohibitions: Sequence[Spoken], atoms: Sequence[Facts], *, enforcing: bool) -> int:
    """TRUE to permit, FALSE to deny, UNKNOWN (never where it is enforced) if a missing fact decides."""
    worst = TRUE
    if prohibitions and case.conflict == "permit":
        prohibitions = ()  # where a permission grants, it wins; where none does, nothing is permitted anyway
    for facts in atoms:
        state = FALSE
        for spoken in permissions:
            if (found := granted(case, spoken, facts)) > state:
                state = found
                if state == TRUE:
                    break
        for spoken in prohibitions:
            state = min(state, TRUE - spoken.judge(facts_of(case, spoken.rule, facts)))
        if state == FALSE or (enforcing and state == UNKNOWN):
            return FALSE
        if state == UNKNOWN:
            worst = UNKNOWN
    return worst


def granted(case: Case, spoken: Spoken, facts: Facts) -> int:
    """Whether a permission grants: its constraints hold and none of its duties stands in the way."""
    own = facts_of(case, spoken.rule, facts)
    state = spoken.judge(own)
    if state == FALSE or not spoken.rule.duties:
        return state
    return min(state, gate(case.policy, spoken.rule, case.world, case.now, own, case.options, case.request.stage))


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
    grants = grants or [one.rule for one in case.permissions if one.judge(facts_of(case, one.rule, facts)) != FALSE]
    return [min(grants, key=lambda rule: (_open(case, rule, facts), _named(rule)))] if len(grants) > 1 else grants


def _open(case: Case, rule: Rule, facts: Facts) -> int:
    """How many duties of a permission are not done yet."""
    own = facts_of(case, rule, facts)
    return sum(state_of(case.policy, duty, case.world, case.now, own) in ("pending", "overdue") for duty in rule.duties)


def _named(rule: Rule) -> list[str]:
    """What has to be done, in an order of its own."""
    return sorted(action.iri for duty in rule.duties for action in duty.actions)


def waits(case: Case, spoken: Spoken, facts: Facts) -> bool:
    """Whether a rule is left to the transfer: nothing is missing at the negotiation but what is measured later (odrl.md 1.4), by somebody
    who is there to measure it."""
    own = facts_of(case, spoken.rule, facts)
    if case.request.stage != Stage.NEGOTIATION or spoken.judge(own) != UNKNOWN:
        return False
    operands, rule = case.policy.registry.operands, spoken.rule
    within = reach(case.policy, rule.kind, case.request.action)
    refined = (node for part in _ways(rule, within, case.request, case.world) for way in part for node in way)
    missing = [leaf for leaf in leaves((*rule.constraints, *refined)) if leaf.judge(own) == UNKNOWN]
    later = all(isinstance(leaf, Constraint) and operands[leaf.operand].stage in LATER and _measured(case, leaf) for leaf in missing)
    return bool(missing) and later


def unknown_code(case: Case, missing: Iterable[Node]) -> Code:
    """The code for constraints that are not known: whether a fact is missing, or whoever could measure it."""
    measured = all(not isinstance(leaf, Constraint) or _measured(case, leaf) for leaf in missing)
    return Code.CONSTRAINT_UNKNOWN if measured else Code.OPERAND_UNSUPPORTED


def _measured(case: Case, leaf: Constraint) -> bool:
    """Whether somebody measures or logs the fact, as far as that is asked of anybody."""
    known = case.options.measured
    return known is None or leaf.fact in known or case.policy.registry.operands[leaf.operand].source not in ("meter", "log")


def facts_of(case: Case, rule: Rule, facts: Facts) -> Facts:
    """The facts with what this rule alone has used up."""
    used = case.world.used
    if not used or not case.policy.measures:
        return facts
    own: dict[str, Fact] = {}
    for key in used:
        if isinstance(key, tuple) and key[0] == rule.path:
            own[key[1]] = with_this_use(case.policy.registry.operands.get(key[1].partition(" ")[0]), used[key])
    return {**facts, **own} if own else facts


def clashes(policy: Policy, world: World) -> list[tuple[Rule, Rule]]:
    """The permissions and prohibitions of a policy that may both apply to one act, at most CLASHES_MAX of them. Which do not is said for
    certain only where actions, targets, parties, or what one constraint of each asks of a single value have nothing in common, and only as
    far as CLASH_STEPS_MAX lead."""
    kept: dict[object, list[tuple[Rule, Rule]]] = policy.memo.setdefault(clashes, {})
    key = frozenset(world.member_of.items())
    found = kept.get(key)
    if found is None:
        found = list(islice(_clashes(policy, world), CLASHES_MAX))
        if len(kept) < WORLDS_KEPT_MAX:
            kept[key] = found
    return found


def _clashes(policy: Policy, world: World) -> Iterator[tuple[Rule, Rule]]:
    left = CLASH_STEPS_MAX
    bounds = {rule.path: _bounds(rule) for rule in (*policy.permissions, *policy.prohibitions)}
    everybody = tuple(Scope(party) for party in sorted(policy.assignees))
    overlap = partial(_overlap, world)
    for one in policy.permissions:
        mine, ours = bounds[one.path], one.assignees or everybody
        for other in policy.prohibitions:
            its, theirs = bounds[other.path], other.assignees or everybody
            left -= 1 + len(one.actions) * len(other.actions) + len(mine) * len(its)
            left -= len(one.targets) * len(other.targets) + len(one.assignees) * len(other.assignees)
            if left < 0 or (
                _meet(one.actions, other.actions, _related)
                and _meet(one.targets, other.targets, overlap)
                and _meet(ours, theirs, overlap)
                and not _kept_apart(policy, mine, its)
            ):
                yield one, other


def _bounds(rule: Rule) -> list[tuple[str, Constraint]]:
    return [(node.fact, node) for node in conjuncts(rule.constraints) if isinstance(node, Constraint)]


def _meet(ours: Sequence[T], yours: Sequence[T], both: Callable[[T, T], bool]) -> bool:
    """Whether one of ours and one of yours hold of the same; none stands for any."""
    if not ours or not yours:
        return True
    for a in ours:  # a generator for each of the pairs of rules takes longer than what it asks
        for b in yours:
            if both(a, b):
                return True
    return False


def _kept_apart(policy: Policy, mine: Sequence[tuple[str, Constraint]], its: Sequence[tuple[str, Constraint]]) -> bool:
    for fact, one in mine:
        for same, other in its:
            if fact == same and _apart(policy, one, other):
                return True
    return False


def _related(one: Action, other: Action) -> bool:
    return one.iri in other.within or other.iri in one.within


def _overlap(world: World, one: Scope, other: Scope) -> bool:
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
