"""(policy, request, world) -> decision. Total: it never raises, and what it does not know it does not permit."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Final

from connector.errors import PolicyError
from connector.odrl.codes import Code, Result, Stage
from connector.odrl.decision import Decision
from connector.odrl.duties import blocks, state_of, turns_of
from connector.odrl.facts import gather
from connector.odrl.judge import Case, Spoken, clashes, matching, waits, weigh
from connector.odrl.judges import turns, turns_in_order
from connector.odrl.model import (
    DEFAULT_OPTIONS,
    FALSE,
    TRUE,
    UNKNOWN,
    Constraint,
    Fact,
    Facts,
    Lapse,
    Options,
    Policy,
    Request,
    Since,
    World,
    constraints_of,
    leaves,
)
from connector.odrl.operands import DATE_TIME
from connector.odrl.registry import Registry, registry_of
from connector.odrl.values import instant, microseconds
from connector.values import replace

# Constraints judged in search of the next change: a few milliseconds, whatever a peer has written. A policy of up to a hundred constraints
# and values is always searched to its end; in a larger one the search may stop at an instant at which nothing changes yet.
LOOK_AHEAD_MAX: Final = 20_000
LOOKS_MAX: Final = 3  # for the end of a permission, 2 ms each at the worst; one look sees every instant of a policy of ordinary size
DUTY_COST: Final = 50  # the state of a duty takes as long as so many constraints


def evaluate(policy: Policy, request: Request, world: World, *, options: Options = DEFAULT_OPTIONS) -> Decision:
    """Decide whether `policy` lets `request` happen in `world`.

    A permission grants if it speaks about action, target and party, all its constraints and the refinements of these hold, and no duty
    stands in the way; one granting permission is enough. A prohibition that matches and is satisfied denies, unless `conflict` is `permit`.
    A missing fact leaves the result `unknown` at the stage `catalog`; at every other it closes: an unknown permission does not grant, an
    unknown prohibition applies. At `negotiation`, facts that are measured later (a count of uses) are left to the transfer. A policy with
    a finding of severity `error` permits nothing at any stage. Every stage is judged at `world.now`: an offer whose time has not come is
    denied, and `valid_until` says when it comes. A policy that was read under other profiles than those of `options` is read again.
    """
    try:
        return decide(under(policy, options), request, world, options)
    except Exception as error:
        # A defect of this engine, for which no peer may be let in: it denies, and the decision says what it was.
        case = Case(policy, request, world, options, None, ())
        return Decision(Result.DENY, None, world.now, case, Code.EVALUATION_FAILED, type(error).__name__)


def under(policy: Policy, options: Options) -> Policy:
    """The policy as it reads under the options. Without profiles of their own, options leave it as it was read."""
    if options is DEFAULT_OPTIONS or (not options.profiles and not options.vocabularies and options.duration_mode == "strict"):
        return policy
    registry = registry_of(options)
    if policy.registry is registry:
        return policy
    known: tuple[Registry, Policy] | None = policy.memo.get(under)
    if known is None or known[0] is not registry:
        from connector.odrl_reading.parse import load

        try:
            again = load(policy.document, options=options, strict=False, parents=policy.parents, references=policy.references)
        except PolicyError:
            again = policy
        known = policy.memo[under] = (registry, again)
    return known[1]


def decide(policy: Policy, request: Request, world: World, options: Options) -> Decision:
    """`evaluate` without its net: an error here is a defect, and tests see it."""
    now = microseconds(world.now)
    if policy.refused:
        return Decision(Result.DENY, None, world.now, Case(policy, request, world, options, now, ()))
    permissions = matching(policy, policy.permissions, request, world)
    prohibitions = matching(policy, policy.prohibitions, request, world)
    case = Case(policy, request, world, options, now, gather(policy, request, world, now, options), permissions, prohibitions)
    if not case.atoms or not permissions:
        return Decision(Result.DENY, None, world.now, case)
    if case.conflict == "invalid" and clashes(policy, world):  # void as a whole, whatever is asked for and when (ODRL 2.2 IM, 2.9)
        return Decision(Result.DENY, None, world.now, case)
    result = _result(case)
    return Decision(result, None if now is None else _next_change(case, result, now), world.now, case)


def lapse(policy: Policy, request: Request, world: World, decision: Decision, *, options: Options = DEFAULT_OPTIONS) -> float | None:
    """The instant (POSIX seconds) at which a permission ends: the first at which it is decided otherwise, None if there is none.

    An instant at which the answer could change but does not (one of several permissions ends) is passed over; after LOOKS_MAX of them the
    next one counts.
    """
    for _ in range(LOOKS_MAX):
        if decision.valid_until is None or not decision.permitted:
            break
        at = decision.valid_until
        decision = evaluate(policy, request, replace(world, now=at), options=options)
        if not decision.permitted:
            return at.timestamp()
    return decision.valid_until.timestamp() if decision.valid_until else None


def visible(
    offers: Iterable[tuple[str, str, Policy]], request: Request, world: World, *, options: Options = DEFAULT_OPTIONS
) -> dict[str, Decision]:
    """Which offers a catalog shows to a requester: id -> the decision, `permit`, `permit-with` or `unknown`; a denied one is absent.

    `offers` are (id, the asset that it hangs on, policy). Each distinct body is decided once, however many offers mean the same: a body is
    what was read in a policy, without its id, asset and parties.
    """
    found: dict[str, Decision] = {}
    known: dict[tuple[bytes, frozenset[str], Registry], Decision] = {}
    for id, asset, policy in offers:
        if policy.target is not None and policy.target != asset:
            continue
        key = (body(policy), policy.assignees, policy.registry)
        decision = known.get(key)
        if decision is None or policy.targeted:
            decision = evaluate(policy, replace(request, target=asset, stage=Stage.CATALOG), world, options=options)
            known[key] = decision
        if decision.result is not Result.DENY:
            found[id] = decision
    return found


def body(policy: Policy) -> bytes:
    """The digest of what was read in a policy, whatever its id, its asset and its parties. It is taken of the meaning and not of the
    document: one document means something else under another context, with other parents, or where a reference leads elsewhere."""
    known: bytes | None = policy.memo.get(body)
    if known is None:
        said = (policy.kind, policy.timestamp, policy.conflict, policy.refused, policy.opaque, policy.rules)
        known = policy.memo[body] = blake2b(repr(said).encode("utf-8", "surrogatepass"), digest_size=32).digest()
    return known


def _result(case: Case) -> Result:
    state = _state(case)
    if state == TRUE:
        return Result.PERMIT_WITH if _owes(case) else Result.PERMIT
    return Result.DENY if state == FALSE else Result.UNKNOWN


def _state(case: Case) -> int:
    stage = case.request.stage
    if stage == Stage.CATALOG:
        return weigh(case, case.permissions, case.prohibitions, case.atoms, enforcing=False)
    if stage == Stage.NEGOTIATION:
        if (state := weigh(case, case.permissions, case.prohibitions, case.atoms, enforcing=False)) != UNKNOWN:
            return state
        permissions = [_left_open(case, one, TRUE) for one in case.permissions]
        prohibitions = [_left_open(case, one, FALSE) for one in case.prohibitions]
        return weigh(case, permissions, prohibitions, case.atoms, enforcing=True)
    if case.policy.obligations and _held_up(case):
        return FALSE
    return weigh(case, case.permissions, case.prohibitions, case.atoms, enforcing=True)


def _left_open(case: Case, spoken: Spoken, state_then: int) -> Spoken:
    """A rule that is left to the transfer where nothing is missing but what is measured later (odrl.md 1.4): it counts as `state_then`."""

    def judge(facts: Facts) -> int:
        state = spoken.judge(facts)
        return state_then if state == UNKNOWN and waits(case, spoken, facts) else state

    return Spoken(spoken.rule, judge)


def _held_up(case: Case) -> bool:
    """Whether an obligation stands in the way of the use: one that is overdue, or that shapes the data and is not done."""
    policy, world, now, options, stage = case.policy, case.world, case.now, case.options, case.request.stage
    states = ((rule, state_of(policy, rule, world, now, facts)) for rule in policy.obligations for facts in case.atoms)
    return any(blocks(rule, state, options, stage) for rule, state in states)


def _owes(case: Case) -> bool:
    """Whether the permit comes with something that is still to be done."""
    if not case.policy.dutiful:
        return False
    return Decision(Result.PERMIT, None, case.world.now, case).owes


def _next_change(case: Case, result: Result, now: int) -> datetime | None:
    """The first instant after now at which the result is another one; between two instants of the policy it cannot change."""
    policy = case.policy
    instants: Sequence[int] = policy.instants
    if (runs := _runs(policy)) and (more := [*_lapses(case), *_deadlines(case), *_sequences(policy)]):
        instants = sorted({*instants, *more})
    if not instants or instants[-1] <= now:
        return None
    steps = max(1, LOOK_AHEAD_MAX // (_cost(policy) * len(case.atoms)))
    first = bisect_right(instants, now)
    for at in instants[first : first + steps]:
        atoms = tuple([_at(facts, at, runs) for facts in case.atoms])
        if _result(Case(policy, case.request, case.world, case.options, at, atoms, case.permissions, case.prohibitions)) is not result:
            return instant(at)
    later = first + steps
    return instant(instants[later]) if later < len(instants) else None


def _cost(policy: Policy) -> int:
    """How many constraints a judgement of the policy is worth."""
    known: int | None = policy.memo.get(_cost)
    if known is None:
        duties = sum(len(rule.duties) + (rule.kind == "obligation") for rule in policy.rules)
        known = policy.memo[_cost] = policy.leaves + DUTY_COST * duties
    return known


def _runs(policy: Policy) -> bool:
    """Whether anything in a policy runs: a duration, or the time for a duty. Nothing does in most."""
    known: bool | None = policy.memo.get(_runs)
    if known is None:
        durations = any(isinstance(leaf, Constraint) and isinstance(leaf.test, Lapse) for leaf in constraints_of(policy))
        known = policy.memo[_runs] = durations or policy.dutiful
    return known


def _at(facts: Facts, at: int, runs: bool) -> Facts:
    then: dict[str, Fact] = {**facts, DATE_TIME: at}
    if runs:
        then |= {key: Since(fact.anchor, at) for key, fact in facts.items() if isinstance(fact, Since)}
    return then


def _lapses(case: Case) -> Iterable[int]:
    """The instants at which a running duration comes to a length of the policy."""
    running = {key: fact for facts in case.atoms for key, fact in facts.items() if isinstance(fact, Since)}
    if not running:
        return
    for rule in case.policy.rules:
        for leaf in leaves((*rule.constraints, *rule.refinements, *(node for duty in rule.duties for node in duty.constraints))):
            if isinstance(leaf, Constraint) and isinstance(leaf.test, Lapse) and (since := running.get(leaf.fact)) is not None:
                yield from turns(since.anchor, leaf.test)


def _deadlines(case: Case) -> Iterable[int]:
    """The instants at which a duty begins or becomes overdue."""
    for rule in case.policy.rules:
        for duty in (rule, *rule.duties) if rule.kind == "obligation" else rule.duties:
            for facts in case.atoms[:1]:  # the clocks are the same for each act of the request
                yield from turns_of(duty, case.world, case.policy, facts)


def _sequences(policy: Policy) -> tuple[int, ...]:
    """The instants at which a delay within a sequence comes to its length."""
    known: tuple[int, ...] | None = policy.memo.get(_sequences)
    if known is None:
        nodes = [node for rule in policy.rules for node in (*rule.constraints, *rule.refinements)]
        nodes += [node for rule in policy.rules for duty in rule.duties for node in duty.constraints]
        known = policy.memo[_sequences] = tuple(at for node in nodes for at in turns_in_order(node))
    return known
